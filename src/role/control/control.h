/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file control.h
 * The control plane: one per fabric, on MPI rank 0 or embedded.
 *
 * Append, then act: every change is a journal record; it is applied, answered
 * and acted upon only once it is durable.  Recovery is fm_fabric_open() plus a
 * look at every node (docs/architecture.md).
 *
 * Threads: belongs to its reactor's thread; the journal is flushed and the
 * store used on the reactor's storage thread.
 */
#ifndef FM_ROLE_CONTROL_CONTROL_H
#define FM_ROLE_CONTROL_CONTROL_H

#include "io/link/link.h"
#include "io/reactor/reactor.h"
#include "plan/config/config.h"
#include "role/control/fabric.h"

typedef struct fm_control fm_control_t;

/** What the owner hears.  NULL members are skipped. */
typedef struct fm_control_events {
    /** A node reached an end state, durably. */
    void (*on_node)(void *ctx, const fm_run_t *run, uint32_t node);
    /** Progress of a running item: fraction 0 … 1, metrics may be empty. */
    void (*on_progress)(void *ctx, const fm_run_t *run, uint32_t node,
                        double fraction, const char *metrics);
    /** A node waits for what will not come by itself: memory, a kind of
     *  device, a task type; the text has the numbers. */
    void (*on_wait)(void *ctx, const fm_run_t *run, uint32_t node,
                    const char *text);
    /** A workflow reached an end state, durably. */
    void (*on_run)(void *ctx, const fm_run_t *run);
    /** A worker joined or was lost. */
    void (*on_worker)(void *ctx, const char *name, bool up, const char *why);
    /** The control plane cannot go on (a full disk, say); what is
     *  acknowledged is safe. */
    void (*on_fatal)(void *ctx, fm_status_t status, const char *text);
    void *ctx;
} fm_control_events_t;

typedef struct fm_control_options {
    fm_control_events_t events;
    int64_t heartbeat_ns;      /**< between beats; 0: 1 s */
    int64_t silence_ns;        /**< a worker silent this long is lost; 0: 5 s */
    const fm_config_t *config; /**< borrowed, outlives it; NULL: defaults */
    bool no_sharing;           /**< ablation: workflows share no results */
} fm_control_options_t;

/**
 * Take over @p fabric, opened for writing, and serve workers on @p link.
 * @param fabric  owned from then on (not on failure).
 * @param link    attached to @p reactor; owned by the caller.
 */
FM_MUST_USE fm_status_t fm_control_open(fm_reactor_t *reactor, fm_link_t *link,
                                        fm_fabric_t *fabric,
                                        const fm_control_options_t *opts,
                                        fm_control_t **control_out,
                                        fm_error_t *err);
/**
 * Release, sealing what the store holds pending.
 * @param err  [out] why sealing failed: no loss, the journal has it; may be
 *             NULL.
 */
fm_status_t fm_control_close(fm_control_t *control, fm_error_t *err);

/**
 * Submit a workflow, or take up the same one again if it has not ended.
 *
 * @param text,len  as read; @p file names it in errors.
 * @param files     object path → digest text; kept.
 * @param run_out   [out] its index; valid once on durable storage, which is
 *                  awaited here, so call it before the reactor runs.
 */
FM_MUST_USE fm_status_t fm_control_submit(fm_control_t *control,
                                          const char *text, size_t len,
                                          const char *file, fm_json_t *files,
                                          uint32_t *run_out, fm_error_t *err);
/** Store a local file for a submission; call it before the reactor runs. */
FM_MUST_USE fm_status_t fm_control_ingest(fm_control_t *control,
                                          const char *path,
                                          fm_digest_t *digest_out,
                                          fm_error_t *err);

fm_fabric_t *fm_control_fabric(const fm_control_t *control);
/** Tell all workers to end, give no more leases. */
void fm_control_shutdown(fm_control_t *control, const char *reason);
/** Workers that have joined and not left. */
size_t fm_control_worker_count(const fm_control_t *control);
/** Peers that left or were lost, whether they had joined or not, and have not
 *  come back. */
size_t fm_control_gone_count(const fm_control_t *control);
/** True once nothing appended waits for the disk. */
bool fm_control_settled(const fm_control_t *control);

#endif
