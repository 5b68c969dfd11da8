/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Run a user's program to its end.
 *
 * It gets a process group of its own, so that a time-out takes all it started.
 * If we die first, a guard in that group, blocked on a pipe that only we hold
 * open, reads end of file and kills the group: nothing outlives its executor.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "run/ops/internal.h"

#define POLL_MS 50 /* how soon a stop or a closed pipe is noticed */
#define TAIL_BYTES 4096

typedef struct running {
    pid_t pid, guard;
    int out_fd, err_fd, lifeline;
    char tail[TAIL_BYTES]; /* end of stderr */
    size_t tail_len;
} running_t;

static void fd_close(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

/* Runs in the child; never returns. */
static void program_exec(const fm_ops_process_t *process, char *const *argv,
                         int out, int err)
{
    int null = open("/dev/null", O_RDONLY);
    sigset_t none;

    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGPIPE, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    if (null < 0 || dup2(null, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 ||
        (process->workdir && chdir(process->workdir) != 0)) {
        _exit(126);
    }
    for (size_t i = 0; process->env && process->env[i]; i++) {
        char *entry;
        memcpy(&entry, &process->env[i], sizeof(entry)); /* putenv: char * */
        if (putenv(entry) != 0) {
            _exit(126);
        }
    }
    (void)execvp(argv[0], argv);
    const char *why =
        errno == ENOENT ? "no such program\n" : "cannot be executed\n";
    _exit(write(2, why, strlen(why)) < 0 ? 126 : 127);
}

/* Runs in the guard; never returns. */
static void guard_watch(pid_t group, int lifeline)
{
    char byte;

    (void)setpgid(0, group);
    for (int fd = 0; fd < 1024; fd++) {
        if (fd != lifeline) {
            (void)close(fd);
        }
    }
    while (read(lifeline, &byte, 1) < 0 && errno == EINTR) {
    }
    (void)kill(-group, SIGKILL);
    _exit(0);
}

static fm_status_t program_start(const fm_ops_process_t *process,
                                 running_t *running, fm_error_t *err)
{
    int out[2] = {-1, -1}, error[2] = {-1, -1}, life[2] = {-1, -1};
    fm_status_t rc = FM_OK;
    char *const *argv;

    memcpy(&argv, &process->argv, sizeof(argv)); /* execvp() wants char * */
    if (pipe2(out, O_CLOEXEC) != 0 || pipe2(error, O_CLOEXEC) != 0 ||
        pipe2(life, O_CLOEXEC) != 0 || (running->pid = fork()) < 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "start %s", argv[0]);
        goto out;
    }
    if (running->pid == 0) {
        program_exec(process, argv, out[1], error[1]);
    }
    (void)setpgid(running->pid, running->pid);
    if ((running->guard = fork()) < 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "guard %s", argv[0]);
        goto out;
    }
    if (running->guard == 0) {
        (void)close(life[1]);
        guard_watch(running->pid, life[0]);
    }
    (void)setpgid(running->guard, running->pid);
    running->out_fd = out[0];
    running->err_fd = error[0];
    running->lifeline = life[1];
    out[0] = error[0] = life[1] = -1;
out:
    for (int i = 0; i < 2; i++) {
        fd_close(&out[i]);
        fd_close(&error[i]);
        fd_close(&life[i]);
    }
    return rc;
}

/* Kill what is left of the group and reap ours; the status of the program. */
static int program_end(running_t *running)
{
    int status = 0;

    if (running->pid > 0) {
        (void)kill(-running->pid, SIGKILL);
        while (waitpid(running->pid, &status, 0) < 0 && errno == EINTR) {
        }
    }
    fd_close(&running->lifeline);
    if (running->guard > 0) {
        while (waitpid(running->guard, NULL, 0) < 0 && errno == EINTR) {
        }
    }
    fd_close(&running->out_fd);
    fd_close(&running->err_fd);
    return status;
}

/* Has it ended?  It stays a zombie, so its group number stays ours. */
static bool has_ended(pid_t pid)
{
    siginfo_t info = {0};

    return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
           info.si_pid == pid;
}

static void tail_add(running_t *running, const char *bytes, size_t len)
{
    if (len > TAIL_BYTES) {
        bytes += len - TAIL_BYTES;
        len = TAIL_BYTES;
    }
    if (running->tail_len + len > TAIL_BYTES) {
        size_t drop = running->tail_len + len - TAIL_BYTES;
        memmove(running->tail, running->tail + drop, running->tail_len - drop);
        running->tail_len -= drop;
    }
    memcpy(running->tail + running->tail_len, bytes, len);
    running->tail_len += len;
}

/* One read of standard output. */
static fm_status_t stdout_read(const fm_ops_process_t *process,
                               running_t *running, fm_buf_t *out,
                               fm_error_t *err)
{
    char bytes[16384];
    ssize_t n = read(running->out_fd, bytes, sizeof(bytes));

    if (n <= 0) {
        if (n == 0 || errno != EINTR) {
            fd_close(&running->out_fd);
        }
        return FM_OK;
    }
    fm_buf_add(out, bytes, (size_t)n);
    if (out->failed) {
        return fm_no_memory(err);
    }
    if (out->len > process->stdout_bytes_max) {
        if (!process->stdout_tail) {
            return fm_error_set(err, FM_ERR_LIMIT,
                                "more than %zu bytes on standard output: "
                                "write them to a file",
                                process->stdout_bytes_max);
        }
        fm_buf_consume(out, out->len - process->stdout_bytes_max);
    }
    return FM_OK;
}

static void stderr_read(running_t *running)
{
    char bytes[16384];
    ssize_t n = read(running->err_fd, bytes, sizeof(bytes));

    if (n > 0) {
        tail_add(running, bytes, (size_t)n);
    } else if (n == 0 || errno != EINTR) {
        fd_close(&running->err_fd);
    }
}

/* Read both pipes once they have something; false when neither has. */
static fm_status_t pipes_read(const fm_ops_process_t *process,
                              running_t *running, int wait_ms, fm_buf_t *out,
                              bool *got_out, fm_error_t *err)
{
    struct pollfd fds[2] = {{running->out_fd, POLLIN, 0},
                            {running->err_fd, POLLIN, 0}};
    int ready = poll(fds, 2, wait_ms); /* a negative fd is skipped */
    fm_status_t rc = FM_OK;

    *got_out = ready > 0;
    if (ready > 0 && fds[0].revents) {
        rc = stdout_read(process, running, out, err);
    }
    if (ready > 0 && fds[1].revents) {
        stderr_read(running);
    }
    return rc;
}

/* Until the program (not what it left behind) has ended. */
static fm_status_t program_follow(const fm_ops_process_t *process,
                                  running_t *running, fm_buf_t *out,
                                  fm_error_t *err)
{
    int64_t end = process->timeout_ns > 0
                      ? fm_clock_mono_ns() + process->timeout_ns
                      : INT64_MAX;
    bool got = false, ended = false;

    for (;;) {
        bool piped = running->out_fd >= 0 || running->err_fd >= 0;
        fm_status_t rc = pipes_read(process, running,
                                    ended   ? 0
                                    : piped ? POLL_MS
                                            : 2,
                                    out, &got, err);
        if (rc < 0) {
            return rc;
        }
        if (ended && !got) {
            return FM_OK;
        }
        if (process->stopping && process->stopping(process->ctx)) {
            return fm_error_set(err, FM_ERR_CANCELLED, "asked to stop");
        }
        if (fm_clock_mono_ns() > end) {
            return fm_error_set(
                err, FM_ERR_TIMEOUT, "not finished after %.3g s, killed",
                (double)process->timeout_ns / (double)FM_NS_PER_S);
        }
        ended = ended || has_ended(running->pid);
    }
}

/* The end of @p bytes as one printable line: what a person needs to see. */
static void words_format(const char *bytes, size_t len, char *text, size_t size)
{
    size_t used = 0;

    while (len > 0 && (bytes[len - 1] == '\n' || bytes[len - 1] == ' ')) {
        len--;
    }
    if (len >= size) {
        bytes += len - size + 1;
        len = size - 1;
    }
    for (size_t i = 0; i < len; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        text[used++] = byte == '\n'                  ? '|'
                       : byte < 0x20 || byte >= 0x7f ? '?'
                                                     : (char)byte;
    }
    text[used] = '\0';
}

static fm_status_t program_judge(const char *name, int status,
                                 const running_t *running, const fm_buf_t *out,
                                 fm_error_t *err)
{
    char words[OPS_WORDS_BYTES];

    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
        return FM_OK;
    }
    if (running->tail_len > 0) {
        words_format(running->tail, running->tail_len, words, sizeof(words));
    } else {
        words_format((const char *)out->data, out->len, words, sizeof(words));
    }
    if (WIFSIGNALED(status)) {
        return fm_error_set(err, FM_ERR_INVALID, "%s: signal %d (%s)%s%s", name,
                            WTERMSIG(status), strsignal(WTERMSIG(status)),
                            words[0] ? "; last words: " : "", words);
    }
    return fm_error_set(err, FM_ERR_INVALID, "%s: exit status %d%s%s", name,
                        WEXITSTATUS(status), words[0] ? "; last words: " : "",
                        words);
}

fm_status_t fm_ops_process_run(const fm_ops_process_t *process,
                               fm_buf_t *stdout_out, fm_error_t *err)
{
    running_t running = {.out_fd = -1, .err_fd = -1, .lifeline = -1};
    fm_buf_t out = {0};
    fm_status_t rc = program_start(process, &running, err);

    if (rc >= 0) {
        rc = program_follow(process, &running, &out, err);
    }
    if (rc < 0) {
        (void)program_end(&running);
        fm_error_wrap(err, "%s", process->argv[0]);
        goto out;
    }
    rc = program_judge(process->argv[0], program_end(&running), &running, &out,
                       err);
    if (rc >= 0) {
        fm_buf_fini(stdout_out);
        *stdout_out = out;
        out = (fm_buf_t){0};
    }
out:
    fm_buf_fini(&out);
    return rc;
}

fm_status_t fm_ops_workdir_make(const fm_ops_t *ops, char **path_out,
                                fm_error_t *err)
{
    char *path = fm_asprintf("%s/flowmesh-op-XXXXXX", ops->work_root);

    if (!path) {
        return fm_no_memory(err);
    }
    if (!mkdtemp(path)) {
        fm_status_t rc = fm_error_set_errno(err, FM_ERR_IO, errno, "%s", path);
        free(path);
        return rc;
    }
    *path_out = path;
    return FM_OK;
}

fm_status_t fm_ops_file_write(const char *path, const void *data, size_t len,
                              fm_error_t *err)
{
    char *parent = fm_strdup(path);
    char *slash = parent ? strrchr(parent, '/') : NULL;
    fm_status_t rc = parent ? FM_OK : fm_no_memory(err);
    int fd = -1;

    if (rc >= 0 && slash && slash != parent) {
        *slash = '\0';
        rc = fm_file_make_dirs(parent, 0750, err);
    }
    free(parent);
    if (rc < 0) {
        return rc;
    }
    fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "%s", path);
    }
    rc = fm_file_write_all(fd, data, len, path, err);
    (void)close(fd);
    return rc;
}
