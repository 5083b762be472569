/* Reads a key from standard input and prints whether its holder is admitted.
 *
 *     cc verify.c $(pkg-config --cflags --libs latchkey) -o verify
 */
#include <latchkey/client.h>
#include <stdio.h>
#include <string.h>

int main(void) {
  char key[LATCHKEY_KEY_BYTES_MAX + 2];
  if (fgets(key, sizeof key, stdin) == NULL) return 2;
  key[strcspn(key, "\n")] = '\0';

  latchkey_client* lk = latchkey_open(NULL);
  if (lk == NULL) return 2;
  latchkey_answer answer;
  const int verdict = latchkey_verify(lk, key, strlen(key), NULL, &answer);
  if (verdict == LATCHKEY_VALID) {
    printf("in, as %s\n", answer.subject == NULL ? "nobody" : answer.subject);
  } else if (verdict > 0) {
    printf("out: %s\n", latchkey_verdict_name(answer.verdict));
  } else {
    fprintf(stderr, "no answer: %s\n", latchkey_error_text(lk));
  }
  latchkey_close(lk);
  return verdict < 0 ? 2 : verdict != LATCHKEY_VALID;
}
