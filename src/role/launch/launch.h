/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file launch.h
 * Which roles this process takes, and their life: workflows, run together to
 * their end.
 *
 *   alone             control plane and workers in this process, loop link
 *   rank 0 of several control plane
 *   rank 1 …          one worker each
 *
 * Threads: call from the main thread; blocks until the run is over.
 */
#ifndef FM_ROLE_LAUNCH_LAUNCH_H
#define FM_ROLE_LAUNCH_LAUNCH_H

#include "role/control/control.h"

#define FM_LAUNCH_FILES_MAX 256u /**< an argument list, not a queue */

/** A workflow at the end. */
typedef struct fm_launch_run {
    const fm_run_t *run;
    double seconds; /**< from the start of all to its own end */
} fm_launch_run_t;

typedef struct fm_launch_options {
    const char *const *files; /**< the workflows; "-" is standard input */
    size_t file_count;        /**< 1 … FM_LAUNCH_FILES_MAX */
    const char *fabric_dir;   /**< NULL: $FLOWMESH_FABRIC, else a fresh one */
    const char *config;       /**< NULL: $FLOWMESH_CONFIG, else fabric.yaml in
                                   the fabric, where there is one */
    const char *policy;       /**< instead of the configuration's, or NULL */
    const char *without;      /**< ablations, such as "batching,sharing", or
                                   NULL; see fm_launch_overrule() */
    uint32_t workers;         /**< embedded; 0: one a core */
    const char *executor; /**< command line of the executor, split at blanks;
                               NULL: flowmesh-engine beside this program */
    const char *listen;   /**< for cells that join: an interface, "auto" or
                               "off"; NULL: $FLOWMESH_LISTEN, else "auto" in a
                               Slurm job and "off" elsewhere */
    bool is_volatile;     /**< keep no journal: for benchmarks */
    /** Before anything runs, once a workflow: the fabric in use, the run and
     *  what it holds. */
    void (*on_start)(void *ctx, const fm_fabric_t *fabric, const fm_run_t *run);
    fm_control_events_t events; /**< to watch; their ctx is used throughout */
    /** Find a model or adapter that the workflow names (any file but DATA):
     *  with @p digest_out NULL say only whether it is there, else store it in
     *  the fabric @p dir.  @p base: digest of the model that the same node
     *  names, or NULL.  NULL: such workflows are refused. */
    fm_status_t (*resolve)(void *ctx, const char *dir,
                           const fm_workflow_file_t *file, const char *path,
                           const char *base, fm_digest_t *digest_out,
                           fm_error_t *err);
    void *ctx; /**< of on_start, on_end and resolve */
    /** After the end, with the fabric still open: report. */
    void (*on_end)(void *ctx, fm_fabric_t *fabric, const fm_launch_run_t *runs,
                   size_t count, double seconds);
    /** [out] may be NULL.  True: MPI could not be finalised beside a dead
     *  rank; leave with _exit(), since exit() may hang. */
    bool *unclean_out;
} fm_launch_options_t;

/** How a launch ended; also what on_end saw. */
typedef enum fm_launch_outcome {
    FM_LAUNCH_DONE,        /**< all are done; or this was a worker */
    FM_LAUNCH_FAILED,      /**< one failed or was cancelled */
    FM_LAUNCH_INTERRUPTED, /**< a signal; run the same again to go on */
    FM_LAUNCH_REFUSED,     /**< bad input: nothing was run */
    FM_LAUNCH_NO_FABRIC    /**< no fabric, or another process holds it */
} fm_launch_outcome_t;

/**
 * Run workflows: all are submitted, in order, before any of them runs.
 * @param err  [out] why, unless FM_LAUNCH_DONE; a failed workflow leaves it
 *             empty when its own report says it all.
 */
fm_launch_outcome_t fm_launch_run(const fm_launch_options_t *opts,
                                  fm_error_t *err);

typedef struct fm_join_options {
    const char *fabric_dir; /**< NULL: $FLOWMESH_FABRIC, else the latest */
    const char *executor;   /**< as fm_launch_options_t */
    double wait_s;          /**< for a control plane to be there, each time */
} fm_join_options_t;

/**
 * Be a worker of a fabric whose control plane runs elsewhere, until it says
 * goodbye or a signal comes.  One that vanishes is
 * waited for: its next instance is joined.
 * @param err  [out] why, unless FM_LAUNCH_DONE.
 */
fm_launch_outcome_t fm_launch_join(const fm_join_options_t *opts,
                                   fm_error_t *err);

/**
 * Read the configuration of a fabric (docs/spec/fabric.md).
 * @param named  path; NULL: $FLOWMESH_CONFIG, else @p dir/fabric.yaml where
 *               that exists, else what holds without a file.
 * @param dir    may be NULL: no fabric.
 * @retval FM_ERR_NOT_FOUND  the file that was named is not there.
 * @retval FM_ERR_INVALID    with file, line and column.
 */
FM_MUST_USE fm_status_t fm_launch_config(const char *named, const char *dir,
                                         fm_config_t **config_out,
                                         fm_error_t *err);

/**
 * Overrule the configuration, for comparisons.
 * @param policy   name of a policy (plan/place), or NULL.
 * @param without  names, separated by commas, of what flowmesh is to do
 *                 without: batching, locality, consolidation, fair_share,
 *                 sharing; or NULL.
 * @param no_sharing_out  [out] "sharing" was among them.
 * @retval FM_ERR_INVALID  no such name; the text lists them.
 */
FM_MUST_USE fm_status_t fm_launch_overrule(fm_place_options_t *place,
                                           const char *policy,
                                           const char *without,
                                           bool *no_sharing_out,
                                           fm_error_t *err);

/** The fabric that commands read when none is named: $FLOWMESH_FABRIC, else
 *  the latest one under the user's state directory; free() it. */
FM_MUST_USE fm_status_t fm_launch_fabric_dir(const char *named, char **dir_out,
                                             fm_error_t *err);

#endif
