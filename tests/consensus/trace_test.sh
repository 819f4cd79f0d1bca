#!/bin/bash
# trace_test.sh BUILD log|group N      the model accepts what the engines of the tests' networks did in N seeded runs, and refuses the same traces with
#                                      a lie in them
# trace_test.sh BUILD log|group N sim  ... what those of `rackfish sim` did, under its default faults; and refuses what engines with a deliberate defect did
set -eu
here=$(cd "$(dirname "$0")" && pwd)
build=$1 model=$2 traces=$3 source=${4:-net}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch"

accept() {
    "$here/../../consensus/model/trace.sh" "$model"
}

# simulate SEED FILE OPTION...: what the simulator says of it is not asked for
simulate() {
    seed=$1 file=$2
    shift 2
    [ "$model" = log ] || set -- --groups "$@"
    "$build/bin/rf-sim" --seed "$seed" --ops 30 --steps "$file" "$@" >said 2>&1 || [ $? -ne 1 ] || { cat said; exit 1; }
}

for seed in $(seq 1 "$traces"); do
    case $source-$model in
    sim-*) simulate "$seed" "$seed" ;;
    net-log) "$build/tests/test_consensus_trace" "$seed" >"$seed" ;;
    net-group) "$build/tests/test_group_trace" "$seed" >"$seed" ;;
    esac
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

# seen AT_LEAST WHAT PATTERN [TIMES]: so many traces have it in TIMES (1) lines
seen() {
    n=0
    for seed in $(seq 1 "$traces"); do awk "$3 { n++ } END { exit n < ${4:-1} }" "$seed" && n=$((n + 1)); done
    [ "$n" -ge "$1" ] || { echo "only $n traces hold $2"; exit 1; }
    echo "$2: in $n traces"
}

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

# defect NAME: of the first seeds of engines with it, the model refuses one
defect() {
    for seed in $(seq 1 "$traces"); do
        simulate "$seed" spoilt --defect "$1"
        if ! accept <spoilt >/dev/null; then
            echo "$1: refused in seed $seed"
            return
        fi
    done
    echo "the model accepts all that engines with the defect $1 did"
    exit 1
}

case $source-$model in
net-log)
seen $((traces / 5)) "a snapshot" '$1 == "load"'
seen $((traces / 8)) "a vote of one whose log is empty" '$1 == "holds" || $1 == "load" { holds[$2] = 1 }
    $1 == "vote" && $2 > 0 && $2 < 3 && !holds[$2]'
seen $((traces / 8)) "two crashes" '$1 == "crash"' 2
seen $((traces / 8)) "a vote that was claimed" '$1 == "ahead"'
refused "an entry is of another term" '!done && $1 == "sent" && $4 > 1 { $4--; done = 1 } { print }'
refused "a vote is given twice" '{ print }
    ($1 == "vote" || $1 == "ahead") && !done { print "stand", $2, $4; done = 1 }'
refused "a commit without a majority" '{ print } !done && $1 == "entry" { print "commit", $2, $3; done = 1 }'
refused "acknowledgements that nobody gave" '$1 == "holds" && $3 > 1 { next } { print }'
refused "a vote that nobody claimed" '{ line[NR] = $0; ahead += $1 == "ahead" }
    END { for (i = 1; i <= NR; i++) if (!ahead || line[i] !~ /^claim/) print line[i] }'
refused "a leader without votes" '$1 == "vote" || $1 == "ahead" { next } { print }'
refused "the crashed go on" '$1 == "crash" && !who { who = $2 + 1 } { print; if (who && ++n == 4) { print "holds", who - 1, 1, 1; exit } }'
refused "a new incarnation of nobody" '$1 == "crash" { crashed[$2] = 1 }
    $1 == "join" { for (i = 0; i < 4; i++) if (!crashed[i]) $3 = i } { print }'
refused "a change of other voters" '$1 == "final" && !done { $4 = $4 == 7 ? 11 : 7; done = 1 } { print }'
refused "a change that is not joint" '$1 == "joint" && !done { $1 = "final"; done = 1 } { print }'
refused "a change that has not ended" '{ print } $1 == "joint" && !done { $1 = "final"; $3++; print; done = 1 }'
refused "a snapshot of what is not committed" '{ print } $1 == "load" && !done { $3 += 100; print; done = 1 }'
refused "an acknowledged entry is lost" '$1 == "entry" && !done { done = 1; next } { print }'
    ;;
net-group)
seen $((traces / 5)) "two departures" '$1 == "depart"' 2
seen $((traces / 5)) "a decision" '$1 == "decide"'
seen $((traces / 20)) "two decisions" '$1 == "decide"' 2
seen $((traces / 10)) "an outsider taken in" '$1 == "install" && $2 == 3'
seen $((traces / 10)) "an operation refused" '$1 == "stage" && $4 == 3'
seen $((traces / 20)) "an operation answered after a decision" '$1 == "decide" { on = 1 } $1 == "answered" && on'
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
    ;;
sim-log)
    seen $((traces / 2)) "a crash" '$1 == "crash"'
    seen $((traces / 5)) "an elected leader" '$1 == "lead"'
    seen $((traces / 2)) "a change of voters" '$1 == "joint"'
    seen $((traces / 10)) "a new incarnation" '$1 == "join"'
    defect single-majority
    defect change-before-term
    ;;
sim-group)
    seen $((traces / 2)) "a decision" '$1 == "decide"'
    seen $((traces / 20)) "two decisions" '$1 == "decide"' 2
    seen $((traces / 2)) "an outsider taken in" '$1 == "install" && $2 == 3'
    seen $((traces / 10)) "an operation refused" '$1 == "stage" && $4 == 3'
    defect reply-before-stable
    defect report-before-wedge
    ;;
esac
