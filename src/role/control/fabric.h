/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file fabric.h
 * A fabric directory: journal, store and the state they stand for.
 *
 *   DIR/journal/   what happened (store/journal)
 *   DIR/cas/       objects (store/cas)
 *   DIR/logs/      stderr of the executors
 *
 * The control plane opens it for writing, one process at a time; commands
 * such as `result` open it read-only at any time and see what is durable.
 *
 * Threads: the state belongs to the opener's thread; journal flushes and the
 * store may be handed to one storage thread (store/cas.h).
 */
#ifndef FM_ROLE_CONTROL_FABRIC_H
#define FM_ROLE_CONTROL_FABRIC_H

#include "base/map.h"
#include "role/control/state.h"
#include "store/cas/cas.h"
#include "store/journal/journal.h"

typedef struct fm_fabric_options {
    bool read_only;
    bool is_volatile;     /**< benchmarks: no journal on disk */
    const char *numerics; /**< device class; NULL: "cpu-f32" */
} fm_fabric_options_t;

/** What fm_fabric_open() found. */
typedef struct fm_fabric {
    char *dir;
    fm_journal_t *journal;
    fm_cas_t *cas; /**< NULL: read-only and nothing was ever stored */
    fm_state_t *state;
    fm_map_t *inline_index; /**< read-only: digest → entry of inlines */
    fm_buf_t *inlines;
    size_t inline_count;
    size_t inline_capacity;
    uint64_t lost_count; /**< outputs that the store lost: will run again */
    uint64_t torn_bytes; /**< cut off the journal's end */
} fm_fabric_t;

/**
 * Open @p dir, creating it when it is to be written; replay its journal.
 *
 * A writer also checks that every output of the memo still exists and
 * forgets those that do not, so that they run again when they are wanted.
 *
 * @retval FM_ERR_BUSY       another live process writes it; the text says who.
 * @retval FM_ERR_NOT_FOUND  read-only, and there is no fabric at @p dir.
 * @retval FM_ERR_CORRUPT    the journal is damaged.
 */
FM_MUST_USE fm_status_t fm_fabric_open(const char *dir,
                                       const fm_fabric_options_t *opts,
                                       fm_fabric_t **fabric_out,
                                       fm_error_t *err);
void *fm_fabric_close(fm_fabric_t *fabric);

/** Append an object to @p out, from the store or the journal. */
FM_MUST_USE fm_status_t fm_fabric_read(fm_fabric_t *fabric,
                                       const fm_digest_t *digest, fm_buf_t *out,
                                       fm_error_t *err);

/**
 * The outputs of a finished node as its visible result, {"items": […]}.
 * @retval FM_ERR_NOT_FOUND  the node has no results yet.
 */
FM_MUST_USE fm_status_t fm_fabric_result(fm_fabric_t *fabric,
                                         const fm_run_t *run, uint32_t node,
                                         fm_json_t **result_out,
                                         fm_error_t *err);

/** The records an export reads its metadata from (hints), a new reference;
 *  NULL where the node has no such export. */
FM_MUST_USE fm_json_t *fm_vector_records(const fm_vector_t *vector);

#endif
