#!/usr/bin/env bash
# Installs into an empty prefix, moves that prefix, builds a small domain against it with pkg-config and with CMake, and runs it
# on a machine booted from there.
set -euo pipefail
build=$1
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
scratch=$(mktemp -d)
chmod 755 "$scratch" # the system user of a machine started by root must reach the programs
export RACKFISH_MACHINE=install-$$
rackfish=:
trap '"$rackfish" down --grace 0s >/dev/null 2>&1; rm -rf "$scratch"' EXIT
trap 'exit 143' TERM INT HUP

fail() {
    printf 'install_test: %s\n' "$*" >&2
    exit 1
}

cmake --install "$build" --prefix "$scratch/first" >"$scratch/log" || { cat "$scratch/log" >&2; fail "installing failed"; }
mv "$scratch/first" "$scratch/prefix"
prefix=$scratch/prefix
libdir=$(dirname "$(find "$prefix" -name librackfish.so | head -n 1)")

for file in bin/rackfish libexec/rackfish/rackfishd libexec/rackfish/rf-cpudriver libexec/rackfish/rf-monitor \
    libexec/rackfish/rf-init libexec/rackfish/rf-lab libexec/rackfish/lab/rf-lab-guest libexec/rackfish/lab/guest-init.sh \
    libexec/rackfish/lab/guest-machine.sh libexec/rackfish/lab/kernel.sh libexec/rackfish/lab/kernel.config \
    libexec/rackfish/lab/cache.sh libexec/rackfish/lab/stock-kernel.sh libexec/rackfish/lab/stock-init.sh include/rackfish.h include/rackfish/error.h include/rackfish/types.h \
    lib/systemd/system/rackfishd@.service lib/sysusers.d/rackfish.conf share/rackfish/samples/rack.yaml; do
    [[ -e $prefix/$file ]] || fail "$file was not installed"
done
[[ -e $libdir/rackfish/rackfish-tcp.so ]] || fail "the tcp transport was not installed"

# No header that is installed may need one that is not.
for header in "$prefix"/include/rackfish.h "$prefix"/include/rackfish/*.h; do
    printf '#include "%s"\n' "$header" >"$scratch/alone.c"
    cc -std=c17 -Wall -Wextra -Werror -fsyntax-only -I "$prefix/include" "$scratch/alone.c" ||
        fail "${header##*/} does not compile alone"
done

cat >"$scratch/domain.c" <<'SOURCE'
#include <rackfish.h>
#include <stdio.h>

/* Outside of a machine rf_init() must say so, not crash. */
int main(void)
{
    rf_err_t err = rf_init(rf_deadline_ms(10000));
    printf("%s\n", rf_err_name(err));
    if (err == RF_OK)
        rf_finish();
    return 0;
}
SOURCE

export PKG_CONFIG_PATH=$libdir/pkgconfig
read -ra flags <<<"$(pkg-config --cflags --libs rackfish)"
cc -std=c17 -Wall -Wextra -Werror -o "$scratch/shared" "$scratch/domain.c" "${flags[@]}" "-Wl,-rpath,$libdir"
"$scratch/shared" | grep -q RF_ERR_ || fail "the domain built with pkg-config does not run"

mkdir "$scratch/project"
cp "$scratch/domain.c" "$scratch/project/"
cat >"$scratch/project/CMakeLists.txt" <<'SOURCE'
cmake_minimum_required(VERSION 3.25)
project(domain LANGUAGES C)
find_package(rackfish 0.1 REQUIRED)
add_executable(with_shared domain.c)
target_link_libraries(with_shared PRIVATE rackfish::rackfish)
add_executable(with_static domain.c)
target_link_libraries(with_static PRIVATE rackfish::rackfish_static)
SOURCE
if ! { cmake -G Ninja -S "$scratch/project" -B "$scratch/project/build" -DCMAKE_PREFIX_PATH="$prefix" &&
    cmake --build "$scratch/project/build"; } >"$scratch/log" 2>&1; then
    cat "$scratch/log" >&2
    fail "the CMake project does not build"
fi
for program in with_shared with_static; do
    "$scratch/project/build/$program" | grep -q RF_ERR_ || fail "$program does not run"
done

# Only what the headers promise is exported.
exported=$(nm -D --defined-only "$libdir/librackfish.so" | awk '$2 == "T" { print $3 }')
grep -vq '^rf_' <<<"$exported" && fail "librackfish.so exports more than rf_*"
for symbol in rf_init rf_finish rf_err_text; do
    grep -qx "$symbol" <<<"$exported" || fail "librackfish.so does not export $symbol"
done

# A machine from there: every part is found relative to the command.
rackfish=$prefix/bin/rackfish
"$rackfish" --help >/dev/null || fail "the installed command does not run"
"$rackfish" up --nodes 2 --cores 1 >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; fail "no machine boots from there"; }
for program in "$scratch/shared" "$scratch/project/build/with_static"; do
    answer=$("$rackfish" run --core 1 -- "$program") || fail "$program fails on the machine"
    [[ $answer == RF_OK ]] || fail "$program answers '$answer' on the machine"
done
"$rackfish" down >/dev/null || fail "the machine does not go down"

cmp -s "$source_dir/README.md" "$prefix/share/doc/rackfish/README.md" || fail "README.md was not installed"
echo "install_test: passed"
