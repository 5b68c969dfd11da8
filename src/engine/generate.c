/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sampling: prompts take slots of the decoder as they become free, in order;
 * the sequences in slots advance together by one token a step.
 */
#include "engine/generate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "engine/decoder.h"
#include "engine/sample.h"

/* One sequence being continued. */
struct lane {
    bool busy;
    size_t prompt; /* index of the caller's prompt */
    fm_rng_t rng;
};

struct run {
    const fm_engine_prompt_t *prompts;
    size_t count;
    fm_engine_generate_options_t options; /* defaults filled in */
    fm_engine_decoder_t *decoder;
    size_t vocab;
    size_t next; /* first prompt not begun */
    struct lane *lanes;
    size_t lane_count;
    int32_t *inputs;             /* [3, lanes] */
    size_t *rows;                /* [lanes]: lane of each row of a step */
    float *logits;               /* [lanes, vocab] */
    fm_engine_candidate_t *work; /* [vocab] */
    fm_engine_completion_t *completions;
};

void fm_engine_completion_fini(fm_engine_completion_t *completion)
{
    free(completion->tokens);
    free(completion->logp);
    *completion = (fm_engine_completion_t){0};
}

static fm_status_t options_fill(fm_engine_generate_options_t *o,
                                fm_error_t *err)
{
    o->max_new_tokens = o->max_new_tokens ? o->max_new_tokens : 128;
    o->max_batch = o->max_batch ? o->max_batch : 16;
    if (!(o->temperature >= 0 && o->temperature <= 100)) {
        return fm_error_set(err, FM_ERR_INVALID, "temperature: want 0 to 100");
    }
    if (!(o->top_p >= 0 && o->top_p <= 1)) {
        return fm_error_set(err, FM_ERR_INVALID, "top_p: want 0 to 1");
    }
    if (o->max_batch > 4096) {
        return fm_error_set(err, FM_ERR_INVALID, "max_batch: want 1 to 4096");
    }
    if (o->stop_count > 64) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "stop ids: %zu given, at most 64", o->stop_count);
    }
    return FM_OK;
}

static fm_status_t prompts_check(const struct run *run,
                                 const fm_engine_config_t *config,
                                 size_t *longest_out, fm_error_t *err)
{
    size_t limit = config->max_position_embeddings;
    size_t fresh = run->options.max_new_tokens;
    size_t longest = 0;

    for (size_t p = 0; p < run->count; p++) {
        const fm_engine_prompt_t *prompt = &run->prompts[p];
        if (prompt->count == 0) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "prompt %zu is empty: begin with the bos token",
                                p);
        }
        if (fresh > limit || prompt->count > limit - fresh) {
            return fm_error_set(err, FM_ERR_LIMIT,
                                "prompt %zu: %zu tokens + max_new_tokens %zu "
                                "exceed max_position_embeddings %zu",
                                p, prompt->count, fresh, limit);
        }
        for (size_t i = 0; i < prompt->count; i++) {
            if (prompt->tokens[i] < 0 ||
                (size_t)prompt->tokens[i] >= config->vocab_size) {
                return fm_error_set(err, FM_ERR_INVALID,
                                    "prompt %zu, token %zu is %d: vocab_size "
                                    "is %zu",
                                    p, i, prompt->tokens[i],
                                    config->vocab_size);
            }
        }
        longest = prompt->count > longest ? prompt->count : longest;
    }
    *longest_out = longest;
    return FM_OK;
}

static fm_status_t run_open(struct run *run, fm_engine_model_t *model,
                            fm_error_t *err)
{
    const fm_engine_config_t *config = fm_engine_model_config(model);
    size_t longest = 0;
    fm_status_t rc = FM_OK;

    if ((rc = options_fill(&run->options, err)) < 0 ||
        (rc = prompts_check(run, config, &longest, err)) < 0) {
        return rc;
    }
    size_t lanes = run->options.max_batch;
    run->lane_count = lanes < run->count ? lanes : run->count;
    lanes = run->lane_count;
    run->vocab = config->vocab_size;
    run->lanes = fm_calloc(lanes, sizeof(*run->lanes));
    run->inputs = fm_calloc(3 * lanes, sizeof(*run->inputs));
    run->rows = fm_calloc(lanes, sizeof(*run->rows));
    run->logits = fm_calloc(lanes, run->vocab * sizeof(*run->logits));
    run->work = fm_calloc(run->vocab, sizeof(*run->work));
    run->completions = fm_calloc(run->count, sizeof(*run->completions));
    if (!run->lanes || !run->inputs || !run->rows || !run->logits ||
        !run->work || !run->completions) {
        return fm_no_memory(err);
    }
    return fm_engine_decoder_create(model, lanes,
                                    longest + run->options.max_new_tokens,
                                    &run->decoder, err);
}

static void run_close(struct run *run)
{
    for (size_t p = 0; run->completions && p < run->count; p++) {
        fm_engine_completion_fini(&run->completions[p]);
    }
    free(run->completions);
    fm_engine_decoder_destroy(run->decoder);
    free(run->lanes);
    free(run->inputs);
    free(run->rows);
    free(run->logits);
    free(run->work);
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

/* Sample the next token of @p lane; frees the lane when it is the last. */
static fm_status_t lane_sample(struct run *run, struct lane *lane,
                               const float *logits, fm_error_t *err)
{
    fm_engine_completion_t *done = &run->completions[lane->prompt];
    float logp = 0;
    int32_t token = fm_engine_sample(logits, run->vocab, &run->options,
                                     run->work, &lane->rng, &logp);

    if (!isfinite(logp)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "prompt %zu, new token %zu: the logits are not "
                            "finite; the model has diverged",
                            lane->prompt, done->count);
    }
    if (is_stop(&run->options, token)) {
        done->finish = FM_ENGINE_FINISH_STOP;
        lane->busy = false;
        return FM_OK;
    }
    done->tokens[done->count] = token;
    done->logp[done->count++] = logp;
    lane->busy = done->count < run->options.max_new_tokens;
    return FM_OK;
}

/* Begin the next prompt in a free lane. */
static fm_status_t lane_begin(struct run *run, size_t index, fm_error_t *err)
{
    struct lane *lane = &run->lanes[index];
    size_t p = run->next++;
    const fm_engine_prompt_t *prompt = &run->prompts[p];
    fm_engine_completion_t *done = &run->completions[p];
    size_t fresh = run->options.max_new_tokens;
    const uint64_t stream[3] = {
        run->options.seed, prompt->sample,
        fm_hash64(prompt->tokens, prompt->count * sizeof(*prompt->tokens))};

    *lane = (struct lane){.busy = true, .prompt = p};
    fm_rng_init(&lane->rng, fm_hash64(stream, sizeof(stream)));
    done->tokens = fm_calloc(fresh, sizeof(*done->tokens));
    done->logp = fm_calloc(fresh, sizeof(*done->logp));
    if (!done->tokens || !done->logp) {
        return fm_no_memory(err);
    }
    fm_status_t rc = fm_engine_decoder_prefill(
        run->decoder, index, prompt->tokens, prompt->count, run->logits, err);
    return rc < 0 ? rc : lane_sample(run, lane, run->logits, err);
}

/* Advance all busy lanes by a token. */
static fm_status_t run_step(struct run *run, size_t busy, fm_error_t *err)
{
    size_t row = 0;

    for (size_t i = 0; i < run->lane_count; i++) {
        if (!run->lanes[i].busy) {
            continue;
        }
        size_t p = run->lanes[i].prompt;
        const fm_engine_completion_t *done = &run->completions[p];
        run->inputs[row] = done->tokens[done->count - 1];
        run->inputs[busy + row] =
            (int32_t)(run->prompts[p].count + done->count - 1);
        run->inputs[2 * busy + row] = (int32_t)i;
        run->rows[row++] = i;
    }
    fm_status_t rc = fm_engine_decoder_step(run->decoder, run->inputs, busy,
                                            run->logits, err);
    for (size_t r = 0; rc >= 0 && r < busy; r++) {
        rc = lane_sample(run, &run->lanes[run->rows[r]],
                         run->logits + r * run->vocab, err);
    }
    return rc;
}

static fm_status_t run_all(struct run *run, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (;;) {
        size_t busy = 0;
        for (size_t i = 0; i < run->lane_count; i++) {
            while (!run->lanes[i].busy && run->next < run->count) {
                if ((rc = lane_begin(run, i, err)) < 0) {
                    return rc;
                }
            }
            busy += run->lanes[i].busy;
        }
        if (busy == 0) {
            return FM_OK;
        }
        if ((rc = run_step(run, busy, err)) < 0) {
            return rc;
        }
    }
}

fm_status_t fm_engine_generate(fm_engine_model_t *model,
                               const fm_engine_prompt_t *prompts, size_t count,
                               const fm_engine_generate_options_t *options,
                               fm_engine_completion_t *completions_out,
                               fm_error_t *err)
{
    struct run run = {.prompts = prompts, .count = count};
    fm_status_t rc = FM_OK;

    if (count == 0) {
        return FM_OK;
    }
    if (options) {
        run.options = *options;
    }
    if ((rc = run_open(&run, model, err)) < 0 ||
        (rc = run_all(&run, err)) < 0) {
        goto out;
    }
    memcpy(completions_out, run.completions, count * sizeof(*completions_out));
    free(run.completions);
    run.completions = NULL; /* handed over */
out:
    run_close(&run);
    return rc;
}
