/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file model.h
 * Models and adapters in the store (docs/spec/model.md): what their manifests
 * say, from the store into an engine model, and back.
 *
 * A manifest names its tensors by digest, each an object of its own in the
 * precision it came in, so models that share tensors share bytes.  Loading
 * widens to float32 one tensor at a time: beside the model itself it takes
 * the memory of the largest tensor.
 *
 * Manifests come from outside: fm_model_manifest_read() checks all that is
 * used later.  Threads: as the store's handle and the engine's backend.
 */
#ifndef FM_RUN_MODEL_MODEL_H
#define FM_RUN_MODEL_MODEL_H

#include "engine/model/adapter.h"
#include "engine/model/model.h"
#include "engine/model/value.h"
#include "engine/weights/dtype.h"
#include "store/cas/cas.h"
#include "text/tokenizer/tokenizer.h"

#define FM_MODEL_FORMAT "flowmesh-model/1"
#define FM_MODEL_ADAPTER_FORMAT "flowmesh-adapter/1"
/** Bytes of a manifest at most. */
#define FM_MODEL_MANIFEST_BYTES_MAX ((size_t)64 << 20)
/** The tensor that a reward model has besides those of its configuration. */
#define FM_MODEL_SCORE "score.weight"

/** A tensor of a manifest. */
typedef struct fm_model_tensor {
    const char *name;
    fm_engine_dtype_t dtype;
    size_t rank;       /**< 1 or 2 */
    uint64_t shape[2]; /**< shape[1] = 1 for rank 1 */
    uint64_t count;    /**< elements */
    fm_digest_t digest;
} fm_model_tensor_t;

/** A checked manifest. */
typedef struct fm_model_manifest {
    fm_json_t *json; /**< all of it; owns the names */
    bool is_adapter;
    fm_engine_config_t config;       /**< of a model */
    fm_engine_adapter_config_t lora; /**< of an adapter */
    fm_digest_t base;                /**< of an adapter: its model */
    fm_model_tensor_t *tensors;      /**< sorted by name */
    size_t tensor_count;
} fm_model_manifest_t;

/**
 * Read a manifest and check it: format, configuration, tensors complete for
 * the configuration and of its shapes (an adapter's of its own configuration,
 * as far as that tells without the base).
 * @retval FM_ERR_NOT_FOUND
 * @retval FM_ERR_INVALID, FM_ERR_UNSUPPORTED  names the key or the tensor.
 */
FM_MUST_USE fm_status_t
fm_model_manifest_read(fm_cas_t *cas, const fm_digest_t *digest,
                       fm_model_manifest_t *manifest_out, fm_error_t *err);
/** The same for a text; @p what names it in errors. */
FM_MUST_USE fm_status_t
fm_model_manifest_parse(const char *text, size_t len, const char *what,
                        fm_model_manifest_t *manifest_out, fm_error_t *err);
void fm_model_manifest_fini(fm_model_manifest_t *manifest);
/** NULL when there is no tensor of that name. */
const fm_model_tensor_t *
fm_model_manifest_find(const fm_model_manifest_t *manifest, const char *name);
/** Store @p json as a manifest, in canonical form. */
FM_MUST_USE fm_status_t fm_model_manifest_put(fm_cas_t *cas,
                                              const fm_json_t *json,
                                              fm_digest_t *digest_out,
                                              fm_error_t *err);
/** {"dtype", "shape", "digest"}; new reference or NULL. */
fm_json_t *fm_model_tensor_json(const fm_model_tensor_t *tensor);
/** Bytes of the tensor as it is stored. */
uint64_t fm_model_tensor_bytes(const fm_model_tensor_t *tensor);

/** Check that @p param is what the tensor holds.  @p tensor NULL: missing. */
FM_MUST_USE fm_status_t fm_model_tensor_check(const fm_model_tensor_t *tensor,
                                              const fm_engine_param_t *param,
                                              fm_error_t *err);

/* --- loading -------------------------------------------------------------- */

/** A model in memory. */
typedef struct fm_model {
    fm_engine_model_t *model;
    fm_tokenizer_t *tokenizer;
    fm_engine_value_t *score; /**< of a reward model, else NULL */
    fm_json_t *generation;    /**< as in the manifest, or NULL */
    fm_digest_t digest;       /**< of its manifest; zero: never stored */
    size_t bytes;             /**< of its parameters */
} fm_model_t;

void fm_model_fini(fm_model_t *model);

/**
 * A model with all parameters zero and its tokenizer.  One that does not fit
 * what is free is refused with the numbers, before anything is read.
 * @param tokenizer  a description; NULL: byte-level.
 * @param cas        read for the tokenizer; may be NULL without one of "json".
 * @retval FM_ERR_LIMIT  it does not fit.
 */
FM_MUST_USE fm_status_t fm_model_make(fm_cas_t *cas, const fm_json_t *config,
                                      const fm_json_t *tokenizer,
                                      fm_engine_backend_t *backend,
                                      fm_model_t *model_out, fm_error_t *err);
/** Bytes of float32 parameters that a stored model takes in memory. */
size_t fm_model_memory(const fm_model_manifest_t *manifest);
/** Load a stored model.  @retval FM_ERR_LIMIT  it does not fit. */
FM_MUST_USE fm_status_t fm_model_load(fm_cas_t *cas, const fm_digest_t *digest,
                                      fm_engine_backend_t *backend,
                                      fm_model_t *model_out, fm_error_t *err);

/** An adapter in memory. */
typedef struct fm_model_adapter {
    fm_engine_adapter_t *adapter;
    fm_engine_value_t *score; /**< of a reward model, else NULL */
    size_t bytes;
} fm_model_adapter_t;

void fm_model_adapter_fini(fm_model_adapter_t *adapter);
/**
 * Load a stored adapter for @p base.
 * @retval FM_ERR_INVALID  it was made for another model, or has other shapes.
 */
FM_MUST_USE fm_status_t fm_model_adapter_load(fm_cas_t *cas,
                                              const fm_digest_t *digest,
                                              const fm_model_t *base,
                                              fm_model_adapter_t *adapter_out,
                                              fm_error_t *err);

/* --- storing -------------------------------------------------------------- */

/** Hears of every object that belongs to what is stored, manifest last. */
typedef fm_status_t fm_model_object_fn(void *ctx, const fm_digest_t *digest,
                                       fm_error_t *err);

/**
 * Put the tensors as float32, and the manifest; nothing is sealed.  A tensor
 * that training left alone has the digest it had.
 * @param on_object  may be NULL.
 */
FM_MUST_USE fm_status_t fm_model_store(fm_cas_t *cas, const fm_model_t *model,
                                       fm_model_object_fn *on_object, void *ctx,
                                       fm_digest_t *digest_out,
                                       fm_error_t *err);
/** The same for an adapter of the model stored as @p base. */
FM_MUST_USE fm_status_t
fm_model_adapter_store(fm_cas_t *cas, const fm_model_adapter_t *adapter,
                       const fm_digest_t *base, fm_model_object_fn *on_object,
                       void *ctx, fm_digest_t *digest_out, fm_error_t *err);

#endif
