/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file executor.h
 * Constants of the executor protocol, for programs that run FlowMesh work.
 *
 * An executor is a child process: requests arrive on its standard input,
 * replies leave on its standard output, one JSON object a line; standard
 * error is its log.  docs/spec/executor.md is the specification (rules X1 …).
 */
#ifndef FLOWMESH_EXECUTOR_H
#define FLOWMESH_EXECUTOR_H

/** Version in `hello.protocol`; any other is refused. */
#define FM_EXECUTOR_PROTOCOL 1

/** Longest line, newline included, in either direction.  A value that does
 *  not fit travels as an object or a file (X20), so that a supervisor's
 *  memory is bounded by the number of its executors. */
#define FM_EXECUTOR_LINE_BYTES (1u << 20)

/** Items of one `run`: the batch bound of the scheduler with room to spare. */
#define FM_EXECUTOR_ITEMS_MAX 65536u

/** Task types, resident models, objects of one item: generous, yet bounded. */
#define FM_EXECUTOR_LIST_MAX 4096u

/** Longest error text kept of an item. */
#define FM_EXECUTOR_ERROR_BYTES 4096u

/** Lease numbers are 1 … 2^53 − 1, exact in every JSON implementation. */
#define FM_EXECUTOR_LEASE_MAX ((INT64_C(1) << 53) - 1)

#endif
