# Hosts that die whole and come back by `up`: one of three joins again; two of three are proved dead by what their next rackfishds say, with
# their run directories and without, and the machine is lost, which everybody is told; with less than that it waits. A core that
# leaves while another's silence is unnoticed does not take the quorum along.
source "$(dirname "$0")/lib.sh" "$1"

status_of() { rackfish --via "$1" --json status 2>/dev/null | json "$2"; }
all_up() { [[ $(status_of a cores_up) == "$1" ]]; }
is() { [[ $(status_of a "$1") == "$2" ]]; }
runs() { [[ $(timeout 60 rackfish --via a run --core "$1" -- echo on 2>&1) == on ]]; }
up_node() { timeout 100 rackfish up --config "$config" --node "$1" --timeout "${2:-60s}"; }

# machine NAME [SETTING]: three hosts of a core each.
machine() {
    configure "$1" "${2:-}" a b c
    local node ups=()
    for node in c b a; do up_node $node >"$work/up.$node" 2>&1 & ups+=($!); done
    wait "${ups[@]}"
    within "$1: three nodes form a machine" 60 all_up 3
    check "$1: a value is put" rackfish --via a registry put kept well
    remember_processes
}

# kill_nodes NODE...: everything on them, at once.
kill_nodes() {
    local node pids=()
    for node in "$@"; do pids+=($(awk '{ print $3 }' "$dir/$node/state")); done
    kill -KILL "${pids[@]}"
    within "everything on ${*} is dead" 20 gone "${pids[@]}"
}

is_lost() {
    within "$1: the machine is lost, and says so" 30 is lost true
    matches "... with the cores that are proved dead" "$(rackfish --via a status)" "lost +cores 1-2"
    matches "... and what to do" "$(rackfish --via a status)" "cores? 1, 2.*rackfish down.*rackfish up"
    expect "... a change is refused" 4 rackfish --via a registry put x y
    matches "... saying why, and what to do" "$(rackfish --via a registry put x y 2>&1)" "lost the majority of its voters.*rackfish down.*rackfish up"
    matches "... so is a program" "$(timeout 60 rackfish --via a run --core 0 -- true 2>&1)" "lost the majority of its voters"
    equal "... what was agreed on can be read" "$(rackfish --via a registry get --local kept 2>&1)" well
}

# stall NODE PID...: these stand still for a second from when NODE has started a core again.
stall() {
    perl -e '($state, $last, @pids) = @ARGV; $end = time + 60;
        while (time < $end) {
            open $f, "<", $state or next; last if grep { /^cpudriver \d+ (\d+)/ && $1 != $last } <$f>;
        } continue { select undef, undef, undef, 0.001 }
        kill "STOP", @pids; sleep 1; kill "CONT", @pids' "$dir/$1/state" "$2" "${@:3}"
}

# comes_back NODE CORE: `up` is ready when the core has joined, however long the others take; what is run at once runs.
comes_back() {
    check "up brings it back" up_node "$1"
    local joined ready
    joined=$(grep -h "this core has joined" "$dir/$1/monitor-$2.log" | tail -n 1) ready=$(grep -h "is ready" "$dir/$1/rackfishd.log" | tail -n 1)
    check "... ready when its core has joined" test "${joined%% *}" '<' "${ready%% *}"
    equal "... runs programs at once" "$(timeout 60 rackfish --via "$1" run --core "$2" -- echo on 2>&1)" on
    within "... and votes" 60 is survives_nodes 1
}

# One of three: it is expelled, and joins.
machine one $'election_ms: 2500\nhost_deadline_ms: 3000'
last=$(pid_of cpudriver 2)
kill_nodes c
within "one host dies: the others go on" 60 all_up 2
stall c "$last" "$(pid_of monitor 0)" "$(pid_of monitor 1)" &
comes_back c 2
wait
kill_nodes b
rm -rf "$dir/b" "$dir/b.sock"
within "another one dies" 60 all_up 2
say "        ... and its run directory is lost, too"
comes_back b 1
equal "the machine is the same" "$(rackfish --via b registry get kept)" well
machine_down

for how in kept lost; do
    machine "$how"
    kill_nodes b c
    if [[ $how == lost ]]; then rm -rf "$dir/b" "$dir/b.sock" "$dir/c" "$dir/c.sock"; fi
    within "$how: two of three hosts die: no quorum" 60 is has_quorum false
    up_node b 8s >"$work/up.b" 2>&1
    sleep 1
    equal "... with one of them back nothing is lost" "$(status_of a lost)" false
    matches "... but waits, and for whom" "$(rackfish --via a status)" "waits for +cores 1-2"
    matches "... a change says no more" "$(rackfish --via a registry put x y 2>&1)" "quorum is out of reach"
    up_node c >"$work/up.c" 2>&1
    equal "$how: up of the other one fails" $? 1
    matches "... saying why, and what to do" "$(cat "$work/up.c")" "node c: .*lost the majority of its voters.*rackfish down.*rackfish up"
    is_lost "$how"
    machine_down
done

# Nothing but silence: it waits for ever, and goes on.
machine cut $'election_ms: 2500\nhost_deadline_ms: 3000'
pids=($(awk '$1 != "node" { print $3 }' "$dir/b/state" "$dir/c/state"))
nodes=($(node_pid b) $(node_pid c))
kill -STOP "${nodes[@]}" "${pids[@]}"
within "two of three hosts stand still: no quorum" 60 is has_quorum false
timeout 60 rackfish --via a run --core 0 -- echo on >"$work/on" 2>&1 &
runner=$!
sleep 3
equal "... and nothing is lost" "$(status_of a lost)" false
kill -CONT "${pids[@]}" "${nodes[@]}"
wait $runner
equal "what is run meanwhile waits for ten elections, and runs" "$? $(cat "$work/on")" "0 on"
within "they go on: it works again" 60 runs 0
within "... whole" 60 all_up 3
machine_down

# The run directory alone is lost, and rackfishd dies: what runs there is alive, and nobody says otherwise.
machine alive
left=($(awk '$1 != "node" { print $3 }' "$dir/b/state" "$dir/c/state"))
kill -KILL "$(node_pid b)" "$(node_pid c)"
rm -rf "$dir/b" "$dir/b.sock" "$dir/c" "$dir/c.sock"
for node in b c; do up_node $node 4s >"$work/up.$node" 2>&1 & done
wait
equal "monitors that live without rackfishd and run directory are not taken for dead" "$(status_of a lost) $(status_of a has_quorum)" "false true"
check "... and the machine works" rackfish --via a registry put kept on
kill -KILL "${left[@]}" # nobody else knows of them
machine_down

# A host stands still, which nobody has noticed, and another's core leaves: the change does not wait in the log for that one.
machine_up leaves --nodes 3 --cores 1
pids=()
mapfile -t pids < <(awk '{ print $3 }' "$dir/node2/state")
kill -STOP "${pids[@]}"
check "core off, while another host stands still" timeout 30 rackfish core off 1
check "... and the machine goes on" timeout 20 rackfish registry put k v
equal "... with one core" "$(rackfish --json status | json cores_up)" 1
kill -CONT "${pids[@]}"
machine_down
finish
