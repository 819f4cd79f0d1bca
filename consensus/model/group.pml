/*
 * Group operations, as a model that Spin searches exhaustively (doc/agreement.md, "The models").
 *
 * Members 0, 1, 2 hold a group that 0 owns; the outsider 3 may join it. Two operations, each one-phase or two-phase, and
 * two departures: a member may leave the view (expelled, dead or not) at any moment, goes on running until it is
 * fenced, and every other learns of the view when it does. A dead member is one that takes no more steps.
 *
 * There are no channels. What the owner says of an operation only grows (`told`), and stays readable by those of its
 * epoch who have not wedged, also when the owner is gone; what a member has done only grows while its epoch lasts, and
 * is what it has acknowledged or reported. A message that is late is a step taken late.
 *
 * Checked: atomicity, nothing visible and nobody answered before stable, one-phase completeness (who is answered may
 * rely on all who are not fenced having applied it), one order everywhere, nothing answered is undone; nobody records a commit while a member
 * that runs has not promised it, and who joins is given the outcome of every operation numbered before.
 *
 * Deliberate defects: -DREPLY_BEFORE_STABLE -DREPORT_BEFORE_WEDGE -DONE_PHASE_UNNUMBERED -DDECIDE_BEFORE_FENCE
 * -DVISIBLE_BEFORE_STABLE -DCOMMIT_BEFORE_PREPARED -DJOIN_AMID_OPERATIONS
 *
 * A member may also have heard of an operation before it does anything with it, and reports it: as the engine does with what is
 * not its turn, or is still being prepared.
 *
 * A view, a fence, and a member's hearing of a view are steps of their own with -DAPART. The search takes them with the decision that waits
 * for them, as one step, which is what makes it small. It loses no run:
 *   - That somebody is expelled is seen by nothing but its fence and who learns of it. A fence is seen by who decides, which waits for it; else it
 *     only ends steps, which are never forced, and makes check_all() ask less. That a member has learned of a view is seen by who decides,
 *     which waits for it; else it only ends what the member itself takes, tells, takes in, installs or, as owner, answers. So each may
 *     as well come later, just before the first decision that waits for it, or not at all: all that was done in between still can be, and no
 *     assertion asks less.
 *   - Decisions fall in the order of the views that they know of: who decides is the first survivor, and whoever would decide by a later view
 *     is the same one, or waits until that one is fenced. So who decides knows of all views that there are, and the next are agreed on just before.
 *   - A survivor may learn of more than the decision waits for: of one who is not in the list of who decides, but in its own. An epoch that has
 *     that one is of an owner that has left, as it knows; so nothing is left to it, either way, but to report or to install what is decided.
 * One operation with two departures is searched with and without -DAPART; each deliberate defect is found both ways, but for REPORT_BEFORE_WEDGE, which is
 * about what a member does when it learns, and so is APART.
 *
 * With -DTRACE, which is APART, the engine's steps decide: trace.pml (trace.sh makes it from what an engine did, sim/steps.h) names one step
 * after the other, each is taken only if the model can take it, and "accepted" is printed if all were.
 *
 * Slices of a larger search: -DONLY_ONE_PHASE -DONLY_TWO_PHASE -DNO_JOIN
 */

#ifndef DEPARTURES
#define DEPARTURES 2
#endif
#ifndef OPERATIONS
#define OPERATIONS 2
#endif
#if (defined(TRACE) || defined(REPORT_BEFORE_WEDGE)) && !defined(APART)
#define APART
#endif

#define N        4
#define OUTSIDER 3

/* Stages of an operation at a member. */
#define NONE      0
#define HEARD     1 /* of it, and nothing done */
#define PREPARED  2
#define REFUSED   3
#define ABORTED   4 /* recorded */
#define COMMITTED 5 /* recorded, invisible */
#define DONE      6 /* applied: visible */

/* What the owner has told. */
#define PREPARE 1
#define COMMIT  2
#define STABLE  3
#define ABORT   4
#define ONE     5 /* one-phase: apply */

#define BIT(i)      (1 << (i))
#define HAS(set, i) (((set) >> (i)) & 1)
#define AT(i, n)    ((i) * OPERATIONS + (n) - 1)
#define FIRST(set)  (HAS(set, 0) -> 0 : (HAS(set, 1) -> 1 : (HAS(set, 2) -> 2 : 3)))
#define RUNS(i)     (!HAS(fenced, i) && epoch[i] > 0)
#define OWNS(i)     (RUNS(i) && !wedged[i] && FIRST(list[i]) == i)
#define COUNT(set)  (HAS(set, 0) + HAS(set, 1) + HAS(set, 2) + HAS(set, 3))
#define SETTLED(n)  ((n) == DONE || (n) == ABORTED)

/* The machine: who left, in the views' order, and who is fenced. */
byte views, left[DEPARTURES + 1], gone_all, fenced;

/* Each member. */
byte known[N];  /* views it knows of */
byte gone[N];   /* who has left, as it knows */
byte epoch[N];  /* 0: does not hold the group; 1 + 2 x views, + 1 with the outsider */
byte list[N];   /* members of that epoch */
bool wedged[N];
byte stage[N * OPERATIONS];
byte told[N * OPERATIONS]; /* as owner of its epoch */
byte last[N];              /* operations numbered, as far as it knows: as owner */
#ifdef REPORT_BEFORE_WEDGE
byte reported[N * OPERATIONS];
#endif

/* History: which operation is which number is never in doubt, for only an owner numbers. */
bool two_phase[OPERATIONS + 1];
bool answered[OPERATIONS + 1], visible[OPERATIONS + 1], undone[OPERATIONS + 1];

hidden byte b, j, k, m, o, s;

/*
 * Not part of the model: what is left of a member that is fenced, when nobody can notice it any more, is forgotten, so
 * that states that differ only in it are one to the search.
 */
#ifdef REDUCE
#define REDUCED c_code { reduce(); }
c_code {
static void reduce(void)
{
    for (int x = 0; x < N; x++) {
        int awaited = 0;
        if (!HAS(now.fenced, x)) continue;
        for (int i = 0; i < N; i++) {
            if (i == x || HAS(now.fenced, i)) continue;
            if (HAS(now.gone[i], x)) continue;
            if (HAS(now.list[i], x) || HAS(now.list[x], i) && now.epoch[i] == 0) awaited = 1;
        }
        if (awaited) continue;
        now.known[x] = now.gone[x] = now.epoch[x] = now.list[x] = now.wedged[x] = now.last[x] = 0;
        for (int n = 1; n <= OPERATIONS; n++) now.stage[AT(x, n)] = now.told[AT(x, n)] = 0;
    }
}
};
#else
#define REDUCED skip
#endif

/* b: all of i's list are in its epoch and have done at least `what` of operation n. */
inline all(i, n, what) {
    b = 1;
    j = 0;
    do
    :: j < N ->
        b = b && (!HAS(list[i], j) || (epoch[j] == epoch[i] && stage[AT(j, n)] >= what));
        j++
    :: else -> break
    od;
    j = 0
}

/* b stays true if operation n is over at all of i's list. */
inline all_settled(i, n) {
    j = 0;
    do
    :: j < N ->
        b = b && (!HAS(list[i], j) || (epoch[j] == epoch[i] && SETTLED(stage[AT(j, n)])));
        j++
    :: else -> break
    od;
    j = 0
}

/* The owner gives the next number to an operation. */
inline number(i, two) {
    d_step {
        OWNS(i) && last[i] < OPERATIONS ->
        all(i, 1, NONE); /* all have installed the epoch */
        if
        :: b ->
            last[i]++;
            /* The number may have been another operation's, which died with those who knew of it. */
            assert(!answered[last[i]] && !undone[last[i]] && !(two_phase[last[i]] && visible[last[i]]));
            visible[last[i]] = false;
            two_phase[last[i]] = two;
            told[AT(i, last[i])] = (two -> PREPARE : ONE)
        :: else
        fi;
        b = 0
    }
}

/* All who are not fenced have it on record, or done. */
inline check_all(n, what) {
    j = 0;
    do
    :: j < N -> assert(!RUNS(j) || stage[AT(j, n)] >= what); j++
    :: else -> break
    od;
    j = 0
}

/* None of i's list who runs has refused it, aborted it, or has still to be asked. */
inline check_promised(i, n) {
    j = 0;
    do
    :: j < N -> assert(!HAS(list[i], j) || !RUNS(j) || stage[AT(j, n)] == PREPARED || stage[AT(j, n)] >= COMMITTED); j++
    :: else -> break
    od;
    j = 0
}

/* The caller is told that it was done, or was not, as soon as that may be: the earliest answer asks the most of what
 * follows, and forbids nothing. */
inline answer(i, n) {
    b = 0;
    if
    :: !OWNS(i) || answered[n] || undone[n]
    :: else ->
        if
#ifdef REPLY_BEFORE_STABLE
        :: told[AT(i, n)] == COMMIT -> b = 1
#endif
        :: told[AT(i, n)] == STABLE -> b = 1
        :: told[AT(i, n)] == ONE -> all(i, n, DONE)
        :: told[AT(i, n)] == ABORT && two_phase[n] -> all(i, n, ABORTED); b = 2 * b
        :: else
        fi
    fi;
    if
    :: b == 1 ->
        check_all(n, (two_phase[n] -> COMMITTED : DONE));
        assert(!undone[n]);
        answered[n] = true
    :: b == 2 ->
        assert(!answered[n] && !visible[n]);
        undone[n] = true
    :: else
    fi;
    b = 0
}

/* The owner takes an operation to its next stage when all members have done this one. */
inline lift(i, n) {
    d_step {
        OWNS(i) && (told[AT(i, n)] == PREPARE || told[AT(i, n)] == COMMIT) ->
        m = 0;
        j = 0;
        do
        :: j < N -> m = m | (HAS(list[i], j) && epoch[j] == epoch[i] && stage[AT(j, n)] == REFUSED); j++
        :: else -> break
        od;
        j = 0;
        if
        :: told[AT(i, n)] == PREPARE && m -> told[AT(i, n)] = ABORT
        :: told[AT(i, n)] == PREPARE && !m ->
#ifdef COMMIT_BEFORE_PREPARED
            b = 1;
#else
            all(i, n, PREPARED);
#endif
            if
            :: b -> told[AT(i, n)] = COMMIT; answer(i, n)
            :: else
            fi
        :: told[AT(i, n)] == COMMIT ->
            all(i, n, COMMITTED);
            if
            :: b -> told[AT(i, n)] = STABLE; answer(i, n)
            :: else
            fi
        :: else
        fi;
        b = 0;
        m = 0
    }
}

inline carry_out(i, n) {
    stage[AT(i, n)] = DONE;
    visible[n] = true;
    assert(!undone[n]);
    if
    :: two_phase[n] -> check_all(n, COMMITTED)
    :: else
    fi;
    assert(n == OPERATIONS || stage[AT(i, n + 1 - (n == OPERATIONS))] != DONE) /* one order */
}

/* A member does what its owner has told of operation n. */
#define TOLD_TO(i, n) told[AT(FIRST(list[i]), n)]
#if defined(ONE_PHASE_UNNUMBERED)
#define IN_TURN(i, n) (TOLD_TO(i, n) == ONE || (n) == 1 || SETTLED(stage[AT(i, (n) - 1)]))
#else
#define IN_TURN(i, n) ((n) == 1 || SETTLED(stage[AT(i, (n) - 1)]))
#endif
inline take(i, n, refuse) {
    d_step {
        RUNS(i) && !wedged[i] && epoch[FIRST(list[i])] == epoch[i] &&
        (!refuse || (TOLD_TO(i, n) == PREPARE && stage[AT(i, n)] <= HEARD)) &&
        ((TOLD_TO(i, n) == PREPARE && stage[AT(i, n)] <= HEARD) ||
         (TOLD_TO(i, n) == COMMIT && stage[AT(i, n)] == PREPARED) ||
         (TOLD_TO(i, n) == STABLE && stage[AT(i, n)] == COMMITTED && IN_TURN(i, n)) ||
         (TOLD_TO(i, n) == ABORT && stage[AT(i, n)] < ABORTED) ||
         (TOLD_TO(i, n) == ONE && stage[AT(i, n)] <= HEARD && IN_TURN(i, n))) ->
        o = FIRST(list[i]);
        if
        :: told[AT(o, n)] == PREPARE -> stage[AT(i, n)] = (refuse -> REFUSED : PREPARED)
        :: told[AT(o, n)] == COMMIT ->
#ifdef VISIBLE_BEFORE_STABLE
            carry_out(i, n)
#else
            stage[AT(i, n)] = COMMITTED;
            check_promised(i, n)
#endif
        :: told[AT(o, n)] == ABORT -> stage[AT(i, n)] = ABORTED; answer(o, n)
        :: told[AT(o, n)] == STABLE || told[AT(o, n)] == ONE -> carry_out(i, n); answer(o, n)
        :: else
        fi;
        o = 0
    }
}

inline hear(i, n) {
    d_step {
        RUNS(i) && !wedged[i] && epoch[FIRST(list[i])] == epoch[i] && stage[AT(i, n)] == NONE &&
        (TOLD_TO(i, n) == PREPARE || TOLD_TO(i, n) == ONE) -> stage[AT(i, n)] = HEARD
    }
}

#ifdef APART
/* The view that expels x is agreed on. */
inline depart(x) {
    d_step {
        views < DEPARTURES && !HAS(gone_all, x) ->
        views++;
        left[views] = x;
        gone_all = gone_all | BIT(x)
    }
}

inline fence(x) {
    d_step {
        HAS(gone_all, x) && !HAS(fenced, x) -> fenced = fenced | BIT(x);
        REDUCED
    }
}

/* i applies the next view: from here on it takes nothing of an epoch that somebody of has left, and reports. */
inline learn(i) {
    d_step {
        !HAS(fenced, i) && known[i] < views && left[known[i] + 1] != i ->
        known[i]++;
        gone[i] = gone[i] | BIT(left[known[i]]);
        if
        :: HAS(list[i], left[known[i]]) ->
#ifdef REPORT_BEFORE_WEDGE
            k = 1;
            do
            :: k <= OPERATIONS -> reported[AT(i, k)] = stage[AT(i, k)]; k++
            :: else -> break
            od;
            k = 0
#else
            wedged[i] = true
#endif
        :: else
        fi;
        REDUCED
    }
}
#endif

#ifdef REPORT_BEFORE_WEDGE
#define REPORT(i, n) reported[AT(i, n)]
#else
#define REPORT(i, n) stage[AT(i, n)]
#endif
#ifdef DECIDE_BEFORE_FENCE
#define SILENT(i) true
#else
#define SILENT(i) ((list[i] & gone[i] & ~fenced) == 0)
#endif

inline answer_all(i) {
    k = 1;
    do
    :: k <= OPERATIONS -> answer(i, k); k++
    :: else -> break
    od;
    k = 0
}

/* i records what the first survivor, o, has decided. */
inline record(i, o) {
    epoch[i] = epoch[o];
    list[i] = list[o];
    wedged[i] = false;
    k = 1;
    do
    :: k <= OPERATIONS ->
        if
        :: told[AT(o, k)] == ABORT -> assert(stage[AT(i, k)] != DONE || !two_phase[k]); stage[AT(i, k)] = ABORTED
        :: told[AT(o, k)] == COMMIT && stage[AT(i, k)] != DONE -> check_promised(i, k); stage[AT(i, k)] = COMMITTED
        :: told[AT(o, k)] == ONE && stage[AT(i, k)] != DONE -> stage[AT(i, k)] = NONE
        :: told[AT(o, k)] == 0 -> stage[AT(i, k)] = NONE
        :: else
        fi;
        k++
    :: else -> break
    od;
    k = 0
}

/* The first survivor decides, m being the highest epoch reported; it records the decisions. */
inline resolve(i) {
    s = 0; /* the highest number known */
    k = OPERATIONS;
    do
    :: k > 0 ->
        told[AT(i, k)] = (s > 0 -> ABORT : 0); /* lost: a number that nobody has, before one that somebody has */
        j = 0;
        do
        :: j < N ->
            if
            :: HAS(list[i] & ~gone[i], j) && epoch[j] == m && REPORT(j, k) != NONE ->
                s = (s > k -> s : k);
                if
                :: !two_phase[k] && (REPORT(j, k) == DONE || REPORT(j, k) == HEARD) -> told[AT(i, k)] = ONE
                :: two_phase[k] && REPORT(j, k) >= COMMITTED -> told[AT(i, k)] = COMMIT
                :: REPORT(j, k) < COMMITTED && told[AT(i, k)] == 0 -> told[AT(i, k)] = ABORT
                :: else
                fi
            :: else
            fi;
            j++
        :: else -> break
        od;
        k--
    :: else -> break
    od;
    last[i] = s;
    j = 0;
    do
    :: j < N && epoch[j] == m && HAS(list[i] & ~gone[i], j) -> s = list[j]; break
    :: else -> j++
    od;
    list[i] = s & ~gone[i];
    epoch[i] = 1 + 2 * known[i] + HAS(list[i], OUTSIDER);
    record(i, i);
    answer_all(i)
}

#ifdef APART
/* ... when all survivors have reported and the departed are fenced. */
inline decide(i) {
    d_step {
        RUNS(i) && (list[i] & gone[i]) && SILENT(i) && FIRST(list[i] & ~gone[i]) == i ->
        b = 1;
        m = 0;
        j = 0;
        do
        :: j < N ->
            if
            :: HAS(list[i] & ~gone[i], j) ->
                b = b && (list[i] & gone[i] & ~gone[j]) == 0; /* in the view in which i wedged, or a later one */
                if
                :: epoch[j] > m -> m = epoch[j]
                :: else
                fi
            :: else
            fi;
            j++
        :: else -> break
        od;
        if
        :: b -> resolve(i)
        :: else
        fi;
        b = 0;
        j = 0;
        k = 0;
        m = 0;
        s = 0;
        REDUCED
    }
}
#else
/* Those of `who` leave, the departed of i's list are fenced, the survivors learn of it all and wedge, and i decides. */
#define LEFT_WITH(who) (gone_all | (who))
inline decide(i, who) {
    d_step {
        RUNS(i) && !((who) & (gone_all | BIT(i))) && views + COUNT(who) <= DEPARTURES && (list[i] & LEFT_WITH(who)) &&
        FIRST(list[i] & ~LEFT_WITH(who)) == i ->
        gone_all = gone_all | (who);
        views = COUNT(gone_all);
#ifndef DECIDE_BEFORE_FENCE
        fenced = fenced | (list[i] & gone_all);
#endif
        m = 0;
        j = 0;
        do
        :: j < N && HAS(list[i] & ~gone_all, j) ->
            known[j] = views;
            gone[j] = gone_all;
            wedged[j] = (list[j] & gone_all) != 0;
            m = (epoch[j] > m -> epoch[j] : m);
            j++
        :: j < N && !HAS(list[i] & ~gone_all, j) -> j++
        :: else -> break
        od;
        resolve(i);
        b = 0;
        j = 0;
        k = 0;
        m = 0;
        s = 0;
        REDUCED
    }
}
#endif

/* i installs o's epoch. Who does not hold the group yet comes last, and is given the group as it is. */
inline install(i, o) {
    d_step {
        !HAS(fenced, i) && epoch[o] > epoch[i] && HAS(list[o], i) && FIRST(list[o]) == o && !(list[o] & gone[i]) ->
        m = 0;
        j = 0;
        do
        :: j < N -> m = m | (j != i && HAS(list[o], j) && epoch[j] != epoch[o]); j++
        :: else -> break
        od;
        j = 0;
        if
        :: epoch[i] > 0 -> record(i, o); answer_all(o)
        :: epoch[i] == 0 && !m ->
            k = 1;
            do
            :: k <= OPERATIONS ->
                assert(told[AT(o, k)] == 0 || SETTLED(stage[AT(o, k)]));
                stage[AT(i, k)] = (stage[AT(o, k)] >= ABORTED -> stage[AT(o, k)] : NONE);
                k++
            :: else -> break
            od;
            k = 0;
            epoch[i] = epoch[o];
            list[i] = list[o];
            answer_all(o)
        :: else
        fi;
        m = 0;
        REDUCED
    }
}

/* The owner takes the outsider in, when nothing is under way. */
inline join(i) {
    d_step {
        OWNS(i) && !HAS(list[i] | gone[i], OUTSIDER) ->
        all(i, 1, NONE);
#ifndef JOIN_AMID_OPERATIONS
        k = 1;
        do
        :: k <= last[i] -> all_settled(i, k); k++
        :: else -> break
        od;
        k = 0;
#endif
        if
        :: b -> list[i] = list[i] | BIT(OUTSIDER); epoch[i]++
        :: else
        fi;
        b = 0
    }
}

#ifdef TRACE
#define NUMBER   1 /* owner, number, two-phase */
#define TOLD     2 /* owner, number, what */
#define STAGE    3 /* member, number, stage */
#define DEPART   4 /* who */
#define FENCE    5 /* who */
#define LEARN    6 /* member: the next view */
#define DECIDE   7 /* member */
#define INSTALL  8 /* member, whose epoch */
#define TAKE_IN  9 /* owner: the outsider */
#define ANSWERED 10 /* number: its caller knows that it was done */
#define DROPPED  11 /* owner: the outsider, which waits no more to be taken in */
#define END      12

chan steps = [0] of {byte, byte, byte, byte};
#include "trace.pml"

/* A PREPARE that comes after another has refused: of no use to anybody, so it is no step of the search. */
inline prepare_late(i, o, n, what) {
    d_step {
        RUNS(i) && !wedged[i] && epoch[o] == epoch[i] && FIRST(list[i]) == o && stage[AT(i, n)] <= HEARD && two_phase[n] &&
        told[AT(o, n)] == ABORT -> stage[AT(i, n)] = what
    }
}

inline follow_trace() {
    byte what, x, y, z, was;
    do
    :: steps?what,x,y,z;
        if
        :: what == NUMBER -> last[x] == y - 1; number(x, z); last[x] == y
        :: what == TOLD && told[AT(x, y)] == z
        :: what == TOLD && told[AT(x, y)] != z -> lift(x, y); told[AT(x, y)] == z
        :: what == STAGE && stage[AT(x, y)] == z
        :: what == STAGE && stage[AT(x, y)] != z ->
            was = FIRST(list[x]);
            if /* applied: so its owner has said that it is stable */
            :: z == DONE && told[AT(was, y)] == COMMIT -> lift(was, y)
            :: else
            fi;
            if
            :: z == HEARD && told[AT(was, y)] != ABORT -> hear(x, y)
            :: z <= REFUSED && told[AT(was, y)] == ABORT -> prepare_late(x, was, y, z)
            :: z == REFUSED && told[AT(was, y)] != ABORT -> take(x, y, true)
            :: z != HEARD && z != REFUSED && !(z == PREPARED && told[AT(was, y)] == ABORT) -> take(x, y, false)
            fi;
            stage[AT(x, y)] == z
        :: what == DEPART -> depart(x)
        :: what == FENCE -> fence(x)
        :: what == LEARN -> learn(x)
        :: what == DECIDE -> was = epoch[x]; decide(x); epoch[x] != was
        :: what == INSTALL -> epoch[x] < epoch[y]; install(x, y); epoch[x] == epoch[y]
        :: what == TAKE_IN -> join(x); HAS(list[x], OUTSIDER)
        :: what == DROPPED ->
            d_step { OWNS(x) && HAS(list[x], OUTSIDER) && epoch[OUTSIDER] == 0 -> list[x] = list[x] & ~BIT(OUTSIDER) }
        :: what == ANSWERED -> answered[x]
        :: what == END -> break
        fi
    od;
    printf("accepted\n")
}
#endif

#define EACH(act)         :: act(0) :: act(1) :: act(2) :: act(3)
#define EACH_NUMBER(act, n) :: act(0, n) :: act(1, n) :: act(2, n) :: act(3, n)
#define EACH_TAKE(n, refuse)  :: take(0, n, refuse) :: take(1, n, refuse) :: take(2, n, refuse) :: take(3, n, refuse)
#define EACH_DECIDE(who)      :: decide(0, who) :: decide(1, who) :: decide(2, who) :: decide(3, who)

init {
    d_step {
        epoch[0] = 1;
        epoch[1] = 1;
        epoch[2] = 1;
        list[0] = 7;
        list[1] = 7;
        list[2] = 7
    }
#ifdef TRACE
    follow_trace()
#else
    do
#ifndef ONLY_TWO_PHASE
    EACH_NUMBER(number, 0)
#endif
#ifndef ONLY_ONE_PHASE
    EACH_NUMBER(number, 1)
#endif
    EACH_NUMBER(lift, 1)
    EACH_TAKE(1, false)
    EACH_TAKE(1, true)
    EACH_NUMBER(hear, 1)
#if OPERATIONS > 1
    EACH_NUMBER(lift, 2)
    EACH_TAKE(2, false)
    EACH_TAKE(2, true)
    EACH_NUMBER(hear, 2)
#endif
#ifdef APART
    EACH(depart)
    EACH(fence)
    EACH(learn)
    EACH(decide)
#else
    EACH_DECIDE(1) EACH_DECIDE(2) EACH_DECIDE(4) EACH_DECIDE(8)
#if DEPARTURES > 1
    EACH_DECIDE(3) EACH_DECIDE(5) EACH_DECIDE(9) EACH_DECIDE(6) EACH_DECIDE(10) EACH_DECIDE(12)
#endif
#if DEPARTURES > 2
    EACH_DECIDE(7) EACH_DECIDE(11) EACH_DECIDE(13) EACH_DECIDE(14)
#endif
#endif
#ifndef NO_JOIN
    EACH(join)
#endif
    :: install(1, 0) :: install(2, 0) :: install(3, 0)
    :: install(2, 1) :: install(3, 1) :: install(3, 2)
    od
#endif
}
