/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file reactor.h
 * The event loop: one per process, one thread, a fixed turn order.
 *
 *   receive and handle  fds, signals, completed storage work, timers, pollers
 *   FM_REACTOR_JOURNAL  hand what was appended to the storage thread
 *   FM_REACTOR_APPLY    apply what became durable, release replies
 *   FM_REACTOR_SCHEDULE decide once per turn, however much arrived
 *   FM_REACTOR_SEND     hand what was decided to the links
 *
 * Blocking.  Without polling sources the loop blocks until the next fd or
 * timer.  While a poller needs polling (MPI has no fd) it spins for some idle
 * turns, then sleeps an eighth of the time since the last work, 50 µs to
 * 20 ms: a message waits at most an eighth longer than the silence before it,
 * and an idle rank costs about 0.3 % of a core (at 10 ms, 0.6 %).
 *
 * Storage thread.  fm_reactor_offload() runs functions on one further thread,
 * first in first out: the only thread that may touch HDF5 or wait for a disk.
 *
 * Threads: every function belongs to the reactor's thread (the one that
 * created it) except those marked [any].  Callbacks run on it too, and may
 * add and remove anything, themselves included.
 */
#ifndef FM_IO_REACTOR_REACTOR_H
#define FM_IO_REACTOR_REACTOR_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct fm_reactor fm_reactor_t;

/** Offloads queued, running or completed but not yet reported.  Callers have
 *  a handful each; thousands mean a disk that has stopped. */
#define FM_REACTOR_OFFLOAD_MAX 4096

/* What an fd is watched for, and why its callback runs. */
#define FM_REACTOR_READ 1u
#define FM_REACTOR_WRITE 2u
#define FM_REACTOR_HANGUP 4u /**< error or hang-up: always reported */

/** Hooks run at the end of every turn, by phase, then in order of adding. */
typedef enum fm_reactor_phase {
    FM_REACTOR_JOURNAL,
    FM_REACTOR_APPLY,
    FM_REACTOR_SCHEDULE,
    FM_REACTOR_SEND,
    FM_REACTOR_PHASE_COUNT
} fm_reactor_phase_t;

typedef void (*fm_reactor_fd_fn)(void *ctx, int fd, unsigned events);
typedef void (*fm_reactor_timer_fn)(void *ctx);
typedef void (*fm_reactor_signal_fn)(void *ctx, int signo);
/** A poller or a hook: returns how many things it did, 0 = idle. */
typedef size_t (*fm_reactor_work_fn)(void *ctx);
/** Runs on the storage thread; its result reaches the done function. */
typedef fm_status_t (*fm_reactor_offload_fn)(void *ctx, fm_error_t *err);
/** Runs on the reactor's thread; @p err is what the work function wrote. */
typedef void (*fm_reactor_done_fn)(void *ctx, fm_status_t status,
                                   const fm_error_t *err);

/** Zero means default. */
typedef struct fm_reactor_options {
    unsigned spin_turns;  /**< idle turns before the first sleep; 32 */
    int64_t sleep_min_ns; /**< 50 µs */
    int64_t sleep_max_ns; /**< 20 ms */
} fm_reactor_options_t;

/** Counters since creation. */
typedef struct fm_reactor_stats {
    uint64_t turns;
    uint64_t idle_turns; /**< turns that found nothing to do */
    uint64_t sleeps;     /**< turns that blocked in the kernel */
    int64_t slept_ns;
} fm_reactor_stats_t;

/** @param opts  NULL for defaults; not kept. */
FM_MUST_USE fm_status_t fm_reactor_create(const fm_reactor_options_t *opts,
                                          fm_reactor_t **reactor_out,
                                          fm_error_t *err);
/**
 * Finish all offloaded work, run its done functions, release everything.
 * File descriptors stay open: they are their adders'.  NULL is ignored.
 * @return NULL
 */
fm_reactor_t *fm_reactor_destroy(fm_reactor_t *reactor);

/** Take turns until fm_reactor_stop(); the turn in progress is completed. */
FM_MUST_USE fm_status_t fm_reactor_run(fm_reactor_t *reactor, fm_error_t *err);
/** One turn, blocking at most @p wait_ns (0 not at all, < 0 as run() would).
 *  @param work_out  [out] things done; may be NULL. */
FM_MUST_USE fm_status_t fm_reactor_turn(fm_reactor_t *reactor, int64_t wait_ns,
                                        size_t *work_out, fm_error_t *err);
/** [any] End fm_reactor_run() after its current turn; stays in force until a
 *  run() has obeyed it. */
void fm_reactor_stop(fm_reactor_t *reactor);
/** [any] Make the next turn happen at once.  Async-signal-safe. */
void fm_reactor_wake(fm_reactor_t *reactor);
/** Monotonic time of this turn: equal for all that is handled in it. */
int64_t fm_reactor_now_ns(const fm_reactor_t *reactor);
fm_reactor_stats_t fm_reactor_stats(const fm_reactor_t *reactor);

/** Watch @p fd for @p events. @retval FM_ERR_EXISTS  it is watched already. */
FM_MUST_USE fm_status_t fm_reactor_fd_add(fm_reactor_t *reactor, int fd,
                                          unsigned events, fm_reactor_fd_fn fn,
                                          void *ctx, fm_error_t *err);
FM_MUST_USE fm_status_t fm_reactor_fd_mod(fm_reactor_t *reactor, int fd,
                                          unsigned events, fm_error_t *err);
/** Stop watching @p fd, before it is closed; no callback follows. */
void fm_reactor_fd_remove(fm_reactor_t *reactor, int fd);

/**
 * Call @p fn in @p delay_ns, then every @p period_ns (0: once).  Missed
 * periods are skipped, not made up for.
 * @param timer_out  [out] for fm_reactor_timer_stop(); never 0; may be NULL.
 */
FM_MUST_USE fm_status_t fm_reactor_timer_start(
    fm_reactor_t *reactor, int64_t delay_ns, int64_t period_ns,
    fm_reactor_timer_fn fn, void *ctx, uint64_t *timer_out, fm_error_t *err);
/** Stop a timer; 0 and timers that have ended are ignored. */
void fm_reactor_timer_stop(fm_reactor_t *reactor, uint64_t timer);

/**
 * Handle @p signo as an event.  The signal is blocked in this thread; a
 * thread of a library that took it passes it on.  One handler a signal;
 * destroying the reactor restores the former disposition and mask.  A child
 * process inherits the mask: unblock there what it is to obey.
 */
FM_MUST_USE fm_status_t fm_reactor_signal_add(fm_reactor_t *reactor, int signo,
                                              fm_reactor_signal_fn fn,
                                              void *ctx, fm_error_t *err);

/**
 * Call @p fn every turn to receive.
 * @param polled  true: nothing wakes us for this source, so the loop must
 *                come back by itself (MPI); false: it calls fm_reactor_wake().
 */
FM_MUST_USE fm_status_t fm_reactor_poller_add(fm_reactor_t *reactor,
                                              fm_reactor_work_fn fn, void *ctx,
                                              bool polled, fm_error_t *err);
void fm_reactor_poller_remove(fm_reactor_t *reactor, fm_reactor_work_fn fn,
                              void *ctx);

FM_MUST_USE fm_status_t fm_reactor_hook_add(fm_reactor_t *reactor,
                                            fm_reactor_phase_t phase,
                                            fm_reactor_work_fn fn, void *ctx,
                                            fm_error_t *err);
void fm_reactor_hook_remove(fm_reactor_t *reactor, fm_reactor_phase_t phase,
                            fm_reactor_work_fn fn, void *ctx);

/**
 * Run @p work on the storage thread, then @p done in a later turn here.
 * Works and dones keep the order of the calls.
 * @param done  may be NULL.
 * @retval FM_ERR_FULL  FM_REACTOR_OFFLOAD_MAX are outstanding: retry later.
 */
FM_MUST_USE fm_status_t fm_reactor_offload(fm_reactor_t *reactor,
                                           fm_reactor_offload_fn work,
                                           fm_reactor_done_fn done, void *ctx,
                                           fm_error_t *err);
/** Offloads whose done function has not run yet. */
size_t fm_reactor_offload_count(const fm_reactor_t *reactor);

#endif
