# Sourced by ./run and ./check: steps with their time, builds, and making sure that nothing stays behind.
# shellcheck shell=bash

rf_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
rf_jobs=$(nproc)
rf_build_root=$rf_root/build
rf_log_dir=$rf_build_root/logs

# A machine started by root runs its system processes as the user rackfish, who must be able to reach the programs. A clone
# below a closed folder, such as /root, is therefore built in /var/cache, behind a link.
rf_open_build_folder() {
    local cache
    if [[ $(id -u) == 0 ]] && ! setpriv --reuid rackfish --regid rackfish --clear-groups test -x "$rf_root"; then
        cache=/var/cache/rackfish-build/$(cksum <<<"$rf_root" | cut -d' ' -f1)
        if [[ -d $rf_root/build && ! -L $rf_root/build ]]; then
            printf '%s\n' "$rf_root/build cannot be reached by the user rackfish; remove it and start again" >&2
            return 2
        fi
        mkdir -p "$cache"
        chmod 755 /var/cache/rackfish-build "$cache"
        ln -sfn "$cache" "$rf_root/build"
    fi
    mkdir -p "$rf_root/build/logs"
    rf_build_root=$(realpath "$rf_root/build")
    rf_log_dir=$rf_build_root/logs
}

rf_say() { printf '%s\n' "$*"; }

# Runs a command in a process group of its own, so that a signal to this script can end it and all its children. It has no part in
# the lock of ./check (9).
rf_group=
rf_in_group() {
    local status=0
    set -m
    "$@" </dev/null 9>&- &
    rf_group=$!
    set +m
    wait "$rf_group" || status=$?
    rf_group=
    return "$status"
}

# TERM to that group, ten seconds to bring machines down, KILL.
rf_group_end() {
    [[ -n $rf_group ]] || return 0
    kill -TERM -- "-$rf_group" 2>/dev/null || true
    for _ in {1..50}; do
        kill -0 -- "-$rf_group" 2>/dev/null || break
        sleep 0.2
    done
    kill -KILL -- "-$rf_group" 2>/dev/null || true
    rf_group=
}

# Configures and builds a preset: a moving line on a terminal, one line elsewhere, the whole log when it fails.
# rf_build PRESET [TARGET...]
rf_build() {
    local preset=$1 log=$rf_log_dir/build-$1.log started=$SECONDS
    shift
    local -a targets=()
    [[ $# == 0 ]] || targets=(--target "$@")
    if ! rf_in_group cmake -S "$rf_root" --preset "$preset" -B "$rf_build_root/$preset" >"$log" 2>&1; then
        cat "$log" >&2
        rf_say "build $preset: configuring failed" >&2
        return 1
    fi
    local -a build=(cmake --build "$rf_build_root/$preset" -j "$rf_jobs" "${targets[@]}")
    local status=0
    if [[ -t 1 ]]; then
        NINJA_STATUS="build $preset [%f/%t] " rf_in_group "${build[@]}" || status=$?
    else
        rf_in_group "${build[@]}" >>"$log" 2>&1 || status=$?
        [[ $status == 0 ]] || tail -n 60 "$log" >&2
    fi
    if [[ $status != 0 ]]; then
        rf_say "build $preset: failed" >&2
        return 1
    fi
    rf_say "build $preset: done in $((SECONDS - started)) s"
}

# Prints the pids of live programs that were built below build/PRESET.
rf_processes_of() {
    local preset exe link
    for link in /proc/[0-9]*/exe; do
        exe=$(readlink "$link" 2>/dev/null) || continue
        for preset in "$@"; do
            case $exe in
            "$rf_build_root/$preset/"*)
                link=${link#/proc/}
                printf '%s\n' "${link%/exe}"
                ;;
            esac
        done
    done
}

# A machine that somebody started from a build folder before us is not ours to end.
declare -A rf_not_ours=()
rf_remember_processes() {
    local pid
    for pid in $(rf_processes_of "$@"); do
        rf_not_ours[$pid]=1
    done
}

rf_processes_left() {
    local pid
    for pid in $(rf_processes_of "$@"); do
        [[ -n ${rf_not_ours[$pid]:-} ]] || printf '%s\n' "$pid"
    done
}

# Ends what is left: TERM, two seconds, KILL. Prints what it had to end.
rf_sweep() {
    local -a pids
    local pid round
    mapfile -t pids < <(rf_processes_left "$@")
    [[ ${#pids[@]} == 0 ]] && return 0
    for pid in "${pids[@]}"; do
        printf '    %s %s\n' "$pid" "$(tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | cut -c1-100)"
        kill -TERM "$pid" 2>/dev/null || true
    done
    for round in 1 2 3 4 5 6 7 8 9 10; do
        mapfile -t pids < <(rf_processes_left "$@")
        [[ ${#pids[@]} == 0 ]] && return 0
        [[ $round != 10 ]] && sleep 0.2
    done
    for pid in "${pids[@]}"; do
        kill -KILL "$pid" 2>/dev/null || true
    done
    return 0
}
