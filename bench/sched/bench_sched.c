/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The scheduler in a steady state: every worker busy, one becomes free, one
 * decision fills it, a last one finds nothing more to place.  A decision is a
 * placement: its time is that of telling what changed and of the answer; the
 * rate counts the last, empty answers too.  The peer of a long queue is the
 * shortest one with the same workers and batch keys: a ratio of 1 is no growth
 * of the cost.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/mem.h"
#include "base/rng.h"
#include "plan/sched/sched.h"
#include "report/report.h"

#define ROUNDS 3
#define DECISIONS 10000u /* measured, a round */
#define DEVICES 4u       /* classes: a device at one of three prices */
#define PRICES 3u
#define MODELS 50u
#define SIZE_MAX_ITEMS 64u
#define S INT64_C(1000000000)
#define GIB (UINT64_C(1) << 30)

static void must(fm_status_t rc, const fm_error_t *err)
{
    if (rc < 0) {
        (void)fprintf(stderr, "bench_sched: %s\n", err->text);
        exit(1);
    }
}

/* A fleet and its queue, in virtual time. */
struct rig {
    fm_sched_t *sched;
    fm_cost_t *cost;
    fm_sched_batch_t *batches;
    fm_sched_object_t *models; /* one a batch */
    int64_t *free_ns;          /* by worker */
    uint32_t *heap, *pos;      /* workers, first free first; and back */
    uint32_t worker_count, batch_count;
    int64_t now_ns;
    fm_rng_t rng;
};

static void sift_down(struct rig *rig, uint32_t i)
{
    for (;;) {
        uint32_t first = i;
        for (uint32_t c = 2 * i + 1; c <= 2 * i + 2 && c < rig->worker_count;
             c++) {
            if (rig->free_ns[rig->heap[c]] < rig->free_ns[rig->heap[first]]) {
                first = c;
            }
        }
        if (first == i) {
            return;
        }
        uint32_t swap = rig->heap[i];
        rig->heap[i] = rig->heap[first];
        rig->heap[first] = swap;
        rig->pos[rig->heap[i]] = i;
        rig->pos[swap] = first;
        i = first;
    }
}

static fm_digest_t model_of(uint32_t n)
{
    return fm_sha256(&n, sizeof(n));
}

static void rig_make(struct rig *rig, uint32_t queued, uint32_t workers,
                     uint32_t keys)
{
    fm_error_t err = {0};
    uint32_t device[DEVICES];
    uint32_t task;

    *rig = (struct rig){.worker_count = workers, .batch_count = keys};
    fm_rng_init(&rig->rng, 7);
    if (!(rig->cost = fm_cost_create()) ||
        !(rig->batches = fm_calloc(keys, sizeof(*rig->batches))) ||
        !(rig->models = fm_calloc(keys, sizeof(*rig->models))) ||
        !(rig->free_ns = fm_calloc(workers, sizeof(*rig->free_ns))) ||
        !(rig->heap = fm_calloc(workers, sizeof(*rig->heap))) ||
        !(rig->pos = fm_calloc(workers, sizeof(*rig->pos)))) {
        must(fm_no_memory(&err), &err);
    }
    must(fm_sched_create(NULL, rig->cost, &rig->sched, &err), &err);
    for (uint32_t d = 0; d < DEVICES; d++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "device-%u", d);
        must(
            fm_cost_device_id(rig->cost, name,
                              &(fm_cost_device_t){.flops_per_s = 1e13 * (d + 1),
                                                  .bytes_per_s = 1e11 * (d + 1),
                                                  .overhead_s = 0.01},
                              &device[d], &err),
            &err);
    }
    must(fm_cost_task_id(
             rig->cost, "infer",
             &(fm_cost_task_t){.flops_per_unit = 2e11, .bytes_per_call = 1e11},
             &task, &err),
         &err);
    for (uint32_t w = 0; w < workers; w++) {
        fm_digest_t resident[2] = {
            model_of((uint32_t)fm_rng_below(&rig->rng, MODELS)),
            model_of((uint32_t)fm_rng_below(&rig->rng, MODELS))};
        fm_sched_worker_t worker = {
            .id = w,
            .device_class = device[w % DEVICES],
            .device = FM_SCHED_GPU,
            .task_types = 1,
            .memory_bytes = (24 + 8 * (w % DEVICES)) * GIB,
            .resident = resident,
            .resident_count = 2,
            .domain = w / 8,
            .price_per_hour = 1 + w % DEVICES + 0.25 * (w / DEVICES % PRICES),
            .watts = 300};
        must(fm_sched_worker_put(rig->sched, &worker, &err), &err);
        rig->heap[w] = rig->pos[w] = w;
        rig->free_ns[w] = (int64_t)fm_rng_below(&rig->rng, (uint64_t)(10 * S));
        fm_sched_worker_busy(rig->sched, w, rig->free_ns[w]);
    }
    for (uint32_t i = workers / 2; i-- > 0;) {
        sift_down(rig, i);
    }
    for (uint32_t b = 0; b < keys; b++) {
        rig->models[b] = (fm_sched_object_t){model_of(b % MODELS), 4 * GIB};
        rig->batches[b] = (fm_sched_batch_t){
            .kind = FM_SCHED_INFERENCE,
            .task_class = task,
            .ready = queued / keys ? queued / keys : 1,
            .size_max = SIZE_MAX_ITEMS,
            .item_work = 50 + (double)fm_rng_below(&rig->rng, 100),
            .memory_bytes = 6 * GIB,
            .item_memory_bytes = GIB / 8,
            .models = &rig->models[b],
            .model_count = 1,
            .item_input_bytes = 1000,
            .input_domain = b % 4 ? FM_SCHED_NONE : b % (workers / 8 + 1),
            .tenant = b % 20,
        };
        must(fm_sched_batch_put(rig->sched, b, &rig->batches[b], &err), &err);
    }
}

static void rig_free(struct rig *rig)
{
    fm_sched_destroy(rig->sched);
    fm_cost_destroy(rig->cost);
    free(rig->batches);
    free(rig->models);
    free(rig->free_ns);
    free(rig->heap);
    free(rig->pos);
}

struct samples {
    double *seconds; /* of a placement */
    uint32_t count, cap;
    double total_s; /* of all answers */
};

static void sample(struct samples *to, bool placed, int64_t *start_ns)
{
    double seconds = (double)(fm_clock_cpu_ns() - *start_ns) / 1e9;

    if (placed && to->count < to->cap) {
        to->seconds[to->count++] = seconds;
    }
    to->total_s += seconds;
    *start_ns = fm_clock_cpu_ns();
}

/* One worker becomes free, and is filled, as others may be that were left idle
 * so far; what is leased comes back at once, younger, so that the queue keeps
 * its length. */
static void cycle(struct rig *rig, struct samples *to)
{
    fm_error_t err = {0};
    uint32_t worker = rig->heap[0];
    fm_sched_choice_t choice;

    rig->now_ns = rig->free_ns[worker];
    int64_t start_ns = fm_clock_cpu_ns();
    fm_sched_worker_busy(rig->sched, worker, INT64_MIN);
    while (fm_sched_next(rig->sched, rig->now_ns, &choice)) {
        double seconds =
            choice.terms.total_s * (0.8 + 0.4 * fm_rng_uniform(&rig->rng));
        fm_sched_batch_t *batch = &rig->batches[choice.batch];
        rig->free_ns[choice.worker] =
            rig->now_ns + (int64_t)(seconds * (double)S);
        batch->oldest_ns = rig->now_ns;
        must(fm_sched_batch_put(rig->sched, choice.batch, batch, &err), &err);
        fm_sched_worker_busy(rig->sched, choice.worker,
                             rig->free_ns[choice.worker]);
        sample(to, true, &start_ns);
        if (choice.worker != worker) {
            sift_down(rig, rig->pos[choice.worker]); /* it was left idle */
        }
    }
    sample(to, false, &start_ns);
    if (rig->free_ns[worker] <= rig->now_ns) {
        rig->free_ns[worker] = rig->now_ns + S; /* nobody wants it yet */
    }
    sift_down(rig, 0);
}

static int compare(const void *a, const void *b)
{
    const double *x = a;
    const double *y = b;

    return (*x > *y) - (*x < *y);
}

struct figures {
    fm_bench_series_t rate, p50, p99, bytes;
};

/* Round 0 warms up. */
static void measure(uint32_t queued, uint32_t workers, uint32_t keys,
                    struct figures *out)
{
    static double seconds[DECISIONS];
    struct rig rig;

    rig_make(&rig, queued, workers, keys);
    for (int round = 0; round <= ROUNDS; round++) {
        struct samples to = {.seconds = seconds, .cap = DECISIONS};
        while (to.count < to.cap) {
            cycle(&rig, &to);
        }
        if (round == 0) {
            continue;
        }
        qsort(seconds, to.count, sizeof(*seconds), compare);
        fm_bench_add(&out->rate, to.count / to.total_s);
        fm_bench_add(&out->p50, seconds[to.count / 2] * 1e6);
        fm_bench_add(&out->p99, seconds[to.count / 100 * 99] * 1e6);
        fm_bench_add(&out->bytes, (double)fm_sched_bytes(rig.sched));
    }
    rig_free(&rig);
}

static const struct {
    uint32_t items;
    const char *name;
} queues[] = {{1000, "1e3"}, {10000, "1e4"}, {100000, "1e5"}, {1000000, "1e6"}};
static const uint32_t fleets[] = {10, 1000, 10000};
static const uint32_t keys[] = {10, 100, 1000};

static void show(const char *figure, const char *where, const char *unit,
                 fm_bench_sense_t sense, const fm_bench_series_t *ours,
                 const fm_bench_series_t *shortest)
{
    const fm_bench_peer_t peer = {"at_1e3", shortest};
    char name[80];

    (void)snprintf(name, sizeof(name), "sched.%s_%s", figure, where);
    fm_bench_print(name, ours, unit, sense, ours == shortest ? NULL : &peer);
}

/* Whether a size is asked for: no argument, or "0", asks for all. */
static bool asked(int argc, char **argv, int at, uint32_t value)
{
    unsigned long only = argc > at ? strtoul(argv[at], NULL, 10) : 0;

    return only == 0 || only == value;
}

/* bench_sched [QUEUED [WORKERS [KEYS]]] */
int main(int argc, char **argv)
{
    (void)printf("a worker becomes free, a decision fills it, another finds "
                 "nothing to do; %u classes, %u models, slices of up to %u\n",
                 DEVICES * PRICES, MODELS, SIZE_MAX_ITEMS);
    for (size_t w = 0; w < FM_COUNT_OF(fleets); w++) {
        for (size_t k = 0; k < FM_COUNT_OF(keys); k++) {
            static struct figures all[FM_COUNT_OF(queues)];
            for (size_t q = 0; q < FM_COUNT_OF(queues); q++) {
                char where[64];
                if (!asked(argc, argv, 1, queues[q].items) ||
                    !asked(argc, argv, 2, fleets[w]) ||
                    !asked(argc, argv, 3, keys[k])) {
                    continue;
                }
                all[q] = (struct figures){0};
                (void)snprintf(where, sizeof(where), "%s_%uw_%uk",
                               queues[q].name, fleets[w], keys[k]);
                measure(queues[q].items, fleets[w], keys[k], &all[q]);
                show("decide", where, "decisions/s", FM_BENCH_MORE,
                     &all[q].rate, &all[0].rate);
                show("p50", where, "us", FM_BENCH_LESS, &all[q].p50,
                     &all[0].p50);
                show("p99", where, "us", FM_BENCH_LESS, &all[q].p99,
                     &all[0].p99);
                show("memory", where, "B", FM_BENCH_LESS, &all[q].bytes,
                     &all[0].bytes);
            }
        }
    }
    return 0;
}
