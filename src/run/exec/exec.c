/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of an executor: pipes on the reactor, deadlines with growing
 * force, and one end.  A child that ended is first seen by waitid() without
 * reaping: while it is a zombie its process group number cannot be taken by
 * anybody else, so killing the group's leftovers is safe.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/exec/internal.h"

#define HELLO_TIMEOUT_NS (30 * FM_NS_PER_S)
#define GRACE_NS (5 * FM_NS_PER_S)
/* A child whose grandchild holds its pipes gives no end of file: ask. */
#define REAP_IDLE_NS (250 * FM_NS_PER_MS)
#define REAP_FAST_NS (2 * FM_NS_PER_MS)
/* From the end of stdout to the end of the process: exit handlers run. */
#define EOF_GRACE_NS FM_NS_PER_S
/* Read per event, so that one child cannot hold the turn. */
#define READ_BYTES 65536
#define READS_MAX 16

static void on_reap(void *ctx);
static void on_watch(void *ctx);

static void destroy(fm_exec_t *exec)
{
    fm_exec_words_close(&exec->words);
    fm_buf_fini(&exec->requests);
    fm_buf_fini(&exec->replies);
    free(exec->slots);
    free(exec);
}

/* Every entry from the reactor is between enter() and leave(). */
static void enter(fm_exec_t *exec)
{
    exec->depth++;
}

static void leave(fm_exec_t *exec)
{
    if (--exec->depth == 0 && exec->closed) {
        destroy(exec);
    }
}

static bool over(const fm_exec_t *exec)
{
    return exec->closed || exec->state == STATE_DEAD;
}

static void fd_end(fm_exec_t *exec, int *fd)
{
    if (*fd >= 0) {
        fm_reactor_fd_remove(exec->reactor, *fd);
        (void)close(*fd);
        *fd = -1;
    }
}

static void timer_end(fm_exec_t *exec, uint64_t *timer)
{
    fm_reactor_timer_stop(exec->reactor, *timer);
    *timer = 0;
}

static void group_kill(fm_exec_t *exec, int signo)
{
    if (exec->pid > 0) {
        (void)kill(-exec->pid, signo);
    }
}

static void reap_every(fm_exec_t *exec, int64_t period_ns)
{
    timer_end(exec, &exec->reaper);
    /* Without a timer the end of file still leads to on_reap(). */
    if (fm_reactor_timer_start(exec->reactor, period_ns, period_ns, on_reap,
                               exec, &exec->reaper, NULL) < 0) {
        exec->reaper = 0;
    }
}

static void kill_now(fm_exec_t *exec)
{
    exec->force = FORCE_KILL;
    timer_end(exec, &exec->watch);
    group_kill(exec, SIGKILL);
    reap_every(exec, REAP_FAST_NS);
}

/* Settle why the child ends; the first reason stands. */
static void condemn(fm_exec_t *exec, fm_exec_reason_t reason, const char *why)
{
    if (!exec->condemned) {
        exec->condemned = true;
        exec->reason = reason;
        (void)snprintf(exec->why, sizeof(exec->why), "%s", why);
    }
}

static void violation(fm_exec_t *exec, const char *why)
{
    condemn(exec, FM_EXEC_VIOLATION, why);
    kill_now(exec);
}

static void watch_in(fm_exec_t *exec, int64_t delay_ns)
{
    fm_error_t err = {0};

    timer_end(exec, &exec->watch);
    if (fm_reactor_timer_start(exec->reactor, delay_ns, 0, on_watch, exec,
                               &exec->watch, &err) < 0) {
        violation(exec, err.text); /* no watch, no child */
    }
}

/* --- requests ------------------------------------------------------------ */

/* write() that turns a vanished reader into EPIPE instead of a signal. */
static ssize_t write_quietly(int fd, const void *data, size_t len)
{
    const struct timespec now = {0, 0};
    sigset_t sigpipe, before, pending;

    (void)sigemptyset(&sigpipe);
    (void)sigaddset(&sigpipe, SIGPIPE);
    (void)sigpending(&pending);
    bool was_pending = sigismember(&pending, SIGPIPE) == 1;
    (void)pthread_sigmask(SIG_BLOCK, &sigpipe, &before);
    ssize_t n = write(fd, data, len);
    int errnum = errno;
    if (n < 0 && errnum == EPIPE && !was_pending) {
        (void)sigtimedwait(&sigpipe, NULL, &now);
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    errno = errnum;
    return n;
}

/* A reader that is gone is no error here: its exit will say why. */
static void requests_flush(fm_exec_t *exec)
{
    size_t done = 0;

    while (exec->in_fd >= 0 && done < exec->requests.len) {
        ssize_t n = write_quietly(exec->in_fd, exec->requests.data + done,
                                  exec->requests.len - done);
        if (n > 0) {
            done += (size_t)n;
        } else if (errno != EINTR) {
            if (errno != EAGAIN) {
                fd_end(exec, &exec->in_fd);
            }
            break;
        }
    }
    fm_buf_consume(&exec->requests, done);
    if (exec->in_fd < 0) {
        return;
    }
    if (exec->ending && exec->requests.len == 0) {
        fd_end(exec, &exec->in_fd);
    } else if (fm_reactor_fd_mod(exec->reactor, exec->in_fd,
                                 exec->requests.len ? FM_REACTOR_WRITE : 0,
                                 NULL) < 0) {
        fd_end(exec, &exec->in_fd);
    }
}

static void on_writable(void *ctx, int fd, unsigned events)
{
    fm_exec_t *exec = ctx;

    (void)fd;
    if (events & FM_REACTOR_HANGUP) {
        fd_end(exec, &exec->in_fd);
        return;
    }
    requests_flush(exec);
}

static void stop_send(fm_exec_t *exec, int64_t grace_ns)
{
    if (exec->state == STATE_RUNNING && !exec->stopped) {
        exec->stopped = true;
        fm_buf_printf(&exec->requests,
                      "{\"type\":\"stop\",\"lease\":%lld,\"grace_s\":%.3f}\n",
                      (long long)exec->lease,
                      (double)grace_ns / (double)FM_NS_PER_S);
    }
    requests_flush(exec);
}

static void force_stop(fm_exec_t *exec, int64_t grace_ns)
{
    if (exec->force == FORCE_NONE) {
        exec->force = FORCE_STOP;
        watch_in(exec, grace_ns);
    }
    stop_send(exec, grace_ns);
}

/* --- the end ------------------------------------------------------------- */

static void pipes_drain(fm_exec_t *exec);

static void exit_describe(fm_exec_t *exec, const siginfo_t *info,
                          fm_exec_exit_t *exit_info, char *text, size_t bytes)
{
    char words[FM_EXEC_WORDS_BYTES];
    bool exited = info->si_pid == 0 || info->si_code == CLD_EXITED;
    int used;

    exit_info->code = info->si_status;
    exit_info->lease = exec->lease;
    exit_info->text = text;
    exit_info->reason = exec->condemned ? exec->reason
                        : exec->ending  ? FM_EXEC_STOPPED
                        : exited        ? FM_EXEC_EXITED
                                        : FM_EXEC_SIGNALLED;
    if (exec->condemned) {
        used = snprintf(text, bytes, "%s", exec->why);
    } else if (info->si_pid == 0) {
        used = snprintf(text, bytes,
                        "ended; another part of this process "
                        "took its exit status");
    } else if (exited) {
        used = snprintf(text, bytes, "exit status %d", info->si_status);
    } else {
        used = snprintf(text, bytes, "signal %d (%s)", info->si_status,
                        strsignal(info->si_status));
    }
    fm_exec_words_format(&exec->words, words, sizeof(words));
    if (words[0] && used >= 0 && (size_t)used < bytes) {
        (void)snprintf(text + used, bytes - (size_t)used, "; last words: %s",
                       words);
    }
}

static void all_end(fm_exec_t *exec)
{
    timer_end(exec, &exec->watch);
    timer_end(exec, &exec->reaper);
    fd_end(exec, &exec->in_fd);
    fd_end(exec, &exec->out_fd);
    fd_end(exec, &exec->err_fd);
}

static void finish(fm_exec_t *exec, const siginfo_t *info)
{
    char text[sizeof(exec->why) + FM_EXEC_WORDS_BYTES + 32];
    fm_exec_exit_t exit_info;
    siginfo_t reaped;

    group_kill(exec, SIGKILL);
    (void)waitid(P_PID, (id_t)exec->pid, &reaped, WEXITED);
    exec->pid = 0;
    /* What it said before it died counts, unless it broke the rules. */
    pipes_drain(exec);
    if (exec->closed) {
        return;
    }
    all_end(exec);
    exit_describe(exec, info, &exit_info, text, sizeof(text));
    exec->state = STATE_DEAD;
    exec->lease = 0;
    if (exec->callbacks.on_exit) {
        exec->callbacks.on_exit(exec->callbacks.ctx, &exit_info);
    }
}

static void on_reap(void *ctx)
{
    fm_exec_t *exec = ctx;
    siginfo_t info = {0};

    enter(exec);
    if (over(exec) || exec->pid <= 0) {
        goto out;
    }
    if (waitid(P_PID, (id_t)exec->pid, &info, WEXITED | WNOHANG | WNOWAIT) !=
            0 ||
        info.si_pid == exec->pid) {
        finish(exec, &info);
    } else if (exec->eof_ns && exec->force < FORCE_STOP &&
               fm_reactor_now_ns(exec->reactor) - exec->eof_ns > EOF_GRACE_NS) {
        violation(exec, "closed its standard output without ending");
    }
out:
    leave(exec);
}

static void on_watch(void *ctx)
{
    fm_exec_t *exec = ctx;

    exec->watch = 0;
    enter(exec);
    if (over(exec)) {
        goto out;
    }
    if (exec->state == STATE_GREETING && !exec->ending) {
        condemn(exec, FM_EXEC_NO_HELLO, "no hello in time");
        kill_now(exec);
    } else if (exec->force == FORCE_NONE) {
        force_stop(exec, exec->stop_grace_ns);
    } else if (exec->force == FORCE_STOP) {
        if (!exec->ending) {
            condemn(exec, FM_EXEC_HUNG,
                    "neither finished nor stopped by its deadline");
        }
        exec->force = FORCE_TERM;
        group_kill(exec, SIGTERM);
        watch_in(exec, exec->term_grace_ns);
    } else {
        kill_now(exec);
    }
out:
    leave(exec);
}

/* --- replies ------------------------------------------------------------- */

static void line_handle(fm_exec_t *exec, const char *line, size_t len)
{
    char shown[160], why[512];
    fm_error_t err = {0};

    if (len >= FM_EXECUTOR_LINE_BYTES) {
        (void)snprintf(why, sizeof(why), "a line of more than %u bytes",
                       FM_EXECUTOR_LINE_BYTES);
        violation(exec, why);
        return;
    }
    if (fm_exec_message(exec, line, len, &err) < 0 && !over(exec)) {
        fm_exec_printable(line, len, shown, sizeof(shown));
        (void)snprintf(why, sizeof(why), "%.300s; in: %s", err.text, shown);
        violation(exec, why);
    }
}

static bool listening(const fm_exec_t *exec)
{
    return !over(exec) && (!exec->condemned || exec->reason == FM_EXEC_HUNG);
}

/* Handle every whole line; keep the rest. */
static void lines_take(fm_exec_t *exec)
{
    size_t start = 0;

    while (listening(exec) && exec->scanned < exec->replies.len) {
        const uint8_t *data = exec->replies.data;
        const uint8_t *end = memchr(data + exec->scanned, '\n',
                                    exec->replies.len - exec->scanned);
        size_t stop = end ? (size_t)(end - data) : exec->replies.len;

        exec->scanned = stop + (end != NULL);
        if (end || stop - start >= FM_EXECUTOR_LINE_BYTES) {
            line_handle(exec, (const char *)data + start, stop - start);
            start = exec->scanned;
        }
    }
    if (!exec->closed) {
        fm_buf_consume(&exec->replies, start);
        exec->scanned -= start;
    }
}

/* One read from stdout; false when there is no more for now. */
static bool replies_read(fm_exec_t *exec)
{
    uint8_t *room = fm_buf_reserve(&exec->replies, READ_BYTES);

    if (!room) {
        violation(exec, "no memory for its output");
        return false;
    }
    ssize_t n = read(exec->out_fd, room, READ_BYTES);
    if (n > 0) {
        exec->replies.len += (size_t)n;
        lines_take(exec);
        return listening(exec);
    }
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (exec->replies.len > 0 && listening(exec)) {
        condemn(exec, FM_EXEC_VIOLATION, "its last line has no end");
    }
    fd_end(exec, &exec->out_fd);
    exec->eof_ns = fm_reactor_now_ns(exec->reactor);
    return false;
}

static bool words_read(fm_exec_t *exec)
{
    char bytes[8192];
    ssize_t n = read(exec->err_fd, bytes, sizeof(bytes));

    if (n > 0) {
        fm_exec_words_add(&exec->words, bytes, (size_t)n);
        return true;
    }
    if (n == 0 || (errno != EAGAIN && errno != EINTR)) {
        fd_end(exec, &exec->err_fd);
    }
    return false;
}

/* After the end: all that the pipes still hold, bounded by their size. */
static void pipes_drain(fm_exec_t *exec)
{
    for (int i = 0; i < READS_MAX && exec->out_fd >= 0 && listening(exec);
         i++) {
        if (!replies_read(exec)) {
            break;
        }
    }
    for (int i = 0; i < READS_MAX && !exec->closed && exec->err_fd >= 0; i++) {
        if (!words_read(exec)) {
            break;
        }
    }
}

static void on_readable(void *ctx, int fd, unsigned events)
{
    fm_exec_t *exec = ctx;

    (void)events;
    enter(exec);
    if (fd == exec->out_fd) {
        for (int i = 0; i < READS_MAX && listening(exec); i++) {
            if (!replies_read(exec)) {
                break;
            }
        }
        if (!over(exec) && exec->out_fd >= 0 && !listening(exec)) {
            fd_end(exec, &exec->out_fd); /* a flood must not keep us awake */
        }
        if (!over(exec) && exec->out_fd < 0) {
            reap_every(exec, REAP_FAST_NS);
        }
    } else if (fd == exec->err_fd) {
        (void)words_read(exec);
    }
    leave(exec);
}

/* --- the interface ------------------------------------------------------- */

static int64_t or_default(int64_t value, int64_t fallback)
{
    return value > 0 ? value : fallback;
}

static fm_status_t pipes_watch(fm_exec_t *exec, fm_error_t *err)
{
    fm_status_t rc;

    if ((rc = fm_reactor_fd_add(exec->reactor, exec->in_fd, 0, on_writable,
                                exec, err)) < 0 ||
        (rc = fm_reactor_fd_add(exec->reactor, exec->out_fd, FM_REACTOR_READ,
                                on_readable, exec, err)) < 0 ||
        (rc = fm_reactor_fd_add(exec->reactor, exec->err_fd, FM_REACTOR_READ,
                                on_readable, exec, err)) < 0 ||
        (rc = fm_reactor_timer_start(exec->reactor, exec->hello_timeout_ns, 0,
                                     on_watch, exec, &exec->watch, err)) < 0) {
        return rc;
    }
    return fm_reactor_timer_start(exec->reactor, REAP_IDLE_NS, REAP_IDLE_NS,
                                  on_reap, exec, &exec->reaper, err);
}

fm_status_t fm_exec_open(fm_reactor_t *reactor,
                         const fm_exec_options_t *options,
                         const fm_exec_callbacks_t *callbacks,
                         fm_exec_t **exec_out, fm_error_t *err)
{
    fm_exec_t *exec = NULL;
    child_t child = {0, -1, -1, -1};
    fm_status_t rc;

    if (!options->argv || !options->argv[0] || !options->argv[0][0]) {
        return fm_error_set(err, FM_ERR_INVALID, "executor: empty argv");
    }
    if (!(exec = fm_calloc(1, sizeof(*exec)))) {
        return fm_no_memory(err);
    }
    exec->reactor = reactor;
    exec->callbacks = *callbacks;
    exec->in_fd = exec->out_fd = exec->err_fd = exec->words.fd = -1;
    exec->hello_timeout_ns =
        or_default(options->hello_timeout_ns, HELLO_TIMEOUT_NS);
    exec->stop_grace_ns = or_default(options->stop_grace_ns, GRACE_NS);
    exec->term_grace_ns = or_default(options->term_grace_ns, GRACE_NS);
    if ((rc = fm_exec_words_open(&exec->words, options->log_path,
                                 options->log_bytes, err)) < 0 ||
        (rc = fm_exec_spawn(options, &child, err)) < 0) {
        goto out;
    }
    exec->pid = child.pid;
    exec->in_fd = child.in_fd;
    exec->out_fd = child.out_fd;
    exec->err_fd = child.err_fd;
    if ((rc = pipes_watch(exec, err)) < 0) {
        goto out;
    }
    *exec_out = exec;
    exec = NULL;
out:
    fm_exec_close(exec);
    return rc;
}

void *fm_exec_close(fm_exec_t *exec)
{
    siginfo_t info;

    if (!exec || exec->closed) {
        return NULL;
    }
    all_end(exec);
    if (exec->pid > 0) {
        group_kill(exec, SIGKILL);
        (void)waitid(P_PID, (id_t)exec->pid, &info, WEXITED);
        exec->pid = 0;
    }
    exec->closed = true;
    if (exec->depth == 0) {
        destroy(exec);
    }
    return NULL;
}

void fm_exec_batch_end(fm_exec_t *exec)
{
    free(exec->slots);
    exec->slots = NULL;
    exec->slot_count = exec->answered_count = 0;
    exec->lease = 0;
    exec->stopped = false;
    exec->state = STATE_IDLE;
    if (!exec->ending && exec->force <= FORCE_STOP) {
        exec->force = FORCE_NONE;
        timer_end(exec, &exec->watch);
    }
}

static fm_status_t free_check(const fm_exec_t *exec, fm_error_t *err)
{
    if (exec->closed || exec->state == STATE_DEAD || exec->ending ||
        exec->condemned || exec->in_fd < 0 || exec->out_fd < 0) {
        return fm_error_set(err, FM_ERR_CLOSED, "the executor is gone");
    }
    if (exec->state != STATE_IDLE) {
        return fm_error_set(err, FM_ERR_BUSY, "%s",
                            exec->state == STATE_RUNNING
                                ? "the executor runs a batch"
                                : "the executor has not said hello yet");
    }
    return FM_OK;
}

fm_status_t fm_exec_run(fm_exec_t *exec, const fm_exec_batch_t *batch,
                        fm_error_t *err)
{
    slot_t *slots = NULL;
    char *line = NULL;
    size_t len = 0;
    fm_status_t rc = free_check(exec, err);

    if (rc < 0 || (rc = fm_exec_batch_slots(batch, &slots, err)) < 0 ||
        (rc = fm_exec_batch_line(batch, &line, &len, err)) < 0) {
        goto out;
    }
    fm_buf_add(&exec->requests, line, len);
    if (exec->requests.failed) {
        rc = fm_no_memory(err);
        goto out;
    }
    exec->slots = slots;
    slots = NULL;
    exec->slot_count = batch->item_count;
    exec->lease = batch->lease;
    exec->state = STATE_RUNNING;
    if (batch->deadline_ns > 0) {
        watch_in(exec, batch->deadline_ns);
    }
    requests_flush(exec);
out:
    free(slots);
    free(line);
    return rc;
}

void fm_exec_stop(fm_exec_t *exec, int64_t grace_ns)
{
    if (!over(exec) && exec->state == STATE_RUNNING) {
        force_stop(exec, or_default(grace_ns, exec->stop_grace_ns));
    }
}

void fm_exec_shutdown(fm_exec_t *exec, int64_t grace_ns)
{
    if (over(exec) || exec->ending) {
        return;
    }
    exec->ending = true;
    if (exec->force == FORCE_STOP) {
        exec->force = FORCE_NONE; /* the grace of this call counts */
    }
    force_stop(exec, or_default(grace_ns, exec->stop_grace_ns));
}

bool fm_exec_idle(const fm_exec_t *exec)
{
    return exec->state == STATE_IDLE && !exec->ending && !exec->condemned &&
           exec->in_fd >= 0 && exec->out_fd >= 0;
}

int64_t fm_exec_pid(const fm_exec_t *exec)
{
    return exec->pid;
}

const char *fm_exec_reason_name(fm_exec_reason_t reason)
{
    static const char *const names[] = {
        [FM_EXEC_EXITED] = "exited",       [FM_EXEC_SIGNALLED] = "signalled",
        [FM_EXEC_NO_HELLO] = "no hello",   [FM_EXEC_HUNG] = "hung",
        [FM_EXEC_VIOLATION] = "violation", [FM_EXEC_STOPPED] = "stopped"};

    return (size_t)reason < FM_COUNT_OF(names) ? names[reason] : "unknown";
}
