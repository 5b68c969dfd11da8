#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The published evaluation in the simulator: FlowMesh against its baselines.

    bench/paper/bench_paper.py [--out DIR] [--seeds N] [--jobs N] [PART…]

Parts: matrix ablations variations failures scale (all).  Writes tables and
plots into DIR (docs/results) and prints lines for bench/run.sh.  FM_BUILD
names the build (build/release).  At most two processes at a time.
"""
import argparse
import os
import sys
import time

import report
import scenarios
from report import geomean
from scenarios import (ABLATIONS, ARRIVALS, BASELINES, CELLS, ISOLATED,
                       MIXES, POLICIES)

FIGURES = {"cost": lambda r: r["cost"], "energy": lambda r: r["joules"],
           "p50": lambda r: r["latency"]["total"]["p50"],
           "p95": lambda r: r["latency"]["total"]["p95"],
           "p99": lambda r: r["latency"]["total"]["p99"],
           "makespan": lambda r: r["makespan_s"]}


class Bench:
    def __init__(self, args):
        flowmesh = os.path.join(os.environ.get("FM_BUILD", "build/release"),
                                "bin", "flowmesh")
        if not os.access(flowmesh, os.X_OK):
            sys.exit("bench_paper.py: no %s: cmake --preset release && cmake "
                     "--build --preset release, or name a build with FM_BUILD"
                     % flowmesh)
        self.out = args.out
        self.seeds = list(range(1, args.seeds + 1))
        self.simulator = scenarios.Simulator(os.path.abspath(flowmesh),
                                             args.jobs)
        self.unfinished = []
        os.makedirs(self.out, exist_ok=True)

    def gather(self, wanted):
        """wanted: {key: future}; the runs by key and name, all finished."""
        results = {key: future.result() for key, future in wanted.items()}
        for key, runs in results.items():
            for name, run in runs.items():
                if not run["complete"] or run["failed"] > 0:
                    self.unfinished.append("%s, %s: %d of %d workflows" % (
                        key, name, run["done"], run["submitted"]))
        return results

    def ratios(self, cells, seeds, settings=None, runs=None):
        """{(mix, arrival): {policy: {figure: ratio to flowmesh}}}, each the
        geometric mean over the seeds."""
        results = self.gather({
            (cell, seed): self.simulator.start(scenarios.cell(
                *cell, seed, runs or POLICIES, settings))
            for cell in cells for seed in seeds})
        table = {}
        for cell in cells:
            table[cell] = {}
            for name in results[cell, seeds[0]]:
                table[cell][name] = {
                    figure: geomean(
                        get(results[cell, seed][name]) /
                        get(next(iter(results[cell, seed].values())))
                        for seed in seeds)
                    for figure, get in FIGURES.items()}
        return table, results


def over_cells(table, policy, figure):
    return [row[policy][figure] for row in table.values()]


def against_best(table, figure):
    """In each cell, the best baseline's figure over FlowMesh's."""
    return [min(row[p][figure] for p in BASELINES) for row in table.values()]


# --- the matrix -----------------------------------------------------------

def matrix(bench):
    table, results = bench.ratios(CELLS, bench.seeds)
    head = ["baseline / FlowMesh", "cost, best", "mean", "worst",
            "energy, best", "mean", "worst", "p50, mean", "p95, mean",
            "p99, mean"]
    rows = []
    for policy in BASELINES:
        cost = over_cells(table, policy, "cost")
        energy = over_cells(table, policy, "energy")
        rows.append([policy, max(cost), geomean(cost), min(cost), max(energy),
                     geomean(energy), min(energy)] +
                    [geomean(over_cells(table, policy, f))
                     for f in ("p50", "p95", "p99")])
        for what, values in (("cost", cost), ("energy", energy)):
            report.bench("%s.%s.best" % (what, policy), max(values))
            report.bench("%s.%s.mean" % (what, policy), geomean(values))
    for what in ("p50", "p95"):
        report.bench("%s.best_baseline.mean" % what,
                     geomean(against_best(table, what)))
    text = ["# FlowMesh against its baselines, simulated\n", ASSUMPTIONS,
            "## All cells\n",
            "Ratios of the baseline's figure to FlowMesh's over %d cells (3 "
            "mixes × 5 arrivals): above 1 FlowMesh is better. *Best* and "
            "*worst* are cells, *mean* the geometric mean over all. A cell is "
            "the geometric mean over %d seeds.\n" % (
                len(table), len(bench.seeds)),
            report.table(head, rows), "", verdict(table), "",
            "## Each cell\n",
            "Cost and energy of the baseline to FlowMesh's, then latency of "
            "the *best* baseline in that cell to FlowMesh's.\n",
            report.table(
                ["cell"] + ["cost, " + p for p in BASELINES] +
                ["energy, " + p for p in BASELINES] + ["p50", "p95"],
                [["%s, %s" % cell] +
                 [row[p]["cost"] for p in BASELINES] +
                 [row[p]["energy"] for p in BASELINES] +
                 [min(row[p][f] for p in BASELINES) for f in ("p50", "p95")]
                 for cell, row in table.items()]), "",
            "![cost](paper-cost.svg)\n\n![energy](paper-energy.svg)\n",
            "## What it is made of\n",
            "Absolute figures of seed 1: dollars, kilowatt-hours, seconds.\n",
            absolute(results)]
    report.write(bench.out, "paper.md", "\n".join(text))
    groups = ["%s %s" % cell for cell in table]
    for what in ("cost", "energy"):
        report.bars(os.path.join(bench.out, "paper-%s.svg" % what),
                    "%s of the baseline / FlowMesh" % what, "ratio", groups,
                    {p: over_cells(table, p, what) for p in BASELINES})


def verdict(table):
    """The aims, and whether they were met."""
    best = {f: max(max(over_cells(table, p, f)) for p in ISOLATED)
            for f in ("cost", "energy")}
    mean = {p: geomean(over_cells(table, p, "cost")) for p in BASELINES}
    aims = [
        ("cost against the isolated baselines, best cell", 3.8, best["cost"]),
        ("energy against them, best cell", 2.0, best["energy"]),
        ("cost against the three of them, mean", 2.0,
         geomean(mean[p] for p in ISOLATED)),
        ("cost against each of them, mean", 2.0,
         min(mean[p] for p in ISOLATED)),
        ("cost against adaptive, worst cell", 1.0,
         min(over_cells(table, "adaptive", "cost"))),
        ("cost against adaptive, mean", 1.3, mean["adaptive"]),
        ("p50 against the best baseline of the cell, mean", 1.0,
         geomean(against_best(table, "p50"))),
        ("p95 against the best baseline of the cell, mean", 1.0,
         geomean(against_best(table, "p95"))),
        ("p50 against it, worst cell", 1.0, min(against_best(table, "p50"))),
        ("p95 against it, worst cell", 1.0, min(against_best(table, "p95"))),
    ]
    leader = max(ISOLATED, key=lambda p: max(over_cells(table, p, "cost")))
    lows = []
    for figure in ("cost", "p50", "p95"):
        best = against_best(table, figure)
        low = sorted(zip(best, table))[:3]
        lows.append("%s: %s" % (figure, "; ".join(
            "%s, %s (%.3g)" % (*name, value) for value, name in low)))
    note = ("\nLowest cells, against the best baseline of each. %s.\n\n"
            "The best cells are against `%s`; the table above has each "
            "baseline by itself. (`fixed_pipeline` gives a task type at most "
            "half of the workers, by its definition: where all work is of one "
            "type, the others idle.)" % (". ".join(lows), leader))
    return report.table(["aim", "at least", "found", "met"],
                        [[text, aim, value, "yes" if value >= aim else "no"]
                         for text, aim, value in aims]) + "\n" + note


def absolute(results):
    rows = []
    for (cell, seed), runs in results.items():
        if seed != 1:
            continue
        for name, run in runs.items():
            rows.append(["%s, %s" % cell, name, run["cost"],
                         run["joules"] / 3.6e6,
                         run["latency"]["total"]["p50"],
                         run["latency"]["total"]["p95"],
                         100 * run["utilisation"],
                         "%d" % run["operators"]["ran"],
                         "%d" % run["operators"]["shared"],
                         run["operators"]["batch_mean"],
                         "%d" % run["fleet"]["loads"]])
    return report.table(["cell", "policy", "cost", "energy", "p50", "p95",
                         "busy %", "run", "shared", "batch", "loads"], rows)


# --- ablations ------------------------------------------------------------

def ablations(bench):
    runs = [{"name": "flowmesh"}] + [
        {"name": "without " + part, "without": [part]} for part in ABLATIONS
    ] + [{"name": "without all", "without": ABLATIONS}]
    table, _ = bench.ratios(CELLS, bench.seeds, None, runs)
    names = [run["name"] for run in runs[1:]]
    rows = [[name] + [value for f in ("cost", "energy", "p50", "p95")
                      for value in (geomean(over_cells(table, name, f)),
                                    max(over_cells(table, name, f)))]
            for name in names]
    for row in rows:
        report.bench("ablation.%s.cost" % row[0], row[1])
    report.write(bench.out, "paper-ablations.md", "\n".join([
        "# FlowMesh without one of its parts\n",
        "Figure without the part to the figure with it, over all cells: above "
        "1 the part helps. Assumptions as in [paper.md](paper.md).\n",
        report.table(["", "cost, mean", "most", "energy, mean", "most",
                      "p50, mean", "most", "p95, mean", "most"], rows),
        "\n![ablations](paper-ablations.svg)"]))
    report.bars(os.path.join(bench.out, "paper-ablations.svg"),
                "FlowMesh without a part / with it, mean over cells", "ratio",
                names, {f: [geomean(over_cells(table, n, f)) for n in names]
                        for f in ("cost", "energy", "p95")})


# --- variations -----------------------------------------------------------

def variation_list():
    return {
        "overlap between users": {
            "%d %%" % (100 * v): {"workload.overlap": v}
            for v in (0, 0.2, 0.4, 0.6)},
        "overlap of items, no training in common": {
            "%d %%" % (100 * v): {"workload.overlap": v,
                                  "workload.training_overlap": 0}
            for v in (0, 0.2, 0.4, 0.6)},
        "time to load a model": {
            "× %g" % v: {"execution.load_scale": v}
            for v in (0.25, 0.5, 1, 2, 4)},
        "items of a stage": {
            "× %g" % v: {"workload.item_scale": v}
            for v in (0.25, 0.5, 1, 2, 4)},
        "rate of arrivals (batched, random: count)": {
            "× %g" % v: rate(v) for v in (0.5, 1, 2, 4)},
        "who may change the fleet": {
            "FlowMesh": {"cluster.fleet": "by_policy"},
            "nobody": {"cluster.fleet": "fixed"},
            "everybody": {"cluster.fleet": "elastic"}},
        "FlowMesh's fleet at the start": {
            "all up": {},
            "nothing up": {"cluster.classes.%d.warm" % c: 0
                           for c in range(len(scenarios.FLEET))}},
        "workers that FlowMesh never stops": {
            "none": {},
            "one of 48 GB": {"cluster.classes.1.min": 1},
            "one of each": {"cluster.classes.%d.min" % c: 1
                            for c in range(len(scenarios.FLEET))}},
        "start of a worker": {
            "%d s" % v: {"cluster.classes.%d.startup" % c: v
                         for c in range(len(scenarios.FLEET))}
            for v in (30, 90, 300)},
        "costs of work": {
            "learned": {"execution.costs": "learned"},
            "known": {"execution.costs": "known"}},
    }


def rate(scale):
    return {"rate": scale}


def variation(bench, seeds, settings):
    """Means over all cells; `rate` concerns each process in its own way."""
    scale = settings.get("rate")
    if scale is None:
        return bench.ratios(CELLS, seeds, settings)[0]
    table = {}
    for mix, arrival in CELLS:
        own = {"workload.arrival.rate_scale": 2 * scale}
        if "count" in ARRIVALS[arrival]:
            own["workload.arrival.count"] = int(scenarios.COUNT * scale)
        if arrival in ("batched", "random"):
            del own["workload.arrival.rate_scale"]
        table.update(bench.ratios([(mix, arrival)], seeds, own)[0])
    return table


def variations(bench):
    text = ["# Where the advantage shrinks or is lost\n",
            "One assumption at a time, all else as in [paper.md](paper.md): "
            "geometric means over the 15 cells, baseline to FlowMesh, above 1 "
            "FlowMesh is better; p95 is that of the best baseline of each "
            "cell. *Least* is the worst cell against any baseline.\n"]
    seeds = bench.seeds[:2]
    for title, settings in variation_list().items():
        rows, series = [], {p: [] for p in BASELINES}
        for name, values in settings.items():
            table = variation(bench, seeds, values)
            cost = {p: over_cells(table, p, "cost") for p in BASELINES}
            rows.append([name] + [geomean(cost[p]) for p in BASELINES] +
                        [min(min(c) for c in cost.values())] +
                        [geomean(over_cells(table, p, "energy"))
                         for p in BASELINES] +
                        [geomean(against_best(table, "p95"))])
            for p in BASELINES:
                series[p].append(geomean(cost[p]))
                report.bench("variation.%s.%s.%s" % (title, name, p),
                             series[p][-1])
        file = "paper-" + "-".join(title.split()[:2]).lower().replace(
            "'", "").replace("’", "") + ".svg"
        text += ["## %s\n" % (title[0].upper() + title[1:]), report.table(
            [""] + ["cost, " + p for p in BASELINES] + ["least"] +
            ["energy, " + p for p in BASELINES] + ["p95"], rows),
            "\n![%s](%s)\n" % (title, file)]
        report.lines(os.path.join(bench.out, file),
                     "Cost of the baseline / FlowMesh: " + title, "ratio",
                     list(settings), series)
    report.write(bench.out, "paper-variations.md", "\n".join(text))


# --- failures -------------------------------------------------------------

def failures(bench):
    """An hour of work, so that something fails."""
    settings = {"workload.arrival": {"process": "up_ramp", "cycles": 6,
                                     "rate_scale": 2},
                "execution.checkpoint": "60s"}
    kinds = {"none": {}}
    for minutes in (60, 30, 20, 10):
        kinds["preempted every %d min" % minutes] = {
            "failures.preemption": "%dm" % minutes,
            "failures.warning": "30s"}
    kinds["without warning, every 10 min"] = {"failures.preemption": "10m"}
    kinds["a node lost every hour"] = {
        "failures.node_loss": "1h", "failures.repair": "5m",
        "cluster.classes.0.domain": 2, "cluster.classes.1.domain": 2}
    kinds["half of the workers flap"] = {
        "failures.flapping": {"share": 0.5, "up": "5m", "down": "1m"}}
    kinds["1 % of executions fail"] = {"failures.task_errors": 0.01}
    results = bench.gather({
        (kind, fleet, seed): bench.simulator.start(scenarios.cell(
            "post_train", "up_ramp", seed, POLICIES,
            {**settings, **values, "cluster.fleet": fleet}))
        for kind, values in kinds.items() for fleet in ("by_policy", "fixed")
        for seed in bench.seeds})
    text = ["# When things fail\n",
            "post_train for an hour (six ramps up, about 400 workflows), all "
            "else as in [paper.md](paper.md); checkpoints every 60 s. Figures "
            "of a policy to its own without failures, geometric means over "
            "%d seeds; *lost* is worker time of cut-off work to all busy "
            "time, *done* the workflows finished. A worker that is down is "
            "not paid, so a cost below 1 is work that waited (p95). *1 %% of "
            "executions fail* is of items, each by itself, and a retry avoids "
            "the worker that failed it.\n" % len(bench.seeds)]
    series = {}
    for fleet in ("by_policy", "fixed"):
        rows = []
        for kind in list(kinds)[1:]:
            for policy in POLICIES:
                pairs = [(results[kind, fleet, s][policy],
                          results["none", fleet, s][policy])
                         for s in bench.seeds]
                cost = geomean(a["cost"] / b["cost"] for a, b in pairs)
                rows.append([
                    kind, policy, cost,
                    geomean(a["joules"] / b["joules"] for a, b in pairs),
                    geomean(FIGURES["p95"](a) / FIGURES["p95"](b)
                            for a, b in pairs),
                    "%.1f %%" % (100 * sum(
                        a["fleet"]["wasted_s"] / a["fleet"]["busy_s"]
                        for a, _ in pairs) / len(pairs)),
                    "%.1f %%" % (100 * sum(a["done"] / a["submitted"]
                                           for a, _ in pairs) / len(pairs))])
                if fleet == "by_policy":
                    series.setdefault(policy, []).append(cost)
                if policy == "flowmesh":
                    report.bench("failures.%s.%s.cost" % (fleet, kind), cost)
        text += ["## %s\n" % ("FlowMesh's fleet elastic, the others' fixed"
                              if fleet == "by_policy" else
                              "All fleets fixed"),
                 report.table(["", "policy", "cost", "energy", "p95", "lost",
                               "done"], rows), ""]
    text.append("![cost under failures](paper-failures.svg)")
    report.write(bench.out, "paper-failures.md", "\n".join(text))
    report.bars(os.path.join(bench.out, "paper-failures.svg"),
                "Cost with failures / without", "ratio", list(kinds)[1:],
                series)


# --- scale ----------------------------------------------------------------

def scale(bench):
    """The fleet and the work grow together; stages are a tenth as long."""
    rows, points = [], []
    for workers in (10, 100, 1000, 10000):
        count = 2 * workers
        run = bench.gather({workers: bench.simulator.start(scenarios.cell(
            "post_train", "fixed", 1, [{"name": "flowmesh"}],
            {"workload.arrival": {"process": "fixed", "count": count,
                                  "per_minute": workers},
             "workload.item_scale": 0.1, "workload.users": 100,
             "cluster.count_scale": workers / 5,
             "cluster.fleet": "fixed"}), "--timed")})[workers]["flowmesh"]
        plan, operators = run["planner"], run["operators"]
        each = 1e6 * plan["plan_s"] / operators["planned"]
        rows.append(["%d" % workers, "%d" % operators["planned"],
                     "%d" % operators["leases"], plan["plan_s"], each,
                     1e6 * plan["decide_s"] / max(1, plan["decisions"]),
                     plan["plan_s"] / run["makespan_s"],
                     100 * plan["plan_s"] / run["fleet"]["up_s"],
                     plan["pool_bytes"] / operators["planned"]])
        points.append(each)
        report.bench("scale.%d.per_operator" % workers, each, "us")
    report.write(bench.out, "paper-scale.md", "\n".join([
        "# What the control plane costs as the fleet grows\n",
        "Two workflows a worker (post_train, stages a tenth as long), arriving "
        "at one a worker and minute on a fixed fleet: the planner's processor "
        "seconds (pool, tenants, placement; no journal, no network) of one "
        "core. These are times of the machine at hand, the only figures here "
        "that differ from run to run.\n",
        report.table(["workers", "operators", "leases", "planner s",
                      "µs an operator", "µs a decision",
                      "share of a core while it ran",
                      "% of the fleet's worker time", "bytes an operator"],
                     rows), "\n![scale](paper-scale.svg)"]))
    report.lines(os.path.join(bench.out, "paper-scale.svg"),
                 "Planner time an operator by workers", "µs",
                 ["10", "100", "1000", "10000"], {"flowmesh": points},
                 log=True)


# --- all ------------------------------------------------------------------

ASSUMPTIONS = """Made by `bench/paper/bench_paper.py`; the scenarios are in `bench/paper/scenarios.py`, their language in
[scenario.md](../spec/scenario.md). The same code places work as in a running fabric; devices are modelled.

Assumed, and varied in [paper-variations.md](paper-variations.md):

- **Fleet**: %s, at the list prices and watts of the catalogue (`src/plan/cost/catalogue.c`, sources there). Baselines keep all of it from the first arrival to the last end; FlowMesh
  begins with the same workers up and may stop them and start up to twice as many, each paid through its 90 s of start-up.
- **Work**: the published mixes (scenario.md §6); run times by roofline (half of the peak flops, 80 %% of the bandwidth), times a lognormal factor of each kind of work and
  class that nobody knows beforehand (sigma 0.2) and one of each run (0.1). Costs are learned during the run.
- **Models** load in 22.5 s (1B) and 26.4 s (3B) and stay resident where memory allows, under every policy.
- **Overlap**: 40 %% of a stage's items are asked for by every workflow of that dataset; a training is the common one with chance 0.4. Baselines share nothing. 8 equal users.
- **Arrivals**: as published at twice the rate: ramp 12 → 1.2 a minute within 10 minutes (66 workflows), up-ramp two cycles of 1.2 → 12 (132), fixed 66 at 6.6 a minute, batched and random 66 at
  once. So the fixed fleet is busy for a third to nine tenths of its time.
- **Cost** is worker time × price, **energy** watts × busy + idle watts × idle time; latency is from a workflow's arrival to its end.
""" % ", ".join("%d × %s (%s)" % (count, device, memory)
                for device, memory, count in scenarios.FLEET)

PARTS = {"matrix": matrix, "ablations": ablations, "variations": variations,
         "failures": failures, "scale": scale}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("parts", nargs="*", metavar="PART",
                        help=" ".join(PARTS))
    parser.add_argument("--out", default="docs/results")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, choices=(1, 2))
    args = parser.parse_args()
    unknown = [part for part in args.parts if part not in PARTS]
    if unknown:
        parser.error("no part %s; there are %s" % (unknown[0],
                                                   ", ".join(PARTS)))
    bench = Bench(args)
    try:
        for part in args.parts or PARTS:
            begin = time.monotonic()
            PARTS[part](bench)
            print("%s: %.0f s" % (part, time.monotonic() - begin),
                  file=sys.stderr)
    finally:
        bench.simulator.close()
    for line in bench.unfinished:
        print("unfinished: %s" % line)
    print("%d runs, %d with unfinished workflows" % (
        bench.simulator.runs, len(bench.unfinished)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
