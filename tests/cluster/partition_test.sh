# Three hosts with a network of their own between them (network namespaces), which is cut and healed.
source "$(dirname "$0")/lib.sh" "$1"

source "$(dirname "$0")/net.sh"
net_begin 3 10.213.77
# Hosts h1 to h3 are the network's 0 to 2.
of_net() { local i; for i in "$@"; do echo $((i - 1)); done; }
# shellcheck disable=SC2046 # words
cut() { net_cut $(of_net "$@"); }
# shellcheck disable=SC2046
heal() { net_heal $(of_net "$@"); }

net_machine partition ""
at() { rackfish --via "h$1" --json status 2>/dev/null | json "$2"; }
quorum() { [[ $(at "$1" has_quorum) == "$2" ]]; }
frozen() { [[ $(at "$1" frozen) == "$2" ]]; }
up() { [[ $(at "$1" cores_up) == "$2" ]]; }
incarnation() { rackfish --via h1 --json cores 2>/dev/null | grep "\"core\":$1," | json incarnation; }
works() { [[ $(timeout 20 rackfish --via "h$(($1 + 1))" run --core "$1" -- echo on 2>&1) == on ]]; }
ticks() { wc -l <"$work/ticks$1" 2>/dev/null; }
stands() { before=$(ticks "$1"); sleep 3; [[ $(ticks "$1") == "$before" ]]; } # no busy host alone keeps a program waiting for so long
start_ticking() {
    timeout 20 rackfish --via "h$(($1 + 1))" run -d --core "$1" -- sh -c "while :; do echo >>$work/ticks$1; sleep 0.05$own; done"
}
chmod 777 "$work"
equal "it survives any one host" "$(at 1 survives_nodes)" 1
id2=$(start_ticking 2)
within "a program runs on the third" 20 test -s "$work/ticks2"
remember_processes

# One host is cut off: it refuses and freezes, the others expel it and go on; healed, it joins anew.
start=$(now_ms)
cut 3
within "the host that is cut off has no quorum" 30 quorum 3 false
say "        after $(($(now_ms) - start)) ms"
output=$(timeout 30 rackfish --via h3 run --core 2 -- true 2>&1)
equal "it refuses to run programs" $? 125
matches "... for want of a quorum" "$output" "agree|quorum"
within "it freezes its domains" 30 frozen 3 true
say "        after $(($(now_ms) - start)) ms"
within "they do not run" 20 stands 2
matches "its status says for whom it waits" "$(rackfish --via h3 status)" "waits for +cores? 0"
within "the others go on without it" 30 up 1 2
say "        after $(($(now_ms) - start)) ms"
check "a program runs on the first" works 0
check "and on the second" works 1
expect "wait says that its domain is lost" 125 rackfish --via h1 wait --timeout 20s "$id2"
heal 3
within "healed, it joins as incarnation 2" 60 bash -c "[[ \$(rackfish --via h1 --json cores | grep '\"core\":2,' | grep -c '\"incarnation\":2') == 1 ]]"
within "and works" 30 works 2
check "its domain is gone" bash -c "! pgrep -f '[s]leep 0.05$own'"

# The leader's host.
leader=$(at 1 leader)
other=$(((leader + 1) % 3))
start=$(now_ms)
cut $((leader + 1))
within "the leader's host is cut off: another leads" 30 quorum $((other + 1)) true
within "and programs run" 30 works $other
say "        after $(($(now_ms) - start)) ms"
within "the one that led knows that it does not" 30 quorum $((leader + 1)) false
heal $((leader + 1))
within "healed, all are there" 60 up 1 3
within "and work" 30 works $leader

# Whoever returns from a long cut is a member again, and stays it: what the kernel gave up meanwhile, and its growing pauses, must
# not keep the hosts apart. (Without that: up to 40 s, and several lives.)
whole() { up 1 3 && up 2 3 && up 3 3; }
# Packets are lost in silence: where a carrier is missing the kernel knows, and does not pause longer and longer.
silence() { # net_lose or net_hear, between host $2 and the others
    local other
    for other in 0 1 2; do
        ((other == $2 - 1)) || { "$1" $(($2 - 1)) $other; "$1" $other $(($2 - 1)); }
    done
}
for host in $(($(at 1 leader) + 1)) 3; do
    lives=$(incarnation $((host - 1)))
    silence net_lose $host
    within "host $host is cut off for long: the others go on" 30 up $((host % 3 + 1)) 2
    sleep 6
    kill -KILL "$(pid_of monitor $((host - 1)))" # its rackfishd wants to tell the others, and to have it join again
    sleep 13
    silence net_hear $host
    within "healed, it is a member again" 10 whole
    check "after two lives at most" test "$(incarnation $((host - 1)))" -le $((lives + 2))
    within "and works" 10 works $((host - 1))
done

# All are cut off: nobody is expelled, all wait, and go on when it is over.
rm -f "$work/ticks1"
id1=$(start_ticking 1)
within "a program runs on the second" 20 test -s "$work/ticks1"
view=$(at 1 view)
lives="$(incarnation 0) $(incarnation 1) $(incarnation 2)"
cut 1 2 3
for i in 1 2 3; do within "host $i has no quorum" 30 quorum $i false; done
within "all freeze" 30 frozen 2 true
within "nothing runs" 20 stands 1
equal "nobody is lost" "$(at 1 lost)" false
heal 1 2 3
for i in 1 2 3; do within "healed, host $i has a quorum" 60 quorum $i true; done
equal "nobody was expelled" "$(at 2 view) $(incarnation 0) $(incarnation 1) $(incarnation 2)" "$view $lives"
goes_on() { (($(ticks 1) > before)); }
within "the program goes on" 30 goes_on
check "and can be ended" rackfish --via h1 kill -KILL "$id1"
for core in 0 1 2; do within "core $core works" 30 works $core; done
for i in 2 3; do rackfish --via "h$i" down --this-host >/dev/null 2>&1; done
machine_down "down leaves nothing"
net_end
finish
