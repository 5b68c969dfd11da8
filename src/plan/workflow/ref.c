/* SPDX-License-Identifier: Apache-2.0 */
/* References: finding them in a spec, replacing them by values (W20 – W23). */
#include "plan/workflow/ref.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

#define REF_BYTES_MAX 1024u

static const char name_chars[] = "abcdefghijklmnopqrstuvwxyz"
                                 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";

/* The next unescaped "${", or NULL. */
static const char *next_ref(const char *text)
{
    const char *at = text;

    while ((at = strstr(at, "${"))) {
        if (at == text || at[-1] != '$') {
            return at;
        }
        at += 2;
    }
    return NULL;
}

bool fm_wf_ref_is_whole(const char *text)
{
    if (!text || strncmp(text, "${", 2) != 0) {
        return false;
    }
    const char *end = strchr(text, '}');
    return end && end[1] == '\0';
}

bool fm_wf_ref_inside(const char *text)
{
    return text && next_ref(text);
}

bool fm_wf_is_literal(const fm_yaml_value_t *value)
{
    return fm_yaml_str(value) && *value->text && !fm_wf_ref_inside(value->text);
}

/* --- finding -------------------------------------------------------------- */

struct finder {
    fm_yaml_arena_t *arena;
    const fm_yaml_source_t *source;
    fm_wf_ref_t *refs;
    size_t count, capacity;
    bool reward; /* inside `reward` */
};

/* items[.N[.output…]], export[…], skipped; with @p wild also items[*]. */
static const char *path_problem(const char *path, bool wild)
{
    size_t len = strcspn(path, ".[");
    const char *at = path + len;

    if (strncmp(path, "skipped", len) == 0 && len == 7) {
        return *at ? "skipped has no members" : NULL;
    }
    if (strncmp(path, "export", len) == 0 && len == 6) {
        return NULL;
    }
    if (strncmp(path, "parts", len) == 0 && len == 5) {
        return *at == '.' ? NULL : "after parts comes the name of a part";
    }
    if (strncmp(path, "items", len) != 0 || len != 5) {
        return "a path starts with items, export, parts or skipped";
    }
    if (*at == '\0') {
        return NULL;
    }
    bool bracket = *at++ == '[';
    if (wild && bracket && strncmp(at, "*]", 2) == 0) {
        at += 2;
    } else {
        size_t digits = strspn(at, "0123456789");
        at += digits;
        if (digits == 0 || digits > 9 || (bracket && *at++ != ']')) {
            return "after items comes a position, such as items.0.output";
        }
    }
    if (*at == '\0') {
        return NULL;
    }
    bool output = strncmp(at, ".output", 7) == 0 &&
                  (at[7] == '\0' || at[7] == '.' || at[7] == '[');
    return output ? NULL : "an item has the key output";
}

static fm_status_t add_ref(struct finder *f, const char *stage, size_t len,
                           const char *path, size_t path_len, unsigned line,
                           unsigned column, bool wild)
{
    fm_status_t rc = fm_grow(&f->refs, &f->capacity, f->count, sizeof(*f->refs),
                             f->source->err);

    if (rc < 0) {
        return rc;
    }
    fm_wf_ref_t *ref = &f->refs[f->count];
    *ref = (fm_wf_ref_t){.line = line,
                         .column = column,
                         .target = FM_WF_NONE,
                         .reward = f->reward};
    if (!(ref->stage = fm_yaml_text(f->arena, stage, len)) ||
        !(ref->path = fm_yaml_text(f->arena, path, path_len))) {
        return fm_no_memory(f->source->err);
    }
    const char *problem = path_problem(ref->path, wild);
    if (problem) {
        return fm_yaml_fail(f->source, line, column, FM_ERR_INVALID,
                            "path %.80s of node %.80s; %s", ref->path,
                            ref->stage, problem);
    }
    f->count++;
    return FM_OK;
}

static fm_status_t find_in_text(struct finder *f, const fm_yaml_value_t *value)
{
    const char *at = next_ref(value->text);
    fm_status_t rc = FM_OK;

    while (at && rc == FM_OK) {
        const char *name = at + 2;
        size_t len = strspn(name, name_chars);
        const char *end = strchr(name, '}');
        const char *path = name + len + 1;
        if (!end || (size_t)(end - at) > REF_BYTES_MAX || len == 0 ||
            name[len] != '.' || path == end) {
            int shown = end && end - at < 60 ? (int)(end - at + 1) : 60;
            return fm_yaml_fail(
                f->source, value->line, value->column, FM_ERR_INVALID,
                "reference %.*s; allowed: ${NODE.items.0.output} "
                "and such ($${ is a literal ${)",
                shown, at);
        }
        rc = add_ref(f, name, len, path, (size_t)(end - path), value->line,
                     value->column, false);
        at = next_ref(end + 1);
    }
    return rc;
}

/* {node, path}: exactly these keys, both text. */
static bool is_ref_map(const fm_yaml_value_t *value)
{
    return value->type == FM_JSON_OBJECT && value->count == 2 &&
           fm_yaml_str(fm_yaml_get(value, "node")) &&
           fm_yaml_str(fm_yaml_get(value, "path"));
}

static fm_status_t find_map(struct finder *f, const fm_yaml_value_t *map,
                            const char *fallback, bool wild)
{
    const fm_yaml_value_t *node = fm_yaml_get(map, "node");
    const char *path = fm_yaml_str(fm_yaml_get(map, "path"));
    const char *name = fm_yaml_str(node);

    path = path ? path : fallback;
    return name ? add_ref(f, name, strlen(name), path, strlen(path), node->line,
                          node->column, wild)
                : FM_OK;
}

static fm_status_t find_in(struct finder *f, const fm_yaml_value_t *value,
                           bool maps)
{
    fm_status_t rc = FM_OK;

    if (value->type == FM_JSON_STRING) {
        return find_in_text(f, value);
    }
    if (maps && is_ref_map(value)) {
        return find_map(f, value, "items", false);
    }
    for (size_t i = 0; i < value->count && rc == FM_OK; i++) {
        rc = find_in(f, value->members[i].value, maps);
    }
    return rc;
}

static fm_status_t find_in_data(struct finder *f, const fm_yaml_value_t *data)
{
    const fm_yaml_value_t *jsonl = fm_yaml_get(data, "jsonl");
    const fm_yaml_value_t *columns =
        fm_yaml_get(fm_yaml_get(data, "template"), "columns");
    bool map = data->type == FM_JSON_OBJECT;
    fm_status_t rc = map ? find_map(f, data, "items", false) : FM_OK;

    const fm_yaml_value_t *nodes = fm_yaml_get(data, "nodes");
    for (size_t i = 0; nodes && i < nodes->count && rc == FM_OK; i++) {
        const fm_yaml_value_t *name = nodes->members[i].value;
        if (fm_yaml_str(name)) {
            rc = add_ref(f, name->text, strlen(name->text), "items", 5,
                         name->line, name->column, false);
        }
    }
    if (rc == FM_OK && jsonl && jsonl->type == FM_JSON_OBJECT) {
        rc = find_map(f, jsonl, "items", false);
    }
    for (size_t i = 0; columns && i < columns->count && rc == FM_OK; i++) {
        rc = find_map(f, columns->members[i].value, "items[*].output", true);
    }
    for (size_t i = 0; map && i < data->count && rc == FM_OK; i++) {
        /* A column is structure, though it may look like {node, path}. */
        bool maps = strcmp(data->members[i].key, "items") == 0;
        rc = find_in(f, data->members[i].value, maps);
    }
    return rc;
}

static fm_status_t find_in_model(struct finder *f, const fm_yaml_value_t *model)
{
    const fm_yaml_value_t *source = fm_yaml_get(model, "source");
    const fm_yaml_value_t *adapters = fm_yaml_get(model, "adapters");
    fm_status_t rc = FM_OK;

    if (source && source->type == FM_JSON_OBJECT) {
        rc = find_map(f, source, "items.0.output.model", false);
    }
    for (size_t i = 0; adapters && i < adapters->count && rc == FM_OK; i++) {
        const fm_yaml_value_t *node =
            fm_yaml_get(adapters->members[i].value, "node");
        if (fm_yaml_str(node)) {
            rc = add_ref(f, node->text, strlen(node->text),
                         "items.0.output.adapter", 22, node->line, node->column,
                         false);
        }
    }
    return rc < 0 ? rc : find_in(f, model, false);
}

/* A map whose `code` is not searched and whose `model` is one: a reward, map,
 * filter. */
static fm_status_t find_in_map(struct finder *f, const fm_yaml_value_t *map)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < map->count && rc == FM_OK; i++) {
        const fm_yaml_member_t *at = &map->members[i];
        bool keyed = map->type == FM_JSON_OBJECT;
        if (keyed && strcmp(at->key, "model") == 0) {
            rc = find_in_model(f, at->value);
        } else if (!keyed || strcmp(at->key, "code") != 0) {
            rc = keyed ? find_in(f, at->value, false)
                       : find_in_map(f, at->value);
        }
    }
    return rc;
}

static fm_status_t find_in_section(struct finder *f, const char *key,
                                   const fm_yaml_value_t *value)
{
    fm_status_t rc = FM_OK;

    if (strcmp(key, "code") == 0 || strcmp(key, "postprocess") == 0) {
        return FM_OK;
    }
    if (strcmp(key, "data") == 0) {
        return find_in_data(f, value);
    }
    if (strcmp(key, "condition") == 0) {
        const fm_yaml_value_t *node = fm_yaml_get(value, "node");
        const char *field = fm_yaml_str(fm_yaml_get(value, "field"));
        if (fm_yaml_str(node) && field) {
            rc = add_ref(f, node->text, strlen(node->text), field,
                         strlen(field), node->line, node->column, false);
            if (rc == FM_OK) {
                f->refs[f->count - 1].condition = true;
            }
        }
        const fm_yaml_value_t *equals = fm_yaml_get(value, "equals");
        return rc < 0 || !equals ? rc : find_in(f, equals, false);
    }
    if (strcmp(key, "model") == 0 || strcmp(key, "opponent") == 0) {
        return find_in_model(f, value);
    }
    if (strcmp(key, "reward") == 0 || strcmp(key, "map") == 0 ||
        strcmp(key, "filter") == 0) {
        f->reward = strcmp(key, "reward") == 0;
        rc = find_in_map(f, value);
        f->reward = false;
        return rc;
    }
    return rc < 0 ? rc : find_in(f, value, strcmp(key, "inputs") == 0);
}

fm_status_t fm_wf_refs_find(fm_yaml_arena_t *arena, const fm_yaml_value_t *spec,
                            const fm_yaml_source_t *source,
                            fm_wf_ref_t **refs_out, size_t *count_out)
{
    struct finder f = {.arena = arena, .source = source};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < spec->count && rc == FM_OK; i++) {
        rc = find_in_section(&f, spec->members[i].key, spec->members[i].value);
    }
    if (rc == FM_OK) {
        size_t bytes = f.count * sizeof(*f.refs);
        fm_wf_ref_t *kept = fm_yaml_alloc(arena, bytes);
        if (!kept) {
            rc = fm_no_memory(source->err);
        } else {
            if (bytes) {
                memcpy(kept, f.refs, bytes);
            }
            *refs_out = kept;
            *count_out = f.count;
        }
    }
    free(f.refs);
    return rc;
}

/* --- replacing ------------------------------------------------------------ */

fm_status_t fm_wf_result_of(const fm_wf_resolver_t *r, uint32_t index,
                            const fm_json_t **out)
{
    const fm_json_t *result =
        index == FM_WF_NONE ? NULL : r->upstream(r->ctx, index);

    if (!result) {
        return fm_yaml_fail(&r->source, r->node->pub.line, r->node->pub.column,
                            FM_ERR_NOT_FOUND, "node %s: no result of %s",
                            r->node->pub.name,
                            index == FM_WF_NONE ? "an unknown node"
                                                : r->wf->nodes[index].pub.name);
    }
    *out = result;
    return FM_OK;
}

fm_status_t fm_wf_ref_value(const fm_wf_resolver_t *r, const char *stage,
                            const char *path, unsigned line, unsigned column,
                            const fm_json_t **out)
{
    const fm_json_t *result = NULL;
    fm_status_t rc =
        fm_wf_result_of(r, fm_wf_target(r->wf, r->node, stage), &result);

    if (rc < 0) {
        return rc;
    }
    const fm_json_t *value = fm_json_path(result, path);
    if (!value) {
        return fm_yaml_fail(
            &r->source, line, column, FM_ERR_NOT_FOUND,
            "node %s: the result of %s has no %.200s (it has %zu "
            "items)",
            r->node->pub.name, stage, path,
            fm_json_len(fm_json_get(result, "items")));
    }
    *out = value;
    return FM_OK;
}

/* Value of the reference at @p at ("${…"); its end through @p end_out. */
static fm_status_t value_at(const fm_wf_resolver_t *r,
                            const fm_yaml_value_t *tree, const char *at,
                            const char **end_out, const fm_json_t **out)
{
    const char *end = strchr(at, '}');
    char text[REF_BYTES_MAX + 1];

    if (!end || (size_t)(end - at) > REF_BYTES_MAX) {
        return fm_yaml_fail(&r->source, tree->line, tree->column,
                            FM_ERR_INTERNAL,
                            "a reference that was not checked");
    }
    size_t len = (size_t)(end - at) - 2;
    memcpy(text, at + 2, len);
    text[len] = '\0';
    char *dot = strchr(text, '.');
    if (!dot) {
        return fm_yaml_fail(&r->source, tree->line, tree->column,
                            FM_ERR_INTERNAL,
                            "a reference that was not checked");
    }
    *dot = '\0';
    *end_out = end + 1;
    return fm_wf_ref_value(r, text, dot + 1, tree->line, tree->column, out);
}

/* Literal text, with $${ written ${. */
static void add_literal(fm_buf_t *buf, const char *text, const char *end)
{
    while (text < end) {
        bool escaped = end - text >= 3 && strncmp(text, "$${", 3) == 0;
        text += escaped ? 1 : 0;
        size_t span = escaped ? 2 : 1;
        fm_buf_add(buf, text, span);
        text += span;
    }
}

void fm_wf_add_text(fm_buf_t *buf, const fm_json_t *value)
{
    if (fm_json_is(value, FM_JSON_STRING)) {
        fm_buf_add(buf, fm_json_str(value), fm_json_str_len(value));
        return;
    }
    char *text = fm_json_canonical(value);
    if (text) {
        fm_buf_add_str(buf, text);
    } else {
        buf->failed = true;
    }
    free(text);
}

static fm_status_t resolve_text(const fm_wf_resolver_t *r,
                                const fm_yaml_value_t *tree, fm_json_t **out)
{
    const char *text = tree->text;
    const char *end = text;
    const char *at = next_ref(text);
    const fm_json_t *value = NULL;
    fm_buf_t buf = {0};
    fm_status_t rc = FM_OK;

    if (fm_wf_ref_is_whole(text)) {
        if ((rc = value_at(r, tree, text, &end, &value)) < 0) {
            return rc;
        }
        *out = fm_json_keep(value);
        return FM_OK;
    }
    while (at && rc == FM_OK) {
        add_literal(&buf, text, at);
        if ((rc = value_at(r, tree, at, &end, &value)) == FM_OK) {
            fm_wf_add_text(&buf, value);
            text = end;
            at = next_ref(text);
        }
    }
    if (rc == FM_OK) {
        add_literal(&buf, text, text + strlen(text));
        fm_json_t *made =
            buf.failed ? NULL
                       : fm_json_stringn(buf.len ? (const char *)buf.data : "",
                                         buf.len);
        rc = made ? FM_OK : fm_no_memory(r->source.err);
        *out = made ? made : *out;
    }
    fm_buf_fini(&buf);
    return rc;
}

static fm_status_t resolve_container(const fm_wf_resolver_t *r,
                                     const fm_yaml_value_t *tree, bool maps,
                                     fm_json_t **out)
{
    bool map = tree->type == FM_JSON_OBJECT;
    fm_json_t *made = map ? fm_json_object() : fm_json_array();
    fm_status_t rc = made ? FM_OK : fm_no_memory(r->source.err);

    for (size_t i = 0; i < tree->count && rc == FM_OK; i++) {
        fm_json_t *child = NULL;
        rc = fm_wf_resolve(r, tree->members[i].value, maps, &child);
        if (rc == FM_OK && (map ? fm_json_set(made, tree->members[i].key, child)
                                : fm_json_append(made, child)) < 0) {
            rc = fm_no_memory(r->source.err);
        }
    }
    if (rc == FM_OK) {
        *out = made;
        made = NULL;
    }
    fm_json_drop(made);
    return rc;
}

fm_status_t fm_wf_resolve_map(const fm_wf_resolver_t *r,
                              const fm_yaml_value_t *tree, fm_json_t **out)
{
    fm_json_t *made = fm_json_object();
    fm_status_t rc = made ? FM_OK : fm_no_memory(r->source.err);

    for (size_t i = 0; i < tree->count && rc == FM_OK; i++) {
        const fm_yaml_member_t *at = &tree->members[i];
        fm_json_t *child = NULL;
        if (strcmp(at->key, "code") == 0 || strcmp(at->key, "model") == 0) {
            continue;
        }
        rc = fm_wf_resolve(r, at->value, false, &child);
        if (rc == FM_OK && fm_json_set(made, at->key, child) < 0) {
            rc = fm_no_memory(r->source.err);
        }
    }
    if (rc == FM_OK) {
        *out = made;
        made = NULL;
    }
    fm_json_drop(made);
    return rc;
}

fm_status_t fm_wf_resolve(const fm_wf_resolver_t *r,
                          const fm_yaml_value_t *tree, bool maps,
                          fm_json_t **out)
{
    if (tree->type == FM_JSON_STRING && strstr(tree->text, "${")) {
        return resolve_text(r, tree, out);
    }
    if (maps && is_ref_map(tree)) {
        const fm_yaml_value_t *node = fm_yaml_get(tree, "node");
        const fm_json_t *value = NULL;
        fm_status_t rc =
            fm_wf_ref_value(r, node->text, fm_yaml_get(tree, "path")->text,
                            node->line, node->column, &value);
        if (rc == FM_OK) {
            *out = fm_json_keep(value);
        }
        return rc;
    }
    if (tree->count) {
        return resolve_container(r, tree, maps, out);
    }
    /* The tree's cache is shared state of the workflow, not of the caller:
     * a scalar or an empty container is made afresh. */
    fm_json_t *made = fm_yaml_json_fresh(tree);
    if (!made) {
        return fm_no_memory(r->source.err);
    }
    *out = made;
    return FM_OK;
}
