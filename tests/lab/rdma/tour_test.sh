#!/usr/bin/env bash
# A machine of three guests from one file with `rdma:` options, as of real hosts: what is wrong in the file is said by
# `rackfish doctor` and by `up`; what is right reaches the wire; then the tour of README.md, and the main job of ./run with its
# checked result.
set -u
source "$(dirname "$0")/lib.sh" "$1"
source "$(dirname "$0")/../tour.sh"
[[ -e $build/modules/rackfish-rdma.so ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"
export RACKFISH_MACHINE=rack

on() { # N COMMAND...: the command of that name, there
    local guest=$1
    shift
    in_guest "$guest" rackfish "$@"
}
n_files=0
file() { # OPTIONS: the machine's file, with them, of a new name: guests remember what they have read
    yaml=$work/rack-$((++n_files)).yaml
    {
        echo "machine: rack"
        echo "key_file: rack.key"
        echo "allow_root: on"
        echo "host_deadline_ms: 2500"
        echo "nodes:"
        echo "  - {hosts: 'lab[1-3]', address: '10.77.0.[1-3]', cores: 1, rdma: {$1}}"
        echo "transports:"
        echo "  - {between: ['lab[1-3]', 'lab[1-3]'], use: rdma}"
    } >"$yaml"
}
up() { # in all guests at once; their words and statuses in $work/up.N
    local guest pids=()
    for guest in 1 2 3; do
        { on $guest up --config "$yaml" >"$work/up.$guest" 2>&1; echo "status $?" >>"$work/up.$guest"; } &
        pids+=($!)
    done
    wait "${pids[@]}"
}
# fails WHAT OPTIONS TEXT: with these options doctor fails with that text, and `up`, which asks it, too.
fails() {
    file "$2"
    matches "doctor: $1" "$(on 1 doctor --config "$yaml")" "FAIL .*$3"
    matches "up: $1" "$(on 1 up --config "$yaml" 2>&1; echo "status $?")" "$3.*status 1"
}

lab_up --hosts 3 --device both # two devices, so that the file has to say which
head -c 32 /dev/urandom >"$work/rack.key"
chmod 600 "$work/rack.key"

say "-- what is wrong in the file"
fails "a device that is not there" "device: mlx5_0" "yaml:6: rdma: this host has no device 'mlx5_0', but .*correct 'device' there"
fails "a port that is not there" "device: rxe0, port: 2" "yaml:6: rdma: rxe0 has no port 2.*correct 'port' there"
fails "a GID that is not there" "device: rxe0, gid_index: 77" "rxe0 port 1 has no GID with index 77.*correct 'gid_index'"
file "device: rxe0, gid_index: 300"
matches "a GID beyond all tables" "$(on 1 up --config "$yaml" 2>&1)" "yaml:6: rdma: gid_index: 300 is out of range; write 0 to 255"

say "-- what is right"
file "device: rxe0, port: 1, gid_index: 1, traffic_class: 104, service_level: 0, mtu: 512, pkey_index: 0, mode: send"
doctor=$(on 1 doctor --config "$yaml")
equal "doctor finds nothing to fail on" "$(grep -c ^FAIL <<<"$doctor")" 0
matches "... but the device and GID that are told" "$doctor" "rxe0 port 1, Ethernet, active; a link would use GID 1 [0-9a-f:]* \(RoCE v2, IPv4\)"
matches "... and that the other hosts get packets of that 'mtu'" "$doctor" "2 other host\(s\) get packets of 592 bytes"
# What goes over the wire to guest 2: class and size of the packets of RoCE v2.
# shellcheck disable=SC2016 # perl's
in_guest 2 perl -e '
    use Socket;
    socket($s, 17, SOCK_RAW, 0x0300) or die "$!";
    for ($until = time + 240; time < $until && !-e "/run/enough";) {
        $r = ""; vec($r, fileno $s, 1) = 1;
        next unless select($r, undef, undef, 0.2);
        recv $s, $p, 65536, 0;
        next unless length $p > 42 && unpack("x12 n", $p) == 0x800 && unpack("x23 C", $p) == 17 && unpack("x36 n", $p) == 4791;
        $class{unpack("x15 C", $p)}++;
        $most = length $p if length $p > $most;
    }
    print join(",", sort keys %class), " $most\n"' >"$work/packets" 2>&1 &
watcher=$!
up
equal "the three guests become one machine" "$(grep -h ^status "$work"/up.* | tr '\n' ' ')" "status 0 status 0 status 0 "
[[ $(grep -c "status 0" "$work"/up.1) == 1 ]] || { cat "$work"/up.*; finish; }
for guest in 1 2 3; do
    matches "guest $guest goes as it is told" "$(in_guest $guest sh -c 'cat /run/rackfish/rack/*/monitor-*.log')" \
        "over rxe0 port 1 GID 1 \(RoCE v2, IPv4\), by the route to the peer, as configured; slots come by SEND: as configured"
done

say "-- the main job"
tour_job
in_guest 2 touch /run/enough
wait "$watcher"
read -r class most <"$work/packets"
equal "packets are of the class that is told" "$class" 104
check "... and no larger ($most bytes)" test "${most:-0}" -gt 512 -a "${most:-0}" -le $((512 + 74))

say "-- the tour"
tour_session rdma
tour_down

say "-- another MTU on the way"
# shellcheck disable=SC2016 # expanded in the guest
in_guest 2 sh -c 'for cable in /sys/class/net/vec*; do ip link set "${cable##*/}" mtu 1500; done; ip link set lan0 mtu 9000' # a cable takes no larger one again
matches "doctor: a smaller 'mtu' passes" "$(on 2 doctor --config "$yaml")" "2 other host\(s\) get packets of 592 bytes"
file "device: rxe0"
matches "... 4096 bytes do not" "$(on 2 doctor --config "$yaml")" "note *mtu .*'lab3' \(10.77.0.3\) gets no packets of 4176 bytes.*or a smaller 'mtu'"
file "device: siw0"
doctor=$(on 2 doctor --config "$yaml")
matches "... over iWARP packets are of the interface's MTU" "$doctor" "note *mtu .*'lab3' \(10.77.0.3\) gets no packets of 9000 bytes"
equal "... and 'mtu' does not mend that" "$(grep -c "smaller 'mtu'" <<<"$doctor")" 0
check "the lab is down" lab down
finish
