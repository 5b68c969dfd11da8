/* SPDX-License-Identifier: Apache-2.0 */
/** @file storage.h  The storage thread of a reactor; private to it. */
#ifndef FM_IO_REACTOR_STORAGE_H
#define FM_IO_REACTOR_STORAGE_H

#include "io/reactor/reactor.h"

typedef struct fm_storage fm_storage_t;

/** Start the thread, with every signal blocked. */
FM_MUST_USE fm_status_t fm_storage_create(fm_storage_t **storage_out,
                                          fm_error_t *err);
/** Let the thread finish its queue and end, run the remaining dones. */
fm_storage_t *fm_storage_destroy(fm_storage_t *storage);
FM_MUST_USE fm_status_t fm_storage_submit(fm_storage_t *storage,
                                          fm_reactor_offload_fn work,
                                          fm_reactor_done_fn done, void *ctx,
                                          fm_error_t *err);
/** Run the dones of what has finished; returns how many. */
size_t fm_storage_complete(fm_storage_t *storage);
/** Readable when something has finished. */
int fm_storage_fd(const fm_storage_t *storage);
size_t fm_storage_count(const fm_storage_t *storage);

#endif
