/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine: what every training method promises besides its numbers: a resumed
 * run repeats the bits, a first ratio is one, a refused step changes nothing.
 */
#include "base/fault.h"
#include "base/rng.h"
#include "engine/model/pass.h"
#include "engine_fixture.h"
#include "engine_train_ref.h"

/* A trainer of everything there is: an adapter with dropout over the frozen
 * reference model (or the model itself), and a scalar head. */
struct bench {
    struct ref r;
    fm_engine_train_options_t options;
    fm_engine_trainer_t *trainer;
};

static void bench_open(struct bench *b, bool lora, double rate)
{
    const fm_engine_adapter_config_t config = {
        .rank = 2, .alpha = 4, .dropout = 0.25, .targets = 127};
    fm_engine_train_options_t *options = &b->options;

    ref_open(&b->r, "train_full");
    if (lora) {
        FM_ASSERT_OK(fm_engine_adapter_create(&config, b->r.base.model,
                                              &b->r.adapter, &b->r.base.err),
                     &b->r.base.err);
        FM_ASSERT_OK(fm_engine_adapter_init(b->r.adapter, 9, &b->r.base.err),
                     &b->r.base.err);
    }
    fm_engine_train_defaults(options);
    options->learning_rate = rate;
    options->schedule = FM_ENGINE_SCHEDULE_COSINE;
    options->total_steps = 4000;
    options->weight_decay = 0.01;
    options->micro_batch_tokens = 24;
    options->seed = 3;
    const fm_engine_parts_t parts = {b->r.base.model, b->r.adapter, b->r.value};
    FM_ASSERT_OK(
        fm_engine_trainer_create(&parts, options, &b->trainer, &b->r.base.err),
        &b->r.base.err);
}

/* A new trainer, of changed options. */
static void bench_renew(struct bench *b)
{
    const fm_engine_parts_t parts = {b->r.base.model, b->r.adapter, b->r.value};

    fm_engine_trainer_destroy(b->trainer);
    FM_ASSERT_OK(fm_engine_trainer_create(&parts, &b->options, &b->trainer,
                                          &b->r.base.err),
                 &b->r.base.err);
}

static void bench_close(struct bench *b)
{
    b->trainer = fm_engine_trainer_destroy(b->trainer);
    ref_close(&b->r);
}

/* --- state --------------------------------------------------------------- */

enum { PLANES = 3 };

struct state {
    float *planes; /* every block's params, first, second */
    size_t count;
    uint64_t step;
};

static size_t state_size(const fm_engine_trainer_t *trainer)
{
    size_t blocks = 0;
    size_t size = 0;
    const fm_engine_block_t *block = fm_engine_trainer_blocks(trainer, &blocks);

    for (size_t b = 0; b < blocks; b++) {
        size += PLANES * block[b].size;
    }
    return size;
}

/* Into the state, or out of it. */
static void state_move(struct bench *b, struct state *s, bool out)
{
    size_t blocks = 0;
    size_t at = 0;
    const fm_engine_block_t *block =
        fm_engine_trainer_blocks(b->trainer, &blocks);

    for (size_t i = 0; i < blocks * PLANES; i++) {
        fm_engine_plane_t plane = (fm_engine_plane_t)(i % PLANES);
        size_t size = block[i / PLANES].size;
        fm_status_t rc =
            out ? fm_engine_trainer_write(b->trainer, i / PLANES, plane, 0,
                                          size, s->planes + at, &b->r.base.err)
                : fm_engine_trainer_read(b->trainer, i / PLANES, plane, 0, size,
                                         s->planes + at, &b->r.base.err);
        FM_ASSERT_OK(rc, &b->r.base.err);
        at += size;
    }
}

static struct state state_take(struct bench *b)
{
    struct state s = {.count = state_size(b->trainer),
                      .step = fm_engine_trainer_step(b->trainer)};

    s.planes = fm_calloc(s.count, sizeof(*s.planes));
    CU_ASSERT_PTR_NOT_NULL_FATAL(s.planes);
    state_move(b, &s, false);
    return s;
}

static void state_put(struct bench *b, struct state *s)
{
    CU_ASSERT_FATAL(s->count == state_size(b->trainer));
    state_move(b, s, true);
    fm_engine_trainer_set_step(b->trainer, s->step);
}

static bool state_equal(const struct state *a, const struct state *b)
{
    return a->step == b->step && a->count == b->count &&
           memcmp(a->planes, b->planes, a->count * sizeof(float)) == 0;
}

/* --- resuming ------------------------------------------------------------ */

static fm_engine_ppo_options_t ppo_options(void)
{
    fm_engine_ppo_options_t o;

    fm_engine_ppo_defaults(&o);
    o.mini_batch_size = 4; /* 6 rollouts: a whole one and a rest */
    o.epochs = 3;
    o.entropy_coef = 0.01;
    return o;
}

static fm_engine_grpo_options_t grpo_options(void)
{
    fm_engine_grpo_options_t o;

    fm_engine_grpo_defaults(&o);
    o.group_size = 3;
    o.mini_batch_size = 4;
    o.epochs = 3;
    return o;
}

enum { SFT, DPO, REWARD, PPO, GRPO, METHODS };

static fm_engine_experience_t *experience_make(struct bench *b, int method,
                                               const float *saved, size_t count)
{
    const fm_engine_ppo_options_t ppo = ppo_options();
    const fm_engine_grpo_options_t grpo = grpo_options();
    fm_engine_experience_t *e = NULL;
    fm_status_t rc = FM_OK;

    if (method == PPO) {
        rc = fm_engine_experience_create_ppo(b->trainer, b->r.rollouts,
                                             b->r.rollout_count, &ppo, saved,
                                             count, &e, &b->r.base.err);
    } else if (method == GRPO) {
        rc = fm_engine_experience_create_grpo(b->trainer, b->r.rollouts,
                                              b->r.rollout_count, &grpo, saved,
                                              count, &e, &b->r.base.err);
    }
    FM_ASSERT_OK(rc, &b->r.base.err);
    return e;
}

static void steps_run(struct bench *b, int method, fm_engine_experience_t *e,
                      int count)
{
    const fm_engine_dpo_options_t dpo = {.beta = 0.1};

    for (int i = 0; i < count; i++) {
        fm_status_t rc =
            method == SFT
                ? fm_engine_trainer_sft(b->trainer, b->r.base.samples.items,
                                        b->r.base.samples.count, NULL,
                                        &b->r.base.err)
            : method == DPO
                ? fm_engine_trainer_dpo(b->trainer, b->r.pairs, b->r.pair_count,
                                        &dpo, NULL, &b->r.base.err)
            : method == REWARD
                ? fm_engine_trainer_reward(b->trainer, b->r.pairs,
                                           b->r.pair_count, NULL,
                                           &b->r.base.err)
                : fm_engine_experience_step(e, NULL, &b->r.base.err);
        FM_ASSERT_OK(rc, &b->r.base.err);
    }
}

/* Six steps at once, and three, a new process, three: the same bits.  The
 * second part of an experience is made of what was saved of the first. */
static void resume_check(int method, bool lora)
{
    struct bench b;
    float *saved = NULL;
    size_t saved_count = 0;

    bench_open(&b, lora, 5e-3);
    fm_engine_experience_t *e = experience_make(&b, method, NULL, 0);
    if (e) {
        const float *kept = fm_engine_experience_saved(e, &saved_count);
        saved = fm_calloc(saved_count, sizeof(*saved));
        CU_ASSERT_PTR_NOT_NULL_FATAL(saved);
        memcpy(saved, kept, saved_count * sizeof(*saved));
        CU_ASSERT(fm_engine_experience_steps(e) == 6);
    }
    steps_run(&b, method, e, 3);
    struct state half = state_take(&b);
    steps_run(&b, method, e, 3);
    struct state whole = state_take(&b);
    fm_engine_experience_destroy(e);
    bench_close(&b);

    bench_open(&b, lora, 5e-3);
    state_put(&b, &half);
    e = experience_make(&b, method, saved, saved_count);
    if (e) {
        fm_engine_experience_set_position(e, 3);
        CU_ASSERT(fm_engine_experience_epoch(e) == 1);
    }
    steps_run(&b, method, e, 3);
    struct state resumed = state_take(&b);
    CU_ASSERT(state_equal(&whole, &resumed));
    CU_ASSERT(!state_equal(&half, &resumed));
    fm_engine_experience_destroy(e);
    bench_close(&b);
    free(saved);
    free(half.planes);
    free(whole.planes);
    free(resumed.planes);
}

static void test_resume(void)
{
    for (int method = 0; method < METHODS; method++) {
        resume_check(method, false);
        resume_check(method, true);
    }
}

/* Checkpointing costs work and no bit, dropout included. */
static void test_checkpointing(void)
{
    for (int method = 0; method < METHODS; method++) {
        struct state states[2];
        for (int i = 0; i < 2; i++) {
            struct bench b;
            bench_open(&b, true, 5e-3);
            b.options.gradient_checkpointing = i == 1;
            bench_renew(&b);
            fm_engine_experience_t *e = experience_make(&b, method, NULL, 0);
            steps_run(&b, method, e, 3);
            states[i] = state_take(&b);
            fm_engine_experience_destroy(e);
            bench_close(&b);
        }
        CU_ASSERT(state_equal(&states[0], &states[1]));
        free(states[0].planes);
        free(states[1].planes);
    }
}

/* --- experiences --------------------------------------------------------- */

/* With a rate of zero every ratio stays exactly one, in every mini-batch of
 * the first epoch; each epoch takes every rollout once. */
static void first_epoch_check(int method)
{
    struct bench b;
    const size_t *chosen = NULL;
    size_t count = 0;
    size_t seen[REF_ITEMS_MAX] = {0};
    size_t orders[3] = {0};

    bench_open(&b, true, 0);
    fm_engine_experience_t *e = experience_make(&b, method, NULL, 0);
    while (fm_engine_experience_next(e, &chosen, &count)) {
        size_t epoch = fm_engine_experience_epoch(e);
        fm_engine_metrics_t m;
        CU_ASSERT_FATAL(epoch < 3 && count > 0 && count <= 4);
        for (size_t i = 0; i < count; i++) {
            seen[chosen[i]]++;
            orders[epoch] = orders[epoch] * 7 + chosen[i];
        }
        FM_ASSERT_OK(fm_engine_experience_step(e, &m, &b.r.base.err),
                     &b.r.base.err);
        if (epoch == 0) {
            CU_ASSERT(m.ratio_min == 1 && m.ratio_max == 1);
            CU_ASSERT(m.policy_kl == 0 && m.clip_fraction == 0);
            CU_ASSERT(m.value_clip_fraction == 0);
        }
        CU_ASSERT(fabs(m.ratio_max - 1) < 1e-4);
    }
    for (size_t i = 0; i < b.r.rollout_count; i++) {
        CU_ASSERT(seen[i] == 3);
    }
    CU_ASSERT(orders[0] != orders[1] || orders[1] != orders[2]);
    CU_ASSERT(fixture_refused(fm_engine_experience_step(e, NULL, &b.r.base.err),
                              FM_ERR_INVALID, &b.r.base.err,
                              "iteration is over"));
    fm_engine_experience_destroy(e);
    bench_close(&b);
}

/* One step of all: the pass that would only find the old log-probs is spared,
 * and the numbers are those of the first of two epochs. */
static void test_one_step(void)
{
    fm_engine_metrics_t metrics[2];
    fm_engine_grpo_options_t o = grpo_options();

    o.mini_batch_size = 6;
    for (int i = 0; i < 2; i++) {
        fm_engine_experience_t *e = NULL;
        struct bench b;
        bench_open(&b, true, 5e-3);
        o.epochs = 1 + (size_t)i;
        FM_ASSERT_OK(fm_engine_experience_create_grpo(
                         b.trainer, b.r.rollouts, b.r.rollout_count, &o, NULL,
                         0, &e, &b.r.base.err),
                     &b.r.base.err);
        FM_ASSERT_OK(fm_engine_experience_step(e, &metrics[i], &b.r.base.err),
                     &b.r.base.err);
        CU_ASSERT(metrics[i].ratio_min == 1 && metrics[i].ratio_max == 1);
        fm_engine_experience_destroy(e);
        bench_close(&b);
    }
    CU_ASSERT(metrics[0].loss == metrics[1].loss &&
              metrics[0].grad_norm == metrics[1].grad_norm &&
              metrics[0].kl == metrics[1].kl && metrics[0].kl > 0);
}

/* More rows than the head takes at a time, or a rollout a micro-batch: the
 * same step but for rounding. */
static void test_many_rows(void)
{
    enum { LONG = 60, MANY = 6 };
    static int32_t tokens[MANY][LONG];
    static float references[LONG];
    fm_engine_rollout_t rollouts[MANY];
    fm_engine_metrics_t m[2];
    fm_rng_t rng;

    fm_rng_init(&rng, 2);
    for (size_t t = 0; t < LONG; t++) {
        references[t] = -3;
    }
    for (size_t i = 0; i < MANY; i++) {
        for (size_t t = 0; t < LONG; t++) {
            tokens[i][t] = (int32_t)fm_rng_below(&rng, 24);
        }
        rollouts[i] = (fm_engine_rollout_t){.prompt = tokens[i],
                                            .prompt_count = 1,
                                            .completion = tokens[i] + 1,
                                            .completion_count = LONG - 1 - i,
                                            .reward = (double)i,
                                            .reference = references};
    }
    for (int i = 0; i < 2; i++) {
        fm_engine_ppo_options_t o = ppo_options();
        fm_engine_experience_t *e = NULL;
        struct bench b;
        o.mini_batch_size = MANY;
        bench_open(&b, true, 5e-3);
        b.options.micro_batch_tokens = i == 0 ? 4096 : 1;
        bench_renew(&b);
        FM_ASSERT_OK(fm_engine_experience_create_ppo(b.trainer, rollouts, MANY,
                                                     &o, NULL, 0, &e,
                                                     &b.r.base.err),
                     &b.r.base.err);
        FM_ASSERT_OK(fm_engine_experience_step(e, &m[i], &b.r.base.err),
                     &b.r.base.err);
        CU_ASSERT(m[i].targets == 6 * (LONG - 1) - 15);
        CU_ASSERT(m[i].ratio_min == 1 && m[i].ratio_max == 1);
        fm_engine_experience_destroy(e);
        bench_close(&b);
    }
    CU_ASSERT(fabs(m[0].loss - m[1].loss) < 1e-5 * fabs(m[0].loss));
    CU_ASSERT(fabs(m[0].grad_norm - m[1].grad_norm) < 1e-5 * m[0].grad_norm);
    CU_ASSERT(fabs(m[0].entropy - m[1].entropy) < 1e-5 * m[0].entropy);
}

static void test_first_epoch(void)
{
    first_epoch_check(PPO);
    first_epoch_check(GRPO);
}

/* A policy too far from its rollouts ends the iteration, untouched. */
static void test_target_kl(void)
{
    fm_engine_ppo_options_t o = ppo_options();
    fm_engine_experience_t *e = NULL;
    fm_engine_metrics_t m = {0};
    const size_t *chosen = NULL;
    size_t count = 0;
    struct bench b;

    o.target_kl = 1e-3;
    o.epochs = 50;
    bench_open(&b, false, 2e-2);
    FM_ASSERT_OK(fm_engine_experience_create_ppo(b.trainer, b.r.rollouts,
                                                 b.r.rollout_count, &o, NULL, 0,
                                                 &e, &b.r.base.err),
                 &b.r.base.err);
    struct state before = state_take(&b);
    for (int i = 0; !m.stopped && i < 100; i++) {
        free(before.planes);
        before = state_take(&b);
        FM_ASSERT_OK(fm_engine_experience_step(e, &m, &b.r.base.err),
                     &b.r.base.err);
        CU_ASSERT(m.stopped == (m.policy_kl > 1e-3));
    }
    CU_ASSERT(m.stopped && m.step == before.step && m.step > 0);
    struct state after = state_take(&b);
    CU_ASSERT(state_equal(&before, &after));
    CU_ASSERT(!fm_engine_experience_next(e, &chosen, &count));
    free(before.planes);
    free(after.planes);
    fm_engine_experience_destroy(e);
    bench_close(&b);
}

/* --- refusals ------------------------------------------------------------ */

static bool ppo_refused(struct bench *b, const fm_engine_ppo_options_t *o,
                        size_t count, const char *part)
{
    fm_engine_experience_t *e = NULL;
    bool good = fixture_refused(
        fm_engine_experience_create_ppo(b->trainer, b->r.rollouts, count, o,
                                        NULL, 0, &e, &b->r.base.err),
        FM_ERR_INVALID, &b->r.base.err, part);

    return good && !e;
}

static void test_option_refusals(void)
{
    static const char *const names[] = {
        "clip_range", "value_clip_range", "value_coef", "gamma",
        "lam",        "kl_coef",          "entropy",    "target_kl",
        "epochs",     "mini_batch_size",  "iteration"};
    struct bench b;
    fm_engine_experience_t *e = NULL;

    bench_open(&b, false, 0);
    for (size_t i = 0; i < FM_COUNT_OF(names); i++) {
        fm_engine_ppo_options_t o = ppo_options();
        double *reals[] = {
            &o.clip_range, &o.value_clip_range, &o.value_coef,   &o.gamma,
            &o.lam,        &o.kl_coef,          &o.entropy_coef, &o.target_kl};
        if (i < FM_COUNT_OF(reals)) {
            *reals[i] = i % 2 ? NAN : -1;
        }
        o.epochs = i == 8 ? 0 : o.epochs;
        o.mini_batch_size = i == 9 ? 0 : o.mini_batch_size;
        o.iteration = i == 10 ? 0 : o.iteration;
        CU_ASSERT(ppo_refused(&b, &o, 6, names[i]));
    }
    fm_engine_grpo_options_t grpo = grpo_options();
    CU_ASSERT(fixture_refused(
        fm_engine_experience_create_grpo(b.trainer, b.r.rollouts, 5, &grpo,
                                         NULL, 0, &e, &b.r.base.err),
        FM_ERR_INVALID, &b.r.base.err, "5 rollouts are no whole groups of 3"));
    grpo.group_size = 1;
    CU_ASSERT(fixture_refused(
        fm_engine_experience_create_grpo(b.trainer, b.r.rollouts, 5, &grpo,
                                         NULL, 0, &e, &b.r.base.err),
        FM_ERR_INVALID, &b.r.base.err, "group_size"));
    const fm_engine_dpo_options_t dpo[] = {
        {.beta = 0},
        {.beta = 0.1, .label_smoothing = 0.5},
        {.beta = 0.1, .loss = FM_ENGINE_DPO_IPO, .label_smoothing = 0.1}};
    static const char *const parts[] = {"beta", "label_smoothing", "ipo"};
    for (size_t i = 0; i < FM_COUNT_OF(dpo); i++) {
        CU_ASSERT(fixture_refused(fm_engine_trainer_dpo(b.trainer, b.r.pairs,
                                                        b.r.pair_count, &dpo[i],
                                                        NULL, &b.r.base.err),
                                  FM_ERR_INVALID, &b.r.base.err, parts[i]));
    }
    bench_close(&b);
}

static void test_data_refusals(void)
{
    const fm_engine_ppo_options_t o = ppo_options();
    fm_engine_experience_t *e = NULL;
    struct bench b;
    float bad_reference[REF_TOKENS_MAX];
    int32_t bad_token = 24;
    int32_t many[70] = {0};

    bench_open(&b, false, 0);
    CU_ASSERT(ppo_refused(&b, &o, 0, "no rollouts"));
    fm_engine_rollout_t *third = &b.r.rollouts[3];
    const fm_engine_rollout_t keep = *third;
    third->reward = NAN;
    CU_ASSERT(ppo_refused(&b, &o, 6, "rollout 3: the reward is not finite"));
    *third = keep;
    third->reference = NULL;
    CU_ASSERT(ppo_refused(&b, &o, 6, "rollout 3: reference"));
    memset(bad_reference, 0xFF, sizeof(bad_reference)); /* NaN */
    third->reference = bad_reference;
    CU_ASSERT(ppo_refused(&b, &o, 6, "reference log-probability 0"));
    *third = keep;
    third->prompt_count = 0;
    CU_ASSERT(ppo_refused(&b, &o, 6, "rollout 3: prompt and completion"));
    *third = keep;
    third->prompt = &bad_token;
    third->prompt_count = 1;
    CU_ASSERT(ppo_refused(&b, &o, 6, "prompt of rollout 3, token 0 is 24"));
    third->prompt = many;
    third->prompt_count = 70;
    CU_ASSERT(fixture_refused(
        fm_engine_experience_create_ppo(b.trainer, b.r.rollouts, 6, &o, NULL, 0,
                                        &e, &b.r.base.err),
        FM_ERR_LIMIT, &b.r.base.err, "rollout 3 has"));
    *third = keep;
    const float saved[2] = {0};
    CU_ASSERT(fixture_refused(
        fm_engine_experience_create_ppo(b.trainer, b.r.rollouts, 6, &o, saved,
                                        2, &e, &b.r.base.err),
        FM_ERR_INVALID, &b.r.base.err, "2 numbers, 64 are needed"));
    CU_ASSERT(fixture_refused(
        fm_engine_trainer_reward(b.trainer, b.r.pairs, 0, NULL, &b.r.base.err),
        FM_ERR_INVALID, &b.r.base.err, "no pairs"));
    CU_ASSERT(fixture_refused(
        fm_engine_trainer_sft(b.trainer, b.r.base.samples.items, 0, NULL,
                              &b.r.base.err),
        FM_ERR_INVALID, &b.r.base.err, "no token counts in 0 samples"));
    bench_close(&b);
}

/* Without a scalar head there is nothing to score or to value with. */
static void test_head_refusals(void)
{
    const fm_engine_ppo_options_t o = ppo_options();
    struct bench b;

    bench_open(&b, false, 0);
    fm_engine_trainer_destroy(b.trainer);
    const fm_engine_parts_t parts = {.model = b.r.base.model};
    FM_ASSERT_OK(
        fm_engine_trainer_create(&parts, NULL, &b.trainer, &b.r.base.err),
        &b.r.base.err);
    CU_ASSERT(ppo_refused(&b, &o, 6, "needs a scalar head"));
    CU_ASSERT(fixture_refused(
        fm_engine_trainer_reward(b.trainer, b.r.pairs, b.r.pair_count, NULL,
                                 &b.r.base.err),
        FM_ERR_INVALID, &b.r.base.err, "needs a scalar head"));
    bench_close(&b);
}

/* A parameter that went bad stops every method with the step and the sample
 * at fault, and changes nothing. */
static void test_not_finite(void)
{
    const fm_engine_ppo_options_t ppo = ppo_options();
    const fm_engine_dpo_options_t dpo = {.beta = 0.1};
    fm_engine_experience_t *e = NULL;
    struct bench b;
    const float bad = NAN;

    bench_open(&b, true, 1e-3);
    e = experience_make(&b, PPO, NULL, 0);
    steps_run(&b, PPO, e, 2);
    /* the token of pair 1's prompt, of which no other pair is a part */
    const fm_engine_param_t *table =
        fm_engine_model_find(b.r.base.model, "model.embed_tokens.weight");
    CU_ASSERT_PTR_NOT_NULL_FATAL(table);
    int32_t token = b.r.pairs[1].prompt[0];
    FM_ASSERT_OK(fm_engine_model_write(b.r.base.model,
                                       table->offset + (size_t)token * 16, 1,
                                       &bad, &b.r.base.err),
                 &b.r.base.err);
    struct state before = state_take(&b);
    CU_ASSERT(fixture_refused(fm_engine_trainer_dpo(b.trainer, b.r.pairs + 1, 1,
                                                    &dpo, NULL, &b.r.base.err),
                              FM_ERR_INVALID, &b.r.base.err,
                              "step 3, pair 0: the loss is not finite"));
    CU_ASSERT(fixture_refused(fm_engine_trainer_reward(b.trainer, b.r.pairs + 1,
                                                       1, NULL, &b.r.base.err),
                              FM_ERR_INVALID, &b.r.base.err,
                              "step 3, pair 0: the loss is not finite"));
    FM_ASSERT_OK(fm_engine_value_write(b.r.value, 0, 1, &bad, &b.r.base.err),
                 &b.r.base.err);
    CU_ASSERT(fixture_refused(fm_engine_experience_step(e, NULL, &b.r.base.err),
                              FM_ERR_INVALID, &b.r.base.err,
                              "the loss is not finite"));
    CU_ASSERT(strstr(b.r.base.err.text, "step 3, rollout") != NULL);
    fm_engine_experience_t *none = NULL;
    CU_ASSERT(fixture_refused(
        fm_engine_experience_create_ppo(b.trainer, b.r.rollouts, 6, &ppo, NULL,
                                        0, &none, &b.r.base.err),
        FM_ERR_INVALID, &b.r.base.err, "of the policy is not finite"));
    CU_ASSERT_PTR_NULL(none);
    struct state after = state_take(&b);
    /* but for the weight this test spoilt itself */
    size_t spoilt = PLANES * fm_engine_adapter_size(b.r.adapter);
    after.planes[spoilt] = before.planes[spoilt];
    CU_ASSERT(state_equal(&before, &after));
    free(before.planes);
    free(after.planes);
    fm_engine_experience_destroy(e);
    bench_close(&b);
}

static void test_no_memory(void)
{
    struct bench b;
    bool worked = false;

    bench_open(&b, true, 1e-3);
    for (int nth = 1; nth < 100 && !worked; nth++) {
        const fm_engine_grpo_options_t o = grpo_options();
        fm_engine_experience_t *e = NULL;
        char spec[32];
        (void)snprintf(spec, sizeof(spec), "base.alloc:%d", nth);
        CU_ASSERT_FATAL(fm_fault_arm(spec));
        fm_status_t rc = fm_engine_experience_create_grpo(
            b.trainer, b.r.rollouts, b.r.rollout_count, &o, NULL, 0, &e,
            &b.r.base.err);
        if (rc >= 0) {
            rc = fm_engine_experience_step(e, NULL, &b.r.base.err);
        }
        worked = rc >= 0;
        CU_ASSERT(worked || rc == FM_ERR_NO_MEMORY);
        CU_ASSERT(fm_fault_arm(NULL));
        fm_engine_experience_destroy(e);
    }
    CU_ASSERT(worked);
    bench_close(&b);
}

/* --- learning ------------------------------------------------------------ */

enum {
    PROMPT = 2,
    LENGTH = 5,
    GROUP = 6,
    COUNT = 2 * GROUP,
    ITERATIONS = 80,
    LAST = 10
};

/* Draw completions from the policy, a token at a time. */
static void rollouts_draw(struct bench *b, fm_engine_pass_t *pass,
                          fm_rng_t *rng, int32_t tokens[][PROMPT + LENGTH],
                          fm_engine_rollout_t *rollouts)
{
    enum { VOCAB = 24 };

    for (size_t i = 0; i < COUNT; i++) {
        int32_t *row = tokens[i];
        row[0] = 3;
        row[1] = i < GROUP ? 5 : 8;
        double hits = 0;
        for (int32_t n = PROMPT; n < PROMPT + LENGTH; n++) {
            const int32_t offsets[2] = {0, n};
            const int32_t last = n - 1;
            float logits[VOCAB];
            double total = 0;
            const fm_engine_batch_t batch = {
                .tokens = row, .offsets = offsets, .count = 1};
            FM_ASSERT_OK(fm_engine_pass_forward(pass, &batch, &b->r.base.err),
                         &b->r.base.err);
            FM_ASSERT_OK(
                fm_engine_pass_logits(pass, &last, 1, logits, &b->r.base.err),
                &b->r.base.err);
            for (size_t v = 0; v < VOCAB; v++) {
                total += exp((double)logits[v]);
            }
            double left = fm_rng_uniform(rng) * total;
            row[n] = 0;
            while (row[n] < VOCAB - 1 &&
                   (left -= exp((double)logits[row[n]])) > 0) {
                row[n]++;
            }
            hits += row[n] % 2; /* odd tokens are wanted */
        }
        rollouts[i] = (fm_engine_rollout_t){.prompt = row,
                                            .prompt_count = PROMPT,
                                            .completion = row + PROMPT,
                                            .completion_count = LENGTH,
                                            .reward = hits / LENGTH};
    }
}

/* The mean reward of the LAST iterations; the first's in @p first. */
static double learn(int method, double *first)
{
    int32_t tokens[COUNT][PROMPT + LENGTH];
    fm_engine_rollout_t rollouts[COUNT];
    fm_engine_pass_t *pass = NULL;
    fm_engine_metrics_t m = {0};
    fm_engine_ppo_options_t ppo = ppo_options();
    fm_engine_grpo_options_t grpo = grpo_options();
    double late = 0;
    struct bench b;
    fm_rng_t rng;

    fm_rng_init(&rng, 1);
    bench_open(&b, true, 2e-2);
    FM_ASSERT_OK(
        fm_engine_pass_create(b.r.base.model, false, &pass, &b.r.base.err),
        &b.r.base.err);
    fm_engine_pass_set_adapter(pass, b.r.adapter);
    ppo.kl_coef = 0;
    grpo.beta = 0;
    grpo.group_size = GROUP;
    for (uint64_t i = 1; i <= ITERATIONS; i++) {
        fm_engine_experience_t *e = NULL;
        rollouts_draw(&b, pass, &rng, tokens, rollouts);
        ppo.iteration = i;
        grpo.iteration = i;
        FM_ASSERT_OK(method == PPO ? fm_engine_experience_create_ppo(
                                         b.trainer, rollouts, COUNT, &ppo, NULL,
                                         0, &e, &b.r.base.err)
                                   : fm_engine_experience_create_grpo(
                                         b.trainer, rollouts, COUNT, &grpo,
                                         NULL, 0, &e, &b.r.base.err),
                     &b.r.base.err);
        while (fm_engine_experience_position(e) <
               fm_engine_experience_steps(e)) {
            FM_ASSERT_OK(fm_engine_experience_step(e, &m, &b.r.base.err),
                         &b.r.base.err);
        }
        fm_engine_experience_destroy(e);
        *first = i == 1 ? m.reward_mean : *first;
        late += i > ITERATIONS - LAST ? m.reward_mean / LAST : 0;
    }
    fm_engine_pass_destroy(pass);
    bench_close(&b);
    return late;
}

static void test_learns(void)
{
    for (int method = PPO; method <= GRPO; method++) {
        double first = 0;
        double last = learn(method, &first);
        if (!(first < 0.6 && last > 0.75)) {
            (void)fprintf(stderr, "method %d: from %g to %g\n", method, first,
                          last);
        }
        CU_ASSERT(first < 0.6 && last > 0.75);
    }
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"resume, bit for bit, every method", test_resume},
        {"checkpointing keeps the bits", test_checkpointing},
        {"first epoch", test_first_epoch},
        {"many rows", test_many_rows},
        {"one step is its own old policy", test_one_step},
        {"target KL", test_target_kl},
        {"options refused", test_option_refusals},
        {"data refused", test_data_refusals},
        {"no scalar head", test_head_refusals},
        {"not finite", test_not_finite},
        {"fault: out of memory", test_no_memory},
        {"PPO and GRPO learn", test_learns},
    };

    return fm_test_main("engine reinforcement", cases, FM_COUNT_OF(cases));
}
