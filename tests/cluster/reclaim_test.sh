# A lock of a core that has been given up: the next one in line has it when nothing of that core runs any more, not before.
source "$(dirname "$0")/lib.sh" "$1"

cp "$build/bin/elect" "$work/first.$own"
cp "$build/bin/elect" "$work/second.$own"
chmod 777 "$work"

leads() { grep -q leads "$work/$1"; }
waiting() { [[ $(rackfish registry --json --kind locks list elect/lock | json waiting) == "$1" ]]; }
said() { grep -qh "$1" "$dir"/node0/*.log; }
all_gone() {
    local pid
    for pid in "$@"; do [[ ! -e /proc/$pid ]] || grep -q '^State:.Z' "/proc/$pid/status" || return 1; done
}

machine_up reclaim --nodes 1 --cores 3
rackfish run -d --core 2 -- sh -c "exec $work/first.$own once >$work/first" >/dev/null
within "a domain on core 2 holds a lock" 30 leads first
rackfish run -d --core 1 -- sh -c "exec $work/second.$own once >$work/second" >/dev/null
within "another on core 1 waits for it" 30 waiting 1
remember_processes
holder=$(pgrep -f "[f]irst.$own once")
core=("$(pid_of monitor 2)" "$(pid_of cpudriver 2)" "$(ps -o ppid= -p "$holder" | tr -d ' ')" "$holder")

# All of core 2 stands still, and who would kill it, too: the machine gives it up, and cannot be rid of it.
kill -KILL "$(node_pid node0)"
fencer=$(pid_of cpudriver 0)
kill -STOP "$fencer" "${core[@]}"
within "the machine gives up the core" 60 said "core 2, incarnation 1, has left the machine"
within "... and cannot fence it" 60 said "core 2 cannot be fenced"
check "the holder is still there" kill -0 "$holder"
check "... and the lock its own" bash -c "! grep -q leads $work/second"
kill -CONT "$fencer"
within "it is fenced: the lock is the next one's" 60 leads second
check "... and nothing of the core is left" all_gone "${core[@]}"
check "up takes over" timeout 60 rackfish up
within "one holds it, nobody waits" 30 waiting 0
machine_down

# Another host is the last one to know: what it had is free when it is dead as a whole, and that has been noticed.
machine_up host --nodes 3 --cores 1
rm -f "$work/first" "$work/second"
rackfish run -d --core 2 -- sh -c "exec $work/first.$own once >$work/first" >/dev/null
within "a domain of another host holds a lock" 30 leads first
rackfish run -d --core 1 -- sh -c "exec $work/second.$own once >$work/second" >/dev/null
within "another waits for it" 30 waiting 1
kill -KILL "$(pid_of monitor 2)"
within "its monitor is killed: the lock is the next one's" 60 leads second
check "... and nothing of the domain is left" bash -c "! pgrep -f '[f]irst.$own once'"
machine_down
finish
