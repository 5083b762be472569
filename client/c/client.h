/* The handle. connection.c implements the socket, time and retries; calls.c implements the
 * requests. */
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
  uint32_t delay_ms; /* upper bound of the delay after the next failure */
  uint64_t retry_at_ms;
  uint64_t random; /* randomises the retries of many processes */
  unsigned forks;  /* fork count of this process at the last use */
  lk_arena texts;  /* of the last latchkey_verify_many() */
};

/* Milliseconds of a clock that cannot be set. */
uint64_t lk_now_ms(void);

/* Queues a request, see lk_start(). */
int lk_queue(latchkey_client* lk, const lk_request* request, uint64_t deadline_ms, void* context);

/* latchkey_step(); reads only if `readable`. */
void lk_step(latchkey_client* lk, bool readable);

/* Ends the connection and discards all requests under way. */
void lk_abandon(latchkey_client* lk);

#endif
