/* SPDX-License-Identifier: Apache-2.0 */
/* key: golden keys that never change, sharing, what a key does not see. */
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/file.h"
#include "fmtest.h"
#include "plan/key/key.h"

static const char *golden_path;

static fm_json_t *parse(const char *text)
{
    fm_json_t *json = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_json_parse(text, strlen(text), "test", &json, &err), &err);
    return json;
}

static fm_digest_t key_of(const char *task, const char *params,
                          const char *value, const int64_t *seed,
                          const char *numerics, const char *trust)
{
    fm_json_t *p = parse(params);
    fm_json_t *v = parse(value);
    fm_digest_t key = {0};
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_key_action(&(fm_key_parts_t){.task_type = task,
                                                 .params = p,
                                                 .value = v,
                                                 .seed = seed,
                                                 .numerics = numerics,
                                                 .trust = trust},
                               &key, &err),
                 &err);
    fm_json_drop(p);
    fm_json_drop(v);
    return key;
}

static bool same(fm_digest_t a, fm_digest_t b)
{
    return fm_digest_equal(&a, &b);
}

static void test_golden(void)
{
    fm_json_t *golden = NULL;
    fm_buf_t file = {0};
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_file_read(golden_path, 1 << 20, &file, &err), &err);
    FM_ASSERT_OK(fm_json_parse((const char *)file.data, file.len, golden_path,
                               &golden, &err),
                 &err);
    CU_ASSERT(fm_json_len(golden) >= 6);
    for (size_t i = 0; i < fm_json_len(golden); i++) {
        const fm_json_t *row = fm_json_at(golden, i);
        int64_t seed = fm_json_get_int(row, "seed", 0);
        int version = (int)fm_json_get_int(row, "version", 0);
        fm_key_parts_t parts = {.task_type = fm_json_get_str(row, "task_type"),
                                .version = version,
                                .params = fm_json_get(row, "params"),
                                .value = fm_json_get(row, "value"),
                                .seed = fm_json_get(row, "seed") ? &seed : NULL,
                                .numerics = fm_json_get_str(row, "numerics"),
                                .trust = fm_json_get_str(row, "trust")};
        char *text = NULL;
        char hex[FM_DIGEST_TEXT_BYTES];
        fm_digest_t key;
        fm_digest_t batch;

        FM_ASSERT_OK(fm_key_action_text(&parts, &text, &err), &err);
        CU_ASSERT_STRING_EQUAL(text, fm_json_get_str(row, "text"));
        FM_ASSERT_OK(fm_key_action(&parts, &key, &err), &err);
        CU_ASSERT_STRING_EQUAL(fm_digest_format(&key, hex),
                               fm_json_get_str(row, "key"));
        FM_ASSERT_OK(fm_key_batch(&parts, &batch, &err), &err);
        CU_ASSERT_STRING_EQUAL(fm_digest_format(&batch, hex),
                               fm_json_get_str(row, "batch"));
        /* The text put together equals the canonical text of the value. */
        fm_json_t *again = parse(text);
        char *canonical = fm_json_canonical(again);
        CU_ASSERT_STRING_EQUAL(text, canonical);
        free(canonical);
        fm_json_drop(again);
        free(text);
    }
    fm_json_drop(golden);
    fm_buf_fini(&file);
}

static void test_equal_and_different(void)
{
    int64_t one = 1;
    fm_digest_t base =
        key_of("inference", "{\"b\":1,\"a\":2}", "\"x\"", NULL, NULL, NULL);

    CU_ASSERT(same(base, key_of("inference", "{\"a\":2.0,\"b\":1}", "\"x\"",
                                NULL, "exact", "default")));
    CU_ASSERT(!same(base, key_of("logprobs", "{\"a\":2,\"b\":1}", "\"x\"", NULL,
                                 NULL, NULL)));
    CU_ASSERT(!same(base, key_of("inference", "{\"a\":2,\"b\":2}", "\"x\"",
                                 NULL, NULL, NULL)));
    CU_ASSERT(!same(base, key_of("inference", "{\"a\":2,\"b\":1}", "\"y\"",
                                 NULL, NULL, NULL)));
    CU_ASSERT(!same(base, key_of("inference", "{\"a\":2,\"b\":1}", "\"x\"",
                                 &one, NULL, NULL)));
    CU_ASSERT(!same(base, key_of("inference", "{\"a\":2,\"b\":1}", "\"x\"",
                                 NULL, "cpu-f32", NULL)));
    CU_ASSERT(!same(base, key_of("inference", "{\"a\":2,\"b\":1}", "\"x\"",
                                 NULL, NULL, "lab-b")));
}

static void test_maker(void)
{
    fm_json_t *params = parse("{\"model\":\"sha256:1\"}");
    fm_key_parts_t parts = {.task_type = "echo", .params = params};
    fm_key_maker_t *maker = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_key_maker_create(&parts, &maker, &err), &err);
    for (int64_t i = 0; i < 100; i++) {
        fm_json_t *value = fm_json_int(i % 7);
        const int64_t *seed = i % 3 ? &i : NULL;
        fm_digest_t key;

        FM_ASSERT_OK(fm_key_maker_action(maker, value, seed, &key, &err), &err);
        parts.value = value;
        parts.seed = seed;
        fm_digest_t alone;
        FM_ASSERT_OK(fm_key_action(&parts, &alone, &err), &err);
        CU_ASSERT(same(key, alone));
        fm_json_drop(value);
    }
    fm_digest_t batch;
    FM_ASSERT_OK(fm_key_batch(&parts, &batch, &err), &err);
    CU_ASSERT(same(batch, fm_key_maker_batch(maker)));
    fm_key_maker_destroy(maker);
    fm_json_drop(params);
}

static void test_refusals(void)
{
    fm_json_t *list = fm_json_array();
    fm_digest_t key;
    fm_error_t err = {0};

    CU_ASSERT(fm_key_action(&(fm_key_parts_t){.task_type = "ech"}, &key,
                            &err) == FM_ERR_INVALID);
    CU_ASSERT(strstr(err.text, "'ech'") != NULL);
    CU_ASSERT(
        fm_key_action(&(fm_key_parts_t){.task_type = "echo", .params = list},
                      &key, &err) == FM_ERR_INVALID);
    CU_ASSERT(fm_key_action(&(fm_key_parts_t){.task_type = "echo", .trust = ""},
                            &key, &err) == FM_ERR_INVALID);
    CU_ASSERT(
        fm_key_action(&(fm_key_parts_t){.task_type = "echo", .trust = "\xFF"},
                      &key, &err) == FM_ERR_INVALID);
    fm_json_drop(list);
}

static void note(void *ctx, const char *path, const fm_json_t *a,
                 const fm_json_t *b)
{
    fm_buf_printf(ctx, "%s %d%d;", path, a != NULL, b != NULL);
}

static void test_explain(void)
{
    fm_buf_t seen = {0};
    fm_error_t err = {0};
    size_t count = 0;

    FM_ASSERT_OK(
        fm_key_explain(
            "{\"params\":{\"t\":1,\"l\":[1,2]},\"seed\":4,\"v\":1}",
            "{\"params\":{\"t\":2,\"l\":[1,3,4]},\"trust\":\"x\",\"v\":1}",
            note, &seen, &count, &err),
        &err);
    CU_ASSERT(count == 5);
    CU_ASSERT_STRING_EQUAL(
        fm_buf_cstr(&seen),
        "params.t 11;params.l[1] 11;params.l[2] 01;seed 10;trust 01;");
    CU_ASSERT(fm_key_explain("{", "{}", NULL, NULL, &count, &err) ==
              FM_ERR_INVALID);
    fm_buf_fini(&seen);
}

static void test_task_table(void)
{
    uint32_t index = 99;

    CU_ASSERT(fm_key_task_find("echo", &index) && index == 0);
    CU_ASSERT(fm_key_task_find("dpo", &index)->kind == FM_KEY_TRAINING);
    CU_ASSERT(fm_key_task_at(index) == fm_key_task_find("dpo", NULL));
    CU_ASSERT(!fm_key_task_find("", NULL) && !fm_key_task_at(64));
}

int main(int argc, char **argv)
{
    static const fm_test_case_t cases[] = {
        {"golden", test_golden},   {"equality", test_equal_and_different},
        {"maker", test_maker},     {"refusals", test_refusals},
        {"explain", test_explain}, {"task table", test_task_table},
    };

    golden_path = argc > 1 ? argv[1] : "tests/golden/keys.json";
    return fm_test_main("key", cases, sizeof(cases) / sizeof(cases[0]));
}
