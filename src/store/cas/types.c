/* SPDX-License-Identifier: Apache-2.0 */
/* HDF5 types of index rows, shapes and tensor elements. */
#include "store/cas/types.h"

/* An enumeration of 8 bits whose members are named by name(0 … count-1). */
static hid_t enum_type(const char *(*name)(unsigned), unsigned count)
{
    hid_t type = H5Tenum_create(H5T_STD_U8LE);

    for (unsigned i = 0; type >= 0 && i < count; i++) {
        uint8_t value = (uint8_t)i;
        if (H5Tenum_insert(type, name(i), &value) < 0) {
            (void)H5Tclose(type);
            return -1;
        }
    }
    return type;
}

static const char *kind_name(unsigned i)
{
    return fm_cas_kind_name((fm_cas_kind_t)i);
}

static const char *dtype_name(unsigned i)
{
    return fm_cas_dtype_name((fm_cas_dtype_t)i);
}

static const char *place_name(unsigned i)
{
    static const char *const names[FM_CAS_PLACE_COUNT] = {"data", "blob",
                                                          "tensor"};
    return names[i];
}

static const char *bool_name(unsigned i)
{
    return i ? "TRUE" : "FALSE";
}

hid_t fm_cas_h5_row_type(void)
{
    hid_t type = H5Tcreate(H5T_COMPOUND, FM_CAS_ROW_BYTES);
    hid_t digest = H5Tcreate(H5T_OPAQUE, 32);
    hid_t kind = enum_type(kind_name, FM_CAS_KIND_COUNT);
    hid_t place = enum_type(place_name, FM_CAS_PLACE_COUNT);
    bool ok = type >= 0 && digest >= 0 && kind >= 0 && place >= 0 &&
              H5Tset_tag(digest, "sha256") >= 0 &&
              H5Tinsert(type, "digest", 0, digest) >= 0 &&
              H5Tinsert(type, "address", 32, H5T_STD_U64LE) >= 0 &&
              H5Tinsert(type, "length", 40, H5T_STD_U64LE) >= 0 &&
              H5Tinsert(type, "offset", 48, H5T_STD_U64LE) >= 0 &&
              H5Tinsert(type, "shape", 56, H5T_STD_U32LE) >= 0 &&
              H5Tinsert(type, "kind", 60, kind) >= 0 &&
              H5Tinsert(type, "place", 61, place) >= 0;

    (void)H5Tclose(digest);
    (void)H5Tclose(kind);
    (void)H5Tclose(place);
    if (!ok) {
        (void)H5Tclose(type);
    }
    return ok ? type : -1;
}

hid_t fm_cas_h5_shape_type(void)
{
    const hsize_t rank_max = FM_CAS_RANK_MAX;
    hid_t type = H5Tcreate(H5T_COMPOUND, FM_CAS_SHAPE_BYTES);
    hid_t dtype = enum_type(dtype_name, FM_CAS_DTYPE_COUNT);
    hid_t dims = H5Tarray_create2(H5T_STD_U64LE, 1, &rank_max);
    bool ok = type >= 0 && dtype >= 0 && dims >= 0 &&
              H5Tinsert(type, "dtype", 0, dtype) >= 0 &&
              H5Tinsert(type, "rank", 1, H5T_STD_U8LE) >= 0 &&
              H5Tinsert(type, "dims", 8, dims) >= 0;

    (void)H5Tclose(dtype);
    (void)H5Tclose(dims);
    if (!ok) {
        (void)H5Tclose(type);
    }
    return ok ? type : -1;
}

/* A float of sign, exponent and mantissa bits, in that order from the top. */
static hid_t small_float_type(size_t exponent_bits, size_t mantissa_bits)
{
    size_t bits = 1 + exponent_bits + mantissa_bits;
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);

    if (type >= 0 &&
        (H5Tset_fields(type, bits - 1, mantissa_bits, exponent_bits, 0,
                       mantissa_bits) < 0 ||
         H5Tset_precision(type, bits) < 0 || H5Tset_size(type, bits / 8) < 0 ||
         H5Tset_ebias(type, ((size_t)1 << (exponent_bits - 1)) - 1) < 0)) {
        (void)H5Tclose(type);
        return -1;
    }
    return type;
}

hid_t fm_cas_h5_element_type(fm_cas_dtype_t dtype)
{
    switch (dtype) {
    case FM_CAS_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case FM_CAS_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case FM_CAS_F16:
        return small_float_type(5, 10);
    case FM_CAS_BF16:
        return small_float_type(8, 7);
    case FM_CAS_F8_E4M3:
        return small_float_type(4, 3);
    case FM_CAS_F8_E5M2:
        return small_float_type(5, 2);
    case FM_CAS_I8:
        return H5Tcopy(H5T_STD_I8LE);
    case FM_CAS_I16:
        return H5Tcopy(H5T_STD_I16LE);
    case FM_CAS_I32:
        return H5Tcopy(H5T_STD_I32LE);
    case FM_CAS_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case FM_CAS_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case FM_CAS_BOOL:
        return enum_type(bool_name, 2);
    }
    return -1;
}
