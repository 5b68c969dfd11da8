/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file transfer.h
 * Between the store and directories in the layout of Hugging Face (models)
 * and PEFT (adapters); docs/spec/model.md has the mapping.
 *
 * Memory: an import holds one tensor at a time, its pending objects in the
 * store (64 MiB) and, to check a tensor that is there already, that one again;
 * an export holds one tensor.  Nothing here uses the network.
 *
 * Threads: as the store's handle.
 */
#ifndef FM_RUN_MODEL_TRANSFER_H
#define FM_RUN_MODEL_TRANSFER_H

#include "run/model/model.h"

/** What an import did. */
typedef struct fm_model_imported {
    fm_digest_t digest; /**< of the manifest */
    bool is_adapter;
    bool from_cache; /**< imported before and unchanged: nothing was read */
    size_t tensor_count;
    uint64_t parameters;
    uint64_t bytes;        /**< of all tensors, as stored */
    uint64_t shared_bytes; /**< of those that the store had already */
    size_t shared_count;
} fm_model_imported_t;

/**
 * Import a model or an adapter, and seal it.
 *
 * @param path  a directory with config.json (or adapter_config.json) and
 *              safetensors, sharded or not; or a .safetensors or
 *              .safetensors.index.json file with the others beside it.
 * @param base  of an adapter: its model, which is in the store; else NULL.
 * @retval FM_ERR_NOT_FOUND    the text names what is missing.
 * @retval FM_ERR_INVALID, FM_ERR_UNSUPPORTED, FM_ERR_LIMIT
 *                             the text names file, tensor or key, and the mend.
 * @retval others              of the store: nothing but unused tensors is left.
 */
FM_MUST_USE fm_status_t fm_model_import(fm_cas_t *cas, const char *path,
                                        const fm_digest_t *base,
                                        fm_model_imported_t *imported_out,
                                        fm_error_t *err);
/** Whether @p path is the directory of an adapter. */
bool fm_model_is_adapter(const char *path);
/** base_model_name_or_path of an adapter's directory; free() it; NULL: none. */
FM_MUST_USE fm_status_t fm_model_adapter_base(const char *path, char **base_out,
                                              fm_error_t *err);

typedef struct fm_model_export_options {
    bool convert; /**< write every tensor as dtype, else as it is stored */
    fm_engine_dtype_t dtype;
    uint64_t shard_bytes; /**< start another file past this; 0: 5 GB */
} fm_model_export_options_t;

/**
 * Write a model or an adapter as a new directory that transformers or PEFT
 * load.  It is written under a temporary name beside @p path and renamed.
 * @param opts  NULL: defaults.
 * @retval FM_ERR_EXISTS   there is something at @p path; nothing was touched.
 * @retval FM_ERR_INVALID  a value is too large for opts->dtype.
 */
FM_MUST_USE fm_status_t fm_model_export(fm_cas_t *cas,
                                        const fm_digest_t *digest,
                                        const char *path,
                                        const fm_model_export_options_t *opts,
                                        fm_error_t *err);

#endif
