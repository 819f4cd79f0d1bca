#!/bin/bash
# The public headers stand alone, in C and in C++, with warnings as errors; and each function in them is exported.
set -eu
build=$1
source=$(cd "$(dirname "$0")/../.." && pwd)
include=$build/include/librackfish
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

for header in "$include"/rackfish.h "$include"/rackfish/*.h; do
    name=${header#"$include"/}
    printf '#include <%s>\n#include <%s>\nint main(void) { return 0; }\n' "$name" "$name" >"$scratch/a.c"
    cc -std=c11 -Wall -Wextra -Wpedantic -Werror -I"$include" -fsyntax-only "$scratch/a.c"
    if command -v c++ >/dev/null; then
        cp "$scratch/a.c" "$scratch/a.cc"
        c++ -std=c++11 -Wall -Wextra -Werror -I"$include" -fsyntax-only "$scratch/a.cc"
    fi
done

grep -ohE '^RF_API [^(]*\(|^const char \*rf_err_[a-z]+\(' "$source"/lib/include/rackfish/*.h "$source/base/error.h" |
    grep -oE 'rf_[a-z_]+\($' | tr -d '(' | sort -u >"$scratch/declared"
nm -D --defined-only "$build/lib/librackfish.so" | awk '$2 == "T" { print $3 }' | sort -u >"$scratch/exported"
diff "$scratch/declared" "$scratch/exported" || {
    echo "declared (<) and exported (>) differ" >&2
    exit 1
}
