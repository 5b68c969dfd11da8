/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a model makes of texts: logprobs, score and embedding
 * (docs/spec/workflow.md §6.5, §6.11, §6.12), and how the items of these and
 * of inference name tokens and adapters.  Each text runs alone: an item's
 * output does not depend on the others.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/internal.h"
#include "text/tokenizer/chat.h"

/* --- items --------------------------------------------------------------- */

fm_status_t fm_ops_item_adapter(fm_ops_t *ops, const fm_ops_model_t *model,
                                const fm_json_t *value, fm_digest_t *digest_out,
                                const fm_model_adapter_t **adapter_out,
                                fm_error_t *err)
{
    const fm_json_t *named = fm_json_get(value, "adapter");
    fm_status_t rc = FM_OK;

    *adapter_out = NULL;
    if (!named || fm_json_is(named, FM_JSON_NULL)) {
        return FM_OK;
    }
    rc = fm_ops_get_digest(value, "adapter", digest_out, err);
    return rc < 0
               ? rc
               : fm_ops_adapter_load(ops, digest_out, model, adapter_out, err);
}

/* A text of its own, with the bos and, with @p whole, the eos that the
 * tokenizer gives it. */
static fm_status_t text_encode(const fm_ops_model_t *model,
                               const fm_json_t *text, const char *key,
                               bool whole, fm_tokens_t *tokens, fm_error_t *err)
{
    const fm_engine_encode_options_t options = {.add_bos = true,
                                                .add_eos = whole};

    if (!fm_json_str(text)) {
        return fm_error_set(err, FM_ERR_INVALID, "%s: a text is needed, not %s",
                            key, text ? fm_json_type_name(text) : "nothing");
    }
    return fm_tokenizer_encode_with(model->tokenizer, fm_json_str(text),
                                    fm_json_str_len(text), &options, tokens,
                                    err);
}

fm_status_t fm_ops_prompt_encode(const fm_ops_model_t *model,
                                 const fm_json_t *value, fm_tokens_t *tokens,
                                 fm_error_t *err)
{
    const fm_chat_options_t chat = {.add_generation_prompt = true};
    const fm_json_t *messages = fm_json_get(value, "messages");

    return messages ? fm_chat_render(model->tokenizer, messages, &chat, tokens,
                                     NULL, err)
                    : text_encode(model, fm_json_get(value, "prompt"), "prompt",
                                  false, tokens, err);
}

fm_json_t *fm_ops_ids_json(const int32_t *ids, size_t count)
{
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; list && i < count; i++) {
        if (fm_json_append(list, fm_json_int(ids[i])) < 0) {
            list = fm_json_drop(list);
        }
    }
    return list;
}

fm_json_t *fm_ops_reals_json(const float *values, size_t count)
{
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; list && i < count; i++) {
        if (fm_json_append(list, fm_json_real((double)values[i])) < 0) {
            list = fm_json_drop(list);
        }
    }
    return list;
}

/* Append the ids of value.key. */
static fm_status_t ids_parse(const fm_ops_model_t *model,
                             const fm_json_t *value, const char *key,
                             fm_tokens_t *tokens, fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(value, key);
    size_t vocab = fm_engine_model_config(model->model)->vocab_size;
    fm_status_t rc = FM_OK;

    if (!fm_json_is(list, FM_JSON_ARRAY) || fm_json_len(list) == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: a list of at least one token id", key);
    }
    for (size_t i = 0; rc >= 0 && i < fm_json_len(list); i++) {
        int64_t id = fm_json_int_or(fm_json_at(list, i), -1);
        if (id < 0 || (size_t)id >= vocab) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%s[%zu]: 0 to %zu, the model's vocabulary",
                                key, i, vocab - 1);
        }
        rc = fm_tokens_add(tokens, (int32_t)id, err);
    }
    return rc;
}

/* Prompt and completion of an item: as texts, or as the ids a rollout gave,
 * to which nothing is added. */
static fm_status_t pair_parse(const fm_ops_model_t *model,
                              const fm_json_t *value,
                              const fm_ops_limit_t *limit,
                              fm_ops_sequence_t *sequence, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (!fm_json_get(value, "prompt_tokens") &&
        !fm_json_get(value, "completion_tokens")) {
        return fm_ops_sequence_make(model, fm_json_get(value, "prompt"),
                                    fm_json_get(value, "completion"), limit,
                                    sequence, err);
    }
    if ((rc = ids_parse(model, value, "prompt_tokens", &sequence->tokens,
                        err)) < 0) {
        return rc;
    }
    sequence->prompt_count = sequence->tokens.count;
    rc = ids_parse(model, value, "completion_tokens", &sequence->tokens, err);
    if (rc >= 0 && sequence->tokens.count > limit->tokens) {
        rc = fm_error_set(err, FM_ERR_LIMIT,
                          "prompt_tokens and completion_tokens: %zu and %zu "
                          "pass max_seq_length %zu",
                          sequence->prompt_count,
                          sequence->tokens.count - sequence->prompt_count,
                          limit->tokens);
    }
    return rc;
}

/* The model and its scorer, made by the first item for all of them, and the
 * adapter of this one. */
static fm_status_t scorer_get(fm_ops_run_t *run, size_t item,
                              const fm_model_adapter_t **adapter_out,
                              fm_error_t *err)
{
    fm_digest_t digest;
    fm_status_t rc = FM_OK;

    if (!run->scorer &&
        ((rc = fm_ops_model_load(run->ops, fm_json_get(run->params, "model"),
                                 &run->model, err)) < 0 ||
         (rc = fm_engine_scorer_create(run->model->model, &run->scorer, err)) <
             0)) {
        return rc;
    }
    rc = fm_ops_item_adapter(run->ops, run->model, run->values[item], &digest,
                             adapter_out, err);
    if (rc >= 0) {
        fm_engine_scorer_set_adapter(
            run->scorer, *adapter_out ? (*adapter_out)->adapter : NULL);
    }
    return rc;
}

/* --- logprobs ------------------------------------------------------------ */

static fm_status_t flag_get(const fm_json_t *params, const char *key,
                            bool fallback, bool *out, fm_error_t *err)
{
    const fm_json_t *flag = fm_json_get(params, key);

    *out = fallback;
    if (!flag || fm_json_is(flag, FM_JSON_NULL)) {
        return FM_OK;
    }
    if (!fm_json_is(flag, FM_JSON_BOOL)) {
        return fm_error_set(err, FM_ERR_INVALID, "%s: true or false", key);
    }
    *out = fm_json_bool_or(flag, fallback);
    return FM_OK;
}

static fm_status_t logprobs_make(fm_ops_run_t *run,
                                 const fm_ops_sequence_t *sequence,
                                 bool by_token, fm_ops_output_t *output,
                                 fm_error_t *err)
{
    size_t count = sequence->tokens.count - sequence->prompt_count;
    const fm_engine_score_input_t input = {
        sequence->tokens.ids, sequence->prompt_count,
        sequence->tokens.ids + sequence->prompt_count, count};
    float *logp = fm_calloc(count + 1, sizeof(*logp));
    fm_engine_score_t score;
    fm_status_t rc =
        logp ? fm_engine_score(run->scorer, &input, &score, logp, err)
             : fm_no_memory(err);

    if (rc >= 0 &&
        (!(output->value = fm_json_object()) ||
         fm_json_set(output->value, "logprob", fm_json_real(score.sum)) < 0 ||
         fm_json_set(output->value, "tokens",
                     fm_json_int((int64_t)score.count)) < 0 ||
         (by_token && fm_json_set(output->value, "logprobs",
                                  fm_ops_reals_json(logp, count)) < 0))) {
        rc = fm_no_memory(err);
    }
    free(logp);
    return rc;
}

fm_status_t fm_ops_logprobs(fm_ops_run_t *run, size_t item,
                            fm_ops_output_t *output, fm_error_t *err)
{
    const fm_model_adapter_t *adapter = NULL;
    fm_ops_sequence_t sequence = {0};
    bool by_token = false;
    fm_ops_limit_t limit;
    fm_status_t rc;

    if ((rc = scorer_get(run, item, &adapter, err)) >= 0 &&
        (rc = flag_get(run->params, "tokens", false, &by_token, err)) >= 0 &&
        (rc = fm_ops_limit_get(run->model, run->params, &limit, err)) >= 0 &&
        (rc = pair_parse(run->model, run->values[item], &limit, &sequence,
                         err)) >= 0) {
        rc = logprobs_make(run, &sequence, by_token, output, err);
    }
    fm_ops_sequence_fini(&sequence);
    return rc;
}

/* --- score --------------------------------------------------------------- */

fm_status_t fm_ops_score(fm_ops_run_t *run, size_t item,
                         fm_ops_output_t *output, fm_error_t *err)
{
    const fm_model_adapter_t *adapter = NULL;
    fm_ops_sequence_t sequence = {0};
    fm_ops_limit_t limit;
    double value = 0;
    fm_status_t rc = scorer_get(run, item, &adapter, err);

    if (rc < 0) {
        return rc;
    }
    const fm_engine_value_t *head =
        adapter && adapter->score ? adapter->score : run->model->score;
    if (!head) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "model: it has no " FM_MODEL_SCORE
                            "; a reward model is needed");
    }
    if ((rc = fm_ops_limit_get(run->model, run->params, &limit, err)) >= 0 &&
        (rc = pair_parse(run->model, run->values[item], &limit, &sequence,
                         err)) >= 0) {
        rc = fm_engine_score_value(run->scorer, sequence.tokens.ids,
                                   sequence.tokens.count,
                                   fm_engine_value_data(head), &value, err);
    }
    if (rc >= 0 && !(output->value = fm_json_real(value))) {
        rc = fm_no_memory(err);
    }
    fm_ops_sequence_fini(&sequence);
    return rc;
}

/* --- embedding ----------------------------------------------------------- */

static fm_status_t pooling_get(const fm_json_t *params,
                               fm_engine_pooling_t *out, fm_error_t *err)
{
    const char *name = NULL;
    fm_status_t rc = fm_ops_get_text(params, "pooling", "mean", &name, err);

    if (rc >= 0 && strcmp(name, "mean") != 0 && strcmp(name, "last") != 0) {
        rc = fm_error_set(err, FM_ERR_INVALID, "pooling: mean or last");
    }
    if (rc >= 0) {
        *out = strcmp(name, "last") == 0 ? FM_ENGINE_POOL_LAST
                                         : FM_ENGINE_POOL_MEAN;
    }
    return rc;
}

fm_status_t fm_ops_embedding(fm_ops_run_t *run, size_t item,
                             fm_ops_output_t *output, fm_error_t *err)
{
    const fm_model_adapter_t *adapter = NULL;
    fm_engine_pooling_t pooling = FM_ENGINE_POOL_MEAN;
    fm_tokens_t tokens = {0};
    float *vector = NULL;
    bool normalize = true;
    fm_status_t rc;

    if ((rc = scorer_get(run, item, &adapter, err)) < 0 ||
        (rc = pooling_get(run->params, &pooling, err)) < 0 ||
        (rc = flag_get(run->params, "normalize", true, &normalize, err)) < 0 ||
        (rc = text_encode(run->model, fm_json_get(run->values[item], "text"),
                          "text", true, &tokens, err)) < 0) {
        goto out;
    }
    size_t width = fm_engine_model_config(run->model->model)->hidden_size;
    if (!(vector = fm_calloc(width, sizeof(*vector)))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = fm_engine_embed(run->scorer, tokens.ids, tokens.count, pooling,
                              normalize, vector, err)) >= 0 &&
        !(output->value = fm_ops_reals_json(vector, width))) {
        rc = fm_no_memory(err);
    }
out:
    free(vector);
    fm_tokens_fini(&tokens);
    return rc;
}
