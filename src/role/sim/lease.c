/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases: granted as plan/place decides, run for their true time, settled item
 * by item as an executor reports them, cut short when their worker goes.
 *
 * An item of continuous batching ends when its own tokens are done, so the
 * shortest come first; other items come one after the other.  Parts group them
 * (input settle_parts).  A baseline's
 * task is a whole node and reports at its end.
 */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "role/sim/internal.h"

enum salt { SALT_NOISE = 201, SALT_FAULT };

/* --- grant ------------------------------------------------------------------
 */

static int by_length(const void *left, const void *right)
{
    const struct length *a = left, *b = right;

    if (a->tokens != b->tokens) {
        return a->tokens < b->tokens ? -1 : 1;
    }
    return a->position < b->position ? -1 : a->position > b->position;
}

static fm_status_t room_for(struct sim *sim, struct lease *lease,
                            uint32_t items, fm_error_t *err)
{
    if (items > sim->length_capacity) {
        struct length *more =
            fm_realloc(sim->lengths, items, sizeof(*sim->lengths));

        if (!more) {
            return fm_no_memory(err);
        }
        sim->lengths = more;
        sim->length_capacity = items;
    }
    if (items > lease->order_capacity) {
        uint32_t *more = fm_realloc(lease->order, items, sizeof(*lease->order));

        if (!more) {
            return fm_no_memory(err);
        }
        lease->order = more;
        lease->order_capacity = items;
    }
    return FM_OK;
}

/* When an item ends, in units of its work: decoded items run side by side, all
 * others one after the other. */
static double end_of(const fm_sim_stage_t *stage, double out,
                     const struct sums *sums)
{
    switch (stage->work) {
    case FM_SIM_INFERENCE:
        return out;
    case FM_SIM_FORWARD:
        return 1; /* one pass for all */
    case FM_SIM_TRAIN:
    case FM_SIM_TRAIN_LORA:
        return sums->train;
    case FM_SIM_FIXED:
        break;
    }
    return sums->fixed_s;
}

/* Look at every item: lengths, adapters, inputs, when its node first ran. */
static fm_status_t items_read(struct sim *sim, uint32_t worker,
                              struct sums *sums, double *fetch_bytes,
                              fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];
    struct lease *lease = &at->lease;
    fm_pool_ref_t ref;
    fm_digest_t adapter;
    fm_status_t rc;

    for (uint32_t i = 0; i < lease->items; i++) {
        if (!fm_pool_lease_item(sim->pool, lease->id, i, &ref)) {
            return fm_error_set(err, FM_ERR_INTERNAL,
                                "lease %llu has no item %u",
                                (unsigned long long)lease->id, i);
        }
        struct flow *flow = sim->flows[ref.workflow];
        struct node *node = &flow->nodes[ref.node];
        const fm_sim_stage_t *stage = &flow->stages[ref.node];
        double out = fm_sim_item_tokens(stage, &ref.key);

        fm_sim_sums_add(stage, out, sums);
        sim->lengths[i] = (struct length){(float)end_of(stage, out, sums), i};
        if (node->first_ns < 0) {
            node->first_ns = sim->now_ns;
        }
        if (flow->first_ns < 0) {
            flow->first_ns = sim->now_ns;
        }
        if (stage->input_bytes > 0 &&
            (stage->dep_count == 0 ||
             flow->nodes[stage->deps[0]].domain != at->domain)) {
            *fetch_bytes += stage->input_bytes;
        }
        node->domain = at->domain;
        if (fm_sim_node_adapter(flow, ref.node, &adapter)) {
            uint64_t bytes = sim->input->models[stage->model].adapter_bytes;
            bool there;

            if ((rc = fm_sim_touch(sim, worker, &adapter, bytes, &there, err)) <
                0) {
                return rc;
            }
            if (!there) {
                lease->load_bytes += (double)bytes;
                sim->metrics.result.loads++;
            }
        }
    }
    return FM_OK;
}

/* Bytes to read before the batch can start. */
static fm_status_t model_load(struct sim *sim, uint32_t worker,
                              const struct task *task, fm_error_t *err)
{
    const fm_sim_model_t *model;
    fm_status_t rc;
    bool there;

    if (!task->has_model) {
        return FM_OK;
    }
    model = &sim->input->models[task->base];
    if ((rc = fm_sim_touch(sim, worker, &task->model, model->weight_bytes,
                           &there, err)) < 0) {
        return rc;
    }
    if (!there) {
        sim->workers[worker].lease.load_bytes +=
            (double)fm_sim_load_bytes(model);
        sim->metrics.result.loads++;
    }
    return FM_OK;
}

/* Training that was interrupted goes on from its checkpoint, which has to be
 * read. */
static void resume(struct sim *sim, const struct task *task,
                   struct lease *lease)
{
    const fm_sim_model_t *model;
    fm_pool_ref_t ref;
    const uint64_t *bits;

    if (task->work != FM_SIM_TRAIN && task->work != FM_SIM_TRAIN_LORA) {
        return;
    }
    if (lease->items != 1 ||
        !fm_pool_lease_item(sim->pool, lease->id, 0, &ref) ||
        !(bits = fm_map_get(sim->progress, &ref.key))) {
        return;
    }
    model = &sim->input->models[task->base];
    lease->progress = fm_sim_real(*bits);
    lease->load_bytes += task->work == FM_SIM_TRAIN
                             ? (double)model->weight_bytes
                             : (double)model->adapter_bytes;
}

static void parts_make(struct sim *sim, struct lease *lease)
{
    uint32_t n = lease->items, parts = sim->settle_parts;
    double longest;

    qsort(sim->lengths, n, sizeof(*sim->lengths), by_length);
    longest = sim->lengths[n - 1].tokens;
    lease->ordered = sim->lengths[0].tokens < (float)longest;
    if (!lease->ordered || sim->whole) {
        parts = 1;
    }
    if (parts > n) {
        parts = n;
    }
    for (uint32_t i = 0; lease->ordered && i < n; i++) {
        lease->order[i] = sim->lengths[i].position;
    }
    for (uint32_t p = 0; p < parts; p++) {
        uint32_t end = (uint32_t)((uint64_t)n * (p + 1) / parts);

        lease->part_end[p] = end;
        lease->part_s[p] = lease->run_s * (sim->lengths[end - 1].tokens /
                                           fmax(longest, 1e-30));
    }
    lease->part_s[parts - 1] = lease->run_s;
    lease->part_count = parts;
}

static double noise(const struct sim *sim, uint64_t lease)
{
    double s = sim->input->noise;
    fm_digest_t key;

    if (s <= 0) {
        return 1;
    }
    key = fm_sim_digest(sim->input->seed, lease, 0, 0);
    return exp(s * fm_sim_normal(&key, SALT_NOISE) - s * s / 2);
}

static fm_status_t part_schedule(struct sim *sim, uint32_t worker,
                                 fm_error_t *err)
{
    const struct worker *at = &sim->workers[worker];
    const struct lease *lease = &at->lease;

    return fm_sim_at(sim,
                     lease->execute_ns + fm_sim_ns(lease->part_s[lease->part]),
                     EVENT_PART, worker, at->generation, err);
}

/* The lease was applied: what it costs in truth. */
static fm_status_t lease_run(struct sim *sim, uint32_t worker, uint32_t index,
                             fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];
    const fm_sim_class_t *class = &sim->classes[at->class_index];
    const struct task *task = &sim->tasks[index];
    struct lease *lease = &at->lease;
    struct usage *usage = fm_sim_usage(sim, at->class_index);
    uint64_t loads = sim->metrics.result.loads;
    struct sums sums = {0};
    double fetch_bytes = 0, fetch_s;
    uint32_t evicted;
    fm_status_t rc;

    if ((rc = room_for(sim, lease, lease->items, err)) < 0 ||
        (rc = model_load(sim, worker, task, err)) < 0 ||
        (rc = items_read(sim, worker, &sums, &fetch_bytes, err)) < 0) {
        return rc;
    }
    resume(sim, task, lease);
    evicted = fm_sim_evict(sim, worker,
                           task->memory_bytes +
                               task->item_memory_bytes * lease->items);
    lease->load_s = lease->load_bytes / class->load_bytes_per_s;
    fetch_s = fetch_bytes / class->fetch_bytes_per_s;
    lease->execute_ns = sim->now_ns + fm_sim_ns(lease->load_s + fetch_s);
    lease->run_s = fm_sim_truth(sim, task, at->class_index, &sums) *
                   noise(sim, lease->id) * (1 - lease->progress);
    lease->tokens = (sums.out + sums.train) * (1 - lease->progress) +
                    (task->work == FM_SIM_FORWARD ? sums.in : 0);
    parts_make(sim, lease);
    usage->busy++;
    usage->leases++;
    sim->leased++;
    sim->metrics.result.load_bytes += lease->load_bytes;
    if (evicted > 0 || sim->metrics.result.loads != loads) {
        if ((rc = fm_sim_worker_tell(sim, worker, err)) < 0) {
            return rc;
        }
    }
    fm_place_worker_busy(sim->place, worker,
                         sim->now_ns + fm_sim_ns(lease->expected_s));
    return part_schedule(sim, worker, err);
}

static fm_status_t grant(struct sim *sim, const fm_place_choice_t *choice,
                         fm_error_t *err)
{
    struct worker *at = &sim->workers[choice->worker];
    const uint64_t *task = fm_map_get(sim->task_ids, &choice->batch_key);
    fm_pool_event_t event = {
        .kind = FM_POOL_LEASE,
        .lease = {.lease = sim->lease_number + 1,
                  .worker = choice->worker,
                  .batch_key = choice->batch_key,
                  .max_items = choice->size,
                  .max_nodes =
                      sim->input->ablation.no_batching ? 1 : choice->max_nodes,
                  .ignore_avoid = choice->avoid_waived,
                  .now_ns = sim->now_ns,
                  .resource = choice->resource,
                  .seconds = choice->seconds,
                  .dollars = choice->dollars,
                  .joules = choice->joules}};
    fm_pool_lease_info_t info;
    uint32_t *order = at->lease.order;
    size_t capacity = at->lease.order_capacity;
    fm_status_t rc;

    if (!task || at->state != WORKER_UP || at->lease.id != 0) {
        return fm_error_set(err, FM_ERR_INTERNAL,
                            "worker %u was chosen and cannot run anything",
                            choice->worker);
    }
    if ((rc = fm_sim_event(sim, &event, err)) < 0) {
        return rc;
    }
    sim->lease_number++;
    if (!fm_pool_lease_get(sim->pool, sim->lease_number, &info)) {
        return fm_error_set(err, FM_ERR_INTERNAL, "lease %llu is not known",
                            (unsigned long long)sim->lease_number);
    }
    at->generation++;
    at->lease = (struct lease){.id = sim->lease_number,
                               .task = (uint32_t)*task,
                               .items = info.items,
                               .begin_ns = sim->now_ns,
                               .expected_s = choice->seconds,
                               .work = info.work,
                               .order = order,
                               .order_capacity = capacity};
    fm_sim_mark(sim, info.items, choice->worker, at->lease.id);
    sim->metrics.result.leases++;
    return lease_run(sim, choice->worker, (uint32_t)*task, err);
}

fm_status_t fm_sim_place_all(struct sim *sim, fm_error_t *err)
{
    fm_place_choice_t choice;
    fm_status_t rc = FM_OK;
    bool more = true;

    while (more && rc == FM_OK) {
        int64_t start_ns = fm_sim_clock(sim);

        more = fm_place_next(sim->place, sim->now_ns, &choice);
        sim->decide_ns += fm_sim_clock(sim) - start_ns;
        sim->metrics.result.decisions++;
        if (more) {
            rc = grant(sim, &choice, err);
        }
    }
    if (rc == FM_OK && choice.wake_ns > sim->now_ns &&
        choice.wake_ns < sim->wake_ns) {
        sim->wake_ns = choice.wake_ns;
        rc = fm_sim_at(sim, choice.wake_ns, EVENT_WAKE, 0, 0, err);
    }
    return rc;
}

/* --- settle ------------------------------------------------------------------
 */

static bool fails(const struct sim *sim, const struct lease *lease,
                  const fm_digest_t *key)
{
    double share = sim->failures.task_error_share;
    fm_digest_t mixed;

    if (share <= 0) {
        return false;
    }
    mixed = fm_sim_mix(key, sim->input->seed);
    return fm_sim_uniform(&mixed, SALT_FAULT + lease->id) < share;
}

/* An item that nobody waits for any more is left to the lease's end. */
static fm_status_t item_settle(struct sim *sim, uint32_t worker,
                               uint32_t position, double seconds,
                               fm_error_t *err)
{
    const struct worker *at = &sim->workers[worker];
    const fm_sim_class_t *class = &sim->classes[at->class_index];
    fm_pool_ref_t ref;
    bool failed;

    if (!fm_pool_lease_item(sim->pool, at->lease.id, position, &ref)) {
        return FM_OK;
    }
    failed = fails(sim, &at->lease, &ref.key);
    sim->metrics.result.task_errors += failed;
    sim->metrics.result.executed += !failed;
    return fm_sim_event(
        sim,
        &(fm_pool_event_t){
            .kind = FM_POOL_RESULT,
            .result = {.lease = at->lease.id,
                       .position = position,
                       .key = ref.key,
                       .outcome = failed ? FM_POOL_TASK_ERROR : FM_POOL_OK,
                       .output = ref.key,
                       .now_ns = sim->now_ns,
                       .seconds = seconds,
                       .dollars =
                           fm_cost_dollars(seconds, class->price_per_hour),
                       .joules = fm_cost_joules(seconds, class->watts)}},
        err);
}

/* Count what a lease took, up to now. */
static void lease_count(struct sim *sim, uint32_t worker)
{
    struct worker *at = &sim->workers[worker];
    struct lease *lease = &at->lease;
    struct usage *usage = fm_sim_usage(sim, at->class_index);
    double spent_s = seconds_of(sim->now_ns - lease->begin_ns);

    if (sim->now_ns > lease->execute_ns) {
        usage->execute_s += seconds_of(sim->now_ns - lease->execute_ns);
    }
    usage->load_s += fmin(lease->load_s, spent_s);
    usage->items += lease->settled;
    usage->busy--;
    sim->leased--;
    sim->busy_ns = sim->now_ns;
    at->idle_ns = sim->now_ns;
    at->generation++;
    lease->id = 0;
}

static fm_status_t lease_end(struct sim *sim, uint64_t id,
                             fm_pool_lease_end_t how, fm_error_t *err)
{
    return fm_sim_event(sim,
                        &(fm_pool_event_t){.kind = FM_POOL_LEASE_END,
                                           .lease_end = {id, how, sim->now_ns}},
                        err);
}

/* Tell the scheduler when enough was learned since it last heard: after every
 * result at first, then each time 3 % more are known. */
static void tell_cost(struct sim *sim)
{
    sim->learned++;
    if (sim->learned >= sim->told + 1 + sim->told / 32) {
        sim->told = sim->learned;
        fm_place_cost_changed(sim->place);
    }
}

static fm_status_t learn(struct sim *sim, const struct worker *at,
                         fm_error_t *err)
{
    const struct lease *lease = &at->lease;
    const struct task *task = &sim->tasks[lease->task];
    uint32_t device = sim->device_classes[at->class_index];
    fm_status_t rc = FM_OK;

    if (sim->input->know || lease->progress > 0) {
        return FM_OK;
    }
    if (lease->load_bytes > 0) {
        rc = fm_cost_learn_load(sim->cost, device, lease->load_bytes,
                                lease->load_s, err);
    }
    if (rc == FM_OK) {
        rc = fm_cost_learn(sim->cost, sim->shapes[task->shape].task_class,
                           device, lease->work, lease->run_s, err);
    }
    tell_cost(sim);
    return rc;
}

static void progress_forget(struct sim *sim, const struct lease *lease)
{
    fm_pool_ref_t ref;

    if (lease->progress > 0 &&
        fm_pool_lease_item(sim->pool, lease->id, 0, &ref)) {
        fm_map_remove(sim->progress, &ref.key);
    }
}

static fm_status_t finish(struct sim *sim, uint32_t worker, fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];
    uint64_t id = at->lease.id;
    fm_status_t rc = learn(sim, at, err);

    if (rc < 0) {
        return rc;
    }
    sim->metrics.result.tokens += at->lease.tokens;
    fm_sim_mark(sim, 1, worker, id);
    lease_count(sim, worker);
    if ((rc = lease_end(sim, id, FM_POOL_END_DRAINED, err)) < 0) {
        return rc;
    }
    return fm_sim_worker_idle(sim, worker, err);
}

fm_status_t fm_sim_part(struct sim *sim, uint32_t worker, fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];
    struct lease *lease = &at->lease;
    uint32_t end = lease->part_end[lease->part];
    uint64_t id = lease->id;
    double seconds =
        seconds_of(lease->execute_ns - lease->begin_ns) + lease->run_s;
    fm_status_t rc;

    progress_forget(sim, lease);
    for (uint32_t i = lease->settled; i < end; i++) {
        rc = item_settle(sim, worker, lease->ordered ? lease->order[i] : i,
                         seconds / lease->items, err);
        if (rc < 0) {
            return rc;
        }
    }
    lease->settled = end;
    lease->part++;
    if ((rc = fm_sim_notices(sim, err)) < 0 || lease->id != id) {
        return rc; /* a notice may have ended it */
    }
    return lease->part < lease->part_count ? part_schedule(sim, worker, err)
                                           : finish(sim, worker, err);
}

/* --- cut ---------------------------------------------------------------------
 */

/* Seconds of execution that a training keeps when it ends after @p run_s. */
static double kept_s(const struct sim *sim, double run_s, bool saved)
{
    return saved ? run_s : floor(run_s / sim->checkpoint_s) * sim->checkpoint_s;
}

static fm_status_t progress_save(struct sim *sim, const struct lease *lease,
                                 bool saved, double *lost_s, fm_error_t *err)
{
    const struct task *task = &sim->tasks[lease->task];
    double run_s = seconds_of(sim->now_ns - lease->execute_ns), kept;
    fm_pool_ref_t ref;

    run_s = run_s < 0 ? 0 : run_s;
    *lost_s = run_s * (lease->items - lease->settled) / lease->items;
    if ((task->work != FM_SIM_TRAIN && task->work != FM_SIM_TRAIN_LORA) ||
        lease->items != 1 ||
        !fm_pool_lease_item(sim->pool, lease->id, 0, &ref)) {
        return FM_OK;
    }
    kept = kept_s(sim, run_s, saved);
    *lost_s = run_s - kept;
    if (kept <= 0) {
        return FM_OK;
    }
    return fm_map_put(sim->progress, &ref.key,
                      fm_sim_bits(lease->progress +
                                  (1 - lease->progress) * kept / lease->run_s),
                      err);
}

fm_status_t fm_sim_cut(struct sim *sim, uint32_t worker,
                       fm_pool_lease_end_t how, bool saved, fm_error_t *err)
{
    struct worker *at = &sim->workers[worker];
    uint64_t id = at->lease.id;
    double lost_s = 0;
    fm_status_t rc;

    if (id == 0) {
        return FM_OK;
    }
    if ((rc = progress_save(sim, &at->lease, saved, &lost_s, err)) < 0) {
        return rc;
    }
    sim->metrics.result.wasted_s += lost_s;
    sim->metrics.result.requeues++;
    fm_sim_mark(sim, 2, worker, id);
    lease_count(sim, worker);
    if ((rc = lease_end(sim, id, how, err)) < 0) {
        return rc;
    }
    return at->state == WORKER_UP ? fm_sim_worker_idle(sim, worker, err)
                                  : FM_OK;
}
