#!/usr/bin/env bash
# A whole machine of three guests, booted by the ordinary rackfishd in each and driven by the command: agreement holds, guests
# are killed, cables cut, addresses and interfaces taken away and given back, and what was acknowledged is there.
#
#   machine_test.sh BUILD-FOLDER tcp|rdma [--rounds N] [--device rxe|siw] [--one-sided on|off]
#
# A round kills the leader's guest, cuts another leader off, and stops a third in its tracks for a while, under clients in every guest; what
# all clients saw must be linearizable (doc/history.md). With --one-sided leaders write into logs, and do so again after each of these.
set -u
transport=${2:?tcp or rdma}
rounds=1 device=rxe one_sided=off
set -- "$1" "${@:3}"
source "$(dirname "$0")/lib.sh" "$1"
shift
while (($#)); do
    case $1 in
    --rounds) rounds=$2 ;;
    --device) device=$2 ;;
    --one-sided) one_sided=$2 ;;
    *) skip "unknown option $1" ;;
    esac
    shift 2
done
[[ $transport != rdma || -e $build/modules/rackfish-rdma.so ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"
# on N COMMAND...: the command of that name, there.
on() {
    local guest=$1
    shift
    in_guest "$guest" rackfish "$@"
}
leader() { # the guest of the core that leads, as guest $1 sees it
    local core
    core=$(on "$1" status 2>/dev/null | sed -n 's/.*leader core \([0-9]*\).*/\1/p')
    [[ -n $core ]] && echo $((core + 1)) && return
    echo 1 # nobody leads: what needs a leader will say so
}
other_than() { echo $(($1 % 3 + 1)); }
# shellcheck disable=SC2317 # called by within
cores_up() { [[ $(on "$1" --json status | json cores_up) == "$2" ]]; }
# shellcheck disable=SC2317
leads_now() { # somebody else than guest $2, as guest $1 sees it, and changes work
    local now
    now=$(leader "$1")
    [[ $now != "$2" ]] && on "$1" registry put alive "$RANDOM"
}
# shellcheck disable=SC2317
links_up() { [[ $(on 1 links | awk -v medium="$transport" '$3 == medium && $4 == "up"' | wc -l) == "$1" ]]; }
# shellcheck disable=SC2317
lanes_used() { # by a leader that writes the logs of both others
    local now
    now=$(leader "$1")
    [[ $(on "$now" --json status | json lanes) == 2 ]]
}
written_again() { [[ $one_sided == off ]] || within "the leader writes into the logs of both others" 60 lanes_used "$1"; }
# shellcheck disable=SC2317
device_is_gone() { in_guest "$1" test ! -e "/sys/class/infiniband/${device}0"; }
# What guest $1's monitor says that it holds; and the guest's kernel.
held() { on "$1" --json status --resources | grep "\"core\":$(($1 - 1))," | json "$2"; }
# shellcheck disable=SC2016,SC2317 # expanded in the guest; called by within
counts_agree() {
    [[ $(held "$1" queue_pairs) == "$(in_guest "$1" rdma resource show qp type RC | grep -c 'comm rf-mon')" ]] &&
        [[ $(held "$1" pinned_bytes) == "$(in_guest "$1" sh -c 'awk "/^Vm(Lck|Pin)/ { kib += \$2 } END { print kib * 1024 }" /proc/$(pgrep -o -x rf-monitor)/status')" ]]
}
boot_again() {
    check "guest $1 boots again" lab boot "$1"
    check "and its node joins the machine" in_guest "$1" sh "$build/lab/guest-machine.sh" 3 "$transport" "" "$one_sided"
}

lab_up --hosts 3 --device "$device"
options=()
[[ $one_sided == off ]] || options=(--one-sided on)
check "the guests become one machine" lab machine --transport "$transport" "${options[@]}"
((failures == 0)) || { for guest in 1 2 3; do in_guest $guest sh -c 'tail -n 5 /run/rackfish/lab/*/*.log'; done; finish; }
within "with links over $transport between all of them" 30 links_up 6

written_again 1
if [[ $transport == rdma ]]; then
    within "status --resources counts the queue pairs and pinned bytes that the kernel does" 30 counts_agree 2
    check "which are some" test "$(held 2 queue_pairs)" -ge 2 -a "$(held 2 pinned_bytes)" -ge 65536
fi

guest_expect "an exit status comes back from another guest" 7 1 rackfish run --core 2 -- sh -c 'exit 7'
equal "stdin and stdout go to another guest and back" \
    "$(seq 1 20000 | fed_guest 1 rackfish run --core 1 -- md5sum)" "$(seq 1 20000 | md5sum)"

say "-- the main job"
root=$(realpath "$here/../..")
mkdir "$work/tree" && cp -r "$root/doc" "$root/consensus" "$work/tree/"
equal "wordcount over all three guests agrees with wc" \
    "$(on 1 run --core 0 -- wordcount "$work/tree" 2>/dev/null | awk '$1 == "words" { print $2 }')" \
    "$(find "$work/tree" -type f -print0 | LC_ALL=C wc -w --files0-from=- | awk 'END { print $1 }')"

say "-- agreement"
on 1 registry put count 0
for guest in 1 2 3; do
    # shellcheck disable=SC2016 # expanded in the guest
    in_guest $guest sh -c 'for i in 1 2 3 4 5; do
        rackfish registry lock counting -- sh -c "rackfish registry put count \$((\$(rackfish registry get count) + 1))"
    done' &
    adders[guest]=$!
done
wait "${adders[@]}"
equal "fifteen additions under a lock, from three guests" "$(on 3 registry get count)" 15

# ---- faults, under clients ----

# A guest that is killed takes with it what it has written and nobody has read: a keeper here knows of each operation before
# its client asks for it. Times are of one counter (tests/chaos/chaos_client.c).
clients_start() {
    local guest
    echo "$1" >"$work/round"
    for guest in 1 2 3; do client_start "$guest" "$1"; done
}
n_clients=0 keepers=()
client_start() { # in guest $1, in round $2: one more, with values of its own
    local n=$((++n_clients))
    mkfifo "$work/kept.$n"
    rackfish lab exec --name "$lab_name" --timeout 600 "$1" -- \
        sh -c "echo $2 >/run/round; exec '$build/tests/chaos_client' work $n $RANDOM 4 /run/round - /run/rackfish/lab/lab$1.sock" \
        <"$work/kept.$n" 2>>"$work/client-errors" | "$build/tests/chaos_client" keep "$work/seen.$n" >"$work/kept.$n" &
    keepers+=($!)
}
clients_stop() {
    local guest
    for guest in 1 2 3; do in_guest "$guest" pkill -TERM -x chaos_client; done
    wait "${keepers[@]}"
    keepers=()
}
# What was under way and never came back may have happened.
history_of() {
    awk '
        function lost() { if (under_way != "") print under_way; under_way = "" }
        FNR == 1 { lost() }
        /^# under way: / { lost(); under_way = substr($0, 14); next }
        { under_way = ""; print }
        END { lost() }' "$work"/seen.*
}

for ((round = 1; round <= rounds; round++)); do
    say "-- round $round"
    on 1 registry put "kept/$round" before
    clients_start "$round"
    sleep 2
    first=$(leader 1) && other=$(other_than "$first")
    lab kill "$first"
    within "guest $first, which led, is killed: another leads and changes go on" 60 leads_now "$other" "$first"
    equal "what was acknowledged is there" "$(on "$other" registry get "kept/$round")" before
    boot_again "$first"
    within "the machine is whole again" 60 cores_up "$other" 3
    written_again "$other"
    client_start "$first" "$round"
    first=$(leader "$other") && other=$(other_than "$first")
    lab cut "$first"
    within "guest $first, which leads, is cut off: another leads and changes go on" 60 leads_now "$other" "$first"
    expect "alone it changes nothing" 4 rackfish lab exec --name "$lab_name" --timeout 50 "$first" -- rackfish registry put "kept/$round" alone
    on "$other" registry put "kept/$round" after
    lab heal "$first"
    within "healed, the machine is whole again" 90 cores_up "$other" 3
    within "and the one that was cut off knows what it missed" 60 \
        bash -c "[[ \$(rackfish lab exec --name $lab_name --timeout 20 $first -- rackfish registry get kept/$round </dev/null) == after ]]"
    written_again "$other"
    # What it had under way, and what it sends before it hears of anything, comes late.
    first=$(leader "$other") && other=$(other_than "$first")
    lab freeze "$first"
    within "guest $first, which leads, hangs: another leads and changes go on" 60 leads_now "$other" "$first"
    on "$other" registry put "kept/$round" meanwhile
    lab thaw "$first"
    within "it goes on, and the machine is whole again" 90 cores_up "$other" 3
    within "and the one that hung knows what it missed" 60 \
        bash -c "[[ \$(rackfish lab exec --name $lab_name --timeout 20 $first -- rackfish registry get kept/$round </dev/null) == meanwhile ]]"
    written_again "$other"
    clients_stop
    ((failures == 0)) || break
done
say "-- an address, and a port, go for a moment"
on 1 registry put kept/moment before
clients_start $((rounds + 1))
sleep 1
victim=$(other_than "$(leader 1)")
check "guest $victim loses its address, and its GID with it" in_guest "$victim" \
    sh -c "ip address delete 10.77.0.$victim/24 dev lan0 && sleep 1 && ip address add 10.77.0.$victim/24 dev lan0"
within "with it, the machine is whole" 90 cores_up "$(other_than "$victim")" 3
within "and so are its links" 60 links_up 6
check "guest $victim's interface goes down and up" in_guest "$victim" \
    sh -c "ip link set lan0 down && sleep 1 && ip link set lan0 up"
within "with it, the machine is whole" 90 cores_up "$(other_than "$victim")" 3
within "and so are its links" 60 links_up 6
written_again "$(other_than "$victim")"
within "guest $victim knows what there was" 60 \
    bash -c "[[ \$(rackfish lab exec --name $lab_name --timeout 20 $victim -- rackfish registry get kept/moment </dev/null) == before ]]"
clients_stop

# Its removal waits in the kernel until nobody has the device open (rxe and siw cannot take it from its users): so it shows
# that it was let go.
if [[ $transport == rdma ]]; then
    say "-- a device is removed while it is used, and comes back"
    clients_start $((rounds + 2))
    sleep 1
    victim=$(leader 1)
    on 1 registry put kept/device before
    check "guest $victim, which leads, loses its device at once" in_guest "$victim" timeout 100 rdma link delete "${device}0"
    check "and has none" device_is_gone "$victim"
    check "it comes back" in_guest "$victim" "$build/lab/guest-network.sh"
    within "with it, the machine is whole" 90 cores_up "$(other_than "$victim")" 3
    within "and so are its links" 60 links_up 6
    written_again "$(other_than "$victim")"
    survivor=$(leader 1) && victim=$(other_than "$survivor")
    check "guest $victim loses its interface, and its device with it" in_guest "$victim" timeout 100 ip link delete lan0
    within "its device is let go" 20 device_is_gone "$victim"
    within "the others know" 60 cores_up "$survivor" 2
    on "$survivor" registry put kept/device meanwhile
    check "both come back" in_guest "$victim" "$build/lab/guest-network.sh"
    within "with them, the machine is whole" 90 cores_up "$survivor" 3
    within "and so are its links" 60 links_up 6
    written_again "$survivor"
    within "guest $victim knows what it missed" 60 \
        bash -c "[[ \$(rackfish lab exec --name $lab_name --timeout 20 $victim -- rackfish registry get kept/device </dev/null) == meanwhile ]]"
    clients_stop
fi

history_of >"$work/history"
say "        $(wc -l <"$work/history") operations, $(grep -c ' ? *$' "$work/history") without a known outcome"
equal "all clients have one clock" "$(grep 'no common clock' "$work/client-errors")" ""
check "there were operations" test "$(wc -l <"$work/history")" -gt $((rounds * 50))
before=$failures
check "what all clients saw is linearizable" rackfish sim --check-history "$work/history"
if ((failures > before)); then # what was seen is worth more than the word
    kept=${TMPDIR:-/var/tmp}/rackfish-lab-history.$$
    mkdir "$kept" && cp "$work/history" "$work"/seen.* "$kept" && say "        the history is kept in $kept"
fi

say "-- a network interface goes down and comes back"
survivor=$(leader 1)
victim=$(other_than "$survivor")
check "guest $victim's goes down" in_guest "$victim" ip link set lan0 down
within "the others know" 60 cores_up "$survivor" 2
check "and go on" on "$survivor" registry put down yes
check "it comes up" in_guest "$victim" ip link set lan0 up
within "and the machine is whole again" 90 cores_up "$survivor" 3

say "-- the end"
show_logs
check "down, from the second guest" on 2 down
for guest in 1 2 3; do
    within "nothing of it is left in guest $guest" 30 \
        bash -c "rackfish lab exec --name $lab_name --timeout 20 $guest -- pgrep 'rackfishd|rf-cpu|rf-mon|rf-init' </dev/null; [[ \$? == 1 ]]"
done
check "the lab is down" lab down
finish
