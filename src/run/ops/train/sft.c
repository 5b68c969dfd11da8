/* SPDX-License-Identifier: Apache-2.0 */
/* sft and lora_sft: imitate texts, completions and assistant turns. */
#include <stdlib.h>

#include "base/mem.h"
#include "run/ops/train/training.h"

static fm_status_t samples(const fm_ops_training_t *training,
                           fm_ops_samples_t *out, fm_error_t *err)
{
    return fm_ops_samples_make(training->model,
                               training->run->values[training->item],
                               &training->limit, out, err);
}

static fm_status_t step(fm_ops_training_t *training,
                        const fm_ops_samples_t *samples, const size_t *chosen,
                        size_t count, fm_engine_metrics_t *metrics_out,
                        fm_error_t *err)
{
    fm_engine_sample_t *batch = fm_calloc(count, sizeof(*batch));
    fm_status_t rc = FM_OK;

    if (!batch) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        batch[i] = samples->samples[chosen[i]];
    }
    rc = fm_engine_trainer_sft(training->trainer, batch, count, metrics_out,
                               err);
    free(batch);
    return rc;
}

static const fm_ops_method_t method = {samples, step, NULL, 0, OPS_HEAD_NONE};

fm_status_t fm_ops_sft(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                       fm_error_t *err)
{
    return fm_ops_train(run, item, &method, output, err);
}

fm_status_t fm_ops_lora_sft(fm_ops_run_t *run, size_t item,
                            fm_ops_output_t *output, fm_error_t *err)
{
    const fm_json_t *lora = fm_json_get(run->params, "lora");
    const fm_json_t *adapter = fm_json_get(run->params, "adapter");

    if (!fm_json_is(lora, FM_JSON_OBJECT) && !fm_json_str(adapter)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "lora: {r, alpha, …}, or an adapter to train on, "
                            "is needed");
    }
    return fm_ops_train(run, item, &method, output, err);
}
