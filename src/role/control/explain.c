/* SPDX-License-Identifier: Apache-2.0 */
#include "role/control/explain.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "role/control/decision.h"

/* One question. */
struct query {
    fm_fabric_t *fabric;
    const fm_run_t *run;
    const fm_vector_t *vector; /* NULL: not expanded */
    uint32_t node;
    uint32_t item;
    const char *tenant;
    int64_t placed_ns; /* of the last placement that was found */
};

static bool set(fm_json_t *object, const char *key, fm_json_t *value)
{
    return fm_json_set(object, key, value) >= 0;
}

static bool append(fm_json_t *list, fm_json_t *object, bool ok)
{
    ok = ok && fm_json_append(list, fm_json_keep(object)) >= 0;
    fm_json_drop(object);
    return ok;
}

static fm_json_t *span_json(fm_span_t span)
{
    char *text = fm_span_copy(span);
    fm_json_t *json = text ? fm_json_string(text) : NULL;

    free(text);
    return json;
}

static fm_json_t *time_json(int64_t wall_ns)
{
    char when[32] = "";

    if (wall_ns == 0) {
        return fm_json_null();
    }
    fm_clock_format(wall_ns, when, sizeof(when));
    return fm_json_string(when);
}

/* Seconds between two wall times, to the millisecond. */
static double seconds(int64_t from_ns, int64_t to_ns)
{
    int64_t ms = (to_ns - from_ns) / FM_NS_PER_MS;

    return ms > 0 ? (double)ms / 1e3 : 0;
}

/* --- candidates ----------------------------------------------------------- */

/* @p best: U of the one that was chosen; NULL: none was. */
static bool add_candidates(fm_json_t *object, const fm_decision_t *decision,
                           uint32_t first, const double *best)
{
    fm_json_t *list = fm_json_array();
    bool ok = list != NULL;

    for (uint32_t i = first; ok && i < decision->candidate_count; i++) {
        const fm_decision_candidate_t *from = &decision->candidates[i];
        fm_json_t *one = fm_json_object();
        ok = append(
            list, one,
            one && set(one, "worker", span_json(from->worker)) &&
                set(one, "items", fm_json_int(from->size)) &&
                set(one, "idle", fm_json_bool(from->idle)) &&
                (!best || set(one, "lost_by",
                              fm_json_real(*best - from->terms.utility))) &&
                set(one, "terms", fm_decision_terms_json(&from->terms)));
    }
    ok = ok && set(object, "looked_at", fm_json_int(decision->looked_at)) &&
         set(object, "candidates", fm_json_keep(list));
    fm_json_drop(list);
    return ok;
}

/* --- placements ----------------------------------------------------------- */

/* How many items that are asked for the lease holds. */
static uint32_t covered(const struct query *q, const fm_decision_t *decision)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < decision->range_count; i++) {
        const fm_decision_range_t *range = &decision->ranges[i];
        if (range->workflow != q->run->index || range->node != q->node) {
            continue;
        }
        if (q->item == FM_EXPLAIN_ALL) {
            count += range->count;
        } else {
            count +=
                q->item >= range->item && q->item - range->item < range->count;
        }
    }
    return count;
}

static bool set_outcome(fm_json_t *object, const fm_lease_record_t *lease)
{
    if (!lease->worker) {
        return set(object, "outcome",
                   fm_json_string("no result: it runs, or its worker was "
                                  "lost"));
    }
    return set(object, "outcome", fm_json_string("results")) &&
           set(object, "device", fm_json_string(lease->device)) &&
           set(object, "seconds", fm_json_real(lease->seconds)) &&
           set(object, "dollars", fm_json_real(lease->dollars)) &&
           set(object, "joules", fm_json_real(lease->joules));
}

static bool add_placement(struct query *q, const fm_lease_record_t *lease,
                          const fm_decision_t *decision, uint32_t items,
                          fm_json_t *list)
{
    const fm_decision_candidate_t *chosen = &decision->candidates[0];
    fm_json_t *one = fm_json_object();
    int64_t ready_ns = q->vector ? q->vector->expanded_ns : 0;
    bool ok =
        one && set(one, "lease", fm_json_int((int64_t)lease->lease)) &&
        set(one, "time", time_json(decision->wall_ns)) &&
        set(one, "after_s",
            fm_json_real(seconds(q->run->submitted_ns, decision->wall_ns))) &&
        set(one, "waited_s",
            ready_ns ? fm_json_real(seconds(ready_ns, decision->wall_ns))
                     : fm_json_null()) &&
        set(one, "policy", span_json(decision->policy)) &&
        set(one, "items", fm_json_int(items)) &&
        set(one, "batch_items", fm_json_int(decision->items)) &&
        set(one, "devices", fm_json_int(decision->gang)) &&
        set_outcome(one, lease);

    if (ok && decision->candidate_count > 0) {
        ok = set(one, "worker", span_json(chosen->worker)) &&
             set(one, "terms", fm_decision_terms_json(&chosen->terms)) &&
             add_candidates(one, decision, 1, &chosen->terms.utility);
    }
    q->placed_ns = decision->wall_ns;
    return append(list, one, ok);
}

static bool add_placements(struct query *q, fm_json_t *report)
{
    const fm_state_t *state = q->fabric->state;
    fm_json_t *list = fm_json_array();
    int64_t count = 0;
    bool ok = list != NULL;

    for (size_t i = 0; ok && i < fm_state_lease_count(state); i++) {
        const fm_lease_record_t *lease = fm_state_lease_at(state, i);
        fm_decision_t decision;
        if (!lease->decision ||
            fm_decision_decode(lease->decision, lease->decision_len, &decision,
                               NULL) < 0) {
            continue;
        }
        uint32_t items = covered(q, &decision);
        if (items > 0 && count++ < FM_EXPLAIN_ROWS_MAX) {
            ok = add_placement(q, lease, &decision, items, list);
        } else if (items > 0) {
            q->placed_ns = decision.wall_ns;
        }
    }
    ok = ok && set(report, "placement_count", fm_json_int(count)) &&
         set(report, "placements", fm_json_keep(list));
    fm_json_drop(list);
    return ok;
}

/* --- waits ---------------------------------------------------------------- */

/* The sentence for the tenant that asks; its quota goes before all. */
static fm_span_t wait_text(const struct query *q, const fm_decision_t *wait,
                           bool *is_quota_out)
{
    for (uint32_t i = 0; i < wait->blocked_count; i++) {
        const fm_decision_blocked_t *blocked = &wait->blocked[i];
        if (blocked->tenant.len == strlen(q->tenant) &&
            memcmp(blocked->tenant.text, q->tenant, blocked->tenant.len) == 0) {
            *is_quota_out = true;
            return blocked->text;
        }
    }
    *is_quota_out = false;
    return wait->text;
}

static const char *mend_of(fm_sched_verdict_t verdict, bool is_quota)
{
    static const char *const mends[] = {
        [FM_SCHED_WAIT_BUSY] = "nothing needs to be done",
        [FM_SCHED_WAIT_WORKERS] = "nothing needs to be done; more workers "
                                  "would start it sooner",
        [FM_SCHED_WAIT_NO_WORKERS] = "start workers: the command that was "
                                     "stopped goes on where it was",
        [FM_SCHED_WAIT_TASK_TYPE] = "give a worker an executor that offers "
                                    "this task type (--executor)",
        [FM_SCHED_WAIT_DEVICE] = "add a worker with such a device, or ask for "
                                 "another resources.hardware.gpu.type",
        [FM_SCHED_WAIT_MEMORY] = "add a worker with as much memory (fewer "
                                 "workers on a host have more each), or ask "
                                 "for less in resources.hardware",
        [FM_SCHED_WAIT_WALLTIME] = "start a job with more walltime",
        [FM_SCHED_WAIT_TURN] = "nothing needs to be done; a higher "
                               "metadata.priority goes before others of the "
                               "tenant",
        [FM_SCHED_WAIT_GANG] = "nothing needs to be done",
        [FM_SCHED_WAIT_NO_GANG] = "start a host with as many workers, or ask "
                                  "for a smaller resources.hardware.gpu.count",
        [FM_SCHED_WAIT_NO_WORK] = "nothing needs to be done"};

    if (is_quota) {
        return "wait until it has less at work, or raise its quota under "
               "tenants in fabric.yaml";
    }
    return (unsigned)verdict < FM_COUNT_OF(mends) && mends[verdict]
               ? mends[verdict]
               : "nothing needs to be done";
}

static bool add_wait(const struct query *q, const fm_decision_t *wait,
                     fm_json_t *list, fm_json_t **last_out)
{
    bool is_quota = false;
    fm_span_t text = wait_text(q, wait, &is_quota);
    fm_json_t *one = fm_json_object();
    bool ok =
        one && set(one, "time", time_json(wait->wall_ns)) &&
        set(one, "after_s",
            fm_json_real(seconds(q->run->submitted_ns, wait->wall_ns))) &&
        set(one, "why", span_json(text)) &&
        set(one, "mend", fm_json_string(mend_of(wait->verdict, is_quota))) &&
        add_candidates(one, wait, 0, NULL);

    if (ok) {
        fm_json_drop(*last_out);
        *last_out = fm_json_keep(one);
    }
    if (fm_json_len(list) >= FM_EXPLAIN_ROWS_MAX) {
        fm_json_drop(one);
        return ok;
    }
    return append(list, one, ok);
}

/* Waits of its batch key since it was expanded.  @p last_out  [out] the last
 * one, when it came after the last placement; a new reference, or NULL. */
static bool add_waits(struct query *q, fm_json_t *report, fm_json_t **last_out)
{
    const fm_state_t *state = q->fabric->state;
    const fm_wait_record_t *record = NULL;
    fm_json_t *list = fm_json_array();
    size_t cursor = 0;
    int64_t count = 0;
    int64_t last_ns = 0;
    bool ok = list != NULL;

    while (ok && q->vector &&
           (record = fm_state_wait_next(state, &q->vector->batch_key,
                                        &cursor)) != NULL) {
        fm_decision_t wait;
        if (fm_decision_decode(record->bytes, record->len, &wait, NULL) >= 0 &&
            wait.wall_ns >= q->vector->expanded_ns) {
            count++;
            last_ns = wait.wall_ns;
            ok = add_wait(q, &wait, list, last_out);
        }
    }
    if (last_ns <= q->placed_ns) {
        *last_out = fm_json_drop(*last_out);
    }
    ok = ok && set(report, "wait_count", fm_json_int(count)) &&
         set(report, "waits", fm_json_keep(list));
    fm_json_drop(list);
    return ok;
}

/* --- now ------------------------------------------------------------------ */

static bool set_now(fm_json_t *report, const char *why, const char *mend)
{
    fm_json_t *now = fm_json_object();
    bool ok = now && set(now, "why", fm_json_string(why)) &&
              set(now, "mend", mend ? fm_json_string(mend) : fm_json_null()) &&
              set(report, "now", fm_json_keep(now));

    fm_json_drop(now);
    return ok;
}

/* Which nodes it waits for. */
static bool now_upstream(const struct query *q, fm_json_t *report)
{
    const fm_pool_t *pool = fm_state_pool(q->fabric->state);
    const fm_workflow_node_t *node =
        fm_workflow_node(q->run->workflow, q->node);
    fm_buf_t text = {0};
    size_t left = 0;

    for (size_t i = 0; i < node->dep_count; i++) {
        fm_pool_node_t info = {0};
        (void)!fm_pool_node_get(pool, q->run->index, node->deps[i], &info);
        if (info.state == FM_POOL_DONE || info.state == FM_POOL_SKIPPED) {
            continue;
        }
        if (left++ < 8) {
            fm_buf_printf(
                &text, "%s%s (%s)",
                left > 1 ? ", " : "waits for the results of ",
                fm_workflow_node(q->run->workflow, node->deps[i])->name,
                fm_pool_state_name(info.state));
        }
    }
    if (left > 8) {
        fm_buf_printf(&text, " and %zu more", left - 8);
    }
    bool ok = set_now(report, fm_buf_cstr(&text),
                      "explain one of them, to see what it waits for");
    fm_buf_fini(&text);
    return ok;
}

/* Ready to become items, and not made into them. */
static bool now_unexpanded(const struct query *q, fm_json_t *report)
{
    fm_pool_t *pool = fm_state_pool(q->fabric->state);
    fm_pool_workflow_t info = {0};
    fm_error_t why = {0};

    (void)!fm_pool_workflow_get(pool, q->run->index, &info);
    if (fm_tenants_admit(fm_pool_tenants(pool), info.tenant_id, 1, &why) < 0) {
        return set_now(report, why.text,
                       "wait until less of its work is queued, or raise "
                       "tenants.queued in fabric.yaml");
    }
    return set_now(report, "its dependencies are done; its items are made next",
                   "if no process runs this fabric, start the workflow again: "
                   "it goes on where it was");
}

/* One item that hangs on another's work. */
static bool now_follows(const struct query *q, fm_json_t *report,
                        const fm_digest_t *key)
{
    fm_pool_ref_t leader;
    fm_buf_t text = {0};

    if (fm_pool_sharers(fm_state_pool(q->fabric->state), key, &leader, 1) ==
        0) {
        return set_now(report, "waits for the same work elsewhere", NULL);
    }
    const fm_run_t *run = fm_state_run(q->fabric->state, leader.workflow);
    fm_buf_printf(&text, "is the same work as %s/%s/%u and takes its result",
                  run->id, fm_workflow_node(run->workflow, leader.node)->name,
                  leader.item);
    bool ok = set_now(report, fm_buf_cstr(&text), "explain that one");
    fm_buf_fini(&text);
    return ok;
}

static bool now_running(struct query *q, fm_json_t *report,
                        const fm_json_t *wait)
{
    const fm_pool_t *pool = fm_state_pool(q->fabric->state);
    fm_pool_item_t info = {0};

    if (q->item != FM_EXPLAIN_ALL) {
        (void)!fm_pool_item_get(pool, q->run->index, q->node, q->item, &info);
        if (info.state == FM_POOL_ITEM_FOLLOWS) {
            return now_follows(q, report, &info.key);
        }
        if (info.state != FM_POOL_ITEM_READY &&
            info.state != FM_POOL_ITEM_LEASED) {
            return set(report, "now", fm_json_null());
        }
    }
    if (wait) {
        return set_now(report, fm_json_get_str(wait, "why"),
                       fm_json_get_str(wait, "mend"));
    }
    if (q->placed_ns > 0) {
        return set_now(report, "was given to a worker, and has no result yet",
                       "if no process runs this fabric, start the workflow "
                       "again: it goes on where it was");
    }
    return set_now(report, "is ready to be placed",
                   "if no process runs this fabric, start the workflow again: "
                   "it goes on where it was");
}

static bool add_now(struct query *q, fm_json_t *report,
                    const fm_pool_node_t *info, const fm_json_t *wait)
{
    switch (info->state) {
    case FM_POOL_WAITING:
        return now_upstream(q, report);
    case FM_POOL_READY:
        return now_unexpanded(q, report);
    case FM_POOL_RUNNING:
        return now_running(q, report, wait);
    case FM_POOL_FAILED:
        return set_now(report,
                       q->run->errors[q->node]
                           ? q->run->errors[q->node]
                           : fm_pool_reason_name(info->reason),
                       NULL);
    case FM_POOL_DONE:
    case FM_POOL_SKIPPED:
    case FM_POOL_CANCELLED:
        break;
    }
    return set(report, "now", fm_json_null());
}

/* --- the report ----------------------------------------------------------- */

/* Items whose results came from elsewhere, and from where. */
static bool add_shared(const struct query *q, fm_json_t *report)
{
    const fm_pool_t *pool = fm_state_pool(q->fabric->state);
    uint32_t count = q->vector ? q->vector->count : 0;
    uint32_t first = q->item == FM_EXPLAIN_ALL ? 0 : q->item;
    uint32_t end = q->item == FM_EXPLAIN_ALL ? count : first + 1;
    fm_json_t *list = fm_json_array();
    bool ok = list != NULL;

    for (uint32_t i = first;
         ok && i < end && fm_json_len(list) < FM_EXPLAIN_ROWS_MAX; i++) {
        fm_pool_item_t item = {0};
        if (fm_pool_item_get(pool, q->run->index, q->node, i, &item) < 0 ||
            item.state != FM_POOL_ITEM_SHARED) {
            continue;
        }
        fm_json_t *one = fm_json_object();
        ok = append(list, one,
                    one && set(one, "item", fm_json_int(i)) &&
                        set(one, "lease", fm_json_int((int64_t)item.lease)));
    }
    ok = ok && set(report, "shared", fm_json_keep(list));
    fm_json_drop(list);
    return ok;
}

static bool set_head(const struct query *q, fm_json_t *report,
                     const fm_pool_node_t *info)
{
    const fm_workflow_node_t *node =
        fm_workflow_node(q->run->workflow, q->node);

    return set(report, "workflow", fm_json_string(q->run->id)) &&
           set(report, "node", fm_json_string(node->name)) &&
           set(report, "item",
               q->item == FM_EXPLAIN_ALL ? fm_json_null()
                                         : fm_json_int(q->item)) &&
           set(report, "task", fm_json_string(node->task_type)) &&
           set(report, "tenant", fm_json_string(q->tenant)) &&
           set(report, "state",
               fm_json_string(fm_pool_state_name(info->state))) &&
           set(report, "items", fm_json_int(info->items)) &&
           set(report, "ran", fm_json_int(info->ran)) &&
           set(report, "submitted", time_json(q->run->submitted_ns)) &&
           set(report, "ready",
               time_json(q->vector ? q->vector->expanded_ns : 0)) &&
           set(report, "policy", fm_json_string(q->run->policy));
}

fm_status_t fm_explain(fm_fabric_t *fabric, const fm_run_t *run, uint32_t node,
                       uint32_t item, fm_json_t **report_out, fm_error_t *err)
{
    const fm_vector_t *vector = run->vectors[node];
    struct query q = {.fabric = fabric,
                      .run = run,
                      .vector = vector && vector->params ? vector : NULL,
                      .node = node,
                      .item = item,
                      .tenant = fm_workflow_tenant(run->workflow)};
    fm_pool_node_t info = {0};
    fm_json_t *wait = NULL;
    fm_json_t *report = fm_json_object();

    (void)!fm_pool_node_get(fm_state_pool(fabric->state), run->index, node,
                            &info);
    if (item != FM_EXPLAIN_ALL && (!q.vector || item >= q.vector->count)) {
        fm_json_drop(report);
        return fm_error_set(
            err, FM_ERR_NOT_FOUND, "%s/%s has %u items so far, counted from 0",
            run->id, fm_workflow_node(run->workflow, node)->name,
            q.vector ? q.vector->count : 0);
    }
    bool ok = report && set_head(&q, report, &info) &&
              add_placements(&q, report) && add_waits(&q, report, &wait) &&
              add_now(&q, report, &info, wait) && add_shared(&q, report);
    fm_json_drop(wait);
    if (!ok) {
        fm_json_drop(report);
        return fm_no_memory(err);
    }
    *report_out = report;
    return FM_OK;
}

/* --- tenants -------------------------------------------------------------- */

fm_json_t *fm_explain_tenant(const fm_tenants_t *tenants, uint32_t id)
{
    fm_tenant_info_t info;
    fm_json_t *one = fm_json_object();

    if (one && fm_tenants_get(tenants, id, &info) >= 0 &&
        set(one, "tenant", fm_json_string(info.name)) &&
        set(one, "weight",
            fm_json_real(info.config.weight > 0 ? info.config.weight : 1)) &&
        set(one, "devices_max", fm_json_int(info.config.devices_max)) &&
        set(one, "queued_max", fm_json_int((int64_t)info.config.queued_max)) &&
        set(one, "dollars_max", fm_json_real(info.config.dollars_max)) &&
        set(one, "queued", fm_json_int((int64_t)info.queued)) &&
        set(one, "devices", fm_json_real(info.devices_now)) &&
        set(one, "share", fm_json_real(info.share)) &&
        set(one, "device_seconds", fm_json_real(info.device_seconds)) &&
        set(one, "dollars", fm_json_real(info.dollars)) &&
        set(one, "joules", fm_json_real(info.joules)) &&
        set(one, "ran", fm_json_int((int64_t)info.items_ran)) &&
        set(one, "shared", fm_json_int((int64_t)info.items_shared))) {
        return one;
    }
    return fm_json_drop(one);
}

fm_status_t fm_explain_tenants(const fm_fabric_t *fabric, fm_json_t **list_out,
                               fm_error_t *err)
{
    const fm_tenants_t *tenants = fm_pool_tenants(fm_state_pool(fabric->state));
    fm_json_t *list = fm_json_array();

    for (uint32_t i = 0; list && i < fm_tenants_count(tenants); i++) {
        fm_json_t *one = fm_explain_tenant(tenants, i);
        if (!append(list, one, one != NULL)) {
            list = fm_json_drop(list);
        }
    }
    if (!list) {
        return fm_no_memory(err);
    }
    *list_out = list;
    return FM_OK;
}
