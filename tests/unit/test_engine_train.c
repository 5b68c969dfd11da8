/* SPDX-License-Identifier: Apache-2.0 */
/* engine: training steps, resuming, refusals, scoring. */
#include <math.h>
#include <stdlib.h>

#include "base/mem.h"
#include "base/rng.h"
#include "engine/serve/score.h"
#include "engine/train/train.h"
#include "engine_fixture.h"

enum { SAMPLES = 6, LONGEST = 30 };

static const fm_engine_dpo_options_t dpo_options = {.beta = 0.1};

struct data {
    fm_engine_sample_t samples[SAMPLES];
    int32_t tokens[SAMPLES][LONGEST];
};

/* Sequences of different lengths that count upwards: easy to learn. */
static void data_fill(struct data *d)
{
    for (size_t s = 0; s < SAMPLES; s++) {
        size_t count = LONGEST - 4 * s;
        for (size_t i = 0; i < count; i++) {
            d->tokens[s][i] = (int32_t)((3 * s + i) % 40);
        }
        d->samples[s] =
            (fm_engine_sample_t){.tokens = d->tokens[s], .count = count};
    }
}

static fm_engine_train_options_t fast_options(void)
{
    fm_engine_train_options_t o;

    fm_engine_train_defaults(&o);
    o.learning_rate = 5e-3;
    o.schedule = FM_ENGINE_SCHEDULE_COSINE;
    o.warmup_steps = 3;
    o.total_steps = 60;
    o.weight_decay = 0.01;
    o.micro_batch_tokens = 64;
    return o;
}

static void trainer_open(struct fixture *f,
                         const fm_engine_train_options_t *options,
                         fm_engine_trainer_t **trainer)
{
    fixture_open(f, 1);
    FM_ASSERT_OK(
        fm_engine_trainer_create(&(fm_engine_parts_t){.model = f->model},
                                 options, trainer, &f->err),
        &f->err);
}

static void trainer_close(struct fixture *f, fm_engine_trainer_t **trainer)
{
    *trainer = fm_engine_trainer_destroy(*trainer);
    fixture_close(f);
}

static void test_sft_learns(void)
{
    struct fixture f;
    struct data d;
    fm_engine_trainer_t *trainer = NULL;
    fm_engine_metrics_t m = {0};
    const fm_engine_train_options_t options = fast_options();
    double first = 0;

    trainer_open(&f, &options, &trainer);
    data_fill(&d);
    for (int i = 0; i < 60; i++) {
        FM_ASSERT_OK(
            fm_engine_trainer_sft(trainer, d.samples, SAMPLES, &m, &f.err),
            &f.err);
        first = i == 0 ? m.loss : first;
    }
    CU_ASSERT(fabs(first - log(40)) < 0.2);
    CU_ASSERT(m.loss < 0.3 * first);
    CU_ASSERT(m.step == 60 && m.tokens == 120 && m.targets == 114);
    trainer_close(&f, &trainer);
}

/* Only masked-in tokens count: a sample whose mask is one token has the loss
 * that scoring that token gives. */
static void test_sft_mask(void)
{
    struct fixture f;
    struct data d;
    fm_engine_trainer_t *trainer = NULL;
    fm_engine_scorer_t *scorer = NULL;
    fm_engine_metrics_t m = {0};
    fm_engine_score_t score;
    uint8_t mask[LONGEST] = {0};

    data_fill(&d);
    trainer_open(&f, NULL, &trainer);
    FM_ASSERT_OK(fm_engine_scorer_create(f.model, &scorer, &f.err), &f.err);
    mask[0] = 1; /* ignored */
    mask[9] = 1;
    d.samples[0].mask = mask;
    const fm_engine_score_input_t input = {.prompt = d.tokens[0],
                                           .prompt_count = 9,
                                           .completion = d.tokens[0] + 9,
                                           .completion_count = 1};
    FM_ASSERT_OK(fm_engine_score(scorer, &input, &score, NULL, &f.err), &f.err);
    FM_ASSERT_OK(fm_engine_trainer_sft(trainer, d.samples, 1, &m, &f.err),
                 &f.err);
    CU_ASSERT(m.targets == 1 && fabs(m.loss + score.sum) < 1e-5);
    mask[9] = 0;
    CU_ASSERT(fixture_refused(
        fm_engine_trainer_sft(trainer, d.samples, 1, &m, &f.err),
        FM_ERR_INVALID, &f.err, "every mask is empty"));
    fm_engine_scorer_destroy(scorer);
    trainer_close(&f, &trainer);
}

/* Counting upwards is preferred to counting down. */
static void pairs_fill(fm_engine_pair_t *pairs, const struct data *d)
{
    static const int32_t down[9] = {38, 37, 36, 35, 34, 33, 32, 31, 30};

    for (size_t p = 0; p + 1 < SAMPLES; p++) {
        pairs[p] = (fm_engine_pair_t){.prompt = d->tokens[p],
                                      .prompt_count = 1 + p,
                                      .chosen = d->tokens[p] + 1 + p,
                                      .chosen_count = 5 + p,
                                      .rejected = down,
                                      .rejected_count = 9 - p};
    }
}

/* Reference log-probs from the untouched model, as a caller gets them. */
static void pairs_score(struct fixture *f, fm_engine_pair_t *pairs,
                        size_t count)
{
    fm_engine_scorer_t *scorer = NULL;
    fm_engine_score_t score;

    FM_ASSERT_OK(fm_engine_scorer_create(f->model, &scorer, &f->err), &f->err);
    for (size_t p = 0; p < count; p++) {
        fm_engine_score_input_t input = {.prompt = pairs[p].prompt,
                                         .prompt_count = pairs[p].prompt_count,
                                         .completion = pairs[p].chosen,
                                         .completion_count =
                                             pairs[p].chosen_count};
        FM_ASSERT_OK(fm_engine_score(scorer, &input, &score, NULL, &f->err),
                     &f->err);
        pairs[p].reference_chosen = score.sum;
        input.completion = pairs[p].rejected;
        input.completion_count = pairs[p].rejected_count;
        FM_ASSERT_OK(fm_engine_score(scorer, &input, &score, NULL, &f->err),
                     &f->err);
        pairs[p].reference_rejected = score.sum;
    }
    fm_engine_scorer_destroy(scorer);
}

static void test_dpo_learns(void)
{
    struct fixture f;
    struct data d;
    fm_engine_pair_t pairs[SAMPLES - 1];
    fm_engine_trainer_t *trainer = NULL;
    fm_engine_metrics_t m = {0};
    fm_engine_train_options_t options = fast_options();

    data_fill(&d);
    pairs_fill(pairs, &d);
    options.warmup_steps = 0;
    options.total_steps = 30;
    trainer_open(&f, &options, &trainer);
    pairs_score(&f, pairs, SAMPLES - 1);
    for (int i = 0; i < 30; i++) {
        FM_ASSERT_OK(fm_engine_trainer_dpo(trainer, pairs, SAMPLES - 1,
                                           &dpo_options, &m, &f.err),
                     &f.err);
        if (i == 0) { /* policy = reference: every margin is zero */
            CU_ASSERT(fabs(m.loss - log(2)) < 1e-5);
            CU_ASSERT(fabs(m.margin) < 1e-4);
        }
    }
    CU_ASSERT(m.loss < 0.4 && m.accuracy == 1);
    CU_ASSERT(m.reward_chosen > m.reward_rejected);
    CU_ASSERT(fabs(m.margin - (m.reward_chosen - m.reward_rejected)) < 1e-9);
    trainer_close(&f, &trainer);
}

/* Everything a checkpoint holds. */
struct state {
    float *params;
    float *moments[2];
    uint64_t step;
};

static void state_take(struct fixture *f, const fm_engine_trainer_t *trainer,
                       struct state *s)
{
    size_t size = fm_engine_model_size(f->model);

    s->params = fm_malloc(size * sizeof(float));
    s->step = fm_engine_trainer_step(trainer);
    CU_ASSERT_PTR_NOT_NULL_FATAL(s->params);
    FM_ASSERT_OK(fm_engine_model_read(f->model, 0, size, s->params, &f->err),
                 &f->err);
    for (int i = 0; i < 2; i++) {
        s->moments[i] = fm_malloc(size * sizeof(float));
        CU_ASSERT_PTR_NOT_NULL_FATAL(s->moments[i]);
        FM_ASSERT_OK(fm_engine_trainer_read(
                         trainer, 0,
                         (fm_engine_plane_t)(FM_ENGINE_PLANE_FIRST + i), 0,
                         size, s->moments[i], &f->err),
                     &f->err);
    }
}

static void state_put(struct fixture *f, fm_engine_trainer_t *trainer,
                      const struct state *s)
{
    size_t size = fm_engine_model_size(f->model);

    FM_ASSERT_OK(fm_engine_model_write(f->model, 0, size, s->params, &f->err),
                 &f->err);
    for (int i = 0; i < 2; i++) {
        FM_ASSERT_OK(fm_engine_trainer_write(
                         trainer, 0,
                         (fm_engine_plane_t)(FM_ENGINE_PLANE_FIRST + i), 0,
                         size, s->moments[i], &f->err),
                     &f->err);
    }
    fm_engine_trainer_set_step(trainer, s->step);
}

static void state_free(struct state *s)
{
    free(s->params);
    free(s->moments[0]);
    free(s->moments[1]);
}

static bool state_equal(const struct state *a, const struct state *b,
                        size_t size)
{
    return a->step == b->step &&
           memcmp(a->params, b->params, size * sizeof(float)) == 0 &&
           memcmp(a->moments[0], b->moments[0], size * sizeof(float)) == 0 &&
           memcmp(a->moments[1], b->moments[1], size * sizeof(float)) == 0;
}

/* Steps @p from … @p to, alternating SFT and DPO, in the trainer's order. */
static void steps_run(struct fixture *f, fm_engine_trainer_t *trainer, int from,
                      int to)
{
    struct data d;
    fm_engine_pair_t pairs[SAMPLES - 1];
    fm_engine_sample_t ordered[SAMPLES];
    size_t order[SAMPLES];

    data_fill(&d);
    pairs_fill(pairs, &d);
    for (int i = from; i < to; i++) {
        if (i % 3 == 2) {
            FM_ASSERT_OK(fm_engine_trainer_dpo(trainer, pairs, SAMPLES - 1,
                                               &dpo_options, NULL, &f->err),
                         &f->err);
            continue;
        }
        fm_engine_trainer_order(trainer, (uint64_t)i, SAMPLES, order);
        for (size_t s = 0; s < SAMPLES; s++) {
            ordered[s] = d.samples[order[s]];
        }
        FM_ASSERT_OK(
            fm_engine_trainer_sft(trainer, ordered, SAMPLES, NULL, &f->err),
            &f->err);
    }
}

static void test_resume(void)
{
    const fm_engine_train_options_t options = fast_options();
    struct fixture f;
    fm_engine_trainer_t *trainer = NULL;
    struct state half;
    struct state whole;
    struct state resumed;

    trainer_open(&f, &options, &trainer);
    size_t size = fm_engine_model_size(f.model);
    steps_run(&f, trainer, 0, 7);
    state_take(&f, trainer, &half);
    steps_run(&f, trainer, 7, 14);
    state_take(&f, trainer, &whole);
    trainer_close(&f, &trainer);

    trainer_open(&f, &options, &trainer);
    state_put(&f, trainer, &half);
    steps_run(&f, trainer, 7, 14);
    state_take(&f, trainer, &resumed);
    CU_ASSERT(state_equal(&whole, &resumed, size));
    CU_ASSERT(!state_equal(&half, &resumed, size));
    trainer_close(&f, &trainer);
    state_free(&half);
    state_free(&whole);
    state_free(&resumed);
}

static void test_schedule(void)
{
    static const struct {
        fm_engine_schedule_t schedule;
        double rates[6]; /* steps 1, 2, 3, 7, 11, 12 */
    } cases[] = {
        {FM_ENGINE_SCHEDULE_CONSTANT, {0, 0.5, 1, 1, 1, 1}},
        {FM_ENGINE_SCHEDULE_LINEAR, {0, 0.5, 1, 0.5, 0, 0}},
        {FM_ENGINE_SCHEDULE_COSINE, {0, 0.5, 1, 0.5, 0, 0}},
    };
    static const uint64_t steps[6] = {1, 2, 3, 7, 11, 12};

    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        fm_engine_train_options_t o = fast_options();
        struct fixture f;
        fm_engine_trainer_t *trainer = NULL;
        o.learning_rate = 1;
        o.schedule = cases[i].schedule;
        o.warmup_steps = 2;
        o.total_steps = 10;
        trainer_open(&f, &o, &trainer);
        for (size_t s = 0; s < 6; s++) {
            CU_ASSERT(fabs(fm_engine_trainer_rate(trainer, steps[s]) -
                           cases[i].rates[s]) < 1e-12);
        }
        trainer_close(&f, &trainer);
    }
}

static void test_order(void)
{
    enum { COUNT = 50 };
    const fm_engine_train_options_t options = fast_options();
    struct fixture f;
    fm_engine_trainer_t *trainer = NULL;
    size_t a[COUNT];
    size_t b[COUNT];
    bool seen[COUNT] = {false};

    trainer_open(&f, &options, &trainer);
    fm_engine_trainer_order(trainer, 1, COUNT, a);
    fm_engine_trainer_order(trainer, 1, COUNT, b);
    CU_ASSERT(memcmp(a, b, sizeof(a)) == 0);
    fm_engine_trainer_order(trainer, 2, COUNT, b);
    CU_ASSERT(memcmp(a, b, sizeof(a)) != 0);
    for (size_t i = 0; i < COUNT; i++) {
        CU_ASSERT_FATAL(a[i] < COUNT && !seen[a[i]]);
        seen[a[i]] = true;
    }
    trainer_close(&f, &trainer);
}

static void test_option_refusals(void)
{
    static const char *const names[] = {"learning_rate", "beta1",
                                        "eps",           "total_steps",
                                        "warmup_steps",  "micro_batch_tokens"};
    struct fixture f;

    fixture_open(&f, 1);
    for (size_t i = 0; i < FM_COUNT_OF(names); i++) {
        fm_engine_train_options_t o = fast_options();
        fm_engine_trainer_t *trainer = NULL;
        o.learning_rate = i == 0 ? NAN : o.learning_rate;
        o.beta1 = i == 1 ? 1 : o.beta1;
        o.eps = i == 2 ? 0 : o.eps;
        o.total_steps = i == 3 ? 0 : o.total_steps;
        o.warmup_steps = i == 4 ? 61 : o.warmup_steps;
        o.micro_batch_tokens = i == 5 ? 0 : o.micro_batch_tokens;
        CU_ASSERT(fixture_refused(
            fm_engine_trainer_create(&(fm_engine_parts_t){.model = f.model}, &o,
                                     &trainer, &f.err),
            FM_ERR_INVALID, &f.err, names[i]));
        CU_ASSERT_PTR_NULL(trainer);
    }
    fixture_close(&f);
}

/* A bad sample or a diverged model stops the step and changes nothing. */
static void test_step_refusals(void)
{
    const fm_engine_train_options_t options = fast_options();
    struct fixture f;
    struct data d;
    fm_engine_pair_t pairs[SAMPLES - 1];
    fm_engine_trainer_t *trainer = NULL;
    struct state before;
    struct state after;

    data_fill(&d);
    pairs_fill(pairs, &d);
    trainer_open(&f, &options, &trainer);
    size_t size = fm_engine_model_size(f.model);
    steps_run(&f, trainer, 0, 4);

    d.tokens[5][2] = -1;
    CU_ASSERT(fixture_refused(
        fm_engine_trainer_sft(trainer, d.samples, SAMPLES, NULL, &f.err),
        FM_ERR_INVALID, &f.err, "sample 5, token 2 is -1"));
    d.samples[4].count = 1;
    CU_ASSERT(fixture_refused(
        fm_engine_trainer_sft(trainer, d.samples, SAMPLES, NULL, &f.err),
        FM_ERR_INVALID, &f.err, "sample 4 has 1 tokens"));
    pairs[2].rejected_count = 0;
    CU_ASSERT(fixture_refused(
        fm_engine_trainer_dpo(trainer, pairs, 3, &dpo_options, NULL, &f.err),
        FM_ERR_INVALID, &f.err, "pair 2"));
    CU_ASSERT(fixture_refused(
        fm_engine_trainer_dpo(trainer, pairs, 2,
                              &(fm_engine_dpo_options_t){.beta = 0}, NULL,
                              &f.err),
        FM_ERR_INVALID, &f.err, "beta"));
    pairs[1].reference_chosen = NAN;
    CU_ASSERT(fixture_refused(
        fm_engine_trainer_dpo(trainer, pairs, 2, &dpo_options, NULL, &f.err),
        FM_ERR_INVALID, &f.err, "pair 1"));

    /* token 39 alone gets a NaN embedding; sample 3 alone uses it */
    const fm_engine_param_t *table =
        fm_engine_model_find(f.model, "model.embed_tokens.weight");
    CU_ASSERT_PTR_NOT_NULL_FATAL(table);
    const float bad = NAN;
    data_fill(&d);
    for (size_t s = 0; s < SAMPLES; s++) {
        for (size_t i = 0; i < d.samples[s].count; i++) {
            d.tokens[s][i] %= 39;
        }
    }
    d.tokens[3][4] = 39;
    FM_ASSERT_OK(fm_engine_model_write(f.model, table->offset + 39 * 48, 1,
                                       &bad, &f.err),
                 &f.err);
    state_take(&f, trainer, &before);
    CU_ASSERT(fixture_refused(
        fm_engine_trainer_sft(trainer, d.samples, SAMPLES, NULL, &f.err),
        FM_ERR_INVALID, &f.err, "step 5, sample 3: the loss is not finite"));
    state_take(&f, trainer, &after);
    CU_ASSERT(state_equal(&before, &after, size));
    state_free(&before);
    state_free(&after);
    trainer_close(&f, &trainer);
}

/* A score has the same bits before and after other, longer sequences. */
static void test_score_alone(void)
{
    struct fixture f;
    struct data d;
    fm_engine_scorer_t *scorer = NULL;
    float first[LONGEST];
    float again[LONGEST];
    fm_engine_score_t a;
    fm_engine_score_t b;
    double sum = 0;

    data_fill(&d);
    fixture_open(&f, 1);
    FM_ASSERT_OK(fm_engine_scorer_create(f.model, &scorer, &f.err), &f.err);
    fm_engine_score_input_t input = {.prompt = d.tokens[2],
                                     .prompt_count = 3,
                                     .completion = d.tokens[2] + 3,
                                     .completion_count = 11};
    FM_ASSERT_OK(fm_engine_score(scorer, &input, &a, first, &f.err), &f.err);
    const fm_engine_score_input_t other = {.prompt = d.tokens[0],
                                           .prompt_count = 1,
                                           .completion = d.tokens[0] + 1,
                                           .completion_count = LONGEST - 1};
    FM_ASSERT_OK(fm_engine_score(scorer, &other, &b, NULL, &f.err), &f.err);
    FM_ASSERT_OK(fm_engine_score(scorer, &input, &b, again, &f.err), &f.err);
    CU_ASSERT(a.sum == b.sum && a.count == 11);
    CU_ASSERT(memcmp(first, again, 11 * sizeof(*first)) == 0);
    for (size_t i = 0; i < 11; i++) {
        sum += (double)first[i];
    }
    CU_ASSERT(sum == a.sum && a.mean == sum / 11);

    input.completion_count = 0;
    CU_ASSERT(fixture_refused(fm_engine_score(scorer, &input, &a, NULL, &f.err),
                              FM_ERR_INVALID, &f.err, "completion is empty"));
    input.completion_count = 94;
    CU_ASSERT(fixture_refused(fm_engine_score(scorer, &input, &a, NULL, &f.err),
                              FM_ERR_LIMIT, &f.err,
                              "max_position_embeddings is 96"));
    fm_engine_scorer_destroy(scorer);
    fixture_close(&f);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"SFT learns", test_sft_learns},
        {"SFT mask", test_sft_mask},
        {"DPO learns", test_dpo_learns},
        {"resume, bit for bit", test_resume},
        {"schedule", test_schedule},
        {"order of samples", test_order},
        {"options refused", test_option_refusals},
        {"steps refused", test_step_refusals},
        {"score", test_score_alone},
    };

    return fm_test_main("engine training", cases, FM_COUNT_OF(cases));
}
