/* SPDX-License-Identifier: Apache-2.0 */
/* Checking values against tables of keys, and filling in defaults. */
#include "text/yaml/schema.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"

#define NAMES_MAX 64u /* keys of the longest table, and more */

static bool takes(const fm_yaml_key_t *key, int variant)
{
    return !key->variants || (key->variants & variant) != 0;
}

const fm_yaml_key_t *fm_yaml_key_find(const fm_yaml_section_t *section,
                                      const char *name, int variant)
{
    const fm_yaml_key_t *other = NULL;

    for (size_t i = 0; i < section->count; i++) {
        const fm_yaml_key_t *key = &section->keys[i];
        if (strcmp(key->name, name) == 0) {
            if (takes(key, variant)) {
                return key;
            }
            other = key;
        }
    }
    return other;
}

/* The second spelling of @p key; NULL when it has none. */
static const char *alias_of(const fm_yaml_section_t *section, const char *key)
{
    for (size_t i = 0; i < section->count; i++) {
        const char *same = section->keys[i].same_as;
        if (same && strcmp(same, key) == 0) {
            return section->keys[i].name;
        }
    }
    return NULL;
}

const fm_yaml_value_t *fm_yaml_get_either(const fm_yaml_section_t *section,
                                          const fm_yaml_value_t *map,
                                          const char *key)
{
    const fm_yaml_value_t *value = fm_yaml_get(map, key);
    const char *alias = value ? NULL : alias_of(section, key);

    return alias ? fm_yaml_get(map, alias) : value;
}

const fm_json_t *fm_yaml_json_either(const fm_yaml_section_t *section,
                                     const fm_json_t *map, const char *key)
{
    const fm_json_t *value = fm_json_get(map, key);
    const char *alias = value ? NULL : alias_of(section, key);

    return alias ? fm_json_get(map, alias) : value;
}

/* --- checking ------------------------------------------------------------- */

struct check {
    const fm_yaml_section_t *section;
    const char *path;
    int variant;
    fm_yaml_passes_fn *passes;
    const fm_yaml_source_t *source;
};

static fm_status_t fail_key(const struct check *c, const fm_yaml_member_t *at,
                            const char *key)
{
    const char *names[NAMES_MAX];
    size_t count = 0;
    char hint[96];
    fm_buf_t allowed = {0};
    bool known = fm_yaml_key_find(c->section, key, c->variant) != NULL;

    for (size_t i = 0; i < c->section->count && count < NAMES_MAX; i++) {
        const fm_yaml_key_t *row = &c->section->keys[i];
        if (row->type != FM_YAML_REFUSED && takes(row, c->variant)) {
            fm_buf_printf(&allowed, "%s%s", count ? ", " : "", row->name);
            names[count++] = row->name;
        }
    }
    fm_status_t rc = fm_yaml_fail(
        c->source, at->line, at->column, FM_ERR_INVALID,
        "%s %s in %s; allowed: %s%s",
        known ? "this task type does not take" : "unknown key", key,
        *c->path ? c->path : c->section->name, fm_buf_cstr(&allowed),
        known ? "" : fm_yaml_suggest(key, names, count, hint, sizeof(hint)));
    fm_buf_fini(&allowed);
    return rc;
}

static const char *expected_type(const fm_yaml_key_t *key)
{
    switch (key->type) {
    case FM_YAML_BOOL:
        return "true or false";
    case FM_YAML_INT:
        return "an integer";
    case FM_YAML_REAL:
        return "a number";
    case FM_YAML_TEXT:
        return "text";
    case FM_YAML_LIST:
        return "a list";
    case FM_YAML_MAP:
    case FM_YAML_SECTION:
        return "a map";
    case FM_YAML_ANY:
    case FM_YAML_REFUSED:
        break;
    }
    return "a value";
}

static bool type_fits(const fm_yaml_key_t *key, const fm_json_t *json)
{
    switch (key->type) {
    case FM_YAML_BOOL:
        return fm_json_is(json, FM_JSON_BOOL);
    case FM_YAML_INT:
        return fm_json_is(json, FM_JSON_INT);
    case FM_YAML_REAL:
        return fm_json_is_number(json);
    case FM_YAML_TEXT:
        return fm_json_is(json, FM_JSON_STRING);
    case FM_YAML_LIST:
        return fm_json_is(json, FM_JSON_ARRAY);
    case FM_YAML_MAP:
    case FM_YAML_SECTION:
        return fm_json_is(json, FM_JSON_OBJECT);
    case FM_YAML_ANY:
    case FM_YAML_REFUSED:
        break;
    }
    return true;
}

static bool choice_fits(const char *choices, const char *text)
{
    size_t len = strlen(text);

    for (const char *at = choices; *at; at += strspn(at, "|")) {
        size_t span = strcspn(at, "|");
        if (span == len && strncmp(at, text, len) == 0) {
            return true;
        }
        at += span;
    }
    return false;
}

static fm_status_t check_value(const struct check *c, const fm_yaml_key_t *key,
                               const fm_json_t *json, unsigned line,
                               unsigned column)
{
    const char *text = fm_json_str(json);
    const char *dot = *c->path ? "." : "";

    if (!type_fits(key, json)) {
        char *found = fm_json_dump(json);
        fm_status_t rc = fm_yaml_fail(
            c->source, line, column, FM_ERR_INVALID,
            "%s%s%s is %.60s (%s); allowed: %s", c->path, dot, key->name,
            found ? found : "?", fm_json_type_name(json), expected_type(key));
        free(found);
        return rc;
    }
    if ((key->type == FM_YAML_INT || key->type == FM_YAML_REAL)) {
        double number = fm_json_real_or(json, 0);
        if (number != key->min && key->min >= key->max) {
            return fm_yaml_fail(c->source, line, column, FM_ERR_INVALID,
                                "%s%s%s is %.15g; allowed: %.16g", c->path, dot,
                                key->name, number, key->min);
        }
        if (!(number >= key->min && number <= key->max)) {
            return fm_yaml_fail(c->source, line, column, FM_ERR_INVALID,
                                "%s%s%s is %.15g; allowed: %.16g to %.16g",
                                c->path, dot, key->name, number, key->min,
                                key->max);
        }
    }
    if (key->choices && text && !choice_fits(key->choices, text)) {
        return fm_yaml_fail(c->source, line, column, FM_ERR_INVALID,
                            "%s%s%s is \"%.60s\"; allowed: %s", c->path, dot,
                            key->name, text, key->choices);
    }
    return FM_OK;
}

static fm_status_t check_member(const struct check *c, const char *name,
                                const fm_json_t *json,
                                const fm_yaml_value_t *tree)
{
    const fm_yaml_key_t *key = fm_yaml_key_find(c->section, name, c->variant);
    const fm_yaml_member_t *member = fm_yaml_member(tree, name);
    const fm_yaml_member_t here = {.line = tree->line, .column = tree->column};
    const fm_yaml_value_t *at = member ? member->value : tree;

    if (!key || !takes(key, c->variant)) {
        return fail_key(c, member ? member : &here, name);
    }
    if (key->type == FM_YAML_REFUSED) {
        return fm_yaml_fail(c->source, member ? member->line : tree->line,
                            member ? member->column : tree->column,
                            FM_ERR_UNSUPPORTED,
                            "%s%s%s is not supported by this version: %s",
                            c->path, *c->path ? "." : "", name, key->why);
    }
    if (fm_json_is(json, FM_JSON_NULL) && (key->nullable || key->hint)) {
        return FM_OK;
    }
    bool map = key->type == FM_YAML_SECTION || key->type == FM_YAML_MAP;
    if (c->passes && !map && c->passes(fm_json_str(json))) {
        return FM_OK;
    }
    if (key->same_as && fm_yaml_get(tree, key->same_as)) {
        return fm_yaml_fail(c->source, at->line, at->column, FM_ERR_INVALID,
                            "%s%s%s and %s are one key; allowed: one of them",
                            c->path, *c->path ? "." : "", name, key->same_as);
    }
    fm_status_t rc = check_value(c, key, json, at->line, at->column);
    if (rc == FM_OK && key->type == FM_YAML_SECTION) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s%s%s", c->path,
                       *c->path ? "." : "", name);
        rc = fm_yaml_check(key->section, json, at, path, c->variant, c->passes,
                           c->source);
    }
    return rc;
}

fm_status_t fm_yaml_check(const fm_yaml_section_t *section,
                          const fm_json_t *json, const fm_yaml_value_t *tree,
                          const char *path, int variant,
                          fm_yaml_passes_fn *passes,
                          const fm_yaml_source_t *source)
{
    const struct check c = {section, path, variant, passes, source};
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *value = NULL;
    fm_status_t rc = FM_OK;

    while (rc == FM_OK && fm_json_next(json, &iterator, &name, &value)) {
        rc = check_member(&c, name, value, tree);
    }
    return rc;
}

/* --- defaults ------------------------------------------------------------- */

fm_json_t *fm_yaml_fill(const fm_yaml_section_t *section, const fm_json_t *json,
                        int variant)
{
    fm_json_t *out = fm_json_object();

    for (size_t i = 0; out && i < section->count; i++) {
        const fm_yaml_key_t *key = &section->keys[i];
        const fm_json_t *given = fm_yaml_json_either(section, json, key->name);
        fm_json_t *value = NULL;
        if (key->hint || key->type == FM_YAML_SECTION || key->same_as ||
            key->type == FM_YAML_REFUSED || !takes(key, variant)) {
            continue;
        }
        if (fm_json_is(given, FM_JSON_NULL)) {
            given = NULL;
        }
        if (given && key->type == FM_YAML_REAL) {
            value = fm_json_real(fm_json_real_or(given, 0));
        } else if (given) {
            value = fm_json_keep(given);
        } else if (key->fallback) {
            fm_error_t ignored = {0};
            if (fm_json_parse(key->fallback, strlen(key->fallback), key->name,
                              &value, &ignored) < 0) {
                value = NULL;
            }
        } else {
            value = fm_json_null();
        }
        if (fm_json_set(out, key->name, value) < 0) {
            out = fm_json_drop(out);
        }
    }
    return out;
}
