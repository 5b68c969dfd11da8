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

static void item_fini(struct pending_item *item)
{
    free(item->kind);
    free(item->bytes);
    free(item->locator);
    free(item->error);
}

static void results_clear(struct batch *batch)
{
    for (size_t i = 0; i < batch->item_count; i++) {
        item_fini(&batch->items[i]);
    }
    for (size_t i = 0; i < batch->object_count; i++) {
        free((char *)(uintptr_t)batch->objects[i].locator);
    }
    batch->item_count = 0;
    batch->item_bytes = 0;
    batch->object_count = 0;
}

void fm_worker_batch_fini(struct batch *batch)
{
    results_clear(batch);
    free(batch->open);
    free(batch->items);
    free(batch->objects);
    memset(batch, 0, sizeof(*batch));
}

void fm_worker_batch_flush(fm_worker_t *worker, bool final)
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
                               .objects = batch->objects,
                               .object_count = batch->object_count,
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

static struct pending_item *add_item(fm_worker_t *worker, uint32_t index,
                                     fm_item_status_t status)
{
    struct batch *batch = &worker->batch;

    if (fm_grow(&batch->items, &batch->item_capacity, batch->item_count,
                sizeof(*batch->items), NULL) < 0) {
        fm_worker_end(worker, FM_ERR_NO_MEMORY, "out of memory");
        return NULL;
    }
    struct pending_item *item = &batch->items[batch->item_count++];
    memset(item, 0, sizeof(*item));
    item->index = index;
    item->status = status;
    return item;
}

static bool add_objects(struct batch *batch, const fm_exec_item_t *item)
{
    for (size_t i = 0; i < item->object_count; i++) {
        char *locator = fm_strdup(item->objects[i].locator);
        if (!locator ||
            fm_grow(&batch->objects, &batch->object_capacity,
                    batch->object_count, sizeof(*batch->objects), NULL) < 0) {
            free(locator);
            return false;
        }
        batch->objects[batch->object_count++] = (fm_msg_object_t){
            .digest = item->objects[i].digest, .locator = locator};
    }
    return true;
}

static bool fill_ok(struct pending_item *to, const fm_exec_item_t *item)
{
    to->kind = fm_strdup(item->kind ? item->kind : "item");
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

void fm_worker_batch_on_item(fm_worker_t *worker, const fm_exec_item_t *item)
{
    struct batch *batch = &worker->batch;

    if (batch->lease == 0 || !close_index(batch, item->index)) {
        return; /* run/exec has refused what was never asked for */
    }
    fm_item_status_t status = item->outcome == FM_EXEC_OK ? FM_ITEM_OK
                              : item->outcome == FM_EXEC_TASK_ERROR
                                  ? FM_ITEM_TASK_ERROR
                                  : FM_ITEM_INFRA_ERROR;
    struct pending_item *to = add_item(worker, item->index, status);
    if (!to) {
        return;
    }
    bool ok = true;
    if (status == FM_ITEM_OK) {
        ok = fill_ok(to, item) && add_objects(batch, item);
    } else {
        ok = (to->error = fm_strdup(item->error ? item->error : "")) != NULL;
    }
    if (!ok) {
        fm_worker_end(worker, FM_ERR_NO_MEMORY, "out of memory");
        return;
    }
    batch->item_bytes += to->len;
    if (batch->item_count >= FLUSH_ITEMS || batch->item_bytes >= FLUSH_BYTES) {
        fm_worker_batch_flush(worker, false);
    }
}

static void batch_end(fm_worker_t *worker)
{
    fm_worker_batch_flush(worker, true);
    worker->batch.lease = 0;
    worker->batch.open_count = 0;
}

void fm_worker_batch_abort(fm_worker_t *worker, fm_item_status_t status,
                           const char *text)
{
    struct batch *batch = &worker->batch;

    if (batch->lease == 0) {
        return;
    }
    for (size_t i = 0; i < batch->open_count; i++) {
        struct pending_item *item = add_item(worker, batch->open[i], status);
        if (!item || !(item->error = fm_strdup(text))) {
            return; /* the lease expires at the control plane instead */
        }
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

static fm_status_t parse_items(const fm_msg_lease_t *lease,
                               fm_exec_input_t *items, fm_json_t **values,
                               fm_error_t *err)
{
    for (size_t i = 0; i < lease->item_count; i++) {
        const char *text = lease->items[i].value;
        fm_status_t rc =
            fm_json_parse(text, strlen(text), "lease item", &values[i], err);
        if (rc < 0) {
            return rc;
        }
        items[i] = (fm_exec_input_t){lease->items[i].index, values[i]};
    }
    return FM_OK;
}

/* Parse the lease's JSON and pass it on. */
static fm_status_t run_lease(fm_worker_t *worker, const fm_msg_lease_t *lease,
                             fm_error_t *err)
{
    fm_status_t rc = FM_ERR_NO_MEMORY;
    fm_json_t *params = NULL;
    fm_json_t *hints = NULL;
    fm_exec_input_t *items = fm_calloc(lease->item_count, sizeof(*items));
    fm_json_t **values = fm_calloc(lease->item_count, sizeof(fm_json_t *));

    if (!items || !values) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = fm_json_parse(lease->params, strlen(lease->params),
                            "lease params", &params, err)) < 0 ||
        (rc = fm_json_parse(lease->hints, strlen(lease->hints), "lease hints",
                            &hints, err)) < 0 ||
        (rc = parse_items(lease, items, values, err)) < 0) {
        goto out;
    }
    fm_exec_batch_t batch = {
        .lease = (int64_t)lease->lease,
        .task_type = lease->task_type,
        .params = params,
        .hints = hints,
        .items = items,
        .item_count = lease->item_count,
        .deadline_ns = lease->deadline_ns,
        .checkpoint = lease->checkpoint,
    };
    rc = fm_exec_run(worker->exec, &batch, err);
out:
    for (size_t i = 0; values && i < lease->item_count; i++) {
        fm_json_drop(values[i]);
    }
    free(values);
    free(items);
    fm_json_drop(params);
    fm_json_drop(hints);
    return rc;
}

static bool batch_open(struct batch *batch, const fm_msg_lease_t *lease)
{
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
    batch->attempt = lease->attempt;
    batch->mark_ns = fm_clock_mono_ns();
    batch->cpu_seconds = 0;
    batch->fraction = 0;
    return true;
}

void fm_worker_batch_start(fm_worker_t *worker)
{
    fm_error_t err = {0};

    if (!worker->has_next || worker->batch.lease != 0 || !worker->exec ||
        !fm_exec_idle(worker->exec)) {
        return;
    }
    worker->has_next = false;
    const fm_msg_lease_t *lease = &worker->next.lease;
    if (!batch_open(&worker->batch, lease)) {
        fm_worker_end(worker, FM_ERR_NO_MEMORY, "out of memory");
    } else if (run_lease(worker, lease, &err) < 0) {
        fm_worker_batch_abort(worker,
                              err.status == FM_ERR_CLOSED ? FM_ITEM_INFRA_ERROR
                                                          : FM_ITEM_TASK_ERROR,
                              err.text);
    }
    fm_msg_fini(&worker->next);
}
