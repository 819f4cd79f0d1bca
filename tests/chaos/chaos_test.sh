# Five hosts of two cores, each in a network namespace of its own, under faults drawn from a seed, while eight clients change and
# read keys through them. README.md says what is drawn and what is checked.
#
#   chaos_test.sh BUILD [--rounds N] [--seed N] [--transport tcp|dpdk] [--keep DIR] [--between COMMAND] [--schedule]
#
#   --rounds N    rounds of faults (default 3)
#   --seed N      of the schedule and of the clients (default 1)
#   --transport T what links between hosts go over (default tcp); with dpdk link drivers die and ports go down, too
#   --keep DIR    history, schedule and logs stay there; without it they stay only when a check failed
#   --between C   a shell command, run while the machine is whole and the clients rest, after each round that ends so: to look at the
#                 machine, or to let others have this host for a while
#   --schedule    prints the schedule and ends
rounds=3 seed=1 keep="" between="" only_schedule=0 transport=tcp
options=("${@:2}")
while ((${#options[@]} > 0)); do
    case ${options[0]} in
    --schedule) only_schedule=1 options=("${options[@]:1}") && continue ;;
    --rounds) rounds=${options[1]:?} ;;
    --seed) seed=${options[1]:?} ;;
    --transport) transport=${options[1]:?} && [[ $transport == tcp || $transport == dpdk ]] || { echo "--transport takes tcp or dpdk" && exit 2; } ;;
    --keep) keep=${options[1]:?} ;;
    --between) between=${options[1]:?} ;;
    *) echo "unknown option ${options[0]}" && exit 2 ;;
    esac
    options=("${options[@]:2}")
done

hosts=5 cores_each=2 clients=8 keys=4
cores=$((hosts * cores_each))
recovery_s=120 # at most; includes the pauses before a core is started again
network_faults=7
[[ $transport == tcp ]] || network_faults=11

# ---- the schedule: a function of seed and round alone ----

# draw BOUND: into $drawn. A multiplicative congruential generator (Knuth), its high bits.
draw() {
    state=$((state * 6364136223846793005 + 1442695040888963407))
    drawn=$((((state >> 33) & 0x7fffffff) % $1))
}
draw_ms() { draw $(($2 - $1)) && ms=$(($1 + drawn)); }

# One fault as a line: ROUND START-MS KIND TARGET... `budget`: cores that may still die before the machine has recovered.
draw_fault() {
    local round=$1 kind host core start
    draw_ms 0 1200 && start=$ms
    draw $hosts && host=$drawn
    draw $cores && core=$drawn
    draw 16 && kind=$drawn
    ((drawn < 3)) && { draw 3 && ((drawn == 0)) && core=leader; }
    if ((budget >= 1 && kind <= 4)); then
        budget=$((budget - 1))
        draw_ms 200 4000
        case $kind in
        0 | 1) echo "$round $start kill-monitor $core" ;;
        2) echo "$round $start kill-cpudriver $core" ;;
        3) echo "$round $start stop-monitor $core $ms" ;;
        4) echo "$round $start core-off $core $ms" ;;
        esac
    elif ((budget >= 2 && kind <= 7)); then
        budget=$((budget - 2))
        draw_ms 200 4000
        case $kind in
        5) echo "$round $start kill-host $host $ms" ;;
        6) echo "$round $start stop-host $host $ms" ;;
        7) echo "$round $start remove-host $host $ms" ;;
        esac
    else
        draw_ms 200 5000
        draw "$network_faults"
        case $drawn in
        0) echo "$round $start kill-rackfishd $host $ms" ;;
        1) echo "$round $start cut $host $ms" ;;
        2) draw 6 && echo "$round $start flap $host $((drawn + 2))" ;;
        3) echo "$round $start deaf $host $ms" ;;
        4) echo "$round $start mute $host $ms" ;;
        5) draw $((hosts - 1)) && echo "$round $start pair $host $(((host + 1 + drawn) % hosts)) $ms" ;;
        6) draw $((hosts - 1)) && echo "$round $start split $host $(((host + 1 + drawn) % hosts)) $ms" ;;
        7 | 8) echo "$round $start kill-link-driver $host" ;;
        9) echo "$round $start stop-link-driver $host $ms" ;;
        10) echo "$round $start port-down $host $ms" ;;
        esac
    fi
}

# "ROUND recover" ends a round after which the machine has to be whole.
draw_schedule() {
    local round n budget=2 state
    for ((round = 1; round <= rounds; round++)); do
        state=$((seed * 1000003 + round))
        draw 1000 # the first ones are near each other
        draw 3 && n=$((drawn + 1))
        while ((n-- > 0)); do draw_fault $round; done
        draw 3
        if ((drawn > 0 || round == rounds)); then
            echo "$round recover" && budget=2
        fi
    done
}

if ((only_schedule)); then
    draw_schedule
    exit
fi

source "$(dirname "$0")/../cluster/lib.sh" "$1"
source "$(dirname "$0")/../cluster/net.sh"
[[ -x $build/tests/chaos_client ]] || skip "chaos_client is not built"
[[ $transport == tcp || -e $build/modules/rackfish-dpdk.so ]] || skip "built without DPDK; apt-get install libdpdk-dev"
# shellcheck disable=SC2034 # read by net.sh
[[ $transport == tcp ]] || net_filter=1 # a link driver asks nobody for neighbours
net_begin $hosts 10.213.78

# ---- who hears whom ----

both() { # both net_lose|net_hear A B
    "$1" "$2" "$3"
    "$1" "$3" "$2"
}
each_other() { # each_other COMMAND HOST: COMMAND OTHER HOST for all others
    local other
    for ((other = 0; other < hosts; other++)); do ((other == $2)) || $1 $other "$2"; done
}
lose_to() { net_lose "$2" "$1"; }
hear_to() { net_hear "$2" "$1"; }
split() { # split net_lose|net_hear A B: these two and the others
    local other side
    for side in "$2" "$3"; do
        for ((other = 0; other < hosts; other++)); do
            ((other == $2 || other == $3)) || both "$1" "$side" $other
        done
    done
}
port() { ip -n "$net-$1" link set eth0 "$2"; }
heal_all() {
    local a b
    for ((a = 0; a < hosts; a++)); do
        net_heal $a
        port $a up
        for ((b = 0; b < hosts; b++)); do net_hear $a $b; done
    done
}

# ---- the machine ----

export RACKFISH_MACHINE="t$$-chaos"
dir=$base/$RACKFISH_MACHINE
machines+=("$RACKFISH_MACHINE")
head -c 32 /dev/urandom >"$work/net.key"
chmod 600 "$work/net.key"
{
    cat <<YAML
machine: $RACKFISH_MACHINE
key_file: net.key
allow_root: on
YAML
    if [[ $transport == dpdk ]]; then # ten cores and five link drivers on a few CPUs
        echo "host_deadline_ms: 2500"
        echo "defaults: {cores: \"$cores_each\", dpdk: {interface: eth0, driver: af_packet}}"
        echo "transports: [{between: ['h[0-$((hosts - 1))]', 'h[0-$((hosts - 1))]'], use: dpdk}]"
    else
        echo "defaults: {cores: \"$cores_each\"}"
    fi
    echo "nodes:"
    for ((i = 0; i < hosts; i++)); do echo "  - {hosts: h$i, address: $(net_address $i)}"; done
} >"$work/net.yaml"

at() { timeout 10 rackfish --via "h$1" --json status 2>/dev/null; }
up_host() { timeout 60 ip netns exec "$net-$1" rackfish up --config "$work/net.yaml" --node "h$1" >>"$work/up$1" 2>&1; }
add_host() { timeout 60 ip netns exec "$net-$1" rackfish node add "h$1" --config "$work/net.yaml" && rm -f "$work/removed.$1"; }
whole() {
    local i status
    for ((i = 0; i < hosts; i++)); do
        status=$(at $i)
        [[ $(json cores_up <<<"$status") == "$cores" && $(json has_quorum <<<"$status") == true ]] || return 1
    done
}

# live HOST ROLE|all [CORE]: the pids of a state file that are still who they were.
live() {
    awk -v role="$2" -v core="${3:-}" '(role == "all" || $1 == role) && (core == "" || $2 == core) { print $3, $4 }' \
        "$dir/h$1/state" 2>/dev/null | while read -r pid start; do alive "$pid" "$start" && echo "$pid"; done
}
signal() { # signal SIGNAL HOST ROLE [CORE]
    local pids
    mapfile -t pids < <(live "${@:2}")
    ((${#pids[@]} == 0)) || kill "-$1" "${pids[@]}" 2>/dev/null
}
pause() { sleep "$(printf '%d.%03d' $(($1 / 1000)) $(($1 % 1000)))"; }

leader_core() {
    local i core
    for ((i = 0; i < hosts; i++)); do
        core=$(at $i | json leader)
        [[ $core =~ ^[0-9]+$ ]] && echo "$core" && return
    done
    echo 0
}

# fault KIND TARGET...: does it, and undoes what does not end by itself.
fault() {
    local kind=$1 a=$2 b=${3:-0} d=${4:-0} host n
    [[ $a != leader ]] || a=$(leader_core)
    host=$((a / cores_each)) # of a core
    case $kind in
    kill-monitor) signal KILL $host monitor "$a" ;;
    kill-cpudriver) signal KILL $host cpudriver "$a" ;;
    stop-monitor) signal STOP $host monitor "$a" && pause "$b" && signal CONT $host monitor "$a" ;;
    core-off)
        echo "$a" >>"$work/off"
        timeout 30 rackfish --via "h$(((host + 1) % hosts))" core off --kill "$a"
        pause "$b"
        timeout 30 rackfish --via "h$(((host + 1) % hosts))" core on "$a"
        ;;
    kill-host) signal KILL "$a" all && pause "$b" && up_host "$a" ;;
    stop-host) signal STOP "$a" all && pause "$b" && signal CONT "$a" all ;;
    remove-host)
        : >"$work/removed.$a"
        timeout 30 rackfish --via "h$(((a + 1) % hosts))" node remove "h$a" --kill
        pause "$b"
        add_host "$a"
        ;;
    kill-rackfishd) signal KILL "$a" node && pause "$b" && up_host "$a" ;;
    cut) net_cut "$a" && pause "$b" && net_heal "$a" ;;
    flap)
        for ((n = 0; n < b; n++)); do
            net_cut "$a" && pause $((50 + 70 * n)) && net_heal "$a" && pause $((400 - 40 * n))
        done
        ;;
    deaf) each_other net_lose "$a" && pause "$b" && each_other net_hear "$a" ;;
    mute) each_other lose_to "$a" && pause "$b" && each_other hear_to "$a" ;;
    pair) both net_lose "$a" "$b" && pause "$d" && both net_hear "$a" "$b" ;;
    split) split net_lose "$a" "$b" && pause "$d" && split net_hear "$a" "$b" ;;
    kill-link-driver) signal KILL "$a" linkdriver ;;
    stop-link-driver) signal STOP "$a" linkdriver && pause "$b" && signal CONT "$a" linkdriver ;;
    port-down) port "$a" down && pause "$b" && port "$a" up ;;
    esac
    return 0
}

# What should come back by itself is waited for; what was told to go, or has nobody to start it, is told to come.
help_back() {
    local i
    for ((i = 0; i < hosts; i++)); do
        if [[ -e $work/removed.$i ]]; then
            add_host $i
        elif [[ -z $(live $i node) ]]; then
            up_host $i
        fi
    done
    for i in $(sort -u "$work/off" 2>/dev/null); do timeout 30 rackfish core on "$i"; done
}
recover() {
    local started
    started=$(now_ms)
    heal_all
    until whole; do
        if (($(now_ms) - started > recovery_s * 1000)); then
            fail "round $1: the machine is not whole after $recovery_s s"
            for ((i = 0; i < hosts; i++)); do say "        h$i: $(at $i)"; done
            timeout 10 rackfish cores
            return 1
        fi
        (($(now_ms) - started < 5000)) || help_back >>"$work/faults.log" 2>&1
        sleep 0.1
    done
    echo $(($(now_ms) - started)) >>"$work/recoveries"
}

# The clients rest meanwhile: what they have asked for takes longer.
rest() {
    kill -STOP "${client_pids[@]}"
    bash -c "$between" </dev/null
    kill -CONT "${client_pids[@]}"
}

# ---- leaks: what the machine holds, as lines "WHAT NUMBER" ----

inventory() {
    local i pid role fds
    for ((i = 0; i < hosts; i++)); do
        for pid in $(ip netns pids "$net-$i"); do
            role=$(basename "$(readlink "/proc/$pid/exe")")
            [[ $role == rackfish ]] && continue # a command of this test
            fds=$(find "/proc/$pid/fd" -type l 2>/dev/null | wc -l)
            echo "processes:$role 1"
            echo "descriptors:$role $fds"
            echo "memory-objects:$role $(find "/proc/$pid/fd" -lname '*memfd:*' 2>/dev/null | wc -l)"
            echo "maps:$role $(wc -l <"/proc/$pid/maps")"
            echo "resident-kB:$role $(awk '$1 == "VmRSS:" { print $2 }' "/proc/$pid/status")"
            echo "zombies $(ps -o stat= --ppid "$pid" | grep -c '^Z')"
        done
    done 2>/dev/null | awk '{ n[$1] += $2 } END { for (w in n) print w, n[w] }'
    [[ $transport == tcp ]] || for ((i = 0; i < hosts; i++)); do
        timeout 5 rackfish-dpdk --json --stats "$dir/h$i.dpdk/sock" 2>/dev/null | json clients
    done | awk '{ n += $1 } END { print "link-ends", n + 0 }'
    echo "run-files $(find "$dir" ! -name '*.log*' | wc -l)"
    echo "cgroups $(find /sys/fs/cgroup -type d -path "*$RACKFISH_MACHINE*" 2>/dev/null | wc -l)"
    echo "dev-shm $(find /dev/shm -iname '*rackfish*' | wc -l)"
}
# What may differ between two whole machines: links between hosts are made on demand, memory is given back late.
no_leak() {
    # What a few rounds take of memory is not yet a leak. Links between monitors are made when they are wanted, as by another
    # leader. Over link drivers we know how many there are now: what each takes is granted, and nothing beside it.
    awk -v few="$((rounds < 10))" -v dpdk="$([[ $transport == dpdk ]] && echo 1 || echo 0)" '
        BEGIN { each["descriptors:rf-monitor"] = 2; each["descriptors:rackfish-dpdk"] = 1; each["maps:rf-monitor"] = 8; each["maps:rackfish-dpdk"] = 5 }
        NR == FNR { before[$1] = $2; next }
        { after[$1] = $2 }
        END {
            for (what in after) {
                if (what == "link-ends" || (few && what ~ /^(resident|maps)/)) continue
                may = before[what]
                if (what ~ /^(descriptors|memory-objects|maps|run-files)/) may = may * 1.25 + 16
                if (what ~ /^resident/) may = may * 1.5 + 65536
                if (dpdk && what in each) may = before[what] + each[what] * (after["link-ends"] - before["link-ends"]) + 16
                if (after[what] > may) print what ": " before[what] " before, " after[what] " after"
            }
        }' "$work/before" "$1"
}

# ---- it begins ----

draw_schedule >"$work/schedule"
say "        seed $seed, $rounds rounds, $(grep -vc recover "$work/schedule") faults"
for ((i = 0; i < hosts; i++)); do up_host $i & done
within "five hosts form a machine" 120 whole
((failures == 0)) || { cat "$work"/up? && finish; }
over() { rackfish --via h0 links | awk '$3 == "tcp" || $3 == "rdma" || $3 == "dpdk" { print $3 }' | sort -u; }
linked() { [[ $(over) == "$transport" ]]; }
within "its hosts have links over $transport alone" 30 linked
matches "it survives the loss of a host" "$(at 0 | json survives_nodes)" "^[1-4]"
remember_processes

sockets=()
for ((i = 0; i < hosts; i++)); do sockets+=("$dir/h$i.sock"); done
echo 1 >"$work/round"
client_pids=()
for ((i = 0; i < clients; i++)); do
    "$build/tests/chaos_client" work $i "$seed" $keys "$work/round" "$work/history.$i" "${sockets[@]}" &
    client_pids+=($!)
done
written() { (($(cat "$work"/history.* 2>/dev/null | wc -l) >= $1)); }
within "the clients are at work" 60 written 200
inventory | sort >"$work/before"

round=1
jobs=()
while read -r n start kind words; do
    if [[ $start == recover ]]; then
        wait "${jobs[@]}"
        jobs=()
        recover "$n" || break
        say "        round $n: whole after $(tail -1 "$work/recoveries") ms, $(cat "$work"/history.* | wc -l) operations"
        [[ -z $between ]] || rest
        continue
    fi
    if ((n != round)); then
        ((${#jobs[@]} == 0)) || wait "${jobs[@]}"
        jobs=()
        round=$n
        echo "$n" >"$work/round.new" && cat "$work/round.new" >"$work/round"
        remember_processes
    fi
    say "        round $n: $kind $words"
    # shellcheck disable=SC2086 # words
    (
        trap - EXIT
        pause "$start"
        fault "$kind" $words
    ) >>"$work/faults.log" 2>&1 &
    jobs+=($!)
done <"$work/schedule"
((${#jobs[@]} == 0)) || wait "${jobs[@]}"

# ---- what came of it ----

kill -TERM "${client_pids[@]}" 2>/dev/null
wait "${client_pids[@]}"
equal "the clients end well" $? 0
equal "rounds" "$round" "$(awk 'END { print $1 }' "$work/schedule")"
check "every key can be read" "$build/tests/chaos_client" read $clients $keys 1 "$round" "$work/history.final" "${sockets[@]}"
sort -n -k2,2 "$work"/history.* >"$work/history"
say "        $(wc -l <"$work/history") operations: $(awk '{ n[$7 == "?" ? "unknown" : $7 == "failed" ? "failed" : $4]++ }
    END { for (w in n) printf "%s %d, ", w, n[w] }' "$work/history")"
expect "the history is linearizable, final reads too" 0 rackfish sim --check-history "$work/history"
for ((i = 1; i < hosts; i++)); do
    same() { [[ $(rackfish registry --via "h$i" --json --local list chaos/ | sha256sum) == $(rackfish registry --via h0 --json list chaos/ | sha256sum) ]]; }
    within "host $i has the replica of host 0" 20 same
done
leak_free() { inventory | sort >"$work/after" && [[ -z $(no_leak "$work/after") ]]; }
within "nothing leaked" 30 leak_free || no_leak "$work/after" | sed 's/^/        | /'
equal "no log tells of what must never be" "$(grep -hiE 'assert|backtrace' "$dir"/*/*.log | head -3)" ""
sort -n "$work/recoveries" | awk '{ t[NR] = $1 } END { if (NR) print "        whole again: median " t[int((NR + 1) / 2)] " ms, most " t[NR] " ms" }'

if [[ -n $keep ]] || ((failures > 0)); then
    keep=${keep:-$(mktemp -d /tmp/rackfish-chaos.XXXXXX)}
    mkdir -p "$keep/logs"
    cp "$work"/{schedule,history,faults.log,before,after} "$keep" 2>/dev/null
    (cd "$dir" && cp --parents */*.log* "$keep/logs")
    say "        history, schedule and logs: $keep"
fi
for ((i = 1; i < hosts; i++)); do rackfish --via "h$i" down --this-host >/dev/null 2>&1; done
machine_down
left() { for ((i = 0; i < hosts; i++)); do ip netns pids "$net-$i"; done | wc -l; }
equal "no process is left in a namespace" "$(left)" 0
net_end
network_is_gone() { ! ip netns list | grep -q "^$net-" && ! ip -o link | grep -q " $net"; }
within "nor a namespace or link of them" 30 network_is_gone
finish
