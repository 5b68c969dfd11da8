/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fabric's models.  Writers of one host have names of their own in the
 * store, "import-HOST-N", each held by a lock that the kernel drops when its
 * process ends: the next import of that name clears what a killed one left.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "run/model/place.h"

#define WRITERS_MAX 64 /* imports of one host into one fabric at a time */
#define HOST_BYTES 40

/* --- open ----------------------------------------------------------------- */

static void host_name(char *host)
{
    if (gethostname(host, HOST_BYTES) != 0) {
        host[0] = '\0';
    }
    host[HOST_BYTES - 1] = '\0';
    for (char *at = host; *at; at++) {
        if (!strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                    "0123456789-",
                    *at)) {
            *at = '-';
        }
    }
}

/* Hold a name that nobody holds. */
static fm_status_t writer_lock(fm_model_library_t *library, char **writer_out,
                               fm_error_t *err)
{
    char host[HOST_BYTES];
    char *dir = fm_asprintf("%s/.writers", library->models);
    fm_status_t rc =
        dir ? fm_file_make_dirs(dir, 0755, err) : fm_no_memory(err);

    host_name(host);
    for (int i = 0; rc >= 0 && library->lock < 0 && i < WRITERS_MAX; i++) {
        char *writer = fm_asprintf("import-%s-%d", host, i);
        char *path = writer ? fm_asprintf("%s/%s", dir, writer) : NULL;
        int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;
        if (!path) {
            rc = fm_no_memory(err);
        } else if (fd < 0) {
            rc = fm_error_set_errno(err, FM_ERR_IO, errno, "open %s", path);
        } else if (flock(fd, LOCK_EX | LOCK_NB) == 0) {
            library->lock = fd;
            *writer_out = writer;
            writer = NULL;
        } else {
            (void)close(fd);
        }
        free(path);
        free(writer);
    }
    free(dir);
    if (rc >= 0 && library->lock < 0) {
        rc = fm_error_set(err, FM_ERR_BUSY,
                          "%d imports from this host are under way; try again "
                          "when one has ended",
                          WRITERS_MAX);
    }
    return rc;
}

fm_status_t fm_model_library_open(const char *dir, bool write,
                                  fm_model_library_t **library_out,
                                  fm_error_t *err)
{
    fm_model_library_t *library = fm_calloc(1, sizeof(*library));
    fm_cas_options_t opts = {0};
    char *writer = NULL;
    char *cas = fm_asprintf("%s/cas", dir);
    fm_status_t rc = FM_OK;

    if (!library || !cas ||
        !(library->models = fm_asprintf("%s/models", dir))) {
        free(library);
        free(cas);
        return fm_no_memory(err);
    }
    library->lock = -1;
    if (write) {
        rc = writer_lock(library, &writer, err);
        opts.writer = writer;
    }
    if (rc >= 0) {
        rc = fm_cas_open(cas, &opts, &library->cas, err);
    }
    free(writer);
    free(cas);
    if (rc < 0) {
        fm_model_library_close(library);
        return rc;
    }
    *library_out = library;
    return FM_OK;
}

void *fm_model_library_close(fm_model_library_t *library)
{
    if (library) {
        fm_cas_close(library->cas);
        if (library->lock >= 0) {
            (void)close(library->lock);
        }
        free(library->models);
        free(library);
    }
    return NULL;
}

fm_cas_t *fm_model_library_cas(fm_model_library_t *library)
{
    return library->cas;
}

/* --- import --------------------------------------------------------------- */

static fm_status_t path_import(fm_model_library_t *library, const char *path,
                               const fm_digest_t *base, int64_t now_ns,
                               fm_model_imported_t *imported_out,
                               fm_error_t *err)
{
    char *absolute = realpath(path, NULL);
    fm_json_t *files = NULL;
    bool found = false;
    fm_status_t rc = FM_OK;

    if (!absolute) {
        return fm_error_set_errno(
            err, errno == ENOENT ? FM_ERR_NOT_FOUND : FM_ERR_IO, errno,
            "find %s", path);
    }
    now_ns = now_ns ? now_ns : fm_clock_wall_ns();
    rc = fm_import_recall(library, absolute, base, &files, &found, imported_out,
                          err);
    if (rc >= 0 && !found) {
        fm_model_imported_t imported = {0};
        if ((rc = fm_model_import(library->cas, absolute, base, &imported,
                                  err)) >= 0 &&
            (rc = fm_import_remember(library, absolute, base, files, now_ns,
                                     &imported, err)) >= 0) {
            *imported_out = imported;
        }
    }
    fm_json_drop(files);
    free(absolute);
    return rc;
}

/* A text that stands for a model: digest, name, path, "org/name".  A path is
 * also tried relative to @p beside, which may be NULL. */
static fm_status_t model_resolve(fm_model_library_t *library, const char *text,
                                 const char *beside, int64_t now_ns,
                                 fm_digest_t *digest_out, fm_error_t *err)
{
    fm_model_imported_t imported = {0};
    char *near = beside ? fm_asprintf("%s/%s", beside, text) : NULL;
    char *dir = NULL;
    fm_status_t rc = FM_OK;

    if (fm_digest_parse(text, digest_out)) {
        goto out;
    }
    if (fm_model_name_valid(text) &&
        fm_model_name_get(library, text, digest_out, NULL) >= 0) {
        goto out;
    }
    if (access(text, F_OK) == 0 || (near && access(near, F_OK) == 0)) {
        rc = path_import(library, access(text, F_OK) == 0 ? text : near, NULL,
                         now_ns, &imported, err);
    } else if (fm_model_hub_spelled(text)) {
        rc = fm_model_hub_find(text, NULL, &dir, err);
        rc = rc < 0 ? rc
                    : path_import(library, dir, NULL, now_ns, &imported, err);
    } else {
        rc = fm_error_set(err, FM_ERR_NOT_FOUND,
                          "%.200s: no digest, no name of a model, no path",
                          text);
    }
    if (rc >= 0) {
        *digest_out = imported.digest;
    }
out:
    free(dir);
    free(near);
    return rc;
}

static fm_status_t adapter_import(fm_model_library_t *library, const char *path,
                                  const fm_model_wish_t *wish,
                                  fm_model_imported_t *imported_out,
                                  fm_error_t *err)
{
    fm_digest_t base;
    char *said = NULL;
    fm_status_t rc = FM_OK;

    if (!wish->base && (rc = fm_model_adapter_base(path, &said, err)) < 0) {
        return rc;
    }
    if (!wish->base && !said) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: does not say which model it adapts; name it "
                            "with --base",
                            path);
    }
    rc = model_resolve(library, wish->base ? wish->base : said,
                       wish->base ? NULL : path, wish->now_ns, &base, err);
    if (rc < 0) {
        fm_error_wrap(err,
                      wish->base ? "%s: base"
                                 : "%s: base_model_name_or_path (--base names "
                                   "another)",
                      path);
    } else {
        rc = path_import(library, path, &base, wish->now_ns, imported_out, err);
    }
    free(said);
    return rc;
}

fm_status_t fm_model_library_import(fm_model_library_t *library,
                                    const fm_model_wish_t *wish,
                                    fm_model_imported_t *imported_out,
                                    fm_error_t *err)
{
    char *dir = NULL;
    const char *path = wish->source;
    fm_status_t rc = FM_OK;

    if (wish->is_hub) {
        rc = fm_model_hub_find(wish->source, wish->revision, &dir, err);
        path = dir;
    }
    if (rc >= 0) {
        rc = fm_model_is_adapter(path)
                 ? adapter_import(library, path, wish, imported_out, err)
                 : path_import(library, path, NULL, wish->now_ns, imported_out,
                               err);
    }
    free(dir);
    return rc;
}
