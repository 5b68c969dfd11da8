/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file map.h
 * Hash maps to 64-bit values: fm_map_t keyed by 32-byte digests,
 * fm_strmap_t keyed by strings.  Open addressing, linear probing, load ≤ 0.7,
 * backward-shift deletion, so iteration order depends only on content and
 * insertion history.  Threads: one at a time.
 */
#ifndef FM_BASE_MAP_H
#define FM_BASE_MAP_H

#include "base/hash.h"

typedef struct fm_map fm_map_t;

FM_MUST_USE fm_map_t *fm_map_create(void);
void *fm_map_destroy(fm_map_t *map);
size_t fm_map_count(const fm_map_t *map);
/** Address of the value of @p key, valid until the next change; or NULL. */
uint64_t *fm_map_get(const fm_map_t *map, const fm_digest_t *key);
/** Insert or replace. */
FM_MUST_USE fm_status_t fm_map_put(fm_map_t *map, const fm_digest_t *key,
                                   uint64_t value, fm_error_t *err);
/** False when it was not there. */
bool fm_map_remove(fm_map_t *map, const fm_digest_t *key);
/** Iterate: start with *cursor = 0; false at the end.  No change meanwhile. */
bool fm_map_next(const fm_map_t *map, size_t *cursor, fm_digest_t *key_out,
                 uint64_t *value_out);

typedef struct fm_strmap fm_strmap_t;

FM_MUST_USE fm_strmap_t *fm_strmap_create(void);
void *fm_strmap_destroy(fm_strmap_t *map);
size_t fm_strmap_count(const fm_strmap_t *map);
uint64_t *fm_strmap_get(const fm_strmap_t *map, const char *key);
/** Insert or replace; the key is copied. */
FM_MUST_USE fm_status_t fm_strmap_put(fm_strmap_t *map, const char *key,
                                      uint64_t value, fm_error_t *err);
bool fm_strmap_remove(fm_strmap_t *map, const char *key);
/** Iterate as fm_map_next(); the key is borrowed. */
bool fm_strmap_next(const fm_strmap_t *map, size_t *cursor,
                    const char **key_out, uint64_t *value_out);

#endif
