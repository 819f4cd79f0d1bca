# Hosts in network namespaces, with a bridge between them, for tests of whole machines. Source it after lib.sh:
#
#   net_begin 3 10.213.77          # hosts 0 to 2 with addresses 10.213.77.1 to .3; skips the test where that cannot be had
#   net_machine one "leases: on"   # ... which are hosts h1 to h3 of a machine with this setting: brings it up
#   net_exec 0 rackfish up ...     # a command on a host
#   net_cut 0 2 && net_heal 0 2    # their network goes down, and up
#   net_lose 0 1 && net_hear 0 1   # what host 0 sends to host 1 is lost, and is not
#   net_end
#
# net_filter=1 before net_begin: what is lost is lost in the bridge, by a packet filter, for programs that send frames past the
# kernel's neighbours.
#
# Whatever happens to the test, also a KILL, the network goes away: a guard process watches the test.

net_address() { echo "$net_subnet.$(($1 + 1))"; }
net_exec() { ip netns exec "$net-$1" "${@:2}"; }
net_set() { local i; for i in "${@:2}"; do echo "link set $net-v$i $1"; done | ip -force -batch -; } # all at once
net_cut() { net_set down "$@"; }
net_heal() { net_set up "$@"; }

# Loss in one direction: a permanent neighbour entry whose hardware address nobody has. Connections see silence, no error.
net_lose() {
    if [[ -n ${net_filter:-} ]]; then
        nft add element bridge "$net" lost "{ \"$net-v$1\" . \"$net-v$2\" }"
    else
        ip -n "$net-$1" neigh replace "$(net_address "$2")" lladdr 02:00:00:00:00:99 nud permanent dev eth0
    fi
}
net_hear() {
    if [[ -n ${net_filter:-} ]]; then
        nft delete element bridge "$net" lost "{ \"$net-v$1\" . \"$net-v$2\" }"
    else
        ip -n "$net-$1" neigh del "$(net_address "$2")" dev eth0
    fi 2>/dev/null
}

net_take_away() {
    local i pid
    for ((i = 0; i < $2; i++)); do
        for pid in $(ip netns pids "$1-$i" 2>/dev/null); do kill -KILL "$pid"; done
        ip link del "$1-v$i"
        ip netns del "$1-$i"
    done 2>/dev/null
    ip link del "$1" 2>/dev/null
    nft delete table bridge "$1" 2>/dev/null
    return 0
}
net_end() { net_take_away "$net" "$net_hosts"; }

net_begin() {
    local i probed
    net="rf$$" net_hosts=$1 net_subnet=$2
    ((EUID == 0)) || skip "making network namespaces takes root"
    command -v ip >/dev/null || skip "no ip; install iproute2"
    ip netns add "$net-probe" 2>/dev/null || skip "no network namespaces here"
    ip netns exec "$net-probe" true 2>/dev/null
    probed=$?
    ip netns del "$net-probe"
    ((probed == 0)) || skip "nothing can be executed in network namespaces here"
    ip link add "$net" type bridge 2>/dev/null && ip link set "$net" up || skip "no bridges here"
    ip link add "$net-p" type veth peer name "$net-q" 2>/dev/null && ip link del "$net-p" || {
        ip link del "$net"
        skip "no veth here"
    }
    if [[ -n ${net_filter:-} ]]; then
        nft -f - 2>/dev/null <<NFT || { ip link del "$net"; skip "no packet filter for bridges; apt-get install nftables"; }
add table bridge $net
add set bridge $net lost { type ifname . ifname; }
add chain bridge $net forward { type filter hook forward priority 0; }
add rule bridge $net forward iifname . oifname @lost drop
NFT
    fi
    # The guard of lib.sh takes machines down; this one takes the network away.
    (
        trap - EXIT INT TERM HUP
        export -f net_take_away
        setsid bash -c "while kill -0 $$ 2>/dev/null; do sleep 0.5; done; sleep 3; net_take_away $net $net_hosts" </dev/null >/dev/null 2>&1 &
    )
    for ((i = 0; i < net_hosts; i++)); do
        ip netns add "$net-$i"
        ip link add "$net-v$i" type veth peer name eth0 netns "$net-$i"
        ip link set "$net-v$i" master "$net" up
        ip -n "$net-$i" link set lo up
        ip -n "$net-$i" address add "$(net_address "$i")/24" dev eth0
        ip -n "$net-$i" link set eth0 up
    done
}

net_machine() {
    local i hosts=()
    for ((i = 0; i < net_hosts; i++)); do hosts+=("h$((i + 1)), address: $(net_address $i)"); done
    configure "$1" "$2" "${hosts[@]}"
    for ((i = 0; i < net_hosts; i++)); do
        net_exec $i timeout 90 rackfish up --config "$config" --node "h$((i + 1))" >"$work/up$((i + 1))" 2>&1 &
    done
    net_all_up() { [[ $(rackfish --via h1 --json status 2>/dev/null | json nodes_up) == "$net_hosts" ]]; }
    within "$net_hosts hosts form a machine" 90 net_all_up
    wait
    cat "$work"/up?
    remember_processes
}
