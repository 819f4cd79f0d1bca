#!/usr/bin/env bash
# The kernel of the lab's guests: User-Mode Linux from Debian's kernel source, with Soft-RoCE and soft-iWARP built in, one
# program of 7 MB. Built once, in about 7 minutes on two CPUs, and kept (cache.sh) under a name of the source's version and this
# configuration's hash. Two that want it at the same time build it once.
#
#   kernel.sh build    prints where it is; builds it first if there is none
#   kernel.sh find     prints where it is, or ends with status 1
#   kernel.sh needs    prints the packages that building it lacks here
#
# Exit status: 0 there it is; 1 no; 77 it cannot be built here, with the reason.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

# shellcheck source=lab/cache.sh
source "$here/cache.sh"

objects_about=1670 # lines that the build prints, for its progress
disk_mib=3000

missing() {
    lacks_packages <<'TABLE'
linux-source|ls /usr/src/linux-source-*.tar.xz
gcc|command -v gcc
libc6-dev|test -e /usr/include/stdio.h
make|command -v make
flex|command -v flex
bison|command -v bison
bc|command -v bc
xz-utils|command -v xz
libelf-dev|test -e /usr/include/libelf.h
libssl-dev|test -e /usr/include/openssl/ssl.h
iproute2|command -v rdma || test -x /usr/sbin/rdma || test -x /usr/bin/rdma
TABLE
}

source_archive() { find /usr/src -maxdepth 1 -name 'linux-source-*.tar.xz' 2>/dev/null | sort -V | tail -n 1; }

# The version of the package it came with, else its size and time.
source_version() {
    dpkg-query -S "$1" 2>/dev/null | cut -d: -f1 | xargs -r dpkg-query -W -f '${Version}' 2>/dev/null ||
        stat -c '%s-%Y' "$1"
}

config_hash() { sha256sum <"$here/kernel.config" | cut -c1-12; }

# The kernel that fits: of the source that is here; without source, any of this configuration.
find_kernel() {
    local archive=$1 version='*'
    [[ -z $archive ]] || version=$(source_version "$archive")
    find "$cache" -maxdepth 1 -type f -name "linux-$version-$(config_hash)" -perm -u+x \
        \( -uid "$EUID" -o -uid 0 \) 2>/dev/null | sort -V | tail -n 1 | grep .
}

# One line that moves on a terminal, else one a minute.
show_progress() {
    local log=$1 started=$SECONDS last=0 done percent
    while :; do
        sleep 2
        done=$(wc -l <"$log" 2>/dev/null) || return 0
        percent=$((done * 100 / objects_about))
        ((percent < 100)) || percent=99
        if [[ -t 2 ]]; then
            printf '\rkernel: %2d %% after %d:%02d ' "$percent" $(((SECONDS - started) / 60)) $(((SECONDS - started) % 60)) >&2
        elif ((SECONDS - last >= 60)); then
            last=$SECONDS
            say "$percent % after $((SECONDS - started)) s"
        fi
    done
}

build=
builder=
progress=
# shellcheck disable=SC2317 # reached through traps
clean_up() {
    trap - EXIT INT TERM HUP
    [[ -z $progress ]] || kill "$progress" 2>/dev/null || true
    if [[ -n $builder ]]; then
        kill -- "-$builder" 2>/dev/null || true
        wait "$builder" 2>/dev/null || true
    fi
    [[ -z $build ]] || rm -rf "$build"
}

compile() {
    tar -xf "$1" -C "$build" --strip-components=1
    cd "$build"
    local compiler=gcc
    ! command -v ccache >/dev/null || compiler="ccache gcc"
    make ARCH=um defconfig
    scripts/kconfig/merge_config.sh -m .config "$here/kernel.config"
    make ARCH=um olddefconfig
    grep -q '^CONFIG_RDMA_RXE=y' .config && grep -q '^CONFIG_RDMA_SIW=y' .config
    grep -q '^# CONFIG_VMAP_STACK is not set' .config && grep -q '^CONFIG_HZ_PERIODIC=y' .config
    nice make ARCH=um -j"$(nproc)" CC="$compiler" linux
    strip linux
}

build_kernel() {
    local archive=$1 kernel log lacks free status=0
    lacks=$(missing | tr '\n' ' ')
    [[ -z $lacks ]] || cannot "building the guests' kernel lacks packages; as root: apt-get install $lacks"
    [[ $(uname -m) == x86_64 ]] || cannot "User-Mode Linux runs on x86_64 only, and this is $(uname -m)"
    kernel=$cache/linux-$(source_version "$archive")-$(config_hash)
    free=$(df -Pm "$cache" | awk 'NR == 2 { print $4 }')
    ((free > disk_mib)) || cannot "building the guests' kernel takes $disk_mib MiB in $cache, where $free are free"
    build=$(mktemp -d "$cache/build.XXXXXX")
    log=$cache/build.log
    : >"$log"
    say "building the guests' kernel once, from $archive: about 7 minutes on two CPUs (log: $log)"
    show_progress "$log" &
    progress=$!
    # A process group of its own, and not waited for in the foreground: who is told to end takes it along at once.
    set -m
    (compile "$archive") </dev/null >"$log" 2>&1 &
    builder=$!
    set +m
    wait "$builder" || status=$?
    builder=
    kill "$progress" 2>/dev/null || true
    wait "$progress" 2>/dev/null || true
    progress=
    [[ ! -t 2 ]] || printf '\r%40s\r' '' >&2
    if [[ $status != 0 ]]; then
        tail -n 20 "$log" >&2
        say "the build failed; see $log"
        return 1
    fi
    install -m 755 "$build/linux" "$kernel.new"
    mv "$kernel.new" "$kernel"
    say "done in $SECONDS s"
}

build_once() {
    find_kernel "$archive" && return 0
    [[ -n $archive ]] || cannot "no kernel source here; as root: apt-get install $(missing | tr '\n' ' ')"
    rm -rf "$cache"/build.??????
    build_kernel "$archive"
    find_kernel "$archive"
}

archive=$(source_archive)
case ${1:-} in
needs) missing ;;
find) find_kernel "$archive" ;;
build)
    find_kernel "$archive" && exit 0
    trap clean_up EXIT
    trap 'clean_up; exit 130' INT
    trap 'clean_up; exit 143' TERM HUP
    alone build_once
    ;;
*)
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
