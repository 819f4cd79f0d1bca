# The main job of ./run, and the first session of README.md, on a machine of three guests of one core each. A test sources this file
# after lib.sh, with on() and $lab_name, and calls:
#
#   tour_job             # words are counted on all cores, and counted right; an unmodified program runs on every core
#   tour_session MEDIUM  # the commands of the first session, but `down`; links between the guests are over MEDIUM
#   tour_down            # the machine ends, and leaves nothing in any guest
# shellcheck shell=bash

tour_job() {
    local root words
    root=$(realpath "$(dirname "${BASH_SOURCE[0]}")/../..")
    words=$(find "$root/doc" "$root/monitor" "$root/consensus" -type f -print0 | LC_ALL=C wc -w --files0-from=- | awk 'END { print $1 }')
    mkdir "$work/tree"
    cp -r "$root/doc" "$root/monitor" "$root/consensus" "$work/tree/"
    chmod -R a+rX "$work"
    equal "wordcount over all three guests agrees with wc" \
        "$(on 1 run --core 0 -- wordcount "$work/tree" 2>/dev/null | awk '$1 == "words" { print $2 }')" "$words"
    # shellcheck disable=SC2016 # expanded on the cores
    equal "an unmodified program on every core" "$(on 1 run --all -l -- sh -c 'echo "$(uname -s) $(hostname)"' | sort | tr '\n' ' ')" \
        "core 0: Linux lab1 core 1: Linux lab2 core 2: Linux lab3 "
}

tour_cores_up() { [[ $(on 1 --json status | json cores_up) == "$1" ]]; }
tour_gone() { ! on 1 ps | grep -q sleep; }
tour_session() { # MEDIUM
    local domain
    matches "status" "$(on 2 status)" "cores +3 of 3 up"
    equal "cores" "$(on 3 --json cores | wc -l)" 3
    equal "links" "$(on 1 links | awk -v medium="$1" '$3 == medium && $4 == "up"' | wc -l)" 6
    matches "run, on a core of another host" "$(on 1 run --core 2 -- uname -n)" '^lab3$'
    equal "a pipe to a core of another host" "$(head -c 1000000 /dev/zero | fed_guest 1 rackfish run --core 1 -- wc -c)" 1000000
    domain=$(on 1 run -d --core 1 -- sleep 1000)
    matches "run -d, and ps" "$(on 2 ps)" " $domain +running .*sleep"
    check "kill" on 3 kill "$domain"
    within "and it is gone" 30 tour_gone
    matches "top" "$(on 1 top --once)" "core"
    check "core off" on 1 core off 2
    within "it has left" 30 tour_cores_up 2
    check "core on" on 1 core on 2
    within "it is back" 60 tour_cores_up 3
    check "registry put" on 1 registry put greeting hello
    equal "registry get, from another host" "$(on 3 registry get greeting)" hello
    check "registry lock" on 2 registry lock job -- true
    equal "doctor, while it runs" "$(on 1 doctor | grep -c ^FAIL)" 0
}

tour_nothing_left() { # GUEST
    in_guest "$1" pgrep 'rackfishd|rf-cpu|rf-mon|rf-init|rackfish-dpdk'
    [[ $? == 1 ]]
}
tour_down() {
    local guest
    show_logs
    check "down" on 2 down
    for guest in 1 2 3; do within "nothing of it is left in guest $guest" 30 tour_nothing_left $guest; done
}
