/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct preference optimisation.  The loss of a pair is a function of
 * h = (log π − log ref)(chosen) − (log π − log ref)(rejected), so its gradient
 * is one slope: the rows of chosen get it, those of rejected its opposite.
 */
#include <math.h>
#include <string.h>

#include "engine/train/trainer.h"

typedef struct work {
    const fm_engine_pair_t *pairs;
    const fm_engine_dpo_options_t *options;
    double share; /* 1 / pairs */
} work_t;

bool fm_engine_dpo_loss_parse(const char *text, fm_engine_dpo_loss_t *loss_out)
{
    if (strcmp(text, "sigmoid") != 0 && strcmp(text, "ipo") != 0) {
        return false;
    }
    *loss_out =
        strcmp(text, "ipo") == 0 ? FM_ENGINE_DPO_IPO : FM_ENGINE_DPO_SIGMOID;
    return true;
}

static size_t pair_length(const void *ctx, size_t i)
{
    return fm_engine_pair_tokens(&((const work_t *)ctx)->pairs[i]);
}

static fm_status_t pair_add(fm_engine_micro_t *micro, const void *ctx, size_t i,
                            fm_error_t *err)
{
    return fm_engine_pair_add(micro, &((const work_t *)ctx)->pairs[i], false,
                              err);
}

/* The loss at @p h; returns d loss / d h. */
static double loss_at(const fm_engine_dpo_options_t *o, double h,
                      double *loss_out)
{
    if (o->loss == FM_ENGINE_DPO_IPO) {
        double off = h - 1 / (2 * o->beta);
        *loss_out = off * off;
        return 2 * off;
    }
    double z = o->beta * h;
    double smooth = o->label_smoothing;
    *loss_out = -(1 - smooth) * fm_engine_log_sigmoid(z) -
                smooth * fm_engine_log_sigmoid(-z);
    return o->beta * (smooth * exp(fm_engine_log_sigmoid(z)) -
                      (1 - smooth) * exp(fm_engine_log_sigmoid(-z)));
}

/* One pair's part of loss and metrics; @p sums are log π of chosen and
 * rejected.  Returns d loss / d log π(chosen). */
static double pair_loss(const work_t *work, size_t p, const double sums[2],
                        fm_engine_metrics_t *m)
{
    const fm_engine_pair_t *pair = &work->pairs[p];
    double chosen = sums[0] - pair->reference_chosen;
    double rejected = sums[1] - pair->reference_rejected;
    double beta = work->options->beta;
    double loss = 0;
    double slope = loss_at(work->options, chosen - rejected, &loss);

    m->loss += work->share * loss;
    m->reward_chosen += work->share * beta * chosen;
    m->reward_rejected += work->share * beta * rejected;
    m->margin += work->share * beta * (chosen - rejected);
    m->accuracy += chosen > rejected ? work->share : 0;
    return work->share * slope;
}

static fm_status_t dpo_loss(fm_engine_trainer_t *trainer, void *ctx,
                            size_t first, fm_engine_metrics_t *m,
                            fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    const int32_t *owners = micro->owners.ids;
    size_t row = 0;
    fm_status_t rc = fm_engine_micro_logprobs(trainer, false, false, err);

    for (size_t p = 0; rc >= 0 && p < fm_engine_micro_sequences(micro) / 2;
         p++) {
        size_t begin = row;
        double sums[2] = {0};
        for (; row < micro->rows.count && (size_t)owners[row] / 2 == p; row++) {
            sums[owners[row] % 2] += (double)micro->logp[row];
        }
        double slope = pair_loss(ctx, first + p, sums, m);
        if (!isfinite(m->loss) || !isfinite(slope)) {
            return fm_engine_loss_refuse(trainer, "pair", first + p, err);
        }
        for (size_t i = begin; i < row; i++) {
            micro->scales[i] = (float)(owners[i] % 2 ? -slope : slope);
        }
    }
    return rc < 0 ? rc : fm_engine_micro_logprobs(trainer, false, true, err);
}

static fm_status_t options_check(const fm_engine_dpo_options_t *o,
                                 fm_error_t *err)
{
    if (!(o->beta > 0 && o->beta <= 1e6)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "beta: want above 0, at most 1e6");
    }
    if (!(o->label_smoothing >= 0 && o->label_smoothing < 0.5)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "label_smoothing: want at least 0, below 0.5");
    }
    if (o->loss == FM_ENGINE_DPO_IPO && o->label_smoothing > 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "label_smoothing: the ipo loss has none");
    }
    return FM_OK;
}

fm_status_t fm_engine_trainer_dpo(fm_engine_trainer_t *trainer,
                                  const fm_engine_pair_t *pairs, size_t count,
                                  const fm_engine_dpo_options_t *options,
                                  fm_engine_metrics_t *metrics_out,
                                  fm_error_t *err)
{
    static const fm_engine_method_t method = {.length = pair_length,
                                              .add = pair_add,
                                              .loss = dpo_loss,
                                              .dropout = true};
    fm_engine_metrics_t m = {.targets = count};
    work_t work = {pairs, options, 1 / (double)count};
    fm_status_t rc = options_check(options, err);

    if (rc < 0 ||
        (rc = fm_engine_pairs_check(trainer, pairs, count, true, err)) < 0 ||
        (rc = fm_engine_micro_step(trainer, &method, &work, count, &m, err)) <
            0) {
        return rc;
    }
    if (metrics_out) {
        *metrics_out = m;
    }
    return FM_OK;
}
