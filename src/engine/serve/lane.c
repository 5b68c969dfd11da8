/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/serve/lane.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/backend.h"

enum { PAGE = FM_ENGINE_PAGE_TOKENS };

fm_status_t fm_engine_lane_create(const fm_engine_prompt_t *prompt,
                                  size_t vocab,
                                  const fm_engine_generate_options_t *options,
                                  fm_engine_lane_t **lane_out, fm_error_t *err)
{
    size_t longest = prompt->count + options->max_new_tokens;
    const uint64_t stream[4] = {
        options->seed, prompt->seed, prompt->sample,
        fm_hash64(prompt->tokens, prompt->count * sizeof(*prompt->tokens))};
    fm_engine_lane_t *lane = fm_calloc(1, sizeof(*lane));
    fm_status_t rc = FM_OK;

    if (!lane) {
        return fm_no_memory(err);
    }
    fm_rng_init(&lane->rng, fm_hash64(stream, sizeof(stream)));
    lane->tokens = fm_calloc(longest, sizeof(*lane->tokens));
    lane->table = fm_calloc((longest + PAGE - 1) / PAGE, sizeof(*lane->table));
    lane->logp = fm_calloc(options->max_new_tokens, sizeof(*lane->logp));
    if (!lane->tokens || !lane->table || !lane->logp) {
        rc = fm_no_memory(err);
        goto out;
    }
    memcpy(lane->tokens, prompt->tokens,
           prompt->count * sizeof(*prompt->tokens));
    lane->count = lane->prompt_count = prompt->count;
    if (options->repetition_penalty > 0 &&
        (rc = fm_engine_seen_add(&lane->seen, vocab, prompt->tokens,
                                 prompt->count, err)) < 0) {
        goto out;
    }
    if (options->tokenizer) {
        rc = fm_engine_stops_create(options, &lane->stops, err);
    }
out:
    if (rc < 0) {
        fm_engine_lane_destroy(lane);
        return rc;
    }
    *lane_out = lane;
    return FM_OK;
}

fm_engine_lane_t *fm_engine_lane_destroy(fm_engine_lane_t *lane)
{
    if (lane) {
        fm_engine_seen_fini(&lane->seen);
        fm_engine_stops_destroy(lane->stops);
        free(lane->tokens);
        free(lane->table);
        free(lane->logp);
        free(lane);
    }
    return NULL;
}

uint64_t fm_engine_lane_serial(const fm_engine_lane_t *lane,
                               const fm_engine_pages_t *pages)
{
    return lane->named == 0
               ? lane->root
               : fm_engine_pages_serial(pages, lane->table[lane->named - 1]);
}

size_t fm_engine_lane_share(fm_engine_lane_t *lane, fm_engine_pages_t *pages)
{
    size_t before = lane->done;

    while (lane->done == lane->page_count * PAGE &&
           lane->named == lane->page_count && lane->count - lane->done > PAGE) {
        int32_t page =
            fm_engine_pages_find(pages, fm_engine_lane_serial(lane, pages),
                                 lane->tokens + lane->done);
        if (page < 0) {
            break;
        }
        lane->table[lane->page_count++] = page;
        lane->named++;
        lane->done += PAGE;
    }
    return lane->done - before;
}

bool fm_engine_lane_reach(fm_engine_lane_t *lane, fm_engine_pages_t *pages,
                          size_t end)
{
    while (lane->page_count * PAGE < end) {
        int32_t page = fm_engine_pages_take(pages);
        if (page < 0) {
            return false;
        }
        lane->table[lane->page_count++] = page;
    }
    return true;
}

void fm_engine_lane_name(fm_engine_lane_t *lane, fm_engine_pages_t *pages)
{
    while ((lane->named + 1) * PAGE <= lane->done) {
        size_t at = lane->named;
        lane->table[at] = fm_engine_pages_name(
            pages, lane->table[at], fm_engine_lane_serial(lane, pages),
            lane->tokens + at * PAGE);
        lane->named++;
    }
}

void fm_engine_lane_drop(fm_engine_lane_t *lane, fm_engine_pages_t *pages)
{
    while (lane->page_count > 0) {
        fm_engine_pages_drop(pages, lane->table[--lane->page_count]);
    }
    lane->named = 0;
    lane->done = 0;
    lane->rows = 0;
}

static bool is_stop(const fm_engine_generate_options_t *options, int32_t token)
{
    for (size_t i = 0; i < options->stop_count; i++) {
        if (options->stop_ids[i] == token) {
            return true;
        }
    }
    return false;
}

/* Hand over what the lane gave. */
static fm_status_t lane_finish(fm_engine_lane_t *lane, bool stopped,
                               fm_engine_completion_t *done, fm_error_t *err)
{
    size_t count = lane->count - lane->prompt_count;
    fm_engine_completion_t made = {.count = count};
    fm_status_t rc = FM_OK;

    if (lane->stops) {
        bool found = false;
        if ((rc = fm_engine_stops_finish(lane->stops, &found, err)) < 0) {
            return rc;
        }
        const fm_buf_t *text = fm_engine_stops_text(lane->stops);
        stopped = stopped || found;
        made.text_len = text->len;
        made.text = fm_malloc(text->len + 1);
        if (!made.text) {
            return fm_no_memory(err);
        }
        if (text->len > 0) {
            memcpy(made.text, text->data, text->len);
        }
        made.text[text->len] = '\0';
    }
    made.tokens = fm_calloc(count + 1, sizeof(*made.tokens));
    if (!made.tokens) {
        free(made.text);
        return fm_no_memory(err);
    }
    memcpy(made.tokens, lane->tokens + lane->prompt_count,
           count * sizeof(*made.tokens));
    made.logp = lane->logp;
    lane->logp = NULL;
    made.finish = stopped ? FM_ENGINE_FINISH_STOP : FM_ENGINE_FINISH_LENGTH;
    *done = made;
    return FM_OK;
}

fm_status_t fm_engine_lane_sample(fm_engine_lane_t *lane,
                                  fm_engine_sampler_t *sampler, float *logits,
                                  size_t vocab,
                                  const fm_engine_generate_options_t *options,
                                  fm_engine_completion_t *done,
                                  bool *finished_out, fm_error_t *err)
{
    size_t fresh = lane->count - lane->prompt_count;
    float logp = 0;
    bool stopped = false;
    fm_status_t rc = FM_OK;
    int32_t token = fm_engine_sample(sampler, logits, options, &lane->seen,
                                     &lane->rng, &logp);

    if (!isfinite(logp)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "prompt %zu, new token %zu: the logits are not "
                            "finite; the model has diverged",
                            lane->prompt, fresh);
    }
    *finished_out = true;
    if (is_stop(options, token)) {
        if (options->keep_stop) {
            lane->logp[fresh] = logp;
            lane->tokens[lane->count++] = token;
        }
        return lane_finish(lane, true, done, err);
    }
    lane->logp[fresh++] = logp;
    lane->tokens[lane->count++] = token;
    if (options->repetition_penalty > 0) {
        rc = fm_engine_seen_add(&lane->seen, vocab, &token, 1, err);
    }
    if (rc >= 0 && lane->stops) {
        rc = fm_engine_stops_add(lane->stops, token, &stopped, err);
    }
    if (rc >= 0 && (stopped || fresh == options->max_new_tokens)) {
        return lane_finish(lane, stopped, done, err);
    }
    *finished_out = false;
    return rc;
}
