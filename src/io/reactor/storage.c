/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread, two queues under one lock: jobs to do and jobs done.  A job is
 * in exactly one of them, or in the hands of the thread; it is allocated and
 * freed on the reactor's thread.  `outstanding` belongs to that thread alone.
 */
#include "io/reactor/storage.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/mem.h"

struct job {
    struct job *next;
    fm_reactor_offload_fn work;
    fm_reactor_done_fn done;
    void *ctx;
    fm_status_t status;
    fm_error_t error;
};

struct queue {
    struct job *head;
    struct job *tail;
};

struct fm_storage {
    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct queue waiting;  /* under lock */
    struct queue finished; /* under lock */
    bool stopping;         /* under lock */
    int event_fd;
    size_t outstanding;
};

static void queue_push(struct queue *queue, struct job *job)
{
    job->next = NULL;
    if (queue->tail) {
        queue->tail->next = job;
    } else {
        queue->head = job;
    }
    queue->tail = job;
}

static struct job *queue_pop(struct queue *queue)
{
    struct job *job = queue->head;

    if (job) {
        queue->head = job->next;
        if (!queue->head) {
            queue->tail = NULL;
        }
    }
    return job;
}

static void *storage_main(void *arg)
{
    fm_storage_t *storage = arg;

    pthread_mutex_lock(&storage->lock);
    for (;;) {
        struct job *job = queue_pop(&storage->waiting);
        if (!job && storage->stopping) {
            break;
        }
        if (!job) {
            pthread_cond_wait(&storage->changed, &storage->lock);
            continue;
        }
        pthread_mutex_unlock(&storage->lock);
        job->status = job->work(job->ctx, &job->error);
        pthread_mutex_lock(&storage->lock);
        queue_push(&storage->finished, job);
        /* An eventfd refuses a write only when its count would overflow, and
         * then it is readable, which is all that matters. */
        uint64_t one = 1;
        ssize_t n = write(storage->event_fd, &one, sizeof(one));
        (void)n;
    }
    pthread_mutex_unlock(&storage->lock);
    return NULL;
}

static fm_status_t thread_start(fm_storage_t *storage, fm_error_t *err)
{
    sigset_t all;
    sigset_t former;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &former);
    int rc = pthread_create(&storage->thread, NULL, storage_main, storage);
    pthread_sigmask(SIG_SETMASK, &former, NULL);
    if (rc != 0) {
        return fm_error_set_errno(err, FM_ERR_IO, rc, "start storage thread");
    }
    storage->started = true;
    return FM_OK;
}

fm_status_t fm_storage_create(fm_storage_t **storage_out, fm_error_t *err)
{
    fm_storage_t *storage = fm_calloc(1, sizeof(*storage));
    fm_status_t rc = FM_OK;

    if (!storage) {
        return fm_no_memory(err);
    }
    pthread_mutex_init(&storage->lock, NULL);
    pthread_cond_init(&storage->changed, NULL);
    storage->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (storage->event_fd < 0) {
        rc = fm_error_set_errno(err, FM_ERR_IO, errno, "create eventfd");
        goto out;
    }
    if ((rc = thread_start(storage, err)) < 0) {
        goto out;
    }
    *storage_out = storage;
    storage = NULL;
out:
    fm_storage_destroy(storage);
    return rc;
}

fm_storage_t *fm_storage_destroy(fm_storage_t *storage)
{
    if (!storage) {
        return NULL;
    }
    if (storage->started) {
        pthread_mutex_lock(&storage->lock);
        storage->stopping = true;
        pthread_cond_signal(&storage->changed);
        pthread_mutex_unlock(&storage->lock);
        pthread_join(storage->thread, NULL);
        (void)fm_storage_complete(storage);
    }
    if (storage->event_fd >= 0) {
        (void)close(storage->event_fd);
    }
    pthread_cond_destroy(&storage->changed);
    pthread_mutex_destroy(&storage->lock);
    free(storage);
    return NULL;
}

fm_status_t fm_storage_submit(fm_storage_t *storage, fm_reactor_offload_fn work,
                              fm_reactor_done_fn done, void *ctx,
                              fm_error_t *err)
{
    if (storage->outstanding >= FM_REACTOR_OFFLOAD_MAX) {
        return fm_error_set(err, FM_ERR_FULL,
                            "storage thread: %d jobs outstanding; the disk "
                            "does not keep up, try later",
                            FM_REACTOR_OFFLOAD_MAX);
    }
    struct job *job = fm_calloc(1, sizeof(*job));
    if (!job) {
        return fm_no_memory(err);
    }
    job->work = work;
    job->done = done;
    job->ctx = ctx;
    pthread_mutex_lock(&storage->lock);
    queue_push(&storage->waiting, job);
    pthread_cond_signal(&storage->changed);
    pthread_mutex_unlock(&storage->lock);
    storage->outstanding++;
    return FM_OK;
}

size_t fm_storage_complete(fm_storage_t *storage)
{
    uint64_t count = 0;
    size_t done = 0;

    /* Cleared before the queue is emptied, so that what finishes meanwhile
     * makes it readable again. */
    ssize_t n = read(storage->event_fd, &count, sizeof(count));
    (void)n;
    pthread_mutex_lock(&storage->lock);
    struct queue finished = storage->finished;
    storage->finished = (struct queue){0};
    pthread_mutex_unlock(&storage->lock);
    for (struct job *job = NULL; (job = queue_pop(&finished)); done++) {
        storage->outstanding--;
        if (job->done) {
            job->done(job->ctx, job->status, &job->error);
        }
        free(job);
    }
    return done;
}

int fm_storage_fd(const fm_storage_t *storage)
{
    return storage->event_fd;
}

size_t fm_storage_count(const fm_storage_t *storage)
{
    return storage->outstanding;
}
