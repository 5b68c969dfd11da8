/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The codec: two walks over the field table, one that writes and one that
 * reads.  Both check every bound, so what one side encodes the other decodes.
 * Decoding accepts exactly one encoding of a message: shortest varints, no
 * bytes left over.
 */
#include "io/wire/wire.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/mem.h"
#include "io/wire/arena.h"
#include "io/wire/table.h"

#define HEADER_BYTES 4 /* 'F' 'M' version type */

/* Where in a message we are, for error text; structs nest once. */
struct place {
    const char *message;
    const char *outer; /* the array we are in, or NULL */
    size_t index;
};

static fm_status_t refuse(const struct place *place, const struct field *field,
                          fm_status_t status, const char *what, fm_error_t *err)
{
    if (place->outer) {
        return fm_error_set(err, status, "%s.%s[%zu].%s: %s", place->message,
                            place->outer, place->index, field->name, what);
    }
    return fm_error_set(err, status, "%s.%s: %s", place->message, field->name,
                        what);
}

static fm_status_t refuse_size(const struct place *place,
                               const struct field *field, uint64_t size,
                               uint64_t bound, fm_error_t *err)
{
    char what[64];

    (void)snprintf(what, sizeof(what), "%llu, at most %llu",
                   (unsigned long long)size, (unsigned long long)bound);
    return refuse(place, field, FM_ERR_LIMIT, what, err);
}

/* Well-formed UTF-8 (RFC 3629: shortest form, no surrogates) without NUL. */
static bool text_valid(const uint8_t *text, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint8_t lead = text[i];
        size_t more = lead < 0x80   ? 0
                      : lead < 0xC2 ? len
                      : lead < 0xE0 ? 1
                      : lead < 0xF0 ? 2
                      : lead < 0xF5 ? 3
                                    : len;
        if (lead == 0 || more > len - i - 1) {
            return false;
        }
        for (size_t k = 1; k <= more; k++) {
            if ((text[i + k] & 0xC0) != 0x80) {
                return false;
            }
        }
        if ((lead == 0xE0 && text[i + 1] < 0xA0) ||
            (lead == 0xED && text[i + 1] > 0x9F) ||
            (lead == 0xF0 && text[i + 1] < 0x90) ||
            (lead == 0xF4 && text[i + 1] > 0x8F)) {
            return false;
        }
        i += more + 1;
    }
    return true;
}

static const char *real_fault(double value, const struct field *field)
{
    if (!isfinite(value)) {
        return "not a finite number";
    }
    if (value < 0) {
        return "negative";
    }
    return field->bound && value > (double)field->bound ? "larger than 1"
                                                        : NULL;
}

static uint64_t zigzag(int64_t value)
{
    return ((uint64_t)value << 1) ^ (value < 0 ? UINT64_MAX : 0);
}

static int64_t unzigzag(uint64_t value)
{
    uint64_t half = value >> 1;

    return value & 1 ? -(int64_t)half - 1 : (int64_t)half;
}

/* ---- encoding ----------------------------------------------------------- */

struct encoder {
    fm_buf_t *out;
    struct place place;
    fm_error_t *err;
};

static fm_status_t fields_encode(struct encoder *encoder,
                                 const struct layout *layout,
                                 const void *object);

#define LOAD(type, name, object, at)                                           \
    type name;                                                                 \
    memcpy(&name, (const char *)(object) + (at), sizeof(name))

static fm_status_t text_encode(struct encoder *encoder,
                               const struct field *field, const char *text,
                               uint64_t bound)
{
    size_t len = text ? strlen(text) : 0;

    if (len > bound) {
        return refuse_size(&encoder->place, field, len, bound, encoder->err);
    }
    fm_buf_add_varint(encoder->out, len);
    if (len == 0) {
        return FM_OK;
    }
    if (!text_valid((const uint8_t *)text, len)) {
        return refuse(&encoder->place, field, FM_ERR_INVALID, "not UTF-8",
                      encoder->err);
    }
    fm_buf_add(encoder->out, text, len);
    return FM_OK;
}

static fm_status_t scalar_encode(struct encoder *encoder,
                                 const struct field *field, const void *object)
{
    fm_buf_t *out = encoder->out;
    const char *at = (const char *)object + field->offset;

    if (field->kind == FM_FIELD_BOOL) {
        LOAD(bool, value, at, 0);
        fm_buf_add_u8(out, value ? 1 : 0);
    } else if (field->kind == FM_FIELD_U32) {
        LOAD(uint32_t, value, at, 0);
        if (value > field->bound) {
            return refuse_size(&encoder->place, field, value, field->bound,
                               encoder->err);
        }
        fm_buf_add_varint(out, value);
    } else if (field->kind == FM_FIELD_U64) {
        LOAD(uint64_t, value, at, 0);
        fm_buf_add_varint(out, value);
    } else if (field->kind == FM_FIELD_I32) {
        LOAD(int32_t, value, at, 0);
        fm_buf_add_varint(out, zigzag(value));
    } else if (field->kind == FM_FIELD_I64) {
        LOAD(int64_t, value, at, 0);
        fm_buf_add_varint(out, zigzag(value));
    } else if (field->kind == FM_FIELD_F64) {
        LOAD(double, value, at, 0);
        LOAD(uint64_t, bits, at, 0);
        const char *fault = real_fault(value, field);
        if (fault) {
            return refuse(&encoder->place, field, FM_ERR_INVALID, fault,
                          encoder->err);
        }
        fm_buf_add_u64(out, bits);
    } else {
        fm_buf_add(out, at, sizeof(fm_digest_t));
    }
    return FM_OK;
}

static fm_status_t structs_encode(struct encoder *encoder,
                                  const struct field *field, const char *items,
                                  size_t count)
{
    fm_status_t rc = FM_OK;

    encoder->place.outer = field->name;
    for (size_t i = 0; rc >= 0 && i < count; i++) {
        encoder->place.index = i;
        rc = fields_encode(encoder, field->item,
                           items + i * field->item->struct_bytes);
    }
    encoder->place.outer = NULL;
    return rc;
}

static fm_status_t counted_encode(struct encoder *encoder,
                                  const struct field *field, const void *object)
{
    LOAD(const void *, items, object, field->offset);
    LOAD(size_t, count, object, field->count_offset);
    fm_status_t rc = FM_OK;

    if (count > field->bound) {
        return refuse_size(&encoder->place, field, count, field->bound,
                           encoder->err);
    }
    fm_buf_add_varint(encoder->out, count);
    if (field->kind == FM_FIELD_BYTES) {
        fm_buf_add(encoder->out, items, count);
    } else if (field->kind == FM_FIELD_STRUCTS) {
        rc = structs_encode(encoder, field, items, count);
    } else {
        for (size_t i = 0; rc >= 0 && i < count; i++) {
            if (field->kind == FM_FIELD_U64S) {
                fm_buf_add_varint(encoder->out, ((const uint64_t *)items)[i]);
            } else {
                rc =
                    text_encode(encoder, field, ((const char *const *)items)[i],
                                field->string_bound);
            }
        }
    }
    return rc;
}

static fm_status_t fields_encode(struct encoder *encoder,
                                 const struct layout *layout,
                                 const void *object)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < layout->count; i++) {
        const struct field *field = &layout->fields[i];
        if (field->kind == FM_FIELD_STRING) {
            LOAD(const char *, text, object, field->offset);
            rc = text_encode(encoder, field, text, field->bound);
        } else if (field->kind >= FM_FIELD_U64S ||
                   field->kind == FM_FIELD_BYTES) {
            rc = counted_encode(encoder, field, object);
        } else {
            rc = scalar_encode(encoder, field, object);
        }
    }
    return rc;
}

fm_status_t fm_wire_encode(const fm_msg_t *msg, fm_buf_t *out, fm_error_t *err)
{
    const struct message *message = fm_wire_message((unsigned)msg->type);
    size_t start = out->len;

    if (!message) {
        return fm_error_set(err, FM_ERR_INVALID, "%d is no message type",
                            (int)msg->type);
    }
    struct encoder encoder = {
        .out = out, .place.message = message->name, .err = err};
    fm_buf_add_u8(out, 'F');
    fm_buf_add_u8(out, 'M');
    fm_buf_add_u8(out, FM_WIRE_VERSION);
    fm_buf_add_u8(out, (uint8_t)msg->type);
    fm_status_t rc = fields_encode(&encoder, &message->layout, &msg->hello);
    if (rc >= 0 && out->failed) {
        rc = fm_no_memory(err);
    }
    if (rc >= 0 && out->len - start > FM_WIRE_MESSAGE_MAX_BYTES) {
        rc = fm_error_set(err, FM_ERR_LIMIT,
                          "%s: a message of %zu bytes, at most %zu; send it "
                          "in parts, or objects through the CAS",
                          message->name, out->len - start,
                          FM_WIRE_MESSAGE_MAX_BYTES);
    }
    if (rc < 0) {
        out->len = start;
    }
    return rc;
}

/* ---- decoding ----------------------------------------------------------- */

struct decoder {
    fm_reader_t reader;
    struct place place;
    fm_arena_t *arena;
    fm_error_t *err;
};

static fm_status_t fields_decode(struct decoder *decoder,
                                 const struct layout *layout, void *object);

#define STORE(object, at, value)                                               \
    memcpy((char *)(object) + (at), &(value), sizeof(value))

static fm_status_t fail(struct decoder *decoder, const struct field *field,
                        const char *what)
{
    return refuse(&decoder->place, field, FM_ERR_PROTOCOL, what, decoder->err);
}

static fm_status_t varint_decode(struct decoder *decoder,
                                 const struct field *field, uint64_t bound,
                                 uint64_t *value_out)
{
    fm_reader_t *reader = &decoder->reader;
    size_t start = reader->pos;
    uint64_t value = fm_read_varint(reader);

    if (reader->failed) {
        return fail(decoder, field, "the message ends here, or no varint");
    }
    if (reader->pos - start > 1 && reader->data[reader->pos - 1] == 0) {
        return fail(decoder, field, "not the shortest varint");
    }
    if (value > bound) {
        return refuse_size(&decoder->place, field, value, bound, decoder->err);
    }
    *value_out = value;
    return FM_OK;
}

static fm_status_t text_decode(struct decoder *decoder,
                               const struct field *field, uint64_t bound,
                               const char **text_out)
{
    uint64_t len = 0;
    fm_status_t rc = varint_decode(decoder, field, bound, &len);

    if (rc < 0) {
        return rc;
    }
    const uint8_t *bytes = fm_read_bytes(&decoder->reader, (size_t)len);
    if (!bytes) {
        return fail(decoder, field, "longer than the message");
    }
    if (!text_valid(bytes, (size_t)len)) {
        return fail(decoder, field, "not UTF-8, or with a NUL");
    }
    char *text = fm_arena_alloc(decoder->arena, (size_t)len + 1);
    if (!text) {
        return fm_no_memory(decoder->err);
    }
    memcpy(text, bytes, (size_t)len);
    *text_out = text;
    return FM_OK;
}

static fm_status_t fixed_decode(struct decoder *decoder,
                                const struct field *field, void *object)
{
    fm_reader_t *reader = &decoder->reader;

    if (field->kind == FM_FIELD_DIGEST) {
        const uint8_t *bytes = fm_read_bytes(reader, sizeof(fm_digest_t));
        if (!bytes) {
            return fail(decoder, field, "the message ends here");
        }
        memcpy((char *)object + field->offset, bytes, sizeof(fm_digest_t));
    } else if (field->kind == FM_FIELD_F64) {
        uint64_t bits = fm_read_u64(reader);
        double value = 0;
        memcpy(&value, &bits, sizeof(value));
        const char *fault =
            reader->failed ? "the message ends here" : real_fault(value, field);
        if (fault) {
            return fail(decoder, field, fault);
        }
        STORE(object, field->offset, value);
    } else {
        uint8_t byte = fm_read_u8(reader);
        if (reader->failed || byte > 1) {
            return fail(decoder, field, "neither 0 nor 1");
        }
        bool value = byte == 1;
        STORE(object, field->offset, value);
    }
    return FM_OK;
}

static fm_status_t integer_decode(struct decoder *decoder,
                                  const struct field *field, void *object)
{
    bool is_signed = field->kind == FM_FIELD_I32 || field->kind == FM_FIELD_I64;
    uint64_t bound = field->kind == FM_FIELD_I32 ? UINT32_MAX
                     : is_signed                 ? UINT64_MAX
                                                 : field->bound;
    uint64_t value = 0;
    fm_status_t rc = varint_decode(decoder, field, bound, &value);

    if (rc < 0) {
        return rc;
    }
    if (field->kind == FM_FIELD_U32) {
        uint32_t narrow = (uint32_t)value;
        STORE(object, field->offset, narrow);
    } else if (field->kind == FM_FIELD_I32) {
        int32_t narrow = (int32_t)unzigzag(value);
        STORE(object, field->offset, narrow);
    } else if (field->kind == FM_FIELD_I64) {
        int64_t wide = unzigzag(value);
        STORE(object, field->offset, wide);
    } else {
        STORE(object, field->offset, value);
    }
    return FM_OK;
}

static fm_status_t elements_decode(struct decoder *decoder,
                                   const struct field *field, void *items,
                                   size_t count)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        if (field->kind == FM_FIELD_U64S) {
            rc = varint_decode(decoder, field, UINT64_MAX,
                               (uint64_t *)items + i);
        } else if (field->kind == FM_FIELD_STRINGS) {
            rc = text_decode(decoder, field, field->string_bound,
                             (const char **)items + i);
        } else {
            decoder->place.outer = field->name;
            decoder->place.index = i;
            rc = fields_decode(decoder, field->item,
                               (char *)items + i * field->item->struct_bytes);
            decoder->place.outer = NULL;
        }
    }
    return rc;
}

static fm_status_t counted_decode(struct decoder *decoder,
                                  const struct field *field, void *object)
{
    uint64_t count = 0;
    size_t each = 1;
    size_t wire_min = 1;
    fm_status_t rc = varint_decode(decoder, field, field->bound, &count);

    if (rc < 0) {
        return rc;
    }
    if (field->kind == FM_FIELD_STRUCTS) {
        each = field->item->struct_bytes;
        wire_min = field->item->wire_bytes_min;
    } else if (field->kind == FM_FIELD_U64S) {
        each = sizeof(uint64_t);
    } else if (field->kind == FM_FIELD_STRINGS) {
        each = sizeof(const char *);
    }
    /* Before any memory is spent on a count that cannot be true. */
    if (count > (decoder->reader.len - decoder->reader.pos) / wire_min) {
        return fail(decoder, field, "longer than the message");
    }
    size_t n = (size_t)count;
    void *items = n ? fm_arena_alloc(decoder->arena, n * each) : NULL;
    if (n && !items) {
        return fm_no_memory(decoder->err);
    }
    if (n && field->kind == FM_FIELD_BYTES) {
        memcpy(items, fm_read_bytes(&decoder->reader, n), n);
    } else if ((rc = elements_decode(decoder, field, items, n)) < 0) {
        return rc;
    }
    STORE(object, field->offset, items);
    STORE(object, field->count_offset, n);
    return FM_OK;
}

static fm_status_t fields_decode(struct decoder *decoder,
                                 const struct layout *layout, void *object)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < layout->count; i++) {
        const struct field *field = &layout->fields[i];
        switch (field->kind) {
        case FM_FIELD_BOOL:
        case FM_FIELD_F64:
        case FM_FIELD_DIGEST:
            rc = fixed_decode(decoder, field, object);
            break;
        case FM_FIELD_U32:
        case FM_FIELD_U64:
        case FM_FIELD_I32:
        case FM_FIELD_I64:
            rc = integer_decode(decoder, field, object);
            break;
        case FM_FIELD_STRING: {
            const char *text = NULL;
            rc = text_decode(decoder, field, field->bound, &text);
            STORE(object, field->offset, text);
            break;
        }
        case FM_FIELD_BYTES:
        case FM_FIELD_U64S:
        case FM_FIELD_STRINGS:
        case FM_FIELD_STRUCTS:
            rc = counted_decode(decoder, field, object);
            break;
        }
    }
    return rc;
}

static fm_status_t header_check(const uint8_t *bytes, size_t len,
                                const struct message **message_out,
                                fm_error_t *err)
{
    if (len > FM_WIRE_MESSAGE_MAX_BYTES) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "a message of %zu bytes, at most %zu", len,
                            FM_WIRE_MESSAGE_MAX_BYTES);
    }
    if (len < HEADER_BYTES || bytes[0] != 'F' || bytes[1] != 'M') {
        return fm_error_set(err, FM_ERR_PROTOCOL, "not a FlowMesh message");
    }
    if (bytes[2] != FM_WIRE_VERSION) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "the peer speaks protocol version %u, we speak "
                            "%u: run the same release on both sides",
                            bytes[2], FM_WIRE_VERSION);
    }
    if (!(*message_out = fm_wire_message(bytes[3]))) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED, "unknown message type %u",
                            bytes[3]);
    }
    return FM_OK;
}

fm_status_t fm_wire_decode(const void *bytes, size_t len, fm_msg_t *msg_out,
                           fm_error_t *err)
{
    const struct message *message = NULL;
    fm_msg_t msg;
    fm_status_t rc = header_check(bytes, len, &message, err);

    if (rc < 0) {
        return rc;
    }
    struct decoder decoder = {
        .reader = {.data = bytes, .len = len, .pos = HEADER_BYTES},
        .place.message = message->name,
        .arena = fm_arena_create(2 * len),
        .err = err};
    if (!decoder.arena) {
        return fm_no_memory(err);
    }
    memset(&msg, 0, sizeof(msg));
    rc = fields_decode(&decoder, &message->layout, &msg.hello);
    if (rc >= 0 && decoder.reader.pos != len) {
        rc = fm_error_set(err, FM_ERR_PROTOCOL, "%s: %zu bytes too many",
                          message->name, len - decoder.reader.pos);
    }
    if (rc < 0) {
        fm_arena_destroy(decoder.arena);
        return rc;
    }
    msg.type = (fm_msg_type_t)((const uint8_t *)bytes)[3];
    msg.memory = decoder.arena;
    *msg_out = msg;
    return FM_OK;
}

void fm_msg_fini(fm_msg_t *msg)
{
    fm_arena_destroy(msg->memory);
    memset(msg, 0, sizeof(*msg));
}
