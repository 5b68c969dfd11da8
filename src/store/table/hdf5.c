/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables by the HDF5 library: sources (datasets read in blocks of rows) and
 * columns (a place in a source's row, and how its bytes become JSON).  Every
 * size is checked before it is used to allocate or to read.
 */
#include "store/table/hdf5.h"

#include <hdf5.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "base/mem.h"

#define ROW_BYTES_MAX ((size_t)16 << 20)    /* of a row in memory */
#define BLOCK_BYTES ((size_t)8 << 20)       /* read at a time */
#define CHUNK_BYTES_MAX ((size_t)256 << 20) /* of a chunk, unpacked */
#define BLOCK_ROWS 4096u
#define ENUM_MEMBERS_MAX 4096
#define SINK_BYTES ((size_t)1 << 16)

typedef enum kind {
    KIND_INT,
    KIND_UINT,
    KIND_REAL,
    KIND_FIXED,    /* text in the row */
    KIND_VARIABLE, /* pointer to text */
    KIND_ENUM,
    KIND_BOOL
} kind_t;

/* A dataset, and a block of its rows. */
typedef struct source {
    hid_t dataset, type; /* type: of a row in memory */
    size_t stride;
    uint8_t *block;
} source_t;

typedef struct column {
    char *name; /* NULL: the value is the record */
    kind_t kind;
    size_t source, offset, size;
    H5T_str_t pad; /* of KIND_FIXED */
    char **labels; /* of KIND_ENUM */
    long long *codes;
    size_t label_count;
} column_t;

typedef struct table {
    hid_t file, access, link_access;
    source_t *sources;
    size_t source_count, source_capacity;
    column_t *columns;
    size_t column_count, column_capacity;
    hsize_t rows;
    fm_buf_t text;
    size_t written;
    fm_table_sink_fn sink;
    void *ctx;
} table_t;

static void id_close(hid_t id, herr_t (*close)(hid_t))
{
    if (id >= 0) {
        (void)close(id);
    }
}

static void table_fini(table_t *table)
{
    for (size_t i = 0; i < table->column_count; i++) {
        column_t *column = &table->columns[i];
        for (size_t k = 0; column->labels && k < column->label_count; k++) {
            free(column->labels[k]);
        }
        free(column->name);
        free(column->labels);
        free(column->codes);
    }
    for (size_t i = 0; i < table->source_count; i++) {
        id_close(table->sources[i].dataset, H5Dclose);
        id_close(table->sources[i].type, H5Tclose);
        free(table->sources[i].block);
    }
    free(table->columns);
    free(table->sources);
    fm_buf_fini(&table->text);
    id_close(table->link_access, H5Pclose);
    id_close(table->file, H5Fclose);
    id_close(table->access, H5Pclose);
}

static herr_t link_refuse(const char *parent_file, const char *parent_group,
                          const char *child_file, const char *child_object,
                          unsigned *flags, hid_t access, void *ctx)
{
    (void)parent_file;
    (void)parent_group;
    (void)child_file;
    (void)child_object;
    (void)flags;
    (void)access;
    (void)ctx;
    return -1;
}

static fm_status_t file_open(table_t *table, const void *image, size_t len,
                             fm_error_t *err)
{
    void *bytes = NULL; /* the library wants to write it, and does not */

    memcpy(&bytes, &image, sizeof(bytes));
    (void)H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    (void)H5PLset_loading_state(0);
    table->access = H5Pcreate(H5P_FILE_ACCESS);
    table->link_access = H5Pcreate(H5P_LINK_ACCESS);
    if (len == 0 || table->access < 0 || table->link_access < 0 ||
        H5Pset_fapl_core(table->access, (size_t)1 << 20, 0) < 0 ||
        H5Pset_file_image(table->access, bytes, len) < 0 ||
        H5Pset_elink_cb(table->link_access, link_refuse, NULL) < 0 ||
        (table->file = H5Fopen("table", H5F_ACC_RDONLY, table->access)) < 0) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "no HDF5 file, or a damaged "
                            "one");
    }
    return FM_OK;
}

/* --- types --------------------------------------------------------------- */

static fm_status_t labels_read(column_t *column, hid_t type, fm_error_t *err)
{
    int count = H5Tget_nmembers(type);
    hid_t super = H5Tget_super(type);
    fm_status_t rc = FM_OK;

    if (count < 1 || count > ENUM_MEMBERS_MAX || super < 0) {
        rc = fm_error_set(err, FM_ERR_LIMIT,
                          "an enum of 1 to %d members is needed",
                          ENUM_MEMBERS_MAX);
        goto out;
    }
    column->labels = fm_calloc((size_t)count, sizeof(char *));
    column->codes = fm_calloc((size_t)count, sizeof(long long));
    if (!column->labels || !column->codes) {
        rc = fm_no_memory(err);
        goto out;
    }
    for (int i = 0; i < count; i++) {
        long long code = 0; /* the value in the file's type, then in ours */
        char *label = H5Tget_member_name(type, (unsigned)i);
        if (!label || H5Tget_member_value(type, (unsigned)i, &code) < 0 ||
            H5Tconvert(super, H5T_NATIVE_LLONG, 1, &code, NULL, H5P_DEFAULT) <
                0) {
            (void)H5free_memory(label);
            rc = fm_error_set(err, FM_ERR_INVALID, "a damaged enum");
            goto out;
        }
        column->codes[i] = code;
        column->labels[i] = fm_strdup(label);
        (void)H5free_memory(label);
        if (!column->labels[i]) {
            rc = fm_no_memory(err);
            goto out;
        }
        column->label_count++;
    }
    if (count == 2 && strcmp(column->labels[0], "FALSE") == 0 &&
        column->codes[0] == 0 && strcmp(column->labels[1], "TRUE") == 0 &&
        column->codes[1] == 1) {
        column->kind = KIND_BOOL;
    }
out:
    id_close(super, H5Tclose);
    return rc;
}

static hid_t text_type(column_t *column, hid_t type)
{
    hid_t memory = -1;

    if (H5Tis_variable_str(type) <= 0) {
        column->kind = KIND_FIXED;
        column->pad = H5Tget_strpad(type);
        return H5Tcopy(type);
    }
    column->kind = KIND_VARIABLE;
    memory = H5Tcopy(H5T_C_S1);
    if (memory >= 0 && (H5Tset_size(memory, H5T_VARIABLE) < 0 ||
                        H5Tset_cset(memory, H5Tget_cset(type)) < 0)) {
        (void)H5Tclose(memory);
        return -1;
    }
    return memory;
}

/* How a column of @p type is read: its kind, and its type in memory. */
static fm_status_t type_map(column_t *column, hid_t type, hid_t *memory_out,
                            fm_error_t *err)
{
    H5T_class_t class = H5Tget_class(type);
    size_t size = H5Tget_size(type);
    hid_t memory = -1;
    fm_status_t rc = FM_OK;

    if (class == H5T_STRING) {
        memory = text_type(column, type);
    } else if (class == H5T_INTEGER && size <= 8) {
        bool is_signed = H5Tget_sign(type) != H5T_SGN_NONE;
        column->kind = is_signed ? KIND_INT : KIND_UINT;
        memory = H5Tcopy(is_signed ? H5T_NATIVE_LLONG : H5T_NATIVE_ULLONG);
    } else if (class == H5T_FLOAT && size <= 8) {
        column->kind = KIND_REAL;
        memory = H5Tcopy(H5T_NATIVE_DOUBLE);
    } else if (class == H5T_ENUM && size <= 8) {
        column->kind = KIND_ENUM;
        memory = H5Tcopy(H5T_NATIVE_LLONG);
        rc = labels_read(column, type, err);
    } else {
        return fm_error_set(err, FM_ERR_UNSUPPORTED,
                            "integers and floats of up to 8 bytes, texts, "
                            "enums and booleans are read");
    }
    if (rc >= 0 && memory < 0) {
        rc = fm_error_set(err, FM_ERR_INVALID, "a damaged type");
    }
    column->size = memory >= 0 ? H5Tget_size(memory) : 0;
    if (rc >= 0 && (column->size == 0 || column->size > ROW_BYTES_MAX)) {
        rc = fm_error_set(err, FM_ERR_LIMIT, "a value of more than %zu bytes",
                          ROW_BYTES_MAX);
    }
    if (rc < 0) {
        id_close(memory, H5Tclose);
        return rc;
    }
    *memory_out = memory;
    return FM_OK;
}

static fm_status_t column_add(table_t *table, const char *name,
                              column_t **column_out, fm_error_t *err)
{
    fm_json_t *text = name ? fm_json_string(name) : NULL;
    fm_status_t rc = FM_OK;

    if (name && !text) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "column %zu: its name is not UTF-8 text",
                            table->column_count);
    }
    fm_json_drop(text);
    if (table->column_count >= FM_TABLE_COLUMNS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT, "more than %u columns",
                            FM_TABLE_COLUMNS_MAX);
    }
    if ((rc = fm_grow(&table->columns, &table->column_capacity,
                      table->column_count, sizeof(column_t), err)) < 0) {
        return rc;
    }
    column_t *column = &table->columns[table->column_count];
    memset(column, 0, sizeof(*column));
    if (name && !(column->name = fm_strdup(name))) {
        return fm_no_memory(err);
    }
    table->column_count++;
    *column_out = column;
    return FM_OK;
}

/* --- sources ------------------------------------------------------------- */

/* Storage that stays in this file and unpacks to a bounded size. */
static fm_status_t storage_check(hid_t dataset, size_t row_bytes,
                                 fm_error_t *err)
{
    hid_t plist = H5Dget_create_plist(dataset);
    H5D_layout_t layout = plist >= 0 ? H5Pget_layout(plist) : H5D_LAYOUT_ERROR;
    hsize_t chunk = 0;
    fm_status_t rc = FM_OK;

    if (layout == H5D_CHUNKED && H5Pget_chunk(plist, 1, &chunk) != 1) {
        layout = H5D_LAYOUT_ERROR;
    }
    if (layout != H5D_COMPACT && layout != H5D_CONTIGUOUS &&
        layout != H5D_CHUNKED) {
        rc = fm_error_set(err, FM_ERR_UNSUPPORTED,
                          "a virtual or damaged layout is not read");
    } else if (H5Pget_external_count(plist) != 0) {
        rc = fm_error_set(err, FM_ERR_UNSUPPORTED,
                          "data in other files is not read");
    } else if (chunk > CHUNK_BYTES_MAX / row_bytes) {
        rc = fm_error_set(err, FM_ERR_LIMIT, "a chunk of more than %zu bytes",
                          CHUNK_BYTES_MAX);
    }
    id_close(plist, H5Pclose);
    return rc;
}

/* The rows of a 1-D dataset. */
static fm_status_t rows_count(hid_t dataset, hsize_t *rows_out, fm_error_t *err)
{
    hid_t space = H5Dget_space(dataset);
    int rank = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
    fm_status_t rc = FM_OK;

    if (rank != 1 || H5Sget_simple_extent_type(space) != H5S_SIMPLE ||
        H5Sget_simple_extent_dims(space, rows_out, NULL) != 1) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "%d dimensions; one, of rows, is needed", rank);
    } else if (*rows_out > FM_TABLE_ROWS_MAX) {
        rc = fm_error_set(err, FM_ERR_LIMIT, "%llu rows; at most %u are read",
                          (unsigned long long)*rows_out, FM_TABLE_ROWS_MAX);
    }
    id_close(space, H5Sclose);
    return rc;
}

/* Takes the dataset, also on failure. */
static fm_status_t source_add(table_t *table, hid_t dataset, fm_error_t *err)
{
    hid_t type = H5Dget_type(dataset);
    size_t size = type >= 0 ? H5Tget_size(type) : 0;
    hsize_t rows = 0;
    fm_status_t rc = FM_OK;

    if (size == 0 || size > ROW_BYTES_MAX) {
        rc = fm_error_set(err, FM_ERR_LIMIT, "rows of 1 to %zu bytes are read",
                          ROW_BYTES_MAX);
    }
    if (rc < 0 || (rc = rows_count(dataset, &rows, err)) < 0 ||
        (rc = storage_check(dataset, size, err)) < 0) {
        goto out;
    }
    if (table->source_count > 0 && rows != table->rows) {
        rc = fm_error_set(
            err, FM_ERR_INVALID, "%llu rows; the column before has %llu",
            (unsigned long long)rows, (unsigned long long)table->rows);
        goto out;
    }
    if ((rc = fm_grow(&table->sources, &table->source_capacity,
                      table->source_count, sizeof(source_t), err)) < 0) {
        goto out;
    }
    table->rows = rows;
    table->sources[table->source_count++] =
        (source_t){.dataset = dataset, .type = -1};
    dataset = -1;
out:
    id_close(type, H5Tclose);
    id_close(dataset, H5Dclose);
    return rc;
}

/* The last source is one column. */
static fm_status_t plain_open(table_t *table, const char *name, fm_error_t *err)
{
    source_t *source = &table->sources[table->source_count - 1];
    column_t *column = NULL;
    hid_t type = H5Dget_type(source->dataset);
    fm_status_t rc = column_add(table, name, &column, err);

    if (rc >= 0 && (rc = type_map(column, type, &source->type, err)) >= 0) {
        column->source = table->source_count - 1;
        source->stride = column->size;
    }
    id_close(type, H5Tclose);
    return rc;
}

/* One column a member of the compound type. */
static fm_status_t members_add(table_t *table, hid_t type, hid_t *memory,
                               fm_error_t *err)
{
    int count = H5Tget_nmembers(type);
    size_t stride = 0;
    fm_status_t rc = FM_OK;

    if (count < 1 || (unsigned)count > FM_TABLE_COLUMNS_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT, "1 to %u members are read",
                            FM_TABLE_COLUMNS_MAX);
    }
    for (int i = 0; rc >= 0 && i < count; i++) {
        char *name = H5Tget_member_name(type, (unsigned)i);
        hid_t member = H5Tget_member_type(type, (unsigned)i);
        column_t *column = NULL;
        if (!name || member < 0) {
            rc = fm_error_set(err, FM_ERR_INVALID, "a damaged compound type");
        } else if ((rc = column_add(table, name, &column, err)) >= 0 &&
                   (rc = type_map(column, member, &memory[i], err)) < 0) {
            fm_error_wrap(err, "column %s", name);
        } else if (rc >= 0) {
            column->offset = stride;
            stride += (column->size + 7) & ~(size_t)7;
            if (stride > ROW_BYTES_MAX) {
                rc =
                    fm_error_set(err, FM_ERR_LIMIT,
                                 "a row of more than %zu bytes", ROW_BYTES_MAX);
            }
        }
        (void)H5free_memory(name);
        id_close(member, H5Tclose);
    }
    table->sources[0].stride = stride;
    return rc;
}

static fm_status_t compound_open(table_t *table, hid_t type, fm_error_t *err)
{
    hid_t *memory = fm_malloc(FM_TABLE_COLUMNS_MAX * sizeof(*memory));
    source_t *source = &table->sources[0];
    fm_status_t rc = memory ? FM_OK : fm_no_memory(err);

    for (size_t i = 0; memory && i < FM_TABLE_COLUMNS_MAX; i++) {
        memory[i] = -1;
    }
    if (rc >= 0 && (rc = members_add(table, type, memory, err)) >= 0) {
        source->type = H5Tcreate(H5T_COMPOUND, source->stride);
        for (size_t i = 0; rc >= 0 && i < table->column_count; i++) {
            const column_t *column = &table->columns[i];
            if (source->type < 0 || H5Tinsert(source->type, column->name,
                                              column->offset, memory[i]) < 0) {
                rc = fm_error_set(err, FM_ERR_INVALID,
                                  "column %s: its name is taken, or its type "
                                  "is damaged",
                                  column->name);
            }
        }
    }
    for (size_t i = 0; memory && i < FM_TABLE_COLUMNS_MAX; i++) {
        id_close(memory[i], H5Tclose);
    }
    free(memory);
    return rc;
}

/* Every link of the group is a column. */
static fm_status_t group_open(table_t *table, hid_t group, fm_error_t *err)
{
    H5G_info_t info;
    fm_status_t rc = FM_OK;

    if (H5Gget_info(group, &info) < 0 || info.nlinks < 1 ||
        info.nlinks > FM_TABLE_COLUMNS_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "a group of 1 to %u columns is needed",
                            FM_TABLE_COLUMNS_MAX);
    }
    for (hsize_t i = 0; rc >= 0 && i < info.nlinks; i++) {
        char name[1024] = "";
        ssize_t size =
            H5Lget_name_by_idx(group, ".", H5_INDEX_NAME, H5_ITER_INC, i, name,
                               sizeof(name), H5P_DEFAULT);
        hid_t object = size > 0 && (size_t)size < sizeof(name)
                           ? H5Oopen(group, name, table->link_access)
                           : -1;
        if (object < 0 || H5Iget_type(object) != H5I_DATASET) {
            id_close(object, H5Oclose);
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "%s is no dataset that can be read; a group of "
                              "columns holds nothing else",
                              name);
        } else if ((rc = source_add(table, object, err)) < 0 ||
                   (rc = plain_open(table, name, err)) < 0) {
            fm_error_wrap(err, "column %s", name);
        }
    }
    return rc;
}

static fm_status_t table_open(table_t *table, const char *path, fm_error_t *err)
{
    hid_t object = H5Oopen(table->file, path, table->link_access);
    H5I_type_t kind = object >= 0 ? H5Iget_type(object) : H5I_BADID;
    hid_t type = -1;
    fm_status_t rc;

    if (kind == H5I_GROUP) {
        rc = group_open(table, object, err);
        id_close(object, H5Oclose);
        return rc;
    }
    if (kind != H5I_DATASET) {
        id_close(object, H5Oclose);
        return fm_error_set(err, FM_ERR_INVALID,
                            "no dataset or group of that name in this file");
    }
    type = H5Dget_type(object);
    rc = source_add(table, object, err);
    if (rc >= 0) {
        rc = H5Tget_class(type) == H5T_COMPOUND
                 ? compound_open(table, type, err)
                 : plain_open(table, NULL, err);
    }
    id_close(type, H5Tclose);
    return rc;
}

/* --- rows ---------------------------------------------------------------- */

static size_t fixed_length(const column_t *column, const char *text)
{
    size_t len = strnlen(text, column->size);

    if (column->pad == H5T_STR_SPACEPAD) {
        while (len > 0 && text[len - 1] == ' ') {
            len--;
        }
    }
    return len;
}

static fm_json_t *enum_value(const column_t *column, long long code)
{
    for (size_t i = 0; i < column->label_count; i++) {
        if (column->codes[i] == code) {
            return fm_json_string(column->labels[i]);
        }
    }
    return NULL;
}

/* NULL: what JSON does not have. */
static fm_json_t *cell_value(const column_t *column, const uint8_t *cell)
{
    unsigned long long natural = 0;
    long long integer = 0;
    const char *text = NULL;
    double real = 0;

    switch (column->kind) {
    case KIND_INT:
        memcpy(&integer, cell, sizeof(integer));
        return fm_json_int(integer);
    case KIND_UINT:
        memcpy(&natural, cell, sizeof(natural));
        return natural <= INT64_MAX ? fm_json_int((int64_t)natural) : NULL;
    case KIND_REAL:
        memcpy(&real, cell, sizeof(real));
        return isfinite(real) ? fm_json_real(real) : NULL;
    case KIND_FIXED:
        memcpy(&text, &cell, sizeof(text));
        return fm_json_stringn(text, fixed_length(column, text));
    case KIND_VARIABLE:
        memcpy(&text, cell, sizeof(text));
        return fm_json_string(text ? text : "");
    case KIND_ENUM:
        memcpy(&integer, cell, sizeof(integer));
        return enum_value(column, integer);
    case KIND_BOOL:
        memcpy(&integer, cell, sizeof(integer));
        return integer == 0 || integer == 1 ? fm_json_bool(integer == 1) : NULL;
    }
    return NULL;
}

static fm_status_t row_write(table_t *table, size_t in_block, hsize_t row,
                             fm_error_t *err)
{
    fm_json_t *record = fm_json_object();
    fm_json_t *value = NULL;
    fm_status_t rc = record ? FM_OK : fm_no_memory(err);

    for (size_t i = 0; rc >= 0 && i < table->column_count; i++) {
        const column_t *column = &table->columns[i];
        const source_t *source = &table->sources[column->source];
        value = cell_value(column, source->block + in_block * source->stride +
                                       column->offset);
        if (!value) {
            rc = fm_error_set(
                err, FM_ERR_INVALID,
                "%s%s%srow %llu: a value that JSON does not "
                "have: not finite, over 2^63 - 1, no UTF-8 text "
                "or no member of its enum",
                column->name ? "column " : "", column->name ? column->name : "",
                column->name ? ", " : "", (unsigned long long)row);
        } else if (column->name &&
                   fm_json_set(record, column->name, value) < 0) {
            rc = fm_no_memory(err);
        } else if (!column->name) {
            fm_json_drop(record);
            record = value;
        }
    }
    char *line = rc >= 0 ? fm_json_canonical(record) : NULL;
    fm_json_drop(record);
    if (rc >= 0) {
        fm_buf_add_str(&table->text, line ? line : "");
        fm_buf_add_u8(&table->text, '\n');
        rc = line && !table->text.failed ? FM_OK : fm_no_memory(err);
    }
    free(line);
    return rc;
}

static fm_status_t text_flush(table_t *table, bool all, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    if (!all && table->text.len < SINK_BYTES) {
        return FM_OK;
    }
    table->written += table->text.len;
    if (table->written > FM_TABLE_TEXT_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "more than %zu bytes of text; take fewer columns "
                            "or split the table",
                            FM_TABLE_TEXT_BYTES_MAX);
    }
    if (table->text.len > 0) {
        rc = table->sink(table->ctx, table->text.data, table->text.len, err);
    }
    fm_buf_clear(&table->text);
    return rc;
}

/* Rows [from, from + count) of every source into its block. */
static fm_status_t block_read(table_t *table, hsize_t from, hsize_t count,
                              hid_t memory, fm_error_t *err)
{
    fm_status_t rc = FM_OK;

    for (size_t i = 0; rc >= 0 && i < table->source_count; i++) {
        const source_t *source = &table->sources[i];
        hid_t space = H5Dget_space(source->dataset);
        memset(source->block, 0, (size_t)count * source->stride);
        if (space < 0 ||
            H5Sselect_hyperslab(space, H5S_SELECT_SET, &from, NULL, &count,
                                NULL) < 0 ||
            H5Dread(source->dataset, source->type, memory, space, H5P_DEFAULT,
                    source->block) < 0) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "rows %llu to %llu cannot be read: damaged, or "
                              "packed by a filter that is not there",
                              (unsigned long long)from,
                              (unsigned long long)(from + count - 1));
        }
        id_close(space, H5Sclose);
    }
    return rc;
}

static fm_status_t rows_read(table_t *table, fm_error_t *err)
{
    size_t row_bytes = 1;
    hsize_t block = BLOCK_ROWS;
    fm_status_t rc = FM_OK;

    for (size_t i = 0; i < table->source_count; i++) {
        row_bytes += table->sources[i].stride;
    }
    block = BLOCK_BYTES / row_bytes < block ? BLOCK_BYTES / row_bytes : block;
    block = block ? block : 1;
    for (size_t i = 0; i < table->source_count; i++) {
        table->sources[i].block =
            fm_calloc((size_t)block, table->sources[i].stride);
        if (!table->sources[i].block) {
            return fm_no_memory(err);
        }
    }
    for (hsize_t from = 0; rc >= 0 && from < table->rows; from += block) {
        hsize_t count = table->rows - from < block ? table->rows - from : block;
        hid_t memory = H5Screate_simple(1, &count, NULL);
        rc = memory < 0 ? fm_no_memory(err)
                        : block_read(table, from, count, memory, err);
        for (hsize_t i = 0; rc >= 0 && i < count; i++) {
            if ((rc = row_write(table, (size_t)i, from + i, err)) >= 0) {
                rc = text_flush(table, false, err);
            }
        }
        for (size_t i = 0; memory >= 0 && i < table->source_count; i++) {
            (void)H5Dvlen_reclaim(table->sources[i].type, memory, H5P_DEFAULT,
                                  table->sources[i].block);
        }
        id_close(memory, H5Sclose);
    }
    return rc < 0 ? rc : text_flush(table, true, err);
}

fm_status_t fm_table_hdf5_read(const void *image, size_t len, const char *path,
                               fm_table_sink_fn sink, void *ctx,
                               fm_error_t *err)
{
    table_t table = {
        .file = -1, .access = -1, .link_access = -1, .sink = sink, .ctx = ctx};
    fm_status_t rc = file_open(&table, image, len, err);

    if (rc >= 0 && ((rc = table_open(&table, path, err)) < 0 ||
                    (rc = rows_read(&table, err)) < 0)) {
        fm_error_wrap(err, "%.200s", path);
    }
    table_fini(&table);
    return rc;
}
