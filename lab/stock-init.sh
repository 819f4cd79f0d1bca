#!/bin/busybox sh
# The first program of a guest with Debian's kernel, from its first file system: loads the modules, calls the cables by the guests
# that they lead to, mounts the host's files and goes on there (guest-init.sh). What ends it ends the guest.
# shellcheck shell=busybox
b=/bin/busybox
$b mount -t proc none /proc
$b mount -t sysfs none /sys
$b mount -t devtmpfs none /dev
while read -r module; do
    $b insmod "/lib/$module" || echo "lab: module $module does not load"
done </lib/order
# A cable's address says which guest is at its other end: 02:52:46:00:OTHER:OWN.
for interface in /sys/class/net/*; do
    read -r address <"$interface/address"
    case $address in
    02:52:46:00:0*)
        other=${address%:*}
        other=${other##*:0}
        $b ip link set "${interface##*/}" name "vec$other"
        ;;
    esac
done
$b mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000,ro root /host || exit 1
$b umount /proc /sys
$b mount --move /dev /host/dev
# shellcheck disable=SC2154 # from the kernel's command line
exec $b switch_root /host "$lab_lib/guest-init.sh"
