# Helpers of the tests in the lab of RDMA guests. A test sources this file with the build folder as its argument.
#
#   source "$(dirname "$0")/lib.sh" "$1"
#   lab_up --hosts 2 --device both     # rackfish lab rdma -d
#   expect "a guest's program" 0 in_guest 1 true
#   finish
# shellcheck shell=bash

lab_kind=rdma
# shellcheck source=tests/lab/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh" "$1"

# Where a kernel has to be built first, that is what takes long: a test of its own (lab_kernel) has done it.
for program in ib_write_lat ibv_devinfo; do
    command -v "$program" >/dev/null || skip "no $program; apt-get install perftest ibverbs-utils ibverbs-providers"
done
kernel_output=$(rackfish lab kernel 2>&1)
case $? in
0) ;;
77) skip "$kernel_output" ;;
*) fail "the guests' kernel: $kernel_output" && finish ;;
esac

# perftest_pair PROGRAM OPTION...: its server in guest 1, its client in guest 2. ("inf" among its figures: it could not tell the clock
# rate on a busy host.) By rdma_cm on soft-iWARP its two ends now and then lose each other before anything is measured ("Bad wc
# status 5"), and the server waits for ever: it is ended with the client, and both are tried again.
perftest_pair() {
    local tries
    [[ " $* " == *" -R "* ]] || { perftest_try "$@"; return; }
    for tries in 1 2 3; do
        guest_timeout=60 perftest_try "$@" && return 0
        say "        $1: try $tries failed"
    done
    return 1
}

# Each try has a port of its own: the listener of a server that was killed may outlive it in the kernel, and a client that takes it for
# the next one's is refused. The client starts when the server listens: refused by rdma_cm it crashes or hangs.
perftest_port=18515
perftest_try() {
    local server status
    perftest_port=$((perftest_port + 1))
    in_guest 1 "$@" -F -p "$perftest_port" >"$work/perftest-server" 2>&1 &
    server=$!
    # shellcheck disable=SC2016 # expanded in the guest
    in_guest 1 sh -c 'for i in $(seq 600); do
        if ss -ltn | grep -q ":$0 " || rdma resource show cm_id | grep -q "LISTEN.*:$0 "; then exit 0; fi
        sleep 0.1
    done' "$perftest_port"
    in_guest 2 "$@" -F -p "$perftest_port" 10.77.0.1 >"$work/perftest" 2>&1
    status=$?
    cat "$work/perftest"
    ((status == 0)) || in_guest 1 pkill -KILL -f -- "^$1 .*-p $perftest_port"
    wait "$server" || { status=$? && sed 's/^/server: /' "$work/perftest-server"; }
    return "$status"
}

# guest_report N: what a guest is at, for a program there that did not end: does it answer, what runs there and where in its kernel.
guest_report() {
    # shellcheck disable=SC2016 # expanded in the guest
    guest_timeout=20 in_guest "$1" sh -c 'cat /proc/uptime /proc/loadavg
        ps -eLo pid,tid,stat,wchan:30,time,args | grep -v "\]$"
        for task in /proc/[0-9]*/task/*; do
            read -r _ _ state _ <"$task/stat" && [ "$state" = D ] && { echo "$task"; cat "$task/stack" "$task/syscall"; }
        done
        dmesg | tail -n 20' 2>&1 | sed "s/^/        guest $1 | /"
    ((PIPESTATUS[0] == 0)) || say "        guest $1 itself does not answer"
    lab status | sed 's/^/        | /'
}

# The CPUs that this process may use, one a line.
cpus_allowed() {
    awk '/^Cpus_allowed_list/ { n = split($2, part, ","); for (i = 1; i <= n; i++) {
        split(part[i], end, "-"); for (cpu = end[1]; cpu <= (end[2] == "" ? end[1] : end[2]); cpu++) print cpu } }' /proc/self/status
}

# guests_pin CPU...: guest 1 runs on the first of these CPUs, guest 2 on the second, and so on. Else the host moves them about,
# and two that poll are now and then on one CPU for as long as it takes the host to notice. A guest's kernel and each of its programs are
# processes of this host. Where this user may, the kernels are given priority over the programs, as interrupts have it on real hosts: else one to
# which something has come waits for milliseconds until the host takes the CPU from its own program, which polls for just that.
guests_pin() {
    local guest=0 cpu kernel pid supervisor
    supervisor=$(pgrep -o -f "rf-lab rdma .*--name $lab_name ") || return 1
    for cpu in "$@"; do
        guest=$((guest + 1))
        # The supervisor's child keeps the guest's namespaces, its child is the guest's kernel, and each program there a child of that.
        kernel=$(pgrep -P "$(pgrep -d, -P "$supervisor")" -f "umid=lab$guest ") || return 1
        for pid in $kernel $(pgrep -P "$kernel"); do
            taskset -a -p -c "$cpu" "$pid" >/dev/null || [[ $pid != "$kernel" ]] || return 1 # a program may have ended
        done
        # Not for the programs that it starts (reset on fork).
        [[ ! ${GUESTS_FAIR:-} ]] && chrt -f -R -p 1 "$kernel" 2>/dev/null || guests_prior=0
    done
}
guests_pinned=0 guests_prior=0 # what guests_spread did

# guests_spread CPU...: pins them where this process has two CPUs, and says on standard error what came of it. GUESTS_FAIR=1 in the
# environment: without priority.
guests_spread() {
    if (($(cpus_allowed | wc -l) > 1)); then
        guests_pinned=1 guests_prior=1
        guests_pin "$@" || { fail "the guests cannot be pinned" && return 1; }
    fi
    say "        guests pinned: $guests_pinned; their kernels before their programs: $guests_prior" >&2
}

# The column of perftest's last line of figures.
perftest_figure() { awk -v column="$1" '$1 ~ /^[0-9]+$/ && NF >= 4 { value = $column } END { print value }' "$work/perftest"; }
