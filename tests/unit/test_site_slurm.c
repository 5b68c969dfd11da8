/* SPDX-License-Identifier: Apache-2.0 */
/* site/slurm over environments captured in a real cluster (tests/slurm/data,
 * whose path is the program's argument) and over broken ones. */
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/mem.h"
#include "fmtest.h"
#include "site/slurm/slurm.h"

static const char *data_dir;

/* The value of "name=" in a text of lines; the lines end with NUL here. */
static const char *lookup(void *ctx, const char *name)
{
    const fm_buf_t *text = ctx;
    size_t len = strlen(name);

    for (size_t at = 0; at < text->len;) {
        const char *line = (const char *)text->data + at;
        if (strncmp(line, name, len) == 0 && line[len] == '=') {
            return line + len + 1;
        }
        at += strlen(line) + 1;
    }
    return NULL;
}

static fm_slurm_t read_text(fm_buf_t *text)
{
    fm_error_t err = {0};
    fm_slurm_t slurm = {0};

    fm_buf_add_u8(text, '\0');
    CU_ASSERT_FATAL(!text->failed);
    for (size_t i = 0; i < text->len; i++) {
        if (text->data[i] == '\n') {
            text->data[i] = '\0';
        }
    }
    FM_ASSERT_OK(fm_slurm_read(lookup, text, &slurm, &err), &err);
    return slurm;
}

static fm_slurm_t read_capture(const char *name)
{
    fm_error_t err = {0};
    fm_buf_t text = {0};
    char *path = fm_asprintf("%s/%s.env", data_dir, name);

    CU_ASSERT_PTR_NOT_NULL_FATAL(path);
    FM_ASSERT_OK(fm_file_read(path, 65536, &text, &err), &err);
    fm_slurm_t slurm = read_text(&text);
    fm_buf_fini(&text);
    free(path);
    return slurm;
}

static void test_outside(void)
{
    fm_buf_t text = {0};
    fm_error_t err = {0};

    fm_buf_add_str(&text, "HOME=/root\nSLURM_JOB_ID=\n");
    fm_slurm_t slurm = read_text(&text);
    CU_ASSERT(!slurm.in_job && !slurm.by_srun && !slurm.by_mpirun);
    CU_ASSERT(slurm.end_time_ns == 0 && slurm.step_tasks == 0);
    CU_ASSERT(fm_slurm_check_world(&slurm, 1, &err) == FM_OK);
    fm_buf_fini(&text);
}

struct capture {
    const char *name;
    bool by_srun;
    bool by_mpirun;
    uint32_t step_tasks;
    uint32_t procid;
    uint32_t node_count;
    bool alone_refused; /* fm_slurm_check_world() with a world of one */
};

static const struct capture captures[] = {
    {"srun_pmix_4_tasks", true, false, 4, 3, 2, true},
    {"srun_none_4_tasks", true, false, 4, 2, 1, true},
    {"srun_1_task", true, false, 1, 0, 1, false},
    {"sbatch_4_tasks_script", false, false, 0, 0, 2, false},
    {"sbatch_4_tasks_srun", true, false, 4, 1, 2, true},
    {"sbatch_4_tasks_mpirun", false, true, 0, 0, 2, false},
    {"salloc_4_tasks_shell", false, false, 0, 0, 1, false},
};

static void test_captures(void)
{
    for (size_t i = 0; i < FM_COUNT_OF(captures); i++) {
        const struct capture *want = &captures[i];
        fm_error_t err = {0};
        fm_slurm_t slurm = read_capture(want->name);

        CU_ASSERT(slurm.in_job && slurm.job_id > 0);
        CU_ASSERT_EQUAL(slurm.by_srun, want->by_srun);
        CU_ASSERT_EQUAL(slurm.by_mpirun, want->by_mpirun);
        CU_ASSERT_EQUAL(slurm.step_tasks, want->step_tasks);
        CU_ASSERT_EQUAL(slurm.procid, want->procid);
        CU_ASSERT_EQUAL(slurm.node_count, want->node_count);
        CU_ASSERT(fm_slurm_check_world(&slurm, 4, &err) == FM_OK);
        CU_ASSERT_EQUAL(fm_slurm_check_world(&slurm, 1, &err) < 0,
                        want->alone_refused);
    }
}

static void test_refusal_text(void)
{
    fm_error_t err = {0};
    fm_slurm_t slurm = read_capture("srun_none_4_tasks");

    CU_ASSERT(fm_slurm_check_world(&slurm, 1, &err) == FM_ERR_INVALID);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "Slurm started 4 tasks"));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "task 2"));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "srun --mpi=pmix"));
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "mpirun"));
}

static void test_times(void)
{
    fm_buf_t text = {0};

    fm_buf_add_str(&text, "SLURM_JOB_ID=7\nSLURM_JOB_END_TIME=1700000000\n"
                          "SLURM_RESTART_COUNT=2\n");
    fm_slurm_t slurm = read_text(&text);
    CU_ASSERT(slurm.end_time_ns == INT64_C(1700000000000000000));
    CU_ASSERT(slurm.restart_count == 2);
    fm_buf_fini(&text);
}

static void test_malformed(void)
{
    static const char *const bad[] = {
        "SLURM_JOB_ID=seven",
        "SLURM_JOB_ID=-1",
        "SLURM_STEP_NUM_TASKS=4x",
        "SLURM_PROCID=4294967296",
        "SLURM_JOB_END_TIME= 17",
        "SLURM_JOB_END_TIME=9223372037",
        "OMPI_COMM_WORLD_SIZE=1e3",
        "SLURM_RESTART_COUNT=0x2",
        "SLURM_JOB_NUM_NODES=99999999999999999999999",
    };

    for (size_t i = 0; i < FM_COUNT_OF(bad); i++) {
        fm_buf_t text = {0};
        fm_error_t err = {0};
        fm_slurm_t slurm = {.job_id = 99};
        size_t name_len = strcspn(bad[i], "=");

        fm_buf_add(&text, bad[i], strlen(bad[i]) + 1);
        CU_ASSERT(fm_slurm_read(lookup, &text, &slurm, &err) == FM_ERR_INVALID);
        CU_ASSERT(slurm.job_id == 99); /* untouched */
        char *named = fm_strndup(bad[i], name_len);
        CU_ASSERT(named && strstr(err.text, named) != NULL);
        free(named);
        fm_buf_fini(&text);
    }
}

static void test_process_environment(void)
{
    fm_error_t err = {0};
    fm_slurm_t slurm = {0};

    CU_ASSERT_FATAL(setenv("SLURM_JOB_ID", "4242", 1) == 0);
    FM_ASSERT_OK(fm_slurm_read(NULL, NULL, &slurm, &err), &err);
    CU_ASSERT(slurm.job_id == 4242);
}

int main(int argc, char **argv)
{
    static const fm_test_case_t cases[] = {
        {"outside of Slurm", test_outside},
        {"captured environments", test_captures},
        {"refusal of singletons", test_refusal_text},
        {"end time and restarts", test_times},
        {"malformed variables", test_malformed},
        {"environment of the process", test_process_environment},
    };

    if (argc != 2) {
        (void)fprintf(stderr, "usage: %s DATA_DIR\n", argv[0]);
        return 2;
    }
    data_dir = argv[1];
    return fm_test_main("site_slurm", cases, FM_COUNT_OF(cases));
}
