/* SPDX-License-Identifier: Apache-2.0 */
/* What to do: the sections of a spec that belong to task types
 * (docs/spec/workflow.md §6).  Rows of the same name for several tables stand
 * in one macro, so that they cannot differ. */
#include "plan/workflow/rows.h"

/* --- generating ----------------------------------------------------------- */

/* How tokens are drawn. */
#define DRAWING(warmth)                                                        \
    {REAL("temperature", 0, 100), .fallback = (warmth)},                       \
        {REAL("top_p", 1e-6, 1), .fallback = "1.0"},                           \
        {INT("top_k", 0, 1e6), .fallback = "0"},                               \
        {REAL("min_p", 0, 1), .fallback = "0.0"},                              \
        {REAL("repetition_penalty", 0.01, 100), .fallback = "1.0"},            \
    {                                                                          \
        ANY("stop"), .nullable = true                                          \
    }

static const fm_yaml_key_t inference_keys[] = {
    {INT("max_tokens", 1, 1 << 20), .fallback = "64"},
    {INT("max_new_tokens", 1, 1 << 20), .same_as = "max_tokens"},
    DRAWING("0.0"),
    {INT("n", 1, 256), .fallback = "1"},
    {TEXT("return"), .choices = "text|tokens", .fallback = "\"text\""},
    {INT("seed", 0, SEED_MAX)},
    /* these go into the items */
    {TEXT("system_prompt"), .hint = true},
    {BOOL("chat"), .hint = true},
};
TABLE(fm_wf_inference, "inference", inference_keys);

static const fm_yaml_key_t generation_keys[] = {
    {INT("max_new_tokens", 1, 1 << 20), .fallback = "64"},
    {INT("max_tokens", 1, 1 << 20), .same_as = "max_new_tokens"},
    DRAWING(NULL), /* the task type's */
    {INT("n", 1, 256), .variants = FM_WF_EVALUATE},
    {ANY("k"), .variants = FM_WF_EVALUATE},
    {REAL("pass_score", -1e9, 1e9), .variants = FM_WF_EVALUATE},
    {INT("max_seq_length", 2, 1 << 24), .nullable = true,
     .variants = FM_WF_EVALUATE},
    {INT("seed", 0, SEED_MAX), .variants = FM_WF_EVALUATE},
    {TEXT("system_prompt"), .hint = true, .variants = FM_WF_POLICY},
    {BOOL("chat"), .hint = true, .variants = FM_WF_POLICY},
};
TABLE(fm_wf_generation, "generation", generation_keys);

/* --- training ------------------------------------------------------------- */

#define SCHEDULE                                                               \
    {INT("warmup_steps", 0, BIG), .fallback = "0"},                            \
        {REAL("warmup_ratio", 0, 1), .nullable = true},                        \
        {TEXT("schedule"), .choices = "constant|linear|cosine",                \
         .fallback = "\"constant\""},                                          \
    {                                                                          \
        REAL("min_learning_rate", 0, 10), .fallback = "0.0"                    \
    }

#define OPTIMIZER                                                              \
    {REAL("weight_decay", 0, 10), .fallback = "0.0"},                          \
        {REAL("max_grad_norm", 0, 1e9), .fallback = "1.0"},                    \
        {REAL("adam_beta1", 0, 0.999999), .fallback = "0.9"},                  \
        {REAL("adam_beta2", 0, 0.999999), .fallback = "0.999"},                \
        {REAL("adam_epsilon", 1e-12, 1), .fallback = "1e-08"},                 \
    {                                                                          \
        INT("seed", 0, SEED_MAX)                                               \
    }

/* Accepted: the result does not depend on them. */
#define TRAINING_HINTS                                                         \
    {INT("save_steps", 1, BIG), .hint = true},                                 \
        {INT("save_freq", 1, BIG), .hint = true, .same_as = "save_steps"},     \
        {REAL("save_seconds", 1, BIG), .hint = true},                          \
        {INT("logging_steps", 1, BIG), .hint = true},                          \
        {BOOL("packing"), .hint = true},                                       \
        {BOOL("gradient_checkpointing"), .hint = true},                        \
        {BOOL("save_model"), .hint = true},                                    \
        {TEXT("save_strategy"), .hint = true},                                 \
        {INT("save_total_limit", 1, BIG), .hint = true},                       \
        {ANY("report_to"), .hint = true}, {TEXT("project"), .hint = true},     \
        {TEXT("padding_side"), .hint = true}, {BOOL("fp16"), .hint = true},    \
    {                                                                          \
        BOOL("bf16"), .hint = true                                             \
    }

static const fm_yaml_key_t training_keys[] = {
    {REAL("learning_rate", 0, 10), .fallback = "0.001"},
    {INT("batch_size", 1, 65536), .fallback = "8"},
    {INT("gradient_accumulation_steps", 1, 65536), .fallback = "1"},
    {REAL("num_train_epochs", 1e-6, 1e6)},
    {INT("steps", 1, BIG)},
    {INT("max_seq_length", 2, 1 << 24), .nullable = true},
    {BOOL("truncate"), .fallback = "false"},
    SCHEDULE,
    OPTIMIZER,
    {REAL("beta", 1e-6, 1000), .fallback = "0.1", .variants = FM_WF_DPO},
    {TEXT("loss"), .choices = "sigmoid|ipo", .fallback = "\"sigmoid\"",
     .variants = FM_WF_DPO},
    {REAL("label_smoothing", 0, 0.5), .fallback = "0.0", .variants = FM_WF_DPO},
    TRAINING_HINTS,
};
TABLE(fm_wf_training, "training", training_keys);

static const fm_yaml_key_t policy_training_keys[] = {
    {INT("steps", 1, FM_WF_ITERATIONS_MAX), .hint = true /* the chain's */},
    {REAL("learning_rate", 0, 10), .fallback = "1e-05"},
    {INT("batch_size", 1, 65536), .fallback = "8"},
    {INT("mini_batch_size", 1, 1 << 20)},
    {INT("epochs", 1, 1000), .fallback = "4", .variants = FM_WF_PPO},
    {INT("epochs", 1, 1000), .fallback = "1", .variants = FM_WF_GRPO},
    {INT("ppo_epochs", 1, 1000), .same_as = "epochs", .variants = FM_WF_PPO},
    {REAL("clip_range", 1e-9, 0.999999), .fallback = "0.2"},
    {REAL("value_clip_range", 0, 100), .fallback = "0.2",
     .variants = FM_WF_PPO},
    {REAL("value_coef", 0, 1000), .fallback = "0.1", .variants = FM_WF_PPO},
    {REAL("gamma", 0, 1), .fallback = "1.0", .variants = FM_WF_PPO},
    {REAL("lam", 0, 1), .fallback = "0.95", .variants = FM_WF_PPO},
    {REAL("kl_coef", 0, 1000), .fallback = "0.05", .variants = FM_WF_PPO},
    {REAL("entropy_coef", 0, 1000), .fallback = "0.0"},
    {REAL("target_kl", 1e-9, 1e6), .nullable = true},
    {BOOL("whiten_advantages"), .fallback = "true", .variants = FM_WF_PPO},
    {BOOL("early_stopping"), .hint = true},
    {INT("group_size", 2, 256), .fallback = "8", .variants = FM_WF_GRPO},
    {REAL("beta", 0, 1000), .fallback = "0.04", .variants = FM_WF_GRPO},
    {REAL("clip_range_high", 0, 100), .nullable = true, .variants = FM_WF_GRPO},
    {BOOL("scale_rewards"), .fallback = "true", .variants = FM_WF_GRPO},
    SCHEDULE,
    OPTIMIZER,
    {INT("gradient_accumulation_steps", 1, 65536), .hint = true},
    TRAINING_HINTS,
};
TABLE(fm_wf_policy_training, "training", policy_training_keys);

static const fm_yaml_key_t lora_keys[] = {
    {INT("r", 1, 4096), .fallback = "16"},
    {REAL("alpha", 1e-6, 1e6), .fallback = "32.0"},
    {REAL("dropout", 0, 0.99), .fallback = "0.0"},
    {ANY("target_modules")},
    {TEXT("bias"), .choices = "none", .hint = true},
    {TEXT("task_type"), .choices = "CAUSAL_LM", .hint = true},
    {BOOL("use_rslora"), .hint = true /* rules: false alone */},
};
TABLE(fm_wf_lora, "lora", lora_keys);

/* --- judging -------------------------------------------------------------- */

/* All keys of all types; which type takes which is said in reward.c. */
static const fm_yaml_key_t reward_keys[] = {
    {TEXT("type")},
    {REAL("weight", -1e6, 1e6)},
    {TEXT("field"), .nullable = true},
    {TEXT("marker"), .nullable = true},
    {REAL("tolerance", 0, 1e300)},
    {TEXT("pattern")},
    {TEXT("mode"), .choices = "search|full"},
    {INT("group", 0, 1000), .nullable = true},
    {ANY("schema")},
    {BOOL("extract")},
    {TEXT("unit"), .choices = "tokens|characters"},
    {INT("target", 1, BIG), .nullable = true},
    {INT("min_tokens", 0, BIG), .nullable = true},
    {INT("max_tokens", 0, BIG), .nullable = true},
    {BOOL("strip")},
    {BOOL("ignore_case")},
    {ANY("code")},
    {TEXT("entrypoint")},
    {SECTION("model", fm_wf_model)},
    {INT("max_seq_length", 2, 1 << 24), .nullable = true},
};
TABLE(fm_wf_reward, "a reward", reward_keys);

static const fm_yaml_key_t published_reward_keys[] = {
    {TEXT("identifier")},
    {TEXT("type"), .choices = "digest|node|path|hub|huggingface|name"},
    {TEXT("revision")},
};
TABLE(fm_wf_published_reward, "reward_model", published_reward_keys);

static const fm_yaml_key_t scoring_keys[] = {
    {INT("max_seq_length", 2, 1 << 24), .nullable = true},
};
TABLE(fm_wf_scoring, "scoring", scoring_keys);

static const fm_yaml_key_t embedding_keys[] = {
    {TEXT("pooling"), .choices = "mean|last", .fallback = "\"mean\""},
    {BOOL("normalize"), .fallback = "true"},
};
TABLE(fm_wf_embedding, "embedding", embedding_keys);

/* --- records -------------------------------------------------------------- */

static const fm_yaml_key_t map_keys[] = {
    {ANY("code")},   {TEXT("entrypoint")}, {BOOL("flatten")},
    {MAP("fields")}, {BOOL("keep")},
};
TABLE(fm_wf_map, "map", map_keys);

static const fm_yaml_key_t filter_keys[] = {
    {ANY("code")},
    {TEXT("entrypoint")},
    {ANY("where")},
};
TABLE(fm_wf_filter, "filter", filter_keys);

static const fm_yaml_key_t dedup_keys[] = {
    {TEXT("method"), .choices = "exact|minhash", .fallback = "\"exact\""},
    {LIST("fields"), .nullable = true},
    {REAL("threshold", 1e-9, 1), .fallback = "0.8"},
    {INT("ngram", 1, 64), .fallback = "5"},
    {INT("permutations", 16, 1024), .fallback = "128"},
    {BOOL("lowercase"), .fallback = "true"},
    {TEXT("verify"), .choices = "exact|estimate", .fallback = "\"exact\""},
    {INT("seed", 0, SEED_MAX)},
};
TABLE(fm_wf_dedup, "dedup", dedup_keys);

static const fm_yaml_key_t split_keys[] = {
    {MAP("parts"), .hint = true /* as a list: in the order written */},
    {BOOL("shuffle"), .fallback = "true"},
    {INT("seed", 0, SEED_MAX)},
    {TEXT("stratify"), .nullable = true},
};
TABLE(fm_wf_split_parts, "split", split_keys);

static const fm_yaml_key_t shard_keys[] = {
    {INT("index", 0, 1e6)},
    {INT("count", 1, 1e6)},
    {BOOL("contiguous"), .fallback = "false"},
};
TABLE(fm_wf_shard, "shard", shard_keys);

static const fm_yaml_key_t sample_keys[] = {
    {INT("count", 0, BIG)},
    {REAL("fraction", 0, 1)},
    {TEXT("weights"), .nullable = true},
    {INT("seed", 0, SEED_MAX)},
};
TABLE(fm_wf_sample, "sample", sample_keys);

static const fm_yaml_key_t export_keys[] = {
    {ANY("fields"), .nullable = true},
    {LIST("required")},
    {TEXT("path"), .hint = true},
};
TABLE(fm_wf_export, "jsonl_export", export_keys);

static const fm_yaml_key_t profile_keys[] = {
    {LIST("columns"), .nullable = true},
    {INT("top", 0, 1000), .fallback = "10"},
    {LIST("quantiles")},
};
TABLE(fm_wf_profile, "profiling", profile_keys);
