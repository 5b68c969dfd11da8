/* SPDX-License-Identifier: Apache-2.0 */
/* engine: sampling with the key-value cache. */
#include <math.h>
#include <stdlib.h>

#include "base/fault.h"
#include "base/mem.h"
#include "base/rng.h"
#include "engine/model/pass.h"
#include "engine/serve/generate.h"
#include "engine_fixture.h"

enum { PROMPTS = 11, LONGEST = 40, FRESH = 20 };

struct data {
    fm_engine_prompt_t prompts[PROMPTS];
    int32_t tokens[PROMPTS][LONGEST];
};

static void data_fill(struct data *d)
{
    fm_rng_t rng;

    fm_rng_init(&rng, 5);
    for (size_t p = 0; p < PROMPTS; p++) {
        size_t count = 1 + (size_t)fm_rng_below(&rng, LONGEST);
        for (size_t i = 0; i < count; i++) {
            d->tokens[p][i] = (int32_t)fm_rng_below(&rng, 40);
        }
        d->prompts[p] =
            (fm_engine_prompt_t){.tokens = d->tokens[p], .count = count};
    }
}

/* Larger parameters than the start values: sharper, more varied choices. */
static void model_open(struct fixture *f)
{
    fm_rng_t rng;

    fixture_open(f, 1);
    fm_rng_init(&rng, 9);
    size_t size = fm_engine_model_size(f->model);
    float *params = fm_malloc(size * sizeof(*params));
    CU_ASSERT_PTR_NOT_NULL_FATAL(params);
    for (size_t i = 0; i < size; i++) {
        params[i] = (float)(0.35 * fm_rng_normal(&rng));
    }
    FM_ASSERT_OK(fm_engine_model_write(f->model, 0, size, params, &f->err),
                 &f->err);
    free(params);
}

static bool same(const fm_engine_completion_t *a,
                 const fm_engine_completion_t *b)
{
    return a->count == b->count && a->finish == b->finish &&
           memcmp(a->tokens, b->tokens, a->count * sizeof(*a->tokens)) == 0 &&
           memcmp(a->logp, b->logp, a->count * sizeof(*a->logp)) == 0;
}

static void finish_all(fm_engine_completion_t *done, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fm_engine_completion_fini(&done[i]);
    }
}

/* Alone, in any company, in any order, in any number of lanes. */
static void check_invariance(const fm_engine_generate_options_t *options)
{
    static const size_t lanes[] = {1, 2, 3, 5, 16};
    struct fixture f;
    struct data d;
    fm_engine_completion_t alone[PROMPTS] = {{0}};
    fm_engine_completion_t done[PROMPTS] = {{0}};
    fm_engine_prompt_t reversed[PROMPTS];
    fm_engine_generate_options_t o = *options;

    model_open(&f);
    data_fill(&d);
    for (size_t p = 0; p < PROMPTS; p++) {
        FM_ASSERT_OK(fm_engine_generate(f.model, &d.prompts[p], 1, &o,
                                        &alone[p], &f.err),
                     &f.err);
        reversed[PROMPTS - 1 - p] = d.prompts[p];
    }
    for (size_t i = 0; i < FM_COUNT_OF(lanes); i++) {
        o.max_batch = lanes[i];
        FM_ASSERT_OK(
            fm_engine_generate(f.model, d.prompts, PROMPTS, &o, done, &f.err),
            &f.err);
        for (size_t p = 0; p < PROMPTS; p++) {
            CU_ASSERT(same(&alone[p], &done[p]));
        }
        finish_all(done, PROMPTS);
        FM_ASSERT_OK(
            fm_engine_generate(f.model, reversed, PROMPTS, &o, done, &f.err),
            &f.err);
        for (size_t p = 0; p < PROMPTS; p++) {
            CU_ASSERT(same(&alone[p], &done[PROMPTS - 1 - p]));
        }
        finish_all(done, PROMPTS);
    }
    finish_all(alone, PROMPTS);
    fixture_close(&f);
}

static void test_batch_invariance(void)
{
    const int32_t stops[2] = {3, 17}; /* lanes end at different times */
    const fm_engine_generate_options_t greedy = {.max_new_tokens = FRESH};
    const fm_engine_generate_options_t sampled = {.max_new_tokens = FRESH,
                                                  .temperature = 1.1,
                                                  .top_p = 0.9,
                                                  .seed = 4,
                                                  .stop_ids = stops,
                                                  .stop_count = 2};

    check_invariance(&greedy);
    check_invariance(&sampled);
}

/* Greedy decoding picks what the full forward pass ranks first. */
static void test_greedy_follows_forward(void)
{
    struct fixture f;
    struct data d;
    fm_engine_completion_t done[PROMPTS] = {{0}};
    fm_engine_pass_t *pass = NULL;
    const fm_engine_generate_options_t options = {.max_new_tokens = FRESH};

    model_open(&f);
    data_fill(&d);
    FM_ASSERT_OK(
        fm_engine_generate(f.model, d.prompts, PROMPTS, &options, done, &f.err),
        &f.err);
    FM_ASSERT_OK(fm_engine_pass_create(f.model, false, &pass, &f.err), &f.err);
    for (size_t p = 0; p < PROMPTS; p++) {
        int32_t tokens[LONGEST + FRESH];
        int32_t rows[FRESH];
        float logits[FRESH][40];
        float logp[FRESH];
        size_t count = d.prompts[p].count;
        CU_ASSERT_FATAL(done[p].count == FRESH);
        CU_ASSERT(done[p].finish == FM_ENGINE_FINISH_LENGTH);
        memcpy(tokens, d.tokens[p], count * sizeof(*tokens));
        memcpy(tokens + count, done[p].tokens, FRESH * sizeof(*tokens));
        for (int32_t i = 0; i < FRESH; i++) {
            rows[i] = (int32_t)count - 1 + i;
        }
        const int32_t offsets[2] = {0, (int32_t)count + FRESH};
        const fm_engine_batch_t batch = {
            .tokens = tokens, .offsets = offsets, .count = 1};
        FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &f.err), &f.err);
        FM_ASSERT_OK(
            fm_engine_pass_logits(pass, rows, FRESH, &logits[0][0], &f.err),
            &f.err);
        FM_ASSERT_OK(fm_engine_pass_head(pass, rows, done[p].tokens, NULL,
                                         FRESH, NULL, logp, &f.err),
                     &f.err);
        for (size_t i = 0; i < FRESH; i++) {
            float chosen = logits[i][done[p].tokens[i]];
            for (size_t v = 0; v < 40; v++) {
                CU_ASSERT(logits[i][v] <= chosen + 1e-4F);
            }
            CU_ASSERT(fabsf(logp[i] - done[p].logp[i]) < 1e-4F);
        }
    }
    fm_engine_pass_destroy(pass);
    finish_all(done, PROMPTS);
    fixture_close(&f);
}

static void generate_one(struct fixture *f, const fm_engine_prompt_t *prompt,
                         const fm_engine_generate_options_t *options,
                         fm_engine_completion_t *done)
{
    FM_ASSERT_OK(
        fm_engine_generate(f->model, prompt, 1, options, done, &f->err),
        &f->err);
}

static void test_streams(void)
{
    struct fixture f;
    struct data d;
    fm_engine_completion_t done[5] = {{0}};
    fm_engine_generate_options_t o = {
        .max_new_tokens = FRESH, .temperature = 1.5, .seed = 1};

    model_open(&f);
    data_fill(&d);
    generate_one(&f, &d.prompts[0], &o, &done[0]);
    generate_one(&f, &d.prompts[0], &o, &done[1]);
    CU_ASSERT(same(&done[0], &done[1]));
    d.prompts[0].sample = 1;
    generate_one(&f, &d.prompts[0], &o, &done[2]);
    CU_ASSERT(!same(&done[0], &done[2]));
    d.prompts[0].sample = 0;
    o.seed = 2;
    generate_one(&f, &d.prompts[0], &o, &done[3]);
    CU_ASSERT(!same(&done[0], &done[3]));
    o.top_k = 1; /* the best token only: greedy */
    generate_one(&f, &d.prompts[0], &o, &done[4]);
    o = (fm_engine_generate_options_t){.max_new_tokens = FRESH};
    fm_engine_completion_fini(&done[3]);
    generate_one(&f, &d.prompts[0], &o, &done[3]);
    CU_ASSERT(same(&done[3], &done[4]));
    finish_all(done, 5);
    fixture_close(&f);
}

/* Frequencies of the first token over many samples against the softmax, with
 * temperature and with each cut-off. */
static void check_frequencies(double temperature, size_t top_k, double top_p)
{
    enum { DRAWS = 4000, VOCAB = 40 };
    struct fixture f;
    struct data d;
    fm_engine_pass_t *pass = NULL;
    float logits[VOCAB];
    double p[VOCAB];
    double seen[VOCAB] = {0};
    double total = 0;

    model_open(&f);
    data_fill(&d);
    FM_ASSERT_OK(fm_engine_pass_create(f.model, false, &pass, &f.err), &f.err);
    const int32_t offsets[2] = {0, (int32_t)d.prompts[1].count};
    const int32_t last[1] = {offsets[1] - 1};
    const fm_engine_batch_t batch = {
        .tokens = d.tokens[1], .offsets = offsets, .count = 1};
    FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &f.err), &f.err);
    FM_ASSERT_OK(fm_engine_pass_logits(pass, last, 1, logits, &f.err), &f.err);
    for (size_t v = 0; v < VOCAB; v++) {
        p[v] = exp((double)logits[v] / temperature);
        total += p[v];
    }
    /* a token stays when fewer than top_k are better and, of what then is
     * left, the better ones hold less than top_p */
    double kept = 0;
    bool stays[VOCAB];
    for (int round = 0; round < 2; round++) {
        double sum = 0;
        for (size_t v = 0; v < VOCAB; v++) {
            size_t better = 0;
            double ahead = 0;
            for (size_t w = 0; w < VOCAB; w++) {
                better += logits[w] > logits[v];
                ahead += logits[w] > logits[v] ? p[w] : 0;
            }
            stays[v] = (top_k == 0 || better < top_k) &&
                       (round == 0 || top_p == 0 || ahead < top_p * kept);
            sum += stays[v] ? p[v] : 0;
        }
        kept = sum;
    }
    CU_ASSERT(kept <= total && kept > 0);
    fm_engine_prompt_t *prompts = fm_calloc(DRAWS, sizeof(*prompts));
    fm_engine_completion_t *done = fm_calloc(DRAWS, sizeof(*done));
    CU_ASSERT_FATAL(prompts && done);
    for (size_t i = 0; i < DRAWS; i++) {
        prompts[i] = d.prompts[1];
        prompts[i].sample = i;
    }
    const fm_engine_generate_options_t o = {.max_new_tokens = 1,
                                            .temperature = temperature,
                                            .top_k = top_k,
                                            .top_p = top_p};
    FM_ASSERT_OK(fm_engine_generate(f.model, prompts, DRAWS, &o, done, &f.err),
                 &f.err);
    for (size_t i = 0; i < DRAWS; i++) {
        seen[done[i].tokens[0]] += 1.0 / DRAWS;
    }
    for (size_t v = 0; v < VOCAB; v++) {
        double want = stays[v] ? p[v] / kept : 0;
        CU_ASSERT(stays[v] || seen[v] == 0);
        /* five standard deviations: a fixed seed, so it holds or not for good
         */
        CU_ASSERT(fabs(seen[v] - want) <=
                  5 * sqrt(want * (1 - want) / DRAWS) + 1e-9);
    }
    finish_all(done, DRAWS);
    free(done);
    free(prompts);
    fm_engine_pass_destroy(pass);
    fixture_close(&f);
}

static void test_frequencies(void)
{
    check_frequencies(1, 0, 0);
    check_frequencies(2, 0, 0);
    check_frequencies(1.5, 6, 0);
    check_frequencies(1.5, 0, 0.7);
    check_frequencies(2.5, 12, 0.6);
}

static void test_stop(void)
{
    struct fixture f;
    struct data d;
    fm_engine_completion_t full = {0};
    fm_engine_completion_t cut = {0};
    fm_engine_generate_options_t o = {.max_new_tokens = FRESH};

    model_open(&f);
    data_fill(&d);
    generate_one(&f, &d.prompts[2], &o, &full);
    size_t at = 0; /* where the last new token first appears */
    while (full.tokens[at] != full.tokens[FRESH - 1]) {
        at++;
    }
    o.stop_ids = &full.tokens[at];
    o.stop_count = 1;
    generate_one(&f, &d.prompts[2], &o, &cut);
    CU_ASSERT(cut.finish == FM_ENGINE_FINISH_STOP && cut.count == at);
    CU_ASSERT(memcmp(cut.tokens, full.tokens, at * sizeof(*cut.tokens)) == 0);
    fm_engine_completion_fini(&full);
    fm_engine_completion_fini(&cut);
    fixture_close(&f);
}

static void test_refusals(void)
{
    struct fixture f;
    struct data d;
    fm_engine_completion_t done[PROMPTS] = {{0}};
    const float bad = NAN;
    const struct {
        fm_engine_generate_options_t options;
        fm_status_t status;
        const char *part;
    } cases[] = {
        {{.temperature = -1}, FM_ERR_INVALID, "temperature"},
        {{.max_new_tokens = 1, .top_p = 1.5}, FM_ERR_INVALID, "top_p"},
        {{.max_new_tokens = 1, .max_batch = 5000}, FM_ERR_INVALID, "max_batch"},
        {{.max_new_tokens = 1, .stop_count = 65}, FM_ERR_INVALID, "stop ids"},
        {{.max_new_tokens = 96},
         FM_ERR_LIMIT,
         "max_new_tokens 96 exceed max_position_embeddings 96"},
        {{.max_new_tokens = SIZE_MAX}, FM_ERR_LIMIT, "prompt 0"},
    };

    model_open(&f);
    data_fill(&d);
    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        CU_ASSERT(
            fixture_refused(fm_engine_generate(f.model, d.prompts, PROMPTS,
                                               &cases[i].options, done, &f.err),
                            cases[i].status, &f.err, cases[i].part));
    }
    const fm_engine_generate_options_t o = {.max_new_tokens = 2};
    d.tokens[4][0] = 40;
    CU_ASSERT(fixture_refused(
        fm_engine_generate(f.model, d.prompts, PROMPTS, &o, done, &f.err),
        FM_ERR_INVALID, &f.err, "prompt 4: token 0 is 40"));
    d.prompts[3].count = 0;
    CU_ASSERT(fixture_refused(
        fm_engine_generate(f.model, d.prompts, PROMPTS, &o, done, &f.err),
        FM_ERR_INVALID, &f.err, "prompt 3: the prompt is empty"));
    data_fill(&d);
    FM_ASSERT_OK(fm_engine_model_write(f.model, 0, 1, &bad, &f.err), &f.err);
    d.tokens[6][0] = 0; /* the token with the NaN embedding */
    CU_ASSERT(fixture_refused(
        fm_engine_generate(f.model, &d.prompts[6], 1, &o, done, &f.err),
        FM_ERR_INVALID, &f.err, "not finite"));
    for (size_t p = 0; p < PROMPTS; p++) {
        CU_ASSERT_PTR_NULL(done[p].tokens);
    }
    fixture_close(&f);
}

/* Every allocation fails once: an error and no leak. */
static void test_out_of_memory(void)
{
#ifdef FM_FAULTS
    struct fixture f;
    struct data d;
    const fm_engine_generate_options_t o = {.max_new_tokens = 2};
    bool worked = false;

    model_open(&f);
    data_fill(&d);
    for (int nth = 1; nth < 200 && !worked; nth++) {
        fm_engine_completion_t done[2] = {{0}};
        char spec[32];
        (void)snprintf(spec, sizeof(spec), "base.alloc:%d", nth);
        CU_ASSERT_FATAL(fm_fault_arm(spec));
        fm_status_t rc =
            fm_engine_generate(f.model, d.prompts, 2, &o, done, &f.err);
        worked = rc >= 0;
        CU_ASSERT(worked || rc == FM_ERR_NO_MEMORY);
        CU_ASSERT(fm_fault_arm(NULL));
        finish_all(done, 2);
    }
    CU_ASSERT(worked);
    fixture_close(&f);
#endif
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"a prompt's result does not depend on its batch",
         test_batch_invariance},
        {"greedy follows the forward pass", test_greedy_follows_forward},
        {"random streams", test_streams},
        {"frequencies", test_frequencies},
        {"stop", test_stop},
        {"refusals", test_refusals},
        {"out of memory", test_out_of_memory},
    };

    return fm_test_main("engine sampling", cases, FM_COUNT_OF(cases));
}
