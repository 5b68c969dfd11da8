/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file server.h
 * Continuous batching of many prompts and adapters over one model, with a
 * paged key-value cache that lives from call to call.
 *
 * Sequences join a running batch as soon as lanes and pages are free and leave
 * it when they end (Yu et al., 2022).  The cache is a fixed number of pages
 * (Kwon et al., 2023); a page's content follows from the tokens up to it and
 * the adapter, so pages of a common prefix are computed once, shared while
 * sequences hold them and kept afterwards until their room is needed.  When
 * pages run out the youngest sequence gives its pages back and computes them
 * anew later: a result never depends on any of this.
 *
 * Threads: as the model.
 */
#ifndef FM_ENGINE_SERVE_SERVER_H
#define FM_ENGINE_SERVE_SERVER_H

#include "engine/serve/generate.h"

/** Zero means the default. */
typedef struct fm_engine_server_options {
    size_t kv_bytes;  /**< most bytes of the cache; default 1 GiB.  Never more
                           than `lanes` sequences of full length take */
    size_t lanes;     /**< sequences at a time; default 64, ≤ 1024 */
    size_t step_rows; /**< most tokens of a step, prompts included; default
                           256, lanes … 65536 */
} fm_engine_server_options_t;

typedef struct fm_engine_server fm_engine_server_t;

/**
 * @param model    kept; must outlive the server.  When its parameters change,
 *                 fm_engine_server_forget().
 * @param options  NULL for defaults.
 */
FM_MUST_USE fm_status_t fm_engine_server_create(
    fm_engine_model_t *model, const fm_engine_server_options_t *options,
    fm_engine_server_t **server_out, fm_error_t *err);
fm_engine_server_t *fm_engine_server_destroy(fm_engine_server_t *server);
/** Keep nothing of what was computed so far. */
void fm_engine_server_forget(fm_engine_server_t *server);
/** Bytes of the cache. */
size_t fm_engine_server_bytes(const fm_engine_server_t *server);

/** What the server did since it was created. */
typedef struct fm_engine_server_stats {
    uint64_t steps;
    uint64_t computed_tokens; /**< rows that went through the layers */
    uint64_t shared_tokens;   /**< found in pages of others */
    uint64_t preemptions;     /**< sequences that gave their pages back */
    uint64_t pages;           /**< of the cache */
} fm_engine_server_stats_t;
fm_engine_server_stats_t
fm_engine_server_stats(const fm_engine_server_t *server);

/**
 * Whether a prompt can be served: what fm_engine_serve() refuses a whole call
 * for.
 * @retval FM_ERR_INVALID  empty, a token outside the vocabulary, an adapter of
 *                         another shape.
 * @retval FM_ERR_LIMIT    longer than the model's positions or the cache, with
 *                         the numbers.
 */
FM_MUST_USE fm_status_t fm_engine_server_check(const fm_engine_server_t *server,
                                               const fm_engine_prompt_t *prompt,
                                               size_t max_new_tokens,
                                               fm_error_t *err);

/** Where results go. */
typedef struct fm_engine_sink {
    void *ctx;
    /** A prompt has ended, in any order.  @param completion  the receiver's
     *  from now on; NULL when it failed with @p status and the text of @p why.
     *  A negative return ends the call. */
    fm_status_t (*done)(void *ctx, size_t prompt,
                        fm_engine_completion_t *completion, fm_status_t status,
                        const fm_error_t *why, fm_error_t *err);
    /** Asked between steps; a negative return ends the call; may be NULL. */
    fm_status_t (*poll)(void *ctx, fm_error_t *err);
} fm_engine_sink_t;

/**
 * Continue every prompt, reporting each as soon as it has ended.
 * @param options  NULL for defaults; max_batch: at most so many at a time.
 */
FM_MUST_USE fm_status_t
fm_engine_serve(fm_engine_server_t *server, const fm_engine_prompt_t *prompts,
                size_t count, const fm_engine_generate_options_t *options,
                const fm_engine_sink_t *sink, fm_error_t *err);

#endif
