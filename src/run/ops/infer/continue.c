/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Figures of what a model says: exact_match, pass_at_k, win_rate
 * (docs/spec/workflow.md, evaluate).
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/serve/server.h"
#include "run/ops/infer/evaluate.h"

#define NEW_TOKENS_DEFAULT 64
#define CONTINUATIONS_MAX 1024 /* of one sample */
#define BLOCK 64               /* prompts given to the engine at once */
#define STOPS_MAX 64

/* How continuations are drawn. */
typedef struct sampling {
    fm_engine_generate_options_t options;
    const char *stops[STOPS_MAX];
    size_t n; /* continuations a sample */
} sampling_t;

/* --- parameters ---------------------------------------------------------- */

static fm_status_t stops_parse(sampling_t *sampling, const fm_json_t *params,
                               fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(params, "stop");
    size_t count = fm_json_is(list, FM_JSON_ARRAY) ? fm_json_len(list) : 0;

    for (size_t i = 0; i < count; i++) {
        const char *text = fm_json_str(fm_json_at(list, i));
        if (!text || !*text || count > STOPS_MAX ||
            strlen(text) != fm_json_str_len(fm_json_at(list, i))) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "stop: a list of at most %d texts that are not "
                                "empty",
                                STOPS_MAX);
        }
        sampling->stops[i] = text;
    }
    sampling->options.stop_texts = sampling->stops;
    sampling->options.stop_text_count = count;
    return FM_OK;
}

static fm_status_t greedy_parse(sampling_t *sampling, const fm_json_t *params,
                                fm_error_t *err)
{
    int64_t max_new = 0;
    fm_status_t rc = fm_ops_get_int(params, "max_new_tokens", 1, 1 << 20,
                                    NEW_TOKENS_DEFAULT, &max_new, err);
    if (rc >= 0) {
        sampling->options.max_new_tokens = (size_t)max_new;
        sampling->n = 1;
        rc = stops_parse(sampling, params, err);
    }
    return rc;
}

static fm_status_t sampling_parse(sampling_t *sampling, const fm_json_t *params,
                                  bool many, fm_error_t *err)
{
    fm_engine_generate_options_t *o = &sampling->options;
    int64_t n = 1, top_k = 0, seed = 0;
    fm_status_t rc = greedy_parse(sampling, params, err);

    if (rc < 0 ||
        (many && (rc = fm_ops_get_int(params, "samples", 1, CONTINUATIONS_MAX,
                                      1, &n, err)) < 0) ||
        (rc = fm_ops_get_real(params, "temperature", 0, 100, n > 1 ? 0.8 : 0,
                              &o->temperature, err)) < 0 ||
        (rc = fm_ops_get_real(params, "top_p", 0, 1, 1, &o->top_p, err)) < 0 ||
        (rc = fm_ops_get_real(params, "min_p", 0, 1, 0, &o->min_p, err)) < 0 ||
        (rc = fm_ops_get_real(params, "repetition_penalty", 0.01, 100, 1,
                              &o->repetition_penalty, err)) < 0 ||
        (rc = fm_ops_get_int(params, "top_k", 0, 1 << 20, 0, &top_k, err)) <
            0 ||
        (rc = fm_ops_get_int(params, "seed", 0, INT64_C(1) << 53, 0, &seed,
                             err)) < 0) {
        return rc;
    }
    o->top_k = (size_t)top_k;
    o->seed = (uint64_t)seed;
    sampling->n = (size_t)n;
    return FM_OK;
}

/* --- continuations ------------------------------------------------------- */

static fm_status_t on_done(void *ctx, size_t prompt,
                           fm_engine_completion_t *completion,
                           fm_status_t status, const fm_error_t *why,
                           fm_error_t *err)
{
    fm_engine_completion_t *completions = ctx;

    if (!completion) {
        return fm_error_set(err, status, "%s", why->text);
    }
    completions[prompt] = *completion;
    return FM_OK;
}

/* Texts of one block of prompts, appended; the engine's part of it all. */
static fm_status_t block_generate(const fm_ops_side_t *side,
                                  fm_engine_server_t *server,
                                  const sampling_t *sampling,
                                  const fm_tokens_t *prompts,
                                  const uint64_t *numbers, size_t count,
                                  fm_json_t *texts, fm_error_t *err)
{
    fm_engine_generate_options_t options = sampling->options;
    fm_engine_prompt_t inputs[BLOCK] = {{0}};
    fm_engine_completion_t completions[BLOCK] = {{0}};
    fm_status_t rc;

    options.stop_ids =
        fm_tokenizer_eos_ids(side->model->tokenizer, &options.stop_count);
    options.tokenizer = side->model->tokenizer;
    for (size_t i = 0; i < count; i++) {
        inputs[i].tokens = prompts[i].ids;
        inputs[i].count = prompts[i].count;
        inputs[i].sample = numbers[i];
        if (side->adapter) {
            inputs[i].adapter = side->adapter->adapter;
            inputs[i].adapter_digest = &side->digest;
        }
    }
    const fm_engine_sink_t sink = {.ctx = completions, .done = on_done};
    rc = fm_engine_serve(server, inputs, count, &options, &sink, err);
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        if (fm_json_append(texts, fm_json_stringn(completions[i].text,
                                                  completions[i].text_len)) <
            0) {
            rc = fm_no_memory(err);
        }
    }
    for (size_t i = 0; i < count; i++) {
        fm_engine_completion_fini(&completions[i]);
    }
    return rc;
}

/* n texts a sample, sample by sample. */
static fm_status_t continuations(const fm_ops_evaluation_t *eval,
                                 const fm_ops_side_t *side,
                                 const sampling_t *sampling, fm_json_t *texts,
                                 fm_error_t *err)
{
    size_t total = eval->count * sampling->n;
    fm_engine_server_t *server = NULL;
    fm_status_t rc =
        fm_ops_server_get(eval->run->ops, side->model, &server, err);

    for (size_t at = 0; rc >= 0 && at < total; at += BLOCK) {
        fm_tokens_t prompts[BLOCK] = {{0}};
        uint64_t numbers[BLOCK] = {0};
        size_t count = total - at < BLOCK ? total - at : BLOCK;
        rc = fm_ops_stopping(eval->run, err);
        for (size_t i = 0; rc >= 0 && i < count; i++) {
            size_t sample = (at + i) / sampling->n;
            numbers[i] = (at + i) % sampling->n;
            rc = fm_ops_prompt_encode(side->model,
                                      fm_json_at(eval->samples, sample),
                                      &prompts[i], err);
            if (rc < 0) {
                fm_error_wrap(err, "samples[%zu]", sample);
            }
        }
        if (rc >= 0 && (rc = block_generate(side, server, sampling, prompts,
                                            numbers, count, texts, err)) < 0) {
            fm_error_wrap(err, "samples[%zu] to [%zu]", at / sampling->n,
                          (at + count - 1) / sampling->n);
        }
        for (size_t i = 0; i < count; i++) {
            fm_tokens_fini(&prompts[i]);
        }
    }
    return rc;
}

/* {prompt, completion, record}: the record is that of the sample, or it. */
static fm_json_t *item_make(const fm_json_t *sample, const fm_json_t *text)
{
    fm_json_t *item = fm_json_object();
    const fm_json_t *prompt = fm_json_get(sample, "prompt");
    const fm_json_t *record = fm_json_get(sample, "record");

    record = fm_json_is(record, FM_JSON_OBJECT) ? record : sample;
    if (!item ||
        fm_json_set(item, "prompt",
                    prompt ? fm_json_keep(prompt) : fm_json_null()) < 0 ||
        fm_json_set(item, "completion", fm_json_keep(text)) < 0 ||
        fm_json_set(item, "record", fm_json_keep(record)) < 0) {
        return fm_json_drop(item);
    }
    return item;
}

/* --- exact_match --------------------------------------------------------- */

static size_t trimmed(const fm_json_t *text)
{
    size_t len = fm_json_str_len(text);

    while (len > 0 && strchr(" \t\n\v\f\r", fm_json_str(text)[len - 1])) {
        len--;
    }
    return len;
}

fm_status_t fm_ops_measure_exact(fm_ops_evaluation_t *eval, fm_json_t *figures,
                                 fm_error_t *err)
{
    sampling_t sampling = {0};
    fm_json_t *texts = fm_json_array();
    size_t right = 0;
    fm_status_t rc = texts ? greedy_parse(&sampling, eval->run->params, err)
                           : fm_no_memory(err);

    if (rc >= 0) {
        rc = continuations(eval, &eval->side, &sampling, texts, err);
    }
    for (size_t i = 0; rc >= 0 && i < eval->count; i++) {
        const fm_json_t *want =
            fm_json_get(fm_json_at(eval->samples, i), "completion");
        const fm_json_t *got = fm_json_at(texts, i);
        if (!fm_json_str(want)) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "samples[%zu]: completion: a text is needed", i);
            break;
        }
        size_t len = trimmed(want);
        right += trimmed(got) == len &&
                 memcmp(fm_json_str(got), fm_json_str(want), len) == 0;
    }
    fm_json_drop(texts);
    return rc < 0 ? rc
                  : fm_ops_figure_set(figures, "exact_match",
                                      (double)right / (double)eval->count, err);
}

/* --- rewards of continuations -------------------------------------------- */

/* Judge the continuations of one side; a sample with tests of its own by
 * these, the others by params.reward all at once. */
static fm_status_t texts_judge(fm_ops_evaluation_t *eval,
                               const fm_json_t *texts, size_t n, double *scores,
                               fm_error_t *err)
{
    const fm_json_t *reward = fm_json_get(eval->run->params, "reward");
    size_t total = eval->count * n, shared = 0;
    fm_json_t *common = fm_json_array();
    size_t *places = fm_calloc(total + 1, sizeof(*places));
    double *common_scores = fm_calloc(total + 1, sizeof(double));
    fm_status_t rc =
        common && places && common_scores ? FM_OK : fm_no_memory(err);

    for (size_t i = 0; rc >= 0 && i < eval->count; i++) {
        const fm_json_t *sample = fm_json_at(eval->samples, i);
        const fm_json_t *tests = fm_json_get(sample, "tests");
        fm_json_t *own = fm_json_array();
        bool is_own = fm_json_is(tests, FM_JSON_OBJECT);
        rc = own ? FM_OK : fm_no_memory(err);
        for (size_t j = i * n; rc >= 0 && j < (i + 1) * n; j++) {
            if (fm_json_append(is_own ? own : common,
                               item_make(sample, fm_json_at(texts, j))) < 0) {
                rc = fm_no_memory(err);
            }
            places[shared] = j;
            shared += !is_own;
        }
        if (rc >= 0 && is_own &&
            (rc = fm_ops_scores(eval->run, tests, own, scores + i * n, err)) <
                0) {
            fm_error_wrap(err, "samples[%zu]: tests", i);
        }
        fm_json_drop(own);
    }
    if (rc >= 0 && shared > 0) {
        rc = fm_ops_scores(eval->run, reward, common, common_scores, err);
    }
    for (size_t i = 0; rc >= 0 && i < shared; i++) {
        scores[places[i]] = common_scores[i];
    }
    fm_json_drop(common);
    free(places);
    free(common_scores);
    return rc;
}

/* Continue with @p side and judge; scores of count × n, to be freed. */
static fm_status_t side_judge(fm_ops_evaluation_t *eval,
                              const fm_ops_side_t *side, sampling_t *sampling,
                              double **scores_out, fm_error_t *err)
{
    fm_json_t *texts = fm_json_array();
    double *scores = fm_calloc(eval->count * sampling->n + 1, sizeof(*scores));
    fm_status_t rc = texts && scores ? FM_OK : fm_no_memory(err);

    if (rc >= 0 &&
        (rc = continuations(eval, side, sampling, texts, err)) >= 0 &&
        (rc = texts_judge(eval, texts, sampling->n, scores, err)) >= 0) {
        *scores_out = scores;
        scores = NULL;
    }
    fm_json_drop(texts);
    free(scores);
    return rc;
}

double fm_ops_pass_at_k(size_t n, size_t c, size_t k)
{
    double none = 1; /* C(n−c, k)/C(n, k) as a product that cannot overflow */

    if (n - c < k) {
        return 1;
    }
    for (size_t i = n - c + 1; i <= n; i++) {
        none *= 1 - (double)k / (double)i;
    }
    return 1 - none;
}

static fm_status_t pass_figure(const fm_ops_evaluation_t *eval,
                               const double *scores, size_t n, int64_t k,
                               double least, fm_json_t *figures,
                               fm_error_t *err)
{
    double sum = 0;

    if (k < 1 || (uint64_t)k > n) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "k: numbers from 1 to samples, %zu, are allowed",
                            n);
    }
    for (size_t i = 0; i < eval->count; i++) {
        size_t passed = 0;
        for (size_t j = 0; j < n; j++) {
            passed += scores[i * n + j] >= least;
        }
        sum += fm_ops_pass_at_k(n, passed, (size_t)k);
    }
    char *name = fm_asprintf("pass_at_%lld", (long long)k);
    fm_status_t rc =
        name ? fm_ops_figure_set(figures, name, sum / (double)eval->count, err)
             : fm_no_memory(err);
    free(name);
    return rc;
}

fm_status_t fm_ops_measure_pass(fm_ops_evaluation_t *eval, fm_json_t *figures,
                                fm_error_t *err)
{
    const fm_json_t *params = eval->run->params;
    const fm_json_t *ks = fm_json_get(params, "k");
    bool given = ks && !fm_json_is(ks, FM_JSON_NULL);
    sampling_t sampling = {0};
    double *scores = NULL, least = 1;
    fm_status_t rc;

    if (given && (!fm_json_is(ks, FM_JSON_ARRAY) || fm_json_len(ks) < 1)) {
        return fm_error_set(err, FM_ERR_INVALID, "k: a list of numbers");
    }
    if ((rc = sampling_parse(&sampling, params, true, err)) < 0 ||
        (rc = fm_ops_get_real(params, "pass_score", -1e300, 1e300, 1, &least,
                              err)) < 0 ||
        (rc = side_judge(eval, &eval->side, &sampling, &scores, err)) < 0) {
        return rc;
    }
    for (size_t i = 0; rc >= 0 && i < (given ? fm_json_len(ks) : 1); i++) {
        rc = pass_figure(eval, scores, sampling.n,
                         given ? fm_json_int_or(fm_json_at(ks, i), 0) : 1,
                         least, figures, err);
    }
    free(scores);
    return rc;
}

fm_status_t fm_ops_measure_win(fm_ops_evaluation_t *eval, fm_json_t *figures,
                               fm_error_t *err)
{
    const fm_json_t *params = eval->run->params;
    double *ours = NULL, *theirs = NULL, wins = 0;
    fm_ops_side_t opponent = {0};
    sampling_t sampling = {0};
    fm_status_t rc = fm_ops_side_load(
        eval->run, fm_json_get(params, "opponent"), &opponent, err);

    if (rc < 0) {
        fm_error_wrap(err, "opponent");
        return rc;
    }
    if ((rc = sampling_parse(&sampling, params, false, err)) < 0 ||
        (rc = side_judge(eval, &eval->side, &sampling, &ours, err)) < 0 ||
        (rc = side_judge(eval, &opponent, &sampling, &theirs, err)) < 0) {
        goto out;
    }
    for (size_t i = 0; i < eval->count; i++) {
        wins += ours[i] > theirs[i] ? 1 : (ours[i] == theirs[i] ? 0.5 : 0);
    }
    rc =
        fm_ops_figure_set(figures, "win_rate", wins / (double)eval->count, err);
out:
    free(ours);
    free(theirs);
    return rc;
}
