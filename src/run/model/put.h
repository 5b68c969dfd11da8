/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file put.h
 * Tensors of a source into the store.  Private to run/model.
 */
#ifndef FM_RUN_MODEL_PUT_H
#define FM_RUN_MODEL_PUT_H

#include "run/model/source.h"
#include "run/model/transfer.h"

/** An import under way. */
typedef struct fm_put {
    fm_cas_t *cas;
    const fm_source_t *source;
    void *buffer; /**< room for the largest tensor as float32 */
    fm_json_t *tensors;
    fm_model_imported_t done;
    fm_cas_stat_t before; /**< what the store had deduplicated so far */
} fm_put_t;

/** Room for any tensor of the source, widened. */
FM_MUST_USE fm_status_t fm_put_init(fm_put_t *put, fm_cas_t *cas,
                                    const fm_source_t *source, fm_error_t *err);
void fm_put_fini(fm_put_t *put);
/**
 * Read a tensor and store it under @p name.
 * @param widen  as float32, else as it came.
 */
FM_MUST_USE fm_status_t fm_put_tensor(fm_put_t *put,
                                      const fm_source_tensor_t *entry,
                                      const char *name, bool widen,
                                      fm_digest_t *digest_out, fm_error_t *err);
/** Add the tensors to @p json, store it as the manifest, and seal all. */
FM_MUST_USE fm_status_t fm_put_finish(fm_put_t *put, fm_json_t *json,
                                      fm_error_t *err);

/** peft.c: fm_model_import() of an adapter's directory. */
FM_MUST_USE fm_status_t fm_model_adapter_import(fm_cas_t *cas, const char *dir,
                                                const fm_digest_t *base,
                                                fm_model_imported_t *done_out,
                                                fm_error_t *err);
/** tokenizer.c: store tokenizer.json of @p dir and describe it. */
FM_MUST_USE fm_status_t fm_model_tokenizer_import(
    fm_cas_t *cas, const char *dir, const fm_json_t *config,
    const fm_json_t *generation, fm_json_t **description_out, fm_error_t *err);
/** tokenizer.c: write the files that transformers loads a tokenizer from. */
FM_MUST_USE fm_status_t
fm_model_tokenizer_export(fm_cas_t *cas, const fm_model_manifest_t *manifest,
                          const char *dir, fm_error_t *err);

#endif
