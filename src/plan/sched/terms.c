/* SPDX-License-Identifier: Apache-2.0 */
/* The record of a decision, for people and for `explain`. */
#include <stddef.h>
#include <string.h>

#include "base/mem.h"
#include "plan/sched/sched.h"

const char *fm_sched_verdict_text(fm_sched_verdict_t verdict)
{
    static const char *const texts[] = {
        [FM_SCHED_PLACE] = "placed",
        [FM_SCHED_WAIT_BUSY] = "the best worker for it is busy",
        [FM_SCHED_WAIT_WORKERS] = "no idle worker is left for it",
        [FM_SCHED_WAIT_NO_WORKERS] = "there are no workers",
        [FM_SCHED_WAIT_TASK_TYPE] = "no worker runs this task type",
        [FM_SCHED_WAIT_DEVICE] = "no worker has a device of that kind",
        [FM_SCHED_WAIT_MEMORY] = "no worker has enough device memory",
        [FM_SCHED_WAIT_WALLTIME] = "no worker has enough walltime left",
        [FM_SCHED_WAIT_TURN] = "another batch is worth more there",
        [FM_SCHED_WAIT_GANG] = "too few devices of one domain are idle for it",
        [FM_SCHED_WAIT_NO_GANG] = "no domain has as many devices as it needs",
        [FM_SCHED_WAIT_NO_WORK] = "nothing of it is ready"};

    return (unsigned)verdict < FM_COUNT_OF(texts) ? texts[verdict] : "unknown";
}

static const struct {
    const char *name;
    size_t offset;
} numbers[] = {
#define NUMBER(member)                                                         \
    {                                                                          \
#member, offsetof(fm_sched_terms_t, member)                            \
    }
    NUMBER(wait_s),   NUMBER(load_s),    NUMBER(fetch_s),
    NUMBER(run_s),    NUMBER(total_s),   NUMBER(work),
    NUMBER(share),    NUMBER(age),       NUMBER(priority),
    NUMBER(deadline), NUMBER(path),      NUMBER(value),
    NUMBER(survival), NUMBER(dollars),   NUMBER(gain),
    NUMBER(loss),     NUMBER(gain_norm), NUMBER(loss_norm),
    NUMBER(lambda),   NUMBER(utility),   NUMBER(runner_up_utility),
    NUMBER(joules),
#undef NUMBER
};

fm_json_t *fm_sched_terms_json(const fm_sched_terms_t *terms)
{
    fm_json_t *json = fm_json_object();

    for (size_t i = 0; i < FM_COUNT_OF(numbers); i++) {
        double value;

        memcpy(&value, (const char *)terms + numbers[i].offset, sizeof(value));
        if (terms->runner_up == FM_SCHED_NONE &&
            numbers[i].offset ==
                offsetof(fm_sched_terms_t, runner_up_utility)) {
            continue;
        }
        if (!json ||
            fm_json_set(json, numbers[i].name, fm_json_real(value)) < 0) {
            return fm_json_drop(json);
        }
    }
    if (fm_json_set(json, "avoid_waived", fm_json_bool(terms->avoid_waived)) <
            0 ||
        fm_json_set(json, "runner_up",
                    terms->runner_up == FM_SCHED_NONE
                        ? fm_json_null()
                        : fm_json_int(terms->runner_up)) < 0 ||
        fm_json_set(json, "candidates", fm_json_int(terms->candidates)) < 0 ||
        fm_json_set(json, "classes", fm_json_int(terms->classes)) < 0) {
        return fm_json_drop(json);
    }
    return json;
}
