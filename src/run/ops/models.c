/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Models and adapters in use stay resident; run/model knows how they are
 * stored and loaded.
 *
 * Invariants: what was handed out during a batch stays until the batch ends,
 * so a batch may use many adapters at once; of the rest the least recently used
 * go first when the bytes pass the bound, or when the next one finds no memory.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "run/ops/internal.h"

#define RESIDENT_MAX 1024 /* models and adapters, whatever their size */
#define RESIDENT_BYTES ((size_t)1 << 30)

/* Allocated one by one: an entry stays where it is while others go. */
typedef struct entry {
    fm_digest_t key;  /* of the manifest, or of the canonical source */
    fm_digest_t base; /* of an adapter: its model's manifest */
    fm_ops_model_t model;
    fm_model_adapter_t adapter; /* one of the two is empty */
    fm_engine_server_t *server; /* of the model, once it was asked for */
    size_t bytes;
    uint64_t used; /* tick of the last use */
} entry_t;

struct fm_ops_models {
    entry_t *entries[RESIDENT_MAX];
    size_t count;
    size_t bytes, bytes_max;
    uint64_t tick;
    uint64_t batch; /* what was used since this tick stays */
};

fm_status_t fm_ops_models_create(size_t resident_bytes,
                                 fm_ops_models_t **models_out, fm_error_t *err)
{
    fm_ops_models_t *models = fm_calloc(1, sizeof(*models));

    if (!models) {
        return fm_no_memory(err);
    }
    models->bytes_max = resident_bytes ? resident_bytes : RESIDENT_BYTES;
    *models_out = models;
    return FM_OK;
}

static void entry_free(entry_t *entry)
{
    fm_engine_server_destroy(entry->server);
    fm_ops_model_fini(&entry->model);
    fm_model_adapter_fini(&entry->adapter);
    free(entry);
}

void *fm_ops_models_destroy(fm_ops_models_t *models)
{
    if (models) {
        for (size_t i = 0; i < models->count; i++) {
            entry_free(models->entries[i]);
        }
        free(models);
    }
    return NULL;
}

fm_json_t *fm_ops_models_resident(const fm_ops_models_t *models)
{
    fm_json_t *list = fm_json_array();

    for (size_t i = 0; list && i < models->count; i++) {
        const entry_t *entry = models->entries[i];
        char text[FM_DIGEST_TEXT_BYTES];
        fm_json_t *row = fm_json_object();
        if (!row ||
            fm_json_set(row, entry->adapter.adapter ? "adapter" : "model",
                        fm_json_string(fm_digest_format(&entry->key, text))) <
                0 ||
            fm_json_set(row, "bytes", fm_json_int((int64_t)entry->bytes)) < 0) {
            fm_json_drop(row);
            return fm_json_drop(list);
        }
        if (fm_json_append(list, row) < 0) {
            return fm_json_drop(list);
        }
    }
    return list;
}

void fm_ops_model_fini(fm_ops_model_t *model)
{
    fm_model_fini(model);
}

/* --- room ----------------------------------------------------------------- */

void fm_ops_models_begin(fm_ops_models_t *models)
{
    models->batch = ++models->tick;
}

/* Drop the least recently used entry that this batch does not need; false
 * when there is none. */
static bool evict_one(fm_ops_models_t *models)
{
    size_t oldest = models->count;

    for (size_t i = 0; i < models->count; i++) {
        if (models->entries[i]->used < models->batch &&
            (oldest == models->count ||
             models->entries[i]->used < models->entries[oldest]->used)) {
            oldest = i;
        }
    }
    if (oldest == models->count) {
        return false;
    }
    models->bytes -= models->entries[oldest]->bytes;
    entry_free(models->entries[oldest]);
    models->entries[oldest] = models->entries[--models->count];
    return true;
}

static entry_t *entry_find(fm_ops_models_t *models, const fm_digest_t *key,
                           const fm_digest_t *base)
{
    for (size_t i = 0; i < models->count; i++) {
        entry_t *entry = models->entries[i];
        if (fm_digest_equal(&entry->key, key) &&
            fm_digest_equal(&entry->base, base)) {
            entry->used = ++models->tick;
            return entry;
        }
    }
    return NULL;
}

/* Take @p entry, which is emptied only on success. */
static fm_status_t entry_add(fm_ops_models_t *models, const entry_t *entry,
                             entry_t **added_out, fm_error_t *err)
{
    bool room = true;

    while (room && models->count > 0 &&
           (models->count == RESIDENT_MAX ||
            models->bytes + entry->bytes > models->bytes_max)) {
        room = evict_one(models);
    }
    if (models->count == RESIDENT_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "more than %d models and adapters in one batch",
                            RESIDENT_MAX);
    }
    entry_t *added = fm_malloc(sizeof(*added));
    if (!added) {
        return fm_no_memory(err);
    }
    *added = *entry;
    added->used = ++models->tick;
    models->entries[models->count++] = added;
    models->bytes += added->bytes;
    *added_out = added;
    return FM_OK;
}

static bool out_of_memory(fm_status_t rc)
{
    return rc == FM_ERR_LIMIT || rc == FM_ERR_NO_MEMORY;
}

/* --- models --------------------------------------------------------------- */

static fm_status_t random_make(fm_ops_t *ops, const fm_json_t *source,
                               fm_ops_model_t *model, fm_error_t *err)
{
    int64_t seed;
    fm_status_t rc =
        fm_ops_get_int(source, "seed", 0, INT64_MAX, 0, &seed, err);

    if (rc < 0 || (rc = fm_model_make(ops->cas, fm_json_get(source, "config"),
                                      NULL, ops->backend, model, err)) < 0) {
        return rc;
    }
    return fm_engine_model_init(model->model, (uint64_t)seed, err);
}

static fm_status_t source_make(fm_ops_t *ops, const fm_json_t *source,
                               fm_ops_model_t *model, fm_error_t *err)
{
    fm_digest_t digest;
    fm_status_t rc = FM_OK;

    if (!fm_json_get(source, "digest")) {
        return random_make(ops, source, model, err);
    }
    rc = fm_ops_get_digest(source, "digest", &digest, err);
    return rc < 0 ? rc
                  : fm_model_load(ops->cas, &digest, ops->backend, model, err);
}

fm_status_t fm_ops_model_build(fm_ops_t *ops, const fm_json_t *source,
                               fm_ops_model_t *model_out, fm_error_t *err)
{
    fm_ops_model_t model = {0};
    fm_status_t rc = source_make(ops, source, &model, err);

    while (out_of_memory(rc) && evict_one(ops->models)) {
        fm_ops_model_fini(&model);
        rc = source_make(ops, source, &model, err);
    }
    if (rc < 0) {
        fm_error_wrap(err, "model");
        fm_ops_model_fini(&model);
        return rc;
    }
    *model_out = model;
    return FM_OK;
}

/* Say what was loaded since @p start_ns and how long it took: the scheduler
 * learns loads and runs apart. */
static fm_status_t loaded(const fm_ops_t *ops, int64_t start_ns, size_t bytes,
                          fm_error_t *err)
{
    double seconds = (double)(fm_clock_mono_ns() - start_ns) / 1e9;
    fm_json_t *metrics = NULL;
    fm_status_t rc = FM_OK;

    if (!ops->sink || !ops->sink->progress) {
        return FM_OK;
    }
    metrics = fm_json_object();
    if (fm_json_set(metrics, "load_seconds", fm_json_real(seconds)) < 0 ||
        fm_json_set(metrics, "load_bytes", fm_json_int((int64_t)bytes)) < 0) {
        rc = fm_no_memory(err);
    } else {
        rc = ops->sink->progress(ops->sink->ctx, 0, metrics, err);
    }
    fm_json_drop(metrics);
    return rc;
}

/* A stored model goes by its digest, a random one by its source's. */
static fm_status_t source_key(const fm_json_t *source, fm_digest_t *key_out,
                              fm_error_t *err)
{
    if (fm_json_get(source, "digest")) {
        return fm_ops_get_digest(source, "digest", key_out, err);
    }
    char *text = source ? fm_json_canonical(source) : NULL;
    if (!text) {
        return source ? fm_no_memory(err)
                      : fm_error_set(err, FM_ERR_INVALID, "is needed");
    }
    *key_out = fm_sha256(text, strlen(text));
    free(text);
    return FM_OK;
}

fm_status_t fm_ops_model_load(fm_ops_t *ops, const fm_json_t *source,
                              const fm_ops_model_t **model_out, fm_error_t *err)
{
    static const fm_digest_t none;
    entry_t fresh = {0};
    fm_status_t rc = source_key(source, &fresh.key, err);
    entry_t *entry = NULL;

    if (rc < 0) {
        fm_error_wrap(err, "model");
        return rc;
    }
    if (!(entry = entry_find(ops->models, &fresh.key, &none))) {
        int64_t start_ns = fm_clock_mono_ns();
        if ((rc = fm_ops_model_build(ops, source, &fresh.model, err)) < 0) {
            return rc;
        }
        /* one that is made up is not loaded */
        if (fm_json_get(source, "digest") &&
            (rc = loaded(ops, start_ns, fresh.model.bytes, err)) < 0) {
            fm_ops_model_fini(&fresh.model);
            return rc;
        }
        fresh.bytes = fresh.model.bytes;
        if ((rc = entry_add(ops->models, &fresh, &entry, err)) < 0) {
            fm_ops_model_fini(&fresh.model);
            return rc;
        }
    }
    *model_out = &entry->model;
    return FM_OK;
}

void fm_ops_model_adopt(fm_ops_t *ops, const fm_digest_t *digest,
                        fm_ops_model_t *model)
{
    static const fm_digest_t none;
    entry_t *entry = NULL;

    model->digest = *digest;
    const entry_t fresh = {
        .key = *digest, .model = *model, .bytes = model->bytes};
    if (entry_find(ops->models, digest, &none) ||
        entry_add(ops->models, &fresh, &entry, NULL) < 0) {
        fm_ops_model_fini(model);
        return;
    }
    *model = (fm_ops_model_t){0};
}

/* Room for keys and values: a part of what may be resident, little for a
 * little model, but enough for one text of full length if that may be. */
static size_t cache_bytes(const fm_ops_models_t *models, const entry_t *entry)
{
    const fm_engine_config_t *c = fm_engine_model_config(entry->model.model);
    size_t longest = 2 * c->num_hidden_layers * c->num_key_value_heads *
                     c->head_dim * sizeof(float) * c->max_position_embeddings;
    size_t part = models->bytes_max / 4;
    size_t scaled = 16 * entry->model.bytes;
    size_t least = longest < models->bytes_max ? longest : models->bytes_max;

    part = scaled < part ? scaled : part;
    return least > part ? least : part;
}

static fm_status_t server_make(fm_ops_models_t *models, entry_t *entry,
                               fm_error_t *err)
{
    const fm_engine_server_options_t options = {.kv_bytes =
                                                    cache_bytes(models, entry)};
    fm_status_t rc = FM_OK;

    do {
        rc = fm_engine_server_create(entry->model.model, &options,
                                     &entry->server, err);
    } while (out_of_memory(rc) && evict_one(models));
    if (rc < 0) {
        return rc;
    }
    entry->bytes += fm_engine_server_bytes(entry->server);
    models->bytes += fm_engine_server_bytes(entry->server);
    while (models->bytes > models->bytes_max && evict_one(models)) {
    }
    return FM_OK;
}

fm_status_t fm_ops_server_get(fm_ops_t *ops, const fm_ops_model_t *model,
                              fm_engine_server_t **server_out, fm_error_t *err)
{
    fm_ops_models_t *models = ops->models;
    entry_t *entry = NULL;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < models->count && !entry; i++) {
        entry = &models->entries[i]->model == model ? models->entries[i] : NULL;
    }
    if (!entry) {
        return fm_error_set(err, FM_ERR_INTERNAL, "the model is not resident");
    }
    if (!entry->server && (rc = server_make(models, entry, err)) < 0) {
        return rc;
    }
    *server_out = entry->server;
    return FM_OK;
}

/* --- adapters ------------------------------------------------------------- */

fm_status_t fm_ops_adapter_load(fm_ops_t *ops, const fm_digest_t *digest,
                                const fm_ops_model_t *base,
                                const fm_model_adapter_t **adapter_out,
                                fm_error_t *err)
{
    entry_t fresh = {.key = *digest, .base = base->digest};
    entry_t *entry = entry_find(ops->models, digest, &base->digest);
    fm_status_t rc = FM_OK;

    if (!entry) {
        int64_t start_ns = fm_clock_mono_ns();
        do {
            rc = fm_model_adapter_load(ops->cas, digest, base, &fresh.adapter,
                                       err);
        } while (out_of_memory(rc) && evict_one(ops->models));
        fresh.bytes = fresh.adapter.bytes;
        if (rc >= 0 && (rc = loaded(ops, start_ns, fresh.bytes, err)) < 0) {
            fm_model_adapter_fini(&fresh.adapter);
        }
        if (rc >= 0 && (rc = entry_add(ops->models, &fresh, &entry, err)) < 0) {
            fm_model_adapter_fini(&fresh.adapter);
        }
    }
    if (rc < 0) {
        fm_error_wrap(err, "adapter");
        return rc;
    }
    *adapter_out = &entry->adapter;
    return FM_OK;
}

/* --- storing -------------------------------------------------------------- */

static fm_status_t object_add(void *ctx, const fm_digest_t *digest,
                              fm_error_t *err)
{
    return fm_ops_output_object(ctx, digest, err);
}

fm_status_t fm_ops_model_store(fm_ops_t *ops, const fm_ops_model_t *model,
                               fm_ops_output_t *output,
                               fm_digest_t *manifest_out, fm_error_t *err)
{
    return fm_model_store(ops->cas, model, object_add, output, manifest_out,
                          err);
}

fm_status_t fm_ops_adapter_store(fm_ops_t *ops,
                                 const fm_model_adapter_t *adapter,
                                 const fm_digest_t *base,
                                 fm_ops_output_t *output,
                                 fm_digest_t *manifest_out, fm_error_t *err)
{
    return fm_model_adapter_store(ops->cas, adapter, base, object_add, output,
                                  manifest_out, err);
}
