#!/usr/bin/env bash
# Machines by each dissemination plan that is not the usual one: all cores come up, learn what is agreed, and learn it after the leader and a
# core that may have passed it on have died; a plan that there is not is refused.
set -u
source "$(dirname "$0")/lib.sh" "$1"

status_of() { rackfish --via "$1" --json status 2>/dev/null | json "$2"; }
# shellcheck disable=SC2317 # called by within
whole() { [[ $(status_of node0 cores_up) == 12 && $(status_of node1 cores_up) == 12 ]]; }
# shellcheck disable=SC2317
holds() { # both hosts, what they know themselves
    [[ $(rackfish --via node0 registry get --local "$1" 2>/dev/null) == "$2" &&
        $(rackfish --via node1 registry get --local "$1" 2>/dev/null) == "$2" ]]
}
# shellcheck disable=SC2317
put() { timeout 30 rackfish --via "$1" registry put "$2" "$3" >/dev/null 2>&1; }

expect "a plan that there is not is refused" 1 rackfish up --nodes 2 --cores 2 --plan square
for plan in package weighted unicast broadcast; do
    machine_up "$plan" --nodes 2 --cores 6 --plan "$plan"
    within "$plan: 12 cores are up" 60 whole
    equal "... status says by which plan" "$(status_of node1 plan)" "$plan"
    check "... a value is put" rackfish --via node1 registry put "first" "$plan"
    within "... both hosts hold it" 20 holds first "$plan"
    kill -KILL "$(pid_of monitor "$(status_of node1 leader)")"
    within "... the leader has died, another value is put" 30 put node1 second "$plan"
    within "... both hosts hold it, too" 20 holds second "$plan"
    within "... and all cores are up again" 60 whole
    remember_processes
    machine_down
done
finish
