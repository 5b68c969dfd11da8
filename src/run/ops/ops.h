/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file ops.h
 * What each task type does: params and item values in, output values out.
 *
 * An operator is a function of its parameters and one item value; its output
 * is canonical JSON, so the same work gives the same bytes on any worker.
 * Whatever is not part of that (timings) is reported beside it.
 * docs/spec/workflow.md states params, values and outputs of every type.
 *
 * Threads: a context belongs to one thread, the one that may call HDF5.
 */
#ifndef FM_RUN_OPS_OPS_H
#define FM_RUN_OPS_OPS_H

#include "base/json.h"
#include "store/cas/cas.h"

/** Outputs up to this travel in the reply, larger ones as objects. */
#define FM_OPS_INLINE_BYTES 65536

/** One row of the table of task types. */
typedef struct fm_ops_type {
    const char *name;
    int version; /**< of the operator's meaning; part of every action key */
    bool engine; /**< results depend on the numerics class of the device */
    bool vector; /**< items of one batch run together */
} fm_ops_type_t;

/** All task types, in a fixed order. */
const fm_ops_type_t *fm_ops_types(size_t *count_out);

typedef struct fm_ops fm_ops_t;

typedef struct fm_ops_options {
    fm_cas_t *cas;         /**< writer; kept, outlives the context */
    const char *device;    /**< "cpu"; NULL means it */
    const char *work_root; /**< parent of work directories; NULL: $TMPDIR */
    size_t resident_bytes; /**< models kept between batches; 0: 1 GiB */
} fm_ops_options_t;

/** @retval FM_ERR_UNSUPPORTED  no such device. */
FM_MUST_USE fm_status_t fm_ops_create(const fm_ops_options_t *options,
                                      fm_ops_t **ops_out, fm_error_t *err);
void *fm_ops_destroy(fm_ops_t *ops);
/** Class of the engine's results here: "cpu-f32". */
const char *fm_ops_numerics(const fm_ops_t *ops);
/** [{"model": digest, "bytes": n}, …]; new reference, NULL: no memory. */
FM_MUST_USE fm_json_t *fm_ops_resident(const fm_ops_t *ops);

/** The end of one item; borrowed. */
typedef struct fm_ops_item {
    uint32_t index;
    fm_status_t status;         /**< FM_OK, or why not */
    const char *error;          /**< text unless FM_OK */
    bool infra;                 /**< the place is at fault, not the work */
    const char *output;         /**< canonical JSON; NULL when stored */
    fm_digest_t digest;         /**< of the stored output */
    const fm_digest_t *objects; /**< sealed, and named by the output */
    size_t object_count;
} fm_ops_item_t;

typedef struct fm_ops_checkpoint {
    uint32_t index;
    int64_t step;
    const fm_digest_t *objects; /**< [0] is the manifest; all sealed */
    size_t object_count;
} fm_ops_checkpoint_t;

/** Where results go.  A failing callback ends the batch with its status. */
typedef struct fm_ops_sink {
    fm_status_t (*item)(void *ctx, const fm_ops_item_t *item, fm_error_t *err);
    fm_status_t (*checkpoint)(void *ctx, const fm_ops_checkpoint_t *checkpoint,
                              fm_error_t *err);
    /** metrics may be NULL. */
    fm_status_t (*progress)(void *ctx, double fraction,
                            const fm_json_t *metrics, fm_error_t *err);
    /** True: checkpoint and end soon.  Asked often; must be cheap. */
    bool (*stopping)(void *ctx);
    void *ctx;
} fm_ops_sink_t;

/** A batch; borrowed. */
typedef struct fm_ops_batch {
    const char *task_type;
    const fm_json_t *params; /**< object, or NULL */
    const fm_json_t *hints;  /**< object, or NULL: save_steps, timeout_s */
    const fm_json_t *items;  /**< [{"index": n, "value": …}, …] */
    const char *checkpoint;  /**< digest text to resume from, or NULL */
} fm_ops_batch_t;

/**
 * Run a batch.  Every item is reported through @p sink once; an item's
 * failure is its report, not a failure of the call.
 *
 * {"$object": digest, "locator": text} in place of the whole params or of a
 * whole item value stands for the JSON value that the object holds.  Deeper
 * ones are user data and stay: a digest is no right to read.
 *
 * @retval FM_ERR_CANCELLED  sink->stopping(): items may be unreported.
 * @retval FM_ERR_INVALID    items is no list of {index, value}.
 * @retval others            what a sink callback returned.
 */
FM_MUST_USE fm_status_t fm_ops_run(fm_ops_t *ops, const fm_ops_batch_t *batch,
                                   const fm_ops_sink_t *sink, fm_error_t *err);

#endif
