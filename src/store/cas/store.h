/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file store.h
 * Private: the handle, and what its files share.
 *
 * The index maps a digest to the first of a chain of copies (entries); a
 * removed entry goes to a free list.  Segments keep their number for the life
 * of the handle, whatever becomes of their file.
 */
#ifndef FM_STORE_CAS_STORE_H
#define FM_STORE_CAS_STORE_H

#include "base/map.h"
#include "store/cas/format.h"

#define FM_CAS_NONE UINT32_MAX /* end of a chain; no segment: pending */
#define FM_CAS_SEAL_BYTES_DEFAULT ((size_t)64 << 20)
#define FM_CAS_OPEN_FILES_DEFAULT 64 /* of the usual limit of 1024 */

/** One copy of an object. */
typedef struct fm_cas_entry {
    uint64_t address; /**< in the segment; of a pending copy its number */
    uint64_t length;
    uint32_t segment; /**< FM_CAS_NONE: pending */
    uint32_t shape;   /**< in cas->shapes, or FM_CAS_SHAPE_NONE */
    uint32_t next;    /**< next copy, or FM_CAS_NONE */
    uint8_t kind;
    uint8_t place;
} fm_cas_entry_t;

typedef enum fm_cas_segment_state {
    FM_CAS_SEGMENT_GOOD, /**< its rows are in the index */
    FM_CAS_SEGMENT_BAD,  /**< unreadable when last tried */
    FM_CAS_SEGMENT_GONE  /**< no file of that name any more */
} fm_cas_segment_state_t;

typedef struct fm_cas_segment {
    char *name;
    fm_cas_segment_state_t state;
    int fd; /**< −1: not open */
    uint64_t last_use;
    uint64_t last_seen; /**< scan of the directory that met it */
    int64_t freshened_ns;
    fm_cas_header_t header;
} fm_cas_segment_t;

/** An object that waits for a seal. */
typedef struct fm_cas_pending {
    fm_digest_t digest;
    uint8_t *data; /**< owned; NULL: at pack_offset in cas->pack */
    size_t pack_offset;
    uint32_t entry;
} fm_cas_pending_t;

struct fm_cas {
    char *dir;      /**< of the store */
    char *segments; /**< dir/segments */
    char *writer;   /**< NULL: read-only */
    char *fabric;
    size_t seal_bytes;
    uint64_t next_seq; /**< of the next segment of this writer */

    fm_map_t *index; /**< digest → first entry */
    fm_cas_entry_t *entries;
    size_t entry_count;
    size_t entry_capacity;
    uint32_t entry_free; /**< first of the free list, or FM_CAS_NONE */
    fm_cas_shape_t *shapes;
    size_t shape_count;
    size_t shape_capacity;

    fm_strmap_t *segment_names; /**< name → number */
    fm_cas_segment_t *segment;
    size_t segment_count;
    size_t segment_capacity;
    size_t open_count;
    size_t open_max;
    uint64_t scan_count;
    uint64_t use_clock; /**< counts reads: orders last_use */

    fm_cas_pending_t *pending;
    size_t pending_count;
    size_t pending_capacity;
    size_t pending_bytes;
    fm_buf_t pack; /**< bytes of small pending objects */

    fm_strmap_t *quarantine; /**< "segment digest" or "segment *" */
    fm_sha256_ctx_t *sha;
    uint64_t put_count;
    uint64_t dedup_count;
    uint64_t dedup_bytes;
};

/* --- index.c: entries ----------------------------------------------------- */

/** First copy of @p digest; NULL when unknown.  Valid until the next change. */
fm_cas_entry_t *fm_cas_index_find(const fm_cas_t *cas,
                                  const fm_digest_t *digest);
fm_cas_entry_t *fm_cas_index_next(const fm_cas_t *cas,
                                  const fm_cas_entry_t *entry);
/** First copy with a shape; NULL when there is none. */
fm_cas_entry_t *fm_cas_index_find_tensor(const fm_cas_t *cas,
                                         const fm_digest_t *digest);
/** Add a copy: at the head of its chain, or behind it. */
FM_MUST_USE fm_status_t fm_cas_index_add(fm_cas_t *cas,
                                         const fm_digest_t *digest,
                                         const fm_cas_entry_t *entry,
                                         bool at_head, uint32_t *number_out,
                                         fm_error_t *err);
/** Drop the copies of @p digest in @p segment; true when there was one. */
bool fm_cas_index_remove(fm_cas_t *cas, const fm_digest_t *digest,
                         uint32_t segment);
/** Drop every entry of @p segment. */
void fm_cas_index_remove_segment(fm_cas_t *cas, uint32_t segment);
FM_MUST_USE fm_status_t fm_cas_shape_add(fm_cas_t *cas,
                                         const fm_cas_shape_t *shape,
                                         uint32_t *number_out, fm_error_t *err);

/* --- segment.c: files ------------------------------------------------------
 */

/** Rows of one segment, checked. */
typedef struct fm_cas_table {
    fm_cas_header_t header;
    fm_cas_row_t *rows;
    fm_cas_shape_t *shapes;
} fm_cas_table_t;
/** Read header and index of an open segment file. */
FM_MUST_USE fm_status_t fm_cas_table_read(int fd, fm_cas_table_t *table_out,
                                          fm_error_t *err);
void fm_cas_table_fini(fm_cas_table_t *table);
/** Exactly @p len bytes at @p address; fewer are FM_ERR_CORRUPT. */
FM_MUST_USE fm_status_t fm_cas_pread(int fd, void *data, size_t len,
                                     uint64_t address, fm_error_t *err);
/** Path of a file in segments/; free() it. */
char *fm_cas_segment_path(const fm_cas_t *cas, const char *name);
/** Open file of segment number @p segment, kept open in least-recently-used
 *  order.  @retval FM_ERR_NOT_FOUND  gone; its entries were dropped. */
FM_MUST_USE fm_status_t fm_cas_segment_fd(fm_cas_t *cas, uint32_t segment,
                                          int *fd_out, fm_error_t *err);
/** Load segment @p name unless it is loaded.  @retval as the reading of it;
 *  the segment is then recorded as bad. */
FM_MUST_USE fm_status_t fm_cas_segment_load(fm_cas_t *cas, const char *name,
                                            fm_error_t *err);
/** Number for @p name, new or known; FM_CAS_NONE when memory is out. */
uint32_t fm_cas_segment_number(fm_cas_t *cas, const char *name);
/** Forget file and entries of @p segment. */
void fm_cas_segment_drop(fm_cas_t *cas, uint32_t segment,
                         fm_cas_segment_state_t state);
/** Mark as used, at most once a minute; false when its file is gone. */
bool fm_cas_segment_freshen(fm_cas_t *cas, uint32_t segment);
/** Call @p visit for each name in segments/ until it fails. */
FM_MUST_USE fm_status_t
fm_cas_segment_each(fm_cas_t *cas,
                    fm_status_t (*visit)(fm_cas_t *cas, const char *name,
                                         void *ctx, fm_error_t *err),
                    void *ctx, fm_error_t *err);
/** True for "<anything>.tmp", the name of a segment being written. */
bool fm_cas_name_torn(const char *name);

/* --- read.c ----------------------------------------------------------------
 */

/** Read and verify one sealed copy into @p data, or nowhere when NULL. */
FM_MUST_USE fm_status_t fm_cas_copy_read(fm_cas_t *cas, int fd,
                                         const fm_digest_t *digest,
                                         uint64_t address, uint64_t length,
                                         uint8_t *data, fm_error_t *err);

/* --- seal.c ----------------------------------------------------------------
 */

/** Seal what is pending, and @p direct (may be NULL) with it. */
struct fm_cas_part;
FM_MUST_USE fm_status_t fm_cas_seal_with(fm_cas_t *cas,
                                         const struct fm_cas_part *direct,
                                         fm_error_t *err);

/* --- meta.c: the checksum of all bytes outside header and objects ----------
 */

typedef struct fm_cas_extent {
    uint64_t address;
    uint64_t length;
} fm_cas_extent_t;
/** Hash the gaps between @p extents of the file @p fd.
 *  @param extents  [count], sorted by this call. */
FM_MUST_USE fm_status_t fm_cas_meta_hash(int fd, uint64_t file_bytes,
                                         fm_cas_extent_t *extents, size_t count,
                                         uint64_t *hash_out, fm_error_t *err);

/* --- quarantine.c ----------------------------------------------------------
 */

/** Read dir/quarantine again; an absent file is empty. */
FM_MUST_USE fm_status_t fm_cas_quarantine_load(fm_cas_t *cas, fm_error_t *err);
/** Is the copy of @p digest in @p segment (NULL: the whole of it) listed? */
bool fm_cas_quarantine_has(const fm_cas_t *cas, const char *segment,
                           const fm_digest_t *digest);
/** List it; durable after fm_cas_quarantine_save(). */
FM_MUST_USE fm_status_t fm_cas_quarantine_add(fm_cas_t *cas,
                                              const char *segment,
                                              const fm_digest_t *digest,
                                              fm_error_t *err);
/** Merge with what others listed meanwhile and replace the file. */
FM_MUST_USE fm_status_t fm_cas_quarantine_save(fm_cas_t *cas, fm_error_t *err);

#endif
