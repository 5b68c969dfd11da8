/* SPDX-License-Identifier: Apache-2.0 */
/** @file arena.h  Memory of one decoded message; private to the codec. */
#ifndef FM_IO_WIRE_ARENA_H
#define FM_IO_WIRE_ARENA_H

#include <flowmesh/error.h>
#include <stddef.h>

typedef struct fm_arena fm_arena_t;

/** Room for some messages' worth of @p hint_bytes; NULL: out of memory. */
FM_MUST_USE fm_arena_t *fm_arena_create(size_t hint_bytes);
fm_arena_t *fm_arena_destroy(fm_arena_t *arena);
/** Zeroed, aligned for any object; NULL: out of memory. */
FM_MUST_USE void *fm_arena_alloc(fm_arena_t *arena, size_t bytes);

#endif
