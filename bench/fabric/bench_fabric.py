#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What the control plane costs: no-op operators through whole fabrics.

Rates are operators over the `seconds` of the report, from submission to the
last durable result, executors included.  Peers are measured in the same run:
Python's process pools with no-op tasks, and the disk's own fsync rate.
FM_BUILD names the build; `--quick` does a tenth of the work.
"""
import concurrent.futures
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time

BUILD = os.environ.get("FM_BUILD", "build/release")
FLOWMESH = os.path.abspath(os.path.join(BUILD, "bin", "flowmesh"))
SCALE = 10 if "--quick" in sys.argv[1:] else 1
ITEMS = 100000 // SCALE
NODES = 2000 // SCALE
RUN_S = 150


def bench(name, value, unit, peer=None):
    """peer: (name, value); more is better for a rate, less for the rest."""
    line = "BENCH fabric.%s %.6g %s" % (name, value, unit)
    if peer and value > 0 and peer[1] > 0:
        ratio = value / peer[1] if unit.endswith("/s") else peer[1] / value
        line += " %s %.6g %.3g" % (peer[0], peer[1], ratio)
    print(line, flush=True)


def environment():
    env = dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1",
               OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    return env


class Bench:
    def __init__(self, root):
        self.root = root
        self.count = 0

    def write(self, nodes):
        self.count += 1
        path = os.path.join(self.root, "w%d.json" % self.count)
        with open(path, "w", encoding="ascii") as file:
            json.dump({"apiVersion": "flowmesh/v1", "kind": "Workflow",
                       "spec": {"graph": {"nodes": nodes}}}, file)
        return path

    def vector(self, items, salt=0):
        """One node of `items` no-ops, none of which equals another."""
        data = os.path.join(self.root, "items-%d-%d.jsonl" % (items, salt))
        with open(data, "w", encoding="ascii") as file:
            for i in range(items):
                file.write("%d\n" % (salt * 10000000 + i))
        return self.write([{"name": "v", "spec": {
            "taskType": "echo",
            "data": {"type": "jsonl", "path": data}}}])

    def chain(self, nodes):
        """Many nodes of one item, half of them behind the other half."""
        half = nodes // 2
        return self.write([{
            "name": "n%d" % i,
            "dependsOn": ["n%d" % (i - half)] if i >= half else [],
            "spec": {"taskType": "echo", "data": {"items": [i]}}}
            for i in range(nodes)])

    def run(self, file, *args, ranks=0):
        """The report, peak memory in bytes and CPU seconds of rank 0."""
        self.count += 1
        fabric = os.path.join(self.root, "fabric-%d" % self.count)
        argv = [FLOWMESH, "run", file, "--fabric", fabric, "--json",
                "--quiet", *args]
        usage = os.path.join(self.root, "usage-%d" % self.count)
        if ranks:
            # each rank notes its own cost, its executor not included
            argv = ["mpirun", "--oversubscribe", "-n", str(ranks),
                    sys.executable, os.path.abspath(__file__), "--watch",
                    usage, *argv]
        else:
            argv = [sys.executable, os.path.abspath(__file__), "--watch",
                    usage, *argv]
        done = subprocess.run(argv, env=environment(), timeout=RUN_S,
                              capture_output=True, check=False)
        if done.returncode != 0:
            raise RuntimeError("%s: exit %d: %s" % (
                " ".join(argv), done.returncode, done.stderr.decode()[-2000:]))
        with open(usage, encoding="ascii") as file:
            peak, cpu = file.read().split()
        shutil.rmtree(fabric, ignore_errors=True)
        return json.loads(done.stdout), int(peak), float(cpu)


def watch(usage, argv):
    """Run argv; note VmHWM and own CPU time of rank 0 while it lives."""
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))
    child = subprocess.Popen(argv)
    peak, cpu = 0, 0.0
    while child.poll() is None:
        try:
            with open("/proc/%d/status" % child.pid, encoding="ascii") as file:
                for line in file:
                    if line.startswith("VmHWM:"):
                        peak = int(line.split()[1]) * 1024
            with open("/proc/%d/stat" % child.pid, encoding="ascii") as file:
                fields = file.read().rpartition(")")[2].split()
            cpu = (int(fields[11]) + int(fields[12])) / os.sysconf(
                "SC_CLK_TCK")
        except (OSError, ValueError):
            pass
        time.sleep(0.02)
    if rank == 0:
        with open(usage, "w", encoding="ascii") as file:
            file.write("%d %f\n" % (peak, cpu))
    return child.returncode


def rate(report):
    return report["operators"]["ran"] / report["seconds"]


def no_op(value):
    return value


def peers():
    """No-op tasks through Python's own pools, two processes each."""
    count = ITEMS // 5
    with multiprocessing.Pool(2) as pool:
        pool.map(no_op, range(10), 1)
        start = time.perf_counter()
        pool.map(no_op, range(count), 1)
        single = count / (time.perf_counter() - start)
        start = time.perf_counter()
        pool.map(no_op, range(ITEMS))
        chunked = ITEMS / (time.perf_counter() - start)
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        list(pool.map(no_op, range(10)))
        start = time.perf_counter()
        list(pool.map(no_op, range(count // 4)))
        futures = count // 4 / (time.perf_counter() - start)
    return single, chunked, futures


def fsync_rate(root):
    path = os.path.join(root, "fsync")
    with open(path, "wb", buffering=0) as file:
        start = time.perf_counter()
        count = 0
        while time.perf_counter() - start < 2:
            file.write(b"x" * 4096)
            os.fdatasync(file.fileno())
            count += 1
        return count / (time.perf_counter() - start)


def throughput(at, single, futures):
    large, small = at.vector(ITEMS), at.chain(NODES)
    fsyncs = fsync_rate(at.root)
    bench("disk.fsync", fsyncs, "op/s")
    for name, args in (("memory", ["--volatile"]), ("durable", [])):
        report, _, _ = at.run(large, *args)
        bench("vector.embedded." + name, rate(report), "op/s",
              ("pool.map,chunk=1", single))
        if name == "durable":  # what group commit makes of one flush
            bench("durable.per_fsync", rate(report) / fsyncs, "op/fsync")
        report, _, _ = at.run(small, *args)
        bench("nodes.embedded." + name, rate(report), "op/s",
              ("futures", futures))
        if not shutil.which("mpirun"):
            print("SKIP fabric.mpi openmpi-bin is not installed", flush=True)
            continue
        report, _, cpu = at.run(large, *args, ranks=3)
        bench("vector.mpi3." + name, rate(report), "op/s",
              ("pool.map,chunk=1", single))
        bench("control.cpu." + name,
              1e3 * cpu * 1000 / report["operators"]["ran"], "ms/1000op")
        report, _, _ = at.run(small, *args, ranks=3)
        bench("nodes.mpi3." + name, rate(report), "op/s",
              ("futures", futures))


def memory(at):
    """Peak memory of rank 0 by the number of operators it holds."""
    few, many = ITEMS // 10, ITEMS + ITEMS // 10
    _, small, _ = at.run(at.vector(few, 1), "--volatile", ranks=2)
    _, large, _ = at.run(at.vector(many, 2), "--volatile", ranks=2)
    bench("control.memory", (large - small) / (many - few), "B/op")


def main():
    if len(sys.argv) > 3 and sys.argv[1] == "--watch":
        return watch(sys.argv[2], sys.argv[3:])
    if not os.access(FLOWMESH, os.X_OK):
        print("SKIP fabric %s is not built" % FLOWMESH)
        return 0
    root = tempfile.mkdtemp(prefix="flowmesh-bench-")
    try:
        single, chunked, futures = peers()
        print("peers: pool.map chunk=1 %.0f/s, chunked %.0f/s, futures %.0f/s"
              % (single, chunked, futures), flush=True)
        at = Bench(root)
        throughput(at, single, futures)
        memory(at)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
