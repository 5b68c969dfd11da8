/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cell that joins: every process of this job is a worker with a link of its
 * own to the control plane, wherever that runs.  They need no MPI and do not
 * know of each other, so one of them may die alone.
 *
 * One round serves one instance of the control plane.  A goodbye ends the
 * cell; a control plane that vanished is waited for, and the next round joins
 * its next instance.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/mem.h"
#include "role/launch/internal.h"

#define LOOK_NS (200 * FM_NS_PER_MS)
/* A control plane that was killed and started anew says so in control.json long
 * before its silence would tell. */
#define WATCH_NS (2 * FM_NS_PER_S)

struct join {
    struct launch launch;
    const fm_join_options_t *opts;
    char *cell;
    uint32_t instance; /* that is, or was, served */
    bool any;          /* one was */
    bool moved;        /* control.json names another one by now */
};

/* Cells are told apart by their job, or by where they started. */
static char *cell_name(const struct launch *launch)
{
    const char *job = getenv("SLURM_JOB_ID");

    return job && *job
               ? fm_asprintf("job%s", job)
               : fm_asprintf("%s-%ld", fm_topo_host(launch->topo)->host_name,
                             (long)getppid());
}

/* From 1, as whatever started us counts: srun or mpirun. */
static uint32_t number_in_cell(void)
{
    static const char *const names[] = {"SLURM_PROCID", "OMPI_COMM_WORLD_RANK",
                                        "PMIX_RANK", "PMI_RANK"};

    for (size_t i = 0; i < FM_COUNT_OF(names); i++) {
        const char *text = getenv(names[i]);
        char *end = NULL;
        unsigned long value = text ? strtoul(text, &end, 10) : 0;
        if (text && end != text && *end == '\0' && value < UINT32_MAX) {
            return (uint32_t)value + 1;
        }
    }
    return 1;
}

/* The control plane's address, as soon as there is one to join. */
static fm_status_t find(struct join *join, fm_rendezvous_t *at, fm_error_t *err)
{
    const struct timespec pause = {0, LOOK_NS};
    int64_t until =
        fm_clock_mono_ns() + (int64_t)(join->opts->wait_s * FM_NS_PER_S);

    for (;;) {
        fm_status_t rc = fm_rendezvous_read(join->launch.dir, at, err);
        if (rc >= 0 && (!join->any || at->instance != join->instance)) {
            return FM_OK;
        }
        if (rc >= 0) {
            fm_rendezvous_fini(at);
            rc = fm_error_set(err, FM_ERR_NOT_FOUND,
                              "%s: the control plane that it names is gone",
                              join->launch.dir);
        }
        if (rc != FM_ERR_NOT_FOUND || fm_clock_mono_ns() >= until ||
            join->launch.interrupted) {
            return rc;
        }
        /* signals are events of the reactor: hear them while we wait */
        (void)!fm_reactor_turn(join->launch.reactor, 0, NULL, NULL);
        (void)nanosleep(&pause, NULL);
    }
}

static fm_status_t connect_to(struct join *join, const fm_rendezvous_t *at,
                              fm_error_t *err)
{
    struct launch *launch = &join->launch;
    fm_link_zmq_keys_t keys;
    fm_status_t rc = fm_rendezvous_keys(launch->dir, false, &keys, err);

    if (rc >= 0) {
        rc = fm_link_zmq_connect(at->endpoint, at->public_key, &keys, NULL,
                                 &launch->links[0], err);
    }
    if (rc >= 0) {
        launch->link_count = 1;
        rc = fm_link_attach(launch->links[0], launch->reactor, err);
    }
    if (rc >= 0) {
        rc = fm_launch_start_worker(launch, launch->links[0], join->cell,
                                    number_in_cell(), 1, &launch->workers[0],
                                    err);
        launch->worker_count = rc >= 0;
    }
    return rc;
}

static void round_end(struct join *join, bool gone)
{
    struct launch *launch = &join->launch;

    if (launch->worker_count > 0) {
        launch->workers[0] = fm_worker_close(launch->workers[0]);
    }
    if (launch->link_count > 0) {
        if (gone) { /* nobody is there to say goodbye to */
            fm_link_drop(launch->links[0], 0);
        }
        launch->links[0] = fm_link_close(launch->links[0]);
    }
    launch->worker_count = launch->link_count = 0;
}

static void watch(void *ctx)
{
    struct join *join = ctx;
    fm_rendezvous_t at = {0};

    if (fm_rendezvous_read(join->launch.dir, &at, NULL) >= 0) {
        join->moved = at.instance != join->instance;
        fm_rendezvous_fini(&at);
    }
    if (join->moved) {
        fm_reactor_stop(join->launch.reactor);
    }
}

/* Serve one instance; true when the cell has nothing more to do. */
static bool round_run(struct join *join, fm_launch_outcome_t *outcome,
                      fm_error_t *err)
{
    struct launch *launch = &join->launch;
    fm_rendezvous_t at = {0};

    *outcome = FM_LAUNCH_NO_FABRIC;
    if (find(join, &at, err) < 0) {
        return true;
    }
    launch->worker_status = FM_OK;
    fm_log(FM_LOG_INFO, "joining instance %u at %s (%s)", at.instance,
           at.endpoint, at.host);
    join->instance = at.instance;
    join->any = true;
    join->moved = false;
    uint64_t timer = 0;
    fm_status_t rc = connect_to(join, &at, err);
    if (rc >= 0) {
        rc = fm_reactor_timer_start(launch->reactor, WATCH_NS, WATCH_NS, watch,
                                    join, &timer, err);
    }
    if (rc >= 0) {
        rc = fm_reactor_run(launch->reactor, err);
    }
    fm_reactor_timer_stop(launch->reactor, timer);
    bool silent = launch->worker_count > 0 &&
                  launch->worker_status == FM_ERR_CLOSED &&
                  fm_worker_control_left(launch->workers[0]);
    bool vanished = rc >= 0 && (silent || join->moved) && !launch->interrupted;
    if (rc >= 0 && !vanished) {
        *outcome =
            launch->worker_status < 0 ? FM_LAUNCH_FAILED : FM_LAUNCH_DONE;
    }
    round_end(join, vanished);
    fm_rendezvous_fini(&at);
    return !vanished;
}

fm_launch_outcome_t fm_launch_join(const fm_join_options_t *opts,
                                   fm_error_t *err)
{
    const fm_launch_options_t plain = {.executor = opts->executor};
    struct join join = {.opts = opts, .launch = {.opts = &plain, .err = err}};
    struct launch *launch = &join.launch;
    fm_launch_outcome_t outcome = FM_LAUNCH_NO_FABRIC;

    launch->workers = fm_calloc(1, sizeof(fm_worker_t *));
    launch->links = fm_calloc(1, sizeof(fm_link_t *));
    if (!launch->workers || !launch->links) {
        (void)fm_no_memory(err);
    } else if (fm_reactor_create(NULL, &launch->reactor, err) >= 0 &&
               fm_launch_watch_signals(launch, err) >= 0 &&
               fm_topo_open(NULL, &launch->topo, err) >= 0 &&
               fm_launch_fabric_dir(opts->fabric_dir, &launch->dir, err) >= 0) {
        if (!(join.cell = cell_name(launch))) {
            (void)fm_no_memory(err);
        } else {
            while (!round_run(&join, &outcome, err)) {
                fm_log(FM_LOG_WARN, "the control plane is gone; waiting for "
                                    "the next one");
            }
        }
    }
    free(join.cell);
    fm_launch_fini(launch);
    return outcome;
}
