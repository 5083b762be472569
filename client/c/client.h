/* What a handle consists of; its two halves are connection.c (the socket, time, retries) and
 * calls.c (what can be asked). */
#ifndef LATCHKEY_C_CLIENT_H
#define LATCHKEY_C_CLIENT_H

#include <sys/un.h>

#include "client/c/arena.h"
#include "client/c/conversation.h"

struct latchkey_client {
  lk_conversation talk;
  struct sockaddr_un address;
  int fd;            /* -1: none */
  int connect_error; /* errno of the last attempt */
  uint32_t timeout_ms;
  uint32_t refusal;  /* of the last blocking call */
  uint32_t delay_ms; /* before the next attempt but one, at most */
  uint64_t retry_at_ms;
  uint64_t random; /* spreads the attempts of many processes */
  unsigned forks;  /* of this process's ancestors when it was last used */
  lk_arena texts;  /* of the last latchkey_verify_many() */
};

/* Milliseconds of a clock that nobody sets. */
uint64_t lk_now_ms(void);

/* Queue a request, see lk_start(). */
int lk_queue(latchkey_client* lk, const lk_request* request, uint64_t deadline_ms, void* context);

/* latchkey_step(), which reads only if there is reason to think that something has come. */
void lk_step(latchkey_client* lk, bool readable);

/* End the connection and forget all that is under way. */
void lk_abandon(latchkey_client* lk);

#endif
