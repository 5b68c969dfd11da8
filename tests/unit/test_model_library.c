/* SPDX-License-Identifier: Apache-2.0 */
/* Names, imports that are remembered, and the cache of Hugging Face. */
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "model_fixture.h"

/* --- names ---------------------------------------------------------------- */

static void test_names(void)
{
    static const char *const bad[] = {"",    ".hidden", "-x", "a/b",    "../up",
                                      "a b", "caf\xc3", "_x", "a.tmp.7"};
    shelf_t shelf = {0};
    fm_digest_t a = {{1}};
    fm_digest_t b = {{2}};
    fm_digest_t got;
    fm_json_t *names = NULL;
    fm_error_t err = {0};
    char text[FM_DIGEST_TEXT_BYTES];

    shelf_open(&shelf);
    CU_ASSERT(fm_model_name_get(shelf.library, "none", &got, &err) ==
              FM_ERR_NOT_FOUND);
    FM_ASSERT_OK(fm_model_name_set(shelf.library, "zeta", &a, &err), &err);
    FM_ASSERT_OK(fm_model_name_set(shelf.library, "alpha-1.5B", &a, &err),
                 &err);
    FM_ASSERT_OK(fm_model_name_set(shelf.library, "zeta", &b, &err), &err);
    FM_ASSERT_OK(fm_model_name_get(shelf.library, "zeta", &got, &err), &err);
    CU_ASSERT(fm_digest_equal(&got, &b));
    FM_ASSERT_OK(fm_model_names(shelf.library, &names, &err), &err);
    CU_ASSERT(fm_json_len(names) == 2 &&
              strcmp(fm_json_str(fm_json_at(names, 0)), "alpha-1.5B") == 0);
    fm_json_drop(names);
    CU_ASSERT(fm_model_name_get(shelf.library, "none", &got, &err) ==
              FM_ERR_NOT_FOUND);
    CU_ASSERT(strstr(err.text, "there are alpha-1.5B, zeta") != NULL);
    FM_ASSERT_OK(
        fm_model_find(shelf.library, fm_digest_format(&a, text), &got, &err),
        &err);
    CU_ASSERT(fm_digest_equal(&got, &a));
    for (size_t i = 0; i < FM_COUNT_OF(bad); i++) {
        CU_ASSERT(fm_model_name_set(shelf.library, bad[i], &a, &err) ==
                  FM_ERR_INVALID);
    }
    char *longest = fm_malloc(FM_MODEL_NAME_MAX + 2);
    CU_ASSERT_FATAL(longest != NULL);
    memset(longest, 'x', FM_MODEL_NAME_MAX + 1);
    longest[FM_MODEL_NAME_MAX + 1] = '\0';
    CU_ASSERT(!fm_model_name_valid(longest));
    CU_ASSERT(fm_model_name_valid(longest + 1));
    free(longest);

    char *path = fm_asprintf("%s/fabric/models/zeta", shelf.dir);
    FM_ASSERT_OK(fm_file_replace(path, "rubbish\n", 8, &err), &err);
    CU_ASSERT(fm_model_name_get(shelf.library, "zeta", &got, &err) ==
              FM_ERR_CORRUPT);
    free(path);
    FM_ASSERT_OK(fm_model_name_remove(shelf.library, "zeta", &err), &err);
    CU_ASSERT(fm_model_name_remove(shelf.library, "zeta", &err) ==
              FM_ERR_NOT_FOUND);
    shelf_close(&shelf);
}

/* --- imports -------------------------------------------------------------- */

/* An hour from now, when every file has been quiet. */
static int64_t later(void)
{
    return fm_clock_wall_ns() + 3600 * FM_NS_PER_S;
}

static fm_model_imported_t wish_ok(shelf_t *shelf, const fm_model_wish_t *wish)
{
    fm_model_imported_t imported = {0};
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_model_library_import(shelf->library, wish, &imported, &err),
                 &err);
    return imported;
}

static void wish_refused(shelf_t *shelf, const fm_model_wish_t *wish,
                         fm_status_t status, const char *words)
{
    fm_model_imported_t imported = {0};
    fm_error_t err = {0};
    fm_status_t rc =
        fm_model_library_import(shelf->library, wish, &imported, &err);

    if (rc != status || !strstr(err.text, words)) {
        (void)fprintf(stderr, "%s: %s\n", fm_status_name(rc), err.text);
        CU_ASSERT(false);
    }
}

static void test_remembered(void)
{
    shelf_t shelf = {0};

    shelf_open(&shelf);
    char *dir = reference_copy(&shelf, "qwen2-f16", "model");
    const fm_model_wish_t wish = {.source = dir, .now_ns = later()};
    fm_model_imported_t first = wish_ok(&shelf, &wish);
    fm_model_imported_t again = wish_ok(&shelf, &wish);
    CU_ASSERT(!first.from_cache && again.from_cache);
    CU_ASSERT(fm_digest_equal(&first.digest, &again.digest));
    CU_ASSERT(again.parameters == first.parameters);

    /* A file that changed is read again. */
    tensors_edit(dir, "model.safetensors",
                 &(spoil_t){.tensor = "model.norm.weight", .flip = true});
    again = wish_ok(&shelf, &wish);
    CU_ASSERT(!again.from_cache);
    CU_ASSERT(!fm_digest_equal(&first.digest, &again.digest));
    CU_ASSERT(again.shared_count == again.tensor_count - 1);

    /* So is a file that came. */
    CU_ASSERT(wish_ok(&shelf, &wish).from_cache);
    char *path = fm_asprintf("%s/special_tokens_map.json", dir);
    fm_error_t err = {0};
    FM_ASSERT_OK(fm_file_replace(path, "{}", 2, &err), &err);
    CU_ASSERT(!wish_ok(&shelf, &wish).from_cache);
    CU_ASSERT(wish_ok(&shelf, &wish).from_cache);

    /* What the store lost is read again. */
    again = wish_ok(&shelf, &wish);
    CU_ASSERT(fm_cas_forget(shelf.cas, &again.digest));
    CU_ASSERT(!wish_ok(&shelf, &wish).from_cache);
    free(path);
    free(dir);
    shelf_close(&shelf);
}

/* Files as young as the import could change without looking changed. */
static void test_young_files(void)
{
    shelf_t shelf = {0};

    shelf_open(&shelf);
    char *dir = reference_copy(&shelf, "qwen2-f16", "model");
    const fm_model_wish_t now = {.source = dir};
    CU_ASSERT(!wish_ok(&shelf, &now).from_cache);
    CU_ASSERT(!wish_ok(&shelf, &now).from_cache);
    free(dir);
    shelf_close(&shelf);
}

static void test_damaged_memory(void)
{
    shelf_t shelf = {0};

    shelf_open(&shelf);
    char *dir = reference_copy(&shelf, "qwen2-f16", "model");
    const fm_model_wish_t wish = {.source = dir, .now_ns = later()};
    (void)wish_ok(&shelf, &wish);
    char *command = fm_asprintf(
        "for f in %s/fabric/models/.imports/*; do echo '{' > $f; done",
        shelf.dir);
    CU_ASSERT(system(command) == 0);
    CU_ASSERT(!wish_ok(&shelf, &wish).from_cache);
    CU_ASSERT(wish_ok(&shelf, &wish).from_cache);
    free(command);
    free(dir);
    shelf_close(&shelf);
}

static void test_adapter_bases(void)
{
    shelf_t shelf = {0};
    fm_error_t err = {0};
    fm_model_manifest_t manifest = {0};

    shelf_open(&shelf);
    char *model = reference_copy(&shelf, "llama-f32", "llama-f32");
    char *dir = reference_copy(&shelf, "llama-lora", "lora");
    fm_model_wish_t wish = {.source = dir, .now_ns = later()};
    fm_model_wish_t base = {.source = model, .now_ns = later()};

    /* "../llama-f32", as its adapter_config.json says. */
    fm_model_imported_t lora = wish_ok(&shelf, &wish);
    fm_model_imported_t of = wish_ok(&shelf, &base);
    CU_ASSERT(lora.is_adapter && of.from_cache);
    FM_ASSERT_OK(
        fm_model_manifest_read(shelf.cas, &lora.digest, &manifest, &err), &err);
    CU_ASSERT(fm_digest_equal(&manifest.base, &of.digest));
    fm_model_manifest_fini(&manifest);
    CU_ASSERT(wish_ok(&shelf, &wish).from_cache);

    FM_ASSERT_OK(fm_model_name_set(shelf.library, "llama", &of.digest, &err),
                 &err);
    wish.base = "llama";
    fm_model_imported_t again = wish_ok(&shelf, &wish);
    CU_ASSERT(fm_digest_equal(&again.digest, &lora.digest));
    wish.base = "nobody";
    wish_refused(&shelf, &wish, FM_ERR_NOT_FOUND, "base: nobody");
    wish.base = NULL;
    json_edit(dir, "adapter_config.json", "base_model_name_or_path",
              "\"nobody/knows\"");
    char *empty = fm_asprintf("%s/empty", shelf.dir);
    CU_ASSERT(setenv("HF_HUB_CACHE", empty, 1) == 0);
    wish_refused(&shelf, &wish, FM_ERR_NOT_FOUND,
                 "huggingface-cli download nobody/knows");
    json_edit(dir, "adapter_config.json", "base_model_name_or_path", NULL);
    wish_refused(&shelf, &wish, FM_ERR_INVALID, "name it with --base");
    CU_ASSERT(unsetenv("HF_HUB_CACHE") == 0);
    free(empty);
    free(model);
    free(dir);
    shelf_close(&shelf);
}

/* --- hub ------------------------------------------------------------------ */

static void hub_make(const shelf_t *shelf, const char *commit)
{
    fm_error_t err = {0};
    char *to = fm_asprintf("home/hub/models--some--tiny/snapshots/%s", commit);
    char *dir = reference_copy(shelf, "qwen2-f16", to);
    char *refs = fm_asprintf("%s/home/hub/models--some--tiny/refs", shelf->dir);
    char *ref = fm_asprintf("%s/main", refs);

    FM_ASSERT_OK(fm_file_make_dirs(refs, 0755, &err), &err);
    FM_ASSERT_OK(fm_file_replace(ref, commit, strlen(commit), &err), &err);
    free(ref);
    free(refs);
    free(dir);
    free(to);
}

static void test_hub(void)
{
    static const char commit[] = "0123456789abcdef0123456789abcdef01234567";
    static const char *const bad[] = {"tiny", "a/b/c",   "../x",
                                      "/etc", "some/..", "a b/c",
                                      "",     "a/",      "some--a/b"};
    shelf_t shelf = {0};
    fm_error_t err = {0};
    char *dir = NULL;

    shelf_open(&shelf);
    char *home = fm_asprintf("%s/home", shelf.dir);
    CU_ASSERT(setenv("HF_HOME", home, 1) == 0);
    (void)unsetenv("HF_HUB_CACHE");
    (void)unsetenv("HUGGINGFACE_HUB_CACHE");
    CU_ASSERT(fm_model_hub_find("some/tiny", NULL, &dir, &err) ==
              FM_ERR_NOT_FOUND);
    CU_ASSERT(strstr(err.text, "huggingface-cli download some/tiny") != NULL);
    CU_ASSERT(strstr(err.text, home) != NULL);
    hub_make(&shelf, commit);
    FM_ASSERT_OK(fm_model_hub_find("some/tiny", NULL, &dir, &err), &err);
    CU_ASSERT(strstr(dir, commit) != NULL);
    free(dir);
    FM_ASSERT_OK(fm_model_hub_find("some/tiny", commit, &dir, &err), &err);
    free(dir);
    dir = NULL;
    CU_ASSERT(fm_model_hub_find("some/tiny", "v2", &dir, &err) ==
              FM_ERR_NOT_FOUND);
    CU_ASSERT(strstr(err.text, "no such revision") != NULL &&
              strstr(err.text, "--revision v2") != NULL);
    CU_ASSERT(fm_model_hub_find("some/tiny", "../..", &dir, &err) ==
              FM_ERR_INVALID);
    for (size_t i = 0; i < FM_COUNT_OF(bad); i++) {
        CU_ASSERT(fm_model_hub_find(bad[i], NULL, &dir, &err) ==
                  FM_ERR_INVALID);
    }
    CU_ASSERT(dir == NULL);
    const fm_model_wish_t wish = {
        .source = "some/tiny", .is_hub = true, .now_ns = later()};
    fm_model_imported_t imported = wish_ok(&shelf, &wish);
    CU_ASSERT(imported.tensor_count == 26);
    CU_ASSERT(wish_ok(&shelf, &wish).from_cache);
    CU_ASSERT(unsetenv("HF_HOME") == 0);
    free(home);
    shelf_close(&shelf);
}

/* --- writers -------------------------------------------------------------- */

/* Two imports at a time have names of their own; a dead one's torn segment is
 * gone once its name is taken again. */
static void test_writers(void)
{
    shelf_t shelf = {0};
    fm_model_library_t *second = NULL;
    fm_error_t err = {0};
    struct stat info;

    shelf_open(&shelf);
    char *fabric = fm_asprintf("%s/fabric", shelf.dir);
    char *path = reference_path("qwen2-f16");
    FM_ASSERT_OK(fm_model_library_open(fabric, true, &second, &err), &err);
    const fm_model_wish_t wish = {.source = path};
    fm_model_imported_t imported = {0};
    FM_ASSERT_OK(fm_model_library_import(second, &wish, &imported, &err), &err);
    (void)wish_ok(&shelf, &wish);
    fm_model_library_close(second);

    char host[64] = "";
    CU_ASSERT(gethostname(host, sizeof(host) - 1) == 0);
    for (char *at = host; (at = strchr(at, '.'));) {
        *at = '-';
    }
    char *torn = fm_asprintf("%s/cas/segments/import-%s-1.tmp", fabric, host);
    char *alive = fm_asprintf("%s/cas/segments/import-%s-0.tmp", fabric, host);
    FM_ASSERT_OK(fm_file_replace(torn, "torn", 4, &err), &err);
    FM_ASSERT_OK(fm_file_replace(alive, "torn", 4, &err), &err);
    FM_ASSERT_OK(fm_model_library_open(fabric, true, &second, &err), &err);
    CU_ASSERT(stat(torn, &info) != 0);
    CU_ASSERT(stat(alive, &info) == 0); /* its writer lives */
    free(alive);
    fm_model_library_close(second);
    free(torn);
    free(path);
    free(fabric);
    shelf_close(&shelf);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"names", test_names},
        {"an import is remembered", test_remembered},
        {"young files are read again", test_young_files},
        {"damaged memory", test_damaged_memory},
        {"bases of adapters", test_adapter_bases},
        {"hub", test_hub},
        {"writers", test_writers},
    };

    return fm_test_main("run/model library", cases, FM_COUNT_OF(cases));
}
