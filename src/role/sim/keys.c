/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Identity of simulated work: what the live system hashes as canonical JSON is
 * here a mix of numbers, 256 bits wide, so that millions of keys cost little.
 *
 *   batch key      work, task type, model, parameters
 *   base of a node that, adapter, upstream results that every item reads
 *   item           base and its row, or its source item's key
 *   identity       base and all its rows: what a model trained by it is made of
 *
 * Everything is known when the workflow arrives, so keys of items are computed
 * when they are needed and not kept.  Where a policy does not share, a base is
 * one of its own for each node of each workflow.
 */
#include <math.h>
#include <string.h>

#include "role/sim/internal.h"

enum salt { SALT_STAGE = 1, SALT_ROWS, SALT_ITEM, SALT_MODEL, SALT_ADAPTER };

fm_digest_t fm_sim_digest(uint64_t a, uint64_t b, uint64_t c, uint64_t d)
{
    fm_digest_t digest;

    for (uint64_t i = 0; i < 4; i++) {
        const uint64_t words[5] = {a, b, c, d, i};
        uint64_t hash = fm_hash64(words, sizeof(words));

        memcpy(&digest.bytes[8 * i], &hash, sizeof(hash));
    }
    return digest;
}

static uint64_t word(const fm_digest_t *digest, size_t i)
{
    uint64_t value;

    memcpy(&value, &digest->bytes[8 * i], sizeof(value));
    return value;
}

fm_digest_t fm_sim_mix(const fm_digest_t *digest, uint64_t salt)
{
    return fm_sim_digest(word(digest, 0), word(digest, 1), word(digest, 2),
                         salt);
}

fm_digest_t fm_sim_mix2(const fm_digest_t *a, const fm_digest_t *b,
                        uint64_t salt)
{
    return fm_sim_digest(word(a, 0) ^ salt, word(a, 1), word(b, 0), word(b, 1));
}

double fm_sim_uniform(const fm_digest_t *key, uint64_t salt)
{
    const uint64_t words[2] = {word(key, 0), salt};

    return (double)(fm_hash64(words, sizeof(words)) >> 11) * 0x1p-53;
}

double fm_sim_normal(const fm_digest_t *key, uint64_t salt)
{
    double u = 1.0 - fm_sim_uniform(key, 2 * salt);
    double v = fm_sim_uniform(key, 2 * salt + 1);

    return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * v);
}

bool fm_sim_node_model(const struct sim *sim, const struct flow *flow,
                       uint32_t node, fm_digest_t *out)
{
    const fm_sim_stage_t *stage = &flow->stages[node];

    if (stage->model == FM_SIM_NONE) {
        return false;
    }
    *out = stage->model_of == FM_SIM_NONE
               ? sim->model_digests[stage->model]
               : fm_sim_mix(&flow->nodes[stage->model_of].identity, SALT_MODEL);
    return true;
}

bool fm_sim_node_adapter(const struct flow *flow, uint32_t node,
                         fm_digest_t *out)
{
    uint32_t of = flow->stages[node].adapter_of;

    if (of == FM_SIM_NONE) {
        return false;
    }
    *out = fm_sim_mix(&flow->nodes[of].identity, SALT_ADAPTER);
    return true;
}

static fm_digest_t stage_identity(const struct sim *sim,
                                  const struct flow *flow, uint32_t node)
{
    const fm_sim_stage_t *stage = &flow->stages[node];
    fm_digest_t own = fm_sim_digest(SALT_STAGE, (uint64_t)stage->work,
                                    stage->task_type, stage->parameters);
    fm_digest_t model;

    if (fm_sim_node_model(sim, flow, node, &model)) {
        own = fm_sim_mix2(&own, &model, SALT_MODEL);
    }
    return own;
}

fm_digest_t fm_sim_batch_key(const struct sim *sim, const struct flow *flow,
                             uint32_t workflow, uint32_t node)
{
    fm_digest_t key = stage_identity(sim, flow, node);

    return sim->whole && !sim->merges ? fm_place_isolate(&key, workflow, node)
                                      : key;
}

void fm_sim_node_identify(const struct sim *sim, struct flow *flow,
                          uint32_t workflow, uint32_t index)
{
    const fm_sim_stage_t *stage = &flow->stages[index];
    struct node *node = &flow->nodes[index];
    fm_digest_t base = stage_identity(sim, flow, index), adapter;

    if (fm_sim_node_adapter(flow, index, &adapter)) {
        base = fm_sim_mix2(&base, &adapter, SALT_ADAPTER);
    }
    if (stage->form == FM_SIM_ALL_OF) {
        for (size_t d = 0; d < stage->dep_count; d++) {
            base = fm_sim_mix2(&base, &flow->nodes[stage->deps[d]].identity,
                               SALT_ROWS);
        }
    }
    if (sim->unshared) {
        base = fm_place_isolate(&base, workflow, index);
    }
    node->base = base;
    node->identity = fm_sim_mix(
        &base, fm_hash64((const uint64_t[4]){stage->dataset, stage->first_row,
                                             stage->items, stage->common_items},
                         4 * sizeof(uint64_t)));
    if (stage->form == FM_SIM_ROW_OF) {
        node->identity = fm_sim_mix2(
            &node->identity, &flow->nodes[stage->source].identity, SALT_ROWS);
    }
}

fm_digest_t fm_sim_item_key(const struct flow *flow, uint32_t node,
                            uint32_t row)
{
    const fm_sim_stage_t *stage = &flow->stages[node];
    const fm_digest_t *base = &flow->nodes[node].base;

    if (stage->form == FM_SIM_ROW_OF) { /* sources come first: it ends */
        fm_digest_t from = fm_sim_item_key(flow, stage->source, row);
        return fm_sim_mix2(base, &from, SALT_ITEM);
    }
    return fm_sim_digest(word(base, 0), word(base, 1), stage->dataset,
                         row < stage->common_items ? row
                                                   : stage->first_row + row);
}
