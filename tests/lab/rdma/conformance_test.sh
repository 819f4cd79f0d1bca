#!/usr/bin/env bash
# The conformance suite of transports, and its tests of the medium itself, on a real verbs device: in a guest with Soft-RoCE,
# and in one with soft-iWARP.
#
#   conformance_test.sh BUILD-FOLDER rxe|siw [OPTIONS]
#
# OPTIONS are the medium's (transport/rdma/rdma.h). With mode=write a slot may come torn, once in ten millions
# (transport/rdma/placement.c), so without OPTIONS only some cases of few slots run in that mode: breaks, sleep and fences, which it has ways of its own for.
set -u
device=${2:?rxe or siw}
options=${3:-}
source "$(dirname "$0")/lib.sh" "$1"
[[ -x $build/tests/test_conformance_rdma ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"
lab_up --hosts 2 --device "$device"
log=$work/conformance
RACKFISH_RDMA_ADDRESS=10.77.0.1 RACKFISH_RDMA=$options guest_timeout=420 in_guest 1 "$build/tests/test_conformance_rdma" >"$log" 2>&1
status=$?
say "        $(grep -c '^\[       OK' "$log") cases passed"
((status == 0)) || {
    grep -A 20 'waits in vain' "$log" | head -n 60
    tail -n 80 "$log"
}
((status != 124)) || guest_report 1 # the suite ends by itself, whatever hangs in it
equal "the conformance suite passes on $device" "$status" 0
if [[ ! $options ]]; then
    few=(sending_while_broken close_while_broken full_then_room ready_tells_the_truth no_wake_up_is_lost_in_poll a_fenced_life_is_silent a_stopped_life_is_fenced)
    RACKFISH_RDMA_ADDRESS=10.77.0.1 RACKFISH_RDMA=mode=write guest_timeout=120 in_guest 1 "$build/tests/test_conformance_rdma" "${few[@]}" >"$log" 2>&1
    status=$?
    ((status == 0)) || tail -n 80 "$log"
    equal "cases of slots by WRITE pass on $device" "$status" 0
    equal "... all of them" "$(grep -c '^\[       OK' "$log")" "${#few[@]}"
    matches "... and by WRITE it was, which is said to be for measuring" "$(grep -m 1 'slots come by' "$log")" "slots come by WRITE: as configured, though .*: for measuring only"
fi
check "the lab is down" lab down
finish
