/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Texts to token sequences, one way for training, scoring and reference
 * log-probabilities: otherwise a DPO reference would be of other tokens than
 * its policy.
 */
#include <stdlib.h>
#include <string.h>

#include "run/ops/internal.h"

void fm_ops_sequence_fini(fm_ops_sequence_t *sequence)
{
    fm_engine_tokens_fini(&sequence->tokens);
    sequence->prompt_count = 0;
}

static fm_status_t text_encode(const fm_ops_model_t *model,
                               const fm_json_t *text, const char *what,
                               fm_engine_tokens_t *tokens, fm_error_t *err)
{
    if (!fm_json_str(text)) {
        return fm_error_set(err, FM_ERR_INVALID, "%s: a text is needed, not %s",
                            what, text ? fm_json_type_name(text) : "nothing");
    }
    return fm_engine_tokenizer_encode(model->tokenizer, fm_json_str(text),
                                      fm_json_str_len(text), tokens, err);
}

fm_status_t fm_ops_sequence_encode(const fm_ops_model_t *model,
                                   const fm_json_t *prompt,
                                   const fm_json_t *completion, size_t limit,
                                   fm_ops_sequence_t *out, fm_error_t *err)
{
    fm_ops_sequence_t made = {0};
    fm_status_t rc = fm_engine_tokens_add(
        &made.tokens, fm_engine_tokenizer_bos(model->tokenizer), err);

    if (rc >= 0 && prompt) {
        rc = text_encode(model, prompt, "prompt", &made.tokens, err);
    }
    made.prompt_count = made.tokens.count;
    if (rc >= 0) {
        rc = text_encode(model, completion, "completion", &made.tokens, err);
    }
    if (rc >= 0) {
        rc = fm_engine_tokens_add(
            &made.tokens, fm_engine_tokenizer_eos(model->tokenizer), err);
    }
    if (rc >= 0 && made.prompt_count >= limit) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "prompt: %zu tokens leave nothing of the "
                          "completion within %zu; shorten it or raise "
                          "max_seq_length",
                          made.prompt_count, limit);
    }
    if (rc < 0) {
        fm_ops_sequence_fini(&made);
        return rc;
    }
    if (made.tokens.count > limit) {
        made.tokens.count = limit;
    }
    *out = made;
    return FM_OK;
}

fm_status_t fm_ops_sequence_limit(const fm_ops_model_t *model,
                                  const fm_json_t *object, size_t *limit_out,
                                  fm_error_t *err)
{
    size_t positions =
        fm_engine_model_config(model->model)->max_position_embeddings;
    int64_t limit;
    fm_status_t rc = fm_ops_get_int(object, "max_seq_length", 2, 1 << 20,
                                    (int64_t)positions, &limit, err);

    if (rc >= 0) {
        *limit_out = (size_t)limit < positions ? (size_t)limit : positions;
    }
    return rc;
}
