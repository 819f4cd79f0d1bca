#!/usr/bin/env bash
# A whole machine of three hosts whose links go over DPDK, booted by the ordinary rackfishd in each: the main job gives the right
# result, agreement holds; link drivers are killed, ports go down and up, a host is cut off for ten seconds, one is killed; the
# wire loses, doubles and reorders, and a forger is on it. All the time clients change and read keys through all hosts, and what
# they saw must be linearizable (doc/history.md).
#
#   machine_test.sh BUILD-FOLDER af_packet|af_xdp [PART]...     parts: job driver port cut host wire forger (default: all)
set -u
driver=${2:?af_packet or af_xdp}
parts=("${@:3}")
declare -A wires=([af_packet]="v1 v2 v3" [af_xdp]="d1 d2 d3") # where a forger listens
source "$(dirname "$0")/lib.sh" "$1"
[[ -e $build/modules/rackfish-dpdk.so ]] || skip "built without DPDK; apt-get install libdpdk-dev"
[[ -x $build/tests/chaos_client ]] || skip "chaos_client is not built"
root=$(realpath "$here/../..")
wanted() { ((${#parts[@]} == 0)) || [[ " ${parts[*]} " == *" $1 "* ]]; }

lab_up --hosts 3
driver_works "$driver"
check "the hosts become one machine" lab machine --transport dpdk --driver "$driver"
((failures == 0)) || finish
within "with links over dpdk between all of them" 30 links_up dpdk 6
if [[ $driver == af_xdp ]]; then
    matches "a second link driver on the interface is refused" \
        "$(in_guest 1 rackfish-dpdk --socket=/run/second --device=net_af_xdp0,iface=dpdk0 2>&1)" "another link driver has dpdk0"
    within "and takes nothing from the first" 30 links_up dpdk 6
fi

words=$(find "$root/doc" "$root/monitor" "$root/consensus" -type f -print0 | LC_ALL=C wc -w --files0-from=- | awk 'END { print $1 }')
mkdir "$work/tree"
cp -r "$root/doc" "$root/monitor" "$root/consensus" "$work/tree/"
chmod -R a+rX "$work"
main_job() { on 1 run --core 0 -- wordcount "$work/tree" 2>/dev/null | awk '$1 == "words" { print $2 }'; }

if wanted job; then
    say "-- the main job"
    equal "wordcount over all three hosts agrees with wc" "$(main_job)" "$words"
    equal "an unmodified program runs on every host" "$(on 2 run --all -- hostname | sort | tr '\n' ' ')" "lab1 lab2 lab3 "
    equal "stdin and stdout go to another host and back" \
        "$(seq 1 20000 | fed_guest 1 rackfish run --core 1 -- md5sum)" "$(seq 1 20000 | md5sum)"
    on 1 registry put count 0
    for host in 1 2 3; do
        # shellcheck disable=SC2016 # expanded in the host
        in_guest $host sh -c 'for i in 1 2 3 4 5; do
            rackfish registry lock counting -- sh -c "rackfish registry put count \$((\$(rackfish registry get count) + 1))"
        done' &
        adders[host]=$!
    done
    wait "${adders[@]}"
    equal "fifteen additions under a lock, from three hosts" "$(on 3 registry get count)" 15
fi

clients_start 3

if wanted driver; then
    say "-- link drivers are killed"
    lives=$(on 1 --json cores | sed -n 's/.*"incarnation":\([0-9]*\).*/\1/p' | tr '\n' ' ')
    for host in 1 2 3; do
        before=$(in_guest $host pgrep -x rackfish-dpdk)
        check "the link driver of host $host is killed" in_guest $host pkill -KILL -x rackfish-dpdk
        another() { [[ $(in_guest $host pgrep -x rackfish-dpdk) =~ ^[0-9]+$ && $(in_guest $host pgrep -x rackfish-dpdk) != "$before" ]]; }
        within "another is started" 30 another
        within "its links are up again" 30 links_up dpdk 6
        clients_work "and the clients go on"
    done
    equal "no core was lost for it" "$(on 1 --json cores | sed -n 's/.*"incarnation":\([0-9]*\).*/\1/p' | tr '\n' ' ')" "$lives"

    # Its host may be held for dead meanwhile, and comes back.
    say "-- a link driver is stopped"
    before=$(in_guest 2 pgrep -x rackfish-dpdk)
    host=2
    check "the link driver of host 2 is stopped, not dead" in_guest 2 pkill -STOP -x rackfish-dpdk
    within "another takes its place" 60 another
    within "the machine is whole" 90 cores_up 1 3
    within "its links are up again" 30 links_up dpdk 6
    clients_work "and the clients go on"
fi

ports() { in_guest "$1" sh -c "ip link set dpdk0 $2; ip link set lan0 $2"; }
if wanted port; then
    say "-- ports go down and up"
    for seconds in 0.5 5; do
        host=$(leader 1) && other=$(other_than "$host")
        check "the port of host $host, which leads, goes down for $seconds s" ports "$host" down
        sleep $seconds
        check "and up" ports "$host" up
        within "the machine is whole" 90 cores_up "$other" 3
        within "and the host is in it" 60 cores_up "$host" 3
        clients_work "and the clients go on"
    done
fi

if wanted cut; then
    say "-- a host is cut off for ten seconds"
    on 1 registry put kept before
    host=$(leader 1) && other=$(other_than "$host")
    lab cut "$host"
    within "another than host $host leads, and changes go on" 60 leads_now "$other" "$host"
    sleep 10
    expect "alone it changes nothing" 4 rackfish lab exec --name "$lab_name" --timeout 50 "$host" -- rackfish registry put kept alone
    check "the others do" on "$other" registry put kept after
    lab heal "$host"
    within "healed, the machine is whole again" 90 cores_up "$other" 3
    knows() { [[ $(on "$host" registry get kept) == after ]]; }
    within "and who was cut off knows what it missed" 60 knows
    clients_work "and the clients go on"
fi

if wanted host; then
    say "-- a host is killed"
    on 1 registry put kept2 before
    host=$(leader 1) && other=$(other_than "$host")
    lab kill "$host"
    within "another than host $host leads, and changes go on" 60 leads_now "$other" "$host"
    equal "what was acknowledged is there" "$(on "$other" registry get kept2)" before
    check "it boots again" lab boot "$host"
    check "and its node joins the machine" in_guest "$host" sh "$build/lab/guest-machine.sh" 3 dpdk "$driver"
    within "the machine is whole again" 60 cores_up "$other" 3
    client_start "$host"
    clients_work "and the clients go on"
fi

if wanted wire; then
    say "-- a bad wire"
    for bad in "--loss 1" "--loss 10" "--loss 5 --burst 20" "--loss 2 --duplicate 5 --reorder 5"; do
        # shellcheck disable=SC2086 # words
        check "a wire with $bad" lab wire $bad
        clients_work "the clients go on"
        equal "a stream comes through whole" \
            "$(seq 1 5000 | fed_guest 2 rackfish run --core 2 -- md5sum)" "$(seq 1 5000 | md5sum)"
    done
    lab wire
    within "a good wire: the machine is whole" 60 cores_up 1 3
fi

if wanted forger; then
    say "-- a forger on the wire"
    for host in 1 2 3; do stats $host >"$work/stats.$host"; done
    say "        without one: $(clients_pace 4)"
    for rate in 10000 0; do
        # shellcheck disable=SC2086 # words
        in_wire "$build/tests/dpdk_forger" --seconds 8 --rate $rate --seed $rate ${wires[$driver]} >"$work/forged" &
        forging=$!
        sleep 1
        say "        meanwhile: $(clients_pace 4)"
        clients_work "$([[ $rate == 0 ]] && echo "a flood" || echo "$rate forged frames a second"): the clients go on"
        wait $forging
        equal "it was at work" $? 0
        say "        $(cat "$work/forged")"
    done
    for host in 1 2 3; do
        check "host $host has counted and dropped them" counted $host "$work/stats.$host"
    done
    within "the machine is whole" 60 cores_up 1 3
    clients_work "and the clients go on"
fi

clients_stop
history_check
show_logs
check "the lab is down" lab down
finish
