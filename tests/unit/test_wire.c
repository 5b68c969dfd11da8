/* SPDX-License-Identifier: Apache-2.0 */
/*
 * io/wire: golden bytes of every message, round trips, refusals, and damage by
 * seeded mutation.  usage: test_wire GOLDEN_FILE
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "fmtest.h"
#include "io/wire/wire.h"

#define GOLDEN_MAX_BYTES ((size_t)1 << 20)
#define MUTATIONS 20000

static const char *golden_file;

static const char digest_text[] =
    "sha256:"
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

static fm_digest_t digest_of(uint8_t start)
{
    fm_digest_t digest;

    for (size_t i = 0; i < sizeof(digest.bytes); i++) {
        digest.bytes[i] = (uint8_t)(start + i);
    }
    return digest;
}

/* ---- one sample of every message ----------------------------------------- */

static fm_msg_t sample_worker(fm_msg_type_t type)
{
    static const fm_msg_device_t devices[] = {
        {.kind = "cuda",
         .name = "H100",
         .memory_bytes = 80000000000,
         .cores = 132},
        {.kind = "cpu", .name = "Zen 4", .memory_bytes = 1, .cores = 0}};
    static const char *const task_types[] = {"inference", "ppo", ""};
    static const uint64_t leases[] = {1, 300, UINT64_MAX};
    static fm_msg_result_item_t items[2];
    static fm_msg_object_t objects[1];
    fm_msg_t msg = {.type = type};

    items[0] =
        (fm_msg_result_item_t){.index = 0,
                               .kind = "item",
                               .digest = digest_of(1),
                               .inline_bytes = (const uint8_t *)"{\"a\":1}",
                               .inline_len = 7,
                               .locator = "",
                               .error = ""};
    items[1] = (fm_msg_result_item_t){.index = UINT32_MAX,
                                      .status = FM_ITEM_INFRA_ERROR,
                                      .locator = "seg/w1-2.h5#objects@16+99",
                                      .error = "Gerät verloren"};
    objects[0] = (fm_msg_object_t){.digest = digest_of(64), .locator = "x"};
    if (type == FM_MSG_HELLO) {
        msg.hello = (fm_msg_hello_t){.protocol = FM_WIRE_VERSION,
                                     .cell = "job-17",
                                     .name = "w3",
                                     .host = "node5",
                                     .pid = 4711,
                                     .devices = devices,
                                     .device_count = 2,
                                     .task_types = task_types,
                                     .task_type_count = 3,
                                     .walltime_end_ns = -5,
                                     .price_per_hour = 2.5,
                                     .watts = 700,
                                     .leases = leases,
                                     .lease_count = 3};
    } else if (type == FM_MSG_RESULT) {
        msg.result = (fm_msg_result_t){.lease = 300,
                                       .instance = 2,
                                       .items = items,
                                       .item_count = 2,
                                       .objects = objects,
                                       .object_count = 1,
                                       .seconds = 0.25,
                                       .cpu_seconds = 0.5,
                                       .joules = 1e3,
                                       .device = "cuda:0",
                                       .final = true};
    } else if (type == FM_MSG_PROGRESS) {
        msg.progress = (fm_msg_progress_t){
            .lease = 7, .fraction = 0.75, .metrics = "{\"loss\":0.5}"};
    } else if (type == FM_MSG_CHECKPOINT) {
        msg.checkpoint = (fm_msg_checkpoint_t){.lease = 8,
                                               .index = 1,
                                               .digest = digest_of(9),
                                               .locator = "seg/a",
                                               .step = 1000};
    } else {
        msg.bye = (fm_msg_bye_t){.reason = "walltime"};
    }
    return msg;
}

static fm_msg_t sample_control(fm_msg_type_t type)
{
    static const fm_msg_lease_item_t items[] = {
        {.index = 0, .value = "\"prompt\""}, {.index = 128, .value = "{}"}};
    fm_msg_t msg = {.type = type};

    if (type == FM_MSG_WELCOME) {
        msg.welcome = (fm_msg_welcome_t){.instance = 3,
                                         .worker = 12,
                                         .fabric_dir = "/scratch/fabric",
                                         .heartbeat_ms = 500,
                                         .options = "{\"x\":1}"};
    } else if (type == FM_MSG_LEASE) {
        msg.lease = (fm_msg_lease_t){.lease = UINT64_C(1) << 40,
                                     .instance = 3,
                                     .task_type = "inference",
                                     .params = "{\"max_tokens\":16}",
                                     .hints = "{\"export\":\"a\"}",
                                     .items = items,
                                     .item_count = 2,
                                     .deadline_ns = INT64_C(60000000000),
                                     .checkpoint = digest_text,
                                     .attempt = 1};
    } else if (type == FM_MSG_ACK) {
        msg.ack = (fm_msg_ack_t){.lease = 127, .count = 128};
    } else if (type == FM_MSG_CANCEL) {
        msg.cancel = (fm_msg_cancel_t){.lease = 9, .reason = "cancelled"};
    } else {
        msg.shutdown = (fm_msg_shutdown_t){.reason = "maintenance"};
    }
    return msg;
}

static fm_msg_t sample(fm_msg_type_t type)
{
    static const fm_msg_busy_t busy[] = {{.lease = 5, .fraction = 0.5},
                                         {.lease = 6, .fraction = 1}};
    static const char *const models[] = {digest_text};
    fm_msg_t msg = {.type = type};

    if (type == FM_MSG_HEARTBEAT) {
        msg.heartbeat = (fm_msg_heartbeat_t){.seq = 99,
                                             .busy = busy,
                                             .busy_count = 2,
                                             .models = models,
                                             .model_count = 1,
                                             .memory_bytes = 1 << 20};
    } else if (type == FM_MSG_DRAIN) {
        msg.drain = (fm_msg_drain_t){.reason = "SIGTERM",
                                     .grace_ns = INT64_C(30000000000)};
    } else if (type == FM_MSG_ERROR) {
        msg.error = (fm_msg_error_t){.code = FM_ERR_BUSY, .text = "later"};
    } else if (fm_msg_senders(type) == FM_PEER_WORKER) {
        return sample_worker(type);
    } else {
        return sample_control(type);
    }
    return msg;
}

static void encode_ok(const fm_msg_t *msg, fm_buf_t *out)
{
    fm_error_t err = {0};

    fm_buf_clear(out);
    FM_ASSERT_OK(fm_wire_encode(msg, out, &err), &err);
}

/* ---- tests ----------------------------------------------------------------
 */

static void golden_line(fm_buf_t *text, fm_msg_type_t type)
{
    fm_buf_t bytes = {0};
    fm_msg_t msg = sample(type);

    encode_ok(&msg, &bytes);
    fm_buf_printf(text, "%s ", fm_msg_type_name(type));
    for (size_t i = 0; i < bytes.len; i++) {
        fm_buf_printf(text, "%02x", bytes.data[i]);
    }
    fm_buf_add_str(text, "\n");
    fm_buf_fini(&bytes);
}

static void test_golden(void)
{
    fm_buf_t now = {0};
    fm_buf_t kept = {0};
    fm_error_t err = {0};

    for (int type = 1; type < FM_MSG_TYPE_END; type++) {
        golden_line(&now, (fm_msg_type_t)type);
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

/* decode(encode(m)) encodes to the same bytes, for every message. */
static void test_round_trip(void)
{
    fm_buf_t first = {0};
    fm_buf_t second = {0};
    fm_error_t err = {0};

    for (int type = 1; type < FM_MSG_TYPE_END; type++) {
        fm_msg_t msg = sample((fm_msg_type_t)type);
        fm_msg_t decoded = {0};
        encode_ok(&msg, &first);
        FM_ASSERT_OK(fm_wire_decode(first.data, first.len, &decoded, &err),
                     &err);
        CU_ASSERT((int)decoded.type == type);
        encode_ok(&decoded, &second);
        CU_ASSERT(first.len == second.len &&
                  memcmp(first.data, second.data, first.len) == 0);
        fm_msg_fini(&decoded);
        CU_ASSERT_PTR_NULL(decoded.memory);
    }
    fm_buf_fini(&first);
    fm_buf_fini(&second);
}

static void test_fields(void)
{
    fm_buf_t bytes = {0};
    fm_error_t err = {0};
    fm_msg_t msg = sample(FM_MSG_RESULT);
    fm_msg_t got = {0};
    fm_digest_t digest = digest_of(1);

    encode_ok(&msg, &bytes);
    FM_ASSERT_OK(fm_wire_decode(bytes.data, bytes.len, &got, &err), &err);
    CU_ASSERT(got.result.lease == 300 && got.result.final);
    CU_ASSERT_FATAL(got.result.item_count == 2);
    CU_ASSERT(fm_digest_equal(&got.result.items[0].digest, &digest));
    CU_ASSERT(got.result.items[0].inline_len == 7);
    CU_ASSERT(memcmp(got.result.items[0].inline_bytes, "{\"a\":1}", 7) == 0);
    CU_ASSERT(got.result.items[1].status == FM_ITEM_INFRA_ERROR);
    CU_ASSERT_STRING_EQUAL(got.result.items[1].error, "Gerät verloren");
    CU_ASSERT_STRING_EQUAL(got.result.items[1].kind, ""); /* was NULL */
    CU_ASSERT(got.result.joules > 999 && got.result.joules < 1001);
    fm_msg_fini(&got);

    msg = sample(FM_MSG_HELLO);
    encode_ok(&msg, &bytes);
    FM_ASSERT_OK(fm_wire_decode(bytes.data, bytes.len, &got, &err), &err);
    CU_ASSERT(got.hello.walltime_end_ns == -5);
    CU_ASSERT_FATAL(got.hello.lease_count == 3 && got.hello.device_count == 2);
    CU_ASSERT(got.hello.leases[2] == UINT64_MAX);
    CU_ASSERT_STRING_EQUAL(got.hello.devices[1].name, "Zen 4");
    CU_ASSERT_STRING_EQUAL(got.hello.task_types[1], "ppo");
    fm_msg_fini(&got);
    fm_buf_fini(&bytes);
}

static void refused(const fm_msg_t *msg, fm_status_t expected, const char *text)
{
    fm_buf_t out = {0};
    fm_error_t err = {0};

    fm_buf_add_str(&out, "before");
    CU_ASSERT(fm_wire_encode(msg, &out, &err) == expected);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, text));
    CU_ASSERT(out.len == 6);
    fm_buf_fini(&out);
}

static void test_encode_refusals(void)
{
    fm_msg_t msg = sample(FM_MSG_RESULT);
    fm_msg_result_item_t items[2] = {msg.result.items[0], msg.result.items[1]};
    uint8_t *big = fm_calloc(1, FM_WIRE_INLINE_MAX_BYTES + 1);

    CU_ASSERT_PTR_NOT_NULL_FATAL(big);
    msg.result.items = items;
    items[1].inline_bytes = big;
    items[1].inline_len = FM_WIRE_INLINE_MAX_BYTES + 1;
    refused(&msg, FM_ERR_LIMIT, "RESULT.items[1].inline: 65537, at most 65536");
    items[1].inline_len = 0;
    items[1].status = 3;
    refused(&msg, FM_ERR_LIMIT, "RESULT.items[1].status: 3, at most 2");
    items[1].status = 0;
    msg.result.joules = (double)NAN;
    refused(&msg, FM_ERR_INVALID, "RESULT.joules: not a finite number");
    msg.result.joules = -1;
    refused(&msg, FM_ERR_INVALID, "RESULT.joules: negative");
    free(big);

    msg = sample(FM_MSG_PROGRESS);
    msg.progress.fraction = 1.5;
    refused(&msg, FM_ERR_INVALID, "PROGRESS.fraction: larger than 1");
    msg = sample(FM_MSG_BYE);
    msg.bye.reason = "\xED\xA0\x80"; /* a surrogate */
    refused(&msg, FM_ERR_INVALID, "BYE.reason: not UTF-8");
    msg.type = FM_MSG_TYPE_END;
    refused(&msg, FM_ERR_INVALID, "14 is no message type");
}

/* 300 inline results of 64 KiB: each within its bound, the whole is not. */
static void test_whole_bound(void)
{
    enum { COUNT = 300 };
    fm_msg_result_item_t *items = fm_calloc(COUNT, sizeof(*items));
    uint8_t *bytes = fm_calloc(1, FM_WIRE_INLINE_MAX_BYTES);
    fm_msg_t msg = {.type = FM_MSG_RESULT};

    CU_ASSERT_FATAL(items && bytes);
    for (int i = 0; i < COUNT; i++) {
        items[i].inline_bytes = bytes;
        items[i].inline_len = FM_WIRE_INLINE_MAX_BYTES;
    }
    msg.result.items = items;
    msg.result.item_count = COUNT;
    refused(&msg, FM_ERR_LIMIT, "RESULT: a message of");
    free(items);
    free(bytes);
}

static void not_decoded(const char *bytes, size_t len, fm_status_t expected,
                        const char *text)
{
    fm_msg_t msg = {.type = FM_MSG_BYE};
    fm_error_t err = {0};

    CU_ASSERT(fm_wire_decode(bytes, len, &msg, &err) == expected);
    CU_ASSERT(msg.type == FM_MSG_BYE && !msg.memory); /* untouched */
    if (!strstr(err.text, text)) {
        (void)fprintf(stderr, "%s: %s\n", text, err.text);
    }
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, text));
}

static void test_decode_refusals(void)
{
    not_decoded("", 0, FM_ERR_PROTOCOL, "not a FlowMesh message");
    not_decoded("GET / HTTP/1.1", 14, FM_ERR_PROTOCOL, "not a FlowMesh");
    not_decoded("FM\x02\x06\x00\x00", 6, FM_ERR_UNSUPPORTED, "version 2");
    not_decoded("FM\x01\x00", 4, FM_ERR_UNSUPPORTED, "type 0");
    not_decoded("FM\x01\x0E", 4, FM_ERR_UNSUPPORTED, "type 14");
    not_decoded("FM\x01\x06\x01", 5, FM_ERR_PROTOCOL, "ACK.count");
    not_decoded("FM\x01\x06\x01\x01\x00", 7, FM_ERR_PROTOCOL, "1 bytes too");
    not_decoded("FM\x01\x06\x81\x00\x01", 7, FM_ERR_PROTOCOL, "shortest");
    not_decoded("FM\x01\x0B\x05zz", 7, FM_ERR_PROTOCOL, "BYE.reason: longer");
    not_decoded("FM\x01\x0B\x01\x00", 6, FM_ERR_PROTOCOL, "NUL");
    not_decoded("FM\x01\x0B\x81\x40", 6, FM_ERR_LIMIT, "BYE.reason: 8193");
    /* A count of 4096 in a message of 20 bytes costs no memory. */
    not_decoded("FM\x01\x05\x01\x01\x80\x20yyyyyyyyyyyy", 20, FM_ERR_PROTOCOL,
                "RESULT.items: longer");
    not_decoded("FM\x01\x05\x01\x01\x81\x20yyyyyyyyyyyy", 20, FM_ERR_LIMIT,
                "RESULT.items: 4097, at most 4096");
}

/* Every proper prefix of every message is refused. */
static void test_prefixes(void)
{
    fm_buf_t bytes = {0};
    fm_error_t err = {0};

    for (int type = 1; type < FM_MSG_TYPE_END; type++) {
        fm_msg_t msg = sample((fm_msg_type_t)type);
        encode_ok(&msg, &bytes);
        for (size_t len = 0; len < bytes.len; len++) {
            /* A copy of exactly this size, so that ASan sees an overrun. */
            uint8_t *copy = fm_malloc(len + 1);
            fm_msg_t got = {0};
            CU_ASSERT_PTR_NOT_NULL_FATAL(copy);
            memcpy(copy + 1, bytes.data, len);
            CU_ASSERT(fm_wire_decode(copy + 1, len, &got, &err) < 0);
            free(copy);
        }
    }
    fm_buf_fini(&bytes);
}

static void mutate(fm_rng_t *rng, fm_buf_t *bytes)
{
    uint64_t edits = 1 + fm_rng_below(rng, 4);

    for (uint64_t i = 0; i < edits && bytes->len > 0; i++) {
        size_t at = (size_t)fm_rng_below(rng, bytes->len);
        uint64_t how = fm_rng_below(rng, 4);
        if (how == 0) {
            bytes->data[at] ^= (uint8_t)(1u << fm_rng_below(rng, 8));
        } else if (how == 1) {
            bytes->data[at] = (uint8_t)fm_rng_u64(rng);
        } else if (how == 2) {
            memmove(bytes->data + at, bytes->data + at + 1,
                    bytes->len - at - 1);
            bytes->len--;
        } else {
            fm_buf_add_u8(bytes, 0);
            memmove(bytes->data + at + 1, bytes->data + at,
                    bytes->len - at - 1);
            bytes->data[at] = (uint8_t)fm_rng_u64(rng);
        }
    }
}

/* Damaged messages are refused, or are what another encoder would write. */
static void test_mutations(void)
{
    fm_buf_t bytes = {0};
    fm_buf_t again = {0};
    fm_rng_t rng;
    size_t accepted = 0;
    size_t refusals = 0;

    fm_rng_init(&rng, 20240501);
    for (int i = 0; i < MUTATIONS; i++) {
        fm_msg_type_t type =
            (fm_msg_type_t)(1 + fm_rng_below(&rng, FM_MSG_TYPE_END - 1));
        fm_msg_t msg = sample(type);
        fm_msg_t got = {0};
        fm_error_t err = {0};
        encode_ok(&msg, &bytes);
        mutate(&rng, &bytes);
        if (fm_wire_decode(bytes.data, bytes.len, &got, &err) < 0) {
            CU_ASSERT_FATAL(err.text[0] != '\0');
            refusals++;
            continue;
        }
        accepted++;
        encode_ok(&got, &again);
        CU_ASSERT_FATAL(again.len == bytes.len &&
                        memcmp(again.data, bytes.data, bytes.len) == 0);
        fm_msg_fini(&got);
    }
    CU_ASSERT(accepted > MUTATIONS / 20 && refusals > MUTATIONS / 20);
    fm_buf_fini(&bytes);
    fm_buf_fini(&again);
}

int main(int argc, char **argv)
{
    static const fm_test_case_t cases[] = {
        {"golden bytes", test_golden},
        {"round trip of every message", test_round_trip},
        {"fields", test_fields},
        {"refusals of the encoder", test_encode_refusals},
        {"bound of the whole", test_whole_bound},
        {"refusals of the decoder", test_decode_refusals},
        {"every prefix", test_prefixes},
        {"seeded mutations", test_mutations},
    };

    if (argc != 2) {
        (void)fprintf(stderr, "usage: test_wire GOLDEN_FILE\n");
        return 2;
    }
    golden_file = argv[1];
    return fm_test_main("io/wire", cases, FM_COUNT_OF(cases));
}
