# Two hosts and a witness, a third that only votes: any one of them may go down, and the others go on. With leases, which those that
# run keep whatever the file says later.
source "$(dirname "$0")/lib.sh" "$1"

configure witness "leases: on" a b "w, witness: on"
bring_up() { timeout 110 rackfish up --config "$config" --node "$1" --timeout 100s >"$work/up.$1" 2>&1 </dev/null; }
via() { rackfish --via "$@"; }
status_is() { [[ $(via "$1" --json status 2>/dev/null | json "$2") == "$3" ]]; }
goes_down() { # all processes of a host at once
    local pids
    remember_processes
    mapfile -t pids < <(awk '{ print $3 }' "$dir/$1/state")
    kill -KILL "${pids[@]}"
    within "$1 goes down" 20 gone "${pids[@]}"
}
works() { [[ $(timeout 30 rackfish --via "$1" run "${@:2}" -- echo on 2>&1) == on ]]; }
where() { # on which core a program runs that NODE is asked for
    local id
    id=$(timeout 30 rackfish --via "$1" run -d "${@:2}" -- true 2>&1)
    rackfish --via "$1" --json ps --all | grep "\"domain\":$id," | sed 's/.*"cores":\[\([0-9]*\)\].*/core \1/'
}

ups=()
for node in a b w; do
    bring_up $node &
    ups+=($!)
done
wait "${ups[@]}"
within "two hosts and a witness are up" 60 status_is w cores_up 3
equal "they survive the loss of any one" "$(via a --json status | json survives_nodes)" 1
matches "status names the witness" "$(via a status)" "witness +node w: votes"
matches "... and as JSON" "$(via b --json status)" '"witnesses":\["w"\]'
matches "nodes names it" "$(via a nodes)" "up, witness"
equal "only one node is one" "$(via a --json nodes | grep -c '"witness":true')" 1
matches "it says that leases are on" "$(via w status)" "reads +by the leader alone .* of 250 ms"
matches "doctor knows that any one may die" "$(rackfish doctor --config "$config" 2>&1)" "or of any 1 node"
for i in 1 2 3 4; do matches "a program without a wish goes elsewhere ($i)" "$(where w)" "^core [01]$"; done
equal "... with one it goes to the witness" "$(where a --core 2) $(where a --node w) $(where w --node w)" "core 2 core 2 core 2"
equal "--all leaves the witness out" "$(timeout 60 rackfish --via a run --all -- echo on 2>&1 | grep -c on)" 2

# Each host in turn, the one that leads and formed among them.
for row in "w a b" "b a w" "a b w"; do
    # shellcheck disable=SC2086
    set -- $row
    goes_down "$1"
    within "without $1: the others go on" 30 status_is "$2" cores_up 2
    within "... and agree" 30 status_is "$2" has_quorum true
    within "... so does $3" 30 status_is "$3" has_quorum true
    core=$([[ $2 == a ]] && echo 0 || echo 1)
    within "... a program runs" 30 works "$3" --core "$core"
    bring_up "$1"
    within "$1 is back" 60 status_is "$1" cores_up 3
    within "... and any one may go again" 30 status_is "$2" survives_nodes 1
done

sed -i 's/^leases: on/leases: off/' "$config"
daemon=$(node_pid b)
kill -KILL "$daemon"
within "a rackfishd goes down" 20 gone "$daemon"
bring_up b
within "a rackfishd started anew, by a file without leases, takes its cores over" 30 status_is b cores_up 3
equal "... and keeps their lease" "$(via b --json status | json lease_ms)" 250
matches "... and says so" "$(cat "$dir/b/rackfishd.log")" "witness.yaml:4: leases: the machine that runs has them on"
kill -KILL "$(pid_of monitor 1)"
within "... a core of it joins anew" 60 bash -c "rackfish --via a --json cores | grep '\"core\":1,.*' | grep -q '\"state\":\"up\"'"
within "... and works" 30 works a --core 1
sed -i 's/^leases: off/leases: on/' "$config"
machine_down
finish
