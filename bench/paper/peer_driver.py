# SPDX-License-Identifier: Apache-2.0
"""Run recorded workflows through Ray, Parsl or Dask: a child of bench_real.py.

usage: peer_driver.py ray|parsl|dask CALLS.json

Two worker processes, one executor each, warm before the clock starts.  Lines
on standard output: READY once warm; after a line on standard input the result
as one JSON object; then the end of standard input is awaited.
"""
import json
import os
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import engine  # noqa: E402  (beside this file)

WORKERS = 2


class Ray:
    def __init__(self):
        import ray
        self.ray = ray
        ray.init(num_cpus=WORKERS, include_dashboard=False,
                 configure_logging=False, log_to_driver=False,
                 object_store_memory=128 << 20,
                 runtime_env={"env_vars": {
                     "PYTHONPATH": os.path.dirname(
                         os.path.abspath(__file__))}})
        self.functions = {}

    def submit(self, function, *args):
        if function not in self.functions:
            self.functions[function] = self.ray.remote(num_cpus=1)(function)
        return self.functions[function].remote(*args)

    def get(self, futures):
        return self.ray.get(futures)

    def close(self):
        self.ray.shutdown()


class Parsl:
    def __init__(self):
        import parsl
        from parsl.config import Config
        from parsl.executors import HighThroughputExecutor
        from parsl.providers import LocalProvider
        self.parsl = parsl
        here = os.path.dirname(os.path.abspath(__file__))
        parsl.load(Config(
            executors=[HighThroughputExecutor(
                label="two", max_workers_per_node=WORKERS, cores_per_worker=1,
                encrypted=False, address="127.0.0.1",
                provider=LocalProvider(
                    init_blocks=1, max_blocks=1,
                    worker_init="export PYTHONPATH=%s" % here))],
            run_dir=os.path.join(os.environ["FM_PEER_FABRIC"], "runinfo"),
            usage_tracking=0, strategy="none"))
        self.apps = {}

    def submit(self, function, *args):
        if function not in self.apps:
            self.apps[function] = self.parsl.python_app(function)
        return self.apps[function](*args)

    def get(self, futures):
        return [future.result() for future in futures]

    def close(self):
        self.parsl.dfk().cleanup()
        self.parsl.clear()


class Dask:
    def __init__(self):
        from distributed import Client, LocalCluster
        self.cluster = LocalCluster(
            n_workers=WORKERS, threads_per_worker=1, dashboard_address=None,
            memory_limit=0)
        self.client = Client(self.cluster)

    def submit(self, function, *args):
        # pure: Dask would merge calls that are equal, which is our subject
        return self.client.submit(function, *args, pure=False)

    def get(self, futures):
        return self.client.gather(futures)

    def close(self):
        self.client.close()
        self.cluster.close()


SYSTEMS = {"ray": Ray, "parsl": Parsl, "dask": Dask}


def warm_up(system):
    seen, hold = set(), 0.3
    while len(seen) < WORKERS and hold < 20:
        seen.update(system.get([system.submit(engine.warm, hold)
                                for _ in range(WORKERS)]))
        hold *= 2
    if len(seen) < WORKERS:
        raise RuntimeError("only %d workers came up" % len(seen))


def say(line):
    print(line, flush=True)


def run_calls(system, workflows):
    """[{name, nodes: [{task_type, params, values, upstream: [index]}]}]"""
    start = time.perf_counter()
    futures = []
    for workflow in workflows:
        made = []
        for node in workflow["nodes"]:
            work = {key: node[key] for key in (
                "task_type", "params", "values", "from_upstream")}
            made.append(system.submit(
                engine.call, work, *[made[i] for i in node["upstream"]]))
        futures.append(made)
    outputs = [system.get(made) for made in futures]
    return {"seconds": time.perf_counter() - start, "outputs": outputs}


def run_no_ops(system, count):
    system.get([system.submit(engine.no_op, i) for i in range(100)])
    start = time.perf_counter()
    system.get([system.submit(engine.no_op, i) for i in range(count)])
    return {"seconds": time.perf_counter() - start, "tasks": count}


def main():
    name, path = sys.argv[1:]
    with open(path, encoding="utf-8") as file:
        given = json.load(file)
    system = SYSTEMS[name]()
    warm_up(system)
    for job in given["jobs"]:
        say("READY")
        sys.stdin.readline()
        if "no_ops" in job:
            result = run_no_ops(system, job["no_ops"])
        else:
            result = run_calls(system, job["workflows"])
        say(json.dumps(result))
    sys.stdin.readline()
    system.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
