/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role/control records: golden bytes, round trips, truncation and damage.
 * usage: test_role_record GOLDEN_FILE
 */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "fmtest.h"
#include "role/control/decision.h"
#include "role/control/record.h"

#define GOLDEN_MAX_BYTES ((size_t)1 << 20)
#define MUTATIONS 20000

static const char *golden_file;

#define SPAN(literal) ((fm_span_t){(literal), sizeof(literal) - 1})

static fm_digest_t digest_of(uint8_t start)
{
    fm_digest_t digest;

    for (size_t i = 0; i < sizeof(digest.bytes); i++) {
        digest.bytes[i] = (uint8_t)(start + i);
    }
    return digest;
}

static bool same(fm_span_t span, const char *text)
{
    return span.len == strlen(text) && memcmp(span.text, text, span.len) == 0;
}

/* --- a sample of every record --------------------------------------------- */

static void add_entries(fm_buf_t *entries)
{
    fm_digest_t objects[2] = {digest_of(64), digest_of(96)};
    fm_record_entry_t ok = {.position = 0,
                            .workflow = 3,
                            .node = 1,
                            .item = 300,
                            .key = digest_of(1),
                            .outcome = FM_OUTCOME_OK,
                            .output = digest_of(33),
                            .kind = 1,
                            .bytes = SPAN("{\"a\":1}"),
                            .locator = SPAN("seg:/objects/data:0:7"),
                            .object_count = 2,
                            .objects = {(const char *)objects, 64}};
    fm_record_entry_t bad = {.position = UINT32_MAX,
                             .key = digest_of(2),
                             .outcome = FM_OUTCOME_INFRA_ERROR,
                             .error = SPAN("Gerät verloren")};

    fm_record_entry_add(entries, &ok);
    fm_record_entry_add(entries, &bad);
}

static void make_submit(fm_buf_t *out)
{
    fm_record_submit_t record = {.workflow = 300,
                                 .wall_ns = -5,
                                 .file = SPAN("a.yaml"),
                                 .text = SPAN("x: 1\n"),
                                 .files = SPAN("{}")};
    fm_record_submit_encode(&record, out);
}

static void make_expand(fm_buf_t *out)
{
    fm_buf_t items = {0};
    fm_record_item_add(&items, "{}", 2);
    fm_record_item_add(&items, "", 0);
    fm_record_expand_t record = {
        .workflow = 1,
        .node = UINT32_MAX,
        .more = true,
        .params = SPAN("{\"p\":2}"),
        .hints = SPAN(""),
        .first = 7,
        .count = 2,
        .items = {(const char *)items.data, items.len}};
    fm_record_expand_encode(&record, out);
    fm_buf_fini(&items);
}

/* Version 2: what it was submitted under. */
static void make_submit_2(fm_buf_t *out)
{
    fm_record_submit_t record = {.workflow = 300,
                                 .wall_ns = -5,
                                 .file = SPAN("a.yaml"),
                                 .text = SPAN("x: 1\n"),
                                 .files = SPAN("{}"),
                                 .policy = SPAN("adaptive"),
                                 .isolation = FM_ISOLATION_ACTION};
    fm_record_submit_encode(&record, out);
}

/* Version 2: when. */
static void make_expand_2(fm_buf_t *out)
{
    fm_record_expand_t record = {.workflow = 1,
                                 .params = SPAN("{}"),
                                 .hints = SPAN("{}"),
                                 .items = SPAN(""),
                                 .wall_ns = INT64_C(1700000000000000000)};
    fm_record_expand_encode(&record, out);
}

static fm_decision_t decision_of(uint64_t lease)
{
    fm_decision_t decision = {
        .lease = lease,
        .wall_ns = INT64_C(1700000000000000000),
        .batch_key = digest_of(9),
        .policy = SPAN("flowmesh"),
        .verdict = lease ? FM_SCHED_PLACE : FM_SCHED_WAIT_MEMORY,
        .text = SPAN("no worker has enough device memory"),
        .items = 300,
        .gang = 2,
        .looked_at = 70000,
        .candidates = {{.worker = SPAN("cell/w1"),
                        .size = 4,
                        .idle = true,
                        .terms = {.wait_s = 0.5,
                                  .total_s = 2,
                                  .utility = -0.25,
                                  .joules = 1e30}},
                       {.worker = SPAN("cell/w2"), .size = 1}},
        .candidate_count = 2,
        .ranges = {{1, 2, 300, 4}, {7, 0, 0, 1}},
        .range_count = 2,
        .blocked = {{SPAN("ada"), SPAN("ada has 1 devices at work")}},
        .blocked_count = 1};

    return decision;
}

static void make_place(fm_buf_t *out)
{
    fm_decision_t decision = decision_of(17);
    fm_decision_encode(&decision, out);
}

static void make_wait(fm_buf_t *out)
{
    fm_decision_t decision = decision_of(0);
    fm_decision_encode(&decision, out);
}

static void make_node(fm_buf_t *out)
{
    fm_record_node_t record = {2, 9, SPAN("no such column")};
    fm_record_node_encode(&record, out);
}

static void make_result(fm_buf_t *out)
{
    fm_buf_t entries = {0};
    add_entries(&entries);
    fm_record_result_t record = {
        .lease = (UINT64_C(2) << 32) | 17,
        .instance = 2,
        .worker = SPAN("local/w1"),
        .device = SPAN("Zen 4"),
        .start_ns = INT64_C(1700000000000000000),
        .seconds = 1.5,
        .cpu_seconds = 0.25,
        .joules = 300,
        .dollars = 1e-6,
        .placement = SPAN("{\"total_s\":1}"),
        .final = true,
        .count = 2,
        .entries = {(const char *)entries.data, entries.len}};
    fm_record_result_encode(&record, out);
    fm_buf_fini(&entries);
}

static void make_digests(fm_buf_t *out)
{
    fm_digest_t pair[2] = {digest_of(5), digest_of(77)};
    fm_buf_add(out, pair[0].bytes, 32);
    fm_buf_add(out, pair[1].bytes, 32);
}

/* Decode, and walk everything a record holds. */
static fm_status_t read_submit(const uint8_t *bytes, size_t len)
{
    fm_record_submit_t record;
    fm_error_t err = {0};
    return fm_record_submit_decode(bytes, len, &record, &err);
}

static fm_status_t read_expand(const uint8_t *bytes, size_t len)
{
    fm_record_expand_t record;
    fm_error_t err = {0};
    fm_span_t item;
    fm_status_t rc = fm_record_expand_decode(bytes, len, &record, &err);

    while (rc >= 0 && fm_record_item_next(&record.items, &item)) {
        free(fm_span_copy(item)); /* reads all of it */
    }
    return rc;
}

static fm_status_t read_node(const uint8_t *bytes, size_t len)
{
    fm_record_node_t record;
    fm_error_t err = {0};
    return fm_record_node_decode(bytes, len, &record, &err);
}

static fm_status_t read_result(const uint8_t *bytes, size_t len)
{
    fm_record_result_t record;
    fm_record_entry_t entry;
    fm_error_t err = {0};
    fm_status_t rc = fm_record_result_decode(bytes, len, &record, &err);

    while (rc >= 0 && fm_record_entry_next(&record.entries, &entry)) {
        CU_ASSERT(entry.outcome <= FM_OUTCOME_INFRA_ERROR);
        CU_ASSERT(entry.objects.len == 32 * (size_t)entry.object_count);
        free(fm_span_copy(entry.outcome == FM_OUTCOME_OK ? entry.objects
                                                         : entry.error));
    }
    return rc;
}

static fm_status_t read_decision(const uint8_t *bytes, size_t len)
{
    fm_decision_t decision;
    fm_error_t err = {0};
    fm_status_t rc = fm_decision_decode(bytes, len, &decision, &err);

    for (uint32_t i = 0; rc >= 0 && i < decision.candidate_count; i++) {
        free(fm_span_copy(decision.candidates[i].worker));
    }
    for (uint32_t i = 0; rc >= 0 && i < decision.blocked_count; i++) {
        free(fm_span_copy(decision.blocked[i].text));
    }
    if (rc >= 0) { /* what can be read whole can be read in part */
        CU_ASSERT(fm_decision_head(bytes, len, &decision, &err) >= 0);
    }
    return rc;
}

static fm_status_t read_digests(const uint8_t *bytes, size_t len)
{
    fm_digest_t pair[2];
    fm_error_t err = {0};
    return fm_record_digests_decode(bytes, len, pair, 2, &err);
}

static const struct kind {
    const char *name;
    void (*make)(fm_buf_t *out);
    fm_status_t (*read)(const uint8_t *bytes, size_t len);
} kinds[] = {
    {"SUBMIT", make_submit, read_submit},
    {"EXPAND", make_expand, read_expand},
    {"NODE", make_node, read_node},
    {"RESULT", make_result, read_result},
    {"SUBMIT-2", make_submit_2, read_submit},
    {"EXPAND-2", make_expand_2, read_expand},
    {"PLACE", make_place, read_decision},
    {"WAIT", make_wait, read_decision},
    {"CHECKPOINT", make_digests, read_digests},
};

/* A copy of exactly that size, so that a byte read beyond it is noticed. */
static fm_status_t read_exact(const struct kind *kind, const uint8_t *bytes,
                              size_t len)
{
    uint8_t *copy = fm_malloc(len ? len : 1);
    CU_ASSERT_FATAL(copy != NULL);
    memcpy(copy, bytes, len);
    fm_status_t rc = kind->read(copy, len);
    free(copy);
    return rc;
}

/* --- tests ---------------------------------------------------------------- */

static void test_golden(void)
{
    fm_buf_t now = {0};
    fm_buf_t kept = {0};
    fm_error_t err = {0};

    for (size_t k = 0; k < FM_COUNT_OF(kinds); k++) {
        fm_buf_t record = {0};
        kinds[k].make(&record);
        fm_buf_printf(&now, "%s ", kinds[k].name);
        for (size_t i = 0; i < record.len; i++) {
            fm_buf_printf(&now, "%02x", record.data[i]);
        }
        fm_buf_add_str(&now, "\n");
        CU_ASSERT(kinds[k].read(record.data, record.len) == FM_OK);
        fm_buf_fini(&record);
    }
    FM_ASSERT_OK(fm_file_read(golden_file, GOLDEN_MAX_BYTES, &kept, &err),
                 &err);
    if (strcmp(fm_buf_cstr(&now), fm_buf_cstr(&kept)) != 0) {
        (void)fprintf(stderr, "now:\n%s", fm_buf_cstr(&now));
    }
    CU_ASSERT_STRING_EQUAL(fm_buf_cstr(&now), fm_buf_cstr(&kept));
    fm_buf_fini(&now);
    fm_buf_fini(&kept);
}

static void test_round_trip_texts(void)
{
    fm_buf_t buf = {0};
    fm_error_t err = {0};
    fm_record_submit_t submit;
    fm_record_expand_t expand;
    fm_record_node_t node;
    fm_span_t item;

    make_submit(&buf);
    FM_ASSERT_OK(fm_record_submit_decode(buf.data, buf.len, &submit, &err),
                 &err);
    CU_ASSERT(submit.workflow == 300 && submit.wall_ns == -5);
    CU_ASSERT(same(submit.file, "a.yaml") && same(submit.text, "x: 1\n") &&
              same(submit.files, "{}"));
    fm_buf_clear(&buf);
    make_expand(&buf);
    FM_ASSERT_OK(fm_record_expand_decode(buf.data, buf.len, &expand, &err),
                 &err);
    CU_ASSERT(expand.workflow == 1 && expand.node == UINT32_MAX && expand.more);
    CU_ASSERT(expand.first == 7 && expand.count == 2);
    CU_ASSERT(same(expand.params, "{\"p\":2}") && same(expand.hints, ""));
    CU_ASSERT(fm_record_item_next(&expand.items, &item) && same(item, "{}"));
    CU_ASSERT(fm_record_item_next(&expand.items, &item) && same(item, ""));
    CU_ASSERT(!fm_record_item_next(&expand.items, &item));
    fm_buf_clear(&buf);
    make_node(&buf);
    FM_ASSERT_OK(fm_record_node_decode(buf.data, buf.len, &node, &err), &err);
    CU_ASSERT(node.workflow == 2 && node.node == 9 &&
              same(node.text, "no such column"));
    fm_buf_fini(&buf);
}

static void test_round_trip_result(void)
{
    fm_buf_t buf = {0};
    fm_error_t err = {0};
    fm_record_result_t record;
    fm_record_entry_t entry;
    fm_digest_t want = digest_of(33);

    make_result(&buf);
    FM_ASSERT_OK(fm_record_result_decode(buf.data, buf.len, &record, &err),
                 &err);
    CU_ASSERT(record.lease == ((UINT64_C(2) << 32) | 17));
    CU_ASSERT(record.instance == 2 && record.final && record.count == 2);
    CU_ASSERT(same(record.worker, "local/w1") && same(record.device, "Zen 4"));
    CU_ASSERT_EQUAL(record.start_ns, INT64_C(1700000000000000000));
    CU_ASSERT_EQUAL(record.seconds, 1.5);
    CU_ASSERT_EQUAL(record.cpu_seconds, 0.25);
    CU_ASSERT_EQUAL(record.joules, 300);
    CU_ASSERT_EQUAL(record.dollars, 1e-6);
    CU_ASSERT(same(record.placement, "{\"total_s\":1}"));
    CU_ASSERT_FATAL(fm_record_entry_next(&record.entries, &entry));
    CU_ASSERT(entry.position == 0 && entry.workflow == 3 && entry.node == 1 &&
              entry.item == 300 && entry.outcome == FM_OUTCOME_OK);
    CU_ASSERT(fm_digest_equal(&entry.output, &want) && entry.kind == 1);
    CU_ASSERT(same(entry.bytes, "{\"a\":1}"));
    CU_ASSERT(same(entry.locator, "seg:/objects/data:0:7"));
    CU_ASSERT(entry.object_count == 2 && entry.objects.len == 64);
    CU_ASSERT_FATAL(fm_record_entry_next(&record.entries, &entry));
    CU_ASSERT(entry.position == UINT32_MAX &&
              entry.outcome == FM_OUTCOME_INFRA_ERROR);
    CU_ASSERT(same(entry.error, "Gerät verloren"));
    CU_ASSERT(!fm_record_entry_next(&record.entries, &entry));
    fm_buf_fini(&buf);
}

static void test_round_trip_version_2(void)
{
    fm_buf_t buf = {0};
    fm_error_t err = {0};
    fm_record_submit_t submit;
    fm_record_expand_t expand;

    make_submit_2(&buf);
    FM_ASSERT_OK(fm_record_submit_decode(buf.data, buf.len, &submit, &err),
                 &err);
    CU_ASSERT(same(submit.policy, "adaptive") &&
              submit.isolation == FM_ISOLATION_ACTION);
    buf.data[buf.len - 1] = FM_ISOLATION_NODE + 1; /* of a later version */
    CU_ASSERT(read_submit(buf.data, buf.len) == FM_ERR_CORRUPT);
    fm_buf_clear(&buf);
    make_submit(&buf); /* of an older one */
    FM_ASSERT_OK(fm_record_submit_decode(buf.data, buf.len, &submit, &err),
                 &err);
    CU_ASSERT(submit.policy.len == 0 && !submit.isolation);
    fm_buf_clear(&buf);
    make_expand_2(&buf);
    FM_ASSERT_OK(fm_record_expand_decode(buf.data, buf.len, &expand, &err),
                 &err);
    CU_ASSERT(expand.wall_ns == INT64_C(1700000000000000000));
    fm_buf_fini(&buf);
}

static void test_round_trip_decision(void)
{
    fm_buf_t buf = {0};
    fm_error_t err = {0};
    fm_decision_t got;
    fm_digest_t key = digest_of(9);

    make_place(&buf);
    CU_ASSERT(buf.len < FM_DECISION_BYTES_MAX);
    FM_ASSERT_OK(fm_decision_decode(buf.data, buf.len, &got, &err), &err);
    CU_ASSERT(got.lease == 17 && got.verdict == FM_SCHED_PLACE);
    CU_ASSERT(got.wall_ns == INT64_C(1700000000000000000) &&
              fm_digest_equal(&got.batch_key, &key));
    CU_ASSERT(same(got.policy, "flowmesh") && got.items == 300 &&
              got.gang == 2 && got.looked_at == 70000);
    CU_ASSERT(got.candidate_count == 2 && got.range_count == 2);
    CU_ASSERT(same(got.candidates[0].worker, "cell/w1") &&
              got.candidates[0].idle && got.candidates[0].size == 4);
    CU_ASSERT_DOUBLE_EQUAL(got.candidates[0].terms.wait_s, 0.5, 0);
    CU_ASSERT_DOUBLE_EQUAL(got.candidates[0].terms.utility, -0.25, 0);
    CU_ASSERT(got.candidates[0].terms.joules > 9e29); /* float32 holds it */
    CU_ASSERT(!got.candidates[1].idle);
    CU_ASSERT(got.ranges[0].item == 300 && got.ranges[0].count == 4 &&
              got.ranges[1].workflow == 7);
    CU_ASSERT(same(got.blocked[0].tenant, "ada"));
    fm_buf_fini(&buf);
}

/* Candidates, ranges and tenants at their bounds stay within the size. */
static void test_decision_bound(void)
{
    fm_buf_t buf = {0};
    fm_decision_t decision = decision_of(1);
    fm_error_t err = {0};
    fm_decision_t got;

    decision.candidate_count = FM_DECISION_CANDIDATES_MAX;
    for (uint32_t i = 0; i < FM_DECISION_CANDIDATES_MAX; i++) {
        decision.candidates[i] = decision.candidates[0];
    }
    decision.range_count = FM_DECISION_RANGES_MAX;
    for (uint32_t i = 0; i < FM_DECISION_RANGES_MAX; i++) {
        decision.ranges[i] = (fm_decision_range_t){UINT32_MAX, UINT32_MAX,
                                                   UINT32_MAX, UINT32_MAX};
    }
    decision.blocked_count = FM_DECISION_BLOCKED_MAX;
    for (uint32_t i = 0; i < FM_DECISION_BLOCKED_MAX; i++) {
        decision.blocked[i] = decision.blocked[0];
    }
    fm_decision_encode(&decision, &buf);
    CU_ASSERT(buf.len < FM_DECISION_BYTES_MAX);
    FM_ASSERT_OK(fm_decision_decode(buf.data, buf.len, &got, &err), &err);
    CU_ASSERT(got.ranges[FM_DECISION_RANGES_MAX - 1].count == UINT32_MAX);
    fm_buf_fini(&buf);
}

static void test_every_truncation(void)
{
    for (size_t k = 0; k < FM_COUNT_OF(kinds); k++) {
        fm_buf_t record = {0};
        kinds[k].make(&record);
        CU_ASSERT(read_exact(&kinds[k], record.data, record.len) == FM_OK);
        for (size_t len = 0; len < record.len; len++) {
            CU_ASSERT(read_exact(&kinds[k], record.data, len) ==
                      FM_ERR_CORRUPT);
        }
        fm_buf_add_u8(&record, 0); /* and a byte too many */
        CU_ASSERT(read_exact(&kinds[k], record.data, record.len) ==
                  FM_ERR_CORRUPT);
        fm_buf_fini(&record);
    }
}

/* Another version is refused, whatever follows. */
static void test_version(void)
{
    for (size_t k = 0; k + 1 < FM_COUNT_OF(kinds); k++) {
        fm_buf_t record = {0};
        kinds[k].make(&record);
        record.data[0] = 3;
        CU_ASSERT(read_exact(&kinds[k], record.data, record.len) ==
                  FM_ERR_CORRUPT);
        fm_buf_fini(&record);
    }
}

/* A damaged record is refused or read; never beyond its end. */
static void test_mutations(void)
{
    fm_rng_t rng;
    size_t refused = 0;

    fm_rng_init(&rng, 20);
    for (int i = 0; i < MUTATIONS; i++) {
        const struct kind *kind = &kinds[fm_rng_below(&rng, 4)];
        fm_buf_t record = {0};
        kind->make(&record);
        uint64_t flips = 1 + fm_rng_below(&rng, 4);
        for (uint64_t f = 0; f < flips; f++) {
            record.data[fm_rng_below(&rng, record.len)] =
                (uint8_t)fm_rng_below(&rng, 256);
        }
        fm_status_t rc = read_exact(kind, record.data, record.len);
        CU_ASSERT(rc == FM_OK || rc == FM_ERR_CORRUPT);
        refused += rc < 0;
        fm_buf_fini(&record);
    }
    CU_ASSERT(refused > MUTATIONS / 20 && refused < MUTATIONS);
}

int main(int argc, char **argv)
{
    static const fm_test_case_t cases[] = {
        {"golden", test_golden},
        {"round trip: texts", test_round_trip_texts},
        {"round trip: result", test_round_trip_result},
        {"round trip: version 2", test_round_trip_version_2},
        {"round trip: decision", test_round_trip_decision},
        {"decision: bound", test_decision_bound},
        {"every truncation", test_every_truncation},
        {"version", test_version},
        {"mutations", test_mutations},
    };

    golden_file = argc > 1 ? argv[1] : "";
    return fm_test_main("role record", cases, FM_COUNT_OF(cases));
}
