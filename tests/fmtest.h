/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file fmtest.h
 * The main() of a CUnit test program: a table of tests, the right exit status.
 */
#ifndef FMTEST_H
#define FMTEST_H

#include <CUnit/Basic.h>
#include <stdio.h>

#include <flowmesh/error.h>

typedef struct fm_test_case {
    const char *name;
    void (*run)(void);
} fm_test_case_t;

/* CUnit's own asserts do not print text; these show the cause. */
#define FM_ASSERT_OK(call, err)                                                \
    do {                                                                       \
        fm_status_t fmtest_rc = (call);                                        \
        if (fmtest_rc < 0) {                                                   \
            (void)fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__,       \
                          fm_status_name(fmtest_rc), (err)->text);             \
        }                                                                      \
        CU_ASSERT_FATAL(fmtest_rc >= 0);                                       \
    } while (0)

static inline int fm_test_main(const char *suite_name,
                               const fm_test_case_t *cases, size_t count)
{
    if (CU_initialize_registry() != CUE_SUCCESS) {
        return 2;
    }
    CU_pSuite suite = CU_add_suite(suite_name, NULL, NULL);
    for (size_t i = 0; suite && i < count; i++) {
        if (!CU_add_test(suite, cases[i].name, cases[i].run)) {
            suite = NULL;
        }
    }
    CU_basic_set_mode(CU_BRM_NORMAL);
    int failed = !suite || CU_basic_run_tests() != CUE_SUCCESS ||
                 CU_get_number_of_failures() != 0 ||
                 CU_get_number_of_tests_run() != count;
    CU_cleanup_registry();
    return failed ? 1 : 0;
}

#endif
