/* SPDX-License-Identifier: Apache-2.0 */
/* engine: many prompts and adapters over one paged cache. */
#include <math.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/model/pass.h"
#include "engine/serve/pages.h"
#include "engine/serve/sample.h"
#include "engine/serve/server.h"
#include "engine_fixture.h"

enum { PROMPTS = 14, LONGEST = 60, FRESH = 18, VOCAB = 40, ADAPTERS = 3 };

/* Prompts of which many begin alike, for the base and for adapters. */
struct data {
    fm_engine_prompt_t prompts[PROMPTS];
    int32_t tokens[PROMPTS][LONGEST];
    fm_engine_adapter_t *adapters[ADAPTERS];
    fm_digest_t digests[ADAPTERS];
};

static void random_fill(float *to, size_t count, double scale, fm_rng_t *rng)
{
    for (size_t i = 0; i < count; i++) {
        to[i] = (float)(scale * fm_rng_normal(rng));
    }
}

static void adapters_open(struct fixture *f, struct data *d, fm_rng_t *rng)
{
    static const fm_engine_adapter_config_t configs[ADAPTERS] = {
        {.rank = 4, .alpha = 8, .targets = 127},
        {.rank = 20, .alpha = 10, .targets = FM_ENGINE_TARGET_V},
        {.rank = 1,
         .alpha = 2,
         .targets =
             FM_ENGINE_TARGET_Q | FM_ENGINE_TARGET_O | FM_ENGINE_TARGET_DOWN}};

    for (size_t i = 0; i < ADAPTERS; i++) {
        FM_ASSERT_OK(fm_engine_adapter_create(&configs[i], f->model,
                                              &d->adapters[i], &f->err),
                     &f->err);
        size_t size = fm_engine_adapter_size(d->adapters[i]);
        float *values = fm_calloc(size, sizeof(*values));
        CU_ASSERT_PTR_NOT_NULL_FATAL(values);
        random_fill(values, size, 0.3, rng);
        FM_ASSERT_OK(
            fm_engine_adapter_write(d->adapters[i], 0, size, values, &f->err),
            &f->err);
        free(values);
        d->digests[i] = fm_sha256(&i, sizeof(i));
    }
}

static void data_open(struct fixture *f, struct data *d, uint64_t seed)
{
    fm_rng_t rng;

    *d = (struct data){0};
    fm_rng_init(&rng, seed);
    adapters_open(f, d, &rng);
    for (size_t p = 0; p < PROMPTS; p++) {
        size_t count = 1 + (size_t)fm_rng_below(&rng, LONGEST);
        size_t model = (size_t)fm_rng_below(&rng, ADAPTERS + 1);
        size_t of = p > 0 ? (size_t)fm_rng_below(&rng, p) : 0;
        size_t common = p > 0 && p % 4 != 0 ? d->prompts[of].count : 0;
        for (size_t i = 0; i < count; i++) {
            d->tokens[p][i] = i < common ? d->tokens[of][i]
                                         : (int32_t)fm_rng_below(&rng, VOCAB);
        }
        d->prompts[p] = (fm_engine_prompt_t){
            .tokens = d->tokens[p], .count = count, .sample = p % 3};
        if (common > 0 && p % 2 == 1) { /* of the same adapter, too */
            d->prompts[p].adapter = d->prompts[of].adapter;
            d->prompts[p].adapter_digest = d->prompts[of].adapter_digest;
        } else if (model < ADAPTERS) {
            d->prompts[p].adapter = d->adapters[model];
            d->prompts[p].adapter_digest =
                model == 0 ? NULL : &d->digests[model];
        }
    }
}

static void data_close(struct data *d)
{
    for (size_t i = 0; i < ADAPTERS; i++) {
        fm_engine_adapter_destroy(d->adapters[i]);
    }
}

/* All parameters random, biases and norms too: sharper choices. */
static void model_randomise(struct fixture *f)
{
    size_t size = fm_engine_model_size(f->model);
    float *params = fm_calloc(size, sizeof(*params));
    fm_rng_t rng;

    CU_ASSERT_PTR_NOT_NULL_FATAL(params);
    fm_rng_init(&rng, 9);
    random_fill(params, size, 0.35, &rng);
    FM_ASSERT_OK(fm_engine_model_write(f->model, 0, size, params, &f->err),
                 &f->err);
    free(params);
}

static void model_open(struct fixture *f)
{
    fixture_open(f, 1);
    model_randomise(f);
}

/* Where results of a call go. */
struct seen {
    fm_engine_completion_t done[PROMPTS];
    size_t order[PROMPTS];
    size_t count;
    size_t failed;
    size_t polls_left; /* until poll() ends the call; 0: never */
    bool refuse;       /* done() fails */
    fm_error_t why;
};

static fm_status_t seen_done(void *ctx, size_t prompt,
                             fm_engine_completion_t *completion,
                             fm_status_t status, const fm_error_t *why,
                             fm_error_t *err)
{
    struct seen *seen = ctx;

    CU_ASSERT_FATAL(prompt < PROMPTS && seen->count < PROMPTS);
    seen->order[seen->count++] = prompt;
    if (completion) {
        CU_ASSERT_PTR_NULL(seen->done[prompt].tokens);
        seen->done[prompt] = *completion;
    } else {
        CU_ASSERT(status < 0);
        seen->failed++;
        seen->why = *why;
    }
    return seen->refuse ? fm_error_set(err, FM_ERR_IO, "nobody listens")
                        : FM_OK;
}

static fm_status_t seen_poll(void *ctx, fm_error_t *err)
{
    struct seen *seen = ctx;

    return seen->polls_left > 0 && --seen->polls_left == 0
               ? fm_error_set(err, FM_ERR_CANCELLED, "enough")
               : FM_OK;
}

static void seen_fini(struct seen *seen)
{
    for (size_t p = 0; p < PROMPTS; p++) {
        fm_engine_completion_fini(&seen->done[p]);
    }
    *seen = (struct seen){0};
}

static fm_status_t serve(fm_engine_server_t *server,
                         const fm_engine_prompt_t *prompts, size_t count,
                         const fm_engine_generate_options_t *options,
                         struct seen *seen, fm_error_t *err)
{
    const fm_engine_sink_t sink = {seen, seen_done, seen_poll};

    return fm_engine_serve(server, prompts, count, options, &sink, err);
}

static fm_engine_server_t *server_open(struct fixture *f, size_t pages,
                                       size_t lanes, size_t rows)
{
    const fm_engine_config_t *c = fm_engine_model_config(f->model);
    size_t page = 2 * c->num_hidden_layers * c->num_key_value_heads *
                  c->head_dim * FM_ENGINE_PAGE_TOKENS * sizeof(float);
    const fm_engine_server_options_t options = {
        .kv_bytes = pages * page, .lanes = lanes, .step_rows = rows};
    fm_engine_server_t *server = NULL;

    FM_ASSERT_OK(fm_engine_server_create(f->model, &options, &server, &f->err),
                 &f->err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(server);
    return server;
}

static bool same(const fm_engine_completion_t *a,
                 const fm_engine_completion_t *b)
{
    return a->count == b->count && a->finish == b->finish && a->tokens &&
           b->tokens &&
           memcmp(a->tokens, b->tokens, a->count * sizeof(*a->tokens)) == 0 &&
           memcmp(a->logp, b->logp, a->count * sizeof(*a->logp)) == 0;
}

/* Each prompt alone, in a cache of its own. */
static void serve_alone(struct fixture *f, const struct data *d,
                        const fm_engine_generate_options_t *options,
                        struct seen *alone)
{
    for (size_t p = 0; p < PROMPTS; p++) {
        FM_ASSERT_OK(fm_engine_generate(f->model, &d->prompts[p], 1, options,
                                        &alone->done[p], &f->err),
                     &f->err);
    }
}

/* Random company, order, lanes, step sizes and page counts; calls follow one
 * another on one server, so pages of earlier ones are found. */
static void check_mixes(const fm_engine_generate_options_t *options)
{
    enum { MIXES = 16, CALLS = 3, LEAST = (LONGEST + FRESH + 15) / 16 };
    struct fixture f;
    struct data d;
    struct seen alone = {0};
    fm_engine_server_stats_t all = {0};
    fm_rng_t rng;

    model_open(&f);
    data_open(&f, &d, 5);
    fm_rng_init(&rng, options->seed + 77);
    serve_alone(&f, &d, options, &alone);
    for (size_t mix = 0; mix < MIXES; mix++) {
        size_t lanes = 1 + (size_t)fm_rng_below(&rng, PROMPTS);
        size_t rows = lanes + (size_t)fm_rng_below(&rng, 40);
        size_t pages = LEAST + (size_t)fm_rng_below(&rng, 16);
        fm_engine_server_t *server = server_open(&f, pages, lanes, rows);
        for (size_t call = 0; call < CALLS; call++) {
            fm_engine_prompt_t prompts[PROMPTS];
            size_t from[PROMPTS];
            struct seen seen = {0};
            size_t count = 1 + (size_t)fm_rng_below(&rng, PROMPTS);
            for (size_t i = 0; i < count; i++) {
                from[i] = (size_t)fm_rng_below(&rng, PROMPTS);
                prompts[i] = d.prompts[from[i]];
            }
            FM_ASSERT_OK(serve(server, prompts, count, options, &seen, &f.err),
                         &f.err);
            CU_ASSERT(seen.count == count && seen.failed == 0);
            for (size_t i = 0; i < count; i++) {
                CU_ASSERT(same(&seen.done[i], &alone.done[from[i]]));
            }
            seen_fini(&seen);
        }
        fm_engine_server_stats_t stats = fm_engine_server_stats(server);
        CU_ASSERT(stats.pages == pages ||
                  stats.pages == lanes * (96 / FM_ENGINE_PAGE_TOKENS));
        all.preemptions += stats.preemptions;
        all.shared_tokens += stats.shared_tokens;
        fm_engine_server_destroy(server);
    }
    CU_ASSERT(all.preemptions > 0); /* or the mixes test less than they say */
    CU_ASSERT(all.shared_tokens > 0);
    seen_fini(&alone);
    data_close(&d);
    fixture_close(&f);
}

static void test_mixes(void)
{
    const int32_t stops[2] = {3, 17}; /* lanes end at different times */
    const fm_engine_generate_options_t greedy = {.max_new_tokens = FRESH};
    const fm_engine_generate_options_t sampled = {.max_new_tokens = FRESH,
                                                  .temperature = 1.1,
                                                  .top_p = 0.9,
                                                  .top_k = 30,
                                                  .min_p = 0.001,
                                                  .repetition_penalty = 1.2,
                                                  .seed = 4,
                                                  .stop_ids = stops,
                                                  .stop_count = 2};

    check_mixes(&greedy);
    check_mixes(&sampled);
}

/* What was decoded is what the forward pass over the whole text thinks of it,
 * with the adapter in both. */
static void check_follows(struct fixture *f)
{
    struct data d;
    struct seen seen = {0};
    fm_engine_pass_t *pass = NULL;
    const fm_engine_generate_options_t options = {.max_new_tokens = FRESH};
    fm_engine_server_t *server = server_open(f, 40, 5, 16);

    data_open(f, &d, 11);
    FM_ASSERT_OK(serve(server, d.prompts, PROMPTS, &options, &seen, &f->err),
                 &f->err);
    FM_ASSERT_OK(fm_engine_pass_create(f->model, false, &pass, &f->err),
                 &f->err);
    for (size_t p = 0; p < PROMPTS; p++) {
        int32_t tokens[LONGEST + FRESH];
        int32_t rows[FRESH];
        float logits[FRESH][VOCAB];
        float logp[FRESH];
        size_t count = d.prompts[p].count;
        CU_ASSERT_FATAL(seen.done[p].count == FRESH);
        memcpy(tokens, d.tokens[p], count * sizeof(*tokens));
        memcpy(tokens + count, seen.done[p].tokens, FRESH * sizeof(*tokens));
        for (int32_t i = 0; i < FRESH; i++) {
            rows[i] = (int32_t)count - 1 + i;
        }
        const int32_t offsets[2] = {0, (int32_t)count + FRESH};
        const fm_engine_batch_t batch = {
            .tokens = tokens, .offsets = offsets, .count = 1};
        fm_engine_pass_set_adapter(pass, d.prompts[p].adapter);
        FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &f->err), &f->err);
        FM_ASSERT_OK(
            fm_engine_pass_logits(pass, rows, FRESH, &logits[0][0], &f->err),
            &f->err);
        FM_ASSERT_OK(fm_engine_pass_head(pass, rows, seen.done[p].tokens, NULL,
                                         FRESH, NULL, logp, &f->err),
                     &f->err);
        for (size_t i = 0; i < FRESH; i++) {
            float chosen = logits[i][seen.done[p].tokens[i]];
            for (size_t v = 0; v < VOCAB; v++) {
                CU_ASSERT(logits[i][v] <= chosen + 2e-4F);
            }
            CU_ASSERT(fabsf(logp[i] - seen.done[p].logp[i]) < 2e-4F);
        }
    }
    fm_engine_pass_destroy(pass);
    fm_engine_server_destroy(server);
    seen_fini(&seen);
    data_close(&d);
}

static void test_families(void)
{
    static const struct {
        fm_engine_family_t family;
        size_t window;
        bool bias;
    } families[] = {{FM_ENGINE_LLAMA, 0, false},
                    {FM_ENGINE_LLAMA, 0, true},
                    {FM_ENGINE_MISTRAL, 13, false},
                    {FM_ENGINE_QWEN2, 30, false},
                    {FM_ENGINE_QWEN3, 0, true}};

    for (size_t i = 0; i < FM_COUNT_OF(families); i++) {
        fm_engine_config_t config = fixture_config;
        struct fixture f = {0};
        config.family = families[i].family;
        config.sliding_window = families[i].window;
        config.windowed[0] = families[i].family == FM_ENGINE_QWEN2 ? 2 : 0;
        config.attention_bias = families[i].bias;
        config.mlp_bias =
            families[i].bias && families[i].family == FM_ENGINE_LLAMA;
        config.head_dim = families[i].family == FM_ENGINE_QWEN3 ? 20 : 0;
        FM_ASSERT_OK(fm_engine_backend_create_cpu(&f.be, &f.err), &f.err);
        FM_ASSERT_OK(fm_engine_model_create(&config, f.be, &f.model, &f.err),
                     &f.err);
        model_randomise(&f);
        check_follows(&f);
        fixture_close(&f);
    }
}

/* Equal prompts are computed once, in a call and from call to call. */
static void test_prefix(void)
{
    enum { COUNT = 60, SAME = 8 };
    struct fixture f;
    struct data d;
    struct seen first = {0};
    struct seen again = {0};
    int32_t tokens[COUNT];
    fm_engine_prompt_t prompts[SAME];
    const fm_engine_generate_options_t o = {.max_new_tokens = 4,
                                            .temperature = 1};
    size_t shared = (COUNT - 1) / FM_ENGINE_PAGE_TOKENS * FM_ENGINE_PAGE_TOKENS;

    model_open(&f);
    data_open(&f, &d, 3);
    for (size_t i = 0; i < COUNT; i++) {
        tokens[i] = (int32_t)(i * i % VOCAB);
    }
    for (size_t p = 0; p < SAME; p++) {
        prompts[p] =
            (fm_engine_prompt_t){.tokens = tokens, .count = COUNT, .sample = p};
    }
    fm_engine_server_t *server = server_open(&f, 64, SAME, 256);
    FM_ASSERT_OK(serve(server, prompts, SAME, &o, &first, &f.err), &f.err);
    fm_engine_server_stats_t stats = fm_engine_server_stats(server);
    CU_ASSERT(stats.shared_tokens == (SAME - 1) * shared);
    CU_ASSERT(stats.computed_tokens ==
              SAME * (COUNT + 3) - stats.shared_tokens);
    CU_ASSERT(!same(&first.done[0], &first.done[1])); /* samples differ */
    FM_ASSERT_OK(serve(server, prompts, SAME, &o, &again, &f.err), &f.err);
    stats = fm_engine_server_stats(server);
    CU_ASSERT(stats.shared_tokens == (2 * SAME - 1) * shared);
    for (size_t p = 0; p < SAME; p++) {
        CU_ASSERT(same(&first.done[p], &again.done[p]));
    }
    /* an adapter's pages are its own; without a digest only for the call */
    for (size_t round = 0; round < 4; round++) {
        const uint64_t hits[] = {0, 0, 0, shared};
        uint64_t before = fm_engine_server_stats(server).shared_tokens;
        seen_fini(&again);
        prompts[0].adapter = d.adapters[1];
        prompts[0].adapter_digest = round < 2 ? NULL : &d.digests[1];
        FM_ASSERT_OK(serve(server, prompts, 1, &o, &again, &f.err), &f.err);
        CU_ASSERT(fm_engine_server_stats(server).shared_tokens - before ==
                  hits[round]);
        CU_ASSERT(!same(&first.done[0], &again.done[0]));
    }
    uint64_t before = fm_engine_server_stats(server).shared_tokens;
    fm_engine_server_forget(server);
    seen_fini(&again);
    FM_ASSERT_OK(serve(server, prompts + 1, 1, &o, &again, &f.err), &f.err);
    CU_ASSERT(fm_engine_server_stats(server).shared_tokens == before);
    CU_ASSERT(same(&first.done[1], &again.done[0]));
    fm_engine_server_destroy(server);
    seen_fini(&first);
    seen_fini(&again);
    data_close(&d);
    fixture_close(&f);
}

/* Short ones leave at once and others take their place. */
static void test_order(void)
{
    struct fixture f;
    struct data d;
    struct seen seen = {0};
    const fm_engine_generate_options_t o = {.max_new_tokens = FRESH};

    model_open(&f);
    data_open(&f, &d, 5);
    fm_engine_server_t *server = server_open(&f, 200, 2, 64);
    seen.polls_left = 6;
    fm_status_t rc = serve(server, d.prompts, PROMPTS, &o, &seen, &f.err);
    CU_ASSERT(rc == FM_ERR_CANCELLED && seen.count == 0);
    CU_ASSERT(fm_engine_server_stats(server).steps == 5);
    seen.refuse = true;
    rc = serve(server, d.prompts, PROMPTS, &o, &seen, &f.err);
    CU_ASSERT(rc == FM_ERR_IO && seen.count == 1);
    seen_fini(&seen);
    FM_ASSERT_OK(serve(server, d.prompts, PROMPTS, &o, &seen, &f.err), &f.err);
    CU_ASSERT(seen.count == PROMPTS);
    for (size_t i = 0; i + 2 < PROMPTS; i += 2) { /* two at a time */
        CU_ASSERT(seen.order[i] < i + 3);
    }
    fm_engine_server_destroy(server);
    seen_fini(&seen);
    data_close(&d);
    fixture_close(&f);
}

/* One diverged sequence fails alone. */
static void test_not_finite(void)
{
    struct fixture f;
    struct data d;
    struct seen seen = {0};
    struct seen alone = {0};
    const float bad = NAN;
    const fm_engine_generate_options_t o = {.max_new_tokens = 1};

    model_open(&f);
    data_open(&f, &d, 5);
    for (size_t p = 0; p < PROMPTS; p++) {
        for (size_t i = 0; i < d.prompts[p].count; i++) {
            d.tokens[p][i] = d.tokens[p][i] == 0 ? 1 : d.tokens[p][i];
        }
    }
    serve_alone(&f, &d, &o, &alone);
    d.tokens[6][0] = 0; /* the token with the NaN embedding */
    FM_ASSERT_OK(fm_engine_model_write(f.model, 0, 1, &bad, &f.err), &f.err);
    fm_engine_server_t *server = server_open(&f, 60, PROMPTS, 256);
    FM_ASSERT_OK(serve(server, d.prompts, PROMPTS, &o, &seen, &f.err), &f.err);
    CU_ASSERT(seen.count == PROMPTS && seen.failed == 1);
    CU_ASSERT(strstr(seen.why.text, "prompt 6, new token 0") != NULL);
    for (size_t p = 0; p < PROMPTS; p++) {
        CU_ASSERT(p == 6 || same(&seen.done[p], &alone.done[p]));
    }
    fm_engine_server_destroy(server);
    seen_fini(&seen);
    seen_fini(&alone);
    data_close(&d);
    fixture_close(&f);
}

/* --- sampling ------------------------------------------------------------ */

/* From tests/ref/sampling.py: what transformers samples from. */
static const struct {
    double temperature;
    size_t top_k;
    double top_p, min_p, penalty;
    double want[10];
} sampling[] = {
    {1,
     0,
     1,
     0,
     1.3,
     {0.209217, 0.007717, 0.046683, 0.284595, 0.022051, 0.126897, 0.193727,
      0.003832, 0.028314, 0.076967}},
    {0.7,
     0,
     1,
     0,
     0.8,
     {0.052255, 0.000957, 0.006131, 0.636601, 0.002100, 0.025581, 0.260678,
      0.000172, 0.003001, 0.012523}},
    {1.5,
     4,
     1,
     0,
     1.2,
     {0.239850, 0, 0, 0.334738, 0, 0.171860, 0.253552, 0, 0, 0}},
    {1,
     0,
     0.8,
     0,
     1,
     {0.167405, 0, 0, 0.455054, 0, 0.101536, 0.276004, 0, 0, 0}},
    {1.2,
     6,
     0.7,
     0,
     1.5,
     {0.292680, 0, 0, 0.292680, 0, 0.192946, 0.221695, 0, 0, 0}},
    {1, 0, 1, 0.3, 1, {0.186324, 0, 0, 0.506480, 0, 0, 0.307196, 0, 0, 0}},
    {0.9,
     8,
     0.95,
     0.2,
     1.1,
     {0.193375, 0, 0, 0.433855, 0, 0.110949, 0.261821, 0, 0, 0}},
};

static void test_sampling(void)
{
    enum { DRAWS = 20000, WORDS = 10 };
    static const float start[WORDS] = {2.0F, -1.0F, 0.5F,  3.0F, -0.25F,
                                       1.5F, 2.5F,  -2.0F, 0.0F, 1.0F};
    const int32_t tokens[] = {3, 1, 3, 6, 8};
    fm_engine_sampler_t *sampler = NULL;
    fm_engine_seen_t seen = {0};
    fm_error_t err = {0};
    fm_rng_t rng;

    FM_ASSERT_OK(fm_engine_sampler_create(WORDS, &sampler, &err), &err);
    FM_ASSERT_OK(fm_engine_seen_add(&seen, WORDS, tokens, 5, &err), &err);
    CU_ASSERT(seen.count == 4);
    fm_rng_init(&rng, 6);
    for (size_t c = 0; c < FM_COUNT_OF(sampling); c++) {
        const fm_engine_generate_options_t o = {
            .temperature = sampling[c].temperature,
            .top_k = sampling[c].top_k,
            .top_p = sampling[c].top_p,
            .min_p = sampling[c].min_p,
            .repetition_penalty = sampling[c].penalty};
        double drawn[WORDS] = {0};
        float logits[WORDS];
        double total = 0;
        size_t bad = 0;
        for (size_t i = 0; i < WORDS; i++) {
            total += exp((double)start[i]);
        }
        memcpy(logits, start, sizeof(logits));
        for (size_t i = 0; i < DRAWS; i++) {
            float logp = 0;
            int32_t token =
                fm_engine_sample(sampler, logits, &o, &seen, &rng, &logp);
            drawn[token] += 1.0 / DRAWS;
            bad +=
                fabs((double)logp - ((double)start[token] - log(total))) > 1e-5;
        }
        CU_ASSERT(bad == 0);
        CU_ASSERT(memcmp(logits, start, sizeof(logits)) == 0);
        for (size_t i = 0; i < WORDS; i++) {
            double want = sampling[c].want[i];
            CU_ASSERT(want > 0 || drawn[i] == 0);
            /* five standard deviations: a fixed seed, it holds or not */
            CU_ASSERT(fabs(drawn[i] - want) <=
                      5 * sqrt(want * (1 - want) / DRAWS) + 1e-6);
        }
    }
    fm_engine_seen_fini(&seen);
    fm_engine_sampler_destroy(sampler);
}

/* A large vocabulary: the cut is where a full sort would put it. */
static void test_cut(void)
{
    enum { MANY = 30000, DRAWS = 50 };
    fm_engine_sampler_t *sampler = NULL;
    fm_engine_seen_t seen = {0};
    float *logits = fm_calloc(MANY, sizeof(*logits));
    fm_error_t err = {0};
    fm_rng_t rng;

    FM_ASSERT_OK(fm_engine_sampler_create(MANY, &sampler, &err), &err);
    CU_ASSERT_PTR_NOT_NULL_FATAL(logits);
    fm_rng_init(&rng, 2);
    for (size_t i = 0; i < MANY; i++) { /* with ties */
        logits[i] = (float)(int)(20 * fm_rng_normal(&rng)) * 0.15F;
    }
    for (size_t k = 1; k < 2000; k += 333) {
        const fm_engine_generate_options_t o = {.temperature = 2, .top_k = k};
        for (size_t i = 0; i < DRAWS; i++) {
            float logp = 0;
            int32_t got =
                fm_engine_sample(sampler, logits, &o, &seen, &rng, &logp);
            size_t ahead = 0;
            for (int32_t v = 0; v < MANY; v++) {
                ahead += logits[v] > logits[got] ||
                         (logits[v] == logits[got] && v < got);
            }
            CU_ASSERT(ahead < k);
        }
    }
    for (int share = 1; share < 10; share += 2) {
        const fm_engine_generate_options_t o = {.temperature = 2,
                                                .top_p = 0.1 * share};
        double total = 0;
        for (size_t v = 0; v < MANY; v++) {
            total += exp((double)logits[v] / 2);
        }
        for (size_t i = 0; i < DRAWS; i++) {
            float logp = 0;
            int32_t got =
                fm_engine_sample(sampler, logits, &o, &seen, &rng, &logp);
            double ahead = 0;
            for (int32_t v = 0; v < MANY; v++) {
                bool before = logits[v] > logits[got] ||
                              (logits[v] == logits[got] && v < got);
                ahead += before ? exp((double)logits[v] / 2) : 0;
            }
            CU_ASSERT(ahead < (0.1 * share + 1e-6) * total);
        }
    }
    free(logits);
    fm_engine_sampler_destroy(sampler);
}

/* --- stop texts ---------------------------------------------------------- */

static void byte_model_open(struct fixture *f)
{
    fm_engine_config_t config = fixture_config;

    *f = (struct fixture){0};
    config.vocab_size = FM_TOKENIZER_BYTE_VOCAB;
    FM_ASSERT_OK(fm_engine_backend_create_cpu(&f->be, &f->err), &f->err);
    FM_ASSERT_OK(fm_engine_model_create(&config, f->be, &f->model, &f->err),
                 &f->err);
    model_randomise(f);
}

static void test_stop_texts(void)
{
    struct fixture f;
    fm_tokenizer_t *tokenizer = NULL;
    fm_engine_completion_t full = {0};
    const int32_t tokens[] = {FM_TOKENIZER_BYTE_BOS, 'a', 'b'};
    const fm_engine_prompt_t prompt = {.tokens = tokens, .count = 3};
    fm_engine_generate_options_t o = {
        .max_new_tokens = 40, .temperature = 3, .seed = 3};

    byte_model_open(&f);
    FM_ASSERT_OK(fm_tokenizer_create_byte(&tokenizer, &f.err), &f.err);
    o.tokenizer = tokenizer;
    FM_ASSERT_OK(fm_engine_generate(f.model, &prompt, 1, &o, &full, &f.err),
                 &f.err);
    CU_ASSERT(full.finish == FM_ENGINE_FINISH_LENGTH && full.count == 40);
    CU_ASSERT(full.text_len == strlen(full.text));
    for (size_t at = 0; at + 3 < full.text_len; at++) {
        fm_engine_completion_t cut = {0};
        char *stop = fm_strndup(full.text + at, 3); /* three tokens or fewer */
        const char *const stops[] = {"never there", stop, stop + 1};
        o.stop_texts = stops;
        o.stop_text_count = 2;
        size_t want = (size_t)(strstr(full.text, stop) - full.text);
        FM_ASSERT_OK(fm_engine_generate(f.model, &prompt, 1, &o, &cut, &f.err),
                     &f.err);
        CU_ASSERT(cut.finish == FM_ENGINE_FINISH_STOP);
        CU_ASSERT(cut.text_len == want);
        CU_ASSERT(memcmp(cut.text, full.text, want) == 0);
        CU_ASSERT(cut.text[cut.text_len] == '\0');
        CU_ASSERT(cut.count <= full.count &&
                  memcmp(cut.tokens, full.tokens,
                         cut.count * sizeof(*cut.tokens)) == 0);
        fm_engine_completion_fini(&cut);
        free(stop);
    }
    /* a stop id is kept when asked for, and has no text */
    o.stop_text_count = 0;
    o.stop_ids = &full.tokens[20];
    o.stop_count = 1;
    for (int keep = 0; keep < 2; keep++) {
        fm_engine_completion_t cut = {0};
        o.keep_stop = keep == 1;
        FM_ASSERT_OK(fm_engine_generate(f.model, &prompt, 1, &o, &cut, &f.err),
                     &f.err);
        CU_ASSERT(cut.finish == FM_ENGINE_FINISH_STOP);
        CU_ASSERT(cut.count <= 20 + (size_t)keep);
        CU_ASSERT(!keep || cut.tokens[cut.count - 1] == full.tokens[20]);
        fm_engine_completion_fini(&cut);
    }
    fm_engine_completion_fini(&full);
    fm_tokenizer_destroy(tokenizer);
    fixture_close(&f);
}

/* --- pages --------------------------------------------------------------- */

static void test_pages(void)
{
    enum { COUNT = 6 };
    fm_engine_pages_t *pages = NULL;
    fm_error_t err = {0};
    int32_t tokens[3][FM_ENGINE_PAGE_TOKENS] = {{1}, {2}, {3}};
    int32_t held[COUNT];

    FM_ASSERT_OK(fm_engine_pages_create(COUNT, &pages, &err), &err);
    uint64_t root = fm_engine_pages_root(pages);
    uint64_t other = fm_engine_pages_root(pages);
    for (size_t i = 0; i < COUNT; i++) {
        held[i] = fm_engine_pages_take(pages);
        CU_ASSERT(held[i] >= 0);
    }
    CU_ASSERT(fm_engine_pages_take(pages) < 0);
    CU_ASSERT(fm_engine_pages_available(pages) == 0);
    /* a chain of two, and the second again under another root */
    CU_ASSERT(fm_engine_pages_name(pages, held[0], root, tokens[0]) == held[0]);
    uint64_t serial = fm_engine_pages_serial(pages, held[0]);
    CU_ASSERT(fm_engine_pages_name(pages, held[1], serial, tokens[1]) ==
              held[1]);
    CU_ASSERT(fm_engine_pages_name(pages, held[2], other, tokens[1]) ==
              held[2]);
    CU_ASSERT(fm_engine_pages_find(pages, other, tokens[0]) < 0);
    /* the same name once more: the first stays, the second is free */
    CU_ASSERT(fm_engine_pages_name(pages, held[3], root, tokens[0]) == held[0]);
    CU_ASSERT(fm_engine_pages_available(pages) == 1);
    fm_engine_pages_drop(pages, held[0]);
    CU_ASSERT(fm_engine_pages_available(pages) == 1); /* still held once */
    fm_engine_pages_drop(pages, held[1]);
    fm_engine_pages_drop(pages, held[0]);
    fm_engine_pages_drop(pages, held[2]);
    CU_ASSERT(fm_engine_pages_available(pages) == 4);
    CU_ASSERT(fm_engine_pages_find(pages, root, tokens[0]) == held[0]);
    /* free pages go first, then kept ones by age */
    CU_ASSERT(fm_engine_pages_take(pages) == held[3]);
    CU_ASSERT(fm_engine_pages_take(pages) == held[1]);
    CU_ASSERT(fm_engine_pages_find(pages, serial, tokens[1]) < 0);
    CU_ASSERT(fm_engine_pages_take(pages) == held[2]);
    CU_ASSERT(fm_engine_pages_take(pages) < 0);
    fm_engine_pages_forget(pages);
    CU_ASSERT(fm_engine_pages_find(pages, root, tokens[0]) < 0);
    fm_engine_pages_destroy(pages);
}

/* --- refusals ------------------------------------------------------------ */

static void test_refusals(void)
{
    struct fixture f;
    struct data d;
    struct seen seen = {0};
    const char *const stops[] = {"x", ""};
    const struct {
        fm_engine_generate_options_t options;
        const char *part;
    } cases[] = {
        {{.min_p = 1.5}, "min_p: want 0 to 1"},
        {{.min_p = NAN}, "min_p: want 0 to 1"},
        {{.repetition_penalty = -1}, "repetition_penalty: want 0 to 100"},
        {{.stop_texts = stops, .stop_text_count = 1}, "need a tokenizer"},
        {{.stop_texts = stops, .stop_text_count = 65}, "at most 64"},
    };
    fm_engine_server_t *server = NULL;

    model_open(&f);
    data_open(&f, &d, 5);
    const struct {
        fm_engine_server_options_t options;
        const char *part;
    } sizes[] = {{{.kv_bytes = 100}, "one page of 16 tokens takes"},
                 {{.lanes = 2000}, "lanes: want 1 to 1024"},
                 {{.lanes = 9, .step_rows = 8}, "step_rows: want 9"}};
    for (size_t i = 0; i < FM_COUNT_OF(sizes); i++) {
        fm_status_t rc = fm_engine_server_create(f.model, &sizes[i].options,
                                                 &server, &f.err);
        CU_ASSERT(rc < 0 && strstr(f.err.text, sizes[i].part) != NULL);
    }
    server = server_open(&f, 3, 4, 16);
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        fm_status_t rc =
            serve(server, d.prompts, 1, &cases[i].options, &seen, &f.err);
        CU_ASSERT(fixture_refused(rc, FM_ERR_INVALID, &f.err, cases[i].part));
    }
    fm_engine_prompt_t prompt = {.tokens = d.tokens[0], .count = 30};
    CU_ASSERT(
        fixture_refused(fm_engine_server_check(server, &prompt, 19, &f.err),
                        FM_ERR_LIMIT, &f.err,
                        "30 tokens + max_new_tokens 19 need 4 pages; "
                        "the key-value cache has 3 of 16 tokens"));
    FM_ASSERT_OK(fm_engine_server_check(server, &prompt, 18, &f.err), &f.err);
    /* an adapter of a wider model */
    fm_engine_config_t wide = fixture_config;
    fm_engine_model_t *model = NULL;
    fm_engine_adapter_t *adapter = NULL;
    const fm_engine_adapter_config_t config = {
        .rank = 2, .alpha = 2, .targets = FM_ENGINE_TARGET_UP};
    wide.intermediate_size++;
    FM_ASSERT_OK(fm_engine_model_create(&wide, f.be, &model, &f.err), &f.err);
    FM_ASSERT_OK(fm_engine_adapter_create(&config, model, &adapter, &f.err),
                 &f.err);
    prompt.adapter = adapter;
    CU_ASSERT(
        fixture_refused(fm_engine_server_check(server, &prompt, 1, &f.err),
                        FM_ERR_INVALID, &f.err, "another shape"));
    fm_engine_adapter_destroy(adapter);
    fm_engine_model_destroy(model);
    CU_ASSERT(seen.count == 0);
    fm_engine_server_destroy(server);
    data_close(&d);
    fixture_close(&f);
}

/* Every allocation fails once: an error and no leak; the server goes on. */
static void test_out_of_memory(void)
{
#ifdef FM_FAULTS
    struct fixture f;
    struct data d;
    struct seen alone = {0};
    const fm_engine_generate_options_t o = {.max_new_tokens = 2,
                                            .repetition_penalty = 1.1};
    bool worked = false;

    model_open(&f);
    data_open(&f, &d, 5);
    serve_alone(&f, &d, &o, &alone);
    fm_engine_server_t *server = server_open(&f, 20, 3, 32);
    for (int nth = 1; nth < 400 && !worked; nth++) {
        struct seen seen = {0};
        char spec[32];
        (void)snprintf(spec, sizeof(spec), "base.alloc:%d", nth);
        CU_ASSERT_FATAL(fm_fault_arm(spec));
        fm_status_t rc = serve(server, d.prompts, 5, &o, &seen, &f.err);
        CU_ASSERT(fm_fault_arm(NULL));
        worked = rc >= 0 && seen.failed == 0;
        CU_ASSERT(worked || rc == FM_ERR_NO_MEMORY || seen.failed > 0);
        seen_fini(&seen);
        FM_ASSERT_OK(serve(server, d.prompts, 5, &o, &seen, &f.err), &f.err);
        for (size_t p = 0; p < 5; p++) {
            CU_ASSERT(same(&seen.done[p], &alone.done[p]));
        }
        seen_fini(&seen);
    }
    CU_ASSERT(worked);
    fm_engine_server_destroy(server);
    seen_fini(&alone);
    data_close(&d);
    fixture_close(&f);
#endif
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"a result does not depend on anything else", test_mixes},
        {"every family follows the forward pass", test_families},
        {"prefixes are computed once", test_prefix},
        {"order, stopping, a sink that fails", test_order},
        {"a sequence that is not finite fails alone", test_not_finite},
        {"sampling as transformers does it", test_sampling},
        {"cut-offs of a large vocabulary", test_cut},
        {"stop texts", test_stop_texts},
        {"pages", test_pages},
        {"refusals", test_refusals},
        {"out of memory", test_out_of_memory},
    };

    return fm_test_main("engine server", cases, FM_COUNT_OF(cases));
}
