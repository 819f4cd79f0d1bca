#!/usr/bin/env bash
# Does the model of the log accept a trace of engines? Reads it from stdin, as tests/consensus/consensus_trace.c writes it:
# lines of a step and numbers (log.pml, TRACE). Exit status: 0 accepted, 1 refused, 77 spin is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
command -v spin >/dev/null || { echo "trace.sh: skipped: spin is not installed"; exit 77; }
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"
cp "$here/log.pml" .
awk '
    BEGIN { split("stand claim vote lead entry sent holds commit knows crash join joint final load", names, " "); for (i in names) known[names[i]] = toupper(names[i])
            known["joint"] = "VOTERS_JOINT"; known["final"] = "VOTERS_FINAL"; known["ahead"] = "AHEAD_VOTE"
            print "active proctype script() {" }
    /^#/ || NF == 0 { next }
    !($1 in known) { print "not a step: " $0 >"/dev/stderr"; exit 2 }
    { printf "    steps!%s,%d,%d,%d;\n", known[$1], $2, $3, $4 }
    ($1 == "stand" || $1 == "claim") && $3 > terms { terms = $3 }
    $1 == "claim" { claims++ }
    $1 == "entry" || $1 == "final" { entries++ }
    $1 == "joint" { changes++ }
    $1 == "crash" { crashes++ }
    END { print "    steps!END,0,0,0\n}"
          print "-DTERMS=" (terms < 2 ? 2 : terms) " -DENTRIES=" entries + 1 " -DCHANGES=" changes + 0 \
                " -DCRASHES=" crashes + 0 " -DRESTARTS=1 -DCLAIMS=" claims + 0 >"bounds" }' >trace.pml
# shellcheck disable=SC2046 # a list
spin -DTRACE $(cat bounds) -T log.pml >log 2>&1 || true
if grep -qx ' *accepted' log && ! grep -qi 'assertion violated\|error' log; then
    exit 0
fi
grep -i 'error\|violated\|trace.pml' log | head -n 5 || true
exit 1
