/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The baseline `fixed_pipeline`: workers are pinned to task types.
 *
 *   - A type holds at most half of the live workers, at least 1.
 *   - A task takes, in this order: a worker of its type, by rotation; while
 *     the type may hold more, one that is unbound; one of a type with nothing
 *     pending (stolen).
 *   - A binding ends after 60 s idle, or when the type holds too many because
 *     workers were lost.
 *   - Where a type holds all it may and none of them can ever run the task, an
 *     idle one of them gives its place to one that can.
 *
 * A gang larger than half of the workers may hold as many as it needs.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/place/internal.h"

#define TYPES 64u
#define UNBOUND 255u
#define IDLE_NS INT64_C(60000000000)
#define UNKNOWN INT64_MIN

struct binding {
    uint8_t type;
    int64_t idle_since_ns; /* UNKNOWN: busy, or idle since the last decision */
};

struct state {
    struct queue queue;
    struct binding *bindings; /* by worker */
    size_t count, capacity;
    uint32_t held[TYPES];     /* workers bound to the type */
    uint32_t rotation[TYPES]; /* where the next search begins */
    uint64_t pending;         /* types with tasks that wait */
    int64_t wake_ns;          /* the next binding to end; 0: none */
};

static uint32_t limit(const fm_place_t *place, uint32_t gang)
{
    uint32_t half = place->live / 2 > 1 ? place->live / 2 : 1;

    return gang > half ? gang : half;
}

static void unbind(fm_place_t *place, uint32_t worker)
{
    struct state *state = place->state;
    struct binding *binding = &state->bindings[worker];

    if (binding->type != UNBOUND) {
        state->held[binding->type]--;
        binding->type = UNBOUND;
        place->version++;
    }
}

/* End what is over; say when the next binding will be. */
static void begin(fm_place_t *place, int64_t now_ns)
{
    struct state *state = place->state;

    uint64_t pending = 0;
    for (size_t i = 0; i < state->queue.line_count; i++) {
        uint32_t head = state->queue.lines[i].head;
        if (head != NONE) {
            pending |= (uint64_t)1
                       << state->queue.entries[head].task->needs.task_type;
        }
    }
    place->version += pending != state->pending; /* who may be robbed */
    state->pending = pending;
    state->wake_ns = 0;
    for (uint32_t w = fm_place_idle_next(place, 0); w != NONE;
         w = fm_place_idle_next(place, w + 1)) {
        struct binding *binding = &state->bindings[w];
        if (binding->type == UNBOUND) {
            continue;
        }
        if (binding->idle_since_ns == UNKNOWN) {
            binding->idle_since_ns = now_ns;
        }
        int64_t end_ns = binding->idle_since_ns + IDLE_NS;
        if (end_ns <= now_ns || state->held[binding->type] > limit(place, 0)) {
            unbind(place, w);
        } else if (state->wake_ns == 0 || end_ns < state->wake_ns) {
            state->wake_ns = end_ns;
        }
    }
}

static int64_t wake(const fm_place_t *place)
{
    const struct state *state = place->state;

    return state->pending ? state->wake_ns : 0;
}

enum source { OWN, FREE, STOLEN };

static bool from(const struct state *state, uint32_t worker, uint32_t type,
                 enum source source)
{
    uint32_t bound = state->bindings[worker].type;

    switch (source) {
    case OWN:
        return bound == type;
    case FREE:
        return bound == UNBOUND;
    case STOLEN:
        return bound != UNBOUND && bound != type &&
               !(state->pending >> bound & 1);
    }
    return false;
}

static bool may_join(const fm_place_t *place, const struct entry *entry,
                     uint32_t worker)
{
    const struct state *state = place->state;
    uint32_t type = entry->task->needs.task_type;

    return fm_place_is_idle(place, worker) &&
           (from(state, worker, type, OWN) || from(state, worker, type, FREE) ||
            from(state, worker, type, STOLEN));
}

static uint32_t rotate(const fm_place_t *place, const struct entry *entry,
                       enum source source, int64_t now_ns, bool *own_out)
{
    const struct state *state = place->state;
    uint32_t type = entry->task->needs.task_type;
    uint32_t first = state->rotation[type];

    for (int round = 0; round < 2; round++) {
        uint32_t end = round == 0 ? NONE : first;
        for (uint32_t w = fm_place_idle_next(place, round == 0 ? first : 0);
             w != NONE && w < end; w = fm_place_idle_next(place, w + 1)) {
            if (from(state, w, type, source) &&
                fm_place_usable(place, entry, w, now_ns, own_out)) {
                return w;
            }
        }
    }
    return NONE;
}

/* An idle worker of the type that can not run the task, while none that the
 * type holds can: its place may go to another. */
static uint32_t misfit(const fm_place_t *place, const struct entry *entry,
                       int64_t now_ns)
{
    const struct state *state = place->state;
    uint32_t found = NONE;

    for (uint32_t w = 0; w < place->worker_count; w++) {
        if (!from(state, w, entry->task->needs.task_type, OWN)) {
            continue;
        }
        if (fm_place_fit(place, entry, w, now_ns) == FM_SCHED_PLACE) {
            return NONE;
        }
        found = fm_place_is_idle(place, w) ? w : found;
    }
    return found;
}

static uint32_t choose(fm_place_t *place, const struct entry *entry,
                       int64_t now_ns, bool *own_out)
{
    const struct state *state = place->state;
    uint32_t type = entry->task->needs.task_type;
    uint32_t worker = rotate(place, entry, OWN, now_ns, own_out);

    if (worker == NONE &&
        (state->held[type] < limit(place, entry->task->needs.gang) ||
         misfit(place, entry, now_ns) != NONE)) {
        worker = rotate(place, entry, FREE, now_ns, own_out);
        if (worker == NONE) {
            worker = rotate(place, entry, STOLEN, now_ns, own_out);
        }
    }
    return worker;
}

static void commit(fm_place_t *place, const struct entry *entry,
                   uint32_t worker, int64_t now_ns)
{
    struct state *state = place->state;
    uint32_t type = entry->task->needs.task_type;

    if (state->bindings[worker].type != type) {
        if (state->held[type] >= limit(place, entry->task->needs.gang)) {
            uint32_t other = misfit(place, entry, now_ns);
            if (other != NONE) {
                unbind(place, other);
            }
        }
        unbind(place, worker);
        state->bindings[worker].type = (uint8_t)type;
        state->held[type]++;
    }
    state->bindings[worker].idle_since_ns = UNKNOWN;
    state->rotation[type] = worker + 1;
}

static const char *blocked(const fm_place_t *place, const struct entry *entry)
{
    const struct state *state = place->state;
    const fm_place_task_t *needs = &entry->task->needs;

    return state->held[needs->task_type] >= limit(place, needs->gang)
               ? "its task type holds half of the workers, all busy"
               : "every worker that fits is busy or bound to a task type that "
                 "has work";
}

static fm_status_t worker_put(fm_place_t *place, uint32_t worker,
                              fm_error_t *err)
{
    struct state *state = place->state;

    while (state->count <= worker) {
        fm_status_t rc = fm_grow((void *)&state->bindings, &state->capacity,
                                 state->count, sizeof(struct binding), err);
        if (rc < 0) {
            return rc;
        }
        state->bindings[state->count++] = (struct binding){UNBOUND, UNKNOWN};
    }
    if (place->workers[worker].is.closed) {
        unbind(place, worker);
    }
    return FM_OK;
}

static void worker_busy(fm_place_t *place, uint32_t worker, int64_t until_ns)
{
    struct state *state = place->state;

    (void)until_ns;
    state->bindings[worker].idle_since_ns = UNKNOWN;
}

static void fini(fm_place_t *place)
{
    struct state *state = place->state;

    free(state->bindings);
}

static const struct chooser chooser = {
    .begin = begin,
    .choose = choose,
    .commit = commit,
    .may_join = may_join,
    .blocked = blocked,
    .wake = wake,
    .fini = fini,
    .max_nodes = 1,
};

const struct policy fm_place_fixed_pipeline = {
    .name = "fixed_pipeline",
    .chooser = &chooser,
    .state_bytes = sizeof(struct state),
    FM_PLACE_BASELINE,
    .worker_put = worker_put,
    .worker_busy = worker_busy,
    .worker_drop = unbind,
};
