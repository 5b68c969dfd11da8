/* SPDX-License-Identifier: Apache-2.0 */
/** @file internal.h  What the carriers share: the vtable and a queue. */
#ifndef FM_IO_LINK_INTERNAL_H
#define FM_IO_LINK_INTERNAL_H

#include "io/link/link.h"

/** Polls move at most this much, so that a flood leaves the turn its end. */
#define POLL_MAX 256

struct link_ops {
    /* Size and peer are checked by the caller. */
    fm_status_t (*send)(fm_link_t *link, uint32_t peer, const void *bytes,
                        size_t len, fm_error_t *err);
    size_t (*poll)(fm_link_t *link);
    size_t (*queued)(const fm_link_t *link);
    void (*drop)(fm_link_t *link, uint32_t peer);
    /* May be NULL: what the carrier needs of the reactor beside its poll. */
    fm_status_t (*attach)(fm_link_t *link, fm_reactor_t *reactor,
                          fm_error_t *err);
    void (*close)(fm_link_t *link); /* frees the link */
};

/** The first member of every carrier's struct. */
struct fm_link {
    const struct link_ops *ops;
    fm_link_handler_t handler;
    fm_link_options_t opts; /* filled with the defaults */
    fm_reactor_t *reactor;  /* attached to, or NULL */
    uint32_t self;
    uint32_t size;
    bool polled; /* nothing wakes the reactor for this carrier */
};

struct message {
    struct message *next;
    uint32_t peer;
    uint64_t release_poll; /* chaos: held back until this poll */
    bool may_overtake;     /* chaos */
    size_t len;
    uint8_t bytes[];
};

struct message_queue {
    struct message *head;
    struct message *tail;
    size_t count;
};

/** Zero fields take the defaults; @p opts may be NULL. */
void fm_link_options_fill(fm_link_options_t *out,
                          const fm_link_options_t *opts);
/** A message with a copy of @p bytes (NULL: left unset); NULL: no memory. */
FM_MUST_USE struct message *
fm_link_message_create(uint32_t peer, const void *bytes, size_t len);
void fm_link_queue_push(struct message_queue *queue, struct message *message);
/** NULL when empty. */
struct message *fm_link_queue_pop(struct message_queue *queue);
/** Free every message from @p peer, or all with UINT32_MAX. */
void fm_link_queue_clear(struct message_queue *queue, uint32_t peer);

void fm_link_report_peer(fm_link_t *link, uint32_t peer, bool up,
                         const char *reason);
FM_MUST_USE fm_status_t fm_link_full(uint32_t peer, size_t count, size_t bytes,
                                     fm_error_t *err);
FM_MUST_USE fm_status_t fm_link_gone(uint32_t peer, fm_error_t *err);

#endif
