/* SPDX-License-Identifier: Apache-2.0 */
/* echo: the output of an item is its value. */
#include "base/mem.h"
#include "run/ops/internal.h"

fm_status_t fm_ops_echo(fm_ops_run_t *run, size_t item, fm_ops_output_t *output,
                        fm_error_t *err)
{
    fm_json_t *value = run->values[item];
    fm_json_t *inner = fm_json_get(value, "value");

    /* The item is {"value": v}; a bare value echoes as itself. */
    output->value = fm_json_keep(inner ? inner : value);
    return output->value ? FM_OK : fm_no_memory(err);
}
