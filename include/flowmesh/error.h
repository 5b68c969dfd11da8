/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file error.h
 * How every FlowMesh function reports failure.
 *
 * A function that can fail returns an fm_status_t and takes an optional
 * caller-owned fm_error_t as its last parameter.  The first detector writes
 * the cause with fm_error_set(); callers on the way up only prefix context
 * with fm_error_wrap(), so the text reads outermost first:
 * "open store: segment w3-7.h5: bad magic".
 *
 * Threads: all functions are safe for distinct fm_error_t objects.
 */
#ifndef FLOWMESH_ERROR_H
#define FLOWMESH_ERROR_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define FM_MUST_USE __attribute__((warn_unused_result))
#define FM_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define FM_EXPORT __attribute__((visibility("default")))
#else
#define FM_MUST_USE
#define FM_PRINTF(fmt, args)
#define FM_EXPORT
#endif

/** Outcome of a call: FM_OK is zero, every failure is negative. */
typedef enum fm_status {
    FM_OK = 0,
    FM_ERR_NO_MEMORY = -1, /**< an allocation failed */
    FM_ERR_INVALID = -2,   /**< the input breaks a stated rule */
    FM_ERR_NOT_FOUND = -3, /**< no such object, file, key, node */
    FM_ERR_EXISTS = -4,    /**< it is there already */
    FM_ERR_IO = -5,        /**< the operating system refused an I/O call */
    FM_ERR_FULL = -6,      /**< no space, quota reached, queue at its bound */
    FM_ERR_CORRUPT = -7,   /**< stored bytes fail their checksum or format */
    FM_ERR_BUSY = -8,      /**< held by another process; try later */
    FM_ERR_TIMEOUT = -9,   /**< the deadline passed */
    FM_ERR_PROTOCOL = -10, /**< a peer sent what the protocol forbids */
    FM_ERR_UNSUPPORTED = -11, /**< valid, but not available here */
    FM_ERR_LIMIT = -12,       /**< larger than a stated bound */
    FM_ERR_CANCELLED = -13,   /**< stopped on request */
    FM_ERR_CLOSED = -14,      /**< the peer or the handle is gone */
    FM_ERR_INTERNAL = -15     /**< a bug of ours */
} fm_status_t;

/** Bytes of error text kept; longer text is cut at a character boundary. */
#define FM_ERROR_TEXT_BYTES 1024

/** Detail of a failure, owned by the caller; zero-initialise it. */
typedef struct fm_error {
    fm_status_t status;
    char text[FM_ERROR_TEXT_BYTES]; /**< NUL-terminated UTF-8 */
} fm_error_t;

/** Static name of @p status, such as "not found"; never NULL. */
FM_EXPORT const char *fm_status_name(fm_status_t status);

/**
 * Record a failure: replaces the content of @p err.
 * @param err  may be NULL: then nothing is recorded.
 * @return @p status, so that `return fm_error_set(err, FM_ERR_IO, …)` works.
 */
FM_EXPORT fm_status_t fm_error_set(fm_error_t *err, fm_status_t status,
                                   const char *format, ...) FM_PRINTF(3, 4);

/** Like fm_error_set(), with ": " and strerror(@p errnum) appended.
 *  ENOSPC and EDQUOT turn @p status FM_ERR_IO into FM_ERR_FULL. */
FM_EXPORT fm_status_t fm_error_set_errno(fm_error_t *err, fm_status_t status,
                                         int errnum, const char *format, ...)
    FM_PRINTF(4, 5);

/** Prefix "context: " to the text of @p err; NULL is ignored. */
FM_EXPORT void fm_error_wrap(fm_error_t *err, const char *format, ...)
    FM_PRINTF(2, 3);

#if defined(__clang_analyzer__) || defined(FM_ANALYSE)
/* Tells the analyser what it cannot see: the status comes back.  Without it
 * every error path is also followed as if it had succeeded. */
#define fm_error_set(err, status, ...)                                         \
    ((void)(fm_error_set)(err, status, __VA_ARGS__), (status))
#define fm_error_set_errno(err, status, ...)                                   \
    ((void)(fm_error_set_errno)(err, status, __VA_ARGS__), (status))
#endif

#ifdef __cplusplus
}
#endif
#endif
