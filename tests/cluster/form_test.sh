# Hosts that go down and come up again while the machine forms: no core is its first incarnation twice, and nobody waits without a word.
source "$(dirname "$0")/lib.sh" "$1"

# up_node NODE TIMEOUT [FOLDER]: in the background; its output is $work/up.NODE.
up_node() {
    "${3:-$build/bin}/rackfish" up --config "$config" --node "$1" --timeout "$2" >"$work/up.$1" 2>&1 </dev/null &
}
boot_said() { grep -q "$2" "$dir/$1/boot.log"; }
incarnation() { rackfish --json cores 2>/dev/null | grep "\"core\":$1," | json incarnation; }
all_up() { [[ $(rackfish --json status 2>/dev/null | json cores_up) == "$1" ]]; }

all_end_well() {
    local what=$1 pid
    shift
    for pid in "$@"; do
        wait "$pid"
        equal "$what" $? 0
    done
}

# reboots NODE: its host forgets everything.
reboots() {
    remember_processes
    # shellcheck disable=SC2046
    kill -KILL $(awk '{ print $3 }' "$dir/$1/state")
    rm -rf "${dir:?}/$1" "$dir/$1.sock"
}

# Three hosts, of which two are there: their cores are started, and wait for the third.
configure three "" a b c
up_node a 100s
ups=($!)
up_node b 100s
within "two of three hosts start their cores" 30 boot_said b "core 1 is up"
reboots b
up_node b 100s
ups+=($!)
within "a host that comes back while the machine forms waits" 30 boot_said b "an earlier life of this node may be in the machine"
within "... and the forming one knows of it" 10 boot_said a "node b was started anew meanwhile and joins later"
check "... its core is not started" test ! -e "$dir/b/state"
up_node c 100s
ups+=($!)
all_end_well up "${ups[@]}"
within "the machine has formed, and the host has joined it" 60 all_up 3
equal "... its core as a later incarnation" "$(incarnation 0) $(incarnation 1) $(incarnation 2)" "1 2 1"
for core in 0 1 2; do equal "core $core runs programs" "$(timeout 60 rackfish run --core $core -- echo on 2>&1)" on; done
machine_down

# Two hosts, of which one goes down before its core has come up: what was begun cannot end, and both say so.
configure two "" a b
mkdir "$work/slow"
cp "$build/bin/rackfish" "$build/bin/rackfishd" "$work/slow/"
printf '#!/bin/sh\nexec sleep 600\n' >"$work/slow/rf-cpudriver"
chmod 755 "$work/slow/rf-cpudriver"
up_node a 15s
a=$!
up_node b 100s "$work/slow"
within "the other host starts its core" 30 boot_said b "starting 1 core"
reboots b
up_node b 5s
wait $!
equal "it does not come back into that" $? 5
matches "... and says why, and what to do" "$(cat "$work/up.b")" "earlier life of this node.*rackfish down.*rackfish up"
wait $a
equal "the machine does not form without it" $? 5
matches "... and says why, and what to do" "$(cat "$work/up.a")" "node b was started anew.*rackfish down.*rackfish up"
check "nothing is left of it" test ! -e "$dir"

# The same, and the host that forms goes down: the other one is in a machine that nobody forms any more.
up_node a 100s
up_node b 15s "$work/slow"
b=$!
within "both hosts are in it" 30 boot_said b "starting 1 core"
reboots a
up_node a 5s
wait $!
equal "the host that forms does not form another one beside it" $? 5
matches "... and says why, and what to do" "$(cat "$work/up.a")" "node b is in a machine that has not formed.*rackfish down.*rackfish up"
wait $b
matches "nor does the other one wait for ever, or without a word" "$(cat "$work/up.b")" "node a, which forms it, was started anew.*rackfish down"
up_node a 60s
ups=($!)
up_node b 60s
ups+=($!)
all_end_well "up, once more" "${ups[@]}"
within "now it forms" 60 all_up 2
equal "... of first incarnations" "$(incarnation 0) $(incarnation 1)" "1 1"
machine_down
finish
