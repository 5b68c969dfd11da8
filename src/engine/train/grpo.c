/* SPDX-License-Identifier: Apache-2.0 */
/* GRPO: a completion is judged against the others of its prompt. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "engine/train/experience.h"

void fm_engine_grpo_defaults(fm_engine_grpo_options_t *options_out)
{
    *options_out = (fm_engine_grpo_options_t){
        .group_size = 8,
        .beta = 0.04,
        .clip_range = 0.2,
        .scale_rewards = true,
        .epochs = 1,
        .mini_batch_size = 8,
        .iteration = 1,
    };
}

static fm_status_t options_check(const fm_engine_grpo_options_t *o,
                                 size_t count, fm_error_t *err)
{
    const fm_engine_rl_rule_t rules[] = {
        {"group_size", o->group_size >= 2, "at least 2"},
        {"beta", o->beta >= 0 && o->beta <= 1e6, "0 to 1e6"},
        {"clip_range", o->clip_range > 0 && o->clip_range < 1,
         "above 0, below 1"},
        {"clip_range_high",
         o->clip_range_high >= 0 && o->clip_range_high <= 1e6,
         "0 (= clip_range) to 1e6"},
        {"entropy_coef", o->entropy_coef >= 0 && o->entropy_coef <= 1e6,
         "0 to 1e6"},
        {"target_kl", o->target_kl >= 0 && o->target_kl <= 1e6, "0 to 1e6"},
    };
    fm_status_t rc = fm_engine_rl_rules_check(rules, FM_COUNT_OF(rules), err);

    if (rc >= 0 && count % o->group_size != 0) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "%zu rollouts are no whole groups of %zu", count,
                          o->group_size);
    }
    return rc;
}

static void group_advantages(fm_engine_experience_t *e, size_t first)
{
    const fm_engine_grpo_options_t *o = &e->options.grpo;
    const fm_engine_kept_rollout_t *group = &e->rollouts[first];
    double n = (double)o->group_size;
    double mean = 0;
    double squares = 0;

    for (size_t i = 0; i < o->group_size; i++) {
        mean += group[i].reward / n;
    }
    for (size_t i = 0; i < o->group_size; i++) {
        squares += (group[i].reward - mean) * (group[i].reward - mean);
    }
    double scale = o->scale_rewards ? 1 / (sqrt(squares / (n - 1)) + 1e-4) : 1;
    for (size_t i = 0; i < o->group_size; i++) {
        double advantage = (group[i].reward - mean) * scale;
        for (size_t t = 0; t < group[i].count; t++) {
            e->advantages[group[i].row + t] = (float)advantage;
        }
    }
}

static void grpo_extra(const fm_engine_experience_t *e, fm_engine_rl_row_t *row,
                       fm_engine_metrics_t *m)
{
    double beta = e->options.grpo.beta;

    if (e->reference) {
        double d = (double)e->reference[row->index] - row->logp;
        double k3 = expm1(d) - d;
        row->loss += beta * k3;
        row->slope -= beta * expm1(d);
        m->kl += row->weight * k3;
    }
}

fm_status_t fm_engine_experience_create_grpo(
    fm_engine_trainer_t *trainer, const fm_engine_rollout_t *rollouts,
    size_t count, const fm_engine_grpo_options_t *options, const float *saved,
    size_t saved_count, fm_engine_experience_t **experience_out,
    fm_error_t *err)
{
    const fm_engine_experience_plan_t plan = {.epochs = options->epochs,
                                              .mini_batch_size =
                                                  options->mini_batch_size,
                                              .iteration = options->iteration,
                                              .references = options->beta > 0,
                                              .why = "beta"};
    fm_engine_experience_t *e = NULL;
    fm_status_t rc = options_check(options, count, err);

    if (rc < 0 || (rc = fm_engine_experience_open(trainer, rollouts, count,
                                                  &plan, false, &e, err)) < 0) {
        return rc;
    }
    e->options.grpo = *options;
    e->extra = grpo_extra;
    e->per_completion = true;
    e->clip_low = options->clip_range;
    e->clip_high = options->clip_range_high > 0 ? options->clip_range_high
                                                : options->clip_range;
    e->entropy_coef = options->entropy_coef;
    e->target_kl = options->target_kl;
    if ((rc = fm_engine_experience_fill(e, saved, saved_count, err)) < 0) {
        fm_engine_experience_destroy(e);
        return rc;
    }
    for (size_t i = 0; i < count; i += options->group_size) {
        group_advantages(e, i);
    }
    *experience_out = e;
    return FM_OK;
}
