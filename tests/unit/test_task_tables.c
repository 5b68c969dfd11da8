/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The three tables of task types agree: what the language compiles to
 * (plan/workflow), what makes its keys (plan/key), what runs it (run/ops).
 */
#include <string.h>

#include "base/mem.h"
#include "fmtest.h"
#include "plan/key/key.h"
#include "plan/workflow/workflow.h"
#include "run/ops/ops.h"

static const fm_ops_type_t *operator_find(const char *name)
{
    size_t count = 0;
    const fm_ops_type_t *types = fm_ops_types(&count);

    for (size_t i = 0; i < count; i++) {
        if (strcmp(types[i].name, name) == 0) {
            return &types[i];
        }
    }
    return NULL;
}

/* A version is part of every action key: both sides must mean the same. */
static void test_versions(void)
{
    size_t count = 0;
    const fm_ops_type_t *types = fm_ops_types(&count);

    CU_ASSERT(count > 20);
    for (size_t i = 0; i < count; i++) {
        const fm_key_task_t *task = fm_key_task_find(types[i].name, NULL);
        bool fits = task && task->version == types[i].version &&
                    task->numeric == types[i].engine;
        if (!fits) {
            (void)fprintf(stderr, "%s: version %d, in plan/key %d\n",
                          types[i].name, types[i].version,
                          task ? task->version : -1);
        }
        CU_ASSERT(fits);
    }
}

/* A worker's mask of task types has 64 bits. */
static void test_count(void)
{
    size_t count = 0;

    while (fm_key_task_at(count)) {
        count++;
    }
    CU_ASSERT(count <= 64);
}

/* What the language says it supports has an operator and a row of keys. */
static void test_language(void)
{
    static const char text[] =
        "apiVersion: flowmesh/v1\nspec: {taskType: none_such}\n";
    fm_workflow_t *wf = NULL;
    fm_error_t err = {0};
    size_t names = 0;

    CU_ASSERT(fm_workflow_parse(text, strlen(text), "t", &wf, &err) ==
              FM_ERR_INVALID);
    const char *at = strstr(err.text, "supported: ");
    CU_ASSERT_PTR_NOT_NULL_FATAL(at);
    at += strlen("supported: ");
    while (*at) {
        char name[64] = "";
        size_t len = strcspn(at, ",");
        CU_ASSERT_FATAL(len < sizeof(name));
        memcpy(name, at, len);
        bool known = operator_find(name) && fm_key_task_find(name, NULL);
        if (!known) {
            (void)fprintf(stderr, "%s: no operator or no row\n", name);
        }
        CU_ASSERT(known);
        names++;
        at += len + strspn(at + len, ", ");
    }
    CU_ASSERT(names >= 24);
}

int main(void)
{
    static const fm_test_case_t cases[] = {
        {"versions agree", test_versions},
        {"task types fit a mask", test_count},
        {"the language has operators", test_language},
    };
    return fm_test_main("task tables", cases, FM_COUNT_OF(cases));
}
