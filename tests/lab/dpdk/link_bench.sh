#!/usr/bin/env bash
# Links over DPDK between hosts of the lab, beside links over kernel TCP on the same wire, while the wire gets worse: `rf-bench link-hosts`
# over both in turn, so that a host that gets busier slows both; and what is left of bare DPDK frames, UDP and TCP (`rf-wire-flood`).
#
#   link_bench.sh BUILD-FOLDER [--driver af_packet|af_xdp] [--rounds N] [--samples N] [--wires "0 0.1 1 10"] [--media "dpdk tcp"]
#                 [--json] [PIECE...]
#
# A wire is the percentage that it loses, and what else it does: "5,burst=20" loses 20 frames in a row, "0,duplicate=5" sends 5 % twice,
# "1,reorder=5" lets 5 % be overtaken.
#
#   one-way    a slot of 64 bytes and its echo, halved, both ends sleeping in between: p50 and p99
#   rate       slots of 64 bytes, 64 a flush: goodput, in MB/s as well
#   bulk       remote writes of 64 KiB, four under way: goodput
#   bare       frames of 22 slots as fast as they go, nothing sent again: what comes; TCP: its goodput
#
# A sample of a rate is 16384 slots, until the last has been answered, one of bulk 16 writes: some milliseconds, in which a loss may
# just have happened, or not. Goodput, `whole`, is over --samples of them (200: some seconds; after 20 s 20 will do). Figures are medians
# over the rounds; "of bare" is the goodput beside the bare frames, or bare TCP, of the same wire, where `bare` is
# measured, too; "kept" is the goodput beside that of the same medium on the first of the wires. All slots are
# numbered, and a piece fails unless each has come once and in order. The wire is a bridge in a third network namespace, so that what
# a frame costs is twice a veth pair and a bridge. What a bare port can do is `rf-bench dpdk`. A link over TCP whose connection stands
# still until the deadline has no figure: "gave up". With two CPUs, two ends and two link drivers share them: what is measured then is
# the host's scheduler as well.
# --json prints an object a line, and the table on standard error.
set -u
driver=af_packet rounds=3 samples=200 json='' wires="0 0.1 1 10" media="dpdk tcp"
all=(one-way rate bulk bare)
declare -A takes=([driver]='af_packet|af_xdp' [rounds]='[1-9][0-9]*' [samples]='[1-9][0-9]*' [wires]='.+' [media]='dpdk|tcp|dpdk tcp|tcp dpdk' [json]='')
# shellcheck source=tests/lab/options.sh
source "$(dirname "$0")/../options.sh"
bench_options "$@"
wire_options() { # WIRE: what `rackfish lab wire` calls it
    local words word
    IFS=, read -ra words <<<"$1"
    echo "--loss ${words[0]}"
    for word in "${words[@]:1}"; do echo "--${word/=/ }"; done
}
source "$(dirname "$0")/lib.sh" "$folder" >&2
[[ -e $build/modules/rackfish-dpdk.so ]] || skip "built without DPDK; apt-get install libdpdk-dev"
case $driver in
af_packet) device=net_af_packet0,iface=lan0 mac=02:52:46:00:00:01 ;;
af_xdp) device=net_af_xdp0,iface=dpdk0 mac=02:52:46:00:01:01 ;;
esac
lab_up --hosts 2 >&2
drivers_begin() {
    local host
    for host in 1 2; do
        guest_timeout=3000 in_guest $host rackfish-dpdk --socket=/run/driver.sock --device=$device 2>"$work/driver.$host" >&2 &
        within "the link driver of host $host serves" 30 in_guest $host test -S /run/driver.sock >&2
    done
}
drivers_end() { # bare frames want the port
    local host
    for host in 1 2; do in_guest $host sh -c 'pkill -KILL -x rackfish-dpdk; rm -f /run/driver.sock'; done
}
drivers_begin
((failures == 0)) || { cat "$work"/driver.? >&2 && finish >&2; }

gave_up() { [[ $1 == tcp ]] && grep -q 'the peer has died' "$work/err"; }
# bare udp|tcp|dpdk WIRE
bare() {
    local what=$1 to=10.77.0.1 receiver until=$((SECONDS + 100))
    [[ $1 != dpdk ]] || { what=$device && to=$mac; }
    in_guest 1 rf-wire-flood take "$what" 1 1000 >"$work/flood" 2>"$work/err" &
    receiver=$!
    [[ $1 != dpdk ]] || while ! grep -q ready "$work/flood" && ((SECONDS < until)); do sleep 0.1; done
    in_guest 2 rf-wire-flood give "$what" "$to" 20000 >/dev/null 2>&1 &
    wait "$receiver" || fail "bare $1: $(tail -n 1 "$work/err")" >&2
    in_guest 2 pkill -x rf-wire-flood
    wait $!
    awk 'NF == 2 { print $1 }' "$work/flood" | tee -a "$work/bare-$1-$2-bare.p50" >>"$work/bare-$1-$2-bare.whole"
}
# measure MEDIUM WIRE PIECE: one piece over a link of its own; p50 and p99 into files of that name.
n_links=0
measure() {
    local server until=$((SECONDS + 150)) port=$((4711 + n_links++)) name=$1-$2-$3 options=(--transport "$1" --events) words=("$3")
    [[ $1 != dpdk ]] || options+=(--medium driver=/run/driver.sock)
    [[ $3 != rate ]] || words+=(--batch 64)
    [[ $3 != bulk ]] || words+=(--bytes 65536)
    [[ $3 == one-way ]] || words+=(--samples "$samples")
    in_guest 1 rf-bench "${options[@]}" link-hosts listen "10.77.0.1:$port" >"$work/listens" 2>&1 &
    server=$!
    while ((SECONDS < until)) && ! in_guest 1 ss -ltn | grep -q ":$port "; do sleep 0.1; done
    guest_timeout=100 in_guest 2 rf-bench "${options[@]}" --json link-hosts "10.77.0.1:$port" "${words[@]}" >"$work/out" 2>"$work/err" ||
        gave_up "$1" || fail "$name: $(tail -n 1 "$work/err")" >&2
    in_guest 1 pkill -x rf-bench
    wait "$server"
    [[ -s $work/out ]] || return 0
    json p50 <"$work/out" >>"$work/$name.p50"
    json p99 <"$work/out" >>"$work/$name.p99"
    case $3 in
    rate) json whole_slots_s <"$work/out" | awk '{ print $1 / 1e6 }' ;;
    bulk) json whole_mb_s <"$work/out" ;;
    esac >>"$work/$name.whole"
}
median() { sort -g "$work/$1" 2>/dev/null | awk '{ value[NR] = $1 } END { print NR ? value[int((NR + 1) / 2)] : "-" }'; }

for ((round = 0; round < rounds; round++)); do
    ((round == 0)) || media=$(tac -s ' ' <<<"$media " | tr '\n' ' ') # each goes first in its turn
    for wire in $wires; do
        # shellcheck disable=SC2046 # words
        lab wire $(wire_options "$wire") || fail "there is no wire $wire" >&2
        for piece in "${pieces[@]}"; do
            [[ $piece != bare ]] || { drivers_end && for medium in dpdk udp tcp; do bare $medium "$wire"; done && drivers_begin && continue; }
            for medium in $media; do measure $medium "$wire" "$piece"; done
        done
    done
done

row() { # PIECE WIRE
    local medium first bare sides=$media
    [[ $1 != bare ]] || sides="bare-dpdk bare-udp bare-tcp"
    for medium in $sides; do
        first=$(median "$medium-${wires%% *}-$1.whole")
        bare=$(median "bare-$medium-$2-bare.whole")
        awk -v json="$json" -v driver="$driver" -v rounds="$rounds" -v piece="$1" -v wire="$2" -v loss="${2%%,*}" -v medium=$medium -v first="$first" -v bare="$bare" \
            -v p50="$(median "$medium-$2-$1.p50")" -v p99="$(median "$medium-$2-$1.p99")" -v whole="$(median "$medium-$2-$1.whole")" 'BEGIN {
            unit = piece == "one-way" ? "ns" : piece == "rate" ? "M/s" : "MB/s"
            if (p50 == "-") { p50 = "gave up"; none = 1 }
            kept = whole > 0 && first > 0 ? whole / first : 0
            MB = none || piece == "one-way" ? "null" : piece == "rate" ? sprintf("%.1f", whole * 64) : whole
            of_bare = MB != "null" && bare > 0 ? sprintf("%.3f", MB / bare) : "null"
            printf "%-8s loss %% %-16s %-9s p50 %10s %-5s p99 %10s  %s\n", piece, wire, medium, p50, unit, p99,
                piece == "one-way" ? "" : sprintf("whole %10s  kept %.2f", whole, kept) (piece == "rate" ? sprintf("  %s MB/s", MB) : "") (of_bare == "null" ? "" : "  of bare " of_bare) > "/dev/stderr"
            if (json) printf "{\"bench\":\"link-loss\",\"what\":\"%s\",\"medium\":\"%s\",\"driver\":\"%s\",\"wire\":\"%s\",\"loss_percent\":%s,\"unit\":\"%s\",\"n\":%d,\"p50\":%s,\"p99\":%s,\"whole\":%s,\"kept\":%s,\"MB_s\":%s,\"of_bare\":%s}\n",
                piece, medium, driver, wire, loss, unit, rounds, none ? "null" : p50, p99 == "-" ? "null" : p99, MB == "null" ? "null" : whole,
                MB == "null" || first <= 0 ? "null" : sprintf("%.3f", kept), MB, of_bare }'
    done
}
for piece in "${pieces[@]}"; do
    for wire in $wires; do row "$piece" "$wire"; done
done
finish >&2
