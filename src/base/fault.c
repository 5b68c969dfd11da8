/* SPDX-License-Identifier: Apache-2.0 */
/* A fixed table of armed points: tests arm a handful, production none. */
#include "base/fault.h"

#ifndef FM_FAULTS

bool fm_fault_arm(const char *spec)
{
    return !spec || !*spec;
}

#else

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define POINT_MAX 8 /* more than a test can keep in mind */
#define NAME_BYTES 48

struct point {
    char name[NAME_BYTES];
    long nth;    /* hits left until it fires */
    bool sticky; /* fires from then on */
    bool lethal; /* fires by SIGKILL */
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct point points[POINT_MAX];
static size_t point_count;
static atomic_bool armed;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static bool parse_point(const char *text, size_t len, struct point *out)
{
    const char *colon = memchr(text, ':', len);
    char number[24] = "";

    if (!colon || colon == text || (size_t)(colon - text) >= NAME_BYTES) {
        return false;
    }
    size_t digits = len - (size_t)(colon - text) - 1;
    if (digits == 0 || digits >= sizeof(number)) {
        return false;
    }
    memcpy(number, colon + 1, digits);
    memset(out, 0, sizeof(*out));
    memcpy(out->name, text, (size_t)(colon - text));
    char *end = NULL;
    out->nth = strtol(number, &end, 10);
    out->sticky = *end == '+';
    out->lethal = *end == '!';
    return out->nth > 0 && (*end == '\0' || end[1] == '\0');
}

bool fm_fault_arm(const char *spec)
{
    bool ok = true;

    pthread_mutex_lock(&lock);
    point_count = 0;
    while (ok && spec && *spec) {
        size_t len = strcspn(spec, ",");
        ok = point_count < POINT_MAX &&
             parse_point(spec, len, &points[point_count]);
        point_count += ok ? 1 : 0;
        spec += len + (spec[len] == ',' ? 1 : 0);
    }
    atomic_store(&armed, point_count > 0);
    pthread_mutex_unlock(&lock);
    return ok;
}

static void arm_from_environment(void)
{
    const char *spec = getenv("FM_FAULT");

    if (spec) {
        (void)fm_fault_arm(spec);
    }
}

static bool point_hit(struct point *point)
{
    if (point->nth > 1) {
        point->nth--;
        return false;
    }
    if (point->nth == 0 && !point->sticky) {
        return false;
    }
    point->nth = 0;
    if (point->lethal) {
        (void)kill(getpid(), SIGKILL);
    }
    return true;
}

bool fm_fault(const char *name)
{
    bool fires = false;

    pthread_once(&once, arm_from_environment);
    if (!atomic_load_explicit(&armed, memory_order_relaxed)) {
        return false;
    }
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < point_count; i++) {
        if (strcmp(points[i].name, name) == 0) {
            fires = point_hit(&points[i]) || fires;
        }
    }
    pthread_mutex_unlock(&lock);
    return fires;
}

#endif
