/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One workflow from its text to its end, in whatever world this process is.
 * Rank 0 checks everything that can be refused before the other ranks start:
 * they wait for its word (a broadcast), so a refusal ends all of them.
 */
#include "role/launch/launch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "role/launch/place.h"
#include "role/worker/worker.h"
#include "site/topo/topo.h"

#define DIR_BYTES 4096
/* After the end, workers get this long to say goodbye: what they take to stop
 * a batch with a checkpoint, and some. */
#define LEAVE_NS (FM_WORKER_DRAIN_NS + 3 * FM_NS_PER_S)
/* What rank 0 takes beyond that to seal its store and close its link. */
#define FAREWELL_NS (5 * FM_NS_PER_S)
#define EMBEDDED_WORKERS_MAX 256u

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
    char *text;
    size_t text_len;
    fm_workflow_t *workflow;
    fm_config_t *config;
    bool no_sharing;
    fm_json_t *files; /* what the workflow names, by key: its digest */
    uint32_t run;
    bool interrupted; /* a signal asked us to stop */
    bool unclean;     /* MPI was not finalised */
    fm_status_t worker_status;
    fm_error_t *err;
    uint64_t leave_timer;
};

/* --- reading -------------------------------------------------------------- */

static fm_status_t read_workflow(struct launch *launch, fm_error_t *err)
{
    const char *file = launch->opts->file;
    bool from_stdin = strcmp(file, "-") == 0;
    fm_buf_t buf = {0};
    fm_status_t rc = fm_file_read(from_stdin ? "/dev/stdin" : file,
                                  FM_WORKFLOW_TEXT_BYTES_MAX, &buf, err);

    if (rc >= 0) {
        launch->text_len = buf.len;
        launch->text = fm_strndup(buf.data ? (char *)buf.data : "", buf.len);
        rc = launch->text ? fm_workflow_parse(launch->text, buf.len, file,
                                              &launch->workflow, err)
                          : fm_no_memory(err);
    }
    fm_buf_fini(&buf);
    return rc;
}

static char *beside(const char *file, const char *path)
{
    const char *slash = strrchr(file, '/');

    if (*path == '/' || !slash) {
        return fm_strdup(path);
    }
    return fm_asprintf("%.*s/%s", (int)(slash - file), file, path);
}

/* The path of a file or a local model; of others the name as written. */
static char *file_path(const struct launch *launch,
                       const fm_workflow_file_t *file)
{
    bool local = file->kind == FM_WORKFLOW_FILE_DATA ||
                 file->kind == FM_WORKFLOW_FILE_MODEL_PATH ||
                 file->kind == FM_WORKFLOW_FILE_ADAPTER_PATH;

    return local ? beside(launch->opts->file, file->path)
                 : fm_strdup(file->path);
}

/* Find what is no plain file, or store it; see fm_launch_options_t. */
static fm_status_t resolve(const struct launch *launch,
                           const fm_workflow_file_t *file, const char *path,
                           const char *base, fm_digest_t *digest_out,
                           fm_error_t *err)
{
    if (!launch->opts->resolve) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "%s: models are not imported here; name a digest",
                            file->path);
    }
    return launch->opts->resolve(launch->opts->ctx, launch->dir, file, path,
                                 base, digest_out, err);
}

/* What the workflow reads must be there before anything else is touched. */
static fm_status_t check_files(const struct launch *launch, fm_error_t *err)
{
    size_t count = fm_workflow_file_count(launch->workflow);
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const fm_workflow_file_t *file = fm_workflow_file(launch->workflow, i);
        char *path = file_path(launch, file);
        if (!path) {
            rc = fm_no_memory(err);
        } else if (file->kind != FM_WORKFLOW_FILE_DATA) {
            rc = resolve(launch, file, path, NULL, NULL, err);
        } else if (access(path, R_OK) != 0) {
            rc = fm_error_set_errno(err, FM_ERR_NOT_FOUND, errno, "read %s",
                                    path);
        }
        if (rc < 0) {
            fm_error_wrap(err, "%s:%u:%u", launch->opts->file, file->line,
                          file->column);
        }
        free(path);
    }
    return rc;
}

/* The model that the node of an adapter names, when it is known by now. */
static const char *base_of(const struct launch *launch,
                           const fm_workflow_file_t *adapter)
{
    for (size_t i = 0; i < fm_workflow_file_count(launch->workflow); i++) {
        const fm_workflow_file_t *file = fm_workflow_file(launch->workflow, i);
        if (file->node == adapter->node && file != adapter &&
            file->kind != FM_WORKFLOW_FILE_DATA &&
            file->kind != FM_WORKFLOW_FILE_ADAPTER_PATH) {
            return fm_json_get_str(launch->files, file->key);
        }
    }
    return NULL;
}

static fm_status_t file_store(struct launch *launch,
                              const fm_workflow_file_t *file, fm_error_t *err)
{
    char text[FM_DIGEST_TEXT_BYTES];
    fm_digest_t digest;
    char *path = file_path(launch, file);
    fm_status_t rc = path ? FM_OK : fm_no_memory(err);

    if (rc >= 0) {
        rc = file->kind == FM_WORKFLOW_FILE_DATA
                 ? fm_control_ingest(launch->control, path, &digest, err)
                 : resolve(launch, file, path, base_of(launch, file), &digest,
                           err);
    }
    free(path);
    if (rc >= 0) {
        rc = fm_json_set(launch->files, file->key,
                         fm_json_string(fm_digest_format(&digest, text)));
    }
    if (rc < 0) {
        fm_error_wrap(err, "%s:%u:%u", launch->opts->file, file->line,
                      file->column);
    }
    return rc;
}

/* Store what the workflow names and is of a kind from first to last. */
static fm_status_t files_store(struct launch *launch,
                               fm_workflow_file_kind_t first,
                               fm_workflow_file_kind_t last, fm_error_t *err)
{
    size_t count = fm_workflow_file_count(launch->workflow);
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const fm_workflow_file_t *file = fm_workflow_file(launch->workflow, i);
        if (file->kind >= first && file->kind <= last) {
            rc = file_store(launch, file, err);
        }
    }
    return rc;
}

/* Models before their adapters.  Imports may take minutes: before the other
 * ranks start, who would wait for an answer. */
static fm_status_t models_store(struct launch *launch, fm_cas_t *cas,
                                fm_error_t *err)
{
    fm_status_t rc = files_store(launch, FM_WORKFLOW_FILE_MODEL_PATH,
                                 FM_WORKFLOW_FILE_MODEL_NAME, err);

    if (rc >= 0) {
        rc = files_store(launch, FM_WORKFLOW_FILE_ADAPTER_PATH,
                         FM_WORKFLOW_FILE_ADAPTER_PATH, err);
    }
    return rc < 0 || fm_json_len(launch->files) == 0 ? rc
                                                     : fm_cas_refresh(cas, err);
}

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
    if (run->index == launch->run) {
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

static void on_worker_end(void *ctx, fm_status_t status, const char *text)
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

    return fm_control_gone_count(launch->control) >= workers;
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

static fm_status_t watch_signals(struct launch *launch, fm_error_t *err)
{
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < FM_COUNT_OF(signals); i++) {
        rc = fm_reactor_signal_add(launch->reactor, signals[i], on_signal,
                                   launch, err);
    }
    return rc;
}

/* --- workers -------------------------------------------------------------- */

#define ARGV_MAX 64u

/* What an executor is started with. */
struct command_line {
    const char *argv[ARGV_MAX];
    char *paths[ARGV_MAX]; /* owned, NULL where argv is storage */
    char *storage;         /* what the other words point into */
};

static void command_line_fini(struct command_line *line)
{
    for (size_t i = 0; i < ARGV_MAX; i++) {
        free(line->paths[i]);
    }
    free(line->storage);
}

/* An executor runs in a directory of its own: a word that names a file here
 * is made absolute.  A program without a slash is looked up in PATH. */
static void word_resolve(struct command_line *line, size_t index)
{
    const char *word = line->argv[index];

    if (*word == '/' || *word == '-' || (index == 0 && !strchr(word, '/'))) {
        return;
    }
    line->paths[index] = realpath(word, NULL);
    if (line->paths[index]) {
        line->argv[index] = line->paths[index];
    }
}

/* The command given, split at blanks, or the engine beside this program. */
static fm_status_t command_line(const struct launch *launch, const char *writer,
                                struct command_line *line, fm_error_t *err)
{
    const char *command = launch->opts->executor;
    char *bin = command ? NULL : fm_file_program_dir();
    char *save = NULL;
    size_t count = 0;

    line->storage = command
                        ? fm_strdup(command)
                        : fm_asprintf("%s/flowmesh-engine", bin ? bin : ".");
    free(bin);
    if (!line->storage) {
        return fm_no_memory(err);
    }
    if (!command) {
        const char *const argv[] = {line->storage, "--fabric", launch->dir,
                                    "--writer",    writer,     "--device",
                                    "cpu",         NULL};
        memcpy(line->argv, argv, sizeof(argv));
        return FM_OK;
    }
    for (char *word = strtok_r(line->storage, " ", &save);
         word && count < ARGV_MAX - 1; word = strtok_r(NULL, " ", &save)) {
        line->argv[count] = word;
        word_resolve(line, count++);
    }
    line->argv[count] = NULL;
    if (count == 0) {
        return fm_error_set(err, FM_ERR_INVALID, "--executor is empty");
    }
    return FM_OK;
}

/* What a worker costs, as the site says: 0 where it says nothing. */
static double site_figure(const char *name)
{
    const char *text = getenv(name);
    char *end = NULL;
    double value = text ? strtod(text, &end) : 0;

    return text && end != text && *end == '\0' && value >= 0 && value < 1e9
               ? value
               : 0;
}

static fm_status_t start_worker(struct launch *launch, fm_link_t *link,
                                uint32_t number, uint32_t cores,
                                fm_worker_t **worker_out, fm_error_t *err)
{
    const fm_topo_host_t *host = fm_topo_host(launch->topo);
    struct command_line line = {0};
    char name[32];
    char writer[FM_CAS_WRITER_BYTES_MAX + 1];
    char own_writer[FM_CAS_WRITER_BYTES_MAX + 1];

    (void)snprintf(name, sizeof(name), "w%u", number);
    (void)snprintf(writer, sizeof(writer), "%.24s-%ld-w%u", host->host_name,
                   (long)getpid(), number);
    (void)snprintf(own_writer, sizeof(own_writer), "%.57s-files", writer);
    fm_status_t rc = command_line(launch, writer, &line, err);
    if (rc < 0) {
        command_line_fini(&line);
        return rc;
    }
    char *log = fm_asprintf("%s/logs/%s.log", launch->dir, writer);
    fm_worker_options_t opts = {
        .name = name,
        .host = host->host_name,
        .fabric_dir = launch->dir,
        .writer = own_writer,
        .executor_argv = line.argv,
        .log_path = log,
        .device_kind = "cpu",
        .device_name = host->cpu_model,
        .memory_bytes = host->memory_bytes / (cores ? cores : 1),
        .cores = 1,
        .price_per_hour = site_figure("FLOWMESH_PRICE_PER_HOUR"),
        .watts = site_figure("FLOWMESH_WATTS"),
        .on_end = on_worker_end,
        .ctx = launch,
    };
    rc = fm_worker_open(launch->reactor, link, &opts, worker_out, err);
    command_line_fini(&line);
    free(log);
    return rc;
}

static uint32_t worker_wish(const struct launch *launch)
{
    uint32_t wish = launch->opts->workers;

    if (wish == 0) {
        wish = fm_topo_host(launch->topo)->core_count;
    }
    return wish < EMBEDDED_WORKERS_MAX ? wish : EMBEDDED_WORKERS_MAX;
}

/* --- links ---------------------------------------------------------------- */

static fm_status_t open_links(struct launch *launch, fm_error_t *err)
{
    bool embedded = launch->world.size == 1;
    uint32_t count = embedded ? 1 + worker_wish(launch) : 1;
    fm_status_t rc = FM_OK;

    launch->links = fm_calloc(count, sizeof(fm_link_t *));
    if (!launch->links) {
        return fm_no_memory(err);
    }
    rc = embedded ? fm_link_loop_create(count, NULL, launch->links, err)
                  : fm_link_mpi_create(NULL, launch->links, err);
    if (rc < 0) {
        return rc;
    }
    launch->link_count = count;
    for (uint32_t i = 0; rc >= 0 && i < count; i++) {
        rc = fm_link_attach(launch->links[i], launch->reactor, err);
    }
    return rc;
}

static fm_status_t start_embedded(struct launch *launch, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (launch->world.size > 1) {
        return FM_OK;
    }
    size_t count = launch->link_count - 1;
    launch->workers = fm_calloc(count, sizeof(fm_worker_t *));
    if (!launch->workers) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = start_worker(launch, launch->links[i + 1], (uint32_t)i + 1,
                          (uint32_t)count, &launch->workers[i], err);
        launch->worker_count += rc >= 0;
    }
    return rc;
}

static void launch_fini(struct launch *launch)
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
    fm_topo_close(launch->topo);
    fm_config_destroy(launch->config);
    fm_workflow_destroy(launch->workflow);
    fm_json_drop(launch->files);
    free(launch->dir);
    free(launch->text);
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
    } else if ((rc = files_store(launch, FM_WORKFLOW_FILE_DATA,
                                 FM_WORKFLOW_FILE_DATA, err)) >= 0) {
        rc = fm_control_submit(launch->control, launch->text, launch->text_len,
                               launch->opts->file, launch->files, &launch->run,
                               err);
    }
    return rc;
}

static fm_launch_outcome_t outcome_of(const struct launch *launch)
{
    fm_pool_workflow_t info = {0};
    const fm_fabric_t *fabric = fm_control_fabric(launch->control);

    if (launch->interrupted) {
        return FM_LAUNCH_INTERRUPTED;
    }
    (void)!fm_pool_workflow_get(fm_state_pool(fabric->state), launch->run,
                                &info);
    return info.state == FM_POOL_DONE ? FM_LAUNCH_DONE : FM_LAUNCH_FAILED;
}

static fm_launch_outcome_t run_to_end(struct launch *launch, fm_error_t *err)
{
    const fm_launch_options_t *opts = launch->opts;
    fm_fabric_t *fabric = fm_control_fabric(launch->control);
    const fm_run_t *run = fm_state_run(fabric->state, launch->run);
    int64_t start = fm_clock_mono_ns();

    *err = (fm_error_t){0}; /* from here on it holds what went wrong */
    if (opts->on_start) {
        opts->on_start(opts->ctx, fabric, run);
    }
    if (fm_reactor_hook_add(launch->reactor, FM_REACTOR_SEND, end_hook, launch,
                            err) < 0 ||
        start_embedded(launch, err) < 0 ||
        fm_reactor_run(launch->reactor, err) < 0) {
        return FM_LAUNCH_NO_FABRIC;
    }
    if (opts->on_end) {
        opts->on_end(opts->ctx, fabric, run,
                     (double)(fm_clock_mono_ns() - start) / 1e9);
    }
    return outcome_of(launch);
}

/* A job that was cancelled may still be handing back its work when the next
 * one starts: a site lets that one wait (slurm/flowmesh.sbatch). */
static fm_status_t fabric_open(const char *dir, const fm_fabric_options_t *opts,
                               fm_fabric_t **fabric, fm_error_t *err)
{
    const struct timespec pause = {0, 200 * 1000 * 1000};
    double wait_s = site_figure("FLOWMESH_LOCK_WAIT_S");
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

    if (!(launch->files = fm_json_object())) {
        (void)fm_no_memory(err);
        return FM_LAUNCH_REFUSED;
    }
    if (read_workflow(launch, err) < 0 || check_files(launch, err) < 0) {
        return FM_LAUNCH_REFUSED;
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
    return models_store(launch, (*fabric)->cas, err) < 0 ? FM_LAUNCH_REFUSED
                                                         : FM_LAUNCH_DONE;
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
    if (open_links(launch, err) < 0) {
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
        open_links(launch, err) < 0 ||
        start_worker(launch, launch->links[0], launch->world.rank, 1,
                     &launch->workers[0], err) < 0 ||
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
        watch_signals(&launch, err) >= 0 &&
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
    launch_fini(&launch);
    if (opts->unclean_out) {
        *opts->unclean_out = launch.unclean;
    }
    return outcome;
}
