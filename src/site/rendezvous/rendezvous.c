/* SPDX-License-Identifier: Apache-2.0 */
/* control.json and the key that cells share. */
#include "site/rendezvous/rendezvous.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/json.h"
#include "base/mem.h"

#define FILE_BYTES_MAX 65536u
#define VERSION 1
#define KEY_FORMAT "%s\n%s\n" /* public, secret */

static char *file_in(const char *dir, const char *name)
{
    return fm_asprintf("%s/%s", dir, name);
}

/* --- control.json --------------------------------------------------------- */

fm_status_t fm_rendezvous_publish(const char *dir, const fm_rendezvous_t *at,
                                  fm_error_t *err)
{
    fm_json_t *json = fm_json_object();
    char *path = file_in(dir, "control.json");
    char *text = NULL;
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!path || !json || fm_json_set(json, "v", fm_json_int(VERSION)) < 0 ||
        fm_json_set(json, "instance", fm_json_int(at->instance)) < 0 ||
        fm_json_set(json, "endpoint", fm_json_string(at->endpoint)) < 0 ||
        fm_json_set(json, "public_key", fm_json_string(at->public_key)) < 0 ||
        fm_json_set(json, "host", fm_json_string(at->host)) < 0 ||
        fm_json_set(json, "pid", fm_json_int(at->pid)) < 0 ||
        fm_json_set(json, "started_ns", fm_json_int(at->started_ns)) < 0 ||
        !(text = fm_json_dump_pretty(json))) {
        (void)fm_no_memory(err);
        goto out;
    }
    rc = fm_file_replace(path, text, strlen(text), err);
    if (rc >= 0 && chmod(path, 0600) != 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "chmod %s", path);
    }
out:
    free(text);
    free(path);
    fm_json_drop(json);
    return rc;
}

static fm_status_t fill(const fm_json_t *json, const char *path,
                        fm_rendezvous_t *out, fm_error_t *err)
{
    const char *endpoint = fm_json_get_str(json, "endpoint");
    const char *key = fm_json_get_str(json, "public_key");
    const char *host = fm_json_get_str(json, "host");
    int64_t instance = fm_json_get_int(json, "instance", -1);

    if (fm_json_get_int(json, "v", 0) != VERSION) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: v must be %d: another version of flowmesh "
                            "serves this fabric",
                            path, VERSION);
    }
    if (!endpoint || !host || !key || strlen(key) != FM_LINK_ZMQ_KEY_TEXT ||
        instance < 0 || instance > UINT32_MAX) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: instance, endpoint, host and public_key must "
                            "be there: start the control plane anew",
                            path);
    }
    *out =
        (fm_rendezvous_t){.instance = (uint32_t)instance,
                          .endpoint = fm_strdup(endpoint),
                          .host = fm_strdup(host),
                          .pid = fm_json_get_int(json, "pid", 0),
                          .started_ns = fm_json_get_int(json, "started_ns", 0)};
    memcpy(out->public_key, key, FM_LINK_ZMQ_KEY_TEXT);
    if (!out->endpoint || !out->host) {
        fm_rendezvous_fini(out);
        return fm_no_memory(err);
    }
    return FM_OK;
}

fm_status_t fm_rendezvous_read(const char *dir, fm_rendezvous_t *out,
                               fm_error_t *err)
{
    fm_buf_t text = {0};
    fm_json_t *json = NULL;
    char *path = file_in(dir, "control.json");
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!path) {
        (void)fm_no_memory(err);
        goto out;
    }
    if ((rc = fm_file_read(path, FILE_BYTES_MAX, &text, err)) < 0 ||
        (rc = fm_json_parse((const char *)text.data, text.len, path, &json,
                            err)) < 0) {
        goto out;
    }
    rc = fill(json, path, out, err);
out:
    fm_buf_fini(&text);
    fm_json_drop(json);
    free(path);
    return rc;
}

void fm_rendezvous_fini(fm_rendezvous_t *at)
{
    free(at->endpoint);
    free(at->host);
    *at = (fm_rendezvous_t){0};
}

void fm_rendezvous_withdraw(const char *dir, uint32_t instance)
{
    fm_rendezvous_t at = {0};
    char *path = file_in(dir, "control.json");

    if (path && fm_rendezvous_read(dir, &at, NULL) >= 0) {
        if (at.instance == instance) {
            (void)unlink(path);
        }
        fm_rendezvous_fini(&at);
    }
    free(path);
}

/* --- the key -------------------------------------------------------------- */

/* A file beside, then a link: whoever comes first stays. */
static fm_status_t key_create(const char *path, fm_error_t *err)
{
    fm_link_zmq_keys_t keys;
    char *fresh = fm_asprintf("%s.%ld", path, (long)getpid());
    char *text = NULL;
    int fd = -1;
    fm_status_t rc = fm_link_zmq_keys_make(&keys, err);

    if (rc < 0) {
        goto out;
    }
    text = fm_asprintf(KEY_FORMAT, keys.public_key, keys.secret_key);
    if (!fresh || !text) {
        rc = fm_no_memory(err);
        goto out;
    }
    (void)unlink(fresh);
    fd = open(fresh, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "create %s", fresh);
        goto out;
    }
    if ((rc = fm_file_write_all(fd, text, strlen(text), fresh, err)) >= 0 &&
        (rc = fm_file_fsync(fd, fresh, err)) >= 0 && link(fresh, path) != 0 &&
        errno != EEXIST) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "link %s", path);
    }
    (void)unlink(fresh);
    if (rc >= 0) {
        rc = fm_file_fsync_parent(path, err);
    }
out:
    if (fd >= 0) {
        (void)close(fd);
    }
    free(fresh);
    free(text);
    return rc;
}

static fm_status_t key_check(const char *path, fm_error_t *err)
{
    struct stat st;

    if (lstat(path, &st) != 0) {
        return fm_error_set_errno(err, FM_ERR_NOT_FOUND, errno, "%s", path);
    }
    if (!S_ISREG(st.st_mode) || (st.st_mode & 077) != 0 ||
        st.st_uid != geteuid()) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "%s: others than its owner may read it, or it is "
                            "not ours; chmod 600 it, or remove it so that the "
                            "control plane makes a new one",
                            path);
    }
    return FM_OK;
}

static fm_status_t key_read(const char *path, fm_link_zmq_keys_t *keys_out,
                            fm_error_t *err)
{
    fm_buf_t text = {0};
    fm_link_zmq_keys_t keys = {{0}, {0}};
    fm_status_t rc = key_check(path, err);

    if (rc >= 0) {
        rc = fm_file_read(path, FILE_BYTES_MAX, &text, err);
    }
    if (rc >= 0) {
        if (text.len != 2 * (FM_LINK_ZMQ_KEY_TEXT + 1) ||
            text.data[FM_LINK_ZMQ_KEY_TEXT] != '\n') {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "%s: it holds no key pair; remove it so that the "
                              "control plane makes a new one",
                              path);
        } else {
            memcpy(keys.public_key, text.data, FM_LINK_ZMQ_KEY_TEXT);
            memcpy(keys.secret_key, text.data + FM_LINK_ZMQ_KEY_TEXT + 1,
                   FM_LINK_ZMQ_KEY_TEXT);
            *keys_out = keys;
        }
    }
    fm_buf_fini(&text);
    return rc;
}

fm_status_t fm_rendezvous_keys(const char *dir, bool create,
                               fm_link_zmq_keys_t *keys_out, fm_error_t *err)
{
    char *keys_dir = file_in(dir, "keys");
    char *path = file_in(dir, "keys/cell.key");
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!keys_dir || !path) {
        (void)fm_no_memory(err);
        goto out;
    }
    rc = key_read(path, keys_out, err);
    if (rc == FM_ERR_NOT_FOUND && create) {
        rc = fm_file_make_dirs(keys_dir, 0700, err);
        if (rc >= 0) {
            rc = key_create(path, err);
        }
        if (rc >= 0) {
            rc = key_read(path, keys_out, err);
        }
    }
out:
    free(keys_dir);
    free(path);
    return rc;
}
