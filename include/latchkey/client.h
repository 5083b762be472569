/* liblatchkey: ask the latchkeyd of this host whether the holder of an API key may in. C11 and C++.
 *
 *     latchkey_client *lk = latchkey_open(NULL);
 *     latchkey_answer answer;
 *     if (latchkey_verify(lk, key, strlen(key), NULL, &answer) == LATCHKEY_VALID)
 * let_in(answer.subject);
 *
 * Laws:
 *  - Only LATCHKEY_VALID (0) is a yes. A positive result is a verdict that says no, a negative one
 *    is an enum latchkey_failure: there is no answer, and answer.verdict is LATCHKEY_UNAVAILABLE.
 *  - Every call has a deadline (latchkey_set_timeout), which covers connecting and all retries.
 *  - A handle is one connection. It may be used by one thread at a time; different handles are
 *    independent. There are no threads of ours, no signals (SIGPIPE does not occur), no global
 *    state but a fork counter: after fork(), the child's handles connect anew, since two processes
 *    on one connection would take each other's answers.
 *  - Keys are wiped from the library's memory once they are sent. Where the caller keeps them is
 *    the caller's to wipe.
 *  - Texts that an answer points to end with a zero byte and live until the next call with the
 *    same handle.
 *
 * The connection is made when it is needed and made anew when it is lost. Within its deadline a
 * blocking call tries again, at growing intervals, what a restart of the daemon, a full backlog or
 * an overload made fail: all requests are free of side effects. What will not get better by
 * itself (no permission, a refused request, a peer that does not speak the protocol) fails at once.
 */
#ifndef LATCHKEY_CLIENT_H
#define LATCHKEY_CLIENT_H

#include <stddef.h>
#include <stdint.h>

#include "wire.h"

#ifdef __cplusplus
extern "C" {
#endif

#define LATCHKEY_DEFAULT_SOCKET "/run/latchkey/latchkey.sock"

enum {
  LATCHKEY_DEFAULT_TIMEOUT_MS = 1000,
  /* Requests that were started and whose replies were not taken; more are refused with
   * LATCHKEY_FAILED_FULL. */
  LATCHKEY_PENDING_MAX = 4096,
  /* Encoded requests that were not sent yet; likewise. */
  LATCHKEY_UNSENT_BYTES_MAX = 1 << 20
};

/* Why there is no answer. latchkey_error_text() says more, for people. */
enum latchkey_failure {
  LATCHKEY_FAILED_ARGUMENT = -1, /* the call makes no sense; nothing was sent */
  LATCHKEY_FAILED_CONNECT = -2,  /* the daemon cannot be reached: not running, or no permission */
  LATCHKEY_FAILED_TIMEOUT = -3,  /* reached, but it did not answer within the deadline */
  LATCHKEY_FAILED_CLOSED = -4,   /* the connection ended before the reply. Ask again */
  LATCHKEY_FAILED_PROTOCOL = -5, /* what answers does not speak Latchkey's protocol */
  LATCHKEY_FAILED_REFUSED = -6, /* the daemon refused: latchkey_reply.refusal, latchkey_refusal() */
  LATCHKEY_FAILED_MEMORY = -7,
  LATCHKEY_FAILED_FULL = -8 /* too much is under way: take replies first */
};

/* One connection to one daemon. */
typedef struct latchkey_client latchkey_client;

/* A presented key: any bytes. It need not end with a zero byte. */
typedef struct latchkey_key {
  const char* bytes;
  size_t length;
} latchkey_key;

/* What is asked of each key. Start from LATCHKEY_QUESTION_INIT: a structure of zeros is refused. */
typedef struct latchkey_question {
  size_t size;         /* of this structure, so that it can grow */
  uint32_t flags;      /* enum latchkey_verify_flag: what to tell of a key's holder */
  uint32_t max_age_ms; /* older knowledge gives LATCHKEY_UNAVAILABLE; or LATCHKEY_MAX_AGE_ANY */
  const char* source;  /* NULL: every source that this process may use */
  const char* const* all_scopes; /* the key must hold every one of these */
  size_t all_scopes_count;
  const char* const* any_scopes; /* and, if there are any, at least one of these */
  size_t any_scopes_count;
} latchkey_question;

#define LATCHKEY_QUESTION_INIT \
  { sizeof(latchkey_question), LATCHKEY_WANT_CLAIMS, LATCHKEY_MAX_AGE_ANY, NULL, NULL, 0, NULL, 0 }

typedef struct latchkey_answer {
  uint32_t verdict; /* enum latchkey_verdict; LATCHKEY_UNAVAILABLE if there was no answer at all */
  uint32_t age_ms;  /* since its source was last proven complete; LATCHKEY_AGE_UNKNOWN */
  uint8_t fresh;    /* 1: no change that committed longer ago than the daemon's bound is missing */
  uint8_t has_expires;
  uint8_t reserved[6];
  int64_t expires; /* if has_expires: seconds since 1970 UTC, rounded down */
  /* NULL: not said. */
  const char* source;
  const char* key_id;
  const char* subject;
  const char* tenant;
  const char* scope; /* a space between two; "": it holds none */
  const char* metadata;
  const void* more[2]; /* reserved */
} latchkey_answer;

/* ---- a handle */

/* A handle on the daemon that listens on `path`; NULL stands for $LATCHKEY_SOCKET if that is set
 * and not empty, else LATCHKEY_DEFAULT_SOCKET. Does not connect: the first question does. NULL if
 * there is no memory or the path is longer than a socket's may be (107 bytes). */
latchkey_client* latchkey_open(const char* path);

/* End the connection and free all. What was asked and not taken is lost. NULL is harmless. */
void latchkey_close(latchkey_client* lk);

/* The deadline of each later call and of each later latchkey_start_*, in milliseconds from its
 * start, at least 1. At first it is LATCHKEY_DEFAULT_TIMEOUT_MS. */
void latchkey_set_timeout(latchkey_client* lk, uint32_t timeout_ms);

/* What the last failure was, in words, for a log. It lives until the next call, never NULL, and
 * never holds a key. */
const char* latchkey_error_text(const latchkey_client* lk);

/* After LATCHKEY_FAILED_REFUSED: the daemon's enum latchkey_error; 0 after anything else. */
uint32_t latchkey_refusal(const latchkey_client* lk);

/* "valid", "revoked", ...; "timeout", "refused", ...; "not_allowed", "timed_out", ... A number that
 * has no name gives "unknown_...". */
const char* latchkey_verdict_name(uint32_t verdict);
const char* latchkey_failure_name(int failure);
const char* latchkey_refusal_name(uint32_t refusal);

/* ---- blocking calls. Not while replies of latchkey_start_* are outstanding (FAILED_ARGUMENT). */

/* May the holder of this key in? The verdict (0 or more) or an enum latchkey_failure; `answer` is
 * filled in either way. A NULL `question` is LATCHKEY_QUESTION_INIT. */
int latchkey_verify(latchkey_client* lk, const char* key, size_t length,
                    const latchkey_question* question, latchkey_answer* answer);

/* The same for many keys in as few requests as the protocol's limits permit, which are pipelined.
 * 0: each of the `count` answers holds a verdict. Else an enum latchkey_failure, and every verdict
 * is LATCHKEY_UNAVAILABLE. */
int latchkey_verify_many(latchkey_client* lk, const latchkey_key* keys, size_t count,
                         const latchkey_question* question, latchkey_answer* answers);

/* 0 once the daemon has answered. */
int latchkey_ping(latchkey_client* lk);

/* 0 once everything is in force here that had committed in the databases before this call; what
 * it took in microseconds in *waited_us, unless that is NULL. LATCHKEY_FAILED_REFUSED with
 * LATCHKEY_TIMED_OUT if that could not be proven within `timeout_ms` (1 to 60000), which is added
 * to the handle's own timeout. */
int latchkey_sync(latchkey_client* lk, uint32_t timeout_ms, uint64_t* waited_us);

/* One JSON object that tells how the daemon is. 0 or a failure; *json lives until the next call. */
int latchkey_status(latchkey_client* lk, const char** json);

/* The verdict on one key explained, as a JSON object. The flags of `question` do not matter. */
int latchkey_why(latchkey_client* lk, const char* key, size_t length,
                 const latchkey_question* question, const char** json);

/* ---- with an event loop of one's own
 *
 *     latchkey_start_verify(lk, &question, keys, count, context);    // as often as one likes
 *     loop:
 *       wait until latchkey_fd() is ready for latchkey_events(), or latchkey_due_ms() has passed
 *       latchkey_step(lk);
 *       while (latchkey_take(lk, &reply)) ...
 *
 * Nothing here blocks. Replies come in the order of their requests, one to each, be it a failure.
 * A connection that is lost costs all that is under way: those replies are LATCHKEY_FAILED_CLOSED,
 * and it is up to the caller to ask again. What was started while there is no connection waits for
 * one. When a deadline passes, the connection is given up, since a late reply would be taken for
 * the next one's: the request fails with LATCHKEY_FAILED_TIMEOUT (or _CONNECT, if there was no
 * connection), and all others that are under way with LATCHKEY_FAILED_CLOSED.
 */

typedef struct latchkey_reply {
  void* context;                  /* as it was given */
  uint32_t type;                  /* of the request: LATCHKEY_VERIFY, LATCHKEY_PING, ... */
  int failure;                    /* 0 or enum latchkey_failure */
  uint32_t refusal;               /* if failure is LATCHKEY_FAILED_REFUSED: enum latchkey_error */
  uint32_t count;                 /* verify: of keys that were asked for */
  const latchkey_answer* answers; /* verify: that many, also if it failed; else NULL */
  const char* text;   /* status, why: JSON. If it failed: what happened, for a log. Else NULL */
  uint64_t waited_us; /* sync */
} latchkey_reply;

/* Queue one request: 0 or LATCHKEY_FAILED_ARGUMENT, _FULL, _MEMORY, and then there will be no
 * reply. Keys are copied. At most LATCHKEY_BATCH_KEYS_MAX keys, which have to fit into a
 * request (LATCHKEY_REQUEST_BYTES_MAX), else LATCHKEY_FAILED_ARGUMENT. */
int latchkey_start_verify(latchkey_client* lk, const latchkey_question* question,
                          const latchkey_key* keys, size_t count, void* context);
int latchkey_start_ping(latchkey_client* lk, void* context);
int latchkey_start_sync(latchkey_client* lk, uint32_t timeout_ms, void* context);
int latchkey_start_status(latchkey_client* lk, void* context);
int latchkey_start_why(latchkey_client* lk, const latchkey_question* question,
                       const latchkey_key* key, void* context);

/* Connect, send and receive as far as that goes without waiting, and let deadlines pass. To be
 * called after latchkey_start_*, when the descriptor is ready and when latchkey_due_ms() is up. */
void latchkey_step(latchkey_client* lk);

/* The next reply, if it has come: 1 and *reply; else 0. What it points to lives until the next
 * latchkey_take(), latchkey_step() or latchkey_feed(). */
int latchkey_take(latchkey_client* lk, latchkey_reply* reply);

/* How many replies are still to be taken. */
size_t latchkey_pending(const latchkey_client* lk);

/* The socket, or -1 while there is none; another one after each new connection. It is the
 * library's: never close it, read from it or write to it. */
int latchkey_fd(const latchkey_client* lk);

/* poll(2)'s POLLIN and POLLOUT: what latchkey_step() waits for. */
short latchkey_events(const latchkey_client* lk);

/* Milliseconds until there is something to do although nothing arrives: 0 if a reply can be taken,
 * else the next try to connect or the next deadline is latchkey_step()'s. -1: nothing is due. For
 * poll(2)'s timeout. */
int latchkey_due_ms(const latchkey_client* lk);

/* ---- with a transport of one's own (io_uring, a test): instead of latchkey_step() */

/* Copies up to `room` bytes that are to be sent to `buffer`, wipes them here, and says how many. */
size_t latchkey_drain(latchkey_client* lk, void* buffer, size_t room);

/* What the daemon sent: 0, LATCHKEY_FAILED_MEMORY, or LATCHKEY_FAILED_FULL: take replies first. */
int latchkey_feed(latchkey_client* lk, const void* bytes, size_t length);

/* The transport has ended: what is under way and unanswered fails with LATCHKEY_FAILED_CLOSED. */
void latchkey_lost(latchkey_client* lk);

/* 1: what was fed makes the transport useless. End it, take what is left, drain to a new one. */
int latchkey_broken(const latchkey_client* lk);

/* Deadlines are the caller's here: when latchkey_due_ms() has passed, end the transport. */

#ifdef __cplusplus
}
#endif

#endif
