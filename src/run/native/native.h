/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file native.h
 * The executor side of the protocol (docs/spec/executor.md) around run/ops:
 * what the program flowmesh-engine does between its first and last line.
 *
 * Requests are read between batches; while one runs, stopping() looks for
 * `stop` and for the end of the input, so that one thread is enough.
 */
#ifndef FM_RUN_NATIVE_NATIVE_H
#define FM_RUN_NATIVE_NATIVE_H

#include <flowmesh/error.h>

typedef struct fm_native_options {
    const char *fabric;    /**< fabric directory: the store is FABRIC/cas */
    const char *writer;    /**< name of our segments, unique among the living */
    const char *device;    /**< "cpu" */
    const char *work_root; /**< NULL: $TMPDIR */
    unsigned long long resident_bytes; /**< 0: default of run/ops */
} fm_native_options_t;

/**
 * Greet, serve batches from @p in_fd, answer on @p out_fd until the input
 * ends.
 * @retval FM_OK            the input ended.
 * @retval FM_ERR_PROTOCOL  the supervisor broke the protocol.
 */
FM_MUST_USE fm_status_t fm_native_serve(const fm_native_options_t *options,
                                        int in_fd, int out_fd, fm_error_t *err);

#endif
