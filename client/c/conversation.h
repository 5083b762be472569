/* Requests and replies of one connection: bytes out, bytes in, replies in the order of the
 * requests. No socket and no clock: the owner moves the bytes and supplies the time. */
#ifndef LATCHKEY_C_CONVERSATION_H
#define LATCHKEY_C_CONVERSATION_H

#include "client/c/codec.h"

typedef struct {
  uint64_t request_id;
  uint64_t deadline_ms; /* by the owner's clock */
  void* context;
  enum latchkey_type type;
  uint32_t count; /* keys */
  int failure;    /* its reply, if no other will come */
  uint32_t refusal;
} lk_pending;

typedef struct {
  lk_buffer out, in;
  lk_pending* pending; /* a ring */
  size_t first, count, room;
  uint64_t last_id;
  uint64_t soonest_ms;      /* no deadline is earlier; UINT64_MAX: no deadline */
  bool in_flight;           /* part of the pending requests has been sent */
  bool lost;                /* the connection is gone: requests not answered by `in` fail */
  uint64_t lost_id;         /* up to this one; later requests wait for the next connection */
  bool answered;            /* this connection has brought a reply */
  latchkey_answer* answers; /* of the reply taken last: room for LATCHKEY_BATCH_KEYS_MAX. The owner
                               allocates them; lk_conversation_free() frees them */
  char text[256];           /* of the last failure; never contains a key */
} lk_conversation;

/* Returns 0, or LATCHKEY_FAILED_ARGUMENT, _FULL or _MEMORY without having changed anything. */
int lk_start(lk_conversation* talk, const lk_request* request, uint64_t deadline_ms, void* context);

/* Records that `bytes` of `out` have been sent. */
void lk_sent(lk_conversation* talk, size_t bytes);

/* Takes the next reply: an arrived one or a failure. False: none yet. Invalid bytes fail all
 * requests and set `lost`: the connection must end. */
bool lk_take(lk_conversation* talk, latchkey_reply* reply);

/* True if lk_take() would return a reply. */
bool lk_ready(const lk_conversation* talk);

/* True if a complete frame has arrived for the oldest request. */
bool lk_has_reply(const lk_conversation* talk);

/* Reports the connection's end. Arrived replies can still be taken; other requests fail as
 * `closed`. If nothing had been sent, the requests wait for the next connection instead. */
void lk_lose(lk_conversation* talk);

/* True if a deadline has passed. */
bool lk_expired(lk_conversation* talk, uint64_t now_ms);

/* Fails all requests under way; the connection must end. Requests whose deadline is at or before
 * `now_ms` get `failure`, the others fail as `closed`. */
void lk_fail(lk_conversation* talk, int failure, uint64_t now_ms);

/* Prepares for a new connection. False: replies of the old one must be taken first. */
bool lk_renew(lk_conversation* talk);

/* Sets the text of a failure, for people, in printf's format. */
void lk_say(lk_conversation* talk, const char* format, ...) __attribute__((format(printf, 2, 3)));

void lk_conversation_free(lk_conversation* talk);

#endif
