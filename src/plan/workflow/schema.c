/* SPDX-License-Identifier: Apache-2.0 */
/* Checking values against the tables, and filling in defaults. */
#include "plan/workflow/schema.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "plan/workflow/ref.h"

#define NAMES_MAX 64u /* keys of the longest table, and more */

static const struct {
    const char *name;
    int bit; /* 0: of the language, not of this version */
} tasks[] = {
    {"echo", FM_WF_ECHO},
    {"python", FM_WF_PYTHON},
    {"command", FM_WF_COMMAND},
    {"data_retrieval", FM_WF_RETRIEVAL},
    {"inference", FM_WF_INFERENCE},
    {"embedding", FM_WF_EMBEDDING},
    {"score", FM_WF_SCORE},
    {"reward", FM_WF_REWARD},
    {"sft", FM_WF_SFT},
    {"lora_sft", FM_WF_LORA_SFT},
    {"reward_model", FM_WF_REWARD_MODEL},
    {"dpo", FM_WF_DPO},
    {"ppo", FM_WF_PPO},
    {"grpo", FM_WF_GRPO},
    {"evaluate", FM_WF_EVALUATE},
    {"map", FM_WF_MAP_TASK},
    {"filter", FM_WF_FILTER},
    {"dedup", FM_WF_DEDUP},
    {"split", FM_WF_SPLIT},
    {"shard", FM_WF_SHARD},
    {"concat", FM_WF_CONCAT},
    {"sample", FM_WF_SAMPLE},
    {"jsonl_export", FM_WF_EXPORT},
    {"data_profiling", FM_WF_PROFILE},
    {"api", 0},
    {"rag", 0},
    {"agent", 0},
};
#define SUPPORTED                                                              \
    "supported: echo, python, command, data_retrieval, inference, embedding, " \
    "score, reward, sft, lora_sft, reward_model, dpo, ppo, grpo, evaluate, "   \
    "map, filter, dedup, split, shard, concat, sample, jsonl_export, "         \
    "data_profiling"

int fm_wf_task_bit(const char *name)
{
    for (size_t i = 0; i < FM_COUNT_OF(tasks); i++) {
        if (strcmp(tasks[i].name, name) == 0) {
            return tasks[i].bit;
        }
    }
    return strcmp(name, "logprobs") == 0 ? FM_WF_LOGPROBS : 0;
}

const char *fm_wf_task_name(int bit)
{
    for (size_t i = 0; i < FM_COUNT_OF(tasks); i++) {
        if (tasks[i].bit == bit) {
            return tasks[i].name;
        }
    }
    return "logprobs";
}

fm_status_t fm_wf_task_check(const fm_wf_source_t *source,
                             const fm_wf_value_t *value, int *bit_out)
{
    const char *names[FM_COUNT_OF(tasks)];
    const char *name = fm_wf_str(value);
    char hint[96];

    if (!name) {
        return fm_wf_fail(source, value->line, value->column, FM_ERR_INVALID,
                          "taskType is no text; " SUPPORTED);
    }
    for (size_t i = 0; i < FM_COUNT_OF(tasks); i++) {
        names[i] = tasks[i].name;
        if (strcmp(name, names[i]) == 0 && tasks[i].bit) {
            *bit_out = tasks[i].bit;
            return FM_OK;
        }
        if (strcmp(name, names[i]) == 0) {
            return fm_wf_fail(
                source, value->line, value->column, FM_ERR_UNSUPPORTED,
                "taskType %s is not supported by this version; " SUPPORTED,
                name);
        }
    }
    return fm_wf_fail(
        source, value->line, value->column, FM_ERR_INVALID,
        "unknown taskType %.60s%s; " SUPPORTED, name,
        fm_wf_suggest(name, names, FM_COUNT_OF(names), hint, sizeof(hint)));
}

static bool takes(const fm_wf_key_t *key, int task)
{
    return !key->tasks || (key->tasks & task) != 0;
}

const fm_wf_key_t *fm_wf_key_find(const fm_wf_section_t *section,
                                  const char *name, int task)
{
    const fm_wf_key_t *other = NULL;

    for (size_t i = 0; i < section->count; i++) {
        const fm_wf_key_t *key = &section->keys[i];
        if (strcmp(key->name, name) == 0) {
            if (takes(key, task)) {
                return key;
            }
            other = key;
        }
    }
    return other;
}

/* The second spelling of @p key; NULL when it has none. */
static const char *alias_of(const fm_wf_section_t *section, const char *key)
{
    for (size_t i = 0; i < section->count; i++) {
        const char *same = section->keys[i].same_as;
        if (same && strcmp(same, key) == 0) {
            return section->keys[i].name;
        }
    }
    return NULL;
}

const fm_wf_value_t *fm_wf_get_either(const fm_wf_section_t *section,
                                      const fm_wf_value_t *map, const char *key)
{
    const fm_wf_value_t *value = fm_wf_get(map, key);
    const char *alias = value ? NULL : alias_of(section, key);

    return alias ? fm_wf_get(map, alias) : value;
}

const fm_json_t *fm_wf_json_either(const fm_wf_section_t *section,
                                   const fm_json_t *map, const char *key)
{
    const fm_json_t *value = fm_json_get(map, key);
    const char *alias = value ? NULL : alias_of(section, key);

    return alias ? fm_json_get(map, alias) : value;
}

/* --- checking ------------------------------------------------------------- */

struct check {
    const fm_wf_section_t *section;
    const char *path;
    int task;
    bool strict;
    const fm_wf_source_t *source;
};

static fm_status_t fail_key(const struct check *c, const fm_wf_member_t *at,
                            const char *key)
{
    const char *names[NAMES_MAX];
    size_t count = 0;
    char hint[96];
    fm_buf_t allowed = {0};
    bool known = fm_wf_key_find(c->section, key, c->task) != NULL;

    for (size_t i = 0; i < c->section->count && count < NAMES_MAX; i++) {
        const fm_wf_key_t *row = &c->section->keys[i];
        if (row->type != FM_WF_REFUSED && takes(row, c->task)) {
            fm_buf_printf(&allowed, "%s%s", count ? ", " : "", row->name);
            names[count++] = row->name;
        }
    }
    fm_status_t rc = fm_wf_fail(
        c->source, at->line, at->column, FM_ERR_INVALID,
        "%s %s in %s; allowed: %s%s",
        known ? "this task type does not take" : "unknown key", key,
        *c->path ? c->path : c->section->name, fm_buf_cstr(&allowed),
        known ? "" : fm_wf_suggest(key, names, count, hint, sizeof(hint)));
    fm_buf_fini(&allowed);
    return rc;
}

static const char *expected_type(const fm_wf_key_t *key)
{
    switch (key->type) {
    case FM_WF_BOOL:
        return "true or false";
    case FM_WF_INT:
        return "an integer";
    case FM_WF_REAL:
        return "a number";
    case FM_WF_TEXT:
        return "text";
    case FM_WF_LIST:
        return "a list";
    case FM_WF_MAP:
    case FM_WF_SECTION:
        return "a map";
    case FM_WF_ANY:
    case FM_WF_REFUSED:
        break;
    }
    return "a value";
}

static bool type_fits(const fm_wf_key_t *key, const fm_json_t *json)
{
    switch (key->type) {
    case FM_WF_BOOL:
        return fm_json_is(json, FM_JSON_BOOL);
    case FM_WF_INT:
        return fm_json_is(json, FM_JSON_INT);
    case FM_WF_REAL:
        return fm_json_is_number(json);
    case FM_WF_TEXT:
        return fm_json_is(json, FM_JSON_STRING);
    case FM_WF_LIST:
        return fm_json_is(json, FM_JSON_ARRAY);
    case FM_WF_MAP:
    case FM_WF_SECTION:
        return fm_json_is(json, FM_JSON_OBJECT);
    case FM_WF_ANY:
    case FM_WF_REFUSED:
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

static fm_status_t check_value(const struct check *c, const fm_wf_key_t *key,
                               const fm_json_t *json, unsigned line,
                               unsigned column)
{
    const char *text = fm_json_str(json);
    const char *dot = *c->path ? "." : "";

    if (!type_fits(key, json)) {
        char *found = fm_json_dump(json);
        fm_status_t rc = fm_wf_fail(
            c->source, line, column, FM_ERR_INVALID,
            "%s%s%s is %.60s (%s); allowed: %s", c->path, dot, key->name,
            found ? found : "?", fm_json_type_name(json), expected_type(key));
        free(found);
        return rc;
    }
    if ((key->type == FM_WF_INT || key->type == FM_WF_REAL)) {
        double number = fm_json_real_or(json, 0);
        if (number != key->min && key->min >= key->max) {
            return fm_wf_fail(c->source, line, column, FM_ERR_INVALID,
                              "%s%s%s is %.15g; allowed: %.16g", c->path, dot,
                              key->name, number, key->min);
        }
        if (!(number >= key->min && number <= key->max)) {
            return fm_wf_fail(c->source, line, column, FM_ERR_INVALID,
                              "%s%s%s is %.15g; allowed: %.16g to %.16g",
                              c->path, dot, key->name, number, key->min,
                              key->max);
        }
    }
    if (key->choices && text && !choice_fits(key->choices, text)) {
        return fm_wf_fail(c->source, line, column, FM_ERR_INVALID,
                          "%s%s%s is \"%.60s\"; allowed: %s", c->path, dot,
                          key->name, text, key->choices);
    }
    return FM_OK;
}

static fm_status_t check_member(const struct check *c, const char *name,
                                const fm_json_t *json,
                                const fm_wf_value_t *tree)
{
    const fm_wf_key_t *key = fm_wf_key_find(c->section, name, c->task);
    const fm_wf_member_t *member = fm_wf_member(tree, name);
    const fm_wf_member_t here = {.line = tree->line, .column = tree->column};
    const fm_wf_value_t *at = member ? member->value : tree;

    if (!key || !takes(key, c->task)) {
        return fail_key(c, member ? member : &here, name);
    }
    if (key->type == FM_WF_REFUSED) {
        return fm_wf_fail(c->source, member ? member->line : tree->line,
                          member ? member->column : tree->column,
                          FM_ERR_UNSUPPORTED,
                          "%s%s%s is not supported by this version: %s",
                          c->path, *c->path ? "." : "", name, key->why);
    }
    if (fm_json_is(json, FM_JSON_NULL) && (key->nullable || key->hint)) {
        return FM_OK;
    }
    bool map = key->type == FM_WF_SECTION || key->type == FM_WF_MAP;
    if (!c->strict && !map && fm_wf_ref_is_whole(fm_json_str(json))) {
        return FM_OK;
    }
    if (key->same_as && fm_wf_get(tree, key->same_as)) {
        return fm_wf_fail(c->source, at->line, at->column, FM_ERR_INVALID,
                          "%s%s%s and %s are one key; allowed: one of them",
                          c->path, *c->path ? "." : "", name, key->same_as);
    }
    fm_status_t rc = check_value(c, key, json, at->line, at->column);
    if (rc == FM_OK && key->type == FM_WF_SECTION) {
        char path[128];
        (void)snprintf(path, sizeof(path), "%s%s%s", c->path,
                       *c->path ? "." : "", name);
        rc = fm_wf_check(key->section, json, at, path, c->task, c->strict,
                         c->source);
    }
    return rc;
}

fm_status_t fm_wf_check(const fm_wf_section_t *section, const fm_json_t *json,
                        const fm_wf_value_t *tree, const char *path, int task,
                        bool strict, const fm_wf_source_t *source)
{
    const struct check c = {section, path, task, strict, source};
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

fm_json_t *fm_wf_fill(const fm_wf_section_t *section, const fm_json_t *json,
                      int task)
{
    fm_json_t *out = fm_json_object();

    for (size_t i = 0; out && i < section->count; i++) {
        const fm_wf_key_t *key = &section->keys[i];
        const fm_json_t *given = fm_wf_json_either(section, json, key->name);
        fm_json_t *value = NULL;
        if (key->hint || key->type == FM_WF_SECTION || key->same_as ||
            key->type == FM_WF_REFUSED || !takes(key, task)) {
            continue;
        }
        if (fm_json_is(given, FM_JSON_NULL)) {
            given = NULL;
        }
        if (given && key->type == FM_WF_REAL) {
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
