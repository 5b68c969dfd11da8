/* SPDX-License-Identifier: Apache-2.0 */
/* reward_model: a scalar head and what is below it learn to score the chosen
 * completion above the rejected one. */
#include <stddef.h>
#include <stdlib.h>

#include "base/mem.h"
#include "run/ops/train/training.h"

static fm_status_t pairs(const fm_ops_training_t *training,
                         fm_ops_samples_t *out, fm_error_t *err)
{
    return fm_ops_pairs_make(training->model,
                             training->run->values[training->item],
                             &training->limit, false, out, err);
}

static fm_status_t step(fm_ops_training_t *training,
                        const fm_ops_samples_t *samples, const size_t *chosen,
                        size_t count, fm_engine_metrics_t *metrics_out,
                        fm_error_t *err)
{
    fm_engine_pair_t *batch = NULL;
    fm_status_t rc = fm_ops_pairs_take(samples, chosen, count, &batch, err);

    if (rc >= 0) {
        rc = fm_engine_trainer_reward(training->trainer, batch, count,
                                      metrics_out, err);
    }
    free(batch);
    return rc;
}

fm_status_t fm_ops_reward_model(fm_ops_run_t *run, size_t item,
                                fm_ops_output_t *output, fm_error_t *err)
{
    static const fm_ops_column_t columns[] = {
        {"accuracy", offsetof(fm_engine_metrics_t, accuracy)},
        {"margin", offsetof(fm_engine_metrics_t, margin)},
        {"reward_chosen", offsetof(fm_engine_metrics_t, reward_chosen)},
        {"reward_rejected", offsetof(fm_engine_metrics_t, reward_rejected)},
    };
    static const fm_ops_method_t method = {
        pairs, step, columns, FM_COUNT_OF(columns), OPS_HEAD_SCORE};

    return fm_ops_train(run, item, &method, output, err);
}
