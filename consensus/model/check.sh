#!/usr/bin/env bash
# Searches the Spin models of the agreement protocol, and of sleep over RDMA, and shows that each deliberate defect is found.
#
#   consensus/model/check.sh quick    small bounds, exhaustive, and the defects: a minute of one CPU
#   consensus/model/check.sh bounds   two entries and a change of voters in one search: three minutes of one CPU, 3 GB
#   consensus/model/check.sh full     the bounds of doc/agreement.md, exhaustive: README.md says how long each takes
#   consensus/model/check.sh night    larger bounds, by bitstate: not exhaustive, hours; RF_MODEL_MINUTES for each (60)
#
# With words behind that, only the searches whose model and description have them: `full "claim of votes"`, `quick "defect NO_DRIFT"`.
#
# Exit status: 0 all as it should be, 1 a model is wrong or a defect was not found, 2 wrong usage, 77 spin or a C compiler is missing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mode=${1:-quick}
words=${2:-}
# Of a quick run most is compiling, and clang is twice as fast at that where nothing is optimised.
cc=${CC:-$(command -v clang || echo cc)}
for tool in spin "$cc"; do
    command -v "$tool" >/dev/null || {
        echo "check.sh: skipped: $tool is not installed (packaging/setup.sh check installs it)"
        exit 77
    }
done
scratch=$(mktemp -d)
searcher=
trap 'status=$?; [[ -z $searcher ]] || kill "$searcher" 2>/dev/null || true; rm -rf "$scratch"; exit "$status"' EXIT
trap 'exit 130' INT TERM HUP
failed=0
memory_mb_max=4000
level=0 # of optimization

# build MODEL SPIN_OPTIONS COMPILER_OPTIONS: leaves ./pan in the scratch folder
build() {
    cd "$scratch"
    rm -f pan pan.* ./*.trail
    # shellcheck disable=SC2086 # options are lists
    spin $2 -a "$here/$1.pml" >spin.log 2>&1 || { cat spin.log; return 1; }
    # shellcheck disable=SC2086
    "$cc" "-O$level" -w -DSAFETY -DNOCLAIM -DMEMLIM=$memory_mb_max $3 -o pan pan.c
}

# search PAN_OPTION...: runs ./pan, so that it ends when this script is ended.
search() {
    TIMEFORMAT=%U
    { time { ./pan -E -m1000000 "$@" >pan.log 2>&1 & searcher=$!; wait "$searcher" || true; searcher=; }; } 2>time.log
}

field() {
    sed -nE "s/$1/\1/p" pan.log | head -n 1
}

report() {
    printf '%-8s %-62s %11s states  depth %3s  %6s MB  %6s s  %s\n' "$1" "$2" "$(field '^ *([0-9.e+]+) states, stored.*')" \
        "$(field '.*depth reached ([0-9]+),.*')" "$(field '^ *([0-9]+)\.[0-9]+.total actual memory usage.*')" "$(cat time.log)" "$3"
}

n_wanted=0
wanted() {
    [[ $1 == *"$words"* ]] || return 1
    n_wanted=$((n_wanted + 1))
}

# holds MODEL WHAT SPIN_OPTIONS PAN_OPTION...: no violation, and the search was complete
holds() {
    local model=$1 what=$2 options=$3
    shift 3
    wanted "$model $what" || return 0
    build "$model" "-DREDUCE $options" "" || { failed=1; return; }
    search "$@"
    if grep -q 'errors: 0' pan.log && ! grep -qE 'out of memory|max search depth|not completed|aborting' pan.log; then
        report "$model" "$what" holds
    else
        report "$model" "$what" "VIOLATED or not complete"
        grep -E '^pan' pan.log || true
        failed=1
    fi
}

# finds MODEL DEFECT SPIN_OPTIONS: with the defect there is a violation
finds() {
    wanted "$1 defect $2" || return 0
    build "$1" "-DREDUCE -D$2 $3" "" || { failed=1; return; }
    search -w22
    if grep -q 'assertion violated' pan.log; then
        report "$1" "defect $2${3:+ ($3)}" found
    else
        report "$1" "defect $2${3:+ ($3)}" "NOT FOUND"
        failed=1
    fi
}

defects() {
    level=0
    finds log NEW_INCARNATION_VOTES "-DENTRIES=1 -DCHANGES=0 -DCRASHES=1 -DRESTARTS=1"
    finds log FIRST_INCARNATION_TWICE "-DENTRIES=1 -DCHANGES=0 -DCRASHES=1 -DRESTARTS=1"
    finds log RESET_ON_PARTITION "-DENTRIES=1 -DCHANGES=0 -DCRASHES=0 -DRESTARTS=1"
    finds log CHANGE_BEFORE_TERM "-DENTRIES=1"
    finds log OLD_TERM_COMMIT "-DTERMS=4 -DENTRIES=1 -DCHANGES=0"
    finds log SINGLE_MAJORITY "-DENTRIES=1"
    finds log SEAL_NOT_NOTED "-DTERMS=4 -DENTRIES=1 -DCHANGES=0 -DSEALS=1"
    finds log SNAPSHOT_DROPS_MORE "-DENTRIES=1 -DCHANGES=0 -DSNAPSHOTS=1"
    finds log SNAPSHOT_KEEPS_CANDIDATE "-DENTRIES=0 -DSNAPSHOTS=1"
    finds log AHEAD_NOT_NOTED "-DENTRIES=0 -DCHANGES=0 -DCLAIMS=1"
    finds lease ELECT_IN_LEASE ""
    finds lease NO_DRIFT ""
    finds lease SETS_OF_THEN ""
    finds lease SINCE_ARRIVAL ""
    finds lane VOTE_BEFORE_FENCE "-DTERMS=2"
    finds lane TAIL_EARLY "-DTERMS=2"
    finds lane TORN_RECORD "-DTERMS=2"
    finds lane OLD_COMPLETION ""
    finds lane HANDED_COMMITS "-DTERMS=2"
    for defect in NO_LAST_LOOK ARMED_LATE NOT_RUNG ARMED_ONCE RUNG_UNSEEN WORD_EARLY SLEEP_KEPT; do finds sleep "$defect" ""; done
    finds group REPLY_BEFORE_STABLE "-DDEPARTURES=1"
    finds group REPORT_BEFORE_WEDGE "-DDEPARTURES=1"
    finds group ONE_PHASE_UNNUMBERED "-DDEPARTURES=1"
    finds group DECIDE_BEFORE_FENCE "-DDEPARTURES=1"
    finds group VISIBLE_BEFORE_STABLE "-DDEPARTURES=1"
    finds group COMMIT_BEFORE_PREPARED "-DDEPARTURES=1"
    finds group JOIN_AMID_OPERATIONS "-DDEPARTURES=1"
}

# What the searches take as one step hides none of them.
defects_apart() {
    local defect
    for defect in REPLY_BEFORE_STABLE ONE_PHASE_UNNUMBERED DECIDE_BEFORE_FENCE VISIBLE_BEFORE_STABLE COMMIT_BEFORE_PREPARED JOIN_AMID_OPERATIONS; do
        finds group "$defect" "-DDEPARTURES=1 -DAPART"
    done
}

# bitstate MODEL WHAT SPIN_OPTIONS
bitstate() {
    wanted "$1 $2" || return 0
    build "$1" "-DREDUCE $3" "-DBITSTATE" || { failed=1; return; }
    timeout -s INT "${RF_MODEL_MINUTES:-60}m" ./pan -E -m100000 -w34 -k3 >pan.log 2>&1 || true
    echo "-" >time.log
    if grep -q 'errors: 0' pan.log; then
        report "$1" "$2 (bitstate)" "no violation met"
    else
        report "$1" "$2 (bitstate)" VIOLATED
        failed=1
    fi
}

case $mode in
quick)
    holds log "3 terms, 2 entries, 2 crashes" "-DCHANGES=0 -DCRASHES=2" -w22
    holds log "3 terms, 1 change of voters" "-DENTRIES=0" -w22
    holds log "3 terms, 2 entries, 2 sealed logs" "-DCHANGES=0 -DSEALS=2" -w22
    holds log "4 terms, 1 entry, 1 sealed log" "-DTERMS=4 -DENTRIES=1 -DCHANGES=0 -DSEALS=1" -w22
    holds log "3 terms, 2 entries, snapshots" "-DCHANGES=0 -DSNAPSHOTS=1" -w22
    holds log "3 terms, 2 entries, 1 claim of votes" "-DCHANGES=0 -DCLAIMS=1" -w22
    level=1 # small models with many states
    holds lease "a change of voters under a lease" "" -w22
    holds lane "3 terms, 2 entries" "" -w22
    holds sleep "6 slots, 2 broken paths, a death" "-DSLOTS=6 -DBREAKS=2" -w22
    level=0
    holds group "2 operations of either kind, 2 departures, a join" "" -w22
    defects
    ;;
bounds)
    level=1
    holds log "3 terms, 2 entries, 1 change of voters" "" -w25
    ;;
full)
    # To compile a model of the log takes 46 s with -O2, 2 s with -O0; to search a million of its states 5 s, and 12 s.
    holds log "3 terms, 2 entries, 2 crashes" "-DCHANGES=0 -DCRASHES=2" -w22
    holds log "3 terms, 1 change of voters, 1 sealed log" "-DENTRIES=0 -DSEALS=1" -w22
    holds log "3 terms, 2 entries, 2 sealed logs" "-DCHANGES=0 -DSEALS=2" -w22
    holds log "4 terms, 1 entry, 1 sealed log" "-DTERMS=4 -DENTRIES=1 -DCHANGES=0 -DSEALS=1" -w22
    holds log "3 terms, 1 change of voters, snapshots" "-DENTRIES=0 -DSNAPSHOTS=1" -w22
    holds log "3 terms, 2 entries, 1 claim of votes" "-DCHANGES=0 -DCLAIMS=1" -w22
    holds log "3 terms, 1 entry, 2 claims of votes" "-DENTRIES=1 -DCHANGES=0 -DCLAIMS=2" -w22
    holds log "4 terms, 1 entry, 1 claim of votes" "-DTERMS=4 -DENTRIES=1 -DCHANGES=0 -DCLAIMS=1" -w24
    holds log "4 terms, 1 claim of votes, snapshots" "-DTERMS=4 -DENTRIES=0 -DCHANGES=0 -DCLAIMS=1 -DSNAPSHOTS=1" -w24
    holds log "3 terms, 1 change of voters, 2 crashes" "-DENTRIES=0 -DCRASHES=2" -w24
    holds log "3 terms, 1 entry, 1 change of voters" "-DENTRIES=1" -w24
    holds group "2 operations of either kind, 2 departures, a join" "" -w22
    holds group "2 operations of either kind, 3 departures, a join" "-DDEPARTURES=3" -w22
    holds group "1 operation, 2 departures, a join, steps apart" "-DOPERATIONS=1 -DAPART" -w22
    level=2 # from here on it pays
    holds lease "a change of voters under a lease" "" -w22
    holds lane "4 terms, 2 entries" "-DTERMS=4" -w24
    holds sleep "8 slots, 4 broken paths, a death" "-DSLOTS=8 -DBREAKS=4" -w22
    holds lane "3 terms, 3 entries" "-DENTRIES=3" -w24
    holds log "3 terms, 1 change of voters, 1 claim of votes" "-DENTRIES=0 -DCLAIMS=1" -w24
    holds log "3 terms, 2 entries, 1 change of voters" "" -w25
    defects
    defects_apart
    ;;
night)
    level=2
    memory_mb_max=8000
    bitstate log "4 terms, 3 entries, 2 changes of voters, 1 restart" "-DTERMS=4 -DENTRIES=3 -DCHANGES=2 -DCRASHES=2 -DRESTARTS=1"
    bitstate log "3 terms, 2 entries, 1 change of voters, 2 sealed logs" "-DSEALS=2"
    bitstate log "3 terms, 2 entries, 2 changes of voters" "-DCHANGES=2"
    bitstate group "2 operations of either kind, 2 departures, a join, steps apart" "-DAPART"
    ;;
*)
    sed -n '4,9s/^# \{0,1\}//p' "$0"
    exit 2
    ;;
esac
[[ -z $words || $n_wanted -gt 0 ]] || { echo "check.sh: nothing in $mode has the words '$words'" >&2 && exit 2; }
exit "$failed"
