/* SPDX-License-Identifier: Apache-2.0 */
/* The workflows of a launch, each from its file to its submission.  Rank 0. */
#ifndef FM_ROLE_LAUNCH_SUBMIT_H
#define FM_ROLE_LAUNCH_SUBMIT_H

#include "role/launch/launch.h"

/** One workflow file. */
typedef struct fm_submission {
    const char *file; /**< borrowed; "-" is standard input */
    char *text;
    size_t text_len;
    fm_workflow_t *workflow;
    fm_json_t *files; /**< what the workflow names, by key: its digest */
    uint32_t run;
    bool ended;
    int64_t end_ns; /**< where ended */
} fm_submission_t;

/** Read and parse, and see that what it reads is there; changes nothing. */
FM_MUST_USE fm_status_t fm_submission_read(fm_submission_t *submission,
                                           const fm_launch_options_t *opts,
                                           fm_error_t *err);
void fm_submission_fini(fm_submission_t *submission);

/** Store the models and adapters it names in the fabric @p dir.  Imports may
 *  take minutes: before the other ranks start, who would wait. */
FM_MUST_USE fm_status_t fm_submission_models(fm_submission_t *submission,
                                             const fm_launch_options_t *opts,
                                             const char *dir, fm_cas_t *cas,
                                             fm_error_t *err);
/** Store its data files and submit it. */
FM_MUST_USE fm_status_t fm_submission_submit(fm_submission_t *submission,
                                             fm_control_t *control,
                                             fm_error_t *err);

#endif
