/* SPDX-License-Identifier: Apache-2.0 */
/** @file timers.h  The timers of a reactor: a binary heap; private to it. */
#ifndef FM_IO_REACTOR_TIMERS_H
#define FM_IO_REACTOR_TIMERS_H

#include "io/reactor/reactor.h"

struct timer {
    int64_t due_ns;
    int64_t period_ns; /* 0: once */
    fm_reactor_timer_fn fn;
    void *ctx;
    uint32_t generation; /* counts the uses of this slot: makes ids unique */
    uint32_t heap_at;    /* place in the heap; next free slot when unused */
    bool used;
};

/** Zero-initialise. */
typedef struct fm_timers {
    struct timer *slots;
    size_t slot_capacity;
    size_t slot_count;
    uint32_t *heap; /* slot numbers, soonest first */
    size_t heap_capacity;
    size_t heap_count;
    uint32_t free_slot; /* slot number + 1; 0: none */
} fm_timers_t;

FM_MUST_USE fm_status_t fm_timers_start(fm_timers_t *timers,
                                        const struct timer *timer,
                                        uint64_t *id_out, fm_error_t *err);
void fm_timers_stop(fm_timers_t *timers, uint64_t id);
/** When the soonest is due; INT64_MAX without any. */
int64_t fm_timers_next_ns(const fm_timers_t *timers);
/** Call what is due at @p now_ns, each timer at most once. */
size_t fm_timers_run(fm_timers_t *timers, int64_t now_ns);
void fm_timers_fini(fm_timers_t *timers);

#endif
