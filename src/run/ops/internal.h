/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file internal.h
 * What operators share: the running batch, models, child processes.
 *
 * An operator takes validated shapes from nobody: params and values come from
 * outside and every access checks.  The get_*() helpers name the key and the
 * allowed range.
 */
#ifndef FM_RUN_OPS_INTERNAL_H
#define FM_RUN_OPS_INTERNAL_H

#include "base/buf.h"
#include "engine/model/model.h"
#include "engine/serve/score.h"
#include "engine/serve/server.h"
#include "engine/train/train.h"
#include "run/model/model.h"
#include "run/ops/ops.h"
#include "text/tokenizer/tokenizer.h"

/** A value read from an object may hold at most this. */
#define OPS_VALUE_BYTES_MAX ((size_t)256 << 20)

/** A model in memory (run/model/model.h). */
typedef fm_model_t fm_ops_model_t;

typedef struct fm_ops_models fm_ops_models_t; /**< resident models (models.c) */

struct fm_ops {
    fm_cas_t *cas;
    char *work_root;
    fm_engine_backend_t *backend;
    fm_ops_models_t *models;
    const fm_ops_sink_t *sink; /**< of the batch that runs */
};

/** The batch an operator works on. */
typedef struct fm_ops_run {
    fm_ops_t *ops;
    const fm_ops_sink_t *sink;
    const char *task_type;
    const fm_json_t *params; /**< resolved object */
    const fm_json_t *hints;  /**< object or NULL */
    const char *checkpoint;  /**< NULL, or digest text */
    uint32_t *indices;       /**< [count] */
    fm_json_t **values;      /**< [count] resolved */
    bool *reported;          /**< [count] */
    size_t count;
    fm_engine_scorer_t *scorer;  /**< logprobs: of all items; owned */
    const fm_ops_model_t *model; /**< that the scorer is of */
} fm_ops_run_t;

/** What one item gave: the value and the objects it names. */
typedef struct fm_ops_output {
    fm_json_t *value;     /**< owned */
    fm_digest_t *objects; /**< owned, sealed by the reporter */
    size_t object_count, object_capacity;
} fm_ops_output_t;

void fm_ops_output_fini(fm_ops_output_t *output);
FM_MUST_USE fm_status_t fm_ops_output_object(fm_ops_output_t *output,
                                             const fm_digest_t *digest,
                                             fm_error_t *err);

/** An operator over one item. */
typedef fm_status_t (*fm_ops_one_fn)(fm_ops_run_t *run, size_t item,
                                     fm_ops_output_t *output, fm_error_t *err);
/** An operator over the batch: reports items itself; a failure is that of
 *  all items not reported yet. */
typedef fm_status_t (*fm_ops_many_fn)(fm_ops_run_t *run, fm_error_t *err);

/* Report an item (ops.c).  A failure is the sink's or the store's. */
FM_MUST_USE fm_status_t fm_ops_report(fm_ops_run_t *run, size_t item,
                                      const fm_ops_output_t *output,
                                      fm_error_t *err);
FM_MUST_USE fm_status_t fm_ops_report_error(fm_ops_run_t *run, size_t item,
                                            fm_status_t status,
                                            const fm_error_t *why,
                                            fm_error_t *err);
/** FM_ERR_CANCELLED when the batch is to end. */
FM_MUST_USE fm_status_t fm_ops_stopping(const fm_ops_run_t *run,
                                        fm_error_t *err);

/* Parameters (params.c).  Absent and null mean the fallback. */
FM_MUST_USE fm_status_t fm_ops_get_int(const fm_json_t *object, const char *key,
                                       int64_t low, int64_t high,
                                       int64_t fallback, int64_t *out,
                                       fm_error_t *err);
FM_MUST_USE fm_status_t fm_ops_get_real(const fm_json_t *object,
                                        const char *key, double low,
                                        double high, double fallback,
                                        double *out, fm_error_t *err);
/** @param fallback  NULL: the key is required. */
FM_MUST_USE fm_status_t fm_ops_get_text(const fm_json_t *object,
                                        const char *key, const char *fallback,
                                        const char **out, fm_error_t *err);
FM_MUST_USE fm_status_t fm_ops_get_bool(const fm_json_t *object,
                                        const char *key, bool fallback,
                                        bool *out, fm_error_t *err);
FM_MUST_USE fm_status_t fm_ops_get_digest(const fm_json_t *object,
                                          const char *key, fm_digest_t *out,
                                          fm_error_t *err);
/** The value that {"$object": digest} stands for, or @p value; new reference.
 */
FM_MUST_USE fm_status_t fm_ops_resolve(fm_cas_t *cas, const fm_json_t *value,
                                       fm_json_t **value_out, fm_error_t *err);

/* Child processes (process.c). */
#define OPS_WORDS_BYTES 700 /* last words quoted in an error text */

typedef struct fm_ops_process {
    const char *const *argv; /**< NULL-terminated, looked up in PATH */
    const char *const *env;  /**< "NAME=value" on top of ours, or NULL */
    const char *workdir;
    int64_t timeout_ns;      /**< 0: none */
    size_t stdout_bytes_max; /**< more is an error */
    bool stdout_tail;        /**< keep the end instead: it is a log */
    bool (*stopping)(void *ctx);
    void *ctx;
} fm_ops_process_t;

/**
 * Run a program to its end in a process group of its own, which dies with us.
 * @param stdout_out  what it wrote.
 * @retval FM_ERR_INVALID    exit status or signal; the text has last words.
 * @retval FM_ERR_TIMEOUT    killed.
 * @retval FM_ERR_CANCELLED  stopping() said so; killed.
 * @retval FM_ERR_LIMIT      it wrote too much; killed.
 */
FM_MUST_USE fm_status_t fm_ops_process_run(const fm_ops_process_t *process,
                                           fm_buf_t *stdout_out,
                                           fm_error_t *err);
/** A fresh empty directory; free() it after fm_file_remove_tree(). */
FM_MUST_USE fm_status_t fm_ops_workdir_make(const fm_ops_t *ops,
                                            char **path_out, fm_error_t *err);
/** Write a new file; parent directories are made. */
FM_MUST_USE fm_status_t fm_ops_file_write(const char *path, const void *data,
                                          size_t len, fm_error_t *err);

/* Models (models.c). */
FM_MUST_USE fm_status_t fm_ops_models_create(size_t resident_bytes,
                                             fm_ops_models_t **models_out,
                                             fm_error_t *err);
void *fm_ops_models_destroy(fm_ops_models_t *models);
fm_json_t *fm_ops_models_resident(const fm_ops_models_t *models);
/** A batch begins: from here on what is handed out stays until the next one
 *  begins. */
void fm_ops_models_begin(fm_ops_models_t *models);
/** The model that params.model names, resident; valid until the batch ends. */
FM_MUST_USE fm_status_t fm_ops_model_load(fm_ops_t *ops,
                                          const fm_json_t *source,
                                          const fm_ops_model_t **model_out,
                                          fm_error_t *err);
/** A private one, to be trained. */
FM_MUST_USE fm_status_t fm_ops_model_build(fm_ops_t *ops,
                                           const fm_json_t *source,
                                           fm_ops_model_t *model_out,
                                           fm_error_t *err);
void fm_ops_model_fini(fm_ops_model_t *model);
/** Store tensors and manifest, not sealed.  @param output  gets them all. */
FM_MUST_USE fm_status_t fm_ops_model_store(fm_ops_t *ops,
                                           const fm_ops_model_t *model,
                                           fm_ops_output_t *output,
                                           fm_digest_t *manifest_out,
                                           fm_error_t *err);
/** Keep @p model resident as @p digest; it is emptied. */
void fm_ops_model_adopt(fm_ops_t *ops, const fm_digest_t *digest,
                        fm_ops_model_t *model);
/**
 * The adapter stored as @p digest, resident; valid until the batch ends, as
 * any number of others are.
 * @param base  the model it is used with.
 * @retval FM_ERR_INVALID  it is of another model.
 */
FM_MUST_USE fm_status_t fm_ops_adapter_load(
    fm_ops_t *ops, const fm_digest_t *digest, const fm_ops_model_t *base,
    const fm_model_adapter_t **adapter_out, fm_error_t *err);
/** As fm_ops_model_store().  @param base  the manifest of its model. */
FM_MUST_USE fm_status_t fm_ops_adapter_store(
    fm_ops_t *ops, const fm_model_adapter_t *adapter, const fm_digest_t *base,
    fm_ops_output_t *output, fm_digest_t *manifest_out, fm_error_t *err);

/** What serves a resident model, made when it is first asked for; it lives as
 *  long as the model. */
FM_MUST_USE fm_status_t fm_ops_server_get(fm_ops_t *ops,
                                          const fm_ops_model_t *model,
                                          fm_engine_server_t **server_out,
                                          fm_error_t *err);

/* Items of inference, logprobs, score and embedding (texts.c). */
/** The adapter that an item names; NULL when it names none. */
FM_MUST_USE fm_status_t
fm_ops_item_adapter(fm_ops_t *ops, const fm_ops_model_t *model,
                    const fm_json_t *value, fm_digest_t *digest_out,
                    const fm_model_adapter_t **adapter_out, fm_error_t *err);
/** The tokens to continue, of an item's prompt. */
FM_MUST_USE fm_status_t fm_ops_prompt_encode(const fm_ops_model_t *model,
                                             const fm_json_t *value,
                                             fm_tokens_t *tokens,
                                             fm_error_t *err);
/** Lists of numbers; new references, NULL: no memory. */
fm_json_t *fm_ops_ids_json(const int32_t *ids, size_t count);
fm_json_t *fm_ops_reals_json(const float *values, size_t count);

/* Texts to tokens (encode.c).  A sequence is bos, prompt, completion, eos. */
typedef struct fm_ops_sequence {
    fm_tokens_t tokens;
    size_t prompt_count; /**< bos included; the rest is the completion */
    uint8_t *mask;       /**< [tokens.count] which tokens are to be learned;
                              NULL: those of the completion */
} fm_ops_sequence_t;
void fm_ops_sequence_fini(fm_ops_sequence_t *sequence);

/** What a sequence may have. */
typedef struct fm_ops_limit {
    size_t tokens; /**< max_seq_length, at most the model's positions */
    bool truncate; /**< longer ones are cut at the end instead of refused */
} fm_ops_limit_t;
/** From max_seq_length and truncate of @p object. */
FM_MUST_USE fm_status_t fm_ops_limit_get(const fm_ops_model_t *model,
                                         const fm_json_t *object,
                                         fm_ops_limit_t *limit_out,
                                         fm_error_t *err);
/** @param prompt   NULL: a plain text, all of it completion.
 *  @retval FM_ERR_INVALID  a key is missing, it is too long, or nothing is
 *                          left of the completion. */
FM_MUST_USE fm_status_t fm_ops_sequence_make(const fm_ops_model_t *model,
                                             const fm_json_t *prompt,
                                             const fm_json_t *completion,
                                             const fm_ops_limit_t *limit,
                                             fm_ops_sequence_t *out,
                                             fm_error_t *err);
/** A conversation by the model's chat template; the mask is its assistant
 *  turns, no token of it is a prompt.
 *  @retval FM_ERR_UNSUPPORTED  the model came without a template. */
FM_MUST_USE fm_status_t fm_ops_messages_make(const fm_ops_model_t *model,
                                             const fm_json_t *messages,
                                             const fm_ops_limit_t *limit,
                                             fm_ops_sequence_t *out,
                                             fm_error_t *err);
/* Functions of the user's module (python.c). */
typedef struct fm_ops_each {
    const fm_json_t *options;   /**< code, entrypoint, seed */
    const char *entrypoint;     /**< default */
    const fm_json_t *arguments; /**< list of argument lists */
    bool first;                 /**< end at the first call that fails */
} fm_ops_each_t;
/**
 * Call the function for every argument list, in order, in one child.
 * @param results_out  a list of {"value": …} or {"error": text} a call; a
 *                     child that died left a shorter one.
 * @param ended        why, for the calls without a line.
 */
FM_MUST_USE fm_status_t fm_ops_python_each(fm_ops_run_t *run,
                                           const fm_ops_each_t *each,
                                           fm_json_t **results_out,
                                           fm_error_t *ended, fm_error_t *err);

/* Data operators: transform.c, reduce.c, reward.c. */
/** The records of an item, borrowed: a list under @p key. */
FM_MUST_USE fm_status_t fm_ops_records(const fm_json_t *value, const char *key,
                                       const fm_json_t **list_out,
                                       fm_error_t *err);
fm_status_t fm_ops_map(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                       fm_error_t *err);
fm_status_t fm_ops_filter(fm_ops_run_t *run, size_t item,
                          fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_dedup(fm_ops_run_t *run, size_t item,
                         fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_split_records(fm_ops_run_t *run, size_t item,
                                 fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_shard(fm_ops_run_t *run, size_t item,
                         fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_concat(fm_ops_run_t *run, size_t item,
                          fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_sample_records(fm_ops_run_t *run, size_t item,
                                  fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_jsonl_export(fm_ops_run_t *run, size_t item,
                                fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_data_profiling(fm_ops_run_t *run, size_t item,
                                  fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_reward(fm_ops_run_t *run, fm_error_t *err);

/** Who hears what an item is worth; a failing call ends the judging. */
typedef struct fm_ops_judge {
    fm_status_t (*verdict)(void *ctx, size_t index, fm_status_t status,
                           double score, const fm_error_t *why,
                           fm_error_t *err);
    void *ctx;
} fm_ops_judge_t;
/**
 * Judge every {prompt, completion, record} of a list, in order.
 * @param params  of the reward operator.
 */
FM_MUST_USE fm_status_t fm_ops_reward_judge(fm_ops_run_t *run,
                                            const fm_json_t *params,
                                            const fm_json_t *items,
                                            const fm_ops_judge_t *judge,
                                            fm_error_t *err);

/* The operators. */
fm_status_t fm_ops_echo(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                        fm_error_t *err);
fm_status_t fm_ops_python(fm_ops_run_t *run, size_t item,
                          fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_command(fm_ops_run_t *run, size_t item,
                           fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_data_retrieval(fm_ops_run_t *run, size_t item,
                                  fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_inference(fm_ops_run_t *run, fm_error_t *err);
fm_status_t fm_ops_logprobs(fm_ops_run_t *run, size_t item,
                            fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_score(fm_ops_run_t *run, size_t item,
                         fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_embedding(fm_ops_run_t *run, size_t item,
                             fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_sft(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                       fm_error_t *err);
fm_status_t fm_ops_dpo(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                       fm_error_t *err);
fm_status_t fm_ops_lora_sft(fm_ops_run_t *run, size_t item,
                            fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_reward_model(fm_ops_run_t *run, size_t item,
                                fm_ops_output_t *output, fm_error_t *err);
fm_status_t fm_ops_ppo(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                       fm_error_t *err);
fm_status_t fm_ops_grpo(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                        fm_error_t *err);
fm_status_t fm_ops_evaluate(fm_ops_run_t *run, size_t item,
                            fm_ops_output_t *output, fm_error_t *err);

#endif
