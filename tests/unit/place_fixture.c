/* SPDX-License-Identifier: Apache-2.0 */
#include "place_fixture.h"

#include <stdlib.h>
#include <string.h>

#include "fmtest.h"

static fm_digest_t number(const char *what, uint32_t a, uint32_t b)
{
    uint32_t text[3] = {(uint32_t)what[0], a, b};

    return fm_sha256(text, sizeof(text));
}

static fm_status_t apply(fix_t *fix, const fm_pool_event_t *event)
{
    fm_error_t err = {0};
    fm_status_t rc = fm_pool_check(fix->pool, event, NULL, &err);

    if (rc >= 0) {
        rc = fm_pool_apply(fix->pool, event, &err);
    }
    if (rc < 0) {
        (void)fprintf(stderr, "event %d: %s\n", (int)event->kind, err.text);
    }
    return rc;
}

void fix_open(fix_t *fix, fm_place_policy_t policy)
{
    static const fm_cost_device_t fast = {.flops_per_s = 1e9};
    static const fm_cost_device_t slow = {.flops_per_s = 0.25e9};
    static const fm_cost_task_t task = {.flops_per_unit = 1e9};
    fm_place_options_t opts = {.policy = policy};
    fm_pool_options_t pool = {.max_attempts = 200, .max_infra = 60000};
    fm_error_t err = {0};

    *fix = (fix_t){.policy = policy, .now_ns = FIX_S};
    fix->pool = fm_pool_create(&pool);
    fix->cost = fm_cost_create();
    CU_ASSERT_FATAL(fix->pool && fix->cost);
    FM_ASSERT_OK(fm_cost_device_id(fix->cost, "slow", &slow, &fix->slow, &err),
                 &err);
    FM_ASSERT_OK(fm_cost_device_id(fix->cost, "fast", &fast, &fix->fast, &err),
                 &err);
    FM_ASSERT_OK(fm_cost_task_id(fix->cost, "task", &task, &fix->class, &err),
                 &err);
    FM_ASSERT_OK(
        fm_place_create(&opts, fix->pool, fix->cost, &fix->place, &err), &err);
}

void fix_close(fix_t *fix)
{
    fm_place_destroy(fix->place);
    fm_cost_destroy(fix->cost);
    fm_pool_destroy(fix->pool);
}

fm_sched_worker_t fix_worker(uint32_t id, uint64_t memory_bytes)
{
    return (fm_sched_worker_t){.id = id,
                               .device = FM_SCHED_GPU,
                               .task_types = UINT64_MAX,
                               .memory_bytes = memory_bytes,
                               .domain = id / 4,
                               .price_per_hour = 1,
                               .watts = 300,
                               .idle_watts = 50};
}

void fix_put(fix_t *fix, fm_sched_worker_t worker)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_place_worker_put(fix->place, &worker, &err), &err);
    fix->workers[worker.id].is = worker;
    fix->workers[worker.id].up = true;
}

static void lease_end(fix_t *fix, uint64_t lease, fm_pool_lease_end_t how)
{
    fm_pool_lease_info_t info;

    if (fm_pool_lease_get(fix->pool, lease, &info)) {
        CU_ASSERT_EQUAL(
            apply(fix,
                  &(fm_pool_event_t){.kind = FM_POOL_LEASE_END,
                                     .lease_end = {.lease = lease,
                                                   .how = how,
                                                   .now_ns = fix->now_ns}}),
            FM_OK);
    }
}

/* Everybody that runs @p lease is idle. */
static void lease_free(fix_t *fix, uint64_t lease)
{
    for (uint32_t w = 0; w < FIX_WORKERS; w++) {
        fix_worker_t *worker = &fix->workers[w];
        if (worker->lease == lease || worker->gang_of == lease) {
            worker->lease = worker->gang_of = 0;
            fm_place_worker_busy(fix->place, w, INT64_MIN);
        }
    }
}

void fix_drop(fix_t *fix, uint32_t worker)
{
    fix_worker_t *at = &fix->workers[worker];
    uint64_t lease = at->lease ? at->lease : at->gang_of;

    if (lease) {
        lease_end(fix, lease, FM_POOL_END_FAULT);
        lease_free(fix, lease);
    }
    fm_place_worker_drop(fix->place, worker);
    at->up = false;
    fix_drain(fix);
}

fm_digest_t fix_batch_key(const fix_t *fix, uint32_t workflow, uint32_t node)
{
    fm_digest_t key =
        number("batch", fix->flows[workflow].nodes[node].batch, 0);

    return fm_place_policy_isolates(fix->policy) &&
                   !fm_place_policy_merges(fix->policy)
               ? fm_place_isolate(&key, workflow, node)
               : key;
}

uint32_t fix_submit(fix_t *fix, const fix_flow_t *flow)
{
    static const uint32_t before[FIX_NODES] = {0, 0, 1, 2};
    fm_pool_node_spec_t specs[FIX_NODES] = {{NULL, 0}};
    uint32_t id = fix->flow_count++;
    fm_error_t err = {0};

    CU_ASSERT_FATAL(id < FIX_FLOWS);
    fix->flows[id] = *flow;
    for (uint32_t n = 1; n < flow->node_count; n++) {
        specs[n] = (fm_pool_node_spec_t){&before[n], !flow->nodes[n].apart};
    }
    FM_ASSERT_OK(
        fm_place_workflow_put(fix->place, id, flow->memory_bytes, &err), &err);
    CU_ASSERT_FATAL(
        apply(fix, &(fm_pool_event_t){
                       .kind = FM_POOL_SUBMIT,
                       .submit = {.workflow = id,
                                  .tenant = flow->tenant ? flow->tenant : "t",
                                  .priority = flow->priority,
                                  .now_ns = fix->now_ns,
                                  .nodes = specs,
                                  .node_count = flow->node_count}}) == FM_OK);
    fix_drain(fix);
    return id;
}

void fix_cancel(fix_t *fix, uint32_t workflow)
{
    (void)apply(
        fix, &(fm_pool_event_t){.kind = FM_POOL_CANCEL, .cancel = {workflow}});
    fix_drain(fix);
}

static void expand(fix_t *fix, uint32_t workflow, uint32_t node)
{
    const fix_node_t *spec = &fix->flows[workflow].nodes[node];
    fm_place_task_t task = spec->task;
    fm_digest_t batch = fix_batch_key(fix, workflow, node);
    fm_digest_t keys[FIX_ITEMS];
    fm_error_t err = {0};

    task.task_class = fix->class;
    task.input_domain = FM_SCHED_NONE;
    FM_ASSERT_OK(fm_place_task_put(fix->place, &batch, &task, &err), &err);
    for (uint32_t i = 0; i < spec->items; i++) {
        keys[i] = number("item", spec->batch, spec->row + i);
        if (fm_place_policy_isolates(fix->policy)) {
            keys[i] = fm_place_isolate(&keys[i], workflow, node);
        }
    }
    CU_ASSERT_FATAL(
        apply(fix, &(fm_pool_event_t){.kind = FM_POOL_EXPAND,
                                      .expand = {.workflow = workflow,
                                                 .node = node,
                                                 .batch_key = batch,
                                                 .task_class = fix->class,
                                                 .item_work = 1,
                                                 .keys = keys,
                                                 .count = spec->items,
                                                 .now_ns = fix->now_ns}}) ==
        FM_OK);
}

void fix_drain(fix_t *fix)
{
    fm_pool_notice_t notice;

    while (fm_pool_next_notice(fix->pool, &notice)) {
        if (notice.kind == FM_POOL_NODE_READY) {
            expand(fix, notice.workflow, notice.node);
        } else if (notice.kind == FM_POOL_LEASE_MOOT) {
            lease_free(fix, notice.lease);
        }
    }
}

/* Rules of every policy: an idle worker that fits, and of a static_worker's
 * reservation. */
static void choice_check(const fix_t *fix, const fm_place_choice_t *choice,
                         const fm_pool_ref_t *first)
{
    const fm_place_task_t *task =
        &fix->flows[first->workflow].nodes[first->node].task;

    CU_ASSERT(choice->gang == (task->gang ? task->gang : 1));
    CU_ASSERT(choice->workers[0] == choice->worker);
    CU_ASSERT(choice->seconds > 0 && choice->dollars > 0);
    for (uint32_t i = 0; i < choice->gang; i++) {
        const fix_worker_t *worker = &fix->workers[choice->workers[i]];
        CU_ASSERT(worker->up && !worker->is.closed);
        CU_ASSERT(worker->lease == 0 && worker->gang_of == 0);
        CU_ASSERT(worker->is.task_types >> task->task_type & 1);
        CU_ASSERT(task->device == FM_SCHED_ANY ||
                  task->device == worker->is.device);
        CU_ASSERT(worker->is.memory_bytes == 0 ||
                  worker->is.memory_bytes >=
                      task->memory_bytes + task->item_memory_bytes);
        uint32_t owner = fm_place_reserved_for(fix->place, choice->workers[i]);
        CU_ASSERT(owner == FM_PLACE_NONE || owner == first->workflow);
    }
    if (fix->policy == FM_PLACE_STATIC_WORKER) {
        CU_ASSERT(fm_place_reserved_for(fix->place, choice->worker) ==
                  first->workflow);
    }
}

/* A lease of a baseline holds as many nodes as it may, each of them whole. */
static void nodes_check(const fix_t *fix, uint64_t lease, uint32_t items,
                        uint32_t max_nodes)
{
    uint32_t nodes = 0;
    fm_pool_ref_t before = {.workflow = FM_PLACE_NONE};

    for (uint32_t i = 0; i < items; i++) {
        fm_pool_ref_t ref;
        CU_ASSERT_FATAL(fm_pool_lease_item(fix->pool, lease, i, &ref));
        nodes += ref.workflow != before.workflow || ref.node != before.node;
        before = ref;
    }
    CU_ASSERT(max_nodes == 0 || nodes <= max_nodes);
}

bool fix_place(fix_t *fix)
{
    fm_place_choice_t choice;
    fm_pool_lease_info_t info;
    fm_pool_ref_t first = {0};

    if (!fm_place_next(fix->place, fix->now_ns, &choice)) {
        fix->wake_ns = choice.wake_ns;
        CU_ASSERT(choice.wake_ns == 0 || choice.wake_ns > fix->now_ns);
        return false;
    }
    uint64_t lease = ++fix->lease_count;
    CU_ASSERT_FATAL(
        apply(fix,
              &(fm_pool_event_t){.kind = FM_POOL_LEASE,
                                 .lease = {.lease = lease,
                                           .worker = choice.worker,
                                           .batch_key = choice.batch_key,
                                           .max_items = choice.size,
                                           .max_nodes = choice.max_nodes,
                                           .ignore_avoid = choice.avoid_waived,
                                           .resource = choice.resource,
                                           .seconds = choice.seconds,
                                           .dollars = choice.dollars,
                                           .joules = choice.joules,
                                           .now_ns = fix->now_ns}}) == FM_OK);
    CU_ASSERT_FATAL(fm_pool_lease_get(fix->pool, lease, &info));
    CU_ASSERT_FATAL(fm_pool_lease_item(fix->pool, lease, 0, &first));
    choice_check(fix, &choice, &first);
    nodes_check(fix, lease, info.items, choice.max_nodes);
    for (uint32_t i = 0; i < choice.gang; i++) {
        fix_worker_t *worker = &fix->workers[choice.workers[i]];
        *(i == 0 ? &worker->lease : &worker->gang_of) = lease;
        worker->workflow = first.workflow;
        worker->node = first.node;
        worker->type =
            fix->flows[first.workflow].nodes[first.node].task.task_type;
        worker->items = info.items;
        worker->end_ns = fix->now_ns + (int64_t)(choice.seconds * 1e9);
        fm_place_worker_busy(fix->place, choice.workers[i], worker->end_ns);
    }
    fix->last = choice;
    return true;
}

uint32_t fix_place_all(fix_t *fix)
{
    uint32_t leases = 0;

    while (fix_place(fix)) {
        leases++;
        CU_ASSERT_FATAL(leases <= FIX_WORKERS);
    }
    return leases;
}

void fix_finish(fix_t *fix, uint32_t worker, fm_pool_outcome_t outcome)
{
    uint64_t lease = fix->workers[worker].lease;
    fm_pool_lease_info_t info;
    fm_pool_ref_t ref;

    CU_ASSERT_FATAL(lease != 0);
    CU_ASSERT_FATAL(fm_pool_lease_get(fix->pool, lease, &info));
    for (uint32_t i = 0; i < info.items; i++) {
        if (!fm_pool_lease_item(fix->pool, lease, i, &ref)) {
            continue;
        }
        CU_ASSERT(apply(fix, &(fm_pool_event_t){
                                 .kind = FM_POOL_RESULT,
                                 .result = {.lease = lease,
                                            .position = i,
                                            .key = ref.key,
                                            .outcome = outcome,
                                            .output = ref.key,
                                            .now_ns = fix->now_ns}}) == FM_OK);
    }
    lease_end(fix, lease, FM_POOL_END_DRAINED);
    lease_free(fix, lease);
    fix_drain(fix);
}

bool fix_step(fix_t *fix)
{
    uint32_t next = FM_PLACE_NONE;

    for (uint32_t w = 0; w < FIX_WORKERS; w++) {
        if (fix->workers[w].lease &&
            (next == FM_PLACE_NONE ||
             fix->workers[w].end_ns < fix->workers[next].end_ns)) {
            next = w;
        }
    }
    if (fix->wake_ns > 0 &&
        (next == FM_PLACE_NONE || fix->wake_ns < fix->workers[next].end_ns)) {
        fix->now_ns = fix->wake_ns;
        fix->wake_ns = 0;
        return true;
    }
    if (next == FM_PLACE_NONE) {
        return false;
    }
    if (fix->workers[next].end_ns > fix->now_ns) {
        fix->now_ns = fix->workers[next].end_ns;
    }
    fix_finish(fix, next, FM_POOL_OK);
    return true;
}

void fix_run(fix_t *fix)
{
    do {
        (void)fix_place_all(fix);
    } while (fix_step(fix));
}

fm_pool_state_t fix_state(const fix_t *fix, uint32_t workflow)
{
    fm_pool_workflow_t is;

    CU_ASSERT_FATAL(fm_pool_workflow_get(fix->pool, workflow, &is) == FM_OK);
    return is.state;
}

fm_place_verdict_t fix_explain(fix_t *fix, uint32_t workflow, uint32_t node)
{
    fm_digest_t key = fix_batch_key(fix, workflow, node);
    fm_place_verdict_t why;

    (void)fm_place_explain(fix->place, &key, fix->now_ns, NULL, 0, &why);
    return why;
}
