#!/usr/bin/env bash
# The lab where no kernel can be built: guests with Debian's own, run by QEMU in software. Programs run in them, their Soft-RoCE
# devices carry perftest and know huge pages, which User-Mode Linux has not; and two of them are one machine over RDMA that does its
# main job.
set -u
source "$(dirname "$0")/lib.sh" "$1"
kernel_output=$(rackfish lab kernel --kernel stock 2>&1)
case $? in
0) ;;
77) skip "$kernel_output" ;;
*) fail "Debian's kernel: $kernel_output" && finish ;;
esac
expect "soft-iWARP is not to be had, and that is said" 77 rackfish lab rdma --name "$lab_name" --kernel stock --device siw

guest_timeout=120
lab_up --hosts 2 --device rxe --kernel stock

matches "the kernel is Debian's" "$(in_guest 1 uname -rv)" "amd64 .*Debian"
text=$(seq 1 40000 | md5sum)
equal "stdin gets there whole" "$(seq 1 40000 | fed_guest 1 md5sum)" "$text"
equal "stdout comes back whole" "$(in_guest 2 seq 1 40000 | md5sum)" "$text"
guest_expect "an exit status passes through" 7 1 sh -c 'exit 7'
check "what a guest writes" in_guest 1 sh -c "echo guest >/etc/rf-lab-test && test -s /etc/rf-lab-test"
check "is not written here" test ! -e /etc/rf-lab-test
matches "guest 2 has rxe0, active" "$(in_guest 2 rdma link show rxe0/1)" "state ACTIVE"
check "ib_write_lat on rxe0" perftest_pair ib_write_lat -d rxe0 -x 1 -s 8 -n 100
say "        at best $(perftest_figure 3) us, median $(perftest_figure 5) us"

[[ -e $build/modules/rackfish-rdma.so ]] || finish
say "-- huge pages"
equal "guest 1 has eight" "$(in_guest 1 sh -c 'echo 8 >/proc/sys/vm/nr_hugepages && cat /proc/sys/vm/nr_hugepages')" 8
matches "all are used for memory that a device may know, then others" "$(in_guest 1 "$build/tests/test_rdma_device" 2>&1)" "[^0-9]8 huge pages were had"
matches "Soft-RoCE knows them: remote writes into regions there, over breaks" \
    "$(RACKFISH_RDMA_ADDRESS=10.77.0.1 in_guest 1 "$build/tests/test_conformance_rdma" bulk_over_breaks 2>&1)" "OK \] bulk_over_breaks"
check "they are given back" in_guest 1 sh -c 'echo 0 >/proc/sys/vm/nr_hugepages && test "$(cat /proc/sys/vm/nr_hugepages)" = 0'

say "-- one machine"
check "of the two guests" lab machine
matches "over RDMA" "$(in_guest 1 rackfish links)" rdma
root=$(realpath "$here/../..")
words=$(find "$root/doc" "$root/monitor" "$root/consensus" -type f -print0 | LC_ALL=C wc -w --files0-from=- | awk 'END { print $1 }')
mkdir "$work/tree"
cp -r "$root/doc" "$root/monitor" "$root/consensus" "$work/tree/"
equal "wordcount over both agrees with wc" \
    "$(in_guest 1 rackfish run --core 0 -- wordcount "$work/tree" 2>/dev/null | awk '$1 == "words" { print $2 }')" "$words"
say "-- faults"
check "a guest is killed" lab kill 2
check "and booted again" lab boot 2
matches "with its device" "$(in_guest 2 rdma link show rxe0/1)" "state ACTIVE"
finish
