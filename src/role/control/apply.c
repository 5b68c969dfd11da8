/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal's records, folded into workflows, vectors, the pool, leases and
 * the cost model: one function a record type.  No I/O; time is an argument.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/key/key.h"
#include "plan/place/place.h"
#include "role/control/decision.h"
#include "role/control/folded.h"
#include "role/control/needs.h"
#include "role/control/work.h"

/* --- SUBMIT --------------------------------------------------------------- */

static fm_status_t pool_submit(fm_state_t *state, const fm_run_t *run,
                               int64_t now_ns, fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    double deadline_s = fm_workflow_deadline_s(run->workflow);
    fm_pool_node_spec_t *nodes = fm_calloc(run->node_count, sizeof(*nodes));

    if (!nodes) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < run->node_count; i++) {
        const fm_workflow_node_t *node = fm_workflow_node(run->workflow, i);
        nodes[i] = (fm_pool_node_spec_t){node->deps, node->dep_count};
    }
    fm_pool_event_t event = {
        .kind = FM_POOL_SUBMIT,
        .submit = {.workflow = run->index,
                   .tenant = fm_workflow_tenant(run->workflow),
                   .priority = fm_workflow_priority(run->workflow),
                   .deadline_ns = deadline_s > 0
                                      ? now_ns + (int64_t)(deadline_s * 1e9)
                                      : 0,
                   .now_ns = now_ns,
                   .nodes = nodes,
                   .node_count = run->node_count}};
    rc = fm_pool_apply(state->pool, &event, err);
    free(nodes);
    return rc;
}

static fm_status_t run_fill(fm_run_t *run, const fm_record_submit_t *record,
                            fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    run->isolation = record->isolation;
    if (!(run->file = fm_span_copy(record->file)) ||
        !(run->policy = record->policy.len > 0 ? fm_span_copy(record->policy)
                                               : fm_strdup("flowmesh")) ||
        !(run->text = fm_span_copy(record->text))) {
        return fm_no_memory(err);
    }
    if ((rc = fm_json_parse(record->files.text, record->files.len, "files",
                            &run->files, err)) < 0 ||
        (rc = fm_workflow_parse(run->text, record->text.len, run->file,
                                &run->workflow, err)) < 0) {
        return rc;
    }
    run->text_digest = fm_run_digest(run->text, record->text.len, run->files);
    run->submitted_ns = record->wall_ns;
    run->node_count = fm_workflow_node_count(run->workflow);
    run->vectors = fm_calloc(run->node_count, sizeof(fm_vector_t *));
    run->errors = fm_calloc(run->node_count, sizeof(char *));
    return run->vectors && run->errors ? FM_OK : fm_no_memory(err);
}

static fm_status_t apply_submit(fm_state_t *state, const uint8_t *bytes,
                                size_t len, int64_t now_ns, fm_error_t *err)
{
    fm_record_submit_t record;
    fm_status_t rc = fm_record_submit_decode(bytes, len, &record, err);

    if (rc < 0) {
        return rc;
    }
    if (record.workflow != state->run_count) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "SUBMIT of workflow %u after %zu others",
                            record.workflow, state->run_count);
    }
    fm_run_t *run = fm_calloc(1, sizeof(*run));
    if (!run) {
        return fm_no_memory(err);
    }
    run->index = record.workflow;
    (void)snprintf(run->id, sizeof(run->id), "w%u", run->index + 1);
    if ((rc = run_fill(run, &record, err)) < 0 ||
        (rc = fm_grow(&state->runs, &state->run_capacity, state->run_count,
                      sizeof(*state->runs), err)) < 0 ||
        (rc = pool_submit(state, run, now_ns, err)) < 0) {
        fm_state_run_destroy(run);
        return rc;
    }
    state->runs[state->run_count++] = run;
    return FM_OK;
}

/* --- EXPAND --------------------------------------------------------------- */

static fm_status_t vector_add(fm_vector_t *vector, fm_span_t items,
                              uint32_t count, fm_error_t *err)
{
    fm_span_t item;

    if (count > FM_POOL_ITEMS_MAX - vector->count) {
        return fm_error_set(err, FM_ERR_CORRUPT, "EXPAND: too many items");
    }
    size_t *offsets =
        fm_realloc(vector->offsets, vector->count + count, sizeof(*offsets));
    if (!offsets) {
        return fm_no_memory(err);
    }
    vector->offsets = offsets;
    for (uint32_t i = 0; i < count; i++) {
        if (!fm_record_item_next(&items, &item)) {
            return fm_error_set(err, FM_ERR_CORRUPT, "EXPAND: torn items");
        }
        vector->offsets[vector->count++] = vector->texts.len;
        fm_buf_add(&vector->texts, item.text, item.len);
        fm_buf_add_u8(&vector->texts, '\0');
    }
    return vector->texts.failed ? fm_no_memory(err) : FM_OK;
}

/* What decides the results of a node's items, but for value. */
static fm_key_parts_t key_parts(const fm_state_t *state,
                                const fm_workflow_node_t *node,
                                const fm_json_t *params)
{
    const fm_key_task_t *task = fm_key_task_find(node->task_type, NULL);

    return (fm_key_parts_t){.task_type = node->task_type,
                            .params = params,
                            .numerics =
                                task && task->numeric ? state->numerics : NULL};
}

fm_status_t fm_state_key_text(const fm_state_t *state, const fm_run_t *run,
                              uint32_t node, uint32_t item, char **text_out,
                              fm_error_t *err)
{
    const fm_vector_t *vector = run->vectors[node];
    const char *value_text = fm_vector_item(vector, item);
    fm_json_t *params = NULL;
    fm_json_t *value = NULL;
    fm_status_t rc = fm_json_parse(vector->params, strlen(vector->params),
                                   "params", &params, err);

    if (rc >= 0) {
        rc = fm_json_parse(value_text, strlen(value_text), "item", &value, err);
    }
    if (rc >= 0) {
        fm_key_parts_t parts =
            key_parts(state, fm_workflow_node(run->workflow, node), params);
        parts.value = value;
        rc = fm_key_action_text(&parts, text_out, err);
    }
    fm_json_drop(params);
    fm_json_drop(value);
    return rc;
}

/* Action keys of all items, and the batch key. */
static fm_status_t vector_keys(const fm_state_t *state,
                               const fm_workflow_node_t *node,
                               const fm_vector_t *vector,
                               const fm_json_t *params, fm_digest_t *keys,
                               fm_digest_t *batch_out, fm_error_t *err)
{
    const fm_key_parts_t parts = key_parts(state, node, params);
    fm_key_maker_t *maker = NULL;
    fm_status_t rc = fm_key_maker_create(&parts, &maker, err);
    for (uint32_t i = 0; rc >= 0 && i < vector->count; i++) {
        const char *text = fm_vector_item(vector, i);
        fm_json_t *value = NULL;
        rc = fm_json_parse(text, strlen(text), "item", &value, err);
        if (rc >= 0) {
            rc = fm_key_maker_action(maker, value, NULL, &keys[i], err);
        }
        fm_json_drop(value);
    }
    if (rc >= 0) {
        *batch_out = fm_key_maker_batch(maker);
    }
    fm_key_maker_destroy(maker);
    return rc;
}

/* Whoever places work is to hear of the batch. */
static fm_status_t batch_changed(fm_state_t *state, size_t index,
                                 fm_error_t *err)
{
    struct batch *batch = &state->batches[index];
    fm_status_t rc = FM_OK;

    if (batch->changed) {
        return FM_OK;
    }
    if ((rc = fm_grow(&state->changed, &state->changed_capacity,
                      state->changed_count, sizeof(*state->changed), err)) >=
        0) {
        state->changed[state->changed_count++] = (uint32_t)index;
        batch->changed = true;
    }
    return rc;
}

/* Nodes of one batch key may ask for different hardware.  It is the same
 * program: the least that anybody asks for will do, and nobody's wish can keep
 * the work of others waiting. */
static bool batch_merge(fm_batch_info_t *old, const fm_batch_info_t *info)
{
    fm_batch_info_t before = *old;

    if (info->item_bytes_max > old->item_bytes_max) {
        old->item_bytes_max = info->item_bytes_max;
    }
    if (info->deadline_ns > old->deadline_ns) {
        old->deadline_ns = info->deadline_ns;
    }
    if (info->memory_bytes < old->memory_bytes) {
        old->memory_bytes = info->memory_bytes;
    }
    if (info->gang < old->gang) {
        old->gang = info->gang;
    }
    if (info->device != old->device) {
        old->device = FM_SCHED_ANY;
    }
    return before.item_bytes_max != old->item_bytes_max ||
           before.memory_bytes != old->memory_bytes ||
           before.gang != old->gang || before.device != old->device;
}

static fm_status_t batch_note(fm_state_t *state, const fm_digest_t *key,
                              const fm_batch_info_t *info, fm_error_t *err)
{
    const uint64_t *known = fm_map_get(state->batch_index, key);
    fm_status_t rc = FM_OK;

    if (known) {
        return batch_merge(&state->batches[*known].info, info)
                   ? batch_changed(state, *known, err)
                   : FM_OK;
    }
    if ((rc = fm_grow(&state->batches, &state->batch_capacity,
                      state->batch_count, sizeof(*state->batches), err)) < 0 ||
        (rc = fm_map_put(state->batch_index, key, state->batch_count, err)) <
            0) {
        return rc;
    }
    state->batches[state->batch_count] =
        (struct batch){.key = *key, .info = *info};
    return batch_changed(state, state->batch_count++, err);
}

/* Keys of a workflow that shares less than content allows (record.h). */
static void keys_isolate(const fm_run_t *run, uint32_t node, fm_digest_t *keys,
                         uint32_t count, fm_digest_t *batch_key)
{
    uint32_t part =
        run->isolation == FM_ISOLATION_WORKFLOW ? FM_PLACE_NONE : node;

    if (run->isolation == FM_ISOLATION_NONE) {
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        keys[i] = fm_place_isolate(&keys[i], run->index, part);
    }
    if (run->isolation == FM_ISOLATION_NODE) {
        *batch_key = fm_place_isolate(batch_key, run->index, node);
    }
}

static fm_status_t vector_expand(fm_state_t *state, const fm_run_t *run,
                                 uint32_t index, fm_vector_t *vector,
                                 const fm_json_t *params,
                                 const fm_json_t *hints, int64_t now_ns,
                                 fm_error_t *err)
{
    const fm_workflow_node_t *node = fm_workflow_node(run->workflow, index);
    fm_digest_t *keys = fm_calloc(vector->count, sizeof(*keys));
    fm_pool_event_t event = {.kind = FM_POOL_EXPAND,
                             .expand = {.workflow = run->index,
                                        .node = index,
                                        .keys = keys,
                                        .count = vector->count,
                                        .now_ns = now_ns}};
    fm_batch_info_t info = {0};
    fm_status_t rc = keys ? FM_OK : fm_no_memory(err);

    if (rc < 0 || (rc = vector_keys(state, node, vector, params, keys,
                                    &event.expand.batch_key, err)) < 0) {
        goto out;
    }
    keys_isolate(run, index, keys, vector->count, &event.expand.batch_key);
    vector->batch_key = event.expand.batch_key;
    vector->item_work = fm_work_describe(state->cost, node->task_type, params,
                                         hints, vector, &info);
    fm_needs_read(hints, &info);
    vector->task_class = info.task_class;
    event.expand.item_work = (float)vector->item_work;
    event.expand.task_class = info.task_class;
    /* quotas refused it before it was journalled, or not at all */
    if ((rc = batch_note(state, &event.expand.batch_key, &info, err)) >= 0) {
        rc = fm_pool_apply(state->pool, &event, err);
    }
out:
    free(keys);
    return rc;
}

static fm_status_t vector_finish(fm_state_t *state, const fm_run_t *run,
                                 const fm_record_expand_t *record,
                                 fm_vector_t *vector, int64_t now_ns,
                                 fm_error_t *err)
{
    fm_json_t *params = NULL;
    fm_json_t *hints = NULL;
    fm_status_t rc = FM_OK;

    vector->expanded_ns = record->wall_ns;
    if (!(vector->params = fm_span_copy(record->params)) ||
        !(vector->hints = fm_span_copy(record->hints))) {
        return fm_no_memory(err);
    }
    if ((rc = fm_json_parse(vector->params, record->params.len, "params",
                            &params, err)) >= 0 &&
        (rc = fm_json_parse(vector->hints, record->hints.len, "hints", &hints,
                            err)) >= 0) {
        rc = vector_expand(state, run, record->node, vector, params, hints,
                           now_ns, err);
    }
    fm_json_drop(params);
    fm_json_drop(hints);
    return rc;
}

static fm_status_t apply_expand(fm_state_t *state, const uint8_t *bytes,
                                size_t len, int64_t now_ns, fm_error_t *err)
{
    fm_record_expand_t record;
    fm_status_t rc = fm_record_expand_decode(bytes, len, &record, err);

    if (rc < 0) {
        return rc;
    }
    fm_run_t *run = fm_state_run(state, record.workflow);
    if (!run || record.node >= run->node_count) {
        return fm_error_set(err, FM_ERR_CORRUPT, "EXPAND of no known node");
    }
    fm_vector_t *vector = run->vectors[record.node];
    if (vector && vector->params) {
        return FM_OK; /* expanded already */
    }
    if (!vector && !(vector = fm_calloc(1, sizeof(*vector)))) {
        return fm_no_memory(err);
    }
    run->vectors[record.node] = vector;
    if (record.first == 0) { /* an earlier attempt was cut off in its parts */
        vector->count = 0;
        fm_buf_clear(&vector->texts);
    }
    if (record.first != vector->count) {
        return fm_error_set(err, FM_ERR_CORRUPT, "EXPAND: a part is missing");
    }
    if ((rc = vector_add(vector, record.items, record.count, err)) < 0 ||
        record.more) {
        return rc;
    }
    return vector_finish(state, run, &record, vector, now_ns, err);
}

/* --- RESULT --------------------------------------------------------------- */

/* Where a lease ran, by what its placement says; loads are learned at once. */
static uint32_t site_of(fm_state_t *state, const fm_record_result_t *record,
                        const char *placement, double *load_s_out)
{
    fm_work_site_t site;
    fm_json_t *json = NULL;
    uint32_t device = state->device_class;

    if (fm_work_site_read(placement, &site, &json)) {
        /* a name or number that is none teaches nothing */
        (void)!fm_cost_device_id(state->cost, site.device_class, &site.spec,
                                 &device, NULL);
        if (site.load_bytes > 0 && site.load_s > 0 &&
            site.load_s <= record->seconds) {
            (void)!fm_cost_learn_load(state->cost, device, site.load_bytes,
                                      site.load_s, NULL);
            *load_s_out = site.load_s;
        }
    }
    fm_json_drop(json);
    return device;
}

/* The lease of that number, made when new. */
static fm_status_t lease_open(fm_state_t *state, uint64_t number,
                              fm_lease_record_t **lease_out, fm_error_t *err)
{
    fm_digest_t key = fm_state_lease_key(number);
    const uint64_t *known = fm_map_get(state->lease_index, &key);
    fm_status_t rc = FM_OK;

    if (known) {
        *lease_out = &state->leases[*known];
        return FM_OK;
    }
    if ((rc = fm_grow(&state->leases, &state->lease_capacity,
                      state->lease_count, sizeof(*state->leases), err)) < 0 ||
        (rc = fm_map_put(state->lease_index, &key, state->lease_count, err)) <
            0) {
        return rc;
    }
    *lease_out = &state->leases[state->lease_count++];
    **lease_out = (fm_lease_record_t){.lease = number};
    return FM_OK;
}

/* @p load_s_out  [out] of the record's seconds, those that went to loading. */
static fm_status_t lease_note(fm_state_t *state,
                              const fm_record_result_t *record,
                              const fm_lease_record_t **lease_out,
                              double *load_s_out, fm_error_t *err)
{
    fm_lease_record_t *lease = NULL;
    fm_status_t rc = lease_open(state, record->lease, &lease, err);

    if (rc < 0) {
        return rc;
    }
    if (!lease->worker) { /* its first result */
        lease->worker = fm_span_copy(record->worker);
        lease->device = fm_span_copy(record->device);
        lease->placement = fm_span_copy(record->placement);
        lease->start_ns = record->start_ns;
        if (!lease->worker || !lease->device || !lease->placement) {
            return fm_no_memory(err);
        }
        lease->device_class =
            site_of(state, record, lease->placement, load_s_out);
    }
    lease->seconds += record->seconds;
    lease->cpu_seconds += record->cpu_seconds;
    lease->joules += record->joules;
    lease->dollars += record->dollars;
    lease->items += record->count;
    *lease_out = lease;
    return FM_OK;
}

static fm_status_t apply_entry(fm_state_t *state,
                               const fm_record_result_t *record,
                               const fm_record_entry_t *entry, bool replayed,
                               int64_t now_ns, fm_error_t *err)
{
    static const fm_pool_outcome_t outcomes[] = {FM_POOL_OK, FM_POOL_TASK_ERROR,
                                                 FM_POOL_INFRA_ERROR};
    fm_pool_event_t event = {.kind = FM_POOL_RESULT,
                             .result = {.lease = record->lease,
                                        .position = entry->position,
                                        .key = entry->key,
                                        .outcome = outcomes[entry->outcome],
                                        .output = entry->output,
                                        .replayed = replayed,
                                        .now_ns = now_ns}};
    bool changes = false;

    if (record->count > 0) { /* a batch's bill, in equal parts */
        event.result.seconds = record->seconds / record->count;
        event.result.dollars = record->dollars / record->count;
        event.result.joules = record->joules / record->count;
    }
    if (entry->outcome != FM_OUTCOME_OK) {
        fm_state_note_error(state, entry->workflow, entry->node,
                            entry->error.text, entry->error.len);
    }
    /* What was journalled twice, or is no longer wanted, changes nothing. */
    if (fm_pool_check(state->pool, &event, &changes, NULL) < 0 || !changes) {
        return FM_OK;
    }
    return fm_pool_apply(state->pool, &event, err);
}

static void learn(fm_state_t *state, const fm_record_result_t *record,
                  const fm_record_entry_t *entry, uint32_t ok_count,
                  uint32_t device_class, double load_s)
{
    const fm_run_t *run = fm_state_run(state, entry->workflow);
    const fm_vector_t *vector =
        run && entry->node < run->node_count ? run->vectors[entry->node] : NULL;

    if (!vector || !vector->params || ok_count == 0 ||
        ok_count != record->count) { /* not whole */
        return;
    }
    /* a refused sample (clock jump, say) teaches nothing */
    (void)!fm_cost_learn(state->cost, vector->task_class, device_class,
                         vector->item_work * ok_count, record->seconds - load_s,
                         NULL);
}

static fm_status_t apply_result(fm_state_t *state, const uint8_t *bytes,
                                size_t len, bool replayed, int64_t now_ns,
                                fm_error_t *err)
{
    fm_record_result_t record;
    fm_record_entry_t entry = {0};
    const fm_lease_record_t *lease = NULL;
    uint32_t ok_count = 0;
    double load_s = 0;
    fm_status_t rc = fm_record_result_decode(bytes, len, &record, err);

    if (rc < 0 || (rc = lease_note(state, &record, &lease, &load_s, err)) < 0) {
        return rc;
    }
    fm_span_t rest = record.entries;
    for (uint32_t i = 0; i < record.count; i++) {
        if (!fm_record_entry_next(&rest, &entry)) {
            return fm_error_set(err, FM_ERR_CORRUPT, "RESULT: torn entry %u",
                                i);
        }
        if ((rc = apply_entry(state, &record, &entry, replayed, now_ns, err)) <
            0) {
            return rc;
        }
        ok_count += entry.outcome == FM_OUTCOME_OK;
    }
    if (ok_count > 0) {
        learn(state, &record, &entry, ok_count, lease->device_class, load_s);
    }
    fm_pool_event_t end = {.kind = FM_POOL_LEASE_END,
                           .lease_end = {.lease = record.lease,
                                         .how = FM_POOL_END_FAULT,
                                         .now_ns = now_ns}};
    fm_pool_lease_info_t info;
    if (record.final && fm_pool_lease_get(state->pool, record.lease, &info)) {
        rc = fm_pool_apply(state->pool, &end, err);
    }
    return rc;
}

/* --- PLACE, WAIT ---------------------------------------------------------- */

static fm_status_t bytes_keep(const uint8_t *bytes, size_t len,
                              uint8_t **copy_out, fm_error_t *err)
{
    uint8_t *copy = fm_malloc(len);

    if (!copy) {
        return fm_no_memory(err);
    }
    memcpy(copy, bytes, len);
    free(*copy_out);
    *copy_out = copy;
    return FM_OK;
}

static fm_status_t apply_place(fm_state_t *state, const uint8_t *bytes,
                               size_t len, fm_error_t *err)
{
    fm_lease_record_t *lease = NULL;
    fm_decision_t head;
    fm_status_t rc = fm_decision_head(bytes, len, &head, err);

    if (rc < 0 || (rc = lease_open(state, head.lease, &lease, err)) < 0 ||
        (rc = bytes_keep(bytes, len, &lease->decision, err)) < 0) {
        return rc;
    }
    lease->decision_len = len;
    return FM_OK;
}

static fm_status_t apply_wait(fm_state_t *state, const uint8_t *bytes,
                              size_t len, fm_error_t *err)
{
    fm_decision_t head;
    fm_status_t rc = fm_decision_head(bytes, len, &head, err);
    const uint64_t *batch =
        rc >= 0 ? fm_map_get(state->batch_index, &head.batch_key) : NULL;

    if (!batch) {
        return rc; /* of nothing that is known: explains nothing */
    }
    if ((rc = fm_grow(&state->waits, &state->wait_capacity, state->wait_count,
                      sizeof(*state->waits), err)) < 0) {
        return rc;
    }
    fm_wait_record_t *wait = &state->waits[state->wait_count];
    *wait = (fm_wait_record_t){.batch = (uint32_t)*batch, .len = len};
    if ((rc = bytes_keep(bytes, len, &wait->bytes, err)) >= 0) {
        state->wait_count++;
    }
    return rc;
}

/* --- the rest ------------------------------------------------------------- */

static fm_status_t apply_pool_event(fm_state_t *state, fm_pool_event_t *event,
                                    fm_error_t *err)
{
    /* Overtaken by another record: the state it asks for is there already. */
    if (fm_pool_check(state->pool, event, NULL, NULL) < 0) {
        return FM_OK;
    }
    return fm_pool_apply(state->pool, event, err);
}

static fm_status_t apply_node(fm_state_t *state, unsigned type,
                              const uint8_t *bytes, size_t len, fm_error_t *err)
{
    fm_record_node_t record;
    fm_pool_event_t event = {0};
    fm_status_t rc = fm_record_node_decode(bytes, len, &record, err);

    if (rc < 0) {
        return rc;
    }
    if (type == FM_RECORD_CANCEL) {
        event.kind = FM_POOL_CANCEL;
        event.cancel.workflow = record.workflow;
    } else {
        event.kind = type == FM_RECORD_SKIP ? FM_POOL_SKIP : FM_POOL_NODE_FAIL;
        event.node.workflow = record.workflow;
        event.node.node = record.node;
    }
    if (type == FM_RECORD_NODE_FAIL) {
        fm_state_note_error(state, record.workflow, record.node,
                            record.text.text, record.text.len);
    }
    return apply_pool_event(state, &event, err);
}

static fm_status_t apply_forget(fm_state_t *state, const uint8_t *bytes,
                                size_t len, int64_t now_ns, fm_error_t *err)
{
    fm_pool_event_t event = {.kind = FM_POOL_FORGET, .forget.now_ns = now_ns};
    fm_status_t rc =
        fm_record_digests_decode(bytes, len, &event.forget.key, 1, err);

    return rc < 0 ? rc : apply_pool_event(state, &event, err);
}

static fm_status_t apply_checkpoint(fm_state_t *state, const uint8_t *bytes,
                                    size_t len, fm_error_t *err)
{
    fm_digest_t pair[2];
    fm_status_t rc = fm_record_digests_decode(bytes, len, pair, 2, err);

    if (rc < 0) {
        return rc;
    }
    const uint64_t *known = fm_map_get(state->checkpoint_index, &pair[0]);
    if (known) {
        state->checkpoints[*known] = pair[1];
        return FM_OK;
    }
    if ((rc = fm_grow(&state->checkpoints, &state->checkpoint_capacity,
                      state->checkpoint_count, sizeof(*state->checkpoints),
                      err)) < 0 ||
        (rc = fm_map_put(state->checkpoint_index, &pair[0],
                         state->checkpoint_count, err)) < 0) {
        return rc;
    }
    state->checkpoints[state->checkpoint_count++] = pair[1];
    return FM_OK;
}

fm_status_t fm_state_apply(fm_state_t *state, unsigned type,
                           const uint8_t *bytes, size_t len, bool replayed,
                           int64_t now_ns, fm_error_t *err)
{
    switch ((fm_record_type_t)type) {
    case FM_RECORD_SUBMIT:
        return apply_submit(state, bytes, len, now_ns, err);
    case FM_RECORD_EXPAND:
        return apply_expand(state, bytes, len, now_ns, err);
    case FM_RECORD_SKIP:
    case FM_RECORD_NODE_FAIL:
    case FM_RECORD_CANCEL:
        return apply_node(state, type, bytes, len, err);
    case FM_RECORD_RESULT:
        return apply_result(state, bytes, len, replayed, now_ns, err);
    case FM_RECORD_FORGET:
        return apply_forget(state, bytes, len, now_ns, err);
    case FM_RECORD_CHECKPOINT:
        return apply_checkpoint(state, bytes, len, err);
    case FM_RECORD_PLACE:
        return apply_place(state, bytes, len, err);
    case FM_RECORD_WAIT:
        return apply_wait(state, bytes, len, err);
    }
    return fm_error_set(err, FM_ERR_CORRUPT,
                        "record of unknown type %u: written by a later "
                        "version? use that one",
                        type);
}
