# Life of rackfishd itself: it dies and is started again by hand, its logs stay bounded, a swept node leaves nothing.
source "$(dirname "$0")/../cluster/lib.sh" "$1"

machine_up life --nodes 2 --cores 1
old=$(node_pid node0)
id=$(rackfish run -d --core 0 -- sleep 5551)
driver=$(pid_of cpudriver 0)

# A second one for a living node touches nothing.
check "a second rackfishd is refused" bash -c "! timeout 20 rackfishd --config $dir/config.yaml --node node0 --run-dir $dir"
equal "... and the first goes on" "$(rackfish --via node0 run --core 0 -- echo on)" on

# Killed and started again, as systemd would.
kill -KILL "$old"
setsid rackfishd --config "$dir/config.yaml" --node node0 --run-dir "$dir" </dev/null >/dev/null 2>&1 &
within "a new one answers" 20 rackfish --via node0 status
equal "it adopted the CPU driver" "$(pid_of cpudriver 0)" "$driver"
matches "the domain never noticed" "$(rackfish --via node0 ps --json | grep "\"domain\":$id,")" running
within "its peer is met again" 20 bash -c "rackfish --via node0 nodes --json | grep -v 'out of reach' | grep -q node1"
equal "a program on the other node" "$(rackfish --via node0 run --core 1 -- echo there)" there
equal "a program on this one, asked from the other" "$(rackfish --via node1 run --core 0 -- echo here)" here
remember_processes

# More rackfishds than the machine keeps sessions for change something and are killed. Each is served, and so is the first, whose
# session has ended meanwhile.
check "a change by the first" rackfish --via node0 registry put sessions/0 -
for i in {1..66}; do
    kill -KILL "$(node_pid node1)"
    (setsid rackfishd --config "$dir/config.yaml" --node node1 --run-dir "$dir" </dev/null >/dev/null 2>&1 &)
    until rackfish --via node1 registry put "sessions/$i" - >/dev/null 2>&1; do ((SECONDS < 100)) || break 2; done
done
equal "changes by rackfishds that were killed" "$(rackfish --via node0 registry list sessions/ | grep -c sessions/)" 67
check "a change by the first, again" rackfish --via node0 registry put sessions/0 again
remember_processes

# A log that grows is cut, and its writer goes on.
id=$(rackfish run -d --core 1 -- sh -c 'while :; do head -c 1000000 /dev/zero | tr "\0" "x"; echo; sleep 0.05; done')
within "a growing log is set aside" 60 test -s "$dir/node1/domain-$id.0.log.1"
check "... and cut" test "$(stat -c %s "$dir/node1/domain-$id.0.log")" -lt 64000000
check "kill the writer" rackfish kill -KILL "$id"

# A core that died while nobody looked is found dead.
kill -KILL "$(node_pid node0)"
kill -KILL "$driver"
setsid rackfishd --config "$dir/config.yaml" --node node0 --run-dir "$dir" </dev/null >/dev/null 2>&1 &
within "the third one says that the core is gone" 20 grep -q "adopted 0 of 1" "$dir/node0/rackfishd.log"

# Without any rackfishd, sweeping by its state file ends a node.
kill -KILL "$(node_pid node1)"
check "sweep" rackfishd --sweep --node node1 --run-dir "$dir"
check "... removed the node" test ! -e "$dir/node1"
machine_down
finish
