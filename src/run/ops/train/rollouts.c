/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The item of ppo and grpo as rollouts of the engine: what inference returned
 * with return: tokens, its rewards and its reference log-probabilities.  A
 * completion's number is its place among all of the item, from 0; errors name
 * rollout and completion.
 */
#include "run/ops/train/rollouts.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

void fm_ops_rollouts_fini(fm_ops_rollouts_t *rollouts)
{
    for (size_t i = 0; i < rollouts->count; i++) {
        if (rollouts->tokens) {
            free(rollouts->tokens[i]);
        }
        if (rollouts->reference) {
            free(rollouts->reference[i]);
        }
    }
    free(rollouts->tokens);
    free(rollouts->reference);
    free(rollouts->list);
    *rollouts = (fm_ops_rollouts_t){0};
}

static fm_status_t list_check(const fm_json_t *list, const char *name,
                              fm_error_t *err)
{
    size_t count = fm_json_len(list);

    if (!fm_json_is(list, FM_JSON_ARRAY) || count < 1 ||
        count > OPS_SAMPLES_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: a list of 1 to %d is needed, not %s", name,
                            OPS_SAMPLES_MAX,
                            !list        ? "nothing"
                            : count == 0 ? "an empty one"
                                         : fm_json_type_name(list));
    }
    return FM_OK;
}

static fm_status_t ids_get(const fm_json_t *list, const char *name,
                           size_t vocab, int32_t *out, fm_error_t *err)
{
    for (size_t i = 0; i < fm_json_len(list); i++) {
        int64_t id = fm_json_int_or(fm_json_at(list, i), -1);
        if (id < 0 || (uint64_t)id >= vocab) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%s[%zu]: a token id below %zu, the model's "
                                "vocabulary, is needed",
                                name, i, vocab);
        }
        out[i] = (int32_t)id;
    }
    return FM_OK;
}

/* Prompt and completion in one array, list[at] pointing into it. */
static fm_status_t tokens_get(const fm_json_t *prompt,
                              const fm_json_t *completion,
                              const fm_engine_config_t *config,
                              fm_ops_rollouts_t *made, size_t at,
                              fm_error_t *err)
{
    size_t before = fm_json_len(prompt);
    size_t after = fm_json_len(completion);
    size_t limit = config->max_position_embeddings;
    fm_status_t rc;

    if ((rc = list_check(prompt, "prompt_tokens", err)) < 0 ||
        (rc = list_check(completion, "tokens", err)) < 0) {
        return rc;
    }
    if (before + after > limit) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%zu tokens of prompt and %zu of completion: the "
                            "model has %zu positions; lower max_new_tokens or "
                            "shorten the prompt",
                            before, after, limit);
    }
    int32_t *ids = fm_calloc(before + after, sizeof(*ids));
    if (!(made->tokens[at] = ids)) {
        return fm_no_memory(err);
    }
    if ((rc = ids_get(prompt, "prompt_tokens", config->vocab_size, ids, err)) <
            0 ||
        (rc = ids_get(completion, "tokens", config->vocab_size, ids + before,
                      err)) < 0) {
        return rc;
    }
    made->list[at].prompt = ids;
    made->list[at].prompt_count = before;
    made->list[at].completion = ids + before;
    made->list[at].completion_count = after;
    return FM_OK;
}

static fm_status_t reference_get(const fm_json_t *logprobs,
                                 fm_ops_rollouts_t *made, size_t at,
                                 fm_error_t *err)
{
    size_t count = made->list[at].completion_count;

    if (!fm_json_is(logprobs, FM_JSON_ARRAY) ||
        fm_json_len(logprobs) != count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "reference: one number a token of the completion "
                            "is needed: %zu, not %zu",
                            count, fm_json_len(logprobs));
    }
    float *out = fm_calloc(count, sizeof(*out));
    if (!(made->reference[at] = out)) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        const fm_json_t *value = fm_json_at(logprobs, i);
        if (!fm_json_is_number(value)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "reference[%zu]: a number is needed, not %s", i,
                                fm_json_type_name(value));
        }
        out[i] = (float)fm_json_real_or(value, 0);
    }
    made->list[at].reference = out;
    return FM_OK;
}

static void figures_add(fm_ops_rollouts_t *made, size_t at,
                        const fm_json_t *completion)
{
    const fm_engine_rollout_t *rollout = &made->list[at];
    const char *finish = fm_json_get_str(completion, "finish");
    double share = 1.0 / (double)made->count;
    double length = (double)rollout->completion_count;

    made->reward_min = at == 0 || rollout->reward < made->reward_min
                           ? rollout->reward
                           : made->reward_min;
    made->reward_max = at == 0 || rollout->reward > made->reward_max
                           ? rollout->reward
                           : made->reward_max;
    made->length_min =
        at == 0 || length < made->length_min ? length : made->length_min;
    made->length_max =
        at == 0 || length > made->length_max ? length : made->length_max;
    made->length_mean += share * length;
    made->truncated += finish && strcmp(finish, "length") == 0 ? share : 0;
}

/* All completions of rollout @p r. */
static fm_status_t rollout_get(const fm_json_t *value, size_t r,
                               const fm_engine_config_t *config,
                               fm_ops_rollouts_t *made, fm_error_t *err)
{
    const fm_json_t *rollout = fm_json_at(fm_json_get(value, "rollouts"), r);
    const fm_json_t *completions = fm_json_get(rollout, "completions");
    const fm_json_t *rewards = fm_json_at(fm_json_get(value, "rewards"), r);
    const fm_json_t *reference = fm_json_at(fm_json_get(value, "reference"), r);

    if (!fm_json_is(completions, FM_JSON_ARRAY) ||
        fm_json_len(completions) != made->group) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "completions: %zu are needed, not %zu", made->group,
                            fm_json_len(completions));
    }
    if (!fm_json_is(rewards, FM_JSON_ARRAY) ||
        fm_json_len(rewards) != made->group) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "rewards: a list of one number a completion is "
                            "needed: %zu, not %zu",
                            made->group, fm_json_len(rewards));
    }
    for (size_t j = 0; j < made->group; j++) {
        const fm_json_t *completion = fm_json_at(completions, j);
        const fm_json_t *reward = fm_json_at(rewards, j);
        size_t at = r * made->group + j;
        fm_status_t rc = tokens_get(fm_json_get(rollout, "prompt_tokens"),
                                    fm_json_get(completion, "tokens"), config,
                                    made, at, err);
        if (rc >= 0 && !fm_json_is_number(reward)) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "reward: a number is needed, not %s",
                              fm_json_type_name(reward));
        }
        if (rc >= 0 && made->reference) {
            rc = reference_get(fm_json_at(reference, j), made, at, err);
        }
        if (rc < 0) {
            fm_error_wrap(err, "completion %zu", j);
            return rc;
        }
        made->list[at].reward = fm_json_real_or(reward, 0);
        figures_add(made, at, completion);
    }
    return FM_OK;
}

/* Rewards and reference must have an entry a rollout. */
static fm_status_t shape_check(const fm_json_t *value, bool reference,
                               fm_error_t *err)
{
    size_t count = fm_json_len(fm_json_get(value, "rollouts"));
    size_t rewards = fm_json_len(fm_json_get(value, "rewards"));
    size_t references = fm_json_len(fm_json_get(value, "reference"));

    if (rewards != count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "rewards: one list a rollout is needed: %zu, not "
                            "%zu",
                            count, rewards);
    }
    if (reference && references != count) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "reference: one list a rollout is needed while "
                            "kl_coef or beta is above 0: %zu, not %zu",
                            count, references);
    }
    return FM_OK;
}

fm_status_t fm_ops_rollouts_make(const fm_json_t *value,
                                 const fm_engine_config_t *config, size_t group,
                                 bool reference, fm_ops_rollouts_t *out,
                                 fm_error_t *err)
{
    const fm_json_t *list = fm_json_get(value, "rollouts");
    fm_ops_rollouts_t made = {0};
    fm_status_t rc;

    if ((rc = list_check(list, "rollouts", err)) < 0 ||
        (rc = shape_check(value, reference, err)) < 0) {
        return rc;
    }
    made.group =
        group ? group
              : fm_json_len(fm_json_get(fm_json_at(list, 0), "completions"));
    if (made.group < 1 || made.group > OPS_SAMPLES_MAX / fm_json_len(list)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "rollouts[0].completions: 1 to %zu are needed",
                            OPS_SAMPLES_MAX / fm_json_len(list));
    }
    made.count = made.group * fm_json_len(list);
    made.list = fm_calloc(made.count, sizeof(*made.list));
    made.tokens = fm_calloc(made.count, sizeof(*made.tokens));
    made.reference =
        reference ? fm_calloc(made.count, sizeof(*made.reference)) : NULL;
    if (!made.list || !made.tokens || (reference && !made.reference)) {
        rc = fm_no_memory(err);
        goto out;
    }
    for (size_t r = 0; r < fm_json_len(list); r++) {
        if ((rc = rollout_get(value, r, config, &made, err)) < 0) {
            fm_error_wrap(err, "rollouts[%zu]", r);
            goto out;
        }
    }
    *out = made;
    made = (fm_ops_rollouts_t){0};
out:
    fm_ops_rollouts_fini(&made);
    return rc;
}
