/* SPDX-License-Identifier: Apache-2.0 */
/* engine: tokenizer, parameters, gradients of a whole model. */
#include <math.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/json.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/model/pass.h"
#include "engine/train/train.h"
#include "engine_fixture.h"
#include "text/tokenizer/tokenizer.h"

static void test_tokenizer_round_trip(void)
{
    fm_tokenizer_t *t = NULL;
    fm_tokens_t tokens = {0};
    fm_buf_t text = {0};
    fm_error_t err = {0};
    char all[256];

    FM_ASSERT_OK(fm_tokenizer_create_byte(&t, &err), &err);
    for (size_t i = 0; i < sizeof(all); i++) {
        all[i] = (char)(unsigned char)i;
    }
    FM_ASSERT_OK(fm_tokens_add(&tokens, fm_tokenizer_bos(t), &err), &err);
    FM_ASSERT_OK(fm_tokenizer_encode(t, all, sizeof(all), &tokens, &err), &err);
    FM_ASSERT_OK(fm_tokens_add(&tokens, fm_tokenizer_eos(t), &err), &err);
    CU_ASSERT(tokens.count == 258 && tokens.ids[1] == 0 &&
              tokens.ids[256] == 255);
    FM_ASSERT_OK(fm_tokenizer_decode(t, tokens.ids, tokens.count, &text, &err),
                 &err);
    CU_ASSERT(text.len == 256 && memcmp(text.data, all, 256) == 0);
    const int32_t bad[1] = {fm_tokenizer_vocab_size(t)};
    CU_ASSERT(fixture_refused(fm_tokenizer_decode(t, bad, 1, &text, &err),
                              FM_ERR_INVALID, &err, "0 to 259"));
    CU_ASSERT(fixture_refused(
        fm_tokenizer_encode(t, all, FM_TOKENIZER_ENCODE_LIMIT, &tokens, &err),
        FM_ERR_LIMIT, &err, "split the text"));
    CU_ASSERT(tokens.count == 258);
    fm_tokens_fini(&tokens);
    fm_buf_fini(&text);
    fm_tokenizer_destroy(t);
}

static void test_tokenizer_utf8(void)
{
    static const struct {
        const char *raw;
        const char *want;
    } cases[] = {
        {"plain", "plain"},
        {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80",
         "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"},
        {"a\xC3", "a\xEF\xBF\xBD"},
        {"\xC0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
        {"\xF5z", "\xEF\xBF\xBDz"},
    };
    fm_tokenizer_t *t = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_tokenizer_create_byte(&t, &err), &err);
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        fm_tokens_t tokens = {0};
        fm_buf_t text = {0};
        FM_ASSERT_OK(fm_tokenizer_encode(t, cases[i].raw, strlen(cases[i].raw),
                                         &tokens, &err),
                     &err);
        FM_ASSERT_OK(
            fm_tokenizer_decode_utf8(t, tokens.ids, tokens.count, &text, &err),
            &err);
        CU_ASSERT_STRING_EQUAL(fm_buf_cstr(&text), cases[i].want);
        fm_tokens_fini(&tokens);
        fm_buf_fini(&text);
    }
    fm_tokenizer_destroy(t);
}

static void test_tokenizer_description(void)
{
    fm_tokenizer_t *t = NULL;
    fm_tokenizer_t *again = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_tokenizer_create_byte(&t, &err), &err);
    fm_json_t *json = fm_tokenizer_describe(t);
    FM_ASSERT_OK(fm_tokenizer_create(json, NULL, 0, &again, &err), &err);
    CU_ASSERT(fm_tokenizer_vocab_size(again) == FM_TOKENIZER_BYTE_VOCAB);
    CU_ASSERT(fm_json_set(json, "type", fm_json_string("sp")) >= 0);
    CU_ASSERT(fixture_refused(fm_tokenizer_create(json, NULL, 0, &again, &err),
                              FM_ERR_UNSUPPORTED, &err, "\"sp\""));
    fm_json_drop(json);
    fm_tokenizer_destroy(t);
    fm_tokenizer_destroy(again);
}

static void test_parameters(void)
{
    struct fixture f;
    struct fixture g;
    size_t count = 0;
    size_t end = 0;

    fixture_open(&f, 1);
    fixture_open(&g, 1);
    const fm_engine_param_t *params = fm_engine_model_params(f.model, &count);
    CU_ASSERT(count == 2 * 9 + 3);
    for (size_t i = 0; i < count; i++) {
        CU_ASSERT(params[i].offset == end);
        CU_ASSERT(params[i].count == params[i].shape[0] * params[i].shape[1]);
        CU_ASSERT(fm_engine_model_find(f.model, params[i].name) == &params[i]);
        end += params[i].count;
    }
    size_t size = fm_engine_model_size(f.model);
    CU_ASSERT(end == size);
    const fm_engine_param_t *k =
        fm_engine_model_find(f.model, "model.layers.1.self_attn.k_proj.weight");
    CU_ASSERT_PTR_NOT_NULL_FATAL(k);
    CU_ASSERT(k->rank == 2 && k->shape[0] == 24 && k->shape[1] == 48);
    CU_ASSERT_PTR_NULL(fm_engine_model_find(f.model, "model.layers.2"));

    /* the same seed gives the same bits, another seed others */
    const float *a = fm_engine_model_data(f.model);
    const float *b = fm_engine_model_data(g.model);
    CU_ASSERT(memcmp(a, b, size * sizeof(*a)) == 0);
    FM_ASSERT_OK(fm_engine_model_init(g.model, 2, &g.err), &g.err);
    CU_ASSERT(memcmp(a + k->offset, b + k->offset, k->count * sizeof(*a)) != 0);

    float value = 0;
    CU_ASSERT(
        fixture_refused(fm_engine_model_read(f.model, size, 1, &value, &f.err),
                        FM_ERR_INVALID, &f.err, "outside"));
    fixture_close(&f);
    fixture_close(&g);
}

/* --- the gradient of the whole model ----------------------------------------
 */

enum { LENGTH_A = 12, LENGTH_B = 5, ROWS = LENGTH_A + LENGTH_B };

/* Σ scales·logp over all rows of two packed sequences, in float64. */
static double objective(struct fixture *f, fm_engine_pass_t *pass,
                        const int32_t *tokens, const float *scales,
                        float *grads)
{
    const int32_t offsets[3] = {0, LENGTH_A, ROWS};
    const fm_engine_batch_t batch = {
        .tokens = tokens, .offsets = offsets, .count = 2};
    int32_t rows[ROWS];
    int32_t targets[ROWS];
    float logp[ROWS];
    double sum = 0;

    for (int32_t i = 0; i < ROWS; i++) {
        rows[i] = i;
        targets[i] = tokens[(i + 1) % ROWS];
    }
    FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &f->err), &f->err);
    FM_ASSERT_OK(fm_engine_pass_head(pass, rows, targets, grads ? scales : NULL,
                                     ROWS, grads, logp, &f->err),
                 &f->err);
    for (size_t i = 0; i < ROWS; i++) {
        sum += (double)scales[i] * (double)logp[i];
    }
    return sum;
}

/* The slope along a random direction in one tensor, against the gradient. */
static void check_tensor(struct fixture *f, fm_engine_pass_t *pass,
                         const int32_t *tokens, const float *scales,
                         const fm_engine_param_t *param, const float *grads,
                         fm_rng_t *rng)
{
    const double h = 2e-3;
    float *keep = fm_malloc(param->count * sizeof(*keep));
    float *moved = fm_malloc(param->count * sizeof(*moved));
    double *direction = fm_malloc(param->count * sizeof(*direction));
    double slope = 0;
    double want = 0;
    double size = 0;

    CU_ASSERT_FATAL(keep && moved && direction);
    FM_ASSERT_OK(fm_engine_model_read(f->model, param->offset, param->count,
                                      keep, &f->err),
                 &f->err);
    for (size_t i = 0; i < param->count; i++) {
        double g = (double)grads[param->offset + i];
        /* along the gradient, with noise: a large, generic slope */
        direction[i] = g + 0.3 * fabs(g) * fm_rng_normal(rng);
        size += direction[i] * direction[i];
    }
    size = sqrt(size);
    CU_ASSERT(size > 0);
    for (int side = 1; side >= -1; side -= 2) {
        for (size_t i = 0; i < param->count; i++) {
            moved[i] =
                (float)((double)keep[i] + side * h * direction[i] / size);
        }
        FM_ASSERT_OK(fm_engine_model_write(f->model, param->offset,
                                           param->count, moved, &f->err),
                     &f->err);
        slope += side * objective(f, pass, tokens, scales, NULL) / (2 * h);
    }
    FM_ASSERT_OK(fm_engine_model_write(f->model, param->offset, param->count,
                                       keep, &f->err),
                 &f->err);
    for (size_t i = 0; i < param->count; i++) {
        want += (double)grads[param->offset + i] * direction[i] / size;
    }
    bool good = fabs(slope - want) <= 0.02 * fabs(want);
    if (!good) {
        (void)fprintf(stderr, "%s: slope %g, gradient %g\n", param->name, slope,
                      want);
    }
    CU_ASSERT(good);
    free(keep);
    free(moved);
    free(direction);
}

static void test_whole_gradient(void)
{
    struct fixture f;
    fm_engine_pass_t *pass = NULL;
    int32_t tokens[ROWS];
    float scales[ROWS];
    size_t count = 0;
    fm_rng_t rng;

    fixture_open(&f, 3);
    fm_rng_init(&rng, 3);
    for (size_t i = 0; i < ROWS; i++) {
        tokens[i] = (int32_t)fm_rng_below(&rng, fixture_config.vocab_size);
        scales[i] = (float)fm_rng_normal(&rng);
    }
    /* start values are small: larger ones bend the model more */
    size_t size = fm_engine_model_size(f.model);
    float *grads = fm_calloc(size, sizeof(*grads));
    float *params = fm_calloc(size, sizeof(*params));
    CU_ASSERT_FATAL(grads && params);
    for (size_t i = 0; i < size; i++) {
        params[i] = (float)(0.3 * fm_rng_normal(&rng));
    }
    FM_ASSERT_OK(fm_engine_model_write(f.model, 0, size, params, &f.err),
                 &f.err);
    FM_ASSERT_OK(fm_engine_pass_create(f.model, true, &pass, &f.err), &f.err);
    (void)objective(&f, pass, tokens, scales, grads);
    FM_ASSERT_OK(fm_engine_pass_backward(pass, grads, &f.err), &f.err);
    const fm_engine_param_t *table = fm_engine_model_params(f.model, &count);
    for (size_t i = 0; i < count; i++) {
        check_tensor(&f, pass, tokens, scales, &table[i], grads, &rng);
    }
    free(grads);
    free(params);
    fm_engine_pass_destroy(pass);
    fixture_close(&f);
}

static void test_pass_refusals(void)
{
    struct fixture f;
    fm_engine_pass_t *pass = NULL;
    int32_t tokens[100] = {0};
    int32_t offsets[3] = {0, 4, 4};
    fm_engine_batch_t batch = {
        .tokens = tokens, .offsets = offsets, .count = 2};
    float logp = 0;
    const int32_t far_row[1] = {50};

    fixture_open(&f, 1);
    FM_ASSERT_OK(fm_engine_pass_create(f.model, false, &pass, &f.err), &f.err);
    CU_ASSERT(fixture_refused(fm_engine_pass_forward(pass, &batch, &f.err),
                              FM_ERR_INVALID, &f.err, "sequence 1 is empty"));
    offsets[2] = 101;
    CU_ASSERT(fixture_refused(fm_engine_pass_forward(pass, &batch, &f.err),
                              FM_ERR_LIMIT, &f.err,
                              "max_position_embeddings is 96"));
    offsets[2] = 8;
    tokens[6] = 40;
    CU_ASSERT(fixture_refused(fm_engine_pass_forward(pass, &batch, &f.err),
                              FM_ERR_INVALID, &f.err,
                              "sequence 1, token 2 is 40"));
    tokens[6] = 39;
    FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &f.err), &f.err);
    CU_ASSERT(
        fixture_refused(fm_engine_pass_logits(pass, far_row, 1, &logp, &f.err),
                        FM_ERR_INVALID, &f.err, "row 50"));
    CU_ASSERT(fixture_refused(fm_engine_pass_backward(pass, &logp, &f.err),
                              FM_ERR_INVALID, &f.err, "training pass"));
    fm_engine_pass_destroy(pass);
    fixture_close(&f);
}

/* Every allocation fails once: an error, no leak, and then it works. */
static void test_out_of_memory(void)
{
#ifdef FM_FAULTS
    bool worked = false;

    for (int nth = 1; nth < 200 && !worked; nth++) {
        fm_engine_backend_t *be = NULL;
        fm_engine_model_t *model = NULL;
        fm_engine_trainer_t *trainer = NULL;
        fm_error_t err = {0};
        const int32_t tokens[3] = {1, 2, 3};
        const fm_engine_sample_t sample = {.tokens = tokens, .count = 3};
        char spec[32];

        (void)snprintf(spec, sizeof(spec), "base.alloc:%d", nth);
        CU_ASSERT_FATAL(fm_fault_arm(spec));
        fm_status_t rc = fm_engine_backend_create_cpu(&be, &err);
        if (rc >= 0 &&
            (rc = fm_engine_model_create(&fixture_config, be, &model, &err)) >=
                0 &&
            (rc = fm_engine_model_init(model, 1, &err)) >= 0 &&
            (rc = fm_engine_trainer_create(&(fm_engine_parts_t){.model = model},
                                           NULL, &trainer, &err)) >= 0) {
            rc = fm_engine_trainer_sft(trainer, &sample, 1, NULL, &err);
        }
        worked = rc >= 0;
        CU_ASSERT(worked || rc == FM_ERR_NO_MEMORY);
        CU_ASSERT(fm_fault_arm(NULL));
        if (trainer) { /* a failed step does not spoil the next */
            FM_ASSERT_OK(fm_engine_trainer_sft(trainer, &sample, 1, NULL, &err),
                         &err);
        }
        fm_engine_trainer_destroy(trainer);
        fm_engine_model_destroy(model);
        fm_engine_backend_destroy(be);
    }
    CU_ASSERT(worked);
#endif
}

/* More than any machine has is refused, not taken and killed for. */
static void test_too_large(void)
{
    fm_engine_backend_t *be = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_engine_backend_create_cpu(&be, &err), &err);
    CU_ASSERT_PTR_NULL(be->ops->alloc(be, (size_t)1 << 60));
    CU_ASSERT_PTR_NULL(be->ops->alloc(be, SIZE_MAX));
    void *block = be->ops->alloc(be, (size_t)1 << 26);
    CU_ASSERT_PTR_NOT_NULL(block);
    be->ops->release(be, block);
    fm_engine_backend_destroy(be);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"tokenizer: bytes round trip", test_tokenizer_round_trip},
        {"tokenizer: UTF-8", test_tokenizer_utf8},
        {"tokenizer: description", test_tokenizer_description},
        {"parameters", test_parameters},
        {"gradient of the whole model", test_whole_gradient},
        {"pass: refusals", test_pass_refusals},
        {"out of memory", test_out_of_memory},
        {"more than there is", test_too_large},
    };

    return fm_test_main("engine model", cases, FM_COUNT_OF(cases));
}
