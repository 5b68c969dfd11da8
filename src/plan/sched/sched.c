/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decision.
 *
 * Every candidate (batch, worker class, size) is scored once for the norms,
 * once more for each batch's best.  Then the best batch is assigned, again and
 * again.  An assignment makes workers busier and never freer, so utilities
 * only fall and a batch's recorded best is an upper bound: it is scored again
 * only when it comes to the top of the heap and its class has changed (lazy
 * greedy, Minoux 1978).
 *
 * Where the best worker is busy, the slice is held for it: that worker's free
 * time moves, nothing is placed, and the rest of the batch looks again.
 */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "plan/sched/internal.h"

#define HOLDS_MAX 32u /* slices held for busy workers, a batch and decision */

struct best {
    fm_sched_terms_t terms;
    uint32_t class; /* NONE: nothing fits */
    uint32_t version;
    uint32_t size;
};

struct state {
    struct view view;
    struct best best;
    fm_sched_choice_t held; /* first slice that waits for a busy worker */
    uint32_t ready, holds;
    bool has_held;
};

struct decision {
    const fm_sched_input_t *input;
    struct classes classes;
    struct state *states;
    uint32_t *heap;
    uint32_t heap_count;
    double gain_min, gain_max, loss_min, loss_max;
};

static double norm(double value, double min, double max, double alone)
{
    return max > min ? fmin(fmax((value - min) / (max - min), 0), 1) : alone;
}

static void utility_set(const struct decision *d, fm_sched_terms_t *terms)
{
    terms->gain_norm = norm(terms->gain, d->gain_min, d->gain_max, 1);
    terms->loss_norm = norm(terms->loss, d->loss_min, d->loss_max, 0);
    terms->utility = terms->lambda * terms->gain_norm -
                     (1 - terms->lambda) * terms->loss_norm;
}

static const fm_sched_worker_t *class_worker(const struct decision *d,
                                             uint32_t class)
{
    return &d->input->workers[d->classes.list[class].next];
}

static bool class_fits(const struct decision *d, const struct view *view,
                       uint32_t class)
{
    const fm_sched_worker_t *worker = class_worker(d, class);

    return fm_sched_fit(view, worker) == FM_SCHED_PLACE &&
           (view->waive || !fm_sched_avoided(view->batch, worker->id));
}

/* The size after @p size: doubling, with the fair share and the cap among
 * them; 0 after the last. */
static uint32_t size_next(const struct view *view, uint32_t size, uint32_t cap)
{
    if (size >= cap) {
        return 0;
    }
    uint32_t next = size > cap / 2 ? cap : size * 2;

    return size < view->fair && view->fair < next ? view->fair : next;
}

/* Long slices are not made while idle workers could share the items. */
static bool size_allowed(const struct view *view, uint32_t size, double run_s)
{
    return size <= view->fair || run_s <= view->grain_s;
}

typedef void candidate_fn(struct decision *d, struct state *state,
                          uint32_t class, uint32_t size,
                          fm_sched_terms_t *terms);

static uint32_t for_each_candidate(struct decision *d, struct state *state,
                                   candidate_fn *each)
{
    uint32_t count = 0;

    for (uint32_t c = 0; c < d->classes.count; c++) {
        if (!class_fits(d, &state->view, c)) {
            continue;
        }
        const fm_sched_worker_t *worker = class_worker(d, c);
        uint32_t cap = fm_sched_size_cap(&state->view, worker, state->ready);
        for (uint32_t size = 1; size > 0;
             size = size_next(&state->view, size, cap)) {
            fm_sched_terms_t terms;
            if (!fm_sched_score(&state->view, worker,
                                d->classes.list[c].free_at_ns, size, &terms) ||
                !size_allowed(&state->view, size, terms.run_s)) {
                break; /* larger ones take longer */
            }
            each(d, state, c, size, &terms);
            count++;
        }
    }
    return count;
}

static void candidate_range(struct decision *d, struct state *state,
                            uint32_t class, uint32_t size,
                            fm_sched_terms_t *terms)
{
    (void)state;
    (void)class;
    (void)size;
    d->gain_min = fmin(d->gain_min, terms->gain);
    d->gain_max = fmax(d->gain_max, terms->gain);
    d->loss_min = fmin(d->loss_min, terms->loss);
    d->loss_max = fmax(d->loss_max, terms->loss);
}

static void runner_up_set(fm_sched_terms_t *terms, uint32_t worker,
                          double utility)
{
    if (terms->runner_up == FM_SCHED_NONE ||
        utility > terms->runner_up_utility) {
        terms->runner_up = worker;
        terms->runner_up_utility = utility;
    }
}

/* Ties: the raw gain decides (norms may clamp), then the first class. */
static void candidate_best(struct decision *d, struct state *state,
                           uint32_t class, uint32_t size,
                           fm_sched_terms_t *terms)
{
    struct best *best = &state->best;

    utility_set(d, terms);
    bool better = best->class == FM_SCHED_NONE ||
                  terms->utility > best->terms.utility ||
                  (terms->utility >= best->terms.utility &&
                   terms->gain > best->terms.gain);
    if (!better) {
        if (class != best->class) {
            runner_up_set(&best->terms, class_worker(d, class)->id,
                          terms->utility);
        }
        return;
    }
    if (best->class != FM_SCHED_NONE) {
        terms->runner_up = best->terms.runner_up;
        terms->runner_up_utility = best->terms.runner_up_utility;
        if (best->class != class) {
            runner_up_set(terms, class_worker(d, best->class)->id,
                          best->terms.utility);
        }
    }
    best->terms = *terms;
    best->class = class;
    best->size = size;
}

static void best_find(struct decision *d, struct state *state)
{
    state->best.class = FM_SCHED_NONE;
    uint32_t count = for_each_candidate(d, state, candidate_best);

    state->best.terms.candidates = count;
    state->best.terms.classes = d->classes.count;
    if (state->best.class != FM_SCHED_NONE) {
        state->best.version = d->classes.list[state->best.class].version;
    }
}

/* --- the heap of batches, best utility first ----------------------------- */

static bool before(const struct decision *d, uint32_t a, uint32_t b)
{
    double ua = d->states[a].best.terms.utility;
    double ub = d->states[b].best.terms.utility;

    if (ua > ub || ua < ub) {
        return ua > ub;
    }
    double ga = d->states[a].best.terms.gain;
    double gb = d->states[b].best.terms.gain;
    return ga > gb || (ga >= gb && a < b);
}

static void sift_down(struct decision *d, uint32_t i)
{
    for (;;) {
        uint32_t top = i;
        for (uint32_t child = 2 * i + 1;
             child <= 2 * i + 2 && child < d->heap_count; child++) {
            if (before(d, d->heap[child], d->heap[top])) {
                top = child;
            }
        }
        if (top == i) {
            return;
        }
        uint32_t swap = d->heap[i];
        d->heap[i] = d->heap[top];
        d->heap[top] = swap;
        i = top;
    }
}

static void heap_drop_top(struct decision *d)
{
    d->heap[0] = d->heap[--d->heap_count];
    sift_down(d, 0);
}

/* --- input --------------------------------------------------------------- */

static bool nonnegative(double value)
{
    return isfinite(value) && value >= 0;
}

static fm_status_t input_check(const fm_sched_input_t *input, fm_error_t *err)
{
    if (input->batch_count > FM_SCHED_BATCHES_MAX ||
        input->worker_count > FM_SCHED_WORKERS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "%zu batches and %zu workers: at most %u and %u",
                            input->batch_count, input->worker_count,
                            FM_SCHED_BATCHES_MAX, FM_SCHED_WORKERS_MAX);
    }
    for (size_t k = 0; k < FM_SCHED_KINDS; k++) {
        if (!nonnegative(input->lambda[k]) || input->lambda[k] > 1) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "lambda[%zu] = %g is not in 0 to 1", k,
                                input->lambda[k]);
        }
    }
    for (size_t i = 0; i < input->batch_count; i++) {
        const fm_sched_batch_t *b = &input->batches[i];
        if ((unsigned)b->kind >= FM_SCHED_KINDS || b->task_type > 63 ||
            b->ready == 0 || !nonnegative(b->item_work) || b->item_work <= 0 ||
            !nonnegative(b->item_input_bytes) || !nonnegative(b->share)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "batch %zu: kind, task type, ready, work, "
                                "input bytes or share make no sense",
                                i);
        }
    }
    for (size_t i = 0; i < input->worker_count; i++) {
        const fm_sched_worker_t *w = &input->workers[i];
        if (!nonnegative(w->price_per_hour) || !nonnegative(w->watts) ||
            !nonnegative(w->hazard_per_hour) ||
            !nonnegative(w->load_bytes_per_s) ||
            !nonnegative(w->fetch_bytes_per_s)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "worker %zu: price, watts, hazard or rates "
                                "make no sense",
                                i);
        }
    }
    return FM_OK;
}

/* Waive the avoid set where no other worker fits; count the idle ones. */
static void view_finish(const struct decision *d, struct state *state)
{
    struct view *view = &state->view;
    uint32_t idle = 0;
    uint32_t fitting = 0;

    for (int pass = 0; pass < 2 && fitting == 0; pass++) {
        view->waive = pass == 1;
        for (uint32_t c = 0; c < d->classes.count; c++) {
            if (class_fits(d, view, c)) {
                fitting++;
                idle += d->classes.list[c].idle;
            }
        }
    }
    uint32_t sharers = idle ? idle : 1;
    view->fair = state->ready / sharers + (state->ready % sharers != 0);
}

static fm_status_t decision_make(struct decision *d, fm_error_t *err)
{
    const fm_sched_input_t *input = d->input;
    uint32_t n = (uint32_t)input->batch_count;
    fm_status_t rc = fm_sched_classes_make(input, &d->classes, err);

    if (rc < 0) {
        return rc;
    }
    if (!(d->states = fm_calloc(n, sizeof(*d->states))) ||
        !(d->heap = fm_malloc(n * sizeof(*d->heap)))) {
        return fm_no_memory(err);
    }
    d->gain_min = d->loss_min = INFINITY;
    d->gain_max = d->loss_max = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        d->states[i].ready = input->batches[i].ready;
        fm_sched_view_make(input, i, &d->states[i].view);
        view_finish(d, &d->states[i]);
        (void)for_each_candidate(d, &d->states[i], candidate_range);
    }
    for (uint32_t i = 0; i < n; i++) {
        best_find(d, &d->states[i]);
        if (d->states[i].best.class != FM_SCHED_NONE) {
            d->heap[d->heap_count++] = i;
        }
    }
    for (uint32_t i = d->heap_count / 2; i-- > 0;) {
        sift_down(d, i);
    }
    return FM_OK;
}

/* --- choosing ------------------------------------------------------------ */

/* Assign the best slice of the batch on top; true when it was placed. */
static bool assign(struct decision *d, uint32_t batch,
                   fm_sched_choice_t *choice)
{
    struct state *state = &d->states[batch];
    struct class *class = &d->classes.list[state->best.class];
    bool idle = class->free_at_ns <= d->input->now_ns;
    double until = (double)d->input->now_ns + state->best.terms.total_s * 1e9;

    *choice = (fm_sched_choice_t){.verdict = idle ? FM_SCHED_PLACE
                                                  : FM_SCHED_WAIT_BUSY,
                                  .batch = batch,
                                  .worker = class->next,
                                  .size = state->best.size,
                                  .terms = state->best.terms};
    if (!idle && !state->has_held) {
        state->held = *choice;
        state->has_held = true;
    }
    fm_sched_class_take(&d->classes, state->best.class, d->input->now_ns,
                        until < 9e18 ? (int64_t)until : INT64_MAX);
    state->ready -= state->best.size;
    state->holds += !idle;
    return idle;
}

static size_t place_all(struct decision *d, fm_sched_choice_t *choices,
                        size_t cap)
{
    size_t count = 0;

    while (d->heap_count > 0 && d->classes.idle > 0 && count < cap) {
        uint32_t batch = d->heap[0];
        struct state *state = &d->states[batch];

        if (state->best.version != d->classes.list[state->best.class].version) {
            best_find(d, state);
            if (state->best.class == FM_SCHED_NONE) {
                heap_drop_top(d);
            } else {
                sift_down(d, 0);
            }
            continue;
        }
        fm_sched_choice_t choice;
        if (assign(d, batch, &choice)) {
            choices[count++] = choice;
        }
        if (state->ready == 0 || state->holds >= HOLDS_MAX) {
            heap_drop_top(d);
        }
    }
    return count;
}

/* Which hard constraint rules out the most lenient worker. */
static fm_sched_verdict_t unfit_verdict(const struct decision *d,
                                        const struct state *state)
{
    fm_sched_verdict_t verdict = FM_SCHED_WAIT_NO_WORKERS;

    for (uint32_t c = 0; c < d->classes.count; c++) {
        fm_sched_verdict_t fit = fm_sched_fit(&state->view, class_worker(d, c));
        fit = fit == FM_SCHED_PLACE ? FM_SCHED_WAIT_WALLTIME : fit;
        verdict = fit > verdict ? fit : verdict;
    }
    return verdict;
}

static size_t explain_rest(struct decision *d, fm_sched_choice_t *choices,
                           size_t cap, size_t count)
{
    for (uint32_t i = 0; i < d->input->batch_count && count < cap; i++) {
        struct state *state = &d->states[i];

        if (state->has_held) {
            choices[count++] = state->held;
        } else if (state->ready > 0) {
            choices[count++] = (fm_sched_choice_t){
                .verdict = state->best.class == FM_SCHED_NONE
                               ? unfit_verdict(d, state)
                               : FM_SCHED_WAIT_WORKERS,
                .batch = i,
                .worker = FM_SCHED_NONE};
        }
    }
    return count;
}

fm_status_t fm_sched_decide(const fm_sched_input_t *input,
                            fm_sched_choice_t *choices, size_t cap,
                            size_t *count_out, fm_error_t *err)
{
    struct decision d = {.input = input};
    fm_status_t rc = input_check(input, err);

    if (rc == FM_OK) {
        rc = decision_make(&d, err);
    }
    if (rc == FM_OK) {
        size_t count = place_all(&d, choices, cap);
        *count_out = explain_rest(&d, choices, cap, count);
    }
    fm_sched_classes_fini(&d.classes);
    free(d.states);
    free(d.heap);
    return rc;
}
