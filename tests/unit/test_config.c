/* SPDX-License-Identifier: Apache-2.0 */
/* plan/config: the sample of the documentation, defaults, what classes mean,
 * refusals with places. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/fault.h"
#include "base/file.h"
#include "fmtest.h"
#include "plan/config/config.h"

#define HEAD "apiVersion: flowmesh/v1\nkind: Fabric\n"

static bool equal(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fmax(fabs(a), fabs(b));
}

static fm_config_t *parse(const char *text)
{
    fm_config_t *config = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_config_parse(text, strlen(text), "f.yaml", &config, &err),
                 &err);
    return config;
}

/* The first ```yaml block of the page. */
static char *sample_text(void)
{
    fm_buf_t page = {0};
    fm_error_t err = {0};

    FM_ASSERT_OK(
        fm_file_read(FM_TEST_DOCS_DIR "/spec/fabric.md", 1 << 20, &page, &err),
        &err);
    const char *start = strstr(fm_buf_cstr(&page), "```yaml\n");
    CU_ASSERT_FATAL(start != NULL);
    start += strlen("```yaml\n");
    const char *end = strstr(start, "\n```");
    CU_ASSERT_FATAL(end != NULL);
    char *text = strndup(start, (size_t)(end - start) + 1);
    fm_buf_fini(&page);
    return text;
}

static void test_sample(void)
{
    char *text = sample_text();
    fm_config_t *c = parse(text);
    const fm_config_class_t *spot = &c->classes[0];

    CU_ASSERT(c->place.policy == FM_PLACE_FLOWMESH);
    CU_ASSERT(equal(c->place.sched.lambda[FM_SCHED_INFERENCE], 0.4));
    CU_ASSERT(equal(c->place.sched.lambda[FM_SCHED_TRAINING], 0.8));
    CU_ASSERT(equal(c->place.sched.lambda[FM_SCHED_OTHER], 0.5));
    CU_ASSERT(equal(c->place.sched.age_scale_s, 60));
    CU_ASSERT(equal(c->place.sched.grain_s, 0.05));
    CU_ASSERT(!c->place.sched.no_batching);
    CU_ASSERT(equal(c->scale.age_scale_s, 600));
    CU_ASSERT(equal(c->scale.energy_per_kwh, 0.15));
    CU_ASSERT(c->scale.workers_max == 64 && c->scale.starts_max == 8);
    CU_ASSERT_FATAL(c->class_count == 3 && c->tenant_count == 2);
    CU_ASSERT_STRING_EQUAL(spot->name, "h100-spot");
    CU_ASSERT(equal(spot->price_per_hour, 1.2) && spot->watts < 0);
    CU_ASSERT(equal(spot->startup_s, 180) && spot->max == 16);
    CU_ASSERT(equal(c->classes[1].startup_s, FM_CONFIG_STARTUP_S));
    CU_ASSERT_STRING_EQUAL(c->classes[1].entry->name, "h100-sxm-80g");
    CU_ASSERT(c->classes[2].memory_bytes == (uint64_t)16 << 30);
    CU_ASSERT_STRING_EQUAL(c->tenants[0].name, "vision");
    CU_ASSERT(c->tenants[0].config.devices_max == 8);
    CU_ASSERT(c->tenants[0].config.queued_max == 100000);
    CU_ASSERT(equal(c->tenants[0].config.dollars_max, 500));
    CU_ASSERT_STRING_EQUAL(c->tenants[1].name, "*");
    CU_ASSERT(c->tenants[1].config.weight <= 0);
    free(text);
    fm_config_destroy(c);
}

static void test_defaults(void)
{
    fm_config_t *none = fm_config_default();
    fm_config_t *empty = parse(HEAD);

    CU_ASSERT_FATAL(none != NULL);
    CU_ASSERT(none->place.policy == FM_PLACE_FLOWMESH);
    CU_ASSERT(none->class_count == 0 && none->tenant_count == 0);
    CU_ASSERT(empty->class_count == 0 && empty->place.sched.patience <= 0);
    CU_ASSERT_STRING_EQUAL(none->file, "");
    CU_ASSERT_STRING_EQUAL(empty->file, "f.yaml");
    fm_config_destroy(none);
    fm_config_destroy(empty);
    CU_ASSERT(!fm_config_destroy(NULL));
}

static fm_config_worker_t site(const fm_config_t *config, const char *kind,
                               const char *name, const char *host,
                               const char *worker)
{
    const fm_config_device_t device = {.kind = kind,
                                       .name = name,
                                       .host = host,
                                       .worker = worker,
                                       .memory_bytes = 5};
    fm_config_worker_t out;

    fm_config_worker(config, &device, &out);
    return out;
}

static void test_classes(void)
{
    char *text = sample_text();
    fm_config_t *c = parse(text);
    fm_config_worker_t w =
        site(c, "cuda", "NVIDIA H100 80GB HBM3", "spot-7", "w1");

    /* the first class that matches, its figures over the catalogue's */
    CU_ASSERT_STRING_EQUAL(w.name, "h100-spot");
    CU_ASSERT(w.class_index == 0 && equal(w.price_per_hour, 1.2));
    CU_ASSERT(equal(w.watts, 700) && equal(w.hazard_per_hour, 0.05));
    CU_ASSERT(w.memory_bytes == 5); /* what is there, not what is sold */
    /* another host: the next class, found by the catalogue's names */
    w = site(c, "cuda", "NVIDIA H100 80GB HBM3", "gpu-7", "w1");
    CU_ASSERT_STRING_EQUAL(w.name, "h100");
    CU_ASSERT(equal(w.price_per_hour, 2.5) && equal(w.hazard_per_hour, 0));
    CU_ASSERT(equal(w.spec.load_bytes_per_s, 2e9));
    /* price 0 is said, not absent */
    w = site(c, "cpu", "AMD EPYC 9654", "n1", "w12");
    CU_ASSERT_STRING_EQUAL(w.name, "own-cpu");
    CU_ASSERT(w.price_per_hour <= 0 && equal(w.watts, 5));
    CU_ASSERT(w.memory_bytes == (uint64_t)16 << 30);
    /* of no class: the catalogue's row, or nothing at all */
    w = site(c, "cuda", "NVIDIA L40S", "n1", "x");
    CU_ASSERT_STRING_EQUAL(w.name, "l40s-48g");
    CU_ASSERT(w.class_index == UINT32_MAX && equal(w.price_per_hour, 0.86));
    w = site(c, "cuda", "Imaginary 9", "n1", "x");
    CU_ASSERT_STRING_EQUAL(w.name, "Imaginary 9");
    CU_ASSERT(!w.entry && w.price_per_hour <= 0 && w.spec.flops_per_s <= 0);
    w = site(c, "cuda", "@load", "n1", "x");
    CU_ASSERT_STRING_EQUAL(w.name, "_@load");
    w = site(NULL, "cpu", "whatever its maker calls it", "n1", "x");
    CU_ASSERT_STRING_EQUAL(w.name, "cpu-core");
    w = site(NULL, "cuda", "", "", "");
    CU_ASSERT_STRING_EQUAL(w.name, "cuda");
    free(text);
    fm_config_destroy(c);
}

/* What the worker's own environment says comes first. */
static void test_worker_first(void)
{
    fm_config_t *c = parse(HEAD "classes: [{name: a, match: \"*\", "
                                "price_per_hour: 3, watts: 90}]");
    fm_config_device_t device = {.kind = "cpu",
                                 .name = "x",
                                 .host = "",
                                 .worker = "",
                                 .price_per_hour = 7};
    fm_config_worker_t out;

    fm_config_worker(c, &device, &out);
    CU_ASSERT(equal(out.price_per_hour, 7) && equal(out.watts, 90));
    device = (fm_config_device_t){
        .kind = "cpu", .name = "x", .host = "", .worker = "", .watts = 1};
    fm_config_worker(c, &device, &out);
    CU_ASSERT(equal(out.price_per_hour, 3) && equal(out.watts, 1));
    CU_ASSERT(out.idle_watts <= out.watts);
    fm_config_destroy(c);
}

/* What is printed parses again and says the same. */
static void test_json(void)
{
    char *text = sample_text();
    fm_config_t *c = parse(text);
    fm_json_t *json = fm_config_to_json(c);
    char *written = fm_json_canonical(json);
    fm_config_t *again = parse(written);
    fm_json_t *twice = fm_config_to_json(again);

    CU_ASSERT(json && twice && fm_json_equal(json, twice));
    CU_ASSERT(equal(
        fm_json_get_real(fm_json_path(json, "classes[0]"), "price_per_hour", 0),
        1.2));
    fm_json_drop(json);
    fm_json_drop(twice);
    free(written);
    free(text);
    fm_config_destroy(again);
    fm_config_destroy(c);
}

/* Each: text, and what the error must hold: place, finding, mend. */
static const struct refusal {
    const char *text;
    const char *says;
} refusals[] = {
    {"", "f.yaml:"},
    {"[]", "f.yaml:1:1: the configuration is a map"},
    {"classes: []", "begins with apiVersion"},
    {"apiVersion: flowmesh/v2\nkind: Fabric\n",
     "f.yaml:1:13: apiVersion is \"flowmesh/v2\"; allowed: flowmesh/v1"},
    {HEAD "clases: []\n", "f.yaml:3:1: unknown key clases"},
    {HEAD "clases: []\n", "did you mean classes?"},
    {HEAD "policy: fair\n", "f.yaml:3:9: policy is \"fair\"; allowed: flowm"},
    {HEAD "scheduler: {lambda: {inference: 1.5}}\n",
     "scheduler.lambda.inference is 1.5; allowed: 1e-06 to 1"},
    {HEAD "scheduler: {age_scale: soon}\n",
     "f.yaml:3:24: age_scale is soon; allowed: seconds"},
    {HEAD "scheduler: {grain: -1}\n", "grain is -1"},
    {HEAD "scheduler: {grain: 1e99999}\n", "f.yaml:3"},
    {HEAD "scheduler: {without: [luck]}\n",
     "f.yaml:3:23: scheduler.without has luck; allowed: batching|"},
    {HEAD "scheduler: {without: [[]]}\n", "f.yaml:3:23"},
    {HEAD "classes: [7]\n", "f.yaml:3:11: a class of workers is a map"},
    {HEAD "classes: [{match: \"*\"}]\n", "a class wants a name"},
    {HEAD "classes: [{name: a}]\n", "says not which workers are of it"},
    {HEAD "classes: [{name: '', match: a}]\n", "name has 0 bytes"},
    {HEAD "classes: [{name: '@load', match: a}]\n", "begins with @"},
    {HEAD "classes: [{name: a, match: x}, {name: a, match: y}]\n",
     "f.yaml:3:39: a second class of this name"},
    {HEAD "classes:\n  - {device: h100-smx-80g}\n",
     "f.yaml:4:14: device h100-smx-80g is not in the catalogue"},
    {HEAD "classes:\n  - {device: h100-smx-80g}\n",
     "did you mean h100-sxm-80g?"},
    {HEAD "classes: [{name: a, match: x, watts: 5, idle_watts: 6}]\n",
     "f.yaml:3:53: idle_watts above watts"},
    {HEAD "classes: [{name: a, match: x, min: 2, max: 1}]\n",
     "f.yaml:3:36: min above max"},
    {HEAD "classes: [{name: a, match: x, min: 2}]\n", "min above max"},
    {HEAD "classes: [{name: a, match: x, price_per_hour: -1}]\n",
     "price_per_hour is -1; allowed: 0 to"},
    {HEAD "classes: [{name: a, match: x, price_per_hour: cheap}]\n",
     "price_per_hour is \"cheap\" (string); allowed: a number"},
    {HEAD "classes: [{name: a, match: x, memory: 80Q}]\n",
     "memory is 80Q; allowed: bytes"},
    {HEAD "classes: [{name: a, match: x, startup: 5 minutes}]\n",
     "startup is 5 minutes"},
    {HEAD "tenants: [{weight: 2}]\n", "a tenant wants a name"},
    {HEAD "tenants: [{name: a}, {name: a}]\n",
     "f.yaml:3:29: a second tenant of this name"},
    {HEAD "tenants: [{name: a, weight: 0}]\n", "weight is 0; allowed"},
    {HEAD "tenants: [{name: a, devices_max: 0}]\n", "devices_max is 0"},
    {HEAD "tenants: [{name: a, devices_max: 1.5}]\n", "allowed: an integer"},
    {HEAD "tenants: {a: 1}\n", "f.yaml:3"},
};

static void test_refusals(void)
{
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        fm_config_t *config = NULL;
        fm_error_t err = {0};
        fm_status_t rc =
            fm_config_parse(refusals[i].text, strlen(refusals[i].text),
                            "f.yaml", &config, &err);

        CU_ASSERT(rc < 0 && !config);
        if (rc >= 0 || !strstr(err.text, refusals[i].says)) {
            CU_FAIL("another text");
            (void)printf("\n%s\n  says  %s\n  wants %s\n", refusals[i].text,
                         err.text, refusals[i].says);
            fm_config_destroy(config);
        }
    }
}

static void test_bounds(void)
{
    fm_config_t *config = NULL;
    fm_error_t err = {0};
    fm_buf_t text = {0};

    fm_buf_add_str(&text, HEAD "tenants:\n");
    for (unsigned i = 0; i <= FM_CONFIG_TENANTS_MAX; i++) {
        fm_buf_printf(&text, "- {name: t%u}\n", i);
    }
    CU_ASSERT(fm_config_parse((const char *)text.data, text.len, "f.yaml",
                              &config, &err) == FM_ERR_LIMIT);
    CU_ASSERT(strstr(err.text, "f.yaml:4:1: 4097 tenants") != NULL);
    fm_buf_clear(&text);
    fm_buf_add_str(&text, HEAD "classes:\n");
    for (unsigned i = 0; i <= FM_CONFIG_CLASSES_MAX; i++) {
        fm_buf_printf(&text, "- {name: t%u, match: a}\n", i);
    }
    CU_ASSERT(fm_config_parse((const char *)text.data, text.len, "f.yaml",
                              &config, &err) == FM_ERR_LIMIT);
    while (text.len <= FM_CONFIG_TEXT_BYTES_MAX) {
        fm_buf_add_str(&text, "# much\n");
    }
    CU_ASSERT(fm_config_parse((const char *)text.data, text.len, "f.yaml",
                              &config, &err) == FM_ERR_LIMIT);
    fm_buf_fini(&text);
}

static void test_memory(void)
{
    char *text = sample_text();
    fm_status_t rc = FM_ERR_NO_MEMORY;

    for (unsigned n = 1; rc == FM_ERR_NO_MEMORY && n < 2000; n++) {
        fm_config_t *config = NULL;
        fm_error_t err = {0};
        char fault[32];
        (void)snprintf(fault, sizeof(fault), "base.alloc:%u", n);
        CU_ASSERT_FATAL(fm_fault_arm(fault));
        rc = fm_config_parse(text, strlen(text), "f.yaml", &config, &err);
        (void)fm_fault_arm(NULL);
        CU_ASSERT(rc == FM_OK || (rc == FM_ERR_NO_MEMORY && !config));
        fm_config_destroy(config);
    }
    CU_ASSERT(rc == FM_OK);
    free(text);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"sample", test_sample},   {"defaults", test_defaults},
        {"classes", test_classes}, {"worker first", test_worker_first},
        {"json", test_json},       {"refusals", test_refusals},
        {"bounds", test_bounds},   {"fault: memory", test_memory},
    };

    return fm_test_main("config", cases, sizeof(cases) / sizeof(cases[0]));
}
