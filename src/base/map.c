/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both maps: the same probing over different slots.  A digest is its own
 * hash (its first eight bytes); a string slot keeps its hash, and a NULL key
 * marks an empty slot.
 */
#include "base/map.h"

#include <stdlib.h>
#include <string.h>

#include "base/mem.h"

#define SLOTS_MIN 16 /* a power of two, as every later size */

struct digest_slot {
    fm_digest_t key;
    uint64_t value;
    bool used;
};

struct fm_map {
    struct digest_slot *slots;
    size_t slot_count;
    size_t count;
};

static size_t digest_home(const fm_digest_t *key, size_t slot_count)
{
    uint64_t head = 0;

    memcpy(&head, key->bytes, sizeof(head));
    return (size_t)head & (slot_count - 1);
}

fm_map_t *fm_map_create(void)
{
    return fm_calloc(1, sizeof(fm_map_t));
}

void *fm_map_destroy(fm_map_t *map)
{
    if (map) {
        free(map->slots);
        free(map);
    }
    return NULL;
}

size_t fm_map_count(const fm_map_t *map)
{
    return map->count;
}

/* Index of the slot that holds key, or of the empty slot where it belongs. */
static size_t digest_find(const struct digest_slot *slots, size_t slot_count,
                          const fm_digest_t *key)
{
    size_t i = digest_home(key, slot_count);

    while (slots[i].used && !fm_digest_equal(&slots[i].key, key)) {
        i = (i + 1) & (slot_count - 1);
    }
    return i;
}

uint64_t *fm_map_get(const fm_map_t *map, const fm_digest_t *key)
{
    if (map->count == 0) {
        return NULL;
    }
    size_t i = digest_find(map->slots, map->slot_count, key);
    return map->slots[i].used ? &map->slots[i].value : NULL;
}

static fm_status_t digest_rehash(fm_map_t *map, fm_error_t *err)
{
    size_t wanted = map->slot_count ? map->slot_count * 2 : SLOTS_MIN;
    struct digest_slot *slots = fm_calloc(wanted, sizeof(*slots));

    if (!slots) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < map->slot_count; i++) {
        if (map->slots[i].used) {
            slots[digest_find(slots, wanted, &map->slots[i].key)] =
                map->slots[i];
        }
    }
    free(map->slots);
    map->slots = slots;
    map->slot_count = wanted;
    return FM_OK;
}

fm_status_t fm_map_put(fm_map_t *map, const fm_digest_t *key, uint64_t value,
                       fm_error_t *err)
{
    if (map->count * 10 >= map->slot_count * 7) {
        fm_status_t rc = digest_rehash(map, err);
        if (rc < 0) {
            return rc;
        }
    }
    struct digest_slot *slot =
        &map->slots[digest_find(map->slots, map->slot_count, key)];
    if (!slot->used) {
        slot->used = true;
        slot->key = *key;
        map->count++;
    }
    slot->value = value;
    return FM_OK;
}

bool fm_map_remove(fm_map_t *map, const fm_digest_t *key)
{
    if (map->count == 0) {
        return false;
    }
    size_t mask = map->slot_count - 1;
    size_t hole = digest_find(map->slots, map->slot_count, key);
    if (!map->slots[hole].used) {
        return false;
    }
    for (size_t i = (hole + 1) & mask; map->slots[i].used; i = (i + 1) & mask) {
        size_t home = digest_home(&map->slots[i].key, map->slot_count);
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole].used = false;
    map->count--;
    return true;
}

bool fm_map_next(const fm_map_t *map, size_t *cursor, fm_digest_t *key_out,
                 uint64_t *value_out)
{
    while (*cursor < map->slot_count) {
        const struct digest_slot *slot = &map->slots[(*cursor)++];
        if (slot->used) {
            *key_out = slot->key;
            *value_out = slot->value;
            return true;
        }
    }
    return false;
}

struct string_slot {
    char *key;
    uint64_t hash;
    uint64_t value;
};

struct fm_strmap {
    struct string_slot *slots;
    size_t slot_count;
    size_t count;
};

fm_strmap_t *fm_strmap_create(void)
{
    return fm_calloc(1, sizeof(fm_strmap_t));
}

void *fm_strmap_destroy(fm_strmap_t *map)
{
    if (map) {
        for (size_t i = 0; i < map->slot_count; i++) {
            free(map->slots[i].key);
        }
        free(map->slots);
        free(map);
    }
    return NULL;
}

size_t fm_strmap_count(const fm_strmap_t *map)
{
    return map->count;
}

static size_t string_find(const struct string_slot *slots, size_t slot_count,
                          const char *key, uint64_t hash)
{
    size_t i = (size_t)hash & (slot_count - 1);

    while (slots[i].key &&
           (slots[i].hash != hash || strcmp(slots[i].key, key) != 0)) {
        i = (i + 1) & (slot_count - 1);
    }
    return i;
}

uint64_t *fm_strmap_get(const fm_strmap_t *map, const char *key)
{
    if (map->count == 0) {
        return NULL;
    }
    size_t i = string_find(map->slots, map->slot_count, key,
                           fm_hash64(key, strlen(key)));
    return map->slots[i].key ? &map->slots[i].value : NULL;
}

static fm_status_t string_rehash(fm_strmap_t *map, fm_error_t *err)
{
    size_t wanted = map->slot_count ? map->slot_count * 2 : SLOTS_MIN;
    struct string_slot *slots = fm_calloc(wanted, sizeof(*slots));

    if (!slots) {
        return fm_no_memory(err);
    }
    for (size_t i = 0; i < map->slot_count; i++) {
        const struct string_slot *old = &map->slots[i];
        if (old->key) {
            slots[string_find(slots, wanted, old->key, old->hash)] = *old;
        }
    }
    free(map->slots);
    map->slots = slots;
    map->slot_count = wanted;
    return FM_OK;
}

fm_status_t fm_strmap_put(fm_strmap_t *map, const char *key, uint64_t value,
                          fm_error_t *err)
{
    uint64_t hash = fm_hash64(key, strlen(key));

    if (map->count * 10 >= map->slot_count * 7) {
        fm_status_t rc = string_rehash(map, err);
        if (rc < 0) {
            return rc;
        }
    }
    struct string_slot *slot =
        &map->slots[string_find(map->slots, map->slot_count, key, hash)];
    if (!slot->key) {
        if (!(slot->key = fm_strdup(key))) {
            return fm_no_memory(err);
        }
        slot->hash = hash;
        map->count++;
    }
    slot->value = value;
    return FM_OK;
}

bool fm_strmap_remove(fm_strmap_t *map, const char *key)
{
    if (map->count == 0) {
        return false;
    }
    size_t mask = map->slot_count - 1;
    size_t hole = string_find(map->slots, map->slot_count, key,
                              fm_hash64(key, strlen(key)));
    if (!map->slots[hole].key) {
        return false;
    }
    free(map->slots[hole].key);
    for (size_t i = (hole + 1) & mask; map->slots[i].key; i = (i + 1) & mask) {
        size_t home = (size_t)map->slots[i].hash & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            map->slots[hole] = map->slots[i];
            hole = i;
        }
    }
    map->slots[hole].key = NULL;
    map->count--;
    return true;
}

bool fm_strmap_next(const fm_strmap_t *map, size_t *cursor,
                    const char **key_out, uint64_t *value_out)
{
    while (*cursor < map->slot_count) {
        const struct string_slot *slot = &map->slots[(*cursor)++];
        if (slot->key) {
            *key_out = slot->key;
            *value_out = slot->value;
            return true;
        }
    }
    return false;
}
