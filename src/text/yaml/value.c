/* SPDX-License-Identifier: Apache-2.0 */
/* Arena, tree of values, merge, substitution, JSON form (see yaml.h). */
#include "text/yaml/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define CHUNK_BYTES 65536u
#define SUGGEST_BYTES_MAX 63u /* longer names are not typing errors */

struct fm_yaml_chunk {
    struct fm_yaml_chunk *next;
    size_t used;
    size_t capacity;
    max_align_t data[];
};

/* --- errors --------------------------------------------------------------- */

fm_status_t fm_yaml_fail(const fm_yaml_source_t *source, unsigned line,
                         unsigned column, fm_status_t status,
                         const char *format, ...)
{
    char text[FM_ERROR_TEXT_BYTES];
    va_list args;

    va_start(args, format);
    if (vsnprintf(text, sizeof(text), format, args) < 0) {
        text[0] = '\0';
    }
    va_end(args);
    return fm_error_set(source->err, status, "%s:%u:%u: %s", source->file, line,
                        column, text);
}

fm_status_t fm_yaml_fail_at(const fm_yaml_source_t *source,
                            const fm_yaml_value_t *at, const char *text)
{
    return fm_yaml_fail(source, at->line, at->column, FM_ERR_INVALID, "%s",
                        text);
}

/* Edits (insert, delete, replace, swap of neighbours) from a to b, by rows:
 * optimal string alignment distance. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t rows[3][SUGGEST_BYTES_MAX + 2];
    size_t a_len = strlen(a);
    size_t b_len = strlen(b);

    if (a_len > SUGGEST_BYTES_MAX || b_len > SUGGEST_BYTES_MAX) {
        return SIZE_MAX;
    }
    for (size_t j = 0; j <= b_len; j++) {
        rows[0][j] = j;
        rows[2][j] = j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        size_t *row = rows[i % 3];
        const size_t *above = rows[(i + 2) % 3];
        const size_t *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t j = 1; j <= b_len; j++) {
            size_t best = above[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
            best = above[j] + 1 < best ? above[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
                a[i - 2] == b[j - 1] && above2[j - 2] + 1 < best) {
                best = above2[j - 2] + 1;
            }
            row[j] = best;
        }
    }
    return rows[a_len % 3][b_len];
}

const char *fm_yaml_suggest(const char *found, const char *const *names,
                            size_t count, char *space, size_t bytes)
{
    const char *best = NULL;
    size_t limit = strlen(found) / 3 + 1;
    size_t least = limit < 3 ? limit : 3;

    for (size_t i = 0; i < count; i++) {
        size_t distance = edit_distance(found, names[i]);
        if (distance < least || (distance == least && !best)) {
            least = distance;
            best = names[i];
        }
    }
    if (!best || least >= strlen(best)) {
        return "";
    }
    int n = snprintf(space, bytes, "; did you mean %s?", best);
    return n < 0 ? "" : space;
}

/* --- arena ---------------------------------------------------------------- */

void *fm_yaml_alloc(fm_yaml_arena_t *arena, size_t bytes)
{
    struct fm_yaml_chunk *chunk = arena->chunks;

    if (bytes > SIZE_MAX / 2) {
        return NULL;
    }
    bytes = (bytes + sizeof(max_align_t) - 1) & ~(sizeof(max_align_t) - 1);
    if (!chunk || chunk->capacity - chunk->used < bytes) {
        size_t capacity = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        chunk = fm_calloc(1, sizeof(*chunk) + capacity);
        if (!chunk) {
            return NULL;
        }
        chunk->capacity = capacity;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    void *block = (char *)chunk->data + chunk->used;
    chunk->used += bytes;
    return block;
}

const char *fm_yaml_text(fm_yaml_arena_t *arena, const char *text, size_t len)
{
    char *copy = fm_yaml_alloc(arena, len + 1);

    if (copy && len) {
        memcpy(copy, text, len);
    }
    return copy;
}

const char *fm_yaml_printf(fm_yaml_arena_t *arena, const char *format, ...)
{
    va_list args;
    va_list again;
    char *text = NULL;

    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    if (n >= 0 && (text = fm_yaml_alloc(arena, (size_t)n + 1))) {
        (void)vsnprintf(text, (size_t)n + 1, format, again);
    }
    va_end(again);
    va_end(args);
    return text;
}

void fm_yaml_arena_fini(fm_yaml_arena_t *arena)
{
    for (fm_yaml_value_t *v = arena->with_json; v; v = v->next_with_json) {
        v->json = fm_json_drop(v->json);
    }
    while (arena->chunks) {
        struct fm_yaml_chunk *next = arena->chunks->next;
        free(arena->chunks);
        arena->chunks = next;
    }
    arena->with_json = NULL;
}

/* --- values --------------------------------------------------------------- */

fm_yaml_value_t *fm_yaml_container(fm_yaml_arena_t *arena, fm_json_type_t type,
                                   unsigned line, unsigned column,
                                   const fm_yaml_member_t *members,
                                   size_t count)
{
    fm_yaml_value_t *value = fm_yaml_alloc(arena, sizeof(*value));
    fm_yaml_member_t *copy = fm_yaml_alloc(arena, count * sizeof(*copy));
    uint64_t size = 1;

    if (!value || !copy) {
        return NULL;
    }
    value->type = type;
    value->line = line;
    value->column = column;
    for (size_t i = 0; i < count; i++) {
        copy[i] = members[i];
        size += members[i].value->size;
        if (members[i].value->height > value->height) {
            value->height = members[i].value->height;
        }
    }
    value->size = size > UINT32_MAX ? UINT32_MAX : (uint32_t)size;
    value->height++;
    value->count = count;
    value->members = copy;
    return value;
}

fm_yaml_value_t *fm_yaml_string(fm_yaml_arena_t *arena, const char *text,
                                const fm_yaml_value_t *at)
{
    fm_yaml_value_t *value = fm_yaml_alloc(arena, sizeof(*value));

    if (value && (value->text = fm_yaml_text(arena, text, strlen(text)))) {
        value->type = FM_JSON_STRING;
        value->line = at->line;
        value->column = at->column;
        value->size = 1;
        value->height = 1;
        return value;
    }
    return NULL;
}

const fm_yaml_member_t *fm_yaml_member(const fm_yaml_value_t *map,
                                       const char *key)
{
    if (map && map->type == FM_JSON_OBJECT) {
        for (size_t i = 0; i < map->count; i++) {
            if (strcmp(map->members[i].key, key) == 0) {
                return &map->members[i];
            }
        }
    }
    return NULL;
}

const fm_yaml_value_t *fm_yaml_get(const fm_yaml_value_t *map, const char *key)
{
    const fm_yaml_member_t *member = fm_yaml_member(map, key);

    return member ? member->value : NULL;
}

const char *fm_yaml_str(const fm_yaml_value_t *value)
{
    return value && value->type == FM_JSON_STRING ? value->text : NULL;
}

const fm_yaml_value_t *fm_yaml_merge(fm_yaml_arena_t *arena,
                                     const fm_yaml_value_t *base,
                                     const fm_yaml_value_t *over)
{
    if (!base || base->type != FM_JSON_OBJECT || over->type != FM_JSON_OBJECT) {
        return over;
    }
    fm_yaml_member_t *members =
        fm_calloc(base->count + over->count, sizeof(*members));
    const fm_yaml_value_t *merged = NULL;
    size_t used = 0;

    if (!members) {
        return NULL;
    }
    for (size_t i = 0; i < base->count; i++) {
        const fm_yaml_member_t *found =
            fm_yaml_member(over, base->members[i].key);
        if (found && found->value->type == FM_JSON_NULL) {
            continue;
        }
        members[used] = found ? *found : base->members[i];
        if (found && !(members[used].value = fm_yaml_merge(
                           arena, base->members[i].value, found->value))) {
            goto out;
        }
        used++;
    }
    for (size_t i = 0; i < over->count; i++) {
        if (!fm_yaml_member(base, over->members[i].key) &&
            over->members[i].value->type != FM_JSON_NULL) {
            members[used++] = over->members[i];
        }
    }
    merged = fm_yaml_container(arena, FM_JSON_OBJECT, over->line, over->column,
                               members, used);
out:
    free(members);
    return merged;
}

const fm_yaml_value_t *fm_yaml_without(fm_yaml_arena_t *arena,
                                       const fm_yaml_value_t *map,
                                       const char *key)
{
    fm_yaml_member_t *kept = fm_calloc(map->count, sizeof(*kept));
    size_t count = 0;

    for (size_t i = 0; kept && i < map->count; i++) {
        if (strcmp(map->members[i].key, key) != 0) {
            kept[count++] = map->members[i];
        }
    }
    const fm_yaml_value_t *out =
        kept ? fm_yaml_container(arena, FM_JSON_OBJECT, map->line, map->column,
                                 kept, count)
             : NULL;
    free(kept);
    return out;
}

/* The member of a container that a path step names; count when none. */
static size_t step_index(const fm_yaml_value_t *at, const char *step,
                         size_t len)
{
    if (at->type == FM_JSON_ARRAY) {
        size_t index = 0;
        for (size_t i = 0; i < len; i++) {
            if (step[i] < '0' || step[i] > '9' || index > at->count) {
                return at->count;
            }
            index = index * 10 + (size_t)(step[i] - '0');
        }
        return index < at->count ? index : at->count;
    }
    size_t i = 0;
    while (i < at->count && !(strncmp(at->members[i].key, step, len) == 0 &&
                              at->members[i].key[len] == '\0')) {
        i++;
    }
    return i;
}

fm_status_t fm_yaml_put(fm_yaml_arena_t *arena, const fm_yaml_value_t *root,
                        const char *path, const fm_yaml_value_t *value,
                        const fm_yaml_value_t **out, fm_error_t *err)
{
    size_t len = strcspn(path, ".");
    const char *rest = path[len] == '.' ? path + len + 1 : NULL;

    if (len == 0) {
        return fm_error_set(err, FM_ERR_INVALID, "empty step in the key path");
    }
    bool is_list = root && root->type == FM_JSON_ARRAY;
    bool is_map = !root || root->type == FM_JSON_OBJECT;
    size_t count = root && (is_list || is_map) ? root->count : 0;
    size_t index = count ? step_index(root, path, len) : 0;
    if ((!is_list && !is_map) || (is_list && index >= count)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            is_list ? "the list has no element %.*s"
                                    : "%.*s lies below a value that is no map",
                            (int)len, path);
    }
    const fm_yaml_value_t *child = value;
    fm_status_t rc = FM_OK;
    if (rest && (rc = fm_yaml_put(
                     arena, index < count ? root->members[index].value : NULL,
                     rest, value, &child, err)) < 0) {
        return rc;
    }
    fm_yaml_member_t *members = fm_calloc(count + 1, sizeof(*members));
    if (!members) {
        return fm_no_memory(err);
    }
    if (count) {
        memcpy(members, root->members, count * sizeof(*members));
    }
    if (index == count) {
        members[index].key = fm_yaml_text(arena, path, len);
        count++;
    }
    members[index].value = child;
    members[index].line = value->line;
    members[index].column = value->column;
    const fm_yaml_value_t *made =
        fm_yaml_container(arena, is_list ? FM_JSON_ARRAY : FM_JSON_OBJECT,
                          root ? root->line : value->line,
                          root ? root->column : value->column, members, count);
    bool ok = made && (is_list || members[index].key);
    free(members);
    if (!ok) {
        return fm_no_memory(err);
    }
    *out = made;
    return FM_OK;
}

/* --- JSON ----------------------------------------------------------------- */

static fm_json_t *container_json(fm_yaml_arena_t *arena,
                                 const fm_yaml_value_t *value)
{
    bool map = value->type == FM_JSON_OBJECT;
    fm_json_t *json = map ? fm_json_object() : fm_json_array();

    for (size_t i = 0; json && i < value->count; i++) {
        const fm_yaml_member_t *member = &value->members[i];
        fm_json_t *child = fm_json_keep(fm_yaml_json(arena, member->value));
        fm_status_t rc = map ? fm_json_set(json, member->key, child)
                             : fm_json_append(json, child);
        if (rc < 0) {
            json = fm_json_drop(json);
        }
    }
    return json;
}

fm_json_t *fm_yaml_json_fresh(const fm_yaml_value_t *value)
{
    switch (value->type) {
    case FM_JSON_NULL:
        return fm_json_null();
    case FM_JSON_BOOL:
        return fm_json_bool(value->boolean);
    case FM_JSON_INT:
        return fm_json_int(value->integer);
    case FM_JSON_REAL:
        return fm_json_real(value->real);
    case FM_JSON_STRING:
        return fm_json_string(value->text);
    case FM_JSON_ARRAY:
        return fm_json_array();
    case FM_JSON_OBJECT:
        break;
    }
    return fm_json_object();
}

const fm_json_t *fm_yaml_json(fm_yaml_arena_t *arena,
                              const fm_yaml_value_t *value)
{
    if (!value->json) {
        /* The cache is the one field that changes after building. */
        union {
            const fm_yaml_value_t *from;
            fm_yaml_value_t *to;
        } cast = {.from = value};
        cast.to->json = value->count ? container_json(arena, value)
                                     : fm_yaml_json_fresh(value);
        if (value->json) {
            cast.to->next_with_json = arena->with_json;
            arena->with_json = cast.to;
        }
    }
    return value->json;
}
