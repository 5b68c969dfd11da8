/* SPDX-License-Identifier: Apache-2.0 */
/* Names of models: a file each, replaced in one step. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "run/model/place.h"

/* A name's file is one line; anything longer is not one of ours. */
#define LINE_BYTES_MAX 256u
#define NAMES_MAX 100000u

bool fm_model_name_valid(const char *name)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789._-";
    size_t len = strlen(name);

    return len > 0 && len <= FM_MODEL_NAME_MAX &&
           strspn(name, allowed) == len && !strchr("._-", name[0]) &&
           !strstr(name, ".tmp."); /* a name on its way */
}

static fm_status_t name_check(const char *name, fm_error_t *err)
{
    return fm_model_name_valid(name)
               ? FM_OK
               : fm_error_set(err, FM_ERR_INVALID,
                              "\"%.140s\": a name is 1 to %d of [A-Za-z0-9._-] "
                              "and begins with a letter or digit",
                              name, FM_MODEL_NAME_MAX);
}

static fm_status_t path_make(const fm_model_library_t *library,
                             const char *name, char **path_out, fm_error_t *err)
{
    fm_status_t rc = name_check(name, err);

    if (rc >= 0 && !(*path_out = fm_asprintf("%s/%s", library->models, name))) {
        rc = fm_no_memory(err);
    }
    return rc;
}

fm_status_t fm_model_name_set(fm_model_library_t *library, const char *name,
                              const fm_digest_t *digest, fm_error_t *err)
{
    char line[FM_DIGEST_TEXT_BYTES + 1];
    char *path = NULL;
    fm_status_t rc = path_make(library, name, &path, err);

    if (rc < 0) {
        return rc;
    }
    size_t len = strlen(fm_digest_format(digest, line));
    line[len] = '\n';
    if ((rc = fm_file_make_dirs(library->models, 0755, err)) >= 0) {
        rc = fm_file_replace(path, line, len + 1, err);
    }
    free(path);
    return rc;
}

/* "…; there are a, b, c" */
static fm_status_t unknown(fm_model_library_t *library, const char *name,
                           fm_error_t *err)
{
    fm_json_t *names = NULL;
    fm_buf_t list = {0};

    if (fm_model_names(library, &names, err) < 0) {
        return err ? err->status : FM_ERR_NOT_FOUND;
    }
    for (size_t i = 0; i < fm_json_len(names) && i < 20; i++) {
        fm_buf_printf(&list, "%s%s", i ? ", " : "",
                      fm_json_str(fm_json_at(names, i)));
    }
    (void)fm_error_set(
        err, FM_ERR_NOT_FOUND, "no model is named %s in %s; %s%s", name,
        library->models, list.len ? "there are " : "there is none",
        list.len ? fm_buf_cstr(&list) : "");
    fm_buf_fini(&list);
    fm_json_drop(names);
    return FM_ERR_NOT_FOUND;
}

fm_status_t fm_model_name_get(fm_model_library_t *library, const char *name,
                              fm_digest_t *digest_out, fm_error_t *err)
{
    fm_buf_t line = {0};
    char *path = NULL;
    fm_status_t rc = path_make(library, name, &path, err);

    if (rc < 0) {
        return rc;
    }
    rc = fm_file_read(path, LINE_BYTES_MAX, &line, err);
    if (rc == FM_ERR_NOT_FOUND) {
        rc = unknown(library, name, err);
    } else if (rc >= 0) {
        if (line.len > 0 && line.data[line.len - 1] == '\n') {
            line.len--;
        }
        if (!fm_digest_parse(fm_buf_cstr(&line), digest_out)) {
            rc = fm_error_set(err, FM_ERR_CORRUPT,
                              "%s: want one line, a digest; set the name anew",
                              path);
        }
    }
    fm_buf_fini(&line);
    free(path);
    return rc;
}

fm_status_t fm_model_name_remove(fm_model_library_t *library, const char *name,
                                 fm_error_t *err)
{
    char *path = NULL;
    fm_status_t rc = path_make(library, name, &path, err);

    if (rc < 0) {
        return rc;
    }
    if (unlink(path) != 0) {
        rc = errno == ENOENT
                 ? unknown(library, name, err)
                 : fm_error_set_errno(err, FM_ERR_IO, errno, "remove %s", path);
    } else {
        rc = fm_file_fsync_parent(path, err);
    }
    free(path);
    return rc;
}

static int text_order(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static fm_status_t names_read(DIR *dir, char ***names_out, size_t *count_out,
                              fm_error_t *err)
{
    size_t capacity = 0;
    const struct dirent *entry = NULL;
    fm_status_t rc = FM_OK;

    while (rc >= 0 && *count_out < NAMES_MAX && (entry = readdir(dir))) {
        if (!fm_model_name_valid(entry->d_name)) {
            continue;
        }
        char *name = fm_strdup(entry->d_name);
        rc = name ? fm_grow(names_out, &capacity, *count_out,
                            sizeof(**names_out), err)
                  : fm_no_memory(err);
        if (rc < 0) {
            free(name);
        } else {
            (*names_out)[(*count_out)++] = name;
        }
    }
    return rc;
}

fm_status_t fm_model_names(fm_model_library_t *library, fm_json_t **names_out,
                           fm_error_t *err)
{
    fm_json_t *list = fm_json_array();
    char **names = NULL;
    size_t count = 0;
    DIR *dir = opendir(library->models);
    fm_status_t rc = list ? FM_OK : fm_no_memory(err);

    if (!dir && errno != ENOENT) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "open %s",
                                library->models);
    }
    if (rc >= 0 && dir) {
        rc = names_read(dir, &names, &count, err);
    }
    if (count > 0) {
        qsort((void *)names, count, sizeof(*names), text_order);
    }
    for (size_t i = 0; i < count; i++) {
        if (rc >= 0 && fm_json_append(list, fm_json_string(names[i])) < 0) {
            rc = fm_no_memory(err);
        }
        free(names[i]);
    }
    free((void *)names);
    if (dir) {
        (void)closedir(dir);
    }
    if (rc < 0) {
        fm_json_drop(list);
        return rc;
    }
    *names_out = list;
    return FM_OK;
}

fm_status_t fm_model_find(fm_model_library_t *library, const char *text,
                          fm_digest_t *digest_out, fm_error_t *err)
{
    return fm_digest_parse(text, digest_out)
               ? FM_OK
               : fm_model_name_get(library, text, digest_out, err);
}
