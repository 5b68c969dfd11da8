/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lanes stand in the order of their admission.  A step plans each lane, the
 * oldest first: pages that others have filled, then a row for a continuation
 * or a piece of a prompt, with pages for it taken from the youngest lane when
 * there are no others.  So the oldest always goes on, and since every prompt
 * by itself fits the cache, all end.  A page gets its name when the step that
 * fills it is planned: within a layer all rows are stored before any attends,
 * so lanes planned after it share it in the same step.
 */
#include "engine/serve/server.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/serve/decoder.h"
#include "engine/serve/lane.h"

enum {
    LANES = 64,
    LANES_MAX = 1024,
    STEP_ROWS = 256, /* where products reach their full speed */
    STEP_ROWS_MAX = 65536,
    ROOTS_MAX = 1024, /* adapters whose pages are kept apart */
    PAGE = FM_ENGINE_PAGE_TOKENS
};

/* The serial that the first page of an adapter follows. */
typedef struct root {
    fm_digest_t digest;
    uint64_t serial;
} root_t;

struct fm_engine_server {
    fm_engine_model_t *model;
    fm_engine_server_options_t options; /* defaults filled in */
    fm_engine_decoder_t *decoder;
    fm_engine_pages_t *pages;
    fm_engine_sampler_t *sampler;
    size_t vocab;
    size_t stride; /* pages of the longest sequence */
    uint64_t base; /* root without an adapter */
    root_t *roots;
    size_t root_count, root_capacity;
    int32_t *inputs; /* [4, step_rows]: tokens, positions, sequences, which */
    int32_t *tables; /* [lanes, stride] */
    int32_t *wanted; /* [lanes] */
    float *logits;   /* [lanes, vocab] */
    fm_engine_server_stats_t stats;
};

/* One call of fm_engine_serve(). */
typedef struct call {
    fm_engine_server_t *server;
    const fm_engine_prompt_t *prompts;
    size_t count;
    fm_engine_generate_options_t options;
    const fm_engine_sink_t *sink;
    size_t next;                /* first prompt not begun */
    fm_engine_lane_t **lanes;   /* [lane_max], by age */
    fm_engine_lane_t **waiting; /* [lane_max], the next to go on is the last */
    fm_engine_lane_t **rows;    /* [lane_max]: lanes of the step, by adapter */
    size_t lane_count, waiting_count, row_count, lane_max;
    const fm_engine_adapter_t **adapters; /* the call's, each once */
    uint64_t *adapter_roots;
    const fm_engine_adapter_t **step_adapters;
    size_t adapter_count, adapter_capacity;
} call_t;

static size_t pages_of(size_t tokens)
{
    return (tokens + PAGE - 1) / PAGE;
}

/* --- server -------------------------------------------------------------- */

static fm_status_t options_fill(fm_engine_server_t *s, fm_error_t *err)
{
    fm_engine_server_options_t *o = &s->options;

    o->kv_bytes = o->kv_bytes ? o->kv_bytes : (size_t)1 << 30;
    o->lanes = o->lanes ? o->lanes : LANES;
    if (o->lanes > LANES_MAX) {
        return fm_error_set(err, FM_ERR_INVALID, "lanes: want 1 to %d",
                            LANES_MAX);
    }
    if (o->step_rows == 0) {
        o->step_rows = o->lanes > STEP_ROWS ? o->lanes : STEP_ROWS;
    }
    if (o->step_rows < o->lanes || o->step_rows > STEP_ROWS_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "step_rows: want %zu (lanes) to %d", o->lanes,
                            STEP_ROWS_MAX);
    }
    return FM_OK;
}

static fm_status_t parts_create(fm_engine_server_t *s, fm_error_t *err)
{
    const fm_engine_config_t *config = fm_engine_model_config(s->model);
    const fm_engine_server_options_t *o = &s->options;
    size_t page_bytes = fm_engine_decoder_page_bytes(config);
    size_t most = o->lanes * pages_of(config->max_position_embeddings);
    size_t pages = o->kv_bytes / page_bytes;
    fm_status_t rc = FM_OK;

    pages = pages < most ? pages : most;
    if (pages == 0) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "kv_bytes %zu: one page of %d tokens takes %zu",
                            o->kv_bytes, PAGE, page_bytes);
    }
    s->vocab = config->vocab_size;
    s->stride = pages_of(config->max_position_embeddings);
    s->stride = s->stride < pages ? s->stride : pages;
    const fm_engine_decoder_options_t decoder = {.rows = o->step_rows,
                                                 .sequences = o->lanes,
                                                 .stride = s->stride,
                                                 .pages = pages};
    if ((rc = fm_engine_pages_create(pages, &s->pages, err)) < 0 ||
        (rc = fm_engine_sampler_create(s->vocab, &s->sampler, err)) < 0 ||
        (rc = fm_engine_decoder_create(s->model, &decoder, &s->decoder, err)) <
            0) {
        return rc;
    }
    s->base = fm_engine_pages_root(s->pages);
    s->inputs = fm_calloc(4 * o->step_rows, sizeof(*s->inputs));
    s->tables = fm_calloc(o->lanes * s->stride, sizeof(*s->tables));
    s->wanted = fm_calloc(o->lanes, sizeof(*s->wanted));
    s->logits = fm_calloc(o->lanes * s->vocab, sizeof(*s->logits));
    return s->inputs && s->tables && s->wanted && s->logits ? FM_OK
                                                            : fm_no_memory(err);
}

fm_status_t fm_engine_server_create(fm_engine_model_t *model,
                                    const fm_engine_server_options_t *options,
                                    fm_engine_server_t **server_out,
                                    fm_error_t *err)
{
    fm_engine_server_t *s = fm_calloc(1, sizeof(*s));
    fm_status_t rc = FM_OK;

    if (!s) {
        return fm_no_memory(err);
    }
    s->model = model;
    if (options) {
        s->options = *options;
    }
    if ((rc = options_fill(s, err)) < 0 || (rc = parts_create(s, err)) < 0) {
        fm_engine_server_destroy(s);
        return rc;
    }
    *server_out = s;
    return FM_OK;
}

fm_engine_server_t *fm_engine_server_destroy(fm_engine_server_t *server)
{
    if (server) {
        fm_engine_decoder_destroy(server->decoder);
        fm_engine_pages_destroy(server->pages);
        fm_engine_sampler_destroy(server->sampler);
        free(server->roots);
        free(server->inputs);
        free(server->tables);
        free(server->wanted);
        free(server->logits);
        free(server);
    }
    return NULL;
}

void fm_engine_server_forget(fm_engine_server_t *server)
{
    fm_engine_pages_forget(server->pages);
}

size_t fm_engine_server_bytes(const fm_engine_server_t *server)
{
    return fm_engine_pages_count(server->pages) *
           fm_engine_decoder_page_bytes(fm_engine_model_config(server->model));
}

fm_engine_server_stats_t
fm_engine_server_stats(const fm_engine_server_t *server)
{
    fm_engine_server_stats_t stats = server->stats;

    stats.pages = fm_engine_pages_count(server->pages);
    return stats;
}

/* The root of an adapter that has a digest; adds it. */
static fm_status_t root_of(fm_engine_server_t *s, const fm_digest_t *digest,
                           uint64_t *serial_out, fm_error_t *err)
{
    for (size_t i = 0; i < s->root_count; i++) {
        if (fm_digest_equal(&s->roots[i].digest, digest)) {
            *serial_out = s->roots[i].serial;
            return FM_OK;
        }
    }
    if (s->root_count == ROOTS_MAX) { /* rare: begin anew */
        fm_engine_pages_forget(s->pages);
        s->root_count = 0;
    }
    fm_status_t rc = fm_grow(&s->roots, &s->root_capacity, s->root_count,
                             sizeof(*s->roots), err);
    if (rc >= 0) {
        *serial_out = fm_engine_pages_root(s->pages);
        s->roots[s->root_count++] = (root_t){*digest, *serial_out};
    }
    return rc;
}

/* --- checks -------------------------------------------------------------- */

static fm_status_t length_check(const fm_engine_server_t *s,
                                const fm_engine_prompt_t *prompt,
                                size_t max_new_tokens, fm_error_t *err)
{
    size_t limit = fm_engine_model_config(s->model)->max_position_embeddings;
    size_t pages = fm_engine_pages_count(s->pages);

    if (max_new_tokens > limit || prompt->count > limit - max_new_tokens) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%zu tokens + max_new_tokens %zu exceed "
                            "max_position_embeddings %zu",
                            prompt->count, max_new_tokens, limit);
    }
    if (pages_of(prompt->count + max_new_tokens) > pages) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%zu tokens + max_new_tokens %zu need %zu pages; "
                            "the key-value cache has %zu of %d tokens: raise "
                            "kv_bytes to %zu",
                            prompt->count, max_new_tokens,
                            pages_of(prompt->count + max_new_tokens), pages,
                            PAGE,
                            pages_of(prompt->count + max_new_tokens) *
                                (fm_engine_server_bytes(s) / pages));
    }
    return FM_OK;
}

fm_status_t fm_engine_server_check(const fm_engine_server_t *server,
                                   const fm_engine_prompt_t *prompt,
                                   size_t max_new_tokens, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (prompt->count == 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "the prompt is empty: begin with the bos token");
    }
    if ((rc = length_check(server, prompt, max_new_tokens, err)) < 0) {
        return rc;
    }
    for (size_t i = 0; i < prompt->count; i++) {
        if (prompt->tokens[i] < 0 ||
            (size_t)prompt->tokens[i] >= server->vocab) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "token %zu is %d: vocab_size is %zu", i,
                                prompt->tokens[i], server->vocab);
        }
    }
    if (prompt->adapter &&
        !fm_engine_decoder_fits(server->decoder, prompt->adapter)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "the adapter was made for a model of another "
                            "shape");
    }
    return FM_OK;
}

static fm_status_t share_check(double value, double low, double high,
                               const char *name, fm_error_t *err)
{
    return value >= low && value <= high
               ? FM_OK
               : fm_error_set(err, FM_ERR_INVALID, "%s: want %g to %g", name,
                              low, high);
}

static fm_status_t stops_check(const fm_engine_generate_options_t *o,
                               fm_error_t *err)
{
    enum { COUNT_MAX = 64, BYTES_MAX = 1024 };

    if (o->stop_count > COUNT_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "stop ids: %zu given, at most %d", o->stop_count,
                            COUNT_MAX);
    }
    if (o->stop_text_count > COUNT_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "stop texts: %zu given, at most %d",
                            o->stop_text_count, COUNT_MAX);
    }
    if (o->stop_text_count > 0 && !o->tokenizer) {
        return fm_error_set(err, FM_ERR_INVALID, "stop texts need a tokenizer");
    }
    for (size_t i = 0; i < o->stop_text_count; i++) {
        size_t len = strlen(o->stop_texts[i]);
        if (len < 1 || len > BYTES_MAX) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "stop text %zu: want 1 to %d bytes", i,
                                BYTES_MAX);
        }
    }
    return FM_OK;
}

static fm_status_t call_options(call_t *call, fm_error_t *err)
{
    fm_engine_generate_options_t *o = &call->options;
    fm_status_t rc;

    o->max_new_tokens = o->max_new_tokens ? o->max_new_tokens : 128;
    if (o->max_batch > LANES_MAX) {
        return fm_error_set(err, FM_ERR_INVALID, "max_batch: want 1 to %d",
                            LANES_MAX);
    }
    if ((rc = share_check(o->temperature, 0, 100, "temperature", err)) < 0 ||
        (rc = share_check(o->top_p, 0, 1, "top_p", err)) < 0 ||
        (rc = share_check(o->min_p, 0, 1, "min_p", err)) < 0 ||
        (rc = share_check(o->repetition_penalty, 0, 100, "repetition_penalty",
                          err)) < 0 ||
        (rc = stops_check(o, err)) < 0) {
        return rc;
    }
    for (size_t p = 0; p < call->count; p++) {
        rc = fm_engine_server_check(call->server, &call->prompts[p],
                                    o->max_new_tokens, err);
        if (rc < 0) {
            fm_error_wrap(err, "prompt %zu", p);
            return rc;
        }
    }
    return FM_OK;
}

/* --- lanes --------------------------------------------------------------- */

/* The adapter's place in the call's table; adds it. */
static fm_status_t adapter_place(call_t *call, const fm_engine_prompt_t *prompt,
                                 int32_t *which_out, fm_error_t *err)
{
    size_t count = call->adapter_count;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < count; i++) {
        if (call->adapters[i] == prompt->adapter) {
            *which_out = (int32_t)i;
            return FM_OK;
        }
    }
    if (count == call->adapter_capacity) {
        size_t grown = 2 * count + 8;
        void *adapters =
            fm_realloc(call->adapters, grown, sizeof(*call->adapters));
        call->adapters = adapters ? adapters : call->adapters;
        void *roots = fm_realloc(call->adapter_roots, grown,
                                 sizeof(*call->adapter_roots));
        call->adapter_roots = roots ? roots : call->adapter_roots;
        if (!adapters || !roots) {
            return fm_no_memory(err);
        }
        call->adapter_capacity = grown;
    }
    call->adapter_roots[count] = fm_engine_pages_root(call->server->pages);
    if (prompt->adapter_digest) {
        rc = root_of(call->server, prompt->adapter_digest,
                     &call->adapter_roots[count], err);
    }
    call->adapters[count] = prompt->adapter;
    *which_out = (int32_t)count;
    call->adapter_count += rc >= 0;
    return rc;
}

static fm_status_t lane_begin(call_t *call, fm_engine_lane_t **lane_out,
                              fm_error_t *err)
{
    const fm_engine_prompt_t *prompt = &call->prompts[call->next];
    int32_t which = -1;
    fm_status_t rc = FM_OK;

    if (prompt->adapter &&
        (rc = adapter_place(call, prompt, &which, err)) < 0) {
        return rc;
    }
    rc = fm_engine_lane_create(prompt, call->server->vocab, &call->options,
                               lane_out, err);
    if (rc >= 0) {
        (*lane_out)->prompt = call->next++;
        (*lane_out)->which = which;
        (*lane_out)->root =
            which < 0 ? call->server->base : call->adapter_roots[which];
    }
    return rc;
}

/* Pages that a lane wants before it gives its next token. */
static size_t wants(const fm_engine_lane_t *lane)
{
    size_t pages = pages_of(lane->count + 1);

    return pages > lane->page_count ? pages - lane->page_count : 0;
}

/* Let lanes join while they fit beside what the others want next. */
static fm_status_t admit(call_t *call, fm_error_t *err)
{
    fm_engine_pages_t *pages = call->server->pages;
    size_t reserved = 0;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < call->lane_count; i++) {
        reserved += wants(call->lanes[i]);
    }
    while (call->lane_count < call->lane_max) {
        if (call->waiting_count == 0) {
            if (call->next == call->count) {
                break;
            }
            rc = lane_begin(call, &call->waiting[0], err);
            if (rc < 0) {
                return rc;
            }
            call->waiting_count = 1;
        }
        fm_engine_lane_t *lane = call->waiting[call->waiting_count - 1];
        call->server->stats.shared_tokens += fm_engine_lane_share(lane, pages);
        if (call->lane_count > 0 &&
            reserved + wants(lane) > fm_engine_pages_available(pages)) {
            call->server->stats.shared_tokens -= lane->done;
            fm_engine_lane_drop(lane, pages);
            break;
        }
        reserved += wants(lane);
        call->waiting_count--;
        call->lanes[call->lane_count++] = lane;
    }
    return FM_OK;
}

static void preempt_youngest(call_t *call)
{
    fm_engine_lane_t *lane = call->lanes[--call->lane_count];

    fm_engine_lane_drop(lane, call->server->pages);
    call->waiting[call->waiting_count++] = lane;
    call->server->stats.preemptions++;
}

/* Decide what lane @p index does in this step; false when it lost its pages.
 * @param left  rows of the step not given away. */
static bool lane_plan(call_t *call, size_t index, size_t *left)
{
    fm_engine_lane_t *lane = call->lanes[index];
    fm_engine_pages_t *pages = call->server->pages;

    call->server->stats.shared_tokens += fm_engine_lane_share(lane, pages);
    size_t others = call->lane_count - index - 1; /* each gets a row */
    size_t rows = lane->count - lane->done;
    rows = rows < *left - others ? rows : *left - others;
    while (!fm_engine_lane_reach(lane, pages, lane->done + rows)) {
        preempt_youngest(call);
        if (call->lane_count == index) {
            return false;
        }
    }
    lane->rows = rows;
    lane->done += rows;
    *left -= rows;
    fm_engine_lane_name(lane, pages);
    return true;
}

/* --- steps --------------------------------------------------------------- */

static int lane_order(const void *left, const void *right)
{
    const fm_engine_lane_t *a = *(fm_engine_lane_t *const *)left;
    const fm_engine_lane_t *b = *(fm_engine_lane_t *const *)right;

    if (a->which != b->which) {
        return a->which < b->which ? -1 : 1;
    }
    return (a->prompt > b->prompt) - (a->prompt < b->prompt);
}

/* Rows of lane number @p sequence of the step. */
static void lane_rows(const fm_engine_server_t *s, const fm_engine_lane_t *lane,
                      size_t sequence, int32_t which, fm_engine_step_t *step)
{
    size_t all = s->options.step_rows;

    for (size_t i = lane->done - lane->rows; i < lane->done; i++) {
        s->inputs[step->count] = lane->tokens[i];
        s->inputs[all + step->count] = (int32_t)i;
        s->inputs[2 * all + step->count] = (int32_t)sequence;
        s->inputs[3 * all + step->count] = which;
        step->count++;
    }
    memcpy(s->tables + sequence * step->stride, lane->table,
           lane->page_count * sizeof(*lane->table));
    if (lane->done == lane->count) {
        s->wanted[step->wanted_count++] = (int32_t)step->count - 1;
    }
}

/* Lanes of one adapter side by side, so that its products are one. */
static fm_status_t step_make(call_t *call, fm_engine_step_t *step,
                             fm_error_t *err)
{
    const fm_engine_server_t *s = call->server;
    size_t all = s->options.step_rows;

    if (call->adapter_count > 0) {
        void *grown = fm_realloc(call->step_adapters, call->adapter_count,
                                 sizeof(*call->step_adapters));
        if (!grown) {
            return fm_no_memory(err);
        }
        call->step_adapters = grown;
    }
    *step = (fm_engine_step_t){.tokens = s->inputs,
                               .positions = s->inputs + all,
                               .sequences = s->inputs + 2 * all,
                               .which = s->inputs + 3 * all,
                               .tables = s->tables,
                               .adapters = call->step_adapters,
                               .wanted = s->wanted};
    call->row_count = 0;
    for (size_t i = 0; i < call->lane_count; i++) {
        call->rows[call->row_count++] = call->lanes[i];
        step->stride = call->lanes[i]->page_count > step->stride
                           ? call->lanes[i]->page_count
                           : step->stride;
    }
    qsort(call->rows, call->row_count, sizeof(*call->rows), lane_order);
    for (size_t i = 0; i < call->row_count; i++) {
        const fm_engine_lane_t *lane = call->rows[i];
        if (lane->which >= 0 && call->step_adapters &&
            (i == 0 || lane->which != call->rows[i - 1]->which)) {
            call->step_adapters[step->adapter_count++] =
                call->adapters[lane->which];
        }
        lane_rows(s, lane, i,
                  lane->which < 0 ? -1 : (int32_t)step->adapter_count - 1,
                  step);
    }
    step->sequence_count = call->row_count;
    return FM_OK;
}

static void lane_leave(call_t *call, fm_engine_lane_t *lane)
{
    size_t at = 0;

    while (call->lanes[at] != lane) {
        at++;
    }
    call->lane_count--;
    memmove(call->lanes + at, call->lanes + at + 1,
            (call->lane_count - at) * sizeof(fm_engine_lane_t *));
    fm_engine_lane_drop(lane, call->server->pages);
    fm_engine_lane_destroy(lane);
}

/* Sample the next token of every lane whose logits are there; those that end
 * leave and are reported. */
static fm_status_t step_sample(call_t *call, fm_error_t *err)
{
    fm_engine_server_t *s = call->server;
    float *logits = s->logits;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < call->row_count; i++) {
        fm_engine_lane_t *lane = call->rows[i];
        fm_engine_completion_t done = {0};
        fm_error_t why = {0};
        bool finished = false;
        size_t prompt = lane->prompt;
        if (lane->done < lane->count) {
            continue; /* in the middle of its prompt */
        }
        fm_status_t status =
            fm_engine_lane_sample(lane, s->sampler, logits, s->vocab,
                                  &call->options, &done, &finished, &why);
        logits += s->vocab;
        if (status >= 0 && !finished) {
            continue;
        }
        lane_leave(call, lane);
        rc = call->sink->done(call->sink->ctx, prompt,
                              status < 0 ? NULL : &done, status, &why, err);
    }
    return rc;
}

static fm_status_t step_run(call_t *call, fm_error_t *err)
{
    fm_engine_server_t *s = call->server;
    size_t left = s->options.step_rows;
    fm_engine_step_t step;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < call->lane_count && lane_plan(call, i, &left); i++) {
    }
    if ((rc = step_make(call, &step, err)) < 0 ||
        (rc = fm_engine_decoder_run(s->decoder, &step, s->logits, err)) < 0) {
        return rc;
    }
    s->stats.steps++;
    s->stats.computed_tokens += step.count;
    return step_sample(call, err);
}

/* --- calls --------------------------------------------------------------- */

static fm_status_t call_open(call_t *call, fm_error_t *err)
{
    size_t lanes = call->server->options.lanes;
    fm_status_t rc = call_options(call, err);

    if (rc < 0) {
        return rc;
    }
    if (call->options.max_batch > 0 && call->options.max_batch < lanes) {
        lanes = call->options.max_batch;
    }
    call->lane_max = lanes < call->count ? lanes : call->count;
    call->lanes = fm_calloc(call->lane_max, sizeof(fm_engine_lane_t *));
    call->waiting = fm_calloc(call->lane_max, sizeof(fm_engine_lane_t *));
    call->rows = fm_calloc(call->lane_max, sizeof(fm_engine_lane_t *));
    return call->lanes && call->waiting && call->rows ? FM_OK
                                                      : fm_no_memory(err);
}

static void call_close(call_t *call, fm_status_t rc)
{
    fm_engine_pages_t *pages = call->server->pages;

    for (size_t i = 0; i < call->lane_count; i++) {
        fm_engine_lane_drop(call->lanes[i], pages);
        fm_engine_lane_destroy(call->lanes[i]);
    }
    for (size_t i = 0; i < call->waiting_count; i++) {
        fm_engine_lane_drop(call->waiting[i], pages);
        fm_engine_lane_destroy(call->waiting[i]);
    }
    if (rc < 0) { /* a page may have a name and not what it promises */
        fm_engine_pages_forget(pages);
    }
    free(call->lanes);
    free(call->waiting);
    free(call->rows);
    free(call->adapters);
    free(call->adapter_roots);
    free(call->step_adapters);
}

fm_status_t fm_engine_serve(fm_engine_server_t *server,
                            const fm_engine_prompt_t *prompts, size_t count,
                            const fm_engine_generate_options_t *options,
                            const fm_engine_sink_t *sink, fm_error_t *err)
{
    call_t call = {
        .server = server, .prompts = prompts, .count = count, .sink = sink};
    fm_status_t rc = FM_OK;

    if (count == 0) {
        return FM_OK;
    }
    if (options) {
        call.options = *options;
    }
    rc = call_open(&call, err);
    while (rc >= 0) {
        if ((sink->poll && (rc = sink->poll(sink->ctx, err)) < 0) ||
            (rc = admit(&call, err)) < 0 || call.lane_count == 0) {
            break;
        }
        rc = step_run(&call, err);
    }
    call_close(&call, rc);
    return rc;
}
