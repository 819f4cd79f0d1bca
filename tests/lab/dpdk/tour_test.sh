#!/usr/bin/env bash
# A machine of three hosts over DPDK does the main job of ./run, with its checked result, and the first session of README.md.
#
#   tour_test.sh BUILD-FOLDER [af_packet|af_xdp]
set -u
driver=${2:-af_packet}
source "$(dirname "$0")/lib.sh" "$1"
source "$(dirname "$0")/../tour.sh"
[[ -e $build/modules/rackfish-dpdk.so ]] || skip "built without DPDK; apt-get install libdpdk-dev"

lab_up --hosts 3
driver_works "$driver"
check "the hosts become one machine" lab machine --transport dpdk --driver "$driver"
((failures == 0)) || { for host in 1 2 3; do in_guest $host sh -c 'tail -n 5 /run/rackfish/lab/*/*.log'; done; finish; }
within "with links over dpdk between all of them" 30 links_up dpdk 6
say "-- the main job"
tour_job
say "-- the tour"
tour_session dpdk
tour_down
check "the lab is down" lab down
finish
