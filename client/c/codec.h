/* Encodes requests and decodes replies (protocol/PROTOCOL.md). No sockets, no clock. */
#ifndef LATCHKEY_C_CODEC_H
#define LATCHKEY_C_CODEC_H

#include <stdbool.h>

#include "client/c/buffer.h"
#include "latchkey/client.h"

/* One request of any type. Fields that its type does not need are ignored. */
typedef struct {
  enum latchkey_type type;
  latchkey_question question; /* verify, why */
  const latchkey_key* keys;   /* verify, why */
  size_t count;
  uint32_t timeout_ms; /* sync */
} lk_request;

/* Describes the request's error, for people; NULL if the daemon would accept its form. (The daemon
 * closes the connection on a malformed request, which would also fail other requests.) */
const char* lk_request_problem(const lk_request* request);

/* Number of keys that fit into one request with this question, at least 1. */
size_t lk_keys_that_fit(const latchkey_question* question, const latchkey_key* keys, size_t count);

/* Appends the frame of a valid request. Returns its length, or 0 if there is no memory. */
size_t lk_encode(lk_buffer* out, const lk_request* request, uint64_t request_id);

typedef struct {
  uint8_t type;
  uint32_t length; /* of the whole frame */
  uint64_t request_id;
} lk_header;

/* The decoders return 0 or the enum latchkey_error that the bytes violate. They write zeros into
 * the bytes they read, to terminate texts. */

/* Reads LATCHKEY_HEADER_BYTES bytes. LATCHKEY_BAD_TYPE unless it is a reply. */
int lk_decode_header(const uint8_t* bytes, lk_header* header);

/* The body of `verified`. `answers` has room for LATCHKEY_BATCH_KEYS_MAX; their texts live in
 * `body`. */
int lk_decode_verified(uint8_t* body, size_t length, latchkey_answer* answers, size_t* count);

int lk_decode_empty(size_t length);
int lk_decode_synced(const uint8_t* body, size_t length, uint64_t* waited_us);

/* Passes on codes without a name here: a newer daemon may have more. */
int lk_decode_error(uint8_t* body, size_t length, uint32_t* code, const char** text);

/* status_reply and why_reply. Overwrites the byte before `body`. */
int lk_decode_text(uint8_t* body, size_t length, const char** text);

#endif
