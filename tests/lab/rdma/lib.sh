# Helpers of the tests in the lab: those of the whole-machine tests, and a lab of this test's own. A test sources this file
# with the build folder as its argument.
#
#   source "$(dirname "$0")/lib.sh" "$1"
#   lab_up --hosts 2 --device both     # rackfish lab rdma -d
#   expect "a guest's program" 0 in_guest 1 true
#   finish
#
# The lab follows this process (--while), and all of it ends with it.
# shellcheck shell=bash

# shellcheck source=tests/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../cluster/lib.sh" "$1"
lab_name=t$$
export RACKFISH_MACHINE=lab

# Also what a lab leaves whose supervisor was killed.
# shellcheck disable=SC2317 # reached through the trap
lab_cleanup() {
    local status=$?
    rackfish lab down --name "$lab_name" >/dev/null 2>&1
    (exit "$status")
    cleanup
}
trap lab_cleanup EXIT

# Where a kernel has to be built first, that is what takes long: a test of its own (lab_kernel) has done it.
for program in ib_write_lat rping ibv_devinfo; do
    command -v "$program" >/dev/null || skip "no $program; apt-get install perftest rdmacm-utils ibverbs-utils ibverbs-providers"
done
kernel_output=$(rackfish lab kernel 2>&1)
case $? in
0) ;;
77) skip "$kernel_output" ;;
*) fail "the guests' kernel: $kernel_output" && finish ;;
esac

lab() {
    local command=$1
    shift
    rackfish lab "$command" --name "$lab_name" "$@"
}

# in_guest N COMMAND...: at most a minute, without stdin.
in_guest() {
    local guest=$1
    shift
    rackfish lab exec --name "$lab_name" --timeout "${guest_timeout:-60}" "$guest" -- "$@" </dev/null
}

# guest_expect WHAT STATUS N COMMAND...
guest_expect() {
    local what=$1 status=$2 guest=$3
    shift 3
    expect "$what" "$status" rackfish lab exec --name "$lab_name" --timeout "${guest_timeout:-50}" "$guest" -- "$@"
}

lab_up() {
    local output status
    output=$(lab rdma -d --while $$ --no-machine "$@" 2>&1 </dev/null)
    status=$?
    [[ $status != 77 ]] || skip "$output"
    ((status == 0)) || {
        fail "lab rdma $*: $output"
        finish
    }
    say "        $(head -1 <<<"$output")"
}

# perftest_pair PROGRAM OPTION...: its server in guest 1, its client in guest 2. The client starts when the server listens:
# refused by rdma_cm it crashes or hangs. ("inf" among its figures: it could not tell the clock rate on a busy host.)
perftest_pair() {
    local server status
    in_guest 1 "$@" -F >"$work/perftest-server" 2>&1 &
    server=$!
    # shellcheck disable=SC2016 # expanded in the guest
    in_guest 1 sh -c 'for i in $(seq 100); do
        if ss -ltn | grep -q :18515 || rdma resource show cm_id | grep -q LISTEN; then exit 0; fi
        sleep 0.1
    done'
    in_guest 2 "$@" -F 10.77.0.1 >"$work/perftest" 2>&1
    status=$?
    cat "$work/perftest"
    wait "$server" || { status=$? && sed 's/^/server: /' "$work/perftest-server"; }
    return "$status"
}

# The column of perftest's last line of figures.
perftest_figure() { awk -v column="$1" '$1 ~ /^[0-9]+$/ && NF >= 4 { value = $column } END { print value }' "$work/perftest"; }
