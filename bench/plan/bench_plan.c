/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control plane's pure part: items through the pool a second, bytes a
 * queued item, and decisions a second by queue length and workers.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "plan/pool/pool.h"
#include "plan/sched/sched.h"

#define ITEMS 1000u /* of a workflow */
#define BATCHES 16u /* batch keys */
#define LEASE 512u

static uint64_t lease_number;

static void must(fm_status_t rc, const fm_error_t *err)
{
    if (rc < 0) {
        (void)fprintf(stderr, "bench_plan: %s\n", err->text);
        exit(1);
    }
}

static fm_digest_t digest(uint64_t n)
{
    return fm_sha256(&n, sizeof(n));
}

static double seconds_since(int64_t start_ns)
{
    return (double)(fm_clock_mono_ns() - start_ns) / 1e9;
}

static void fill(fm_pool_t *pool, uint32_t queued)
{
    static fm_digest_t keys[ITEMS];
    const fm_pool_node_spec_t node = {NULL, 0};
    fm_error_t err = {0};

    for (uint32_t f = 0; f < queued / ITEMS; f++) {
        for (uint32_t i = 0; i < ITEMS; i++) {
            keys[i] = digest((uint64_t)f << 32 | i);
        }
        must(fm_pool_apply(pool,
                           &(fm_pool_event_t){.kind = FM_POOL_SUBMIT,
                                              .submit = {.workflow = f,
                                                         .tenant = "t",
                                                         .nodes = &node,
                                                         .node_count = 1}},
                           &err),
             &err);
        must(fm_pool_apply(
                 pool,
                 &(fm_pool_event_t){.kind = FM_POOL_EXPAND,
                                    .expand = {.workflow = f,
                                               .batch_key = digest(f % BATCHES),
                                               .item_work = 1,
                                               .keys = keys,
                                               .count = ITEMS}},
                 &err),
             &err);
    }
}

/* Lease and settle everything; items a second. */
static double drain(fm_pool_t *pool)
{
    fm_error_t err = {0};
    int64_t start_ns = fm_clock_mono_ns();
    uint64_t done = 0;
    fm_pool_batch_t batch;
    fm_pool_ref_t ref;

    while (fm_pool_batch_count(pool) > 0) {
        fm_pool_batch_at(pool, 0, &batch);
        fm_pool_event_t event = {.kind = FM_POOL_LEASE,
                                 .lease = {.lease = ++lease_number,
                                           .batch_key = batch.key,
                                           .max_items = LEASE}};
        must(fm_pool_apply(pool, &event, &err), &err);
        for (uint32_t p = 0; fm_pool_lease_item(pool, lease_number, p, &ref);
             p++, done++) {
            event = (fm_pool_event_t){.kind = FM_POOL_RESULT,
                                      .result = {.lease = lease_number,
                                                 .position = p,
                                                 .key = ref.key,
                                                 .output = ref.key}};
            must(fm_pool_apply(pool, &event, &err), &err);
        }
    }
    return (double)done / seconds_since(start_ns);
}

static double decisions(const fm_pool_t *pool, uint32_t worker_count)
{
    size_t n = fm_pool_batch_count(pool);
    fm_sched_batch_t *batches = fm_calloc(n, sizeof(*batches));
    fm_sched_worker_t *workers = fm_calloc(worker_count, sizeof(*workers));
    fm_sched_choice_t *choices = fm_calloc(n + worker_count, sizeof(*choices));
    fm_error_t err = {0};
    uint32_t rounds = 0;

    if (!batches || !workers || !choices) {
        must(fm_no_memory(&err), &err);
    }
    for (uint32_t i = 0; i < worker_count; i++) {
        workers[i] = (fm_sched_worker_t){.id = i,
                                         .task_types = 1,
                                         .price_per_hour = 1.0 + i % 4,
                                         .free_at_ns = i % 10 ? 5000 : 0};
    }
    int64_t start_ns = fm_clock_mono_ns();
    for (; rounds < 20 || seconds_since(start_ns) < 0.1; rounds++) {
        for (size_t i = 0; i < n; i++) {
            fm_pool_batch_t b;
            fm_pool_batch_at(pool, i, &b);
            batches[i] = (fm_sched_batch_t){.key = b.key,
                                            .ready = b.ready,
                                            .size_max = LEASE,
                                            .item_work = b.work / b.ready,
                                            .input_domain = FM_SCHED_NONE,
                                            .share = b.share};
        }
        size_t count = 0;
        must(fm_sched_decide(&(fm_sched_input_t){.now_ns = 1000,
                                                 .batches = batches,
                                                 .batch_count = n,
                                                 .workers = workers,
                                                 .worker_count = worker_count},
                             choices, n + worker_count, &count, &err),
             &err);
    }
    double rate = rounds / seconds_since(start_ns);
    free(batches);
    free(workers);
    free(choices);
    return rate;
}

int main(void)
{
    static const uint32_t queues[] = {1000, 10000, 100000, 1000000};
    static const uint32_t fleets[] = {10, 100, 1000};

    (void)printf("queued   bytes/item  decisions/s at 10, 100, 1000 workers  "
                 "items/s\n");
    for (size_t q = 0; q < FM_COUNT_OF(queues); q++) {
        fm_pool_t *pool = fm_pool_create(NULL);
        fm_pool_totals_t totals;

        if (!pool) {
            return 1;
        }
        fill(pool, queues[q]);
        fm_pool_totals(pool, &totals);
        (void)printf("%-8u %10.0f", queues[q],
                     (double)totals.bytes / queues[q]);
        for (size_t w = 0; w < FM_COUNT_OF(fleets); w++) {
            (void)printf(" %11.0f", decisions(pool, fleets[w]));
        }
        (void)printf("  %11.0f\n", drain(pool));
        fm_pool_destroy(pool);
    }
    return 0;
}
