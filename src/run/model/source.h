/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file source.h
 * The safetensors files of one model as one table of tensors, and the small
 * files beside them.  Private to run/model.
 */
#ifndef FM_RUN_MODEL_SOURCE_H
#define FM_RUN_MODEL_SOURCE_H

#include "base/buf.h"
#include "engine/weights/dtype.h"
#include "engine/weights/safetensors.h"

/** A tensor and the file that has it. */
typedef struct fm_source_tensor {
    const fm_engine_safetensor_t *tensor;
    const fm_engine_safetensors_t *file;
    const char *path; /**< of the file */
} fm_source_tensor_t;

typedef struct fm_source {
    char *dir; /**< where the files are */
    fm_engine_safetensors_t **files;
    char **paths;
    size_t file_count;
    fm_source_tensor_t *tensors; /**< file by file, in the order of the data */
    size_t tensor_count;
    const fm_source_tensor_t **by_name;
} fm_source_t;

/**
 * Open what is at @p path: a directory with STEM.safetensors.index.json or
 * STEM.safetensors, or one of these files by any name.
 * @param stem  "model" or "adapter_model".
 */
FM_MUST_USE fm_status_t fm_source_open(const char *path, const char *stem,
                                       fm_source_t *source_out,
                                       fm_error_t *err);
void fm_source_fini(fm_source_t *source);
/** NULL when there is no tensor of that name. */
const fm_source_tensor_t *fm_source_find(const fm_source_t *source,
                                         const char *name);
/** The precision that a tensor is stored in, and its rank of 1 or 2.
 *  @retval FM_ERR_UNSUPPORTED  another one. */
FM_MUST_USE fm_status_t fm_source_dtype(const fm_source_tensor_t *tensor,
                                        fm_engine_dtype_t *dtype_out,
                                        fm_error_t *err);

/** The directory of what is at @p path: itself, or the file's; free() it. */
char *fm_source_dir(const char *path);
/** Read a JSON object beside the tensors; NULL when there is no such file. */
FM_MUST_USE fm_status_t fm_source_json(const char *dir, const char *name,
                                       fm_json_t **json_out, fm_error_t *err);
/** Read any small file; false, and nothing appended, when it is not there. */
FM_MUST_USE fm_status_t fm_source_file(const char *dir, const char *name,
                                       size_t limit_bytes, fm_buf_t *out,
                                       bool *found_out, fm_error_t *err);

#endif
