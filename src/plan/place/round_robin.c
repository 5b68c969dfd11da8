/* SPDX-License-Identifier: Apache-2.0 */
/* The baseline `round_robin`: rotates over the idle workers that fit. */
#include <stdlib.h>

#include "base/mem.h"
#include "plan/place/internal.h"

struct state {
    uint32_t next;
};

static fm_status_t round_robin_create(fm_place_t *place, fm_error_t *err)
{
    place->state = fm_calloc(1, sizeof(struct state));
    return place->state ? FM_OK : fm_no_memory(err);
}

static void round_robin_destroy(fm_place_t *place)
{
    free(place->state);
}

static bool earlier(const fm_pool_batch_t *a, const fm_pool_batch_t *b)
{
    return a->priority != b->priority ? a->priority > b->priority
                                      : a->oldest_ns < b->oldest_ns;
}

static uint32_t choose(const fm_place_t *place, const struct task *task,
                       const fm_pool_batch_t *ready, int64_t now_ns)
{
    const struct state *state = place->state;

    for (size_t i = 0; i < place->worker_count; i++) {
        uint32_t id = (uint32_t)((state->next + i) % place->worker_count);
        const struct worker *worker = &place->workers[id];
        if (worker->known && !worker->busy &&
            fm_place_fit(place, task, ready, worker, now_ns) ==
                FM_SCHED_PLACE) {
            return id;
        }
    }
    return FM_PLACE_NONE;
}

static bool round_robin_next(fm_place_t *place, int64_t now_ns,
                             fm_place_choice_t *choice)
{
    struct state *state = place->state;
    fm_pool_batch_t best;
    uint32_t best_worker = FM_PLACE_NONE;

    for (size_t i = 0; i < fm_pool_batch_count(place->pool); i++) {
        fm_pool_batch_t ready;
        fm_pool_batch_at(place->pool, i, &ready);
        const struct task *task = fm_place_task_find(place, &ready.key);
        if (!task ||
            (best_worker != FM_PLACE_NONE && !earlier(&ready, &best))) {
            continue;
        }
        uint32_t worker = choose(place, task, &ready, now_ns);
        if (worker != FM_PLACE_NONE) {
            best = ready;
            best_worker = worker;
        }
    }
    if (best_worker == FM_PLACE_NONE) {
        return false;
    }
    state->next = best_worker + 1;
    fm_place_whole(place, fm_place_task_find(place, &best.key), &best,
                   best_worker, choice);
    return true;
}

const struct policy fm_place_round_robin = {
    .name = "round_robin",
    .isolates = true,
    .create = round_robin_create,
    .destroy = round_robin_destroy,
    .next = round_robin_next,
};
