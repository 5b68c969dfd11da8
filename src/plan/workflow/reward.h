/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file reward.h
 * The rewards of a node: what scores a completion (docs/spec/workflow.md
 * §6.12).
 */
#ifndef FM_PLAN_WORKFLOW_REWARD_H
#define FM_PLAN_WORKFLOW_REWARD_H

#include "plan/workflow/graph.h"

#define FM_WF_REWARDS_MAX 16u /* of one node: each is an internal node */

/** `reward` is one entry or a list of them. */
size_t fm_wf_reward_count(const fm_yaml_value_t *tree);
const fm_yaml_value_t *fm_wf_reward_at(const fm_yaml_value_t *tree,
                                       size_t index);
/** Whether entry @p entry is scored by a model. */
bool fm_wf_reward_by_model(const fm_yaml_value_t *entry);

/** @p tree with `reward_model` rewritten as the `reward` that it stands for;
 *  @p tree itself where it has none. */
FM_MUST_USE fm_status_t fm_wf_reward_normalize(fm_yaml_arena_t *arena,
                                               const fm_yaml_value_t *tree,
                                               const fm_yaml_source_t *source,
                                               const fm_yaml_value_t **out);
FM_MUST_USE fm_status_t fm_wf_rewards_check(const fm_yaml_value_t *tree,
                                            int task,
                                            const fm_yaml_source_t *source);

/**
 * Parameters of the reward or score operator of an entry.
 * @param adapter_out  of type model: new reference to its adapter, or NULL.
 * @param weight_out   of the sum.
 */
FM_MUST_USE fm_status_t fm_wf_reward_params(const fm_wf_resolver_t *r,
                                            const fm_yaml_value_t *entry,
                                            fm_json_t **params_out,
                                            fm_json_t **adapter_out,
                                            double *weight_out);
#endif
