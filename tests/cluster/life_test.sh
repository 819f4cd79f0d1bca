# Life of a node: several machines, taking over, reload, logs, dump, another launch.
source "$(dirname "$0")/lib.sh" "$1"

# Two machines at once.
machine_up one --nodes 1 --cores 2
first=$RACKFISH_MACHINE first_dir=$dir
machine_up two --nodes 2 --cores 1
second=$RACKFISH_MACHINE
equal "a program of the first" "$(rackfish -m "$first" run --core 1 -- echo one)" one
equal "a program of the second" "$(rackfish -m "$second" run --core 1 -- echo two)" two
id=$(rackfish -m "$first" run -d --core 0 -- sleep 5550)
equal "they have their own domains" "$(rackfish -m "$second" ps --json | grep -c sleep)" 0
machine_down "the second goes down"
equal "the first does not mind" "$(rackfish -m "$first" run --core 1 -- echo one)" one
export RACKFISH_MACHINE=$first
dir=$first_dir

# Reload: what is reloadable is taken, the rest rejected by name.
sed -i 's/^emulated:/log_level: debug\nemulated:/' "$dir/config.yaml"
kill -HUP "$(node_pid node0)"
within "the log level is taken over" 20 grep -qi 'debug\|reload' "$dir/node0/rackfishd.log"
sed -i 's/^encrypt: on/encrypt: off/' "$dir/config.yaml"
kill -HUP "$(node_pid node0)"
within "what is not reloadable is rejected by name" 20 grep -q encrypt "$dir/node0/rackfishd.log"
echo 'nonsense: [' >>"$dir/config.yaml"
kill -HUP "$(node_pid node0)"
within "a broken file is refused" 20 grep -q 'config.yaml:[0-9]*' "$dir/node0/rackfishd.log"
equal "the machine goes on as it was" "$(rackfish run --core 1 -- echo on)" on
sed -i '/^nonsense/d; s/^encrypt: off/encrypt: on/' "$dir/config.yaml"

# Logs and dump, of a live machine and of a dead one.
matches "logs of all" "$(rackfish logs)" "rackfishd"
matches "logs of a core" "$(rackfish logs 1)" "1"
(timeout 5 rackfish logs -f >"$work/follow" 2>&1; true) &
within "logs -f follows" 20 test -s "$work/follow"
check "dump" rackfish dump -o "$work/live.tar"
check "... is an archive" tar -tf "$work/live.tar"
check "... with logs" bash -c "tar -tf $work/live.tar | grep -q log"
check "... and without keys" bash -c "! tar -tf $work/live.tar | grep -q '\.key'"
wait
kill -KILL "$(node_pid node0)"
check "dump without rackfishd" rackfish dump -o "$work/dead.tar"
check "... has the logs" bash -c "tar -tf $work/dead.tar | grep -q rackfishd.log"
check "... and no key" bash -c "! tar -tf $work/dead.tar | grep -q '\.key'"
matches "logs without rackfishd" "$(rackfish logs)" "rackfishd"

# Taking over.
matches "status names the way out" "$(rackfish status 2>&1)" "up"
check "up takes over" timeout 60 rackfish up
matches "the domain is still there" "$(rackfish ps --json | grep "\"domain\":$id,")" running
equal "programs run" "$(rackfish run --core 1 -- echo again)" again
expect "a further up is refused" 1 timeout 60 rackfish up
check "kill" rackfish kill -KILL "$id"
expect "wait" 137 rackfish wait --timeout 20s "$id"
machine_down

# Leftovers of a machine whose every process died are no obstacle.
machine_up left --nodes 1 --cores 1
# shellcheck disable=SC2046
kill -KILL $(awk '{ print $3 }' "$dir"/*/state)
sleep 0.2
check "up over the leftovers of a dead machine" timeout 60 rackfish up --nodes 1 --cores 1
equal "it works" "$(rackfish run -- echo fresh)" fresh
machine_down

# A boot that cannot succeed is taken back whole.
export RACKFISH_MACHINE="t$$-fail"
dir=$base/$RACKFISH_MACHINE
output=$(timeout 60 rackfish up --nodes 2 --cores 2 --timeout 100ms 2>&1)
status=$?
if ((status == 0)); then
    machine_down
else
    check "a boot that is given no time says so" test $status -eq 5
    check "... and leaves nothing" test ! -e "$dir"
fi

# The same file on several hosts, started by a launcher: here all are this host, and ssh is a shell.
export RACKFISH_MACHINE="t$$-launch"
dir=$base/$RACKFISH_MACHINE
head -c 32 /dev/urandom >"$work/launch.key"
chmod 600 "$work/launch.key"
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
if command -v python3 >/dev/null; then
    cat >"$work/launch.yaml" <<YAML
machine: $RACKFISH_MACHINE
key_file: launch.key
allow_root: on
nodes:
  - {hosts: east, address: 127.0.0.1, port: $(free_port), cores: "0-0"}
  - {hosts: west, address: 127.0.0.1, port: $(free_port), cores: "0-0"}
YAML
    printf '#!/bin/bash\nwhile [[ $1 == -* ]]; do shift; done\nshift\nunset RACKFISH_MACHINE\nexec "$@"\n' >"$work/ssh"
    chmod 755 "$work/ssh"
    output=$(RACKFISH_SSH=$work/ssh timeout 90 rackfish up --config "$work/launch.yaml" --node east --launch ssh 2>&1)
    equal "up --config --launch ssh" "$?" 0
    say "        $output"
    remember_processes
    equal "both nodes are up" "$(rackfish --json status | json nodes_up)" 2
    equal "a program on the other" "$(rackfish run --node west -- echo west)" west
    machine_down
    # A host that cannot be reached is named, and what was started is taken back.
    printf '#!/bin/bash\necho "ssh: connect to host: No route to host" >&2\nexit 255\n' >"$work/ssh"
    output=$(RACKFISH_SSH=$work/ssh timeout 90 rackfish up --config "$work/launch.yaml" --node east --launch ssh 2>&1)
    equal "a host out of reach fails the boot" $? 1
    matches "... is named with its cause" "$output" "west.*No route to host"
    check "... and nothing is left" test ! -e "$dir"
fi
finish
