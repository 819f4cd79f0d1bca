#!/usr/bin/env bash
# A link of Rackfish over RDMA against the device itself: perftest and `rf-bench link-hosts` in turn, between two guests, so
# that a host that gets busier slows both. Medians over the rounds, and their ratios.
#
#   link_bench.sh BUILD-FOLDER [--device rxe|siw] [--rounds N] [--json] [PIECE...]
#
#   write-one-way   a slot of 64 bytes and its echo, halved, slots by WRITE, both ends polling: ib_write_lat
#   send-one-way    the same by SEND: ib_send_lat
#   send-sleeping   the same, both ends sleeping until something comes: ib_send_lat -e
#   read            a remote read of 64 bytes, there and back: ib_read_lat
#   rate            slots of 64 bytes, 64 a flush, as the device has them by default: the best of ib_write_bw and ib_send_bw of 64 bytes,
#                   each posted one by one and 64 at a time. Each of theirs is a message; ours packs up to 16 slots into one
#   bulk-64K        remote writes of 64 KiB, four under way, 200 MB of them: ib_write_bw of that size and depth, its average
#   bulk-64K-deep   ... 64 under way
#   bulk-64K-placed ... four under way, beside bare verbs (bare.c) that count a write when ours does: when it is at the peer
#   bulk-1M         ... of 1 MiB, four under way
#
# --json prints an object a line, and the table on standard error.
#
# Besides the ratio of the medians stands that of the better quartiles. Of a host that is shared, a run may find it in one of two states, in
# which the same program is a third slower (36 or 48 us for a slot over siw) with as many frames, interrupts and system calls; it may have
# changed by the next run. Where half of the rounds were so, the medians compare one state with the other: 0.8 or 1.2 by chance. The
# quartiles compare the undisturbed rounds of both, if there were at least a few.
#
# Which of the two goes first changes with each round, and guests are pinned to a CPU each, where there are two, their kernels before their
# programs (lib.sh; GUESTS_FAIR=1: without that); JSON says whether they were. A guest has one CPU, of this
# host: measure on a host that does nothing else. Where two guests do not get a CPU each, what is measured is the host's scheduler; so it is in a
# transfer of a few tens of ms, which ends before that has settled. Slots by WRITE are, on either device, what nobody should use but to
# measure (transport/rdma/placement.c). On siw ib_write_bw counts a write, and posts the next, when TCP has taken it; ours when it is in the
# receiver's memory, which a READ behind it says. Beyond its depth perftest has under way there what TCP buffers: up to 4 MiB, bookkeeping
# counted (tcp_wmem), whatever the depth. Ours sleeps there while it waits: siw sends and answers by threads of the kernel, which a
# program that polls keeps from a guest's one CPU until its next tick; perftest polls, and has no other way for WRITE. bulk-64K-deep and bulk-1M have as much under way by themselves; bulk-64K-placed has two that mean
# the same by a write that is done.
set -u
device=rxe rounds=5 json=
all=(write-one-way send-one-way send-sleeping read rate bulk-64K bulk-64K-deep bulk-64K-placed bulk-1M)
declare -A depths=([bulk-64K]=4 [bulk-64K-deep]=64 [bulk-64K-placed]=4 [bulk-1M]=4)
declare -A takes=([device]='rxe|siw' [rounds]='[1-9][0-9]*' [json]='')
# shellcheck source=tests/lab/options.sh
source "$(dirname "$0")/../options.sh"
bench_options "$@"
source "$(dirname "$0")/lib.sh" "$folder" >&2
[[ -e $build/modules/rackfish-rdma.so ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"
command -v ib_write_bw >/dev/null || skip "no ib_write_bw; apt-get install perftest"

case $device in # how perftest makes a queue pair; how who writes waits
rxe) how=(-d rxe0 -x 1) waits=() ;;
siw) how=(-d siw0 -R) waits=(--events) ;;
esac

# raw PIECE COLUMN SCALE PROGRAM OPTION...: one figure of perftest, into $work/PIECE.raw.
raw() {
    local what=$1 figure
    shift
    figure=$(asked 120 "$@") || { fail "$what: $3 gives no figure: $(tail -n 3 "$work/perftest" | tr '\n' ' ')" && return 1; }
    echo "$figure" >>"$work/$what.raw"
}

# asked SECONDS COLUMN SCALE PROGRAM OPTION...: prints one figure of perftest. perftest that could not tell the clock rate of a busy host
# says inf, or says nothing: it is asked again, for so long.
asked() {
    local until=$((SECONDS + $1)) column=$2 scale=$3 figure
    shift 3
    while ((SECONDS < until)); do
        perftest_pair "$@" "${how[@]}" >/dev/null 2>&1
        figure=$(perftest_figure "$column")
        if [[ $figure =~ ^[0-9]+(\.[0-9]+)?$ && ! $figure =~ ^[0.]+$ ]]; then
            awk -v figure="$figure" -v scale="$scale" 'BEGIN { printf "%.3f\n", figure * scale }'
            return 0
        fi
        sleep 1
    done
    return 1
}

# The best of this round, into $work/rate.raw; one way of asking that gives no figure does not count.
raw_rate() {
    local program list figures=
    for program in ib_write_bw ib_send_bw; do
        for list in "" "-l 64"; do
            # shellcheck disable=SC2086 # two words
            figures+="$(asked 40 5 1 "$program" -s 64 -n 16384 -t 128 $list) $program $list"$'\n'
        done
    done
    sed '/^$/d; /^[0-9]/!s/^/no figure:/; s/^/        /' <<<"$figures" >&2
    sort -g <<<"$figures" | awk '/^[0-9]/ { best = $1 } END { if (best) print best; else exit 1 }' >>"$work/rate.raw" ||
        { fail "rate: perftest gives no figure: $(tail -n 3 "$work/perftest" | tr '\n' ' ')" && return 1; }
}

# ours PIECE FIGURE MODE OPTION...: one piece of link-hosts over a link of its own, that figure of it into $work/PIECE.ours.
ours() {
    local what=$1 figure=$2 server status until=$((SECONDS + 150)) port=$((4711 + ours_n++))
    shift
    local options=(--transport rdma --medium "mode=$2") listener=()
    [[ " $* " == *" --events "* ]] && listener=(--events)
    shift 2
    in_guest 1 rf-bench "${options[@]}" "${listener[@]}" link-hosts listen "10.77.0.1:$port" >"$work/listens" 2>&1 &
    server=$!
    while ((SECONDS < until)) && ! in_guest 1 ss -ltn | grep -q ":$port "; do sleep 0.2; done
    in_guest 2 rf-bench "${options[@]}" --json link-hosts "10.77.0.1:$port" "$@" >"$work/ours" 2>"$work/ours.err"
    status=$?
    wait "$server"
    ((status == 0)) || { fail "$what: rf-bench: $(tail -n 1 "$work/ours.err")" && return 1; }
    json "$figure" <"$work/ours" >>"$work/$what.ours" || fail "$what: rf-bench says nothing of it"
}
ours_n=0

# bandwidth WHO PIECE BYTES WRITES: over all writes; a sample of ours is 16 of them.
bandwidth() {
    case $1 in
    raw) raw "$2" 4 125 ib_write_bw -s "$3" -n "$4" -t "${depths[$2]}" --report_gbits ;;
    ours) ours "$2" whole_mb_s auto bulk "${waits[@]}" --bytes "$3" --depth "${depths[$2]}" --samples $(($4 / 16)) ;;
    esac
}

# placed PIECE BYTES WRITES: bare verbs.
placed() {
    local server port=$((7301 + placed_n++)) status
    in_guest 1 "$build/tests/rdma_bare" serve 10.77.0.1 "$port" >"$work/serves" 2>&1 &
    server=$!
    # shellcheck disable=SC2016 # expanded in the guest
    in_guest 1 sh -c 'for i in $(seq 600); do if rdma resource show cm_id | grep LISTEN | grep -q ":$0 "; then exit 0; fi; sleep 0.1; done' "$port"
    in_guest 2 "$build/tests/rdma_bare" bulk "$2" "${depths[$1]}" "$3" 10.77.0.1 "$port" >"$work/bare" 2>"$work/bare.err"
    status=$?
    wait "$server"
    ((status == 0)) || { fail "$1: bare verbs: $(tail -n 1 "$work/bare.err") $(cat "$work/serves")" && return 1; }
    cat "$work/bare" >>"$work/$1.raw"
}
placed_n=0

# measure WHO PIECE
measure() {
    case "$1 $2" in
    "raw write-one-way") raw "$2" 5 1000 ib_write_lat -s 64 -n 2000 ;;
    "ours write-one-way") ours "$2" p50 write one-way --samples 2000 ;;
    "raw send-one-way") raw "$2" 5 1000 ib_send_lat -s 64 -n 2000 ;;
    "ours send-one-way") ours "$2" p50 send one-way --samples 2000 ;;
    "raw send-sleeping") raw "$2" 5 1000 ib_send_lat -e -s 64 -n 2000 ;;
    "ours send-sleeping") ours "$2" p50 send one-way --events --samples 2000 ;;
    "raw read") raw "$2" 5 1000 ib_read_lat -s 64 -n 2000 ;;
    "ours read") ours "$2" p50 auto read --samples 2000 ;;
    "raw rate") raw_rate ;;
    "ours rate") ours "$2" p50 auto rate --batch 64 --samples 5 ;;
    "raw bulk-64K-placed") placed "$2" 65536 3200 ;;
    *bulk-64K*) bandwidth "$1" "$2" 65536 3200 ;;
    *bulk-1M) bandwidth "$1" "$2" 1048576 192 ;;
    esac
}

# quantile FILE PART: of its figures; 0.5: the median.
quantile() {
    sort -g "$1" | awk -v part="$2" '{ value[NR] = $1 } END { if (NR) {
        at = 1 + (NR - 1) * part; low = int(at); high = low < NR ? low + 1 : low; print value[low] + (at - low) * (value[high] - value[low]) } }'
}

# ours is in the unit in which perftest's was scaled.
line() {
    local a b best_a best_b unit better depth=${depths[$1]:-} best=0.25
    case $1 in
    *-one-way | *-sleeping | read) unit=ns better="less is better" ;;
    rate) unit=M/s better="more is better" best=0.75 ;;
    *) unit=MB/s better="more is better" best=0.75 ;;
    esac
    a=$(quantile "$work/$1.raw" 0.5) && b=$(quantile "$work/$1.ours" 0.5)
    best_a=$(quantile "$work/$1.raw" $best) && best_b=$(quantile "$work/$1.ours" $best)
    [[ -n $a && -n $b ]] || return 0
    awk -v what="$1" -v unit="$unit" -v better="$better" -v depth="${depth:--}" -v raw="$a" -v ours="$b" -v best_raw="$best_a" -v best_ours="$best_b" 'BEGIN {
        printf "%-15s %5s %12s %12s  %-5s %6.2f %9.2f  %s\n", what, depth, raw, ours, unit, ours / raw, best_ours / best_raw, better }' >&"$table"
    [[ $json ]] || return 0
    awk -v what="$1" -v depth="${depth:-null}" -v unit="$unit" -v device="$device" -v rounds="$rounds" -v raw="$a" -v ours="$b" -v best_raw="$best_a" -v best_ours="$best_b" -v pinned=$guests_pinned -v prior=$guests_prior 'BEGIN {
        printf "{\"bench\":\"link-bench\",\"device\":\"%s\",\"what\":\"%s\",\"depth\":%s,\"unit\":\"%s\",\"rounds\":%d,\"pinned\":%d,\"priority\":%d,\"raw\":%s,\"rackfish\":%s,\"ratio\":%.3f,\"best_raw\":%s,\"best_rackfish\":%s,\"best_ratio\":%.3f}\n",
            device, what, depth, unit, rounds, pinned, prior, raw, ours, ours / raw, best_raw, best_ours, best_ours / best_raw }'
}

guest_timeout=300 # on a busy host
lab_up --hosts 2 --device "$device" >&2
mapfile -t cpus < <(cpus_allowed)
guests_spread "${cpus[0]}" "${cpus[1]:-}"
for ((round = 1; round <= rounds && failures == 0; round++)); do
    say "        round $round of $rounds, load $(cut -d' ' -f1 /proc/loadavg)" >&2
    order=(raw ours)
    ((round % 2)) || order=(ours raw)
    for piece in "${pieces[@]}"; do
        measure "${order[0]}" "$piece" && measure "${order[1]}" "$piece" || break
        say "        $piece: perftest $(tail -n 1 "$work/$piece.raw"), rackfish $(tail -n 1 "$work/$piece.ours")" >&2
    done
done
((failures == 0)) || exit 1
if [[ $json ]]; then table=2; else table=1; fi
printf '%-15s %5s %12s %12s  %-5s %6s %9s\n' "$device" depth perftest rackfish unit ratio quartiles >&"$table"
for piece in "${pieces[@]}"; do line "$piece"; done
