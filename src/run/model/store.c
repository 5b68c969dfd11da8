/* SPDX-License-Identifier: Apache-2.0 */
/* From the engine into the store: a tensor at a time, as float32. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/model/model.h"

/* Where tensors of one store go. */
struct sink {
    fm_cas_t *cas;
    fm_json_t *tensors; /* of the manifest */
    fm_model_object_fn *on_object;
    void *ctx;
};

static fm_status_t told(const struct sink *sink, const fm_digest_t *digest,
                        fm_error_t *err)
{
    return sink->on_object ? sink->on_object(sink->ctx, digest, err) : FM_OK;
}

static fm_status_t tensor_put(const struct sink *sink,
                              const fm_engine_param_t *param, const float *host,
                              fm_error_t *err)
{
    fm_model_tensor_t tensor = {.name = param->name,
                                .dtype = FM_ENGINE_F32,
                                .rank = param->rank,
                                .shape = {param->shape[0], param->shape[1]},
                                .count = param->count};
    fm_status_t rc = fm_cas_put_tensor(sink->cas, FM_CAS_F32, tensor.shape,
                                       tensor.rank, host, &tensor.digest, err);

    if (rc >= 0 && (rc = told(sink, &tensor.digest, err)) >= 0 &&
        fm_json_set(sink->tensors, param->name, fm_model_tensor_json(&tensor)) <
            0) {
        rc = fm_no_memory(err);
    }
    if (rc < 0) {
        fm_error_wrap(err, "tensor %s", param->name);
    }
    return rc;
}

static size_t largest(const fm_engine_param_t *params, size_t count)
{
    size_t most = 1;

    for (size_t i = 0; i < count; i++) {
        most = params[i].count > most ? params[i].count : most;
    }
    return most;
}

static fm_status_t score_put(const struct sink *sink,
                             const fm_engine_value_t *score, fm_error_t *err)
{
    size_t width = score ? fm_engine_value_size(score) : 0;
    float *host = score ? fm_malloc(width * sizeof(*host)) : NULL;
    fm_status_t rc = FM_OK;

    if (!score) {
        return FM_OK;
    }
    if (!host) {
        return fm_no_memory(err);
    }
    if ((rc = fm_engine_value_read(score, 0, width, host, err)) >= 0) {
        rc = tensor_put(sink, fm_engine_value_param(score), host, err);
    }
    free(host);
    return rc;
}

/* Put the manifest: @p json with the tensors of the sink. */
static fm_status_t manifest_put(const struct sink *sink, fm_json_t *json,
                                fm_digest_t *digest_out, fm_error_t *err)
{
    fm_status_t rc =
        fm_json_set(json, "tensors", fm_json_keep(sink->tensors)) < 0
            ? fm_no_memory(err)
            : fm_model_manifest_put(sink->cas, json, digest_out, err);

    return rc < 0 ? rc : told(sink, digest_out, err);
}

static fm_status_t model_put(const struct sink *sink, const fm_model_t *model,
                             fm_error_t *err)
{
    size_t count = 0;
    const fm_engine_param_t *params =
        fm_engine_model_params(model->model, &count);
    float *host = fm_malloc(largest(params, count) * sizeof(*host));
    fm_status_t rc = host ? FM_OK : fm_no_memory(err);

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = fm_engine_model_read(model->model, params[i].offset,
                                  params[i].count, host, err);
        rc = rc < 0 ? rc : tensor_put(sink, &params[i], host, err);
    }
    free(host);
    return rc < 0 ? rc : score_put(sink, model->score, err);
}

/* A tokenizer in the store is an object that the model needs. */
static fm_status_t tokenizer_tell(const struct sink *sink,
                                  const fm_json_t *description, fm_error_t *err)
{
    const char *text = fm_json_get_str(description, "digest");
    fm_digest_t digest;

    return text && fm_digest_parse(text, &digest) ? told(sink, &digest, err)
                                                  : FM_OK;
}

fm_status_t fm_model_store(fm_cas_t *cas, const fm_model_t *model,
                           fm_model_object_fn *on_object, void *ctx,
                           fm_digest_t *digest_out, fm_error_t *err)
{
    fm_json_t *json = fm_json_object();
    fm_json_t *tokenizer = fm_tokenizer_describe(model->tokenizer);
    struct sink sink = {cas, fm_json_object(), on_object, ctx};
    fm_status_t rc = FM_OK;

    if (!json || !sink.tensors || !tokenizer ||
        fm_json_set(json, "format", fm_json_string(FM_MODEL_FORMAT)) < 0 ||
        fm_json_set(json, "config",
                    fm_engine_config_to_json(
                        fm_engine_model_config(model->model))) < 0 ||
        fm_json_set(json, "tokenizer", fm_json_keep(tokenizer)) < 0 ||
        (model->generation &&
         fm_json_set(json, "generation", fm_json_keep(model->generation)) <
             0)) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = tokenizer_tell(&sink, tokenizer, err)) >= 0 &&
        (rc = model_put(&sink, model, err)) >= 0) {
        rc = manifest_put(&sink, json, digest_out, err);
    }
out:
    fm_json_drop(sink.tensors);
    fm_json_drop(tokenizer);
    fm_json_drop(json);
    return rc;
}

static fm_status_t adapter_put(const struct sink *sink,
                               const fm_model_adapter_t *adapter,
                               fm_error_t *err)
{
    size_t count = 0;
    const fm_engine_param_t *params =
        fm_engine_adapter_params(adapter->adapter, &count);
    float *host = fm_malloc(largest(params, count) * sizeof(*host));
    fm_status_t rc = host ? FM_OK : fm_no_memory(err);

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = fm_engine_adapter_read(adapter->adapter, params[i].offset,
                                    params[i].count, host, err);
        rc = rc < 0 ? rc : tensor_put(sink, &params[i], host, err);
    }
    free(host);
    return rc < 0 ? rc : score_put(sink, adapter->score, err);
}

fm_status_t fm_model_adapter_store(fm_cas_t *cas,
                                   const fm_model_adapter_t *adapter,
                                   const fm_digest_t *base,
                                   fm_model_object_fn *on_object, void *ctx,
                                   fm_digest_t *digest_out, fm_error_t *err)
{
    fm_json_t *json = fm_json_object();
    struct sink sink = {cas, fm_json_object(), on_object, ctx};
    char text[FM_DIGEST_TEXT_BYTES];
    fm_status_t rc = FM_OK;

    if (!json || !sink.tensors ||
        fm_json_set(json, "format", fm_json_string(FM_MODEL_ADAPTER_FORMAT)) <
            0 ||
        fm_json_set(json, "base",
                    fm_json_string(fm_digest_format(base, text))) < 0 ||
        fm_json_set(json, "config",
                    fm_engine_adapter_config_to_json(
                        fm_engine_adapter_config(adapter->adapter))) < 0) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = adapter_put(&sink, adapter, err)) >= 0) {
        rc = manifest_put(&sink, json, digest_out, err);
    }
out:
    fm_json_drop(sink.tensors);
    fm_json_drop(json);
    return rc;
}
