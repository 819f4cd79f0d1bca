#!/bin/sh
# The first program of a host of the lab that is no guest with a kernel of its own, but a process of this one in namespaces:
# pid, mount, network, UTS, IPC. Makes its files and its network, and becomes rf-lab-guest on the line, descriptor 9.
#
# From the environment: lab_guest=N (0: the wire between all hosts) lab_hosts=N lab_mtu=N lab_lib=FOLDER
# shellcheck disable=SC2154 # set there
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

die() {
    echo "lab: $*"
    exit 1
}

# This host's files are read-only here (spawn.c); what is written in some places stays in this host's memory, over them.
mount -t tmpfs -o mode=755 lab /run || die "no tmpfs"
for folder in etc tmp var root; do
    mkdir -p "/run/lab/$folder" "/run/lab/$folder.work"
    chmod --reference="/$folder" "/run/lab/$folder"
    mount -t overlay -o "lowerdir=/$folder,upperdir=/run/lab/$folder,workdir=/run/lab/$folder.work" lab "/$folder" ||
        die "the kernel has no overlay file system"
done
chmod 700 /run/lab
mkdir -p /run/lock /run/user
# The network's settings are this host's own; all others are the kernel's, and not to be written.
mount -t proc -o nosuid,nodev,noexec proc /proc || die "no /proc"
mount --bind /proc/sys /proc/sys
mount --bind /proc/sys/net /proc/sys/net
mount -o remount,bind,ro /proc/sys
mount --bind /dev/null /proc/sysrq-trigger
mount -t sysfs -o nosuid,nodev,noexec,ro sys /sys
ip link set lo up
echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6 2>/dev/null
ulimit -l unlimited 2>/dev/null
export HOME=/root
cd / || die "no root"

if [ "$lab_guest" = 0 ]; then
    hostname wire
    ip link add lan type bridge stp_state 0 mcast_snooping 0 || die "no bridge"
    ip link set lan up
    sh "$lab_lib/wire.sh" begin || die "no packet filter for bridges; apt-get install nftables"
    exec "$lab_lib/rf-lab-guest" 9
fi

hostname "lab$lab_guest"
{
    echo "127.0.0.1 localhost"
    i=1
    while [ "$i" -le "$lab_hosts" ]; do
        echo "10.77.0.$i lab$i"
        i=$((i + 1))
    done
} >/etc/hosts
echo "lab$lab_guest" >/etc/hostname
grep -q '^rackfish:' /etc/passwd || {
    echo 'rackfish:x:977:977::/nonexistent:/usr/sbin/nologin' >>/etc/passwd
    echo 'rackfish:x:977:' >>/etc/group
}

# The supervisor plugs the cable in (host-join.sh).
i=0
while [ ! -e /sys/class/net/lan0 ]; do
    i=$((i + 1))
    [ "$i" -le 1000 ] || die "no cable was plugged in"
    sleep 0.02
done
ip link set lan0 mtu "$lab_mtu" up
ip link set dpdk0 mtu "$lab_mtu" up
ip address add "10.77.0.$lab_guest/24" dev lan0
exec "$lab_lib/rf-lab-guest" 9
