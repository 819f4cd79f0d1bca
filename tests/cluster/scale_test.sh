# Two hosts of eight cores on whatever CPUs there are: boots, idles cheaply, goes down without a trace.
source "$(dirname "$0")/lib.sh" "$1"

start=$(now_ms)
machine_up scale --nodes 2 --cores 8
say "        boot took $(($(now_ms) - start)) ms"
check "all sixteen cores are up" test "$(rackfish --json status | json cores_up)" = 16

# Nanoseconds on a CPU by the scheduler's own count: what is used between ticks is in it.
cpu_ns() {
    local pid start ns total=0
    while read -r pid start; do
        read -r ns _ <"/proc/$pid/schedstat" 2>/dev/null && total=$((total + ns))
    done < <(machine_processes | sort -u)
    echo "$total"
}

sleep 1
before=$(cpu_ns)
start=$(now_ms)
sleep 5
after=$(cpu_ns)
elapsed=$(($(now_ms) - start))
percent_hundredths=$(((after - before) / (elapsed * 100)))
say "        idle: $((percent_hundredths / 100)).$(printf %02d $((percent_hundredths % 100))) % of one CPU over $elapsed ms"
check "an idle machine uses less than a tenth of a CPU" test "$percent_hundredths" -lt 1000

equal "a program on every core" "$(rackfish run --all -- sh -c 'echo here' | grep -c here)" 16
machine_down
finish
