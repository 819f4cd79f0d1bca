# The registry from the command line: keys, watches, locks; on both nodes, when cores die, and when they come back.
source "$(dirname "$0")/lib.sh" "$1"

machine_up registry --nodes 2 --cores 2

# Keys.
expect "put" 0 rackfish registry put app/colour blue
equal "get, of the other node" "$(rackfish registry --via node1 get app/colour)" blue
equal "get, of what it knows now" "$(rackfish registry --local get app/colour)" blue
expect "no such key" 1 rackfish registry get app/none
printf 'of stdin' | rackfish registry put app/stdin
equal "put from stdin" "$(rackfish registry get app/stdin)" "of stdin"
expect "an empty value" 0 rackfish registry put app/empty ""
equal "... is empty" "$(rackfish registry get app/empty)" ""
expect "put --new refuses what is there" 1 rackfish registry put --new app/colour red
expect "cas of the wrong value" 1 rackfish registry cas app/colour green red
expect "cas of the right one" 0 rackfish registry cas app/colour blue red
revision=$(rackfish registry --json get app/colour | json revision)
expect "put at that revision" 0 rackfish registry put --revision "$revision" app/colour yellow
expect "... which it no longer has" 1 rackfish registry put --revision "$revision" app/colour black
equal "json has the version" "$(rackfish registry --json get app/colour | json version)" 3
first=$(rackfish registry put --sequential jobs/ one)
second=$(rackfish registry --via node1 put --sequential jobs/ two)
check "names in sequence rise ($first, $second)" test "$first" '<' "$second"
equal "list by prefix" "$(rackfish registry --json list jobs/ | grep -c name)" 2
matches "list shows the maker" "$(rackfish registry list app/)" "app/colour .*$(id -un)"
for i in $(seq 60); do printf 'put -- many/%03d %0512d\n' "$i" "$i"; done | xargs -L1 rackfish registry
equal "a list of several pages" "$(rackfish registry --json list many/ | grep -c '"name"')" 60
expect "del" 0 rackfish registry del app/stdin
expect "... once" 1 rackfish registry del app/stdin
expect "a name with a space" 1 rackfish registry put "a b" x
expect "a value that is too long" 1 rackfish registry put app/long "$(printf '%0513d' 0)"
expect "no verb" 2 rackfish registry
expect "an unknown verb" 2 rackfish registry frobnicate
expect "too few arguments" 2 rackfish registry cas a
expect "help" 0 rackfish registry --help

# Watching, from another node, also what came before.
rackfish registry --via node1 watch --prefix watched/ >"$work/watched" 2>&1 &
watcher=$!
within "the watch is there" 20 bash -c "rackfish registry put watched/probe x; grep -q probe $work/watched"
rackfish registry put watched/1 one
rackfish registry del watched/1
within "put is told" 20 grep -q "put watched/1 one" "$work/watched"
within "... and deleted" 20 grep -q "deleted watched/1" "$work/watched"
kill $watcher
wait $watcher 2>/dev/null
revision=$(rackfish registry --json get app/colour | json created)
rackfish registry watch --from "$revision" app/colour >"$work/history" &
watcher=$!
within "what happened since a revision is told" 20 grep -q yellow "$work/history"
kill $watcher
wait $watcher 2>/dev/null
equal "... all of it" "$(cut -d' ' -f2- "$work/history" | tr '\n' ';')" "put app/colour blue;put app/colour red;put app/colour yellow;"

# Locks: one program at a time, in the order of the log; given up when the program ends, however.
echo 0 >"$work/count"
chmod 666 "$work/count"
cat >"$work/add.sh" <<'END'
n=$(cat "$1"); sleep 0.02; echo $((n + 1)) >"$1"; echo "$RACKFISH_LOCK_TOKEN" >>"$1.tokens"
END
for i in 0 1 2 3 4 5 6 7; do
    rackfish registry --via node$((i % 2)) lock counter -- sh "$work/add.sh" "$work/count" &
done
for job in $(jobs -p); do wait "$job" 2>/dev/null; done
equal "eight programs, one at a time" "$(cat "$work/count")" 8
check "tokens rise" sort -n -c "$work/count.tokens"
equal "... and differ" "$(sort -u "$work/count.tokens" | wc -l)" 8
expect "the program's exit status" 7 rackfish registry lock counter -- sh -c 'exit 7'
expect "no such program" 127 rackfish registry lock counter -- no-such-program-$$
rackfish registry lock held -- sh -c "echo \$\$ >$work/held; exec sleep 60" &
holder=$!
within "a lock is held" 20 test -s "$work/held"
equal "list shows it" "$(rackfish registry --json --kind locks list held | json used)" 1
expect "a timeout" 124 rackfish registry --timeout 300ms lock held -- true
kill -KILL $holder
wait $holder 2>/dev/null
expect "the holder's command was killed: it is free" 0 rackfish registry --timeout 30s lock held -- true
kill -KILL "$(cat "$work/held")" 2>/dev/null # what it left

# What a program holds goes with it; and with its core.
rackfish run --core 3 -- "$build/bin/elect" once >"$work/leader" &
leader=$!
within "a domain on core 3 leads" 30 grep -q "leads" "$work/leader"
equal "its key is there" "$(rackfish registry --json list elect/leader | grep -c '"ephemeral":true')" 1
kill -KILL "$(pid_of monitor 3)"
wait $leader 2>/dev/null
within "its key is gone with the core" 30 bash -c "! rackfish registry get elect/leader"
expect "and the registry goes on" 0 rackfish registry put after "core 3"
runs() { [[ $(timeout 60 rackfish run --core "$1" -- echo on 2>&1) == on ]]; }
within "the core is back" 60 runs 3
rackfish run --core 3 -- "$build/bin/elect" once >"$work/again" &
leader=$!
within "... and a domain on it leads again" 30 grep -q "leads" "$work/again"
kill $leader
wait $leader 2>/dev/null

# The leader dies while a lock is held and waited for: who waits keeps its place, and each has it once.
waiting() { [[ $(rackfish registry --via node1 --json --kind locks list term 2>/dev/null | json waiting) == "$1" ]]; }
rm -f "$work/count.tokens"
echo 0 >"$work/count"
rackfish registry --via node1 lock term -- \
    sh -c "echo held >$work/first; while [ ! -e $work/go ]; do sleep 0.02; done" &
jobs=($!)
within "a lock is held" 20 test -s "$work/first"
for i in 1 2 3; do
    rackfish registry --via node1 lock term -- sh "$work/add.sh" "$work/count" &
    jobs+=($!)
done
within "three wait for it" 20 waiting 3
kill -KILL "$(pid_of monitor 0)"
within "the core that led is dead: changes go on" 30 rackfish registry --via node1 put after "core 0"
check "... three still wait" waiting 3
touch "$work/go"
for job in "${jobs[@]}"; do
    wait "$job"
    equal "... and each has it" $? 0
done
equal "... one at a time, once" "$(cat "$work/count")" 3
check "... in the order of their tokens" sort -n -c "$work/count.tokens"
within "the core that led is back" 60 runs 0
equal "... and has the registry" "$(rackfish registry --via node0 --local get after)" "core 0"

machine_down

# The monitor that a command's change goes through dies under it, again and again: it is asked again through its next life, and made once;
# no command ends without knowing.
machine_up once --nodes 3 --cores 1
(
    for i in $(seq 1 60); do rackfish registry --via node0 put --sequential once/ "$i" || echo failed; done >"$work/once" 2>&1
) &
putting=$!
for i in 1 2 3 4 5 6; do
    sleep 0.1
    kill -KILL "$(pid_of monitor 0)" 2>/dev/null
    within "node 0 has a monitor" 60 rackfish registry --via node0 --local list
done
wait $putting
equal "no put failed while the monitor died" "$(grep -v '^once/[0-9]*$' "$work/once")" ""
equal "each was made once" "$(rackfish registry --via node1 --json list once/ | grep -c '"name"')" 60
equal "... and answered with the name that it made" "$(sort -u "$work/once" | wc -l)" 60
within "the core is back" 60 runs 0
machine_down
finish
