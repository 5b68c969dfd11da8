/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests in, operators, replies out.  Replies are written whole and at
 * once: what was said is said, whatever happens next.
 */
#include "run/native/native.h"

#include <errno.h>
#include <flowmesh/executor.h>
#include <flowmesh/version.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "run/ops/ops.h"

#define READ_BYTES 65536

typedef struct native {
    int in_fd, out_fd;
    fm_buf_t input; /* read, not yet a whole line */
    size_t scanned; /* of it, without a newline */
    bool ended;     /* end of input */
    bool stop;      /* of the running lease */
    int64_t lease;  /* running, else 0 */
    fm_cas_t *cas;
    fm_ops_t *ops;
    fm_status_t broken; /* of the supervisor, found while a batch ran */
    fm_error_t *err;
} native_t;

/* --- replies ------------------------------------------------------------- */

/* Takes @p reply; NULL is no memory. */
static fm_status_t reply_send(native_t *native, fm_json_t *reply,
                              fm_error_t *err)
{
    char *line = reply ? fm_json_dump(reply) : NULL;
    size_t len = line ? strlen(line) : 0;
    fm_status_t rc;

    fm_json_drop(reply);
    if (!line) {
        return fm_no_memory(err);
    }
    line[len] = '\n'; /* in place of the NUL */
    rc = fm_file_write_all(native->out_fd, line, len + 1, "reply", err);
    free(line);
    return rc;
}

/* A reply of @p type for the running lease; NULL when memory is out. */
static fm_json_t *reply_make(const native_t *native, const char *type)
{
    fm_json_t *reply = fm_json_object();

    if (!reply || fm_json_set(reply, "type", fm_json_string(type)) < 0 ||
        fm_json_set(reply, "lease", fm_json_int(native->lease)) < 0) {
        return fm_json_drop(reply);
    }
    return reply;
}

static bool digest_set(fm_json_t *reply, const fm_digest_t *digest)
{
    char text[FM_DIGEST_TEXT_BYTES];

    return fm_json_set(reply, "digest",
                       fm_json_string(fm_digest_format(digest, text))) >= 0;
}

/* "digest" and "locator" of a sealed object. */
static fm_status_t object_set(const native_t *native, fm_json_t *reply,
                              const fm_digest_t *digest, fm_error_t *err)
{
    char text[FM_CAS_LOCATOR_TEXT_BYTES];
    fm_cas_locator_t locator;

    if (!fm_cas_locate(native->cas, digest, &locator)) {
        return fm_error_set(err, FM_ERR_INTERNAL, "an object is not sealed");
    }
    if (!digest_set(reply, digest) ||
        fm_json_set(reply, "locator",
                    fm_json_string(fm_cas_locator_format(&locator, text))) <
            0) {
        return fm_no_memory(err);
    }
    return FM_OK;
}

/* "objects"; those beyond the bound of a line are found by their segment. */
static fm_status_t objects_set(const native_t *native, fm_json_t *reply,
                               const fm_digest_t *objects, size_t count,
                               fm_error_t *err)
{
    fm_json_t *list = fm_json_array();
    fm_status_t rc = list ? FM_OK : fm_no_memory(err);

    count = count < 2048 ? count : 2048;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        fm_json_t *object = fm_json_object();
        rc = object ? object_set(native, object, &objects[i], err)
                    : fm_no_memory(err);
        if (rc < 0) {
            fm_json_drop(object);
        } else if (fm_json_append(list, object) < 0) {
            rc = fm_no_memory(err);
        }
    }
    if (rc >= 0 && fm_json_set(reply, "objects", fm_json_keep(list)) < 0) {
        rc = fm_no_memory(err);
    }
    fm_json_drop(list);
    return rc;
}

static fm_json_t *error_make(const fm_ops_item_t *item)
{
    fm_json_t *error = fm_json_object();
    fm_json_t *text = fm_json_string(item->error);

    if (!text) { /* foreign words that are not UTF-8 */
        text = fm_json_string(fm_status_name(item->status));
    }
    if (!error || fm_json_set(error, "text", fm_json_keep(text)) < 0 ||
        fm_json_set(error, "kind",
                    fm_json_string(item->infra ? "infra" : "task")) < 0) {
        error = fm_json_drop(error);
    }
    fm_json_drop(text);
    return error;
}

static fm_status_t value_set(const native_t *native, fm_json_t *reply,
                             const fm_ops_item_t *item, fm_error_t *err)
{
    fm_json_t *value = NULL;
    fm_status_t rc;

    if (!item->output) {
        rc = object_set(native, reply, &item->digest, err);
        if (rc >= 0 && fm_json_set(reply, "kind", fm_json_string("item")) < 0) {
            rc = fm_no_memory(err);
        }
        return rc;
    }
    if ((rc = fm_json_parse(item->output, strlen(item->output), "output",
                            &value, err)) >= 0 &&
        fm_json_set(reply, "output", value) < 0) {
        rc = fm_no_memory(err);
    }
    return rc;
}

static fm_status_t on_item(void *ctx, const fm_ops_item_t *item,
                           fm_error_t *err)
{
    native_t *native = ctx;
    fm_json_t *reply = reply_make(native, "item");
    fm_status_t rc = FM_OK;

    if (!reply || fm_json_set(reply, "index", fm_json_int(item->index)) < 0) {
        fm_json_drop(reply);
        return fm_no_memory(err);
    }
    if (item->status < 0) {
        rc = fm_json_set(reply, "error", error_make(item)) < 0
                 ? fm_no_memory(err)
                 : FM_OK;
    } else if ((rc = value_set(native, reply, item, err)) >= 0 &&
               item->object_count > 0) {
        rc = objects_set(native, reply, item->objects, item->object_count, err);
    }
    if (rc < 0) {
        fm_json_drop(reply);
        return rc;
    }
    return reply_send(native, reply, err);
}

static fm_status_t
on_checkpoint(void *ctx, const fm_ops_checkpoint_t *checkpoint, fm_error_t *err)
{
    native_t *native = ctx;
    fm_json_t *reply = reply_make(native, "checkpoint");
    fm_status_t rc;

    if (!reply ||
        fm_json_set(reply, "index", fm_json_int(checkpoint->index)) < 0 ||
        fm_json_set(reply, "step", fm_json_int(checkpoint->step)) < 0) {
        fm_json_drop(reply);
        return fm_no_memory(err);
    }
    if ((rc = object_set(native, reply, &checkpoint->objects[0], err)) < 0 ||
        (rc = objects_set(native, reply, checkpoint->objects + 1,
                          checkpoint->object_count - 1, err)) < 0) {
        fm_json_drop(reply);
        return rc;
    }
    return reply_send(native, reply, err);
}

static fm_status_t on_progress(void *ctx, double fraction,
                               const fm_json_t *metrics, fm_error_t *err)
{
    native_t *native = ctx;
    fm_json_t *reply = reply_make(native, "progress");

    if (!reply || fm_json_set(reply, "fraction", fm_json_real(fraction)) < 0 ||
        (metrics && fm_json_set(reply, "metrics", fm_json_keep(metrics)) < 0)) {
        fm_json_drop(reply);
        return fm_no_memory(err);
    }
    return reply_send(native, reply, err);
}

/* --- requests ------------------------------------------------------------ */

/* One read; false when nothing came within @p wait_ms (−1: for ever). */
static bool input_read(native_t *native, int wait_ms)
{
    struct pollfd fd = {native->in_fd, POLLIN, 0};
    uint8_t *room;

    if (native->ended || poll(&fd, 1, wait_ms) <= 0) {
        return false;
    }
    if (!(room = fm_buf_reserve(&native->input, READ_BYTES))) {
        native->ended = true;
        return false;
    }
    ssize_t n = read(native->in_fd, room, READ_BYTES);
    if (n > 0) {
        native->input.len += (size_t)n;
        return true;
    }
    native->ended = n == 0 || errno != EINTR;
    return false;
}

/* The next whole line, without its newline, valid until line_drop(). */
static bool line_next(native_t *native, size_t *len_out)
{
    const uint8_t *data = native->input.data;
    const uint8_t *end = native->scanned < native->input.len
                             ? memchr(data + native->scanned, '\n',
                                      native->input.len - native->scanned)
                             : NULL;

    native->scanned = native->input.len;
    if (!end) {
        return false;
    }
    *len_out = (size_t)(end - data);
    return true;
}

static void line_drop(native_t *native, size_t len)
{
    fm_buf_consume(&native->input, len + 1);
    native->scanned = 0;
}

/* Called by operators: has the running lease been asked to stop? */
static bool stopping(void *ctx)
{
    native_t *native = ctx;
    fm_json_t *request = NULL;
    size_t len = 0;

    (void)input_read(native, 0);
    while (line_next(native, &len)) {
        fm_error_t err = {0};
        const char *type = NULL;
        if (fm_json_parse((const char *)native->input.data, len, "request",
                          &request, &err) >= 0) {
            type = fm_json_get_str(request, "type");
        }
        if (type && strcmp(type, "stop") == 0) {
            native->stop |=
                fm_json_get_int(request, "lease", -1) == native->lease;
        } else {
            native->broken = fm_error_set(native->err, FM_ERR_PROTOCOL,
                                          "only stop may come while a batch "
                                          "runs");
        }
        request = fm_json_drop(request);
        line_drop(native, len);
    }
    return native->stop || native->ended || native->broken < 0 ||
           native->input.len > FM_EXECUTOR_LINE_BYTES;
}

static fm_status_t done_send(native_t *native, int64_t start_ns, int64_t cpu_ns,
                             fm_error_t *err)
{
    double seconds = (double)(fm_clock_mono_ns() - start_ns) / 1e9;
    double cpu = (double)(fm_clock_cpu_ns() - cpu_ns) / 1e9;
    fm_json_t *reply = reply_make(native, "done");

    if (!reply || fm_json_set(reply, "seconds", fm_json_real(seconds)) < 0 ||
        fm_json_set(reply, "cpu_seconds", fm_json_real(cpu)) < 0 ||
        fm_json_set(reply, "resident", fm_ops_resident(native->ops)) < 0) {
        fm_json_drop(reply);
        return fm_no_memory(err);
    }
    return reply_send(native, reply, err);
}

static fm_status_t batch_run(native_t *native, const fm_json_t *request,
                             fm_error_t *err)
{
    const fm_ops_sink_t sink = {on_item, on_checkpoint, on_progress, stopping,
                                native};
    const fm_ops_batch_t batch = {
        .task_type = fm_json_get_str(request, "task_type"),
        .params = fm_json_get(request, "params"),
        .hints = fm_json_get(request, "hints"),
        .items = fm_json_get(request, "items"),
        .checkpoint = fm_json_get_str(request, "checkpoint")};
    int64_t start_ns = fm_clock_mono_ns(), cpu_ns = fm_clock_cpu_ns();
    fm_status_t rc;

    native->lease = fm_json_get_int(request, "lease", -1);
    if (native->lease < 1 || native->lease > FM_EXECUTOR_LEASE_MAX) {
        return fm_error_set(err, FM_ERR_PROTOCOL, "run.lease: out of range");
    }
    native->stop = false;
    rc = fm_ops_run(native->ops, &batch, &sink, err);
    if (rc == FM_ERR_CANCELLED && native->stop) {
        rc = FM_OK; /* items that did not run are not answered: X14 */
    }
    if (rc >= 0) {
        rc = done_send(native, start_ns, cpu_ns, err);
    }
    native->lease = 0;
    return rc;
}

static fm_status_t request_handle(native_t *native, const char *line,
                                  size_t len, fm_error_t *err)
{
    fm_json_t *request = NULL;
    fm_status_t rc = fm_json_parse(line, len, "request", &request, err);

    if (rc < 0) {
        return fm_error_set(err, FM_ERR_PROTOCOL, "request: not JSON");
    }
    const char *type = fm_json_get_str(request, "type");
    if (type && strcmp(type, "run") == 0) {
        rc = batch_run(native, request, err);
    } else if (!type || strcmp(type, "stop") != 0) { /* a late stop is fine */
        rc =
            fm_error_set(err, FM_ERR_PROTOCOL, "request: run or stop expected");
    }
    fm_json_drop(request);
    return rc;
}

static fm_status_t requests_serve(native_t *native, fm_error_t *err)
{
    size_t len = 0;

    for (;;) {
        while (line_next(native, &len)) {
            /* The batch itself reads on behind this line. */
            char *line = fm_strndup((const char *)native->input.data, len);
            if (!line) {
                return fm_no_memory(err);
            }
            line_drop(native, len);
            fm_status_t rc = request_handle(native, line, len, err);
            free(line);
            if (native->ended) {
                return FM_OK;
            }
            if (rc < 0 || (rc = native->broken) < 0) {
                return rc;
            }
        }
        if (native->input.len > FM_EXECUTOR_LINE_BYTES) {
            return fm_error_set(err, FM_ERR_PROTOCOL,
                                "request: a line of more than %u bytes",
                                FM_EXECUTOR_LINE_BYTES);
        }
        if (!input_read(native, -1) && native->ended) {
            return FM_OK;
        }
    }
}

/* --- hello --------------------------------------------------------------- */

static fm_json_t *task_types(void)
{
    fm_json_t *list = fm_json_array();
    size_t count = 0;
    const fm_ops_type_t *types = fm_ops_types(&count);

    for (size_t i = 0; list && i < count; i++) {
        if (fm_json_append(list, fm_json_string(types[i].name)) < 0) {
            return fm_json_drop(list);
        }
    }
    return list;
}

static fm_json_t *device_make(const char *kind, int64_t memory)
{
    fm_json_t *device = fm_json_object();
    long cores = sysconf(_SC_NPROCESSORS_ONLN);

    if (!device || fm_json_set(device, "kind", fm_json_string(kind)) < 0 ||
        fm_json_set(device, "name", fm_json_string(kind)) < 0 ||
        fm_json_set(device, "memory_bytes", fm_json_int(memory)) < 0 ||
        fm_json_set(device, "cores", fm_json_int(cores > 0 ? cores : 1)) < 0) {
        return fm_json_drop(device);
    }
    return device;
}

static fm_status_t hello_send(native_t *native, const char *device,
                              fm_error_t *err)
{
    int64_t memory = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE);
    fm_json_t *hello = fm_json_object();

    if (!hello || fm_json_set(hello, "type", fm_json_string("hello")) < 0 ||
        fm_json_set(hello, "protocol", fm_json_int(FM_EXECUTOR_PROTOCOL)) < 0 ||
        fm_json_set(hello, "name", fm_json_string("flowmesh-engine")) < 0 ||
        fm_json_set(hello, "version", fm_json_string(FM_VERSION)) < 0 ||
        fm_json_set(hello, "task_types", task_types()) < 0 ||
        fm_json_set(hello, "device", device_make(device, memory)) < 0 ||
        fm_json_set(hello, "numerics",
                    fm_json_string(fm_ops_numerics(native->ops))) < 0 ||
        fm_json_set(hello, "memory_bytes", fm_json_int(memory)) < 0 ||
        fm_json_set(hello, "resident", fm_ops_resident(native->ops)) < 0 ||
        fm_json_set(hello, "staging", fm_json_string("objects")) < 0) {
        fm_json_drop(hello);
        return fm_no_memory(err);
    }
    return reply_send(native, hello, err);
}

fm_status_t fm_native_serve(const fm_native_options_t *options, int in_fd,
                            int out_fd, fm_error_t *err)
{
    const char *device = options->device ? options->device : "cpu";
    native_t native = {.in_fd = in_fd, .out_fd = out_fd, .err = err};
    char *dir = fm_asprintf("%s/cas", options->fabric);
    fm_cas_options_t cas = {.writer = options->writer};
    fm_ops_options_t ops = {.device = device,
                            .work_root = options->work_root,
                            .resident_bytes = (size_t)options->resident_bytes};
    fm_status_t rc;

    if (!dir) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = fm_cas_open(dir, &cas, &native.cas, err)) < 0) {
        goto out;
    }
    ops.cas = native.cas;
    if ((rc = fm_ops_create(&ops, &native.ops, err)) >= 0 &&
        (rc = hello_send(&native, device, err)) >= 0) {
        rc = requests_serve(&native, err);
    }
out:
    fm_ops_destroy(native.ops);
    fm_cas_close(native.cas);
    fm_buf_fini(&native.input);
    free(dir);
    return rc;
}
