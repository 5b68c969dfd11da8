/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rewards, and the figures of evaluate that are made of them: by hand, and
 * against numbers computed elsewhere (tests/ref/data_reference.py).
 */
#include <math.h>

#include "base/file.h"
#include "ops_fixture.h"
#include "run/ops/infer/evaluate.h"
#include "run/ops/reward/schema.h"
#include "run/ops/reward/verify.h"

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

/* One completion against one record. */
typedef struct trial {
    const char *params, *completion, *record;
    double want; /* NAN: refused */
} trial_t;

static void trials_run(const trial_t *trials, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const trial_t *trial = &trials[i];
        fm_json_t *params = json_of(trial->params);
        fm_json_t *record = json_of(trial->record);
        fm_ops_verifier_t *verifier = NULL;
        fm_error_t err = {0};
        double got = -1;
        FM_ASSERT_OK(fm_ops_verifier_create(params, &verifier, &err), &err);
        fm_json_drop(params); /* the verifier keeps its own */
        fm_status_t rc =
            fm_ops_verify(verifier, trial->completion,
                          strlen(trial->completion), record, &got, &err);
        bool ok = isnan(trial->want)
                      ? rc < 0 && got == -1
                      : rc >= 0 && fabs(got - trial->want) < 1e-12;
        CU_ASSERT(ok);
        if (!ok) {
            (void)fprintf(stderr, "%s of \"%s\" for %s: %g, not %g (%s)\n",
                          trial->params, trial->completion, trial->record, got,
                          trial->want, err.text);
        }
        fm_ops_verifier_destroy(verifier);
        fm_json_drop(record);
    }
}

static void test_exact(void)
{
    static const trial_t trials[] = {
        {"{\"kind\":\"exact_match\"}", " Paris\n", "{\"answer\":\"Paris\"}", 1},
        {"{\"kind\":\"exact_match\"}", "paris", "{\"answer\":\"Paris\"}", 0},
        {"{\"kind\":\"exact_match\",\"ignore_case\":true}", "paRIS",
         "{\"answer\":\"Paris\"}", 1},
        {"{\"kind\":\"exact_match\",\"strip\":false}", "Paris ",
         "{\"answer\":\"Paris\"}", 0},
        {"{\"kind\":\"exact_match\",\"field\":\"a.b\"}", "7",
         "{\"a\":{\"b\":7}}", 1},
        {"{\"kind\":\"exact_match\"}", "b", "{\"answer\":[\"a\",\"b\"]}", 1},
        {"{\"kind\":\"exact_match\"}", "c", "{\"answer\":[\"a\",\"b\"]}", 0},
        {"{\"kind\":\"exact_match\",\"marker\":\"A:\"}", "A: no, A: yes",
         "{\"answer\":\"yes\"}", 1},
        {"{\"kind\":\"exact_match\",\"marker\":\"A:\"}", "yes",
         "{\"answer\":\"yes\"}", 0},
        {"{\"kind\":\"exact_match\"}", "x", "{\"other\":1}", NAN},
        {"{\"kind\":\"exact_match\"}", "x", "{\"answer\":null}", NAN},
    };

    trials_run(trials, FM_COUNT_OF(trials));
}

#define NUMERIC "{\"kind\":\"numeric\"}"
#define GSM8K "{\"kind\":\"numeric\",\"marker\":\"####\"}"

static void test_numeric(void)
{
    static const trial_t trials[] = {
        {NUMERIC, "so 3 + 4 = 7.", "{\"answer\":7}", 1},
        {NUMERIC, "7 apples, then 8", "{\"answer\":7}", 0},
        {NUMERIC, "about $1,234,567.50 in all", "{\"answer\":1234567.5}", 1},
        {NUMERIC, "1,2,3", "{\"answer\":3}", 1},
        {NUMERIC, "it is -0.5", "{\"answer\":\"-1/2\"}", 1},
        {NUMERIC, "5-3", "{\"answer\":3}", 1},
        {NUMERIC,
         "x = \xe2\x88\x92"
         "12",
         "{\"answer\":-12}", 1},
        {NUMERIC, "6.02e23 of them", "{\"answer\":6.02e23}", 1},
        {NUMERIC, "3/4", "{\"answer\":0.75}", 1},
        {NUMERIC, "3/0", "{\"answer\":0}", 1}, /* two numbers */
        {NUMERIC, "40%", "{\"answer\":40}", 1},
        {NUMERIC, "40 %", "{\"answer\":0.4}", 1},
        {NUMERIC, "0.4", "{\"answer\":\"40%\"}", 1},
        {NUMERIC, "41%", "{\"answer\":0.4}", 0},
        {NUMERIC, "see fig2", "{\"answer\":2}", 0},
        {NUMERIC, "none", "{\"answer\":0}", 0},
        {NUMERIC, "", "{\"answer\":0}", 0},
        {NUMERIC, ".5", "{\"answer\":0.5}", 1},
        {NUMERIC, "100000000", "{\"answer\":100000001}", 1}, /* 1e-8 off */
        {NUMERIC, "1000", "{\"answer\":1000.01}", 0},
        {"{\"kind\":\"numeric\",\"tolerance\":0.1}", "95", "{\"answer\":100}",
         1},
        {"{\"kind\":\"numeric\",\"tolerance\":0}", "1", "{\"answer\":1.0}", 1},
        {GSM8K, "5 * 2 = 10 #### 10 or 11", "{\"answer\":\"x 3 #### 10\"}", 1},
        {GSM8K, "10", "{\"answer\":10}", 0},
        {NUMERIC, "1", "{\"answer\":\"many\"}", NAN},
        {NUMERIC, "1", "{}", NAN},
    };

    trials_run(trials, FM_COUNT_OF(trials));
}

static void test_regex(void)
{
    static const trial_t trials[] = {
        {"{\"kind\":\"regex\",\"pattern\":\"a+b\"}", "xaab", "{}", 1},
        {"{\"kind\":\"regex\",\"pattern\":\"a+b\",\"mode\":\"full\"}", "xaab",
         "{}", 0},
        {"{\"kind\":\"regex\",\"pattern\":\"a|ab\",\"mode\":\"full\"}", "ab",
         "{}", 1},
        {"{\"kind\":\"regex\",\"pattern\":\"\\u00c9\",\"ignore_case\":true}",
         "\xc3\xa9", "{}", 1},
        {"{\"kind\":\"regex\",\"pattern\":\"box\\\\{(\\\\w+)\\\\}\","
         "\"field\":\"answer\"}",
         "box{no} box{yes}", "{\"answer\":\"yes\"}", 1},
        {"{\"kind\":\"regex\",\"pattern\":\"box\\\\{(\\\\w+)\\\\}\","
         "\"field\":\"answer\"}",
         "box{yes} box{no}", "{\"answer\":\"yes\"}", 0},
        {"{\"kind\":\"regex\",\"pattern\":\"\\\\w*\",\"group\":0,\"field\":"
         "\"answer\"}",
         "a b", "{\"answer\":\"\"}", 1}, /* the last match is empty */
        {"{\"kind\":\"regex\",\"pattern\":\"(\\\\w+)\",\"field\":\"answer\"}",
         "!!", "{\"answer\":\"x\"}", 0},
        {"{\"kind\":\"regex\",\"pattern\":\"(a|aa)+$\"}",
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab", "{}",
         NAN},
    };

    trials_run(trials, FM_COUNT_OF(trials));
}

static void test_json_schema(void)
{
    static const trial_t trials[] = {
        {"{\"kind\":\"json_schema\",\"schema\":{\"type\":\"object\"}}",
         " {\"a\":1}\n", "{}", 1},
        {"{\"kind\":\"json_schema\",\"schema\":{\"type\":\"object\"}}",
         "here: {\"a\":1}", "{}", 0},
        {"{\"kind\":\"json_schema\",\"schema\":{\"required\":[\"a\"]},"
         "\"extract\":true}",
         "so {not json} but {\"a\":[\"}\"]} ok", "{}", 1},
        {"{\"kind\":\"json_schema\",\"schema\":{\"const\":[2]},\"extract\":"
         "true}",
         "[1]\n```json\n[2]\n```", "{}", 1},
        {"{\"kind\":\"json_schema\",\"schema\":true,\"extract\":true}",
         "{{{{{{", "{}", 0},
        {"{\"kind\":\"json_schema\",\"schema\":true}", "nul", "{}", 0},
        {"{\"kind\":\"json_schema\",\"schema\":{\"prefixItems\":[{\"type\":"
         "\"string\"}],\"items\":{\"type\":\"integer\"}}}",
         "[\"a\",1,2]", "{}", 1},
        {"{\"kind\":\"json_schema\",\"schema\":{\"prefixItems\":[{\"type\":"
         "\"string\"}],\"items\":{\"type\":\"integer\"}}}",
         "[\"a\",1,\"b\"]", "{}", 0},
    };

    trials_run(trials, FM_COUNT_OF(trials));
}

static void test_length(void)
{
    static const trial_t trials[] = {
        {"{\"kind\":\"length\",\"target\":4}", "a b c", "{}", 0.75},
        {"{\"kind\":\"length\",\"target\":2}", "a b c d e", "{}", 0},
        {"{\"kind\":\"length\",\"min_tokens\":2,\"max_tokens\":3}", "a b c",
         "{}", 1},
        {"{\"kind\":\"length\",\"min_tokens\":4}", "a", "{}", 0.25},
        {"{\"kind\":\"length\",\"max_tokens\":1}", "a b c d", "{}", 0.25},
        {"{\"kind\":\"length\",\"max_tokens\":0}", "a", "{}", 0},
        {"{\"kind\":\"length\",\"target\":2,\"unit\":\"characters\"}",
         "\xc3\xa9\xc3\xa9", "{}", 1},
    };

    trials_run(trials, FM_COUNT_OF(trials));
}

/* Every schema of the reference on every value: what jsonschema said. */
static void test_schemas(void)
{
    fm_json_t *all = reference();
    const fm_json_t *values = fm_json_path(all, "schemas.values");
    const fm_json_t *cases = fm_json_path(all, "schemas.cases");
    size_t allowed = 0, refused = 0;

    CU_ASSERT_FATAL(fm_json_len(cases) > 100);
    for (size_t i = 0; i < fm_json_len(cases); i++) {
        const fm_json_t *schema = fm_json_at(fm_json_at(cases, i), 0);
        const char *want = fm_json_str(fm_json_at(fm_json_at(cases, i), 1));
        fm_error_t err = {0};
        FM_ASSERT_OK(fm_ops_schema_check(schema, &err), &err);
        for (size_t v = 0; v < fm_json_len(values); v++) {
            bool got = false;
            FM_ASSERT_OK(
                fm_ops_schema_allows(schema, fm_json_at(values, v), &got, &err),
                &err);
            CU_ASSERT_EQUAL(got, want[v] == '1');
            if (got != (want[v] == '1')) {
                char *text = fm_json_dump(schema);
                (void)fprintf(stderr, "%s: value %zu: %d\n", text, v, got);
                free(text);
            }
            allowed += got;
            refused += !got;
        }
    }
    CU_ASSERT(allowed > 500 && refused > 500);
    fm_json_drop(all);
}

static void test_refusals(void)
{
    world_t world = {0};
    static const char *const cases[][2] = {
        {"{}", "kind: exact_match"},
        {"{\"kind\":\"vibes\"}", "kind: exact_match"},
        {"{\"kind\":\"numeric\",\"tolerance\":-1}", "tolerance"},
        {"{\"kind\":\"regex\"}", "pattern: a text"},
        {"{\"kind\":\"regex\",\"pattern\":\"(\"}", "pattern, byte 1"},
        {"{\"kind\":\"regex\",\"pattern\":\"a\",\"mode\":\"maybe\"}", "mode"},
        {"{\"kind\":\"regex\",\"pattern\":\"a\",\"field\":\"x\"}",
         "group: an integer from 0 to 0"},
        {"{\"kind\":\"json_schema\"}", "schema: a schema is a map"},
        {"{\"kind\":\"json_schema\",\"schema\":{\"$ref\":\"#\"}}",
         "$ref: this keyword"},
        {"{\"kind\":\"json_schema\",\"schema\":{\"properties\":{\"a\":{"
         "\"type\":\"int\"}}}}",
         "schema: properties: a: type: null, boolean"},
        {"{\"kind\":\"length\"}", "either target"},
        {"{\"kind\":\"length\",\"target\":1,\"max_tokens\":2}",
         "either target"},
        {"{\"kind\":\"python\"}", "code"},
    };

    world_open(&world, "w");
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        world_refuse(&world, "reward", cases[i][0],
                     "[{\"completion\":\"a\"},{\"completion\":\"b\"}]",
                     cases[i][1]);
    }
    world_close(&world, true);
}

/* All items in one child; one that fails does so alone. */
static void test_operator(void)
{
    world_t world = {0};
    seen_t seen = {0};

    world_open(&world, "w");
    world_run(&world, "reward", "{\"kind\":\"numeric\"}",
              "[{\"completion\":\"2\",\"record\":{\"answer\":2}},"
              "{\"completion\":\"2\",\"record\":{}},"
              "{\"completion\":5,\"record\":{\"answer\":2}},"
              "{\"completion\":\"3\",\"record\":{\"answer\":2}}]",
              &seen);
    CU_ASSERT_EQUAL(seen.items, 4);
    CU_ASSERT_EQUAL(seen.errors, 2);
    CU_ASSERT_STRING_EQUAL(seen.outputs[0], "1");
    CU_ASSERT_STRING_EQUAL(seen.outputs[3], "0");
    seen_fini(&seen);
    world_run(&world, "reward",
              "{\"kind\":\"python\",\"code\":{\"text\":\"n = 0\\ndef "
              "reward(prompt, completion, record):\\n  global n\\n  n += 1\\n"
              "  if completion == 'bad': raise KeyError(prompt)\\n  if "
              "completion == 'inf': return float('inf')\\n  if completion == "
              "'text': return 'x'\\n  return n + record['x']\"}}",
              "[{\"prompt\":\"p\",\"completion\":\"a\",\"record\":{\"x\":0.5}},"
              "{\"prompt\":\"pq\",\"completion\":\"bad\",\"record\":{\"x\":1}},"
              "{\"completion\":\"inf\"},{\"completion\":\"text\"},"
              "{\"prompt\":\"p\",\"completion\":\"b\",\"record\":{\"x\":1}}]",
              &seen);
    CU_ASSERT_EQUAL(seen.items, 5);
    CU_ASSERT_EQUAL(seen.errors, 3);
    CU_ASSERT(!seen.infra);
    CU_ASSERT_STRING_EQUAL(seen.outputs[0], "1.5");
    CU_ASSERT_STRING_EQUAL(seen.outputs[4], "6");
    CU_ASSERT_PTR_NOT_NULL(strstr(seen.error, "returned a string"));
    seen_fini(&seen);
    /* Texts that JSON here does not have: a lone surrogate, a NUL. */
    world_run(&world, "reward",
              "{\"kind\":\"python\",\"code\":{\"text\":\"def reward(p, c, "
              "r):\\n  if c == 'x': raise ValueError(chr(0xd800))\\n  return "
              "chr(0) if c == 'y' else 2\"}}",
              "[{\"completion\":\"x\"},{\"completion\":\"y\"},"
              "{\"completion\":\"z\"}]",
              &seen);
    CU_ASSERT_EQUAL(seen.items, 3);
    CU_ASSERT_EQUAL(seen.errors, 2);
    CU_ASSERT_STRING_EQUAL(seen.outputs[2], "2");
    CU_ASSERT_PTR_NOT_NULL(strstr(seen.error, "returned value"));
    seen_fini(&seen);
    /* What was judged before the child died stays judged. */
    world_run(&world, "reward",
              "{\"kind\":\"python\",\"code\":{\"text\":\"import os\\ndef "
              "reward(p, c, r):\\n  if c == 'die': os._exit(3)\\n  return "
              "True\"}}",
              "[{\"completion\":\"a\"},{\"completion\":\"die\"},"
              "{\"completion\":\"b\"}]",
              &seen);
    CU_ASSERT_EQUAL(seen.errors, 2);
    CU_ASSERT_STRING_EQUAL(seen.outputs[0], "1");
    CU_ASSERT_PTR_NOT_NULL(strstr(seen.error, "exit status 3"));
    seen_fini(&seen);
    CU_ASSERT_EQUAL(
        world_run_hints(&world, "reward",
                        "{\"kind\":\"python\",\"code\":{\"text\":\"def "
                        "reward(p, c, r):\\n  while True: pass\"}}",
                        "[{\"completion\":\"a\"}]", "{\"timeout_s\":0.3}", NULL,
                        &seen),
        FM_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(seen.error, "not finished after 0.3 s"));
    CU_ASSERT(!seen.infra);
    seen_fini(&seen);
    world_close(&world, true);
}

/* --- evaluate ------------------------------------------------------------ */

static void test_pass_at_k(void)
{
    fm_json_t *all = reference();
    const fm_json_t *rows = fm_json_get(all, "pass_at_k");

    CU_ASSERT_FATAL(fm_json_len(rows) > 0);
    for (size_t i = 0; i < fm_json_len(rows); i++) {
        const fm_json_t *row = fm_json_at(rows, i);
        double got =
            fm_ops_pass_at_k((size_t)fm_json_int_or(fm_json_at(row, 0), 0),
                             (size_t)fm_json_int_or(fm_json_at(row, 1), 0),
                             (size_t)fm_json_int_or(fm_json_at(row, 2), 0));
        CU_ASSERT_DOUBLE_EQUAL(got, fm_json_real_or(fm_json_at(row, 3), -1),
                               1e-12);
    }
    fm_json_drop(all);
}

static fm_json_t *figures_of(world_t *world, const char *params,
                             const char *samples)
{
    seen_t seen = {0};
    char *values = fm_asprintf("[{\"samples\":%s}]", samples);

    world_run(world, "evaluate", params, values, &seen);
    free(values);
    if (!seen.outputs[0]) {
        (void)fprintf(stderr, "%s: %s\n", params, seen.error);
    }
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    fm_json_t *output = json_of(seen.outputs[0]);
    fm_json_t *figures = fm_json_copy(fm_json_get(output, "metrics"));
    fm_json_drop(output);
    seen_fini(&seen);
    return figures;
}

#define LENGTHS                                                                \
    "\"reward\":{\"kind\":\"length\",\"unit\":\"characters\",\"min_tokens\":"  \
    "1}"

static void test_generated(void)
{
    world_t world = {0};

    world_open(&world, "w");
    /* Ten draws of six tokens: nearly all are a text of some length. */
    fm_json_t *figures = figures_of(
        &world,
        "{\"model\":" MODEL ",\"metrics\":[\"pass_at_k\"],\"samples\":10,"
        "\"temperature\":1,\"seed\":3,\"k\":[1,5],\"max_new_tokens\":6," LENGTHS
        "}",
        "[{\"prompt\":\"ab\"},{\"prompt\":\"q\"}]");
    double one = fm_json_get_real(figures, "pass_at_1", -1);
    double five = fm_json_get_real(figures, "pass_at_5", -1);
    CU_ASSERT(one > 0.5 && one <= five && five <= 1);
    fm_json_drop(figures);
    /* A sample's own tests go before the common reward. */
    figures = figures_of(
        &world,
        "{\"model\":" MODEL ",\"metrics\":[\"pass_at_k\"],\"samples\":2,"
        "\"temperature\":1,\"max_new_tokens\":6,\"reward\":{\"kind\":"
        "\"regex\",\"pattern\":\"\"}}",
        "[{\"prompt\":\"ab\"},{\"prompt\":\"q\",\"tests\":{\"kind\":\"regex\","
        "\"pattern\":\"no such text\"}}]");
    CU_ASSERT_EQUAL(fm_json_get_real(figures, "pass_at_1", -1), 0.5);
    fm_json_drop(figures);
    /* A model against itself, greedy: all ties. */
    figures = figures_of(&world,
                         "{\"model\":" MODEL ",\"metrics\":[\"win_rate\"],"
                         "\"opponent\":{\"model\":" MODEL
                         "},\"max_new_tokens\":6," LENGTHS "}",
                         "[{\"prompt\":\"ab\"},{\"prompt\":\"q\"}]");
    CU_ASSERT_EQUAL(fm_json_get_real(figures, "win_rate", -1), 0.5);
    fm_json_drop(figures);
    world_refuse(&world, "evaluate",
                 "{\"model\":" MODEL ",\"metrics\":[\"pass_at_k\"],\"k\":[3],"
                 "\"samples\":2,\"max_new_tokens\":2," LENGTHS "}",
                 "[{\"samples\":[{\"prompt\":\"a\"}]}]",
                 "k: numbers from 1 to samples, 2");
    world_refuse(&world, "evaluate",
                 "{\"model\":" MODEL ",\"metrics\":[\"pass_at_k\"],"
                 "\"max_new_tokens\":2}",
                 "[{\"samples\":[{\"prompt\":\"a\"}]}]", "reward: a map");
    world_refuse(&world, "evaluate",
                 "{\"model\":" MODEL ",\"metrics\":[\"win_rate\"]}",
                 "[{\"samples\":[{\"prompt\":\"a\"}]}]", "opponent: model");
    world_refuse(&world, "evaluate",
                 "{\"model\":" MODEL ",\"metrics\":[\"win_rate\"],\"opponent\":"
                 "{\"model\":" MODEL "},\"reward\":{\"kind\":\"model\","
                 "\"model\":" MODEL "},\"max_new_tokens\":2}",
                 "[{\"samples\":[{\"prompt\":\"a\"}]}]",
                 "a reward model is needed");
    world_close(&world, true);
}

/* pass_at_k of one greedy continuation under a reward. */
static double passes(world_t *world, const char *reward, const char *least)
{
    char *params =
        fm_asprintf("{\"model\":" MODEL ",\"metrics\":[\"pass_at_k\"],"
                    "\"max_new_tokens\":4,\"reward\":%s,\"pass_score\":%s}",
                    reward, least);
    fm_json_t *figures = figures_of(world, params, "[{\"prompt\":\"ab\"}]");
    double figure = fm_json_get_real(figures, "pass_at_1", -1);

    fm_json_drop(figures);
    free(params);
    return figure;
}

#define ALWAYS "\"kind\":\"regex\",\"pattern\":\"\""

/* Rewards are weighted and summed; one of them may be a reward model. */
static void test_judges(void)
{
    world_t world = {0};
    seen_t seen = {0};

    world_open(&world, "w");
    CU_ASSERT_EQUAL(passes(&world,
                           "[{" ALWAYS ",\"weight\":0.75},{" ALWAYS
                           ",\"weight\":0.25}]",
                           "1"),
                    1);
    CU_ASSERT_EQUAL(passes(&world,
                           "[{" ALWAYS ",\"weight\":0.75},{" ALWAYS
                           ",\"weight\":0.125}]",
                           "1"),
                    0);
    world_run(&world, "reward_model",
              "{\"model\":" MODEL ",\"training\":{\"steps\":2,"
              "\"learning_rate\":0.01}}",
              "[{\"pairs\":[{\"prompt\":\"a\",\"chosen\":\"bb\","
              "\"rejected\":\"c\"}]}]",
              &seen);
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    fm_json_t *output = json_of(seen.outputs[0]);
    const char *model = fm_json_get_str(output, "model");
    seen_fini(&seen);
    /* Its score of this continuation, from the score operator. */
    char *values = NULL, *params = NULL;
    world_run(&world, "inference", "{\"model\":" MODEL ",\"max_tokens\":4}",
              "[{\"prompt\":\"ab\"}]", &seen);
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    values =
        fm_asprintf("[{\"prompt\":\"ab\",\"completion\":%s}]", seen.outputs[0]);
    seen_fini(&seen);
    params = fm_asprintf("{\"model\":{\"digest\":\"%s\"}}", model);
    world_run(&world, "score", params, values, &seen);
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    double score = strtod(seen.outputs[0], NULL);
    seen_fini(&seen);
    free(params);
    free(values);
    char *reward = fm_asprintf("{\"kind\":\"model\",\"model\":{\"digest\":"
                               "\"%s\"},\"weight\":2}",
                               model);
    char *under = fm_asprintf("%.17g", 2 * score - 1e-6);
    char *over = fm_asprintf("%.17g", 2 * score + 1e-6);
    CU_ASSERT_EQUAL(passes(&world, reward, under), 1);
    CU_ASSERT_EQUAL(passes(&world, reward, over), 0);
    free(under);
    free(over);
    free(reward);
    fm_json_drop(output);
    world_close(&world, true);
}

/* What accuracy says is what logprobs says of each choice. */
static void test_accuracy(void)
{
    world_t world = {0};
    seen_t seen = {0};
    double mean[3] = {0};
    size_t best = 0;

    world_open(&world, "w");
    /* The byte tokenizer: a choice of n bytes is n tokens, then the end. */
    world_run(&world, "logprobs", "{\"model\":" MODEL ",\"tokens\":true}",
              "[{\"prompt\":\"q \",\"completion\":\"abc\"},"
              "{\"prompt\":\"q \",\"completion\":\"z\"},"
              "{\"prompt\":\"q \",\"completion\":\"hello\"}]",
              &seen);
    for (size_t i = 0; i < 3; i++) {
        CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[i]);
        fm_json_t *output = json_of(seen.outputs[i]);
        const fm_json_t *logp = fm_json_get(output, "logprobs");
        size_t count = fm_json_len(logp) - 1;
        for (size_t t = 0; t < count; t++) {
            mean[i] += fm_json_real_or(fm_json_at(logp, t), 0) / (double)count;
        }
        best = mean[i] > mean[best] ? i : best;
        fm_json_drop(output);
    }
    seen_fini(&seen);
    for (size_t answer = 0; answer < 3; answer++) {
        char *samples = fm_asprintf(
            "[{\"prompt\":\"q \",\"choices\":[\"abc\",\"z\",\"hello\"],"
            "\"answer\":%zu},{\"prompt\":\"q \",\"choices\":[\"abc\",\"z\","
            "\"hello\"],\"answer\":\"%s\"}]",
            answer, answer == 0 ? "abc" : (answer == 1 ? "z" : "hello"));
        fm_json_t *figures = figures_of(
            &world, "{\"model\":" MODEL ",\"metrics\":[\"accuracy\"]}",
            samples);
        CU_ASSERT_EQUAL(fm_json_get_real(figures, "accuracy", -1),
                        answer == best);
        fm_json_drop(figures);
        free(samples);
    }
    world_refuse(&world, "evaluate",
                 "{\"model\":" MODEL ",\"metrics\":[\"accuracy\"]}",
                 "[{\"samples\":[{\"prompt\":\"a\",\"choices\":[\"b\"],"
                 "\"answer\":1}]}]",
                 "samples[0]: answer");
    world_close(&world, true);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"exact_match", test_exact},
        {"numeric", test_numeric},
        {"regex", test_regex},
        {"json_schema", test_json_schema},
        {"json_schema: against jsonschema", test_schemas},
        {"length", test_length},
        {"refusals", test_refusals},
        {"the operator", test_operator},
        {"evaluate: pass@k, every choice counted", test_pass_at_k},
        {"evaluate: generated text", test_generated},
        {"evaluate: judges", test_judges},
        {"evaluate: multiple choice", test_accuracy},
    };
    return fm_test_main("run/ops reward", cases, FM_COUNT_OF(cases));
}
