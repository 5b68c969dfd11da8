/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The training operators: every method learns, says what it did in a table,
 * continues bit for bit wherever it is stopped, and refuses what it cannot
 * train on by name.
 */
#include <math.h>
#include <stdio.h>

#include "base/buf.h"
#include "ops_fixture.h"

#define LORA                                                                   \
    "\"lora\":{\"r\":4,\"alpha\":8,\"dropout\":0.1,\"target_modules\":["       \
    "\"k_proj\",\"q_proj\",\"up_proj\",\"v_proj\"]}"
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
#define ROLLOUT(a, b)                                                          \
    "{\"prompt_tokens\":[256,112],\"completions\":[{\"text\":\"\",\"tokens\":" \
    "[" a                                                                      \
    "],\"logprobs\":[],\"finish\":\"stop\"},{\"text\":\"\",\"tokens\":[" b     \
    "],\"logprobs\":[],\"finish\":\"length\"}]}"
#define ROLLOUTS                                                               \
    "\"rollouts\":[" ROLLOUT("97,97,257", "122,120") "," ROLLOUT(              \
        "97,98", "122,122,122,257") "]"
#define REWARDS "\"rewards\":[[1,0],[0.75,-0.5]]"
#define REFERENCE                                                              \
    "\"reference\":[[[-5.5,-5.5,-5.5],[-5.6,-5.6]],[[-5.5,-5.6],[-5.5,-5.5,"   \
    "-5.5,-5.4]]]"
#define POLICY_ITEM "[{\"state\":null," ROLLOUTS "," REWARDS "," REFERENCE "}]"

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

/* The object that member @p key of @p output names. */
static fm_buf_t object_of(world_t *world, const char *output, const char *key)
{
    fm_json_t *value = json_of(output);
    const char *text = fm_json_get_str(value, key);
    fm_digest_t digest;
    fm_buf_t bytes = {0};
    fm_error_t err = {0};

    CU_ASSERT_FATAL(text && fm_digest_parse(text, &digest));
    FM_ASSERT_OK(fm_cas_get(world->cas, &digest, &bytes, &err), &err);
    fm_json_drop(value);
    return bytes;
}

/* The rows of the table that @p output names; fm_json_drop() the list. */
static fm_json_t *table_of(world_t *world, const char *output)
{
    fm_buf_t text = object_of(world, output, "table");
    fm_json_t *rows = fm_json_array();

    for (char *line = strtok((char *)(uintptr_t)fm_buf_cstr(&text), "\n"); line;
         line = strtok(NULL, "\n")) {
        CU_ASSERT_EQUAL(fm_json_append(rows, json_of(line)), FM_OK);
    }
    fm_buf_fini(&text);
    return rows;
}

static double figure(const fm_json_t *rows, bool last, const char *key)
{
    const fm_json_t *row = fm_json_at(rows, last ? fm_json_len(rows) - 1 : 0);

    CU_ASSERT(fm_json_is_number(fm_json_get(row, key)));
    return fm_json_get_real(row, key, NAN);
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

/* A sink that stops @p after steps. */
typedef struct leg {
    seen_t seen;
    size_t after, steps;
} leg_t;

static fm_status_t leg_item(void *ctx, const fm_ops_item_t *item,
                            fm_error_t *err)
{
    return seen_item(&((leg_t *)ctx)->seen, item, err);
}

static fm_status_t leg_checkpoint(void *ctx,
                                  const fm_ops_checkpoint_t *checkpoint,
                                  fm_error_t *err)
{
    return seen_checkpoint(&((leg_t *)ctx)->seen, checkpoint, err);
}

static fm_status_t leg_progress(void *ctx, double fraction,
                                const fm_json_t *metrics, fm_error_t *err)
{
    ((leg_t *)ctx)->steps++;
    return seen_progress(&((leg_t *)ctx)->seen, fraction, metrics, err);
}

static bool leg_stopping(void *ctx)
{
    const leg_t *leg = ctx;

    return leg->after && leg->steps >= leg->after;
}

static fm_status_t leg_run(world_t *world, const char *type,
                           const char *params_text, const char *values_text,
                           const char *checkpoint, leg_t *leg)
{
    fm_json_t *params = json_of(params_text), *values = json_of(values_text);
    fm_json_t *items = fm_json_array(), *item = fm_json_object();
    const fm_ops_sink_t sink = {leg_item, leg_checkpoint, leg_progress,
                                leg_stopping, leg};
    fm_error_t err = {0};

    CU_ASSERT_EQUAL(fm_json_set(item, "index", fm_json_int(0)), FM_OK);
    CU_ASSERT_EQUAL(
        fm_json_set(item, "value", fm_json_keep(fm_json_at(values, 0))), FM_OK);
    CU_ASSERT_EQUAL(fm_json_append(items, item), FM_OK);
    const fm_ops_batch_t batch = {type, params, NULL, items, checkpoint};
    fm_status_t rc = fm_ops_run(world->ops, &batch, &sink, &err);
    fm_json_drop(params);
    fm_json_drop(values);
    fm_json_drop(items);
    return rc;
}

/* The output of a run that is stopped every @p every steps, each leg in a
 * fresh context. */
static char *legs_run(world_t *world, const char *type, const char *params,
                      const char *values, size_t every)
{
    char checkpoint[FM_DIGEST_TEXT_BYTES] = "";
    char *output = NULL;

    for (int legs = 0; !output; legs++) {
        char writer[16];
        leg_t leg = {.after = every};
        CU_ASSERT_FATAL(legs < 20);
        world_close(world, false);
        (void)snprintf(writer, sizeof(writer), "w%zu-%d", every, legs);
        world_open(world, writer);
        fm_status_t rc = leg_run(world, type, params, values, checkpoint, &leg);
        CU_ASSERT_STRING_EQUAL(leg.seen.error, "");
        CU_ASSERT(rc == FM_OK || rc == FM_ERR_CANCELLED);
        CU_ASSERT_EQUAL(leg.seen.checkpoints, rc == FM_OK ? 0 : 1);
        CU_ASSERT(legs == 0 || checkpoint[0]);
        (void)fm_digest_format(&leg.seen.checkpoint, checkpoint);
        if (rc == FM_OK) {
            CU_ASSERT_PTR_NOT_NULL_FATAL(leg.seen.outputs[0]);
            output = fm_strdup(leg.seen.outputs[0]);
            CU_ASSERT(legs > 0); /* it was stopped at all */
        }
        seen_fini(&leg.seen);
    }
    return output;
}

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

static char *member_of(const char *output, const char *key)
{
    fm_json_t *value = json_of(output);
    char *text = fm_strdup(fm_json_get_str(value, key));

    fm_json_drop(value);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    return text;
}

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

/* --- policies --------------------------------------------------------------
 */

/* The next iteration continues its own predecessor and nothing else. */
static void test_policy_state(void)
{
    static const char next[] =
        "{\"model\":" MODEL ",\"training\":{\"epochs\":3,\"mini_batch_size\":2,"
        "\"group_size\":2,\"learning_rate\":%s},\"iteration\":%d,"
        "\"iterations\":3}";
    world_t world = {0};
    seen_t one = {0}, two = {0};

    world_open(&world, "w");
    char *params = fm_asprintf(next, "0.01", 1);
    world_run(&world, "grpo", params, POLICY_ITEM, &one);
    CU_ASSERT_PTR_NOT_NULL_FATAL(one.outputs[0]);
    char *state = member_of(one.outputs[0], "state");
    char *item = fm_asprintf(
        "[{\"state\":\"%s\"," ROLLOUTS "," REWARDS "," REFERENCE "}]", state);
    world_refuse(&world, "grpo", params, item, "null is needed in iteration 1");
    free(params);
    params = fm_asprintf(next, "0.01", 2);
    world_refuse(&world, "grpo", params, POLICY_ITEM, "of the update before");
    world_run(&world, "grpo", params, item, &two);
    CU_ASSERT_PTR_NOT_NULL_FATAL(two.outputs[0]);
    fm_json_t *rows = table_of(&world, two.outputs[0]);
    CU_ASSERT_EQUAL(fm_json_len(rows), 12); /* of both iterations */
    CU_ASSERT_EQUAL(figure(rows, false, "iteration"), 1);
    CU_ASSERT_EQUAL(figure(rows, true, "iteration"), 2);
    CU_ASSERT_EQUAL(figure(rows, true, "step"), 12);
    CU_ASSERT_EQUAL(figure(rows, true, "truncated_fraction"), 0.5);
    CU_ASSERT_EQUAL(figure(rows, true, "reward_max"), 1);
    fm_json_drop(rows);
    fm_json_t *output = json_of(two.outputs[0]);
    const fm_json_t *metrics = fm_json_get(output, "metrics");
    CU_ASSERT_EQUAL(fm_json_get_int(metrics, "steps", 0), 6);
    CU_ASSERT_EQUAL(fm_json_get_real(metrics, "reward_mean", 0), 0.3125);
    CU_ASSERT_EQUAL(fm_json_get_real(metrics, "reward_min", 0), -0.5);
    CU_ASSERT_EQUAL(fm_json_get_real(metrics, "length_mean", 0), 2.75);
    fm_json_drop(output);
    /* and so does one that is stopped on the way */
    char *legs = legs_run(&world, "grpo", params, item, 4);
    CU_ASSERT_STRING_EQUAL(legs, two.outputs[0]);
    free(legs);
    free(params);
    params = fm_asprintf(next, "0.02", 2);
    world_refuse(&world, "grpo", params, item, "of other work");
    free(params);
    params = fm_asprintf(next, "0.01", 3);
    world_refuse(&world, "grpo", params, item, "of other work");
    free(params);
    free(item);
    free(state);
    seen_fini(&one);
    seen_fini(&two);
    world_close(&world, true);
}

/* target_kl ends an iteration before its last step, resumed or not. */
static void test_policy_target_kl(void)
{
    static const char params[] =
        "{\"model\":" MODEL ",\"training\":{\"epochs\":5,\"mini_batch_size\":2,"
        "\"learning_rate\":0.02,\"target_kl\":0.05},\"iteration\":1,"
        "\"iterations\":2}";
    world_t world = {0};
    seen_t seen = {0};

    world_open(&world, "w");
    world_run(&world, "ppo", params, POLICY_ITEM, &seen);
    CU_ASSERT_STRING_EQUAL(seen.error, "");
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    fm_json_t *output = json_of(seen.outputs[0]);
    const fm_json_t *metrics = fm_json_get(output, "metrics");
    CU_ASSERT(fm_json_get_bool(metrics, "stopped_early", false));
    CU_ASSERT(fm_json_get_int(metrics, "steps", 0) > 1);
    CU_ASSERT(fm_json_get_int(metrics, "steps", 99) < 10);
    fm_json_t *rows = table_of(&world, seen.outputs[0]);
    for (size_t i = 0; i < fm_json_len(rows); i++) {
        CU_ASSERT(fm_json_get_real(fm_json_at(rows, i), "approx_kl", 9) <=
                  0.05);
    }
    char *legs = legs_run(&world, "ppo", params, POLICY_ITEM, 1);
    CU_ASSERT_STRING_EQUAL(legs, seen.outputs[0]);
    free(legs);
    fm_json_drop(rows);
    fm_json_drop(output);
    seen_fini(&seen);
    world_close(&world, true);
}

static void test_policy_refused(void)
{
    static const struct {
        const char *type, *training, *item, *want;
    } cases[] = {
        {"grpo", "\"group_size\":3", POLICY_ITEM,
         "rollouts[0]: completions: 3 are needed, not 2"},
        {"grpo", "\"group_size\":2",
         "[{\"state\":null," ROLLOUTS ",\"rewards\":[[1,0]]," REFERENCE "}]",
         "rewards: one list a rollout is needed: 2, not 1"},
        {"grpo", "\"group_size\":2",
         "[{\"state\":null," ROLLOUTS ",\"rewards\":[[1,0],[1]]," REFERENCE
         "}]",
         "rollouts[1]: rewards: a list of one number a completion is needed: "
         "2, not 1"},
        {"grpo", "\"group_size\":2",
         "[{\"state\":null," ROLLOUTS ",\"rewards\":[[1,0],[1,null]]," REFERENCE
         "}]",
         "rollouts[1]: completion 1: reward: a number is needed, not null"},
        {"ppo", "\"kl_coef\":0.1",
         "[{\"state\":null," ROLLOUTS "," REWARDS ",\"reference\":null}]",
         "while kl_coef or beta is above 0"},
        {"ppo", "\"kl_coef\":0.1",
         "[{\"state\":null," ROLLOUTS "," REWARDS
         ",\"reference\":[[[1],[2]],[[3],[4]]]}]",
         "rollouts[0]: completion 0: reference: one number a token"},
        {"ppo", "\"kl_coef\":0",
         "[{\"state\":null,\"rollouts\":[" ROLLOUT(
             "97,260", "98") "],"
                             "\"rewards\":[[1,2]]}]",
         "rollouts[0]: completion 0: tokens[1]: a token id below 260"},
        {"ppo", "\"kl_coef\":0",
         "[{\"state\":null,\"rollouts\":[" ROLLOUT("97",
                                                   "") "],"
                                                       "\"rewards\":[[1,2]]}]",
         "rollouts[0]: completion 1: tokens: a list"},
        {"ppo", "\"kl_coef\":0,\"clip_range\":2", POLICY_ITEM, "clip_range"},
        {"ppo", "", "[{\"state\":null,\"rollouts\":[],\"rewards\":[]}]",
         "rollouts: a list of 1"},
    };
    world_t world = {0};

    world_open(&world, "w");
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        char *params = fm_asprintf("{\"model\":" MODEL
                                   ",\"training\":{%s},\"iteration\":1,"
                                   "\"iterations\":1}",
                                   cases[i].training);
        world_refuse(&world, cases[i].type, params, cases[i].item,
                     cases[i].want);
        free(params);
    }
    world_close(&world, true);
}

/* --- a policy that learns from its own rollouts ------------------------------
 */

#define PROMPTS 4
#define ITERATIONS 20

/* Share of a completion's tokens below 128: half of them at first. */
static double reward_of(const fm_json_t *tokens)
{
    size_t good = 0;

    for (size_t i = 0; i < fm_json_len(tokens); i++) {
        good += fm_json_int_or(fm_json_at(tokens, i), 999) < 128;
    }
    return (double)good / (double)fm_json_len(tokens);
}

/* Rollouts and rewards of one iteration as members of the update's item;
 * returns the mean reward. */
static double rollouts_make(world_t *world, const char *model,
                            const char *adapter, int group, int iteration,
                            fm_buf_t *item)
{
    char *params = fm_asprintf(
        "{\"model\":%s,\"max_tokens\":6,\"temperature\":1,\"top_p\":1,"
        "\"top_k\":0,\"n\":%d,\"return\":\"tokens\"}",
        model, group);
    fm_buf_t values = {0}, rewards = {0};
    seen_t seen = {0};
    double mean = 0;

    for (int p = 0; p < PROMPTS; p++) {
        fm_buf_printf(&values, "%c{\"prompt\":\"%c\",\"seed\":%d%s%s%s}",
                      p ? ',' : '[', 'a' + p, iteration * 100 + p,
                      adapter ? ",\"adapter\":\"" : "", adapter ? adapter : "",
                      adapter ? "\"" : "");
    }
    fm_buf_add_str(&values, "]");
    world_run(world, "inference", params, fm_buf_cstr(&values), &seen);
    CU_ASSERT_STRING_EQUAL(seen.error, "");
    for (int p = 0; p < PROMPTS; p++) {
        CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[p]);
        fm_json_t *rollout = json_of(seen.outputs[p]);
        const fm_json_t *completions = fm_json_get(rollout, "completions");
        fm_buf_printf(item, "%s%s", p ? "," : "\"rollouts\":[",
                      seen.outputs[p]);
        for (int j = 0; j < group; j++) {
            double reward = reward_of(
                fm_json_get(fm_json_at(completions, (size_t)j), "tokens"));
            mean += reward / (group * PROMPTS);
            fm_buf_printf(&rewards, "%s%.17g",
                          j   ? ","
                          : p ? ",["
                              : "[[",
                          reward);
        }
        fm_buf_add_str(&rewards, "]");
        fm_json_drop(rollout);
    }
    fm_buf_printf(item, "],\"rewards\":%s]", fm_buf_cstr(&rewards));
    fm_buf_fini(&rewards);
    fm_buf_fini(&values);
    free(params);
    seen_fini(&seen);
    return mean;
}

/* A model that answers with either kind: an adapter can choose, but cannot
 * make a random head say anything. */
static char *base_make(world_t *world)
{
    seen_t seen = {0};

    world_run(world, "sft",
              "{\"model\":" MODEL ",\"training\":{\"batch_size\":8,"
              "\"steps\":60,\"learning_rate\":0.02}}",
              "[{\"samples\":[{\"prompt\":\"a\",\"completion\":\"xxxxxx\"},"
              "{\"prompt\":\"b\",\"completion\":\"xxxxxx\"},"
              "{\"prompt\":\"c\",\"completion\":\"xxxxxx\"},"
              "{\"prompt\":\"d\",\"completion\":\"xxxxxx\"},"
              "{\"prompt\":\"a\",\"completion\":\"\u00e9\u00e9\u00e9\"},"
              "{\"prompt\":\"b\",\"completion\":\"\u00e9\u00e9\u00e9\"},"
              "{\"prompt\":\"c\",\"completion\":\"\u00e9\u00e9\u00e9\"},"
              "{\"prompt\":\"d\",\"completion\":\"\u00e9\u00e9\u00e9\"}]}]",
              &seen);
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    char *digest = member_of(seen.outputs[0], "model");
    char *model = fm_asprintf("{\"digest\":\"%s\"}", digest);
    free(digest);
    seen_fini(&seen);
    return model;
}

static void policy_learns(const char *type, const char *training, int group,
                          bool lora)
{
    world_t world = {0};
    double rewards[ITERATIONS] = {0};

    world_open(&world, "w");
    char *first = lora ? base_make(&world) : fm_strdup(MODEL);
    char *model = fm_strdup(first), *adapter = NULL, *state = NULL;
    for (int i = 1; i <= ITERATIONS; i++) {
        fm_buf_t item = {0};
        seen_t seen = {0};
        char *params =
            fm_asprintf("{\"model\":%s,\"training\":{%s},\"iteration\":%d,"
                        "\"iterations\":%d%s}",
                        first, training, i, ITERATIONS, lora ? "," LORA : "");
        fm_buf_printf(&item, "[{\"state\":%s%s%s,\"reference\":null,",
                      state ? "\"" : "", state ? state : "null",
                      state ? "\"" : "");
        rewards[i - 1] = rollouts_make(&world, model, adapter, group, i, &item);
        fm_buf_add_str(&item, "}]");
        world_run(&world, type, params, fm_buf_cstr(&item), &seen);
        CU_ASSERT_STRING_EQUAL(seen.error, "");
        CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
        free(model);
        free(state);
        free(adapter);
        char *digest = member_of(seen.outputs[0], "model");
        model = fm_asprintf("{\"digest\":\"%s\"}", digest);
        adapter = lora ? member_of(seen.outputs[0], "adapter") : NULL;
        state = member_of(seen.outputs[0], "state");
        free(digest);
        free(params);
        fm_buf_fini(&item);
        seen_fini(&seen);
    }
    CU_ASSERT(rewards[0] < 0.7);
    CU_ASSERT(rewards[ITERATIONS - 1] > 0.9);
    if (rewards[ITERATIONS - 1] <= 0.9) {
        (void)fprintf(stderr, "%s: reward %g to %g\n", type, rewards[0],
                      rewards[ITERATIONS - 1]);
    }
    free(first);
    free(model);
    free(adapter);
    free(state);
    world_close(&world, true);
}

static void test_policy_learns(void)
{
#define GRPO "\"group_size\":8,\"beta\":0,\"epochs\":2,\"mini_batch_size\":16,"
#define PPO "\"kl_coef\":0,\"epochs\":4,\"mini_batch_size\":8,"
    policy_learns("grpo", GRPO "\"learning_rate\":0.02", 8, false);
    policy_learns("grpo", GRPO "\"learning_rate\":0.005", 8, true);
    policy_learns("ppo", PPO "\"learning_rate\":0.02", 8, false);
    policy_learns("ppo", PPO "\"learning_rate\":0.005", 8, true);
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
        {"policies: states", test_policy_state},
        {"policies: target_kl", test_policy_target_kl},
        {"policies: bad rollouts", test_policy_refused},
        {"policies: rewards rise", test_policy_learns},
        {"bad samples", test_refused},
        {"truncate", test_truncate},
        {"messages", test_messages},
    };
    return fm_test_main("run/ops: training", cases, FM_COUNT_OF(cases));
}
