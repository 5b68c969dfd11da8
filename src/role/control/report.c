/* SPDX-License-Identifier: Apache-2.0 */
#include "role/control/report.h"

#include <flowmesh/version.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "plan/key/key.h"
#include "role/control/decision.h"
#include "role/control/explain.h"

/* Sharers listed by name in a lineage record; the count is always whole. */
#define SHARERS_MAX 64u

static bool set(fm_json_t *object, const char *key, fm_json_t *value)
{
    return fm_json_set(object, key, value) >= 0;
}

static fm_json_t *text_or_null(const char *text)
{
    return text ? fm_json_string(text) : fm_json_null();
}

static fm_json_t *digest_json(const fm_digest_t *digest)
{
    char text[FM_DIGEST_TEXT_BYTES];

    return fm_json_string(fm_digest_format(digest, text));
}

static fm_json_t *parse_or_null(const char *text)
{
    fm_json_t *value = NULL;

    if (!text || fm_json_parse(text, strlen(text), "text", &value, NULL) < 0) {
        return fm_json_null();
    }
    return value;
}

/* --- a run ---------------------------------------------------------------- */

static fm_json_t *node_json(const fm_run_t *run, uint32_t index,
                            const fm_pool_node_t *info)
{
    const fm_workflow_node_t *node = fm_workflow_node(run->workflow, index);
    fm_json_t *object = fm_json_object();
    bool skipped = info->state == FM_POOL_SKIPPED;

    if (object && set(object, "name", fm_json_string(node->name)) &&
        set(object, "task", fm_json_string(node->task_type)) &&
        set(object, "trial", text_or_null(node->trial)) &&
        set(object, "owner",
            node->internal
                ? fm_json_string(
                      fm_workflow_node(run->workflow, node->owner)->name)
                : fm_json_null()) &&
        set(object, "state",
            fm_json_string(
                fm_pool_state_name(skipped ? FM_POOL_DONE : info->state))) &&
        set(object, "items", fm_json_int(info->items)) &&
        set(object, "ran", fm_json_int(info->ran)) &&
        set(object, "shared", fm_json_int(info->shared)) &&
        set(object, "skipped", fm_json_bool(skipped)) &&
        set(object, "error",
            info->state == FM_POOL_FAILED
                ? text_or_null(run->errors[index]
                                   ? run->errors[index]
                                   : fm_pool_reason_name(info->reason))
                : fm_json_null())) {
        return object;
    }
    return fm_json_drop(object);
}

/* The metrics of a finished evaluate node, or null. */
static fm_json_t *node_metrics(fm_fabric_t *fabric, const fm_run_t *run,
                               uint32_t index)
{
    fm_json_t *result = NULL;
    fm_json_t *metrics = NULL;

    if (fm_fabric_result(fabric, run, index, &result, NULL) >= 0) {
        metrics = fm_json_keep(fm_json_path(result, "items.0.output.metrics"));
    }
    fm_json_drop(result);
    return metrics ? metrics : fm_json_null();
}

static bool is_evaluate(const fm_workflow_node_t *node)
{
    return strcmp(node->task_type, "evaluate") == 0;
}

static bool add_metrics(fm_fabric_t *fabric, const fm_run_t *run,
                        fm_json_t *metrics, fm_json_t *trials)
{
    for (size_t t = 0; t < fm_workflow_trial_count(run->workflow); t++) {
        const fm_workflow_trial_t *trial = fm_workflow_trial(run->workflow, t);
        fm_json_t *object = fm_json_object();
        if (!object || !set(object, "trial", fm_json_string(trial->name)) ||
            !set(object, "values", fm_json_keep(trial->values)) ||
            !set(object, "metrics", fm_json_object()) ||
            fm_json_append(trials, fm_json_keep(object)) < 0) {
            fm_json_drop(object);
            return false;
        }
        fm_json_drop(object);
    }
    for (uint32_t i = 0; i < run->node_count; i++) {
        const fm_workflow_node_t *node = fm_workflow_node(run->workflow, i);
        fm_json_t *to = node->trial ? NULL : metrics;
        for (size_t t = 0;
             is_evaluate(node) && node->trial && !to && t < fm_json_len(trials);
             t++) {
            fm_json_t *trial = fm_json_at(trials, t);
            if (strcmp(fm_json_get_str(trial, "trial"), node->trial) == 0) {
                to = fm_json_get(trial, "metrics");
            }
        }
        if (is_evaluate(node) && to &&
            !set(to, node->stage, node_metrics(fabric, run, i))) {
            return false;
        }
    }
    return true;
}

static fm_json_t *operators_json(const fm_pool_workflow_t *info)
{
    fm_json_t *object = fm_json_object();

    if (object && set(object, "planned", fm_json_int((int64_t)info->items)) &&
        set(object, "ran", fm_json_int((int64_t)info->ran)) &&
        set(object, "shared", fm_json_int((int64_t)info->shared)) &&
        set(object, "failed", fm_json_int((int64_t)info->failed))) {
        return object;
    }
    return fm_json_drop(object);
}

fm_status_t fm_report_run(fm_fabric_t *fabric, const fm_run_t *run,
                          fm_json_t **report_out, fm_error_t *err)
{
    const fm_pool_t *pool = fm_state_pool(fabric->state);
    fm_json_t *report = fm_json_object();
    fm_json_t *nodes = fm_json_array();
    fm_json_t *metrics = fm_json_object();
    fm_json_t *trials = fm_json_array();
    fm_pool_workflow_t info = {0};
    fm_pool_node_t node = {0};
    bool ok = report && nodes && metrics && trials;

    (void)!fm_pool_workflow_get(pool, run->index, &info);
    for (uint32_t i = 0; ok && i < run->node_count; i++) {
        (void)!fm_pool_node_get(pool, run->index, i, &node);
        ok = fm_json_append(nodes, node_json(run, i, &node)) >= 0;
    }
    ok = ok && add_metrics(fabric, run, metrics, trials) &&
         set(report, "workflow", fm_json_string(run->id)) &&
         set(report, "name", fm_json_string(fm_workflow_name(run->workflow))) &&
         set(report, "state", fm_json_string(fm_pool_state_name(info.state))) &&
         set(report, "nodes", fm_json_keep(nodes)) &&
         set(report, "operators", operators_json(&info)) &&
         set(report, "policy", fm_json_string(run->policy)) &&
         set(report, "account",
             fm_explain_tenant(fm_pool_tenants(pool), info.tenant_id)) &&
         set(report, "metrics", fm_json_keep(metrics)) &&
         set(report, "trials", fm_json_keep(trials));
    fm_json_drop(nodes);
    fm_json_drop(metrics);
    fm_json_drop(trials);
    if (!ok) {
        fm_json_drop(report);
        return fm_no_memory(err);
    }
    *report_out = report;
    return FM_OK;
}

/* --- items ---------------------------------------------------------------- */

fm_status_t fm_report_items(fm_fabric_t *fabric, const fm_run_t *run,
                            uint32_t node, fm_json_t **items_out,
                            fm_error_t *err)
{
    fm_json_t *result = NULL;
    fm_json_t *items = NULL;
    fm_status_t rc = fm_fabric_result(fabric, run, node, &result, err);

    if (rc < 0) {
        return rc;
    }
    fm_json_t *from = fm_json_get(result, "items");
    uint32_t count = run->vectors[node] ? run->vectors[node]->count : 0;
    items = fm_json_array();
    bool ok = items != NULL;
    for (size_t i = 0; ok && i < fm_json_len(from); i++) {
        fm_json_t *item = fm_json_copy(fm_json_at(from, i));
        fm_pool_item_t info = {0};
        (void)!fm_pool_item_get(fm_state_pool(fabric->state), run->index, node,
                                i < count ? (uint32_t)i : 0, &info);
        ok = item && set(item, "digest", digest_json(&info.output)) &&
             set(item, "key", digest_json(&info.key)) &&
             fm_json_append(items, fm_json_keep(item)) >= 0;
        fm_json_drop(item);
    }
    fm_json_drop(result);
    if (!ok) {
        fm_json_drop(items);
        return fm_no_memory(err);
    }
    *items_out = items;
    return FM_OK;
}

/* --- lineage -------------------------------------------------------------- */

/* The terms, of its PLACE record; before there were any, RESULT had them. */
static fm_json_t *placement_json(const fm_lease_record_t *lease)
{
    fm_json_t *old = parse_or_null(lease->placement);
    fm_decision_t decision;
    fm_json_t *terms = NULL;

    if (!lease->decision ||
        fm_decision_decode(lease->decision, lease->decision_len, &decision,
                           NULL) < 0 ||
        decision.candidate_count == 0) {
        return old;
    }
    terms = fm_decision_terms_json(&decision.candidates[0].terms);
    if (terms && fm_json_get(old, "on")) {
        (void)!fm_json_set(terms, "on", fm_json_keep(fm_json_get(old, "on")));
    }
    fm_json_drop(old);
    return terms;
}

static bool set_execution(fm_json_t *object, const fm_lease_record_t *lease)
{
    char when[32] = "";

    if (!lease || !lease->worker) { /* none, or no result yet */
        return set(object, "execution", fm_json_null());
    }
    fm_clock_format(lease->start_ns, when, sizeof(when));
    fm_json_t *run = fm_json_object();
    double share = lease->items ? 1.0 / lease->items : 1.0;
    bool ok =
        run && set(run, "worker", fm_json_string(lease->worker)) &&
        set(run, "device", fm_json_string(lease->device)) &&
        set(run, "lease", fm_json_int((int64_t)lease->lease)) &&
        set(run, "start", fm_json_string(when)) &&
        set(run, "batch_items", fm_json_int(lease->items)) &&
        set(run, "batch_seconds", fm_json_real(lease->seconds)) &&
        set(run, "seconds", fm_json_real(lease->seconds * share)) &&
        set(run, "cpu_seconds", fm_json_real(lease->cpu_seconds * share)) &&
        set(run, "joules", fm_json_real(lease->joules * share)) &&
        set(run, "dollars", fm_json_real(lease->dollars * share)) &&
        set(run, "placement", placement_json(lease)) &&
        set(object, "execution", fm_json_keep(run));
    fm_json_drop(run);
    return ok;
}

static bool set_sharers(const fm_fabric_t *fabric, fm_json_t *object,
                        const fm_digest_t *key)
{
    fm_pool_ref_t refs[SHARERS_MAX];
    size_t count =
        fm_pool_sharers(fm_state_pool(fabric->state), key, refs, SHARERS_MAX);
    fm_json_t *list = fm_json_array();
    bool ok = list != NULL;

    for (size_t i = 0; ok && i < count && i < SHARERS_MAX; i++) {
        const fm_run_t *run = fm_state_run(fabric->state, refs[i].workflow);
        char *name = fm_asprintf(
            "%s/%s/%u", run->id,
            fm_workflow_node(run->workflow, refs[i].node)->name, refs[i].item);
        ok = name && fm_json_append(list, fm_json_string(name)) >= 0;
        free(name);
    }
    ok = ok && set(object, "shared_by", fm_json_keep(list)) &&
         set(object, "shared_count", fm_json_int((int64_t)count));
    fm_json_drop(list);
    return ok;
}

static bool set_upstream(const fm_run_t *run, fm_json_t *object,
                         const fm_workflow_node_t *node)
{
    fm_json_t *list = fm_json_array();
    bool ok = list != NULL;

    for (size_t i = 0; ok && i < node->dep_count; i++) {
        char *name =
            fm_asprintf("%s/%s", run->id,
                        fm_workflow_node(run->workflow, node->deps[i])->name);
        ok = name && fm_json_append(list, fm_json_string(name)) >= 0;
        free(name);
    }
    ok = ok && set(object, "upstream", fm_json_keep(list));
    fm_json_drop(list);
    return ok;
}

/* Where a training says which samples each of its steps took. */
static bool set_table(fm_fabric_t *fabric, const fm_run_t *run, uint32_t index,
                      uint32_t item, fm_json_t *object)
{
    const fm_workflow_node_t *node = fm_workflow_node(run->workflow, index);
    const fm_key_task_t *task = fm_key_task_find(node->task_type, NULL);
    fm_json_t *result = NULL, *table = NULL;

    if (!task || task->kind != FM_KEY_TRAINING) {
        return true;
    }
    if (fm_fabric_result(fabric, run, index, &result, NULL) >= 0) {
        const fm_json_t *one = fm_json_at(fm_json_get(result, "items"), item);
        table = fm_json_keep(fm_json_path(one, "output.table"));
    }
    fm_json_drop(result);
    return set(object, "table", table ? table : fm_json_null());
}

static bool set_operator(const fm_run_t *run, uint32_t index, uint32_t item,
                         fm_json_t *object)
{
    const fm_workflow_node_t *node = fm_workflow_node(run->workflow, index);
    const fm_vector_t *vector = run->vectors[index];
    const fm_key_task_t *task = fm_key_task_find(node->task_type, NULL);
    fm_json_t *params = parse_or_null(vector->params);
    const fm_json_t *training_seed = fm_json_path(params, "training.seed");
    const fm_json_t *seed =
        training_seed ? training_seed : fm_json_get(params, "seed");

    bool ok = set(object, "workflow", fm_json_string(run->id)) &&
              set(object, "node", fm_json_string(node->name)) &&
              set(object, "item", fm_json_int(item)) &&
              set(object, "operator", fm_json_string(node->task_type)) &&
              set(object, "operator_version",
                  fm_json_int(task ? task->version : 0)) &&
              set(object, "software", fm_json_string("flowmesh " FM_VERSION)) &&
              set(object, "seed", seed ? fm_json_keep(seed) : fm_json_null()) &&
              set(object, "model",
                  fm_json_get(params, "model")
                      ? fm_json_keep(fm_json_get(params, "model"))
                      : fm_json_null()) &&
              set(object, "params", fm_json_keep(params)) &&
              set(object, "value", parse_or_null(fm_vector_item(vector, item)));
    fm_json_drop(params);
    return ok;
}

fm_status_t fm_report_lineage(fm_fabric_t *fabric, const fm_run_t *run,
                              uint32_t node, uint32_t item,
                              fm_json_t **lineage_out, fm_error_t *err)
{
    const fm_vector_t *vector = run->vectors[node];
    const char *name = fm_workflow_node(run->workflow, node)->name;
    fm_json_t *object = NULL;
    fm_pool_item_t info;

    if (!vector || !vector->params || item >= vector->count ||
        fm_pool_item_get(fm_state_pool(fabric->state), run->index, node, item,
                         &info) < 0) {
        return fm_error_set(err, FM_ERR_NOT_FOUND,
                            "%s/%s has %u items, counted from 0", run->id, name,
                            vector ? vector->count : 0);
    }
    object = fm_json_object();
    bool ok =
        object && set_operator(run, node, item, object) &&
        set(object, "key", digest_json(&info.key)) &&
        set(object, "output",
            info.has_output ? digest_json(&info.output) : fm_json_null()) &&
        set(object, "shared",
            fm_json_bool(info.state == FM_POOL_ITEM_SHARED)) &&
        set_execution(object, fm_state_lease(fabric->state, info.lease)) &&
        set_table(fabric, run, node, item, object) &&
        set_sharers(fabric, object, &info.key) &&
        set_upstream(run, object, fm_workflow_node(run->workflow, node));
    if (!ok) {
        fm_json_drop(object);
        return fm_no_memory(err);
    }
    *lineage_out = object;
    return FM_OK;
}

/* --- misses --------------------------------------------------------------- */

/* {"$object": digest} is exchanged for what the object holds: people compare
 * values, and two digests only say that something differs. */
static fm_status_t value_load(fm_fabric_t *fabric, fm_json_t *key_text,
                              fm_error_t *err)
{
    const char *object = fm_json_str(fm_json_path(key_text, "value.$object"));
    fm_json_t *value = NULL;
    fm_digest_t digest;
    fm_buf_t bytes = {0};
    fm_status_t rc = FM_OK;

    if (!object || !fm_digest_parse(object, &digest)) {
        return FM_OK;
    }
    if ((rc = fm_fabric_read(fabric, &digest, &bytes, err)) >= 0 &&
        (rc = fm_json_parse((const char *)bytes.data, bytes.len, "value",
                            &value, err)) >= 0 &&
        fm_json_set(key_text, "value", value) < 0) {
        rc = fm_no_memory(err);
    }
    fm_buf_fini(&bytes);
    return rc;
}

/* The action key's text of @p at, values in full, and its pool entry. */
static fm_status_t miss_text(fm_fabric_t *fabric, const fm_report_item_t *at,
                             fm_pool_item_t *info, char **text_out,
                             fm_error_t *err)
{
    const fm_vector_t *vector = at->run->vectors[at->node];
    fm_json_t *parsed = NULL;
    char *text = NULL;
    fm_status_t rc = FM_OK;

    if (!vector || !vector->params || at->item >= vector->count ||
        fm_pool_item_get(fm_state_pool(fabric->state), at->run->index, at->node,
                         at->item, info) < 0) {
        return fm_error_set(
            err, FM_ERR_NOT_FOUND, "%s/%s has %u items so far, counted from 0",
            at->run->id, fm_workflow_node(at->run->workflow, at->node)->name,
            vector ? vector->count : 0);
    }
    if ((rc = fm_state_key_text(fabric->state, at->run, at->node, at->item,
                                &text, err)) >= 0 &&
        (rc = fm_json_parse(text, strlen(text), "key", &parsed, err)) >= 0 &&
        (rc = value_load(fabric, parsed, err)) >= 0 &&
        !(*text_out = fm_json_canonical(parsed))) {
        rc = fm_no_memory(err);
    }
    free(text);
    fm_json_drop(parsed);
    return rc;
}

struct differences {
    fm_json_t *list;
    bool failed;
};

static void difference_add(void *ctx, const char *path, const fm_json_t *a,
                           const fm_json_t *b)
{
    struct differences *differences = ctx;
    fm_json_t *row = fm_json_object();

    if (!row || !set(row, "path", fm_json_string(path)) ||
        !set(row, "a", a ? fm_json_keep(a) : fm_json_null()) ||
        !set(row, "b", b ? fm_json_keep(b) : fm_json_null()) ||
        fm_json_append(differences->list, fm_json_keep(row)) < 0) {
        differences->failed = true;
    }
    fm_json_drop(row);
}

static fm_json_t *isolation_json(const fm_report_item_t *at)
{
    static const char *const scopes[] = {
        [FM_ISOLATION_NONE] = "none",
        [FM_ISOLATION_WORKFLOW] = "workflow",
        [FM_ISOLATION_ACTION] = "workflow and node",
        [FM_ISOLATION_NODE] = "workflow and node"};
    char *text =
        fm_asprintf("policy %s: shares %s%s", at->run->policy,
                    at->run->isolation ? "nothing outside its " : "everything",
                    at->run->isolation ? scopes[at->run->isolation] : "");
    fm_json_t *json = text ? fm_json_string(text) : NULL;

    free(text);
    return json;
}

/* Equal content, and keys that differ: a policy that does not share. */
static void isolation_add(const fm_report_item_t *items,
                          struct differences *differences)
{
    fm_json_t *a = isolation_json(&items[0]);
    fm_json_t *b = isolation_json(&items[1]);

    difference_add(differences, "isolation", a, b);
    fm_json_drop(a);
    fm_json_drop(b);
}

fm_status_t fm_report_miss(fm_fabric_t *fabric, const fm_report_item_t *items,
                           fm_json_t **report_out, fm_error_t *err)
{
    struct differences differences = {.list = fm_json_array()};
    fm_json_t *report = fm_json_object();
    fm_pool_item_t info[2] = {{0}, {0}};
    char *texts[2] = {NULL, NULL};
    size_t count = 0;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < 2; i++) {
        rc = miss_text(fabric, &items[i], &info[i], &texts[i], err);
    }
    if (rc >= 0) {
        rc = fm_key_explain(texts[0], texts[1],
                            differences.list ? difference_add : NULL,
                            &differences, &count, err);
    }
    if (rc >= 0 && differences.list && count == 0 &&
        !fm_digest_equal(&info[0].key, &info[1].key)) {
        isolation_add(items, &differences);
        count++;
    }
    if (rc >= 0 &&
        (!report || !differences.list || differences.failed ||
         !set(report, "a", digest_json(&info[0].key)) ||
         !set(report, "b", digest_json(&info[1].key)) ||
         !set(report, "same", fm_json_bool(count == 0)) ||
         !set(report, "differences", fm_json_keep(differences.list)))) {
        rc = fm_no_memory(err);
    }
    if (rc >= 0) {
        *report_out = report;
        report = NULL;
    }
    free(texts[0]);
    free(texts[1]);
    fm_json_drop(differences.list);
    fm_json_drop(report);
    return rc;
}
