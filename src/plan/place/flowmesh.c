/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy `flowmesh`: THE utility function of plan/sched over all ready
 * batch keys and workers.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/place/internal.h"

struct state {
    fm_sched_batch_t *batches;
    fm_pool_batch_t *ready;
    size_t batch_capacity;
    fm_sched_worker_t *workers;
    size_t worker_capacity;
    fm_sched_choice_t *choices;
    size_t choice_capacity;
};

static fm_status_t flowmesh_create(fm_place_t *place, fm_error_t *err)
{
    place->state = fm_calloc(1, sizeof(struct state));
    return place->state ? FM_OK : fm_no_memory(err);
}

static void flowmesh_destroy(fm_place_t *place)
{
    struct state *state = place->state;

    free(state->batches);
    free(state->ready);
    free(state->workers);
    free(state->choices);
    free(state);
}

static bool room(struct state *state, size_t batches, size_t workers)
{
    if (batches > state->batch_capacity) {
        free(state->batches);
        free(state->ready);
        state->batches = fm_calloc(batches, sizeof(*state->batches));
        state->ready = fm_calloc(batches, sizeof(*state->ready));
        state->batch_capacity = state->batches && state->ready ? batches : 0;
    }
    if (workers > state->worker_capacity) {
        free(state->workers);
        state->workers = fm_calloc(workers, sizeof(*state->workers));
        state->worker_capacity = state->workers ? workers : 0;
    }
    if (batches + workers > state->choice_capacity) {
        free(state->choices);
        state->choices = fm_calloc(batches + workers, sizeof(*state->choices));
        state->choice_capacity = state->choices ? batches + workers : 0;
    }
    return state->batch_capacity >= batches &&
           state->worker_capacity >= workers &&
           state->choice_capacity >= batches + workers;
}

static void batch_fill(const struct task *task, const fm_pool_batch_t *ready,
                       fm_sched_batch_t *out)
{
    const fm_place_task_t *needs = &task->needs;

    *out = (fm_sched_batch_t){
        .key = task->key,
        .kind = needs->kind,
        .task_class = needs->task_class,
        .task_type = needs->task_type,
        .ready = ready->ready,
        .size_max = needs->size_max,
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
        .share = ready->share,
        .depth = ready->depth,
        .checkpointable = needs->checkpointable,
        .avoid = ready->avoid,
        .avoid_count = ready->avoid_count,
    };
}

static void choice_fill(const fm_place_t *place, const fm_sched_input_t *input,
                        const fm_sched_choice_t *from, fm_place_choice_t *to)
{
    const fm_sched_worker_t *worker = &input->workers[from->worker];
    double seconds = from->terms.total_s - from->terms.wait_s;

    (void)place;
    *to = (fm_place_choice_t){
        .batch_key = input->batches[from->batch].key,
        .worker = worker->id,
        .gang = 1,
        .workers = {worker->id},
        .size = from->size,
        .resource = worker->device_class,
        .avoid_waived = from->terms.avoid_waived,
        .seconds = seconds,
        .dollars = from->terms.dollars,
        .joules = fm_cost_joules(seconds, worker->watts),
        .terms = from->terms,
    };
}

static void flowmesh_task_put(fm_place_t *place, const struct task *task)
{
    (void)place; /* looked up with each decision */
    (void)task;
}

static size_t flowmesh_explain(fm_place_t *place, uint32_t batch,
                               int64_t now_ns, fm_sched_candidate_t *list,
                               size_t cap, fm_place_verdict_t *why)
{
    (void)place;
    (void)batch;
    (void)now_ns;
    (void)list;
    (void)cap;
    *why = (fm_place_verdict_t){FM_SCHED_WAIT_WORKERS,
                                fm_sched_verdict_text(FM_SCHED_WAIT_WORKERS)};
    return 0;
}

static bool flowmesh_next(fm_place_t *place, int64_t now_ns,
                          fm_place_choice_t *choice)
{
    struct state *state = place->state;
    size_t active = fm_pool_batch_count(place->pool);
    fm_sched_input_t input = {.now_ns = now_ns, .cost = place->cost};
    size_t count = 0;

    if (!room(state, active, place->worker_count)) {
        return false;
    }
    for (size_t i = 0; i < active; i++) {
        fm_pool_batch_at(place->pool, i, &state->ready[i]);
        const struct task *task =
            fm_place_task_find(place, &state->ready[i].key);
        if (task) {
            batch_fill(task, &state->ready[i],
                       &state->batches[input.batch_count++]);
        }
    }
    for (size_t i = 0; i < place->worker_count; i++) {
        const struct worker *worker = &place->workers[i];
        if (worker->known) {
            fm_sched_worker_t *to = &state->workers[input.worker_count++];
            *to = worker->is;
            if (worker->busy && to->free_at_ns <= now_ns) {
                to->free_at_ns = now_ns + 1000000; /* overdue */
            }
        }
    }
    input.batches = state->batches;
    input.workers = state->workers;
    for (size_t k = 0; k < FM_SCHED_KINDS; k++) {
        input.lambda[k] = place->options.sched.lambda[k];
    }
    input.energy_per_kwh = place->options.sched.energy_per_kwh;
    input.age_scale_s = place->options.sched.age_scale_s;
    input.grain_s = place->options.sched.grain_s;
    if (fm_sched_decide(&input, state->choices, state->choice_capacity, &count,
                        NULL) < 0 ||
        count == 0 || state->choices[0].verdict != FM_SCHED_PLACE) {
        return false;
    }
    choice_fill(place, &input, &state->choices[0], choice);
    return true;
}

const struct policy fm_place_flowmesh = {
    .name = "flowmesh",
    .create = flowmesh_create,
    .destroy = flowmesh_destroy,
    .task_put = flowmesh_task_put,
    .next = flowmesh_next,
    .explain = flowmesh_explain,
};
