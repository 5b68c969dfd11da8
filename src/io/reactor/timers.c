/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slots hold the timers and never move; the heap holds slot numbers, and each
 * used slot knows its place in it, so stopping is O(log n).  Two timers due at
 * the same instant run in any order.
 */
#include "io/reactor/timers.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

static void heap_put(fm_timers_t *timers, size_t at, uint32_t slot)
{
    timers->heap[at] = slot;
    timers->slots[slot].heap_at = (uint32_t)at;
}

static int64_t due_at(const fm_timers_t *timers, size_t at)
{
    return timers->slots[timers->heap[at]].due_ns;
}

/* Move the entry at @p at up or down to where it belongs. */
static void heap_settle(fm_timers_t *timers, size_t at)
{
    uint32_t slot = timers->heap[at];
    int64_t due_ns = timers->slots[slot].due_ns;

    while (at > 0 && due_at(timers, (at - 1) / 2) > due_ns) {
        heap_put(timers, at, timers->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * at + 1;
        if (child + 1 < timers->heap_count &&
            due_at(timers, child + 1) < due_at(timers, child)) {
            child++;
        }
        if (child >= timers->heap_count || due_at(timers, child) >= due_ns) {
            break;
        }
        heap_put(timers, at, timers->heap[child]);
        at = child;
    }
    heap_put(timers, at, slot);
}

static void slot_release(fm_timers_t *timers, uint32_t slot)
{
    size_t at = timers->slots[slot].heap_at;

    timers->heap_count--;
    if (at < timers->heap_count) {
        timers->heap[at] = timers->heap[timers->heap_count];
        heap_settle(timers, at);
    }
    timers->slots[slot].used = false;
    timers->slots[slot].heap_at = timers->free_slot;
    timers->free_slot = slot + 1;
}

fm_status_t fm_timers_start(fm_timers_t *timers, const struct timer *timer,
                            uint64_t *id_out, fm_error_t *err)
{
    uint32_t slot = timers->free_slot;
    fm_status_t rc = fm_grow(&timers->heap, &timers->heap_capacity,
                             timers->heap_count, sizeof(*timers->heap), err);

    if (rc < 0) {
        return rc;
    }
    if (slot) {
        slot--;
        timers->free_slot = timers->slots[slot].heap_at;
    } else {
        rc = fm_grow(&timers->slots, &timers->slot_capacity, timers->slot_count,
                     sizeof(*timers->slots), err);
        if (rc < 0) {
            return rc;
        }
        slot = (uint32_t)timers->slot_count++;
        memset(&timers->slots[slot], 0, sizeof(timers->slots[slot]));
    }
    uint32_t generation = timers->slots[slot].generation + 1;
    timers->slots[slot] = *timer;
    timers->slots[slot].generation = generation;
    timers->slots[slot].used = true;
    heap_put(timers, timers->heap_count++, slot);
    heap_settle(timers, timers->heap_count - 1);
    if (id_out) {
        *id_out = (uint64_t)generation << 32 | (slot + 1);
    }
    return FM_OK;
}

void fm_timers_stop(fm_timers_t *timers, uint64_t id)
{
    uint32_t slot = (uint32_t)id - 1;

    if ((uint32_t)id != 0 && slot < timers->slot_count &&
        timers->slots[slot].used &&
        timers->slots[slot].generation == (uint32_t)(id >> 32)) {
        slot_release(timers, slot);
    }
}

int64_t fm_timers_next_ns(const fm_timers_t *timers)
{
    return timers->heap_count ? due_at(timers, 0) : INT64_MAX;
}

size_t fm_timers_run(fm_timers_t *timers, int64_t now_ns)
{
    size_t limit = timers->heap_count; /* a timer may start another, due now */
    size_t done = 0;

    while (done < limit && fm_timers_next_ns(timers) <= now_ns) {
        uint32_t slot = timers->heap[0];
        struct timer timer = timers->slots[slot];
        if (timer.period_ns > 0) {
            int64_t next_ns = timer.due_ns + timer.period_ns;
            timers->slots[slot].due_ns =
                next_ns > now_ns ? next_ns : now_ns + timer.period_ns;
            heap_settle(timers, 0);
        } else {
            slot_release(timers, slot);
        }
        timer.fn(timer.ctx);
        done++;
    }
    return done;
}

void fm_timers_fini(fm_timers_t *timers)
{
    free(timers->slots);
    free(timers->heap);
    memset(timers, 0, sizeof(*timers));
}
