/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workflows: taken from the source when they arrive, submitted to the pool,
 * expanded node by node as the pool says, dropped when they are finished.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "role/sim/internal.h"

void fm_sim_flow_destroy(struct flow *flow)
{
    if (!flow) {
        return;
    }
    free(flow->stages);
    free(flow->deps);
    free(flow->categories);
    free(flow->nodes);
    free(flow);
}

fm_status_t fm_sim_source_next(struct sim *sim, fm_error_t *err)
{
    const fm_sim_input_t *input = sim->input;
    int64_t before_ns = sim->pending.arrival_ns;
    fm_status_t rc;

    sim->pending = (fm_sim_workflow_t){0};
    sim->more = false;
    if ((rc = input->source(input->source_ctx, &sim->pending, &sim->more,
                            err)) < 0 ||
        !sim->more) {
        return rc;
    }
    if (sim->pending.arrival_ns < before_ns) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "workflow %llu arrives before the one before it",
                            (unsigned long long)sim->metrics.result.submitted);
    }
    return fm_sim_at(sim, sim->pending.arrival_ns, EVENT_ARRIVE, 0, 0, err);
}

static const char *category_of(const fm_sim_stage_t *stage)
{
    static const char *const names[] = {"inference", "forward", "train",
                                        "train-lora", "fixed"};

    return stage->category ? stage->category : names[stage->work];
}

/* --- copy ----------------------------------------------------------------- */

static void dep_add(uint32_t *deps, size_t *count, uint32_t dep)
{
    for (size_t i = 0; i < *count; i++) {
        if (deps[i] == dep) {
            return;
        }
    }
    if (dep != FM_SIM_NONE) {
        deps[(*count)++] = dep;
    }
}

/* What a stage reads it depends on, whether its list says so or not. */
static void deps_copy(fm_sim_stage_t *stage, uint32_t *deps)
{
    size_t count = 0;

    for (size_t d = 0; d < stage->dep_count; d++) {
        dep_add(deps, &count, stage->deps[d]);
    }
    dep_add(deps, &count, stage->model_of);
    dep_add(deps, &count, stage->adapter_of);
    if (stage->form == FM_SIM_ROW_OF) {
        dep_add(deps, &count, stage->source);
    }
    stage->deps = deps;
    stage->dep_count = count;
}

static fm_status_t flow_make(struct sim *sim, const fm_sim_workflow_t *from,
                             struct flow **out, fm_error_t *err)
{
    struct flow *flow = fm_calloc(1, sizeof(*flow));
    size_t count = from->stage_count, deps = 0;
    fm_status_t rc = FM_ERR_NO_MEMORY;

    for (size_t s = 0; s < count; s++) {
        deps += from->stages[s].dep_count + 3;
    }
    if (!flow || !(flow->stages = fm_calloc(count, sizeof(*flow->stages))) ||
        !(flow->deps = fm_calloc(deps, sizeof(*flow->deps))) ||
        !(flow->categories = fm_calloc(count, sizeof(*flow->categories))) ||
        !(flow->nodes = fm_calloc(count, sizeof(*flow->nodes)))) {
        fm_no_memory(err);
        goto out;
    }
    memcpy(flow->stages, from->stages, count * sizeof(*flow->stages));
    flow->count = (uint32_t)count;
    flow->arrival_ns = from->arrival_ns;
    flow->first_ns = -1;
    deps = 0;
    for (size_t s = 0; s < count; s++) {
        size_t room = flow->stages[s].dep_count + 3;

        if ((rc = fm_sim_category(sim, category_of(&flow->stages[s]), false,
                                  &flow->categories[s], err)) < 0) {
            goto out;
        }
        deps_copy(&flow->stages[s], flow->deps + deps);
        deps += room;
        flow->nodes[s].first_ns = -1;
        flow->nodes[s].domain = FM_SCHED_NONE;
    }
    *out = flow;
    flow = NULL;
    rc = FM_OK;
out:
    fm_sim_flow_destroy(flow);
    return rc;
}

/* --- queued successors, for plan/scale -------------------------------------
 */

static fm_status_t queued_add(struct sim *sim, struct flow *flow,
                              uint32_t index, fm_error_t *err)
{
    struct node *node = &flow->nodes[index];
    struct task *task = &sim->tasks[node->task];
    const fm_sim_stage_t *stage = &flow->stages[index];
    fm_status_t rc;
    double ready_s = seconds_of(sim->now_ns);

    for (size_t d = 0; d < stage->dep_count; d++) {
        const struct node *dep = &flow->nodes[stage->deps[d]];
        double end_s =
            dep->likely_ready_s +
            fm_sim_likely_s(sim, dep->task, flow->stages[stage->deps[d]].items);

        ready_s = end_s > ready_s ? end_s : ready_s;
    }
    node->likely_ready_s = ready_s;
    if (!task->listed) {
        if ((rc = fm_grow(&sim->listed, &sim->listed_capacity,
                          sim->listed_count, sizeof(*sim->listed), err)) < 0) {
            return rc;
        }
        sim->listed[sim->listed_count++] = node->task;
        task->listed = true;
    }
    task->queued_nodes++;
    task->queued_items += stage->items;
    task->queued_ready_s += ready_s;
    return FM_OK;
}

/* A node ended, or its workflow. */
static void node_close(struct sim *sim, struct flow *flow, uint32_t index)
{
    struct node *node = &flow->nodes[index];

    if (node->expanded && !node->closed) {
        sim->tasks[node->task].open_nodes--;
    }
    node->closed = true;
}

static void queued_remove(struct sim *sim, const struct flow *flow,
                          uint32_t index)
{
    const struct node *node = &flow->nodes[index];
    struct task *task = &sim->tasks[node->task];

    if (sim->elastic && !node->expanded) {
        task->queued_nodes--;
        task->queued_items -= flow->stages[index].items;
        task->queued_ready_s -= node->likely_ready_s;
    }
}

/* --- arrival ---------------------------------------------------------------
 */

static fm_status_t nodes_make(struct sim *sim, struct flow *flow,
                              uint32_t workflow, uint64_t *memory_out,
                              fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (uint32_t n = 0; n < flow->count && rc == FM_OK; n++) {
        fm_sim_node_identify(sim, flow, workflow, n);
        rc = fm_sim_task_of(sim, flow, workflow, n, &flow->nodes[n].task, err);
        if (rc == FM_OK &&
            sim->tasks[flow->nodes[n].task].memory_bytes > *memory_out) {
            *memory_out = sim->tasks[flow->nodes[n].task].memory_bytes;
        }
    }
    return rc;
}

static fm_status_t submit(struct sim *sim, const struct flow *flow,
                          uint32_t workflow, fm_error_t *err)
{
    const fm_sim_workflow_t *from = &sim->pending;
    fm_pool_node_spec_t *specs = fm_calloc(flow->count, sizeof(*specs));
    uint64_t items = 0;
    fm_status_t rc;

    if (!specs) {
        return fm_no_memory(err);
    }
    for (uint32_t n = 0; n < flow->count; n++) {
        specs[n] = (fm_pool_node_spec_t){flow->stages[n].deps,
                                         flow->stages[n].dep_count};
        items += flow->stages[n].items;
    }
    rc = fm_sim_event(
        sim,
        &(fm_pool_event_t){.kind = FM_POOL_SUBMIT,
                           .submit = {.workflow = workflow,
                                      .tenant = from->tenant,
                                      .priority = from->priority,
                                      .items = items,
                                      .deadline_ns = from->deadline_ns,
                                      .now_ns = sim->now_ns,
                                      .nodes = specs,
                                      .node_count = flow->count}},
        err);
    free(specs);
    return rc;
}

/* @p refused_out: its tenant's queue is full. */
static fm_status_t enter(struct sim *sim, struct flow *flow, bool *refused_out,
                         fm_error_t *err)
{
    uint32_t workflow = fm_pool_workflow_count(sim->pool);
    uint64_t memory = 0;
    fm_status_t rc;

    if ((rc = fm_grow((void *)&sim->flows, &sim->flow_capacity, sim->flow_count,
                      sizeof(struct flow *), err)) < 0 ||
        (rc = nodes_make(sim, flow, workflow, &memory, err)) < 0 ||
        (rc = fm_place_workflow_put(sim->place, workflow, memory, err)) < 0) {
        return rc;
    }
    rc = submit(sim, flow, workflow, err);
    *refused_out = rc == FM_ERR_LIMIT;
    if (rc < 0) {
        return *refused_out ? FM_OK : rc;
    }
    sim->flows[sim->flow_count++] = flow;
    sim->live++;
    return FM_OK;
}

/* The pending workflow as a flow, its tenant counted. */
static fm_status_t pending_take(struct sim *sim, struct flow **out,
                                fm_error_t *err)
{
    const fm_sim_workflow_t *from = &sim->pending;
    const char *mix = from->category ? from->category : "workflow";
    uint32_t tenant, category;
    fm_status_t rc;

    if ((rc = fm_sim_check_workflow(sim, from, err)) < 0 ||
        (rc = fm_tenants_id(sim->tenants, from->tenant, &tenant, err)) < 0 ||
        (rc = fm_sim_tenant_grow(sim, tenant, err)) < 0 ||
        (rc = fm_sim_category(sim, mix, true, &category, err)) < 0 ||
        (rc = flow_make(sim, from, out, err)) < 0) {
        return rc;
    }
    (*out)->tenant = tenant;
    (*out)->category = category;
    if (sim->metrics.result.submitted++ == 0) {
        sim->first_arrival_ns = from->arrival_ns;
    }
    sim->metrics.tenants[tenant].submitted++;
    return FM_OK;
}

fm_status_t fm_sim_arrive(struct sim *sim, fm_error_t *err)
{
    struct flow *flow = NULL;
    bool refused = false;
    fm_status_t rc;

    if ((rc = pending_take(sim, &flow, err)) < 0) {
        return rc;
    }
    if ((rc = enter(sim, flow, &refused, err)) < 0) {
        fm_sim_flow_destroy(flow);
        return rc;
    }
    if (refused) {
        sim->metrics.result.refused++;
        rc = fm_sim_tenant_done(sim, flow->tenant, 0, true, err);
        fm_sim_flow_destroy(flow);
    }
    for (uint32_t n = 0;
         !refused && sim->elastic && rc == FM_OK && n < flow->count; n++) {
        rc = queued_add(sim, flow, n, err);
    }
    return rc < 0 ? rc : fm_sim_source_next(sim, err);
}

/* --- notices ---------------------------------------------------------------
 */

static fm_status_t expand(struct sim *sim, struct flow *flow, uint32_t workflow,
                          uint32_t index, fm_error_t *err)
{
    struct node *node = &flow->nodes[index];
    const fm_sim_stage_t *stage = &flow->stages[index];
    struct task *task = &sim->tasks[node->task];
    const struct shape *shape = &sim->shapes[task->shape];
    fm_status_t rc;

    if (stage->items > sim->key_capacity) {
        fm_digest_t *keys =
            fm_realloc(sim->keys, stage->items, sizeof(*sim->keys));

        if (!keys) {
            return fm_no_memory(err);
        }
        sim->keys = keys;
        sim->key_capacity = stage->items;
    }
    for (uint32_t i = 0; i < stage->items; i++) {
        sim->keys[i] = fm_sim_item_key(flow, index, i);
    }
    if (task->input_bytes > 0 && stage->dep_count > 0) {
        task->input_domain = flow->nodes[stage->deps[0]].domain;
        if ((rc = fm_sim_task_place(sim, task, err)) < 0) {
            return rc;
        }
    }
    queued_remove(sim, flow, index);
    node->expanded = true;
    node->ready_ns = sim->now_ns;
    task->open_nodes++;
    return fm_sim_event(
        sim,
        &(fm_pool_event_t){.kind = FM_POOL_EXPAND,
                           .expand = {.workflow = workflow,
                                      .node = index,
                                      .batch_key = task->key,
                                      .task_class = shape->task_class,
                                      .item_work = (float)shape->item_work,
                                      .keys = sim->keys,
                                      .count = stage->items,
                                      .now_ns = sim->now_ns}},
        err);
}

static fm_status_t node_ready(struct sim *sim, uint32_t workflow, uint32_t node,
                              fm_error_t *err)
{
    struct flow *flow = sim->flows[workflow];
    fm_error_t refusal = {0};
    fm_status_t rc;

    if (!flow || flow->nodes[node].expanded) {
        return FM_OK;
    }
    rc = expand(sim, flow, workflow, node, &refusal);
    if (rc == FM_ERR_LIMIT) {
        return fm_sim_event(
            sim,
            &(fm_pool_event_t){.kind = FM_POOL_NODE_FAIL,
                               .node = {.workflow = workflow, .node = node}},
            err);
    }
    if (rc < 0 && err) {
        *err = refusal;
    }
    return rc;
}

static fm_status_t node_done(struct sim *sim, uint32_t workflow, uint32_t index,
                             fm_error_t *err)
{
    struct flow *flow = sim->flows[workflow];

    if (!flow) {
        return FM_OK;
    }
    const struct node *node = &flow->nodes[index];
    node_close(sim, flow, index);
    return fm_sim_latency_add(sim, flow->categories[index], node->ready_ns,
                              node->first_ns, sim->now_ns, err);
}

static fm_status_t flow_done(struct sim *sim, uint32_t workflow, bool failed,
                             fm_error_t *err)
{
    struct flow *flow = sim->flows[workflow];
    fm_status_t rc = FM_OK;

    if (!flow) {
        return FM_OK;
    }
    for (uint32_t n = 0; n < flow->count; n++) {
        queued_remove(sim, flow, n);
        node_close(sim, flow, n);
    }
    fm_sim_mark(sim, failed, workflow, flow->count);
    if (!failed) {
        rc = fm_sim_latency_add(sim, flow->category, flow->arrival_ns,
                                flow->first_ns, sim->now_ns, err);
    }
    if (rc == FM_OK) {
        rc = fm_sim_tenant_done(sim, flow->tenant,
                                seconds_of(sim->now_ns - flow->arrival_ns),
                                failed, err);
    }
    sim->last_end_ns = sim->now_ns;
    sim->live--;
    fm_sim_flow_destroy(flow);
    sim->flows[workflow] = NULL;
    return rc;
}

fm_status_t fm_sim_notices(struct sim *sim, fm_error_t *err)
{
    fm_pool_notice_t notice;
    fm_status_t rc = FM_OK;

    while (rc == FM_OK && fm_pool_next_notice(sim->pool, &notice)) {
        switch (notice.kind) {
        case FM_POOL_NODE_READY:
            rc = node_ready(sim, notice.workflow, notice.node, err);
            break;
        case FM_POOL_NODE_DONE:
            rc = node_done(sim, notice.workflow, notice.node, err);
            break;
        case FM_POOL_NODE_FAILED:
            break;
        case FM_POOL_WORKFLOW_DONE:
        case FM_POOL_WORKFLOW_FAILED:
        case FM_POOL_WORKFLOW_CANCELLED:
            rc = flow_done(sim, notice.workflow,
                           notice.kind != FM_POOL_WORKFLOW_DONE, err);
            break;
        case FM_POOL_LEASE_MOOT:
            if (sim->workers[notice.worker].lease.id == notice.lease) {
                rc = fm_sim_cut(sim, notice.worker, FM_POOL_END_DRAINED, false,
                                err);
            }
            break;
        }
    }
    return rc;
}
