/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The two kinds of training step.  Both gather whole samples into
 * micro-batches, run them, and turn log-probabilities into a loss and into the
 * scale of every log-probability's gradient.
 */
#include "engine/train.h"

#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "engine/trainer.h"

static void micro_clear(fm_engine_micro_t *micro)
{
    micro->tokens.count = 0;
    micro->offsets.count = 0;
    micro->rows.count = 0;
    micro->targets.count = 0;
    micro->owners.count = 0;
}

static size_t micro_sequences(const fm_engine_micro_t *micro)
{
    return micro->offsets.count ? micro->offsets.count - 1 : 0;
}

/* Append tokens to the sequence being built; @p mask NULL counts all, but the
 * first token of a sequence is never predicted. */
static fm_status_t micro_add(fm_engine_micro_t *micro, const int32_t *tokens,
                             const uint8_t *mask, size_t count, bool counts,
                             fm_error_t *err)
{
    int32_t owner = (int32_t)micro->offsets.count - 1;
    int32_t begin = micro->offsets.ids[owner];
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        int32_t row = (int32_t)micro->tokens.count;
        if (counts && row > begin && (!mask || mask[i])) {
            if ((rc = fm_engine_tokens_add(&micro->rows, row - 1, err)) < 0 ||
                (rc = fm_engine_tokens_add(&micro->targets, tokens[i], err)) <
                    0 ||
                (rc = fm_engine_tokens_add(&micro->owners, owner, err)) < 0) {
                return rc;
            }
        }
        rc = fm_engine_tokens_add(&micro->tokens, tokens[i], err);
    }
    return rc;
}

/* Open the next sequence; the one before it ends here. */
static fm_status_t micro_open(fm_engine_micro_t *micro, fm_error_t *err)
{
    return fm_engine_tokens_add(&micro->offsets, (int32_t)micro->tokens.count,
                                err);
}

static fm_status_t micro_reach(fm_engine_micro_t *micro, fm_error_t *err)
{
    if (micro->rows.count <= micro->capacity) {
        return FM_OK;
    }
    size_t count = micro->rows.capacity;
    float *scales = fm_realloc(micro->scales, count, sizeof(*scales));
    micro->scales = scales ? scales : micro->scales;
    float *logp = fm_realloc(micro->logp, count, sizeof(*logp));
    micro->logp = logp ? logp : micro->logp;
    if (!scales || !logp) {
        return fm_no_memory(err);
    }
    micro->capacity = count;
    return FM_OK;
}

/* Close the last sequence and run the layers. */
static fm_status_t micro_forward(fm_engine_trainer_t *trainer, fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    fm_status_t rc = micro_open(micro, err);

    if (rc < 0 || (rc = micro_reach(micro, err)) < 0) {
        return rc;
    }
    const fm_engine_batch_t batch = {.tokens = micro->tokens.ids,
                                     .offsets = micro->offsets.ids,
                                     .count = micro_sequences(micro)};
    return fm_engine_pass_forward(trainer->pass, &batch, NULL, NULL, err);
}

/* The head, with the gradient when @p back, into micro->logp. */
static fm_status_t micro_head(fm_engine_trainer_t *trainer, bool back,
                              fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;

    return fm_engine_pass_head(trainer->pass, micro->rows.ids,
                               micro->targets.ids, back ? micro->scales : NULL,
                               micro->rows.count, trainer->grads, micro->logp,
                               err);
}

/* A sequence must fit the model before it joins a micro-batch, so that the
 * text can name the caller's sample. */
static fm_status_t tokens_check(const fm_engine_trainer_t *trainer,
                                const char *what, size_t index,
                                const int32_t *tokens, size_t count,
                                fm_error_t *err)
{
    size_t vocab = fm_engine_model_config(trainer->model)->vocab_size;

    for (size_t i = 0; i < count; i++) {
        if (tokens[i] < 0 || (size_t)tokens[i] >= vocab) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%s %zu, token %zu is %d: vocab_size is %zu",
                                what, index, i, tokens[i], vocab);
        }
    }
    return FM_OK;
}

static fm_status_t length_check(const fm_engine_trainer_t *trainer,
                                const char *what, size_t index, size_t count,
                                fm_error_t *err)
{
    size_t limit =
        fm_engine_model_config(trainer->model)->max_position_embeddings;

    if (count > limit) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%s %zu has %zu tokens: max_position_embeddings "
                            "is %zu; cut it",
                            what, index, count, limit);
    }
    return FM_OK;
}

/* --- SFT ----------------------------------------------------------------- */

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
        if ((rc = length_check(trainer, "sample", s, sample->count, err)) < 0 ||
            (rc = tokens_check(trainer, "sample", s, sample->tokens,
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

/* Run what is gathered; @p first is the sample its first sequence came from. */
static fm_status_t sft_flush(fm_engine_trainer_t *trainer, size_t first,
                             fm_engine_metrics_t *m, fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    fm_status_t rc = micro_forward(trainer, err);

    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < micro->rows.count; i++) {
        micro->scales[i] = -1.0F / (float)m->targets;
    }
    if ((rc = micro_head(trainer, true, err)) < 0) {
        return rc;
    }
    for (size_t i = 0; i < micro->rows.count; i++) {
        if (!isfinite(micro->logp[i])) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "step %llu, sample %zu: the loss is not "
                                "finite; lower the learning rate or check the "
                                "data",
                                (unsigned long long)trainer->step + 1,
                                first + (size_t)micro->owners.ids[i]);
        }
        m->loss -= (double)micro->logp[i] / (double)m->targets;
    }
    m->tokens += micro->tokens.count;
    rc = fm_engine_pass_backward(trainer->pass, trainer->grads, err);
    micro_clear(micro);
    return rc;
}

fm_status_t fm_engine_trainer_sft(fm_engine_trainer_t *trainer,
                                  const fm_engine_sample_t *samples,
                                  size_t count,
                                  fm_engine_metrics_t *metrics_out,
                                  fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    fm_engine_metrics_t m = {0};
    size_t limit = trainer->options.micro_batch_tokens;
    size_t first = 0;
    fm_status_t rc = samples_check(trainer, samples, count, &m.targets, err);

    if (rc < 0) {
        return rc;
    }
    micro_clear(micro);
    fm_engine_trainer_begin(trainer);
    for (size_t s = 0; s < count; s++) {
        if (s > first && micro->tokens.count + samples[s].count > limit) {
            if ((rc = sft_flush(trainer, first, &m, err)) < 0) {
                return rc;
            }
            first = s;
        }
        if ((rc = micro_open(micro, err)) < 0 ||
            (rc = micro_add(micro, samples[s].tokens, samples[s].mask,
                            samples[s].count, true, err)) < 0) {
            return rc;
        }
    }
    if ((rc = sft_flush(trainer, first, &m, err)) < 0 ||
        (rc = fm_engine_trainer_update(trainer, &m, err)) < 0) {
        return rc;
    }
    if (metrics_out) {
        *metrics_out = m;
    }
    return FM_OK;
}

/* --- DPO ----------------------------------------------------------------- */

static fm_status_t pair_check(const fm_engine_trainer_t *trainer,
                              const fm_engine_pair_t *pair, size_t index,
                              fm_error_t *err)
{
    size_t longer = pair->chosen_count > pair->rejected_count
                        ? pair->chosen_count
                        : pair->rejected_count;
    fm_status_t rc = FM_OK;

    if (pair->prompt_count == 0 || pair->chosen_count == 0 ||
        pair->rejected_count == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "pair %zu: prompt, chosen and rejected need a "
                            "token each",
                            index);
    }
    if (!isfinite(pair->reference_chosen) ||
        !isfinite(pair->reference_rejected)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "pair %zu: a reference log-probability is not "
                            "finite",
                            index);
    }
    if ((rc = tokens_check(trainer, "prompt of pair", index, pair->prompt,
                           pair->prompt_count, err)) < 0 ||
        (rc = tokens_check(trainer, "chosen of pair", index, pair->chosen,
                           pair->chosen_count, err)) < 0 ||
        (rc = tokens_check(trainer, "rejected of pair", index, pair->rejected,
                           pair->rejected_count, err)) < 0) {
        return rc;
    }
    return length_check(trainer, "pair", index, pair->prompt_count + longer,
                        err);
}

static fm_status_t pair_add(fm_engine_micro_t *micro,
                            const fm_engine_pair_t *pair, fm_error_t *err)
{
    const int32_t *completions[2] = {pair->chosen, pair->rejected};
    const size_t counts[2] = {pair->chosen_count, pair->rejected_count};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < 2; i++) {
        if ((rc = micro_open(micro, err)) < 0 ||
            (rc = micro_add(micro, pair->prompt, NULL, pair->prompt_count,
                            false, err)) < 0) {
            return rc;
        }
        rc = micro_add(micro, completions[i], NULL, counts[i], true, err);
    }
    return rc;
}

/* log σ(x) without overflow. */
static double log_sigmoid(double x)
{
    return x >= 0 ? -log1p(exp(-x)) : x - log1p(exp(x));
}

/* One pair's part of the loss and metrics; @p sums are log π of chosen and
 * rejected.  Returns d loss / d log π(chosen); rejected has the opposite. */
static double pair_loss(const fm_engine_pair_t *pair, const double sums[2],
                        double beta, double share, fm_engine_metrics_t *m)
{
    double chosen = beta * (sums[0] - pair->reference_chosen);
    double rejected = beta * (sums[1] - pair->reference_rejected);
    double margin = chosen - rejected;

    m->loss -= share * log_sigmoid(margin);
    m->reward_chosen += share * chosen;
    m->reward_rejected += share * rejected;
    m->margin += share * margin;
    m->accuracy += chosen > rejected ? share : 0;
    return -share * beta * exp(log_sigmoid(-margin));
}

/* From micro->logp: the loss, and every row's gradient scale. */
static fm_status_t pairs_loss(fm_engine_trainer_t *trainer,
                              const fm_engine_pair_t *pairs, size_t first,
                              double beta, fm_engine_metrics_t *m,
                              fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    double share = 1.0 / (double)m->targets;
    size_t row = 0;

    for (size_t p = 0; p < micro_sequences(micro) / 2; p++) {
        size_t begin = row;
        double sums[2] = {0};
        for (;
             row < micro->rows.count && (size_t)micro->owners.ids[row] / 2 == p;
             row++) {
            sums[micro->owners.ids[row] % 2] += (double)micro->logp[row];
        }
        double slope = pair_loss(&pairs[first + p], sums, beta, share, m);
        if (!isfinite(m->loss) || !isfinite(slope)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "step %llu, pair %zu: the loss is not finite; "
                                "lower the learning rate or check the data",
                                (unsigned long long)trainer->step + 1,
                                first + p);
        }
        for (size_t i = begin; i < row; i++) {
            micro->scales[i] =
                (float)(micro->owners.ids[i] % 2 ? -slope : slope);
        }
    }
    return FM_OK;
}

static fm_status_t dpo_flush(fm_engine_trainer_t *trainer,
                             const fm_engine_pair_t *pairs, size_t first,
                             double beta, fm_engine_metrics_t *m,
                             fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    fm_status_t rc = micro_forward(trainer, err);

    if (rc < 0 || (rc = micro_head(trainer, false, err)) < 0 ||
        (rc = pairs_loss(trainer, pairs, first, beta, m, err)) < 0 ||
        (rc = micro_head(trainer, true, err)) < 0) {
        return rc;
    }
    m->tokens += micro->tokens.count;
    rc = fm_engine_pass_backward(trainer->pass, trainer->grads, err);
    micro_clear(micro);
    return rc;
}

static size_t pair_tokens(const fm_engine_pair_t *pair)
{
    return 2 * pair->prompt_count + pair->chosen_count + pair->rejected_count;
}

fm_status_t fm_engine_trainer_dpo(fm_engine_trainer_t *trainer,
                                  const fm_engine_pair_t *pairs, size_t count,
                                  double beta, fm_engine_metrics_t *metrics_out,
                                  fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    fm_engine_metrics_t m = {.targets = count};
    size_t limit = trainer->options.micro_batch_tokens;
    size_t first = 0;
    fm_status_t rc = FM_OK;

    if (count == 0 || !(beta > 0 && beta <= 1e6)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            count ? "beta: want above 0, at most 1e6"
                                  : "no pairs in the step");
    }
    for (size_t p = 0; p < count; p++) {
        if ((rc = pair_check(trainer, &pairs[p], p, err)) < 0) {
            return rc;
        }
    }
    micro_clear(micro);
    fm_engine_trainer_begin(trainer);
    for (size_t p = 0; p < count; p++) {
        if (p > first && micro->tokens.count + pair_tokens(&pairs[p]) > limit) {
            if ((rc = dpo_flush(trainer, pairs, first, beta, &m, err)) < 0) {
                return rc;
            }
            first = p;
        }
        if ((rc = pair_add(micro, &pairs[p], err)) < 0) {
            return rc;
        }
    }
    if ((rc = dpo_flush(trainer, pairs, first, beta, &m, err)) < 0 ||
        (rc = fm_engine_trainer_update(trainer, &m, err)) < 0) {
        return rc;
    }
    if (metrics_out) {
        *metrics_out = m;
    }
    return FM_OK;
}
