#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# srun without a process manager would start N fabrics of one process each on
# the same directory: refused, with the mend.  What is alone on purpose runs.
# usage: test_singleton.sh FLOWMESH SOURCE_DIR
. "$(dirname "$0")/lib.sh"
flowmesh=$1

cat >one.yaml <<'X'
apiVersion: flowmesh/v1
metadata: {name: slurm-singleton}
spec: {taskType: echo, data: {type: list, items: [alone on purpose]}}
X

srun -N 1 -n 4 --mpi=none --kill-on-bad-exit=0 \
    "$flowmesh" run one.yaml --fabric "$PWD/fabric" --json >four.log 2>&1
rc=$?
expect "four singletons: exit 2 or 3, not $rc" \
    eval '[ "$rc" -eq 2 ] || [ "$rc" -eq 3 ]'
expect "says what happened" grep -q 'Slurm started 4 tasks' four.log
expect "says what to do" grep -q 'srun --mpi=pmix' four.log
expect "none of them ran anything" eval '! test -e fabric'

srun -N 1 -n 1 --mpi=none "$flowmesh" run one.yaml --fabric "$PWD/fabric-1" \
    --json >one.log 2>&1
rc=$?
expect "one task of srun: exit 0, not $rc" [ "$rc" -eq 0 ]
"$flowmesh" result slurm-singleton --fabric "$PWD/fabric-1" >one.result 2>&1
expect "ran" grep -q 'alone on purpose' one.result

job=$(submit -N 1 -n 4 -o plain.log --wrap \
    "'$flowmesh' run '$PWD/one.yaml' --fabric '$PWD/fabric-plain' --json")
finish "$job" 60 plain.log
expect "alone in the script of a job of four tasks" state_is "$job" COMPLETED
"$flowmesh" result slurm-singleton --fabric "$PWD/fabric-plain" \
    >plain.result 2>&1
expect "ran there" grep -q 'alone on purpose' plain.result
verdict
