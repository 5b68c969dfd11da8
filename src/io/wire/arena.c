/* SPDX-License-Identifier: Apache-2.0 */
/* Blocks in a list, the newest first; only the newest has room. */
#include "io/wire/arena.h"

#include <stdalign.h>
#include <stdlib.h>

#include "base/mem.h"

#define BLOCK_BYTES_MIN 512
#define BLOCK_BYTES_GROWTH_MAX ((size_t)1 << 20)

struct block {
    struct block *next;
    size_t used;
    size_t capacity;
    max_align_t bytes[];
};

struct fm_arena {
    struct block *head;
};

static struct block *block_add(fm_arena_t *arena, size_t bytes)
{
    size_t capacity = bytes < BLOCK_BYTES_MIN ? BLOCK_BYTES_MIN : bytes;
    struct block *block = fm_calloc(1, sizeof(*block) + capacity);

    if (block) {
        block->capacity = capacity;
        block->next = arena->head;
        arena->head = block;
    }
    return block;
}

fm_arena_t *fm_arena_create(size_t hint_bytes)
{
    fm_arena_t *arena = fm_calloc(1, sizeof(*arena));

    if (arena && !block_add(arena, hint_bytes)) {
        arena = fm_arena_destroy(arena);
    }
    return arena;
}

fm_arena_t *fm_arena_destroy(fm_arena_t *arena)
{
    while (arena && arena->head) {
        struct block *block = arena->head;
        arena->head = block->next;
        free(block);
    }
    free(arena);
    return NULL;
}

void *fm_arena_alloc(fm_arena_t *arena, size_t bytes)
{
    const size_t align = alignof(max_align_t);
    struct block *block = arena->head;

    bytes = (bytes + align - 1) / align * align;
    if (bytes > block->capacity - block->used) {
        /* Twice the last one: few blocks, and little waste in a large one. */
        size_t wanted = 2 * block->capacity;
        if (wanted > BLOCK_BYTES_GROWTH_MAX) {
            wanted = BLOCK_BYTES_GROWTH_MAX;
        }
        block = block_add(arena, bytes > wanted ? bytes : wanted);
        if (!block) {
            return NULL;
        }
    }
    char *at = (char *)block->bytes + block->used;
    block->used += bytes;
    return at;
}
