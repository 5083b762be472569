#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client/c/client.h"

enum { DELAY_FIRST_MS = 2, DELAY_MAX_MS = 250, READ_BYTES = 16384 };

/* ---- fork detection */

static unsigned forks; /* written in a child before it has a second thread */

static void count_fork(void) { ++forks; }

__attribute__((constructor)) static void watch_forks(void) {
  pthread_atfork(NULL, NULL, count_fork);
}

static void disconnect(latchkey_client* lk) {
  if (lk->fd >= 0) close(lk->fd);
  lk->fd = -1;
}

/* Parent and child share the connection; the child must leave it alone. */
static void leave_parent(latchkey_client* lk) {
  if (lk->forks == forks) return;
  lk->forks = forks;
  disconnect(lk);
  uint32_t far = 0;
  if (getrandom(&far, sizeof far, GRND_NONBLOCK) < 0) far = (uint32_t)getpid();
  lk->talk.last_id += far; /* request ids that differ from the parent's */
  lk_say(&lk->talk, "the process forked while this was under way");
  lk_fail(&lk->talk, LATCHKEY_FAILED_CLOSED, 0);
}

/* ---- a handle */

uint64_t lk_now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

latchkey_client* latchkey_open(const char* path) {
  if (path == NULL) path = getenv("LATCHKEY_SOCKET");
  if (path == NULL || *path == '\0') path = LATCHKEY_DEFAULT_SOCKET;
  latchkey_client* lk = calloc(1, sizeof *lk);
  if (lk == NULL) return NULL;
  lk->talk.answers = calloc(LATCHKEY_BATCH_KEYS_MAX, sizeof *lk->talk.answers);
  const size_t length = strlen(path);
  lk->address.sun_family = AF_UNIX;
  if (lk->talk.answers == NULL || length >= sizeof lk->address.sun_path) {
    free(lk->talk.answers);
    free(lk);
    return NULL;
  }
  memcpy(lk->address.sun_path, path, length);
  if (getrandom(&lk->random, sizeof lk->random, GRND_NONBLOCK) < 0) lk->random = lk_now_ms();
  lk->random |= 1; /* 0 is xorshift's only fixed point */
  /* Random start: a reply to another or an earlier process's request matches none of this
   * handle's. */
  lk->talk.last_id = lk->random >> 2; /* leaves room for 2^62 ids */
  lk->talk.soonest_ms = UINT64_MAX;
  lk->fd = -1;
  lk->timeout_ms = LATCHKEY_DEFAULT_TIMEOUT_MS;
  lk->delay_ms = DELAY_FIRST_MS;
  lk->forks = forks;
  return lk;
}

void latchkey_close(latchkey_client* lk) {
  if (lk == NULL) return;
  disconnect(lk);
  lk_arena_clear(&lk->texts);
  lk_conversation_free(&lk->talk);
  free(lk);
}

void latchkey_set_timeout(latchkey_client* lk, uint32_t timeout_ms) {
  lk->timeout_ms = timeout_ms == 0 ? 1 : timeout_ms;
}

const char* latchkey_error_text(const latchkey_client* lk) { return lk->talk.text; }
uint32_t latchkey_refusal(const latchkey_client* lk) { return lk->refusal; }

/* ---- connecting */

static void say_unreachable(latchkey_client* lk) {
  const int error = lk->connect_error;
  if (error == 0) return; /* connected, then refused: text is already set */
  char words[96] = "";
  if (strerror_r(error, words, sizeof words) != 0) words[0] = '\0';
  const char* hint = error == ENOENT         ? " Is latchkeyd running, and is this its socket?"
                     : error == ECONNREFUSED ? " latchkeyd is not running."
                     : error == EACCES ? " This user may not open it: see latchkeyd's `mode` and"
                                         " `group`."
                     : error == EAGAIN ? " Too many wait to be connected."
                                       : "";
  lk_say(&lk->talk, "cannot connect to %s: %s.%s", lk->address.sun_path, words, hint);
}

/* Half of the delay is random, so that the processes of a host do not reconnect at the same
 * time. */
static void delay(latchkey_client* lk, uint64_t now_ms) {
  lk->random ^= lk->random << 13;
  lk->random ^= lk->random >> 7;
  lk->random ^= lk->random << 17;
  const uint32_t half = lk->delay_ms / 2;
  lk->retry_at_ms = now_ms + half + lk->random % (half + 1);
  lk->delay_ms *= 2;
  if (lk->delay_ms > DELAY_MAX_MS) lk->delay_ms = DELAY_MAX_MS;
}

/* Errors that occur while a daemon restarts or is overloaded. AF_UNIX's connect() does not wait for
 * room in a full backlog: it fails with EAGAIN, and poll() cannot wait for room. */
static bool may_pass(int error) {
  return error == ENOENT || error == ECONNREFUSED || error == EAGAIN || error == EINTR ||
         error == ECONNRESET;
}

static void connect_if_due(latchkey_client* lk, uint64_t now_ms) {
  if (lk->talk.count == 0 || now_ms < lk->retry_at_ms || !lk_renew(&lk->talk)) return;
  const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0 && connect(fd, (const struct sockaddr*)&lk->address, sizeof lk->address) == 0) {
    lk->fd = fd;
    lk->connect_error = 0;
    return;
  }
  lk->connect_error = errno;
  if (fd >= 0) close(fd);
  if (fd >= 0 && may_pass(lk->connect_error)) {
    delay(lk, now_ms);
    return;
  }
  say_unreachable(lk);
  lk_fail(&lk->talk, LATCHKEY_FAILED_CONNECT, UINT64_MAX);
}

/* Reconnects at once if this connection brought a reply, otherwise after a delay. */
static void end_if_lost(latchkey_client* lk, bool ended, uint64_t now_ms) {
  if (ended) lk_lose(&lk->talk);
  if (lk->fd < 0 || (!ended && !lk->talk.lost)) return;
  disconnect(lk);
  if (lk->talk.answered) {
    lk->retry_at_ms = now_ms;
    lk->delay_ms = DELAY_FIRST_MS;
  } else {
    delay(lk, now_ms);
  }
}

/* ---- bytes */

/* False: the peer accepts no more bytes. It may have sent the reason. */
static bool send_all(latchkey_client* lk) {
  lk_buffer* out = &lk->talk.out;
  while (lk_buffer_size(out) != 0) {
    const ssize_t sent =
        send(lk->fd, lk_buffer_front(out), lk_buffer_size(out), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      lk_sent(&lk->talk, (size_t)sent);
    } else if (sent < 0 && errno != EINTR) {
      return errno == EAGAIN;
    }
  }
  return true;
}

/* True if a complete reply has certainly arrived: reading can wait until it has been taken. */
static bool full(const latchkey_client* lk) {
  return lk_buffer_size(&lk->talk.in) >= LATCHKEY_REPLY_BYTES_MAX;
}

/* False: the connection has ended. */
static bool receive_all(latchkey_client* lk) {
  lk_buffer* in = &lk->talk.in;
  while (!full(lk)) {
    uint8_t* to = lk_buffer_reserve(in, READ_BYTES);
    if (to == NULL) return false;
    const size_t room = in->room - in->end;
    const ssize_t got = recv(lk->fd, to, room, MSG_DONTWAIT);
    if (got > 0) {
      in->end += (size_t)got;
      if ((size_t)got < room) return true;
    } else if (got == 0 || errno != EINTR) {
      return got < 0 && errno == EAGAIN;
    }
  }
  return true;
}

void lk_step(latchkey_client* lk, bool readable) {
  leave_parent(lk);
  const uint64_t now_ms = lk_now_ms();
  bool late = lk_expired(&lk->talk, now_ms);
  if (late && lk->fd >= 0) {
    /* If this process was delayed, the reply is in the socket: it arrived in time, or nearly. */
    if (!receive_all(lk)) lk_lose(&lk->talk);
    late = !lk_has_reply(&lk->talk);
  }
  if (late) {
    if (lk->fd >= 0) {
      lk_say(&lk->talk, "latchkeyd did not answer in time");
    } else {
      say_unreachable(lk);
    }
    lk_fail(&lk->talk, lk->fd >= 0 ? LATCHKEY_FAILED_TIMEOUT : LATCHKEY_FAILED_CONNECT, now_ms);
  }
  end_if_lost(lk, false, now_ms);
  if (lk->fd < 0) connect_if_due(lk, now_ms);
  if (lk->fd < 0) return;
  const bool takes = send_all(lk);
  const bool lives = (takes && !readable) || (receive_all(lk) && takes);
  end_if_lost(lk, !lives, now_ms);
}

void lk_abandon(latchkey_client* lk) {
  latchkey_reply reply;
  lk_fail(&lk->talk, LATCHKEY_FAILED_CLOSED, 0);
  while (lk_take(&lk->talk, &reply)) continue;
  end_if_lost(lk, false, lk_now_ms());
}

int lk_queue(latchkey_client* lk, const lk_request* request, uint64_t deadline_ms, void* context) {
  leave_parent(lk);
  return lk_start(&lk->talk, request, deadline_ms, context);
}

/* ---- for event loops */

void latchkey_step(latchkey_client* lk) { lk_step(lk, true); }

int latchkey_take(latchkey_client* lk, latchkey_reply* reply) {
  leave_parent(lk);
  return lk_take(&lk->talk, reply) ? 1 : 0;
}

size_t latchkey_pending(const latchkey_client* lk) { return lk->talk.count; }
int latchkey_fd(const latchkey_client* lk) { return lk->fd; }

short latchkey_events(const latchkey_client* lk) {
  if (lk->fd < 0) return 0;
  const int out = lk_buffer_size(&lk->talk.out) != 0 ? POLLOUT : 0;
  return (short)((full(lk) ? 0 : POLLIN) | out);
}

int latchkey_due_ms(const latchkey_client* lk) {
  if (lk->talk.count == 0) return -1;
  /* Otherwise a caller that polls before taking an available reply would wait for nothing. */
  if (lk_ready(&lk->talk)) return 0;
  /* Requests in flight without a descriptor are on the caller's own transport. */
  const bool apart = lk->fd < 0 && (!lk->talk.in_flight || lk->talk.lost);
  const bool to_connect = apart && lk->retry_at_ms < lk->talk.soonest_ms;
  const uint64_t due = to_connect ? lk->retry_at_ms : lk->talk.soonest_ms;
  const uint64_t now_ms = lk_now_ms();
  if (due <= now_ms) return 0;
  return due - now_ms > INT32_MAX ? INT32_MAX : (int)(due - now_ms);
}

/* ---- for the caller's own transport */

size_t latchkey_drain(latchkey_client* lk, void* buffer, size_t room) {
  if (!lk_renew(&lk->talk)) return 0;
  const size_t size = lk_buffer_size(&lk->talk.out);
  const size_t bytes = size < room ? size : room;
  if (bytes == 0) return 0;
  memcpy(buffer, lk_buffer_front(&lk->talk.out), bytes);
  lk_sent(&lk->talk, bytes);
  return bytes;
}

int latchkey_feed(latchkey_client* lk, const void* bytes, size_t length) {
  if (full(lk)) return LATCHKEY_FAILED_FULL;
  uint8_t* to = lk_buffer_reserve(&lk->talk.in, length);
  if (to == NULL) return LATCHKEY_FAILED_MEMORY;
  memcpy(to, bytes, length);
  lk->talk.in.end += length;
  return 0;
}

void latchkey_lost(latchkey_client* lk) { lk_lose(&lk->talk); }
int latchkey_broken(const latchkey_client* lk) { return lk->talk.lost ? 1 : 0; }
