/* Bytes in a row, taken from the front, added at the end. Memory that held any is wiped before it
 * is given back: keys pass through here, and realloc() would leave copies of them behind. */
#ifndef LATCHKEY_C_BUFFER_H
#define LATCHKEY_C_BUFFER_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
  uint8_t* data;
  size_t start, end, room; /* start <= end <= room */
} lk_buffer;

static inline size_t lk_buffer_size(const lk_buffer* buffer) { return buffer->end - buffer->start; }

/* NULL if it has never held anything: nothing may be added to that, not even 0 (C11 6.5.6). */
static inline uint8_t* lk_buffer_front(const lk_buffer* buffer) {
  return buffer->data == NULL ? NULL : buffer->data + buffer->start;
}

/* Where `bytes` more may be written, to be followed by `end += bytes`; NULL if there is no memory.
 * What the buffer holds may move. */
uint8_t* lk_buffer_reserve(lk_buffer* buffer, size_t bytes);

/* Take bytes from the front and wipe them. */
void lk_buffer_wipe_front(lk_buffer* buffer, size_t bytes);

/* Wipe what is in it; the memory is kept. */
void lk_buffer_clear(lk_buffer* buffer);

/* Wipe and give back. */
void lk_buffer_free(lk_buffer* buffer);

#endif
