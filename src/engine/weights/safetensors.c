/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading safetensors.  Invariant of an open file: tensors are sorted by
 * begin, the first begins at 0, each begins where the one before ends, and the
 * last ends with the file; bytes are those of dtype and shape.
 */
#include "engine/weights/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/mem.h"

#define LENGTH_BYTES 8u
#define METADATA "__metadata__"
/* One read() at most: the kernel gives no more than 2 GiB at once. */
#define READ_BYTES ((size_t)1 << 30)

struct fm_engine_safetensors {
    char *what;        /* path, or the name given */
    int fd;            /* -1: a header in memory */
    uint64_t start;    /* of the data in the file */
    fm_json_t *header; /* owns names and dtypes */
    fm_engine_safetensor_t *tensors;
    const fm_engine_safetensor_t **by_name;
    size_t count;
};

static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {{"F64", 8},     {"I64", 8},     {"U64", 8}, {"F32", 4},
              {"I32", 4},     {"U32", 4},     {"F16", 2}, {"BF16", 2},
              {"I16", 2},     {"U16", 2},     {"I8", 1},  {"U8", 1},
              {"F8_E4M3", 1}, {"F8_E5M2", 1}, {"BOOL", 1}};

size_t fm_engine_safetensors_dtype_bytes(const char *dtype)
{
    for (size_t i = 0; dtype && i < FM_COUNT_OF(dtypes); i++) {
        if (strcmp(dtypes[i].name, dtype) == 0) {
            return dtypes[i].bytes;
        }
    }
    return 0;
}

/* --- header --------------------------------------------------------------- */

static fm_status_t shape_read(const fm_json_t *shape,
                              fm_engine_safetensor_t *tensor, fm_error_t *err)
{
    if (!fm_json_is(shape, FM_JSON_ARRAY)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "shape: want a list of numbers");
    }
    tensor->rank = fm_json_len(shape);
    if (tensor->rank > FM_ENGINE_SAFETENSORS_RANK_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "shape: %zu dimensions; at most %d are read",
                            tensor->rank, FM_ENGINE_SAFETENSORS_RANK_MAX);
    }
    for (size_t i = 0; i < tensor->rank; i++) {
        int64_t extent = fm_json_int_or(fm_json_at(shape, i), -1);
        if (extent < 0) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "shape[%zu]: want a number of at least 0", i);
        }
        tensor->shape[i] = (uint64_t)extent;
    }
    return FM_OK;
}

/* Bytes of dtype and shape; false when they pass 2^63. */
static bool shape_bytes(const fm_engine_safetensor_t *tensor,
                        uint64_t *bytes_out)
{
    uint64_t bytes = fm_engine_safetensors_dtype_bytes(tensor->dtype);
    bool empty = false;

    for (size_t i = 0; i < tensor->rank; i++) {
        empty = empty || tensor->shape[i] == 0;
    }
    for (size_t i = 0; !empty && i < tensor->rank; i++) {
        if (tensor->shape[i] > (uint64_t)INT64_MAX / bytes) {
            return false;
        }
        bytes *= tensor->shape[i];
    }
    *bytes_out = empty ? 0 : bytes;
    return true;
}

static fm_status_t offsets_read(const fm_json_t *offsets, uint64_t data_bytes,
                                fm_engine_safetensor_t *tensor, fm_error_t *err)
{
    int64_t begin = fm_json_int_or(fm_json_at(offsets, 0), -1);
    int64_t end = fm_json_int_or(fm_json_at(offsets, 1), -1);
    uint64_t bytes = 0;

    if (fm_json_len(offsets) != 2 || begin < 0 || end < begin) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "data_offsets: want [begin, end] with 0 <= begin "
                            "<= end");
    }
    if ((uint64_t)end > data_bytes) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "data_offsets: it ends at byte %" PRId64
                            " of data, but the file has %" PRIu64
                            ": the file was cut short; copy it again",
                            end, data_bytes);
    }
    tensor->begin = (uint64_t)begin;
    tensor->bytes = (uint64_t)(end - begin);
    if (!shape_bytes(tensor, &bytes) || bytes != tensor->bytes) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "data_offsets: %" PRIu64
                            " bytes; %s of its shape takes %" PRIu64,
                            tensor->bytes, tensor->dtype, bytes);
    }
    return FM_OK;
}

static fm_status_t tensor_read(const char *name, const fm_json_t *value,
                               uint64_t data_bytes,
                               fm_engine_safetensor_t *tensor, fm_error_t *err)
{
    fm_status_t rc;

    if (!*name || strlen(name) > FM_ENGINE_SAFETENSORS_NAME_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "a tensor's name has 1 to %d bytes",
                            FM_ENGINE_SAFETENSORS_NAME_MAX);
    }
    if (!fm_json_is(value, FM_JSON_OBJECT)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "want {\"dtype\", \"shape\", \"data_offsets\"}");
    }
    tensor->name = name;
    tensor->dtype = fm_json_get_str(value, "dtype");
    if (!tensor->dtype) {
        return fm_error_set(err, FM_ERR_INVALID, "dtype: want a text");
    }
    if (!fm_engine_safetensors_dtype_bytes(tensor->dtype)) {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "dtype: \"%.32s\" is not known here; convert the "
                            "file to F32, F16 or BF16",
                            tensor->dtype);
    }
    if ((rc = shape_read(fm_json_get(value, "shape"), tensor, err)) < 0) {
        return rc;
    }
    return offsets_read(fm_json_get(value, "data_offsets"), data_bytes, tensor,
                        err);
}

static int begin_order(const void *a, const void *b)
{
    const fm_engine_safetensor_t *x = a;
    const fm_engine_safetensor_t *y = b;

    if (x->begin != y->begin) {
        return x->begin < y->begin ? -1 : 1;
    }
    if (x->bytes != y->bytes) { /* empty ones first */
        return x->bytes < y->bytes ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

static int name_order(const void *a, const void *b)
{
    const fm_engine_safetensor_t *const *x = a;
    const fm_engine_safetensor_t *const *y = b;

    return strcmp((*x)->name, (*y)->name);
}

/* Sorted tensors must tile the data: no hole, no overlap. */
static fm_status_t tiling_check(const fm_engine_safetensors_t *file,
                                uint64_t data_bytes, fm_error_t *err)
{
    uint64_t at = 0;

    for (size_t i = 0; i < file->count; i++) {
        const fm_engine_safetensor_t *tensor = &file->tensors[i];
        if (tensor->begin < at) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%s: its data overlaps that of %s",
                                tensor->name, file->tensors[i - 1].name);
        }
        if (tensor->begin > at) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%s: %" PRIu64
                                " bytes before its data belong to no tensor",
                                tensor->name, tensor->begin - at);
        }
        at += tensor->bytes;
    }
    if (at != data_bytes) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%" PRIu64 " bytes at its end belong to no tensor",
                            data_bytes - at);
    }
    return FM_OK;
}

static fm_status_t metadata_check(const fm_json_t *metadata, fm_error_t *err)
{
    void *at = NULL;
    const char *key = NULL;
    fm_json_t *value = NULL;
    bool good = fm_json_is(metadata, FM_JSON_OBJECT);

    while (good && fm_json_next(metadata, &at, &key, &value)) {
        good = fm_json_is(value, FM_JSON_STRING);
    }
    return good ? FM_OK
                : fm_error_set(err, FM_ERR_INVALID,
                               METADATA ": want an object of texts");
}

static fm_status_t tensors_read(fm_engine_safetensors_t *file,
                                uint64_t data_bytes, fm_error_t *err)
{
    size_t members = fm_json_len(file->header);
    void *at = NULL;
    const char *name = NULL;
    fm_json_t *value = NULL;
    fm_status_t rc = FM_OK;

    file->tensors = fm_calloc(members + 1, sizeof(*file->tensors));
    file->by_name = fm_calloc(members + 1, sizeof(*file->by_name));
    if (!file->tensors || !file->by_name) {
        return fm_no_memory(err);
    }
    while (rc >= 0 && fm_json_next(file->header, &at, &name, &value)) {
        if (strcmp(name, METADATA) == 0) {
            rc = metadata_check(value, err);
            continue;
        }
        rc = tensor_read(name, value, data_bytes, &file->tensors[file->count++],
                         err);
        if (rc < 0) {
            fm_error_wrap(err, "tensor %.200s", name);
        }
    }
    if (rc < 0) {
        return rc;
    }
    qsort(file->tensors, file->count, sizeof(*file->tensors), begin_order);
    for (size_t i = 0; i < file->count; i++) {
        file->by_name[i] = &file->tensors[i];
    }
    qsort((void *)file->by_name, file->count, sizeof(*file->by_name),
          name_order);
    return tiling_check(file, data_bytes, err);
}

fm_status_t fm_engine_safetensors_parse(const void *header, size_t len,
                                        uint64_t data_bytes, const char *what,
                                        fm_engine_safetensors_t **file_out,
                                        fm_error_t *err)
{
    fm_engine_safetensors_t *file = fm_calloc(1, sizeof(*file));
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!file) {
        return fm_no_memory(err);
    }
    file->fd = -1;
    if (!(file->what = fm_strdup(what))) {
        (void)fm_no_memory(err);
        goto out;
    }
    if ((rc = fm_json_parse(header, len, "header", &file->header, err)) >= 0) {
        rc = fm_json_is(file->header, FM_JSON_OBJECT)
                 ? tensors_read(file, data_bytes, err)
                 : fm_error_set(err, FM_ERR_INVALID,
                                "header: want an object of tensors");
    }
    if (rc < 0) {
        fm_error_wrap(err, "%s", what);
        goto out;
    }
    *file_out = file;
    file = NULL;
out:
    fm_engine_safetensors_close(file);
    return rc;
}

/* --- file ----------------------------------------------------------------- */

static fm_status_t range_read(int fd, uint64_t offset, void *data, size_t len,
                              fm_error_t *err)
{
    uint8_t *to = data;

    while (len > 0) {
        ssize_t n =
            pread(fd, to, len < READ_BYTES ? len : READ_BYTES, (off_t)offset);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return fm_error_set_errno(err, FM_ERR_IO, errno, "read");
        }
        if (n == 0) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "the file was cut short while it was read");
        }
        to += n;
        offset += (uint64_t)n;
        len -= (size_t)n;
    }
    return FM_OK;
}

/* The length of the header, checked against the file's. */
static fm_status_t length_read(int fd, uint64_t file_bytes, size_t *len_out,
                               fm_error_t *err)
{
    uint8_t bytes[LENGTH_BYTES];
    uint64_t len = 0;
    fm_status_t rc;

    if (file_bytes < LENGTH_BYTES) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%" PRIu64 " bytes: too short for safetensors",
                            file_bytes);
    }
    if ((rc = range_read(fd, 0, bytes, sizeof(bytes), err)) < 0) {
        return rc;
    }
    for (size_t i = LENGTH_BYTES; i-- > 0;) {
        len = len << 8 | bytes[i];
    }
    if (len > FM_ENGINE_SAFETENSORS_HEADER_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "its first 8 bytes give a header of %" PRIu64
                            " bytes; safetensors allows %zu: is it another "
                            "kind of file?",
                            len, FM_ENGINE_SAFETENSORS_HEADER_MAX);
    }
    if (len > file_bytes - LENGTH_BYTES) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a header of %" PRIu64 " bytes in a file of "
                            "%" PRIu64 ": the file was cut short; copy it "
                            "again",
                            len, file_bytes);
    }
    *len_out = (size_t)len;
    return FM_OK;
}

fm_status_t fm_engine_safetensors_open(const char *path,
                                       fm_engine_safetensors_t **file_out,
                                       fm_error_t *err)
{
    struct stat info;
    char *header = NULL;
    size_t len = 0;
    fm_status_t rc = FM_OK;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0) {
        return fm_error_set_errno(
            err, errno == ENOENT ? FM_ERR_NOT_FOUND : FM_ERR_IO, errno,
            "open %s", path);
    }
    if (fstat(fd, &info) != 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "look at it");
    } else if (!S_ISREG(info.st_mode)) {
        rc = fm_error_set(err, FM_ERR_INVALID, "not a regular file");
    } else {
        rc = length_read(fd, (uint64_t)info.st_size, &len, err);
    }
    if (rc >= 0 && !(header = fm_malloc(len + 1))) {
        rc = fm_no_memory(err);
    }
    if (rc >= 0) {
        rc = range_read(fd, LENGTH_BYTES, header, len, err);
    }
    if (rc < 0) {
        fm_error_wrap(err, "%s", path);
    } else {
        rc = fm_engine_safetensors_parse(
            header, len, (uint64_t)info.st_size - LENGTH_BYTES - len, path,
            file_out, err);
    }
    free(header);
    if (rc < 0) {
        (void)close(fd);
        return rc;
    }
    (*file_out)->fd = fd;
    (*file_out)->start = LENGTH_BYTES + len;
    return FM_OK;
}

void *fm_engine_safetensors_close(fm_engine_safetensors_t *file)
{
    if (file) {
        if (file->fd >= 0) {
            (void)close(file->fd);
        }
        fm_json_drop(file->header);
        free((void *)file->by_name);
        free(file->tensors);
        free(file->what);
        free(file);
    }
    return NULL;
}

size_t fm_engine_safetensors_count(const fm_engine_safetensors_t *file)
{
    return file->count;
}

const fm_engine_safetensor_t *
fm_engine_safetensors_at(const fm_engine_safetensors_t *file, size_t index)
{
    return index < file->count ? &file->tensors[index] : NULL;
}

const fm_engine_safetensor_t *
fm_engine_safetensors_find(const fm_engine_safetensors_t *file,
                           const char *name)
{
    const fm_engine_safetensor_t key = {.name = name};
    const fm_engine_safetensor_t *wanted = &key;
    const fm_engine_safetensor_t **found =
        bsearch(&wanted, (const void *)file->by_name, file->count,
                sizeof(*file->by_name), name_order);

    return found ? *found : NULL;
}

fm_status_t fm_engine_safetensors_read(const fm_engine_safetensors_t *file,
                                       const fm_engine_safetensor_t *tensor,
                                       void *data, fm_error_t *err)
{
    fm_status_t rc = range_read(file->fd, file->start + tensor->begin, data,
                                (size_t)tensor->bytes, err);

    if (rc < 0) {
        fm_error_wrap(err, "%s: tensor %.200s", file->what, tensor->name);
    }
    return rc;
}
