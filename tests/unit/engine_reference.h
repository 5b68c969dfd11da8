/* SPDX-License-Identifier: Apache-2.0 */
/** @file engine_reference.h  Files that the scripts of tests/ref wrote: a
 *  model, data, and blocks of expected numbers; and how near ours must be. */
#ifndef ENGINE_REFERENCE_H
#define ENGINE_REFERENCE_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/train/train.h"
#include "fmtest.h"

/* Of float32 on both sides: ‖a − b‖₂ / ‖b‖₂ of a tensor, and the largest
 * |a − b| against the largest |b|. */
#define TOLERANCE 1e-4

enum { REFERENCE_SAMPLES_MAX = 8, REFERENCE_TOKENS_MAX = 128 };

struct samples {
    fm_engine_sample_t items[REFERENCE_SAMPLES_MAX];
    int32_t tokens[REFERENCE_SAMPLES_MAX][REFERENCE_TOKENS_MAX];
    uint8_t masks[REFERENCE_SAMPLES_MAX][REFERENCE_TOKENS_MAX];
    size_t count;
};

struct reference {
    fm_json_t *json;
    fm_buf_t blocks; /* little-endian float32, as is this machine */
    fm_engine_backend_t *be;
    fm_engine_model_t *model; /* its parameters are the caller's to write */
    struct samples samples;
    fm_error_t err;
};

static inline size_t reference_ids(const fm_json_t *array, int32_t *ids)
{
    size_t count = fm_json_len(array);

    CU_ASSERT_FATAL(count > 0 && count <= REFERENCE_TOKENS_MAX);
    for (size_t i = 0; i < count; i++) {
        ids[i] = (int32_t)fm_json_int_or(fm_json_at(array, i), -1);
    }
    return count;
}

static inline void reference_samples(const fm_json_t *array, struct samples *s)
{
    s->count = fm_json_len(array);
    CU_ASSERT_FATAL(s->count > 0 && s->count <= REFERENCE_SAMPLES_MAX);
    for (size_t i = 0; i < s->count; i++) {
        const fm_json_t *item = fm_json_at(array, i);
        int32_t mask[REFERENCE_TOKENS_MAX];
        size_t count = reference_ids(fm_json_get(item, "tokens"), s->tokens[i]);
        CU_ASSERT_FATAL(reference_ids(fm_json_get(item, "mask"), mask) ==
                        count);
        for (size_t t = 0; t < count; t++) {
            s->masks[i][t] = (uint8_t)mask[t];
        }
        s->items[i] = (fm_engine_sample_t){
            .tokens = s->tokens[i], .mask = s->masks[i], .count = count};
    }
}

static inline void reference_open(struct reference *r, const char *name)
{
    fm_engine_config_t config;
    fm_buf_t text = {0};

    *r = (struct reference){0};
    char *json_path = fm_asprintf("%s/%s.json", FM_TEST_REF_DIR, name);
    char *data_path = fm_asprintf("%s/%s.f32", FM_TEST_REF_DIR, name);
    FM_ASSERT_OK(fm_file_read(json_path, 1 << 20, &text, &r->err), &r->err);
    FM_ASSERT_OK(fm_file_read(data_path, 1 << 20, &r->blocks, &r->err),
                 &r->err);
    FM_ASSERT_OK(fm_json_parse((const char *)text.data, text.len, json_path,
                               &r->json, &r->err),
                 &r->err);
    FM_ASSERT_OK(fm_engine_config_parse(fm_json_get(r->json, "config"), &config,
                                        &r->err),
                 &r->err);
    FM_ASSERT_OK(fm_engine_backend_create_cpu(&r->be, &r->err), &r->err);
    FM_ASSERT_OK(fm_engine_model_create(&config, r->be, &r->model, &r->err),
                 &r->err);
    reference_samples(fm_json_get(r->json, "samples"), &r->samples);
    fm_buf_fini(&text);
    free(json_path);
    free(data_path);
}

static inline void reference_close(struct reference *r)
{
    fm_engine_model_destroy(r->model);
    fm_engine_backend_destroy(r->be);
    fm_json_drop(r->json);
    fm_buf_fini(&r->blocks);
}

static inline const float *reference_block(const struct reference *r,
                                           const char *name, size_t *count_out)
{
    const fm_json_t *at = fm_json_get(fm_json_get(r->json, "blocks"), name);
    size_t offset = (size_t)fm_json_get_int(at, "offset", -1);
    size_t count = (size_t)fm_json_get_int(at, "count", -1);

    CU_ASSERT_PTR_NOT_NULL_FATAL(at);
    CU_ASSERT_FATAL((offset + count) * sizeof(float) <= r->blocks.len);
    *count_out = count;
    return (const float *)(const void *)r->blocks.data + offset;
}

static inline fm_engine_train_options_t
reference_train_options(const struct reference *r)
{
    const fm_json_t *o = fm_json_get(r->json, "options");
    fm_engine_train_options_t options;

    fm_engine_train_defaults(&options);
    options.learning_rate = fm_json_get_real(o, "learning_rate", -1);
    options.min_learning_rate = fm_json_get_real(o, "min_learning_rate", 0);
    options.beta1 = fm_json_get_real(o, "beta1", -1);
    options.beta2 = fm_json_get_real(o, "beta2", -1);
    options.eps = fm_json_get_real(o, "eps", -1);
    options.weight_decay = fm_json_get_real(o, "weight_decay", -1);
    options.max_grad_norm = fm_json_get_real(o, "max_grad_norm", -1);
    options.warmup_steps = (uint64_t)fm_json_get_int(o, "warmup_steps", -1);
    options.total_steps = (uint64_t)fm_json_get_int(o, "total_steps", -1);
    CU_ASSERT_FATAL(fm_engine_schedule_parse(fm_json_get_str(o, "schedule"),
                                             &options.schedule));
    return options;
}

/** Hold @p a against the reference @p b; @p whose and @p what name it. */
static inline void reference_compare(const char *whose, const char *what,
                                     const float *a, const float *b,
                                     size_t count)
{
    double gap = 0;
    double size = 0;
    double worst = 0;
    double largest = 0;

    for (size_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        gap += d * d;
        size += (double)b[i] * (double)b[i];
        worst = fmax(worst, fabs(d));
        largest = fmax(largest, fabs((double)b[i]));
        CU_ASSERT(isfinite(a[i]));
    }
    bool good = count > 0 && sqrt(gap) <= TOLERANCE * sqrt(size) &&
                worst <= TOLERANCE * largest;
    if (!good) {
        (void)fprintf(stderr, "%s: %s: norm %g of %g, worst %g of %g\n", whose,
                      what, sqrt(gap), sqrt(size), worst, largest);
    }
    CU_ASSERT(good);
}

static inline bool reference_near(double a, double b)
{
    return fabs(a - b) <= TOLERANCE * fabs(b);
}

#endif
