#!/bin/sh
# The wire between the hosts of a lab, inside its namespace: a bridge `lan` with ports vN and dN for each host N, to its interfaces lan0
# and dpdk0, which a packet filter and queueing make as bad as is wanted. (There is no netem in many kernels; what a sender sends through DPDK would pass it by.)
#
#   wire.sh begin                                   the filter, empty
#   wire.sh set LOSS DUPLICATE REORDER BURST MBIT   in 1/100 %; losses come BURST at a time; 0: none, and no limit
#   wire.sh again                                   the same for a port that is new
#   wire.sh cut|heal A B                            nothing passes between hosts A and B, or does again
#
# loss       dropped between two ports: numgen random, or numgen inc for bursts, so many frames in a row
# duplicate  sent out twice: where a frame comes in, dup to the port of the host it is for
# reorder    so many wait in a class of their own that is slow, while others pass them
set -eu
folder=/run/lab-wire
mkdir -p "$folder"

ports() {
    for folder in /sys/class/net/[vd][0-9]*; do
        [ ! -e "$folder" ] || echo "${folder##*/}"
    done
}

begin() {
    nft -f - <<NFT
add table bridge lab
add set bridge lab cuts { type ifname . ifname; }
add chain bridge lab forward { type filter hook forward priority 0; }
add rule bridge lab forward iifname . oifname @cuts drop
add chain bridge lab bad
add rule bridge lab forward jump bad
NFT
    echo "0 0 0 0 0" >"$folder/settings"
}

mac() { # PORT: of the interface at its other end
    case $1 in
    v*) echo "02:52:46:00:00:0${1#v}" ;;
    d*) echo "02:52:46:00:01:0${1#d}" ;;
    esac
}

pairs() { # A B: of ports, both ways
    for from in v d; do
        for to in v d; do
            echo "\"$from$1\" . \"$to$2\""
            echo "\"$to$2\" . \"$from$1\""
        done
    done
}

losses() { # LOSS BURST
    [ "$1" -gt 0 ] || return 0
    if [ "$2" -gt 1 ]; then
        every=$(($2 * 10000 / $1)) # the first ones pass: they ask for addresses
        echo "add rule bridge lab bad numgen inc mod $every >= $((every - $2)) drop"
    else
        echo "add rule bridge lab bad numgen random mod 10000 < $1 drop"
    fi
}

duplicates() { # DUPLICATE
    [ "$1" -gt 0 ] || return 0
    echo "add table netdev lab"
    for port in $(ports); do
        echo "add chain netdev lab $port { type filter hook ingress device $port priority 0; }"
        for other in $(ports); do
            [ "$other" = "$port" ] ||
                echo "add rule netdev lab $port ether daddr $(mac "$other") numgen random mod 10000 < $1 dup to $other"
        done
    done
}

# A class of its own for what is late: at 8 Mbit/s a frame of 1,000 bytes holds up the next for 1 ms.
queues() { # REORDER MBIT
    for port in $(ports); do
        tc qdisc del dev "$port" root 2>/dev/null || true
        [ "$1" -gt 0 ] || [ "$2" -gt 0 ] || continue
        rate=$(($2 > 0 ? $2 : 10000))
        tc qdisc add dev "$port" root handle 1: htb default 1
        tc class add dev "$port" parent 1: classid 1:1 htb rate "${rate}mbit" burst 32k
        tc qdisc add dev "$port" parent 1:1 handle 10: bfifo limit 256k
        tc class add dev "$port" parent 1: classid 1:2 htb rate 8mbit burst 64 cburst 64
        tc qdisc add dev "$port" parent 1:2 handle 20: bfifo limit 256k
    done
    [ "$1" = 0 ] || echo "add rule bridge lab bad numgen random mod 10000 < $1 meta priority set 1:2"
}

make() { # LOSS DUPLICATE REORDER BURST MBIT
    nft delete table netdev lab 2>/dev/null || true
    {
        echo "flush chain bridge lab bad"
        losses "$1" "$4"
        queues "$3" "$5"
        duplicates "$2"
    } >"$folder/rules"
    nft -f "$folder/rules"
}

case $1 in
begin) begin ;;
set)
    shift
    make "$@"
    echo "$*" >"$folder/settings"
    ;;
again)
    # shellcheck disable=SC2046 # five words
    make $(cat "$folder/settings")
    ;;
cut)
    nft add element bridge lab cuts "{ $(pairs "$2" "$3" | paste -sd,) }"
    ;;
heal)
    pairs "$2" "$3" | while read -r pair; do
        nft delete element bridge lab cuts "{ $pair }" 2>/dev/null || true
    done
    ;;
*)
    echo "wire.sh: begin, set, again, cut or heal" >&2
    exit 2
    ;;
esac
