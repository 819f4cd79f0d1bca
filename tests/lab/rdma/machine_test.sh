#!/usr/bin/env bash
# A whole machine of three guests, booted by the ordinary rackfishd in each and driven by the command: the main job gives the
# right result, agreement holds, guests are killed, cables cut and devices removed, and what was acknowledged is there.
#
#   machine_test.sh BUILD-FOLDER tcp|rdma [--rounds N] [--device rxe|siw]
#
# A round kills the leader's guest and cuts another leader off, under clients in every guest; what all clients saw must be
# linearizable (doc/history.md).
set -u
transport=${2:?tcp or rdma}
rounds=1 device=rxe
set -- "$1" "${@:3}"
source "$(dirname "$0")/lib.sh" "$1"
shift
while (($#)); do
    case $1 in
    --rounds) rounds=$2 ;;
    --device) device=$2 ;;
    *) skip "unknown option $1" ;;
    esac
    shift 2
done
[[ $transport != rdma || -e $build/modules/rackfish-rdma.so ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"
root=$(realpath "$here/../..")

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
boot_again() {
    check "guest $1 boots again" lab boot "$1"
    check "and its node joins the machine" in_guest "$1" sh "$build/lab/guest-machine.sh" 3 "$transport"
}

lab_up --hosts 3 --device "$device"
check "the guests become one machine" lab machine --transport "$transport"
((failures == 0)) || { for guest in 1 2 3; do in_guest $guest sh -c 'tail -n 5 /run/rackfish/lab/*/*.log'; done; finish; }
equal "with links over $transport between all of them" "$(on 1 links | awk -v medium="$transport" '$3 == medium && $4 == "up"' | wc -l)" 6

say "-- the main job"
words=$(find "$root/doc" "$root/monitor" "$root/consensus" -type f -print0 | LC_ALL=C wc -w --files0-from=- | awk 'END { print $1 }')
mkdir "$work/tree"
cp -r "$root/doc" "$root/monitor" "$root/consensus" "$work/tree/"
equal "wordcount over all three guests agrees with wc" \
    "$(on 1 run --core 0 -- wordcount "$work/tree" 2>/dev/null | awk '$1 == "words" { print $2 }')" "$words"
equal "an unmodified program runs on every guest" "$(on 2 run --all -- hostname | sort | tr '\n' ' ')" "lab1 lab2 lab3 "
expect "an exit status comes back from another guest" 7 rackfish lab exec --name "$lab_name" 1 -- rackfish run --core 2 -- sh -c 'exit 7'
equal "stdin and stdout go to another guest and back" \
    "$(seq 1 20000 | rackfish lab exec --name "$lab_name" 1 -- rackfish run --core 1 -- md5sum)" "$(seq 1 20000 | md5sum)"

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

# How far guest $1's clock is from ours, and by how much that may be wrong, in ns: the quickest of five answers says it best.
clock_of() {
    local i before there after offset=0 error=1000000000000
    for i in 1 2 3 4 5; do
        before=$(date +%s%N)
        there=$(in_guest "$1" date +%s%N)
        after=$(date +%s%N)
        [[ -n $there ]] && (((after - before) / 2 < error)) || continue
        error=$(((after - before) / 2))
        offset=$((there - before - error))
    done
    echo "# clock $offset $((error + 1000))"
}

clients_start() {
    local guest
    echo "$1" >"$work/round"
    for guest in 1 2 3; do client_start "$guest" "$1"; done
}
client_start() { # of guest $1 in round $2
    clock_of "$1" >>"$work/seen.$1"
    guest_timeout=600 in_guest "$1" sh -c "echo $2 >/run/round; exec '$build/tests/chaos_client' work $1 $RANDOM 4 /run/round - /run/rackfish/lab/lab$1.sock" \
        >>"$work/seen.$1" 2>>"$work/client-errors" &
}
clients_stop() {
    local guest
    for guest in 1 2 3; do in_guest "$guest" pkill -TERM -x chaos_client; done
    sleep 0.5
}
# What the clients wrote, on our clock and in doubt earlier and later; what was under way and never came back may have happened.
history_of() {
    awk '
        function line(text, word) {
            split(text, word, " ")
            word[2] = sprintf("%.0f", word[2] - offset - error)
            if (word[3] != "-") word[3] = sprintf("%.0f", word[3] - offset + error)
            print word[1], word[2], word[3], word[4], word[5], word[6], word[7]
        }
        function lost() { if (under_way != "") line(under_way); under_way = "" }
        FNR == 1 { lost() }
        $2 == "clock" { lost(); offset = $3; error = $4; next }
        /^# under way: / { lost(); under_way = substr($0, 14); next }
        NF == 7 { under_way = ""; line($0) }
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
    clients_stop
    ((failures == 0)) || break
done
history_of >"$work/history"
say "        $(wc -l <"$work/history") operations, $(grep -c ' ? *$' "$work/history") without a known outcome"
say "        clocks are known within $(awk '$2 == "clock" && $4 > most { most = $4 } END { printf "%.0f", most / 1000000 }' "$work"/seen.*) ms"
check "there were operations" test "$(wc -l <"$work/history")" -gt $((rounds * 50))
before=$failures
check "what all clients saw is linearizable" rackfish sim --check-history "$work/history"
if ((failures > before)); then # what was seen is worth more than the word
    kept=${TMPDIR:-/var/tmp}/rackfish-lab-history.$$
    mkdir "$kept" && cp "$work/history" "$work"/seen.* "$kept" && say "        the history is kept in $kept"
fi

# (A device in use cannot be pulled out here: rxe and siw lack what that takes of a driver, disassociate_ucontext, and
# `rdma link delete` waits until nobody uses it.)
say "-- a network interface goes down and comes back"
survivor=$(leader 1)
victim=$(other_than "$survivor")
check "guest $victim's goes down" in_guest "$victim" ip link set lan0 down
within "the others know" 60 cores_up "$survivor" 2
check "and go on" on "$survivor" registry put down yes
check "it comes up" in_guest "$victim" ip link set lan0 up
within "and the machine is whole again" 90 cores_up "$survivor" 3

say "-- the end"
if ((failures != 0)); then
    for guest in 1 2 3; do
        say "---- guest $guest"
        in_guest $guest sh -c 'tail -n 12 /run/rackfish/lab/*/monitor-*.log /run/rackfish/lab/*/rackfishd.log' 2>&1 | cut -c1-200
    done
fi
check "down, from the second guest" on 2 down
for guest in 1 2 3; do
    within "nothing of it is left in guest $guest" 30 \
        bash -c "rackfish lab exec --name $lab_name $guest -- pgrep 'rackfishd|rf-cpu|rf-mon|rf-init' </dev/null; [[ \$? == 1 ]]"
done
check "the lab is down" lab down
finish
