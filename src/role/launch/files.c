/* SPDX-License-Identifier: Apache-2.0 */
/* The workflow and what it names: read, checked, stored (see launch.h). */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "role/launch/internal.h"

static fm_status_t read_workflow(struct launch *launch, fm_error_t *err)
{
    const char *file = launch->opts->file;
    bool from_stdin = strcmp(file, "-") == 0;
    fm_buf_t buf = {0};
    fm_status_t rc = fm_file_read(from_stdin ? "/dev/stdin" : file,
                                  FM_WORKFLOW_TEXT_BYTES_MAX, &buf, err);

    if (rc >= 0) {
        launch->text_len = buf.len;
        launch->text = fm_strndup(buf.data ? (char *)buf.data : "", buf.len);
        rc = launch->text ? fm_workflow_parse(launch->text, buf.len, file,
                                              &launch->workflow, err)
                          : fm_no_memory(err);
    }
    fm_buf_fini(&buf);
    return rc;
}

static char *beside(const char *file, const char *path)
{
    const char *slash = strrchr(file, '/');

    if (*path == '/' || !slash) {
        return fm_strdup(path);
    }
    return fm_asprintf("%.*s/%s", (int)(slash - file), file, path);
}

/* The path of a file or a local model; of others the name as written. */
static char *file_path(const struct launch *launch,
                       const fm_workflow_file_t *file)
{
    bool local = file->kind == FM_WORKFLOW_FILE_DATA ||
                 file->kind == FM_WORKFLOW_FILE_MODEL_PATH ||
                 file->kind == FM_WORKFLOW_FILE_ADAPTER_PATH;

    return local ? beside(launch->opts->file, file->path)
                 : fm_strdup(file->path);
}

/* Find what is no plain file, or store it; see fm_launch_options_t. */
static fm_status_t resolve(const struct launch *launch,
                           const fm_workflow_file_t *file, const char *path,
                           const char *base, fm_digest_t *digest_out,
                           fm_error_t *err)
{
    if (!launch->opts->resolve) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "%s: models are not imported here; name a digest",
                            file->path);
    }
    return launch->opts->resolve(launch->opts->ctx, launch->dir, file, path,
                                 base, digest_out, err);
}

/* What the workflow reads must be there before anything else is touched. */
static fm_status_t check_files(const struct launch *launch, fm_error_t *err)
{
    size_t count = fm_workflow_file_count(launch->workflow);
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const fm_workflow_file_t *file = fm_workflow_file(launch->workflow, i);
        char *path = file_path(launch, file);
        if (!path) {
            rc = fm_no_memory(err);
        } else if (file->kind != FM_WORKFLOW_FILE_DATA) {
            rc = resolve(launch, file, path, NULL, NULL, err);
        } else if (access(path, R_OK) != 0) {
            rc = fm_error_set_errno(err, FM_ERR_NOT_FOUND, errno, "read %s",
                                    path);
        }
        if (rc < 0) {
            fm_error_wrap(err, "%s:%u:%u", launch->opts->file, file->line,
                          file->column);
        }
        free(path);
    }
    return rc;
}

/* The model that the node of an adapter names, when it is known by now. */
static const char *base_of(const struct launch *launch,
                           const fm_workflow_file_t *adapter)
{
    for (size_t i = 0; i < fm_workflow_file_count(launch->workflow); i++) {
        const fm_workflow_file_t *file = fm_workflow_file(launch->workflow, i);
        if (file->node == adapter->node && file != adapter &&
            file->kind != FM_WORKFLOW_FILE_DATA &&
            file->kind != FM_WORKFLOW_FILE_ADAPTER_PATH) {
            return fm_json_get_str(launch->files, file->key);
        }
    }
    return NULL;
}

static fm_status_t file_store(struct launch *launch,
                              const fm_workflow_file_t *file, fm_error_t *err)
{
    char text[FM_DIGEST_TEXT_BYTES];
    fm_digest_t digest;
    char *path = file_path(launch, file);
    fm_status_t rc = path ? FM_OK : fm_no_memory(err);

    if (rc >= 0) {
        rc = file->kind == FM_WORKFLOW_FILE_DATA
                 ? fm_control_ingest(launch->control, path, &digest, err)
                 : resolve(launch, file, path, base_of(launch, file), &digest,
                           err);
    }
    free(path);
    if (rc >= 0) {
        rc = fm_json_set(launch->files, file->key,
                         fm_json_string(fm_digest_format(&digest, text)));
    }
    if (rc < 0) {
        fm_error_wrap(err, "%s:%u:%u", launch->opts->file, file->line,
                      file->column);
    }
    return rc;
}

/* Store what the workflow names and is of a kind from first to last. */
static fm_status_t files_store(struct launch *launch,
                               fm_workflow_file_kind_t first,
                               fm_workflow_file_kind_t last, fm_error_t *err)
{
    size_t count = fm_workflow_file_count(launch->workflow);
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const fm_workflow_file_t *file = fm_workflow_file(launch->workflow, i);
        if (file->kind >= first && file->kind <= last) {
            rc = file_store(launch, file, err);
        }
    }
    return rc;
}

/* Models before their adapters.  Imports may take minutes: before the other
 * ranks start, who would wait for an answer. */
fm_status_t fm_launch_store_models(struct launch *launch, fm_cas_t *cas,
                                   fm_error_t *err)
{
    fm_status_t rc = files_store(launch, FM_WORKFLOW_FILE_MODEL_PATH,
                                 FM_WORKFLOW_FILE_MODEL_NAME, err);

    if (rc >= 0) {
        rc = files_store(launch, FM_WORKFLOW_FILE_ADAPTER_PATH,
                         FM_WORKFLOW_FILE_ADAPTER_PATH, err);
    }
    return rc < 0 || fm_json_len(launch->files) == 0 ? rc
                                                     : fm_cas_refresh(cas, err);
}

fm_status_t fm_launch_store_data(struct launch *launch, fm_error_t *err)
{
    return files_store(launch, FM_WORKFLOW_FILE_DATA, FM_WORKFLOW_FILE_DATA,
                       err);
}

fm_status_t fm_launch_read(struct launch *launch, fm_error_t *err)
{
    fm_status_t rc = read_workflow(launch, err);

    return rc < 0 ? rc : check_files(launch, err);
}
