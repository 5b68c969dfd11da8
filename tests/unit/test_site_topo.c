/* SPDX-License-Identifier: Apache-2.0 */
/* site/topo: this host, a two-socket machine from an hwloc XML file (under the
 * data directory that is the program's argument), control groups, bad files. */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "fmtest.h"
#include "site/topo/topo.h"

#define GIB (UINT64_C(1) << 30)

static char *xml_path;
static char scratch[] = "/tmp/fm-topo-XXXXXX";

static fm_topo_t *open_topo(const fm_topo_options_t *opts)
{
    fm_error_t err = {0};
    fm_topo_t *topo = NULL;

    FM_ASSERT_OK(fm_topo_open(opts, &topo, &err), &err);
    return topo;
}

/* Write scratch/name; returns its path, free() it. */
static char *put(const char *name, const char *text)
{
    fm_error_t err = {0};
    char *path = fm_asprintf("%s/%s", scratch, name);

    CU_ASSERT_PTR_NOT_NULL_FATAL(path);
    char *dir = fm_strndup(path, (size_t)(strrchr(path, '/') - path));
    CU_ASSERT_PTR_NOT_NULL_FATAL(dir);
    FM_ASSERT_OK(fm_file_make_dirs(dir, 0755, &err), &err);
    FM_ASSERT_OK(fm_file_replace(path, text, strlen(text), &err), &err);
    free(dir);
    return path;
}

static void test_this_host(void)
{
    fm_topo_t *topo = open_topo(NULL);
    const fm_topo_host_t *host = fm_topo_host(topo);
    char name[256] = "";

    CU_ASSERT(gethostname(name, sizeof(name) - 1) == 0);
    CU_ASSERT_STRING_EQUAL(host->host_name, name);
    CU_ASSERT(host->core_count >= 1);
    CU_ASSERT(host->core_count <= host->machine_core_count);
    CU_ASSERT(host->thread_count >= host->core_count);
    CU_ASSERT(host->numa_count >= 1);
    CU_ASSERT(host->memory_bytes > 64u << 20); /* or we would not run */
    CU_ASSERT(host->memory_bytes <= host->memory_total_bytes);
    CU_ASSERT(strlen(host->cpu_model) > 0);
    fm_topo_close(topo);
}

static void test_affinity(void)
{
    cpu_set_t before;
    cpu_set_t one;
    size_t cpu = 0;

    CU_ASSERT_FATAL(sched_getaffinity(0, sizeof(before), &before) == 0);
    while (!CPU_ISSET(cpu, &before)) {
        cpu++;
    }
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CU_ASSERT_FATAL(sched_setaffinity(0, sizeof(one), &one) == 0);
    fm_topo_t *topo = open_topo(NULL);
    CU_ASSERT(fm_topo_host(topo)->core_count == 1);
    CU_ASSERT(fm_topo_host(topo)->thread_count == 1);
    CU_ASSERT(fm_topo_device(topo, 0)->core_count == 1);
    fm_topo_close(topo);
    CU_ASSERT(sched_setaffinity(0, sizeof(before), &before) == 0);
}

static void test_two_sockets(void)
{
    fm_topo_t *topo = open_topo(&(fm_topo_options_t){.xml_path = xml_path});
    const fm_topo_host_t *host = fm_topo_host(topo);

    CU_ASSERT_STRING_EQUAL(host->host_name, "node17");
    CU_ASSERT_STRING_EQUAL(host->cpu_model, "AMD EPYC 7313 16-Core Processor");
    CU_ASSERT_EQUAL(host->core_count, 16);
    CU_ASSERT_EQUAL(host->machine_core_count, 16);
    CU_ASSERT_EQUAL(host->thread_count, 32);
    CU_ASSERT_EQUAL(host->numa_count, 2);
    CU_ASSERT_EQUAL(host->memory_bytes, 128 * GIB);

    CU_ASSERT_EQUAL(fm_topo_device_count(topo), 1);
    const fm_topo_device_t *device = fm_topo_device(topo, 0);
    CU_ASSERT_EQUAL(device->kind, FM_TOPO_DEVICE_CPU);
    CU_ASSERT_STRING_EQUAL(fm_topo_device_kind_name(device->kind), "cpu");
    CU_ASSERT_STRING_EQUAL(device->name, host->cpu_model);
    CU_ASSERT_EQUAL(device->core_count, 16);
    CU_ASSERT_EQUAL(device->memory_bytes, 128 * GIB);
    CU_ASSERT_PTR_NULL(fm_topo_device(topo, 1));
    fm_topo_close(topo);
}

/* Limits of the made-up groups under scratch/@p root. */
static fm_topo_host_t with_groups(const char *root, const char *self_text)
{
    char *self = put("self", self_text);
    char *dir = fm_asprintf("%s/%s", scratch, root);
    fm_topo_t *topo = open_topo(&(fm_topo_options_t){
        .xml_path = xml_path, .cgroup_root = dir, .cgroup_self = self});
    fm_topo_host_t host = *fm_topo_host(topo);

    CU_ASSERT_EQUAL(fm_topo_device(topo, 0)->memory_bytes, host.memory_bytes);
    CU_ASSERT_EQUAL(fm_topo_device(topo, 0)->core_count, host.core_count);
    host.host_name = NULL; /* they end with the handle */
    host.cpu_model = NULL;
    fm_topo_close(topo);
    free(dir);
    free(self);
    return host;
}

static void test_cgroup_v2(void)
{
    free(put("v2/slurm/memory.max", "8589934592\n")); /* an ancestor's */
    free(put("v2/slurm/job_7/memory.max", "max\n"));
    free(put("v2/slurm/job_7/cpu.max", "250000 100000\n"));
    free(put("v2/slurm/job_7/step/cpu.max", "max 100000\n"));
    fm_topo_host_t host = with_groups("v2", "0::/slurm/job_7/step\n");
    CU_ASSERT_EQUAL(host.memory_bytes, 8 * GIB);
    CU_ASSERT_EQUAL(host.memory_total_bytes, 128 * GIB);
    CU_ASSERT_EQUAL(host.core_count, 3); /* 2.5 rounded up */
    CU_ASSERT_EQUAL(host.thread_count, 3);
}

static void test_cgroup_v1(void)
{
    free(put("v1/memory/slurm/uid_0/memory.limit_in_bytes", "4294967296\n"));
    free(put("v1/memory/memory.limit_in_bytes", "9223372036854771712\n"));
    free(put("v1/cpu,cpuacct/cpu.cfs_quota_us", "-1\n"));
    free(put("v1/cpu,cpuacct/cpu.cfs_period_us", "100000\n"));
    fm_topo_host_t host =
        with_groups("v1", "9:memory:/slurm/uid_0\n3:cpu,cpuacct:/\n0::/\n");
    CU_ASSERT_EQUAL(host.memory_bytes, 4 * GIB);
    CU_ASSERT_EQUAL(host.core_count, 16);
}

static void test_cgroup_odd(void)
{
    free(put("odd/a/memory.max", "lots\n"));
    free(put("odd/a/cpu.max", "100000 0\n")); /* no division by zero */
    free(put("odd/memory.max", "99999999999999999999999\n"));
    fm_topo_host_t host =
        with_groups("odd", "junk\n7\n0::/a\n0::/../..\n1:x\n0::relative\n");
    CU_ASSERT_EQUAL(host.memory_bytes, 128 * GIB);
    CU_ASSERT_EQUAL(host.core_count, 16);
    host = with_groups("absent", "");
    CU_ASSERT_EQUAL(host.memory_bytes, 128 * GIB);
}

static void test_bad_xml(void)
{
    fm_error_t err = {0};
    fm_topo_t *topo = NULL;
    char *path = put("bad.xml", "<?xml version=\"1.0\"?><topology>");

    CU_ASSERT(fm_topo_open(&(fm_topo_options_t){.xml_path = path}, &topo,
                           &err) == FM_ERR_CORRUPT);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "bad.xml"));
    CU_ASSERT(fm_topo_open(&(fm_topo_options_t){.xml_path = "/nowhere.xml"},
                           &topo, &err) == FM_ERR_NOT_FOUND);
    CU_ASSERT_PTR_NOT_NULL(strstr(err.text, "/nowhere.xml"));
    CU_ASSERT_PTR_NULL(topo);
    fm_topo_close(NULL);
    free(path);
}

int main(int argc, char **argv)
{
    static const fm_test_case_t cases[] = {
        {"this host", test_this_host},
        {"affinity mask", test_affinity},
        {"two sockets", test_two_sockets},
        {"control groups v2", test_cgroup_v2},
        {"control groups v1", test_cgroup_v1},
        {"odd control groups", test_cgroup_odd},
        {"bad files", test_bad_xml},
    };

    if (argc != 2 || !mkdtemp(scratch) ||
        !(xml_path = fm_asprintf("%s/topo_two_sockets.xml", argv[1]))) {
        (void)fprintf(stderr, "usage: %s DATA_DIR\n", argv[0]);
        return 2;
    }
    int rc = fm_test_main("site_topo", cases, FM_COUNT_OF(cases));
    free(xml_path);
    return fm_file_remove_tree(scratch, NULL) == FM_OK ? rc : 1;
}
