# SPDX-License-Identifier: Apache-2.0
"""The scenarios of the evaluation, and running them: nothing here knows what
comes out.  Everything assumed is in BASE; docs/spec/scenario.md says what is
assumed where it is silent."""
import concurrent.futures
import copy
import json
import os
import subprocess
import tempfile

POLICIES = ["flowmesh", "static_worker", "fixed_pipeline", "round_robin",
            "adaptive"]
ISOLATED = ["static_worker", "fixed_pipeline", "round_robin"]
BASELINES = POLICIES[1:]
MIXES = ["inference_only", "post_train", "data_train"]
ABLATIONS = ["batching", "dedup", "locality", "elasticity", "consolidation",
             "fair_share"]
COUNT = 66  # workflows where the arrival process does not say: as the ramp

# Twice the published rates, so that this fleet is used and not only idle.
ARRIVALS = {
    "batched": {"process": "batched", "count": COUNT},
    "random": {"process": "random", "count": COUNT},
    "fixed": {"process": "fixed", "count": COUNT, "per_minute": 3.3,
              "rate_scale": 2},
    "ramp": {"process": "ramp", "rate_scale": 2},
    "up_ramp": {"process": "up_ramp", "rate_scale": 2},
}

# Workers of each class: (device of the catalogue, memory, count).  Memory as
# the drivers of 24, 48 and 80 GB cards report it.
FLEET = [("rtx4090-24g", "24Gi", 2), ("l40s-48g", "48Gi", 2),
         ("a100-80g", "80Gi", 1)]

BASE = {
    "apiVersion": "flowmesh/v1",
    "kind": "Scenario",
    "seed": 1,
    "cluster": {
        "fleet": "by_policy",
        "classes": [{"device": device, "memory": memory, "count": count,
                     "min": 0, "max": 2 * count, "warm": count,
                     "startup": "90s"}
                    for device, memory, count in FLEET],
    },
    "workload": {"mix": "post_train", "arrival": ARRIVALS["ramp"], "users": 8,
                 "overlap": 0.4},
    "execution": {"noise": 0.1, "hidden": 0.2, "costs": "learned"},
}

CELLS = [(mix, arrival) for mix in MIXES for arrival in ARRIVALS]


def put(document, path, value):
    """Set PATH ("a.b.0.c") of a document of maps and lists."""
    *steps, last = [int(s) if s.isdigit() else s for s in path.split(".")]
    for step in steps:
        if isinstance(step, str):
            document = document.setdefault(step, {})
        else:
            document = document[step]
    document[last] = value


def cell(mix, arrival, seed, runs, settings=None):
    """The scenario of one cell; runs: entries of `compare`."""
    document = copy.deepcopy(BASE)
    document["metadata"] = {"name": "%s %s" % (mix, arrival)}
    document["seed"] = seed
    document["workload"]["mix"] = mix
    document["workload"]["arrival"] = dict(ARRIVALS[arrival])
    for path, value in (settings or {}).items():
        put(document, path, value)
    document["compare"] = runs
    return document


class Simulator:
    """Runs scenarios, at most `jobs` processes at a time."""

    def __init__(self, flowmesh, jobs):
        self.flowmesh = flowmesh
        self.pool = concurrent.futures.ThreadPoolExecutor(jobs)
        self.folder = tempfile.TemporaryDirectory(prefix="flowmesh-paper-")
        self.count = 0
        self.runs = 0

    def start(self, document, *args):
        """A future of the runs of @p document, by name."""
        self.count += 1
        path = os.path.join(self.folder.name, "%d.json" % self.count)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(document, file)
        self.runs += max(1, len(document.get("compare", [])))
        return self.pool.submit(self.run, path, args)

    def run(self, path, args):
        done = subprocess.run([self.flowmesh, "sim", path, "--json", "-",
                               *args], capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError("%s: %s" % (path, done.stderr.decode().strip()))
        runs = json.loads(done.stdout)["runs"]
        return {run["name"]: run for run in runs}

    def close(self):
        self.pool.shutdown()
        self.folder.cleanup()
