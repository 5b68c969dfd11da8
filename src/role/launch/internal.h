/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of role/launch share: launch.c (rank 0 and the life of a
 * run), cell.c (links and workers of this cell), join.c (a cell that joins). */
#ifndef FM_ROLE_LAUNCH_INTERNAL_H
#define FM_ROLE_LAUNCH_INTERNAL_H

#include "base/clock.h"
#include "role/control/control.h"
#include "role/launch/launch.h"
#include "role/launch/submit.h"
#include "role/launch/world.h"
#include "role/worker/worker.h"
#include "site/rendezvous/rendezvous.h"
#include "site/topo/topo.h"

struct launch {
    const fm_launch_options_t *opts;
    fm_world_t world;
    fm_reactor_t *reactor;
    fm_link_t **links; /* embedded: [1 + workers]; MPI: [1] */
    size_t link_count;
    fm_worker_t **workers;
    size_t worker_count;
    fm_control_t *control;
    fm_topo_t *topo;
    char *dir;
    fm_config_t *config;
    bool no_sharing;
    fm_submission_t *submissions; /* rank 0: one a file */
    bool interrupted;             /* a signal asked us to stop */
    bool unclean;                 /* MPI was not finalised */
    fm_status_t worker_status;
    fm_error_t *err;
    uint64_t leave_timer;
    fm_rendezvous_t rendezvous; /* endpoint NULL: nobody can join */
    bool published;
};

/* --- launch.c ------------------------------------------------------------- */

/** SIGINT, SIGTERM and SIGUSR1 end what runs, with checkpoints. */
FM_MUST_USE fm_status_t fm_launch_watch_signals(struct launch *launch,
                                                fm_error_t *err);
void fm_launch_fini(struct launch *launch);
/** fm_worker_options_t.on_end of every worker here; ctx is the launch. */
void fm_launch_on_worker_end(void *ctx, fm_status_t status, const char *text);

/* --- cell.c --------------------------------------------------------------- */

/** Figure of the site in the environment: 0 where it says nothing. */
double fm_launch_figure(const char *name);
/** The links of this process, attached to its reactor; rank 0's listens for
 *  cells that join, where that is wanted. */
FM_MUST_USE fm_status_t fm_launch_open_links(struct launch *launch,
                                             fm_error_t *err);
/** Tell cells where rank 0 listens, if it does. */
FM_MUST_USE fm_status_t fm_launch_publish(struct launch *launch,
                                          uint32_t instance, fm_error_t *err);
/** @p cell NULL: the control plane's own. */
FM_MUST_USE fm_status_t fm_launch_start_worker(
    struct launch *launch, fm_link_t *link, const char *cell, uint32_t number,
    uint32_t cores, fm_worker_t **worker_out, fm_error_t *err);
/** Embedded: the workers of this process. */
FM_MUST_USE fm_status_t fm_launch_start_embedded(struct launch *launch,
                                                 fm_error_t *err);

#endif
