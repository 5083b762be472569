#include "client/c/buffer.h"

#include <stdlib.h>
#include <string.h>

enum { SMALLEST = 4096 };

uint8_t* lk_buffer_reserve(lk_buffer* buffer, size_t bytes) {
  if (buffer->room - buffer->end >= bytes) return buffer->data + buffer->end;
  const size_t used = lk_buffer_size(buffer);
  if (buffer->start != 0 && buffer->room - used >= bytes) {
    memmove(buffer->data, lk_buffer_front(buffer), used);
    explicit_bzero(buffer->data + used, buffer->end - used);
  } else {
    size_t room = buffer->room == 0 ? SMALLEST : buffer->room;
    while (room - used < bytes) room *= 2;
    uint8_t* moved = malloc(room);
    if (moved == NULL) return NULL;
    if (used != 0) memcpy(moved, lk_buffer_front(buffer), used);
    lk_buffer_free(buffer);
    buffer->data = moved;
    buffer->room = room;
  }
  buffer->start = 0;
  buffer->end = used;
  return buffer->data + used;
}

void lk_buffer_wipe_front(lk_buffer* buffer, size_t bytes) {
  if (bytes != 0) explicit_bzero(lk_buffer_front(buffer), bytes);
  buffer->start += bytes;
  if (buffer->start == buffer->end) buffer->start = buffer->end = 0;
}

void lk_buffer_clear(lk_buffer* buffer) { lk_buffer_wipe_front(buffer, lk_buffer_size(buffer)); }

void lk_buffer_free(lk_buffer* buffer) {
  lk_buffer_clear(buffer);
  free(buffer->data);
  *buffer = (lk_buffer){0};
}
