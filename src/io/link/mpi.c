/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ranks of MPI_COMM_WORLD, over a communicator of our own.
 *
 * Nothing here waits for a peer: sends are MPI_Isend with bounded queues,
 * receives are MPI_Improbe + MPI_Imrecv + MPI_Test.  A message under way from
 * a peer that dies stays under way for ever, so its memory can never be
 * released: at close it goes to `abandoned`, and MPI_Finalize, which may wait
 * for it, is then refused.
 *
 * Order per peer: MPI matches in order, and what is matched is delivered in
 * the order of matching.  A closing endpoint says so with TAG_BYE and receives
 * on until everyone has.
 */
#include <mpi.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/mem.h"
#include "io/link/internal.h"

#define TAG_DATA 1
#define TAG_BYE 2
/* Received but not yet whole: bounds our memory, not the peers' progress. */
#define RECEIVING_MAX_BYTES ((size_t)64 << 20)

struct transfer { /* a send or a receive under way */
    struct transfer *next;
    MPI_Request request;
    bool bye;
    size_t len;
    uint8_t bytes[];
};

struct transfers {
    struct transfer *head;
    struct transfer *tail;
    size_t count;
    size_t bytes;
};

struct peer {
    struct transfers sends;
    struct transfers receives;
    bool bye;     /* it has closed */
    bool failed;  /* MPI says so */
    bool dropped; /* our user says so */
};

struct mpi {
    fm_link_t base;
    MPI_Comm comm;
    struct peer *peers;
    size_t send_count; /* of all peers */
    size_t receive_count;
    size_t receive_bytes;
    bool announced; /* on_peer(up) has run */
    bool closing;   /* what arrives is discarded */
    /* Matched, but there was no memory to receive it: first of all next. */
    MPI_Message held;
    MPI_Status held_status;
};

/* Requests that never completed; the memory belongs to MPI for good. */
static struct transfers abandoned;
static bool unclean; /* MPI_Finalize may hang */

static struct mpi *mpi_of(fm_link_t *link)
{
    return (struct mpi *)(void *)link;
}

static fm_status_t mpi_error(int code, const char *what, fm_error_t *err)
{
    char text[MPI_MAX_ERROR_STRING + 1] = "";
    int len = 0;

    (void)MPI_Error_string(code, text, &len);
    return fm_error_set(err, FM_ERR_IO, "%s: %s", what, text);
}

/* ---- transfers ---------------------------------------------------------- */

static struct transfer *transfer_create(const void *bytes, size_t len)
{
    struct transfer *transfer = fm_malloc(sizeof(*transfer) + len);

    if (transfer) {
        memset(transfer, 0, sizeof(*transfer));
        transfer->request = MPI_REQUEST_NULL;
        transfer->len = len;
        if (bytes && len > 0) {
            memcpy(transfer->bytes, bytes, len);
        }
    }
    return transfer;
}

static void transfers_push(struct transfers *list, struct transfer *transfer)
{
    transfer->next = NULL;
    if (list->tail) {
        list->tail->next = transfer;
    } else {
        list->head = transfer;
    }
    list->tail = transfer;
    list->count++;
    list->bytes += transfer->len;
}

static struct transfer *transfers_pop(struct transfers *list)
{
    struct transfer *transfer = list->head;

    if (transfer) {
        list->head = transfer->next;
        list->count--;
        list->bytes -= transfer->len;
        if (!list->head) {
            list->tail = NULL;
        }
    }
    return transfer;
}

static void peer_failed(struct mpi *mpi, uint32_t rank)
{
    struct peer *peer = &mpi->peers[rank];

    unclean = true;
    if (!peer->failed && !peer->dropped) {
        peer->failed = true;
        if (!mpi->closing) {
            fm_link_report_peer(&mpi->base, rank, false, "MPI error");
        }
    }
}

/* The first transfer of @p list when it has completed, taken off the list. */
static struct transfer *completed_pop(struct mpi *mpi, uint32_t rank,
                                      struct transfers *list)
{
    int done = 0;

    if (!list->head || mpi->peers[rank].failed) {
        return NULL;
    }
    if (MPI_Test(&list->head->request, &done, MPI_STATUS_IGNORE) !=
        MPI_SUCCESS) {
        peer_failed(mpi, rank);
        return NULL;
    }
    return done ? transfers_pop(list) : NULL;
}

/* ---- sending ------------------------------------------------------------ */

static fm_status_t transfer_send(struct mpi *mpi, uint32_t rank, int tag,
                                 struct transfer *transfer, fm_error_t *err)
{
    int code = MPI_Isend(transfer->bytes, (int)transfer->len, MPI_BYTE,
                         (int)rank, tag, mpi->comm, &transfer->request);

    if (code != MPI_SUCCESS) {
        (void)mpi_error(code, "MPI_Isend", err);
        unclean = true;
        return FM_ERR_CLOSED;
    }
    transfers_push(&mpi->peers[rank].sends, transfer);
    mpi->send_count++;
    return FM_OK;
}

static size_t sends_reap(struct mpi *mpi)
{
    size_t done = 0;

    for (uint32_t i = 0; mpi->send_count > 0 && i < mpi->base.size; i++) {
        for (struct transfer *at = NULL;
             (at = completed_pop(mpi, i, &mpi->peers[i].sends)); done++) {
            mpi->send_count--;
            free(at);
        }
    }
    return done;
}

static fm_status_t mpi_send(fm_link_t *link, uint32_t rank, const void *bytes,
                            size_t len, fm_error_t *err)
{
    struct mpi *mpi = mpi_of(link);
    struct peer *peer = &mpi->peers[rank];

    if (peer->bye || peer->failed || peer->dropped) {
        return fm_link_gone(rank, err);
    }
    if (peer->sends.count >= link->opts.queue_max_count ||
        peer->sends.bytes + len > link->opts.queue_max_bytes) {
        return fm_link_full(rank, peer->sends.count, peer->sends.bytes, err);
    }
    struct transfer *transfer = transfer_create(bytes, len);
    if (!transfer) {
        return fm_no_memory(err);
    }
    fm_status_t rc = transfer_send(mpi, rank, TAG_DATA, transfer, err);
    if (rc < 0) {
        free(transfer);
    }
    return rc;
}

/* ---- receiving ---------------------------------------------------------- */

/* Start to receive the matched message in mpi->held. */
static bool held_receive(struct mpi *mpi)
{
    uint32_t rank = (uint32_t)mpi->held_status.MPI_SOURCE;
    int len = 0;

    if (MPI_Get_count(&mpi->held_status, MPI_BYTE, &len) != MPI_SUCCESS ||
        len < 0 || (size_t)len > FM_LINK_MESSAGE_MAX_BYTES) {
        /* Never from this code; the matched message is given up. */
        mpi->held = MPI_MESSAGE_NULL;
        peer_failed(mpi, rank);
        return true;
    }
    struct transfer *transfer = transfer_create(NULL, (size_t)len);
    if (!transfer) {
        return false;
    }
    transfer->bye = mpi->held_status.MPI_TAG == TAG_BYE;
    if (MPI_Imrecv(transfer->bytes, len, MPI_BYTE, &mpi->held,
                   &transfer->request) != MPI_SUCCESS) {
        mpi->held = MPI_MESSAGE_NULL;
        free(transfer);
        peer_failed(mpi, rank);
        return true;
    }
    transfers_push(&mpi->peers[rank].receives, transfer);
    mpi->receive_count++;
    mpi->receive_bytes += (size_t)len;
    return true;
}

static void deliver(struct mpi *mpi, uint32_t rank, struct transfer *transfer)
{
    struct peer *peer = &mpi->peers[rank];

    mpi->receive_count--;
    mpi->receive_bytes -= transfer->len;
    if (transfer->bye && !peer->bye) {
        peer->bye = true;
        if (!mpi->closing && !peer->dropped) {
            fm_link_report_peer(&mpi->base, rank, false, "closed");
        }
    } else if (!mpi->closing && !peer->dropped) {
        mpi->base.handler.on_message(mpi->base.handler.ctx, rank,
                                     transfer->bytes, transfer->len);
    }
    free(transfer);
}

static size_t peer_deliver(struct mpi *mpi, uint32_t rank)
{
    size_t done = 0;

    for (struct transfer *at = NULL;
         (at = completed_pop(mpi, rank, &mpi->peers[rank].receives)); done++) {
        deliver(mpi, rank, at);
    }
    return done;
}

static size_t receive(struct mpi *mpi)
{
    size_t done = 0;

    for (uint32_t i = 0; mpi->receive_count > 0 && i < mpi->base.size; i++) {
        done += peer_deliver(mpi, i);
    }
    for (int i = 0; i < POLL_MAX && mpi->receive_bytes < RECEIVING_MAX_BYTES;
         i++) {
        int found = 1;
        if (mpi->held == MPI_MESSAGE_NULL &&
            (MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, mpi->comm, &found,
                         &mpi->held, &mpi->held_status) != MPI_SUCCESS ||
             !found)) {
            break;
        }
        uint32_t rank = (uint32_t)mpi->held_status.MPI_SOURCE;
        if (!held_receive(mpi)) {
            break; /* no memory now */
        }
        (void)peer_deliver(mpi, rank);
        done++;
    }
    return done;
}

static size_t mpi_poll(fm_link_t *link)
{
    struct mpi *mpi = mpi_of(link);

    if (!mpi->announced) {
        mpi->announced = true;
        for (uint32_t i = 0; i < link->size; i++) {
            if (i != link->self && !mpi->peers[i].dropped) {
                fm_link_report_peer(link, i, true, "connected");
            }
        }
    }
    return sends_reap(mpi) + receive(mpi);
}

static size_t mpi_queued(const fm_link_t *link)
{
    return ((const struct mpi *)(const void *)link)->send_count;
}

/* ---- the end ------------------------------------------------------------ */

static void abandon(struct transfers *list)
{
    for (struct transfer *at = NULL; (at = transfers_pop(list));) {
        transfers_push(&abandoned, at);
        unclean = true;
    }
}

static void mpi_drop(fm_link_t *link, uint32_t rank)
{
    struct mpi *mpi = mpi_of(link);
    struct peer *peer = &mpi->peers[rank];

    if (!peer->dropped) {
        peer->dropped = true;
        unclean = unclean || !peer->bye;
        mpi->send_count -= peer->sends.count;
        abandon(&peer->sends);
    }
}

static bool reachable(const struct peer *peer)
{
    return !peer->dropped && !peer->failed;
}

static void bye_send(struct mpi *mpi)
{
    for (uint32_t i = 0; i < mpi->base.size; i++) {
        struct transfer *bye = NULL;
        if (i == mpi->base.self || !reachable(&mpi->peers[i])) {
            continue;
        }
        if (!(bye = transfer_create(NULL, 0)) ||
            transfer_send(mpi, i, TAG_BYE, bye, NULL) < 0) {
            free(bye);
            unclean = true;
        }
    }
}

/* Every peer we can reach has said bye and has taken what we sent. */
static bool all_gone(const struct mpi *mpi)
{
    for (uint32_t i = 0; i < mpi->base.size; i++) {
        const struct peer *peer = &mpi->peers[i];
        if (i != mpi->base.self && reachable(peer) &&
            (!peer->bye || peer->sends.count > 0 || peer->receives.count > 0)) {
            return false;
        }
    }
    return true;
}

static void mpi_close(fm_link_t *link)
{
    struct mpi *mpi = mpi_of(link);
    int64_t deadline_ns = fm_clock_mono_ns() + link->opts.close_ns;
    const struct timespec pause = {.tv_nsec = 50 * FM_NS_PER_US};

    mpi->closing = true;
    bye_send(mpi);
    while (!all_gone(mpi) && fm_clock_mono_ns() < deadline_ns) {
        if (sends_reap(mpi) + receive(mpi) == 0) {
            (void)nanosleep(&pause, NULL);
        }
    }
    unclean = unclean || !all_gone(mpi) || mpi->held != MPI_MESSAGE_NULL;
    for (uint32_t i = 0; i < link->size; i++) {
        abandon(&mpi->peers[i].sends);
        abandon(&mpi->peers[i].receives);
    }
    if (!unclean) {
        (void)MPI_Comm_free(&mpi->comm);
    }
    free(mpi->peers);
    free(mpi);
}

static const struct link_ops mpi_ops = {.send = mpi_send,
                                        .poll = mpi_poll,
                                        .queued = mpi_queued,
                                        .drop = mpi_drop,
                                        .close = mpi_close};

fm_status_t fm_link_mpi_init(uint32_t *rank_out, uint32_t *size_out,
                             fm_error_t *err)
{
    int initialised = 0;
    int provided = 0;
    int rank = 0;
    int size = 0;

    (void)MPI_Initialized(&initialised);
    if (!initialised) {
        int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
        if (code != MPI_SUCCESS) {
            return mpi_error(code, "MPI_Init_thread", err);
        }
    }
    (void)MPI_Query_thread(&provided);
    if (provided < MPI_THREAD_FUNNELED) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "this MPI allows no other threads in the process "
                            "(it provides level %d); use one built with "
                            "thread support",
                            provided);
    }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    int code = MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (code == MPI_SUCCESS) {
        code = MPI_Comm_size(MPI_COMM_WORLD, &size);
    }
    if (code != MPI_SUCCESS) {
        return mpi_error(code, "MPI_Comm_rank", err);
    }
    *rank_out = (uint32_t)rank;
    *size_out = (uint32_t)size;
    return FM_OK;
}

fm_status_t fm_link_mpi_broadcast(void *bytes, size_t len, fm_error_t *err)
{
    if (len > FM_LINK_MESSAGE_MAX_BYTES) {
        return fm_error_set(err, FM_ERR_LIMIT, "broadcast of %zu bytes", len);
    }
    int code = MPI_Bcast(bytes, (int)len, MPI_BYTE, 0, MPI_COMM_WORLD);
    return code == MPI_SUCCESS ? FM_OK : mpi_error(code, "MPI_Bcast", err);
}

fm_status_t fm_link_mpi_create(const fm_link_options_t *opts,
                               fm_link_t **link_out, fm_error_t *err)
{
    struct mpi *mpi = NULL;
    uint32_t rank = 0;
    uint32_t size = 0;
    fm_status_t rc = fm_link_mpi_init(&rank, &size, err);

    if (rc < 0) {
        return rc;
    }
    if (!(mpi = fm_calloc(1, sizeof(*mpi))) ||
        !(mpi->peers = fm_calloc(size, sizeof(*mpi->peers)))) {
        free(mpi);
        return fm_no_memory(err);
    }
    int code = MPI_Comm_dup(MPI_COMM_WORLD, &mpi->comm);
    if (code != MPI_SUCCESS) {
        free(mpi->peers);
        free(mpi);
        return mpi_error(code, "MPI_Comm_dup", err);
    }
    (void)MPI_Comm_set_errhandler(mpi->comm, MPI_ERRORS_RETURN);
    fm_link_options_fill(&mpi->base.opts, opts);
    mpi->base.ops = &mpi_ops;
    mpi->base.self = rank;
    mpi->base.size = size;
    mpi->base.polled = true;
    mpi->held = MPI_MESSAGE_NULL;
    *link_out = &mpi->base;
    return FM_OK;
}

fm_status_t fm_link_mpi_fini(fm_error_t *err)
{
    int initialised = 0;
    int finalised = 0;

    (void)MPI_Initialized(&initialised);
    (void)MPI_Finalized(&finalised);
    if (!initialised || finalised) {
        return FM_OK;
    }
    if (unclean) {
        return fm_error_set(err, FM_ERR_BUSY,
                            "a rank did not take its leave (%zu transfers "
                            "stay unfinished): MPI_Finalize may hang",
                            abandoned.count);
    }
    int code = MPI_Finalize();
    return code == MPI_SUCCESS ? FM_OK : mpi_error(code, "MPI_Finalize", err);
}
