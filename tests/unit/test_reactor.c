/* SPDX-License-Identifier: Apache-2.0 */
/* io/reactor: turn order, fds, timers, signals, wake, the storage thread. */
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fmtest.h"
#include "io/reactor/reactor.h"

static fm_reactor_t *create(void)
{
    fm_reactor_t *reactor = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_reactor_create(NULL, &reactor, &err), &err);
    return reactor;
}

static size_t turn(fm_reactor_t *reactor, int64_t wait_ns)
{
    size_t work = 0;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_reactor_turn(reactor, wait_ns, &work, &err), &err);
    return work;
}

/* ---- order ----------------------------------------------------------------
 */

struct trace {
    fm_reactor_t *reactor;
    char text[64];
};

static void note(struct trace *trace, char c)
{
    size_t len = strlen(trace->text);

    if (len + 1 < sizeof(trace->text)) {
        trace->text[len] = c;
    }
}

static size_t on_journal(void *ctx)
{
    note(ctx, 'j');
    return 0;
}

static size_t on_apply(void *ctx)
{
    note(ctx, 'a');
    return 0;
}

static size_t on_schedule(void *ctx)
{
    note(ctx, 's');
    return 0;
}

static size_t on_send(void *ctx)
{
    note(ctx, '>');
    return 0;
}

static size_t on_poll(void *ctx)
{
    note(ctx, 'p');
    return 1;
}

static void on_timer(void *ctx)
{
    note(ctx, 't');
}

static void on_read(void *ctx, int fd, unsigned events)
{
    char byte = 0;

    CU_ASSERT(events & FM_REACTOR_READ);
    CU_ASSERT(read(fd, &byte, 1) == 1);
    note(ctx, byte);
}

static void test_turn_order(void)
{
    fm_reactor_t *reactor = create();
    struct trace trace = {.reactor = reactor};
    fm_error_t err = {0};
    int fds[2];

    CU_ASSERT_FATAL(pipe(fds) == 0);
    /* Added in the wrong order on purpose. */
    FM_ASSERT_OK(
        fm_reactor_hook_add(reactor, FM_REACTOR_SEND, on_send, &trace, &err),
        &err);
    FM_ASSERT_OK(fm_reactor_hook_add(reactor, FM_REACTOR_SCHEDULE, on_schedule,
                                     &trace, &err),
                 &err);
    FM_ASSERT_OK(
        fm_reactor_hook_add(reactor, FM_REACTOR_APPLY, on_apply, &trace, &err),
        &err);
    FM_ASSERT_OK(fm_reactor_hook_add(reactor, FM_REACTOR_JOURNAL, on_journal,
                                     &trace, &err),
                 &err);
    FM_ASSERT_OK(
        fm_reactor_timer_start(reactor, 0, 0, on_timer, &trace, NULL, &err),
        &err);
    FM_ASSERT_OK(fm_reactor_poller_add(reactor, on_poll, &trace, true, &err),
                 &err);
    FM_ASSERT_OK(fm_reactor_fd_add(reactor, fds[0], FM_REACTOR_READ, on_read,
                                   &trace, &err),
                 &err);
    CU_ASSERT(fm_reactor_fd_add(reactor, fds[0], FM_REACTOR_READ, on_read,
                                &trace, &err) == FM_ERR_EXISTS);
    CU_ASSERT(write(fds[1], "x", 1) == 1);
    CU_ASSERT(turn(reactor, 0) == 3);
    CU_ASSERT_STRING_EQUAL(trace.text, "xptjas>");
    memset(trace.text, 0, sizeof(trace.text));
    fm_reactor_poller_remove(reactor, on_poll, &trace);
    fm_reactor_hook_remove(reactor, FM_REACTOR_APPLY, on_apply, &trace);
    CU_ASSERT(turn(reactor, 0) == 0);
    CU_ASSERT_STRING_EQUAL(trace.text, "js>");
    fm_reactor_fd_remove(reactor, fds[0]);
    CU_ASSERT(write(fds[1], "y", 1) == 1);
    CU_ASSERT(turn(reactor, 0) == 0);
    fm_reactor_destroy(reactor);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* ---- an fd removed by the callback of another in the same turn ------------
 */

struct pair {
    fm_reactor_t *reactor;
    int other;
    int calls;
};

static void on_remove_other(void *ctx, int fd, unsigned events)
{
    struct pair *pair = ctx;

    (void)fd;
    (void)events;
    pair->calls++;
    fm_reactor_fd_remove(pair->reactor, pair->other);
}

static void test_remove_in_callback(void)
{
    fm_reactor_t *reactor = create();
    struct pair pairs[2] = {{.reactor = reactor}, {.reactor = reactor}};
    fm_error_t err = {0};
    int a[2];
    int b[2];

    CU_ASSERT_FATAL(pipe(a) == 0 && pipe(b) == 0);
    pairs[0].other = b[0];
    pairs[1].other = a[0];
    FM_ASSERT_OK(fm_reactor_fd_add(reactor, a[0], FM_REACTOR_READ,
                                   on_remove_other, &pairs[0], &err),
                 &err);
    FM_ASSERT_OK(fm_reactor_fd_add(reactor, b[0], FM_REACTOR_READ,
                                   on_remove_other, &pairs[1], &err),
                 &err);
    CU_ASSERT(write(a[1], "x", 1) == 1 && write(b[1], "x", 1) == 1);
    CU_ASSERT(turn(reactor, 0) == 1); /* the second event is stale */
    CU_ASSERT(pairs[0].calls + pairs[1].calls == 1);
    fm_reactor_destroy(reactor);
    for (int i = 0; i < 2; i++) {
        (void)close(a[i]);
        (void)close(b[i]);
    }
}

/* ---- timers ---------------------------------------------------------------
 */

struct ticks {
    fm_reactor_t *reactor;
    uint64_t timer;
    int count;
    int stop_after;
};

static void on_tick(void *ctx)
{
    struct ticks *ticks = ctx;

    if (++ticks->count == ticks->stop_after) {
        fm_reactor_timer_stop(ticks->reactor, ticks->timer);
        fm_reactor_stop(ticks->reactor);
    }
}

static void on_again(void *ctx)
{
    struct ticks *ticks = ctx;
    fm_error_t err = {0};

    ticks->count++;
    FM_ASSERT_OK(fm_reactor_timer_start(ticks->reactor, 0, 0, on_again, ticks,
                                        NULL, &err),
                 &err);
}

static void test_timers(void)
{
    fm_reactor_t *reactor = create();
    struct ticks ticks = {.reactor = reactor, .stop_after = 5};
    struct ticks other = {.reactor = reactor};
    fm_error_t err = {0};
    uint64_t stopped = 0;

    FM_ASSERT_OK(fm_reactor_timer_start(reactor, FM_NS_PER_MS, FM_NS_PER_MS,
                                        on_tick, &ticks, &ticks.timer, &err),
                 &err);
    FM_ASSERT_OK(fm_reactor_timer_start(reactor, 2 * FM_NS_PER_MS, 0, on_tick,
                                        &other, &stopped, &err),
                 &err);
    fm_reactor_timer_stop(reactor, stopped);
    fm_reactor_timer_stop(reactor, stopped); /* again: ignored */
    FM_ASSERT_OK(fm_reactor_run(reactor, &err), &err);
    CU_ASSERT(ticks.count == 5 && other.count == 0);
    CU_ASSERT(fm_reactor_stats(reactor).sleeps > 0);
    /* A new timer in the old slot does not answer to the old id. */
    FM_ASSERT_OK(
        fm_reactor_timer_start(reactor, 0, 0, on_tick, &other, NULL, &err),
        &err);
    fm_reactor_timer_stop(reactor, stopped);
    fm_reactor_timer_stop(reactor, ticks.timer);
    CU_ASSERT(turn(reactor, 0) == 1 && other.count == 1);
    /* One that starts another, due at once, does not hold up the turn. */
    struct ticks again = {.reactor = reactor};
    FM_ASSERT_OK(
        fm_reactor_timer_start(reactor, 0, 0, on_again, &again, NULL, &err),
        &err);
    CU_ASSERT(turn(reactor, 0) == 1 && again.count == 1);
    CU_ASSERT(fm_reactor_timer_start(reactor, -1, 0, on_tick, &other, NULL,
                                     &err) == FM_ERR_INVALID);
    fm_reactor_destroy(reactor);
}

struct due {
    int64_t *latest; /* the latest min_ns that has run */
    int64_t min_ns;  /* it is due in min_ns … max_ns */
    int64_t max_ns;
    bool wrong;
};

static void on_due(void *ctx)
{
    struct due *due = ctx;

    due->wrong = *due->latest > due->max_ns;
    if (due->min_ns > *due->latest) {
        *due->latest = due->min_ns;
    }
}

/* 500 timers in scrambled order, a third of them stopped, run in due order. */
static void test_timer_heap(void)
{
    enum { COUNT = 500 };
    fm_reactor_t *reactor = create();
    static struct due dues[COUNT];
    fm_error_t err = {0};
    int64_t latest = 0;
    size_t ran = 0;
    size_t wrong = 0;

    for (int i = 0; i < COUNT; i++) {
        int64_t delay_ns = (i * 373) % COUNT * 100 * FM_NS_PER_US;
        uint64_t timer = 0;
        dues[i].latest = &latest;
        dues[i].min_ns = fm_clock_mono_ns() + delay_ns;
        FM_ASSERT_OK(fm_reactor_timer_start(reactor, delay_ns, 0, on_due,
                                            &dues[i], &timer, &err),
                     &err);
        dues[i].max_ns = fm_clock_mono_ns() + delay_ns;
        if (i % 3 == 0) {
            fm_reactor_timer_stop(reactor, timer);
        }
    }
    while (ran < COUNT - (COUNT + 2) / 3) {
        ran += turn(reactor, -1);
    }
    for (int i = 0; i < COUNT; i++) {
        wrong += dues[i].wrong;
    }
    CU_ASSERT(wrong == 0);
    fm_reactor_destroy(reactor);
}

/* ---- signals --------------------------------------------------------------
 */

struct caught {
    fm_reactor_t *reactor;
    int count;
    int signo;
};

static void on_signal(void *ctx, int signo)
{
    struct caught *caught = ctx;

    caught->count++;
    caught->signo = signo;
    fm_reactor_stop(caught->reactor);
}

/* A thread that does not block the signal, as a library's may not. */
static void *raise_here(void *arg)
{
    sigset_t set;

    (void)arg;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    pthread_kill(pthread_self(), SIGUSR1);
    return NULL;
}

static void test_signals(void)
{
    fm_reactor_t *reactor = create();
    struct caught caught = {.reactor = reactor};
    struct sigaction now;
    fm_error_t err = {0};
    pthread_t thread;

    FM_ASSERT_OK(
        fm_reactor_signal_add(reactor, SIGUSR1, on_signal, &caught, &err),
        &err);
    CU_ASSERT(fm_reactor_signal_add(reactor, SIGUSR1, on_signal, &caught,
                                    &err) == FM_ERR_EXISTS);
    CU_ASSERT(
        fm_reactor_signal_add(reactor, SIGKILL, on_signal, &caught, &err) < 0);
    CU_ASSERT(kill(getpid(), SIGUSR1) == 0);
    FM_ASSERT_OK(fm_reactor_run(reactor, &err), &err);
    CU_ASSERT(caught.count == 1 && caught.signo == SIGUSR1);
    CU_ASSERT_FATAL(pthread_create(&thread, NULL, raise_here, NULL) == 0);
    FM_ASSERT_OK(fm_reactor_run(reactor, &err), &err);
    CU_ASSERT(caught.count == 2);
    CU_ASSERT(pthread_join(thread, NULL) == 0);
    fm_reactor_destroy(reactor);
    CU_ASSERT(sigaction(SIGUSR1, NULL, &now) == 0);
    CU_ASSERT(now.sa_handler == SIG_DFL);
}

/* ---- waking and stopping from another thread ------------------------------
 */

static void *stop_it(void *arg)
{
    fm_reactor_stop(arg);
    return NULL;
}

static void test_stop_from_thread(void)
{
    fm_error_t err = {0};

    for (int i = 0; i < 200; i++) {
        fm_reactor_t *reactor = create();
        pthread_t thread;
        CU_ASSERT_FATAL(pthread_create(&thread, NULL, stop_it, reactor) == 0);
        FM_ASSERT_OK(fm_reactor_run(reactor, &err), &err);
        CU_ASSERT(pthread_join(thread, NULL) == 0);
        fm_reactor_destroy(reactor);
    }
}

/* ---- the storage thread ---------------------------------------------------
 */

struct job {
    struct job_log *log;
    int number;
    pthread_t worker;
};

struct job_log {
    fm_reactor_t *reactor;
    pthread_t owner;
    int worked; /* storage thread */
    int done;   /* reactor thread */
    int wrong;
    int failures;
    int stop_after;
};

static fm_status_t on_work(void *ctx, fm_error_t *err)
{
    struct job *job = ctx;

    job->worker = pthread_self();
    job->log->wrong += job->log->worked != job->number;
    job->log->worked++;
    return job->number % 4 == 3
               ? fm_error_set(err, FM_ERR_IO, "job %d", job->number)
               : FM_OK;
}

static void on_done(void *ctx, fm_status_t status, const fm_error_t *err)
{
    struct job *job = ctx;
    struct job_log *log = job->log;
    char text[32];

    (void)snprintf(text, sizeof(text), "job %d", job->number);
    log->wrong += log->done != job->number;
    log->wrong += !pthread_equal(pthread_self(), log->owner);
    log->wrong += pthread_equal(job->worker, log->owner) != 0;
    log->wrong += status < 0 && strcmp(err->text, text) != 0;
    log->failures += status < 0;
    if (++log->done == log->stop_after) {
        fm_reactor_stop(log->reactor);
    }
}

static void test_offload(void)
{
    enum { COUNT = FM_REACTOR_OFFLOAD_MAX };
    static struct job jobs[COUNT];
    fm_reactor_t *reactor = create();
    struct job_log log = {
        .reactor = reactor, .owner = pthread_self(), .stop_after = COUNT};
    fm_error_t err = {0};

    for (int i = 0; i < COUNT; i++) {
        jobs[i] = (struct job){.log = &log, .number = i};
        FM_ASSERT_OK(
            fm_reactor_offload(reactor, on_work, on_done, &jobs[i], &err),
            &err);
    }
    CU_ASSERT(fm_reactor_offload(reactor, on_work, on_done, &jobs[0], &err) ==
              FM_ERR_FULL);
    CU_ASSERT(fm_reactor_offload_count(reactor) == COUNT);
    FM_ASSERT_OK(fm_reactor_run(reactor, &err), &err);
    CU_ASSERT(log.done == COUNT && log.wrong == 0);
    CU_ASSERT(log.failures == COUNT / 4);
    CU_ASSERT(fm_reactor_offload_count(reactor) == 0);
    /* What is queued when the reactor goes is still done and reported. */
    log = (struct job_log){.reactor = reactor, .owner = pthread_self()};
    for (int i = 0; i < 10; i++) {
        jobs[i] = (struct job){.log = &log, .number = i};
        FM_ASSERT_OK(
            fm_reactor_offload(reactor, on_work, on_done, &jobs[i], &err),
            &err);
    }
    fm_reactor_destroy(reactor);
    CU_ASSERT(log.worked == 10 && log.done == 10 && log.wrong == 0);
}

/* ---- back-off -------------------------------------------------------------
 */

static size_t on_nothing(void *ctx)
{
    ++*(uint64_t *)ctx;
    return 0;
}

/* With a poller the loop neither spins for ever nor sleeps for ever. */
static void test_back_off(void)
{
    fm_reactor_t *reactor = create();
    struct ticks ticks = {.reactor = reactor, .stop_after = 1};
    uint64_t polls = 0;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_reactor_poller_add(reactor, on_nothing, &polls, true, &err),
                 &err);
    FM_ASSERT_OK(fm_reactor_timer_start(reactor, FM_NS_PER_S / 2, 0, on_tick,
                                        &ticks, &ticks.timer, &err),
                 &err);
    FM_ASSERT_OK(fm_reactor_run(reactor, &err), &err);
    fm_reactor_stats_t stats = fm_reactor_stats(reactor);
    CU_ASSERT(stats.turns == polls);
    CU_ASSERT(stats.sleeps > 0 && polls > 32); /* spins, then sleeps, */
    CU_ASSERT(polls < 400); /* longer and longer: it can only be fewer */
    (void)printf("[%llu turns in half a second of silence] ",
                 (unsigned long long)stats.turns);
    fm_reactor_destroy(reactor);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"turn order", test_turn_order},
        {"remove in a callback", test_remove_in_callback},
        {"timers", test_timers},
        {"timer order", test_timer_heap},
        {"signals", test_signals},
        {"stop from another thread", test_stop_from_thread},
        {"storage thread", test_offload},
        {"back-off", test_back_off},
    };

    return fm_test_main("io/reactor", cases, FM_COUNT_OF(cases));
}
