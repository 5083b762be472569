/* What was asked and what was answered on one connection: bytes out, bytes in, replies in the order
 * of the requests. No socket and no clock: who drives it moves the bytes and knows the time. */
#ifndef LATCHKEY_C_CONVERSATION_H
#define LATCHKEY_C_CONVERSATION_H

#include "client/c/codec.h"

typedef struct {
  uint64_t request_id;
  uint64_t deadline_ms; /* of the owner's clock */
  void* context;
  enum latchkey_type type;
  uint32_t count; /* keys */
  int failure;    /* its reply, if there will be no other */
  uint32_t refusal;
} lk_pending;

typedef struct {
  lk_buffer out, in;
  lk_pending* pending; /* a ring */
  size_t first, count, room;
  uint64_t last_id;
  uint64_t soonest_ms;      /* no deadline is before this; UINT64_MAX: there is none */
  bool in_flight;           /* a part of what is pending has been sent */
  bool lost;                /* the connection is gone: what `in` does not answer has failed, */
  uint64_t lost_id;         /* up to this request; what was started later waits for the next one */
  bool answered;            /* this connection has brought a reply */
  latchkey_answer* answers; /* of the reply that was taken last. Room for LATCHKEY_BATCH_KEYS_MAX,
                               which the owner mallocs and lk_conversation_free() frees */
  char text[256];           /* of the last failure; no key is ever in it */
} lk_conversation;

/* 0, or LATCHKEY_FAILED_ARGUMENT, _FULL or _MEMORY, and then nothing has changed. */
int lk_start(lk_conversation* talk, const lk_request* request, uint64_t deadline_ms, void* context);

/* `bytes` of `out` have been sent. */
void lk_sent(lk_conversation* talk, size_t bytes);

/* The next reply: what has arrived, or a failure. False: there is none yet. Bytes that make no
 * sense fail everything and set `lost`: the connection has to end. */
bool lk_take(lk_conversation* talk, latchkey_reply* reply);

/* Would lk_take() find a reply? */
bool lk_ready(const lk_conversation* talk);

/* A whole frame waits to be taken for the request that was started first. */
bool lk_has_reply(const lk_conversation* talk);

/* The connection has ended. What has arrived is still to be taken; the rest fails as `closed`. If
 * nothing of it had been sent, it waits for the next connection instead. */
void lk_lose(lk_conversation* talk);

/* Has a deadline passed? */
bool lk_expired(lk_conversation* talk, uint64_t now_ms);

/* Everything under way fails, and the connection has to end: with `failure` what has a deadline
 * that is not after `now_ms`, the rest as `closed`. */
void lk_fail(lk_conversation* talk, int failure, uint64_t now_ms);

/* From here on it is about a new connection. False: not yet, replies of the old one are to be
 * taken first. */
bool lk_renew(lk_conversation* talk);

/* Says what happened, for people. printf's format. */
void lk_say(lk_conversation* talk, const char* format, ...) __attribute__((format(printf, 2, 3)));

void lk_conversation_free(lk_conversation* talk);

#endif
