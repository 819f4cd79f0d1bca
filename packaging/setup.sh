#!/usr/bin/env bash
# Makes a fresh host ready to build, run and test Rackfish. Debian 12 is the reference; elsewhere it says what is missing.
#
#   packaging/setup.sh build     what `./run` needs
#   packaging/setup.sh check     what `./check` needs on top: a second compiler, sanitizers, test library, formatter, and for
#                                the labs DPDK and a packet filter, a kernel's source, what builds it, an emulator, and the tools for RDMA
#
# Only what is missing is installed, by apt-get, as root or through a sudo that asks nothing. Without either, or without
# apt-get, it lists what to install and ends with status 2. As root it also creates the system user `rackfish`.
set -euo pipefail

# package | part (build, check) | a test that succeeds when it is there
needed_packages() {
    cat <<'TABLE'
gcc|build|command -v gcc
libc6-dev|build|test -e /usr/include/stdio.h
cmake|build|command -v cmake
ninja-build|build|command -v ninja
pkg-config|build|command -v pkg-config
libgnutls28-dev|build|pkg-config --exists gnutls
libprotobuf-c-dev|build|pkg-config --exists libprotobuf-c
protobuf-c-compiler|build|command -v protoc-c
libcap-ng-dev|build|pkg-config --exists libcap-ng
libyaml-dev|build|pkg-config --exists yaml-0.1
libhwloc-dev|build|pkg-config --exists hwloc
libcmocka-dev|build|pkg-config --exists cmocka
clang|check|command -v clang
libclang-rt-dev|check|ls "$(clang -print-resource-dir)"/lib/linux/libclang_rt.fuzzer*
clang-format|check|command -v clang-format
python3|check|command -v python3
iproute2|check|command -v ip
spin|check|command -v spin
libibverbs-dev|check|pkg-config --exists libibverbs
librdmacm-dev|check|pkg-config --exists librdmacm
libdpdk-dev|check|pkg-config --exists libdpdk
nftables|check|command -v nft
linux-source|check|ls /usr/src/linux-source-*.tar.xz
make|check|command -v make
flex|check|command -v flex
bison|check|command -v bison
bc|check|command -v bc
xz-utils|check|command -v xz
libelf-dev|check|test -e /usr/include/libelf.h
libssl-dev|check|test -e /usr/include/openssl/ssl.h
ibverbs-utils|check|command -v ibv_devinfo
ibverbs-providers|check|ls /etc/libibverbs.d/rxe.driver
perftest|check|command -v ib_write_lat
qemu-system-x86|check|command -v qemu-system-x86_64
busybox-static|check|command -v busybox
cpio|check|command -v cpio
kmod|check|ls /sbin/depmod
TABLE
}

missing_packages() {
    local parts=$1 package part probe
    while IFS='|' read -r package part probe; do
        [[ $parts == *$part* ]] || continue
        bash -c "$probe" >/dev/null 2>&1 </dev/null || printf '%s\n' "$package"
    done < <(needed_packages)
}

# Prints the command prefix that makes us root without asking, or fails.
root_prefix() {
    if [[ $(id -u) == 0 ]]; then
        return 0
    elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
        printf 'sudo -n'
    else
        return 1
    fi
}

install_packages() {
    local log prefix
    local -a apt
    log=$(mktemp)
    prefix=$(root_prefix)
    # shellcheck disable=SC2206 # the prefix is zero or two words
    apt=($prefix env DEBIAN_FRONTEND=noninteractive apt-get -y -q --no-install-recommends
        -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
    echo "setup: installing $*"
    # The lists may be absent or old: fetch them only when the first try fails.
    if ! "${apt[@]}" install "$@" >"$log" 2>&1; then
        echo "setup: fetching the package lists"
        if ! "${apt[@]}" update >"$log" 2>&1 || ! "${apt[@]}" install "$@" >"$log" 2>&1; then
            tail -n 15 "$log" >&2
            echo "setup: apt-get could not install the packages; see above, mend it, and start again" >&2
            rm -f "$log"
            return 2
        fi
    fi
    rm -f "$log"
}

ensure_packages() {
    local -a missing
    mapfile -t missing < <(missing_packages "$1")
    [[ ${#missing[@]} == 0 ]] && return 0
    if ! command -v apt-get >/dev/null || ! root_prefix >/dev/null; then
        {
            echo "setup: these packages (Debian's names) are missing and cannot be installed from here:"
            printf '    %s\n' "${missing[@]}"
            echo "setup: as root, run: apt-get install ${missing[*]}"
        } >&2
        return 2
    fi
    install_packages "${missing[@]}" || return 2
    mapfile -t missing < <(missing_packages "$1")
    if [[ ${#missing[@]} != 0 ]]; then
        echo "setup: still missing after installing: ${missing[*]}" >&2
        return 2
    fi
}

# A machine started by root runs its system processes as this user.
ensure_user() {
    [[ $(id -u) == 0 ]] || return 0
    getent passwd rackfish >/dev/null && return 0
    echo "setup: creating the system user rackfish"
    useradd --system --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin rackfish || {
        echo "setup: cannot create the user rackfish; create it, or start as an ordinary user" >&2
        return 2
    }
}

case ${1:-} in
build) ensure_packages build ;;
check) ensure_packages build,check ;;
*)
    echo "usage: packaging/setup.sh build|check" >&2
    exit 2
    ;;
esac
ensure_user
