/* SPDX-License-Identifier: Apache-2.0 */
/* flowmesh cas: look into the object store of a fabric. */
#include "store/cas/cas.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/mem.h"
#include "cli/cli.h"
#include "role/launch/launch.h"

static const fm_cli_option_t options[] = {
    {"fabric", "DIR", "the fabric; default $FLOWMESH_FABRIC, else the latest"},
};

static const fm_cli_option_t verify_options[] = {
    {"fabric", "DIR", "the fabric; default $FLOWMESH_FABRIC, else the latest"},
    {"report-only", NULL, "do not set damaged objects aside"},
};

static int open_store(const fm_cli_args_t *args,
                      const fm_cli_command_t *command, fm_cas_t **cas_out)
{
    fm_error_t err = {0};
    char *dir = NULL;
    char *path = NULL;
    fm_status_t rc = fm_launch_fabric_dir(
        fm_cli_option(args, command, "fabric"), &dir, &err);

    if (rc >= 0 && !(path = fm_asprintf("%s/cas", dir))) {
        rc = fm_no_memory(&err);
    }
    if (rc >= 0) {
        rc = fm_cas_open(path, NULL, cas_out, &err);
    }
    free(path);
    free(dir);
    return rc < 0 ? fm_cli_fail(FM_EXIT_NO_FABRIC, "%s", err.text) : FM_EXIT_OK;
}

/* --- stat ----------------------------------------------------------------- */

static int cas_stat(const fm_cli_args_t *args)
{
    fm_cas_t *cas = NULL;
    fm_cas_stat_t stat = {0};
    fm_error_t err = {0};
    int status = open_store(args, &fm_cli_cas_stat, &cas);

    if (status != FM_EXIT_OK) {
        return status;
    }
    if (fm_cas_stat(cas, &stat, &err) < 0) {
        status = fm_cli_fail(FM_EXIT_FAILED, "%s", err.text);
    } else {
        (void)printf("objects   %llu, %llu bytes\n",
                     (unsigned long long)stat.object_count,
                     (unsigned long long)stat.logical_bytes);
        for (int i = 0; i < FM_CAS_KIND_COUNT; i++) {
            (void)printf("  %-10s %llu, %llu bytes\n",
                         fm_cas_kind_name((fm_cas_kind_t)i),
                         (unsigned long long)stat.kinds[i].object_count,
                         (unsigned long long)stat.kinds[i].logical_bytes);
        }
        (void)printf("segments  %llu, %llu bytes on disk; unreadable %llu; "
                     "unfinished %llu\n",
                     (unsigned long long)stat.segment_count,
                     (unsigned long long)stat.physical_bytes,
                     (unsigned long long)stat.segment_bad_count,
                     (unsigned long long)stat.torn_count);
        (void)printf("copies    %llu, %llu bytes\n",
                     (unsigned long long)stat.duplicate_count,
                     (unsigned long long)stat.duplicate_bytes);
    }
    fm_cas_close(cas);
    return status;
}

const fm_cli_command_t fm_cli_cas_stat = {
    .name = "cas stat",
    .operands = "",
    .summary = "count objects and segments",
    .text = "Count the store's objects by kind, and its segments.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = cas_stat,
};

/* --- ls ------------------------------------------------------------------- */

static int cas_ls(const fm_cli_args_t *args)
{
    fm_cas_t *cas = NULL;
    fm_cas_object_t object;
    size_t cursor = 0;
    int status = open_store(args, &fm_cli_cas_ls, &cas);

    if (status != FM_EXIT_OK) {
        return status;
    }
    while (fm_cas_next(cas, &cursor, &object)) {
        char text[FM_DIGEST_TEXT_BYTES];
        (void)printf("%s %-10s %12llu %s\n",
                     fm_digest_format(&object.digest, text),
                     fm_cas_kind_name(object.kind),
                     (unsigned long long)object.bytes, object.locator.segment);
    }
    fm_cas_close(cas);
    return FM_EXIT_OK;
}

const fm_cli_command_t fm_cli_cas_ls = {
    .name = "cas ls",
    .operands = "",
    .summary = "list objects",
    .text = "List every object: digest, kind, bytes, segment.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = cas_ls,
};

/* --- get ------------------------------------------------------------------ */

static int cas_get(const fm_cli_args_t *args)
{
    fm_digest_t digest;
    fm_cas_t *cas = NULL;
    fm_buf_t buf = {0};
    fm_error_t err = {0};

    if (!fm_digest_parse(args->operands[0], &digest)) {
        return fm_cli_fail(FM_EXIT_USAGE,
                           "%s: a digest is sha256: and 64 hex digits",
                           args->operands[0]);
    }
    int status = open_store(args, &fm_cli_cas_get, &cas);
    if (status != FM_EXIT_OK) {
        return status;
    }
    if (fm_cas_get(cas, &digest, &buf, &err) < 0) {
        status = fm_cli_fail(FM_EXIT_FAILED, "%s", err.text);
    } else if (buf.len && fwrite(buf.data, buf.len, 1, stdout) != 1) {
        status = fm_cli_fail(FM_EXIT_FAILED, "standard output: write failed");
    }
    fm_buf_fini(&buf);
    fm_cas_close(cas);
    return status;
}

const fm_cli_command_t fm_cli_cas_get = {
    .name = "cas get",
    .operands = "DIGEST",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "write an object to standard output",
    .text = "Write the bytes of an object to standard output, checked against "
            "its digest: `sha256sum` of them gives the digest again.",
    .options = options,
    .option_count = sizeof(options) / sizeof(options[0]),
    .run = cas_get,
};

/* --- verify --------------------------------------------------------------- */

static void print_bad(void *ctx, const fm_cas_bad_t *bad)
{
    char text[FM_DIGEST_TEXT_BYTES] = "-";

    (void)ctx;
    if (bad->digest) {
        fm_digest_format(bad->digest, text);
    }
    (void)printf("BAD %s in %s: %s%s\n", text, bad->segment, bad->reason,
                 bad->lost ? " (no other copy)" : "");
}

static int cas_verify(const fm_cli_args_t *args)
{
    bool quarantine = !fm_cli_option(args, &fm_cli_cas_verify, "report-only");
    fm_cas_t *cas = NULL;
    fm_cas_verify_result_t result = {0};
    fm_error_t err = {0};
    int status = open_store(args, &fm_cli_cas_verify, &cas);

    if (status != FM_EXIT_OK) {
        return status;
    }
    if (fm_cas_verify(cas, quarantine, print_bad, NULL, &result, &err) < 0) {
        status = fm_cli_fail(FM_EXIT_FAILED, "%s", err.text);
    } else {
        (void)printf("%llu segments, %llu objects, %llu bytes: %llu bad "
                     "objects, %llu bad segments%s\n",
                     (unsigned long long)result.segment_count,
                     (unsigned long long)result.object_count,
                     (unsigned long long)result.bytes,
                     (unsigned long long)result.bad_object_count,
                     (unsigned long long)result.bad_segment_count,
                     result.bad_object_count + result.bad_segment_count == 0
                         ? ""
                     : quarantine ? "; set aside, the next run makes "
                                    "again what it needs"
                                  : "");
        status = result.bad_object_count + result.bad_segment_count
                     ? FM_EXIT_FAILED
                     : FM_EXIT_OK;
    }
    fm_cas_close(cas);
    return status;
}

const fm_cli_command_t fm_cli_cas_verify = {
    .name = "cas verify",
    .operands = "",
    .summary = "read every object and check its digest",
    .text = "Read every byte of every segment.  Damaged objects are named and "
            "set aside, so that a later run makes them again; the exit status "
            "is then 1.",
    .options = verify_options,
    .option_count = sizeof(verify_options) / sizeof(verify_options[0]),
    .run = cas_verify,
};
