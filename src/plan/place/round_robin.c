/* SPDX-License-Identifier: Apache-2.0 */
/* The baseline `round_robin`: rotates over the idle workers that fit. */
#include "plan/place/internal.h"

struct state {
    struct queue queue;
    uint32_t next; /* after the worker that was chosen last */
};

static bool may_join(const fm_place_t *place, const struct entry *entry,
                     uint32_t worker)
{
    (void)entry;
    return fm_place_is_idle(place, worker);
}

static void commit(fm_place_t *place, const struct entry *entry,
                   uint32_t worker, int64_t now_ns)
{
    struct state *state = place->state;

    (void)entry;
    (void)now_ns;
    state->next = worker + 1;
}

static const char *blocked(const fm_place_t *place, const struct entry *entry)
{
    (void)place;
    (void)entry;
    return "every worker that fits is busy";
}

static uint32_t choose(fm_place_t *place, const struct entry *entry,
                       int64_t now_ns, bool *own_out)
{
    const struct state *state = place->state;
    uint32_t first = state->next;

    for (uint32_t w = fm_place_idle_next(place, first); w != NONE;
         w = fm_place_idle_next(place, w + 1)) {
        if (fm_place_usable(place, entry, w, now_ns, own_out)) {
            return w;
        }
    }
    for (uint32_t w = fm_place_idle_next(place, 0); w < first;
         w = fm_place_idle_next(place, w + 1)) {
        if (fm_place_usable(place, entry, w, now_ns, own_out)) {
            return w;
        }
    }
    return NONE;
}

static const struct chooser chooser = {
    .choose = choose,
    .commit = commit,
    .may_join = may_join,
    .blocked = blocked,
    .max_nodes = 1,
};

const struct policy fm_place_round_robin = {
    .name = "round_robin",
    .chooser = &chooser,
    .state_bytes = sizeof(struct state),
    FM_PLACE_BASELINE,
};
