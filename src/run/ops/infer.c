/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inference and logprobs: what a model says, and what it thinks of a text
 * (docs/spec/workflow.md §6.4, §6.5).  An item's output does not depend on
 * the other items of its batch.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/generate.h"
#include "engine/score.h"
#include "run/ops/internal.h"

#define GENERATE_BATCH 16 /* prompts decoded together: what memory bears */

static fm_status_t options_parse(const fm_json_t *params,
                                 fm_engine_generate_options_t *options,
                                 fm_error_t *err)
{
    int64_t max_tokens, top_k, seed;
    fm_status_t rc;

    if ((rc = fm_ops_get_int(params, "max_tokens", 1, 1 << 20, 64, &max_tokens,
                             err)) < 0 ||
        (rc = fm_ops_get_real(params, "temperature", 0, 100, 0,
                              &options->temperature, err)) < 0 ||
        (rc = fm_ops_get_real(params, "top_p", 0, 1, 1, &options->top_p, err)) <
            0 ||
        (rc = fm_ops_get_int(params, "top_k", 0, 1 << 20, 0, &top_k, err)) <
            0 ||
        (rc = fm_ops_get_int(params, "seed", 0, INT64_MAX, 0, &seed, err)) <
            0) {
        return rc;
    }
    options->max_new_tokens = (size_t)max_tokens;
    options->top_k = (size_t)top_k;
    options->seed = (uint64_t)seed;
    options->max_batch = GENERATE_BATCH;
    return FM_OK;
}

/* bos and the prompt; too long ones fail alone, not the whole call. */
static fm_status_t prompt_make(const fm_ops_model_t *model,
                               const fm_json_t *value, size_t max_new,
                               fm_engine_tokens_t *tokens, fm_error_t *err)
{
    const fm_json_t *prompt = fm_json_get(value, "prompt");
    size_t positions =
        fm_engine_model_config(model->model)->max_position_embeddings;
    fm_status_t rc = FM_OK;

    if (!fm_json_str(prompt)) {
        return fm_error_set(err, FM_ERR_INVALID, "prompt: a text is needed");
    }
    if ((rc = fm_engine_tokens_add(
             tokens, fm_engine_tokenizer_bos(model->tokenizer), err)) < 0 ||
        (rc = fm_engine_tokenizer_encode(model->tokenizer, fm_json_str(prompt),
                                         fm_json_str_len(prompt), tokens,
                                         err)) < 0) {
        return rc;
    }
    if (tokens->count + max_new > positions) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "prompt: %zu tokens and %zu new ones pass the "
                            "model's %zu positions",
                            tokens->count, max_new, positions);
    }
    return FM_OK;
}

static fm_status_t text_make(const fm_ops_model_t *model,
                             const fm_engine_completion_t *completion,
                             fm_json_t **value_out, fm_error_t *err)
{
    fm_buf_t text = {0};
    fm_status_t rc = fm_engine_tokenizer_decode_utf8(
        model->tokenizer, completion->tokens, completion->count, &text, err);

    if (rc >= 0) {
        *value_out =
            fm_json_stringn(text.len ? (const char *)text.data : "", text.len);
        rc = *value_out ? FM_OK : fm_no_memory(err);
    }
    fm_buf_fini(&text);
    return rc;
}

/* What one call of inference works on. */
typedef struct generation {
    fm_engine_tokens_t *tokens; /* [run->count] */
    fm_engine_prompt_t *prompts;
    fm_engine_completion_t *completions;
    size_t *items; /* of each prompt */
    size_t count;  /* prompts */
} generation_t;

static void generation_fini(generation_t *generation, size_t items)
{
    for (size_t i = 0; generation->tokens && i < items; i++) {
        fm_engine_tokens_fini(&generation->tokens[i]);
    }
    for (size_t i = 0; generation->completions && i < items; i++) {
        fm_engine_completion_fini(&generation->completions[i]);
    }
    free(generation->tokens);
    free(generation->prompts);
    free(generation->completions);
    free(generation->items);
}

static fm_status_t generation_init(generation_t *generation, size_t items,
                                   fm_error_t *err)
{
    if (!(generation->tokens = fm_calloc(items, sizeof(fm_engine_tokens_t))) ||
        !(generation->prompts = fm_calloc(items, sizeof(fm_engine_prompt_t))) ||
        !(generation->completions =
              fm_calloc(items, sizeof(fm_engine_completion_t))) ||
        !(generation->items = fm_calloc(items, sizeof(size_t)))) {
        return fm_no_memory(err);
    }
    return FM_OK;
}

static fm_status_t prompts_make(fm_ops_run_t *run, const fm_ops_model_t *model,
                                size_t max_new, generation_t *generation,
                                fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < run->count; i++) {
        fm_error_t why = {0};
        if (run->reported[i]) {
            continue;
        }
        rc = prompt_make(model, run->values[i], max_new, &generation->tokens[i],
                         &why);
        if (rc < 0) {
            rc = fm_ops_report_error(run, i, rc, &why, err);
            continue;
        }
        generation->prompts[generation->count] = (fm_engine_prompt_t){
            generation->tokens[i].ids, generation->tokens[i].count, 0};
        generation->items[generation->count++] = i;
    }
    return rc;
}

/* Generate and report, GENERATE_BATCH prompts at a time: stops are heard. */
static fm_status_t generate_all(fm_ops_run_t *run, const fm_ops_model_t *model,
                                const fm_engine_generate_options_t *options,
                                generation_t *generation, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t at = 0; rc >= 0 && at < generation->count;
         at += GENERATE_BATCH) {
        size_t left = generation->count - at;
        size_t count = left < GENERATE_BATCH ? left : GENERATE_BATCH;

        if ((rc = fm_ops_stopping(run, err)) < 0 ||
            (rc = fm_engine_generate(model->model, generation->prompts + at,
                                     count, options,
                                     generation->completions + at, err)) < 0) {
            break;
        }
        for (size_t i = at; rc >= 0 && i < at + count; i++) {
            fm_ops_output_t output = {0};
            rc = text_make(model, &generation->completions[i], &output.value,
                           err);
            if (rc >= 0) {
                rc = fm_ops_report(run, generation->items[i], &output, err);
            }
            fm_ops_output_fini(&output);
        }
    }
    return rc;
}

fm_status_t fm_ops_inference(fm_ops_run_t *run, fm_error_t *err)
{
    fm_engine_generate_options_t options = {0};
    const fm_ops_model_t *model = NULL;
    generation_t generation = {0};
    fm_status_t rc;

    if ((rc = options_parse(run->params, &options, err)) < 0 ||
        (rc = fm_ops_model_load(run->ops, fm_json_get(run->params, "model"),
                                &model, err)) < 0 ||
        (rc = generation_init(&generation, run->count, err)) < 0) {
        goto out;
    }
    int32_t stop = fm_engine_tokenizer_eos(model->tokenizer);
    options.stop_ids = &stop;
    options.stop_count = 1;
    if ((rc = prompts_make(run, model, options.max_new_tokens, &generation,
                           err)) >= 0) {
        rc = generate_all(run, model, &options, &generation, err);
    }
out:
    generation_fini(&generation, run->count);
    return rc;
}

/* The model and its scorer, made by the first item for all of them. */
static fm_status_t scorer_make(fm_ops_run_t *run, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (run->scorer) {
        return FM_OK;
    }
    rc = fm_ops_model_load(run->ops, fm_json_get(run->params, "model"),
                           &run->model, err);
    return rc < 0
               ? rc
               : fm_engine_scorer_create(run->model->model, &run->scorer, err);
}

fm_status_t fm_ops_logprobs(fm_ops_run_t *run, size_t item,
                            fm_ops_output_t *output, fm_error_t *err)
{
    const fm_json_t *value = run->values[item];
    fm_ops_sequence_t sequence = {0};
    fm_engine_score_t score;
    size_t limit = 0;
    fm_status_t rc;

    if ((rc = scorer_make(run, err)) < 0 ||
        (rc = fm_ops_sequence_limit(run->model, run->params, &limit, err)) <
            0 ||
        (rc = fm_ops_sequence_encode(run->model, fm_json_get(value, "prompt"),
                                     fm_json_get(value, "completion"), limit,
                                     &sequence, err)) < 0) {
        goto out;
    }
    fm_engine_score_input_t input = {
        sequence.tokens.ids, sequence.prompt_count,
        sequence.tokens.ids + sequence.prompt_count,
        sequence.tokens.count - sequence.prompt_count};
    if ((rc = fm_engine_score(run->scorer, &input, &score, NULL, err)) < 0) {
        goto out;
    }
    if (!(output->value = fm_json_object()) ||
        fm_json_set(output->value, "logprob", fm_json_real(score.sum)) < 0 ||
        fm_json_set(output->value, "tokens",
                    fm_json_int((int64_t)score.count)) < 0) {
        rc = fm_no_memory(err);
    }
out:
    fm_ops_sequence_fini(&sequence);
    return rc;
}
