#include "client/c/codec.h"

#include <string.h>

static const char* scopes_problem(const char* const* scopes, size_t count) {
  if (count > LATCHKEY_SCOPES_MAX) return "more than 32 scopes in one list";
  if (count != 0 && scopes == NULL) return "a list of scopes that is not there";
  for (size_t i = 0; i < count; ++i) {
    const size_t length = scopes[i] == NULL ? 0 : strlen(scopes[i]);
    if (length == 0 || length > LATCHKEY_SCOPE_BYTES_MAX) {
      return "a scope must have 1 to 255 bytes";
    }
    for (const char* c = scopes[i]; *c != '\0'; ++c) {
      const unsigned char byte = (unsigned char)*c;
      if (byte <= 0x20 || byte == 0x7f) return "a scope with a space or a control character";
    }
  }
  return NULL;
}

static const char* question_problem(const latchkey_question* question) {
  if (question->size != sizeof *question) {
    return "a question that does not start from LATCHKEY_QUESTION_INIT";
  }
  if ((question->flags & ~(uint32_t)LATCHKEY_VERIFY_FLAGS_ALL) != 0) return "an unknown flag";
  const char* source = question->source;
  if (source != NULL) {
    const char* permitted = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.";
    /* An empty name is more likely an unset variable than a request for every source. */
    if (source[0] == '\0' || strlen(source) > LATCHKEY_SOURCE_BYTES_MAX ||
        source[strspn(source, permitted)] != '\0') {
      return "a source has 1 to 63 characters out of A-Z a-z 0-9 _ - .";
    }
  }
  const char* problem = scopes_problem(question->all_scopes, question->all_scopes_count);
  if (problem != NULL) return problem;
  return scopes_problem(question->any_scopes, question->any_scopes_count);
}

static size_t overhead(const latchkey_question* question) {
  size_t bytes = LATCHKEY_HEADER_BYTES + LATCHKEY_VERIFY_FIXED_BYTES;
  if (question->source != NULL) bytes += strlen(question->source);
  for (size_t i = 0; i < question->all_scopes_count; ++i) {
    bytes += 1 + strlen(question->all_scopes[i]);
  }
  for (size_t i = 0; i < question->any_scopes_count; ++i) {
    bytes += 1 + strlen(question->any_scopes[i]);
  }
  return bytes;
}

/* A key over the limit is malformed; one byte over the limit suffices to get this verdict. */
static size_t sent_length(const latchkey_key* key) {
  return key->length > LATCHKEY_KEY_BYTES_MAX ? LATCHKEY_KEY_BYTES_MAX + 1 : key->length;
}

const char* lk_request_problem(const lk_request* request) {
  if (request->type == LATCHKEY_SYNC) {
    const uint32_t timeout = request->timeout_ms;
    return timeout >= 1 && timeout <= LATCHKEY_SYNC_TIMEOUT_MS_MAX
               ? NULL
               : "a sync timeout is 1 to 60000 milliseconds";
  }
  if (request->type != LATCHKEY_VERIFY && request->type != LATCHKEY_WHY) return NULL;
  const char* problem = question_problem(&request->question);
  if (problem != NULL) return problem;
  const size_t max = request->type == LATCHKEY_WHY ? 1 : LATCHKEY_BATCH_KEYS_MAX;
  if (request->keys == NULL || request->count == 0 || request->count > max) {
    return "a request holds 1 to 256 keys";
  }
  for (size_t i = 0; i < request->count; ++i) {
    if (request->keys[i].bytes == NULL && request->keys[i].length != 0) {
      return "a key that is not there";
    }
  }
  if (lk_keys_that_fit(&request->question, request->keys, request->count) != request->count) {
    return "these keys do not fit into one request of 65536 bytes";
  }
  return NULL;
}

size_t lk_keys_that_fit(const latchkey_question* question, const latchkey_key* keys, size_t count) {
  size_t bytes = overhead(question), fit = 0;
  while (fit < count && fit < LATCHKEY_BATCH_KEYS_MAX) {
    bytes += 2 + sent_length(&keys[fit]);
    if (bytes > LATCHKEY_REQUEST_BYTES_MAX) break;
    ++fit;
  }
  return fit;
}
_Static_assert(LATCHKEY_HEADER_BYTES + LATCHKEY_VERIFY_FIXED_BYTES + LATCHKEY_SOURCE_BYTES_MAX +
                       2 * LATCHKEY_SCOPES_MAX * (1 + LATCHKEY_SCOPE_BYTES_MAX) + 2 +
                       LATCHKEY_KEY_BYTES_MAX + 1 <=
                   LATCHKEY_REQUEST_BYTES_MAX,
               "one key always fits");

/* ---- writing */

static uint8_t* put(uint8_t* to, uint64_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) *to++ = (uint8_t)(value >> (8 * i));
  return to;
}

static uint8_t* put_bytes(uint8_t* to, const char* bytes, size_t length) {
  if (length != 0) memcpy(to, bytes, length);
  return to + length;
}

static uint8_t* put_scopes(uint8_t* to, const char* const* scopes, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    const size_t length = strlen(scopes[i]);
    to = put_bytes(put(to, length, 1), scopes[i], length);
  }
  return to;
}

static uint8_t* put_question(uint8_t* to, const lk_request* request) {
  const latchkey_question* question = &request->question;
  const size_t source_length = question->source == NULL ? 0 : strlen(question->source);
  to = put(to, request->type == LATCHKEY_WHY ? 0 : question->flags, 2);
  to = put(to, source_length, 1);
  to = put(to, question->all_scopes_count, 1);
  to = put(to, question->any_scopes_count, 1);
  to = put(to, 0, 1);
  to = put(to, request->count, 2);
  to = put(to, question->max_age_ms, 4);
  to = put_bytes(to, question->source, source_length);
  to = put_scopes(to, question->all_scopes, question->all_scopes_count);
  to = put_scopes(to, question->any_scopes, question->any_scopes_count);
  for (size_t i = 0; i < request->count; ++i) {
    const size_t length = sent_length(&request->keys[i]);
    to = put_bytes(put(to, length, 2), request->keys[i].bytes, length);
  }
  return to;
}

static size_t encoded_size(const lk_request* request) {
  size_t bytes = LATCHKEY_HEADER_BYTES;
  if (request->type == LATCHKEY_SYNC) bytes += 4;
  if (request->type != LATCHKEY_VERIFY && request->type != LATCHKEY_WHY) return bytes;
  bytes = overhead(&request->question);
  for (size_t i = 0; i < request->count; ++i) bytes += 2 + sent_length(&request->keys[i]);
  return bytes;
}

size_t lk_encode(lk_buffer* out, const lk_request* request, uint64_t request_id) {
  const size_t length = encoded_size(request);
  uint8_t* to = lk_buffer_reserve(out, length);
  if (to == NULL) return 0;
  to = put(to, LATCHKEY_VERSION, 1);
  to = put(to, request->type, 1);
  to = put(to, 0, 2);
  to = put(to, length, 4);
  to = put(to, request_id, 8);
  if (request->type == LATCHKEY_SYNC) put(to, request->timeout_ms, 4);
  if (request->type == LATCHKEY_VERIFY || request->type == LATCHKEY_WHY) put_question(to, request);
  out->end += length;
  return length;
}

/* ---- reading */

static uint64_t load(const uint8_t* from, int bytes) {
  uint64_t value = 0;
  for (int i = 0; i < bytes; ++i) value |= (uint64_t)from[i] << (8 * i);
  return value;
}

int lk_decode_header(const uint8_t* bytes, lk_header* header) {
  header->type = bytes[1];
  header->length = (uint32_t)load(bytes + 4, 4);
  header->request_id = load(bytes + 8, 8);
  if (bytes[0] != LATCHKEY_VERSION) return LATCHKEY_BAD_VERSION;
  if (load(bytes + 2, 2) != 0) return LATCHKEY_BAD_RESERVED;
  if (header->length < LATCHKEY_HEADER_BYTES || header->length > LATCHKEY_REPLY_BYTES_MAX) {
    return LATCHKEY_BAD_LENGTH;
  }
  switch (header->type) {
    case LATCHKEY_VERIFIED:
    case LATCHKEY_PONG:
    case LATCHKEY_STATUS_REPLY:
    case LATCHKEY_SYNCED:
    case LATCHKEY_WHY_REPLY:
    case LATCHKEY_ERROR: return 0;
    default: return LATCHKEY_BAD_TYPE;
  }
}

/* Terminates a text of `length` bytes by moving it one byte to the front, over a tag, length or
 * header that has already been read. Returns NULL if the text contains a zero byte. */
static const char* terminated(uint8_t* bytes, size_t length) {
  if (memchr(bytes, 0, length) != NULL) return NULL;
  uint8_t* text = bytes - 1;
  memmove(text, bytes, length);
  text[length] = 0;
  return (const char*)text;
}

static int decode_claim(latchkey_answer* answer, uint8_t tag, uint8_t* value, size_t length) {
  const char** text = NULL;
  switch (tag) {
    case LATCHKEY_CLAIM_SOURCE: text = &answer->source; break;
    case LATCHKEY_CLAIM_KEY_ID: text = &answer->key_id; break;
    case LATCHKEY_CLAIM_SUBJECT: text = &answer->subject; break;
    case LATCHKEY_CLAIM_TENANT: text = &answer->tenant; break;
    case LATCHKEY_CLAIM_SCOPE: text = &answer->scope; break;
    case LATCHKEY_CLAIM_METADATA: text = &answer->metadata; break;
    case LATCHKEY_CLAIM_EXPIRES:
      if (length != 8) return LATCHKEY_BAD_LENGTH;
      answer->expires = (int64_t)load(value, 8);
      answer->has_expires = 1;
      return 0;
    default: return 0; /* a claim of a newer daemon: skip it by its length */
  }
  *text = terminated(value, length);
  return *text == NULL ? LATCHKEY_BAD_LENGTH : 0;
}

static int decode_claims(uint8_t* at, const uint8_t* end, latchkey_answer* answer) {
  while (at != end) {
    if (end - at < LATCHKEY_CLAIM_BYTES) return LATCHKEY_TRUNCATED;
    const uint8_t tag = at[0];
    const size_t length = (size_t)load(at + 1, 2);
    at += LATCHKEY_CLAIM_BYTES;
    if ((size_t)(end - at) < length) return LATCHKEY_TRUNCATED;
    const int error = decode_claim(answer, tag, at, length);
    if (error != 0) return error;
    at += length;
  }
  return 0;
}

int lk_decode_verified(uint8_t* body, size_t length, latchkey_answer* answers, size_t* count) {
  if (length < LATCHKEY_VERIFIED_FIXED_BYTES) return LATCHKEY_TRUNCATED;
  *count = (size_t)load(body, 2);
  if (load(body + 2, 2) != 0) return LATCHKEY_BAD_RESERVED;
  if (*count > LATCHKEY_BATCH_KEYS_MAX) return LATCHKEY_BAD_COUNT;
  uint8_t* at = body + LATCHKEY_VERIFIED_FIXED_BYTES;
  uint8_t* const end = body + length;
  for (size_t i = 0; i < *count; ++i) {
    if (end - at < LATCHKEY_ANSWER_FIXED_BYTES) return LATCHKEY_TRUNCATED;
    const uint8_t verdict = at[0], flags = at[1];
    const size_t claims = (size_t)load(at + 2, 2);
    answers[i] = (latchkey_answer){.verdict = verdict,
                                   .fresh = (flags & LATCHKEY_FRESH) != 0,
                                   .age_ms = (uint32_t)load(at + 4, 4)};
    at += LATCHKEY_ANSWER_FIXED_BYTES;
    if ((size_t)(end - at) < claims) return LATCHKEY_TRUNCATED;
    const int error = decode_claims(at, at + claims, &answers[i]);
    if (error != 0) return error;
    if (verdict >= LATCHKEY_VERDICTS || (flags & ~LATCHKEY_ANSWER_FLAGS_ALL) != 0) {
      /* A newer daemon's verdict or flag has an unknown meaning: this key gets no answer. */
      answers[i] =
          (latchkey_answer){.verdict = LATCHKEY_UNAVAILABLE, .age_ms = LATCHKEY_AGE_UNKNOWN};
    }
    at += claims;
  }
  return at == end ? 0 : LATCHKEY_TRAILING;
}

int lk_decode_empty(size_t length) { return length == 0 ? 0 : LATCHKEY_TRAILING; }

int lk_decode_synced(const uint8_t* body, size_t length, uint64_t* waited_us) {
  if (length < 8) return LATCHKEY_TRUNCATED;
  *waited_us = load(body, 8);
  return length == 8 ? 0 : LATCHKEY_TRAILING;
}

int lk_decode_error(uint8_t* body, size_t length, uint32_t* code, const char** text) {
  if (length < 4) return LATCHKEY_TRUNCATED;
  *code = (uint32_t)load(body, 2);
  const size_t text_length = (size_t)load(body + 2, 2);
  if (length - 4 < text_length) return LATCHKEY_TRUNCATED;
  const int error = lk_decode_text(body + 4, text_length, text);
  if (error != 0) return error;
  return length - 4 == text_length ? 0 : LATCHKEY_TRAILING;
}

int lk_decode_text(uint8_t* body, size_t length, const char** text) {
  *text = terminated(body, length);
  return *text == NULL ? LATCHKEY_BAD_LENGTH : 0;
}
