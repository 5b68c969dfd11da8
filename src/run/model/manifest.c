/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Manifests: parsed into a table sorted by name, and checked against what the
 * configuration asks for, so that later code may trust shapes and counts.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/model/model.h"

/* --- tensors -------------------------------------------------------------- */

uint64_t fm_model_tensor_bytes(const fm_model_tensor_t *tensor)
{
    return tensor->count * fm_engine_dtype_bytes(tensor->dtype);
}

fm_json_t *fm_model_tensor_json(const fm_model_tensor_t *tensor)
{
    fm_json_t *json = fm_json_object();
    fm_json_t *shape = fm_json_array();
    char text[FM_DIGEST_TEXT_BYTES];
    bool good = json && shape;

    for (size_t i = 0; good && i < tensor->rank; i++) {
        good =
            fm_json_append(shape, fm_json_int((int64_t)tensor->shape[i])) >= 0;
    }
    good =
        good &&
        fm_json_set(json, "dtype",
                    fm_json_string(fm_engine_dtype_name(tensor->dtype))) >= 0 &&
        fm_json_set(json, "shape", fm_json_keep(shape)) >= 0 &&
        fm_json_set(json, "digest",
                    fm_json_string(fm_digest_format(&tensor->digest, text))) >=
            0;
    fm_json_drop(shape);
    return good ? json : fm_json_drop(json);
}

static fm_status_t tensor_parse(const char *name, const fm_json_t *value,
                                fm_model_tensor_t *tensor, fm_error_t *err)
{
    const fm_json_t *shape = fm_json_get(value, "shape");
    const char *digest = fm_json_get_str(value, "digest");

    tensor->name = name;
    tensor->rank = fm_json_len(shape);
    tensor->count = 1;
    tensor->shape[1] = 1;
    if (!fm_engine_dtype_parse(fm_json_get_str(value, "dtype"),
                               &tensor->dtype)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "dtype: want \"f32\", \"f16\" or \"bf16\"");
    }
    if (!fm_json_is(shape, FM_JSON_ARRAY) || tensor->rank < 1 ||
        tensor->rank > 2) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "shape: want a list of 1 or 2 numbers");
    }
    for (size_t i = 0; i < tensor->rank; i++) {
        int64_t extent = fm_json_int_or(fm_json_at(shape, i), -1);
        if (extent < 1 || extent > INT64_C(1) << 31) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "shape[%zu]: want a number from 1 to 2^31", i);
        }
        tensor->shape[i] = (uint64_t)extent;
        tensor->count *= (uint64_t)extent;
    }
    if (!fm_digest_parse(digest ? digest : "", &tensor->digest)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "digest: want sha256: and 64 hex digits");
    }
    return FM_OK;
}

static int name_order(const void *a, const void *b)
{
    return strcmp(((const fm_model_tensor_t *)a)->name,
                  ((const fm_model_tensor_t *)b)->name);
}

static fm_status_t tensors_parse(fm_model_manifest_t *manifest, fm_error_t *err)
{
    const fm_json_t *tensors = fm_json_get(manifest->json, "tensors");
    size_t count = fm_json_len(tensors);
    void *at = NULL;
    const char *name = NULL;
    fm_json_t *value = NULL;
    fm_status_t rc = FM_OK;

    if (!fm_json_is(tensors, FM_JSON_OBJECT)) {
        return fm_error_set(err, FM_ERR_INVALID, "tensors: want an object");
    }
    if (!(manifest->tensors =
              fm_calloc(count + 1, sizeof(*manifest->tensors)))) {
        return fm_no_memory(err);
    }
    while (rc >= 0 && fm_json_next(tensors, &at, &name, &value)) {
        rc = tensor_parse(name, value,
                          &manifest->tensors[manifest->tensor_count++], err);
        if (rc < 0) {
            fm_error_wrap(err, "tensors.%.200s", name);
        }
    }
    qsort(manifest->tensors, manifest->tensor_count, sizeof(*manifest->tensors),
          name_order);
    return rc;
}

const fm_model_tensor_t *
fm_model_manifest_find(const fm_model_manifest_t *manifest, const char *name)
{
    const fm_model_tensor_t key = {.name = name};

    return bsearch(&key, manifest->tensors, manifest->tensor_count,
                   sizeof(*manifest->tensors), name_order);
}

fm_status_t fm_model_tensor_check(const fm_model_tensor_t *tensor,
                                  const fm_engine_param_t *param,
                                  fm_error_t *err)
{
    if (!tensor) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tensor %s is missing; the configuration asks for "
                            "it",
                            param->name);
    }
    if (tensor->rank != param->rank || tensor->shape[0] != param->shape[0] ||
        tensor->shape[1] != param->shape[1]) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tensor %s: shape [%" PRIu64 ", %" PRIu64
                            "]; the configuration asks for [%zu, %zu]",
                            param->name, tensor->shape[0], tensor->shape[1],
                            param->shape[0], param->shape[1]);
    }
    return FM_OK;
}

/* --- models --------------------------------------------------------------- */

static fm_status_t score_check(const fm_model_manifest_t *manifest,
                               size_t *count_out, fm_error_t *err)
{
    const fm_model_tensor_t *score =
        fm_model_manifest_find(manifest, FM_MODEL_SCORE);
    const fm_engine_param_t want = {.name = FM_MODEL_SCORE,
                                    .rank = 2,
                                    .shape = {1, manifest->config.hidden_size}};

    *count_out = score ? 1 : 0;
    return score ? fm_model_tensor_check(score, &want, err) : FM_OK;
}

static fm_status_t model_check(fm_model_manifest_t *manifest, fm_error_t *err)
{
    fm_engine_model_t *table = NULL;
    size_t count = 0;
    size_t score = 0;
    fm_status_t rc = fm_engine_config_parse(
        fm_json_get(manifest->json, "config"), &manifest->config, err);

    if (rc < 0 || (rc = fm_engine_model_create(&manifest->config, NULL, &table,
                                               err)) < 0) {
        return rc;
    }
    const fm_engine_param_t *params = fm_engine_model_params(table, &count);
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = fm_model_tensor_check(
            fm_model_manifest_find(manifest, params[i].name), &params[i], err);
    }
    if (rc >= 0 && (rc = score_check(manifest, &score, err)) >= 0 &&
        manifest->tensor_count != count + score) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "tensors: %zu; the configuration asks for %zu",
                          manifest->tensor_count, count + score);
    }
    fm_engine_model_destroy(table);
    return rc;
}

/* --- adapters ------------------------------------------------------------- */

/* Whether a tensor is an A [r, in] or a B [out, r] of a target. */
static bool lora_fits(const fm_model_manifest_t *manifest,
                      const fm_model_tensor_t *tensor)
{
    const char *at = strstr(tensor->name, ".lora_");
    size_t rank = manifest->lora.rank;

    if (!at || tensor->rank != 2) {
        return false;
    }
    return strcmp(at, ".lora_A.weight") == 0   ? tensor->shape[0] == rank
           : strcmp(at, ".lora_B.weight") == 0 ? tensor->shape[1] == rank
                                               : false;
}

static fm_status_t adapter_check(fm_model_manifest_t *manifest, fm_error_t *err)
{
    const char *base = fm_json_get_str(manifest->json, "base");
    fm_status_t rc = fm_engine_adapter_config_parse(
        fm_json_get(manifest->json, "config"), &manifest->lora, err);

    if (rc < 0) {
        return rc;
    }
    if (!fm_digest_parse(base ? base : "", &manifest->base)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "base: want the digest of a model");
    }
    for (size_t i = 0; i < manifest->tensor_count; i++) {
        const fm_model_tensor_t *tensor = &manifest->tensors[i];
        if (strcmp(tensor->name, FM_MODEL_SCORE) != 0 &&
            !lora_fits(manifest, tensor)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "tensor %.200s: not a lora_A or lora_B of "
                                "rank %zu",
                                tensor->name, manifest->lora.rank);
        }
    }
    return FM_OK;
}

/* --- whole ---------------------------------------------------------------- */

fm_status_t fm_model_manifest_parse(const char *text, size_t len,
                                    const char *what,
                                    fm_model_manifest_t *manifest_out,
                                    fm_error_t *err)
{
    fm_model_manifest_t manifest = {0};
    const char *format = NULL;
    fm_status_t rc = fm_json_parse(text, len, what, &manifest.json, err);

    if (rc < 0) {
        return rc;
    }
    format = fm_json_get_str(manifest.json, "format");
    manifest.is_adapter =
        format && strcmp(format, FM_MODEL_ADAPTER_FORMAT) == 0;
    if (!manifest.is_adapter &&
        (!format || strcmp(format, FM_MODEL_FORMAT) != 0)) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "format: want \"" FM_MODEL_FORMAT
                          "\" or \"" FM_MODEL_ADAPTER_FORMAT "\"");
    }
    if (rc >= 0 && (rc = tensors_parse(&manifest, err)) >= 0) {
        rc = manifest.is_adapter ? adapter_check(&manifest, err)
                                 : model_check(&manifest, err);
    }
    if (rc < 0) {
        fm_error_wrap(err, "%s", what);
        fm_model_manifest_fini(&manifest);
        return rc;
    }
    *manifest_out = manifest;
    return FM_OK;
}

fm_status_t fm_model_manifest_read(fm_cas_t *cas, const fm_digest_t *digest,
                                   fm_model_manifest_t *manifest_out,
                                   fm_error_t *err)
{
    fm_buf_t bytes = {0};
    uint64_t size = 0;
    fm_status_t rc = FM_OK;

    if (fm_cas_size(cas, digest, NULL, &size) &&
        size > FM_MODEL_MANIFEST_BYTES_MAX) {
        return fm_error_set(
            err, FM_ERR_INVALID,
            "an object of %" PRIu64 " bytes is not a model's manifest", size);
    }
    if ((rc = fm_cas_get(cas, digest, &bytes, err)) >= 0) {
        rc = fm_model_manifest_parse((const char *)bytes.data, bytes.len,
                                     "manifest", manifest_out, err);
    }
    fm_buf_fini(&bytes);
    return rc;
}

void fm_model_manifest_fini(fm_model_manifest_t *manifest)
{
    fm_json_drop(manifest->json);
    free(manifest->tensors);
    memset(manifest, 0, sizeof(*manifest));
}

fm_status_t fm_model_manifest_put(fm_cas_t *cas, const fm_json_t *json,
                                  fm_digest_t *digest_out, fm_error_t *err)
{
    char *text = fm_json_canonical(json);
    fm_status_t rc = text ? fm_cas_put(cas, FM_CAS_MODEL, text, strlen(text),
                                       digest_out, err)
                          : fm_no_memory(err);

    free(text);
    return rc;
}
