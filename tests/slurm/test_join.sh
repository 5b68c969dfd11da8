#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Workers of a second job join a run, on other hosts than its own: they share
# its work; the run outlives the job being cancelled in the middle, one from a
# script that `flowmesh slurm-template` filled in.
# usage: test_join.sh FLOWMESH SOURCE_DIR
. "$(dirname "$0")/lib.sh"
export FLOWMESH=$1 FM_LOG=info
run=$2/slurm/flowmesh.sbatch
join=$2/slurm/join.sbatch
fabric=$PWD/fabric

# nodes COUNT SCRIPT: a workflow of that many commands.
nodes() {
    printf 'apiVersion: flowmesh/v1\nmetadata: {name: join}\nspec:\n  graph:\n    nodes:\n'
    for i in $(seq "$1"); do
        printf '      - name: n%d\n        spec: {taskType: command, command: [sh, -c, %s]}\n' \
            "$i" "'echo $i; $2'"
    done
}

# Three that wait for each other: one worker alone would wait for ever.
nodes 3 "touch $PWD/here.\$\$; until [ \$(ls $PWD/here.* | wc -l) -ge 3 ]; do sleep 0.1; done" \
    >meet.yaml
main=$(submit -N 1 --ntasks-per-node=2 -w n1 -o meet.log "$run" \
    run "$PWD/meet.yaml" --fabric "$fabric")
cell=$(submit -N 2 --ntasks=2 -w n2,n3 -o meet-join.log "$join" \
    --fabric "$fabric")
finish "$main" 120 meet.log
expect "three workers of two jobs meet" state_is "$main" COMPLETED
finish "$cell" 60 meet-join.log
expect "the cell leaves with the run" state_is "$cell" COMPLETED
expect "both of its tasks joined" \
    [ "$(grep -c 'joining instance' meet-join.log)" -eq 2 ]
[ "$failures" -eq 0 ] || cat meet.log meet-join.log >&2

nodes 12 'sleep 0.5' >many.yaml
main=$(submit -N 1 --ntasks-per-node=2 -w n1 -o many.log "$run" \
    run "$PWD/many.yaml" --fabric "$fabric")
env -u FLOWMESH_FABRIC "$FLOWMESH" slurm-template join --set nodelist=n2 \
    --set ntasks=2 --set output=many-join.log --fabric "$fabric" >filled.sbatch
cell=$(env -u FLOWMESH sbatch --parsable filled.sbatch)
wait_until 60 grep -q 'joining instance' many-join.log || fail "nobody joined"
scancel "$cell"
finish "$main" 120 many.log
expect "the run outlives a cancelled cell" state_is "$main" COMPLETED
[ "$failures" -eq 0 ] || cat many.log many-join.log >&2
verdict
