/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file worker.h
 * The worker role: one executor process, kept alive and fed with leases.
 *
 * A worker holds no state that matters: it greets the control plane once its
 * executor has greeted it, runs one lease at a time, streams results back and
 * reports what its executor could not finish.  It never runs user work itself
 * and never touches a device.  Its executor runs in a work directory of its
 * own under $TMPDIR; files there stand for objects where it knows no store.
 *
 * Threads: belongs to its reactor's thread.
 */
#ifndef FM_ROLE_WORKER_WORKER_H
#define FM_ROLE_WORKER_WORKER_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stdint.h>

#include "io/link/link.h"
#include "io/reactor/reactor.h"

/** What fm_worker_drain() takes at most: below the 30 s that Slurm leaves
 *  between SIGTERM and SIGKILL by default (KillWait). */
#define FM_WORKER_DRAIN_NS INT64_C(12000000000)

typedef struct fm_worker fm_worker_t;

/** Strings are copied; zero means default. */
typedef struct fm_worker_options {
    const char *name; /**< unique in the cell, such as "w1"; required */
    const char *cell; /**< "local" */
    const char *host;
    const char *fabric_dir; /**< required */
    const char *writer;     /**< of the worker's own segments (store/cas.h);
                                 required; not the executor's */
    const char *const *executor_argv; /**< NULL-terminated; required */
    const char *log_path;             /**< of the executor; NULL: nowhere */
    const char *device_kind;          /**< "cpu" */
    const char *device_name;
    uint64_t memory_bytes;
    uint32_t cores;
    double price_per_hour;
    double watts;
    uint32_t control_peer; /**< of the control plane on the link; 0 */
    /** The worker has ended: told to (FM_OK) or unable to go on. */
    void (*on_end)(void *ctx, fm_status_t status, const char *text);
    void *ctx;
} fm_worker_options_t;

/**
 * Start the executor; the HELLO follows by itself.
 *
 * @param link  the worker's endpoint, attached to @p reactor; handled by the
 *              worker from now on, still owned by the caller.
 * @retval FM_ERR_NOT_FOUND  the executor is no program.
 */
FM_MUST_USE fm_status_t fm_worker_open(fm_reactor_t *reactor, fm_link_t *link,
                                       const fm_worker_options_t *opts,
                                       fm_worker_t **worker_out,
                                       fm_error_t *err);
/**
 * End soon: no new lease, the running one is stopped with a checkpoint where
 * its task can, within FM_WORKER_DRAIN_NS.  What was not done counts as not
 * run.  on_end follows, at once when nothing runs.  A repeat changes nothing.
 */
void fm_worker_drain(fm_worker_t *worker, const char *reason);
/** The control plane has closed its end of the link, or was silent for so long
 *  that it is dead: this worker will not be missed. */
bool fm_worker_control_left(const fm_worker_t *worker);
/** Kill the executor, remove its work directory and release; NULL is ignored;
 * returns NULL. */
void *fm_worker_close(fm_worker_t *worker);

#endif
