/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Models in and out of the store: directories that transformers wrote give its
 * logits, and what is exported has the bytes that were imported.
 */
#include <math.h>
#include <string.h>
#include <unistd.h>

#include "engine/model/pass.h"
#include "model_fixture.h"

/* Of |got - want|, relative to the largest |want|. */
#define TOLERANCE 1e-4

static fm_engine_backend_t *backend;

/* --- numbers -------------------------------------------------------------- */

static void close_to(const char *what, const fm_json_t *want, const float *got,
                     size_t count)
{
    double scale = 0;
    double worst = 0;

    CU_ASSERT_FATAL(fm_json_len(want) == count);
    for (size_t i = 0; i < count; i++) {
        double value = fm_json_real_or(fm_json_at(want, i), NAN);
        scale = fmax(scale, fabs(value));
        worst = fmax(worst, fabs(value - (double)got[i]));
    }
    (void)printf("  %s: worst %.2g of %.2g\n", what, worst, scale);
    CU_ASSERT(scale > 0.1 && worst <= TOLERANCE * scale);
}

static size_t prompt_read(const fm_json_t *reference, int32_t *tokens)
{
    const fm_json_t *prompt = fm_json_get(reference, "prompt");

    for (size_t i = 0; i < fm_json_len(prompt); i++) {
        tokens[i] = (int32_t)fm_json_int_or(fm_json_at(prompt, i), -1);
    }
    return fm_json_len(prompt);
}

/* Run the reference's prompt, with @p adapter unless NULL. */
static fm_engine_pass_t *prompt_run(const fm_model_t *model,
                                    const fm_engine_adapter_t *adapter,
                                    const fm_json_t *reference,
                                    size_t *count_out)
{
    int32_t tokens[64];
    int32_t offsets[2] = {0, 0};
    fm_engine_batch_t batch = {tokens, offsets, 1};
    fm_engine_pass_t *pass = NULL;
    fm_error_t err = {0};

    *count_out = prompt_read(reference, tokens);
    offsets[1] = (int32_t)*count_out;
    FM_ASSERT_OK(
        fm_engine_pass_create(model->model, FM_ENGINE_PASS_INFER, &pass, &err),
        &err);
    fm_engine_pass_set_adapter(pass, adapter);
    FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &err), &err);
    return pass;
}

static void logits_check(const fm_model_t *model,
                         const fm_engine_adapter_t *adapter, const char *name)
{
    char *file = fm_asprintf("%s.json", name);
    fm_json_t *reference = json_load(FM_TEST_HF_DIR, file);
    size_t vocab = fm_engine_model_config(model->model)->vocab_size;
    float *got = fm_malloc(vocab * sizeof(*got));
    size_t count = 0;
    fm_error_t err = {0};
    fm_engine_pass_t *pass = prompt_run(model, adapter, reference, &count);
    const int32_t last = (int32_t)count - 1;

    CU_ASSERT_FATAL(got != NULL);
    FM_ASSERT_OK(fm_engine_pass_logits(pass, &last, 1, got, &err), &err);
    close_to(name, fm_json_get(reference, "logits"), got, vocab);
    fm_engine_pass_destroy(pass);
    free(got);
    free(file);
    fm_json_drop(reference);
}

static const char *const families[] = {"llama-f32", "qwen2-f16", "qwen3-bf16"};

static void test_logits(void)
{
    shelf_t shelf = {0};
    fm_error_t err = {0};

    shelf_open(&shelf);
    for (size_t i = 0; i < FM_COUNT_OF(families); i++) {
        char *path = reference_path(families[i]);
        fm_model_imported_t imported = import_ok(&shelf, path, NULL);
        fm_model_t model = {0};
        CU_ASSERT(!imported.is_adapter && imported.shared_count == 0);
        FM_ASSERT_OK(
            fm_model_load(shelf.cas, &imported.digest, backend, &model, &err),
            &err);
        CU_ASSERT(model.bytes == 4 * imported.parameters);
        CU_ASSERT(fm_digest_equal(&model.digest, &imported.digest));
        logits_check(&model, NULL, families[i]);
        fm_model_fini(&model);
        free(path);
    }
    shelf_close(&shelf);
}

/* Every tensor is an object of its own, in the bytes and the precision of the
 * file. */
static void test_tensors_as_they_came(void)
{
    static const fm_engine_dtype_t dtypes[] = {FM_ENGINE_F32, FM_ENGINE_F16,
                                               FM_ENGINE_BF16};
    shelf_t shelf = {0};
    fm_error_t err = {0};

    shelf_open(&shelf);
    for (size_t i = 1; i < FM_COUNT_OF(families); i++) {
        char *path = reference_path(families[i]);
        char *weights = fm_asprintf("%s/model.safetensors", path);
        fm_model_imported_t imported = import_ok(&shelf, path, NULL);
        fm_model_manifest_t manifest = {0};
        fm_engine_safetensors_t *file = NULL;
        FM_ASSERT_OK(fm_model_manifest_read(shelf.cas, &imported.digest,
                                            &manifest, &err),
                     &err);
        FM_ASSERT_OK(fm_engine_safetensors_open(weights, &file, &err), &err);
        CU_ASSERT(manifest.tensor_count == fm_engine_safetensors_count(file));
        for (size_t k = 0; k < fm_engine_safetensors_count(file); k++) {
            const fm_engine_safetensor_t *from =
                fm_engine_safetensors_at(file, k);
            const fm_model_tensor_t *tensor =
                fm_model_manifest_find(&manifest, from->name);
            uint8_t *bytes = fm_malloc((size_t)from->bytes);
            CU_ASSERT_FATAL(tensor && bytes);
            FM_ASSERT_OK(fm_engine_safetensors_read(file, from, bytes, &err),
                         &err);
            fm_digest_t digest = fm_sha256(bytes, (size_t)from->bytes);
            CU_ASSERT(fm_digest_equal(&digest, &tensor->digest));
            CU_ASSERT(tensor->dtype == dtypes[i]);
            free(bytes);
        }
        fm_engine_safetensors_close(file);
        fm_model_manifest_fini(&manifest);
        free(weights);
        free(path);
    }
    shelf_close(&shelf);
}

/* A file stands for its directory, an index as well. */
static void test_by_file(void)
{
    static const char *const files[][2] = {
        {"qwen2-f16", "model.safetensors"},
        {"llama-f32", "model.safetensors.index.json"}};
    shelf_t shelf = {0};

    shelf_open(&shelf);
    for (size_t i = 0; i < FM_COUNT_OF(files); i++) {
        char *dir = reference_path(files[i][0]);
        char *file = fm_asprintf("%s/%s", dir, files[i][1]);
        fm_model_imported_t by_dir = import_ok(&shelf, dir, NULL);
        fm_model_imported_t by_file = import_ok(&shelf, file, NULL);
        CU_ASSERT(fm_digest_equal(&by_dir.digest, &by_file.digest));
        free(file);
        free(dir);
    }
    shelf_close(&shelf);
}

/* --- adapters and rewards ------------------------------------------------- */

static void test_adapter(void)
{
    shelf_t shelf = {0};
    fm_model_t model = {0};
    fm_model_adapter_t adapter = {0};
    fm_digest_t again;
    fm_error_t err = {0};
    char *base_path = reference_path("llama-f32");
    char *path = reference_path("llama-lora");

    shelf_open(&shelf);
    fm_model_imported_t base = import_ok(&shelf, base_path, NULL);
    fm_model_imported_t lora = import_ok(&shelf, path, &base.digest);
    CU_ASSERT(lora.is_adapter && lora.tensor_count == 8);
    FM_ASSERT_OK(fm_model_load(shelf.cas, &base.digest, backend, &model, &err),
                 &err);
    FM_ASSERT_OK(
        fm_model_adapter_load(shelf.cas, &lora.digest, &model, &adapter, &err),
        &err);
    logits_check(&model, adapter.adapter, "llama-lora");
    logits_check(&model, NULL, "llama-f32"); /* the base is as it was */

    /* What was loaded, stored, is what was imported. */
    FM_ASSERT_OK(fm_model_adapter_store(shelf.cas, &adapter, &base.digest, NULL,
                                        NULL, &again, &err),
                 &err);
    CU_ASSERT(fm_digest_equal(&again, &lora.digest));

    /* With another model it is refused, by both digests. */
    model.digest.bytes[0] ^= 1;
    fm_model_adapter_t none = {0};
    CU_ASSERT(fm_model_adapter_load(shelf.cas, &lora.digest, &model, &none,
                                    &err) == FM_ERR_INVALID);
    CU_ASSERT(strstr(err.text, "it adapts model sha256:") != NULL);
    CU_ASSERT(none.adapter == NULL);

    /* Nor is one taken for the other. */
    fm_model_t wrong = {0};
    CU_ASSERT(fm_model_load(shelf.cas, &lora.digest, backend, &wrong, &err) ==
              FM_ERR_INVALID);
    CU_ASSERT(fm_model_adapter_load(shelf.cas, &base.digest, &model, &none,
                                    &err) == FM_ERR_INVALID);
    fm_model_adapter_fini(&adapter);
    fm_model_fini(&model);
    free(base_path);
    free(path);
    shelf_close(&shelf);
}

static void test_reward(void)
{
    shelf_t shelf = {0};
    fm_model_t model = {0};
    fm_error_t err = {0};
    char *path = reference_path("llama-reward");
    fm_json_t *reference = json_load(FM_TEST_HF_DIR, "llama-reward.json");
    size_t count = 0;
    float score = 0;

    shelf_open(&shelf);
    fm_model_imported_t imported = import_ok(&shelf, path, NULL);
    FM_ASSERT_OK(
        fm_model_load(shelf.cas, &imported.digest, backend, &model, &err),
        &err);
    CU_ASSERT_FATAL(model.score != NULL);
    fm_engine_pass_t *pass = prompt_run(&model, NULL, reference, &count);
    const int32_t last = (int32_t)count - 1;
    FM_ASSERT_OK(fm_engine_pass_value(pass, fm_engine_value_data(model.score),
                                      &last, NULL, 1, NULL, &score, &err),
                 &err);
    double want = fm_json_get_real(reference, "score", NAN);
    CU_ASSERT(fabs((double)score - want) <= TOLERANCE * fabs(want));
    fm_engine_pass_destroy(pass);
    fm_model_fini(&model);
    fm_json_drop(reference);
    free(path);
    shelf_close(&shelf);
}

/* --- sharing -------------------------------------------------------------- */

/* A fine-tune of which one tensor changed stores that tensor alone. */
static void test_fine_tune_shares(void)
{
    shelf_t shelf = {0};
    fm_model_imported_t base;
    fm_model_imported_t tuned;

    shelf_open(&shelf);
    char *path = reference_path("qwen3-bf16");
    char *copy = reference_copy(&shelf, "qwen3-bf16", "tuned");
    base = import_ok(&shelf, path, NULL);
    tensors_edit(copy, "model.safetensors",
                 &(spoil_t){.tensor = "model.layers.1.mlp.up_proj.weight",
                            .flip = true});
    tuned = import_ok(&shelf, copy, NULL);
    CU_ASSERT(!fm_digest_equal(&base.digest, &tuned.digest));
    CU_ASSERT(tuned.shared_count == tuned.tensor_count - 1);
    CU_ASSERT(tuned.bytes - tuned.shared_bytes == 2 * 48 * 32);
    tuned = import_ok(&shelf, path, NULL);
    CU_ASSERT(fm_digest_equal(&base.digest, &tuned.digest));
    CU_ASSERT(tuned.shared_bytes == tuned.bytes);
    free(path);
    free(copy);
    shelf_close(&shelf);
}

/* --- storing -------------------------------------------------------------- */

static fm_status_t count_objects(void *ctx, const fm_digest_t *digest,
                                 fm_error_t *err)
{
    (void)digest;
    (void)err;
    ++*(size_t *)ctx;
    return FM_OK;
}

/* A model of float32 stores as it was; after a change, only that differs. */
static void test_store(void)
{
    shelf_t shelf = {0};
    fm_model_t model = {0};
    fm_digest_t again;
    fm_model_manifest_t manifests[2] = {{0}, {0}};
    fm_error_t err = {0};
    size_t objects = 0;
    size_t differ = 0;
    char *path = reference_path("llama-f32");

    shelf_open(&shelf);
    fm_model_imported_t imported = import_ok(&shelf, path, NULL);
    FM_ASSERT_OK(
        fm_model_load(shelf.cas, &imported.digest, backend, &model, &err),
        &err);
    CU_ASSERT(fm_json_get_real(model.generation, "temperature", 0) > 0.6);
    FM_ASSERT_OK(fm_model_store(shelf.cas, &model, count_objects, &objects,
                                &again, &err),
                 &err);
    CU_ASSERT(fm_digest_equal(&again, &imported.digest));
    CU_ASSERT(objects == imported.tensor_count + 2); /* tokenizer, manifest */

    const fm_engine_param_t *param = fm_engine_model_find(
        model.model, "model.layers.0.mlp.down_proj.weight");
    const float value = 3;
    CU_ASSERT_FATAL(param != NULL);
    FM_ASSERT_OK(
        fm_engine_model_write(model.model, param->offset, 1, &value, &err),
        &err);
    FM_ASSERT_OK(fm_model_store(shelf.cas, &model, NULL, NULL, &again, &err),
                 &err);
    FM_ASSERT_OK(fm_model_manifest_read(shelf.cas, &imported.digest,
                                        &manifests[0], &err),
                 &err);
    FM_ASSERT_OK(fm_model_manifest_read(shelf.cas, &again, &manifests[1], &err),
                 &err);
    for (size_t i = 0; i < manifests[0].tensor_count; i++) {
        differ += !fm_digest_equal(&manifests[0].tensors[i].digest,
                                   &manifests[1].tensors[i].digest);
    }
    CU_ASSERT(differ == 1);
    fm_model_manifest_fini(&manifests[0]);
    fm_model_manifest_fini(&manifests[1]);
    fm_model_fini(&model);
    free(path);
    shelf_close(&shelf);
}

static void test_too_large(void)
{
    static const char config[] =
        "{\"model_type\":\"llama\",\"vocab_size\":1048576,\"hidden_size\":16384"
        ",\"intermediate_size\":16384,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":16,\"num_key_value_heads\":16}";
    fm_json_t *json = NULL;
    fm_model_t model = {0};
    fm_error_t err = {0};

    FM_ASSERT_OK(
        fm_json_parse(config, sizeof(config) - 1, "config", &json, &err), &err);
    CU_ASSERT(fm_model_make(NULL, json, NULL, backend, &model, &err) ==
              FM_ERR_LIMIT);
    CU_ASSERT(strstr(err.text, "parameters takes") && strstr(err.text, "MiB"));
    CU_ASSERT(model.model == NULL);
    fm_json_drop(json);
}

/* --- export --------------------------------------------------------------- */

static char *export_ok(shelf_t *shelf, const fm_digest_t *digest,
                       const char *name, const fm_model_export_options_t *opts)
{
    char *path = fm_asprintf("%s/%s", shelf->dir, name);
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_model_export(shelf->cas, digest, path, opts, &err), &err);
    return path;
}

/* A file for a file, the bytes that safetensors itself wrote; and what comes
 * in again is the same model. */
static void test_export_bytes(void)
{
    shelf_t shelf = {0};

    shelf_open(&shelf);
    for (size_t i = 0; i < FM_COUNT_OF(families); i++) {
        char *path = reference_path(families[i]);
        fm_model_imported_t imported = import_ok(&shelf, path, NULL);
        char *out = export_ok(&shelf, &imported.digest, families[i], NULL);
        CU_ASSERT(files_equal(path, out, "tokenizer.json"));
        CU_ASSERT(i == 0 || files_equal(path, out, "model.safetensors"));
        fm_model_imported_t again = import_ok(&shelf, out, NULL);
        CU_ASSERT(fm_digest_equal(&again.digest, &imported.digest));
        CU_ASSERT(again.shared_count == again.tensor_count);
        free(out);
        free(path);
    }
    shelf_close(&shelf);
}

static void test_export_adapter(void)
{
    shelf_t shelf = {0};
    char *base_path = reference_path("llama-f32");
    char *path = reference_path("llama-lora");

    shelf_open(&shelf);
    fm_model_imported_t base = import_ok(&shelf, base_path, NULL);
    fm_model_imported_t lora = import_ok(&shelf, path, &base.digest);
    char *out = export_ok(&shelf, &lora.digest, "lora", NULL);
    CU_ASSERT(files_equal(path, out, "adapter_model.safetensors"));
    fm_model_imported_t again = import_ok(&shelf, out, &base.digest);
    CU_ASSERT(fm_digest_equal(&again.digest, &lora.digest));
    free(out);
    free(base_path);
    free(path);
    shelf_close(&shelf);
}

static void test_export_reward(void)
{
    shelf_t shelf = {0};
    char *path = reference_path("llama-reward");

    shelf_open(&shelf);
    fm_model_imported_t reward = import_ok(&shelf, path, NULL);
    char *out = export_ok(&shelf, &reward.digest, "out", NULL);
    fm_json_t *config = json_load(out, "config.json");
    CU_ASSERT(files_equal(path, out, "model.safetensors"));
    CU_ASSERT(
        strcmp(fm_json_str(fm_json_at(fm_json_get(config, "architectures"), 0)),
               "LlamaForSequenceClassification") == 0);
    fm_model_imported_t again = import_ok(&shelf, out, NULL);
    CU_ASSERT(fm_digest_equal(&again.digest, &reward.digest));
    fm_json_drop(config);
    free(out);
    free(path);
    shelf_close(&shelf);
}

/* Sharded, and in another precision, and back. */
static void test_export_shards(void)
{
    shelf_t shelf = {0};
    fm_model_t model = {0};
    fm_error_t err = {0};
    const fm_model_export_options_t small = {.shard_bytes = 20000};
    const fm_model_export_options_t wide = {
        .convert = true, .dtype = FM_ENGINE_F32, .shard_bytes = 1};
    char *path = reference_path("qwen3-bf16");

    shelf_open(&shelf);
    fm_model_imported_t imported = import_ok(&shelf, path, NULL);
    char *out = export_ok(&shelf, &imported.digest, "small", &small);
    fm_json_t *index = json_load(out, "model.safetensors.index.json");
    CU_ASSERT(fm_json_len(fm_json_get(index, "weight_map")) ==
              imported.tensor_count);
    CU_ASSERT(
        (uint64_t)fm_json_int_or(fm_json_path(index, "metadata.total_size"),
                                 0) == imported.bytes);
    fm_model_imported_t again = import_ok(&shelf, out, NULL);
    CU_ASSERT(fm_digest_equal(&again.digest, &imported.digest));
    free(out);

    out = export_ok(&shelf, &imported.digest, "wide", &wide);
    again = import_ok(&shelf, out, NULL);
    CU_ASSERT(again.bytes == 2 * imported.bytes);
    FM_ASSERT_OK(fm_model_load(shelf.cas, &again.digest, backend, &model, &err),
                 &err);
    logits_check(&model, NULL, "qwen3-bf16"); /* widening is exact */
    fm_model_fini(&model);
    fm_json_drop(index);
    free(out);
    free(path);
    shelf_close(&shelf);
}

static void test_export_refusals(void)
{
    shelf_t shelf = {0};
    fm_model_t model = {0};
    fm_digest_t large;
    fm_error_t err = {0};
    const float value = 1e6F;
    const fm_model_export_options_t half = {.convert = true,
                                            .dtype = FM_ENGINE_F16};
    char *path = reference_path("llama-f32");

    shelf_open(&shelf);
    fm_model_imported_t imported = import_ok(&shelf, path, NULL);
    char *out = export_ok(&shelf, &imported.digest, "out/", NULL);
    CU_ASSERT(fm_model_export(shelf.cas, &imported.digest, out, NULL, &err) ==
              FM_ERR_EXISTS);
    CU_ASSERT(strstr(err.text, "overwrites nothing") != NULL);
    free(out);

    FM_ASSERT_OK(
        fm_model_load(shelf.cas, &imported.digest, backend, &model, &err),
        &err);
    FM_ASSERT_OK(fm_engine_model_write(model.model, 5, 1, &value, &err), &err);
    FM_ASSERT_OK(fm_model_store(shelf.cas, &model, NULL, NULL, &large, &err),
                 &err);
    out = fm_asprintf("%s/none/half", shelf.dir);
    CU_ASSERT(fm_model_export(shelf.cas, &large, out, &half, &err) ==
              FM_ERR_IO); /* no such parent */
    free(out);
    out = fm_asprintf("%s/half", shelf.dir);
    CU_ASSERT(fm_model_export(shelf.cas, &large, out, &half, &err) ==
              FM_ERR_INVALID);
    CU_ASSERT(strstr(err.text, "1 values are too large for f16") != NULL);
    char *temporary =
        fm_asprintf("%s/.half.tmp-%ld", shelf.dir, (long)getpid());
    CU_ASSERT(access(out, F_OK) != 0 && access(temporary, F_OK) != 0);
    free(temporary);
    free(out);
    free(path);
    fm_model_fini(&model);
    shelf_close(&shelf);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"logits of imported models", test_logits},
        {"tensors as they came", test_tensors_as_they_came},
        {"by file", test_by_file},
        {"adapter", test_adapter},
        {"reward model", test_reward},
        {"a fine-tune shares", test_fine_tune_shares},
        {"store", test_store},
        {"too large", test_too_large},
        {"export: bytes", test_export_bytes},
        {"export: adapter", test_export_adapter},
        {"export: reward model", test_export_reward},
        {"export: shards and precision", test_export_shards},
        {"export: refusals", test_export_refusals},
    };
    fm_error_t err = {0};

    if (fm_engine_backend_create_cpu(&backend, &err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    int status = fm_test_main("run/model", cases, FM_COUNT_OF(cases));
    fm_engine_backend_destroy(backend);
    return status;
}
