/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the store into a directory that transformers or PEFT load.  Tensors go
 * one at a time, in the order that other writers use; everything is written
 * into a directory of another name beside the wanted one, which then gets its
 * name in one step.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "engine/weights/safetensors.h"
#include "run/model/put.h"

#define SHARD_BYTES (UINT64_C(5) * 1000 * 1000 * 1000)
#define ADAPTER_PREFIX "base_model.model."

/* A tensor on its way out. */
struct item {
    fm_engine_safetensor_t as; /* what the file says; first: it is sorted by */
    const fm_model_tensor_t *from;
    fm_engine_dtype_t dtype;
    uint64_t bytes;
    size_t shard;
    char *name; /* owned where it differs from the manifest's */
};

struct export
{
    fm_cas_t *cas;
    const fm_model_manifest_t *manifest;
    const fm_model_export_options_t *opts;
    const char *dir; /* the temporary one */
    struct item *items;
    size_t count;
    size_t shard_count;
    uint64_t total_bytes;
};

/* --- weights -------------------------------------------------------------- */

static fm_status_t items_make(struct export *export, fm_error_t *err)
{
    static const char *const dtypes[FM_ENGINE_DTYPE_COUNT] = {
        [FM_ENGINE_F32] = "F32",
        [FM_ENGINE_F16] = "F16",
        [FM_ENGINE_BF16] = "BF16"};
    const fm_model_manifest_t *manifest = export->manifest;
    bool reward = fm_model_manifest_find(manifest, FM_MODEL_SCORE) != NULL;

    export->items =
        fm_calloc(manifest->tensor_count + 1, sizeof(*export->items));
    if (!export->items) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < manifest->tensor_count; i++) {
        const fm_model_tensor_t *tensor = &manifest->tensors[i];
        if (reward && strcmp(tensor->name, "lm_head.weight") == 0) {
            continue; /* a classifier has the score in its place */
        }
        struct item *item = &export->items[export->count++];
        item->from = tensor;
        item->dtype =
            export->opts->convert ? export->opts->dtype : tensor->dtype;
        item->bytes = tensor->count * fm_engine_dtype_bytes(item->dtype);
        item->as = (fm_engine_safetensor_t){
            .name = tensor->name,
            .dtype = dtypes[item->dtype],
            .rank = tensor->rank,
            .shape = {tensor->shape[0], tensor->shape[1]}};
        if (manifest->is_adapter && strcmp(tensor->name, FM_MODEL_SCORE) == 0) {
            item->name = fm_asprintf(ADAPTER_PREFIX "%s", tensor->name);
            if (!item->name) {
                return fm_no_memory(err);
            }
            item->as.name = item->name;
        }
    }
    qsort(export->items, export->count, sizeof(*export->items),
          fm_engine_safetensors_order);
    return FM_OK;
}

static void shards_assign(struct export *export)
{
    uint64_t limit =
        export->opts->shard_bytes ? export->opts->shard_bytes : SHARD_BYTES;
    uint64_t in_shard = 0;

    export->shard_count = 1;
    for (size_t i = 0; i < export->count; i++) {
        struct item *item = &export->items[i];
        if (in_shard > 0 && in_shard + item->bytes > limit) {
            export->shard_count++;
            in_shard = 0;
        }
        in_shard += item->bytes;
        export->total_bytes += item->bytes;
        item->shard = export->shard_count - 1;
    }
}

/* Read a tensor, convert it in the same memory, append it. */
static fm_status_t item_write(const struct export *export,
                              const struct item *item,
                              fm_engine_safetensors_writer_t *writer,
                              fm_error_t *err)
{
    const fm_model_tensor_t *tensor = item->from;
    size_t stored = fm_model_tensor_bytes(tensor);
    bool same = item->dtype == tensor->dtype;
    size_t room = same ? stored : tensor->count * sizeof(float);
    uint8_t *buffer = fm_malloc(room + 1);
    size_t len = 0;
    size_t overflows = 0;
    fm_status_t rc = FM_OK;

    if (!buffer) {
        return fm_no_memory(err);
    }
    uint8_t *to = buffer + (room - stored);
    rc = fm_cas_read(export->cas, &tensor->digest, to, stored, &len, err);
    if (rc >= 0 && len != stored) {
        rc = fm_error_set(err, FM_ERR_INVALID, "%zu bytes stored, %zu needed",
                          len, stored);
    }
    if (rc >= 0 && !same) {
        float *wide = (float *)(void *)buffer;
        fm_engine_dtype_widen(tensor->dtype, to, wide, tensor->count);
        overflows =
            fm_engine_dtype_narrow(item->dtype, wide, buffer, tensor->count);
    }
    if (rc >= 0 && overflows > 0) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "%zu values are too large for %s: export as bf16 or "
                          "f32",
                          overflows, fm_engine_dtype_name(item->dtype));
    }
    if (rc >= 0) {
        rc = fm_engine_safetensors_append(writer, buffer, (size_t)item->bytes,
                                          err);
    }
    free(buffer);
    if (rc < 0) {
        fm_error_wrap(err, "tensor %s", tensor->name);
    }
    return rc;
}

static char *shard_name(const struct export *export, size_t shard)
{
    if (export->manifest->is_adapter) {
        return fm_strdup("adapter_model.safetensors");
    }
    return export->shard_count == 1
               ? fm_strdup("model.safetensors")
               : fm_asprintf("model-%05zu-of-%05zu.safetensors", shard + 1,
                             export->shard_count);
}

static fm_status_t shard_write(const struct export *export, size_t first,
                               size_t count, fm_error_t *err)
{
    fm_engine_safetensor_t *tensors = fm_calloc(count, sizeof(*tensors));
    fm_engine_safetensors_writer_t *writer = NULL;
    char *name = shard_name(export, export->items[first].shard);
    char *path = name ? fm_asprintf("%s/%s", export->dir, name) : NULL;
    fm_status_t rc = FM_OK;

    if (!tensors || !path) {
        rc = fm_no_memory(err);
        goto out;
    }
    for (size_t i = 0; i < count; i++) {
        tensors[i] = export->items[first + i].as;
    }
    rc = fm_engine_safetensors_create(path, tensors, count, &writer, err);
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = item_write(export, &export->items[first + i], writer, err);
    }
    if (rc >= 0) {
        rc = fm_engine_safetensors_finish(writer, err);
    }
out:
    fm_engine_safetensors_destroy(writer);
    free(tensors);
    free(path);
    free(name);
    return rc;
}

/* --- small files ---------------------------------------------------------- */

static fm_status_t json_write(const char *dir, const char *name,
                              const fm_json_t *json, fm_error_t *err)
{
    char *path = fm_asprintf("%s/%s", dir, name);
    fm_buf_t text = {0};
    char *dump = json ? fm_json_dump_pretty(json) : NULL;
    fm_status_t rc = FM_OK;

    if (dump) {
        fm_buf_add_str(&text, dump);
        fm_buf_add_str(&text, "\n");
    }
    rc = dump && path && !text.failed
             ? fm_file_replace(path, text.data, text.len, err)
             : fm_no_memory(err);
    fm_buf_fini(&text);
    free(dump);
    free(path);
    return rc;
}

static fm_status_t index_write(const struct export *export, fm_error_t *err)
{
    fm_json_t *index = fm_json_object();
    fm_json_t *map = fm_json_object();
    fm_json_t *metadata = fm_json_object();
    bool good = index && map && metadata;

    for (size_t i = 0; good && i < export->count; i++) {
        char *name = shard_name(export, export->items[i].shard);
        good = name && fm_json_set(map, export->items[i].as.name,
                                   fm_json_string(name)) >= 0;
        free(name);
    }
    good = good &&
           fm_json_set(metadata, "total_size",
                       fm_json_int((int64_t) export->total_bytes)) >= 0 &&
           fm_json_set(index, "metadata", fm_json_keep(metadata)) >= 0 &&
           fm_json_set(index, "weight_map", fm_json_keep(map)) >= 0;
    fm_status_t rc =
        good ? json_write(export->dir, "model.safetensors.index.json", index,
                          err)
             : fm_no_memory(err);
    fm_json_drop(metadata);
    fm_json_drop(map);
    fm_json_drop(index);
    return rc;
}

static fm_status_t weights_write(struct export *export, fm_error_t *err)
{
    fm_status_t rc = items_make(export, err);

    if (rc < 0) {
        return rc;
    }
    shards_assign(export);
    for (size_t first = 0; rc >= 0 && first < export->count;) {
        size_t count = 1;
        while (first + count < export->count &&
               export->items[first + count].shard ==
                   export->items[first].shard) {
            count++;
        }
        rc = shard_write(export, first, count, err);
        first += count;
    }
    return rc >= 0 && export->shard_count > 1 ? index_write(export, err) : rc;
}

/* Ids of special tokens, which generation reads from config.json. */
static bool ids_set(fm_json_t *config, const fm_json_t *tokenizer)
{
    const fm_json_t *bos = fm_json_get(tokenizer, "bos");
    const fm_json_t *eos = fm_json_get(tokenizer, "eos");
    const fm_json_t *pad = fm_json_get(tokenizer, "pad");

    if (!fm_json_get(tokenizer, "digest")) {
        return fm_json_set(config, "bos_token_id",
                           fm_json_int(FM_TOKENIZER_BYTE_BOS)) >= 0 &&
               fm_json_set(config, "eos_token_id",
                           fm_json_int(FM_TOKENIZER_BYTE_EOS)) >= 0 &&
               fm_json_set(config, "pad_token_id",
                           fm_json_int(FM_TOKENIZER_BYTE_PAD)) >= 0;
    }
    return fm_json_set(config, "bos_token_id",
                       bos ? fm_json_keep(bos) : fm_json_null()) >= 0 &&
           fm_json_set(config, "eos_token_id",
                       fm_json_len(eos) == 0 ? fm_json_null()
                       : fm_json_len(eos) == 1
                           ? fm_json_keep(fm_json_at(eos, 0))
                           : fm_json_keep(eos)) >= 0 &&
           fm_json_set(config, "pad_token_id",
                       pad ? fm_json_keep(pad) : fm_json_null()) >= 0;
}

/* One label, which is how a score is spelled in config.json. */
static bool label_set(fm_json_t *config)
{
    fm_json_t *names = fm_json_object();
    fm_json_t *numbers = fm_json_object();
    bool good = names && numbers &&
                fm_json_set(names, "0", fm_json_string("LABEL_0")) >= 0 &&
                fm_json_set(numbers, "LABEL_0", fm_json_int(0)) >= 0 &&
                fm_json_set(config, "id2label", fm_json_keep(names)) >= 0 &&
                fm_json_set(config, "label2id", fm_json_keep(numbers)) >= 0;

    fm_json_drop(names);
    fm_json_drop(numbers);
    return good;
}

static fm_status_t config_write(const struct export *export, fm_error_t *err)
{
    static const char *const classes[] = {[FM_ENGINE_LLAMA] = "Llama",
                                          [FM_ENGINE_MISTRAL] = "Mistral",
                                          [FM_ENGINE_QWEN2] = "Qwen2",
                                          [FM_ENGINE_QWEN3] = "Qwen3"};
    static const char *const dtypes[] = {[FM_ENGINE_F32] = "float32",
                                         [FM_ENGINE_F16] = "float16",
                                         [FM_ENGINE_BF16] = "bfloat16"};
    const fm_model_manifest_t *manifest = export->manifest;
    bool reward = fm_model_manifest_find(manifest, FM_MODEL_SCORE) != NULL;
    fm_json_t *config = fm_engine_config_to_json(&manifest->config);
    fm_json_t *classes_json = fm_json_array();
    char *class_name =
        fm_asprintf("%sFor%s", classes[manifest->config.family],
                    reward ? "SequenceClassification" : "CausalLM");
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (config && classes_json && class_name &&
        fm_json_append(classes_json, fm_json_string(class_name)) >= 0 &&
        fm_json_set(config, "architectures", fm_json_keep(classes_json)) >= 0 &&
        fm_json_set(config, "torch_dtype",
                    fm_json_string(dtypes[export->items[0].dtype])) >= 0 &&
        ids_set(config, fm_json_get(manifest->json, "tokenizer")) &&
        (!reward || label_set(config))) {
        rc = json_write(export->dir, "config.json", config, err);
    } else {
        (void)fm_no_memory(err);
    }
    free(class_name);
    fm_json_drop(classes_json);
    fm_json_drop(config);
    return rc;
}

static fm_status_t peft_write(const struct export *export, fm_error_t *err)
{
    const fm_model_manifest_t *manifest = export->manifest;
    const fm_engine_adapter_config_t *lora = &manifest->lora;
    bool reward = fm_model_manifest_find(manifest, FM_MODEL_SCORE) != NULL;
    fm_json_t *described = fm_engine_adapter_config_to_json(lora);
    fm_json_t *config = fm_json_object();
    fm_json_t *saved = fm_json_array();
    const fm_json_t *base = fm_json_get(manifest->json, "base");
    fm_json_t *targets = fm_json_get(described, "target_modules");
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (config && saved && targets &&
        fm_json_append(saved, fm_json_string("score")) >= 0 &&
        fm_json_set(config, "peft_type", fm_json_string("LORA")) >= 0 &&
        fm_json_set(config, "task_type",
                    fm_json_string(reward ? "SEQ_CLS" : "CAUSAL_LM")) >= 0 &&
        fm_json_set(config, "base_model_name_or_path", fm_json_keep(base)) >=
            0 &&
        fm_json_set(config, "r", fm_json_int((int64_t)lora->rank)) >= 0 &&
        fm_json_set(config, "lora_alpha", fm_json_real(lora->alpha)) >= 0 &&
        fm_json_set(config, "lora_dropout", fm_json_real(lora->dropout)) >= 0 &&
        fm_json_set(config, "bias", fm_json_string("none")) >= 0 &&
        fm_json_set(config, "fan_in_fan_out", fm_json_bool(false)) >= 0 &&
        fm_json_set(config, "inference_mode", fm_json_bool(true)) >= 0 &&
        fm_json_set(config, "modules_to_save",
                    reward ? fm_json_keep(saved) : fm_json_null()) >= 0 &&
        fm_json_set(config, "target_modules", fm_json_keep(targets)) >= 0) {
        rc = json_write(export->dir, "adapter_config.json", config, err);
    } else {
        (void)fm_no_memory(err);
    }
    fm_json_drop(saved);
    fm_json_drop(config);
    fm_json_drop(described);
    return rc;
}

/* --- whole ---------------------------------------------------------------- */

static fm_status_t all_write(struct export *export, fm_error_t *err)
{
    const fm_json_t *generation =
        fm_json_get(export->manifest->json, "generation");
    fm_status_t rc = weights_write(export, err);

    if (rc >= 0 && export->manifest->is_adapter) {
        rc = peft_write(export, err);
    } else if (rc >= 0 && (rc = config_write(export, err)) >= 0 &&
               (rc = fm_model_tokenizer_export(export->cas, export->manifest,
                                               export->dir, err)) >= 0 &&
               generation) {
        rc = json_write(export->dir, "generation_config.json", generation, err);
    }
    for (size_t i = 0; export->items && i < export->count; i++) {
        free(export->items[i].name);
    }
    free(export->items);
    return rc;
}

static bool taken(const char *path)
{
    struct stat info;

    return lstat(path, &info) == 0;
}

/* "DIR/.NAME.tmp-PID" of "DIR/NAME". */
static char *temporary_name(const char *path)
{
    const char *slash = strrchr(path, '/');
    int dir = slash ? (int)(slash - path) + 1 : 0;

    return fm_asprintf("%.*s.%s.tmp-%ld", dir, path, path + dir,
                       (long)getpid());
}

static fm_status_t publish(const char *temporary, const char *path,
                           fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (taken(path)) { /* meanwhile */
        return fm_error_set(err, FM_ERR_EXISTS, "%s: exists", path);
    }
    if ((rc = fm_file_rename(temporary, path, err)) >= 0 &&
        (rc = fm_file_fsync_parent(path, err)) < 0) {
        /* Not known to be durable, so it must not be found either. */
        (void)!fm_file_remove_tree(path, NULL);
    }
    return rc;
}

fm_status_t fm_model_export(fm_cas_t *cas, const fm_digest_t *digest,
                            const char *path,
                            const fm_model_export_options_t *opts,
                            fm_error_t *err)
{
    static const fm_model_export_options_t defaults;
    fm_model_manifest_t manifest = {0};
    size_t len = strlen(path);
    char *target = NULL;
    char *temporary = NULL;
    fm_status_t rc = FM_OK;

    while (len > 1 && path[len - 1] == '/') {
        len--;
    }
    if (!(target = fm_strndup(path, len)) ||
        !(temporary = temporary_name(target))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if (taken(target)) {
        rc = fm_error_set(err, FM_ERR_EXISTS,
                          "%s: exists, and an export overwrites nothing: name "
                          "another directory",
                          target);
        goto out;
    }
    if ((rc = fm_model_manifest_read(cas, digest, &manifest, err)) < 0) {
        goto out;
    }
    if (mkdir(temporary, 0755) != 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "make %s", temporary);
        goto out;
    }
    struct export export = {.cas = cas,
                            .manifest = &manifest,
                            .opts = opts ? opts : &defaults,
                            .dir = temporary};
    if ((rc = all_write(&export, err)) < 0 ||
        (rc = publish(temporary, target, err)) < 0) {
        (void)!fm_file_remove_tree(temporary, NULL);
    }
out:
    fm_model_manifest_fini(&manifest);
    free(temporary);
    free(target);
    return rc;
}
