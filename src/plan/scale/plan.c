/* SPDX-License-Identifier: Apache-2.0 */
/* The plan: demand, most urgent per second first, laid over the fleet.
 *
 * A row is cut into pieces of whole batches, so that one key can fill several
 * classes.  A trial is a class, a width and how many of the width are new; its
 * end comes from filling the workers to one level (they start at different
 * times).  The cheapest trial is taken and the fleet's free times move on, so
 * the next row sees what this one left. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "plan/scale/internal.h"

#define PIECES_MAX 8u
#define WIDTHS_MAX 72u

/* A piece of a row, and what all its trials share. */
struct piece {
    const fm_scale_demand_t *row;
    uint32_t index;
    double items;
    double waiters; /* of the piece; may be below 1 */
    double ready_s;
    double wait_dollars; /* of a waiter-second, age in it */
    uint32_t model;      /* in holders, or NONE */
};

struct trial {
    uint32_t class_index, width, fresh;
    bool grow; /* the sequence it was taken from */
    double end_s, load_s, run_s;
    double queue_s;         /* until workers are free, mean */
    double waits_s, late_s; /* waiter-seconds */
    double spend, dollars;  /* without and with the price of waits */
};

/* Workers in the order they can begin. */
struct segment {
    uint32_t count;
    uint32_t bucket; /* NONE: new ones */
    double free_s;
};

static uint32_t batch_cap(const fm_scale_demand_t *row,
                          const fm_scale_class_t *class)
{
    uint64_t cap = row->size_max ? row->size_max : 1;

    if (row->item_memory_bytes && class->memory_bytes) {
        uint64_t more = class->memory_bytes - row->memory_bytes;
        uint64_t fit = 1 + more / row->item_memory_bytes;
        cap = fit < cap ? fit : cap;
    }
    return (uint32_t)cap;
}

/* Seconds of one of @p width workers on its part of the items. */
static double run_s(const struct decision *d, const fm_scale_demand_t *row,
                    const fm_scale_class_t *class, double items, uint32_t width)
{
    double part = items / width;
    double batches = ceil(part / batch_cap(row, class) - 1e-9);
    fm_cost_estimate_t e;

    batches = batches < 1 ? 1 : batches;
    fm_cost_estimate(d->scale->cost, row->task_class, class->device_class,
                     part / batches * row->item_work, &e);
    return batches * e.seconds;
}

static size_t segments(const struct decision *d,
                       const struct fleet_class *class, bool grow,
                       struct segment *list)
{
    uint32_t room = class->room < d->total_room ? class->room : d->total_room;
    double startup = class->spec->startup_s;
    size_t n = 0;

    for (uint32_t b = 0; b < FM_SCALE_BUCKETS; b++) {
        const struct bucket *at = &class->buckets[b];
        double free_s = at->count ? at->sum_s / at->count : 0;
        if (grow && room && (free_s > startup || b == FM_SCALE_BUCKETS - 1)) {
            list[n++] = (struct segment){room, FM_SCALE_NONE, startup};
            grow = false;
        }
        if (at->count) {
            list[n++] = (struct segment){at->count, b, free_s};
        }
    }
    return n;
}

/* 1, 2, 3, 4, 6, 8, 12 … and the ends of the segments that matter: all idle
 * workers, everything. */
static size_t widths(uint32_t idle, uint32_t all, uint32_t cap, uint32_t *list)
{
    size_t n = 0;
    uint32_t most = all < cap ? all : cap;

    for (uint32_t w = 1; w<most; w = w> most / 2 ? most : w * 2) {
        list[n++] = w;
        if (w >= 2 && w / 2 * 3 < most) {
            list[n++] = w / 2 * 3;
        }
    }
    if (most) {
        list[n++] = most;
    }
    if (idle && idle < most) {
        size_t at = n;
        for (; at > 0 && list[at - 1] > idle; at--) {
            list[at] = list[at - 1];
        }
        list[at] = idle;
        n++;
    }
    return n;
}

/* Price a trial.  @p free_sum  of the free times, none before the piece is
 * ready; @p last  the latest of them.  False: the last worker would come after
 * the others are done. */
static bool price(const struct decision *d, const struct piece *piece,
                  double free_sum, double last, struct trial *t)
{
    const struct fleet_class *class = &d->classes[t->class_index];
    const fm_scale_options_t *opts = &d->scale->opts;
    uint32_t held =
        piece->model == FM_SCALE_NONE
            ? t->width
            : d->holders[piece->model * d->in->class_count + t->class_index];
    uint32_t loads = t->width > held ? t->width - held : 0;
    double k = t->width;

    if (piece->model != FM_SCALE_NONE && loads < t->fresh) {
        loads = t->fresh;
    }
    t->load_s = fm_scale_load_s(class->spec, piece->row->model_bytes);
    t->run_s = run_s(d, piece->row, class->spec, piece->items, t->width);
    double starts = (free_sum + loads * t->load_s) / k;
    t->end_s = starts + t->run_s;
    t->queue_s = free_sum / k - piece->ready_s;
    if (last > t->end_s) {
        return false;
    }
    /* Waiters are done one after the other: on average halfway. */
    double w = piece->waiters < 1 ? 1 : piece->waiters;
    double mean = starts - piece->ready_s + t->run_s * (w + 1) / (2 * w);
    t->waits_s = piece->waiters * mean;
    t->late_s = 0;
    if (piece->row->deadline_ns) {
        double left =
            ((double)piece->row->deadline_ns - (double)d->in->now_ns) * 1e-9;
        double late = t->end_s - (left > 0 ? left : 0);
        t->late_s = late > 0 ? late * piece->waiters : 0;
    }
    double start = t->fresh * class->spec->startup_s;
    t->spend = class->price_s * (start + loads * t->load_s + k * t->run_s);
    t->dollars =
        t->spend + class->price_s * start * opts->margin +
        piece->wait_dollars * (t->waits_s + opts->late_factor * t->late_s);
    return true;
}

/* The cheapest trial of a class from one sequence of workers; dollars stay
 * INFINITY where there is none. */
static void try_class(const struct decision *d, const struct piece *piece,
                      uint32_t class_index, bool grow, struct trial *best)
{
    const struct fleet_class *class = &d->classes[class_index];
    struct segment list[FM_SCALE_BUCKETS + 1];
    uint32_t wide[WIDTHS_MAX];
    size_t count = segments(d, class, grow, list);
    uint32_t all = 0;

    for (size_t i = 0; i < count; i++) {
        all += list[i].count;
    }
    double slices = run_s(d, piece->row, class->spec, piece->items, 1) /
                    d->scale->opts.grain_s;
    slices = slices < piece->items ? slices : piece->items;
    uint32_t cap = slices < 1     ? 1
                   : slices > 1e9 ? 1000000000u
                                  : (uint32_t)slices;
    size_t width_count = widths(class->buckets[0].count, all, cap, wide);

    double sum = 0;
    uint32_t taken = 0;
    uint32_t fresh = 0;
    size_t at = 0;
    for (size_t i = 0; i < count && at < width_count; i++) {
        const struct segment *s = &list[i];
        double from = s->free_s > piece->ready_s ? s->free_s : piece->ready_s;
        bool new = s->bucket == FM_SCALE_NONE;
        for (; at < width_count && wide[at] <= taken + s->count; at++) {
            uint32_t part = wide[at] - taken;
            struct trial t = {.class_index = class_index,
                              .width = wide[at],
                              .fresh = fresh + (new ? part : 0),
                              .grow = grow};
            if (price(d, piece, sum + part * from, from, &t) &&
                t.dollars < best->dollars) {
                *best = t;
            }
        }
        sum += s->count * from;
        taken += s->count;
        fresh += new ? s->count : 0;
    }
}

/* The fleet after the trial. */
static void take(struct decision *d, const struct piece *piece,
                 const struct trial *t)
{
    struct fleet_class *class = &d->classes[t->class_index];
    struct segment list[FM_SCALE_BUCKETS + 1];
    size_t count = segments(d, class, t->grow, list);
    uint32_t left = t->width;

    for (size_t i = 0; i < count && left; i++) {
        const struct segment *s = &list[i];
        uint32_t part = s->count < left ? s->count : left;
        left -= part;
        if (s->bucket == FM_SCALE_NONE) {
            class->room -= part;
            class->planned += part;
            d->total_room -= part;
            continue;
        }
        class->buckets[s->bucket].count -= part;
        class->buckets[s->bucket].sum_s -= part * s->free_s;
        /* Idle until it is ready, or gone and back: the cheaper. */
        if (s->bucket == 0 &&
            piece->ready_s <= class->spec->startup_s + t->load_s) {
            class->needed += part;
        }
    }
    struct bucket *to = &class->buckets[fm_scale_bucket(t->end_s)];
    to->count += t->width;
    to->sum_s += t->width * t->end_s;
    if (piece->model != FM_SCALE_NONE) {
        uint32_t *held =
            &d->holders[piece->model * d->in->class_count + t->class_index];
        *held = *held < t->width ? t->width : *held;
        class->load_s = fmax(class->load_s, t->load_s);
    }
}

/* Why the new workers: what the piece would cost without them. */
static void explain_start(struct decision *d, const struct piece *piece,
                          const struct trial *t, const struct trial *without)
{
    struct fleet_class *class = &d->classes[t->class_index];
    fm_scale_action_t *why = &class->start;
    bool else_never = isinf(without->dollars);
    double waits = else_never ? INFINITY : without->waits_s;
    double weight = else_never ? INFINITY : without->dollars - t->dollars;

    why->count += t->fresh;
    why->waits_s += waits;
    why->saves_s += waits - t->waits_s;
    why->saves_dollars +=
        else_never ? INFINITY
                   : piece->wait_dollars * (waits - t->waits_s +
                                            d->scale->opts.late_factor *
                                                (without->late_s - t->late_s));
    why->costs_dollars += else_never ? class->price_s * t->fresh *
                                           (class->spec->startup_s + t->load_s)
                                     : t->spend - without->spend;
    if (why->count == t->fresh || weight > class->weight) {
        class->weight = weight;
        why->demand = piece->index;
        why->reason = piece->ready_s > 0            ? FM_SCALE_SUCCESSORS
                      : without->late_s > t->late_s ? FM_SCALE_DEADLINE
                                                    : FM_SCALE_BACKLOG;
    }
}

/* More than max would pay: doubling the width would save half of the wait. */
static void explain_hold(struct decision *d, const struct piece *piece,
                         uint32_t class_index, double waits_s)
{
    struct fleet_class *class = &d->classes[class_index];
    double price =
        class->price_s * class->spec->startup_s * (1 + d->scale->opts.margin);

    if (class->room && d->total_room) {
        return;
    }
    if (piece->wait_dollars * waits_s / 2 > price) {
        class->hold.count++;
        class->hold.saves_s += waits_s / 2;
        if (waits_s > class->hold_weight) {
            class->hold_weight = waits_s;
            class->hold.demand = piece->index;
        }
        class->hold.waits_s += waits_s;
    }
}

/* Ready work that queues: where one more worker would serve it for least, and
 * what that would save: of n + 1 workers' queue the part of one. */
static void note_queue(struct decision *d, const struct piece *piece)
{
    double best = INFINITY;
    double best_s = 0;
    uint32_t at = FM_SCALE_NONE;
    double serving = 0;

    for (uint32_t c = 0; c < d->in->class_count; c++) {
        const struct fleet_class *class = &d->classes[c];
        if (!fm_scale_fits(class->spec, piece->row->task_type,
                           piece->row->device, piece->row->memory_bytes)) {
            continue;
        }
        double s = run_s(d, piece->row, class->spec, piece->items, 1);
        serving += class->live;
        if (class->room && class->price_s * s < best) {
            best = class->price_s * s;
            best_s = s;
            at = c;
        }
    }
    if (at != FM_SCALE_NONE) {
        struct fleet_class *class = &d->classes[at];
        class->queue_s += best_s;
        class->regret_rate +=
            piece->wait_dollars * piece->waiters / (serving + 1);
        if (piece->waiters > class->regret_waiters) {
            class->regret_waiters = piece->waiters;
            class->regret_demand = piece->index;
        }
    }
}

static void place_piece(struct decision *d, const struct piece *piece)
{
    struct trial old = {.dollars = INFINITY};
    struct trial grown = {.dollars = INFINITY};
    double soonest = INFINITY;
    uint32_t fits = FM_SCALE_NONE;

    for (uint32_t c = 0; c < d->in->class_count; c++) {
        const fm_scale_class_t *spec = d->classes[c].spec;
        if (!fm_scale_fits(spec, piece->row->task_type, piece->row->device,
                           piece->row->memory_bytes)) {
            continue;
        }
        fits = fits == FM_SCALE_NONE ? c : fits;
        try_class(d, piece, c, false, &old);
        if (piece->ready_s <= spec->startup_s) {
            try_class(d, piece, c, true, &grown);
        } else { /* due later */
            soonest = fmin(soonest, piece->ready_s - spec->startup_s);
        }
    }
    const struct trial *best = grown.dollars < old.dollars ? &grown : &old;
    if (isinf(best->dollars)) {
        if (fits != FM_SCALE_NONE && isinf(soonest)) {
            explain_hold(d, piece, fits, INFINITY);
        }
    } else {
        if (best->fresh) {
            explain_start(d, piece, best, &old);
        }
        take(d, piece, best);
        if (piece->ready_s <= 0 && best->queue_s > d->scale->opts.grain_s) {
            note_queue(d, piece);
        }
        explain_hold(d, piece, best->class_index, best->waits_s);
    }
    if (!isinf(soonest)) {
        int64_t due = fm_scale_later(d->in->now_ns, soonest);
        d->scale->wake_ns = due < d->scale->wake_ns ? due : d->scale->wake_ns;
    }
}

static void place_row(struct decision *d, uint32_t index)
{
    const fm_scale_demand_t *row = &d->in->demands[index];
    const fm_scale_options_t *opts = &d->scale->opts;
    uint32_t whole = row->items / (row->size_max ? row->size_max : 1);
    uint32_t pieces = whole < 1 ? 1 : whole > PIECES_MAX ? PIECES_MAX : whole;
    double waited =
        row->oldest_ns && row->oldest_ns < d->in->now_ns
            ? ((double)d->in->now_ns - (double)row->oldest_ns) * 1e-9
            : 0;
    struct piece piece = {
        .row = row,
        .index = index,
        .waiters = (row->waiters > 0 ? row->waiters : 1) / pieces,
        .ready_s = row->ready_in_s,
        .wait_dollars = opts->wait_dollars_per_hour / 3600 *
                        (1 + waited / opts->age_scale_s),
        .model = row->model_bytes > 0 ? fm_scale_model(d, row->model)
                                      : FM_SCALE_NONE,
    };

    for (uint32_t p = 0; p < pieces; p++) {
        uint32_t items = row->items / pieces + (p < row->items % pieces);
        piece.items = items;
        place_piece(d, &piece);
    }
}

struct order {
    double ready_s, density;
    uint32_t index;
};

static int by_urgency(const void *a, const void *b)
{
    const struct order *x = a;
    const struct order *y = b;

    if (x->ready_s < y->ready_s || x->ready_s > y->ready_s) {
        return x->ready_s < y->ready_s ? -1 : 1;
    }
    if (x->density < y->density || x->density > y->density) {
        return x->density > y->density ? -1 : 1;
    }
    return x->index < y->index ? -1 : 1;
}

/* Waiters a second of work, where it runs fastest (Smith's rule); a deadline
 * counts more the less slack it leaves.  Negative: nothing can run it. */
static double density(const struct decision *d, const fm_scale_demand_t *row)
{
    double best = INFINITY;

    for (size_t c = 0; c < d->in->class_count; c++) {
        const fm_scale_class_t *spec = d->classes[c].spec;
        if (fm_scale_fits(spec, row->task_type, row->device,
                          row->memory_bytes)) {
            best = fmin(best, run_s(d, row, spec, row->items, 1));
        }
    }
    if (isinf(best)) {
        return -1;
    }
    double weight = row->waiters > 0 ? row->waiters : 1;
    if (row->oldest_ns && row->oldest_ns < d->in->now_ns) {
        weight *= 1 + ((double)d->in->now_ns - (double)row->oldest_ns) * 1e-9 /
                          d->scale->opts.age_scale_s;
    }
    if (row->deadline_ns) {
        double slack =
            ((double)row->deadline_ns - (double)d->in->now_ns) * 1e-9;
        slack = slack > best ? slack : best;
        weight *= 1 + d->scale->opts.late_factor * best / slack;
    }
    return weight / best;
}

fm_status_t fm_scale_plan(struct decision *d, fm_error_t *err)
{
    size_t count = d->in->demand_count;
    struct order *order = fm_calloc(count + 1, sizeof(*order));

    if (!order) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < count; i++) {
        order[i] = (struct order){
            .ready_s = d->in->demands[i].ready_in_s,
            .density = density(d, &d->in->demands[i]),
            .index = (uint32_t)i,
        };
    }
    qsort(order, count, sizeof(*order), by_urgency);
    for (size_t i = 0; i < count; i++) {
        if (order[i].density >= 0) {
            place_row(d, order[i].index);
        }
    }
    free(order);
    return FM_OK;
}
