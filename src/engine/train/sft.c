/* SPDX-License-Identifier: Apache-2.0 */
/* Supervised fine-tuning: cross-entropy over the counted tokens of a step. */
#include <math.h>

#include "engine/train/trainer.h"

typedef struct work {
    const fm_engine_sample_t *samples;
} work_t;

static fm_status_t samples_check(const fm_engine_trainer_t *trainer,
                                 const fm_engine_sample_t *samples,
                                 size_t count, uint64_t *targets_out,
                                 fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    *targets_out = 0;
    for (size_t s = 0; s < count; s++) {
        const fm_engine_sample_t *sample = &samples[s];
        if (sample->count < 2) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "sample %zu has %zu tokens: 2 are needed to "
                                "predict one",
                                s, sample->count);
        }
        if ((rc = fm_engine_length_check(trainer, "sample", s, sample->count,
                                         err)) < 0 ||
            (rc = fm_tokens_check(trainer, "sample", s, sample->tokens,
                                  sample->count, err)) < 0) {
            return rc;
        }
        for (size_t i = 1; i < sample->count; i++) {
            *targets_out += !sample->mask || sample->mask[i];
        }
    }
    if (*targets_out == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "no token counts in %zu samples: every mask is "
                            "empty",
                            count);
    }
    return FM_OK;
}

static size_t sample_length(const void *ctx, size_t i)
{
    return ((const work_t *)ctx)->samples[i].count;
}

static fm_status_t sample_add(fm_engine_micro_t *micro, const void *ctx,
                              size_t i, fm_error_t *err)
{
    const fm_engine_sample_t *sample = &((const work_t *)ctx)->samples[i];
    fm_status_t rc = fm_engine_micro_open(micro, err);

    return rc < 0 ? rc
                  : fm_engine_micro_add(micro, sample->tokens, sample->mask,
                                        sample->count, true, err);
}

static fm_status_t sft_loss(fm_engine_trainer_t *trainer, void *ctx,
                            size_t first, fm_engine_metrics_t *m,
                            fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;

    (void)ctx;
    for (size_t i = 0; i < micro->rows.count; i++) {
        micro->scales[i] = -1.0F / (float)m->targets;
    }
    fm_status_t rc = fm_engine_micro_logprobs(trainer, false, true, err);
    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < micro->rows.count; i++) {
        if (!isfinite(micro->logp[i])) {
            return fm_engine_loss_refuse(
                trainer, "sample", first + (size_t)micro->owners.ids[i], err);
        }
        m->loss -= (double)micro->logp[i] / (double)m->targets;
    }
    return FM_OK;
}

fm_status_t fm_engine_trainer_sft(fm_engine_trainer_t *trainer,
                                  const fm_engine_sample_t *samples,
                                  size_t count,
                                  fm_engine_metrics_t *metrics_out,
                                  fm_error_t *err)
{
    static const fm_engine_method_t method = {.length = sample_length,
                                              .add = sample_add,
                                              .loss = sft_loss,
                                              .dropout = true};
    fm_engine_metrics_t m = {0};
    work_t work = {samples};
    fm_status_t rc = samples_check(trainer, samples, count, &m.targets, err);

    if (rc < 0 || (rc = fm_engine_micro_step(trainer, &method, &work, count, &m,
                                             err)) < 0) {
        return rc;
    }
    if (metrics_out) {
        *metrics_out = m;
    }
    return FM_OK;
}
