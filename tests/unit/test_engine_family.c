/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine against transformers: for a small model of each family logits, the
 * gradient of every parameter, ten AdamW steps and greedy decoding, from files
 * that tests/ref/transformers_reference.py wrote; and checkpointed passes
 * against plain ones.
 */
#include "engine/model/pass.h"
#include "engine/serve/generate.h"
#include "engine_reference.h"

static const char *const names[] = {"family_llama3", "family_llama_bias",
                                    "family_mistral", "family_qwen2",
                                    "family_qwen3"};

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

static void family_open(struct reference *r, const char *name)
{
    reference_open(r, name);
    model_fill(r);
}

static const char *family_name(const struct reference *r)
{
    return fm_json_get_str(fm_json_get(r->json, "config"), "model_type");
}

/* @p got is a block of the model; the file has the order of the model in
 * transformers. */
static void compare_tensors(const struct reference *r, const float *got,
                            const char *name)
{
    size_t left = 0;
    size_t count = 0;
    const float *want = reference_block(r, name, &left);
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
        reference_compare(family_name(r), tensor, got + param->offset, want,
                          param->count);
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

        family_open(&r, names[n]);
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
        int32_t rows[REFERENCE_TOKENS_MAX];
        size_t count = 0;

        family_open(&r, names[n]);
        const fm_engine_sample_t *sample = &r.samples.items[0];
        const float *want = reference_block(&r, "logits", &count);
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
        reference_compare(family_name(&r), "logits", got, want, count);
        free(got);
        fm_engine_pass_destroy(pass);
        reference_close(&r);
    }
}

/* All samples packed end to end; the rows that predict a counted token. */
struct packed {
    int32_t tokens[REFERENCE_SAMPLES_MAX * REFERENCE_TOKENS_MAX];
    int32_t offsets[REFERENCE_SAMPLES_MAX + 1];
    int32_t rows[REFERENCE_SAMPLES_MAX * REFERENCE_TOKENS_MAX];
    int32_t targets[REFERENCE_SAMPLES_MAX * REFERENCE_TOKENS_MAX];
    float scales[REFERENCE_SAMPLES_MAX * REFERENCE_TOKENS_MAX];
    float logp[REFERENCE_SAMPLES_MAX * REFERENCE_TOKENS_MAX];
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

        family_open(&r, names[n]);
        size_t size = fm_engine_model_size(r.model);
        float *grads = fm_calloc(size, sizeof(*grads));
        float *again = fm_calloc(size, sizeof(*again));
        CU_ASSERT_FATAL(grads && again);
        double loss = gradient(&r, FM_ENGINE_PASS_TRAIN, grads);
        CU_ASSERT(reference_near(loss, fm_json_get_real(r.json, "loss", -1)));
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

        family_open(&r, names[n]);
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

static void test_training(void)
{
    for (size_t n = 0; n < FM_COUNT_OF(names); n++) {
        struct reference r;
        fm_engine_trainer_t *trainer = NULL;

        family_open(&r, names[n]);
        fm_engine_train_options_t options = reference_train_options(&r);
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
            CU_ASSERT(
                reference_near(m.loss, fm_json_get_real(want, "loss", -1)));
            CU_ASSERT(reference_near(m.grad_norm,
                                     fm_json_get_real(want, "grad_norm", -1)));
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
        int32_t prompt[REFERENCE_TOKENS_MAX];
        int32_t want[REFERENCE_TOKENS_MAX];
        fm_engine_completion_t completion = {0};

        family_open(&r, names[n]);
        const fm_engine_prompt_t input = {
            .tokens = prompt,
            .count = reference_ids(fm_json_get(r.json, "prompt"), prompt)};
        size_t count = reference_ids(fm_json_get(r.json, "greedy"), want);
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
        fm_engine_prompt_t prompts[REFERENCE_SAMPLES_MAX] = {{0}};
        fm_engine_completion_t together[REFERENCE_SAMPLES_MAX] = {{0}};
        const fm_engine_generate_options_t options = {
            .max_new_tokens = 15, .temperature = 0.8, .seed = 3};

        family_open(&r, names[n]);
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

        family_open(&r, names[n]);
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
