/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An expanded node on its way into the journal: its items become texts, those
 * too long for a message become objects ({"$object": digest}) that are sealed
 * before the journal speaks of them, and the size of its model is looked up
 * for the scheduler.
 */
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/mem.h"
#include "io/wire/wire.h"
#include "role/control/internal.h"

/* A record's part of a large vector: a quarter of the journal's bound. */
#define PART_BYTES ((size_t)4 << 20)
/* Of a tensor's element: the engine computes in float32. */
#define TENSOR_ELEMENT_BYTES 4.0

/* A vector on its way into the journal. */
struct staged {
    fm_control_t *control;
    uint32_t run;
    uint32_t node;
    char *params;
    char *hints;
    char **texts; /* [count] */
    uint32_t count;
    bool has_model; /* its size is to be looked up */
    fm_digest_t model;
};

static void staged_destroy(struct staged *staged)
{
    if (!staged) {
        return;
    }
    for (uint32_t i = 0; staged->texts && i < staged->count; i++) {
        free(staged->texts[i]);
    }
    free(staged->texts);
    free(staged->params);
    free(staged->hints);
    free(staged);
}

static void staged_record(struct staged *staged)
{
    fm_control_t *control = staged->control;
    fm_record_expand_t record = {.workflow = staged->run,
                                 .node = staged->node,
                                 .wall_ns = fm_clock_wall_ns(),
                                 .params = {"", 0},
                                 .hints = {"", 0}};
    fm_buf_t items = {0};
    fm_buf_t buf = {0};
    uint32_t next = 0;

    do {
        fm_buf_clear(&items);
        fm_buf_clear(&buf);
        record.first = next;
        while (next < staged->count && items.len < PART_BYTES) {
            fm_record_item_add(&items, staged->texts[next],
                               strlen(staged->texts[next]));
            next++;
        }
        record.count = next - record.first;
        record.more = next < staged->count;
        record.items = (fm_span_t){(const char *)items.data, items.len};
        if (!record.more) {
            record.params = (fm_span_t){staged->params, strlen(staged->params)};
            record.hints = (fm_span_t){staged->hints, strlen(staged->hints)};
        }
        fm_record_expand_encode(&record, &buf);
        if (items.failed || buf.failed) {
            fm_error_t err = {0};
            (void)fm_no_memory(&err);
            fm_control_fatal(control, &err);
            break;
        }
        fm_control_record(control, FM_RECORD_EXPAND, buf.data, buf.len);
    } while (record.more);
    fm_buf_fini(&items);
    fm_buf_fini(&buf);
}

/* Bytes of the tensors that a model manifest names; 0 when it is none. */
static double manifest_bytes(const char *text, size_t len)
{
    fm_json_t *manifest = NULL;
    fm_json_t *tensor = NULL;
    const char *name = NULL;
    void *at = NULL;
    double total = 0;

    if (fm_json_parse(text, len, "manifest", &manifest, NULL) < 0) {
        return 0;
    }
    while (
        fm_json_next(fm_json_get(manifest, "tensors"), &at, &name, &tensor)) {
        const fm_json_t *shape = fm_json_get(tensor, "shape");
        double bytes = TENSOR_ELEMENT_BYTES;
        for (size_t i = 0; i < fm_json_len(shape); i++) {
            bytes *= fm_json_real_or(fm_json_at(shape, i), 1);
        }
        total += bytes;
    }
    fm_json_drop(manifest);
    return total;
}

/* Storage thread: what a worker without the model will have to load. */
static fm_status_t note_model_bytes(struct staged *staged, fm_error_t *err)
{
    fm_json_t *hints = NULL;
    fm_buf_t buf = {0};
    fm_status_t rc = FM_OK;

    if (fm_cas_get(staged->control->fabric->cas, &staged->model, &buf, NULL) >=
        0) {
        double bytes = manifest_bytes((const char *)buf.data, buf.len);
        rc = fm_json_parse(staged->hints, strlen(staged->hints), "hints",
                           &hints, err);
        if (rc >= 0 && fm_json_set(hints, "model_bytes",
                                   fm_json_int((int64_t)bytes)) >= 0) {
            char *text = fm_json_canonical(hints);
            free(staged->hints);
            staged->hints = text;
            rc = text ? FM_OK : fm_no_memory(err);
        }
    } /* a model that is not there fails at the worker, with its own text */
    fm_json_drop(hints);
    fm_buf_fini(&buf);
    return rc;
}

/* Storage thread: texts beyond the inline bound become objects. */
static fm_status_t staged_store(void *ctx, fm_error_t *err)
{
    struct staged *staged = ctx;
    fm_cas_t *cas = staged->control->fabric->cas;
    char digest_text[FM_DIGEST_TEXT_BYTES];
    fm_digest_t digest;
    fm_status_t known =
        staged->has_model ? note_model_bytes(staged, err) : FM_OK;

    if (known < 0) {
        return known;
    }
    for (uint32_t i = 0; i < staged->count; i++) {
        size_t len = strlen(staged->texts[i]);
        if (len <= FM_WIRE_INLINE_MAX_BYTES) {
            continue;
        }
        fm_status_t rc =
            fm_cas_put(cas, FM_CAS_ITEM, staged->texts[i], len, &digest, err);
        if (rc < 0) {
            return rc;
        }
        char *reference = fm_asprintf("{\"$object\":\"%s\"}",
                                      fm_digest_format(&digest, digest_text));
        if (!reference) {
            return fm_no_memory(err);
        }
        free(staged->texts[i]);
        staged->texts[i] = reference;
    }
    return fm_cas_seal(cas, err);
}

static void staged_done(void *ctx, fm_status_t status, const fm_error_t *err)
{
    struct staged *staged = ctx;

    if (status >= 0) {
        staged_record(staged);
    } else {
        fm_error_t cause = *err;
        fm_error_wrap(&cause, "store the inputs");
        fm_control_staged_end(staged->control, staged->run, staged->count);
        fm_control_node_fail(staged->control, staged->run, staged->node,
                             cause.text);
    }
    staged_destroy(staged);
}

fm_status_t fm_control_stage(fm_control_t *control, uint32_t run, uint32_t node,
                             const fm_workflow_work_t *work, fm_error_t *err)
{
    size_t count = fm_json_len(work->items);
    struct staged *staged = fm_calloc(1, sizeof(*staged));
    bool large = false;

    if (!staged) {
        return fm_no_memory(err);
    }
    *staged = (struct staged){.control = control, .run = run, .node = node};
    staged->params = fm_json_canonical(work->params);
    staged->hints = fm_json_canonical(work->hints);
    staged->texts = fm_calloc(count, sizeof(char *));
    bool ok = staged->params && staged->hints && staged->texts;
    for (size_t i = 0; ok && i < count; i++) {
        staged->texts[i] = fm_json_canonical(fm_json_at(work->items, i));
        ok = staged->texts[i] != NULL;
        staged->count += ok;
        large = large ||
                (ok && strlen(staged->texts[i]) > FM_WIRE_INLINE_MAX_BYTES);
    }
    if (!ok) {
        staged_destroy(staged);
        return fm_no_memory(err);
    }
    const char *model = fm_json_str(fm_json_path(work->params, "model.digest"));
    staged->has_model = model && fm_digest_parse(model, &staged->model);
    if (large || staged->has_model) {
        fm_control_offload(control, staged_store, staged_done, staged);
    } else {
        staged_record(staged);
        staged_destroy(staged);
    }
    return FM_OK;
}
