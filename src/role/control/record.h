/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file record.h
 * The control plane's journal records and their codec (docs/spec/journal.md,
 * "Records of the control plane").
 *
 * A record is what happened, complete enough that replaying all records in
 * order rebuilds the state: fm_state_apply() reads these same bytes live and
 * after a restart.  Little-endian, by field, strings with a varint length.
 *
 * Decoded records borrow from the bytes they were decoded from.
 * Threads: safe for distinct records.
 */
#ifndef FM_ROLE_CONTROL_RECORD_H
#define FM_ROLE_CONTROL_RECORD_H

#include "base/buf.h"
#include "base/hash.h"

/** Journal types; values are the format. */
typedef enum fm_record_type {
    FM_RECORD_SUBMIT = 16,    /**< a workflow was accepted */
    FM_RECORD_EXPAND = 17,    /**< a node became items */
    FM_RECORD_SKIP = 18,      /**< a node's condition does not hold */
    FM_RECORD_NODE_FAIL = 19, /**< a node cannot be expanded */
    FM_RECORD_RESULT = 20,    /**< a worker settled items */
    FM_RECORD_FORGET = 21, /**< an output is lost: its key is unknown again */
    FM_RECORD_CANCEL = 22, /**< a workflow was cancelled */
    FM_RECORD_CHECKPOINT = 23, /**< where a long item can resume */
    FM_RECORD_PLACE = 24,      /**< a lease was given, and why (decision.h) */
    FM_RECORD_WAIT = 25        /**< why a batch key waits (decision.h) */
} fm_record_type_t;

/** Text that need not end in NUL. */
typedef struct fm_span {
    const char *text;
    size_t len;
} fm_span_t;

/** How the keys of a workflow differ from those of plain content; part of the
 *  record, so that a replay makes the same keys whatever the policy is by then.
 *  Values are the format. */
typedef enum fm_isolation {
    FM_ISOLATION_NONE = 0,
    FM_ISOLATION_WORKFLOW = 1, /**< no sharing between workflows */
    FM_ISOLATION_ACTION = 2,   /**< action keys by workflow and node */
    FM_ISOLATION_NODE = 3      /**< action and batch keys by both */
} fm_isolation_t;

typedef struct fm_record_submit {
    uint32_t workflow; /**< dense, from 0 */
    int64_t wall_ns;   /**< when */
    fm_span_t file;    /**< name for error text */
    fm_span_t text;    /**< the workflow as submitted */
    fm_span_t files;   /**< JSON object: path → digest text */
    fm_span_t policy;  /**< that it was submitted under; "" is flowmesh */
    fm_isolation_t isolation;
} fm_record_submit_t;

/** One of several parts when the items are many; the last has more = false. */
typedef struct fm_record_expand {
    uint32_t workflow;
    uint32_t node;
    bool more;
    fm_span_t params; /**< canonical JSON; in the last part only */
    fm_span_t hints;  /**< canonical JSON; in the last part only */
    uint32_t first;   /**< index of this part's first item; 0 starts anew */
    uint32_t count;   /**< items in this part */
    fm_span_t items;  /**< their texts, for fm_record_item_next() */
    int64_t wall_ns;  /**< when; 0: not told (version 1) */
} fm_record_expand_t;

/** SKIP, NODE_FAIL (with text) and CANCEL (node unused). */
typedef struct fm_record_node {
    uint32_t workflow;
    uint32_t node;
    fm_span_t text;
} fm_record_node_t;

typedef enum fm_outcome {
    FM_OUTCOME_OK = 0,
    FM_OUTCOME_TASK_ERROR = 1, /**< counts as an attempt of the task */
    FM_OUTCOME_INFRA_ERROR = 2 /**< ours or the machine's fault */
} fm_outcome_t;

typedef struct fm_record_result {
    uint64_t lease;
    uint32_t instance; /**< of the control plane that gave the lease */
    fm_span_t worker;
    fm_span_t device;
    int64_t start_ns; /**< wall clock */
    double seconds;   /**< of the batch, as far as these items go */
    double cpu_seconds;
    double joules;
    double dollars;
    fm_span_t placement; /**< JSON: terms of the utility; first part only */
    bool final;          /**< the lease has ended */
    uint32_t count;      /**< entries */
    fm_span_t entries;
} fm_record_result_t;

typedef struct fm_record_entry {
    uint32_t position; /**< in the lease */
    uint32_t workflow; /**< whose item was leased */
    uint32_t node;
    uint32_t item;
    fm_digest_t key;
    fm_outcome_t outcome;
    fm_digest_t output; /**< the following: when FM_OUTCOME_OK */
    uint8_t kind;       /**< fm_cas_kind_t */
    fm_span_t bytes;    /**< inline output; empty: the object is in the CAS */
    fm_span_t locator;
    uint32_t object_count; /**< further objects the output needs */
    fm_span_t objects;     /**< digests, 32 bytes each */
    fm_span_t error;       /**< otherwise */
} fm_record_entry_t;

void fm_record_submit_encode(const fm_record_submit_t *record, fm_buf_t *out);
/** Decoders: FM_ERR_CORRUPT with the field's name. */
FM_MUST_USE fm_status_t fm_record_submit_decode(const uint8_t *bytes,
                                                size_t len,
                                                fm_record_submit_t *record_out,
                                                fm_error_t *err);
void fm_record_expand_encode(const fm_record_expand_t *record, fm_buf_t *out);
FM_MUST_USE fm_status_t fm_record_expand_decode(const uint8_t *bytes,
                                                size_t len,
                                                fm_record_expand_t *record_out,
                                                fm_error_t *err);
/** Add an item text to the items span under construction. */
void fm_record_item_add(fm_buf_t *items, const char *text, size_t len);
/** Take the next item text off @p items; false at its end or when torn. */
bool fm_record_item_next(fm_span_t *items, fm_span_t *item_out);

void fm_record_node_encode(const fm_record_node_t *record, fm_buf_t *out);
FM_MUST_USE fm_status_t fm_record_node_decode(const uint8_t *bytes, size_t len,
                                              fm_record_node_t *record_out,
                                              fm_error_t *err);

void fm_record_result_encode(const fm_record_result_t *record, fm_buf_t *out);
FM_MUST_USE fm_status_t fm_record_result_decode(const uint8_t *bytes,
                                                size_t len,
                                                fm_record_result_t *record_out,
                                                fm_error_t *err);
void fm_record_entry_add(fm_buf_t *entries, const fm_record_entry_t *entry);
bool fm_record_entry_next(fm_span_t *entries, fm_record_entry_t *entry_out);

/** FORGET: the bytes are one key digest.  CHECKPOINT: key, then manifest. */
FM_MUST_USE fm_status_t fm_record_digests_decode(const uint8_t *bytes,
                                                 size_t len,
                                                 fm_digest_t *digests_out,
                                                 size_t count, fm_error_t *err);

/** A NUL-terminated copy; NULL when memory is out. */
FM_MUST_USE char *fm_span_copy(fm_span_t span);

#endif
