/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standard error of an executor: appended to a log of bounded size, and the
 * last bytes kept in memory, because they usually say why it died.
 * A log that cannot be written is no reason to stop work: it ends there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/exec/internal.h"

static int log_open(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

fm_status_t fm_exec_words_open(words_t *words, const char *path, size_t limit,
                               fm_error_t *err)
{
    struct stat st;

    words->fd = -1;
    if (!path) {
        return FM_OK;
    }
    words->limit_bytes = limit ? limit : (size_t)8 << 20;
    if (!(words->path = fm_strdup(path))) {
        return fm_no_memory(err);
    }
    if ((words->fd = log_open(path)) < 0 || fstat(words->fd, &st) != 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "%s", path);
    }
    words->written_bytes = (size_t)st.st_size;
    return FM_OK;
}

static void log_end(words_t *words)
{
    if (words->fd >= 0) {
        (void)close(words->fd);
        words->fd = -1;
    }
}

static void log_rotate(words_t *words)
{
    char *old = fm_asprintf("%s.1", words->path);

    log_end(words);
    if (old && rename(words->path, old) == 0) {
        words->fd = log_open(words->path);
        words->written_bytes = 0;
    }
    free(old);
}

static void log_add(words_t *words, const char *bytes, size_t len)
{
    while (len > 0 && words->fd >= 0) {
        ssize_t n = write(words->fd, bytes, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            log_end(words);
            return;
        }
        bytes += n;
        len -= (size_t)n;
        words->written_bytes += (size_t)n;
    }
    if (words->fd >= 0 && words->written_bytes > words->limit_bytes) {
        log_rotate(words);
    }
}

void fm_exec_words_add(words_t *words, const char *bytes, size_t len)
{
    log_add(words, bytes, len);
    if (len > sizeof(words->tail)) {
        words->tail_total += len - sizeof(words->tail);
        bytes += len - sizeof(words->tail);
        len = sizeof(words->tail);
    }
    for (size_t i = 0; i < len; i++) {
        words->tail[words->tail_total++ % sizeof(words->tail)] = bytes[i];
    }
}

void fm_exec_words_format(const words_t *words, char *text, size_t bytes)
{
    char flat[FM_EXEC_WORDS_BYTES];
    size_t size = sizeof(words->tail), len = words->tail_total;
    size_t start = 0;

    if (len > size) {
        start = len - size;
        len = size;
    }
    for (size_t i = 0; i < len; i++) {
        flat[i] = words->tail[(start + i) % size];
    }
    while (len > 0 && (flat[len - 1] == '\n' || flat[len - 1] == ' ')) {
        len--;
    }
    /* The end matters: a cut falls on the beginning. */
    size_t room = bytes - 5; /* what fm_exec_printable() takes whole */
    size_t skip = len > room ? len - room : 0;
    fm_exec_printable(flat + skip, len - skip, text, bytes);
}

void fm_exec_words_close(words_t *words)
{
    log_end(words);
    free(words->path);
    words->path = NULL;
}
