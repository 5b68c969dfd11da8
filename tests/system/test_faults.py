# SPDX-License-Identifier: Apache-2.0
"""Executors that die, tasks that crash, hang and fail."""
import os
import stat

import harness

ENGINE = "flowmesh-engine"


def python(code, **more):
    return dict({"taskType": "python", "code": code}, **more)


class Faults(harness.Case):
    def setUp(self):
        super().setUp()
        self.trace = harness.Trace(self.path("trace"))
        self.fabric = self.path("fabric")

    def script(self, name, text):
        path = self.write(name, text)
        os.chmod(path, stat.S_IRWXU)
        return path

    def wait_count(self, name, count):
        harness.wait_for(lambda: self.trace.counts().get(name, 0) >= count,
                         "%s started %d times" % (name, count))

    def test_killed_executor_is_no_attempt(self):
        """More kills than a task has attempts: they are not counted as its."""
        gate = self.path("gate")
        node = self.trace.node("victim", [],
                               "while [ ! -e '%s' ]; do sleep 0.02; done"
                               % gate)
        file = self.workflow("killed", [node])
        run = self.start("run", file, "--fabric", self.fabric, "--json",
                         "--workers", "1")
        for times in range(1, 5):
            self.wait_count("victim", times)
            engines = self.pids(ENGINE)
            self.assertTrue(engines)
            for pid in engines:
                harness.kill(pid)
        self.wait_count("victim", 5)
        harness.wait_for(lambda: len(self.pids("sh")) == 1,
                         "the commands of killed executors end")
        self.write("gate", "")
        result = run.wait()
        self.assertEqual(result.status, 0, result.err)
        node = harness.nodes_of(result.json())["victim"]
        self.assertEqual((node["state"], node["ran"], node["error"]),
                         ("done", 1, None))
        self.assertEqual(self.trace.counts(), {"victim": 5})
        lineage = self.call("lineage", "killed/victim/0", "--fabric",
                            self.fabric).json()
        self.assertTrue(lineage["output"].startswith("sha256:"))

    def test_killed_executor_of_many_items(self):
        """Items of a batch that were not reported run again, once each."""
        items = list(range(4000))
        gate = self.path("gate")
        hold = self.trace.node("hold", [], "while [ ! -e '%s' ]; do "
                               "sleep 0.02; done" % gate)
        file = self.workflow("batch", [
            hold, {"name": "v", "spec": {
                "taskType": "echo", "data": {"type": "list",
                                             "items": items}}}])
        run = self.start("run", file, "--fabric", self.fabric, "--json",
                         "--workers", "2")
        self.wait_count("hold", 1)
        for pid in self.pids(ENGINE):
            harness.kill(pid)
        self.wait_count("hold", 2)
        self.write("gate", "")
        result = run.wait()
        self.assertEqual(result.status, 0, result.err)
        self.assertEqual(self.items("batch/v", self.fabric)["v"], items)

    def test_python_that_crashes(self):
        cases = {
            "segv": ("import ctypes\ndef main(inputs):\n"
                     "    ctypes.string_at(0)\n", "signal 11"),
            "exit": ("import os\ndef main(inputs):\n    os._exit(7)\n",
                     "exit status 7"),
            "raise": ("def main(inputs):\n    raise ValueError('no luck')\n",
                      "no luck"),
            "quiet": ("import os\ndef main(inputs):\n    os._exit(0)\n",
                      "before the function returned"),
            "nan": ("def main(inputs):\n    return float('nan')\n", "JSON"),
        }
        count = "\nopen(%r, 'a').write('%s\\n')\n"
        nodes = [{"name": name, "spec": python(
            code + count % (self.trace.path, name))}
                 for name, (code, _) in cases.items()]
        nodes.append({"name": "healthy", "spec": python(
            "def main(inputs):\n    return 1\n")})
        file = self.workflow("crashes", nodes)
        report = self.run_json(file, self.fabric, status=1)
        self.assertEqual(report["state"], "failed")
        nodes = harness.nodes_of(report)
        for name, (_, text) in cases.items():
            with self.subTest(name):
                self.assertEqual(nodes[name]["state"], "failed")
                self.assertIn(text, nodes[name]["error"])
                self.assertEqual(self.trace.counts()[name], 3)
        self.assertEqual(nodes["healthy"]["state"], "done")

    def test_hung_python_is_killed(self):
        file = self.workflow("hung", [{"name": "hung", "spec": python(
            "import time\n"
            "open(%r, 'a').write('hung\\n')\n"
            "def main(inputs):\n    time.sleep(100000)\n" % self.trace.path,
            timeoutSeconds=1)}])
        report = self.run_json(file, self.fabric, status=1)
        node = harness.nodes_of(report)["hung"]
        self.assertEqual(node["state"], "failed")
        self.assertRegex(node["error"], "1(\\.0*)? s|time")
        self.assertEqual(self.trace.counts(), {"hung": 3})
        self.assertEqual(self.pids(), [], "something was left running")

    def test_failure_fails_downstream_only(self):
        trace = self.trace
        file = self.workflow("branches", [
            trace.node("bad", [], "exit 3"),
            trace.node("after", ["bad"]), trace.node("later", ["after"]),
            trace.node("good", [], "sleep 0.1"),
            trace.node("fine", ["good"], "sleep 0.1"),
            trace.node("last", ["fine"]),
            trace.node("both", ["last", "bad"])])
        report = self.run_json(file, self.fabric, status=1)
        states = {name: node["state"] for name, node in
                  harness.nodes_of(report).items()}
        self.assertEqual(states, {
            "bad": "failed", "after": "failed", "later": "failed",
            "good": "done", "fine": "done", "last": "done",
            "both": "failed"})
        self.assertEqual(trace.counts(),
                         {"bad": 3, "good": 1, "fine": 1, "last": 1})
        self.assertIn("exit status 3",
                      harness.nodes_of(report)["bad"]["error"])
        # a failure is not remembered: the same file tries again, the rest
        # is shared
        again = self.run_json(file, self.fabric, status=1)
        self.assertEqual(trace.counts(),
                         {"bad": 6, "good": 1, "fine": 1, "last": 1})
        self.assertEqual(again["operators"]["shared"], 3)

    def test_failure_that_passes(self):
        """Fails twice, then works: three attempts are enough."""
        count = self.path("attempts")
        file = self.workflow("flaky", [self.trace.node(
            "flaky", [], "echo x >> '%s'; [ $(wc -l < '%s') -ge 3 ] || exit 9"
            % (count, count))])
        report = self.run_json(file, self.fabric)
        self.assertEqual(report["state"], "done")
        self.assertEqual(self.trace.counts(), {"flaky": 3})

    def test_follower_takes_over(self):
        """Two nodes want one key; the first try fails, neither does."""
        mark = self.path("mark")
        node = self.trace.node(
            "same", [], "[ -e '%s' ] || { : > '%s'; exit 1; }" % (mark, mark))
        file = self.workflow("follow", [
            node, dict(node, name="other"),
            self.trace.node("end", ["same", "other"])])
        report = self.run_json(file, self.fabric)
        self.assertEqual(report["state"], "done")
        self.assertEqual(self.trace.counts(), {"same": 2, "end": 1})

    def test_no_executor_that_works(self):
        """Nothing can ever run: the run must end, say why, and resume."""
        scripts = {
            "dead": ("echo no device >&2\nexit 4\n", "exit status 4"),
            "odd": ("echo '{not json'\nsleep 1000\n", "reply:1:4:"),
        }
        runs = {}
        for name, (script, _) in scripts.items():
            file = self.workflow(name, [self.trace.node(name)])
            executor = self.script(name, "#!/bin/sh\n" + script)
            runs[name] = self.start("run", file, "--fabric", self.path(
                "fabric-" + name), "--executor", executor, "--workers", "1",
                "--json")
        for name, run in runs.items():
            with self.subTest(name):
                result = run.wait()
                self.assertEqual(result.status, 1, result.err)
                self.assertIn(scripts[name][1], result.err)
                self.assertIn("no worker is left", result.err)
                self.assertEqual(result.json()["state"], "running")
                # with a working executor the same run goes on
                report = self.run_json(self.path(name + ".yaml"),
                                       self.path("fabric-" + name))
                self.assertEqual(report["workflow"], "w1")
        self.assertEqual(self.trace.counts(), {name: 1 for name in runs})
        self.assertEqual(self.pids(), [])

    def test_executor_that_is_absent(self):
        file = self.workflow("absent", [self.trace.node("a")])
        result = self.call("run", file, "--fabric", self.fabric, "--executor",
                           self.path("nothing-here"), "--workers", "1",
                           status=None)
        self.assertIn(result.status, (1, 3))
        self.assertIn("nothing-here", result.err)


if __name__ == "__main__":
    harness.main()
