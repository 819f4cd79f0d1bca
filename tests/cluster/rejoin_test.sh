# Cores that die, stall and come back: the machine goes on, and they join it again as new incarnations.
source "$(dirname "$0")/lib.sh" "$1"

incarnation() { rackfish --json cores 2>/dev/null | grep "\"core\":$1," | json incarnation; }
status_of() { rackfish --json status 2>/dev/null | json "$1"; }
all_up() { [[ $(status_of cores_up) == "$1" ]]; }
rejoined() { [[ $(incarnation "$1") == "$2" ]] && all_up "$3" && runs "$1"; }
runs() { [[ $(timeout 60 rackfish run --core "$1" -- echo on 2>&1) == on ]]; } # it knows that it is a member
works_everywhere() {
    local core
    for core in "$@"; do
        equal "core $core runs programs" "$(timeout 60 rackfish run --core "$core" -- echo alive 2>&1)" alive
    done
}

# gone PID...: and reaped.
gone() { local pid; for pid in "$@"; do kill -0 "$pid" 2>/dev/null && return 1; done; return 0; }

# ... or waits to be reaped by a rackfishd that is stopped.
reaped() { local pid; for pid in "$@"; do [[ $(ps -o stat= -p "$pid") == [^Z]* ]] && return 1; done; return 0; }

# One host: each core in turn dies, by its monitor or its CPU driver, the leader's first.
machine_up host --nodes 1 --cores 3
survives=$(status_of survives_cores)
equal "three cores of one host survive the death of any one" "$survives" 1
lives=(1 1 1)
for role in monitor cpudriver; do
    for core in 0 1 2; do
        id=$(rackfish run -d --core $core -- sleep 4730.$own)
        remember_processes
        start=$(now_ms)
        kill -KILL "$(pid_of $role $core)"
        other=$(((core + 1) % 3))
        equal "KILL of the $role of core $core: another core works on" \
            "$(timeout 60 rackfish run --core $other -- echo on 2>&1)" on
        say "        next program after $(($(now_ms) - start)) ms"
        lives[core]=$((lives[core] + 1))
        within "... it joins again as incarnation ${lives[core]}" 60 rejoined $core "${lives[core]}" 3
        say "        back after $(($(now_ms) - start)) ms"
        expect "... its domain was lost, and is said to be" 125 rackfish wait --timeout 20s "$id"
        within "... and is gone" 20 bash -c "! pgrep -f '[s]leep 4730.$own'"
    done
done
works_everywhere 0 1 2
equal "it survives a death again" "$(status_of survives_cores)" 1
machine_down

# A core that dies again and again comes back, each time later.
machine_up often --nodes 1 --cores 3
log=$dir/node0/rackfishd.log
says_too_often() { grep -q "core 1 dies too often: it joins again in $1 ms" "$log"; }
for life in 2 3 4 5 6 7 8; do
    remember_processes
    kill -KILL "$(pid_of cpudriver 1)"
    within "core 1 dies, and joins as incarnation $life" 60 rejoined 1 $life 3
    says_too_often 400 && break
done
for pause in 200 400; do # from its death to its next life, by the log
    check "after some deaths it waits for $pause ms" says_too_often $pause
    read -r died joined < <(sed -n "/core 1 dies too often: it joins again in $pause ms/,/core 1 joins the machine/p" "$log" |
        sed -n '1p;$p' | while read -r at _; do date -d "$at" +%s%3N; done | xargs)
    check "... and it does ($((joined - died)) ms)" test $((joined - died)) -ge "$pause"
done
works_everywhere 0 1 2
machine_down

# A monitor that is stopped for longer than the timeout is expelled; its core is killed as it is, and joins anew.
for core in 0 2; do
    machine_up "stall$core" --nodes 1 --cores 3
    rackfish run -d --core $core -- sleep 4731.$own >/dev/null
    within "a domain runs on core $core" 20 pgrep -f "[s]leep 4731.$own"
    remember_processes
    monitor=$(pid_of monitor $core) driver=$(pid_of cpudriver $core)
    start=$(now_ms)
    kill -STOP "$monitor"
    equal "core $core stalls: the others work on" \
        "$(timeout 60 rackfish --via node0 run --core 1 -- echo on 2>&1)" on
    within "it is expelled and joins as incarnation 2" 60 rejoined $core 2 3
    say "        back after $(($(now_ms) - start)) ms"
    kill -CONT "$monitor" 2>/dev/null
    check "nothing of the stalled core is left" gone "$monitor" "$driver"
    check "nor its domain" bash -c "! pgrep -f '[s]leep 4731.$own'"
    works_everywhere 0 1 2
    machine_down
done

# Monitor and CPU driver both stopped: a CPU driver of another core ends them all the same.
machine_up both --nodes 1 --cores 3
rackfish run -d --core 1 -- sleep 4732.$own >/dev/null
within "a domain runs on core 1" 20 pgrep -f "[s]leep 4732.$own"
remember_processes
monitor=$(pid_of monitor 1) driver=$(pid_of cpudriver 1)
kill -STOP "$driver" "$monitor"
within "a core that is stopped whole is expelled and joins as incarnation 2" 60 rejoined 1 2 3
check "nothing of it is left" gone "$monitor" "$driver"
check "nor its domain" bash -c "! pgrep -f '[s]leep 4732.$own'"
works_everywhere 0 1 2
machine_down

# A CPU driver alone: its monitor is well, and rackfishd sees that it is stopped. A short stop costs nothing.
machine_up driver --nodes 1 --cores 3
remember_processes
monitor=$(pid_of monitor 1) driver=$(pid_of cpudriver 1)
perl -e 'kill "STOP", @ARGV; select undef, undef, undef, 0.2; kill "CONT", @ARGV' "$driver" # no process is started in between
sleep 1.5
equal "a CPU driver that is stopped for a moment goes on" "$(pid_of cpudriver 1) $(incarnation 1)" "$driver 1"
kill -STOP "$driver"
within "one that stays stopped is ended, and its core joins as incarnation 2" 60 rejoined 1 2 3
check "nothing of it is left" gone "$monitor" "$driver"
works_everywhere 0 1 2
machine_down

# The same without rackfishd: nobody starts it again, but it is fenced.
machine_up alone --nodes 1 --cores 3
rackfish run -d --core 1 -- sleep 4733.$own >/dev/null
within "a domain runs on core 1" 20 pgrep -f "[s]leep 4733.$own"
remember_processes
monitor=$(pid_of monitor 1) driver=$(pid_of cpudriver 1)
kill -KILL "$(node_pid node0)"
kill -STOP "$driver" "$monitor"
within "without rackfishd it is fenced too" 60 gone "$monitor" "$driver"
within "and its domain" 10 bash -c "! pgrep -f '[s]leep 4733.$own'"
check "up takes over" timeout 60 rackfish up
within "and the core joins again" 60 rejoined 1 2 3
works_everywhere 0 1 2
machine_down

# rackfishd alone is stopped while a core dies: the others of its host fence it and go on, and when it runs again the core joins.
machine_up stopped --nodes 2 --cores 3
id=$(rackfish run -d --core 4 -- sleep 4736.$own)
rackfish run -d --core 5 -- sleep 4737.$own >/dev/null
within "a domain runs on core 4" 20 pgrep -f "[s]leep 4736.$own"
within "and one on core 5" 20 pgrep -f "[s]leep 4737.$own"
remember_processes
daemon=$(node_pid node1) monitor=$(pid_of monitor 4) driver=$(pid_of cpudriver 4)
kill -STOP "$daemon"
kill -KILL "$monitor"
within "its rackfishd is stopped: the core is expelled" 60 bash -c \
    "[[ \$(rackfish --via node0 --json status) == *'\"cores_up\":5'* ]]"
within "... and fenced: nothing of it is left" 60 reaped "$driver"
within "nor its domain" 20 bash -c "! pgrep -f '[s]leep 4736.$own'"
check "a domain of another core of its host runs on" pgrep -f "[s]leep 4737.$own"
equal "other hosts work on" "$(timeout 60 rackfish --via node0 run --core 0 -- echo on 2>&1)" on
matches "what is asked of its host is refused, saying why" \
    "$(timeout 60 rackfish --via node0 run --core 5 -- echo on 2>&1)" "its rackfishd does not answer"
expect "its domain is said to be lost" 125 rackfish --via node0 wait --timeout 20s "$id"
kill -CONT "$daemon"
within "rackfishd runs again: the core joins as incarnation 2" 60 rejoined 4 2 6
check "the domain of the other core is still there" pgrep -f "[s]leep 4737.$own"
works_everywhere 0 3 4 5
machine_down

# Two hosts: any one monitor, the leader's too.
machine_up hosts --nodes 2 --cores 2
for core in 0 3; do
    kill -KILL "$(pid_of monitor $core)"
    equal "KILL of the monitor of core $core: the others work on" \
        "$(timeout 60 rackfish run --core $(((core + 1) % 4)) -- echo on 2>&1)" on
    within "it joins again" 60 rejoined $core 2 4
done
works_everywhere 0 1 2 3
machine_down

# All monitors of a host are stopped, so that nobody there can say anything any more: its CPU drivers freeze what runs, the others go on
# without it. When they run again they hear that they have been expelled; nothing that was frozen runs before it is killed.
machine_up silent --nodes 3 --cores 2
chmod 777 "$work"
ticks() { cat "$work/ticks$core" "$work/ticks$((core + 1))" | wc -l; }
frozen() { before=$(ticks); sleep 1; [[ $(ticks) == "$before" ]]; }
first=$(($(status_of leader) / 2 * 2)) # once the leader's host ...
for core in $first $(((first + 2) % 6)); do # ... and once another
    id=()
    for k in $core $((core + 1)); do
        rm -f "$work/ticks$k"
        id+=("$(rackfish run -d --core "$k" -- sh -c "while :; do echo >>$work/ticks$k; sleep 0.05$own; done")")
        within "a program runs on core $k" 20 test -s "$work/ticks$k"
    done
    lives=$(incarnation "$core")
    other=$(((core + 2) % 6))
    monitors=("$(pid_of monitor "$core")" "$(pid_of monitor $((core + 1)))")
    remember_processes
    start=$(now_ms)
    kill -STOP "${monitors[@]}"
    within "both cores are frozen, though their monitors say nothing" 20 frozen
    say "        after $(($(now_ms) - start)) ms, a look taking 1000"
    within "the others go on without the host" 30 bash -c \
        "[[ \$(rackfish --via node$((other / 2)) --json status) == *'\"cores_up\":4'* ]]"
    say "        after $(($(now_ms) - start)) ms"
    equal "and programs run" "$(timeout 60 rackfish --via node$((other / 2)) run --core $other -- echo on 2>&1)" on
    expect "the programs of the frozen cores are lost, and said to be" 125 \
        rackfish --via node$((other / 2)) wait --timeout 20s "${id[0]}"
    equal "which have done nothing since" "$(ticks)" "$before"
    kill -CONT "${monitors[@]}"
    within "its monitors run again: they are expelled, and join as incarnation $((lives + 1))" 60 rejoined "$core" $((lives + 1)) 6
    check "nothing of the frozen cores is left" gone "${monitors[@]}"
    check "nor their programs" bash -c "! pgrep -f '[s]leep 0.05$own'"
    equal "which have done nothing more" "$(ticks)" "$before"
    works_everywhere "$core" $((core + 1)) $other
done
machine_down

# A whole host, with its rackfishd: `up` brings it back, and is ready when its cores have joined.
machine_up lost --nodes 3 --cores 1
equal "three hosts survive the loss of any one" "$(status_of survives_nodes)" 1
for life in 2 3 4; do
    remember_processes
    # shellcheck disable=SC2046
    kill -KILL $(awk '{ print $3 }' "$dir/node2/state")
    within "the host is expelled" 60 all_up 2
    works_everywhere 0 1
    check "up brings it back" timeout 60 rackfish up
    equal "its core is of the machine at once, as incarnation $life" \
        "$(rackfish --via node2 --json status | json forming) $(incarnation 2)" "false $life"
    works_everywhere 2
done
works_everywhere 0 1
machine_down

# All cores of a host that comes back ask together, and join by few changes.
machine_up many --nodes 2 --cores 10
remember_processes
# shellcheck disable=SC2046
kill -KILL $(awk '{ print $3 }' "$dir/node1/state")
within "a host of ten cores is expelled" 60 all_up 10
settled() { local view=$(status_of view); sleep 1; [[ $(status_of view) == "$view" ]]; }
within "... and the voters are others" 60 settled
view=$(status_of view)
check "up brings it back" timeout 100 rackfish up
check "all its cores have joined" all_up 20
count=$(($(status_of view) - view))
say "        by $count views, with those that make some of them voters"
check "... by fewer views than there are cores" test "$count" -lt 10
works_everywhere 0 10 15 19
machine_down

# On purpose.
machine_up purpose --nodes 2 --cores 2
id=$(rackfish run -d --core 3 -- sleep 4734.$own)
expect "core off is refused while a domain runs there" 1 rackfish core off 3
matches "... saying so" "$(rackfish core off 3 2>&1)" "wait.*kill"
check "core off --kill" rackfish core off --kill 3
expect "... its domain was ended" 143 rackfish wait --timeout 20s "$id"
within "the machine knows it" 20 all_up 3
sleep 1
equal "it stays off" "$(status_of cores_up)" 3
expect "a program for it is refused" 125 rackfish run --core 3 -- true
works_everywhere 0 1 2
check "core on" rackfish core on 3
within "it is back as incarnation 2" 20 rejoined 3 2 4
id=$(rackfish run -d --core 0 -- sleep 2)
check "core off --wait waits for its domain" rackfish core off --wait 0
expect "... which ended by itself" 0 rackfish wait --timeout 20s "$id"
works_everywhere 1 2 3
check "node remove" rackfish node remove node1 --kill
within "one node is left" 20 bash -c '[[ $(rackfish --json status) == *"\"nodes_up\":1"* ]]'
works_everywhere 1
expect "the last node stays" 6 rackfish node remove node0 --kill
matches "... and says why" "$(rackfish node remove node0 --kill 2>&1)" "last node"
check "node add" rackfish node add node1
check "core on, once more" rackfish core on 0
within "all are back" 60 all_up 4
works_everywhere 0 1 2 3
expect "a node that is up is not added" 1 rackfish node add node1
expect "nor one that is unknown" 1 rackfish node add node7
id=$(rackfish run -d --core 3 -- sleep 4735.$own)
expect "who asked for a node's removal goes while it waits for a domain" 124 timeout 3 rackfish node remove node1 --wait
matches "it is under way all the same" "$(rackfish node remove node1 --wait 2>&1)" "leaves already"
check "who does not want to wait need not" timeout 60 rackfish node remove node1 --kill
expect "the domain was ended" 143 rackfish wait --timeout 20s "$id"
within "the node is removed" 20 bash -c '[[ $(rackfish --json status) == *"\"nodes_up\":1"* ]]'
within "whole: it can be added" 20 timeout 60 rackfish node add node1
within "all are back, once more" 60 all_up 4
machine_down

# The node that forms comes back by `up` like any other: it asks the others, and joins the machine that they know.
configure first "" a b c
up_node() { timeout 100 rackfish up --config "$config" --node "$1" --timeout "${2:-90s}"; }
machine_id() { rackfish --via "$1" status | sed -n '/^machine/s/.*(\(.*\))/\1/p'; }
first_is_back() {
    [[ $(machine_id a) == "$id" ]] && rejoined 0 "$1" 3
}
output=$(up_node a 3s 2>&1)
equal "alone the first node does not form a machine" $? 5
matches "... and says for whom it waits" "$output" "machine already: waiting for 1 more of node b .*port $((port + 1)).*node c"
check "... nothing is left of it" test ! -e "$dir"
for node in c b a; do up_node $node >"$work/up.$node" 2>&1 & ups+=($!); done
wait "${ups[@]}"
within "three nodes form a machine" 60 all_up 3
remember_processes
id=$(machine_id b)
check "a value is put" rackfish registry put kept well
check "the first node is removed" rackfish --via b node remove a --kill
within "... and gone" 20 all_up 2
check "up brings it back" up_node a
within "... into the machine that was there" 60 first_is_back 2
equal "... with what it agreed on" "$(rackfish --via a registry get kept)" well
remember_processes
# shellcheck disable=SC2046
kill -KILL $(awk '{ print $3 }' "$dir/a/state")
within "it dies, and its run directory is lost" 60 all_up 2
rm -rf "$dir/a" "$dir/a.sock"
check "up brings it back" up_node a
within "... into the machine that was there" 60 first_is_back 3
works_everywhere 0 1 2
machine_down
finish
