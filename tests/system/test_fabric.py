# SPDX-License-Identifier: Apache-2.0
"""The fabric's configuration: where it is read from, what a bad one is told,
and that prices and quotas decide what they should."""
import os
import re

import harness

HEAD = "apiVersion: flowmesh/v1\nkind: Fabric\n"


def prices(w1, w2):
    """Cost weighs most: what was learned of one worker is not to matter."""
    return HEAD + (
        "scheduler: {lambda: {other: 0.1}}\n"
        "classes:\n"
        "- {name: left, workers: w1, price_per_hour: %g, watts: 100}\n"
        "- {name: right, workers: w2, price_per_hour: %g, watts: 10}\n"
        % (w1, w2))


class Fabric(harness.Case):
    def setUp(self):
        super().setUp()
        self.trace = harness.Trace(self.path("trace"))
        self.fabric = self.path("fabric")

    def chain(self, name, count, first=":"):
        """One node at a time, so that every worker is idle for each."""
        nodes = []
        for i in range(count):
            after = [nodes[-1]["name"]] if nodes else []
            nodes.append(self.trace.node("%s%d" % (name, i), after,
                                         ":" if nodes else first))
        return self.workflow(name, nodes)

    def executions(self, target, count):
        """What lineage says of each node's run."""
        found = []
        for i in range(count):
            report = self.call("lineage", "%s/%s%d" % (target, target, i),
                               "--fabric", self.fabric).json()
            found.append(report[0]["execution"])
        return found

    # --- where it is read from, and refusals ------------------------------

    def refused(self, match, *args, **more):
        file = self.chain("plain", 1)
        result = self.call("run", file, "--fabric", self.fabric, *args,
                           status=2, **more)
        self.assertRegex(result.err, match)
        self.assertEqual(result.out, "")
        self.assertEqual(self.trace.counts(), {})
        return result

    def test_a_bad_file_is_refused(self):
        bad = self.write("bad.yaml", HEAD + "tenants:\n- {name: a, weigth: 2}\n")
        where = re.escape(bad) + ":4:13: unknown key weigth"
        for more in ({}, {"ranks": 3}):
            with self.subTest(**more):
                result = self.refused(where, "--config", bad, **more)
                self.assertIn("did you mean weight?", result.err)
                self.assertFalse(os.path.exists(self.fabric))
        self.refused(where, env={"FLOWMESH_CONFIG": bad})
        missing = self.path("missing.yaml")
        self.refused(re.escape(missing), "--config", missing)
        # the option is asked before the environment
        good = self.write("good-config.yaml", HEAD)
        self.call("run", self.chain("good", 1), "--fabric", self.fabric,
                  "--config", good, env={"FLOWMESH_CONFIG": bad})

    def test_the_fabrics_own_file(self):
        os.mkdir(self.fabric)
        own = self.write("fabric/fabric.yaml", HEAD + "policy: luck\n")
        self.refused(re.escape(own) + ":3:9: policy is \"luck\"; allowed: ")
        self.write("fabric/fabric.yaml", HEAD + "policy: flowmesh\n")
        self.call("run", self.chain("plain", 1), "--fabric", self.fabric)

    def test_devices(self):
        file = self.write("two.yaml", prices(3, 4) +
                          "tenants: [{name: a, devices_max: 2}]\n")
        text = self.call("devices", "--config", file).out
        self.assertRegex(text, r"(?m)^h100-sxm-80g +gpu +80 ")
        self.assertRegex(text, r"(?m)^left .* 3 +100 .*workers w1$")
        self.assertRegex(text, r"(?m)^a +weight 1, at most 2 devices$")
        report = self.call("devices", "--config", file, "--json").json()
        self.assertEqual(report["configuration"]["classes"][1]
                         ["price_per_hour"], 4)
        self.assertTrue(all("price:" in row["source"]
                            for row in report["catalogue"]))
        self.assertIn("list price", self.call("devices", "--sources").out)

    # --- what it decides ---------------------------------------------------

    def test_prices_choose_the_worker(self):
        count = 8
        for name, file, cheap in (("a", prices(100, 1), "w2"),
                                  ("b", prices(1, 100), "w1")):
            config = self.write(name + "-config.yaml", file)
            self.fabric = self.path("fabric-" + name)
            go = self.path("go-" + name)
            process = self.start(
                "run", self.chain(name, count,
                                  "while [ ! -e %s ]; do sleep 0.05; done" % go),
                "--fabric", self.fabric, "--workers", 2, "--config", config)
            harness.wait_for(lambda: len(self.pids("flowmesh-engine")) >= 2,
                             "both workers")
            self.write("go-" + name, "")
            self.assertEqual(process.wait().status, 0)
            runs = self.executions(name, count)
            # from when the cheap worker has joined, it alone is given work
            while runs and not runs[0]["worker"].endswith("/" + cheap):
                del runs[0]
            self.assertGreaterEqual(len(runs), 1)
            for run in runs:
                self.assertTrue(run["worker"].endswith("/" + cheap),
                                run["worker"])
                # one dollar an hour, at the watts of its class
                self.assertAlmostEqual(run["dollars"], run["seconds"] / 3600,
                                       delta=1e-9)
                self.assertAlmostEqual(
                    run["joules"],
                    run["seconds"] * (10 if cheap == "w2" else 100),
                    delta=1e-6)
                self.assertEqual(run["placement"]["on"]["class"],
                                 "right" if cheap == "w2" else "left")

    def test_a_tenants_devices_are_counted(self):
        config = self.write("quota.yaml", HEAD + "tenants:\n"
                            "- {name: small, devices_max: 1}\n")
        log = self.path("log")
        nodes = [{"name": "n%d" % i, "spec": {
            "taskType": "command", "command": [
                "sh", "-c", "echo in >> '%s'; sleep 0.1; echo out >> '%s'; "
                "echo %d" % (log, log, i)]}} for i in range(6)]
        file = self.workflow("many", nodes, owner="small")
        self.call("run", file, "--fabric", self.fabric, "--workers", 3,
                  "--config", config)
        with open(log, encoding="utf-8") as lines:
            self.assertEqual(lines.read().split(), ["in", "out"] * 6)
        # who is not named has no quota, and the same work was shared
        report = self.run_json(self.workflow("again", nodes, owner="other"),
                               self.fabric, "--config", config)
        self.assertEqual(report["operators"]["shared"], 6)

    def test_the_worker_knows_best(self):
        config = self.write("dear.yaml", prices(100, 100))
        self.call("run", self.chain("own", 1), "--fabric", self.fabric,
                  "--workers", 2, "--config", config,
                  env={"FLOWMESH_PRICE_PER_HOUR": "7", "FLOWMESH_WATTS": "3"})
        run = self.executions("own", 1)[0]
        self.assertAlmostEqual(run["dollars"], run["seconds"] * 7 / 3600,
                               delta=1e-9)
        self.assertAlmostEqual(run["joules"], run["seconds"] * 3, delta=1e-6)


if __name__ == "__main__":
    harness.main()
