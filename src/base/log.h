/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file log.h
 * The process log: one line an event on stderr, "time LEVEL who: text".
 * Roles and programs log; library modules return errors instead.
 * Threads: safe.
 */
#ifndef FM_BASE_LOG_H
#define FM_BASE_LOG_H

#include <flowmesh/error.h>

typedef enum fm_log_level {
    FM_LOG_ERROR,
    FM_LOG_WARN,
    FM_LOG_INFO,
    FM_LOG_DEBUG
} fm_log_level_t;

/** Lines above @p level are dropped; the default is FM_LOG_WARN, or what
 *  FM_LOG=error|warn|info|debug says. */
void fm_log_set_level(fm_log_level_t level);
/** Name of this process in every line, such as "rank 2"; copied, cut at 31. */
void fm_log_set_name(const char *name);
void fm_log(fm_log_level_t level, const char *format, ...) FM_PRINTF(2, 3);

#endif
