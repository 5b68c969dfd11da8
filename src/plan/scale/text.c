/* SPDX-License-Identifier: Apache-2.0 */
/* What a decision says of itself. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "plan/scale/scale.h"

const char *fm_scale_kind_name(fm_scale_kind_t kind)
{
    switch (kind) {
    case FM_SCALE_START:
        return "start";
    case FM_SCALE_DRAIN:
        return "drain";
    case FM_SCALE_HOLD:
        return "hold";
    }
    return "?";
}

const char *fm_scale_reason_text(fm_scale_reason_t reason)
{
    switch (reason) {
    case FM_SCALE_MIN:
        return "fewer than the class's minimum";
    case FM_SCALE_BACKLOG:
        return "ready work would wait too long";
    case FM_SCALE_SUCCESSORS:
        return "queued work will be ready by then";
    case FM_SCALE_DEADLINE:
        return "a deadline would be missed";
    case FM_SCALE_IDLE:
        return "idle past break-even";
    case FM_SCALE_MAX:
        return "the class is at its maximum";
    case FM_SCALE_MOVE:
        return "a cheaper worker ends its work for less";
    case FM_SCALE_NO_CLASS:
        return "no worker class can run it";
    case FM_SCALE_QUEUE:
        return "queueing has cost what a start costs";
    }
    return "?";
}

void fm_scale_action_text(const fm_scale_action_t *a, const char *class_name,
                          char *text, size_t bytes)
{
    char number[16];
    const char *reason = fm_scale_reason_text(a->reason);

    if (!class_name) {
        (void)snprintf(number, sizeof(number), "#%" PRIu32, a->class_index);
        class_name = number;
    }
    if (a->reason == FM_SCALE_NO_CLASS) {
        (void)snprintf(text, bytes, "hold: demand %" PRIu32 ": %s", a->demand,
                       reason);
    } else if (a->kind == FM_SCALE_HOLD) {
        (void)snprintf(text, bytes,
                       "hold %s: %s; work waits %.0f s in all, more workers "
                       "would save %.0f s",
                       class_name, reason, a->waits_s, a->saves_s);
    } else if (a->reason == FM_SCALE_IDLE) {
        (void)snprintf(text, bytes,
                       "drain %s worker %" PRIu32 ": %s: %.0f s idle, $%.4f, "
                       "against %.0f s, $%.4f, to get it back",
                       class_name, a->worker, reason, a->idle_s,
                       a->saves_dollars, a->keep_s, a->costs_dollars);
    } else if (a->kind == FM_SCALE_DRAIN) {
        (void)snprintf(text, bytes,
                       "drain %s worker %" PRIu32 "%s: %s: saves $%.4f, costs "
                       "$%.4f, %.0f s of work at risk",
                       class_name, a->worker,
                       a->now ? "" : " when its batch is done", reason,
                       a->saves_dollars, a->costs_dollars, a->at_risk_s);
    } else if (a->reason == FM_SCALE_QUEUE) {
        (void)snprintf(text, bytes,
                       "start %" PRIu32 " %s: %s: $%.4f so far, against $%.4f",
                       a->count, class_name, reason, a->saves_dollars,
                       a->costs_dollars);
    } else if (a->reason == FM_SCALE_MIN) {
        (void)snprintf(text, bytes, "start %" PRIu32 " %s: %s", a->count,
                       class_name, reason);
    } else if (isinf(a->saves_s)) {
        (void)snprintf(text, bytes,
                       "start %" PRIu32 " %s: %s: nothing else would run it; "
                       "costs $%.4f to start",
                       a->count, class_name, reason, a->costs_dollars);
    } else {
        (void)snprintf(text, bytes,
                       "start %" PRIu32 " %s: %s: waits of %.0f s in all, "
                       "saves %.0f s, $%.4f, for $%.4f",
                       a->count, class_name, reason, a->waits_s, a->saves_s,
                       a->saves_dollars, a->costs_dollars);
    }
}
