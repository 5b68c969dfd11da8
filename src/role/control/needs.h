/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file needs.h
 * What the items of a batch key need of a worker: from the hints that the
 * workflow gave (resources.hardware) and from the size of the model.
 */
#ifndef FM_ROLE_CONTROL_NEEDS_H
#define FM_ROLE_CONTROL_NEEDS_H

#include "plan/place/place.h"
#include "role/control/state.h"

/**
 * Add what `resources` of @p hints asks for to @p info: memory (of the device;
 * the larger of what is written and what the model takes), count (a gang),
 * kind of device.
 *
 *   gpu.memory, else memory   bytes of the device, such as 22Gi
 *   gpu.count                 devices at once in one domain
 *   gpu.type                  absent or "any": any device with that memory;
 *                             "cpu": none but CPUs; else a GPU
 */
void fm_needs_read(const fm_json_t *hints, fm_batch_info_t *info);

/** The needs of a batch key for plan/place.
 *  @param model  [out] room for the one model that it may point to. */
void fm_needs_task(const fm_batch_info_t *info, fm_place_task_t *task_out,
                   fm_sched_object_t *model);

#endif
