/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file verify.h
 * Verifiable rewards: what a completion is worth against its record
 * (docs/spec/workflow.md §6.12), all kinds but python.
 * Threads: safe for distinct objects.
 */
#ifndef FM_RUN_OPS_REWARD_VERIFY_H
#define FM_RUN_OPS_REWARD_VERIFY_H

#include "base/json.h"

typedef struct fm_ops_verifier fm_ops_verifier_t;

/** @param params  kept.
 *  @retval FM_ERR_INVALID, FM_ERR_UNSUPPORTED  names the parameter. */
FM_MUST_USE fm_status_t fm_ops_verifier_create(const fm_json_t *params,
                                               fm_ops_verifier_t **verifier_out,
                                               fm_error_t *err);
void *fm_ops_verifier_destroy(fm_ops_verifier_t *verifier);
/** @param record  map, or NULL.
 *  @param score_out  finite.
 *  @retval FM_ERR_INVALID  the record does not have what is compared with.
 *  @retval FM_ERR_LIMIT    a pattern takes too many steps. */
FM_MUST_USE fm_status_t fm_ops_verify(const fm_ops_verifier_t *verifier,
                                      const char *completion, size_t len,
                                      const fm_json_t *record,
                                      double *score_out, fm_error_t *err);

/** A number as people write it; one followed by % also means its hundredth. */
typedef struct fm_ops_figure {
    double value;
    bool percent;
} fm_ops_figure_t;
/** The next number at or after *at, which moves past it; false: none. */
bool fm_ops_figure_next(const char *text, size_t len, size_t *at,
                        fm_ops_figure_t *figure_out);

#endif
