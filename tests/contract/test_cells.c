/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the zmq carrier promises beyond the contract of all links: a connection
 * that breaks loses nothing, strangers are refused, and a listener that was
 * started anew is told from the one before.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fmtest.h"
#include "io/link/link.h"

#define POLL_LIMIT 50000000L

struct end {
    fm_link_t *link;
    uint64_t next_in, next_out;
    uint32_t wrong, up, down;
};

static void on_message(void *ctx, uint32_t peer, const uint8_t *bytes,
                       size_t len)
{
    struct end *end = ctx;
    uint64_t number = 0;

    (void)peer;
    CU_ASSERT_FATAL(len >= sizeof(number));
    memcpy(&number, bytes, sizeof(number));
    end->wrong += number != end->next_in;
    end->next_in++;
}

static void on_peer(void *ctx, uint32_t peer, bool up, const char *reason)
{
    struct end *end = ctx;

    (void)peer;
    CU_ASSERT(reason && *reason);
    end->up += up;
    end->down += !up;
}

static void end_handle(struct end *end, fm_link_t *link)
{
    const fm_link_handler_t handler = {on_message, on_peer, end};

    *end = (struct end){.link = link};
    fm_link_handle(link, &handler);
}

struct keys {
    fm_link_zmq_keys_t server, client;
};

static struct keys keys_make(void)
{
    struct keys keys;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_link_zmq_keys_make(&keys.server, &err), &err);
    FM_ASSERT_OK(fm_link_zmq_keys_make(&keys.client, &err), &err);
    return keys;
}

/* Nobody here answers while the other closes. */
static const fm_link_options_t options = {.close_ns = 50 * FM_NS_PER_MS};

static char *listen_at(const char *endpoint, const struct keys *keys,
                       struct end *end)
{
    fm_link_t *link = NULL;
    char *bound = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_link_zmq_listen(endpoint, &keys->server,
                                    keys->client.public_key, &options, &link,
                                    &bound, &err),
                 &err);
    end_handle(end, link);
    return bound;
}

static void connect_to(const char *endpoint, const struct keys *keys,
                       const fm_link_zmq_keys_t *own, struct end *end)
{
    fm_link_t *link = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_link_zmq_connect(endpoint, keys->server.public_key, own,
                                     &options, &link, &err),
                 &err);
    end_handle(end, link);
}

/* --- a relay that can be cut ---------------------------------------------- */

struct relay {
    int listener, in, out;
    uint16_t port, target;
    size_t passed, cut_after; /* bytes of one connection; 0: never */
    unsigned cuts;
};

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons(port)};

    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return at;
}

static void relay_open(struct relay *relay, const char *bound)
{
    struct sockaddr_in at = loopback(0);
    socklen_t len = sizeof(at);

    *relay = (struct relay){.in = -1, .out = -1};
    relay->target = (uint16_t)strtoul(strrchr(bound, ':') + 1, NULL, 10);
    relay->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    CU_ASSERT_FATAL(relay->listener >= 0);
    CU_ASSERT_FATAL(bind(relay->listener, (struct sockaddr *)&at, len) == 0);
    CU_ASSERT_FATAL(listen(relay->listener, 4) == 0);
    CU_ASSERT_FATAL(
        getsockname(relay->listener, (struct sockaddr *)&at, &len) == 0);
    relay->port = ntohs(at.sin_port);
}

/* An abortive close on both sides: what is under way is gone. */
static void relay_cut(struct relay *relay)
{
    const struct linger abort = {.l_onoff = 1};

    for (int i = 0; i < 2; i++) {
        int *fd = i ? &relay->in : &relay->out;
        if (*fd >= 0) {
            (void)setsockopt(*fd, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
            (void)close(*fd);
        }
        *fd = -1;
    }
    relay->passed = 0;
}

static bool relay_pass(struct relay *relay, int from, int to)
{
    uint8_t bytes[16384];
    ssize_t got = recv(from, bytes, sizeof(bytes), 0);

    if (got <= 0) {
        return got < 0 && errno == EAGAIN;
    }
    for (ssize_t done = 0; done < got;) {
        ssize_t n = send(to, bytes + done, (size_t)(got - done), MSG_NOSIGNAL);
        if (n < 0 && errno != EAGAIN) {
            return false;
        }
        done += n > 0 ? n : 0;
    }
    relay->passed += (size_t)got;
    return true;
}

static void relay_step(struct relay *relay)
{
    if (relay->in < 0) {
        struct sockaddr_in at = loopback(relay->target);
        relay->in = accept4(relay->listener, NULL, NULL, SOCK_NONBLOCK);
        if (relay->in < 0) {
            return;
        }
        relay->out = socket(AF_INET, SOCK_STREAM, 0);
        CU_ASSERT_FATAL(
            connect(relay->out, (struct sockaddr *)&at, sizeof(at)) == 0);
        (void)fcntl(relay->out, F_SETFL, O_NONBLOCK);
    }
    bool cut = relay->cut_after && relay->passed >= relay->cut_after;
    if (cut || !relay_pass(relay, relay->in, relay->out) ||
        !relay_pass(relay, relay->out, relay->in)) {
        relay->cuts += cut;
        relay_cut(relay);
    }
}

static void relay_close(struct relay *relay)
{
    relay_cut(relay);
    (void)close(relay->listener);
}

/* --- cases ---------------------------------------------------------------- */

static void send_next(struct end *end, uint32_t peer, uint64_t target)
{
    uint8_t bytes[1000] = {0};
    fm_error_t err = {0};

    if (end->next_out < target) {
        memcpy(bytes, &end->next_out, sizeof(end->next_out));
        fm_status_t rc =
            fm_link_send(end->link, peer, bytes, sizeof(bytes), &err);
        CU_ASSERT(rc == FM_OK || rc == FM_ERR_FULL);
        end->next_out += rc == FM_OK;
    }
}

/* Both ways through a connection that is cut every 100 KB. */
static void test_cut(void)
{
    const uint64_t target = 400;
    struct keys keys = keys_make();
    struct end server;
    struct end client;
    struct relay relay;
    char endpoint[64];

    char *bound = listen_at("tcp://127.0.0.1:*", &keys, &server);
    relay_open(&relay, bound);
    relay.cut_after = 100000;
    (void)snprintf(endpoint, sizeof(endpoint), "tcp://127.0.0.1:%u",
                   relay.port);
    connect_to(endpoint, &keys, &keys.client, &client);
    for (long polls = 0;
         polls < POLL_LIMIT &&
         (server.next_in < target || client.next_in < target ||
          fm_link_queued(server.link) + fm_link_queued(client.link) > 0);
         polls++) {
        relay_step(&relay);
        (void)fm_link_poll(server.link);
        (void)fm_link_poll(client.link);
        send_next(&client, 0, target);
        if (server.up) {
            send_next(&server, 1, target);
        }
    }
    CU_ASSERT(server.next_in == target && client.next_in == target);
    CU_ASSERT(server.wrong == 0 && client.wrong == 0);
    CU_ASSERT(server.up == 1 && client.up == 1);
    CU_ASSERT(server.down == 0 && client.down == 0);
    CU_ASSERT(relay.cuts >= 5);
    fm_link_close(client.link);
    fm_link_close(server.link);
    relay_close(&relay);
    free(bound);
}

/* A stranger with keys of its own is never heard; one that is known is. */
static void test_stranger(void)
{
    struct keys keys = keys_make();
    struct keys other = keys_make();
    struct end server;
    struct end stranger;
    struct end client;
    fm_error_t err = {0};

    char *bound = listen_at("tcp://127.0.0.1:*", &keys, &server);
    connect_to(bound, &keys, &other.client, &stranger);
    FM_ASSERT_OK(
        fm_link_send(stranger.link, 0, &(uint64_t){0}, sizeof(uint64_t), &err),
        &err);
    /* the stranger asked first: once the other is up, it was refused */
    connect_to(bound, &keys, &keys.client, &client);
    for (long polls = 0; !client.up && polls < POLL_LIMIT; polls++) {
        (void)fm_link_poll(server.link);
        (void)fm_link_poll(stranger.link);
        (void)fm_link_poll(client.link);
    }
    CU_ASSERT(client.up == 1 && server.up == 1 && stranger.up == 0);
    CU_ASSERT(server.next_in == 0);
    fm_link_close(stranger.link);
    fm_link_close(client.link);
    fm_link_close(server.link);
    free(bound);
}

/* Same place, same keys, another process: what it was told is not known. */
static void test_anew(void)
{
    struct keys keys = keys_make();
    struct end server;
    struct end client;

    char *bound = listen_at("tcp://127.0.0.1:*", &keys, &server);
    connect_to(bound, &keys, &keys.client, &client);
    for (long polls = 0; !client.up && polls < POLL_LIMIT; polls++) {
        (void)fm_link_poll(server.link);
        (void)fm_link_poll(client.link);
    }
    CU_ASSERT(client.up == 1);
    fm_link_close(server.link); /* nobody polls the client meanwhile */
    char *again = listen_at(bound, &keys, &server);
    send_next(&client, 0, 1);
    for (long polls = 0; !client.down && polls < POLL_LIMIT; polls++) {
        (void)fm_link_poll(server.link);
        (void)fm_link_poll(client.link);
    }
    CU_ASSERT(client.down == 1);
    CU_ASSERT(server.up == 0 && server.next_in == 0);
    fm_link_close(client.link);
    fm_link_close(server.link);
    free(bound);
    free(again);
}

static void test_refusals(void)
{
    struct keys keys = keys_make();
    fm_link_t *link = NULL;
    char *bound = NULL;
    fm_error_t err = {0};

    CU_ASSERT(fm_link_zmq_listen("tcp://127.0.0.1:*", &keys.server, "short",
                                 NULL, &link, &bound, &err) == FM_ERR_INVALID);
    CU_ASSERT(fm_link_zmq_listen("nowhere", &keys.server,
                                 keys.client.public_key, NULL, &link, &bound,
                                 &err) == FM_ERR_IO);
    CU_ASSERT(strstr(err.text, "nowhere") != NULL);
    CU_ASSERT(fm_link_zmq_connect("tcp://127.0.0.1:1", "short", &keys.client,
                                  NULL, &link, &err) == FM_ERR_IO);
    CU_ASSERT(link == NULL && bound == NULL);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"a broken connection loses nothing", test_cut},
        {"strangers are refused", test_stranger},
        {"a listener started anew", test_anew},
        {"refusals", test_refusals},
    };

    return fm_test_main("link_cells", cases, FM_COUNT_OF(cases));
}
