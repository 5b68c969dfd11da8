/* SPDX-License-Identifier: Apache-2.0 */
/* The work of a node once its inputs are known: its parameters (params.c), the
 * values of its items, hints (docs/spec/workflow.md §6). */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/ref.h"

/* --- items ---------------------------------------------------------------- */

/* [{key: value}]: the one item of a node. */
static fm_status_t one_item(const fm_wf_resolver_t *r, fm_json_t *value,
                            fm_json_t **out)
{
    fm_json_t *list = fm_json_array();

    if (!list || fm_json_append(list, fm_json_keep(value)) < 0) {
        fm_json_drop(list);
        return fm_wf_no_memory(r);
    }
    *out = list;
    return FM_OK;
}

static fm_status_t wrap_item(const fm_wf_resolver_t *r, const char *key,
                             fm_json_t *value, fm_json_t **out)
{
    fm_json_t *item = fm_json_object();
    fm_status_t rc = item && fm_json_set(item, key, fm_json_keep(value)) == 0
                         ? one_item(r, item, out)
                         : fm_wf_no_memory(r);

    fm_json_drop(item);
    return rc;
}

static fm_status_t python_items(const fm_wf_resolver_t *r, fm_json_t **out)
{
    const fm_wf_stage_t *stage = &r->wf->stages[r->node->stage];
    fm_json_t *inputs = fm_json_object();
    fm_status_t rc = inputs ? FM_OK : fm_wf_no_memory(r);

    for (size_t i = 0; i < stage->dep_count && rc == FM_OK; i++) {
        const char *name = r->wf->stages[stage->deps[i]].name;
        const fm_json_t *result = NULL;
        rc = fm_wf_result_of(r, fm_wf_target(r->wf, r->node, name), &result);
        if (rc == FM_OK) {
            rc = fm_wf_set(r, inputs, name, fm_json_keep(result));
        }
    }
    if (rc == FM_OK) {
        rc = wrap_item(r, "inputs", inputs, out);
    }
    fm_json_drop(inputs);
    return rc;
}

static fm_status_t add_input(const fm_wf_resolver_t *r,
                             const fm_yaml_member_t *input, fm_json_t *inputs)
{
    const char *text = fm_yaml_str(input->value);
    const char *slash = text ? strrchr(text, '/') : NULL;
    const char *name = input->key ? input->key : slash ? slash + 1 : text;
    fm_json_t *made = NULL;
    fm_json_t *value = NULL;
    fm_status_t rc = FM_OK;

    if (text && !fm_wf_ref_inside(text)) {
        rc = fm_wf_digest_of(r, input->value, &made);
    } else if ((rc = fm_wf_resolve(r, input->value, true, &value)) == FM_OK &&
               (!(made = fm_json_object()) ||
                fm_json_set(made, "value", fm_json_keep(value)) < 0)) {
        rc = fm_wf_no_memory(r);
    }
    if (rc == FM_OK && fm_json_get(inputs, name)) {
        rc = fm_yaml_fail(&r->source, input->line, input->column,
                          FM_ERR_INVALID, "node %s: two inputs named %.80s",
                          r->node->pub.name, name);
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(r, inputs, name, fm_json_keep(made));
    }
    fm_json_drop(value);
    fm_json_drop(made);
    return rc;
}

static fm_status_t command_items(const fm_wf_resolver_t *r, fm_json_t **out)
{
    const fm_yaml_value_t *given = fm_yaml_get(r->node->tree, "inputs");
    fm_json_t *inputs = fm_json_object();
    fm_status_t rc = inputs ? FM_OK : fm_wf_no_memory(r);

    for (size_t i = 0; given && i < given->count && rc == FM_OK; i++) {
        rc = add_input(r, &given->members[i], inputs);
    }
    if (rc == FM_OK) {
        rc = wrap_item(r, "inputs", inputs, out);
    }
    fm_json_drop(inputs);
    return rc;
}

static fm_status_t add_completion(const fm_wf_resolver_t *r,
                                  const fm_json_t *pair, const char *key,
                                  fm_json_t *items)
{
    fm_json_t *item = fm_json_object();

    if (!item ||
        fm_json_set(item, "prompt", fm_json_keep(fm_json_get(pair, "prompt"))) <
            0 ||
        fm_json_set(item, "completion", fm_json_keep(fm_json_get(pair, key))) <
            0) {
        fm_json_drop(item);
        return fm_wf_no_memory(r);
    }
    return fm_json_append(items, item) < 0 ? fm_wf_no_memory(r) : FM_OK;
}

static fm_status_t logprobs_items(const fm_wf_resolver_t *r,
                                  const fm_json_t *pairs, fm_json_t **out)
{
    fm_json_t *items = fm_json_array();
    fm_status_t rc = items ? FM_OK : fm_wf_no_memory(r);

    for (size_t i = 0; i < fm_json_len(pairs) && rc == FM_OK; i++) {
        const fm_json_t *pair = fm_json_at(pairs, i);
        if ((rc = add_completion(r, pair, "chosen", items)) == FM_OK) {
            rc = add_completion(r, pair, "rejected", items);
        }
    }
    if (rc == FM_OK) {
        *out = items;
        items = NULL;
    }
    fm_json_drop(items);
    return rc;
}

static fm_status_t dpo_items(const fm_wf_resolver_t *r, fm_json_t *pairs,
                             fm_json_t **out)
{
    const fm_json_t *result = NULL;
    fm_json_t *list = fm_json_array();
    fm_json_t *item = fm_json_object();
    fm_status_t rc = list && item
                         ? fm_wf_result_of(r, r->node->reference, &result)
                         : fm_wf_no_memory(r);

    const fm_json_t *outputs = fm_json_get(result, "items");
    if (rc == FM_OK && fm_json_len(outputs) != 2 * fm_json_len(pairs)) {
        rc = fm_yaml_fail(
            &r->source, r->node->pub.line, r->node->pub.column, FM_ERR_INVALID,
            "node %s: %zu reference log-probabilities for %zu "
            "pairs",
            r->node->pub.name, fm_json_len(outputs), fm_json_len(pairs));
    }
    for (size_t i = 0; i < fm_json_len(pairs) && rc == FM_OK; i++) {
        fm_json_t *both = fm_json_object();
        const fm_json_t *chosen = fm_json_at(outputs, 2 * i);
        const fm_json_t *rejected = fm_json_at(outputs, 2 * i + 1);
        if (!both ||
            fm_json_set(both, "chosen",
                        fm_json_keep(fm_json_get(chosen, "output"))) < 0 ||
            fm_json_set(both, "rejected",
                        fm_json_keep(fm_json_get(rejected, "output"))) < 0) {
            fm_json_drop(both);
            rc = fm_wf_no_memory(r);
        } else if (fm_json_append(list, both) < 0) {
            rc = fm_wf_no_memory(r);
        }
    }
    if (rc == FM_OK &&
        (rc = fm_wf_set(r, item, "pairs", fm_json_keep(pairs))) == FM_OK &&
        (rc = fm_wf_set(r, item, "reference", fm_json_keep(list))) == FM_OK) {
        rc = one_item(r, item, out);
    }
    fm_json_drop(list);
    fm_json_drop(item);
    return rc;
}

/* exact_match wants completions (§6.8). */
static fm_status_t check_samples(const fm_wf_resolver_t *r,
                                 const fm_json_t *samples,
                                 const fm_json_t *metrics)
{
    bool texts = fm_json_get(fm_json_at(samples, 0), "text") != NULL;

    for (size_t i = 0; texts && i < fm_json_len(metrics); i++) {
        const char *name = fm_json_str(fm_json_at(metrics, i));
        if (strcmp(name, "exact_match") == 0) {
            return fm_yaml_fail(&r->source, r->node->pub.line,
                                r->node->pub.column, FM_ERR_INVALID,
                                "node %s: metric exact_match does not go with "
                                "samples of text",
                                r->node->pub.name);
        }
    }
    return FM_OK;
}

fm_status_t fm_wf_move_to_items(const fm_wf_resolver_t *r, const char *key,
                                fm_json_t *params, fm_json_t *items)
{
    const fm_json_t *value = fm_json_get(params, key);
    fm_status_t rc = FM_OK;

    for (size_t i = 0; value && i < fm_json_len(items) && rc == FM_OK; i++) {
        rc = fm_wf_set(r, fm_json_at(items, i), key, fm_json_keep(value));
    }
    fm_json_remove(params, key);
    return rc;
}

/* concat: the lists of its nodes, as written. */
static fm_status_t concat_items(const fm_wf_resolver_t *r, fm_json_t *records,
                                fm_json_t **out)
{
    const fm_yaml_value_t *nodes =
        fm_yaml_get(fm_yaml_get(r->node->tree, "data"), "nodes");
    fm_json_t *lists = fm_json_array();
    size_t at = 0;
    fm_status_t rc = lists ? FM_OK : fm_wf_no_memory(r);

    for (size_t i = 0; i < (nodes ? nodes->count : 1) && rc == FM_OK; i++) {
        const fm_json_t *result = NULL;
        fm_json_t *list = fm_json_array();
        size_t end = fm_json_len(records);
        if (nodes &&
            (rc = fm_wf_result_of(
                 r, fm_wf_target(r->wf, r->node, nodes->members[i].value->text),
                 &result)) == FM_OK) {
            size_t rest = at + fm_json_len(fm_json_get(result, "items"));
            end = rest < end ? rest : end; /* max_samples */
        }
        for (; at < end && list; at++) {
            if (fm_json_append(list, fm_json_keep(fm_json_at(records, at))) <
                0) {
                list = fm_json_drop(list);
            }
        }
        if (fm_json_append(lists, list) < 0) {
            rc = rc < 0 ? rc : fm_wf_no_memory(r);
        }
    }
    rc = rc < 0 ? rc : wrap_item(r, "lists", lists, out);
    fm_json_drop(lists);
    return rc;
}

/* The one item of an operator over records. */
static fm_status_t record_items(const fm_wf_resolver_t *r, fm_json_t *records,
                                fm_json_t **out)
{
    return r->node->task == FM_WF_CONCAT
               ? concat_items(r, records, out)
               : wrap_item(r, "records", records, out);
}

/* Whether rows of an export want the records that items were made of. */
static bool uses_metadata(const fm_yaml_value_t *tree)
{
    const fm_yaml_value_t *fields = fm_yaml_get(
        fm_yaml_get(fm_yaml_get(tree, "postprocess"), "jsonl_export"),
        "fields");

    for (size_t i = 0; fields && i < fields->count; i++) {
        const char *from =
            fm_yaml_str(fm_yaml_get(fields->members[i].value, "from"));
        if (from && strcmp(from, "metadata") == 0) {
            return true;
        }
    }
    return false;
}

/* Task types whose items carry adapters, so that those of many share a
 * batch. */
#define PER_ITEM                                                               \
    (FM_WF_INFERENCE | FM_WF_LOGPROBS | FM_WF_SCORE | FM_WF_EMBEDDING)

static fm_status_t make_items(const fm_wf_resolver_t *r, fm_json_t *params,
                              fm_json_t *hints, fm_json_t **out)
{
    int task = r->node->task;
    fm_json_t *records = NULL;
    fm_json_t *samples = NULL;
    fm_status_t rc = FM_OK;

    if (task == FM_WF_PYTHON) {
        return python_items(r, out);
    }
    if (task == FM_WF_COMMAND) {
        return command_items(r, out);
    }
    if (task == FM_WF_RETRIEVAL) {
        samples = fm_json_object();
        rc = samples ? one_item(r, samples, out) : fm_wf_no_memory(r);
        fm_json_drop(samples);
        return rc;
    }
    if ((rc = fm_wf_records(r, &records)) < 0) {
        goto out;
    }
    if (uses_metadata(r->node->tree) &&
        (rc = fm_wf_set(r, hints, "records", fm_json_keep(records))) < 0) {
        goto out;
    }
    if (task & FM_WF_WITH_RECORDS) {
        rc = record_items(r, records, out);
        goto out;
    }
    if ((rc = fm_wf_samples(r, records, &samples)) < 0) {
        goto out;
    }
    if (fm_json_len(samples) == 0 && (task & (FM_WF_TUNING | FM_WF_EVALUATE))) {
        rc = fm_yaml_fail(&r->source, r->node->pub.line, r->node->pub.column,
                          FM_ERR_INVALID, "node %s: its data has no records",
                          r->node->pub.name);
        goto out;
    }
    switch (task) {
    case FM_WF_LOGPROBS:
        rc = logprobs_items(r, samples, out);
        break;
    case FM_WF_DPO:
        rc = dpo_items(r, samples, out);
        break;
    case FM_WF_REWARD_MODEL:
        rc = wrap_item(r, "pairs", samples, out);
        break;
    case FM_WF_EVALUATE:
        rc = check_samples(r, samples, fm_json_get(params, "metrics"));
        rc = rc < 0 ? rc : wrap_item(r, "samples", samples, out);
        break;
    case FM_WF_SFT:
    case FM_WF_LORA_SFT:
        rc = wrap_item(r, "samples", samples, out);
        break;
    default:
        *out = samples;
        samples = NULL;
        break;
    }
    if (rc == FM_OK && (task & PER_ITEM) &&
        (rc = fm_wf_move_to_items(r, "adapter", params, *out)) == FM_OK &&
        task == FM_WF_INFERENCE) {
        rc = fm_wf_move_to_items(r, "seed", params, *out);
    }
out:
    fm_json_drop(records);
    fm_json_drop(samples);
    return rc;
}

static fm_status_t make_hints(const fm_wf_resolver_t *r, fm_json_t *hints)
{
    static const char *const keys[][2] = {{"resources", "resources"},
                                          {"timeoutSeconds", "timeout_s"}};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < FM_COUNT_OF(keys) && rc == FM_OK; i++) {
        const fm_yaml_value_t *tree = fm_yaml_get(r->node->tree, keys[i][0]);
        fm_json_t *value = NULL;
        if (tree && (rc = fm_wf_resolve(r, tree, false, &value)) == FM_OK) {
            rc = fm_wf_set(r, hints, keys[i][1], value);
        }
    }
    return rc;
}

fm_status_t fm_workflow_expand(const fm_workflow_t *wf, uint32_t node,
                               const fm_json_t *files,
                               fm_workflow_upstream_fn upstream, void *ctx,
                               fm_workflow_work_t *work_out, fm_error_t *err)
{
    const fm_wf_resolver_t r = {.wf = wf,
                                .node = &wf->nodes[node],
                                .upstream = upstream,
                                .ctx = ctx,
                                .files = files,
                                .source = {.file = wf->file, .err = err}};
    fm_workflow_work_t work = {.params = fm_json_object(),
                               .hints = fm_json_object()};
    fm_status_t rc = work.params && work.hints ? FM_OK : fm_no_memory(err);

    if (rc == FM_OK && (rc = make_hints(&r, work.hints)) == FM_OK &&
        r.node->chain) {
        rc = fm_wf_chain_work(&r, work.params, work.hints, &work.items);
    } else if (rc == FM_OK &&
               (rc = fm_wf_params(&r, work.params, work.hints)) == FM_OK) {
        rc = make_items(&r, work.params, work.hints, &work.items);
    }
    if (rc == FM_OK) {
        *work_out = work;
        return FM_OK;
    }
    fm_workflow_work_fini(&work);
    return rc;
}

void fm_workflow_work_fini(fm_workflow_work_t *work)
{
    work->params = fm_json_drop(work->params);
    work->items = fm_json_drop(work->items);
    work->hints = fm_json_drop(work->hints);
}
