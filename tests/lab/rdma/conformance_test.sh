#!/usr/bin/env bash
# The conformance suite of transports, and its tests of the medium itself, on a real verbs device: in a guest with Soft-RoCE,
# and in one with soft-iWARP.
#
#   conformance_test.sh BUILD-FOLDER rxe|siw
set -u
device=${2:?rxe or siw}
source "$(dirname "$0")/lib.sh" "$1"
[[ -x $build/tests/test_conformance_rdma ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"
lab_up --hosts 2 --device "$device"
log=$work/conformance
RACKFISH_RDMA_ADDRESS=10.77.0.1 guest_timeout=500 in_guest 1 "$build/tests/test_conformance_rdma" >"$log" 2>&1
status=$?
say "        $(grep -c '^\[       OK' "$log") cases passed"
((status == 0)) || tail -n 40 "$log"
equal "the conformance suite passes on $device" "$status" 0
check "the lab is down" lab down
finish
