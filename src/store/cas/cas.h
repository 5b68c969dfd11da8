/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file cas.h
 * The content-addressable store: immutable objects named by the SHA-256 of
 * their bytes, packed in HDF5 segment files (docs/spec/segment.md).
 *
 * Life of an object: put (pending: memory of this handle) → seal (a segment
 * file, durable and visible to everybody) → for ever, until a collection.
 * Identity is the bytes alone.  Kind, dtype and shape are what the first
 * writer said; two tensors of equal bytes are one object, so whoever depends
 * on a shape states it in a manifest of its own.
 *
 * Threads: a handle belongs to one thread at a time, and fm_cas_put*() and
 * fm_cas_seal() call HDF5, which one thread per process may do.  Processes:
 * any number of readers and writers share a directory without locks; each
 * writer has a name and segments of its own, and nothing ever opens a sealed
 * segment for writing.  Readers never pass a foreign file to HDF5: they parse
 * a checksummed header and index themselves.
 *
 * Memory: 100 to 200 bytes an object (a 48-byte hash slot, load 0.35 to 0.7,
 * and a 32-byte entry in a doubling array), 72 to 144 more for a tensor, and
 * pending objects up to seal_bytes.
 */
#ifndef FM_STORE_CAS_CAS_H
#define FM_STORE_CAS_CAS_H

#include "base/buf.h"
#include "base/hash.h"

/** What the writer says an object is; numbers are part of the format. */
typedef enum fm_cas_kind {
    FM_CAS_BLOB,       /**< any bytes */
    FM_CAS_ITEM,       /**< one JSON value */
    FM_CAS_TENSOR,     /**< dtype and shape; fm_cas_put_tensor() only */
    FM_CAS_MODEL,      /**< manifest: tensors of a model by digest */
    FM_CAS_CHECKPOINT, /**< manifest of a training state */
    FM_CAS_LINEAGE,    /**< lineage record */
    FM_CAS_SNAPSHOT    /**< state of the control plane */
} fm_cas_kind_t;
#define FM_CAS_KIND_COUNT 7

/** Element types of tensors; numbers are part of the format. */
typedef enum fm_cas_dtype {
    FM_CAS_F32,
    FM_CAS_F64,
    FM_CAS_F16,
    FM_CAS_BF16,
    FM_CAS_F8_E4M3,
    FM_CAS_F8_E5M2,
    FM_CAS_I8,
    FM_CAS_I16,
    FM_CAS_I32,
    FM_CAS_I64,
    FM_CAS_U8,
    FM_CAS_BOOL
} fm_cas_dtype_t;
#define FM_CAS_DTYPE_COUNT 12

/** Dimensions of a tensor at most; model weights have up to 5. */
#define FM_CAS_RANK_MAX 8
/** Bytes of one object at most: 1 TiB. */
#define FM_CAS_OBJECT_BYTES_MAX (UINT64_C(1) << 40)
/** Up to here objects share one dataset; larger ones have their own. */
#define FM_CAS_PACK_BYTES_MAX 65536
/** Bytes of a writer name at most, without NUL: [A-Za-z0-9._-], no leading
 *  dot. */
#define FM_CAS_WRITER_BYTES_MAX 63
/** Bytes of a fabric name at most. */
#define FM_CAS_FABRIC_BYTES_MAX 255

/** "blob", "item", …; NULL for a number that is no kind. */
const char *fm_cas_kind_name(fm_cas_kind_t kind);
/** "f32", "bf16", …; NULL for a number that is no dtype. */
const char *fm_cas_dtype_name(fm_cas_dtype_t dtype);
/** Bytes of one element; 0 for a number that is no dtype. */
size_t fm_cas_dtype_bytes(fm_cas_dtype_t dtype);

/** Where an object lies.  Travels with its digest. */
typedef struct fm_cas_locator {
    char segment[96]; /**< file name in segments/ */
    char dataset[80]; /**< "/objects/data", "/blobs/…", "/tensors/…" */
    uint64_t offset;  /**< bytes from the start of the dataset */
    uint64_t length;  /**< bytes */
} fm_cas_locator_t;

/** Bytes of a formatted locator with NUL. */
#define FM_CAS_LOCATOR_TEXT_BYTES 224
/** "segment:dataset:offset:length" into @p text; returns it. */
char *fm_cas_locator_format(const fm_cas_locator_t *locator, char *text);
/** Accepts exactly what fm_cas_locator_format() writes, from anybody. */
bool fm_cas_locator_parse(const char *text, fm_cas_locator_t *locator_out);

typedef struct fm_cas fm_cas_t;

typedef struct fm_cas_options {
    const char *writer;    /**< "<instance>-<name>", unique among live writers;
                                NULL opens read-only */
    const char *fabric;    /**< recorded in each segment; NULL means "" */
    size_t seal_bytes;     /**< seal when pending bytes pass this; 0: 64 MiB */
    size_t open_files_max; /**< segments kept open; 0: 64 */
} fm_cas_options_t;

/**
 * Open the store at @p dir; a writer creates what is absent.
 *
 * Reads the header and index of every sealed segment, no object data.  A
 * segment that cannot be read is skipped and counted (fm_cas_stat(),
 * fm_cas_verify()).  Torn files of this writer's name are removed, those of
 * others ignored.
 *
 * @param opts  NULL: read-only with defaults; not kept.
 * @retval FM_ERR_NOT_FOUND  read-only, and there is no store at @p dir.
 * @retval FM_ERR_INVALID    the writer's name is not one.
 */
FM_MUST_USE fm_status_t fm_cas_open(const char *dir,
                                    const fm_cas_options_t *opts,
                                    fm_cas_t **cas_out, fm_error_t *err);
/** Close, dropping what is pending; NULL is ignored; returns NULL. */
void *fm_cas_close(fm_cas_t *cas);

/**
 * Add an object; one that is there already is read back and checked, and its
 * segment is marked as used (mtime, at most once a minute).
 *
 * Seals by itself when pending bytes would pass seal_bytes: an object of that
 * size goes from @p data to the disk without a copy.  When that fails the
 * object is not stored and everything pending stays pending.
 *
 * @retval FM_ERR_INVALID  FM_CAS_TENSOR, or the handle is read-only.
 * @retval FM_ERR_LIMIT    larger than FM_CAS_OBJECT_BYTES_MAX.
 * @retval others          as fm_cas_seal().
 */
FM_MUST_USE fm_status_t fm_cas_put(fm_cas_t *cas, fm_cas_kind_t kind,
                                   const void *data, size_t len,
                                   fm_digest_t *digest_out, fm_error_t *err);
/**
 * Add a tensor as a typed, shaped dataset.
 *
 * @param shape  [rank] extents; 0 is allowed; @p rank ≤ FM_CAS_RANK_MAX, 0 is
 *               a scalar.
 * @param data   elements, row-major, little-endian: its bytes are the identity.
 */
FM_MUST_USE fm_status_t fm_cas_put_tensor(fm_cas_t *cas, fm_cas_dtype_t dtype,
                                          const uint64_t *shape, size_t rank,
                                          const void *data,
                                          fm_digest_t *digest_out,
                                          fm_error_t *err);
/**
 * Publish what is pending as one new segment: written under a temporary name,
 * fsync, rename, fsync of the directory.  Nothing pending: no file, FM_OK.
 *
 * On failure no segment appears, everything stays pending, and the next seal
 * tries again; fm_cas_discard() gives it up.
 * @retval FM_ERR_FULL  no space or quota.
 * @retval FM_ERR_IO, FM_ERR_NO_MEMORY
 * @retval FM_ERR_BUSY  another live writer uses this name.
 */
FM_MUST_USE fm_status_t fm_cas_seal(fm_cas_t *cas, fm_error_t *err);
/** Drop what is pending; returns how many objects that was. */
size_t fm_cas_discard(fm_cas_t *cas);

/** Known here: sealed or pending.  No I/O. */
bool fm_cas_has(const fm_cas_t *cas, const fm_digest_t *digest);
/** False when unknown, or not yet sealed. */
bool fm_cas_locate(const fm_cas_t *cas, const fm_digest_t *digest,
                   fm_cas_locator_t *locator_out);
/**
 * Hear of an object that another process sealed: loads the index of the
 * segment that @p locator names, when it is not loaded yet.
 * @retval FM_ERR_NOT_FOUND  no such segment, or the object is not in it.
 * @retval FM_ERR_CORRUPT    the segment cannot be read.
 */
FM_MUST_USE fm_status_t fm_cas_learn(fm_cas_t *cas, const fm_digest_t *digest,
                                     const fm_cas_locator_t *locator,
                                     fm_error_t *err);
/** Kind and size of a known object, no I/O; outputs may be NULL. */
bool fm_cas_size(const fm_cas_t *cas, const fm_digest_t *digest,
                 fm_cas_kind_t *kind_out, uint64_t *bytes_out);

/**
 * Append a whole object to @p out, its digest verified.  Pending objects of
 * this handle are found; on a miss the directory is scanned once.  A damaged
 * copy is dropped from this handle's index and the next copy is tried.
 *
 * @retval FM_ERR_NOT_FOUND
 * @retval FM_ERR_CORRUPT  no copy is whole; names object, segment, mend.
 */
FM_MUST_USE fm_status_t fm_cas_get(fm_cas_t *cas, const fm_digest_t *digest,
                                   fm_buf_t *out, fm_error_t *err);
/** As fm_cas_get(), into [capacity] bytes of caller memory, whose content is
 *  undefined on failure.  @retval FM_ERR_LIMIT  the object is larger. */
FM_MUST_USE fm_status_t fm_cas_read(fm_cas_t *cas, const fm_digest_t *digest,
                                    void *data, size_t capacity_bytes,
                                    size_t *len_out, fm_error_t *err);
/** Dtype and shape of a known tensor, as the first writer said. */
typedef struct fm_cas_tensor {
    fm_cas_dtype_t dtype;
    size_t rank;
    uint64_t shape[FM_CAS_RANK_MAX];
    uint64_t bytes;
} fm_cas_tensor_t;
/** False when unknown or no tensor.  No I/O. */
bool fm_cas_tensor(const fm_cas_t *cas, const fm_digest_t *digest,
                   fm_cas_tensor_t *tensor_out);
/** fm_cas_read() for a tensor.  @retval FM_ERR_INVALID  it is no tensor. */
FM_MUST_USE fm_status_t fm_cas_get_tensor(fm_cas_t *cas,
                                          const fm_digest_t *digest,
                                          fm_cas_tensor_t *tensor_out,
                                          void *data, size_t capacity_bytes,
                                          fm_error_t *err);

/** Load segments sealed by others since, and what was put in quarantine;
 *  forget segments that are gone. */
FM_MUST_USE fm_status_t fm_cas_refresh(fm_cas_t *cas, fm_error_t *err);

typedef struct fm_cas_object {
    fm_digest_t digest;
    fm_cas_kind_t kind;
    uint64_t bytes;
    bool sealed;
    fm_cas_locator_t locator; /**< of a sealed object */
} fm_cas_object_t;
/** Iterate objects, each once: start with *cursor = 0; false at the end.  No
 *  other call but reads of known objects meanwhile. */
bool fm_cas_next(const fm_cas_t *cas, size_t *cursor,
                 fm_cas_object_t *object_out);

typedef struct fm_cas_stat {
    uint64_t object_count;    /**< distinct, sealed and pending */
    uint64_t logical_bytes;   /**< of them */
    uint64_t physical_bytes;  /**< of the readable segment files */
    uint64_t duplicate_count; /**< further copies of sealed objects */
    uint64_t duplicate_bytes;
    uint64_t pending_count;
    uint64_t pending_bytes;
    uint64_t put_count;   /**< of this handle */
    uint64_t dedup_count; /**< puts that found their object */
    uint64_t dedup_bytes;
    uint64_t segment_count;
    uint64_t segment_bad_count; /**< index unreadable, or in quarantine */
    uint64_t torn_count;        /**< temporary files, of live writers too */
    struct {
        uint64_t object_count;
        uint64_t logical_bytes;
    } kinds[FM_CAS_KIND_COUNT];
} fm_cas_stat_t;
FM_MUST_USE fm_status_t fm_cas_stat(fm_cas_t *cas, fm_cas_stat_t *stat_out,
                                    fm_error_t *err);

/** What fm_cas_verify() found wrong. */
typedef enum fm_cas_damage {
    FM_CAS_DAMAGE_OBJECT,  /**< the bytes of one copy are not its digest's */
    FM_CAS_DAMAGE_SEGMENT, /**< header or index unreadable: all is lost */
    FM_CAS_DAMAGE_METADATA /**< HDF5 structure: objects are whole, HDF5 tools
                                may fail */
} fm_cas_damage_t;
typedef struct fm_cas_bad {
    fm_cas_damage_t damage;
    const fm_digest_t *digest; /**< NULL when unknown or none */
    const char *segment;
    const char *reason;
    bool lost; /**< no whole copy is known elsewhere */
} fm_cas_bad_t;
typedef void fm_cas_bad_fn_t(void *ctx, const fm_cas_bad_t *bad);
typedef struct fm_cas_verify_result {
    uint64_t segment_count;
    uint64_t object_count; /**< copies read */
    uint64_t bytes;
    uint64_t bad_object_count;
    uint64_t bad_segment_count;
} fm_cas_verify_result_t;
/**
 * Read every byte of every segment.
 *
 * @param quarantine  also forget what is bad, here and, by the quarantine
 *                    file, in every later open or refresh, so that it can be
 *                    put again.  Damaged metadata alone is only reported.
 * @param on_bad      called for each finding; may be NULL; must not call cas.
 * @return FM_OK when all was read, whatever was found.
 */
FM_MUST_USE fm_status_t fm_cas_verify(fm_cas_t *cas, bool quarantine,
                                      fm_cas_bad_fn_t *on_bad, void *ctx,
                                      fm_cas_verify_result_t *result_out,
                                      fm_error_t *err);
/** Drop a sealed object, all copies, from this handle's index, so that it can
 *  be put again; the files stay.  A refresh brings back copies in segments new
 *  to this handle only, an open brings back all.  False when it is unknown or
 * pending. */
bool fm_cas_forget(fm_cas_t *cas, const fm_digest_t *digest);
/** Remove temporary files last written more than @p age_s seconds ago: a live
 *  writer holds one for as long as one seal takes. */
FM_MUST_USE fm_status_t fm_cas_remove_torn(fm_cas_t *cas, int64_t age_s,
                                           size_t *removed_out,
                                           fm_error_t *err);

#endif
