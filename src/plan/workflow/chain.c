/* SPDX-License-Identifier: Apache-2.0 */
/* A ppo or grpo as nodes (W54).  Nodes of a chain are made for every trial and
 * iteration, so they own nothing but their names and edges: spec, references
 * and tree are their owner's. */
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "plan/workflow/graph.h"
#include "plan/workflow/reward.h"

uint32_t fm_wf_chain_node(const fm_wf_chain_t *chain, fm_wf_part_t part,
                          uint32_t iteration, uint32_t which)
{
    uint32_t base = chain->first + (iteration - 1) * chain->stride;

    switch (part) {
    case FM_WF_PART_ROLLOUT:
        return base;
    case FM_WF_PART_REWARD:
        return base + 1 + which;
    case FM_WF_PART_REFERENCE:
        return base + 1 + chain->rewards;
    case FM_WF_PART_UPDATE:
        return base + chain->stride - 1;
    case FM_WF_PART_NONE:
        break;
    }
    return FM_WF_NONE;
}

/* Whether the update weighs the distance to the policy it started from. */
static bool wants_reference(const fm_yaml_value_t *tree, int task)
{
    const fm_yaml_value_t *given = fm_yaml_get(
        fm_yaml_get(tree, "training"), task == FM_WF_PPO ? "kl_coef" : "beta");

    return !given ||
           (given->type == FM_JSON_INT ? given->integer > 0 : given->real > 0);
}

/* What nodes of a chain read outside it, ascending. */
struct reads {
    const uint32_t *nodes;
    size_t count;
    const uint32_t *judged; /* rewards and updates */
    size_t judged_count;
};

/* Deps: what it reads outside, then nodes of the chain. */
static fm_status_t bind(fm_workflow_t *wf, uint32_t index,
                        const struct reads *reads, fm_error_t *err)
{
    fm_wf_node_private_t *node = &wf->nodes[index];
    bool judges =
        node->part == FM_WF_PART_REWARD || node->part == FM_WF_PART_UPDATE;
    size_t read_count = judges ? reads->judged_count : reads->count;
    const fm_wf_chain_t *chain = node->chain;
    uint32_t start =
        fm_wf_chain_node(chain, FM_WF_PART_ROLLOUT, node->iteration, 0);
    bool update = node->part == FM_WF_PART_UPDATE;
    uint32_t *deps =
        fm_yaml_alloc(&wf->arena, (read_count + chain->stride) * sizeof(*deps));
    size_t count = read_count;

    if (!deps) {
        return fm_no_memory(err);
    }
    if (read_count) {
        memcpy(deps, judges ? reads->judged : reads->nodes,
               read_count * sizeof(*deps));
    }
    if (node->iteration > 1 && (update || node->part == FM_WF_PART_ROLLOUT)) {
        deps[count++] = start - 1; /* the update before */
    }
    if (node->part != FM_WF_PART_ROLLOUT) {
        deps[count++] = start;
    }
    for (uint32_t i = start + 1; update && i < index; i++) {
        deps[count++] = i;
    }
    node->pub.deps = deps;
    node->pub.dep_count = count;
    return FM_OK;
}

/* Name of the same node in the first trial, where its chain has the same
 * shape: it need not be made again. */
static const char *known_stage(const fm_workflow_t *wf,
                               const fm_wf_node_private_t *node)
{
    const fm_wf_stage_t *stage = &wf->stages[node->stage];
    const fm_wf_chain_t *first =
        node->trial > 0 ? wf->nodes[stage->nodes[0]].chain : NULL;

    if (!first || first->rewards != node->chain->rewards ||
        first->reference != node->chain->reference ||
        first->iterations <= node->iteration) {
        return NULL;
    }
    return wf
        ->nodes[fm_wf_chain_node(first, node->part, node->iteration,
                                 node->which)]
        .pub.stage;
}

static void name_part(const fm_wf_node_private_t *node, char *text, size_t size)
{
    static const char *const names[] = {"", "rollout", "reward", "reference",
                                        "update"};

    if (node->part == FM_WF_PART_REWARD && node->chain->rewards > 1) {
        (void)snprintf(text, size, "/reward.%u.%u", node->iteration,
                       node->which + 1);
    } else {
        (void)snprintf(text, size, "/%s.%u", names[node->part],
                       node->iteration);
    }
}

static int task_of(const fm_wf_node_private_t *owner, fm_wf_part_t part,
                   uint32_t which)
{
    switch (part) {
    case FM_WF_PART_ROLLOUT:
        return FM_WF_INFERENCE;
    case FM_WF_PART_REWARD:
        return fm_wf_reward_by_model(fm_wf_reward_at(owner->tree, which))
                   ? FM_WF_SCORE
                   : FM_WF_REWARD;
    case FM_WF_PART_REFERENCE:
        return FM_WF_LOGPROBS;
    case FM_WF_PART_UPDATE:
    case FM_WF_PART_NONE:
        break;
    }
    return owner->task;
}

/* One iteration, in the order of their indices. */
static fm_status_t add_iteration(fm_workflow_t *wf,
                                 const fm_wf_node_private_t *owner,
                                 uint32_t iteration, const struct reads *reads,
                                 const fm_yaml_source_t *source)
{
    const fm_wf_chain_t *chain = owner->chain;
    fm_wf_node_private_t node = *owner;
    fm_status_t rc = FM_OK;

    node.pub.internal = true;
    node.pub.owner = chain->first + chain->stride * chain->iterations - 1;
    node.iteration = iteration;
    for (uint32_t k = 0; k < chain->stride && rc == FM_OK; k++) {
        char suffix[48];
        uint32_t index = 0;
        node.which = k > 0 && k <= chain->rewards ? k - 1 : 0;
        node.part = k == 0                   ? FM_WF_PART_ROLLOUT
                    : k <= chain->rewards    ? FM_WF_PART_REWARD
                    : k + 1 == chain->stride ? FM_WF_PART_UPDATE
                                             : FM_WF_PART_REFERENCE;
        if (node.part == FM_WF_PART_UPDATE && iteration == chain->iterations) {
            break; /* the owner itself */
        }
        node.task = task_of(owner, node.part, node.which);
        name_part(&node, suffix, sizeof(suffix));
        rc = fm_wf_node_append(wf, &node, suffix, known_stage(wf, &node),
                               source, &index);
        rc = rc < 0 ? rc : bind(wf, index, reads, source->err);
    }
    return rc;
}

fm_status_t fm_wf_chain_build(fm_workflow_t *wf, fm_wf_node_private_t *owner,
                              const uint32_t *reads, size_t read_count,
                              const uint32_t *judged, size_t judged_count,
                              const fm_yaml_source_t *source)
{
    const fm_yaml_value_t *steps =
        fm_yaml_get(fm_yaml_get(owner->tree, "training"), "steps");
    const struct reads outside = {reads, read_count, judged, judged_count};
    fm_wf_chain_t *chain = fm_yaml_alloc(&wf->arena, sizeof(*chain));
    fm_status_t rc = FM_OK;

    if (!chain) {
        return fm_no_memory(source->err);
    }
    chain->first = (uint32_t)wf->node_count;
    chain->iterations = (uint32_t)steps->integer;
    chain->rewards = (uint32_t)fm_wf_reward_count(owner->tree);
    chain->reference = wants_reference(owner->tree, owner->task);
    chain->stride = 2 + chain->rewards + chain->reference;
    owner->chain = chain;
    owner->part = FM_WF_PART_UPDATE;
    owner->iteration = chain->iterations;
    rc = fm_wf_walk(wf, &wf->stages[owner->stage],
                    (uint64_t)chain->iterations * chain->stride *
                        (judged_count + chain->stride),
                    source);
    for (uint32_t i = 1; i <= chain->iterations && rc == FM_OK; i++) {
        rc = add_iteration(wf, owner, i, &outside, source);
    }
    return rc;
}
