/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Micro-batches: whole samples, in the order given, as many as fit a number
 * of tokens.  How a step is cut changes its gradient in the last bits only,
 * and dropout not at all.
 */
#include <math.h>
#include <stdlib.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/train/trainer.h"

static void micro_clear(fm_engine_micro_t *micro)
{
    micro->tokens.count = 0;
    micro->offsets.count = 0;
    micro->rows.count = 0;
    micro->targets.count = 0;
    micro->owners.count = 0;
}

void fm_engine_micro_fini(fm_engine_micro_t *micro)
{
    fm_tokens_fini(&micro->tokens);
    fm_tokens_fini(&micro->offsets);
    fm_tokens_fini(&micro->rows);
    fm_tokens_fini(&micro->targets);
    fm_tokens_fini(&micro->owners);
    free(micro->logp);
    free(micro->entropy);
    free(micro->values);
    free(micro->scales);
    free(micro->entropy_scales);
    free(micro->value_scales);
}

size_t fm_engine_micro_sequences(const fm_engine_micro_t *micro)
{
    return micro->offsets.count ? micro->offsets.count - 1 : 0;
}

fm_status_t fm_engine_micro_open(fm_engine_micro_t *micro, fm_error_t *err)
{
    return fm_tokens_add(&micro->offsets, (int32_t)micro->tokens.count, err);
}

static fm_status_t row_add(fm_engine_micro_t *micro, int32_t row,
                           int32_t target, fm_error_t *err)
{
    int32_t owner = (int32_t)micro->offsets.count - 1;
    fm_status_t rc = fm_tokens_add(&micro->rows, row, err);

    if (rc < 0 || (rc = fm_tokens_add(&micro->targets, target, err)) < 0) {
        return rc;
    }
    return fm_tokens_add(&micro->owners, owner, err);
}

fm_status_t fm_engine_micro_add(fm_engine_micro_t *micro, const int32_t *tokens,
                                const uint8_t *mask, size_t count, bool counts,
                                fm_error_t *err)
{
    int32_t begin = micro->offsets.ids[micro->offsets.count - 1];
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        int32_t row = (int32_t)micro->tokens.count;
        if (counts && row > begin && (!mask || mask[i]) &&
            (rc = row_add(micro, row - 1, tokens[i], err)) < 0) {
            return rc;
        }
        rc = fm_tokens_add(&micro->tokens, tokens[i], err);
    }
    return rc;
}

fm_status_t fm_engine_micro_last(fm_engine_micro_t *micro, fm_error_t *err)
{
    return row_add(micro, (int32_t)micro->tokens.count - 1, 0, err);
}

static fm_status_t micro_reach(fm_engine_micro_t *micro, fm_error_t *err)
{
    float **arrays[] = {&micro->logp,           &micro->entropy,
                        &micro->values,         &micro->scales,
                        &micro->entropy_scales, &micro->value_scales};
    size_t count = micro->rows.capacity;

    if (micro->rows.count <= micro->capacity) {
        return FM_OK;
    }
    for (size_t i = 0; i < FM_COUNT_OF(arrays); i++) {
        float *grown = fm_realloc(*arrays[i], count, sizeof(*grown));
        if (!grown) {
            return fm_no_memory(err);
        }
        *arrays[i] = grown;
    }
    micro->capacity = count;
    return FM_OK;
}

/* Close the last sequence and run the layers. */
static fm_status_t micro_forward(fm_engine_trainer_t *trainer, bool dropout,
                                 fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    const uint64_t key[2] = {trainer->options.seed, trainer->step};
    const fm_engine_dropout_t stream = {.key = fm_hash64(key, sizeof(key)),
                                        .first_row = trainer->step_rows};
    fm_status_t rc = fm_engine_micro_open(micro, err);

    if (rc < 0 || (rc = micro_reach(micro, err)) < 0) {
        return rc;
    }
    const fm_engine_batch_t batch = {.tokens = micro->tokens.ids,
                                     .offsets = micro->offsets.ids,
                                     .count = fm_engine_micro_sequences(micro)};
    fm_engine_pass_set_dropout(trainer->pass, dropout ? &stream : NULL);
    return fm_engine_pass_forward(trainer->pass, &batch, err);
}

fm_status_t fm_engine_micro_logprobs(fm_engine_trainer_t *trainer, bool entropy,
                                     bool back, fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    const fm_engine_head_t head = {
        .rows = micro->rows.ids,
        .targets = micro->targets.ids,
        .scales = back ? micro->scales : NULL,
        .entropy_scales = back && entropy ? micro->entropy_scales : NULL,
        .logp_out = micro->logp,
        .entropy_out = entropy ? micro->entropy : NULL};

    return fm_engine_pass_logprobs(trainer->pass, &head, micro->rows.count,
                                   trainer->model_grads, err);
}

fm_status_t fm_engine_micro_policy(fm_engine_trainer_t *trainer,
                                   fm_status_t (*slope)(void *ctx, size_t first,
                                                        size_t count,
                                                        fm_error_t *err),
                                   void *ctx, fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    const fm_engine_head_t head = {.rows = micro->rows.ids,
                                   .targets = micro->targets.ids,
                                   .scales = micro->scales,
                                   .entropy_scales = micro->entropy_scales,
                                   .logp_out = micro->logp,
                                   .entropy_out = micro->entropy,
                                   .slope = slope,
                                   .ctx = ctx};

    return fm_engine_pass_logprobs(trainer->pass, &head, micro->rows.count,
                                   trainer->model_grads, err);
}

fm_status_t fm_engine_micro_values(fm_engine_trainer_t *trainer, bool back,
                                   fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;

    return fm_engine_pass_value(
        trainer->pass, fm_engine_value_data(trainer->parts.value),
        micro->rows.ids, back ? micro->value_scales : NULL, micro->rows.count,
        trainer->value_grads, micro->values, err);
}

/* Run what is gathered; its first item is @p first. */
static fm_status_t micro_flush(fm_engine_trainer_t *trainer,
                               const fm_engine_method_t *method, void *ctx,
                               size_t first, bool back, fm_engine_metrics_t *m,
                               fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    fm_status_t rc = micro_forward(trainer, method->dropout, err);

    if (rc < 0 || (rc = method->loss(trainer, ctx, first, m, err)) < 0) {
        return rc;
    }
    if (back) {
        rc = fm_engine_pass_backward(trainer->pass, trainer->model_grads, err);
    }
    m->tokens += micro->tokens.count;
    trainer->step_rows += micro->tokens.count;
    micro_clear(micro);
    return rc;
}

fm_status_t fm_engine_micro_run(fm_engine_trainer_t *trainer,
                                const fm_engine_method_t *method, void *ctx,
                                size_t count, bool back, fm_engine_metrics_t *m,
                                fm_error_t *err)
{
    fm_engine_micro_t *micro = &trainer->micro;
    size_t limit = trainer->options.micro_batch_tokens;
    size_t first = 0;
    fm_status_t rc = FM_OK;

    micro_clear(micro);
    for (size_t i = 0; i < count; i++) {
        if (i > first && micro->tokens.count + method->length(ctx, i) > limit) {
            if ((rc = micro_flush(trainer, method, ctx, first, back, m, err)) <
                0) {
                return rc;
            }
            first = i;
        }
        if ((rc = method->add(micro, ctx, i, err)) < 0) {
            return rc;
        }
    }
    return micro_flush(trainer, method, ctx, first, back, m, err);
}

fm_status_t fm_engine_micro_step(fm_engine_trainer_t *trainer,
                                 const fm_engine_method_t *method, void *ctx,
                                 size_t count, fm_engine_metrics_t *m,
                                 fm_error_t *err)
{
    fm_engine_trainer_begin(trainer);
    fm_status_t rc =
        fm_engine_micro_run(trainer, method, ctx, count, true, m, err);

    return rc < 0 ? rc : fm_engine_trainer_update(trainer, m, err);
}

/* --- checks -------------------------------------------------------------- */

fm_status_t fm_tokens_check(const fm_engine_trainer_t *trainer,
                            const char *what, size_t index,
                            const int32_t *tokens, size_t count,
                            fm_error_t *err)
{
    size_t vocab = fm_engine_model_config(trainer->parts.model)->vocab_size;

    for (size_t i = 0; i < count; i++) {
        if (tokens[i] < 0 || (size_t)tokens[i] >= vocab) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%s %zu, token %zu is %d: vocab_size is %zu",
                                what, index, i, tokens[i], vocab);
        }
    }
    return FM_OK;
}

fm_status_t fm_engine_length_check(const fm_engine_trainer_t *trainer,
                                   const char *what, size_t index, size_t count,
                                   fm_error_t *err)
{
    size_t limit =
        fm_engine_model_config(trainer->parts.model)->max_position_embeddings;

    if (count > limit) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%s %zu has %zu tokens: max_position_embeddings "
                            "is %zu; cut it",
                            what, index, count, limit);
    }
    return FM_OK;
}

fm_status_t fm_engine_loss_refuse(const fm_engine_trainer_t *trainer,
                                  const char *what, size_t index,
                                  fm_error_t *err)
{
    return fm_error_set(err, FM_ERR_INVALID,
                        "step %llu, %s %zu: the loss is not finite; lower the "
                        "learning rate or check the data",
                        (unsigned long long)trainer->step + 1, what,
                        trainer->names ? trainer->names[index] : index);
}

void fm_engine_trainer_name(fm_engine_trainer_t *trainer, const size_t *names)
{
    trainer->names = names;
}
