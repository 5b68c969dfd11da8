/* SPDX-License-Identifier: Apache-2.0 */
#include "model_fixture.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FILE_MAX ((size_t)16 << 20)

void shelf_open(shelf_t *shelf)
{
    fm_error_t err = {0};

    if (!shelf->dir) {
        shelf->dir = scratch_make();
    }
    char *fabric = fm_asprintf("%s/fabric", shelf->dir);
    FM_ASSERT_OK(fm_model_library_open(fabric, true, &shelf->library, &err),
                 &err);
    shelf->cas = fm_model_library_cas(shelf->library);
    free(fabric);
}

void shelf_close(shelf_t *shelf)
{
    fm_model_library_close(shelf->library);
    scratch_remove(shelf->dir);
}

char *reference_path(const char *name)
{
    return fm_asprintf("%s/%s", FM_TEST_HF_DIR, name);
}

static void file_copy(const char *from, const char *to, const char *name)
{
    char *source = fm_asprintf("%s/%s", from, name);
    char *target = fm_asprintf("%s/%s", to, name);
    fm_buf_t bytes = {0};
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_file_read(source, FILE_MAX, &bytes, &err), &err);
    FM_ASSERT_OK(fm_file_replace(target, bytes.data, bytes.len, &err), &err);
    fm_buf_fini(&bytes);
    free(source);
    free(target);
}

char *reference_copy(const shelf_t *shelf, const char *name, const char *to)
{
    char *from = reference_path(name);
    char *path = fm_asprintf("%s/%s", shelf->dir, to);
    fm_error_t err = {0};
    const struct dirent *entry = NULL;

    FM_ASSERT_OK(fm_file_make_dirs(path, 0755, &err), &err);
    DIR *dir = opendir(from);
    CU_ASSERT_FATAL(dir != NULL);
    while ((entry = readdir(dir))) {
        if (entry->d_name[0] != '.') {
            file_copy(from, path, entry->d_name);
        }
    }
    (void)closedir(dir);
    free(from);
    return path;
}

fm_json_t *json_load(const char *dir, const char *name)
{
    char *path = fm_asprintf("%s/%s", dir, name);
    fm_buf_t text = {0};
    fm_json_t *json = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_file_read(path, FILE_MAX, &text, &err), &err);
    FM_ASSERT_OK(
        fm_json_parse((const char *)text.data, text.len, path, &json, &err),
        &err);
    fm_buf_fini(&text);
    free(path);
    return json;
}

void json_save(const char *dir, const char *name, const fm_json_t *json)
{
    char *path = fm_asprintf("%s/%s", dir, name);
    char *text = fm_json_dump(json);
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_file_replace(path, text, strlen(text), &err), &err);
    free(text);
    free(path);
}

void json_edit(const char *dir, const char *name, const char *key,
               const char *value)
{
    fm_json_t *json = json_load(dir, name);
    fm_json_t *parsed = NULL;
    fm_error_t err = {0};

    if (value) {
        FM_ASSERT_OK(
            fm_json_parse(value, strlen(value), "value", &parsed, &err), &err);
        FM_ASSERT_OK(fm_json_set(json, key, parsed), &err);
    } else {
        fm_json_remove(json, key);
    }
    json_save(dir, name, json);
    fm_json_drop(json);
}

/* --- tensors -------------------------------------------------------------- */

static void tensor_change(fm_engine_safetensor_t *tensor, const spoil_t *spoil)
{
    tensor->name = spoil->rename ? spoil->rename : tensor->name;
    tensor->dtype = spoil->dtype ? spoil->dtype : tensor->dtype;
    if (spoil->shape[0]) {
        tensor->rank = spoil->shape[1] ? 2 : 1;
        tensor->shape[0] = spoil->shape[0];
        tensor->shape[1] = spoil->shape[1];
    }
}

void tensors_edit(const char *dir, const char *name, const spoil_t *spoil)
{
    char *path = fm_asprintf("%s/%s", dir, name);
    char *temporary = fm_asprintf("%s.new", path);
    fm_engine_safetensors_t *file = NULL;
    fm_engine_safetensors_writer_t *writer = NULL;
    fm_error_t err = {0};
    fm_buf_t data = {0};
    size_t count = 0;
    bool found = !spoil->tensor;

    FM_ASSERT_OK(fm_engine_safetensors_open(path, &file, &err), &err);
    size_t all = fm_engine_safetensors_count(file);
    fm_engine_safetensor_t *tensors = fm_calloc(all + 1, sizeof(*tensors));
    CU_ASSERT_FATAL(tensors != NULL);
    for (size_t i = 0; i < all; i++) {
        const fm_engine_safetensor_t *from = fm_engine_safetensors_at(file, i);
        bool hit = spoil->tensor && strcmp(from->name, spoil->tensor) == 0;
        found = found || hit;
        if (hit && spoil->drop) {
            continue;
        }
        uint8_t *to = fm_buf_reserve(&data, (size_t)from->bytes + 1);
        CU_ASSERT_FATAL(to != NULL);
        FM_ASSERT_OK(fm_engine_safetensors_read(file, from, to, &err), &err);
        data.len += (size_t)from->bytes;
        tensors[count] = *from;
        if (hit) {
            tensor_change(&tensors[count], spoil);
            to[0] ^= spoil->flip ? 1 : 0;
        }
        count++;
    }
    CU_ASSERT_FATAL(found);
    if (spoil->add) {
        tensors[count++] = (fm_engine_safetensor_t){
            .name = spoil->add, .dtype = "F32", .rank = 1, .shape = {4}};
        fm_buf_add(&data, (const uint8_t[16]){0}, 16);
    }
    FM_ASSERT_OK(
        fm_engine_safetensors_create(temporary, tensors, count, &writer, &err),
        &err);
    FM_ASSERT_OK(
        fm_engine_safetensors_append(writer, data.data, data.len, &err), &err);
    FM_ASSERT_OK(fm_engine_safetensors_finish(writer, &err), &err);
    fm_engine_safetensors_destroy(writer);
    fm_engine_safetensors_close(file);
    FM_ASSERT_OK(fm_file_rename(temporary, path, &err), &err);
    fm_buf_fini(&data);
    free(tensors);
    free(temporary);
    free(path);
}

/* --- imports -------------------------------------------------------------- */

fm_model_imported_t import_ok(shelf_t *shelf, const char *path,
                              const fm_digest_t *base)
{
    fm_model_imported_t imported = {0};
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_model_import(shelf->cas, path, base, &imported, &err),
                 &err);
    return imported;
}

void import_refused(shelf_t *shelf, const char *path, const fm_digest_t *base,
                    fm_status_t status, const char *words)
{
    fm_model_imported_t imported = {0};
    fm_error_t err = {0};
    fm_status_t rc = fm_model_import(shelf->cas, path, base, &imported, &err);

    if (rc != status || !strstr(err.text, words)) {
        (void)fprintf(stderr, "%s: %s: %s\n  instead of %s: %s\n", path,
                      fm_status_name(rc), err.text, fm_status_name(status),
                      words);
        CU_ASSERT(false);
    }
    CU_ASSERT(fm_digest_is_zero(&imported.digest));
}

bool files_equal(const char *dir_a, const char *dir_b, const char *name)
{
    const char *dirs[2] = {dir_a, dir_b};
    fm_buf_t bytes[2] = {{0}, {0}};
    fm_error_t err = {0};

    for (int i = 0; i < 2; i++) {
        char *path = fm_asprintf("%s/%s", dirs[i], name);
        FM_ASSERT_OK(fm_file_read(path, FILE_MAX, &bytes[i], &err), &err);
        free(path);
    }
    bool equal = bytes[0].len == bytes[1].len &&
                 memcmp(bytes[0].data, bytes[1].data, bytes[0].len) == 0;
    fm_buf_fini(&bytes[0]);
    fm_buf_fini(&bytes[1]);
    return equal;
}
