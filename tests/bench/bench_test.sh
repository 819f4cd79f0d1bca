#!/bin/bash
# rf-bench: every piece that needs no machine, or boots its own, runs and says what it should; no figure is judged.
set -u
bench="$1/bin/rf-bench"
[ "$(nproc)" -ge 2 ] || { echo "skipped: two spinning sides need two CPUs"; exit 77; }
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT

fail() { echo "FAILED: $*"; exit 1; }

fields='"bench" "what" "cores" "unit" "n" "min" "p50" "p90" "p99" "p99_9" "max" "mean" "placement"'
samples=20
run() { # how many results are expected, then the words of the command
    local expected=$1 line field
    shift
    timeout 100 "$bench" "$@" --json --samples "$samples" --tries 1 --hdr "$folder/hdr" >"$folder/out" || fail "$* ended with $?"
    [ "$(wc -l <"$folder/out")" -eq "$expected" ] || fail "$*: $(wc -l <"$folder/out") results, not $expected"
    while read -r line; do
        for field in $fields; do
            [[ $line == *"$field":* ]] || fail "$*: no $field in $line"
        done
        [[ $line == "{"*"}" ]] || fail "$*: no object: $line"
    done <"$folder/out"
}

run 3 urpc one-way wake-up pipelined --slots 64
run 1 urpc rate --slots 64 --batch 32
grep -q '"ratio":' "$folder/out" || fail "no ratio to a raw limit"
run 3 poll look
run 3 poll arm
run 6 poll late
grep -q 'late after_us=5' "$folder/hdr" || fail "no percentile text"
run 9 limits
samples=4 # of a thousand commands each
run 8 ordered direct
run 3 ordered plan
run 4 ordered urpc
run 2 ordered tcp
run 6 ordered blocking
run 2 ordered tcp --outstanding 64
run 6 ordered failover
run 2 ordered machine
run 4 two-phase direct
run 10 two-phase single
run 4 one-phase direct
run 4 shootdown pipelined

"$bench" urpc --slots 65 2>/dev/null && fail "65 slots were taken"
"$bench" urpc --batch 1000 2>/dev/null && fail "a batch of 1000 was taken"
"$bench" nothing 2>/dev/null && fail "a bench that is not there ran"
"$bench" urpc --cores 0,99999 2>/dev/null && fail "a CPU that is not there was taken"
"$bench" --help | grep -q urpc || fail "no help"
echo "all pieces ran"
