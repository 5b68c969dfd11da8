/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A baseline's tasks.  Tasks that the same workers fit stand in one line, in
 * the order they are to be served; a decision looks at the heads of the lines.
 * When no idle worker fits a line it is left alone until place->version says
 * that one may: a decision costs O(lines + idle workers), not O(tasks).
 *
 * Order: priority, then arrival, then batch id.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/place/internal.h"

/* Tasks of a line looked at past a head that only itself can not be placed:
 * workers that failed it, walltime.  More of them wait for those in front. */
#define LOOKS_MAX 64u

static struct queue *queue_of(const fm_place_t *place)
{
    return place->state;
}

fm_status_t fm_place_baseline_create(fm_place_t *place, fm_error_t *err)
{
    struct queue *queue = fm_calloc(1, place->policy->state_bytes);

    place->state = queue;
    if (!queue || !(queue->line_ids = fm_map_create())) {
        return fm_no_memory(err);
    }
    return FM_OK;
}

void fm_place_baseline_destroy(fm_place_t *place)
{
    struct queue *queue = queue_of(place);

    if (place->policy->chooser->fini) {
        place->policy->chooser->fini(place);
    }
    free(queue->entries);
    free(queue->lines);
    fm_map_destroy(queue->line_ids);
    free(queue);
}

/* --- lines --------------------------------------------------------------- */

/* Whether task a is served before b. */
static bool before(const struct queue *queue, uint32_t a, uint32_t b)
{
    const fm_pool_batch_t *x = &queue->entries[a].ready;
    const fm_pool_batch_t *y = &queue->entries[b].ready;

    if (x->priority != y->priority) {
        return x->priority > y->priority;
    }
    return x->oldest_ns != y->oldest_ns ? x->oldest_ns < y->oldest_ns : a < b;
}

static fm_status_t line_find(const fm_place_t *place, const struct entry *entry,
                             uint32_t *line_out, fm_error_t *err)
{
    struct queue *queue = queue_of(place);
    const struct chooser *chooser = place->policy->chooser;
    const fm_place_task_t *needs = &entry->task->needs;
    uint64_t traits[] = {chooser->mark ? chooser->mark(place, entry) : 0,
                         needs->task_type,
                         (uint64_t)needs->device,
                         needs->gang,
                         needs->memory_bytes,
                         needs->item_memory_bytes};
    fm_digest_t key =
        fm_sha256(traits, traits[0] & FM_PLACE_MARK_ALONE ? sizeof(traits[0])
                                                          : sizeof(traits));
    const uint64_t *known = fm_map_get(queue->line_ids, &key);
    fm_status_t rc = FM_OK;

    if (known) {
        *line_out = (uint32_t)*known;
        return FM_OK;
    }
    if ((rc = fm_grow((void *)&queue->lines, &queue->line_capacity,
                      queue->line_count, sizeof(struct line), err)) < 0 ||
        (rc = fm_map_put(queue->line_ids, &key, queue->line_count, err)) < 0) {
        return rc;
    }
    *line_out = (uint32_t)queue->line_count;
    queue->lines[queue->line_count++] =
        (struct line){.head = NONE, .tail = NONE};
    return FM_OK;
}

static void line_unlink(struct queue *queue, uint32_t batch)
{
    struct entry *entry = &queue->entries[batch];

    if (entry->line == NONE) {
        return;
    }
    struct line *line = &queue->lines[entry->line];
    if (entry->prev == NONE) {
        line->head = entry->next;
    } else {
        queue->entries[entry->prev].next = entry->next;
    }
    if (entry->next == NONE) {
        line->tail = entry->prev;
    } else {
        queue->entries[entry->next].prev = entry->prev;
    }
    line->count--;
    entry->line = entry->next = entry->prev = NONE;
}

/* The task that @p batch comes after, or NONE: from both ends at once, because
 * new tasks belong near the tail and returned ones near the head. */
static uint32_t line_place(const struct queue *queue, const struct line *line,
                           uint32_t batch)
{
    uint32_t front = line->head;
    uint32_t back = line->tail;

    while (back != NONE && before(queue, batch, back)) {
        if (before(queue, batch, front)) {
            return queue->entries[front].prev;
        }
        front = queue->entries[front].next;
        back = queue->entries[back].prev;
    }
    return back;
}

static void line_insert(struct queue *queue, uint32_t id, uint32_t batch)
{
    struct line *line = &queue->lines[id];
    struct entry *entry = &queue->entries[batch];

    entry->line = id;
    entry->prev = line_place(queue, line, batch);
    entry->next =
        entry->prev == NONE ? line->head : queue->entries[entry->prev].next;
    if (entry->prev == NONE) {
        line->head = batch;
    } else {
        queue->entries[entry->prev].next = batch;
    }
    if (entry->next == NONE) {
        line->tail = batch;
    } else {
        queue->entries[entry->next].prev = batch;
    }
    line->count++;
    line->failed = 0; /* another may fit where those before it did not */
}

/* --- following the pool -------------------------------------------------- */

static fm_status_t entry_room(struct queue *queue, uint32_t batch,
                              fm_error_t *err)
{
    while (queue->entry_count <= batch) {
        fm_status_t rc =
            fm_grow((void *)&queue->entries, &queue->entry_capacity,
                    queue->entry_count, sizeof(struct entry), err);
        if (rc < 0) {
            return rc;
        }
        queue->entries[queue->entry_count++] = (struct entry){.workflow = NONE,
                                                              .line = NONE,
                                                              .next = NONE,
                                                              .prev = NONE,
                                                              .sibling = NONE};
    }
    return FM_OK;
}

/* What one lease will get: of several merged nodes the pool knows no sizes, so
 * they count as large as the first. */
static uint32_t span_of(const fm_place_t *place, const struct entry *entry,
                        uint32_t node)
{
    uint32_t size = fm_place_whole_size(entry->task, entry->ready.ready);
    uint32_t nodes = place->policy->chooser->max_nodes;
    fm_pool_node_t is;

    if (nodes <= 1 ||
        fm_pool_node_get(place->pool, entry->workflow, node, &is) < 0) {
        return size;
    }
    uint64_t left = (uint64_t)is.items - is.ran - is.shared - is.failed;
    return left * nodes < size ? (uint32_t)(left * nodes) : size;
}

/* Read the summary of a batch key again and put it into its line. */
static fm_status_t entry_take(fm_place_t *place, uint32_t batch,
                              fm_error_t *err)
{
    struct queue *queue = queue_of(place);
    const struct chooser *chooser = place->policy->chooser;
    fm_status_t rc = entry_room(queue, batch, err);
    uint32_t line = NONE;

    if (rc < 0) {
        return rc;
    }
    struct entry *entry = &queue->entries[batch];
    line_unlink(queue, batch);
    if (!fm_pool_batch_get(place->pool, batch, &entry->ready) ||
        !(entry->task = fm_place_task_find(place, &entry->ready.key))) {
        return FM_OK;
    }
    fm_pool_ref_t first = fm_pool_batch_next(place->pool, batch);
    entry->workflow = first.workflow;
    entry->span = span_of(place, entry, first.node);
    if (!entry->seen && chooser->seen &&
        (rc = chooser->seen(place, batch, err)) < 0) {
        return rc;
    }
    entry->seen = true;
    if ((rc = line_find(place, entry, &line, err)) < 0) {
        return rc;
    }
    line_insert(queue, line, batch);
    return FM_OK;
}

void fm_place_queue_move(fm_place_t *place, uint32_t batch)
{
    struct queue *queue = queue_of(place);
    struct entry *entry = &queue->entries[batch];
    uint32_t line = NONE;

    if (entry->line == NONE) {
        return;
    }
    if (line_find(place, entry, &line, NULL) < 0) {
        queue->missed = true;
        return;
    }
    line_unlink(queue, batch);
    line_insert(queue, line, batch);
}

void fm_place_baseline_task_put(fm_place_t *place, const struct task *task)
{
    struct queue *queue = queue_of(place);
    uint32_t batch = fm_pool_batch_id(place->pool, &task->key);

    if (batch != NONE && entry_take(place, batch, NULL) < 0) {
        queue->missed = true;
    }
}

static void pull(fm_place_t *place)
{
    struct queue *queue = queue_of(place);
    uint32_t batch = 0;
    bool missed = false;

    if (queue->missed) { /* memory was out: read everything again */
        fm_pool_batch_t is;
        for (uint32_t b = 0; fm_pool_batch_get(place->pool, b, &is) ||
                             !fm_digest_is_zero(&is.key);
             b++) {
            missed = entry_take(place, b, NULL) < 0 || missed;
        }
        queue->missed = missed;
    }
    while (fm_pool_next_dirty(place->pool, &batch)) {
        if (entry_take(place, batch, NULL) < 0) {
            queue->missed = true;
        }
    }
}

/* --- deciding ------------------------------------------------------------ */

static void choice_fill(fm_place_t *place, const struct entry *entry,
                        uint32_t worker, int64_t now_ns,
                        fm_place_choice_t *choice)
{
    *choice = (fm_place_choice_t){
        .batch_key = entry->task->key,
        .worker = worker,
        .size = fm_place_whole_size(entry->task, entry->ready.ready),
        .max_nodes = place->policy->chooser->max_nodes,
        .resource = place->workers[worker].is.device_class,
        .avoid_waived = fm_place_avoided(entry, worker),
    };
    choice->gang = fm_place_gang(place, entry, worker, now_ns, choice->workers);
    fm_place_estimate(place, entry, worker, &choice->terms);
    choice->terms.avoid_waived = choice->avoid_waived;
    choice->seconds = choice->terms.total_s;
    choice->dollars = choice->terms.dollars * choice->gang;
    choice->joules = choice->terms.joules * choice->gang;
}

/* The first task of @p line that gets a worker, if it comes before @p best. */
static uint32_t line_look(fm_place_t *place, struct line *line, uint32_t best,
                          int64_t now_ns, uint32_t *worker_out)
{
    const struct queue *queue = queue_of(place);
    uint32_t looks = 0;

    for (uint32_t b = line->head; b != NONE && looks < LOOKS_MAX;
         b = queue->entries[b].next, looks++) {
        bool own = false;
        if (best != NONE && !before(queue, b, best)) {
            return NONE;
        }
        uint32_t worker = place->policy->chooser->choose(
            place, &queue->entries[b], now_ns, &own);
        if (worker != NONE) {
            *worker_out = worker;
            return b;
        }
        if (!own) {
            break;
        }
    }
    line->failed = place->version;
    return NONE;
}

static uint32_t look(fm_place_t *place, int64_t now_ns, uint32_t *worker_out)
{
    struct queue *queue = queue_of(place);
    uint32_t best = NONE;

    for (size_t i = 0; i < queue->line_count; i++) {
        struct line *line = &queue->lines[i];
        uint32_t found = NONE;
        if (line->count > 0 && line->failed != place->version) {
            found = line_look(place, line, best, now_ns, worker_out);
        }
        best = found != NONE ? found : best;
    }
    return best;
}

bool fm_place_baseline_next(fm_place_t *place, int64_t now_ns,
                            fm_place_choice_t *choice)
{
    const struct chooser *chooser = place->policy->chooser;
    uint32_t worker = NONE;
    uint32_t best = NONE;

    pull(place);
    if (chooser->begin) {
        chooser->begin(place, now_ns);
    }
    if (fm_place_idle_next(place, 0) != NONE) {
        best = look(place, now_ns, &worker);
    }
    if (best == NONE) {
        choice->wake_ns = chooser->wake ? chooser->wake(place) : 0;
        return false;
    }
    const struct entry *entry = &queue_of(place)->entries[best];
    choice_fill(place, entry, worker, now_ns, choice);
    for (uint32_t i = 0; i < choice->gang; i++) {
        chooser->commit(place, entry, choice->workers[i], now_ns);
    }
    return true;
}

/* --- explaining ---------------------------------------------------------- */

/* Which filter rules out the most lenient worker. */
static fm_sched_verdict_t filter_verdict(const fm_place_t *place,
                                         const struct entry *entry,
                                         int64_t now_ns)
{
    fm_sched_verdict_t verdict = FM_SCHED_WAIT_NO_WORKERS;

    for (uint32_t w = 0; w < place->worker_count; w++) {
        fm_sched_verdict_t fit = fm_place_fit(place, entry, w, now_ns);
        if (fit == FM_SCHED_PLACE) {
            return fit;
        }
        verdict = fit > verdict ? fit : verdict;
    }
    return verdict;
}

static void verdict_fill(const fm_place_t *place, const struct entry *entry,
                         uint32_t chosen, int64_t now_ns,
                         fm_place_verdict_t *why)
{
    fm_sched_verdict_t verdict = filter_verdict(place, entry, now_ns);

    why->text = NULL;
    if (chosen != NONE) {
        verdict = FM_SCHED_PLACE;
    } else if (verdict == FM_SCHED_PLACE && entry->task->needs.gang > 1) {
        verdict = FM_SCHED_WAIT_GANG;
    } else if (verdict == FM_SCHED_PLACE) {
        verdict = FM_SCHED_WAIT_WORKERS;
        why->text = place->policy->chooser->blocked(place, entry);
    }
    why->verdict = verdict;
    if (!why->text) {
        why->text = fm_sched_verdict_text(verdict);
    }
}

static void candidate_fill(const fm_place_t *place, const struct entry *entry,
                           uint32_t worker, int64_t now_ns,
                           fm_sched_candidate_t *out)
{
    int64_t free_at_ns = place->workers[worker].is.free_at_ns;

    *out = (fm_sched_candidate_t){.worker = worker,
                                  .size = entry->span,
                                  .idle = fm_place_is_idle(place, worker)};
    fm_place_estimate(place, entry, worker, &out->terms);
    if (!out->idle && free_at_ns > now_ns) {
        out->terms.wait_s = (double)(free_at_ns - now_ns) / 1e9;
        out->terms.total_s += out->terms.wait_s;
    }
}

size_t fm_place_baseline_explain(fm_place_t *place, uint32_t batch,
                                 int64_t now_ns, fm_sched_candidate_t *list,
                                 size_t cap, fm_place_verdict_t *why)
{
    const struct queue *queue = queue_of(place);
    size_t count = 0;
    bool own = false;

    pull(place);
    if (batch >= queue->entry_count || queue->entries[batch].line == NONE) {
        *why =
            (fm_place_verdict_t){FM_SCHED_WAIT_NO_WORK,
                                 fm_sched_verdict_text(FM_SCHED_WAIT_NO_WORK)};
        return 0;
    }
    const struct entry *entry = &queue->entries[batch];
    uint32_t chosen =
        place->policy->chooser->choose(place, entry, now_ns, &own);
    for (uint32_t i = 0; i <= place->worker_count; i++) {
        uint32_t worker = i == 0 ? chosen : i - 1; /* the chosen one first */
        if (worker == NONE || (i > 0 && worker == chosen) ||
            fm_place_fit(place, entry, worker, now_ns) != FM_SCHED_PLACE) {
            continue;
        }
        if (count < cap) {
            candidate_fill(place, entry, worker, now_ns, &list[count]);
        }
        count++;
    }
    verdict_fill(place, entry, chosen, now_ns, why);
    return count;
}
