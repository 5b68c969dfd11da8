/* SPDX-License-Identifier: Apache-2.0 */
/* PPO: advantages from a critic, a clipped value loss. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "engine/train/experience.h"

void fm_engine_ppo_defaults(fm_engine_ppo_options_t *options_out)
{
    *options_out = (fm_engine_ppo_options_t){
        .clip_range = 0.2,
        .value_clip_range = 0.2,
        .value_coef = 0.1,
        .gamma = 1,
        .lam = 0.95,
        .kl_coef = 0.05,
        .whiten_advantages = true,
        .epochs = 4,
        .mini_batch_size = 8,
        .iteration = 1,
    };
}

static fm_status_t options_check(const fm_engine_ppo_options_t *o,
                                 fm_error_t *err)
{
    const fm_engine_rl_rule_t rules[] = {
        {"clip_range", o->clip_range > 0 && o->clip_range < 1,
         "above 0, below 1"},
        {"value_clip_range",
         o->value_clip_range >= 0 && o->value_clip_range <= 1e6, "0 to 1e6"},
        {"value_coef", o->value_coef >= 0 && o->value_coef <= 1e6, "0 to 1e6"},
        {"gamma", o->gamma >= 0 && o->gamma <= 1, "0 to 1"},
        {"lam", o->lam >= 0 && o->lam <= 1, "0 to 1"},
        {"kl_coef", o->kl_coef >= 0 && o->kl_coef <= 1e6, "0 to 1e6"},
        {"entropy_coef", o->entropy_coef >= 0 && o->entropy_coef <= 1e6,
         "0 to 1e6"},
        {"target_kl", o->target_kl >= 0 && o->target_kl <= 1e6, "0 to 1e6"},
    };

    return fm_engine_rl_rules_check(rules, FM_COUNT_OF(rules), err);
}

/* GAE of one rollout, from its last token back. */
static void rollout_advantages(fm_engine_experience_t *e,
                               const fm_engine_kept_rollout_t *rollout)
{
    const fm_engine_ppo_options_t *o = &e->options.ppo;
    const float *old = e->saved;
    const float *values = e->saved + e->rows;
    double next_value = 0;
    double advantage = 0;

    for (size_t t = rollout->count; t-- > 0;) {
        size_t row = rollout->row + t;
        double reward = t + 1 == rollout->count ? rollout->reward : 0;
        if (e->reference) {
            reward -=
                o->kl_coef * ((double)old[row] - (double)e->reference[row]);
        }
        double value = (double)values[row];
        double delta = reward + o->gamma * next_value - value;
        advantage = delta + o->gamma * o->lam * advantage;
        next_value = value;
        e->advantages[row] = (float)advantage;
        e->returns[row] = (float)(advantage + value);
    }
}

/* Mean and Σ(x − mean)² of @p count numbers, less @p minus where given. */
static double squares_about_mean(const float *x, const float *minus,
                                 size_t count, double *mean_out)
{
    double mean = 0;
    double squares = 0;

    for (size_t i = 0; i < count; i++) {
        mean += (double)x[i] - (minus ? (double)minus[i] : 0);
    }
    mean /= (double)count;
    for (size_t i = 0; i < count; i++) {
        double off = (double)x[i] - (minus ? (double)minus[i] : 0) - mean;
        squares += off * off;
    }
    *mean_out = mean;
    return squares;
}

static void advantages_whiten(fm_engine_experience_t *e)
{
    double mean = 0;
    double squares = squares_about_mean(e->advantages, NULL, e->rows, &mean);
    double scale =
        e->rows > 1 ? 1 / sqrt(squares / (double)(e->rows - 1) + 1e-8) : 1;

    for (size_t i = 0; i < e->rows; i++) {
        e->advantages[i] = (float)(((double)e->advantages[i] - mean) * scale);
    }
}

static void critic_measure(fm_engine_experience_t *e)
{
    const float *values = e->saved + e->rows;
    double mean = 0;
    double left = squares_about_mean(e->returns, values, e->rows, &mean);
    double total = squares_about_mean(e->returns, NULL, e->rows,
                                      &e->iteration.return_mean);

    (void)squares_about_mean(values, NULL, e->rows, &e->iteration.value_mean);
    e->iteration.explained_variance = total > 0 ? 1 - left / total : 0;
}

static void ppo_extra(const fm_engine_experience_t *e, fm_engine_rl_row_t *row,
                      fm_engine_metrics_t *m)
{
    const fm_engine_ppo_options_t *o = &e->options.ppo;
    double old = (double)e->saved[e->rows + row->index];
    double off = row->value - (double)e->returns[row->index];
    double moved = row->value - old;
    double range = o->value_clip_range;
    bool outside = range > 0 && fabs(moved) > range;
    double clipped = outside ? off - moved + copysign(range, moved) : off;
    bool cut = outside && clipped * clipped > off * off;
    double loss = 0.5 * (cut ? clipped * clipped : off * off);

    row->loss += o->value_coef * loss;
    row->value_slope += cut ? 0 : o->value_coef * off;
    m->value_loss += row->weight * loss;
    m->value_clip_fraction += cut ? row->share : 0;
    if (e->reference) {
        m->kl += row->share * ((double)e->saved[row->index] -
                               (double)e->reference[row->index]);
    }
}

fm_status_t fm_engine_experience_create_ppo(
    fm_engine_trainer_t *trainer, const fm_engine_rollout_t *rollouts,
    size_t count, const fm_engine_ppo_options_t *options, const float *saved,
    size_t saved_count, fm_engine_experience_t **experience_out,
    fm_error_t *err)
{
    const fm_engine_experience_plan_t plan = {
        .epochs = options->epochs,
        .mini_batch_size = options->mini_batch_size,
        .iteration = options->iteration,
        .references = options->kl_coef > 0,
        .why = "kl_coef"};
    fm_engine_experience_t *e = NULL;
    fm_status_t rc = options_check(options, err);

    if (rc < 0) {
        return rc;
    }
    if (!trainer->parts.value) {
        return fm_error_set(err, FM_ERR_INVALID, "PPO needs a scalar head");
    }
    if ((rc = fm_engine_experience_open(trainer, rollouts, count, &plan, true,
                                        &e, err)) < 0) {
        return rc;
    }
    e->options.ppo = *options;
    e->extra = ppo_extra;
    e->clip_low = options->clip_range;
    e->clip_high = options->clip_range;
    e->entropy_coef = options->entropy_coef;
    e->target_kl = options->target_kl;
    if ((rc = fm_engine_experience_fill(e, saved, saved_count, err)) < 0) {
        fm_engine_experience_destroy(e);
        return rc;
    }
    for (size_t i = 0; i < count; i++) {
        rollout_advantages(e, &e->rollouts[i]);
    }
    critic_measure(e);
    if (options->whiten_advantages) {
        advantages_whiten(e);
    }
    *experience_out = e;
    return FM_OK;
}
