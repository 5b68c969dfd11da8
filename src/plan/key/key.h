/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file key.h
 * Identity of work: the action key (what makes two operators the same work)
 * and the batch key (what may run together).
 *
 * Both are the SHA-256 of one canonical JSON text, stated byte for byte in
 * docs/spec/keys.md.  A key speaks of content alone: no name, path, time,
 * tenant or worker.  The texts are frozen: tests/golden/keys.json holds keys
 * that must never change; another meaning takes another "v".
 *
 * Threads: distinct fm_key_maker_t objects are independent.
 */
#ifndef FM_PLAN_KEY_KEY_H
#define FM_PLAN_KEY_KEY_H

#include "base/hash.h"
#include "base/json.h"

/** Most bytes of a canonical text: inputs are digests, so a longer one is a
 *  value that belongs into the store. */
#define FM_KEY_TEXT_BYTES_MAX (8u << 20)

/** What task types are for the scheduler: its trade of speed for cost. */
typedef enum fm_key_kind {
    FM_KEY_OTHER,
    FM_KEY_INFERENCE,
    FM_KEY_TRAINING
} fm_key_kind_t;

/** A row of the table of task types. */
typedef struct fm_key_task {
    const char *name;
    int version; /**< raised when the operator computes something else */
    fm_key_kind_t kind;
    bool numeric;        /**< results depend on the device class */
    bool checkpointable; /**< may resume, so preemption costs less */
    uint32_t batch_max;  /**< items of one batch at most */
} fm_key_task_t;

/** Row @p index of the table, NULL past its end.  The index of a task type is
 *  stable within a build: bit @p index of a worker's task type mask. */
const fm_key_task_t *fm_key_task_at(size_t index);
/** Row of @p task_type, or NULL; @p index_out may be NULL. */
const fm_key_task_t *fm_key_task_find(const char *task_type,
                                      uint32_t *index_out);

/** Everything that decides a result. */
typedef struct fm_key_parts {
    const char *task_type;   /**< a name of the table */
    int version;             /**< 0: the table's */
    const fm_json_t *params; /**< object; NULL is {} */
    const fm_json_t *value;  /**< of the item; NULL is null */
    const int64_t *seed;     /**< NULL: the work has none */
    const char *numerics;    /**< NULL: "exact"; else such as "cpu-f32" */
    const char *trust;       /**< NULL: "default"; results are shared only
                                  inside one trust domain */
} fm_key_parts_t;

/**
 * Action key of one item.
 * @param key_out  [out] untouched on failure.
 * @retval FM_ERR_INVALID  unknown task type, params is not an object, a text
 *                         is empty or not UTF-8.
 * @retval FM_ERR_LIMIT    longer than FM_KEY_TEXT_BYTES_MAX.
 * @retval FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_key_action(const fm_key_parts_t *parts,
                                      fm_digest_t *key_out, fm_error_t *err);

/** Batch key: the action key's parts without value and seed. */
FM_MUST_USE fm_status_t fm_key_batch(const fm_key_parts_t *parts,
                                     fm_digest_t *key_out, fm_error_t *err);

/** The text that fm_key_action() hashes; free() it.  Two of them, compared
 *  member by member, explain why two keys differ. */
FM_MUST_USE fm_status_t fm_key_action_text(const fm_key_parts_t *parts,
                                           char **text_out, fm_error_t *err);

/** A vector operator's keys: the shared text is made canonical once, only
 *  value and seed differ.  Same bytes, same keys as fm_key_action(). */
typedef struct fm_key_maker fm_key_maker_t;

/** @p parts->value and seed are ignored; nothing of @p parts is kept. */
FM_MUST_USE fm_status_t fm_key_maker_create(const fm_key_parts_t *parts,
                                            fm_key_maker_t **maker_out,
                                            fm_error_t *err);
void *fm_key_maker_destroy(fm_key_maker_t *maker);
/** Batch key of all items. */
fm_digest_t fm_key_maker_batch(const fm_key_maker_t *maker);
/** Key of the item (@p value, @p seed); either may be NULL. */
FM_MUST_USE fm_status_t fm_key_maker_action(fm_key_maker_t *maker,
                                            const fm_json_t *value,
                                            const int64_t *seed,
                                            fm_digest_t *key_out,
                                            fm_error_t *err);

/** Called once for each member that differs; @p a or @p b is NULL where the
 *  member is missing. */
typedef void (*fm_key_difference_fn)(void *ctx, const char *path,
                                     const fm_json_t *a, const fm_json_t *b);

/**
 * Explain why two canonical texts (as stored) give different keys: the deepest
 * differing members with their paths, such as "params.temperature".
 * @param count_out  [out] differences; 0 when the keys are equal.
 * @retval FM_ERR_INVALID  a text is not JSON.
 */
FM_MUST_USE fm_status_t fm_key_explain(const char *text_a, const char *text_b,
                                       fm_key_difference_fn each, void *ctx,
                                       size_t *count_out, fm_error_t *err);

#endif
