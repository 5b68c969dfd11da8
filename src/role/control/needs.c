/* SPDX-License-Identifier: Apache-2.0 */
#include "role/control/needs.h"

#include <flowmesh/executor.h>
#include <string.h>

#include "io/wire/wire.h"
#include "plan/key/key.h"
#include "text/yaml/number.h"

/* A lease must fit one line of the executor protocol, with room for the
 * parameters and the JSON around each item. */
#define LEASE_ITEM_BYTES (FM_EXECUTOR_LINE_BYTES / 2)
#define ITEM_OVERHEAD_BYTES 48u

/* Bytes that a map says under "memory"; 0 where it does not. */
static uint64_t memory_of(const fm_json_t *map)
{
    const fm_json_t *value = fm_json_get(map, "memory");
    const char *text = fm_json_str(value);
    double bytes = text ? fm_yaml_bytes_of(text) : fm_json_real_or(value, 0);

    return bytes > 0 && bytes <= FM_YAML_BYTES_MAX ? (uint64_t)bytes : 0;
}

void fm_needs_read(const fm_json_t *hints, fm_batch_info_t *info)
{
    const fm_json_t *hardware = fm_json_path(hints, "resources.hardware");
    const fm_json_t *gpu = fm_json_get(hardware, "gpu");
    const char *type = fm_json_get_str(gpu, "type");
    int64_t count = fm_json_get_int(gpu, "count", 1);
    uint64_t asked = memory_of(gpu ? gpu : hardware);

    if (asked > info->memory_bytes) {
        info->memory_bytes = asked;
    }
    info->gang = count < 1                   ? 1
                 : count > FM_SCHED_GANG_MAX ? FM_SCHED_GANG_MAX
                                             : (uint32_t)count;
    if (type && strcmp(type, "cpu") == 0) {
        info->device = FM_SCHED_CPU;
    } else if (type && strcmp(type, "any") != 0) {
        info->device = FM_SCHED_GPU;
    }
}

static uint32_t size_limit(size_t most, const fm_batch_info_t *info)
{
    size_t fits =
        LEASE_ITEM_BYTES / (info->item_bytes_max + ITEM_OVERHEAD_BYTES);
    size_t limit = most < FM_WIRE_ITEM_MAX ? most : FM_WIRE_ITEM_MAX;

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

void fm_needs_task(const fm_batch_info_t *info, fm_place_task_t *task_out,
                   fm_sched_object_t *model)
{
    const fm_key_task_t *task = fm_key_task_at(info->task_index);

    *task_out = (fm_place_task_t){
        .kind = sched_kind(task->kind),
        .task_class = info->task_class,
        .task_type = info->task_index,
        .size_max = size_limit(task->batch_max, info),
        .whole_max = size_limit(FM_WIRE_ITEM_MAX, info),
        .device = info->device,
        .memory_bytes = info->memory_bytes,
        .item_input_bytes = (double)info->item_bytes_max,
        .input_domain = FM_SCHED_NONE,
        .checkpointable = task->checkpointable,
        .gang = info->gang,
    };
    if (info->has_model) {
        *model = (fm_sched_object_t){info->model, info->model_bytes};
        task_out->models = model;
        task_out->model_count = 1;
    }
}
