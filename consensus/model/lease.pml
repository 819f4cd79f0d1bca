/*
 * Leases, as a model that Spin searches exhaustively (doc/agreement.md, "Why it holds", Leases).
 *
 * Engine 0 leads and serves reads alone while it believes to hold a lease; meanwhile it may change the voters from {0, 1, 2} to
 * {0, 2, 3}: JOINT, then FINAL. Any other engine may be elected. Time passes in steps that all see, and only how long ago something was is kept, so there is no
 * bound on it. Clocks that drift are in the two lengths: a promise of LEASE lasts LEASE - DRIFT by a clock that is fast, and the
 * holder, whose clock may be slow, takes off as much. Rounds older than that are of no use to it, and are lost.
 *
 *      send      round, at a time            the message may take as long as it likes
 *      answer    promises for LEASE          from now on neither votes nor stands
 *      arrive    the answer is known to 0    it counts from when the round was sent
 *
 * An election needs majorities of all sets in the candidate's newest configuration, of engines that hold no more of the changes than it
 * does (the up-to-date check; other entries only make elections rarer), whose promise is over. What is judged by more than
 * that, and loses no run: terms (one later leader is enough), heartbeats without answer, pre-votes, evidence and transfer.
 *
 * Checked: nobody else leads while 0 would answer a read.
 *
 * Deliberate defects: -DELECT_IN_LEASE (a promise forbids nothing), -DNO_DRIFT (nothing is taken off), -DSETS_OF_THEN (the lease is
 * judged by the sets in which the round was answered), -DSINCE_ARRIVAL (it counts from when the answer came).
 */
#ifndef LEASE
#define LEASE 3
#endif
#define DRIFT 1
#define N     4

#define OLD 7  /* {0, 1, 2} */
#define NEW 13 /* {0, 2, 3} */
#define COUNT(s)         (((s) & 1) + (((s) >> 1) & 1) + (((s) >> 2) & 1) + (((s) >> 3) & 1))
#define MAJORITY(s, set) (2 * COUNT((s) & (set)) > COUNT(set))
/* What is held of the changes: 0 none, 1 JOINT, 2 FINAL too. */
#define QUORUM(s, holds) ((holds == 2 || MAJORITY(s, OLD)) && (holds == 0 || MAJORITY(s, NEW)))
#define BIT(i) (1 << (i))

byte holds[N];
byte sent[N];     /* 1 + age of the round that is on its way there; 0: none */
byte answered[N]; /* ... of the one that an answer, on the way back, is to */
byte round[N];    /* ... of the last that 0 knows to be answered */
byte promise[N];  /* how long it still lasts */
byte lease;       /* SETS_OF_THEN: how long it still lasts */
bool deposed;     /* another has been elected */

hidden byte i, s;

#ifdef NO_DRIFT
#define HELD LEASE
#else
#define HELD (LEASE - DRIFT)
#endif

inline judge() {
    s = 1; /* itself */
    i = 1;
    do
    :: i < N && round[i] -> s = s | BIT(i); i++
    :: i < N && !round[i] -> i++
    :: else -> break
    od;
    i = 0
}

inline check() {
    judge();
#ifdef SETS_OF_THEN
    assert(!(deposed && lease > 0));
#else
    assert(!(deposed && QUORUM(s, holds[0])));
#endif
    s = 0
}

inline send(m) {
    d_step {
        !deposed && sent[m] != 1 -> sent[m] = 1
    }
}

/* The engine takes what the message says of the changes, too. */
inline answer(m) {
    d_step {
        sent[m] && !deposed ->
        answered[m] = sent[m];
        sent[m] = 0;
        promise[m] = LEASE - DRIFT
    }
}

inline take(m) {
    d_step {
        !deposed && holds[m] < holds[0] -> holds[m]++
    }
}

inline arrive(m) {
    d_step {
        answered[m] ->
#ifdef SINCE_ARRIVAL
        round[m] = 1;
#else
        round[m] = (round[m] == 0 || answered[m] < round[m] -> answered[m] : round[m]);
#endif
        answered[m] = 0;
#ifdef SETS_OF_THEN
        judge();
        if
        :: QUORUM(s, holds[0]) && HELD + 1 - round[m] > lease -> lease = HELD + 1 - round[m]
        :: else
        fi;
#endif
        check()
    }
}

inline change() {
    d_step {
        holds[0] < 2 ->
        s = 1;
        i = 1;
        do
        :: i < N && holds[i] >= holds[0] -> s = s | BIT(i); i++
        :: i < N && holds[i] < holds[0] -> i++
        :: else -> break
        od;
        i = 0;
        if
        :: holds[0] == 0 || QUORUM(s, 1) -> holds[0]++
        :: else
        fi;
        s = 0;
        check()
    }
}

inline elect(c) {
    d_step {
        !deposed ->
        s = 0;
        i = 1;
        do
#ifdef ELECT_IN_LEASE
        :: i < N && holds[i] <= holds[c] -> s = s | BIT(i); i++
        :: i < N && holds[i] > holds[c] -> i++
#else
        :: i < N && holds[i] <= holds[c] && promise[i] == 0 -> s = s | BIT(i); i++
        :: i < N && !(holds[i] <= holds[c] && promise[i] == 0) -> i++
#endif
        :: else -> break
        od;
        i = 0;
        if
        :: (s & BIT(c)) && QUORUM(s, holds[c]) -> deposed = true
        :: else
        fi;
        s = 0;
        check()
    }
}

#define AGE(what) what = (what == 0 || what == HELD -> 0 : what + 1)

inline pass() {
    d_step {
        i = 1;
        do
        :: i < N ->
            AGE(sent[i]);
            AGE(answered[i]);
            AGE(round[i]);
            promise[i] = (promise[i] == 0 -> 0 : promise[i] - 1);
            i++
        :: else -> break
        od;
        i = 0;
        lease = (lease == 0 -> 0 : lease - 1);
        check()
    }
}

#define OTHERS(step) :: step(1) :: step(2) :: step(3)

init {
    do
    OTHERS(send)
    OTHERS(answer)
    OTHERS(take)
    OTHERS(arrive)
    OTHERS(elect)
    :: change()
    :: pass()
    od
}
