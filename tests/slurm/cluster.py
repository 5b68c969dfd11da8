#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run one command inside a private Slurm cluster on this machine.

usage: cluster.py [--nodes N] [--keep] COMMAND [ARG…]

Starts munged, slurmctld and N slurmd (hosts n1 … nN, 8 made-up cores and two
made-up GPUs each, network 10.77.0.0/24), waits until every node is idle, runs
COMMAND on the controller's host and exits with its status.

Everything lives in PID, network, mount and UTS namespaces of its own, whose
first process is this script: when it ends, however it ends, the kernel kills
every process of the cluster and removes every interface and mount.  So any
number of clusters run side by side, with the same addresses and ports, and
none can leave anything behind but its directory, which the outer process
removes.

In the environment of COMMAND: SLURM_CONF, FM_CLUSTER_DIR (scratch space all
nodes see), OMPI_ALLOW_RUN_AS_ROOT.  Exit 77 (ctest: skipped), with the reason,
where the machine cannot do it; 70 when the cluster does not come up.
"""
import argparse
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

SKIP, BROKEN = 77, 70
TOOLS = {"munged": "munge", "slurmctld": "slurm-wlm", "slurmd": "slurm-wlm",
         "sbatch": "slurm-wlm", "ip": "iproute2", "nsenter": "util-linux",
         "unshare": "util-linux", "setpriv": "util-linux"}
START_LIMIT_S = 60   # up in about a second; a loaded machine may take longer
INNER = "FM_CLUSTER_INNER"

CONF = """\
ClusterName=flowmesh-test
SlurmctldHost=ctl(10.77.0.254)
SlurmctldPort=46817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={dir}/munge.socket
CredType=cred/munge
StateSaveLocation={dir}/state
SlurmdSpoolDir={dir}/spool.%n
TmpFS={dir}/tmp.%n
SlurmctldPidFile={dir}/slurmctld.pid
SlurmdPidFile={dir}/slurmd.%n.pid
SlurmctldLogFile={dir}/slurmctld.log
SlurmdLogFile={dir}/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=pmix
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=10000,bf_interval=1,\
batch_sched_delay=0,requeue_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=5
ReturnToService=2
InactiveLimit=0
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
{nodes}
PartitionName=low Nodes=n[1-{count}] Default=YES PriorityTier=1 \
PreemptMode=REQUEUE GraceTime=10 State=UP
PartitionName=high Nodes=n[1-{count}] PriorityTier=10 PreemptMode=OFF State=UP
"""


def fail(status, text):
    print(f"cluster: {text}", file=sys.stderr)
    sys.exit(status)


def check_machine():
    if os.geteuid() != 0:
        fail(SKIP, "skipped: namespaces and munged need root")
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            fail(SKIP, f"skipped: {tool} is missing: apt-get install {package}")
    if not os.path.exists("/etc/hosts"):
        fail(SKIP, "skipped: no /etc/hosts to cover with the cluster's own")
    probe = subprocess.run(["unshare", "--net", "--mount", "--uts", "--pid",
                            "--fork", "--mount-proc", "ip", "link", "add",
                            "br0", "type", "bridge"],
                           capture_output=True, text=True)
    if probe.returncode != 0:
        fail(SKIP, "skipped: no namespaces or bridges here: "
             + probe.stderr.strip())


def outer(args):
    """Make the directory and the namespaces; clean up after them."""
    check_machine()
    directory = tempfile.mkdtemp(prefix="fm-slurm.")
    os.chmod(directory, 0o755)          # munged wants no group-writable parent
    env = dict(os.environ, **{INNER: directory})
    child = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "--pid", "--fork",
         "--mount-proc", "--kill-child=KILL", sys.executable] + sys.argv,
        env=env)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: child.terminate())
    status = child.wait()
    if status != 0:
        show_logs(directory, status)
    if args.keep:
        print(f"cluster: kept {directory}", file=sys.stderr)
    else:
        shutil.rmtree(directory, ignore_errors=True)
    return status if status >= 0 else 128 - status


def show_logs(directory, status):
    for log in sorted(pathlib.Path(directory).glob("*.log" if status != BROKEN else "*.out")):
        lines = log.read_text(errors="replace").splitlines()[-15:]
        print(f"--- {log.name}", *lines, sep="\n", file=sys.stderr)


def sh(*command):
    subprocess.run(command, check=True)


def network(count):
    """Hosts: the controller holds the bridge, every node one end of a veth."""
    sh("mount", "-t", "tmpfs", "tmpfs", "/run")     # a private /run/netns
    sh("hostname", "ctl")
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "addr", "add", "10.77.0.254/24", "dev", "br0")
    sh("ip", "link", "set", "br0", "up")
    for i in range(1, count + 1):
        sh("ip", "netns", "add", f"n{i}")
        sh("ip", "link", "add", f"v{i}", "type", "veth", "peer", "name",
           "eth0", "netns", f"n{i}")
        sh("ip", "link", "set", f"v{i}", "master", "br0", "up")
        sh("ip", "-n", f"n{i}", "addr", "add", f"10.77.0.{i}/24", "dev",
           "eth0")
        sh("ip", "-n", f"n{i}", "link", "set", "eth0", "up")
        sh("ip", "-n", f"n{i}", "link", "set", "lo", "up")


def configure(directory, count):
    names = [f"n{i}" for i in range(1, count + 1)]
    for name in ["state"] + [f"{kind}.{n}" for n in names
                             for kind in ("spool", "tmp")]:
        (directory / name).mkdir(mode=0o755)
    for i in range(2):
        os.mknod(directory / f"gpu{i}", 0o666 | stat.S_IFCHR,
                 os.makedev(1, 3))
    nodes = "\n".join(
        f"NodeName={n} NodeHostname={n} NodeAddr=10.77.0.{i} Port=46818 "
        f"CPUs=8 RealMemory=4000 Gres=gpu:2 State=UNKNOWN"
        for i, n in enumerate(names, 1))
    (directory / "slurm.conf").write_text(
        CONF.format(dir=directory, nodes=nodes, count=count))
    # Nothing here uses control groups; v1 starts without any being mounted,
    # where looking for them, and v2 without systemd, do not.
    (directory / "cgroup.conf").write_text(
        "CgroupAutomount=no\nCgroupPlugin=cgroup/v1\n")
    (directory / "gres.conf").write_text(
        f"NodeName=n[1-{count}] Name=gpu Count=2 "
        f"File={directory}/gpu[0-1]\n")
    hosts = ["127.0.0.1 localhost", "10.77.0.254 ctl"]
    hosts += [f"10.77.0.{i} {n}" for i, n in enumerate(names, 1)]
    (directory / "hosts").write_text("\n".join(hosts) + "\n")
    sh("mount", "--bind", str(directory / "hosts"), "/etc/hosts")
    key = directory / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    return names


def start(directory, names):
    """Every daemon in the foreground: a child of ours, with a log."""
    def daemon(name, *command):
        with open(directory / f"{name}.out", "wb") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL,
                                    stdout=log, stderr=log)

    daemons = {"munged": daemon(
        "munged", "munged", "--foreground", "--force",
        f"--key-file={directory}/munge.key",
        f"--socket={directory}/munge.socket",
        f"--pid-file={directory}/munge.pid",
        f"--log-file={directory}/munged.log",
        f"--seed-file={directory}/munge.seed")}
    wait_for("the munge socket", daemons,
             lambda: (directory / "munge.socket").exists())
    conf = str(directory / "slurm.conf")
    daemons["slurmctld"] = daemon("slurmctld", "slurmctld", "-D", "-f", conf)
    for name in names:
        # `ip netns exec` would remount /sys, which slurmd does not survive;
        # /dev/shm is private so that no two hosts share a segment.
        daemons[name] = daemon(
            f"slurmd.{name}", "nsenter", f"--net=/run/netns/{name}", "unshare",
            "--uts", "--mount", "sh", "-c", f"hostname {name} && "
            f"mount -t tmpfs tmpfs /dev/shm && exec slurmd -D -N {name} "
            f"-f {conf}")
    wait_for("all nodes to be idle", daemons,
             lambda: idle_nodes() == len(names))


def idle_nodes():
    out = subprocess.run(["sinfo", "-h", "-p", "low", "-t", "idle", "-o", "%D"],
                         capture_output=True, text=True).stdout.split()
    return sum(int(n) for n in out)


def wait_for(what, daemons, ready):
    limit = time.monotonic() + START_LIMIT_S
    while not ready():
        for name, process in daemons.items():
            if process.poll() is not None:
                fail(BROKEN, f"{name} ended with {process.returncode}")
        if time.monotonic() > limit:
            fail(BROKEN, f"waited {START_LIMIT_S} s in vain for {what}")
        time.sleep(0.05)


def reap(child):
    """The first process of a PID namespace also inherits the orphans."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    while True:
        pid, status = os.wait()
        if pid == child:
            return os.waitstatus_to_exitcode(status) & 0xFF


def inner(args):
    directory = pathlib.Path(os.environ.pop(INNER))
    child = os.fork()
    if child:
        return reap(child)
    began = time.monotonic()
    os.environ.update(SLURM_CONF=str(directory / "slurm.conf"),
                      FM_CLUSTER_DIR=str(directory),
                      OMPI_ALLOW_RUN_AS_ROOT="1",
                      OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    network(args.nodes)
    start(directory, configure(directory, args.nodes))
    print(f"cluster: {args.nodes} nodes up in "
          f"{time.monotonic() - began:.1f} s", flush=True)
    return subprocess.run(args.command, cwd=directory).returncode & 0xFF


def main():
    parser = argparse.ArgumentParser(usage=__doc__.split("\n\n")[1])
    parser.add_argument("--nodes", type=int, default=4, choices=range(1, 17))
    parser.add_argument("--keep", action="store_true",
                        help="leave the directory with its logs")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if not args.command:
        parser.error("no command")
    return inner(args) if INNER in os.environ else outer(args)


if __name__ == "__main__":
    sys.exit(main())
