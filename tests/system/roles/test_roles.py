# SPDX-License-Identifier: Apache-2.0
"""The roles end to end, with executors that are not ours or that fail.

Every process is bounded by its time-out and killed with its test; files lie
in a temporary directory of the test.  Waits are for conditions.
"""
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
BOUND_S = 120
HEAD = "apiVersion: flowmesh/v1\nkind: Workflow\nmetadata: {name: t}\nspec:\n"
TRAIN = HEAD + """  taskType: sft
  model:
    source: {type: random}
    seed: 1
    config: {hidden_size: 64, num_hidden_layers: 2, intermediate_size: 128,
             max_position_embeddings: 256}
  data: {items: [{text: the quick brown fox jumps over the lazy dog},
                 {text: pack my box with five dozen liquor jugs}]}
  training: {steps: STEPS, save_steps: 50, batch_size: 2, max_seq_length: 64,
             seed: 3}
"""
options = None


class Roles(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.dir = self.scratch.name
        self.trace = os.path.join(self.dir, "trace")
        self.tmp = os.path.join(self.dir, "tmp")
        os.mkdir(self.tmp)

    def start(self, text, fabric, executor, workers=1):
        path = os.path.join(self.dir, "wf.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        env = {name: value for name, value in os.environ.items()
               if not name.startswith(("OMPI_", "PMI", "SLURM_", "FLOWMESH_"))}
        env.update(FM_TEST_TRACE=self.trace, TMPDIR=self.tmp)
        argv = [os.path.join(options.bin, "flowmesh"), "run", path, "--json",
                "--fabric", os.path.join(self.dir, fabric),
                "--workers", str(workers)]
        argv += ["--executor", executor] if executor else []
        process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, cwd=HERE)
        self.addCleanup(process.communicate)
        self.addCleanup(process.kill)
        return process

    def finish(self, process, status):
        out, err = process.communicate(timeout=BOUND_S)
        self.assertEqual(process.returncode, status, err.decode())
        self.assertEqual(os.listdir(self.tmp), [], "work directories stay")
        return json.loads(out) if out.strip() else None

    def outputs(self, fabric):
        out = subprocess.run(
            [os.path.join(options.bin, "flowmesh"), "result", "t", "--json",
             "--fabric", os.path.join(self.dir, fabric)],
            check=True, capture_output=True, timeout=BOUND_S).stdout
        return [item["output"] for item in
                json.loads(out)["nodes"][-1]["items"]]

    def traced(self):
        if not os.path.exists(self.trace):
            return []
        with open(self.trace, encoding="utf-8") as file:
            return [json.loads(line) for line in file
                    if line.endswith("\n")]

    def wait_for(self, condition, process):
        deadline = time.monotonic() + BOUND_S
        while not condition():
            self.assertIsNone(process.poll(), "ended too early")
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.01)

    # --- files ------------------------------------------------------------

    def test_objects_as_files(self):
        """Items over 64 KiB are staged, outputs by path are stored."""
        long = "a" * 70000
        text = HEAD + "  taskType: echo\n  data: {items: ['70001', '5', %s]}\n"
        report = self.finish(self.start(text % long, "f",
                                        "python3 files.py"), 0)
        self.assertEqual(report["operators"]["ran"], 3)
        self.assertEqual(self.outputs("f"), ["x" * 70001, "xxxxx", "70000"])
        staged = self.traced()
        self.assertEqual(len(staged), 1)
        self.assertEqual(os.path.dirname(os.path.dirname(
            staged[0]["staged"])), staged[0]["cwd"])
        self.assertTrue(staged[0]["cwd"].startswith(self.tmp))
        segments = os.listdir(os.path.join(self.dir, "f", "cas", "segments"))
        self.assertTrue([name for name in segments if "-files-" in name],
                        segments)

    def test_bad_files_are_the_tasks_fault(self):
        text = HEAD + "  taskType: echo\n  data: {items: [%s]}\n"
        for value, why in (("broken", "out-0.json:1:"),
                           ("outside", "not a file below the work directory")):
            report = self.finish(self.start(text % value, value,
                                            "python3 files.py"), 1)
            self.assertIn(why, report["nodes"][0]["error"])

    # --- poison -----------------------------------------------------------

    def test_poison_fails_alone(self):
        names = ["n%d" % i for i in range(15)]
        values = names[:7] + ["poison"] + names[7:]
        text = HEAD + "  taskType: echo\n  data: {items: [%s]}\n"
        report = self.finish(self.start(text % ", ".join(values), "f",
                                        "python3 poison.py"), 1)
        self.assertEqual(report["operators"],
                         {"planned": 16, "ran": 15, "shared": 0, "failed": 1})
        self.assertIn("signal 11", report["nodes"][0]["error"])
        # what its mates gave is in the fabric: nothing of it runs again
        report = self.finish(self.start(text % ", ".join(names), "f",
                                        "python3 poison.py"), 0)
        self.assertEqual(report["operators"]["ran"], 0)
        self.assertEqual(report["operators"]["shared"], 15)

    # --- drained ----------------------------------------------------------

    def test_sigterm_keeps_the_training(self):
        text = TRAIN.replace("STEPS", "600")
        self.finish(self.start(text, "whole", None), 0)
        whole = self.outputs("whole")
        engine = "python3 record.py %s/flowmesh-engine --writer eng%s " \
            "--fabric " + os.path.join(self.dir, "cut")
        process = self.start(text, "cut", engine % (options.bin, 1))
        self.wait_for(lambda: any(entry["type"] == "progress" for entry in
                                  self.traced()), process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=BOUND_S)
        self.assertNotEqual(process.returncode, 0)
        first = self.traced()
        self.assertIn("stop", [entry["type"] for entry in first])
        self.assertEqual(first[-1]["type"], "done")
        self.assertNotIn("item", [entry["type"] for entry in first])
        saved = [entry for entry in first if entry["type"] == "checkpoint"]
        os.unlink(self.trace)
        report = self.finish(self.start(text, "cut",
                                        engine % (options.bin, 2)), 0)
        second = self.traced()
        run = [entry for entry in second if entry["type"] == "run"]
        self.assertEqual(run[0]["checkpoint"], saved[-1]["digest"])
        steps = [entry["metrics"]["step"] for entry in second
                 if entry["type"] == "progress"]
        self.assertGreater(steps[0], saved[-1]["step"])
        self.assertEqual(self.outputs("cut"), whole)
        self.assertEqual(report["operators"]["failed"], 0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    options, rest = parser.parse_known_args()
    unittest.main(argv=sys.argv[:1] + rest)
