/* SPDX-License-Identifier: Apache-2.0 */
/* Where this process runs: the MPI world, the fabric directory, the host. */
#ifndef FM_ROLE_LAUNCH_WORLD_H
#define FM_ROLE_LAUNCH_WORLD_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stdint.h>

/** The world that was launched; rank 0 of size 1 when alone. */
typedef struct fm_world {
    uint32_t rank;
    uint32_t size;
    bool mpi; /**< MPI is initialised */
} fm_world_t;

/** Initialise MPI when a launcher started us; refuses silent singletons. */
FM_MUST_USE fm_status_t fm_world_open(fm_world_t *world_out, fm_error_t *err);

/** The directory a run uses: @p named, $FLOWMESH_FABRIC, or a fresh one under
 *  the user's state directory, to which the link `latest` points; free(). */
FM_MUST_USE fm_status_t fm_fabric_dir_choose(const char *named, char **dir_out,
                                             fm_error_t *err);

#endif
