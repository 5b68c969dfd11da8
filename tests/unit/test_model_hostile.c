/* SPDX-License-Identifier: Apache-2.0 */
/* Directories that are not what they should be: each is refused by a text that
 * names the place and the mend, and leaves no manifest behind. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fault.h"
#include "model_fixture.h"

#define WEIGHTS "model.safetensors"
#define Q0 "model.layers.0.self_attn.q_proj.weight"

/* A spoiled copy, its import refused, gone. */
struct bad {
    const char *of;   /* committed directory */
    const char *file; /* JSON to edit, or NULL */
    const char *key;
    const char *value; /* JSON text, NULL: remove the key */
    spoil_t spoil;     /* of model.safetensors when it says anything */
    fm_status_t status;
    const char *words;
};

static bool says_anything(const spoil_t *spoil)
{
    return spoil->tensor || spoil->add;
}

static void refused(shelf_t *shelf, const struct bad *bad)
{
    char *dir = reference_copy(shelf, bad->of, "bad");
    fm_error_t err = {0};

    if (bad->file) {
        json_edit(dir, bad->file, bad->key, bad->value);
    }
    if (says_anything(&bad->spoil)) {
        tensors_edit(dir, WEIGHTS, &bad->spoil);
    }
    import_refused(shelf, dir, NULL, bad->status, bad->words);
    FM_ASSERT_OK(fm_file_remove_tree(dir, &err), &err);
    free(dir);
}

static size_t manifests(shelf_t *shelf)
{
    fm_digest_t *digests = NULL;
    size_t count = 0;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_model_manifests(shelf->cas, &digests, &count, &err), &err);
    free(digests);
    return count;
}

static void test_models(void)
{
    static const struct bad cases[] = {
        {"qwen3-bf16",
         NULL,
         NULL,
         NULL,
         {.tensor = Q0, .drop = true},
         FM_ERR_INVALID,
         "tensor " Q0 " is missing"},
        {"qwen3-bf16",
         NULL,
         NULL,
         NULL,
         {.tensor = Q0, .rename = "strange"},
         FM_ERR_UNSUPPORTED,
         "tensor strange: config.json describes"},
        {"qwen3-bf16",
         NULL,
         NULL,
         NULL,
         {.tensor = Q0, .shape = {32, 64}},
         FM_ERR_INVALID,
         "tensor " Q0 ": 2 dimensions, [32, 64]"},
        {"qwen3-bf16",
         NULL,
         NULL,
         NULL,
         {.tensor = Q0, .shape = {2048, 0}},
         FM_ERR_INVALID,
         "tensor " Q0 ": 1 dimensions"},
        {"qwen3-bf16",
         NULL,
         NULL,
         NULL,
         {.tensor = Q0, .dtype = "I16"},
         FM_ERR_UNSUPPORTED,
         "dtype I16; weights are F32, F16 or BF16"},
        {"qwen3-bf16",
         NULL,
         NULL,
         NULL,
         {.add = "model.extra.weight"},
         FM_ERR_UNSUPPORTED,
         "tensor model.extra.weight"},
        {"qwen3-bf16",
         "config.json",
         "model_type",
         "\"gpt2\"",
         {0},
         FM_ERR_UNSUPPORTED,
         "model_type"},
        {"qwen3-bf16",
         "config.json",
         "hidden_size",
         "\"x\"",
         {0},
         FM_ERR_INVALID,
         "hidden_size"},
        {"qwen3-bf16",
         "config.json",
         "hidden_size",
         "64",
         {0},
         FM_ERR_INVALID,
         "the files are not of one model"},
        {"llama-f32",
         "config.json",
         "num_hidden_layers",
         "3",
         {0},
         FM_ERR_INVALID,
         "model.layers.2."},
        {"llama-f32",
         "config.json",
         "num_hidden_layers",
         "1",
         {0},
         FM_ERR_UNSUPPORTED,
         "model.layers.1."},
        {"qwen3-bf16",
         "config.json",
         "quantization_config",
         "{\"bits\": 4}",
         {0},
         FM_ERR_UNSUPPORTED,
         "quantization_config"},
        {"qwen3-bf16",
         "config.json",
         "tie_word_embeddings",
         "true",
         {0},
         FM_ERR_INVALID,
         "lm_head.weight differs from"},
        {"qwen2-f16",
         "config.json",
         "tie_word_embeddings",
         "false",
         {0},
         FM_ERR_INVALID,
         "lm_head.weight is missing"},
        {"llama-reward",
         NULL,
         NULL,
         NULL,
         {.tensor = "score.weight", .shape = {2, 16}},
         FM_ERR_INVALID,
         "score.weight"},
        {"llama-f32",
         "model.safetensors.index.json",
         "weight_map",
         "7",
         {0},
         FM_ERR_INVALID,
         "weight_map: want an object"},
        {"llama-f32",
         "model.safetensors.index.json",
         "weight_map",
         "{\"a\": \"../x.safetensors\"}",
         {0},
         FM_ERR_INVALID,
         "weight_map.a: want the name"},
        {"llama-f32",
         "model.safetensors.index.json",
         "weight_map",
         "{\"a\": \"model-00001-of-00003.safetensors\"}",
         {0},
         FM_ERR_INVALID,
         "weight_map.a: the tensor is not in"},
        {"llama-f32",
         "model.safetensors.index.json",
         "weight_map",
         "{\"a\": \"none.safetensors\"}",
         {0},
         FM_ERR_NOT_FOUND,
         "none.safetensors"},
        {"llama-f32",
         "model.safetensors.index.json",
         "weight_map",
         "{\"a\": \"config.json\"}",
         {0},
         FM_ERR_INVALID,
         "weight_map.a"},
    };
    shelf_t shelf = {0};

    shelf_open(&shelf);
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        refused(&shelf, &cases[i]);
    }
    CU_ASSERT(manifests(&shelf) == 0);
    shelf_close(&shelf);
}

static void put_text(const char *dir, const char *name, const char *text)
{
    char *path = fm_asprintf("%s/%s", dir, name);
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_file_replace(path, text, strlen(text), &err), &err);
    free(path);
}

static void remove_file(const char *dir, const char *name)
{
    char *path = fm_asprintf("%s/%s", dir, name);

    CU_ASSERT(unlink(path) == 0);
    free(path);
}

static void test_files(void)
{
    shelf_t shelf = {0};

    shelf_open(&shelf);
    char *dir = reference_copy(&shelf, "qwen2-f16", "bad");
    char *weights = fm_asprintf("%s/" WEIGHTS, dir);
    import_refused(&shelf, "/nonexistent", NULL, FM_ERR_NOT_FOUND,
                   "/nonexistent");
    put_text(dir, "config.json", "{");
    import_refused(&shelf, dir, NULL, FM_ERR_INVALID, "config.json:1:1");
    put_text(dir, "config.json", "[]");
    import_refused(&shelf, dir, NULL, FM_ERR_INVALID, "want an object");
    remove_file(dir, "config.json");
    import_refused(&shelf, dir, NULL, FM_ERR_NOT_FOUND, "has no config.json");
    import_refused(&shelf, weights, NULL, FM_ERR_NOT_FOUND, "config.json");
    CU_ASSERT(truncate(weights, 4000) == 0);
    import_refused(&shelf, dir, NULL, FM_ERR_INVALID, "cut short");
    remove_file(dir, WEIGHTS);
    import_refused(&shelf, dir, NULL, FM_ERR_NOT_FOUND, "neither model.safe");
    put_text(dir, "pytorch_model.bin", "\x80\x02");
    import_refused(&shelf, dir, NULL, FM_ERR_UNSUPPORTED, "save_pretrained");
    free(weights);
    free(dir);

    dir = reference_copy(&shelf, "qwen2-f16", "words");
    remove_file(dir, "tokenizer.json");
    import_refused(&shelf, dir, NULL, FM_ERR_NOT_FOUND, "no tokenizer.json");
    put_text(dir, "tokenizer.model", "x");
    import_refused(&shelf, dir, NULL, FM_ERR_UNSUPPORTED,
                   "tokenizer.model only");
    free(dir);

    /* One tensor in two files. */
    dir = reference_copy(&shelf, "llama-f32", "twice");
    fm_json_t *index = json_load(dir, "model.safetensors.index.json");
    fm_json_t *map = fm_json_get(index, "weight_map");
    const char *second = fm_json_get_str(map, "model.norm.weight");
    char *one = fm_asprintf("%s/%s", dir, second);
    char *two = fm_asprintf("%s/copy.safetensors", dir);
    CU_ASSERT(link(one, two) == 0);
    CU_ASSERT(fm_json_set(map, "lm_head.weight",
                          fm_json_string("copy.safetensors")) >= 0);
    json_save(dir, "model.safetensors.index.json", index);
    import_refused(&shelf, dir, NULL, FM_ERR_INVALID, " is in ");
    fm_json_drop(index);
    free(one);
    free(two);
    free(dir);
    CU_ASSERT(manifests(&shelf) == 0);
    shelf_close(&shelf);
}

/* --- adapters ------------------------------------------------------------- */

struct bad_adapter {
    const char *key; /* of adapter_config.json */
    const char *value;
    spoil_t spoil;
    fm_status_t status;
    const char *words;
};

#define A0 "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"

static void test_adapters(void)
{
    static const struct bad_adapter cases[] = {
        {"peft_type", "\"IA3\"", {0}, FM_ERR_UNSUPPORTED, "peft_type"},
        {"use_dora", "true", {0}, FM_ERR_UNSUPPORTED, "use_dora"},
        {"bias", "\"all\"", {0}, FM_ERR_UNSUPPORTED, "bias"},
        {"rank_pattern",
         "{\"q_proj\": 2}",
         {0},
         FM_ERR_UNSUPPORTED,
         "rank_pattern"},
        {"modules_to_save",
         "[\"lm_head\"]",
         {0},
         FM_ERR_UNSUPPORTED,
         "modules_to_save"},
        {"init_lora_weights",
         "\"pissa\"",
         {0},
         FM_ERR_UNSUPPORTED,
         "init_lora_weights"},
        {"r", "0", {0}, FM_ERR_INVALID, "r: want"},
        {"r", "8", {0}, FM_ERR_INVALID, "r and the base ask for [8, 32]"},
        {"lora_alpha", "-1", {0}, FM_ERR_INVALID, "alpha"},
        {"lora_dropout", "2", {0}, FM_ERR_INVALID, "dropout"},
        {NULL,
         NULL,
         {.tensor = A0, .drop = true},
         FM_ERR_UNSUPPORTED,
         "7 matrices"},
        {NULL,
         NULL,
         {.tensor = A0, .shape = {32, 4}},
         FM_ERR_INVALID,
         "[32, 4]"},
        {NULL,
         NULL,
         {.tensor = A0, .rename = "x"},
         FM_ERR_UNSUPPORTED,
         "tensor x"},
        {NULL,
         NULL,
         {.tensor = A0,
          .rename = "base_model.model.model.layers.9.self_attn.q_proj.lora_A."
                    "weight"},
         FM_ERR_INVALID,
         "the base has no model.layers.9"},
        {NULL, NULL, {.tensor = A0, .dtype = "I32"}, FM_ERR_UNSUPPORTED, "I32"},
    };
    shelf_t shelf = {0};
    fm_error_t err = {0};
    char *base_path = reference_path("llama-f32");
    char *other_path = reference_path("qwen3-bf16");
    char *path = reference_path("llama-lora");

    shelf_open(&shelf);
    fm_model_imported_t base = import_ok(&shelf, base_path, NULL);
    fm_model_imported_t other = import_ok(&shelf, other_path, NULL);
    import_refused(&shelf, path, NULL, FM_ERR_INVALID, "--base");
    import_refused(&shelf, path, &other.digest, FM_ERR_INVALID,
                   "r and the base ask for");
    const fm_digest_t none = {{1}};
    import_refused(&shelf, path, &none, FM_ERR_NOT_FOUND, "sha256:01");
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        char *dir = reference_copy(&shelf, "llama-lora", "bad");
        if (cases[i].key) {
            json_edit(dir, "adapter_config.json", cases[i].key, cases[i].value);
        }
        if (says_anything(&cases[i].spoil)) {
            tensors_edit(dir, "adapter_model.safetensors", &cases[i].spoil);
        }
        import_refused(&shelf, dir, &base.digest, cases[i].status,
                       cases[i].words);
        FM_ASSERT_OK(fm_file_remove_tree(dir, &err), &err);
        free(dir);
    }
    CU_ASSERT(manifests(&shelf) == 2);
    fm_model_imported_t lora = import_ok(&shelf, path, &base.digest);
    import_refused(&shelf, path, &lora.digest, FM_ERR_INVALID,
                   "its base is an adapter");
    free(path);
    free(other_path);
    free(base_path);
    shelf_close(&shelf);
}

/* Rank-stabilised scaling comes in as the alpha that computes the same. */
static void test_rslora(void)
{
    shelf_t shelf = {0};
    fm_model_manifest_t manifest = {0};
    fm_error_t err = {0};
    char *base_path = reference_path("llama-f32");

    shelf_open(&shelf);
    fm_model_imported_t base = import_ok(&shelf, base_path, NULL);
    char *dir = reference_copy(&shelf, "llama-lora", "rs");
    json_edit(dir, "adapter_config.json", "use_rslora", "true");
    fm_model_imported_t lora = import_ok(&shelf, dir, &base.digest);
    FM_ASSERT_OK(
        fm_model_manifest_read(shelf.cas, &lora.digest, &manifest, &err), &err);
    CU_ASSERT(manifest.lora.alpha > 15.99 && manifest.lora.alpha < 16.01);
    fm_model_manifest_fini(&manifest);
    free(dir);
    free(base_path);
    shelf_close(&shelf);
}

/* --- manifests ------------------------------------------------------------ */

/* A manifest is from outside as well: spoil each part of a good one. */
static void test_manifests(void)
{
    static const struct {
        const char *path; /* of the object that has the key */
        const char *key;
        const char *value;
        const char *words;
    } cases[] = {
        {"", "format", "\"flowmesh-model/2\"", "format"},
        {"", "format", NULL, "format"},
        {"", "config", NULL, "config"},
        {"config", "hidden_size", "33", "config"},
        {"", "tensors", "[]", "tensors: want an object"},
        {"tensors", Q0, NULL, Q0 " is missing"},
        {"tensors", Q0, "{}", "tensors." Q0},
        {"tensors", "more",
         "{\"dtype\":\"f32\",\"shape\":[1],\"digest\":"
         "\"sha256:0000000000000000000000000000000000000000"
         "000000000000000000000000\"}",
         "asks for"},
        {"tensors", Q0,
         "{\"dtype\":\"f64\",\"shape\":[32,32],\"digest\":\"x\"}", "dtype"},
        {"tensors", Q0, "{\"dtype\":\"f32\",\"shape\":[32],\"digest\":\"x\"}",
         "digest"},
        {"tensors", Q0,
         "{\"dtype\":\"f32\",\"shape\":[9000000000,9000000000],"
         "\"digest\":\"x\"}",
         "shape[0]"},
        {"tensors", Q0, "{\"dtype\":\"f32\",\"shape\":[0],\"digest\":\"x\"}",
         "shape[0]"},
        {"tensors", Q0, "{\"dtype\":\"f32\",\"shape\":[],\"digest\":\"x\"}",
         "shape"},
    };
    shelf_t shelf = {0};
    fm_model_manifest_t good = {0};
    fm_error_t err = {0};
    char *path = reference_path("qwen2-f16");

    shelf_open(&shelf);
    fm_model_imported_t imported = import_ok(&shelf, path, NULL);
    FM_ASSERT_OK(
        fm_model_manifest_read(shelf.cas, &imported.digest, &good, &err), &err);
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        fm_json_t *json = fm_json_copy(good.json);
        fm_json_t *object =
            *cases[i].path ? fm_json_get(json, cases[i].path) : json;
        fm_json_t *value = NULL;
        fm_model_manifest_t none = {0};
        if (cases[i].value) {
            FM_ASSERT_OK(fm_json_parse(cases[i].value, strlen(cases[i].value),
                                       "value", &value, &err),
                         &err);
            CU_ASSERT(fm_json_set(object, cases[i].key, value) >= 0);
        } else {
            fm_json_remove(object, cases[i].key);
        }
        char *text = fm_json_dump(json);
        CU_ASSERT(fm_model_manifest_parse(text, strlen(text), "manifest", &none,
                                          &err) < 0);
        if (!strstr(err.text, cases[i].words)) {
            (void)fprintf(stderr, "case %zu: %s\n", i, err.text);
            CU_ASSERT(false);
        }
        CU_ASSERT(none.json == NULL);
        free(text);
        fm_json_drop(json);
    }
    fm_model_manifest_fini(&good);
    free(path);
    shelf_close(&shelf);
}

/* A tensor object of another length than its manifest says. */
static void test_tensor_length(void)
{
    shelf_t shelf = {0};
    fm_model_manifest_t good = {0};
    fm_model_t model = {0};
    fm_engine_backend_t *backend = NULL;
    fm_digest_t digest;
    fm_error_t err = {0};
    const uint64_t shape[1] = {3};
    char text[FM_DIGEST_TEXT_BYTES];
    char *path = reference_path("qwen2-f16");

    shelf_open(&shelf);
    FM_ASSERT_OK(fm_engine_backend_create_cpu(&backend, &err), &err);
    fm_model_imported_t imported = import_ok(&shelf, path, NULL);
    FM_ASSERT_OK(
        fm_model_manifest_read(shelf.cas, &imported.digest, &good, &err), &err);
    FM_ASSERT_OK(fm_cas_put_tensor(shelf.cas, FM_CAS_F16, shape, 1, "abcdef",
                                   &digest, &err),
                 &err);
    CU_ASSERT(fm_json_set(
                  fm_json_get(fm_json_get(good.json, "tensors"), Q0), "digest",
                  fm_json_string(fm_digest_format(&digest, text))) >= 0);
    FM_ASSERT_OK(fm_model_manifest_put(shelf.cas, good.json, &digest, &err),
                 &err);
    CU_ASSERT(fm_model_load(shelf.cas, &digest, backend, &model, &err) ==
              FM_ERR_INVALID);
    CU_ASSERT(strstr(err.text, "tensor " Q0) != NULL);
    CU_ASSERT(model.model == NULL);
    fm_model_manifest_fini(&good);
    fm_engine_backend_destroy(backend);
    free(path);
    shelf_close(&shelf);
}

/* --- faults --------------------------------------------------------------- */

/* Every allocation of an import and an export in turn: an error, no leak, and
 * no directory. */
static void test_no_memory(void)
{
    fm_error_t err = {0};
    shelf_t shelf = {0};
    char *base_path = reference_path("llama-f32");
    char *path = reference_path("llama-lora");
    size_t tries = 0;

    shelf_open(&shelf);
    fm_model_imported_t base = import_ok(&shelf, base_path, NULL);
    char *out = fm_asprintf("%s/out", shelf.dir);
    /* Some failures are made good (a copy that cannot be read back is stored
     * again), so the end is a run of successes. */
    for (size_t good = 0, n = 1; good < 40; n++) {
        fm_model_imported_t imported = {0};
        char *spec = fm_asprintf("base.alloc:%zu", n);
        CU_ASSERT_FATAL(fm_fault_arm(spec));
        free(spec);
        fm_status_t rc =
            fm_model_import(shelf.cas, path, &base.digest, &imported, &err);
        if (rc >= 0) {
            rc = fm_model_export(shelf.cas, &imported.digest, out, NULL, &err);
        }
        (void)fm_fault_arm(NULL);
        CU_ASSERT((rc >= 0) == (access(out, F_OK) == 0));
        good = rc >= 0 ? good + 1 : 0;
        tries += rc < 0;
        FM_ASSERT_OK(fm_file_remove_tree(out, &err), &err);
    }
    CU_ASSERT(tries > 50);
    (void)printf("  %zu allocations failed in turn\n", tries);
    free(out);
    free(path);
    free(base_path);
    shelf_close(&shelf);
}

/* The disk fills at every write of an export. */
static void test_export_full(void)
{
    fm_error_t err = {0};
    shelf_t shelf = {0};
    char *path = reference_path("qwen2-f16");
    size_t tries = 0;

    shelf_open(&shelf);
    fm_model_imported_t imported = import_ok(&shelf, path, NULL);
    char *out = fm_asprintf("%s/out", shelf.dir);
    for (bool done = false; !done; tries++) {
        char *spec = fm_asprintf("base.write:%zu", tries + 1);
        CU_ASSERT_FATAL(fm_fault_arm(spec));
        free(spec);
        fm_status_t rc =
            fm_model_export(shelf.cas, &imported.digest, out, NULL, &err);
        (void)fm_fault_arm(NULL);
        done = rc >= 0;
        CU_ASSERT(done || (rc == FM_ERR_FULL && access(out, F_OK) != 0));
    }
    CU_ASSERT(tries > 20);
    free(out);
    free(path);
    shelf_close(&shelf);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"models", test_models},
        {"files", test_files},
        {"adapters", test_adapters},
        {"rank-stabilised adapter", test_rslora},
        {"manifests", test_manifests},
        {"a tensor of another length", test_tensor_length},
        {"fault: no memory", test_no_memory},
        {"fault: an export meets a full disk", test_export_full},
    };

    return fm_test_main("run/model hostile", cases, FM_COUNT_OF(cases));
}
