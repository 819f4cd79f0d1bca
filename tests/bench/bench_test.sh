#!/bin/bash
# rf-bench: every piece that needs no machine, or boots its own, runs and says what it should; no figure is judged.
set -u
bench="$1/bin/rf-bench"
[ "$(nproc)" -ge 2 ] || { echo "skipped: two spinning sides need two CPUs"; exit 77; }
folder=$(mktemp -d) || exit 1
trap 'rm -rf "$folder"' EXIT

fail() { echo "FAILED: $*"; exit 1; }

fields='"bench" "what" "cores" "unit" "n" "min" "p50" "p90" "p99" "p99_9" "max" "mean" "placement"'
samples=20
run() { # how many results are expected, then the words of the command
    local expected=$1 line field
    shift
    timeout 300 "$bench" "$@" --json --samples "$samples" --tries 1 --hdr "$folder/hdr" >"$folder/out" || fail "$* ended with $?"
    [ "$(wc -l <"$folder/out")" -eq "$expected" ] || fail "$*: $(wc -l <"$folder/out") results, not $expected"
    while read -r line; do
        for field in $fields; do
            [[ $line == *"$field":* ]] || fail "$*: no $field in $line"
        done
        [[ $line == "{"*"}" ]] || fail "$*: no object: $line"
    done <"$folder/out"
}

# The list, for people in two columns, for programs as one object a line.
"$bench" list >"$folder/list" && "$bench" list --json >"$folder/list.json" || fail "list ended with $?"
[ "$(wc -l <"$folder/list")" -gt 10 ] && [ "$(wc -l <"$folder/list")" -eq "$(wc -l <"$folder/list.json")" ] || fail "the lists differ in length"
while read -r name help <&3 && read -r line <&4; do
    [ "$line" = "{\"bench\":\"$name\",\"help\":\"$help\"}" ] || fail "list --json: $line"
done 3<"$folder/list" 4<"$folder/list.json"

run 3 urpc one-way wake-up pipelined --slots 64
run 1 urpc rate --slots 64 --batch 32
grep -q '"ratio":' "$folder/out" || fail "no ratio to a raw limit"
run 3 poll look
run 3 poll arm
run 6 poll late
grep -q 'late after_us=5' "$folder/hdr" || fail "no percentile text"
run 9 limits
run 14 flow --batch 1
if [ -x "$1/bin/rf-dpdk-bounce" ]; then
    left=$(mktemp -d /tmp/rf-bounce-XXXXXX) lives=$(mktemp -d /tmp/rf-bounce-XXXXXX) others=$(mktemp -d /tmp/rf-bounce-XXXXXX)
    mkdir "$left/rte"
    chmod 755 "$others" # no run makes such a folder
    touch -d '1 hour ago' "$left" "$lives" "$others"
    exec 7<"$lives"
    flock 7
    run 3 dpdk memif
    [ ! -e "$left" ] || fail "what a run that was killed left is still there"
    rmdir "$lives" "$others" || fail "what belongs to another is gone"
    exec 7<&-
    run 2 dpdk virtio virtio-packed one-way
    run 4 dpdk driver memif one-way # the bare wire, with packets, a driver without a seal, with one
    left=$(mktemp -d /tmp/rf-link-XXXXXX)
    touch -d '1 hour ago' "$left"
    run 2 --transport dpdk link one-way monitors 2>"$folder/err"
    [ ! -e "$left" ] || fail "what a run over DPDK that was killed left is still there"
    echo 'rf-bench link: two link drivers are up; measuring' | cmp - "$folder/err" || fail "a bench over DPDK is not quiet"
    [ "$(id -u)" -ne 0 ] || ! ip link add "rfb$$" type veth peer name "rfc$$" || {
        ip link del "rfb$$"
        run 3 dpdk one-way af_packet udp tcp
    }
    "$bench" --transport bogus link 2>"$folder/err" && fail "a medium that is not there was measured"
    [ "$(wc -l <"$folder/err")" -eq 1 ] || fail "a medium that is not there is not named once: $(cat "$folder/err")"
    "$bench" dpdk quantum 2>/dev/null && fail "a wire that is not there was measured"
fi
samples=4 # of a thousand commands each
run 8 ordered direct
run 25 ordered plan
run 4 ordered urpc
run 3 ordered tcp
run 7 ordered blocking
run 3 ordered tcp --outstanding 64
run 6 ordered failover
run 6 ordered machine
run 4 two-phase direct
run 16 two-phase single
run 4 one-phase direct
run 4 shootdown pipelined
run 3 shootdown single package

# Ends in processes of their own, here over loopback; in the columns of others.
port=$((10000 + $$ % 10000)) # below those that the kernel hands out
between() { # the words of the client's command
    timeout 100 "$bench" link listen 127.0.0.1:$port & local server=$!
    for ((i = 0; i < 600; i++)); do # until the server listens
        timeout 100 "$bench" "$@" >"$folder/out" 2>"$folder/err" && break
        sleep 0.1
    done
    wait $server || fail "the server of $* ended with $?"
    [ -s "$folder/out" ] || fail "$*: $(cat "$folder/err")"
    port=$((port + 1))
}
between --samples 20 --format osu link 127.0.0.1:$port one-way rate --batch 16
grep -Eq '^# Size +Avg Latency\(us\)' "$folder/out" || fail "no OSU header: $(cat "$folder/out")"
[ "$(grep -Ec '^64 +[0-9.]+( |$)' "$folder/out")" -eq 2 ] || fail "no OSU figures: $(cat "$folder/out")"
between --samples 20 --format perftest bulk 127.0.0.1:$port --bytes 65536 --depth 2
grep -q '^ #bytes     #iterations    BW peak\[MB/sec\]    BW average\[MB/sec\]   MsgRate\[Mpps\]$' "$folder/out" || fail "no header of perftest: $(cat "$folder/out")"
grep -Eq '^ 65536 +[0-9]+ +[0-9.]+ +[0-9.]+ +[0-9.]+$' "$folder/out" || fail "no figures as of perftest: $(cat "$folder/out")"
between --samples 20 --format perftest link 127.0.0.1:$port one-way
grep -Eq '^ 64 +20 +([0-9.]+ +){6}[0-9.]+ *$' "$folder/out" || fail "no latency as of perftest: $(cat "$folder/out")"

timeout 100 "$bench" --json --samples 3 --senders 2 incast listen 127.0.0.1:$port >"$folder/out" & receiver=$!
sender() {
    for ((i = 0; i < 600; i++)); do
        timeout 100 "$bench" incast 127.0.0.1:$port 2>/dev/null && return
        sleep 0.1
    done
    return 1
}
sender & first=$!
sender || fail "a sender of incast"
wait $first && wait $receiver || fail "incast"
[ "$(wc -l <"$folder/out")" -eq 4 ] || fail "incast: not four results: $(cat "$folder/out")"

# A cost model of this machine, in few samples: the simulator takes it.
models=$(cd "$(dirname "$0")/../../sim/models" && pwd)
timeout 300 "$models/measure.py" "$1" --tries 1 --samples 20 >"$folder/measured.model" || fail "measure.py ended with $?"
"$1/bin/rf-sim" --model "$folder/measured.model" --monitors 2 --clients 1 --ops 500 >"$folder/out" || fail "the simulator on the measured model"
grep -q 'ordered change p50' "$folder/out" || fail "no prediction: $(cat "$folder/out")"

"$bench" urpc --format xml 2>/dev/null && fail "a format that is not there was taken"
"$bench" urpc --slots 65 2>/dev/null && fail "65 slots were taken"
"$bench" urpc --batch 1000 2>/dev/null && fail "a batch of 1000 was taken"
"$bench" nothing 2>/dev/null && fail "a bench that is not there ran"
"$bench" urpc --cores 0,99999 2>/dev/null && fail "a CPU that is not there was taken"
"$bench" --help | grep -q urpc || fail "no help"
echo "all pieces ran"
