/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slurm's environment variables, as its man pages (sbatch, srun) define them.
 * Which of them speak of whom, as seen on real clusters (tests/slurm/data):
 *
 *   batch script, salloc shell   SLURM_NTASKS is what was asked for, and
 *                                SLURM_PROCID is 0; no SLURM_STEP_*
 *   task of srun                 SLURM_STEP_NUM_TASKS is what was started
 *   rank of mpirun               SLURM_STEP_* is absent on the first node, and
 *                                elsewhere tells of mpirun's daemons; only
 *                                OMPI_COMM_WORLD_* speak of the rank
 */
#include "site/slurm/slurm.h"

#include <errno.h>
#include <stdlib.h>

#define NS_PER_S INT64_C(1000000000)

static const char *process_env(void *ctx, const char *name)
{
    (void)ctx;
    return getenv(name);
}

struct source {
    fm_slurm_getenv_fn lookup;
    void *ctx;
};

/* An unset or empty variable leaves *out and *found alone. */
static fm_status_t read_number(const struct source *env, const char *name,
                               uint64_t max, uint64_t *out, bool *found,
                               fm_error_t *err)
{
    const char *text = env->lookup(env->ctx, name);
    char *end = NULL;

    if (!text || !*text) {
        return FM_OK;
    }
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || value > max) {
        return fm_error_set(err, FM_ERR_INVALID,
                            "environment: %s is '%.40s', expected a number up "
                            "to %llu: unset it, or start the program through "
                            "Slurm again",
                            name, text, (unsigned long long)max);
    }
    *out = value;
    if (found) {
        *found = true;
    }
    return FM_OK;
}

static fm_status_t read_u32(const struct source *env, const char *name,
                            uint32_t *out, bool *found, fm_error_t *err)
{
    uint64_t value = *out;
    fm_status_t rc = read_number(env, name, UINT32_MAX, &value, found, err);

    if (rc == FM_OK) {
        *out = (uint32_t)value;
    }
    return rc;
}

fm_status_t fm_slurm_read(fm_slurm_getenv_fn lookup, void *ctx, fm_slurm_t *out,
                          fm_error_t *err)
{
    const struct source env = {lookup ? lookup : process_env, ctx};
    fm_slurm_t slurm = {0};
    uint32_t ranks = 0;
    uint32_t step = 0;
    bool in_step = false;
    uint64_t end_s = 0;
    const struct {
        const char *name;
        uint32_t *value;
        bool *found;
    } rows[] = {
        {"SLURM_JOB_ID", &slurm.job_id, &slurm.in_job},
        {"SLURM_JOB_NUM_NODES", &slurm.node_count, NULL},
        {"SLURM_RESTART_COUNT", &slurm.restart_count, NULL},
        {"SLURM_STEP_ID", &step, &in_step},
        {"SLURM_STEP_NUM_TASKS", &slurm.step_tasks, NULL},
        {"SLURM_PROCID", &slurm.procid, NULL},
        {"OMPI_COMM_WORLD_SIZE", &ranks, &slurm.by_mpirun},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        fm_status_t rc =
            read_u32(&env, rows[i].name, rows[i].value, rows[i].found, err);
        if (rc < 0) {
            return rc;
        }
    }
    fm_status_t rc = read_number(&env, "SLURM_JOB_END_TIME",
                                 INT64_MAX / NS_PER_S, &end_s, NULL, err);
    if (rc < 0) {
        return rc;
    }
    slurm.end_time_ns = (int64_t)end_s * NS_PER_S;
    slurm.by_srun = slurm.in_job && in_step && !slurm.by_mpirun;
    if (!slurm.by_srun) { /* they speak of the batch script or of a daemon */
        slurm.step_tasks = 0;
        slurm.procid = 0;
    }
    *out = slurm;
    return FM_OK;
}

fm_status_t fm_slurm_check_world(const fm_slurm_t *slurm, int mpi_size,
                                 fm_error_t *err)
{
    if (!slurm->by_srun || slurm->step_tasks <= 1 || mpi_size != 1) {
        return FM_OK;
    }
    return fm_error_set(
        err, FM_ERR_INVALID,
        "Slurm started %u tasks in job %u, but MPI says this one (task %u) is "
        "alone: srun and the MPI library share no process manager.  Start it "
        "with `srun --mpi=pmix flowmesh …` (`srun --mpi=list` shows what this "
        "Slurm has), or with `mpirun flowmesh …` inside a batch script such as "
        "flowmesh.sbatch; for a single process use `srun -n 1`",
        (unsigned)slurm->step_tasks, (unsigned)slurm->job_id,
        (unsigned)slurm->procid);
}
