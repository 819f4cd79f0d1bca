#!/usr/bin/env bash
# Does a model accept a trace of engines? Reads it from stdin: lines of a step and numbers (TRACE in the model).
#
#   trace.sh [log]     of the log, as sim/steps.h has it written
#   trace.sh group     of group operations
#
# Exit status: 0 accepted, 1 refused, 77 spin is missing.
set -euo pipefail
model=${1:-log}
here=$(cd "$(dirname "$0")" && pwd)
command -v spin >/dev/null || { echo "trace.sh: skipped: spin is not installed"; exit 77; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
cp "$here/$model.pml" .
case $model in
log) names="stand claim vote lead entry sent holds commit knows crash join joint=VOTERS_JOINT final=VOTERS_FINAL load ahead=AHEAD_VOTE" ;;
group) names="number told stage depart fence learn decide install takein=TAKE_IN dropped answered" ;;
esac
awk -v names="$names" -v model="$model" '
    BEGIN { n = split(names, list, " ")
            for (i = 1; i <= n; i++) { split(list[i], pair, "="); known[pair[1]] = pair[2] ? pair[2] : toupper(pair[1]) }
            print "active proctype script() {" }
    /^#/ || NF == 0 { next }
    !($1 in known) { print "not a step: " $0 >"/dev/stderr"; exit 2 }
    { printf "    steps!%s,%d,%d,%d;\n", known[$1], $2, $3, $4 }
    ($1 == "stand" || $1 == "claim") && $3 > terms { terms = $3 }
    $1 == "claim" { claims++ }
    $1 == "entry" || $1 == "final" { entries++ }
    $1 == "joint" { changes++ }
    $1 == "crash" { crashes++ }
    $1 == "number" && $3 > numbers { numbers = $3 }
    $1 == "depart" { departures++ }
    END { print "    steps!END,0,0,0\n}"
          if (model == "group")
              print "-DOPERATIONS=" (numbers < 2 ? 2 : numbers) " -DDEPARTURES=" departures + 1 >"bounds"
          else
              print "-DTERMS=" (terms < 2 ? 2 : terms) " -DENTRIES=" entries + 1 " -DCHANGES=" changes + 0 \
                    " -DCRASHES=" crashes + 0 " -DRESTARTS=1 -DCLAIMS=" claims + 0 >"bounds" }' >trace.pml
# shellcheck disable=SC2046 # a list
spin -DTRACE $(cat bounds) -T "$model.pml" >log 2>&1 || true
if grep -qx ' *accepted' log && ! grep -qi 'assertion violated\|error' log; then
    exit 0
fi
grep -i 'error\|violated\|trace.pml' log | head -n 5 || true
exit 1
