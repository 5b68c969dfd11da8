/* SPDX-License-Identifier: Apache-2.0 */
/*
 * plan/workflow, task types: what each compiles to, against golden bytes, and
 * how policies unroll, alone and in a sweep.
 *
 * usage: test_workflow_tasks [--print FILE]
 * --print writes what tests/golden/workflow/tasks.yaml compiles to now, for
 * "work" of tasks.json.
 */
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/map.h"
#include "base/mem.h"
#include "fmtest.h"
#include "plan/key/key.h"
#include "plan/workflow/workflow.h"

#define HEAD "apiVersion: flowmesh/v1\nspec:\n"
#define MODEL_A                                                                \
    "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define NODES_MAX 4096u

static fm_json_t *read_json(const char *name)
{
    char path[512];
    fm_buf_t text = {0};
    fm_json_t *json = NULL;
    fm_error_t err = {0};

    (void)snprintf(path, sizeof(path), "%s/%s", FM_GOLDEN_DIR, name);
    FM_ASSERT_OK(fm_file_read(path, 1 << 20, &text, &err), &err);
    FM_ASSERT_OK(
        fm_json_parse((const char *)text.data, text.len, name, &json, &err),
        &err);
    fm_buf_fini(&text);
    return json;
}

static fm_workflow_t *parse(const char *text, size_t len)
{
    fm_workflow_t *wf = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_workflow_parse(text, len, "t.yaml", &wf, &err), &err);
    return wf;
}

static fm_workflow_t *parse_file(const char *name)
{
    char path[512];
    fm_buf_t text = {0};
    fm_error_t err = {0};

    (void)snprintf(path, sizeof(path), "%s/%s", FM_GOLDEN_DIR, name);
    FM_ASSERT_OK(fm_file_read(path, 1 << 20, &text, &err), &err);
    fm_workflow_t *wf = parse((const char *)text.data, text.len);
    fm_buf_fini(&text);
    return wf;
}

/* Results by node. */
struct upstream {
    const fm_workflow_t *wf;
    fm_json_t *results[NODES_MAX];
};

static const fm_json_t *get_result(void *ctx, uint32_t node)
{
    return ((struct upstream *)ctx)->results[node];
}

static void upstream_fini(struct upstream *up)
{
    for (size_t i = 0; i < NODES_MAX; i++) {
        fm_json_drop(up->results[i]);
    }
}

/* --- a stand-in for the operators ----------------------------------------- */

/* A digest that stands for what the operator would make of its input. */
static fm_json_t *made_digest(const char *what, const fm_json_t *params,
                              const fm_json_t *value)
{
    char *a = fm_json_canonical(params);
    char *b = fm_json_canonical(value);
    char *text = fm_asprintf("%s %s %s", what, a, b);
    char digest_text[FM_DIGEST_TEXT_BYTES];
    fm_digest_t digest = fm_sha256(text, strlen(text));
    fm_json_t *made = fm_json_string(fm_digest_format(&digest, digest_text));

    free(text);
    free(a);
    free(b);
    return made;
}

static fm_json_t *made_numbers(size_t count, int64_t first)
{
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; i < count; i++) {
        CU_ASSERT(fm_json_append(list, fm_json_int(first + (int64_t)i)) == 0);
    }
    return list;
}

/* A rollout: its tokens are a function of everything the key sees. */
static fm_json_t *made_rollout(const fm_json_t *params, const fm_json_t *value)
{
    fm_json_t *output = fm_json_object();
    fm_json_t *list = fm_json_array();
    fm_json_t *digest = made_digest("rollout", params, value);
    int64_t first = fm_json_str(digest)[7] + 256 * fm_json_str(digest)[8];

    CU_ASSERT(fm_json_set(output, "prompt_tokens", made_numbers(2, 1)) == 0);
    for (int64_t k = 0; k < fm_json_get_int(params, "n", 1); k++) {
        fm_json_t *one = fm_json_object();
        CU_ASSERT(fm_json_set(one, "text", fm_json_keep(digest)) == 0);
        CU_ASSERT(fm_json_set(one, "tokens", made_numbers(2, first + k)) == 0);
        CU_ASSERT(fm_json_set(one, "logprobs", made_numbers(2, -1)) == 0);
        CU_ASSERT(fm_json_set(one, "finish", fm_json_string("stop")) == 0);
        CU_ASSERT(fm_json_append(list, one) == 0);
    }
    CU_ASSERT(fm_json_set(output, "completions", list) == 0);
    fm_json_drop(digest);
    return output;
}

static fm_json_t *made_update(const fm_json_t *params, const fm_json_t *value)
{
    bool lora = fm_json_get(params, "lora") || fm_json_get(params, "adapter");
    fm_json_t *output = fm_json_object();

    CU_ASSERT(fm_json_set(output, lora ? "adapter" : "model",
                          made_digest("policy", params, value)) == 0);
    if (lora) {
        CU_ASSERT(fm_json_set(output, "model", fm_json_string(MODEL_A)) == 0);
    }
    CU_ASSERT(
        fm_json_set(output, "state", made_digest("state", params, value)) == 0);
    CU_ASSERT(fm_json_set(output, "metrics", fm_json_object()) == 0);
    return output;
}

static fm_json_t *operate(const char *task, const fm_json_t *params,
                          const fm_json_t *value)
{
    fm_json_t *output = NULL;

    if (strcmp(task, "inference") == 0) {
        return made_rollout(params, value);
    }
    if (strcmp(task, "reward") == 0 || strcmp(task, "score") == 0) {
        return fm_json_int(1);
    }
    if (strcmp(task, "logprobs") == 0) {
        output = fm_json_object();
        CU_ASSERT(fm_json_set(output, "logprobs", made_numbers(2, -2)) == 0);
        return output;
    }
    if (strcmp(task, "data_retrieval") == 0) {
        output = fm_json_array();
        for (int i = 0; i < 5; i++) {
            char text[16];
            (void)snprintf(text, sizeof(text), "q%d", i);
            CU_ASSERT(fm_json_append(output, fm_json_string(text)) == 0);
        }
        return output;
    }
    return fm_json_get(params, "training") ? made_update(params, value)
                                           : fm_json_array();
}

/* --- golden --------------------------------------------------------------- */

static fm_json_t *expand(const fm_workflow_t *wf, uint32_t node,
                         const fm_json_t *files, struct upstream *up)
{
    fm_workflow_work_t work = {0};
    fm_json_t *made = fm_json_object();
    fm_error_t err = {0};

    FM_ASSERT_OK(
        fm_workflow_expand(wf, node, files, get_result, up, &work, &err), &err);
    CU_ASSERT(fm_json_set(made, "params", fm_json_keep(work.params)) == 0);
    CU_ASSERT(fm_json_set(made, "items", fm_json_keep(work.items)) == 0);
    CU_ASSERT(fm_json_set(made, "hints", fm_json_keep(work.hints)) == 0);
    fm_workflow_work_fini(&work);
    return made;
}

/* Results as the golden file has them, rewards and rollouts as operate(). */
static void put_results(const fm_workflow_t *wf, const fm_json_t *golden,
                        uint32_t node, const fm_json_t *work,
                        struct upstream *up)
{
    const fm_workflow_node_t *n = fm_workflow_node(wf, node);
    const fm_json_t *given =
        fm_json_get(fm_json_get(golden, "results"), n->name);
    const fm_json_t *items = fm_json_get(work, "items");
    size_t count = fm_json_len(items);
    fm_json_t **outputs = calloc(count + 1, sizeof(fm_json_t *));
    fm_error_t err = {0};

    CU_ASSERT_FATAL(outputs != NULL);
    if (given) {
        up->results[node] = fm_json_keep(given);
    }
    for (size_t i = 0; !given && i < count; i++) {
        outputs[i] = operate(n->task_type, fm_json_get(work, "params"),
                             fm_json_at(items, i));
    }
    if (!given) {
        FM_ASSERT_OK(fm_workflow_result(wf, node, NULL,
                                        (const fm_json_t *const *)outputs,
                                        count, &up->results[node], &err),
                     &err);
    }
    for (size_t i = 0; i < count; i++) {
        fm_json_drop(outputs[i]);
    }
    free((void *)outputs);
}

static fm_json_t *compile_all(const fm_workflow_t *wf, const fm_json_t *golden)
{
    struct upstream *up = calloc(1, sizeof(*up));
    fm_json_t *all = fm_json_object();

    CU_ASSERT_FATAL(up && all);
    for (uint32_t i = 0; i < fm_workflow_node_count(wf); i++) {
        fm_json_t *work = expand(wf, i, fm_json_get(golden, "files"), up);
        put_results(wf, golden, i, work, up);
        CU_ASSERT(fm_json_set(all, fm_workflow_node(wf, i)->name, work) == 0);
    }
    upstream_fini(up);
    free(up);
    return all;
}

static const char *print_path; /* of --print */

static void print_all(const fm_json_t *all)
{
    FILE *file = fopen(print_path, "w");
    char *text = fm_json_dump(all);

    CU_ASSERT_FATAL(file && text);
    CU_ASSERT(fputs(text, file) >= 0);
    CU_ASSERT(fclose(file) == 0);
    free(text);
}

static void test_golden(void)
{
    fm_json_t *golden = read_json("tasks.json");
    fm_workflow_t *wf = parse_file("tasks.yaml");
    fm_json_t *all = compile_all(wf, golden);
    const fm_json_t *wanted = fm_json_get(golden, "work");

    if (print_path) {
        print_all(all);
    }
    CU_ASSERT(fm_json_len(all) == fm_json_len(wanted));
    for (uint32_t i = 0; i < fm_workflow_node_count(wf); i++) {
        const char *name = fm_workflow_node(wf, i)->name;
        char *a = fm_json_canonical(fm_json_get(all, name));
        char *b = fm_json_canonical(fm_json_get(wanted, name));
        bool same = a && b && strcmp(a, b) == 0;
        if (!same) {
            (void)fprintf(stderr, "%s\nfound  %s\nwanted %s\n", name, a, b);
        }
        CU_ASSERT(same);
        free(a);
        free(b);
    }
    fm_json_drop(all);
    fm_json_drop(golden);
    fm_workflow_destroy(wf);
}

static void test_outside(void)
{
    static const struct {
        const char *key, *path, *revision;
        fm_workflow_file_kind_t kind;
    } wanted[] = {
        {"rows.jsonl", "rows.jsonl", NULL, FM_WORKFLOW_FILE_DATA},
        {"t.h5", "t.h5", NULL, FM_WORKFLOW_FILE_DATA},
        {"f.py", "f.py", NULL, FM_WORKFLOW_FILE_DATA},
        {"hub:org/base@main", "org/base", "main", FM_WORKFLOW_FILE_MODEL_HUB},
        {"model:./base", "./base", NULL, FM_WORKFLOW_FILE_MODEL_PATH},
        {"name:tiny", "tiny", NULL, FM_WORKFLOW_FILE_MODEL_NAME},
        {"adapter:ad", "ad", NULL, FM_WORKFLOW_FILE_ADAPTER_PATH},
    };
    fm_workflow_t *wf = parse_file("tasks.yaml");

    CU_ASSERT_FATAL(fm_workflow_file_count(wf) == FM_COUNT_OF(wanted));
    for (size_t k = 0; k < FM_COUNT_OF(wanted); k++) {
        bool found = false;
        for (size_t i = 0; i < fm_workflow_file_count(wf); i++) {
            const fm_workflow_file_t *file = fm_workflow_file(wf, i);
            if (strcmp(file->key, wanted[k].key) == 0) {
                found = file->kind == wanted[k].kind &&
                        strcmp(file->path, wanted[k].path) == 0 &&
                        !file->revision == !wanted[k].revision;
            }
        }
        CU_ASSERT(found);
    }
    fm_workflow_destroy(wf);
}

/* --- refusals ------------------------------------------------------------- */

#define RL(rest)                                                               \
    HEAD "  taskType: grpo\n  model: {}\n  data: {prompts: [a]}\n" rest
#define DATA(task, rest)                                                       \
    HEAD "  taskType: " task "\n  data: {items: [a]}\n" rest
#define SFT(rest) HEAD "  taskType: lora_sft\n  data: {items: [a]}\n" rest

static const struct {
    const char *text;
    const char *error; /* its beginning, after t.yaml: */
} refusals[] = {
    {RL("  training: {batch_size: 1}\n"),
     "6:13: ppo and grpo need training.steps: a literal number"},
    {RL("  training: {steps: 10001}\n"),
     "6:21: training.steps is 10001; allowed: 1 to 10000"},
    {RL("  training: {steps: 2}\n"), "3:3: this task type needs a reward"},
    {RL("  training: {steps: 2, kl_coef: 1}\n"),
     "6:24: this task type does not take kl_coef in training"},
    {RL("  training: {steps: 2, group_size: 1}\n"),
     "6:36: training.group_size is 1; allowed: 2 to 256"},
    {RL("  training: {steps: 2}\n  reward: {type: exakt_match}\n"),
     "7:18: reward of type exakt_match; allowed: exact_match, numeric, regex, "
     "json_schema, length, python, model; did you mean exact_match?"},
    {RL("  training: {steps: 2}\n  reward: {type: regex}\n"),
     "7:11: a reward of type regex needs pattern"},
    {RL("  training: {steps: 2}\n  reward: {type: regex, pattern: a, "
        "tolerance: 1}\n"),
     "7:37: key tolerance in a reward of type regex; allowed: type, weight, "
     "pattern, "},
    {RL("  training: {steps: 2}\n  reward: {type: length}\n"),
     "7:11: a reward of type length; allowed: target, or"},
    {RL("  training: {steps: 2}\n  reward: []\n"), "7:11: reward; allowed: "},
    {RL("  training: {steps: 2}\n  reward: {type: model, model: {source: "
        "{node: x}}}\n"),
     "7:48: reference to x, which is no node"},
    {RL("  training: {steps: 2}\n  reward: {type: length, target: 3}\n"
        "  reward_model: {identifier: a/b}\n"),
     "8:17: reward_model and reward; allowed: one of them"},
    {RL("  training: {steps: 2, epochs: 1, beta: \"${x.items}\"}\n"
        "  reward: {type: length, target: 3}\n"),
     "6:41: a reference; allowed: a literal number"},
    {DATA("reward", "  reward: {type: model, model: {}}\n"),
     "5:11: a reward node has no model; use taskType score"},
    {DATA("reward", "  reward: {type: length, target: 1, weight: 2}\n"),
     "5:45: weight goes with ppo and grpo"},
    {SFT("  model: {source: {type: random, identifier: x}}\n"),
     "5:19: model.source; allowed: {type: random}"},
    {SFT("  model: {source: {identifier: a/b, trust_remote_code: true}}\n"),
     "5:56: trust_remote_code; allowed: false"},
    {SFT("  model: {source: {identifier: tiny, revision: x}}\n"),
     "5:48: model.source.revision; allowed: literal text, with"},
    {SFT("  model: {adapters: [{node: a}, {node: b}]}\n"),
     "5:21: model.adapters; allowed: a list of at most one"},
    {SFT("  model: {adapters: [{digest: abc}]}\n"),
     "5:31: an adapter; allowed: {type: lora, node: NAME}"},
    {SFT("  model: {}\n  lora: {r: 0}\n"), "6:13: lora.r is 0; allowed: 1 "},
    {SFT("  model: {}\n  lora: {use_rslora: true}\n"),
     "6:22: lora.use_rslora is not supported"},
    {SFT("  model: {}\n  training: {warmup_steps: 1, warmup_ratio: 0.1}\n"),
     "6:45: training.warmup_ratio with warmup_steps; allowed: one"},
    {SFT("  model: {}\n  training: {save_freq: 1, save_steps: 1}\n"),
     "6:25: training.save_freq and save_steps are one key"},
    {HEAD "  taskType: data_retrieval\n  data: {path: t.h5}\n",
     "4:9: data.dataset; allowed: with type hdf5"},
    {HEAD "  taskType: data_retrieval\n  data: {path: t.csv, dataset: x}\n",
     "4:32: data.dataset; allowed: with type hdf5"},
    {DATA("map", ""), "3:3: map; allowed: {code, entrypoint} or {fields}"},
    {DATA("map", "  map: {fields: {a: {form: x}}}\n"),
     "5:21: a field of map; allowed: "},
    {DATA("filter", "  filter: {where: {field: a, op: like, value: 1}}\n"),
     "5:19: filter.where; allowed: {field, op, value}"},
    {DATA("split", "  split: {parts: {a: 0.6, b: 0.6}}\n"),
     "5:30: the size of a part; allowed: fractions"},
    {DATA("shard", "  shard: {index: 1}\n"),
     "5:10: shard needs index and count"},
    {DATA("sample", "  sample: {count: 1, fraction: 0.5}\n"),
     "5:11: sample; allowed: one of count, fraction"},
    {DATA("dedup", "  dedup: {method: fuzzy}\n"),
     "5:19: dedup.method is \"fuzzy\"; allowed: exact|minhash"},
    {DATA("evaluate", "  model: {}\n  metrics: [loss, accuracy]\n"),
     "6:19: metric accuracy wants other samples than loss"},
    {DATA("evaluate", "  model: {}\n  metrics: [win_rate]\n"),
     "6:12: win_rate needs an opponent"},
    {DATA("evaluate", "  model: {}\n  metrics: [pass_at_kk]\n"),
     "6:13: metric pass_at_kk; allowed: loss, perplexity, "
     "preference_accuracy, exact_match, accuracy, pass_at_k, win_rate; did "
     "you mean pass_at_k?"},
    {HEAD "  taskType: data_retrieval\n  data: {path: name:x, type: text}\n"
          "  stages: [{name: a}, {name: b, spec: {taskType: sft, model: "
          "{source: {type: name, identifier: x}}, data: {node: a}}}]\n",
     "5:96: name:x is a file and the name of a model"},
};

static void test_refusals(void)
{
    for (size_t i = 0; i < FM_COUNT_OF(refusals); i++) {
        fm_workflow_t *wf = NULL;
        fm_error_t err = {0};
        fm_status_t rc = fm_workflow_parse(
            refusals[i].text, strlen(refusals[i].text), "t.yaml", &wf, &err);
        bool fits = rc < 0 && !wf && strncmp(err.text, "t.yaml:", 7) == 0 &&
                    strncmp(err.text + 7, refusals[i].error,
                            strlen(refusals[i].error)) == 0;
        if (!fits) {
            (void)fprintf(stderr, "refusal %zu (%s)\n found  %s\n wanted %s\n",
                          i, fm_status_name(rc), err.text, refusals[i].error);
        }
        CU_ASSERT(fits);
        fm_workflow_destroy(wf);
    }
}

/* --- sweeps --------------------------------------------------------------- */

#define SWEEP                                                                  \
    HEAD "  seed: 5\n  stages:\n"                                              \
         "  - name: rl\n"                                                      \
         "    spec:\n"                                                         \
         "      taskType: grpo\n"                                              \
         "      model: {source: {identifier: \"" MODEL_A "\"}}\n"              \
         "      lora: {r: 4}\n"                                                \
         "      data: {path: p.txt}\n"                                         \
         "      reward: {type: length, max_tokens: 4}\n"                       \
         "      training: {steps: 3, batch_size: 2, group_size: 2}\n"          \
         "  sweep: {matrix: {rl.training.beta: [0.1, 0.2, 0.3, 0.4], "         \
         "rl.training.seed: [1, 2]}}\n"

/* Distinct keys of the items of all nodes whose name has @p part. */
struct tally {
    const char *part;
    size_t nodes, items, keys, batches;
    fm_map_t *seen;
};

static void count_keys(const fm_workflow_node_t *node, const fm_json_t *work,
                       struct tally *tally)
{
    const fm_key_parts_t parts = {.task_type = node->task_type,
                                  .params = fm_json_get(work, "params"),
                                  .numerics = "cpu-f32"};
    fm_key_maker_t *maker = NULL;
    fm_error_t err = {0};
    const fm_json_t *items = fm_json_get(work, "items");

    if (!strstr(node->name, tally->part)) {
        return;
    }
    FM_ASSERT_OK(fm_key_maker_create(&parts, &maker, &err), &err);
    fm_digest_t batch = fm_key_maker_batch(maker);
    tally->batches += fm_map_get(tally->seen, &batch) == NULL;
    FM_ASSERT_OK(fm_map_put(tally->seen, &batch, 1, &err), &err);
    for (size_t i = 0; i < fm_json_len(items); i++) {
        fm_digest_t key;
        FM_ASSERT_OK(
            fm_key_maker_action(maker, fm_json_at(items, i), NULL, &key, &err),
            &err);
        tally->keys += fm_map_get(tally->seen, &key) == NULL;
        FM_ASSERT_OK(fm_map_put(tally->seen, &key, 1, &err), &err);
        tally->items++;
    }
    tally->nodes++;
    fm_key_maker_destroy(maker);
}

static void test_sweep(void)
{
    /* 8 trials, 4 of each seed; the policy after 0 iterations is one for all,
     * so what iteration 1 draws depends on the seed alone. */
    struct tally tallies[] = {{.part = "/data"},        {.part = "/rollout.1"},
                              {.part = "/rollout.2"},   {.part = "/reward.1"},
                              {.part = "/reference.1"}, {.part = "/update.1"},
                              {.part = "/rollout."}};
    static const size_t wanted[][4] = {
        {8, 8, 1, 1},  {8, 16, 4, 1}, {8, 16, 16, 1}, {8, 32, 4, 1},
        {8, 32, 8, 1}, {8, 8, 8, 8},  {24, 48, 36, 1}};
    static const char files_text[] = "{\"p.txt\": \"" MODEL_A "\"}";
    fm_workflow_t *wf = parse(SWEEP, strlen(SWEEP));
    struct upstream *up = calloc(1, sizeof(*up));
    fm_error_t err = {0};
    fm_json_t *files = NULL;

    CU_ASSERT_FATAL(up != NULL);
    for (size_t t = 0; t < FM_COUNT_OF(tallies); t++) {
        tallies[t].seen = fm_map_create();
        CU_ASSERT_FATAL(tallies[t].seen != NULL);
    }
    FM_ASSERT_OK(
        fm_json_parse(files_text, strlen(files_text), "f", &files, &err), &err);
    /* data, 3 iterations of rollout, reward, reference, update */
    CU_ASSERT(fm_workflow_node_count(wf) == 8 * (1 + 3 * 4));
    for (uint32_t i = 0; i < fm_workflow_node_count(wf); i++) {
        const fm_workflow_node_t *node = fm_workflow_node(wf, i);
        for (size_t k = 0; k < node->dep_count; k++) {
            CU_ASSERT(node->deps[k] < i);
            CU_ASSERT(k == 0 || node->deps[k - 1] < node->deps[k]);
        }
        CU_ASSERT(node->internal == (node->owner != i));
        fm_json_t *work = expand(wf, i, files, up);
        put_results(wf, NULL, i, work, up);
        for (size_t t = 0; t < FM_COUNT_OF(tallies); t++) {
            count_keys(node, work, &tallies[t]);
        }
        fm_json_drop(work);
    }
    for (size_t t = 0; t < FM_COUNT_OF(tallies); t++) {
        const struct tally *c = &tallies[t];
        const size_t found[] = {c->nodes, c->items, c->keys, c->batches};
        if (memcmp(found, wanted[t], sizeof(found)) != 0) {
            (void)fprintf(stderr,
                          "%s: %zu nodes %zu items %zu keys %zu batch "
                          "keys\n",
                          c->part, c->nodes, c->items, c->keys, c->batches);
        }
        CU_ASSERT(memcmp(found, wanted[t], sizeof(found)) == 0);
        fm_map_destroy(tallies[t].seen);
    }
    fm_json_drop(files);
    upstream_fini(up);
    free(up);
    fm_workflow_destroy(wf);
}

/* A reward and an adapter of the base spec do not mix with a node's own. */
static void test_inherited(void)
{
    static const char text[] =
        HEAD "  taskType: grpo\n"
             "  model: {source: {identifier: a/b}, adapters: [{path: x}]}\n"
             "  data: {prompts: [a]}\n"
             "  reward: {type: regex, pattern: a}\n"
             "  training: {steps: 1}\n"
             "  graph: {nodes: [{name: one, spec: {}}, {name: two, spec: "
             "{reward: {type: length, target: 2}, model: {source: {type: "
             "name, identifier: c}}}}]}\n";
    fm_workflow_t *wf = parse(text, strlen(text));
    const fm_json_t *one = fm_workflow_node(wf, 3)->spec;
    const fm_json_t *two = fm_workflow_node(wf, 7)->spec;

    CU_ASSERT_STRING_EQUAL(fm_workflow_node(wf, 3)->name, "one");
    CU_ASSERT_STRING_EQUAL(fm_workflow_node(wf, 7)->name, "two");
    CU_ASSERT_PTR_NOT_NULL(fm_json_path(one, "model.adapters.0"));
    CU_ASSERT_PTR_NOT_NULL(fm_json_path(one, "reward.pattern"));
    CU_ASSERT_PTR_NULL(fm_json_path(two, "model.adapters"));
    CU_ASSERT_PTR_NULL(fm_json_path(two, "reward.pattern"));
    CU_ASSERT(fm_workflow_file_count(wf) == 3);
    fm_workflow_destroy(wf);
}

/* With a constant schedule the last update of a short run is one of the middle
 * of a long run; with another one it is not. */
static void check_longer(const char *schedule, bool same)
{
    char *text = fm_asprintf(
        HEAD "  taskType: grpo\n  model: {}\n  data: {prompts: [a]}\n"
             "  reward: {type: length, target: 2}\n"
             "  training: {steps: 1, batch_size: 1, group_size: 2, beta: 0, "
             "schedule: %s}\n"
             "  sweep: {matrix: {main.training.steps: [1, 2]}}\n",
        schedule);
    fm_workflow_t *wf = parse(text, strlen(text));
    struct upstream *up = calloc(1, sizeof(*up));
    char *works[2] = {NULL};
    static const char *const names[] = {"main@steps=1",
                                        "main@steps=2/update.1"};

    CU_ASSERT_FATAL(up != NULL);
    for (uint32_t i = 0; i < fm_workflow_node_count(wf); i++) {
        fm_json_t *work = expand(wf, i, NULL, up);
        put_results(wf, NULL, i, work, up);
        for (size_t k = 0; k < FM_COUNT_OF(names); k++) {
            if (strcmp(fm_workflow_node(wf, i)->name, names[k]) == 0) {
                works[k] = fm_json_canonical(work);
            }
        }
        fm_json_drop(work);
    }
    CU_ASSERT_FATAL(works[0] && works[1]);
    CU_ASSERT((strcmp(works[0], works[1]) == 0) == same);
    free(works[0]);
    free(works[1]);
    upstream_fini(up);
    free(up);
    fm_workflow_destroy(wf);
    free(text);
}

static void test_longer(void)
{
    check_longer("constant", true);
    check_longer("cosine", false);
}

/* --- faults --------------------------------------------------------------- */

/* Every allocation fails once: an error, no leak, no crash. */
static void test_out_of_memory_parse(void)
{
    char path[512];
    fm_buf_t text = {0};
    fm_error_t err = {0};
    bool done = false;

    (void)snprintf(path, sizeof(path), "%s/tasks.yaml", FM_GOLDEN_DIR);
    FM_ASSERT_OK(fm_file_read(path, 1 << 20, &text, &err), &err);
    for (unsigned n = 1; !done && n < 20000; n++) {
        char fault[64];
        fm_workflow_t *wf = NULL;
        (void)snprintf(fault, sizeof(fault), "base.alloc:%u", n);
        CU_ASSERT_FATAL(fm_fault_arm(fault));
        fm_status_t rc = fm_workflow_parse((const char *)text.data, text.len,
                                           "t", &wf, &err);
        (void)fm_fault_arm(NULL);
        done = rc == FM_OK;
        CU_ASSERT(done || (rc == FM_ERR_NO_MEMORY && !wf));
        fm_workflow_destroy(wf);
    }
    CU_ASSERT(done);
    fm_buf_fini(&text);
}

static void starve(const fm_workflow_t *wf, uint32_t node,
                   const fm_json_t *files, struct upstream *up)
{
    bool done = false;

    for (unsigned n = 1; !done && n < 5000; n++) {
        char fault[64];
        fm_workflow_work_t work = {0};
        fm_error_t err = {0};
        (void)snprintf(fault, sizeof(fault), "base.alloc:%u", n);
        CU_ASSERT_FATAL(fm_fault_arm(fault));
        fm_status_t rc =
            fm_workflow_expand(wf, node, files, get_result, up, &work, &err);
        (void)fm_fault_arm(NULL);
        done = rc == FM_OK;
        CU_ASSERT(done || (rc < 0 && !work.params && err.text[0]));
        fm_workflow_work_fini(&work);
    }
    CU_ASSERT(done);
}

static void test_out_of_memory_expand(void)
{
    fm_json_t *golden = read_json("tasks.json");
    const fm_json_t *files = fm_json_get(golden, "files");
    fm_workflow_t *wf = parse_file("tasks.yaml");
    struct upstream *up = calloc(1, sizeof(*up));

    CU_ASSERT_FATAL(up != NULL);
    for (uint32_t i = 0; i < fm_workflow_node_count(wf); i++) {
        fm_json_t *work = expand(wf, i, files, up);
        starve(wf, i, files, up);
        put_results(wf, golden, i, work, up);
        fm_json_drop(work);
    }
    upstream_fini(up);
    free(up);
    fm_workflow_destroy(wf);
    fm_json_drop(golden);
}

/* A judge in training does not hold rollouts up; a skipped one skips rewards.
 */
static void test_judge(void)
{
    static const char text[] =
        HEAD "  graph:\n    nodes:\n"
             "    - {name: judge, spec: {taskType: echo, data: {items: [1]}}}\n"
             "    - name: rl\n      dependsOn: judge\n      spec:\n"
             "        taskType: ppo\n        model: {}\n"
             "        data: {prompts: [a]}\n"
             "        reward_model: {identifier: judge, type: node}\n"
             "        training: {steps: 2, kl_coef: 0}\n";
    struct upstream *up = calloc(1, sizeof(*up));
    fm_workflow_t *wf = parse(text, strlen(text));
    fm_error_t err = {0};
    bool met = false;

    CU_ASSERT_FATAL(up != NULL);
    CU_ASSERT(fm_workflow_node_count(wf) == 7); /* no reference */
    CU_ASSERT_STRING_EQUAL(fm_workflow_node(wf, 1)->name, "rl/rollout.1");
    CU_ASSERT(fm_workflow_node(wf, 1)->dep_count == 0);
    FM_ASSERT_OK(fm_workflow_condition(wf, 1, get_result, up, &met, &err),
                 &err);
    CU_ASSERT(met);
    CU_ASSERT(fm_workflow_node(wf, 2)->dep_count == 2);
    CU_ASSERT(fm_workflow_condition(wf, 2, get_result, up, &met, &err) ==
              FM_ERR_NOT_FOUND);
    up->results[0] = fm_workflow_result_skipped();
    FM_ASSERT_OK(fm_workflow_condition(wf, 2, get_result, up, &met, &err),
                 &err);
    CU_ASSERT(!met);
    /* so are the update, and the rollouts of the policy that it would make */
    up->results[3] = fm_workflow_result_skipped();
    CU_ASSERT_STRING_EQUAL(fm_workflow_node(wf, 4)->name, "rl/rollout.2");
    FM_ASSERT_OK(fm_workflow_condition(wf, 4, get_result, up, &met, &err),
                 &err);
    CU_ASSERT(!met);
    upstream_fini(up);
    free(up);
    fm_workflow_destroy(wf);
}

int main(int argc, char **argv)
{
    static const fm_test_case_t cases[] = {
        {"golden work of every task type", test_golden},
        {"what lies outside", test_outside},
        {"refusals", test_refusals},
        {"a judge holds nobody up", test_judge},
        {"what is inherited whole", test_inherited},
        {"a longer run goes on from a shorter one", test_longer},
        {"fault: out of memory", test_out_of_memory_parse},
        {"fault: out of memory in expansion", test_out_of_memory_expand},
        {"a sweep over grpo", test_sweep},
    };

    print_path = argc > 2 && strcmp(argv[1], "--print") == 0 ? argv[2] : NULL;
    return fm_test_main("workflow_tasks", cases, FM_COUNT_OF(cases));
}
