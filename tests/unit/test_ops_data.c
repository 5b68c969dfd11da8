/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Data operators: what each yields, what it refuses, and numbers that were
 * computed elsewhere (tests/ref/data_reference.py).
 */
#include <math.h>
#include <unistd.h>

#include "base/fault.h"
#include "base/file.h"
#include "ops_fixture.h"
#include "run/ops/data/near.h"

static fm_json_t *reference(void)
{
    fm_buf_t bytes = {0};
    fm_error_t err = {0};
    fm_json_t *value = NULL;

    FM_ASSERT_OK(fm_file_read(FM_TEST_REF_DIR "/data_operators.json",
                              (size_t)1 << 20, &bytes, &err),
                 &err);
    FM_ASSERT_OK(fm_json_parse((const char *)bytes.data, bytes.len, "reference",
                               &value, &err),
                 &err);
    fm_buf_fini(&bytes);
    return value;
}

/* Run one item; the output, which must fit the reply; drop it. */
static fm_json_t *output_of(world_t *world, const char *type,
                            const char *params, const char *value)
{
    seen_t seen = {0};
    char *values = fm_asprintf("[%s]", value);

    world_run(world, type, params, values, &seen);
    free(values);
    if (!seen.outputs[0]) {
        (void)fprintf(stderr, "%s: %s\n", type, seen.error);
    }
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    fm_json_t *output = json_of(seen.outputs[0]);
    seen_fini(&seen);
    return output;
}

/* The items of the only output, as text. */
static void expect_items(world_t *world, const char *type, const char *params,
                         const char *value, const char *want)
{
    fm_json_t *output = output_of(world, type, params, value);
    char *text = fm_json_canonical(fm_json_get(output, "items"));

    CU_ASSERT_STRING_EQUAL(text, want);
    if (strcmp(text, want) != 0) {
        (void)fprintf(stderr, "%s %s:\n%s\n%s\n", type, params, text, want);
    }
    free(text);
    fm_json_drop(output);
}

static void test_map(void)
{
    world_t world = {0};
    const char *records = "{\"records\":[{\"a\":{\"b\":2},\"c\":\"x\"},"
                          "{\"a\":{\"b\":3},\"c\":null,\"a.b\":4}]}";

    world_open(&world, "w");
    expect_items(&world, "map",
                 "{\"method\":\"fields\",\"fields\":{\"n\":{\"from\":\"a.b\"},"
                 "\"t\":{\"template\":\"{{{a.b}}}\"},\"v\":{\"value\":[1]},"
                 "\"d\":{\"from\":\"c\",\"default\":\"none\"}}}",
                 records,
                 "[{\"d\":\"x\",\"n\":2,\"t\":\"{2}\",\"v\":[1]},"
                 "{\"d\":\"none\",\"n\":4,\"t\":\"{4}\",\"v\":[1]}]");
    expect_items(&world, "map",
                 "{\"method\":\"fields\",\"keep\":true,\"fields\":{\"c\":{"
                 "\"template\":\"{a}!\"}}}",
                 records,
                 "[{\"a\":{\"b\":2},\"c\":\"{\\\"b\\\":2}!\"},"
                 "{\"a\":{\"b\":3},\"a.b\":4,\"c\":\"{\\\"b\\\":3}!\"}]");
    expect_items(&world, "map",
                 "{\"method\":\"fields\",\"fields\":{\"p\":{\"from\":"
                 "\"text\"}}}",
                 "{\"records\":[\"hello\"]}", "[{\"p\":\"hello\"}]");
    expect_items(&world, "map",
                 "{\"method\":\"fields\",\"fields\":{\"e\":{\"template\":"
                 "\"\"},\"f\":{\"template\":\"{a}\"}}}",
                 "{\"records\":[{\"a\":\"\"}]}", "[{\"e\":\"\",\"f\":\"\"}]");
    expect_items(&world, "map", "{\"method\":\"fields\",\"fields\":{}}",
                 "{\"records\":[]}", "[]");
    expect_items(&world, "map",
                 "{\"method\":\"python\",\"code\":{\"text\":\"n = 0\\ndef "
                 "main(r):\\n  global n\\n  n += 1\\n  return [r, n]\"}}",
                 "{\"records\":[5,6]}", "[[5,1],[6,2]]"); /* one child */
    expect_items(&world, "map",
                 "{\"method\":\"python\",\"flatten\":true,\"entrypoint\":\"f\","
                 "\"code\":{\"text\":\"def f(r): return list(range(r))\"}}",
                 "{\"records\":[2,0,1]}", "[0,1,0]");
    world_refuse(&world, "map",
                 "{\"method\":\"python\",\"code\":{\"text\":\"def main(r): "
                 "return 1 // r\"}}",
                 "[{\"records\":[1,0,2]}]", "records[1]: ZeroDivisionError");
    world_refuse(&world, "map",
                 "{\"method\":\"python\",\"code\":{\"text\":\"import os\\n"
                 "def main(r):\\n  if r == 2: os._exit(0)\\n  return r\"}}",
                 "[{\"records\":[1,2,3]}]", "records[1]: python ended");
    world_refuse(&world, "map",
                 "{\"method\":\"python\",\"code\":{\"text\":\"import os\\n"
                 "def main(r):\\n  if r == 2: os._exit(7)\\n  return r\"}}",
                 "[{\"records\":[1,2,3]}]", "exit status 7");
    world_refuse(&world, "map",
                 "{\"method\":\"python\",\"flatten\":true,\"code\":{\"text\":"
                 "\"def main(r): return r\"}}",
                 "[{\"records\":[1]}]", "flatten wants a list");
    world_refuse(&world, "map",
                 "{\"method\":\"fields\",\"fields\":{\"x\":{\"from\":\"q\"}}}",
                 "[{\"records\":[{}]}]", "records[0]: fields.x: no field q");
    world_refuse(&world, "map",
                 "{\"method\":\"fields\",\"fields\":{\"x\":{\"template\":"
                 "\"{q\"}}}",
                 "[{\"records\":[{}]}]", "without }");
    world_refuse(&world, "map", "{\"method\":\"magic\"}", "[{\"records\":[]}]",
                 "python or fields");
    world_refuse(&world, "map", "{\"method\":\"fields\",\"fields\":{}}", "[{}]",
                 "records: a list");
    world_close(&world, true);
}

#define RECORDS                                                                \
    "{\"records\":[{\"n\":1,\"t\":\"alpha\"},{\"n\":2.5,\"t\":\"beta b\"},"    \
    "{\"n\":\"3\",\"l\":[1,\"x\"]},{\"n\":null,\"t\":\"\\u00e9t\\u00e9\"}]}"

static void filter_expect(world_t *world, const char *where, const char *want)
{
    char *params = fm_asprintf("{\"method\":\"where\",\"where\":%s}", where);
    fm_json_t *output = output_of(world, "filter", params, RECORDS);
    char kept[8] = "";

    for (size_t i = 0, k = 0; i < 4; i++) {
        fm_json_t *all = json_of(RECORDS);
        const fm_json_t *record = fm_json_at(fm_json_get(all, "records"), i);
        const fm_json_t *items = fm_json_get(output, "items");
        if (k < fm_json_len(items) &&
            fm_json_equal(fm_json_at(items, k), record)) {
            kept[k++] = (char)('0' + i);
        }
        fm_json_drop(all);
    }
    CU_ASSERT_STRING_EQUAL(kept, want);
    if (strcmp(kept, want) != 0) {
        (void)fprintf(stderr, "%s: %s, not %s\n", where, kept, want);
    }
    free(params);
    fm_json_drop(output);
}

static void test_filter(void)
{
    world_t world = {0};
    static const char *const cases[][2] = {
        {"{\"field\":\"n\",\"op\":\"eq\",\"value\":1.0}", "0"},
        {"{\"field\":\"n\",\"op\":\"ne\",\"value\":1}", "123"},
        {"{\"field\":\"n\",\"op\":\"ge\",\"value\":2}", "12"},
        {"{\"field\":\"n\",\"op\":\"lt\",\"value\":2.5}", "0"},
        {"{\"field\":\"n\",\"op\":\"le\",\"value\":2.5}", "01"},
        {"{\"field\":\"t\",\"op\":\"gt\",\"value\":\"b\"}", "13"},
        {"{\"field\":\"t\",\"op\":\"in\",\"value\":[\"alpha\",3]}", "0"},
        {"{\"field\":\"t\",\"op\":\"contains\",\"value\":\"a b\"}", "1"},
        {"{\"field\":\"l\",\"op\":\"contains\",\"value\":1}", "2"},
        {"{\"field\":\"t\",\"op\":\"matches\",\"value\":\"^.t.$\"}", "3"},
        {"{\"field\":\"t\",\"op\":\"exists\",\"value\":true}", "013"},
        {"{\"field\":\"n\",\"op\":\"exists\",\"value\":false}", "3"},
        {"{\"field\":\"t\",\"of\":\"length\",\"op\":\"eq\",\"value\":3}", "3"},
        {"{\"field\":\"t\",\"of\":\"words\",\"op\":\"gt\",\"value\":1}", "1"},
        {"{\"field\":\"l\",\"of\":\"length\",\"op\":\"eq\",\"value\":2}", "2"},
        {"{\"field\":\"l[1]\",\"op\":\"eq\",\"value\":\"x\"}", "2"},
        {"{\"not\":{\"field\":\"t\",\"op\":\"exists\",\"value\":true}}", "2"},
        {"{\"all\":[{\"field\":\"n\",\"op\":\"ge\",\"value\":1},{\"not\":{"
         "\"field\":\"n\",\"op\":\"eq\",\"value\":2.5}}]}",
         "02"},
        {"{\"any\":[{\"field\":\"n\",\"op\":\"eq\",\"value\":1},{\"field\":"
         "\"t\",\"op\":\"matches\",\"value\":\"\\\\w b$\"}]}",
         "01"},
    };

    world_open(&world, "w");
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        filter_expect(&world, cases[i][0], cases[i][1]);
    }
    expect_items(&world, "filter",
                 "{\"method\":\"python\",\"code\":{\"text\":\"def main(r): "
                 "return r % 2 == 0\"}}",
                 "{\"records\":[1,2,3,4]}", "[2,4]");
    world_refuse(&world, "filter",
                 "{\"method\":\"python\",\"code\":{\"text\":\"def main(r): "
                 "return r\"}}",
                 "[{\"records\":[true,1]}]", "records[1]");
    world_refuse(&world, "filter",
                 "{\"method\":\"where\",\"where\":{\"field\":\"n\",\"op\":"
                 "\"gt\",\"value\":1}}",
                 "[{\"records\":[{\"n\":2},{\"n\":\"two\"}]}]",
                 "records[1]: n is a string");
    world_refuse(&world, "filter",
                 "{\"method\":\"where\",\"where\":{\"field\":\"n\",\"op\":"
                 "\"like\",\"value\":1}}",
                 "[{\"records\":[]}]", "op: eq");
    world_refuse(&world, "filter",
                 "{\"method\":\"where\",\"where\":{\"field\":\"n\",\"op\":"
                 "\"matches\",\"value\":\"(\"}}",
                 "[{\"records\":[]}]", "pattern, byte 1");
    /* A pattern that would take for ever is given up. */
    world_refuse(&world, "filter",
                 "{\"method\":\"where\",\"where\":{\"field\":null,\"op\":"
                 "\"matches\",\"value\":\"(a|aa)+$\"}}",
                 "[{\"records\":[\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
                 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab\"]}]",
                 "limit exceeded");
    world_close(&world, true);
}

static void test_dedup_exact(void)
{
    world_t world = {0};
    const char *records = "{\"records\":[{\"a\":1,\"b\":2},{\"b\":2,\"a\":1.0},"
                          "{\"a\":1},{\"a\":1,\"b\":null},\"1\",1]}";

    world_open(&world, "w");
    world_expect(&world, "dedup", "{\"method\":\"exact\"}",
                 "[{\"records\":[{\"a\":1,\"b\":2},{\"b\":2,\"a\":1.0},\"1\","
                 "1]}]",
                 "{\"items\":[{\"a\":1,\"b\":2},\"1\",1],\"report\":{"
                 "\"clusters\":[{\"kept\":0,\"removed\":[{\"index\":1}]}],"
                 "\"kept\":3,\"removed\":1}}");
    expect_items(&world, "dedup", "{\"method\":\"exact\",\"fields\":[\"b\"]}",
                 records, "[{\"a\":1,\"b\":2},{\"a\":1}]");
    world_refuse(&world, "dedup", "{\"method\":\"fuzzy\"}",
                 "[{\"records\":[]}]", "exact or minhash");
    world_close(&world, true);
}

/* Against every pair compared: what is kept, and the clusters. */
static void test_dedup_near(void)
{
    world_t world = {0};
    fm_json_t *all = reference();
    const fm_json_t *want = fm_json_get(all, "near");
    fm_json_t *value = fm_json_object();

    world_open(&world, "w");
    CU_ASSERT_EQUAL(
        fm_json_set(value, "records", fm_json_keep(fm_json_get(want, "texts"))),
        FM_OK);
    char *text = fm_json_dump(value);
    fm_json_t *output =
        output_of(&world, "dedup",
                  "{\"method\":\"minhash\",\"threshold\":0.7,\"ngram\":3,"
                  "\"permutations\":128,\"seed\":1}",
                  text);
    const fm_json_t *kept = fm_json_get(want, "kept");
    const fm_json_t *items = fm_json_get(output, "items");
    CU_ASSERT_EQUAL_FATAL(fm_json_len(items), fm_json_len(kept));
    for (size_t i = 0; i < fm_json_len(kept); i++) {
        int64_t index = fm_json_int_or(fm_json_at(kept, i), 0);
        CU_ASSERT(fm_json_equal(
            fm_json_at(items, i),
            fm_json_at(fm_json_get(want, "texts"), (size_t)index)));
    }
    const fm_json_t *clusters = fm_json_path(output, "report.clusters");
    const fm_json_t *known = fm_json_get(want, "clusters");
    CU_ASSERT_EQUAL_FATAL(fm_json_len(clusters), fm_json_len(known));
    for (size_t i = 0; i < fm_json_len(known); i++) {
        const fm_json_t *members = fm_json_at(fm_json_at(known, i), 1);
        const fm_json_t *mine = fm_json_get(fm_json_at(clusters, i), "removed");
        CU_ASSERT_EQUAL_FATAL(fm_json_len(mine), fm_json_len(members));
        for (size_t j = 0; j < fm_json_len(members); j++) {
            const fm_json_t *pair = fm_json_at(members, j);
            CU_ASSERT_EQUAL(fm_json_get_int(fm_json_at(mine, j), "index", -1),
                            fm_json_int_or(fm_json_at(pair, 0), -2));
            CU_ASSERT_DOUBLE_EQUAL(
                fm_json_get_real(fm_json_at(mine, j), "similarity", -1),
                fm_json_real_or(fm_json_at(pair, 1), 2), 1e-12);
        }
    }
    fm_json_drop(output);
    /* The estimate is within its error, so it keeps the same ones here. */
    output = output_of(&world, "dedup",
                       "{\"method\":\"minhash\",\"threshold\":0.7,\"ngram\":3,"
                       "\"permutations\":256,\"verify\":\"estimate\"}",
                       text);
    CU_ASSERT_EQUAL(fm_json_len(fm_json_get(output, "items")),
                    fm_json_len(kept));
    fm_json_drop(output);
    free(text);
    fm_json_drop(value);
    fm_json_drop(all);
    world_close(&world, true);
}

static void test_banding(void)
{
    fm_json_t *all = reference();
    const fm_json_t *rows = fm_json_get(all, "banding");

    CU_ASSERT_FATAL(fm_json_len(rows) > 0);
    for (size_t i = 0; i < fm_json_len(rows); i++) {
        const fm_json_t *row = fm_json_at(rows, i);
        const fm_ops_near_options_t options = {
            .threshold = fm_json_real_or(fm_json_at(row, 0), 0),
            .permutations = (size_t)fm_json_int_or(fm_json_at(row, 1), 0),
            .ngram = 1};
        fm_ops_near_t *near = NULL;
        fm_error_t err = {0};
        size_t bands = 0, places = 0;
        FM_ASSERT_OK(fm_ops_near_create(&options, &near, &err), &err);
        fm_ops_near_bands(near, &bands, &places);
        CU_ASSERT_EQUAL((int64_t)bands, fm_json_int_or(fm_json_at(row, 2), 0));
        CU_ASSERT_EQUAL((int64_t)places, fm_json_int_or(fm_json_at(row, 3), 0));
        fm_ops_near_destroy(near);
    }
    fm_json_drop(all);
}

#define TEN "{\"records\":[0,1,2,3,4,5,6,7,8,9]}"

/* Every record once, in file order inside a part; sizes as wanted. */
static void split_check(world_t *world, const char *params, const char *sizes)
{
    fm_json_t *output = output_of(world, "split", params, TEN);
    const fm_json_t *items = fm_json_get(output, "items");
    const fm_json_t *parts = fm_json_get(output, "parts");
    char *got = fm_json_canonical(fm_json_path(output, "report.sizes"));
    bool seen[10] = {false};
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *range = NULL;
    int64_t end = 0;

    CU_ASSERT_STRING_EQUAL(got, sizes);
    free(got);
    CU_ASSERT_EQUAL(fm_json_len(items), 10);
    while (fm_json_next(parts, &iterator, &name, &range)) {
        int64_t from = fm_json_int_or(fm_json_at(range, 0), -1);
        int64_t to = fm_json_int_or(fm_json_at(range, 1), -1);
        for (int64_t i = from, before = -1; i < to; i++) {
            int64_t n = fm_json_int_or(fm_json_at(items, (size_t)i), 99);
            CU_ASSERT_FATAL(n >= 0 && n < 10);
            CU_ASSERT(n > before && !seen[n]);
            seen[n] = true;
            before = n;
        }
        end = to > end ? to : end;
    }
    CU_ASSERT_EQUAL(end, 10);
    fm_json_drop(output);
}

static void test_split(void)
{
    world_t world = {0};

    world_open(&world, "w");
    split_check(&world,
                "{\"seed\":4,\"parts\":[{\"name\":\"a\",\"fraction\":0.7},"
                "{\"name\":\"b\",\"fraction\":0.2},{\"name\":\"c\","
                "\"fraction\":0.1}]}",
                "{\"a\":7,\"b\":2,\"c\":1}");
    split_check(&world,
                "{\"parts\":[{\"name\":\"a\",\"fraction\":0.33},{\"name\":"
                "\"b\"}]}",
                "{\"a\":3,\"b\":7}");
    split_check(&world,
                "{\"parts\":[{\"name\":\"a\",\"count\":4},{\"name\":\"b\"},"
                "{\"name\":\"c\",\"count\":0}]}",
                "{\"a\":4,\"b\":6,\"c\":0}");
    expect_items(&world, "split",
                 "{\"shuffle\":false,\"parts\":[{\"name\":\"a\",\"count\":1},"
                 "{\"name\":\"b\"}]}",
                 "{\"records\":[5,6,7]}", "[5,6,7]");
    world_refuse(&world, "split", "{\"parts\":[{\"name\":\"a\",\"count\":4}]}",
                 "[" TEN "]", "6 of 10 records belong to no part");
    world_refuse(&world, "split", "{\"parts\":[{\"name\":\"a\",\"count\":11}]}",
                 "[" TEN "]", "more than the 10 records");
    world_refuse(&world, "split",
                 "{\"parts\":[{\"name\":\"a\",\"fraction\":0.5},{\"name\":"
                 "\"b\",\"fraction\":0.4}]}",
                 "[" TEN "]", "add up to 0.9");
    world_refuse(&world, "split",
                 "{\"parts\":[{\"name\":\"a\"},{\"name\":\"a\"}]}", "[" TEN "]",
                 "taken by another");
    world_close(&world, true);
}

/* 60 of x, 30 of y, 10 of z: each part has its share of each. */
static void test_split_strata(void)
{
    world_t world = {0};
    fm_buf_t text = {0};

    world_open(&world, "w");
    fm_buf_add_str(&text, "{\"records\":[");
    for (int i = 0; i < 100; i++) {
        fm_buf_printf(&text, "%s{\"i\":%d,\"k\":\"%s\"}", i ? "," : "", i,
                      i % 10 < 6 ? "x" : (i % 10 < 9 ? "y" : "z"));
    }
    fm_buf_add_str(&text, "]}");
    fm_json_t *output = output_of(
        &world, "split",
        "{\"stratify\":\"k\",\"seed\":2,\"parts\":[{\"name\":\"train\","
        "\"fraction\":0.8},{\"name\":\"test\",\"fraction\":0.2}]}",
        fm_buf_cstr(&text));
    size_t counts[2][3] = {{0}};
    const fm_json_t *items = fm_json_get(output, "items");
    CU_ASSERT_EQUAL_FATAL(fm_json_len(items), 100);
    for (size_t i = 0; i < 100; i++) {
        const char *k = fm_json_get_str(fm_json_at(items, i), "k");
        counts[i >= 80][*k - 'x']++;
    }
    CU_ASSERT_EQUAL(counts[0][0], 48);
    CU_ASSERT_EQUAL(counts[0][1], 24);
    CU_ASSERT_EQUAL(counts[0][2], 8);
    CU_ASSERT_EQUAL(counts[1][2], 2);
    fm_json_drop(output);
    /* Strata of one record each: rounding is carried, not lost. */
    fm_buf_clear(&text);
    fm_buf_add_str(&text, "{\"records\":[\"a\",\"b\",\"c\",\"d\",\"e\","
                          "\"f\",\"g\",\"h\",\"i\",\"j\"]}");
    output = output_of(
        &world, "split",
        "{\"stratify\":\"text\",\"parts\":[{\"name\":\"a\",\"fraction\":"
        "0.5},{\"name\":\"b\"}]}",
        fm_buf_cstr(&text));
    CU_ASSERT_EQUAL(fm_json_int_or(fm_json_path(output, "report.sizes.a"), 0),
                    5);
    fm_json_drop(output);
    fm_buf_fini(&text);
    world_close(&world, true);
}

static void test_shard_concat(void)
{
    world_t world = {0};

    world_open(&world, "w");
    expect_items(&world, "shard", "{\"index\":1,\"count\":4}", TEN, "[1,5,9]");
    expect_items(&world, "shard",
                 "{\"index\":3,\"count\":4,\"contiguous\":true}", TEN,
                 "[7,8,9]");
    expect_items(&world, "shard", "{\"index\":11,\"count\":12}", TEN, "[]");
    world_refuse(&world, "shard", "{\"index\":4,\"count\":4}", "[" TEN "]",
                 "index: an integer from 0 to 3");
    expect_items(&world, "concat", "{}", "{\"lists\":[[1],[],[2,1]]}",
                 "[1,2,1]");
    world_refuse(&world, "concat", "{}", "[{\"lists\":[1]}]", "lists[0]");
    world_close(&world, true);
}

static void test_sample(void)
{
    world_t world = {0};
    size_t heavy = 0;

    world_open(&world, "w");
    fm_json_t *a = output_of(&world, "sample", "{\"count\":4,\"seed\":1}", TEN);
    fm_json_t *b =
        output_of(&world, "sample", "{\"fraction\":0.4,\"seed\":1}", TEN);
    fm_json_t *c = output_of(&world, "sample", "{\"count\":4,\"seed\":2}", TEN);
    CU_ASSERT(fm_json_equal(a, b) && !fm_json_equal(a, c));
    CU_ASSERT_EQUAL(fm_json_len(fm_json_get(a, "items")), 4);
    fm_json_drop(a);
    fm_json_drop(b);
    fm_json_drop(c);
    /* Weight 9 against 1: first of one draw in 0.9 of all seeds. */
    for (int seed = 0; seed < 300; seed++) {
        char *params =
            fm_asprintf("{\"count\":1,\"weights\":\"w\",\"seed\":%d}", seed);
        a = output_of(&world, "sample", params,
                      "{\"records\":[{\"w\":1},{\"w\":0},{\"w\":9}]}");
        int64_t w = fm_json_int_or(fm_json_path(a, "items[0].w"), 0);
        CU_ASSERT(w > 0);
        heavy += w == 9;
        fm_json_drop(a);
        free(params);
    }
    CU_ASSERT(heavy > 250 && heavy < 290); /* 270 ± 5.2 */
    world_refuse(&world, "sample", "{\"count\":11}", "[" TEN "]",
                 "there are 10");
    world_refuse(&world, "sample", "{\"count\":1,\"fraction\":1}", "[" TEN "]",
                 "either");
    world_refuse(&world, "sample", "{\"count\":2,\"weights\":\"w\"}",
                 "[{\"records\":[{\"w\":1},{\"w\":0}]}]", "1 of 2");
    world_refuse(&world, "sample", "{\"count\":1,\"weights\":\"w\"}",
                 "[{\"records\":[{\"w\":-1}]}]", "records[0]: w");
    world_close(&world, true);
}

static void test_export(void)
{
    world_t world = {0};
    seen_t seen = {0};
    fm_buf_t bytes = {0};
    fm_error_t err = {0};
    char name[FM_DIGEST_TEXT_BYTES];
    const char *want = "{\"p\":\"x\",\"q\":2}\n{\"p\":\"y\",\"q\":null}\n";

    world_open(&world, "w");
    world_run(&world, "jsonl_export",
              "{\"fields\":{\"q\":\"a.b\",\"p\":\"t\"},\"required\":[\"p\"]}",
              "[{\"records\":[{\"t\":\"x\",\"a\":{\"b\":2}},{\"t\":\"\"},{},"
              "{\"t\":\"y\"}]}]",
              &seen);
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    CU_ASSERT_EQUAL(seen.objects, 1);
    fm_digest_t digest = fm_sha256(want, strlen(want));
    char *output = fm_asprintf(
        "{\"bytes\":%zu,\"dropped\":2,\"file\":\"%s\",\"records\":2}",
        strlen(want), fm_digest_format(&digest, name));
    CU_ASSERT_STRING_EQUAL(seen.outputs[0], output);
    FM_ASSERT_OK(fm_cas_get(world.cas, &digest, &bytes, &err), &err);
    CU_ASSERT_EQUAL(bytes.len, strlen(want));
    fm_buf_fini(&bytes);
    free(output);
    seen_fini(&seen);
    world_close(&world, true);
}

/* No records, and records of nothing: every operator has an answer. */
static void test_empty(void)
{
    world_t world = {0};
    static const char *const cases[][2] = {
        {"dedup", "{\"method\":\"exact\"}"},
        {"dedup", "{\"method\":\"minhash\"}"},
        {"split", "{\"parts\":[{\"name\":\"a\",\"fraction\":0.5},{\"name\":"
                  "\"b\"}],\"stratify\":\"x\"}"},
        {"shard", "{\"index\":0,\"count\":1}"},
        {"sample", "{\"fraction\":0.5,\"weights\":\"w\"}"},
        {"filter", "{\"method\":\"where\",\"where\":{\"field\":\"x\",\"op\":"
                   "\"eq\",\"value\":1}}"},
        {"filter", "{\"method\":\"python\",\"code\":{\"text\":\"def main(r): "
                   "return True\"}}"},
    };

    world_open(&world, "w");
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        expect_items(&world, cases[i][0], cases[i][1], "{\"records\":[]}",
                     "[]");
    }
    expect_items(&world, "concat", "{}", "{\"lists\":[]}", "[]");
    expect_items(&world, "dedup", "{\"method\":\"minhash\"}",
                 "{\"records\":[\"\",\" \",\"a\",null]}", "[\"\",\"a\",null]");
    fm_json_t *output =
        output_of(&world, "jsonl_export", "{}", "{\"records\":[]}");
    CU_ASSERT_EQUAL(fm_json_get_int(output, "bytes", -1), 0);
    fm_json_drop(output);
    world_expect(&world, "data_profiling", "{}", "[{\"records\":[]}]",
                 "{\"columns\":{},\"duplicates\":0,\"records\":0}");
    world_close(&world, true);
}

static void test_profile(void)
{
    world_t world = {0};
    fm_json_t *all = reference();
    const fm_json_t *want = fm_json_get(all, "figures");
    const fm_json_t *at = fm_json_get(want, "at");
    fm_json_t *value = fm_json_object(), *params = fm_json_object();

    world_open(&world, "w");
    world_expect(
        &world, "data_profiling", "{\"top\":1,\"quantiles\":[0.5]}",
        "[{\"records\":[{\"a\":1,\"b\":\"x y\"},{\"a\":2.5},{\"a\":1,"
        "\"b\":\"x y\"},{\"b\":\"\\u00e9\"},{\"a\":null,\"b\":[]}]}]",
        "{\"columns\":{"
        "\"a\":{\"distinct\":2,\"missing\":2,\"numbers\":{\"count\":3,"
        "\"max\":2.5,\"mean\":1.5,\"min\":1,\"quantiles\":{\"0.5\":1},"
        "\"std\":0.8660254037844386},\"text\":null,\"top\":[{\"count\":2,"
        "\"value\":1}],\"types\":{\"integer\":2,\"number\":1}},"
        "\"b\":{\"distinct\":3,\"missing\":1,\"numbers\":null,\"text\":{"
        "\"bytes\":{\"count\":3,\"max\":3,\"mean\":2.6666666666666665,"
        "\"min\":2,\"quantiles\":{\"0.5\":3},\"std\":0.5773502691896258},"
        "\"characters\":{\"count\":3,\"max\":3,\"mean\":2.3333333333333335,"
        "\"min\":1,\"quantiles\":{\"0.5\":3},\"std\":1.1547005383792515},"
        "\"empty\":0,\"words\":{\"count\":3,\"max\":2,"
        "\"mean\":1.6666666666666667,\"min\":1,\"quantiles\":{\"0.5\":2},"
        "\"std\":0.5773502691896257}},\"top\":[{\"count\":2,\"value\":"
        "\"x y\"}],\"types\":{\"list\":1,\"string\":3}}},"
        "\"duplicates\":1,\"records\":5}");
    fm_json_t *records = fm_json_array();
    for (size_t i = 0; i < fm_json_len(fm_json_get(want, "values")); i++) {
        fm_json_t *record = fm_json_object();
        CU_ASSERT_EQUAL(fm_json_set(record, "v",
                                    fm_json_keep(fm_json_at(
                                        fm_json_get(want, "values"), i))),
                        FM_OK);
        CU_ASSERT_EQUAL(fm_json_append(records, record), FM_OK);
    }
    CU_ASSERT_EQUAL(fm_json_set(value, "records", records), FM_OK);
    CU_ASSERT_EQUAL(fm_json_set(params, "quantiles", fm_json_keep(at)), FM_OK);
    char *value_text = fm_json_dump(value), *params_text = fm_json_dump(params);
    fm_json_t *output =
        output_of(&world, "data_profiling", params_text, value_text);
    const fm_json_t *numbers = fm_json_path(output, "columns.v.numbers");
    for (size_t i = 0; i < fm_json_len(at); i++) {
        char *name = fm_json_canonical(fm_json_at(at, i));
        double known =
            fm_json_real_or(fm_json_at(fm_json_get(want, "quantiles"), i), NAN);
        CU_ASSERT_DOUBLE_EQUAL(
            fm_json_get_real(fm_json_get(numbers, "quantiles"), name, 1e99),
            known, 1e-12 * (1 + fabs(known)));
        free(name);
    }
    CU_ASSERT_DOUBLE_EQUAL(fm_json_get_real(numbers, "mean", 0),
                           fm_json_get_real(want, "mean", 1), 1e-9);
    CU_ASSERT_DOUBLE_EQUAL(fm_json_get_real(numbers, "std", 0),
                           fm_json_get_real(want, "std", 1), 1e-6);
    free(value_text);
    free(params_text);
    fm_json_drop(output);
    fm_json_drop(value);
    fm_json_drop(params);
    fm_json_drop(all);
    world_refuse(&world, "data_profiling", "{\"quantiles\":[2]}",
                 "[{\"records\":[]}]", "quantiles");
    world_close(&world, true);
}

/* --- HDF5 ---------------------------------------------------------------- */

static void table_try(world_t *world, const fm_digest_t *file,
                      const char *dataset, const char *want)
{
    char text[FM_DIGEST_TEXT_BYTES];
    char *params = fm_asprintf("{\"format\":\"hdf5\",\"file\":{\"digest\":"
                               "\"%s\"},\"dataset\":\"%s\"}",
                               fm_digest_format(file, text), dataset);

    if (*want == '{') {
        world_expect(world, "data_retrieval", params, "[{}]", want);
    } else {
        world_refuse(world, "data_retrieval", params, "[{}]", want);
    }
    free(params);
}

static void test_hdf5(void)
{
    world_t world = {0};
    fm_error_t err = {0};
    fm_buf_t bytes = {0};
    fm_digest_t file, other;

    world_open(&world, "w");
    FM_ASSERT_OK(fm_file_read(FM_TEST_REF_DIR "/table.h5", (size_t)1 << 20,
                              &bytes, &err),
                 &err);
    FM_ASSERT_OK(
        fm_cas_put(world.cas, FM_CAS_BLOB, bytes.data, bytes.len, &file, &err),
        &err);
    FM_ASSERT_OK(fm_cas_put(world.cas, FM_CAS_BLOB, bytes.data, bytes.len / 2,
                            &other, &err),
                 &err);
    FM_ASSERT_OK(fm_cas_seal(world.cas, &err), &err);
    table_try(&world, &file, "t/rows",
              "{\"items\":[{\"big\":0,\"code\":\"ab\",\"colour\":\"RED\","
              "\"flag\":true,\"half\":1.5,\"id\":1,\"name\":\"one\",\"score\":"
              "0.5},{\"big\":5,\"code\":\"abcd\",\"colour\":\"GREEN\",\"flag\":"
              "false,\"half\":2,\"id\":-2,\"name\":\"zw\xc3\xb6lf\",\"score\":"
              "-1e+300},{\"big\":9223372036854775807,\"code\":\"\",\"colour\":"
              "\"RED\",\"flag\":true,\"half\":-0.25,\"id\":3,\"name\":\"\","
              "\"score\":3}]}");
    table_try(&world, &file, "/t/columns",
              "{\"items\":[{\"a\":0,\"b\":\"x\"},{\"a\":1,\"b\":\"y\"},"
              "{\"a\":2,\"b\":\"z\"},{\"a\":3,\"b\":\"w\"}]}");
    table_try(&world, &file, "plain", "{\"items\":[3,4]}");
    table_try(&world, &file, "bad", "bad: column b: 3 rows");
    table_try(&world, &file, "grid", "2 dimensions");
    table_try(&world, &file, "nan", "nan: row 1: a value that JSON");
    table_try(&world, &file, "over", "over: row 0: a value that JSON");
    table_try(&world, &file, "nothing", "no dataset or group");
    table_try(&world, &file, "t", "holds nothing else");
    table_try(&world, &other, "t/rows", "no HDF5 file, or a damaged one");
    fm_buf_fini(&bytes);
    world_close(&world, true);
}

/* A file must not lead to others of the machine that reads it. */
static void test_hdf5_links(void)
{
    world_t world = {0};
    fm_error_t err = {0};
    fm_buf_t bytes = {0};
    fm_digest_t file;

    world_open(&world, "w");
    FM_ASSERT_OK(fm_file_read(FM_TEST_REF_DIR "/table_links.h5",
                              (size_t)1 << 20, &bytes, &err),
                 &err);
    FM_ASSERT_OK(
        fm_cas_put(world.cas, FM_CAS_BLOB, bytes.data, bytes.len, &file, &err),
        &err);
    FM_ASSERT_OK(fm_cas_seal(world.cas, &err), &err);
    fm_buf_fini(&bytes);
    /* Here the name that the file says is there to be found. */
    char *here = getcwd(NULL, 0);
    CU_ASSERT_EQUAL_FATAL(chdir(FM_TEST_REF_DIR), 0);
    table_try(&world, &file, "link", "no dataset or group");
    table_try(&world, &file, "group", "no dataset that can be read");
    table_try(&world, &file, "outside", "data in other files");
    table_try(&world, &file, "virtual", "a virtual or damaged layout");
    table_try(&world, &file, "soft", "no dataset that can be read");
    table_try(&world, &file, "loop", "holds nothing else");
    CU_ASSERT_EQUAL(chdir(here), 0);
    free(here);
    world_close(&world, true);
}

/* Whatever the library does of a file is an error of that item alone. */
static void test_hdf5_death(void)
{
    world_t world = {0};
    fm_error_t err = {0};
    fm_digest_t file;

    world_open(&world, "w");
    FM_ASSERT_OK(fm_cas_put(world.cas, FM_CAS_BLOB, "x", 1, &file, &err), &err);
    FM_ASSERT_OK(fm_cas_seal(world.cas, &err), &err);
    CU_ASSERT_FATAL(fm_fault_arm("table.read:1"));
    table_try(&world, &file, "t", "the library ended with signal 6");
    (void)fm_fault_arm(NULL);
    table_try(&world, &file, "t", "no HDF5 file");
    world_close(&world, true);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"map", test_map},
        {"filter", test_filter},
        {"dedup: exact", test_dedup_exact},
        {"dedup: near, against every pair", test_dedup_near},
        {"dedup: banding", test_banding},
        {"split", test_split},
        {"split: strata", test_split_strata},
        {"shard and concat", test_shard_concat},
        {"sample", test_sample},
        {"jsonl_export", test_export},
        {"data_profiling", test_profile},
        {"no records", test_empty},
        {"hdf5 tables", test_hdf5},
        {"hdf5 files that lead elsewhere", test_hdf5_links},
        {"fault: the HDF5 library dies", test_hdf5_death},
    };
    return fm_test_main("run/ops data", cases, FM_COUNT_OF(cases));
}
