/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file catalogue.h
 * Devices in common use: memory, achievable rates, watts and list prices.
 *
 * The figures bootstrap placement where nothing was measured and nothing was
 * configured; a fabric's configuration (docs/spec/fabric.md) overrides each of
 * them and results correct the rates.  Every row states its sources.
 *
 * Pure; the table is constant.  Threads: any.
 */
#ifndef FM_PLAN_COST_CATALOGUE_H
#define FM_PLAN_COST_CATALOGUE_H

#include "plan/cost/cost.h"

typedef struct fm_cost_catalogue_entry {
    const char *name;      /**< of the device class, "h100-sxm-80g" */
    const char *match;     /**< patterns, parted by '|', of the names that
                                drivers report (fm_cost_name_matches()) */
    const char *kind;      /**< "cpu" or "gpu" */
    uint64_t memory_bytes; /**< of the device; 0: of the host, not known */
    double flops_per_s;    /**< dense, in the type models are served in
                                (bf16, fp16 before Ampere, f32 on a CPU
                                core): achievable, not peak */
    double bytes_per_s;    /**< device memory, achievable */
    double watts;          /**< under load */
    double idle_watts;     /**< powered, model resident, nothing running */
    double price_per_hour; /**< dollars of one device, on demand */
    const char *source;    /**< where the figures are from */
} fm_cost_catalogue_entry_t;

size_t fm_cost_catalogue_count(void);
/** NULL past the end. */
const fm_cost_catalogue_entry_t *fm_cost_catalogue_at(size_t index);
/** The row of a device by the name its driver reports ("NVIDIA A100-SXM4-80GB",
 *  "cpu") or by the row's own name.  @p memory_bytes (0: unknown) decides where
 *  the name alone does not: "NVIDIA A100" is sold with 40 and 80 GB.  NULL when
 *  there is none. */
const fm_cost_catalogue_entry_t *fm_cost_catalogue_find(const char *device_name,
                                                        uint64_t memory_bytes);
/** The row of that name; NULL. */
const fm_cost_catalogue_entry_t *fm_cost_catalogue_named(const char *name);
/** What the row means to fm_cost_device_id(). */
fm_cost_device_t fm_cost_catalogue_spec(const fm_cost_catalogue_entry_t *entry);

/** Whether @p name matches one of the patterns in @p patterns, parted by '|':
 *  letters of either case, '*' for any text, '?' for any character; the whole
 *  name.  O(pattern × name). */
bool fm_cost_name_matches(const char *patterns, const char *name);

#endif
