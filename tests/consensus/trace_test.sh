#!/bin/bash
# The model of the log accepts what the engines did in seeded runs, and refuses the same traces with a lie in them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
emit=$1/tests/test_consensus_trace
accept=$here/../../consensus/model/trace.sh
traces=${2:-40}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

for seed in $(seq 1 "${2:-40}"); do
    "$emit" "$seed" >"$seed"
    status=0
    "$accept" <"$seed" >why || status=$?
    if [ "$status" -ne 0 ]; then
        [ "$status" -ne 77 ] || { cat why; exit 77; }
        echo "seed $seed: the model refuses what the engines did"
        cat why
        exit 1
    fi
done

# refused WHAT AWK: lies in every trace that gives the occasion
refused() {
    n=0
    for seed in $(seq 1 "${3:-40}"); do
        awk "$2" "$seed" >lie
        cmp -s "$seed" lie && continue
        n=$((n + 1))
        if "$accept" <lie >/dev/null; then
            echo "seed $seed: the model accepts a trace with a lie in it: $1"
            exit 1
        fi
    done
    [ "$n" -gt 0 ] || { echo "no trace gives the occasion for: $1"; exit 1; }
    echo "$1: refused in $n traces"
}
echo "accepted: ${2:-40} traces"

# seen AT_LEAST WHAT AWK: so many traces hold it
seen() {
    n=0
    for seed in $(seq 1 "$traces"); do awk "$3" "$seed" && n=$((n + 1)); done
    [ "$n" -ge "$1" ] || { echo "only $n traces hold $2"; exit 1; }
    echo "$2: in $n traces"
}
seen $((traces / 5)) "a snapshot" '$1 == "load" { n++ } END { exit n == 0 }'
seen $((traces / 8)) "a vote of one whose log is empty" '$1 == "holds" || $1 == "load" { holds[$2] = 1 }
    $1 == "vote" && $2 > 0 && $2 < 3 && !holds[$2] { n++ } END { exit n == 0 }'
seen $((traces / 8)) "two crashes" '$1 == "crash" { n++ } END { exit n < 2 }'
seen $((traces / 8)) "a vote that was claimed" '$1 == "ahead" { n++ } END { exit n == 0 }'
refused "an entry is of another term" '!done && $1 == "sent" && $4 > 1 { $4--; done = 1 } { print }' "${2:-40}"
refused "a vote is given twice" '{ print }
    ($1 == "vote" || $1 == "ahead") && !done { print "stand", $2, $4; done = 1 }' "${2:-40}"
refused "a commit without a majority" '{ print } !done && $1 == "entry" { print "commit", $2, $3; done = 1 }' "${2:-40}"
refused "acknowledgements that nobody gave" '$1 == "holds" && $3 > 1 { next } { print }' "${2:-40}"
refused "a vote that nobody claimed" '{ line[NR] = $0; ahead += $1 == "ahead" }
    END { for (i = 1; i <= NR; i++) if (!ahead || line[i] !~ /^claim/) print line[i] }' "${2:-40}"
refused "a leader without votes" '$1 == "vote" || $1 == "ahead" { next } { print }' "${2:-40}"
refused "the crashed go on" '$1 == "crash" && !who { who = $2 + 1 } { print; if (who && ++n == 4) { print "holds", who - 1, 1, 1; exit } }' "${2:-40}"
refused "a new incarnation of nobody" '$1 == "crash" { crashed[$2] = 1 }
    $1 == "join" { for (i = 0; i < 4; i++) if (!crashed[i]) $3 = i } { print }' "${2:-40}"
refused "a change of other voters" '$1 == "final" && !done { $4 = $4 == 7 ? 11 : 7; done = 1 } { print }' "${2:-40}"
refused "a change that is not joint" '$1 == "joint" && !done { $1 = "final"; done = 1 } { print }' "${2:-40}"
refused "a change that has not ended" '{ print } $1 == "joint" && !done { $1 = "final"; $3++; print; done = 1 }' "${2:-40}"
refused "a snapshot of what is not committed" '{ print } $1 == "load" && !done { $3 += 100; print; done = 1 }' "${2:-40}"
refused "an acknowledged entry is lost" '$1 == "entry" && !done { done = 1; next } { print }' "${2:-40}"
