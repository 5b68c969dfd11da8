/* SPDX-License-Identifier: Apache-2.0 */
/* The catalogue of devices and the rooflines of language models. */
#include <math.h>

#include "fmtest.h"
#include "plan/cost/catalogue.h"
#include "plan/cost/llm.h"

static bool close_to(double a, double b, double relative)
{
    return fabs(a - b) <= relative * fabs(b);
}

static void test_rows(void)
{
    for (size_t i = 0; i < fm_cost_catalogue_count(); i++) {
        const fm_cost_catalogue_entry_t *e = fm_cost_catalogue_at(i);

        CU_ASSERT(fm_cost_catalogue_named(e->name) == e);
        CU_ASSERT(fm_cost_catalogue_find(e->name, 0) == e);
        CU_ASSERT(e->flops_per_s > 1e10 && e->flops_per_s < 1e16);
        CU_ASSERT(e->bytes_per_s > 1e9 && e->bytes_per_s < 1e14);
        CU_ASSERT(e->watts > e->idle_watts && e->idle_watts > 0);
        CU_ASSERT(e->price_per_hour > 0 && e->price_per_hour < 20);
        CU_ASSERT(strcmp(e->kind, "cpu") == 0 || e->memory_bytes > 0);
        /* sources: a document, and whose price of when */
        CU_ASSERT(strstr(e->source, "price:") != NULL);
        for (size_t j = 0; j < i; j++) {
            CU_ASSERT(strcmp(fm_cost_catalogue_at(j)->name, e->name) != 0);
        }
    }
    CU_ASSERT(!fm_cost_catalogue_at(fm_cost_catalogue_count()));
    CU_ASSERT(!fm_cost_catalogue_named("no such device"));
}

/* What drivers report, as seen on such devices. */
static void test_names(void)
{
    static const struct {
        const char *reported;
        double memory;
        const char *name; /* NULL: none */
    } names[] = {
        {"Tesla T4", 0, "t4-16g"},
        {"NVIDIA L4", 0, "l4-24g"},
        {"NVIDIA L40", 0, "l40-48g"},
        {"NVIDIA L40S", 0, "l40s-48g"},
        {"NVIDIA A10", 0, "a10-24g"},
        {"NVIDIA A10G", 0, "a10g-24g"},
        {"NVIDIA A40", 0, "a40-48g"},
        {"NVIDIA RTX A6000", 0, "a6000-48g"},
        {"NVIDIA RTX 6000 Ada Generation", 0, "rtx6000ada-48g"},
        {"NVIDIA GeForce RTX 4090", 0, "rtx4090-24g"},
        {"Tesla V100-SXM2-32GB", 0, "v100-32g"},
        {"Tesla V100-SXM2-16GB", 0, NULL},
        {"NVIDIA A100-SXM4-40GB", 0, "a100-40g"},
        {"NVIDIA A100-PCIE-40GB", 0, "a100-40g"},
        {"NVIDIA A100-SXM4-80GB", 0, "a100-80g"},
        {"NVIDIA A100 80GB PCIe", 0, "a100-80g"},
        {"NVIDIA A100", 42.9e9, "a100-40g"},
        {"NVIDIA A100", 85.9e9, "a100-80g"},
        /* a slice of a device is none */
        {"NVIDIA A100-SXM4-80GB MIG 1g.10gb", 0, NULL},
        {"NVIDIA H100 80GB HBM3", 0, "h100-sxm-80g"},
        {"nvidia h100 80gb hbm3", 0, "h100-sxm-80g"},
        {"NVIDIA H100 PCIe", 0, "h100-pcie-80g"},
        {"NVIDIA H100 NVL", 0, "h100-nvl-94g"},
        {"NVIDIA H200", 0, "h200-141g"},
        {"NVIDIA B200", 0, "b200-180g"},
        {"AMD Instinct MI300X OAM", 0, "mi300x-192g"},
        {"cpu", 0, "cpu-core"},
        {"", 0, NULL},
        {"NVIDIA", 0, NULL},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const fm_cost_catalogue_entry_t *e = fm_cost_catalogue_find(
            names[i].reported, (uint64_t)names[i].memory);
        bool ok = names[i].name ? e && strcmp(e->name, names[i].name) == 0 : !e;
        CU_ASSERT(ok);
        if (!ok) {
            printf("\n%s: %s\n", names[i].reported, e ? e->name : "none");
        }
    }
}

static void test_patterns(void)
{
    CU_ASSERT(fm_cost_name_matches("*", ""));
    CU_ASSERT(fm_cost_name_matches("a|b*", "BCD"));
    CU_ASSERT(!fm_cost_name_matches("a|b", "bc"));
    CU_ASSERT(fm_cost_name_matches("a*b*c", "aXbYbZc"));
    CU_ASSERT(!fm_cost_name_matches("a*b*c", "aXbYbZ"));
    CU_ASSERT(fm_cost_name_matches("?x", "ax") &&
              !fm_cost_name_matches("?x", "x"));
    CU_ASSERT(!fm_cost_name_matches("", "a") && fm_cost_name_matches("", ""));
    CU_ASSERT(fm_cost_name_matches("|a", "a"));
    /* what makes backtracking matchers exponential */
    char name[2001];
    memset(name, 'a', 2000);
    name[2000] = '\0';
    CU_ASSERT(!fm_cost_name_matches("*a*a*a*a*a*a*a*a*a*a*a*a*b", name));
}

static double seconds(const fm_cost_llm_t *llm, const char *device,
                      double items)
{
    const fm_cost_catalogue_entry_t *e = fm_cost_catalogue_named(device);
    fm_cost_task_t task = fm_cost_llm_task(llm);
    fm_cost_device_t spec = fm_cost_catalogue_spec(e);
    fm_cost_t *cost = fm_cost_create();
    fm_cost_estimate_t out;
    uint32_t t;
    uint32_t d;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_cost_task_id(cost, "t", &task, &t, &err), &err);
    FM_ASSERT_OK(fm_cost_device_id(cost, "d", &spec, &d, &err), &err);
    fm_cost_estimate(cost, t, d, items * fm_cost_llm_work(llm), &out);
    fm_cost_destroy(cost);
    return out.seconds;
}

/* Against figures that are widely measured: the roofline must be of the right
 * size, within a factor of 2. */
static void test_known_speeds(void)
{
    /* Llama 3 8B, one stream: 50 to 60 tokens/s on an A10G is impossible
     * (16 GB / 600 GB/s = 37); an H100 gives 140 to 160. */
    fm_cost_llm_t chat = {.kind = FM_COST_LLM_INFERENCE,
                          .parameters = 8e9,
                          .tokens_in = 100,
                          .tokens_out = 500};

    CU_ASSERT(close_to(500 / seconds(&chat, "h100-sxm-80g", 1), 150, 0.3));
    CU_ASSERT(close_to(500 / seconds(&chat, "a10g-24g", 1), 30, 0.3));
    /* 64 streams on an H100: 5000 to 9000 tokens/s */
    double many = 64 * 500 / seconds(&chat, "h100-sxm-80g", 64);
    CU_ASSERT(many > 4000 && many < 10000);
    /* prefill of 8 B: 2·8e9 flops a token, half of the peak */
    fm_cost_llm_t score = {
        .kind = FM_COST_LLM_FORWARD, .parameters = 8e9, .tokens_in = 1000};
    CU_ASSERT(
        close_to(1e5 / seconds(&score, "a100-80g", 100), 156e12 / 16e9, 0.1));
    /* full training of 8 B on an H100: about 10 K tokens/s */
    fm_cost_llm_t train = {
        .kind = FM_COST_LLM_TRAIN, .parameters = 8e9, .tokens_in = 1e6};
    CU_ASSERT(close_to(1e6 / seconds(&train, "h100-sxm-80g", 1), 1e4, 0.3));
    fm_cost_llm_t lora = train;
    lora.kind = FM_COST_LLM_LORA_TRAIN;
    double gain =
        seconds(&train, "a100-80g", 1) / seconds(&lora, "a100-80g", 1);
    CU_ASSERT(gain > 1.3 && gain < 2.2);
}

static void test_memory(void)
{
    fm_cost_llm_t llm = {.kind = FM_COST_LLM_INFERENCE,
                         .parameters = 8e9,
                         .tokens_in = 500,
                         .tokens_out = 500};

    CU_ASSERT(close_to(fm_cost_llm_memory(&llm), 16e9, 1e-12));
    CU_ASSERT(close_to(fm_cost_llm_item_memory(&llm), 131e6, 0.1));
    CU_ASSERT(close_to(fm_cost_llm_kv_bytes(70e9), 328e3, 0.5));
    llm.bytes_per_parameter = 0.5; /* 4-bit weights */
    CU_ASSERT(close_to(fm_cost_llm_memory(&llm), 4e9, 1e-12));
    llm.bytes_per_parameter = 0;
    llm.kind = FM_COST_LLM_TRAIN; /* 16 bytes a parameter and activations */
    CU_ASSERT(fm_cost_llm_memory(&llm) > 128e9);
    CU_ASSERT(fm_cost_llm_memory(&llm) < 170e9);
    CU_ASSERT(fm_cost_llm_item_memory(&llm) <= 0);
    llm.kind = FM_COST_LLM_LORA_TRAIN; /* fits where full training does not */
    CU_ASSERT(fm_cost_llm_memory(&llm) < 45e9);
}

/* Several completions of a prompt are decoded side by side: the weights are
 * read once a step for all of them. */
static void test_completions(void)
{
    fm_cost_llm_t one = {.kind = FM_COST_LLM_INFERENCE,
                         .parameters = 1e9,
                         .tokens_in = 64,
                         .tokens_out = 128};
    fm_cost_llm_t eight = one;

    eight.tokens_out = 8 * 128;
    eight.decode_steps = 128;
    CU_ASSERT(close_to(fm_cost_llm_task(&eight).bytes_per_call,
                       fm_cost_llm_task(&one).bytes_per_call, 1e-12));
    CU_ASSERT(close_to(fm_cost_llm_work(&eight), 64 + 8 * 128, 1e-12));
    CU_ASSERT(seconds(&eight, "a100-80g", 1) <
              3 * seconds(&one, "a100-80g", 1));
    one.tokens_out = 0;
    CU_ASSERT(close_to(fm_cost_llm_task(&one).bytes_per_call, 2e9, 1e-12));
}

static void test_sizes(void)
{
    static const struct {
        double parameters;
        const char *text;
    } sizes[] = {{0, "0"},        {-5, "0"},         {NAN, "0"},
                 {7, "7"},        {261e3, "260K"},   {361.8e6, "360M"},
                 {1.1e9, "1.1B"}, {1.149e9, "1.1B"}, {8.03e9, "8B"},
                 {70.6e9, "71B"}, {996e6, "1B"},     {671e9, "670B"},
                 {1.04e12, "1T"}, {INFINITY, "900T"}};
    char text[FM_COST_SIZE_TEXT_BYTES];

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        CU_ASSERT_STRING_EQUAL(fm_cost_llm_size(sizes[i].parameters, text),
                               sizes[i].text);
    }
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"rows", test_rows},         {"names", test_names},
        {"patterns", test_patterns}, {"known speeds", test_known_speeds},
        {"memory", test_memory},     {"completions", test_completions},
        {"sizes", test_sizes},
    };

    return fm_test_main("cost_devices", cases,
                        sizeof(cases) / sizeof(cases[0]));
}
