#!/usr/bin/env bash
# Whether a device ever shows a slot's control word before its payload, between two guests (litmus.c). It is a measurement: of
# neither device does a link rely on that order (transport/rdma/placement.c). What is tested is that the test would notice.
#
#   litmus_test.sh BUILD-FOLDER rxe|siw [SLOTS]        # about 150,000 slots a second on two CPUs
set -u
device=${2:?rxe or siw}
slots=${3:-200000}
source "$(dirname "$0")/lib.sh" "$1"
[[ -x $build/tests/rdma_litmus ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"
guest_timeout=$((60 + slots / 2000))

# shellcheck disable=SC2317 # called by within
listens() { in_guest 1 rdma resource show cm_id | grep -q LISTEN; }
# run HOW SLOTS: a writer of that kind and the reader, whose status it is.
run() {
    local reader
    in_guest 1 "$build/tests/rdma_litmus" read 10.77.0.1 7201 "$2" >"$work/read" 2>&1 &
    reader=$!
    within "the reader listens" 30 listens
    check "the writer writes" in_guest 2 "$build/tests/rdma_litmus" "$1" 10.77.0.1 7201 "$2"
    wait "$reader"
}

lab_up --hosts 2 --device "$device"
run wrong 5000
equal "a control word that goes ahead of its payload is noticed" "$?" 1
matches "... and counted" "$(tail -n 1 "$work/read")" "^5000 slots checked, [1-9][0-9]* seen before their payload"
begun=$(now_ms)
run write "$slots"
matches "all were checked" "$(tail -n 1 "$work/read")" "^$slots slots checked, [0-9]+ seen before their payload"
say "        $(tail -n 1 "$work/read"), in $((($(now_ms) - begun) / 1000)) s"
check "the lab is down" lab down
finish
