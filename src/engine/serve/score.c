/* SPDX-License-Identifier: Apache-2.0 */
/* Log-probabilities, scores and embeddings, one sequence at a time. */
#include "engine/serve/score.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/model/pass.h"

struct fm_engine_scorer {
    fm_engine_pass_t *pass;
    size_t limit;    /* max_position_embeddings */
    size_t hidden;   /* hidden_size */
    int32_t *tokens; /* [2, capacity]: the sequence, its row numbers */
    float *logp;     /* [capacity] */
    size_t capacity;
};

fm_status_t fm_engine_scorer_create(fm_engine_model_t *model,
                                    fm_engine_scorer_t **scorer_out,
                                    fm_error_t *err)
{
    fm_engine_scorer_t *scorer = fm_calloc(1, sizeof(*scorer));
    fm_status_t rc = FM_OK;

    if (!scorer) {
        return fm_no_memory(err);
    }
    scorer->limit = fm_engine_model_config(model)->max_position_embeddings;
    scorer->hidden = fm_engine_model_config(model)->hidden_size;
    rc = fm_engine_pass_create(model, false, &scorer->pass, err);
    if (rc < 0) {
        fm_engine_scorer_destroy(scorer);
        return rc;
    }
    *scorer_out = scorer;
    return FM_OK;
}

fm_engine_scorer_t *fm_engine_scorer_destroy(fm_engine_scorer_t *scorer)
{
    if (scorer) {
        fm_engine_pass_destroy(scorer->pass);
        free(scorer->tokens);
        free(scorer->logp);
        free(scorer);
    }
    return NULL;
}

void fm_engine_scorer_set_adapter(fm_engine_scorer_t *scorer,
                                  const fm_engine_adapter_t *adapter)
{
    fm_engine_pass_set_adapter(scorer->pass, adapter);
}

static fm_status_t scorer_reach(fm_engine_scorer_t *scorer, size_t count,
                                fm_error_t *err)
{
    if (count <= scorer->capacity) {
        return FM_OK;
    }
    int32_t *tokens = fm_realloc(scorer->tokens, 2 * count, sizeof(*tokens));
    scorer->tokens = tokens ? tokens : scorer->tokens;
    float *logp = fm_realloc(scorer->logp, count, sizeof(*logp));
    scorer->logp = logp ? logp : scorer->logp;
    if (!tokens || !logp) {
        return fm_no_memory(err);
    }
    scorer->capacity = count;
    return FM_OK;
}

static fm_status_t input_check(const fm_engine_scorer_t *scorer,
                               const fm_engine_score_input_t *input,
                               fm_error_t *err)
{
    if (input->prompt_count == 0 || input->completion_count == 0) {
        return fm_error_set(
            err, FM_ERR_INVALID, "%s is empty: begin with the bos token",
            input->prompt_count ? "the completion" : "the prompt");
    }
    if (input->prompt_count > scorer->limit ||
        input->completion_count > scorer->limit - input->prompt_count) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "prompt of %zu and completion of %zu tokens: "
                            "max_position_embeddings is %zu",
                            input->prompt_count, input->completion_count,
                            scorer->limit);
    }
    return FM_OK;
}

fm_status_t fm_engine_score(fm_engine_scorer_t *scorer,
                            const fm_engine_score_input_t *input,
                            fm_engine_score_t *score_out, float *logp_out,
                            fm_error_t *err)
{
    size_t completion = input->completion_count;
    fm_status_t rc = input_check(scorer, input, err);

    if (rc < 0) {
        return rc;
    }
    size_t total = input->prompt_count + completion;
    if ((rc = scorer_reach(scorer, total, err)) < 0) {
        return rc;
    }
    int32_t *rows = scorer->tokens + total;
    memcpy(scorer->tokens, input->prompt,
           input->prompt_count * sizeof(*input->prompt));
    memcpy(scorer->tokens + input->prompt_count, input->completion,
           completion * sizeof(*input->completion));
    for (size_t i = 0; i < completion; i++) {
        rows[i] = (int32_t)(input->prompt_count - 1 + i);
    }
    const int32_t offsets[2] = {0, (int32_t)total};
    const fm_engine_batch_t batch = {
        .tokens = scorer->tokens, .offsets = offsets, .count = 1};
    rc = fm_engine_pass_forward(scorer->pass, &batch, err);
    if (rc < 0 ||
        (rc = fm_engine_pass_head(scorer->pass, rows, input->completion, NULL,
                                  completion, NULL, scorer->logp, err)) < 0) {
        return rc;
    }
    double sum = 0;
    for (size_t i = 0; i < completion; i++) {
        sum += (double)scorer->logp[i];
    }
    if (!isfinite(sum)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "the log-probability is not finite: the model has "
                            "NaN or infinite parameters");
    }
    if (logp_out) {
        memcpy(logp_out, scorer->logp, completion * sizeof(*logp_out));
    }
    *score_out = (fm_engine_score_t){
        .sum = sum, .mean = sum / (double)completion, .count = completion};
    return FM_OK;
}

/* One text through the layers. */
static fm_status_t text_forward(fm_engine_scorer_t *scorer,
                                const int32_t *tokens, size_t count,
                                fm_error_t *err)
{
    if (count == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "the text is empty: begin with the bos token");
    }
    if (count > scorer->limit) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "a text of %zu tokens: max_position_embeddings is "
                            "%zu",
                            count, scorer->limit);
    }
    const int32_t offsets[2] = {0, (int32_t)count};
    const fm_engine_batch_t batch = {
        .tokens = tokens, .offsets = offsets, .count = 1};
    return fm_engine_pass_forward(scorer->pass, &batch, err);
}

static fm_status_t finite_check(double value, const char *what, fm_error_t *err)
{
    return isfinite(value)
               ? FM_OK
               : fm_error_set(err, FM_ERR_INVALID,
                              "the %s is not finite: the model has NaN or "
                              "infinite parameters",
                              what);
}

fm_status_t fm_engine_score_value(fm_engine_scorer_t *scorer,
                                  const int32_t *tokens, size_t count,
                                  const float *weight, double *value_out,
                                  fm_error_t *err)
{
    const int32_t last = (int32_t)count - 1;
    float value = 0;
    fm_status_t rc = text_forward(scorer, tokens, count, err);

    if (rc >= 0) {
        rc = fm_engine_pass_value(scorer->pass, weight, &last, NULL, 1, NULL,
                                  &value, err);
    }
    if (rc >= 0 && (rc = finite_check((double)value, "score", err)) >= 0) {
        *value_out = (double)value;
    }
    return rc;
}

/* The mean of states [rows, hidden] into the first of them, a column at a
 * time and in row order. */
static void pool(float *states, size_t rows, size_t hidden, bool normalize,
                 double *square_out)
{
    double square = 0;

    for (size_t i = 0; i < hidden; i++) {
        double sum = 0;
        for (size_t r = 0; r < rows; r++) {
            sum += (double)states[r * hidden + i];
        }
        sum /= (double)rows;
        square += sum * sum;
        states[i] = (float)sum;
    }
    float scale = normalize && square > 0 ? (float)(1 / sqrt(square)) : 1;
    for (size_t i = 0; i < hidden; i++) {
        states[i] *= scale;
    }
    *square_out = square;
}

fm_status_t fm_engine_embed(fm_engine_scorer_t *scorer, const int32_t *tokens,
                            size_t count, fm_engine_pooling_t pooling,
                            bool normalize, float *vector_out, fm_error_t *err)
{
    size_t rows = pooling == FM_ENGINE_POOL_LAST ? 1 : count;
    double square = 0;
    float *states = NULL;
    fm_status_t rc = text_forward(scorer, tokens, count, err);

    if (rc < 0) {
        return rc;
    }
    if (!(states = fm_calloc(rows * scorer->hidden, sizeof(*states)))) {
        return fm_no_memory(err);
    }
    rc = fm_engine_pass_hidden(scorer->pass, count - rows, rows, states, err);
    if (rc >= 0) {
        pool(states, rows, scorer->hidden, normalize, &square);
        rc = finite_check(square, "embedding", err);
    }
    if (rc >= 0) {
        memcpy(vector_out, states, scorer->hidden * sizeof(*states));
    }
    free(states);
    return rc;
}
