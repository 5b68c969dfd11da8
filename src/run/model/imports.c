/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory of imports: a file of JSON for each path and base, with name,
 * size, times and inode of every file that an import reads.
 *
 * A file that changes within the resolution of the clock of its file system
 * could look unchanged; so what was younger than QUIET_NS when the import
 * began is not trusted, and read again.  A memory that is damaged or of
 * another format is no memory.
 */
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/file.h"
#include "base/mem.h"
#include "run/model/place.h"
#include "run/model/source.h"

#define FORMAT "flowmesh-import/1"
#define QUIET_NS (2 * FM_NS_PER_S) /* the coarsest time stamps: FAT, 2 s */
#define MEMORY_BYTES_MAX ((size_t)4 << 20)
#define FILES_MAX 2048u

/* --- how the files are ---------------------------------------------------- */

static bool matters(const char *name)
{
    static const char *const ends[] = {".safetensors", ".json", ".jinja"};
    size_t len = strlen(name);

    for (size_t i = 0; i < FM_COUNT_OF(ends); i++) {
        size_t end = strlen(ends[i]);
        if (len > end && strcmp(name + len - end, ends[i]) == 0) {
            return true;
        }
    }
    return false;
}

static int64_t stamp_ns(const struct timespec *time)
{
    return (int64_t)time->tv_sec * FM_NS_PER_S + time->tv_nsec;
}

/* [size, mtime, ctime, inode, device]; NULL when it cannot be looked at. */
static fm_json_t *file_state(const char *path)
{
    struct stat info;
    fm_json_t *state = fm_json_array();

    if (!state || stat(path, &info) != 0) {
        return fm_json_drop(state);
    }
    const int64_t values[] = {(int64_t)info.st_size, stamp_ns(&info.st_mtim),
                              stamp_ns(&info.st_ctim), (int64_t)info.st_ino,
                              (int64_t)info.st_dev};
    for (size_t i = 0; i < FM_COUNT_OF(values); i++) {
        if (fm_json_append(state, fm_json_int(values[i])) < 0) {
            return fm_json_drop(state);
        }
    }
    return state;
}

/* {name: state} of every file in the directory of @p path that matters. */
static fm_status_t files_look(const char *path, fm_json_t **files_out,
                              fm_error_t *err)
{
    char *dir_path = fm_source_dir(path);
    DIR *dir = dir_path ? opendir(dir_path) : NULL;
    fm_json_t *files = fm_json_object();
    const struct dirent *entry = NULL;
    fm_status_t rc = dir_path && files ? FM_OK : fm_no_memory(err);

    if (rc >= 0 && !dir) {
        rc = fm_error_set_errno(err,
                                errno == ENOENT ? FM_ERR_NOT_FOUND : FM_ERR_IO,
                                errno, "open %s", dir_path);
    }
    while (rc >= 0 && dir && (entry = readdir(dir))) {
        if (!matters(entry->d_name)) {
            continue;
        }
        char *file = fm_asprintf("%s/%s", dir_path, entry->d_name);
        fm_json_t *state = file ? file_state(file) : NULL;
        free(file);
        if (state && fm_json_set(files, entry->d_name, state) < 0) {
            rc = fm_no_memory(err);
        } else if (fm_json_len(files) > FILES_MAX) {
            rc = fm_error_set(err, FM_ERR_LIMIT,
                              "%s: more than %u files; name one model's "
                              "directory",
                              dir_path, FILES_MAX);
        }
    }
    if (dir) {
        (void)closedir(dir);
    }
    free(dir_path);
    if (rc < 0) {
        fm_json_drop(files);
        return rc;
    }
    *files_out = files;
    return FM_OK;
}

/* All of it was quiet for a while before @p now_ns. */
static bool was_quiet(const fm_json_t *files, int64_t now_ns)
{
    void *at = NULL;
    const char *name = NULL;
    fm_json_t *state = NULL;

    while (fm_json_next(files, &at, &name, &state)) {
        if (fm_json_int_or(fm_json_at(state, 1), INT64_MAX) >
                now_ns - QUIET_NS ||
            fm_json_int_or(fm_json_at(state, 2), INT64_MAX) >
                now_ns - QUIET_NS) {
            return false;
        }
    }
    return true;
}

/* --- memory --------------------------------------------------------------- */

/* DIR/models/.imports/<hash of path and base>.json */
static char *memory_path(const fm_model_library_t *library, const char *path,
                         const fm_digest_t *base)
{
    char of[FM_DIGEST_TEXT_BYTES] = "";
    char name[FM_DIGEST_TEXT_BYTES];
    char *key =
        fm_asprintf("%s\n%s", base ? fm_digest_format(base, of) : "", path);

    if (!key) {
        return NULL;
    }
    fm_digest_t hash = fm_sha256(key, strlen(key));
    free(key);
    return fm_asprintf("%s/.imports/%s.json", library->models,
                       fm_digest_format(&hash, name) + strlen("sha256:"));
}

/* The manifest and everything it names are in the store. */
static bool is_whole(fm_cas_t *cas, const fm_digest_t *digest)
{
    fm_model_manifest_t manifest = {0};
    fm_digest_t tokenizer;
    bool whole = fm_cas_has(cas, digest) &&
                 fm_model_manifest_read(cas, digest, &manifest, NULL) >= 0;
    const char *text =
        fm_json_get_str(fm_json_get(manifest.json, "tokenizer"), "digest");

    for (size_t i = 0; whole && i < manifest.tensor_count; i++) {
        whole = fm_cas_has(cas, &manifest.tensors[i].digest);
    }
    if (whole && text) {
        whole =
            fm_digest_parse(text, &tokenizer) && fm_cas_has(cas, &tokenizer);
    }
    fm_model_manifest_fini(&manifest);
    return whole;
}

static bool memory_read(const char *path, fm_json_t **memory_out)
{
    fm_buf_t text = {0};
    bool good = fm_file_read(path, MEMORY_BYTES_MAX, &text, NULL) >= 0 &&
                fm_json_parse((const char *)text.data, text.len, path,
                              memory_out, NULL) >= 0;

    fm_buf_fini(&text);
    return good;
}

static bool memory_fits(fm_model_library_t *library, const fm_json_t *memory,
                        const char *path, const fm_json_t *files,
                        fm_model_imported_t *imported)
{
    const char *format = fm_json_get_str(memory, "format");
    const char *source = fm_json_get_str(memory, "source");
    const char *digest = fm_json_get_str(memory, "digest");

    if (!format || strcmp(format, FORMAT) != 0 || !source ||
        strcmp(source, path) != 0 || !digest ||
        !fm_digest_parse(digest, &imported->digest) ||
        !fm_json_equal(fm_json_get(memory, "files"), files) ||
        !was_quiet(files, fm_json_get_int(memory, "now_ns", 0)) ||
        !is_whole(library->cas, &imported->digest)) {
        return false;
    }
    imported->from_cache = true;
    imported->is_adapter = fm_json_get_bool(memory, "is_adapter", false);
    imported->tensor_count = (size_t)fm_json_get_int(memory, "tensors", 0);
    imported->parameters = (uint64_t)fm_json_get_int(memory, "parameters", 0);
    imported->bytes = (uint64_t)fm_json_get_int(memory, "bytes", 0);
    imported->shared_count = imported->tensor_count;
    imported->shared_bytes = imported->bytes;
    return true;
}

fm_status_t fm_import_recall(fm_model_library_t *library, const char *path,
                             const fm_digest_t *base, fm_json_t **files_out,
                             bool *found_out, fm_model_imported_t *imported_out,
                             fm_error_t *err)
{
    fm_json_t *memory = NULL;
    fm_json_t *files = NULL;
    fm_model_imported_t imported = {0};
    fm_status_t rc = files_look(path, &files, err);

    if (rc < 0) {
        return rc;
    }
    char *memory_file = memory_path(library, path, base);
    *found_out = memory_file && memory_read(memory_file, &memory) &&
                 memory_fits(library, memory, path, files, &imported);
    if (*found_out) {
        *imported_out = imported;
    }
    *files_out = files;
    fm_json_drop(memory);
    free(memory_file);
    return FM_OK;
}

static fm_status_t memory_write(const char *file, const char *path,
                                const fm_json_t *files, int64_t now_ns,
                                const fm_model_imported_t *imported,
                                fm_error_t *err)
{
    fm_json_t *memory = fm_json_object();
    char digest[FM_DIGEST_TEXT_BYTES];
    char *text = NULL;
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (memory && fm_json_set(memory, "format", fm_json_string(FORMAT)) >= 0 &&
        fm_json_set(memory, "source", fm_json_string(path)) >= 0 &&
        fm_json_set(
            memory, "digest",
            fm_json_string(fm_digest_format(&imported->digest, digest))) >= 0 &&
        fm_json_set(memory, "files", fm_json_keep(files)) >= 0 &&
        fm_json_set(memory, "now_ns", fm_json_int(now_ns)) >= 0 &&
        fm_json_set(memory, "is_adapter", fm_json_bool(imported->is_adapter)) >=
            0 &&
        fm_json_set(memory, "tensors",
                    fm_json_int((int64_t)imported->tensor_count)) >= 0 &&
        fm_json_set(memory, "parameters",
                    fm_json_int((int64_t)imported->parameters)) >= 0 &&
        fm_json_set(memory, "bytes", fm_json_int((int64_t)imported->bytes)) >=
            0 &&
        (text = fm_json_dump(memory))) {
        rc = fm_file_replace(file, text, strlen(text), err);
    } else {
        (void)fm_no_memory(err);
    }
    free(text);
    fm_json_drop(memory);
    return rc;
}

fm_status_t fm_import_remember(fm_model_library_t *library, const char *path,
                               const fm_digest_t *base, const fm_json_t *files,
                               int64_t now_ns,
                               const fm_model_imported_t *imported,
                               fm_error_t *err)
{
    char *dir = fm_asprintf("%s/.imports", library->models);
    char *file = memory_path(library, path, base);
    fm_json_t *after = NULL;
    fm_status_t rc =
        dir && file ? files_look(path, &after, err) : fm_no_memory(err);

    if (rc >= 0 && !fm_json_equal(files, after)) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "%s: a file changed while it was read; import it "
                          "when nobody writes to it",
                          path);
    }
    if (rc >= 0 && (rc = fm_file_make_dirs(dir, 0755, err)) >= 0) {
        rc = memory_write(file, path, files, now_ns, imported, err);
    }
    fm_json_drop(after);
    free(dir);
    free(file);
    return rc;
}
