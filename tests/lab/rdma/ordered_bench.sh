#!/usr/bin/env bash
# Commits on three guests by `rf-bench ordered-hosts`, by messages and one-sided, each beside its bare loop over the same links in the same
# run; and in turn with them a write to both voters until the first is complete by nothing but verbs (bare.c), which polls, too.
#
#   ordered_bench.sh BUILD-FOLDER [--device rxe|siw] [--rounds N] [--samples N] [--events] [--json]
#
# --events: all sleep until something comes. Else the leader and the first voter poll, and the second voter looks every 500 us: three guests that
# poll would starve each other on two CPUs. A round in which the p99 of a bare loop is over 5 times its p50 is inconclusive, and says so.
# The guests are pinned where there are two CPUs: the leader has one, the voters share the other if there is no third.
# Software devices tell nothing of an adapter's ordering, nor of what a fence costs there.
set -u
events=()
device=rxe rounds=5 samples=1000 json=
declare -A takes=([device]='rxe|siw' [rounds]='[1-9][0-9]*' [samples]='[1-9][0-9]*' [events]='' [json]='')
# shellcheck source=tests/lab/options.sh
source "$(dirname "$0")/../options.sh"
bench_options "$@"
((${#events[@]})) && events=(--events)
source "$(dirname "$0")/lib.sh" "$folder" >&2
[[ -e $build/modules/rackfish-rdma.so ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"
guest_timeout=120 ports=4711

# once PIECE: one run of three processes; its two lines of JSON into $work/run.
once() {
    local voters=() guest look=(500)
    ((${#events[@]})) && look=()
    ports=$((ports + 1))
    in_guest 2 rf-bench --transport rdma "${events[@]}" ordered-hosts voter 1 "10.77.0.2:$ports" >"$work/voter1" 2>&1 &
    voters+=($!)
    in_guest 3 rf-bench --transport rdma "${events[@]}" ordered-hosts voter 2 "10.77.0.3:$ports" "${look[@]}" >"$work/voter2" 2>&1 &
    voters+=($!)
    for guest in 2 3; do
        # shellcheck disable=SC2016 # expanded in the guest
        in_guest $guest sh -c 'for i in $(seq 600); do if ss -ltn | grep -q ":$0 "; then exit 0; fi; sleep 0.1; done' "$ports"
    done
    in_guest 1 rf-bench --transport rdma "${events[@]}" --json --samples "$samples" ordered-hosts leader \
        "10.77.0.2:$ports" "10.77.0.3:$ports" "$1" >"$work/run" 2>"$work/run.err"
    local status=$?
    wait "${voters[@]}"
    ((status == 0)) || { fail "$1: $(tail -n 3 "$work/run.err" "$work"/voter? | tr '\n' ' ')" && return 1; }
    local raw p99 ours
    raw=$(sed -n 1p "$work/run" | json p50) p99=$(sed -n 1p "$work/run" | json p99) ours=$(sed -n 2p "$work/run" | json p50)
    awk -v raw="$raw" -v p99="$p99" -v ours="$ours" 'BEGIN { print raw, p99, ours, ours / raw, (p99 > 5 * raw) }' >>"$work/$1.rounds"
    tail -n 1 "$work/$1.rounds" | awk -v what="$1" '{ printf "        %-10s bare %.1f us (p99 %.1f), commit %.1f us, %.2f times%s\n", what, $1, $2, $3, $4, $5 ? ", inconclusive" : "" }' >&2
}

# By nothing but verbs: p50 and p99.
verbs() {
    local guest serves=()
    ports=$((ports + 1))
    for guest in 2 3; do
        in_guest $guest "$build/tests/rdma_bare" serve "10.77.0.$guest" "$ports" >"$work/serves$guest" 2>&1 &
        serves+=($!)
        # shellcheck disable=SC2016 # expanded in the guest
        in_guest $guest sh -c 'for i in $(seq 600); do if rdma resource show cm_id | grep LISTEN | grep -q ":$0 "; then exit 0; fi; sleep 0.1; done' "$ports"
    done
    in_guest 1 "$build/tests/rdma_bare" write "$samples" 10.77.0.2 "$ports" 10.77.0.3 "$ports" >"$work/bare" 2>"$work/bare.err" ||
        { fail "bare verbs: $(tail -n 1 "$work/bare.err") $(cat "$work"/serves?)" && return 1; }
    wait "${serves[@]}"
    awk '{ print $1, $2, $1, 1, ($2 > 5 * $1) }' "$work/bare" >>"$work/verbs.rounds"
    awk '{ printf "        %-10s %.1f us (p99 %.1f)%s\n", "verbs", $1, $2, ($2 > 5 * $1) ? ", inconclusive" : "" }' "$work/bare" >&2
}

column() { # of the rounds that are conclusive, else of all: the median
    awk -v n="$2" '$5 == 0 { print $n }' "$work/$1.rounds" | grep . >"$work/some" || awk -v n="$2" '{ print $n }' "$work/$1.rounds" >"$work/some"
    sort -g "$work/some" | awk '{ value[NR] = $1 } END { print NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2 }'
}

lab_up --hosts 3 --device "$device" >&2
# The leader has a CPU of its own; the second voter, which no commit waits for, is beside the first.
mapfile -t cpus < <(cpus_allowed)
guests_spread "${cpus[0]}" "${cpus[1]:-}" "${cpus[2]:-${cpus[1]:-}}"
for ((round = 1; round <= rounds && failures == 0; round++)); do
    say "        round $round of $rounds, load $(cut -d' ' -f1 /proc/loadavg)" >&2
    for piece in one-sided message; do once $piece || break; done
    ((${#events[@]})) || verbs || break
done
((failures == 0)) || exit 1
if [[ $json ]]; then table=2; else table=1; fi
for piece in one-sided message; do
    [[ $piece == one-sided ]] && wanted=1.5 || wanted=2
    awk -v piece=$piece -v device="$device" -v raw="$(column $piece 1)" -v ours="$(column $piece 3)" -v ratio="$(column $piece 4)" -v wanted=$wanted \
        -v sure="$(awk '$5 == 0' "$work/$piece.rounds" | wc -l)" -v rounds="$rounds" 'BEGIN {
        printf "%-4s %-10s bare %8.1f us  commit %8.1f us  ratio %.2f (wanted %.1f)  %d of %d rounds conclusive\n", device, piece, raw, ours, ratio, wanted, sure, rounds }' >&$table
    [[ ! $json ]] || awk -v piece=$piece -v device="$device" -v raw="$(column $piece 1)" -v ours="$(column $piece 3)" -v ratio="$(column $piece 4)" \
        -v sure="$(awk '$5 == 0' "$work/$piece.rounds" | wc -l)" -v rounds="$rounds" -v pinned=$guests_pinned -v prior=$guests_prior 'BEGIN {
        printf "{\"bench\":\"ordered-bench\",\"device\":\"%s\",\"what\":\"%s\",\"unit\":\"us\",\"rounds\":%d,\"conclusive\":%d,\"pinned\":%d,\"priority\":%d,\"raw\":%s,\"rackfish\":%s,\"ratio\":%s}\n", device, piece, rounds, sure, pinned, prior, raw, ours, ratio }'
done
[[ ! -s $work/verbs.rounds ]] || awk -v device="$device" -v bare="$(column verbs 1)" -v ours="$(column one-sided 3)" -v sure="$(awk '$5 == 0' "$work/verbs.rounds" | wc -l)" \
    'BEGIN { printf "%-4s verbs      bare %8.1f us  of which a one-sided commit is %.2f times  %d rounds conclusive\n", device, bare, ours / bare, sure }' >&$table
echo "Software devices tell nothing of an adapter's ordering, nor of what a fence costs there." >&$table
