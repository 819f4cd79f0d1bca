#!/usr/bin/env bash
# What a forger on the wire (forger.c) costs a machine of three hosts over DPDK: honest traffic without it and under each of its kinds,
# and what a link driver spends on a frame that it drops.
#
#   forger_bench.sh BUILD-FOLDER [--driver af_packet|af_xdp] [--rounds N] [--frames 20000] [--seconds 6]
#                   [--against "none replay ..."] [--json] [PIECE...]
#
#   rate       slots of 64 bytes, 64 a flush, on a link between two of the hosts: goodput
#   one-way    a slot and its echo on that link, halved, both ends sleeping in between: p50 and p99
#   clients    operations a second of three clients, one a host, that change and read keys of the machine and think up to 30 ms in between
#   cost       CPU time of a link driver for a frame that it drops, when these come as fast as they go and there is hardly any honest
#              traffic: looking for them, waking up and what the kernel does on its account are in it. What the flow by itself spends
#              on one is `rf-bench flow`
#
# What goes against them: "none"; a kind of the forger's, --frames of it a second; "flood", all kinds, as fast as it goes; "busy", no
# frames, but a process that takes as much of a CPU as the flood's: with few CPUs much of what a flood takes is that. Figures are medians
# over the rounds, in which all take turns, each round the other way round; "kept" is beside "none". A link that is lost, or a slot that
# comes twice or out of order, fails the bench, and so does a history of the clients that is not linearizable.
# --json prints an object a line, and the table on standard error.
set -u
driver=af_packet rounds=3 frames=20000 seconds=6 json='' against="none replay flip random spoof busy flood"
all=(rate one-way clients cost)
kinds="replay flip cut splice random spoof arp"
declare -A takes=([driver]='af_packet|af_xdp' [rounds]='[1-9][0-9]*' [frames]='[1-9][0-9]*' [seconds]='[1-9][0-9]*' [against]='.+' [json]='')
# shellcheck source=tests/lab/options.sh
source "$(dirname "$0")/../options.sh"
bench_options "$@"
for kind in $against; do
    [[ " none busy flood $kinds " == *" $kind "* ]] || { echo "forger_bench.sh: there is nothing called $kind; there are none, busy, flood, $kinds" >&2 && exit 2; }
done
declare -A wires=([af_packet]="v1 v2 v3" [af_xdp]="d1 d2 d3") # where the forger listens
[[ -n ${wires[$driver]:-} ]] || { echo "forger_bench.sh: --driver takes af_packet or af_xdp, not $driver" >&2 && exit 2; }
source "$(dirname "$0")/lib.sh" "$folder" >&2
[[ -e $build/modules/rackfish-dpdk.so ]] || skip "built without DPDK; apt-get install libdpdk-dev"
[[ -x $build/tests/chaos_client ]] || skip "chaos_client is not built"
lab_up --hosts 3 >&2
{
    driver_works "$driver"
    check "the hosts become one machine" lab machine --transport dpdk --driver "$driver"
    ((failures == 0)) || finish
    within "with links over dpdk between all of them" 30 links_up dpdk 6
} >&2

# ---- the forger ----

forging=''
wire_begin() { # COMMAND... in the wire; a TERM of $forging ends it
    rackfish lab exec --name "$lab_name" --timeout 300 wire -- "$@" </dev/null >"$work/forged" &
    forging=$!
}
forger_begin() { # KIND [FRAMES-A-SECOND]; none: nothing
    local options=(--rate "${2:-$frames}" --kinds "$1")
    [[ $1 != flood ]] || options=(--rate 0)
    case $1 in
    none) ;;
    busy) wire_begin sh -c 'while :; do :; done' ;;
    # shellcheck disable=SC2086 # words
    *) wire_begin "$build/tests/dpdk_forger" --seconds 240 "${options[@]}" ${wires[$driver]} ;;
    esac
}
forger_end() { # what it sent, all kinds, into $forged
    forged=0
    [[ -n $forging ]] || return 0
    kill -TERM "$forging"
    wait "$forging" 2>/dev/null
    forging=''
    [[ ! -s $work/forged ]] || forged=$(python3 -c 'import json, sys; s = json.load(sys.stdin); print(sum(s.values()) - s["seen"] - s["refused"])' <"$work/forged")
}

keep() { echo "$3" >>"$work/$1-$2"; } # NAME FIGURE VALUE
median() { sort -g "$work/$1" 2>/dev/null | awk '{ value[NR] = $1 } END { print NR ? value[int((NR + 1) / 2)] : "null" }'; }

# ---- pieces ----

socket() { echo "/run/rackfish/lab/lab$1.dpdk/sock"; }
next_port=4811
on_link() { # rate|one-way KIND
    local server port=$((next_port++)) until=$((SECONDS + 60)) words=(one-way) since
    local options=(--transport dpdk --events)
    [[ $1 != rate ]] || words=(rate --batch 64 --samples 100)
    in_guest 1 rf-bench "${options[@]}" --medium "driver=$(socket 1)" link-hosts listen "10.77.0.1:$port" >"$work/listens" 2>&1 &
    server=$!
    while ((SECONDS < until)) && ! in_guest 1 ss -ltn | grep -q ":$port "; do sleep 0.1; done
    forger_begin "$2"
    since=$EPOCHREALTIME
    guest_timeout=100 in_guest 2 rf-bench "${options[@]}" --medium "driver=$(socket 2)" --json link-hosts "10.77.0.1:$port" "${words[@]}" \
        >"$work/out" 2>"$work/err" || fail "$1, $2: $(tail -n 1 "$work/err")" >&2
    since=$(awk -v a="$since" -v b="$EPOCHREALTIME" 'BEGIN { print b - a }')
    forger_end
    in_guest 1 pkill -x rf-bench
    wait "$server"
    [[ -s $work/out ]] || return 0
    [[ $1 != rate ]] || keep "$1-$2" p50 "$(json whole_slots_s <"$work/out" | awk '{ print $1 / 1e6 }')"
    [[ $1 == rate ]] || { keep "$1-$2" p50 "$(json p50 <"$work/out")" && keep "$1-$2" p99 "$(json p99 <"$work/out")"; }
    keep "$1-$2" frames "$(awk -v n="$forged" -v s="$since" 'BEGIN { printf "%.0f\n", n / s }')"
}

measure_clients() { # KIND
    local pace
    forger_begin "$1"
    sleep 0.5
    pace=$(clients_pace $seconds)
    forger_end
    keep "clients-$1" p50 "$(awk '{ print $1 }' <<<"$pace")"
    keep "clients-$1" share "$(sed 's/.*slowest client \([0-9]*\) .*/\1/' <<<"$pace")"
    keep "clients-$1" frames $((forged * 2 / (2 * seconds + 1)))
}

# Of host 1's link driver so far: ns of CPU time, and frames that it took and dropped.
spent() {
    # shellcheck disable=SC2016 # the host's
    in_guest 1 sh -c 'cut -d" " -f1 /proc/$(pgrep -x rackfish-dpdk)/schedstat' | tr '\n' ' '
    stats 1 | python3 -c 'import json, sys; s = json.load(sys.stdin)
print(sum(s[k] for k in ("frames_forged", "frames_replayed", "frames_stale", "frames_truncated", "packets_strange", "packets_other")))'
}
measure_cost() { # KIND
    local before after
    forger_begin "$1" 0
    sleep 1
    before=$(spent)
    sleep "$seconds"
    after=$(spent)
    forger_end
    awk -v a="$before" -v b="$after" -v s="$seconds" \
        'BEGIN { split(a, x); split(b, y); n = y[2] - x[2]; print (n > 0 ? (y[1] - x[1]) / n : "null"), n / s }' >"$work/out"
    keep "cost-$1" p50 "$(cut -d' ' -f1 "$work/out")"
    keep "cost-$1" frames "$(cut -d' ' -f2 "$work/out")"
}

in_turn() { # WORDS: in each second round the other way round
    ((round % 2 == 0)) && echo "$*" && return
    tr ' ' '\n' <<<"$*" | tac | tr '\n' ' '
}
[[ " ${pieces[*]} " != *" clients "* ]] || clients_start 3 >&2
for ((round = 0; round < rounds; round++)); do
    for piece in "${pieces[@]}"; do
        for kind in $(in_turn "$against"); do
            case $piece-$kind in
            clients-*) measure_clients "$kind" ;;
            cost-none | cost-busy) ;;
            cost-*) measure_cost "$kind" ;;
            *) on_link "$piece" "$kind" ;;
            esac
        done
    done
done
[[ " ${pieces[*]} " != *" clients "* ]] || { clients_stop && history_check; } >&2
within "the machine is whole" 60 cores_up 1 3 >&2

row() { # PIECE KIND UNIT
    local name=$1-$2 none
    none=$(median "$1-none-p50")
    awk -v json="$json" -v piece="$1" -v kind="$2" -v unit="$3" -v driver="$driver" -v rounds="$rounds" -v none="$none" -v p50="$(median "$name-p50")" \
        -v p99="$(median "$name-p99")" -v share="$(median "$name-share")" -v frames="$(median "$name-frames")" 'BEGIN {
        kept = piece != "cost" && none > 0 && p50 > 0 ? sprintf("%.3f", p50 / none) : "null"
        printf "%-8s %-7s %9.0f frames/s  p50 %10s %-4s%s%s%s\n", piece, kind, frames, p50, unit, p99 == "null" ? "" : "  p99 " p99,
            share == "null" ? "" : "  slowest client " share " % of an equal share", kept == "null" ? "" : "  kept " kept > "/dev/stderr"
        if (json) printf "{\"bench\":\"forger-bench\",\"what\":\"%s\",\"against\":\"%s\",\"driver\":\"%s\",\"n\":%d,\"frames_s\":%s,\"unit\":\"%s\",\"p50\":%s,\"p99\":%s,\"share\":%s,\"kept\":%s}\n",
            piece, kind, driver, rounds, frames, unit, p50, p99, share, kept }'
}
for piece in "${pieces[@]}"; do
    case $piece in
    rate) unit=M/s ;;
    clients) unit=op/s ;;
    *) unit=ns ;;
    esac
    for kind in $against; do
        [[ $piece == cost && " none busy " == *" $kind "* ]] || row "$piece" "$kind" "$unit"
    done
done
check "the lab is down" lab down >&2
finish >&2
