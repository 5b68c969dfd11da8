/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training states in the store: what changes as one tensor a block, the table
 * so far, and a manifest, {"format": "flowmesh-checkpoint/2", "work", "step",
 * "tokens", "table", "blocks": {name: digest}}.  What does not change (the
 * base of an adapter) is not in it.  The position in the data follows from
 * the step.  "work" is the digest of what the state is of, so a state cannot
 * continue other work.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/train/training.h"

#define FORMAT "flowmesh-checkpoint/2"
#define MANIFEST_BYTES_MAX 65536

/* The planes of a trained block that are state. */
static const struct {
    fm_engine_plane_t plane;
    const char *name;
} planes[] = {{FM_ENGINE_PLANE_PARAMS, "params"},
              {FM_ENGINE_PLANE_FIRST, "first"},
              {FM_ENGINE_PLANE_SECOND, "second"}};
#define PLANE_COUNT FM_COUNT_OF(planes)

/* "adapter.first"; @p name has NAME_BYTES. */
#define NAME_BYTES 64
static const char *plane_name(const fm_engine_block_t *block, size_t plane,
                              char *name)
{
    (void)snprintf(name, NAME_BYTES, "%s.%s", block->name, planes[plane].name);
    return name;
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

static fm_status_t block_put(fm_ops_training_t *training, size_t index,
                             size_t plane, fm_json_t *named,
                             fm_ops_output_t *output, fm_error_t *err)
{
    size_t count = 0;
    const fm_engine_block_t *block =
        &fm_engine_trainer_blocks(training->trainer, &count)[index];
    uint64_t shape = block->size;
    float *host = fm_malloc(block->size * sizeof(*host));
    char name[NAME_BYTES];
    fm_digest_t digest;
    fm_status_t rc = host ? fm_engine_trainer_read(training->trainer, index,
                                                   planes[plane].plane, 0,
                                                   block->size, host, err)
                          : fm_no_memory(err);

    if (rc >= 0) {
        rc = fm_cas_put_tensor(training->run->ops->cas, FM_CAS_F32, &shape, 1,
                               host, &digest, err);
    }
    free(host);
    return rc < 0 ? rc
                  : digest_add(named, plane_name(block, plane, name), &digest,
                               output, err);
}

static fm_status_t parts_put(fm_ops_training_t *training, fm_json_t *manifest,
                             fm_ops_output_t *output, fm_error_t *err)
{
    const fm_buf_t *text = &training->table.text;
    fm_json_t *named = fm_json_object();
    size_t count = 0;
    fm_digest_t digest;
    fm_status_t rc = FM_OK;

    (void)fm_engine_trainer_blocks(training->trainer, &count);
    if (!named || fm_json_set(manifest, "blocks", fm_json_keep(named)) < 0) {
        rc = fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && i < count * PLANE_COUNT; i++) {
        rc = block_put(training, i / PLANE_COUNT, i % PLANE_COUNT, named,
                       output, err);
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
                             const fm_json_t *named,
                             const fm_engine_block_t *block, size_t plane,
                             float *host, fm_error_t *err)
{
    char name[NAME_BYTES];
    fm_digest_t digest;
    size_t len = 0, want = block->size * sizeof(*host);
    fm_status_t rc =
        fm_ops_get_digest(named, plane_name(block, plane, name), &digest, err);

    if (rc >= 0) {
        rc = fm_cas_read(training->run->ops->cas, &digest, host, want, &len,
                         err);
    }
    if (rc >= 0 && len != want) {
        rc = fm_error_set(err, FM_ERR_INVALID, "%s: %zu bytes, %zu needed",
                          name, len, want);
    }
    return rc;
}

/* All are read before anything is changed: half a state is none. */
static fm_status_t blocks_get(fm_ops_training_t *training,
                              const fm_json_t *manifest, fm_error_t *err)
{
    const fm_json_t *named = fm_json_get(manifest, "blocks");
    size_t count = 0, total = 0, at = 0;
    const fm_engine_block_t *blocks =
        fm_engine_trainer_blocks(training->trainer, &count);
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < count; i++) {
        total += blocks[i].size;
    }
    float *host = fm_calloc(PLANE_COUNT * total, sizeof(*host));
    if (!host) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; rc >= 0 && i < count * PLANE_COUNT; i++) {
        const fm_engine_block_t *block = &blocks[i / PLANE_COUNT];
        rc = block_get(training, named, block, i % PLANE_COUNT, host + at, err);
        at += block->size;
    }
    at = 0;
    for (size_t i = 0; rc >= 0 && i < count * PLANE_COUNT; i++) {
        size_t size = blocks[i / PLANE_COUNT].size;
        rc = fm_engine_trainer_write(training->trainer, i / PLANE_COUNT,
                                     planes[i % PLANE_COUNT].plane, 0, size,
                                     host + at, err);
        at += size;
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
