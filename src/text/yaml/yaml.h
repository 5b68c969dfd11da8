/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file yaml.h
 * The tree a YAML text becomes: immutable values with the place they were
 * written at, in one arena.
 *
 * Values are never changed once built, so merged specs, trials and YAML
 * aliases share subtrees freely.  A value caches its JSON form: shared
 * subtrees give shared JSON.  Depth is at most FM_YAML_DEPTH_MAX, so walks may
 * recurse.
 */
#ifndef FM_TEXT_YAML_YAML_H
#define FM_TEXT_YAML_YAML_H

#include "base/json.h"

#define FM_YAML_TEXT_BYTES_MAX (4u << 20)
#define FM_YAML_DEPTH_MAX 64u       /* deeper text is an attack */
#define FM_YAML_VALUES_MAX 1000000u /* after expansion of aliases */
#define FM_YAML_KEYS_MAX 1024u      /* of a map: lookups are linear */

/** Memory that is released all at once. */
typedef struct fm_yaml_arena {
    struct fm_yaml_chunk *chunks;
    struct fm_yaml_value *with_json; /* values whose json is to be dropped */
} fm_yaml_arena_t;

typedef struct fm_yaml_value fm_yaml_value_t;

/** An element of a list (key NULL) or a member of a map. */
typedef struct fm_yaml_member {
    const char *key;
    unsigned line, column; /* of the key; of the value in a list */
    const fm_yaml_value_t *value;
} fm_yaml_member_t;

struct fm_yaml_value {
    fm_json_type_t type;
    unsigned line, column; /* from 1 */
    uint32_t size;         /* values in this tree, itself included */
    uint32_t height;       /* levels below and including this one */
    bool boolean;
    int64_t integer;
    double real;
    const char *text; /* scalars: as written, NUL-terminated */
    size_t count;     /* members of a list or map */
    const fm_yaml_member_t *members;
    fm_json_t *json; /* cache */
    struct fm_yaml_value *next_with_json;
};

/** Where errors go, and which file they name. */
typedef struct fm_yaml_source {
    const char *file;
    fm_error_t *err;
} fm_yaml_source_t;

/** Record "file:line:column: text"; returns @p status. */
fm_status_t fm_yaml_fail(const fm_yaml_source_t *source, unsigned line,
                         unsigned column, fm_status_t status,
                         const char *format, ...) FM_PRINTF(5, 6);
/** The same for a value that is not allowed: FM_ERR_INVALID. */
fm_status_t fm_yaml_fail_at(const fm_yaml_source_t *source,
                            const fm_yaml_value_t *at, const char *text);
/** "; did you mean X?" for the closest of the @p count names, or "". */
const char *fm_yaml_suggest(const char *found, const char *const *names,
                            size_t count, char *space, size_t bytes);

/** @p bytes zeroed; NULL when memory is out. */
FM_MUST_USE void *fm_yaml_alloc(fm_yaml_arena_t *arena, size_t bytes);
FM_MUST_USE const char *fm_yaml_text(fm_yaml_arena_t *arena, const char *text,
                                     size_t len);
FM_MUST_USE const char *fm_yaml_printf(fm_yaml_arena_t *arena,
                                       const char *format, ...) FM_PRINTF(2, 3);
void fm_yaml_arena_fini(fm_yaml_arena_t *arena);

/** A list or map of @p members, which are copied; NULL: memory is out. */
FM_MUST_USE fm_yaml_value_t *fm_yaml_container(fm_yaml_arena_t *arena,
                                               fm_json_type_t type,
                                               unsigned line, unsigned column,
                                               const fm_yaml_member_t *members,
                                               size_t count);
/** A string at the place of @p at. */
FM_MUST_USE fm_yaml_value_t *fm_yaml_string(fm_yaml_arena_t *arena,
                                            const char *text,
                                            const fm_yaml_value_t *at);

/** Member of a map; NULL when there is none or @p map is no map. */
const fm_yaml_member_t *fm_yaml_member(const fm_yaml_value_t *map,
                                       const char *key);
const fm_yaml_value_t *fm_yaml_get(const fm_yaml_value_t *map, const char *key);
/** Text of a string value; NULL for any other. */
const char *fm_yaml_str(const fm_yaml_value_t *value);

/**
 * Deep merge: maps merge, anything else of @p over replaces, and a
 * null in @p over removes the key.  NULL only when memory is out.
 */
FM_MUST_USE const fm_yaml_value_t *fm_yaml_merge(fm_yaml_arena_t *arena,
                                                 const fm_yaml_value_t *base,
                                                 const fm_yaml_value_t *over);
/** @p map without member @p key; NULL: memory is out. */
FM_MUST_USE const fm_yaml_value_t *fm_yaml_without(fm_yaml_arena_t *arena,
                                                   const fm_yaml_value_t *map,
                                                   const char *key);
/**
 * @p root with @p value put at @p path ("training.beta", "data.items.0"),
 * making maps on the way.
 * @retval FM_ERR_INVALID  a step runs into a scalar or past a list; text
 *                         without a place.
 */
FM_MUST_USE fm_status_t fm_yaml_put(
    fm_yaml_arena_t *arena, const fm_yaml_value_t *root, const char *path,
    const fm_yaml_value_t *value, const fm_yaml_value_t **out, fm_error_t *err);
/** JSON form: borrowed, kept in the cache; NULL when memory is out. */
FM_MUST_USE const fm_json_t *fm_yaml_json(fm_yaml_arena_t *arena,
                                          const fm_yaml_value_t *value);

/** A JSON value of its own: a scalar, or an empty list or map. */
FM_MUST_USE fm_json_t *fm_yaml_json_fresh(const fm_yaml_value_t *value);

/** Parse one YAML 1.2 document (parse.c), at most FM_YAML_TEXT_BYTES_MAX. */
FM_MUST_USE fm_status_t fm_yaml_parse(fm_yaml_arena_t *arena, const char *text,
                                      size_t len,
                                      const fm_yaml_source_t *source,
                                      const fm_yaml_value_t **root_out);

#endif
