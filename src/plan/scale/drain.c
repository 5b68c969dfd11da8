/* SPDX-License-Identifier: Apache-2.0 */
/* Who leaves: idle workers past break-even, those above max, and busy ones
 * whose work ends for less on an idle cheaper worker.
 *
 * Break-even is kept per unit of surplus, not per worker: since_ns[k] says
 * since when more than k workers were not needed.  A scheduler that passes
 * work around among twice the workers it takes keeps none of them idle for
 * long, yet half of them are surplus all the time. */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/scale/internal.h"

struct leaver {
    uint32_t at; /* in the input */
    bool wanted; /* holds a model that the demand wants */
    bool busy, starting;
    int64_t key_ns; /* newest first; starting: latest first */
    double at_risk_s;
    uint32_t id;
};

/* The best to let go first. */
static int by_loss(const void *a, const void *b)
{
    const struct leaver *x = a;
    const struct leaver *y = b;

    if (x->busy != y->busy) {
        return x->busy ? 1 : -1;
    }
    if (x->starting != y->starting) {
        return x->starting ? 1 : -1;
    }
    if (x->at_risk_s < y->at_risk_s || x->at_risk_s > y->at_risk_s) {
        return x->at_risk_s < y->at_risk_s ? -1 : 1;
    }
    if (x->wanted != y->wanted) {
        return x->wanted ? 1 : -1;
    }
    if (x->key_ns != y->key_ns) {
        return x->key_ns > y->key_ns ? -1 : 1;
    }
    return x->id < y->id ? -1 : x->id > y->id;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static size_t gather(const struct decision *d, uint32_t class_index,
                     struct leaver *list)
{
    size_t n = 0;

    for (size_t w = 0; w < d->in->worker_count; w++) {
        const fm_scale_worker_t *worker = &d->in->workers[w];
        if (worker->class_index != class_index || worker->draining) {
            continue;
        }
        struct leaver *l = &list[n++];
        *l = (struct leaver){
            .at = (uint32_t)w,
            .starting = worker->starting,
            .busy = !worker->starting && worker->free_at_ns > d->in->now_ns,
            .key_ns =
                worker->starting ? worker->free_at_ns : worker->up_since_ns,
            .id = worker->id,
        };
        l->at_risk_s = l->busy ? worker->at_risk_s : 0;
        for (size_t i = 0; i < worker->resident_count; i++) {
            l->wanted = l->wanted || fm_scale_model(d, &worker->resident[i]) !=
                                         FM_SCALE_NONE;
        }
    }
    qsort(list, n, sizeof(*list), by_loss);
    return n;
}

/* Bring since_ns[] to @p surplus units; the idle workers' own clocks may know
 * of an earlier beginning. */
static fm_status_t remember(struct memory *m, const struct decision *d,
                            const struct leaver *list, uint32_t idle,
                            uint32_t surplus, fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    int64_t *own = NULL;

    if (surplus == 0) {
        m->count = 0;
        return FM_OK;
    }
    m->count = m->count > surplus ? surplus : m->count;
    while (m->count < surplus) {
        rc = fm_grow(&m->since_ns, &m->capacity, m->count, sizeof(*m->since_ns),
                     err);
        if (rc < 0) {
            return rc;
        }
        m->since_ns[m->count++] = d->in->now_ns;
    }
    if (!(own = fm_calloc(idle, sizeof(*own)))) {
        return fm_no_memory(err);
    }
    for (uint32_t i = 0; i < idle; i++) {
        own[i] = d->in->workers[list[i].at].idle_since_ns;
    }
    qsort(own, idle, sizeof(*own), by_time);
    for (uint32_t k = 0; k < surplus; k++) {
        m->since_ns[k] = own[k] < m->since_ns[k] ? own[k] : m->since_ns[k];
    }
    free(own);
    return FM_OK;
}

static void note_need(fm_scale_t *scale, const fm_scale_demand_t *row,
                      int64_t now_ns)
{
    struct need *at = NULL;

    for (size_t i = 0; i < scale->need_count; i++) {
        struct need *need = &scale->needs[i];
        if (need->task_type == row->task_type && need->device == row->device &&
            need->memory_bytes == row->memory_bytes) {
            need->seen_ns = now_ns;
            return;
        }
        at = !at || need->seen_ns < at->seen_ns ? need : at;
    }
    if (scale->need_count < FM_SCALE_NEEDS_MAX) {
        at = &scale->needs[scale->need_count++];
    }
    *at = (struct need){row->task_type, row->device, row->memory_bytes, now_ns};
}

/* Whether, without @p class_index, workers are left for all that it can do
 * and that has been asked for. */
static bool covered(const struct decision *d, uint32_t class_index)
{
    for (size_t i = 0; i < d->scale->need_count; i++) {
        const struct need *n = &d->scale->needs[i];
        bool mine = false;
        bool others = false;
        for (uint32_t c = 0; c < d->in->class_count; c++) {
            bool fits = fm_scale_fits(d->classes[c].spec, n->task_type,
                                      n->device, n->memory_bytes);
            mine = mine || (fits && c == class_index);
            others =
                others || (fits && c != class_index && d->classes[c].live > 0);
        }
        if (mine && !others) {
            return false;
        }
    }
    return true;
}

/* Seconds of idleness that cost as much as getting the worker back. */
static double break_even_s(const struct decision *d, uint32_t class_index,
                           const fm_scale_worker_t *worker)
{
    const struct fleet_class *class = &d->classes[class_index];
    double s = class->spec->startup_s;

    if (worker->resident_count) {
        s += d->scale->memory[class_index].load_s;
    }
    /* Work as before would wait for the start of the last that can do it. */
    if (class->live == 1 && !covered(d, class_index) && class->price_s > 0) {
        s += d->scale->opts.wait_dollars_per_hour / 3600 *
             class->spec->startup_s / class->price_s;
    }
    return s * d->scale->opts.keep;
}

static fm_status_t drain_idle(struct decision *d, uint32_t class_index,
                              const struct leaver *list, fm_error_t *err)
{
    struct fleet_class *class = &d->classes[class_index];
    struct memory *m = &d->scale->memory[class_index];
    uint32_t idle = class->idle;
    uint32_t surplus = idle > class->needed ? idle - class->needed : 0;
    fm_status_t rc = remember(m, d, list, idle, surplus, err);
    uint32_t gone = 0;

    if (rc < 0) {
        return rc;
    }
    for (; gone<surplus &&class->live> class->spec->min; gone++) {
        const fm_scale_worker_t *worker = &d->in->workers[list[gone].at];
        double keep = break_even_s(d, class_index, worker);
        double idle_s =
            ((double)d->in->now_ns - (double)m->since_ns[gone]) * 1e-9;
        if (idle_s < keep) {
            int64_t due = fm_scale_later(m->since_ns[gone], keep);
            d->scale->wake_ns =
                due < d->scale->wake_ns ? due : d->scale->wake_ns;
            break;
        }
        fm_scale_action_t action = {
            .kind = FM_SCALE_DRAIN,
            .reason = FM_SCALE_IDLE,
            .class_index = class_index,
            .count = 1,
            .worker = worker->id,
            .now = true,
            .demand = FM_SCALE_NONE,
            .saves_dollars = class->price_s * idle_s,
            .costs_dollars = class->price_s * keep / d->scale->opts.keep,
            .idle_s = idle_s,
            .keep_s = keep,
        };
        if (!fm_scale_act(d, &action)) {
            break;
        }
        class->live--;
    }
    /* Those that stay are the later units. */
    for (size_t k = gone; gone && k < m->count; k++) {
        m->since_ns[k - gone] = m->since_ns[k];
    }
    m->count -= gone;
    class->idle -= gone;
    return FM_OK;
}

static void drain_over_max(struct decision *d, uint32_t class_index,
                           const struct leaver *list, size_t count, size_t gone)
{
    struct fleet_class *class = &d->classes[class_index];

    for (; gone<count &&class->live> class->spec->max; gone++) {
        const fm_scale_worker_t *worker = &d->in->workers[list[gone].at];
        fm_scale_action_t action = {
            .kind = FM_SCALE_DRAIN,
            .reason = FM_SCALE_MAX,
            .class_index = class_index,
            .count = 1,
            .worker = worker->id,
            .now = !list[gone].busy,
            .demand = FM_SCALE_NONE,
            .at_risk_s = list[gone].at_risk_s,
        };
        if (!fm_scale_act(d, &action)) {
            return;
        }
        class->live--;
        class->idle -= !list[gone].busy && !list[gone].starting;
    }
}

/* Seconds on @p to for what takes @p seconds on @p from. */
static double translate(const struct decision *d, uint32_t task_class,
                        uint32_t from, uint32_t to, double seconds)
{
    fm_cost_estimate_t one;
    fm_cost_estimate_t two;

    fm_cost_estimate(d->scale->cost, task_class, from, 1, &one);
    fm_cost_estimate(d->scale->cost, task_class, from, 2, &two);
    double unit = two.seconds - one.seconds;
    double call = one.seconds - unit;
    double work = unit > 0 && seconds > call ? (seconds - call) / unit : 0;
    fm_cost_estimate(d->scale->cost, task_class, from, work, &one);
    fm_cost_estimate(d->scale->cost, task_class, to, work, &two);
    return seconds * two.seconds / one.seconds;
}

/* Stop a busy worker where an idle one of a cheaper class would do the rest,
 * and the lost part again, for less. */
static bool move(struct decision *d, const fm_scale_worker_t *worker)
{
    const fm_scale_options_t *opts = &d->scale->opts;
    struct fleet_class *from = &d->classes[worker->class_index];
    double left = fm_scale_seconds(d, worker->free_at_ns);
    double saves = from->price_s * left;

    for (uint32_t c = 0; c < d->in->class_count; c++) {
        struct fleet_class *to = &d->classes[c];
        if (to->idle <= to->needed || to->price_s >= from->price_s ||
            !fm_scale_fits(to->spec, worker->task_type, from->spec->device,
                           worker->memory_bytes)) {
            continue;
        }
        double run =
            translate(d, worker->task_class, from->spec->device_class,
                      to->spec->device_class, left + worker->at_risk_s) +
            d->scale->memory[c].load_s;
        double later = run > left ? run - left : 0;
        double costs =
            to->price_s * run + opts->wait_dollars_per_hour / 3600 * later;
        if (saves <= costs * (1 + opts->margin)) {
            continue;
        }
        fm_scale_action_t action = {
            .kind = FM_SCALE_DRAIN,
            .reason = FM_SCALE_MOVE,
            .class_index = worker->class_index,
            .count = 1,
            .worker = worker->id,
            .now = true,
            .demand = FM_SCALE_NONE,
            .saves_dollars = saves,
            .costs_dollars = costs,
            .at_risk_s = worker->at_risk_s,
        };
        if (!fm_scale_act(d, &action)) {
            return false;
        }
        to->needed++;
        from->live--;
        return true;
    }
    return true;
}

struct by_price {
    double price_s;
    uint32_t class_index;
};

/* The most expensive first: what is left is the cheapest that will do. */
static int dearest(const void *a, const void *b)
{
    const struct by_price *x = a;
    const struct by_price *y = b;

    if (x->price_s < y->price_s || x->price_s > y->price_s) {
        return x->price_s > y->price_s ? -1 : 1;
    }
    return x->class_index < y->class_index ? -1 : 1;
}

static void drain_busy(struct decision *d)
{
    for (size_t w = 0; w < d->in->worker_count; w++) {
        const fm_scale_worker_t *worker = &d->in->workers[w];
        const struct fleet_class *class = &d->classes[worker->class_index];
        if (!worker->draining && !worker->starting &&
            worker->free_at_ns > d->in->now_ns &&
            class->live > class->spec->min && class->live <= class->spec->max &&
            !move(d, worker)) {
            return;
        }
    }
}

fm_status_t fm_scale_drain(struct decision *d, fm_error_t *err)
{
    struct by_price order[FM_SCALE_CLASSES_MAX];
    struct leaver *list = fm_calloc(d->in->worker_count + 1, sizeof(*list));
    fm_status_t rc = list ? FM_OK : fm_no_memory(err);

    for (size_t i = 0; i < d->in->demand_count; i++) {
        note_need(d->scale, &d->in->demands[i], d->in->now_ns);
    }
    for (uint32_t c = 0; c < d->in->class_count; c++) {
        order[c] = (struct by_price){d->classes[c].price_s, c};
    }
    qsort(order, d->in->class_count, sizeof(*order), dearest);
    for (uint32_t i = 0; rc == FM_OK && i < d->in->class_count; i++) {
        uint32_t c = order[i].class_index;
        size_t count = gather(d, c, list);
        uint32_t before = d->classes[c].live;
        if ((rc = drain_idle(d, c, list, err)) == FM_OK) {
            drain_over_max(d, c, list, count, before - d->classes[c].live);
        }
    }
    if (rc == FM_OK) {
        drain_busy(d);
    }
    free(list);
    return rc;
}
