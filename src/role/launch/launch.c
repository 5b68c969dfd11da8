/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Workflows from their text to their end, in whatever world this process is.
 * Rank 0 checks everything that can be refused before the other ranks start:
 * they wait for its word (a broadcast), so a refusal ends all of them.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/mem.h"
#include "role/launch/internal.h"

#define DIR_BYTES 4096
/* After the end, workers get this long to say goodbye: what they take to stop
 * a batch with a checkpoint, and some. */
#define LEAVE_NS (FM_WORKER_DRAIN_NS + 3 * FM_NS_PER_S)
/* What rank 0 takes beyond that to seal its store and close its link. */
#define FAREWELL_NS (5 * FM_NS_PER_S)

/* --- events --------------------------------------------------------------- */

static void leave(void *ctx)
{
    struct launch *launch = ctx;

    fm_reactor_stop(launch->reactor);
}

static void finish(struct launch *launch, const char *reason)
{
    if (launch->leave_timer) {
        return;
    }
    fm_control_shutdown(launch->control, reason);
    if (fm_reactor_timer_start(launch->reactor, LEAVE_NS, 0, leave, launch,
                               &launch->leave_timer, NULL) < 0) {
        fm_reactor_stop(launch->reactor);
    }
}

static void on_run(void *ctx, const fm_run_t *run)
{
    struct launch *launch = ctx;

    if (launch->opts->events.on_run) {
        launch->opts->events.on_run(launch->opts->events.ctx, run);
    }
    bool all = true;
    for (size_t i = 0; i < launch->opts->file_count; i++) {
        fm_submission_t *submission = &launch->submissions[i];
        if (run->index == submission->run && !submission->ended) {
            submission->ended = true;
            submission->end_ns = fm_clock_mono_ns();
        }
        all = all && submission->ended;
    }
    if (all) {
        finish(launch, "the workflow has ended");
    }
}

static void on_fatal(void *ctx, fm_status_t status, const char *text)
{
    struct launch *launch = ctx;

    (void)fm_error_set(launch->err, status, "%s", text);
    finish(launch, "the control plane cannot go on");
}

static void on_node(void *ctx, const fm_run_t *run, uint32_t node)
{
    const fm_control_events_t *events = &((struct launch *)ctx)->opts->events;

    if (events->on_node) {
        events->on_node(events->ctx, run, node);
    }
}

static void on_progress(void *ctx, const fm_run_t *run, uint32_t node,
                        double fraction, const char *metrics)
{
    const fm_control_events_t *events = &((struct launch *)ctx)->opts->events;

    if (events->on_progress) {
        events->on_progress(events->ctx, run, node, fraction, metrics);
    }
}

static void on_worker(void *ctx, const char *name, bool up, const char *why)
{
    struct launch *launch = ctx;
    const fm_control_events_t *events = &launch->opts->events;

    if (events->on_worker && !launch->leave_timer) {
        events->on_worker(events->ctx, name, up, why);
    }
}

static void on_wait(void *ctx, const fm_run_t *run, uint32_t node,
                    const char *text)
{
    const fm_control_events_t *events = &((struct launch *)ctx)->opts->events;

    if (events->on_wait) {
        events->on_wait(events->ctx, run, node, text);
    }
}

static void on_signal(void *ctx, int signo)
{
    struct launch *launch = ctx;

    if (launch->interrupted && signo == SIGINT) {
        fm_reactor_stop(launch->reactor); /* somebody does not want to wait */
        return;
    }
    launch->interrupted = true;
    (void)fm_error_set(launch->err, FM_ERR_CANCELLED,
                       "stopped by signal %d; the same command goes on where "
                       "this one stopped",
                       signo);
    if (launch->control) {
        finish(launch, "interrupted");
    } else if (launch->workers && launch->workers[0]) {
        fm_worker_drain(launch->workers[0], "interrupted");
    } else {
        fm_reactor_stop(launch->reactor);
    }
}

void fm_launch_on_worker_end(void *ctx, fm_status_t status, const char *text)
{
    struct launch *launch = ctx;

    if (status < 0) {
        launch->worker_status = status;
        fm_log(FM_LOG_ERROR, "worker: %s", text);
    }
    if (!launch->control) {
        fm_reactor_stop(launch->reactor);
    }
}

static bool all_gone(const struct launch *launch)
{
    size_t workers =
        launch->world.size > 1 ? launch->world.size - 1 : launch->worker_count;

    return fm_control_gone_count(launch->control) >= workers &&
           fm_control_worker_count(launch->control) == 0;
}

/*
 * Stop once all is said and durable: everybody left, nothing waits.  A rank
 * that has yet to join is awaited as well: it would find rank 0 gone, call
 * that a failure, and mpirun would report it for a run that went well.
 */
static size_t end_hook(void *ctx)
{
    struct launch *launch = ctx;

    if (!launch->leave_timer && all_gone(launch)) {
        (void)fm_error_set(launch->err, FM_ERR_CLOSED,
                           "no worker is left; the same command goes on where "
                           "this one stopped");
        finish(launch, "no worker is left");
    }
    if (launch->leave_timer && fm_control_worker_count(launch->control) == 0 &&
        (launch->world.size == 1 || all_gone(launch)) &&
        fm_control_settled(launch->control)) {
        fm_reactor_stop(launch->reactor);
    }
    return 0;
}

fm_status_t fm_launch_watch_signals(struct launch *launch, fm_error_t *err)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < FM_COUNT_OF(signals); i++) {
        rc = fm_reactor_signal_add(launch->reactor, signals[i], on_signal,
                                   launch, err);
    }
    return rc;
}

/* --- life ----------------------------------------------------------------- */

void fm_launch_fini(struct launch *launch)
{
    for (size_t i = 0; i < launch->worker_count; i++) {
        fm_worker_close(launch->workers[i]);
    }
    free(launch->workers);
    fm_error_t seal = {0};
    if (fm_control_close(launch->control, &seal) < 0) {
        fm_log(FM_LOG_WARN,
               "the store could not be sealed (%s); nothing is lost, the "
               "journal has it",
               seal.text);
    }
    for (size_t i = 0; i < launch->link_count; i++) {
        fm_link_close(launch->links[i]);
    }
    free(launch->links);
    if (launch->published) {
        fm_rendezvous_withdraw(launch->dir, launch->rendezvous.instance);
    }
    fm_rendezvous_fini(&launch->rendezvous);
    fm_topo_close(launch->topo);
    fm_config_destroy(launch->config);
    for (size_t i = 0; launch->submissions && i < launch->opts->file_count;
         i++) {
        fm_submission_fini(&launch->submissions[i]);
    }
    free(launch->submissions);
    free(launch->dir);
    if (launch->world.mpi && fm_link_mpi_fini(NULL) < 0) {
        /* finalising beside a dead rank may hang: the caller is to say what
         * there is to say and leave without the handlers of exit() */
        launch->unclean = true;
    }
    fm_reactor_destroy(launch->reactor);
}

/* --- rank 0 --------------------------------------------------------------- */

static fm_status_t open_control(struct launch *launch, fm_fabric_t *fabric,
                                fm_error_t *err)
{
    fm_control_options_t opts = {.config = launch->config,
                                 .no_sharing = launch->no_sharing,
                                 .events = {.on_node = on_node,
                                            .on_progress = on_progress,
                                            .on_run = on_run,
                                            .on_worker = on_worker,
                                            .on_wait = on_wait,
                                            .on_fatal = on_fatal,
                                            .ctx = launch}};
    fm_status_t rc = fm_control_open(launch->reactor, launch->links[0], fabric,
                                     &opts, &launch->control, err);

    if (rc < 0) {
        fm_fabric_close(fabric);
    }
    for (size_t i = 0; rc >= 0 && i < launch->opts->file_count; i++) {
        rc =
            fm_submission_submit(&launch->submissions[i], launch->control, err);
    }
    if (rc >= 0) {
        rc = fm_launch_publish(launch,
                               fm_journal_info(fabric->journal).instance, err);
    }
    return rc;
}

static fm_launch_outcome_t outcome_of(const struct launch *launch)
{
    const fm_fabric_t *fabric = fm_control_fabric(launch->control);

    if (launch->interrupted) {
        return FM_LAUNCH_INTERRUPTED;
    }
    for (size_t i = 0; i < launch->opts->file_count; i++) {
        fm_pool_workflow_t info = {0};
        (void)!fm_pool_workflow_get(fm_state_pool(fabric->state),
                                    launch->submissions[i].run, &info);
        if (info.state != FM_POOL_DONE) {
            return FM_LAUNCH_FAILED;
        }
    }
    return FM_LAUNCH_DONE;
}

/* What on_end sees: each workflow with its time from start to end. */
static fm_status_t report(struct launch *launch, int64_t start_ns,
                          fm_error_t *err)
{
    const fm_launch_options_t *opts = launch->opts;
    fm_fabric_t *fabric = fm_control_fabric(launch->control);
    int64_t now_ns = fm_clock_mono_ns();
    fm_launch_run_t *runs = fm_calloc(opts->file_count, sizeof(*runs));

    if (!runs) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < opts->file_count; i++) {
        const fm_submission_t *submission = &launch->submissions[i];
        int64_t end_ns = submission->ended ? submission->end_ns : now_ns;
        runs[i].run = fm_state_run(fabric->state, submission->run);
        runs[i].seconds = (double)(end_ns - start_ns) / 1e9;
    }
    opts->on_end(opts->ctx, fabric, runs, opts->file_count,
                 (double)(now_ns - start_ns) / 1e9);
    free(runs);
    return FM_OK;
}

static fm_launch_outcome_t run_to_end(struct launch *launch, fm_error_t *err)
{
    const fm_launch_options_t *opts = launch->opts;
    fm_fabric_t *fabric = fm_control_fabric(launch->control);
    int64_t start = fm_clock_mono_ns();

    *err = (fm_error_t){0}; /* from here on it holds what went wrong */
    for (size_t i = 0; opts->on_start && i < opts->file_count; i++) {
        opts->on_start(opts->ctx, fabric,
                       fm_state_run(fabric->state, launch->submissions[i].run));
    }
    if (fm_reactor_hook_add(launch->reactor, FM_REACTOR_SEND, end_hook, launch,
                            err) < 0 ||
        fm_launch_start_embedded(launch, err) < 0 ||
        fm_reactor_run(launch->reactor, err) < 0 ||
        (opts->on_end && report(launch, start, err) < 0)) {
        return FM_LAUNCH_NO_FABRIC;
    }
    return outcome_of(launch);
}

/* A job that was cancelled may still be handing back its work when the next
 * one starts: a site lets that one wait (slurm/flowmesh.sbatch). */
static fm_status_t fabric_open(const char *dir, const fm_fabric_options_t *opts,
                               fm_fabric_t **fabric, fm_error_t *err)
{
    const struct timespec pause = {0, 200 * 1000 * 1000};
    double wait_s = fm_launch_figure("FLOWMESH_LOCK_WAIT_S");
    int64_t until = fm_clock_mono_ns() + (int64_t)(wait_s * 1e9);
    fm_status_t rc = FM_OK;

    while ((rc = fm_fabric_open(dir, opts, fabric, err)) == FM_ERR_BUSY &&
           fm_clock_mono_ns() < until) {
        (void)nanosleep(&pause, NULL);
    }
    return rc;
}

/* Everything that can be refused, before any other rank starts. */
static fm_launch_outcome_t prepare(struct launch *launch, fm_fabric_t **fabric,
                                   fm_error_t *err)
{
    fm_fabric_options_t opts = {.is_volatile = launch->opts->is_volatile};

    size_t count = launch->opts->file_count;

    if (count < 1 || count > FM_LAUNCH_FILES_MAX) {
        (void)fm_error_set(err, FM_ERR_LIMIT, "%zu workflows: 1 to %u at once",
                           count, FM_LAUNCH_FILES_MAX);
        return FM_LAUNCH_REFUSED;
    }
    if (!(launch->submissions = fm_calloc(count, sizeof(fm_submission_t)))) {
        (void)fm_no_memory(err);
        return FM_LAUNCH_REFUSED;
    }
    for (size_t i = 0; i < count; i++) {
        launch->submissions[i].file = launch->opts->files[i];
        if (fm_submission_read(&launch->submissions[i], launch->opts, err) <
            0) {
            return FM_LAUNCH_REFUSED;
        }
    }
    if (fm_fabric_dir_choose(launch->opts->fabric_dir, &launch->dir, err) < 0) {
        return FM_LAUNCH_NO_FABRIC;
    }
    if (fm_launch_config(launch->opts->config, launch->dir, &launch->config,
                         err) < 0 ||
        fm_launch_overrule(&launch->config->place, launch->opts->policy,
                           launch->opts->without, &launch->no_sharing,
                           err) < 0) {
        return FM_LAUNCH_REFUSED;
    }
    if (fabric_open(launch->dir, &opts, fabric, err) < 0) {
        return FM_LAUNCH_NO_FABRIC;
    }
    for (size_t i = 0; i < count; i++) {
        if (fm_submission_models(&launch->submissions[i], launch->opts,
                                 launch->dir, (*fabric)->cas, err) < 0) {
            return FM_LAUNCH_REFUSED;
        }
    }
    return FM_LAUNCH_DONE;
}

/* Rank 0's word to the others: where the fabric is, or "" to leave. */
static fm_status_t share_dir(struct launch *launch, bool go, char *dir,
                             fm_error_t *err)
{
    if (go && launch->dir) {
        (void)snprintf(dir, DIR_BYTES, "%s", launch->dir);
    }
    return launch->world.mpi ? fm_link_mpi_broadcast(dir, DIR_BYTES, err)
                             : FM_OK;
}

static fm_launch_outcome_t run_control(struct launch *launch, fm_error_t *err)
{
    char dir[DIR_BYTES] = "";
    fm_fabric_t *fabric = NULL;
    fm_launch_outcome_t outcome = prepare(launch, &fabric, err);

    if (share_dir(launch, outcome == FM_LAUNCH_DONE, dir, err) < 0 ||
        outcome != FM_LAUNCH_DONE) {
        fm_fabric_close(fabric);
        return outcome == FM_LAUNCH_DONE ? FM_LAUNCH_NO_FABRIC : outcome;
    }
    if (fm_launch_open_links(launch, err) < 0) {
        fm_fabric_close(fabric);
        return FM_LAUNCH_NO_FABRIC;
    }
    if (open_control(launch, fabric, err) < 0) {
        return launch->control ? FM_LAUNCH_REFUSED : FM_LAUNCH_NO_FABRIC;
    }
    return run_to_end(launch, err);
}

/* --- rank 1 and up -------------------------------------------------------- */

static fm_launch_outcome_t run_worker(struct launch *launch, fm_error_t *err)
{
    char dir[DIR_BYTES] = "";
    fm_status_t rc = share_dir(launch, false, dir, err);

    if (rc >= 0 && dir[0] == '\0') {
        return FM_LAUNCH_DONE; /* rank 0 refused, and says why */
    }
    launch->worker_count = 1;
    if (rc < 0 || !(launch->dir = fm_strdup(dir)) ||
        !(launch->workers = fm_calloc(1, sizeof(fm_worker_t *))) ||
        fm_launch_open_links(launch, err) < 0 ||
        fm_launch_start_worker(launch, launch->links[0], NULL,
                               launch->world.rank, 1, &launch->workers[0],
                               err) < 0 ||
        fm_reactor_run(launch->reactor, err) < 0) {
        return FM_LAUNCH_NO_FABRIC;
    }
    /* MPI ends a job from which one rank leaves alone: go with rank 0, which
     * may have to wait for another worker's last checkpoint */
    int64_t until = fm_clock_mono_ns() + LEAVE_NS + FAREWELL_NS;
    while (!fm_worker_control_left(launch->workers[0]) &&
           fm_clock_mono_ns() < until) {
        (void)!fm_reactor_turn(launch->reactor, 10 * FM_NS_PER_MS, NULL, NULL);
    }
    return launch->worker_status < 0 ? FM_LAUNCH_FAILED : FM_LAUNCH_DONE;
}

fm_launch_outcome_t fm_launch_run(const fm_launch_options_t *opts,
                                  fm_error_t *err)
{
    struct launch launch = {.opts = opts, .err = err};
    fm_launch_outcome_t outcome = FM_LAUNCH_NO_FABRIC;

    /* Signals first: from here on one that comes is an event of the run, also
     * while MPI starts and ends, and never the death of a rank. */
    if (fm_reactor_create(NULL, &launch.reactor, err) >= 0 &&
        fm_launch_watch_signals(&launch, err) >= 0 &&
        fm_world_open(&launch.world, err) >= 0 &&
        fm_topo_open(NULL, &launch.topo, err) >= 0) {
        if (launch.world.rank > 0) {
            char name[32];
            (void)snprintf(name, sizeof(name), "rank %u", launch.world.rank);
            fm_log_set_name(name);
        }
        outcome = launch.world.rank == 0 ? run_control(&launch, err)
                                         : run_worker(&launch, err);
    }
    fm_launch_fini(&launch);
    if (opts->unclean_out) {
        *opts->unclean_out = launch.unclean;
    }
    return outcome;
}
