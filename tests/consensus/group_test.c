/* Group operations: each path by itself, on a network that loses nothing. */
#include <stdarg.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "group_net.h"

static net_t net;

static void start(unsigned nodes, unsigned members, group_plan_t plan)
{
    net_init(&net, 1, &(net_knobs_t){.nodes = nodes, .fifo = true, .resend_ns = 1000, .plan = plan});
    net_form(&net, 0, 0, members);
    net_quiet(&net, 100000);
    assert_int_equal(net.others, 1);
    assert_int_equal(net.other_err[0], RF_OK);
}

static void settle(void)
{
    net_quiet(&net, 100000);
    if (net.violation) fail_msg("%s", net.violation);
}

static void finish(void)
{
    net_check_end(&net);
    if (net.violation) fail_msg("%s", net.violation);
    net_free(&net);
}

static unsigned applied(int op)
{
    return (unsigned)__builtin_popcountll(net.ops[op].applied);
}

static void one_phase_reaches_all(void **state)
{
    (void)state;
    for (unsigned plan = 0; plan <= GROUP_PLAN_TREE; plan++) {
        start(8, 8, (group_plan_t)plan);
        int op[4];
        for (unsigned i = 0; i < 4; i++) op[i] = net_operate(&net, i, GROUP_ONE_PHASE, 1);
        settle();
        for (unsigned i = 0; i < 4; i++) {
            assert_true(net.ops[op[i]].ok);
            assert_int_equal(applied(op[i]), 8);
        }
        finish();
    }
}

static void two_phase_any_may_refuse(void **state)
{
    (void)state;
    start(4, 4, GROUP_PLAN_BROADCAST);
    int first = net_operate(&net, 1, GROUP_TWO_PHASE, 1);
    settle();
    assert_true(net.ops[first].ok);
    assert_int_equal(applied(first), 4);
    net.refuse = 1000;
    int second = net_operate(&net, 2, GROUP_TWO_PHASE, 1);
    settle();
    assert_int_equal(net.ops[second].err, RF_ERR_PERMISSION);
    assert_int_equal(applied(second), 0);
    finish();
}

static void pipelined_in_order(void **state)
{
    (void)state;
    start(3, 3, GROUP_PLAN_BROADCAST);
    int ops[6];
    for (unsigned i = 0; i < 6; i++)
        ops[i] = net_operate(&net, 2, i % 2 ? GROUP_ONE_PHASE : GROUP_TWO_PHASE, 1);
    settle();
    for (unsigned i = 1; i < 6; i++) assert_true(net.ops[ops[i]].number > net.ops[ops[i - 1]].number);
    finish();
}

static void window_is_bounded(void **state)
{
    (void)state;
    start(2, 2, GROUP_PLAN_BROADCAST);
    int last = -1;
    for (unsigned i = 0; i <= GROUP_WINDOW; i++) last = net_operate(&net, 1, GROUP_ONE_PHASE, 1);
    assert_int_equal(net.ops[last].err, RF_ERR_AGAIN);
    settle();
    finish();
}

static void joins_between_operations(void **state)
{
    (void)state;
    start(4, 2, GROUP_PLAN_BROADCAST);
    int before = net_operate(&net, 0, GROUP_TWO_PHASE, 1);
    net_change(&net, 3, GROUP_JOIN, 0, 1, 7); /* through one that is not the owner */
    settle();
    int after = net_operate(&net, 3, GROUP_ONE_PHASE, 1);
    settle();
    assert_int_equal(net.other_err[1], RF_OK);
    assert_int_equal(applied(before), 2);
    assert_int_equal(applied(after), 3);
    net_change(&net, 3, GROUP_LEAVE, 0, 0, 8);
    settle();
    assert_int_equal(net.other_err[2], RF_OK);
    assert_false(net.nodes[3].holds[0]);
    int last = net_operate(&net, 0, GROUP_ONE_PHASE, 1);
    settle();
    assert_int_equal(applied(last), 2);
    net_change(&net, 0, GROUP_DESTROY, 0, 0, 9);
    settle();
    assert_int_equal(net.other_err[3], RF_OK);
    group_info_t info;
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(groups_query(net.nodes[i].groups, net_group(0), &info), RF_ERR_NOT_FOUND);
    finish();
}

static void says_what_is_senseless(void **state)
{
    (void)state;
    start(3, 2, GROUP_PLAN_BROADCAST);
    unsigned k = net.others;
    net_change(&net, 1, GROUP_DESTROY, 0, 0, 1);
    net_change(&net, 0, GROUP_LEAVE, 0, 0, 2);
    net_change(&net, 2, GROUP_LEAVE, 0, 0, 3);
    net_change(&net, 1, GROUP_JOIN, 0, 0, 4);
    net_change(&net, 2, GROUP_JOIN, 1, 0, 5);
    settle();
    assert_int_equal(net.other_err[k], RF_ERR_PERMISSION);
    assert_int_equal(net.other_err[k + 1], RF_ERR_PERMISSION);
    assert_int_equal(net.other_err[k + 2], RF_ERR_NOT_FOUND);
    assert_int_equal(net.other_err[k + 3], RF_ERR_EXISTS);
    assert_int_equal(net.other_err[k + 4], RF_ERR_NOT_FOUND);
    int op = net_operate(&net, 2, GROUP_ONE_PHASE, 1);
    assert_int_equal(net.ops[op].err, RF_ERR_NOT_FOUND);
    finish();
}

static void one_phase_waits_for_the_fence(void **state)
{
    (void)state;
    start(3, 3, GROUP_PLAN_BROADCAST);
    net.nodes[2].state = NODE_STALLED; /* its dispatchers run on */
    int op = net_operate(&net, 0, GROUP_ONE_PHASE, 1);
    net_leave_view(&net, 2);
    for (unsigned i = 0; i < 20000; i++) net_step(&net);
    assert_false(net.ops[op].done);
    net_fence(&net, 2);
    settle();
    assert_true(net.ops[op].ok);
    finish();
}

static void owner_dies(unsigned steps, unsigned *committed, unsigned *aborted)
{
    net_init(&net, 1, &(net_knobs_t){.nodes = 4, .fifo = true, .resend_ns = 1000});
    net_form(&net, 0, 0, 4);
    net_quiet(&net, 100000);
    int op = net_operate(&net, 1, GROUP_TWO_PHASE, 1);
    for (unsigned i = 0; i < steps; i++) net_step(&net);
    net_die(&net, 0);
    net_leave_view(&net, 0);
    net_fence(&net, 0);
    settle();
    assert_true(net.ops[op].done);
    if (net.ops[op].ok) {
        ++*committed;
        assert_int_equal(net.ops[op].applied & 14, 14);
    } else {
        ++*aborted;
        assert_int_equal(net.ops[op].err, RF_ERR_CANCELLED);
        assert_int_equal(applied(op), 0);
    }
    int next = net_operate(&net, 3, GROUP_ONE_PHASE, 1);
    settle();
    assert_true(net.ops[next].ok);
    group_info_t info;
    assert_int_equal(groups_query(net.nodes[3].groups, net_group(0), &info), RF_OK);
    assert_int_equal(info.owner.core, 1);
    assert_int_equal(info.epoch, 2);
    finish();
}

/* At every point of the operation: committed anywhere means commit, else abort or begin again. */
static void owner_dies_anywhere(void **state)
{
    (void)state;
    unsigned committed = 0, aborted = 0;
    for (unsigned steps = 0; steps < 120; steps++) owner_dies(steps, &committed, &aborted);
    assert_true(committed > 0 && aborted > 0);
}

static void query(unsigned node, agreement_member_t member, uint64_t counter, rf_err_t expected)
{
    net_event(
        &net, node,
        &(group_event_t){.kind = GROUP_QUERY,
                         .query = {.cookie = (uint64_t)1 << 40,
                                   .id = {.group = net_group(0), .member = member, .counter = counter}}});
    settle();
    assert_int_equal(net.other_err[(net.others - 1) % 64], expected);
}

static void outcome_by_operation_id(void **state)
{
    (void)state;
    start(4, 4, GROUP_PLAN_BROADCAST);
    net_operate(&net, 2, GROUP_TWO_PHASE, 1);
    settle();
    net.refuse = 1000;
    net_operate(&net, 2, GROUP_TWO_PHASE, 1);
    settle();
    net.refuse = 0;
    agreement_member_t two = net.nodes[2].id;
    query(3, two, 1, RF_OK);
    query(3, two, 2, RF_ERR_PERMISSION);
    query(0, two, 3, RF_ERR_UNKNOWN_OUTCOME);
    /* Also when it, and the owner that decided, have died. */
    net_leave_view(&net, 2);
    net_fence(&net, 2);
    net_leave_view(&net, 0);
    net_fence(&net, 0);
    settle();
    query(3, two, 1, RF_OK);
    query(1, two, 2, RF_ERR_PERMISSION);
    net_operate(&net, 1, GROUP_ONE_PHASE, 1);
    for (unsigned i = 0; i < 10; i++) {
        net_operate(&net, 3, GROUP_ONE_PHASE, 1);
        settle();
    }
    query(1, net.nodes[3].id, 1, RF_ERR_UNKNOWN_OUTCOME); /* no longer kept */
    query(1, net.nodes[3].id, 10, RF_OK);
    finish();
}

static void several_objects(void **state)
{
    (void)state;
    net_init(&net, 1, &(net_knobs_t){.nodes = 5, .fifo = true, .resend_ns = 1000});
    net_form(&net, 0, 0, 4);
    net_quiet(&net, 100000);
    net_form(&net, 1, 1, 3);
    net_quiet(&net, 100000);
    net_form(&net, 2, 2, 5);
    net_quiet(&net, 100000);
    int ops[6]; /* from everywhere at once, in all orders: all are carried out, none is refused */
    ops[0] = net_operate(&net, 0, GROUP_TWO_PHASE, 3);
    ops[1] = net_operate(&net, 1, GROUP_TWO_PHASE, 3);
    ops[2] = net_operate(&net, 2, GROUP_TWO_PHASE, 7);
    ops[3] = net_operate(&net, 0, GROUP_TWO_PHASE, 6);
    ops[4] = net_operate(&net, 1, GROUP_TWO_PHASE, 5);
    ops[5] = net_operate(&net, 2, GROUP_ONE_PHASE, 1);
    settle();
    for (unsigned i = 0; i < 6; i++) assert_true(net.ops[ops[i]].ok);
    assert_int_equal(applied(ops[0]), 4);
    assert_int_equal(applied(ops[2]), 5);
    finish();
}

static void lock_holder_dies(void **state)
{
    (void)state;
    for (unsigned steps = 0; steps < 150; steps += 3) {
        net_init(&net, steps + 1, &(net_knobs_t){.nodes = 4, .fifo = true, .resend_ns = 1000});
        net_form(&net, 0, 0, 4);
        net_quiet(&net, 100000);
        net_form(&net, 1, 1, 4);
        net_quiet(&net, 100000);
        net_operate(&net, 2, GROUP_TWO_PHASE, 3);
        for (unsigned i = 0; i < steps; i++) net_step(&net);
        net_die(&net, 2);
        int next = net_operate(&net, 3, GROUP_TWO_PHASE, 3);
        net_leave_view(&net, 2);
        net_fence(&net, 2);
        settle();
        assert_true(net.ops[next].done);
        int last = net_operate(&net, 3, GROUP_TWO_PHASE, 3);
        settle();
        assert_true(net.ops[last].ok);
        finish();
    }
}

static void tree_node_dies(void **state)
{
    (void)state;
    start(7, 7, GROUP_PLAN_TREE);
    net_die(&net, 1); /* feeds two others */
    int op = net_operate(&net, 0, GROUP_ONE_PHASE, 1);
    for (unsigned i = 0; i < 3000; i++) net_step(&net);
    assert_true((net.ops[op].applied & 0x7d) == 0x7d); /* around it, before anybody knows that it is dead */
    assert_false(net.ops[op].done);
    net_leave_view(&net, 1);
    net_fence(&net, 1);
    settle();
    assert_true(net.ops[op].ok);
    finish();
}

/* What is sent because a link takes messages again may be lost too. */
static void lost_after_room(void **state)
{
    (void)state;
    start(3, 3, GROUP_PLAN_BROADCAST);
    net.loss = 1000;
    int op = net_operate(&net, 0, GROUP_ONE_PHASE, 1);
    net_event(&net, 0, &(group_event_t){.kind = GROUP_ROOM, .peer = net.nodes[1].id});
    net.loss = 0;
    settle();
    assert_true(net.ops[op].ok);
    assert_int_equal(applied(op), 3);
    finish();
}

static void parameters(void **state)
{
    (void)state;
    group_params_t p = {.self = {.core = 1, .incarnation = 1},
                        .n_cores = 1,
                        .groups_max = 1,
                        .members_max = 2,
                        .ops_max = 4,
                        .bytes_max = 8,
                        .resend_ns = 1};
    assert_int_equal(groups_size(&p), 0);
    p.n_cores = 2;
    assert_true(groups_size(&p) > 0);
    p.members_max = GROUP_MEMBERS_MAX + 1;
    assert_int_equal(groups_size(&p), 0);
    p.groups_max = 0;
    assert_true(groups_size(&p) > 0);
    size_t size = groups_size(&p);
    void *memory = aligned_alloc(64, size);
    groups_t *g;
    assert_int_equal(groups_init(memory, size - 1, &p, &g), RF_ERR_NO_MEMORY);
    assert_int_equal(groups_init(memory, size, &p, &g), RF_OK);
    assert_non_null(groups_step(g, &(group_event_t){.kind = GROUP_TICK})->ignored);
    free(memory);
    assert_string_equal(groups_type_name(0xdd), "GROUP");
    assert_string_equal(groups_type_name(0xd0), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameters),
        cmocka_unit_test(one_phase_reaches_all),
        cmocka_unit_test(two_phase_any_may_refuse),
        cmocka_unit_test(pipelined_in_order),
        cmocka_unit_test(window_is_bounded),
        cmocka_unit_test(joins_between_operations),
        cmocka_unit_test(says_what_is_senseless),
        cmocka_unit_test(one_phase_waits_for_the_fence),
        cmocka_unit_test(owner_dies_anywhere),
        cmocka_unit_test(outcome_by_operation_id),
        cmocka_unit_test(several_objects),
        cmocka_unit_test(lock_holder_dies),
        cmocka_unit_test(tree_node_dies),
        cmocka_unit_test(lost_after_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
