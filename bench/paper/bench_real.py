#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The paper's mixes for real: small models, three MPI ranks, this machine.

usage: bench_real.py [--quick] [--mix NAME] [--count N] [--users N]
                     [--overlap 0.5] [--seed N] [--rounds N] [--out DIR]

The same workflows, all submitted at once, are run by

  flowmesh        mpirun -n 3: a control rank, two workers, an executor each
  its baselines   the same program with another policy: in the configuration
  ray parsl dask  the same executor program, one call a node, two workers

and measured by makespan, items executed and CPU seconds of all processes.  The
peers run what FlowMesh's lineage recorded, call by call, and their outputs must
equal FlowMesh's.  FM_BUILD names the build, FM_PEERS the peers' virtual
environment (bench/paper/peers.sh makes it).  bench/README.md says what is
compared with what.
"""
import argparse
import ctypes
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import mixes  # noqa: E402  (beside this file)
import report as tables  # noqa: E402

BUILD = os.path.abspath(os.environ.get("FM_BUILD", "build/release"))
FLOWMESH = os.path.join(BUILD, "bin", "flowmesh")
ENGINE = os.path.join(BUILD, "bin", "flowmesh-engine")
PEERS = os.path.abspath(os.environ.get(
    "FM_PEERS", os.path.join(HERE, "..", "..", "build", "peers")))
POLICIES = ("flowmesh", "static_worker", "fixed_pipeline", "round_robin",
            "adaptive")
SYSTEMS = {"ray": "ray", "parsl": "parsl", "dask": "distributed"}
RANKS = 3
RUN_S = 120
TICK_S = 1.0 / os.sysconf("SC_CLK_TCK")
PR_SET_CHILD_SUBREAPER = 36


def bench(name, value, unit, peer=None):
    """peer: (name, value); less is better for all but rates."""
    line = "BENCH paper.real.%s %.6g %s" % (name, value, unit)
    if peer and value > 0 and peer[1] > 0:
        ratio = value / peer[1] if unit.endswith("/s") else peer[1] / value
        line += " %s %.6g %.3g" % (peer[0], peer[1], ratio)
    print(line, flush=True)


def skip(name, why):
    print("SKIP paper.real.%s %s" % (name, why), flush=True)


def environment(**more):
    """One thread an executor, wherever it runs."""
    return dict(os.environ, OMPI_ALLOW_RUN_AS_ROOT="1",
                OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1", OPENBLAS_NUM_THREADS="1",
                OMP_NUM_THREADS="1", RAY_USAGE_STATS_ENABLED="0", **more)


# --- CPU time of a tree of processes -----------------------------------------

def processes():
    """(pid, its start) → (parent, own CPU seconds)."""
    found = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open("/proc/%s/stat" % name, encoding="utf-8",
                      errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue  # it has just ended
        found[int(name), fields[19]] = (
            int(fields[1]), (int(fields[11]) + int(fields[12])) * TICK_S)
    return found


class Meter(threading.Thread):
    """CPU seconds of all that descends from this process, sampled: what ends
    between two samples loses its last tenth of a second, no more.  As
    subreaper this process inherits what its children leave behind."""

    def __init__(self):
        super().__init__(daemon=True)
        self.first, self.last = {}, {}
        self.ended = threading.Event()
        self.sample(self.first)
        self.start()

    def sample(self, into):
        found = processes()
        below = {os.getpid()}
        more = True
        while more:
            more = {key[0] for key, (parent, _) in found.items()
                    if parent in below and key[0] not in below}
            below |= more
        into.update({key: cpu for key, (_, cpu) in found.items()
                     if key[0] in below and key[0] != os.getpid()})

    def run(self):
        while not self.ended.wait(0.1):
            self.sample(self.last)

    def stop(self):
        self.ended.set()
        self.join()
        self.sample(self.last)
        return sum(cpu - self.first.get(key, 0)
                   for key, cpu in self.last.items())


def reap(limit_s=20):
    """Wait until nothing that a run started is left."""
    until = time.monotonic() + limit_s
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            if time.monotonic() > until:
                for (child, _), (parent, _) in processes().items():
                    if parent == os.getpid():
                        os.kill(child, signal.SIGKILL)
                until += limit_s
            time.sleep(0.02)


# --- FlowMesh ----------------------------------------------------------------

class FlowMesh:
    def __init__(self, root):
        self.root = root
        self.count = 0

    def write(self, name, value):
        path = os.path.join(self.root, name)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(value, file)
        return path

    def run(self, files, policy=None, ranks=RANKS, *args):
        """Report, makespan and CPU seconds; a fabric of its own."""
        self.count += 1
        fabric = os.path.join(self.root, "fabric-%d" % self.count)
        argv = [FLOWMESH, "run", *files, "--fabric", fabric, "--json",
                "--quiet", *args]
        if policy:
            argv += ["--config", self.write("%s.yaml" % policy, {
                "apiVersion": "flowmesh/v1", "kind": "Fabric",
                "policy": policy})]
        if ranks > 1:
            argv = ["mpirun", "--oversubscribe", "-n", str(ranks), *argv]
        before = os.times()
        done = subprocess.run(argv, env=environment(), timeout=RUN_S,
                              capture_output=True, check=False)
        reap()
        after = os.times()
        cpu = (after.children_user - before.children_user +
               after.children_system - before.children_system)
        if done.returncode != 0:
            raise RuntimeError("%s: exit %d: %s" % (
                " ".join(argv), done.returncode,
                done.stderr.decode(errors="replace")[-2000:]))
        report = json.loads(done.stdout)
        report.setdefault("workflows", [report])
        report["cpu"] = cpu
        return report

    def ask(self, command, what, fabric):
        done = subprocess.run([FLOWMESH, command, *what, "--fabric", fabric],
                              capture_output=True, check=True)
        return json.loads(done.stdout)

    def calls(self, report):
        """What was run, node by node, as a task system would call it, and the
        outputs of each node."""
        workflows, outputs = [], []
        for workflow in report["workflows"]:
            ident = workflow["workflow"]
            results = {node["name"]: node["items"] for node in self.ask(
                "result", [ident, "--json"], report["fabric"])["nodes"]}
            place, nodes, wanted, names = {}, [], [], []
            for node in workflow["nodes"]:
                name = "%s/%s" % (ident, node["name"])
                items = self.ask("lineage", [name], report["fabric"])
                items = items if isinstance(items, list) else [items]
                place[name] = len(nodes)
                names.append(node["name"])
                upstream = sorted({place[up] for item in items
                                   for up in item["upstream"]})
                nodes.append({
                    "task_type": items[0]["operator"],
                    "params": self.whole(items[0]["params"], report),
                    "values": [self.whole(item["value"], report)
                               for item in items],
                    "upstream": upstream,
                    "from_upstream": members(
                        items[0]["operator"], [names[up] for up in upstream])})
                wanted.append([item["output"]
                               for item in results[node["name"]]])
            workflows.append({"name": workflow["name"], "nodes": nodes})
            outputs.append(wanted)
        return workflows, outputs

    def whole(self, value, report):
        """A value that lives in the store, taken out of it."""
        if isinstance(value, dict) and set(value) <= {"$object", "locator"} \
                and "$object" in value:
            done = subprocess.run(
                [FLOWMESH, "cas", "get", value["$object"], "--fabric",
                 report["fabric"]], capture_output=True, check=True)
            return json.loads(done.stdout)
        return value


def members(operator, upstream):
    """Members of an update's value that upstream nodes give → which of them;
    an internal node is called OWNER/ROLE or OWNER/ROLE.ITERATION."""
    roles = {"rollout": "rollouts", "reward": "rewards",
             "reference": "reference"}
    if operator not in ("dpo", "ppo", "grpo"):
        return {}
    return {roles[role]: place for place, role in enumerate(
        name.rpartition("/")[2].partition(".")[0] for name in upstream)
        if role in roles}


def count_items(report, what="ran"):
    return sum(w["operators"][what] for w in report["workflows"])


# --- peers -------------------------------------------------------------------

class Peer:
    """peer_driver.py in the peers' environment, a fresh store each."""

    def __init__(self, root, name, jobs):
        fabric = tempfile.mkdtemp(prefix=name + "-", dir=root)
        path = os.path.join(fabric, "jobs.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"jobs": jobs}, file)
        self.log = open(os.path.join(fabric, "log"), "wb")
        self.child = subprocess.Popen(
            [os.path.join(PEERS, "bin", "python"),
             os.path.join(HERE, "peer_driver.py"), name, path],
            env=environment(FM_PEER_ENGINE=ENGINE, FM_PEER_FABRIC=fabric,
                            PATH=os.path.join(PEERS, "bin") + os.pathsep +
                            os.environ["PATH"], PYTHONDONTWRITEBYTECODE="1"),
            cwd=fabric, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log)
        self.fabric = fabric

    def line(self):
        """The next line of ours; a library's chatter is passed over."""
        while True:
            line = self.child.stdout.readline()
            if not line:
                self.log.close()
                with open(os.path.join(self.fabric, "log"), encoding="utf-8",
                          errors="replace") as file:
                    raise RuntimeError("the driver has ended: " +
                                       file.read()[-2000:])
            if line.startswith((b"READY", b"{")):
                return line

    def job(self):
        """Result of the next job with the CPU seconds it took."""
        self.line()
        meter = Meter()
        self.child.stdin.write(b"go\n")
        self.child.stdin.flush()
        result = json.loads(self.line())
        result["cpu"] = meter.stop()
        return result

    def close(self):
        try:
            self.child.stdin.close()
        except OSError:
            pass
        try:
            self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.child.kill()
        self.child.stdout.close()
        self.log.close()
        reap()


def available(module):
    python = os.path.join(PEERS, "bin", "python")
    if not os.access(python, os.X_OK):
        return "no peers: run bench/paper/peers.sh, or set FM_PEERS"
    if subprocess.run([python, "-c", "import " + module], check=False,
                      capture_output=True).returncode:
        return "%s is not in %s: run bench/paper/peers.sh" % (module, PEERS)
    return None


def with_peer(root, name, job):
    peer = Peer(root, name, [job])
    try:
        return peer.job()
    finally:
        peer.close()


def same(wanted, got):
    """Whether the peer's output is FlowMesh's, whose store keeps nine digits
    of a number.  What an executor stored it names by digest; a text too long
    for a line is stored on one side only, and passes."""
    if isinstance(got, dict) and set(got) == {"$object"}:
        return True
    if isinstance(wanted, dict) and isinstance(got, dict):
        return set(wanted) == set(got) and all(
            same(wanted[key], got[key]) for key in wanted)
    if isinstance(wanted, list) and isinstance(got, list):
        return len(wanted) == len(got) and all(map(same, wanted, got))
    if isinstance(wanted, float) or isinstance(got, float):
        return abs(wanted - got) <= 1e-8 * max(abs(wanted), abs(got))
    return wanted == got


def check(name, wanted, got):
    pairs = [(i, j) for a, b in zip(wanted, got) for x, y in zip(a, b)
             for i, j in itertools.zip_longest(x, y)]
    differ = [pair for pair in pairs if not same(*pair)]
    print("  %s: %d outputs, %d differ from FlowMesh's" % (
        name, len(pairs), len(differ)), flush=True)
    if differ:
        raise RuntimeError("%s computed something else: %.500s instead of "
                           "%.500s" % (name, differ[0][1], differ[0][0]))


# --- the mixes ---------------------------------------------------------------

def figures(mix, name, own, other):
    """One line a measure: FlowMesh against another way to run the mix."""
    for key, unit in (("seconds", "s"), ("cpu", "s"), ("items", "items")):
        bench("%s.%s.%s" % (mix, "makespan" if key == "seconds" else key,
                            name), own[key], unit, (name, other[key]))


def measure(report):
    return {"seconds": report["seconds"], "cpu": report["cpu"],
            "items": count_items(report)}


def table(mix, rows):
    print("%s:" % mix)
    for name, row in rows:
        print("  %-15s %7.2f s makespan %7.2f CPU s %6d items" % (
            name, row["seconds"], row["cpu"], row["items"]), flush=True)


def middle(measures):
    """Each figure's median over the rounds."""
    return {key: statistics.median(m[key] for m in measures)
            for key in measures[0]}


def run_mix(at, mix, args, missing):
    """All ways in turns, round by round; the rows of the table."""
    files = [at.write("%s-%s.json" % (mix, name), workflow)
             for name, workflow in mixes.workflows(
                 mix, args.count, args.users, args.overlap, args.seed)]
    at.run(files[:2], "flowmesh")  # warms caches, does not count
    measures = {}
    for _ in range(args.rounds):
        report = at.run(files, "flowmesh")
        measures.setdefault("flowmesh", []).append(measure(report))
        for policy in POLICIES[1:]:
            measures.setdefault(policy, []).append(
                measure(at.run(files, policy)))
        workflows, wanted = at.calls(report)
        items = sum(len(node["values"]) for workflow in workflows
                    for node in workflow["nodes"])
        for name in SYSTEMS:
            if name in missing:
                continue
            result = with_peer(at.root, name, {"workflows": workflows})
            check(name, wanted, result["outputs"])
            measures.setdefault(name, []).append(
                {"seconds": result["seconds"], "cpu": result["cpu"],
                 "items": items})
    rows = [(name, middle(m)) for name, m in measures.items()]
    table(mix, rows)
    for name, row in rows[1:]:
        figures(mix, name, rows[0][1], row)
    return rows


def page(args, missing, no_op_rows, mix_rows):
    """The results as a page."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        cpu = next((line.partition(":")[2].strip() for line in file
                    if line.startswith("model name")), "unknown")
    lines = [
        "# FlowMesh on real ranks, beside task systems\n",
        "Made by `bench/paper/bench_real.py`; [bench/README.md]"
        "(../../bench/README.md) says what is compared with what. %d cores "
        "of %s. %d workflows of %d users at once, overlap %.0f %%, seed %d; "
        "median of %d round%s. CPU seconds, of all processes, stand for "
        "energy. Ratios are to FlowMesh's figure: above 1 FlowMesh is "
        "better.\n" % (
            os.cpu_count(), cpu, args.count, args.users, 100 * args.overlap,
            args.seed, args.rounds, "s" if args.rounds > 1 else "")]
    if missing:
        lines.append("Not installed, so not here: %s.\n" %
                     ", ".join(sorted(missing)))
    for mix, rows in mix_rows:
        own = rows[0][1]
        lines += ["## %s\n" % mix, tables.table(
            ["", "makespan, s", "CPU, s", "items run", "makespan, ratio",
             "CPU, ratio"],
            [[name, row["seconds"], row["cpu"], "%d" % row["items"],
              row["seconds"] / own["seconds"], row["cpu"] / own["cpu"]]
             for name, row in rows]), ""]
    lines += ["## A task that does nothing\n", tables.table(
        ["", "µs a task"], no_op_rows), ""]
    return "\n".join(lines)


# --- what a task costs that does nothing -------------------------------------

def no_op_files(at, count):
    data = os.path.join(at.root, "no-ops.jsonl")
    with open(data, "w", encoding="ascii") as file:
        for i in range(10 * count):
            file.write("%d\n" % i)
    head = {"apiVersion": "flowmesh/v1"}
    vector = at.write("vector.json", dict(head, spec={
        "taskType": "echo", "data": {"type": "jsonl", "path": data}}))
    nodes = at.write("nodes.json", dict(head, spec={"graph": {"nodes": [
        {"name": "n%d" % i, "dependsOn": [], "spec": {
            "taskType": "echo", "data": {"items": [i]}}}
        for i in range(count)]}}))
    return (("items", vector, 10 * count), ("nodes", nodes, count))


def no_ops(at, count, missing):
    """Microseconds a task, two workers everywhere; the rows of the table."""
    peers = {}
    rows = []
    for name in SYSTEMS:
        if name not in missing:
            result = with_peer(at.root, name, {"no_ops": count})
            peers[name] = 1e6 * result["seconds"] / result["tasks"]
            print("  %-10s %8.1f us a task" % (name, peers[name]), flush=True)
    for what, file, tasks in no_op_files(at, count):
        for world, ranks, more in (("embedded", 1, ("--workers", "2")),
                                   ("mpi3", RANKS, ())):
            report = at.run([file], None, ranks, *more)
            own = 1e6 * report["seconds"] / tasks
            print("  flowmesh %s, %s: %.1f us a task" % (what, world, own))
            rows.append(["flowmesh, %s, %s" % (what, world), own])
            for name, value in peers.items():
                bench("no_op.%s.%s.%s" % (what, world, name), own, "us",
                      (name, value))
            if not peers:
                bench("no_op.%s.%s" % (what, world), own, "us")
    return rows + [[name, value] for name, value in peers.items()]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--mix", choices=sorted(mixes.MIXES), action="append")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--users", type=int, default=4)
    parser.add_argument("--overlap", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--out", help="write paper-real.md there")
    args = parser.parse_args()
    args.count = args.count or (4 if args.quick else 12)
    args.mix = args.mix or list(mixes.MIXES)
    return args


def main():
    args = arguments()
    for program in (FLOWMESH, ENGINE):
        if not os.access(program, os.X_OK):
            skip("all", "%s is not built" % program)
            return 0
    if not shutil.which("mpirun"):
        skip("all", "no mpirun: apt-get install openmpi-bin")
        return 0
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    missing = {}
    for name, module in SYSTEMS.items():
        why = available(module)
        if why:
            missing[name] = why
            skip(name, why)
    print("%d workflows of %d users, overlap %.0f %%, seed %d; %s" % (
        args.count, args.users, 100 * args.overlap, args.seed,
        ", ".join(args.mix)), flush=True)
    root = tempfile.mkdtemp(prefix="flowmesh-bench-")
    try:
        at = FlowMesh(root)
        no_op_rows = no_ops(at, 200 if args.quick else 2000, missing)
        mix_rows = [(mix, run_mix(at, mix, args, missing))
                    for mix in args.mix]
    finally:
        reap(1)
        shutil.rmtree(root, ignore_errors=True)
    if args.out:
        with open(os.path.join(args.out, "paper-real.md"), "w",
                  encoding="utf-8") as file:
            file.write(page(args, missing, no_op_rows, mix_rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
