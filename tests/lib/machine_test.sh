#!/bin/bash
# librackfish and the examples on a machine of two nodes with two cores each.
source "$(dirname "$0")/../cluster/lib.sh" "$1"

machine_up lib --nodes 2 --cores 2
expect "librackfish's own domain" 0 rackfish run --core 0 -- "$build/tests/lib_domain"
expect "the registry, locks, queues" 0 rackfish run --core 0 -- "$build/tests/lib_registry"
expect "every core leads once" 0 rackfish run --core 0 -- "$build/bin/elect"
expect "hello reaches every core" 0 rackfish run --core 1 -- "$build/bin/hello"
expect "a server by name" 0 rackfish run -d --core 1 -- "$build/bin/pingpong" serve
for core in 0 1 2 3; do
    expect "calls from core $core" 0 rackfish run --core $core -- "$build/bin/pingpong"
done
expect "the server stops" 0 rackfish run --core 3 -- "$build/bin/pingpong" stop

tree=$work/tree
mkdir -p "$tree/deep/er"
head -c 3000000 /dev/urandom >"$tree/random"
head -c 700000 /dev/zero >"$tree/zeros"
{ head -c 600000 /dev/zero | tr '\0' x; echo; } >"$tree/one-word"
seq 1 300000 >"$tree/deep/numbers"
printf 'no newline at the end' >"$tree/deep/er/short"
: >"$tree/empty"
chmod -R a+rX "$tree"
words=$(find "$tree" -type f -print0 | LC_ALL=C wc -w --files0-from=- | awk 'END { print $1 }')
expect "wordcount is right" 0 rackfish run --core 2 -- "$build/bin/wordcount" --check-against "$words" "$tree"
expect "wordcount says when it is wrong" 1 \
    rackfish run --core 2 -- "$build/bin/wordcount" --check-against "$((words + 1))" "$tree"
finish
