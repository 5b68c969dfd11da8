/* SPDX-License-Identifier: Apache-2.0 */
/* dpo: learn preferences, held to reference log-probabilities. */
#include <stddef.h>
#include <stdlib.h>

#include "base/mem.h"
#include "run/ops/training.h"

static fm_status_t pairs(const fm_ops_training_t *training,
                         fm_ops_samples_t *out, fm_error_t *err)
{
    return fm_ops_pairs_make(training->model,
                             training->run->values[training->item],
                             &training->limit, true, out, err);
}

static fm_status_t step(fm_ops_training_t *training,
                        const fm_ops_samples_t *samples, const size_t *chosen,
                        size_t count, fm_engine_metrics_t *metrics_out,
                        fm_error_t *err)
{
    const fm_json_t *options = fm_json_get(training->run->params, "training");
    fm_engine_pair_t *batch = NULL;
    double beta;
    fm_status_t rc =
        fm_ops_get_real(options, "beta", 1e-9, 1e6, 0.1, &beta, err);

    if (rc < 0) {
        fm_error_wrap(err, "training");
        return rc;
    }
    if (!(batch = fm_calloc(count, sizeof(*batch)))) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        batch[i] = samples->pairs[chosen[i]];
    }
    rc = fm_engine_trainer_dpo(training->trainer, batch, count, beta,
                               metrics_out, err);
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
                                           FM_COUNT_OF(columns)};

    return fm_ops_train(run, item, &method, output, err);
}
