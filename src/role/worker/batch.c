/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One lease at a time: from the LEASE message to the executor, and its items
 * back as RESULT messages.  Every index of a lease is reported exactly once,
 * whatever the executor does; the last RESULT is marked final.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "role/worker/internal.h"

/* A RESULT is sent when this much waits: large enough that a no-op batch is
 * one message, far below the bound of a message. */
#define FLUSH_ITEMS 1024u
#define FLUSH_BYTES ((size_t)4 << 20)

void fm_worker_item_fini(struct pending_item *item)
{
    free(item->kind);
    free(item->bytes);
    free(item->locator);
    free(item->error);
}

static void objects_clear(struct pending_objects *objects)
{
    for (size_t i = 0; i < objects->count; i++) {
        free((char *)(uintptr_t)objects->list[i].locator);
    }
    objects->count = 0;
}

void fm_worker_objects_fini(struct pending_objects *objects)
{
    objects_clear(objects);
    free(objects->list);
}

static void results_clear(struct batch *batch)
{
    for (size_t i = 0; i < batch->item_count; i++) {
        fm_worker_item_fini(&batch->items[i]);
    }
    objects_clear(&batch->objects);
    batch->item_count = 0;
    batch->item_bytes = 0;
}

/* The executor has it, or never will. */
static void input_clear(struct batch *batch)
{
    for (size_t i = 0; batch->values && i < batch->value_count; i++) {
        fm_json_drop(batch->values[i]);
    }
    free(batch->values);
    batch->values = NULL;
    batch->value_count = 0;
    batch->params = fm_json_drop(batch->params);
    batch->hints = fm_json_drop(batch->hints);
    if (batch->msg.type) {
        fm_msg_fini(&batch->msg);
        memset(&batch->msg, 0, sizeof(batch->msg));
    }
}

void fm_worker_batch_fini(struct batch *batch)
{
    input_clear(batch);
    results_clear(batch);
    free(batch->open);
    free(batch->items);
    free(batch->objects.list);
    memset(batch, 0, sizeof(*batch));
}

static void flush(fm_worker_t *worker, bool final)
{
    struct batch *batch = &worker->batch;
    int64_t now = fm_clock_mono_ns();
    fm_msg_result_item_t *items = NULL;

    if (batch->item_count == 0 && !final) {
        return;
    }
    items = fm_calloc(batch->item_count, sizeof(*items));
    if (!items) {
        fm_worker_end(worker, FM_ERR_NO_MEMORY, "out of memory");
        return;
    }
    for (size_t i = 0; i < batch->item_count; i++) {
        const struct pending_item *from = &batch->items[i];
        items[i] = (fm_msg_result_item_t){
            .index = from->index,
            .status = (uint32_t)from->status,
            .kind = from->kind,
            .digest = from->digest,
            .inline_bytes = (const uint8_t *)from->bytes,
            .inline_len = from->len,
            .locator = from->locator,
            .error = from->error,
        };
    }
    fm_msg_t msg = {.type = FM_MSG_RESULT,
                    .result = {.lease = batch->lease,
                               .instance = batch->instance,
                               .items = items,
                               .item_count = batch->item_count,
                               .objects = batch->objects.list,
                               .object_count = batch->objects.count,
                               .seconds = (double)(now - batch->mark_ns) / 1e9,
                               .cpu_seconds = batch->cpu_seconds,
                               .joules = (double)(now - batch->mark_ns) / 1e9 *
                                         worker->watts,
                               .device = worker->device_name,
                               .final = final}};
    fm_worker_send(worker, &msg);
    free(items);
    batch->mark_ns = now;
    batch->cpu_seconds = 0;
    results_clear(batch);
}

/* False when index is not open: already reported, or never leased. */
static bool close_index(struct batch *batch, uint32_t index)
{
    for (size_t i = 0; i < batch->open_count; i++) {
        if (batch->open[i] == index) {
            /* keep the order: executors report in order, so i is mostly 0 */
            memmove(batch->open + i, batch->open + i + 1,
                    (batch->open_count - i - 1) * sizeof(*batch->open));
            batch->open_count--;
            return true;
        }
    }
    return false;
}

/* Takes the item over. */
static void add_item(fm_worker_t *worker, struct pending_item *item)
{
    struct batch *batch = &worker->batch;

    if (fm_grow(&batch->items, &batch->item_capacity, batch->item_count,
                sizeof(*batch->items), NULL) < 0) {
        fm_worker_item_fini(item);
        fm_worker_end(worker, FM_ERR_NO_MEMORY, "out of memory");
        return;
    }
    batch->items[batch->item_count++] = *item;
    batch->item_bytes += item->len;
    memset(item, 0, sizeof(*item));
    if (batch->item_count >= FLUSH_ITEMS || batch->item_bytes >= FLUSH_BYTES) {
        flush(worker, false);
    }
}

static bool add_object(struct pending_objects *objects,
                       const fm_digest_t *digest, const char *locator)
{
    char *copy = fm_strdup(locator);

    if (!copy || fm_grow(&objects->list, &objects->capacity, objects->count,
                         sizeof(*objects->list), NULL) < 0) {
        free(copy);
        return false;
    }
    objects->list[objects->count++] =
        (fm_msg_object_t){.digest = *digest, .locator = copy};
    return true;
}

static bool add_objects(struct pending_objects *objects,
                        const fm_exec_item_t *item)
{
    bool ok = true;

    for (size_t i = 0; ok && i < item->object_count; i++) {
        ok = add_object(objects, &item->objects[i].digest,
                        item->objects[i].locator);
    }
    return ok;
}

static bool fill_ok(struct pending_item *to, const fm_exec_item_t *item)
{
    to->kind = fm_strdup(item->kind ? item->kind : "item");
    if (item->path) {
        return to->kind; /* stage.c fills in the rest */
    }
    if (item->output) {
        to->digest = fm_sha256(item->output, item->output_bytes);
        to->bytes = fm_strndup(item->output, item->output_bytes);
        to->len = item->output_bytes;
        return to->kind && to->bytes;
    }
    to->digest = item->digest;
    to->locator = item->locator ? fm_strdup(item->locator) : NULL;
    return to->kind && to->locator;
}

/* The output is in a file, or too long for a message: it is reported once it
 * is stored. */
static void store_item(fm_worker_t *worker, const char *path,
                       struct pending_item *item,
                       struct pending_objects *objects)
{
    fm_error_t err = {0};

    if (fm_worker_store_result(worker, path, item, objects, &err) >= 0) {
        worker->batch.storing++;
        return;
    }
    item->status = FM_ITEM_INFRA_ERROR;
    item->error = fm_strdup(err.text);
    add_item(worker, item);
}

void fm_worker_batch_on_item(fm_worker_t *worker, const fm_exec_item_t *item)
{
    struct batch *batch = &worker->batch;
    struct pending_objects objects = {0};

    if (batch->lease == 0 || !close_index(batch, item->index)) {
        return; /* run/exec has refused what was never asked for */
    }
    struct pending_item to = {.index = item->index,
                              .status = item->outcome == FM_EXEC_OK ? FM_ITEM_OK
                                        : item->outcome == FM_EXEC_TASK_ERROR
                                            ? FM_ITEM_TASK_ERROR
                                            : FM_ITEM_INFRA_ERROR};
    bool store = to.status == FM_ITEM_OK &&
                 (item->path || item->output_bytes > FM_WIRE_INLINE_MAX_BYTES);
    bool ok = true;
    if (to.status != FM_ITEM_OK) {
        ok = (to.error = fm_strdup(item->error ? item->error : "")) != NULL;
    } else {
        ok = fill_ok(&to, item) &&
             add_objects(store ? &objects : &batch->objects, item);
    }
    if (!ok) {
        fm_worker_item_fini(&to);
        fm_worker_end(worker, FM_ERR_NO_MEMORY, "out of memory");
    } else if (store) {
        store_item(worker, item->path, &to, &objects);
    } else {
        add_item(worker, &to);
    }
    fm_worker_objects_fini(&objects);
}

/* The lease is over, unless files are still being stored. */
static void batch_end(fm_worker_t *worker)
{
    struct batch *batch = &worker->batch;

    batch->over = true;
    batch->running = false;
    input_clear(batch);
    if (batch->storing > 0) {
        return;
    }
    /* a drained lease ends by BYE, which counts its open items as not run */
    flush(worker, !worker->draining);
    if (batch->staged) {
        fm_worker_unstage(worker);
    }
    batch->lease = 0;
    batch->open_count = 0;
    if (worker->draining) {
        fm_worker_end(worker, FM_OK, worker->drain_reason);
    }
}

void fm_worker_batch_stored(fm_worker_t *worker, struct pending_item *item,
                            struct pending_objects *objects)
{
    struct batch *batch = &worker->batch;

    for (size_t i = 0; item->status == FM_ITEM_OK && i < objects->count; i++) {
        if (!add_object(&batch->objects, &objects->list[i].digest,
                        objects->list[i].locator)) {
            fm_worker_end(worker, FM_ERR_NO_MEMORY, "out of memory");
            return;
        }
    }
    add_item(worker, item);
    if (--batch->storing == 0 && batch->over) {
        batch_end(worker);
        fm_worker_batch_start(worker);
    }
}

void fm_worker_batch_abort(fm_worker_t *worker, fm_item_status_t status,
                           const char *text)
{
    struct batch *batch = &worker->batch;

    if (batch->lease == 0 || batch->over) {
        return;
    }
    for (size_t i = 0; i < batch->open_count && !worker->draining; i++) {
        struct pending_item item = {.index = batch->open[i],
                                    .status = status,
                                    .error = fm_strdup(text)};
        if (!item.error) {
            return; /* the lease expires at the control plane instead */
        }
        add_item(worker, &item);
    }
    batch_end(worker);
}

void fm_worker_batch_on_done(fm_worker_t *worker, const fm_exec_done_t *done)
{
    worker->batch.cpu_seconds += done->cpu_seconds;
    if (fm_worker_set_resident(worker, done->resident)) {
        fm_worker_beat(worker); /* before the next placement is made */
    }
    worker->failures = 0;
    fm_worker_batch_abort(worker, FM_ITEM_INFRA_ERROR,
                          "stopped before this item was done");
    fm_worker_batch_start(worker);
}

/* --- from the message to the executor ------------------------------------- */

static fm_status_t parse_input(struct batch *batch, fm_error_t *err)
{
    const fm_msg_lease_t *lease = &batch->msg.lease;
    fm_status_t rc = FM_OK;

    if (!(batch->values = fm_calloc(lease->item_count, sizeof(fm_json_t *)))) {
        return fm_no_memory(err);
    }
    batch->value_count = lease->item_count;
    if ((rc = fm_json_parse(lease->params, strlen(lease->params),
                            "lease params", &batch->params, err)) < 0 ||
        (rc = fm_json_parse(lease->hints, strlen(lease->hints), "lease hints",
                            &batch->hints, err)) < 0) {
        return rc;
    }
    for (size_t i = 0; rc >= 0 && i < lease->item_count; i++) {
        const char *text = lease->items[i].value;
        rc = fm_json_parse(text, strlen(text), "lease item", &batch->values[i],
                           err);
    }
    return rc;
}

static fm_status_t hand_over(fm_worker_t *worker, fm_error_t *err)
{
    const struct batch *batch = &worker->batch;
    const fm_msg_lease_t *lease = &batch->msg.lease;
    fm_exec_input_t *items = fm_calloc(lease->item_count, sizeof(*items));

    if (!items) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < lease->item_count; i++) {
        items[i] = (fm_exec_input_t){lease->items[i].index, batch->values[i]};
    }
    fm_exec_batch_t run = {
        .lease = (int64_t)lease->lease,
        .task_type = lease->task_type,
        .params = batch->params,
        .hints = batch->hints,
        .items = items,
        .item_count = lease->item_count,
        .deadline_ns = lease->deadline_ns,
        .checkpoint = lease->checkpoint,
    };
    fm_status_t rc = fm_exec_run(worker->exec, &run, err);
    free(items);
    return rc;
}

static void refuse(fm_worker_t *worker, const fm_error_t *err)
{
    bool place = err->status == FM_ERR_CLOSED || err->status == FM_ERR_BUSY ||
                 err->status == FM_ERR_NO_MEMORY;

    fm_worker_batch_abort(
        worker, place ? FM_ITEM_INFRA_ERROR : FM_ITEM_TASK_ERROR, err->text);
}

void fm_worker_batch_run(fm_worker_t *worker)
{
    struct batch *batch = &worker->batch;
    fm_error_t err = {0};

    if (batch->cancelled) {
        fm_worker_batch_abort(worker, FM_ITEM_INFRA_ERROR,
                              "stopped before it started");
        fm_worker_batch_start(worker);
    } else if (!worker->exec) {
        (void)fm_error_set(&err, FM_ERR_CLOSED, "the executor has ended");
        refuse(worker, &err);
    } else if (hand_over(worker, &err) < 0) {
        refuse(worker, &err);
        fm_worker_batch_start(worker);
    } else {
        batch->running = true;
        input_clear(batch);
    }
}

/* Take the waiting lease over. */
static bool batch_open(fm_worker_t *worker)
{
    struct batch *batch = &worker->batch;
    const fm_msg_lease_t *lease = &worker->next.lease;
    uint32_t *open = fm_realloc(batch->open, lease->item_count, sizeof(*open));

    if (!open) {
        return false;
    }
    batch->open = open;
    batch->open_count = lease->item_count;
    for (size_t i = 0; i < lease->item_count; i++) {
        open[i] = lease->items[i].index;
    }
    batch->lease = lease->lease;
    batch->instance = lease->instance;
    batch->staged = batch->running = batch->cancelled = batch->over = false;
    batch->storing = 0;
    batch->mark_ns = fm_clock_mono_ns();
    batch->cpu_seconds = 0;
    batch->fraction = 0;
    batch->msg = worker->next;
    memset(&worker->next, 0, sizeof(worker->next));
    worker->has_next = false;
    return true;
}

void fm_worker_batch_start(fm_worker_t *worker)
{
    fm_error_t err = {0};

    if (!worker->has_next || worker->batch.lease != 0 || worker->ending ||
        !worker->exec || !fm_exec_idle(worker->exec)) {
        return;
    }
    if (!batch_open(worker)) {
        fm_worker_end(worker, FM_ERR_NO_MEMORY, "out of memory");
    } else if (parse_input(&worker->batch, &err) < 0) {
        refuse(worker, &err);
    } else if (!fm_worker_stage_wanted(worker)) {
        fm_worker_batch_run(worker);
    } else if (fm_worker_stage(worker, &err) < 0) {
        fm_worker_batch_abort(worker, FM_ITEM_INFRA_ERROR, err.text);
    }
}

void fm_worker_batch_return(fm_worker_t *worker, const fm_msg_lease_t *lease)
{
    fm_msg_t msg = {.type = FM_MSG_RESULT,
                    .result = {.lease = lease->lease,
                               .instance = lease->instance,
                               .device = worker->device_name,
                               .final = true}};

    fm_worker_send(worker, &msg);
}

void fm_worker_batch_cancel(fm_worker_t *worker, uint64_t lease)
{
    if (worker->has_next && worker->next.lease.lease == lease) {
        fm_worker_batch_return(worker, &worker->next.lease);
        fm_msg_fini(&worker->next);
        worker->has_next = false;
    } else if (worker->batch.lease == lease && worker->batch.running) {
        fm_exec_stop(worker->exec, FM_WORKER_STOP_GRACE_NS);
    } else if (worker->batch.lease == lease) {
        worker->batch.cancelled = true;
    }
}
