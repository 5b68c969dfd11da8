/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file evaluate.h
 * What the figures of an evaluation share: its samples, the model under test,
 * continuations of the samples and what they are worth.
 */
#ifndef FM_RUN_OPS_INFER_EVALUATE_H
#define FM_RUN_OPS_INFER_EVALUATE_H

#include "engine/serve/score.h"
#include "run/ops/internal.h"

/** A model with its adapter. */
typedef struct fm_ops_side {
    const fm_ops_model_t *model;
    const fm_model_adapter_t *adapter; /**< NULL: none */
    fm_digest_t digest;                /**< of the adapter */
} fm_ops_side_t;

typedef struct fm_ops_evaluation {
    fm_ops_run_t *run;
    const fm_json_t *samples; /**< list */
    size_t count;             /**< of samples, ≥ 1 */
    fm_ops_side_t side;       /**< under test */
    fm_engine_scorer_t *scorer;
    fm_ops_limit_t limit; /**< of a scored sequence */
    double loss; /**< once loss_known: perplexity is another face of it */
    bool loss_known;
} fm_ops_evaluation_t;

/** Compute a figure, or several, into @p figures. */
typedef fm_status_t (*fm_ops_measure_fn)(fm_ops_evaluation_t *eval,
                                         fm_json_t *figures, fm_error_t *err);

/** Load what {"model", "adapter"?} names. */
FM_MUST_USE fm_status_t fm_ops_side_load(fm_ops_run_t *run,
                                         const fm_json_t *source,
                                         fm_ops_side_t *side_out,
                                         fm_error_t *err);
/** Set a figure, which must be finite. */
FM_MUST_USE fm_status_t fm_ops_figure_set(fm_json_t *figures, const char *name,
                                          double value, fm_error_t *err);

/**
 * What every item earns: the weighted sum of the rewards (judge.c).
 * @param rewards     parameters of one reward, or a list of them, each with
 *                    weight; kind "model" is a reward model.
 * @param items       list of {prompt, completion, record}.
 * @param scores_out  [items]
 * @retval FM_ERR_INVALID  the text names the item.
 */
FM_MUST_USE fm_status_t fm_ops_scores(fm_ops_run_t *run,
                                      const fm_json_t *rewards,
                                      const fm_json_t *items,
                                      double *scores_out, fm_error_t *err);

/* Figures of generated text (continue.c). */
fm_status_t fm_ops_measure_exact(fm_ops_evaluation_t *eval, fm_json_t *figures,
                                 fm_error_t *err);
fm_status_t fm_ops_measure_pass(fm_ops_evaluation_t *eval, fm_json_t *figures,
                                fm_error_t *err);
fm_status_t fm_ops_measure_win(fm_ops_evaluation_t *eval, fm_json_t *figures,
                               fm_error_t *err);
/** 1 − C(n−c, k)/C(n, k), k ≤ n (Chen et al., 2021). */
double fm_ops_pass_at_k(size_t n, size_t c, size_t k);

#endif
