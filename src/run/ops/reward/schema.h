/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file schema.h
 * A stated subset of JSON Schema 2020-12 (docs/spec/workflow.md, W66).
 * Threads: safe.
 */
#ifndef FM_RUN_OPS_REWARD_SCHEMA_H
#define FM_RUN_OPS_REWARD_SCHEMA_H

#include "base/json.h"

/** Refuse what is no schema, or says something that is not understood.
 *  @retval FM_ERR_INVALID, FM_ERR_UNSUPPORTED  the text names the place. */
FM_MUST_USE fm_status_t fm_ops_schema_check(const fm_json_t *schema,
                                            fm_error_t *err);
/** Whether @p value is allowed.  @param schema  one that was checked.
 *  @retval FM_ERR_LIMIT  a pattern takes too many steps. */
FM_MUST_USE fm_status_t fm_ops_schema_allows(const fm_json_t *schema,
                                             const fm_json_t *value,
                                             bool *allowed_out,
                                             fm_error_t *err);

#endif
