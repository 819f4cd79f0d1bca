# Bad input from outside costs the machine nothing.
source "$(dirname "$0")/lib.sh" "$1"

# Flags in place of a command.
for flag in --version -V; do
    equal "$flag is the command of that name" "$(rackfish $flag 2>&1)" "$(rackfish version)"
    expect "... and succeeds" 0 rackfish $flag
done
equal "--version as JSON" "$(rackfish --json --version 2>&1)" "$(rackfish version --json)"
for flag in --help -h; do
    equal "$flag is the command of that name" "$(rackfish $flag 2>&1)" "$(rackfish help)"
    expect "... and succeeds" 0 rackfish $flag
done
expect "a flag that is none" 2 rackfish --verison
expect "an option without its argument" 2 rackfish -m
expect "no command at all" 2 rackfish

# Configurations: one error with file, line and mend, and nothing is started.
head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$work/good.key"
chmod 600 "$work/good.key"
refused() {
    local what=$1 pattern=$2 output status
    output=$(timeout 60 rackfish up --config "$work/bad.yaml" --node a 2>&1)
    status=$?
    check "$what: refused" test $status -ne 0
    matches "$what: names file, line and mend" "$output" "bad.yaml:[0-9]+: .*$pattern"
    equal "$what: one line" "$(wc -l <<<"$output")" 1
    check "$what: nothing is left" test ! -e "$base/t$$-config"
}
head="machine: t$$-config
key_file: $work/good.key"
node='nodes:
  - {hosts: a, address: 127.0.0.1, port: 17117, cores: "0-0"}'
printf '%s\nfrobnicate: 1\n%s\n' "$head" "$node" >"$work/bad.yaml"
refused "unknown key" frobnicate
printf '%s\n%s\n  - {hosts: a, address: 127.0.0.1, port: 17118, cores: "0-0"}\n' "$head" "$node" >"$work/bad.yaml"
refused "duplicate host" a
printf '%s\nnodes:\n  - {hosts: "a[1-", address: 127.0.0.1, port: 17117, cores: "0-0"}\n' "$head" >"$work/bad.yaml"
refused "bad hostlist" 'a\['
printf 'machine: t%s-config\nkey_file: %s/none.key\n%s\n' $$ "$work" "$node" >"$work/bad.yaml"
refused "missing key file" none.key
printf '%s\nnodes:\n  - {hosts: a, address: 127.0.0.1, port: 17117, cores: "0-9999"}\n' "$head" >"$work/bad.yaml"
refused "core that does not exist" 9999
for row in '8|out of range' '"0,0"|core twice' '"0,1,2,3,4,5,6,7"|more voters' '"0,1"|no core 1' 'few|neither a number'; do
    printf '%s\nvoters: %s\n%s\n' "$head" "${row%%|*}" "$node" >"$work/bad.yaml"
    refused "voters: ${row%%|*}" "voters: .*${row#*|}"
done
printf '%s\nnodes: [[[\n' "$head" >"$work/bad.yaml"
refused "no YAML" ""

machine_up input --nodes 2 --cores 1
port=$(grep -o 'port: [0-9]*' "$dir/config.yaml" | head -1 | awk '{ print $2 }')
printf '%s\nnodes:\n  - {hosts: a, address: 127.0.0.1, port: %s, cores: "0-0"}\n  - {hosts: b, address: 127.0.0.1, port: 17119, cores: "0-0"}\n' "$head" "$port" >"$work/bad.yaml"
output=$(env -u RACKFISH_MACHINE timeout 60 rackfish up --config "$work/bad.yaml" --node a 2>&1)
check "port in use: refused" test $? -ne 0
matches "port in use: says so" "$output" "$port|in use"
check "port in use: nothing is left" test ! -e "$base/t$$-config"

# The bootstrap port: garbage, half-open connections, a wrong key.
for size in 1 4 100 100000; do
    head -c $size /dev/urandom | timeout 5 bash -c "cat >/dev/tcp/127.0.0.1/$port" 2>/dev/null
done
half_open=()
for _ in 1 2 3 4 5 6 7 8; do
    exec {fd}<>"/dev/tcp/127.0.0.1/$port" && half_open+=("$fd")
done
printf 'GET / HTTP/1.0\r\n\r\n' | timeout 5 bash -c "cat >/dev/tcp/127.0.0.1/$port" 2>/dev/null
if command -v gnutls-cli >/dev/null; then
    timeout 10 gnutls-cli --pskusername rackfish --pskkey "$(head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n')" \
        --priority 'NORMAL:-VERS-ALL:+VERS-TLS1.3:-KX-ALL:+DHE-PSK:+ECDHE-PSK' -p "$port" 127.0.0.1 </dev/null >/dev/null 2>&1
    check "a wrong key is refused" test $? -ne 0
fi
equal "the machine is whole" "$(rackfish --json status | json cores_up)" 2
equal "and serves across nodes" "$(rackfish run --core 1 -- echo well)" well
lines=$(grep -c . "$dir"/node0/rackfishd.log)
check "it does not fill its log with it ($lines lines)" test "$lines" -lt 200
for fd in "${half_open[@]}"; do exec {fd}>&-; done

# A node that holds another key cannot join, nor learn anything.
if ((EUID == 0)); then
    sed "s/cluster.key/$test_name.key/" "$dir/config.yaml" >"$work/forged.yaml"
    cp "$work/good.key" "$work/$test_name.key"
    mkdir -p "$work/forged"
    output=$(cd "$work" && timeout 8 rackfishd --config "$work/forged.yaml" --node node1 --run-dir "$work/forged/t$$-forged" --log-stderr 2>&1)
    equal "a node with a wrong key does not get in" "$(rackfish --json status | json nodes_up)" 2
    timeout 20 rackfish --via node0 ps >/dev/null
    check "the others do not mind" test $? -eq 0
    rackfishd --sweep --node node1 --run-dir "$work/forged/t$$-forged" >/dev/null 2>&1
fi

# The control socket: garbage, a length that promises too much, nothing at all.
python=$(command -v python3) || python=""
if [[ -n $python ]]; then
    "$python" - "$dir/node0.sock" <<'PY'
import os, socket, sys
def connect():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(5)
    s.connect(sys.argv[1])
    return s
held = [connect() for _ in range(20)]           # silent
for payload in (b"\xff\xff\xff\xff" + b"x" * 100, b"\x00\x00\x00\x00", os.urandom(1000), b"\x05\x00\x00\x00\xff\xff\xff\xff\xff",
                b"\x04\x00\x00\x00\x08\x01\x12\x00" + b"\x02\x00\x00\x00\x08\x02"):
    s = connect()
    try:
        s.sendall(payload)
        s.recv(4096)
    except OSError:
        pass
    s.close()
PY
    pass "garbage on the control socket was sent"
fi
check "the control socket serves on" rackfish ps
equal "no core was lost" "$(rackfish --json status | json cores_up)" 2
machine_down

# A module that is missing: at once, with cause and mend.
mkdir "$work/bare" "$work/bare/bin"
for program in rackfish rackfishd rf-cpudriver rf-monitor rf-init; do cp "$build/bin/$program" "$work/bare/bin/"; done
chmod -R a+rX "$work/bare"
output=$(PATH=$work/bare/bin:$PATH timeout 60 rackfish -m "t$$-bare" up --nodes 2 --cores 1 2>&1)
equal "a missing module: up fails" $? 1
matches "... naming it, and the mend" "$output" "cannot listen.*rackfish-tcp.so.*install Rackfish as a whole"
check "... and leaves nothing" test ! -e "$base/t$$-bare"

# RDMA without a device, or without its module: at once, with the mend. (Where there is a device this is no mistake.)
export RACKFISH_MACHINE="t$$-rdma"
machines+=("$RACKFISH_MACHINE")
if [[ -e $build/modules/rackfish-rdma.so && (! -d /sys/class/infiniband || -z $(ls /sys/class/infiniband)) ]]; then
    output=$(timeout 60 rackfish up --nodes 2 --cores 1 --transport rdma 2>&1)
    equal "rdma without a device: up fails" $? 1
    matches "... naming it, and the mend" "$output" "this host has no RDMA device; mend: .*rdma link add rxe0"
    check "... and leaves nothing" test ! -e "$base/$RACKFISH_MACHINE"
fi
output=$(PATH=$work/bare/bin:$PATH timeout 60 rackfish up --nodes 2 --cores 1 --transport rdma 2>&1)
equal "rdma without its module: up fails" $? 1
matches "... naming what to install" "$output" "rackfish-rdma.so is not in.*install libibverbs1, librdmacm1 and ibverbs-providers"
check "... and leaves nothing" test ! -e "$base/$RACKFISH_MACHINE"
expect "dpdk between nodes of one host" 2 rackfish up --transport dpdk
head -c 32 /dev/urandom >"$work/dpdk.key"
chmod 600 "$work/dpdk.key"
cat >"$work/dpdk.yaml" <<YAML
machine: $RACKFISH_MACHINE
key_file: dpdk.key
emulated: on
nodes:
  - {hosts: a, address: 127.0.0.1, port: 0, cores: "0-0", dpdk: {interface: nosuch0}}
  - {hosts: b, address: 127.0.0.1, port: 0, cores: "0-0", dpdk: {interface: lo}}
transports: [{between: [a, b], use: dpdk}]
YAML
output=$(PATH=$work/bare/bin:$PATH timeout 60 rackfish up --config "$work/dpdk.yaml" --node a 2>&1)
equal "dpdk without its module: up fails" $? 1
matches "... naming what to install" "$output" "no rackfish-dpdk: built without DPDK; mend: install libdpdk-dev"
matches "... and what is wrong with the port" "$output" "dpdk.yaml:5: dpdk: this host has no network interface 'nosuch0'"
check "... and leaves nothing" test ! -e "$base/$RACKFISH_MACHINE"
expect "a transport that is none" 2 rackfish up --transport rmda
for option in one-sided encrypt; do
    output=$(timeout 60 rackfish up --config "$work/dpdk.yaml" --node a --$option on 2>&1)
    equal "--$option with a configuration" $? 2
    matches "... says where it is written" "$output" "leave out --$option and write .${option/-/_}: on. into .*dpdk.yaml"
done

output=$(timeout 60 rackfish up --config "$work/dpdk.yaml" --node a --transport rdma 2>&1)
equal "--transport with a configuration" $? 2
matches "... says the same" "$output" "leave it out and write it into .*dpdk.yaml"

# Three nodes of a configuration; an even number of voters warns.
export RACKFISH_MACHINE="t$$-three"
dir=$base/$RACKFISH_MACHINE
machines+=("$RACKFISH_MACHINE")
port=$((20000 + $$ % 10000))
cat >"$work/three.yaml" <<YAML
machine: $RACKFISH_MACHINE
key_file: good.key
allow_root: on
voters: 2
defaults: {cores: "0-0"}
nodes:
  - {hosts: a, address: 127.0.0.1, port: $port}
  - {hosts: b, address: 127.0.0.1, port: $((port + 1))}
  - {hosts: c, address: 127.0.0.1, port: $((port + 2))}
YAML
up_node() { timeout 100 rackfish up --config "$work/three.yaml" --node "$1"; }
matches "doctor shows what it survives" "$(rackfish doctor --config "$work/three.yaml" --node a 2>&1)" "even number.*when a core that votes dies"

# Two hosts are told to form.
for node in a b; do
    timeout 300 rackfishd --config "$work/three.yaml" --node $node --form --ready-fd 3 3>"$work/form.$node" 2>/dev/null &
    forming+=($!)
done
within "forming twice: the second is refused" 20 grep -q "^error node a forms the machine, too; start only one host with --form" "$work/form.b"
kill -TERM "${forming[0]}"
wait "${forming[@]}"
rackfish down >/dev/null 2>&1

for node in c b a; do up_node $node >"$work/up.$node" 2>&1 & ups+=($!); done
wait "${ups[@]}"
whole() { [[ $(rackfish --json status | json cores_up) == 3 ]]; }
within "three nodes form a machine" 60 whole
matches "an even number of voters warns" "$(cat "$work/up.a")" "warning: .*three.yaml:4: voters: an even number"
equal "two vote" "$(rackfish --json status | json voters)" 2
remember_processes
check "a value is put" rackfish registry put kept well

# Joining twice.
output=$(up_node b 2>&1)
equal "a node that is up: up is refused" $? 1
matches "... with the mend" "$output" "is up already.*down"
expect "... node add, too" 1 rackfish node add b --config "$work/three.yaml"
lives() { rackfish --json cores | json_all incarnation; }
json_all() { grep -o "\"$1\":[0-9]*" | tr '\n' ' '; }
before=$(lives)
check "core on of a core that is up" rackfish core on 1
equal "... starts no other life of it" "$(lives)" "$before"
mkdir "$work/twin"
timeout 60 rackfishd --config "$work/three.yaml" --node b --run-dir "$work/twin/m" --ready-fd 3 3>"$work/twin.out" 2>/dev/null
matches "a second node of that name is refused" "$(cat "$work/twin.out")" "in use|living node"
rackfishd --sweep --node b --run-dir "$work/twin/m" >/dev/null 2>&1
equal "the machine is whole" "$(rackfish --json status | json cores_up)" 3

# Another machine's id.
# shellcheck disable=SC2046
kill -KILL $(awk '{ print $3 }' "$dir/c/state")
two() { [[ $(rackfish --via a --json status | json cores_up) == 2 ]]; }
within "a node dies" 60 two
sed -i 's/^id .*/id 00112233445566778899aabbccddeeff/' "$dir/c/machine"
output=$(up_node c 2>&1)
equal "a node with another machine's id is refused" $? 1
matches "... saying so, and the mend" "$output" "belongs to another machine.*rackfish down"
rm -rf "$dir/c" "$dir/c.sock"
check "without the id it joins" up_node c
within "the machine is whole" 60 whole
equal "what was acknowledged is there" "$(rackfish --via c registry get kept)" well

# Removing what is not there, and the last.
check "a node is removed" rackfish --via a node remove c --kill
not_up() { # while its rackfishd is still ending, it is in reach and says something else
    output=$(rackfish --via a node remove c 2>&1)
    [[ $? == 1 && $output =~ "node c is not up".*"node add" ]]
}
within "a node that is not up cannot be removed, with the mend" 20 not_up
expect "the other one is" 0 rackfish --via a node remove b --kill
expect "the last host is not" 6 rackfish --via a node remove a --kill
matches "... with the mend" "$(rackfish --via a node remove a --kill 2>&1)" "last node.*rackfish down"
equal "what was acknowledged is there" "$(rackfish --via a registry get kept)" well
machine_down
finish
