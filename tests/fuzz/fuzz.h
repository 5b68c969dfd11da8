/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file fuzz.h
 * What a fuzz target defines: fuzz_NAME.c gives one parser one input.
 *
 * The same file is linked with fuzz_main.c (any compiler, a ctest) and, where
 * FM_FUZZ is on, with clang's libFuzzer.
 */
#ifndef FM_TESTS_FUZZ_H
#define FM_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/**
 * Parse @p data; abort() when an invariant breaks, such as a round trip.
 * @param data  @p size bytes, exactly allocated: an overread is caught.
 * @return 0, always.
 */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
