/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tables that every policy reads (workers by id, needs by batch key), and
 * the calls of the API that keep them and then tell the policy.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "plan/place/internal.h"

static const struct policy *const policies[FM_PLACE_POLICIES] = {
    [FM_PLACE_FLOWMESH] = &fm_place_flowmesh,
    [FM_PLACE_STATIC_WORKER] = &fm_place_static_worker,
    [FM_PLACE_FIXED_PIPELINE] = &fm_place_fixed_pipeline,
    [FM_PLACE_ROUND_ROBIN] = &fm_place_round_robin,
    [FM_PLACE_ADAPTIVE] = &fm_place_adaptive,
};

const char *fm_place_policy_name(fm_place_policy_t policy)
{
    return policies[policy]->name;
}

bool fm_place_policy_find(const char *name, fm_place_policy_t *policy_out)
{
    for (size_t i = 0; i < FM_COUNT_OF(policies); i++) {
        if (strcmp(name, policies[i]->name) == 0) {
            *policy_out = (fm_place_policy_t)i;
            return true;
        }
    }
    return false;
}

bool fm_place_policy_isolates(fm_place_policy_t policy)
{
    return policies[policy]->isolates;
}

bool fm_place_policy_merges(fm_place_policy_t policy)
{
    return policies[policy]->merges;
}

fm_digest_t fm_place_isolate(const fm_digest_t *key, uint32_t workflow,
                             uint32_t node)
{
    uint8_t text[sizeof(key->bytes) + 8];
    uint32_t ids[2] = {workflow, node};

    memcpy(text, key->bytes, sizeof(key->bytes));
    for (size_t i = 0; i < 8; i++) {
        text[sizeof(key->bytes) + i] = (uint8_t)(ids[i / 4] >> 8 * (i % 4));
    }
    return fm_sha256(text, sizeof(text));
}

fm_status_t fm_place_create(const fm_place_options_t *opts, fm_pool_t *pool,
                            const fm_cost_t *cost, fm_place_t **place_out,
                            fm_error_t *err)
{
    fm_place_t *place = NULL;
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (opts && (unsigned)opts->policy >= FM_PLACE_POLICIES) {
        return fm_error_set(err, FM_ERR_INVALID, "policy %u: there is no such",
                            (unsigned)opts->policy);
    }
    if (!(place = fm_calloc(1, sizeof(*place))) ||
        !(place->task_ids = fm_map_create())) {
        fm_no_memory(err);
        goto out;
    }
    place->pool = pool;
    place->cost = cost;
    place->version = 1;
    if (opts) {
        place->options = *opts;
    }
    place->policy = policies[place->options.policy];
    if ((rc = place->policy->create(place, err)) < 0) {
        goto out;
    }
    *place_out = place;
    place = NULL;
out:
    fm_place_destroy(place);
    return rc;
}

void *fm_place_destroy(fm_place_t *place)
{
    if (!place) {
        return NULL;
    }
    if (place->policy && place->state) {
        place->policy->destroy(place);
    }
    for (size_t i = 0; i < place->worker_count; i++) {
        free(place->workers[i].resident);
    }
    for (size_t i = 0; i < place->task_count; i++) {
        free(place->tasks[i]);
    }
    free(place->workers);
    free(place->idle);
    free(place->class_live);
    free(place->tasks);
    fm_map_destroy(place->task_ids);
    free(place);
    return NULL;
}

/* --- needs --------------------------------------------------------------- */

const struct task *fm_place_task_find(const fm_place_t *place,
                                      const fm_digest_t *batch_key)
{
    const uint64_t *at = fm_map_get(place->task_ids, batch_key);

    return at ? place->tasks[*at] : NULL;
}

static fm_status_t task_check(const fm_place_task_t *task, fm_error_t *err)
{
    if ((unsigned)task->kind >= FM_SCHED_KINDS ||
        (unsigned)task->device > FM_SCHED_GPU || task->task_type > 63 ||
        !isfinite(task->item_input_bytes) || task->item_input_bytes < 0 ||
        task->gang > FM_SCHED_GANG_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "task: kind %u, device kind %u, task type %u, "
                            "%g input bytes or a gang of %u make no sense",
                            (unsigned)task->kind, (unsigned)task->device,
                            task->task_type, task->item_input_bytes,
                            task->gang);
    }
    if (task->model_count > FM_PLACE_MODELS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "task: %zu models, at most %u are allowed",
                            task->model_count, FM_PLACE_MODELS_MAX);
    }
    return FM_OK;
}

static fm_status_t task_add(fm_place_t *place, struct task *task,
                            fm_error_t *err)
{
    fm_status_t rc = fm_grow((void *)&place->tasks, &place->task_capacity,
                             place->task_count, sizeof(struct task *), err);

    if (rc < 0 || (rc = fm_map_put(place->task_ids, &task->key,
                                   place->task_count, err)) < 0) {
        return rc;
    }
    place->tasks[place->task_count++] = task;
    return FM_OK;
}

fm_status_t fm_place_task_put(fm_place_t *place, const fm_digest_t *batch_key,
                              const fm_place_task_t *task, fm_error_t *err)
{
    const uint64_t *at = fm_map_get(place->task_ids, batch_key);
    fm_status_t rc = task_check(task, err);

    if (rc < 0) {
        return rc;
    }
    size_t bytes = task->model_count * sizeof(task->models[0]);
    struct task *made = fm_malloc(sizeof(*made) + bytes);
    if (!made) {
        return fm_no_memory(err);
    }
    *made = (struct task){.key = *batch_key, .needs = *task};
    if (bytes > 0) {
        memcpy(made->models, task->models, bytes);
    }
    made->needs.models = made->models;
    struct task *before = at ? place->tasks[*at] : NULL;
    if (at) {
        place->tasks[*at] = made;
    } else if ((rc = task_add(place, made, err)) < 0) {
        free(made);
        return rc;
    }
    place->policy->task_put(place, made);
    free(before);
    return FM_OK;
}

fm_status_t fm_place_workflow_put(fm_place_t *place, uint32_t workflow,
                                  uint64_t memory_bytes, fm_error_t *err)
{
    return place->policy->workflow_put
               ? place->policy->workflow_put(place, workflow, memory_bytes, err)
               : FM_OK;
}

/* --- workers ------------------------------------------------------------- */

static bool nonnegative(double value)
{
    return isfinite(value) && value >= 0;
}

static fm_status_t worker_check(const fm_sched_worker_t *worker,
                                fm_error_t *err)
{
    if (worker->id >= FM_SCHED_WORKERS_MAX ||
        worker->device_class >= FM_COST_CLASSES_MAX ||
        worker->resident_count > FM_PLACE_RESIDENT_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "worker %u of device class %u with %zu resident "
                            "models: below %u, below %u, at most %u",
                            worker->id, worker->device_class,
                            worker->resident_count, FM_SCHED_WORKERS_MAX,
                            FM_COST_CLASSES_MAX, FM_PLACE_RESIDENT_MAX);
    }
    if (!nonnegative(worker->price_per_hour) || !nonnegative(worker->watts) ||
        !nonnegative(worker->idle_watts) ||
        !nonnegative(worker->hazard_per_hour) ||
        !nonnegative(worker->load_bytes_per_s) ||
        !nonnegative(worker->fetch_bytes_per_s)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "worker %u: price, watts, hazard or rates make no "
                            "sense",
                            worker->id);
    }
    return FM_OK;
}

static fm_status_t worker_room(fm_place_t *place, uint32_t id, fm_error_t *err)
{
    size_t words = id / 64 + 1;

    if (words > place->idle_words) {
        uint64_t *idle =
            fm_realloc(place->idle, 2 * words, sizeof(*place->idle));
        if (!idle) {
            return fm_no_memory(err);
        }
        memset(idle + place->idle_words, 0,
               (2 * words - place->idle_words) * sizeof(*idle));
        place->idle = idle;
        place->idle_words = 2 * words;
    }
    while (place->worker_count <= id) {
        fm_status_t rc =
            fm_grow((void *)&place->workers, &place->worker_capacity,
                    place->worker_count, sizeof(struct worker), err);
        if (rc < 0) {
            return rc;
        }
        place->workers[place->worker_count++] = (struct worker){0};
    }
    return FM_OK;
}

static fm_status_t class_room(fm_place_t *place, uint32_t class,
                              fm_error_t *err)
{
    while (place->class_count <= class) {
        fm_status_t rc =
            fm_grow((void *)&place->class_live, &place->class_capacity,
                    place->class_count, sizeof(*place->class_live), err);
        if (rc < 0) {
            return rc;
        }
        place->class_live[place->class_count++] = 0;
    }
    return FM_OK;
}

static fm_status_t resident_copy(struct worker *to,
                                 const fm_sched_worker_t *from, fm_error_t *err)
{
    if (from->resident_count > to->resident_capacity) {
        fm_digest_t *list = fm_realloc(to->resident, from->resident_count,
                                       sizeof(*to->resident));
        if (!list) {
            return fm_no_memory(err);
        }
        to->resident = list;
        to->resident_capacity = from->resident_count;
    }
    if (from->resident_count > 0) {
        memmove(to->resident, from->resident,
                from->resident_count * sizeof(*to->resident));
    }
    return FM_OK;
}

bool fm_place_is_idle(const fm_place_t *place, uint32_t worker)
{
    return place->idle[worker / 64] >> worker % 64 & 1;
}

uint32_t fm_place_idle_next(const fm_place_t *place, uint32_t from)
{
    size_t at = from / 64;

    if (at >= place->idle_words) {
        return NONE;
    }
    uint64_t word = place->idle[at] & UINT64_MAX << from % 64;
    while (word == 0) {
        if (++at == place->idle_words) {
            return NONE;
        }
        word = place->idle[at];
    }
    return (uint32_t)(at * 64) + (uint32_t)__builtin_ctzll(word);
}

static void idle_update(fm_place_t *place, uint32_t id)
{
    const struct worker *worker = &place->workers[id];
    uint64_t bit = (uint64_t)1 << id % 64;

    if (worker->known && !worker->busy && !worker->is.closed) {
        place->idle[id / 64] |= bit;
        place->version++;
    } else {
        place->idle[id / 64] &= ~bit;
    }
}

/* Count a worker in or out of the live ones, and tell the tenants how many
 * devices its class has. */
static void live_count(fm_place_t *place, uint32_t id, bool in)
{
    const struct worker *worker = &place->workers[id];
    uint32_t class = worker->is.device_class;

    if (!worker->known || worker->is.closed) {
        return;
    }
    place->live += in ? 1 : UINT32_MAX;
    place->class_live[class] += in ? 1 : UINT32_MAX;
    fm_tenants_capacity(fm_pool_tenants(place->pool), class,
                        place->class_live[class]);
}

fm_status_t fm_place_worker_put(fm_place_t *place,
                                const fm_sched_worker_t *worker,
                                fm_error_t *err)
{
    fm_status_t rc = worker_check(worker, err);

    if (rc < 0 || (rc = worker_room(place, worker->id, err)) < 0 ||
        (rc = class_room(place, worker->device_class, err)) < 0) {
        return rc;
    }
    struct worker *to = &place->workers[worker->id];
    if ((rc = resident_copy(to, worker, err)) < 0) {
        return rc;
    }
    live_count(place, worker->id, false);
    int64_t free_at_ns = to->known ? to->is.free_at_ns : INT64_MIN;
    to->is = *worker;
    to->is.free_at_ns = free_at_ns;
    to->is.resident = to->resident;
    to->known = true;
    live_count(place, worker->id, true);
    idle_update(place, worker->id);
    return place->policy->worker_put
               ? place->policy->worker_put(place, worker->id, err)
               : FM_OK;
}

void fm_place_worker_busy(fm_place_t *place, uint32_t worker, int64_t until_ns)
{
    if (worker >= place->worker_count || !place->workers[worker].known) {
        return;
    }
    place->workers[worker].busy = until_ns != INT64_MIN;
    place->workers[worker].is.free_at_ns = until_ns;
    idle_update(place, worker);
    if (place->policy->worker_busy) {
        place->policy->worker_busy(place, worker, until_ns);
    }
}

void fm_place_worker_drop(fm_place_t *place, uint32_t worker)
{
    if (worker >= place->worker_count || !place->workers[worker].known) {
        return;
    }
    live_count(place, worker, false);
    place->workers[worker].known = false;
    place->workers[worker].busy = false;
    idle_update(place, worker);
    if (place->policy->worker_drop) {
        place->policy->worker_drop(place, worker);
    }
}

uint32_t fm_place_reserved_for(const fm_place_t *place, uint32_t worker)
{
    return place->policy->reserved_for && worker < place->worker_count
               ? place->policy->reserved_for(place, worker)
               : NONE;
}

/* --- deciding ------------------------------------------------------------ */

void fm_place_cost_changed(fm_place_t *place)
{
    if (place->policy->cost_changed) {
        place->policy->cost_changed(place);
    }
}

bool fm_place_next(fm_place_t *place, int64_t now_ns,
                   fm_place_choice_t *choice_out)
{
    fm_place_choice_t choice = {.worker = FM_PLACE_NONE};
    bool chosen = place->policy->next(place, now_ns, &choice);

    *choice_out = choice;
    return chosen;
}

size_t fm_place_explain(fm_place_t *place, const fm_digest_t *batch_key,
                        int64_t now_ns, fm_sched_candidate_t *list, size_t cap,
                        fm_place_verdict_t *why)
{
    return place->policy->explain(place,
                                  fm_pool_batch_id(place->pool, batch_key),
                                  now_ns, list, cap, why);
}
