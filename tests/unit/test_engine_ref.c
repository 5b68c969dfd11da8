/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine against PyTorch: logits, gradients of both losses, AdamW steps and
 * log-probabilities, from files that tests/ref/engine_reference.py wrote.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/model/pass.h"
#include "engine/serve/score.h"
#include "engine/train/train.h"
#include "fmtest.h"

#define TOLERANCE 1e-4

enum { MAX_SEQUENCES = 8, MAX_TOKENS = 128 };

struct reference {
    fm_json_t *json;
    fm_buf_t blocks; /* little-endian float32, as is this machine */
    fm_engine_backend_t *be;
    fm_engine_model_t *model;
    fm_error_t err;
};

static const char *const names[] = {"engine_grouped", "engine_tied"};

static const float *block(const struct reference *r, const char *name,
                          size_t *count_out)
{
    const fm_json_t *at = fm_json_get(fm_json_get(r->json, "blocks"), name);
    size_t offset = (size_t)fm_json_get_int(at, "offset", -1);
    size_t count = (size_t)fm_json_get_int(at, "count", -1);

    CU_ASSERT_PTR_NOT_NULL_FATAL(at);
    CU_ASSERT_FATAL((offset + count) * sizeof(float) <= r->blocks.len);
    *count_out = count;
    return (const float *)(const void *)r->blocks.data + offset;
}

static void reference_open(struct reference *r, const char *name)
{
    fm_engine_config_t config;
    fm_buf_t text = {0};
    size_t count = 0;

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
    const float *params = block(r, "params", &count);
    CU_ASSERT_FATAL(count == fm_engine_model_size(r->model));
    FM_ASSERT_OK(fm_engine_model_write(r->model, 0, count, params, &r->err),
                 &r->err);
    fm_buf_fini(&text);
    free(json_path);
    free(data_path);
}

static void reference_close(struct reference *r)
{
    fm_engine_model_destroy(r->model);
    fm_engine_backend_destroy(r->be);
    fm_json_drop(r->json);
    fm_buf_fini(&r->blocks);
}

/* ‖a − b‖ / ‖b‖ and the largest difference against the largest |b|. */
static void compare(const char *what, const float *a, const float *b,
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
    bool good = count > 0 && size > 0 && sqrt(gap / size) <= TOLERANCE &&
                worst <= TOLERANCE * largest;
    if (!good) {
        (void)fprintf(stderr, "%s: norm %g, worst %g of %g\n", what,
                      sqrt(gap / size), worst, largest);
    }
    CU_ASSERT(good);
}

static bool near(double a, double b)
{
    return fabs(a - b) <= TOLERANCE * fabs(b);
}

static void compare_tensors(const struct reference *r, const float *got,
                            const char *name)
{
    size_t count = 0;
    size_t tensors = 0;
    const float *want = block(r, name, &count);
    const fm_engine_param_t *params =
        fm_engine_model_params(r->model, &tensors);
    const fm_json_t *order = fm_json_get(r->json, "tensors");

    CU_ASSERT_FATAL(count == fm_engine_model_size(r->model));
    CU_ASSERT_FATAL(fm_json_len(order) == tensors);
    for (size_t i = 0; i < tensors; i++) {
        CU_ASSERT_STRING_EQUAL(params[i].name,
                               fm_json_str(fm_json_at(order, i)));
        compare(params[i].name, got + params[i].offset, want + params[i].offset,
                params[i].count);
    }
}

static size_t ids_read(const fm_json_t *array, int32_t *ids)
{
    size_t count = fm_json_len(array);

    CU_ASSERT_FATAL(count > 0 && count <= MAX_TOKENS);
    for (size_t i = 0; i < count; i++) {
        ids[i] = (int32_t)fm_json_int_or(fm_json_at(array, i), -1);
    }
    return count;
}

struct samples {
    fm_engine_sample_t items[MAX_SEQUENCES];
    int32_t tokens[MAX_SEQUENCES][MAX_TOKENS];
    uint8_t masks[MAX_SEQUENCES][MAX_TOKENS];
    size_t count;
};

static void samples_read(const struct reference *r, struct samples *s)
{
    const fm_json_t *array = fm_json_get(r->json, "samples");

    s->count = fm_json_len(array);
    CU_ASSERT_FATAL(s->count > 0 && s->count <= MAX_SEQUENCES);
    for (size_t i = 0; i < s->count; i++) {
        const fm_json_t *item = fm_json_at(array, i);
        int32_t mask[MAX_TOKENS];
        size_t count = ids_read(fm_json_get(item, "tokens"), s->tokens[i]);
        CU_ASSERT_FATAL(ids_read(fm_json_get(item, "mask"), mask) == count);
        for (size_t t = 0; t < count; t++) {
            s->masks[i][t] = (uint8_t)mask[t];
        }
        s->items[i] = (fm_engine_sample_t){
            .tokens = s->tokens[i], .mask = s->masks[i], .count = count};
    }
}

static void test_logits(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        struct reference r;
        struct samples s;
        fm_engine_pass_t *pass = NULL;
        int32_t rows[MAX_TOKENS];
        size_t count = 0;

        reference_open(&r, names[n]);
        samples_read(&r, &s);
        const float *want = block(&r, "logits", &count);
        float *got = fm_malloc(count * sizeof(*got));
        CU_ASSERT_PTR_NOT_NULL_FATAL(got);
        int32_t offsets[2] = {0, (int32_t)s.items[1].count};
        const fm_engine_batch_t batch = {
            .tokens = s.tokens[1], .offsets = offsets, .count = 1};
        for (int32_t i = 0; i < offsets[1]; i++) {
            rows[i] = i;
        }
        FM_ASSERT_OK(fm_engine_pass_create(r.model, false, &pass, &r.err),
                     &r.err);
        FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &r.err), &r.err);
        FM_ASSERT_OK(
            fm_engine_pass_logits(pass, rows, s.items[1].count, got, &r.err),
            &r.err);
        compare("logits", got, want, count);
        free(got);
        fm_engine_pass_destroy(pass);
        reference_close(&r);
    }
}

static fm_engine_train_options_t options_read(const struct reference *r,
                                              size_t micro_batch_tokens)
{
    const fm_json_t *o = fm_json_get(r->json, "options");
    fm_engine_train_options_t options;

    fm_engine_train_defaults(&options);
    options.learning_rate = fm_json_get_real(o, "learning_rate", -1);
    options.beta1 = fm_json_get_real(o, "beta1", -1);
    options.beta2 = fm_json_get_real(o, "beta2", -1);
    options.eps = fm_json_get_real(o, "eps", -1);
    options.weight_decay = fm_json_get_real(o, "weight_decay", -1);
    options.max_grad_norm = fm_json_get_real(o, "max_grad_norm", -1);
    options.warmup_steps = (uint64_t)fm_json_get_int(o, "warmup_steps", -1);
    options.total_steps = (uint64_t)fm_json_get_int(o, "total_steps", -1);
    options.micro_batch_tokens = micro_batch_tokens;
    CU_ASSERT_FATAL(fm_engine_schedule_parse(fm_json_get_str(o, "schedule"),
                                             &options.schedule));
    return options;
}

/* @p micro_batch_tokens cuts the samples one way or another; the mean over the
 * step must not notice. */
static void check_sft(const char *name, size_t micro_batch_tokens)
{
    struct reference r;
    struct samples s;
    fm_engine_trainer_t *trainer = NULL;

    reference_open(&r, name);
    samples_read(&r, &s);
    fm_engine_train_options_t options = options_read(&r, micro_batch_tokens);
    FM_ASSERT_OK(
        fm_engine_trainer_create(&(fm_engine_parts_t){.model = r.model},
                                 &options, &trainer, &r.err),
        &r.err);
    size_t size = fm_engine_model_size(r.model);
    float *host = fm_malloc(size * sizeof(*host));
    CU_ASSERT_PTR_NOT_NULL_FATAL(host);
    const fm_json_t *steps = fm_json_get(r.json, "steps");
    CU_ASSERT(fm_json_len(steps) == 5);
    for (size_t i = 0; i < fm_json_len(steps); i++) {
        const fm_json_t *want = fm_json_at(steps, i);
        fm_engine_metrics_t m;
        FM_ASSERT_OK(
            fm_engine_trainer_sft(trainer, s.items, s.count, &m, &r.err),
            &r.err);
        CU_ASSERT(m.step == i + 1);
        CU_ASSERT(near(m.loss, fm_json_get_real(want, "loss", -1)));
        CU_ASSERT(near(m.grad_norm, fm_json_get_real(want, "grad_norm", -1)));
        CU_ASSERT(fabs(m.learning_rate -
                       fm_json_get_real(want, "learning_rate", -1)) < 1e-12);
        if (i == 0) {
            FM_ASSERT_OK(fm_engine_trainer_read(trainer, 0,
                                                FM_ENGINE_PLANE_GRADIENT, 0,
                                                size, host, &r.err),
                         &r.err);
            compare_tensors(&r, host, "sft_gradient");
        }
    }
    FM_ASSERT_OK(fm_engine_model_read(r.model, 0, size, host, &r.err), &r.err);
    compare_tensors(&r, host, "params_after");
    free(host);
    fm_engine_trainer_destroy(trainer);
    reference_close(&r);
}

static void test_sft(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        check_sft(names[n], 4096);
        check_sft(names[n], 20);
    }
}

struct pairs {
    fm_engine_pair_t items[MAX_SEQUENCES];
    int32_t tokens[MAX_SEQUENCES][3][MAX_TOKENS];
    size_t count;
};

static void pairs_read(const struct reference *r, struct pairs *p)
{
    const fm_json_t *array = fm_json_get(r->json, "pairs");

    p->count = fm_json_len(array);
    CU_ASSERT_FATAL(p->count > 0 && p->count <= MAX_SEQUENCES);
    for (size_t i = 0; i < p->count; i++) {
        const fm_json_t *item = fm_json_at(array, i);
        int32_t(*t)[MAX_TOKENS] = p->tokens[i];
        p->items[i] = (fm_engine_pair_t){
            .prompt = t[0],
            .prompt_count = ids_read(fm_json_get(item, "prompt"), t[0]),
            .chosen = t[1],
            .chosen_count = ids_read(fm_json_get(item, "chosen"), t[1]),
            .rejected = t[2],
            .rejected_count = ids_read(fm_json_get(item, "rejected"), t[2]),
            .reference_chosen = fm_json_get_real(item, "reference_chosen", NAN),
            .reference_rejected =
                fm_json_get_real(item, "reference_rejected", NAN),
        };
    }
}

static void check_dpo(const char *name, size_t micro_batch_tokens)
{
    struct reference r;
    struct pairs p;
    fm_engine_trainer_t *trainer = NULL;
    fm_engine_metrics_t m;

    reference_open(&r, name);
    pairs_read(&r, &p);
    fm_engine_train_options_t options = options_read(&r, micro_batch_tokens);
    FM_ASSERT_OK(
        fm_engine_trainer_create(&(fm_engine_parts_t){.model = r.model},
                                 &options, &trainer, &r.err),
        &r.err);
    size_t size = fm_engine_model_size(r.model);
    float *host = fm_malloc(size * sizeof(*host));
    CU_ASSERT_PTR_NOT_NULL_FATAL(host);
    double beta = fm_json_get_real(r.json, "beta", -1);
    FM_ASSERT_OK(fm_engine_trainer_dpo(trainer, p.items, p.count,
                                       &(fm_engine_dpo_options_t){.beta = beta},
                                       &m, &r.err),
                 &r.err);
    CU_ASSERT(near(m.loss, fm_json_get_real(r.json, "dpo_loss", -1)));
    /* references were set 1.5 below and 0.75 above the policy */
    CU_ASSERT(near(m.reward_chosen, beta * 1.5));
    CU_ASSERT(near(m.reward_rejected, beta * -0.75));
    CU_ASSERT(near(m.margin, beta * 2.25) && near(m.accuracy, 1));
    FM_ASSERT_OK(fm_engine_trainer_read(trainer, 0, FM_ENGINE_PLANE_GRADIENT, 0,
                                        size, host, &r.err),
                 &r.err);
    compare_tensors(&r, host, "dpo_gradient");
    free(host);
    fm_engine_trainer_destroy(trainer);
    reference_close(&r);
}

static void test_dpo(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        check_dpo(names[n], 4096);
        check_dpo(names[n], 1);
    }
}

static void test_score(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        struct reference r;
        struct pairs p;
        fm_engine_scorer_t *scorer = NULL;

        reference_open(&r, names[n]);
        pairs_read(&r, &p);
        FM_ASSERT_OK(fm_engine_scorer_create(r.model, &scorer, &r.err), &r.err);
        for (size_t i = 0; i < p.count; i++) {
            const fm_engine_score_input_t input = {
                .prompt = p.items[i].prompt,
                .prompt_count = p.items[i].prompt_count,
                .completion = p.items[i].chosen,
                .completion_count = p.items[i].chosen_count};
            const fm_json_t *item = fm_json_at(fm_json_get(r.json, "pairs"), i);
            fm_engine_score_t score;
            FM_ASSERT_OK(fm_engine_score(scorer, &input, &score, NULL, &r.err),
                         &r.err);
            CU_ASSERT(
                near(score.sum, fm_json_get_real(item, "logp_chosen", 1)));
            CU_ASSERT(score.count == input.completion_count);
            CU_ASSERT(near(score.mean * (double)score.count, score.sum));
        }
        fm_engine_scorer_destroy(scorer);
        reference_close(&r);
    }
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"logits", test_logits},
        {"SFT gradient and AdamW steps", test_sft},
        {"DPO loss and gradient", test_dpo},
        {"completion log-probability", test_score},
    };

    return fm_test_main("engine against PyTorch", cases, FM_COUNT_OF(cases));
}
