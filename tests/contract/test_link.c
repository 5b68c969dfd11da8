/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract of io/link, over the carrier named by the argument: loop, chaos
 * (with no faults), zmq, mux (one peer over loop, one over zmq) or mpi (under
 * mpirun).
 *
 * Every test is symmetric: all endpoints of this process run the same steps
 * over a link of their own, and each sends to every other that it reaches.
 * All but `mpi` have all endpoints here, `mpi` one a process.
 * A test ends when every endpoint has all it expects, so nothing depends on
 * elapsed time.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/mem.h"
#include "fmtest.h"
#include "io/link/link.h"

#define PEER_MAX 8
#define BIG_BYTES ((size_t)4 << 20)
#define POLL_LIMIT 200000000 /* a test that needs more hangs */

struct endpoint {
    fm_link_t *link;
    uint64_t next_in[PEER_MAX];  /* number of the next message from it */
    uint64_t next_out[PEER_MAX]; /* number of the next message to it */
    uint64_t wrong;              /* out of order, damaged */
    uint32_t up;
    uint32_t down;
};

enum carrier { LOOP, CHAOS, ZMQ, MUX, MPI };
static enum carrier carrier;
static struct endpoint endpoints[PEER_MAX];
static uint32_t endpoint_count; /* in this process */
static uint32_t world;          /* endpoints in all */
static uint32_t rank;           /* this process */

/* ---- messages: a number, then bytes that follow from it ------------------ */

static void message_fill(uint8_t *bytes, size_t len, uint64_t number)
{
    for (size_t i = sizeof(number); i < len; i++) {
        bytes[i] = (uint8_t)(number * 31 + i * 7);
    }
    memcpy(bytes, &number, sizeof(number));
}

static bool message_check(const uint8_t *bytes, size_t len, uint64_t number)
{
    uint64_t got = 0;

    if (len < sizeof(got)) {
        return false;
    }
    memcpy(&got, bytes, sizeof(got));
    bool good = got == number;
    for (size_t i = sizeof(got); i < len; i++) {
        good = good && bytes[i] == (uint8_t)(number * 31 + i * 7);
    }
    return good;
}

static void on_message(void *ctx, uint32_t peer, const uint8_t *bytes,
                       size_t len)
{
    struct endpoint *endpoint = ctx;

    if (peer >= world || !message_check(bytes, len, endpoint->next_in[peer])) {
        endpoint->wrong++;
        return;
    }
    endpoint->next_in[peer]++;
}

static void on_peer(void *ctx, uint32_t peer, bool up, const char *reason)
{
    struct endpoint *endpoint = ctx;

    if (peer >= world || !reason || !*reason) {
        endpoint->wrong++;
    }
    endpoint->up += up;
    endpoint->down += !up;
}

static bool star(void)
{
    return carrier == ZMQ || carrier == MUX;
}

/* Endpoints that connected reach the one that listens. */
static bool reaches(const struct endpoint *endpoint, uint32_t peer)
{
    uint32_t self = fm_link_self(endpoint->link);

    return peer != self && (!star() || self == 0 || peer == 0);
}

/* ---- steps --------------------------------------------------------------- */

static void handle(uint32_t i, fm_link_t *link)
{
    const fm_link_handler_t handler = {
        .on_message = on_message, .on_peer = on_peer, .ctx = &endpoints[i]};

    endpoints[i].link = link;
    fm_link_handle(link, &handler);
}

/* One listens on loopback; the others connect in turn, so that their numbers
 * are known. */
static void cells_open(const fm_link_options_t *opts, fm_link_t **links)
{
    fm_link_zmq_keys_t server;
    fm_link_zmq_keys_t client;
    /* nobody here answers while another closes */
    fm_link_options_t own = opts ? *opts : (fm_link_options_t){0};
    fm_link_t *listener = NULL;
    char *bound = NULL;
    fm_error_t err = {0};

    own.close_ns = 100 * FM_NS_PER_MS;
    FM_ASSERT_OK(fm_link_zmq_keys_make(&server, &err), &err);
    FM_ASSERT_OK(fm_link_zmq_keys_make(&client, &err), &err);
    FM_ASSERT_OK(fm_link_zmq_listen("tcp://127.0.0.1:*", &server,
                                    client.public_key, &own, &listener, &bound,
                                    &err),
                 &err);
    if (carrier == MUX) {
        FM_ASSERT_OK(fm_link_loop_create(2, opts, links, &err), &err);
        FM_ASSERT_OK(fm_link_mux_create(links[0], listener, &links[0], &err),
                     &err);
    } else {
        links[0] = listener;
    }
    handle(0, links[0]);
    for (uint32_t i = carrier == MUX ? 2 : 1; i < world; i++) {
        FM_ASSERT_OK(fm_link_zmq_connect(bound, server.public_key, &client,
                                         &own, &links[i], &err),
                     &err);
        handle(i, links[i]);
        for (long polls = 0; !endpoints[i].up && polls < POLL_LIMIT; polls++) {
            (void)fm_link_poll(links[0]);
            (void)fm_link_poll(links[i]);
        }
        CU_ASSERT_FATAL(endpoints[i].up == 1);
    }
    free(bound);
}

static void links_open(const fm_link_options_t *opts)
{
    fm_link_t *links[PEER_MAX] = {0};
    fm_error_t err = {0};

    memset(endpoints, 0, sizeof(endpoints));
    if (carrier == MPI) {
        FM_ASSERT_OK(fm_link_mpi_create(opts, &links[0], &err), &err);
    } else if (star()) {
        cells_open(opts, links);
    } else {
        FM_ASSERT_OK(fm_link_loop_create(world, opts, links, &err), &err);
    }
    for (uint32_t i = 0; i < endpoint_count; i++) {
        const fm_link_chaos_t no_faults = {.seed = 7};
        if (carrier == CHAOS) {
            FM_ASSERT_OK(
                fm_link_chaos_create(links[i], &no_faults, &links[i], &err),
                &err);
        }
        handle(i, links[i]);
        CU_ASSERT(fm_link_size(links[i]) == (star() && i > 0 ? 2 : world));
        CU_ASSERT(fm_link_self(links[i]) ==
                  (carrier == MUX && i > 0 ? 1 : rank + i));
    }
}

static void links_close(void)
{
    for (uint32_t i = 0; i < endpoint_count; i++) {
        endpoints[i].link = fm_link_close(endpoints[i].link);
        CU_ASSERT(endpoints[i].wrong == 0);
    }
}

static void poll_all(void)
{
    for (uint32_t i = 0; i < endpoint_count; i++) {
        (void)fm_link_poll(endpoints[i].link);
    }
}

/* Send the next message of @p len bytes to every peer that has room and has
 * not got @p target yet. */
static void send_some(struct endpoint *endpoint, uint8_t *bytes, size_t len,
                      uint64_t target)
{
    fm_error_t err = {0};

    for (uint32_t peer = 0; peer < world; peer++) {
        if (!reaches(endpoint, peer) || endpoint->next_out[peer] >= target) {
            continue;
        }
        message_fill(bytes, len, endpoint->next_out[peer]);
        fm_status_t rc = fm_link_send(endpoint->link, peer, bytes, len, &err);
        if (rc != FM_ERR_FULL) {
            FM_ASSERT_OK(rc, &err);
            endpoint->next_out[peer]++;
        }
    }
}

static bool all_have(uint64_t target)
{
    for (uint32_t i = 0; i < endpoint_count; i++) {
        for (uint32_t peer = 0; peer < world; peer++) {
            if (reaches(&endpoints[i], peer) &&
                (endpoints[i].next_in[peer] < target ||
                 endpoints[i].next_out[peer] < target)) {
                return false;
            }
        }
        if (fm_link_queued(endpoints[i].link) > 0) {
            return false;
        }
    }
    return true;
}

/* Every endpoint sends @p target messages of @p len bytes to every other. */
static void exchange(size_t len, uint64_t target)
{
    uint8_t *bytes = fm_malloc(len);
    long polls = 0;

    CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
    while (!all_have(target) && polls++ < POLL_LIMIT) {
        for (uint32_t i = 0; i < endpoint_count; i++) {
            send_some(&endpoints[i], bytes, len, target);
        }
        poll_all();
    }
    CU_ASSERT(all_have(target));
    free(bytes);
}

/* ---- the contract -------------------------------------------------------- */

static void test_order_small(void)
{
    const uint64_t count = 20000;

    links_open(NULL);
    int64_t start_ns = fm_clock_mono_ns();
    exchange(64, count);
    int64_t taken_ns = fm_clock_mono_ns() - start_ns;
    for (uint32_t i = 0; i < endpoint_count; i++) {
        CU_ASSERT(endpoints[i].up == (star() && i > 0 ? 1 : world - 1));
        /* a process of its own may have ended this test before us */
        CU_ASSERT(carrier == MPI || endpoints[i].down == 0);
        CU_ASSERT(endpoints[i].wrong == 0);
    }
    if (rank == 0) {
        (void)printf("[%.0f messages of 64 B a second into each endpoint] ",
                     (double)(count * (world - 1)) * 1e9 / (double)taken_ns);
    }
    links_close();
}

static void test_big(void)
{
    links_open(NULL);
    exchange(BIG_BYTES, 6);
    exchange(8, 12); /* a small one does not overtake */
    links_close();
}

static void test_bounds(void)
{
    const fm_link_options_t opts = {.queue_max_count = 3};
    fm_error_t err = {0};

    links_open(&opts);
    fm_link_t *link = endpoints[0].link;
    uint8_t *bytes = fm_calloc(1, FM_LINK_MESSAGE_MAX_BYTES + 1);
    CU_ASSERT_PTR_NOT_NULL_FATAL(bytes);
    uint32_t peer = rank == 0 ? 1 : 0;
    CU_ASSERT(fm_link_send(link, peer, bytes, FM_LINK_MESSAGE_MAX_BYTES + 1,
                           &err) == FM_ERR_LIMIT);
    CU_ASSERT(fm_link_send(link, world, bytes, 1, &err) == FM_ERR_NOT_FOUND);
    CU_ASSERT(fm_link_send(link, rank, bytes, 1, &err) == FM_ERR_NOT_FOUND);
    /* Nobody polls: what is too large to leave at once fills the queue. */
    uint64_t sent = 0;
    for (uint64_t i = 0; i < 4; i++) {
        message_fill(bytes, BIG_BYTES, i);
        fm_status_t rc = fm_link_send(link, peer, bytes, BIG_BYTES, &err);
        CU_ASSERT(rc == (i < 3 ? FM_OK : FM_ERR_FULL));
        sent += rc == FM_OK;
    }
    CU_ASSERT(fm_link_queued(link) == 3);
    endpoints[0].next_out[peer] = sent;
    free(bytes);
    exchange(16, 10); /* and all of it arrives */
    links_close();
}

/* The first endpoint closes after 100 messages; the others send to it until
 * they are told, and see no damage. */
static void test_close_during_traffic(void)
{
    uint8_t bytes[512];
    fm_error_t err = {0};
    long polls = 0;
    bool done = false;

    links_open(NULL);
    while (!done && polls++ < POLL_LIMIT) {
        done = true;
        for (uint32_t i = 0; i < endpoint_count; i++) {
            struct endpoint *endpoint = &endpoints[i];
            if (endpoint->link && rank + i == 0 &&
                endpoint->next_in[1] >= 100) {
                endpoint->link = fm_link_close(endpoint->link);
            } else if (endpoint->link && rank + i != 0 && !endpoint->down) {
                message_fill(bytes, sizeof(bytes), endpoint->next_out[0]);
                fm_status_t rc =
                    fm_link_send(endpoint->link, 0, bytes, sizeof(bytes), &err);
                CU_ASSERT(rc == FM_OK || rc == FM_ERR_FULL ||
                          rc == FM_ERR_CLOSED);
                endpoint->next_out[0] += rc == FM_OK;
            }
            if (endpoint->link) {
                (void)fm_link_poll(endpoint->link);
            }
            done =
                done && (rank + i == 0 ? !endpoint->link : endpoint->down > 0);
        }
    }
    CU_ASSERT(done);
    for (uint32_t i = 0; i < endpoint_count; i++) {
        if (endpoints[i].link) {
            CU_ASSERT(fm_link_send(endpoints[i].link, 0, bytes, 8, &err) ==
                      FM_ERR_CLOSED);
        }
    }
    links_close();
}

static void test_reactor(void)
{
    const uint64_t count = 100;
    uint8_t bytes[32];
    fm_error_t err = {0};
    fm_reactor_t *reactor = NULL;

    links_open(NULL);
    FM_ASSERT_OK(fm_reactor_create(NULL, &reactor, &err), &err);
    for (uint32_t i = 0; i < endpoint_count; i++) {
        FM_ASSERT_OK(fm_link_attach(endpoints[i].link, reactor, &err), &err);
    }
    for (long turns = 0; !all_have(count) && turns < POLL_LIMIT; turns++) {
        for (uint32_t i = 0; i < endpoint_count; i++) {
            send_some(&endpoints[i], bytes, sizeof(bytes), count);
        }
        FM_ASSERT_OK(fm_reactor_turn(reactor, FM_NS_PER_MS, NULL, &err), &err);
    }
    CU_ASSERT(all_have(count));
    links_close();
    fm_reactor_destroy(reactor);
}

/* What a link was told to forget is refused, silently. */
static void test_drop(void)
{
    fm_error_t err = {0};

    if (carrier == MPI) {
        CU_PASS("a dropped rank makes MPI_Finalize unsafe: own test");
        return;
    }
    links_open(NULL);
    exchange(16, 3);
    fm_link_drop(endpoints[0].link, 1);
    CU_ASSERT(fm_link_send(endpoints[0].link, 1, "x", 1, &err) ==
              FM_ERR_CLOSED);
    /* the other end hears of it at once, or when the word has come */
    for (long polls = 0;
         carrier == ZMQ && !endpoints[1].down && polls < POLL_LIMIT; polls++) {
        poll_all();
    }
    fm_status_t rc = fm_link_send(endpoints[1].link, 0, "x", 1, &err);
    CU_ASSERT(rc == FM_ERR_CLOSED);
    poll_all();
    CU_ASSERT(endpoints[0].down == 0);
    links_close();
}

static int run(const char *name)
{
    static const fm_test_case_t cases[] = {
        {"many small, in order", test_order_small},
        {"4 MiB", test_big},
        {"bounds and back-pressure", test_bounds},
        {"close during traffic", test_close_during_traffic},
        {"attached to a reactor", test_reactor},
        {"drop", test_drop},
    };
    fm_error_t err = {0};

    if (carrier == MPI) {
        if (fm_link_mpi_init(&rank, &world, &err) < 0) {
            (void)fprintf(stderr, "%s\n", err.text);
            return 2;
        }
        endpoint_count = 1;
    } else {
        world = endpoint_count = 3;
    }
    if (world < 2 || world > PEER_MAX) {
        (void)fprintf(stderr, "%u endpoints: run 2 to %d\n", world, PEER_MAX);
        return 2;
    }
    int rc = fm_test_main(name, cases, FM_COUNT_OF(cases));
    if (carrier == MPI && fm_link_mpi_fini(&err) < 0) {
        (void)fprintf(stderr, "%s\n", err.text);
        (void)fflush(NULL);
        _exit(3);
    }
    return rc;
}

int main(int argc, char **argv)
{
    static const enum carrier carriers[] = {LOOP, CHAOS, ZMQ, MUX, MPI};
    static const char *const names[] = {"loop", "chaos", "zmq", "mux", "mpi"};

    for (size_t i = 0; argc == 2 && i < FM_COUNT_OF(names); i++) {
        if (strcmp(argv[1], names[i]) == 0) {
            carrier = carriers[i];
            return run(names[i]);
        }
    }
    (void)fprintf(stderr, "usage: test_link_contract loop|chaos|zmq|mux|mpi\n");
    return 2;
}
