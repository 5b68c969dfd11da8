/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy `flowmesh`: the pool's changes and the workers go to THE utility
 * function (plan/sched), and its choices come back.
 *
 * Only batch keys that changed are read.  The pool does not tell when a tenant
 * is served elsewhere, so that its share, or who is next in a batch key of
 * several tenants, has moved: a few of both are read again with each decision,
 * in rotation.
 *
 * The pool numbers every batch key ever seen; the scheduler knows those with
 * ready work, under numbers that are used again: its memory follows the work.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/place/internal.h"

/* Read again with a decision: at 1,000 batch keys and tenants every one of
 * them is seen again after some 60 decisions. */
#define REFRESH_BATCHES 16u
#define REFRESH_TENANTS 16u

/** A number of the scheduler. */
struct slot {
    uint32_t batch;  /* of the pool; NONE: free */
    uint32_t tenant; /* as the scheduler knows it */
    bool several;    /* tenants with ready work */
};

struct state {
    fm_sched_t *sched;
    uint32_t *slot_of; /* by batch, or NONE */
    size_t batch_count, batch_capacity;
    struct slot *slots;
    size_t slot_count, slot_capacity;
    uint32_t *free; /* slots */
    size_t free_count, free_capacity;
    uint32_t slot_cursor, tenant_cursor;
    bool missed; /* memory was out: read everything again */
};

static fm_status_t flowmesh_create(fm_place_t *place, fm_error_t *err)
{
    struct state *state = fm_calloc(1, sizeof(*state));

    if (!state) {
        return fm_no_memory(err);
    }
    place->state = state;
    return fm_sched_create(&place->options.sched, place->cost, &state->sched,
                           err);
}

static void flowmesh_destroy(fm_place_t *place)
{
    struct state *state = place->state;

    fm_sched_destroy(state->sched);
    free(state->slot_of);
    free(state->slots);
    free(state->free);
    free(state);
}

/* --- batch keys ---------------------------------------------------------- */

static fm_status_t batch_room(struct state *state, uint32_t batch,
                              fm_error_t *err)
{
    while (state->batch_count <= batch) {
        fm_status_t rc =
            fm_grow((void *)&state->slot_of, &state->batch_capacity,
                    state->batch_count, sizeof(*state->slot_of), err);
        if (rc < 0) {
            return rc;
        }
        state->slot_of[state->batch_count++] = NONE;
    }
    return FM_OK;
}

static fm_status_t slot_make(struct state *state, uint32_t batch,
                             fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    uint32_t slot = NONE;

    if (state->free_count > 0) {
        slot = state->free[--state->free_count];
    } else {
        /* as many places for free slots as there are slots */
        if ((rc = fm_grow((void *)&state->slots, &state->slot_capacity,
                          state->slot_count, sizeof(struct slot), err)) < 0 ||
            (rc = fm_grow((void *)&state->free, &state->free_capacity,
                          state->slot_count, sizeof(*state->free), err)) < 0) {
            return rc;
        }
        slot = (uint32_t)state->slot_count++;
    }
    state->slots[slot] = (struct slot){.batch = batch, .tenant = NONE};
    state->slot_of[batch] = slot;
    return FM_OK;
}

static void slot_drop(struct state *state, uint32_t batch)
{
    uint32_t slot = state->slot_of[batch];

    if (slot != NONE) {
        fm_sched_batch_drop(state->sched, slot);
        state->slots[slot].batch = NONE;
        state->free[state->free_count++] = slot;
        state->slot_of[batch] = NONE;
    }
}

static void tenant_push(const fm_place_t *place, uint32_t tenant)
{
    const struct state *state = place->state;
    const fm_tenants_t *tenants = fm_pool_tenants(place->pool);

    fm_sched_tenant_put(state->sched, tenant,
                        fm_tenants_share(tenants, tenant));
}

static void batch_fill(const struct task *task, const fm_pool_batch_t *ready,
                       fm_sched_batch_t *out)
{
    const fm_place_task_t *needs = &task->needs;
    uint32_t size = needs->size_max ? needs->size_max : 1;

    if (needs->whole_max > 0 && needs->whole_max < size) {
        size = needs->whole_max;
    }
    *out = (fm_sched_batch_t){
        .key = task->key,
        .kind = needs->kind,
        .task_class = needs->task_class,
        .task_type = needs->task_type,
        .ready = ready->ready,
        .size_max = size < FM_POOL_BATCH_MAX ? size : FM_POOL_BATCH_MAX,
        .item_work = ready->work / ready->ready,
        .device = needs->device,
        .memory_bytes = needs->memory_bytes,
        .item_memory_bytes = needs->item_memory_bytes,
        .models = needs->models,
        .model_count = needs->model_count,
        .item_input_bytes = needs->item_input_bytes,
        .input_domain = needs->input_domain,
        .oldest_ns = ready->oldest_ns,
        .deadline_ns = ready->deadline_ns,
        .priority = ready->priority,
        .tenant = ready->tenant,
        .depth = ready->depth,
        .checkpointable = needs->checkpointable,
        .gang = needs->gang,
        .avoid = ready->avoid,
        .avoid_count = ready->avoid_count,
    };
}

static fm_status_t batch_push(fm_place_t *place, const fm_pool_batch_t *ready,
                              const struct task *task, fm_error_t *err)
{
    struct state *state = place->state;
    fm_sched_batch_t batch;
    fm_status_t rc = FM_OK;

    if (state->slot_of[ready->id] == NONE &&
        (rc = slot_make(state, ready->id, err)) < 0) {
        return rc;
    }
    uint32_t slot = state->slot_of[ready->id];
    batch_fill(task, ready, &batch);
    if ((rc = fm_sched_batch_put(state->sched, slot, &batch, err)) < 0) {
        return rc;
    }
    state->slots[slot].tenant = ready->tenant;
    state->slots[slot].several = ready->tenants > 1;
    tenant_push(place, ready->tenant);
    return FM_OK;
}

/* Read the summary of a batch key again and hand it on. */
static void batch_take(fm_place_t *place, uint32_t batch)
{
    struct state *state = place->state;
    fm_pool_batch_t ready;
    const struct task *task = NULL;

    if (batch_room(state, batch, NULL) < 0) {
        state->missed = true;
        return;
    }
    if (fm_pool_batch_get(place->pool, batch, &ready)) {
        task = fm_place_task_find(place, &ready.key);
    }
    if (!task) {
        slot_drop(state, batch);
    } else if (batch_push(place, &ready, task, NULL) < 0) {
        state->missed = true;
    }
}

/* What the pool does not tell: see the head of this file. */
static void refresh(fm_place_t *place)
{
    struct state *state = place->state;
    uint32_t tenants = fm_tenants_count(fm_pool_tenants(place->pool));
    size_t batches = state->slot_count < REFRESH_BATCHES ? state->slot_count
                                                         : REFRESH_BATCHES;

    for (size_t i = 0; i < batches; i++) {
        uint32_t at = state->slot_cursor++ % (uint32_t)state->slot_count;
        const struct slot *slot = &state->slots[at];
        fm_pool_batch_t ready;
        if (slot->batch != NONE && slot->several &&
            fm_pool_batch_get(place->pool, slot->batch, &ready) &&
            ready.tenant != slot->tenant) {
            batch_take(place, slot->batch);
        }
    }
    for (uint32_t i = 0; i < tenants && i < REFRESH_TENANTS; i++) {
        tenant_push(place, state->tenant_cursor++ % tenants);
    }
}

static void pull(fm_place_t *place)
{
    struct state *state = place->state;
    uint32_t batch = 0;
    fm_pool_batch_t is;

    if (state->missed) {
        state->missed = false;
        for (uint32_t b = 0; fm_pool_batch_get(place->pool, b, &is) ||
                             !fm_digest_is_zero(&is.key);
             b++) {
            batch_take(place, b);
        }
    }
    while (fm_pool_next_dirty(place->pool, &batch)) {
        batch_take(place, batch);
    }
    refresh(place);
}

static void flowmesh_task_put(fm_place_t *place, const struct task *task)
{
    uint32_t batch = fm_pool_batch_id(place->pool, &task->key);

    if (batch != NONE) {
        batch_take(place, batch);
    }
}

/* --- workers ------------------------------------------------------------- */

static fm_status_t flowmesh_worker_put(fm_place_t *place, uint32_t worker,
                                       fm_error_t *err)
{
    const struct state *state = place->state;

    return fm_sched_worker_put(state->sched, &place->workers[worker].is, err);
}

static void flowmesh_worker_busy(fm_place_t *place, uint32_t worker,
                                 int64_t until_ns)
{
    const struct state *state = place->state;

    fm_sched_worker_busy(state->sched, worker, until_ns);
}

static void flowmesh_worker_drop(fm_place_t *place, uint32_t worker)
{
    const struct state *state = place->state;

    fm_sched_worker_drop(state->sched, worker);
}

static void flowmesh_cost_changed(fm_place_t *place)
{
    const struct state *state = place->state;

    fm_sched_cost_changed(state->sched);
}

/* --- deciding ------------------------------------------------------------ */

static void choice_fill(const fm_place_t *place, const fm_sched_choice_t *from,
                        fm_place_choice_t *to)
{
    const struct state *state = place->state;
    fm_pool_batch_t ready;

    (void)fm_pool_batch_get(place->pool, state->slots[from->batch].batch,
                            &ready);
    *to = (fm_place_choice_t){
        .batch_key = ready.key,
        .worker = from->worker,
        .gang = from->gang,
        .size = from->size,
        .resource = place->workers[from->worker].is.device_class,
        .avoid_waived = from->terms.avoid_waived,
        .seconds = from->terms.total_s - from->terms.wait_s,
        .dollars = from->terms.dollars,
        .joules = from->terms.joules,
        .terms = from->terms,
    };
    for (uint32_t i = 0; i < from->gang; i++) {
        to->workers[i] = from->workers[i];
    }
}

static bool flowmesh_next(fm_place_t *place, int64_t now_ns,
                          fm_place_choice_t *choice)
{
    const struct state *state = place->state;
    fm_sched_choice_t found;

    pull(place);
    if (!fm_sched_next(state->sched, now_ns, &found)) {
        choice->wake_ns = found.wake_ns;
        return false;
    }
    choice_fill(place, &found, choice);
    return true;
}

static size_t flowmesh_explain(fm_place_t *place, uint32_t batch,
                               int64_t now_ns, fm_sched_candidate_t *list,
                               size_t cap, fm_place_verdict_t *why)
{
    const struct state *state = place->state;
    size_t count = 0;

    pull(place);
    why->verdict = FM_SCHED_WAIT_NO_WORK;
    if (batch < state->batch_count && state->slot_of[batch] != NONE) {
        count = fm_sched_explain(state->sched, state->slot_of[batch], now_ns,
                                 list, cap, &why->verdict);
    }
    why->text = fm_sched_verdict_text(why->verdict);
    return count;
}

const struct policy fm_place_flowmesh = {
    .name = "flowmesh",
    .create = flowmesh_create,
    .destroy = flowmesh_destroy,
    .task_put = flowmesh_task_put,
    .worker_put = flowmesh_worker_put,
    .worker_busy = flowmesh_worker_busy,
    .worker_drop = flowmesh_worker_drop,
    .cost_changed = flowmesh_cost_changed,
    .next = flowmesh_next,
    .explain = flowmesh_explain,
};
