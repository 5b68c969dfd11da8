/* SPDX-License-Identifier: Apache-2.0 */
/** @file place.h  What the files of a library share.  Private to run/model. */
#ifndef FM_RUN_MODEL_PLACE_H
#define FM_RUN_MODEL_PLACE_H

#include "run/model/library.h"

struct fm_model_library {
    char *models; /**< DIR/models */
    fm_cas_t *cas;
    int lock; /**< of the writer's name; -1: read-only */
};

/**
 * imports.c: what importing @p path (made absolute) for @p base gave, when its
 * files are as they were then and the store has all of it.
 * @param files_out  how the files are now, for fm_import_remember().
 * @param found_out  whether it is known; then imported_out is set.
 */
FM_MUST_USE fm_status_t fm_import_recall(fm_model_library_t *library,
                                         const char *path,
                                         const fm_digest_t *base,
                                         fm_json_t **files_out, bool *found_out,
                                         fm_model_imported_t *imported_out,
                                         fm_error_t *err);
/** Remember an import that took place between @p files and now; @p now_ns is
 *  the wall clock at its start.
 *  @retval FM_ERR_INVALID  a file changed meanwhile. */
FM_MUST_USE fm_status_t fm_import_remember(
    fm_model_library_t *library, const char *path, const fm_digest_t *base,
    const fm_json_t *files, int64_t now_ns, const fm_model_imported_t *imported,
    fm_error_t *err);

#endif
