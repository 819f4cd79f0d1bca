# Where the kernels of the lab's guests are kept: ~/.cache/rackfish/lab (XDG_CACHE_HOME counts). For root it is in root's own
# ~/.cache where a folder on that path is another user's (sudo that keeps HOME), and a kernel is taken only if it is ours or root's: it
# runs with the rights of whoever starts a lab. Sourced by the scripts that make one.
# shellcheck shell=bash

# Is this folder, as far as it is there, and are all above it root's?
all_of_root() {
    local at
    at=$(realpath -m "$1")
    while [[ $at != / ]]; do
        [[ ! -e $at || $(stat -c %u "$at") == 0 ]] || return 1
        at=$(dirname "$at")
    done
}

cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/rackfish/lab
((EUID != 0)) || all_of_root "$cache" || cache=~root/.cache/rackfish/lab

say() { printf 'kernel: %s\n' "$*" >&2; }

cannot() {
    say "$*"
    exit 77
}

# lacks_packages: reads lines "package|a test that succeeds when it is there" and prints the packages that are not.
lacks_packages() {
    local package probe
    while IFS='|' read -r package probe; do
        bash -c "$probe" >/dev/null 2>&1 </dev/null || printf '%s\n' "$package"
    done
}

# alone COMMAND...: runs it while no other script makes a kernel here, after waiting for that one.
alone() {
    mkdir -p "$cache"
    exec 8>"$cache/lock"
    if ! flock -n 8; then
        say "another one is being made; waiting for that"
        flock 8
    fi
    "$@"
}
