# The shortest life of a machine: up, every question, a program, down.
source "$(dirname "$0")/lib.sh" "$1"

machine_up boot --nodes 2 --cores 2
equal "status tells the nodes" "$(rackfish --json status | json nodes_up)" 2
equal "status tells the cores" "$(rackfish --json status | json cores_up)" 4
matches "status says what the machine survives" "$(rackfish status)" "survives "
equal "cores lists four that are up" "$(rackfish cores --json | grep -c '"state":"up"')" 4
equal "nodes lists two that are up" "$(rackfish nodes --json | grep -c '"state":"up"')" 2
matches "links shows shared memory inside a node" "$(rackfish links --json)" '"medium":"shm"'
matches "links shows TCP between nodes" "$(rackfish links --json)" '"medium":"tcp"'
check "every link has a latency" bash -c '! rackfish links --json | grep -q "one_way_ns_p50\":null"'
check "mem" rackfish mem
equal "status --resources tells of every core's monitor" "$(rackfish --json status --resources | grep -c '"core":[0-3],"node":"node[01]"')" 4
# shellcheck disable=SC2016 # a program of awk
check "each has links, with a descriptor or more each and rings" bash -c "rackfish --json status --resources |
    awk -F'[:,}]' '{ if (\$6 < \$8 || \$8 < 3 || \$12 < 64 * 64) bad = 1 } END { exit bad || NR != 4 }'"
equal "and a host of two cores their sum" "$(rackfish status --resources | grep -c ' all ')" 2
expect "status takes no arguments, with --resources either" 2 rackfish status --resources more
check "names" rackfish names
check "top --once" rackfish top --once
check "ping" rackfish ping
matches "doctor tells its findings" "$(rackfish doctor 2>&1)" "good"
for core in 0 1 2 3; do
    equal "a program runs on core $core" "$(rackfish run --core $core -- echo "from $core")" "from $core"
done
equal "a program runs on a node by name" "$(rackfish run --node node1 -- echo there)" there
expect "a second up is refused" 1 rackfish up
expect "wrong usage" 2 rackfish status --nonsense
expect "no such machine" 3 rackfish -m "t$$-none" status
machine_down
expect "down of a machine that is down" 0 rackfish down
expect "status says that there is none" 3 rackfish status
finish
