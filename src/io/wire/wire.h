/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file wire.h
 * The messages between control plane and workers, as plain structs, and their
 * codec.  Format, bounds and semantics of each field: docs/spec/wire.md.
 *
 * One message = magic, version, type, then the fields of table.c in order; no
 * struct is ever copied to the wire.  A message that decodes is within every
 * bound of that table, its strings are UTF-8 without NUL, its numbers finite;
 * JSON texts are carried as they are, for the handler to parse.
 *
 * Encoding reads only; strings may be NULL for "".  A decoded message points
 * into memory of its own: fm_msg_fini() releases all of it.
 *
 * Threads: safe for distinct messages.
 */
#ifndef FM_IO_WIRE_WIRE_H
#define FM_IO_WIRE_WIRE_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/buf.h"
#include "base/hash.h"

/** Of the format; a peer with another one is refused with a clear text. */
#define FM_WIRE_VERSION 1u
/** Largest message: 256 inline results of the largest size, or a lease of 16
 *  items of the largest size; what is larger goes through the CAS. */
#define FM_WIRE_MESSAGE_MAX_BYTES ((size_t)16 << 20)
/** Largest inline result; a larger one is an object in the CAS. */
#define FM_WIRE_INLINE_MAX_BYTES ((size_t)64 << 10)
/** Most items in a LEASE or a RESULT: the largest batch. */
#define FM_WIRE_ITEM_MAX 4096u
/** Longest JSON text: the line bound of the executor protocol. */
#define FM_WIRE_JSON_MAX_BYTES ((size_t)1 << 20)

/** Values are the format: never reuse one. */
typedef enum fm_msg_type {
    FM_MSG_HELLO = 1,      /**< worker → control */
    FM_MSG_WELCOME = 2,    /**< control → worker */
    FM_MSG_HEARTBEAT = 3,  /**< both */
    FM_MSG_LEASE = 4,      /**< control → worker */
    FM_MSG_RESULT = 5,     /**< worker → control */
    FM_MSG_ACK = 6,        /**< control → worker */
    FM_MSG_PROGRESS = 7,   /**< worker → control */
    FM_MSG_CHECKPOINT = 8, /**< worker → control */
    FM_MSG_CANCEL = 9,     /**< control → worker */
    FM_MSG_DRAIN = 10,     /**< both */
    FM_MSG_BYE = 11,       /**< worker → control */
    FM_MSG_SHUTDOWN = 12,  /**< control → worker */
    FM_MSG_ERROR = 13,     /**< both */
    FM_MSG_TYPE_END        /**< one past the last */
} fm_msg_type_t;

/* Who may send a type: bits of fm_msg_senders(). */
#define FM_PEER_WORKER 1u
#define FM_PEER_CONTROL 2u

typedef struct fm_msg_device {
    const char *kind; /**< "cpu", "cuda" */
    const char *name;
    uint64_t memory_bytes;
    uint32_t cores;
} fm_msg_device_t;

typedef struct fm_msg_hello {
    uint32_t protocol; /**< FM_WIRE_VERSION */
    const char *cell;
    const char *name; /**< of the worker, unique in its cell */
    const char *host;
    uint32_t pid;
    const fm_msg_device_t *devices;
    size_t device_count;
    const char *const *task_types;
    size_t task_type_count;
    int64_t walltime_end_ns; /**< wall clock; 0: unknown */
    double price_per_hour;
    double watts;
    const uint64_t *leases; /**< still held, after a reconnect */
    size_t lease_count;
} fm_msg_hello_t;

typedef struct fm_msg_welcome {
    uint32_t instance;
    uint32_t worker;
    const char *fabric_dir;
    uint32_t heartbeat_ms;
    const char *options; /**< JSON object */
} fm_msg_welcome_t;

typedef struct fm_msg_busy {
    uint64_t lease;
    double fraction; /**< done, 0 … 1 */
} fm_msg_busy_t;

typedef struct fm_msg_heartbeat {
    uint64_t seq;
    const fm_msg_busy_t *busy;
    size_t busy_count;
    const char *const *models; /**< resident, as digest texts */
    size_t model_count;
    uint64_t memory_bytes; /**< free on the device */
} fm_msg_heartbeat_t;

typedef struct fm_msg_lease_item {
    uint32_t index;
    const char *value; /**< JSON */
} fm_msg_lease_item_t;

typedef struct fm_msg_lease {
    uint64_t lease;
    uint32_t instance;
    const char *task_type;
    const char *params; /**< JSON, shared by the batch */
    const char *hints;  /**< JSON: what results do not depend on */
    const fm_msg_lease_item_t *items;
    size_t item_count;
    int64_t deadline_ns;    /**< from receipt on; 0: none */
    const char *checkpoint; /**< digest text to resume from, or "" */
    uint32_t attempt;       /**< from 1 */
} fm_msg_lease_t;

typedef enum fm_item_status {
    FM_ITEM_OK = 0,
    FM_ITEM_TASK_ERROR = 1, /**< the task's fault: counts as an attempt */
    FM_ITEM_INFRA_ERROR = 2 /**< ours or the machine's: does not */
} fm_item_status_t;

typedef struct fm_msg_result_item {
    uint32_t index;
    uint32_t status;  /**< fm_item_status_t */
    const char *kind; /**< of the object: "item", "tensor", … */
    fm_digest_t digest;
    const uint8_t *inline_bytes; /**< none: the object is in the CAS */
    size_t inline_len;
    const char *locator; /**< where in the CAS, or "" */
    const char *error;   /**< "" when ok */
} fm_msg_result_item_t;

typedef struct fm_msg_object {
    fm_digest_t digest;
    const char *locator;
} fm_msg_object_t;

typedef struct fm_msg_result {
    uint64_t lease;
    uint32_t instance;
    const fm_msg_result_item_t *items;
    size_t item_count;
    const fm_msg_object_t *objects; /**< sealed, referred to by the outputs */
    size_t object_count;
    double seconds; /**< spent on these items */
    double cpu_seconds;
    double joules;
    const char *device;
    bool final; /**< the lease has ended; no further RESULT follows */
} fm_msg_result_t;

typedef struct fm_msg_ack {
    uint64_t lease;
    uint64_t count; /**< results of the lease that are durable */
} fm_msg_ack_t;

typedef struct fm_msg_progress {
    uint64_t lease;
    double fraction;
    const char *metrics; /**< JSON object */
} fm_msg_progress_t;

typedef struct fm_msg_checkpoint {
    uint64_t lease;
    uint32_t index; /**< of the item */
    fm_digest_t digest;
    const char *locator;
    uint64_t step;
} fm_msg_checkpoint_t;

typedef struct fm_msg_cancel {
    uint64_t lease;
    const char *reason;
} fm_msg_cancel_t;

typedef struct fm_msg_drain {
    const char *reason;
    int64_t grace_ns; /**< until the sender stops for good; 0: unknown */
} fm_msg_drain_t;

typedef struct fm_msg_bye {
    const char *reason;
} fm_msg_bye_t;

typedef struct fm_msg_shutdown {
    const char *reason;
} fm_msg_shutdown_t;

typedef struct fm_msg_error {
    int32_t code; /**< fm_status_t */
    const char *text;
} fm_msg_error_t;

typedef struct fm_msg {
    fm_msg_type_t type;
    union {
        fm_msg_hello_t hello;
        fm_msg_welcome_t welcome;
        fm_msg_heartbeat_t heartbeat;
        fm_msg_lease_t lease;
        fm_msg_result_t result;
        fm_msg_ack_t ack;
        fm_msg_progress_t progress;
        fm_msg_checkpoint_t checkpoint;
        fm_msg_cancel_t cancel;
        fm_msg_drain_t drain;
        fm_msg_bye_t bye;
        fm_msg_shutdown_t shutdown;
        fm_msg_error_t error;
    };
    void *memory; /**< of a decoded message; NULL in one made by hand */
} fm_msg_t;

/**
 * Append the bytes of @p msg to @p out.
 * @retval FM_ERR_LIMIT    a field or the whole is beyond its bound; @p out is
 *                         as before.  The text names message.field.
 * @retval FM_ERR_INVALID  a string is not UTF-8, a number not finite.
 */
FM_MUST_USE fm_status_t fm_wire_encode(const fm_msg_t *msg, fm_buf_t *out,
                                       fm_error_t *err);
/**
 * Decode one whole message from untrusted bytes.
 * @param msg_out  [out] for fm_msg_fini(); untouched on failure.
 * @retval FM_ERR_PROTOCOL  malformed: "RESULT.items[3].digest: …"
 * @retval FM_ERR_UNSUPPORTED  another version or an unknown type
 * @retval FM_ERR_LIMIT     beyond a bound
 */
FM_MUST_USE fm_status_t fm_wire_decode(const void *bytes, size_t len,
                                       fm_msg_t *msg_out, fm_error_t *err);
/** Release a decoded message; harmless on a zero or hand-made one. */
void fm_msg_fini(fm_msg_t *msg);

/** "RESULT"; "unknown" for what is no type. */
const char *fm_msg_type_name(fm_msg_type_t type);
/** FM_PEER_* bits of who may send @p type; 0 for what is no type. */
unsigned fm_msg_senders(fm_msg_type_t type);

#endif
