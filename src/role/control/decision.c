/* SPDX-License-Identifier: Apache-2.0 */
/* Codec of the records of decisions. */
#include "role/control/decision.h"

#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "role/control/codec.h"

/* Terms in the order of the format; later ones go to the end. */
static const struct {
    const char *name;
    size_t offset;
} terms[] = {
#define TERM(member)                                                           \
    {                                                                          \
#member, offsetof(fm_sched_terms_t, member)                            \
    }
    TERM(wait_s),   TERM(load_s),    TERM(fetch_s),   TERM(run_s),
    TERM(total_s),  TERM(work),      TERM(share),     TERM(age),
    TERM(priority), TERM(deadline),  TERM(path),      TERM(value),
    TERM(survival), TERM(dollars),   TERM(joules),    TERM(gain),
    TERM(loss),     TERM(gain_norm), TERM(loss_norm), TERM(lambda),
    TERM(utility),
#undef TERM
};

fm_json_t *fm_decision_terms_json(const fm_sched_terms_t *from)
{
    fm_json_t *json = fm_json_object();

    for (size_t i = 0; json && i < FM_COUNT_OF(terms); i++) {
        char text[32];
        double value;
        memcpy(&value, (const char *)from + terms[i].offset, sizeof(value));
        /* no more digits than the record has */
        (void)snprintf(text, sizeof(text), "%.6g", value);
        if (fm_json_set(json, terms[i].name, fm_json_real(strtod(text, NULL))) <
            0) {
            json = fm_json_drop(json);
        }
    }
    return json;
}

static void add_f32(fm_buf_t *out, double value)
{
    float single = (float)fmax(-3e38, fmin(value, 3e38));
    uint32_t bits = 0;

    memcpy(&bits, &single, sizeof(bits));
    fm_buf_add_u32(out, bits);
}

static double read_f32(fm_reader_t *in)
{
    uint32_t bits = fm_read_u32(in);
    float value = 0;

    memcpy(&value, &bits, sizeof(value));
    in->failed = in->failed || !isfinite(value);
    return value;
}

static void add_candidate(fm_buf_t *out, const fm_decision_candidate_t *from)
{
    add_span(out, from->worker);
    fm_buf_add_varint(out, from->size);
    fm_buf_add_u8(out, from->idle);
    fm_buf_add_u8(out, FM_COUNT_OF(terms));
    for (size_t i = 0; i < FM_COUNT_OF(terms); i++) {
        double value;
        memcpy(&value, (const char *)&from->terms + terms[i].offset,
               sizeof(value));
        add_f32(out, value);
    }
}

static void read_candidate(fm_reader_t *in, fm_decision_candidate_t *to)
{
    *to = (fm_decision_candidate_t){.worker = read_span(in)};
    to->size = read_index(in);
    to->idle = fm_read_u8(in) != 0;
    to->terms.runner_up = FM_SCHED_NONE;
    uint8_t count = fm_read_u8(in);
    for (size_t i = 0; i < count && !in->failed; i++) {
        double value = read_f32(in);
        if (i < FM_COUNT_OF(terms)) { /* those of a later version are left */
            memcpy((char *)&to->terms + terms[i].offset, &value, sizeof(value));
        }
    }
}

void fm_decision_encode(const fm_decision_t *decision, fm_buf_t *out)
{
    fm_buf_add_u8(out, VERSION);
    fm_buf_add_u64(out, decision->lease);
    fm_buf_add_u64(out, (uint64_t)decision->wall_ns);
    fm_buf_add(out, decision->batch_key.bytes,
               sizeof(decision->batch_key.bytes));
    add_span(out, decision->policy);
    fm_buf_add_u8(out, (uint8_t)decision->verdict);
    add_span(out, decision->text);
    fm_buf_add_varint(out, decision->items);
    fm_buf_add_varint(out, decision->gang);
    fm_buf_add_varint(out, decision->looked_at);
    fm_buf_add_u8(out, (uint8_t)decision->candidate_count);
    for (uint32_t i = 0; i < decision->candidate_count; i++) {
        add_candidate(out, &decision->candidates[i]);
    }
    fm_buf_add_u8(out, (uint8_t)decision->range_count);
    for (uint32_t i = 0; i < decision->range_count; i++) {
        fm_buf_add_varint(out, decision->ranges[i].workflow);
        fm_buf_add_varint(out, decision->ranges[i].node);
        fm_buf_add_varint(out, decision->ranges[i].item);
        fm_buf_add_varint(out, decision->ranges[i].count);
    }
    fm_buf_add_u8(out, (uint8_t)decision->blocked_count);
    for (uint32_t i = 0; i < decision->blocked_count; i++) {
        add_span(out, decision->blocked[i].tenant);
        add_span(out, decision->blocked[i].text);
    }
}

static fm_reader_t read_head(const uint8_t *bytes, size_t len,
                             fm_decision_t *to)
{
    fm_reader_t in = open_record(bytes, len);

    *to = (fm_decision_t){.lease = fm_read_u64(&in)};
    to->wall_ns = (int64_t)fm_read_u64(&in);
    to->batch_key = read_digest(&in);
    return in;
}

fm_status_t fm_decision_head(const uint8_t *bytes, size_t len,
                             fm_decision_t *head_out, fm_error_t *err)
{
    fm_reader_t in = read_head(bytes, len, head_out);

    return in.failed ? fm_error_set(err, FM_ERR_CORRUPT,
                                    "decision record: cut at byte %zu", in.pos)
                     : FM_OK;
}

/* A count that the array it is for can hold. */
static uint32_t read_count(fm_reader_t *in, uint32_t most)
{
    uint8_t count = fm_read_u8(in);

    in->failed = in->failed || count > most;
    return in->failed ? 0 : count;
}

static void read_lists(fm_reader_t *in, fm_decision_t *to)
{
    to->candidate_count = read_count(in, FM_DECISION_CANDIDATES_MAX);
    for (uint32_t i = 0; i < to->candidate_count; i++) {
        read_candidate(in, &to->candidates[i]);
    }
    to->range_count = read_count(in, FM_DECISION_RANGES_MAX);
    for (uint32_t i = 0; i < to->range_count; i++) {
        fm_decision_range_t *range = &to->ranges[i];
        range->workflow = read_index(in);
        range->node = read_index(in);
        range->item = read_index(in);
        range->count = read_index(in);
    }
    to->blocked_count = read_count(in, FM_DECISION_BLOCKED_MAX);
    for (uint32_t i = 0; i < to->blocked_count; i++) {
        to->blocked[i].tenant = read_span(in);
        to->blocked[i].text = read_span(in);
    }
}

fm_status_t fm_decision_decode(const uint8_t *bytes, size_t len,
                               fm_decision_t *decision_out, fm_error_t *err)
{
    fm_reader_t in = read_head(bytes, len, decision_out);

    decision_out->policy = read_span(&in);
    uint8_t verdict = fm_read_u8(&in);
    in.failed = in.failed || verdict > FM_SCHED_WAIT_NO_WORK;
    decision_out->verdict = (fm_sched_verdict_t)verdict;
    decision_out->text = read_span(&in);
    decision_out->items = read_index(&in);
    decision_out->gang = read_index(&in);
    decision_out->looked_at = read_index(&in);
    read_lists(&in, decision_out);
    return close_record(&in, "decision", err);
}
