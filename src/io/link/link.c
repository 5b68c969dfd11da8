/* SPDX-License-Identifier: Apache-2.0 */
/* The common face of all carriers: checks, then the vtable. */
#include "io/link/link.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "io/link/internal.h"

void fm_link_options_fill(fm_link_options_t *out, const fm_link_options_t *opts)
{
    *out = opts ? *opts : (fm_link_options_t){0};
    if (out->queue_max_bytes == 0) {
        out->queue_max_bytes = FM_LINK_QUEUE_MAX_BYTES;
    }
    if (out->queue_max_count == 0) {
        out->queue_max_count = FM_LINK_QUEUE_MAX_COUNT;
    }
    if (out->close_ns <= 0) {
        out->close_ns = 2 * FM_NS_PER_S;
    }
}

struct message *fm_link_message_create(uint32_t peer, const void *bytes,
                                       size_t len)
{
    struct message *message = fm_malloc(sizeof(*message) + len);

    if (message) {
        memset(message, 0, sizeof(*message));
        message->peer = peer;
        message->len = len;
        if (bytes && len > 0) {
            memcpy(message->bytes, bytes, len);
        }
    }
    return message;
}

void fm_link_queue_push(struct message_queue *queue, struct message *message)
{
    message->next = NULL;
    if (queue->tail) {
        queue->tail->next = message;
    } else {
        queue->head = message;
    }
    queue->tail = message;
    queue->count++;
}

struct message *fm_link_queue_pop(struct message_queue *queue)
{
    struct message *message = queue->head;

    if (message) {
        queue->head = message->next;
        queue->count--;
        if (!queue->head) {
            queue->tail = NULL;
        }
    }
    return message;
}

void fm_link_queue_clear(struct message_queue *queue, uint32_t peer)
{
    struct message_queue kept = {0};

    for (struct message *at = NULL; (at = fm_link_queue_pop(queue));) {
        if (peer == UINT32_MAX || at->peer == peer) {
            free(at);
        } else {
            fm_link_queue_push(&kept, at);
        }
    }
    *queue = kept;
}

void fm_link_report_peer(fm_link_t *link, uint32_t peer, bool up,
                         const char *reason)
{
    if (link->handler.on_peer) {
        link->handler.on_peer(link->handler.ctx, peer, up, reason);
    }
}

fm_status_t fm_link_full(uint32_t peer, size_t count, size_t bytes,
                         fm_error_t *err)
{
    return fm_error_set(err, FM_ERR_FULL,
                        "peer %u: %zu messages (%zu bytes) wait; it does not "
                        "keep up",
                        peer, count, bytes);
}

fm_status_t fm_link_gone(uint32_t peer, fm_error_t *err)
{
    return fm_error_set(err, FM_ERR_CLOSED, "peer %u: it is gone", peer);
}

void fm_link_handle(fm_link_t *link, const fm_link_handler_t *handler)
{
    link->handler = *handler;
}

static size_t attached_poll(void *ctx)
{
    return fm_link_poll(ctx);
}

fm_status_t fm_link_attach(fm_link_t *link, fm_reactor_t *reactor,
                           fm_error_t *err)
{
    fm_status_t rc =
        fm_reactor_poller_add(reactor, attached_poll, link, link->polled, err);

    if (rc >= 0 && link->ops->attach) {
        rc = link->ops->attach(link, reactor, err);
    }
    if (rc >= 0) {
        link->reactor = reactor;
        fm_reactor_wake(reactor); /* messages may wait already */
    }
    return rc;
}

fm_status_t fm_link_send(fm_link_t *link, uint32_t peer, const void *bytes,
                         size_t len, fm_error_t *err)
{
    if (peer >= link->size || peer == link->self) {
        return fm_error_set(err, FM_ERR_NOT_FOUND,
                            "peer %u: no such peer of endpoint %u (0 … %u)",
                            peer, link->self, link->size - 1);
    }
    if (len > FM_LINK_MESSAGE_MAX_BYTES) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "peer %u: a message of %zu bytes, at most %zu",
                            peer, len, FM_LINK_MESSAGE_MAX_BYTES);
    }
    return link->ops->send(link, peer, bytes, len, err);
}

size_t fm_link_poll(fm_link_t *link)
{
    return link->ops->poll(link);
}

size_t fm_link_queued(const fm_link_t *link)
{
    return link->ops->queued(link);
}

uint32_t fm_link_self(const fm_link_t *link)
{
    return link->self;
}

uint32_t fm_link_size(const fm_link_t *link)
{
    return link->size;
}

void fm_link_drop(fm_link_t *link, uint32_t peer)
{
    if (peer < link->size && peer != link->self) {
        link->ops->drop(link, peer);
    }
}

fm_link_t *fm_link_close(fm_link_t *link)
{
    if (link) {
        if (link->reactor) {
            fm_reactor_poller_remove(link->reactor, attached_poll, link);
        }
        link->ops->close(link);
    }
    return NULL;
}
