#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A workflow in a batch job of two nodes, under either launcher: exit status,
# results and log.
# usage: test_batch.sh FLOWMESH SOURCE_DIR
. "$(dirname "$0")/lib.sh"
export FLOWMESH=$1
template=$2/slurm/flowmesh.sbatch

cat >sum.yaml <<'X'
apiVersion: flowmesh/v1
metadata: {name: slurm-batch}
spec:
  graph:
    nodes:
      - name: count
        spec: {taskType: command, command: [sh, -c, 'seq 1 100 | paste -sd+ | tr -d "\n"']}
      - name: sum
        dependsOn: [count]
        spec: {taskType: command, command: [sh, -c, 'echo "sum=$((${count.items.0.output.stdout}))"']}
X
cat >broken.yaml <<'X'
apiVersion: flowmesh/v1
spec: {taskType: echo, data: {type: list, items: [a]}, nonsense: 1}
X
cat >failing.yaml <<'X'
apiVersion: flowmesh/v1
spec: {taskType: command, command: [sh, -c, 'echo out of luck >&2; exit 3']}
X

for launch in mpirun srun; do
    export FLOWMESH_LAUNCH=$launch
    job=$(submit -N 2 --ntasks-per-node=2 -o $launch.log "$template" \
        run "$PWD/sum.yaml" --fabric "$PWD/fabric-$launch" --json)
    finish "$job" 120 $launch.log
    expect "$launch: the job ends well" state_is "$job" COMPLETED
    expect "$launch: exit 0" [ "$(field "$job" ExitCode)" = 0:0 ]
    "$FLOWMESH" result slurm-batch/sum --fabric "$PWD/fabric-$launch" \
        >$launch.result 2>&1
    expect "$launch: the result" grep -q 'sum=5050' $launch.result
    expect "$launch: the fabric keeps it" test -d "fabric-$launch"
    [ "$failures" -eq 0 ] || cat $launch.log >&2

    job=$(submit -o $launch-broken.log "$template" \
        run "$PWD/broken.yaml" --fabric "$PWD/fabric-$launch" --json)
    finish "$job" 60 $launch-broken.log
    expect "$launch: bad input is exit 2" [ "$(field "$job" ExitCode)" = 2:0 ]
    expect "$launch: and names the key" grep -q nonsense $launch-broken.log

    job=$(submit -o $launch-failing.log "$template" \
        run "$PWD/failing.yaml" --fabric "$PWD/fabric-$launch" --json)
    finish "$job" 120 $launch-failing.log
    expect "$launch: a failure is exit 1" [ "$(field "$job" ExitCode)" = 1:0 ]
    expect "$launch: with its last words" \
        grep -q 'out of luck' $launch-failing.log
done
verdict
