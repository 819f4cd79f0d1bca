#!/bin/sh
# The first program of a guest: makes its root, has its network made, and becomes rf-lab-guest. The kernel starts it as
# process 1 on the host's files, read-only; what the guest writes goes into its memory, over them.
#
# From the kernel's command line: lab_guest=N lab_hosts=N lab_device=rxe|siw|both|none lab_mtu=N lab_lib=FOLDER
# shellcheck disable=SC2154 # set from there, by the kernel
set -u
export PATH=/usr/sbin:/usr/bin:/sbin:/bin

# The kernel panics without its first process, and ends.
die() {
    echo "lab: $*"
    exit 1
}

if [ "${1:-}" != inside ]; then
    # Where the lab is an ordinary user's, files of root look like nobody's, and setuid programs would become nobody: a copy
    # of mount is not setuid, and below nosuid nothing is.
    cp /usr/bin/mount /dev/mount || die "no mount"
    mount() { /dev/mount "$@"; }
    mount -t proc none /proc
    mount -t tmpfs -o mode=755 none /run
    mkdir /run/new /run/upper /run/work
    mount -t overlay -o nosuid,lowerdir=/,upperdir=/run/upper,workdir=/run/work,xino=off none /run/new ||
        die "the guest's kernel has no overlay file system"
    cd /run/new || die "no root"
    mount -t proc none proc
    mount -t sysfs none sys
    mount -t devtmpfs none dev
    mkdir -p dev/pts dev/shm dev/mqueue
    mount -t devpts -o ptmxmode=666,mode=620 none dev/pts
    mount -t tmpfs -o mode=1777 none dev/shm
    mount -t tmpfs -o mode=755 none run
    mount -t cgroup2 none sys/fs/cgroup
    mkdir -p run/lock run/user
    rm dev/mount
    exec chroot . /bin/sh "$lab_lib/guest-init.sh" inside
fi

hostname "lab$lab_guest"
export HOME=/root
cd /
{
    echo "127.0.0.1 localhost"
    i=1
    while [ "$i" -le "$lab_hosts" ]; do
        echo "10.77.0.$i lab$i"
        i=$((i + 1))
    done
} >/etc/hosts
echo "lab$lab_guest" >/etc/hostname
# perftest wants to know a clock rate.
{
    cat /proc/cpuinfo
    echo "cpu MHz : 1000.000"
} >/run/cpuinfo
mount --bind /run/cpuinfo /proc/cpuinfo
grep -q '^rackfish:' /etc/passwd || {
    echo 'rackfish:x:977:977::/nonexistent:/usr/sbin/nologin' >>/etc/passwd
    echo 'rackfish:x:977:' >>/etc/group
}
ulimit -l unlimited

"$lab_lib/guest-network.sh" || die "no network, or no RDMA device"
exec "$lab_lib/rf-lab-guest"
