/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files for executors that know no store (docs/spec/executor.md, X20-X22):
 * objects a lease names are written below the executor's work directory
 * before it runs, files it answers with are stored.
 *
 * All of it happens on the reactor's storage thread, through a store of the
 * worker's own, opened when first needed.  A job may outlive its worker: it
 * then ends without effect, and the last one closes the store and removes the
 * work directory.  Counts and lists belong to the reactor's thread; `cas` to
 * the storage thread while a job is under way.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "io/wire/wire.h"
#include "role/worker/internal.h"
#include "store/cas/cas.h"

/* A JSON value is parsed in memory, at several times its size. */
#define VALUE_BYTES_MAX ((size_t)256 << 20)

struct fm_worker_store {
    char *cas_dir;
    char *writer;
    char *work_dir;
    fm_cas_t *cas;
    unsigned refs; /* the worker and its jobs */
};

/* One piece of work for the storage thread. */
struct job {
    struct fm_worker_store *store;
    fm_worker_t *worker; /* NULL: closed meanwhile */
    struct job *next;    /* in worker->jobs */
    uint64_t lease;
    /* staging: what the batch gave away until the job is done */
    fm_json_t *params;
    fm_json_t **values;
    uint32_t *indices;
    size_t count;
    /* storing */
    struct pending_item item;
    struct pending_objects objects;
    char *path;
};

/* --- the store ------------------------------------------------------------ */

static void store_release(struct fm_worker_store *store)
{
    fm_error_t err = {0};

    if (!store || --store->refs > 0) {
        return;
    }
    fm_cas_close(store->cas);
    if (store->work_dir && fm_file_remove_tree(store->work_dir, &err) < 0) {
        fm_log(FM_LOG_WARN, "%s", err.text);
    }
    free(store->cas_dir);
    free(store->writer);
    free(store->work_dir);
    free(store);
}

static char *make_work_dir(const char *name, fm_error_t *err)
{
    const char *root = getenv("TMPDIR");
    char *given = fm_asprintf("%s/flowmesh-%s-XXXXXX",
                              root && *root == '/' ? root : "/tmp", name);
    char *real = NULL;

    if (!given) {
        (void)fm_no_memory(err);
    } else if (!mkdtemp(given) || !(real = realpath(given, NULL))) {
        (void)fm_error_set_errno(err, FM_ERR_IO, errno,
                                 "make a work directory %s (set TMPDIR to a "
                                 "directory that can be written)",
                                 given);
    }
    free(given);
    return real;
}

fm_status_t fm_worker_store_open(fm_worker_t *worker, const char *writer,
                                 fm_error_t *err)
{
    struct fm_worker_store *store = fm_calloc(1, sizeof(*store));

    if (!store) {
        return fm_no_memory(err);
    }
    store->refs = 1;
    worker->store = store;
    if (!(store->cas_dir = fm_asprintf("%s/cas", worker->fabric_dir)) ||
        !(store->writer = fm_strdup(writer))) {
        return fm_no_memory(err);
    }
    store->work_dir = make_work_dir(worker->name, err);
    return store->work_dir ? FM_OK : err->status;
}

const char *fm_worker_store_dir(const fm_worker_t *worker)
{
    return worker->store->work_dir;
}

/* Storage thread. */
static fm_status_t store_need(struct fm_worker_store *store, fm_error_t *err)
{
    fm_cas_options_t opts = {.writer = store->writer};

    return store->cas ? FM_OK
                      : fm_cas_open(store->cas_dir, &opts, &store->cas, err);
}

/* --- jobs ----------------------------------------------------------------- */

static void job_destroy(struct job *job)
{
    if (!job) {
        return;
    }
    for (size_t i = 0; job->values && i < job->count; i++) {
        fm_json_drop(job->values[i]);
    }
    free(job->values);
    free(job->indices);
    fm_json_drop(job->params);
    fm_worker_item_fini(&job->item);
    fm_worker_objects_fini(&job->objects);
    free(job->path);
    store_release(job->store);
    free(job);
}

static struct job *job_create(fm_worker_t *worker)
{
    struct job *job = fm_calloc(1, sizeof(*job));

    if (job) {
        job->store = worker->store;
        job->store->refs++;
        job->lease = worker->batch.lease;
    }
    return job;
}

/* Hand it to the storage thread; on failure it is still the caller's. */
static fm_status_t job_start(fm_worker_t *worker, struct job *job,
                             fm_reactor_offload_fn work,
                             fm_reactor_done_fn done, fm_error_t *err)
{
    fm_status_t rc = fm_reactor_offload(worker->reactor, work, done, job, err);

    if (rc >= 0) {
        job->worker = worker;
        job->next = worker->jobs;
        worker->jobs = job;
    }
    return rc;
}

/* Off the list; false when nobody waits for it any more. */
static bool job_finish(struct job *job)
{
    fm_worker_t *worker = job->worker;

    if (!worker) {
        return false;
    }
    for (struct job **at = &worker->jobs; *at; at = &(*at)->next) {
        if (*at == job) {
            *at = job->next;
            break;
        }
    }
    return worker->batch.lease == job->lease && !worker->ending;
}

void fm_worker_store_close(fm_worker_t *worker)
{
    for (struct job *job = worker->jobs; job; job = job->next) {
        job->worker = NULL;
    }
    worker->jobs = NULL;
    store_release(worker->store);
    worker->store = NULL;
}

/* --- objects to files ----------------------------------------------------- */

/* X20: {"$object": digest} or {"$object": digest, "locator": text}. */
static const char *object_of(const fm_json_t *value)
{
    const char *digest = fm_json_get_str(value, "$object");
    size_t known = 1 + (fm_json_get_str(value, "locator") != NULL);

    return digest && fm_json_len(value) == known ? digest : NULL;
}

static fm_status_t object_read(fm_cas_t *cas, const fm_json_t *value,
                               fm_buf_t *buf, fm_error_t *err)
{
    const char *text = object_of(value);
    const char *where = fm_json_get_str(value, "locator");
    fm_cas_locator_t locator;
    fm_digest_t digest;
    uint64_t bytes = 0;

    if (!fm_digest_parse(text, &digest)) {
        return fm_error_set(err, FM_ERR_INVALID, "$object: %.80s is no digest",
                            text);
    }
    if (where && fm_cas_locator_parse(where, &locator)) {
        /* a hint: without it the directory is scanned */
        (void)!fm_cas_learn(cas, &digest, &locator, NULL);
    }
    if (fm_cas_size(cas, &digest, NULL, &bytes) && bytes > VALUE_BYTES_MAX) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "$object %s: %llu bytes; at most %zu", text,
                            (unsigned long long)bytes, VALUE_BYTES_MAX);
    }
    return fm_cas_get(cas, &digest, buf, err);
}

/* Write what @p value names to DIR/NAME and say so in @p value. */
static fm_status_t stage_value(fm_cas_t *cas, const char *dir, const char *name,
                               fm_json_t *value, fm_error_t *err)
{
    fm_buf_t buf = {0};
    char *path = NULL;
    fm_status_t rc = FM_OK;

    if (!object_of(value)) {
        return FM_OK;
    }
    if (!(path = fm_asprintf("%s/%s", dir, name))) {
        rc = fm_no_memory(err);
    } else if ((rc = object_read(cas, value, &buf, err)) >= 0 &&
               (rc = fm_file_replace(path, buf.data, buf.len, err)) >= 0 &&
               fm_json_set(value, "path", fm_json_string(path)) < 0) {
        rc = fm_no_memory(err);
    }
    fm_buf_fini(&buf);
    free(path);
    return rc;
}

static char *lease_dir(const struct fm_worker_store *store, uint64_t lease)
{
    return fm_asprintf("%s/lease-%llu", store->work_dir,
                       (unsigned long long)lease);
}

static fm_status_t stage_work(void *ctx, fm_error_t *err)
{
    struct job *job = ctx;
    char *dir = lease_dir(job->store, job->lease);
    char name[32];
    fm_status_t rc = dir ? FM_OK : fm_no_memory(err);

    if (rc >= 0 && (rc = store_need(job->store, err)) >= 0 &&
        (rc = fm_file_make_dirs(dir, 0700, err)) >= 0) {
        rc = stage_value(job->store->cas, dir, "params.json", job->params, err);
    }
    for (size_t i = 0; rc >= 0 && i < job->count; i++) {
        (void)snprintf(name, sizeof(name), "item-%u.json", job->indices[i]);
        rc = stage_value(job->store->cas, dir, name, job->values[i], err);
    }
    free(dir);
    return rc;
}

static void stage_done(void *ctx, fm_status_t status, const fm_error_t *cause)
{
    struct job *job = ctx;
    fm_worker_t *worker = job->worker;

    if (job_finish(job)) {
        struct batch *batch = &worker->batch;
        batch->params = job->params;
        batch->values = job->values;
        job->params = NULL;
        job->values = NULL;
        if (status >= 0) {
            fm_worker_batch_run(worker);
        } else {
            fm_worker_batch_abort(worker, FM_ITEM_INFRA_ERROR, cause->text);
            fm_worker_batch_start(worker);
        }
    }
    job_destroy(job);
}

bool fm_worker_stage_wanted(const fm_worker_t *worker)
{
    const struct batch *batch = &worker->batch;
    bool wanted = object_of(batch->params) != NULL;

    for (size_t i = 0; i < batch->value_count; i++) {
        wanted = wanted || object_of(batch->values[i]);
    }
    return wanted && worker->stage_files;
}

fm_status_t fm_worker_stage(fm_worker_t *worker, fm_error_t *err)
{
    struct batch *batch = &worker->batch;
    struct job *job = job_create(worker);

    if (!job ||
        !(job->indices = fm_calloc(batch->value_count, sizeof(uint32_t)))) {
        job_destroy(job);
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < batch->value_count; i++) {
        job->indices[i] = batch->msg.lease.items[i].index;
    }
    job->count = batch->value_count;
    job->params = batch->params;
    job->values = batch->values;
    fm_status_t rc = job_start(worker, job, stage_work, stage_done, err);
    if (rc < 0) { /* the batch keeps them */
        job->params = NULL;
        job->values = NULL;
        job_destroy(job);
        return rc;
    }
    batch->params = NULL;
    batch->values = NULL;
    batch->staged = true;
    return FM_OK;
}

static fm_status_t unstage_work(void *ctx, fm_error_t *err)
{
    const struct job *job = ctx;
    char *dir = lease_dir(job->store, job->lease);
    fm_status_t rc = dir ? fm_file_remove_tree(dir, err) : fm_no_memory(err);

    free(dir);
    return rc;
}

static void unstage_done(void *ctx, fm_status_t status, const fm_error_t *err)
{
    struct job *job = ctx;

    if (status < 0) {
        fm_log(FM_LOG_WARN, "staged files: %s", err->text);
    }
    (void)job_finish(job);
    job_destroy(job);
}

void fm_worker_unstage(fm_worker_t *worker)
{
    struct job *job = job_create(worker);
    fm_error_t err = {0};

    /* what stays behind goes with the work directory */
    if (!job || job_start(worker, job, unstage_work, unstage_done, &err) < 0) {
        job_destroy(job);
    }
}

/* --- files to objects ----------------------------------------------------- */

/* The file an executor named, and nothing outside its work directory. */
static fm_status_t result_read(const struct job *job, fm_buf_t *buf,
                               fm_error_t *err)
{
    const char *dir = job->store->work_dir;
    char *path = fm_asprintf("%s/%s", dir, job->path);
    char *real = path ? realpath(path, NULL) : NULL;
    struct stat st;
    fm_status_t rc = FM_OK;

    if (!path) {
        rc = fm_no_memory(err);
    } else if (!real || stat(real, &st) != 0) {
        rc = fm_error_set(err, FM_ERR_INVALID, "output file %s: %s", job->path,
                          strerror(errno));
    } else if (strncmp(real, dir, strlen(dir)) != 0 ||
               real[strlen(dir)] != '/' || !S_ISREG(st.st_mode)) {
        rc = fm_error_set(err, FM_ERR_INVALID,
                          "output file %s: not a file below the work directory",
                          job->path);
    } else {
        rc = fm_file_read(real, VALUE_BYTES_MAX, buf, err);
        if (rc >= 0) {
            (void)unlink(real); /* else it goes with the work directory */
        }
    }
    free(path);
    free(real);
    return rc;
}

static fm_status_t result_put(struct job *job, fm_error_t *err)
{
    char text[FM_CAS_LOCATOR_TEXT_BYTES];
    fm_cas_locator_t locator;
    fm_digest_t digest;
    fm_status_t rc = store_need(job->store, err);

    if (rc < 0 ||
        (rc = fm_cas_put(job->store->cas, FM_CAS_ITEM, job->item.bytes,
                         job->item.len, &digest, err)) < 0 ||
        (rc = fm_cas_seal(job->store->cas, err)) < 0) {
        return rc;
    }
    if (!fm_cas_locate(job->store->cas, &digest, &locator)) {
        return fm_error_set(err, FM_ERR_IO, "the stored output is gone");
    }
    free(job->item.bytes);
    job->item.bytes = NULL;
    job->item.len = 0;
    job->item.locator = fm_strdup(fm_cas_locator_format(&locator, text));
    return job->item.locator ? FM_OK : fm_no_memory(err);
}

/* From the file the executor wrote to the canonical bytes of its value. */
static fm_status_t result_load(struct job *job, fm_error_t *err)
{
    fm_buf_t buf = {0};
    fm_json_t *value = NULL;
    fm_status_t rc = result_read(job, &buf, err);

    if (rc >= 0) {
        rc = fm_json_parse(buf.len ? (const char *)buf.data : "", buf.len,
                           job->path, &value, err);
    }
    fm_buf_fini(&buf);
    if (rc >= 0 && !(job->item.bytes = fm_json_canonical(value))) {
        rc = fm_no_memory(err);
    }
    fm_json_drop(value);
    if (rc >= 0) {
        job->item.len = strlen(job->item.bytes);
        job->item.digest = fm_sha256(job->item.bytes, job->item.len);
    }
    return rc;
}

static fm_status_t result_work(void *ctx, fm_error_t *err)
{
    struct job *job = ctx;
    fm_status_t rc = job->path ? result_load(job, err) : FM_OK;

    if (rc >= 0 && job->item.len > FM_WIRE_INLINE_MAX_BYTES) {
        rc = result_put(job, err);
    }
    return rc;
}

/* What the file says is the task's fault; the rest is the place's. */
static void result_failed(struct pending_item *item, fm_status_t status,
                          const char *text)
{
    bool task = status == FM_ERR_INVALID || status == FM_ERR_LIMIT;

    item->status = task ? FM_ITEM_TASK_ERROR : FM_ITEM_INFRA_ERROR;
    free(item->bytes);
    item->bytes = NULL;
    item->len = 0;
    item->error = fm_strdup(text);
}

static void result_done(void *ctx, fm_status_t status, const fm_error_t *err)
{
    struct job *job = ctx;
    fm_worker_t *worker = job->worker;

    if (job_finish(job)) {
        if (status < 0) {
            result_failed(&job->item, status, err->text);
        }
        fm_worker_batch_stored(worker, &job->item, &job->objects);
    }
    job_destroy(job);
}

fm_status_t fm_worker_store_result(fm_worker_t *worker, const char *path,
                                   struct pending_item *item,
                                   struct pending_objects *objects,
                                   fm_error_t *err)
{
    struct job *job = job_create(worker);
    fm_status_t rc = FM_ERR_NO_MEMORY;

    if (!job || (path && !(job->path = fm_strdup(path)))) {
        job_destroy(job);
        return fm_no_memory(err);
    }
    /* from its start on the job is the storage thread's */
    job->item = *item;
    job->objects = *objects;
    if ((rc = job_start(worker, job, result_work, result_done, err)) < 0) {
        memset(&job->item, 0, sizeof(job->item)); /* still the caller's */
        memset(&job->objects, 0, sizeof(job->objects));
        job_destroy(job);
        return rc;
    }
    memset(item, 0, sizeof(*item));
    memset(objects, 0, sizeof(*objects));
    return FM_OK;
}
