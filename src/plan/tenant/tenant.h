/* SPDX-License-Identifier: Apache-2.0 */
/**
 * @file tenant.h
 * Tenants: weighted fair share, quotas, accounts.  docs/spec/tenants.md states
 * the rules (T1 …).
 *
 * Fair share is dominant resource fair queueing in its memoryless form
 * (Ghodsi, Sekar, Zaharia, Stoica: "Multi-resource fair queueing for packet
 * processing", SIGCOMM 2012).  A resource is a class of devices.  The virtual
 * time of a tenant advances by its device-seconds on a class, divided by the
 * devices of that class and by its weight; a lease takes one class, so that
 * class is the dominant one.  The present is the weighted mean of the virtual
 * times of all tenants that have work to lease: where each would be, had all
 * had their fair share.  A tenant that comes back starts at the present; what
 * one behind it is owed (its deficit) is kept while it has work, up to a
 * bound.
 *
 * Pure.  Threads: one at a time.  Ids: dense from 0, never reused.
 */
#ifndef FM_PLAN_TENANT_TENANT_H
#define FM_PLAN_TENANT_TENANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flowmesh/error.h"

#define FM_TENANT_MAX 65536u /**< names ever seen */
#define FM_TENANT_NAME_BYTES_MAX 255u
#define FM_TENANT_RESOURCES_MAX 1024u /**< device classes */
#define FM_TENANT_SHARE_MIN 0.1       /**< age has to outgrow it */

typedef struct fm_tenants fm_tenants_t;

typedef struct fm_tenant_config {
    double weight;        /**< 1e-6 to 1e6; 0: 1 */
    uint32_t devices_max; /**< leased at once; 0: no limit */
    uint64_t queued_max;  /**< items not settled; 0: no limit */
    double dollars_max;   /**< 0: no limit */
} fm_tenant_config_t;

typedef struct fm_tenant_info {
    const char *name;          /**< borrowed */
    fm_tenant_config_t config; /**< in force */
    double served;             /**< virtual seconds */
    double deficit; /**< virtual seconds it is owed; negative: had more */
    double share;   /**< [0.1, 1]: 1 is owed most */
    double device_seconds, dollars, joules; /**< paid, and held for leases */
    double devices_now; /**< leased; one shared by tenants counts in parts */
    uint64_t queued;    /**< items not settled */
    uint64_t items_ran, items_shared;
} fm_tenant_info_t;

FM_MUST_USE fm_tenants_t *fm_tenants_create(void);
void *fm_tenants_destroy(fm_tenants_t *tenants);
uint32_t fm_tenants_count(const fm_tenants_t *tenants);
/** FM_ERR_NOT_FOUND: no such tenant. */
FM_MUST_USE fm_status_t fm_tenants_get(const fm_tenants_t *tenants, uint32_t id,
                                       fm_tenant_info_t *out);
/** UINT32_MAX when @p name was never seen. */
uint32_t fm_tenants_find(const fm_tenants_t *tenants, const char *name);
/**
 * The id of @p name, made when new.
 * @retval FM_ERR_INVALID  empty, or longer than FM_TENANT_NAME_BYTES_MAX.
 * @retval FM_ERR_LIMIT    FM_TENANT_MAX names are known.
 */
FM_MUST_USE fm_status_t fm_tenants_id(fm_tenants_t *tenants, const char *name,
                                      uint32_t *id_out, fm_error_t *err);
/**
 * Set weight and quotas of @p name, at once; "*": of all that have none of
 * their own.
 * @retval FM_ERR_INVALID  a number that is negative, not finite or out of
 * range.
 */
FM_MUST_USE fm_status_t fm_tenants_configure(fm_tenants_t *tenants,
                                             const char *name,
                                             const fm_tenant_config_t *config,
                                             fm_error_t *err);
/** How many devices class @p resource has now.  A class that was never told, or
 *  has less than one, counts as one; so do ids past the bound. */
void fm_tenants_capacity(fm_tenants_t *tenants, uint32_t resource,
                         double devices);
/** NULL, or the quota that keeps its work from being leased: a sentence, in a
 *  buffer of @p tenants, until the next call. */
const char *fm_tenants_blocked(fm_tenants_t *tenants, uint32_t id);
/** Whether @p items more may be queued.  FM_ERR_LIMIT with the numbers. */
FM_MUST_USE fm_status_t fm_tenants_admit(const fm_tenants_t *tenants,
                                         uint32_t id, uint64_t items,
                                         fm_error_t *err);

/* --- for plan/pool, which knows what is leased and who waits for it ------- */

typedef struct fm_tenant_cost {
    double seconds, dollars, joules;
} fm_tenant_cost_t;

/** @p seconds on one device of @p resource, as a part of its class. */
double fm_tenants_dominant(const fm_tenants_t *tenants, uint32_t resource,
                           double seconds);
/** Advance virtual time by @p cost of fm_tenants_dominant(); negative for a
 *  refund. */
void fm_tenants_serve(fm_tenants_t *tenants, uint32_t id, double cost);
/** Money set aside for what is leased; negative times to release it. */
void fm_tenants_hold(fm_tenants_t *tenants, uint32_t id,
                     const fm_tenant_cost_t *cost, double times);
/** Into the account, @p times over. */
void fm_tenants_pay(fm_tenants_t *tenants, uint32_t id,
                    const fm_tenant_cost_t *cost, double times);
/** Devices leased: more, or fewer. */
void fm_tenants_devices(fm_tenants_t *tenants, uint32_t id, double more);
/** Ready work: more, or fewer.  From none to some is to come back. */
void fm_tenants_ready(fm_tenants_t *tenants, uint32_t id, int64_t more);
/** Items: unsettled, settled by running, settled by sharing. */
void fm_tenants_items(fm_tenants_t *tenants, uint32_t id, int64_t queued,
                      int64_t ran, int64_t shared);
double fm_tenants_served(const fm_tenants_t *tenants, uint32_t id);
double fm_tenants_share(const fm_tenants_t *tenants, uint32_t id);
bool fm_tenants_is_blocked(const fm_tenants_t *tenants, uint32_t id);
/** Take a tenant that is blocked, or no longer, other than when it was last
 *  taken; false when there is none. */
bool fm_tenants_next_flipped(fm_tenants_t *tenants, uint32_t *id_out);
/** Tenants with ready work that are not at a quota. */
uint32_t fm_tenants_active(const fm_tenants_t *tenants);
/** How often tenants met or left a quota, there and back included. */
uint64_t fm_tenants_flips(const fm_tenants_t *tenants);
/** Memory held. */
size_t fm_tenants_bytes(const fm_tenants_t *tenants);

#endif
