#!/usr/bin/env bash
# The benches between guests run and say what they should; no figure is judged.
#
#   bench_test.sh BUILD-FOLDER
set -u
# No figure is judged, and what gives these guests' kernels priority on their CPUs takes it from every test that runs beside this one.
export GUESTS_FAIR=1
benches=$(cd "$(dirname "$0")" && pwd)
folder=$1
source "$benches/lib.sh" "$folder"
[[ -e $build/modules/rackfish-rdma.so ]] || skip "built without rdma-core; apt-get install libibverbs-dev librdmacm-dev"

log=$work/log
figures() { grep -Ec "$1" "$log"; }

"$benches/link_bench.sh" "$folder" --device rxe --rounds 1 --json write-one-way send-sleeping read bulk-64K >"$log" 2>"$work/errors" ||
    fail "link_bench.sh: $(tail -n 3 "$work/errors")"
equal "one object a piece, with both figures" "$(figures '^\{"bench":"link-bench","device":"rxe",.*"raw":[1-9].*"rackfish":[1-9].*"ratio":')" 4
"$benches/link_bench.sh" "$folder" --device siw --rounds 1 --json write-one-way read rate bulk-64K bulk-64K-deep bulk-64K-placed >"$log" 2>"$work/errors" ||
    fail "link_bench.sh on siw: $(tail -n 3 "$work/errors")"
equal "the same on siw" "$(figures '"device":"siw","what":"[a-zA-Z0-9-]*",.*"rackfish":[0-9.]*[1-9]')" 6
equal "... with the depth of bulk" "$(figures '"what":"(bulk-64K(-placed)?","depth":4|bulk-64K-deep","depth":64|read","depth":null),')" 4
"$benches/ordered_bench.sh" "$folder" --rounds 1 --samples 100 --json >"$log" 2>"$work/errors" ||
    fail "ordered_bench.sh: $(tail -n 3 "$work/errors")"
equal "commits one-sided and by messages, each with both figures" \
    "$(figures '^\{"bench":"ordered-bench","device":"rxe","what":"(one-sided|message)",.*"raw":[0-9.]*[1-9].*"rackfish":[0-9.]*[1-9].*"ratio":')" 2
"$benches/incast_bench.sh" "$folder" --hosts 3 --json >"$log" 2>"$work/errors" || fail "incast_bench.sh: $(tail -n 3 "$work/errors")"
equal "incast has its figures" "$(figures '"senders":2,"rounds":1,"pinned":[01],"priority":0,"raw_MB_s":[1-9].*"bulk_MB_s":[1-9].*"rate_M_s":[0-9.]*[1-9]')" 1
finish
