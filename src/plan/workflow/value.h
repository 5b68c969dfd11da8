/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file value.h
 * The tree a workflow text becomes: immutable values with the place they were
 * written at, in one arena.
 *
 * Values are never changed once built, so merged specs, trials and YAML
 * aliases share subtrees freely.  A value caches its JSON form: shared
 * subtrees give shared JSON.  Depth is at most FM_WF_DEPTH_MAX, so walks may
 * recurse.
 */
#ifndef FM_PLAN_WORKFLOW_VALUE_H
#define FM_PLAN_WORKFLOW_VALUE_H

#include "base/json.h"

#define FM_WF_DEPTH_MAX 64u       /* deeper text is an attack */
#define FM_WF_VALUES_MAX 1000000u /* after expansion of aliases */
#define FM_WF_KEYS_MAX 1024u      /* of a map: lookups are linear */

/** Memory that is released all at once. */
typedef struct fm_wf_arena {
    struct fm_wf_chunk *chunks;
    struct fm_wf_value *with_json; /* values whose json is to be dropped */
} fm_wf_arena_t;

typedef struct fm_wf_value fm_wf_value_t;

/** An element of a list (key NULL) or a member of a map. */
typedef struct fm_wf_member {
    const char *key;
    unsigned line, column; /* of the key; of the value in a list */
    const fm_wf_value_t *value;
} fm_wf_member_t;

struct fm_wf_value {
    fm_json_type_t type;
    unsigned line, column; /* from 1 */
    uint32_t size;         /* values in this tree, itself included */
    uint32_t height;       /* levels below and including this one */
    bool boolean;
    int64_t integer;
    double real;
    const char *text; /* scalars: as written, NUL-terminated */
    size_t count;     /* members of a list or map */
    const fm_wf_member_t *members;
    fm_json_t *json; /* cache */
    struct fm_wf_value *next_with_json;
};

/** Where errors go, and which file they name. */
typedef struct fm_wf_source {
    const char *file;
    fm_error_t *err;
} fm_wf_source_t;

/** Record "file:line:column: text"; returns @p status. */
fm_status_t fm_wf_fail(const fm_wf_source_t *source, unsigned line,
                       unsigned column, fm_status_t status, const char *format,
                       ...) FM_PRINTF(5, 6);
/** The same for a value that is not allowed: FM_ERR_INVALID. */
fm_status_t fm_wf_fail_at(const fm_wf_source_t *source, const fm_wf_value_t *at,
                          const char *text);
/** "; did you mean X?" for the closest of the @p count names, or "". */
const char *fm_wf_suggest(const char *found, const char *const *names,
                          size_t count, char *space, size_t bytes);

/** @p bytes zeroed; NULL when memory is out. */
FM_MUST_USE void *fm_wf_alloc(fm_wf_arena_t *arena, size_t bytes);
FM_MUST_USE const char *fm_wf_text(fm_wf_arena_t *arena, const char *text,
                                   size_t len);
FM_MUST_USE const char *fm_wf_printf(fm_wf_arena_t *arena, const char *format,
                                     ...) FM_PRINTF(2, 3);
void fm_wf_arena_fini(fm_wf_arena_t *arena);

/** A list or map of @p members, which are copied; NULL: memory is out. */
FM_MUST_USE fm_wf_value_t *
fm_wf_container(fm_wf_arena_t *arena, fm_json_type_t type, unsigned line,
                unsigned column, const fm_wf_member_t *members, size_t count);
/** A string at the place of @p at. */
FM_MUST_USE fm_wf_value_t *fm_wf_string(fm_wf_arena_t *arena, const char *text,
                                        const fm_wf_value_t *at);

/** Member of a map; NULL when there is none or @p map is no map. */
const fm_wf_member_t *fm_wf_member(const fm_wf_value_t *map, const char *key);
const fm_wf_value_t *fm_wf_get(const fm_wf_value_t *map, const char *key);
/** Text of a string value; NULL for any other. */
const char *fm_wf_str(const fm_wf_value_t *value);

/**
 * Deep merge (W12): maps merge, anything else of @p over replaces, and a
 * null in @p over removes the key.  NULL only when memory is out.
 */
FM_MUST_USE const fm_wf_value_t *fm_wf_merge(fm_wf_arena_t *arena,
                                             const fm_wf_value_t *base,
                                             const fm_wf_value_t *over);
/** @p map without member @p key; NULL: memory is out. */
FM_MUST_USE const fm_wf_value_t *
fm_wf_without(fm_wf_arena_t *arena, const fm_wf_value_t *map, const char *key);
/**
 * @p root with @p value put at @p path ("training.beta", "data.items.0"),
 * making maps on the way.
 * @retval FM_ERR_INVALID  a step runs into a scalar or past a list; text
 *                         without a place.
 */
FM_MUST_USE fm_status_t fm_wf_put(fm_wf_arena_t *arena,
                                  const fm_wf_value_t *root, const char *path,
                                  const fm_wf_value_t *value,
                                  const fm_wf_value_t **out, fm_error_t *err);
/** JSON form: borrowed, kept in the cache; NULL when memory is out. */
FM_MUST_USE const fm_json_t *fm_wf_json(fm_wf_arena_t *arena,
                                        const fm_wf_value_t *value);

/** A JSON value of its own: a scalar, or an empty list or map. */
FM_MUST_USE fm_json_t *fm_wf_json_fresh(const fm_wf_value_t *value);

/** Parse YAML text to a tree (yaml.c). */
FM_MUST_USE fm_status_t fm_wf_yaml_parse(fm_wf_arena_t *arena, const char *text,
                                         size_t len,
                                         const fm_wf_source_t *source,
                                         const fm_wf_value_t **root_out);

#endif
