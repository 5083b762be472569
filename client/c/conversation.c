#include "client/c/conversation.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/code_points.h"

/* Replaces hidden code points (base/code_points.h) by '?' in place; the text never grows. */
static void make_printable(char* text) {
  const unsigned char* from = (const unsigned char*)text;
  size_t left = strlen(text);
  char* to = text;
  while (left != 0) {
    uint32_t code = 0;
    size_t length = latchkey_code_point(from, left, &code);
    if (length == 0 || latchkey_is_hidden(code)) {
      *to++ = '?';
      if (length == 0) length = 1;
    } else {
      memmove(to, from, length);
      to += length;
    }
    from += length;
    left -= length;
  }
  *to = '\0';
}

void lk_say(lk_conversation* talk, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(talk->text, sizeof talk->text, format, arguments);
  va_end(arguments);
  /* The text quotes the daemon; an impostor must not write lines into a log. */
  make_printable(talk->text);
}

/* ---- requests */

static lk_pending* pending_at(const lk_conversation* talk, size_t i) {
  return &talk->pending[(talk->first + i) % talk->room];
}

static bool grow(lk_conversation* talk) {
  if (talk->count < talk->room) return true;
  const size_t room = talk->room == 0 ? 16 : 2 * talk->room;
  lk_pending* ring = malloc(room * sizeof *ring);
  if (ring == NULL) return false;
  for (size_t i = 0; i < talk->count; ++i) {
    ring[i] = *pending_at(talk, i);
  }
  free(talk->pending);
  talk->pending = ring;
  talk->room = room;
  talk->first = 0;
  return true;
}

int lk_start(lk_conversation* talk, const lk_request* request, uint64_t deadline_ms,
             void* context) {
  const char* problem = lk_request_problem(request);
  if (problem != NULL) {
    lk_say(talk, "this cannot be asked: %s", problem);
    return LATCHKEY_FAILED_ARGUMENT;
  }
  if (talk->count == LATCHKEY_PENDING_MAX ||
      lk_buffer_size(&talk->out) >= LATCHKEY_UNSENT_BYTES_MAX) {
    lk_say(talk, "too many requests are under way: take their replies first");
    return LATCHKEY_FAILED_FULL;
  }
  if (!grow(talk) || lk_encode(&talk->out, request, talk->last_id + 1) == 0) {
    lk_say(talk, "out of memory");
    return LATCHKEY_FAILED_MEMORY;
  }
  talk->pending[(talk->first + talk->count++) % talk->room] =
      (lk_pending){.request_id = ++talk->last_id,
                   .deadline_ms = deadline_ms,
                   .context = context,
                   .type = request->type,
                   .count = (uint32_t)request->count};
  if (deadline_ms < talk->soonest_ms) talk->soonest_ms = deadline_ms;
  return 0;
}

void lk_sent(lk_conversation* talk, size_t bytes) {
  lk_buffer_wipe_front(&talk->out, bytes);
  talk->in_flight = true;
}

/* ---- failures */

static void lose(lk_conversation* talk) {
  if (talk->lost) return; /* requests started since then belong to the next connection */
  talk->lost = true;
  talk->lost_id = talk->last_id;
  talk->soonest_ms = UINT64_MAX;
  lk_buffer_clear(&talk->out);
}

/* Fails the connection and all its requests. */
static void fail_all(lk_conversation* talk, int failure, uint32_t refusal) {
  lose(talk);
  lk_buffer_clear(&talk->in);
  for (size_t i = 0; i < talk->count; ++i) {
    lk_pending* pending = pending_at(talk, i);
    if (pending->failure != 0 || pending->request_id > talk->lost_id) continue;
    pending->failure = failure;
    pending->refusal = refusal;
  }
}

bool lk_expired(lk_conversation* talk, uint64_t now_ms) {
  if (now_ms < talk->soonest_ms) return false;
  uint64_t soonest = UINT64_MAX;
  for (size_t i = 0; i < talk->count; ++i) {
    const lk_pending* pending = pending_at(talk, i);
    if (pending->failure == 0 && pending->deadline_ms < soonest) soonest = pending->deadline_ms;
  }
  talk->soonest_ms = soonest;
  return now_ms >= soonest;
}

void lk_fail(lk_conversation* talk, int failure, uint64_t now_ms) {
  for (size_t i = 0; i < talk->count; ++i) {
    lk_pending* pending = pending_at(talk, i);
    if (pending->failure == 0 && pending->deadline_ms <= now_ms) pending->failure = failure;
  }
  fail_all(talk, LATCHKEY_FAILED_CLOSED, 0);
}

void lk_lose(lk_conversation* talk) {
  if (talk->in_flight) lose(talk); /* otherwise all requests can be sent on another connection */
}

bool lk_renew(lk_conversation* talk) {
  if (talk->lost && talk->count != 0 && pending_at(talk, 0)->request_id <= talk->lost_id) {
    return false;
  }
  lk_buffer_clear(&talk->in);
  talk->in_flight = talk->lost = talk->answered = false;
  return true;
}

static bool garbage(lk_conversation* talk, int error) {
  lk_say(talk, "what answers does not speak latchkeyd's protocol (%s)",
         latchkey_refusal_name((uint32_t)error));
  fail_all(talk, LATCHKEY_FAILED_PROTOCOL, 0);
  return false;
}

/* ---- replies */

static bool answers_first(const lk_conversation* talk, uint64_t request_id) {
  return talk->count != 0 && pending_at(talk, 0)->failure == 0 &&
         pending_at(talk, 0)->request_id == request_id;
}

static bool refused(lk_conversation* talk, uint64_t request_id, uint8_t* body, size_t length) {
  uint32_t code = 0;
  const char* text = "";
  const int error = lk_decode_error(body, length, &code, &text);
  if (error != 0) return garbage(talk, error);
  if (request_id != 0 && !answers_first(talk, request_id)) return garbage(talk, LATCHKEY_BAD_TYPE);
  lk_say(talk, "latchkeyd refused: %s (%s)", text, latchkey_refusal_name(code));
  if (request_id == 0) { /* concerns the connection, not a request */
    talk->answered = false;
    fail_all(talk, LATCHKEY_FAILED_REFUSED, code);
  } else {
    talk->answered = true;
    pending_at(talk, 0)->failure = LATCHKEY_FAILED_REFUSED;
    pending_at(talk, 0)->refusal = code;
  }
  return true;
}

static int decode(lk_conversation* talk, const lk_header* header, uint8_t* body,
                  latchkey_reply* reply) {
  const size_t length = header->length - LATCHKEY_HEADER_BYTES;
  size_t count = 0;
  switch (header->type) {
    case LATCHKEY_VERIFIED: {
      const int error = lk_decode_verified(body, length, talk->answers, &count);
      if (error != 0) return error;
      return count == reply->count ? 0 : LATCHKEY_BAD_COUNT;
    }
    case LATCHKEY_SYNCED: return lk_decode_synced(body, length, &reply->waited_us);
    case LATCHKEY_PONG: return lk_decode_empty(length);
    default: return lk_decode_text(body, length, &reply->text);
  }
}

/* Takes one complete frame from `in` and returns true. The frame may fail the oldest request. */
static bool read_frame(lk_conversation* talk, latchkey_reply* reply) {
  const size_t size = lk_buffer_size(&talk->in);
  if (size < LATCHKEY_HEADER_BYTES) return false;
  uint8_t* frame = lk_buffer_front(&talk->in);
  lk_header header;
  const int bad = lk_decode_header(frame, &header);
  if (bad != 0) return garbage(talk, bad);
  if (size < header.length) return false;
  uint8_t* body = frame + LATCHKEY_HEADER_BYTES;
  talk->in.start += header.length;
  if (header.type == LATCHKEY_ERROR) {
    return refused(talk, header.request_id, body, header.length - LATCHKEY_HEADER_BYTES);
  }
  if (!answers_first(talk, header.request_id) || header.type != (reply->type | 0x80)) {
    return garbage(talk, LATCHKEY_BAD_TYPE);
  }
  const int error = decode(talk, &header, body, reply);
  if (error != 0) return garbage(talk, error);
  talk->answered = true;
  return true;
}

static void no_answers(lk_conversation* talk, latchkey_reply* reply) {
  reply->text = talk->text;
  for (uint32_t i = 0; reply->type == LATCHKEY_VERIFY && i < reply->count; ++i) {
    talk->answers[i] =
        (latchkey_answer){.verdict = LATCHKEY_UNAVAILABLE, .age_ms = LATCHKEY_AGE_UNKNOWN};
  }
}

static void pop(lk_conversation* talk) {
  talk->first = (talk->first + 1) % talk->room;
  if (--talk->count != 0) return;
  talk->in_flight = false;
  talk->soonest_ms = UINT64_MAX;
}

bool lk_take(lk_conversation* talk, latchkey_reply* reply) {
  *reply = (latchkey_reply){0};
  if (talk->count == 0) { /* an unrequested frame can only give the reason for an end */
    read_frame(talk, reply);
    return false;
  }
  lk_pending* first = pending_at(talk, 0);
  *reply = (latchkey_reply){.context = first->context, .type = first->type, .count = first->count};
  bool there = first->failure != 0 || read_frame(talk, reply);
  if (!there && talk->lost && first->failure == 0 && first->request_id <= talk->lost_id) {
    lk_say(talk, "latchkeyd closed the connection before it answered");
    fail_all(talk, LATCHKEY_FAILED_CLOSED, 0);
  }
  if (first->failure != 0) {
    no_answers(talk, reply);
    there = true;
  }
  if (!there) return false;
  if (reply->type == LATCHKEY_VERIFY) reply->answers = talk->answers;
  reply->failure = first->failure;
  reply->refusal = first->refusal;
  pop(talk);
  return true;
}

bool lk_ready(const lk_conversation* talk) {
  if (talk->count == 0) return false;
  const lk_pending* first = pending_at(talk, 0);
  if (first->failure != 0 || (talk->lost && first->request_id <= talk->lost_id)) return true;
  return lk_has_reply(talk);
}

bool lk_has_reply(const lk_conversation* talk) {
  const size_t size = lk_buffer_size(&talk->in);
  lk_header header;
  if (talk->count == 0 || size < LATCHKEY_HEADER_BYTES) return false;
  return lk_decode_header(lk_buffer_front(&talk->in), &header) != 0 || size >= header.length;
}

void lk_conversation_free(lk_conversation* talk) {
  lk_buffer_free(&talk->out);
  lk_buffer_free(&talk->in);
  free(talk->pending);
  free(talk->answers);
}
