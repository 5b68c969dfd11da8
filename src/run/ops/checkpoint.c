/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training states in the store: what changes as one tensor a block, the table
 * so far, and a manifest, {"format": "flowmesh-checkpoint/2", "work", "step",
 * "tokens", "table", "blocks": {name: digest}}.  What does not change (the
 * base of an adapter) is not in it.  The position in the data follows from
 * the step.  "work" is the digest of what the state is of, so a state cannot
 * continue other work.
 */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/training.h"

#define FORMAT "flowmesh-checkpoint/2"
#define MANIFEST_BYTES_MAX 65536

/* A block of floats that a state has. */
typedef struct block {
    const char *name;
    size_t count;
    fm_status_t (*read)(const fm_ops_training_t *training, size_t count,
                        float *host, fm_error_t *err);
    fm_status_t (*write)(fm_ops_training_t *training, size_t count,
                         const float *host, fm_error_t *err);
} block_t;

static fm_status_t weights_read(const fm_ops_training_t *t, size_t count,
                                float *host, fm_error_t *err)
{
    return fm_engine_model_read(t->own.model, 0, count, host, err);
}

static fm_status_t weights_write(fm_ops_training_t *t, size_t count,
                                 const float *host, fm_error_t *err)
{
    return fm_engine_model_write(t->own.model, 0, count, host, err);
}

static fm_status_t first_read(const fm_ops_training_t *t, size_t count,
                              float *host, fm_error_t *err)
{
    return fm_engine_trainer_read(t->trainer, FM_ENGINE_MOMENT_FIRST, 0, count,
                                  host, err);
}

static fm_status_t first_write(fm_ops_training_t *t, size_t count,
                               const float *host, fm_error_t *err)
{
    return fm_engine_trainer_write(t->trainer, FM_ENGINE_MOMENT_FIRST, 0, count,
                                   host, err);
}

static fm_status_t second_read(const fm_ops_training_t *t, size_t count,
                               float *host, fm_error_t *err)
{
    return fm_engine_trainer_read(t->trainer, FM_ENGINE_MOMENT_SECOND, 0, count,
                                  host, err);
}

static fm_status_t second_write(fm_ops_training_t *t, size_t count,
                                const float *host, fm_error_t *err)
{
    return fm_engine_trainer_write(t->trainer, FM_ENGINE_MOMENT_SECOND, 0,
                                   count, host, err);
}

#define BLOCKS_MAX 8

/* The blocks of @p training; returns how many. */
static size_t blocks_list(const fm_ops_training_t *training,
                          block_t blocks[BLOCKS_MAX])
{
    size_t count = 0;
    size_t weights = fm_engine_model_size(training->own.model);

    blocks[count++] =
        (block_t){"weights", weights, weights_read, weights_write};
    blocks[count++] = (block_t){"first", weights, first_read, first_write};
    blocks[count++] = (block_t){"second", weights, second_read, second_write};
    return count;
}

/* --- saving -------------------------------------------------------------- */

static fm_status_t digest_add(fm_json_t *object, const char *name,
                              const fm_digest_t *digest,
                              fm_ops_output_t *output, fm_error_t *err)
{
    char text[FM_DIGEST_TEXT_BYTES];

    if (fm_json_set(object, name,
                    fm_json_string(fm_digest_format(digest, text))) < 0) {
        return fm_no_memory(err);
    }
    return fm_ops_output_object(output, digest, err);
}

static fm_status_t block_put(fm_ops_training_t *training, const block_t *block,
                             fm_json_t *blocks, fm_ops_output_t *output,
                             fm_error_t *err)
{
    uint64_t shape = block->count;
    float *host = fm_malloc((block->count ? block->count : 1) * sizeof(*host));
    fm_digest_t digest;
    fm_status_t rc = host ? block->read(training, block->count, host, err)
                          : fm_no_memory(err);

    if (rc >= 0) {
        rc = fm_cas_put_tensor(training->run->ops->cas, FM_CAS_F32, &shape, 1,
                               host, &digest, err);
    }
    free(host);
    return rc < 0 ? rc : digest_add(blocks, block->name, &digest, output, err);
}

static fm_status_t parts_put(fm_ops_training_t *training, fm_json_t *manifest,
                             fm_ops_output_t *output, fm_error_t *err)
{
    const fm_buf_t *text = &training->table.text;
    block_t blocks[BLOCKS_MAX];
    size_t count = blocks_list(training, blocks);
    fm_json_t *named = fm_json_object();
    fm_digest_t digest;
    fm_status_t rc = FM_OK;

    if (!named || fm_json_set(manifest, "blocks", fm_json_keep(named)) < 0) {
        rc = fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        rc = block_put(training, &blocks[i], named, output, err);
    }
    fm_json_drop(named);
    if (rc < 0 || (rc = fm_cas_put(training->run->ops->cas, FM_CAS_BLOB,
                                   text->len ? (const void *)text->data : "",
                                   text->len, &digest, err)) < 0) {
        return rc;
    }
    return digest_add(manifest, "table", &digest, output, err);
}

fm_status_t fm_ops_state_put(fm_ops_training_t *training,
                             const fm_digest_t *work, fm_ops_output_t *output,
                             fm_digest_t *state_out, fm_error_t *err)
{
    int64_t step = (int64_t)fm_engine_trainer_step(training->trainer);
    fm_json_t *manifest = fm_json_object();
    char hex[FM_DIGEST_TEXT_BYTES], *text = NULL;
    fm_status_t rc;

    if (!manifest ||
        fm_json_set(manifest, "format", fm_json_string(FORMAT)) < 0 ||
        fm_json_set(manifest, "work",
                    fm_json_string(fm_digest_format(work, hex))) < 0 ||
        fm_json_set(manifest, "step", fm_json_int(step)) < 0 ||
        fm_json_set(manifest, "tokens",
                    fm_json_int((int64_t)training->tokens)) < 0) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = parts_put(training, manifest, output, err)) < 0) {
        goto out;
    }
    if (!(text = fm_json_canonical(manifest))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = fm_cas_put(training->run->ops->cas, FM_CAS_CHECKPOINT, text,
                         strlen(text), state_out, err)) >= 0) {
        rc = fm_ops_output_object(output, state_out, err);
    }
out:
    free(text);
    fm_json_drop(manifest);
    return rc;
}

fm_status_t fm_ops_checkpoint_save(fm_ops_training_t *training, fm_error_t *err)
{
    fm_ops_run_t *run = training->run;
    fm_ops_output_t state = {0};
    fm_digest_t digest;
    fm_status_t rc =
        fm_ops_state_put(training, &training->work, &state, &digest, err);

    if (rc >= 0 && (rc = fm_cas_seal(run->ops->cas, err)) >= 0) {
        /* the manifest comes first in the report */
        state.objects[state.object_count - 1] = state.objects[0];
        state.objects[0] = digest;
        const fm_ops_checkpoint_t report = {
            run->indices[training->item],
            (int64_t)fm_engine_trainer_step(training->trainer), state.objects,
            state.object_count};
        rc = run->sink->checkpoint(run->sink->ctx, &report, err);
    }
    if (rc < 0) {
        fm_error_wrap(err, "checkpoint");
    }
    fm_ops_output_fini(&state);
    return rc;
}

/* --- loading ------------------------------------------------------------- */

static fm_status_t block_get(const fm_ops_training_t *training,
                             const fm_json_t *blocks, const block_t *block,
                             float *host, fm_error_t *err)
{
    fm_digest_t digest;
    size_t len = 0, want = block->count * sizeof(*host);
    fm_status_t rc = fm_ops_get_digest(blocks, block->name, &digest, err);

    if (rc >= 0) {
        rc = fm_cas_read(training->run->ops->cas, &digest, host, want, &len,
                         err);
    }
    if (rc >= 0 && len != want) {
        rc = fm_error_set(err, FM_ERR_INVALID, "%s: %zu bytes, %zu needed",
                          block->name, len, want);
    }
    return rc;
}

/* All are read before anything is changed: half a state is none. */
static fm_status_t blocks_get(fm_ops_training_t *training,
                              const fm_json_t *manifest, fm_error_t *err)
{
    const fm_json_t *named = fm_json_get(manifest, "blocks");
    block_t blocks[BLOCKS_MAX];
    size_t count = blocks_list(training, blocks), total = 0, at = 0;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < count; i++) {
        total += blocks[i].count;
    }
    float *host = fm_calloc(total ? total : 1, sizeof(*host));
    if (!host) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && i < count; at += blocks[i++].count) {
        rc = block_get(training, named, &blocks[i], host + at, err);
    }
    at = 0;
    for (size_t i = 0; rc >= 0 && i < count; at += blocks[i++].count) {
        rc = blocks[i].write(training, blocks[i].count, host + at, err);
    }
    free(host);
    return rc;
}

static fm_status_t table_get(fm_ops_training_t *training,
                             const fm_json_t *manifest, fm_buf_t *text_out,
                             fm_error_t *err)
{
    fm_digest_t digest;
    fm_status_t rc = fm_ops_get_digest(manifest, "table", &digest, err);

    return rc < 0 ? rc
                  : fm_cas_get(training->run->ops->cas, &digest, text_out, err);
}

static fm_status_t manifest_check(const fm_json_t *manifest,
                                  const fm_digest_t *want, fm_error_t *err)
{
    const char *format = fm_json_get_str(manifest, "format");
    const char *work = fm_json_get_str(manifest, "work");
    fm_digest_t digest;

    if (!format || strcmp(format, FORMAT) != 0 ||
        fm_json_get_int(manifest, "step", -1) < 0 ||
        fm_json_get_int(manifest, "tokens", -1) < 0 || !work ||
        !fm_digest_parse(work, &digest)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "not a checkpoint manifest (" FORMAT ")");
    }
    if (!fm_digest_equal(&digest, want)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "it is of other work: other parameters or data");
    }
    return FM_OK;
}

fm_status_t fm_ops_state_get(fm_ops_training_t *training,
                             const fm_digest_t *state, const fm_digest_t *work,
                             fm_error_t *err)
{
    fm_cas_t *cas = training->run->ops->cas;
    fm_json_t *manifest = NULL;
    fm_buf_t bytes = {0}, text = {0};
    uint64_t size = 0;
    fm_status_t rc;

    if (fm_cas_size(cas, state, NULL, &size) && size > MANIFEST_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_INVALID, "not a checkpoint");
    }
    if ((rc = fm_cas_get(cas, state, &bytes, err)) < 0 ||
        (rc = fm_json_parse((const char *)bytes.data, bytes.len, "manifest",
                            &manifest, err)) < 0 ||
        (rc = manifest_check(manifest, work, err)) < 0 ||
        (rc = table_get(training, manifest, &text, err)) < 0 ||
        (rc = blocks_get(training, manifest, err)) < 0 ||
        (rc = fm_ops_table_set(&training->table, &text, err)) < 0) {
        goto out;
    }
    fm_engine_trainer_set_step(training->trainer,
                               (uint64_t)fm_json_get_int(manifest, "step", 0));
    training->tokens = (uint64_t)fm_json_get_int(manifest, "tokens", 0);
    training->said_tokens = training->tokens;
out:
    fm_json_drop(manifest);
    fm_buf_fini(&text);
    fm_buf_fini(&bytes);
    return rc;
}

fm_status_t fm_ops_checkpoint_load(fm_ops_training_t *training, fm_error_t *err)
{
    const char *name = training->run->checkpoint;
    fm_digest_t digest;
    fm_status_t rc;

    if (!name || !name[0]) {
        return FM_OK;
    }
    if (!fm_digest_parse(name, &digest)) {
        rc = fm_error_set(err, FM_ERR_INVALID, "%.80s is no digest", name);
    } else {
        rc = fm_ops_state_get(training, &digest, &training->work, err);
    }
    if (rc == FM_ERR_NOT_FOUND || rc == FM_ERR_CORRUPT) {
        return FM_OK;
    }
    if (rc < 0) {
        fm_error_wrap(err, "checkpoint");
    }
    return rc;
}
