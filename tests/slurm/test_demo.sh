#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The demo as a batch job of two nodes: the sweep of DPO trials, run under
# sbatch, learns what it claims to learn, and shares what it claims to share.
# usage: test_demo.sh FLOWMESH SOURCE_DIR
. "$(dirname "$0")/lib.sh"
export FLOWMESH=$1 FLOWMESH_LAUNCH=mpirun
template=$2/slurm/flowmesh.sbatch
fabric=$PWD/fabric

# Another researcher: one of the two values of beta is ann's too.
mkdir -p data
cp "$2/examples/data/pride_and_prejudice.txt" data/
sed -e 's/^  name: rlhf_sweep/  name: bens_sweep/' -e 's/owner: ann/owner: ben/' \
    -e 's/beta: \[0.05, 0.2\]/beta: [0.2, 0.4]/' \
    "$2/examples/rlhf_sweep.yaml" >ben.yaml

# demo LOG WORKFLOW
demo() {
    job=$(submit -N 2 --ntasks-per-node=2 -o "$1" "$template" \
        run "$2" --fabric "$fabric" --json --quiet)
    finish "$job" 500 "$1"
    expect "$1: the job ends well" state_is "$job" COMPLETED
    sed -n '/^{$/,/^}$/p' "$1" >"$1.json"
}

demo first.log "$2/examples/rlhf_sweep.yaml"
demo second.log "$2/examples/rlhf_sweep.yaml"
demo ben.log "$PWD/ben.yaml"
[ "$failures" -eq 0 ] || cat first.log second.log ben.log >&2
python3 - first.log.json second.log.json ben.log.json <<'X' || failures=$((failures + 1))
import json
import sys

first, second, ben = (json.load(open(name)) for name in sys.argv[1:])
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
    "another user runs only what is new": all(
        n["ran"] == 0 for n in ben["nodes"] if "beta=0.4" not in n["name"]
        or n["name"].endswith("/reference")),
    "and that runs": all(
        n["ran"] == n["items"] for n in ben["nodes"]
        if n["name"].startswith("dpo@beta=0.4") and
        not n["name"].endswith("/reference")),
}
for name, ok in checks.items():
    print(("ok: " if ok else "FAIL: ") + name)
sys.exit(0 if all(checks.values()) else 1)
X
verdict
