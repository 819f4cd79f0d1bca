/*
 * The ordered log and the change of voters, as a model that Spin searches exhaustively (doc/agreement.md, "The models").
 *
 * Engines 0, 1, 2 are the first voters, 3 is the spare, 4 the new incarnation of a core that crashed and was restarted. Only 0, which forms,
 * begins with an entry, FORM: the others' logs are empty until they are sent it, and so is one's that is named a voter.
 * Bounds: TERMS, ENTRIES (commands), CHANGES (joint changes), CRASHES, RESTARTS. An engine that has crashed is one that takes
 * no more steps, and nothing here ever has to step: any number of crashes is in every search, and CRASHES only names them.
 * The spare and a new incarnation are the same to the protocol: engines that never voted; either may be named.
 *
 * There are no channels. Messages may be lost, delayed, repeated and reordered, and what a leader says in a term is a
 * prefix of one log that only grows while it leads. So all APPENDs of a term that were ever sent are that log, readable
 * by anybody from then on, also when its leader is gone; an ACCEPTED is the highest match that an engine has
 * acknowledged in the term; votes are what the candidate may count from the moment they are granted. A message that is
 * late is a step taken late. A log is (term of its last entry, length), because equal term and index mean equal
 * prefixes (Raft 3.5); that too is checked, since no term may have two leaders.
 *
 * Whoever is a voter in its newest configuration may stand at any time, and whoever lives may vote for a candidate whose configuration
 * names it, whatever its own log says, if anything: pre-votes, evidence, stagger, time-outs, leases, and that one whose log expels it does not vote,
 * only forbid standing or voting, and are left out. A learner that is named as a voter may have been sent anything, or nothing yet.
 *
 * Checked: one leader a term, leader completeness, agreement of all that was committed (so nothing acknowledged is lost).
 *
 * With -DTRACE the engine's steps decide: trace.pml (trace.sh makes it from what an engine did, sim/steps.h) names one
 * step after the other, each is taken only if the model can take it, and "accepted" is printed if all were.
 *
 * With SEALS so many leaders seal their log instead of writing a TERM entry (consensus/log.c, log_seal): whoever holds all of it and
 * nothing beyond notes the term, `seal`, for that length, `sealed`, and votes as if its last entry were of that term.
 *
 * With CLAIMS so many engines claim votes of a term after their own, with the log that they hold then (consensus/role.c, role_claim): who would
 * vote for it does, `ahead` of the one that claims, which enters the term some time later, if it ever does, with the log that it has then.
 *
 * With SNAPSHOTS anybody may at any time be given the first entries, as many as are committed, `load`: those of up to 4 entries.
 *
 * Deliberate defects: -DNEW_INCARNATION_VOTES -DFIRST_INCARNATION_TWICE (a process started as an incarnation that has been) -DRESET_ON_PARTITION -DCHANGE_BEFORE_TERM -DOLD_TERM_COMMIT
 * -DSINGLE_MAJORITY -DSEAL_NOT_NOTED -DSNAPSHOT_DROPS_MORE
 * -DSNAPSHOT_KEEPS_CANDIDATE (in the term of its entries) -DAHEAD_NOT_NOTED (who has voted ahead votes again).
 */

#ifndef TERMS
#define TERMS 3
#endif
#ifndef ENTRIES
#define ENTRIES 2
#endif
#ifndef CHANGES
#define CHANGES 1
#endif
#ifndef CRASHES
#define CRASHES 0
#endif
#ifndef RESTARTS
#define RESTARTS 0
#endif
#ifndef SEALS
#define SEALS 0
#endif
#ifndef CLAIMS
#define CLAIMS 0
#endif
#ifndef SNAPSHOTS
#define SNAPSHOTS 0 /* 1: there are some */
#endif

#define N      5
#define SPARE  3
#define FRESH  4
#define LENGTH (TERMS + ENTRIES + 2 * CHANGES) /* FORM, then TERM entries, commands, JOINT and FINAL entries */

/* Roles. An engine is ABSENT before it is named a voter, and DEAD once it crashed; both have no state. */
#define FOLLOWER  0
#define CANDIDATE 1
#define LEADER    2
#define ABSENT    3
#define DEAD      4

/* Kinds of entries. FORM is a FINAL configuration. */
#define TERM    1
#define COMMAND 2
#define FINAL   32 /* + set of voters */
#define JOINT   64 /* + new set of voters */
#define SET     31

#define BIT(i)          (1 << (i))
#define COUNT(s)        (((s) & 1) + (((s) >> 1) & 1) + (((s) >> 2) & 1) + (((s) >> 3) & 1) + (((s) >> 4) & 1))
#define MAJORITY(s, set) (2 * COUNT((s) & (set)) > COUNT(set))
#ifdef SINGLE_MAJORITY
#define QUORUM(s, i) MAJORITY(s, new[i])
#else
#define QUORUM(s, i) (MAJORITY(s, old[i]) && MAJORITY(s, new[i]))
#endif
#define AT(t, j)     (((t) - 1) * LENGTH + (j) - 1)
#define UP(i)        (role[i] < ABSENT)
#define IN(i, j)     ((old[j] | new[j]) & BIT(i)) /* i is a voter in j's newest configuration */

/* Each engine. */
byte role[N];
byte term[N];
bool voted[N];  /* in this term; for whom is in `votes` of the candidate */
byte last[N];   /* term of the last entry */
byte length[N];
byte old[N];    /* the newest configuration in its log */
byte new[N];
byte votes[N];  /* candidate: who granted */
#if SEALS > 0
byte seal[N];   /* a term, noted when the log was `sealed` long */
byte sealed[N];
#define VOTE_TERM(i) (sealed[i] == length[i] && seal[i] > last[i] -> seal[i] : last[i])
#else
#define VOTE_TERM(i) last[i]
#endif
#if CLAIMS > 0
byte claim[N];        /* the term that it has claimed votes of last; 0: none */
byte claim_last[N];   /* the log that it did so with */
byte claim_length[N];
byte ahead[N];        /* who has voted before it entered that term */
#define AHEAD(i, e) (claim[i] == (e) -> ahead[i] : 0)
#else
#define AHEAD(i, e) 0
#endif

/* Each term: the log of its leader, what was acknowledged to it and what it has committed while it leads. */
byte kinds[TERMS * LENGTH];
byte terms[TERMS * LENGTH];
byte said[TERMS + 1];      /* length of the leader's log; 0: no leader yet */
byte accepted[(TERMS + 1) * N];
byte committed[TERMS + 1]; /* 0: nothing in its own term */
byte leads[TERMS + 1];     /* 1 + who leads it; 0: nobody yet, or no more */
#if SEALS > 0
byte ends[TERMS + 1];      /* its leader has sealed a log so long; 0: has not */
byte seals;
#define ENDS(e) ends[e]
#else
#define ENDS(e) 0
#endif

/* What was committed first by anybody: a log (term of last entry, length), and in which term. */
byte chosen_last, chosen_length, chosen_in;

byte top;                  /* highest term in use */
byte commands, changes, crashes, restarts;
#if CLAIMS > 0
byte claims;
#endif

hidden byte j, k, m, s;

#ifdef REDUCE
#define REDUCED c_code { reduce(); }

/*
 * Two states are one to the search if they differ only in what nobody can notice: in the numbers of the engines (sorted
 * here by all they are and all that is known of them), and in what a leader of the past has said that no engine can
 * take any more and no log rests on. Neither is part of the model: without -DREDUCE the search is the same, only longer.
 */
c_code {
static int reduced_set(int set, const unsigned char *to)
{
    int out = 0;
    for (int i = 0; i < N; i++)
        if (set >> i & 1) out |= 1 << to[i];
    return out;
}

static void reduce_logs(void)
{
    int term_min = TERMS;
    for (int i = 0; i < N; i++)
        if (now.role[i] < ABSENT && now.term[i] < term_min) term_min = now.term[i];
    for (int e = 1; e < term_min; e++) {
        int need = now.chosen_last == e ? now.chosen_length : 0;
        for (int i = 0; i < N; i++)
            if (now.last[i] == e && now.length[i] > need) need = now.length[i];
        for (int later = e + 1; later <= TERMS; later++)
            for (int n = 1; n <= now.said[later]; n++)
                if (now.terms[AT(later, n)] == e && n > need) need = n;
#if SEALS > 0
        now.ends[e] = 0;
#endif
        for (int n = need; n < now.said[e]; n++) now.kinds[AT(e, n + 1)] = now.terms[AT(e, n + 1)] = 0;
        if (need < now.said[e]) now.said[e] = need;
    }
}

/* Not where there are snapshots, claims or restarts: there a configuration, a log or a vote also changes in other ways. */
#if SNAPSHOTS == 0 && CLAIMS == 0 && RESTARTS == 0
static int majority(int set, int of)
{
    return 2 * __builtin_popcount(set & of) > __builtin_popcount(of);
}

/* Who cannot lead in its term, and whom nobody can vote for any more, is a follower that has voted; of who can lead, it does not matter by
 * whose votes. */
static void reduce_candidates(void)
{
    for (int c = 0; c < N; c++) {
        if (now.role[c] != CANDIDATE) continue;
        int voters = now.old[c] | now.new[c], may = 0;
        for (int v = 0; v < N; v++) {
            int votes = now.term[v] < now.term[c] || (now.term[v] == now.term[c] && !now.voted[v]);
            if ((voters >> v & 1) && votes && now.role[v] != DEAD) may = 1;
        }
        if (majority(now.votes[c], now.new[c]) && majority(now.votes[c], now.old[c])) {
            now.votes[c] = voters;
        } else if (!may) {
            now.role[c] = FOLLOWER;
            now.votes[c] = 0;
        }
    }
}

/* A leader that cannot commit anything more, for too many of its new set have gone on to later terms, need not know what is held: its
 * followers take its entries as those of a leader of the past, without acknowledging what they hold already. That such a one does not enter the term
 * without an entry loses no run: in its earlier term it could do all the same. */
static void reduce_leaders(void)
{
    for (int e = 1; e <= TERMS; e++) {
        int i = now.leads[e] - 1, may = 0;
        if (i < 0) continue;
        for (int v = 0; v < N; v++)
            if (now.term[v] <= e || now.accepted[e * N + v] > now.committed[e]) may |= 1 << v;
        if (majority(may, now.new[i])) continue;
        now.leads[e] = 0;
        for (int v = 0; v < N; v++) now.accepted[e * N + v] = 0;
    }
}
#else
#define reduce_candidates() ((void)0)
#define reduce_leaders()    ((void)0)
#endif

static void reduce(void)
{
    unsigned long key[N];
    unsigned char at[N], to[N], copy[N];
    int sorted = 1;
    reduce_candidates();
    reduce_leaders();
    reduce_logs();
    for (int i = 0; i < N; i++) {
        unsigned long known = 0;
        for (int e = 1; e <= TERMS; e++) {
            known = known << 4 | now.accepted[e * N + i];
            for (int n = 1; n <= now.said[e]; n++)
                if (now.kinds[AT(e, n)] >= FINAL && now.terms[AT(e, n)] == e)
                    known = known << 1 | (now.kinds[AT(e, n)] >> i & 1);
        }
        for (int c = 0; c < N; c++)
            if (now.votes[c] >> i & 1) known += 1ul << (40 + 3 * now.term[c]);
        key[i] = ((((unsigned long)now.role[i] * 4 + now.term[i]) * 2 + now.voted[i]) * 4 + now.last[i]) * 16 + now.length[i];
        key[i] = key[i] << 52 ^ key[i] >> 12 << 60 ^ known;
        int n = i;
        for (; n > 0 && key[at[n - 1]] > key[i]; n--) at[n] = at[n - 1], sorted = 0;
        at[n] = i;
    }
    if (sorted) return;
    for (int i = 0; i < N; i++) to[at[i]] = i;
#define MOVE(what)                                                                                                    \
    do {                                                                                                              \
        for (int i = 0; i < N; i++) copy[i] = (what)[at[i]];                                                          \
        for (int i = 0; i < N; i++) (what)[i] = copy[i];                                                              \
    } while (0)
    for (int i = 0; i < N; i++) {
        now.old[i] = reduced_set(now.old[i], to);
        now.new[i] = reduced_set(now.new[i], to);
        now.votes[i] = reduced_set(now.votes[i], to);
#if CLAIMS > 0
        now.ahead[i] = reduced_set(now.ahead[i], to);
#endif
    }
    MOVE(now.role);
    MOVE(now.term);
    MOVE(now.voted);
    MOVE(now.last);
    MOVE(now.length);
    MOVE(now.old);
    MOVE(now.new);
    MOVE(now.votes);
#if CLAIMS > 0
    MOVE(now.claim);
    MOVE(now.claim_last);
    MOVE(now.claim_length);
    MOVE(now.ahead);
#endif
#if SEALS > 0
    MOVE(now.seal);
    MOVE(now.sealed);
#endif
    for (int e = 1; e <= TERMS; e++) {
        MOVE(now.accepted + e * N);
        if (now.leads[e]) now.leads[e] = 1 + to[now.leads[e] - 1];
        for (int n = 1; n <= now.said[e]; n++)
            if (now.kinds[AT(e, n)] >= FINAL)
                now.kinds[AT(e, n)] = (now.kinds[AT(e, n)] & ~SET) | reduced_set(now.kinds[AT(e, n)] & SET, to);
    }
}
};
#else
#define REDUCED skip
#endif

/* m: how many entries the log (a, n) and the log (b, o) have in common. */
inline common(a, n, b, o) {
    m = 0;
    do
    :: m < n && m < o && terms[AT(a, m + 1)] == terms[AT(b, m + 1)] -> m++
    :: else -> break
    od
}

/* The newest configuration in the first length[i] entries of i's log. s: where it stands. */
inline configure(i) {
    j = length[i];
    s = 0;
    do
    :: j == 0 -> break
    :: j > 0 && kinds[AT(last[i], j)] >= JOINT -> new[i] = kinds[AT(last[i], j)] & SET; s = j; j--
    :: j > 0 && kinds[AT(last[i], j)] >= FINAL && kinds[AT(last[i], j)] < JOINT ->
        old[i] = kinds[AT(last[i], j)] & SET;
        if
        :: s == 0 -> new[i] = old[i]; s = j
        :: else
        fi;
        break
    :: else -> j--
    od;
    j = 0
}

/* i leads no more. */
inline resign(i) {
    if
    :: role[i] == LEADER ->
        committed[term[i]] = 0;
        leads[term[i]] = 0;
        j = 0;
        do
        :: j < N -> accepted[term[i] * N + j] = 0; j++
        :: else -> break
        od;
        j = 0
    :: else
    fi;
    votes[i] = 0;
    role[i] = FOLLOWER
}

/* i commits the longest prefix that ends in an entry of its own term and that majorities hold, as soon as that is so: the
 * earliest commit asks the most of what follows, and forbids nothing. */
#ifdef OLD_TERM_COMMIT
#define OWN(i, n) true
#else
#define OWN(i, n) (terms[AT(term[i], n)] == term[i] || (n) == ENDS(term[i]))
#endif
inline commit(i) {
    k = said[term[i]];
    do
    :: k > committed[term[i]] && OWN(i, k) ->
        s = 0;
        j = 0;
        do
        :: j < N ->
            if
            :: accepted[term[i] * N + j] >= k -> s = s | BIT(j)
            :: else
            fi;
            j++
        :: else -> break
        od;
        j = 0;
        if
        :: QUORUM(s, i) -> break
        :: else -> k--
        fi
    :: else -> k = 0; break
    od;
    if
    :: k > 0 ->
        common(term[i], k, chosen_last, chosen_length);
        assert(m == k || m == chosen_length); /* all that is committed agrees */
        if
        :: k > chosen_length -> chosen_last = terms[AT(term[i], k)]; chosen_length = k; chosen_in = term[i]
        :: else
        fi;
        committed[term[i]] = k
    :: else
    fi;
    k = 0;
    m = 0;
    s = 0
}

/* i, leader of term[i], appends one entry. */
inline write(i, kind) {
    said[term[i]]++;
    kinds[AT(term[i], said[term[i]])] = kind;
    terms[AT(term[i], said[term[i]])] = term[i];
    length[i] = said[term[i]];
    last[i] = term[i];
    accepted[term[i] * N + i] = length[i];
    if
    :: kind >= FINAL -> configure(i)
    :: else
    fi;
    commit(i)
}

inline stand(i, e) {
    d_step {
        UP(i) && IN(i, i) && e > term[i] && e <= top + 1 ->
        resign(i);
        role[i] = CANDIDATE;
        term[i] = e;
        voted[i] = true;
        votes[i] = BIT(i) | AHEAD(i, e);
        if
        :: e > top -> top = e
        :: else
        fi;
        REDUCED
    }
}

/* Raft 3.6.1: once a term, to a log at least as long as the own one. A member votes for whoever counts its vote, also if its
 * own log does not name it a voter yet, or no more, or is empty: the machine could not form, or the candidate's change end, without it. */
inline vote(v, c) {
    d_step {
        role[c] == CANDIDATE && UP(v) && IN(v, c) &&
        (term[v] < term[c] || (term[v] == term[c] && !voted[v])) &&
        (VOTE_TERM(c) > VOTE_TERM(v) || (VOTE_TERM(c) == VOTE_TERM(v) && length[c] >= length[v])) ->
        resign(v);
        term[v] = term[c];
        voted[v] = true;
        votes[c] = votes[c] | BIT(v);
        REDUCED
    }
}

#if CLAIMS > 0
/* i, which leads nobody, asks for votes of a later term and stays in its own. */
inline claim_votes(i, e) {
    d_step {
        UP(i) && role[i] != LEADER && IN(i, i) && e > term[i] && e <= top + 1 && claims < CLAIMS ->
        claims++;
        if
        :: claim[i] != e -> ahead[i] = 0
        :: else
        fi;
        claim[i] = e;
        claim_last[i] = VOTE_TERM(i);
        claim_length[i] = length[i];
        if
        :: e > top -> top = e
        :: else
        fi;
        REDUCED
    }
}

/* v takes i's claim for the request of a candidate of that term. */
inline vote_ahead(v, i) {
    d_step {
        v != i && UP(v) && UP(i) && claim[i] > term[i] && (term[v] < claim[i] || (term[v] == claim[i] && !voted[v])) &&
        (claim_last[i] > VOTE_TERM(v) || (claim_last[i] == VOTE_TERM(v) && claim_length[i] >= length[v])) ->
        resign(v);
        term[v] = claim[i];
#ifdef AHEAD_NOT_NOTED
        voted[v] = false;
#else
        voted[v] = true;
#endif
        ahead[i] = ahead[i] | BIT(v);
        REDUCED
    }
}
#endif

inline become_leader(i) {
    assert(said[term[i]] == 0); /* one leader a term */
    if
    :: term[i] > chosen_in ->
        common(last[i], length[i], chosen_last, chosen_length);
        assert(m == chosen_length) /* leader completeness */
    :: else
    fi;
    role[i] = LEADER;
    leads[term[i]] = 1 + i;
    votes[i] = 0;
    said[term[i]] = length[i];
    m = 0;
    do
    :: m < length[i] ->
        m++;
        kinds[AT(term[i], m)] = kinds[AT(last[i], m)];
        terms[AT(term[i], m)] = terms[AT(last[i], m)]
    :: else -> break
    od;
    m = 0
}

inline lead(i) {
    d_step {
        role[i] == CANDIDATE && QUORUM(votes[i], i) ->
        become_leader(i);
        write(i, TERM);
        REDUCED
    }
}

#if SEALS > 0
inline lead_sealed(i) {
    d_step {
        role[i] == CANDIDATE && QUORUM(votes[i], i) && seals < SEALS ->
        seals++;
        become_leader(i);
        ends[term[i]] = length[i];
        seal[i] = term[i];
        sealed[i] = length[i];
        accepted[term[i] * N + i] = length[i];
        commit(i);
        REDUCED
    }
}

/* f holds m entries of term e's leader, all that it has sealed: what f holds beyond them goes, unless they are the leader's own,
 * and this an old message. */
inline take_seal(f, e) {
    if
    :: ends[e] && m == ends[e] ->
        if
        :: length[f] > m && terms[AT(last[f], m + 1)] != e ->
            length[f] = m;
            last[f] = terms[AT(e, m)];
            configure(f);
            s = 0
        :: else
        fi;
        if
        :: sealed[f] > length[f] -> sealed[f] = 0
        :: else
        fi;
#ifndef SEAL_NOT_NOTED
        if
        :: length[f] == m -> seal[f] = e; sealed[f] = m
        :: else
        fi
#endif
    :: else
    fi
}
#else
#define take_seal(f, e) skip
#endif

/* f takes an APPEND of term t: first acknowledges what it holds already, then takes the next entry, which ends what it
 * holds beyond the common part. One entry at a time: a message of several is several steps. */
inline append(f, e) {
    d_step {
        UP(f) && said[e] > 0 && e >= term[f] && !(role[f] == LEADER && term[f] == e) ->
        if
        :: last[f] == e -> m = length[f]
        :: else -> common(last[f], length[f], e, said[e])
        fi;
        if
        :: term[f] < e -> resign(f); term[f] = e; voted[f] = false
        :: role[f] == CANDIDATE -> resign(f)
        :: else
        fi;
        take_seal(f, e);
        if
        :: leads[e] && accepted[e * N + f] < m -> accepted[e * N + f] = m; commit(leads[e] - 1)
        :: !(leads[e] && accepted[e * N + f] < m) && m < said[e] ->
            m++;
            if
            :: m <= length[f] || kinds[AT(e, m)] >= FINAL -> s = 1
            :: else -> s = 0
            fi;
#if SEALS > 0
            if
            :: sealed[f] >= m -> sealed[f] = 0
            :: else
            fi;
#endif
            length[f] = m;
            last[f] = terms[AT(e, m)];
            if
            :: s -> configure(f)
            :: else
            fi;
            take_seal(f, e);
            if
            :: leads[e] -> accepted[e * N + f] = m; commit(leads[e] - 1)
            :: else
            fi
        :: else
        fi;
        m = 0;
        s = 0;
        REDUCED
    }
}

/* f takes a snapshot of the first `upto` entries, which are committed, whenever it was sent: it may be of an earlier term. The log
 * that lacks them is gone; one that holds them stays as it is, for what follows may have been acknowledged.
 * A candidate of a later term than theirs stays one. */
inline load(f, upto) {
    d_step {
        UP(f) && role[f] != LEADER && (upto) <= chosen_length ->
        common(last[f], length[f], chosen_last, upto);
        if
#ifdef SNAPSHOT_DROPS_MORE
        :: m < (upto) || length[f] > (upto) ->
#else
        :: m < (upto) ->
#endif
            if
#ifndef SNAPSHOT_KEEPS_CANDIDATE
            :: terms[AT(chosen_last, upto)] == term[f] && role[f] == CANDIDATE -> resign(f)
#endif
            :: terms[AT(chosen_last, upto)] > term[f] -> resign(f); term[f] = terms[AT(chosen_last, upto)]; voted[f] = false
            :: else
            fi;
            length[f] = upto;
            last[f] = terms[AT(chosen_last, upto)];
#if SEALS > 0
            sealed[f] = 0;
#endif
            configure(f);
            s = 0
        :: else
        fi;
        m = 0;
        REDUCED
    }
}

inline propose(i) {
    d_step {
        role[i] == LEADER && commands < ENTRIES && committed[term[i]] >= ENDS(term[i]) ->
        commands++;
        write(i, COMMAND);
        REDUCED
    }
}

/* i starts to replace voter x by y (y == x: by nobody). The spare and the new incarnation are alike, so the spare is the
 * first to be named. One that has never been a voter holds nothing: what it has been sent as a learner it may just as well be sent now. It votes for
 * who counts it, and stands when it holds the entry that names it. */
#ifdef CHANGE_BEFORE_TERM
#define SETTLED(i, n) true
#else
#define SETTLED(i, n) (committed[term[i]] >= n)
#endif
inline change(i, x, y) {
    d_step {
        role[i] == LEADER && changes < CHANGES && SETTLED(i, 1) && old[i] == new[i] && (new[i] & BIT(x)) &&
        (x == y || !(new[i] & BIT(y))) && (x != y || COUNT(new[i]) > 2) &&
        role[y] != DEAD ->
        configure(i);
        if
        :: SETTLED(i, s) ->
            changes++;
            if
            :: x == y -> m = new[i] & ~BIT(x)
            :: else -> m = (new[i] & ~BIT(x)) | BIT(y)
            fi;
            if
            :: x != y && role[y] == ABSENT -> role[y] = FOLLOWER
            :: else
            fi;
            write(i, (JOINT | m))
        :: else
        fi;
        s = 0;
        REDUCED
    }
}

inline finish(i) {
    d_step {
        role[i] == LEADER && SETTLED(i, 1) && old[i] != new[i] ->
        configure(i);
        if
        :: SETTLED(i, s) -> write(i, (FINAL | new[i]))
        :: else
        fi;
        s = 0;
        REDUCED
    }
}

/* All that i knew is gone; what it said may still arrive. */
inline forget(i) {
    resign(i);
    term[i] = 0;
    voted[i] = false;
    last[i] = 0;
    length[i] = 0;
#if SEALS > 0
    seal[i] = 0;
    sealed[i] = 0;
#endif
#if CLAIMS > 0
    claim[i] = 0;
    claim_last[i] = 0;
    claim_length[i] = 0;
    ahead[i] = 0;
#endif
    old[i] = 0;
    new[i] = 0
}

inline crash(i) {
    d_step {
        UP(i) && crashes < CRASHES ->
        crashes++;
        forget(i);
        role[i] = DEAD;
        REDUCED
    }
}

#ifdef RESET_ON_PARTITION
/* A voter without a quorum forgets its promises, and what it has not seen committed. */
inline reset(i) {
    d_step {
        role[i] == FOLLOWER && restarts < RESTARTS ->
        restarts++;
        voted[i] = false;
        length[i] = 1;
        last[i] = 1;
        configure(i);
        s = 0;
        REDUCED
    }
}
#endif

inline restart(i) {
    d_step {
        role[i] == DEAD && restarts < RESTARTS ->
        restarts++;
#ifdef NEW_INCARNATION_VOTES
        role[i] = FOLLOWER; /* takes part as the old one, whose promises it does not know */
        old[i] = 7;
        new[i] = 7
#endif
#ifdef FIRST_INCARNATION_TWICE
        role[i] = FOLLOWER /* is the old one, as far as anybody can tell, and knows nothing */
#endif
        REDUCED
    }
}

#ifdef TRACE
#define STAND  1 /* engine, term */
#define VOTE   2 /* engine, for whom, term */
#define LEAD   3 /* engine, term */
#define ENTRY  4 /* its leader appends: term, index */
#define SENT   5 /* its leader's log has: term, index, term of the entry */
#define HOLDS  6 /* acknowledges: engine, term, index */
#define COMMIT 7 /* its leader has committed: term, index */
#define KNOWS  8 /* knows to be committed: engine, index */
#define CRASH  9  /* engine */
#define JOIN   10 /* engine, for which one that has crashed: as a learner */
#define VOTERS_JOINT 11 /* its leader appends a joint configuration: term, index, new set */
#define VOTERS_FINAL 12 /* or one that is not joint: term, index, set */
#define LOAD   13 /* takes a snapshot: engine, index */
#define CLAIM  14 /* engine, term */
#define AHEAD_VOTE 15 /* engine, for whom, term: of one that has not stood in it yet */
#define END    16

byte stood[TERMS + 1]; /* set of those who have stood in the term */
#if CLAIMS > 0
byte claimed[TERMS + 1]; /* or claimed votes of it */
#endif

chan steps = [0] of {byte, byte, byte, byte};
#include "trace.pml"

#define HOLDS_ALL(f, e, n) (length[f] >= (n) && terms[AT(last[f], n)] == terms[AT(e, n)])

/* f takes entries of term e until it holds n of them, and says so. */
inline hold(f, e, n) {
    said[e] >= n && e >= term[f];
    do
    :: !HOLDS_ALL(f, e, n) || (leads[e] && leads[e] != 1 + f && accepted[e * N + f] < n) -> append(f, e)
    :: else -> break
    od
}

/* v votes for who leads already, or is no candidate any more: of no use to it, and a promise that takes nothing but v's own choices away, so it is no
 * step of the search. */
inline vote_late(v, e) {
    d_step {
        UP(v) && (term[v] < e || (term[v] == e && !voted[v])) && last[v] <= e ->
        resign(v);
        term[v] = e;
        voted[v] = true
    }
}

/* i, leader, starts to replace its voters by `set`: change() for any set, of learners that have joined. */
inline change_to(i, set) {
    d_step {
        role[i] == LEADER && changes < CHANGES && SETTLED(i, 1) && old[i] == new[i] && new[i] != (set) ->
        configure(i);
        if
        :: SETTLED(i, s) -> changes++; write(i, (JOINT | (set)))
        :: else
        fi;
        s = 0
    }
}

/* f has an empty log: a new incarnation, for which one must have crashed. */
inline join(f, crashed) {
    restart(crashed);
    d_step { f == FRESH && role[f] == ABSENT -> role[f] = FOLLOWER }
}

inline follow_trace() {
    byte what, x, y, z;
    do
    :: steps?what,x,y,z;
        if
        :: what == STAND -> stand(x, y); stood[y] = stood[y] | BIT(x)
        :: what == VOTE && role[y] == CANDIDATE && term[y] == z -> vote(x, y)
        :: what == VOTE && !(role[y] == CANDIDATE && term[y] == z) -> stood[z] & BIT(y); vote_late(x, z)
#if CLAIMS > 0
        :: what == CLAIM -> claim_votes(x, y); claimed[y] = claimed[y] | BIT(x)
        :: what == AHEAD_VOTE && claim[y] == z && term[y] < z -> vote_ahead(x, y)
        :: what == AHEAD_VOTE && !(claim[y] == z && term[y] < z) -> claimed[z] & BIT(y); vote_late(x, z)
#endif
        :: what == LEAD -> term[x] == y; lead(x)
        :: what == ENTRY -> leads[x] && said[x] == y - 1; propose(leads[x] - 1)
        :: what == SENT -> said[x] >= y && terms[AT(x, y)] == z
        :: what == HOLDS -> hold(x, y, z)
        :: what == COMMIT -> committed[x] >= y
        :: what == KNOWS -> chosen_length >= y
        :: what == LOAD -> load(x, y)
        :: what == CRASH -> crash(x)
        :: what == JOIN -> join(x, y)
        :: what == VOTERS_JOINT -> leads[x] && said[x] == y - 1; change_to(leads[x] - 1, z); said[x] == y
        :: what == VOTERS_FINAL ->
            leads[x] && said[x] == y - 1 && new[leads[x] - 1] == z;
            if /* the voters stay: other members come or go, of which the model knows nothing */
            :: old[leads[x] - 1] == z -> propose(leads[x] - 1)
            :: else -> finish(leads[x] - 1)
            fi;
            said[x] == y
        :: what == END -> break
        fi
    od;
    printf("accepted\n")
}
#endif

#define EACH(act)       :: act(0) :: act(1) :: act(2) :: act(3) :: act(4)
#define EACH_AND(act, b) :: act(0, b) :: act(1, b) :: act(2, b) :: act(3, b) :: act(4, b)
#define EACH_TO(act, a) :: act(a, 0) :: act(a, 1) :: act(a, 2) :: act(a, 3) :: act(a, 4)
#define CHANGE(a, b) :: change(a, b, 0) :: change(a, b, 1) :: change(a, b, 2) :: change(a, b, 3) :: change(a, b, 4)

init {
    d_step {
        role[SPARE] = ABSENT;
        role[FRESH] = ABSENT;
        /* The machine is formed: 0 leads term 1, and its log has one entry. */
        top = 1;
        term[0] = 1;
        voted[0] = true;
        role[0] = LEADER;
        leads[1] = 1;
        said[1] = 1;
        kinds[0] = FINAL | 7;
        terms[0] = 1;
        length[0] = 1;
        last[0] = 1;
        accepted[1 * N + 0] = 1;
        old[0] = 7;
        new[0] = 7
    }
#ifdef TRACE
    role[SPARE] = FOLLOWER; /* a learner from the start */
    follow_trace()
#else
    do
    EACH(lead)
#if SEALS > 0
    EACH(lead_sealed)
#endif
    EACH_AND(stand, 2)
    EACH_AND(append, 1)
    EACH_AND(append, 2)
#if TERMS > 2
    EACH_AND(stand, 3)
    EACH_AND(append, 3)
#endif
#if TERMS > 3
    EACH_AND(stand, 4)
    EACH_AND(append, 4)
#endif
#if CLAIMS > 0
    EACH_AND(claim_votes, 2)
#if TERMS > 2
    EACH_AND(claim_votes, 3)
#endif
#if TERMS > 3
    EACH_AND(claim_votes, 4)
#endif
    EACH_AND(vote_ahead, 0)
    EACH_AND(vote_ahead, 1)
    EACH_AND(vote_ahead, 2)
    EACH_AND(vote_ahead, 3)
    EACH_AND(vote_ahead, 4)
#endif
    EACH_AND(vote, 0)
    EACH_AND(vote, 1)
    EACH_AND(vote, 2)
    EACH_AND(vote, 3)
    EACH_AND(vote, 4)
#if CHANGES > 0
    CHANGE(0, 0) CHANGE(0, 1) CHANGE(0, 2) CHANGE(0, 3) CHANGE(0, 4)
    CHANGE(1, 0) CHANGE(1, 1) CHANGE(1, 2) CHANGE(1, 3) CHANGE(1, 4)
    CHANGE(2, 0) CHANGE(2, 1) CHANGE(2, 2) CHANGE(2, 3) CHANGE(2, 4)
    CHANGE(3, 0) CHANGE(3, 1) CHANGE(3, 2) CHANGE(3, 3) CHANGE(3, 4)
    CHANGE(4, 0) CHANGE(4, 1) CHANGE(4, 2) CHANGE(4, 3) CHANGE(4, 4)
#endif
    EACH(finish)
    EACH(propose)
#if SNAPSHOTS > 0
    EACH_AND(load, 2)
    EACH_AND(load, 3)
    EACH_AND(load, 4)
#endif
    EACH(crash)
    EACH(restart)
#ifdef RESET_ON_PARTITION
    EACH(reset)
#endif
    od
#endif
}
