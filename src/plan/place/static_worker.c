/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The baseline `static_worker`: the whole workflow is bound to one worker.
 *
 *   - When its first task is served, a workflow takes the smallest idle worker
 *     (device memory, then price, then id) that fits the task and the largest
 *     need of the workflow, and that no other workflow holds.
 *   - Until the workflow is done, failed or cancelled nobody else may use the
 *     worker, idle or not, and its tasks run nowhere else.
 *   - A workflow whose worker is lost or closed, or can not run the task that
 *     is next, is bound anew.
 *
 * A gang's further workers are borrowed for the lease alone.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/place/internal.h"

struct flow {
    uint64_t memory_bytes; /* largest need of its nodes */
    uint32_t worker;       /* NONE: unbound */
    uint32_t first;        /* of its batch keys seen */
};

struct state {
    struct queue queue;
    struct flow *flows; /* by workflow */
    size_t flow_count, flow_capacity;
    uint32_t *owners; /* workflow by worker, or NONE */
    size_t owner_count, owner_capacity;
};

static fm_status_t flow_room(struct state *state, uint32_t workflow,
                             fm_error_t *err)
{
    while (state->flow_count <= workflow) {
        fm_status_t rc = fm_grow((void *)&state->flows, &state->flow_capacity,
                                 state->flow_count, sizeof(struct flow), err);
        if (rc < 0) {
            return rc;
        }
        state->flows[state->flow_count++] =
            (struct flow){.worker = NONE, .first = NONE};
    }
    return FM_OK;
}

/* Every task of a workflow moves to the line of its binding. */
static void bind(fm_place_t *place, uint32_t workflow, uint32_t worker)
{
    struct state *state = place->state;
    struct flow *flow = &state->flows[workflow];

    if (flow->worker != NONE) {
        state->owners[flow->worker] = NONE;
        place->version++;
    }
    flow->worker = worker;
    if (worker != NONE) {
        state->owners[worker] = workflow;
    }
    for (uint32_t b = flow->first; b != NONE;
         b = state->queue.entries[b].sibling) {
        fm_place_queue_move(place, b);
    }
}

static void release(fm_place_t *place, uint32_t worker)
{
    struct state *state = place->state;

    if (state->owners[worker] != NONE) {
        bind(place, state->owners[worker], NONE);
    }
}

/* Whether its worker can run none of the tasks of a workflow that wait. */
static bool stuck(const fm_place_t *place, const struct flow *flow,
                  int64_t now_ns)
{
    const struct state *state = place->state;
    bool waits = false;

    for (uint32_t b = flow->first; b != NONE;
         b = state->queue.entries[b].sibling) {
        const struct entry *entry = &state->queue.entries[b];
        if (entry->line == NONE) {
            continue;
        }
        waits = true;
        if (fm_place_fit(place, entry, flow->worker, now_ns) ==
            FM_SCHED_PLACE) {
            return false;
        }
    }
    return waits;
}

/* Set free the workers of workflows that are over, and those that can not run
 * what waits. */
static void begin(fm_place_t *place, int64_t now_ns)
{
    struct state *state = place->state;

    for (uint32_t w = fm_place_idle_next(place, 0); w != NONE;
         w = fm_place_idle_next(place, w + 1)) {
        uint32_t owner = state->owners[w];
        fm_pool_workflow_t flow;
        if (owner == NONE) {
            continue;
        }
        bool over = fm_pool_workflow_get(place->pool, owner, &flow) < 0 ||
                    flow.state != FM_POOL_RUNNING;
        if (over || stuck(place, &state->flows[owner], now_ns)) {
            release(place, w);
        }
    }
}

/* Bound tasks stand in the one line of their worker. */
static uint64_t mark(const fm_place_t *place, const struct entry *entry)
{
    const struct state *state = place->state;
    const struct flow *flow = &state->flows[entry->workflow];

    return flow->worker != NONE ? FM_PLACE_MARK_ALONE | flow->worker
                                : flow->memory_bytes & ~FM_PLACE_MARK_ALONE;
}

static bool may_join(const fm_place_t *place, const struct entry *entry,
                     uint32_t worker)
{
    const struct state *state = place->state;

    return fm_place_is_idle(place, worker) &&
           (state->owners[worker] == NONE ||
            state->owners[worker] == entry->workflow);
}

/* Device memory with "not limited" as the largest. */
static uint64_t size_of(const fm_sched_worker_t *worker)
{
    return worker->memory_bytes ? worker->memory_bytes : UINT64_MAX;
}

static bool smaller(const fm_sched_worker_t *a, const fm_sched_worker_t *b)
{
    return size_of(a) != size_of(b) ? size_of(a) < size_of(b)
                                    : a->price_per_hour < b->price_per_hour;
}

/* Bound is bound: that the worker failed the task before does not count. */
static bool takes_bound(const fm_place_t *place, const struct entry *entry,
                        uint32_t worker, int64_t now_ns)
{
    return fm_place_is_idle(place, worker) &&
           fm_place_fit(place, entry, worker, now_ns) == FM_SCHED_PLACE &&
           fm_place_gang_complete(place, entry, worker, now_ns);
}

static uint32_t choose(fm_place_t *place, const struct entry *entry,
                       int64_t now_ns, bool *own_out)
{
    const struct state *state = place->state;
    const struct flow *flow = &state->flows[entry->workflow];
    bool device = entry->task->needs.device != FM_SCHED_CPU;
    uint32_t best = NONE;

    if (flow->worker != NONE) {
        *own_out = true; /* the next of its line may have other needs */
        return takes_bound(place, entry, flow->worker, now_ns) ? flow->worker
                                                               : NONE;
    }
    for (uint32_t w = fm_place_idle_next(place, 0); w != NONE;
         w = fm_place_idle_next(place, w + 1)) {
        const fm_sched_worker_t *is = &place->workers[w].is;
        if ((!device || size_of(is) >= flow->memory_bytes) &&
            (best == NONE || smaller(is, &place->workers[best].is)) &&
            fm_place_usable(place, entry, w, now_ns, own_out)) {
            best = w;
        }
    }
    return best;
}

static void commit(fm_place_t *place, const struct entry *entry,
                   uint32_t worker, int64_t now_ns)
{
    const struct state *state = place->state;

    (void)now_ns;
    if (state->flows[entry->workflow].worker == NONE) {
        bind(place, entry->workflow, worker); /* of a gang: the leader */
    }
}

static const char *blocked(const fm_place_t *place, const struct entry *entry)
{
    const struct state *state = place->state;

    return state->flows[entry->workflow].worker != NONE
               ? "the worker that its workflow is bound to is busy"
               : "every worker that fits its workflow is busy or reserved for "
                 "another workflow";
}

static fm_status_t seen(fm_place_t *place, uint32_t batch, fm_error_t *err)
{
    struct state *state = place->state;
    struct entry *entry = &state->queue.entries[batch];
    fm_status_t rc = flow_room(state, entry->workflow, err);

    if (rc == FM_OK) {
        entry->sibling = state->flows[entry->workflow].first;
        state->flows[entry->workflow].first = batch;
    }
    return rc;
}

static fm_status_t workflow_put(fm_place_t *place, uint32_t workflow,
                                uint64_t memory_bytes, fm_error_t *err)
{
    struct state *state = place->state;
    fm_status_t rc = flow_room(state, workflow, err);

    if (rc == FM_OK) {
        state->flows[workflow].memory_bytes = memory_bytes;
    }
    return rc;
}

static fm_status_t worker_put(fm_place_t *place, uint32_t worker,
                              fm_error_t *err)
{
    struct state *state = place->state;

    while (state->owner_count <= worker) {
        fm_status_t rc =
            fm_grow((void *)&state->owners, &state->owner_capacity,
                    state->owner_count, sizeof(*state->owners), err);
        if (rc < 0) {
            return rc;
        }
        state->owners[state->owner_count++] = NONE;
    }
    if (place->workers[worker].is.closed) {
        release(place, worker);
    }
    return FM_OK;
}

static uint32_t reserved_for(const fm_place_t *place, uint32_t worker)
{
    const struct state *state = place->state;

    return state->owners[worker];
}

static void fini(fm_place_t *place)
{
    struct state *state = place->state;

    free(state->flows);
    free(state->owners);
}

static const struct chooser chooser = {
    .begin = begin,
    .choose = choose,
    .commit = commit,
    .may_join = may_join,
    .mark = mark,
    .seen = seen,
    .blocked = blocked,
    .fini = fini,
    .max_nodes = 1,
};

const struct policy fm_place_static_worker = {
    .name = "static_worker",
    .chooser = &chooser,
    .state_bytes = sizeof(struct state),
    FM_PLACE_BASELINE,
    .workflow_put = workflow_put,
    .worker_put = worker_put,
    .worker_drop = release,
    .reserved_for = reserved_for,
};
