/* SPDX-License-Identifier: Apache-2.0 */
/* What worker.c (life cycle, messages), batch.c (one lease) and stage.c (files
 * and objects) share. */
#ifndef FM_ROLE_WORKER_INTERNAL_H
#define FM_ROLE_WORKER_INTERNAL_H

#include "base/clock.h"
#include "base/json.h"
#include "io/wire/wire.h"
#include "role/worker/worker.h"
#include "run/exec/exec.h"

/* A cancelled batch gets this long to stop by itself. */
#define FM_WORKER_STOP_GRACE_NS (5 * FM_NS_PER_S)

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

/* Objects that outputs refer to; locators owned. */
struct pending_objects {
    fm_msg_object_t *list;
    size_t count;
    size_t capacity;
};

/* The lease in progress: parsed, (staged,) run, (stored,) ended. */
struct batch {
    uint64_t lease; /* 0: none */
    uint32_t instance;
    fm_msg_t msg;       /* the LEASE, until the executor has it */
    fm_json_t *params;  /* parsed from msg; lent to stage.c meanwhile */
    fm_json_t *hints;   /* parsed from msg */
    fm_json_t **values; /* [value_count], as params */
    size_t value_count;
    bool staged;    /* files lie in the work directory */
    bool running;   /* the executor has it */
    bool cancelled; /* before that */
    bool over;      /* the executor is done with it; files are being stored */
    uint32_t *open; /* indices without a result yet */
    size_t open_count;
    size_t storing;             /* items whose files are being stored */
    struct pending_item *items; /* results to send */
    size_t item_count;
    size_t item_capacity;
    size_t item_bytes;
    struct pending_objects objects; /* objects to send */
    int64_t mark_ns; /* results were last sent at; seconds count from here */
    double cpu_seconds;
    double fraction;
};

struct fm_worker_store;
struct job;

struct fm_worker {
    fm_reactor_t *reactor;
    fm_link_t *link;
    uint32_t peer;

    int64_t heard_ns;     /* of the control plane's last message */
    int64_t beat_ns;      /* of our last heartbeat */
    int64_t heartbeat_ns; /* between two of them */
    bool control_left;    /* the control plane closed its link, or is dead */

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
    bool stage_files;  /* the executor wants objects as files */
    bool draining;     /* no new lease; ends with the one in progress */
    bool ending;       /* BYE is out */
    unsigned failures; /* executor exits in a row without a batch done */
    uint64_t restart_timer;
    uint64_t heartbeat_timer;
    uint64_t drain_timer;
    char *drain_reason;
    uint64_t heartbeat_seq;
    char **resident; /* model digest texts */
    size_t resident_count;

    struct fm_worker_store *store;
    struct job *jobs; /* on the storage thread */
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
/** Values are as the executor wants them: run. */
void fm_worker_batch_run(fm_worker_t *worker);
void fm_worker_batch_on_item(fm_worker_t *worker, const fm_exec_item_t *item);
void fm_worker_batch_on_done(fm_worker_t *worker, const fm_exec_done_t *done);
/** The output of an item is stored, or could not be; both are taken over. */
void fm_worker_batch_stored(fm_worker_t *worker, struct pending_item *item,
                            struct pending_objects *objects);
/** The executor is gone or refused: every open item gets @p status and
 *  @p text. */
void fm_worker_batch_abort(fm_worker_t *worker, fm_item_status_t status,
                           const char *text);
/** Give a lease back as it came: nothing of it was run. */
void fm_worker_batch_return(fm_worker_t *worker, const fm_msg_lease_t *lease);
/** Nobody wants @p lease any more, running or waiting. */
void fm_worker_batch_cancel(fm_worker_t *worker, uint64_t lease);
void fm_worker_batch_fini(struct batch *batch);
void fm_worker_item_fini(struct pending_item *item);
void fm_worker_objects_fini(struct pending_objects *objects);

/* stage.c: the worker's own use of the store. */
/** Make the work directory; the store itself is opened when first needed. */
FM_MUST_USE fm_status_t fm_worker_store_open(fm_worker_t *worker,
                                             const char *writer,
                                             fm_error_t *err);
/** Let go of it; jobs under way end without effect. */
void fm_worker_store_close(fm_worker_t *worker);
/** The executor's work directory, absolute. */
const char *fm_worker_store_dir(const fm_worker_t *worker);
/** Whether the batch names objects that its executor wants as files. */
bool fm_worker_stage_wanted(const fm_worker_t *worker);
/** Write them; fm_worker_batch_run() or _abort() follows. */
FM_MUST_USE fm_status_t fm_worker_stage(fm_worker_t *worker, fm_error_t *err);
/** Remove what was written for the lease in progress. */
void fm_worker_unstage(fm_worker_t *worker);
/** Store the file at @p path below the work directory as the output of
 *  @p item, or with NULL its bytes; item and objects are taken over on success;
 * fm_worker_batch_stored() follows.
 */
FM_MUST_USE fm_status_t fm_worker_store_result(fm_worker_t *worker,
                                               const char *path,
                                               struct pending_item *item,
                                               struct pending_objects *objects,
                                               fm_error_t *err);

#endif
