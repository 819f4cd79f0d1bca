#!/bin/sh
# Plugs host N's two cables into the wire between the hosts: host-join.sh WIRE-PID HOST-PID N MTU. As root, outside of both.
# lan0 is the kernel's, and packet sockets'; dpdk0 is for XDP sockets, which take all frames of an interface. One queue each way:
# a veth has no more unless it is told to.
set -u
wire=$1 host=$2 n=$3 mtu=$4
in_wire() { nsenter -t "$wire" -n "$@"; }

i=0
until in_wire ip link show lan >/dev/null 2>&1; do
    i=$((i + 1))
    [ "$i" -le 500 ] || exit 1
    sleep 0.02
done
# A host that was killed takes its cables with it, a moment later.
plug() { # PORT INTERFACE MAC
    in_wire ip link del "$1" 2>/dev/null
    i=0
    until ip link add "$1" netns "$wire" mtu "$mtu" numtxqueues 1 numrxqueues 1 type veth \
        peer name "$2" netns "$host" address "$3" mtu "$mtu" numtxqueues 1 numrxqueues 1 2>/dev/null; do
        i=$((i + 1))
        [ "$i" -le 100 ] || exit 1
        sleep 0.05
    done
    in_wire ip link set "$1" master lan up
}
plug "d$n" dpdk0 "02:52:46:00:01:0$n"
plug "v$n" lan0 "02:52:46:00:00:0$n"
exec nsenter -t "$wire" -m -n sh "$(dirname "$0")/wire.sh" again
