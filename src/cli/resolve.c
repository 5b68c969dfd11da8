/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The models and adapters that a workflow names by path, hub or name: found
 * before it is submitted, and imported into the fabric that will run it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/cli.h"
#include "run/model/library.h"

/* Without a fabric a name cannot be looked up: that is left for later. */
static fm_status_t look(const fm_workflow_file_t *file, const char *path,
                        fm_error_t *err)
{
    char *dir = NULL;
    fm_status_t rc = FM_OK;

    if (file->kind == FM_WORKFLOW_FILE_MODEL_HUB) {
        rc = fm_model_hub_find(path, file->revision, &dir, err);
    } else if (file->kind != FM_WORKFLOW_FILE_MODEL_NAME &&
               access(path, R_OK) != 0) {
        rc = fm_error_set(err, FM_ERR_NOT_FOUND,
                          "%s: no such file or directory, or not readable",
                          path);
    } else if (file->kind == FM_WORKFLOW_FILE_MODEL_PATH ||
               file->kind == FM_WORKFLOW_FILE_ADAPTER_PATH) {
        bool adapter = fm_model_is_adapter(path);
        bool wanted = file->kind == FM_WORKFLOW_FILE_ADAPTER_PATH;
        if (adapter != wanted) {
            rc =
                fm_error_set(err, FM_ERR_INVALID,
                             adapter ? "%s: is an adapter; name its model, and "
                                       "the adapter under model.adapters"
                                     : "%s: is no adapter: it has no "
                                       "adapter_config.json, or a config.json "
                                       "beside it",
                             path);
        }
    }
    free(dir);
    return rc;
}

static void told(const char *path, const fm_model_imported_t *imported)
{
    char text[FM_DIGEST_TEXT_BYTES];

    if (!imported->from_cache) {
        (void)fprintf(stderr,
                      "%s: imported as %s, %" PRIu64 " bytes, of which the "
                      "store had %" PRIu64 "\n",
                      path, fm_digest_format(&imported->digest, text),
                      imported->bytes, imported->shared_bytes);
    }
}

fm_status_t fm_cli_resolve(void *ctx, const char *dir,
                           const fm_workflow_file_t *file, const char *path,
                           const char *base, fm_digest_t *digest_out,
                           fm_error_t *err)
{
    fm_model_library_t *library = NULL;
    fm_model_imported_t imported = {0};
    const fm_model_wish_t wish = {.source = path,
                                  .is_hub =
                                      file->kind == FM_WORKFLOW_FILE_MODEL_HUB,
                                  .revision = file->revision,
                                  .base = base};
    fm_status_t rc = look(file, path, err);

    (void)ctx;
    if (rc < 0 || !digest_out) {
        return rc;
    }
    if ((rc = fm_model_library_open(dir, true, &library, err)) < 0) {
        return rc;
    }
    if (file->kind == FM_WORKFLOW_FILE_MODEL_NAME) {
        rc = fm_model_name_get(library, path, digest_out, err);
    } else if ((rc = fm_model_library_import(library, &wish, &imported, err)) >=
               0) {
        told(path, &imported);
        *digest_out = imported.digest;
    }
    fm_model_library_close(library);
    return rc;
}
