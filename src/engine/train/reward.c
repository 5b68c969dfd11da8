/* SPDX-License-Identifier: Apache-2.0 */
/* Reward models: the score at the last token, compared in pairs. */
#include <math.h>

#include "engine/train/trainer.h"

typedef struct work {
    const fm_engine_pair_t *pairs;
} work_t;

static size_t pair_length(const void *ctx, size_t i)
{
    return fm_engine_pair_tokens(&((const work_t *)ctx)->pairs[i]);
}

static fm_status_t pair_add(fm_engine_micro_t *micro, const void *ctx, size_t i,
                            fm_error_t *err)
{
    return fm_engine_pair_add(micro, &((const work_t *)ctx)->pairs[i], true,
                              err);
}

/* Rows 2p and 2p + 1 are the last tokens of chosen and rejected. */
static fm_status_t reward_loss(fm_engine_trainer_t *trainer, void *ctx,
                               size_t first, fm_engine_metrics_t *m,
                               fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    double share = 1 / (double)m->targets;
    fm_status_t rc = fm_engine_micro_values(trainer, false, err);

    (void)ctx;
    for (size_t p = 0; rc >= 0 && p < micro->rows.count / 2; p++) {
        double chosen = (double)micro->values[2 * p];
        double rejected = (double)micro->values[2 * p + 1];
        double margin = chosen - rejected;
        if (!isfinite(margin)) {
            return fm_engine_loss_refuse(trainer, "pair", first + p, err);
        }
        m->loss -= share * fm_engine_log_sigmoid(margin);
        m->reward_chosen += share * chosen;
        m->reward_rejected += share * rejected;
        m->margin += share * margin;
        m->accuracy += margin > 0 ? share : 0;
        double slope = -share * exp(fm_engine_log_sigmoid(-margin));
        micro->value_scales[2 * p] = (float)slope;
        micro->value_scales[2 * p + 1] = (float)-slope;
    }
    return rc < 0 ? rc : fm_engine_micro_values(trainer, true, err);
}

fm_status_t fm_engine_trainer_reward(fm_engine_trainer_t *trainer,
                                     const fm_engine_pair_t *pairs,
                                     size_t count,
                                     fm_engine_metrics_t *metrics_out,
                                     fm_error_t *err)
{
    static const fm_engine_method_t method = {.length = pair_length,
                                              .add = pair_add,
                                              .loss = reward_loss,
                                              .dropout = true};
    fm_engine_metrics_t m = {.targets = count};
    work_t work = {pairs};
    fm_status_t rc = FM_OK;

    if (!trainer->parts.value) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a reward model needs a scalar head");
    }
    if ((rc = fm_engine_pairs_check(trainer, pairs, count, false, err)) < 0 ||
        (rc = fm_engine_micro_step(trainer, &method, &work, count, &m, err)) <
            0) {
        return rc;
    }
    if (metrics_out) {
        *metrics_out = m;
    }
    return FM_OK;
}
