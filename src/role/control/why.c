/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why work goes where it goes, and why it waits: the records of decisions
 * (decision.h) for `flowmesh explain`.
 *
 * A PLACE is made with every lease.  A WAIT is made where a batch key that has
 * waited for a beat changed what it waits for; one that only changes the
 * worker it waits for is told again after 1, 2, 4 … 64 beats, so a long wait
 * costs a few records.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "plan/key/key.h"
#include "role/control/decision.h"
#include "role/control/internal.h"

/* Looked at for one record: sizes of a worker are many, workers kept few. */
#define LOOK_MAX 24u
/* Of one beat: batch keys visited, and those asked for. */
#define VISITS_MAX 4096u
#define ASKS_MAX 64u
#define BEATS_MAX 64u

/* What was last told of a batch key. */
struct told {
    fm_sched_verdict_t verdict;
    uint32_t worker;
    uint32_t beats; /* until a change of worker is told again */
    uint32_t left;
    bool waits;
    bool blocked; /* by a quota */
};

static fm_span_t span(const char *text)
{
    return (fm_span_t){text ? text : "", text ? strlen(text) : 0};
}

static void candidate_add(const fm_control_t *control, uint32_t worker,
                          uint32_t size, bool idle,
                          const fm_sched_terms_t *terms, fm_decision_t *to)
{
    if (to->candidate_count < FM_DECISION_CANDIDATES_MAX &&
        worker < control->worker_count) {
        to->candidates[to->candidate_count++] = (fm_decision_candidate_t){
            span(control->workers[worker].name), size, idle, *terms};
    }
}

/* Whether @p list has its worker before @p at. */
static bool worker_seen(const fm_sched_candidate_t *list, size_t at)
{
    bool seen = false;

    for (size_t k = 0; k < at && !seen; k++) {
        seen = list[k].worker == list[at].worker;
    }
    return seen;
}

/*
 * The candidates that were not chosen, best first: as many other workers as
 * there is room for, each with its best size, then other sizes of the chosen
 * one.  @p list is best first; @p chosen NULL: none was.
 */
static void candidates_add(const fm_control_t *control,
                           const fm_sched_candidate_t *list, size_t count,
                           const fm_place_choice_t *chosen, fm_decision_t *to)
{
    uint32_t first = to->candidate_count;

    for (size_t i = 0; i < count; i++) {
        if (!worker_seen(list, i) &&
            !(chosen && list[i].worker == chosen->worker)) {
            candidate_add(control, list[i].worker, list[i].size, list[i].idle,
                          &list[i].terms, to);
        }
    }
    for (size_t i = 0; chosen && i < count; i++) {
        if (list[i].worker == chosen->worker && list[i].size != chosen->size) {
            candidate_add(control, list[i].worker, list[i].size, list[i].idle,
                          &list[i].terms, to);
        }
    }
    for (uint32_t i = first + 1; i < to->candidate_count; i++) {
        fm_decision_candidate_t moved = to->candidates[i];
        uint32_t at = i;
        for (; at > first &&
               to->candidates[at - 1].terms.utility < moved.terms.utility;
             at--) {
            to->candidates[at] = to->candidates[at - 1];
        }
        to->candidates[at] = moved;
    }
}

static void ranges_add(const struct lease *lease, fm_decision_t *to)
{
    for (uint32_t i = 0; i < lease->count; i++) {
        const fm_pool_ref_t *ref = &lease->refs[i];
        fm_decision_range_t *last =
            to->range_count ? &to->ranges[to->range_count - 1] : NULL;
        if (last && last->workflow == ref->workflow &&
            last->node == ref->node && last->item + last->count == ref->item) {
            last->count++;
        } else if (to->range_count < FM_DECISION_RANGES_MAX) {
            to->ranges[to->range_count++] =
                (fm_decision_range_t){ref->workflow, ref->node, ref->item, 1};
        } else {
            return;
        }
    }
}

static void decision_record(fm_control_t *control, unsigned type,
                            const fm_decision_t *decision)
{
    fm_buf_t buf = {0};

    fm_decision_encode(decision, &buf);
    if (!buf.failed) { /* without memory, an explanation less */
        fm_control_remark(control, type, buf.data, buf.len);
    }
    fm_buf_fini(&buf);
}

size_t fm_control_look(fm_control_t *control, const fm_place_choice_t *choice,
                       int64_t now, fm_sched_candidate_t *list, size_t cap)
{
    fm_place_verdict_t why;
    size_t count = fm_place_explain(control->place, &choice->batch_key, now,
                                    list, cap, &why);

    control->looked_at = count;
    return count < cap ? count : cap;
}

void fm_control_why_placed(fm_control_t *control, const struct lease *lease,
                           const fm_place_choice_t *choice,
                           const fm_sched_candidate_t *list, size_t count)
{
    fm_decision_t decision = {.lease = lease->lease,
                              .wall_ns = lease->start_wall_ns,
                              .batch_key = choice->batch_key,
                              .policy = span(control->policy),
                              .verdict = FM_SCHED_PLACE,
                              .text = span(""),
                              .items = lease->count,
                              .gang = lease->gang,
                              .looked_at = (uint32_t)control->looked_at};

    candidate_add(control, choice->worker, choice->size, true, &choice->terms,
                  &decision);
    candidates_add(control, list, count, choice, &decision);
    ranges_add(lease, &decision);
    decision_record(control, FM_RECORD_PLACE, &decision);
    uint32_t batch = fm_pool_batch_id(control->pool, &choice->batch_key);
    if (batch < control->told_count) {
        control->told[batch] = (struct told){0};
    }
}

/* --- waits ---------------------------------------------------------------- */

static double gib(uint64_t bytes)
{
    return (double)bytes / (double)(1u << 30);
}

static const struct worker *largest(const fm_control_t *control)
{
    const struct worker *best = NULL;

    for (size_t i = 0; i < control->worker_count; i++) {
        const struct worker *worker = &control->workers[i];
        if (worker->state == WORKER_UP && !worker->draining &&
            (!best || worker->memory_bytes > best->memory_bytes)) {
            best = worker;
        }
    }
    return best;
}

/* The verdict with the numbers behind it. */
static void verdict_text(const fm_control_t *control,
                         const fm_place_verdict_t *why,
                         const fm_sched_candidate_t *best,
                         const fm_batch_info_t *info, char *text, size_t cap)
{
    const struct worker *worker = best && best->worker < control->worker_count
                                      ? &control->workers[best->worker]
                                      : NULL;

    if (why->verdict == FM_SCHED_WAIT_MEMORY && largest(control)) {
        (void)snprintf(
            text, cap, "%s: it needs %.2f GiB, the largest (%s) has %.2f GiB",
            why->text, gib(info->memory_bytes), largest(control)->name,
            gib(largest(control)->memory_bytes));
    } else if (why->verdict == FM_SCHED_WAIT_TASK_TYPE) {
        (void)snprintf(text, cap, "%s: %s", why->text,
                       fm_key_task_at(info->task_index)->name);
    } else if (why->verdict == FM_SCHED_WAIT_DEVICE) {
        (void)snprintf(text, cap, "%s: it wants a %s", why->text,
                       info->device == FM_SCHED_CPU ? "CPU" : "GPU");
    } else if (why->verdict == FM_SCHED_WAIT_NO_GANG ||
               why->verdict == FM_SCHED_WAIT_GANG) {
        (void)snprintf(text, cap, "%s: %u at once", why->text, info->gang);
    } else if (why->verdict == FM_SCHED_WAIT_BUSY && worker) {
        bool holds = false;
        for (size_t i = 0; info->has_model && i < worker->resident_count; i++) {
            holds =
                holds || fm_digest_equal(&worker->resident[i], &info->model);
        }
        (void)snprintf(text, cap, "waits %.1f s for worker %s%s",
                       best->terms.wait_s, worker->name,
                       holds ? ", which holds its model" : "");
    } else {
        (void)snprintf(text, cap, "%s", why->text);
    }
}

/* Of the same kind: what it waits for will end by itself. */
static bool passes(fm_sched_verdict_t verdict)
{
    return verdict == FM_SCHED_WAIT_BUSY || verdict == FM_SCHED_WAIT_WORKERS ||
           verdict == FM_SCHED_WAIT_TURN || verdict == FM_SCHED_WAIT_GANG ||
           verdict == FM_SCHED_PLACE;
}

/* Whether this wait is news. */
static bool is_news(struct told *told, fm_sched_verdict_t verdict,
                    uint32_t worker, bool blocked)
{
    bool same_kind =
        passes(verdict) ? passes(told->verdict) : verdict == told->verdict;

    if (told->waits && same_kind && told->blocked == blocked) {
        if ((told->verdict == verdict && told->worker == worker) ||
            --told->left > 0) {
            return false;
        }
        told->beats *= told->beats < BEATS_MAX ? 2 : 1;
    } else {
        told->beats = 1;
    }
    told->waits = true;
    told->verdict = verdict;
    told->worker = worker;
    told->blocked = blocked;
    told->left = told->beats;
    return true;
}

static void blocked_add(fm_tenants_t *tenants, fm_buf_t *texts,
                        fm_decision_t *to)
{
    size_t starts[FM_DECISION_BLOCKED_MAX] = {0};

    for (uint32_t id = 0; id < fm_tenants_count(tenants) &&
                          to->blocked_count < FM_DECISION_BLOCKED_MAX;
         id++) {
        const char *text = fm_tenants_blocked(tenants, id);
        fm_tenant_info_t info;
        if (text && fm_tenants_get(tenants, id, &info) >= 0) {
            starts[to->blocked_count] = texts->len;
            fm_buf_add(texts, text, strlen(text) + 1);
            to->blocked[to->blocked_count++].tenant = span(info.name);
        }
    }
    for (uint32_t i = 0; !texts->failed && i < to->blocked_count; i++) {
        to->blocked[i].text = span((const char *)texts->data + starts[i]);
    }
}

/* Somebody is to hear at once of what will not end by itself. */
static void tell_owner(const fm_control_t *control, uint32_t batch,
                       const fm_decision_t *decision)
{
    if (!passes(decision->verdict) && control->events.on_wait &&
        decision->verdict != FM_SCHED_WAIT_NO_WORK &&
        decision->verdict != FM_SCHED_WAIT_NO_WORKERS) {
        fm_pool_ref_t ref = fm_pool_batch_next(control->pool, batch);
        control->events.on_wait(
            control->events.ctx,
            fm_state_run(control->fabric->state, ref.workflow), ref.node,
            decision->text.text);
    }
}

static void wait_record(fm_control_t *control, const fm_pool_batch_t *batch,
                        int64_t now)
{
    fm_sched_candidate_t list[LOOK_MAX];
    fm_place_verdict_t why;
    char text[320];
    const fm_batch_info_t *info =
        fm_state_batch(control->fabric->state, &batch->key);
    size_t count = fm_place_explain(control->place, &batch->key, now, list,
                                    LOOK_MAX, &why);
    size_t kept = count < LOOK_MAX ? count : LOOK_MAX;
    fm_buf_t texts = {0};

    if (!info || !is_news(&control->told[batch->id], why.verdict,
                          kept > 0 ? list[0].worker : FM_SCHED_NONE,
                          batch->blocked > 0)) {
        return;
    }
    verdict_text(control, &why, kept > 0 ? &list[0] : NULL, info, text,
                 sizeof(text));
    fm_decision_t decision = {.wall_ns = fm_clock_wall_ns(),
                              .batch_key = batch->key,
                              .policy = span(control->policy),
                              .verdict = why.verdict,
                              .text = span(text),
                              .items = batch->ready,
                              .looked_at = (uint32_t)count};
    candidates_add(control, list, kept, NULL, &decision);
    if (batch->blocked > 0) {
        blocked_add(fm_pool_tenants(control->pool), &texts, &decision);
    }
    if (!texts.failed) {
        decision_record(control, FM_RECORD_WAIT, &decision);
        if (batch->ready > 0) {
            tell_owner(control, batch->id, &decision);
        }
    }
    fm_buf_fini(&texts);
}

/* Room for what is told of every batch key; false: memory is out. */
static bool told_room(fm_control_t *control, size_t count)
{
    if (count <= control->told_count) {
        return true;
    }
    struct told *told =
        fm_realloc(control->told, count + count / 2, sizeof(*told));
    if (!told) {
        return false;
    }
    memset(told + control->told_count, 0,
           (count + count / 2 - control->told_count) * sizeof(*told));
    control->told = told;
    control->told_count = count + count / 2;
    return true;
}

void fm_control_why_waiting(fm_control_t *control)
{
    size_t count = fm_state_batch_count(control->fabric->state);
    int64_t now = fm_reactor_now_ns(control->reactor);
    fm_pool_totals_t totals;
    fm_pool_batch_t batch;
    size_t asked = 0;

    fm_pool_totals(control->pool, &totals);
    if (totals.ready_work == 0 || !told_room(control, count)) {
        return;
    }
    for (size_t i = 0; i < count && i < VISITS_MAX && asked < ASKS_MAX; i++) {
        control->visit = control->visit + 1 < count ? control->visit + 1 : 0;
        bool ready =
            fm_pool_batch_get(control->pool, (uint32_t)control->visit, &batch);
        if (ready ? now - batch.oldest_ns >= control->heartbeat_ns
                  : batch.blocked > 0) {
            wait_record(control, &batch, now);
            asked++;
        }
    }
}
