#!/usr/bin/env bash
# Many hosts of the lab over DPDK at once, beside what the wire between them carries by itself, in the same run: bare DPDK frames, the
# kernel's UDP and TCP (`rf-wire-flood`), and links over TCP.
#
#   many_bench.sh BUILD-FOLDER [--driver af_packet|af_xdp] [--senders 8] [--hosts 4] [--rounds N] [--samples 40] [--flood_ms 2000] [--json] [PIECE...]
#
#   incast     --senders hosts send to one: `rf-bench incast`, slots and remote writes of 64 KiB
#   alltoall   each of --hosts hosts sends to all others: `rf-bench alltoall`; bare only UDP and TCP, since a bare port has one process
#   bulk       one sends to one, the same as incast with one sender
#
# "share" is what the slowest sender (pair) got through, in percent of an equal share, "least" that of the worst round. "dropped" is what the wire's queues and the
# receiver's port have thrown away, in percent of the frames that were sent: what congestion control lets through too much. Figures are
# medians over the rounds, in which all sides take turns. All hosts share this host's CPUs, so that what is measured with few of
# them is its scheduler, too.
# Over --samples of links and --flood_ms of the bare wire: less shows that all of it runs, and tells nothing.
# --json prints an object a line, and the table on standard error.
set -u
driver=af_packet senders=8 hosts=4 rounds=3 samples=40 flood_ms=2000 json=''
all=(incast alltoall bulk)
declare -A takes=([driver]='af_packet|af_xdp' [senders]='[1-8]' [hosts]='[2-9]' [rounds]='[1-9][0-9]*' [samples]='[1-9][0-9]*' [flood_ms]='[1-9][0-9]*' [json]='')
# shellcheck source=tests/lab/options.sh
source "$(dirname "$0")/../options.sh"
bench_options "$@"
source "$(dirname "$0")/lib.sh" "$folder" >&2
[[ -e $build/modules/rackfish-dpdk.so ]] || skip "built without DPDK; apt-get install libdpdk-dev"
case $driver in
af_packet) interface=lan0 mac=02:52:46:00:00:0 port=v ;;
af_xdp) interface=dpdk0 mac=02:52:46:00:01:0 port=d ;;
esac
device=net_${driver}0,iface=$interface
n=2
for piece in "${pieces[@]}"; do
    [[ $piece != incast ]] || n=$((n > senders + 1 ? n : senders + 1))
    [[ $piece != alltoall ]] || n=$((n > hosts ? n : hosts))
done
lab_up --hosts $n >&2
guest_timeout=120 next_port=4800

drivers_begin() { # HOSTS
    local host
    for ((host = 1; host <= $1; host++)); do
        guest_timeout=3000 in_guest $host rackfish-dpdk --socket=/run/driver.sock --device=$device 2>"$work/driver.$host" >&2 &
        within "the link driver of host $host serves" 30 in_guest $host test -S /run/driver.sock >&2
    done
}
drivers_end() { # HOSTS
    local host
    for ((host = 1; host <= $1; host++)); do in_guest $host sh -c 'pkill -KILL -x rackfish-dpdk; rm -f /run/driver.sock'; done
}
options_of() { # MEDIUM: into $options
    options=(--transport "$1" --events --json --samples "$samples") # seconds: what a sender gets of a CPU in one is the scheduler's
    [[ $1 != dpdk ]] || options+=(--medium driver=/run/driver.sock)
}
listens() { # HOST PORT
    within "host $1 listens" 20 in_guest "$1" sh -c "ss -ltn | grep -q ':$2 '" >&2
}
keep() { # NAME FILE MEDIUM: p50 of the rows of rf-bench, a file for each figure
    local piece share
    for piece in rate bulk; do
        for share in "" ",share"; do
            awk -v what="\"what\":\"$3 $piece" -v share="$share" 'index($0, what (share ? ", share" : "\""))' "$2" | json p50 >>"$work/$1.$piece$share"
        done
    done
}

incast() { # NAME MEDIUM SENDERS
    local receiver host jobs=() port=$((next_port++))
    options_of "$2"
    in_guest 1 rf-bench "${options[@]}" --senders "$3" incast listen "10.77.0.1:$port" >"$work/out" 2>"$work/err" &
    receiver=$!
    listens 1 $port
    for ((host = 2; host <= $3 + 1; host++)); do
        in_guest $host rf-bench "${options[@]}" incast "10.77.0.1:$port" >"$work/sender.$host" 2>&1 &
        jobs+=($!)
    done
    wait "$receiver" || fail "$1 over $2: $(tail -n 1 "$work/err")" >&2
    wait "${jobs[@]}"
    keep "$1-$2" "$work/out" "$2"
}
alltoall() { # NAME MEDIUM HOSTS
    local host jobs=() port=$((next_port++)) addresses=()
    options_of "$2"
    for ((host = 1; host <= $3; host++)); do addresses+=("10.77.0.$host:$port"); done
    for ((host = 1; host <= $3; host++)); do
        in_guest $host rf-bench "${options[@]}" alltoall $((host - 1)) "${addresses[@]}" >"$work/out.$host" 2>"$work/err.$host" &
        jobs+=($!)
        ((host == $3)) || listens $host $port
    done
    wait "${jobs[0]}" || fail "$1 over $2: $(tail -qn 1 "$work"/err.*)" >&2
    wait "${jobs[@]}"
    keep "$1-$2" "$work/out.1" "$2"
}
# flood NAME udp|tcp|dpdk SENDERS: what the wire carries by itself
flood() {
    local what=$2 to=10.77.0.1 host receiver jobs=() until=$((SECONDS + 100))
    [[ $2 != dpdk ]] || { what=$device && to=${mac}1; }
    in_guest 1 rf-wire-flood take "$what" "$3" "$flood_ms" >"$work/flood" 2>"$work/err" &
    receiver=$!
    [[ $2 != dpdk ]] || while ! grep -q ready "$work/flood" && ((SECONDS < until)); do sleep 0.1; done
    for ((host = 2; host <= $3 + 1; host++)); do
        in_guest $host rf-wire-flood give "$what" "$to" 60000 >/dev/null 2>&1 &
        jobs+=($!)
    done
    wait "$receiver" || fail "$1: bare $2: $(tail -n 1 "$work/err")" >&2
    for ((host = 2; host <= $3 + 1; host++)); do in_guest $host pkill -x rf-wire-flood; done
    wait "${jobs[@]}"
    awk 'NF == 2 { print $1 >>bulk; print $2 >>share }' bulk="$work/$1-bare-$2.bulk" share="$work/$1-bare-$2.bulk,share" "$work/flood"
}

# flood_all NAME udp|tcp HOSTS: the same from each host to each other; the sum, and the slowest pair of all beside an equal share
flood_all() {
    local host other takers=() givers=()
    for ((host = 1; host <= $3; host++)); do
        in_guest $host rf-wire-flood take "$2" $(($3 - 1)) "$flood_ms" >"$work/flood.$host" 2>"$work/err.$host" &
        takers+=($!)
    done
    for ((host = 1; host <= $3; host++)); do
        for ((other = 1; other <= $3; other++)); do
            ((other != host)) || continue
            in_guest $host rf-wire-flood give "$2" "10.77.0.$other" 60000 >/dev/null 2>&1 &
            givers+=($!)
        done
    done
    for host in "${!takers[@]}"; do
        wait "${takers[host]}" || fail "$1: bare $2: $(tail -n 1 "$work/err.$((host + 1))")" >&2
    done
    for ((host = 1; host <= $3; host++)); do in_guest $host pkill -x rf-wire-flood; done
    wait "${givers[@]}"
    for ((host = 1; host <= $3; host++)); do awk 'NF == 2' "$work/flood.$host"; done | awk -v hosts="$3" '
        { all += $1; pair = $1 * $2 / 100 / (hosts - 1); if (NR == 1 || pair < least) least = pair }
        END { if (NR == hosts && all > 0) { print all >>bulk; printf "%.1f\n", 100 * least * hosts * (hosts - 1) / all >>share } }' \
        bulk="$work/$1-bare-$2.bulk" share="$work/$1-bare-$2.bulk,share" -
}

# Frames that the bridge's port before host 1 and that host's interface have dropped, and those sent to it, so far.
wire_counts() {
    { in_wire cat "/sys/class/net/${port}1/statistics/"{tx_dropped,tx_packets} && in_guest 1 cat "/sys/class/net/$interface/statistics/rx_dropped"; } |
        tr '\n' ' '
}
dropped() { # BEFORE AFTER: percent
    awk -v a="$1" -v b="$2" 'BEGIN { split(a, x, " "); split(b, y, " "); sent = y[2] - x[2]
        printf "%.3f\n", (sent > 0 ? 100 * (y[1] - x[1] + y[3] - x[3]) / sent : 0) }'
}

for ((round = 0; round < rounds; round++)); do
    for piece in "${pieces[@]}"; do
        case $piece in
        incast) run=incast many=$senders ends=$((senders + 1)) ;;
        alltoall) run=alltoall many=$hosts ends=$hosts ;;
        bulk) run=incast many=1 ends=2 ;;
        esac
        drivers_begin "$ends"
        before=$(wire_counts)
        $run "$piece" dpdk "$many"
        dropped "$before" "$(wire_counts)" >>"$work/$piece-dpdk.dropped"
        drivers_end "$ends"
        $run "$piece" tcp "$many"
        for bare in dpdk udp tcp; do
            if [[ $piece != alltoall ]]; then
                flood "$piece" $bare "$many"
            elif [[ $bare != dpdk ]]; then
                flood_all "$piece" $bare "$many"
            fi
        done
    done
done

median() { sort -g "$work/$1" 2>/dev/null | awk '{ value[NR] = $1 } END { print NR ? value[int((NR + 1) / 2)] : "null" }'; }
least() { sort -g "$work/$1" 2>/dev/null | awk 'NR == 1' | grep . || echo null; }
row() { # PIECE SIDE MANY
    local name=$1-$2
    printf '%-9s %-10s %7s MB/s share %5s %% (least %5s)   %8s M slots/s share %5s %% (least %5s)   dropped %s %%\n' "$1" "${2/-/ }" "$(median "$name.bulk")" \
        "$(median "$name.bulk,share")" "$(least "$name.bulk,share")" "$(median "$name.rate")" "$(median "$name.rate,share")" "$(least "$name.rate,share")" \
        "$(median "$name.dropped")" >&2
    [[ -z $json ]] || printf '{"bench":"many-bench","what":"%s","side":"%s","driver":"%s","many":%d,"n":%d,"bulk_MB_s":%s,"bulk_share":%s,"rate_M_s":%s,"rate_share":%s,"dropped_percent":%s}\n' \
        "$1" "$2" "$driver" "$3" "$rounds" "$(median "$name.bulk")" "$(median "$name.bulk,share")" "$(median "$name.rate")" "$(median "$name.rate,share")" "$(median "$name.dropped")"
}
for piece in "${pieces[@]}"; do
    many=$senders
    [[ $piece != alltoall ]] || many=$hosts
    [[ $piece != bulk ]] || many=1
    for side in dpdk tcp; do row "$piece" $side "$many"; done
    for side in bare-dpdk bare-udp bare-tcp; do
        [[ $piece$side == alltoallbare-dpdk ]] || row "$piece" $side "$many"
    done
done
finish >&2
