/* SPDX-License-Identifier: Apache-2.0 */
/** @file engine_fixture.h  A small seeded model for the engine's tests. */
#ifndef ENGINE_FIXTURE_H
#define ENGINE_FIXTURE_H

#include <string.h>

#include "engine/model/model.h"
#include "fmtest.h"

/* Wide enough that the BLAS treats rows differently by their number. */
static const fm_engine_config_t fixture_config = {
    .vocab_size = 40,
    .hidden_size = 48,
    .intermediate_size = 76,
    .num_hidden_layers = 2,
    .num_attention_heads = 4,
    .num_key_value_heads = 2,
    .max_position_embeddings = 96,
};

struct fixture {
    fm_engine_backend_t *be;
    fm_engine_model_t *model;
    fm_error_t err;
};

static inline void fixture_open(struct fixture *f, uint64_t seed)
{
    *f = (struct fixture){0};
    FM_ASSERT_OK(fm_engine_backend_create_cpu(&f->be, &f->err), &f->err);
    FM_ASSERT_OK(
        fm_engine_model_create(&fixture_config, f->be, &f->model, &f->err),
        &f->err);
    FM_ASSERT_OK(fm_engine_model_init(f->model, seed, &f->err), &f->err);
}

static inline void fixture_close(struct fixture *f)
{
    f->model = fm_engine_model_destroy(f->model);
    f->be = fm_engine_backend_destroy(f->be);
}

/** The status is @p status and the text holds @p part. */
static inline bool fixture_refused(fm_status_t rc, fm_status_t status,
                                   const fm_error_t *err, const char *part)
{
    bool good = rc == status && strstr(err->text, part) != NULL;

    if (!good) {
        (void)fprintf(stderr, "want \"%s\" in: %s: %s\n", part,
                      fm_status_name(rc), err->text);
    }
    return good;
}

#endif
