/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file ops_fixture.h
 * What the tests of run/ops share: a scratch store with the operators on it,
 * and a record of all that a batch reported.
 */
#ifndef OPS_FIXTURE_H
#define OPS_FIXTURE_H

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fmtest.h"
#include "run/ops/ops.h"

#define MODEL                                                                  \
    "{\"config\":{\"hidden_size\":16,\"intermediate_size\":32,"                \
    "\"num_hidden_layers\":1,\"num_attention_heads\":2,"                       \
    "\"max_position_embeddings\":64,\"vocab_size\":260},\"seed\":1}"

typedef struct world {
    char *dir;
    fm_cas_t *cas;
    fm_ops_t *ops;
} world_t;

/* What a batch reported. */
typedef struct seen {
    char *outputs[8]; /* canonical text by index */
    char error[1024]; /* the last */
    bool infra;
    size_t items, errors, objects, checkpoints, progresses, loads;
    fm_digest_t stored;     /* digest of the last stored output */
    fm_digest_t checkpoint; /* of the last checkpoint */
    size_t stop_after;      /* checkpoints; 0: never */
} seen_t;

/** Open the store, in a new directory unless @p world has one. */
void world_open(world_t *world, const char *writer);
void world_close(world_t *world, bool remove);
/** Store bytes; returns @p text, "sha256:…" of FM_DIGEST_TEXT_BYTES. */
const char *world_store(world_t *world, const char *bytes, char *text);

/** Run with params, a list of values and hints as texts. */
fm_status_t world_run_hints(world_t *world, const char *type,
                            const char *params_text, const char *values_text,
                            const char *hints_text, const char *checkpoint,
                            seen_t *seen);
/** The same without hints; asserts that the batch ran. */
void world_run(world_t *world, const char *type, const char *params,
               const char *values, seen_t *seen);
/** The only item's output is @p want. */
void world_expect(world_t *world, const char *type, const char *params,
                  const char *values, const char *want);
/** Every item fails as the task's fault with @p want in the text. */
void world_refuse(world_t *world, const char *type, const char *params,
                  const char *values, const char *want);

/* The callbacks of an fm_ops_sink_t whose context is a seen_t. */
fm_status_t seen_item(void *ctx, const fm_ops_item_t *item, fm_error_t *err);
fm_status_t seen_checkpoint(void *ctx, const fm_ops_checkpoint_t *checkpoint,
                            fm_error_t *err);
fm_status_t seen_progress(void *ctx, double fraction, const fm_json_t *metrics,
                          fm_error_t *err);
bool seen_stopping(void *ctx);
/** Release the outputs and begin anew. */
void seen_fini(seen_t *seen);

/** Parse a text that must be JSON; fm_json_drop() it. */
fm_json_t *json_of(const char *text);

#endif
