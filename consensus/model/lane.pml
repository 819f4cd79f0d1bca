/*
 * One-sided append, as a model that Spin searches exhaustively (doc/agreement.md, "One-sided append"): granting a lane, writing it,
 * completions, revoking it, reading its tail, and voting.
 *
 * Three voters, terms, logs of entries that are told apart by their terms. What is not there, and loses no run:
 *
 *   - an election is one step: who has voted does nothing in the old term any more, so it may as well vote last
 *   - APPEND by messages is one step, with its answer: one that is under way for long is one that is sent later
 *   - crashes (a dead member is one that does nothing more), changes of voters, leases, snapshots: log.pml has them; a lane
 *     concerns them only by what counts as acknowledged
 *   - polling: until a member has fenced its lane nobody asks what its log holds
 *   - one entry a record, one write under way in a lane
 *   - ids: a completion counts in the term that its lane was granted in, also if another lane was granted in it since; the
 *     engine counts less
 *
 * A write is posted, then a part of it is there, then all of it: then it is placed, and its completion will be heard at any time, or
 * never. A fence leaves what is there, all of it or a part.
 *
 * Checked: who is elected holds all that any leader counts as committed; an index commits as one entry; what is read was written.
 *
 * Deliberate defects: -DVOTE_BEFORE_FENCE, -DTAIL_EARLY (the tail is read, then the lane is cut), -DTORN_RECORD, -DOLD_COMPLETION (of the lane
 * before, counted by its number in that of now), -DHANDED_COMMITS (a completion says only that the write was posted).
 */
#ifndef TERMS
#define TERMS 3
#endif
#ifndef ENTRIES
#define ENTRIES 2 /* of a log */
#endif
#define N    3
#define TORN 15 /* what a record of which a part is missing would be taken for */

typedef log_t {
    byte n;
    byte e[ENTRIES] /* the term of each */
}
log_t log[N];
byte term[N];
bool leads[N];
byte who[TERMS + 1]; /* led each term */
byte match[N * N];   /* leader, voter: what it counts as held */

/* Of each voter: its lane. */
byte granted[N];  /* in that term; 0: none */
byte base[N];     /* the index before its first record */
byte posted[N];   /* records */
byte part[N];     /* of the last one posted: 0 nothing, 1 a part, 2 all of it */
log_t record[N];  /* entries of its records */
byte done[N], done_term[N], done_base[N]; /* the completion that is under way: number, and of which lane */

byte committed[ENTRIES]; /* the term of the entry that is committed there; 0: none */
byte top;                /* the highest term there was */

#define LEADER(t)  who[t]
#define AHEAD(a, b) (log[a].n > 0 && (log[b].n == 0 || log[a].e[log[a].n - 1] > log[b].e[log[b].n - 1] || \
                     (log[a].e[log[a].n - 1] == log[b].e[log[b].n - 1] && log[a].n > log[b].n)))
#ifdef VOTE_BEFORE_FENCE
#define FREE(i) true
#else
#define FREE(i) (granted[i] == 0)
#endif

inline forget_lane(i)
{
    granted[i] = 0;
    base[i] = 0;
    posted[i] = 0;
    part[i] = 0;
    k = 0;
    do
    :: k < ENTRIES -> record[i].e[k] = 0; k++
    :: else -> break
    od;
    k = 0
}

/* All records that are there go into the log; what is held already changes nothing. */
#ifdef TORN_RECORD
#define THERE(i) (posted[i] - (part[i] == 0 && posted[i] > 0 -> 1 : 0))
#else
#define THERE(i) (posted[i] - (part[i] < 2 && posted[i] > 0 -> 1 : 0))
#endif
inline read_tail(i)
{
    n = 0;
    do
    :: n < THERE(i) ->
        k = base[i] + n;
        assert(k <= log[i].n);
        if
        :: k < log[i].n && log[i].e[k] == record[i].e[n] -> skip
        :: else ->
            log[i].n = k + 1;
            log[i].e[k] = (part[i] == 1 && n + 1 == posted[i] -> TORN : record[i].e[n]);
            assert(log[i].e[k] != TORN)
        fi;
        n++
    :: else -> break
    od;
    n = 0;
    k = 0
}

inline complete(i)
{
    done[i] = posted[i];
    done_term[i] = granted[i];
    done_base[i] = base[i]
}

/* What only one that leads has: a completion is of use to nobody else. */
inline deposed(c)
{
    leads[c] = false;
    match[c * N] = 0;
    match[c * N + 1] = 0;
    match[c * N + 2] = 0;
#ifndef OLD_COMPLETION
    k = 0;
    do
    :: k < N ->
        if
        :: done[k] > 0 && LEADER(done_term[k]) == c -> done[k] = 0; done_term[k] = 0; done_base[k] = 0
        :: else -> skip
        fi;
        k++
    :: else -> break
    od;
    k = 0
#endif
}

inline elect(c, other)
{
    top++;
    deposed(c);
    deposed(other);
    leads[c] = true;
    term[c] = top;
    term[other] = top;
    who[top] = c;
    k = 0;
    do
    :: k < ENTRIES -> assert(committed[k] == 0 || (k < log[c].n && log[c].e[k] == committed[k])); k++
    :: else -> break
    od;
    k = 0
}

/* Leader l counts what majorities hold, in entries of its own term. */
inline commit(l)
{
    k = 0;
    n = 0;
    do
    :: k < N ->
        if
        :: k != l && match[l * N + k] > n -> n = match[l * N + k] /* it and one other are a majority */
        :: else -> skip
        fi;
        k++
    :: else -> break
    od;
    if
    :: n > 0 && log[l].e[n - 1] == term[l] ->
        k = 0;
        do
        :: k < n -> assert(committed[k] == 0 || committed[k] == log[l].e[k]); committed[k] = log[l].e[k]; k++
        :: else -> break
        od
    :: else -> skip
    fi;
    k = 0;
    n = 0
}

#define FOLLOWS(i, l) (i != l && leads[l] && term[i] == term[l])

active proctype all()
{
    byte i, l, k, n;
    who[1] = 0;
    leads[0] = true;
    top = 1;
    term[0] = 1;
    term[1] = 1;
    term[2] = 1;
    do
    :: atomic {
        select(i : 0 .. 2);
        select(l : 0 .. 2);
        if
        /* election: i, with the vote of l */
        :: d_step { i != l && top < TERMS && FREE(i) && FREE(l) && !AHEAD(l, i) -> elect(i, l) }
        /* i hears of a later term, and no more */
        :: d_step { FREE(i) && leads[l] && term[i] < term[l] -> term[i] = term[l]; deposed(i) }
        /* l appends an entry */
        :: d_step { i == 0 && leads[l] && log[l].n < ENTRIES -> log[l].e[log[l].n] = term[l]; log[l].n++ }
        /* APPEND by messages: all of the log, and the answer */
        :: d_step { FOLLOWS(i, l) && (match[l * N + i] < log[l].n || log[i].n < log[l].n) ->
                log[i].n = log[l].n;
                k = 0;
                do
                :: k < ENTRIES -> log[i].e[k] = log[l].e[k]; k++
                :: else -> break
                od;
                match[l * N + i] = log[l].n;
                commit(l) }
        /* i grants its lane; the leader begins where i has said that its log matches */
        :: d_step { FOLLOWS(i, l) && granted[i] == 0 && match[l * N + i] == log[i].n ->
                granted[i] = term[i];
                base[i] = log[i].n }
        /* the leader posts the next record; that of a lane that it does not know to be over, too */
        :: d_step { granted[i] != 0 && LEADER(granted[i]) == l && leads[l] && term[l] == granted[i] &&
                (posted[i] == 0 || part[i] == 2) && base[i] + posted[i] < log[l].n ->
                record[i].e[posted[i]] = log[l].e[base[i] + posted[i]];
                posted[i]++;
                part[i] = 0;
#ifdef HANDED_COMMITS
                complete(i);
#endif
                skip }
        /* more of it is there, whatever its writer does by now */
        :: d_step { l == 0 && granted[i] != 0 && posted[i] > 0 && part[i] < 2 ->
                part[i]++;
                if
#ifndef HANDED_COMMITS
                :: part[i] == 2 -> complete(i)
#endif
                :: else -> skip
                fi }
        /* l hears the completion */
        :: d_step { done[i] > 0 && leads[l] && i != l && LEADER(done_term[i]) == l &&
#ifdef OLD_COMPLETION
                granted[i] == term[l] && done[i] <= posted[i] ->
                done_base[i] = base[i];
#else
                done_term[i] == term[l] ->
#endif
                if
                :: done_base[i] + done[i] > match[l * N + i] -> match[l * N + i] = done_base[i] + done[i]
                :: else -> skip
                fi;
                done[i] = 0;
                done_term[i] = 0;
                done_base[i] = 0;
                commit(l) }
        /* i fences, then reads what is there: from then on it may leave the term */
        :: d_step { l == 0 && granted[i] != 0 && granted[i] == term[i] -> read_tail(i); forget_lane(i) }
#ifdef VOTE_BEFORE_FENCE
        :: d_step { l == 0 && granted[i] != 0 && granted[i] != term[i] -> forget_lane(i) }
#endif
#ifdef TAIL_EARLY
        /* ... the other way round: what is placed in between is not read */
        :: d_step { l == 1 && granted[i] != 0 && granted[i] == term[i] && posted[i] > 0 && part[i] == 1 ->
                read_tail(i);
                complete(i);
                forget_lane(i) }
#endif
        fi;
        i = 0;
        l = 0 }
    od
}
