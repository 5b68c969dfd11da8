/* SPDX-License-Identifier: Apache-2.0 */
/* sched: over random events, the incremental scheduler chooses what a plain
 * search over all batches and all workers finds to be worth most. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "fmtest.h"
#include "plan/sched/sched.h"

#define S INT64_C(1000000000)
#define IDLE INT64_MIN
#define WORKERS 24u
#define BATCHES 12u
#define MODELS 4u
#define DOMAINS 3u
#define HARDWARE 5u
#define DEVICES 3u
#define GIB (UINT64_C(1) << 30)

static const fm_digest_t models[MODELS] = {{{1}}, {{2}}, {{3}}, {{4}}};

struct ref_worker {
    fm_sched_worker_t is;
    fm_digest_t resident[MODELS];
    uint32_t hardware;
    int64_t free_ns;
    bool known;
};

struct ref_batch {
    fm_sched_batch_t is;
    fm_sched_object_t models[2];
    uint32_t avoid[2];
    double item_s;
    bool known;
};

struct ref {
    fm_cost_t *cost;
    fm_sched_t *sched;
    fm_sched_options_t options;
    struct ref_worker workers[WORKERS];
    struct ref_batch batches[BATCHES];
    double shares[4];
    int64_t now_ns;
    fm_rng_t rng;
};

static uint32_t below(struct ref *r, uint32_t bound)
{
    return (uint32_t)fm_rng_below(&r->rng, bound);
}

/* --- what a candidate is worth ------------------------------------------- */

static bool holds(const struct ref_worker *w, const fm_digest_t *model)
{
    for (size_t i = 0; i < w->is.resident_count; i++) {
        if (fm_digest_equal(&w->resident[i], model)) {
            return true;
        }
    }
    return false;
}

static uint32_t cap(const struct ref_batch *b, const struct ref_worker *w)
{
    uint32_t size = b->is.ready < b->is.size_max ? b->is.ready : b->is.size_max;

    if (!w->known || w->is.closed ||
        !(w->is.task_types >> b->is.task_type & 1) ||
        (b->is.device != FM_SCHED_ANY && b->is.device != w->is.device) ||
        w->is.memory_bytes < b->is.memory_bytes) {
        return 0;
    }
    uint64_t fits =
        (w->is.memory_bytes - b->is.memory_bytes) / b->is.item_memory_bytes;
    return fits < size ? (uint32_t)fits : size;
}

static double run_s(const struct ref *r, const struct ref_batch *b,
                    const struct ref_worker *w, uint32_t size)
{
    fm_cost_estimate_t run;

    fm_cost_estimate(r->cost, b->is.task_class, w->is.device_class,
                     size * b->is.item_work, &run);
    return run.seconds;
}

/* ln of the gain and the loss at the best size, for unit urgency, after a
 * wait.  plain: as if it held nothing and were near nothing. */
static double score(const struct ref *r, const struct ref_batch *b,
                    const struct ref_worker *w, double wait_s, bool plain,
                    uint32_t only, uint32_t *size_out)
{
    static const double lambdas[] = {0.5, 0.4, 0.8};
    double lambda = lambdas[b->is.kind];
    double best = -INFINITY;
    uint32_t most = cap(b, w);

    for (uint32_t size = most; size > 0;
         size = size == most ? (most > 1 ? 1 : 0)
                             : (size * 2 < most ? size * 2 : 0)) {
        double busy_s = run_s(r, b, w, size);
        if (only != 0 && size != only) {
            continue;
        }
        for (size_t m = 0; m < b->is.model_count; m++) {
            busy_s += !plain && holds(w, &b->models[m].digest)
                          ? 0
                          : (double)b->models[m].bytes / w->is.load_bytes_per_s;
        }
        if (b->is.input_domain != FM_SCHED_NONE &&
            (plain || b->is.input_domain != w->is.domain)) {
            busy_s += size * b->is.item_input_bytes / w->is.fetch_bytes_per_s;
        }
        double total_s = wait_s + busy_s;
        double alive = exp(-w->is.hazard_per_hour * total_s / 3600);
        double work = size * b->item_s;
        double dollars =
            (w->is.price_per_hour / 3600 + w->is.watts / 3.6e6 * 0.15) * busy_s;
        double value = lambda * log(work * alive / total_s) -
                       (1 - lambda) * log(dollars / work);
        if (value > best) {
            best = value;
            *size_out = size;
        }
    }
    return best;
}

static double urgency(const struct ref *r, const struct ref_batch *b)
{
    double age = 1 + fmax((double)(r->now_ns - b->is.oldest_ns) / 1e9, 0) / 60;
    double slack = (double)(b->is.deadline_ns - r->now_ns) / 1e9 /
                   (b->is.depth + 1.0) / 600;
    double deadline =
        b->is.deadline_ns ? 1 + 3 * (1 - fmin(fmax(slack, 0), 1)) : 1;

    return r->shares[b->is.tenant] * age * exp2(b->is.priority / 25.0) *
           deadline * (1 + 0.1 * b->is.depth);
}

/* --- candidates ---------------------------------------------------------- */

static bool avoided(const struct ref_batch *b, uint32_t worker)
{
    for (size_t i = 0; i < b->is.avoid_count; i++) {
        if (b->avoid[i] == worker) {
            return true;
        }
    }
    return false;
}

static bool waive(const struct ref *r, const struct ref_batch *b)
{
    bool any = false;

    for (uint32_t w = 0; w < WORKERS; w++) {
        if (cap(b, &r->workers[w]) > 0) {
            if (!avoided(b, w)) {
                return false;
            }
            any = true;
        }
    }
    return any;
}

/* Idle ones first, with the fewest models; then the soonest; then by id. */
static bool sooner(const struct ref_worker *a, const struct ref_worker *b)
{
    if ((a->free_ns == IDLE) != (b->free_ns == IDLE)) {
        return a->free_ns == IDLE;
    }
    if (a->free_ns != b->free_ns) {
        return a->free_ns < b->free_ns;
    }
    if (a->free_ns == IDLE && a->is.resident_count != b->is.resident_count) {
        return a->is.resident_count < b->is.resident_count;
    }
    return a->is.id < b->is.id;
}

enum group { EVERY, HOLDERS, NEAR };

static bool belongs(const struct ref_batch *b, const struct ref_worker *w,
                    enum group group, uint32_t model)
{
    return group == EVERY ||
           (group == HOLDERS && holds(w, &b->models[model].digest)) ||
           (group == NEAR && b->is.input_domain != FM_SCHED_NONE &&
            w->is.domain == b->is.input_domain);
}

static const struct ref_worker *first_of(const struct ref *r,
                                         const struct ref_batch *b,
                                         uint32_t hardware, enum group group,
                                         uint32_t model)
{
    const struct ref_worker *first = NULL;
    bool all = waive(r, b);

    for (uint32_t w = 0; w < WORKERS; w++) {
        const struct ref_worker *worker = &r->workers[w];
        if (worker->known && !worker->is.closed &&
            worker->hardware == hardware && (all || !avoided(b, w)) &&
            belongs(b, worker, group, model) &&
            (!first || sooner(worker, first))) {
            first = worker;
        }
    }
    return first;
}

/* Seconds of ready work that waits for the same, over those that do it. */
static double backlog_s(const struct ref *r, const struct ref_batch *b,
                        enum group group, uint32_t model)
{
    double seconds = 0;
    uint32_t workers = 0;
    uint32_t slice =
        b->is.ready < b->is.size_max ? b->is.ready : b->is.size_max;

    for (uint32_t i = 0; i < BATCHES; i++) {
        const struct ref_batch *other = &r->batches[i];
        bool wants = other->known && group != HOLDERS;
        for (size_t m = 0; other->known && m < other->is.model_count; m++) {
            wants = wants || fm_digest_equal(&other->models[m].digest,
                                             &b->models[model].digest);
        }
        seconds += wants ? other->is.ready * other->item_s : 0;
    }
    for (uint32_t w = 0; w < WORKERS; w++) {
        const struct ref_worker *worker = &r->workers[w];
        workers +=
            worker->known && !worker->is.closed &&
            (group != HOLDERS || holds(worker, &b->models[model].digest));
    }
    return fmax(seconds - slice * b->item_s, 0) / workers;
}

/* The best idle candidate, and the best busy one. */
struct found {
    double idle, busy;
    uint32_t worker, size;
};

static void look(const struct ref *r, const struct ref_batch *b,
                 uint32_t hardware, enum group group, uint32_t model,
                 struct found *found)
{
    const struct ref_worker *w = first_of(r, b, hardware, group, model);
    uint32_t size = 0;

    if (!w || cap(b, w) == 0) {
        return;
    }
    double now = score(r, b, w, 0, group == EVERY, 0, &size);
    if (w->free_ns == IDLE) {
        if (now > found->idle) {
            found->idle = now;
            found->worker = w->is.id;
            found->size = size;
        }
        return;
    }
    double wait_s = fmax((double)(w->free_ns - r->now_ns) / 1e9, 0) +
                    backlog_s(r, b, group, model);
    uint32_t unused;
    found->busy = fmax(found->busy,
                       score(r, b, w, wait_s, group == EVERY, size, &unused));
}

static struct found search(const struct ref *r, const struct ref_batch *b)
{
    struct found found = {.idle = -INFINITY, .busy = -INFINITY};

    for (uint32_t h = 0; h < HARDWARE; h++) {
        look(r, b, h, EVERY, 0, &found);
        look(r, b, h, NEAR, 0, &found);
        for (uint32_t m = 0; m < b->is.model_count; m++) {
            look(r, b, h, HOLDERS, m, &found);
        }
    }
    return found;
}

static void items_measure(struct ref *r)
{
    for (uint32_t i = 0; i < BATCHES; i++) {
        struct ref_batch *b = &r->batches[i];
        fm_cost_estimate_t unknown;

        b->item_s = INFINITY;
        for (uint32_t w = 0; w < WORKERS && b->known; w++) {
            uint32_t size = cap(b, &r->workers[w]);
            if (size > 0) {
                b->item_s =
                    fmin(b->item_s, run_s(r, b, &r->workers[w], size) / size);
            }
        }
        if (b->known && !isfinite(b->item_s)) {
            fm_cost_estimate(r->cost, b->is.task_class, UINT32_MAX,
                             b->is.item_work, &unknown);
            b->item_s = unknown.seconds;
        }
    }
}

/* --- the decision, checked ------------------------------------------------ */

static bool near(double a, double b)
{
    return fabs(a - b) <= 1e-7 * fmax(1, fmax(fabs(a), fabs(b)));
}

struct leader {
    double score, gain, loss; /* as chosen; ln */
    uint32_t batch;
};

/* Best of each kind, then by U with the norms over those. */
static uint32_t decide(struct ref *r, struct found *found, double *score_out)
{
    double best[FM_SCHED_KINDS] = {-INFINITY, -INFINITY, -INFINITY};
    uint32_t any = UINT32_MAX;

    items_measure(r);
    for (uint32_t i = 0; i < BATCHES; i++) {
        const struct ref_batch *b = &r->batches[i];
        if (!b->known) {
            continue;
        }
        found[i] = search(r, b);
        if (isfinite(found[i].idle) &&
            (found[i].busy <= found[i].idle || r->options.no_consolidation)) {
            double value = found[i].idle + log(urgency(r, b));
            if (value > best[b->is.kind]) {
                best[b->is.kind] = value;
                any = i;
            }
        }
    }
    memcpy(score_out, best, sizeof(best));
    return any;
}

static fm_digest_t *resident_fill(struct ref *r, struct ref_worker *w)
{
    w->is.resident_count = 0;
    for (uint32_t m = 0; m < MODELS; m++) {
        if (below(r, 3) == 0) {
            w->resident[w->is.resident_count++] = models[m];
        }
    }
    return w->resident;
}

/* Ask until nothing is left to place; each answer must be the best one. */
static void place_all(struct ref *r)
{
    bool exact = r->options.no_consolidation;
    struct found found[BATCHES];
    fm_sched_choice_t c;
    fm_error_t err = {0};

    for (uint32_t turn = 0; turn <= WORKERS; turn++) {
        double best[FM_SCHED_KINDS];
        uint32_t any = decide(r, found, best);
        bool placed = fm_sched_next(r->sched, r->now_ns, &c);
        /* Batches that wait for a busy worker are looked at again only when
         * that could matter: which batch is first is exact without them. */
        CU_ASSERT_FATAL(!exact || placed == (any != UINT32_MAX));
        if (!placed) {
            return;
        }
        struct ref_batch *b = &r->batches[c.batch];
        struct ref_worker *w = &r->workers[c.worker];
        uint32_t size = 0;
        CU_ASSERT_FATAL(b->known && w->known && w->free_ns == IDLE);
        CU_ASSERT(c.size >= 1 && c.size <= cap(b, w));
        CU_ASSERT(!exact || near(found[c.batch].idle + log(urgency(r, b)),
                                 best[b->is.kind]));
        CU_ASSERT(
            near(score(r, b, w, 0, false, 0, &size), found[c.batch].idle));
        CU_ASSERT(!avoided(b, c.worker) || waive(r, b));
        CU_ASSERT(c.terms.utility <= 1e-9);
        /* As a caller does. */
        w->free_ns = r->now_ns + 1 + (int64_t)(c.terms.total_s * 1e9);
        w->is.resident = resident_fill(r, w);
        fm_sched_worker_busy(r->sched, c.worker, w->free_ns);
        FM_ASSERT_OK(fm_sched_worker_put(r->sched, &w->is, &err), &err);
        b->is.ready -= c.size;
        b->known = b->is.ready > 0;
        FM_ASSERT_OK(fm_sched_batch_put(r->sched, c.batch, &b->is, &err), &err);
    }
    CU_FAIL_FATAL("a decision without end");
}

/* --- events -------------------------------------------------------------- */

static void worker_event(struct ref *r)
{
    static const struct {
        uint64_t memory;
        double price, watts, hazard, load;
        uint32_t device;
        fm_sched_device_kind_t kind;
    } hardware[HARDWARE] = {
        {24 * GIB, 0.8, 70, 0, 1e9, 0, FM_SCHED_GPU},
        {48 * GIB, 1.9, 300, 0, 2e9, 1, FM_SCHED_GPU},
        {80 * GIB, 3.9, 700, 0.5, 4e9, 2, FM_SCHED_GPU},
        {80 * GIB, 2.9, 700, 20, 4e9, 2, FM_SCHED_GPU},
        {64 * GIB, 0.2, 100, 0, 1e9, 0, FM_SCHED_CPU},
    };
    uint32_t id = below(r, WORKERS);
    struct ref_worker *w = &r->workers[id];
    fm_error_t err = {0};
    uint32_t what = below(r, 10);

    if (what == 0) {
        fm_sched_worker_drop(r->sched, id);
        w->known = false;
        w->free_ns = IDLE;
    } else if (what < 4 || !w->known) {
        uint32_t h = w->known && below(r, 4) ? w->hardware : below(r, HARDWARE);
        w->hardware = h;
        w->is = (fm_sched_worker_t){.id = id,
                                    .device_class = hardware[h].device,
                                    .device = hardware[h].kind,
                                    .task_types = h == 4 ? 2 : 3,
                                    .memory_bytes = hardware[h].memory,
                                    .closed = below(r, 10) == 0,
                                    .domain = below(r, DOMAINS),
                                    .price_per_hour = hardware[h].price,
                                    .watts = hardware[h].watts,
                                    .hazard_per_hour = hardware[h].hazard,
                                    .load_bytes_per_s = hardware[h].load,
                                    .fetch_bytes_per_s = 1e9};
        w->is.resident = resident_fill(r, w);
        w->free_ns = w->known ? w->free_ns : IDLE;
        w->known = true;
        FM_ASSERT_OK(fm_sched_worker_put(r->sched, &w->is, &err), &err);
    } else {
        w->free_ns = what < 8 ? IDLE : r->now_ns + below(r, 60) * S;
        fm_sched_worker_busy(r->sched, id, w->free_ns);
    }
}

static void batch_event(struct ref *r)
{
    uint32_t id = below(r, BATCHES);
    struct ref_batch *b = &r->batches[id];
    fm_error_t err = {0};

    if (below(r, 6) == 0) {
        fm_sched_batch_drop(r->sched, id);
        b->known = false;
        return;
    }
    b->is = (fm_sched_batch_t){
        .kind = (fm_sched_kind_t)below(r, 3),
        .task_class = below(r, 3),
        .task_type = below(r, 2),
        .ready = 1 + below(r, 200),
        .size_max = 1u << below(r, 7),
        .item_work = 1 + below(r, 100),
        .device = (fm_sched_device_kind_t)below(r, 3),
        .memory_bytes = (1 + below(r, 60)) * GIB,
        .item_memory_bytes = GIB,
        .models = b->models,
        .model_count = below(r, 3),
        .item_input_bytes = 1 + 1e8 * below(r, 10),
        .input_domain = below(r, 2) ? FM_SCHED_NONE : below(r, DOMAINS),
        .oldest_ns = r->now_ns - below(r, 300) * S,
        .deadline_ns = below(r, 2) ? 0 : r->now_ns + below(r, 3000) * S,
        .priority = (int32_t)below(r, 200) - 100,
        .tenant = below(r, 4),
        .depth = below(r, 5),
        .avoid = b->avoid,
        .avoid_count = below(r, 4) ? 0 : 2,
    };
    uint32_t first = below(r, MODELS);
    b->models[0] = (fm_sched_object_t){models[first], (1 + below(r, 20)) * GIB};
    b->models[1] = (fm_sched_object_t){models[(first + 1) % MODELS],
                                       (1 + below(r, 20)) * GIB};
    b->avoid[0] = below(r, WORKERS);
    b->avoid[1] = below(r, WORKERS);
    b->known = true;
    FM_ASSERT_OK(fm_sched_batch_put(r->sched, id, &b->is, &err), &err);
}

static void costs_make(struct ref *r)
{
    fm_error_t err = {0};
    uint32_t id;

    for (uint32_t d = 0; d < DEVICES; d++) {
        char name[2] = {(char)('a' + d), 0};
        FM_ASSERT_OK(fm_cost_device_id(
                         r->cost, name,
                         &(fm_cost_device_t){.flops_per_s = 1e12 * (d + 1),
                                             .bytes_per_s = 3e11 * (1 + 2 * d),
                                             .overhead_s = 0.01},
                         &id, &err),
                     &err);
        FM_ASSERT_OK(fm_cost_task_id(r->cost, name,
                                     &(fm_cost_task_t){3e10 / (d + 1), 1e9 * d,
                                                       2e10 * d, 0},
                                     &id, &err),
                     &err);
    }
}

static void run(uint64_t seed, bool no_consolidation)
{
    static struct ref r;
    fm_error_t err = {0};

    memset(&r, 0, sizeof(r));
    r.options = (fm_sched_options_t){.patience = 1e6,
                                     .no_consolidation = no_consolidation};
    r.now_ns = 1000 * S;
    fm_rng_init(&r.rng, seed);
    CU_ASSERT_FATAL((r.cost = fm_cost_create()) != NULL);
    costs_make(&r);
    FM_ASSERT_OK(fm_sched_create(&r.options, r.cost, &r.sched, &err), &err);
    for (uint32_t t = 0; t < 4; t++) {
        r.shares[t] = 1;
    }
    for (uint32_t w = 0; w < WORKERS; w++) {
        r.workers[w].free_ns = IDLE;
    }
    for (int step = 0; step < 150; step++) {
        uint32_t events = 1 + below(&r, 8);
        for (uint32_t e = 0; e < events; e++) {
            if (below(&r, 2)) {
                worker_event(&r);
            } else {
                batch_event(&r);
            }
        }
        if (below(&r, 8) == 0) {
            uint32_t tenant = below(&r, 4);
            r.shares[tenant] = 0.1 + 0.9 * fm_rng_uniform(&r.rng);
            fm_sched_tenant_put(r.sched, tenant, r.shares[tenant]);
        }
        place_all(&r);
        r.now_ns += (1 + below(&r, 20)) * S;
    }
    fm_sched_destroy(r.sched);
    fm_cost_destroy(r.cost);
}

static void test_equal_to_search(void)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        run(seed, false);
    }
}

static void test_equal_without_waiting(void)
{
    for (uint64_t seed = 1; seed <= 10; seed++) {
        run(seed, true);
    }
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"each batch where a search puts it", test_equal_to_search},
        {"as good as a search, never waiting", test_equal_without_waiting},
    };

    return fm_test_main("sched model", cases, sizeof(cases) / sizeof(cases[0]));
}
