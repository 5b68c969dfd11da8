/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rooflines of language models by size.  Sources: flops a token, Kaplan et al.
 * 2020; training states, Rajbhandari et al. 2020 (ZeRO); activations of a
 * layer, Korthikanti et al. 2022; the shape behind a size, width = 128 · depth,
 * is that of the Llama models.
 */
#include "plan/cost/llm.h"

#include <math.h>
#include <stdio.h>

#define BYTES_PER_PARAMETER 2.0
#define CALL_OVERHEAD_S 0.01
#define TRAIN_OVERHEAD_S 0.05
#define STEP_TOKENS 4096.0
#define TRAINABLE 0.005 /* of a LoRA adapter, of the model's parameters */
/* AdamW in mixed precision beside the 2-byte weights: gradients (2), master
 * weights and two moments (4 each). */
#define STATE_BYTES 14.0
#define ACTIVATION_BYTES 34.0 /* a token, layer and element of the width */
#define WIDTH_PER_LAYER 128.0

static bool is_training(const fm_cost_llm_t *llm)
{
    return llm->kind == FM_COST_LLM_TRAIN ||
           llm->kind == FM_COST_LLM_LORA_TRAIN;
}

static double or_else(double value, double fallback)
{
    return value > 0 ? value : fallback;
}

static double weight_bytes(const fm_cost_llm_t *llm)
{
    return llm->parameters *
           or_else(llm->bytes_per_parameter, BYTES_PER_PARAMETER);
}

static double trained_parameters(const fm_cost_llm_t *llm)
{
    return llm->kind == FM_COST_LLM_LORA_TRAIN
               ? or_else(llm->trainable, TRAINABLE * llm->parameters)
               : llm->parameters;
}

/* Elements of the residual stream of a token over all layers.  P = 12 · depth
 * · width², width = 128 · depth. */
static double stream_elements(double parameters)
{
    double depth = cbrt(parameters / (12 * WIDTH_PER_LAYER * WIDTH_PER_LAYER));

    return WIDTH_PER_LAYER * depth * depth;
}

double fm_cost_llm_kv_bytes(double parameters)
{
    return 1.4 * sqrt(parameters);
}

static double kv_bytes(const fm_cost_llm_t *llm)
{
    return or_else(llm->kv_bytes_per_token,
                   fm_cost_llm_kv_bytes(llm->parameters));
}

double fm_cost_llm_work(const fm_cost_llm_t *llm)
{
    double out = llm->kind == FM_COST_LLM_INFERENCE ? llm->tokens_out : 0;

    return fmax(1, llm->tokens_in + out);
}

static void inference_task(const fm_cost_llm_t *llm, fm_cost_task_t *task)
{
    double steps = or_else(llm->decode_steps, llm->tokens_out);
    double completions = llm->tokens_out / fmax(1, steps);
    /* each step reads the KV of all tokens before it */
    double read = completions * steps * (llm->tokens_in + steps / 2);

    task->flops_per_unit = 2 * llm->parameters;
    task->bytes_per_unit = kv_bytes(llm) * read / fm_cost_llm_work(llm);
    task->bytes_per_call = weight_bytes(llm) * fmax(1, steps);
}

static void training_task(const fm_cost_llm_t *llm, fm_cost_task_t *task)
{
    bool frozen = llm->kind == FM_COST_LLM_LORA_TRAIN;
    double step = or_else(llm->step_tokens, STEP_TOKENS);
    double trained = trained_parameters(llm);
    /* a step reads the weights forward and backward, and reads and writes
     * gradients and states of what is trained */
    double moved = 2 * weight_bytes(llm) + 2 * STATE_BYTES * trained;

    task->flops_per_unit =
        (frozen ? 4 : 6) * llm->parameters + (frozen ? 6 * trained : 0);
    task->bytes_per_unit = moved / fmax(1, step);
    task->bytes_per_call = weight_bytes(llm);
}

fm_cost_task_t fm_cost_llm_task(const fm_cost_llm_t *llm)
{
    fm_cost_task_t task = {.overhead_s =
                               or_else(llm->overhead_s, is_training(llm)
                                                            ? TRAIN_OVERHEAD_S
                                                            : CALL_OVERHEAD_S)};

    if (is_training(llm)) {
        training_task(llm, &task);
    } else if (llm->kind == FM_COST_LLM_INFERENCE && llm->tokens_out > 0) {
        inference_task(llm, &task);
    } else {
        task.flops_per_unit = 2 * llm->parameters;
        task.bytes_per_call = weight_bytes(llm);
    }
    return task;
}

double fm_cost_llm_memory(const fm_cost_llm_t *llm)
{
    double step = or_else(llm->step_tokens, STEP_TOKENS);

    if (!is_training(llm)) {
        return weight_bytes(llm);
    }
    /* A step's tokens pass in micro-batches, of 4096 tokens at most. */
    return weight_bytes(llm) + STATE_BYTES * trained_parameters(llm) +
           ACTIVATION_BYTES * stream_elements(llm->parameters) *
               fmin(step, STEP_TOKENS);
}

double fm_cost_llm_item_memory(const fm_cost_llm_t *llm)
{
    return is_training(llm) ? 0 : kv_bytes(llm) * fm_cost_llm_work(llm);
}

double fm_cost_llm_round(double parameters)
{
    if (!(parameters >= 1)) {
        return 0;
    }
    parameters = fmin(parameters, 9e14);
    double scale = pow(10, floor(log10(parameters)) - 1);
    return round(parameters / scale) * scale;
}

char *fm_cost_llm_size(double parameters, char text[FM_COST_SIZE_TEXT_BYTES])
{
    static const char *const units[] = {"", "K", "M", "B", "T"};
    size_t unit = 0;

    /* rounded before the unit is chosen: 999.6 M is 1 B */
    parameters = fm_cost_llm_round(parameters);
    while (parameters >= 999.5 && unit + 1 < sizeof(units) / sizeof(*units)) {
        parameters /= 1000;
        unit++;
    }
    (void)snprintf(text, FM_COST_SIZE_TEXT_BYTES, "%.3g%s", parameters,
                   units[unit]);
    return text;
}
