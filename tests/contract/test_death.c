/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A rank dies by SIGKILL; the others go on talking, a queue to the dead fills
 * up to its bound and no further, and everyone comes to an end.  To be run as
 * `mpirun -n 3 --enable-recovery`; rank 0 prints "survived" at the end, since
 * the status of mpirun tells of the death.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/mem.h"
#include "io/link/link.h"

#define CHECK(condition)                                                       \
    do {                                                                       \
        if (!(condition)) {                                                    \
            (void)fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__,           \
                          #condition);                                         \
            _exit(1);                                                          \
        }                                                                      \
    } while (0)

#define BIG_BYTES ((size_t)1 << 20)
#define EXCHANGES 1000u

static uint32_t received[3];

static void on_message(void *ctx, uint32_t peer, const uint8_t *bytes,
                       size_t len)
{
    (void)ctx;
    (void)bytes;
    (void)len;
    received[peer]++;
}

static void wait_for(fm_link_t *link, uint32_t peer, uint32_t count)
{
    while (received[peer] < count) {
        (void)fm_link_poll(link);
    }
}

static void send_ok(fm_link_t *link, uint32_t peer, const char *text)
{
    fm_error_t err = {0};
    fm_status_t rc = fm_link_send(link, peer, text, strlen(text), &err);

    CHECK(rc == FM_OK);
}

static void die(fm_link_t *link)
{
    send_ok(link, 0, "last words");
    send_ok(link, 1, "last words");
    wait_for(link, 0, 1); /* they have heard them */
    wait_for(link, 1, 1);
    (void)raise(SIGKILL);
}

static void survive(fm_link_t *link, uint32_t other)
{
    uint8_t *big = fm_calloc(1, BIG_BYTES);
    fm_error_t err = {0};
    fm_status_t rc = FM_OK;
    int sent = 0;

    CHECK(big);
    wait_for(link, 2, 1);
    send_ok(link, 2, "good bye");
    while ((rc = fm_link_send(link, 2, big, BIG_BYTES, &err)) == FM_OK) {
        (void)fm_link_poll(link);
        CHECK(++sent < 1000);
    }
    CHECK(rc == FM_ERR_FULL);
    for (uint32_t i = 1; i <= EXCHANGES; i++) {
        send_ok(link, other, "still here");
        wait_for(link, other, i);
    }
    fm_link_drop(link, 2);
    CHECK(fm_link_send(link, 2, big, 1, &err) == FM_ERR_CLOSED);
    CHECK(fm_link_queued(link) <= 1);
    free(big);
}

int main(void)
{
    const fm_link_options_t opts = {.queue_max_count = 20};
    const fm_link_handler_t handler = {.on_message = on_message};
    fm_link_t *link = NULL;
    fm_error_t err = {0};

    CHECK(fm_link_mpi_create(&opts, &link, &err) == FM_OK);
    CHECK(fm_link_size(link) == 3);
    fm_link_handle(link, &handler);
    uint32_t self = fm_link_self(link);
    if (self == 2) {
        die(link);
    }
    survive(link, 1 - self);
    fm_link_close(link);
    CHECK(fm_link_mpi_fini(&err) == FM_ERR_BUSY);
    if (self == 0) {
        (void)printf("survived\n");
    }
    (void)fflush(NULL);
    _exit(0);
}
