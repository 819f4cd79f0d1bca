/*
 * How the receiver of slots that are written from afar sleeps (transport/rdma/sleep.h), as a model that Spin searches exhaustively: one
 * who writes, one who sleeps, and the device between them.
 *
 * What is not there, and loses no run:
 *
 *   - slots the other way, other links of the same device: they only wake
 *   - acknowledgements and a full ring: rdma_ready() looks after them by itself
 *   - how long anything takes: the timer goes off whenever who sleeps has not been granted, and whoever writes is dead or stands still
 *
 * What is posted lands in its order. What has landed can be seen at any time after; what completes at the receiver does so after
 * it has landed, and then all before it can be seen. The device tells of the first completion after it was asked to. A path may break once, and
 * a writer die: what was under way is lost, and either end hears of a break by itself.
 *
 * Checked: when nothing more can happen, every slot that was written to a path that stands, or was in memory when it ended, has been taken.
 *
 * Deliberate defects: -DNO_LAST_LOOK (armed, it sleeps), -DARMED_LATE (it looks, then arms), -DNOT_RUNG, -DARMED_ONCE (the device is asked
 * once), -DRUNG_UNSEEN (rung since it armed, it sleeps), -DWORD_EARLY (completed before all can be seen), -DSLEEP_KEPT (a new path begins
 * as the one before ended).
 */
#ifndef SLOTS
#define SLOTS 4
#endif
#ifndef BREAKS
#define BREAKS 1
#endif
#define UNDER_WAY 8

mtype = { WRITE, RINGING, GRANT, SLEEP, AWAKE, ASKED, GRANTED, RUNG };

chan out = [UNDER_WAY] of { mtype };  /* posted by the writer, not landed */
chan back = [UNDER_WAY] of { mtype }; /* ... by the receiver */
chan done = [UNDER_WAY] of { mtype }; /* the receiver's completions */

byte posted, placed, seen, taken; /* slots */
mtype state = AWAKE;              /* of the receiver */
bool peer_sleeps;                 /* the writer's next flush rings */
bool notify, tells, told;         /* as the receiver's software has it; the device will tell; it has told */
bool completing;                  /* a RINGING has landed, and has not completed */
bool asleep, dead;
bool broken, fell_here, fell_there; /* the path; and who has heard of it */
bool rises;                         /* a path was made anew, and the receiver has not heard of it */
byte breaks;

#define UP (!broken)

inline complete(what)
{
#ifndef WORD_EARLY
    seen = placed;
#endif
    done!what;
    told = told || tells;
    tells = false
}

/* The device, and time. */
active proctype device()
{
    mtype what;
end:
    do
    :: atomic { !completing && out?[what] && nfull(done) && UP ->
        out?what;
        if
        :: what == WRITE -> placed++
        :: what == RINGING -> placed++; completing = true
        :: what == GRANT -> complete(GRANT)
        fi;
        what = 0 }
    :: atomic { completing && nfull(done) -> completing = false; complete(RUNG) }
    :: atomic { seen < placed -> seen++ }
    :: atomic { breaks < BREAKS && UP ->
        breaks++;
        broken = true;
        completing = false;
        do
        :: out?what
        :: empty(out) -> break
        od;
        do
        :: back?what
        :: empty(back) -> break
        od;
        what = 0 }
    /* both have heard of it: the next path, from what the receiver has, with fresh memory */
    :: atomic { broken && fell_here && (fell_there || dead) && !dead ->
        broken = false;
        fell_here = false;
        fell_there = false;
        posted = taken;
        placed = taken;
        seen = taken;
#ifndef SLEEP_KEPT
        state = AWAKE;
#endif
        peer_sleeps = false;
        rises = true }
    od
}

#define POST(what) if :: UP -> out!what :: else -> skip fi

active proctype writer()
{
    bool grants;
end:
    do
    :: atomic { !dead && posted < SLOTS && !fell_there && nfull(out) ->
        posted++;
        if
#ifndef NOT_RUNG
        :: peer_sleeps -> peer_sleeps = false; POST(RINGING)
#endif
        :: else -> POST(WRITE)
        fi }
    :: atomic { !dead && !grants && back?[SLEEP] -> back?SLEEP; grants = true }
    :: atomic { !dead && grants && nfull(out) -> grants = false; POST(GRANT); peer_sleeps = UP }
    :: atomic { !dead && broken && !fell_there -> fell_there = true; grants = false }
    :: atomic { !dead -> dead = true }
    od
}

/* Takes one completion. */
inline drain_one()
{
    done?what;
    if
    :: broken -> skip /* of a path that is over */
    :: else ->
        if
        :: what == GRANT ->
            found = found || seen > taken;
            taken = seen;
            if
            :: state == ASKED -> state = GRANTED
            :: else -> skip
            fi
        :: what == RUNG ->
            if
            :: state == GRANTED -> state = AWAKE
            :: else -> skip
            fi
        fi
    fi;
    what = 0
}

/* The path is over: what is there is taken, and what has completed names it no more. */
inline fall()
{
    fell_here = true;
    taken = placed;
    seen = placed;
    do
    :: done?what
    :: empty(done) -> break
    od;
    what = 0;
    found = true
}

#ifdef ARMED_LATE
#define AFTER_POLL ready
#define AFTER_ARM  sleep
#define AFTER_LOOK arm
#else
#define AFTER_POLL arm
#ifdef NO_LAST_LOOK
#define AFTER_ARM  sleep
#else
#define AFTER_ARM  ready
#endif
#define AFTER_LOOK sleep
#endif

#ifdef RUNG_UNSEEN
#define OVER false
#else
#define OVER (state == AWAKE && !fell_here)
#endif

active proctype receiver()
{
    mtype what;
    bool found, armed, ever;
poll:
    found = false;
    armed = false;
    do
    :: atomic { done?[what] -> drain_one(); found = true }
    :: atomic { empty(done) -> break }
    od;
    atomic {
        if
        :: broken && !fell_here -> rises = false; fall()
        :: else ->
            rises = false;
            found = found || seen > taken;
            taken = seen
        fi
    }
    atomic {
        if
        :: found -> found = false; goto poll
        :: else -> goto AFTER_POLL
        fi
    }
arm:
    atomic {
        if
        :: !notify ->
            notify = true;
#ifdef ARMED_ONCE
            tells = !ever;
#else
            tells = true;
#endif
            ever = true
        :: else -> skip
        fi
    }
    atomic {
        armed = true;
        if
        :: state == AWAKE && !fell_here ->
            state = ASKED;
            if
            :: UP -> back!SLEEP
            :: else -> skip
            fi
        :: else -> skip
        fi;
        goto AFTER_ARM
    }
ready:
    do
    :: atomic { done?[what] -> drain_one() }
    :: atomic { empty(done) -> break }
    od;
    atomic {
        if
        :: found || seen > taken || (broken && !fell_here) || rises || (armed && OVER) -> found = false; goto poll
        :: else -> goto AFTER_LOOK
        fi
    }
sleep:
    asleep = true;
end:
    if
    :: atomic { told -> told = false; notify = false }
    :: atomic { state == ASKED && dead } /* the timer: only then may anything lean on it */
    :: atomic { rises || (broken && !fell_here) } /* the control link tells */
    fi;
    asleep = false;
    /* (who looks by the timer again and again has an end of it, so that the search sees one) */
    if
    :: atomic { dead && !broken && taken == placed && empty(out) && !completing && empty(done) -> goto over }
    :: else -> goto poll
    fi;
over:
    skip
}

active proctype watch()
{
    timeout -> assert(taken == placed && (dead || posted == SLOTS && placed == SLOTS))
}
