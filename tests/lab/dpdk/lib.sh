# Helpers of the tests in the lab of hosts with ports for DPDK. A test sources this file with the build folder as its argument.
#
#   source "$(dirname "$0")/lib.sh" "$1"
#   lab_up --hosts 3                   # rackfish lab dpdk -d; skips the test where that cannot be had
#   lab wire --loss 1                  # between all hosts
#   in_wire tc -s qdisc                # a command in the wire
#   finish
# shellcheck shell=bash

# shellcheck disable=SC2034 # read by tests/lab/lib.sh
lab_kind=dpdk
# shellcheck source=tests/lab/lib.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib.sh" "$1"

in_wire() { in_guest wire "$@"; }

# datagrams FROM TO N: FROM sends N numbered datagrams to TO, 50 at a time; prints "received distinct out-of-order". TO listens until
# it has been told that FROM has ended, however long that takes, and has heard nothing more for a second.
datagrams() {
    local from=$1 to=$2 n=$3 receiver
    # shellcheck disable=SC2016 # perl's
    guest_timeout=120 in_guest "$to" perl -MIO::Socket -e '
        my $s = IO::Socket::INET->new(Proto => "udp", LocalPort => 4712) or die;
        setsockopt($s, SOL_SOCKET, 33, 1 << 22) or die; # SO_RCVBUFFORCE: of what a busy host lets it read late nothing is lost
        my ($n, $late, $last, $quiet, %seen) = (0, 0, -1, 0);
        unlink "/run/datagrams.end";
        open my $ready, ">", "/run/datagrams"; close $ready;
        while ($quiet < 10) {
            my $bits = ""; vec($bits, fileno($s), 1) = 1;
            if (!select($bits, undef, undef, 0.1)) { $quiet++ if -e "/run/datagrams.end"; next }
            $quiet = 0;
            recv($s, my $text, 2000, 0); my $k = int($text);
            $n++; $seen{$k} = 1; if ($k < $last) { $late++ } else { $last = $k }
        }
        unlink "/run/datagrams";
        print "$n ", scalar(keys %seen), " $late\n"' >"$work/datagrams" &
    receiver=$!
    within "host $to listens" 20 in_guest "$to" test -e /run/datagrams >/dev/null
    # shellcheck disable=SC2016 # perl's
    in_guest "$from" perl -MIO::Socket -e '
        my $s = IO::Socket::INET->new(Proto => "udp", PeerAddr => $ARGV[0], PeerPort => 4712) or die;
        for my $k (0 .. $ARGV[1] - 1) { send($s, sprintf("%-200d", $k), 0); select(undef, undef, undef, 0.002) if $k % 50 == 49 }' \
        "10.77.0.$to" "$n" || echo "the sender in host $from failed" >&2
    in_guest "$to" touch /run/datagrams.end
    wait "$receiver"
    cat "$work/datagrams"
}

# ---- a machine of all hosts ----

# on N COMMAND...: the command of that name, there.
on() {
    local host=$1
    shift
    in_guest "$host" rackfish "$@"
}
leader() { # the host of the core that leads, as host $1 sees it
    local core
    core=$(on "$1" status 2>/dev/null | sed -n 's/.*leader core \([0-9]*\).*/\1/p')
    [[ -n $core ]] && echo $((core + 1)) && return
    echo 1 # nobody leads: what needs a leader will say so
}
other_than() { echo $(($1 % 3 + 1)); }
cores_up() { [[ $(on "$1" --json status | json cores_up) == "$2" ]]; }
leads_now() { # somebody else than host $2, as host $1 sees it, and changes work
    local now
    now=$(leader "$1")
    [[ $now != "$2" ]] && on "$1" registry put alive "$RANDOM"
}
links_up() { [[ $(on 1 links | awk -v medium="$1" '$3 == medium && $4 == "up"' | wc -l) == "$2" ]]; }

# driver_works DRIVER: skips the test where there are no XDP sockets, and it wants them. After lab_up.
# shellcheck disable=SC2016 # the host's
xdp_works() {
    in_guest 1 sh -c 'rackfish-dpdk --socket=/run/try --device=net_af_xdp0,iface=dpdk0 --ready-fd=3 3>/run/ready 2>/run/said &
        i=0
        while [ $i -lt 150 ] && [ ! -s /run/ready ] && kill -0 $!; do
            sleep 0.1
            i=$((i + 1))
        done
        kill $!
        tail -n 1 /run/said
        test -s /run/ready'
}
driver_works() {
    local said
    [[ $1 != af_xdp ]] || said=$(xdp_works 2>&1) || skip "no XDP sockets here: ${said##*$'\n'}"
}

# stats N: the counters of host N's link driver, as JSON. counted N FILE: since FILE it has dropped forged and replayed frames.
stats() { in_guest "$1" sh -c 'rackfish-dpdk --json --stats /run/rackfish/lab/lab'"$1"'.dpdk/sock'; }
counted() {
    stats "$1" >"$work/stats.now"
    python3 - "$2" "$work/stats.now" <<'PYTHON'
import json, sys
before, now = (json.load(open(name)) for name in sys.argv[1:])
grown = {key: now[key] - before[key] for key in now if isinstance(now[key], int)}
dropped = {key: grown[key] for key in ("frames_forged", "frames_replayed", "frames_stale", "frames_truncated", "packets_strange")}
print(dropped, "wrong:", grown["slots_wrong"])
sys.exit(not (dropped["frames_forged"] > 100 and dropped["frames_replayed"] > 100 and grown["slots_wrong"] == 0))
PYTHON
}

# ---- clients, one in each host ----

# A host that is killed takes with it what it has written and nobody has read: a keeper out here knows of each operation before its
# client asks for it (tests/chaos/chaos_client.c).
clients=()
keepers=()
n_clients=0
client_start() { # in host $1: one more, with values of its own
    local n=$((++n_clients))
    clients[$1]=$n
    mkfifo "$work/kept.$n"
    rackfish lab exec --name "$lab_name" --timeout 900 "$1" -- \
        sh -c "echo 1 >/run/round; exec '$build/tests/chaos_client' work $n $RANDOM 4 /run/round - /run/rackfish/lab/lab$1.sock" \
        <"$work/kept.$n" 2>>"$work/client-errors" | "$build/tests/chaos_client" keep "$work/seen.$n" >"$work/kept.$n" &
    keepers+=($!)
}
clients_start() {
    local host
    for ((host = 1; host <= $1; host++)); do client_start $host; done
    clients_work "clients are at work"
}
# clients_work WHAT: each has so many more operations that were answered.
clients_work() {
    local n
    answered_before=()
    for n in "${clients[@]}"; do answered_before[n]=$(answered "$n"); done
    within "$1" 90 all_have_more 20
}
answered() { grep -vc '^#\| ? *$' "$work/seen.$1" 2>/dev/null; }
all_have_more() {
    local n
    for n in "${clients[@]}"; do
        (($(answered "$n") >= ${answered_before[n]:-0} + $1)) || return 1
    done
}
# clients_pace SECONDS: operations a second that were answered, of all clients and of the slowest, beside which the others' mean is its equal share.
clients_pace() {
    local n
    for n in "${clients[@]}"; do answered "$n"; done >"$work/pace.before"
    sleep "$1"
    for n in "${clients[@]}"; do answered "$n"; done >"$work/pace.after"
    paste "$work/pace.before" "$work/pace.after" | awk -v s="$1" '{ d = $2 - $1; all += d; if (NR == 1 || d < least) least = d }
        END { printf "%.0f operations a second, the slowest client %.0f %% of an equal share\n", all / s, all ? 100 * least * NR / all : 0 }'
}
clients_stop() {
    local host
    for host in "${!clients[@]}"; do in_guest "$host" pkill -TERM -x chaos_client; done
    wait "${keepers[@]}"
    keepers=()
}
# What was under way and never came back may have happened.
history_of() {
    awk '
        function lost() { if (under_way != "") print under_way; under_way = "" }
        FNR == 1 { lost() }
        /^# under way: / { lost(); under_way = substr($0, 14); next }
        { under_way = ""; print }
        END { lost() }' "$work"/seen.*
}
history_check() {
    history_of >"$work/history"
    say "        $(wc -l <"$work/history") operations, $(grep -c ' ? *$' "$work/history") without a known outcome"
    equal "all clients have one clock" "$(grep 'no common clock' "$work/client-errors")" ""
    expect "what they saw is linearizable" 0 rackfish sim --check-history "$work/history"
    ((failures == 0)) || {
        cp "$work/history" "/tmp/rackfish-lab-history.$$"
        say "        history: /tmp/rackfish-lab-history.$$"
    }
}
