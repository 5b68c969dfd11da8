/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file train_fixture.h
 * What the tests of training share on top of the operators': what an output
 * names, and runs that are stopped and resumed.
 */
#ifndef TRAIN_FIXTURE_H
#define TRAIN_FIXTURE_H

#include "base/buf.h"
#include "ops_fixture.h"

#define LORA                                                                   \
    "\"lora\":{\"r\":4,\"alpha\":8,\"dropout\":0.1,\"target_modules\":["       \
    "\"k_proj\",\"q_proj\",\"up_proj\",\"v_proj\"]}"
#define ROLLOUT(a, b)                                                          \
    "{\"prompt_tokens\":[256,112],\"completions\":[{\"text\":\"\",\"tokens\":" \
    "[" a                                                                      \
    "],\"logprobs\":[],\"finish\":\"stop\"},{\"text\":\"\",\"tokens\":[" b     \
    "],\"logprobs\":[],\"finish\":\"length\"}]}"
#define ROLLOUTS                                                               \
    "\"rollouts\":[" ROLLOUT("97,97,257", "122,120") "," ROLLOUT(              \
        "97,98", "122,122,122,257") "]"
#define REWARDS "\"rewards\":[[1,0],[0.75,-0.5]]"
#define REFERENCE                                                              \
    "\"reference\":[[[-5.5,-5.5,-5.5],[-5.6,-5.6]],[[-5.5,-5.6],[-5.5,-5.5,"   \
    "-5.5,-5.4]]]"
#define POLICY_ITEM "[{\"state\":null," ROLLOUTS "," REWARDS "," REFERENCE "}]"

/** The object that member @p key of @p output names; fm_buf_fini() it. */
fm_buf_t object_of(world_t *world, const char *output, const char *key);
/** Member @p key of @p output, a text that must be there; free() it. */
char *member_of(const char *output, const char *key);
/** The rows of the table that @p output names; fm_json_drop() the list. */
fm_json_t *table_of(world_t *world, const char *output);
/** A number of the first or the last row. */
double figure(const fm_json_t *rows, bool last, const char *key);

/** A run that is asked to stop after some steps. */
typedef struct leg {
    seen_t seen;
    size_t after; /**< steps; 0: never */
    size_t steps; /**< said so far */
} leg_t;
/** Run the first of the values, from @p checkpoint if there is one. */
fm_status_t leg_run(world_t *world, const char *type, const char *params,
                    const char *values, const char *checkpoint, leg_t *leg);
/** The output of a run that is stopped every @p every steps, each leg in a
 *  fresh context; free() it. */
char *legs_run(world_t *world, const char *type, const char *params,
               const char *values, size_t every);

#endif
