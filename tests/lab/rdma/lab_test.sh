#!/usr/bin/env bash
# The lab itself: guests run programs as if they were here, their RDMA devices carry perftest, Soft-RoCE and soft-iWARP;
# cables, guests and devices can be taken away and given back; and nothing is left of it, also after a KILL.
set -u
source "$(dirname "$0")/lib.sh" "$1"

lab_up --hosts 2 --device rxe

say "-- programs in guests"
guest_expect "an exit status passes through" 7 1 sh -c 'exit 7'
guest_expect "a signal death is 128 + N" 143 2 sh -c 'kill -TERM $$'
guest_expect "no such program is 127" 127 1 no-such-program
guest_timeout=1 guest_expect "a timeout is 124" 124 1 sleep 60
within "and what ran is gone" 20 sh -c "! rackfish lab exec --name $lab_name --timeout 20 1 -- pgrep -x sleep </dev/null"
guest_expect "no guest of that number is wrong usage" 2 3 true
equal "guests have names" "$(in_guest 2 hostname)" lab2
equal "the directory goes with it" "$(cd /usr/share && in_guest 1 pwd)" /usr/share
text=$(seq 1 40000 | md5sum)
equal "stdin gets there whole" "$(seq 1 40000 | fed_guest 1 md5sum)" "$text"
equal "stdout comes back whole" "$(in_guest 2 seq 1 40000 | md5sum)" "$text"
equal "stderr is apart" "$(in_guest 1 sh -c 'echo no >&2; echo yes' 2>/dev/null)" yes
# Its kernel stops, and nobody here has been told.
kernel=$(pgrep -P "$(lab status --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["guests"][1]["pid"])')")
kill -STOP "$kernel"
guest_timeout=8 in_guest 2 true 2>"$work/silent"
equal "a guest that does not answer is a time that is over" $? 124
matches "... and is explained" "$(cat "$work/silent")" 'guest 2 \(ready\) does not answer: .* bytes are unread'
matches "... with what its kernel does" "$(cat "$work/silent")" "process $kernel .*, state T"
matches "... which has a console" "$(cat "$work/silent")" "its kernel does not answer on its console either"
seq 1 20000 | fed_guest 2 md5sum >"$work/md5sum" &
kill -CONT "$kernel"
wait $!
equal "once it goes on, all that waited is done" "$(cat "$work/md5sum")" "$(seq 1 20000 | md5sum)"

check "what a guest writes" in_guest 1 sh -c "echo guest >/etc/rf-lab-test && test -s /etc/rf-lab-test"
check "is not written here" test ! -e /etc/rf-lab-test
guest_expect "nor can it be" 1 1 sh -c 'mkdir /run/host && mount -t hostfs none /run/host -o / && touch /run/host/tmp/rf-lab-test'
# The host's own value: were it written, nothing would have changed.
guest_expect "nor this host's settings, in /proc/sys" 1 1 sh -c '
    mkdir /run/settings && mount -t hostfs none /run/settings -o /proc/sys || exit 3
    test -e /run/settings/kernel/core_pattern || exit 4
    (printf "%s\n" "$1" >/run/settings/kernel/core_pattern) && exit 0
    exit 1' sh "$(cat /proc/sys/kernel/core_pattern)"
lab status --json >"$work/status.json"
equal "the lab's state as JSON" "$(python3 -c '
import json, sys
lab = json.load(open(sys.argv[1]))
print(lab["lab"], lab["hosts"], lab["device"], *(guest["name"] + "=" + guest["state"] for guest in lab["guests"]))' "$work/status.json")" \
    "$lab_name 2 rxe lab1=ready lab2=ready"
expect "--json elsewhere is wrong usage" 2 rackfish lab down --name "$lab_name" --json

say "-- RDMA"
matches "guest 2 has rxe0, active" "$(in_guest 2 rdma link show rxe0/1)" "state ACTIVE"
for program in ib_write_lat ib_send_lat ib_read_lat; do
    check "$program on rxe0" perftest_pair $program -d rxe0 -x 1 -s 8 -n 100
    say "        at best $(perftest_figure 3) us, median $(perftest_figure 5) us"
done
check "ib_write_bw on rxe0" perftest_pair ib_write_bw -d rxe0 -x 1 -s 65536 -n 100
matches "its figure" "$(perftest_figure 4)" '^[0-9.]+$'

say "-- faults"
connects() { in_guest 1 timeout "$1" bash -c 'exec 3<>/dev/tcp/lab2/4711'; }
in_guest 2 perl -MIO::Socket -e '$s = IO::Socket::INET->new(LocalPort => 4711, Listen => 5, ReuseAddr => 1) or die; while ($c = $s->accept) { close $c }' >/dev/null 2>&1 &
within "the guests reach each other" 20 connects 5
lab cut 1 2
in_guest 1 ip neigh flush dev lan0
guest_expect "a cable that is cut carries nothing" 1 1 timeout 100 bash -c 'exec 3<>/dev/tcp/lab2/4711'
matches "and is silent: the port stays active" "$(in_guest 1 rdma link show rxe0/1)" "state ACTIVE"
check "guests can still be asked" in_guest 2 true
lab heal 1 2
within "healed it carries again" 20 connects 5
check "a device is removed" in_guest 2 rdma link delete rxe0
guest_expect "and gone" 1 2 test -e /sys/class/infiniband/rxe0
check "and given back" in_guest 2 rdma link add rxe0 type rxe netdev lan0
lab freeze 2
matches "a guest freezes" "$(lab status)" "lab2 .* frozen "
guest_timeout=2 guest_expect "a frozen guest does nothing" 124 2 true
lab thaw 2
check "thawed it goes on" in_guest 2 true
in_guest 2 sh -c 'echo runs && exec sleep 600' >"$work/runs" &
waits=$!
within "a program runs in a guest" 20 grep -q runs "$work/runs"
check "a guest's plug is pulled" lab kill 2
wait "$waits"
equal "what ran there is lost: 125" $? 125
guest_expect "a guest that is off runs nothing" 125 2 true
check "it boots again" lab boot 2
check "and its device works again" perftest_pair ib_write_lat -d rxe0 -x 1 -s 8 -n 100

say "-- the end"
output=$(lab rdma -d 2>&1)
equal "a second lab of this name is refused" $? 1
matches "by a message" "$output" "runs already"
supervisor=$(lab status | sed -n 's/.*supervisor \([0-9]*\).*/\1/p')
guests=$(lab status | sed -n 's/.*pid \([0-9]*\) .*/\1/p')
kill -KILL "$supervisor"
for pid in $guests; do
    gone() { [[ -z $(start_time "$pid") ]]; }
    within "guest $pid ends with a supervisor that is killed" 20 gone
done
expect "then there is no lab" 3 rackfish lab status --name "$lab_name"
check "and its folder is cleared" lab down
check "down once more is no error" lab down
lab_up --hosts 5 --memory 128 --device siw
for program in ib_write_lat ib_send_lat; do
    check "$program on siw0, by rdma_cm" perftest_pair $program -d siw0 -R -s 8 -n 100
    say "        at best $(perftest_figure 3) us, median $(perftest_figure 5) us"
done
for guest in 1 2 3 4 5; do
    equal "guest $guest of five" "$(in_guest $guest hostname)" "lab$guest"
done
check "down" lab down
expect "a lab for one command gives its status" 9 rackfish lab rdma --name "$lab_name-2" --no-machine -- sh -c 'test $(hostname) = lab1 && exit 9'
finish
