/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file stops.h
 * The text of a continuation as it grows, and whether a stop text stands in
 * it.  Private to the engine.
 */
#ifndef FM_ENGINE_SERVE_STOPS_H
#define FM_ENGINE_SERVE_STOPS_H

#include "engine/serve/generate.h"

typedef struct fm_engine_stops fm_engine_stops_t;

/** @param options  tokenizer and stop_texts; must outlive it. */
FM_MUST_USE fm_status_t
fm_engine_stops_create(const fm_engine_generate_options_t *options,
                       fm_engine_stops_t **stops_out, fm_error_t *err);
fm_engine_stops_t *fm_engine_stops_destroy(fm_engine_stops_t *stops);

/** One more token.  @param stopped_out  a stop text stands in the text now;
 *  the text is cut before it and takes nothing more. */
FM_MUST_USE fm_status_t fm_engine_stops_add(fm_engine_stops_t *stops,
                                            int32_t token, bool *stopped_out,
                                            fm_error_t *err);
/** What was held back for want of further tokens joins the text. */
FM_MUST_USE fm_status_t fm_engine_stops_finish(fm_engine_stops_t *stops,
                                               bool *stopped_out,
                                               fm_error_t *err);
/** The text so far; owned by @p stops. */
const fm_buf_t *fm_engine_stops_text(const fm_engine_stops_t *stops);

#endif
