#!/bin/sh
# In each guest: this host's entry of the machine `lab`, made of all guests. guest-machine.sh HOSTS TRANSPORT
set -eu
hosts=$1 transport=$2
mkdir -p /etc/rackfish
umask 077
# The network is inside of this host, and whoever could listen there could read the guests' memory too.
echo "rackfish lab: joined by cables that nobody else can reach" | sha256sum | cut -d' ' -f1 >/etc/rackfish/lab.key
{
    echo "machine: lab"
    echo "key_file: lab.key"
    echo "allow_root: on"
    echo "host_deadline_ms: 2500" # guests wait for a CPU like any process of a busy host
    echo "nodes:"
    echo "  - {hosts: 'lab[1-$hosts]', address: '10.77.0.[1-$hosts]', cores: all}"
    echo "transports:"
    echo "  - {between: ['lab[1-$hosts]', 'lab[1-$hosts]'], use: $transport}"
} >/etc/rackfish/lab.yaml
exec rackfish -m lab up --config /etc/rackfish/lab.yaml
