#!/usr/bin/env bash
# What is configured wrong, missing or hostile, on a real verbs device: each ends by itself, before the deadline is over
# several times, with one line that names the cause and the mend; and the other end goes on serving.
#
#   bad_input_test.sh BUILD-FOLDER rxe|siw
set -u
device=${2:?rxe or siw}
source "$(dirname "$0")/lib.sh" "$1"
end=$build/tests/bad_input
[[ -x $end ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"

serve() { # NAME ADDRESS... : in guest 1
    local name=$1
    shift
    guest_timeout=600 in_guest 1 "$end" serve "$@" >"$work/$name" 2>"$work/$name.log" &
    within "$name listens" 30 grep -q '^serves' "$work/$name"
}
# dials WHAT OUTCOME LOG ARGUMENT...: its last word is the outcome, and one line of its log has that text.
dials() {
    local what=$1 outcome=$2 text=$3
    shift 3
    in_guest 2 "${as[@]}" "$end" dial "$@" >"$work/words" 2>"$work/log"
    ended "$what" "$outcome" "$text"
}
as=()
ended() {
    local words
    words=$(tail -n 1 "$work/words")
    if [[ $words == "$2" ]]; then pass "$1: $2"; else
        fail "$1: \"$words\" instead of \"$2\""
        sed 's/^/        | /' "$work/log"
    fi
    says "$work/log" "$3"
}
# says LOG TEXT
says() {
    local i
    [[ -n $2 ]] || return
    for ((i = 0; i < 100; i++)); do # who writes it may not have had its turn yet
        ! grep -qF -- "$2" "$1" || break
        sleep 0.1
    done
    if grep -qF -- "$2" "$1"; then pass "... $(grep -F -m 1 -- "$2" "$1" | cut -d' ' -f4- | cut -c1-160)"; else
        fail "... nothing says \"$2\""
        tail -n 5 "$1" | sed 's/^/        | /'
    fi
}
goes_on() { dials "the other end goes on" "written RF_OK" "" rdma 10.77.0.1:4801 write=right; }

lab_up --hosts 2 --device "$device"
serve plain rdma 10.77.0.1:4801
serve keyed rdma 10.77.0.1:4802 key=rackfish-lab-key
serve tcp tcp 10.77.0.1:4803

say "-- what is right"
goes_on
dials "with the key" "written RF_OK" "" rdma 10.77.0.1:4802 key=rackfish-lab-key write=right

say "-- configured wrong"
dials "a GID that is not there" "open RF_ERR_NOT_FOUND" "has no GID with index 77: correct gid_index=" \
    rdma 10.77.0.1:4801 options=gid_index=77
dials "a GID beyond all tables" "open RF_ERR_CONFIG" "gid_index=300: it is a number from 0 to 255" \
    rdma 10.77.0.1:4801 options=gid_index=300
dials "another device's name" "open RF_ERR_NOT_FOUND" "no RDMA device 'mlx5_9', but ${device}0: correct device=" \
    rdma 10.77.0.1:4801 options=device=mlx5_9
dials "a port that is not there" "open RF_ERR_NOT_FOUND" "has no port 9: correct port=" rdma 10.77.0.1:4801 options=port=9

say "-- a device that cannot"
in_guest 2 ip link add spare0 type dummy
in_guest 2 rdma link add "${device}9" type "$device" netdev spare0
dials "a port that is down" "ended RF_ERR_TIMEOUT" "port 1 of ${device}9 is down: bring its network device or cable up" \
    rdma 10.77.0.1:4801 "options=device=${device}9" deadline_ms=1500
in_guest 2 rdma link delete "${device}9"
in_guest 2 sh -c 'chmod 666 /dev/infiniband/*'
as=(setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all prlimit --memlock=4096)
dials "too little memory may be locked" "ended RF_ERR_NO_MEMORY" "the limit is 4 KiB: raise it (\`ulimit -l unlimited\`" \
    rdma 10.77.0.1:4801
as=(setpriv --reuid=65534 --regid=65534 --clear-groups --bounding-set=-all --inh-caps=-all)
in_guest 2 sh -c 'chmod 600 /dev/infiniband/uverbs*'
dials "a device that may not be opened" "open RF_ERR_PERMISSION" "may this user use /dev/infiniband/uverbs*?" rdma 10.77.0.1:4801
in_guest 2 sh -c 'chmod 666 /dev/infiniband/uverbs*'
as=()
in_guest 2 rdma link delete "${device}0"
dials "no device" "open RF_ERR_NOT_FOUND" "this host has no RDMA device with a GID: load its driver" rdma 10.77.0.1:4801
in_guest 2 rdma link add "${device}0" type "$device" netdev lan0
goes_on

say "-- a peer that does not fit"
dials "another version" "ended RF_ERR_VERSION" "install the same release on both hosts" rdma 10.77.0.1:4801 major=99
says "$work/plain.log" "install the same release on both hosts"
dials "another key" "ended RF_ERR_AUTH" "both hosts need the same key_file" rdma 10.77.0.1:4802 key=another-lab-key
says "$work/keyed.log" "both hosts need the same key_file"
dials "no key" "ended RF_ERR_AUTH" "it asks for encryption, which is off here; both hosts need the same key_file" rdma 10.77.0.1:4802
dials "a key where there is none" "ended RF_ERR_AUTH" "both hosts need the same key_file" rdma 10.77.0.1:4801 key=rackfish-lab-key
dials "TCP to the port of RDMA" "ended RF_ERR_CONFIG" \
    "its links are by rdma and ours by tcp; let \`transports\` say the same on both hosts" tcp 10.77.0.1:4801
dials "RDMA to the port of TCP" "ended RF_ERR_CONFIG" \
    "its links are by tcp and ours by rdma; let \`transports\` say the same on both hosts" rdma 10.77.0.1:4803
says "$work/tcp.log" "let \`transports\` say the same on both hosts"
goes_on

say "-- a peer that means harm"
: >"$work/plain.log"
check "garbage on the port" in_guest 2 bash -c 'head -c 100000 /dev/urandom >/dev/tcp/10.77.0.1/4801; :'
check "and on that with a key" in_guest 2 bash -c 'head -c 100000 /dev/urandom >/dev/tcp/10.77.0.1/4802; :'
check "many that say nothing" in_guest 2 bash -c 'for i in $(seq 200); do exec {fd}<>/dev/tcp/10.77.0.1/4801 || exit 1; done'
goes_on
dials "with the key" "written RF_OK" "" rdma 10.77.0.1:4802 key=rackfish-lab-key write=right
if [[ $device == rxe ]]; then
    for which in key beyond; do
        dials "a remote write that its key does not allow ($which)" "ended RF_ERR_PERMISSION" \
            "refuses a remote write or read (remote access error)" rdma 10.77.0.1:4801 write=$which
        equal "... which is told to its owner" "$(grep written "$work/words")" "written RF_ERR_PERMISSION"
        goes_on
    done
    dials "a remote read that its key does not allow" "ended RF_ERR_PERMISSION" \
        "refuses a remote write or read (remote access error)" rdma 10.77.0.1:4801 write=read
    equal "... which is told to its owner" "$(grep read "$work/words")" "read RF_ERR_PERMISSION"
    goes_on
else # iWARP ends the connection, and does not say why
    dials "a remote write that its key does not allow" "ended RF_ERR_TIMEOUT" "remote writes do not get to" \
        rdma 10.77.0.1:4801 write=key
    goes_on
fi
check "the lab is down" lab down
finish
