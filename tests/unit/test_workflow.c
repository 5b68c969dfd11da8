/* SPDX-License-Identifier: Apache-2.0 */
/* plan/workflow: language constructs, refusals, sweeps, expansion, results. */
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "fmtest.h"
#include "plan/workflow/workflow.h"

#define HEAD "apiVersion: flowmesh/v1\nspec:\n"
#define MODEL_A                                                                \
    "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define FILE_B                                                                 \
    "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static fm_workflow_t *parse(const char *text)
{
    fm_workflow_t *wf = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_workflow_parse(text, strlen(text), "t.yaml", &wf, &err),
                 &err);
    return wf;
}

static fm_workflow_t *parse_file(const char *name)
{
    char path[512];
    fm_buf_t text = {0};
    fm_error_t err = {0};

    (void)snprintf(path, sizeof(path), "%s/%s", FM_GOLDEN_DIR, name);
    FM_ASSERT_OK(fm_file_read(path, 1 << 20, &text, &err), &err);
    fm_workflow_t *wf = parse(fm_buf_cstr(&text));
    fm_buf_fini(&text);
    return wf;
}

static uint32_t find(const fm_workflow_t *wf, const char *name)
{
    uint32_t index = UINT32_MAX;

    if (!fm_workflow_find(wf, name, &index)) {
        (void)fprintf(stderr, "no node %s\n", name);
    }
    CU_ASSERT_FATAL(index != UINT32_MAX);
    return index;
}

/* Results by node, as JSON text; NULL: not done. */
struct upstream {
    fm_json_t *results[64];
};

static const fm_json_t *get_result(void *ctx, uint32_t node)
{
    return node < 64 ? ((struct upstream *)ctx)->results[node] : NULL;
}

static void put_result(struct upstream *up, uint32_t node, const char *text)
{
    fm_error_t err = {0};

    fm_json_drop(up->results[node]);
    up->results[node] = NULL;
    FM_ASSERT_OK(
        fm_json_parse(text, strlen(text), "r", &up->results[node], &err), &err);
}

static void upstream_fini(struct upstream *up)
{
    for (size_t i = 0; i < 64; i++) {
        fm_json_drop(up->results[i]);
    }
}

static void expect_json(const fm_json_t *value, const char *wanted)
{
    fm_json_t *json = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_json_parse(wanted, strlen(wanted), "w", &json, &err), &err);
    char *a = fm_json_canonical(value);
    char *b = fm_json_canonical(json);
    if (!a || !b || strcmp(a, b) != 0) {
        (void)fprintf(stderr, "found  %s\nwanted %s\n", a, b);
    }
    CU_ASSERT(a && b && strcmp(a, b) == 0);
    free(a);
    free(b);
    fm_json_drop(json);
}

static void expect_work(const fm_workflow_t *wf, uint32_t node,
                        struct upstream *up, const char *params,
                        const char *items)
{
    static const char files_text[] =
        "{\"corpus.txt\": \"" FILE_B "\", \"heldout.jsonl\": \"" FILE_B
        "\", \"data/a.txt\": \"" FILE_B "\", \"a.csv\": \"" FILE_B "\"}";
    fm_workflow_work_t work = {0};
    fm_json_t *files = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(
        fm_json_parse(files_text, strlen(files_text), "f", &files, &err), &err);
    FM_ASSERT_OK(
        fm_workflow_expand(wf, node, files, get_result, up, &work, &err), &err);
    if (params) {
        expect_json(work.params, params);
    }
    if (items) {
        expect_json(work.items, items);
    }
    fm_workflow_work_fini(&work);
    fm_json_drop(files);
}

/* --- refusals ------------------------------------------------------------- */

static const struct {
    const char *text;
    fm_status_t status;
    const char *error; /* its beginning */
} refusals[] = {
    {"", FM_ERR_INVALID, "t.yaml:1:1: the text is empty"},
    {"a: [1, 2\nb: 3", FM_ERR_INVALID, "t.yaml:2:2: not YAML"},
    {"a: 1\na: 2\n", FM_ERR_INVALID,
     "t.yaml:2:1: key a is given twice; first at line 1"},
    {"a: 1e999\n", FM_ERR_INVALID, "t.yaml:1:4: number out of range"},
    {"a: 9223372036854775808\n", FM_ERR_INVALID, "t.yaml:1:4: integer out of"},
    {"a: .inf\n", FM_ERR_INVALID, "t.yaml:1:4: not a finite number"},
    {"a: !!int 1\n", FM_ERR_INVALID, "t.yaml:1:4: a tag"},
    {"a: \"\\0\"\n", FM_ERR_INVALID, "t.yaml:1:4: a NUL character"},
    {"a: 1\n---\nb: 1\n", FM_ERR_INVALID, "t.yaml:2:1: a second document"},
    {"a: {<<: 1}\n", FM_ERR_INVALID, "t.yaml:1:5: merge key <<"},
    {"a: &x [*x]\n", FM_ERR_INVALID, "t.yaml:1:8: alias *x before"},
    {"a: \xff\n", FM_ERR_INVALID, "t.yaml:1:4: "},
    {"- 1\n", FM_ERR_INVALID, "t.yaml:1:1: a workflow is a map"},
    {"apiVersion: v2\nspec: {}\n", FM_ERR_INVALID,
     "t.yaml:1:13: apiVersion v2; allowed: flowmesh/v1"},
    {"apiVersion: flowmesh/v1\nspeck: {}\n", FM_ERR_INVALID,
     "t.yaml:2:1: unknown key speck in the document; allowed: apiVersion, "
     "kind, metadata, spec; did you mean spec?"},
    {"apiVersion: flowmesh/v1\nmetadata: {nam: x}\nspec: {}\n", FM_ERR_INVALID,
     "t.yaml:2:12: unknown key nam in metadata"},
    {HEAD "  taskType: ehco\n", FM_ERR_INVALID,
     "t.yaml:3:13: unknown taskType ehco; did you mean echo?; supported: echo, "
     "python, command, data_retrieval, inference, embedding, score, reward, "
     "sft, lora_sft, "},
    {HEAD "  taskType: rag\n", FM_ERR_UNSUPPORTED,
     "t.yaml:3:13: taskType rag is not supported by this version; supported: "},
    {HEAD "  taskType: echo\n", FM_ERR_INVALID,
     "t.yaml:3:3: this task type needs data"},
    {HEAD "  taskType: echo\n  training: {steps: 1}\n", FM_ERR_INVALID,
     "t.yaml:4:3: this task type does not take training"},
    {HEAD "  taskType: echo\n  data: {items: 3}\n", FM_ERR_INVALID,
     "t.yaml:4:17: data.items is 3 (integer); allowed: a list"},
    {HEAD "  taskType: sft\n  model: {}\n  data: {items: [a]}\n"
          "  training: {learning_rate: fast}\n",
     FM_ERR_INVALID,
     "t.yaml:6:29: training.learning_rate is \"fast\" (string); allowed: a "
     "number"},
    {HEAD "  taskType: sft\n  model: {}\n  data: {items: [a]}\n"
          "  training: {batch_size: 0}\n",
     FM_ERR_INVALID, "t.yaml:6:26: training.batch_size is 0; allowed: 1 to"},
    {HEAD "  taskType: sft\n  model: {}\n  data: {items: [a]}\n"
          "  training: {schedule: cosin}\n",
     FM_ERR_INVALID,
     "t.yaml:6:24: training.schedule is \"cosin\"; allowed: "
     "constant|linear|cosine"},
    {HEAD "  taskType: sft\n  model: {adapters: [{url: x}]}\n  data: {items: "
          "[a]}\n",
     FM_ERR_UNSUPPORTED, "t.yaml:4:28: model.adapters.0.url is not supported"},
    {HEAD "  taskType: sft\n  model: {source: {type: hub, identifier: m}}\n"
          "  data: {items: [a]}\n",
     FM_ERR_INVALID, "t.yaml:4:43: model m; allowed: ORG/NAME"},
    {HEAD "  taskType: sft\n  model: {config: {hidden_size: 12}}\n"
          "  data: {items: [a]}\n",
     FM_ERR_INVALID, "t.yaml:4:33: hidden_size is 12; allowed: a multiple"},
    {HEAD "  taskType: sft\n  model: {config: {initializer_range: 5}}\n"
          "  data: {items: [a]}\n",
     FM_ERR_INVALID, "t.yaml:4:39: model.config.initializer_range is 5; "},
    {HEAD "  taskType: sft\n  model: {config: {model_type: gpt2}}\n"
          "  data: {items: [a]}\n",
     FM_ERR_INVALID, "t.yaml:4:32: model.config.model_type is \"gpt2\"; "},
    {HEAD "  taskType: sft\n  model: {config: {model_type: qwen2, "
          "hidden_size: 12}}\n  data: {items: [a]}\n",
     FM_ERR_INVALID, "t.yaml:4:52: hidden_size is 12; allowed: a multiple"},
    {HEAD "  taskType: sft\n  model: \"${a.items}\"\n  data: {items: [a]}\n",
     FM_ERR_INVALID, "t.yaml:4:10: model is "},
    {HEAD "  taskType: echo\n  checkpoint: {load: {}}\n  data: {items: []}\n",
     FM_ERR_UNSUPPORTED, "t.yaml:4:3: checkpoint is not supported"},
    {HEAD "  taskType: data_retrieval\n  data: {path: x.jsonl, split: tran}\n",
     FM_ERR_INVALID, "t.yaml:4:32: split; allowed: all, train or test"},
    {HEAD "  stages: []\n", FM_ERR_INVALID, "t.yaml:3:11: a list of another"},
    {HEAD "  stages:\n  - {name: a.b, spec: {}}\n", FM_ERR_INVALID,
     "t.yaml:4:12: node name \"a.b\""},
    {HEAD "  stages:\n  - {name: a, spek: {}}\n", FM_ERR_INVALID,
     "t.yaml:4:15: unknown key spek in a node; allowed: name, id, dependsOn, "
     "spec; did you mean spec?"},
    {HEAD "  stages: [{name: a}, {name: a}]\n", FM_ERR_INVALID,
     "t.yaml:3:30: node a is there already, at line 3"},
    {HEAD "  graph: {nodes: [{name: draft, dependsOn: draf}]}\n",
     FM_ERR_INVALID,
     "t.yaml:3:44: dependsOn names draf, which is no node of this workflow; "
     "did you mean draft?"},
    {HEAD "  graph: {nodes: [{name: a, dependsOn: b}, {name: b, dependsOn: "
          "a}]}\n",
     FM_ERR_INVALID,
     "t.yaml:3:19: a cycle of dependencies (each needs the next): a -> b -> a"},
    {HEAD "  taskType: echo\n  data: {items: [x]}\n  stages: [{name: a}, "
          "{name: b, spec: {data: {items: [\"${c.items}\"]}}}]\n",
     FM_ERR_INVALID, "t.yaml:5:55: reference to c, which is no node"},
    {HEAD
     "  taskType: echo\n  data: {items: [x]}\n  graph: {nodes: [{name: a}, "
     "{name: b, spec: {data: {items: [\"${a.items}\"]}}}]}\n",
     FM_ERR_INVALID, "t.yaml:5:62: a is not upstream of node b; add it"},
    {HEAD "  taskType: echo\n  data: {items: [x]}\n  stages: [{name: a}, "
          "{name: b, spec: {data: {items: [\"${a.items.0.outptu}\"]}}}]\n",
     FM_ERR_INVALID, "t.yaml:5:55: path items.0.outptu of node a; an item has"},
    {HEAD "  taskType: echo\n  data: {items: [\"${a\"]}\n", FM_ERR_INVALID,
     "t.yaml:4:18: reference ${a; allowed: "},
    {HEAD "  taskType: echo\n  data: {items: [1]}\n  training: {steps: 1}\n"
          "  stages: [{name: a}]\n",
     FM_ERR_INVALID, "t.yaml:5:3: training in spec: the task type of no node"},
    {HEAD "  taskType: echo\n  data: {items: [1]}\n  sweep: {matrix: {mian.x: "
          "[1]}}\n",
     FM_ERR_INVALID,
     "t.yaml:5:20: swept key mian.x: mian is no node of this workflow; did "
     "you mean main?"},
    {HEAD "  taskType: echo\n  data: {items: [1]}\n  sweep: {matrix: "
          "{main.daat.items: [[1]]}}\n",
     FM_ERR_INVALID, "t.yaml:5:38: unknown key daat in spec; allowed"},
    {HEAD "  taskType: echo\n  data: {items: [1]}\n  priority: 101\n",
     FM_ERR_INVALID, "t.yaml:5:13: spec.priority is 101; allowed: -100 to 100"},
    {HEAD "  taskType: echo\n  data: {items: [1]}\n  deadline: soon\n",
     FM_ERR_INVALID, "t.yaml:5:13: deadline soon; allowed: seconds"},
};

static void test_refusals(void)
{
    for (size_t i = 0; i < FM_COUNT_OF(refusals); i++) {
        fm_workflow_t *wf = NULL;
        fm_error_t err = {0};
        fm_status_t rc = fm_workflow_parse(
            refusals[i].text, strlen(refusals[i].text), "t.yaml", &wf, &err);
        bool fits = rc == refusals[i].status && !wf &&
                    strncmp(err.text, refusals[i].error,
                            strlen(refusals[i].error)) == 0;
        if (!fits) {
            (void)fprintf(stderr, "refusal %zu (%s)\n found  %s\n wanted %s\n",
                          i, fm_status_name(rc), err.text, refusals[i].error);
        }
        CU_ASSERT(fits);
        fm_workflow_destroy(wf);
    }
}

static void test_limits(void)
{
    fm_buf_t text = {0};
    fm_workflow_t *wf = NULL;
    fm_error_t err = {0};

    fm_buf_add_str(&text, "a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n");
    for (int i = 1; i < 9; i++) {
        fm_buf_printf(&text, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++) {
            fm_buf_printf(&text, "%s*a%d", k ? "," : "", i - 1);
        }
        fm_buf_add_str(&text, "]\n");
    }
    CU_ASSERT(fm_workflow_parse(fm_buf_cstr(&text), text.len, "t", &wf, &err) ==
              FM_ERR_LIMIT);
    fm_buf_clear(&text);
    for (int i = 0; i < 100; i++) {
        fm_buf_add_str(&text, "[");
    }
    CU_ASSERT(fm_workflow_parse(fm_buf_cstr(&text), text.len, "t", &wf, &err) ==
              FM_ERR_LIMIT);
    CU_ASSERT_STRING_EQUAL(err.text, "t:1:64: nested deeper than 64 levels");
    fm_buf_fini(&text);
    CU_ASSERT_PTR_NULL(wf);
}

/* --- constructs ----------------------------------------------------------- */

static void test_single(void)
{
    struct upstream up = {0};
    fm_workflow_t *wf = parse_file("single.json");

    CU_ASSERT_STRING_EQUAL(fm_workflow_name(wf), "one");
    CU_ASSERT_STRING_EQUAL(fm_workflow_tenant(wf), "default");
    CU_ASSERT(fm_workflow_node_count(wf) == 1);
    CU_ASSERT(fm_workflow_trial_count(wf) == 0);
    expect_work(wf, find(wf, "main"), &up, "{}",
                "[{\"value\":1},{\"value\":2.5},{\"value\":true},{\"value\":"
                "null},{\"value\":\"x\"},{\"value\":{\"a\":[1]}}]");
    fm_workflow_destroy(wf);
}

static void test_scalars(void)
{
    struct upstream up = {0};
    fm_workflow_t *wf =
        parse(HEAD "  taskType: echo\n  data:\n    items: [1e-4, 0x10, 0o17, "
                   "010, yes, ~, .5, '1', !!str 2, \"$${x}\", &a [q], *a]\n");

    expect_work(wf, 0, &up, NULL,
                "[{\"value\":0.0001},{\"value\":16},{\"value\":15},{\"value\":"
                "10},{\"value\":\"yes\"},{\"value\":null},{\"value\":0.5},{"
                "\"value\":\"1\"},{\"value\":\"2\"},{\"value\":\"${x}\"},{"
                "\"value\":[\"q\"]},{\"value\":[\"q\"]}]");
    fm_workflow_destroy(wf);
}

static void test_inherit(void)
{
    fm_workflow_t *wf = parse(
        HEAD "  taskType: sft\n  model: {source: {type: random}, config: "
             "{hidden_size: 16}}\n  training: {steps: 3, batch_size: 2}\n"
             "  data: {items: [x]}\n  stages:\n  - name: a\n    spec: "
             "{training: {batch_size: 4, steps: ~}}\n  - name: b\n    spec: "
             "{taskType: echo, data: {prompts: [p]}}\n");

    expect_json(fm_workflow_node(wf, 0)->spec,
                "{\"taskType\":\"sft\",\"model\":{\"source\":{\"type\":"
                "\"random\"},\"config\":{\"hidden_size\":16}},\"training\":{"
                "\"batch_size\":4},\"data\":{\"items\":[\"x\"]}}");
    expect_json(fm_workflow_node(wf, 1)->spec,
                "{\"taskType\":\"echo\",\"data\":{\"prompts\":[\"p\"]}}");
    fm_workflow_destroy(wf);
}

/* Keys of families go through as they are given, and only those. */
static void test_family(void)
{
    struct upstream up = {0};
    fm_workflow_work_t work = {0};
    fm_json_t *files = fm_json_object();
    fm_error_t err = {0};
    fm_workflow_t *wf =
        parse(HEAD "  taskType: inference\n  model: {config: {model_type: "
                   "qwen3, hidden_size: 36, num_attention_heads: 8, head_dim: "
                   "16, initializer_range: 0.1}}\n  inference: {max_tokens: "
                   "4}\n  data: {prompts: [a]}\n");

    FM_ASSERT_OK(fm_workflow_expand(wf, 0, files, get_result, &up, &work, &err),
                 &err);
    expect_json(fm_json_get(work.params, "model"),
                "{\"config\":{\"vocab_size\":260,\"hidden_size\":36,"
                "\"intermediate_size\":384,\"num_hidden_layers\":4,"
                "\"num_attention_heads\":8,\"num_key_value_heads\":8,"
                "\"max_position_embeddings\":512,\"rope_theta\":10000,"
                "\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":false,"
                "\"initializer_range\":0.1,\"model_type\":\"qwen3\","
                "\"head_dim\":16},\"seed\":0}");
    fm_workflow_work_fini(&work);
    fm_json_drop(files);
    fm_workflow_destroy(wf);
}

static void test_sweep(void)
{
    fm_workflow_t *wf = parse_file("rlhf.yaml");
    uint32_t index = 0;

    CU_ASSERT_STRING_EQUAL(fm_workflow_tenant(wf), "lab");
    CU_ASSERT(fm_workflow_priority(wf) == 5);
    CU_ASSERT(fm_workflow_deadline_s(wf) == 5400);
    CU_ASSERT(fm_workflow_trial_count(wf) == 4);
    CU_ASSERT_STRING_EQUAL(fm_workflow_trial(wf, 1)->name, "beta=0.1,seed=2");
    expect_json(fm_workflow_trial(wf, 2)->values,
                "{\"dpo.training.beta\":0.3,\"dpo.training.seed\":1}");
    /* 3 shared; 4 trials of dpo, its reference, answers, score, its data */
    CU_ASSERT(fm_workflow_node_count(wf) == 3 + 4 * 5);
    const fm_workflow_node_t *sft = fm_workflow_node(wf, find(wf, "sft"));
    CU_ASSERT_PTR_NULL(sft->trial);
    uint32_t dpo = find(wf, "dpo@beta=0.3,seed=2");
    uint32_t reference = find(wf, "dpo@beta=0.3,seed=2/reference");
    const fm_workflow_node_t *node = fm_workflow_node(wf, dpo);
    CU_ASSERT_STRING_EQUAL(node->trial, "beta=0.3,seed=2");
    CU_ASSERT(node->dep_count == 3 && node->deps[2] == reference);
    CU_ASSERT(fm_workflow_node(wf, reference)->internal);
    CU_ASSERT(fm_workflow_node(wf, reference)->owner == dpo);
    CU_ASSERT(fm_workflow_trial_node(wf, 3, "dpo/reference", &index) &&
              index == reference);
    CU_ASSERT(fm_workflow_trial_node(wf, 3, "sft", &index) &&
              index == find(wf, "sft"));
    CU_ASSERT(fm_workflow_file_count(wf) == 2);
    CU_ASSERT_STRING_EQUAL(fm_workflow_file(wf, 0)->path, "corpus.txt");
    CU_ASSERT(fm_workflow_file(wf, 0)->line == 17);
    for (uint32_t i = 0; i < fm_workflow_node_count(wf); i++) {
        const fm_workflow_node_t *n = fm_workflow_node(wf, i);
        for (size_t k = 0; k < n->dep_count; k++) {
            CU_ASSERT(n->deps[k] < i);
        }
    }
    fm_workflow_destroy(wf);
}

static void test_rlhf_work(void)
{
    struct upstream up = {0};
    fm_workflow_t *wf = parse_file("rlhf.yaml");
    uint32_t corpus = find(wf, "corpus");
    uint32_t sft = find(wf, "sft");
    uint32_t prefs = find(wf, "prefs");

    expect_work(wf, corpus, &up,
                "{\"file\":{\"digest\":\"" FILE_B "\"},\"format\":\"text\","
                "\"split\":{\"part\":\"train\",\"unit\":\"records\",\"from\":0,"
                "\"to\":100},\"test_fraction\":0.1,\"shuffle\":false,\"seed\":"
                "7,\"columns\":null,\"chunk\":{\"bytes\":256,\"stride\":128}}",
                "[{}]");
    put_result(&up, corpus, "{\"items\":[{\"output\":\"t\"}]}");
    expect_work(
        wf, sft, &up,
        "{\"model\":{\"config\":{\"vocab_size\":260,\"hidden_size\":64,"
        "\"intermediate_size\":384,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":4,\"num_key_value_heads\":4,"
        "\"max_position_embeddings\":512,\"rope_theta\":10000,"
        "\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":false,"
        "\"initializer_range\":0.02},\"seed\":7},\"training\":{"
        "\"learning_rate\":0.001,\"batch_size\":4,"
        "\"gradient_accumulation_steps\":1,\"num_train_epochs\":null,"
        "\"steps\":20,\"max_seq_length\":128,\"truncate\":false,\"warmup_"
        "steps\":0,\"schedule\":"
        "\"constant\",\"weight_decay\":0,\"max_grad_norm\":1,\"adam_beta1\":"
        "0.9,\"adam_beta2\":0.999,\"adam_epsilon\":1e-8,\"seed\":7,"
        "\"warmup_ratio\":null,\"min_learning_rate\":0}}",
        "[{\"samples\":[{\"text\":\"t\"}]}]");
    put_result(&up, sft,
               "{\"items\":[{\"output\":{\"model\":\"" MODEL_A "\"}}]}");
    put_result(&up, prefs,
               "{\"items\":[{\"output\":{\"prompt\":\"p\",\"chosen\":\"c\","
               "\"rejected\":\"r\"}}]}");
    for (size_t t = 0; t < 4; t++) { /* the same work in every trial */
        uint32_t reference = 0;
        CU_ASSERT(fm_workflow_trial_node(wf, t, "dpo/reference", &reference));
        expect_work(wf, reference, &up,
                    "{\"model\":{\"digest\":\"" MODEL_A
                    "\"},\"max_seq_length\":null,\"truncate\":false,"
                    "\"tokens\":false}",
                    "[{\"prompt\":\"p\",\"completion\":\"c\"},{\"prompt\":"
                    "\"p\",\"completion\":\"r\"}]");
        put_result(&up, reference,
                   "{\"items\":[{\"output\":1},{\"output\":2}]}");
    }
    uint32_t dpo = find(wf, "dpo@beta=0.3,seed=1");
    expect_work(wf, dpo, &up, NULL,
                "[{\"pairs\":[{\"prompt\":\"p\",\"chosen\":\"c\",\"rejected\":"
                "\"r\"}],\"reference\":[{\"chosen\":1,\"rejected\":2}]}]");
    put_result(&up, dpo,
               "{\"items\":[{\"output\":{\"model\":\"" MODEL_A "\"}}]}");
    expect_work(wf, find(wf, "answers@beta=0.3,seed=1"), &up,
                "{\"model\":{\"digest\":\"" MODEL_A
                "\"},\"max_tokens\":32,\"temperature\":0,\"top_p\":1,\"top_k\":"
                "0,\"min_p\":0,\"repetition_penalty\":1,\"stop\":[],\"n\":1,"
                "\"return\":\"text\"}",
                "[{\"prompt\":\"Hello\"},{\"prompt\":\"Say p ${x}\"},{"
                "\"prompt\":\"p\"}]");
    put_result(&up, find(wf, "score@beta=0.3,seed=1/data"),
               "{\"items\":[{\"output\":{\"q\":\"p\",\"chosen\":\"c\","
               "\"rejected\":\"r\"}}]}");
    expect_work(wf, find(wf, "score@beta=0.3,seed=1"), &up,
                "{\"model\":{\"digest\":\"" MODEL_A
                "\"},\"metrics\":[\"preference_accuracy\"],\"max_new_tokens\":"
                "null,\"max_seq_length\":null,\"samples\":null,\"k\":null,"
                "\"temperature\":null,\"top_p\":null,\"top_k\":null,\"seed\":"
                "null,\"reward\":null,\"pass_score\":null,\"opponent\":null}",
                "[{\"samples\":[{\"prompt\":\"p\",\"chosen\":\"c\","
                "\"rejected\":\"r\"}]}]");
    upstream_fini(&up);
    fm_workflow_destroy(wf);
}

static void test_graph_work(void)
{
    struct upstream up = {0};
    fm_workflow_t *wf = parse_file("graph.yaml");
    bool met = false;
    fm_error_t err = {0};

    CU_ASSERT(fm_workflow_node_count(wf) == 8);
    CU_ASSERT_STRING_EQUAL(fm_workflow_trial(wf, 0)->name, "0=uno");
    const char *trial = fm_workflow_trial(wf, 1)->name;
    CU_ASSERT_STRING_EQUAL(trial, "0=due,LEVEL=3");
    uint32_t draft = find(wf, "draft@0=due,LEVEL=3");
    uint32_t judge = find(wf, "judge@0=due,LEVEL=3");
    uint32_t tool = find(wf, "tool@0=due,LEVEL=3");
    uint32_t last = find(wf, "last@0=due,LEVEL=3");
    expect_work(wf, draft, &up, "{}",
                "[{\"value\":\"due\"},{\"value\":\"two\"}]");
    put_result(&up, draft, "{\"items\":[{\"output\":\"due\"},{\"output\":5}]}");
    expect_work(wf, judge, &up, "{}",
                "[{\"value\":\"due\"},{\"value\":{\"deep\":5}}]");
    expect_work(wf, tool, &up,
                "{\"argv\":[\"cat\",\"a.txt\",\"n=5\",\"3\"],\"env\":{"
                "\"LEVEL\":\"3\"},\"outputs\":[\"out/result.json\"],\"seed\":"
                "null}",
                "[{\"inputs\":{\"a.txt\":{\"digest\":\"" FILE_B
                "\"},\"b.json\":{\"value\":[{\"output\":\"due\"},{\"output\":"
                "5}]}}}]");
    put_result(&up, judge, "{\"items\":[{\"output\":\"yes\"}]}");
    FM_ASSERT_OK(fm_workflow_condition(wf, last, get_result, &up, &met, &err),
                 &err);
    CU_ASSERT(met);
    expect_work(wf, last, &up, "{}",
                "[{\"value\":\"Review.\\n\\nDraft: due\\nVerdict: "
                "yes\\n\\nDone.\"},{\"value\":\"Review.\\n\\nDraft: "
                "5\\nVerdict: yes\\n\\nDone.\"}]");
    put_result(&up, judge, "{\"items\":[{\"output\":\"no\"}]}");
    FM_ASSERT_OK(fm_workflow_condition(wf, last, get_result, &up, &met, &err),
                 &err);
    CU_ASSERT(!met);
    put_result(&up, draft, "{\"items\":[],\"skipped\":true}");
    FM_ASSERT_OK(fm_workflow_condition(wf, judge, get_result, &up, &met, &err),
                 &err);
    CU_ASSERT(!met); /* it reads a skipped node */
    upstream_fini(&up);
    fm_workflow_destroy(wf);
}

static void test_result(void)
{
    fm_workflow_t *wf = parse_file("rlhf.yaml");
    fm_error_t err = {0};
    fm_json_t *records = NULL;
    fm_json_t *result = NULL;
    fm_json_t *list = NULL;
    const char text[] = "[{\"prompt\":\"a\"},{\"prompt\":\"\"}]";

    FM_ASSERT_OK(fm_json_parse(text, strlen(text), "r", &records, &err), &err);
    fm_json_t *answers[] = {fm_json_string("x"), fm_json_string("y")};
    const fm_json_t *outputs[] = {answers[0], answers[1]};
    uint32_t node = find(wf, "answers@beta=0.1,seed=1");
    FM_ASSERT_OK(
        fm_workflow_result(wf, node, records, outputs, 2, &result, &err), &err);
    expect_json(result,
                "{\"items\":[{\"output\":\"x\"},{\"output\":\"y\"}],"
                "\"export\":[{\"prompt\":\"a\",\"answer\":\"x\",\"source\":"
                "\"dpo\",\"i\":0}]}");
    result = fm_json_drop(result);
    FM_ASSERT_OK(fm_json_parse("[1,2]", 5, "r", &list, &err), &err);
    const fm_json_t *one[] = {list};
    FM_ASSERT_OK(
        fm_workflow_result(wf, find(wf, "prefs"), NULL, one, 1, &result, &err),
        &err);
    expect_json(result, "{\"items\":[{\"output\":1},{\"output\":2}]}");
    result = fm_json_drop(result);
    CU_ASSERT(fm_workflow_result(wf, find(wf, "prefs"), NULL, outputs, 1,
                                 &result, &err) == FM_ERR_INVALID);
    CU_ASSERT_PTR_NULL(result);
    fm_json_drop(list);
    fm_json_drop(records);
    fm_json_drop(answers[0]);
    fm_json_drop(answers[1]);
    fm_workflow_destroy(wf);
}

/* Every allocation fails once: an error, no leak, no crash. */
static void test_out_of_memory(void)
{
    char path[512];
    fm_buf_t text = {0};
    fm_error_t err = {0};
    bool done = false;

    (void)snprintf(path, sizeof(path), "%s/graph.yaml", FM_GOLDEN_DIR);
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

/* The same for expansion. */
static void test_out_of_memory_expand(void)
{
    struct upstream up = {0};
    fm_workflow_t *wf = parse_file("graph.yaml");
    uint32_t tool = find(wf, "last@0=uno");
    bool done = false;

    put_result(&up, find(wf, "draft@0=uno"), "{\"items\":[{\"output\":5}]}");
    put_result(&up, find(wf, "judge@0=uno"), "{\"items\":[{\"output\":5}]}");
    for (unsigned n = 1; !done && n < 1000; n++) {
        char fault[64];
        fm_workflow_work_t work = {0};
        fm_error_t err = {0};
        (void)snprintf(fault, sizeof(fault), "base.alloc:%u", n);
        CU_ASSERT_FATAL(fm_fault_arm(fault));
        fm_status_t rc =
            fm_workflow_expand(wf, tool, NULL, get_result, &up, &work, &err);
        (void)fm_fault_arm(NULL);
        done = rc == FM_OK;
        CU_ASSERT(done || (rc < 0 && !work.params && err.text[0]));
        CU_ASSERT(n > 1 || !done); /* the fault was hit */
        fm_workflow_work_fini(&work);
    }
    CU_ASSERT(done);
    upstream_fini(&up);
    fm_workflow_destroy(wf);
}

static void test_expand_refusals(void)
{
    struct upstream up = {0};
    fm_workflow_t *wf = parse_file("graph.yaml");
    uint32_t judge = find(wf, "judge@0=uno");
    uint32_t tool = find(wf, "tool@0=uno");
    uint32_t draft = find(wf, "draft@0=uno");
    fm_workflow_work_t work = {0};
    fm_error_t err = {0};

    CU_ASSERT(fm_workflow_expand(wf, judge, NULL, get_result, &up, &work,
                                 &err) == FM_ERR_NOT_FOUND);
    put_result(&up, draft, "{\"items\":[]}");
    CU_ASSERT(fm_workflow_expand(wf, judge, NULL, get_result, &up, &work,
                                 &err) == FM_ERR_NOT_FOUND);
    CU_ASSERT_STRING_EQUAL(err.text,
                           "t.yaml:19:47: node judge@0=uno: the result of "
                           "draft has no items.0.output (it has 0 items)");
    put_result(&up, draft, "{\"items\":[{\"output\":1},{\"output\":2}]}");
    CU_ASSERT(fm_workflow_expand(wf, tool, NULL, get_result, &up, &work,
                                 &err) == FM_ERR_NOT_FOUND);
    CU_ASSERT_STRING_EQUAL(err.text,
                           "t.yaml:26:27: node tool@0=uno: file data/a.txt "
                           "was not stored with the workflow");
    CU_ASSERT_PTR_NULL(work.params);
    upstream_fini(&up);
    fm_workflow_destroy(wf);
}

/* A reference may stand for a number; its value is checked when it is there. */
static void test_late_types(void)
{
    struct upstream up = {0};
    fm_workflow_work_t work = {0};
    fm_error_t err = {0};
    fm_workflow_t *wf = parse(
        HEAD "  stages:\n  - {name: a, spec: {taskType: echo, data: {items: "
             "[1]}}}\n  - name: b\n    spec:\n      taskType: sft\n      "
             "model: {}\n      data: {items: [x]}\n      training: "
             "{batch_size: \"${a.items.0.output}\"}\n");

    put_result(&up, 0, "{\"items\":[{\"output\":4}]}");
    FM_ASSERT_OK(fm_workflow_expand(wf, 1, NULL, get_result, &up, &work, &err),
                 &err);
    CU_ASSERT(fm_json_get_int(fm_json_get(work.params, "training"),
                              "batch_size", 0) == 4);
    fm_workflow_work_fini(&work);
    put_result(&up, 0, "{\"items\":[{\"output\":\"four\"}]}");
    CU_ASSERT(fm_workflow_expand(wf, 1, NULL, get_result, &up, &work, &err) ==
              FM_ERR_INVALID);
    CU_ASSERT_STRING_EQUAL(err.text,
                           "t.yaml:10:30: training.batch_size is \"four\" "
                           "(string); allowed: an integer");
    upstream_fini(&up);
    fm_workflow_destroy(wf);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"refusals", test_refusals},
        {"limits", test_limits},
        {"single task", test_single},
        {"scalars", test_scalars},
        {"inheritance", test_inherit},
        {"keys of model families", test_family},
        {"sweep", test_sweep},
        {"work of an RLHF workflow", test_rlhf_work},
        {"work of a graph", test_graph_work},
        {"results", test_result},
        {"fault: out of memory", test_out_of_memory},
        {"fault: out of memory in expansion", test_out_of_memory_expand},
        {"refusals in expansion", test_expand_refusals},
        {"types of references", test_late_types},
    };
    return fm_test_main("workflow", cases, FM_COUNT_OF(cases));
}
