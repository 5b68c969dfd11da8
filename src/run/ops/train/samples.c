/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The item of a training operator as token sequences.  Every error names the
 * sample by its place in the item, from 0.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/train/training.h"

void fm_ops_samples_fini(fm_ops_samples_t *samples)
{
    for (size_t i = 0; samples->sequences && i < samples->sequence_count; i++) {
        fm_ops_sequence_fini(&samples->sequences[i]);
    }
    free(samples->sequences);
    free(samples->samples);
    free(samples->pairs);
    *samples = (fm_ops_samples_t){0};
}

static fm_status_t list_check(const fm_json_t *list, const char *name,
                              fm_error_t *err)
{
    size_t count = fm_json_len(list);

    if (!fm_json_is(list, FM_JSON_ARRAY) || count < 1 ||
        count > OPS_SAMPLES_MAX) {
        return fm_error_set(
            err, FM_ERR_INVALID, "%s: a list of 1 to %d is needed, not %s%s",
            name, OPS_SAMPLES_MAX, list && count == 0 ? "an empty one" : "this",
            list ? "" : " (there is none)");
    }
    return FM_OK;
}

/* Which tokens are learned: the completion, unless the sample said. */
static fm_status_t mask_make(fm_ops_sequence_t *sequence, fm_error_t *err)
{
    size_t count = sequence->tokens.count;

    if (count < 2) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%zu tokens: 2 are needed to predict one", count);
    }
    if (!sequence->mask) {
        if (!(sequence->mask = fm_calloc(count, 1))) {
            return fm_no_memory(err);
        }
        memset(sequence->mask + sequence->prompt_count, 1,
               count - sequence->prompt_count);
    }
    if (!memchr(sequence->mask + 1, 1, count - 1)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "nothing to learn in its %zu tokens: no "
                            "completion, or no assistant turn",
                            count);
    }
    return FM_OK;
}

static fm_status_t sample_make(const fm_ops_model_t *model,
                               const fm_json_t *sample,
                               const fm_ops_limit_t *limit,
                               fm_ops_sequence_t *out, fm_error_t *err)
{
    const fm_json_t *text = fm_json_get(sample, "text");
    const fm_json_t *prompt = fm_json_get(sample, "prompt");
    const fm_json_t *messages = fm_json_get(sample, "messages");
    fm_status_t rc;

    if (!text && !prompt && !messages) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "messages, text, or prompt and completion, are "
                            "needed");
    }
    if (messages) {
        rc = fm_ops_messages_make(model, messages, limit, out, err);
        return rc < 0 ? rc : mask_make(out, err);
    }
    rc = fm_ops_sequence_make(model, text ? NULL : prompt,
                              text ? text : fm_json_get(sample, "completion"),
                              limit, out, err);
    return rc < 0 ? rc : mask_make(out, err);
}

fm_status_t fm_ops_samples_make(const fm_ops_model_t *model,
                                const fm_json_t *value,
                                const fm_ops_limit_t *limit,
                                fm_ops_samples_t *out, fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(value, "samples");
    fm_ops_samples_t made = {0};
    fm_status_t rc = list_check(list, "samples", err);

    if (rc < 0) {
        return rc;
    }
    made.count = fm_json_len(list);
    if (!(made.sequences = fm_calloc(made.count, sizeof(*made.sequences))) ||
        !(made.samples = fm_calloc(made.count, sizeof(*made.samples)))) {
        rc = fm_no_memory(err);
        goto out;
    }
    made.sequence_count = made.count;
    for (size_t i = 0; i < made.count; i++) {
        fm_ops_sequence_t *sequence = &made.sequences[i];
        if ((rc = sample_make(model, fm_json_at(list, i), limit, sequence,
                              err)) < 0) {
            fm_error_wrap(err, "samples[%zu]", i);
            goto out;
        }
        made.samples[i] = (fm_engine_sample_t){
            sequence->tokens.ids, sequence->mask, sequence->tokens.count};
    }
    *out = made;
    made = (fm_ops_samples_t){0};
out:
    fm_ops_samples_fini(&made);
    return rc;
}

static fm_status_t reference_get(const fm_json_t *reference, const char *side,
                                 double *out, fm_error_t *err)
{
    const fm_json_t *logprob =
        fm_json_get(fm_json_get(reference, side), "logprob");

    if (!fm_json_is_number(logprob)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "reference.%s.logprob: a number is needed", side);
    }
    *out = fm_json_real_or(logprob, 0);
    return FM_OK;
}

/* Both sides into made[0] and made[1]. */
static fm_status_t pair_make(const fm_ops_model_t *model, const fm_json_t *pair,
                             const fm_ops_limit_t *limit,
                             fm_ops_sequence_t *made, fm_engine_pair_t *out,
                             fm_error_t *err)
{
    static const char *const sides[2] = {"chosen", "rejected"};
    const fm_json_t *prompt = fm_json_get(pair, "prompt");

    if (!prompt) {
        return fm_error_set(err, FM_ERR_INVALID, "prompt: a text is needed");
    }
    for (size_t side = 0; side < 2; side++) {
        fm_status_t rc =
            fm_ops_sequence_make(model, prompt, fm_json_get(pair, sides[side]),
                                 limit, &made[side], err);
        if (rc < 0) {
            fm_error_wrap(err, "%s", sides[side]);
            return rc;
        }
    }
    size_t prompt_count = made[0].prompt_count;
    if (prompt_count == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "prompt: no tokens, and the model has no token "
                            "that begins a text; write a prompt");
    }
    *out = (fm_engine_pair_t){
        .prompt = made[0].tokens.ids,
        .prompt_count = prompt_count,
        .chosen = made[0].tokens.ids + prompt_count,
        .chosen_count = made[0].tokens.count - prompt_count,
        .rejected = made[1].tokens.ids + prompt_count,
        .rejected_count = made[1].tokens.count - prompt_count};
    return FM_OK;
}

static fm_status_t pairs_fill(const fm_ops_model_t *model,
                              const fm_json_t *list,
                              const fm_json_t *references,
                              const fm_ops_limit_t *limit,
                              fm_ops_samples_t *made, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < made->count; i++) {
        fm_engine_pair_t *pair = &made->pairs[i];
        const fm_json_t *reference = fm_json_at(references, i);
        rc = pair_make(model, fm_json_at(list, i), limit,
                       &made->sequences[2 * i], pair, err);
        if (rc >= 0 && references &&
            (rc = reference_get(reference, "chosen", &pair->reference_chosen,
                                err)) >= 0) {
            rc = reference_get(reference, "rejected", &pair->reference_rejected,
                               err);
        }
        if (rc < 0) {
            fm_error_wrap(err, "pairs[%zu]", i);
            return rc;
        }
    }
    return FM_OK;
}

fm_status_t fm_ops_pairs_make(const fm_ops_model_t *model,
                              const fm_json_t *value,
                              const fm_ops_limit_t *limit, bool reference,
                              fm_ops_samples_t *out, fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(value, "pairs");
    const fm_json_t *references =
        reference ? fm_json_get(value, "reference") : NULL;
    fm_ops_samples_t made = {0};
    fm_status_t rc = list_check(list, "pairs", err);

    if (rc < 0) {
        return rc;
    }
    made.count = fm_json_len(list);
    if (reference && (!fm_json_is(references, FM_JSON_ARRAY) ||
                      fm_json_len(references) != made.count)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "reference: one entry a pair is needed: %zu, not "
                            "%zu",
                            made.count, fm_json_len(references));
    }
    if (!(made.sequences =
              fm_calloc(2 * made.count, sizeof(*made.sequences))) ||
        !(made.pairs = fm_calloc(made.count, sizeof(*made.pairs)))) {
        rc = fm_no_memory(err);
        goto out;
    }
    made.sequence_count = 2 * made.count;
    if ((rc = pairs_fill(model, list, references, limit, &made, err)) >= 0) {
        *out = made;
        made = (fm_ops_samples_t){0};
    }
out:
    fm_ops_samples_fini(&made);
    return rc;
}

fm_status_t fm_ops_pairs_take(const fm_ops_samples_t *samples,
                              const size_t *chosen, size_t count,
                              fm_engine_pair_t **pairs_out, fm_error_t *err)
{
    fm_engine_pair_t *pairs = fm_calloc(count, sizeof(*pairs));

    if (!pairs) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        pairs[i] = samples->pairs[chosen[i]];
    }
    *pairs_out = pairs;
    return FM_OK;
}
