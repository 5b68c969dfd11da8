/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a directory of Hugging Face into the store.  All names, shapes and
 * dtypes are checked before the first tensor is read; the manifest is written
 * last, so whatever ends an import leaves no half a model.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "run/model/put.h"

#define HEAD "lm_head.weight"
#define EMBEDDING "model.embed_tokens.weight"
/* Tables of angles that old files carry and nobody reads. */
#define ANGLES ".rotary_emb.inv_freq"

/* --- tensors into the store ----------------------------------------------- */

fm_status_t fm_put_init(fm_put_t *put, fm_cas_t *cas, const fm_source_t *source,
                        fm_error_t *err)
{
    uint64_t most = 1;

    memset(put, 0, sizeof(*put));
    for (size_t i = 0; i < source->tensor_count; i++) {
        const fm_engine_safetensor_t *tensor = source->tensors[i].tensor;
        size_t width = fm_engine_safetensors_dtype_bytes(tensor->dtype);
        uint64_t bytes = width < sizeof(float)
                             ? tensor->bytes / width * sizeof(float)
                             : tensor->bytes;
        most = bytes > most ? bytes : most;
    }
    put->cas = cas;
    put->source = source;
    put->tensors = fm_json_object();
    put->buffer = fm_malloc((size_t)most);
    if (!put->tensors || !put->buffer) {
        fm_put_fini(put);
        return fm_no_memory(err);
    }
    return fm_cas_stat(cas, &put->before, err);
}

void fm_put_fini(fm_put_t *put)
{
    free(put->buffer);
    fm_json_drop(put->tensors);
    memset(put, 0, sizeof(*put));
}

static fm_status_t described(fm_put_t *put, const fm_model_tensor_t *tensor,
                             fm_error_t *err)
{
    put->done.tensor_count++;
    put->done.parameters += tensor->count;
    put->done.bytes += fm_model_tensor_bytes(tensor);
    return fm_json_set(put->tensors, tensor->name,
                       fm_model_tensor_json(tensor)) < 0
               ? fm_no_memory(err)
               : FM_OK;
}

fm_status_t fm_put_tensor(fm_put_t *put, const fm_source_tensor_t *entry,
                          const char *name, bool widen, fm_digest_t *digest_out,
                          fm_error_t *err)
{
    static const fm_cas_dtype_t dtypes[FM_ENGINE_DTYPE_COUNT] = {
        [FM_ENGINE_F32] = FM_CAS_F32,
        [FM_ENGINE_F16] = FM_CAS_F16,
        [FM_ENGINE_BF16] = FM_CAS_BF16};
    const fm_engine_safetensor_t *from = entry->tensor;
    fm_model_tensor_t tensor = {.name = name,
                                .rank = from->rank,
                                .shape = {from->shape[0], 1},
                                .count = 1};
    fm_status_t rc = fm_source_dtype(entry, &tensor.dtype, err);

    if (rc < 0) {
        return rc;
    }
    for (size_t i = 0; i < from->rank; i++) {
        tensor.shape[i] = from->shape[i];
        tensor.count *= from->shape[i];
    }
    uint8_t *to = put->buffer;
    if (widen) { /* read to the end, widened towards the front */
        to += tensor.count * sizeof(float) - from->bytes;
    }
    if ((rc = fm_engine_safetensors_read(entry->file, from, to, err)) < 0) {
        return rc;
    }
    if (widen) {
        fm_engine_dtype_widen(tensor.dtype, to, put->buffer, tensor.count);
        tensor.dtype = FM_ENGINE_F32;
    }
    if ((rc = fm_cas_put_tensor(put->cas, dtypes[tensor.dtype], tensor.shape,
                                tensor.rank, put->buffer, &tensor.digest,
                                err)) < 0) {
        fm_error_wrap(err, "store tensor %.200s", name);
        return rc;
    }
    *digest_out = tensor.digest;
    return described(put, &tensor, err);
}

fm_status_t fm_put_finish(fm_put_t *put, fm_json_t *json, fm_error_t *err)
{
    fm_cas_stat_t after = {0};
    fm_status_t rc = fm_cas_stat(put->cas, &after, err);

    put->done.shared_count =
        (size_t)(after.dedup_count - put->before.dedup_count);
    put->done.shared_bytes = after.dedup_bytes - put->before.dedup_bytes;
    if (rc >= 0 &&
        fm_json_set(json, "tensors", fm_json_keep(put->tensors)) < 0) {
        rc = fm_no_memory(err);
    }
    if (rc >= 0 && (rc = fm_model_manifest_put(put->cas, json,
                                               &put->done.digest, err)) >= 0) {
        rc = fm_cas_seal(put->cas, err);
    }
    return rc;
}

/* --- checks --------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);
    size_t part = strlen(end);

    return length >= part && strcmp(text + length - part, end) == 0;
}

static fm_status_t shape_check(const fm_source_t *source,
                               const fm_engine_param_t *param, fm_error_t *err)
{
    const fm_source_tensor_t *entry = fm_source_find(source, param->name);
    fm_engine_dtype_t dtype;

    if (!entry) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: tensor %s is missing: config.json asks for "
                            "it; is the download complete?",
                            source->dir, param->name);
    }
    const fm_engine_safetensor_t *tensor = entry->tensor;
    if (tensor->rank != param->rank || tensor->shape[0] != param->shape[0] ||
        (tensor->rank == 2 && tensor->shape[1] != param->shape[1])) {
        return fm_error_set(
            err, FM_ERR_INVALID,
            "%s: tensor %s: %zu dimensions, [%" PRIu64 ", %" PRIu64
            "]; config.json asks for [%zu, %zu]: the files are not of one "
            "model",
            entry->path, param->name, tensor->rank, tensor->shape[0],
            tensor->rank > 1 ? tensor->shape[1] : 1, param->shape[0],
            param->shape[1]);
    }
    return fm_source_dtype(entry, &dtype, err);
}

/* A tensor that config.json does not ask for would be lost without a word. */
static fm_status_t stranger_check(const fm_engine_model_t *table,
                                  const fm_source_tensor_t *entry,
                                  fm_error_t *err)
{
    const char *name = entry->tensor->name;

    if (fm_engine_model_find(table, name) ||
        strcmp(name, FM_MODEL_SCORE) == 0 || strcmp(name, HEAD) == 0 ||
        ends_with(name, ANGLES)) {
        return FM_OK;
    }
    return fm_error_set(err, FM_ERR_UNSUPPORTED,
                        "%s: tensor %.200s: config.json describes a model "
                        "without it; is model_type right?",
                        entry->path, name);
}

static fm_status_t source_check(const fm_source_t *source,
                                const fm_engine_model_t *table, fm_error_t *err)
{
    size_t count = 0;
    const fm_engine_param_t *params = fm_engine_model_params(table, &count);
    const fm_engine_param_t score = {
        .name = FM_MODEL_SCORE,
        .rank = 2,
        .shape = {1, fm_engine_model_config(table)->hidden_size}};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < source->tensor_count; i++) {
        rc = stranger_check(table, &source->tensors[i], err);
    }
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = shape_check(source, &params[i], err);
    }
    if (rc >= 0 && fm_source_find(source, FM_MODEL_SCORE)) {
        rc = shape_check(source, &score, err);
    }
    return rc;
}

/* --- model ---------------------------------------------------------------- */

static fm_status_t tensors_put(fm_put_t *put, const fm_engine_model_t *table,
                               fm_error_t *err)
{
    const fm_source_t *source = put->source;
    fm_digest_t digest = {{0}};
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < source->tensor_count; i++) {
        const fm_source_tensor_t *entry = &source->tensors[i];
        const char *name = entry->tensor->name;
        if (fm_engine_model_find(table, name) ||
            strcmp(name, FM_MODEL_SCORE) == 0) {
            rc = fm_put_tensor(put, entry, name, false, &digest, err);
        }
    }
    return rc;
}

/* With tied embeddings a head of its own must be the same one. */
static fm_status_t head_check(const fm_put_t *put, const char *config_path,
                              fm_error_t *err)
{
    const fm_source_tensor_t *head = fm_source_find(put->source, HEAD);
    const fm_json_t *embedding = fm_json_get(put->tensors, EMBEDDING);
    fm_digest_t digest;
    fm_status_t rc = FM_OK;

    if (!head || fm_json_get(put->tensors, HEAD)) {
        return FM_OK;
    }
    rc = fm_engine_safetensors_read(head->file, head->tensor, put->buffer, err);
    if (rc < 0) {
        return rc;
    }
    digest = fm_sha256(put->buffer, (size_t)head->tensor->bytes);
    fm_digest_t other = {{0}};
    if (!fm_digest_parse(fm_json_get_str(embedding, "digest"), &other) ||
        !fm_digest_equal(&digest, &other)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: tensor " HEAD " differs from " EMBEDDING
                            ", but %s says tie_word_embeddings: set it to "
                            "false, or remove the tensor",
                            head->path, config_path);
    }
    return FM_OK;
}

/* What generation_config.json says, less what says nothing about the model. */
static fm_status_t generation_read(const char *dir, fm_json_t **out,
                                   fm_error_t *err)
{
    fm_status_t rc = fm_source_json(dir, "generation_config.json", out, err);

    if (rc >= 0 && *out) {
        fm_json_remove(*out, "transformers_version");
        fm_json_remove(*out, "_from_model_config");
    }
    return rc;
}

static fm_status_t config_read(const char *dir, const fm_source_t *source,
                               fm_json_t **json_out, fm_engine_config_t *config,
                               fm_error_t *err)
{
    fm_status_t rc = fm_source_json(dir, "config.json", json_out, err);

    if (rc >= 0 && !*json_out) {
        rc = fm_error_set(err, FM_ERR_NOT_FOUND,
                          "%s: has no config.json, which says what the tensors "
                          "are",
                          dir);
    }
    if (rc < 0) {
        return rc;
    }
    if (fm_json_is(fm_json_get(*json_out, "quantization_config"),
                   FM_JSON_OBJECT)) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "%s/config.json: quantization_config: quantised "
                            "weights are not read; import the model it was "
                            "made from",
                            dir);
    }
    if ((rc = fm_engine_config_parse(*json_out, config, err)) < 0) {
        fm_error_wrap(err, "%s/config.json", dir);
        return rc;
    }
    /* A reward model has no head over the vocabulary: say that it needs none.
     */
    if (fm_source_find(source, FM_MODEL_SCORE) &&
        !fm_source_find(source, HEAD)) {
        config->tie_word_embeddings = true;
    }
    return FM_OK;
}

static fm_status_t manifest_make(fm_cas_t *cas, const char *dir,
                                 const fm_json_t *config_json,
                                 const fm_engine_config_t *config,
                                 fm_json_t **out, fm_error_t *err)
{
    fm_json_t *json = fm_json_object();
    fm_json_t *generation = NULL;
    fm_json_t *tokenizer = NULL;
    fm_status_t rc =
        json ? generation_read(dir, &generation, err) : fm_no_memory(err);

    if (rc >= 0) {
        rc = fm_model_tokenizer_import(cas, dir, config_json, generation,
                                       &tokenizer, err);
    }
    if (rc >= 0 &&
        (fm_json_set(json, "format", fm_json_string(FM_MODEL_FORMAT)) < 0 ||
         fm_json_set(json, "config", fm_engine_config_to_json(config)) < 0 ||
         fm_json_set(json, "tokenizer", fm_json_keep(tokenizer)) < 0 ||
         (generation &&
          fm_json_set(json, "generation", fm_json_keep(generation)) < 0))) {
        rc = fm_no_memory(err);
    }
    fm_json_drop(generation);
    fm_json_drop(tokenizer);
    if (rc < 0) {
        fm_json_drop(json);
        return rc;
    }
    *out = json;
    return FM_OK;
}

static fm_status_t model_import(fm_cas_t *cas, const char *path,
                                fm_model_imported_t *done_out, fm_error_t *err)
{
    fm_source_t source = {0};
    fm_put_t put = {0};
    fm_engine_config_t config;
    fm_engine_model_t *table = NULL;
    fm_json_t *config_json = NULL;
    fm_json_t *manifest = NULL;
    fm_status_t rc = fm_source_open(path, "model", &source, err);

    if (rc < 0 ||
        (rc = config_read(source.dir, &source, &config_json, &config, err)) <
            0 ||
        (rc = fm_engine_model_create(&config, NULL, &table, err)) < 0 ||
        (rc = source_check(&source, table, err)) < 0 ||
        (rc = manifest_make(cas, source.dir, config_json, &config, &manifest,
                            err)) < 0 ||
        (rc = fm_put_init(&put, cas, &source, err)) < 0 ||
        (rc = tensors_put(&put, table, err)) < 0 ||
        (rc = head_check(&put, "config.json", err)) < 0 ||
        (rc = fm_put_finish(&put, manifest, err)) < 0) {
        goto out;
    }
    *done_out = put.done;
out:
    fm_put_fini(&put);
    fm_json_drop(manifest);
    fm_json_drop(config_json);
    fm_engine_model_destroy(table);
    fm_source_fini(&source);
    return rc;
}

/* --- either --------------------------------------------------------------- */

bool fm_model_is_adapter(const char *path)
{
    char *dir = fm_source_dir(path);
    char *adapter = dir ? fm_asprintf("%s/adapter_config.json", dir) : NULL;
    char *model = dir ? fm_asprintf("%s/config.json", dir) : NULL;
    bool yes = adapter && model && access(adapter, F_OK) == 0 &&
               access(model, F_OK) != 0;

    free(dir);
    free(adapter);
    free(model);
    return yes;
}

fm_status_t fm_model_import(fm_cas_t *cas, const char *path,
                            const fm_digest_t *base,
                            fm_model_imported_t *imported_out, fm_error_t *err)
{
    if (access(path, R_OK) != 0) {
        return fm_error_set(err, FM_ERR_NOT_FOUND,
                            "%s: no such file or directory, or not readable",
                            path);
    }
    fm_status_t rc =
        fm_model_is_adapter(path)
            ? fm_model_adapter_import(cas, path, base, imported_out, err)
            : model_import(cas, path, imported_out, err);
    if (rc < 0) {
        (void)fm_cas_discard(cas);
    }
    return rc;
}
