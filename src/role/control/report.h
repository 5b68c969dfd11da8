/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file report.h
 * What people and scripts are told about a run, as JSON
 * (docs/spec/report.md).
 *
 * Threads: as the fabric.
 */
#ifndef FM_ROLE_CONTROL_REPORT_H
#define FM_ROLE_CONTROL_REPORT_H

#include "role/control/fabric.h"

/**
 * The summary of a run:
 *   {"workflow", "name", "state", "nodes": [{"name", "task", "trial", "owner",
 *    "state", "items", "ran", "shared", "skipped", "error"}],
 *    "operators": {"planned", "ran", "shared", "failed"},
 *    "metrics": {node: {metric: number}}, "trials": [{"trial", "values",
 *    "metrics"}]}
 * "metrics" holds evaluate nodes that all trials share; "trials" the others.
 */
FM_MUST_USE fm_status_t fm_report_run(fm_fabric_t *fabric, const fm_run_t *run,
                                      fm_json_t **report_out, fm_error_t *err);

/**
 * Every item of a finished node: [{"output", "digest", "key"}].  The items of
 * a node whose one operator returned a list are the elements of that list and
 * share its digest.
 */
FM_MUST_USE fm_status_t fm_report_items(fm_fabric_t *fabric,
                                        const fm_run_t *run, uint32_t node,
                                        fm_json_t **items_out, fm_error_t *err);

/**
 * Where the result of an item came from: operator, key, parameters, inputs,
 * model, seed, versions, worker, device, start, duration, joules, dollars,
 * placement, who shares it, and the nodes upstream.
 */
FM_MUST_USE fm_status_t fm_report_lineage(fm_fabric_t *fabric,
                                          const fm_run_t *run, uint32_t node,
                                          uint32_t item,
                                          fm_json_t **lineage_out,
                                          fm_error_t *err);

/** An item of an expanded node. */
typedef struct fm_report_item {
    const fm_run_t *run;
    uint32_t node;
    uint32_t item;
} fm_report_item_t;

/**
 * Why two items are not the same work: {"a": key, "b": key, "same": bool,
 * "differences": [{"path", "a", "b"}, …]}, the deepest members that differ; a
 * member that one of the two lacks is null there.
 * @param items  [2].
 * @retval FM_ERR_NOT_FOUND  an item does not exist (yet), or a value too long
 *                           for the journal is no longer stored.
 */
FM_MUST_USE fm_status_t fm_report_miss(fm_fabric_t *fabric,
                                       const fm_report_item_t *items,
                                       fm_json_t **report_out, fm_error_t *err);

#endif
