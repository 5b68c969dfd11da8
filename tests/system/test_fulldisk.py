# SPDX-License-Identifier: Apache-2.0
"""A full disk: a clear end, nothing acknowledged lost, then on it goes."""
import os
import subprocess
import unittest

import harness

DISK_BYTES = 3 << 20


class FullDisk(harness.Case):
    def setUp(self):
        super().setUp()
        self.disk = self.path("disk")
        self.trace = harness.Trace(self.path("trace"))
        self.fabric = os.path.join(self.disk, "fabric")
        os.mkdir(self.disk)
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=%d" % DISK_BYTES, "flowmesh",
             self.disk], capture_output=True, check=False)
        if made.returncode != 0:
            raise unittest.SkipTest("cannot mount a tmpfs (root only): "
                                    + made.stderr.decode().strip())
        self.addCleanup(self.unmount)

    def unmount(self):
        harness.kill_all(self.token)
        subprocess.run(["umount", "-l", self.disk], check=True)

    def ballast(self, leave_bytes):
        """Fill the disk but for leave_bytes."""
        stat = os.statvfs(self.disk)
        free = stat.f_bavail * stat.f_frsize
        with open(os.path.join(self.disk, "ballast"), "wb") as file:
            file.write(b"\0" * max(0, free - leave_bytes))

    def fill_then_free(self, file, leave_bytes, first):
        """Run on a nearly full disk, free it, run again."""
        self.ballast(leave_bytes)
        result = self.call("run", file, "--fabric", self.fabric, status=None)
        self.assertNotEqual(result.status, 0, result.err)
        self.assertIn("No space left on device", result.err)
        done = harness.done_nodes(result.err)
        counts = self.trace.counts()
        os.unlink(os.path.join(self.disk, "ballast"))
        self.call("run", file, "--fabric", self.fabric)
        for name in done:
            if name in counts:
                self.assertEqual(self.trace.counts()[name], counts[name],
                                 "%s was done and ran again" % name)
        self.assertLessEqual(set(first), set(self.trace.counts()))
        self.call("cas", "verify", "--fabric", self.fabric)
        return done

    def test_journal_meets_a_full_disk(self):
        """Many small results: the journal grows until nothing fits."""
        names = ["n%d" % i for i in range(30)]
        nodes = [self.trace.node(name, names[i - 1:i] if i else (),
                                 "head -c 30000 /dev/zero | tr '\\0' " + "x")
                 for i, name in enumerate(names)]
        file = self.workflow("chain", nodes)
        done = self.fill_then_free(file, 200000, names)
        self.assertTrue(0 < len(done) < len(names), done)
        expected = {name: ["x" * 30000 + name + "\n"] for name in names}
        got = self.items("chain", self.fabric)
        self.assertEqual({name: [item["stdout"] for item in items]
                          for name, items in got.items()}, expected)

    def test_segment_meets_a_full_disk(self):
        """One large object that does not fit."""
        nodes = [self.trace.node("small"), {
            "name": "large", "dependsOn": ["small"], "spec": {
                "taskType": "python",
                "code": "import hashlib\nopen(%r, 'a').write('large\\n')\n"
                        "def main(inputs):\n"
                        "    return ''.join(hashlib.sha512(b'%%d' %% i)"
                        ".hexdigest() for i in range(6000))\n"
                        % self.trace.path}}]
        file = self.workflow("large", nodes)
        done = self.fill_then_free(file, 400000, ["small", "large"])
        self.assertEqual(done, ["small"])
        self.assertEqual(len(self.items("large", self.fabric)["large"][0]),
                         128 * 6000)

    def test_no_room_for_a_fabric(self):
        file = self.workflow("none", [self.trace.node("a")])
        self.ballast(0)
        result = self.call("run", file, "--fabric", self.fabric, status=None)
        self.assertIn(result.status, (1, 3), result.err)
        self.assertIn("No space left on device", result.err)
        self.assertEqual(self.trace.counts(), {})
        os.unlink(os.path.join(self.disk, "ballast"))
        self.call("run", file, "--fabric", self.fabric)


if __name__ == "__main__":
    harness.main()
