/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ppo and grpo: an update continues its predecessor and nothing else, refuses
 * rollouts that do not fit by name, and a loop of updates raises a reward.
 */
#include <stdio.h>

#include "train_fixture.h"

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

/* Figures that are no numbers are null, and the rest is as ever. */
static void test_policy_huge(void)
{
    static const char params[] =
        "{\"model\":" MODEL ",\"training\":{\"epochs\":2,\"group_size\":2,"
        "\"learning_rate\":0.01,\"scale_rewards\":true},\"iteration\":1,"
        "\"iterations\":1}";
    world_t world = {0};
    seen_t seen = {0};

    world_open(&world, "w");
    world_run(&world, "grpo", params,
              "[{\"state\":null," ROLLOUTS
              ",\"rewards\":[[1e200,0],[0.75,-0.5]]," REFERENCE "}]",
              &seen);
    CU_ASSERT_STRING_EQUAL(seen.error, "");
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    fm_json_t *output = json_of(seen.outputs[0]);
    const fm_json_t *metrics = fm_json_get(output, "metrics");
    CU_ASSERT(fm_json_is(fm_json_get(metrics, "reward_std"), FM_JSON_NULL));
    CU_ASSERT(fm_json_is_number(fm_json_get(metrics, "loss")));
    CU_ASSERT_EQUAL(fm_json_get_real(metrics, "reward_max", 0), 1e200);
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

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"states", test_policy_state},
        {"target_kl", test_policy_target_kl},
        {"huge rewards", test_policy_huge},
        {"bad rollouts", test_policy_refused},
        {"rewards rise", test_policy_learns},
    };
    return fm_test_main("run/ops: policies", cases, FM_COUNT_OF(cases));
}
