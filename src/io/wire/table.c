/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The format: every message as a list of fields, in the order they travel.
 * Changing a row changes the format: raise FM_WIRE_VERSION, keep the golden
 * bytes of the former one.
 */
#include "io/wire/table.h"

#include "base/mem.h"

/* Bounds, in bytes or counts.  Names are for people; texts end in a log. */
#define NAME_MAX_BYTES 255
#define PATH_MAX_BYTES 4096
#define TEXT_MAX_BYTES 8192
#define DIGEST_TEXT_MAX (FM_DIGEST_TEXT_BYTES - 1)
#define DEVICE_MAX 64       /* of one worker: more than a node has */
#define TASK_TYPE_MAX 256   /* that one worker can run */
#define HELD_LEASE_MAX 4096 /* of one worker */
#define MODEL_MAX 1024      /* resident at one worker, adapters included */
#define OBJECT_MAX 65536    /* sealed by one batch: tensors of a checkpoint */

#define FIELD(type, member, kind_, bound_)                                     \
    {                                                                          \
        .name = #member, .kind = (kind_), .offset = offsetof(type, member),    \
        .bound = (bound_)                                                      \
    }
#define COUNTED(type, member, counter, kind_, bound_, each)                    \
    {                                                                          \
        .name = #member, .kind = (kind_), .offset = offsetof(type, member),    \
        .count_offset = offsetof(type, counter), .bound = (bound_),            \
        .string_bound = (each)                                                 \
    }
#define STRUCTS(type, member, counter, bound_, layout_)                        \
    {                                                                          \
        .name = #member, .kind = FM_FIELD_STRUCTS,                             \
        .offset = offsetof(type, member),                                      \
        .count_offset = offsetof(type, counter), .bound = (bound_),            \
        .item = (layout_)                                                      \
    }
#define LAYOUT(type, fields_)                                                  \
    {                                                                          \
        .fields = (fields_), .count = FM_COUNT_OF(fields_),                    \
        .struct_bytes = sizeof(type), .wire_bytes_min = FM_COUNT_OF(fields_)   \
    }
#define U32(type, member) FIELD(type, member, FM_FIELD_U32, UINT32_MAX)
#define U64(type, member) FIELD(type, member, FM_FIELD_U64, UINT64_MAX)
#define I64(type, member) FIELD(type, member, FM_FIELD_I64, 0)
#define F64(type, member) FIELD(type, member, FM_FIELD_F64, 0)
#define STRING(type, member, bound) FIELD(type, member, FM_FIELD_STRING, bound)
#define JSON(type, member) STRING(type, member, FM_WIRE_JSON_MAX_BYTES)
#define DIGEST(type, member) FIELD(type, member, FM_FIELD_DIGEST, 0)
#define FRACTION(type, member) FIELD(type, member, FM_FIELD_F64, 1)

#define T fm_msg_device_t
static const struct field device_fields[] = {
    STRING(T, kind, NAME_MAX_BYTES),
    STRING(T, name, NAME_MAX_BYTES),
    U64(T, memory_bytes),
    U32(T, cores),
};
static const struct layout device_layout = LAYOUT(T, device_fields);
#undef T

#define T fm_msg_hello_t
static const struct field hello_fields[] = {
    U32(T, protocol),
    STRING(T, cell, NAME_MAX_BYTES),
    STRING(T, name, NAME_MAX_BYTES),
    STRING(T, host, NAME_MAX_BYTES),
    U32(T, pid),
    STRUCTS(T, devices, device_count, DEVICE_MAX, &device_layout),
    COUNTED(T, task_types, task_type_count, FM_FIELD_STRINGS, TASK_TYPE_MAX,
            NAME_MAX_BYTES),
    I64(T, walltime_end_ns),
    F64(T, price_per_hour),
    F64(T, watts),
    COUNTED(T, leases, lease_count, FM_FIELD_U64S, HELD_LEASE_MAX, 0),
};
#undef T

#define T fm_msg_welcome_t
static const struct field welcome_fields[] = {
    U32(T, instance),
    U32(T, worker),
    STRING(T, fabric_dir, PATH_MAX_BYTES),
    U32(T, heartbeat_ms),
    JSON(T, options),
};
#undef T

#define T fm_msg_busy_t
static const struct field busy_fields[] = {
    U64(T, lease),
    FRACTION(T, fraction),
};
static const struct layout busy_layout = LAYOUT(T, busy_fields);
#undef T

#define T fm_msg_heartbeat_t
static const struct field heartbeat_fields[] = {
    U64(T, seq),
    STRUCTS(T, busy, busy_count, HELD_LEASE_MAX, &busy_layout),
    COUNTED(T, models, model_count, FM_FIELD_STRINGS, MODEL_MAX,
            DIGEST_TEXT_MAX),
    U64(T, memory_bytes),
};
#undef T

#define T fm_msg_lease_item_t
static const struct field lease_item_fields[] = {
    U32(T, index),
    JSON(T, value),
};
static const struct layout lease_item_layout = LAYOUT(T, lease_item_fields);
#undef T

#define T fm_msg_lease_t
static const struct field lease_fields[] = {
    U64(T, lease),
    U32(T, instance),
    STRING(T, task_type, NAME_MAX_BYTES),
    JSON(T, params),
    JSON(T, hints),
    STRUCTS(T, items, item_count, FM_WIRE_ITEM_MAX, &lease_item_layout),
    I64(T, deadline_ns),
    STRING(T, checkpoint, DIGEST_TEXT_MAX),
    U32(T, attempt),
};
#undef T

#define T fm_msg_result_item_t
static const struct field result_item_fields[] = {
    U32(T, index),
    FIELD(T, status, FM_FIELD_U32, FM_ITEM_INFRA_ERROR),
    STRING(T, kind, NAME_MAX_BYTES),
    DIGEST(T, digest),
    {.name = "inline",
     .kind = FM_FIELD_BYTES,
     .offset = offsetof(T, inline_bytes),
     .count_offset = offsetof(T, inline_len),
     .bound = FM_WIRE_INLINE_MAX_BYTES},
    STRING(T, locator, PATH_MAX_BYTES),
    STRING(T, error, TEXT_MAX_BYTES),
};
static const struct layout result_item_layout = LAYOUT(T, result_item_fields);
#undef T

#define T fm_msg_object_t
static const struct field object_fields[] = {
    DIGEST(T, digest),
    STRING(T, locator, PATH_MAX_BYTES),
};
static const struct layout object_layout = LAYOUT(T, object_fields);
#undef T

#define T fm_msg_result_t
static const struct field result_fields[] = {
    U64(T, lease),
    U32(T, instance),
    STRUCTS(T, items, item_count, FM_WIRE_ITEM_MAX, &result_item_layout),
    STRUCTS(T, objects, object_count, OBJECT_MAX, &object_layout),
    F64(T, seconds),
    F64(T, cpu_seconds),
    F64(T, joules),
    STRING(T, device, NAME_MAX_BYTES),
    FIELD(T, final, FM_FIELD_BOOL, 0),
};
#undef T

#define T fm_msg_ack_t
static const struct field ack_fields[] = {
    U64(T, lease),
    U64(T, count),
};
#undef T

#define T fm_msg_progress_t
static const struct field progress_fields[] = {
    U64(T, lease),
    FRACTION(T, fraction),
    JSON(T, metrics),
};
#undef T

#define T fm_msg_checkpoint_t
static const struct field checkpoint_fields[] = {
    U64(T, lease),     U32(T, index),
    DIGEST(T, digest), STRING(T, locator, PATH_MAX_BYTES),
    U64(T, step),
};
#undef T

#define T fm_msg_cancel_t
static const struct field cancel_fields[] = {
    U64(T, lease),
    STRING(T, reason, TEXT_MAX_BYTES),
};
#undef T

#define T fm_msg_drain_t
static const struct field drain_fields[] = {
    STRING(T, reason, TEXT_MAX_BYTES),
    I64(T, grace_ns),
};
#undef T

static const struct field bye_fields[] = {
    STRING(fm_msg_bye_t, reason, TEXT_MAX_BYTES),
};

static const struct field shutdown_fields[] = {
    STRING(fm_msg_shutdown_t, reason, TEXT_MAX_BYTES),
};

static const struct field error_fields[] = {
    FIELD(fm_msg_error_t, code, FM_FIELD_I32, 0),
    STRING(fm_msg_error_t, text, TEXT_MAX_BYTES),
};

#define WORKER FM_PEER_WORKER
#define CONTROL FM_PEER_CONTROL
#define BOTH (FM_PEER_WORKER | FM_PEER_CONTROL)
static const struct message messages[FM_MSG_TYPE_END] = {
    [FM_MSG_HELLO] = {"HELLO", WORKER, LAYOUT(fm_msg_hello_t, hello_fields)},
    [FM_MSG_WELCOME] = {"WELCOME", CONTROL,
                        LAYOUT(fm_msg_welcome_t, welcome_fields)},
    [FM_MSG_HEARTBEAT] = {"HEARTBEAT", BOTH,
                          LAYOUT(fm_msg_heartbeat_t, heartbeat_fields)},
    [FM_MSG_LEASE] = {"LEASE", CONTROL, LAYOUT(fm_msg_lease_t, lease_fields)},
    [FM_MSG_RESULT] = {"RESULT", WORKER,
                       LAYOUT(fm_msg_result_t, result_fields)},
    [FM_MSG_ACK] = {"ACK", CONTROL, LAYOUT(fm_msg_ack_t, ack_fields)},
    [FM_MSG_PROGRESS] = {"PROGRESS", WORKER,
                         LAYOUT(fm_msg_progress_t, progress_fields)},
    [FM_MSG_CHECKPOINT] = {"CHECKPOINT", WORKER,
                           LAYOUT(fm_msg_checkpoint_t, checkpoint_fields)},
    [FM_MSG_CANCEL] = {"CANCEL", CONTROL,
                       LAYOUT(fm_msg_cancel_t, cancel_fields)},
    [FM_MSG_DRAIN] = {"DRAIN", BOTH, LAYOUT(fm_msg_drain_t, drain_fields)},
    [FM_MSG_BYE] = {"BYE", WORKER, LAYOUT(fm_msg_bye_t, bye_fields)},
    [FM_MSG_SHUTDOWN] = {"SHUTDOWN", CONTROL,
                         LAYOUT(fm_msg_shutdown_t, shutdown_fields)},
    [FM_MSG_ERROR] = {"ERROR", BOTH, LAYOUT(fm_msg_error_t, error_fields)},
};

const struct message *fm_wire_message(unsigned type)
{
    return type < FM_MSG_TYPE_END && messages[type].name ? &messages[type]
                                                         : NULL;
}

const char *fm_msg_type_name(fm_msg_type_t type)
{
    const struct message *message = fm_wire_message((unsigned)type);

    return message ? message->name : "unknown";
}

unsigned fm_msg_senders(fm_msg_type_t type)
{
    const struct message *message = fm_wire_message((unsigned)type);

    return message ? message->senders : 0;
}
