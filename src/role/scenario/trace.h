/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file trace.h
 * Recorded requests of production systems as a source of arrivals, lengths,
 * users, models and overlap.  Plain files or gzip.
 *
 * azure         CSV: TIMESTAMP, ContextTokens, GeneratedTokens
 *               (AzurePublicDataset, LLM inference 2023)
 * mooncake      JSON lines: timestamp (ms), input_length, output_length,
 *               hash_ids (Mooncake, FAST'25): requests with the same blocks
 *               are the same request
 * alibaba_lora  CSV: gmt_create, exec_time_seconds, groupId,
 *               checkpoint_model_version_id, … (cluster-trace-v2026-GenAI):
 *               seconds on the device that was timed, by user and base model
 *
 * Untrusted: bounded, and refused with its line.  Threads: any.
 */
#ifndef FM_ROLE_SCENARIO_TRACE_H
#define FM_ROLE_SCENARIO_TRACE_H

#include <flowmesh/error.h>
#include <stddef.h>
#include <stdint.h>

#define FM_TRACE_BYTES_MAX (256u << 20) /* unpacked */
#define FM_TRACE_NAMES_MAX 20000u       /* users; models */

typedef enum fm_trace_format {
    FM_TRACE_AZURE,
    FM_TRACE_MOONCAKE,
    FM_TRACE_ALIBABA_LORA
} fm_trace_format_t;

typedef struct fm_trace_options {
    fm_trace_format_t format;
    size_t limit;  /* rows taken, after those skipped */
    double skip_s; /* of recorded time, from the first row */
    double speed;  /* recorded seconds a simulated second, > 0 */
} fm_trace_options_t;

typedef struct fm_trace_row {
    double at_s; /* from the first row taken, ascending */
    double tokens_in, tokens_out;
    double seconds;   /* measured; 0: not in this format */
    uint64_t content; /* equal: the same request */
    uint32_t user;    /* index in users; 0 where there are none */
    uint32_t model;   /* index in models; 0 where there are none */
} fm_trace_row_t;

typedef struct fm_trace {
    fm_trace_row_t *rows;
    size_t count;
    char **users;
    size_t user_count;
    char **models;
    size_t model_count;
} fm_trace_t;

/**
 * @param out  [out] fm_trace_fini(); untouched on failure.
 * @retval FM_ERR_NOT_FOUND  there is no such file.
 * @retval FM_ERR_CORRUPT    "path:line: what"; or damaged gzip.
 * @retval FM_ERR_LIMIT, FM_ERR_IO, FM_ERR_NO_MEMORY
 */
FM_MUST_USE fm_status_t fm_trace_read(const char *path,
                                      const fm_trace_options_t *options,
                                      fm_trace_t *out, fm_error_t *err);
/** The same of text that is in memory; @p name is for errors. */
FM_MUST_USE fm_status_t fm_trace_parse(const char *text, size_t len,
                                       const char *name,
                                       const fm_trace_options_t *options,
                                       fm_trace_t *out, fm_error_t *err);
void fm_trace_fini(fm_trace_t *trace);

#endif
