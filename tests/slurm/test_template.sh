#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# slurm/flowmesh.sbatch with small programs in the place of flowmesh: which
# launcher it takes, what it passes on, and what it does when time runs out.
# usage: test_template.sh MPI_HELLO SOURCE_DIR
. "$(dirname "$0")/lib.sh"
hello=$1
template=$2/slurm/flowmesh.sbatch

lines() { [ "$(grep -c "$1" "$2")" -eq "$3" ]; }

for launch in mpirun srun; do
    job=$(FLOWMESH=$hello FLOWMESH_LAUNCH=$launch \
        submit -N 2 -o $launch.log "$template" some words)
    finish "$job" 60 $launch.log
    expect "$launch: the job ends well" state_is "$job" COMPLETED
    expect "$launch: one world over both nodes" \
        lines '^rank [0-3] of 4 on n[12]$' $launch.log 4
    expect "$launch: arguments" grep -q ' some words$' $launch.log

    job=$(FLOWMESH=$hello FLOWMESH_LAUNCH=$launch \
        submit -N 2 -o $launch-fail.log "$template" fail)
    finish "$job" 90 $launch-fail.log
    expect "$launch: the exit status of the program" \
        [ "$(field "$job" ExitCode)" = 7:0 ]
done

# Installed or built beside the template, the program needs no variable.
mkdir -p tree/bin tree/share/flowmesh/slurm
cp "$hello" tree/bin/flowmesh
cp "$template" tree/share/flowmesh/slurm/
job=$(submit -o prefix.log tree/share/flowmesh/slurm/flowmesh.sbatch)
finish "$job" 60 prefix.log
expect "found beside the template" lines 'rank [01] of 2' prefix.log 2

job=$(FLOWMESH=/nowhere submit -o nowhere.log "$template" run)
finish "$job" 60 nowhere.log
expect "no program: exit 2" [ "$(field "$job" ExitCode)" = 2:0 ]
expect "and says what to do" grep -q 'set FLOWMESH=' nowhere.log

job=$(FLOWMESH=$hello FLOWMESH_LAUNCH=boat submit -o boat.log "$template")
finish "$job" 60 boat.log
expect "unknown launcher: exit 2" [ "$(field "$job" ExitCode)" = 2:0 ]

# The environment of the submitter's own rank must not leak into the job.
cat >environment.sh <<'X'
#!/bin/sh
echo "end=$SLURM_JOB_END_TIME steps=$SLURM_STEP_NUM_TASKS"
X
chmod +x environment.sh
job=$(SLURM_STEP_NUM_TASKS=4 PMIX_RANK=3 PMIX_NAMESPACE=x FLOWMESH_LAUNCH=mpirun \
    FLOWMESH=$PWD/environment.sh submit --ntasks-per-node=1 --time=10 \
    -o environment.log "$template")
finish "$job" 60 environment.log
expect "no stale step, a known end" \
    grep -Eq '^end=[0-9]{10} steps=$' environment.log

# Warned before the end, a program that did not finish resumes in the next run;
# one that is cancelled does not.
cat >slow.sh <<'X'
#!/bin/sh
[ "${SLURM_RESTART_COUNT:-0}" -eq 0 ] || { echo resumed; exit 0; }
trap 'echo warned; exit 9' USR1
echo waiting
while :; do sleep 0.1; done
X
chmod +x slow.sh
for launch in mpirun srun; do
    job=$(FLOWMESH=$PWD/slow.sh FLOWMESH_LAUNCH=$launch FLOWMESH_MPI=none \
        submit --ntasks-per-node=1 -o slow-$launch.log "$template")
    wait_until 30 grep -qs waiting slow-$launch.log ||
        fail "job $job did not start"
    scancel --signal=USR1 --batch "$job"
    restart_soon "$job"
    finish "$job" 60 slow-$launch.log
    expect "$launch: warned, requeued, finished" state_is "$job" COMPLETED
    expect "$launch: both runs in one log" \
        [ "$(grep -cE '^(warned|resumed)$' slow-$launch.log)" -eq 2 ]
done

job=$(FLOWMESH=$PWD/slow.sh FLOWMESH_LAUNCH=mpirun \
    submit --ntasks-per-node=1 -o cancelled.log "$template")
wait_until 30 grep -qs waiting cancelled.log || fail "job $job did not start"
scancel "$job"
finish "$job" 60 cancelled.log
expect "a cancelled job stays cancelled" state_is "$job" CANCELLED
verdict
