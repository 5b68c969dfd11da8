/* SPDX-License-Identifier: Apache-2.0 */
/* role/scenario: arrivals, refusals with their place, rows that users share,
 * traces, reports; the sample of docs/spec/scenario.md and the examples. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "base/fault.h"
#include "base/file.h"
#include "base/mem.h"
#include "fmtest.h"
#include "role/scenario/arrivals.h"
#include "role/scenario/report.h"
#include "role/scenario/trace.h"
#include "scratch.h"

#define HEAD "apiVersion: flowmesh/v1\nkind: Scenario\n"
#define FLEET "cluster:\n  classes:\n    - {device: a100-80g, count: 1}\n"
#define SMALL                                                                  \
    HEAD FLEET                                                                 \
        "workload: {mix: ['02'], arrival: {process: batched, count: 3}, "      \
        "users: 2}\n"

static fm_scenario_t *parse(const char *text, const fm_scenario_options_t *opts)
{
    fm_scenario_t *s = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(
        fm_scenario_parse(text, strlen(text), "t.yaml", opts, &s, &err), &err);
    return s;
}

/* --- arrivals ------------------------------------------------------------- */

static void test_ramp(void)
{
    fm_arrivals_t a = {.process = FM_ARRIVAL_RAMP,
                       .from_per_second = 6.0 / 60,
                       .to_per_second = 0.6 / 60,
                       .seconds = 600,
                       .cycles = 1};
    double times[64];
    fm_rng_t rng;

    fm_rng_init(&rng, 1);
    /* 600 s at 3.3 a minute on average */
    CU_ASSERT_EQUAL_FATAL(fm_arrivals_count(&a), 33);
    fm_arrivals_times(&a, &rng, times);
    CU_ASSERT_EQUAL(times[0], 0);
    double slope = (a.to_per_second - a.from_per_second) / a.seconds;
    for (size_t k = 0; k < 33; k++) {
        double t = times[k];
        double sum = a.from_per_second * t + slope * t * t / 2;
        CU_ASSERT_DOUBLE_EQUAL(sum, (double)k, 1e-6);
        CU_ASSERT(t < 600);
    }
    a.geometric = true; /* 600 · 5.4 / 60 / ln 10 = 23.45 */
    CU_ASSERT_EQUAL_FATAL(fm_arrivals_count(&a), 24);
    fm_arrivals_times(&a, &rng, times);
    double growth = log(0.1) / 600;
    for (size_t k = 0; k < 24; k++) {
        double sum = a.from_per_second * expm1(growth * times[k]) / growth;
        CU_ASSERT_DOUBLE_EQUAL(sum, (double)k, 1e-6);
    }
}

static void test_up_ramp(void)
{
    const fm_arrivals_t a = {.process = FM_ARRIVAL_UP_RAMP,
                             .from_per_second = 0.6 / 60,
                             .to_per_second = 6.0 / 60,
                             .seconds = 600,
                             .cycles = 2};
    double times[66];
    fm_rng_t rng;

    fm_rng_init(&rng, 1);
    CU_ASSERT_EQUAL_FATAL(fm_arrivals_count(&a), 66);
    fm_arrivals_times(&a, &rng, times);
    CU_ASSERT_EQUAL(times[33], 600);
    CU_ASSERT(times[32] < 600 && times[1] - times[0] > times[32] - times[31]);
    for (size_t i = 1; i < 66; i++) {
        CU_ASSERT(times[i] >= times[i - 1]);
    }
}

static void test_rates(void)
{
    fm_arrivals_t a = {
        .process = FM_ARRIVAL_FIXED, .count = 1000, .per_second = 0.5};
    double times[1000];
    fm_rng_t rng;

    fm_rng_init(&rng, 7);
    fm_arrivals_times(&a, &rng, times);
    CU_ASSERT_EQUAL(times[999], 1998);
    a.process = FM_ARRIVAL_POISSON;
    fm_arrivals_times(&a, &rng, times);
    CU_ASSERT(times[0] > 0 && times[999] > 1800 && times[999] < 2200);
    a.process = FM_ARRIVAL_RANDOM;
    fm_arrivals_times(&a, &rng, times);
    CU_ASSERT(times[0] == 0 && times[999] == 0);
}

static void test_kinds(void)
{
    const uint32_t weights[] = {3, 1};
    uint32_t kinds[400];
    size_t second = 0;
    fm_error_t err = {0};
    fm_rng_t rng;

    fm_rng_init(&rng, 3);
    FM_ASSERT_OK(fm_arrivals_kinds(weights, 2, true, &rng, kinds, 400, &err),
                 &err);
    for (size_t deck = 0; deck < 100; deck++) { /* each deck has one of it */
        uint32_t found = 0;
        for (size_t i = 0; i < 4; i++) {
            found += kinds[deck * 4 + i];
        }
        CU_ASSERT_EQUAL(found, 1);
    }
    FM_ASSERT_OK(fm_arrivals_kinds(weights, 2, false, &rng, kinds, 400, &err),
                 &err);
    for (size_t i = 0; i < 400; i++) {
        second += kinds[i];
    }
    CU_ASSERT(second > 60 && second < 140);
}

/* --- refusals ------------------------------------------------------------- */

static void test_refusals(void)
{
    static const struct {
        const char *text, *wanted;
    } rows[] = {
        {"kind: Scenario\n", "t.yaml:1:1: apiVersion is missing"},
        {"apiVersion: flowmesh/v1\nkind: Workflow\n", "t.yaml:2:7: kind is"},
        {SMALL "sede: 3\n", "unknown key sede in the scenario"},
        {SMALL "sede: 3\n", "did you mean seed?"},
        {SMALL "seed: -1\n", "t.yaml:7:7: seed is -1"},
        {SMALL "policy: fastest\n", "t.yaml:7:9: policy is \"fastest\""},
        {SMALL "without: [dedupe]\n", "did you mean dedup?"},
        {SMALL "failures: {preemption: 5w}\n", "preemption is 5w; allowed"},
        {HEAD "workload: {mix: ['02']}\n", "cluster.classes is missing"},
        {HEAD "cluster: {classes: [{device: a100-90g, count: 1}]}\n",
         "t.yaml:3:30: no device of the catalogue is called a100-90g"},
        {HEAD "cluster: {classes: [{name: x, count: 1}]}\n", "a class wants"},
        {HEAD "cluster: {classes: [{device: a100-80g}]}\n",
         "a class without workers"},
        {HEAD "cluster: {classes: [{device: a100-80g, count: 1, memory: 8X}]}"
              "\n",
         "memory is 8X; allowed: bytes"},
        {HEAD FLEET, "workload.mix is missing"},
        {HEAD FLEET "workload: {mix: ['01_4']}\n",
         "no workflow or mix is called 01_4; did you mean 01_1?"},
        {HEAD FLEET "workload: {mix: {'02': 0}}\n", "the weight of 02 is 0"},
        {HEAD FLEET "workload: {mix: '02', users: 2, tenants: [{name: a}]}\n",
         "users together with tenants"},
        {HEAD FLEET "workload: {mix: a}\nworkflows: [{name: a, stages: [{name: "
                    "x, task: inference, model: 2b, output_tokens: 1}]}]\n",
         "no model is called 2b; did you mean 1b?"},
        {HEAD FLEET "workload: {mix: a}\nworkflows: [{name: a, stages: [{name: "
                    "x, task: script, seconds: 1, of: y}]}]\n",
         "no earlier stage of this workflow is called y"},
        {HEAD FLEET "workload: {mix: a}\nworkflows: [{name: a, stages: [{name: "
                    "x, task: script, seconds: 1}, {name: z, task: inference, "
                    "model: 1b, output_tokens: 4, model_of: x}]}]\n",
         "model_of names a stage that trains no model"},
        {SMALL "trace: {path: a, format: azure}\n", "together with a trace"},
        {SMALL "compare: [flowmesh, flowmesh]\n", "two runs called flowmesh"},
        {SMALL "compare: [{policy: adaptive, set: {workload.overlap: 2}}]\n",
         "t.yaml:7:54: workload.overlap is 2"},
        {SMALL "compare: [{set: {seed.x: 2}}]\n", "t.yaml:7:26: seed"},
    };

    for (size_t i = 0; i < FM_COUNT_OF(rows); i++) {
        fm_scenario_t *s = NULL;
        fm_error_t err = {0};
        fm_status_t rc = fm_scenario_parse(rows[i].text, strlen(rows[i].text),
                                           "t.yaml", NULL, &s, &err);
        if (rc >= 0 || !strstr(err.text, rows[i].wanted)) {
            (void)fprintf(stderr, "%zu: wanted \"%s\", got \"%s\"\n", i,
                          rows[i].wanted, err.text);
        }
        CU_ASSERT(rc < 0 && strstr(err.text, rows[i].wanted));
        CU_ASSERT_PTR_NULL(s);
    }
}

static void test_options(void)
{
    static const char *const sets[] = {"workload.overlap=0.1",
                                       "cluster.classes.0.count=7"};
    const fm_scenario_options_t opts = {.sets = sets,
                                        .set_count = 2,
                                        .policies = "adaptive,flowmesh",
                                        .seed = "42"};
    fm_scenario_t *s = parse(SMALL "compare: [round_robin]\n", &opts);

    CU_ASSERT_EQUAL_FATAL(fm_scenario_run_count(s), 2);
    CU_ASSERT_STRING_EQUAL(fm_scenario_run_name(s, 0), "adaptive");
    const fm_sim_input_t *input = fm_scenario_input(s, 0);
    CU_ASSERT_EQUAL(input->seed, 42);
    CU_ASSERT_EQUAL(input->classes[0].count, 7);
    CU_ASSERT_FALSE(input->elastic); /* by_policy */
    CU_ASSERT_TRUE(fm_scenario_input(s, 1)->elastic);
    fm_scenario_destroy(s);

    static const char *const wrong[][2] = {
        {"overlap", "allowed: path.to.key=value"},
        {"workload.overlop=1", "did you mean overlap?"},
        {"workload={", "--set:"}};
    for (size_t i = 0; i < FM_COUNT_OF(wrong); i++) {
        const fm_scenario_options_t bad = {.sets = &wrong[i][0],
                                           .set_count = 1};
        fm_error_t err = {0};
        s = NULL;
        CU_ASSERT(fm_scenario_parse(SMALL, strlen(SMALL), "t.yaml", &bad, &s,
                                    &err) < 0);
        if (!strstr(err.text, wrong[i][1])) {
            (void)fprintf(stderr, "wanted %s, got %s\n", wrong[i][1], err.text);
        }
        CU_ASSERT_PTR_NOT_NULL(strstr(err.text, wrong[i][1]));
    }
}

/* --- rows ----------------------------------------------------------------- */

static void test_rows(void)
{
    fm_scenario_t *s = parse(HEAD FLEET "workload: {mix: ['01_1'], overlap: "
                                        "0.25, users: 3}\n",
                             NULL);
    fm_scenario_source_t *source = NULL;
    fm_sim_workflow_t flow;
    fm_error_t err = {0};
    uint64_t rows[2] = {0};
    bool more = false;

    FM_ASSERT_OK(fm_scenario_source_open(s, 0, &source, &err), &err);
    CU_ASSERT_EQUAL(fm_scenario_source_count(source), 30);
    for (size_t i = 0; i < 2; i++) {
        FM_ASSERT_OK(fm_scenario_source_next(source, &flow, &more, &err), &err);
        CU_ASSERT_FATAL(more && flow.stage_count == 3);
        CU_ASSERT_EQUAL(flow.stages[0].items, 200);
        CU_ASSERT_EQUAL(flow.stages[0].common_items, 50);
        CU_ASSERT_EQUAL(flow.stages[1].dep_count, 1);
        rows[i] = flow.stages[0].first_row;
        CU_ASSERT(rows[i] >= 50); /* none of the common ones */
    }
    CU_ASSERT(rows[1] >= rows[0] + 200);
    for (size_t i = 2; more; i++) {
        FM_ASSERT_OK(fm_scenario_source_next(source, &flow, &more, &err), &err);
        CU_ASSERT(i <= 30);
    }
    fm_scenario_source_close(source);
    fm_scenario_destroy(s);
}

static void simulate(const fm_scenario_t *s, size_t run, fm_sim_result_t *out)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_scenario_simulate(s, run, NULL, out, &err), &err);
    CU_ASSERT(out->complete && out->failed == 0);
}

/* What is shared follows from the overlap, whatever the scheduler does. */
static void test_overlap(void)
{
    static const double overlaps[] = {0, 0.5, 1};

    for (size_t i = 0; i < 3; i++) {
        char set[48];
        const char *sets[] = {set};
        const fm_scenario_options_t opts = {.sets = sets, .set_count = 1};
        fm_sim_result_t r = {0};
        (void)snprintf(set, sizeof(set), "workload.overlap=%g", overlaps[i]);
        fm_scenario_t *s = parse(SMALL, &opts);
        simulate(s, 0, &r);
        /* 3 workflows of 3 stages of 64 items, each after the first shared */
        CU_ASSERT_EQUAL(r.planned, 576);
        CU_ASSERT_EQUAL(r.shared, (uint64_t)(overlaps[i] * 2 * 192));
        fm_sim_result_fini(&r);
        fm_scenario_destroy(s);
    }
}

/* --- traces --------------------------------------------------------------- */

static void trace_refused(const char *text, fm_trace_format_t format,
                          const char *wanted)
{
    const fm_trace_options_t o = {.format = format, .limit = 10, .speed = 1};
    fm_trace_t t = {0};
    fm_error_t err = {0};

    CU_ASSERT(fm_trace_parse(text, strlen(text), "t", &o, &t, &err) < 0);
    if (!strstr(err.text, wanted)) {
        (void)fprintf(stderr, "wanted %s, got %s\n", wanted, err.text);
    }
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, wanted));
}

static void test_traces(void)
{
    static const char azure[] =
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-30 23:59:58.5000000,10,5\r\n2023-11-30 23:59:50.0,7,1\n"
        "2023-12-01 00:00:01,20,6\n";
    static const char mooncake[] =
        "{\"timestamp\": 2000, \"input_length\": 9, \"output_length\": 2, "
        "\"hash_ids\": [1, 2]}\n"
        "{\"timestamp\": 3000, \"input_length\": 9, \"output_length\": 2, "
        "\"hash_ids\": [1, 2]}\n"
        "{\"timestamp\": 3000, \"input_length\": 9, \"output_length\": 2, "
        "\"hash_ids\": [1, 3]}\n";
    fm_trace_options_t o = {.limit = 2, .skip_s = 1, .speed = 2};
    fm_error_t err = {0};
    fm_trace_t t = {0};

    FM_ASSERT_OK(fm_trace_parse(azure, strlen(azure), "t", &o, &t, &err), &err);
    CU_ASSERT_EQUAL_FATAL(t.count, 2); /* in order, the first skipped */
    CU_ASSERT_EQUAL(t.rows[0].tokens_in, 10);
    CU_ASSERT_EQUAL(t.rows[0].at_s, 0);
    CU_ASSERT_DOUBLE_EQUAL(t.rows[1].at_s, 1.25, 1e-5);
    fm_trace_fini(&t);
    o = (fm_trace_options_t){
        .format = FM_TRACE_MOONCAKE, .limit = 10, .speed = 1};
    FM_ASSERT_OK(fm_trace_parse(mooncake, strlen(mooncake), "t", &o, &t, &err),
                 &err);
    CU_ASSERT_EQUAL_FATAL(t.count, 3);
    int same = (t.rows[0].content == t.rows[1].content) +
               (t.rows[0].content == t.rows[2].content) +
               (t.rows[1].content == t.rows[2].content);
    CU_ASSERT_EQUAL(same, 1);
    fm_trace_fini(&t);
    trace_refused("a,b\n1,2\n", FM_TRACE_AZURE, "t:1: no column TIMESTAMP");
    trace_refused("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n",
                  FM_TRACE_AZURE, "t:2: a time");
    trace_refused("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-30\n",
                  FM_TRACE_AZURE, "t:2: fewer fields");
    trace_refused("{\"timestamp\": 1}\n", FM_TRACE_MOONCAKE, "t:1: timestamp");
    trace_refused("{]\n", FM_TRACE_MOONCAKE, "t:1");
    trace_refused("", FM_TRACE_AZURE, "no rows");
}

static void test_gzip(void)
{
    static const char text[] = "gmt_create,exec_time_seconds,groupId,"
                               "checkpoint_model_version_id\n"
                               "2024-11-15 16:57:50,32.0,G0,M0\n"
                               "2024-11-15 16:58:50,16.0,G1,M1\n"
                               "2024-11-15 16:58:51,16.0,G0,M1\n";
    static const char scenario[] =
        HEAD FLEET "trace: {path: t.csv.gz, format: alibaba_lora}\n";
    char *dir = scratch_make();
    char *path = fm_asprintf("%s/t.csv.gz", dir);
    const fm_scenario_options_t opts = {.trace = path};
    fm_sim_result_t r = {0};
    fm_error_t err = {0};
    fm_buf_t bytes = {0};

    gzFile file = gzopen(path, "wb");
    CU_ASSERT_FATAL(file && gzwrite(file, text, sizeof(text) - 1) > 0 &&
                    gzclose(file) == Z_OK);
    fm_scenario_t *s = parse(scenario, &opts);
    simulate(s, 0, &r);
    CU_ASSERT_EQUAL(r.submitted, 3);
    CU_ASSERT_EQUAL(r.loads, 2); /* two base models */
    fm_sim_result_fini(&r);
    /* torn: refused, not taken for a shorter trace */
    FM_ASSERT_OK(fm_file_read(path, 4096, &bytes, &err), &err);
    FM_ASSERT_OK(fm_file_replace(path, bytes.data, bytes.len - 12, &err), &err);
    fm_buf_fini(&bytes);
    CU_ASSERT(fm_scenario_simulate(s, 0, NULL, &r, &err) == FM_ERR_CORRUPT);
    FM_ASSERT_OK(fm_file_remove_tree(path, &err), &err);
    CU_ASSERT(fm_scenario_simulate(s, 0, NULL, &r, &err) == FM_ERR_NOT_FOUND);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "--trace"));
    fm_scenario_destroy(s);
    free(path);
    scratch_remove(dir);
}

/* --- reports and documents ------------------------------------------------ */

static char *report(const char *text)
{
    fm_scenario_t *s = parse(text, NULL);
    fm_sim_result_t results[4] = {0};
    fm_error_t err = {0};
    fm_buf_t table = {0};
    size_t count = fm_scenario_run_count(s);

    CU_ASSERT_FATAL(count <= 4);
    for (size_t i = 0; i < count; i++) {
        FM_ASSERT_OK(fm_scenario_simulate(s, i, NULL, &results[i], &err), &err);
    }
    fm_json_t *json = fm_scenario_json(s, results, false);
    FM_ASSERT_OK(fm_scenario_table(s, results, &table, &err), &err);
    for (size_t i = 0; i < count; i++) {
        CU_ASSERT_PTR_NOT_NULL(
            strstr(fm_buf_cstr(&table), fm_scenario_run_name(s, i)));
        const fm_json_t *run = fm_json_at(fm_json_get(json, "runs"), i);
        CU_ASSERT_EQUAL(fm_json_get_real(run, "cost", 0), results[i].cost);
        CU_ASSERT_DOUBLE_EQUAL(
            fm_json_real_or(fm_json_path(run, "ratios.cost"), 0),
            results[i].cost / results[0].cost, 1e-9);
    }
    for (size_t i = 0; i < count; i++) {
        fm_sim_result_fini(&results[i]);
    }
    char *out = fm_json_dump(json);
    fm_json_drop(json);
    fm_buf_fini(&table);
    fm_scenario_destroy(s);
    CU_ASSERT_PTR_NOT_NULL_FATAL(out);
    return out;
}

static void test_report(void)
{
    static const char text[] = SMALL "compare: [flowmesh, adaptive]\n";
    char *first = report(text);
    char *again = report(text);
    char *other = report(SMALL "seed: 2\ncompare: [flowmesh, adaptive]\n");

    CU_ASSERT_STRING_EQUAL(first, again);
    CU_ASSERT_STRING_NOT_EQUAL(first, other);
    free(first);
    free(again);
    free(other);
}

/* The sample of the specification is what it says: complete and accepted. */
static void test_sample(void)
{
    fm_buf_t page = {0};
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_file_read(FM_SOURCE_DIR "/docs/spec/scenario.md", 1 << 20,
                              &page, &err),
                 &err);
    char *begin = strstr(fm_buf_cstr(&page), "```yaml\n");
    CU_ASSERT_PTR_NOT_NULL_FATAL(begin);
    begin += strlen("```yaml\n");
    char *end = strstr(begin, "\n```");
    CU_ASSERT_PTR_NOT_NULL_FATAL(end);
    *end = '\0';
    char *json = report(begin);
    CU_ASSERT_PTR_NOT_NULL(strstr(json, "\"half the load time\""));
    free(json);
    fm_buf_fini(&page);
}

static void test_examples(void)
{
    static const char *const names[] = {"small", "autoscaling", "failures",
                                        "trace"};

    for (size_t i = 0; i < FM_COUNT_OF(names); i++) {
        char path[512];
        fm_buf_t text = {0};
        fm_error_t err = {0};
        (void)snprintf(path, sizeof(path), "%s/examples/scenarios/%s.yaml",
                       FM_SOURCE_DIR, names[i]);
        FM_ASSERT_OK(fm_file_read(path, 1 << 20, &text, &err), &err);
        fm_scenario_t *s = parse(fm_buf_cstr(&text), NULL);
        CU_ASSERT_STRING_EQUAL(fm_scenario_name(s), names[i]);
        fm_scenario_destroy(s);
        fm_buf_fini(&text);
    }
}

/* Every built-in mix runs under every policy with nothing left over. */
static void test_builtin(void)
{
    static const char *const mixes[] = {"inference_only", "post_train",
                                        "data_train"};

    for (size_t i = 0; i < FM_COUNT_OF(mixes); i++) {
        char mix[48];
        const char *sets[] = {mix, "workload.item_scale=0.05"};
        const fm_scenario_options_t opts = {
            .sets = sets,
            .set_count = 2,
            .policies = "flowmesh,static_worker,fixed_pipeline,round_robin,"
                        "adaptive"};
        (void)snprintf(mix, sizeof(mix), "workload.mix=%s", mixes[i]);
        fm_scenario_t *s = parse(HEAD FLEET "workload: {arrival: {process: "
                                            "batched, count: 16}}\n",
                                 &opts);
        for (size_t run = 0; run < fm_scenario_run_count(s); run++) {
            fm_sim_result_t r = {0};
            simulate(s, run, &r);
            CU_ASSERT(r.submitted == 16 && r.done == 16);
            CU_ASSERT(run == 0 || r.shared == 0);
            fm_sim_result_fini(&r);
        }
        fm_scenario_destroy(s);
    }
}

static void test_no_memory(void)
{
    static const char text[] = SMALL "compare: [flowmesh, adaptive]\n";

    for (unsigned nth = 1;; nth++) {
        char spec[32];
        fm_scenario_t *s = NULL;
        fm_scenario_source_t *source = NULL;
        fm_error_t err = {0};
        (void)snprintf(spec, sizeof(spec), "base.alloc:%u", nth);
        CU_ASSERT_FATAL(fm_fault_arm(spec));
        fm_status_t rc =
            fm_scenario_parse(text, strlen(text), "t.yaml", NULL, &s, &err);
        if (rc == FM_OK) {
            rc = fm_scenario_source_open(s, 0, &source, &err);
        }
        CU_ASSERT(fm_fault_arm(NULL));
        fm_scenario_source_close(source);
        fm_scenario_destroy(s);
        CU_ASSERT(rc == FM_OK || rc == FM_ERR_NO_MEMORY);
        if (rc == FM_OK) {
            CU_ASSERT(nth > 20);
            break;
        }
        CU_ASSERT_FATAL(nth < 100000);
    }
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"ramps: the k-th arrival at integral k", test_ramp},
        {"up-ramps: cycles", test_up_ramp},
        {"fixed, poisson, at once", test_rates},
        {"kinds: dealt and drawn", test_kinds},
        {"refusals name place and mend", test_refusals},
        {"settings from outside", test_options},
        {"rows: common ones and a workflow's own", test_rows},
        {"what is shared is the overlap", test_overlap},
        {"traces", test_traces},
        {"a trace in gzip, torn, missing", test_gzip},
        {"reports are the same for the same seed", test_report},
        {"the sample of the specification", test_sample},
        {"the examples are read", test_examples},
        {"built-in mixes under every policy", test_builtin},
        {"fault: memory runs out anywhere", test_no_memory},
    };

    return fm_test_main("scenario", cases, FM_COUNT_OF(cases));
}
