# Reserved shares hold under load, and the monitor of the core still answers.
#   share_test.sh BUILD [SECONDS]     measures over 10 s by default
source "$(dirname "$0")/lib.sh" "$1"
seconds=${2:-10}

machine_up share --nodes 1 --cores 1
scheduler=$(rackfish --json status | json scheduler)
say "        scheduler: $scheduler"
spin='while :; do :; done'
half=$(rackfish run -d --core 0 --reserve 50 -- sh -c "$spin")
third=$(rackfish run -d --core 0 --reserve 30 -- sh -c "$spin")
rest=$(rackfish run -d --core 0 -- sh -c "($spin) & ($spin) & ($spin) & $spin")
expect "more than the whole core cannot be reserved" 125 rackfish run -d --core 0 --reserve 30 -- sh -c "$spin"
sleep 1

# cpu_ns DOMAIN: what it has used so far.
sample() { rackfish top --once --delay 20ms --json; }
cpu_of() { grep "\"domain\":$1," <<<"$2" | json cpu_ns; }
before=$(sample)
start=$(date +%s%N)
rackfish ping --count $((seconds * 9)) --interval 100ms --json >"$work/ping"
after=$(sample)
elapsed=$(($(date +%s%N) - start))
used=()
total=0
for id in "$half" "$third" "$rest"; do
    ns=$(($(cpu_of "$id" "$after") - $(cpu_of "$id" "$before")))
    used+=("$ns")
    total=$((total + ns))
done
p99=$(grep '"core":0,' "$work/ping" | json p99_ns)
say "        over $((elapsed / 1000000)) ms of $((total / 1000000)) ms given to domains:"
say "        reserved 50 %: $((used[0] * 1000 / total)) permille; reserved 30 %: $((used[1] * 1000 / total)) permille; the rest: $((used[2] * 1000 / total)) permille"
say "        the monitor answers in $((p99 / 1000)) us at p99"
check "50 % held within 5 points" test $((used[0] * 1000 / total)) -ge 450 -a $((used[0] * 1000 / total)) -le 560
check "30 % held within 5 points" test $((used[1] * 1000 / total)) -ge 250 -a $((used[1] * 1000 / total)) -le 360
check "the rest is best effort's" test $((used[2] * 1000 / total)) -ge 100
check "the monitor answers" test "$p99" -gt 0
for id in "$half" "$third" "$rest"; do rackfish kill -KILL "$id"; done
machine_down
finish
