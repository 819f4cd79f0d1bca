# Two hosts of eight cores on whatever CPUs there are: boots, idles cheaply, goes down without a trace.
source "$(dirname "$0")/lib.sh" "$1"

start=$(now_ms)
machine_up scale --nodes 2 --cores 8
say "        boot took $(($(now_ms) - start)) ms"
check "all sixteen cores are up" test "$(rackfish --json status | json cores_up)" = 16

cpu_ticks() {
    local pid start total=0 ticks
    while read -r pid start; do
        ticks=$(sed 's/.*) //' "/proc/$pid/stat" 2>/dev/null | awk '{ print $12 + $13 }')
        total=$((total + ${ticks:-0}))
    done < <(machine_processes | sort -u)
    echo "$total"
}

sleep 1
before=$(cpu_ticks)
start=$(now_ms)
sleep 5
after=$(cpu_ticks)
elapsed=$(($(now_ms) - start))
percent_hundredths=$(((after - before) * 10000 * 1000 / $(getconf CLK_TCK) / elapsed))
say "        idle: $((percent_hundredths / 100)).$(printf %02d $((percent_hundredths % 100))) % of one CPU over $elapsed ms"
check "an idle machine uses less than a tenth of a CPU" test "$percent_hundredths" -lt 1000

equal "a program on every core" "$(rackfish run --all -- sh -c 'echo here' | grep -c here)" 16
machine_down
finish
