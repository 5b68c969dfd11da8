# SPDX-License-Identifier: Apache-2.0
"""What the system tests share: the programs under test, private directories,
processes that never outlive their test.

A test file defines subclasses of Case and ends with harness.main().  Every
process that a test starts carries a token of the test in its environment, so
that all of them, executors and their children included, are found in /proc,
whatever session or process group they made for themselves.

Invariants: nothing outside the test's own directory is written; a wait is
always for a condition, with a bound; a test judges what happened, never how
long it took.
"""
import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest
import uuid

SKIP_EXIT = 77
WAIT_S = 60.0  # bound of any single wait; generous, since machines are shared
RUN_S = 120.0  # bound of any single command
TOKEN = "FM_SYSTEM_TEST"

options = None  # of the command line, set by main()


class Result:
    """A finished command."""

    def __init__(self, status, out, err):
        self.status = status
        self.out = out
        self.err = err

    def json(self):
        return json.loads(self.out)


def done_nodes(err):
    """Names of the nodes that progress lines report as done."""
    names = []
    for line in err.splitlines():
        words = line.partition("]")[2].split()
        if line.startswith("[") and len(words) >= 2 and words[0] == "done":
            names.append(words[1])
    return names


def environment(token, extra=None):
    env = dict(os.environ)
    for name in list(env):
        if name.startswith(("OMPI_", "PMIX_", "PMI_", "SLURM_", "FLOWMESH_")):
            del env[name]
    env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
               XDG_STATE_HOME="/nonexistent/state")
    env[TOKEN] = token
    env.update(extra or {})
    return env


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def _parents():
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = _read("/proc/%s/stat" % name)
            if stat:
                fields = stat.rpartition(b")")[2].split()
                if fields[0] != b"Z":
                    parents[int(name)] = int(fields[1])
    return parents


def pids_of(token):
    """Living processes that carry the token, and their descendants."""
    mark = ("%s=%s" % (TOKEN, token)).encode()
    parents = _parents()
    found = {pid for pid in parents
             if mark in _read("/proc/%d/environ" % pid).split(b"\0")}
    grown = True
    while grown:
        more = {pid for pid, up in parents.items() if up in found} - found
        found |= more
        grown = bool(more)
    found.discard(os.getpid())
    return found


def command_of(pid):
    return _read("/proc/%d/cmdline" % pid).replace(b"\0", b" ").decode(
        errors="replace").strip()


def kill(pid, signo=signal.SIGKILL):
    try:
        os.kill(pid, signo)
    except ProcessLookupError:
        pass


def kill_all(token):
    deadline = time.monotonic() + WAIT_S
    while True:
        pids = pids_of(token)
        if not pids:
            return
        if time.monotonic() > deadline:
            raise AssertionError("cannot be killed: %s" % pids)
        for pid in pids:
            kill(pid)
        time.sleep(0.01)


def wait_for(condition, what, bound_s=WAIT_S):
    """Poll condition() until it is true and return its value."""
    deadline = time.monotonic() + bound_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError("not within %g s: %s" % (bound_s, what))
        time.sleep(0.01)


class Process:
    """A command that runs beside the test; its output is read as it comes."""

    def __init__(self, argv, env, cwd):
        self.argv = argv
        self.popen = subprocess.Popen(
            argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True)
        self.pid = self.popen.pid
        self._chunks = {1: [], 2: []}
        self._threads = [
            threading.Thread(target=self._pump, args=(number, pipe),
                             daemon=True)
            for number, pipe in ((1, self.popen.stdout),
                                 (2, self.popen.stderr))]
        for thread in self._threads:
            thread.start()

    def _pump(self, number, pipe):
        while True:
            data = os.read(pipe.fileno(), 65536)
            if not data:
                return
            self._chunks[number].append(data)

    def out(self):
        return b"".join(self._chunks[1]).decode(errors="replace")

    def err(self):
        return b"".join(self._chunks[2]).decode(errors="replace")

    def running(self):
        return self.popen.poll() is None

    def wait(self, bound_s=RUN_S):
        try:
            self.popen.wait(bound_s)
        except subprocess.TimeoutExpired:
            raise AssertionError("%s: still running after %g s; stderr:\n%s" % (
                " ".join(self.argv), bound_s, self.err())) from None
        for thread in self._threads:
            thread.join(WAIT_S)
        return Result(self.popen.returncode, self.out(), self.err())

    def close(self):
        self.popen.stdout.close()
        self.popen.stderr.close()


class Case(unittest.TestCase):
    """A test with a directory and a token of its own."""

    def setUp(self):
        self.token = uuid.uuid4().hex
        self.dir = tempfile.mkdtemp(prefix="flowmesh-system-")
        self._processes = []
        self.addCleanup(self._clean)

    def _clean(self):
        kill_all(self.token)
        for process in self._processes:
            process.wait()
            process.close()
        shutil.rmtree(self.dir, ignore_errors=True)

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as file:
            file.write(text)
        return self.path(name)

    def workflow(self, name, nodes, **metadata):
        """Write a graph of {"name", "dependsOn", "spec"}; JSON is YAML."""
        document = {"apiVersion": "flowmesh/v1", "kind": "Workflow",
                    "metadata": dict({"name": name}, **metadata),
                    "spec": {"graph": {"nodes": nodes}}}
        return self.write(name + ".yaml", json.dumps(document, indent=1))

    def start(self, *args, ranks=0, mpi_args=(), env=None):
        """Start flowmesh ARGS…; under mpirun when ranks is given."""
        argv = [options.flowmesh] + [str(arg) for arg in args]
        extra = dict(env or {})
        if ranks:
            argv = [options.mpiexec, "--oversubscribe", "-n", str(ranks),
                    *mpi_args] + argv
            # Open MPI keeps memory at exit that no suppression can name
            extra.setdefault("ASAN_OPTIONS", "detect_leaks=0")
        process = Process(argv, environment(self.token, extra), self.dir)
        self._processes.append(process)
        return process

    def call(self, *args, status=0, bound_s=RUN_S, **more):
        """Run flowmesh ARGS… to its end; its exit status must be `status`."""
        process = self.start(*args, **more)
        result = process.wait(bound_s)
        if status is not None and result.status != status:
            self.fail("flowmesh %s: exit %d, not %d\n%s\n%s" % (
                " ".join(map(str, args)), result.status, status, result.out,
                result.err))
        return result

    def run_json(self, file, fabric, *args, status=0, **more):
        """flowmesh run --json; the report."""
        return self.call("run", file, "--fabric", fabric, "--json", *args,
                         status=status, **more).json()

    def items(self, target, fabric):
        """{node: [outputs]} of `flowmesh result --json`."""
        report = self.call("result", target, "--fabric", fabric,
                           "--json").json()
        return {node["name"]:
                None if node["items"] is None
                else [item["output"] for item in node["items"]]
                for node in report["nodes"]}

    def pids(self, word=None):
        """Living processes of this test, or those that run `word`."""
        return sorted(pid for pid in pids_of(self.token)
                      if word is None or
                      os.path.basename(command_of(pid).split(" ")[0]) == word)


class Trace:
    """A file outside the fabric to which command nodes append their names."""

    def __init__(self, path):
        self.path = path

    def counts(self):
        counts = {}
        for name in _read(self.path).decode().split():
            counts[name] = counts.get(name, 0) + 1
        return counts

    def clear(self):
        if os.path.exists(self.path):
            os.unlink(self.path)

    def node(self, name, after=(), script=":"):
        """A command node that leaves its name, runs script, prints its name."""
        return {"name": name, "dependsOn": list(after),
                "spec": {"taskType": "command",
                         "command": ["sh", "-c", "echo %s >> '%s'; %s; echo %s"
                                     % (name, self.path, script, name)]}}


def nodes_of(report):
    return {node["name"]: node for node in report["nodes"]}


def main():
    """Run the tests of the calling file; exit 77 when all were skipped."""
    global options
    parser = argparse.ArgumentParser()
    parser.add_argument("--flowmesh", required=True)
    parser.add_argument("--mpiexec", default="mpirun")
    parser.add_argument("--source", required=True)
    parser.add_argument("--rounds", type=int,
                        help="repetitions of the tests that repeat")
    parser.add_argument("--seed", type=int, default=20260101)
    parser.add_argument("tests", nargs="*")
    options = parser.parse_args()
    options.flowmesh = os.path.abspath(options.flowmesh)
    program = unittest.main(module="__main__", exit=False, verbosity=2,
                            argv=[sys.argv[0]] + options.tests)
    result = program.result
    if not result.wasSuccessful() or result.testsRun == 0:
        sys.exit(1)
    sys.exit(SKIP_EXIT if len(result.skipped) == result.testsRun else 0)
