/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the store into the engine, a tensor at a time: read once, into the end
 * of one buffer of the largest tensor, widened there, and copied to the
 * device.  The parameters are allocated first: what does not fit is refused
 * before a tensor is read.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/model/model.h"

void fm_model_fini(fm_model_t *model)
{
    fm_engine_model_destroy(model->model);
    fm_tokenizer_destroy(model->tokenizer);
    fm_engine_value_destroy(model->score);
    fm_json_drop(model->generation);
    memset(model, 0, sizeof(*model));
}

void fm_model_adapter_fini(fm_model_adapter_t *adapter)
{
    fm_engine_adapter_destroy(adapter->adapter);
    fm_engine_value_destroy(adapter->score);
    memset(adapter, 0, sizeof(*adapter));
}

/* --- making --------------------------------------------------------------- */

/* The backend looks at what is free before it hands memory out. */
static fm_status_t model_create(const fm_engine_config_t *config,
                                fm_engine_backend_t *backend,
                                fm_engine_model_t **model_out, fm_error_t *err)
{
    fm_status_t rc = fm_engine_model_create(config, backend, model_out, err);

    if (rc == FM_ERR_NO_MEMORY) {
        size_t count = fm_engine_config_param_count(config);
        rc = fm_error_set(err, FM_ERR_LIMIT,
                          "a model of %zu parameters takes %zu MiB as float32, "
                          "and this process may take %zu MiB more: run it "
                          "where there is more memory, or give the job more "
                          "(--mem)",
                          count, count * sizeof(float) >> 20,
                          fm_engine_cpu_memory_left() >> 20);
    }
    return rc;
}

static fm_status_t tokenizer_make(fm_cas_t *cas, const fm_json_t *description,
                                  fm_tokenizer_t **tokenizer_out,
                                  fm_error_t *err)
{
    const char *text = fm_json_get_str(description, "digest");
    fm_buf_t json = {0};
    fm_digest_t digest;
    uint64_t size = 0;
    fm_status_t rc = FM_OK;

    if (!description) {
        return fm_tokenizer_create_byte(tokenizer_out, err);
    }
    if (!text) {
        return fm_tokenizer_create(description, NULL, 0, tokenizer_out, err);
    }
    if (!cas || !fm_digest_parse(text, &digest)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "digest: want sha256: and 64 hex digits");
    }
    if (fm_cas_size(cas, &digest, NULL, &size) &&
        size > FM_TOKENIZER_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "tokenizer.json of %" PRIu64 " bytes", size);
    }
    if ((rc = fm_cas_get(cas, &digest, &json, err)) >= 0) {
        rc = fm_tokenizer_create(description, json.data, json.len,
                                 tokenizer_out, err);
    }
    fm_buf_fini(&json);
    return rc;
}

/* Everything but the parameters' values. */
static fm_status_t empty_make(fm_cas_t *cas, const fm_engine_config_t *config,
                              const fm_json_t *tokenizer,
                              fm_engine_backend_t *backend, fm_model_t *model,
                              fm_error_t *err)
{
    fm_status_t rc = model_create(config, backend, &model->model, err);

    if (rc < 0) {
        return rc;
    }
    if ((rc = tokenizer_make(cas, tokenizer, &model->tokenizer, err)) < 0) {
        fm_error_wrap(err, "tokenizer");
        return rc;
    }
    int32_t vocab = fm_tokenizer_vocab_size(model->tokenizer);
    if (config->vocab_size < (size_t)vocab) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config.vocab_size: %zu; the tokenizer needs at "
                            "least %d",
                            config->vocab_size, vocab);
    }
    fm_tokenizer_reach(model->tokenizer, (int32_t)config->vocab_size);
    model->bytes = fm_engine_config_param_count(config) * sizeof(float);
    return FM_OK;
}

fm_status_t fm_model_make(fm_cas_t *cas, const fm_json_t *config_json,
                          const fm_json_t *tokenizer,
                          fm_engine_backend_t *backend, fm_model_t *model_out,
                          fm_error_t *err)
{
    fm_model_t model = {0};
    fm_engine_config_t config;
    fm_status_t rc = fm_engine_config_parse(config_json, &config, err);

    if (rc < 0) {
        return rc;
    }
    if ((rc = empty_make(cas, &config, tokenizer, backend, &model, err)) < 0) {
        fm_model_fini(&model);
        return rc;
    }
    *model_out = model;
    return FM_OK;
}

size_t fm_model_memory(const fm_model_manifest_t *manifest)
{
    size_t count = 0;

    for (size_t i = 0; i < manifest->tensor_count; i++) {
        count += manifest->tensors[i].count;
    }
    return count * sizeof(float);
}

/* --- tensors -------------------------------------------------------------- */

/* Elements of the largest tensor, at least 1. */
static size_t largest(const fm_model_manifest_t *manifest)
{
    size_t count = 1;

    for (size_t i = 0; i < manifest->tensor_count; i++) {
        const fm_model_tensor_t *tensor = &manifest->tensors[i];
        count = tensor->count > count ? tensor->count : count;
    }
    return count;
}

/* Read a checked tensor into host, [count] floats, which has room for it. */
static fm_status_t tensor_widen(fm_cas_t *cas, const fm_model_tensor_t *tensor,
                                float *host, fm_error_t *err)
{
    size_t bytes = fm_model_tensor_bytes(tensor);
    uint8_t *end = (uint8_t *)host + tensor->count * sizeof(float) - bytes;
    size_t len = 0;
    fm_status_t rc = fm_cas_read(cas, &tensor->digest, end, bytes, &len, err);

    if (rc >= 0 && len != bytes) {
        rc = fm_error_set(err, FM_ERR_INVALID, "%zu bytes stored, %zu needed",
                          len, bytes);
    }
    if (rc < 0) {
        fm_error_wrap(err, "tensor %s", tensor->name);
        return rc;
    }
    fm_engine_dtype_widen(tensor->dtype, end, host, tensor->count);
    return FM_OK;
}

static fm_status_t score_load(fm_cas_t *cas,
                              const fm_model_manifest_t *manifest,
                              const fm_engine_model_t *model, float *host,
                              fm_engine_value_t **score_out, fm_error_t *err)
{
    const fm_model_tensor_t *tensor =
        fm_model_manifest_find(manifest, FM_MODEL_SCORE);
    fm_engine_value_t *score = NULL;
    fm_status_t rc = FM_OK;

    if (!tensor) {
        return FM_OK;
    }
    if ((rc = fm_engine_value_create(model, &score, err)) < 0) {
        return rc;
    }
    if ((rc = fm_model_tensor_check(tensor, fm_engine_value_param(score),
                                    err)) >= 0 &&
        (rc = tensor_widen(cas, tensor, host, err)) >= 0) {
        rc = fm_engine_value_write(score, 0, tensor->count, host, err);
    }
    if (rc < 0) {
        fm_engine_value_destroy(score);
        return rc;
    }
    *score_out = score;
    return FM_OK;
}

/* In the order of the block, which is about that of the files. */
static fm_status_t tensors_load(fm_cas_t *cas,
                                const fm_model_manifest_t *manifest,
                                fm_model_t *model, float *host, fm_error_t *err)
{
    size_t count = 0;
    const fm_engine_param_t *params =
        fm_engine_model_params(model->model, &count);
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const fm_model_tensor_t *tensor =
            fm_model_manifest_find(manifest, params[i].name);
        if ((rc = fm_model_tensor_check(tensor, &params[i], err)) >= 0 &&
            (rc = tensor_widen(cas, tensor, host, err)) >= 0) {
            rc = fm_engine_model_write(model->model, params[i].offset,
                                       params[i].count, host, err);
        }
    }
    return rc < 0 ? rc
                  : score_load(cas, manifest, model->model, host, &model->score,
                               err);
}

fm_status_t fm_model_load(fm_cas_t *cas, const fm_digest_t *digest,
                          fm_engine_backend_t *backend, fm_model_t *model_out,
                          fm_error_t *err)
{
    fm_model_manifest_t manifest = {0};
    fm_model_t model = {.digest = *digest};
    float *host = NULL;
    fm_status_t rc = fm_model_manifest_read(cas, digest, &manifest, err);

    if (rc >= 0 && manifest.is_adapter) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "this is an adapter: name its model, and the adapter "
                          "beside it");
    }
    if (rc < 0 || (rc = empty_make(cas, &manifest.config,
                                   fm_json_get(manifest.json, "tokenizer"),
                                   backend, &model, err)) < 0) {
        goto out;
    }
    if (!(host = fm_malloc(largest(&manifest) * sizeof(*host)))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = tensors_load(cas, &manifest, &model, host, err)) < 0) {
        goto out;
    }
    model.generation = fm_json_keep(fm_json_get(manifest.json, "generation"));
    *model_out = model;
    model = (fm_model_t){0};
out:
    free(host);
    fm_model_fini(&model);
    fm_model_manifest_fini(&manifest);
    return rc;
}

/* --- adapters ------------------------------------------------------------- */

/* An adapter changes the model it was trained with and no other: on another
 * one of the same shapes it would run, and give nonsense. */
static fm_status_t base_check(const fm_model_manifest_t *manifest,
                              const fm_model_t *base, fm_error_t *err)
{
    char of[FM_DIGEST_TEXT_BYTES];
    char with[FM_DIGEST_TEXT_BYTES];

    if (!manifest->is_adapter) {
        return fm_error_set(err, FM_ERR_INVALID, "this is a model");
    }
    if (!fm_digest_is_zero(&base->digest) &&
        !fm_digest_equal(&base->digest, &manifest->base)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "it adapts model %s and was given with %s; import "
                            "it again with --base to say that it fits",
                            fm_digest_format(&manifest->base, of),
                            fm_digest_format(&base->digest, with));
    }
    return FM_OK;
}

static fm_status_t matrices_load(fm_cas_t *cas,
                                 const fm_model_manifest_t *manifest,
                                 fm_engine_adapter_t *adapter, float *host,
                                 fm_error_t *err)
{
    size_t count = 0;
    const fm_engine_param_t *params = fm_engine_adapter_params(adapter, &count);
    size_t score = fm_model_manifest_find(manifest, FM_MODEL_SCORE) ? 1 : 0;
    fm_status_t rc = FM_OK;

    if (manifest->tensor_count != count + score) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tensors: %zu; its configuration asks for %zu",
                            manifest->tensor_count, count + score);
    }
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const fm_model_tensor_t *tensor =
            fm_model_manifest_find(manifest, params[i].name);
        if ((rc = fm_model_tensor_check(tensor, &params[i], err)) >= 0 &&
            (rc = tensor_widen(cas, tensor, host, err)) >= 0) {
            rc = fm_engine_adapter_write(adapter, params[i].offset,
                                         params[i].count, host, err);
        }
    }
    return rc;
}

fm_status_t fm_model_adapter_load(fm_cas_t *cas, const fm_digest_t *digest,
                                  const fm_model_t *base,
                                  fm_model_adapter_t *adapter_out,
                                  fm_error_t *err)
{
    fm_model_manifest_t manifest = {0};
    fm_model_adapter_t adapter = {0};
    float *host = NULL;
    fm_status_t rc = fm_model_manifest_read(cas, digest, &manifest, err);

    if (rc < 0 || (rc = base_check(&manifest, base, err)) < 0 ||
        (rc = fm_engine_adapter_create(&manifest.lora, base->model,
                                       &adapter.adapter, err)) < 0) {
        goto out;
    }
    if (!(host = fm_malloc(largest(&manifest) * sizeof(*host)))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = matrices_load(cas, &manifest, adapter.adapter, host, err)) < 0 ||
        (rc = score_load(cas, &manifest, base->model, host, &adapter.score,
                         err)) < 0) {
        goto out;
    }
    adapter.bytes = fm_model_memory(&manifest);
    *adapter_out = adapter;
    adapter = (fm_model_adapter_t){0};
out:
    free(host);
    fm_model_adapter_fini(&adapter);
    fm_model_manifest_fini(&manifest);
    return rc;
}
