/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file types.h
 * Private: HDF5 types of what a segment holds.  Each returns a type that the
 * caller closes, or a negative number.
 */
#ifndef FM_STORE_CAS_TYPES_H
#define FM_STORE_CAS_TYPES_H

#include <hdf5.h>

#include "store/cas/format.h"

/** Of /objects/index: exactly the bytes of fm_cas_row_encode(). */
hid_t fm_cas_h5_row_type(void);
/** Of /objects/shapes: exactly the bytes of fm_cas_shape_encode(). */
hid_t fm_cas_h5_shape_type(void);
/** Of an element of a tensor. */
hid_t fm_cas_h5_element_type(fm_cas_dtype_t dtype);

#endif
