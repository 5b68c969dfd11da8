/* SPDX-License-Identifier: Apache-2.0 */
/* Why two keys differ: the deepest differing members of their texts. */
#include <string.h>

#include "base/buf.h"
#include "base/mem.h"
#include "plan/key/key.h"

struct walk {
    fm_key_difference_fn each;
    void *ctx;
    size_t count;
    fm_buf_t path;
};

static void walk_values(struct walk *walk, const fm_json_t *a,
                        const fm_json_t *b);

/* Descend into one member, with its name (or [index]) put on the path. */
static void walk_member(struct walk *walk, const char *name, size_t index,
                        const fm_json_t *a, const fm_json_t *b)
{
    size_t len = walk->path.len;

    if (name) {
        fm_buf_printf(&walk->path, "%s%s", len ? "." : "", name);
    } else {
        fm_buf_printf(&walk->path, "[%zu]", index);
    }
    walk_values(walk, a, b);
    walk->path.len = len;
}

static void walk_maps(struct walk *walk, const fm_json_t *a, const fm_json_t *b)
{
    void *iterator = NULL;
    const char *name = NULL;
    fm_json_t *member = NULL;

    while (fm_json_next(a, &iterator, &name, &member)) {
        walk_member(walk, name, 0, member, fm_json_get(b, name));
    }
    iterator = NULL;
    while (fm_json_next(b, &iterator, &name, &member)) {
        if (!fm_json_get(a, name)) {
            walk_member(walk, name, 0, NULL, member);
        }
    }
}

static void walk_values(struct walk *walk, const fm_json_t *a,
                        const fm_json_t *b)
{
    if (a && b && fm_json_equal(a, b)) {
        return;
    }
    if (fm_json_is(a, FM_JSON_OBJECT) && fm_json_is(b, FM_JSON_OBJECT)) {
        walk_maps(walk, a, b);
    } else if (fm_json_is(a, FM_JSON_ARRAY) && fm_json_is(b, FM_JSON_ARRAY)) {
        for (size_t i = 0; i < fm_json_len(a) || i < fm_json_len(b); i++) {
            walk_member(walk, NULL, i, fm_json_at(a, i), fm_json_at(b, i));
        }
    } else {
        walk->count++;
        if (walk->each) {
            walk->each(walk->ctx, fm_buf_cstr(&walk->path), a, b);
        }
    }
}

fm_status_t fm_key_explain(const char *text_a, const char *text_b,
                           fm_key_difference_fn each, void *ctx,
                           size_t *count_out, fm_error_t *err)
{
    struct walk walk = {.each = each, .ctx = ctx};
    fm_json_t *a = NULL;
    fm_json_t *b = NULL;
    fm_status_t rc = fm_json_parse(text_a, strlen(text_a), "key A", &a, err);

    if (rc < 0 ||
        (rc = fm_json_parse(text_b, strlen(text_b), "key B", &b, err)) < 0) {
        goto out;
    }
    walk_values(&walk, a, b);
    if (walk.path.failed) {
        rc = fm_no_memory(err);
        goto out;
    }
    *count_out = walk.count;
out:
    fm_buf_fini(&walk.path);
    fm_json_drop(a);
    fm_json_drop(b);
    return rc;
}
