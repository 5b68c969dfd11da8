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
#include <string.h>

#include "base/mem.h"
#include "plan/place/internal.h"

/* Tasks of a line looked at past a head that only itself can not be placed:
 * workers that failed it, walltime.  More of them wait for those in front. */
#define LOOKS_MAX 64u

fm_status_t fm_place_queue_init(struct queue *queue, fm_error_t *err)
{
    *queue = (struct queue){.line_ids = fm_map_create()};
    return queue->line_ids ? FM_OK : fm_no_memory(err);
}

void fm_place_queue_fini(struct queue *queue)
{
    free(queue->entries);
    free(queue->lines);
    fm_map_destroy(queue->line_ids);
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

static fm_status_t line_find(fm_place_t *place, struct queue *queue,
                             const struct chooser *chooser,
                             const struct entry *entry, uint32_t *line_out,
                             fm_error_t *err)
{
    const fm_place_task_t *needs = &entry->task->needs;
    uint64_t traits[] = {needs->task_type,
                         (uint64_t)needs->device,
                         needs->gang,
                         needs->memory_bytes,
                         needs->item_memory_bytes,
                         chooser->mark ? chooser->mark(place, entry) : 0};
    fm_digest_t key = fm_sha256(traits, sizeof(traits));
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
        queue->entries[queue->entry_count++] =
            (struct entry){.workflow = NONE,
                           .line = NONE,
                           .next = NONE,
                           .prev = NONE,
                           .sibling = NONE};
    }
    return FM_OK;
}

static fm_status_t entry_take(fm_place_t *place, struct queue *queue,
                              const struct chooser *chooser, uint32_t batch,
                              fm_error_t *err)
{
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
    entry->workflow = fm_pool_batch_next(place->pool, batch).workflow;
    if (!entry->seen && chooser->seen &&
        (rc = chooser->seen(place, batch)) < 0) {
        return rc;
    }
    entry->seen = true;
    if ((rc = line_find(place, queue, chooser, entry, &line, err)) < 0) {
        return rc;
    }
    line_insert(queue, line, batch);
    return FM_OK;
}

void fm_place_queue_move(fm_place_t *place, struct queue *queue,
                         const struct chooser *chooser, uint32_t batch)
{
    struct entry *entry = &queue->entries[batch];
    uint32_t line = NONE;

    if (entry->line == NONE) {
        return;
    }
    if (line_find(place, queue, chooser, entry, &line, NULL) < 0) {
        queue->missed = true;
        return;
    }
    line_unlink(queue, batch);
    line_insert(queue, line, batch);
}

void fm_place_queue_pull(fm_place_t *place, struct queue *queue,
                         const struct chooser *chooser)
{
    fm_pool_batch_t none;
    uint32_t batch = 0;
    bool missed = false;

    if (queue->missed) {
        for (uint32_t b = 0; b < queue->entry_count ||
                             fm_pool_batch_get(place->pool, b, &none) ||
                             !fm_digest_is_zero(&none.key);
             b++) {
            missed =
                entry_take(place, queue, chooser, b, NULL) < 0 || missed;
        }
        queue->missed = missed;
    }
    while (fm_pool_next_dirty(place->pool, &batch)) {
        if (entry_take(place, queue, chooser, batch, NULL) < 0) {
            queue->missed = true;
        }
    }
}

/* --- deciding ------------------------------------------------------------ */

static void choice_fill(fm_place_t *place, const struct chooser *chooser,
                        const struct entry *entry, uint32_t worker,
                        int64_t now_ns, fm_place_choice_t *choice)
{
    const fm_sched_worker_t *is = &place->workers[worker].is;

    *choice = (fm_place_choice_t){
        .batch_key = entry->task->key,
        .worker = worker,
        .size = fm_place_whole_size(entry->task, entry->ready.ready),
        .max_nodes = chooser->max_nodes,
        .resource = is->device_class,
        .avoid_waived = fm_place_avoided(entry, worker),
    };
    choice->gang = fm_place_gang(place, chooser, entry, worker, now_ns,
                                 choice->workers);
    fm_place_estimate(place, entry, worker, &choice->terms);
    choice->terms.avoid_waived = choice->avoid_waived;
    choice->seconds = choice->terms.total_s;
    choice->dollars = choice->terms.dollars * choice->gang;
    choice->joules = choice->terms.joules * choice->gang;
}

/* The first task of @p line that gets a worker and comes before @p best. */
static uint32_t line_look(fm_place_t *place, struct queue *queue,
                          const struct chooser *chooser, struct line *line,
                          uint32_t best, int64_t now_ns, uint32_t *worker_out)
{
    uint32_t looks = 0;
    bool own = false;

    for (uint32_t b = line->head; b != NONE && looks < LOOKS_MAX;
         b = queue->entries[b].next, looks++) {
        if (best != NONE && !before(queue, b, best)) {
            return NONE;
        }
        own = false;
        uint32_t worker =
            chooser->choose(place, &queue->entries[b], now_ns, &own);
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

bool fm_place_queue_next(fm_place_t *place, struct queue *queue,
                         const struct chooser *chooser, int64_t now_ns,
                         fm_place_choice_t *choice)
{
    uint32_t best = NONE;
    uint32_t best_worker = NONE;

    if (fm_place_idle_next(place, 0) == NONE) {
        return false;
    }
    for (size_t i = 0; i < queue->line_count; i++) {
        struct line *line = &queue->lines[i];
        uint32_t worker = NONE;
        if (line->count == 0 || line->failed == place->version) {
            continue;
        }
        uint32_t found = line_look(place, queue, chooser, line, best, now_ns,
                                   &worker);
        if (found != NONE) {
            best = found;
            best_worker = worker;
        }
    }
    if (best == NONE) {
        return false;
    }
    const struct entry *entry = &queue->entries[best];
    choice_fill(place, chooser, entry, best_worker, now_ns, choice);
    for (uint32_t i = 0; i < choice->gang; i++) {
        chooser->commit(place, entry, choice->workers[i]);
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

static void verdict_fill(fm_place_t *place, const struct chooser *chooser,
                         const struct entry *entry, uint32_t chosen,
                         int64_t now_ns, fm_place_verdict_t *why)
{
    fm_sched_verdict_t verdict = filter_verdict(place, entry, now_ns);

    why->text = NULL;
    if (chosen != NONE) {
        verdict = FM_SCHED_PLACE;
    } else if (verdict == FM_SCHED_PLACE) {
        verdict = FM_SCHED_WAIT_WORKERS;
        why->text = chooser->blocked(place, entry);
    }
    why->verdict = verdict;
    if (!why->text) {
        why->text = fm_sched_verdict_text(verdict);
    }
}

size_t fm_place_queue_explain(fm_place_t *place, struct queue *queue,
                              const struct chooser *chooser, uint32_t batch,
                              int64_t now_ns, fm_sched_candidate_t *list,
                              size_t cap, fm_place_verdict_t *why)
{
    size_t count = 0;
    bool own = false;

    fm_place_queue_pull(place, queue, chooser);
    if (batch >= queue->entry_count || queue->entries[batch].line == NONE) {
        *why = (fm_place_verdict_t){
            FM_SCHED_WAIT_NO_WORK,
            fm_sched_verdict_text(FM_SCHED_WAIT_NO_WORK)};
        return 0;
    }
    const struct entry *entry = &queue->entries[batch];
    uint32_t chosen = chooser->choose(place, entry, now_ns, &own);
    for (uint32_t i = 0; i <= place->worker_count; i++) {
        uint32_t worker = i == 0 ? chosen : i - 1; /* the chosen one first */
        if (worker == NONE || (i > 0 && worker == chosen) ||
            fm_place_fit(place, entry, worker, now_ns) != FM_SCHED_PLACE) {
            continue;
        }
        if (count < cap) {
            fm_sched_candidate_t *to = &list[count];
            to->worker = worker;
            to->size =
                fm_place_whole_size(entry->task, entry->ready.ready);
            to->idle = fm_place_is_idle(place, worker);
            fm_place_estimate(place, entry, worker, &to->terms);
            int64_t free_at_ns = place->workers[worker].is.free_at_ns;
            to->terms.wait_s = to->idle || free_at_ns <= now_ns
                                   ? 0
                                   : (double)(free_at_ns - now_ns) / 1e9;
            to->terms.total_s += to->terms.wait_s;
        }
        count++;
    }
    verdict_fill(place, chooser, entry, chosen, now_ns, why);
    return count;
}
