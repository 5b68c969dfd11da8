/* SPDX-License-Identifier: Apache-2.0 */
/*
 * De-duplication at scale: a million items of 100 users, 40 % of them wanted
 * by somebody else before.  What a fresh item, a follower, a memo hit and a
 * look-up take, in random order, so that all of it misses the caches; the
 * peer of each is a bare probe of a hash map with the same keys in the same
 * order (base/map), of the same round.  Then bytes an item and items a second
 * through leases and results that are charged to the 100.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "base/rng.h"
#include "plan/pool/pool.h"
#include "report/report.h"

#define USERS 100u
#define ITEMS 1000000u
#define SHARED 400000u /* of them */
#define FRESH (ITEMS - SHARED)
#define NODE 1000u /* items of a node */
#define BATCHES                                                                \
    4u /* batch keys, so that the keys of one do not fit a cache               \
        */
#define LEASE 512u
#define ROUNDS 3

static fm_digest_t fresh[FRESH];   /* each once, batch after batch */
static fm_digest_t shared[SHARED]; /* random ones of these, likewise */

struct figures {
    fm_bench_series_t fresh, follower, wanted, memo_get, memo_hit, probe;
    fm_bench_series_t bytes, drain;
};

static void must(fm_status_t rc, const fm_error_t *err)
{
    if (rc < 0) {
        (void)fprintf(stderr, "bench_dedup: %s\n", err->text);
        exit(1);
    }
}

static fm_digest_t digest(uint64_t n)
{
    return fm_sha256(&n, sizeof(n));
}

/* The keys of one batch stand together, because a node has one batch key. */
static void keys_make(void)
{
    const uint32_t each = FRESH / BATCHES;
    const uint32_t again = SHARED / BATCHES;
    fm_rng_t rng;

    fm_rng_init(&rng, 1);
    for (uint32_t i = 0; i < FRESH; i++) {
        fresh[i] = digest(i);
    }
    for (uint32_t i = 0; i < SHARED; i++) {
        shared[i] =
            fresh[i / again * each + (uint32_t)fm_rng_below(&rng, each)];
    }
}

static void apply(fm_pool_t *pool, const fm_pool_event_t *event)
{
    fm_error_t err = {0};

    must(fm_pool_apply(pool, event, &err), &err);
}

static void flow_add(fm_pool_t *pool, const fm_digest_t *keys, size_t count,
                     uint32_t batch)
{
    const fm_pool_node_spec_t node = {NULL, 0};
    uint32_t flow = fm_pool_workflow_count(pool);
    char tenant[16];

    (void)snprintf(tenant, sizeof(tenant), "user%u", flow * 37 % USERS);
    apply(pool, &(fm_pool_event_t){.kind = FM_POOL_SUBMIT,
                                   .submit = {.workflow = flow,
                                              .tenant = tenant,
                                              .nodes = &node,
                                              .node_count = 1}});
    apply(pool, &(fm_pool_event_t){.kind = FM_POOL_EXPAND,
                                   .expand = {.workflow = flow,
                                              .batch_key = digest(~batch),
                                              .item_work = 1,
                                              .keys = keys,
                                              .count = count}});
}

/* Workflows of NODE items over all of @p keys; nanoseconds an item. */
static double flows_add(fm_pool_t *pool, const fm_digest_t *keys,
                        uint32_t count)
{
    uint32_t each = count / BATCHES;
    int64_t start_ns = fm_clock_mono_ns();

    for (uint32_t b = 0; b < BATCHES; b++) {
        for (uint32_t at = 0; at < each; at += NODE) {
            flow_add(pool, keys + b * each + at,
                     each - at < NODE ? each - at : NODE, b);
        }
    }
    return (double)(fm_clock_mono_ns() - start_ns) / count;
}

/* Lease and settle everything; items a second, shared ones with them. */
static double drain(fm_pool_t *pool)
{
    static uint64_t lease;
    int64_t start_ns = fm_clock_mono_ns();
    fm_pool_batch_t batch;
    fm_pool_ref_t ref;

    for (uint32_t id = 0; id < BATCHES; id++) {
        while (fm_pool_batch_get(pool, id, &batch)) {
            apply(pool, &(fm_pool_event_t){.kind = FM_POOL_LEASE,
                                           .lease = {.lease = ++lease,
                                                     .batch_key = batch.key,
                                                     .max_items = LEASE,
                                                     .seconds = 10,
                                                     .dollars = 0.01}});
            for (uint32_t p = 0; fm_pool_lease_item(pool, lease, p, &ref);
                 p++) {
                apply(pool, &(fm_pool_event_t){.kind = FM_POOL_RESULT,
                                               .result = {.lease = lease,
                                                          .position = p,
                                                          .key = ref.key,
                                                          .output = ref.key,
                                                          .seconds = 0.02,
                                                          .dollars = 2e-5}});
            }
        }
    }
    return ITEMS / ((double)(fm_clock_mono_ns() - start_ns) / 1e9);
}

static double probe(const fm_map_t *map)
{
    uint64_t found = 0;
    int64_t start_ns = fm_clock_mono_ns();

    for (uint32_t i = 0; i < SHARED; i++) {
        found += fm_map_get(map, &shared[i]) != NULL;
    }
    double each = (double)(fm_clock_mono_ns() - start_ns) / SHARED;
    must(found == SHARED ? FM_OK : FM_ERR_INTERNAL, &(fm_error_t){0});
    return each;
}

static double wanted(const fm_pool_t *pool)
{
    uint64_t found = 0;
    int64_t start_ns = fm_clock_mono_ns();

    for (uint32_t i = 0; i < SHARED; i++) {
        found += fm_pool_wanted(pool, &shared[i]);
    }
    double each = (double)(fm_clock_mono_ns() - start_ns) / SHARED;
    must(found == SHARED ? FM_OK : FM_ERR_INTERNAL, &(fm_error_t){0});
    return each;
}

static double memo_get(const fm_pool_t *pool)
{
    uint64_t found = 0;
    int64_t start_ns = fm_clock_mono_ns();

    for (uint32_t i = 0; i < SHARED; i++) {
        fm_digest_t output;
        found += fm_pool_memo_get(pool, &shared[i], &output, NULL);
    }
    double each = (double)(fm_clock_mono_ns() - start_ns) / SHARED;
    must(found == SHARED ? FM_OK : FM_ERR_INTERNAL, &(fm_error_t){0});
    return each;
}

/* In random order: neighbours in a batch are neighbours in memory. */
static void shuffle(void)
{
    fm_rng_t rng;

    fm_rng_init(&rng, 2);
    for (uint32_t i = SHARED - 1; i > 0; i--) {
        uint32_t j = (uint32_t)fm_rng_below(&rng, i + 1);
        fm_digest_t swap = shared[i];
        shared[i] = shared[j];
        shared[j] = swap;
    }
}

static void round_run(struct figures *out)
{
    fm_pool_t *pool = fm_pool_create(NULL);
    fm_map_t *map = fm_map_create();
    fm_error_t err = {0};
    fm_pool_totals_t totals;

    if (!pool || !map) {
        must(fm_no_memory(&err), &err);
    }
    keys_make();
    fm_bench_add(&out->fresh, flows_add(pool, fresh, FRESH));
    fm_bench_add(&out->follower, flows_add(pool, shared, SHARED));
    fm_pool_totals(pool, &totals);
    fm_bench_add(&out->bytes, (double)totals.bytes / ITEMS);
    for (uint32_t i = 0; i < FRESH; i++) {
        must(fm_map_put(map, &fresh[i], i, &err), &err);
    }
    shuffle();
    fm_bench_add(&out->wanted, wanted(pool));
    fm_bench_add(&out->probe, probe(map));
    fm_bench_add(&out->drain, drain(pool));
    fm_bench_add(&out->memo_get, memo_get(pool));
    keys_make(); /* by batch again */
    fm_bench_add(&out->memo_hit, flows_add(pool, shared, SHARED));
    fm_pool_totals(pool, &totals);
    if (totals.ran != FRESH || totals.shared != 2 * SHARED) {
        must(fm_error_set(&err, FM_ERR_INTERNAL, "%llu ran, %llu shared",
                          (unsigned long long)totals.ran,
                          (unsigned long long)totals.shared),
             &err);
    }
    fm_map_destroy(map);
    fm_pool_destroy(pool);
}

int main(void)
{
    static struct figures warm_up, all;
    const fm_bench_peer_t peer = {"bare_hash_probe", &all.probe};

    (void)printf("%u items of %u users, %u of them shared, %u batch keys\n",
                 ITEMS, USERS, SHARED, BATCHES);
    round_run(&warm_up);
    for (int round = 0; round < ROUNDS; round++) {
        round_run(&all);
    }
    fm_bench_print("dedup.lookup_live", &all.wanted, "ns", FM_BENCH_LESS,
                   &peer);
    fm_bench_print("dedup.lookup_memo", &all.memo_get, "ns", FM_BENCH_LESS,
                   &peer);
    fm_bench_print("dedup.attach_follower", &all.follower, "ns", FM_BENCH_LESS,
                   &peer);
    fm_bench_print("dedup.attach_memo_hit", &all.memo_hit, "ns", FM_BENCH_LESS,
                   &peer);
    fm_bench_print("dedup.attach_fresh", &all.fresh, "ns", FM_BENCH_LESS,
                   &peer);
    fm_bench_print("dedup.memory", &all.bytes, "B/item", FM_BENCH_LESS, NULL);
    fm_bench_print("dedup.drain", &all.drain, "items/s", FM_BENCH_MORE, NULL);
    return 0;
}
