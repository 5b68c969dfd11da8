/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Scheduling: what the control plane knows of workers and batch keys goes to
 * plan/place as it changes; its choices become leases.  A turn costs what
 * changed, never what is queued.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "plan/key/key.h"
#include "role/control/internal.h"
#include "role/control/needs.h"

/* Without a deadline in the workflow, an item may take this much longer than
 * estimated, and never less than the floor: only the hung are to be killed. */
#define DEADLINE_FACTOR 50
#define DEADLINE_MIN_NS (600 * FM_NS_PER_S)
#define DEADLINE_GRACE_NS (30 * FM_NS_PER_S)

/* A rate is asked for at the size of a model that fits a small device. */
#define LOAD_SAMPLE_BYTES 1e9
/* What was learned is taken up no more often than this: all estimates are
 * taken anew then. */
#define LEARN_NS (100 * FM_NS_PER_MS)
/* Candidates of a choice that are looked at for its record. */
#define LOOK_MAX 24u

/* --- workers -------------------------------------------------------------- */

/* Bytes a second of models from storage, by what loads took. */
static double load_rate(const fm_control_t *control, uint32_t device_class)
{
    fm_cost_estimate_t load;

    fm_cost_load(fm_state_cost(control->fabric->state), device_class,
                 LOAD_SAMPLE_BYTES, &load);
    return LOAD_SAMPLE_BYTES / load.seconds;
}

/* Workers of one host are near one another. */
static uint32_t domain_of(const fm_control_t *control, uint32_t index)
{
    const char *host = control->workers[index].host;

    for (uint32_t i = 0; i < index; i++) {
        const struct worker *other = &control->workers[i];
        if (other->host && strcmp(other->host, host) == 0) {
            return other->domain;
        }
    }
    return index;
}

void fm_control_worker_put(fm_control_t *control, struct worker *worker)
{
    uint32_t id = (uint32_t)(worker - control->workers);
    int64_t now = fm_reactor_now_ns(control->reactor);
    fm_error_t err = {0};

    worker->domain = domain_of(control, id);
    fm_sched_worker_t to = {
        .id = id,
        .device_class = worker->device_class,
        .device = worker->device,
        .task_types = worker->task_types,
        .memory_bytes = worker->memory_bytes,
        .closed = worker->draining,
        .resident = worker->resident,
        .resident_count = worker->resident_count < FM_PLACE_RESIDENT_MAX
                              ? worker->resident_count
                              : FM_PLACE_RESIDENT_MAX,
        .domain = worker->domain,
        .walltime_end_ns =
            worker->walltime_end_ns
                ? worker->walltime_end_ns - fm_clock_wall_ns() + now
                : 0,
        .price_per_hour = worker->site.price_per_hour,
        .watts = worker->site.watts,
        .idle_watts = worker->site.idle_watts,
        .hazard_per_hour = worker->site.hazard_per_hour,
        .load_bytes_per_s = load_rate(control, worker->device_class),
        .fetch_bytes_per_s = worker->site.fetch_bytes_per_s,
    };
    if (fm_place_worker_put(control->place, &to, &err) < 0) {
        fm_control_fatal(control, &err);
    }
}

void fm_control_worker_drop(fm_control_t *control, const struct worker *worker)
{
    fm_place_worker_drop(control->place, (uint32_t)(worker - control->workers));
}

/* The workers of a gang are held by the lease of its first. */
static void gang_busy(fm_control_t *control, const struct lease *lease,
                      int64_t until_ns)
{
    for (uint32_t i = 0; i < lease->gang; i++) {
        struct worker *worker = &control->workers[lease->workers[i]];
        if (i > 0 && worker->lease) {
            continue; /* it left, came back, and was given work of its own */
        }
        worker->held = until_ns != INT64_MIN;
        fm_place_worker_busy(control->place, lease->workers[i], until_ns);
    }
}

void fm_control_worker_free(fm_control_t *control, struct worker *worker)
{
    if (worker->lease) {
        gang_busy(control, worker->lease, INT64_MIN);
        fm_control_lease_destroy(worker->lease);
        worker->lease = NULL;
        control->place_wanted = true;
    }
}

/* --- needs ---------------------------------------------------------------- */

static fm_status_t tasks_put(fm_control_t *control, fm_error_t *err)
{
    const fm_batch_info_t *info = NULL;
    fm_digest_t key;
    fm_status_t rc = FM_OK;

    while (rc >= 0 &&
           fm_state_next_batch(control->fabric->state, &key, &info)) {
        fm_sched_object_t model;
        fm_place_task_t task;
        fm_needs_task(info, &task, &model);
        rc = fm_place_task_put(control->place, &key, &task, err);
    }
    return rc;
}

/* --- leases --------------------------------------------------------------- */

static struct lease *lease_make(const fm_place_choice_t *choice, uint32_t items,
                                int64_t now)
{
    struct lease *lease = fm_calloc(1, sizeof(*lease));

    if (!lease || !(lease->refs = fm_calloc(items, sizeof(*lease->refs))) ||
        !(lease->workers = fm_calloc(choice->gang, sizeof(*lease->workers)))) {
        return fm_control_lease_destroy(lease);
    }
    memcpy(lease->workers, choice->workers,
           choice->gang * sizeof(*lease->workers));
    lease->gang = choice->gang;
    lease->site_wanted = true;
    lease->count = items;
    lease->start_wall_ns = fm_clock_wall_ns();
    lease->expected_end_ns = now + (int64_t)(choice->seconds * 1e9);
    return lease;
}

static struct lease *lease_take(fm_control_t *control,
                                const fm_place_choice_t *choice, int64_t now)
{
    uint64_t number = (uint64_t)control->instance << 32 |
                      (++control->lease_counter & UINT32_MAX);
    fm_pool_event_t event = {.kind = FM_POOL_LEASE,
                             .lease = {.lease = number,
                                       .worker = choice->worker,
                                       .batch_key = choice->batch_key,
                                       .max_items = choice->size,
                                       .max_nodes = choice->max_nodes,
                                       .ignore_avoid = choice->avoid_waived,
                                       .resource = choice->resource,
                                       .seconds = choice->seconds,
                                       .dollars = choice->dollars,
                                       .joules = choice->joules,
                                       .now_ns = now}};
    fm_pool_lease_info_t info;
    struct lease *lease = NULL;

    if (fm_pool_check(control->pool, &event, NULL, NULL) < 0 ||
        fm_pool_apply(control->pool, &event, NULL) < 0 ||
        !fm_pool_lease_get(control->pool, number, &info) ||
        !(lease = lease_make(choice, info.items, now))) {
        return NULL;
    }
    lease->lease = number;
    for (uint32_t i = 0; i < info.items; i++) {
        (void)fm_pool_lease_item(control->pool, number, i, &lease->refs[i]);
    }
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

static bool place_one(fm_control_t *control, const fm_place_choice_t *choice,
                      int64_t now)
{
    struct worker *worker = &control->workers[choice->worker];
    const fm_batch_info_t *info =
        fm_state_batch(control->fabric->state, &choice->batch_key);
    fm_error_t err = {0};
    fm_sched_candidate_t others[LOOK_MAX];
    size_t count = fm_control_look(control, choice, now, others, LOOK_MAX);
    struct lease *lease =
        worker->lease || !info ? NULL : lease_take(control, choice, now);

    if (!lease) {
        return false;
    }
    worker->lease = lease;
    gang_busy(control, lease, lease->expected_end_ns);
    fm_control_why_placed(control, lease, choice, others, count);
    if (lease_send(control, worker, lease, &choice->terms, info, &err) < 0) {
        fm_control_lease_drop(control, worker, FM_POOL_END_DRAINED);
        return false;
    }
    return true;
}

static void wake(void *ctx)
{
    fm_control_t *control = ctx;

    control->wake_timer = 0;
    control->place_wanted = true;
}

/* Look again at @p wake_ns, though nothing changes. */
static void wake_at(fm_control_t *control, int64_t wake_ns, int64_t now)
{
    fm_error_t err = {0};

    if (control->wake_timer && control->wake_ns == wake_ns) {
        return;
    }
    if (control->wake_timer) {
        fm_reactor_timer_stop(control->reactor, control->wake_timer);
        control->wake_timer = 0;
    }
    if (wake_ns > 0 && fm_reactor_timer_start(
                           control->reactor, wake_ns > now ? wake_ns - now : 1,
                           0, wake, control, &control->wake_timer, &err) < 0) {
        fm_control_fatal(control, &err);
    }
    control->wake_ns = wake_ns;
}

size_t fm_control_place(fm_control_t *control)
{
    int64_t now = fm_reactor_now_ns(control->reactor);
    fm_place_choice_t choice;
    fm_error_t err = {0};
    size_t placed = 0;

    if (tasks_put(control, &err) < 0) {
        fm_control_fatal(control, &err);
        return 0;
    }
    if (control->learned && now - control->learned_ns >= LEARN_NS) {
        fm_place_cost_changed(control->place);
        control->learned = false;
        control->learned_ns = now;
    }
    while (fm_place_next(control->place, now, &choice)) {
        if (!place_one(control, &choice, now)) {
            return placed; /* the same choice would come again */
        }
        placed++;
    }
    wake_at(control, choice.wake_ns, now);
    return placed;
}
