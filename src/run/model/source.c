/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening the files of a model.  Invariants of an open source: every name is
 * there once; with an index, each tensor is in the file that the index names.
 */
#include "run/model/source.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"

#define INDEX_SUFFIX ".safetensors.index.json"
#define FILE_SUFFIX ".safetensors"
/* The largest published models have some 200; each stays open. */
#define FILES_MAX 512u
/* Of an index or a config.json: the largest published ones have some MB. */
#define JSON_BYTES_MAX ((size_t)64 << 20)

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text);
    size_t part = strlen(end);

    return length > part && strcmp(text + length - part, end) == 0;
}

static bool is_directory(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

char *fm_source_dir(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (is_directory(path)) {
        return fm_strdup(path);
    }
    return !slash          ? fm_strdup(".")
           : slash == path ? fm_strdup("/")
                           : fm_strndup(path, (size_t)(slash - path));
}

fm_status_t fm_source_file(const char *dir, const char *name,
                           size_t limit_bytes, fm_buf_t *out, bool *found_out,
                           fm_error_t *err)
{
    char *path = fm_asprintf("%s/%s", dir, name);
    fm_error_t own = {0};

    if (!path) {
        return fm_no_memory(err);
    }
    fm_status_t rc = fm_file_read(path, limit_bytes, out, &own);
    *found_out = rc >= 0;
    free(path);
    if (rc == FM_ERR_NOT_FOUND) {
        return FM_OK;
    }
    return rc < 0 ? fm_error_set(err, rc, "%s", own.text) : FM_OK;
}

fm_status_t fm_source_json(const char *dir, const char *name,
                           fm_json_t **json_out, fm_error_t *err)
{
    fm_buf_t text = {0};
    fm_json_t *json = NULL;
    bool found = false;
    char *what = fm_asprintf("%s/%s", dir, name);
    fm_status_t rc =
        what ? fm_source_file(dir, name, JSON_BYTES_MAX, &text, &found, err)
             : fm_no_memory(err);

    if (rc >= 0 && found) {
        rc = fm_json_parse((const char *)text.data, text.len, what, &json, err);
    }
    if (rc >= 0 && json && !fm_json_is(json, FM_JSON_OBJECT)) {
        rc = fm_error_set(err, FM_ERR_INVALID, "%s: want an object", what);
        json = fm_json_drop(json);
    }
    if (rc >= 0) {
        *json_out = json;
    }
    fm_buf_fini(&text);
    free(what);
    return rc;
}

/* --- files ---------------------------------------------------------------- */

static fm_status_t file_add(fm_source_t *source, const char *name,
                            fm_error_t *err)
{
    char *path = fm_asprintf("%s/%s", source->dir, name);
    fm_engine_safetensors_t *file = NULL;

    if (!path) {
        return fm_no_memory(err);
    }
    fm_status_t rc = fm_engine_safetensors_open(path, &file, err);
    if (rc < 0) {
        free(path);
        return rc;
    }
    source->files[source->file_count] = file;
    source->paths[source->file_count++] = path;
    return FM_OK;
}

static bool file_known(const fm_source_t *source, const char *name)
{
    for (size_t i = 0; i < source->file_count; i++) {
        if (strcmp(strrchr(source->paths[i], '/') + 1, name) == 0) {
            return true;
        }
    }
    return false;
}

/* Every file that the index names, each once. */
static fm_status_t files_add(fm_source_t *source, const char *index,
                             const fm_json_t *map, fm_error_t *err)
{
    void *at = NULL;
    const char *tensor = NULL;
    fm_json_t *value = NULL;

    while (fm_json_next(map, &at, &tensor, &value)) {
        const char *name = fm_json_str(value);
        if (!fm_path_is_inside(name) || strchr(name, '/') ||
            !ends_with(name, FILE_SUFFIX)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%s: weight_map.%.200s: want the name of a "
                                "safetensors file beside it",
                                index, tensor);
        }
        if (file_known(source, name)) {
            continue;
        }
        if (source->file_count == FILES_MAX) {
            return fm_error_set(err, FM_ERR_LIMIT, "%s: more than %u files",
                                index, FILES_MAX);
        }
        fm_status_t rc = file_add(source, name, err);
        if (rc < 0) {
            fm_error_wrap(err, "%s: weight_map.%.200s", index, tensor);
            return rc;
        }
    }
    return FM_OK;
}

/* --- tensors -------------------------------------------------------------- */

static int name_order(const void *a, const void *b)
{
    const fm_source_tensor_t *const *x = a;
    const fm_source_tensor_t *const *y = b;

    return strcmp((*x)->tensor->name, (*y)->tensor->name);
}

static fm_status_t tensors_list(fm_source_t *source, fm_error_t *err)
{
    size_t count = 0;

    for (size_t i = 0; i < source->file_count; i++) {
        count += fm_engine_safetensors_count(source->files[i]);
    }
    source->tensors = fm_calloc(count + 1, sizeof(*source->tensors));
    source->by_name = fm_calloc(count + 1, sizeof(*source->by_name));
    if (!source->tensors || !source->by_name) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < source->file_count; i++) {
        const fm_engine_safetensors_t *file = source->files[i];
        for (size_t k = 0; k < fm_engine_safetensors_count(file); k++) {
            fm_source_tensor_t *entry = &source->tensors[source->tensor_count];
            *entry = (fm_source_tensor_t){fm_engine_safetensors_at(file, k),
                                          file, source->paths[i]};
            source->by_name[source->tensor_count++] = entry;
        }
    }
    qsort((void *)source->by_name, count, sizeof(*source->by_name), name_order);
    for (size_t i = 1; i < count; i++) {
        if (strcmp(source->by_name[i - 1]->tensor->name,
                   source->by_name[i]->tensor->name) == 0) {
            return fm_error_set(
                err, FM_ERR_INVALID, "tensor %.200s is in %s and in %s",
                source->by_name[i]->tensor->name, source->by_name[i - 1]->path,
                source->by_name[i]->path);
        }
    }
    return FM_OK;
}

/* The index and the files must tell the same. */
static fm_status_t index_check(const fm_source_t *source, const char *index,
                               const fm_json_t *map, fm_error_t *err)
{
    void *at = NULL;
    const char *name = NULL;
    fm_json_t *value = NULL;

    while (fm_json_next(map, &at, &name, &value)) {
        const fm_source_tensor_t *found = fm_source_find(source, name);
        const char *file = fm_json_str(value);
        if (!found || strcmp(strrchr(found->path, '/') + 1, file) != 0) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%s: weight_map.%.200s: the tensor is not in "
                                "%s",
                                index, name, file);
        }
    }
    for (size_t i = 0; i < source->tensor_count; i++) {
        if (!fm_json_get(map, source->tensors[i].tensor->name)) {
            return fm_error_set(err, FM_ERR_INVALID,
                                "%s: tensor %.200s is not in weight_map of %s",
                                source->tensors[i].path,
                                source->tensors[i].tensor->name, index);
        }
    }
    return FM_OK;
}

const fm_source_tensor_t *fm_source_find(const fm_source_t *source,
                                         const char *name)
{
    const fm_engine_safetensor_t tensor = {.name = name};
    const fm_source_tensor_t key = {.tensor = &tensor};
    const fm_source_tensor_t *wanted = &key;
    const fm_source_tensor_t **found =
        bsearch(&wanted, (const void *)source->by_name, source->tensor_count,
                sizeof(*source->by_name), name_order);

    return found ? *found : NULL;
}

fm_status_t fm_source_dtype(const fm_source_tensor_t *entry,
                            fm_engine_dtype_t *dtype_out, fm_error_t *err)
{
    static const struct {
        const char *name;
        fm_engine_dtype_t dtype;
    } known[] = {{"F32", FM_ENGINE_F32},
                 {"F16", FM_ENGINE_F16},
                 {"BF16", FM_ENGINE_BF16}};

    for (size_t i = 0; i < FM_COUNT_OF(known); i++) {
        if (strcmp(entry->tensor->dtype, known[i].name) == 0) {
            *dtype_out = known[i].dtype;
            return FM_OK;
        }
    }
    return fm_error_set(err, FM_ERR_UNSUPPORTED,
                        "%s: tensor %.200s: dtype %s; weights are F32, F16 or "
                        "BF16: save the model in one of these",
                        entry->path, entry->tensor->name, entry->tensor->dtype);
}

/* --- open ----------------------------------------------------------------- */

static fm_status_t nothing_there(const char *dir, const char *stem,
                                 fm_error_t *err)
{
    static const char *const others[] = {
        "pytorch_model.bin", "pytorch_model.bin.index.json",
        "adapter_model.bin", "consolidated.00.pth"};

    for (size_t i = 0; i < FM_COUNT_OF(others); i++) {
        char *path = fm_asprintf("%s/%s", dir, others[i]);
        bool there = path && access(path, F_OK) == 0;
        free(path);
        if (there) {
            return fm_error_set(
                err, FM_ERR_UNSUPPORTED,
                "%s: has %s, a pickle that could run code; load it in Python "
                "and save it with save_pretrained(..., "
                "safe_serialization=True)",
                dir, others[i]);
        }
    }
    return fm_error_set(err, FM_ERR_NOT_FOUND,
                        "%s: has neither %s" FILE_SUFFIX " nor %s" INDEX_SUFFIX,
                        dir, stem, stem);
}

/* The file to begin with, relative to dir; NULL when there is none. */
static char *entry_name(const char *path, const char *dir, const char *stem)
{
    static const char *const suffixes[] = {INDEX_SUFFIX, FILE_SUFFIX};

    if (!is_directory(path)) {
        const char *slash = strrchr(path, '/');
        return fm_strdup(slash ? slash + 1 : path);
    }
    for (size_t i = 0; i < FM_COUNT_OF(suffixes); i++) {
        char *name = fm_asprintf("%s%s", stem, suffixes[i]);
        char *full = name ? fm_asprintf("%s/%s", dir, name) : NULL;
        bool there = full && access(full, F_OK) == 0;
        free(full);
        if (there) {
            return name;
        }
        free(name);
    }
    return NULL;
}

static fm_status_t index_open(fm_source_t *source, const char *name,
                              fm_error_t *err)
{
    fm_json_t *index = NULL;
    char *path = fm_asprintf("%s/%s", source->dir, name);
    fm_status_t rc = path ? fm_source_json(source->dir, name, &index, err)
                          : fm_no_memory(err);
    const fm_json_t *map = fm_json_get(index, "weight_map");

    if (rc >= 0 &&
        (!fm_json_is(map, FM_JSON_OBJECT) || fm_json_len(map) == 0)) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "%s: weight_map: want an object, tensor name to file "
                          "name",
                          path);
    }
    if (rc >= 0 && (rc = files_add(source, path, map, err)) >= 0 &&
        (rc = tensors_list(source, err)) >= 0) {
        rc = index_check(source, path, map, err);
    }
    fm_json_drop(index);
    free(path);
    return rc;
}

fm_status_t fm_source_open(const char *path, const char *stem,
                           fm_source_t *source_out, fm_error_t *err)
{
    fm_source_t source = {.dir = fm_source_dir(path)};
    char *name = NULL;
    fm_status_t rc = FM_OK;

    source.files = fm_calloc(FILES_MAX, sizeof(*source.files));
    source.paths = fm_calloc(FILES_MAX, sizeof(*source.paths));
    if (!source.dir || !source.files || !source.paths) {
        rc = fm_no_memory(err);
    } else if (!(name = entry_name(path, source.dir, stem))) {
        rc = nothing_there(source.dir, stem, err);
    } else if (ends_with(name, INDEX_SUFFIX)) {
        rc = index_open(&source, name, err);
    } else if ((rc = file_add(&source, name, err)) >= 0) {
        rc = tensors_list(&source, err);
    }
    free(name);
    if (rc < 0) {
        fm_source_fini(&source);
        return rc;
    }
    *source_out = source;
    return FM_OK;
}

void fm_source_fini(fm_source_t *source)
{
    for (size_t i = 0; i < source->file_count; i++) {
        fm_engine_safetensors_close(source->files[i]);
        free(source->paths[i]);
    }
    free((void *)source->files);
    free((void *)source->paths);
    free((void *)source->by_name);
    free(source->tensors);
    free(source->dir);
    memset(source, 0, sizeof(*source));
}
