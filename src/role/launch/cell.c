/* SPDX-License-Identifier: Apache-2.0 */
/* The links and workers of this cell (see launch.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "role/launch/internal.h"

#define EMBEDDED_WORKERS_MAX 256u

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
double fm_launch_figure(const char *name)
{
    const char *text = getenv(name);
    char *end = NULL;
    double value = text ? strtod(text, &end) : 0;

    return text && end != text && *end == '\0' && value >= 0 && value < 1e9
               ? value
               : 0;
}

fm_status_t fm_launch_start_worker(struct launch *launch, fm_link_t *link,
                                   const char *cell, uint32_t number,
                                   uint32_t cores, fm_worker_t **worker_out,
                                   fm_error_t *err)
{
    const fm_topo_host_t *host = fm_topo_host(launch->topo);
    struct command_line line = {0};
    char name[96];
    char writer[FM_CAS_WRITER_BYTES_MAX + 1];
    char own_writer[FM_CAS_WRITER_BYTES_MAX + 1];

    (void)snprintf(name, sizeof(name), "%s%sw%u", cell ? cell : "",
                   cell ? "-" : "", number);
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
        .cell = cell,
        .host = host->host_name,
        .fabric_dir = launch->dir,
        .writer = own_writer,
        .executor_argv = line.argv,
        .log_path = log,
        .device_kind = "cpu",
        .device_name = host->cpu_model,
        .memory_bytes = host->memory_bytes / (cores ? cores : 1),
        .cores = 1,
        .price_per_hour = fm_launch_figure("FLOWMESH_PRICE_PER_HOUR"),
        .watts = fm_launch_figure("FLOWMESH_WATTS"),
        .on_end = fm_launch_on_worker_end,
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

/* Where cells may reach us: an interface's name, "auto", or "off". */
static const char *listen_wish(const struct launch *launch)
{
    const char *wish =
        launch->opts->listen ? launch->opts->listen : getenv("FLOWMESH_LISTEN");

    if (!wish || !*wish) {
        wish = getenv("SLURM_JOB_ID") ? "auto" : "off";
    }
    return launch->world.rank > 0 || strcmp(wish, "off") == 0 ? NULL : wish;
}

/* A listening link beside the one of our own cell, as one. */
static fm_status_t listen_too(struct launch *launch, const char *interface,
                              fm_error_t *err)
{
    fm_rendezvous_t *at = &launch->rendezvous;
    fm_link_zmq_keys_t own;
    fm_link_zmq_keys_t cells;
    fm_link_t *listener = NULL;
    char *address = NULL;
    char *wanted = NULL;
    fm_status_t rc = FM_OK;

    if ((rc = fm_rendezvous_keys(launch->dir, true, &cells, err)) < 0 ||
        (rc = fm_link_zmq_keys_make(&own, err)) < 0 ||
        (rc = fm_rendezvous_address(strcmp(interface, "auto") == 0 ? NULL
                                                                   : interface,
                                    &address, err)) < 0) {
        goto out;
    }
    if (!(wanted = fm_asprintf("tcp://%s:*", address))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = fm_link_zmq_listen(wanted, &own, cells.public_key, NULL,
                                 &listener, &at->endpoint, err)) < 0 ||
        (rc = fm_link_mux_create(launch->links[0], listener, &launch->links[0],
                                 err)) < 0) {
        goto out;
    }
    listener = NULL; /* handed over */
    memcpy(at->public_key, own.public_key, sizeof(at->public_key));
out:
    fm_link_close(listener);
    free(address);
    free(wanted);
    if (rc < 0) {
        fm_error_wrap(err, "listen for cells that join (FLOWMESH_LISTEN)");
    }
    return rc;
}

fm_status_t fm_launch_publish(struct launch *launch, uint32_t instance,
                              fm_error_t *err)
{
    fm_rendezvous_t *at = &launch->rendezvous;

    if (!at->endpoint) {
        return FM_OK;
    }
    at->instance = instance;
    at->pid = getpid();
    at->started_ns = fm_clock_wall_ns();
    at->host = fm_strdup(fm_topo_host(launch->topo)->host_name);
    fm_status_t rc = at->host ? fm_rendezvous_publish(launch->dir, at, err)
                              : fm_no_memory(err);
    launch->published = rc >= 0;
    return rc;
}

fm_status_t fm_launch_open_links(struct launch *launch, fm_error_t *err)
{
    bool embedded = launch->world.size == 1;
    uint32_t count = embedded ? 1 + worker_wish(launch) : 1;
    const char *interface = listen_wish(launch);
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
    if (interface) {
        rc = listen_too(launch, interface, err);
    }
    for (uint32_t i = 0; rc >= 0 && i < count; i++) {
        rc = fm_link_attach(launch->links[i], launch->reactor, err);
    }
    return rc;
}

fm_status_t fm_launch_start_embedded(struct launch *launch, fm_error_t *err)
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
        rc = fm_launch_start_worker(launch, launch->links[i + 1], NULL,
                                    (uint32_t)i + 1, (uint32_t)count,
                                    &launch->workers[i], err);
        launch->worker_count += rc >= 0;
    }
    return rc;
}
