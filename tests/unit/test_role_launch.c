/* SPDX-License-Identifier: Apache-2.0 */
/*
 * role/launch: from the environment to the world and the fabric directory,
 * and what is refused before anything runs.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "fmtest.h"
#include "role/launch/launch.h"
#include "role/launch/world.h"

static char dir[64];

/* Nothing of the launcher or the site that runs these tests. */
static void clean_environment(void)
{
    static const char *const names[] = {
        "OMPI_COMM_WORLD_SIZE",
        "PMIX_RANK",
        "PMI_RANK",
        "PMI_SIZE",
        "SLURM_JOB_ID",
        "SLURM_NTASKS",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_PROCID",
        "SLURM_STEP_ID",
        "FLOWMESH_FABRIC",
        "XDG_STATE_HOME",
    };

    for (size_t i = 0; i < FM_COUNT_OF(names); i++) {
        (void)unsetenv(names[i]);
    }
    (void)snprintf(dir, sizeof(dir), "/tmp/fm-launch-XXXXXX");
    CU_ASSERT_FATAL(mkdtemp(dir) != NULL);
    (void)setenv("HOME", dir, 1);
}

static void clean_up(void)
{
    fm_error_t err = {0};
    FM_ASSERT_OK(fm_file_remove_tree(dir, &err), &err);
}

static void test_alone(void)
{
    fm_world_t world = {9, 9, true};
    fm_error_t err = {0};

    clean_environment();
    FM_ASSERT_OK(fm_world_open(&world, &err), &err);
    CU_ASSERT(world.rank == 0 && world.size == 1 && !world.mpi);
    clean_up();
}

/* srun started several tasks, and MPI knows of one: refuse, do not run the
 * workflow once per task. */
static void test_silent_singletons(void)
{
    fm_world_t world = {9, 9, true};
    fm_error_t err = {0};

    clean_environment();
    (void)setenv("SLURM_JOB_ID", "17", 1);
    (void)setenv("SLURM_STEP_ID", "0", 1);
    (void)setenv("SLURM_PROCID", "0", 1);
    (void)setenv("SLURM_NTASKS", "4", 1);
    (void)setenv("SLURM_STEP_NUM_TASKS", "4", 1);
    CU_ASSERT(fm_world_open(&world, &err) < 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "4"));
    CU_ASSERT(world.size == 9); /* untouched */
    clean_environment();
    clean_up();
}

static void test_fabric_named(void)
{
    char *path = NULL;
    char cwd[4096];
    fm_error_t err = {0};

    clean_environment();
    CU_ASSERT_FATAL(getcwd(cwd, sizeof(cwd)) != NULL);
    (void)setenv("FLOWMESH_FABRIC", "/from/environment", 1);
    FM_ASSERT_OK(fm_fabric_dir_choose("/named", &path, &err), &err);
    CU_ASSERT_STRING_EQUAL(path, "/named");
    free(path);
    FM_ASSERT_OK(fm_fabric_dir_choose(NULL, &path, &err), &err);
    CU_ASSERT_STRING_EQUAL(path, "/from/environment");
    free(path);
    FM_ASSERT_OK(fm_fabric_dir_choose("here", &path, &err), &err);
    CU_ASSERT(strncmp(path, cwd, strlen(cwd)) == 0); /* absolute */
    CU_ASSERT_STRING_EQUAL(path + strlen(cwd), "/here");
    free(path);
    clean_up();
}

static void test_fabric_fresh(void)
{
    char *made = NULL;
    char *latest = NULL;
    struct stat st;
    fm_error_t err = {0};

    clean_environment();
    (void)setenv("XDG_STATE_HOME", dir, 1);
    CU_ASSERT(fm_launch_fabric_dir(NULL, &latest, &err) == FM_ERR_NOT_FOUND);
    CU_ASSERT(latest == NULL);
    FM_ASSERT_OK(fm_fabric_dir_choose(NULL, &made, &err), &err);
    CU_ASSERT(strncmp(made, dir, strlen(dir)) == 0);
    CU_ASSERT(stat(made, &st) == 0 && S_ISDIR(st.st_mode));
    FM_ASSERT_OK(fm_launch_fabric_dir(NULL, &latest, &err), &err);
    CU_ASSERT_STRING_EQUAL(latest, made);
    free(latest);
    FM_ASSERT_OK(fm_launch_fabric_dir("/named", &latest, &err), &err);
    CU_ASSERT_STRING_EQUAL(latest, "/named");
    free(latest);
    free(made);
    clean_up();
}

static void test_refused(void)
{
    fm_error_t err = {0};

    clean_environment();
    char *file = fm_asprintf("%s/bad.yaml", dir);
    char *fabric = fm_asprintf("%s/fabric", dir);
    FM_ASSERT_OK(fm_file_replace(file, "kind: [\n", 8, &err), &err);
    const char *files[] = {file, NULL};
    fm_launch_options_t opts = {
        .files = files, .file_count = 1, .fabric_dir = fabric};
    CU_ASSERT(fm_launch_run(&opts, &err) == FM_LAUNCH_REFUSED);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "bad.yaml:"));
    CU_ASSERT(access(fabric, F_OK) != 0); /* nothing was made */
    files[0] = "/nonexistent/workflow.yaml";
    CU_ASSERT(fm_launch_run(&opts, &err) == FM_LAUNCH_REFUSED);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "/nonexistent/workflow.yaml"));
    free(file);
    free(fabric);
    clean_up();
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"alone", test_alone},
        {"silent singletons", test_silent_singletons},
        {"fabric named", test_fabric_named},
        {"fabric fresh", test_fabric_fresh},
        {"refused", test_refused},
    };

    return fm_test_main("role launch", cases, FM_COUNT_OF(cases));
}
