/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plots by gnuplot: data files, one script, one child process.
 *
 * Text that goes into the script is cut down to characters that mean nothing
 * to gnuplot: names of runs come from outside.
 */
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/file.h"
#include "base/mem.h"
#include "role/scenario/report.h"

#define PLOTTED_MAX 12u /* lines that a reader can tell apart */

extern char **environ;

/* --- data ----------------------------------------------------------------- */

/* A name as gnuplot may read it between quotes or tabs. */
static void add_name(fm_buf_t *out, const char *name)
{
    for (; *name; name++) {
        unsigned char c = (unsigned char)*name;
        bool meant = c < ' ' || strchr("\"\\`'%$", c);
        fm_buf_add_u8(out, meant ? '_' : c);
    }
}

static fm_status_t save(const char *dir, const char *name, fm_buf_t *content,
                        fm_error_t *err)
{
    char *path = fm_asprintf("%s/%s", dir, name);
    fm_status_t rc =
        path && !content->failed
            ? fm_file_replace(path, fm_buf_cstr(content), content->len, err)
            : fm_no_memory(err);

    free(path);
    fm_buf_fini(content);
    return rc;
}

static fm_status_t save_summary(const fm_scenario_t *scenario,
                                const fm_sim_result_t *results, const char *dir,
                                fm_error_t *err)
{
    fm_buf_t text = {0};

    fm_buf_add_str(&text, "run\tdollars\tkWh\tp50\tp95\tp99\n");
    for (size_t i = 0; i < fm_scenario_run_count(scenario); i++) {
        const fm_sim_result_t *r = &results[i];
        add_name(&text, fm_scenario_run_name(scenario, i));
        fm_buf_printf(&text, "\t%.9g\t%.9g\t%.9g\t%.9g\t%.9g\n", r->cost,
                      r->joules / 3.6e6, r->total.p50, r->total.p95,
                      r->total.p99);
    }
    return save(dir, "summary.dat", &text, err);
}

static fm_status_t save_run(const fm_sim_result_t *r, size_t index,
                            const char *dir, fm_error_t *err)
{
    char name[40];
    fm_buf_t cdf = {0};
    fm_buf_t timeline = {0};

    for (size_t i = 0; i < r->total_count; i++) {
        fm_buf_printf(&cdf, "%.6g\t%.6g\n", (double)r->totals_s[i],
                      (double)(i + 1) / (double)r->total_count);
    }
    for (size_t i = 0; i < r->timeline_count; i++) {
        const fm_sim_sample_t *s = &r->timeline[i];
        fm_buf_printf(&timeline, "%.6g\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\n",
                      s->t_s, s->up, s->busy,
                      s->up > 0 ? 100 * s->busy / s->up : 0, s->running,
                      s->dollars, s->joules / 3.6e6);
    }
    (void)snprintf(name, sizeof(name), "latency-%zu.dat", index + 1);
    fm_status_t rc = save(dir, name, &cdf, err);
    (void)snprintf(name, sizeof(name), "timeline-%zu.dat", index + 1);
    fm_status_t rc2 = save(dir, name, &timeline, err);
    return rc < 0 ? rc : rc2;
}

/* --- the script ----------------------------------------------------------- */

static void add_bars(fm_buf_t *out, const char *file, unsigned column,
                     const char *label)
{
    fm_buf_printf(out,
                  "set output '%s'\nset ylabel '%s'\n"
                  "plot 'summary.dat' skip 1 using 0:%u:xtic(1) with boxes "
                  "notitle, '' skip 1 using 0:%u:(sprintf('%%.3g', $%u)) with "
                  "labels offset 0,0.7 notitle\n",
                  file, label, column, column, column);
}

/* One line a run of @p data, by the columns @p using. */
static void add_lines(fm_buf_t *out, const fm_scenario_t *scenario,
                      const char *data, const char *using, const char *with)
{
    size_t count = fm_scenario_run_count(scenario);

    count = count < PLOTTED_MAX ? count : PLOTTED_MAX;
    for (size_t i = 0; i < count; i++) {
        fm_buf_printf(out, "%s'%s-%zu.dat' using %s with %s lw 2 title \"",
                      i ? ", " : "plot ", data, i + 1, using, with);
        add_name(out, fm_scenario_run_name(scenario, i));
        fm_buf_add_str(out, "\"");
    }
    fm_buf_add_str(out, "\n");
}

static fm_status_t save_script(const fm_scenario_t *scenario, const char *dir,
                               fm_error_t *err)
{
    fm_buf_t out = {0};

    fm_buf_add_str(&out, "set terminal svg size 900,520 noenhanced "
                         "background '#ffffff'\nset datafile separator tab\n"
                         "set encoding utf8\nset title \"");
    add_name(&out, fm_scenario_name(scenario));
    fm_buf_add_str(&out, "\"\nset grid ytics\nset style fill solid 0.6\n"
                         "set boxwidth 0.7\nset yrange [0:*]\nset offsets "
                         "0.5,0.5,0,0\nset xtics rotate by -30\n");
    add_bars(&out, "cost.svg", 2, "cost (dollars)");
    add_bars(&out, "energy.svg", 3, "energy (kWh)");
    fm_buf_add_str(&out,
                   "unset offsets\nset xtics norotate\nset key bottom right\n"
                   "set output 'latency.svg'\nset xlabel 'seconds from "
                   "arrival to end'\nset ylabel 'share of workflows'\nset "
                   "yrange [0:1]\nset xrange [0:*]\n");
    add_lines(&out, scenario, "latency", "1:2", "steps");
    fm_buf_add_str(&out, "set output 'utilisation.svg'\nset xlabel 'seconds'\n"
                         "set ylabel 'busy workers of those paid, %'\nset "
                         "yrange [0:105]\nset key top right\n");
    add_lines(&out, scenario, "timeline", "1:4", "lines");
    fm_buf_add_str(&out, "set terminal svg size 900,1100 noenhanced "
                         "background '#ffffff'\nset output 'timeline.svg'\n"
                         "set multiplot layout 4,1\nset yrange [0:*]\n");
    static const struct {
        const char *label, *using;
    } panels[] = {{"workers up", "1:2"},
                  {"workers busy", "1:3"},
                  {"workflows not finished", "1:5"},
                  {"dollars so far", "1:6"}};
    for (size_t i = 0; i < FM_COUNT_OF(panels); i++) {
        fm_buf_printf(&out, "set ylabel '%s'\n%s", panels[i].label,
                      i ? "unset title\nunset key\n" : "");
        add_lines(&out, scenario, "timeline", panels[i].using, "lines");
    }
    fm_buf_add_str(&out, "unset multiplot\n");
    return save(dir, "plots.gp", &out, err);
}

/* --- the child ------------------------------------------------------------ */

static fm_status_t run_gnuplot(const char *dir, fm_error_t *err)
{
    char program[] = "gnuplot", script[] = "plots.gp";
    char *argv[] = {program, script, NULL};
    posix_spawn_file_actions_t actions;
    pid_t child = 0;
    int status = 0;
    int rc = posix_spawn_file_actions_init(&actions);

    if (rc != 0) {
        return fm_no_memory(err);
    }
    rc = posix_spawn_file_actions_addchdir_np(&actions, dir);
    rc = rc ? rc : posix_spawnp(&child, argv[0], &actions, NULL, argv, environ);
    (void)posix_spawn_file_actions_destroy(&actions);
    if (rc == ENOENT) {
        return fm_error_set(err, FM_ERR_NOT_FOUND,
                            "plots want the program gnuplot: install "
                            "gnuplot-nox (Debian) or gnuplot (Spack); its "
                            "data and script are in %s",
                            dir);
    }
    if (rc != 0) {
        return fm_error_set_errno(err, FM_ERR_IO, rc, "start gnuplot");
    }
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            return fm_error_set_errno(err, FM_ERR_IO, errno,
                                      "wait for gnuplot");
        }
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0
               ? FM_OK
               : fm_error_set(err, FM_ERR_IO,
                              "gnuplot failed (status %d) on %s/plots.gp",
                              WIFEXITED(status) ? WEXITSTATUS(status)
                                                : 128 + WTERMSIG(status),
                              dir);
}

fm_status_t fm_scenario_plots(const fm_scenario_t *scenario,
                              const fm_sim_result_t *results, const char *dir,
                              fm_error_t *err)
{
    fm_status_t rc = fm_file_make_dirs(dir, 0777, err);

    if (rc < 0 || (rc = save_summary(scenario, results, dir, err)) < 0) {
        return rc;
    }
    size_t count = fm_scenario_run_count(scenario);
    for (size_t i = 0; i < count && i < PLOTTED_MAX && rc == FM_OK; i++) {
        rc = save_run(&results[i], i, dir, err);
    }
    if (rc < 0 || (rc = save_script(scenario, dir, err)) < 0) {
        return rc;
    }
    return run_gnuplot(dir, err);
}
