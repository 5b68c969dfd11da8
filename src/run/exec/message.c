/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines from an executor to callbacks.  Everything is checked before anything
 * is reported; the first broken rule ends the child.  Unknown members are
 * ignored, so that later versions can say more (X5).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/exec/internal.h"

#define LOCATOR_BYTES_MAX 1024

void fm_exec_printable(const char *from, size_t len, char *text, size_t bytes)
{
    size_t used = 0;

    for (size_t i = 0; i < len; i++) {
        if (used + 4 >= bytes) { /* room for "…" and NUL */
            (void)snprintf(text + used, bytes - used, "%s", "…");
            return;
        }
        unsigned char byte = (unsigned char)from[i];
        if (byte == '\n') {
            text[used++] = '|';
        } else {
            text[used++] = byte >= 0x20 && byte < 0x7f ? (char)byte : '?';
        }
    }
    text[used] = '\0';
}

static fm_status_t broken(fm_error_t *err, const char *what)
{
    return fm_error_set(err, FM_ERR_PROTOCOL, "%s", what);
}

/* One line, no control characters: it travels through logs and messages. */
static bool line_text(const char *text, size_t limit)
{
    if (!text || !*text || strlen(text) > limit) {
        return false;
    }
    for (; *text; text++) {
        if ((unsigned char)*text < 0x20) {
            return false;
        }
    }
    return true;
}

/* --- hello --------------------------------------------------------------- */

static fm_status_t hello_check(const fm_json_t *message, fm_error_t *err)
{
    int64_t protocol = fm_json_get_int(message, "protocol", -1);
    const fm_json_t *types = fm_json_get(message, "task_types");
    const char *staging = fm_json_get_str(message, "staging");

    if (protocol != FM_EXECUTOR_PROTOCOL) {
        return fm_error_set(err, FM_ERR_PROTOCOL,
                            "hello: it speaks protocol %lld, we speak %d",
                            (long long)protocol, FM_EXECUTOR_PROTOCOL);
    }
    if (!line_text(fm_json_get_str(message, "name"), 256) ||
        !line_text(fm_json_get_str(message, "version"), 256)) {
        return broken(err, "hello: name and version must be short texts");
    }
    if (!fm_json_is(types, FM_JSON_ARRAY) || fm_json_len(types) < 1 ||
        fm_json_len(types) > FM_EXECUTOR_LIST_MAX) {
        return broken(err, "hello.task_types: a list of at least one name");
    }
    for (size_t i = 0; i < fm_json_len(types); i++) {
        if (!line_text(fm_json_str(fm_json_at(types, i)), 64)) {
            return broken(err, "hello.task_types: names of at most 64 bytes");
        }
    }
    if (staging && strcmp(staging, "files") != 0 &&
        strcmp(staging, "objects") != 0) {
        return broken(err, "hello.staging: \"files\" or \"objects\"");
    }
    if (fm_json_len(fm_json_get(message, "resident")) > FM_EXECUTOR_LIST_MAX) {
        return broken(err, "hello.resident: too many models");
    }
    return FM_OK;
}

static fm_status_t on_hello(fm_exec_t *exec, const fm_json_t *message,
                            fm_error_t *err)
{
    fm_status_t rc = hello_check(message, err);
    const fm_json_t *types = fm_json_get(message, "task_types");
    const char *numerics = fm_json_get_str(message, "numerics");
    const char *staging = fm_json_get_str(message, "staging");
    const char **names = NULL;

    if (rc < 0) {
        return rc;
    }
    if (!(names = fm_calloc(fm_json_len(types), sizeof(*names)))) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < fm_json_len(types); i++) {
        names[i] = fm_json_str(fm_json_at(types, i));
    }
    int64_t memory = fm_json_get_int(message, "memory_bytes", 0);
    fm_exec_hello_t hello = {
        .name = fm_json_get_str(message, "name"),
        .version = fm_json_get_str(message, "version"),
        .task_types = names,
        .task_type_count = fm_json_len(types),
        .device = fm_json_get(message, "device"),
        .numerics = line_text(numerics, 64) ? numerics : "exact",
        .memory_bytes = memory > 0 ? (uint64_t)memory : 0,
        .resident = fm_json_get(message, "resident"),
        .stage_files = !staging || strcmp(staging, "files") == 0,
    };
    exec->state = STATE_IDLE;
    if (!exec->ending) {
        fm_reactor_timer_stop(exec->reactor, exec->watch);
        exec->watch = 0;
    }
    if (exec->callbacks.on_hello) {
        exec->callbacks.on_hello(exec->callbacks.ctx, &hello);
    }
    free(names);
    return FM_OK;
}

/* --- while a batch runs -------------------------------------------------- */

static fm_status_t on_progress(fm_exec_t *exec, const fm_json_t *message,
                               fm_error_t *err)
{
    double fraction = fm_json_get_real(message, "fraction", -1);

    if (!(fraction >= 0 && fraction <= 1)) {
        return broken(err, "progress.fraction: a number from 0 to 1");
    }
    if (exec->callbacks.on_progress) {
        exec->callbacks.on_progress(exec->callbacks.ctx, exec->lease, fraction,
                                    fm_json_get(message, "metrics"));
    }
    return FM_OK;
}

/* The batch's own record of an item; NULL when it is not in the batch. */
static slot_t *slot_find(fm_exec_t *exec, const fm_json_t *message)
{
    int64_t index = fm_json_get_int(message, "index", -1);
    size_t low = 0, high = exec->slot_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (exec->slots[middle].index == index) {
            return &exec->slots[middle];
        }
        if (exec->slots[middle].index < index) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return NULL;
}

static fm_status_t object_parse(const fm_json_t *json, fm_digest_t *digest_out,
                                const char **locator_out, fm_error_t *err)
{
    const char *digest = fm_json_get_str(json, "digest");
    const char *locator = fm_json_get_str(json, "locator");

    if (!digest || !fm_digest_parse(digest, digest_out)) {
        return broken(err, "digest: \"sha256:\" and 64 hexadecimal digits");
    }
    if (!line_text(locator, LOCATOR_BYTES_MAX)) {
        return broken(err, "locator: one line of text");
    }
    *locator_out = locator;
    return FM_OK;
}

static fm_status_t objects_parse(const fm_json_t *message,
                                 fm_exec_object_t **objects_out,
                                 size_t *count_out, fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(message, "objects");
    size_t count = fm_json_len(list);
    fm_exec_object_t *objects = NULL;

    if (list &&
        (!fm_json_is(list, FM_JSON_ARRAY) || count > FM_EXECUTOR_LIST_MAX)) {
        return broken(err, "objects: a list of at most 4096 entries");
    }
    if (count > 0 && !(objects = fm_calloc(count, sizeof(*objects)))) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        fm_status_t rc = object_parse(fm_json_at(list, i), &objects[i].digest,
                                      &objects[i].locator, err);
        if (rc < 0) {
            fm_error_wrap(err, "objects[%zu]", i);
            free(objects);
            return rc;
        }
    }
    *objects_out = objects;
    *count_out = count;
    return FM_OK;
}

static fm_status_t on_checkpoint(fm_exec_t *exec, const fm_json_t *message,
                                 fm_error_t *err)
{
    const slot_t *slot = slot_find(exec, message);
    fm_exec_object_t *objects = NULL;
    fm_exec_checkpoint_t checkpoint = {
        .lease = exec->lease, .step = fm_json_get_int(message, "step", -1)};
    fm_status_t rc;

    if (!slot || checkpoint.step < 0) {
        return broken(err, "checkpoint: index of an item of this batch and a "
                           "step of 0 or more");
    }
    checkpoint.index = slot->index;
    if ((rc = object_parse(message, &checkpoint.digest, &checkpoint.locator,
                           err)) < 0 ||
        (rc = objects_parse(message, &objects, &checkpoint.object_count, err)) <
            0) {
        fm_error_wrap(err, "checkpoint");
        return rc;
    }
    checkpoint.objects = objects;
    if (exec->callbacks.on_checkpoint) {
        exec->callbacks.on_checkpoint(exec->callbacks.ctx, &checkpoint);
    }
    free(objects);
    return FM_OK;
}

static fm_status_t error_parse(const fm_json_t *message, fm_exec_item_t *item,
                               char *text, size_t bytes, fm_error_t *err)
{
    const fm_json_t *error = fm_json_get(message, "error");
    const char *kind = fm_json_get_str(error, "kind");
    const char *said = fm_json_get_str(error, "text");

    if (!said ||
        (kind && strcmp(kind, "task") != 0 && strcmp(kind, "infra") != 0)) {
        return broken(err, "item.error: {\"text\": …, \"kind\": \"task\" or "
                           "\"infra\"}");
    }
    item->outcome = kind && strcmp(kind, "infra") == 0 ? FM_EXEC_INFRA_ERROR
                                                       : FM_EXEC_TASK_ERROR;
    (void)snprintf(text, bytes, "%s", said);
    item->error = text;
    return FM_OK;
}

/* A path below the work directory: relative, no "..". */
static bool path_inside(const char *path)
{
    if (!path || !line_text(path, 4096) || path[0] == '/') {
        return false;
    }
    for (const char *at = path; *at;) {
        size_t len = strcspn(at, "/");
        if (len == 2 && at[0] == '.' && at[1] == '.') {
            return false;
        }
        at += len + (at[len] == '/');
    }
    return true;
}

static fm_status_t value_parse(const fm_json_t *message, fm_exec_item_t *item,
                               char **output_out, fm_error_t *err)
{
    const fm_json_t *output = fm_json_get(message, "output");
    const char *kind = fm_json_get_str(message, "kind");

    item->path = fm_json_get_str(message, "path");
    if ((output != NULL) + (fm_json_get(message, "digest") != NULL) +
            (fm_json_get(message, "path") != NULL) !=
        1) {
        return broken(err, "item: exactly one of output, digest, path, error");
    }
    if (output) {
        if (!(*output_out = fm_json_canonical(output))) {
            return fm_no_memory(err);
        }
        item->output = *output_out;
        item->output_bytes = strlen(*output_out);
        return FM_OK;
    }
    if (item->path || fm_json_get(message, "path")) {
        return path_inside(item->path)
                   ? FM_OK
                   : broken(err, "item.path: a file below the work directory");
    }
    item->kind = line_text(kind, 32) ? kind : "item";
    return object_parse(message, &item->digest, &item->locator, err);
}

static fm_status_t on_item(fm_exec_t *exec, const fm_json_t *message,
                           fm_error_t *err)
{
    char text[FM_EXECUTOR_ERROR_BYTES];
    slot_t *slot = slot_find(exec, message);
    fm_exec_item_t item = {.lease = exec->lease};
    fm_exec_object_t *objects = NULL;
    char *output = NULL;
    fm_status_t rc;

    if (!slot || slot->answered) {
        return broken(err, slot ? "item: index answered before"
                                : "item: index is not in the batch");
    }
    item.index = slot->index;
    rc = fm_json_get(message, "error")
             ? error_parse(message, &item, text, sizeof(text), err)
             : value_parse(message, &item, &output, err);
    if (rc < 0 ||
        (rc = objects_parse(message, &objects, &item.object_count, err)) < 0) {
        fm_error_wrap(err, "item %u", item.index);
        goto out;
    }
    item.objects = objects;
    slot->answered = true;
    exec->answered_count++;
    if (exec->callbacks.on_item) {
        exec->callbacks.on_item(exec->callbacks.ctx, &item);
    }
out:
    free(output);
    free(objects);
    return rc;
}

static fm_status_t on_done(fm_exec_t *exec, const fm_json_t *message,
                           fm_error_t *err)
{
    fm_exec_done_t done = {
        .lease = exec->lease,
        .missing = (uint32_t)(exec->slot_count - exec->answered_count),
        .seconds = fm_json_get_real(message, "seconds", 0),
        .cpu_seconds = fm_json_get_real(message, "cpu_seconds", 0),
        .resident = fm_json_get(message, "resident"),
        .metrics = fm_json_get(message, "metrics"),
    };

    if (done.missing > 0 && !exec->stopped) {
        return broken(err, "done before every item was answered");
    }
    if (!(done.seconds >= 0) || !(done.cpu_seconds >= 0) ||
        fm_json_len(done.resident) > FM_EXECUTOR_LIST_MAX) {
        return broken(err, "done: seconds, cpu_seconds or resident out of "
                           "range");
    }
    fm_exec_batch_end(exec);
    if (exec->callbacks.on_done) {
        exec->callbacks.on_done(exec->callbacks.ctx, &done);
    }
    return FM_OK;
}

/* --- dispatch ------------------------------------------------------------ */

typedef struct handler {
    const char *type;
    state_t state; /**< the only one in which it may come */
    fm_status_t (*handle)(fm_exec_t *exec, const fm_json_t *message,
                          fm_error_t *err);
} handler_t;

static const handler_t handlers[] = {
    {"hello", STATE_GREETING, on_hello},
    {"progress", STATE_RUNNING, on_progress},
    {"checkpoint", STATE_RUNNING, on_checkpoint},
    {"item", STATE_RUNNING, on_item},
    {"done", STATE_RUNNING, on_done},
};

static const handler_t *handler_find(const char *type)
{
    for (size_t i = 0; type && i < FM_COUNT_OF(handlers); i++) {
        if (strcmp(handlers[i].type, type) == 0) {
            return &handlers[i];
        }
    }
    return NULL;
}

fm_status_t fm_exec_message(fm_exec_t *exec, const char *line, size_t len,
                            fm_error_t *err)
{
    fm_json_t *message = NULL;
    fm_status_t rc = fm_json_parse(line, len, "reply", &message, err);

    if (rc < 0) {
        goto out;
    }
    const handler_t *handler = handler_find(fm_json_get_str(message, "type"));
    if (!handler) {
        rc = broken(err, "no message type that we know");
    } else if (exec->state != handler->state) {
        rc = fm_error_set(err, FM_ERR_PROTOCOL, "%s at the wrong time",
                          handler->type);
    } else if (handler->state == STATE_RUNNING &&
               fm_json_get_int(message, "lease", -1) != exec->lease) {
        rc = fm_error_set(err, FM_ERR_PROTOCOL, "%s: not the running lease",
                          handler->type);
    } else {
        rc = handler->handle(exec, message, err);
    }
out:
    fm_json_drop(message);
    return rc;
}
