#!/usr/bin/env bash
# Incast over RDMA: guests 2 to N send to guest 1 at the same time, by `rf-bench incast`; beside it as many ib_write_bw of
# perftest, one from each of these guests, whose figures are added up.
#
#   incast_bench.sh BUILD-FOLDER [--device rxe|siw] [--hosts 3..5] [--rounds N] [--json]
#
# What each sender writes is 64 KiB, four under way. Which of the two goes first changes with each round; the figures are medians over the rounds.
# A guest has one CPU, of this host, which they all share: the receiver is pinned to the first, the senders share the second.
set -u
device=rxe hosts=3 rounds=1 json=
declare -A takes=([device]='rxe|siw' [hosts]='[3-5]' [rounds]='[1-9][0-9]*' [json]='')
# shellcheck source=tests/lab/options.sh
source "$(dirname "$0")/../options.sh"
bench_options "$@"
source "$(dirname "$0")/lib.sh" "$folder" >&2
[[ -e $build/modules/rackfish-rdma.so ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"
case $device in
rxe) how=(-d rxe0 -x 1) ;;
siw) how=(-d siw0 -R) ;;
esac
guest_timeout=300

listening() { # PORT: in guest 1, soon
    # shellcheck disable=SC2016 # expanded in the guest
    in_guest 1 sh -c 'for i in $(seq 600); do
        if ss -ltn | grep -q ":$0 " || rdma resource show cm_id | grep LISTEN | grep -q ":$0 "; then exit 0; fi
        sleep 0.1
    done; exit 1' "$1"
}

# Every sender at once: each its own server and port in guest 1. The sum; nothing, where one could not tell the clock rate
# of a busy host.
raw_once() {
    local guest jobs=()
    for ((guest = 2; guest <= hosts; guest++)); do
        in_guest 1 ib_write_bw -F -p $((18500 + guest)) -s 65536 -n 2560 -t 4 --report_gbits "${how[@]}" >"$work/server.$guest" 2>&1 &
        jobs+=($!)
        listening $((18500 + guest)) || fail "ib_write_bw listens for guest $guest"
    done
    for ((guest = 2; guest <= hosts; guest++)); do
        in_guest "$guest" ib_write_bw -F -p $((18500 + guest)) -s 65536 -n 2560 -t 4 --report_gbits "${how[@]}" 10.77.0.1 >"$work/raw.$guest" 2>&1 &
        jobs+=($!)
    done
    wait "${jobs[@]}"
    awk -v n=$((hosts - 1)) '$1 ~ /^[0-9]+$/ && $4 ~ /^[0-9.]+$/ && $4 > 0 { sum += $4; n-- } END { if (n == 0) print sum * 125 }' "$work"/raw.*
}

raw_all() {
    local figure until=$((SECONDS + 300))
    while ((SECONDS < until)); do
        figure=$(raw_once)
        [[ $figure ]] && echo "$figure" >>"$work/raw" && return
    done
    fail "ib_write_bw gives no figure: $(tail -n 3 "$work/raw.2" | tr '\n' ' ')"
}

ours_all() {
    local guest jobs=() status port=$((4712 + round))
    in_guest 1 rf-bench --transport rdma --json incast --senders $((hosts - 1)) listen "10.77.0.1:$port" >"$work/ours" 2>"$work/ours.err" &
    local receiver=$!
    listening "$port" || fail "rf-bench incast listens"
    for ((guest = 2; guest <= hosts; guest++)); do
        in_guest "$guest" rf-bench --transport rdma incast "10.77.0.1:$port" >"$work/sender.$guest" 2>&1 &
        jobs+=($!)
    done
    wait "$receiver"
    status=$?
    wait "${jobs[@]}"
    ((status == 0)) || { fail "rf-bench incast: $(tail -n 1 "$work/ours.err")" && return 1; }
    for figure in "${figures[@]}"; do grep -F "\"what\":\"rdma $figure\"" "$work/ours" | json p50 >>"$work/$figure"; done
}
figures=(bulk 'bulk, share of the slowest' rate 'rate, share of the slowest')

median() { sort -g "$work/$1" | awk '{ value[NR] = $1 } END { if (NR) print NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2 }'; }

lab_up --hosts "$hosts" --device "$device" >&2
mapfile -t cpus < <(cpus_allowed)
senders=()
for ((guest = 2; guest <= hosts; guest++)); do senders+=("${cpus[1]:-}"); done
guests_spread "${cpus[0]}" "${senders[@]}"
for ((round = 1; round <= rounds && failures == 0; round++)); do
    if ((round % 2)); then raw_all && ours_all; else ours_all && raw_all; fi
    say "        round $round of $rounds: perftest $(tail -n 1 "$work/raw"), rackfish $(tail -n 1 "$work/bulk") MB/s, $(tail -n 1 "$work/rate") M/s" >&2
done
((failures == 0)) || exit 1
raw=$(median raw) bulk=$(median bulk) bulk_share=$(median "${figures[1]}") rate=$(median rate) rate_share=$(median "${figures[3]}")
if [[ $json ]]; then
    printf '{"bench":"incast-bench","device":"%s","senders":%d,"rounds":%d,"pinned":%d,"priority":%d,"raw_MB_s":%s,"bulk_MB_s":%s,"bulk_share":%s,"rate_M_s":%s,"rate_share":%s}\n' \
        "$device" $((hosts - 1)) "$rounds" "$guests_pinned" "$guests_prior" "$raw" "$bulk" "$bulk_share" "$rate" "$rate_share"
else
    printf '%s, %d senders: perftest %s MB/s in all; remote writes %s MB/s, the slowest %s %% of its share; slots %s M/s, %s %%\n' \
        "$device" $((hosts - 1)) "$raw" "$bulk" "$bulk_share" "$rate" "$rate_share"
fi
