/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The training operators: every method learns, says what it did in a table,
 * continues bit for bit wherever it is stopped, and refuses what it cannot
 * train on by name.
 */
#include <math.h>
#include <stdio.h>

#include "train_fixture.h"

#define SAMPLES                                                                \
    "[{\"samples\":[{\"text\":\"aaaa\"},{\"prompt\":\"b\",\"completion\":"     \
    "\"cc\"},{\"text\":\"dd\"}]}]"
#define PAIRS                                                                  \
    "\"pairs\":[{\"prompt\":\"p\",\"chosen\":\"aa\",\"rejected\":\"zz\"},"     \
    "{\"prompt\":\"q\",\"chosen\":\"ab\",\"rejected\":\"z\"},"                 \
    "{\"prompt\":\"r\",\"chosen\":\"ba\",\"rejected\":\"zyx\"}]"
#define REF(c, r)                                                              \
    "{\"chosen\":{\"logprob\":" c "},\"rejected\":{\"logprob\":" r "}}"
#define DPO_ITEM                                                               \
    "[{" PAIRS ",\"reference\":[" REF("-16.5", "-16.4") "," REF(               \
        "-16.6", "-11.1") "," REF("-16.7", "-22.2") "]}]"

/* One of each kind; %s gets "" or lora. */
static const struct {
    const char *name, *type, *params, *values;
    const char *falls; /* a row's figure that ends below its start … */
    const char *rises; /* … and one that ends above */
} methods[] = {
    {"sft", "sft",
     "{\"model\":" MODEL ",\"training\":{\"batch_size\":2,\"steps\":14,"
     "\"learning_rate\":0.01,\"seed\":1}%s}",
     SAMPLES, "loss", NULL},
    {"dpo", "dpo",
     "{\"model\":" MODEL ",\"training\":{\"batch_size\":2,\"steps\":14,"
     "\"learning_rate\":0.01,\"beta\":0.5}%s}",
     DPO_ITEM, "loss", "margin"},
    {"dpo, ipo", "dpo",
     "{\"model\":" MODEL ",\"training\":{\"batch_size\":3,\"steps\":14,"
     "\"learning_rate\":0.01,\"beta\":0.1,\"loss\":\"ipo\"}%s}",
     DPO_ITEM, "loss", "margin"},
    {"reward_model", "reward_model",
     "{\"model\":" MODEL ",\"training\":{\"batch_size\":3,\"steps\":14,"
     "\"learning_rate\":0.01,\"schedule\":\"linear\",\"warmup_ratio\":0.1}%s}",
     "[{" PAIRS "}]", "loss", "margin"},
    {"ppo", "ppo",
     "{\"model\":" MODEL ",\"training\":{\"epochs\":3,\"mini_batch_size\":2,"
     "\"learning_rate\":0.01},\"iteration\":1,\"iterations\":2%s}",
     POLICY_ITEM, NULL, NULL},
    {"grpo", "grpo",
     "{\"model\":" MODEL ",\"training\":{\"epochs\":3,\"mini_batch_size\":2,"
     "\"group_size\":2,\"learning_rate\":0.01},\"iteration\":1,"
     "\"iterations\":2%s}",
     POLICY_ITEM, NULL, NULL},
};

static char *params_of(size_t method, bool lora)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    return fm_asprintf(methods[method].params, lora ? "," LORA : "");
#pragma GCC diagnostic pop
}

/* Rows are numbered, complete, and each sample comes once an epoch. */
static void rows_check(const fm_json_t *rows, size_t samples)
{
    static const char *const keys[] = {"loss", "learning_rate", "grad_norm",
                                       "tokens", "epoch"};
    size_t seen = 0;

    for (size_t i = 0; i < fm_json_len(rows); i++) {
        const fm_json_t *row = fm_json_at(rows, i);
        const fm_json_t *taken = fm_json_get(row, "samples");
        CU_ASSERT_EQUAL(fm_json_get_int(row, "step", 0), i + 1);
        CU_ASSERT_PTR_NULL(fm_json_get(row, "tokens_per_s"));
        for (size_t k = 0; k < FM_COUNT_OF(keys); k++) {
            CU_ASSERT(fm_json_is_number(fm_json_get(row, keys[k])));
        }
        CU_ASSERT(fm_json_len(taken) > 0);
        for (size_t k = 0; k < fm_json_len(taken); k++) {
            size_t sample = (size_t)fm_json_int_or(fm_json_at(taken, k), 999);
            CU_ASSERT_FATAL(sample < samples);
            CU_ASSERT_EQUAL(seen & (size_t)1 << sample, 0);
            seen |= (size_t)1 << sample;
            if (seen == ((size_t)1 << samples) - 1) {
                seen = 0;
            }
        }
    }
}

static void learns(world_t *world, size_t method, bool lora)
{
    char *params = params_of(method, lora);
    seen_t seen = {0};

    world_run(world, methods[method].type, params, methods[method].values,
              &seen);
    CU_ASSERT_STRING_EQUAL(seen.error, "");
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    CU_ASSERT(seen.progresses > 0);
    fm_json_t *output = json_of(seen.outputs[0]);
    CU_ASSERT_PTR_NOT_NULL(fm_json_get_str(output, "model"));
    CU_ASSERT_EQUAL(fm_json_get_str(output, "adapter") != NULL, lora);
    fm_json_t *rows = table_of(world, seen.outputs[0]);
    rows_check(rows, strstr(methods[method].name, "po") &&
                             !strstr(methods[method].name, "dpo")
                         ? 4
                         : 3);
    CU_ASSERT_EQUAL(fm_json_int_or(fm_json_path(output, "metrics.steps"), 0),
                    fm_json_len(rows));
    if (methods[method].falls) {
        CU_ASSERT(figure(rows, true, methods[method].falls) <
                  figure(rows, false, methods[method].falls));
        CU_ASSERT_EQUAL(
            fm_json_real_or(fm_json_path(output, "metrics.loss_first"), 9),
            figure(rows, false, "loss"));
        CU_ASSERT_EQUAL(
            fm_json_real_or(fm_json_path(output, "metrics.loss_last"), 9),
            figure(rows, true, "loss"));
    }
    if (methods[method].rises) {
        CU_ASSERT(figure(rows, true, methods[method].rises) >
                  figure(rows, false, methods[method].rises));
    }
    if (strcmp(methods[method].type, "reward_model") == 0) {
        fm_buf_t manifest =
            object_of(world, seen.outputs[0], lora ? "adapter" : "model");
        CU_ASSERT_PTR_NOT_NULL(
            strstr(fm_buf_cstr(&manifest), "\"score.weight\""));
        fm_buf_fini(&manifest);
    }
    fm_json_drop(rows);
    fm_json_drop(output);
    free(params);
    seen_fini(&seen);
}

static void test_learns(void)
{
    for (size_t i = 0; i < FM_COUNT_OF(methods); i++) {
        for (int lora = 0; lora < 2; lora++) {
            world_t world = {0};
            world_open(&world, "w");
            learns(&world, i, lora);
            world_close(&world, true);
        }
    }
}

/* --- resuming --------------------------------------------------------------
 */

static void resumes(size_t method, bool lora)
{
    world_t world = {0};
    char *params = params_of(method, lora);
    seen_t whole = {0};

    world_open(&world, "w");
    world_run(&world, methods[method].type, params, methods[method].values,
              &whole);
    CU_ASSERT_PTR_NOT_NULL_FATAL(whole.outputs[0]);
    for (size_t every = 1; every <= 4; every += 3) {
        char *output = legs_run(&world, methods[method].type, params,
                                methods[method].values, every);
        CU_ASSERT_STRING_EQUAL(output, whole.outputs[0]);
        free(output);
    }
    free(params);
    seen_fini(&whole);
    world_close(&world, true);
}

static void test_resume(void)
{
    for (size_t i = 0; i < FM_COUNT_OF(methods); i++) {
        resumes(i, false);
        resumes(i, true);
    }
}

/* A checkpoint of LoRA has the adapter and nothing of the base. */
static void test_checkpoint_parts(void)
{
    for (int lora = 0; lora < 2; lora++) {
        world_t world = {0};
        leg_t leg = {.after = 2};
        fm_buf_t bytes = {0};
        fm_error_t err = {0};
        char *params = params_of(0, lora);
        world_open(&world, "w");
        CU_ASSERT_EQUAL(leg_run(&world, "sft", params, SAMPLES, NULL, &leg),
                        FM_ERR_CANCELLED);
        FM_ASSERT_OK(fm_cas_get(world.cas, &leg.seen.checkpoint, &bytes, &err),
                     &err);
        fm_json_t *manifest = json_of(fm_buf_cstr(&bytes));
        const fm_json_t *blocks = fm_json_get(manifest, "blocks");
        CU_ASSERT_EQUAL(fm_json_len(blocks), 3);
        CU_ASSERT_PTR_NOT_NULL(
            fm_json_get(blocks, lora ? "adapter.second" : "model.second"));
        fm_json_drop(manifest);
        fm_buf_fini(&bytes);
        free(params);
        seen_fini(&leg.seen);
        world_close(&world, true);
    }
}

/* A state whose parts are lost is passed over: the run starts anew. */
static void test_checkpoint_damaged(void)
{
    world_t world = {0};
    leg_t leg = {.after = 2};
    seen_t whole = {0}, again = {0};
    fm_buf_t bytes = {0};
    fm_digest_t digest;
    fm_error_t err = {0};
    char text[FM_DIGEST_TEXT_BYTES];
    char *params = params_of(0, true);

    world_open(&world, "w");
    world_run(&world, "sft", params, SAMPLES, &whole);
    CU_ASSERT_EQUAL(leg_run(&world, "sft", params, SAMPLES, NULL, &leg),
                    FM_ERR_CANCELLED);
    FM_ASSERT_OK(fm_cas_get(world.cas, &leg.seen.checkpoint, &bytes, &err),
                 &err);
    fm_json_t *manifest = json_of(fm_buf_cstr(&bytes));
    static const char lost[] = "sha256:00000000000000000000000000000000000000"
                               "00000000000000000000000001";
    CU_ASSERT_EQUAL(fm_json_set(fm_json_get(manifest, "blocks"),
                                "adapter.second", fm_json_string(lost)),
                    FM_OK);
    char *canonical = fm_json_canonical(manifest);
    FM_ASSERT_OK(fm_cas_put(world.cas, FM_CAS_CHECKPOINT, canonical,
                            strlen(canonical), &digest, &err),
                 &err);
    FM_ASSERT_OK(fm_cas_seal(world.cas, &err), &err);
    CU_ASSERT_EQUAL(world_run_hints(&world, "sft", params, SAMPLES,
                                    "{\"logging_steps\":7}",
                                    fm_digest_format(&digest, text), &again),
                    FM_OK);
    CU_ASSERT_EQUAL(again.progresses, 2); /* all 14 steps, every 7th said */
    CU_ASSERT_PTR_NOT_NULL_FATAL(again.outputs[0]);
    CU_ASSERT_STRING_EQUAL(again.outputs[0], whole.outputs[0]);
    free(canonical);
    fm_json_drop(manifest);
    fm_buf_fini(&bytes);
    free(params);
    seen_fini(&leg.seen);
    seen_fini(&whole);
    seen_fini(&again);
    world_close(&world, true);
}

/* save_seconds saves without being asked to stop. */
static void test_save_seconds(void)
{
    world_t world = {0};
    seen_t seen = {0}, rare = {0};
    char *params = params_of(0, false);

    world_open(&world, "w");
    CU_ASSERT_EQUAL(world_run_hints(&world, "sft", params, SAMPLES,
                                    "{\"save_seconds\":0.000001}", NULL, &rare),
                    FM_OK);
    CU_ASSERT_PTR_NOT_NULL(strstr(rare.error, "save_seconds"));
    CU_ASSERT_EQUAL(world_run_hints(&world, "sft", params, SAMPLES,
                                    "{\"save_steps\":5}", NULL, &seen),
                    FM_OK);
    CU_ASSERT_EQUAL(seen.checkpoints, 2); /* 5 and 10 of 14 */
    seen_fini(&rare);
    world_run(&world, "sft", params, SAMPLES, &rare);
    CU_ASSERT_EQUAL(rare.checkpoints, 0); /* a short run loses little */
    free(params);
    seen_fini(&seen);
    seen_fini(&rare);
    world_close(&world, true);
}

/* --- LoRA ------------------------------------------------------------------
 */

/* The base is stored as it was, stays resident and serves the next. */
static void test_lora_base(void)
{
    world_t world = {0};
    seen_t first = {0}, second = {0}, more = {0};
    char *params = params_of(0, true);

    world_open(&world, "w");
    world_run(&world, "sft", params, SAMPLES, &first);
    CU_ASSERT_PTR_NOT_NULL_FATAL(first.outputs[0]);
    world_run(&world, "sft", params, "[{\"samples\":[{\"text\":\"other\"}]}]",
              &second);
    CU_ASSERT_PTR_NOT_NULL_FATAL(second.outputs[0]);
    fm_json_t *resident = fm_ops_resident(world.ops);
    CU_ASSERT_EQUAL(fm_json_len(resident), 1); /* loaded once for both */
    fm_json_drop(resident);
    char *base = member_of(first.outputs[0], "model");
    char *same = member_of(second.outputs[0], "model");
    char *adapter = member_of(first.outputs[0], "adapter");
    CU_ASSERT_STRING_EQUAL(base, same);
    CU_ASSERT_EQUAL(strstr(second.outputs[0], adapter), NULL);
    /* training goes on from an adapter: it begins where the first ended */
    char *onward = fm_asprintf(
        "{\"model\":{\"digest\":\"%s\"},\"adapter\":\"%s\",\"training\":{"
        "\"batch_size\":3,\"steps\":2,\"learning_rate\":0.001}}",
        base, adapter);
    world_run(&world, "sft", onward, SAMPLES, &more);
    CU_ASSERT_STRING_EQUAL(more.error, "");
    CU_ASSERT_PTR_NOT_NULL_FATAL(more.outputs[0]);
    fm_json_t *one = table_of(&world, first.outputs[0]);
    fm_json_t *two = table_of(&world, more.outputs[0]);
    CU_ASSERT(figure(two, false, "loss") < figure(one, false, "loss"));
    CU_ASSERT_PTR_NOT_NULL(strstr(more.outputs[0], base));
    fm_json_drop(one);
    fm_json_drop(two);
    free(onward);
    free(base);
    free(same);
    free(adapter);
    free(params);
    seen_fini(&first);
    seen_fini(&second);
    seen_fini(&more);
    world_close(&world, true);
}

/* --- bad input --------------------------------------------------------------
 */

#define SIXTY "012345678901234567890123456789012345678901234567890123456789"
static void test_refused(void)
{
    static const struct {
        const char *type, *training, *value, *want;
    } cases[] = {
        {"sft", "", "{\"samples\":[]}", "samples: a list of 1"},
        {"sft", "", "{}", "samples: a list of 1"},
        {"sft", "", "{\"samples\":[{\"text\":\"a\"},{\"prompt\":\"a\"}]}",
         "samples[1]: completion: a text is needed"},
        {"sft", "",
         "{\"samples\":[{\"text\":\"a\"},{\"text\":\"" SIXTY "abcd\"}]}",
         "samples[1]: 66 tokens"},
        {"sft", "\"max_seq_length\":8",
         "{\"samples\":[{\"text\":\"a\"},{\"text\":\"abcdefghi\"}]}",
         "samples[1]: 11 tokens, 1 of them prompt: at most 8"},
        {"sft", "\"max_seq_length\":8,\"truncate\":true",
         "{\"samples\":[{\"prompt\":\"abcdefghi\",\"completion\":\"j\"}]}",
         "leave nothing of the completion within 8"},
        {"dpo", "", "{" PAIRS "}", "reference: one entry a pair"},
        {"dpo", "\"loss\":\"hinge\"", NULL, "sigmoid or ipo"},
        {"reward_model", "",
         "{\"pairs\":[{\"prompt\":\"a\",\"chosen\":\"b\"}]}",
         "pairs[0]: rejected: completion: a text is needed"},
        {"dpo", "\"beta\":10,\"batch_size\":3",
         "{" PAIRS ",\"reference\":[" REF("-1", "-1") "," REF(
             "-1", "-1") "," REF("1e308", "-1e308") "]}",
         "step 1, pair 2: the loss is not finite"},
        {"dpo", "\"batch_size\":1",
         "{" PAIRS ",\"reference\":[" REF("-1", "-1") "," REF(
             "-1", "-1") "," REF("null", "-1") "]}",
         "pairs[2]: reference.chosen.logprob"},
        {"sft", "\"warmup_steps\":1,\"warmup_ratio\":0.5",
         "{\"samples\":[{\"text\":\"a\"}]}", "not beside warmup_steps"},
        {"lora_sft", "", "{\"samples\":[{\"text\":\"a\"}]}", "lora"},
    };
    world_t world = {0};

    world_open(&world, "w");
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        char *params = fm_asprintf("{\"model\":" MODEL ",\"training\":{%s}}",
                                   cases[i].training);
        char *item =
            fm_asprintf("[%s]", cases[i].value ? cases[i].value : "null");
        world_refuse(&world, cases[i].type, params,
                     cases[i].value ? item : DPO_ITEM, cases[i].want);
        free(item);
        free(params);
    }
    world_close(&world, true);
}

/* What is over the limit is cut only on request, at the end. */
static void test_truncate(void)
{
    world_t world = {0};
    seen_t cut = {0}, shorter = {0};

    world_open(&world, "w");
    world_run(&world, "sft",
              "{\"model\":" MODEL ",\"training\":{\"steps\":1,"
              "\"max_seq_length\":5,\"truncate\":true}}",
              "[{\"samples\":[{\"text\":\"abcdefgh\"}]}]", &cut);
    CU_ASSERT_PTR_NOT_NULL_FATAL(cut.outputs[0]);
    fm_json_t *rows = table_of(&world, cut.outputs[0]);
    CU_ASSERT_EQUAL(figure(rows, true, "tokens"), 5);
    fm_json_drop(rows);
    seen_fini(&cut);
    seen_fini(&shorter);
    world_close(&world, true);
}

/* The stored model @p digest with a chat template; free() the source. */
static char *chat_model(world_t *world, const char *output)
{
    static const char template[] =
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}|{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}";
    char text[FM_DIGEST_TEXT_BYTES];
    fm_buf_t bytes = object_of(world, output, "model");
    fm_json_t *manifest = json_of(fm_buf_cstr(&bytes));
    fm_digest_t digest;
    fm_error_t err = {0};

    CU_ASSERT_EQUAL(fm_json_set(fm_json_get(manifest, "tokenizer"),
                                "chat_template", fm_json_string(template)),
                    FM_OK);
    char *canonical = fm_json_canonical(manifest);
    FM_ASSERT_OK(fm_cas_put(world->cas, FM_CAS_MODEL, canonical,
                            strlen(canonical), &digest, &err),
                 &err);
    FM_ASSERT_OK(fm_cas_seal(world->cas, &err), &err);
    free(canonical);
    fm_json_drop(manifest);
    fm_buf_fini(&bytes);
    return fm_asprintf("{\"digest\":\"%s\"}", fm_digest_format(&digest, text));
}

/* Of messages only what the assistant says is learned. */
static void test_messages(void)
{
#define TURNS(content)                                                         \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"" content "\"},"          \
    "{\"role\":\"assistant\",\"content\":\"yes\"}]}"
    world_t world = {0};
    seen_t base = {0}, seen = {0}, logp = {0};

    world_open(&world, "w");
    world_run(&world, "sft", "{\"model\":" MODEL ",\"training\":{\"steps\":1}}",
              SAMPLES, &base);
    CU_ASSERT_PTR_NOT_NULL_FATAL(base.outputs[0]);
    char *model = chat_model(&world, base.outputs[0]);
    char *params = fm_asprintf("{\"model\":%s,\"training\":{\"steps\":30,"
                               "\"learning_rate\":0.01}}",
                               model);
    world_run(&world, "sft", params,
              "[{\"samples\":[" TURNS("qqq") "," TURNS("zz") "]}]", &seen);
    CU_ASSERT_STRING_EQUAL(seen.error, "");
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    fm_json_t *rows = table_of(&world, seen.outputs[0]);
    CU_ASSERT_EQUAL(figure(rows, true, "tokens"), 10 + 15 + 9 + 15);
    CU_ASSERT(figure(rows, true, "loss") < 1);
    fm_json_drop(rows);
    /* the user's words are as unlikely as before */
    char *digest = member_of(seen.outputs[0], "model");
    char *trained = fm_asprintf("{\"model\":{\"digest\":\"%s\"}}", digest);
    world_run(&world, "logprobs", trained,
              "[{\"prompt\":\"<user>\",\"completion\":\"qqq\"},"
              "{\"prompt\":\"<assistant>\",\"completion\":\"yes\"}]",
              &logp);
    for (int i = 0; i < 2; i++) {
        CU_ASSERT_PTR_NOT_NULL_FATAL(logp.outputs[i]);
        fm_json_t *value = json_of(logp.outputs[i]);
        double sum = fm_json_get_real(value, "logprob", 0);
        CU_ASSERT(i == 0 ? sum < -20 : sum > -20);
        fm_json_drop(value);
    }
    world_refuse(
        &world, "sft", params,
        "[{\"samples\":[" TURNS("a") ",{\"messages\":[{\"role\":"
                                     "\"user\",\"content\":\"b\"}]}]}]",
        "samples[1]: nothing to learn");
    world_refuse(&world, "sft", "{\"model\":" MODEL ",\"training\":{}}",
                 "[{\"samples\":[" TURNS("a") "]}]", "samples[0]: messages:");
    world_refuse(&world, "sft", params, "[{\"samples\":[" TURNS(SIXTY) "]}]",
                 "samples[0]: 82 tokens");
    free(trained);
    free(digest);
    free(params);
    free(model);
    seen_fini(&base);
    seen_fini(&seen);
    seen_fini(&logp);
    world_close(&world, true);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"every method learns", test_learns},
        {"resume bit for bit", test_resume},
        {"a checkpoint has what changes", test_checkpoint_parts},
        {"a damaged checkpoint", test_checkpoint_damaged},
        {"when checkpoints are saved", test_save_seconds},
        {"LoRA: base and adapter", test_lora_base},
        {"bad samples", test_refused},
        {"truncate", test_truncate},
        {"messages", test_messages},
    };
    return fm_test_main("run/ops: training", cases, FM_COUNT_OF(cases));
}
