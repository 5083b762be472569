/* Copies of texts that share one lifetime. */
#ifndef LATCHKEY_C_ARENA_H
#define LATCHKEY_C_ARENA_H

#include <stdbool.h>
#include <stddef.h>

typedef struct lk_block lk_block;

typedef struct {
  lk_block* blocks;
  size_t left; /* bytes unused in the first block */
} lk_arena;

/* Replaces *text by a copy that lives until lk_arena_clear(); NULL stays NULL. False: no memory. */
bool lk_arena_keep(lk_arena* arena, const char** text);

void lk_arena_clear(lk_arena* arena);

#endif
