/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Models: built from a configuration and a seed, or read from a manifest in
 * the store; those in use stay resident, the least recently used ones go
 * first when their bytes pass the bound.
 *
 * A manifest is canonical JSON, {"format": "flowmesh-model/1", "config": …,
 * "tokenizer": …, "tensors": {name: {"dtype", "shape", "digest"}}}; each
 * tensor is an object of its own, so models that share tensors share bytes.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/ops/internal.h"

#define MANIFEST_FORMAT "flowmesh-model/1"
#define MANIFEST_BYTES_MAX ((size_t)64 << 20)
#define RESIDENT_MAX 64 /* models, whatever their size */
#define RESIDENT_BYTES ((size_t)1 << 30)

typedef struct entry {
    fm_digest_t key; /* of the manifest, or of the canonical source */
    fm_ops_model_t model;
    uint64_t used; /* tick of the last use */
} entry_t;

struct fm_ops_models {
    entry_t entries[RESIDENT_MAX];
    size_t count;
    size_t bytes, bytes_max;
    uint64_t tick;
};

fm_status_t fm_ops_models_create(size_t resident_bytes,
                                 fm_ops_models_t **models_out, fm_error_t *err)
{
    fm_ops_models_t *models = fm_calloc(1, sizeof(*models));

    if (!models) {
        return fm_no_memory(err);
    }
    models->bytes_max = resident_bytes ? resident_bytes : RESIDENT_BYTES;
    *models_out = models;
    return FM_OK;
}

void *fm_ops_models_destroy(fm_ops_models_t *models)
{
    if (models) {
        for (size_t i = 0; i < models->count; i++) {
            fm_ops_model_fini(&models->entries[i].model);
        }
        free(models);
    }
    return NULL;
}

fm_json_t *fm_ops_models_resident(const fm_ops_models_t *models)
{
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; list && i < models->count; i++) {
        const entry_t *entry = &models->entries[i];
        char text[FM_DIGEST_TEXT_BYTES];
        fm_json_t *row = fm_json_object();
        if (!row ||
            fm_json_set(row, "model",
                        fm_json_string(fm_digest_format(&entry->key, text))) <
                0 ||
            fm_json_set(row, "bytes",
                        fm_json_int((int64_t)entry->model.bytes)) < 0) {
            fm_json_drop(row);
            return fm_json_drop(list);
        }
        if (fm_json_append(list, row) < 0) {
            return fm_json_drop(list);
        }
    }
    return list;
}

void fm_ops_model_fini(fm_ops_model_t *model)
{
    fm_engine_model_destroy(model->model);
    fm_engine_tokenizer_destroy(model->tokenizer);
    memset(model, 0, sizeof(*model));
}

/* --- building ------------------------------------------------------------ */

static fm_status_t empty_make(fm_ops_t *ops, const fm_json_t *config_json,
                              const fm_json_t *tokenizer, fm_ops_model_t *model,
                              fm_error_t *err)
{
    fm_engine_config_t config;
    fm_status_t rc = fm_engine_config_parse(config_json, &config, err);

    if (rc < 0) {
        fm_error_wrap(err, "config");
        return rc;
    }
    size_t params = fm_engine_config_param_count(&config);
    size_t memory = (size_t)sysconf(_SC_PHYS_PAGES) *
                    (size_t)sysconf(_SC_PAGESIZE) / sizeof(float);
    if (params > memory) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "a model of %zu parameters does not fit the "
                            "memory of this machine",
                            params);
    }
    rc = tokenizer ? fm_engine_tokenizer_create(tokenizer, NULL, 0,
                                                &model->tokenizer, err)
                   : fm_engine_tokenizer_create_byte(&model->tokenizer, err);
    if (rc < 0) {
        return rc;
    }
    int32_t vocab = fm_engine_tokenizer_vocab_size(model->tokenizer);
    if (config.vocab_size < (size_t)vocab) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "config.vocab_size: %zu; the tokenizer needs at "
                            "least %d",
                            config.vocab_size, vocab);
    }
    model->bytes = params * sizeof(float);
    return fm_engine_model_create(&config, ops->backend, &model->model, err);
}

static fm_status_t random_make(fm_ops_t *ops, const fm_json_t *source,
                               fm_ops_model_t *model, fm_error_t *err)
{
    const fm_json_t *config = fm_json_get(source, "config");
    int64_t seed;
    double range;
    fm_status_t rc;

    if ((rc = fm_ops_get_int(source, "seed", 0, INT64_MAX, 0, &seed, err)) <
            0 ||
        (rc = fm_ops_get_real(config, "initializer_range", 0, 1, 0.02, &range,
                              err)) < 0) {
        return rc;
    }
    if (range < 0.02 || range > 0.02) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "config.initializer_range: only 0.02 in this "
                            "version");
    }
    if ((rc = empty_make(ops, config, NULL, model, err)) < 0) {
        return rc;
    }
    return fm_engine_model_init(model->model, (uint64_t)seed, err);
}

static bool shape_equal(const fm_json_t *shape, const fm_engine_param_t *param)
{
    if (fm_json_len(shape) != param->rank) {
        return false;
    }
    for (size_t i = 0; i < param->rank; i++) {
        if (fm_json_int_or(fm_json_at(shape, i), -1) !=
            (int64_t)param->shape[i]) {
            return false;
        }
    }
    return true;
}

static fm_status_t tensor_read(fm_ops_t *ops, const fm_json_t *tensor,
                               const fm_engine_param_t *param,
                               fm_engine_model_t *model, float *host,
                               fm_error_t *err)
{
    const char *dtype = fm_json_get_str(tensor, "dtype");
    fm_digest_t digest;
    size_t len = 0;
    fm_status_t rc;

    if (!dtype || strcmp(dtype, "f32") != 0 ||
        !shape_equal(fm_json_get(tensor, "shape"), param)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "missing, or not f32 of the shape that config "
                            "asks for");
    }
    if ((rc = fm_ops_get_digest(tensor, "digest", &digest, err)) < 0 ||
        (rc = fm_cas_read(ops->cas, &digest, host, param->count * sizeof(float),
                          &len, err)) < 0) {
        return rc;
    }
    if (len != param->count * sizeof(float)) {
        return fm_error_set(err, FM_ERR_INVALID, "%zu bytes stored, %zu needed",
                            len, param->count * sizeof(float));
    }
    return fm_engine_model_write(model, param->offset, param->count, host, err);
}

static fm_status_t tensors_read(fm_ops_t *ops, const fm_json_t *tensors,
                                fm_ops_model_t *model, fm_error_t *err)
{
    size_t count = 0, largest = 0;
    const fm_engine_param_t *params =
        fm_engine_model_params(model->model, &count);
    fm_status_t rc = FM_OK;

    if (fm_json_len(tensors) != count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "tensors: %zu; config asks for %zu",
                            fm_json_len(tensors), count);
    }
    for (size_t i = 0; i < count; i++) {
        largest = params[i].count > largest ? params[i].count : largest;
    }
    float *host = fm_malloc(largest * sizeof(*host));
    if (!host) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = tensor_read(ops, fm_json_get(tensors, params[i].name), &params[i],
                         model->model, host, err);
        if (rc < 0) {
            fm_error_wrap(err, "tensors.%s", params[i].name);
        }
    }
    free(host);
    return rc;
}

static fm_status_t stored_make(fm_ops_t *ops, const fm_digest_t *digest,
                               fm_ops_model_t *model, fm_error_t *err)
{
    fm_buf_t bytes = {0};
    fm_json_t *manifest = NULL;
    const char *format;
    uint64_t size = 0;
    fm_status_t rc;

    if (fm_cas_size(ops->cas, digest, NULL, &size) &&
        size > MANIFEST_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_INVALID, "not a model manifest");
    }
    if ((rc = fm_cas_get(ops->cas, digest, &bytes, err)) < 0 ||
        (rc = fm_json_parse((const char *)bytes.data, bytes.len, "manifest",
                            &manifest, err)) < 0) {
        goto out;
    }
    format = fm_json_get_str(manifest, "format");
    if (!format || strcmp(format, MANIFEST_FORMAT) != 0) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "manifest.format: \"" MANIFEST_FORMAT "\" is needed");
        goto out;
    }
    if ((rc = empty_make(ops, fm_json_get(manifest, "config"),
                         fm_json_get(manifest, "tokenizer"), model, err)) >=
        0) {
        rc = tensors_read(ops, fm_json_get(manifest, "tensors"), model, err);
    }
out:
    fm_json_drop(manifest);
    fm_buf_fini(&bytes);
    return rc;
}

fm_status_t fm_ops_model_build(fm_ops_t *ops, const fm_json_t *source,
                               fm_ops_model_t *model_out, fm_error_t *err)
{
    fm_ops_model_t model = {0};
    fm_digest_t digest;
    fm_status_t rc;

    if (fm_json_get(source, "digest")) {
        rc = fm_ops_get_digest(source, "digest", &digest, err);
        rc = rc < 0 ? rc : stored_make(ops, &digest, &model, err);
    } else {
        rc = random_make(ops, source, &model, err);
    }
    if (rc < 0) {
        fm_error_wrap(err, "model");
        fm_ops_model_fini(&model);
        return rc;
    }
    *model_out = model;
    return FM_OK;
}

/* --- residents ----------------------------------------------------------- */

/* A stored model goes by its digest, a random one by its source's. */
static fm_status_t source_key(const fm_json_t *source, fm_digest_t *key_out,
                              fm_error_t *err)
{
    if (fm_json_get(source, "digest")) {
        return fm_ops_get_digest(source, "digest", key_out, err);
    }
    char *text = source ? fm_json_canonical(source) : NULL;
    if (!text) {
        return source ? fm_no_memory(err)
                      : fm_error_set(err, FM_ERR_INVALID, "is needed");
    }
    *key_out = fm_sha256(text, strlen(text));
    free(text);
    return FM_OK;
}

static void evict_one(fm_ops_models_t *models)
{
    size_t oldest = 0;

    for (size_t i = 1; i < models->count; i++) {
        if (models->entries[i].used < models->entries[oldest].used) {
            oldest = i;
        }
    }
    models->bytes -= models->entries[oldest].model.bytes;
    fm_ops_model_fini(&models->entries[oldest].model);
    models->entries[oldest] = models->entries[--models->count];
}

static entry_t *entry_find(fm_ops_models_t *models, const fm_digest_t *key)
{
    for (size_t i = 0; i < models->count; i++) {
        if (fm_digest_equal(&models->entries[i].key, key)) {
            models->entries[i].used = ++models->tick;
            return &models->entries[i];
        }
    }
    return NULL;
}

static entry_t *entry_add(fm_ops_models_t *models, const fm_digest_t *key,
                          const fm_ops_model_t *model)
{
    while (models->count > 0 &&
           (models->count == RESIDENT_MAX ||
            models->bytes + model->bytes > models->bytes_max)) {
        evict_one(models);
    }
    entry_t *entry = &models->entries[models->count++];
    *entry = (entry_t){*key, *model, ++models->tick};
    models->bytes += model->bytes;
    return entry;
}

fm_status_t fm_ops_model_load(fm_ops_t *ops, const fm_json_t *source,
                              const fm_ops_model_t **model_out, fm_error_t *err)
{
    fm_ops_model_t model = {0};
    fm_digest_t key;
    fm_status_t rc = source_key(source, &key, err);
    entry_t *entry;

    if (rc < 0) {
        fm_error_wrap(err, "model");
        return rc;
    }
    if (!(entry = entry_find(ops->models, &key))) {
        if ((rc = fm_ops_model_build(ops, source, &model, err)) < 0) {
            return rc;
        }
        entry = entry_add(ops->models, &key, &model);
    }
    *model_out = &entry->model;
    return FM_OK;
}

void fm_ops_model_adopt(fm_ops_t *ops, const fm_digest_t *digest,
                        fm_ops_model_t *model)
{
    if (entry_find(ops->models, digest)) {
        fm_ops_model_fini(model);
        return;
    }
    (void)entry_add(ops->models, digest, model);
    *model = (fm_ops_model_t){0};
}

/* --- storing ------------------------------------------------------------- */

static fm_json_t *tensor_describe(const fm_engine_param_t *param,
                                  const fm_digest_t *digest)
{
    fm_json_t *tensor = fm_json_object(), *shape = fm_json_array();
    char text[FM_DIGEST_TEXT_BYTES];
    bool ok = tensor && shape;

    for (size_t i = 0; ok && i < param->rank; i++) {
        ok = fm_json_append(shape, fm_json_int((int64_t)param->shape[i])) >= 0;
    }
    ok = ok && fm_json_set(tensor, "dtype", fm_json_string("f32")) >= 0 &&
         fm_json_set(tensor, "shape", fm_json_keep(shape)) >= 0 &&
         fm_json_set(tensor, "digest",
                     fm_json_string(fm_digest_format(digest, text))) >= 0;
    fm_json_drop(shape);
    return ok ? tensor : fm_json_drop(tensor);
}

static fm_status_t tensors_store(fm_ops_t *ops, const fm_ops_model_t *model,
                                 fm_json_t *tensors, fm_ops_output_t *output,
                                 fm_error_t *err)
{
    size_t count = 0;
    const fm_engine_param_t *params =
        fm_engine_model_params(model->model, &count);
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        const fm_engine_param_t *param = &params[i];
        uint64_t shape[2] = {param->shape[0], param->shape[1]};
        fm_digest_t digest;
        float *host = fm_malloc(param->count * sizeof(*host));

        rc = host ? fm_engine_model_read(model->model, param->offset,
                                         param->count, host, err)
                  : fm_no_memory(err);
        if (rc >= 0) {
            rc = fm_cas_put_tensor(ops->cas, FM_CAS_F32, shape, param->rank,
                                   host, &digest, err);
        }
        free(host);
        if (rc >= 0 && (rc = fm_ops_output_object(output, &digest, err)) >= 0 &&
            fm_json_set(tensors, param->name, tensor_describe(param, &digest)) <
                0) {
            rc = fm_no_memory(err);
        }
    }
    return rc;
}

fm_status_t fm_ops_model_store(fm_ops_t *ops, const fm_ops_model_t *model,
                               fm_ops_output_t *output,
                               fm_digest_t *manifest_out, fm_error_t *err)
{
    fm_json_t *manifest = fm_json_object(), *tensors = fm_json_object();
    char *text = NULL;
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!manifest || !tensors ||
        fm_json_set(manifest, "format", fm_json_string(MANIFEST_FORMAT)) < 0 ||
        fm_json_set(manifest, "config",
                    fm_engine_config_to_json(
                        fm_engine_model_config(model->model))) < 0 ||
        fm_json_set(manifest, "tokenizer",
                    fm_engine_tokenizer_describe(model->tokenizer)) < 0 ||
        fm_json_set(manifest, "tensors", fm_json_keep(tensors)) < 0) {
        (void)fm_no_memory(err);
        goto out;
    }
    if ((rc = tensors_store(ops, model, tensors, output, err)) < 0) {
        goto out;
    }
    if (!(text = fm_json_canonical(manifest))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = fm_cas_put(ops->cas, FM_CAS_MODEL, text, strlen(text),
                         manifest_out, err)) >= 0) {
        rc = fm_ops_output_object(output, manifest_out, err);
    }
out:
    free(text);
    fm_json_drop(tensors);
    fm_json_drop(manifest);
    return rc;
}
