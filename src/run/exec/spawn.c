/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Start a child: everything that can allocate or fail with a text happens
 * before fork(); the child itself makes async-signal-safe calls only, since
 * the supervisor may have threads.  A failing execve() is told on stderr and
 * by exit status 127, so that the reactor never waits for the program's disk.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/exec/internal.h"

extern char **environ;

/* The program argv[0] names, looked up as execvp() would. */
static fm_status_t program_find(const char *name, char **path_out,
                                fm_error_t *err)
{
    if (strchr(name, '/')) {
        if (access(name, X_OK) != 0) {
            return fm_error_set_errno(err, FM_ERR_NOT_FOUND, errno,
                                      "executor %s", name);
        }
        *path_out = fm_strdup(name);
        return *path_out ? FM_OK : fm_no_memory(err);
    }
    const char *dirs = getenv("PATH");
    for (const char *at = dirs ? dirs : "/usr/bin:/bin"; *at;) {
        size_t len = strcspn(at, ":");
        char *path =
            fm_asprintf("%.*s/%s", (int)(len ? len : 1), len ? at : ".", name);
        if (!path) {
            return fm_no_memory(err);
        }
        struct stat st;
        if (stat(path, &st) == 0 && S_ISREG(st.st_mode) &&
            access(path, X_OK) == 0) {
            *path_out = path;
            return FM_OK;
        }
        free(path);
        at += len + (at[len] == ':');
    }
    return fm_error_set(err, FM_ERR_NOT_FOUND, "executor %s: not in PATH",
                        name);
}

static bool same_name(const char *a, const char *b)
{
    size_t len = strcspn(a, "=");
    return len == strcspn(b, "=") && memcmp(a, b, len) == 0;
}

static void environment_put(char **envp, size_t *count, char *entry)
{
    for (size_t i = 0; i < *count; i++) {
        if (same_name(envp[i], entry)) {
            envp[i] = entry;
            return;
        }
    }
    envp[(*count)++] = entry;
}

/* The supervisor's environment, replaced by the options', plus the device.
 * Only the array and the device text are ours. */
static char **environment_make(const char *const *extra, char *device)
{
    size_t own = 0, more = 0, count = 0;
    while (environ && environ[own]) {
        own++;
    }
    while (extra && extra[more]) {
        more++;
    }
    char **envp = fm_calloc(own + more + 2, sizeof(*envp));
    if (!envp) {
        return NULL;
    }
    for (size_t i = 0; i < own; i++) {
        envp[count++] = environ[i];
    }
    environment_put(envp, &count, device);
    for (size_t i = 0; i < more; i++) {
        char *entry;
        memcpy(&entry, &extra[i], sizeof(entry)); /* execve() wants char * */
        environment_put(envp, &count, entry);
    }
    return envp;
}

static void limit_set(int resource, uint64_t value)
{
    if (value) {
        struct rlimit limit = {value, value};
        if (setrlimit((__rlimit_resource_t)resource, &limit) != 0) {
            _exit(126);
        }
    }
}

static void descriptors_close(void)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, 3u, ~0u, 0u) == 0) {
        return;
    }
#endif
    struct rlimit limit;
    int last = 65536;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 65536) {
        last = (int)limit.rlim_cur;
    }
    for (int fd = 3; fd < last; fd++) {
        (void)close(fd);
    }
}

static void complain(const char *text)
{
    if (write(STDERR_FILENO, text, strlen(text)) < 0) {
        _exit(127);
    }
}

/* Runs in the child; never returns. */
static void child_run(const fm_exec_options_t *options, const char *path,
                      char *const *argv, char *const *envp, pid_t parent,
                      const int fds[3])
{
    sigset_t none;

    (void)setpgid(0, 0);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || getppid() != parent) {
        _exit(126);
    }
    for (int fd = 0; fd < 3; fd++) {
        if (dup2(fds[fd], fd) < 0) {
            _exit(126);
        }
    }
    descriptors_close();
    for (int signo = 1; signo < 32; signo++) {
        (void)signal(signo, SIG_DFL);
    }
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    limit_set(RLIMIT_AS, options->limit_memory_bytes);
    limit_set(RLIMIT_NOFILE, options->limit_files);
    limit_set(RLIMIT_FSIZE, options->limit_file_bytes);
    if (options->workdir && chdir(options->workdir) != 0) {
        complain("cannot enter the work directory\n");
        _exit(127);
    }
    (void)execve(path, argv, envp);
    complain(errno == ENOEXEC ? "not an executable format (missing #! line?)\n"
                              : "cannot be executed\n");
    _exit(127);
}

/* A pipe whose ends stay above 2, so that dup2() cannot overwrite one. */
static int pipe_make(int fds[2])
{
    if (pipe2(fds, O_CLOEXEC) != 0) {
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        if (fds[i] < 3) {
            int moved = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
            (void)close(fds[i]);
            fds[i] = moved;
            if (moved < 0) {
                (void)close(fds[1 - i]);
                return -1;
            }
        }
    }
    return 0;
}

static void fd_close(int fd)
{
    if (fd >= 0) {
        (void)close(fd);
    }
}

static int nonblocking(int fd)
{
    return fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

/* fork() and wire the pipes: pipes[i] is fd i of the child. */
static fm_status_t child_start(const fm_exec_options_t *options,
                               const char *path, char *const *envp,
                               child_t *child_out, fm_error_t *err)
{
    int pipes[3][2] = {{-1, -1}, {-1, -1}, {-1, -1}};
    fm_status_t rc = FM_OK;
    pid_t pid = -1, parent = getpid();
    char *const *argv;

    memcpy(&argv, &options->argv, sizeof(argv)); /* execve() wants char * */
    for (int i = 0; i < 3; i++) {
        if (pipe_make(pipes[i]) != 0 ||
            nonblocking(pipes[i][i == 0 ? 1 : 0]) != 0) {
            rc = fm_error_set_errno(err, FM_ERR_IO, errno, "pipe");
            goto out;
        }
    }
    if ((pid = fork()) < 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "fork");
        goto out;
    }
    if (pid == 0) {
        int fds[3] = {pipes[0][0], pipes[1][1], pipes[2][1]};
        child_run(options, path, argv, envp, parent, fds);
    }
    (void)setpgid(pid, pid); /* whoever is first: no race with kill() */
    *child_out = (child_t){pid, pipes[0][1], pipes[1][0], pipes[2][0]};
    pipes[0][1] = pipes[1][0] = pipes[2][0] = -1;
out:
    for (int i = 0; i < 3; i++) {
        fd_close(pipes[i][0]);
        fd_close(pipes[i][1]);
    }
    return rc;
}

fm_status_t fm_exec_spawn(const fm_exec_options_t *options, child_t *child_out,
                          fm_error_t *err)
{
    char *path = NULL, *device = NULL, **envp = NULL;
    struct stat st;
    fm_status_t rc = program_find(options->argv[0], &path, err);

    if (rc < 0) {
        goto out;
    }
    if (options->workdir &&
        (stat(options->workdir, &st) != 0 || !S_ISDIR(st.st_mode))) {
        rc = fm_error_set(err, FM_ERR_NOT_FOUND, "%s: no such directory",
                          options->workdir);
        goto out;
    }
    device = fm_asprintf("FLOWMESH_DEVICE=%s",
                         options->device ? options->device : "cpu");
    if (!device || !(envp = environment_make(options->env, device))) {
        rc = fm_no_memory(err);
        goto out;
    }
    rc = child_start(options, path, envp, child_out, err);
out:
    free(path);
    free(device);
    free(envp);
    return rc;
}
