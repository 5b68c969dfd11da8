/* SPDX-License-Identifier: Apache-2.0 */
/*
 * evaluate: figures of a model over held-out samples
 * (docs/spec/workflow.md §6.8).
 */
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/generate.h"
#include "engine/score.h"
#include "run/ops/internal.h"

#define SAMPLES_MAX 1000000
#define NEW_TOKENS_DEFAULT 64

typedef struct evaluation {
    fm_ops_run_t *run;
    const fm_ops_model_t *model;
    fm_engine_scorer_t *scorer;
    const fm_json_t *samples;
    size_t count, limit, max_new;
    double loss; /* once loss_known: perplexity is another face of it */
    bool loss_known;
} evaluation_t;

static fm_status_t side_score(const evaluation_t *eval, const fm_json_t *prompt,
                              const fm_json_t *completion,
                              fm_engine_score_t *score_out, fm_error_t *err)
{
    fm_ops_sequence_t sequence = {0};
    fm_status_t rc = fm_ops_sequence_encode(eval->model, prompt, completion,
                                            eval->limit, &sequence, err);

    if (rc >= 0) {
        fm_engine_score_input_t input = {
            sequence.tokens.ids, sequence.prompt_count,
            sequence.tokens.ids + sequence.prompt_count,
            sequence.tokens.count - sequence.prompt_count};
        rc = fm_engine_score(eval->scorer, &input, score_out, NULL, err);
    }
    fm_ops_sequence_fini(&sequence);
    return rc;
}

/* Mean −log p over all counted tokens of all samples. */
static fm_status_t loss(evaluation_t *eval, double *out, fm_error_t *err)
{
    double sum = 0;
    size_t tokens = 0;

    for (size_t i = 0; !eval->loss_known && i < eval->count; i++) {
        const fm_json_t *sample = fm_json_at(eval->samples, i);
        const fm_json_t *text = fm_json_get(sample, "text");
        fm_engine_score_t score;
        fm_status_t rc = fm_ops_stopping(eval->run, err);

        if (rc >= 0) {
            rc = side_score(eval, text ? NULL : fm_json_get(sample, "prompt"),
                            text ? text : fm_json_get(sample, "completion"),
                            &score, err);
        }
        if (rc < 0) {
            fm_error_wrap(err, "samples[%zu]", i);
            return rc;
        }
        sum += score.sum;
        tokens += score.count;
    }
    if (!eval->loss_known) {
        eval->loss = -sum / (double)tokens;
        eval->loss_known = true;
    }
    *out = eval->loss;
    return FM_OK;
}

static fm_status_t perplexity(evaluation_t *eval, double *out, fm_error_t *err)
{
    fm_status_t rc = loss(eval, out, err);

    if (rc >= 0) {
        *out = exp(*out);
    }
    return rc;
}

/* Share of pairs whose chosen text is the likelier one. */
static fm_status_t preference_accuracy(evaluation_t *eval, double *out,
                                       fm_error_t *err)
{
    size_t right = 0;

    for (size_t i = 0; i < eval->count; i++) {
        const fm_json_t *sample = fm_json_at(eval->samples, i);
        const fm_json_t *prompt = fm_json_get(sample, "prompt");
        fm_engine_score_t chosen, rejected;
        fm_status_t rc = fm_ops_stopping(eval->run, err);

        if (rc >= 0) {
            rc = side_score(eval, prompt, fm_json_get(sample, "chosen"),
                            &chosen, err);
        }
        if (rc >= 0) {
            rc = side_score(eval, prompt, fm_json_get(sample, "rejected"),
                            &rejected, err);
        }
        if (rc < 0) {
            fm_error_wrap(err, "samples[%zu]", i);
            return rc;
        }
        right += chosen.sum > rejected.sum;
    }
    *out = (double)right / (double)eval->count;
    return FM_OK;
}

/* Greedy continuation of @p prompt as text. */
static fm_status_t continuation(const evaluation_t *eval,
                                const fm_json_t *prompt, fm_buf_t *text,
                                fm_error_t *err)
{
    int32_t stop = fm_engine_tokenizer_eos(eval->model->tokenizer);
    fm_engine_generate_options_t options = {
        .max_new_tokens = eval->max_new, .stop_ids = &stop, .stop_count = 1};
    fm_engine_completion_t completion = {0};
    fm_engine_tokens_t tokens = {0};
    fm_status_t rc;

    if (!fm_json_str(prompt)) {
        return fm_error_set(err, FM_ERR_INVALID, "prompt: a text is needed");
    }
    if ((rc = fm_engine_tokens_add(
             &tokens, fm_engine_tokenizer_bos(eval->model->tokenizer), err)) >=
            0 &&
        (rc = fm_engine_tokenizer_encode(
             eval->model->tokenizer, fm_json_str(prompt),
             fm_json_str_len(prompt), &tokens, err)) >= 0) {
        fm_engine_prompt_t input = {.tokens = tokens.ids,
                                    .count = tokens.count};
        rc = fm_engine_generate(eval->model->model, &input, 1, &options,
                                &completion, err);
    }
    if (rc >= 0) {
        rc = fm_engine_tokenizer_decode(eval->model->tokenizer,
                                        completion.tokens, completion.count,
                                        text, err);
    }
    fm_engine_completion_fini(&completion);
    fm_engine_tokens_fini(&tokens);
    return rc;
}

static size_t trimmed(const char *text, size_t len)
{
    while (len > 0 && isspace((unsigned char)text[len - 1])) {
        len--;
    }
    return len;
}

static fm_status_t exact_match(evaluation_t *eval, double *out, fm_error_t *err)
{
    size_t right = 0;

    for (size_t i = 0; i < eval->count; i++) {
        const fm_json_t *sample = fm_json_at(eval->samples, i);
        const fm_json_t *want = fm_json_get(sample, "completion");
        fm_buf_t text = {0};
        fm_status_t rc = fm_ops_stopping(eval->run, err);

        if (rc >= 0 && !fm_json_str(want)) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "completion: a text is needed");
        }
        if (rc >= 0) {
            rc = continuation(eval, fm_json_get(sample, "prompt"), &text, err);
        }
        if (rc < 0) {
            fm_buf_fini(&text);
            fm_error_wrap(err, "samples[%zu]", i);
            return rc;
        }
        size_t got = trimmed((const char *)text.data, text.len);
        size_t len = trimmed(fm_json_str(want), fm_json_str_len(want));
        right += got == len &&
                 (len == 0 || memcmp(text.data, fm_json_str(want), len) == 0);
        fm_buf_fini(&text);
    }
    *out = (double)right / (double)eval->count;
    return FM_OK;
}

static const struct metric {
    const char *name;
    fm_status_t (*measure)(evaluation_t *eval, double *out, fm_error_t *err);
} metrics[] = {
    {"loss", loss},
    {"perplexity", perplexity},
    {"preference_accuracy", preference_accuracy},
    {"exact_match", exact_match},
};

static fm_status_t metric_add(evaluation_t *eval, const char *name,
                              fm_json_t *figures, fm_error_t *err)
{
    for (size_t i = 0; name && i < FM_COUNT_OF(metrics); i++) {
        double figure = 0;
        if (strcmp(metrics[i].name, name) != 0) {
            continue;
        }
        fm_status_t rc = metrics[i].measure(eval, &figure, err);
        if (rc < 0) {
            return rc;
        }
        if (!isfinite(figure)) {
            return fm_error_set(err, FM_ERR_INVALID, "%s is not finite", name);
        }
        return fm_json_set(figures, name, fm_json_real(figure)) < 0
                   ? fm_no_memory(err)
                   : FM_OK;
    }
    return fm_error_set(err, FM_ERR_INVALID,
                        "metrics: loss, perplexity, preference_accuracy and "
                        "exact_match are allowed");
}

static fm_status_t evaluation_init(evaluation_t *eval, fm_error_t *err)
{
    const fm_json_t *params = eval->run->params;
    int64_t max_new;
    fm_status_t rc;

    if (!fm_json_is(eval->samples, FM_JSON_ARRAY) || eval->count < 1 ||
        eval->count > SAMPLES_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "samples: a list of 1 to %d is needed",
                            SAMPLES_MAX);
    }
    if (fm_json_len(fm_json_get(params, "metrics")) < 1) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "metrics: a list of names is needed");
    }
    if ((rc = fm_ops_get_int(params, "max_new_tokens", 1, 1 << 20,
                             NEW_TOKENS_DEFAULT, &max_new, err)) < 0 ||
        (rc = fm_ops_model_load(eval->run->ops, fm_json_get(params, "model"),
                                &eval->model, err)) < 0 ||
        (rc = fm_ops_sequence_limit(eval->model, params, &eval->limit, err)) <
            0) {
        return rc;
    }
    eval->max_new = (size_t)max_new;
    return fm_engine_scorer_create(eval->model->model, &eval->scorer, err);
}

fm_status_t fm_ops_evaluate(fm_ops_run_t *run, size_t item,
                            fm_ops_output_t *output, fm_error_t *err)
{
    const fm_json_t *samples = fm_json_get(run->values[item], "samples");
    const fm_json_t *names = fm_json_get(run->params, "metrics");
    evaluation_t eval = {
        .run = run, .samples = samples, .count = fm_json_len(samples)};
    fm_json_t *figures = fm_json_object();
    fm_status_t rc = evaluation_init(&eval, err);

    for (size_t i = 0; rc >= 0 && i < fm_json_len(names); i++) {
        rc = metric_add(&eval, fm_json_str(fm_json_at(names, i)), figures, err);
    }
    if (rc >= 0 &&
        (!(output->value = fm_json_object()) ||
         fm_json_set(output->value, "metrics", fm_json_keep(figures)) < 0 ||
         fm_json_set(output->value, "samples",
                     fm_json_int((int64_t)eval.count)) < 0)) {
        rc = fm_no_memory(err);
    }
    fm_engine_scorer_destroy(eval.scorer);
    fm_json_drop(figures);
    return rc;
}
