/* SPDX-License-Identifier: Apache-2.0 */
/* A batch as the protocol carries it: one `run` line, one slot an item. */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/exec/internal.h"

static int slot_compare(const void *a, const void *b)
{
    uint32_t left = ((const slot_t *)a)->index;
    uint32_t right = ((const slot_t *)b)->index;

    return (left > right) - (left < right);
}

fm_status_t fm_exec_batch_slots(const fm_exec_batch_t *batch,
                                slot_t **slots_out, fm_error_t *err)
{
    if (batch->item_count < 1 || batch->item_count > FM_EXECUTOR_ITEMS_MAX) {
        return fm_error_set(err, FM_ERR_INVALID, "batch: 1 to %u items",
                            FM_EXECUTOR_ITEMS_MAX);
    }
    slot_t *slots = fm_calloc(batch->item_count, sizeof(*slots));
    if (!slots) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < batch->item_count; i++) {
        slots[i].index = batch->items[i].index;
    }
    qsort(slots, batch->item_count, sizeof(*slots), slot_compare);
    for (size_t i = 1; i < batch->item_count; i++) {
        if (slots[i].index == slots[i - 1].index) {
            uint32_t index = slots[i].index;
            free(slots);
            return fm_error_set(err, FM_ERR_INVALID,
                                "batch: item %u is given twice", index);
        }
    }
    *slots_out = slots;
    return FM_OK;
}

static fm_json_t *items_json(const fm_exec_batch_t *batch)
{
    fm_json_t *items = fm_json_array();

    for (size_t i = 0; items && i < batch->item_count; i++) {
        fm_json_t *item = fm_json_object();
        if (!item ||
            fm_json_set(item, "index", fm_json_int(batch->items[i].index)) <
                0 ||
            fm_json_set(item, "value", fm_json_keep(batch->items[i].value)) <
                0) {
            fm_json_drop(item);
            return fm_json_drop(items);
        }
        if (fm_json_append(items, item) < 0) {
            return fm_json_drop(items);
        }
    }
    return items;
}

static fm_status_t optional_set(fm_json_t *run, const char *key,
                                const char *text)
{
    return text && *text ? fm_json_set(run, key, fm_json_string(text)) : FM_OK;
}

/* The `run` line without its newline; NULL when memory is out. */
static char *run_line(const fm_exec_batch_t *batch)
{
    fm_json_t *run = fm_json_object();
    char *line = NULL;

    if (run && fm_json_set(run, "type", fm_json_string("run")) >= 0 &&
        fm_json_set(run, "lease", fm_json_int(batch->lease)) >= 0 &&
        fm_json_set(run, "task_type", fm_json_string(batch->task_type)) >= 0 &&
        fm_json_set(run, "params",
                    batch->params ? fm_json_keep(batch->params)
                                  : fm_json_object()) >= 0 &&
        fm_json_set(run, "hints",
                    batch->hints ? fm_json_keep(batch->hints)
                                 : fm_json_object()) >= 0 &&
        (batch->deadline_ns <= 0 ||
         fm_json_set(run, "deadline_s",
                     fm_json_real((double)batch->deadline_ns /
                                  (double)FM_NS_PER_S)) >= 0) &&
        optional_set(run, "checkpoint", batch->checkpoint) >= 0 &&
        optional_set(run, "checkpoint_locator", batch->checkpoint_locator) >=
            0 &&
        fm_json_set(run, "items", items_json(batch)) >= 0) {
        line = fm_json_dump(run);
    }
    fm_json_drop(run);
    return line;
}

fm_status_t fm_exec_batch_line(const fm_exec_batch_t *batch, char **line_out,
                               size_t *len_out, fm_error_t *err)
{
    if (batch->lease < 1 || batch->lease > FM_EXECUTOR_LEASE_MAX ||
        !batch->task_type ||
        (batch->params && !fm_json_is(batch->params, FM_JSON_OBJECT)) ||
        (batch->hints && !fm_json_is(batch->hints, FM_JSON_OBJECT))) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "batch: lease, task type, params or hints out of "
                            "range");
    }
    char *line = run_line(batch);
    if (!line) {
        return fm_no_memory(err);
    }
    size_t len = strlen(line);
    if (len + 1 > FM_EXECUTOR_LINE_BYTES) {
        free(line);
        return fm_error_set(err, FM_ERR_LIMIT,
                            "batch of %zu bytes does not fit a line of %u: run "
                            "fewer items at a time, or store large values as "
                            "objects",
                            len, FM_EXECUTOR_LINE_BYTES);
    }
    line[len] = '\n'; /* in place of the NUL */
    *line_out = line;
    *len_out = len + 1;
    return FM_OK;
}
