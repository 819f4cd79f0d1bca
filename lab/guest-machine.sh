#!/bin/sh
# In each guest: this host's entry of the machine `lab`, made of all guests. guest-machine.sh HOSTS TRANSPORT [DRIVER [ONE-SIDED [PORTS]]]
set -eu
hosts=$1 transport=$2 driver=${3:-} one_sided=${4:-off} ports=${5:-1}
cpus=$(nproc)
two() { # HOSTS: their ports, where they have two
    [ "$ports" != 2 ] || echo ", dpdk: {ports: [{interface: lan0, address: '10.78.0.$1/24'}, {interface: dpdk0, address: '10.79.0.$1/24'}]}"
}
mkdir -p /etc/rackfish
umask 077
# The network is inside of this host, and whoever could listen there could read the guests' memory too.
echo "rackfish lab: joined by cables that nobody else can reach" | sha256sum | cut -d' ' -f1 >/etc/rackfish/lab.key
{
    echo "machine: lab"
    echo "key_file: lab.key"
    echo "allow_root: on"
    echo "host_deadline_ms: 2500" # guests wait for a CPU like any process of a busy host
    echo "one_sided: $one_sided"
    case $transport-$driver-$ports in # XDP sockets take all frames of an interface, also those of TCP
    dpdk-af_packet-1) echo "defaults: {dpdk: {interface: lan0, driver: af_packet}}" ;;
    dpdk-af_xdp-1) echo "defaults: {dpdk: {interface: dpdk0, driver: af_xdp}}" ;;
    esac
    echo "nodes:"
    if [ "$cpus" = 1 ]; then
        echo "  - {hosts: 'lab[1-$hosts]', address: '10.77.0.[1-$hosts]', cores: all$(two "[1-$hosts]")}"
    else # no kernel of its own: one of this host's CPUs each, in turn
        i=1
        while [ "$i" -le "$hosts" ]; do
            cpu=$(((i - 1) % cpus))
            echo "  - {hosts: lab$i, address: 10.77.0.$i, cores: '$cpu-$cpu'$(two $i)}"
            i=$((i + 1))
        done
    fi
    echo "transports:"
    echo "  - {between: ['lab[1-$hosts]', 'lab[1-$hosts]'], use: $transport}"
} >/etc/rackfish/lab.yaml
exec rackfish -m lab up --config /etc/rackfish/lab.yaml
