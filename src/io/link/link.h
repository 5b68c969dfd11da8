/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file link.h
 * Messages between the processes of a fabric: one vtable, several carriers.
 *
 *   loop.c   endpoints inside one process and one thread (embedded default)
 *   mpi.c    the ranks of MPI_COMM_WORLD
 *   zmq.c    cells that join: one listens, others connect, over TCP with CURVE
 *   mux.c    two links as one
 *   chaos.c  wraps any link: seeded drops, duplicates, delays, reorders
 *
 * A link carries opaque bytes, whole messages, in order per peer and without
 * loss between two live endpoints (chaos breaks this on request).  It does not
 * detect a dead peer: silence is for the caller's heartbeats to judge.
 *
 * Callbacks run only inside fm_link_poll(), never inside fm_link_send(), so a
 * handler may send.  A handler must not close the link that called it.
 *
 * Threads: a link belongs to the thread that created it.
 */
#ifndef FM_IO_LINK_LINK_H
#define FM_IO_LINK_LINK_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "io/reactor/reactor.h"

typedef struct fm_link fm_link_t;

/** Largest message: the same as the wire protocol's. */
#define FM_LINK_MESSAGE_MAX_BYTES ((size_t)16 << 20)
/** Default bounds of what may be under way to one peer: a few of the largest
 *  messages, or as many small ones as a scheduler turn can produce. */
#define FM_LINK_QUEUE_MAX_BYTES ((size_t)64 << 20)
#define FM_LINK_QUEUE_MAX_COUNT 4096

/** A message from @p peer; @p bytes are borrowed for the call. */
typedef void (*fm_link_message_fn)(void *ctx, uint32_t peer,
                                   const uint8_t *bytes, size_t len);
/** @p peer can be sent to (up), or closed or failed; @p reason says which. */
typedef void (*fm_link_peer_fn)(void *ctx, uint32_t peer, bool up,
                                const char *reason);

typedef struct fm_link_handler {
    fm_link_message_fn on_message; /**< required */
    fm_link_peer_fn on_peer;       /**< may be NULL */
    void *ctx;
} fm_link_handler_t;

/** Zero means default. */
typedef struct fm_link_options {
    size_t queue_max_bytes; /**< to one peer; FM_LINK_QUEUE_MAX_BYTES */
    size_t queue_max_count; /**< to one peer; FM_LINK_QUEUE_MAX_COUNT */
    int64_t close_ns;       /**< MPI: how long a close waits for peers; 2 s */
} fm_link_options_t;

/** Who receives; to be set before the first poll. */
void fm_link_handle(fm_link_t *link, const fm_link_handler_t *handler);
/** Receive as a poller of @p reactor from now on; undone by close. */
FM_MUST_USE fm_status_t fm_link_attach(fm_link_t *link, fm_reactor_t *reactor,
                                       fm_error_t *err);
/**
 * Queue a copy of @p bytes for @p peer; never blocks.
 * @retval FM_ERR_FULL       the peer's queue is at its bound: send later
 * @retval FM_ERR_LIMIT      larger than FM_LINK_MESSAGE_MAX_BYTES
 * @retval FM_ERR_NOT_FOUND  no such peer
 * @retval FM_ERR_CLOSED     the peer has closed, failed or was dropped
 */
FM_MUST_USE fm_status_t fm_link_send(fm_link_t *link, uint32_t peer,
                                     const void *bytes, size_t len,
                                     fm_error_t *err);
/** Move messages, run callbacks. @return how many things were done */
size_t fm_link_poll(fm_link_t *link);
/** Messages sent and not yet handed to the carrier or the peer. */
size_t fm_link_queued(const fm_link_t *link);
/** This endpoint's own number, and how many endpoints there are. */
uint32_t fm_link_self(const fm_link_t *link);
uint32_t fm_link_size(const fm_link_t *link);
/** The caller found @p peer dead: forget its queue, refuse to send to it,
 *  do not wait for it at close.  No callback follows. */
void fm_link_drop(fm_link_t *link, uint32_t peer);
/** Tell the peers, drop what is queued, release.  NULL is ignored; returns
 *  NULL. */
fm_link_t *fm_link_close(fm_link_t *link);

/**
 * @p count endpoints that reach each other, numbered from 0.  All of them
 * belong to one thread; each is closed by itself.
 * @param links_out  [out] @p count handles
 */
FM_MUST_USE fm_status_t fm_link_loop_create(uint32_t count,
                                            const fm_link_options_t *opts,
                                            fm_link_t **links_out,
                                            fm_error_t *err);

#define FM_LINK_ZMQ_KEY_TEXT 40 /**< characters of a CURVE key (Z85) */

/** A CURVE key pair, NUL-terminated. */
typedef struct fm_link_zmq_keys {
    char public_key[FM_LINK_ZMQ_KEY_TEXT + 1];
    char secret_key[FM_LINK_ZMQ_KEY_TEXT + 1];
} fm_link_zmq_keys_t;

FM_MUST_USE fm_status_t fm_link_zmq_keys_make(fm_link_zmq_keys_t *keys_out,
                                              fm_error_t *err);
/**
 * Endpoint 0, which any number of others may connect to; they are numbered
 * from 1 in the order in which they came, and never anew: one that connects
 * again by a new link is another peer.  fm_link_size() grows with them.
 * A connection that breaks is made again and loses nothing.
 *
 * @param endpoint  such as "tcp://0.0.0.0:*".
 * @param client_public_key  of the one pair that clients share; all others are
 *                  refused before anything they say is read.
 * @param bound_out [out] the endpoint with its port; free() it.
 * @retval FM_ERR_INVALID  that is no key.
 * @retval FM_ERR_IO       the endpoint cannot be bound; the text says why.
 */
FM_MUST_USE fm_status_t fm_link_zmq_listen(const char *endpoint,
                                           const fm_link_zmq_keys_t *keys,
                                           const char *client_public_key,
                                           const fm_link_options_t *opts,
                                           fm_link_t **link_out,
                                           char **bound_out, fm_error_t *err);
/**
 * Connect to a listening endpoint, which is peer 0; on_peer tells when it has
 * answered.  Until then messages wait here.  Our own number is the listener's
 * to give: 1 until it has.  A listener that was started anew (with the same
 * keys, at the same place) is reported as a peer that is gone.
 */
FM_MUST_USE fm_status_t fm_link_zmq_connect(const char *endpoint,
                                            const char *server_public_key,
                                            const fm_link_zmq_keys_t *keys,
                                            const fm_link_options_t *opts,
                                            fm_link_t **link_out,
                                            fm_error_t *err);

/**
 * @p first and @p second as one link; both are owned from then on (not on
 * failure).  We must be endpoint 0 of both.  Peers of the first keep their
 * numbers; peer n of the second becomes fm_link_size(first) − 1 + n.
 */
FM_MUST_USE fm_status_t fm_link_mux_create(fm_link_t *first, fm_link_t *second,
                                           fm_link_t **link_out,
                                           fm_error_t *err);

/** What chaos does, in parts per million of the messages sent. */
typedef struct fm_link_chaos {
    uint64_t seed; /**< same seed, same sends: same faults */
    uint32_t drop_ppm;
    uint32_t duplicate_ppm;
    uint32_t delay_ppm;       /**< held back, order per peer kept */
    uint32_t reorder_ppm;     /**< held back, later ones may overtake */
    uint32_t delay_polls_max; /**< polls a message is held back: 1 … this */
} fm_link_chaos_t;

/** Wrap @p inner, which is owned from then on (not on failure). */
FM_MUST_USE fm_status_t fm_link_chaos_create(fm_link_t *inner,
                                             const fm_link_chaos_t *chaos,
                                             fm_link_t **link_out,
                                             fm_error_t *err);

/**
 * MPI_Init_thread(FUNNELED) unless it is initialised; ignores SIGPIPE, which a
 * dying peer would raise.  Only the calling thread may use MPI afterwards.
 * @param rank_out,size_out  [out] of MPI_COMM_WORLD
 */
FM_MUST_USE fm_status_t fm_link_mpi_init(uint32_t *rank_out, uint32_t *size_out,
                                         fm_error_t *err);
/** Rank 0's @p len bytes to everybody; collective over MPI_COMM_WORLD, before
 *  links exist: the ranks that wait burn a core each. */
FM_MUST_USE fm_status_t fm_link_mpi_broadcast(void *bytes, size_t len,
                                              fm_error_t *err);
/** The link to all other ranks; collective over MPI_COMM_WORLD. */
FM_MUST_USE fm_status_t fm_link_mpi_create(const fm_link_options_t *opts,
                                           fm_link_t **link_out,
                                           fm_error_t *err);
/**
 * MPI_Finalize, after the link is closed.
 * @retval FM_ERR_BUSY  a peer died or never took our messages: finalising may
 *                      hang, so it was not tried; flush and leave by _exit().
 */
FM_MUST_USE fm_status_t fm_link_mpi_fini(fm_error_t *err);

#endif
