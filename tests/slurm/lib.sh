# SPDX-License-Identifier: Apache-2.0
# Shared by the test_*.sh, which run inside cluster.py.  Every wait polls for a
# state and has a limit; none takes time for granted.
set -u

# Two ranks on two of the hosts share one kernel: Open MPI must not take the
# other's shared memory for its own.
export OMPI_MCA_btl=tcp,self OMPI_MCA_pml=ob1
# What the MPI library leaks is not ours.
export ASAN_OPTIONS=detect_leaks=0
failures=0

fail() {
    printf 'FAIL: %s\n' "$*" >&2
    failures=$((failures + 1))
}

# expect WHAT COMMAND…: the command succeeds.
expect() {
    what=$1
    shift
    if "$@"; then
        printf 'ok: %s\n' "$what"
    else
        fail "$what: $*"
    fi
}

# submit ARGS…: sbatch; prints the job's number.
submit() { sbatch --parsable "$@"; }

# field JOB NAME: NAME=value of scontrol show job.
field() {
    scontrol show job -o "$1" | tr ' ' '\n' | sed -n "s/^$2=//p" | head -n 1
}

# wait_until SECONDS COMMAND…: poll until it succeeds.
wait_until() {
    tries=$(($1 * 5))
    shift
    while ! "$@"; do
        tries=$((tries - 1))
        [ "$tries" -gt 0 ] || return 1
        sleep 0.2
    done
}

state_is() { [ "$(field "$1" JobState)" = "$2" ]; }

ended() {
    case $(field "$1" JobState) in
    COMPLETED | FAILED | CANCELLED | TIMEOUT | NODE_FAIL | BOOT_FAIL | \
        OUT_OF_MEMORY) return 0 ;;
    esac
    return 1
}

# finish JOB SECONDS LOG: wait for its end; prints the log when it did not.
finish() {
    if ! wait_until "$2" ended "$1"; then
        fail "job $1 did not end in $2 s: $(field "$1" JobState)"
        cat "$3" >&2
    fi
}

# restart_soon JOB: a requeued job would wait two minutes.  Not within the
# second of its requeue: slurmd has revoked all credentials of that second.
restart_soon() {
    wait_until 60 state_is "$1" PENDING || fail "job $1 is not pending"
    pending_since=$(date +%s)
    wait_until 10 eval '[ "$(date +%s)" -gt $((pending_since + 1)) ]'
    scontrol update "job=$1" StartTime=now
}

verdict() { [ "$failures" -eq 0 ]; }
