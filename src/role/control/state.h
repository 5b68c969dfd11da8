/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file state.h
 * Everything the control plane knows, as a function of its journal.
 *
 * fm_state_apply() is the only way in: the live control plane calls it for
 * each record once that is durable, a restart and the offline commands call
 * it for every record of the journal.  The same records give the same state.
 *
 * Threads: one at a time.
 */
#ifndef FM_ROLE_CONTROL_STATE_H
#define FM_ROLE_CONTROL_STATE_H

#include "plan/cost/cost.h"
#include "plan/pool/pool.h"
#include "plan/sched/sched.h"
#include "plan/workflow/workflow.h"
#include "role/control/record.h"

/** The items of one expanded node. */
typedef struct fm_vector {
    char *params; /**< canonical JSON */
    char *hints;  /**< canonical JSON */
    uint32_t count;
    uint32_t capacity;
    size_t *offsets;     /**< [count] of the item texts in `texts` */
    fm_buf_t texts;      /**< canonical JSON texts, each with its NUL */
    uint32_t task_class; /**< of plan/cost; valid once params are */
    double item_work;    /**< its units */
    fm_digest_t batch_key;
    int64_t expanded_ns; /**< wall clock; 0: not told */
} fm_vector_t;

/** One submitted workflow. */
typedef struct fm_run {
    uint32_t index;
    char id[16]; /**< "w1", "w2", … */
    fm_workflow_t *workflow;
    fm_digest_t text_digest; /**< of text and files: the same submission */
    char *file;              /**< name the text came from */
    char *text;
    fm_json_t *files;
    int64_t submitted_ns; /**< wall clock */
    char *policy;         /**< that it was submitted under */
    fm_isolation_t isolation;
    size_t node_count;
    fm_vector_t **vectors; /**< [node_count], NULL until expanded */
    char **errors;         /**< [node_count], first cause, or NULL */
} fm_run_t;

/** What is known of a lease that produced results. */
typedef struct fm_lease_record {
    uint64_t lease;
    char *worker;
    char *device;
    char *placement; /**< JSON of the utility's terms, "" when unknown */
    int64_t start_ns;
    double seconds;
    double cpu_seconds;
    double joules;
    double dollars;
    uint32_t items;
    uint32_t device_class; /**< of plan/cost */
    uint8_t *decision;     /**< its PLACE record (decision.h), or NULL */
    size_t decision_len;
} fm_lease_record_t;

/** A WAIT record (decision.h) of a batch key. */
typedef struct fm_wait_record {
    uint32_t batch;
    uint8_t *bytes;
    size_t len;
} fm_wait_record_t;

/** What the items of one batch key have in common. */
typedef struct fm_batch_info {
    uint32_t task_index;   /**< of fm_key_task_at() */
    uint32_t task_class;   /**< of plan/cost */
    size_t item_bytes_max; /**< longest item text */
    bool has_model;
    fm_digest_t model;
    uint64_t model_bytes;  /**< 0: unknown */
    uint64_t memory_bytes; /**< of the device, at the least; 0: unknown */
    fm_sched_device_kind_t device;
    uint32_t gang;       /**< devices at once, ≥ 1 */
    int64_t deadline_ns; /**< for one item; 0: by estimate */
} fm_batch_info_t;

typedef struct fm_state fm_state_t;

/** @param numerics  class of the fabric's devices, such as "cpu-f32". */
FM_MUST_USE fm_status_t fm_state_create(const char *numerics,
                                        fm_state_t **state_out,
                                        fm_error_t *err);
void *fm_state_destroy(fm_state_t *state);

/**
 * Apply one journal record.
 * @param replayed  true when it is read back after a restart.
 * @param now_ns    on the pool's clock.
 * @retval FM_ERR_CORRUPT    the record contradicts what came before.
 * @retval FM_ERR_NO_MEMORY  the state is unusable afterwards.
 */
FM_MUST_USE fm_status_t fm_state_apply(fm_state_t *state, unsigned type,
                                       const uint8_t *bytes, size_t len,
                                       bool replayed, int64_t now_ns,
                                       fm_error_t *err);

fm_pool_t *fm_state_pool(const fm_state_t *state);
fm_cost_t *fm_state_cost(const fm_state_t *state);
uint32_t fm_state_run_count(const fm_state_t *state);
fm_run_t *fm_state_run(const fm_state_t *state, uint32_t index);
/** The run of an id ("w3") or the latest of a metadata.name; NULL. */
fm_run_t *fm_state_find(const fm_state_t *state, const char *name);
/** NULL when unknown. */
const fm_lease_record_t *fm_state_lease(const fm_state_t *state,
                                        uint64_t lease);
/** Leases in the order in which they were given; position < count. */
size_t fm_state_lease_count(const fm_state_t *state);
const fm_lease_record_t *fm_state_lease_at(const fm_state_t *state,
                                           size_t position);
/** WAIT records of @p batch_key in the order of time, from *cursor (at first
 *  0) on; NULL when there are no more. */
const fm_wait_record_t *fm_state_wait_next(const fm_state_t *state,
                                           const fm_digest_t *batch_key,
                                           size_t *cursor);
/** Batch keys known; their ids in the pool are below it. */
size_t fm_state_batch_count(const fm_state_t *state);
const fm_batch_info_t *fm_state_batch(const fm_state_t *state,
                                      const fm_digest_t *batch_key);
/** Take a batch key that is new, or whose needs have changed, since it was last
 *  taken; false when there is none.  @p info_out is borrowed. */
bool fm_state_next_batch(fm_state_t *state, fm_digest_t *key_out,
                         const fm_batch_info_t **info_out);
/** The canonical text whose digest is the action key of an item of an expanded
 *  node (docs/spec/keys.md); free() it. */
FM_MUST_USE fm_status_t fm_state_key_text(const fm_state_t *state,
                                          const fm_run_t *run, uint32_t node,
                                          uint32_t item, char **text_out,
                                          fm_error_t *err);
/** Latest checkpoint of an unsettled key; false when there is none. */
bool fm_state_checkpoint(const fm_state_t *state, const fm_digest_t *key,
                         fm_digest_t *manifest_out);
/** Keep the cause of a failing item for its node; the first one stays. */
void fm_state_note_error(fm_state_t *state, uint32_t run, uint32_t node,
                         const char *text, size_t len);

/** Text of item @p item, NUL-terminated, borrowed. */
const char *fm_vector_item(const fm_vector_t *vector, uint32_t item);
/** Digest of what makes two submissions the same. */
fm_digest_t fm_run_digest(const char *text, size_t len, const fm_json_t *files);

#endif
