/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Codec of the control plane's journal records.  Every record opens with a
 * version byte, so a later field can be added without a new type: version 2
 * appends its fields to those of version 1, and is written only where one of
 * them says something.
 */
#include "role/control/record.h"

#include <string.h>

#include "base/mem.h"
#include "role/control/codec.h"

#define VERSION_2 2

void fm_record_submit_encode(const fm_record_submit_t *record, fm_buf_t *out)
{
    bool plain = record->policy.len == 0 && !record->isolation;

    fm_buf_add_u8(out, plain ? VERSION : VERSION_2);
    fm_buf_add_varint(out, record->workflow);
    fm_buf_add_u64(out, (uint64_t)record->wall_ns);
    add_span(out, record->file);
    add_span(out, record->text);
    add_span(out, record->files);
    if (!plain) {
        add_span(out, record->policy);
        fm_buf_add_u8(out, (uint8_t)record->isolation);
    }
}

fm_status_t fm_record_submit_decode(const uint8_t *bytes, size_t len,
                                    fm_record_submit_t *record_out,
                                    fm_error_t *err)
{
    int version = 0;
    fm_reader_t in = open_version(bytes, len, VERSION_2, &version);
    fm_record_submit_t record = {.workflow = read_index(&in),
                                 .policy = {"", 0}};

    record.wall_ns = (int64_t)fm_read_u64(&in);
    record.file = read_span(&in);
    record.text = read_span(&in);
    record.files = read_span(&in);
    if (version == VERSION_2) {
        record.policy = read_span(&in);
        uint8_t isolation = fm_read_u8(&in);
        in.failed = in.failed || isolation > FM_ISOLATION_NODE;
        record.isolation = (fm_isolation_t)isolation;
    }
    fm_status_t rc = close_record(&in, "SUBMIT", err);
    if (rc >= 0) {
        *record_out = record;
    }
    return rc;
}

void fm_record_expand_encode(const fm_record_expand_t *record, fm_buf_t *out)
{
    fm_buf_add_u8(out, record->wall_ns ? VERSION_2 : VERSION);
    fm_buf_add_varint(out, record->workflow);
    fm_buf_add_varint(out, record->node);
    fm_buf_add_u8(out, record->more);
    add_span(out, record->params);
    add_span(out, record->hints);
    fm_buf_add_varint(out, record->first);
    fm_buf_add_varint(out, record->count);
    add_span(out, record->items);
    if (record->wall_ns) {
        fm_buf_add_u64(out, (uint64_t)record->wall_ns);
    }
}

fm_status_t fm_record_expand_decode(const uint8_t *bytes, size_t len,
                                    fm_record_expand_t *record_out,
                                    fm_error_t *err)
{
    int version = 0;
    fm_reader_t in = open_version(bytes, len, VERSION_2, &version);
    fm_record_expand_t record = {.workflow = read_index(&in)};

    record.node = read_index(&in);
    record.more = fm_read_u8(&in) != 0;
    record.params = read_span(&in);
    record.hints = read_span(&in);
    record.first = read_index(&in);
    record.count = read_index(&in);
    record.items = read_span(&in);
    if (version == VERSION_2) {
        record.wall_ns = (int64_t)fm_read_u64(&in);
    }
    fm_status_t rc = close_record(&in, "EXPAND", err);
    if (rc >= 0) {
        *record_out = record;
    }
    return rc;
}

void fm_record_item_add(fm_buf_t *items, const char *text, size_t len)
{
    add_span(items, (fm_span_t){text, len});
}

bool fm_record_item_next(fm_span_t *items, fm_span_t *item_out)
{
    fm_reader_t in = {.data = (const uint8_t *)items->text, .len = items->len};

    if (items->len == 0) {
        return false;
    }
    fm_span_t item = read_span(&in);
    if (in.failed) {
        return false;
    }
    *item_out = item;
    items->text += in.pos;
    items->len -= in.pos;
    return true;
}

void fm_record_node_encode(const fm_record_node_t *record, fm_buf_t *out)
{
    fm_buf_add_u8(out, VERSION);
    fm_buf_add_varint(out, record->workflow);
    fm_buf_add_varint(out, record->node);
    add_span(out, record->text);
}

fm_status_t fm_record_node_decode(const uint8_t *bytes, size_t len,
                                  fm_record_node_t *record_out, fm_error_t *err)
{
    fm_reader_t in = open_record(bytes, len);
    fm_record_node_t record = {.workflow = read_index(&in)};

    record.node = read_index(&in);
    record.text = read_span(&in);
    fm_status_t rc = close_record(&in, "node", err);
    if (rc >= 0) {
        *record_out = record;
    }
    return rc;
}

void fm_record_result_encode(const fm_record_result_t *record, fm_buf_t *out)
{
    fm_buf_add_u8(out, VERSION);
    fm_buf_add_u64(out, record->lease);
    fm_buf_add_u32(out, record->instance);
    add_span(out, record->worker);
    add_span(out, record->device);
    fm_buf_add_u64(out, (uint64_t)record->start_ns);
    add_f64(out, record->seconds);
    add_f64(out, record->cpu_seconds);
    add_f64(out, record->joules);
    add_f64(out, record->dollars);
    add_span(out, record->placement);
    fm_buf_add_u8(out, record->final);
    fm_buf_add_varint(out, record->count);
    add_span(out, record->entries);
}

fm_status_t fm_record_result_decode(const uint8_t *bytes, size_t len,
                                    fm_record_result_t *record_out,
                                    fm_error_t *err)
{
    fm_reader_t in = open_record(bytes, len);
    fm_record_result_t record = {.lease = fm_read_u64(&in)};

    record.instance = fm_read_u32(&in);
    record.worker = read_span(&in);
    record.device = read_span(&in);
    record.start_ns = (int64_t)fm_read_u64(&in);
    record.seconds = read_f64(&in);
    record.cpu_seconds = read_f64(&in);
    record.joules = read_f64(&in);
    record.dollars = read_f64(&in);
    record.placement = read_span(&in);
    record.final = fm_read_u8(&in) != 0;
    record.count = read_index(&in);
    record.entries = read_span(&in);
    fm_status_t rc = close_record(&in, "RESULT", err);
    if (rc >= 0) {
        *record_out = record;
    }
    return rc;
}

void fm_record_entry_add(fm_buf_t *entries, const fm_record_entry_t *entry)
{
    fm_buf_add_varint(entries, entry->position);
    fm_buf_add_varint(entries, entry->workflow);
    fm_buf_add_varint(entries, entry->node);
    fm_buf_add_varint(entries, entry->item);
    fm_buf_add(entries, entry->key.bytes, sizeof(entry->key.bytes));
    fm_buf_add_u8(entries, (uint8_t)entry->outcome);
    if (entry->outcome != FM_OUTCOME_OK) {
        add_span(entries, entry->error);
        return;
    }
    fm_buf_add(entries, entry->output.bytes, sizeof(entry->output.bytes));
    fm_buf_add_u8(entries, entry->kind);
    add_span(entries, entry->bytes);
    add_span(entries, entry->locator);
    add_span(entries, entry->objects);
}

bool fm_record_entry_next(fm_span_t *entries, fm_record_entry_t *entry_out)
{
    fm_reader_t in = {.data = (const uint8_t *)entries->text,
                      .len = entries->len};
    fm_record_entry_t entry = {0};

    if (entries->len == 0) {
        return false;
    }
    entry.position = read_index(&in);
    entry.workflow = read_index(&in);
    entry.node = read_index(&in);
    entry.item = read_index(&in);
    entry.key = read_digest(&in);
    uint8_t outcome = fm_read_u8(&in);
    entry.outcome = (fm_outcome_t)outcome;
    if (outcome == FM_OUTCOME_OK) {
        entry.output = read_digest(&in);
        entry.kind = fm_read_u8(&in);
        entry.bytes = read_span(&in);
        entry.locator = read_span(&in);
        entry.objects = read_span(&in);
        entry.object_count = (uint32_t)(entry.objects.len / 32);
    } else {
        entry.error = read_span(&in);
    }
    if (in.failed || outcome > FM_OUTCOME_INFRA_ERROR ||
        entry.objects.len % 32 != 0) {
        return false;
    }
    *entry_out = entry;
    entries->text += in.pos;
    entries->len -= in.pos;
    return true;
}

fm_status_t fm_record_digests_decode(const uint8_t *bytes, size_t len,
                                     fm_digest_t *digests_out, size_t count,
                                     fm_error_t *err)
{
    if (len != count * sizeof(digests_out->bytes)) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "digest record: %zu bytes instead of %zu", len,
                            count * sizeof(digests_out->bytes));
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(digests_out[i].bytes, bytes + 32 * i, 32);
    }
    return FM_OK;
}

char *fm_span_copy(fm_span_t span)
{
    return fm_strndup(span.text, span.len);
}
