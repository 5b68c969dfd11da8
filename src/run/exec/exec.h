/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file exec.h
 * Supervise one executor child process (docs/spec/executor.md).
 *
 * The child runs in a process group of its own, talks NDJSON over pipes and
 * is never trusted: malformed output, a missed deadline or a missing hello
 * kill its group and are reported by on_exit; nothing it does can hurt the
 * supervisor.  A handle sees one child: it ends with exactly one on_exit, and
 * a restart is a new handle, at the caller's discretion.
 *
 *   open → (hello) → on_hello → run → on_item … on_done → run … → on_exit
 *
 * Threads: a handle belongs to its reactor's thread, which must be the one
 * that opened it and must live on: the kernel kills the child when the
 * thread that forked it ends (PR_SET_PDEATHSIG).
 */
#ifndef FM_RUN_EXEC_EXEC_H
#define FM_RUN_EXEC_EXEC_H

#include "base/hash.h"
#include "base/json.h"
#include "io/reactor/reactor.h"
#include <flowmesh/executor.h>

/** Last words of stderr kept to explain an exit. */
#define FM_EXEC_WORDS_BYTES 2048

typedef struct fm_exec fm_exec_t;

/** Zero means the default in brackets. */
typedef struct fm_exec_options {
    const char *const *argv; /**< NULL-terminated; argv[0] is looked up in
                                  PATH; required */
    const char *const *env;  /**< "NAME=value" added to or replacing the
                                  supervisor's own; NULL-terminated; [none] */
    const char *workdir;     /**< existing directory [the current one] */
    const char *device;      /**< exported as FLOWMESH_DEVICE ["cpu"] */
    const char *log_path;    /**< stderr is appended here [nowhere] */
    size_t log_bytes; /**< past this the log becomes LOG_PATH.1, replacing
                           the one before [8 MiB] */
    int64_t hello_timeout_ns;    /**< [30 s] */
    int64_t stop_grace_ns;       /**< deadline → SIGTERM [5 s] */
    int64_t term_grace_ns;       /**< SIGTERM → SIGKILL [5 s] */
    uint64_t limit_memory_bytes; /**< RLIMIT_AS [none] */
    uint64_t limit_files;        /**< RLIMIT_NOFILE [inherited] */
    uint64_t limit_file_bytes;   /**< RLIMIT_FSIZE [inherited] */
} fm_exec_options_t;

/** What an executor says of itself; borrowed for the callback's duration. */
typedef struct fm_exec_hello {
    const char *name;
    const char *version;
    const char *const *task_types;
    size_t task_type_count;
    const fm_json_t *device;   /**< {"kind","name","memory_bytes","cores"} */
    const char *numerics;      /**< class of its engine results: "cpu-f32" */
    uint64_t memory_bytes;     /**< usable for models and batches */
    const fm_json_t *resident; /**< [{"model": digest, "bytes": n}, …] */
    bool stage_files;          /**< wants "$object" values as files (X21) */
} fm_exec_hello_t;

/** A sealed object that an output refers to. */
typedef struct fm_exec_object {
    fm_digest_t digest;
    const char *locator; /**< one line of text, opaque here */
} fm_exec_object_t;

typedef enum fm_exec_outcome {
    FM_EXEC_OK,
    FM_EXEC_TASK_ERROR, /**< the work itself is at fault */
    FM_EXEC_INFRA_ERROR /**< the place is: disk, memory, stop */
} fm_exec_outcome_t;

/** One item's end; everything borrowed.  With FM_EXEC_OK exactly one of
 *  output, locator and path is set. */
typedef struct fm_exec_item {
    int64_t lease;
    uint32_t index; /**< as given in the batch */
    fm_exec_outcome_t outcome;
    const char *output; /**< canonical JSON text */
    size_t output_bytes;
    fm_digest_t digest; /**< of the object at locator */
    const char *locator;
    const char *kind;  /**< of that object: "item", "blob", … */
    const char *path;  /**< file below workdir that holds the JSON value */
    const char *error; /**< text, unless FM_EXEC_OK */
    const fm_exec_object_t *objects;
    size_t object_count;
} fm_exec_item_t;

typedef struct fm_exec_checkpoint {
    int64_t lease;
    uint32_t index; /**< the item it belongs to */
    fm_digest_t digest;
    const char *locator;
    int64_t step;
    const fm_exec_object_t *objects; /**< what the manifest refers to */
    size_t object_count;
} fm_exec_checkpoint_t;

typedef struct fm_exec_done {
    int64_t lease;
    uint32_t missing; /**< items without an `item` line: only after a stop */
    double seconds;
    double cpu_seconds;
    const fm_json_t *resident; /**< NULL when not said */
    const fm_json_t *metrics;  /**< timings such as tokens_per_s; or NULL */
} fm_exec_done_t;

typedef enum fm_exec_reason {
    FM_EXEC_EXITED,    /**< by itself; code is the exit status */
    FM_EXEC_SIGNALLED, /**< killed by somebody else; code is the signal */
    FM_EXEC_NO_HELLO,  /**< none in time; killed */
    FM_EXEC_HUNG,      /**< deadline and grace passed; killed */
    FM_EXEC_VIOLATION, /**< broke the protocol; killed */
    FM_EXEC_STOPPED    /**< fm_exec_shutdown() asked for it */
} fm_exec_reason_t;

typedef struct fm_exec_exit {
    fm_exec_reason_t reason;
    int code;
    int64_t lease;    /**< the batch that was running; 0: idle */
    const char *text; /**< "signal 11 (Segmentation fault); last words: …" */
} fm_exec_exit_t;

/**
 * What the supervisor learns.  NULL members are skipped.  Callbacks run on
 * the reactor's thread and may call fm_exec_run(), fm_exec_stop(),
 * fm_exec_shutdown() and fm_exec_close() on their handle.
 */
typedef struct fm_exec_callbacks {
    void (*on_hello)(void *ctx, const fm_exec_hello_t *hello);
    void (*on_progress)(void *ctx, int64_t lease, double fraction,
                        const fm_json_t *metrics);
    void (*on_checkpoint)(void *ctx, const fm_exec_checkpoint_t *checkpoint);
    void (*on_item)(void *ctx, const fm_exec_item_t *item);
    void (*on_done)(void *ctx, const fm_exec_done_t *done);
    void (*on_exit)(void *ctx, const fm_exec_exit_t *exit_info);
    void *ctx;
} fm_exec_callbacks_t;

/** One item of a batch. */
typedef struct fm_exec_input {
    uint32_t index;
    const fm_json_t *value;
} fm_exec_input_t;

/** A batch; borrowed by fm_exec_run(), not kept. */
typedef struct fm_exec_batch {
    int64_t lease; /**< 1 … FM_EXECUTOR_LEASE_MAX */
    const char *task_type;
    const fm_json_t *params; /**< object; NULL is {} */
    const fm_json_t *hints;  /**< object: what results do not depend on; NULL */
    const fm_exec_input_t *items;
    size_t item_count;   /**< 1 … FM_EXECUTOR_ITEMS_MAX, distinct indices */
    int64_t deadline_ns; /**< from now; 0: none */
    const char *checkpoint; /**< digest text to resume from; NULL or "" */
    const char *checkpoint_locator; /**< NULL or "" when not known */
} fm_exec_batch_t;

/**
 * Start an executor.  Returns at once; on_hello or on_exit follow.
 *
 * @param exec_out  [out] fm_exec_close() it.
 * @retval FM_ERR_NOT_FOUND  argv[0] is no program, or workdir no directory.
 * @retval FM_ERR_INVALID    empty argv.
 * @retval FM_ERR_IO, FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_exec_open(fm_reactor_t *reactor,
                                     const fm_exec_options_t *options,
                                     const fm_exec_callbacks_t *callbacks,
                                     fm_exec_t **exec_out, fm_error_t *err);
/** SIGKILL what is left of the group, reap, free; no callback comes any more.
 *  NULL is ignored; returns NULL. */
void *fm_exec_close(fm_exec_t *exec);

/**
 * Send a batch.  One at a time: on_done or on_exit ends it.
 * @retval FM_ERR_BUSY    not greeted yet, or a batch is running.
 * @retval FM_ERR_CLOSED  the child is gone or going.
 * @retval FM_ERR_LIMIT   the line would pass FM_EXECUTOR_LINE_BYTES: split
 *                        the batch or store large values as objects.
 * @retval FM_ERR_INVALID lease, items or params out of range.
 */
FM_MUST_USE fm_status_t fm_exec_run(fm_exec_t *exec,
                                    const fm_exec_batch_t *batch,
                                    fm_error_t *err);
/** Ask to checkpoint and end the running batch within @p grace_ns (then
 *  SIGTERM, then SIGKILL); the executor stays.  Idle: nothing happens. */
void fm_exec_stop(fm_exec_t *exec, int64_t grace_ns);
/** The same, and end the child: its stdin is closed; on_exit follows. */
void fm_exec_shutdown(fm_exec_t *exec, int64_t grace_ns);

/** Greeted, alive and without a batch. */
bool fm_exec_idle(const fm_exec_t *exec);
/** 0 once the child is reaped. */
int64_t fm_exec_pid(const fm_exec_t *exec);
/** Static name, such as "hung". */
const char *fm_exec_reason_name(fm_exec_reason_t reason);

#endif
