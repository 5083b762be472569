#include "client/c/arena.h"

#include <stdlib.h>
#include <string.h>

/* Exceeds the texts of any answer: LATCHKEY_CLAIMS_BYTES_MAX is far less. */
enum { BLOCK_BYTES = 65536 };

struct lk_block {
  lk_block* next;
  char bytes[BLOCK_BYTES];
};

bool lk_arena_keep(lk_arena* arena, const char** text) {
  if (*text == NULL) return true;
  const size_t length = strlen(*text) + 1;
  if (length > BLOCK_BYTES) return false;
  if (length > arena->left) {
    lk_block* block = malloc(sizeof *block);
    if (block == NULL) return false;
    block->next = arena->blocks;
    arena->blocks = block;
    arena->left = BLOCK_BYTES;
  }
  char* copy = arena->blocks->bytes + (BLOCK_BYTES - arena->left);
  memcpy(copy, *text, length);
  arena->left -= length;
  *text = copy;
  return true;
}

void lk_arena_clear(lk_arena* arena) {
  while (arena->blocks != NULL) {
    lk_block* block = arena->blocks;
    arena->blocks = block->next;
    free(block);
  }
  arena->left = 0;
}
