# SPDX-License-Identifier: Apache-2.0
"""Workers of other jobs: they join a running fabric, share its work, leave
when told, are replaced when they die, and follow a control plane that was
killed and started again.
"""
import json
import os
import signal

import harness


class Join(harness.Case):
    def setUp(self):
        super().setUp()
        self.trace = harness.Trace(self.path("trace"))
        self.fabric = self.path("fabric")

    def graph(self, count, script):
        return self.workflow("join", [
            self.trace.node("n%d" % i, (), script) for i in range(count)])

    def serve(self, file, **how):
        """A run that listens on loopback, once it says where."""
        run = self.start("run", file, "--fabric", self.fabric, "--workers",
                         "1", "--listen", "lo", **how)
        harness.wait_for(lambda: self.instance() is not None or
                         not run.running(), "control.json")
        return run

    def instance(self):
        try:
            with open(os.path.join(self.fabric, "control.json"),
                      encoding="utf-8") as file:
                return json.load(file)["instance"]
        except (OSError, ValueError):
            return None

    def join(self, number=0, **how):
        env = dict(how.pop("env", {}), SLURM_PROCID=str(number), FM_LOG="info")
        return self.start("join", "--fabric", self.fabric, env=env, **how)

    def test_shares_the_work(self):
        """Two more workers run what one cannot: three nodes that wait for
        each other."""
        meet = ("touch '%s'.$$; while [ $(ls '%s'.* | wc -l) -lt 3 ]; do "
                "sleep 0.02; done" % (self.path("here"), self.path("here")))
        run = self.serve(self.graph(3, meet))
        joined = [self.join(number) for number in range(2)]
        self.assertEqual(run.wait().status, 0)
        for process in joined:
            self.assertEqual(process.wait().status, 0)
        self.assertEqual(set(self.trace.counts().values()), {1})
        self.assertIsNone(self.instance())

    def test_keys_are_private(self):
        run = self.serve(self.graph(1, "sleep 0.5"))
        key = os.path.join(self.fabric, "keys", "cell.key")
        self.assertEqual(os.stat(key).st_mode & 0o7777, 0o600)
        self.assertEqual(
            os.stat(os.path.dirname(key)).st_mode & 0o7777, 0o700)
        os.chmod(key, 0o644)
        refused = self.join().wait()
        self.assertEqual(refused.status, 3)
        self.assertIn("chmod 600", refused.err)
        self.assertEqual(run.wait().status, 0)

    def test_nothing_to_join(self):
        self.call("run", self.graph(1, ":"), "--fabric", self.fabric)
        result = self.call("join", "--fabric", self.fabric, "--wait", "0",
                           status=3)
        self.assertIn("control.json", result.err)

    def test_leaves_when_told(self):
        """SIGTERM: what it had is handed back and runs elsewhere."""
        run = self.serve(self.graph(8, "sleep 0.4"))
        cell = self.join()
        harness.wait_for(lambda: "joining" in cell.err(), "a join")
        harness.wait_for(lambda: len(self.pids("flowmesh-engine")) >= 2,
                         "its executor")
        harness.kill(cell.pid, signal.SIGTERM)
        self.assertEqual(cell.wait().status, 0)
        self.assertEqual(run.wait().status, 0)

    def test_dies(self):
        """kill -9 of a cell with all it started: its work runs elsewhere."""
        run = self.serve(self.graph(8, "sleep 0.4"))
        cell = self.join()
        harness.wait_for(lambda: len(self.pids("flowmesh-engine")) >= 2,
                         "its executor")
        harness.wait_for(lambda: len(self.trace.counts()) >= 3, "some work")
        harness.kill(cell.pid)
        result = run.wait()
        self.assertEqual(result.status, 0, result.err)
        self.assertEqual(len(self.trace.counts()), 8)

    def test_follows_the_control_plane(self):
        """The control plane is killed and started again: the cell goes on."""
        file = self.graph(20, "sleep 0.3")
        first = self.serve(file)
        cell = self.join()
        harness.wait_for(lambda: len(self.pids("flowmesh-engine")) >= 2,
                         "its executor")
        harness.wait_for(lambda: len(self.trace.counts()) >= 4, "some work")
        before = self.instance()
        harness.kill(first.pid)
        first.wait()
        second = self.start("run", file, "--fabric", self.fabric, "--workers",
                            "1", "--listen", "lo")
        harness.wait_for(lambda: self.instance() not in (None, before),
                         "the next instance")
        harness.wait_for(lambda: cell.err().count("joining instance") == 2 or
                         not second.running(), "the cell to follow")
        self.assertEqual(cell.err().count("joining instance"), 2)
        self.assertEqual(second.wait().status, 0)
        self.assertEqual(cell.wait().status, 0)
        self.assertEqual(len(self.trace.counts()), 20)
        self.assertLessEqual(sum(self.trace.counts().values()), 22)


if __name__ == "__main__":
    harness.main()
