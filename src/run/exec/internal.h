/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file internal.h
 * What the parts of the supervisor share.
 *
 *   exec.c     lifecycle, pipes, deadlines, the end of a child
 *   batch.c    a batch to its line, and the slots that await its replies
 *   message.c  lines to callbacks: every rule of the protocol
 *   spawn.c    fork and exec
 *   words.c    standard error: log file and last words
 *
 * Invariants: pid > 0 until the child is reaped; finish() runs once; after it
 * or after fm_exec_close() no callback runs.
 */
#ifndef FM_RUN_EXEC_INTERNAL_H
#define FM_RUN_EXEC_INTERNAL_H

#include <sys/types.h>

#include "base/buf.h"
#include "run/exec/exec.h"

/** How far the force used against a child has grown. */
typedef enum force {
    FORCE_NONE,
    FORCE_STOP, /**< `stop` was sent, or stdin closed */
    FORCE_TERM,
    FORCE_KILL
} force_t;

typedef enum state {
    STATE_GREETING,
    STATE_IDLE,
    STATE_RUNNING,
    STATE_DEAD /**< reaped and reported */
} state_t;

/** Standard error of a child. */
typedef struct words {
    int fd; /**< log file or −1 */
    char *path;
    size_t limit_bytes;
    size_t written_bytes;
    char tail[FM_EXEC_WORDS_BYTES]; /**< ring of the last bytes */
    size_t tail_total;              /**< bytes ever put in */
} words_t;

/** Whether an item of the batch has been answered. */
typedef struct slot {
    uint32_t index;
    bool answered;
} slot_t;

struct fm_exec {
    fm_reactor_t *reactor;
    fm_exec_callbacks_t callbacks;
    int64_t hello_timeout_ns, stop_grace_ns, term_grace_ns;

    pid_t pid;
    int in_fd, out_fd, err_fd; /**< ours; −1 once closed */
    fm_buf_t requests;         /**< not yet written to in_fd */
    fm_buf_t replies;          /**< read, not yet a whole line */
    size_t scanned;            /**< bytes of replies without a newline */
    words_t words;

    state_t state;
    force_t force;
    bool ending;     /**< fm_exec_shutdown() */
    int64_t eof_ns;  /**< when stdout ended; 0: it has not */
    uint64_t watch;  /**< timer: hello, deadline, growing force */
    uint64_t reaper; /**< timer: has it ended */
    bool condemned;  /**< reason below is set by us */
    fm_exec_reason_t reason;
    char why[512];

    int64_t lease; /**< of the running batch, else 0 */
    slot_t *slots; /**< sorted by index */
    size_t slot_count, answered_count;
    bool stopped; /**< the running batch was asked to stop */

    int depth;   /**< entries from the reactor or a callback */
    bool closed; /**< fm_exec_close() came from a callback */
};

/** What spawn() made. */
typedef struct child {
    pid_t pid;
    int in_fd, out_fd, err_fd;
} child_t;

fm_status_t fm_exec_spawn(const fm_exec_options_t *options, child_t *child_out,
                          fm_error_t *err);

fm_status_t fm_exec_words_open(words_t *words, const char *path, size_t limit,
                               fm_error_t *err);
void fm_exec_words_add(words_t *words, const char *bytes, size_t len);
/** The last words as one line of printable text. */
void fm_exec_words_format(const words_t *words, char *text, size_t bytes);
void fm_exec_words_close(words_t *words);

/** The items of @p batch, sorted by index, each once; free() them. */
fm_status_t fm_exec_batch_slots(const fm_exec_batch_t *batch,
                                slot_t **slots_out, fm_error_t *err);
/** The `run` line of @p batch: @p len_out bytes, the newline last and no NUL;
 *  free() it. */
fm_status_t fm_exec_batch_line(const fm_exec_batch_t *batch, char **line_out,
                               size_t *len_out, fm_error_t *err);

/** Handle one line (no newline).  A failure is a violation. */
fm_status_t fm_exec_message(fm_exec_t *exec, const char *line, size_t len,
                            fm_error_t *err);
/** The batch is over: forget it and go idle. */
void fm_exec_batch_end(fm_exec_t *exec);
/** Copy @p len foreign bytes as printable ASCII, cut with "…" to fit. */
void fm_exec_printable(const char *from, size_t len, char *text, size_t bytes);

#endif
