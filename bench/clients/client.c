/* bench/clients for liblatchkey: `client MODE SECONDS`. Reads keys from standard input, one a line;
 * all must be valid. Prints the number of answers and the seconds; exits with 1 at a wrong answer.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "latchkey/client.h"

enum { KEYS_MAX = 1 << 17, AT_ONCE = 64 };

static latchkey_key keys[KEYS_MAX];
static size_t key_count;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void require(int good, const latchkey_client* lk) {
  if (good) return;
  fprintf(stderr, "a wrong answer, or none: %s\n", latchkey_error_text(lk));
  exit(1);
}

static size_t one(latchkey_client* lk, size_t at) {
  latchkey_answer answer;
  const latchkey_key key = keys[at % key_count];
  require(latchkey_verify(lk, key.bytes, key.length, NULL, &answer) == LATCHKEY_VALID, lk);
  return 1;
}

/* Sends a question for each answer, so that their number in flight is constant. */
static size_t pipelined(latchkey_client* lk, size_t at) {
  size_t taken = 0;
  while (latchkey_pending(lk) < AT_ONCE) {
    require(latchkey_start_verify(lk, NULL, &keys[at++ % key_count], 1, NULL) == 0, lk);
  }
  latchkey_step(lk);
  struct pollfd ready = {.fd = latchkey_fd(lk), .events = latchkey_events(lk)};
  poll(&ready, 1, latchkey_due_ms(lk));
  latchkey_step(lk);
  for (latchkey_reply reply; latchkey_take(lk, &reply); ++taken) {
    require(reply.failure == 0 && reply.answers[0].verdict == LATCHKEY_VALID, lk);
  }
  return taken;
}

static size_t batch(latchkey_client* lk, size_t at) {
  latchkey_answer answers[AT_ONCE];
  at %= key_count - AT_ONCE;
  require(latchkey_verify_many(lk, keys + at, AT_ONCE, NULL, answers) == 0, lk);
  for (size_t i = 0; i < AT_ONCE; ++i) require(answers[i].verdict == LATCHKEY_VALID, lk);
  return AT_ONCE;
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  char line[256];
  while (key_count < KEYS_MAX && fgets(line, sizeof line, stdin) != NULL) {
    const size_t length = strcspn(line, "\n");
    keys[key_count++] = (latchkey_key){strndup(line, length), length};
  }
  size_t (*step)(latchkey_client*, size_t) = strcmp(argv[1], "one") == 0         ? one
                                             : strcmp(argv[1], "pipelined") == 0 ? pipelined
                                                                                 : batch;
  latchkey_client* lk = latchkey_open(NULL);
  const double started = now(), until = started + atof(argv[2]);
  size_t answers = 0;
  while (now() < until) answers += step(lk, answers);
  printf("{\"answers\":%zu,\"seconds\":%.6f}\n", answers, now() - started);
  latchkey_close(lk);
  return 0;
}
