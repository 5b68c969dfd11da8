/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the live control plane share: control.c (life, commit),
 * workers.c (messages), expand.c (nodes to items), place.c (scheduling).
 */
#ifndef FM_ROLE_CONTROL_INTERNAL_H
#define FM_ROLE_CONTROL_INTERNAL_H

#include "base/map.h"
#include "io/wire/wire.h"
#include "plan/place/place.h"
#include "role/control/control.h"

/* A record that waits to become durable. */
struct pending_record {
    uint64_t seq;
    unsigned type;
    uint8_t *bytes;
    size_t len;
};

/* A lease that a worker holds; leases are volatile, see docs/spec/pool.md. */
struct lease {
    uint64_t lease;
    fm_pool_ref_t *refs; /* [count], by position */
    uint32_t count;
    uint32_t *workers; /* [gang] held by it, first the one that runs it */
    uint32_t gang;
    bool site_wanted; /* where it runs is to be journalled, once */
    int64_t start_wall_ns;
    int64_t expected_end_ns;   /* monotonic */
    double load_s, load_bytes; /* of models, as the executor told */
};

/* A slot is never used again: workers are known to the pool by its number. */
enum worker_state { WORKER_GONE, WORKER_UP, WORKER_SILENT };

struct worker {
    enum worker_state state;
    uint32_t peer;
    char *name;
    char *host;
    char *device_name;
    fm_sched_device_kind_t device;
    uint64_t task_types;
    uint64_t memory_bytes;
    int64_t walltime_end_ns;
    fm_config_worker_t site; /* its class: price, watts, rates */
    uint32_t device_class;   /* of plan/cost */
    fm_digest_t *resident;   /* [resident_count] */
    size_t resident_count;
    uint32_t domain;     /* of plan/sched: its host */
    struct lease *lease; /* NULL: runs nothing */
    bool held;           /* by a lease, its own or that of its gang */
    bool draining;       /* takes no more; what it gives back was not run */
    int64_t heard_ns;    /* monotonic, of its last message */
};

/* A node that waits to be expanded, or for results it reads. */
struct expansion {
    uint32_t run;
    uint32_t node;
};

/* A node whose items would be more than its tenant may have queued. */
struct deferred {
    uint32_t run;
    uint32_t node;
    uint32_t tenant;
    size_t count;
};

/* What readers of a finished node see: its result, or why there is none. */
struct node_result {
    fm_json_t *value;
    char *error;
};

struct fm_control {
    fm_reactor_t *reactor;
    fm_link_t *link;
    fm_fabric_t *fabric;
    fm_pool_t *pool; /* of the fabric's state */
    fm_control_events_t events;
    const fm_config_t *config; /* NULL: defaults */
    fm_place_t *place;
    char *policy; /* that submissions are recorded under */
    fm_isolation_t isolation;
    int64_t heartbeat_ns;
    int64_t silence_ns;
    uint32_t instance;
    bool closing; /* no more leases */
    bool failed;  /* on_fatal was told */

    /* commit */
    struct pending_record *records; /* FIFO by seq */
    size_t record_head;
    size_t record_count;
    size_t record_capacity;
    bool flushing;
    bool urgent; /* a record waits that somebody acts upon */

    /* workers and leases */
    struct worker *workers;
    size_t worker_count;
    size_t worker_capacity;
    uint32_t *gone; /* [gone_count] peers that left or were lost */
    size_t gone_count;
    size_t gone_capacity;
    uint64_t lease_counter;
    struct told *told; /* [told_count] by batch key, see why.c */
    size_t told_count;
    size_t visit;     /* of the batch keys that wait, the last looked at */
    size_t looked_at; /* candidates of the last choice */
    bool place_wanted;
    uint64_t wake_timer; /* 0: none */
    int64_t wake_ns;     /* when it is due */
    bool learned;        /* the cost model knows more than the placement */
    int64_t learned_ns;  /* when that was last told */
    uint64_t tick_timer;
    int64_t tick_ns; /* of the last tick */
    uint64_t tick_count;

    /* expansion */
    struct expansion *expansions;
    size_t expansion_count;
    size_t expansion_capacity;
    struct expansion *waiting; /* for results that are being loaded */
    size_t waiting_count;
    size_t waiting_capacity;
    struct deferred *deferred; /* in the order in which they came */
    size_t deferred_count;
    size_t deferred_capacity;
    uint64_t *staged; /* [staged_tenants] items on their way into the pool */
    size_t staged_tenants;
    fm_map_t *marks;   /* (run, node, what): under way, see expand.c */
    fm_map_t *results; /* (run, node) → index in result_list */
    struct node_result *result_list;
    size_t result_count;
    size_t result_capacity;
    uint32_t **readers; /* [reader_runs][nodes] of a run: how many that are not
                           expanded yet read it; NULL: not counted yet */
    size_t reader_runs;
};

/* --- control.c ------------------------------------------------------------ */

/** Append a record; it is applied once durable.  A failure is fatal. */
void fm_control_record(fm_control_t *control, unsigned type,
                       const uint8_t *bytes, size_t len);
/** Append a record that nothing waits for: it becomes durable with the next
 *  one that something does, or with the next beat. */
void fm_control_remark(fm_control_t *control, unsigned type,
                       const uint8_t *bytes, size_t len);
/** The control plane cannot go on. */
void fm_control_fatal(fm_control_t *control, const fm_error_t *err);
/** Run @p work on the storage thread. */
void fm_control_offload(fm_control_t *control, fm_reactor_offload_fn work,
                        fm_reactor_done_fn done, void *ctx);

/* --- workers.c ------------------------------------------------------------ */

void fm_control_on_message(void *ctx, uint32_t peer, const uint8_t *bytes,
                           size_t len);
void fm_control_on_peer(void *ctx, uint32_t peer, bool up, const char *reason);
/** FM_OK, or why the link did not take it. */
fm_status_t fm_control_send(fm_control_t *control, uint32_t peer,
                            const fm_msg_t *msg, fm_error_t *err);
/** Take what a worker holds away from it. */
void fm_control_lease_drop(fm_control_t *control, struct worker *worker,
                           fm_pool_lease_end_t how);
void *fm_control_lease_destroy(struct lease *lease);
/** Periodic: silent workers are lost. */
void fm_control_tick(void *ctx);
void fm_control_worker_fini(struct worker *worker);

/* --- expand.c ------------------------------------------------------------- */

/** Remember to expand a node whose dependencies are done. */
void fm_control_expand_later(fm_control_t *control, uint32_t run,
                             uint32_t node);
/** Expand what can be expanded; returns how much was done. */
size_t fm_control_expand_all(fm_control_t *control);
/** Items of a node are in the pool now, or never will be. */
void fm_control_staged_end(fm_control_t *control, uint32_t run, size_t count);
/** Work has settled: expand nodes that waited for the queue quota of their
 *  tenant, as far as it allows.  @p all: look at all of them, once a beat. */
void fm_control_deferred_retry(fm_control_t *control, bool all);
/** Look at every node: after a restart, and after a FORGET. */
void fm_control_expand_scan(fm_control_t *control);
/** The result of a finished node is no longer needed in memory. */
void fm_control_results_drop(fm_control_t *control, uint32_t run);

/** A node cannot be expanded; its readers fail with it. */
void fm_control_node_fail(fm_control_t *control, uint32_t run, uint32_t node,
                          const char *text);

/* --- stage.c -------------------------------------------------------------- */

/** Put the items of a node into the journal, by way of the store if need be. */
FM_MUST_USE fm_status_t fm_control_stage(fm_control_t *control, uint32_t run,
                                         uint32_t node,
                                         const fm_workflow_work_t *work,
                                         fm_error_t *err);

/* --- why.c ---------------------------------------------------------------- */

/** Candidates of a choice, best first, to call before it is leased; returns
 *  how many were written. */
size_t fm_control_look(fm_control_t *control, const fm_place_choice_t *choice,
                       int64_t now, fm_sched_candidate_t *list, size_t cap);
/** Journal why a lease was given. */
void fm_control_why_placed(fm_control_t *control, const struct lease *lease,
                           const fm_place_choice_t *choice,
                           const fm_sched_candidate_t *list, size_t count);
/** Once a beat: journal what batch keys wait for, where that is news. */
void fm_control_why_waiting(fm_control_t *control);

/* --- place.c -------------------------------------------------------------- */

/** Decide which batch goes where, send the leases; returns how many. */
size_t fm_control_place(fm_control_t *control);
/** What is known of a worker has changed. */
void fm_control_worker_put(fm_control_t *control, struct worker *worker);
/** It takes no work, for now or for good. */
void fm_control_worker_drop(fm_control_t *control, const struct worker *worker);
/** It holds no lease any more; what the pool is to hear is the caller's. */
void fm_control_worker_free(fm_control_t *control, struct worker *worker);

#endif
