#!/usr/bin/env bash
# The lab of hosts with ports for DPDK by itself: hosts run programs as if they were here, each with a network of its own; the
# wire between them loses, doubles, reorders, is cut and healed; hosts and ports go and come back; and nothing is left of it,
# also after a KILL.
set -u
source "$(dirname "$0")/lib.sh" "$1"

exec 7>"$work/held"
lab_up --hosts 3
exec 7>&-
supervisor=$(lab status --json | json supervisor)
check "a lab in the background lets its caller's descriptors go" sh -c "! ls -l /proc/$supervisor/fd | grep -q '$work/held'"
equal "a second host" "$(in_guest 2 hostname)" lab2
guest_expect "an exit status passes through" 7 1 sh -c 'exit 7'
guest_expect "no host of that number is wrong usage" 2 7 true
equal "stdin gets there whole" "$(seq 1 40000 | fed_guest 1 md5sum)" "$(seq 1 40000 | md5sum)"
equal "stdout comes back whole" "$(in_guest 3 seq 1 40000 | md5sum)" "$(seq 1 40000 | md5sum)"

# A host's agent, process 1's child, is stopped by what it runs.
# shellcheck disable=SC2016 # expanded in the host
guest_timeout=8 in_guest 3 sh -c 'kill -STOP $PPID' 2>"$work/silent"
equal "a host that does not answer is a time that is over" $? 124
matches "... and is explained" "$(cat "$work/silent")" 'guest 3 \(ready\) does not answer: .* bytes are unread'
matches "... with where it waits" "$(cat "$work/silent")" 'rf-lab-guest\), state T'
seq 1 20000 | fed_guest 3 md5sum >"$work/md5sum" &
pkill -CONT -P "$(lab status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["guests"][2]["pid"])')"
wait $!
equal "once it goes on, all that waited is done" "$(cat "$work/md5sum")" "$(seq 1 20000 | md5sum)"
guest_timeout=1 in_guest 2 sleep 61.7 2>"$work/slow"
matches "a program that does not end in a host that answers is shown" "$(cat "$work/slow")" 'sleep 61.7'

check "what a host writes" in_guest 1 sh -c 'echo host >/etc/rf-lab-test && echo host >/tmp/rf-lab-test && test -s /etc/rf-lab-test'
check "is not written here" sh -c 'test ! -e /etc/rf-lab-test && test ! -e /tmp/rf-lab-test'
guest_expect "nor does another host see it" 1 2 test -e /tmp/rf-lab-test
guest_expect "this host's settings cannot be written" 1 1 sh -c 'echo core >/proc/sys/kernel/core_pattern || exit 1'
check "a host's network settings can" in_guest 1 sh -c 'echo 1 >/proc/sys/net/ipv4/ip_no_pmtu_disc'
equal "it sees its own processes alone" "$(in_guest 1 sh -c 'ps -e -o comm= | grep -c "^systemd$\|^init$"')" 0
lab status --json >"$work/status.json"
equal "the lab's state as JSON" "$(python3 -c '
import json, sys
lab = json.load(open(sys.argv[1]))
print(lab["lab"], lab["hosts"], lab["device"], *(guest["name"] + "=" + guest["state"] for guest in lab["guests"]))' "$work/status.json")" \
    "$lab_name 3 dpdk lab1=ready lab2=ready lab3=ready"

say "-- the wire"
all=2000
read -r received distinct late < <(datagrams 1 2 $all | tail -1)
equal "a good wire: all come, once, in order" "$received $distinct $late" "$all $all 0"
check "a wire that loses" lab wire --loss 50
read -r received distinct late < <(datagrams 1 2 $all | tail -1)
check "... loses ($received of $all came)" test "$received" -gt $((all / 4)) -a "$received" -lt $((all * 3 / 4))
check "a wire that loses in bursts" lab wire --loss 10 --burst 20
read -r received distinct late < <(datagrams 2 3 $all | tail -1)
check "... loses ($received of $all came)" test "$received" -gt $((all / 2)) -a "$received" -lt $((all * 97 / 100))
check "a wire that doubles" lab wire --duplicate 50
read -r received distinct late < <(datagrams 3 1 $all | tail -1)
check "... doubles ($received came of $distinct)" test "$distinct" = $all -a "$received" -gt $((all * 5 / 4))
check "a wire that reorders" lab wire --reorder 10
read -r received distinct late < <(datagrams 1 2 $all | tail -1)
check "... reorders ($late of $received late)" test "$late" -gt 10
check "a slow wire" lab wire --rate 20
matches "... has a queue before each host" "$(in_wire tc class show dev v2)" "rate 20Mbit"
check "a good wire again" lab wire
read -r received distinct late < <(datagrams 1 2 $all | tail -1)
equal "... all come" "$received $distinct $late" "$all $all 0"
expect "a loss that is none" 2 rackfish lab wire --name "$lab_name" --loss 101
expect "the options are the wire's" 2 rackfish lab cut --name "$lab_name" --loss 1 1

say "-- faults"
in_guest 2 perl -MIO::Socket -e '$s = IO::Socket::INET->new(LocalPort => 4711, Listen => 5, ReuseAddr => 1) or die; while ($c = $s->accept) { close $c }' >/dev/null 2>&1 &
connects() { in_guest "$1" timeout 2 bash -c 'exec 3<>/dev/tcp/lab2/4711'; }
within "the hosts reach each other" 20 connects 1
lab cut 1 2
guest_expect "cut, nothing passes" 124 1 timeout 2 bash -c 'exec 3<>/dev/tcp/lab2/4711'
within "between others it does" 20 connects 3
matches "and silently: the port stays up" "$(in_guest 1 ip -br link show lan0)" "UP "
lab heal 1 2
within "healed it passes" 20 connects 1
lab cut 2
guest_expect "all cables of one: nothing passes" 124 3 timeout 2 bash -c 'exec 3<>/dev/tcp/lab2/4711'
lab heal 2
within "healed it passes" 20 connects 3
check "a port goes down" in_guest 1 ip link set lan0 down
matches "... and is" "$(in_guest 1 ip -br link show lan0)" "DOWN"
check "and up" in_guest 1 ip link set lan0 up
within "it passes again" 20 connects 1
first_process() { lab status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["guests"][int(sys.argv[1]) - 1]["pid"])' "$1"; }
# Of each process of the first one's pid namespace but itself.
moving() {
    local namespace pid
    namespace=$(readlink "/proc/$1/ns/pid_for_children")
    for pid in /proc/[0-9]*; do
        [[ $pid != "/proc/$1" && $(readlink "$pid/ns/pid" 2>/dev/null) == "$namespace" ]] &&
            sed 's/.*) \([^ ]\) .*/\1/' "$pid/stat" | grep -v '[TtZX]'
    done
}
first=$(first_process 2)
check "in a host that works, processes are seen" test -n "$(moving "$first")"
check "a host freezes" lab freeze 2
equal "... and stands still when that is answered" "$(moving "$first")" ""
matches "... as its status says" "$(lab status)" "lab2 .* frozen "
guest_timeout=2 guest_expect "a frozen host does nothing" 124 2 true
lab thaw 2
check "thawed it goes on" in_guest 2 true
# Orders that come while the last one is not carried out yet: its first process is stopped from outside.
is_state() { lab status --json | grep -q "\"lab$1\",.[^}]*\"state\":\"$2\""; }
kill -STOP "$first"
lab freeze 2 2>"$work/freeze" &
waits=$!
within "a freeze is on its way" 20 is_state 2 frozen
check "a thaw overtakes it" lab thaw 2
wait "$waits"
equal "... and the freeze fails" $? 1
matches "... as it says" "$(cat "$work/freeze")" "thawed meanwhile"
kill -CONT "$first"
check "frozen and thawed it goes on" in_guest 2 true
kill -STOP "$first"
lab thaw 2
lab freeze 2 2>"$work/freeze"
equal "a freeze that is not carried out fails" $? 1
matches "... and says which process goes on" "$(cat "$work/freeze")" "guest 2 \(process $first\) does not stand still after 10 s: process [0-9]+ \(.*\) is in state"
kill -CONT "$first"
check "thawed and frozen" lab freeze 2
equal "... it stands still" "$(moving "$first")" ""
check "a last thaw" lab thaw 2
check "... and it goes on" in_guest 2 true
in_guest 3 sh -c 'echo runs && exec sleep 600' >"$work/runs" &
waits=$!
within "a program runs in a host" 20 grep -q runs "$work/runs"
check "a host's plug is pulled" lab kill 3
wait "$waits"
equal "what ran there is lost: 125" $? 125
guest_expect "a host that is off runs nothing" 125 3 true
check "wire settings while it is off" lab wire --duplicate 50
check "it boots again" lab boot 3
within "and reaches the others" 20 connects 3
read -r received distinct late < <(datagrams 1 3 500 | tail -1)
check "... over the wire as it is now ($received came of $distinct)" test "$received" -gt "$distinct"

say "-- the end"
supervisor=$(lab status | sed -n 's/.*supervisor \([0-9]*\).*/\1/p')
guests=$(lab status | sed -n 's/.*pid \([0-9]*\) .*/\1/p')
links_before=$(ip -o link | wc -l)
kill -KILL "$supervisor"
for pid in $guests; do
    gone() { [[ -z $(start_time "$pid") ]]; }
    within "host $pid ends with a supervisor that is killed" 20 gone
done
equal "no interface of it was ever among this host's" "$(ip -o link | wc -l)" "$links_before"
expect "then there is no lab" 3 rackfish lab status --name "$lab_name"
check "and its folder is cleared" lab down
expect "a lab for one command gives its status" 9 rackfish lab dpdk --name "$lab_name-2" --no-machine -- sh -c 'test $(hostname) = lab1 && exit 9'
expect "nine hosts are as many as there may be" 0 rackfish lab dpdk --name "$lab_name-3" --hosts 9 --no-machine -- sh -c 'ping -c 1 -w 5 lab9 >/dev/null || test ! -x /bin/ping'
expect "... and ten are not" 2 rackfish lab dpdk --name "$lab_name-4" --hosts 10
expect "guests with kernels of their own are fewer" 2 rackfish lab rdma --name "$lab_name-4" --hosts 6
expect "the rest of its options are checked" 2 rackfish lab dpdk --driver af_quantum
finish
