/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fm_place_next() in a steady state, pool included: every worker busy, one
 * becomes free and its lease is settled, one decision fills it, a last one
 * finds nothing more.  Timed is fm_place_next() alone, which also reads what
 * changed in the pool and the shares of tenants.  The peer of the long queue is
 * a short one with the same workers and batch keys.
 */
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "plan/place/place.h"
#include "report/report.h"

#define ROUNDS 3
#define CYCLES 3000u
#define TENANTS 20u
#define MODELS 50u
#define ITEMS 1000u /* of a workflow at most */
#define S INT64_C(1000000000)
#define GB UINT64_C(1000000000)

struct rig {
    fm_pool_t *pool;
    fm_cost_t *cost;
    fm_place_t *place;
    uint64_t *leases; /* by worker */
    uint32_t worker_count, key_count;
    uint64_t lease_number;
    int64_t now_ns;
    fm_rng_t rng;
};

static void must(fm_status_t rc, const fm_error_t *err)
{
    if (rc < 0) {
        (void)fprintf(stderr, "bench_place: %s\n", err->text);
        exit(1);
    }
}

static void *need(void *block)
{
    if (!block) {
        (void)fprintf(stderr, "bench_place: out of memory\n");
        exit(1);
    }
    return block;
}

static void apply(struct rig *rig, const fm_pool_event_t *event)
{
    fm_error_t err = {0};

    must(fm_pool_apply(rig->pool, event, &err), &err);
}

static fm_digest_t digest(uint64_t n)
{
    return fm_sha256(&n, sizeof(n));
}

static void tasks_put(struct rig *rig)
{
    fm_error_t err = {0};

    for (uint32_t k = 0; k < rig->key_count; k++) {
        fm_digest_t key = digest(k);
        fm_sched_object_t model = {digest(UINT64_C(1) << 40 | k % MODELS),
                                   2 * GB};
        fm_place_task_t task = {.kind = k % 5 == 0 ? FM_SCHED_TRAINING
                                                   : FM_SCHED_INFERENCE,
                                .size_max = 64,
                                .memory_bytes = (k % 4 == 0 ? 40 : 20) * GB,
                                .models = &model,
                                .model_count = 1,
                                .input_domain = FM_SCHED_NONE};
        must(fm_place_task_put(rig->place, &key, &task, &err), &err);
    }
}

static void queue_fill(struct rig *rig, uint32_t queued)
{
    static fm_digest_t keys[ITEMS];
    const fm_pool_node_spec_t node = {NULL, 0};
    uint32_t each = queued / rig->key_count;
    uint32_t items = each < ITEMS ? each : ITEMS;
    uint32_t flows = queued / items;
    char tenant[16];

    for (uint32_t f = 0; f < flows; f++) {
        for (uint32_t i = 0; i < items; i++) {
            keys[i] = digest((uint64_t)(f + 1) << 41 | i);
        }
        (void)snprintf(tenant, sizeof(tenant), "t%u",
                       (f / rig->key_count + f) % TENANTS);
        apply(rig, &(fm_pool_event_t){.kind = FM_POOL_SUBMIT,
                                      .submit = {.workflow = f,
                                                 .tenant = tenant,
                                                 .now_ns = rig->now_ns,
                                                 .nodes = &node,
                                                 .node_count = 1}});
        apply(rig, &(fm_pool_event_t){
                       .kind = FM_POOL_EXPAND,
                       .expand = {.workflow = f,
                                  .batch_key = digest(f % rig->key_count),
                                  .item_work = 1,
                                  .keys = keys,
                                  .count = items,
                                  .now_ns = rig->now_ns}});
    }
}

static void workers_put(struct rig *rig)
{
    static const fm_cost_device_t devices[] = {
        {.flops_per_s = 1e9}, {.flops_per_s = 2e9}, {.flops_per_s = 5e9}};
    static const char *const names[] = {"l4", "l40s", "h100"};
    static const fm_cost_task_t spec = {.flops_per_unit = 1e9};
    fm_error_t err = {0};
    uint32_t id = 0;

    must(fm_cost_task_id(rig->cost, "task", &spec, &id, &err), &err);
    for (uint32_t w = 0; w < rig->worker_count; w++) {
        uint32_t class = w % 3;
        must(fm_cost_device_id(rig->cost, names[class], &devices[class], &id,
                               &err),
             &err);
        fm_sched_worker_t worker = {.id = w,
                                    .device_class = id,
                                    .device = FM_SCHED_GPU,
                                    .task_types = UINT64_MAX,
                                    .memory_bytes = (24 + 24 * class) * GB,
                                    .domain = w / 8,
                                    .price_per_hour = 0.8 * (1 + 2 * class),
                                    .watts = 72 + 200 * class,
                                    .load_bytes_per_s = 2e9};
        must(fm_place_worker_put(rig->place, &worker, &err), &err);
    }
}

static void rig_open(struct rig *rig, uint32_t workers, uint32_t keys,
                     uint32_t queued)
{
    fm_error_t err = {0};

    *rig =
        (struct rig){.worker_count = workers, .key_count = keys, .now_ns = S};
    fm_rng_init(&rig->rng, 1);
    rig->pool = need(fm_pool_create(NULL));
    rig->cost = need(fm_cost_create());
    rig->leases = need(fm_calloc(workers, sizeof(*rig->leases)));
    must(fm_place_create(NULL, rig->pool, rig->cost, &rig->place, &err), &err);
    workers_put(rig);
    tasks_put(rig);
    queue_fill(rig, queued);
}

static void rig_close(struct rig *rig)
{
    fm_place_destroy(rig->place);
    fm_cost_destroy(rig->cost);
    fm_pool_destroy(rig->pool);
    free(rig->leases);
}

static void grant(struct rig *rig, const fm_place_choice_t *choice)
{
    apply(rig, &(fm_pool_event_t){.kind = FM_POOL_LEASE,
                                  .lease = {.lease = ++rig->lease_number,
                                            .worker = choice->worker,
                                            .batch_key = choice->batch_key,
                                            .max_items = choice->size,
                                            .resource = choice->resource,
                                            .seconds = choice->seconds,
                                            .dollars = choice->dollars,
                                            .joules = choice->joules,
                                            .now_ns = rig->now_ns}});
    rig->leases[choice->worker] = rig->lease_number;
    fm_place_worker_busy(rig->place, choice->worker,
                         rig->now_ns + (int64_t)(choice->seconds * 1e9));
}

/* Items go back to the queue, which keeps its length. */
static void finish(struct rig *rig, uint32_t worker)
{
    if (rig->leases[worker]) {
        apply(rig,
              &(fm_pool_event_t){.kind = FM_POOL_LEASE_END,
                                 .lease_end = {.lease = rig->leases[worker],
                                               .how = FM_POOL_END_DRAINED,
                                               .now_ns = rig->now_ns}});
    }
    rig->leases[worker] = 0;
    fm_place_worker_busy(rig->place, worker, INT64_MIN);
}

static int by_value(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;

    return x < y ? -1 : x > y;
}

struct figures {
    double rate, p50_us, p99_us;
};

static struct figures measure(struct rig *rig)
{
    static double times[2 * CYCLES];
    size_t count = 0;
    double total = 0;
    fm_place_choice_t choice;

    while (fm_place_next(rig->place, rig->now_ns, &choice)) {
        grant(rig, &choice); /* until the fleet is busy */
    }
    for (uint32_t c = 0; c < CYCLES; c++) {
        bool more = true;
        rig->now_ns += S / 100;
        finish(rig, (uint32_t)fm_rng_below(&rig->rng, rig->worker_count));
        while (more && count < 2 * CYCLES) {
            int64_t start_ns = fm_clock_mono_ns();
            more = fm_place_next(rig->place, rig->now_ns, &choice);
            times[count] = (double)(fm_clock_mono_ns() - start_ns) / 1e3;
            total += times[count++];
            if (more) {
                grant(rig, &choice);
            }
        }
    }
    qsort(times, count, sizeof(times[0]), by_value);
    return (struct figures){(double)count / total * 1e6, times[count / 2],
                            times[count * 99 / 100]};
}

static void figure(uint32_t queued, uint32_t workers, uint32_t keys)
{
    fm_bench_series_t rate = {0};
    fm_bench_series_t p99 = {0};
    fm_bench_series_t short_rate = {0};
    fm_bench_series_t short_p99 = {0};
    fm_bench_peer_t rate_peer = {"short_queue", &short_rate};
    fm_bench_peer_t p99_peer = {"short_queue", &short_p99};
    char name[64];

    for (int round = 0; round < ROUNDS; round++) {
        for (int longer = 0; longer < 2; longer++) {
            struct rig rig;
            rig_open(&rig, workers, keys, longer ? queued : queued / 10);
            struct figures is = measure(&rig);
            fm_bench_add(longer ? &rate : &short_rate, is.rate);
            fm_bench_add(longer ? &p99 : &short_p99, is.p99_us);
            rig_close(&rig);
        }
    }
    (void)snprintf(name, sizeof(name), "place.next.%uq_%uw_%uk", queued,
                   workers, keys);
    fm_bench_print(name, &rate, "decisions/s", FM_BENCH_MORE, &rate_peer);
    (void)snprintf(name, sizeof(name), "place.p99.%uq_%uw_%uk", queued, workers,
                   keys);
    fm_bench_print(name, &p99, "us", FM_BENCH_LESS, &p99_peer);
}

int main(void)
{
    figure(100000, 1000, 100);
    figure(1000000, 10000, 1000);
    return 0;
}
