/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file hash.h
 * SHA-256 digests (identity of everything stored) and a fast 64-bit hash
 * (XXH3: checksums of records, hash tables; never identity).
 */
#ifndef FM_BASE_HASH_H
#define FM_BASE_HASH_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/** The SHA-256 of some bytes. */
typedef struct fm_digest {
    uint8_t bytes[32];
} fm_digest_t;

/** Bytes of "sha256:" + 64 hex digits + NUL. */
#define FM_DIGEST_TEXT_BYTES 72 /* 7 + 64 + 1 */

/** Hash @p len bytes at once.  Threads: safe. */
fm_digest_t fm_sha256(const void *data, size_t len);

/** Incremental hashing. */
typedef struct fm_sha256_ctx fm_sha256_ctx_t;
FM_MUST_USE fm_sha256_ctx_t *fm_sha256_create(void);
void fm_sha256_update(fm_sha256_ctx_t *ctx, const void *data, size_t len);
/** Finish and make @p ctx ready for the next message. */
fm_digest_t fm_sha256_finish(fm_sha256_ctx_t *ctx);
void fm_sha256_destroy(fm_sha256_ctx_t *ctx);

/** "sha256:<64 hex>" into @p text (≥ FM_DIGEST_TEXT_BYTES); returns it. */
char *fm_digest_format(const fm_digest_t *digest, char *text);
/** Accepts exactly what fm_digest_format() writes. */
bool fm_digest_parse(const char *text, fm_digest_t *digest_out);
bool fm_digest_equal(const fm_digest_t *a, const fm_digest_t *b);
bool fm_digest_is_zero(const fm_digest_t *digest);

/** XXH3-64 of @p len bytes. */
uint64_t fm_hash64(const void *data, size_t len);

#endif
