/* SPDX-License-Identifier: Apache-2.0 */
/* Rewards: checks, the published form, parameters (§6.12). */
#include "plan/workflow/reward.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "plan/workflow/model.h"
#include "plan/workflow/ref.h"

#define KEYS_MAX 6u

struct key {
    const char *name;
    const char *fallback; /* JSON; NULL: required */
};

static const struct kind {
    const char *name;
    struct key keys[KEYS_MAX];
} kinds[] = {
    {"exact_match",
     {{"field", "\"answer\""},
      {"marker", "null"},
      {"strip", "true"},
      {"ignore_case", "false"}}},
    {"numeric",
     {{"field", "\"answer\""}, {"marker", "null"}, {"tolerance", "1e-06"}}},
    {"regex",
     {{"pattern", NULL},
      {"mode", "\"search\""},
      {"ignore_case", "false"},
      {"field", "null"},
      {"group", "null"},
      {"strip", "true"}}},
    {"json_schema", {{"schema", NULL}, {"extract", "false"}}},
    {"length",
     {{"unit", "\"tokens\""},
      {"target", "null"},
      {"min_tokens", "null"},
      {"max_tokens", "null"}}},
    {"python", {{"code", NULL}, {"entrypoint", "\"reward\""}}},
    {"model", {{"model", NULL}, {"max_seq_length", "null"}}},
};

static const struct kind *kind_find(const char *name)
{
    for (size_t i = 0; name && i < FM_COUNT_OF(kinds); i++) {
        if (strcmp(kinds[i].name, name) == 0) {
            return &kinds[i];
        }
    }
    return NULL;
}

static const struct kind *kind_of(const fm_yaml_value_t *entry)
{
    return kind_find(fm_yaml_str(fm_yaml_get(entry, "type")));
}

static const struct key *key_find(const struct kind *kind, const char *name)
{
    for (size_t i = 0; i < KEYS_MAX && kind->keys[i].name; i++) {
        if (strcmp(kind->keys[i].name, name) == 0) {
            return &kind->keys[i];
        }
    }
    return NULL;
}

size_t fm_wf_reward_count(const fm_yaml_value_t *tree)
{
    const fm_yaml_value_t *reward = fm_yaml_get(tree, "reward");

    return !reward ? 0 : reward->type == FM_JSON_ARRAY ? reward->count : 1;
}

const fm_yaml_value_t *fm_wf_reward_at(const fm_yaml_value_t *tree,
                                       size_t index)
{
    const fm_yaml_value_t *reward = fm_yaml_get(tree, "reward");

    return reward->type == FM_JSON_ARRAY ? reward->members[index].value
                                         : reward;
}

bool fm_wf_reward_by_model(const fm_yaml_value_t *entry)
{
    const char *type = fm_yaml_str(fm_yaml_get(entry, "type"));

    return type && strcmp(type, "model") == 0;
}

/* --- the published form --------------------------------------------------- */

/* A map of the members that are not NULL, at the place of @p at. */
static const fm_yaml_value_t *map_of(fm_yaml_arena_t *arena,
                                     const fm_yaml_value_t *at,
                                     const char *const *keys,
                                     const fm_yaml_value_t *const *values,
                                     size_t count)
{
    fm_yaml_member_t members[KEYS_MAX];
    size_t used = 0;

    for (size_t i = 0; i < count; i++) {
        if (values[i]) {
            members[used++] = (fm_yaml_member_t){.key = keys[i],
                                                 .line = values[i]->line,
                                                 .column = values[i]->column,
                                                 .value = values[i]};
        }
    }
    return fm_yaml_container(arena, FM_JSON_OBJECT, at->line, at->column,
                             members, used);
}

fm_status_t fm_wf_reward_normalize(fm_yaml_arena_t *arena,
                                   const fm_yaml_value_t *tree,
                                   const fm_yaml_source_t *source,
                                   const fm_yaml_value_t **out)
{
    static const char *const keys[] = {"type", "identifier", "node",
                                       "revision"};
    static const char *const names[] = {"type", "model"};
    static const char *const only[] = {"source"};
    const fm_yaml_value_t *given = fm_yaml_get(tree, "reward_model");
    const char *type = fm_yaml_str(fm_yaml_get(given, "type"));
    const fm_yaml_value_t *named = fm_yaml_get(given, "identifier");

    if (!given || given->type != FM_JSON_OBJECT) {
        *out = tree; /* another type is refused with the other keys */
        return FM_OK;
    }
    if (fm_yaml_get(tree, "reward") || !named) {
        return fm_yaml_fail_at(source, given,
                               named ? "reward_model and reward; allowed: one "
                                       "of them"
                                     : "reward_model; allowed: {identifier, "
                                       "type}");
    }
    bool node = type && strcmp(type, "node") == 0;
    const fm_yaml_value_t *const values[] = {
        fm_yaml_get(given, "type"), node ? NULL : named, node ? named : NULL,
        fm_yaml_get(given, "revision")};
    const fm_yaml_value_t *from = map_of(arena, given, keys, values, 4);
    const fm_yaml_value_t *model =
        from ? map_of(arena, given, only, &from, 1) : NULL;
    const fm_yaml_value_t *const parts[] = {
        fm_yaml_string(arena, "model", given), model};
    const fm_yaml_value_t *reward =
        parts[0] && model ? map_of(arena, given, names, parts, 2) : NULL;
    if (!reward) {
        return fm_no_memory(source->err);
    }
    const fm_yaml_value_t *rest = fm_yaml_without(arena, tree, "reward_model");
    return rest ? fm_yaml_put(arena, rest, "reward", reward, out, source->err)
                : fm_no_memory(source->err);
}

/* --- checks --------------------------------------------------------------- */

static fm_status_t fail_kind(const fm_yaml_value_t *entry,
                             const fm_yaml_source_t *source)
{
    const char *names[FM_COUNT_OF(kinds)];
    const fm_yaml_value_t *type = fm_yaml_get(entry, "type");
    const char *text = fm_yaml_str(type);
    char hint[96];

    for (size_t i = 0; i < FM_COUNT_OF(kinds); i++) {
        names[i] = kinds[i].name;
    }
    return fm_yaml_fail(
        source, (type ? type : entry)->line, (type ? type : entry)->column,
        FM_ERR_INVALID,
        "reward of type %.60s; allowed: exact_match, numeric, regex, "
        "json_schema, length, python, model%s",
        text ? text : "none",
        text ? fm_yaml_suggest(text, names, FM_COUNT_OF(names), hint,
                               sizeof(hint))
             : "");
}

static fm_status_t check_keys(const struct kind *kind,
                              const fm_yaml_value_t *entry,
                              const fm_yaml_source_t *source)
{
    const char *names[KEYS_MAX];
    size_t count = 0;
    char hint[96];
    fm_buf_t allowed = {0};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < KEYS_MAX && kind->keys[i].name; i++) {
        const struct key *key = &kind->keys[i];
        names[count++] = key->name;
        fm_buf_printf(&allowed, ", %s", key->name);
        if (rc == FM_OK && !key->fallback && !fm_yaml_get(entry, key->name)) {
            rc = fm_yaml_fail(source, entry->line, entry->column,
                              FM_ERR_INVALID, "a reward of type %s needs %s",
                              kind->name, key->name);
        }
    }
    for (size_t i = 0; i < entry->count && rc == FM_OK; i++) {
        const fm_yaml_member_t *at = &entry->members[i];
        if (strcmp(at->key, "type") != 0 && strcmp(at->key, "weight") != 0 &&
            !key_find(kind, at->key)) {
            rc = fm_yaml_fail(
                source, at->line, at->column, FM_ERR_INVALID,
                "key %.60s in a reward of type %s; allowed: type, weight%s%s",
                at->key, kind->name, fm_buf_cstr(&allowed),
                fm_yaml_suggest(at->key, names, count, hint, sizeof(hint)));
        }
    }
    fm_buf_fini(&allowed);
    return rc;
}

/* What the rows cannot say. */
static fm_status_t check_kind(const struct kind *kind,
                              const fm_yaml_value_t *entry,
                              const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *schema = fm_yaml_get(entry, "schema");
    const fm_yaml_value_t *target = fm_yaml_get(entry, "target");
    bool length = strcmp(kind->name, "length") == 0;
    bool bounded =
        fm_yaml_get(entry, "min_tokens") || fm_yaml_get(entry, "max_tokens");

    if (schema && schema->type != FM_JSON_OBJECT &&
        schema->type != FM_JSON_BOOL) {
        return fm_yaml_fail_at(source, schema,
                               "schema; allowed: a map, true or false");
    }
    if (length && (target != NULL) == bounded) {
        return fm_yaml_fail_at(source, target ? target : entry,
                               "a reward of type length; allowed: target, or "
                               "min_tokens and max_tokens");
    }
    if (fm_yaml_get(entry, "group") && !fm_yaml_get(entry, "field")) {
        return fm_yaml_fail_at(source, fm_yaml_get(entry, "group"),
                               "group goes with field");
    }
    return FM_OK;
}

static fm_status_t check_entry(const fm_yaml_value_t *entry, int task,
                               const fm_yaml_source_t *source)
{
    const struct kind *kind = kind_of(entry);
    fm_wf_model_origin_t origin = {0};
    fm_status_t rc = FM_OK;

    if (!kind) {
        return fail_kind(entry, source);
    }
    if ((rc = fm_yaml_check(&fm_wf_reward, entry->json, entry, "reward", task,
                            fm_wf_ref_is_whole, source)) < 0 ||
        (rc = check_keys(kind, entry, source)) < 0) {
        return rc;
    }
    if ((rc = check_kind(kind, entry, source)) < 0) {
        return rc;
    }
    if (strcmp(kind->name, "python") == 0) {
        return fm_wf_code_check(fm_yaml_get(entry, "code"),
                                fm_yaml_get(entry, "entrypoint"), entry,
                                source);
    }
    return fm_wf_reward_by_model(entry)
               ? fm_wf_model_read(fm_yaml_get(entry, "model"), source, &origin)
               : FM_OK;
}

fm_status_t fm_wf_rewards_check(const fm_yaml_value_t *tree, int task,
                                const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *reward = fm_yaml_get(tree, "reward");
    size_t count = fm_wf_reward_count(tree);
    size_t most = task & FM_WF_POLICY ? FM_WF_REWARDS_MAX : 1;
    fm_status_t rc = FM_OK;

    if (!reward) {
        return fm_yaml_fail_at(source, tree,
                               "this task type needs a reward: {type, ...}");
    }
    for (size_t i = 0; i < count; i++) {
        const fm_yaml_value_t *entry = fm_wf_reward_at(tree, i);
        if (entry->type != FM_JSON_OBJECT) {
            count = 0;
        }
    }
    if (count == 0 || count > most) {
        return fm_yaml_fail(source, reward->line, reward->column,
                            FM_ERR_INVALID, "reward; allowed: {type, ...}%s",
                            most > 1 ? ", or a list of 1 to 16 of them" : "");
    }
    for (size_t i = 0; i < count && rc == FM_OK; i++) {
        const fm_yaml_value_t *entry = fm_wf_reward_at(tree, i);
        rc = check_entry(entry, task, source);
        bool modelled = fm_wf_reward_by_model(entry);
        if (rc == FM_OK && task == FM_WF_REWARD && modelled) {
            rc = fm_yaml_fail_at(source, entry,
                                 "a reward node has no model; use taskType "
                                 "score");
        }
        if (rc == FM_OK && most == 1 && fm_yaml_get(entry, "weight")) {
            rc = fm_yaml_fail_at(source, fm_yaml_get(entry, "weight"),
                                 "weight goes with ppo and grpo");
        }
    }
    return rc;
}

/* --- parameters ----------------------------------------------------------- */

/* The value of a key: as given, else its default. */
static fm_status_t put_key(const fm_wf_resolver_t *r, const struct key *key,
                           const fm_yaml_value_t *entry, const fm_json_t *given,
                           fm_json_t *params)
{
    const fm_json_t *found = fm_json_get(given, key->name);
    const char *fallback = key->fallback;
    fm_json_t *value = NULL;
    fm_status_t rc = FM_OK;

    if (strcmp(key->name, "code") == 0) {
        rc = fm_wf_code_param(r, fm_yaml_get(entry, "code"), &value);
    } else if (found) {
        bool real = strcmp(key->name, "tolerance") == 0;
        value = real ? fm_json_real(fm_json_real_or(found, 0))
                     : fm_json_keep(found);
    } else {
        if (strcmp(key->name, "group") == 0 &&
            fm_json_str(fm_json_get(given, "field"))) {
            fallback = "1"; /* of the match that is compared */
        }
        rc = fm_json_parse(fallback, strlen(fallback), key->name, &value,
                           r->source.err);
    }
    if (rc < 0) {
        return rc;
    }
    return fm_json_set(params, key->name, value) < 0
               ? fm_no_memory(r->source.err)
               : FM_OK;
}

static fm_status_t read_keys(const fm_wf_resolver_t *r, const struct kind *kind,
                             const fm_yaml_value_t *entry,
                             const fm_json_t *given, fm_json_t *params,
                             fm_json_t **adapter_out)
{
    fm_json_t *model = NULL;
    fm_status_t rc = strcmp(kind->name, "python") == 0
                         ? fm_wf_put_seed_or_null(r, params)
                         : FM_OK;

    for (size_t i = 0; i < KEYS_MAX && kind->keys[i].name && rc == FM_OK; i++) {
        if (strcmp(kind->keys[i].name, "model") != 0) {
            rc = put_key(r, &kind->keys[i], entry, given, params);
            continue;
        }
        rc = fm_wf_model_params(r, fm_yaml_get(entry, "model"), "reward.model",
                                &model, adapter_out);
        if (rc == FM_OK && fm_json_set(params, "model", model) < 0) {
            rc = fm_no_memory(r->source.err);
        }
    }
    return rc;
}

fm_status_t fm_wf_reward_params(const fm_wf_resolver_t *r,
                                const fm_yaml_value_t *entry,
                                fm_json_t **params_out, fm_json_t **adapter_out,
                                double *weight_out)
{
    const struct kind *kind = kind_of(entry);
    fm_json_t *given = NULL;
    fm_json_t *adapter = NULL;
    fm_json_t *params = fm_json_object();
    fm_status_t rc = params ? fm_wf_resolve_map(r, entry, &given)
                            : fm_no_memory(r->source.err);

    if (rc < 0 || (rc = fm_yaml_check(&fm_wf_reward, given, entry, "reward",
                                      r->node->task, NULL, &r->source)) < 0) {
        goto out;
    }
    if (!kind) {
        rc =
            fm_yaml_fail_at(&r->source, entry, "reward; allowed: a known type");
        goto out;
    }
    if (!fm_wf_reward_by_model(entry) &&
        fm_json_set(params, "kind", fm_json_string(kind->name)) < 0) {
        rc = fm_no_memory(r->source.err);
        goto out;
    }
    if ((rc = read_keys(r, kind, entry, given, params, &adapter)) < 0) {
        goto out;
    }
    *weight_out = fm_json_get_real(given, "weight", 1);
    *params_out = params;
    *adapter_out = adapter;
    params = adapter = NULL;
out:
    fm_json_drop(given);
    fm_json_drop(adapter);
    fm_json_drop(params);
    return rc;
}
