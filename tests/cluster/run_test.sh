# Programs on any core as if they were local.
source "$(dirname "$0")/lib.sh" "$1"

machine_up run --nodes 2 --cores 2

# Exit statuses and signals.
for core in 0 3; do
    expect "exit status 0 on core $core" 0 rackfish run --core $core -- true
    expect "exit status 1 on core $core" 1 rackfish run --core $core -- false
    expect "exit status 42 on core $core" 42 rackfish run --core $core -- sh -c 'exit 42'
    expect "no such program on core $core" 127 rackfish run --core $core -- /nowhere/program
    expect "no such program by name on core $core" 127 rackfish run --core $core -- no-such-program-$$
    expect "a folder cannot be executed, core $core" 126 rackfish run --core $core -- /tmp
    expect "death by TERM on core $core kills by TERM" 143 rackfish run --core $core -- sh -c 'kill -TERM $$'
    expect "death by KILL on core $core kills by KILL" 137 rackfish run --core $core -- sh -c 'kill -KILL $$'
    expect "a missing folder is an error on core $core" 125 rackfish run --core $core --chdir /nowhere -- true
done
echo 'not executable' >"$work/plain"
expect "not executable" 126 rackfish run -- "$work/plain"
expect "no such core" 125 rackfish run --core 99 -- true
expect "no such node" 125 rackfish run --node nowhere -- true
printf '#!/nowhere/interpreter\n' >"$work/script"
chmod 755 "$work/script"
output=$(rackfish run -- "$work/script" 2>&1)
status=$?
matches "a missing interpreter is named" "$output" "/nowhere/interpreter"
check "... and is no success" test $status -ge 126

# Streams.
for core in 0 3; do
    size=$((core == 3 ? 200 : 20))
    sums=$(head -c ${size}M /dev/urandom | tee >(sha256sum >"$work/local") | rackfish run --core $core -- sha256sum)
    within "the local sum is there" 20 test -s "$work/local"
    equal "$size MB through core $core agree" "$sums" "$(cat "$work/local")"
    : >"$work/local"
done
rackfish run --core 2 -- sh -c 'head -c 30000000 /dev/zero; head -c 20000000 /dev/zero >&2' >"$work/out" 2>"$work/err"
equal "30 MB of stdout" "$(stat -c %s "$work/out")" 30000000
equal "20 MB of stderr at the same time" "$(stat -c %s "$work/err")" 20000000
equal "stdin closes for the program alone" "$(printf 'a\nb\n' | rackfish run --core 3 -- sh -c 'wc -l; echo after')" "$(printf '2\nafter')"
equal "stdin of nothing" "$(rackfish run --core 1 -- wc -c </dev/null)" 0
(exec 0<&-; timeout $((30 * patience)) rackfish run --core 1 -- cat)
equal "a closed stdin is an empty one" $? 0
timeout $((60 * patience)) rackfish run --core 3 -- yes | head -1 >"$work/yes"
statuses=(${PIPESTATUS[@]})
equal "a reader that goes away ends the writer" "$(cat "$work/yes") ${statuses[0]}" "y 141"
check "a slow reader loses nothing" test "$(rackfish run --core 2 -- seq 300000 | { sleep 0.5; sha256sum; })" = "$(seq 300000 | sha256sum)"
equal "stdout and stderr stay apart" "$(rackfish run --core 3 -- sh -c 'echo out; echo err >&2' 2>/dev/null)" out

# What goes with the program.
equal "environment" "$(MARK="a b'c" rackfish run --core 3 -- sh -c 'echo "$MARK"')" "a b'c"
equal "--env sets" "$(rackfish run --core 3 --env NEW=1 -- sh -c 'echo $NEW')" 1
equal "--env unsets" "$(MARK=1 rackfish run --core 3 --env MARK -- sh -c 'echo ${MARK-none}')" none
equal "working directory" "$(cd /usr/share && rackfish run --core 3 -- pwd)" /usr/share
equal "--chdir" "$(rackfish run --core 3 --chdir /usr -- pwd)" /usr
equal "umask" "$(umask 0137; rackfish run --core 3 -- sh -c umask)" 0137
equal "soft limits" "$(ulimit -S -n 321; rackfish run --core 3 -- sh -c 'ulimit -S -n')" 321
equal "arguments of any kind" "$(rackfish run --core 3 -- printf '%s|' 'a b' '' '*' "q\"'" $'n\nl')" "$(printf '%s|' 'a b' '' '*' "q\"'" $'n\nl')"
cp "$(command -v cat)" "$work/renamed"
equal "argv[0] as given" "$(cd "$work" && rackfish run --core 2 -- ./renamed /proc/self/comm)" renamed

# Signals from here.
signal_reaches() {
    local signal=$1 wanted=$2 pid status
    : >"$work/ready"
    rackfish run --core 3 -- sh -c "trap 'exit 33' $signal; echo ready; while :; do sleep 0.05; done" >"$work/ready" &
    pid=$!
    within "a program that catches $signal runs" 20 test -s "$work/ready"
    kill "-$signal" $pid
    wait $pid
    status=$?
    equal "$signal reaches the program" $status "$wanted"
}
set -m # or the shell's background jobs ignore INT and QUIT, as they should
for signal in INT TERM QUIT HUP; do signal_reaches $signal 33; done
: >"$work/ready"
rackfish run --core 3 -- sh -c "echo ready; while :; do sleep 0.05$own; done" >"$work/ready" &
pid=$!
within "a program runs" 20 test -s "$work/ready"
# Of the program itself: not the command, nor what it has started.
is_stopped() { ps -eo stat=,args= | grep "[d]o sleep 0.05$own" | grep -v rackfish | grep -q "^T"; }
is_running() { ps -eo stat=,args= | grep "[d]o sleep 0.05$own" | grep -v rackfish | grep -vq "^T"; }
kill -TSTP $pid
within "TSTP stops the program" 20 is_stopped
within "... and the command" 20 bash -c "grep -q 'State:.T' /proc/$pid/status"
kill -CONT $pid
within "CONT lets both go on" 20 is_running
kill -TERM $pid
wait $pid
equal "TERM ends it and the command" $? 143
set +m

# The client goes: hang-up, then KILL.
: >"$work/ready"
rackfish run --core 3 -- sh -c "trap '' HUP; echo ready; while :; do sleep 0.05$own; done" >"$work/ready" &
pid=$!
within "a program runs" 20 test -s "$work/ready"
kill -KILL $pid
wait $pid 2>/dev/null
within "a program whose client died is ended" 30 bash -c "! pgrep -f '[s]leep 0.05$own; done'"

# A terminal.
printf 'tty; stty size; test -t 1 && echo terminal; exit 5\n' >"$work/terminal.sh"
output=$(script -qec "stty rows 33 cols 77; rackfish run -t --core 3 -- sh $work/terminal.sh" /dev/null </dev/null)
status=$?
matches "-t gives a terminal" "$output" "/dev/"
matches "... of this one's size" "$output" "33 77"
matches "... on stdout too" "$output" "terminal"
equal "... and the exit status" $status 5
output=$(script -qec "rackfish run -t --core 1 -- true; stty -a" /dev/null </dev/null)
matches "the terminal is put back" "$output" "[^-]echo .*"

# Detached, wait, kill, ps.
id=$(rackfish run -d --core 2 -- sh -c 'exit 9')
expect "wait gives the exit status of a detached program" 9 rackfish wait "$id"
id=$(rackfish run -d --core 2 -- sleep 1000)
within "ps lists it as running" 20 bash -c "rackfish ps --json | grep '\"domain\":$id,' | grep -q '\"state\":\"running\"'"
expect "wait gives up at its timeout" 124 rackfish wait --timeout 200ms "$id"
expect "kill" 0 rackfish kill -KILL "$id"
expect "wait tells the signal" 137 rackfish wait "$id"
expect "wait for what never was" 125 rackfish wait 999999
expect "kill what never was" 1 rackfish kill 999999
id=$(rackfish run -d --core 3 -- sh -c "setsid sleep 1234.$own & sleep 1234.$own")
rackfish kill -KILL "$id"
within "a process that left its session dies with its domain" 20 bash -c "! pgrep -f '[s]leep 1234.$own'"

# On all cores.
output=$(rackfish run --all -l -- sh -c 'for i in 1 2 3; do echo "line $i"; done' | sort)
equal "--all -l labels whole lines" "$output" "$(for c in 0 1 2 3; do for i in 1 2 3; do echo "core $c: line $i"; done; done | sort)"
output=$(rackfish run --all -- sh -c 'yes "$(printf "%0100d" 7)" | head -2000' | sort -u)
equal "lines of all cores stay whole" "$output" "$(printf '%0100d' 7)"
expect "--all: the highest exit status" 3 bash -c "rackfish run --all -- sh -c 'mkdir $work/first 2>/dev/null && exit 3; exit 1'"
equal "--all: stdin goes to the first" "$(echo word | rackfish run --all -- cat)" word
equal "--stdin all: to each" "$(echo word | rackfish run --all --stdin all -- cat | grep -c word)" 4

# Shipping: a command in a mount namespace of its own sees files that the other host does not.
if ((EUID == 0)) && unshare -m true 2>/dev/null; then
    mkdir "$work/private"
    cat >"$work/ship.sh" <<'SHIP'
set -e
mount -t tmpfs none "$1/private"
cp "$(command -v cat)" "$1/private/shipped"
echo "shipped $(echo content | rackfish run --core 3 -- "$1/private/shipped")"
printf '#!/bin/sh\necho "script $1"\n' >"$1/private/script"
chmod 755 "$1/private/script"
rackfish run --core 3 -- "$1/private/script" word
rackfish run --core 3 -- "$1/private/script.none" || echo "none $?"
if command -v cc >/dev/null; then
    echo 'int answer(void) { return 42; }' >"$1/private/l.c"
    echo 'int answer(void); int main(void) { return answer(); }' >"$1/private/p.c"
    cc -shared -fPIC -o "$1/private/libanswer.so" "$1/private/l.c"
    cc -o "$1/private/p" "$1/private/p.c" -L"$1/private" -lanswer -Wl,-rpath,"$1/private"
    rackfish run --core 3 --with-libs -- "$1/private/p" || echo "with libraries $?"
fi
SHIP
    output=$(timeout $((60 * patience)) unshare -m bash "$work/ship.sh" "$work" 2>"$work/ship.err")
    matches "a program that the host lacks is shipped" "$output" "shipped content"
    matches "... a script too" "$output" "script word"
    matches "... and what is nowhere is not found" "$output" "none 127"
    ! command -v cc >/dev/null || matches "--with-libs ships its libraries" "$output" "with libraries 42"
    equal "nothing of it stays" "$(find "$dir" -maxdepth 1 -name '*.lib-*' | wc -l)" 0
fi

# Domains may use the machine only when they were told so.
if isolates; then
    expect "a domain may not use the control socket" 6 rackfish run --core 1 -- "$build/bin/rackfish" ps
fi
if ((EUID == 0)); then
    check "... unless it was started with --control" rackfish run --core 1 --control -- "$build/bin/rackfish" ps
fi
machine_down
finish
