/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a node whose dependencies are done to its items.
 *
 * The workflow module is pure: it asks for upstream results by callback.  One
 * that is not in memory is noted and loaded on the storage thread, then the
 * node is tried again; so exactly what is read is loaded.  An output that the
 * store cannot produce is forgotten and runs again.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "role/control/internal.h"

/* Marks: a node is expanded once, and loaded and queued once at a time. */
enum mark { MARK_RESULT, MARK_STAGED, MARK_LOADING, MARK_QUEUED };

static fm_digest_t node_as_digest(uint32_t run, uint32_t node, enum mark mark)
{
    fm_digest_t digest = {{0}};

    memcpy(digest.bytes, &node, sizeof(node));
    memcpy(digest.bytes + 4, &run, sizeof(run));
    digest.bytes[8] = (uint8_t)mark;
    return digest;
}

/* True when the mark is new. */
static bool mark_set(fm_control_t *control, uint32_t run, uint32_t node,
                     enum mark mark)
{
    fm_digest_t key = node_as_digest(run, node, mark);
    fm_error_t err = {0};

    if (fm_map_get(control->marks, &key)) {
        return false;
    }
    if (fm_map_put(control->marks, &key, 1, &err) < 0) {
        fm_control_fatal(control, &err);
        return false;
    }
    return true;
}

void fm_control_expand_later(fm_control_t *control, uint32_t run, uint32_t node)
{
    fm_error_t err = {0};

    if (!mark_set(control, run, node, MARK_QUEUED)) {
        return;
    }
    if (fm_grow(&control->expansions, &control->expansion_capacity,
                control->expansion_count, sizeof(*control->expansions),
                &err) < 0) {
        fm_control_fatal(control, &err);
        return;
    }
    control->expansions[control->expansion_count++] =
        (struct expansion){run, node};
}

void fm_control_expand_scan(fm_control_t *control)
{
    const fm_state_t *state = control->fabric->state;

    for (uint32_t i = 0; i < fm_state_run_count(state); i++) {
        const fm_run_t *run = fm_state_run(state, i);
        fm_pool_workflow_t info;
        if (fm_pool_workflow_get(control->pool, i, &info) < 0 ||
            info.state != FM_POOL_RUNNING) {
            continue;
        }
        for (uint32_t node = 0; node < run->node_count; node++) {
            fm_pool_node_t state_of;
            if (fm_pool_node_get(control->pool, i, node, &state_of) >= 0 &&
                state_of.state == FM_POOL_READY) {
                fm_control_expand_later(control, i, node);
            }
        }
    }
}

/* Nodes that wait for results to be loaded: try all of them again. */
static void wake_waiting(fm_control_t *control)
{
    size_t count = control->waiting_count;

    control->waiting_count = 0;
    for (size_t i = 0; i < count; i++) {
        fm_control_expand_later(control, control->waiting[i].run,
                                control->waiting[i].node);
    }
}

static void wait_for_load(fm_control_t *control, uint32_t run, uint32_t node)
{
    fm_error_t err = {0};

    if (fm_grow(&control->waiting, &control->waiting_capacity,
                control->waiting_count, sizeof(*control->waiting), &err) < 0) {
        fm_control_fatal(control, &err);
        return;
    }
    control->waiting[control->waiting_count++] = (struct expansion){run, node};
}

/* --- results of upstream nodes -------------------------------------------- */

static struct node_result *result_get(const fm_control_t *control, uint32_t run,
                                      uint32_t node)
{
    fm_digest_t key = node_as_digest(run, node, MARK_RESULT);
    const uint64_t *index = fm_map_get(control->results, &key);

    return index ? &control->result_list[*index] : NULL;
}

/* Takes value and error, one of which is NULL. */
static fm_status_t result_put(fm_control_t *control, uint32_t run,
                              uint32_t node, fm_json_t *value, char *error,
                              fm_error_t *err)
{
    fm_digest_t key = node_as_digest(run, node, MARK_RESULT);
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!value && !error) {
        return fm_no_memory(err);
    }
    rc = fm_grow(&control->result_list, &control->result_capacity,
                 control->result_count, sizeof(*control->result_list), err);
    if (rc >= 0) {
        rc = fm_map_put(control->results, &key, control->result_count, err);
    }
    if (rc < 0) {
        fm_json_drop(value);
        free(error);
        return rc;
    }
    control->result_list[control->result_count++] =
        (struct node_result){value, error};
    return FM_OK;
}

static void result_drop(fm_control_t *control, uint32_t run, uint32_t node)
{
    fm_digest_t key = node_as_digest(run, node, MARK_RESULT);
    struct node_result *result = result_get(control, run, node);

    if (result) {
        /* the slot stays, empty: later indices must not move */
        result->value = fm_json_drop(result->value);
        free(result->error);
        result->error = NULL;
        (void)fm_map_remove(control->results, &key);
    }
}

void fm_control_results_drop(fm_control_t *control, uint32_t run)
{
    const fm_run_t *state = fm_state_run(control->fabric->state, run);

    for (uint32_t node = 0; node < state->node_count; node++) {
        result_drop(control, run, node);
    }
    if (run < control->reader_runs) {
        free(control->readers[run]);
        control->readers[run] = NULL;
    }
}

/* --- results that nobody will read again ---------------------------------- */

static bool is_expanded(const fm_control_t *control, const fm_run_t *run,
                        uint32_t node)
{
    fm_pool_node_t info;

    return (run->vectors[node] && run->vectors[node]->params) ||
           fm_pool_node_get(control->pool, run->index, node, &info) < 0 ||
           info.state == FM_POOL_SKIPPED || info.state == FM_POOL_FAILED;
}

/* By node, how many nodes that are not expanded yet depend on it; counted when
 * the run's first node of this life is expanded.  NULL: memory is out. */
static uint32_t *readers_of(fm_control_t *control, const fm_run_t *run)
{
    size_t runs = (size_t)run->index + 1;
    uint32_t *left = NULL;

    if (runs > control->reader_runs) {
        uint32_t **grown =
            fm_realloc((void *)control->readers, runs, sizeof(*grown));
        if (!grown) {
            return NULL;
        }
        memset((void *)(grown + control->reader_runs), 0,
               (runs - control->reader_runs) * sizeof(*grown));
        control->readers = grown;
        control->reader_runs = runs;
    }
    if (control->readers[run->index]) {
        return control->readers[run->index];
    }
    if (!(left = fm_calloc(run->node_count, sizeof(*left)))) {
        return NULL;
    }
    for (uint32_t i = 0; i < run->node_count; i++) {
        const fm_workflow_node_t *node = fm_workflow_node(run->workflow, i);
        bool reads = !is_expanded(control, run, i);
        for (size_t k = 0; reads && k < node->dep_count; k++) {
            left[node->deps[k]]++;
        }
    }
    control->readers[run->index] = left;
    return left;
}

/* A node reads no more: its dependencies' results may go.  A chain of hundreds
 * of iterations would otherwise keep every rollout in memory.  Without memory
 * to count in, they stay until the run ends. */
static void readers_note(fm_control_t *control, uint32_t run, uint32_t node)
{
    const fm_run_t *state = fm_state_run(control->fabric->state, run);
    const fm_workflow_node_t *info = fm_workflow_node(state->workflow, node);
    uint32_t *left = readers_of(control, state);

    for (size_t k = 0; left && k < info->dep_count; k++) {
        uint32_t dep = info->deps[k];
        if (left[dep] > 0 && --left[dep] == 0) {
            result_drop(control, run, dep);
        }
    }
}

/* Load the outputs of one node on the storage thread. */
struct load {
    fm_control_t *control;
    uint32_t run;
    uint32_t node;
    uint32_t count;
    fm_digest_t *keys;    /* [count] */
    fm_digest_t *outputs; /* [count] */
    fm_json_t **values;   /* [count], filled by the storage thread */
    bool *lost;           /* [count] */
    uint32_t lost_count;
};

static void load_destroy(struct load *load)
{
    for (uint32_t i = 0; load->values && i < load->count; i++) {
        fm_json_drop(load->values[i]);
    }
    free(load->keys);
    free(load->outputs);
    free(load->values);
    free(load->lost);
    free(load);
}

static fm_status_t load_work(void *ctx, fm_error_t *err)
{
    struct load *load = ctx;
    fm_buf_t buf = {0};
    fm_status_t rc = FM_OK;

    for (uint32_t i = 0; rc >= 0 && i < load->count; i++) {
        fm_buf_clear(&buf);
        rc = fm_cas_get(load->control->fabric->cas, &load->outputs[i], &buf,
                        err);
        if (rc == FM_ERR_NOT_FOUND || rc == FM_ERR_CORRUPT) {
            load->lost[i] = true;
            load->lost_count++;
            rc = FM_OK;
        } else if (rc >= 0) {
            rc = fm_json_parse((const char *)buf.data, buf.len, "output",
                               &load->values[i], err);
        }
    }
    fm_buf_fini(&buf);
    return rc;
}

static fm_status_t load_finish(struct load *load, fm_error_t *err)
{
    fm_control_t *control = load->control;
    const fm_run_t *run = fm_state_run(control->fabric->state, load->run);
    fm_json_t *records = fm_vector_records(run->vectors[load->node]);
    fm_json_t *result = NULL;
    fm_status_t rc = fm_workflow_result(run->workflow, load->node, records,
                                        (const fm_json_t *const *)load->values,
                                        load->count, &result, err);

    fm_json_drop(records);
    if (rc >= 0) {
        return result_put(control, load->run, load->node, result, NULL, err);
    }
    /* outputs of the wrong shape: whoever reads them fails, with this text */
    return result_put(control, load->run, load->node, NULL,
                      fm_strdup(err->text), err);
}

void fm_control_node_fail(fm_control_t *control, uint32_t run, uint32_t node,
                          const char *text)
{
    fm_record_node_t record = {run, node, {text, strlen(text)}};
    fm_buf_t buf = {0};

    fm_record_node_encode(&record, &buf);
    fm_control_record(control, FM_RECORD_NODE_FAIL, buf.data, buf.len);
    fm_buf_fini(&buf);
}

static void load_done(void *ctx, fm_status_t status, const fm_error_t *cause)
{
    struct load *load = ctx;
    fm_control_t *control = load->control;
    fm_error_t err = *cause;

    fm_digest_t mark = node_as_digest(load->run, load->node, MARK_LOADING);
    (void)fm_map_remove(control->marks, &mark);
    for (uint32_t i = 0; i < load->count; i++) {
        if (load->lost[i]) {
            fm_control_record(control, FM_RECORD_FORGET, load->keys[i].bytes,
                              sizeof(load->keys[i].bytes));
        }
    }
    if (load->lost_count == 0) {
        if (status >= 0) {
            status = load_finish(load, &err);
        }
        if (status < 0) {
            fm_control_fatal(control, &err);
        }
    }
    wake_waiting(control);
    load_destroy(load);
}

static fm_status_t load_start(fm_control_t *control, uint32_t run,
                              uint32_t node, fm_error_t *err)
{
    const fm_vector_t *vector =
        fm_state_run(control->fabric->state, run)->vectors[node];
    struct load *load = NULL;

    if (!mark_set(control, run, node, MARK_LOADING)) {
        return FM_OK; /* on its way */
    }
    if (!(load = fm_calloc(1, sizeof(*load)))) {
        return fm_no_memory(err);
    }
    *load = (struct load){
        .control = control, .run = run, .node = node, .count = vector->count};
    load->keys = fm_calloc(load->count, sizeof(*load->keys));
    load->outputs = fm_calloc(load->count, sizeof(*load->outputs));
    load->values = fm_calloc(load->count, sizeof(fm_json_t *));
    load->lost = fm_calloc(load->count, sizeof(*load->lost));
    if (!load->keys || !load->outputs || !load->values || !load->lost) {
        load_destroy(load);
        return fm_no_memory(err);
    }
    for (uint32_t i = 0; i < load->count; i++) {
        fm_pool_item_t item;
        fm_status_t rc = fm_pool_item_get(control->pool, run, node, i, &item);
        if (rc < 0 || !item.has_output) {
            fm_digest_t mark = node_as_digest(run, node, MARK_LOADING);
            (void)fm_map_remove(control->marks, &mark);
            load_destroy(load);
            return FM_OK; /* reopened meanwhile: it will be done again */
        }
        load->keys[i] = item.key;
        load->outputs[i] = item.output;
    }
    fm_control_offload(control, load_work, load_done, load);
    return FM_OK;
}

/* --- queue quotas --------------------------------------------------------- */

/* Of one flush: deferred nodes that are looked at again. */
#define RETRY_MAX 256u

static uint32_t tenant_of(const fm_control_t *control, uint32_t run)
{
    fm_pool_workflow_t info = {0};

    (void)!fm_pool_workflow_get(control->pool, run, &info);
    return info.tenant_id;
}

static uint64_t staged_of(const fm_control_t *control, uint32_t tenant)
{
    return tenant < control->staged_tenants ? control->staged[tenant] : 0;
}

static fm_status_t staged_add(fm_control_t *control, uint32_t tenant,
                              size_t count, fm_error_t *err)
{
    size_t need = (size_t)tenant + 1;

    if (need > control->staged_tenants) {
        uint64_t *grown =
            fm_realloc(control->staged, need, sizeof(*control->staged));
        if (!grown) {
            return fm_no_memory(err);
        }
        memset(grown + control->staged_tenants, 0,
               (need - control->staged_tenants) * sizeof(*grown));
        control->staged = grown;
        control->staged_tenants = need;
    }
    control->staged[tenant] += count;
    return FM_OK;
}

void fm_control_staged_end(fm_control_t *control, uint32_t run, size_t count)
{
    uint32_t tenant = tenant_of(control, run);
    uint64_t staged = staged_of(control, tenant);

    if (staged > 0) {
        control->staged[tenant] -= count < staged ? count : staged;
    }
}

static bool admitted(const fm_control_t *control, uint32_t tenant, size_t count,
                     fm_error_t *err)
{
    return fm_tenants_admit(fm_pool_tenants(control->pool), tenant,
                            count + staged_of(control, tenant), err) >= 0;
}

enum admission { ADMITTED, DEFERRED, REFUSED };

/* Whether @p count items of a node may be queued: now, once others of the
 * tenant have settled, or never. */
static enum admission admit(fm_control_t *control, uint32_t run, uint32_t node,
                            size_t count, fm_error_t *err)
{
    uint32_t tenant = tenant_of(control, run);
    fm_tenant_info_t info = {0};

    (void)!fm_tenants_get(fm_pool_tenants(control->pool), tenant, &info);
    if (admitted(control, tenant, count, err)) {
        if (staged_add(control, tenant, count, err) < 0) {
            fm_control_fatal(control, err);
        }
        return ADMITTED;
    }
    if (count > info.config.queued_max) {
        (void)fm_error_set(err, FM_ERR_LIMIT,
                           "its %zu items are more than tenant %s may have "
                           "queued at once, %llu (queued_max): split the node, "
                           "or raise the quota",
                           count, info.name,
                           (unsigned long long)info.config.queued_max);
        return REFUSED;
    }
    if (fm_grow(&control->deferred, &control->deferred_capacity,
                control->deferred_count, sizeof(*control->deferred), err) < 0) {
        fm_control_fatal(control, err);
        return DEFERRED;
    }
    control->deferred[control->deferred_count++] =
        (struct deferred){run, node, tenant, count};
    return DEFERRED;
}

void fm_control_deferred_retry(fm_control_t *control, bool all)
{
    size_t seen = control->deferred_count;
    size_t kept = 0;

    if (!all && seen > RETRY_MAX) {
        seen = RETRY_MAX;
    }
    for (size_t i = 0; i < seen; i++) {
        struct deferred *one = &control->deferred[i];
        if (admitted(control, one->tenant, one->count, NULL)) {
            fm_control_expand_later(control, one->run, one->node);
        } else {
            control->deferred[kept++] = *one;
        }
    }
    if (kept < seen) {
        memmove(control->deferred + kept, control->deferred + seen,
                (control->deferred_count - seen) * sizeof(*control->deferred));
        control->deferred_count -= seen - kept;
    }
}

/* --- one node ------------------------------------------------------------- */

#define MISSING_MAX 64u /* loaded a round; more take more rounds */

struct attempt {
    fm_control_t *control;
    uint32_t run;
    uint32_t missing[MISSING_MAX];
    size_t missing_count;
    const char *error; /* of a result that was read; borrowed */
};

static const fm_json_t *upstream(void *ctx, uint32_t node)
{
    struct attempt *attempt = ctx;
    fm_control_t *control = attempt->control;
    const struct node_result *known = result_get(control, attempt->run, node);
    fm_pool_node_t info;

    if (!known &&
        fm_pool_node_get(control->pool, attempt->run, node, &info) >= 0 &&
        info.state == FM_POOL_SKIPPED) {
        (void)!result_put(control, attempt->run, node,
                          fm_workflow_result_skipped(), NULL, NULL);
        known = result_get(control, attempt->run, node);
    }
    if (known) {
        attempt->error = known->error ? known->error : attempt->error;
        return known->value;
    }
    for (size_t i = 0; i < attempt->missing_count; i++) {
        if (attempt->missing[i] == node) {
            return NULL;
        }
    }
    if (attempt->missing_count < MISSING_MAX) {
        attempt->missing[attempt->missing_count++] = node;
    }
    return NULL;
}

static fm_status_t evaluate(struct attempt *attempt, uint32_t node,
                            bool *met_out, fm_workflow_work_t *work,
                            fm_error_t *err)
{
    const fm_run_t *run =
        fm_state_run(attempt->control->fabric->state, attempt->run);
    fm_status_t rc = fm_workflow_condition(run->workflow, node, upstream,
                                           attempt, met_out, err);

    if (rc < 0 || !*met_out || attempt->missing_count > 0) {
        return rc;
    }
    return fm_workflow_expand(run->workflow, node, run->files, upstream,
                              attempt, work, err);
}

static void expand_one(fm_control_t *control, uint32_t run, uint32_t node)
{
    struct attempt attempt = {.control = control, .run = run};
    fm_workflow_work_t work = {0};
    fm_pool_node_t info;
    fm_error_t err = {0};
    bool met = false;

    fm_digest_t staged = node_as_digest(run, node, MARK_STAGED);
    if (fm_map_get(control->marks, &staged) ||
        fm_pool_node_get(control->pool, run, node, &info) < 0 ||
        info.state != FM_POOL_READY) {
        return; /* cancelled, or expanded already */
    }
    fm_status_t rc = evaluate(&attempt, node, &met, &work, &err);
    if (attempt.missing_count > 0 && !attempt.error) {
        wait_for_load(control, run, node);
        for (size_t i = 0; i < attempt.missing_count; i++) {
            if (load_start(control, run, attempt.missing[i], &err) < 0) {
                fm_control_fatal(control, &err);
            }
        }
        goto out;
    }
    if (rc >= 0 && met) {
        size_t count = fm_json_len(work.items);
        enum admission admission = admit(control, run, node, count, &err);
        if (admission == DEFERRED) {
            goto out;
        }
        rc = admission == REFUSED ? err.status : rc;
    }
    if (!mark_set(control, run, node, MARK_STAGED)) {
        goto out;
    }
    if (rc < 0) {
        fm_control_node_fail(control, run, node,
                             attempt.error ? attempt.error : err.text);
    } else if (!met) {
        fm_record_node_t record = {run, node, {"", 0}};
        fm_buf_t buf = {0};
        fm_record_node_encode(&record, &buf);
        fm_control_record(control, FM_RECORD_SKIP, buf.data, buf.len);
        fm_buf_fini(&buf);
    } else if (fm_control_stage(control, run, node, &work, &err) < 0) {
        fm_control_node_fail(control, run, node, err.text);
    }
    readers_note(control, run, node);
out:
    fm_workflow_work_fini(&work);
}

size_t fm_control_expand_all(fm_control_t *control)
{
    size_t count = control->expansion_count;
    struct expansion *list = control->expansions;

    if (count == 0 || control->closing) {
        return 0;
    }
    /* expansions may queue more: work on a list of our own */
    control->expansions = NULL;
    control->expansion_count = control->expansion_capacity = 0;
    for (size_t i = 0; i < count; i++) {
        fm_digest_t queued =
            node_as_digest(list[i].run, list[i].node, MARK_QUEUED);
        (void)fm_map_remove(control->marks, &queued);
        expand_one(control, list[i].run, list[i].node);
    }
    free(list);
    return count;
}
