/* SPDX-License-Identifier: Apache-2.0 */
/* The world of the operator tests (ops_fixture.h). */
#include "ops_fixture.h"

#include "scratch.h"

void world_open(world_t *world, const char *writer)
{
    fm_error_t err = {0};

    if (!world->dir) {
        world->dir = scratch_make();
    }
    char *store = fm_asprintf("%s/cas", world->dir);
    const fm_cas_options_t cas = {.writer = writer};
    FM_ASSERT_OK(fm_cas_open(store, &cas, &world->cas, &err), &err);
    free(store);
    const fm_ops_options_t ops = {
        .cas = world->cas, .work_root = world->dir, .resident_bytes = 100000};
    FM_ASSERT_OK(fm_ops_create(&ops, &world->ops, &err), &err);
}

void world_close(world_t *world, bool remove)
{
    world->ops = fm_ops_destroy(world->ops);
    world->cas = fm_cas_close(world->cas);
    if (remove) {
        scratch_remove(world->dir);
        world->dir = NULL;
    }
}

fm_status_t seen_item(void *ctx, const fm_ops_item_t *item, fm_error_t *err)
{
    seen_t *seen = ctx;

    (void)err;
    seen->items++;
    seen->objects += item->object_count;
    if (item->status < 0) {
        seen->errors++;
        seen->infra = item->infra;
        (void)snprintf(seen->error, sizeof(seen->error), "%s", item->error);
    } else if (item->output && item->index < FM_COUNT_OF(seen->outputs)) {
        CU_ASSERT_PTR_NULL(seen->outputs[item->index]);
        seen->outputs[item->index] = fm_strdup(item->output);
    } else {
        seen->stored = item->digest;
    }
    return FM_OK;
}

fm_status_t seen_checkpoint(void *ctx, const fm_ops_checkpoint_t *checkpoint,
                            fm_error_t *err)
{
    seen_t *seen = ctx;

    (void)err;
    CU_ASSERT(checkpoint->object_count >= 4);
    seen->checkpoint = checkpoint->objects[0];
    seen->checkpoints++;
    return FM_OK;
}

fm_status_t seen_progress(void *ctx, double fraction, const fm_json_t *metrics,
                          fm_error_t *err)
{
    seen_t *seen = ctx;

    (void)err;
    if (fm_json_get(metrics, "load_seconds")) { /* before any item */
        CU_ASSERT(fraction <= 0);
        CU_ASSERT(fm_json_get_real(metrics, "load_seconds", -1) >= 0);
        CU_ASSERT(fm_json_get_real(metrics, "load_bytes", 0) > 0);
        seen->loads++;
        return FM_OK;
    }
    CU_ASSERT(fraction > 0 && fraction <= 1);
    CU_ASSERT(fm_json_is_number(fm_json_get(metrics, "loss")));
    CU_ASSERT(fm_json_get_real(metrics, "grad_norm", -1) >= 0);
    CU_ASSERT(fm_json_get_real(metrics, "tokens_per_s", 0) > 0);
    seen->progresses++;
    return FM_OK;
}

bool seen_stopping(void *ctx)
{
    seen_t *seen = ctx;

    return seen->stop_after && seen->checkpoints >= seen->stop_after;
}

fm_json_t *json_of(const char *text)
{
    fm_json_t *value = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_json_parse(text, strlen(text), "test", &value, &err), &err);
    return value;
}

fm_status_t world_run_hints(world_t *world, const char *type,
                            const char *params_text, const char *values_text,
                            const char *hints_text, const char *checkpoint,
                            seen_t *seen)
{
    fm_json_t *params = json_of(params_text), *values = json_of(values_text);
    fm_json_t *hints = json_of(hints_text), *items = fm_json_array();
    const fm_ops_sink_t sink = {seen_item, seen_checkpoint, seen_progress,
                                seen_stopping, seen};
    fm_error_t err = {0};

    for (size_t i = 0; i < fm_json_len(values); i++) {
        fm_json_t *item = fm_json_object();
        CU_ASSERT_EQUAL(fm_json_set(item, "index", fm_json_int((int64_t)i)),
                        FM_OK);
        CU_ASSERT_EQUAL(
            fm_json_set(item, "value", fm_json_keep(fm_json_at(values, i))),
            FM_OK);
        CU_ASSERT_EQUAL(fm_json_append(items, item), FM_OK);
    }
    const fm_ops_batch_t batch = {type, params, hints, items, checkpoint};
    fm_status_t rc = fm_ops_run(world->ops, &batch, &sink, &err);
    fm_json_drop(params);
    fm_json_drop(values);
    fm_json_drop(hints);
    fm_json_drop(items);
    return rc;
}

void world_run(world_t *world, const char *type, const char *params,
               const char *values, seen_t *seen)
{
    CU_ASSERT_EQUAL(
        world_run_hints(world, type, params, values, "{}", NULL, seen), FM_OK);
}

void seen_fini(seen_t *seen)
{
    for (size_t i = 0; i < FM_COUNT_OF(seen->outputs); i++) {
        free(seen->outputs[i]);
    }
    memset(seen, 0, sizeof(*seen));
}

void world_expect(world_t *world, const char *type, const char *params,
                  const char *values, const char *want)
{
    seen_t seen = {0};

    world_run(world, type, params, values, &seen);
    if (!seen.outputs[0] || strcmp(seen.outputs[0], want) != 0) {
        (void)fprintf(stderr, "%s: %s%s\n", type, seen.error,
                      seen.outputs[0] ? seen.outputs[0] : "");
    }
    CU_ASSERT_PTR_NOT_NULL_FATAL(seen.outputs[0]);
    CU_ASSERT_STRING_EQUAL(seen.outputs[0], want);
    seen_fini(&seen);
}

void world_refuse(world_t *world, const char *type, const char *params,
                  const char *values, const char *want)
{
    seen_t seen = {0};

    world_run(world, type, params, values, &seen);
    CU_ASSERT_EQUAL(seen.items, seen.errors);
    CU_ASSERT(seen.errors > 0);
    CU_ASSERT(!seen.infra);
    CU_ASSERT_PTR_NOT_NULL(strstr(seen.error, want));
    if (!strstr(seen.error, want)) {
        (void)fprintf(stderr, "%s: wanted \"%s\", got \"%s\"\n", type, want,
                      seen.error);
    }
    seen_fini(&seen);
}

const char *world_store(world_t *world, const char *bytes, char *text)
{
    fm_digest_t digest;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_cas_put(world->cas, FM_CAS_BLOB, bytes, strlen(bytes),
                            &digest, &err),
                 &err);
    FM_ASSERT_OK(fm_cas_seal(world->cas, &err), &err);
    return fm_digest_format(&digest, text);
}
