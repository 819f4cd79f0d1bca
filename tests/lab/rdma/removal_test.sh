#!/usr/bin/env bash
# The device is removed while links use it, and comes back: they go on over it, with nothing lost or doubled. The cases of the
# conformance suite that break connections, with that as what breaks them; in a guest.
#
#   removal_test.sh BUILD-FOLDER rxe|siw
#
# `rdma link delete` waits in the kernel until nobody has the device open (these drivers cannot take it from its users), so
# a device that is not let go hangs the case.
set -u
device=${2:?rxe or siw}
source "$(dirname "$0")/lib.sh" "$1"
[[ -x $build/tests/test_conformance_rdma ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"
lab_up --hosts 2 --device "$device"
log=$work/conformance
cases=(exactly_once_over_breaks sending_while_broken broken_until_the_deadline close_while_broken
    bulk_over_breaks streams_over_breaks reads_over_breaks)
remove="rdma link delete ${device}0 && echo removed && rdma link add ${device}0 type $device netdev lan0 &&
    until grep -q '[1-9a-f]' /sys/class/infiniband/${device}0/ports/1/gids/0; do sleep 0.01; done"
RACKFISH_RDMA_ADDRESS=10.77.0.1 RACKFISH_RDMA_REMOVE=$remove guest_timeout=420 \
    in_guest 1 "$build/tests/test_conformance_rdma" "${cases[@]}" >"$log" 2>&1
status=$?
equal "cases passed on $device" "$(grep -c '^\[       OK' "$log")" "${#cases[@]}"
((status == 0)) || {
    grep -A 20 'waits in vain' "$log" | head -n 60
    tail -n 40 "$log"
}
((status != 124)) || guest_report 1
equal "and none failed" "$status" 0
say "        $(grep -c 'is let go; links over it go on' "$log") times one of the two ends heard of a removal"
check "the device was removed" grep -q 'is let go; links over it go on' "$log"
check "the lab is down" lab down
finish
