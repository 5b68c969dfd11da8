/* SPDX-License-Identifier: Apache-2.0 */
/* An iteration's rollouts: kept, checked, ordered, and run once as the old
 * policy, in the micro-batches in which the first epoch trains on them. */
#include "engine/train/experience.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

fm_status_t fm_engine_rl_rules_check(const fm_engine_rl_rule_t *rules,
                                     size_t count, fm_error_t *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!rules[i].good) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "training option %s: want %s", rules[i].name,
                                rules[i].range);
        }
    }
    return FM_OK;
}

/* --- making -------------------------------------------------------------- */

static fm_status_t rollout_check(const fm_engine_trainer_t *trainer,
                                 const fm_engine_rollout_t *rollout, size_t i,
                                 const fm_engine_experience_plan_t *plan,
                                 fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (rollout->prompt_count == 0 || rollout->completion_count == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "rollout %zu: prompt and completion need a token "
                            "each",
                            i);
    }
    if (!isfinite(rollout->reward)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "rollout %zu: the reward is not finite", i);
    }
    if (plan->references && !rollout->reference) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "rollout %zu: reference log-probabilities are "
                            "needed, as %s is above 0",
                            i, plan->why);
    }
    for (size_t t = 0; plan->references && t < rollout->completion_count; t++) {
        if (!isfinite(rollout->reference[t])) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "rollout %zu: reference log-probability %zu "
                                "is not finite",
                                i, t);
        }
    }
    if ((rc = fm_tokens_check(trainer, "prompt of rollout", i, rollout->prompt,
                              rollout->prompt_count, err)) < 0 ||
        (rc = fm_tokens_check(trainer, "completion of rollout", i,
                              rollout->completion, rollout->completion_count,
                              err)) < 0) {
        return rc;
    }
    return fm_engine_length_check(
        trainer, "rollout", i,
        rollout->prompt_count + rollout->completion_count, err);
}

/* Tokens into the pool, references into their rows. */
static void rollouts_copy(fm_engine_experience_t *e,
                          const fm_engine_rollout_t *rollouts)
{
    size_t at = 0;
    size_t row = 0;

    for (size_t i = 0; i < e->count; i++) {
        const fm_engine_rollout_t *from = &rollouts[i];
        e->rollouts[i] =
            (fm_engine_kept_rollout_t){.tokens = at,
                                       .prompt_count = from->prompt_count,
                                       .count = from->completion_count,
                                       .row = row,
                                       .reward = from->reward};
        memcpy(e->pool + at, from->prompt,
               from->prompt_count * sizeof(*e->pool));
        at += from->prompt_count;
        memcpy(e->pool + at, from->completion,
               from->completion_count * sizeof(*e->pool));
        at += from->completion_count;
        if (e->reference) {
            memcpy(e->reference + row, from->reference,
                   from->completion_count * sizeof(*e->reference));
        }
        row += from->completion_count;
    }
}

static void rewards_measure(fm_engine_experience_t *e)
{
    double n = (double)e->count;
    double mean = 0;
    double squares = 0;

    for (size_t i = 0; i < e->count; i++) {
        mean += e->rollouts[i].reward / n;
    }
    for (size_t i = 0; i < e->count; i++) {
        double off = e->rollouts[i].reward - mean;
        squares += off * off / n;
    }
    e->iteration.reward_mean = mean;
    e->iteration.reward_std = sqrt(squares);
}

/* Everything but the content; NULL when memory is out. */
static fm_engine_experience_t *experience_alloc(size_t count, size_t tokens,
                                                size_t rows, bool references)
{
    fm_engine_experience_t *e = fm_calloc(1, sizeof(*e));

    if (!e) {
        return NULL;
    }
    e->count = count;
    e->rows = rows;
    e->order_epoch = SIZE_MAX;
    e->rollouts = fm_calloc(count, sizeof(*e->rollouts));
    e->pool = fm_calloc(tokens, sizeof(*e->pool));
    e->order = fm_calloc(count, sizeof(*e->order));
    e->saved = fm_calloc(2 * rows, sizeof(*e->saved));
    e->advantages = fm_calloc(rows, sizeof(*e->advantages));
    e->returns = fm_calloc(rows, sizeof(*e->returns));
    if (references) {
        e->reference = fm_calloc(rows, sizeof(*e->reference));
    }
    if (!e->rollouts || !e->pool || !e->order || !e->saved || !e->advantages ||
        !e->returns || (references && !e->reference)) {
        return fm_engine_experience_destroy(e);
    }
    return e;
}

fm_status_t fm_engine_experience_open(
    fm_engine_trainer_t *trainer, const fm_engine_rollout_t *rollouts,
    size_t count, const fm_engine_experience_plan_t *plan, bool values,
    fm_engine_experience_t **experience_out, fm_error_t *err)
{
    size_t mini = plan->mini_batch_size;
    size_t tokens = 0;
    size_t rows = 0;
    fm_status_t rc = FM_OK;

    if (mini == 0 || plan->epochs == 0 || plan->epochs > 1000 ||
        plan->iteration == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "training options mini_batch_size, epochs and "
                            "iteration: want at least 1, at most 1000 epochs");
    }
    if (count == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "no rollouts in the iteration");
    }
    for (size_t i = 0; i < count; i++) {
        if ((rc = rollout_check(trainer, &rollouts[i], i, plan, err)) < 0) {
            return rc;
        }
        tokens += rollouts[i].prompt_count + rollouts[i].completion_count;
        rows += rollouts[i].completion_count;
    }
    fm_engine_experience_t *e =
        experience_alloc(count, tokens, rows, plan->references);
    if (!e) {
        return fm_no_memory(err);
    }
    e->trainer = trainer;
    e->values = values;
    e->mini_batch = mini < count ? mini : count;
    e->per_epoch = (count - 1) / mini + 1;
    e->epochs = plan->epochs;
    e->first_epoch = (plan->iteration - 1) * plan->epochs;
    rollouts_copy(e, rollouts);
    rewards_measure(e);
    *experience_out = e;
    return FM_OK;
}

fm_engine_experience_t *
fm_engine_experience_destroy(fm_engine_experience_t *experience)
{
    if (experience) {
        free(experience->rollouts);
        free(experience->pool);
        free(experience->order);
        free(experience->saved);
        free(experience->reference);
        free(experience->advantages);
        free(experience->returns);
        free(experience);
    }
    return NULL;
}

/* --- the order of steps -------------------------------------------------- */

size_t fm_engine_experience_steps(const fm_engine_experience_t *experience)
{
    return experience->per_epoch * experience->epochs;
}

size_t fm_engine_experience_position(const fm_engine_experience_t *experience)
{
    return experience->position;
}

void fm_engine_experience_set_position(fm_engine_experience_t *experience,
                                       size_t position)
{
    size_t steps = fm_engine_experience_steps(experience);

    experience->position = position < steps ? position : steps;
}

size_t fm_engine_experience_epoch(const fm_engine_experience_t *experience)
{
    return experience->position / experience->per_epoch;
}

const float *
fm_engine_experience_saved(const fm_engine_experience_t *experience,
                           size_t *count_out)
{
    *count_out = experience->values ? 2 * experience->rows : experience->rows;
    return experience->saved;
}

bool fm_engine_experience_next(fm_engine_experience_t *experience,
                               const size_t **rollouts_out, size_t *count_out)
{
    fm_engine_experience_t *e = experience;
    size_t epoch = fm_engine_experience_epoch(e);

    if (e->position >= fm_engine_experience_steps(e)) {
        return false;
    }
    if (epoch != e->order_epoch) {
        fm_engine_trainer_order(e->trainer, e->first_epoch + epoch, e->count,
                                e->order);
        e->order_epoch = epoch;
    }
    size_t start = e->position % e->per_epoch * e->mini_batch;
    size_t left = e->count - start;
    *rollouts_out = e->order + start;
    *count_out = left < e->mini_batch ? left : e->mini_batch;
    return true;
}

/* --- steps --------------------------------------------------------------- */

/* The rollouts of one step, and sums over its tokens. */
typedef struct work {
    fm_engine_experience_t *e;
    const size_t *chosen;
    size_t count;
    size_t tokens; /* of the completions */
    double advantage_squares;
    fm_engine_metrics_t *m;
    size_t next;  /* of the chosen: whose rows are due */
    size_t token; /* of its completion */
} work_t;

static const fm_engine_kept_rollout_t *chosen_at(const work_t *work, size_t i)
{
    return &work->e->rollouts[work->chosen[i]];
}

static size_t rollout_length(const void *ctx, size_t i)
{
    const fm_engine_kept_rollout_t *rollout = chosen_at(ctx, i);

    return rollout->prompt_count + rollout->count;
}

static fm_status_t rollout_add(fm_engine_micro_t *micro, const void *ctx,
                               size_t i, fm_error_t *err)
{
    const work_t *work = ctx;
    const fm_engine_kept_rollout_t *rollout = chosen_at(work, i);
    const int32_t *tokens = work->e->pool + rollout->tokens;
    fm_status_t rc = fm_engine_micro_open(micro, err);

    if (rc < 0 ||
        (rc = fm_engine_micro_add(micro, tokens, NULL, rollout->prompt_count,
                                  false, err)) < 0) {
        return rc;
    }
    return fm_engine_micro_add(micro, tokens + rollout->prompt_count, NULL,
                               rollout->count, true, err);
}

/* Keep what was just run as the old policy's. */
static fm_status_t old_keep(const work_t *work, const fm_engine_micro_t *micro,
                            size_t first, fm_error_t *err)
{
    fm_engine_experience_t *e = work->e;
    size_t i = 0;

    for (size_t s = first; i < micro->rows.count; s++) {
        const fm_engine_kept_rollout_t *rollout = chosen_at(work, s);
        for (size_t t = 0; t < rollout->count; t++, i++) {
            float value = e->values ? micro->values[i] : 0;
            if (!isfinite(micro->logp[i]) || !isfinite(value)) {
                return fm_error_set(
                    err, FM_ERR_INVALID,
                    "step %llu, rollout %zu: a log-probability or value of the "
                    "policy is not finite",
                    (unsigned long long)e->trainer->step + 1, work->chosen[s]);
            }
            e->saved[rollout->row + t] = micro->logp[i];
            e->saved[e->rows + rollout->row + t] = value;
        }
    }
    return FM_OK;
}

/* The same operations as a step's, so that the first ratio is exactly 1. */
static fm_status_t old_loss(fm_engine_trainer_t *trainer, void *ctx,
                            size_t first, fm_engine_metrics_t *m,
                            fm_error_t *err)
{
    work_t *work = ctx;
    fm_status_t rc = fm_engine_micro_logprobs(trainer, true, false, err);

    (void)m;
    if (rc >= 0 && work->e->values) {
        rc = fm_engine_micro_values(trainer, false, err);
    }
    return rc < 0 ? rc : old_keep(work, &trainer->micro, first, err);
}

fm_status_t fm_engine_experience_fill(fm_engine_experience_t *e,
                                      const float *saved, size_t saved_count,
                                      fm_error_t *err)
{
    static const fm_engine_method_t method = {
        .length = rollout_length, .add = rollout_add, .loss = old_loss};
    size_t wanted = 0;
    fm_status_t rc = FM_OK;

    e->on_policy = !e->values && fm_engine_experience_steps(e) == 1;
    (void)fm_engine_experience_saved(e, &wanted);
    if (saved) {
        if (saved_count != wanted) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "saved log-probabilities: %zu numbers, %zu are "
                                "needed",
                                saved_count, wanted);
        }
        memcpy(e->saved, saved, wanted * sizeof(*saved));
        return FM_OK;
    }
    for (e->position = 0;
         !e->on_policy && rc >= 0 && e->position < e->per_epoch;
         e->position++) {
        work_t work = {.e = e};
        fm_engine_metrics_t m = {0};
        (void)fm_engine_experience_next(e, &work.chosen, &work.count);
        rc = fm_engine_micro_run(e->trainer, &method, &work, work.count, false,
                                 &m, err);
    }
    e->position = 0;
    return rc;
}

/* The clipped policy loss of one token: −min(A r, A clip(r)). */
static void policy_loss(const fm_engine_experience_t *e,
                        fm_engine_rl_row_t *row, fm_engine_metrics_t *m)
{
    double a = (double)e->advantages[row->index];
    double log_ratio = row->logp - (double)e->saved[row->index];
    double r = exp(log_ratio);
    double low = 1 - e->clip_low;
    double high = 1 + e->clip_high;
    double clipped = r < low ? low : r > high ? high : r;
    bool cut = clipped * a < r * a; /* the gradient of the clip is 0 */
    double loss = cut ? -clipped * a : -r * a;

    row->loss += loss;
    row->slope += cut ? 0 : -r * a;
    m->policy_loss += row->weight * loss;
    m->policy_kl += row->share * (r - 1 - log_ratio);
    m->clip_fraction += cut ? row->share : 0;
    m->ratio_mean += row->share * r;
    m->ratio_min = r < m->ratio_min ? r : m->ratio_min;
    m->ratio_max = r > m->ratio_max ? r : m->ratio_max;
    m->advantage_mean += row->share * a;
}

/* Row @p i of the micro-batch; false when its loss is not finite. */
static bool row_loss(work_t *work, size_t i, fm_engine_rl_row_t *row)
{
    fm_engine_experience_t *e = work->e;
    fm_engine_micro_t *micro = &e->trainer->micro;
    fm_engine_metrics_t *m = work->m;
    double entropy = (double)micro->entropy[i];
    double a = (double)e->advantages[row->index];

    if (e->on_policy) {
        e->saved[row->index] = micro->logp[i];
    }
    row->logp = (double)micro->logp[i];
    row->value = e->values ? (double)micro->values[i] : 0;
    row->loss = -e->entropy_coef * entropy;
    policy_loss(e, row, m);
    e->extra(e, row, m);
    m->loss += row->weight * row->loss;
    m->entropy += row->share * entropy;
    work->advantage_squares += row->share * a * a;
    micro->scales[i] = (float)(row->weight * row->slope);
    micro->entropy_scales[i] = (float)(row->weight * -e->entropy_coef);
    micro->value_scales[i] = (float)(row->weight * row->value_slope);
    return isfinite(m->loss) && isfinite(row->slope) && isfinite(m->ratio_max);
}

/* The loss of some rows, as soon as the head knows them; they come in order. */
static fm_status_t rows_loss(void *ctx, size_t first, size_t count,
                             fm_error_t *err)
{
    work_t *work = ctx;
    fm_engine_experience_t *e = work->e;
    double share = 1 / (double)work->tokens;

    for (size_t i = first; i < first + count; i++) {
        const fm_engine_kept_rollout_t *rollout = chosen_at(work, work->next);
        double mean = 1 / ((double)work->count * (double)rollout->count);
        fm_engine_rl_row_t row = {.index = rollout->row + work->token,
                                  .share = share,
                                  .weight = e->per_completion ? mean : share};
        if (!row_loss(work, i, &row)) {
            return fm_engine_loss_refuse(e->trainer, "rollout",
                                         work->chosen[work->next], err);
        }
        if (++work->token == rollout->count) {
            work->next++;
            work->token = 0;
        }
    }
    return FM_OK;
}

static fm_status_t new_loss(fm_engine_trainer_t *trainer, void *ctx,
                            size_t first, fm_engine_metrics_t *m,
                            fm_error_t *err)
{
    work_t *work = ctx;
    bool values = work->e->values;
    fm_status_t rc =
        values ? fm_engine_micro_values(trainer, false, err) : FM_OK;

    work->m = m;
    work->next = first;
    work->token = 0;
    if (rc < 0 ||
        (rc = fm_engine_micro_policy(trainer, rows_loss, work, err)) < 0) {
        return rc;
    }
    return values ? fm_engine_micro_values(trainer, true, err) : FM_OK;
}

fm_status_t fm_engine_experience_step(fm_engine_experience_t *experience,
                                      fm_engine_metrics_t *metrics_out,
                                      fm_error_t *err)
{
    static const fm_engine_method_t method = {
        .length = rollout_length, .add = rollout_add, .loss = new_loss};
    fm_engine_experience_t *e = experience;
    fm_engine_metrics_t m = e->iteration;
    work_t work = {.e = e};
    fm_status_t rc = FM_OK;

    if (!fm_engine_experience_next(e, &work.chosen, &work.count)) {
        return fm_error_set(err, FM_ERR_INVALID, "the iteration is over");
    }
    for (size_t i = 0; i < work.count; i++) {
        work.tokens += chosen_at(&work, i)->count;
    }
    m.targets = work.tokens;
    m.ratio_min = INFINITY;
    fm_engine_trainer_begin(e->trainer);
    if ((rc = fm_engine_micro_run(e->trainer, &method, &work, work.count, true,
                                  &m, err)) < 0) {
        return rc;
    }
    double variance =
        work.advantage_squares - m.advantage_mean * m.advantage_mean;
    m.advantage_std = variance > 0 ? sqrt(variance) : 0;
    m.stopped = e->target_kl > 0 && m.policy_kl > e->target_kl;
    if (m.stopped) {
        m.step = e->trainer->step;
        e->position = fm_engine_experience_steps(e);
    } else if ((rc = fm_engine_trainer_update(e->trainer, &m, err)) < 0) {
        return rc;
    } else {
        e->position++;
    }
    if (metrics_out) {
        *metrics_out = m;
    }
    return FM_OK;
}
