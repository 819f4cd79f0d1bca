#!/usr/bin/env bash
# sim_test.sh BUILD seeds N      N seeds with the default faults, and some of each preset: nothing may be violated
# sim_test.sh BUILD storm N      N seeds of the log, and N of groups, where much goes wrong at once
# sim_test.sh BUILD monitors N   N seeds of whole monitors, and some of each preset
# sim_test.sh BUILD one-sided N  N seeds in which leaders write into voters' memory, and some of each preset
# sim_test.sh BUILD rdma N       N seeds of processes that sleep over RDMA, and some of each preset
# sim_test.sh BUILD defects      the deliberate defects listed are each caught within a bounded number of seeds
# sim_test.sh BUILD large        16,384 monitors on 256 hosts, within 256 KiB each
# sim_test.sh BUILD whole        256 whole monitors on 16 hosts, and 128 with faults; more than the largest machine has are refused
# sim_test.sh BUILD builds       a build by the other compiler, without optimisation, replays seeds to the same bits
# sim_test.sh BUILD command      the command line: statuses, replay, histories, models
set -euo pipefail
build=$1 part=$2
sim=$build/bin/rf-sim
root=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
    printf 'FAILED: %s\n' "$*" >&2
    exit 1
}

# expect STATUS COMMAND...
expect() {
    local wanted=$1 status=0
    shift
    "$@" >"$scratch/out" 2>"$scratch/err" || status=$?
    [[ $status == "$wanted" ]] || {
        tail -n 40 "$scratch/out" "$scratch/err" >&2
        fail "status $status instead of $wanted: $*"
    }
}

case $part in
seeds)
    "$sim" --seeds "$3"
    # Each seed of these leaves a third of the faults out: what one kind hides or stops, another seed shows (swarm testing, Groce et
    # al., ISSTA 2012). So these have all at once
    "$sim" --seed 3000000 --seeds $(($3 / 5)) --faults all
    "$sim" --seed 1000000 --seeds $(($3 / 10)) --faults storm
    "$sim" --seed 2000000 --seeds $(($3 / 20)) --faults none
    "$sim" --groups --seeds "$3"
    # Cut to pieces: members that are expelled before they have heard that they are in; sessions whose opening is lost
    "$sim" --seed 226 --seeds $(($3 / 10)) --monitors 5 --hosts 5 --voters 5 --clients 20 --ops 600 \
        --faults none,crash=0,partition=20,flap=15,isolate=5,loss=20,effect_stall=1,transfer=10
    # Voters whose logs do not name them yet, and who are needed
    "$sim" --seed 10003085 --faults all
    "$sim" --seeds $(($3 / 10)) --hosts 5 --ops 300 \
        --faults none,crash=10,host_crash=5,restart=3000,partition=20,isolate=10,loss=20
    # Hosts die unnoticed while others leave: no change needs who is gone
    "$sim" --seeds $(($3 / 4)) --monitors 5 --hosts 5 --voters 3 --ops 300 --faults none,host_crash=20,leave=20,restart=40
    # New leaders cut off one after the other: logs that fill up with what nobody could commit
    "$sim" --seed 100 --seeds $(($3 / 20)) --monitors 3 --hosts 3 --voters 3 --clients 60 --ops 6000 \
        --faults none,depose=98,flap=3,transfer=5,loss=40,reorder=50,tail=20,restart=2
    "$sim" --seed 86 --seeds $(($3 / 20)) --monitors 3 --hosts 3 --leases on --clients 40 --ops 4000 \
        --faults none,one_way=6,flap=12,isolate=3,loss=20,tail=20,full=5
    ;;
storm)
    "$sim" --seeds "$3" --faults storm
    "$sim" --groups --seeds "$3" --faults storm
    ;;
one-sided)
    "$sim" --one-sided --seeds "$3"
    "$sim" --one-sided --seed 1000000 --seeds $(($3 / 4)) --faults storm
    "$sim" --one-sided --seed 2000000 --seeds $(($3 / 20)) --faults none
    "$sim" --actor monitor --ops 300 --one-sided --seed 3000000 --seeds $(($3 / 4))
    "$sim" --actor monitor --ops 300 --one-sided --seed 4000000 --seeds $(($3 / 20)) --faults storm
    # Leaders that come and go: lanes that are cut under writes, and completions that are heard in another term
    "$sim" --one-sided --seeds $(($3 / 20)) --monitors 3 --hosts 3 --voters 3 --clients 40 --ops 3000 \
        --faults none,crash=8,restart=2,transfer=8,depose=60,link_error=50,loss=10,effect_stall=0.1
    ;;
monitors)
    "$sim" --actor monitor --ops 300 --seeds "$3"
    "$sim" --actor monitor --ops 300 --seed 3000000 --seeds $(($3 / 5)) --faults all
    "$sim" --actor monitor --ops 300 --seed 1000000 --seeds $(($3 / 4)) --faults storm
    "$sim" --actor monitor --ops 300 --seed 2000000 --seeds $(($3 / 20)) --faults none
    "$sim" --actor monitor --ops 300 --seed 3000000 --seeds $(($3 / 4)) --leases on --faults default,link_break=10,link_error=100
    ;;
rdma)
    "$sim" --actor rdma --seeds "$3"
    "$sim" --actor rdma --seed 1000000 --seeds "$3" --faults storm
    "$sim" --actor rdma --seed 2000000 --seeds $(($3 / 4)) --faults none
    # Owners that stand still between any two effects, and paths that break and are made anew
    "$sim" --actor rdma --seed 3000000 --seeds $(($3 / 4)) --monitors 3 --hosts 3 --ops 3000 \
        --faults none,effect_stall=1,loss=20,partition=10,flap=10,crash=3,restart=5
    ;;
defects)
    # name, seeds within which it must be seen (:4 if it is stuck, not unsafe), and what brings it out; the same seed is clean without it
    while read -r name seeds arguments; do
        # shellcheck disable=SC2086 # several words
        expect "$([[ $seeds == *:* ]] && echo "${seeds#*:}" || echo 3)" "$sim" --defect "$name" --seeds "${seeds%:*}" $arguments
        found=$(grep '^seed ' "$scratch/err" | tail -n 1)
        seed=${found#seed }
        # shellcheck disable=SC2086
        expect 0 "$sim" --seed "${seed%%:*}" $arguments
        printf '%-24s %s\n' "$name" "$found"
    done <"$root/tests/sim/defects.txt"
    ;;
large)
    # A rack of racks, formed, worked on, and come to rest, in at most 256 KiB a monitor
    expect 0 "$sim" --monitors 16384 --hosts 256 --ops 100 --faults none --plan package --events-max 1000000000
    cat "$scratch/out"
    each=$(sed -n 's/^\([0-9]*\) bytes of memory in use a monitor.*/\1/p' "$scratch/out")
    [[ -n $each && $each -le $((256 * 1024)) ]] || fail "$each bytes a monitor"
    ;;
whole)
    expect 0 "$sim" --actor monitor --monitors 256 --hosts 16 --ops 100 --faults none
    expect 0 "$sim" --actor monitor --monitors 128 --hosts 16 --ops 200 --seeds 3
    # More than a real machine may have: small tables, and addresses that are asked for
    expect 0 "$sim" --actor monitor --monitors 2048 --hosts 32 --ops 100 --faults none --plan package --events-max 1000000000
    cat "$scratch/out"
    each=$(sed -n 's/^\([0-9]*\) bytes of memory in use a monitor.*/\1/p' "$scratch/out")
    [[ -n $each && $each -le $((256 * 1024)) ]] || fail "$each bytes a monitor"
    ;;
builds)
    # The other compiler, without optimisation: what leans on either, or on memory that was not set, differs.
    compiler=clang type=Debug
    ! grep -q '^CMAKE_C_COMPILER:.*clang' "$build/CMakeCache.txt" || compiler=gcc
    command -v "$compiler" >/dev/null || {
        echo "skipped: $compiler is not installed"
        exit 77
    }
    cmake -S "$root" -B "$build/sim-$compiler" -G Ninja -DCMAKE_C_COMPILER="$compiler" -DCMAKE_BUILD_TYPE=$type \
        -DRF_BUILD_TESTS=OFF >"$scratch/out" 2>&1 || { cat "$scratch/out" >&2 && fail "cmake with $compiler"; }
    cmake --build "$build/sim-$compiler" --target rf-sim -- -j2 >"$scratch/out" 2>&1 ||
        { tail -n 40 "$scratch/out" >&2 && fail "rf-sim does not build with $compiler"; }
    other=$build/sim-$compiler/bin/rf-sim
    for what in all storm none "storm --one-sided" "storm --groups" "storm --actor monitor" "storm --actor rdma"; do
        # shellcheck disable=SC2086 # several words
        a=$("$sim" --seeds 10 --json --faults $what | grep -o '"hash":"[0-9a-f]*"')
        # shellcheck disable=SC2086
        b=$("$other" --seeds 10 --json --faults $what | grep -o '"hash":"[0-9a-f]*"')
        [[ -n $a && $a == "$b" ]] || fail "faults $what: $sim gives $a, $other gives $b"
    done
    ;;
command)
    expect 0 "$sim" --help
    grep -q 'partition' "$scratch/out" || fail "--help does not name the faults"
    expect 1 "$sim" --no-such-option
    expect 1 "$sim" --faults nonsense
    expect 1 "$sim" --seeds 0
    for plan in square weighted: weighted:1,2 weighted:0,1,1 weighted:1,1,65 weighted:1,1,1x host:1,1,1 weight; do
        expect 1 "$sim" --plan "$plan"
    done
    for plan in broadcast unicast host package weighted weighted:1,64,8; do expect 0 "$sim" --plan "$plan" --ops 200; done
    expect 0 "$sim" --model amd-8x4 --monitors 32 --plan package --clients 1 --ops 200
    grep -q 'applied by the last of 32 members' "$scratch/out" || fail "a model does not say when the last member knows"
    expect 1 "$sim" --actor nobody
    # Steps are of one run that the models know (tests/consensus/trace_test.sh: they are accepted)
    for what in "--seeds 2" "--actor monitor" --one-sided "--monitors 5" "--voters 5"; do
        # shellcheck disable=SC2086 # several words
        expect 1 "$sim" --steps "$scratch/steps" $what
    done
    expect 1 "$sim" --steps "$scratch/no/such/folder"
    expect 1 "$sim" --one-sided --groups
    expect 1 "$sim" --actor rdma --monitors 17
    # What means nothing to an actor is refused where it is named, and said where it is not
    for what in "monitor duplicate" "monitor reorder" "monitor garbage=1" "monitor stray" "monitor transfer" "monitor form-again" \
        "groups depose" "groups all,leave=3" "engine late_start"; do
        expect 1 "$sim" --actor "${what% *}" --faults "none,${what#* }"
        grep -q "this actor knows no fault" "$scratch/err" || fail "--actor ${what% *} takes the fault ${what#* }"
    done
    expect 0 "$sim" --actor monitor --ops 100 --faults all
    grep -q 'left out: duplicate' "$scratch/out" || fail "it is not said that monitors have no fault duplicate"
    # A fault counts that happened to somebody: monitors hear of silence that was none, and one host cannot fall apart
    expect 0 "$sim" --actor monitor --ops 100 --seeds 3 --faults none,false_silence=50
    grep -Eq '^[1-9][0-9]* false reports' "$scratch/out" || fail "no monitor hears of silence that was none"
    expect 0 "$sim" --hosts 1 --faults none,partition=50,one_way=50
    grep -q '^0 faults' "$scratch/out" || fail "faults are counted that happened to nobody"
    expect 0 "$sim" --actor monitor --seed 5 --ops 200
    first=$(grep -o 'hash [0-9a-f]*' "$scratch/out")
    expect 0 "$sim" --actor monitor --seed 5 --ops 200
    [[ $first == "$(grep -o 'hash [0-9a-f]*' "$scratch/out")" ]] || fail "seed 5 of whole monitors does not replay"
    expect 0 "$sim" --actor rdma --seed 5
    first=$(grep -o 'hash [0-9a-f]*' "$scratch/out")
    expect 0 "$sim" --actor rdma --seed 5
    [[ $first == "$(grep -o 'hash [0-9a-f]*' "$scratch/out")" ]] || fail "seed 5 of sleepers does not replay"
    expect 1 "$sim" --model no-such-machine
    expect 1 "$sim" argument
    expect 0 "$sim" --seed 5 --history "$scratch/history"
    first=$(grep -o 'hash [0-9a-f]*' "$scratch/out")
    expect 0 "$sim" --seed 5
    [[ $first == "$(grep -o 'hash [0-9a-f]*' "$scratch/out")" ]] || fail "seed 5 does not replay"
    expect 0 "$sim" --check-history "$scratch/history"
    expect 0 "$sim" --seeds 8 --jobs 4 --ops 100
    jobs=$(grep -o 'hash [0-9a-f]*' "$scratch/out")
    expect 0 "$sim" --seeds 8 --ops 100
    [[ $jobs == "$(grep -o 'hash [0-9a-f]*' "$scratch/out")" ]] || fail "jobs change what happens"
    printf '0 1 2 put k a ok\n0 3 4 get k - b\n' >"$scratch/bad"
    expect 3 "$sim" --check-history "$scratch/bad"
    echo nonsense >"$scratch/none"
    expect 1 "$sim" --check-history "$scratch/none"
    "$root/sim/nightly.py" --seeds 40 --build "$build" --folder "$scratch/night" >"$scratch/out" || fail "a short night"
    sed -i '2,$d' "$scratch/night/pieces" # it was stopped
    "$root/sim/nightly.py" --seeds 40 --build "$build" --folder "$scratch/night" >"$scratch/again" || fail "the same night, resumed"
    grep -q '^all:' "$scratch/again" && fail "a resumed night runs again what was done"
    [[ $(sed -n 's/^total *\(.*\)$/\1/p' "$scratch/out") == "$(sed -n 's/^total *\(.*\)$/\1/p' "$scratch/again")" ]] ||
        fail "a resumed night differs"
    # What sending, receiving and the gap between two messages cost is drawn: a long tail of each is seen, and replays
    p99_with() { # an edge's cost that is not always the same
        printf 'machine none\nshape 1 1 3\nstep 30\n' >"$scratch/drawn.model"
        for cost in latency send receive gap; do
            echo "edge same-package $cost $([[ $cost == "$1" ]] && echo 100 100 20000 20000 20000 20000 || echo 100)" >>"$scratch/drawn.model"
        done
        expect 0 "$sim" --model "$scratch/drawn.model" --monitors 3 --clients 16 --ops 2000
        cp "$scratch/out" "$scratch/once"
        expect 0 "$sim" --model "$scratch/drawn.model" --monitors 3 --clients 16 --ops 2000
        [[ $(grep -o 'hash [0-9a-f]*' "$scratch/once") == "$(grep -o 'hash [0-9a-f]*' "$scratch/out")" ]] || fail "a drawn $1 does not replay"
        p99=$(sed -n 's/.*ordered change.* p99 \([0-9]*\) ns.*/\1/p' "$scratch/out")
    }
    p99_with nothing
    plain=$p99
    for cost in latency send receive gap; do
        p99_with $cost
        [[ $p99 -gt $((2 * plain)) ]] || fail "a $cost with a long tail is not seen: p99 $p99, $plain without"
    done
    for model in "$root"/sim/models/*.model; do
        expect 0 "$sim" --model "$model" --monitors 3 --clients 1 --ops 2000
        grep 'ordered change' "$scratch/out"
    done
    ;;
*) fail "no part $part" ;;
esac
