/* liblatchkey: asks the local latchkeyd whether to admit the holder of an API key. C11 and C++.
 *
 *     latchkey_client *lk = latchkey_open(NULL);
 *     latchkey_answer answer;
 *     if (latchkey_verify(lk, key, strlen(key), NULL, &answer) == LATCHKEY_VALID)
 *       let_in(answer.subject);
 *
 * Laws:
 *  - Only LATCHKEY_VALID (0) is a yes. A positive result is a refusing verdict. A negative result
 *    is an enum latchkey_failure: there is no answer, and answer.verdict is LATCHKEY_UNAVAILABLE.
 *  - Every call has a deadline (latchkey_set_timeout), which covers connecting and all retries.
 *  - A handle is one connection. One thread at a time may use it; different handles are
 *    independent. The library has no threads, raises no signals (SIGPIPE does not occur) and has
 *    no global state except a fork counter: after fork(), the child's handles connect anew, because
 *    two processes on one connection would take each other's answers.
 *  - The library wipes keys from its memory once they are sent. The caller wipes its own copies.
 *  - Texts that an answer points to end with a zero byte and live until the next call with the
 *    same handle.
 *
 * The library connects when needed and reconnects after a loss. Within its deadline a blocking call
 * retries, at growing intervals, failures caused by a restart of the daemon, a full backlog or an
 * overload: all requests are free of side effects. Permanent failures (no permission, a refused
 * request, a peer that does not speak the protocol) are reported at once.
 */
#ifndef LATCHKEY_CLIENT_H
#define LATCHKEY_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The daemon's socket, unless latchkey_open() or $LATCHKEY_SOCKET selects another. */
#define LATCHKEY_DEFAULT_SOCKET "/run/latchkey/latchkey.sock"

/* The default deadline, and the limits of each handle's queues. */
enum {
  /* The deadline of each call, in milliseconds, until latchkey_set_timeout() sets another. */
  LATCHKEY_DEFAULT_TIMEOUT_MS = 1000,
  /* Requests started whose replies were not taken; more fail with LATCHKEY_FAILED_FULL. */
  LATCHKEY_PENDING_MAX = 4096,
  /* Encoded bytes not sent yet; more requests fail with LATCHKEY_FAILED_FULL. */
  LATCHKEY_UNSENT_BYTES_MAX = 1 << 20
};

/* Why there is no answer. latchkey_error_text() has a longer text for people. */
enum latchkey_failure {
  LATCHKEY_FAILED_ARGUMENT = -1, /* invalid arguments; nothing was sent */
  LATCHKEY_FAILED_CONNECT = -2,  /* the daemon cannot be reached: not running, or no permission */
  LATCHKEY_FAILED_TIMEOUT = -3,  /* reached, but it did not answer within the deadline */
  LATCHKEY_FAILED_CLOSED = -4,   /* the connection ended before the reply: ask again */
  LATCHKEY_FAILED_PROTOCOL = -5, /* the peer does not speak Latchkey's protocol */
  LATCHKEY_FAILED_REFUSED = -6, /* the daemon refused: latchkey_reply.refusal, latchkey_refusal() */
  /* no memory for the request or for its reply */
  LATCHKEY_FAILED_MEMORY = -7,
  LATCHKEY_FAILED_FULL = -8 /* too many requests under way: take replies first */
};

/* One connection to one daemon. */
typedef struct latchkey_client latchkey_client;

/* A presented key: any bytes. A terminating zero byte is not required. */
typedef struct latchkey_key {
  const char* bytes; /* owned by the caller; the library keeps no reference after the call */
  size_t length;     /* in bytes; an empty or too long key gets the verdict LATCHKEY_MALFORMED */
} latchkey_key;

/* The question asked of each key. Start from LATCHKEY_QUESTION_INIT: an all-zero structure is
 * refused. */
typedef struct latchkey_question {
  size_t size;         /* of this structure, for later versions */
  uint32_t flags;      /* enum latchkey_verify_flag: claims to return */
  uint32_t max_age_ms; /* older data gives LATCHKEY_UNAVAILABLE; or LATCHKEY_MAX_AGE_ANY */
  const char* source;  /* NULL: every source that this process may use */
  const char* const* all_scopes; /* the key must hold all of these */
  size_t all_scopes_count;       /* at most LATCHKEY_SCOPES_MAX */
  const char* const* any_scopes; /* if there are any: the key must hold at least one of these */
  size_t any_scopes_count;       /* at most LATCHKEY_SCOPES_MAX */
} latchkey_question;

/* An initial latchkey_question: all sources, any age, no scopes, claims without metadata. */
#define LATCHKEY_QUESTION_INIT \
  { sizeof(latchkey_question), LATCHKEY_WANT_CLAIMS, LATCHKEY_MAX_AGE_ANY, NULL, NULL, 0, NULL, 0 }

/* The answer to one key. The handle owns its texts. */
typedef struct latchkey_answer {
  uint32_t verdict; /* enum latchkey_verdict; LATCHKEY_UNAVAILABLE if there was no answer at all */
  uint32_t age_ms;  /* since the source was last proven complete; LATCHKEY_AGE_UNKNOWN */
  uint8_t fresh;    /* 1: no change that committed longer ago than the daemon's bound is missing */
  uint8_t has_expires; /* 1: the key expires, and `expires` is set */
  uint8_t reserved[6]; /* 0 */
  int64_t expires;     /* if has_expires: seconds since 1970 UTC, rounded down */
  /* NULL: absent. */
  const char* source;
  /* The id of the key's row; NULL: absent. */
  const char* key_id;
  /* The key's holder, from the mapped column; NULL: absent. */
  const char* subject;
  /* The holder's tenant, from the mapped column; NULL: absent. */
  const char* tenant;
  const char* scope; /* separated by spaces; "": the key holds no scopes */
  /* The mapped column as it stands in the row, if LATCHKEY_WANT_METADATA is set; NULL: absent. */
  const char* metadata;
  const void* more[2]; /* reserved */
} latchkey_answer;

/* ---- a handle */

/* Creates a handle for the daemon that listens on `path`. NULL selects $LATCHKEY_SOCKET if it is
 * set and not empty, else LATCHKEY_DEFAULT_SOCKET. Does not connect; the first request does.
 * Returns NULL if memory is exhausted or the path exceeds the limit of socket paths (107 bytes). */
latchkey_client* latchkey_open(const char* path);

/* Ends the connection and frees the handle. Replies not taken are lost. NULL is allowed. */
void latchkey_close(latchkey_client* lk);

/* Sets the deadline of later calls and of later latchkey_start_*, in milliseconds from their start,
 * at least 1. The default is LATCHKEY_DEFAULT_TIMEOUT_MS. */
void latchkey_set_timeout(latchkey_client* lk, uint32_t timeout_ms);

/* Describes the last failure, for a log. Never NULL, never contains a key, valid until the next
 * call. */
const char* latchkey_error_text(const latchkey_client* lk);

/* After LATCHKEY_FAILED_REFUSED: the daemon's enum latchkey_error; otherwise 0. */
uint32_t latchkey_refusal(const latchkey_client* lk);

/* "valid", "revoked", ...; "timeout", "refused", ...; "not_allowed", "timed_out", ... A number
 * without a name gives "unknown_...". */
const char* latchkey_verdict_name(uint32_t verdict);
/* The name of an enum latchkey_failure, as above. All these names are static texts. */
const char* latchkey_failure_name(int failure);
/* The name of an enum latchkey_error, as above. */
const char* latchkey_refusal_name(uint32_t refusal);

/* ---- blocking calls. FAILED_ARGUMENT while replies of latchkey_start_* are outstanding. */

/* Verifies one key. Returns the verdict (0 or more) or an enum latchkey_failure, and fills in
 * `answer` in both cases. A NULL `question` means LATCHKEY_QUESTION_INIT. */
int latchkey_verify(latchkey_client* lk, const char* key, size_t length,
                    const latchkey_question* question, latchkey_answer* answer);

/* Verifies many keys in as few requests as the protocol's limits permit, pipelined. Returns 0 if
 * each of the `count` answers holds a verdict; otherwise an enum latchkey_failure, and every
 * verdict is LATCHKEY_UNAVAILABLE. */
int latchkey_verify_many(latchkey_client* lk, const latchkey_key* keys, size_t count,
                         const latchkey_question* question, latchkey_answer* answers);

/* Returns 0 once the daemon has answered. */
int latchkey_ping(latchkey_client* lk);

/* Returns 0 once every change that committed in the databases before this call is in force here;
 * stores the waiting time in microseconds in *waited_us unless that is NULL. Returns
 * LATCHKEY_FAILED_REFUSED with LATCHKEY_TIMED_OUT if this could not be proven within `timeout_ms`
 * (1 to 60000), which is added to the handle's own timeout. */
int latchkey_sync(latchkey_client* lk, uint32_t timeout_ms, uint64_t* waited_us);

/* Returns the daemon's status as one JSON object. 0 or a failure; *json lives until the next
 * call. */
int latchkey_status(latchkey_client* lk, const char** json);

/* Explains the verdict on one key, as a JSON object. Ignores the flags of `question`. */
int latchkey_why(latchkey_client* lk, const char* key, size_t length,
                 const latchkey_question* question, const char** json);

/* ---- for event loops
 *
 *     latchkey_start_verify(lk, &question, keys, count, context);    // any number of times
 *     loop:
 *       wait until latchkey_fd() is ready for latchkey_events(), or latchkey_due_ms() has passed
 *       latchkey_step(lk);
 *       while (latchkey_take(lk, &reply)) ...
 *
 * These functions never block. Each request gets one reply, possibly a failure, in the order of the
 * requests. If a connection is lost, all requests under way fail with LATCHKEY_FAILED_CLOSED; the
 * caller may ask again. Requests started without a connection wait for one. When a deadline passes,
 * the library closes the connection, because a late reply would be taken for the next request's:
 * the request fails with LATCHKEY_FAILED_TIMEOUT (or _CONNECT, if there was no connection), and all
 * others under way fail with LATCHKEY_FAILED_CLOSED.
 */

/* The reply to one request. latchkey_take() specifies how long its pointers are valid. */
typedef struct latchkey_reply {
  void* context;                  /* as passed to latchkey_start_* */
  uint32_t type;                  /* of the request: LATCHKEY_VERIFY, LATCHKEY_PING, ... */
  int failure;                    /* 0 or enum latchkey_failure */
  uint32_t refusal;               /* if failure is LATCHKEY_FAILED_REFUSED: enum latchkey_error */
  uint32_t count;                 /* verify: number of keys in the request */
  const latchkey_answer* answers; /* verify: `count` of them, also after a failure; else NULL */
  const char* text;   /* status, why: JSON. After a failure: a text for a log. Else NULL */
  uint64_t waited_us; /* sync */
} latchkey_reply;

/* Queues one request. Returns 0, or LATCHKEY_FAILED_ARGUMENT, _FULL or _MEMORY, in which case no
 * reply follows. Copies the keys. Accepts at most LATCHKEY_BATCH_KEYS_MAX keys, which must fit into
 * one request (LATCHKEY_REQUEST_BYTES_MAX); otherwise LATCHKEY_FAILED_ARGUMENT. */
int latchkey_start_verify(latchkey_client* lk, const latchkey_question* question,
                          const latchkey_key* keys, size_t count, void* context);
/* Queues a ping. Returns the same results as latchkey_start_verify(). */
int latchkey_start_ping(latchkey_client* lk, void* context);
/* Queues a sync, which may take `timeout_ms` (1 to 60000) in addition to the handle's timeout. */
int latchkey_start_sync(latchkey_client* lk, uint32_t timeout_ms, void* context);
/* Queues a request for the daemon's state. The reply contains one JSON object. */
int latchkey_start_status(latchkey_client* lk, void* context);
/* Queues a request to explain one key's verdict, and copies the key. The reply contains JSON. */
int latchkey_start_why(latchkey_client* lk, const latchkey_question* question,
                       const latchkey_key* key, void* context);

/* Connects, sends and receives without waiting, and applies deadlines. Call it after
 * latchkey_start_*, when the descriptor is ready, and when latchkey_due_ms() has passed. */
void latchkey_step(latchkey_client* lk);

/* Takes the next reply: returns 1 and sets *reply, or returns 0 if there is none. The memory that
 * *reply points to lives until the next latchkey_take(), latchkey_step() or latchkey_feed(). */
int latchkey_take(latchkey_client* lk, latchkey_reply* reply);

/* Number of replies not taken yet. */
size_t latchkey_pending(const latchkey_client* lk);

/* The socket, or -1 if there is none; it changes with each new connection. The library owns it:
 * never close it, read from it or write to it. */
int latchkey_fd(const latchkey_client* lk);

/* POLLIN and POLLOUT of poll(2): the events for which latchkey_step() waits. */
short latchkey_events(const latchkey_client* lk);

/* Milliseconds until latchkey_step() must run even if nothing arrives: 0 if a reply can be taken,
 * else the time to the next connection attempt or deadline. -1: nothing is due. Suits poll(2)'s
 * timeout. */
int latchkey_due_ms(const latchkey_client* lk);

/* ---- for the caller's own transport (io_uring, a test), instead of latchkey_step()
 *
 * With such a transport, the caller applies deadlines: end it when latchkey_due_ms() has passed. */

/* Copies up to `room` bytes to send into `buffer`, wipes the originals, and returns their
 * number. */
size_t latchkey_drain(latchkey_client* lk, void* buffer, size_t room);

/* Passes received bytes. Returns 0, LATCHKEY_FAILED_MEMORY, or LATCHKEY_FAILED_FULL: take
 * replies. */
int latchkey_feed(latchkey_client* lk, const void* bytes, size_t length);

/* Reports the transport's end: unanswered requests fail with LATCHKEY_FAILED_CLOSED. */
void latchkey_lost(latchkey_client* lk);

/* 1: the bytes fed make the transport unusable. End it, take all replies, drain to a new one. */
int latchkey_broken(const latchkey_client* lk);

#ifdef __cplusplus
}
#endif

#endif
