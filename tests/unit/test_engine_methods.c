/* SPDX-License-Identifier: Apache-2.0 */
/*
 * engine: every training method against PyTorch, of the whole model and of an
 * adapter over a frozen one: the metrics of ten steps, the first gradient and
 * the parameters at the end, from files of tests/ref/train_reference.py.
 */
#include "base/rng.h"
#include "engine_train_ref.h"

#define FLOOR 1e-6 /* of numbers that are about zero */

enum { STEPS = 10 };

/* One method over the reference data. */
struct run {
    struct ref r;
    const char *name; /* of the method */
    fm_engine_trainer_t *trainer;
    fm_engine_experience_t *experience;
    size_t micro_batch_tokens;
    bool still; /* steps measure and change no parameter */
};

static const struct {
    const char *name;
    size_t offset;
} fields[] = {
#define FIELD(name)                                                            \
    {                                                                          \
#name, offsetof(fm_engine_metrics_t, name)                             \
    }
    FIELD(loss),          FIELD(grad_norm),
    FIELD(learning_rate), FIELD(reward_chosen),
    FIELD(accuracy),      FIELD(reward_rejected),
    FIELD(margin),        FIELD(policy_loss),
    FIELD(entropy),       FIELD(kl),
    FIELD(policy_kl),     FIELD(clip_fraction),
    FIELD(ratio_mean),    FIELD(ratio_min),
    FIELD(ratio_max),     FIELD(advantage_mean),
    FIELD(advantage_std), FIELD(value_loss),
    FIELD(value_mean),    FIELD(value_clip_fraction),
    FIELD(return_mean),   FIELD(explained_variance),
};

static fm_engine_train_options_t train_options(const struct run *run)
{
    fm_engine_train_options_t options = reference_train_options(&run->r.base);

    options.micro_batch_tokens = run->micro_batch_tokens;
    if (run->still) { /* the schedule's first step has rate 0 for good */
        options.learning_rate = 0;
        options.min_learning_rate = 0;
    }
    return options;
}

static bool is(const struct run *run, const char *name)
{
    return strcmp(run->name, name) == 0;
}

static void ppo_open(struct run *run)
{
    const fm_json_t *o = fm_json_get(run->r.base.json, "ppo");
    fm_engine_ppo_options_t options;

    fm_engine_ppo_defaults(&options);
    options.clip_range = fm_json_get_real(o, "clip_range", -1);
    options.value_clip_range = fm_json_get_real(o, "value_clip_range", -1);
    options.value_coef = fm_json_get_real(o, "value_coef", -1);
    options.gamma = fm_json_get_real(o, "gamma", -1);
    options.lam = fm_json_get_real(o, "lam", -1);
    options.kl_coef = fm_json_get_real(o, "kl_coef", -1);
    options.entropy_coef = fm_json_get_real(o, "entropy_coef", -1);
    options.epochs = STEPS;
    FM_ASSERT_OK(fm_engine_experience_create_ppo(
                     run->trainer, run->r.rollouts, run->r.rollout_count,
                     &options, NULL, 0, &run->experience, &run->r.base.err),
                 &run->r.base.err);
}

static void grpo_open(struct run *run)
{
    const fm_json_t *o = fm_json_get(run->r.base.json, "grpo");
    fm_engine_grpo_options_t options;

    fm_engine_grpo_defaults(&options);
    options.group_size = (size_t)fm_json_get_int(o, "group_size", -1);
    options.beta = fm_json_get_real(o, "beta", -1);
    options.clip_range = fm_json_get_real(o, "clip_range", -1);
    options.clip_range_high = fm_json_get_real(o, "clip_range_high", -1);
    options.entropy_coef = fm_json_get_real(o, "entropy_coef", -1);
    options.epochs = STEPS;
    FM_ASSERT_OK(fm_engine_experience_create_grpo(
                     run->trainer, run->r.rollouts, run->r.rollout_count,
                     &options, NULL, 0, &run->experience, &run->r.base.err),
                 &run->r.base.err);
}

static void run_open(struct run *run, const char *file, const char *method,
                     size_t micro_batch_tokens, bool still)
{
    ref_open(&run->r, file);
    run->name = method;
    run->experience = NULL;
    run->micro_batch_tokens = micro_batch_tokens;
    run->still = still;
    fm_engine_train_options_t options = train_options(run);
    const fm_engine_parts_t parts = {
        .model = run->r.base.model,
        .adapter = run->r.adapter,
        .value = is(run, "ppo") || is(run, "reward") ? run->r.value : NULL};
    FM_ASSERT_OK(fm_engine_trainer_create(&parts, &options, &run->trainer,
                                          &run->r.base.err),
                 &run->r.base.err);
    if (is(run, "ppo")) {
        ppo_open(run);
    } else if (is(run, "grpo")) {
        grpo_open(run);
    }
}

static void run_close(struct run *run)
{
    fm_engine_experience_destroy(run->experience);
    fm_engine_trainer_destroy(run->trainer);
    ref_close(&run->r);
}

static fm_status_t run_step(struct run *run, fm_engine_metrics_t *m)
{
    struct ref *r = &run->r;

    if (run->experience) {
        return fm_engine_experience_step(run->experience, m, &r->base.err);
    }
    if (is(run, "sft")) {
        return fm_engine_trainer_sft(run->trainer, r->base.samples.items,
                                     r->base.samples.count, m, &r->base.err);
    }
    if (is(run, "reward")) {
        return fm_engine_trainer_reward(run->trainer, r->pairs, r->pair_count,
                                        m, &r->base.err);
    }
    fm_engine_dpo_options_t options = {0};
    CU_ASSERT_FATAL(fm_engine_dpo_loss_parse(run->name + 4, &options.loss));
    const fm_json_t *o =
        fm_json_get(fm_json_get(r->base.json, "dpo"), run->name + 4);
    options.beta = fm_json_get_real(o, "beta", -1);
    options.label_smoothing = fm_json_get_real(o, "label_smoothing", -1);
    return fm_engine_trainer_dpo(run->trainer, r->pairs, r->pair_count,
                                 &options, m, &r->base.err);
}

/* Every number that the reference has of a step. */
static void compare_metrics(const struct run *run, size_t step,
                            const fm_engine_metrics_t *m)
{
    const fm_json_t *want = fm_json_at(
        fm_json_get(fm_json_get(run->r.base.json, "steps"), run->name), step);
    size_t found = 0;

    for (size_t i = 0; i < FM_COUNT_OF(fields); i++) {
        const fm_json_t *number = fm_json_get(want, fields[i].name);
        double got;
        if (!number) {
            continue;
        }
        found++;
        memcpy(&got, (const char *)m + fields[i].offset, sizeof(got));
        double expected = fm_json_real_or(number, NAN);
        bool good = fabs(got - expected) <= TOLERANCE * fabs(expected) + FLOOR;
        if (!good) {
            (void)fprintf(stderr, "%s, step %zu, %s: %.9g, want %.9g\n",
                          run->name, step, fields[i].name, got, expected);
        }
        CU_ASSERT(good);
    }
    CU_ASSERT(found >= 3 && found == fm_json_len(want));
}

/* A plane of all trained blocks against "<method>_<suffix>". */
static void compare_plane(struct run *run, fm_engine_plane_t plane,
                          const char *suffix)
{
    struct ref *r = &run->r;
    const fm_json_t *names =
        fm_json_get(r->base.json, r->adapter ? "adapter" : "tensors");
    char key[64];
    size_t count = 0;
    size_t used = 0;
    size_t blocks = 0;
    const fm_engine_block_t *block =
        fm_engine_trainer_blocks(run->trainer, &blocks);

    (void)snprintf(key, sizeof(key), "%s_%s", run->name, suffix);
    const float *want = reference_block(&r->base, key, &count);
    for (size_t b = 0; b < blocks; b++) {
        float *host = fm_calloc(block[b].size, sizeof(*host));
        CU_ASSERT_PTR_NOT_NULL_FATAL(host);
        FM_ASSERT_OK(fm_engine_trainer_read(run->trainer, b, plane, 0,
                                            block[b].size, host, &r->base.err),
                     &r->base.err);
        size_t tensors = b == 0 ? fm_json_len(names) : 1;
        for (size_t i = 0; i < tensors; i++) {
            const fm_engine_param_t *at =
                b == 0 ? ref_find(r, fm_json_str(fm_json_at(names, i)))
                       : fm_engine_value_param(r->value);
            CU_ASSERT_FATAL(used + at->count <= count);
            reference_compare(run->name, at->name, host + at->offset,
                              want + used, at->count);
            used += at->count;
        }
        free(host);
    }
    CU_ASSERT(used == count);
}

static void check(const char *file, const char *method, size_t micro_tokens)
{
    struct run run;
    size_t size = 0;

    run_open(&run, file, method, micro_tokens, false);
    const float *before = reference_block(&run.r.base, "params", &size);
    for (size_t step = 0; step < STEPS; step++) {
        fm_engine_metrics_t m = {0};
        FM_ASSERT_OK(run_step(&run, &m), &run.r.base.err);
        compare_metrics(&run, step, &m);
        CU_ASSERT(m.step == step + 1 && !m.stopped);
        if (step == 0) {
            compare_plane(&run, FM_ENGINE_PLANE_GRADIENT, "gradient");
        }
    }
    compare_plane(&run, FM_ENGINE_PLANE_PARAMS, "after");
    if (run.r.adapter) { /* the base is what it was, bit for bit */
        size_t used = 0;
        const fm_json_t *names = fm_json_get(run.r.base.json, "tensors");
        for (size_t i = 0; i < fm_json_len(names); i++) {
            const fm_engine_param_t *at = fm_engine_model_find(
                run.r.base.model, fm_json_str(fm_json_at(names, i)));
            CU_ASSERT(
                memcmp(fm_engine_model_data(run.r.base.model) + at->offset,
                       before + used, at->count * sizeof(float)) == 0);
            used += at->count;
        }
        CU_ASSERT(used == size);
    }
    run_close(&run);
}

/* --- finite differences -------------------------------------------------- */

/* The loss where the parameters stand now; the same data every time. */
static double loss_here(struct run *run)
{
    fm_engine_metrics_t m = {0};

    if (run->experience) {
        fm_engine_experience_set_position(run->experience, 0);
    }
    FM_ASSERT_OK(run_step(run, &m), &run->r.base.err);
    return m.loss;
}

/* Move a block's parameters by @p amount times @p direction from @p from. */
static void block_move(struct run *run, size_t block, const float *from,
                       const float *direction, double amount, size_t size)
{
    float *moved = fm_calloc(size, sizeof(*moved));

    CU_ASSERT_PTR_NOT_NULL_FATAL(moved);
    for (size_t i = 0; i < size; i++) {
        moved[i] = (float)((double)from[i] + amount * (double)direction[i]);
    }
    FM_ASSERT_OK(fm_engine_trainer_write(run->trainer, block,
                                         FM_ENGINE_PLANE_PARAMS, 0, size, moved,
                                         &run->r.base.err),
                 &run->r.base.err);
    free(moved);
}

/* The slope along the gradient of one block, at a point away from the policy
 * that made the rollouts, so that ratios differ and some are clipped. */
static void check_slope(struct run *run, size_t block, size_t size)
{
    const double h = 2e-3;
    float *params = fm_calloc(size, sizeof(*params));
    float *gradient = fm_calloc(size, sizeof(*gradient));
    double length = 0;
    double slope = 0;

    CU_ASSERT_FATAL(params && gradient);
    (void)loss_here(run);
    FM_ASSERT_OK(fm_engine_trainer_read(run->trainer, block,
                                        FM_ENGINE_PLANE_GRADIENT, 0, size,
                                        gradient, &run->r.base.err),
                 &run->r.base.err);
    FM_ASSERT_OK(fm_engine_trainer_read(run->trainer, block,
                                        FM_ENGINE_PLANE_PARAMS, 0, size, params,
                                        &run->r.base.err),
                 &run->r.base.err);
    for (size_t i = 0; i < size; i++) {
        length += (double)gradient[i] * (double)gradient[i];
    }
    length = sqrt(length);
    CU_ASSERT_FATAL(length > 1e-3);
    for (int side = 1; side >= -1; side -= 2) {
        block_move(run, block, params, gradient, side * h / length, size);
        slope += side * loss_here(run) / (2 * h);
    }
    block_move(run, block, params, gradient, 0, size);
    bool good = fabs(slope - length) <= 0.01 * length;
    if (!good) {
        (void)fprintf(stderr, "%s, block %zu: slope %g, gradient %g\n",
                      run->name, block, slope, length);
    }
    CU_ASSERT(good);
    free(params);
    free(gradient);
}

static void check_slopes(const char *file, const char *method)
{
    struct run run;
    size_t blocks = 0;
    fm_rng_t rng;

    run_open(&run, file, method, 4096, true);
    fm_rng_init(&rng, 21);
    const fm_engine_block_t *block =
        fm_engine_trainer_blocks(run.trainer, &blocks);
    for (size_t b = 0; b < blocks; b++) {
        float *params = fm_calloc(block[b].size, sizeof(*params));
        float *noise = fm_calloc(block[b].size, sizeof(*noise));
        CU_ASSERT_FATAL(params && noise);
        for (size_t i = 0; i < block[b].size; i++) {
            noise[i] = (float)fm_rng_normal(&rng);
        }
        FM_ASSERT_OK(
            fm_engine_trainer_read(run.trainer, b, FM_ENGINE_PLANE_PARAMS, 0,
                                   block[b].size, params, &run.r.base.err),
            &run.r.base.err);
        block_move(&run, b, params, noise, 0.03, block[b].size);
        free(params);
        free(noise);
    }
    for (size_t b = 0; b < blocks; b++) {
        check_slope(&run, b, block[b].size);
    }
    run_close(&run);
}

static void test_slopes(void)
{
    static const char *const methods[] = {"sft",    "dpo_sigmoid", "dpo_ipo",
                                          "reward", "ppo",         "grpo"};

    for (size_t i = 0; i < FM_COUNT_OF(methods); i++) {
        check_slopes("train_full", methods[i]);
        check_slopes("train_lora", methods[i]);
    }
}

/* In one micro-batch, and one sequence or pair at a time. */
static void check_all(const char *method)
{
    check("train_full", method, 4096);
    check("train_full", method, 1);
    check("train_lora", method, 4096);
    check("train_lora", method, 30);
}

static void test_sft(void)
{
    check_all("sft");
}

static void test_dpo(void)
{
    check_all("dpo_sigmoid");
}

static void test_ipo(void)
{
    check_all("dpo_ipo");
}

static void test_reward(void)
{
    check_all("reward");
}

static void test_ppo(void)
{
    check_all("ppo");
}

static void test_grpo(void)
{
    check_all("grpo");
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"supervised", test_sft},
        {"DPO, sigmoid", test_dpo},
        {"DPO, IPO", test_ipo},
        {"reward model", test_reward},
        {"PPO", test_ppo},
        {"GRPO", test_grpo},
        {"finite differences", test_slopes},
    };

    return fm_test_main("engine methods", cases, FM_COUNT_OF(cases));
}
