/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flowmesh-engine: the native executor.  Standard output carries replies
 * only: it is set aside at once, and whatever a library prints goes to the
 * log.
 */
#include <errno.h>
#include <fcntl.h>
#include <flowmesh/version.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "run/native/native.h"

static const char usage[] =
    "usage: flowmesh-engine --fabric DIR --writer NAME [--device cpu]\n"
    "                       [--work DIR] [--resident-bytes N]\n"
    "Serve the FlowMesh executor protocol on standard input and output.\n";

static int options_parse(int argc, char **argv, fm_native_options_t *options)
{
    static const struct option known[] = {
        {"fabric", required_argument, NULL, 'f'},
        {"writer", required_argument, NULL, 'w'},
        {"device", required_argument, NULL, 'd'},
        {"work", required_argument, NULL, 'k'},
        {"resident-bytes", required_argument, NULL, 'r'},
        {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0}};
    char *end = NULL;

    for (int c; (c = getopt_long(argc, argv, "", known, NULL)) != -1;) {
        switch (c) {
        case 'f':
            options->fabric = optarg;
            break;
        case 'w':
            options->writer = optarg;
            break;
        case 'd':
            options->device = optarg;
            break;
        case 'k':
            options->work_root = optarg;
            break;
        case 'r':
            errno = 0;
            options->resident_bytes = strtoull(optarg, &end, 10);
            if (errno || end == optarg || *end) {
                (void)fprintf(stderr, "--resident-bytes: a number\n");
                return 2;
            }
            break;
        case 'v':
            (void)printf("flowmesh-engine %s\n", FM_VERSION);
            exit(0);
        case 'h':
            (void)fputs(usage, stdout);
            exit(0);
        default:
            (void)fputs(usage, stderr);
            return 2;
        }
    }
    if (optind < argc || !options->fabric || !options->writer) {
        (void)fputs(usage, stderr);
        return 2;
    }
    return 0;
}

int main(int argc, char **argv)
{
    fm_native_options_t options = {0};
    fm_error_t err = {0};
    int rc = options_parse(argc, argv, &options);

    if (rc != 0) {
        return rc;
    }
    /* A supervisor that is gone is an error of write(), not a signal; and
     * its death is ours, even in the middle of a batch. */
    (void)signal(SIGPIPE, SIG_IGN);
    int replies = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0 || replies < 0 ||
        dup2(STDERR_FILENO, STDOUT_FILENO) < 0) {
        perror("flowmesh-engine");
        return 1;
    }
    if (fm_native_serve(&options, STDIN_FILENO, replies, &err) < 0) {
        (void)fprintf(stderr, "flowmesh-engine: %s\n", err.text);
        return 1;
    }
    return 0;
}
