/* SPDX-License-Identifier: Apache-2.0 */
/* A workflow from its file to its submission: read, checked, and what it names
 * stored, models before their adapters. */
#include "role/launch/submit.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"

/* Where the files of a workflow go. */
struct store {
    fm_submission_t *submission;
    const fm_launch_options_t *opts; /* NULL: data files only */
    const char *dir;
    fm_control_t *control; /* NULL: no data files */
};

static fm_status_t read_workflow(fm_submission_t *submission, fm_error_t *err)
{
    const char *file = submission->file;
    bool from_stdin = strcmp(file, "-") == 0;
    fm_buf_t buf = {0};
    fm_status_t rc = fm_file_read(from_stdin ? "/dev/stdin" : file,
                                  FM_WORKFLOW_TEXT_BYTES_MAX, &buf, err);

    if (rc >= 0) {
        submission->text_len = buf.len;
        submission->text =
            fm_strndup(buf.data ? (char *)buf.data : "", buf.len);
        rc = submission->text
                 ? fm_workflow_parse(submission->text, buf.len, file,
                                     &submission->workflow, err)
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
static char *file_path(const fm_submission_t *submission,
                       const fm_workflow_file_t *file)
{
    bool local = file->kind == FM_WORKFLOW_FILE_DATA ||
                 file->kind == FM_WORKFLOW_FILE_MODEL_PATH ||
                 file->kind == FM_WORKFLOW_FILE_ADAPTER_PATH;

    return local ? beside(submission->file, file->path) : fm_strdup(file->path);
}

/* Find what is no plain file, or store it; see fm_launch_options_t. */
static fm_status_t resolve(const fm_launch_options_t *opts, const char *dir,
                           const fm_workflow_file_t *file, const char *path,
                           const char *base, fm_digest_t *digest_out,
                           fm_error_t *err)
{
    assert(opts);
    if (!opts->resolve) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "%s: models are not imported here; name a digest",
                            file->path);
    }
    return opts->resolve(opts->ctx, dir, file, path, base, digest_out, err);
}

/* What the workflow reads must be there before anything else is touched. */
static fm_status_t check_files(const fm_submission_t *submission,
                               const fm_launch_options_t *opts, fm_error_t *err)
{
    size_t count = fm_workflow_file_count(submission->workflow);
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const fm_workflow_file_t *file =
            fm_workflow_file(submission->workflow, i);
        char *path = file_path(submission, file);
        if (!path) {
            rc = fm_no_memory(err);
        } else if (file->kind != FM_WORKFLOW_FILE_DATA) {
            rc = resolve(opts, NULL, file, path, NULL, NULL, err);
        } else if (access(path, R_OK) != 0) {
            rc = fm_error_set_errno(err, FM_ERR_NOT_FOUND, errno, "read %s",
                                    path);
        }
        if (rc < 0) {
            fm_error_wrap(err, "%s:%u:%u", submission->file, file->line,
                          file->column);
        }
        free(path);
    }
    return rc;
}

fm_status_t fm_submission_read(fm_submission_t *submission,
                               const fm_launch_options_t *opts, fm_error_t *err)
{
    if (!(submission->files = fm_json_object())) {
        return fm_no_memory(err);
    }
    fm_status_t rc = read_workflow(submission, err);
    return rc < 0 ? rc : check_files(submission, opts, err);
}

void fm_submission_fini(fm_submission_t *submission)
{
    fm_workflow_destroy(submission->workflow);
    fm_json_drop(submission->files);
    free(submission->text);
}

/* The model that the node of an adapter names, when it is known by now. */
static const char *base_of(const fm_submission_t *submission,
                           const fm_workflow_file_t *adapter)
{
    for (size_t i = 0; i < fm_workflow_file_count(submission->workflow); i++) {
        const fm_workflow_file_t *file =
            fm_workflow_file(submission->workflow, i);
        if (file->node == adapter->node && file != adapter &&
            file->kind != FM_WORKFLOW_FILE_DATA &&
            file->kind != FM_WORKFLOW_FILE_ADAPTER_PATH) {
            return fm_json_get_str(submission->files, file->key);
        }
    }
    return NULL;
}

static fm_status_t file_store(const struct store *to,
                              const fm_workflow_file_t *file, fm_error_t *err)
{
    fm_submission_t *submission = to->submission;
    char text[FM_DIGEST_TEXT_BYTES];
    fm_digest_t digest;
    char *path = file_path(submission, file);
    fm_status_t rc = path ? FM_OK : fm_no_memory(err);

    if (rc >= 0) {
        rc = to->control ? fm_control_ingest(to->control, path, &digest, err)
                         : resolve(to->opts, to->dir, file, path,
                                   base_of(submission, file), &digest, err);
    }
    free(path);
    if (rc >= 0) {
        rc = fm_json_set(submission->files, file->key,
                         fm_json_string(fm_digest_format(&digest, text)));
    }
    if (rc < 0) {
        fm_error_wrap(err, "%s:%u:%u", submission->file, file->line,
                      file->column);
    }
    return rc;
}

/* Store what the workflow names and is of a kind from first to last. */
static fm_status_t files_store(const struct store *to,
                               fm_workflow_file_kind_t first,
                               fm_workflow_file_kind_t last, fm_error_t *err)
{
    const fm_workflow_t *workflow = to->submission->workflow;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < fm_workflow_file_count(workflow); i++) {
        const fm_workflow_file_t *file = fm_workflow_file(workflow, i);
        if (file->kind >= first && file->kind <= last) {
            rc = file_store(to, file, err);
        }
    }
    return rc;
}

fm_status_t fm_submission_models(fm_submission_t *submission,
                                 const fm_launch_options_t *opts,
                                 const char *dir, fm_cas_t *cas,
                                 fm_error_t *err)
{
    const struct store to = {
        .submission = submission, .opts = opts, .dir = dir};
    fm_status_t rc = files_store(&to, FM_WORKFLOW_FILE_MODEL_PATH,
                                 FM_WORKFLOW_FILE_MODEL_NAME, err);

    if (rc >= 0) {
        rc = files_store(&to, FM_WORKFLOW_FILE_ADAPTER_PATH,
                         FM_WORKFLOW_FILE_ADAPTER_PATH, err);
    }
    return rc < 0 || fm_json_len(submission->files) == 0
               ? rc
               : fm_cas_refresh(cas, err);
}

fm_status_t fm_submission_submit(fm_submission_t *submission,
                                 fm_control_t *control, fm_error_t *err)
{
    const struct store to = {.submission = submission, .control = control};
    fm_status_t rc =
        files_store(&to, FM_WORKFLOW_FILE_DATA, FM_WORKFLOW_FILE_DATA, err);

    return rc < 0 ? rc
                  : fm_control_submit(control, submission->text,
                                      submission->text_len, submission->file,
                                      submission->files, &submission->run, err);
}
