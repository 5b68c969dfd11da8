/* SPDX-License-Identifier: Apache-2.0 */
/* engine: adapters: configuration, table, arithmetic, dropout, memory. */
#include <math.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/model/pass.h"
#include "engine/train/train.h"
#include "engine_fixture.h"

enum { TOKENS = 24, LENGTH_A = 15, RANK = 3 };

#define ALL_TARGETS                                                            \
    "\"q_proj\", \"k_proj\", \"v_proj\", \"o_proj\", \"gate_proj\", "          \
    "\"up_proj\", \"down_proj\""

/* Whatever a family has besides plain products must not mind an adapter. */
static const fm_engine_config_t families[] = {
    {.vocab_size = 40,
     .hidden_size = 48,
     .intermediate_size = 76,
     .num_hidden_layers = 2,
     .num_attention_heads = 4,
     .num_key_value_heads = 2,
     .max_position_embeddings = 96,
     .attention_bias = true,
     .mlp_bias = true},
    {.family = FM_ENGINE_QWEN2, /* biases, a window, tied embeddings */
     .vocab_size = 40,
     .hidden_size = 48,
     .intermediate_size = 76,
     .num_hidden_layers = 2,
     .num_attention_heads = 4,
     .num_key_value_heads = 2,
     .max_position_embeddings = 96,
     .sliding_window = 6,
     .tie_word_embeddings = true},
    {.family = FM_ENGINE_QWEN3, /* norms of heads; heads wider than hidden */
     .vocab_size = 40,
     .hidden_size = 48,
     .intermediate_size = 76,
     .num_hidden_layers = 2,
     .num_attention_heads = 4,
     .num_key_value_heads = 1,
     .head_dim = 18,
     .max_position_embeddings = 96},
};

static void family_open(struct fixture *f, size_t family, uint64_t seed)
{
    *f = (struct fixture){0};
    FM_ASSERT_OK(fm_engine_backend_create_cpu(&f->be, &f->err), &f->err);
    FM_ASSERT_OK(
        fm_engine_model_create(&families[family], f->be, &f->model, &f->err),
        &f->err);
    FM_ASSERT_OK(fm_engine_model_init(f->model, seed, &f->err), &f->err);
}

static fm_status_t parse(const char *text, fm_engine_adapter_config_t *config,
                         fm_error_t *err)
{
    fm_json_t *json = NULL;

    FM_ASSERT_OK(fm_json_parse(text, strlen(text), "test", &json, err), err);
    fm_status_t rc = fm_engine_adapter_config_parse(json, config, err);
    fm_json_drop(json);
    return rc;
}

static void test_config(void)
{
    static const struct {
        const char *text;
        const char *part;
    } bad[] = {
        {"[]", "want an object"},
        {"{}", "r: want"},
        {"{\"r\": 0}", "r: want"},
        {"{\"r\": -1}", "r: want"},
        {"{\"r\": 4097}", "r: want"},
        {"{\"r\": 2.5}", "r: want"},
        {"{\"r\": 2, \"alpha\": 0}", "alpha: want"},
        {"{\"r\": 2, \"alpha\": \"1\"}", "alpha: want"},
        {"{\"r\": 2, \"dropout\": 1}", "dropout: want"},
        {"{\"r\": 2, \"dropout\": -0.1}", "dropout: want"},
        {"{\"r\": 2, \"target_modules\": []}", "target_modules: want"},
        {"{\"r\": 2, \"target_modules\": \"q_proj\"}", "want a list"},
        {"{\"r\": 2, \"target_modules\": [\"q_proj\", \"q_proj\"]}",
         "target_modules[1]"},
        {"{\"r\": 2, \"target_modules\": [\"lm_head\"]}", "target_modules[0]"},
        {"{\"r\": 2, \"lora_alpha\": 4}", "lora_alpha: unknown"},
    };
    fm_engine_adapter_config_t config = {0};
    fm_error_t err = {0};

    for (size_t i = 0; i < FM_COUNT_OF(bad); i++) {
        CU_ASSERT(fixture_refused(parse(bad[i].text, &config, &err),
                                  FM_ERR_INVALID, &err, bad[i].part));
    }
    FM_ASSERT_OK(parse("{\"r\": 4}", &config, &err), &err);
    CU_ASSERT(config.rank == 4 && config.alpha == 4 && config.dropout == 0 &&
              config.targets == (FM_ENGINE_TARGET_Q | FM_ENGINE_TARGET_V));
    FM_ASSERT_OK(parse("{\"r\": 8, \"alpha\": 16, \"dropout\": 0.05, "
                       "\"target_modules\": [" ALL_TARGETS "]}",
                       &config, &err),
                 &err);
    fm_json_t *json = fm_engine_adapter_config_to_json(&config);
    char *text = fm_json_canonical(json);
    CU_ASSERT_PTR_NOT_NULL_FATAL(text);
    CU_ASSERT_STRING_EQUAL(text,
                           "{\"alpha\":16,\"dropout\":0.05,\"r\":8,"
                           "\"target_modules\":[\"down_proj\",\"gate_proj\","
                           "\"k_proj\",\"o_proj\",\"q_proj\",\"up_proj\","
                           "\"v_proj\"]}");
    free(text);
    fm_json_drop(json);
    CU_ASSERT_STRING_EQUAL(fm_engine_target_name(FM_ENGINE_TARGET_UP),
                           "up_proj");
    CU_ASSERT_PTR_NULL(fm_engine_target_name((fm_engine_target_t)3));
}

static fm_engine_adapter_t *adapter_open(struct fixture *f, uint32_t targets,
                                         double dropout)
{
    const fm_engine_adapter_config_t config = {
        .rank = RANK, .alpha = 6, .dropout = dropout, .targets = targets};
    fm_engine_adapter_t *adapter = NULL;

    FM_ASSERT_OK(fm_engine_adapter_create(&config, f->model, &adapter, &f->err),
                 &f->err);
    FM_ASSERT_OK(fm_engine_adapter_init(adapter, 5, &f->err), &f->err);
    return adapter;
}

/* Both A and B away from zero. */
static void adapter_shake(struct fixture *f, fm_engine_adapter_t *adapter)
{
    size_t size = fm_engine_adapter_size(adapter);
    float *host = fm_malloc(size * sizeof(*host));
    fm_rng_t rng;

    CU_ASSERT_PTR_NOT_NULL_FATAL(host);
    fm_rng_init(&rng, 11);
    for (size_t i = 0; i < size; i++) {
        host[i] = (float)(0.2 * fm_rng_normal(&rng));
    }
    FM_ASSERT_OK(fm_engine_adapter_write(adapter, 0, size, host, &f->err),
                 &f->err);
    free(host);
}

static void test_table(void)
{
    static const struct {
        const char *name;
        size_t shape[2];
    } want[] = {
        {"base_model.model.model.layers.1.self_attn.k_proj.lora_A.weight",
         {RANK, 48}},
        {"base_model.model.model.layers.1.self_attn.k_proj.lora_B.weight",
         {24, RANK}},
        {"base_model.model.model.layers.1.mlp.up_proj.lora_A.weight",
         {RANK, 48}},
        {"base_model.model.model.layers.1.mlp.up_proj.lora_B.weight",
         {76, RANK}},
        {"base_model.model.model.layers.1.mlp.down_proj.lora_A.weight",
         {RANK, 76}},
        {"base_model.model.model.layers.1.mlp.down_proj.lora_B.weight",
         {48, RANK}},
    };
    struct fixture f;
    size_t count = 0;
    size_t size = 0;

    fixture_open(&f, 1);
    fm_engine_adapter_t *adapter = adapter_open(
        &f, FM_ENGINE_TARGET_K | FM_ENGINE_TARGET_UP | FM_ENGINE_TARGET_DOWN,
        0);
    const fm_engine_param_t *params = fm_engine_adapter_params(adapter, &count);
    CU_ASSERT_FATAL(count == 12);
    for (size_t i = 0; i < FM_COUNT_OF(want); i++) {
        const fm_engine_param_t *p = &params[6 + i];
        CU_ASSERT_STRING_EQUAL(p->name, want[i].name);
        CU_ASSERT(p->rank == 2 && p->shape[0] == want[i].shape[0] &&
                  p->shape[1] == want[i].shape[1]);
        CU_ASSERT(fm_engine_adapter_find(adapter, want[i].name) == p);
    }
    for (size_t i = 0; i < count; i++) {
        CU_ASSERT(params[i].offset == size);
        size += params[i].count;
        float *host = fm_calloc(params[i].count, sizeof(*host));
        CU_ASSERT_PTR_NOT_NULL_FATAL(host);
        FM_ASSERT_OK(fm_engine_adapter_read(adapter, params[i].offset,
                                            params[i].count, host, &f.err),
                     &f.err);
        double bound = 1 / sqrt((double)params[i].shape[1]);
        double largest = 0;
        for (size_t j = 0; j < params[i].count; j++) {
            largest = fmax(largest, fabs((double)host[j]));
        }
        CU_ASSERT(i % 2 == 0 ? largest > 0.9 * bound && largest <= bound
                             : largest == 0);
        free(host);
    }
    CU_ASSERT(size == fm_engine_adapter_size(adapter));
    CU_ASSERT_PTR_NULL(fm_engine_adapter_find(adapter, "lora"));
    float one;
    CU_ASSERT(
        fixture_refused(fm_engine_adapter_read(adapter, size, 1, &one, &f.err),
                        FM_ERR_INVALID, &f.err, "outside the adapter"));
    fm_engine_adapter_destroy(adapter);
    fixture_close(&f);
}

/* --- the pass ------------------------------------------------------------ */

struct batch {
    int32_t tokens[TOKENS];
    int32_t offsets[3];
    int32_t rows[TOKENS];
    int32_t targets[TOKENS];
    float scales[TOKENS];
};

static void batch_fill(struct batch *b)
{
    fm_rng_t rng;

    fm_rng_init(&rng, 3);
    b->offsets[0] = 0;
    b->offsets[1] = LENGTH_A;
    b->offsets[2] = TOKENS;
    for (int32_t i = 0; i < TOKENS; i++) {
        b->tokens[i] = (int32_t)fm_rng_below(&rng, 40);
        b->targets[i] = (int32_t)fm_rng_below(&rng, 40);
        b->scales[i] = (float)fm_rng_normal(&rng);
        b->rows[i] = i;
    }
}

static void logits_get(struct fixture *f, fm_engine_pass_t *pass,
                       const struct batch *b, float *logits)
{
    const fm_engine_batch_t batch = {
        .tokens = b->tokens, .offsets = b->offsets, .count = 2};

    FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &f->err), &f->err);
    FM_ASSERT_OK(fm_engine_pass_logits(pass, b->rows, TOKENS, logits, &f->err),
                 &f->err);
}

/* W += scale · B · A for one target of one layer, in float64. */
static void merge(struct fixture *f, const fm_engine_adapter_t *adapter,
                  const fm_engine_param_t *a, const fm_engine_param_t *b)
{
    const char *stem = a->name + strlen("base_model.model.");
    char name[96];

    (void)snprintf(name, sizeof(name), "%.*sweight",
                   (int)(strlen(stem) - strlen("lora_A.weight")), stem);
    const fm_engine_param_t *w = fm_engine_model_find(f->model, name);
    CU_ASSERT_PTR_NOT_NULL_FATAL(w);
    const float *block = fm_engine_adapter_data(adapter);
    float *weight = fm_engine_model_data(f->model) + w->offset;
    for (size_t i = 0; i < w->shape[0]; i++) {
        for (size_t j = 0; j < w->shape[1]; j++) {
            double sum = 0;
            for (size_t r = 0; r < RANK; r++) {
                sum += (double)block[b->offset + i * RANK + r] *
                       (double)block[a->offset + r * w->shape[1] + j];
            }
            weight[i * w->shape[1] + j] += (float)(2.0 * sum);
        }
    }
}

/* An adapter at its start changes no bit; a trained one is the same as adding
 * it into the weights, whatever part of a fused matrix it is on. */
static void merged_check(size_t family)
{
    enum { VOCAB = 40, LOGITS = TOKENS * VOCAB };
    static float plain[LOGITS], adapted[LOGITS], merged[LOGITS];
    struct batch b;

    batch_fill(&b);
    for (uint32_t set = 1; set < 256; set <<= 1) {
        uint32_t targets = set < 128 ? set : 127; /* each alone, then all */
        struct fixture f;
        fm_engine_pass_t *pass = NULL;
        size_t count = 0;
        double gap = 0;
        double change = 0;

        family_open(&f, family, 1);
        fm_engine_adapter_t *adapter = adapter_open(&f, targets, 0.5);
        FM_ASSERT_OK(fm_engine_pass_create(f.model, false, &pass, &f.err),
                     &f.err);
        logits_get(&f, pass, &b, plain);
        fm_engine_pass_set_adapter(pass, adapter);
        logits_get(&f, pass, &b, adapted);
        CU_ASSERT(memcmp(plain, adapted, sizeof(plain)) == 0);
        adapter_shake(&f, adapter);
        logits_get(&f, pass, &b, adapted);
        fm_engine_pass_set_adapter(pass, NULL);
        logits_get(&f, pass, &b, merged);
        CU_ASSERT(memcmp(plain, merged, sizeof(plain)) == 0);
        const fm_engine_param_t *params =
            fm_engine_adapter_params(adapter, &count);
        for (size_t i = 0; i < count; i += 2) {
            merge(&f, adapter, &params[i], &params[i + 1]);
        }
        logits_get(&f, pass, &b, merged);
        for (size_t i = 0; i < LOGITS; i++) {
            gap = fmax(gap, fabs((double)(adapted[i] - merged[i])));
            change = fmax(change, fabs((double)(adapted[i] - plain[i])));
        }
        CU_ASSERT(change > 1e-2 && gap < 1e-5);
        fm_engine_pass_destroy(pass);
        fm_engine_adapter_destroy(adapter);
        fixture_close(&f);
    }
}

static void test_merged(void)
{
    for (size_t family = 0; family < FM_COUNT_OF(families); family++) {
        merged_check(family);
    }
}

/* --- gradients ----------------------------------------------------------- */

static const fm_engine_dropout_t stream = {.key = 77, .first_row = 5};

static double objective(struct fixture *f, fm_engine_pass_t *pass,
                        const struct batch *b, float *grads)
{
    const fm_engine_batch_t batch = {
        .tokens = b->tokens, .offsets = b->offsets, .count = 2};
    const fm_engine_head_t head = {.rows = b->rows,
                                   .targets = b->targets,
                                   .scales = grads ? b->scales : NULL,
                                   .logp_out = (float[TOKENS]){0}};
    double sum = 0;

    fm_engine_pass_set_adapter_grads(pass, grads);
    FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &f->err), &f->err);
    FM_ASSERT_OK(fm_engine_pass_logprobs(pass, &head, TOKENS, NULL, &f->err),
                 &f->err);
    if (grads) {
        FM_ASSERT_OK(fm_engine_pass_backward(pass, NULL, &f->err), &f->err);
    }
    for (size_t i = 0; i < TOKENS; i++) {
        sum += (double)b->scales[i] * (double)head.logp_out[i];
    }
    return sum;
}

/* The slope along the gradient of one matrix against finite differences. */
static void check_matrix(struct fixture *f, fm_engine_pass_t *pass,
                         fm_engine_adapter_t *adapter, const struct batch *b,
                         const fm_engine_param_t *param, const float *grads)
{
    const double h = 2e-3;
    float *at = fm_engine_adapter_data(adapter) + param->offset;
    float *keep = fm_malloc(param->count * sizeof(*keep));
    double size = 0;
    double slope = 0;

    CU_ASSERT_PTR_NOT_NULL_FATAL(keep);
    memcpy(keep, at, param->count * sizeof(*keep));
    for (size_t i = 0; i < param->count; i++) {
        double g = (double)grads[param->offset + i];
        size += g * g;
    }
    size = sqrt(size);
    CU_ASSERT(size > 1e-3);
    for (int side = 1; side >= -1; side -= 2) {
        for (size_t i = 0; i < param->count; i++) {
            double g = (double)grads[param->offset + i];
            at[i] = (float)((double)keep[i] + side * h * g / size);
        }
        slope += side * objective(f, pass, b, NULL) / (2 * h);
    }
    memcpy(at, keep, param->count * sizeof(*keep));
    bool good = fabs(slope - size) <= 0.02 * size;
    if (!good) {
        (void)fprintf(stderr, "%s: slope %g, gradient %g\n", param->name, slope,
                      size);
    }
    CU_ASSERT(good);
    free(keep);
}

static void gradient_check(size_t family, double dropout, unsigned flags)
{
    struct fixture f;
    struct batch b;
    fm_engine_pass_t *pass = NULL;
    size_t count = 0;

    batch_fill(&b);
    family_open(&f, family, 3);
    float *base = fm_engine_model_data(f.model);
    fm_rng_t rng;
    fm_rng_init(&rng, 4); /* start values are small: bend the model more */
    for (size_t i = 0; i < fm_engine_model_size(f.model); i++) {
        base[i] = (float)(0.3 * fm_rng_normal(&rng));
    }
    fm_engine_adapter_t *adapter = adapter_open(&f, 127, dropout);
    adapter_shake(&f, adapter);
    FM_ASSERT_OK(fm_engine_pass_create(f.model, flags, &pass, &f.err), &f.err);
    fm_engine_pass_set_adapter(pass, adapter);
    fm_engine_pass_set_dropout(pass, &stream);
    float *grads = fm_calloc(fm_engine_adapter_size(adapter), sizeof(*grads));
    CU_ASSERT_PTR_NOT_NULL_FATAL(grads);
    double with = objective(&f, pass, &b, grads);
    const fm_engine_param_t *params = fm_engine_adapter_params(adapter, &count);
    for (size_t i = 0; i < count; i++) {
        check_matrix(&f, pass, adapter, &b, &params[i], grads);
    }
    fm_engine_pass_set_dropout(pass, NULL);
    CU_ASSERT((objective(&f, pass, &b, NULL) == with) == (dropout == 0));
    free(grads);
    fm_engine_pass_destroy(pass);
    fm_engine_adapter_destroy(adapter);
    fixture_close(&f);
}

static void test_gradient(void)
{
    const unsigned train = FM_ENGINE_PASS_TRAIN;

    for (size_t family = 0; family < FM_COUNT_OF(families); family++) {
        gradient_check(family, 0, train);
        gradient_check(family, 0.3, train);
        gradient_check(family, 0.3, train | FM_ENGINE_PASS_CHECKPOINT);
    }
}

/* --- training ------------------------------------------------------------ */

/* The gradient of one step, dropout 0.5, cut into micro-batches of @p tokens;
 * @p step steps were done before. */
static void dropout_gradient(size_t tokens, uint64_t seed, uint64_t step,
                             float *grads)
{
    fm_engine_train_options_t options;
    fm_engine_trainer_t *trainer = NULL;
    struct fixture f;
    struct batch b;
    fm_engine_metrics_t m;

    batch_fill(&b);
    const fm_engine_sample_t samples[3] = {
        {.tokens = b.tokens, .count = 9},
        {.tokens = b.tokens + 9, .count = 6},
        {.tokens = b.tokens + 15, .count = 9}};
    fixture_open(&f, 1);
    fm_engine_adapter_t *adapter = adapter_open(&f, 127, 0.5);
    adapter_shake(&f, adapter);
    fm_engine_train_defaults(&options);
    options.learning_rate = 0;
    options.schedule = FM_ENGINE_SCHEDULE_CONSTANT;
    options.micro_batch_tokens = tokens;
    options.seed = seed;
    const fm_engine_parts_t parts = {.model = f.model, .adapter = adapter};
    FM_ASSERT_OK(fm_engine_trainer_create(&parts, &options, &trainer, &f.err),
                 &f.err);
    fm_engine_trainer_set_step(trainer, step);
    FM_ASSERT_OK(fm_engine_trainer_sft(trainer, samples, 3, &m, &f.err),
                 &f.err);
    FM_ASSERT_OK(fm_engine_trainer_read(trainer, 0, FM_ENGINE_PLANE_GRADIENT, 0,
                                        fm_engine_adapter_size(adapter), grads,
                                        &f.err),
                 &f.err);
    fm_engine_trainer_destroy(trainer);
    fm_engine_adapter_destroy(adapter);
    fixture_close(&f);
}

static double distance(const float *a, const float *b, size_t count)
{
    double gap = 0;
    double size = 0;

    for (size_t i = 0; i < count; i++) {
        gap += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(gap / size);
}

/* However a step is cut, its masks are the same; another step, another seed
 * have others. */
static void test_dropout_steps(void)
{
    enum { SIZE = 2 * RANK * (48 * 6 + 76 + 48 * 2 + 24 * 2 + 76 * 2 + 48) };
    static float whole[SIZE], cut[SIZE], other[SIZE];

    dropout_gradient(4096, 1, 0, whole);
    dropout_gradient(4, 1, 0, cut);
    CU_ASSERT(distance(cut, whole, SIZE) < 1e-5);
    dropout_gradient(4096, 1, 0, cut);
    CU_ASSERT(memcmp(cut, whole, sizeof(whole)) == 0);
    dropout_gradient(4096, 1, 1, other);
    CU_ASSERT(distance(other, whole, SIZE) > 0.1);
    dropout_gradient(4096, 2, 0, other);
    CU_ASSERT(distance(other, whole, SIZE) > 0.1);
}

/* A backend that counts what is asked of it. */
static void *(*real_alloc)(fm_engine_backend_t *be, size_t bytes);
static size_t allocated;

static void *counting_alloc(fm_engine_backend_t *be, size_t bytes)
{
    allocated += bytes;
    return real_alloc(be, bytes);
}

static size_t trainer_bytes(struct fixture *f, fm_engine_adapter_t *adapter)
{
    const int32_t tokens[4] = {1, 2, 3, 4};
    const fm_engine_sample_t sample = {.tokens = tokens, .count = 4};
    const fm_engine_parts_t parts = {.model = f->model, .adapter = adapter};
    fm_engine_trainer_t *trainer = NULL;

    allocated = 0;
    FM_ASSERT_OK(fm_engine_trainer_create(&parts, NULL, &trainer, &f->err),
                 &f->err);
    FM_ASSERT_OK(fm_engine_trainer_sft(trainer, &sample, 1, NULL, &f->err),
                 &f->err);
    fm_engine_trainer_destroy(trainer);
    return allocated;
}

/* Training an adapter asks for three blocks of its own size and two small
 * products; of the base, for nothing. */
static void test_memory(void)
{
    struct fixture f;

    fixture_open(&f, 1);
    fm_engine_ops_t ops = *f.be->ops;
    const fm_engine_ops_t *real = f.be->ops;
    real_alloc = ops.alloc;
    ops.alloc = counting_alloc;
    f.be->ops = &ops;
    size_t base = fm_engine_model_size(f.model) * sizeof(float);
    fm_engine_adapter_t *adapter = adapter_open(&f, 127, 0);
    size_t small = fm_engine_adapter_size(adapter) * sizeof(float);
    size_t scratch = (size_t)2 * 4 * RANK * sizeof(float);
    size_t whole = trainer_bytes(&f, NULL);
    size_t part = trainer_bytes(&f, adapter);
    CU_ASSERT(whole - 3 * base == part - 3 * small - scratch);
    f.be->ops = real;
    fm_engine_adapter_destroy(adapter);
    fixture_close(&f);
}

static void test_no_memory(void)
{
    const fm_engine_adapter_config_t config = {
        .rank = 2, .alpha = 2, .dropout = 0.1, .targets = 127};
    const int32_t tokens[3] = {1, 2, 3};
    const fm_engine_sample_t sample = {.tokens = tokens, .count = 3};
    struct fixture f;
    bool worked = false;

    fixture_open(&f, 1);
    for (int nth = 1; nth < 200 && !worked; nth++) {
        fm_engine_adapter_t *adapter = NULL;
        fm_engine_value_t *value = NULL;
        fm_engine_trainer_t *trainer = NULL;
        char spec[32];

        (void)snprintf(spec, sizeof(spec), "base.alloc:%d", nth);
        CU_ASSERT_FATAL(fm_fault_arm(spec));
        fm_status_t rc =
            fm_engine_adapter_create(&config, f.model, &adapter, &f.err);
        if (rc >= 0 && (rc = fm_engine_adapter_init(adapter, 1, &f.err)) >= 0 &&
            (rc = fm_engine_value_create(f.model, &value, &f.err)) >= 0 &&
            (rc = fm_engine_value_init(value, 1, &f.err)) >= 0) {
            const fm_engine_parts_t parts = {f.model, adapter, value};
            rc = fm_engine_trainer_create(&parts, NULL, &trainer, &f.err);
        }
        if (rc >= 0) {
            rc = fm_engine_trainer_sft(trainer, &sample, 1, NULL, &f.err);
        }
        worked = rc >= 0;
        CU_ASSERT(worked || rc == FM_ERR_NO_MEMORY);
        CU_ASSERT(fm_fault_arm(NULL));
        if (trainer) { /* a failed step does not spoil the next */
            FM_ASSERT_OK(
                fm_engine_trainer_sft(trainer, &sample, 1, NULL, &f.err),
                &f.err);
        }
        fm_engine_trainer_destroy(trainer);
        fm_engine_value_destroy(value);
        fm_engine_adapter_destroy(adapter);
    }
    CU_ASSERT(worked);
    fixture_close(&f);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"configuration", test_config},
        {"table and start", test_table},
        {"as if merged", test_merged},
        {"gradient", test_gradient},
        {"dropout over steps", test_dropout_steps},
        {"memory of a frozen base", test_memory},
        {"fault: out of memory", test_no_memory},
    };

    return fm_test_main("engine adapters", cases, FM_COUNT_OF(cases));
}
