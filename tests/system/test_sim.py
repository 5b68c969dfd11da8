# SPDX-License-Identifier: Apache-2.0
"""flowmesh sim: an example from end to end, twice the same; plots; refusals."""
import gzip
import json
import os
import shutil
import xml.etree.ElementTree

import harness

PLOTS = ["cost", "energy", "latency", "utilisation", "timeline"]
POLICIES = ["flowmesh", "static_worker", "fixed_pipeline", "round_robin",
            "adaptive"]


class Sim(harness.Case):
    def example(self, name):
        return os.path.join(harness.options.source, "examples", "scenarios",
                            name + ".yaml")

    def sim(self, *args, **more):
        return self.call("sim", *args, **more)

    def test_example_twice(self):
        first = self.sim(self.example("small"), "--json", self.path("1.json"))
        again = self.sim(self.example("small"), "--json", self.path("2.json"))
        self.assertEqual(first.out, again.out)
        texts = []
        for name in ("1.json", "2.json"):
            with open(self.path(name), encoding="utf-8") as file:
                texts.append(file.read())
        self.assertEqual(texts[0], texts[1])
        runs = {run["name"]: run for run in json.loads(texts[0])["runs"]}
        self.assertEqual(list(runs), POLICIES)
        for run in runs.values():
            self.assertTrue(run["complete"], run["name"])
            self.assertEqual((run["done"], run["failed"]), (12, 0))
            # a fixed fleet is paid from the first arrival to the last end
            hours = run["makespan_s"] / 3600
            self.assertAlmostEqual(run["cost"], hours * (0.69 + 0.86 + 1.89),
                                   delta=0.02 * run["cost"])
        self.assertGreater(runs["flowmesh"]["operators"]["shared"], 0)
        self.assertEqual(runs["adaptive"]["operators"]["shared"], 0)
        self.assertLess(runs["flowmesh"]["operators"]["ran"],
                        runs["adaptive"]["operators"]["ran"])

    def test_options(self):
        result = self.sim(self.example("small"), "--policy", "adaptive",
                          "--seed", 9, "--set", "workload.overlap=0",
                          "--set", "workload.arrival.count=3", "--json",
                          "-").json()
        self.assertEqual([run["policy"] for run in result["runs"]],
                         ["adaptive"])
        self.assertEqual(result["runs"][0]["seed"], 9)
        self.assertEqual(result["runs"][0]["submitted"], 3)
        self.assertNotIn("plan_s", result["runs"][0]["planner"])

    def test_examples(self):
        for name in ("autoscaling", "failures"):
            result = self.sim(self.example(name), "--json", "-").json()
            for run in result["runs"]:
                self.assertTrue(run["complete"], "%s: %s" % (name, run["name"]))
                self.assertEqual(run["failed"], 0)

    def test_trace(self):
        path = self.path("requests.csv.gz")
        with gzip.open(path, "wt", encoding="ascii") as file:
            file.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
            for i in range(50):
                file.write("2023-11-16 18:%02d:%02d.5,%d,%d\n" % (
                    i // 60, i % 60, 100 + i, 10 + i))
        result = self.sim(self.example("trace"), "--trace", path, "--json",
                          "-").json()
        for run in result["runs"]:
            self.assertEqual((run["submitted"], run["done"]), (50, 50))
        missing = self.sim(self.example("trace"), "--trace", "nowhere.gz",
                           status=2)
        self.assertIn("nowhere.gz: no such trace", missing.err)

    def test_plots(self):
        folder = self.path("plots")
        if shutil.which("gnuplot") is None:
            self.skipTest("no gnuplot: apt-get install gnuplot-nox")
        self.sim(self.example("small"), "--plots", folder)
        for plot in PLOTS:
            file = os.path.join(folder, plot + ".svg")
            root = xml.etree.ElementTree.parse(file).getroot()
            self.assertTrue(root.tag.endswith("svg"), file)
            self.assertGreater(os.path.getsize(file), 4000)
        with open(os.path.join(folder, "latency.svg"),
                  encoding="utf-8") as file:
            text = file.read()
        for policy in POLICIES:
            self.assertIn(policy, text)

    def test_no_gnuplot(self):
        empty = self.path("empty")
        os.mkdir(empty)
        result = self.sim(self.example("small"), "--plots", self.path("p"),
                          status=1, env={"PATH": empty})
        self.assertIn("gnuplot-nox", result.err)
        self.assertTrue(os.path.exists(self.path("p", "plots.gp")))

    def test_refusals(self):
        file = self.write("bad.yaml", "apiVersion: flowmesh/v1\n"
                          "kind: Scenario\nclustre: {}\n")
        result = self.sim(file, status=2)
        self.assertIn("bad.yaml:3:1: unknown key clustre", result.err)
        self.assertIn("did you mean cluster?", result.err)
        result = self.sim(self.example("small"), "--policy", "best", status=2)
        self.assertIn("allowed: flowmesh", result.err)
        result = self.sim(self.example("small"), "--set", "seed=many",
                          status=2)
        self.assertIn("seed is", result.err)
        self.sim(self.path("absent.yaml"), status=2)


if __name__ == "__main__":
    harness.main()
