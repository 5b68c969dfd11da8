/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control plane's pure part: bytes a queued item and items through the
 * pool a second.  The peer of a long queue is the shortest one: a ratio of 1 is
 * no growth of the cost.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "plan/pool/pool.h"
#include "report/report.h"

#define ITEMS 1000u /* of a workflow at most */
#define BATCHES 16u /* batch keys */
#define LEASE 512u
#define ROUNDS 3

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

/* All batch keys are there however short the queue is; returns its length. */
static uint32_t fill(fm_pool_t *pool, uint32_t queued)
{
    static fm_digest_t keys[ITEMS];
    const fm_pool_node_spec_t node = {NULL, 0};
    uint32_t items = queued / BATCHES < ITEMS ? queued / BATCHES : ITEMS;
    fm_error_t err = {0};

    for (uint32_t f = 0; f < queued / items; f++) {
        for (uint32_t i = 0; i < items; i++) {
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
                                               .count = items}},
                 &err),
             &err);
    }
    return queued / items * items;
}

/* Lease and settle everything; items a second. */
static double drain(fm_pool_t *pool)
{
    fm_error_t err = {0};
    int64_t start_ns = fm_clock_mono_ns();
    uint64_t done = 0;
    fm_pool_batch_t batch;
    fm_pool_ref_t ref;

    for (uint32_t id = 0; id < fm_pool_batch_ids(pool);) {
        if (!fm_pool_batch_get(pool, id, &batch)) {
            id++;
            continue;
        }
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

static const struct queue {
    uint32_t items;
    const char *name;
} queues[] = {{1000, "1e3"}, {10000, "1e4"}, {100000, "1e5"}, {1000000, "1e6"}};

/* What one queue length was measured to do. */
struct figures {
    fm_bench_series_t bytes;
    fm_bench_series_t items;
};

/* Round 0 warms up. */
static void measure(uint32_t queued, struct figures *out)
{
    fm_error_t err = {0};

    for (int round = 0; round <= ROUNDS; round++) {
        fm_pool_t *pool = fm_pool_create(NULL);
        struct figures unused = {0};
        struct figures *to = round > 0 ? out : &unused;
        fm_pool_totals_t totals;

        if (!pool) {
            must(fm_no_memory(&err), &err);
        }
        uint32_t count = fill(pool, queued);
        fm_pool_totals(pool, &totals);
        fm_bench_add(&to->bytes, (double)totals.bytes / count);
        fm_bench_add(&to->items, drain(pool));
        fm_pool_destroy(pool);
    }
}

static void print(const char *name, const char *unit, fm_bench_sense_t sense,
                  const fm_bench_series_t *ours,
                  const fm_bench_series_t *shortest)
{
    const fm_bench_peer_t peer = {"at_1e3", shortest};

    fm_bench_print(name, ours, unit, sense, ours == shortest ? NULL : &peer);
}

int main(void)
{
    static struct figures all[FM_COUNT_OF(queues)];
    char name[80];

    (void)printf("queues of 1e3 to 1e6 items, %u batch keys, leases of up to "
                 "%u items\n",
                 BATCHES, LEASE);
    for (size_t q = 0; q < FM_COUNT_OF(queues); q++) {
        measure(queues[q].items, &all[q]);
        (void)snprintf(name, sizeof(name), "plan.memory_%s", queues[q].name);
        print(name, "B/item", FM_BENCH_LESS, &all[q].bytes, &all[0].bytes);
        (void)snprintf(name, sizeof(name), "plan.drain_%s", queues[q].name);
        print(name, "items/s", FM_BENCH_MORE, &all[q].items, &all[0].items);
    }
    return 0;
}
