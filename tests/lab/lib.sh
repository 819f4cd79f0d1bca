# What the tests of all labs share: the helpers of the whole-machine tests, and a lab of this test's own, of the kind
# `lab_kind` (rdma or dpdk). tests/lab/KIND/lib.sh sources it with the build folder as its argument.
#
#   lab_up --hosts 2                   # rackfish lab KIND -d
#   expect "a guest's program" 0 in_guest 1 true
#   finish
#
# The lab follows this process (--while), and all of it ends with it.
# shellcheck shell=bash

# shellcheck source=tests/cluster/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../cluster/lib.sh" "$1"
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

lab() {
    local command=$1
    shift
    rackfish lab "$command" --name "$lab_name" "$@"
}

# in_guest N COMMAND...: at most a minute, with patience, or guest_timeout; without stdin. One that does not end in time is explained
# on stderr.
in_guest() { fed_guest "$@" </dev/null; }

# fed_guest N COMMAND...: the same with our stdin.
fed_guest() {
    local guest=$1
    shift
    rackfish lab exec --name "$lab_name" --timeout "${guest_timeout:-$((60 * patience))}" "$guest" -- "$@"
}

# guest_expect WHAT STATUS N COMMAND...
guest_expect() {
    local what=$1 status=$2 guest=$3
    shift 3
    expect "$what" "$status" rackfish lab exec --name "$lab_name" --timeout "${guest_timeout:-$((60 * patience))}" "$guest" -- "$@"
}

lab_up() {
    # shellcheck disable=SC2154 # set by the sourcing file
    local output status
    output=$(lab "$lab_kind" -d --while $$ --no-machine "$@" 2>&1 </dev/null)
    status=$?
    [[ $status != 77 ]] || skip "$output"
    ((status == 0)) || {
        fail "lab $lab_kind $*: $output"
        finish
    }
    say "        $(head -1 <<<"$output")"
}

# After a failure, of the machine in guests that are still there: before it, or the lab, is taken down.
show_logs() {
    ((failures > 0)) || return 0
    local guest
    for guest in $(lab status 2>/dev/null | awk '$1 == "guest" { print $2 }'); do
        say "---- guest $guest"
        guest_timeout=20 in_guest "$guest" sh -c "set -- /run/rackfish/lab/*/*.log; $show_logs_program" 2>/dev/null |
            sed 's/^/        > /'
    done
}
