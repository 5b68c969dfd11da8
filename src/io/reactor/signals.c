/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The signals are blocked in the reactor's thread and read from a signalfd.
 * Libraries (MPI, PMIx) start threads of their own which may not block them;
 * the kernel would then run the default action there and end the process.  So
 * each signal also gets a handler, which passes it on to the owner's thread.
 */
#include "io/reactor/signals.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/mem.h"

/* One reactor a process takes signals: they belong to the process. */
static pthread_t owner;
static atomic_bool owned;

static void signal_forward(int signo)
{
    int saved = errno;

    if (atomic_load(&owned)) {
        (void)pthread_kill(owner, signo);
    }
    errno = saved;
}

void fm_signals_init(fm_signals_t *signals)
{
    memset(signals, 0, sizeof(*signals));
    signals->fd = -1;
    sigemptyset(&signals->taken);
}

static fm_status_t own(fm_signals_t *signals, fm_error_t *err)
{
    if (signals->fd >= 0) {
        return FM_OK;
    }
    if (atomic_load(&owned)) {
        return fm_error_set(err, FM_ERR_BUSY,
                            "signals: another reactor of this process "
                            "handles them");
    }
    int fd = signalfd(-1, &signals->taken, SFD_CLOEXEC | SFD_NONBLOCK);
    if (fd < 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "create signalfd");
    }
    signals->fd = fd;
    owner = pthread_self();
    atomic_store(&owned, true);
    return FM_OK;
}

fm_status_t fm_signals_add(fm_signals_t *signals, int signo,
                           fm_reactor_signal_fn fn, void *ctx, fm_error_t *err)
{
    struct sigaction action = {.sa_handler = signal_forward,
                               .sa_flags = SA_RESTART};
    sigset_t one;
    sigset_t former;

    if (signo <= 0 || signo >= FM_SIGNAL_COUNT || !fn) {
        return fm_error_set(err, FM_ERR_INVALID, "signal %d: no such signal",
                            signo);
    }
    if (signals->entry[signo].fn) {
        return fm_error_set(err, FM_ERR_EXISTS,
                            "signal %d: it is handled already", signo);
    }
    fm_status_t rc = own(signals, err);
    if (rc < 0) {
        return rc;
    }
    sigemptyset(&action.sa_mask);
    if (sigaction(signo, &action, &signals->entry[signo].former) != 0) {
        return fm_error_set_errno(err, FM_ERR_INVALID, errno, "signal %d",
                                  signo);
    }
    sigemptyset(&one);
    sigaddset(&one, signo);
    pthread_sigmask(SIG_BLOCK, &one, &former);
    signals->entry[signo].was_blocked = sigismember(&former, signo) == 1;
    signals->entry[signo].fn = fn;
    signals->entry[signo].ctx = ctx;
    sigaddset(&signals->taken, signo);
    if (signalfd(signals->fd, &signals->taken, 0) < 0) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "signal %d", signo);
    }
    return FM_OK;
}

size_t fm_signals_run(fm_signals_t *signals)
{
    struct signalfd_siginfo info;
    size_t done = 0;

    while (read(signals->fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo < FM_SIGNAL_COUNT &&
            signals->entry[info.ssi_signo].fn) {
            signals->entry[info.ssi_signo].fn(
                signals->entry[info.ssi_signo].ctx, (int)info.ssi_signo);
            done++;
        }
    }
    return done;
}

void fm_signals_fini(fm_signals_t *signals)
{
    struct signalfd_siginfo info;

    if (signals->fd < 0) {
        return;
    }
    /* What is pending was meant for us: it must not hit the former action. */
    while (read(signals->fd, &info, sizeof(info)) > 0) {
    }
    for (int signo = 1; signo < FM_SIGNAL_COUNT; signo++) {
        if (!signals->entry[signo].fn) {
            continue;
        }
        sigset_t one;
        sigemptyset(&one);
        sigaddset(&one, signo);
        (void)sigaction(signo, &signals->entry[signo].former, NULL);
        if (!signals->entry[signo].was_blocked) {
            pthread_sigmask(SIG_UNBLOCK, &one, NULL);
        }
    }
    (void)close(signals->fd);
    atomic_store(&owned, false);
    signals->fd = -1;
}
