/* Deliberate defects that random runs hardly ever find: a script each, on the network of net.h, that breaks with the defect and holds
 * without. */
#include "net_script.h"

typedef void (*script_fn)(net_t *n);

static bool breaks(script_fn script, net_knobs_t knobs, unsigned defects)
{
    jmp_buf unsafe;
    knobs.defects = defects;
    net_t *n = formed(knobs, 21);
    net_propose(n, 0);
    assert_true(net_all_answered(n, 5 * MS));
    net_run(n, 5 * MS);
    volatile bool breach = true;
    if (setjmp(unsafe) == 0) {
        n->unsafe = &unsafe;
        script(n);
        breach = false;
    }
    net_free(n);
    return breach;
}

static void only_links(net_t *n, const rf_core_t (*links)[2], unsigned n_links)
{
    for (rf_core_t core = 0; core < n->knobs.cores; core++) net_isolate(n, core, true);
    for (unsigned i = 0; i < n_links; i++) net_cut(n, links[i][0], links[i][1], false);
}

static bool leads_now(net_t *n, void *context)
{
    const rf_core_t *of = context; /* the lower of the two, and how many from there on */
    for (rf_core_t core = of[0]; core < of[0] + of[1]; core++) {
        if (net_state(n, core).role == AGREEMENT_ROLE_LEADER) return true;
    }
    return false;
}

static void a_command_only_two_hold(net_t *n)
{
    static const rf_core_t rest[][2] = {{1, 2}};
    net_isolate(n, 2, true);
    unsigned p = net_propose(n, 0);
    assert_true(net_answered(n, p, 3 * MS));
    net_kill(n, 1);
    net_start(n, 1, 2); /* nothing has agreed on that incarnation: it knows nothing, and has no say */
    only_links(n, rest, 1);
    net_run(n, 60 * MS);
}

/* Those that the change needs are cut off when they have answered. */
static void a_joint_change_only_the_leader_holds(net_t *n)
{
    static const rf_core_t again[][2] = {{0, 1}, {0, 3}}, fresh[][2] = {{0, 3}}, others[][2] = {{1, 2}};
    agreement_member_t leave[] = {net_member(n, 1), net_member(n, 2)};
    only_links(n, NULL, 0);
    net_change(n, 0, NULL, 0, leave, 2);
    assert_true(net_state(n, 0).joint);
    net_run(n, 20 * MS);
    only_links(n, again, 2);
    assert_true(net_until(n, leads_now, (rf_core_t[]){0, 1}, 100 * MS));
    only_links(n, fresh, 1);
    net_run(n, 3 * MS); /* of the old voters only one holds the change */
    only_links(n, others, 1);
    net_run(n, 60 * MS); /* so the two others may decide */
}

typedef struct longer {
    rf_core_t core;
    uint64_t than;
} longer_t;

static bool has_more(net_t *n, void *context)
{
    const longer_t *l = context;
    return net_state(n, l->core).last > l->than;
}

/* Raft, figure 8. */
static void an_older_term_on_a_majority(net_t *n)
{
    static const rf_core_t two[][2] = {{0, 1}}, three[][2] = {{2, 3}, {2, 4}, {3, 4}};
    only_links(n, two, 1);
    for (unsigned i = 0; i < 120; i++) net_propose(n, (rf_core_t)(i % 2)); /* more than a message holds */
    net_run(n, 20 * MS);
    only_links(n, three, 3);
    assert_true(net_until(n, leads_now, (rf_core_t[]){2, 3}, 200 * MS));
    only_links(n, NULL, 0); /* its entry of term 2 is nowhere else */
    rf_core_t other = net_state(n, 2).role == AGREEMENT_ROLE_LEADER ? 3 : 2;
    net_run(n, 20 * MS);
    const rf_core_t mixed[][2] = {{0, 1}, {0, other}, {1, other}};
    longer_t longer = {.core = other, .than = net_state(n, other).last + 2};
    only_links(n, mixed, 3);
    assert_true(net_until(n, leads_now, (rf_core_t[]){0, 2}, 200 * MS));
    assert_true(net_until(n, has_more, &longer, 20 * MS));
    n->cut[0][other] = n->cut[1][other] =
        true; /* three of five hold some of the first term, none of the third */
    net_run(n, MS);
    only_links(n, three, 3);
    net_run(n, 200 * MS);
}

static void a_leader_that_stood_still(net_t *n)
{
    n->cores[0].stalled_until_ns = n->now_ns + 1000 * MS;
    assert_true(net_until(n, leads_now, (rf_core_t[]){1, 2}, 100 * MS));
    unsigned p = net_propose(n, 1);
    assert_true(net_answered(n, p, 10 * MS));
    net_read(n, 0);
}

static void defects_break_what_they_should(void **state)
{
    (void)state;
    net_knobs_t three = {.cores = 3}, five = {.cores = 5},
                voters = {.cores = 5, .voters_max = 5, .log_max = 256},
                lease = {.cores = 3, .lease_ns = 4 * MS};
    assert_false(breaks(a_command_only_two_hold, three, 0));
    assert_true(breaks(a_command_only_two_hold, three, AGREEMENT_DEFECT_NEW_INCARNATION_VOTES));
    assert_false(breaks(a_joint_change_only_the_leader_holds, five, AGREEMENT_DEFECT_CHANGE_UNASKED));
    assert_true(breaks(a_joint_change_only_the_leader_holds, five,
                       AGREEMENT_DEFECT_CHANGE_UNASKED | AGREEMENT_DEFECT_CHANGE_BEFORE_TERM));
    assert_false(breaks(an_older_term_on_a_majority, voters, 0));
    assert_true(breaks(an_older_term_on_a_majority, voters, AGREEMENT_DEFECT_OLD_TERM_COMMIT));
    assert_false(breaks(a_leader_that_stood_still, lease, 0));
    assert_true(breaks(a_leader_that_stood_still, lease, AGREEMENT_DEFECT_STALE_NOW));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defects_break_what_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
