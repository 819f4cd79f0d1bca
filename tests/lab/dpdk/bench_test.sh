#!/usr/bin/env bash
# The benches between hosts over DPDK run and say what they should; no figure is judged.
#
#   bench_test.sh BUILD-FOLDER
set -u
benches=$(cd "$(dirname "$0")" && pwd)
folder=$1
source "$benches/lib.sh" "$folder"
[[ -e $build/modules/rackfish-dpdk.so ]] || skip "built without DPDK; apt-get install libdpdk-dev"
((EUID == 0)) || skip "hosts in namespaces take root"

log=$work/log
figures() { grep -Ec "$1" "$log"; }

"$benches/many_bench.sh" "$folder" --rounds 1 --senders 3 --hosts 3 --samples 4 --flood_ms 200 --json incast alltoall >"$log" 2>"$work/errors"
status=$?
[[ $status != 77 ]] || skip "$(tail -n 1 "$log" "$work/errors")"
equal "many_bench.sh" "$status $(grep 'NOT OK' "$work/errors")" "0 "
for piece in incast alltoall; do
    for side in dpdk tcp; do
        equal "$piece over $side has its figures" \
            "$(figures "^\\{\"bench\":\"many-bench\",\"what\":\"$piece\",\"side\":\"$side\",.*\"bulk_MB_s\":[0-9.]*[1-9].*\"bulk_share\":[0-9].*\"rate_M_s\":[0-9.]*[1-9].*\"rate_share\":[0-9]")" 1
    done
done
for row in incast:dpdk incast:udp incast:tcp alltoall:udp alltoall:tcp; do
    equal "what the wire carries: $row" \
        "$(figures "\"what\":\"${row%:*}\",\"side\":\"bare-${row#*:}\",.*\"bulk_MB_s\":[0-9.]*[1-9].*\"bulk_share\":[0-9]")" 1
done
"$benches/link_bench.sh" "$folder" --rounds 1 --samples 20 --wires "0 1,duplicate=5,reorder=5" --json one-way rate bare >"$log" 2>"$work/errors" || fail "link_bench.sh: $(tail -n 3 "$work/errors")"
rows='^\{"bench":"link-loss","what":"(one-way|rate)"'
figure='"p50":[0-9.]*[1-9].*"p99":[0-9.]*[1-9].*"kept":([0-9]|null)'
equal "a row for each piece and loss over dpdk" "$(figures "$rows,\"medium\":\"dpdk\",.*$figure")" 4
equal "... beside bare frames" "$(figures '"what":"rate","medium":"dpdk",.*"MB_s":[0-9.]*[1-9].*"of_bare":[0-9.]*[1-9]')" 2
equal "... and over tcp, which may give up" "$(figures "$rows,\"medium\":\"tcp\",.*($figure|\"p50\":null)")" 4
equal "... and what the wire carries by itself" "$(figures '^\{"bench":"link-loss","what":"bare","medium":"bare-(dpdk|udp|tcp)",.*"p50":[0-9.]*[1-9]')" 6
"$benches/forger_bench.sh" "$folder" --rounds 1 --seconds 1 --against "none flip" --json rate clients cost >"$log" 2>"$work/errors" || fail "forger_bench.sh: $(tail -n 3 "$work/errors")"
row='"driver":"af_packet","n":1,"frames_s":'
equal "a row for each piece, with a forger and without one" \
    "$(figures "^\\{\"bench\":\"forger-bench\",\"what\":\"(rate|clients)\",\"against\":\"(none\",${row}0|flip\",$row[0-9.]*[1-9]).*\"p50\":[0-9.]*[1-9].*\"kept\":[0-9]")" 4
equal "and what a dropped frame costs" "$(figures "^\\{\"bench\":\"forger-bench\",\"what\":\"cost\",\"against\":\"flip\",$row[0-9.]*[1-9].*\"p50\":[0-9.]*[1-9]")" 1
finish
