/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file fmtest.h
 * The main() of a CUnit test program: a table of tests, the right exit status.
 */
#ifndef FMTEST_H
#define FMTEST_H

#include <CUnit/Basic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <flowmesh/error.h>

/** A name that begins with "fault: " says that the test makes calls fail: it
 *  runs where fault points are compiled in, and is named where they are not. */
typedef struct fm_test_case {
    const char *name;
    void (*run)(void);
} fm_test_case_t;

static inline bool fm_test_possible(const fm_test_case_t *test)
{
#ifdef FM_FAULTS
    (void)test;
    return true;
#else
    return strncmp(test->name, "fault: ", 7) != 0;
#endif
}

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
    size_t added = 0;
    for (size_t i = 0; suite && i < count; i++) {
        if (!fm_test_possible(&cases[i])) {
            (void)printf("not here: %s: this build has no fault points\n",
                         cases[i].name);
        } else if (CU_add_test(suite, cases[i].name, cases[i].run)) {
            added++;
        } else {
            suite = NULL;
        }
    }
    CU_basic_set_mode(CU_BRM_NORMAL);
    int failed = !suite || CU_basic_run_tests() != CUE_SUCCESS ||
                 CU_get_number_of_failures() != 0 ||
                 CU_get_number_of_tests_run() != added || added == 0;
    CU_cleanup_registry();
    return failed ? 1 : 0;
}

#endif
