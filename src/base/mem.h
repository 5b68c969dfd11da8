/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file mem.h
 * Allocation: the C library's, with overflow checks and a fault point
 * ("base.alloc") so that every out-of-memory path can be exercised.
 * Memory is released with free().  All return NULL when memory is out.
 */
#ifndef FM_BASE_MEM_H
#define FM_BASE_MEM_H

#include <flowmesh/error.h>
#include <stddef.h>

FM_MUST_USE void *fm_malloc(size_t bytes);
FM_MUST_USE void *fm_calloc(size_t count, size_t bytes);
/** Resize to @p count elements of @p bytes; the old block stays valid on
 *  failure. */
FM_MUST_USE void *fm_realloc(void *block, size_t count, size_t bytes);
FM_MUST_USE char *fm_strdup(const char *text);
FM_MUST_USE char *fm_strndup(const char *text, size_t len);
/** printf into a fresh string; NULL when memory is out. */
FM_MUST_USE char *fm_asprintf(const char *format, ...) FM_PRINTF(1, 2);

/**
 * Make room for one more element in a growing array (doubling).
 * @param array     address of the array pointer (any object pointer type).
 * @param capacity  [in,out] elements allocated.
 * @param count     elements in use.
 * @param bytes     bytes of an element.
 */
FM_MUST_USE fm_status_t fm_grow(void *array, size_t *capacity, size_t count,
                                size_t bytes, fm_error_t *err);

/** Set err to "out of memory" and return FM_ERR_NO_MEMORY. */
fm_status_t fm_no_memory(fm_error_t *err);
/* As in error.h. */
#if defined(__clang_analyzer__) || defined(FM_ANALYSE)
#define fm_no_memory(err) ((void)(fm_no_memory)(err), FM_ERR_NO_MEMORY)
#endif

#define FM_COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

#endif
