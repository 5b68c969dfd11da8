/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory that is taken piece by piece and given back at once.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "text/template/internal.h"

#define CHUNK_BYTES ((size_t)16 << 10)
#define ALIGNMENT _Alignof(max_align_t)

struct fm_template_chunk {
    struct fm_template_chunk *next;
    max_align_t data[];
};

void *fm_template_arena_alloc(fm_template_arena_t *arena, size_t bytes)
{
    size_t want = (bytes + ALIGNMENT) / ALIGNMENT * ALIGNMENT; /* never 0 */

    if (bytes > arena->limit || arena->total > arena->limit - want) {
        return NULL;
    }
    if (!arena->chunks || arena->size - arena->used < want) {
        /* chunks grow with the whole, so that there are few */
        size_t size =
            arena->total / 4 > CHUNK_BYTES ? arena->total / 4 : CHUNK_BYTES;
        size = want > size ? want : size;
        struct fm_template_chunk *chunk = fm_calloc(1, sizeof(*chunk) + size);
        if (!chunk) {
            return NULL;
        }
        chunk->next = arena->chunks;
        arena->chunks = chunk;
        arena->used = 0;
        arena->size = size;
    }
    void *block = (char *)arena->chunks->data + arena->used;
    arena->used += want;
    arena->total += want;
    return block;
}

void fm_template_arena_fini(fm_template_arena_t *arena)
{
    while (arena->chunks) {
        struct fm_template_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
    *arena = (fm_template_arena_t){0};
}
