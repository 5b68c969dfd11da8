/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Header, index rows and shape rows of a segment, as bytes; names; locators.
 * Invariant: a row that decodes lies inside the file, past the header, and
 * agrees with its shape.
 */
#include "store/cas/format.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char magic[8] = {'F', 'M', 'C', 'A', 'S', 'S', 'G', '\n'};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[FM_CAS_DTYPE_COUNT] = {
    [FM_CAS_F32] = {"f32", 4},         [FM_CAS_F64] = {"f64", 8},
    [FM_CAS_F16] = {"f16", 2},         [FM_CAS_BF16] = {"bf16", 2},
    [FM_CAS_F8_E4M3] = {"f8_e4m3", 1}, [FM_CAS_F8_E5M2] = {"f8_e5m2", 1},
    [FM_CAS_I8] = {"i8", 1},           [FM_CAS_I16] = {"i16", 2},
    [FM_CAS_I32] = {"i32", 4},         [FM_CAS_I64] = {"i64", 8},
    [FM_CAS_U8] = {"u8", 1},           [FM_CAS_BOOL] = {"bool", 1},
};

static const char *const kinds[FM_CAS_KIND_COUNT] = {
    "blob", "item", "tensor", "model", "checkpoint", "lineage", "snapshot"};

const char *fm_cas_kind_name(fm_cas_kind_t kind)
{
    return (unsigned)kind < FM_CAS_KIND_COUNT ? kinds[kind] : NULL;
}

const char *fm_cas_dtype_name(fm_cas_dtype_t dtype)
{
    return (unsigned)dtype < FM_CAS_DTYPE_COUNT ? dtypes[dtype].name : NULL;
}

size_t fm_cas_dtype_bytes(fm_cas_dtype_t dtype)
{
    return (unsigned)dtype < FM_CAS_DTYPE_COUNT ? dtypes[dtype].bytes : 0;
}

bool fm_cas_name_valid(const char *name, size_t len, size_t bytes_max)
{
    if (len == 0 || len > bytes_max || name[0] == '.') {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
              (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-')) {
            return false;
        }
    }
    return true;
}

bool fm_cas_segment_name_valid(const char *name)
{
    size_t len = strlen(name);
    fm_cas_locator_t *bound = NULL;

    return len > 3 && len < sizeof(bound->segment) &&
           strcmp(name + len - 3, ".h5") == 0 &&
           fm_cas_name_valid(name, len - 3, sizeof(bound->segment));
}

char *fm_cas_dataset_name(fm_cas_place_t place, const fm_digest_t *digest,
                          char *text)
{
    char hex[FM_DIGEST_TEXT_BYTES];

    if (place == FM_CAS_PLACE_DATA) {
        memcpy(text, "/objects/data", 14);
        return text;
    }
    (void)fm_digest_format(digest, hex);
    (void)snprintf(text, 80, "/%s/%s",
                   place == FM_CAS_PLACE_BLOB ? "blobs" : "tensors", hex + 7);
    return text;
}

bool fm_cas_shape_bytes(const fm_cas_shape_t *shape, uint64_t *bytes_out)
{
    uint64_t bytes = fm_cas_dtype_bytes((fm_cas_dtype_t)shape->dtype);
    bool empty = false;

    if (shape->rank > FM_CAS_RANK_MAX || bytes == 0) {
        return false;
    }
    for (size_t i = 0; i < shape->rank; i++) {
        uint64_t extent = shape->dims[i];
        if (extent == 0) {
            empty = true;
        } else if (bytes > FM_CAS_OBJECT_BYTES_MAX / extent) {
            return false;
        } else {
            bytes *= extent;
        }
    }
    *bytes_out = empty ? 0 : bytes;
    return true;
}

void fm_cas_header_encode(const fm_cas_header_t *header, fm_buf_t *out)
{
    size_t start = out->len;
    static const uint8_t zeros[FM_CAS_HEADER_BYTES];

    fm_buf_add(out, magic, sizeof(magic));
    fm_buf_add_u32(out, FM_CAS_FORMAT_VERSION);
    fm_buf_add_u32(out, FM_CAS_HEADER_BYTES);
    fm_buf_add_u64(out, header->file_bytes);
    fm_buf_add_u64(out, header->row_address);
    fm_buf_add_u64(out, header->row_count);
    fm_buf_add_u64(out, header->shape_address);
    fm_buf_add_u64(out, header->shape_count);
    fm_buf_add_u64(out, header->pack_address);
    fm_buf_add_u64(out, header->pack_bytes);
    fm_buf_add_u64(out, header->index_hash);
    fm_buf_add_u64(out, header->meta_hash);
    fm_buf_add_u64(out, (uint64_t)header->created_ns);
    fm_buf_add(out, header->writer, sizeof(header->writer));
    fm_buf_add(out, zeros, FM_CAS_HEADER_BYTES - 8 - (out->len - start));
    if (!out->failed) {
        fm_buf_add_u64(out,
                       fm_hash64(out->data + start, FM_CAS_HEADER_BYTES - 8));
    }
}

/* [address, address + count × bytes) is inside the file, past the header. */
static bool extent_valid(const fm_cas_header_t *header, uint64_t address,
                         uint64_t count, uint64_t bytes)
{
    return count == 0 ||
           (address >= FM_CAS_HEADER_BYTES && address <= header->file_bytes &&
            count <= (header->file_bytes - address) / bytes);
}

static fm_status_t header_check(const fm_cas_header_t *header,
                                uint64_t file_bytes, fm_error_t *err)
{
    if (header->file_bytes != file_bytes) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "cut or grown: %" PRIu64 " bytes, sealed with "
                            "%" PRIu64,
                            file_bytes, header->file_bytes);
    }
    if (header->row_count > FM_CAS_ROWS_MAX ||
        header->shape_count > header->row_count ||
        !extent_valid(header, header->row_address, header->row_count,
                      FM_CAS_ROW_BYTES) ||
        !extent_valid(header, header->shape_address, header->shape_count,
                      FM_CAS_SHAPE_BYTES) ||
        !extent_valid(header, header->pack_address, header->pack_bytes, 1)) {
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "header: index or data outside the file");
    }
    return FM_OK;
}

fm_status_t fm_cas_header_decode(const uint8_t *bytes, uint64_t file_bytes,
                                 fm_cas_header_t *header_out, fm_error_t *err)
{
    fm_cas_header_t header = {0};
    fm_reader_t tail = {.data = bytes + FM_CAS_HEADER_BYTES - 8, .len = 8};
    fm_reader_t in = {.data = bytes, .len = FM_CAS_HEADER_BYTES};

    if (memcmp(fm_read_bytes(&in, sizeof(magic)), magic, sizeof(magic)) != 0) {
        return fm_error_set(err, FM_ERR_CORRUPT, "header: bad magic");
    }
    if (fm_read_u64(&tail) != fm_hash64(bytes, FM_CAS_HEADER_BYTES - 8)) {
        return fm_error_set(err, FM_ERR_CORRUPT, "header: bad checksum");
    }
    uint32_t version = fm_read_u32(&in);
    uint32_t header_bytes = fm_read_u32(&in);
    if (version != FM_CAS_FORMAT_VERSION ||
        header_bytes != FM_CAS_HEADER_BYTES) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "segment format %" PRIu32 ", this program reads "
                            "%d: use a newer one",
                            version, FM_CAS_FORMAT_VERSION);
    }
    header.file_bytes = fm_read_u64(&in);
    header.row_address = fm_read_u64(&in);
    header.row_count = fm_read_u64(&in);
    header.shape_address = fm_read_u64(&in);
    header.shape_count = fm_read_u64(&in);
    header.pack_address = fm_read_u64(&in);
    header.pack_bytes = fm_read_u64(&in);
    header.index_hash = fm_read_u64(&in);
    header.meta_hash = fm_read_u64(&in);
    header.created_ns = (int64_t)fm_read_u64(&in);
    memcpy(header.writer, fm_read_bytes(&in, sizeof(header.writer)),
           sizeof(header.writer) - 1);
    fm_status_t rc = header_check(&header, file_bytes, err);
    if (rc >= 0) {
        *header_out = header;
    }
    return rc;
}

void fm_cas_row_encode(const fm_cas_row_t *row, fm_buf_t *out)
{
    fm_buf_add(out, row->digest.bytes, sizeof(row->digest.bytes));
    fm_buf_add_u64(out, row->address);
    fm_buf_add_u64(out, row->length);
    fm_buf_add_u64(out, row->offset);
    fm_buf_add_u32(out, row->shape);
    fm_buf_add_u8(out, row->kind);
    fm_buf_add_u8(out, row->place);
    fm_buf_add(out, "\0", 2);
}

void fm_cas_shape_encode(const fm_cas_shape_t *shape, fm_buf_t *out)
{
    fm_buf_add_u8(out, shape->dtype);
    fm_buf_add_u8(out, shape->rank);
    fm_buf_add(out, "\0\0\0\0\0", 6);
    for (size_t i = 0; i < FM_CAS_RANK_MAX; i++) {
        fm_buf_add_u64(out, i < shape->rank ? shape->dims[i] : 0);
    }
}

fm_status_t fm_cas_shape_decode(const uint8_t *bytes, fm_cas_shape_t *shape_out,
                                fm_error_t *err)
{
    fm_reader_t in = {.data = bytes, .len = FM_CAS_SHAPE_BYTES};
    fm_cas_shape_t shape = {.dtype = fm_read_u8(&in), .rank = fm_read_u8(&in)};
    uint64_t size = 0;

    (void)fm_read_bytes(&in, 6);
    for (size_t i = 0; i < FM_CAS_RANK_MAX; i++) {
        shape.dims[i] = fm_read_u64(&in);
    }
    if (!fm_cas_shape_bytes(&shape, &size)) {
        return fm_error_set(err, FM_ERR_CORRUPT, "index: impossible shape");
    }
    *shape_out = shape;
    return FM_OK;
}

static bool row_place_valid(const fm_cas_row_t *row,
                            const fm_cas_header_t *header,
                            const fm_cas_shape_t *shapes)
{
    uint64_t bytes = 0;

    switch (row->place) {
    case FM_CAS_PLACE_DATA:
        return row->kind != FM_CAS_TENSOR && row->shape == FM_CAS_SHAPE_NONE &&
               row->offset <= header->pack_bytes &&
               row->length <= header->pack_bytes - row->offset &&
               row->address == header->pack_address + row->offset;
    case FM_CAS_PLACE_BLOB:
        return row->kind != FM_CAS_TENSOR && row->shape == FM_CAS_SHAPE_NONE &&
               row->offset == 0;
    case FM_CAS_PLACE_TENSOR:
        return row->kind == FM_CAS_TENSOR && row->offset == 0 &&
               row->shape < header->shape_count &&
               fm_cas_shape_bytes(&shapes[row->shape], &bytes) &&
               bytes == row->length;
    default:
        return false;
    }
}

fm_status_t fm_cas_row_decode(const uint8_t *bytes,
                              const fm_cas_header_t *header,
                              const fm_cas_shape_t *shapes,
                              fm_cas_row_t *row_out, fm_error_t *err)
{
    fm_reader_t in = {.data = bytes, .len = FM_CAS_ROW_BYTES};
    fm_cas_row_t row;

    memcpy(row.digest.bytes, fm_read_bytes(&in, sizeof(row.digest.bytes)),
           sizeof(row.digest.bytes));
    row.address = fm_read_u64(&in);
    row.length = fm_read_u64(&in);
    row.offset = fm_read_u64(&in);
    row.shape = fm_read_u32(&in);
    row.kind = fm_read_u8(&in);
    row.place = fm_read_u8(&in);
    if (row.length > FM_CAS_OBJECT_BYTES_MAX ||
        !extent_valid(header, row.address, row.length, 1) ||
        row.kind >= FM_CAS_KIND_COUNT ||
        !row_place_valid(&row, header, shapes)) {
        char text[FM_DIGEST_TEXT_BYTES];
        return fm_error_set(err, FM_ERR_CORRUPT,
                            "index: impossible entry for %s",
                            fm_digest_format(&row.digest, text));
    }
    *row_out = row;
    return FM_OK;
}

char *fm_cas_locator_format(const fm_cas_locator_t *locator, char *text)
{
    (void)snprintf(text, FM_CAS_LOCATOR_TEXT_BYTES,
                   "%.95s:%.79s:%" PRIu64 ":%" PRIu64, locator->segment,
                   locator->dataset, locator->offset, locator->length);
    return text;
}

/* Decimal without sign, space or leading zero, up to the byte end. */
static bool number_parse(const char *text, char end, uint64_t *value_out,
                         const char **end_out)
{
    uint64_t value = 0;
    const char *at = text;

    for (; *at >= '0' && *at <= '9'; at++) {
        uint64_t digit = (uint64_t)(*at - '0');
        if (value > (UINT64_MAX - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    if (at == text || (*text == '0' && at - text > 1) || *at != end) {
        return false;
    }
    *value_out = value;
    *end_out = at;
    return true;
}

static bool dataset_valid(const char *name)
{
    fm_digest_t digest;
    char text[FM_DIGEST_TEXT_BYTES] = "sha256:";
    const char *hex = strncmp(name, "/blobs/", 7) == 0     ? name + 7
                      : strncmp(name, "/tensors/", 9) == 0 ? name + 9
                                                           : NULL;

    if (!hex) {
        return strcmp(name, "/objects/data") == 0;
    }
    if (strlen(hex) != 64) {
        return false;
    }
    memcpy(text + 7, hex, 65);
    return fm_digest_parse(text, &digest);
}

bool fm_cas_locator_parse(const char *text, fm_cas_locator_t *locator_out)
{
    fm_cas_locator_t locator = {0};
    size_t segment_len = strcspn(text, ":");

    if (segment_len >= sizeof(locator.segment) || text[segment_len] != ':') {
        return false;
    }
    memcpy(locator.segment, text, segment_len);
    const char *dataset = text + segment_len + 1;
    size_t dataset_len = strcspn(dataset, ":");
    if (dataset_len >= sizeof(locator.dataset) || dataset[dataset_len] != ':') {
        return false;
    }
    memcpy(locator.dataset, dataset, dataset_len);
    const char *at = dataset + dataset_len;
    if (!number_parse(at + 1, ':', &locator.offset, &at) ||
        !number_parse(at + 1, '\0', &locator.length, &at) ||
        locator.length > FM_CAS_OBJECT_BYTES_MAX ||
        !fm_cas_segment_name_valid(locator.segment) ||
        !dataset_valid(locator.dataset)) {
        return false;
    }
    *locator_out = locator;
    return true;
}
