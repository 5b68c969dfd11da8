/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guard: a child reads the table and writes its lines to a pipe, then a
 * trailer of status and error text.  A child that ends without a trailer has
 * died of the file.
 */
#include "store/table/table.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/table/hdf5.h"

#define READ_SECONDS 600
#define PIPE_BYTES ((size_t)1 << 16)

/* Follows the lines: a zero byte, which no line holds, and the outcome. */
typedef struct trailer {
    int32_t status;
    char text[FM_ERROR_TEXT_BYTES];
} trailer_t;

static fm_status_t pipe_write(void *ctx, const void *data, size_t len,
                              fm_error_t *err)
{
    const int *fd = ctx;

    return fm_file_write_all(*fd, data, len, "pipe", err);
}

/* In the child; never returns. */
static void child_read(const void *image, size_t len, const char *path, int fd)
{
    const struct rlimit seconds = {READ_SECONDS, READ_SECONDS};
    const struct rlimit none = {0, 0};
    fm_error_t err = {0};
    trailer_t trailer = {0};
    const char mark = '\0';

    (void)signal(SIGPIPE, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    (void)setrlimit(RLIMIT_CPU, &seconds);
    (void)setrlimit(RLIMIT_CORE, &none);
    if (fm_fault("table.read")) {
        abort(); /* as the library would */
    }
    trailer.status =
        fm_table_hdf5_read(image, len, path, pipe_write, &fd, &err);
    memcpy(trailer.text, err.text, sizeof(trailer.text));
    if (fm_file_write_all(fd, &mark, 1, "pipe", NULL) < 0 ||
        fm_file_write_all(fd, &trailer, sizeof(trailer), "pipe", NULL) < 0) {
        _exit(1);
    }
    _exit(0); /* no handlers of ours: they belong to the parent */
}

/* All the child writes, until it closes the pipe. */
static fm_status_t pipe_read(int fd, fm_buf_t *bytes, fm_error_t *err)
{
    const size_t limit = FM_TABLE_TEXT_BYTES_MAX + 1 + sizeof(trailer_t);
    const int64_t until = fm_clock_mono_ns() + READ_SECONDS * FM_NS_PER_S;

    for (;;) {
        struct pollfd ready = {.fd = fd, .events = POLLIN};
        int64_t left = (until - fm_clock_mono_ns()) / FM_NS_PER_MS;
        int polled = left > 0 ? poll(&ready, 1, (int)left) : 0;
        if (polled == 0) {
            return fm_error_set(err, FM_ERR_TIMEOUT, "not read after %d s",
                                READ_SECONDS);
        }
        uint8_t *room = fm_buf_reserve(bytes, PIPE_BYTES);
        if (!room) {
            return fm_no_memory(err);
        }
        ssize_t got = polled > 0 ? read(fd, room, PIPE_BYTES) : -1;
        if (got < 0 && errno != EINTR) {
            return fm_error_set_errno(err, FM_ERR_IO, errno, "read a table");
        }
        if (got == 0) {
            return FM_OK;
        }
        bytes->len += got > 0 ? (size_t)got : 0;
        if (bytes->len > limit) {
            return fm_error_set(err, FM_ERR_LIMIT,
                                "more than %zu bytes of text",
                                FM_TABLE_TEXT_BYTES_MAX);
        }
    }
}

static int child_end(pid_t pid, bool kill_it)
{
    int status = 0;

    if (kill_it) {
        (void)kill(pid, SIGKILL);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
    }
    return status;
}

/* Split what came into lines and outcome. */
static fm_status_t outcome_read(fm_buf_t *bytes, int child, fm_error_t *err)
{
    const size_t tail = 1 + sizeof(trailer_t);
    trailer_t trailer;

    if (!WIFEXITED(child) || WEXITSTATUS(child) != 0 || bytes->len < tail ||
        bytes->data[bytes->len - tail] != '\0') {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a damaged HDF5 file: the library ended with %s %d "
                            "on it",
                            WIFSIGNALED(child) ? "signal" : "status",
                            WIFSIGNALED(child) ? WTERMSIG(child)
                                               : WEXITSTATUS(child));
    }
    memcpy(&trailer, bytes->data + bytes->len - sizeof(trailer),
           sizeof(trailer));
    trailer.text[sizeof(trailer.text) - 1] = '\0';
    bytes->len -= tail;
    return trailer.status < 0 ? fm_error_set(err, (fm_status_t)trailer.status,
                                             "%s", trailer.text)
                              : FM_OK;
}

fm_status_t fm_table_read(const void *image, size_t len, const char *path,
                          fm_buf_t *lines_out, fm_error_t *err)
{
    fm_buf_t bytes = {0};
    int ends[2] = {-1, -1};
    fm_status_t rc;

    if (pipe2(ends, O_CLOEXEC) != 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "pipe");
    }
    pid_t pid = fork();
    if (pid == 0) {
        (void)close(ends[0]);
        child_read(image, len, path, ends[1]);
    }
    (void)close(ends[1]);
    if (pid < 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "fork");
        goto out;
    }
    rc = pipe_read(ends[0], &bytes, err);
    int child = child_end(pid, rc < 0);
    if (rc >= 0 && (rc = outcome_read(&bytes, child, err)) >= 0) {
        fm_buf_add(lines_out, bytes.data, bytes.len);
        rc = lines_out->failed ? fm_no_memory(err) : FM_OK;
    }
out:
    (void)close(ends[0]);
    fm_buf_fini(&bytes);
    return rc;
}
