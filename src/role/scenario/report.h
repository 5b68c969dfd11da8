/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file report.h
 * What came out of the runs of a scenario: for people, programs and plots.
 *
 * Ratios are against the first run: 2 in the column of cost is twice as dear.
 * Everything but times measured of the planner is the same for the same
 * scenario and seed.  Threads: any.
 */
#ifndef FM_ROLE_SCENARIO_REPORT_H
#define FM_ROLE_SCENARIO_REPORT_H

#include "base/buf.h"
#include "base/json.h"
#include "role/scenario/scenario.h"

/** The runs of @p scenario as a table; @p results has one a run. */
FM_MUST_USE fm_status_t fm_scenario_table(const fm_scenario_t *scenario,
                                          const fm_sim_result_t *results,
                                          fm_buf_t *out, fm_error_t *err);

/**
 * The same with everything that was counted (docs/spec/scenario.md §11).
 * @param timed  with the planner's real seconds, which differ between runs.
 * @return new reference; NULL when memory is out.
 */
FM_MUST_USE fm_json_t *fm_scenario_json(const fm_scenario_t *scenario,
                                        const fm_sim_result_t *results,
                                        bool timed);

/**
 * Draw cost.svg, energy.svg, latency.svg, utilisation.svg and timeline.svg
 * into @p dir, which is made; data and script (plots.gp) stay beside them.
 * @retval FM_ERR_NOT_FOUND  there is no gnuplot; the text names the package.
 * @retval FM_ERR_IO         it failed, or a file could not be written.
 */
FM_MUST_USE fm_status_t fm_scenario_plots(const fm_scenario_t *scenario,
                                          const fm_sim_result_t *results,
                                          const char *dir, fm_error_t *err);

#endif
