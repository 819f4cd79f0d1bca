#!/bin/bash
# group_trace_test.sh BUILD N: the model of group operations accepts what the engines did in N seeded runs, and refuses the same traces
# with a lie in them.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
emit=$1/tests/test_group_trace
traces=$2
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

accept() {
    "$here/../../consensus/model/trace.sh" group
}

for seed in $(seq 1 "$traces"); do
    "$emit" "$seed" >"$seed"
    status=0
    accept <"$seed" >why || status=$?
    if [ "$status" -ne 0 ]; then
        [ "$status" -ne 77 ] || { cat why; exit 77; }
        echo "seed $seed: the model refuses what the engines did"
        cat why
        exit 1
    fi
done
echo "accepted: $traces traces"

# seen AT_LEAST WHAT AWK: so many traces hold it
seen() {
    n=0
    for seed in $(seq 1 "$traces"); do awk "$3" "$seed" && n=$((n + 1)); done
    [ "$n" -ge "$1" ] || { echo "only $n traces hold $2"; exit 1; }
    echo "$2: in $n traces"
}
seen $((traces / 5)) "two departures" '$1 == "depart" { n++ } END { exit n != 2 }'
seen $((traces / 5)) "a decision" '$1 == "decide" { n++ } END { exit n == 0 }'
seen $((traces / 20)) "two decisions" '$1 == "decide" { n++ } END { exit n < 2 }'
seen $((traces / 10)) "an outsider taken in" '$1 == "install" && $2 == 3 { n++ } END { exit n == 0 }'
seen $((traces / 10)) "an operation refused" '$1 == "stage" && $4 == 3 { n++ } END { exit n == 0 }'
seen $((traces / 20)) "an operation answered after a decision" '$1 == "decide" { on = 1 } $1 == "answered" && on { n++ } END { exit n == 0 }'

# refused WHAT AWK: lies in the first 15 traces that give the occasion; `line` has all lines in END
refused() {
    n=0
    for seed in $(seq 1 "$traces"); do
        [ "$n" -lt 15 ] || break
        awk "$2" "$seed" >lie
        cmp -s "$seed" lie && continue
        n=$((n + 1))
        if accept <lie >/dev/null; then
            echo "seed $seed: the model accepts a trace with a lie in it: $1"
            exit 1
        fi
    done
    [ "$n" -gt 0 ] || { echo "no trace gives the occasion for: $1"; exit 1; }
    echo "$1: refused in $n traces"
}
# Deletes the last line with this stage of an operation before its owner says this of it; a decision would say it for all.
without='{ line[NR] = $0; split($0, word) }
    word[1] == "stage" && word[4] == stage { last[word[3]] = NR }
    /^decide/ { decided = 1 }
    word[1] == "told" && word[4] == told && !decided && last[word[3]] && !gone { gone = last[word[3]] }
    END { for (i = 1; i <= NR; i++) if (i != gone) print line[i] }'
refused "committed, and one has not prepared" "BEGIN { stage = 2; told = 2 } $without"
refused "stable, and one has not recorded it" "BEGIN { stage = 5; told = 3 } $without"
refused "aborted, and nobody has refused" '$1 == "told" && $4 == 2 && !done { $4 = 4; done = 1 } { print }'
refused "answered before it is done" '{ print } $1 == "number" && !done && !known[$3]++ { print "answered", $3; done = 1 }'
refused "answered before it is stable" '{ print } $1 == "told" && $4 == 2 && !done { print "answered", $3; done = 1 }'
refused "visible before it is stable" '{ print } $1 == "told" && $4 == 2 && !done { print "stage", $2, $3, 6; done = 1 }'
refused "a number left out" '$1 == "number" && !done { $3++; done = 1 } { print }'
refused "done before the one before it" '{ line[NR] = $0 } $1 != "stage" || $4 != 6 { next }
    $3 == 1 { first[$2] = NR }
    $3 == 2 && first[$2] && !gone { gone = first[$2] }
    END { for (i = 1; i <= NR; i++) if (i != gone) print line[i] }'
refused "a decision before the fence" '{ line[NR] = $0 } /^decide/ { decided = 1 }
    END { for (i = 1; i <= NR; i++) if (!decided || line[i] !~ /^fence/) print line[i] }'
refused "a decision before all have reported" '{ line[NR] = $0 }
    /^decide/ && !decided { decided = NR }
    /^install/ && decided && who == "" && $2 != 3 { who = $2 }
    END { for (i = 1; i <= NR; i++) if (who == "" || i > decided || line[i] != "learn " who) print line[i] }'
refused "an epoch that nobody has decided on" '{ line[NR] = $0 } /^decide/ && !d { d = NR } /^install/ && d && !found { found = d }
    END { for (i = 1; i <= NR; i++) if (i != found) print line[i] }'
refused "one taken in while an operation is under way" '/^takein|^depart/ { done = 1 } { print }
    $1 == "number" && !done { print "takein", $2; done = 1 }'
refused "the fenced go on" '{ print } $1 == "fence" && !done { print "learn", $2; done = 1 }'
