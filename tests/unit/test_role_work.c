/* SPDX-License-Identifier: Apache-2.0 */
/* role/control work: the classes of work, and their units. */
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "fmtest.h"
#include "role/control/work.h"

/* A vector of one item of @p bytes bytes. */
static fm_vector_t vector_make(size_t bytes, size_t *offset)
{
    fm_vector_t vector = {.count = 1, .offsets = offset};

    *offset = 0;
    for (size_t i = 0; i < bytes; i++) {
        fm_buf_add_u8(&vector.texts, 'x');
    }
    CU_ASSERT_FATAL(!vector.texts.failed);
    return vector;
}

static fm_json_t *json(const char *text)
{
    fm_json_t *value = NULL;
    fm_error_t err = {0};

    FM_ASSERT_OK(fm_json_parse(text, strlen(text), "t", &value, &err), &err);
    return value;
}

static fm_batch_info_t describe(fm_cost_t *cost, const char *task_type,
                                const char *params, const char *hints,
                                double *work_out)
{
    size_t offset;
    fm_vector_t vector = vector_make(100, &offset);
    fm_json_t *p = json(params);
    fm_json_t *h = json(hints);
    fm_batch_info_t info;

    *work_out = fm_work_describe(cost, task_type, p, h, &vector, &info);
    fm_json_drop(p);
    fm_json_drop(h);
    fm_buf_fini(&vector.texts);
    return info;
}

static fm_cost_t *cost_make(uint32_t *device)
{
    fm_cost_t *cost = fm_cost_create();
    fm_error_t err = {0};

    CU_ASSERT_FATAL(cost != NULL);
    FM_ASSERT_OK(fm_work_seed_cost(cost, "cpu-f32", device, &err), &err);
    return cost;
}

static void test_classes(void)
{
    /* 4 bytes a parameter in the engine's memory */
    static const struct {
        const char *task_type, *params, *hints, *name;
        double work;
    } cases[] = {
        {"inference", "{\"max_tokens\":100}", "{\"model_bytes\":4400000000}",
         "inference/1.1B/128", 200},
        {"inference", "{\"max_tokens\":128,\"n\":4}",
         "{\"model_bytes\":4400000000}", "inference/1.1B/128", 612},
        {"inference", "{\"max_tokens\":129}", "{\"model_bytes\":4400000000}",
         "inference/1.1B/256", 229},
        {"inference", "{}", "{}", "inference/0/64", 164},
        {"score", "{}", "{\"model_bytes\":1440000000}", "score/360M", 100},
        {"sft", "{\"training\":{\"num_train_epochs\":3}}",
         "{\"model_bytes\":1440000000}", "sft/360M", 300},
        {"sft",
         "{\"model\":{\"config\":{\"vocab_size\":260,\"hidden_size\":128,"
         "\"intermediate_size\":384,\"num_hidden_layers\":4}}}",
         "{}", "sft/890K", 100},
        {"echo", "{}", "{}", "echo", 1},
    };
    uint32_t device;
    fm_cost_t *cost = cost_make(&device);

    for (size_t i = 0; i < FM_COUNT_OF(cases); i++) {
        double work = 0;
        fm_batch_info_t info = describe(cost, cases[i].task_type,
                                        cases[i].params, cases[i].hints, &work);
        CU_ASSERT_STRING_EQUAL(fm_cost_task_name(cost, info.task_class),
                               cases[i].name);
        CU_ASSERT_DOUBLE_EQUAL(work, cases[i].work, 1e-9);
    }
    fm_cost_destroy(cost);
}

/* Programs are told apart, their arguments are not. */
static void test_programs(void)
{
    uint32_t device;
    fm_cost_t *cost = cost_make(&device);
    double work;
    uint32_t a = describe(cost, "command",
                          "{\"argv\":[\"python3\",\"a.py\",\"--lr\",\"1\"]}",
                          "{}", &work)
                     .task_class;
    uint32_t again =
        describe(cost, "command",
                 "{\"argv\":[\"python3\",\"a.py\",\"--lr\",\"2\"]}", "{}",
                 &work)
            .task_class;
    uint32_t b = describe(cost, "command", "{\"argv\":[\"python3\",\"b.py\"]}",
                          "{}", &work)
                     .task_class;
    uint32_t code =
        describe(cost, "python", "{\"code\":\"x\"}", "{}", &work).task_class;
    uint32_t other =
        describe(cost, "python", "{\"code\":\"y\"}", "{}", &work).task_class;

    CU_ASSERT(a == again && a != b && code != other);
    CU_ASSERT(strncmp(fm_cost_task_name(cost, code), "python/", 7) == 0);
    fm_cost_destroy(cost);
}

/* Larger models, longer answers and more training cost more from the start;
 * what surely does not fit is known. */
static void test_rooflines(void)
{
    uint32_t device;
    fm_cost_t *cost = cost_make(&device);
    const char *const hints[] = {"{\"model_bytes\":40000000}",
                                 "{\"model_bytes\":4000000000}"};
    double last = 0;

    for (size_t i = 0; i < 2; i++) {
        static const char *const types[] = {"score", "sft", "inference"};
        for (size_t t = 0; t < 3; t++) {
            double work;
            fm_cost_estimate_t out;
            fm_batch_info_t info = describe(
                cost, types[t], "{\"max_tokens\":50}", hints[i], &work);
            fm_cost_estimate(cost, info.task_class, device, 150, &out);
            CU_ASSERT(out.seconds > last);
            last = out.seconds;
            CU_ASSERT(info.memory_bytes ==
                      info.model_bytes * (t == 1 ? 4u : 1u));
        }
    }
    fm_cost_destroy(cost);
}

static void test_sites(void)
{
    const fm_work_site_t site = {
        .device_class = "a \"b\"",
        .spec = {.flops_per_s = 1.0 / 3, .bytes_per_s = 2e9},
        .load_s = 0.1,
        .load_bytes = 12345};
    static const char *const before[] = {"", "{\"total_s\":1}", "broken"};

    for (size_t i = 0; i < FM_COUNT_OF(before); i++) {
        char *text = fm_work_site_note(before[i], &site);
        fm_work_site_t read = {0};
        fm_json_t *held = NULL;

        CU_ASSERT_FATAL(text && fm_work_site_read(text, &read, &held));
        CU_ASSERT_STRING_EQUAL(read.device_class, site.device_class);
        CU_ASSERT(memcmp(&read.spec, &site.spec, sizeof(site.spec)) == 0);
        CU_ASSERT(memcmp(&read.load_s, &site.load_s, sizeof(double)) == 0);
        CU_ASSERT((strstr(text, "total_s") != NULL) == (i == 1));
        fm_json_drop(held);
        free(text);
    }
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"classes", test_classes},
        {"programs", test_programs},
        {"rooflines", test_rooflines},
        {"sites", test_sites},
    };

    return fm_test_main("role_work", cases, sizeof(cases) / sizeof(cases[0]));
}
