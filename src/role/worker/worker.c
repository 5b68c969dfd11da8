/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life cycle of a worker: keep an executor alive, greet the control plane,
 * beat, obey.  The executor's death ends its batch and is answered by a new
 * executor after a growing pause; the control plane sees a busy worker
 * meanwhile, never a dead one.
 */
#include "role/worker/worker.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "role/worker/internal.h"

#define RESTART_MIN_NS (100 * FM_NS_PER_MS)
#define RESTART_MAX_NS (10 * FM_NS_PER_S)
/* Exits in a row without one finished batch: the installation is broken. */
#define FAILURES_MAX 8u
/* Encoded messages held while the link is full: more than a worker can
 * produce between two turns of a live control plane. */
#define OUTBOX_MAX 4096u
/* Of draining: what the executor gets to save a checkpoint; then SIGTERM, and
 * what is left until FM_WORKER_DRAIN_NS. */
#define DRAIN_GRACE_NS (10 * FM_NS_PER_S)
/* A control plane that says nothing for this long is dead: where the MPI lets
 * the other ranks of a dead one live, nobody else would tell us.  Longer than
 * its own patience, so that a pause of it costs nobody. */
#define CONTROL_SILENCE_NS (20 * FM_NS_PER_S)

static fm_status_t executor_start(fm_worker_t *worker, fm_error_t *err);

void fm_worker_end(fm_worker_t *worker, fm_status_t status, const char *text)
{
    if (worker->ending) {
        return;
    }
    worker->ending = true;
    fm_msg_t bye = {.type = FM_MSG_BYE, .bye = {.reason = text}};
    fm_worker_send(worker, &bye);
    if (worker->on_end) {
        worker->on_end(worker->ctx, status, text);
    }
}

static void drain_over(void *ctx)
{
    fm_worker_t *worker = ctx;

    worker->drain_timer = 0;
    fm_worker_end(worker, FM_OK, "did not stop in time");
}

void fm_worker_drain(fm_worker_t *worker, const char *reason)
{
    if (worker->draining || worker->ending) {
        return;
    }
    worker->draining = true;
    worker->drain_reason = fm_strdup(reason);
    fm_msg_t msg = {.type = FM_MSG_DRAIN,
                    .drain = {.reason = reason, .grace_ns = DRAIN_GRACE_NS}};
    fm_worker_send(worker, &msg);
    if (worker->batch.lease == 0 || !worker->drain_reason ||
        fm_reactor_timer_start(worker->reactor, FM_WORKER_DRAIN_NS, 0,
                               drain_over, worker, &worker->drain_timer,
                               NULL) < 0) {
        fm_worker_end(worker, FM_OK, reason);
    } else if (worker->batch.running) {
        fm_exec_stop(worker->exec, DRAIN_GRACE_NS);
    } else {
        worker->batch.cancelled = true;
    }
}

/* --- sending -------------------------------------------------------------- */

static size_t outbox_flush(void *ctx)
{
    fm_worker_t *worker = ctx;
    size_t sent = 0;

    while (worker->outbox_head < worker->outbox_count) {
        fm_buf_t *buf = &worker->outbox[worker->outbox_head];
        fm_status_t rc =
            fm_link_send(worker->link, worker->peer, buf->data, buf->len, NULL);
        if (rc == FM_ERR_FULL) {
            return sent;
        }
        fm_buf_fini(buf);
        worker->outbox_head++;
        sent++;
    }
    worker->outbox_head = worker->outbox_count = 0;
    return sent;
}

void fm_worker_send(fm_worker_t *worker, const fm_msg_t *msg)
{
    fm_error_t err = {0};
    fm_buf_t buf = {0};

    if (fm_wire_encode(msg, &buf, &err) < 0) {
        /* a lease whose result cannot be told would never end: leave, and it
         * runs elsewhere */
        fm_buf_fini(&buf);
        fm_error_wrap(&err, "cannot send %s", fm_msg_type_name(msg->type));
        fm_worker_end(worker, err.status, err.text);
        return;
    }
    if (worker->outbox_count == worker->outbox_head) {
        fm_status_t rc =
            fm_link_send(worker->link, worker->peer, buf.data, buf.len, &err);
        if (rc != FM_ERR_FULL) {
            if (rc < 0) {
                fm_log(FM_LOG_WARN, "send %s: %s", fm_msg_type_name(msg->type),
                       err.text);
            }
            fm_buf_fini(&buf);
            return;
        }
    }
    if (worker->outbox_count - worker->outbox_head >= OUTBOX_MAX ||
        fm_grow(&worker->outbox, &worker->outbox_capacity, worker->outbox_count,
                sizeof(*worker->outbox), &err) < 0) {
        fm_buf_fini(&buf);
        fm_worker_end(worker, FM_ERR_FULL, "the control plane takes nothing");
        return;
    }
    worker->outbox[worker->outbox_count++] = buf;
}

static void beat(void *ctx)
{
    fm_worker_beat(ctx);
}

void fm_worker_beat(fm_worker_t *worker)
{
    fm_msg_busy_t busy = {worker->batch.lease, worker->batch.fraction};
    fm_msg_t msg = {
        .type = FM_MSG_HEARTBEAT,
        .heartbeat = {.seq = ++worker->heartbeat_seq,
                      .busy = &busy,
                      .busy_count = worker->batch.lease != 0,
                      .models = (const char *const *)worker->resident,
                      .model_count = worker->resident_count,
                      .memory_bytes = worker->memory_bytes}};
    int64_t now = fm_reactor_now_ns(worker->reactor);
    int64_t late = now - worker->beat_ns - worker->heartbeat_ns;

    worker->heard_ns += late > 0 ? late : 0; /* we did not listen */
    worker->beat_ns = now;
    if (now - worker->heard_ns > CONTROL_SILENCE_NS) {
        worker->control_left = true; /* as good as */
        fm_worker_end(worker, FM_ERR_CLOSED, "the control plane is silent");
        return;
    }
    fm_worker_send(worker, &msg);
}

static void send_hello(fm_worker_t *worker, const fm_exec_hello_t *hello)
{
    fm_msg_device_t device = {.kind = worker->device_kind,
                              .name = worker->device_name,
                              .memory_bytes = worker->memory_bytes,
                              .cores = worker->cores};
    fm_msg_t msg = {.type = FM_MSG_HELLO,
                    .hello = {.protocol = FM_WIRE_VERSION,
                              .cell = worker->cell,
                              .name = worker->name,
                              .host = worker->host,
                              .pid = (uint32_t)getpid(),
                              .devices = &device,
                              .device_count = 1,
                              .task_types = hello->task_types,
                              .task_type_count = hello->task_type_count,
                              .price_per_hour = worker->price_per_hour,
                              .watts = worker->watts}};

    fm_worker_send(worker, &msg);
    worker->greeted = true;
}

/* --- the executor --------------------------------------------------------- */

static void resident_clear(fm_worker_t *worker)
{
    for (size_t i = 0; i < worker->resident_count; i++) {
        free(worker->resident[i]);
    }
    free(worker->resident);
    worker->resident = NULL;
    worker->resident_count = 0;
}

static bool resident_same(const fm_worker_t *worker, const fm_json_t *resident)
{
    if (fm_json_len(resident) != worker->resident_count) {
        return false;
    }
    for (size_t i = 0; i < worker->resident_count; i++) {
        const char *text = fm_json_get_str(fm_json_at(resident, i), "model");
        if (!text || strcmp(text, worker->resident[i]) != 0) {
            return false;
        }
    }
    return true;
}

bool fm_worker_set_resident(fm_worker_t *worker, const fm_json_t *resident)
{
    size_t count = fm_json_len(resident);

    if (!resident || resident_same(worker, resident)) {
        return false;
    }
    resident_clear(worker);
    if (!(worker->resident = fm_calloc(count, sizeof(char *)))) {
        return true; /* a hint for placement: losing it costs speed only */
    }
    for (size_t i = 0; i < count; i++) {
        const char *text = fm_json_get_str(fm_json_at(resident, i), "model");
        char *copy = text ? fm_strdup(text) : NULL;
        if (copy) {
            worker->resident[worker->resident_count++] = copy;
        }
    }
    return true;
}

static void on_exec_hello(void *ctx, const fm_exec_hello_t *hello)
{
    fm_worker_t *worker = ctx;

    (void)fm_worker_set_resident(worker, hello->resident);
    worker->stage_files = hello->stage_files;
    if (!worker->greeted) {
        send_hello(worker, hello);
    }
    fm_worker_batch_start(worker);
}

static void on_exec_progress(void *ctx, int64_t lease, double fraction,
                             const fm_json_t *metrics)
{
    fm_worker_t *worker = ctx;
    char *text = fm_json_canonical(metrics);

    if ((uint64_t)lease == worker->batch.lease && text) {
        worker->batch.fraction = fraction;
        fm_msg_t msg = {
            .type = FM_MSG_PROGRESS,
            .progress = {(uint64_t)lease, fraction, metrics ? text : "{}"}};
        fm_worker_send(worker, &msg);
    }
    free(text);
}

static void on_exec_checkpoint(void *ctx,
                               const fm_exec_checkpoint_t *checkpoint)
{
    fm_msg_t msg = {.type = FM_MSG_CHECKPOINT,
                    .checkpoint = {.lease = (uint64_t)checkpoint->lease,
                                   .index = checkpoint->index,
                                   .digest = checkpoint->digest,
                                   .locator = checkpoint->locator,
                                   .step = (uint64_t)checkpoint->step}};

    fm_worker_send(ctx, &msg);
}

static void on_exec_item(void *ctx, const fm_exec_item_t *item)
{
    fm_worker_batch_on_item(ctx, item);
}

static void on_exec_done(void *ctx, const fm_exec_done_t *done)
{
    fm_worker_batch_on_done(ctx, done);
}

static void restart(void *ctx)
{
    fm_worker_t *worker = ctx;
    fm_error_t err = {0};

    worker->restart_timer = 0;
    if (executor_start(worker, &err) < 0) {
        fm_worker_end(worker, err.status, err.text);
    }
}

/*
 * Who is to blame for a dead executor: a deadline or a fault signal points at
 * the work (a retry elsewhere counts as an attempt); anything else, SIGKILL
 * above all, at the machine.
 */
static fm_item_status_t blame(const fm_exec_exit_t *exit_info)
{
    if (exit_info->reason == FM_EXEC_HUNG) {
        return FM_ITEM_TASK_ERROR;
    }
    if (exit_info->reason == FM_EXEC_SIGNALLED &&
        (exit_info->code == SIGSEGV || exit_info->code == SIGBUS ||
         exit_info->code == SIGFPE || exit_info->code == SIGILL ||
         exit_info->code == SIGABRT)) {
        return FM_ITEM_TASK_ERROR;
    }
    return exit_info->reason == FM_EXEC_VIOLATION ? FM_ITEM_TASK_ERROR
                                                  : FM_ITEM_INFRA_ERROR;
}

static void on_exec_exit(void *ctx, const fm_exec_exit_t *exit_info)
{
    fm_worker_t *worker = ctx;
    fm_error_t err = {0};

    worker->exec = fm_exec_close(worker->exec);
    resident_clear(worker);
    if (worker->ending) {
        return;
    }
    fm_log(FM_LOG_WARN, "executor ended: %s", exit_info->text);
    fm_worker_batch_abort(worker, blame(exit_info), exit_info->text);
    if (worker->draining) {
        return; /* it has ended with its batch, or ends when that is stored */
    }
    if (++worker->failures >= FAILURES_MAX) {
        fm_worker_end(worker, FM_ERR_CLOSED, exit_info->text);
        return;
    }
    int64_t pause = RESTART_MIN_NS << (worker->failures - 1);
    if (fm_reactor_timer_start(
            worker->reactor, pause < RESTART_MAX_NS ? pause : RESTART_MAX_NS, 0,
            restart, worker, &worker->restart_timer, &err) < 0) {
        fm_worker_end(worker, err.status, err.text);
    }
}

static fm_status_t executor_start(fm_worker_t *worker, fm_error_t *err)
{
    fm_exec_options_t options = {
        .argv = (const char *const *)worker->executor_argv,
        .workdir = fm_worker_store_dir(worker),
        .device = worker->device_kind,
        .log_path = worker->log_path,
    };
    fm_exec_callbacks_t callbacks = {.on_hello = on_exec_hello,
                                     .on_progress = on_exec_progress,
                                     .on_checkpoint = on_exec_checkpoint,
                                     .on_item = on_exec_item,
                                     .on_done = on_exec_done,
                                     .on_exit = on_exec_exit,
                                     .ctx = worker};

    return fm_exec_open(worker->reactor, &options, &callbacks, &worker->exec,
                        err);
}

/* --- messages ------------------------------------------------------------- */

/*
 * WELCOME: the control plane knows this worker.
 *   in   { heartbeat_ms }     out  HEARTBEAT, now and periodically
 */
static void on_welcome(fm_worker_t *worker, fm_msg_t *msg)
{
    fm_error_t err = {0};

    worker->heartbeat_ns = (int64_t)msg->welcome.heartbeat_ms * FM_NS_PER_MS;
    worker->beat_ns = worker->heard_ns;
    fm_reactor_timer_stop(worker->reactor, worker->heartbeat_timer);
    if (fm_reactor_timer_start(worker->reactor, 0, worker->heartbeat_ns, beat,
                               worker, &worker->heartbeat_timer, &err) < 0) {
        fm_worker_end(worker, err.status, err.text);
    }
}

/*
 * LEASE: run a batch.  At most one waits while another runs; more is given
 * back with none of its items run, as is everything while draining.
 *   in   { lease, instance, task_type, params, items, … }
 *   out  RESULT …, the last with final = true
 */
static void on_lease(fm_worker_t *worker, fm_msg_t *msg)
{
    if (worker->has_next || worker->draining) {
        fm_worker_batch_return(worker, &msg->lease);
        return;
    }
    worker->next = *msg;
    worker->has_next = true;
    memset(msg, 0, sizeof(*msg)); /* taken over */
    fm_worker_batch_start(worker);
}

/* CANCEL: nobody wants this lease any more.  in { lease }  out RESULT final */
static void on_cancel(fm_worker_t *worker, fm_msg_t *msg)
{
    fm_worker_batch_cancel(worker, msg->cancel.lease);
}

/* SHUTDOWN: stop what runs and end.
 *   out  DRAIN, CHECKPOINT and RESULT of what is done, BYE */
static void on_shutdown(fm_worker_t *worker, fm_msg_t *msg)
{
    fm_worker_drain(worker, msg->shutdown.reason);
}

/* ERROR: the control plane refused something of ours. */
static void on_error(fm_worker_t *worker, fm_msg_t *msg)
{
    (void)worker;
    fm_log(FM_LOG_WARN, "control plane: %s", msg->error.text);
}

static const struct handler {
    fm_msg_type_t type;
    void (*handle)(fm_worker_t *worker, fm_msg_t *msg);
} handlers[] = {
    {FM_MSG_WELCOME, on_welcome}, {FM_MSG_LEASE, on_lease},
    {FM_MSG_CANCEL, on_cancel},   {FM_MSG_SHUTDOWN, on_shutdown},
    {FM_MSG_ERROR, on_error},
};

static void on_message(void *ctx, uint32_t peer, const uint8_t *bytes,
                       size_t len)
{
    fm_worker_t *worker = ctx;
    fm_msg_t msg = {0};
    fm_error_t err = {0};

    if (peer != worker->peer || worker->ending) {
        return;
    }
    if (fm_wire_decode(bytes, len, &msg, &err) < 0) {
        fm_log(FM_LOG_ERROR, "from the control plane: %s", err.text);
        return;
    }
    worker->heard_ns = fm_reactor_now_ns(worker->reactor);
    for (size_t i = 0; i < FM_COUNT_OF(handlers); i++) {
        if (handlers[i].type == msg.type) {
            handlers[i].handle(worker, &msg);
            break;
        }
    }
    fm_msg_fini(&msg);
}

static void on_peer(void *ctx, uint32_t peer, bool up, const char *reason)
{
    fm_worker_t *worker = ctx;

    if (peer == worker->peer && !up) {
        worker->control_left = true;
        /* one that closes without a WELCOME has refused what it was to run,
         * and says so itself */
        fm_worker_end(worker, worker->heartbeat_timer ? FM_ERR_CLOSED : FM_OK,
                      reason);
    }
}

bool fm_worker_control_left(const fm_worker_t *worker)
{
    return worker->control_left;
}

/* --- life ----------------------------------------------------------------- */

static char *copy_or(const char *text, const char *fallback)
{
    return fm_strdup(text ? text : fallback);
}

static char **argv_copy(const char *const *argv)
{
    size_t count = 0;

    while (argv[count]) {
        count++;
    }
    char **copy = fm_calloc(count + 1, sizeof(*copy));
    for (size_t i = 0; copy && i < count; i++) {
        if (!(copy[i] = fm_strdup(argv[i]))) {
            while (i > 0) {
                free(copy[--i]);
            }
            free(copy);
            return NULL;
        }
    }
    return copy;
}

static fm_status_t copy_options(fm_worker_t *worker,
                                const fm_worker_options_t *opts,
                                fm_error_t *err)
{
    worker->peer = opts->control_peer;
    worker->memory_bytes = opts->memory_bytes;
    worker->cores = opts->cores ? opts->cores : 1;
    worker->price_per_hour = opts->price_per_hour;
    worker->watts = opts->watts;
    worker->on_end = opts->on_end;
    worker->ctx = opts->ctx;
    worker->name = fm_strdup(opts->name);
    worker->cell = copy_or(opts->cell, "local");
    worker->host = copy_or(opts->host, "localhost");
    worker->fabric_dir = fm_strdup(opts->fabric_dir);
    worker->device_kind = copy_or(opts->device_kind, "cpu");
    worker->device_name = copy_or(opts->device_name, "cpu");
    worker->executor_argv = argv_copy(opts->executor_argv);
    bool ok = worker->name && worker->cell && worker->host &&
              worker->fabric_dir && worker->device_kind &&
              worker->device_name && worker->executor_argv;
    if (ok && opts->log_path) {
        ok = (worker->log_path = fm_strdup(opts->log_path)) != NULL;
    }
    return ok ? FM_OK : fm_no_memory(err);
}

fm_status_t fm_worker_open(fm_reactor_t *reactor, fm_link_t *link,
                           const fm_worker_options_t *opts,
                           fm_worker_t **worker_out, fm_error_t *err)
{
    fm_worker_t *worker = fm_calloc(1, sizeof(*worker));
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!worker) {
        return fm_no_memory(err);
    }
    worker->reactor = reactor;
    worker->link = link;
    if ((rc = copy_options(worker, opts, err)) < 0 ||
        (rc = fm_worker_store_open(worker, opts->writer, err)) < 0 ||
        (rc = fm_reactor_hook_add(reactor, FM_REACTOR_SEND, outbox_flush,
                                  worker, err)) < 0 ||
        (rc = executor_start(worker, err)) < 0) {
        fm_error_wrap(err, "start worker %s", opts->name);
        goto out;
    }
    fm_link_handler_t handler = {on_message, on_peer, worker};
    fm_link_handle(link, &handler);
    *worker_out = worker;
    worker = NULL;
out:
    fm_worker_close(worker);
    return rc;
}

void *fm_worker_close(fm_worker_t *worker)
{
    if (!worker) {
        return NULL;
    }
    worker->ending = true;
    fm_exec_close(worker->exec);
    fm_reactor_timer_stop(worker->reactor, worker->restart_timer);
    fm_reactor_timer_stop(worker->reactor, worker->heartbeat_timer);
    fm_reactor_timer_stop(worker->reactor, worker->drain_timer);
    fm_worker_store_close(worker);
    fm_reactor_hook_remove(worker->reactor, FM_REACTOR_SEND, outbox_flush,
                           worker);
    if (worker->has_next) {
        fm_msg_fini(&worker->next);
    }
    fm_worker_batch_fini(&worker->batch);
    resident_clear(worker);
    for (size_t i = worker->outbox_head; i < worker->outbox_count; i++) {
        fm_buf_fini(&worker->outbox[i]);
    }
    free(worker->outbox);
    for (size_t i = 0; worker->executor_argv && worker->executor_argv[i]; i++) {
        free(worker->executor_argv[i]);
    }
    free(worker->executor_argv);
    free(worker->name);
    free(worker->cell);
    free(worker->host);
    free(worker->fabric_dir);
    free(worker->log_path);
    free(worker->drain_reason);
    free(worker->device_kind);
    free(worker->device_name);
    free(worker);
    return NULL;
}
