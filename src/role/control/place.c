/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scheduling: the pool's batch keys and the workers become the input of THE
 * utility function (plan/sched); its placements become leases.
 */
#include <flowmesh/executor.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "plan/key/key.h"
#include "role/control/internal.h"

/* A lease must fit one line of the executor protocol, with room for the
 * parameters and the JSON around each item. */
#define LEASE_ITEM_BYTES (FM_EXECUTOR_LINE_BYTES / 2)
#define ITEM_OVERHEAD_BYTES 48u
/* Without a deadline in the workflow, an item may take this much longer than
 * estimated, and never less than the floor: only the hung are to be killed. */
#define DEADLINE_FACTOR 50
#define DEADLINE_MIN_NS (600 * FM_NS_PER_S)
#define DEADLINE_GRACE_NS (30 * FM_NS_PER_S)

/* A rate is asked for at the size of a model that fits a small device. */
#define LOAD_SAMPLE_BYTES 1e9

struct input {
    fm_sched_batch_t *batches;
    fm_sched_object_t *models; /* [batch_count] at most one each */
    fm_sched_worker_t *workers;
    uint32_t *worker_index; /* [worker_count] into control->workers */
    fm_sched_choice_t *choices;
    size_t batch_count;
    size_t worker_count;
};

static void input_fini(struct input *input)
{
    free(input->batches);
    free(input->models);
    free(input->workers);
    free(input->worker_index);
    free(input->choices);
}

static uint32_t size_limit(const fm_key_task_t *task,
                           const fm_batch_info_t *info)
{
    size_t fits =
        LEASE_ITEM_BYTES / (info->item_bytes_max + ITEM_OVERHEAD_BYTES);
    size_t limit =
        task->batch_max < FM_WIRE_ITEM_MAX ? task->batch_max : FM_WIRE_ITEM_MAX;

    return (uint32_t)(fits < 1 ? 1 : fits < limit ? fits : limit);
}

static fm_sched_kind_t sched_kind(fm_key_kind_t kind)
{
    switch (kind) {
    case FM_KEY_INFERENCE:
        return FM_SCHED_INFERENCE;
    case FM_KEY_TRAINING:
        return FM_SCHED_TRAINING;
    case FM_KEY_OTHER:
        break;
    }
    return FM_SCHED_OTHER;
}

static void fill_batch(const fm_control_t *control, const fm_pool_batch_t *from,
                       fm_sched_batch_t *to, fm_sched_object_t *model)
{
    const fm_batch_info_t *info =
        fm_state_batch(control->fabric->state, &from->key);
    const fm_key_task_t *task = fm_key_task_at(info->task_index);

    *to = (fm_sched_batch_t){
        .key = from->key,
        .kind = sched_kind(task->kind),
        .task_class = from->task_class,
        .task_type = info->task_index,
        .ready = from->ready,
        .size_max = size_limit(task, info),
        .item_work = from->work / from->ready,
        .device = FM_SCHED_ANY,
        .oldest_ns = from->oldest_ns,
        .memory_bytes = info->memory_bytes,
        .deadline_ns = from->deadline_ns,
        .priority = from->priority,
        .share = from->share,
        .depth = from->depth,
        .input_domain = FM_SCHED_NONE,
        .item_input_bytes = (double)info->item_bytes_max,
        .checkpointable = task->checkpointable,
        .avoid = from->avoid,
        .avoid_count = from->avoid_count,
    };
    if (info->has_model) {
        *model = (fm_sched_object_t){info->model, info->model_bytes};
        to->models = model;
        to->model_count = 1;
    }
}

static bool takes_work(const struct worker *worker)
{
    return worker->state == WORKER_UP && !worker->draining;
}

/* Bytes a second of models from storage, by what loads took. */
static double load_rate(const fm_control_t *control, uint32_t device_class)
{
    fm_cost_estimate_t load;

    fm_cost_load(fm_state_cost(control->fabric->state), device_class,
                 LOAD_SAMPLE_BYTES, &load);
    return LOAD_SAMPLE_BYTES / load.seconds;
}

static void fill_worker(const fm_control_t *control, const struct worker *from,
                        uint32_t id, int64_t now, int64_t wall,
                        fm_sched_worker_t *to)
{
    *to = (fm_sched_worker_t){
        .id = id,
        .device_class = from->device_class,
        .device = from->device,
        .task_types = from->task_types,
        .memory_bytes = from->memory_bytes,
        .free_at_ns = now,
        .resident = from->resident,
        .resident_count = from->resident_count,
        .walltime_end_ns =
            from->walltime_end_ns ? from->walltime_end_ns - wall + now : 0,
        .price_per_hour = from->site.price_per_hour,
        .watts = from->site.watts,
        .hazard_per_hour = from->site.hazard_per_hour,
        .load_bytes_per_s = load_rate(control, from->device_class),
        .fetch_bytes_per_s = from->site.fetch_bytes_per_s,
    };
    if (from->lease && from->lease->expected_end_ns > now) {
        to->free_at_ns = from->lease->expected_end_ns;
    } else if (from->lease) {
        to->free_at_ns = now + FM_NS_PER_MS; /* overdue: any moment now */
    }
}

static fm_status_t input_make(const fm_control_t *control, struct input *input,
                              fm_pool_batch_t *batches, int64_t now,
                              fm_error_t *err)
{
    size_t cap = input->batch_count + control->worker_count;
    int64_t wall = fm_clock_wall_ns();

    input->batches = fm_calloc(input->batch_count, sizeof(*input->batches));
    input->models = fm_calloc(input->batch_count, sizeof(*input->models));
    input->workers = fm_calloc(control->worker_count, sizeof(*input->workers));
    input->worker_index =
        fm_calloc(control->worker_count, sizeof(*input->worker_index));
    input->choices = fm_calloc(cap, sizeof(*input->choices));
    if (!input->batches || !input->models || !input->workers ||
        !input->worker_index || !input->choices) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < input->batch_count; i++) {
        fm_pool_batch_at(control->pool, i, &batches[i]);
        fill_batch(control, &batches[i], &input->batches[i], &input->models[i]);
    }
    for (size_t i = 0; i < control->worker_count; i++) {
        if (takes_work(&control->workers[i])) {
            input->worker_index[input->worker_count] = (uint32_t)i;
            fill_worker(control, &control->workers[i], (uint32_t)i, now, wall,
                        &input->workers[input->worker_count++]);
        }
    }
    return FM_OK;
}

/* --- leases --------------------------------------------------------------- */

static struct lease *lease_take(fm_control_t *control,
                                const fm_sched_choice_t *choice,
                                const fm_sched_batch_t *batch, uint32_t worker,
                                int64_t now)
{
    uint64_t number = (uint64_t)control->instance << 32 |
                      (++control->lease_counter & UINT32_MAX);
    fm_pool_event_t event = {
        .kind = FM_POOL_LEASE,
        .lease = {.lease = number,
                  .worker = worker,
                  .batch_key = batch->key,
                  .max_items = choice->size,
                  .ignore_avoid = choice->terms.avoid_waived,
                  .now_ns = now}};
    fm_pool_lease_info_t info;
    struct lease *lease = NULL;

    if (fm_pool_check(control->pool, &event, NULL, NULL) < 0 ||
        fm_pool_apply(control->pool, &event, NULL) < 0 ||
        !fm_pool_lease_get(control->pool, number, &info)) {
        return NULL; /* taken by an earlier choice of this decision */
    }
    lease = fm_calloc(1, sizeof(*lease));
    if (!lease ||
        !(lease->refs = fm_calloc(info.items, sizeof(*lease->refs)))) {
        fm_control_lease_destroy(lease);
        return NULL;
    }
    lease->lease = number;
    lease->count = info.items;
    lease->start_wall_ns = fm_clock_wall_ns();
    lease->expected_end_ns =
        now + (int64_t)((choice->terms.total_s - choice->terms.wait_s) * 1e9);
    for (uint32_t i = 0; i < info.items; i++) {
        (void)fm_pool_lease_item(control->pool, number, i, &lease->refs[i]);
    }
    fm_json_t *terms = fm_sched_terms_json(&choice->terms);
    lease->placement = terms ? fm_json_canonical(terms) : NULL;
    fm_json_drop(terms);
    return lease;
}

static int64_t deadline(const fm_batch_info_t *info,
                        const fm_sched_terms_t *terms, uint32_t count)
{
    if (info->deadline_ns > 0) {
        return info->deadline_ns * count + DEADLINE_GRACE_NS;
    }
    int64_t estimate = (int64_t)(terms->run_s * 1e9) * DEADLINE_FACTOR;
    return estimate > DEADLINE_MIN_NS ? estimate : DEADLINE_MIN_NS;
}

static fm_status_t lease_send(fm_control_t *control,
                              const struct worker *worker,
                              const struct lease *lease,
                              const fm_sched_terms_t *terms,
                              const fm_batch_info_t *info, fm_error_t *err)
{
    const fm_state_t *state = control->fabric->state;
    const fm_pool_ref_t *first = &lease->refs[0];
    const fm_run_t *run = fm_state_run(state, first->workflow);
    const fm_vector_t *vector = run->vectors[first->node];
    char checkpoint[FM_DIGEST_TEXT_BYTES] = "";
    fm_digest_t manifest;
    fm_pool_item_t item = {0};
    fm_msg_lease_item_t *items = fm_calloc(lease->count, sizeof(*items));

    if (!items) {
        return fm_no_memory(err);
    }
    for (uint32_t i = 0; i < lease->count; i++) {
        const fm_pool_ref_t *ref = &lease->refs[i];
        const fm_run_t *owner = fm_state_run(state, ref->workflow);
        items[i] = (fm_msg_lease_item_t){
            i, fm_vector_item(owner->vectors[ref->node], ref->item)};
    }
    if (lease->count == 1 &&
        fm_state_checkpoint(state, &first->key, &manifest)) {
        fm_digest_format(&manifest, checkpoint);
    }
    (void)!fm_pool_item_get(control->pool, first->workflow, first->node,
                            first->item, &item);
    fm_msg_t msg = {
        .type = FM_MSG_LEASE,
        .lease = {.lease = lease->lease,
                  .instance = control->instance,
                  .task_type = fm_key_task_at(info->task_index)->name,
                  .params = vector->params,
                  .hints = vector->hints,
                  .items = items,
                  .item_count = lease->count,
                  .deadline_ns = deadline(info, terms, lease->count),
                  .checkpoint = checkpoint,
                  .attempt = item.attempts + 1}};
    fm_status_t rc = fm_control_send(control, worker->peer, &msg, err);
    free(items);
    return rc;
}

static bool place_one(fm_control_t *control, const struct input *input,
                      const fm_sched_choice_t *choice, int64_t now)
{
    const fm_sched_batch_t *batch = &input->batches[choice->batch];
    uint32_t index = input->worker_index[choice->worker];
    struct worker *worker = &control->workers[index];
    fm_error_t err = {0};

    if (worker->lease) {
        return false;
    }
    const fm_batch_info_t *info =
        fm_state_batch(control->fabric->state, &batch->key);
    struct lease *lease = lease_take(control, choice, batch, index, now);
    if (!lease) {
        return false;
    }
    worker->lease = lease;
    /* the pool gave less than was decided (P10): decide anew for the rest */
    control->place_wanted =
        control->place_wanted || lease->count < choice->size;
    if (lease_send(control, worker, lease, &choice->terms, info, &err) < 0) {
        fm_control_lease_drop(control, worker, FM_POOL_END_DRAINED);
        return false;
    }
    return true;
}

size_t fm_control_place(fm_control_t *control)
{
    int64_t now = fm_reactor_now_ns(control->reactor);
    struct input input = {.batch_count = fm_pool_batch_count(control->pool)};
    fm_pool_batch_t *batches = NULL;
    fm_error_t err = {0};
    size_t count = 0;
    size_t placed = 0;
    bool idle = false;

    for (size_t i = 0; i < control->worker_count; i++) {
        idle = idle ||
               (takes_work(&control->workers[i]) && !control->workers[i].lease);
    }
    if (!idle || input.batch_count == 0) {
        return 0;
    }
    batches = fm_calloc(input.batch_count, sizeof(*batches));
    fm_status_t rc = batches ? input_make(control, &input, batches, now, &err)
                             : fm_no_memory(&err);
    if (rc >= 0) {
        fm_sched_input_t sched = {
            .now_ns = now,
            .batches = input.batches,
            .batch_count = input.batch_count,
            .workers = input.workers,
            .worker_count = input.worker_count,
            .cost = fm_state_cost(control->fabric->state),
        };
        rc = fm_sched_decide(&sched, input.choices,
                             input.batch_count + input.worker_count, &count,
                             &err);
    }
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        if (input.choices[i].verdict == FM_SCHED_PLACE) {
            placed += place_one(control, &input, &input.choices[i], now);
        }
    }
    if (rc < 0) {
        fm_control_fatal(control, &err);
    }
    input_fini(&input);
    free(batches);
    return placed;
}
