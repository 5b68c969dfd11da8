/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local cache of Hugging Face, read-only:
 *
 *   ROOT/models--ORG--NAME/refs/REVISION        the commit, 40 hex digits
 *   ROOT/models--ORG--NAME/snapshots/COMMIT/    the files, links into blobs/
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/mem.h"
#include "base/path.h"
#include "run/model/library.h"

#define PART_BYTES_MAX 96u
#define COMMIT_BYTES_MAX 128u

static bool letters_only(const char *text, size_t len)
{
    static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789._-";

    return len > 0 && len <= PART_BYTES_MAX && text[0] != '.' &&
           strspn(text, allowed) >= len;
}

bool fm_model_hub_spelled(const char *text)
{
    const char *slash = strchr(text, '/');

    return slash && !strchr(slash + 1, '/') &&
           letters_only(text, (size_t)(slash - text)) &&
           letters_only(slash + 1, strlen(slash + 1)) && !strstr(text, "--");
}

static char *cache_root(void)
{
    static const struct {
        const char *variable;
        const char *below;
    } places[] = {{"HF_HUB_CACHE", ""},
                  {"HUGGINGFACE_HUB_CACHE", ""},
                  {"HF_HOME", "/hub"},
                  {"XDG_CACHE_HOME", "/huggingface/hub"},
                  {"HOME", "/.cache/huggingface/hub"}};

    for (size_t i = 0; i < FM_COUNT_OF(places); i++) {
        const char *value = getenv(places[i].variable);
        if (value && *value) {
            return fm_asprintf("%s%s", value, places[i].below);
        }
    }
    return fm_strdup("/nonexistent");
}

static bool is_directory(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

/* The commit that refs/REVISION names; NULL when there is none. */
static char *ref_read(const char *repository, const char *revision)
{
    char *path = fm_asprintf("%s/refs/%s", repository, revision);
    fm_buf_t buf = {0};
    char *commit = NULL;

    if (path && fm_file_read(path, COMMIT_BYTES_MAX, &buf, NULL) >= 0) {
        const char *text = fm_buf_cstr(&buf);
        size_t len = strspn(text, "0123456789abcdef");
        commit = len > 0 ? fm_strndup(text, len) : NULL;
    }
    fm_buf_fini(&buf);
    free(path);
    return commit;
}

static fm_status_t absent(const char *identifier, const char *revision,
                          const char *repository, fm_error_t *err)
{
    bool known = is_directory(repository);

    return fm_error_set(
        err, FM_ERR_NOT_FOUND,
        "%s%s%s: %s; nothing is downloaded here, so on a machine with network "
        "run: huggingface-cli download %s%s%s",
        identifier, revision ? " at revision " : "", revision ? revision : "",
        known ? "its directory in the Hugging Face cache has no such revision"
              : "not in the Hugging Face cache",
        identifier, revision ? " --revision " : "", revision ? revision : "");
}

fm_status_t fm_model_hub_find(const char *identifier, const char *revision,
                              char **dir_out, fm_error_t *err)
{
    const char *slash = strchr(identifier, '/');
    char *root = NULL;
    char *repository = NULL;
    char *commit = NULL;
    char *dir = NULL;
    fm_status_t rc = FM_OK;

    if (!fm_model_hub_spelled(identifier)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%.200s: a model of a hub is spelled ORG/NAME",
                            identifier);
    }
    if (revision && !fm_path_is_inside(revision)) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%.200s: not a revision: want a branch, a tag or a "
                            "commit",
                            revision);
    }
    root = cache_root();
    repository =
        root ? fm_asprintf("%s/models--%.*s--%s", root,
                           (int)(slash - identifier), identifier, slash + 1)
             : NULL;
    if (!repository) {
        rc = fm_no_memory(err);
        goto out;
    }
    commit = ref_read(repository, revision ? revision : "main");
    if (!commit && revision) { /* a commit itself has no entry in refs */
        commit = fm_strdup(revision);
    }
    dir = commit ? fm_asprintf("%s/snapshots/%s", repository, commit) : NULL;
    if (!dir || !is_directory(dir)) {
        rc = absent(identifier, revision, repository, err);
        fm_error_wrap(err, "%s", root);
        goto out;
    }
    *dir_out = dir;
    dir = NULL;
out:
    free(dir);
    free(commit);
    free(repository);
    free(root);
    return rc;
}
