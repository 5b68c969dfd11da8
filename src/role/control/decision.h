/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file decision.h
 * The journal's records of decisions: PLACE (a lease was given, and what else
 * was looked at) and WAIT (why a batch key is not placed), for `flowmesh
 * explain`.  Nothing but explanations depends on them: they are written with
 * the next flush, never wait for one, and a journal may lack any of them.
 *
 * One record is at most about FM_DECISION_BYTES_MAX bytes: terms are float32,
 * the candidates and the operators listed are bounded.  docs/spec/journal.md.
 *
 * Decoded records borrow from the bytes they were decoded from.
 * Threads: safe for distinct records.
 */
#ifndef FM_ROLE_CONTROL_DECISION_H
#define FM_ROLE_CONTROL_DECISION_H

#include "base/json.h"
#include "plan/sched/sched.h"
#include "role/control/record.h"

#define FM_DECISION_CANDIDATES_MAX 5u /**< the chosen one and the next best */
#define FM_DECISION_RANGES_MAX 64u    /**< of operators of one lease */
#define FM_DECISION_BLOCKED_MAX 4u    /**< tenants at a quota */
#define FM_DECISION_BYTES_MAX 4096u

/** A placement that was looked at. */
typedef struct fm_decision_candidate {
    fm_span_t worker; /**< its name */
    uint32_t size;    /**< items */
    bool idle;
    fm_sched_terms_t terms; /**< runner_up and the counts are not kept */
} fm_decision_candidate_t;

/** Operators of one lease: @p count items of a node from @p item on. */
typedef struct fm_decision_range {
    uint32_t workflow, node, item, count;
} fm_decision_range_t;

/** A tenant whose work on the batch key waits for a quota. */
typedef struct fm_decision_blocked {
    fm_span_t tenant;
    fm_span_t text; /**< a sentence */
} fm_decision_blocked_t;

typedef struct fm_decision {
    uint64_t lease; /**< PLACE; 0: WAIT */
    int64_t wall_ns;
    fm_digest_t batch_key;
    fm_span_t policy;
    fm_sched_verdict_t verdict; /**< WAIT: why; PLACE: FM_SCHED_PLACE */
    fm_span_t text;             /**< WAIT: a sentence, with its numbers */
    uint32_t items;             /**< leased, or ready */
    uint32_t gang;              /**< devices of the lease */
    uint32_t looked_at;         /**< candidates in all */
    fm_decision_candidate_t candidates[FM_DECISION_CANDIDATES_MAX];
    uint32_t candidate_count; /**< PLACE: the first is the chosen one */
    fm_decision_range_t ranges[FM_DECISION_RANGES_MAX];
    uint32_t range_count; /**< those beyond the bound are not listed */
    fm_decision_blocked_t blocked[FM_DECISION_BLOCKED_MAX];
    uint32_t blocked_count;
} fm_decision_t;

void fm_decision_encode(const fm_decision_t *decision, fm_buf_t *out);
/** FM_ERR_CORRUPT with the place. */
FM_MUST_USE fm_status_t fm_decision_decode(const uint8_t *bytes, size_t len,
                                           fm_decision_t *decision_out,
                                           fm_error_t *err);
/** What a replay needs: lease, time and batch key, without the rest. */
FM_MUST_USE fm_status_t fm_decision_head(const uint8_t *bytes, size_t len,
                                         fm_decision_t *head_out,
                                         fm_error_t *err);
/** The terms that a record keeps, as an object; new reference, NULL when memory
 *  is out. */
FM_MUST_USE fm_json_t *fm_decision_terms_json(const fm_sched_terms_t *from);

#endif
