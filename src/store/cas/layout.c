/* SPDX-License-Identifier: Apache-2.0 */
/*
 * With types.c the only user of HDF5 in this program.  Every dataset is
 * contiguous and allocated early, so its address is known before its bytes are
 * written, and never filled.  Structure and index are allocated before the
 * first object: they lie at the head of the file, and only the head is ever
 * written, so the image in memory stays as small as they are.
 */
#include "store/cas/layout.h"

#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fault.h"
#include "base/mem.h"
#include "store/cas/types.h"

/* Objects of this size start on a page, for direct I/O and mmap. */
#define ALIGN_FROM_BYTES 65536
#define ALIGN_BYTES 4096
/* HDF5 structure a dataset of its own needs, measured, rounded up: one block
 * of this many bytes keeps structure together at the head of the file. */
#define STRUCTURE_BYTES_PER_DATASET 512
#define STRUCTURE_BYTES_MIN 8192
#define IMAGE_STEP_BYTES 4096

static herr_t error_first(unsigned n, const H5E_error2_t *entry, void *ctx)
{
    if (n == 0 && entry->desc) {
        (void)snprintf(ctx, 200, "%s", entry->desc);
    }
    return 0;
}

static fm_status_t hdf5_failed(fm_error_t *err, const char *what)
{
    char cause[200] = "no reason given";

    (void)H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, error_first, cause);
    (void)H5Eclear2(H5E_DEFAULT);
    return fm_error_set(err, FM_ERR_IO, "HDF5: %s: %s", what, cause);
}

/* Create a contiguous dataset; its address is 0 when it has no bytes. */
static fm_status_t dataset_add(hid_t file, hid_t dcpl, const char *name,
                               hid_t type, size_t rank, const uint64_t *dims,
                               uint64_t *address_out, fm_error_t *err)
{
    hsize_t extents[FM_CAS_RANK_MAX] = {0};
    bool empty = false;

    for (size_t i = 0; i < rank; i++) {
        extents[i] = dims[i];
        empty = empty || dims[i] == 0;
    }
    hid_t space = rank > 0 ? H5Screate_simple((int)rank, extents, NULL)
                           : H5Screate(H5S_SCALAR);
    hid_t set = space < 0 || type < 0
                    ? -1
                    : H5Dcreate2(file, name, type, space, H5P_DEFAULT, dcpl,
                                 H5P_DEFAULT);
    fm_status_t rc = set < 0 ? hdf5_failed(err, name) : FM_OK;

    if (rc >= 0 && !empty) {
        haddr_t address = H5Dget_offset(set);
        if (address == HADDR_UNDEF) {
            rc = hdf5_failed(err, name);
        }
        *address_out = address;
    } else if (rc >= 0) {
        *address_out = 0;
    }
    if (set >= 0) {
        (void)H5Dclose(set);
    }
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    return rc;
}

static bool attribute_add(hid_t at, const char *name, hid_t type,
                          const void *data)
{
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute =
        space < 0 || type < 0
            ? -1
            : H5Acreate2(at, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    bool ok = attribute >= 0 && H5Awrite(attribute, type, data) >= 0;

    if (attribute >= 0) {
        (void)H5Aclose(attribute);
    }
    if (space >= 0) {
        (void)H5Sclose(space);
    }
    return ok;
}

static bool attribute_add_text(hid_t at, const char *name, const char *text)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    bool ok = type >= 0 && H5Tset_size(type, strlen(text) + 1) >= 0 &&
              H5Tset_cset(type, H5T_CSET_UTF8) >= 0 &&
              attribute_add(at, name, type, text);

    (void)H5Tclose(type);
    return ok;
}

static bool root_write(hid_t file, const char *writer, const char *fabric,
                       int64_t created_ns)
{
    static const char *const groups[] = {"/objects", "/blobs", "/tensors"};
    char created[40];
    uint32_t version = FM_CAS_FORMAT_VERSION;

    for (size_t i = 0; i < FM_COUNT_OF(groups); i++) {
        hid_t group =
            H5Gcreate2(file, groups[i], H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
        if (group < 0) {
            return false;
        }
        (void)H5Gclose(group);
    }
    fm_clock_format(created_ns, created, sizeof(created));
    return attribute_add_text(file, "format", "flowmesh.segment") &&
           attribute_add(file, "version", H5T_NATIVE_UINT32, &version) &&
           attribute_add_text(file, "writer", writer) &&
           attribute_add_text(file, "fabric", fabric) &&
           attribute_add_text(file, "created", created);
}

/* Place every part: fills row.address, row.offset. */
static fm_status_t parts_place(hid_t file, hid_t dcpl, fm_cas_part_t *parts,
                               size_t part_count, fm_cas_header_t *header,
                               fm_error_t *err)
{
    fm_status_t rc = FM_OK;
    char name[80];

    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].row.place == FM_CAS_PLACE_DATA) {
            parts[i].row.offset = header->pack_bytes;
            header->pack_bytes += parts[i].row.length;
        }
    }
    rc = dataset_add(file, dcpl, "/objects/data", H5T_STD_U8LE, 1,
                     &header->pack_bytes, &header->pack_address, err);
    for (size_t i = 0; i < part_count && rc >= 0; i++) {
        fm_cas_row_t *row = &parts[i].row;
        const fm_cas_shape_t *shape = parts[i].shape;
        if (row->place == FM_CAS_PLACE_DATA) {
            row->address = header->pack_address + row->offset;
            continue;
        }
        (void)fm_cas_dataset_name((fm_cas_place_t)row->place, &row->digest,
                                  name);
        hid_t type = shape
                         ? fm_cas_h5_element_type((fm_cas_dtype_t)shape->dtype)
                         : H5Tcopy(H5T_STD_U8LE);
        rc =
            dataset_add(file, dcpl, name, type, shape ? shape->rank : 1,
                        shape ? shape->dims : &row->length, &row->address, err);
        (void)H5Tclose(type);
    }
    return rc;
}

/* Allocate /objects/index and /objects/shapes. */
static fm_status_t index_create(hid_t file, hid_t dcpl,
                                const fm_cas_part_t *parts, size_t part_count,
                                fm_cas_header_t *header, fm_error_t *err)
{
    hid_t row = fm_cas_h5_row_type();
    hid_t shape = fm_cas_h5_shape_type();

    header->row_count = part_count;
    for (size_t i = 0; i < part_count; i++) {
        header->shape_count += parts[i].shape ? 1 : 0;
    }
    fm_status_t rc = dataset_add(file, dcpl, "/objects/index", row, 1,
                                 &header->row_count, &header->row_address, err);
    if (rc >= 0) {
        rc = dataset_add(file, dcpl, "/objects/shapes", shape, 1,
                         &header->shape_count, &header->shape_address, err);
    }
    (void)H5Tclose(row);
    (void)H5Tclose(shape);
    return rc;
}

/* Write all of a dataset, from bytes as the file has them. */
static fm_status_t dataset_write(hid_t file, const char *name,
                                 const uint8_t *bytes, fm_error_t *err)
{
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    hid_t type = set < 0 ? -1 : H5Dget_type(set);
    fm_status_t rc = FM_OK;

    if (type < 0 ||
        H5Dwrite(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, bytes) < 0) {
        rc = hdf5_failed(err, name);
    }
    if (type >= 0) {
        (void)H5Tclose(type);
    }
    /* The close writes what H5Dwrite() buffered. */
    if (set >= 0 && H5Dclose(set) < 0 && rc >= 0) {
        rc = hdf5_failed(err, name);
    }
    return rc;
}

static fm_status_t index_write(hid_t file, fm_cas_part_t *parts,
                               size_t part_count, fm_cas_header_t *header,
                               fm_error_t *err)
{
    fm_buf_t bytes = {0};
    uint32_t shape = 0;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < part_count; i++) {
        parts[i].row.shape = parts[i].shape ? shape++ : FM_CAS_SHAPE_NONE;
        fm_cas_row_encode(&parts[i].row, &bytes);
    }
    size_t row_bytes = bytes.len;
    for (size_t i = 0; i < part_count; i++) {
        if (parts[i].shape) {
            fm_cas_shape_encode(parts[i].shape, &bytes);
        }
    }
    if (bytes.failed) {
        rc = fm_no_memory(err);
        goto out;
    }
    header->index_hash = fm_hash64(bytes.data, bytes.len);
    rc = dataset_write(file, "/objects/index", bytes.data, err);
    if (rc >= 0 && header->shape_count > 0) {
        rc =
            dataset_write(file, "/objects/shapes", bytes.data + row_bytes, err);
    }
out:
    fm_buf_fini(&bytes);
    return rc;
}

/* The memory HDF5 writes to: its in-memory driver asks for it here, and what
 * it gives back at the close is kept. */
struct image {
    uint8_t *bytes;
    size_t len;
    bool failed; /* memory ran out once: HDF5 may go on with a hole */
};

static void *image_malloc(size_t bytes, H5FD_file_image_op_t op, void *udata)
{
    struct image *image = udata;

    (void)op;
    image->bytes = fm_malloc(bytes);
    image->len = image->bytes ? bytes : 0;
    image->failed = image->failed || !image->bytes;
    return image->bytes;
}

static void *image_realloc(void *block, size_t bytes, H5FD_file_image_op_t op,
                           void *udata)
{
    struct image *image = udata;
    void *grown = fm_realloc(block, bytes, 1);

    (void)op;
    if (grown) {
        image->bytes = grown;
        image->len = bytes;
    }
    image->failed = image->failed || !grown;
    return grown;
}

static herr_t image_keep(void *block, H5FD_file_image_op_t op, void *udata)
{
    (void)block;
    (void)op;
    (void)udata;
    return 0;
}

static void *image_udata_share(void *udata)
{
    return udata;
}

static herr_t image_udata_keep(void *udata)
{
    (void)udata;
    return 0;
}

static void *image_copy(void *to, const void *from, size_t bytes,
                        H5FD_file_image_op_t op, void *udata)
{
    (void)op;
    (void)udata;
    return memcpy(to, from, bytes);
}

static hid_t file_create(struct image *image, size_t dataset_count,
                         fm_error_t *err)
{
    H5FD_file_image_callbacks_t callbacks = {
        .image_malloc = image_malloc,
        .image_memcpy = image_copy,
        .image_realloc = image_realloc,
        .image_free = image_keep,
        .udata_copy = image_udata_share,
        .udata_free = image_udata_keep,
        .udata = image,
    };
    hsize_t structure =
        STRUCTURE_BYTES_MIN + dataset_count * STRUCTURE_BYTES_PER_DATASET;
    hid_t fapl = H5Pcreate(H5P_FILE_ACCESS);
    hid_t fcpl = H5Pcreate(H5P_FILE_CREATE);
    hid_t file = -1;

    if (fapl >= 0 && fcpl >= 0 &&
        H5Pset_fapl_core(fapl, IMAGE_STEP_BYTES, 0) >= 0 &&
        H5Pset_file_image_callbacks(fapl, &callbacks) >= 0 &&
        H5Pset_libver_bounds(fapl, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
        H5Pset_fclose_degree(fapl, H5F_CLOSE_STRONG) >= 0 &&
        H5Pset_alignment(fapl, ALIGN_FROM_BYTES, ALIGN_BYTES) >= 0 &&
        H5Pset_meta_block_size(fapl, structure) >= 0 &&
        H5Pset_userblock(fcpl, FM_CAS_HEADER_BYTES) >= 0) {
        /* A name that cannot exist: HDF5 looks for it, in vain. */
        file = H5Fcreate("/dev/null/segment", H5F_ACC_TRUNC, fcpl, fapl);
    }
    if (file < 0) { /* at once: every further call clears the cause */
        (void)hdf5_failed(err, "create file");
    }
    (void)H5Pclose(fapl);
    (void)H5Pclose(fcpl);
    return file;
}

static hid_t dataset_properties(void)
{
    hid_t dcpl = H5Pcreate(H5P_DATASET_CREATE);

    if (dcpl >= 0 && (H5Pset_alloc_time(dcpl, H5D_ALLOC_TIME_EARLY) < 0 ||
                      H5Pset_fill_time(dcpl, H5D_FILL_TIME_NEVER) < 0 ||
                      H5Pset_obj_track_times(dcpl, 0) < 0)) {
        (void)H5Pclose(dcpl);
        return -1;
    }
    return dcpl;
}

static fm_status_t content_write(hid_t file, fm_cas_part_t *parts,
                                 size_t part_count, const char *fabric,
                                 fm_cas_header_t *header, fm_error_t *err)
{
    hsize_t file_bytes = 0;
    hid_t dcpl = dataset_properties();
    fm_status_t rc = FM_OK;

    if (dcpl < 0 ||
        !root_write(file, header->writer, fabric, header->created_ns)) {
        rc = hdf5_failed(err, "write attributes");
    }
    if (rc >= 0) {
        rc = index_create(file, dcpl, parts, part_count, header, err);
    }
    if (rc >= 0) {
        rc = parts_place(file, dcpl, parts, part_count, header, err);
    }
    if (rc >= 0) {
        rc = index_write(file, parts, part_count, header, err);
    }
    /* No H5Fflush(): that would grow the image to the size of the file, which
     * a close does not.  A close allocates nothing, so this is the size. */
    if (rc >= 0 &&
        (fm_fault("cas.flush") || H5Fget_filesize(file, &file_bytes) < 0)) {
        rc = hdf5_failed(err, "flush");
    }
    if (dcpl >= 0) {
        (void)H5Pclose(dcpl);
    }
    header->file_bytes = file_bytes;
    return rc;
}

static size_t dataset_count(const fm_cas_part_t *parts, size_t part_count)
{
    size_t count = 0;

    for (size_t i = 0; i < part_count; i++) {
        count += parts[i].row.place != FM_CAS_PLACE_DATA ? 1 : 0;
    }
    return count;
}

fm_status_t fm_cas_layout_make(fm_cas_part_t *parts, size_t part_count,
                               const char *writer, const char *fabric,
                               int64_t created_ns, fm_cas_layout_t *layout_out,
                               fm_error_t *err)
{
    fm_cas_layout_t layout = {.header = {.created_ns = created_ns}};
    struct image *image = fm_calloc(1, sizeof(*image));
    fm_status_t rc = FM_OK;

    if (!image) {
        return fm_no_memory(err);
    }
    /* Errors are returned as text, not printed. */
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    (void)H5Eclear2(H5E_DEFAULT);
    (void)snprintf(layout.header.writer, sizeof(layout.header.writer), "%s",
                   writer);
    hid_t file = file_create(image, dataset_count(parts, part_count), err);
    if (file < 0) {
        rc = FM_ERR_IO;
        goto out;
    }
    rc = content_write(file, parts, part_count, fabric, &layout.header, err);
    if (H5Fclose(file) < 0) {
        /* HDF5 may still use the image: leave it to HDF5. */
        return rc < 0 ? rc : hdf5_failed(err, "close file");
    }
    if (image->failed) {
        rc = fm_no_memory(err);
    }
    if (rc < 0) {
        goto out;
    }
    layout.image = image->bytes;
    layout.image_bytes = image->len < layout.header.file_bytes
                             ? image->len
                             : (size_t)layout.header.file_bytes;
    image->bytes = NULL;
    *layout_out = layout;
out:
    free(image->bytes);
    free(image);
    return rc;
}
