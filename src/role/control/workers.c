/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workers as the control plane sees them: greeted, heard, leased to, lost.
 * A lease is fenced by its number, which holds the instance: what an earlier
 * instance gave out can never be mistaken for ours.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "plan/key/key.h"
#include "role/control/internal.h"
#include "role/control/work.h"

/* Seconds and bytes that one load may claim. */
#define LOAD_MAX 1e15

void *fm_control_lease_destroy(struct lease *lease)
{
    if (lease) {
        free(lease->refs);
        free(lease->workers);
        free(lease);
    }
    return NULL;
}

void fm_control_worker_fini(struct worker *worker)
{
    fm_control_lease_destroy(worker->lease);
    free(worker->name);
    free(worker->host);
    free(worker->device_name);
    free(worker->resident);
    memset(worker, 0, sizeof(*worker));
}

fm_status_t fm_control_send(fm_control_t *control, uint32_t peer,
                            const fm_msg_t *msg, fm_error_t *err)
{
    fm_buf_t buf = {0};
    fm_status_t rc = fm_wire_encode(msg, &buf, err);

    if (rc >= 0) {
        rc = fm_link_send(control->link, peer, buf.data, buf.len, err);
    }
    fm_buf_fini(&buf);
    return rc;
}

static void refuse(fm_control_t *control, uint32_t peer, fm_status_t code,
                   const char *text)
{
    fm_msg_t msg = {.type = FM_MSG_ERROR, .error = {code, text}};

    (void)!fm_control_send(control, peer, &msg, NULL); /* best effort */
}

static struct worker *find_in_state(fm_control_t *control, uint32_t peer,
                                    enum worker_state state)
{
    for (size_t i = 0; i < control->worker_count; i++) {
        struct worker *worker = &control->workers[i];
        if (worker->state == state && worker->peer == peer) {
            return worker;
        }
    }
    return NULL;
}

static struct worker *find_worker(fm_control_t *control, uint32_t peer)
{
    return find_in_state(control, peer, WORKER_UP);
}

void fm_control_lease_drop(fm_control_t *control, struct worker *worker,
                           fm_pool_lease_end_t how)
{
    fm_error_t err = {0};

    if (!worker->lease) {
        return;
    }
    fm_pool_event_t event = {
        .kind = FM_POOL_LEASE_END,
        .lease_end = {.lease = worker->lease->lease,
                      .how = how,
                      .now_ns = fm_reactor_now_ns(control->reactor)}};
    fm_control_worker_free(control, worker);
    if (fm_pool_check(control->pool, &event, NULL, NULL) >= 0 &&
        fm_pool_apply(control->pool, &event, &err) < 0) {
        fm_control_fatal(control, &err);
    }
}

static void tell_owner(const fm_control_t *control, const struct worker *worker,
                       bool up, const char *why)
{
    if (control->events.on_worker) {
        control->events.on_worker(control->events.ctx, worker->name, up, why);
    }
}

static void note_gone(fm_control_t *control, uint32_t peer)
{
    fm_error_t err = {0};

    for (size_t i = 0; i < control->gone_count; i++) {
        if (control->gone[i] == peer) {
            return;
        }
    }
    if (fm_grow(&control->gone, &control->gone_capacity, control->gone_count,
                sizeof(*control->gone), &err) < 0) {
        fm_control_fatal(control, &err);
        return;
    }
    control->gone[control->gone_count++] = peer;
}

static void note_back(fm_control_t *control, uint32_t peer)
{
    for (size_t i = 0; i < control->gone_count; i++) {
        if (control->gone[i] == peer) {
            control->gone[i] = control->gone[--control->gone_count];
            return;
        }
    }
}

/* It is not coming back. */
static void worker_gone(fm_control_t *control, struct worker *worker,
                        const char *why, fm_pool_lease_end_t how)
{
    fm_control_lease_drop(control, worker, how);
    fm_control_worker_drop(control, worker);
    note_gone(control, worker->peer);
    tell_owner(control, worker, false, why);
    fm_control_worker_fini(worker);
}

/* Its lease runs elsewhere; should it speak again, it is welcome. */
static void worker_silent(fm_control_t *control, struct worker *worker)
{
    fm_control_lease_drop(control, worker, FM_POOL_END_FAULT);
    fm_control_worker_drop(control, worker);
    note_gone(control, worker->peer);
    worker->state = WORKER_SILENT;
    tell_owner(control, worker, false, "silent");
}

void fm_control_tick(void *ctx)
{
    fm_control_t *control = ctx;
    fm_msg_t alive = {.type = FM_MSG_HEARTBEAT,
                      .heartbeat.seq = ++control->tick_count};
    int64_t now = fm_reactor_now_ns(control->reactor);
    int64_t late = now - control->tick_ns - control->heartbeat_ns;

    control->tick_ns = now;
    for (size_t i = 0; i < control->worker_count; i++) {
        struct worker *worker = &control->workers[i];
        if (worker->state != WORKER_UP) {
            continue;
        }
        if (late > 0) {
            /* we were stopped, or busy: nobody was silent that long, we
             * did not listen */
            worker->heard_ns += late;
        }
        if (now - worker->heard_ns > control->silence_ns) {
            worker_silent(control, worker);
        } else {
            /* a full queue says as much as a beat: we are here */
            (void)!fm_control_send(control, worker->peer, &alive, NULL);
        }
    }
    if (!control->closing) {
        fm_control_why_waiting(control);
        fm_control_deferred_retry(control, true);
    }
    control->urgent = control->urgent || control->record_count > 0;
    control->place_wanted = true; /* waiting batches age */
}

void fm_control_on_peer(void *ctx, uint32_t peer, bool up, const char *reason)
{
    fm_control_t *control = ctx;
    struct worker *worker = find_worker(control, peer);

    if (worker && !up) {
        worker_gone(control, worker, reason, FM_POOL_END_FAULT);
    } else if (!up) {
        note_gone(control, peer);
    }
}

/* --- HELLO ---------------------------------------------------------------- */

/* What the worker is taken for, and its device class of the cost model. */
static fm_status_t find_site(const fm_control_t *control, struct worker *worker,
                             const fm_msg_hello_t *hello, fm_error_t *err)
{
    const fm_config_device_t device = {.kind = hello->devices[0].kind,
                                       .name = hello->devices[0].name,
                                       .host = hello->host,
                                       .worker = hello->name,
                                       .memory_bytes =
                                           hello->devices[0].memory_bytes,
                                       .price_per_hour = hello->price_per_hour,
                                       .watts = hello->watts};

    fm_config_worker(control->config, &device, &worker->site);
    worker->memory_bytes = worker->site.memory_bytes;
    return fm_cost_device_id(fm_state_cost(control->fabric->state),
                             worker->site.name, &worker->site.spec,
                             &worker->device_class, err);
}

static bool fill_worker(struct worker *worker, uint32_t peer,
                        const fm_msg_hello_t *hello)
{
    const fm_msg_device_t *device = &hello->devices[0];

    *worker = (struct worker){
        .state = WORKER_UP,
        .peer = peer,
        .name = fm_asprintf("%s/%s", hello->cell, hello->name),
        .host = fm_strdup(hello->host),
        .device_name = fm_strdup(device->name),
        .device =
            strcmp(device->kind, "cpu") == 0 ? FM_SCHED_CPU : FM_SCHED_GPU,
        .walltime_end_ns = hello->walltime_end_ns,
    };
    for (size_t i = 0; i < hello->task_type_count; i++) {
        uint32_t bit = 0;
        if (fm_key_task_find(hello->task_types[i], &bit) && bit < 64) {
            worker->task_types |= UINT64_C(1) << bit;
        }
    }
    return worker->name && worker->host && worker->device_name;
}

/*
 * HELLO: a worker offers itself.
 *   in   { name, devices, task_types, … }
 *   out  WELCOME { instance, worker, heartbeat_ms }
 * A repeat from the same peer replaces what was known: its lease is over.
 */
static void on_hello(fm_control_t *control, uint32_t peer, const fm_msg_t *msg)
{
    struct worker *worker = find_worker(control, peer);
    fm_error_t err = {0};

    if (msg->hello.device_count == 0) {
        refuse(control, peer, FM_ERR_PROTOCOL, "HELLO without a device");
        return;
    }
    if (!worker && control->worker_count >= FM_SCHED_WORKERS_MAX) {
        refuse(control, peer, FM_ERR_LIMIT,
               "as many workers have joined this run as it can number: start "
               "its command again");
        return;
    }
    if (worker) {
        worker_gone(control, worker, "greeted again", FM_POOL_END_FAULT);
    } else if (fm_grow(&control->workers, &control->worker_capacity,
                       control->worker_count, sizeof(*worker), &err) < 0) {
        fm_control_fatal(control, &err);
        return;
    } else {
        worker = &control->workers[control->worker_count++];
    }
    if (!fill_worker(worker, peer, &msg->hello)) {
        fm_control_worker_fini(worker);
        (void)fm_no_memory(&err);
        fm_control_fatal(control, &err);
        return;
    }
    if (find_site(control, worker, &msg->hello, &err) < 0) {
        refuse(control, peer, FM_ERR_LIMIT, err.text);
        fm_control_worker_fini(worker);
        return;
    }
    note_back(control, peer);
    fm_control_worker_put(control, worker);
    worker->heard_ns = fm_reactor_now_ns(control->reactor);
    fm_msg_t welcome = {
        .type = FM_MSG_WELCOME,
        .welcome = {.instance = control->instance,
                    .worker = (uint32_t)(worker - control->workers),
                    .fabric_dir = control->fabric->dir,
                    .heartbeat_ms =
                        (uint32_t)(control->heartbeat_ns / FM_NS_PER_MS),
                    .options = "{}"}};
    if (fm_control_send(control, peer, &welcome, &err) < 0) {
        worker_gone(control, worker, err.text, FM_POOL_END_FAULT);
        return;
    }
    if (control->closing) {
        fm_msg_t end = {.type = FM_MSG_SHUTDOWN, .shutdown = {"closing"}};
        (void)!fm_control_send(control, peer, &end, NULL);
    }
    control->place_wanted = true;
    tell_owner(control, worker, true, "");
}

/* --- HEARTBEAT, PROGRESS, CHECKPOINT -------------------------------------- */

static void set_resident(fm_control_t *control, struct worker *worker,
                         const char *const *models, size_t count)
{
    fm_digest_t *resident = fm_calloc(count, sizeof(*resident));
    size_t used = 0;

    if (!resident) {
        return; /* a hint: stale costs speed only */
    }
    for (size_t i = 0; i < count; i++) {
        used += fm_digest_parse(models[i], &resident[used]);
    }
    bool same = used == worker->resident_count;
    for (size_t i = 0; same && i < used; i++) {
        same = fm_digest_equal(&resident[i], &worker->resident[i]);
    }
    free(worker->resident);
    worker->resident = resident;
    worker->resident_count = used;
    if (!same) {
        /* not on every beat: a model that is being loaded is in no list yet,
         * and plan/sched already counts on it */
        fm_control_worker_put(control, worker);
        control->place_wanted = true;
    }
}

/* HEARTBEAT: alive.  in { busy, models, memory_bytes }  out nothing */
static void on_heartbeat(fm_control_t *control, uint32_t peer,
                         const fm_msg_t *msg)
{
    struct worker *worker = find_worker(control, peer);

    if (worker) {
        set_resident(control, worker, msg->heartbeat.models,
                     msg->heartbeat.model_count);
    }
}

static const fm_pool_ref_t *leased_ref(const struct worker *worker,
                                       uint64_t lease, uint32_t index)
{
    if (!worker || !worker->lease || worker->lease->lease != lease ||
        index >= worker->lease->count) {
        return NULL;
    }
    return &worker->lease->refs[index];
}

/* Progress that tells of a model that was loaded (docs/spec/executor.md): for
 * the cost model, not for people. */
static bool note_load(struct lease *lease, const char *metrics)
{
    fm_json_t *json = NULL;

    if (fm_json_parse(metrics, strlen(metrics), "metrics", &json, NULL) < 0) {
        return false;
    }
    double seconds = fm_json_get_real(json, "load_seconds", -1);
    double bytes = fm_json_get_real(json, "load_bytes", -1);
    fm_json_drop(json);
    if (!(seconds >= 0 && seconds < LOAD_MAX && bytes >= 0 &&
          bytes < LOAD_MAX)) {
        return false;
    }
    lease->load_s += seconds;
    lease->load_bytes += bytes;
    return true;
}

/* PROGRESS: for people.  in { lease, fraction, metrics }  out nothing */
static void on_progress(fm_control_t *control, uint32_t peer,
                        const fm_msg_t *msg)
{
    struct worker *worker = find_worker(control, peer);
    const fm_pool_ref_t *ref = leased_ref(worker, msg->progress.lease, 0);

    if (ref && note_load(worker->lease, msg->progress.metrics)) {
        return;
    }
    if (ref && control->events.on_progress) {
        control->events.on_progress(
            control->events.ctx,
            fm_state_run(control->fabric->state, ref->workflow), ref->node,
            msg->progress.fraction, msg->progress.metrics);
    }
}

/* CHECKPOINT: where an item can resume.  in { lease, index, digest, step }
 *   out nothing; the journal has it */
static void on_checkpoint(fm_control_t *control, uint32_t peer,
                          const fm_msg_t *msg)
{
    const fm_pool_ref_t *ref =
        leased_ref(find_worker(control, peer), msg->checkpoint.lease,
                   msg->checkpoint.index);
    uint8_t pair[64];

    if (ref) {
        memcpy(pair, ref->key.bytes, 32);
        memcpy(pair + 32, msg->checkpoint.digest.bytes, 32);
        fm_control_record(control, FM_RECORD_CHECKPOINT, pair, sizeof(pair));
    }
}

/* --- RESULT --------------------------------------------------------------- */

static uint8_t kind_number(const char *name)
{
    for (uint8_t i = 0; i < FM_CAS_KIND_COUNT; i++) {
        if (strcmp(fm_cas_kind_name((fm_cas_kind_t)i), name) == 0) {
            return i;
        }
    }
    return FM_CAS_BLOB;
}

/* Inline bytes must be what their digest says: the worker is not trusted. */
static const char *item_refusal(const struct lease *lease,
                                const fm_msg_result_item_t *item)
{
    if (item->index >= lease->count) {
        return "RESULT of an item that was not leased";
    }
    if (item->status == FM_ITEM_OK && item->inline_len > 0) {
        fm_digest_t digest = fm_sha256(item->inline_bytes, item->inline_len);
        if (!fm_digest_equal(&digest, &item->digest)) {
            return "RESULT whose inline bytes are not its digest's";
        }
    }
    return NULL;
}

static void add_entry(fm_buf_t *entries, const struct lease *lease,
                      const fm_msg_result_t *result,
                      const fm_msg_result_item_t *item, fm_buf_t *scratch)
{
    const fm_pool_ref_t *ref = &lease->refs[item->index];
    fm_record_entry_t entry = {.position = item->index,
                               .workflow = ref->workflow,
                               .node = ref->node,
                               .item = ref->item,
                               .key = ref->key,
                               .outcome = (fm_outcome_t)item->status};

    if (item->status == FM_ITEM_OK) {
        fm_buf_clear(scratch);
        /* a batch's objects are not told apart by item: each needs them all */
        for (size_t i = 0; i < result->object_count; i++) {
            fm_buf_add(scratch, result->objects[i].digest.bytes, 32);
        }
        entry.output = item->digest;
        entry.kind = kind_number(item->kind);
        entry.bytes =
            (fm_span_t){(const char *)item->inline_bytes, item->inline_len};
        entry.locator = (fm_span_t){item->locator, strlen(item->locator)};
        entry.objects = (fm_span_t){(const char *)scratch->data, scratch->len};
    } else {
        entry.error = (fm_span_t){item->error, strlen(item->error)};
    }
    fm_record_entry_add(entries, &entry);
}

/* Where the lease ran; NULL once that was said. */
static char *site_note(const struct worker *worker)
{
    const struct lease *lease = worker->lease;
    const fm_work_site_t site = {.device_class = worker->site.name,
                                 .spec = worker->site.spec,
                                 .load_s = lease->load_s,
                                 .load_bytes = lease->load_bytes};

    return lease->site_wanted ? fm_work_site_note("", &site) : NULL;
}

static void record_result(fm_control_t *control, struct worker *worker,
                          const fm_msg_result_t *result)
{
    struct lease *lease = worker->lease;
    fm_buf_t entries = {0};
    fm_buf_t scratch = {0};
    fm_buf_t buf = {0};

    for (size_t i = 0; i < result->item_count; i++) {
        add_entry(&entries, lease, result, &result->items[i], &scratch);
    }
    char *placement = site_note(worker);
    double joules = result->joules > 0
                        ? result->joules
                        : fm_cost_joules(result->seconds, worker->site.watts);
    fm_record_result_t record = {
        .lease = result->lease,
        .instance = result->instance,
        .worker = {worker->name, strlen(worker->name)},
        .device = {result->device, strlen(result->device)},
        .start_ns = lease->start_wall_ns,
        .seconds = result->seconds,
        .cpu_seconds = result->cpu_seconds,
        .joules = joules,
        .dollars =
            fm_cost_dollars(result->seconds, worker->site.price_per_hour),
        .placement = {placement ? placement : "",
                      placement ? strlen(placement) : 0},
        .final = result->final,
        .count = (uint32_t)result->item_count,
        .entries = {(const char *)entries.data, entries.len}};
    fm_record_result_encode(&record, &buf);
    if (buf.failed || entries.failed || scratch.failed) {
        fm_error_t err = {0};
        (void)fm_no_memory(&err);
        fm_control_fatal(control, &err);
    } else {
        fm_control_record(control, FM_RECORD_RESULT, buf.data, buf.len);
        lease->site_wanted = false;
    }
    free(placement);
    fm_buf_fini(&entries);
    fm_buf_fini(&scratch);
    fm_buf_fini(&buf);
}

/*
 * RESULT: a worker finished (part of) a batch.
 *   in   { lease, items: [{index, digest | inline}], final }
 *   out  ERROR at once when it is refused; otherwise the journal has it
 * A final result frees the worker at once; the pool hears of the lease's end
 * with the record, when that is durable.
 */
static void on_result(fm_control_t *control, uint32_t peer, const fm_msg_t *msg)
{
    struct worker *worker = find_worker(control, peer);
    const fm_msg_result_t *result = &msg->result;
    const char *refusal = NULL;

    if (!worker || !worker->lease || worker->lease->lease != result->lease ||
        result->instance != control->instance) {
        refuse(control, peer, FM_ERR_PROTOCOL,
               "RESULT of a lease that this worker does not hold");
        return;
    }
    for (size_t i = 0; !refusal && i < result->item_count; i++) {
        refusal = item_refusal(worker->lease, &result->items[i]);
    }
    if (refusal) {
        refuse(control, peer, FM_ERR_PROTOCOL, refusal);
        fm_control_lease_drop(control, worker, FM_POOL_END_FAULT);
        return;
    }
    record_result(control, worker, result);
    if (result->final) {
        fm_control_worker_free(control, worker);
    }
}

/* DRAIN: a worker takes no more.  in { reason, grace_ns }  out nothing */
static void on_drain(fm_control_t *control, uint32_t peer, const fm_msg_t *msg)
{
    struct worker *worker = find_worker(control, peer);

    (void)msg;
    if (worker) {
        worker->draining = true;
        fm_control_worker_put(control, worker);
        control->place_wanted = true; /* others may have waited for it */
    }
}

/* BYE: a worker leaves, or one that could not start.  in { reason }  out
 *   nothing */
static void on_bye(fm_control_t *control, uint32_t peer, const fm_msg_t *msg)
{
    const fm_control_events_t *events = &control->events;
    struct worker *worker = find_worker(control, peer);
    char name[32];

    if (worker) {
        bool asked = control->closing || worker->draining;
        worker_gone(control, worker, msg->bye.reason,
                    asked ? FM_POOL_END_DRAINED : FM_POOL_END_FAULT);
        return;
    }
    note_gone(control, peer);
    if (events->on_worker) {
        (void)snprintf(name, sizeof(name), "of peer %u", peer);
        events->on_worker(events->ctx, name, false, msg->bye.reason);
    }
}

static const struct handler {
    fm_msg_type_t type;
    void (*handle)(fm_control_t *control, uint32_t peer, const fm_msg_t *msg);
} handlers[] = {
    {FM_MSG_HELLO, on_hello},
    {FM_MSG_HEARTBEAT, on_heartbeat},
    {FM_MSG_RESULT, on_result},
    {FM_MSG_PROGRESS, on_progress},
    {FM_MSG_CHECKPOINT, on_checkpoint},
    {FM_MSG_DRAIN, on_drain},
    {FM_MSG_BYE, on_bye},
};

void fm_control_on_message(void *ctx, uint32_t peer, const uint8_t *bytes,
                           size_t len)
{
    fm_control_t *control = ctx;
    struct worker *worker = find_worker(control, peer);
    fm_msg_t msg = {0};
    fm_error_t err = {0};

    if (fm_wire_decode(bytes, len, &msg, &err) < 0) {
        refuse(control, peer, err.status, err.text);
        return;
    }
    if (!worker &&
        (worker = find_in_state(control, peer, WORKER_SILENT)) != NULL) {
        worker->state = WORKER_UP;
        fm_control_worker_put(control, worker);
        note_back(control, peer);
        control->place_wanted = true;
        tell_owner(control, worker, true, "heard again");
    }
    if (worker) {
        worker->heard_ns = fm_reactor_now_ns(control->reactor);
    }
    if (!(fm_msg_senders(msg.type) & FM_PEER_WORKER)) {
        refuse(control, peer, FM_ERR_PROTOCOL, "not a worker's message");
    }
    for (size_t i = 0; i < FM_COUNT_OF(handlers); i++) {
        if (handlers[i].type == msg.type) {
            handlers[i].handle(control, peer, &msg);
            break;
        }
    }
    fm_msg_fini(&msg);
}
