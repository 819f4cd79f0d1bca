# Helpers of the whole-machine tests. A test sources this file with the build folder as its argument:
#
#   source "$(dirname "$0")/lib.sh" "$1"
#   machine_up one --nodes 2 --cores 2        # sets RACKFISH_MACHINE to a name of this test's own
#   expect "an exit status passes through" 7 rackfish run -- sh -c 'exit 7'
#   finish
#
# Whatever happens to the test, also a KILL, its machines are taken down: by a trap, and by a guard process that watches
# the test. Every wait has a bound, for what never comes; no assertion depends on a time being short.

set -uo pipefail
build=${1:?build folder}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export PATH=$build/bin:$PATH
unset RACKFISH_MACHINE
test_name=$(basename "$0" .sh)
work=$(mktemp -d "/tmp/rackfish-test.XXXXXX")
chmod 755 "$work"
machines=()
own=$(printf '%07d' $$) # digits of this test's own: `sleep 100.$own` is nobody else's
patience=5              # bounds are given as for an idle host: a busy one may take so many times as long, until one is missed
failures=0
checks=0

if ((EUID == 0)); then
    base=/run/rackfish
else
    export XDG_RUNTIME_DIR=$work/xdg
    mkdir -m 700 "$XDG_RUNTIME_DIR"
    base=$XDG_RUNTIME_DIR/rackfish
fi

skip() {
    echo "skipped: $*"
    rm -rf "$work"
    exit 77
}

((EUID != 0)) || id rackfish >/dev/null 2>&1 ||
    skip "no user rackfish; make one: useradd --system --no-create-home --shell /usr/sbin/nologin rackfish"
for program in rackfish rackfishd rf-cpudriver rf-monitor rf-init; do
    [[ -x $build/bin/$program ]] || skip "$program is not built"
done

# Names start with the test's pid: the guard finds them by it, also ones that were booted after it started.
take_down() {
    local folder
    for folder in "$base/t$1"-*; do
        [[ -d $folder ]] && timeout 60 rackfish -m "$(basename "$folder")" down --grace 0 >/dev/null 2>&1
    done
    return 0
}

cleanup() {
    local status=$?
    trap - EXIT
    local job
    for job in $(jobs -p); do kill -KILL "$job" 2>/dev/null; done
    take_down $$
    rm -rf "$work"
    exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

guard() {
    while kill -0 "$1" 2>/dev/null; do sleep 0.5; done
    take_down "$1"
    rm -rf "$work"
}
(
    trap - EXIT INT TERM HUP
    export -f guard take_down
    export work base
    setsid bash -c "guard $$" </dev/null >/dev/null 2>&1 &
)

say() { printf '%s\n' "$*"; }

pass() {
    checks=$((checks + 1))
    say "ok      $*"
}

fail() {
    checks=$((checks + 1))
    failures=$((failures + 1))
    say "NOT OK  $*"
}

# check WHAT COMMAND...: the command succeeds.
check() {
    local what=$1 output
    shift
    if output=$("$@" 2>&1); then
        pass "$what"
    else
        fail "$what (status $?)"
        sed 's/^/        | /' <<<"$output" | tail -20
    fi
}

# expect WHAT STATUS COMMAND...: it ends with this status, in time.
expect() {
    local what=$1 wanted=$2 output status
    shift 2
    output=$(timeout $((60 * patience)) "$@" 2>&1 </dev/null)
    status=$?
    if ((status == wanted)); then
        pass "$what"
    else
        fail "$what: status $status instead of $wanted"
        sed 's/^/        | /' <<<"$output" | tail -20
        ((status != 124)) || patience=1
    fi
}

# equal WHAT ACTUAL EXPECTED
equal() {
    if [[ $2 == "$3" ]]; then
        pass "$1"
    else
        fail "$1: \"${2:0:300}\" instead of \"${3:0:300}\""
    fi
}

# matches WHAT ACTUAL REGEX
matches() {
    if [[ $2 =~ $3 ]]; then
        pass "$1"
    else
        fail "$1: \"${2:0:400}\" does not match \"$3\""
    fi
}

# within WHAT SECONDS COMMAND...: the command becomes true before that, with patience; what follows one that did not has none, so
# that the test ends before ctest ends it.
within() {
    local what=$1 seconds=$(($2 * patience)) start
    shift 2
    start=$(date +%s%N)
    until "$@" >/dev/null 2>&1; do
        if (($(date +%s%N) - start > seconds * 1000000000)); then
            fail "$what: not within $seconds s"
            patience=1
            return 1
        fi
        sleep 0.02
    done
    pass "$what ($((($(date +%s%N) - start) / 1000000)) ms)"
}

now_ms() { echo $(($(date +%s%N) / 1000000)); }

# json FIELD: of one JSON object on stdin; enough for numbers, words and flat objects.
json() { sed -n "s/.*\"$1\":\"\{0,1\}\([^,\"}]*\).*/\1/p" | head -1; }

# isolates: the machine that is up gives its domains namespaces; where the host refuses them, status says "none".
isolates() { [[ $(rackfish --json status | json isolation) == [^n]* ]]; }

# machine_up SUFFIX OPTION...: boots a machine named after this test and makes it the default one.
machine_up() {
    export RACKFISH_MACHINE="t$$-$1"
    shift
    dir=$base/$RACKFISH_MACHINE
    local output
    if output=$(timeout 120 rackfish up "$@" 2>&1 </dev/null); then
        say "        $(head -1 <<<"$output")"
        machines+=("$RACKFISH_MACHINE")
        remember_processes
        return 0
    fi
    fail "up $*: $output"
    finish
}

# configure SUFFIX SETTINGS HOST...: a machine of hosts that are brought up one by one, by $config: of one core each, here at $port and behind
# it unless HOST, an entry of `nodes`, names an address. SETTINGS are lines of the configuration.
configure() {
    export RACKFISH_MACHINE="t$$-$1"
    dir=$base/$RACKFISH_MACHINE config=$work/$1.yaml port=$((20000 + $$ % 10000))
    machines+=("$RACKFISH_MACHINE")
    head -c 32 /dev/urandom >"$work/$1.key"
    chmod 600 "$work/$1.key"
    printf 'machine: %s\nkey_file: %s.key\nallow_root: on\n%s\ndefaults: {cores: "0-0"}\nnodes:\n' "$RACKFISH_MACHINE" "$1" "$2" >"$config"
    local host next=$port
    for host in "${@:3}"; do
        [[ $host == *address:* ]] || host+=", address: 127.0.0.1, port: $((next++))"
        echo "  - {hosts: $host}" >>"$config"
    done
}

# All processes of the machine as "pid start-time": those in its state files, and what descends from its CPU drivers.
machine_processes() {
    awk '{ print $3, $4 }' "$dir"/*/state 2>/dev/null
    local roots
    roots=$(awk '$1 == "cpudriver" { print $3 }' "$dir"/*/state 2>/dev/null)
    ps -eo pid=,ppid= | awk -v roots="$roots" '
        BEGIN { n = split(roots, r); for (i = 1; i <= n; i++) ours[r[i]] = 1 }
        { parent[$1] = $2 }
        END { for (p in parent) { q = p; for (k = 0; k < 64 && q > 1; k++) { if (q in ours) { print p; break } q = parent[q] } } }' |
        while read -r pid; do echo "$pid $(start_time "$pid")"; done
}

# Nothing for a zombie: it is whoever should reap it that is slow.
start_time() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" && $1 != "X" { print $20 }'; }

# gone PID...: dead, reaped or not.
gone() { local pid; for pid in "$@"; do [[ -z $(start_time "$pid") ]] || return 1; done; }

remember_processes() { machine_processes >>"$work/processes-$RACKFISH_MACHINE"; }

# alive PID START
alive() { [[ -n $2 && $(start_time "$1") == "$2" ]]; }

# pid_of ROLE CORE: from the state files.
pid_of() { awk -v role="$1" -v core="$2" '$1 == role && $2 == core { print $3 }' "$dir"/*/state; }

# node_pid NODE: of its rackfishd.
node_pid() { awk '$1 == "node" { print $3 }' "$dir/$1/state"; }

# What `down` has to remove: call before the machine is up, and machine_down compares.
shm_before=$(ls /dev/shm 2>/dev/null)

nothing_left() {
    local what=$1 pid start left=""
    while read -r pid start; do
        alive "$pid" "$start" && left+=" process $pid ($(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null))"
    done < <(sort -u "$work/processes-$RACKFISH_MACHINE")
    [[ -e $dir ]] && left+=" $(find "$dir" | head -5 | tr '\n' ' ')"
    grep -q "$dir/" /proc/net/unix && left+=" socket $(grep -o "$dir/.*" /proc/net/unix | head -3)"
    local group
    group=$(find /sys/fs/cgroup -type d -name "*$RACKFISH_MACHINE*" 2>/dev/null | head -3)
    [[ -n $group ]] && left+=" cgroup $group"
    local shm
    shm=$(comm -13 <(sort <<<"$shm_before") <(ls /dev/shm 2>/dev/null | sort) | grep -i rackfish)
    [[ -n $shm ]] && left+=" shared memory $shm"
    local port
    for port in $ports; do
        awk -v port="$(printf ':%04X$' "$port")" '$2 ~ port && $4 == "0A" { found = 1 } END { exit !found }' /proc/net/tcp &&
            left+=" port $port"
    done
    if [[ -z $left ]]; then
        pass "$what"
    else
        fail "$what:$left"
    fi
}

# A program of sh: of the logs that are its arguments, what no test may leave there, and the ends.
# shellcheck disable=SC2016 # expanded by sh
show_logs_program='grep -hE "assertion failed|Sanitizer|runtime error" "$@"; tail -n 12 "$@"'

# After a failure, of a machine that is still there. (tests/lab/lib.sh: of one in guests.)
show_logs() {
    ((failures > 0)) && [[ -d ${dir:-} ]] || return 0
    sh -c "$show_logs_program" sh "$dir"/*/*.log 2>/dev/null | sed 's/^/        > /'
}

machine_down() {
    local what=${1:-down leaves nothing}
    shift
    ports=$(grep -o 'port: [0-9]*' "$dir/config.yaml" 2>/dev/null | awk '{ print $2 }')
    remember_processes
    show_logs
    local output
    output=$(timeout 120 rackfish down "$@" 2>&1) || fail "$what: down failed: $output"
    say "        $(tr '\n' ';' <<<"$output")"
    nothing_left "$what"
    : >"$work/processes-$RACKFISH_MACHINE"
}

finish() {
    show_logs
    say "$test_name: $checks checks, $failures failed"
    exit $((failures > 0))
}
