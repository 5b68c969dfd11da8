/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Faults on request, between the sender and any carrier.  Time is counted in
 * polls and every choice comes from one seeded generator, so a run over the
 * loop carrier is the same every time.
 *
 * Held messages stand in one queue in the order of sending.  Those that may
 * not overtake wait for all earlier ones to the same peer.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/rng.h"
#include "io/link/internal.h"

#define MILLION 1000000u

struct chaos {
    fm_link_t base;
    fm_link_t *inner;
    fm_link_chaos_t opts;
    fm_rng_t rng;
    uint64_t polls;
    struct message_queue held;
    size_t held_bytes;
    size_t *ordered; /* by peer: held messages that keep their order */
    bool *blocked;   /* by peer: scratch of one release */
};

static struct chaos *chaos_of(fm_link_t *link)
{
    return (struct chaos *)(void *)link;
}

static bool chance(struct chaos *chaos, uint32_t ppm)
{
    return ppm > 0 && fm_rng_below(&chaos->rng, MILLION) < ppm;
}

static fm_status_t hold(struct chaos *chaos, uint32_t peer, const void *bytes,
                        size_t len, uint64_t polls, bool may_overtake,
                        fm_error_t *err)
{
    const fm_link_options_t *bound = &chaos->base.opts;

    if (chaos->held.count >= bound->queue_max_count ||
        chaos->held_bytes + len > bound->queue_max_bytes) {
        return fm_link_full(peer, chaos->held.count, chaos->held_bytes, err);
    }
    struct message *message = fm_link_message_create(peer, bytes, len);
    if (!message) {
        return fm_no_memory(err);
    }
    message->release_poll = chaos->polls + polls;
    message->may_overtake = may_overtake;
    fm_link_queue_push(&chaos->held, message);
    chaos->held_bytes += len;
    chaos->ordered[peer] += may_overtake ? 0 : 1;
    return FM_OK;
}

static fm_status_t send_once(struct chaos *chaos, uint32_t peer,
                             const void *bytes, size_t len, fm_error_t *err)
{
    bool reorder = chance(chaos, chaos->opts.reorder_ppm);
    bool delay = chance(chaos, chaos->opts.delay_ppm);

    if (reorder || delay) {
        uint64_t polls =
            1 + fm_rng_below(&chaos->rng, chaos->opts.delay_polls_max);
        return hold(chaos, peer, bytes, len, polls, reorder, err);
    }
    if (chaos->ordered[peer] > 0) {
        return hold(chaos, peer, bytes, len, 0, false, err);
    }
    return fm_link_send(chaos->inner, peer, bytes, len, err);
}

static fm_status_t chaos_send(fm_link_t *link, uint32_t peer, const void *bytes,
                              size_t len, fm_error_t *err)
{
    struct chaos *chaos = chaos_of(link);

    if (chance(chaos, chaos->opts.drop_ppm)) {
        return FM_OK;
    }
    bool twice = chance(chaos, chaos->opts.duplicate_ppm);
    fm_status_t rc = send_once(chaos, peer, bytes, len, err);
    if (rc >= 0 && twice) {
        /* A duplicate that finds no room is one that did not happen. */
        fm_status_t ignored = send_once(chaos, peer, bytes, len, NULL);
        (void)ignored;
    }
    return rc;
}

/* True when @p message has left (or can never leave). */
static bool release_one(struct chaos *chaos, const struct message *message)
{
    uint32_t peer = message->peer;

    if (message->release_poll <= chaos->polls &&
        (message->may_overtake || !chaos->blocked[peer]) &&
        fm_link_send(chaos->inner, peer, message->bytes, message->len, NULL) !=
            FM_ERR_FULL) {
        chaos->ordered[peer] -= message->may_overtake ? 0 : 1;
        chaos->held_bytes -= message->len;
        return true;
    }
    if (!message->may_overtake) {
        chaos->blocked[peer] = true;
    }
    return false;
}

static size_t chaos_poll(fm_link_t *link)
{
    struct chaos *chaos = chaos_of(link);
    struct message_queue kept = {0};
    size_t done = 0;

    chaos->polls++;
    if (chaos->held.count > 0) {
        memset(chaos->blocked, 0, link->size * sizeof(*chaos->blocked));
    }
    for (struct message *at = NULL; (at = fm_link_queue_pop(&chaos->held));) {
        if (release_one(chaos, at)) {
            free(at);
            done++;
        } else {
            fm_link_queue_push(&kept, at);
        }
    }
    chaos->held = kept;
    /* What is held counts as work: the next poll must come soon. */
    return done + (kept.count > 0) + fm_link_poll(chaos->inner);
}

static size_t chaos_queued(const fm_link_t *link)
{
    const struct chaos *chaos = (const struct chaos *)(const void *)link;

    return chaos->held.count + fm_link_queued(chaos->inner);
}

static void chaos_drop(fm_link_t *link, uint32_t peer)
{
    struct chaos *chaos = chaos_of(link);

    fm_link_queue_clear(&chaos->held, peer);
    chaos->held_bytes = 0;
    for (const struct message *at = chaos->held.head; at; at = at->next) {
        chaos->held_bytes += at->len;
    }
    chaos->ordered[peer] = 0;
    fm_link_drop(chaos->inner, peer);
}

static void chaos_free(struct chaos *chaos)
{
    if (chaos) {
        free(chaos->ordered);
        free(chaos->blocked);
        free(chaos);
    }
}

static void chaos_close(fm_link_t *link)
{
    struct chaos *chaos = chaos_of(link);

    fm_link_queue_clear(&chaos->held, UINT32_MAX);
    fm_link_close(chaos->inner);
    chaos_free(chaos);
}

static void forward_message(void *ctx, uint32_t peer, const uint8_t *bytes,
                            size_t len)
{
    struct chaos *chaos = ctx;

    chaos->base.handler.on_message(chaos->base.handler.ctx, peer, bytes, len);
}

static void forward_peer(void *ctx, uint32_t peer, bool up, const char *reason)
{
    struct chaos *chaos = ctx;

    fm_link_report_peer(&chaos->base, peer, up, reason);
}

static const struct link_ops chaos_ops = {.send = chaos_send,
                                          .poll = chaos_poll,
                                          .queued = chaos_queued,
                                          .drop = chaos_drop,
                                          .close = chaos_close};

fm_status_t fm_link_chaos_create(fm_link_t *inner, const fm_link_chaos_t *opts,
                                 fm_link_t **link_out, fm_error_t *err)
{
    struct chaos *chaos = fm_calloc(1, sizeof(*chaos));

    if (!chaos ||
        !(chaos->ordered = fm_calloc(inner->size, sizeof(*chaos->ordered))) ||
        !(chaos->blocked = fm_calloc(inner->size, sizeof(*chaos->blocked)))) {
        chaos_free(chaos);
        return fm_no_memory(err);
    }
    chaos->base.ops = &chaos_ops;
    chaos->base.opts = inner->opts;
    chaos->base.self = inner->self;
    chaos->base.size = inner->size;
    chaos->base.polled = true;
    chaos->inner = inner;
    chaos->opts = *opts;
    if (chaos->opts.delay_polls_max == 0) {
        chaos->opts.delay_polls_max = 1;
    }
    fm_rng_init(&chaos->rng, opts->seed);
    const fm_link_handler_t forward = {
        .on_message = forward_message, .on_peer = forward_peer, .ctx = chaos};
    fm_link_handle(inner, &forward);
    *link_out = &chaos->base;
    return FM_OK;
}
