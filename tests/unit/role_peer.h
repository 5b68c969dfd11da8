/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A scripted peer on a loop link: keeps what it hears, says what it is told.
 * Waits are for a message, bounded by turns of the reactor.
 */
#ifndef ROLE_PEER_H
#define ROLE_PEER_H

#include <string.h>

#include "base/buf.h"
#include "base/clock.h"
#include "fmtest.h"
#include "io/link/link.h"
#include "io/wire/wire.h"

#define HEARD_MAX 256
/* Turns of at most 10 ms each: a minute, far beyond what any wait takes. */
#define TURNS_MAX 6000

typedef struct peer {
    fm_reactor_t *reactor;
    fm_link_t *link;
    uint32_t other; /* the endpoint talked to */
    fm_msg_t heard[HEARD_MAX];
    size_t count;
    size_t seen; /* messages that peer_wait() has passed */
} peer_t;

static inline void peer_on_message(void *ctx, uint32_t from,
                                   const uint8_t *bytes, size_t len)
{
    peer_t *peer = ctx;
    fm_error_t err = {0};
    fm_msg_t msg;

    CU_ASSERT(from == peer->other);
    FM_ASSERT_OK(fm_wire_decode(bytes, len, &msg, &err), &err);
    if (msg.type == FM_MSG_HEARTBEAT) {
        fm_msg_fini(&msg); /* as many as time allows: no part of a script */
        return;
    }
    CU_ASSERT_FATAL(peer->count < HEARD_MAX);
    peer->heard[peer->count++] = msg;
}

static inline void peer_open(peer_t *peer, fm_reactor_t *reactor,
                             fm_link_t *link, uint32_t other)
{
    fm_link_handler_t handler = {peer_on_message, NULL, peer};

    *peer = (peer_t){.reactor = reactor, .link = link, .other = other};
    fm_link_handle(link, &handler);
}

static inline void peer_close(peer_t *peer)
{
    for (size_t i = 0; i < peer->count; i++) {
        fm_msg_fini(&peer->heard[i]);
    }
}

static inline void peer_say(const peer_t *peer, const fm_msg_t *msg)
{
    fm_buf_t buf = {0};
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_wire_encode(msg, &buf, &err), &err);
    FM_ASSERT_OK(fm_link_send(peer->link, peer->other, buf.data, buf.len, &err),
                 &err);
    fm_buf_fini(&buf);
}

static inline void turn(fm_reactor_t *reactor)
{
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_reactor_turn(reactor, 10 * FM_NS_PER_MS, NULL, &err), &err);
}

/* The next message of @p type after those seen; the test ends without one. */
static inline const fm_msg_t *peer_wait(peer_t *peer, fm_msg_type_t type)
{
    for (int turns = 0; turns < TURNS_MAX; turns++) {
        while (peer->seen < peer->count) {
            const fm_msg_t *msg = &peer->heard[peer->seen++];
            if (msg->type == type) {
                return msg;
            }
        }
        turn(peer->reactor);
    }
    (void)fprintf(stderr, "no %s came\n", fm_msg_type_name(type));
    CU_FAIL_FATAL("a message did not come");
    return NULL;
}

static inline size_t peer_heard(const peer_t *peer, fm_msg_type_t type)
{
    size_t count = 0;

    for (size_t i = 0; i < peer->count; i++) {
        count += peer->heard[i].type == type;
    }
    return count;
}

#endif
