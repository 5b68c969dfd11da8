# SPDX-License-Identifier: Apache-2.0
"""Damage to the store and the journal: named, set aside, made again."""
import hashlib
import os
import random
import re
import shutil

import harness

BIG = 200000  # bytes: beyond what travels in a message, so a segment holds it


class Store(harness.Case):
    def setUp(self):
        super().setUp()
        self.trace = harness.Trace(self.path("trace"))
        self.fabric = self.path("fabric")
        self.rng = random.Random(harness.options.seed)

    def big_node(self, name, after=()):
        """A large object that no compressor can shrink: printed by python."""
        return {"name": name, "dependsOn": list(after), "spec": {
            "taskType": "python",
            "code": "import hashlib\n"
                    "open(%r, 'a').write('%s\\n')\n"
                    "def main(inputs):\n"
                    "    return ''.join(hashlib.sha512(b'%s%%d' %% i)"
                    ".hexdigest() for i in range(%d))\n"
                    % (self.trace.path, name, name, BIG // 128)}}

    def segments(self):
        folder = os.path.join(self.fabric, "cas", "segments")
        return sorted(os.path.join(folder, name)
                      for name in os.listdir(folder) if name.endswith(".h5"))

    def build(self):
        """Three large objects, small items, a reader; the results."""
        self.file = self.workflow("build", [
            self.big_node("x"), self.big_node("y"), self.big_node("z"),
            {"name": "small", "spec": {"taskType": "echo", "data": {
                "type": "list", "items": ["tiny %d" % i
                                          for i in range(30)]}}},
            {"name": "reads", "dependsOn": ["x"], "spec": {
                "taskType": "echo",
                "data": {"type": "node", "node": "x"}}},
            self.trace.node("last", ["y", "z", "small"])])
        self.run_json(self.file, self.fabric, "--workers", "1")
        self.expected = self.call("result", "build", "--fabric", self.fabric,
                                  "--json").out
        self.assertEqual(set(self.trace.counts().values()), {1})
        self.trace.clear()
        self.assertTrue(self.segments())

    def digest(self, target):
        return self.call("lineage", target + "/0", "--fabric",
                         self.fabric).json()["output"]

    def same_results(self):
        now = self.call("result", "build", "--fabric", self.fabric,
                        "--json").out
        drop = re.compile(r'"workflow": "w\d+"')
        self.assertEqual(drop.sub("", now), drop.sub("", self.expected))

    def flip(self, path, position):
        with open(path, "r+b") as file:
            file.seek(position)
            byte = file.read(1)
            file.seek(position)
            file.write(bytes([byte[0] ^ (1 << self.rng.randrange(8))]))

    def raw(self, path, name):
        """Where a file holds the output of x, y or z, or None.

        The item of "reads" holds that of x as well, after a colon."""
        with open(path, "rb") as file:
            data = file.read()
        text = hashlib.sha512(b"%s0" % name.encode()).hexdigest().encode()
        start = data.find(text)
        while start > 1 and data[start - 2:start] == b':"':
            start = data.find(text, start + 1)
        return None if start < 0 else (start, BIG - 1000)

    def test_one_flipped_byte_of_an_object(self):
        """The object is named; it alone is made again."""
        self.build()
        for name in ("x", "y", "z"):
            with self.subTest(name):
                digest = self.digest("build/" + name)
                places = [(path, self.raw(path, name))
                          for path in self.segments()]
                places = [(path, at) for path, at in places if at]
                self.assertTrue(places, "no segment holds %s as it is" % name)
                for path, (start, length) in places:
                    self.flip(path, start + self.rng.randrange(length))
                for more in (["--report-only"], []):
                    result = self.call("cas", "verify", "--fabric",
                                       self.fabric, *more, status=1)
                    self.assertIn("BAD " + digest, result.out)
                    self.assertEqual(result.out.count("BAD"), len(places))
                self.call("cas", "get", digest, "--fabric", self.fabric,
                          status=1)
                self.call("cas", "verify", "--fabric", self.fabric)
                self.trace.clear()
                report = self.run_json(self.file, self.fabric,
                                       "--workers", "1")
                self.assertEqual(self.trace.counts(), {name: 1})
                # "reads" echoes x, so its output is the same object
                self.assertEqual(report["operators"]["ran"],
                                 2 if name == "x" else 1)
                self.same_results()

    def test_flipped_byte_found_by_a_reader(self):
        """Nobody verified: who reads the bytes finds out, and has them made
        again."""
        self.build()
        for path in self.segments():
            at = self.raw(path, "y")
            if at:
                self.flip(path, at[0] + self.rng.randrange(at[1]))
        result = self.call("result", "build/y", "--fabric", self.fabric,
                           status=1)
        self.assertIn(self.digest("build/y"), result.err)
        file = self.workflow("reader", [
            self.big_node("y"),
            {"name": "r", "dependsOn": ["y"], "spec": {
                "taskType": "echo", "data": {"type": "node", "node": "y"}}}])
        self.trace.clear()
        report = self.run_json(file, self.fabric)
        self.assertEqual(report["state"], "done")
        self.assertEqual(self.trace.counts(), {"y": 1})
        self.same_results()

    def test_flipped_bytes_anywhere(self):
        """Any byte of any segment: it is noticed or was never read."""
        self.build()
        clean = self.path("clean")
        shutil.copytree(self.fabric, clean)
        noticed = 0
        rounds = harness.options.rounds or 10
        for turn in range(rounds):
            shutil.rmtree(self.fabric)
            shutil.copytree(clean, self.fabric)
            self.trace.clear()
            for path in self.segments():
                self.flip(path, self.rng.randrange(os.path.getsize(path)))
            result = self.call("cas", "verify", "--fabric", self.fabric,
                               status=None)
            self.assertIn(result.status, (0, 1), result.err)
            noticed += result.status
            if result.status:
                self.assertIn("BAD", result.out)
            report = self.run_json(self.file, self.fabric)
            self.assertEqual(report["state"], "done", turn)
            if not result.status:
                self.assertEqual(self.trace.counts(), {}, turn)
            self.same_results()
            # a structure that only HDF5 tools would miss stays reported
            result = self.call("cas", "verify", "--fabric", self.fabric,
                               status=None)
            self.assertIn(" 0 bad objects", result.out)
        print("%d of %d flips noticed" % (noticed, rounds), flush=True)
        self.assertGreater(noticed, rounds // 2)

    def test_deleted_segment(self):
        self.build()
        for path in self.segments():
            self.trace.clear()
            kept = path + ".kept"
            holds = {name for name in ("x", "y", "z")
                     if [other for other in self.segments()
                         if self.raw(other, name)] == [path]}
            os.rename(path, kept)
            result = self.call("run", self.file, "--fabric", self.fabric)
            self.assertEqual(set(self.trace.counts()), holds)
            self.assertEqual("the store has lost" in result.err, bool(holds))
            self.same_results()
            # the segment comes back: copies are no trouble
            os.rename(kept, path)
            self.call("cas", "verify", "--fabric", self.fabric)
            self.same_results()

    def test_store_is_gone(self):
        self.build()
        shutil.rmtree(os.path.join(self.fabric, "cas"))
        self.call("run", self.file, "--fabric", self.fabric)
        self.assertEqual(self.trace.counts(), {"x": 1, "y": 1, "z": 1})
        self.same_results()

    def journal(self):
        folder = os.path.join(self.fabric, "journal")
        files = sorted(name for name in os.listdir(folder)
                       if name.endswith(".fmj"))
        return os.path.join(folder, files[-1])

    def test_truncated_journal(self):
        """Cut anywhere, the fabric opens and the run goes on."""
        self.build()
        clean = self.path("clean")
        shutil.copytree(self.fabric, clean)
        size = os.path.getsize(self.journal())
        rounds = harness.options.rounds or 12
        cuts = [size - 1, size // 2] + [self.rng.randrange(64, size)
                                        for _ in range(rounds)]
        for cut in cuts:
            with self.subTest(cut=cut):
                shutil.rmtree(self.fabric)
                shutil.copytree(clean, self.fabric)
                self.trace.clear()
                os.truncate(self.journal(), cut)
                report = self.run_json(self.file, self.fabric)
                self.assertEqual(report["state"], "done")
                self.same_results()
                self.assertLessEqual(set(self.trace.counts().values()), {1})
                self.call("cas", "verify", "--fabric", self.fabric)

    def test_journal_of_another_program(self):
        """Bytes that no version wrote: refused, and left as they are."""
        self.build()
        path = self.journal()
        with open(path, "r+b") as file:
            file.write(b"not a journal at all")
        with open(path, "rb") as file:
            before = file.read()
        result = self.call("run", self.file, "--fabric", self.fabric,
                           status=3)
        self.assertIn(os.path.basename(path), result.err)
        with open(path, "rb") as file:
            self.assertEqual(file.read(), before)


if __name__ == "__main__":
    harness.main()
