/* SPDX-License-Identifier: Apache-2.0 */
/** @file engine_train_ref.h  What tests/ref/train_reference.py wrote: a model,
 *  an adapter or none, a scalar head, data and expected numbers. */
#ifndef ENGINE_TRAIN_REF_H
#define ENGINE_TRAIN_REF_H

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"
#include "engine/train/rl.h"
#include "engine/train/train.h"
#include "fmtest.h"

enum { REF_ITEMS_MAX = 8, REF_TOKENS_MAX = 64 };

struct ref {
    fm_json_t *json;
    fm_buf_t blocks; /* little-endian float32, as is this machine */
    fm_engine_backend_t *be;
    fm_engine_model_t *model;
    fm_engine_adapter_t *adapter; /* NULL: the whole model is trained */
    fm_engine_value_t *value;
    fm_error_t err;

    size_t sample_count;
    fm_engine_sample_t samples[REF_ITEMS_MAX];
    uint8_t masks[REF_ITEMS_MAX][REF_TOKENS_MAX];
    size_t pair_count;
    fm_engine_pair_t pairs[REF_ITEMS_MAX];
    size_t rollout_count;
    fm_engine_rollout_t rollouts[REF_ITEMS_MAX];
    float references[REF_ITEMS_MAX][REF_TOKENS_MAX];
    int32_t tokens[6 * REF_ITEMS_MAX][REF_TOKENS_MAX];
    size_t lists; /* of tokens in use */
};

static inline const float *ref_block(const struct ref *r, const char *name,
                                     size_t *count_out)
{
    const fm_json_t *at = fm_json_get(fm_json_get(r->json, "blocks"), name);
    size_t offset = (size_t)fm_json_get_int(at, "offset", -1);
    size_t count = (size_t)fm_json_get_int(at, "count", -1);

    CU_ASSERT_PTR_NOT_NULL_FATAL(at);
    CU_ASSERT_FATAL((offset + count) * sizeof(float) <= r->blocks.len);
    *count_out = count;
    return (const float *)(const void *)r->blocks.data + offset;
}

static inline const int32_t *ref_ids(struct ref *r, const fm_json_t *array,
                                     size_t *count_out)
{
    int32_t *ids = r->tokens[r->lists++];

    *count_out = fm_json_len(array);
    CU_ASSERT_FATAL(*count_out > 0 && *count_out <= REF_TOKENS_MAX);
    for (size_t i = 0; i < *count_out; i++) {
        ids[i] = (int32_t)fm_json_int_or(fm_json_at(array, i), -1);
    }
    return ids;
}

static inline size_t ref_list(const struct ref *r, const char *name,
                              const fm_json_t **list_out)
{
    *list_out = fm_json_get(r->json, name);
    size_t count = fm_json_len(*list_out);

    CU_ASSERT_FATAL(count > 0 && count <= REF_ITEMS_MAX);
    return count;
}

static inline void ref_data(struct ref *r)
{
    const fm_json_t *list = NULL;

    r->sample_count = ref_list(r, "samples", &list);
    for (size_t i = 0; i < r->sample_count; i++) {
        fm_engine_sample_t *s = &r->samples[i];
        const fm_json_t *item = fm_json_at(list, i);
        s->tokens = ref_ids(r, fm_json_get(item, "tokens"), &s->count);
        s->mask = r->masks[i];
        for (size_t t = 0; t < s->count; t++) {
            r->masks[i][t] = (uint8_t)fm_json_int_or(
                fm_json_at(fm_json_get(item, "mask"), t), 0);
        }
    }
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
    const fm_engine_param_t *at = r->adapter
                                      ? fm_engine_adapter_find(r->adapter, name)
                                      : fm_engine_model_find(r->model, name);

    CU_ASSERT_PTR_NOT_NULL_FATAL(at);
    return at;
}

/* Into the model, or into the adapter once there is one. */
static inline void ref_load(struct ref *r, const char *block, const char *names)
{
    size_t count = 0;
    size_t used = 0;
    const float *values = ref_block(r, block, &count);
    const fm_json_t *order = fm_json_get(r->json, names);

    for (size_t i = 0; i < fm_json_len(order); i++) {
        const fm_engine_param_t *at =
            ref_find(r, fm_json_str(fm_json_at(order, i)));
        CU_ASSERT_FATAL(used + at->count <= count);
        fm_status_t rc =
            r->adapter
                ? fm_engine_adapter_write(r->adapter, at->offset, at->count,
                                          values + used, &r->err)
                : fm_engine_model_write(r->model, at->offset, at->count,
                                        values + used, &r->err);
        FM_ASSERT_OK(rc, &r->err);
        used += at->count;
    }
    CU_ASSERT_FATAL(used == count);
}

static inline void ref_open(struct ref *r, const char *name)
{
    fm_engine_config_t config;
    fm_engine_adapter_config_t lora;
    fm_buf_t text = {0};
    size_t count = 0;

    memset(r, 0, sizeof(*r));
    char *json_path = fm_asprintf("%s/%s.json", FM_TEST_REF_DIR, name);
    char *data_path = fm_asprintf("%s/%s.f32", FM_TEST_REF_DIR, name);
    FM_ASSERT_OK(fm_file_read(json_path, 1 << 20, &text, &r->err), &r->err);
    FM_ASSERT_OK(fm_file_read(data_path, 1 << 20, &r->blocks, &r->err),
                 &r->err);
    FM_ASSERT_OK(fm_json_parse((const char *)text.data, text.len, json_path,
                               &r->json, &r->err),
                 &r->err);
    FM_ASSERT_OK(fm_engine_config_parse(fm_json_get(r->json, "config"), &config,
                                        &r->err),
                 &r->err);
    FM_ASSERT_OK(fm_engine_backend_create_cpu(&r->be, &r->err), &r->err);
    FM_ASSERT_OK(fm_engine_model_create(&config, r->be, &r->model, &r->err),
                 &r->err);
    ref_load(r, "params", "tensors");
    FM_ASSERT_OK(fm_engine_value_create(r->model, &r->value, &r->err), &r->err);
    const float *value = ref_block(r, "value", &count);
    CU_ASSERT_FATAL(count == fm_engine_value_size(r->value));
    FM_ASSERT_OK(fm_engine_value_write(r->value, 0, count, value, &r->err),
                 &r->err);
    if (fm_json_len(fm_json_get(r->json, "adapter")) > 0) {
        FM_ASSERT_OK(fm_engine_adapter_config_parse(
                         fm_json_get(r->json, "lora"), &lora, &r->err),
                     &r->err);
        FM_ASSERT_OK(
            fm_engine_adapter_create(&lora, r->model, &r->adapter, &r->err),
            &r->err);
        ref_load(r, "adapter", "adapter");
    }
    ref_data(r);
    fm_buf_fini(&text);
    free(json_path);
    free(data_path);
}

static inline void ref_close(struct ref *r)
{
    fm_engine_adapter_destroy(r->adapter);
    fm_engine_value_destroy(r->value);
    fm_engine_model_destroy(r->model);
    fm_engine_backend_destroy(r->be);
    fm_json_drop(r->json);
    fm_buf_fini(&r->blocks);
}

#endif
