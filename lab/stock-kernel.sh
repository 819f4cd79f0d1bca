#!/usr/bin/env bash
# The kernel of the lab's guests where none can be built: Debian's own, run by QEMU in software. It has Soft-RoCE as a module and
# no soft-iWARP, and its guests are about five times slower. Nothing is installed: the package is fetched once, its kernel and
# the modules that a guest wants are taken out of it, and kept (cache.sh) in a folder under the kernel's version.
#
#   stock-kernel.sh build    prints that folder, with `kernel` and `initrd` in it; makes it first if there is none
#   stock-kernel.sh find     prints where it is, or ends with status 1
#   stock-kernel.sh needs    prints the packages that it lacks here
#
# Exit status: 0 there it is; 1 no; 77 it cannot be had here, with the reason.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=lab/cache.sh
source "$here/cache.sh"
export PATH=$PATH:/usr/sbin:/sbin

modules=(virtio_pci virtio_net virtio_console 9p 9pnet_virtio overlay bridge dummy veth inet_diag tcp_diag
    crc32_generic rdma_rxe rdma_ucm ib_uverbs ib_umad)

missing() {
    lacks_packages <<'TABLE'
qemu-system-x86|command -v qemu-system-x86_64
busybox-static|busybox true && ! ldd "$(command -v busybox)"
cpio|command -v cpio
kmod|command -v depmod
iproute2|command -v rdma
TABLE
}

# The package of the kernel that Debian would install today; fails where it is not known.
newest_package() {
    apt-cache depends --important linux-image-amd64 2>/dev/null | awk '$1 == "Depends:" && $2 ~ /^linux-image-[0-9]/ { print $2; exit }' | grep .
}

# What the folder's name depends on besides the kernel: what is put beside it.
recipe_hash() { cat "$here/stock-init.sh" "${BASH_SOURCE[0]}" | sha256sum | cut -c1-12; }

find_kernel() {
    find "$cache" -maxdepth 1 -type d -name "stock-*-$(recipe_hash)" \( -uid "$EUID" -o -uid 0 \) 2>/dev/null | sort -V | tail -n 1 | grep .
}

build=
# shellcheck disable=SC2317 # reached through a trap
clean_up() { [[ -z $build ]] || rm -rf "$build"; }

# The first file system: busybox, the modules in the order in which they load, and what mounts the host's files.
make_initrd() {
    local version=$1 root=$build/initrd.d list
    mkdir -p "$root"/{bin,lib,proc,sys,dev,host}
    depmod -b "$build/package" "$version"
    list=$(for module in "${modules[@]}"; do
        modprobe -d "$build/package" -S "$version" --show-depends "$module"
    done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }')
    while read -r module; do
        cp "$module" "$root/lib/"
        basename "$module" >>"$root/lib/order"
    done <<<"$list"
    install -m 755 "$(command -v busybox)" "$root/bin/busybox"
    install -m 755 "$here/stock-init.sh" "$root/init"
    (cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$build/result/initrd"
}

make_kernel() {
    local package version kernel
    package=$(newest_package) || cannot "no package list tells of linux-image-amd64; as root: apt-get update"
    version=${package#linux-image-}
    kernel=$cache/stock-$version-$(recipe_hash)
    build=$(mktemp -d "$cache/stock.XXXXXX")
    mkdir "$build/result"
    chmod 755 "$build/result"
    say "fetching Debian's $package once, 70 MB"
    (cd "$build" && apt-get -q -o APT::Sandbox::User= download "$package") >"$cache/stock.log" 2>&1 ||
        cannot "apt-get cannot fetch $package ($cache/stock.log); with a network, as root: apt-get update"
    dpkg-deb -x "$build/$package"_*.deb "$build/package"
    install -m 644 "$build/package/boot/vmlinuz-$version" "$build/result/kernel"
    make_initrd "$version"
    mv -T "$build/result" "$kernel"
}

build_once() {
    local lacks
    lacks=$(missing | tr '\n' ' ')
    [[ -z $lacks ]] || cannot "Debian's kernel in QEMU lacks packages; as root: apt-get install $lacks"
    find_kernel && return 0
    rm -rf "$cache"/stock.??????
    [[ $(uname -m) == x86_64 ]] || cannot "Debian's kernel for x86_64 is run on x86_64 only, and this is $(uname -m)"
    make_kernel
    find_kernel
}

case ${1:-} in
needs) missing ;;
find) find_kernel ;;
build)
    trap clean_up EXIT
    trap 'clean_up; exit 130' INT
    trap 'clean_up; exit 143' TERM HUP
    if [[ -z $(missing) ]] && find_kernel; then exit 0; fi
    alone build_once
    ;;
*)
    sed -n '2,10s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
