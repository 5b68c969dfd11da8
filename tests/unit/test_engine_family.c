/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine against transformers: for a small model of each family logits, the
 * gradient of every parameter, ten AdamW steps and greedy decoding, from files
 * that tests/ref/transformers_reference.py wrote; and checkpointed passes
 * against plain ones.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/model/pass.h"
#include "engine/serve/generate.h"
#include "engine/train/train.h"
#include "fmtest.h"

/* Of float32 on both sides: ‖a − b‖₂ / ‖b‖₂ of a tensor, and the largest
 * |a − b| against the largest |b|. */
#define TOLERANCE 1e-4

enum { MAX_SAMPLES = 4, MAX_TOKENS = 128 };

static const char *const names[] = {"family_llama3", "family_llama_bias",
                                    "family_mistral", "family_qwen2",
                                    "family_qwen3"};

struct samples {
    fm_engine_sample_t items[MAX_SAMPLES];
    int32_t tokens[MAX_SAMPLES][MAX_TOKENS];
    uint8_t masks[MAX_SAMPLES][MAX_TOKENS];
    size_t count;
};

struct reference {
    fm_json_t *json;
    fm_buf_t blocks; /* little-endian float32, as is this machine */
    fm_engine_backend_t *be;
    fm_engine_model_t *model;
    struct samples samples;
    fm_error_t err;
};

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

/* weight_values() of the script, made float32. */
static void weights_fill(const char *name, float *to, size_t count)
{
    uint64_t seed = UINT64_C(0xCBF29CE484222325);
    float base = strstr(name, "norm") ? 1.0F : 0.0F;

    for (const char *at = name; *at; at++) {
        seed = (seed ^ (uint8_t)*at) * UINT64_C(0x100000001B3);
    }
    for (size_t i = 0; i < count; i++) {
        uint64_t z = seed + (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
        z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
        z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
        z ^= z >> 31;
        to[i] = base + (float)((int64_t)(z >> 40) - (1 << 23)) / 0x1p25F;
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

static void samples_read(struct reference *r)
{
    const fm_json_t *array = fm_json_get(r->json, "samples");
    struct samples *s = &r->samples;

    s->count = fm_json_len(array);
    CU_ASSERT_FATAL(s->count > 0 && s->count <= MAX_SAMPLES);
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

static void model_fill(struct reference *r)
{
    size_t count = 0;
    const fm_engine_param_t *params = fm_engine_model_params(r->model, &count);

    for (size_t i = 0; i < count; i++) {
        float *values = fm_malloc(params[i].count * sizeof(*values));
        CU_ASSERT_PTR_NOT_NULL_FATAL(values);
        weights_fill(params[i].name, values, params[i].count);
        FM_ASSERT_OK(fm_engine_model_write(r->model, params[i].offset,
                                           params[i].count, values, &r->err),
                     &r->err);
        free(values);
    }
}

static void reference_open(struct reference *r, const char *name)
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
    model_fill(r);
    samples_read(r);
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

static void compare(const struct reference *r, const char *what, const float *a,
                    const float *b, size_t count)
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
        (void)fprintf(
            stderr, "%s: %s: norm %g, worst %g of %g\n",
            fm_json_get_str(fm_json_get(r->json, "config"), "model_type"), what,
            sqrt(gap / size), worst, largest);
    }
    CU_ASSERT(good);
}

static bool near(double a, double b)
{
    return fabs(a - b) <= TOLERANCE * fabs(b);
}

/* @p got is a block of the model; the file has the order of the model in
 * transformers. */
static void compare_tensors(const struct reference *r, const float *got,
                            const char *name)
{
    size_t left = 0;
    size_t count = 0;
    const float *want = block(r, name, &left);
    const fm_json_t *order = fm_json_get(r->json, "tensors");

    (void)fm_engine_model_params(r->model, &count);
    CU_ASSERT_FATAL(fm_json_len(order) == count);
    for (size_t i = 0; i < count; i++) {
        const char *tensor = fm_json_str(fm_json_at(order, i));
        const fm_json_t *shape = fm_json_at(fm_json_get(r->json, "shapes"), i);
        const fm_engine_param_t *param = fm_engine_model_find(r->model, tensor);
        CU_ASSERT_PTR_NOT_NULL_FATAL(param);
        CU_ASSERT(fm_json_len(shape) == param->rank);
        for (size_t d = 0; d < param->rank; d++) {
            CU_ASSERT(fm_json_int_or(fm_json_at(shape, d), -1) ==
                      (int64_t)param->shape[d]);
        }
        CU_ASSERT_FATAL(param->count <= left);
        compare(r, tensor, got + param->offset, want, param->count);
        want += param->count;
        left -= param->count;
    }
    CU_ASSERT(left == 0);
}

/* As transformers writes it, the configuration says the same. */
static void test_saved_config(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        struct reference r;
        fm_engine_config_t saved;

        reference_open(&r, names[n]);
        FM_ASSERT_OK(fm_engine_config_parse(fm_json_get(r.json, "saved_config"),
                                            &saved, &r.err),
                     &r.err);
        fm_json_t *a = fm_engine_config_to_json(&saved);
        fm_json_t *b =
            fm_engine_config_to_json(fm_engine_model_config(r.model));
        CU_ASSERT(a && b && fm_json_equal(a, b));
        fm_json_drop(a);
        fm_json_drop(b);
        reference_close(&r);
    }
}

static void test_logits(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        struct reference r;
        fm_engine_pass_t *pass = NULL;
        int32_t rows[MAX_TOKENS];
        size_t count = 0;

        reference_open(&r, names[n]);
        const fm_engine_sample_t *sample = &r.samples.items[0];
        const float *want = block(&r, "logits", &count);
        float *got = fm_malloc(count * sizeof(*got));
        CU_ASSERT_PTR_NOT_NULL_FATAL(got);
        int32_t offsets[2] = {0, (int32_t)sample->count};
        const fm_engine_batch_t batch = {
            .tokens = sample->tokens, .offsets = offsets, .count = 1};
        for (int32_t i = 0; i < offsets[1]; i++) {
            rows[i] = i;
        }
        FM_ASSERT_OK(
            fm_engine_pass_create(r.model, FM_ENGINE_PASS_INFER, &pass, &r.err),
            &r.err);
        FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &r.err), &r.err);
        FM_ASSERT_OK(
            fm_engine_pass_logits(pass, rows, sample->count, got, &r.err),
            &r.err);
        compare(&r, "logits", got, want, count);
        free(got);
        fm_engine_pass_destroy(pass);
        reference_close(&r);
    }
}

/* All samples packed end to end; the rows that predict a counted token. */
struct packed {
    int32_t tokens[MAX_SAMPLES * MAX_TOKENS];
    int32_t offsets[MAX_SAMPLES + 1];
    int32_t rows[MAX_SAMPLES * MAX_TOKENS];
    int32_t targets[MAX_SAMPLES * MAX_TOKENS];
    float scales[MAX_SAMPLES * MAX_TOKENS];
    float logp[MAX_SAMPLES * MAX_TOKENS];
    size_t count;
};

static void pack(const struct samples *s, struct packed *p)
{
    int32_t at = 0;

    *p = (struct packed){0};
    for (size_t i = 0; i < s->count; i++) {
        for (size_t t = 0; t < s->items[i].count; t++, at++) {
            p->tokens[at] = s->tokens[i][t];
            if (t > 0 && s->masks[i][t]) {
                p->rows[p->count] = at - 1;
                p->targets[p->count++] = s->tokens[i][t];
            }
        }
        p->offsets[i + 1] = at;
    }
    for (size_t i = 0; i < p->count; i++) {
        p->scales[i] = -1.0F / (float)p->count;
    }
}

/* The gradient of the mean loss; returns the loss. */
static double gradient(struct reference *r, unsigned flags, float *grads)
{
    fm_engine_pass_t *pass = NULL;
    struct packed p;
    double loss = 0;

    pack(&r->samples, &p);
    const fm_engine_batch_t batch = {
        .tokens = p.tokens, .offsets = p.offsets, .count = r->samples.count};
    FM_ASSERT_OK(fm_engine_pass_create(r->model, flags, &pass, &r->err),
                 &r->err);
    FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &r->err), &r->err);
    FM_ASSERT_OK(fm_engine_pass_head(pass, p.rows, p.targets, p.scales, p.count,
                                     grads, p.logp, &r->err),
                 &r->err);
    FM_ASSERT_OK(fm_engine_pass_backward(pass, grads, &r->err), &r->err);
    fm_engine_pass_destroy(pass);
    for (size_t i = 0; i < p.count; i++) {
        loss += (double)p.scales[i] * (double)p.logp[i];
    }
    return loss;
}

static void test_gradient(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        struct reference r;

        reference_open(&r, names[n]);
        size_t size = fm_engine_model_size(r.model);
        float *grads = fm_calloc(size, sizeof(*grads));
        float *again = fm_calloc(size, sizeof(*again));
        CU_ASSERT_FATAL(grads && again);
        double loss = gradient(&r, FM_ENGINE_PASS_TRAIN, grads);
        CU_ASSERT(near(loss, fm_json_get_real(r.json, "loss", -1)));
        compare_tensors(&r, grads, "gradient");

        /* checkpointing changes no bit */
        double same = gradient(
            &r, FM_ENGINE_PASS_TRAIN | FM_ENGINE_PASS_CHECKPOINT, again);
        CU_ASSERT(same == loss);
        CU_ASSERT(memcmp(grads, again, size * sizeof(*grads)) == 0);
        free(grads);
        free(again);
        reference_close(&r);
    }
}

/* The adapter's gradient over a frozen model, with dropout. */
static void adapter_gradient(struct reference *r, unsigned flags,
                             const fm_engine_adapter_t *adapter, float *grads)
{
    const fm_engine_dropout_t dropout = {.key = 5, .first_row = 3};
    fm_engine_pass_t *pass = NULL;
    struct packed p;

    pack(&r->samples, &p);
    const fm_engine_batch_t batch = {
        .tokens = p.tokens, .offsets = p.offsets, .count = r->samples.count};
    FM_ASSERT_OK(fm_engine_pass_create(r->model, flags, &pass, &r->err),
                 &r->err);
    fm_engine_pass_set_adapter(pass, adapter);
    fm_engine_pass_set_adapter_grads(pass, grads);
    fm_engine_pass_set_dropout(pass, &dropout);
    FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &r->err), &r->err);
    FM_ASSERT_OK(fm_engine_pass_head(pass, p.rows, p.targets, p.scales, p.count,
                                     NULL, p.logp, &r->err),
                 &r->err);
    FM_ASSERT_OK(fm_engine_pass_backward(pass, NULL, &r->err), &r->err);
    fm_engine_pass_destroy(pass);
}

/* What is computed twice has the same dropout both times. */
static void test_checkpointed_adapter(void)
{
    const fm_engine_adapter_config_t config = {
        .rank = 3, .alpha = 6, .dropout = 0.3, .targets = 127};

    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        struct reference r;
        fm_engine_adapter_t *adapter = NULL;

        reference_open(&r, names[n]);
        FM_ASSERT_OK(
            fm_engine_adapter_create(&config, r.model, &adapter, &r.err),
            &r.err);
        size_t size = fm_engine_adapter_size(adapter);
        float *grads = fm_calloc(size, sizeof(*grads));
        float *again = fm_calloc(size, sizeof(*again));
        CU_ASSERT_FATAL(grads && again);
        weights_fill("adapter", grads, size);
        FM_ASSERT_OK(fm_engine_adapter_write(adapter, 0, size, grads, &r.err),
                     &r.err);
        memset(grads, 0, size * sizeof(*grads));
        adapter_gradient(&r, FM_ENGINE_PASS_TRAIN, adapter, grads);
        adapter_gradient(&r, FM_ENGINE_PASS_TRAIN | FM_ENGINE_PASS_CHECKPOINT,
                         adapter, again);
        CU_ASSERT(grads[0] != 0 && isfinite(grads[0]));
        CU_ASSERT(memcmp(grads, again, size * sizeof(*grads)) == 0);
        free(grads);
        free(again);
        fm_engine_adapter_destroy(adapter);
        reference_close(&r);
    }
}

static fm_engine_train_options_t options_read(const struct reference *r)
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
    CU_ASSERT_FATAL(fm_engine_schedule_parse(fm_json_get_str(o, "schedule"),
                                             &options.schedule));
    return options;
}

static void test_training(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        struct reference r;
        fm_engine_trainer_t *trainer = NULL;

        reference_open(&r, names[n]);
        fm_engine_train_options_t options = options_read(&r);
        FM_ASSERT_OK(
            fm_engine_trainer_create(&(fm_engine_parts_t){.model = r.model},
                                     &options, &trainer, &r.err),
            &r.err);
        size_t size = fm_engine_model_size(r.model);
        float *host = fm_malloc(size * sizeof(*host));
        CU_ASSERT_PTR_NOT_NULL_FATAL(host);
        const fm_json_t *steps = fm_json_get(r.json, "steps");
        CU_ASSERT(fm_json_len(steps) == 10);
        for (size_t i = 0; i < fm_json_len(steps); i++) {
            const fm_json_t *want = fm_json_at(steps, i);
            fm_engine_metrics_t m;
            FM_ASSERT_OK(fm_engine_trainer_sft(trainer, r.samples.items,
                                               r.samples.count, &m, &r.err),
                         &r.err);
            CU_ASSERT(near(m.loss, fm_json_get_real(want, "loss", -1)));
            CU_ASSERT(
                near(m.grad_norm, fm_json_get_real(want, "grad_norm", -1)));
            CU_ASSERT(fabs(m.learning_rate -
                           fm_json_get_real(want, "learning_rate", -1)) <
                      1e-12);
        }
        FM_ASSERT_OK(fm_engine_model_read(r.model, 0, size, host, &r.err),
                     &r.err);
        compare_tensors(&r, host, "params_after");
        free(host);
        fm_engine_trainer_destroy(trainer);
        reference_close(&r);
    }
}

/* One token at a time from the cache, as the whole sequence at once. */
static void test_greedy(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        struct reference r;
        int32_t prompt[MAX_TOKENS];
        int32_t want[MAX_TOKENS];
        fm_engine_completion_t completion = {0};

        reference_open(&r, names[n]);
        const fm_engine_prompt_t input = {
            .tokens = prompt,
            .count = ids_read(fm_json_get(r.json, "prompt"), prompt)};
        size_t count = ids_read(fm_json_get(r.json, "greedy"), want);
        const fm_engine_generate_options_t options = {.max_new_tokens = count};
        FM_ASSERT_OK(fm_engine_generate(r.model, &input, 1, &options,
                                        &completion, &r.err),
                     &r.err);
        CU_ASSERT_FATAL(completion.count == count);
        CU_ASSERT(memcmp(completion.tokens, want, count * sizeof(*want)) == 0);
        fm_engine_completion_fini(&completion);
        reference_close(&r);
    }
}

/* A prompt's continuation has the same bits alone and among others. */
static void test_alone_or_together(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        struct reference r;
        fm_engine_prompt_t prompts[MAX_SAMPLES] = {{0}};
        fm_engine_completion_t together[MAX_SAMPLES] = {{0}};
        const fm_engine_generate_options_t options = {
            .max_new_tokens = 15, .temperature = 0.8, .seed = 3};

        reference_open(&r, names[n]);
        size_t count = r.samples.count;
        for (size_t i = 0; i < count; i++) {
            prompts[i].tokens = r.samples.tokens[i];
            prompts[i].count = r.samples.items[i].count;
        }
        FM_ASSERT_OK(fm_engine_generate(r.model, prompts, count, &options,
                                        together, &r.err),
                     &r.err);
        for (size_t i = 0; i < count; i++) {
            const fm_engine_completion_t *a = &together[i];
            fm_engine_completion_t alone = {0};
            FM_ASSERT_OK(fm_engine_generate(r.model, &prompts[i], 1, &options,
                                            &alone, &r.err),
                         &r.err);
            CU_ASSERT(alone.count == 15 && a->count == 15);
            CU_ASSERT(memcmp(alone.tokens, a->tokens, 15 * sizeof(int32_t)) ==
                      0);
            CU_ASSERT(memcmp(alone.logp, a->logp, 15 * sizeof(float)) == 0);
            fm_engine_completion_fini(&alone);
            fm_engine_completion_fini(&together[i]);
        }
        reference_close(&r);
    }
}

/* Mean and deviation of a tensor that was just started. */
static void check_start(const fm_engine_param_t *param, const float *values,
                        double deviation)
{
    double sum = 0;
    double squares = 0;
    double count = (double)param->count;

    for (size_t i = 0; i < param->count; i++) {
        sum += (double)values[i];
        squares += (double)values[i] * (double)values[i];
    }
    if (param->rank == 1) {
        double all = strstr(param->name, ".bias") ? 0 : 1;
        CU_ASSERT(sum == all * count && squares == all * count);
        return;
    }
    CU_ASSERT(fabs(sum / count) < 5 * deviation / sqrt(count));
    CU_ASSERT(fabs(sqrt(squares / count) / deviation - 1) < 5 / sqrt(count));
}

static void test_start_values(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        struct reference r;
        fm_engine_model_t *model = NULL;
        size_t count = 0;

        reference_open(&r, names[n]);
        fm_engine_config_t config = *fm_engine_model_config(r.model);
        config.initializer_range = 0.3;
        double residual = 0.3 / sqrt(2.0 * (double)config.num_hidden_layers);
        FM_ASSERT_OK(fm_engine_model_create(&config, r.be, &model, &r.err),
                     &r.err);
        FM_ASSERT_OK(fm_engine_model_init(model, 11, &r.err), &r.err);
        const fm_engine_param_t *params = fm_engine_model_params(model, &count);
        for (size_t i = 0; i < count; i++) {
            bool writes = strstr(params[i].name, "o_proj") ||
                          strstr(params[i].name, "down_proj");
            check_start(&params[i],
                        fm_engine_model_data(model) + params[i].offset,
                        writes ? residual : 0.3);
        }
        fm_engine_model_destroy(model);
        reference_close(&r);
    }
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"configuration as saved", test_saved_config},
        {"logits", test_logits},
        {"gradients, plain and checkpointed", test_gradient},
        {"checkpointing with an adapter and dropout",
         test_checkpointed_adapter},
        {"ten AdamW steps", test_training},
        {"greedy decoding", test_greedy},
        {"decoding alone or together", test_alone_or_together},
        {"start values", test_start_values},
    };

    return fm_test_main("engine against transformers", cases,
                        FM_COUNT_OF(cases));
}
