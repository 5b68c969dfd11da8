/* SPDX-License-Identifier: Apache-2.0 */
/** @file engine_train_ref.h  What tests/ref/train_reference.py wrote: a model,
 *  an adapter or none, a scalar head, data and expected numbers. */
#ifndef ENGINE_TRAIN_REF_H
#define ENGINE_TRAIN_REF_H

#include "engine/train/rl.h"
#include "engine_reference.h"

enum { REF_ITEMS_MAX = 8, REF_TOKENS_MAX = REFERENCE_TOKENS_MAX };

struct ref {
    struct reference base;
    fm_engine_adapter_t *adapter; /* NULL: the whole model is trained */
    fm_engine_value_t *value;

    size_t pair_count;
    fm_engine_pair_t pairs[REF_ITEMS_MAX];
    size_t rollout_count;
    fm_engine_rollout_t rollouts[REF_ITEMS_MAX];
    float references[REF_ITEMS_MAX][REF_TOKENS_MAX];
    int32_t tokens[6 * REF_ITEMS_MAX][REF_TOKENS_MAX];
    size_t lists; /* of tokens in use */
};

static inline const int32_t *ref_ids(struct ref *r, const fm_json_t *array,
                                     size_t *count_out)
{
    int32_t *ids = r->tokens[r->lists++];

    *count_out = reference_ids(array, ids);
    return ids;
}

static inline size_t ref_list(const struct ref *r, const char *name,
                              const fm_json_t **list_out)
{
    *list_out = fm_json_get(r->base.json, name);
    size_t count = fm_json_len(*list_out);

    CU_ASSERT_FATAL(count > 0 && count <= REF_ITEMS_MAX);
    return count;
}

static inline void ref_data(struct ref *r)
{
    const fm_json_t *list = NULL;

    r->pair_count = ref_list(r, "pairs", &list);
    for (size_t i = 0; i < r->pair_count; i++) {
        fm_engine_pair_t *p = &r->pairs[i];
        const fm_json_t *item = fm_json_at(list, i);
        p->prompt = ref_ids(r, fm_json_get(item, "prompt"), &p->prompt_count);
        p->chosen = ref_ids(r, fm_json_get(item, "chosen"), &p->chosen_count);
        p->rejected =
            ref_ids(r, fm_json_get(item, "rejected"), &p->rejected_count);
        p->reference_chosen = fm_json_get_real(item, "reference_chosen", NAN);
        p->reference_rejected =
            fm_json_get_real(item, "reference_rejected", NAN);
    }
    r->rollout_count = ref_list(r, "rollouts", &list);
    for (size_t i = 0; i < r->rollout_count; i++) {
        fm_engine_rollout_t *o = &r->rollouts[i];
        const fm_json_t *item = fm_json_at(list, i);
        o->prompt = ref_ids(r, fm_json_get(item, "prompt"), &o->prompt_count);
        o->completion =
            ref_ids(r, fm_json_get(item, "completion"), &o->completion_count);
        o->reward = fm_json_get_real(item, "reward", NAN);
        o->reference = r->references[i];
        for (size_t t = 0; t < o->completion_count; t++) {
            r->references[i][t] = (float)fm_json_real_or(
                fm_json_at(fm_json_get(item, "reference"), t), NAN);
        }
    }
}

/* Tensor by tensor, by name: the file's order need not be the block's. */
static inline const fm_engine_param_t *ref_find(const struct ref *r,
                                                const char *name)
{
    const fm_engine_param_t *at =
        r->adapter ? fm_engine_adapter_find(r->adapter, name)
                   : fm_engine_model_find(r->base.model, name);

    CU_ASSERT_PTR_NOT_NULL_FATAL(at);
    return at;
}

/* Into the model, or into the adapter once there is one. */
static inline void ref_load(struct ref *r, const char *block, const char *names)
{
    size_t count = 0;
    size_t used = 0;
    const float *values = reference_block(&r->base, block, &count);
    const fm_json_t *order = fm_json_get(r->base.json, names);

    for (size_t i = 0; i < fm_json_len(order); i++) {
        const fm_engine_param_t *at =
            ref_find(r, fm_json_str(fm_json_at(order, i)));
        CU_ASSERT_FATAL(used + at->count <= count);
        fm_status_t rc =
            r->adapter
                ? fm_engine_adapter_write(r->adapter, at->offset, at->count,
                                          values + used, &r->base.err)
                : fm_engine_model_write(r->base.model, at->offset, at->count,
                                        values + used, &r->base.err);
        FM_ASSERT_OK(rc, &r->base.err);
        used += at->count;
    }
    CU_ASSERT_FATAL(used == count);
}

static inline void ref_open(struct ref *r, const char *name)
{
    fm_engine_adapter_config_t lora;
    size_t count = 0;

    memset(r, 0, sizeof(*r));
    reference_open(&r->base, name);
    ref_load(r, "params", "tensors");
    FM_ASSERT_OK(fm_engine_value_create(r->base.model, &r->value, &r->base.err),
                 &r->base.err);
    const float *value = reference_block(&r->base, "value", &count);
    CU_ASSERT_FATAL(count == fm_engine_value_size(r->value));
    FM_ASSERT_OK(fm_engine_value_write(r->value, 0, count, value, &r->base.err),
                 &r->base.err);
    if (fm_json_len(fm_json_get(r->base.json, "adapter")) > 0) {
        FM_ASSERT_OK(
            fm_engine_adapter_config_parse(fm_json_get(r->base.json, "lora"),
                                           &lora, &r->base.err),
            &r->base.err);
        FM_ASSERT_OK(fm_engine_adapter_create(&lora, r->base.model, &r->adapter,
                                              &r->base.err),
                     &r->base.err);
        ref_load(r, "adapter", "adapter");
    }
    ref_data(r);
}

static inline void ref_close(struct ref *r)
{
    fm_engine_adapter_destroy(r->adapter);
    fm_engine_value_destroy(r->value);
    reference_close(&r->base);
}

#endif
