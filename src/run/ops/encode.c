/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts to token sequences, one way for training, scoring and reference
 * log-probabilities: otherwise a DPO reference would be of other tokens than
 * its policy.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/internal.h"
#include "text/tokenizer/chat.h"

void fm_ops_sequence_fini(fm_ops_sequence_t *sequence)
{
    fm_tokens_fini(&sequence->tokens);
    free(sequence->mask);
    *sequence = (fm_ops_sequence_t){0};
}

static fm_status_t text_encode(const fm_ops_model_t *model,
                               const fm_json_t *text, const char *what,
                               fm_tokens_t *tokens, fm_error_t *err)
{
    if (!fm_json_str(text)) {
        return fm_error_set(err, FM_ERR_INVALID, "%s: a text is needed, not %s",
                            what, text ? fm_json_type_name(text) : "nothing");
    }
    return fm_tokenizer_encode(model->tokenizer, fm_json_str(text),
                               fm_json_str_len(text), tokens, err);
}

/* Nothing is cut unless the user said so; a prompt is never cut. */
static fm_status_t sequence_fit(fm_ops_sequence_t *sequence,
                                const fm_ops_limit_t *limit, fm_error_t *err)
{
    size_t count = sequence->tokens.count;

    if (count <= limit->tokens) {
        return FM_OK;
    }
    if (!limit->truncate) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%zu tokens, %zu of them prompt: at most %zu "
                            "(max_seq_length, or the model's positions); "
                            "shorten it, raise max_seq_length or say "
                            "truncate: true",
                            count, sequence->prompt_count, limit->tokens);
    }
    if (sequence->prompt_count >= limit->tokens) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "prompt: %zu tokens leave nothing of the "
                            "completion within %zu; shorten it or raise "
                            "max_seq_length",
                            sequence->prompt_count, limit->tokens);
    }
    sequence->tokens.count = limit->tokens;
    return FM_OK;
}

fm_status_t fm_ops_sequence_make(const fm_ops_model_t *model,
                                 const fm_json_t *prompt,
                                 const fm_json_t *completion,
                                 const fm_ops_limit_t *limit,
                                 fm_ops_sequence_t *out, fm_error_t *err)
{
    const fm_tokenizer_t *tokenizer = model->tokenizer;
    fm_ops_sequence_t made = {0};
    fm_status_t rc = FM_OK;

    if (fm_tokenizer_adds_bos(tokenizer)) {
        rc = fm_tokens_add(&made.tokens, fm_tokenizer_bos(tokenizer), err);
    }
    if (rc >= 0 && prompt) {
        rc = text_encode(model, prompt, "prompt", &made.tokens, err);
    }
    made.prompt_count = made.tokens.count;
    if (rc >= 0) {
        rc = text_encode(model, completion, "completion", &made.tokens, err);
    }
    if (rc >= 0 && fm_tokenizer_eos(tokenizer) >= 0) {
        rc = fm_tokens_add(&made.tokens, fm_tokenizer_eos(tokenizer), err);
    }
    if (rc >= 0) {
        rc = sequence_fit(&made, limit, err);
    }
    if (rc < 0) {
        fm_ops_sequence_fini(&made);
        return rc;
    }
    *out = made;
    return FM_OK;
}

fm_status_t fm_ops_messages_make(const fm_ops_model_t *model,
                                 const fm_json_t *messages,
                                 const fm_ops_limit_t *limit,
                                 fm_ops_sequence_t *out, fm_error_t *err)
{
    fm_ops_sequence_t made = {0};
    fm_buf_t assistant = {0};
    fm_status_t rc = fm_chat_render(model->tokenizer, messages, NULL,
                                    &made.tokens, &assistant, err);

    if (rc < 0) {
        fm_error_wrap(err, "messages");
    } else {
        rc = sequence_fit(&made, limit, err);
    }
    if (rc >= 0 && made.tokens.count > 0) {
        if (!(made.mask = fm_malloc(made.tokens.count))) {
            rc = fm_no_memory(err);
        } else {
            memcpy(made.mask, assistant.data, made.tokens.count);
        }
    }
    fm_buf_fini(&assistant);
    if (rc < 0) {
        fm_ops_sequence_fini(&made);
        return rc;
    }
    *out = made;
    return FM_OK;
}

fm_status_t fm_ops_limit_get(const fm_ops_model_t *model,
                             const fm_json_t *object, fm_ops_limit_t *limit_out,
                             fm_error_t *err)
{
    size_t positions =
        fm_engine_model_config(model->model)->max_position_embeddings;
    fm_ops_limit_t limit = {0};
    int64_t tokens;
    fm_status_t rc = fm_ops_get_int(object, "max_seq_length", 2, 1 << 24,
                                    (int64_t)positions, &tokens, err);

    if (rc < 0 || (rc = fm_ops_get_bool(object, "truncate", false,
                                        &limit.truncate, err)) < 0) {
        return rc;
    }
    limit.tokens = (size_t)tokens < positions ? (size_t)tokens : positions;
    *limit_out = limit;
    return FM_OK;
}
