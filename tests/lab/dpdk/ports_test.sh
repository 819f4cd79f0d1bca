#!/usr/bin/env bash
# A machine of three hosts with two ports for DPDK each, in two networks: its links share them, and go on over the other when a cable, a
# port or a link driver of one is out of order, also when each host has lost another one. All the time clients change and read keys
# through all hosts, and what they saw must be linearizable.
#
#   ports_test.sh BUILD-FOLDER
set -u
source "$(dirname "$0")/lib.sh" "$1"
[[ -e $build/modules/rackfish-dpdk.so ]] || skip "built without DPDK; apt-get install libdpdk-dev"
[[ -x $build/tests/chaos_client ]] || skip "chaos_client is not built"

lab_up --hosts 3
expect "two ports over XDP sockets are refused" 2 rackfish lab machine --name "$lab_name" --transport dpdk --driver af_xdp --ports 2
check "the hosts become one machine" lab machine --transport dpdk --ports 2
((failures == 0)) || { for host in 1 2 3; do in_guest $host sh -c 'tail -n 5 /run/rackfish/lab/*/*.log'; done; finish; }
within "with links over dpdk between all of them" 30 links_up dpdk 6
for host in 1 2 3; do equal "host $host has two link drivers" "$(in_guest $host pgrep -c -x rackfish-dpdk)" 2; done

# slots_of HOST PORT: how many have come over it, in this life of its link driver.
slots_of() {
    in_guest "$1" rackfish-dpdk --json --stats "/run/rackfish/lab/lab$1.dpdk/sock${2/#0/}" | json slots_received
}
port_carries() { (($(slots_of "$1" "$2") > ${slots_before:-0})); }
# Port 0 is on lan0, which the kernel has, too: TCP there must not be hurt.
cable() { in_wire ip link set "d$1" "$2"; }

clients_start 3
some_carries() { port_carries 1 "$1" || port_carries 2 "$1" || port_carries 3 "$1"; }
for port in 0 1; do within "slots come over port $port" 30 some_carries $port; done

say "-- the second port's cable of host 2 is cut"
lives=$(on 1 --json cores | sed -n 's/.*"incarnation":\([0-9]*\).*/\1/p' | tr '\n' ' ')
cable 2 down
sleep 2
clients_work "the clients go on"
within "all links are up" 30 links_up dpdk 6
slots_before=$(slots_of 2 0)
within "over the first port" 30 port_carries 2 0
cable 2 up
slots_before=0

say "-- of each host the link driver of one port is killed, of another the next"
for host in 1 2 3; do
    port=$((host % 2))
    socket=/run/rackfish/lab/lab$host.dpdk/sock${port/#0/}
    of_port() { in_guest $host pgrep -x -f "rackfish-dpdk --socket=$socket .*"; }
    before=$(of_port)
    check "the link driver of port $port of host $host is killed" in_guest $host kill -KILL "$before"
    clients_work "the clients go on"
    another() { [[ $(of_port) =~ ^[0-9]+$ && $(of_port) != "$before" ]]; }
    within "another is started" 30 another
    within "all links are up" 30 links_up dpdk 6
done

say "-- the second ports of all hosts go"
for host in 1 2 3; do in_guest $host ip link set dpdk0 down; done
sleep 2
clients_work "the clients go on"
within "all links are up" 30 links_up dpdk 6
for host in 1 2 3; do in_guest $host ip link set dpdk0 up; done
clients_work "the clients go on"
equal "no core was lost for any of it" "$(on 1 --json cores | sed -n 's/.*"incarnation":\([0-9]*\).*/\1/p' | tr '\n' ' ')" "$lives"

say "-- rackfishd of host 2 is killed, and started again"
drivers=$(in_guest 2 pgrep -x rackfish-dpdk | sort | tr '\n' ' ')
in_guest 2 pkill -KILL -x rackfishd
is_dead() { ! in_guest 2 pgrep -x rackfishd >/dev/null; }
within "it is dead" 10 is_dead
check "it comes again" in_guest 2 rackfish -m lab up --config /etc/rackfish/lab.yaml
equal "and adopts both link drivers" "$(in_guest 2 pgrep -x rackfish-dpdk | sort | tr '\n' ' ')" "$drivers"
clients_work "the clients go on"

clients_stop
history_check
show_logs
check "the machine ends" on 2 down
none_left() { [[ -z $(in_guest 1 pgrep -x rackfish-dpdk) && -z $(in_guest 2 pgrep -x rackfish-dpdk) && -z $(in_guest 3 pgrep -x rackfish-dpdk) ]]; }
within "and no link driver is left" 20 none_left
check "the lab is down" lab down
finish
