/* Many requests under way at once in an event loop, here with poll(2). Reads keys from standard
 * input, one per line; prints the verdicts in their order.
 *
 *     cc poll_loop.c $(pkg-config --cflags --libs latchkey) -o poll_loop
 */
#include <latchkey/client.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

static int failures;

static void take_replies(latchkey_client* lk) {
  latchkey_reply reply;
  while (latchkey_take(lk, &reply)) {
    if (reply.failure != 0) {
      fprintf(stderr, "no answer: %s\n", reply.text);
      ++failures;
      continue;
    }
    printf("%s\n", latchkey_verdict_name(reply.answers[0].verdict));
  }
}

static void turn(latchkey_client* lk) {
  struct pollfd ready = {.fd = latchkey_fd(lk), .events = latchkey_events(lk)};
  poll(&ready, 1, latchkey_due_ms(lk)); /* poll ignores a negative descriptor */
  latchkey_step(lk);
  take_replies(lk);
}

int main(void) {
  latchkey_client* lk = latchkey_open(NULL);
  if (lk == NULL) return 2;
  char line[LATCHKEY_KEY_BYTES_MAX + 2];
  while (fgets(line, sizeof line, stdin) != NULL) {
    const latchkey_key key = {line, strcspn(line, "\n")};
    int failure;
    while ((failure = latchkey_start_verify(lk, NULL, &key, 1, NULL)) == LATCHKEY_FAILED_FULL) {
      turn(lk); /* too many requests under way: finish some first */
    }
    if (failure != 0) {
      fprintf(stderr, "cannot ask: %s\n", latchkey_error_text(lk));
      ++failures;
    }
    latchkey_step(lk);
    take_replies(lk);
  }
  while (latchkey_pending(lk) != 0) turn(lk);
  latchkey_close(lk);
  return failures != 0;
}
