#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The cluster itself: both launchers make one MPI world over several hosts, a
# batch job runs, is cancelled, is requeued.
# usage: test_cluster.sh MPI_HELLO
. "$(dirname "$0")/lib.sh"
hello=$1

lines() { [ "$(grep -c "$1" "$2")" -eq "$3" ]; }

srun -N 2 --ntasks-per-node=2 --mpi=pmix "$hello" >srun.out 2>srun.err || cat srun.err >&2
expect "srun --mpi=pmix: four ranks of one world" lines 'of 4 on n[12]$' srun.out 4
expect "on two hosts" lines ' on n1$' srun.out 2

# Without PMIx no world comes about; Debian's Open MPI says so itself.
expect "srun --mpi=none makes no world" \
    eval '! srun -N 1 -n 2 --mpi=none "$hello" >none.out 2>&1'

job=$(submit -N 2 --ntasks-per-node=2 -o mpirun.log \
    --wrap "mpirun '$hello'")
finish "$job" 60 mpirun.log
expect "mpirun in a batch job" state_is "$job" COMPLETED
expect "knows the allocation" lines 'of 4 on n[12]$' mpirun.log 4

job=$(submit -N 1 -o cancel.log --wrap 'echo started; exec sleep 600')
wait_until 30 grep -qs started cancel.log || fail "job $job did not start"
scancel "$job"
finish "$job" 30 cancel.log
expect "scancel" state_is "$job" CANCELLED

job=$(submit -N 1 -o requeue.log --open-mode=append --requeue --wrap \
    'echo run ${SLURM_RESTART_COUNT:-0}; [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ] || exec sleep 600')
wait_until 30 grep -qs 'run 0' requeue.log || fail "job $job did not start"
scontrol requeue "$job"
restart_soon "$job"
finish "$job" 60 requeue.log
expect "a requeued job finishes" state_is "$job" COMPLETED
expect "and says so" grep -q 'run 1' requeue.log
verdict
