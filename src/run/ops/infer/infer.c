/* SPDX-License-Identifier: Apache-2.0 */
/*
 * inference: what a model says (docs/spec/workflow.md §6.4).
 *
 * The items of a batch run side by side in one server that stays with the
 * resident model, each with its adapter; an item is reported as soon as all
 * its samples have ended.  Its output depends on nothing else.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/serve/server.h"
#include "run/ops/internal.h"

enum {
    SAMPLES_MAX = 256, /* of one item */
    STOPS_MAX = 64     /* as fm_engine_generate_options_t */
};

/* One item. */
typedef struct request {
    size_t item;
    fm_tokens_t tokens;
    fm_digest_t adapter;
    fm_engine_completion_t *completions; /* [samples] */
    size_t left;                         /* samples that have not ended */
    bool failed;                         /* and reported so */
} request_t;

typedef struct generation {
    fm_ops_run_t *run;
    const fm_ops_model_t *model;
    fm_engine_server_t *server;
    fm_engine_generate_options_t options;
    const char *stops[STOPS_MAX];
    size_t samples; /* n */
    bool tokens;    /* return: tokens */
    request_t *requests;
    size_t count;
    fm_engine_prompt_t *prompts; /* [count, samples] */
} generation_t;

/* --- parameters ---------------------------------------------------------- */

static fm_status_t stops_parse(generation_t *g, fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(g->run->params, "stop");
    size_t count = fm_json_len(list);

    if (list && !fm_json_is(list, FM_JSON_NULL) &&
        (!fm_json_is(list, FM_JSON_ARRAY) || count > STOPS_MAX)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "stop: a list of at most %d texts", STOPS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        const fm_json_t *text = fm_json_at(list, i);
        if (!fm_json_str(text) || fm_json_str_len(text) == 0 ||
            strlen(fm_json_str(text)) != fm_json_str_len(text)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "stop[%zu]: a text without NUL that is not "
                                "empty",
                                i);
        }
        g->stops[i] = fm_json_str(text);
    }
    g->options.stop_texts = g->stops;
    g->options.stop_text_count = count;
    return FM_OK;
}

static fm_status_t return_parse(generation_t *g, fm_error_t *err)
{
    const char *form = NULL;
    fm_status_t rc =
        fm_ops_get_text(g->run->params, "return", "text", &form, err);

    if (rc >= 0 && strcmp(form, "text") != 0 && strcmp(form, "tokens") != 0) {
        rc = fm_error_set(err, FM_ERR_INVALID, "return: text or tokens");
    }
    g->tokens = rc >= 0 && strcmp(form, "tokens") == 0;
    g->options.keep_stop = g->tokens; /* a policy must see that it ended */
    return rc;
}

static fm_status_t options_parse(generation_t *g, fm_error_t *err)
{
    const fm_json_t *params = g->run->params;
    fm_engine_generate_options_t *o = &g->options;
    int64_t max_tokens, top_k, seed, samples;
    fm_status_t rc;

    if ((rc = fm_ops_get_int(params, "max_tokens", 1, 1 << 20, 64, &max_tokens,
                             err)) < 0 ||
        (rc = fm_ops_get_real(params, "temperature", 0, 100, 0, &o->temperature,
                              err)) < 0 ||
        (rc = fm_ops_get_real(params, "top_p", 0, 1, 1, &o->top_p, err)) < 0 ||
        (rc = fm_ops_get_int(params, "top_k", 0, 1 << 20, 0, &top_k, err)) <
            0 ||
        (rc = fm_ops_get_real(params, "min_p", 0, 1, 0, &o->min_p, err)) < 0 ||
        (rc = fm_ops_get_real(params, "repetition_penalty", 0.01, 100, 1,
                              &o->repetition_penalty, err)) < 0 ||
        (rc = fm_ops_get_int(params, "n", 1, SAMPLES_MAX, 1, &samples, err)) <
            0 ||
        (rc = fm_ops_get_int(params, "seed", 0, INT64_MAX, 0, &seed, err)) <
            0 ||
        (rc = return_parse(g, err)) < 0 || (rc = stops_parse(g, err)) < 0) {
        return rc;
    }
    o->max_new_tokens = (size_t)max_tokens;
    o->top_k = (size_t)top_k;
    o->seed = (uint64_t)seed;
    g->samples = (size_t)samples;
    return FM_OK;
}

/* --- items --------------------------------------------------------------- */

/* The tokens, the adapter and the checks of one item, for all its samples. */
static fm_status_t request_make(generation_t *g, request_t *request,
                                fm_engine_prompt_t *prompts, fm_error_t *err)
{
    const fm_json_t *value = g->run->values[request->item];
    const fm_model_adapter_t *adapter = NULL;
    fm_engine_prompt_t prompt = {0};
    int64_t seed;
    fm_status_t rc;

    if ((rc = fm_ops_prompt_encode(g->model, value, &request->tokens, err)) <
            0 ||
        (rc = fm_ops_item_adapter(g->run->ops, g->model, value,
                                  &request->adapter, &adapter, err)) < 0 ||
        (rc = fm_ops_get_int(value, "seed", 0, INT64_MAX, 0, &seed, err)) < 0) {
        return rc;
    }
    prompt.tokens = request->tokens.ids;
    prompt.count = request->tokens.count;
    prompt.seed = (uint64_t)seed;
    if (adapter) {
        prompt.adapter = adapter->adapter;
        prompt.adapter_digest = &request->adapter;
    }
    if ((rc = fm_engine_server_check(g->server, &prompt,
                                     g->options.max_new_tokens, err)) < 0) {
        fm_error_wrap(err, "prompt");
        return rc;
    }
    request->completions =
        fm_calloc(g->samples, sizeof(fm_engine_completion_t));
    if (!request->completions) {
        return fm_no_memory(err);
    }
    request->left = g->samples;
    for (size_t j = 0; j < g->samples; j++) {
        prompts[j] = prompt;
        prompts[j].sample = j;
    }
    return FM_OK;
}

static void request_fini(request_t *request, size_t samples)
{
    for (size_t j = 0; request->completions && j < samples; j++) {
        fm_engine_completion_fini(&request->completions[j]);
    }
    free(request->completions);
    fm_tokens_fini(&request->tokens);
    *request = (request_t){0};
}

/* One that cannot be served fails alone, not the whole call. */
static fm_status_t requests_make(generation_t *g, fm_error_t *err)
{
    fm_ops_run_t *run = g->run;
    fm_status_t rc = FM_OK;

    g->requests = fm_calloc(run->count, sizeof(*g->requests));
    g->prompts = fm_calloc(run->count * g->samples, sizeof(*g->prompts));
    if (!g->requests || !g->prompts) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && i < run->count; i++) {
        request_t *request = &g->requests[g->count];
        fm_error_t why = {0};
        if (run->reported[i]) {
            continue;
        }
        request->item = i;
        rc = request_make(g, request, g->prompts + g->count * g->samples, &why);
        if (rc < 0) {
            request_fini(request, g->samples);
            rc = fm_ops_report_error(run, i, rc, &why, err);
        } else {
            g->count++;
        }
    }
    return rc;
}

/* --- outputs ------------------------------------------------------------- */

/* A model may sample NUL, which our JSON does not take: U+FFFD instead. */
static fm_json_t *text_json(const fm_engine_completion_t *completion)
{
    const char *from = completion->text;
    const char *end = from + completion->text_len;
    fm_buf_t text = {0};
    fm_json_t *value = NULL;

    for (const char *nul; (nul = memchr(from, 0, (size_t)(end - from)));) {
        fm_buf_add(&text, from, (size_t)(nul - from));
        fm_buf_add_str(&text, "\xef\xbf\xbd");
        from = nul + 1;
    }
    fm_buf_add(&text, from, (size_t)(end - from));
    if (!text.failed) {
        value =
            fm_json_stringn(text.len ? (const char *)text.data : "", text.len);
    }
    fm_buf_fini(&text);
    return value;
}

/* {"text", "tokens", "logprobs", "finish"} */
static fm_json_t *completion_json(const fm_engine_completion_t *completion)
{
    bool stopped = completion->finish == FM_ENGINE_FINISH_STOP;
    fm_json_t *object = fm_json_object();
    bool ok =
        object && fm_json_set(object, "text", text_json(completion)) >= 0 &&
        fm_json_set(object, "tokens",
                    fm_ops_ids_json(completion->tokens, completion->count)) >=
            0 &&
        fm_json_set(object, "logprobs",
                    fm_ops_reals_json(completion->logp, completion->count)) >=
            0 &&
        fm_json_set(object, "finish",
                    fm_json_string(stopped ? "stop" : "length")) >= 0;

    return ok ? object : fm_json_drop(object);
}

static fm_json_t *output_json(const generation_t *g, const request_t *request)
{
    fm_json_t *list = NULL;
    fm_json_t *object = NULL;

    if (!g->tokens && g->samples == 1) {
        return text_json(&request->completions[0]);
    }
    list = fm_json_array();
    for (size_t j = 0; list && j < g->samples; j++) {
        const fm_engine_completion_t *c = &request->completions[j];
        if (fm_json_append(list,
                           g->tokens ? completion_json(c) : text_json(c)) < 0) {
            list = fm_json_drop(list);
        }
    }
    if (!list || !g->tokens) {
        return list;
    }
    object = fm_json_object();
    if (!object || fm_json_set(object, "completions", list) < 0) {
        return fm_json_drop(object);
    }
    if (fm_json_set(
            object, "prompt_tokens",
            fm_ops_ids_json(request->tokens.ids, request->tokens.count)) < 0) {
        return fm_json_drop(object);
    }
    return object;
}

static fm_status_t on_done(void *ctx, size_t prompt,
                           fm_engine_completion_t *completion,
                           fm_status_t status, const fm_error_t *why,
                           fm_error_t *err)
{
    generation_t *g = ctx;
    request_t *request = &g->requests[prompt / g->samples];
    fm_ops_output_t output = {0};
    fm_status_t rc = FM_OK;

    request->left--;
    if (completion) {
        request->completions[prompt % g->samples] = *completion;
    } else if (!request->failed) {
        request->failed = true;
        return fm_ops_report_error(g->run, request->item, status, why, err);
    }
    if (request->left > 0 || request->failed) {
        return FM_OK;
    }
    output.value = output_json(g, request);
    rc = output.value ? fm_ops_report(g->run, request->item, &output, err)
                      : fm_no_memory(err);
    fm_ops_output_fini(&output);
    request_fini(request, g->samples);
    return rc;
}

static fm_status_t on_poll(void *ctx, fm_error_t *err)
{
    const generation_t *g = ctx;

    return fm_ops_stopping(g->run, err);
}

fm_status_t fm_ops_inference(fm_ops_run_t *run, fm_error_t *err)
{
    generation_t g = {.run = run};
    fm_status_t rc;

    if ((rc = options_parse(&g, err)) < 0 ||
        (rc = fm_ops_model_load(run->ops, fm_json_get(run->params, "model"),
                                &g.model, err)) < 0 ||
        (rc = fm_ops_server_get(run->ops, g.model, &g.server, err)) < 0) {
        return rc;
    }
    g.options.stop_ids =
        fm_tokenizer_eos_ids(g.model->tokenizer, &g.options.stop_count);
    g.options.tokenizer = g.model->tokenizer;
    if ((rc = requests_make(&g, err)) >= 0) {
        const fm_engine_sink_t sink = {&g, on_done, on_poll};
        rc = fm_engine_serve(g.server, g.prompts, g.count * g.samples,
                             &g.options, &sink, err);
    }
    for (size_t i = 0; i < g.count; i++) {
        request_fini(&g.requests[i], g.samples);
    }
    free(g.requests);
    free(g.prompts);
    return rc;
}
