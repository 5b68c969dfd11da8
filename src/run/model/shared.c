/* SPDX-License-Identifier: Apache-2.0 */
/* What the manifests of a store have in common. */
#include <stdlib.h>
#include <string.h>

#include "base/map.h"
#include "base/mem.h"
#include "run/model/library.h"

/* Digests of all manifests; the store is not to be read while it is walked. */
fm_status_t fm_model_manifests(fm_cas_t *cas, fm_digest_t **digests_out,
                               size_t *count_out, fm_error_t *err)
{
    fm_cas_object_t object;
    fm_digest_t *digests = NULL;
    size_t capacity = 0;
    size_t count = 0;
    size_t cursor = 0;
    fm_status_t rc = FM_OK;

    while (rc >= 0 && fm_cas_next(cas, &cursor, &object)) {
        if (object.kind == FM_CAS_MODEL) {
            rc = fm_grow(&digests, &capacity, count, sizeof(*digests), err);
            if (rc >= 0) {
                digests[count++] = object.digest;
            }
        }
    }
    if (rc < 0) {
        free(digests);
        return rc;
    }
    *digests_out = digests;
    *count_out = count;
    return FM_OK;
}

/* Add the digests of a manifest's tensors to @p known; what is no manifest
 * has none. */
static fm_status_t tensors_note(fm_cas_t *cas, const fm_digest_t *digest,
                                fm_map_t *known, fm_error_t *err)
{
    fm_model_manifest_t manifest = {0};
    fm_status_t rc = FM_OK;

    if (fm_model_manifest_read(cas, digest, &manifest, NULL) < 0) {
        return FM_OK;
    }
    for (size_t i = 0; rc >= 0 && i < manifest.tensor_count; i++) {
        rc = fm_map_put(known, &manifest.tensors[i].digest, 1, err);
    }
    fm_model_manifest_fini(&manifest);
    return rc;
}

fm_status_t fm_model_shared_bytes(fm_cas_t *cas, const fm_digest_t *digest,
                                  const fm_model_manifest_t *manifest,
                                  uint64_t *bytes_out, fm_error_t *err)
{
    fm_digest_t *others = NULL;
    size_t count = 0;
    uint64_t bytes = 0;
    fm_map_t *known = fm_map_create();
    fm_status_t rc = known ? fm_model_manifests(cas, &others, &count, err)
                           : fm_no_memory(err);

    for (size_t i = 0; rc >= 0 && i < count; i++) {
        if (!fm_digest_equal(&others[i], digest)) {
            rc = tensors_note(cas, &others[i], known, err);
        }
    }
    for (size_t i = 0; rc >= 0 && i < manifest->tensor_count; i++) {
        if (fm_map_get(known, &manifest->tensors[i].digest)) {
            bytes += fm_model_tensor_bytes(&manifest->tensors[i]);
        }
    }
    free(others);
    fm_map_destroy(known);
    if (rc >= 0) {
        *bytes_out = bytes;
    }
    return rc;
}
