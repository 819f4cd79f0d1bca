#!/usr/bin/env bash
# A link of Rackfish over RDMA against the device itself: perftest and `rf-bench link-hosts` in turn, between two guests, so
# that a host that gets busier slows both. Medians over the rounds, and their ratios.
#
#   link_bench.sh BUILD-FOLDER [--device rxe|siw] [--rounds N] [--json]
#
#   one-way    a slot of 64 bytes and its echo, halved: ib_write_lat (ib_send_lat where slots come by SEND)
#   rate       slots of 64 bytes, 64 a flush: ib_write_bw of 64 bytes, posted 64 at a time
#   bulk       remote writes of 64 KiB and 1 MiB: ib_write_bw of that size
#
# A guest has one CPU, of this host: measure on a host that does nothing else. Where two guests do not get a CPU each, what
# is measured is the host's scheduler.
set -u
device=rxe rounds=5 json=
folder=${1:?build folder}
shift
while (($#)); do
    case $1 in
    --device) device=${2:?rxe or siw} && shift ;;
    --rounds) rounds=${2:?a number} && shift ;;
    --json) json=1 ;;
    *) echo "link_bench.sh: unknown option $1; there are --device, --rounds and --json" >&2 && exit 2 ;;
    esac
    shift
done
[[ $rounds =~ ^[1-9][0-9]*$ ]] || { echo "link_bench.sh: --rounds takes a number from 1" >&2 && exit 2; }
source "$(dirname "$0")/lib.sh" "$folder" >&2
[[ -e $build/modules/rackfish-rdma.so ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"
command -v ib_write_bw >/dev/null || skip "no ib_write_bw; apt-get install perftest"

case $device in # how a queue pair is made, and which of perftest's programs does what a slot does
rxe) how=(-d rxe0 -x 1) latency=ib_write_lat ;;
siw) how=(-d siw0 -R) latency=ib_send_lat ;;
*) echo "link_bench.sh: --device takes rxe or siw, not $device" >&2 && exit 2 ;;
esac

# raw WHAT COLUMN SCALE PROGRAM OPTION...: one figure of perftest, into $work/WHAT.raw. perftest that could not tell the clock
# rate of a busy host says inf, or says nothing: it is asked again, for a while.
raw() {
    local what=$1 column=$2 scale=$3 figure until=$((SECONDS + 120))
    shift 3
    while ((SECONDS < until)); do
        perftest_pair "$@" "${how[@]}" >/dev/null 2>&1
        figure=$(perftest_figure "$column")
        if [[ $figure =~ ^[0-9]+(\.[0-9]+)?$ && ! $figure =~ ^[0.]+$ ]]; then
            awk -v figure="$figure" -v scale="$scale" 'BEGIN { printf "%.3f\n", figure * scale }' >>"$work/$what.raw"
            return 0
        fi
        sleep 1
    done
    fail "$what: $1 gives no figure: $(tail -n 3 "$work/perftest" | tr '\n' ' ')"
    return 1
}

# ours: all pieces over one link, the median of each into $work/WHAT.ours.
ours() {
    local server status until=$((SECONDS + 30)) port=$((4711 + ours_n++))
    in_guest 1 rf-bench --transport rdma link-hosts listen "10.77.0.1:$port" >"$work/listens" 2>&1 &
    server=$!
    while ((SECONDS < until)) && ! in_guest 1 ss -ltn | grep -q ":$port "; do sleep 0.2; done
    in_guest 2 rf-bench --transport rdma --json --batch 64 link-hosts "10.77.0.1:$port" >"$work/ours" 2>"$work/ours.err"
    status=$?
    wait "$server"
    ((status == 0)) || { fail "rf-bench link-hosts: $(tail -n 1 "$work/ours.err")" && return 1; }
    ours_figure one-way 'rdma one-way' ''
    ours_figure rate 'rdma rate' '"batch":64,'
    ours_figure bulk-64K 'rdma bulk' '"bytes":65536,'
    ours_figure bulk-1M 'rdma bulk' '"bytes":1048576,'
}
ours_n=0

ours_figure() { # WHAT NAME PARAMETER
    grep -F "\"what\":\"$2\"" "$work/ours" | grep -F "$3" | json p50 >>"$work/$1.ours" ||
        fail "rf-bench link-hosts says nothing of $1"
}

median() { sort -g "$1" | awk '{ value[NR] = $1 } END { if (NR) print NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2 }'; }
line() { # WHAT UNIT BETTER: ours is in the unit in which perftest's was scaled
    local a b
    a=$(median "$work/$1.raw") && b=$(median "$work/$1.ours")
    [[ -n $a && -n $b ]] || return
    if [[ $json ]]; then
        awk -v what="$1" -v unit="$2" -v device="$device" -v rounds="$rounds" -v raw="$a" -v ours="$b" 'BEGIN {
            printf "{\"bench\":\"link-bench\",\"device\":\"%s\",\"what\":\"%s\",\"unit\":\"%s\",\"rounds\":%d,\"raw\":%s,\"rackfish\":%s,\"ratio\":%.3f}\n",
                device, what, unit, rounds, raw, ours, ours / raw }'
    else
        awk -v what="$1" -v unit="$2" -v better="$3" -v raw="$a" -v ours="$b" 'BEGIN {
            printf "%-10s %12s %12s  %-5s %6.2f  %s\n", what, raw, ours, unit, ours / raw, better }'
    fi
}

guest_timeout=300 # on a busy host
lab_up --hosts 2 --device "$device" >&2
for ((round = 1; round <= rounds && failures == 0; round++)); do
    say "        round $round of $rounds, load $(cut -d' ' -f1 /proc/loadavg)" >&2
    raw one-way 5 1000 "$latency" -s 64 -n 2000 && ours &&
        raw rate 5 1 ib_write_bw -s 64 -n 16384 -l 64 -t 128 &&
        raw bulk-64K 4 125 ib_write_bw -s 65536 -n 320 -t 4 --report_gbits &&
        raw bulk-1M 4 125 ib_write_bw -s 1048576 -n 320 -t 4 --report_gbits
done
((failures == 0)) || exit 1
[[ $json ]] || printf '%-10s %12s %12s  %-5s %6s\n' "$device" perftest rackfish unit ratio
line one-way ns "less is better"
line rate M/s "more is better"
line bulk-64K MB/s "more is better"
line bulk-1M MB/s "more is better"
