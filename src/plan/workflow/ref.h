/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file ref.h
 * References to upstream results: ${NODE.path} in text, {node, path} maps.
 */
#ifndef FM_PLAN_WORKFLOW_REF_H
#define FM_PLAN_WORKFLOW_REF_H

#include "base/buf.h"
#include "plan/workflow/graph.h"

/** @p text is one ${…} and nothing else; false for NULL. */
bool fm_wf_ref_is_whole(const char *text);
/** @p text has a ${…} that is not escaped; false for NULL. */
bool fm_wf_ref_inside(const char *text);
/** Text that is not empty and has no reference; false for NULL. */
bool fm_wf_is_literal(const fm_yaml_value_t *value);

/** Find every reference of a spec; the array is in the workflow's arena.
 *  Checks grammar and paths, not whether the node exists. */
FM_MUST_USE fm_status_t fm_wf_refs_find(fm_yaml_arena_t *arena,
                                        const fm_yaml_value_t *spec,
                                        const fm_yaml_source_t *source,
                                        fm_wf_ref_t **refs_out,
                                        size_t *count_out);

/** Borrowed value at @p path of the result of stage @p stage. */
FM_MUST_USE fm_status_t fm_wf_ref_value(const fm_wf_resolver_t *r,
                                        const char *stage, const char *path,
                                        unsigned line, unsigned column,
                                        const fm_json_t **out);
/** Borrowed result of node @p index. */
FM_MUST_USE fm_status_t fm_wf_result_of(const fm_wf_resolver_t *r,
                                        uint32_t index, const fm_json_t **out);
/**
 * @p tree as JSON with every reference replaced.
 * @param maps  {node, path} maps count too.
 * @return through @p out a new reference.
 */
FM_MUST_USE fm_status_t fm_wf_resolve(const fm_wf_resolver_t *r,
                                      const fm_yaml_value_t *tree, bool maps,
                                      fm_json_t **out);
/** The same for the members of a map other than `code`, which is never
 *  searched, and `model`, which has its own reader. */
FM_MUST_USE fm_status_t fm_wf_resolve_map(const fm_wf_resolver_t *r,
                                          const fm_yaml_value_t *tree,
                                          fm_json_t **out);
/** A value inside text: a string as it is, anything else as canonical JSON. */
void fm_wf_add_text(fm_buf_t *buf, const fm_json_t *value);

#endif
