/* SPDX-License-Identifier: Apache-2.0 */
/* Writing safetensors: the header first, then data as it comes. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/file.h"
#include "base/mem.h"
#include "engine/weights/safetensors.h"

#define ALIGN_BYTES 8u
/* One write(): a single one of many MiB was measured to be slower. */
#define WRITE_BYTES ((size_t)1 << 20)

struct fm_engine_safetensors_writer {
    char *path;
    int fd;
    uint64_t due; /* bytes of data still to come */
    bool finished;
};

int fm_engine_safetensors_order(const void *a, const void *b)
{
    const fm_engine_safetensor_t *x = a;
    const fm_engine_safetensor_t *y = b;
    size_t wide = fm_engine_safetensors_dtype_bytes(x->dtype);
    size_t other = fm_engine_safetensors_dtype_bytes(y->dtype);

    if (wide != other) {
        return wide > other ? -1 : 1;
    }
    return strcmp(x->name, y->name);
}

/* A JSON text of @p name; names may hold any character. */
static void quoted_add(fm_buf_t *buf, const char *name)
{
    fm_json_t *value = fm_json_string(name);
    char *text = value ? fm_json_dump(value) : NULL;

    if (text) {
        fm_buf_add_str(buf, text);
    } else {
        buf->failed = true;
    }
    free(text);
    fm_json_drop(value);
}

static void tensor_add(fm_buf_t *buf, const fm_engine_safetensor_t *tensor,
                       uint64_t *at)
{
    uint64_t bytes = fm_engine_safetensors_dtype_bytes(tensor->dtype);

    fm_buf_add_str(buf, ",");
    quoted_add(buf, tensor->name);
    fm_buf_printf(buf, ":{\"dtype\":\"%s\",\"shape\":[", tensor->dtype);
    for (size_t i = 0; i < tensor->rank; i++) {
        fm_buf_printf(buf, "%s%" PRIu64, i ? "," : "", tensor->shape[i]);
        bytes *= tensor->shape[i];
    }
    fm_buf_printf(buf, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", *at,
                  *at + bytes);
    *at += bytes;
}

static void header_make(const fm_engine_safetensor_t *tensors, size_t count,
                        fm_buf_t *header, uint64_t *data_bytes_out)
{
    fm_buf_t text = {0};
    uint64_t at = 0;

    fm_buf_add_str(&text, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < count; i++) {
        tensor_add(&text, &tensors[i], &at);
    }
    fm_buf_add_str(&text, "}");
    while (!text.failed && text.len % ALIGN_BYTES != 0) {
        fm_buf_add_str(&text, " ");
    }
    fm_buf_add_u64(header, text.len);
    fm_buf_add(header, text.data, text.len);
    header->failed = header->failed || text.failed;
    fm_buf_fini(&text);
    *data_bytes_out = at;
}

fm_status_t fm_engine_safetensors_create(
    const char *path, const fm_engine_safetensor_t *tensors, size_t count,
    fm_engine_safetensors_writer_t **writer_out, fm_error_t *err)
{
    fm_engine_safetensors_writer_t *writer = fm_calloc(1, sizeof(*writer));
    fm_buf_t header = {0};
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!writer) {
        return fm_no_memory(err);
    }
    writer->fd = -1;
    header_make(tensors, count, &header, &writer->due);
    if (header.failed || !(writer->path = fm_strdup(path))) {
        (void)fm_no_memory(err);
        goto out;
    }
    writer->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (writer->fd < 0) {
        writer->finished = true; /* not ours to remove */
        rc =
            fm_error_set_errno(err, errno == EEXIST ? FM_ERR_EXISTS : FM_ERR_IO,
                               errno, "create %s", path);
        goto out;
    }
    if ((rc = fm_file_write_all(writer->fd, header.data, header.len, path,
                                err)) < 0) {
        goto out;
    }
    *writer_out = writer;
    writer = NULL;
out:
    fm_buf_fini(&header);
    fm_engine_safetensors_destroy(writer);
    return rc;
}

fm_status_t fm_engine_safetensors_append(fm_engine_safetensors_writer_t *writer,
                                         const void *data, size_t len,
                                         fm_error_t *err)
{
    const uint8_t *from = data;
    fm_status_t rc = FM_OK;

    if (len > writer->due) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: more data than its header says", writer->path);
    }
    writer->due -= len;
    while (len > 0 && rc >= 0) {
        size_t piece = len < WRITE_BYTES ? len : WRITE_BYTES;
        rc = fm_file_write_all(writer->fd, from, piece, writer->path, err);
        from += piece;
        len -= piece;
    }
    return rc;
}

fm_status_t fm_engine_safetensors_finish(fm_engine_safetensors_writer_t *writer,
                                         fm_error_t *err)
{
    fm_status_t rc;

    if (writer->due > 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: %" PRIu64 " bytes of data are missing",
                            writer->path, writer->due);
    }
    rc = fm_file_fsync(writer->fd, writer->path, err);
    writer->finished = rc >= 0;
    return rc;
}

void *fm_engine_safetensors_destroy(fm_engine_safetensors_writer_t *writer)
{
    if (writer) {
        if (writer->fd >= 0) {
            (void)close(writer->fd);
        }
        if (writer->path && !writer->finished) {
            (void)unlink(writer->path);
        }
        free(writer->path);
        free(writer);
    }
    return NULL;
}
