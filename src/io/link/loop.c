/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Endpoints inside one process.  A send appends to the receiver's inbox; the
 * receiver's poll takes from it.  The hub lives as long as an endpoint does.
 *
 * What a peer sent before it closed is delivered before its "down".
 */
#include <stdlib.h>

#include "base/mem.h"
#include "io/link/internal.h"

struct lane { /* from one peer to us */
    size_t count;
    size_t bytes;
    bool announced; /* on_peer(up) has run */
    bool closed;    /* the peer has closed, or we dropped it */
    bool reported;  /* on_peer(down) has run, or must not */
};

struct hub {
    uint32_t open;           /* endpoints */
    struct loop **endpoints; /* NULL: closed */
};

struct loop {
    fm_link_t base;
    struct hub *hub;
    struct message_queue inbox;
    struct lane *lanes; /* by peer */
    size_t queued;      /* of ours, in the inboxes of others */
    bool changed;       /* a peer's state is to be reported */
};

static struct loop *loop_of(fm_link_t *link)
{
    return (struct loop *)(void *)link;
}

static fm_status_t loop_send(fm_link_t *link, uint32_t peer, const void *bytes,
                             size_t len, fm_error_t *err)
{
    struct loop *loop = loop_of(link);
    struct loop *to = loop->hub->endpoints[peer];

    if (!to || loop->lanes[peer].closed || to->lanes[link->self].closed) {
        return fm_link_gone(peer, err);
    }
    struct lane *lane = &to->lanes[link->self];
    if (lane->count >= link->opts.queue_max_count ||
        lane->bytes + len > link->opts.queue_max_bytes) {
        return fm_link_full(peer, lane->count, lane->bytes, err);
    }
    struct message *message = fm_link_message_create(link->self, bytes, len);
    if (!message) {
        return fm_no_memory(err);
    }
    fm_link_queue_push(&to->inbox, message);
    lane->count++;
    lane->bytes += len;
    loop->queued++;
    if (to->base.reactor) {
        fm_reactor_wake(to->base.reactor);
    }
    return FM_OK;
}

static size_t peers_report(struct loop *loop)
{
    size_t done = 0;

    if (!loop->changed) {
        return 0;
    }
    loop->changed = false;
    for (uint32_t i = 0; i < loop->base.size; i++) {
        struct lane *lane = &loop->lanes[i];
        if (i == loop->base.self) {
            continue;
        }
        if (!lane->announced && !lane->closed) {
            lane->announced = true;
            fm_link_report_peer(&loop->base, i, true, "connected");
            done++;
        }
        if (lane->closed && !lane->reported && lane->count > 0) {
            loop->changed = true; /* its last messages come first */
        } else if (lane->closed && !lane->reported) {
            lane->reported = true;
            fm_link_report_peer(&loop->base, i, false, "closed");
            done++;
        }
    }
    return done;
}

static size_t loop_poll(fm_link_t *link)
{
    struct loop *loop = loop_of(link);
    size_t done = peers_report(loop);
    size_t limit = loop->inbox.count;

    if (limit > POLL_MAX) {
        limit = POLL_MAX;
    }
    for (size_t i = 0; i < limit; i++) {
        struct message *message = fm_link_queue_pop(&loop->inbox);
        if (!message) {
            break; /* a handler dropped the sender */
        }
        struct lane *lane = &loop->lanes[message->peer];
        struct loop *from = loop->hub->endpoints[message->peer];
        lane->count--;
        lane->bytes -= message->len;
        if (from) {
            from->queued--;
        }
        link->handler.on_message(link->handler.ctx, message->peer,
                                 message->bytes, message->len);
        free(message);
        done++;
    }
    if ((loop->inbox.count > 0 || loop->changed) && link->reactor) {
        fm_reactor_wake(link->reactor);
    }
    return done;
}

static size_t loop_queued(const fm_link_t *link)
{
    return ((const struct loop *)(const void *)link)->queued;
}

static void lane_forget(struct loop *loop, uint32_t peer)
{
    struct loop *from = loop->hub->endpoints[peer];

    if (from) {
        from->queued -= loop->lanes[peer].count;
    }
    loop->lanes[peer].count = 0;
    loop->lanes[peer].bytes = 0;
    fm_link_queue_clear(&loop->inbox, peer);
}

static void loop_drop(fm_link_t *link, uint32_t peer)
{
    struct loop *loop = loop_of(link);

    loop->lanes[peer].closed = true;
    loop->lanes[peer].reported = true;
    lane_forget(loop, peer);
}

static void loop_close(fm_link_t *link)
{
    struct loop *loop = loop_of(link);
    struct hub *hub = loop->hub;

    for (uint32_t i = 0; i < link->size; i++) {
        struct loop *peer = hub->endpoints[i];
        if (peer && peer != loop) {
            lane_forget(loop, i);
            peer->lanes[link->self].closed = true;
            peer->changed = true;
            if (peer->base.reactor) {
                fm_reactor_wake(peer->base.reactor);
            }
        }
    }
    fm_link_queue_clear(&loop->inbox, UINT32_MAX);
    hub->endpoints[link->self] = NULL;
    if (--hub->open == 0) {
        free(hub->endpoints);
        free(hub);
    }
    free(loop->lanes);
    free(loop);
}

static const struct link_ops loop_ops = {.send = loop_send,
                                         .poll = loop_poll,
                                         .queued = loop_queued,
                                         .drop = loop_drop,
                                         .close = loop_close};

static struct loop *endpoint_create(struct hub *hub, uint32_t self,
                                    uint32_t size,
                                    const fm_link_options_t *opts)
{
    struct loop *loop = fm_calloc(1, sizeof(*loop));

    if (!loop || !(loop->lanes = fm_calloc(size, sizeof(*loop->lanes)))) {
        free(loop);
        return NULL;
    }
    fm_link_options_fill(&loop->base.opts, opts);
    loop->base.ops = &loop_ops;
    loop->base.self = self;
    loop->base.size = size;
    loop->hub = hub;
    loop->changed = true;
    return loop;
}

fm_status_t fm_link_loop_create(uint32_t count, const fm_link_options_t *opts,
                                fm_link_t **links_out, fm_error_t *err)
{
    struct hub *hub = fm_calloc(1, sizeof(*hub));

    if (count == 0 || !hub ||
        !(hub->endpoints = fm_calloc(count, sizeof(struct loop *)))) {
        free(hub);
        return count ? fm_no_memory(err)
                     : fm_error_set(err, FM_ERR_INVALID,
                                    "a loop needs an endpoint");
    }
    for (uint32_t i = 0; i < count; i++) {
        hub->endpoints[i] = endpoint_create(hub, i, count, opts);
        if (!hub->endpoints[i]) {
            for (uint32_t k = 0; k < i; k++) {
                free(hub->endpoints[k]->lanes);
                free(hub->endpoints[k]);
            }
            free(hub->endpoints);
            free(hub);
            return fm_no_memory(err);
        }
    }
    hub->open = count;
    for (uint32_t i = 0; i < count; i++) {
        links_out[i] = &hub->endpoints[i]->base;
    }
    return FM_OK;
}
