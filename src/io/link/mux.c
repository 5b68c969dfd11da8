/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two links as one, for the control plane that serves its own cell and those
 * that join: peers of the first keep their numbers, a peer n of the second is
 * first_size − 1 + n.  Both must have us as endpoint 0, and the first one's
 * size must not change.
 */
#include <stdlib.h>

#include "base/mem.h"
#include "io/link/internal.h"

struct mux {
    fm_link_t base;
    fm_link_t *first, *second; /* owned */
};

static struct mux *mux_of(const fm_link_t *link)
{
    return (struct mux *)(uintptr_t)link;
}

static uint32_t offset(const struct mux *mux)
{
    return fm_link_size(mux->first) - 1;
}

static void size_update(struct mux *mux)
{
    mux->base.size = offset(mux) + fm_link_size(mux->second);
}

static void first_message(void *ctx, uint32_t peer, const uint8_t *bytes,
                          size_t len)
{
    struct mux *mux = ctx;

    mux->base.handler.on_message(mux->base.handler.ctx, peer, bytes, len);
}

static void first_peer(void *ctx, uint32_t peer, bool up, const char *reason)
{
    struct mux *mux = ctx;

    fm_link_report_peer(&mux->base, peer, up, reason);
}

static void second_message(void *ctx, uint32_t peer, const uint8_t *bytes,
                           size_t len)
{
    struct mux *mux = ctx;

    mux->base.handler.on_message(mux->base.handler.ctx, offset(mux) + peer,
                                 bytes, len);
}

static void second_peer(void *ctx, uint32_t peer, bool up, const char *reason)
{
    struct mux *mux = ctx;

    size_update(mux);
    fm_link_report_peer(&mux->base, offset(mux) + peer, up, reason);
}

static fm_status_t mux_send(fm_link_t *link, uint32_t peer, const void *bytes,
                            size_t len, fm_error_t *err)
{
    struct mux *mux = mux_of(link);

    return peer <= offset(mux)
               ? fm_link_send(mux->first, peer, bytes, len, err)
               : fm_link_send(mux->second, peer - offset(mux), bytes, len, err);
}

/* Attached to a reactor, each polls for itself. */
static size_t mux_poll(fm_link_t *link)
{
    struct mux *mux = mux_of(link);

    return mux->base.reactor
               ? 0
               : fm_link_poll(mux->first) + fm_link_poll(mux->second);
}

static size_t mux_queued(const fm_link_t *link)
{
    const struct mux *mux = mux_of(link);

    return fm_link_queued(mux->first) + fm_link_queued(mux->second);
}

static void mux_drop(fm_link_t *link, uint32_t peer)
{
    struct mux *mux = mux_of(link);

    if (peer <= offset(mux)) {
        fm_link_drop(mux->first, peer);
    } else {
        fm_link_drop(mux->second, peer - offset(mux));
    }
}

static fm_status_t mux_attach(fm_link_t *link, fm_reactor_t *reactor,
                              fm_error_t *err)
{
    struct mux *mux = mux_of(link);
    fm_status_t rc = fm_link_attach(mux->first, reactor, err);

    return rc < 0 ? rc : fm_link_attach(mux->second, reactor, err);
}

static void mux_close(fm_link_t *link)
{
    struct mux *mux = mux_of(link);

    fm_link_close(mux->second);
    fm_link_close(mux->first);
    free(mux);
}

static const struct link_ops mux_ops = {
    .send = mux_send,
    .poll = mux_poll,
    .queued = mux_queued,
    .drop = mux_drop,
    .attach = mux_attach,
    .close = mux_close,
};

fm_status_t fm_link_mux_create(fm_link_t *first, fm_link_t *second,
                               fm_link_t **link_out, fm_error_t *err)
{
    if (first->self != 0 || second->self != 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "endpoints %u and %u: both are to be 0",
                            first->self, second->self);
    }
    struct mux *mux = fm_calloc(1, sizeof(*mux));
    if (!mux) {
        return fm_no_memory(err);
    }
    *mux = (struct mux){.base = {.ops = &mux_ops}, first, second};
    size_update(mux);
    fm_link_handle(first, &(fm_link_handler_t){first_message, first_peer, mux});
    fm_link_handle(second,
                   &(fm_link_handler_t){second_message, second_peer, mux});
    *link_out = &mux->base;
    return FM_OK;
}
