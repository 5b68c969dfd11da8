/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file fault.h
 * Fault points: named places where a test can make the next call fail.
 *
 * Compiled in with FM_FAULTS (presets dev and tsan); elsewhere fm_fault() is
 * the constant false.  Armed by the environment, FM_FAULT="name:nth[,…]"
 * (nth = 1 is the next hit, "name:nth+" this and every later hit,
 * "name:nth!" kills the process there with SIGKILL), or by fm_fault_arm().
 * Each name counts by itself.  Threads: safe.
 */
#ifndef FM_BASE_FAULT_H
#define FM_BASE_FAULT_H

#include <stdbool.h>

#ifdef FM_FAULTS
/** True when the point @p name is to fail this time. */
bool fm_fault(const char *name);
#else
static inline bool fm_fault(const char *name)
{
    (void)name;
    return false;
}
#endif

/** Replace what is armed; NULL or "" disarms.  False where the build has no
 *  fault points or @p spec is malformed. */
bool fm_fault_arm(const char *spec);

#endif
