/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The turn, and the lists of what takes part in it.
 *
 * Invariants: watches are indexed by fd and carry a generation, so an event
 * fetched before its fd was removed (or reused) is recognised as stale.
 * Entries of the work lists are only marked when removed, and swept between
 * turns, so that callbacks may change the list that is being walked.
 */
#include "io/reactor/reactor.h"

#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "io/reactor/signals.h"
#include "io/reactor/storage.h"
#include "io/reactor/timers.h"

#define EVENTS_PER_TURN 64 /* more wait for the next turn: hooks come first */
#define SPIN_TURNS 32
#define SLEEP_MIN_NS (50 * FM_NS_PER_US)
#define SLEEP_MAX_NS (20 * FM_NS_PER_MS) /* 4 idle ranks: 1.1 % of a core */
#define SLEEP_SHARE 8 /* sleep this part of the silence so far */

struct watch {
    fm_reactor_fd_fn fn; /* NULL: not watched */
    void *ctx;
    uint32_t generation;
};

struct work {
    fm_reactor_work_fn fn; /* NULL: removed, to be swept */
    void *ctx;
};

struct work_list {
    struct work *entry;
    size_t count;
    size_t capacity;
    bool dirty; /* has removed entries */
};

struct fm_reactor {
    fm_reactor_options_t opts;
    fm_reactor_stats_t stats;
    int epoll_fd;
    int wake_fd;
    struct watch *watches; /* by fd */
    size_t watch_capacity;
    fm_timers_t timers;
    fm_signals_t signals;
    struct work_list polled; /* pollers that need us to come back */
    struct work_list quiet;  /* pollers that wake us */
    struct work_list hooks[FM_REACTOR_PHASE_COUNT];
    fm_storage_t *storage;
    int64_t now_ns;
    int64_t last_input_ns;  /* when something last came from outside */
    unsigned idle_in_a_row; /* turns */
    bool destroying;
    atomic_bool stop;
    atomic_bool woken;
    atomic_bool sleeping; /* about to block, or blocked */
};

/* ---- work lists --------------------------------------------------------- */

static fm_status_t work_add(struct work_list *list, fm_reactor_work_fn fn,
                            void *ctx, fm_error_t *err)
{
    fm_status_t rc = fm_grow(&list->entry, &list->capacity, list->count,
                             sizeof(*list->entry), err);

    if (rc >= 0) {
        list->entry[list->count++] = (struct work){.fn = fn, .ctx = ctx};
    }
    return rc;
}

static void work_remove(struct work_list *list, fm_reactor_work_fn fn,
                        void *ctx)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->entry[i].fn == fn && list->entry[i].ctx == ctx) {
            list->entry[i].fn = NULL;
            list->dirty = true;
        }
    }
}

static void work_sweep(struct work_list *list)
{
    size_t kept = 0;

    if (!list->dirty) {
        return;
    }
    for (size_t i = 0; i < list->count; i++) {
        if (list->entry[i].fn) {
            list->entry[kept++] = list->entry[i];
        }
    }
    list->count = kept;
    list->dirty = false;
}

static size_t work_run(struct work_list *list)
{
    size_t done = 0;

    for (size_t i = 0; i < list->count; i++) {
        struct work work = list->entry[i]; /* the array may move */
        if (work.fn) {
            done += work.fn(work.ctx);
        }
    }
    return done;
}

/* ---- life --------------------------------------------------------------- */

static void on_wake(void *ctx, int fd, unsigned events)
{
    uint64_t count = 0;

    (void)ctx;
    (void)events;
    ssize_t n = read(fd, &count, sizeof(count));
    (void)n;
}

static void on_storage(void *ctx, int fd, unsigned events)
{
    fm_reactor_t *reactor = ctx;

    (void)fd;
    (void)events;
    (void)fm_storage_complete(reactor->storage);
}

static void on_signal(void *ctx, int fd, unsigned events)
{
    fm_reactor_t *reactor = ctx;

    (void)fd;
    (void)events;
    (void)fm_signals_run(&reactor->signals);
}

static void options_fill(fm_reactor_options_t *opts,
                         const fm_reactor_options_t *given)
{
    if (given) {
        *opts = *given;
    }
    if (opts->spin_turns == 0) {
        opts->spin_turns = SPIN_TURNS;
    }
    if (opts->sleep_min_ns <= 0) {
        opts->sleep_min_ns = SLEEP_MIN_NS;
    }
    if (opts->sleep_max_ns <= 0) {
        opts->sleep_max_ns = SLEEP_MAX_NS;
    }
    if (opts->sleep_max_ns < opts->sleep_min_ns) {
        opts->sleep_max_ns = opts->sleep_min_ns;
    }
}

fm_status_t fm_reactor_create(const fm_reactor_options_t *opts,
                              fm_reactor_t **reactor_out, fm_error_t *err)
{
    fm_reactor_t *reactor = fm_calloc(1, sizeof(*reactor));
    fm_status_t rc = FM_OK;

    if (!reactor) {
        return fm_no_memory(err);
    }
    options_fill(&reactor->opts, opts);
    fm_signals_init(&reactor->signals);
    reactor->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    reactor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    reactor->now_ns = fm_clock_mono_ns();
    reactor->last_input_ns = reactor->now_ns;
    if (reactor->wake_fd < 0 || reactor->epoll_fd < 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "create epoll");
        goto out;
    }
    if ((rc = fm_storage_create(&reactor->storage, err)) < 0 ||
        (rc = fm_reactor_fd_add(reactor, reactor->wake_fd, FM_REACTOR_READ,
                                on_wake, reactor, err)) < 0 ||
        (rc = fm_reactor_fd_add(reactor, fm_storage_fd(reactor->storage),
                                FM_REACTOR_READ, on_storage, reactor, err)) <
            0) {
        fm_error_wrap(err, "create reactor");
        goto out;
    }
    *reactor_out = reactor;
    reactor = NULL;
out:
    fm_reactor_destroy(reactor);
    return rc;
}

fm_reactor_t *fm_reactor_destroy(fm_reactor_t *reactor)
{
    if (!reactor) {
        return NULL;
    }
    reactor->destroying = true; /* dones must not offload again */
    fm_storage_destroy(reactor->storage);
    fm_signals_fini(&reactor->signals);
    fm_timers_fini(&reactor->timers);
    free(reactor->polled.entry);
    free(reactor->quiet.entry);
    for (int i = 0; i < FM_REACTOR_PHASE_COUNT; i++) {
        free(reactor->hooks[i].entry);
    }
    free(reactor->watches);
    if (reactor->epoll_fd >= 0) {
        (void)close(reactor->epoll_fd);
    }
    if (reactor->wake_fd >= 0) {
        (void)close(reactor->wake_fd);
    }
    free(reactor);
    return NULL;
}

/* ---- the turn ----------------------------------------------------------- */

/* How long this turn may block, at most @p limit_ns. */
static int64_t block_ns(const fm_reactor_t *reactor, int64_t limit_ns)
{
    const fm_reactor_options_t *opts = &reactor->opts;
    int64_t next_ns = fm_timers_next_ns(&reactor->timers);

    if (limit_ns < 0) {
        limit_ns = INT64_MAX;
    }
    /* After work there may be more that only another turn shows. */
    if (reactor->idle_in_a_row == 0) {
        return 0;
    }
    if (reactor->polled.count > 0) {
        int64_t silence_ns = reactor->now_ns - reactor->last_input_ns;
        int64_t sleep_ns = silence_ns / SLEEP_SHARE;
        if (reactor->idle_in_a_row < opts->spin_turns) {
            return 0;
        }
        if (sleep_ns < opts->sleep_min_ns) {
            sleep_ns = opts->sleep_min_ns;
        }
        if (sleep_ns > opts->sleep_max_ns) {
            sleep_ns = opts->sleep_max_ns;
        }
        if (sleep_ns < limit_ns) {
            limit_ns = sleep_ns;
        }
    }
    if (next_ns != INT64_MAX && next_ns - reactor->now_ns < limit_ns) {
        limit_ns = next_ns - reactor->now_ns;
    }
    return limit_ns < 0 ? 0 : limit_ns;
}

/* Block for @p wait_ns or until an fd is ready.  ppoll() because the timeout
 * of epoll_wait() is in whole milliseconds and epoll_pwait2() is too new. */
static void block(fm_reactor_t *reactor, int64_t wait_ns)
{
    struct pollfd pollfd = {.fd = reactor->epoll_fd, .events = POLLIN};
    struct timespec timeout = {.tv_sec = wait_ns / FM_NS_PER_S,
                               .tv_nsec = wait_ns % FM_NS_PER_S};
    int64_t start_ns = fm_clock_mono_ns();

    (void)ppoll(&pollfd, 1, wait_ns == INT64_MAX ? NULL : &timeout, NULL);
    reactor->stats.sleeps++;
    reactor->stats.slept_ns += fm_clock_mono_ns() - start_ns;
}

/* A waker sets `woken` and then looks at `sleeping`; we set `sleeping` and
 * then look at `woken`: one of the two always notices. */
static void maybe_block(fm_reactor_t *reactor, int64_t limit_ns)
{
    int64_t wait_ns = block_ns(reactor, limit_ns);

    if (wait_ns > 0) {
        atomic_store(&reactor->sleeping, true);
        if (!atomic_load(&reactor->woken) && !atomic_load(&reactor->stop)) {
            block(reactor, wait_ns);
        }
        atomic_store(&reactor->sleeping, false);
    }
    atomic_store(&reactor->woken, false);
}

static size_t dispatch(fm_reactor_t *reactor, const struct epoll_event *event)
{
    size_t fd = (size_t)(event->data.u64 & UINT32_MAX);
    uint32_t generation = (uint32_t)(event->data.u64 >> 32);
    unsigned events = 0;

    if (!reactor->watches[fd].fn ||
        reactor->watches[fd].generation != generation) {
        return 0;
    }
    events |= event->events & EPOLLIN ? FM_REACTOR_READ : 0;
    events |= event->events & EPOLLOUT ? FM_REACTOR_WRITE : 0;
    events |= event->events & (EPOLLERR | EPOLLHUP) ? FM_REACTOR_HANGUP : 0;
    reactor->watches[fd].fn(reactor->watches[fd].ctx, (int)fd, events);
    return 1;
}

/* Receive and handle. */
static fm_status_t receive(fm_reactor_t *reactor, size_t *input_out,
                           fm_error_t *err)
{
    struct epoll_event events[EVENTS_PER_TURN];
    size_t input = 0;
    int n = epoll_wait(reactor->epoll_fd, events, EVENTS_PER_TURN, 0);

    if (n < 0 && errno != EINTR) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "epoll_wait");
    }
    for (int i = 0; i < n; i++) {
        input += dispatch(reactor, &events[i]);
    }
    input += work_run(&reactor->polled);
    input += work_run(&reactor->quiet);
    *input_out = input;
    return FM_OK;
}

fm_status_t fm_reactor_turn(fm_reactor_t *reactor, int64_t wait_ns,
                            size_t *work_out, fm_error_t *err)
{
    size_t input = 0;

    reactor->now_ns = fm_clock_mono_ns();
    maybe_block(reactor, wait_ns);
    reactor->now_ns = fm_clock_mono_ns();
    fm_status_t rc = receive(reactor, &input, err);
    if (rc < 0) {
        return rc;
    }
    size_t work = input + fm_timers_run(&reactor->timers, reactor->now_ns);
    for (int phase = 0; phase < FM_REACTOR_PHASE_COUNT; phase++) {
        work += work_run(&reactor->hooks[phase]);
    }
    work_sweep(&reactor->polled);
    work_sweep(&reactor->quiet);
    for (int phase = 0; phase < FM_REACTOR_PHASE_COUNT; phase++) {
        work_sweep(&reactor->hooks[phase]);
    }
    reactor->stats.turns++;
    reactor->stats.idle_turns += work == 0;
    reactor->idle_in_a_row = work ? 0 : reactor->idle_in_a_row + 1;
    /* Our own timers do not tell that a peer is about to speak. */
    if (input > 0) {
        reactor->last_input_ns = reactor->now_ns;
    }
    if (work_out) {
        *work_out = work;
    }
    return FM_OK;
}

fm_status_t fm_reactor_run(fm_reactor_t *reactor, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    while (rc >= 0 && !atomic_load(&reactor->stop)) {
        rc = fm_reactor_turn(reactor, -1, NULL, err);
    }
    atomic_store(&reactor->stop, false);
    return rc;
}

void fm_reactor_wake(fm_reactor_t *reactor)
{
    atomic_store(&reactor->woken, true);
    if (atomic_load(&reactor->sleeping)) {
        uint64_t one = 1;
        int saved = errno;
        ssize_t n = write(reactor->wake_fd, &one, sizeof(one));
        (void)n;
        errno = saved;
    }
}

void fm_reactor_stop(fm_reactor_t *reactor)
{
    atomic_store(&reactor->stop, true);
    fm_reactor_wake(reactor);
}

int64_t fm_reactor_now_ns(const fm_reactor_t *reactor)
{
    return reactor->now_ns;
}

fm_reactor_stats_t fm_reactor_stats(const fm_reactor_t *reactor)
{
    return reactor->stats;
}

/* ---- what takes part ---------------------------------------------------- */

static fm_status_t watches_reserve(fm_reactor_t *reactor, size_t fd,
                                   fm_error_t *err)
{
    size_t former = reactor->watch_capacity;
    size_t wanted = former ? former : 64;

    if (fd < former) {
        return FM_OK;
    }
    while (wanted <= fd) {
        wanted *= 2;
    }
    struct watch *grown =
        fm_realloc(reactor->watches, wanted, sizeof(*reactor->watches));
    if (!grown) {
        return fm_no_memory(err);
    }
    memset(grown + former, 0, (wanted - former) * sizeof(*grown));
    reactor->watches = grown;
    reactor->watch_capacity = wanted;
    return FM_OK;
}

static fm_status_t watch_control(fm_reactor_t *reactor, int op, int fd,
                                 unsigned events, fm_error_t *err)
{
    uint64_t generation = reactor->watches[fd].generation;
    struct epoll_event event = {
        .events = (events & FM_REACTOR_READ ? (uint32_t)EPOLLIN : 0) |
                  (events & FM_REACTOR_WRITE ? (uint32_t)EPOLLOUT : 0),
        .data.u64 = generation << 32 | (uint32_t)fd};

    if (epoll_ctl(reactor->epoll_fd, op, fd, &event) != 0) {
        return fm_error_set_errno(err,
                                  errno == EEXIST ? FM_ERR_EXISTS : FM_ERR_IO,
                                  errno, "watch fd %d", fd);
    }
    return FM_OK;
}

fm_status_t fm_reactor_fd_add(fm_reactor_t *reactor, int fd, unsigned events,
                              fm_reactor_fd_fn fn, void *ctx, fm_error_t *err)
{
    if (fd < 0 || !fn) {
        return fm_error_set(err, FM_ERR_INVALID, "watch fd %d: not open", fd);
    }
    fm_status_t rc = watches_reserve(reactor, (size_t)fd, err);
    if (rc < 0) {
        return rc;
    }
    if (reactor->watches[fd].fn) {
        return fm_error_set(err, FM_ERR_EXISTS,
                            "watch fd %d: it is watched already", fd);
    }
    reactor->watches[fd].generation++;
    if ((rc = watch_control(reactor, EPOLL_CTL_ADD, fd, events, err)) >= 0) {
        reactor->watches[fd].fn = fn;
        reactor->watches[fd].ctx = ctx;
    }
    return rc;
}

fm_status_t fm_reactor_fd_mod(fm_reactor_t *reactor, int fd, unsigned events,
                              fm_error_t *err)
{
    if (fd < 0 || (size_t)fd >= reactor->watch_capacity ||
        !reactor->watches[fd].fn) {
        return fm_error_set(err, FM_ERR_NOT_FOUND, "fd %d is not watched", fd);
    }
    return watch_control(reactor, EPOLL_CTL_MOD, fd, events, err);
}

void fm_reactor_fd_remove(fm_reactor_t *reactor, int fd)
{
    if (fd >= 0 && (size_t)fd < reactor->watch_capacity &&
        reactor->watches[fd].fn) {
        reactor->watches[fd].fn = NULL;
        (void)epoll_ctl(reactor->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
    }
}

fm_status_t fm_reactor_timer_start(fm_reactor_t *reactor, int64_t delay_ns,
                                   int64_t period_ns, fm_reactor_timer_fn fn,
                                   void *ctx, uint64_t *timer_out,
                                   fm_error_t *err)
{
    const int64_t longest_ns = INT64_MAX / 4; /* keeps every sum in range */

    if (delay_ns < 0 || delay_ns > longest_ns || period_ns < 0 ||
        period_ns > longest_ns || !fn) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "timer: delay %lld ns, period %lld ns: out of "
                            "range",
                            (long long)delay_ns, (long long)period_ns);
    }
    struct timer timer = {.due_ns = fm_clock_mono_ns() + delay_ns,
                          .period_ns = period_ns,
                          .fn = fn,
                          .ctx = ctx};
    return fm_timers_start(&reactor->timers, &timer, timer_out, err);
}

void fm_reactor_timer_stop(fm_reactor_t *reactor, uint64_t timer)
{
    fm_timers_stop(&reactor->timers, timer);
}

fm_status_t fm_reactor_signal_add(fm_reactor_t *reactor, int signo,
                                  fm_reactor_signal_fn fn, void *ctx,
                                  fm_error_t *err)
{
    bool first = reactor->signals.fd < 0;
    fm_status_t rc = fm_signals_add(&reactor->signals, signo, fn, ctx, err);

    if (rc >= 0 && first) {
        rc = fm_reactor_fd_add(reactor, reactor->signals.fd, FM_REACTOR_READ,
                               on_signal, reactor, err);
    }
    return rc;
}

fm_status_t fm_reactor_poller_add(fm_reactor_t *reactor, fm_reactor_work_fn fn,
                                  void *ctx, bool polled, fm_error_t *err)
{
    return work_add(polled ? &reactor->polled : &reactor->quiet, fn, ctx, err);
}

void fm_reactor_poller_remove(fm_reactor_t *reactor, fm_reactor_work_fn fn,
                              void *ctx)
{
    work_remove(&reactor->polled, fn, ctx);
    work_remove(&reactor->quiet, fn, ctx);
}

fm_status_t fm_reactor_hook_add(fm_reactor_t *reactor, fm_reactor_phase_t phase,
                                fm_reactor_work_fn fn, void *ctx,
                                fm_error_t *err)
{
    return work_add(&reactor->hooks[phase], fn, ctx, err);
}

void fm_reactor_hook_remove(fm_reactor_t *reactor, fm_reactor_phase_t phase,
                            fm_reactor_work_fn fn, void *ctx)
{
    work_remove(&reactor->hooks[phase], fn, ctx);
}

fm_status_t fm_reactor_offload(fm_reactor_t *reactor,
                               fm_reactor_offload_fn work,
                               fm_reactor_done_fn done, void *ctx,
                               fm_error_t *err)
{
    if (reactor->destroying) {
        return fm_error_set(err, FM_ERR_CLOSED,
                            "the reactor is being "
                            "destroyed");
    }
    return fm_storage_submit(reactor->storage, work, done, ctx, err);
}

size_t fm_reactor_offload_count(const fm_reactor_t *reactor)
{
    return fm_storage_count(reactor->storage);
}
