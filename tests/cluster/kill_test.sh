# KILL to any one of a machine's processes: who waits for it learns it, the rest goes on, `down` leaves nothing.
source "$(dirname "$0")/lib.sh" "$1"

# A domain that forks a child which leaves its session, its group and its parent.
runaway="setsid sh -c \"trap '' HUP TERM; while :; do sleep 0.05$own; done\" & exec sleep 4730.$own"

# start_domain CORE: a detached runaway; its id.
start_domain() { rackfish run -d --core "$1" -- sh -c "$runaway"; }

# after_kill WHAT: what must hold after any death.
survivors_work() {
    local core
    for core in "$@"; do
        equal "core $core still runs programs" "$(timeout 60 rackfish run --core "$core" -- echo alive 2>&1)" alive
    done
}

no_runaways() { ! pgrep -f "[s]leep 0.05$own; done" && ! pgrep -f "[s]leep 4730.$own"; }
both_run() { pgrep -f "[s]leep 4730.$own" && pgrep -f "[s]leep 4731.$own"; }

# ended JOB: waits for it; sets status, and elapsed since start.
ended() {
    wait "$1"
    status=$?
    elapsed=$(($(now_ms) - start))
}

# kill_one ROLE CORE: boots 2x2, kills, looks.
kill_one() {
    local role=$1 core=$2 other id start pid
    machine_up "$role" --nodes 2 --cores 2
    id=$(start_domain "$core")
    timeout 60 rackfish wait "$id" >"$work/wait" 2>&1 &
    local waiter=$!
    timeout 60 rackfish run --core "$core" -- sleep 4731.$own 2>"$work/run" &
    local runner=$!
    within "both programs run" 20 both_run
    remember_processes
    pid=$(pid_of "$role" "$core")
    start=$(now_ms)
    kill -KILL "$pid"
    ended $waiter
    equal "KILL of the $role of core $core: wait learns it ($elapsed ms)" $status 125
    ended $runner
    equal "... and run ($elapsed ms)" $status 125
    matches "... saying why" "$(cat "$work/run")" "core"
    within "the domain's processes are gone, also who left the session" 20 no_runaways
    for other in 0 1 2 3; do
        [[ $other == "$core" ]] || cores+=("$other")
    done
    survivors_work "${cores[@]}"
    cores=()
    within "the core joins again" 30 joined "$core" 2
    within "... and works" 30 works "$core"
}
cores=()

# joined CORE INCARNATION, works CORE
joined() { [[ $(rackfish --json cores | grep "\"core\":$1," | json incarnation) == "$2" ]]; }
works() { [[ $(timeout 60 rackfish run --core "$1" -- echo on 2>&1) == on ]]; }

for role in monitor cpudriver; do
    for core in 3 0; do # 0: the leader's
        kill_one $role $core
        machine_down "KILL of a $role of core $core, then down, leaves nothing"
    done
done

# Two cores: one that dies takes the quorum with it; everything else goes on.
machine_up pair --nodes 1 --cores 2
kill -KILL "$(pid_of monitor 0)"
within "status says that there is no quorum" 20 bash -c "rackfish --json status | grep -q '\"has_quorum\":false'"
start=$(now_ms)
output=$(timeout 30 rackfish run --core 1 -- true 2>&1)
status=$?
equal "with one of two cores dead run fails at once ($(($(now_ms) - start)) ms)" $status 125
matches "... for want of a quorum" "$output" "agree|quorum|majority of its voters"
check "ps goes on" rackfish ps
matches "status says that it never comes back" "$(rackfish status)" "never|majority"
machine_down "one of two cores dead, then down, leaves nothing"

# What runs on other cores when the leader dies runs on, and is waited for and killed.
machine_up leaderless --nodes 2 --cores 2
id=$(start_domain 3)
mkfifo "$work/pipe"
exec 9<>"$work/pipe"
rackfish run --core 2 -- sh -c 'echo up; read line; echo "got $line"' <"$work/pipe" >"$work/out" 2>&1 9>&- &
runner=$!
within "one runs" 20 pgrep -f "[s]leep 4730.$own"
within "and the other" 20 grep -q up "$work/out"
kill -KILL "$(pid_of monitor 0)"
sleep 1
echo words >&9
exec 9>&-
wait $runner
equal "a program on another core goes on" "$? $(tail -n 1 "$work/out")" "0 got words"
check "kill reaches a domain on another core" rackfish kill -KILL "$id"
expect "wait as well" 137 rackfish wait --timeout 20s "$id"
machine_down

# A domain and its first process.
kill_domains() {
    machine_up "$1" --nodes 2 --cores 2
    id=$(start_domain 2)
    timeout 60 rackfish wait "$id" >/dev/null 2>&1 &
    waiter=$!
    within "it runs" 20 pgrep -f "[s]leep 4730.$own"
    start=$(now_ms)
    kill -KILL "$(pgrep -f "[s]leep 4730.$own" | head -1)"
    ended $waiter
    equal "KILL of a domain: wait learns it ($elapsed ms)" $status 137
    within "its runaway dies with it" 20 no_runaways
    id=$(start_domain 2)
    within "the next one runs" 20 pgrep -f "[s]leep 4730.$own"
    init=$(ps -o ppid= -p "$(pgrep -f "[s]leep 4730.$own" | head -1)" | tr -d ' ')
    kill -KILL "$init"
    expect "KILL of its init: wait learns it too" 137 rackfish wait --timeout 20s "$id"
    within "nothing of it is left" 20 no_runaways
    survivors_work 0 1 2 3
    start_domain 1 >/dev/null
    start_domain 3 >/dev/null
    within "two more run" 20 pgrep -f "[s]leep 4730.$own"
    machine_down "down ends runaways"
    within "no runaways" 20 no_runaways
}
kill_domains domain
RACKFISH_ISOLATION=none kill_domains bare # on hosts that refuse PID namespaces

# rackfishd: nothing stops; a second `up` takes over.
machine_up node --nodes 2 --cores 2
id=$(start_domain 1)
within "a domain runs" 20 pgrep -f "[s]leep 4730.$own"
kill -KILL "$(node_pid node0)"
within "the other node answers" 20 rackfish ps
matches "the domain runs on" "$(rackfish --via node1 ps --json | grep "\"domain\":$id,")" running
check "up takes over" timeout 60 rackfish up
equal "status by the new rackfishd" "$(rackfish --via node0 --json status | json cores_up)" 4
matches "it knows the domain" "$(rackfish --via node0 ps --json | grep "\"domain\":$id,")" running
survivors_work 0 1 3
check "kill works" rackfish kill -KILL "$id"
id=$(start_domain 1)
within "another domain runs" 20 pgrep -f "[s]leep 4730.$own"
remember_processes
kill -KILL "$(node_pid node0)" "$(node_pid node1)"
expect "no rackfishd left: status says so" 3 rackfish status
check "cores live on" bash -c "kill -0 $(pid_of cpudriver 1) && pgrep -f '[s]leep 4730.$own'"
machine_down "both rackfishds killed, then down, leaves nothing"
within "no runaways" 20 no_runaways

# A whole emulated host.
machine_up host --nodes 2 --cores 2
id=$(start_domain 3)
timeout 60 rackfish wait "$id" >/dev/null 2>&1 &
waiter=$!
within "a domain runs there" 20 pgrep -f "[s]leep 4730.$own"
remember_processes
start=$(now_ms)
# shellcheck disable=SC2046
kill -KILL $(awk '{ print $3 }' "$dir/node1/state")
ended $waiter
equal "KILL of a host: wait on the other learns it ($elapsed ms)" $status 125
within "the machine knows it" 30 bash -c "rackfish --via node0 --json status | grep -q '\"nodes_up\":1'"
survivors_work 0 1
expect "a program for the dead host is refused" 125 rackfish --via node0 run --core 3 -- true
machine_down "a killed host, then down, leaves nothing"
within "no runaways" 20 no_runaways

# Everything at once.
machine_up all --nodes 2 --cores 2
start_domain 0 >/dev/null
start_domain 3 >/dev/null
within "domains run" 20 pgrep -f "[s]leep 4730.$own"
remember_processes
# shellcheck disable=SC2046
kill -KILL $(awk '{ print $3 }' "$dir"/*/state)
machine_down "KILL of every process of the system, then down, leaves nothing"
within "no runaways" 20 no_runaways
finish
