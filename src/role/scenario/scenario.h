/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file scenario.h
 * Scenarios: what `flowmesh sim` simulates, as text (docs/spec/scenario.md).
 *
 * A scenario says which models, which fleet, which workflows and when they
 * arrive, what fails and which policy decides; `compare` lists the runs to do
 * in one go.  Everything is checked when it is parsed, every run of it; files
 * (traces) are opened when a run starts.
 *
 * Deterministic: text, options and traces decide the result.
 * Threads: a scenario belongs to one thread at a time.
 */
#ifndef FM_ROLE_SCENARIO_SCENARIO_H
#define FM_ROLE_SCENARIO_SCENARIO_H

#include "role/sim/sim.h"

#define FM_SCENARIO_RUNS_MAX                                                   \
    1000u /* of one scenario: reports stay readable                            \
           */
#define FM_SCENARIO_TEXT_BYTES_MAX (4u << 20)

typedef struct fm_scenario fm_scenario_t;

/** What is asked for beside the text; zero: nothing. */
typedef struct fm_scenario_options {
    const char *const *sets; /**< "path.to.key=value", put in before compare;
                                  the value is YAML */
    size_t set_count;
    const char *policies; /**< "a,b": these alone instead of compare; NULL */
    const char *seed;     /**< of every run, compare's too; NULL: as written */
    const char *trace;    /**< path that replaces trace.path; NULL */
} fm_scenario_options_t;

/**
 * @param file  for error text, and where relative paths of traces begin.
 * @param opts  NULL: none; not kept.
 * @param out   [out] owned by the caller (fm_scenario_destroy()).
 * @retval FM_ERR_INVALID  "file:line:column: what; what is allowed".
 * @retval FM_ERR_LIMIT, FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_scenario_parse(const char *text, size_t len,
                                          const char *file,
                                          const fm_scenario_options_t *opts,
                                          fm_scenario_t **out, fm_error_t *err);
void *fm_scenario_destroy(fm_scenario_t *scenario);

const char *fm_scenario_name(const fm_scenario_t *scenario);
/** Runs, ≥ 1; the first is the one that others are compared with. */
size_t fm_scenario_run_count(const fm_scenario_t *scenario);
const char *fm_scenario_run_name(const fm_scenario_t *scenario, size_t run);
/** What a run asks of the simulator: borrowed; without its source. */
const fm_sim_input_t *fm_scenario_input(const fm_scenario_t *scenario,
                                        size_t run);

/** Workflows of one run, in the order of their arrival. */
typedef struct fm_scenario_source fm_scenario_source_t;

/**
 * Draw the arrivals of a run, reading its trace if it has one.
 * @retval FM_ERR_NOT_FOUND  the trace is not there; the text says what to do.
 * @retval FM_ERR_CORRUPT    it is not what its format says; with its line.
 */
FM_MUST_USE fm_status_t fm_scenario_source_open(const fm_scenario_t *scenario,
                                                size_t run,
                                                fm_scenario_source_t **out,
                                                fm_error_t *err);
void *fm_scenario_source_close(fm_scenario_source_t *source);
size_t fm_scenario_source_count(const fm_scenario_source_t *source);
/** fm_sim_source_fn; the context is a source. */
fm_status_t fm_scenario_source_next(void *ctx, fm_sim_workflow_t *out,
                                    bool *more_out, fm_error_t *err);

/**
 * Simulate one run.
 * @param clock_ns  real time, to time the planner; NULL: not timed.
 * @param out  [out] fm_sim_result_fini().
 */
FM_MUST_USE fm_status_t fm_scenario_simulate(const fm_scenario_t *scenario,
                                             size_t run,
                                             int64_t (*clock_ns)(void *ctx),
                                             fm_sim_result_t *out,
                                             fm_error_t *err);

#endif
