/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The work of one node of a ppo or grpo (W55, W56).
 *
 * Everything random is a function of the seed, the iteration and the record's
 * place, never of the trial: trials that agree on what a node reads make the
 * same items, which then run once.
 */
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/model.h"
#include "plan/workflow/ref.h"
#include "plan/workflow/reward.h"

/* What every node of the chain needs to know. */
struct task {
    const fm_wf_resolver_t *r; /* its node has the owner's task type */
    const fm_wf_chain_t *chain;
    uint32_t iteration;
    fm_json_t *given;    /* `training`, as written */
    fm_json_t *training; /* defaults filled in, as the update gets it */
    int64_t seed;
    size_t prompts; /* an iteration */
    size_t n;       /* completions a prompt */
};

static fm_status_t fail(const struct task *t, fm_status_t status,
                        const char *text)
{
    const fm_workflow_node_t *node = &t->r->node->pub;

    return fm_yaml_fail(&t->r->source, node->line, node->column, status,
                        "node %s: %s", node->name, text);
}

/* The first 53 bits of SHA-256 of a text (W55, W56). */
static int64_t draw(const char *format, ...) FM_PRINTF(1, 2);
static int64_t draw(const char *format, ...)
{
    char text[96];
    va_list args;
    uint64_t bits = 0;

    va_start(args, format);
    int len = vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    fm_digest_t digest = fm_sha256(text, len > 0 ? (size_t)len : 0);
    for (size_t i = 0; i < 8; i++) {
        bits = bits << 8 | digest.bytes[i];
    }
    return (int64_t)(bits >> 11);
}

/* --- training ------------------------------------------------------------- */

static void task_fini(struct task *t)
{
    t->given = fm_json_drop(t->given);
    t->training = fm_json_drop(t->training);
}

static fm_status_t task_init(struct task *t, const fm_wf_resolver_t *r)
{
    bool ppo = r->node->task == FM_WF_PPO;
    fm_status_t rc = FM_OK;

    *t = (struct task){
        .r = r, .chain = r->node->chain, .iteration = r->node->iteration};
    if ((rc = fm_wf_section_read(r, "training", &fm_wf_policy_training,
                                 &t->given)) < 0) {
        return rc;
    }
    t->training = fm_yaml_fill(&fm_wf_policy_training, t->given, r->node->task);
    if (!t->training) {
        return fm_wf_no_memory(r);
    }
    if ((rc = fm_wf_put_seed(r, t->given, t->training)) < 0) {
        return rc;
    }
    t->seed = fm_json_get_int(t->training, "seed", 0);
    t->prompts = (size_t)fm_json_get_int(t->training, "batch_size", 1);
    t->n = ppo ? 1 : (size_t)fm_json_get_int(t->training, "group_size", 2);
    if (!fm_json_is(fm_json_get(t->training, "mini_batch_size"), FM_JSON_INT)) {
        rc = fm_wf_set(r, t->training, "mini_batch_size",
                       fm_json_int((int64_t)(t->prompts * t->n)));
    }
    if (rc == FM_OK && !fm_json_get_bool(t->given, "early_stopping", true)) {
        rc = fm_wf_set(r, t->training, "target_kl", fm_json_null());
    }
    if (rc == FM_OK && t->prompts * t->n > FM_WORKFLOW_ITEMS_MAX) {
        rc = fail(t, FM_ERR_LIMIT,
                  "more than 1000000 completions an "
                  "iteration");
    }
    return rc;
}

/* --- records of an iteration ---------------------------------------------- */

struct batch {
    size_t *positions; /* [prompts] of the records in the data */
    uint64_t *epochs;  /* [prompts] */
    fm_json_t **records;
    size_t count;
};

static void batch_fini(struct batch *batch)
{
    for (size_t i = 0; batch->records && i < batch->count; i++) {
        fm_json_drop(batch->records[i]);
    }
    free(batch->records);
    free(batch->positions);
    free(batch->epochs);
}

/* Fisher–Yates over @p n positions, as data_retrieval does. */
static void permute(size_t *order, size_t n, uint64_t seed)
{
    fm_rng_t rng;

    fm_rng_init(&rng, seed);
    for (size_t i = 0; i < n; i++) {
        order[i] = i;
    }
    for (size_t i = n; i-- > 1;) {
        size_t k = (size_t)fm_rng_below(&rng, i + 1);
        size_t held = order[i];
        order[i] = order[k];
        order[k] = held;
    }
}

/* Positions of iteration i in the endless sequence of epochs (W55). */
static fm_status_t pick(const struct task *t, size_t n, struct batch *batch)
{
    size_t *order = fm_calloc(n, sizeof(*order));
    uint64_t first = (uint64_t)(t->iteration - 1) * t->prompts;
    uint64_t shuffled = UINT64_MAX;

    if (!order) {
        return fm_wf_no_memory(t->r);
    }
    assert(n > 0); /* batch_read() refuses an empty list */
    for (size_t i = 0; i < t->prompts; i++) {
        uint64_t epoch = (first + i) / n;
        if (epoch != shuffled) {
            permute(order, n,
                    (uint64_t)draw("epoch:%lld:%llu", (long long)t->seed,
                                   (unsigned long long)epoch));
            shuffled = epoch;
        }
        batch->positions[i] = order[(first + i) % n];
        batch->epochs[i] = epoch;
    }
    free(order);
    return FM_OK;
}

static fm_status_t batch_read(const struct task *t, struct batch *batch)
{
    fm_wf_records_t all = {0};
    fm_status_t rc = fm_wf_records_open(t->r, &all);

    if (rc == FM_OK && all.count == 0) {
        rc = fail(t, FM_ERR_INVALID, "its data has no records");
    }
    if (rc < 0) {
        goto out;
    }
    batch->count = t->prompts;
    batch->positions = fm_calloc(batch->count, sizeof(size_t));
    batch->records = fm_calloc(batch->count, sizeof(fm_json_t *));
    batch->epochs = fm_calloc(batch->count, sizeof(uint64_t));
    if (!batch->positions || !batch->epochs || !batch->records) {
        rc = fm_wf_no_memory(t->r);
        goto out;
    }
    rc = pick(t, all.count, batch);
    for (size_t i = 0; i < batch->count && rc == FM_OK; i++) {
        rc = fm_wf_record_at(t->r, &all, batch->positions[i],
                             &batch->records[i]);
    }
out:
    fm_wf_records_close(&all);
    return rc;
}

/* --- upstream in the chain ------------------------------------------------ */

/* Output @p index of a node of the chain; NULL when it has none. */
static const fm_json_t *output_at(const fm_json_t *result, size_t index)
{
    return fm_json_get(fm_json_at(fm_json_get(result, "items"), index),
                       "output");
}

/* Items of rollout.i, each with n completions of tokens. */
static fm_status_t read_rollouts(const struct task *t, const fm_json_t **out)
{
    const fm_json_t *result = NULL;
    fm_status_t rc = fm_wf_result_of(
        t->r, fm_wf_chain_node(t->chain, FM_WF_PART_ROLLOUT, t->iteration, 0),
        &result);

    if (rc < 0) {
        return rc;
    }
    bool fits = fm_json_len(fm_json_get(result, "items")) == t->prompts;
    for (size_t i = 0; i < t->prompts && fits; i++) {
        const fm_json_t *output = output_at(result, i);
        const fm_json_t *list = fm_json_get(output, "completions");
        fits =
            fm_json_is(fm_json_get(output, "prompt_tokens"), FM_JSON_ARRAY) &&
            fm_json_len(list) == t->n;
        for (size_t k = 0; k < t->n && fits; k++) {
            const fm_json_t *one = fm_json_at(list, k);
            fits = fm_json_get_str(one, "text") &&
                   fm_json_is(fm_json_get(one, "tokens"), FM_JSON_ARRAY);
        }
    }
    if (!fits) {
        return fail(t, FM_ERR_INVALID,
                    "the rollouts of this iteration are not {prompt_tokens, "
                    "completions} each");
    }
    *out = result;
    return FM_OK;
}

/* The policy after @p iteration updates. */
static fm_status_t read_policy(const struct task *t, uint32_t iteration,
                               fm_json_t **model_out, fm_json_t **adapter_out)
{
    if (iteration == 0) {
        return fm_wf_model_params(t->r, fm_yaml_get(t->r->node->tree, "model"),
                                  "model", model_out, adapter_out);
    }
    return fm_wf_model_of_output(
        t->r, fm_wf_chain_node(t->chain, FM_WF_PART_UPDATE, iteration, 0),
        model_out, adapter_out);
}

/* Put model and, into @p to unless NULL, adapter. */
static fm_status_t put_policy(const struct task *t, uint32_t iteration,
                              fm_json_t *params)
{
    fm_json_t *model = NULL;
    fm_json_t *adapter = NULL;
    fm_status_t rc = read_policy(t, iteration, &model, &adapter);

    if (rc == FM_OK) {
        rc = fm_wf_set(t->r, params, "model", fm_json_keep(model));
    }
    if (rc == FM_OK && adapter) {
        rc = fm_wf_set(t->r, params, "adapter", fm_json_keep(adapter));
    }
    fm_json_drop(model);
    fm_json_drop(adapter);
    return rc;
}

/* --- rollout.i ------------------------------------------------------------ */

static fm_status_t rollout_params(const struct task *t, fm_json_t *params)
{
    fm_json_t *given = NULL;
    fm_status_t rc =
        fm_wf_section_read(t->r, "generation", &fm_wf_generation, &given);
    int64_t most = fm_json_int_or(
        fm_yaml_json_either(&fm_wf_generation, given, "max_new_tokens"), 64);

    if (rc < 0 || (rc = put_policy(t, t->iteration - 1, params)) < 0 ||
        (rc = fm_wf_drawing_params(t->r, &fm_wf_generation, given, 1, params)) <
            0 ||
        (rc = fm_wf_set(t->r, params, "max_tokens", fm_json_int(most))) < 0 ||
        (rc = fm_wf_set(t->r, params, "n", fm_json_int((int64_t)t->n))) < 0 ||
        (rc = fm_wf_set(t->r, params, "return", fm_json_string("tokens"))) <
            0) {
        goto out;
    }
out:
    fm_json_drop(given);
    return rc;
}

static fm_status_t rollout_work(const struct task *t, fm_json_t *params,
                                fm_json_t *items)
{
    fm_wf_sampler_t sampler = {0};
    struct batch batch = {0};
    fm_status_t rc = rollout_params(t, params);
    bool drawn = fm_json_get_real(params, "temperature", 0) > 0;

    if (rc < 0 || (rc = batch_read(t, &batch)) < 0 ||
        (rc = fm_wf_sampler_init(&sampler, t->r)) < 0) {
        goto out;
    }
    for (size_t i = 0; i < batch.count && rc == FM_OK; i++) {
        fm_json_t *item = NULL;
        rc = fm_wf_prompt_make(&sampler, batch.positions[i], batch.records[i],
                               &item);
        if (rc == FM_OK && drawn &&
            fm_json_set(item, "seed",
                        fm_json_int(draw("rollout:%lld:%u:%llu:%zu",
                                         (long long)t->seed, t->iteration,
                                         (unsigned long long)batch.epochs[i],
                                         batch.positions[i]))) < 0) {
            item = fm_json_drop(item);
        }
        if (rc == FM_OK && fm_json_append(items, item) < 0) {
            rc = fm_wf_no_memory(t->r);
        }
    }
    rc = rc < 0 ? rc : fm_wf_move_to_items(t->r, "adapter", params, items);
out:
    fm_wf_sampler_fini(&sampler);
    batch_fini(&batch);
    return rc;
}

/* --- reward.i ------------------------------------------------------------- */

/* {"prompt_tokens", "completion_tokens"} of one completion. */
static fm_json_t *token_item(const fm_json_t *rollout, size_t which)
{
    const fm_json_t *one =
        fm_json_at(fm_json_get(rollout, "completions"), which);
    fm_json_t *item = fm_json_object();

    if (!item ||
        fm_json_set(item, "prompt_tokens",
                    fm_json_keep(fm_json_get(rollout, "prompt_tokens"))) < 0 ||
        fm_json_set(item, "completion_tokens",
                    fm_json_keep(fm_json_get(one, "tokens"))) < 0) {
        return fm_json_drop(item);
    }
    return item;
}

/* The item of one completion, for a reward or, @p scored, a model. */
static fm_json_t *judged_item(const fm_json_t *prompt, const fm_json_t *rollout,
                              size_t which, const fm_json_t *record,
                              bool scored)
{
    const fm_json_t *messages = fm_json_get(prompt, "messages");
    const fm_json_t *one =
        fm_json_at(fm_json_get(rollout, "completions"), which);

    if (scored && messages) {
        return token_item(rollout, which);
    }
    fm_json_t *item = fm_json_object();
    const fm_json_t *text = messages ? messages : fm_json_get(prompt, "prompt");
    if (!item || fm_json_set(item, "prompt", fm_json_keep(text)) < 0 ||
        fm_json_set(item, "completion",
                    fm_json_keep(fm_json_get(one, "text"))) < 0 ||
        (!scored && fm_json_is(record, FM_JSON_OBJECT) &&
         fm_json_set(item, "record", fm_json_keep(record)) < 0)) {
        return fm_json_drop(item);
    }
    return item;
}

static fm_status_t put_reward_params(const struct task *t, fm_json_t *params)
{
    const fm_yaml_value_t *entry =
        fm_wf_reward_at(t->r->node->tree, t->r->node->which);
    fm_json_t *made = NULL;
    fm_json_t *adapter = NULL;
    const char *key = NULL;
    fm_json_t *value = NULL;
    void *at = NULL;
    double weight = 1;
    fm_status_t rc = fm_wf_reward_params(t->r, entry, &made, &adapter, &weight);

    while (rc == FM_OK && fm_json_next(made, &at, &key, &value)) {
        rc = fm_wf_set(t->r, params, key, fm_json_keep(value));
    }
    if (rc == FM_OK && adapter) {
        rc = fm_wf_set(t->r, params, "adapter", fm_json_keep(adapter));
    }
    fm_json_drop(made);
    fm_json_drop(adapter);
    return rc;
}

static fm_status_t reward_work(const struct task *t, fm_json_t *params,
                               fm_json_t *items)
{
    bool scored = fm_wf_reward_by_model(
        fm_wf_reward_at(t->r->node->tree, t->r->node->which));
    fm_wf_sampler_t sampler = {0};
    struct batch batch = {0};
    const fm_json_t *rollouts = NULL;
    fm_status_t rc = put_reward_params(t, params);

    if (rc < 0 || (rc = read_rollouts(t, &rollouts)) < 0 ||
        (rc = batch_read(t, &batch)) < 0 ||
        (rc = fm_wf_sampler_init(&sampler, t->r)) < 0) {
        goto out;
    }
    for (size_t i = 0; i < batch.count && rc == FM_OK; i++) {
        fm_json_t *prompt = NULL;
        rc = fm_wf_prompt_make(&sampler, batch.positions[i], batch.records[i],
                               &prompt);
        for (size_t k = 0; k < t->n && rc == FM_OK; k++) {
            if (fm_json_append(items,
                               judged_item(prompt, output_at(rollouts, i), k,
                                           batch.records[i], scored)) < 0) {
                rc = fm_wf_no_memory(t->r);
            }
        }
        fm_json_drop(prompt);
    }
    rc = rc < 0 ? rc : fm_wf_move_to_items(t->r, "adapter", params, items);
out:
    fm_wf_sampler_fini(&sampler);
    batch_fini(&batch);
    return rc;
}

/* --- reference.i ---------------------------------------------------------- */

static fm_status_t reference_work(const struct task *t, fm_json_t *params,
                                  fm_json_t *items)
{
    const fm_json_t *rollouts = NULL;
    fm_status_t rc = put_policy(t, 0, params);

    if (rc < 0 || (rc = read_rollouts(t, &rollouts)) < 0 ||
        (rc = fm_wf_set(t->r, params, "max_seq_length", fm_json_null())) < 0 ||
        (rc = fm_wf_set(t->r, params, "truncate", fm_json_bool(false))) < 0 ||
        (rc = fm_wf_set(t->r, params, "tokens", fm_json_bool(true))) < 0) {
        return rc;
    }
    for (size_t i = 0; i < t->prompts && rc == FM_OK; i++) {
        for (size_t k = 0; k < t->n && rc == FM_OK; k++) {
            if (fm_json_append(items, token_item(output_at(rollouts, i), k)) <
                0) {
                rc = fm_wf_no_memory(t->r);
            }
        }
    }
    return rc < 0 ? rc : fm_wf_move_to_items(t->r, "adapter", params, items);
}

/* --- update.i ------------------------------------------------------------- */

/* Sums of weight times output, one a completion, in the order of the items. */
static fm_status_t sum_rewards(const struct task *t, double *sums)
{
    size_t count = t->prompts * t->n;
    fm_status_t rc = FM_OK;

    for (uint32_t k = 0; k < t->chain->rewards && rc == FM_OK; k++) {
        const fm_yaml_value_t *entry = fm_wf_reward_at(t->r->node->tree, k);
        const fm_yaml_value_t *given = fm_yaml_get(entry, "weight");
        const fm_json_t *result = NULL;
        fm_json_t *weight = NULL;
        uint32_t node =
            fm_wf_chain_node(t->chain, FM_WF_PART_REWARD, t->iteration, k);
        if ((given && (rc = fm_wf_resolve(t->r, given, false, &weight)) < 0) ||
            (rc = fm_wf_result_of(t->r, node, &result)) < 0) {
            fm_json_drop(weight);
            return rc;
        }
        double scale = fm_json_real_or(weight, 1);
        bool fits = (!weight || fm_json_is_number(weight)) &&
                    fm_json_len(fm_json_get(result, "items")) == count;
        fm_json_drop(weight);
        for (size_t i = 0; i < count && fits; i++) {
            const fm_json_t *output = output_at(result, i);
            fits = fm_json_is_number(output);
            sums[i] += scale * fm_json_real_or(output, 0);
        }
        rc = fits ? FM_OK
                  : fail(t, FM_ERR_INVALID,
                         "a reward is not one number a completion");
    }
    return rc;
}

/* [[number a completion] a prompt]. */
static fm_status_t put_rewards(const struct task *t, fm_json_t *item)
{
    double *sums = fm_calloc(t->prompts * t->n, sizeof(*sums));
    fm_json_t *all = fm_json_array();
    fm_status_t rc = sums && all ? sum_rewards(t, sums) : fm_wf_no_memory(t->r);

    for (size_t i = 0; i < t->prompts && rc == FM_OK; i++) {
        fm_json_t *group = fm_json_array();
        for (size_t k = 0; k < t->n && group; k++) {
            if (fm_json_append(group, fm_json_real(sums[i * t->n + k])) < 0) {
                group = fm_json_drop(group);
            }
        }
        if (fm_json_append(all, group) < 0) {
            rc = fm_wf_no_memory(t->r);
        }
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(t->r, item, "rewards", fm_json_keep(all));
    }
    free(sums);
    fm_json_drop(all);
    return rc;
}

static fm_status_t put_rollouts(const struct task *t, fm_json_t *item)
{
    const fm_json_t *rollouts = NULL;
    fm_json_t *all = fm_json_array();
    fm_status_t rc = all ? read_rollouts(t, &rollouts) : fm_wf_no_memory(t->r);

    for (size_t i = 0; i < t->prompts && rc == FM_OK; i++) {
        if (fm_json_append(all, fm_json_keep(output_at(rollouts, i))) < 0) {
            rc = fm_wf_no_memory(t->r);
        }
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(t->r, item, "rollouts", fm_json_keep(all));
    }
    fm_json_drop(all);
    return rc;
}

/* [[[log-probability a token] a completion] a prompt], or null. */
static fm_status_t put_reference(const struct task *t, fm_json_t *item)
{
    const fm_json_t *result = NULL;
    fm_json_t *all = NULL;
    fm_status_t rc = FM_OK;

    if (!t->chain->reference) {
        return fm_wf_set(t->r, item, "reference", fm_json_null());
    }
    rc = fm_wf_result_of(
        t->r, fm_wf_chain_node(t->chain, FM_WF_PART_REFERENCE, t->iteration, 0),
        &result);
    all = fm_json_array();
    if (rc == FM_OK && !all) {
        rc = fm_wf_no_memory(t->r);
    }
    for (size_t i = 0; i < t->prompts && rc == FM_OK; i++) {
        fm_json_t *group = fm_json_array();
        for (size_t k = 0; k < t->n && rc == FM_OK; k++) {
            const fm_json_t *values =
                fm_json_get(output_at(result, i * t->n + k), "logprobs");
            if (!fm_json_is(values, FM_JSON_ARRAY)) {
                rc = fail(t, FM_ERR_INVALID,
                          "reference log-probabilities are missing");
            } else if (!group ||
                       fm_json_append(group, fm_json_keep(values)) < 0) {
                rc = fm_wf_no_memory(t->r);
            }
        }
        if (rc == FM_OK) {
            rc = fm_json_append(all, group) < 0 ? fm_wf_no_memory(t->r) : FM_OK;
        } else {
            fm_json_drop(group);
        }
    }
    if (rc == FM_OK) {
        rc = fm_wf_set(t->r, item, "reference", fm_json_keep(all));
    }
    fm_json_drop(all);
    return rc;
}

/* What the update before left to go on from. */
static fm_status_t put_state(const struct task *t, fm_json_t *item)
{
    const fm_json_t *result = NULL;
    const fm_json_t *state = NULL;
    fm_status_t rc = FM_OK;

    if (t->iteration == 1) {
        return fm_wf_set(t->r, item, "state", fm_json_null());
    }
    rc = fm_wf_result_of(
        t->r,
        fm_wf_chain_node(t->chain, FM_WF_PART_UPDATE, t->iteration - 1, 0),
        &result);
    if (rc == FM_OK &&
        !fm_json_str(state = fm_json_get(output_at(result, 0), "state"))) {
        rc = fail(t, FM_ERR_INVALID, "the update before left no state");
    }
    return rc < 0 ? rc : fm_wf_set(t->r, item, "state", fm_json_keep(state));
}

/* How many iterations the schedule spans.  A constant one does not ask: there
 * the same number for all makes a longer run go on from a shorter one. */
static int64_t schedule_span(const struct task *t)
{
    const char *schedule = fm_json_get_str(t->training, "schedule");
    bool constant =
        schedule && strcmp(schedule, "constant") == 0 &&
        !fm_json_is_number(fm_json_get(t->training, "warmup_ratio"));

    return constant ? FM_WF_ITERATIONS_MAX : t->chain->iterations;
}

static fm_status_t update_work(const struct task *t, fm_json_t *params,
                               fm_json_t *hints, fm_json_t *items)
{
    fm_json_t *item = fm_json_object();
    fm_status_t rc = item ? put_policy(t, 0, params) : fm_wf_no_memory(t->r);

    if (rc < 0 || (rc = fm_wf_lora_params(t->r, params)) < 0 ||
        (rc = fm_wf_set(t->r, params, "training", fm_json_keep(t->training))) <
            0 ||
        (rc = fm_wf_set(t->r, params, "iteration", fm_json_int(t->iteration))) <
            0 ||
        (rc = fm_wf_set(t->r, params, "iterations",
                        fm_json_int(schedule_span(t)))) < 0 ||
        (rc = fm_wf_training_hints(t->r, &fm_wf_policy_training, t->given,
                                   hints)) < 0 ||
        (rc = put_state(t, item)) < 0 || (rc = put_rollouts(t, item)) < 0 ||
        (rc = put_rewards(t, item)) < 0 || (rc = put_reference(t, item)) < 0) {
        goto out;
    }
    if (fm_json_append(items, fm_json_keep(item)) < 0) {
        rc = fm_wf_no_memory(t->r);
    }
out:
    fm_json_drop(item);
    return rc;
}

fm_status_t fm_wf_chain_work(const fm_wf_resolver_t *r, fm_json_t *params,
                             fm_json_t *hints, fm_json_t **items_out)
{
    /* Sections are read as the owner's. */
    fm_wf_node_private_t view = *r->node;
    fm_wf_resolver_t as_owner = *r;
    struct task t = {0};
    fm_json_t *items = fm_json_array();

    view.task = r->wf->nodes[r->node->pub.owner].task;
    as_owner.node = &view;
    fm_status_t rc = items ? task_init(&t, &as_owner) : fm_wf_no_memory(r);
    if (rc == FM_OK) {
        switch (view.part) {
        case FM_WF_PART_ROLLOUT:
            rc = rollout_work(&t, params, items);
            break;
        case FM_WF_PART_REWARD:
            rc = reward_work(&t, params, items);
            break;
        case FM_WF_PART_REFERENCE:
            rc = reference_work(&t, params, items);
            break;
        case FM_WF_PART_UPDATE:
        case FM_WF_PART_NONE:
            rc = update_work(&t, params, hints, items);
            break;
        }
    }
    if (rc == FM_OK) {
        *items_out = items;
        items = NULL;
    }
    fm_json_drop(items);
    task_fini(&t);
    return rc;
}
