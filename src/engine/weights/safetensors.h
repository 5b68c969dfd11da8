/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file safetensors.h
 * Files of tensors in the safetensors format:
 *
 *   8 bytes   length of the header, little-endian
 *   header    JSON: {"__metadata__": {text: text}, NAME: {"dtype", "shape",
 *             "data_offsets": [begin, end]}, …}, may end in blanks
 *   data      the tensors, without gaps, offsets counted from here
 *
 * A file is from outside: everything is checked before a tensor is read, and
 * a refusal names the file, the tensor and what would be right.  Memory of a
 * reader is its header's, 20 times its text at worst; data is read into the
 * caller's memory, a tensor at a time.
 *
 * Threads: one at a time.
 */
#ifndef FM_ENGINE_WEIGHTS_SAFETENSORS_H
#define FM_ENGINE_WEIGHTS_SAFETENSORS_H

#include "base/json.h"

/** Longest header, as the format says. */
#define FM_ENGINE_SAFETENSORS_HEADER_MAX ((size_t)100000000)
/** Dimensions of a tensor at most. */
#define FM_ENGINE_SAFETENSORS_RANK_MAX 8
/** Bytes of a tensor's name at most: far more than any model has. */
#define FM_ENGINE_SAFETENSORS_NAME_MAX 512

/** One tensor of a file. */
typedef struct fm_engine_safetensor {
    const char *name;
    const char *dtype; /**< as spelled: "F32", "F16", "BF16", "I64", … */
    size_t rank;
    uint64_t shape[FM_ENGINE_SAFETENSORS_RANK_MAX];
    uint64_t begin; /**< of the data, from the start of the data part */
    uint64_t bytes;
} fm_engine_safetensor_t;

typedef struct fm_engine_safetensors fm_engine_safetensors_t;

/**
 * Open a file and check all of its header.
 * @retval FM_ERR_NOT_FOUND, FM_ERR_IO
 * @retval FM_ERR_INVALID      it breaks the format; nothing was read.
 * @retval FM_ERR_UNSUPPORTED  a dtype that is not known.
 * @retval FM_ERR_LIMIT        the header, a name or a rank passes its bound.
 */
FM_MUST_USE fm_status_t fm_engine_safetensors_open(
    const char *path, fm_engine_safetensors_t **file_out, fm_error_t *err);
/**
 * The same for a header in memory, without data to read.
 * @param header      the JSON text, [len] bytes.
 * @param data_bytes  what follows it in the file.
 * @param what        name of the file for error text; copied.
 */
FM_MUST_USE fm_status_t fm_engine_safetensors_parse(
    const void *header, size_t len, uint64_t data_bytes, const char *what,
    fm_engine_safetensors_t **file_out, fm_error_t *err);
/** NULL is ignored; returns NULL. */
void *fm_engine_safetensors_close(fm_engine_safetensors_t *file);

size_t fm_engine_safetensors_count(const fm_engine_safetensors_t *file);
/** By number, in the order of the data; owned by the file. */
const fm_engine_safetensor_t *
fm_engine_safetensors_at(const fm_engine_safetensors_t *file, size_t index);
/** By name; NULL when there is none. */
const fm_engine_safetensor_t *
fm_engine_safetensors_find(const fm_engine_safetensors_t *file,
                           const char *name);
/**
 * Read one tensor.
 * @param data  [tensor->bytes]; undefined on failure.
 * @retval FM_ERR_IO       the file could not be read.
 * @retval FM_ERR_INVALID  it was cut short since it was opened.
 */
FM_MUST_USE fm_status_t fm_engine_safetensors_read(
    const fm_engine_safetensors_t *file, const fm_engine_safetensor_t *tensor,
    void *data, fm_error_t *err);

/** Bytes of an element; 0 for a dtype that is not known. */
size_t fm_engine_safetensors_dtype_bytes(const char *dtype);

/* --- writing --------------------------------------------------------------
 */

typedef struct fm_engine_safetensors_writer fm_engine_safetensors_writer_t;

/**
 * Start a new file; its header is written at once.
 *
 * Tensors lie in the order given; fm_engine_safetensors_order() is the one
 * that other writers of the format use, so that equal content gives equal
 * bytes.  The header is padded with blanks to a multiple of 8.
 *
 * @param path     must not exist.
 * @param tensors  [count]; begin and bytes are not looked at.
 * @retval FM_ERR_EXISTS
 */
FM_MUST_USE fm_status_t fm_engine_safetensors_create(
    const char *path, const fm_engine_safetensor_t *tensors, size_t count,
    fm_engine_safetensors_writer_t **writer_out, fm_error_t *err);
/** Append data of the tensors in their order, in pieces of any size. */
FM_MUST_USE fm_status_t
fm_engine_safetensors_append(fm_engine_safetensors_writer_t *writer,
                             const void *data, size_t len, fm_error_t *err);
/** Make the file durable.  @retval FM_ERR_INVALID  data is missing. */
FM_MUST_USE fm_status_t fm_engine_safetensors_finish(
    fm_engine_safetensors_writer_t *writer, fm_error_t *err);
/** Close; a file that was not finished is removed.  NULL is ignored. */
void *fm_engine_safetensors_destroy(fm_engine_safetensors_writer_t *writer);

/** For qsort(): widest elements first, then by name. */
int fm_engine_safetensors_order(const void *a, const void *b);

#endif
