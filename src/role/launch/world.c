/* SPDX-License-Identifier: Apache-2.0 */
#include "role/launch/world.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "io/link/link.h"
#include "role/launch/launch.h"
#include "site/slurm/slurm.h"

static const char *environment(void *ctx, const char *name)
{
    (void)ctx;
    return getenv(name);
}

/* A launcher that speaks PMIx or PMI started us. */
static bool launched(void)
{
    static const char *const names[] = {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK",
                                        "PMI_RANK", "PMI_SIZE"};

    for (size_t i = 0; i < FM_COUNT_OF(names); i++) {
        if (getenv(names[i])) {
            return true;
        }
    }
    return false;
}

/* Without a launcher MPI is not initialised: Open MPI would abort under
 * `srun --mpi=none`, with a text of its own, before we could say why. */
fm_status_t fm_world_open(fm_world_t *world_out, fm_error_t *err)
{
    fm_world_t world = {.size = 1};
    fm_slurm_t slurm = {0};
    fm_status_t rc = fm_slurm_read(environment, NULL, &slurm, err);

    if (rc >= 0 && launched()) {
        rc = fm_link_mpi_init(&world.rank, &world.size, err);
        world.mpi = rc >= 0;
    }
    if (rc >= 0) {
        rc = fm_slurm_check_world(&slurm, (int)world.size, err);
    }
    if (rc >= 0) {
        *world_out = world;
    }
    return rc;
}

static char *state_dir(void)
{
    const char *xdg = getenv("XDG_STATE_HOME");
    const char *home = getenv("HOME");

    if (xdg && *xdg == '/') {
        return fm_asprintf("%s/flowmesh", xdg);
    }
    return fm_asprintf("%s/.local/state/flowmesh",
                       home && *home ? home : "/tmp");
}

/* Make DIR/fabrics/TIME-PID and let DIR/latest name it. */
static fm_status_t make_fresh(const char *state, char **dir_out,
                              fm_error_t *err)
{
    char when[32] = "";
    time_t now = time(NULL);
    struct tm tm = {0};
    fm_status_t rc = FM_ERR_NO_MEMORY;

    (void)strftime(when, sizeof(when), "%Y%m%d-%H%M%S", gmtime_r(&now, &tm));
    char *dir = fm_asprintf("%s/fabrics/%s-%ld", state, when, (long)getpid());
    char *link = fm_asprintf("%s/latest", state);
    char *temp = fm_asprintf("%s/latest.%ld", state, (long)getpid());
    if (!dir || !link || !temp) {
        (void)fm_no_memory(err);
    } else if ((rc = fm_file_make_dirs(dir, 0755, err)) >= 0) {
        (void)unlink(temp);
        if (symlink(dir, temp) != 0) {
            rc = fm_error_set_errno(err, FM_ERR_IO, errno, "link %s", temp);
        } else {
            rc = fm_file_rename(temp, link, err);
        }
    }
    free(link);
    free(temp);
    if (rc < 0) {
        free(dir);
        return rc;
    }
    *dir_out = dir;
    return FM_OK;
}

/* An absolute copy, so that children may run elsewhere. */
static fm_status_t absolute(const char *path, char **dir_out, fm_error_t *err)
{
    char cwd[4096];

    if (*path == '/') {
        *dir_out = fm_strdup(path);
    } else if (!getcwd(cwd, sizeof(cwd))) {
        return fm_error_set_errno(err, FM_ERR_IO, errno, "current directory");
    } else {
        *dir_out = fm_asprintf("%s/%s", cwd, path);
    }
    return *dir_out ? FM_OK : fm_no_memory(err);
}

fm_status_t fm_fabric_dir_choose(const char *named, char **dir_out,
                                 fm_error_t *err)
{
    const char *dir = named ? named : getenv("FLOWMESH_FABRIC");

    if (dir && *dir) {
        return absolute(dir, dir_out, err);
    }
    char *state = state_dir();
    fm_status_t rc =
        state ? make_fresh(state, dir_out, err) : fm_no_memory(err);
    free(state);
    return rc;
}

/* The file's text; an absent one that nobody named is no file. */
static fm_status_t config_read(const char *path, bool named,
                               fm_config_t **config_out, fm_error_t *err)
{
    fm_buf_t buf = {0};
    fm_status_t rc = fm_file_read(path, FM_CONFIG_TEXT_BYTES_MAX, &buf, err);

    if (rc == FM_ERR_NOT_FOUND && !named) {
        *err = (fm_error_t){0};
        *config_out = fm_config_default();
        rc = *config_out ? FM_OK : fm_no_memory(err);
    } else if (rc >= 0) {
        rc = fm_config_parse(buf.data ? (const char *)buf.data : "", buf.len,
                             path, config_out, err);
    }
    fm_buf_fini(&buf);
    return rc;
}

fm_status_t fm_launch_config(const char *named, const char *dir,
                             fm_config_t **config_out, fm_error_t *err)
{
    const char *path = named ? named : getenv("FLOWMESH_CONFIG");

    if (path && *path) {
        return config_read(path, true, config_out, err);
    }
    char *own = fm_asprintf("%s/fabric.yaml", dir ? dir : "");
    fm_status_t rc = own ? FM_OK : fm_no_memory(err);
    if (rc >= 0 && dir) {
        rc = config_read(own, false, config_out, err);
    } else if (rc >= 0) {
        *config_out = fm_config_default();
        rc = *config_out ? FM_OK : fm_no_memory(err);
    }
    free(own);
    return rc;
}

static fm_status_t policy_set(fm_place_options_t *place, const char *name,
                              fm_error_t *err)
{
    char names[256] = "";
    size_t len = 0;

    if (fm_place_policy_find(name, &place->policy)) {
        return FM_OK;
    }
    for (int i = 0; i < FM_PLACE_POLICIES; i++) {
        len += (size_t)snprintf(names + len, sizeof(names) - len, "%s%s",
                                i ? ", " : "",
                                fm_place_policy_name((fm_place_policy_t)i));
    }
    return fm_error_set(err, FM_ERR_INVALID,
                        "policy %.60s: there is no such; allowed: %s", name,
                        names);
}

fm_status_t fm_launch_overrule(fm_place_options_t *place, const char *policy,
                               const char *without, bool *no_sharing_out,
                               fm_error_t *err)
{
    const struct {
        const char *name;
        bool *flag;
    } parts[] = {{"batching", &place->sched.no_batching},
                 {"locality", &place->sched.no_locality},
                 {"consolidation", &place->sched.no_consolidation},
                 {"fair_share", &place->sched.no_fair_share},
                 {"sharing", no_sharing_out}};
    fm_status_t rc = policy ? policy_set(place, policy, err) : FM_OK;

    while (rc >= 0 && without && *without) {
        size_t len = strcspn(without, ",");
        size_t i = 0;
        while (i < FM_COUNT_OF(parts) &&
               (strlen(parts[i].name) != len ||
                strncmp(parts[i].name, without, len) != 0)) {
            i++;
        }
        if (i == FM_COUNT_OF(parts)) {
            rc = fm_error_set(err, FM_ERR_INVALID,
                              "without %.*s: allowed, separated by commas: "
                              "batching, locality, consolidation, fair_share, "
                              "sharing",
                              (int)(len < 60 ? len : 60), without);
        } else {
            *parts[i].flag = true;
        }
        without += len + (without[len] == ',');
    }
    return rc;
}

fm_status_t fm_launch_fabric_dir(const char *named, char **dir_out,
                                 fm_error_t *err)
{
    const char *dir = named ? named : getenv("FLOWMESH_FABRIC");
    char target[4096];

    if (dir && *dir) {
        return absolute(dir, dir_out, err);
    }
    char *state = state_dir();
    char *link = state ? fm_asprintf("%s/latest", state) : NULL;
    ssize_t n = link ? readlink(link, target, sizeof(target) - 1) : -1;
    free(state);
    free(link);
    if (n <= 0) {
        return fm_error_set(err, FM_ERR_NOT_FOUND,
                            "no fabric: name one with --fabric DIR or "
                            "FLOWMESH_FABRIC, or run a workflow first");
    }
    if (!(*dir_out = fm_strndup(target, (size_t)n))) {
        return fm_no_memory(err);
    }
    return FM_OK;
}
