/* SPDX-License-Identifier: Apache-2.0 */
/** @file signals.h  Signals as an fd; private to the reactor. */
#ifndef FM_IO_REACTOR_SIGNALS_H
#define FM_IO_REACTOR_SIGNALS_H

#include <signal.h>

#include "io/reactor/reactor.h"

#define FM_SIGNAL_COUNT 65 /* Linux numbers signals 1 … 64 */

typedef struct fm_signals {
    int fd; /* signalfd; -1 before the first signal */
    sigset_t taken;
    struct {
        fm_reactor_signal_fn fn; /* NULL: not ours */
        void *ctx;
        struct sigaction former;
        bool was_blocked;
    } entry[FM_SIGNAL_COUNT];
} fm_signals_t;

void fm_signals_init(fm_signals_t *signals);
FM_MUST_USE fm_status_t fm_signals_add(fm_signals_t *signals, int signo,
                                       fm_reactor_signal_fn fn, void *ctx,
                                       fm_error_t *err);
/** Call the handlers of what is pending; returns how many. */
size_t fm_signals_run(fm_signals_t *signals);
/** Restore dispositions and masks. */
void fm_signals_fini(fm_signals_t *signals);

#endif
