#!/usr/bin/env bash
# A writer that is stopped in its tracks, with a remote write on its way, and goes on later: as a leader that was deposed meanwhile. What
# it had on its way comes late, and what it writes then, too; behind a fence nothing of that is placed.
#
#   late_test.sh BUILD-FOLDER rxe|siw
set -u
device=${2:?rxe or siw}
source "$(dirname "$0")/lib.sh" "$1"
end=$build/tests/bad_input
[[ -x $end ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"

# asks SIGNAL: what the owner of the memory says of it then.
asks() {
    local before
    before=$(grep -c changed "$work/owner")
    in_guest 1 pkill "-$1" -x bad_input
    # shellcheck disable=SC2317 # called by within
    said() { (($(grep -c changed "$work/owner") > before)); }
    within "the owner looks" 30 said
    word=$(tail -n 1 "$work/owner")
}
# shellcheck disable=SC2317 # called by within
written() { asks USR2 && [[ $word == "changed RF_OK" ]]; }

lab_up --hosts 2 --device "$device"
guest_timeout=300 in_guest 1 "$end" serve rdma 10.77.0.1:4801 deadline_ms=20000 >"$work/owner" 2>"$work/owner.log" &
within "the owner listens" 30 grep -q '^serves' "$work/owner"
guest_timeout=300 in_guest 2 "$end" dial rdma 10.77.0.1:4801 deadline_ms=20000 write=endless >"$work/writer" 2>"$work/writer.log" &
writer=$!
within "it writes" 30 written
within "and goes on writing" 30 written

say "-- stopped, without a fence"
lab freeze 2
# shellcheck disable=SC2317 # called by within
still() { asks USR2 && [[ $word == "unchanged RF_OK" ]]; }
within "a writer that is stopped writes nothing" 30 still
lab thaw 2
within "it goes on, and its writes are placed" 30 written

say "-- stopped, and fenced meanwhile"
lab freeze 2
asks USR1
check "the owner fences it" grep -q '^fenced' "$work/owner"
lab thaw 2
wait "$writer"
matches "the writer hears that it is over" "$(grep '^ended' "$work/writer")" "^ended RF_ERR_"
asks USR2
equal "and nothing that it wrote late is placed" "$word" "unchanged RF_OK"
[[ $device != rxe ]] || matches "its queue pairs are no more" "$(grep fenced "$work/owner.log")" "the queue pairs that its peer may write by are no more, after [0-9]+ us"
say "        $(grep -o 'is fenced.*' "$work/owner.log" | head -1)"
check "the lab is down" lab down
finish
