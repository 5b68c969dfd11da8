/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The catalogue.  Data sheets state peaks; what runs reach is less, and the
 * factors are the same for every row so that they cancel in comparisons:
 * half of the dense peak (published runs of large models report 40 to 60 %)
 * and 80 % of the memory bandwidth (copies on GPUs measure 80 to 93 %).
 *
 * Prices are list prices, on demand, of one device with its share of the host,
 * and age: a site states its own.  One marketplace that rents most of these
 * devices is taken throughout, others only where it does not, because prices of
 * different houses differ more than those of different devices.  Idle watts
 * are what drivers typically report; no vendor states them.
 */
#include "plan/cost/catalogue.h"

#include <string.h>

#include "base/mem.h"

#define GB(n) ((uint64_t)(n)*1000000000u) /* as sold; about what is left */
#define TFLOPS(peak) ((peak)*1e12 * 0.5)
#define GB_PER_S(peak) ((peak)*1e9 * 0.8)

#define RUNPOD "; price: RunPod secure cloud, list price, on demand, early 2025"
#define LAMBDA "; price: Lambda, list price, on demand, 2024"
#define AWS "; price: AWS EC2 us-east-1, list price, on demand, 2024"

static const fm_cost_catalogue_entry_t rows[] = {
    {"t4-16g", "Tesla T4|NVIDIA T4", "gpu", GB(16), TFLOPS(65), GB_PER_S(320),
     70, 10, 0.526, "NVIDIA T4 data sheet (fp16)" AWS " (g4dn.xlarge)"},
    {"l4-24g", "NVIDIA L4", "gpu", GB(24), TFLOPS(121), GB_PER_S(300), 72, 15,
     0.43, "NVIDIA L4 data sheet (bf16, without sparsity)" RUNPOD},
    {"a10-24g", "NVIDIA A10", "gpu", GB(24), TFLOPS(125), GB_PER_S(600), 150,
     20, 0.75, "NVIDIA A10 data sheet (bf16)" LAMBDA},
    {"a10g-24g", "NVIDIA A10G", "gpu", GB(24), TFLOPS(70), GB_PER_S(600), 300,
     20, 1.006,
     "AWS EC2 G5 product page (70 Tflops, 600 GB/s); watts of the board, "
     "unsure" AWS " (g5.xlarge)"},
    {"rtx3090-24g", "NVIDIA GeForce RTX 3090", "gpu", GB(24), TFLOPS(71),
     GB_PER_S(936), 350, 25, 0.43,
     "NVIDIA GA102 whitepaper (fp16 with fp32 accumulation)" RUNPOD},
    {"rtx4090-24g", "NVIDIA GeForce RTX 4090", "gpu", GB(24), TFLOPS(165),
     GB_PER_S(1008), 450, 20, 0.69,
     "NVIDIA Ada whitepaper (fp16 with fp32 accumulation)" RUNPOD},
    {"rtx6000ada-48g", "NVIDIA RTX 6000 Ada Generation", "gpu", GB(48),
     TFLOPS(364), GB_PER_S(960), 300, 22, 0.77,
     "NVIDIA RTX 6000 Ada data sheet (bf16, without sparsity)" RUNPOD},
    {"l40-48g", "NVIDIA L40", "gpu", GB(48), TFLOPS(181), GB_PER_S(864), 300,
     35, 0.99, "NVIDIA L40 data sheet (bf16, without sparsity)" RUNPOD},
    {"l40s-48g", "NVIDIA L40S", "gpu", GB(48), TFLOPS(362), GB_PER_S(864), 350,
     35, 0.86, "NVIDIA L40S data sheet (bf16, without sparsity)" RUNPOD},
    {"a40-48g", "NVIDIA A40", "gpu", GB(48), TFLOPS(150), GB_PER_S(696), 300,
     30, 0.39, "NVIDIA A40 data sheet (bf16, without sparsity)" RUNPOD},
    {"a6000-48g", "NVIDIA RTX A6000", "gpu", GB(48), TFLOPS(155), GB_PER_S(768),
     300, 22, 0.76,
     "NVIDIA RTX A6000 data sheet (bf16, without sparsity)" RUNPOD},
    {"v100-32g", "Tesla V100-*-32GB*|NVIDIA V100*32GB*", "gpu", GB(32),
     TFLOPS(125), GB_PER_S(900), 300, 40, 0.55,
     "NVIDIA V100 data sheet (SXM2, fp16)" LAMBDA
     " (of the 16 GB model, an eighth of a node of 8; unsure for 32 GB)"},
    {"a100-40g", "NVIDIA A100-*-40GB|A100-*-40GB|NVIDIA A100|NVIDIA A100-PCIE",
     "gpu", GB(40), TFLOPS(312), GB_PER_S(1555), 400, 50, 1.29,
     "NVIDIA A100 data sheet (SXM4, bf16)" LAMBDA},
    {"a100-80g",
     "NVIDIA A100-*-80GB|NVIDIA A100 80GB PCIe|A100-*-80GB|NVIDIA A100", "gpu",
     GB(80), TFLOPS(312), GB_PER_S(2039), 400, 55, 1.89,
     "NVIDIA A100 data sheet (SXM4 80 GB, bf16)" RUNPOD},
    {"h100-sxm-80g", "NVIDIA H100 80GB HBM3|NVIDIA H100 SXM*", "gpu", GB(80),
     TFLOPS(989), GB_PER_S(3350), 700, 70, 2.99,
     "NVIDIA H100 data sheet (SXM5, bf16, without sparsity)" RUNPOD},
    {"h100-pcie-80g", "NVIDIA H100 PCIe", "gpu", GB(80), TFLOPS(756),
     GB_PER_S(2000), 350, 50, 2.39,
     "NVIDIA H100 data sheet (PCIe, bf16, without sparsity)" RUNPOD},
    {"h100-nvl-94g", "NVIDIA H100 NVL", "gpu", GB(94), TFLOPS(835),
     GB_PER_S(3900), 400, 60, 2.79,
     "NVIDIA H100 NVL data sheet (bf16, without sparsity)" RUNPOD},
    {"gh200-96g", "NVIDIA GH200 480GB|NVIDIA GH200*", "gpu", GB(96),
     TFLOPS(989), GB_PER_S(4000), 900, 100, 1.49,
     "NVIDIA GH200 data sheet (96 GB HBM3, bf16; watts of the module may be "
     "set from 450 to 1000, unsure); price: Lambda, list price, on demand, "
     "2025"},
    {"h200-141g", "NVIDIA H200", "gpu", GB(141), TFLOPS(989), GB_PER_S(4800),
     700, 75, 3.99,
     "NVIDIA H200 data sheet (SXM, bf16, without sparsity)" RUNPOD},
    {"h200-nvl-141g", "NVIDIA H200 NVL", "gpu", GB(141), TFLOPS(836),
     GB_PER_S(4800), 600, 65, 3.99,
     "NVIDIA H200 data sheet (NVL, bf16, without sparsity)" RUNPOD
     " (of the SXM model, unsure)"},
    {"b200-180g", "NVIDIA B200", "gpu", GB(180), TFLOPS(2250), GB_PER_S(7700),
     1000, 140, 5.98,
     "NVIDIA HGX B200 data sheet (bf16, without sparsity; an eighth of a node "
     "of 8); price: RunPod secure cloud, list price, on demand, mid 2025"},
    {"mi250x-gcd-64g", "AMD Instinct MI250X*|AMD INSTINCT MI250*|gfx90a", "gpu",
     GB(64), TFLOPS(191.5), GB_PER_S(1638), 280, 45, 1.20,
     "AMD Instinct MI250X data sheet: half a module, which is what drivers "
     "show as a device; price: no public list price known, taken between A100 "
     "40 and 80 GB, unsure"},
    {"mi300x-192g", "AMD Instinct MI300X*|gfx942", "gpu", GB(192), TFLOPS(1307),
     GB_PER_S(5300), 750, 140, 2.49,
     "AMD Instinct MI300X data sheet (bf16, without sparsity)" RUNPOD},
    {"cpu-core", "cpu|CPU*|*Xeon*|*EPYC*", "cpu", 0, 3e10, 8e9, 5, 1.5, 0.05,
     "one core: rates as FlowMesh's CPU engine reaches them in f32 on servers "
     "of 2020 to 2023; watts: 360 W of an AMD EPYC 9654 over 96 cores and its "
     "share of memory; price: AWS EC2 us-east-1, list price, on demand, 2024 "
     "(c7a, a vCPU is a core)"},
};

size_t fm_cost_catalogue_count(void)
{
    return FM_COUNT_OF(rows);
}

const fm_cost_catalogue_entry_t *fm_cost_catalogue_at(size_t index)
{
    return index < FM_COUNT_OF(rows) ? &rows[index] : NULL;
}

const fm_cost_catalogue_entry_t *fm_cost_catalogue_named(const char *name)
{
    for (size_t i = 0; i < FM_COUNT_OF(rows); i++) {
        if (strcmp(rows[i].name, name) == 0) {
            return &rows[i];
        }
    }
    return NULL;
}

static uint64_t distance(uint64_t a, uint64_t b)
{
    return a > b ? a - b : b - a;
}

const fm_cost_catalogue_entry_t *fm_cost_catalogue_find(const char *device_name,
                                                        uint64_t memory_bytes)
{
    const fm_cost_catalogue_entry_t *best =
        fm_cost_catalogue_named(device_name);

    for (size_t i = 0; !best && i < FM_COUNT_OF(rows); i++) {
        if (!fm_cost_name_matches(rows[i].match, device_name)) {
            continue;
        }
        best = &rows[i];
        /* a name that several rows carry: the one nearest in memory */
        for (size_t j = i + 1; memory_bytes > 0 && j < FM_COUNT_OF(rows); j++) {
            if (fm_cost_name_matches(rows[j].match, device_name) &&
                distance(rows[j].memory_bytes, memory_bytes) <
                    distance(best->memory_bytes, memory_bytes)) {
                best = &rows[j];
            }
        }
    }
    return best;
}

fm_cost_device_t fm_cost_catalogue_spec(const fm_cost_catalogue_entry_t *entry)
{
    return (fm_cost_device_t){.flops_per_s = entry->flops_per_s,
                              .bytes_per_s = entry->bytes_per_s};
}

/* --- names ---------------------------------------------------------------- */

static char lower(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Greedy with one point of return: the last '*' is the only one that may have
 * to take more, so nothing is exponential. */
static bool matches_one(const char *pattern, size_t len, const char *name)
{
    size_t p = 0;
    size_t star = len; /* none yet */
    const char *retry = NULL;

    while (*name) {
        if (p < len && pattern[p] == '*') {
            star = p++;
            retry = name;
        } else if (p < len &&
                   (pattern[p] == '?' || lower(pattern[p]) == lower(*name))) {
            p++;
            name++;
        } else if (star < len) {
            p = star + 1;
            name = ++retry;
        } else {
            return false;
        }
    }
    while (p < len && pattern[p] == '*') {
        p++;
    }
    return p == len;
}

bool fm_cost_name_matches(const char *patterns, const char *name)
{
    for (;;) {
        size_t len = strcspn(patterns, "|");
        if (matches_one(patterns, len, name)) {
            return true;
        }
        if (patterns[len] == '\0') {
            return false;
        }
        patterns += len + 1;
    }
}
