/* SPDX-License-Identifier: Apache-2.0 */
/* dpo: learn preferences, held to reference log-probabilities. */
#include <stddef.h>
#include <stdlib.h>

#include "base/mem.h"
#include "run/ops/train/training.h"

static fm_status_t pairs(const fm_ops_training_t *training,
                         fm_ops_samples_t *out, fm_error_t *err)
{
    return fm_ops_pairs_make(training->model,
                             training->run->values[training->item],
                             &training->limit, true, out, err);
}

static fm_status_t options_parse(const fm_json_t *training,
                                 fm_engine_dpo_options_t *options,
                                 fm_error_t *err)
{
    const char *loss;
    fm_status_t rc;

    if ((rc = fm_ops_get_real(training, "beta", 1e-9, 1e6, 0.1, &options->beta,
                              err)) < 0 ||
        (rc = fm_ops_get_real(training, "label_smoothing", 0, 0.499999, 0,
                              &options->label_smoothing, err)) < 0 ||
        (rc = fm_ops_get_text(training, "loss", "sigmoid", &loss, err)) < 0) {
        return rc;
    }
    return fm_engine_dpo_loss_parse(loss, &options->loss)
               ? FM_OK
               : fm_error_set(err, FM_ERR_INVALID,
                              "loss: sigmoid or ipo is allowed");
}

static fm_status_t step(fm_ops_training_t *training,
                        const fm_ops_samples_t *samples, const size_t *chosen,
                        size_t count, fm_engine_metrics_t *metrics_out,
                        fm_error_t *err)
{
    fm_engine_pair_t *batch = NULL;
    fm_engine_dpo_options_t options = {0};
    fm_status_t rc = options_parse(
        fm_json_get(training->run->params, "training"), &options, err);

    if (rc < 0) {
        fm_error_wrap(err, "training");
        return rc;
    }
    if ((rc = fm_ops_pairs_take(samples, chosen, count, &batch, err)) >= 0) {
        rc = fm_engine_trainer_dpo(training->trainer, batch, count, &options,
                                   metrics_out, err);
    }
    free(batch);
    return rc;
}

fm_status_t fm_ops_dpo(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                       fm_error_t *err)
{
    static const fm_ops_column_t columns[] = {
        {"accuracy", offsetof(fm_engine_metrics_t, accuracy)},
        {"margin", offsetof(fm_engine_metrics_t, margin)},
        {"reward_chosen", offsetof(fm_engine_metrics_t, reward_chosen)},
        {"reward_rejected", offsetof(fm_engine_metrics_t, reward_rejected)},
    };
    static const fm_ops_method_t method = {pairs, step, columns,
                                           FM_COUNT_OF(columns), OPS_HEAD_NONE};

    return fm_ops_train(run, item, &method, output, err);
}
