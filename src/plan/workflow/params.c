/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of a node by task type: references resolved, files by digest,
 * every default explicit (docs/spec/workflow.md §6). */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/model.h"
#include "plan/workflow/ref.h"
#include "plan/workflow/reward.h"

fm_status_t fm_wf_set(const fm_wf_resolver_t *r, fm_json_t *object,
                      const char *key, fm_json_t *value)
{
    return fm_json_set(object, key, value) < 0 ? fm_wf_no_memory(r) : FM_OK;
}

fm_status_t fm_wf_section_read(const fm_wf_resolver_t *r, const char *name,
                               const fm_yaml_section_t *section,
                               fm_json_t **out)
{
    const fm_yaml_value_t *tree = fm_yaml_get(r->node->tree, name);
    fm_json_t *json = tree ? NULL : fm_json_object();
    fm_status_t rc = tree || json ? FM_OK : fm_wf_no_memory(r);

    if (tree && (rc = fm_wf_resolve_map(r, tree, &json)) == FM_OK) {
        rc = fm_yaml_check(section, json, tree, name, r->node->task, NULL,
                           &r->source);
    }
    if (rc == FM_OK) {
        *out = json;
        json = NULL;
    }
    fm_json_drop(json);
    return rc;
}

fm_status_t fm_wf_digest_of(const fm_wf_resolver_t *r,
                            const fm_yaml_value_t *path, fm_json_t **out)
{
    const fm_wf_outside_t outside = {.kind = FM_WORKFLOW_FILE_DATA,
                                     .named = path};
    const char *text = NULL;
    fm_status_t rc = fm_wf_outside_digest(r, &outside, &text);

    if (rc < 0) {
        return rc;
    }
    fm_json_t *made = fm_json_object();
    if (!made || fm_json_set(made, "digest", fm_json_string(text)) < 0) {
        fm_json_drop(made);
        return fm_wf_no_memory(r);
    }
    *out = made;
    return FM_OK;
}

fm_status_t fm_wf_code_param(const fm_wf_resolver_t *r,
                             const fm_yaml_value_t *code, fm_json_t **out)
{
    fm_json_t *made = NULL;

    if (code->type == FM_JSON_OBJECT) {
        return fm_wf_digest_of(r, fm_yaml_get(code, "path"), out);
    }
    made = fm_json_object();
    if (!made || fm_json_set(made, "text", fm_json_string(code->text)) < 0) {
        fm_json_drop(made);
        return fm_wf_no_memory(r);
    }
    *out = made;
    return FM_OK;
}

/* The node's `seed`; null where there is none. */
static fm_status_t read_seed(const fm_wf_resolver_t *r, fm_json_t **out)
{
    const fm_yaml_value_t *seed = fm_yaml_get(r->node->tree, "seed");
    fm_json_t *value = seed ? NULL : fm_json_null();
    fm_status_t rc = seed || value ? FM_OK : fm_wf_no_memory(r);

    if (seed && (rc = fm_wf_resolve(r, seed, false, &value)) == FM_OK &&
        (!fm_json_is(value, FM_JSON_INT) || fm_json_int_or(value, -1) < 0)) {
        rc = fm_yaml_fail(&r->source, seed->line, seed->column, FM_ERR_INVALID,
                          "node %s: seed is %s; allowed: an integer from 0",
                          r->node->pub.name, fm_json_type_name(value));
        value = fm_json_drop(value);
    }
    *out = value ? value : *out;
    return rc;
}

fm_status_t fm_wf_put_seed(const fm_wf_resolver_t *r, const fm_json_t *section,
                           fm_json_t *params)
{
    fm_json_t *seed = fm_json_keep(fm_json_get(section, "seed"));
    fm_status_t rc = seed ? FM_OK : read_seed(r, &seed);

    if (rc < 0) {
        return rc;
    }
    int64_t value = fm_json_int_or(seed, 0);
    fm_json_drop(seed);
    return fm_wf_set(r, params, "seed", fm_json_int(value));
}

fm_status_t fm_wf_put_seed_or_null(const fm_wf_resolver_t *r, fm_json_t *params)
{
    fm_json_t *seed = NULL;
    fm_status_t rc = read_seed(r, &seed);

    return rc < 0 ? rc : fm_wf_set(r, params, "seed", seed);
}

/* --- parameters by task type ---------------------------------------------- */

/* `model`, and `adapter` where it has one. */
static fm_status_t model_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    fm_json_t *model = NULL;
    fm_json_t *adapter = NULL;
    fm_status_t rc = fm_wf_model_params(r, fm_yaml_get(r->node->tree, "model"),
                                        "model", &model, &adapter);

    if (rc < 0) {
        return rc;
    }
    if ((rc = fm_wf_set(r, params, "model", model)) < 0) {
        fm_json_drop(adapter);
        return rc;
    }
    return adapter ? fm_wf_set(r, params, "adapter", adapter) : FM_OK;
}

fm_status_t fm_wf_training_hints(const fm_wf_resolver_t *r,
                                 const fm_yaml_section_t *section,
                                 const fm_json_t *given, fm_json_t *hints)
{
    static const char *const keys[] = {"save_steps", "save_seconds",
                                       "logging_steps", "packing",
                                       "gradient_checkpointing"};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < FM_COUNT_OF(keys) && rc == FM_OK; i++) {
        const fm_json_t *hint = fm_yaml_json_either(section, given, keys[i]);
        rc = hint && !fm_json_is(hint, FM_JSON_NULL)
                 ? fm_wf_set(r, hints, keys[i], fm_json_keep(hint))
                 : FM_OK;
    }
    return rc;
}

/* target_modules: sorted and distinct, "all-linear" spelled out. */
static fm_status_t target_modules(const fm_wf_resolver_t *r,
                                  const fm_json_t *given, fm_json_t **out)
{
    /* In this order, which is that of their names. */
    static const char *const names[] = {"down_proj", "gate_proj", "k_proj",
                                        "o_proj",    "q_proj",    "up_proj",
                                        "v_proj"};
    const char *all = fm_json_str(given);
    size_t known = 0;
    fm_json_t *list = fm_json_array();
    fm_status_t rc = list ? FM_OK : fm_wf_no_memory(r);

    for (size_t i = 0; i < FM_COUNT_OF(names) && rc == FM_OK; i++) {
        bool asked = given ? all != NULL
                           : strcmp(names[i], "q_proj") == 0 ||
                                 strcmp(names[i], "v_proj") == 0;
        for (size_t k = 0; k < fm_json_len(given); k++) {
            const char *name = fm_json_str(fm_json_at(given, k));
            bool same = name && strcmp(name, names[i]) == 0;
            known += same;
            asked = asked || same;
        }
        if (asked && fm_json_append(list, fm_json_string(names[i])) < 0) {
            rc = fm_wf_no_memory(r);
        }
    }
    if (rc == FM_OK &&
        (all ? strcmp(all, "all-linear") != 0
             : given && (known != fm_json_len(given) || known == 0))) {
        const fm_yaml_value_t *at =
            fm_yaml_get(fm_yaml_get(r->node->tree, "lora"), "target_modules");
        rc = fm_yaml_fail_at(&r->source, at,
                             "lora.target_modules; allowed: all-linear, or a "
                             "list of q_proj, k_proj, v_proj, o_proj, "
                             "gate_proj, up_proj, down_proj");
    }
    if (rc == FM_OK) {
        *out = list;
        list = NULL;
    }
    fm_json_drop(list);
    return rc;
}

fm_status_t fm_wf_lora_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    fm_json_t *given = NULL;
    fm_json_t *full = NULL;
    fm_json_t *modules = NULL;
    fm_status_t rc = FM_OK;

    if (!fm_yaml_get(r->node->tree, "lora") &&
        r->node->task != FM_WF_LORA_SFT) {
        return FM_OK;
    }
    rc = fm_wf_section_read(r, "lora", &fm_wf_lora, &given);
    if (rc == FM_OK &&
        (rc = target_modules(r, fm_json_get(given, "target_modules"),
                             &modules)) == FM_OK &&
        !(full = fm_yaml_fill(&fm_wf_lora, given, r->node->task))) {
        rc = fm_wf_no_memory(r);
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(r, full, "target_modules", fm_json_keep(modules));
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(r, params, "lora", fm_json_keep(full));
    }
    fm_json_drop(modules);
    fm_json_drop(full);
    fm_json_drop(given);
    return rc;
}

static fm_status_t training_params(const fm_wf_resolver_t *r, fm_json_t *params,
                                   fm_json_t *hints)
{
    fm_json_t *given = NULL;
    fm_json_t *full = NULL;
    fm_status_t rc = fm_wf_section_read(r, "training", &fm_wf_training, &given);

    if (rc == FM_OK &&
        !(full = fm_yaml_fill(&fm_wf_training, given, r->node->task))) {
        rc = fm_wf_no_memory(r);
    }
    if (rc == FM_OK) {
        rc = fm_wf_put_seed(r, given, full);
    }
    if (rc == FM_OK && !fm_json_get(given, "steps") &&
        !fm_json_get(given, "num_train_epochs")) {
        rc = fm_wf_set(r, full, "num_train_epochs", fm_json_real(1));
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(r, params, "training", fm_json_keep(full));
    }
    if (rc == FM_OK) {
        rc = fm_wf_training_hints(r, &fm_wf_training, given, hints);
    }
    fm_json_drop(given);
    fm_json_drop(full);
    return rc < 0 ? rc : fm_wf_lora_params(r, params);
}

/* max_seq_length of a section, null where it has none. */
static fm_status_t length_param(const fm_wf_resolver_t *r, const char *name,
                                const fm_yaml_section_t *section,
                                fm_json_t *params)
{
    fm_json_t *given = NULL;
    fm_status_t rc = fm_wf_section_read(r, name, section, &given);

    if (rc == FM_OK) {
        fm_json_t *length = fm_json_get(given, "max_seq_length");
        rc = fm_wf_set(r, params, "max_seq_length",
                       length ? fm_json_keep(length) : fm_json_null());
    }
    /* a reference is of the very tokens that are trained on */
    if (rc == FM_OK && section == &fm_wf_training) {
        bool truncate = fm_json_get_bool(given, "truncate", false);
        rc = fm_wf_set(r, params, "truncate", fm_json_bool(truncate));
    }
    fm_json_drop(given);
    return rc;
}

static fm_status_t logprobs_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    fm_status_t rc = length_param(r, "training", &fm_wf_training, params);

    return rc < 0 ? rc : fm_wf_set(r, params, "tokens", fm_json_bool(false));
}

static fm_status_t embedding_params(const fm_wf_resolver_t *r,
                                    fm_json_t *params)
{
    fm_json_t *given = NULL;
    fm_json_t *full = NULL;
    fm_status_t rc =
        fm_wf_section_read(r, "embedding", &fm_wf_embedding, &given);

    if (rc == FM_OK &&
        !(full = fm_yaml_fill(&fm_wf_embedding, given, r->node->task))) {
        rc = fm_wf_no_memory(r);
    }
    if (rc == FM_OK &&
        (rc = fm_wf_set(r, params, "pooling",
                        fm_json_keep(fm_json_get(full, "pooling")))) == FM_OK) {
        rc = fm_wf_set(r, params, "normalize",
                       fm_json_keep(fm_json_get(full, "normalize")));
    }
    fm_json_drop(full);
    fm_json_drop(given);
    return rc;
}

/* Members of the one reward of a reward node. */
static fm_status_t reward_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    fm_json_t *made = NULL;
    fm_json_t *adapter = NULL;
    double weight = 1;
    const char *key = NULL;
    fm_json_t *value = NULL;
    void *at = NULL;
    fm_status_t rc = fm_wf_reward_params(r, fm_wf_reward_at(r->node->tree, 0),
                                         &made, &adapter, &weight);

    while (rc == FM_OK && fm_json_next(made, &at, &key, &value)) {
        rc = fm_wf_set(r, params, key, fm_json_keep(value));
    }
    fm_json_drop(made);
    fm_json_drop(adapter);
    return rc;
}

static fm_status_t python_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    const fm_yaml_value_t *tree = r->node->tree;
    const fm_yaml_value_t *code = fm_yaml_get(tree, "code");
    const char *entry = fm_yaml_str(fm_yaml_get(tree, "entrypoint"));
    const char *emits = fm_yaml_str(fm_yaml_get(tree, "emits"));
    fm_json_t *seed = NULL;
    fm_json_t *made = NULL;
    fm_status_t rc = FM_OK;

    if ((rc = fm_wf_code_param(r, code, &made)) < 0 ||
        (rc = fm_wf_set(r, params, "code", fm_json_keep(made))) < 0 ||
        (rc = fm_wf_set(r, params, "entrypoint",
                        fm_json_string(entry ? entry : "main"))) < 0 ||
        (rc = fm_wf_set(r, params, "emits",
                        fm_json_string(emits ? emits : "value"))) < 0 ||
        (rc = read_seed(r, &seed)) < 0) {
        goto out;
    }
    rc = fm_wf_set(r, params, "seed", seed);
out:
    fm_json_drop(made);
    return rc;
}

/* An argument or a variable: text as it is, a number as written. */
static fm_status_t word_of(const fm_wf_resolver_t *r,
                           const fm_yaml_value_t *tree, fm_json_t **out)
{
    fm_json_t *value = NULL;
    fm_status_t rc = FM_OK;

    if (tree->type != FM_JSON_STRING) {
        *out = fm_json_string(tree->text);
        return *out ? FM_OK : fm_wf_no_memory(r);
    }
    if ((rc = fm_wf_resolve(r, tree, false, &value)) < 0) {
        return rc;
    }
    if (!fm_json_is(value, FM_JSON_STRING)) {
        char *text = fm_json_canonical(value);
        fm_json_drop(value);
        value = text ? fm_json_string(text) : NULL;
        free(text);
    }
    *out = value;
    return value ? FM_OK : fm_wf_no_memory(r);
}

static fm_status_t command_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    const fm_yaml_value_t *argv = fm_yaml_get(r->node->tree, "command");
    const fm_yaml_value_t *env = fm_yaml_get(r->node->tree, "env");
    const fm_yaml_value_t *outputs = fm_yaml_get(r->node->tree, "outputs");
    fm_json_t *words = fm_json_array();
    fm_json_t *names = fm_json_object();
    fm_json_t *seed = NULL;
    fm_json_t *files = outputs ? NULL : fm_json_array();
    fm_json_t *word = NULL;
    fm_status_t rc =
        words && names && (outputs || files) ? FM_OK : fm_wf_no_memory(r);

    for (size_t i = 0; i < argv->count && rc == FM_OK; i++) {
        if ((rc = word_of(r, argv->members[i].value, &word)) == FM_OK &&
            fm_json_append(words, word) < 0) {
            rc = fm_wf_no_memory(r);
        }
    }
    for (size_t i = 0; env && i < env->count && rc == FM_OK; i++) {
        if ((rc = word_of(r, env->members[i].value, &word)) == FM_OK) {
            rc = fm_wf_set(r, names, env->members[i].key, word);
        }
    }
    if (rc == FM_OK && outputs) {
        rc = fm_wf_resolve(r, outputs, false, &files);
    }
    if (rc < 0 ||
        (rc = fm_wf_set(r, params, "argv", fm_json_keep(words))) < 0 ||
        (rc = fm_wf_set(r, params, "env", fm_json_keep(names))) < 0 ||
        (rc = fm_wf_set(r, params, "outputs", fm_json_keep(files))) < 0 ||
        (rc = read_seed(r, &seed)) < 0) {
        goto out;
    }
    rc = fm_wf_set(r, params, "seed", seed);
out:
    fm_json_drop(words);
    fm_json_drop(names);
    fm_json_drop(files);
    return rc;
}

fm_status_t fm_wf_params(const fm_wf_resolver_t *r, fm_json_t *params,
                         fm_json_t *hints)
{
    int task = r->node->task;
    fm_status_t rc = task & FM_WF_WITH_MODEL ? model_params(r, params) : FM_OK;

    if (rc < 0) {
        return rc;
    }
    switch (task) {
    case FM_WF_INFERENCE:
        return fm_wf_inference_params(r, params);
    case FM_WF_SFT:
    case FM_WF_LORA_SFT:
    case FM_WF_REWARD_MODEL:
    case FM_WF_DPO:
        return training_params(r, params, hints);
    case FM_WF_LOGPROBS:
        return logprobs_params(r, params);
    case FM_WF_SCORE:
        return length_param(r, "scoring", &fm_wf_scoring, params);
    case FM_WF_EMBEDDING:
        return embedding_params(r, params);
    case FM_WF_REWARD:
        return reward_params(r, params);
    case FM_WF_EVALUATE:
        return fm_wf_evaluate_params(r, params);
    case FM_WF_PYTHON:
        return python_params(r, params);
    case FM_WF_COMMAND:
        return command_params(r, params);
    default:
        return fm_wf_data_params(r, params);
    }
}
