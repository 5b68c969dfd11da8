/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file rendezvous.h
 * How a cell finds the control plane of a fabric, and proves that it may.
 *
 *   DIR/control.json   where the control plane of the present instance listens,
 *                      and its public key; replaced whole (rename)
 *   DIR/keys/cell.key  the key pair that all cells share, mode 0600: whoever
 *                      can read it belongs to the fabric
 *
 * The control plane's own secret key is never written: each instance makes a
 * new one, so a cell that still has the old address cannot take another
 * process for it.
 *
 * Threads: safe.  Processes: one control plane writes, any number read.
 */
#ifndef FM_SITE_RENDEZVOUS_H
#define FM_SITE_RENDEZVOUS_H

#include <stdint.h>

#include "io/link/link.h"

/** What control.json says; texts are owned, see fm_rendezvous_fini(). */
typedef struct fm_rendezvous {
    uint32_t instance; /**< of the control plane; larger is newer */
    char *endpoint;    /**< such as "tcp://10.1.2.3:40123" */
    char public_key[FM_LINK_ZMQ_KEY_TEXT + 1];
    char *host; /**< for people */
    int64_t pid;
    int64_t started_ns; /**< wall clock */
} fm_rendezvous_t;

/** Make control.json say @p at, durably; file mode 0600. */
FM_MUST_USE fm_status_t fm_rendezvous_publish(const char *dir,
                                              const fm_rendezvous_t *at,
                                              fm_error_t *err);
/**
 * Read control.json.
 * @retval FM_ERR_NOT_FOUND  there is none: no control plane has started here,
 *                           or the last one has ended.
 * @retval FM_ERR_INVALID    it is damaged; the text names the member.
 */
FM_MUST_USE fm_status_t fm_rendezvous_read(const char *dir,
                                           fm_rendezvous_t *out,
                                           fm_error_t *err);
void fm_rendezvous_fini(fm_rendezvous_t *at);
/** Remove control.json if it is still @p instance's; failures are silent: a
 *  stale one leads nowhere. */
void fm_rendezvous_withdraw(const char *dir, uint32_t instance);

/**
 * The pair in DIR/keys/cell.key.
 * @param create  make it where it is missing; two that do so at once get the
 *                same one.
 * @retval FM_ERR_NOT_FOUND  it is missing and @p create is false.
 * @retval FM_ERR_INVALID    others may read it, it is not ours, or it holds no
 *                           keys; the text says what to do.
 */
FM_MUST_USE fm_status_t fm_rendezvous_keys(const char *dir, bool create,
                                           fm_link_zmq_keys_t *keys_out,
                                           fm_error_t *err);

/**
 * The address at which other hosts reach this one: that of @p interface, or
 * without one what the host's name stands for, else the first interface that
 * is up and no loopback, else 127.0.0.1.  free() it.
 * @retval FM_ERR_NOT_FOUND  @p interface has no address; the text lists those
 *                           that have one.
 */
FM_MUST_USE fm_status_t fm_rendezvous_address(const char *interface,
                                              char **address_out,
                                              fm_error_t *err);

#endif
