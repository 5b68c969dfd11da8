/* SPDX-License-Identifier: Apache-2.0 */
/* base: errors, buffers, maps, digests, canonical JSON, files, faults. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/json.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/path.h"
#include "base/rng.h"
#include "fmtest.h"
#include "scratch.h"

static void test_error_text(void)
{
    fm_error_t err = {0};

    CU_ASSERT(fm_error_set(&err, FM_ERR_IO, "cause %d", 7) == FM_ERR_IO);
    fm_error_wrap(&err, "outer");
    CU_ASSERT_STRING_EQUAL(err.text, "outer: cause 7");
    CU_ASSERT(fm_error_set_errno(&err, FM_ERR_IO, ENOSPC, "write x") ==
              FM_ERR_FULL);
    CU_ASSERT_STRING_EQUAL(err.text, "write x: No space left on device");
    CU_ASSERT(fm_error_set(NULL, FM_ERR_BUSY, "x") == FM_ERR_BUSY);

    char wide[2 * FM_ERROR_TEXT_BYTES];
    for (size_t i = 0; i + 1 < sizeof(wide); i += 2) {
        memcpy(wide + i, "\xC3\xA9", 2);
    }
    wide[sizeof(wide) - 1] = '\0';
    (void)fm_error_set(&err, FM_ERR_IO, "%s", wide);
    CU_ASSERT(strlen(err.text) % 2 == 0); /* no half character */
}

static void test_buf_round_trip(void)
{
    fm_buf_t buf = {0};

    fm_buf_add_u8(&buf, 0xAB);
    fm_buf_add_u32(&buf, 0xDEADBEEF);
    fm_buf_add_u64(&buf, UINT64_C(0x0123456789ABCDEF));
    fm_buf_add_varint(&buf, 300);
    fm_buf_add_varint(&buf, UINT64_MAX);
    fm_reader_t reader = {.data = buf.data, .len = buf.len};
    CU_ASSERT(fm_read_u8(&reader) == 0xAB);
    CU_ASSERT(fm_read_u32(&reader) == 0xDEADBEEF);
    CU_ASSERT(fm_read_u64(&reader) == UINT64_C(0x0123456789ABCDEF));
    CU_ASSERT(fm_read_varint(&reader) == 300);
    CU_ASSERT(fm_read_varint(&reader) == UINT64_MAX);
    CU_ASSERT(!reader.failed && reader.pos == reader.len);
    CU_ASSERT(fm_read_u8(&reader) == 0 && reader.failed);
    fm_buf_fini(&buf);

    const uint8_t endless[11] = {0x80, 0x80, 0x80, 0x80, 0x80, 0x80,
                                 0x80, 0x80, 0x80, 0x80, 0x80};
    fm_reader_t bad = {.data = endless, .len = sizeof(endless)};
    CU_ASSERT(fm_read_varint(&bad) == 0 && bad.failed);
}

static void test_map_against_model(void)
{
    enum { KEYS = 500, STEPS = 20000 };
    fm_map_t *map = fm_map_create();
    int64_t model[KEYS];
    size_t live = 0;
    fm_rng_t rng;

    CU_ASSERT_PTR_NOT_NULL_FATAL(map);
    memset(model, -1, sizeof(model));
    fm_rng_init(&rng, 1);
    for (int step = 0; step < STEPS; step++) {
        uint64_t k = fm_rng_below(&rng, KEYS);
        fm_digest_t key = {{0}};
        /* a narrow head forces long probe runs */
        key.bytes[0] = (uint8_t)(k % 13);
        memcpy(key.bytes + 8, &k, sizeof(k));
        if (fm_rng_below(&rng, 3) == 0) {
            CU_ASSERT(fm_map_remove(map, &key) == (model[k] >= 0));
            live -= model[k] >= 0;
            model[k] = -1;
        } else {
            CU_ASSERT(fm_map_put(map, &key, (uint64_t)step, NULL) == FM_OK);
            live += model[k] < 0;
            model[k] = step;
        }
        uint64_t *value = fm_map_get(map, &key);
        CU_ASSERT(model[k] < 0 ? !value
                               : value && *value == (uint64_t)model[k]);
        CU_ASSERT(fm_map_count(map) == live);
    }
    fm_map_destroy(map);
}

static void test_strmap(void)
{
    fm_strmap_t *map = fm_strmap_create();
    char key[16];

    CU_ASSERT_PTR_NOT_NULL_FATAL(map);
    for (unsigned i = 0; i < 1000; i++) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        CU_ASSERT(fm_strmap_put(map, key, i, NULL) == FM_OK);
    }
    for (unsigned i = 0; i < 1000; i += 2) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        CU_ASSERT(fm_strmap_remove(map, key));
    }
    for (unsigned i = 0; i < 1000; i++) {
        (void)snprintf(key, sizeof(key), "k%u", i);
        uint64_t *value = fm_strmap_get(map, key);
        CU_ASSERT(i % 2 ? value && *value == i : !value);
    }
    CU_ASSERT(fm_strmap_count(map) == 500);
    fm_strmap_destroy(map);
}

static void test_digest_text(void)
{
    char text[FM_DIGEST_TEXT_BYTES];
    fm_digest_t digest = fm_sha256("abc", 3);
    fm_digest_t back;

    fm_digest_format(&digest, text);
    CU_ASSERT_STRING_EQUAL(
        text, "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61"
              "f20015ad"); /* FIPS 180-4, appendix B.1 */
    CU_ASSERT(fm_digest_parse(text, &back) && fm_digest_equal(&digest, &back));
    text[10] = 'G';
    CU_ASSERT(!fm_digest_parse(text, &back));
    CU_ASSERT(!fm_digest_parse("sha256:ab", &back));
}

static void check_canonical(const char *in, const char *out)
{
    fm_json_t *value = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_json_parse(in, strlen(in), "test", &value, &err), &err);
    char *text = fm_json_canonical(value);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    CU_ASSERT_STRING_EQUAL(text, out);
    free(text);
    fm_json_drop(value);
}

static void test_json_canonical(void)
{
    check_canonical("{\"b\": 1, \"a\": [true, null, 0.1]}",
                    "{\"a\":[true,null,0.1],\"b\":1}");
    check_canonical("[1.0, 1e3, 1e-7, 0.30000000000000004]",
                    "[1,1000,1e-07,0.30000000000000004]");
    check_canonical("\"\\u00e9\\n\"", "\"\xC3\xA9\\n\"");
    check_canonical("-0.0", "0");
}

static void test_json_refuses(void)
{
    fm_json_t *value = NULL;
    fm_error_t err = {0};
    char deep[200];

    memset(deep, '[', sizeof(deep));
    CU_ASSERT(fm_json_parse(deep, sizeof(deep), "deep", &value, &err) ==
              FM_ERR_INVALID);
    CU_ASSERT(fm_json_parse("{\"a\":1,\"a\":2}", 13, "dup", &value, &err) ==
              FM_ERR_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "dup:1:"));
    CU_ASSERT_PTR_NULL(value);
}

static void test_json_path(void)
{
    static const char text[] =
        "{\"items\": [{\"output\": {\"model\": \"m\"}}, {\"output\": 2}]}";
    fm_json_t *value = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_json_parse(text, strlen(text), "t", &value, &err), &err);
    CU_ASSERT(fm_json_int_or(fm_json_path(value, "items[1].output"), 0) == 2);
    CU_ASSERT_STRING_EQUAL(
        fm_json_str(fm_json_path(value, "items.0.output.model")), "m");
    CU_ASSERT_PTR_NULL(fm_json_path(value, "items.7.output"));
    CU_ASSERT_PTR_NULL(fm_json_path(value, "items.x"));
    fm_json_drop(value);
}

static void test_path_inside(void)
{
    static const char *const inside[] = {"a", "a/b.c", "...", ".a/..b",
                                         "a/b/c"};
    static const char *const outside[] = {"",     "/",    "/a",   "a/",
                                          ".",    "..",   "./a",  "a/.",
                                          "a//b", "../a", "a/..", "a/../b"};
    char longest[FM_PATH_INSIDE_MAX_BYTES + 2];

    for (size_t i = 0; i < FM_COUNT_OF(inside); i++) {
        CU_ASSERT(fm_path_is_inside(inside[i]));
    }
    for (size_t i = 0; i < FM_COUNT_OF(outside); i++) {
        CU_ASSERT(!fm_path_is_inside(outside[i]));
    }
    CU_ASSERT(!fm_path_is_inside(NULL));
    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    CU_ASSERT(!fm_path_is_inside(longest));
    CU_ASSERT(fm_path_is_inside(longest + 1));
}

static void test_file_replace(void)
{
    char *dir = scratch_make();
    fm_error_t err = {0};
    fm_buf_t buf = {0};

    char *nested = fm_asprintf("%s/a/b", dir);
    char *path = fm_asprintf("%s/file", nested);
    FM_ASSERT_OK(fm_file_make_dirs(nested, 0755, &err), &err);
    FM_ASSERT_OK(fm_file_replace(path, "one", 3, &err), &err);
    FM_ASSERT_OK(fm_file_replace(path, "two!", 4, &err), &err);
    FM_ASSERT_OK(fm_file_read(path, 100, &buf, &err), &err);
    CU_ASSERT(buf.len == 4 && memcmp(buf.data, "two!", 4) == 0);
    CU_ASSERT(fm_file_read(path, 3, &buf, &err) == FM_ERR_LIMIT);
    CU_ASSERT(fm_file_read(nested, 3, &buf, &err) == FM_ERR_IO);
    scratch_remove(dir);
    CU_ASSERT(fm_file_read(path, 3, &buf, &err) == FM_ERR_NOT_FOUND);
    fm_buf_fini(&buf);
    free(path);
    free(nested);
}

static void test_faults(void)
{
#ifdef FM_FAULTS
    CU_ASSERT(fm_fault_arm("base.alloc:2"));
    void *first = fm_malloc(1);
    void *second = fm_malloc(1);
    void *third = fm_malloc(1);
    CU_ASSERT(first && !second && third);
    free(first);
    free(third);
    CU_ASSERT(fm_fault_arm("base.write:1+"));
    CU_ASSERT(fm_fault("base.write") && fm_fault("base.write"));
    CU_ASSERT(!fm_fault_arm("nonsense"));
#endif
    CU_ASSERT(fm_fault_arm(NULL));
    CU_ASSERT(!fm_fault("base.write"));
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"error text", test_error_text},
        {"buffer round trip", test_buf_round_trip},
        {"map against a model", test_map_against_model},
        {"string map", test_strmap},
        {"digest text", test_digest_text},
        {"canonical JSON", test_json_canonical},
        {"JSON refuses", test_json_refuses},
        {"JSON path", test_json_path},
        {"path inside", test_path_inside},
        {"file replace", test_file_replace},
        {"fault points", test_faults},
    };

    return fm_test_main("base", cases, FM_COUNT_OF(cases));
}
