#!/usr/bin/env bash
# A second ./check in one clone refuses, and says why. The lock is gone with who held it, however that ended, and whatever it has left.
set -euo pipefail
source_dir=$(cd "$(dirname "$0")/../.." && pwd)
clone=$(mktemp -d)
checks=()
trap 'for pid in "${checks[@]}"; do kill -KILL "$pid" 2>/dev/null || true; done; echo go >&4; rm -rf "$clone"' EXIT
fail() {
    printf 'check_lock_test: %s\n' "$*" >&2
    exit 1
}

# A clone whose setup says that it begins, waits for a word, and then lacks something.
mkdir "$clone/packaging"
cp "$source_dir/check" "$clone/"
cp "$source_dir/packaging/common.sh" "$clone/packaging/"
mkfifo "$clone/said" "$clone/go"
exec 3<>"$clone/said" 4<>"$clone/go"
printf '#!/bin/sh\necho begins >said\nread word <go\necho "something is lacking"\nexit 1\n' >"$clone/packaging/setup.sh"
chmod 755 "$clone/packaging/setup.sh"
begin() {
    "$clone/check" style >"$clone/log" 2>&1 3>&- 4>&- &
    checks+=($!)
    read -r -t 60 -u 3 || fail "it does not begin: $(cat "$clone/log")"
}

begin
status=0
output=$("$clone/check" style 2>&1) || status=$?
[[ $status == 2 && $output == *"another ./check runs in $clone"* ]] || fail "a second one ends with $status: $output"
kill -KILL "${checks[0]}"
wait "${checks[0]}" 2>/dev/null || true
begin # while the setup that the first one started still runs
printf 'go\ngo\n' >&4
wait "${checks[1]}" || status=$?
[[ $status == 2 && $(cat "$clone/log") == "something is lacking" ]] || fail "the next one ends with $status: $(cat "$clone/log")"
