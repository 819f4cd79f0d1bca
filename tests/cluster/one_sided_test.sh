#!/usr/bin/env bash
# One-sided append in a whole machine, over TCP, which everybody has: leaders write into voters' logs, also after one that led was killed,
# and after one that hung and goes on; nothing that was acknowledged is lost. (tests/lab/rdma/machine_test.sh has it over RDMA.)
set -u
source "$(dirname "$0")/lib.sh" "$1"

leader() { # as node $1 sees it
    rackfish --via "$1" --json status 2>/dev/null | json leader
}
# shellcheck disable=SC2317 # called by within
written() { # the leader writes the logs of both others, and they know
    local now core
    now=$(leader "$1")
    for core in 0 1 2; do
        [[ $(rackfish --via node$core --json status | json lanes) == $((core == now ? 2 : 1)) ]] || return 1
    done
}
# shellcheck disable=SC2317
another_leads() {
    local now
    now=$(leader "$1")
    [[ $now =~ ^[0-2]$ && $now != "$2" ]] && rackfish --via "$1" registry put "alive/$RANDOM" yes
}
# shellcheck disable=SC2317
whole() { [[ $(rackfish --via "$1" --json status | json cores_up) == 3 ]]; }
holds() { # node $1, all that was put
    local i
    for ((i = 1; i <= n; i++)); do
        [[ $(rackfish --via "$1" registry get "kept/$i") == "$i" ]] || return 1
    done
}
n=0
put() { rackfish --via "$1" registry put "kept/$((++n))" "$n" || fail "put number $n"; }

machine_up lanes --nodes 3 --cores 1 --one-sided on
within "the leader writes into the logs of both others" 30 written node0
matches "status says which variant is in use" "$(rackfish --via "node$(leader node0)" status)" "append +one-sided: this core, which leads, writes into the logs of 2 voters"
for i in 0 1 2 0 1 2; do put "node$i"; done
for round in 1 2; do
    first=$(leader node0)
    other=node$(((first + 1) % 3))
    put "$other"
    kill -KILL "$(pid_of monitor "$first")"
    put "$other"
    within "$round: the monitor that led is killed, another leads" 30 another_leads "$other" "$first"
    within "$round: its core is back" 60 whole "$other"
    remember_processes
    within "$round: the leader writes into the logs of both others" 60 written "$other"
    first=$(leader "$other")
    other=node$(((first + 1) % 3))
    pid=$(pid_of monitor "$first")
    put "$other"
    kill -STOP "$pid"
    within "$round: the one that leads hangs, another leads" 30 another_leads "$other" "$first"
    put "$other"
    kill -CONT "$pid"
    within "$round: it goes on, and all are there" 60 whole "$other"
    remember_processes
    within "$round: the leader writes into the logs of both others" 60 written "$other"
done
for node in node0 node1 node2; do within "all that was acknowledged is at $node" 30 holds "$node"; done
machine_down

machine_up messages --nodes 3 --cores 1
matches "without the option there are messages" "$(rackfish status)" "append +by messages"
equal "and no lane" "$(rackfish --json status | json lanes)" 0
machine_down
finish
