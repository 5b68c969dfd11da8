# SPDX-License-Identifier: Apache-2.0
"""kill -9 of a whole run at random moments, then the same command again.

What was reported done stays done and never runs again, the rest completes,
and the results are those of a run that nobody disturbed.
"""
import random
import time

import harness


class Crash(harness.Case):
    def setUp(self):
        super().setUp()
        self.trace = harness.Trace(self.path("trace"))

    def nodes(self):
        """Three layers of commands, vectors of items, a python node."""
        trace = self.trace
        nodes = [
            {"name": "items", "spec": {
                "taskType": "echo",
                "data": {"type": "list", "items": list(range(40))}}},
        ]
        first = ["a%d" % i for i in range(4)]
        second = ["b%d" % i for i in range(4)]
        nodes += [trace.node(name, (), "sleep 0.05") for name in first]
        nodes += [trace.node(name, [first[i], first[(i + 1) % 4]],
                             "sleep 0.03") for i, name in enumerate(second)]
        nodes += [
            {"name": "sum", "dependsOn": ["items"] + second[:2], "spec": {
                "taskType": "python", "emits": "items",
                "code": "import json, os\n"
                        "def main(inputs):\n"
                        "    path = os.path.join(inputs['items'],"
                        " 'results.json')\n"
                        "    with open(path) as f:\n"
                        "        items = json.load(f)['result']['items']\n"
                        "    n = sum(item['output'] for item in items)\n"
                        "    return [n + i for i in range(20)]\n"}},
            {"name": "again", "dependsOn": ["sum"], "spec": {
                "taskType": "echo", "data": {"type": "node", "node": "sum"}}},
            trace.node("last", ["again"] + second, "sleep 0.02"),
        ]
        return nodes

    def reference(self, file, **how):
        started = time.monotonic()
        self.call("run", file, "--fabric", self.path("reference"), **how)
        self.duration_s = time.monotonic() - started
        counts = self.trace.counts()
        self.assertEqual(set(counts.values()), {1})
        self.assertEqual(len(counts), 9)
        self.trace.clear()
        return self.items("crash", self.path("reference"))

    def kill_some(self, run, rng):
        """All at once, or flowmesh alone: its executors must then end."""
        if rng.random() < 0.5:
            harness.kill_all(self.token)
            return
        for pid in self.pids("flowmesh") + self.pids("mpirun"):
            harness.kill(pid)
        harness.wait_for(lambda: not self.pids(),
                         "the executors of a killed flowmesh end")

    def one_round(self, file, fabric, rng, done, **how):
        """Run, kill, check; True when the run completed first."""
        before = self.trace.counts()
        run = self.start("run", file, "--fabric", fabric, **how)
        pause = rng.uniform(0.1, 1.0) * self.duration_s
        try:
            run.popen.wait(pause)
        except harness.subprocess.TimeoutExpired:
            pass
        finished = not run.running()
        self.kill_some(run, rng)
        result = run.wait()
        reported = harness.done_nodes(result.err)
        for name, count in done.items():
            self.assertEqual(self.trace.counts().get(name), count,
                             "%s was done and ran again:\n%s"
                             % (name, result.err))
        run_id = None  # killed after its end, a workflow is submitted anew
        for line in result.err.splitlines():
            if " (crash): " in line:
                run_id = line.split()[0]
            if line.startswith("going on: "):
                self.assertGreaterEqual(int(line.split()[2]),
                                        len(self.seen.get(run_id, ())),
                                        "nodes that were done are forgotten")
                self.resumed += 1
        self.seen.setdefault(run_id, set()).update(reported)
        counts = self.trace.counts()
        for name in reported:
            if name in counts:
                done[name] = counts[name]
        self.interrupted += not finished and counts != before
        if finished:
            self.assertEqual(result.status, 0, result.err)
        return finished

    def torture(self, rounds, seed, **how):
        file = self.workflow("crash", self.nodes())
        expected = self.reference(file, **how)
        rng = random.Random(seed)
        self.resumed = self.interrupted = fabrics = 0
        left = rounds

        def more():
            """Rounds to go, or moments so badly chosen that more are due."""
            few = min(self.interrupted, self.resumed) < 2
            return left > 0 or (few and left > -4 * rounds)

        while more():
            fabric = self.path("fabric-%d" % fabrics)
            fabrics += 1
            done, self.seen = {}, {}
            finished = False
            while more() and not finished:
                finished = self.one_round(file, fabric, rng, done, **how)
                left -= 1
            # whatever happened, the same command now ends well
            self.call("run", file, "--fabric", fabric, **how)
            for name, count in done.items():
                self.assertEqual(self.trace.counts()[name], count, name)
            self.assertEqual(self.items("crash", fabric), expected)
            self.trace.clear()
        print("seed %d: %d rounds, %d fabrics, %d killed with work under way, "
              "%d resumed" % (seed, rounds, fabrics, self.interrupted,
                              self.resumed), flush=True)
        self.assertGreaterEqual(min(self.interrupted, self.resumed), 2,
                                "no kill met work under way: nothing tested")

    def test_embedded(self):
        self.torture(harness.options.rounds or 30, harness.options.seed)

    def test_mpi(self):
        self.torture((harness.options.rounds or 30) // 3,
                     harness.options.seed + 1, ranks=3)


if __name__ == "__main__":
    harness.main()
