/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The directory of a journal:
 *
 *   lock                  writer's lock; its text tells who holds it
 *   manifest              names the one journal file in force
 *   journal-00000001.fmj  generation 1, …
 *
 * The manifest is only ever replaced by rename.  Journal files it does not
 * name are the remains of an interrupted rotation.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "store/journal/internal.h"

#define MANIFEST_MAX_BYTES 256 /* three short lines */
#define OWNER_MAX_BYTES 512

static const char file_prefix[] = "journal-";

static void owner_read(int fd, char *text)
{
    ssize_t n = pread(fd, text, OWNER_MAX_BYTES - 1, 0);

    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    for (char *at = text; *at; at++) {
        if (*at < ' ' || *at > '~') {
            *at = '?';
        }
    }
}

static fm_status_t owner_write(int fd, const char *path, fm_error_t *err)
{
    char host[256] = "";
    char since[32];

    (void)gethostname(host, sizeof(host) - 1);
    fm_clock_format(fm_clock_wall_ns(), since, sizeof(since));
    char *text =
        fm_asprintf("pid %ld on %s since %s\n", (long)getpid(), host, since);
    if (!text) {
        return fm_no_memory(err);
    }
    fm_status_t rc = FM_OK;
    if (ftruncate(fd, 0) != 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "truncate %s", path);
    } else {
        rc = fm_file_write_all(fd, text, strlen(text), path, err);
    }
    free(text);
    return rc;
}

fm_status_t fm_journal_dir_lock(const char *dir, int *fd_out, fm_error_t *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char owner[OWNER_MAX_BYTES];
    fm_status_t rc = FM_OK;
    char *path = fm_asprintf("%s/lock", dir);

    if (!path) {
        return fm_no_memory(err);
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "open %s", path);
        goto out;
    }
    if (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        if (errno == EAGAIN || errno == EACCES) {
            owner_read(fd, owner);
            rc = fm_error_set(err, FM_ERR_BUSY,
                              "%s: the journal is in use by %s; stop that "
                              "process first",
                              path, *owner ? owner : "another process");
        } else {
            rc = fm_error_set_errno(err, FM_ERR_IO, errno,
                                    "lock %s (the file system must support "
                                    "locks)",
                                    path);
        }
        goto out;
    }
    if ((rc = owner_write(fd, path, err)) < 0) {
        goto out;
    }
    *fd_out = fd;
    fd = -1;
out:
    if (fd >= 0) {
        (void)close(fd);
    }
    free(path);
    return rc;
}

char *fm_journal_dir_path(const char *dir, uint32_t generation)
{
    return fm_asprintf("%s/%s%08u.fmj", dir, file_prefix, generation);
}

static char *manifest_text(uint32_t generation)
{
    return fm_asprintf("flowmesh-journal 1\ngeneration %u\nfile %s%08u.fmj\n",
                       generation, file_prefix, generation);
}

fm_status_t fm_journal_dir_current(const char *dir, uint32_t *generation_out,
                                   fm_error_t *err)
{
    static const char start[] = "flowmesh-journal 1\ngeneration ";
    fm_buf_t buf = {0};
    char *same = NULL;
    char *path = fm_asprintf("%s/manifest", dir);
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!path) {
        return fm_no_memory(err);
    }
    if ((rc = fm_file_read(path, MANIFEST_MAX_BYTES, &buf, err)) < 0) {
        goto out;
    }
    const char *text = fm_buf_cstr(&buf);
    unsigned long generation = 0;
    if (strncmp(text, start, sizeof(start) - 1) == 0) {
        generation = strtoul(text + sizeof(start) - 1, NULL, 10);
    }
    /* Whatever is not letter for letter what we would write is refused. */
    if (!(same = manifest_text((uint32_t)generation))) {
        rc = fm_no_memory(err);
    } else if (generation == 0 || generation > UINT32_MAX ||
               strcmp(same, text) != 0) {
        rc = fm_error_set(err, FM_ERR_CORRUPT,
                          "%s:0: not a manifest; write the three lines of "
                          "docs/spec/journal.md for the newest whole file",
                          path);
    } else {
        *generation_out = (uint32_t)generation;
    }
out:
    free(same);
    free(path);
    fm_buf_fini(&buf);
    return rc;
}

fm_status_t fm_journal_dir_switch(const char *dir, uint32_t generation,
                                  fm_error_t *err)
{
    char *path = fm_asprintf("%s/manifest", dir);
    char *text = manifest_text(generation);
    fm_status_t rc = FM_OK;

    if (!path || !text) {
        rc = fm_no_memory(err);
    } else if (fm_fault("journal.rename")) {
        rc = fm_error_set_errno(err, FM_ERR_IO, EIO, "rename %s", path);
    } else {
        rc = fm_file_replace(path, text, strlen(text), err);
    }
    free(path);
    free(text);
    return rc;
}

static bool is_journal_file(const char *name)
{
    size_t len = strlen(name);

    return strncmp(name, file_prefix, sizeof(file_prefix) - 1) == 0 &&
           len > 4 && strcmp(name + len - 4, ".fmj") == 0;
}

/* Call @p each for every journal file and stale temporary manifest. */
static fm_status_t dir_walk(const char *dir,
                            fm_status_t (*each)(void *ctx, int dir_fd,
                                                const char *name,
                                                fm_error_t *err),
                            void *ctx, fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    DIR *handle = opendir(dir);

    if (!handle) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "list %s", dir);
    }
    for (struct dirent *entry = NULL; rc >= 0 && (entry = readdir(handle));) {
        if (is_journal_file(entry->d_name) ||
            strncmp(entry->d_name, "manifest.tmp.", 13) == 0) {
            rc = each(ctx, dirfd(handle), entry->d_name, err);
        }
    }
    (void)closedir(handle);
    return rc;
}

static fm_status_t sweep_one(void *ctx, int dir_fd, const char *name,
                             fm_error_t *err)
{
    const char *keep = ctx;

    if (strcmp(name, strrchr(keep, '/') + 1) != 0 &&
        unlinkat(dir_fd, name, 0) != 0 && errno != ENOENT) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "remove %s", name);
    }
    return FM_OK;
}

fm_status_t fm_journal_dir_sweep(const char *dir, uint32_t generation,
                                 fm_error_t *err)
{
    char *keep = fm_journal_dir_path(dir, generation);

    if (!keep) {
        return fm_no_memory(err);
    }
    fm_status_t rc = dir_walk(dir, sweep_one, keep, err);
    free(keep);
    return rc;
}

/* A file of a creation that did not come to its manifest holds a header. */
static fm_status_t check_one(void *ctx, int dir_fd, const char *name,
                             fm_error_t *err)
{
    struct stat st;

    if (is_journal_file(name) && fstatat(dir_fd, name, &st, 0) == 0 &&
        st.st_size > (off_t)HEADER_BYTES) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "%s/manifest:0: missing, but %s holds records; "
                            "write the three lines of docs/spec/journal.md "
                            "for the newest whole file",
                            (const char *)ctx, name);
    }
    return FM_OK;
}

fm_status_t fm_journal_dir_check_empty(const char *dir, fm_error_t *err)
{
    char *copy = fm_strdup(dir);

    if (!copy) {
        return fm_no_memory(err);
    }
    fm_status_t rc = dir_walk(dir, check_one, copy, err);
    free(copy);
    return rc;
}
