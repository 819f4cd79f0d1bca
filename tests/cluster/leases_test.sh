# Three hosts with leases on, and a network of their own: the leader reads alone, and what is read is never older than what was
# acknowledged before: also where the leader's connections break, it is cut off, or it is killed.
source "$(dirname "$0")/lib.sh" "$1"

source "$(dirname "$0")/net.sh"
net_begin 3 10.213.78
net_machine leases $'leases: on\nlease_drift: 5'
at() { rackfish --via "h$(($1 + 1))" --json status 2>/dev/null | json "$2"; } # of core 0 to 2
up() { [[ $(at "$1" cores_up) == "$2" ]]; }
matches "status says what its leases are" "$(rackfish --via h2 status)" "reads +by the leader alone while it holds a lease, of 250 ms less 5 %"
get() { timeout 30 rackfish --via "h$(($1 + 1))" registry get k 2>/dev/null; }
put() { timeout 30 rackfish --via "h$(($1 + 1))" registry put k "$2"; }
leads() { [[ $(at "$1" leader) == "$1" ]]; }

# Three reads at core $1 that its leader $2 answers without asking anybody. A host that is busy may let a lease run out: then again.
by_lease() {
    local asked leased i
    asked=$(at "$2" reads_asked) leased=$(at "$2" reads_leased)
    for i in 1 2 3; do [[ $(get "$1") == "$value" ]] || return 1; done
    [[ $(at "$2" reads_asked) == "$asked" && $(at "$2" reads_leased) == $((leased + 3)) ]]
}
leader=$(at 0 leader) value=one
check "a value is put" put 0 one
within "the leader reads it without asking a majority" 20 by_lease "$leader" "$leader"
other=$(((leader + 1) % 3))
within "... and so it answers another host" 20 by_lease $other "$leader"

# Connections of the leader's host are reset, and it lives.
if net_exec "$leader" ss -K dst 10.213.78.0/24 >/dev/null 2>&1; then
    check "its connections are reset: a value is put" put $other two
    equal "... and read where it leads" "$(get "$leader")" two
    equal "... nobody was expelled" "$(at $other expulsions)" 0
fi

# What is acknowledged elsewhere is not missed by whom it was taken from.
net_cut "$leader"
within "its host is cut off: a value is put elsewhere" 60 put $other three
missed=0
for ((i = 0; i < 20; i++)); do
    read_there=$(get "$leader")
    [[ -z $read_there || $read_there == three ]] || missed=$((missed + 1))
done
equal "... and no read where it led is older: linearizable" $missed 0
equal "... it is read elsewhere" "$(get $other)" three
net_heal "$leader"
within "healed, all are there" 60 up "$leader" 3
within "... and it reads that" 30 bash -c "[[ \$(rackfish --via h$((leader + 1)) registry get k) == three ]]"

leader=$(at $other leader)
value=three
within "the next leader reads alone, too" 20 by_lease "$leader" "$leader"
kill -KILL "$(pid_of monitor "$leader")"
other=$(((leader + 1) % 3))
within "it is killed: a value is put" 30 put $other four
equal "... and read: linearizable" "$(get $other)" four
value=four
within "all are there again" 60 up $other 3
leader=$(at $other leader)
within "... and who leads now reads alone" 20 by_lease "$leader" "$leader"

for i in 2 3; do rackfish --via "h$i" down --this-host >/dev/null 2>&1; done
machine_down "down leaves nothing"
net_end
finish
