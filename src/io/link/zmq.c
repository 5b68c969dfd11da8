/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cells that join: one listening endpoint (number 0) and any number of
 * connecting ones, over ZeroMQ with CURVE.  Connecting endpoints reach the
 * listening one only.
 *
 * ZeroMQ reconnects, but what was under way on a broken connection is gone, so
 * each direction is numbered and acknowledged.  A receiver takes the next
 * number only; where it sees a gap, or is asked by a sender that heard nothing
 * for RETRY_NS, it says which number it has, and all that follows is sent again
 * (go-back-N).  What is not acknowledged is also what the bounds of a queue
 * count, so a peer that does not poll is felt as FM_ERR_FULL.
 *
 *   frame   u8 kind, u64 number (little-endian), payload
 *   HELLO   client → listener, number = protocol, until WELCOME comes
 *   WELCOME number = the client's endpoint
 *   DATA    number from 1
 *   ACK     number of the last DATA taken
 *   PING    which number have you?
 *   PONG    this one: send what follows again
 *   BYE     the sender has closed
 *   RESET   the receiver does not know you (it is another process by now)
 *
 * Who may connect: ZAP, answered here, compares the client's public key with
 * the one that the listener was given.
 */
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <zmq.h>

#include "base/clock.h"
#include "base/map.h"
#include "base/mem.h"
#include "io/link/internal.h"

#define PROTOCOL 1u
#define HEADER_BYTES 9u
#define KEY_BYTES 32u /* of CURVE, raw */
/* Connections ever taken: endpoint numbers are not used again. */
#define REMOTES_MAX 1000000u
#define RETRY_NS (FM_NS_PER_S / 2)
/* ZeroMQ's own probes: a half-open connection is found and made anew. */
#define PROBE_MS 2000
#define PROBE_TIMEOUT_MS 6000
/* Frames that ZeroMQ holds for one peer, such as questions to one that is not
 * connected; the bound of messages is ours. */
#define SEND_MAX 8192
#define ZAP_ENDPOINT "inproc://zeromq.zap.01"
#define ZAP_FRAMES 7

enum kind { HELLO = 1, WELCOME, DATA, ACK, PING, PONG, BYE, RESET };

/* The other end. */
struct remote {
    fm_digest_t identity;         /* of a client, random; at the listener */
    struct message_queue unacked; /* numbers acked + 1 … */
    size_t unacked_bytes;
    size_t sent;      /* of the queue: handed to ZeroMQ since the last repeat */
    uint64_t acked;   /* last number that it has */
    uint64_t taken;   /* last number that we have */
    uint64_t told;    /* last number that we acknowledged */
    int64_t heard_ns; /* of progress, or of our last question */
    bool asked;       /* PONG is due */
    bool up;          /* WELCOME was sent, or came */
    bool gone;        /* closed, reset or dropped: nothing more */
};

struct carrier {
    fm_link_t base;
    void *context;
    void *socket;
    void *zap; /* listener only */
    uint8_t client_key[KEY_BYTES];
    struct remote *remotes; /* listener: peer n at n − 1; client: peer 0 at 0 */
    size_t remote_count, remote_capacity;
    fm_map_t *peers; /* listener: identity → index */
    uint64_t timer;
    int64_t checked_ns; /* for what is to be repeated */
    size_t queued;
    bool listens;
    bool closing; /* what arrives is discarded */
};

static struct carrier *carrier_of(const fm_link_t *link)
{
    return (struct carrier *)(uintptr_t)link;
}

static bool set_int(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof(value)) == 0;
}

static fm_status_t zmq_fail(const char *what, fm_error_t *err)
{
    return fm_error_set(err, FM_ERR_IO, "%s: %s", what,
                        zmq_strerror(zmq_errno()));
}

static uint32_t peer_of(const struct carrier *c, const struct remote *remote)
{
    return c->listens ? (uint32_t)(remote - c->remotes) + 1 : 0;
}

static struct remote *remote_at(const struct carrier *c, uint32_t peer)
{
    return &c->remotes[c->listens ? peer - 1 : 0];
}

/* --- frames --------------------------------------------------------------- */

static void frame_head(uint8_t *to, enum kind kind, uint64_t number)
{
    to[0] = (uint8_t)kind;
    for (size_t i = 0; i < 8; i++) {
        to[1 + i] = (uint8_t)(number >> (8 * i));
    }
}

/* False when ZeroMQ does not take it: it will be repeated, or the peer is no
 * longer connected. */
static bool frame_to(struct carrier *c, const fm_digest_t *identity,
                     enum kind kind, uint64_t number, const void *bytes,
                     size_t len)
{
    zmq_msg_t msg;

    if (zmq_msg_init_size(&msg, HEADER_BYTES + len) != 0) {
        return false;
    }
    uint8_t *to = zmq_msg_data(&msg);
    frame_head(to, kind, number);
    if (len > 0) {
        memcpy(to + HEADER_BYTES, bytes, len);
    }
    if ((c->listens && zmq_send(c->socket, identity->bytes, sizeof(fm_digest_t),
                                ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0) ||
        zmq_msg_send(&msg, c->socket, ZMQ_DONTWAIT) < 0) {
        (void)zmq_msg_close(&msg);
        return false;
    }
    return true;
}

static bool frame(struct carrier *c, const struct remote *remote,
                  enum kind kind, uint64_t number)
{
    return frame_to(c, &remote->identity, kind, number, NULL, 0);
}

/* --- one remote ----------------------------------------------------------- */

static void unacked_clear(struct carrier *c, struct remote *remote)
{
    c->queued -= remote->unacked.count;
    fm_link_queue_clear(&remote->unacked, UINT32_MAX);
    remote->unacked_bytes = 0;
    remote->sent = 0;
}

/* Hand on what waits, in order, as far as ZeroMQ takes it. */
static void pump(struct carrier *c, struct remote *remote)
{
    size_t index = 0;

    for (struct message *at = remote->unacked.head; at && remote->up;
         at = at->next, index++) {
        if (index < remote->sent) {
            continue;
        }
        if (!frame_to(c, &remote->identity, DATA, remote->acked + 1 + index,
                      at->bytes, at->len)) {
            return;
        }
        remote->sent++;
    }
}

static void on_ack(struct carrier *c, struct remote *remote, uint64_t number)
{
    while (remote->acked < number && remote->unacked.head) {
        struct message *message = fm_link_queue_pop(&remote->unacked);
        remote->unacked_bytes -= message->len;
        remote->acked++;
        remote->sent -= remote->sent > 0;
        remote->heard_ns = fm_clock_mono_ns();
        c->queued--;
        free(message);
    }
}

static void lost(struct carrier *c, struct remote *remote, const char *reason)
{
    if (!remote->gone) {
        bool was_up = remote->up;
        remote->gone = true;
        remote->up = false;
        unacked_clear(c, remote);
        if ((was_up || !c->listens) && !c->closing) {
            fm_link_report_peer(&c->base, peer_of(c, remote), false, reason);
        }
    }
}

/* The closing end waits for the answer. */
static void on_bye(struct carrier *c, struct remote *remote)
{
    if (remote->up && !c->closing) {
        (void)frame(c, remote, BYE, 0);
    }
    lost(c, remote, "closed");
}

static void on_data(struct carrier *c, struct remote *remote, uint64_t number,
                    const uint8_t *bytes, size_t len)
{
    if (number != remote->taken + 1) {
        remote->asked = remote->asked || number > remote->taken;
        return;
    }
    remote->taken = number;
    if (c->closing) {
        return;
    }
    c->base.handler.on_message(c->base.handler.ctx, peer_of(c, remote), bytes,
                               len);
}

/* Acknowledge once a poll, not once a message. */
static void tell(struct carrier *c, struct remote *remote)
{
    if (remote->up && (remote->asked || remote->told != remote->taken) &&
        frame(c, remote, remote->asked ? PONG : ACK, remote->taken)) {
        remote->told = remote->taken;
        remote->asked = false;
    }
}

/* Of a remote that is up; true where tell() has something to say. */
static bool on_flow(struct carrier *c, struct remote *remote, enum kind kind,
                    uint64_t number, const uint8_t *bytes, size_t len)
{
    switch (kind) {
    case DATA:
        on_data(c, remote, number, bytes, len);
        return true;
    case PING:
        remote->asked = true;
        return true;
    case ACK:
    case PONG:
        on_ack(c, remote, number);
        if (kind == PONG) {
            remote->sent = 0;
        }
        pump(c, remote);
        return false;
    case HELLO:
    case WELCOME:
    case BYE:
    case RESET:
        break;
    }
    return false;
}

/* --- the listener's side -------------------------------------------------- */

static struct remote *remote_find(const struct carrier *c,
                                  const fm_digest_t *identity)
{
    const uint64_t *index = fm_map_get(c->peers, identity);

    return index ? &c->remotes[*index] : NULL;
}

/* NULL when there is no room: the client will ask again. */
static struct remote *remote_add(struct carrier *c, const fm_digest_t *identity)
{
    if (c->remote_count >= REMOTES_MAX ||
        fm_grow((void *)&c->remotes, &c->remote_capacity, c->remote_count,
                sizeof(*c->remotes), NULL) < 0 ||
        fm_map_put(c->peers, identity, c->remote_count, NULL) < 0) {
        return NULL;
    }
    struct remote *remote = &c->remotes[c->remote_count++];
    *remote = (struct remote){.identity = *identity};
    c->base.size = (uint32_t)c->remote_count + 1;
    return remote;
}

static void on_hello(struct carrier *c, struct remote *remote,
                     const fm_digest_t *identity, uint64_t protocol)
{
    if (protocol != PROTOCOL || (remote && remote->gone) ||
        (!remote && !(remote = remote_add(c, identity)))) {
        (void)frame_to(c, identity, RESET, PROTOCOL, NULL, 0);
        return;
    }
    (void)frame(c, remote, WELCOME, peer_of(c, remote));
    if (!remote->up) {
        remote->up = true;
        fm_link_report_peer(&c->base, peer_of(c, remote), true, "connected");
    }
}

/* A frame of a client; its remote, or NULL when it has none. */
static struct remote *at_listener(struct carrier *c,
                                  const fm_digest_t *identity, enum kind kind,
                                  uint64_t number, const uint8_t *bytes,
                                  size_t len)
{
    struct remote *remote = remote_find(c, identity);

    switch (kind) {
    case HELLO:
        on_hello(c, remote, identity, number);
        return NULL;
    case DATA:
    case ACK:
    case PING:
    case PONG:
        if (!remote || !remote->up) {
            (void)frame_to(c, identity, RESET, PROTOCOL, NULL, 0);
            return NULL;
        }
        return on_flow(c, remote, kind, number, bytes, len) ? remote : NULL;
    case BYE:
        if (remote) {
            on_bye(c, remote);
        }
        return NULL;
    case WELCOME:
    case RESET:
        break;
    }
    return NULL;
}

/* --- the client's side ---------------------------------------------------- */

static struct remote *at_client(struct carrier *c, enum kind kind,
                                uint64_t number, const uint8_t *bytes,
                                size_t len)
{
    struct remote *remote = &c->remotes[0];

    if (remote->gone) {
        return NULL;
    }
    switch (kind) {
    case WELCOME:
        if (!remote->up && number > 0 && number <= REMOTES_MAX) {
            c->base.self = (uint32_t)number;
            remote->up = true;
            pump(c, remote);
            fm_link_report_peer(&c->base, 0, true, "connected");
        }
        return NULL;
    case DATA:
    case ACK:
    case PING:
    case PONG:
        return remote->up && on_flow(c, remote, kind, number, bytes, len)
                   ? remote
                   : NULL;
    case BYE:
        on_bye(c, remote);
        return NULL;
    case RESET:
        lost(c, remote, "it does not know this endpoint: it was started anew");
        return NULL;
    case HELLO:
        break;
    }
    return NULL;
}

/* --- receiving ------------------------------------------------------------ */

/* ZeroMQ's question whether a client with this key may connect. */
static size_t zap_answer(struct carrier *c)
{
    uint8_t request[ZAP_FRAMES][64] = {{0}};
    int len[ZAP_FRAMES] = {0};
    int count = 0;
    int more = 1;
    size_t size = sizeof(more);

    while (more) {
        uint8_t extra[64];
        bool kept = count < ZAP_FRAMES;
        int got = zmq_recv(c->zap, kept ? request[count] : extra, sizeof(extra),
                           ZMQ_DONTWAIT);
        if (got < 0 || zmq_getsockopt(c->zap, ZMQ_RCVMORE, &more, &size) < 0) {
            return 0;
        }
        if (kept) {
            len[count] = got;
        }
        count++;
    }
    bool allowed = count == ZAP_FRAMES && len[5] == 5 &&
                   memcmp(request[5], "CURVE", 5) == 0 &&
                   len[6] == (int)KEY_BYTES &&
                   memcmp(request[6], c->client_key, KEY_BYTES) == 0;
    const struct {
        const void *bytes;
        size_t len;
    } reply[] = {{"1.0", 3},
                 {request[1], len[1] > 0 && len[1] <= 64 ? (size_t)len[1] : 0},
                 {allowed ? "200" : "400", 3},
                 {"", 0},
                 {"", 0},
                 {"", 0}};
    for (size_t i = 0; i < FM_COUNT_OF(reply); i++) {
        (void)zmq_send(c->zap, reply[i].bytes, reply[i].len,
                       ZMQ_DONTWAIT |
                           (i + 1 < FM_COUNT_OF(reply) ? ZMQ_SNDMORE : 0));
    }
    return 1;
}

static bool more_of(zmq_msg_t *msg)
{
    return zmq_msg_more(msg) != 0;
}

/* One whole message off the socket; false when there is none.  Frames of
 * another shape than ours are skipped. */
static bool receive(struct carrier *c, struct remote **touched)
{
    fm_digest_t identity = {0};
    zmq_msg_t msg;
    bool fits = true;

    *touched = NULL;
    (void)zmq_msg_init(&msg);
    if (zmq_msg_recv(&msg, c->socket, ZMQ_DONTWAIT) < 0) {
        (void)zmq_msg_close(&msg);
        return false;
    }
    if (c->listens) {
        fits = zmq_msg_size(&msg) == sizeof(fm_digest_t) && more_of(&msg);
        if (fits) {
            memcpy(identity.bytes, zmq_msg_data(&msg), sizeof(fm_digest_t));
        }
        if (more_of(&msg)) {
            (void)zmq_msg_recv(&msg, c->socket, ZMQ_DONTWAIT);
        }
    }
    const uint8_t *bytes = zmq_msg_data(&msg);
    size_t len = zmq_msg_size(&msg);
    if (fits && !more_of(&msg) && len >= HEADER_BYTES && bytes[0] >= HELLO &&
        bytes[0] <= RESET) {
        uint64_t number = 0;
        for (size_t i = 0; i < 8; i++) {
            number |= (uint64_t)bytes[1 + i] << (8 * i);
        }
        enum kind kind = (enum kind)bytes[0];
        *touched = c->listens
                       ? at_listener(c, &identity, kind, number,
                                     bytes + HEADER_BYTES, len - HEADER_BYTES)
                       : at_client(c, kind, number, bytes + HEADER_BYTES,
                                   len - HEADER_BYTES);
    }
    while (more_of(&msg) && zmq_msg_recv(&msg, c->socket, ZMQ_DONTWAIT) >= 0) {
    }
    (void)zmq_msg_close(&msg);
    return true;
}

/* Where nothing was heard for a while: HELLO again, or ask. */
static void repeat(struct carrier *c)
{
    int64_t now = fm_clock_mono_ns();

    if (now - c->checked_ns < RETRY_NS / 2) {
        return;
    }
    c->checked_ns = now;
    for (size_t i = 0; i < c->remote_count; i++) {
        struct remote *remote = &c->remotes[i];
        if (remote->gone || now - remote->heard_ns < RETRY_NS) {
            continue;
        }
        if (!c->listens && !remote->up) {
            remote->heard_ns = now;
            (void)frame(c, remote, HELLO, PROTOCOL);
        } else if (remote->unacked.head) {
            remote->heard_ns = now;
            (void)frame(c, remote, PING, 0);
        }
    }
}

static size_t carrier_poll(fm_link_t *link)
{
    struct carrier *c = carrier_of(link);
    uint32_t touched[POLL_MAX];
    size_t count = 0;
    struct remote *remote = NULL;

    while (c->zap && zap_answer(c)) {
        count++;
    }
    size_t received = 0;
    for (; received < POLL_MAX && receive(c, &remote); received++) {
        touched[received] = remote ? peer_of(c, remote) : UINT32_MAX;
    }
    for (size_t i = 0; i < received; i++) {
        if (touched[i] != UINT32_MAX) {
            tell(c, remote_at(c, touched[i]));
        }
    }
    repeat(c);
    return count + received;
}

/* --- the vtable ----------------------------------------------------------- */

static fm_status_t carrier_send(fm_link_t *link, uint32_t peer,
                                const void *bytes, size_t len, fm_error_t *err)
{
    struct carrier *c = carrier_of(link);
    struct remote *remote = remote_at(c, peer);

    if (remote->gone) {
        return fm_link_gone(peer, err);
    }
    if (remote->unacked.count >= c->base.opts.queue_max_count ||
        (remote->unacked.count > 0 &&
         remote->unacked_bytes + len > c->base.opts.queue_max_bytes)) {
        return fm_link_full(peer, remote->unacked.count, remote->unacked_bytes,
                            err);
    }
    struct message *message = fm_link_message_create(peer, bytes, len);
    if (!message) {
        return fm_no_memory(err);
    }
    if (!remote->unacked.head) {
        remote->heard_ns = fm_clock_mono_ns();
    }
    fm_link_queue_push(&remote->unacked, message);
    remote->unacked_bytes += len;
    c->queued++;
    if (remote->up && remote->sent + 1 == remote->unacked.count &&
        frame_to(c, &remote->identity, DATA,
                 remote->acked + remote->unacked.count, bytes, len)) {
        remote->sent++;
    }
    return FM_OK;
}

static size_t carrier_queued(const fm_link_t *link)
{
    return carrier_of(link)->queued;
}

static void carrier_drop(fm_link_t *link, uint32_t peer)
{
    struct carrier *c = carrier_of(link);
    struct remote *remote = remote_at(c, peer);

    if (remote->up) {
        (void)frame(c, remote, BYE, 0);
    }
    remote->gone = true;
    remote->up = false;
    unacked_clear(c, remote);
}

static int socket_fd(void *socket)
{
    int fd = -1;
    size_t size = sizeof(fd);

    return zmq_getsockopt(socket, ZMQ_FD, &fd, &size) == 0 ? fd : -1;
}

static void on_fd(void *ctx, int fd, unsigned events)
{
    (void)ctx; /* every turn polls: this only ended the sleep */
    (void)fd;
    (void)events;
}

static void on_timer(void *ctx)
{
    repeat(ctx);
}

static bool readable(void *socket)
{
    int events = 0;
    size_t size = sizeof(events);

    return socket && zmq_getsockopt(socket, ZMQ_EVENTS, &events, &size) == 0 &&
           (events & ZMQ_POLLIN) != 0;
}

/* ZeroMQ's fd tells of changes only, and any call may have taken one in: look
 * before the turn ends. */
static size_t on_turn_end(void *ctx)
{
    const struct carrier *c = ctx;

    return readable(c->socket) || readable(c->zap);
}

static void carrier_detach(struct carrier *c)
{
    fm_reactor_t *reactor = c->base.reactor;

    if (!reactor) {
        return;
    }
    fm_reactor_fd_remove(reactor, socket_fd(c->socket));
    if (c->zap) {
        fm_reactor_fd_remove(reactor, socket_fd(c->zap));
    }
    fm_reactor_timer_stop(reactor, c->timer);
    fm_reactor_hook_remove(reactor, FM_REACTOR_SEND, on_turn_end, c);
}

static fm_status_t carrier_attach(fm_link_t *link, fm_reactor_t *reactor,
                                  fm_error_t *err)
{
    struct carrier *c = carrier_of(link);
    fm_status_t rc = fm_reactor_timer_start(reactor, RETRY_NS, RETRY_NS,
                                            on_timer, c, &c->timer, err);

    if (rc >= 0) {
        rc = fm_reactor_hook_add(reactor, FM_REACTOR_SEND, on_turn_end, c, err);
    }
    if (rc >= 0) {
        rc = fm_reactor_fd_add(reactor, socket_fd(c->socket), FM_REACTOR_READ,
                               on_fd, c, err);
    }
    if (rc >= 0 && c->zap) {
        rc = fm_reactor_fd_add(reactor, socket_fd(c->zap), FM_REACTOR_READ,
                               on_fd, c, err);
    }
    return rc;
}

static size_t up_count(const struct carrier *c)
{
    size_t count = 0;

    for (size_t i = 0; i < c->remote_count; i++) {
        count += c->remotes[i].up;
    }
    return count;
}

/* Say BYE and receive on until everyone has answered: a connection that is
 * closed with something unread takes what we sent last with it. */
static void farewell(struct carrier *c)
{
    int64_t until = fm_clock_mono_ns() + c->base.opts.close_ns;

    c->closing = true;
    assert(c->remotes || c->remote_count == 0);
    for (size_t i = 0; i < c->remote_count; i++) {
        if (c->remotes[i].up) {
            (void)frame(c, &c->remotes[i], BYE, 0);
        }
        unacked_clear(c, &c->remotes[i]);
    }
    while (up_count(c) > 0 && fm_clock_mono_ns() < until) {
        zmq_pollitem_t item = {.socket = c->socket, .events = ZMQ_POLLIN};
        (void)zmq_poll(&item, 1, 10);
        (void)carrier_poll(&c->base);
    }
}

static void carrier_close(fm_link_t *link)
{
    struct carrier *c = carrier_of(link);

    if (c->socket) {
        carrier_detach(c);
        farewell(c);
        /* everyone has answered, or will not */
        (void)set_int(c->socket, ZMQ_LINGER, 0);
        (void)zmq_close(c->socket);
    }
    if (c->zap) {
        (void)zmq_close(c->zap);
    }
    if (c->context) {
        (void)zmq_ctx_term(c->context);
    }
    fm_map_destroy(c->peers);
    free(c->remotes);
    free(c);
}

static const struct link_ops carrier_ops = {
    .send = carrier_send,
    .poll = carrier_poll,
    .queued = carrier_queued,
    .drop = carrier_drop,
    .attach = carrier_attach,
    .close = carrier_close,
};

/* --- making one ----------------------------------------------------------- */

static bool set_text(void *socket, int option, const char *text)
{
    return zmq_setsockopt(socket, option, text, strlen(text) + 1) == 0;
}

static fm_status_t socket_make(struct carrier *c, fm_error_t *err)
{
    int64_t largest = FM_LINK_MESSAGE_MAX_BYTES + HEADER_BYTES;

    if (!(c->context = zmq_ctx_new()) ||
        !(c->socket =
              zmq_socket(c->context, c->listens ? ZMQ_ROUTER : ZMQ_DEALER)) ||
        !set_int(c->socket, ZMQ_SNDHWM, SEND_MAX) ||
        !set_int(c->socket, ZMQ_RCVHWM, 0) ||
        !set_int(c->socket, ZMQ_HEARTBEAT_IVL, PROBE_MS) ||
        !set_int(c->socket, ZMQ_HEARTBEAT_TIMEOUT, PROBE_TIMEOUT_MS) ||
        zmq_setsockopt(c->socket, ZMQ_MAXMSGSIZE, &largest, sizeof(largest)) !=
            0) {
        return zmq_fail("make a ZeroMQ socket", err);
    }
    return FM_OK;
}

static fm_status_t carrier_make(bool listens, const fm_link_options_t *opts,
                                struct carrier **out, fm_error_t *err)
{
    struct carrier *c = fm_calloc(1, sizeof(*c));

    if (!c) {
        return fm_no_memory(err);
    }
    c->base.ops = &carrier_ops;
    c->base.size = listens ? 1 : 2;
    c->base.self = listens ? 0 : 1;
    c->listens = listens;
    fm_link_options_fill(&c->base.opts, opts);
    fm_status_t rc = socket_make(c, err);
    if (rc < 0) {
        carrier_close(&c->base);
        return rc;
    }
    *out = c;
    return FM_OK;
}

fm_status_t fm_link_zmq_keys_make(fm_link_zmq_keys_t *keys_out, fm_error_t *err)
{
    fm_link_zmq_keys_t keys;

    if (zmq_curve_keypair(keys.public_key, keys.secret_key) != 0) {
        return zmq_fail("make CURVE keys", err);
    }
    *keys_out = keys;
    return FM_OK;
}

fm_status_t
fm_link_zmq_listen(const char *endpoint, const fm_link_zmq_keys_t *keys,
                   const char *client_public_key, const fm_link_options_t *opts,
                   fm_link_t **link_out, char **bound_out, fm_error_t *err)
{
    struct carrier *c = NULL;
    char bound[256];
    size_t size = sizeof(bound);
    fm_status_t rc = carrier_make(true, opts, &c, err);

    if (rc < 0) {
        return rc;
    }
    if (!(c->peers = fm_map_create())) {
        rc = fm_no_memory(err);
        goto out;
    }
    if (strlen(client_public_key) != FM_LINK_ZMQ_KEY_TEXT ||
        !zmq_z85_decode(c->client_key, client_public_key)) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "the clients' public key is not one of CURVE");
        goto out;
    }
    if (!(c->zap = zmq_socket(c->context, ZMQ_REP)) ||
        !set_int(c->zap, ZMQ_LINGER, 0) ||
        zmq_bind(c->zap, ZAP_ENDPOINT) != 0 ||
        !set_int(c->socket, ZMQ_CURVE_SERVER, 1) ||
        !set_text(c->socket, ZMQ_CURVE_SECRETKEY, keys->secret_key) ||
        !set_int(c->socket, ZMQ_ROUTER_MANDATORY, 1) ||
        !set_int(c->socket, ZMQ_ROUTER_HANDOVER, 1) ||
        zmq_bind(c->socket, endpoint) != 0 ||
        zmq_getsockopt(c->socket, ZMQ_LAST_ENDPOINT, bound, &size) != 0) {
        rc = zmq_fail(endpoint, err);
        goto out;
    }
    char *copy = fm_strdup(bound);
    if (!copy) {
        rc = fm_no_memory(err);
        goto out;
    }
    *bound_out = copy;
    *link_out = &c->base;
    return FM_OK;
out:
    carrier_close(&c->base);
    return rc;
}

fm_status_t fm_link_zmq_connect(const char *endpoint,
                                const char *server_public_key,
                                const fm_link_zmq_keys_t *keys,
                                const fm_link_options_t *opts,
                                fm_link_t **link_out, fm_error_t *err)
{
    struct carrier *c = NULL;
    uint8_t identity[sizeof(fm_digest_t)];
    fm_status_t rc = carrier_make(false, opts, &c, err);

    if (rc < 0) {
        return rc;
    }
    if (getrandom(identity, sizeof(identity), 0) != (ssize_t)sizeof(identity)) {
        rc = fm_error_set(err, FM_ERR_IO, "no random bytes");
        goto out;
    }
    identity[0] |= 1; /* ZeroMQ's own begin with 0 */
    if (!(c->remotes = fm_calloc(1, sizeof(*c->remotes)))) {
        rc = fm_no_memory(err);
        goto out;
    }
    c->remote_count = 1;
    if (zmq_setsockopt(c->socket, ZMQ_ROUTING_ID, identity, sizeof(identity)) !=
            0 ||
        !set_text(c->socket, ZMQ_CURVE_SERVERKEY, server_public_key) ||
        !set_text(c->socket, ZMQ_CURVE_PUBLICKEY, keys->public_key) ||
        !set_text(c->socket, ZMQ_CURVE_SECRETKEY, keys->secret_key) ||
        zmq_connect(c->socket, endpoint) != 0) {
        rc = zmq_fail(endpoint, err);
        goto out;
    }
    *link_out = &c->base;
    return FM_OK;
out:
    carrier_close(&c->base);
    return rc;
}
