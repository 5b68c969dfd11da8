/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file llm.h
 * What work on a language model asks of a device, from its size alone: the
 * roofline's terms, the unit of work and the memory.
 *
 * The unit of work is a token through the model; an item is a prompt with its
 * completion, or a training sample over all its epochs.  One call is one batch
 * decoded together, so
 *
 *   decode    reads the weights once a step for the whole batch: tokens_out
 *             reads a call (bytes_per_call), and the items' KV
 *             (bytes_per_unit);
 *   prefill   and every other pass is arithmetic: 2 flops per parameter and
 *             token forward, 4 more backward (Kaplan et al., 2020), 2 more
 *             where the weights are frozen and only an adapter is trained;
 *   training  also moves weights, gradients and optimiser states once a step.
 *
 * seconds ≈ bytes_per_call / bandwidth + tokens · max(flops / peak,
 * bytes / bandwidth): the sum of a memory-bound and a compute-bound part, not
 * more than twice the true roofline and exact at either end.
 *
 * Pure.  Threads: any.
 */
#ifndef FM_PLAN_COST_LLM_H
#define FM_PLAN_COST_LLM_H

#include "plan/cost/cost.h"

typedef enum fm_cost_llm_kind {
    FM_COST_LLM_INFERENCE,  /**< prompts completed token by token */
    FM_COST_LLM_FORWARD,    /**< scored or embedded: one pass */
    FM_COST_LLM_TRAIN,      /**< all weights, AdamW */
    FM_COST_LLM_LORA_TRAIN, /**< an adapter on frozen weights */
    FM_COST_LLM_KINDS
} fm_cost_llm_kind_t;

typedef struct fm_cost_llm {
    fm_cost_llm_kind_t kind;
    double parameters;          /**< > 0 */
    double bytes_per_parameter; /**< of the weights on the device; 0: 2 */
    double tokens_in;           /**< of an item: prompt, or sample × epochs */
    double tokens_out;          /**< of an item: completion, all n of them */
    double decode_steps;        /**< one after another; 0: tokens_out */
    double kv_bytes_per_token;  /**< 0: fm_cost_llm_kv_bytes() */
    double step_tokens;         /**< training: of an optimiser step; 0: 4096 */
    double trainable;           /**< LoRA: parameters; 0: 0.5 % */
    double overhead_s;          /**< of a call; 0: 10 ms, training 50 ms */
} fm_cost_llm_t;

/** For fm_cost_task_id(). */
fm_cost_task_t fm_cost_llm_task(const fm_cost_llm_t *llm);
/** Units of work of one item: its tokens, ≥ 1. */
double fm_cost_llm_work(const fm_cost_llm_t *llm);
/** Bytes on the device whatever the batch: weights and, in training,
 *  gradients, optimiser states and one step's activations. */
double fm_cost_llm_memory(const fm_cost_llm_t *llm);
/** Bytes for each item more: its KV cache at full length, or activations of a
 *  pass; 0 in training, where an item is a job of its own. */
double fm_cost_llm_item_memory(const fm_cost_llm_t *llm);
/** KV bytes of a token in a model of today with grouped-query attention and
 *  2-byte values: 1.4 · √parameters, within a factor of 1.5 for Llama 3.1 8B
 *  (131 KB) and 70 B (328 KB). */
double fm_cost_llm_kv_bytes(double parameters);

/** @p parameters rounded as fm_cost_llm_size() names them. */
double fm_cost_llm_round(double parameters);
/** Name of a size class: parameters rounded to 2 digits, "1.1B", "360M",
 *  "260K", "0" for none.  Two models of one class cost nearly the same.
 *  @return @p text. */
#define FM_COST_SIZE_TEXT_BYTES 16
char *fm_cost_llm_size(double parameters, char text[FM_COST_SIZE_TEXT_BYTES]);

#endif
