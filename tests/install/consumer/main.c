/* SPDX-License-Identifier: Apache-2.0 */
/* Calls the installed library and holds its answers: exit 0 when right. */
#include <flowmesh/error.h>
#include <flowmesh/version.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    fm_error_t err = {0};

    fm_status_t rc = fm_error_set(&err, FM_ERR_NOT_FOUND, "cause %d", 7);
    fm_error_wrap(&err, "consumer");
    (void)printf("%s %s: %s\n", FM_VERSION, fm_status_name(rc), err.text);
    return rc != FM_ERR_NOT_FOUND || strcmp(err.text, "consumer: cause 7") != 0;
}
