/* Runs the scenario of tests/clients for liblatchkey: one command per line on standard input, its
 * words separated by tabs, and one line of JSON for each on standard output. The commands are
 * in tests/clients/README.md. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "latchkey/client.h"

enum { WORDS_MAX = 4096, LINE_MAX_BYTES = 1 << 20 };

static void print_text(const char* name, const char* text) {
  if (text == NULL) return;
  printf(",\"%s\":\"", name);
  for (; *text != '\0'; ++text) {
    if (*text == '"' || *text == '\\') putchar('\\');
    if ((unsigned char)*text < 0x20) {
      printf("\\u%04x", (unsigned)*text);
    } else {
      putchar(*text);
    }
  }
  putchar('"');
}

static void print_answer(const latchkey_answer* answer) {
  printf("{\"verdict\":\"%s\",\"fresh\":%s", latchkey_verdict_name(answer->verdict),
         answer->fresh ? "true" : "false");
  if (answer->age_ms != LATCHKEY_AGE_UNKNOWN) printf(",\"age_ms\":%u", answer->age_ms);
  print_text("source", answer->source);
  print_text("key_id", answer->key_id);
  print_text("sub", answer->subject);
  print_text("tenant", answer->tenant);
  print_text("scope", answer->scope);
  if (answer->has_expires) printf(",\"exp\":%lld", (long long)answer->expires);
  putchar('}');
}

/* Prints a failure; returns whether there is one. */
static bool print_failure(const latchkey_client* lk, int failure) {
  if (failure >= 0) return false;
  printf("{\"failure\":\"%s\"", latchkey_failure_name(failure));
  if (failure == LATCHKEY_FAILED_REFUSED) {
    print_text("refusal", latchkey_refusal_name(latchkey_refusal(lk)));
  }
  print_text("text", latchkey_error_text(lk));
  puts("}");
  return true;
}

static size_t split(char* text, char separator, char** words, size_t max) {
  size_t count = 0;
  while (count < max && *text != '\0') {
    words[count++] = text;
    char* end = strchr(text, separator);
    if (end == NULL) break;
    *end = '\0';
    text = end + 1;
    if (*text == '\0' && count < max) words[count++] = text;
  }
  return count;
}

typedef struct {
  latchkey_question question;
  char *all[64], *any[64];
} terms;

/* max age, source, all scopes, any scopes; `-` means none. */
static void read_terms(char** words, terms* to) {
  to->question = (latchkey_question)LATCHKEY_QUESTION_INIT;
  if (strcmp(words[0], "any") != 0) {
    to->question.max_age_ms = (uint32_t)strtoul(words[0], NULL, 10);
  }
  if (strcmp(words[1], "-") != 0) to->question.source = words[1];
  if (strcmp(words[2], "-") != 0) {
    to->question.all_scopes_count = split(words[2], ',', to->all, 64);
    to->question.all_scopes = (const char* const*)to->all;
  }
  if (strcmp(words[3], "-") != 0) {
    to->question.any_scopes_count = split(words[3], ',', to->any, 64);
    to->question.any_scopes = (const char* const*)to->any;
  }
}

static void verify(latchkey_client* lk, char** words, size_t count) {
  static latchkey_key keys[WORDS_MAX];
  static latchkey_answer answers[WORDS_MAX];
  terms about;
  read_terms(words, &about);
  words += 4;
  count -= 4;
  int failure = 0;
  if (count == 1) {
    failure = latchkey_verify(lk, words[0], strlen(words[0]), &about.question, answers);
  } else {
    for (size_t i = 0; i < count; ++i) keys[i] = (latchkey_key){words[i], strlen(words[i])};
    failure = latchkey_verify_many(lk, keys, count, &about.question, answers);
  }
  if (print_failure(lk, failure)) return;
  printf("{\"answers\":[");
  for (size_t i = 0; i < count; ++i) {
    if (i != 0) putchar(',');
    print_answer(&answers[i]);
  }
  puts("]}");
}

static void run(latchkey_client* lk, char** words, size_t count) {
  const char* command = words[0];
  latchkey_set_timeout(lk, (uint32_t)strtoul(words[1], NULL, 10));
  words += 2;
  count -= 2;
  const char* json = NULL;
  if (strcmp(command, "verify") == 0) {
    verify(lk, words, count);
  } else if (strcmp(command, "ping") == 0) {
    if (!print_failure(lk, latchkey_ping(lk))) puts("{}");
  } else if (strcmp(command, "sync") == 0) {
    uint64_t waited_us = 0;
    const uint32_t timeout_ms = (uint32_t)strtoul(words[0], NULL, 10);
    if (print_failure(lk, latchkey_sync(lk, timeout_ms, &waited_us))) return;
    printf("{\"waited_us\":%llu}\n", (unsigned long long)waited_us);
  } else if (strcmp(command, "status") == 0) {
    if (!print_failure(lk, latchkey_status(lk, &json))) printf("{\"json\":%s}\n", json);
  } else {
    terms about;
    read_terms(words, &about);
    const int failure = latchkey_why(lk, words[4], strlen(words[4]), &about.question, &json);
    if (!print_failure(lk, failure)) printf("{\"json\":%s}\n", json);
  }
}

int main(void) {
  static char line[LINE_MAX_BYTES];
  static char* words[WORDS_MAX];
  latchkey_client* lk = latchkey_open(NULL);
  if (lk == NULL) return 2;
  while (fgets(line, sizeof line, stdin) != NULL) {
    line[strcspn(line, "\n")] = '\0';
    run(lk, words, split(line, '\t', words, WORDS_MAX));
    fflush(stdout);
  }
  latchkey_close(lk);
  return 0;
}
