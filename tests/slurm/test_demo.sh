#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The demo as a batch job of two nodes: the sweep of DPO trials, run under
# sbatch, learns what it claims to learn, and shares what it claims to share.
# usage: test_demo.sh FLOWMESH SOURCE_DIR
. "$(dirname "$0")/lib.sh"
export FLOWMESH=$1 FLOWMESH_LAUNCH=mpirun
fabric=$PWD/fabric

demo() {
    job=$(submit -N 2 --ntasks-per-node=2 -o "$1" "$2/slurm/flowmesh.sbatch" \
        run "$2/examples/rlhf_sweep.yaml" --fabric "$fabric" --json --quiet)
    finish "$job" 500 "$1"
    expect "$1: the job ends well" state_is "$job" COMPLETED
    sed -n '/^{$/,/^}$/p' "$1" >"$1.json"
}

demo first.log "$2"
demo second.log "$2"
[ "$failures" -eq 0 ] || cat first.log second.log >&2
python3 - first.log.json second.log.json <<'X' || failures=$((failures + 1))
import json
import sys

first, second = (json.load(open(name)) for name in sys.argv[1:])
before, trials = first["metrics"], first["trials"]
best = max(t["metrics"]["preference"]["preference_accuracy"] for t in trials)
nodes = {n["name"]: n for n in first["nodes"]}
reference = [n for name, n in nodes.items() if name.endswith("/reference")]
checks = {
    "eight trials": len(trials) == 8,
    "SFT lowers the held-out loss":
        before["sft_loss"]["loss"] < before["untrained_loss"]["loss"] - 1,
    "DPO raises the held-out preference accuracy": best >
        before["sft_preference"]["preference_accuracy"] + 0.1,
    "SFT ran once": nodes["sft"]["ran"] == 1,
    "reference log-probs ran once": sum(n["ran"] for n in reference) ==
        reference[0]["items"] and len(reference) == 8,
    "the second run ran nothing": second["operators"]["ran"] == 0,
    "and has the same numbers": second["trials"] == trials,
}
for name, ok in checks.items():
    print(("ok: " if ok else "FAIL: ") + name)
sys.exit(0 if all(checks.values()) else 1)
X
verdict
