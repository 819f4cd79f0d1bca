# A hostile domain of an ordinary user in a privileged machine harms only itself.
source "$(dirname "$0")/lib.sh" "$1"
((EUID == 0)) || skip "needs root: in an unprivileged machine all is one user's"
hostile=$build/tests/hostile
[[ -x $hostile ]] || skip "tests/cluster/hostile.c is not built"
user=nobody
id $user >/dev/null 2>&1 || skip "no user nobody"
printf '#!/bin/bash\nexec setpriv --reuid=%s --regid=%s --clear-groups "$@"\n' $user "$(id -g $user)" >"$work/as_user"
chmod 755 "$work/as_user"
as_user=$work/as_user

machine_up hostile --nodes 2 --cores 2 --user $user
check "the user may run programs" "$as_user" rackfish run --core 1 -- true
if ! isolates; then
    machine_down
    skip "this host refuses PID namespaces: domains are not kept apart, and status says so"
fi
equal "... as that user" "$("$as_user" rackfish run --core 1 -- id -un)" $user
equal "... without further rights" "$("$as_user" rackfish run --core 1 -- grep NoNewPrivs /proc/self/status | tr -dc 0-9)" 1

# Somebody else's domain is as far away as the system.
id=$(rackfish run -d --core 1 -- sleep 3000.$own)
within "root's domain runs" 20 pgrep -f "[s]leep 3000.$own"
victims=$({ awk '{ print $3 }' "$dir"/*/state; pgrep -f "[s]leep 3000.$own"; echo $$; } | sort -u)
# shellcheck disable=SC2086
output=$("$as_user" rackfish run --core 1 -- "$hostile" processes 0 $victims 2>&1)
equal "no process of the system or of another user can be signalled, traced, read or mapped" "$output" "0 harms"
output=$("$as_user" rackfish run --core 1 -- "$hostile" sockets "$dir" 2>&1)
equal "neither control socket nor monitors nor files of the run directory" "$output" "0 harms"
expect "another user's domain cannot be killed through the machine" 6 "$as_user" rackfish kill -KILL "$id"
for seed in 1 2 3; do
    expect "garbage bytes on its kernel link, seed $seed" 0 "$as_user" rackfish run --core 1 -- "$hostile" bytes $seed
    output=$("$as_user" rackfish run --core 1 -- "$hostile" invocations $seed 2>&1)
    matches "garbage invocations, seed $seed ($(head -1 <<<"$output"))" "$output" "0 harms"
done
equal "no memory that it was given can be cut short" "$("$as_user" rackfish run --core 1 -- "$hostile" truncate)" "0 harms"
"$as_user" rackfish run --core 1 -- "$hostile" forks "$own" >"$work/forks" &
within "a domain forks two hundred processes into sessions of their own" 30 grep -q forked "$work/forks"
bomb=$(rackfish ps --json | grep '"program":"hostile"' | json domain)
check "kill of that domain" rackfish kill -KILL "$bomb"
within "all of them are gone" 20 bash -c "! pgrep -f '[h]ostile forks $own'"

# The machine did not notice.
equal "all cores are up" "$(rackfish --json status | json cores_up)" 4
equal "the other user's domain runs on" "$(rackfish ps --json | grep "\"domain\":$id," | json state)" running
equal "the core serves others" "$(rackfish run --core 1 -- echo well)" well
now=$(awk '{ print $1, $2, $3, $4 }' "$dir"/*/state | sort)
while read -r role core pid start; do alive "$pid" "$start" || fail "$role $core died"; done <<<"$now"
rackfish kill -KILL "$id"
machine_down

# Who is not named may not use the machine at all.
machine_up closed --nodes 1 --cores 1
expect "a foreign user is refused" 6 "$as_user" rackfish ps
expect "... for every command" 125 "$as_user" rackfish run -- true
check "root is not" rackfish ps
machine_down
finish
