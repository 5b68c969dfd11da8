/* SPDX-License-Identifier: Apache-2.0 */
/* Scenarios and traces: what is accepted can be drawn from and says the same
 * each time; what is refused says why. */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

#include "role/scenario/scenario.h"
#include "role/scenario/trace.h"

#define DRAWN_MAX 20 /* workflows of a run: enough to touch every template */

static void draw(const fm_scenario_t *scenario, size_t run)
{
    fm_scenario_source_t *source = NULL;
    fm_sim_workflow_t flow;
    fm_error_t err = {0};
    int64_t last = 0;
    bool more = true;

    if (fm_scenario_source_open(scenario, run, &source, &err) < 0) {
        if (err.text[0] == '\0') {
            abort();
        }
        return;
    }
    for (size_t i = 0; i < DRAWN_MAX && more; i++) {
        if (fm_scenario_source_next(source, &flow, &more, &err) < 0) {
            abort();
        }
        if (more && (flow.arrival_ns < last || flow.stage_count == 0 ||
                     !flow.tenant || flow.tenant[0] == '\0')) {
            abort();
        }
        last = more ? flow.arrival_ns : last;
    }
    fm_scenario_source_close(source);
}

static void trace(const char *text, size_t size, fm_trace_format_t format)
{
    const fm_trace_options_t options = {
        .format = format, .limit = 100, .speed = 2};
    fm_trace_t out = {0};
    fm_error_t err = {0};

    if (fm_trace_parse(text, size, "trace", &options, &out, &err) < 0) {
        if (err.text[0] == '\0' || out.rows) {
            abort();
        }
        return;
    }
    for (size_t i = 0; i < out.count; i++) {
        if (!(out.rows[i].at_s >= 0) || out.rows[i].tokens_in < 0) {
            abort();
        }
    }
    fm_trace_fini(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    fm_scenario_t *scenario = NULL;
    fm_error_t err = {0};

    if (size > 1 << 16) {
        return 0;
    }
    for (int format = FM_TRACE_AZURE; format <= FM_TRACE_ALIBABA_LORA;
         format++) {
        trace(text, size, (fm_trace_format_t)format);
    }
    if (fm_scenario_parse(text, size, "scenario", NULL, &scenario, &err) < 0) {
        if (err.text[0] == '\0' || scenario) {
            abort();
        }
        return 0;
    }
    for (size_t run = 0; run < fm_scenario_run_count(scenario) && run < 4;
         run++) {
        draw(scenario, run);
    }
    fm_scenario_destroy(scenario);
    return 0;
}
