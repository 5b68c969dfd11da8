/* SPDX-License-Identifier: Apache-2.0 */
/* The parameters of a node by task type: references resolved, files by digest,
 * every default explicit (docs/spec/workflow.md §6). */
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/origin.h"
#include "plan/workflow/ref.h"

static fm_status_t no_memory(const fm_wf_resolver_t *r)
{
    return fm_no_memory(r->source.err);
}

static fm_status_t set(const fm_wf_resolver_t *r, fm_json_t *object,
                       const char *key, fm_json_t *value)
{
    return fm_json_set(object, key, value) < 0 ? no_memory(r) : FM_OK;
}

/* {"digest": "sha256:…"} of a local file. */
fm_status_t fm_wf_digest_of(const fm_wf_resolver_t *r,
                            const fm_wf_value_t *path, fm_json_t **out)
{
    const char *text = fm_json_get_str(r->files, path->text);
    fm_digest_t digest;

    if (!text || !fm_digest_parse(text, &digest)) {
        return fm_wf_fail(&r->source, path->line, path->column,
                          FM_ERR_NOT_FOUND,
                          "node %s: file %.200s was not stored with the "
                          "workflow",
                          r->node->pub.name, path->text);
    }
    fm_json_t *made = fm_json_object();
    if (!made || fm_json_set(made, "digest", fm_json_string(text)) < 0) {
        fm_json_drop(made);
        return no_memory(r);
    }
    *out = made;
    return FM_OK;
}

/* The node's `seed`; null where there is none. */
static fm_status_t read_seed(const fm_wf_resolver_t *r, fm_json_t **out)
{
    const fm_wf_value_t *seed = fm_wf_get(r->node->tree, "seed");
    fm_json_t *value = seed ? NULL : fm_json_null();
    fm_status_t rc = seed || value ? FM_OK : no_memory(r);

    if (seed && (rc = fm_wf_resolve(r, seed, false, &value)) == FM_OK &&
        (!fm_json_is(value, FM_JSON_INT) || fm_json_int_or(value, -1) < 0)) {
        rc = fm_wf_fail(&r->source, seed->line, seed->column, FM_ERR_INVALID,
                        "node %s: seed is %s; allowed: an integer from 0",
                        r->node->pub.name, fm_json_type_name(value));
        value = fm_json_drop(value);
    }
    *out = value ? value : *out;
    return rc;
}

/* Put the section's own seed, else the node's, else 0, into @p params. */
static fm_status_t put_seed(const fm_wf_resolver_t *r, const fm_json_t *section,
                            fm_json_t *params)
{
    fm_json_t *seed = fm_json_keep(fm_json_get(section, "seed"));
    fm_status_t rc = seed ? FM_OK : read_seed(r, &seed);

    if (rc < 0) {
        return rc;
    }
    int64_t value = fm_json_int_or(seed, 0);
    fm_json_drop(seed);
    return set(r, params, "seed", fm_json_int(value));
}

/* --- model ---------------------------------------------------------------- */

static fm_status_t stored_model(const fm_wf_resolver_t *r,
                                const fm_wf_value_t *at,
                                const fm_json_t *identifier, fm_json_t **out)
{
    const char *text = fm_json_str(identifier);
    fm_digest_t digest;

    if (!text || !fm_digest_parse(text, &digest)) {
        return fm_wf_fail(&r->source, at->line, at->column, FM_ERR_INVALID,
                          "node %s: model is %.80s; allowed: sha256:<64 hex "
                          "digits>",
                          r->node->pub.name,
                          text ? text : fm_json_type_name(identifier));
    }
    fm_json_t *made = fm_json_object();
    if (!made || fm_json_set(made, "digest", fm_json_string(text)) < 0) {
        fm_json_drop(made);
        return no_memory(r);
    }
    *out = made;
    return FM_OK;
}

static fm_status_t random_model(const fm_wf_resolver_t *r,
                                const fm_json_t *model, fm_json_t **out)
{
    const fm_json_t *given = fm_json_get(model, "config");
    fm_json_t *config = fm_wf_fill(&fm_wf_model_config, given, r->node->task);
    fm_json_t *made = fm_json_object();
    fm_status_t rc = config && made ? FM_OK : no_memory(r);
    int64_t heads = fm_json_get_int(config, "num_attention_heads", 1);
    int64_t kv_heads = fm_json_get_int(given, "num_key_value_heads", heads);

    if (rc == FM_OK &&
        (fm_json_get_int(config, "hidden_size", 0) % (2 * heads) ||
         heads % kv_heads)) {
        rc = fm_wf_fail(&r->source, r->node->pub.line, r->node->pub.column,
                        FM_ERR_INVALID,
                        "node %s: model.config: hidden_size must be a multiple "
                        "of twice num_attention_heads, and that one of "
                        "num_key_value_heads",
                        r->node->pub.name);
    }
    if (rc == FM_OK) {
        rc = set(r, config, "num_key_value_heads", fm_json_int(kv_heads));
    }
    if (rc == FM_OK) {
        rc = set(r, made, "config", fm_json_keep(config));
    }
    if (rc == FM_OK) {
        rc = put_seed(r, model, made);
    }
    if (rc == FM_OK) {
        *out = made;
        made = NULL;
    }
    fm_json_drop(made);
    fm_json_drop(config);
    return rc;
}

static fm_status_t read_model(const fm_wf_resolver_t *r, fm_json_t *params)
{
    const fm_wf_value_t *tree = fm_wf_get(r->node->tree, "model");
    const fm_wf_value_t *from = fm_wf_get(tree, "source");
    const fm_wf_value_t *node = fm_wf_get(from, "node");
    fm_json_t *model = NULL;
    fm_json_t *made = NULL;
    fm_status_t rc = fm_wf_section_read(r, "model", &fm_wf_model, &model);

    const fm_json_t *identifier =
        fm_json_get(fm_json_get(model, "source"), "identifier");
    if (rc == FM_OK && node) {
        const char *path = fm_wf_str(fm_wf_get(from, "path"));
        rc =
            fm_wf_ref_value(r, node->text, path ? path : "items.0.output.model",
                            node->line, node->column, &identifier);
    }
    if (rc == FM_OK) {
        rc = identifier ? stored_model(r, from, identifier, &made)
                        : random_model(r, model, &made);
    }
    if (rc == FM_OK) {
        rc = set(r, params, "model", made);
    }
    fm_json_drop(model);
    return rc;
}

/* --- parameters by task type ---------------------------------------------- */

static fm_status_t inference_params(const fm_wf_resolver_t *r,
                                    fm_json_t *params)
{
    static const char *const keys[] = {"max_tokens", "temperature", "top_p",
                                       "top_k"};
    fm_json_t *given = NULL;
    fm_json_t *full = NULL;
    fm_status_t rc =
        fm_wf_section_read(r, "inference", &fm_wf_inference, &given);

    if (rc == FM_OK &&
        !(full = fm_wf_fill(&fm_wf_inference, given, r->node->task))) {
        rc = no_memory(r);
    }
    for (size_t i = 0; i < FM_COUNT_OF(keys) && rc == FM_OK; i++) {
        rc = set(r, params, keys[i], fm_json_keep(fm_json_get(full, keys[i])));
    }
    if (rc == FM_OK) {
        rc = put_seed(r, given, params);
    }
    if (rc == FM_OK && fm_json_get_real(full, "temperature", 0) == 0) {
        /* Greedy: these change nothing, so they must not split equal work. */
        if ((rc = set(r, params, "top_p", fm_json_real(1))) == FM_OK &&
            (rc = set(r, params, "top_k", fm_json_int(0))) == FM_OK) {
            rc = set(r, params, "seed", fm_json_int(0));
        }
    }
    fm_json_drop(given);
    fm_json_drop(full);
    return rc;
}

static fm_status_t training_params(const fm_wf_resolver_t *r, fm_json_t *params,
                                   fm_json_t *hints)
{
    static const char *const hint_keys[] = {"save_steps", "logging_steps"};
    fm_json_t *given = NULL;
    fm_json_t *full = NULL;
    fm_status_t rc = fm_wf_section_read(r, "training", &fm_wf_training, &given);

    if (rc == FM_OK &&
        !(full = fm_wf_fill(&fm_wf_training, given, r->node->task))) {
        rc = no_memory(r);
    }
    if (rc == FM_OK) {
        rc = put_seed(r, given, full);
    }
    if (rc == FM_OK && !fm_json_get(given, "steps") &&
        !fm_json_get(given, "num_train_epochs")) {
        rc = set(r, full, "num_train_epochs", fm_json_real(1));
    }
    if (rc == FM_OK) {
        rc = set(r, params, "training", fm_json_keep(full));
    }
    for (size_t i = 0; i < FM_COUNT_OF(hint_keys) && rc == FM_OK; i++) {
        fm_json_t *hint = fm_json_get(given, hint_keys[i]);
        rc = hint ? set(r, hints, hint_keys[i], fm_json_keep(hint)) : FM_OK;
    }
    fm_json_drop(given);
    fm_json_drop(full);
    return rc;
}

static fm_status_t logprobs_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    fm_json_t *training = NULL;
    fm_status_t rc =
        fm_wf_section_read(r, "training", &fm_wf_training, &training);

    if (rc == FM_OK) {
        fm_json_t *length = fm_json_get(training, "max_seq_length");
        rc = set(r, params, "max_seq_length",
                 length ? fm_json_keep(length) : fm_json_null());
    }
    fm_json_drop(training);
    return rc;
}

static fm_status_t evaluate_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    /* In this order, which is that of their names. */
    static const char *const names[] = {"exact_match", "loss", "perplexity",
                                        "preference_accuracy"};
    const fm_wf_value_t *metrics = fm_wf_get(r->node->tree, "metrics");
    fm_json_t *list = fm_json_array();
    fm_json_t *generation = NULL;
    bool exact = false;
    fm_status_t rc = list ? FM_OK : no_memory(r);

    for (size_t i = 0; i < FM_COUNT_OF(names) && rc == FM_OK; i++) {
        bool asked = false;
        for (size_t k = 0; k < metrics->count; k++) {
            asked |= strcmp(metrics->members[k].value->text, names[i]) == 0;
        }
        exact |= asked && i == 0;
        if (asked && fm_json_append(list, fm_json_string(names[i])) < 0) {
            rc = no_memory(r);
        }
    }
    if (rc == FM_OK) {
        rc =
            fm_wf_section_read(r, "generation", &fm_wf_generation, &generation);
    }
    if (rc == FM_OK) {
        int64_t most = fm_json_get_int(generation, "max_new_tokens", 64);
        rc = set(r, params, "max_new_tokens",
                 exact ? fm_json_int(most) : fm_json_null());
    }
    if (rc == FM_OK) {
        rc = set(r, params, "metrics", fm_json_keep(list));
    }
    fm_json_drop(generation);
    fm_json_drop(list);
    return rc;
}

static fm_status_t split_params(const fm_wf_resolver_t *r, const char *text,
                                double fraction, fm_json_t *params)
{
    fm_wf_split_t split = {.part = "all", .open = true};
    const fm_wf_value_t *data = fm_wf_get(r->node->tree, "data");

    if (text && !fm_wf_split_parse(text, &split)) {
        return fm_wf_fail(&r->source, data->line, data->column, FM_ERR_INVALID,
                          "node %s: split %.60s; allowed: all, train or test, "
                          "and a slice such as train[:200]",
                          r->node->pub.name, text);
    }
    bool whole = strcmp(split.part, "train") == 0 && fraction == 0;
    fm_json_t *made = fm_json_object();
    if (!made ||
        fm_json_set(made, "part", fm_json_string(whole ? "all" : split.part)) <
            0 ||
        fm_json_set(made, "unit",
                    fm_json_string(split.percent ? "percent" : "records")) <
            0 ||
        fm_json_set(made, "from", fm_json_int(split.from)) < 0 ||
        fm_json_set(made, "to",
                    split.open ? fm_json_null() : fm_json_int(split.to)) < 0) {
        fm_json_drop(made);
        return no_memory(r);
    }
    return set(r, params, "split", made);
}

static fm_status_t chunk_params(const fm_wf_resolver_t *r,
                                const fm_json_t *chunk, fm_json_t *params)
{
    if (!chunk) {
        return set(r, params, "chunk", fm_json_null());
    }
    int64_t bytes = fm_json_get_int(chunk, "bytes", 512);
    int64_t stride = fm_json_get_int(chunk, "stride", bytes);
    fm_json_t *made = fm_json_object();
    if (!made || fm_json_set(made, "bytes", fm_json_int(bytes)) < 0 ||
        fm_json_set(made, "stride", fm_json_int(stride)) < 0) {
        fm_json_drop(made);
        return no_memory(r);
    }
    return set(r, params, "chunk", made);
}

static fm_status_t retrieval_params(const fm_wf_resolver_t *r,
                                    fm_json_t *params)
{
    fm_wf_origin_t origin = {0};
    fm_json_t *data = NULL;
    fm_json_t *file = NULL;
    fm_status_t rc = fm_wf_section_read(r, "data", &fm_wf_data, &data);

    if (rc < 0 ||
        (rc = fm_wf_origin_read(fm_wf_get(r->node->tree, "data"), &r->source,
                                &origin)) < 0 ||
        (rc = fm_wf_digest_of(r, origin.path, &file)) < 0) {
        goto out;
    }
    double fraction = fm_json_get_real(data, "test_fraction", 0);
    bool shuffle = fm_json_get_bool(data, "shuffle", false);
    fm_json_t *columns = fm_json_get(data, "columns");
    if ((rc = set(r, params, "file", fm_json_keep(file))) < 0 ||
        (rc = set(r, params, "format", fm_json_string(origin.format))) < 0 ||
        (rc = set(r, params, "test_fraction", fm_json_real(fraction))) < 0 ||
        (rc = set(r, params, "shuffle", fm_json_bool(shuffle))) < 0 ||
        (rc = set(r, params, "columns",
                  columns ? fm_json_keep(columns) : fm_json_null())) < 0 ||
        (rc = split_params(r, fm_json_get_str(data, "split"), fraction,
                           params)) < 0 ||
        (rc = chunk_params(r, fm_json_get(data, "chunk"), params)) < 0) {
        goto out;
    }
    rc = shuffle || fraction > 0 ? put_seed(r, data, params)
                                 : set(r, params, "seed", fm_json_int(0));
out:
    fm_json_drop(file);
    fm_json_drop(data);
    return rc;
}

static fm_status_t python_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    const fm_wf_value_t *tree = r->node->tree;
    const fm_wf_value_t *code = fm_wf_get(tree, "code");
    const char *entry = fm_wf_str(fm_wf_get(tree, "entrypoint"));
    const char *emits = fm_wf_str(fm_wf_get(tree, "emits"));
    fm_json_t *seed = NULL;
    fm_json_t *made = NULL;
    fm_status_t rc = FM_OK;

    if (code->type == FM_JSON_OBJECT) {
        rc = fm_wf_digest_of(r, fm_wf_get(code, "path"), &made);
    } else if (!(made = fm_json_object()) ||
               fm_json_set(made, "text", fm_json_string(code->text)) < 0) {
        rc = no_memory(r);
    }
    if (rc < 0 || (rc = set(r, params, "code", fm_json_keep(made))) < 0 ||
        (rc = set(r, params, "entrypoint",
                  fm_json_string(entry ? entry : "main"))) < 0 ||
        (rc = set(r, params, "emits",
                  fm_json_string(emits ? emits : "value"))) < 0 ||
        (rc = read_seed(r, &seed)) < 0) {
        goto out;
    }
    rc = set(r, params, "seed", seed);
out:
    fm_json_drop(made);
    return rc;
}

/* An argument or a variable: text as it is, a number as written. */
static fm_status_t word_of(const fm_wf_resolver_t *r, const fm_wf_value_t *tree,
                           fm_json_t **out)
{
    fm_json_t *value = NULL;
    fm_status_t rc = FM_OK;

    if (tree->type != FM_JSON_STRING) {
        *out = fm_json_string(tree->text);
        return *out ? FM_OK : no_memory(r);
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
    return value ? FM_OK : no_memory(r);
}

static fm_status_t command_params(const fm_wf_resolver_t *r, fm_json_t *params)
{
    const fm_wf_value_t *argv = fm_wf_get(r->node->tree, "command");
    const fm_wf_value_t *env = fm_wf_get(r->node->tree, "env");
    const fm_wf_value_t *outputs = fm_wf_get(r->node->tree, "outputs");
    fm_json_t *words = fm_json_array();
    fm_json_t *names = fm_json_object();
    fm_json_t *seed = NULL;
    fm_json_t *files = outputs ? NULL : fm_json_array();
    fm_json_t *word = NULL;
    fm_status_t rc =
        words && names && (outputs || files) ? FM_OK : no_memory(r);

    for (size_t i = 0; i < argv->count && rc == FM_OK; i++) {
        if ((rc = word_of(r, argv->members[i].value, &word)) == FM_OK &&
            fm_json_append(words, word) < 0) {
            rc = no_memory(r);
        }
    }
    for (size_t i = 0; env && i < env->count && rc == FM_OK; i++) {
        if ((rc = word_of(r, env->members[i].value, &word)) == FM_OK) {
            rc = set(r, names, env->members[i].key, word);
        }
    }
    if (rc == FM_OK && outputs) {
        rc = fm_wf_resolve(r, outputs, false, &files);
    }
    if (rc < 0 || (rc = set(r, params, "argv", fm_json_keep(words))) < 0 ||
        (rc = set(r, params, "env", fm_json_keep(names))) < 0 ||
        (rc = set(r, params, "outputs", fm_json_keep(files))) < 0 ||
        (rc = read_seed(r, &seed)) < 0) {
        goto out;
    }
    rc = set(r, params, "seed", seed);
out:
    fm_json_drop(words);
    fm_json_drop(names);
    fm_json_drop(files);
    return rc;
}

fm_status_t fm_wf_params(const fm_wf_resolver_t *r, fm_json_t *params,
                         fm_json_t *hints)
{
    const int with_model = FM_WF_INFERENCE | FM_WF_SFT | FM_WF_DPO |
                           FM_WF_EVALUATE | FM_WF_LOGPROBS;
    int task = r->node->task;
    fm_status_t rc = task & with_model ? read_model(r, params) : FM_OK;

    if (rc < 0) {
        return rc;
    }
    switch (task) {
    case FM_WF_INFERENCE:
        return inference_params(r, params);
    case FM_WF_SFT:
    case FM_WF_DPO:
        return training_params(r, params, hints);
    case FM_WF_LOGPROBS:
        return logprobs_params(r, params);
    case FM_WF_EVALUATE:
        return evaluate_params(r, params);
    case FM_WF_RETRIEVAL:
        return retrieval_params(r, params);
    case FM_WF_PYTHON:
        return python_params(r, params);
    case FM_WF_COMMAND:
        return command_params(r, params);
    default:
        return FM_OK;
    }
}
