/* A byte queue: bytes are appended at the end and removed at the front. Used memory is wiped before
 * it is freed: keys pass through here, and realloc() would leave copies of them behind. */
#ifndef LATCHKEY_C_BUFFER_H
#define LATCHKEY_C_BUFFER_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
  uint8_t* data;
  size_t start, end, room; /* start <= end <= room */
} lk_buffer;

static inline size_t lk_buffer_size(const lk_buffer* buffer) { return buffer->end - buffer->start; }

/* NULL if the buffer never held bytes: adding even 0 to NULL is undefined (C11 6.5.6). */
static inline uint8_t* lk_buffer_front(const lk_buffer* buffer) {
  return buffer->data == NULL ? NULL : buffer->data + buffer->start;
}

/* Returns space for `bytes` more bytes, to be followed by `end += bytes`; NULL if there is no
 * memory. May move the contents. */
uint8_t* lk_buffer_reserve(lk_buffer* buffer, size_t bytes);

/* Removes bytes from the front and wipes them. */
void lk_buffer_wipe_front(lk_buffer* buffer, size_t bytes);

/* Wipes the contents; keeps the memory. */
void lk_buffer_clear(lk_buffer* buffer);

/* Wipes the contents and frees the memory. */
void lk_buffer_free(lk_buffer* buffer);

#endif
