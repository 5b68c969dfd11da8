/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entries: chains of copies hanging from the digest map.
 * Invariant: a digest in the map has at least one entry.
 */
#include "base/mem.h"
#include "store/cas/store.h"

fm_cas_entry_t *fm_cas_index_find(const fm_cas_t *cas,
                                  const fm_digest_t *digest)
{
    const uint64_t *head = fm_map_get(cas->index, digest);

    return head ? &cas->entries[*head] : NULL;
}

fm_cas_entry_t *fm_cas_index_next(const fm_cas_t *cas,
                                  const fm_cas_entry_t *entry)
{
    return entry->next == FM_CAS_NONE ? NULL : &cas->entries[entry->next];
}

fm_cas_entry_t *fm_cas_index_find_tensor(const fm_cas_t *cas,
                                         const fm_digest_t *digest)
{
    fm_cas_entry_t *entry = fm_cas_index_find(cas, digest);

    while (entry && entry->shape == FM_CAS_SHAPE_NONE) {
        entry = fm_cas_index_next(cas, entry);
    }
    return entry;
}

static fm_status_t entry_take(fm_cas_t *cas, uint32_t *number_out,
                              fm_error_t *err)
{
    if (cas->entry_free != FM_CAS_NONE) {
        *number_out = cas->entry_free;
        cas->entry_free = cas->entries[cas->entry_free].next;
        return FM_OK;
    }
    if (cas->entry_count >= FM_CAS_NONE) {
        return fm_error_set(err, FM_ERR_LIMIT,
                            "more than 4 billion objects: collect garbage");
    }
    fm_status_t rc = fm_grow(&cas->entries, &cas->entry_capacity,
                             cas->entry_count, sizeof(*cas->entries), err);
    if (rc >= 0) {
        *number_out = (uint32_t)cas->entry_count++;
    }
    return rc;
}

static void entry_release(fm_cas_t *cas, uint32_t number)
{
    cas->entries[number].next = cas->entry_free;
    cas->entry_free = number;
}

fm_status_t fm_cas_index_add(fm_cas_t *cas, const fm_digest_t *digest,
                             const fm_cas_entry_t *entry, bool at_head,
                             uint32_t *number_out, fm_error_t *err)
{
    uint32_t number = 0;
    fm_status_t rc = entry_take(cas, &number, err);

    if (rc < 0) {
        return rc;
    }
    fm_cas_entry_t *added = &cas->entries[number];
    *added = *entry;
    added->next = FM_CAS_NONE;
    uint64_t *head = fm_map_get(cas->index, digest);
    if (!head) {
        rc = fm_map_put(cas->index, digest, number, err);
    } else if (at_head) {
        added->next = (uint32_t)*head;
        *head = number;
    } else {
        added->next = cas->entries[*head].next;
        cas->entries[*head].next = number;
    }
    if (rc < 0) {
        entry_release(cas, number);
    } else if (number_out) {
        *number_out = number;
    }
    return rc;
}

/* Drop the copies in segment from the chain at head; returns the new head. */
static uint32_t chain_filter(fm_cas_t *cas, uint32_t head, uint32_t segment)
{
    uint32_t kept = FM_CAS_NONE;
    uint32_t *link = &kept;

    for (uint32_t at = head; at != FM_CAS_NONE;) {
        uint32_t next = cas->entries[at].next;
        if (cas->entries[at].segment == segment) {
            entry_release(cas, at);
        } else {
            *link = at;
            link = &cas->entries[at].next;
            *link = FM_CAS_NONE;
        }
        at = next;
    }
    return kept;
}

bool fm_cas_index_remove(fm_cas_t *cas, const fm_digest_t *digest,
                         uint32_t segment)
{
    uint64_t *head = fm_map_get(cas->index, digest);
    uint32_t free_before = cas->entry_free;

    if (!head) {
        return false;
    }
    uint32_t kept = chain_filter(cas, (uint32_t)*head, segment);
    if (kept == FM_CAS_NONE) {
        (void)fm_map_remove(cas->index, digest);
    } else {
        *head = kept;
    }
    return cas->entry_free != free_before;
}

/* Digests with a copy in segment, at most max of them. */
static size_t segment_digests(const fm_cas_t *cas, uint32_t segment,
                              fm_digest_t *digests, size_t max)
{
    size_t cursor = 0;
    size_t count = 0;
    uint64_t head = 0;

    while (count < max &&
           fm_map_next(cas->index, &cursor, &digests[count], &head)) {
        uint32_t at = (uint32_t)head;
        while (at != FM_CAS_NONE && cas->entries[at].segment != segment) {
            at = cas->entries[at].next;
        }
        count += at != FM_CAS_NONE ? 1 : 0;
    }
    return count;
}

/* The map may not change while it is iterated, and this must not need memory:
 * hence batches. */
void fm_cas_index_remove_segment(fm_cas_t *cas, uint32_t segment)
{
    fm_digest_t digests[512];
    size_t count = 0;

    do {
        count = segment_digests(cas, segment, digests, FM_COUNT_OF(digests));
        for (size_t i = 0; i < count; i++) {
            (void)fm_cas_index_remove(cas, &digests[i], segment);
        }
    } while (count == FM_COUNT_OF(digests));
}

fm_status_t fm_cas_shape_add(fm_cas_t *cas, const fm_cas_shape_t *shape,
                             uint32_t *number_out, fm_error_t *err)
{
    if (cas->shape_count >= FM_CAS_SHAPE_NONE) {
        return fm_error_set(err, FM_ERR_LIMIT, "more than 4 billion tensors");
    }
    fm_status_t rc = fm_grow(&cas->shapes, &cas->shape_capacity,
                             cas->shape_count, sizeof(*cas->shapes), err);
    if (rc >= 0) {
        cas->shapes[cas->shape_count] = *shape;
        *number_out = (uint32_t)cas->shape_count++;
    }
    return rc;
}
