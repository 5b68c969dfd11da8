/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file explain.h
 * Why an operator ran where it ran, and why it waits: what the journal's
 * records of decisions say of one node, or one of its items, as JSON
 * (docs/spec/report.md §5).
 *
 * Threads: as the fabric.
 */
#ifndef FM_ROLE_CONTROL_EXPLAIN_H
#define FM_ROLE_CONTROL_EXPLAIN_H

#include "role/control/fabric.h"

#define FM_EXPLAIN_ALL UINT32_MAX
#define FM_EXPLAIN_ROWS_MAX 64u /**< placements, and waits, that are listed */

/**
 * Explain a node.
 * @param item  an item, or FM_EXPLAIN_ALL.
 * @retval FM_ERR_NOT_FOUND  the node has no such item (yet).
 */
FM_MUST_USE fm_status_t fm_explain(fm_fabric_t *fabric, const fm_run_t *run,
                                   uint32_t node, uint32_t item,
                                   fm_json_t **report_out, fm_error_t *err);

/** Accounts and quotas of all tenants: [{"tenant", "weight", …}]. */
FM_MUST_USE fm_status_t fm_explain_tenants(const fm_fabric_t *fabric,
                                           fm_json_t **list_out,
                                           fm_error_t *err);
/** One of them; new reference, NULL when memory is out. */
FM_MUST_USE fm_json_t *fm_explain_tenant(const fm_tenants_t *tenants,
                                         uint32_t id);

#endif
