#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# A job that is put back into the queue in the middle of a workflow finishes it
# in its next run, and does not run again what had finished.  A cancelled one
# ends, and the next job on the same fabric directory finishes.
# usage: test_requeue.sh FLOWMESH SOURCE_DIR
. "$(dirname "$0")/lib.sh"
export FLOWMESH=$1 FLOWMESH_LAUNCH=mpirun
template=$2/slurm/flowmesh.sbatch

# workflow NAME: `first` leaves a line in NAME.first each time it runs; `second`
# waits until NAME.gate is there.
workflow() {
    cat >"$1.yaml" <<X
apiVersion: flowmesh/v1
metadata: {name: slurm-$1}
spec:
  graph:
    nodes:
      - name: first
        spec: {taskType: command, command: [sh, -c, 'echo ran >>$PWD/$1.first; echo one']}
      - name: second
        dependsOn: [first]
        spec:
          taskType: command
          command: [sh, -c, 'echo ran >>$PWD/$1.second; until [ -e $PWD/$1.gate ]; do sleep 0.1; done; echo "after \${first.items.0.output.stdout}"']
X
}

run() {
    submit -N 2 --ntasks-per-node=1 -o "$1.log" "$template" \
        run "$PWD/$1.yaml" --fabric "$PWD/fabric-$1" --json
}

result_of() {
    "$FLOWMESH" result "slurm-$1/second" --fabric "$PWD/fabric-$1" \
        >"$1.result" 2>&1
}

lines() { [ "$(wc -l <"$1")" -eq "$2" ]; }

workflow requeued
job=$(run requeued)
wait_until 60 test -s requeued.second || fail "job $job did not get that far"
scontrol requeue "$job"
restart_soon "$job"
touch requeued.gate
finish "$job" 120 requeued.log
expect "the requeued job finishes" state_is "$job" COMPLETED
result_of requeued
expect "with its result" grep -q 'after one' requeued.result
expect "what had finished did not run again" lines requeued.first 1

workflow cancelled
job=$(run cancelled)
wait_until 60 test -s cancelled.second || fail "job $job did not get that far"
scancel "$job"
finish "$job" 60 cancelled.log
expect "the cancelled job ends" state_is "$job" CANCELLED
touch cancelled.gate
job=$(run cancelled)
finish "$job" 120 cancelled.log
expect "the next job takes over its fabric" state_is "$job" COMPLETED
result_of cancelled
expect "and has the result" grep -q 'after one' cancelled.result
expect "what had finished did not run again" lines cancelled.first 1
[ "$failures" -eq 0 ] || cat requeued.log cancelled.log >&2
verdict
