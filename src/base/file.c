/* SPDX-License-Identifier: Apache-2.0 */
#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/mem.h"

#define READ_CHUNK_BYTES 65536

fm_status_t fm_file_read(const char *path, size_t limit_bytes, fm_buf_t *out,
                         fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    size_t start = out->len;
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return fm_error_set_errno(
            err, errno == ENOENT ? FM_ERR_NOT_FOUND : FM_ERR_IO, errno,
            "read %s", path);
    }
    for (;;) {
        uint8_t *to = fm_buf_reserve(out, READ_CHUNK_BYTES);
        if (!to) {
            rc = fm_no_memory(err);
            break;
        }
        ssize_t n = read(fd, to, READ_CHUNK_BYTES);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            rc = fm_error_set_errno(err, FM_ERR_IO, errno, "read %s", path);
        }
        if (n <= 0) {
            break;
        }
        out->len += (size_t)n;
        if (out->len - start > limit_bytes) {
            rc = fm_error_set(err, FM_ERR_LIMIT, "%s: larger than %zu bytes",
                              path, limit_bytes);
            break;
        }
    }
    (void)close(fd);
    return rc;
}

fm_status_t fm_file_write_all(int fd, const void *data, size_t len,
                              const char *path, fm_error_t *err)
{
    const uint8_t *at = data;

    while (len > 0) {
        ssize_t n =
            fm_fault("base.write") ? (errno = ENOSPC, -1) : write(fd, at, len);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fm_error_set_errno(err, FM_ERR_IO, errno, "write %s", path);
        }
        at += n;
        len -= (size_t)n;
    }
    return FM_OK;
}

fm_status_t fm_file_fsync(int fd, const char *path, fm_error_t *err)
{
    if (fm_fault("base.fsync") ? (errno = EIO, true) : fsync(fd) != 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "fsync %s", path);
    }
    return FM_OK;
}

fm_status_t fm_file_fsync_parent(const char *path, fm_error_t *err)
{
    const char *slash = strrchr(path, '/');
    char *dir = !slash          ? fm_strdup(".")
                : slash == path ? fm_strdup("/")
                                : fm_strndup(path, (size_t)(slash - path));
    fm_status_t rc = FM_OK;

    if (!dir) {
        return fm_no_memory(err);
    }
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "open %s", dir);
    } else {
        rc = fm_file_fsync(fd, dir, err);
        (void)close(fd);
    }
    free(dir);
    return rc;
}

fm_status_t fm_file_rename(const char *from, const char *to, fm_error_t *err)
{
    if (fm_fault("base.rename") ? (errno = EIO, true) : rename(from, to) != 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "rename %s to %s",
                                  from, to);
    }
    return FM_OK;
}

fm_status_t fm_file_replace(const char *path, const void *data, size_t len,
                            fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    char *temp = fm_asprintf("%s.tmp.%ld", path, (long)getpid());

    if (!temp) {
        return fm_no_memory(err);
    }
    int fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "create %s", temp);
        goto out;
    }
    rc = fm_file_write_all(fd, data, len, temp, err);
    if (rc >= 0) {
        rc = fm_file_fsync(fd, temp, err);
    }
    if (close(fd) != 0 && rc >= 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "close %s", temp);
    }
    if (rc >= 0) {
        rc = fm_file_rename(temp, path, err);
    }
    if (rc < 0) {
        (void)unlink(temp);
        goto out;
    }
    rc = fm_file_fsync_parent(path, err);
out:
    free(temp);
    return rc;
}

fm_status_t fm_file_make_dirs(const char *path, unsigned mode, fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    char *copy = fm_strdup(path);

    if (!copy) {
        return fm_no_memory(err);
    }
    for (char *at = copy + 1; rc >= 0; at++) {
        if (*at != '/' && *at != '\0') {
            continue;
        }
        char saved = *at;
        *at = '\0';
        if (mkdir(copy, (mode_t)mode) != 0 && errno != EEXIST) {
            rc = fm_error_set_errno(err, FM_ERR_IO, errno, "make directory %s",
                                    copy);
        }
        *at = saved;
        if (saved == '\0') {
            break;
        }
    }
    free(copy);
    return rc;
}

static int remove_entry(const char *path, const struct stat *st, int type,
                        struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path) != 0 && errno != ENOENT ? -1 : 0;
}

fm_status_t fm_file_remove_tree(const char *path, fm_error_t *err)
{
    if (nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS) != 0 &&
        errno != ENOENT) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "remove %s", path);
    }
    return FM_OK;
}

char *fm_file_program_dir(void)
{
    char path[4096];
    ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

    if (n <= 0) {
        return NULL;
    }
    path[n] = '\0';
    char *slash = strrchr(path, '/');
    return fm_strndup(path,
                      slash && slash != path ? (size_t)(slash - path) : 1);
}
