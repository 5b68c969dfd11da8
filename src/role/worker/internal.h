/* SPDX-License-Identifier: Apache-2.0 */
/* What worker.c (life cycle, messages) and batch.c (one lease) share. */
#ifndef FM_ROLE_WORKER_INTERNAL_H
#define FM_ROLE_WORKER_INTERNAL_H

#include "base/json.h"
#include "io/wire/wire.h"
#include "role/worker/worker.h"
#include "run/exec/exec.h"

/* A result item not yet sent; everything owned. */
struct pending_item {
    uint32_t index;
    fm_item_status_t status;
    char *kind;
    fm_digest_t digest;
    char *bytes;
    size_t len;
    char *locator;
    char *error;
};

/* The lease in progress. */
struct batch {
    uint64_t lease; /* 0: none */
    uint32_t instance;
    uint32_t attempt;
    uint32_t *open; /* indices without a result yet */
    size_t open_count;
    struct pending_item *items; /* results to send */
    size_t item_count;
    size_t item_capacity;
    size_t item_bytes;
    fm_msg_object_t *objects; /* objects to send; locators owned */
    size_t object_count;
    size_t object_capacity;
    int64_t mark_ns; /* results were last sent at; seconds count from here */
    double cpu_seconds;
    double fraction;
};

struct fm_worker {
    fm_reactor_t *reactor;
    fm_link_t *link;
    uint32_t peer;

    int64_t heard_ns;     /* of the control plane's last message */
    int64_t beat_ns;      /* of our last heartbeat */
    int64_t heartbeat_ns; /* between two of them */

    char *name;
    char *cell;
    char *host;
    char *fabric_dir;
    char **executor_argv;
    char *log_path;
    char *device_kind;
    char *device_name;
    uint64_t memory_bytes;
    uint32_t cores;
    double price_per_hour;
    double watts;
    void (*on_end)(void *ctx, fm_status_t status, const char *text);
    void *ctx;

    fm_exec_t *exec;
    bool greeted;      /* HELLO is out */
    bool ending;       /* SHUTDOWN received or given up */
    unsigned failures; /* executor exits in a row without a batch done */
    uint64_t restart_timer;
    uint64_t heartbeat_timer;
    uint64_t heartbeat_seq;
    char **resident; /* model digest texts */
    size_t resident_count;

    struct batch batch;
    fm_msg_t next; /* a lease that waits for the executor */
    bool has_next;
    fm_buf_t *outbox; /* encoded messages that the link had no room for */
    size_t outbox_head;
    size_t outbox_count;
    size_t outbox_capacity;
};

/* worker.c */
void fm_worker_send(fm_worker_t *worker, const fm_msg_t *msg);
void fm_worker_end(fm_worker_t *worker, fm_status_t status, const char *text);
/** Say what is running and resident, now. */
void fm_worker_beat(fm_worker_t *worker);
/** True when the resident models are others than before. */
bool fm_worker_set_resident(fm_worker_t *worker, const fm_json_t *resident);

/* batch.c: the lease in progress. */
/** Hand the waiting lease to the idle executor; nothing when there is none. */
void fm_worker_batch_start(fm_worker_t *worker);
void fm_worker_batch_on_item(fm_worker_t *worker, const fm_exec_item_t *item);
void fm_worker_batch_on_done(fm_worker_t *worker, const fm_exec_done_t *done);
/** The executor is gone: every open item gets @p status and @p text. */
void fm_worker_batch_abort(fm_worker_t *worker, fm_item_status_t status,
                           const char *text);
void fm_worker_batch_flush(fm_worker_t *worker, bool final);
void fm_worker_batch_fini(struct batch *batch);

#endif
