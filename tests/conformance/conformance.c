#include "conformance.h"

#include "base/os.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEY_TYPE 2 /* of slots that carry a region's key */

bool conformance_doorbell = true;

static void end_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    end_t *end = context;
    end->event_link = link;
    switch (event) {
    case RF_LINK_INCOMING:
        end->incoming++;
        end->hello = *info->hello;
        if (end->link == NULL) end->link = link;
        if (!end->leave_incoming) assert_int_equal(link->transport->accept(link, &end->accept), RF_OK);
        break;
    case RF_LINK_UP:
        end->up++;
        end->hello = *info->hello;
        break;
    case RF_LINK_BROKEN:
        end->broken++;
        break;
    case RF_LINK_ROOM:
        end->room++;
        break;
    case RF_LINK_FDS:
        end->fds++;
        break;
    case RF_LINK_WRITTEN:
        end->written++;
        end->written_err = info->err;
        break;
    case RF_LINK_READ:
        end->read++;
        end->read_err = info->err;
        break;
    case RF_LINK_CLOSED:
        end->closed++;
        break;
    case RF_LINK_DEAD:
        end->dead++;
        end->why = info->err;
        break;
    }
    if (end->on_event) end->on_event(end, event, info);
}

bool fixture_can(unsigned flag, const char *what)
{
    if (conformance_fixture->flags & flag) return true;
    print_message("[  not for %s ] %s\n", conformance_fixture->name, what);
    return false;
}

rf_endpoint_params_t world_params(world_t *world, unsigned side)
{
    rf_endpoint_params_t params = {
        .on_event = end_event,
        .context = &world->end[side],
        .doorbell = conformance_doorbell ? &world->end[side].doorbell : NULL,
    };
    params.self.version_major = RF_VERSION_MAJOR;
    params.self.version_minor = RF_VERSION_MINOR;
    params.self.kind = 5;
    params.self.core = (rf_core_t)(100 + side % 2);
    params.self.incarnation = 7 + side;
    memset(params.self.machine.bytes, 0x5a, sizeof params.self.machine.bytes);
    memset(params.self.token, (int)(0x10 + side), sizeof params.self.token);
    params.deadline_ns = world->deadline_ns ? world->deadline_ns : world->fixture->deadline_ns;
    if (world->fixture->params) world->fixture->params(world, side, &params);
    return params;
}

static unsigned ends_open;

void end_open(world_t *world, unsigned side)
{
    end_t *end = &world->end[side];
    const rf_transport_t *t = world->fixture->transport;
    end->world = world;
    end->side = side;
    end->accept = (rf_link_params_t){.socket = -1, .slots = world->slots, .slots_max = world->slots_max};
    end->doorbell.fd = -1;
    if (conformance_doorbell) assert_int_equal(rf_doorbell_create(&end->doorbell), RF_OK);
    rf_endpoint_params_t params = world_params(world, side);
    char address[RF_ADDRESS_MAX];
    if (side == 1) {
        world->fixture->address(world, address);
        params.address = address;
    }
    watch_world(world);
    assert_int_equal(t->endpoint_open(&params, &end->endpoint), RF_OK);
    ends_open++;
    if (side == 1)
        assert_int_equal(t->endpoint_address(end->endpoint, world->address, sizeof world->address), RF_OK);
    else
        assert_int_equal(t->endpoint_address(end->endpoint, address, sizeof address), RF_ERR_NOT_SUPPORTED);
}

void end_close(end_t *end)
{
    if (!end->endpoint) return;
    end->world->fixture->transport->endpoint_close(end->endpoint);
    rf_doorbell_destroy(&end->doorbell);
    end->endpoint = NULL;
    ends_open--;
    end->link = NULL;
}

world_t *world_open(void)
{
    return world_open_until(0);
}

world_t *world_open_until(uint64_t deadline_ns)
{
    world_t *world = calloc(1, sizeof *world);
    assert_non_null(world);
    world->fixture = conformance_fixture;
    world->deadline_ns = deadline_ns;
    rf_prng_seed(&world->prng, 1);
    if (world->fixture->open) world->fixture->open(world);
    end_open(world, 1);
    end_open(world, 0);
    return world;
}

void world_close(world_t *world)
{
    for (unsigned side = 0; side < 3; side++) end_close(&world->end[side]);
    watch_world(NULL);
    if (world->fixture->close) world->fixture->close(world);
    free(world);
}

void end_connect(end_t *end)
{
    world_t *world = end->world;
    rf_link_params_t params = {
        .address = world->address, .socket = -1, .slots = world->slots, .slots_max = world->slots_max};
    assert_int_equal(world->fixture->transport->connect(end->endpoint, &params, &end->link), RF_OK);
}

bool is_up(world_t *world)
{
    assert_int_equal(world->end[0].dead + world->end[1].dead, 0);
    return world->end[0].up > 0 && world->end[1].up > 0;
}

bool is_a_ended(world_t *world)
{
    return world->end[0].dead + world->end[0].closed > 0;
}
bool is_b_ended(world_t *world)
{
    return world->end[1].dead + world->end[1].closed > 0;
}

world_t *world_linked(unsigned slots, unsigned slots_max)
{
    world_t *world = world_open();
    world->slots = slots;
    world->slots_max = slots_max;
    world->end[1].accept.slots = slots;
    world->end[1].accept.slots_max = slots_max;
    end_connect(&world->end[0]);
    world_until(world, is_up, "a link to come up");
    return world;
}

void end_progress(end_t *end)
{
    if (!end->endpoint) return;
    const fixture_t *fixture = end->world->fixture;
    uint64_t next;
    watch_beat();
    fixture->transport->endpoint_progress(
        end->endpoint, fixture->now_ns ? fixture->now_ns(end->world) : rf_clock_ns(), &next);
}

void world_pump(world_t *world)
{
    for (unsigned side = 0; side < 3; side++) end_progress(&world->end[side]);
    if (world->fixture->step) world->fixture->step(world);
}

void world_until(world_t *world, bool (*condition)(world_t *), const char *what)
{
    uint64_t since_ns = rf_clock_ns();
    while (!condition(world)) {
        world_pump(world);
        hang_check(since_ns, what);
    }
}

rf_slot_t slot_make(uint64_t number)
{
    rf_slot_t slot = {
        .words = {number, ~number, number * 3, number * 5, number * 7, number * 11, number * 13},
        .control = rf_control_make(CONFORMANCE_SLOT, RF_SLOT_PAYLOAD, false, (uint16_t)number)};
    return slot;
}

void slot_check(const rf_slot_t *slot, uint64_t number)
{
    rf_slot_t wanted = slot_make(number);
    assert_int_equal(slot->words[0], number);
    assert_memory_equal(slot->words, wanted.words, sizeof wanted.words);
    /* Of the control word the caller's part arrives as sent; the rest is the medium's business. */
    assert_int_equal(rf_control_type(slot->control), CONFORMANCE_SLOT);
    assert_int_equal(rf_control_length(slot->control), RF_SLOT_PAYLOAD);
    assert_int_equal(rf_control_view(slot->control), (uint16_t)number);
    assert_false(rf_control_more(slot->control));
}

unsigned end_send(end_t *end, unsigned n)
{
    const rf_transport_t *t = end->world->fixture->transport;
    rf_slot_t slots[64];
    unsigned taken = 0;
    watch_beat();
    while (taken < n) {
        unsigned batch = n - taken < 64 ? n - taken : 64;
        for (unsigned i = 0; i < batch; i++) slots[i] = slot_make(end->sent + i);
        unsigned k = t->send(end->link, slots, batch);
        assert_true(k <= batch);
        end->sent += k;
        taken += k;
        if (k < batch) break;
    }
    t->flush(end->link);
    return taken;
}

unsigned end_receive(end_t *end, unsigned max)
{
    const rf_transport_t *t = end->world->fixture->transport;
    rf_slot_t slots[64];
    watch_beat();
    unsigned n = t->poll(end->link, slots, max < 64 ? max : 64);
    assert_true(n <= max);
    for (unsigned i = 0; i < n; i++) slot_check(&slots[i], end->got++);
    return n;
}

void world_stream(world_t *world, unsigned from, uint64_t n)
{
    end_t *sender = &world->end[from], *receiver = &world->end[!from];
    uint64_t goal = sender->sent + n, since_ns = rf_clock_ns(), seen = receiver->got;
    while (receiver->got < goal) {
        if (sender->sent < goal)
            end_send(sender, (unsigned)(goal - sender->sent < 64 ? goal - sender->sent : 64));
        unsigned got = end_receive(receiver, 64);
        rf_slot_t none;
        assert_int_equal(world->fixture->transport->poll(sender->link, &none, 1), 0);
        if (got == 0) world_pump(world);
        if (receiver->got != seen) {
            seen = receiver->got;
            since_ns = rf_clock_ns();
        }
        hang_check(since_ns, "slots");
    }
}

void world_written(world_t *world, bool notify)
{
    const rf_transport_t *t = world->fixture->transport;
    end_t *a = &world->end[0], *b = &world->end[1];
    rf_slot_t slot = slot_make(0);
    rf_region_t *region;
    assert_int_equal(t->region_create(b->link, 4096, &region), RF_OK);
    assert_int_equal(t->remote_write(a->link, &region->key, 0, "x", 1, notify ? &slot : NULL, 0), RF_OK);
    uint64_t since_ns = rf_clock_ns();
    for (bool notified = !notify; a->written == 0 || !notified;) {
        world_pump(world);
        t->poll(a->link, &slot, 1);
        notified |= t->poll(b->link, &slot, 1) == 1;
        hang_check(since_ns, "a remote write");
    }
}

rf_region_key_t world_key_over(world_t *world, const rf_region_t *region)
{
    const rf_transport_t *t = world->fixture->transport;
    uint64_t since_ns = rf_clock_ns();
    rf_slot_t slot;
    memset(&slot, 0, sizeof slot);
    memcpy(slot.payload, &region->key, sizeof region->key);
    slot.control = rf_control_make(KEY_TYPE, sizeof region->key, false, 0);
    while (t->send(world->end[1].link, &slot, 1) == 0) {
        world_pump(world);
        hang_check(since_ns, "room for a region's key");
    }
    t->flush(world->end[1].link);
    while (t->poll(world->end[0].link, &slot, 1) == 0) {
        world_pump(world);
        hang_check(since_ns, "a region's key");
    }
    rf_region_key_t key;
    memcpy(&key, slot.payload, sizeof key);
    return key;
}

void bytes_fill(uint8_t *bytes, size_t size, uint64_t seed)
{
    uint64_t x = seed * 0x9e3779b97f4a7c15ull + 1;
    for (size_t i = 0; i < size; i++) {
        x = x * 6364136223846793005ull + 1442695040888963407ull;
        bytes[i] = (uint8_t)(x >> 56);
    }
}

child_t child_start(world_t *world, void (*serve)(world_t *world, const child_t *parent, unsigned argument),
                    unsigned argument)
{
    int down[2], up[2];
    if (ends_open > 0) {
        print_message("[  not now ] a case before this one has failed, and left its ends open\n");
        skip();
    }
    assert_int_equal(pipe(down), 0);
    assert_int_equal(pipe(up), 0);
    pid_t parent = getpid();
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(2);
        close(down[1]);
        close(up[0]);
        child_t self = {.pid = parent, .from = down[0], .to = up[1]};
        serve(world, &self, argument);
        _exit(4);
    }
    close(down[0]);
    close(up[1]);
    return (child_t){.pid = pid, .from = up[0], .to = down[1]};
}

void child_say(const child_t *child, const void *bytes, size_t size)
{
    if (rf_write_all(child->to, bytes, size) != RF_OK) _exit(3);
}

/* The other process says something. Only the parent has a case that fails. */
static void child_wait(const child_t *child)
{
    struct pollfd says = {.fd = child->from, .events = POLLIN};
    int n;
    while ((n = poll(&says, 1, CONFORMANCE_HANG_NS / RF_NS_PER_MS)) < 0 && errno == EINTR) continue;
    if (n > 0) return;
    if (child->pid == getppid()) _exit(3);
    watch_ask(child->pid);
    hang_tell("a word of the other process");
    fail_msg("hangs while waiting for the other process");
}

void child_hear(const child_t *child, void *bytes, size_t size)
{
    char *at = bytes;
    while (size > 0) {
        child_wait(child);
        ssize_t n = read(child->from, at, size);
        if (n < 0 && errno == EINTR) continue;
        assert_true(n > 0);
        at += n;
        size -= (size_t)n;
    }
}

void child_reap(child_t *child)
{
    kill(child->pid, SIGKILL);
    waitpid(child->pid, NULL, 0);
    close(child->from);
    close(child->to);
}

/* Cases alone: name them. */
static bool is_asked(const char *name, char **asked)
{
    bool found = !asked[0];
    for (; *asked; asked++) found = found || strcmp(*asked, name) == 0;
    return found;
}

static int case_begins(void **name)
{
    watch_case(*name);
    return 0;
}

static int case_ends(void **name)
{
    (void)name;
    watch_case(NULL);
    return 0;
}

int main(int argc, char **argv)
{
    (void)argc;
    const struct {
        const struct CMUnitTest *cases;
        size_t n;
    } groups[] = {
        {cases_slots, cases_slots_n}, {cases_life, cases_life_n}, {cases_break, cases_break_n},
        {cases_bulk, cases_bulk_n},   {cases_wait, cases_wait_n}, {cases_process, cases_process_n},
        {cases_fence, cases_fence_n}, {cases_lane, cases_lane_n}, {cases_read, cases_read_n},
    };
    struct CMUnitTest all[128];
    size_t n = 0;
    for (size_t g = 0; g < sizeof groups / sizeof *groups; g++) {
        for (size_t i = 0; i < groups[g].n; i++) {
            if (!is_asked(groups[g].cases[i].name, argv + 1)) continue;
            if (n == sizeof all / sizeof *all) abort();
            all[n] = groups[g].cases[i];
            all[n].initial_state = (void *)(uintptr_t)all[n].name;
            all[n].setup_func = case_begins;
            all[n++].teardown_func = case_ends;
        }
    }
    if (n == 0) {
        fprintf(stderr, "no case of that name\n");
        return 2;
    }
    watch_start();
    return _cmocka_run_group_tests(conformance_fixture->name, all, n, NULL, NULL);
}
