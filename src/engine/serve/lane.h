/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file lane.h
 * One sequence being continued: its tokens, pages and random stream, and what
 * it has given so far.  It outlives the loss of its pages.  Private to the
 * engine.
 */
#ifndef FM_ENGINE_SERVE_LANE_H
#define FM_ENGINE_SERVE_LANE_H

#include "engine/serve/generate.h"
#include "engine/serve/pages.h"
#include "engine/serve/sample.h"
#include "engine/serve/stops.h"

typedef struct fm_engine_lane {
    size_t prompt;  /* index of the caller's prompt */
    int32_t which;  /* adapter in the call's table, or −1 */
    uint64_t root;  /* serial that its first page follows */
    uint64_t order; /* of admission: the youngest yields first */

    int32_t *tokens;     /* prompt, then continuation */
    size_t prompt_count; /* of them */
    size_t count;        /* known */
    size_t done;         /* keys and values of these are in the pages, once
                            the step at hand has run */
    int32_t *table;      /* [page_count] */
    size_t page_count;
    size_t named; /* leading pages that have a name */
    size_t rows;  /* in the step at hand */

    fm_rng_t rng;
    fm_engine_seen_t seen;
    fm_engine_stops_t *stops; /* NULL without a tokenizer */
    float *logp;              /* of the continuation */
} fm_engine_lane_t;

FM_MUST_USE fm_status_t
fm_engine_lane_create(const fm_engine_prompt_t *prompt, size_t vocab,
                      const fm_engine_generate_options_t *options,
                      fm_engine_lane_t **lane_out, fm_error_t *err);
/** Its pages must be dropped already. */
fm_engine_lane_t *fm_engine_lane_destroy(fm_engine_lane_t *lane);

/** The serial that page number @p lane->named would follow. */
uint64_t fm_engine_lane_serial(const fm_engine_lane_t *lane,
                               const fm_engine_pages_t *pages);
/** Hold pages that others have filled, as far as they go; at least one token
 *  stays to be computed.  Returns the tokens that this saved. */
size_t fm_engine_lane_share(fm_engine_lane_t *lane, fm_engine_pages_t *pages);
/** Hold pages for positions below @p end; false when there are none left. */
bool fm_engine_lane_reach(fm_engine_lane_t *lane, fm_engine_pages_t *pages,
                          size_t end);
/** Name the pages that positions below lane->done fill. */
void fm_engine_lane_name(fm_engine_lane_t *lane, fm_engine_pages_t *pages);
/** Give all pages back; what they held must be computed anew. */
void fm_engine_lane_drop(fm_engine_lane_t *lane, fm_engine_pages_t *pages);

/** Take the next token. @param finished_out  it was the last one. */
FM_MUST_USE fm_status_t fm_engine_lane_sample(
    fm_engine_lane_t *lane, fm_engine_sampler_t *sampler, float *logits,
    size_t vocab, const fm_engine_generate_options_t *options,
    fm_engine_completion_t *done, bool *finished_out, fm_error_t *err);

#endif
