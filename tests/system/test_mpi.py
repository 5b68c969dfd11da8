# SPDX-License-Identifier: Apache-2.0
"""A run over several MPI ranks: signals, killed ranks, cost of waiting."""
import os
import signal
import time

import harness

RECOVER = ("--enable-recovery",)


class Mpi(harness.Case):
    def setUp(self):
        super().setUp()
        self.trace = harness.Trace(self.path("trace"))
        self.fabric = self.path("fabric")

    def gate_node(self, name, after=()):
        """A command node that waits until self.open_gate()."""
        return self.trace.node(name, after, "while [ ! -e '%s' ]; do "
                               "sleep 0.02; done" % self.path("gate"))

    def open_gate(self):
        self.write("gate", "")

    def close_gate(self):
        os.unlink(self.path("gate"))

    def wait_count(self, name, count=1):
        harness.wait_for(lambda: self.trace.counts().get(name, 0) >= count,
                         "%s started %d times" % (name, count))

    def ranks(self):
        """{rank: pid} of the flowmesh ranks, from their environment."""
        found = {}
        for pid in self.pids("flowmesh"):
            with open("/proc/%d/environ" % pid, "rb") as file:
                for entry in file.read().split(b"\0"):
                    name, _, value = entry.partition(b"=")
                    if name == b"OMPI_COMM_WORLD_RANK":
                        found[int(value)] = pid
        return found

    def rank_of_command(self):
        """The rank whose executor runs a command now."""
        ranks = {pid: rank for rank, pid in self.ranks().items()}
        parents = harness._parents()
        for pid in self.pids("sh"):
            while pid in parents and pid not in ranks:
                pid = parents[pid]
            if pid in ranks:
                return ranks[pid]
        self.fail("no command is running")
        return None

    def start_run(self, file, ranks=3, **more):
        return self.start("run", file, "--fabric", self.fabric, "--json",
                          ranks=ranks, **more)

    def test_stop_signals(self):
        """SIGTERM, SIGUSR1 and SIGINT stop cleanly; the run goes on later."""
        file = self.workflow("stop", [
            self.trace.node("first"), self.gate_node("waits", ["first"]),
            self.trace.node("end", ["waits"])])
        for times, signo in enumerate(
                (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT), 1):
            run = self.start_run(file)
            self.wait_count("waits", times)
            # mpirun turns its own SIGTERM into SIGKILL for slow ranks: send
            # it to rank 0, as Slurm does to every task of a step
            harness.kill(self.ranks()[0], signo)
            result = run.wait(60)
            self.assertIn("stopped by signal %d" % signo, result.err)
            self.assertIn('"state": "running"', result.out)
            self.assertNotEqual(result.status, 0)
            self.assertEqual(self.pids(), [], "left running")
            self.assertEqual(self.trace.counts(),
                             {"first": 1, "waits": times})
        self.open_gate()
        report = self.run_json(file, self.fabric, ranks=3)
        self.assertEqual((report["workflow"], report["state"]),
                         ("w1", "done"))
        self.assertEqual(self.trace.counts(),
                         {"first": 1, "waits": 4, "end": 1})

    def test_stop_embedded(self):
        file = self.workflow("stop", [
            self.trace.node("first"), self.gate_node("waits", ["first"])])
        run = self.start("run", file, "--fabric", self.fabric, "--json")
        self.wait_count("waits")
        harness.kill(run.pid, signal.SIGTERM)
        result = run.wait(60)
        self.assertEqual(result.status, 1)
        self.assertIn("stopped by signal 15", result.err)
        self.assertEqual(self.pids(), [])
        self.open_gate()
        report = self.run_json(file, self.fabric)
        self.assertEqual(report["workflow"], "w1")
        self.assertEqual(self.trace.counts(), {"first": 1, "waits": 2})

    def end_of(self, run):
        """Wait for the report; mpirun may hang beside a dead rank."""
        harness.wait_for(lambda: not run.running() or run.out().rstrip()
                         .endswith("}"), "the report of the run", 90)
        try:
            run.popen.wait(10)
        except harness.subprocess.TimeoutExpired:
            harness.kill_all(self.token)
        run.wait()
        return harness.json.loads(run.out())

    def test_killed_worker_is_survived(self):
        file = self.workflow("lose", [
            {"name": "items", "spec": {"taskType": "echo", "data": {
                "type": "list", "items": list(range(100))}}},
            self.gate_node("held", ["items"]),
            self.trace.node("end", ["held"])])
        run = self.start_run(file, ranks=4, mpi_args=RECOVER)
        self.wait_count("held")
        ranks = self.ranks()
        self.assertEqual(sorted(ranks), [0, 1, 2, 3])
        harness.kill(ranks[self.rank_of_command()])
        self.wait_count("held", 2)  # given to another
        self.open_gate()
        report = self.end_of(run)
        self.assertRegex(run.err(), "worker .* lost: silent")
        self.assertEqual(report["state"], "done")
        self.assertEqual(self.trace.counts(), {"held": 2, "end": 1})

    def test_all_workers_killed(self):
        """Nobody is left to run anything: the run ends and says so."""
        file = self.workflow("alone", [self.gate_node("held")])
        run = self.start_run(file, ranks=3, mpi_args=RECOVER)
        self.wait_count("held")
        # both have joined once both have a log
        harness.wait_for(lambda: len(self.pids("flowmesh-engine")) >= 2,
                         "both executors run")
        for rank, pid in self.ranks().items():
            if rank > 0:
                harness.kill(pid)
        report = self.end_of(run)
        self.assertIn("no worker is left", run.err())
        self.assertEqual(report["state"], "running")
        self.open_gate()
        self.assertEqual(self.run_json(file, self.fabric,
                                       ranks=3)["state"], "done")

    def test_killed_rank_0(self):
        file = self.workflow("head", [
            self.trace.node("first"), self.gate_node("held", ["first"])])
        for more in ((), RECOVER):
            run = self.start_run(file, mpi_args=more)
            self.trace.clear()
            self.wait_count("held")
            harness.kill(self.ranks()[0])
            if more:
                # nothing ends the other ranks here but themselves
                harness.wait_for(lambda: not self.pids("flowmesh"),
                                 "the workers of a dead rank 0 end", 60)
                harness.kill_all(self.token)
            run.wait(60)
            harness.wait_for(lambda: not self.pids(), "everything ends")
        self.trace.clear()
        self.open_gate()
        report = self.run_json(file, self.fabric, ranks=3)
        self.assertEqual((report["workflow"], report["state"]),
                         ("w1", "done"))
        self.assertEqual(self.trace.counts(), {"held": 1})

    def test_stopped_rank_0_loses_nobody(self):
        """A control plane that did not listen must not blame its workers."""
        file = self.workflow("pause", [self.gate_node("held")])
        run = self.start_run(file)
        self.wait_count("held")
        pid = self.ranks()[0]
        harness.kill(pid, signal.SIGSTOP)
        time.sleep(7)  # the stimulus: longer than the bound of silence, 5 s
        harness.kill(pid, signal.SIGCONT)
        self.open_gate()
        result = run.wait(60)
        self.assertEqual(result.status, 0, result.err)
        self.assertNotIn("lost", result.err)
        self.assertEqual(self.trace.counts(), {"held": 1})

    def cpu_seconds(self, pids):
        ticks = 0
        for pid in pids:
            with open("/proc/%d/stat" % pid, encoding="ascii") as file:
                fields = file.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def test_idle_cost(self):
        """Four ranks that wait use little of a core, all together."""
        file = self.workflow("idle", [self.gate_node("held")])
        run = self.start_run(file, ranks=4)
        self.wait_count("held")
        time.sleep(1)  # the back-off reaches its cap
        pids = list(self.ranks().values())
        self.assertEqual(len(pids), 4)
        cpu, start = self.cpu_seconds(pids), time.monotonic()
        time.sleep(6)
        share = ((self.cpu_seconds(pids) - cpu)
                 / (time.monotonic() - start))
        self.open_gate()
        self.assertEqual(run.wait(60).status, 0)
        print("idle: %.2f %% of a core, 4 ranks in sum" % (100 * share),
              flush=True)
        self.assertLess(share, 0.10)


if __name__ == "__main__":
    harness.main()
