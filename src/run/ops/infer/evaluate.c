/* SPDX-License-Identifier: Apache-2.0 */
/*
 * evaluate: figures of a model over held-out samples
 * (docs/spec/workflow.md §6.8).
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/infer/evaluate.h"

#define SAMPLES_MAX 1000000
#define CHOICES_MAX 1000

static fm_status_t side_score(const fm_ops_evaluation_t *eval,
                              const fm_json_t *prompt,
                              const fm_json_t *completion,
                              fm_engine_score_t *score_out, fm_error_t *err)
{
    fm_ops_sequence_t sequence = {0};
    fm_status_t rc = fm_ops_sequence_make(eval->side.model, prompt, completion,
                                          &eval->limit, &sequence, err);

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
static fm_status_t loss_mean(fm_ops_evaluation_t *eval, double *out,
                             fm_error_t *err)
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

static fm_status_t loss(fm_ops_evaluation_t *eval, fm_json_t *figures,
                        fm_error_t *err)
{
    double mean = 0;
    fm_status_t rc = loss_mean(eval, &mean, err);

    return rc < 0 ? rc : fm_ops_figure_set(figures, "loss", mean, err);
}

static fm_status_t perplexity(fm_ops_evaluation_t *eval, fm_json_t *figures,
                              fm_error_t *err)
{
    double mean = 0;
    fm_status_t rc = loss_mean(eval, &mean, err);

    return rc < 0 ? rc
                  : fm_ops_figure_set(figures, "perplexity", exp(mean), err);
}

/* Share of pairs whose chosen text is the likelier one. */
static fm_status_t preference_accuracy(fm_ops_evaluation_t *eval,
                                       fm_json_t *figures, fm_error_t *err)
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
    return fm_ops_figure_set(figures, "preference_accuracy",
                             (double)right / (double)eval->count, err);
}

/* --- multiple choice ------------------------------------------------------ */

/* Mean log-probability of a choice's own tokens, without the end. */
static fm_status_t choice_score(const fm_ops_evaluation_t *eval,
                                const fm_json_t *prompt,
                                const fm_json_t *choice, double *mean_out,
                                fm_error_t *err)
{
    fm_ops_sequence_t sequence = {0};
    fm_engine_score_t score = {0};
    fm_status_t rc = fm_ops_sequence_make(eval->side.model, prompt, choice,
                                          &eval->limit, &sequence, err);

    if (rc >= 0) {
        int32_t eos = fm_tokenizer_eos(eval->side.model->tokenizer);
        size_t count = sequence.tokens.count - sequence.prompt_count;
        count -=
            count > 1 && sequence.tokens.ids[sequence.tokens.count - 1] == eos;
        fm_engine_score_input_t input = {
            sequence.tokens.ids, sequence.prompt_count,
            sequence.tokens.ids + sequence.prompt_count, count};
        rc = fm_engine_score(eval->scorer, &input, &score, NULL, err);
    }
    if (rc >= 0) {
        *mean_out = score.mean;
    }
    fm_ops_sequence_fini(&sequence);
    return rc;
}

/* The place of the right choice. */
static fm_status_t answer_find(const fm_json_t *sample, size_t *answer_out,
                               fm_error_t *err)
{
    const fm_json_t *choices = fm_json_get(sample, "choices");
    const fm_json_t *answer = fm_json_get(sample, "answer");
    size_t count = fm_json_len(choices);
    int64_t index = fm_json_int_or(answer, -1);

    if (!fm_json_is(choices, FM_JSON_ARRAY) || count < 1 ||
        count > CHOICES_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "choices: a list of 1 to %d texts is needed",
                            CHOICES_MAX);
    }
    for (size_t i = 0; fm_json_str(answer) && i < count; i++) {
        if (index < 0 && fm_json_equal(answer, fm_json_at(choices, i))) {
            index = (int64_t)i;
        }
    }
    if (index < 0 || (size_t)index >= count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "answer: the place of a choice, from 0, or its "
                            "text is needed");
    }
    *answer_out = (size_t)index;
    return FM_OK;
}

static fm_status_t sample_choose(const fm_ops_evaluation_t *eval,
                                 const fm_json_t *sample, bool *right_out,
                                 fm_error_t *err)
{
    const fm_json_t *choices = fm_json_get(sample, "choices");
    size_t answer = 0, best = 0;
    double best_mean = -INFINITY;
    fm_status_t rc = answer_find(sample, &answer, err);

    for (size_t i = 0; rc >= 0 && i < fm_json_len(choices); i++) {
        double mean = 0;
        if ((rc = fm_ops_stopping(eval->run, err)) < 0) {
            break;
        }
        if ((rc = choice_score(eval, fm_json_get(sample, "prompt"),
                               fm_json_at(choices, i), &mean, err)) < 0) {
            fm_error_wrap(err, "choices[%zu]", i);
        } else if (mean > best_mean) {
            best = i;
            best_mean = mean;
        }
    }
    *right_out = best == answer;
    return rc;
}

static fm_status_t accuracy(fm_ops_evaluation_t *eval, fm_json_t *figures,
                            fm_error_t *err)
{
    size_t right = 0;

    for (size_t i = 0; i < eval->count; i++) {
        bool is_right = false;
        fm_status_t rc =
            sample_choose(eval, fm_json_at(eval->samples, i), &is_right, err);
        if (rc < 0) {
            fm_error_wrap(err, "samples[%zu]", i);
            return rc;
        }
        right += is_right;
    }
    return fm_ops_figure_set(figures, "accuracy",
                             (double)right / (double)eval->count, err);
}

/* --- the operator -------------------------------------------------------- */

static const struct metric {
    const char *name;
    fm_ops_measure_fn measure;
} metrics[] = {
    {"loss", loss},
    {"perplexity", perplexity},
    {"preference_accuracy", preference_accuracy},
    {"exact_match", fm_ops_measure_exact},
    {"accuracy", accuracy},
    {"pass_at_k", fm_ops_measure_pass},
    {"win_rate", fm_ops_measure_win},
};

fm_status_t fm_ops_figure_set(fm_json_t *figures, const char *name,
                              double value, fm_error_t *err)
{
    if (!isfinite(value)) {
        return fm_error_set(err, FM_ERR_INVALID, "%s is not finite", name);
    }
    return fm_json_set(figures, name, fm_json_real(value)) < 0
               ? fm_no_memory(err)
               : FM_OK;
}

fm_status_t fm_ops_side_load(fm_ops_run_t *run, const fm_json_t *source,
                             fm_ops_side_t *side_out, fm_error_t *err)
{
    fm_ops_side_t side = {0};
    fm_status_t rc = fm_ops_model_load(run->ops, fm_json_get(source, "model"),
                                       &side.model, err);

    if (rc >= 0 &&
        (rc = fm_ops_item_adapter(run->ops, side.model, source, &side.digest,
                                  &side.adapter, err)) >= 0) {
        *side_out = side;
    }
    return rc;
}

static fm_status_t metric_add(fm_ops_evaluation_t *eval, const char *name,
                              fm_json_t *figures, fm_error_t *err)
{
    for (size_t i = 0; name && i < FM_COUNT_OF(metrics); i++) {
        if (strcmp(metrics[i].name, name) == 0) {
            return metrics[i].measure(eval, figures, err);
        }
    }
    return fm_error_set(err, FM_ERR_INVALID,
                        "metrics: loss, perplexity, preference_accuracy, "
                        "exact_match, accuracy, pass_at_k and win_rate are "
                        "allowed");
}

static fm_status_t evaluation_init(fm_ops_evaluation_t *eval, fm_error_t *err)
{
    const fm_json_t *params = eval->run->params;
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
    if ((rc = fm_ops_side_load(eval->run, params, &eval->side, err)) < 0 ||
        (rc = fm_ops_limit_get(eval->side.model, params, &eval->limit, err)) <
            0 ||
        (rc = fm_engine_scorer_create(eval->side.model->model, &eval->scorer,
                                      err)) < 0) {
        return rc;
    }
    fm_engine_scorer_set_adapter(
        eval->scorer, eval->side.adapter ? eval->side.adapter->adapter : NULL);
    return FM_OK;
}

fm_status_t fm_ops_evaluate(fm_ops_run_t *run, size_t item,
                            fm_ops_output_t *output, fm_error_t *err)
{
    const fm_json_t *samples = fm_json_get(run->values[item], "samples");
    const fm_json_t *names = fm_json_get(run->params, "metrics");
    fm_ops_evaluation_t eval = {
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
