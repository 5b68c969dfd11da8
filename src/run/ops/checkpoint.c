/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Training states in the store: weights and both moments as one tensor each,
 * and a manifest, {"format": "flowmesh-checkpoint/1", "work", "step",
 * "loss_first", "tokens", "weights", "first", "second"}.  The position in the
 * data follows from the step.  "work" is the digest of parameters and value,
 * so a state cannot continue other work.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "run/ops/internal.h"

#define FORMAT "flowmesh-checkpoint/1"
#define MANIFEST_BYTES_MAX 65536

static fm_status_t block_put(fm_ops_training_t *training, const char *name,
                             const float *host, size_t count,
                             fm_json_t *manifest, fm_digest_t *digest_out,
                             fm_error_t *err)
{
    uint64_t shape = count;
    char text[FM_DIGEST_TEXT_BYTES];
    fm_status_t rc = fm_cas_put_tensor(training->run->ops->cas, FM_CAS_F32,
                                       &shape, 1, host, digest_out, err);

    if (rc >= 0 &&
        fm_json_set(manifest, name,
                    fm_json_string(fm_digest_format(digest_out, text))) < 0) {
        rc = fm_no_memory(err);
    }
    return rc;
}

/* Weights and moments; digests_out[1 … 3]. */
static fm_status_t blocks_put(fm_ops_training_t *training, fm_json_t *manifest,
                              fm_digest_t *digests_out, fm_error_t *err)
{
    size_t count = fm_engine_model_size(training->model.model);
    float *host = fm_malloc(count * sizeof(*host));
    fm_status_t rc = FM_OK;

    if (!host) {
        return fm_no_memory(err);
    }
    if ((rc = fm_engine_model_read(training->model.model, 0, count, host,
                                   err)) >= 0 &&
        (rc = block_put(training, "weights", host, count, manifest,
                        &digests_out[1], err)) >= 0 &&
        (rc =
             fm_engine_trainer_read(training->trainer, 0, FM_ENGINE_PLANE_FIRST,
                                    0, count, host, err)) >= 0 &&
        (rc = block_put(training, "first", host, count, manifest,
                        &digests_out[2], err)) >= 0 &&
        (rc = fm_engine_trainer_read(training->trainer, 0,
                                     FM_ENGINE_PLANE_SECOND, 0, count, host,
                                     err)) >= 0) {
        rc = block_put(training, "second", host, count, manifest,
                       &digests_out[3], err);
    }
    free(host);
    return rc;
}

fm_status_t fm_ops_checkpoint_save(fm_ops_training_t *training, fm_error_t *err)
{
    fm_ops_run_t *run = training->run;
    int64_t step = (int64_t)fm_engine_trainer_step(training->trainer);
    fm_json_t *manifest = fm_json_object();
    fm_digest_t digests[4];
    char work[FM_DIGEST_TEXT_BYTES], *text = NULL;
    fm_status_t rc;

    if (!manifest ||
        fm_json_set(manifest, "format", fm_json_string(FORMAT)) < 0 ||
        fm_json_set(manifest, "work",
                    fm_json_string(fm_digest_format(&training->work, work))) <
            0 ||
        fm_json_set(manifest, "step", fm_json_int(step)) < 0 ||
        fm_json_set(manifest, "tokens",
                    fm_json_int((int64_t)training->tokens)) < 0 ||
        fm_json_set(manifest, "loss_first",
                    fm_json_real(training->loss_first)) < 0) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = blocks_put(training, manifest, digests, err)) < 0) {
        goto out;
    }
    if (!(text = fm_json_canonical(manifest))) {
        rc = fm_no_memory(err);
        goto out;
    }
    if ((rc = fm_cas_put(run->ops->cas, FM_CAS_CHECKPOINT, text, strlen(text),
                         &digests[0], err)) < 0 ||
        (rc = fm_cas_seal(run->ops->cas, err)) < 0) {
        goto out;
    }
    fm_ops_checkpoint_t report = {run->indices[training->item], step, digests,
                                  FM_COUNT_OF(digests)};
    rc = run->sink->checkpoint(run->sink->ctx, &report, err);
out:
    if (rc < 0) {
        fm_error_wrap(err, "checkpoint");
    }
    free(text);
    fm_json_drop(manifest);
    return rc;
}

static fm_status_t block_get(fm_ops_training_t *training,
                             const fm_json_t *manifest, const char *name,
                             float *host, size_t count, fm_error_t *err)
{
    fm_digest_t digest;
    size_t len = 0;
    fm_status_t rc = fm_ops_get_digest(manifest, name, &digest, err);

    if (rc >= 0) {
        rc = fm_cas_read(training->run->ops->cas, &digest, host,
                         count * sizeof(*host), &len, err);
    }
    if (rc >= 0 && len != count * sizeof(*host)) {
        rc = fm_error_set(err, FM_ERR_CORRUPT, "%s: %zu bytes", name, len);
    }
    return rc;
}

/* All three are read before anything is changed: half a state is none. */
static fm_status_t blocks_get(fm_ops_training_t *training,
                              const fm_json_t *manifest, fm_error_t *err)
{
    size_t count = fm_engine_model_size(training->model.model);
    float *host = fm_calloc(3 * count, sizeof(*host));
    fm_status_t rc;

    if (!host) {
        return fm_no_memory(err);
    }
    float *first = host + count, *second = first + count;
    if ((rc = block_get(training, manifest, "weights", host, count, err)) >=
            0 &&
        (rc = block_get(training, manifest, "first", first, count, err)) >= 0 &&
        (rc = block_get(training, manifest, "second", second, count, err)) >=
            0 &&
        (rc = fm_engine_model_write(training->model.model, 0, count, host,
                                    err)) >= 0 &&
        (rc = fm_engine_trainer_write(training->trainer, 0,
                                      FM_ENGINE_PLANE_FIRST, 0, count, first,
                                      err)) >= 0) {
        rc = fm_engine_trainer_write(training->trainer, 0,
                                     FM_ENGINE_PLANE_SECOND, 0, count, second,
                                     err);
    }
    free(host);
    return rc;
}

static fm_status_t manifest_check(const fm_ops_training_t *training,
                                  const fm_json_t *manifest, fm_error_t *err)
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
    if (!fm_digest_equal(&digest, &training->work)) {
        return fm_error_set(err, FM_ERR_INVALID, "it is of other work");
    }
    return FM_OK;
}

fm_status_t fm_ops_checkpoint_load(fm_ops_training_t *training, fm_error_t *err)
{
    fm_ops_run_t *run = training->run;
    fm_json_t *manifest = NULL;
    fm_buf_t bytes = {0};
    fm_digest_t digest;
    uint64_t size = 0;
    fm_status_t rc = FM_OK;

    if (!run->checkpoint || !run->checkpoint[0]) {
        return FM_OK;
    }
    if (!fm_digest_parse(run->checkpoint, &digest) ||
        (fm_cas_size(run->ops->cas, &digest, NULL, &size) &&
         size > MANIFEST_BYTES_MAX)) {
        rc = fm_error_set(err, FM_ERR_INVALID, "not a checkpoint");
        goto out;
    }
    if ((rc = fm_cas_get(run->ops->cas, &digest, &bytes, err)) < 0 ||
        (rc = fm_json_parse((const char *)bytes.data, bytes.len, "manifest",
                            &manifest, err)) < 0 ||
        (rc = manifest_check(training, manifest, err)) < 0 ||
        (rc = blocks_get(training, manifest, err)) < 0) {
        goto out;
    }
    fm_engine_trainer_set_step(training->trainer,
                               (uint64_t)fm_json_get_int(manifest, "step", 0));
    training->tokens = (uint64_t)fm_json_get_int(manifest, "tokens", 0);
    training->loss_first = fm_json_get_real(manifest, "loss_first", 0);
out:
    fm_json_drop(manifest);
    fm_buf_fini(&bytes);
    if (rc == FM_ERR_NOT_FOUND || rc == FM_ERR_CORRUPT) {
        return FM_OK;
    }
    if (rc < 0) {
        fm_error_wrap(err, "checkpoint");
    }
    return rc;
}
