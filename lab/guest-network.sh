#!/bin/sh
# A guest's network and RDMA device: when it boots, and again where either was taken away. What is there stays as it is.
#
# From the kernel's command line: lab_guest=N lab_hosts=N lab_device=rxe|siw|both|none lab_mtu=N
# shellcheck disable=SC2154 # set from there
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
for word in $(cat /proc/cmdline); do
    case $word in
    lab_guest=* | lab_hosts=* | lab_device=* | lab_mtu=*) eval "$word" ;;
    esac
done

# One cable to each other guest, vecN to guest N, all ports of one bridge. They do not forward to each other: every guest
# is one hop away, and a cable is cut by disabling its port. dummy0 keeps the bridge up when all are cut:
# what is cut is silent.
if [ ! -e /sys/class/net/lan0 ]; then
    ip link set lo up
    ip link add lan0 type bridge stp_state 0 mcast_snooping 0
    ip link set dummy0 master lan0
    ip link set dummy0 type bridge_slave isolated on
    ip link set dummy0 mtu "$lab_mtu" up
    ip link set lan0 address "02:52:46:00:00:0$lab_guest"
    i=1
    while [ "$i" -le "$lab_hosts" ]; do
        if [ "$i" != "$lab_guest" ]; then
            ip link set "vec$i" master lan0
            ip link set "vec$i" type bridge_slave isolated on
            ip link set "vec$i" up
        fi
        i=$((i + 1))
    done
    ip link set lan0 mtu "$lab_mtu"
    ip address add "10.77.0.$lab_guest/24" dev lan0
    ip link set lan0 up
fi
for driver in rxe siw; do
    case $lab_device in
    "$driver" | both) [ -e "/sys/class/infiniband/${driver}0" ] || rdma link add "${driver}0" type "$driver" netdev lan0 ;;
    esac
done
