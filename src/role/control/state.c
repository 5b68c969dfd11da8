/* SPDX-License-Identifier: Apache-2.0 */
/* Life of the state, and what is asked of it; apply.c changes it. */
#include "role/control/state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "role/control/folded.h"
#include "role/control/work.h"

/* --- life ----------------------------------------------------------------- */

static void vector_destroy(fm_vector_t *vector)
{
    if (vector) {
        free(vector->params);
        free(vector->hints);
        free(vector->offsets);
        fm_buf_fini(&vector->texts);
        free(vector);
    }
}

void fm_state_run_destroy(fm_run_t *run)
{
    if (!run) {
        return;
    }
    for (size_t i = 0; i < run->node_count; i++) {
        if (run->vectors) {
            vector_destroy(run->vectors[i]);
        }
        if (run->errors) {
            free(run->errors[i]);
        }
    }
    free(run->vectors);
    free(run->errors);
    fm_workflow_destroy(run->workflow);
    fm_json_drop(run->files);
    free(run->file);
    free(run->text);
    free(run->policy);
    free(run);
}

/* Faults of the platform that fail an item.  Nothing pauses between two of
 * them, so a full disk must not be met a thousand times before anybody hears
 * of it; the loss of this many executors or workers under one item is beyond
 * what killing and preemption do.  Drained leases are not counted. */
#define INFRA_FAULTS_MAX 20u

fm_status_t fm_state_create(const char *numerics, fm_state_t **state_out,
                            fm_error_t *err)
{
    fm_pool_options_t pool = {.max_infra = INFRA_FAULTS_MAX};
    fm_state_t *state = fm_calloc(1, sizeof(*state));
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!state || !(state->numerics = fm_strdup(numerics)) ||
        !(state->pool = fm_pool_create(&pool)) ||
        !(state->cost = fm_cost_create()) ||
        !(state->lease_index = fm_map_create()) ||
        !(state->batch_index = fm_map_create()) ||
        !(state->checkpoint_index = fm_map_create())) {
        (void)fm_no_memory(err);
        goto out;
    }
    if ((rc = fm_work_seed_cost(state->cost, numerics, &state->device_class,
                                err)) < 0) {
        goto out;
    }
    *state_out = state;
    state = NULL;
out:
    fm_state_destroy(state);
    return rc;
}

void *fm_state_destroy(fm_state_t *state)
{
    if (!state) {
        return NULL;
    }
    for (size_t i = 0; i < state->run_count; i++) {
        fm_state_run_destroy(state->runs[i]);
    }
    for (size_t i = 0; i < state->lease_count; i++) {
        free(state->leases[i].worker);
        free(state->leases[i].device);
        free(state->leases[i].placement);
        free(state->leases[i].decision);
    }
    for (size_t i = 0; i < state->wait_count; i++) {
        free(state->waits[i].bytes);
    }
    free(state->waits);
    free(state->runs);
    free(state->leases);
    free(state->batches);
    free(state->changed);
    free(state->checkpoints);
    fm_map_destroy(state->lease_index);
    fm_map_destroy(state->batch_index);
    fm_map_destroy(state->checkpoint_index);
    fm_pool_destroy(state->pool);
    fm_cost_destroy(state->cost);
    free(state->numerics);
    free(state);
    return NULL;
}

/* --- queries -------------------------------------------------------------- */

fm_pool_t *fm_state_pool(const fm_state_t *state)
{
    return state->pool;
}

fm_cost_t *fm_state_cost(const fm_state_t *state)
{
    return state->cost;
}

uint32_t fm_state_run_count(const fm_state_t *state)
{
    return (uint32_t)state->run_count;
}

fm_run_t *fm_state_run(const fm_state_t *state, uint32_t index)
{
    return index < state->run_count ? state->runs[index] : NULL;
}

fm_run_t *fm_state_find(const fm_state_t *state, const char *name)
{
    for (size_t i = 0; i < state->run_count; i++) {
        if (strcmp(state->runs[i]->id, name) == 0) {
            return state->runs[i];
        }
    }
    for (size_t i = state->run_count; i > 0; i--) {
        if (strcmp(fm_workflow_name(state->runs[i - 1]->workflow), name) == 0) {
            return state->runs[i - 1];
        }
    }
    return NULL;
}

/* The digest maps serve lease numbers too: the number, zero-padded. */
fm_digest_t fm_state_lease_key(uint64_t lease)
{
    fm_digest_t digest = {{0}};

    memcpy(digest.bytes, &lease, sizeof(lease));
    return digest;
}

const fm_lease_record_t *fm_state_lease(const fm_state_t *state, uint64_t lease)
{
    fm_digest_t key = fm_state_lease_key(lease);
    const uint64_t *index = fm_map_get(state->lease_index, &key);

    return index ? &state->leases[*index] : NULL;
}

size_t fm_state_lease_count(const fm_state_t *state)
{
    return state->lease_count;
}

const fm_lease_record_t *fm_state_lease_at(const fm_state_t *state,
                                           size_t position)
{
    return &state->leases[position];
}

const fm_wait_record_t *fm_state_wait_next(const fm_state_t *state,
                                           const fm_digest_t *batch_key,
                                           size_t *cursor)
{
    const uint64_t *index = fm_map_get(state->batch_index, batch_key);

    while (index && *cursor < state->wait_count) {
        const fm_wait_record_t *wait = &state->waits[(*cursor)++];
        if (wait->batch == *index) {
            return wait;
        }
    }
    return NULL;
}

size_t fm_state_batch_count(const fm_state_t *state)
{
    return state->batch_count;
}

const fm_batch_info_t *fm_state_batch(const fm_state_t *state,
                                      const fm_digest_t *batch_key)
{
    const uint64_t *index = fm_map_get(state->batch_index, batch_key);

    return index ? &state->batches[*index].info : NULL;
}

bool fm_state_next_batch(fm_state_t *state, fm_digest_t *key_out,
                         const fm_batch_info_t **info_out)
{
    if (state->changed_count == 0) {
        return false;
    }
    struct batch *batch =
        &state->batches[state->changed[--state->changed_count]];
    batch->changed = false;
    *key_out = batch->key;
    *info_out = &batch->info;
    return true;
}

bool fm_state_checkpoint(const fm_state_t *state, const fm_digest_t *key,
                         fm_digest_t *manifest_out)
{
    const uint64_t *index = fm_map_get(state->checkpoint_index, key);

    if (index) {
        *manifest_out = state->checkpoints[*index];
    }
    return index != NULL;
}

const char *fm_vector_item(const fm_vector_t *vector, uint32_t item)
{
    return (const char *)vector->texts.data + vector->offsets[item];
}

fm_digest_t fm_run_digest(const char *text, size_t len, const fm_json_t *files)
{
    char *table = fm_json_canonical(files);
    fm_digest_t parts[2] = {
        fm_sha256(text, len),
        fm_sha256(table ? table : "", table ? strlen(table) : 0)};

    free(table);
    return fm_sha256(parts, sizeof(parts));
}

void fm_state_note_error(fm_state_t *state, uint32_t index, uint32_t node,
                         const char *text, size_t len)
{
    fm_run_t *run = fm_state_run(state, index);

    if (run && node < run->node_count && !run->errors[node]) {
        run->errors[node] = fm_strndup(text, len);
    }
}
