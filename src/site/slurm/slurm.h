/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file slurm.h
 * What Slurm says about this process, read from its environment.
 *
 * A pure function over a look-up callback: the captured environments under
 * tests/slurm/data are read like the real one.  Threads: safe, as far as the
 * callback is; getenv() is while nothing calls setenv().
 */
#ifndef FM_SITE_SLURM_H
#define FM_SITE_SLURM_H

#include <flowmesh/error.h>
#include <stdbool.h>
#include <stdint.h>

/** Value of a variable, or NULL; the text must live during the call only. */
typedef const char *(*fm_slurm_getenv_fn)(void *ctx, const char *name);

/** All zero outside of Slurm and mpirun. */
typedef struct fm_slurm {
    bool in_job;            /**< inside an allocation */
    bool by_srun;           /**< a task that srun itself started */
    bool by_mpirun;         /**< a rank that Open MPI's mpirun started */
    uint32_t job_id;        /**< SLURM_JOB_ID */
    uint32_t node_count;    /**< nodes of the allocation */
    uint32_t step_tasks;    /**< tasks srun started with this one; 0: none */
    uint32_t procid;        /**< number of this task among them */
    uint32_t restart_count; /**< times the job was requeued and started again */
    int64_t end_time_ns;    /**< end of the walltime, ns since 1970; 0: unknown.
                                 Slurm sets it from 23.02 on, flowmesh.sbatch
                                 does so everywhere. */
} fm_slurm_t;

/**
 * Read the environment.
 * @param lookup   NULL for the environment of this process.
 * @param ctx      handed to @p lookup.
 * @param out      [out] written on success only.
 * @retval FM_ERR_INVALID  a variable is not the number it should be; the text
 *                         names it.
 */
FM_MUST_USE fm_status_t fm_slurm_read(fm_slurm_getenv_fn lookup, void *ctx,
                                      fm_slurm_t *out, fm_error_t *err);

/**
 * Refuse silent singletons: srun started several tasks, yet each believes to
 * be alone, because srun and the MPI library share no PMI.  Each would become
 * a fabric of its own on the same directory.
 *
 * A program started once by the batch script of a many-task job, by a shell
 * under salloc or by `mpirun -n 1` is alone on purpose and passes.
 *
 * @param mpi_size  ranks of MPI_COMM_WORLD; 1 when MPI was not started.
 * @retval FM_ERR_INVALID  with what happened and the mends.
 */
FM_MUST_USE fm_status_t fm_slurm_check_world(const fm_slurm_t *slurm,
                                             int mpi_size, fm_error_t *err);

#endif
