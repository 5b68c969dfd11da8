/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Operators under attack: mutated parameters and values, and memory that runs
 * out.  Each ends as an error; the operator works again right after.
 */
#include "base/fault.h"
#include "base/rng.h"
#include "ops_fixture.h"

static fm_json_t *random_json(fm_rng_t *rng, int depth)
{
    static const char *const texts[] = {
        "",
        "sha256:",
        "../x",
        "jsonl",
        "text",
        "x\xc3\xa9",
        "train",
        "sha256:"
        "0000000000000000000000000000000000000000000000000000000000000000"};
    static const char *const keys[] = {
        "model", "config", "seed",     "digest", "prompt",  "samples",
        "pairs", "text",   "training", "steps",  "metrics", "value",
        "all",   "field",  "op",       "fields", "parts",   "records"};
    fm_json_t *value = NULL;

    switch (fm_rng_below(rng, depth > 2 ? 5 : 7)) {
    case 0:
        return fm_json_null();
    case 1:
        return fm_json_int((int64_t)fm_rng_u64(rng) >> fm_rng_below(rng, 64));
    case 2:
        return fm_json_real(fm_rng_normal(rng) * 1e9);
    case 3:
        return fm_json_bool(true);
    case 4:
        return fm_json_string(texts[fm_rng_below(rng, FM_COUNT_OF(texts))]);
    case 5:
        value = fm_json_array();
        for (uint64_t n = fm_rng_below(rng, 4); n-- > 0;) {
            CU_ASSERT_EQUAL(fm_json_append(value, random_json(rng, depth + 1)),
                            FM_OK);
        }
        return value;
    default:
        value = fm_json_object();
        for (uint64_t n = fm_rng_below(rng, 4); n-- > 0;) {
            CU_ASSERT_EQUAL(
                fm_json_set(value, keys[fm_rng_below(rng, FM_COUNT_OF(keys))],
                            random_json(rng, depth + 1)),
                FM_OK);
        }
        return value;
    }
}

/* Replace one node of @p value, somewhere, by something else. */
static void mutate(fm_rng_t *rng, fm_json_t *value)
{
    void *iterator = NULL;
    const char *key;
    fm_json_t *member;

    if (fm_json_is(value, FM_JSON_ARRAY) && fm_json_len(value) > 0) {
        size_t at = (size_t)fm_rng_below(rng, fm_json_len(value));
        if (fm_rng_below(rng, 2)) {
            mutate(rng, fm_json_at(value, at));
        } else {
            CU_ASSERT_EQUAL(fm_json_replace(value, at, random_json(rng, 0)),
                            FM_OK);
        }
    } else if (fm_json_is(value, FM_JSON_OBJECT) && fm_json_len(value) > 0) {
        uint64_t skip = fm_rng_below(rng, fm_json_len(value));
        while (fm_json_next(value, &iterator, &key, &member) && skip-- > 0) {
        }
        if (fm_rng_below(rng, 2)) {
            mutate(rng, member);
        } else if (fm_rng_below(rng, 4) == 0) {
            fm_json_remove(value, key);
        } else {
            CU_ASSERT_EQUAL(fm_json_set(value, key, random_json(rng, 0)),
                            FM_OK);
        }
    }
}

static const char *const seeds[][3] = {
    {"echo", "{}", "[{\"index\":0,\"value\":{\"value\":1}}]"},
    {"data_retrieval",
     "{\"format\":\"csv\",\"file\":{\"digest\":\"sha256:"
     "d7abfdc0704586801a0f6ba6b99fbd7a56d3e6620983d1c4db31bb58fd6794da\"},"
     "\"split\":{\"part\":\"train\",\"unit\":\"records\",\"from\":0,"
     "\"to\":3},\"test_fraction\":0.5,\"shuffle\":true,\"seed\":1,"
     "\"columns\":[\"a\"],\"chunk\":{\"bytes\":3,\"stride\":1}}",
     "[{\"index\":0,\"value\":{}}]"},
    {"inference", "{\"model\":" MODEL ",\"max_tokens\":2,\"top_k\":3}",
     "[{\"index\":0,\"value\":{\"prompt\":\"ab\"}}]"},
    {"logprobs", "{\"model\":" MODEL ",\"max_seq_length\":9}",
     "[{\"index\":0,\"value\":{\"prompt\":\"ab\",\"completion\":\"c\"}}]"},
    {"sft",
     "{\"model\":" MODEL ",\"training\":{\"batch_size\":2,\"steps\":1,"
     "\"schedule\":\"linear\",\"warmup_steps\":1,\"max_seq_length\":8}}",
     "[{\"index\":0,\"value\":{\"samples\":[{\"text\":\"aa\"},{\"prompt\":"
     "\"b\",\"completion\":\"c\"}]}}]"},
    {"dpo", "{\"model\":" MODEL ",\"training\":{\"steps\":1,\"beta\":0.1}}",
     "[{\"index\":0,\"value\":{\"pairs\":[{\"prompt\":\"a\",\"chosen\":\"b\","
     "\"rejected\":\"c\"}],\"reference\":[{\"chosen\":{\"logprob\":-1,"
     "\"tokens\":1},\"rejected\":{\"logprob\":-2,\"tokens\":1}}]}}]"},
    {"lora_sft",
     "{\"model\":" MODEL ",\"lora\":{\"r\":2,\"alpha\":4,\"dropout\":0.1,"
     "\"target_modules\":[\"q_proj\"]},\"training\":{\"steps\":1}}",
     "[{\"index\":0,\"value\":{\"samples\":[{\"text\":\"aa\"}]}}]"},
    {"reward_model", "{\"model\":" MODEL ",\"training\":{\"steps\":1}}",
     "[{\"index\":0,\"value\":{\"pairs\":[{\"prompt\":\"a\",\"chosen\":\"b\","
     "\"rejected\":\"c\"}]}}]"},
    {"ppo",
     "{\"model\":" MODEL ",\"training\":{\"epochs\":1,\"kl_coef\":0.1,"
     "\"target_kl\":null},\"iteration\":1,\"iterations\":2}",
     "[{\"index\":0,\"value\":{\"state\":null,\"rollouts\":[{"
     "\"prompt_tokens\":[256,97],\"completions\":[{\"tokens\":[98,257],"
     "\"finish\":\"stop\"}]}],\"rewards\":[[1]],\"reference\":[[[-1,-2]]]}}]"},
    {"grpo",
     "{\"model\":" MODEL ",\"training\":{\"epochs\":1,\"group_size\":2,"
     "\"beta\":0},\"iteration\":1,\"iterations\":2}",
     "[{\"index\":0,\"value\":{\"state\":null,\"rollouts\":[{"
     "\"prompt_tokens\":[256,97],\"completions\":[{\"tokens\":[98,257]},{"
     "\"tokens\":[99]}]}],\"rewards\":[[1,0]],\"reference\":null}}]"},
    {"evaluate",
     "{\"model\":" MODEL ",\"metrics\":[\"loss\",\"exact_match\"],"
     "\"max_new_tokens\":2}",
     "[{\"index\":0,\"value\":{\"samples\":[{\"prompt\":\"a\",\"completion\":"
     "\"b\"}]}}]"},
    {"evaluate",
     "{\"model\":" MODEL ",\"metrics\":[\"pass_at_k\",\"win_rate\","
     "\"accuracy\"],\"samples\":2,\"k\":[2],\"max_new_tokens\":2,"
     "\"temperature\":1,\"reward\":[{\"kind\":\"numeric\",\"weight\":2}],"
     "\"opponent\":{\"model\":" MODEL "}}",
     "[{\"index\":0,\"value\":{\"samples\":[{\"prompt\":\"a\",\"answer\":0,"
     "\"choices\":[\"b\",\"c\"],\"record\":{\"answer\":3}}]}}]"},
    {"map",
     "{\"method\":\"fields\",\"keep\":true,\"fields\":{\"a\":{\"from\":"
     "\"b\",\"default\":1},\"c\":{\"template\":\"{b}{{\"}}}",
     "[{\"index\":0,\"value\":{\"records\":[{\"b\":2},{\"b\":\"x\"}]}}]"},
    {"filter",
     "{\"method\":\"where\",\"where\":{\"all\":[{\"any\":[{\"field\":\"b\","
     "\"op\":\"ge\",\"value\":2},{\"field\":\"b\",\"op\":\"matches\","
     "\"value\":\"x\"}]},{\"not\":{\"field\":\"c\",\"of\":\"length\",\"op\":"
     "\"in\",\"value\":[1,2]}}]}}",
     "[{\"index\":0,\"value\":{\"records\":[{\"b\":2},{\"b\":\"3\"}]}}]"},
    {"dedup",
     "{\"method\":\"minhash\",\"fields\":[\"a\"],\"threshold\":0.5,"
     "\"ngram\":2,\"permutations\":16,\"verify\":\"estimate\"}",
     "[{\"index\":0,\"value\":{\"records\":[{\"a\":\"x y z\"},{\"a\":\"x y "
     "z\"},"
     "{\"a\":\"p q\"}]}}]"},
    {"dedup", "{\"method\":\"exact\",\"fields\":[\"a\",\"b\"]}",
     "[{\"index\":0,\"value\":{\"records\":[{\"a\":\"x\"},{\"a\":\"x\"}]}}]"},
    {"split",
     "{\"parts\":[{\"name\":\"a\",\"fraction\":0.5},{\"name\":\"b\"}],"
     "\"stratify\":\"a\",\"seed\":1,\"shuffle\":true}",
     "[{\"index\":0,\"value\":{\"records\":[{\"a\":1},{\"a\":2},{}]}}]"},
    {"shard", "{\"index\":1,\"count\":2,\"contiguous\":true}",
     "[{\"index\":0,\"value\":{\"records\":[1,2,3]}}]"},
    {"concat", "{}", "[{\"index\":0,\"value\":{\"lists\":[[1],[2,3]]}}]"},
    {"sample", "{\"count\":2,\"weights\":\"w\",\"seed\":1}",
     "[{\"index\":0,\"value\":{\"records\":[{\"w\":1},{\"w\":2},{\"w\":3}]}}]"},
    {"jsonl_export", "{\"fields\":{\"a\":\"b\"},\"required\":[\"a\"]}",
     "[{\"index\":0,\"value\":{\"records\":[{\"b\":1},{}]}}]"},
    {"data_profiling", "{\"columns\":[\"a\"],\"top\":2,\"quantiles\":[0.5]}",
     "[{\"index\":0,\"value\":{\"records\":[{\"a\":1},{\"a\":\"x y\"}]}}]"},
    {"reward", "{\"kind\":\"numeric\",\"field\":\"a\",\"marker\":\"#\"}",
     "[{\"index\":0,\"value\":{\"completion\":\"# "
     "3%\",\"record\":{\"a\":3}}}]"},
    {"reward",
     "{\"kind\":\"json_schema\",\"extract\":true,\"schema\":{\"properties\":{"
     "\"a\":{\"anyOf\":[{\"type\":\"integer\"},{\"pattern\":\"x\"}]}},"
     "\"required\":[\"a\"],\"additionalProperties\":false}}",
     "[{\"index\":0,\"value\":{\"completion\":\"{\\\"a\\\":1}\"}}]"},
    {"reward",
     "{\"kind\":\"regex\",\"pattern\":\"(a+)\",\"field\":\"a\",\"group\":1}",
     "[{\"index\":0,\"value\":{\"completion\":\"caab\",\"record\":{\"a\":"
     "\"aa\"}}}]"},
    {"reward", "{\"kind\":\"length\",\"min_tokens\":1,\"max_tokens\":4}",
     "[{\"index\":0,\"value\":{\"completion\":\"a b\"}}]"},
};

/* The file that the data_retrieval seed names. */
#define SEED_CSV "a,b\n1,2\n3,\"x,y\"\n"

static size_t patience; /* a mutated step count must not run for ever */

static bool impatient(void *ctx)
{
    (void)ctx;
    return patience == 0 || --patience == 0;
}

static void test_hostile(void)
{
    world_t world = {0};
    fm_rng_t rng;
    char text[FM_DIGEST_TEXT_BYTES];
    size_t errors = 0, runs = 0;

    world_open(&world, "w");
    (void)world_store(&world, SEED_CSV, text);
    fm_rng_init(&rng, 20260101);
    for (size_t i = 0; i < 4000; i++) {
        const char *const *seed = seeds[i % FM_COUNT_OF(seeds)];
        fm_json_t *params = json_of(seed[1]), *items = json_of(seed[2]);
        seen_t seen = {0};
        fm_error_t err = {0};
        const fm_ops_sink_t sink = {seen_item, seen_checkpoint, seen_progress,
                                    impatient, &seen};
        patience = 4;
        for (uint64_t n = 1 + fm_rng_below(&rng, 3); n-- > 0;) {
            mutate(&rng, fm_rng_below(&rng, 2) ? params : items);
        }
        const fm_ops_batch_t batch = {seed[0], params, NULL, items, NULL};
        fm_status_t rc = fm_ops_run(world.ops, &batch, &sink, &err);
        CU_ASSERT(rc == FM_OK || rc == FM_ERR_INVALID ||
                  rc == FM_ERR_CANCELLED);
        CU_ASSERT(rc < 0 || seen.items == fm_json_len(items));
        errors += seen.errors > 0 || rc < 0;
        runs++;
        seen_fini(&seen);
        fm_json_drop(params);
        fm_json_drop(items);
    }
    CU_ASSERT(errors > runs / 4 && errors < runs);
    world_close(&world, true);
}

/* Memory runs out at every allocation in turn: an error, no leak, no crash,
 * and the operator works again right after. */
static void test_no_memory(void)
{
    world_t world = {0};
    seen_t seen = {0};
    char text[FM_DIGEST_TEXT_BYTES];

    world_open(&world, "w");
    (void)world_store(&world, SEED_CSV, text);
    if (!fm_fault_arm(NULL)) {
        (void)fprintf(stderr, "no fault points in this build: nothing to do\n");
        world_close(&world, true);
        return;
    }
    for (size_t i = 0; i < FM_COUNT_OF(seeds); i++) {
        size_t failed = 0;
        bool clean = false;
        for (int nth = 1; !clean && nth < 4000; nth += 1 + nth / 40) {
            fm_json_t *params = json_of(seeds[i][1]),
                      *items = json_of(seeds[i][2]);
            const fm_ops_sink_t sink = {seen_item, seen_checkpoint,
                                        seen_progress, NULL, &seen};
            const fm_ops_batch_t batch = {seeds[i][0], params, NULL, items,
                                          NULL};
            char fault[64];
            fm_error_t err = {0};
            (void)snprintf(fault, sizeof(fault), "base.alloc:%d", nth);
            CU_ASSERT(fm_fault_arm(fault));
            fm_status_t rc = fm_ops_run(world.ops, &batch, &sink, &err);
            (void)fm_fault_arm(NULL);
            failed += rc < 0 || seen.errors > 0;
            CU_ASSERT(rc == FM_OK || rc == FM_ERR_NO_MEMORY);
            CU_ASSERT(rc < 0 || seen.items == 1);
            clean = rc == FM_OK && seen.errors == 0 && failed > 3;
            seen_fini(&seen);
            fm_json_drop(params);
            fm_json_drop(items);
        }
        CU_ASSERT(failed > 3);
    }
    world_close(&world, true);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"hostile input", test_hostile},
        {"fault: no memory", test_no_memory},
    };
    return fm_test_main("run/ops hostile", cases, FM_COUNT_OF(cases));
}
