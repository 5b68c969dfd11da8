/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening a fabric directory.  Inline outputs live in the journal until a
 * segment is sealed; replay puts those that no segment holds back into the
 * store's pending set (a writer) or a map (a reader).
 */
#include "role/control/fabric.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/map.h"
#include "base/mem.h"

/* What an output needs to be worth remembering. */
struct promise {
    fm_digest_t key;
    fm_digest_t output;
    fm_digest_t *objects; /* [object_count] */
    uint32_t object_count;
};

struct replay {
    fm_fabric_t *fabric;
    bool read_only;
    struct promise *promises;
    size_t count;
    size_t capacity;
};

static void replay_fini(struct replay *replay)
{
    for (size_t i = 0; i < replay->count; i++) {
        free(replay->promises[i].objects);
    }
    free(replay->promises);
}

static fm_status_t inline_keep(fm_fabric_t *fabric,
                               const fm_record_entry_t *entry, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (fm_map_get(fabric->inline_index, &entry->output)) {
        return FM_OK;
    }
    if ((rc = fm_grow(&fabric->inlines, &fabric->inline_capacity,
                      fabric->inline_count, sizeof(*fabric->inlines), err)) <
            0 ||
        (rc = fm_map_put(fabric->inline_index, &entry->output,
                         fabric->inline_count, err)) < 0) {
        return rc;
    }
    fm_buf_t *buf = &fabric->inlines[fabric->inline_count++];
    memset(buf, 0, sizeof(*buf));
    fm_buf_add(buf, entry->bytes.text, entry->bytes.len);
    return buf->failed ? fm_no_memory(err) : FM_OK;
}

/* Make the bytes of an inline output readable again. */
static fm_status_t inline_restore(struct replay *replay,
                                  const fm_record_entry_t *entry,
                                  fm_error_t *err)
{
    fm_fabric_t *fabric = replay->fabric;
    fm_digest_t digest;

    if (entry->bytes.len == 0 ||
        (fabric->cas && fm_cas_has(fabric->cas, &entry->output))) {
        return FM_OK;
    }
    if (replay->read_only) {
        return inline_keep(fabric, entry, err);
    }
    return fm_cas_put(fabric->cas, (fm_cas_kind_t)entry->kind,
                      entry->bytes.text, entry->bytes.len, &digest, err);
}

static fm_status_t promise_note(struct replay *replay,
                                const fm_record_entry_t *entry, fm_error_t *err)
{
    struct promise promise = {.key = entry->key,
                              .output = entry->output,
                              .object_count = entry->object_count};
    fm_status_t rc = fm_grow(&replay->promises, &replay->capacity,
                             replay->count, sizeof(*replay->promises), err);

    if (rc < 0) {
        return rc;
    }
    if (promise.object_count > 0) {
        promise.objects =
            fm_calloc(promise.object_count, sizeof(*promise.objects));
        if (!promise.objects) {
            return fm_no_memory(err);
        }
        memcpy(promise.objects, entry->objects.text, entry->objects.len);
    }
    replay->promises[replay->count++] = promise;
    return FM_OK;
}

static fm_status_t replay_outputs(struct replay *replay,
                                  const fm_journal_record_t *record,
                                  fm_error_t *err)
{
    fm_record_result_t result;
    fm_record_entry_t entry;
    fm_status_t rc =
        fm_record_result_decode(record->bytes, record->len, &result, err);

    while (rc >= 0 && fm_record_entry_next(&result.entries, &entry)) {
        if (entry.outcome != FM_OUTCOME_OK) {
            continue;
        }
        if ((rc = inline_restore(replay, &entry, err)) >= 0 &&
            !replay->read_only) {
            rc = promise_note(replay, &entry, err);
        }
    }
    return rc;
}

static fm_status_t on_record(void *ctx, const fm_journal_record_t *record,
                             fm_error_t *err)
{
    struct replay *replay = ctx;
    fm_pool_notice_t notice;
    fm_status_t rc = fm_state_apply(replay->fabric->state, record->type,
                                    record->bytes, record->len, true, 0, err);

    /* consequences are found again by looking at the nodes (control.c) */
    while (fm_pool_next_notice(fm_state_pool(replay->fabric->state), &notice)) {
    }
    if (rc >= 0 && record->type == FM_RECORD_RESULT) {
        rc = replay_outputs(replay, record, err);
    }
    return rc;
}

static bool promise_holds(const fm_cas_t *cas, const struct promise *promise)
{
    bool holds = fm_cas_has(cas, &promise->output);

    for (uint32_t i = 0; holds && i < promise->object_count; i++) {
        holds = fm_cas_has(cas, &promise->objects[i]);
    }
    return holds;
}

/* An output that the store no longer has is no result: forget its key. */
static fm_status_t forget_lost(struct replay *replay, fm_error_t *err)
{
    fm_fabric_t *fabric = replay->fabric;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < replay->count; i++) {
        const struct promise *promise = &replay->promises[i];
        fm_digest_t known;
        if (!fm_pool_memo_get(fm_state_pool(fabric->state), &promise->key,
                              &known, NULL) ||
            !fm_digest_equal(&known, &promise->output) ||
            promise_holds(fabric->cas, promise)) {
            continue;
        }
        fabric->lost_count++;
        rc = fm_journal_append(fabric->journal, FM_RECORD_FORGET,
                               promise->key.bytes, sizeof(promise->key.bytes),
                               NULL, err);
        if (rc >= 0) {
            rc = fm_state_apply(fabric->state, FM_RECORD_FORGET,
                                promise->key.bytes, sizeof(promise->key.bytes),
                                false, 0, err);
        }
    }
    return rc >= 0 ? fm_journal_flush(fabric->journal, err) : rc;
}

static fm_status_t open_cas(fm_fabric_t *fabric, const char *path,
                            bool read_only, fm_error_t *err)
{
    char writer[FM_CAS_WRITER_BYTES_MAX + 1];
    fm_cas_options_t opts = {.fabric = fabric->dir};

    if (!read_only) {
        /* the journal's lock makes this process the only control plane */
        (void)snprintf(writer, sizeof(writer), "control");
        opts.writer = writer;
    }
    fm_status_t rc = fm_cas_open(path, &opts, &fabric->cas, err);
    if (read_only && rc == FM_ERR_NOT_FOUND) {
        return FM_OK;
    }
    return rc;
}

static fm_status_t open_parts(fm_fabric_t *fabric,
                              const fm_fabric_options_t *opts,
                              struct replay *replay, fm_error_t *err)
{
    fm_journal_options_t journal = {.read_only = opts->read_only};
    char *journal_dir = fm_asprintf("%s/journal", fabric->dir);
    char *cas_dir = fm_asprintf("%s/cas", fabric->dir);
    char *log_dir = fm_asprintf("%s/logs", fabric->dir);
    fm_status_t rc = FM_OK;

    if (!journal_dir || !cas_dir || !log_dir ||
        !(fabric->inline_index = fm_map_create())) {
        rc = fm_no_memory(err);
        goto out;
    }
    if (!opts->read_only && (rc = fm_file_make_dirs(log_dir, 0755, err)) < 0) {
        goto out;
    }
    if ((rc = fm_state_create(opts->numerics ? opts->numerics : "cpu-f32",
                              &fabric->state, err)) < 0 ||
        (rc = open_cas(fabric, cas_dir, opts->read_only, err)) < 0) {
        goto out;
    }
    rc = fm_journal_open(opts->is_volatile ? NULL : journal_dir, &journal,
                         on_record, replay, &fabric->journal, err);
    if (rc >= 0) {
        fabric->torn_bytes = fm_journal_info(fabric->journal).torn_bytes;
    }
    if (rc >= 0 && !opts->read_only) {
        rc = forget_lost(replay, err);
    }
out:
    free(journal_dir);
    free(cas_dir);
    free(log_dir);
    return rc;
}

fm_status_t fm_fabric_open(const char *dir, const fm_fabric_options_t *opts,
                           fm_fabric_t **fabric_out, fm_error_t *err)
{
    fm_fabric_t *fabric = fm_calloc(1, sizeof(*fabric));
    struct replay replay = {.fabric = fabric, .read_only = opts->read_only};
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!fabric || !(fabric->dir = fm_strdup(dir))) {
        (void)fm_no_memory(err);
        goto out;
    }
    if ((rc = open_parts(fabric, opts, &replay, err)) < 0) {
        fm_error_wrap(err, "open fabric %s", dir);
        goto out;
    }
    *fabric_out = fabric;
    fabric = NULL;
out:
    replay_fini(&replay);
    fm_fabric_close(fabric);
    return rc;
}

void *fm_fabric_close(fm_fabric_t *fabric)
{
    if (!fabric) {
        return NULL;
    }
    fm_journal_close(fabric->journal);
    fm_cas_close(fabric->cas);
    fm_state_destroy(fabric->state);
    fm_map_destroy(fabric->inline_index);
    for (size_t i = 0; i < fabric->inline_count; i++) {
        fm_buf_fini(&fabric->inlines[i]);
    }
    free(fabric->inlines);
    free(fabric->dir);
    free(fabric);
    return NULL;
}

fm_status_t fm_fabric_read(fm_fabric_t *fabric, const fm_digest_t *digest,
                           fm_buf_t *out, fm_error_t *err)
{
    const uint64_t *index = fm_map_get(fabric->inline_index, digest);

    if (index) {
        const fm_buf_t *buf = &fabric->inlines[*index];
        fm_buf_add(out, buf->data, buf->len);
        return out->failed ? fm_no_memory(err) : FM_OK;
    }
    if (!fabric->cas) {
        return fm_error_set(err, FM_ERR_NOT_FOUND, "%s: the store is empty",
                            fabric->dir);
    }
    return fm_cas_get(fabric->cas, digest, out, err);
}

fm_json_t *fm_vector_records(const fm_vector_t *vector)
{
    fm_json_t *hints = NULL;
    fm_json_t *records = NULL;

    if (fm_json_parse(vector->hints, strlen(vector->hints), "hints", &hints,
                      NULL) >= 0) {
        records = fm_json_keep(fm_json_get(hints, "records"));
    }
    fm_json_drop(hints);
    return records;
}

static fm_status_t read_output(fm_fabric_t *fabric, const fm_run_t *run,
                               uint32_t node, uint32_t item,
                               fm_json_t **value_out, fm_error_t *err)
{
    fm_pool_item_t info;
    fm_buf_t buf = {0};
    fm_status_t rc = fm_pool_item_get(fm_state_pool(fabric->state), run->index,
                                      node, item, &info);

    if (rc < 0 || !info.has_output) {
        return fm_error_set(err, FM_ERR_NOT_FOUND,
                            "%s/%s: item %u has no output", run->id,
                            fm_workflow_node(run->workflow, node)->name, item);
    }
    if ((rc = fm_fabric_read(fabric, &info.output, &buf, err)) >= 0) {
        rc = fm_json_parse((const char *)buf.data, buf.len, "output", value_out,
                           err);
    }
    fm_buf_fini(&buf);
    return rc;
}

fm_status_t fm_fabric_result(fm_fabric_t *fabric, const fm_run_t *run,
                             uint32_t node, fm_json_t **result_out,
                             fm_error_t *err)
{
    const fm_vector_t *vector = run->vectors[node];
    fm_json_t **outputs = NULL;
    fm_json_t *records = NULL;
    fm_pool_node_t info;
    fm_status_t rc =
        fm_pool_node_get(fm_state_pool(fabric->state), run->index, node, &info);

    if (rc >= 0 && info.state == FM_POOL_SKIPPED) {
        *result_out = fm_workflow_result_skipped();
        return *result_out ? FM_OK : fm_no_memory(err);
    }
    if (rc < 0 || info.state != FM_POOL_DONE || !vector) {
        return fm_error_set(err, FM_ERR_NOT_FOUND, "%s/%s is not done: %s",
                            run->id,
                            fm_workflow_node(run->workflow, node)->name,
                            fm_pool_state_name(info.state));
    }
    outputs = fm_calloc(vector->count, sizeof(fm_json_t *));
    records = fm_vector_records(vector);
    if (!outputs) {
        rc = fm_no_memory(err);
    }
    for (uint32_t i = 0; rc >= 0 && i < vector->count; i++) {
        rc = read_output(fabric, run, node, i, &outputs[i], err);
    }
    if (rc >= 0) {
        rc = fm_workflow_result(run->workflow, node, records,
                                (const fm_json_t *const *)outputs,
                                vector->count, result_out, err);
    }
    for (uint32_t i = 0; outputs && i < vector->count; i++) {
        fm_json_drop(outputs[i]);
    }
    free(outputs);
    fm_json_drop(records);
    return rc;
}
