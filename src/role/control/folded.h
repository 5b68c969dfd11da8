/* SPDX-License-Identifier: Apache-2.0 */
/* What the journal's records fold into: shared by state.c (life, queries) and
 * apply.c (one function a record type). */
#ifndef FM_ROLE_CONTROL_FOLDED_H
#define FM_ROLE_CONTROL_FOLDED_H

#include "base/map.h"
#include "role/control/state.h"

struct batch {
    fm_digest_t key;
    fm_batch_info_t info;
    bool changed; /* in the list below */
};

struct fm_state {
    char *numerics;
    fm_pool_t *pool;
    fm_cost_t *cost;
    uint32_t device_class;
    fm_run_t **runs;
    size_t run_count;
    size_t run_capacity;
    fm_map_t *lease_index; /* lease number → index in leases */
    fm_lease_record_t *leases;
    size_t lease_count;
    size_t lease_capacity;
    fm_map_t *batch_index; /* batch key → index in batches */
    fm_wait_record_t *waits;
    size_t wait_count;
    size_t wait_capacity;
    struct batch *batches;
    size_t batch_count;
    size_t batch_capacity;
    uint32_t *changed; /* indices of batches that nobody has taken yet */
    size_t changed_count;
    size_t changed_capacity;
    fm_map_t *checkpoint_index; /* action key → index in checkpoints */
    fm_digest_t *checkpoints;
    size_t checkpoint_count;
    size_t checkpoint_capacity;
};

/** NULL and half-built runs are fine. */
void fm_state_run_destroy(fm_run_t *run);
/** Key of a lease number in lease_index. */
fm_digest_t fm_state_lease_key(uint64_t lease);

#endif
