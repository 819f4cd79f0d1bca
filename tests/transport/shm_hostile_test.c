/* A hostile peer on a shared-memory link: whatever it does, the victim's link ends with RF_ERR_PROTOCOL or goes on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shm_hostile.h"

#include "base/log.h"
#include "base/prng.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

static const rf_transport_t *const shm = &rf_transport_shm;

static void open_link(hostile_t *h)
{
    assert_true(hostile_open(h));
}

static void open_up(hostile_t *h)
{
    open_link(h);
    hostile_greet(h);
    assert_int_equal(h->ups, 1);
}

static void poll_some(hostile_t *h)
{
    rf_slot_t slots[8];
    for (unsigned i = 0; i < 4; i++) shm->poll(h->link, slots, 8);
    hostile_progress(h);
}

/* The link is over, by the peer's fault, reported once, and still answers every call. */
static void assert_refused(hostile_t *h)
{
    poll_some(h);
    assert_int_equal(h->ends, 1);
    assert_int_equal(h->why, RF_ERR_PROTOCOL);
    assert_int_equal(h->link->state, RF_LINK_STATE_DEAD);
    rf_slot_t slot = {.control = rf_control_make(1, 0, false, 0)};
    assert_int_equal(shm->send(h->link, &slot, 1), 0);
    assert_int_equal(shm->room(h->link, 1), 0);
    assert_int_equal(shm->flush(h->link), RF_ERR_PROTOCOL);
    assert_int_equal(shm->poll(h->link, &slot, 1), 0);
    shm->arm(h->link);
    assert_false(shm->ready(h->link));
    shm->disarm(h->link);
    rf_region_t *region;
    assert_int_equal(shm->region_create(h->link, 4096, &region), RF_ERR_PROTOCOL);
    rf_link_stats_t stats;
    shm->stats(h->link, &stats);
    assert_int_equal(stats.protocol_errors, 1);
    hostile_close(h);
}

static int unsealed_memory(size_t size)
{
    int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    return fd;
}

static void memory_is_checked_before_it_is_mapped(void **state)
{
    (void)state;
    hostile_t h;
    int large;
    assert_int_equal(rf_memory_create("hostile", 4 * RF_PAGE, &large), RF_OK);
    int bad[] = {unsealed_memory(RF_PAGE), large, open("/dev/null", O_RDWR | O_CLOEXEC)};
    for (unsigned i = 0; i < 3; i++) {
        for (unsigned which = 0; which < 3; which++) { /* head, ring, doorbell */
            open_link(&h);
            shm_side_t hello = hostile_hello();
            hello.hello.doorbell = SHM_BELL_FUTEX;
            int fds[] = {h.head_fd, h.ring_fd, h.head_fd};
            fds[which] = bad[i];
            hostile_say(&h, &hello, SHM_SIDE_SIZE(hello), fds, 3);
            assert_refused(&h);
        }
    }
    for (unsigned i = 0; i < 3; i++) close(bad[i]);
}

static void our_memory_cannot_be_cut_or_written(void **state)
{
    (void)state;
    hostile_t h;
    open_link(&h);
    shm_side_t hello;
    size_t size = sizeof hello;
    int fds[RF_FDS_PER_MESSAGE_MAX];
    assert_int_equal(rf_fd_receive(h.socket, &hello, &size, fds, RF_FDS_PER_MESSAGE_MAX), RF_OK);
    assert_int_equal(hello.type, SHM_SIDE_HELLO);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(ftruncate(fds[i], 0), -1);
        void *writable = mmap(NULL, RF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i], 0);
        if (i == 0)
            assert_ptr_equal(writable, MAP_FAILED); /* the head: our asleep word is in it */
        else
            munmap(writable, RF_PAGE); /* the ring may be: we never read it */
        /* Opened again for writing, as its owner may, it still cannot be cut. */
        char path[32];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fds[i]);
        int again = open(path, O_RDWR | O_CLOEXEC);
        assert_true(again >= 0);
        assert_int_equal(ftruncate(again, 0), -1);
        assert_int_equal(errno, EPERM);
        close(again);
        close(fds[i]);
    }
    hostile_close(&h);
}

static void a_hello_is_checked(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 9; kind++) {
        hostile_t h;
        open_link(&h);
        shm_side_t hello = hostile_hello();
        int fds[] = {h.head_fd, h.ring_fd, h.ring_fd};
        size_t size = SHM_SIDE_SIZE(hello);
        unsigned n_fds = 2;
        switch (kind) {
        case 0:
            hello.magic++;
            break;
        case 1:
            hello.reserved = 1;
            break;
        case 2:
            size--;
            break;
        case 3:
            n_fds = 1;
            break;
        case 4:
            n_fds = 3;
            break;
        case 5:
            hello.hello.ring_slots = 65;
            break;
        case 6:
            hello.hello.ring_slots = 1u << 31;
            break;
        case 7:
            hello.hello.doorbell = 2;
            break;
        default:
            hello.type = 99;
            break;
        }
        hostile_say(&h, &hello, size, fds, n_fds);
        assert_refused(&h);
    }
}

static void messages_out_of_turn_end_the_link(void **state)
{
    (void)state;
    for (unsigned type = SHM_SIDE_READY; type <= SHM_SIDE_BELL; type++) {
        if (type == SHM_SIDE_REJECT) continue;
        hostile_t h;
        open_link(&h);
        shm_side_t m = {.magic = SHM_SIDE_MAGIC, .type = (uint16_t)type};
        size_t size = type == SHM_SIDE_GROW                              ? SHM_SIDE_SIZE(grow)
                      : type == SHM_SIDE_FDS                             ? SHM_SIDE_SIZE(fds)
                      : type == SHM_SIDE_REGION || type == SHM_SIDE_DROP ? SHM_SIDE_SIZE(region)
                                                                         : SHM_SIDE_HEAD;
        hostile_say(&h, &m, size, NULL, 0);
        assert_refused(&h);
    }
    hostile_t h;
    open_up(&h);
    hostile_greet(&h); /* once more */
    assert_refused(&h);
}

static void rejection_by_garbage_is_still_an_end(void **state)
{
    (void)state;
    hostile_t h;
    open_link(&h);
    shm_side_t m = {.magic = SHM_SIDE_MAGIC, .type = SHM_SIDE_REJECT};
    m.reject.err = 123456;
    hostile_say(&h, &m, SHM_SIDE_SIZE(reject), NULL, 0);
    assert_int_equal(h.ends, 1);
    assert_int_equal(h.why, RF_ERR_PROTOCOL);
    hostile_close(&h);
}

static void control_words_are_checked(void **state)
{
    (void)state;
    const uint64_t bad[] = {
        RF_CONTROL_PARITY,                                                     /* type 0 */
        RF_CONTROL_PARITY | rf_control_make(1, 57, false, 0),                  /* too long */
        RF_CONTROL_PARITY | rf_control_make(1, 63, true, 0),                   /* far too long */
        RF_CONTROL_PARITY | rf_control_make(1, 8, false, 0) | 1ull << 48,      /* reserved bits */
        RF_CONTROL_PARITY | rf_control_make(1, 8, false, 0) | 1ull << 63,      /* the last of them */
        RF_CONTROL_PARITY | rf_control_make(RF_SLOT_TYPE_MEDIUM, 0, false, 0), /* unknown to the medium */
        RF_CONTROL_PARITY | rf_control_make(0xff, 0, false, 0),
        RF_CONTROL_PARITY | rf_control_make(SHM_SLOT_SWITCH, 0, false, 0), /* to a ring that was not passed */
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        hostile_t h;
        open_up(&h);
        atomic_store(&h.ring[0].control, bad[i]);
        assert_true(shm->ready(h.link));
        assert_refused(&h);
    }
}

static void acknowledgements_are_checked(void **state)
{
    (void)state;
    rf_slot_t slots[HOSTILE_SLOTS];
    memset(slots, 0, sizeof slots);
    for (unsigned i = 0; i < HOSTILE_SLOTS; i++) slots[i].control = rf_control_make(1, 0, false, 0);
    for (unsigned i = 0; i < 6; i++) {
        unsigned kind = i % 3;
        bool asleep = i >= 3; /* found out in the last look before sleeping: there is an end to be told of */
        hostile_t h;
        open_up(&h);
        unsigned sent = shm->send(h.link, slots, HOSTILE_SLOTS);
        assert_int_equal(sent, HOSTILE_SLOTS - RF_RING_SLOTS_RESERVED);
        if (kind == 0) {                          /* more than was sent, by the line */
            atomic_store(&h.head->ack, sent + 2); /* arm() sends one itself */
        } else if (kind == 1) {                   /* slots of its own that it can never have sent */
            atomic_store(&h.head->ack, sent | 0x7fffffffull << 32);
        } else { /* more than was sent, in a slot */
            atomic_store(&h.ring[0].control, RF_CONTROL_PARITY | rf_control_make(1, 0, false, 0) |
                                                 (uint64_t)(sent + 2) << RF_CONTROL_ACK_SHIFT);
            assert_int_equal(shm->poll(h.link, slots, 1), 1);
        }
        if (asleep) {
            shm->arm(h.link);
            assert_true(shm->ready(h.link));
        } else {
            assert_int_equal(shm->send(h.link, slots, 1), 0);
        }
        assert_refused(&h);
    }
}

static void notify_ring_is_checked(void **state)
{
    (void)state;
    hostile_t h;
    open_up(&h);
    atomic_store(&h.head->notify[0].control, RF_CONTROL_PARITY | rf_control_make(0xf5, 0, false, 0));
    atomic_store(&h.head->attention, 1);
    assert_refused(&h);

    open_up(&h);
    int fd;
    assert_int_equal(rf_memory_create("hostile", RF_PAGE, &fd), RF_OK);
    shm_side_t region = {.magic = SHM_SIDE_MAGIC, .type = SHM_SIDE_REGION};
    region.region.id = 1;
    region.region.size = 100;
    hostile_say(&h, &region, SHM_SIDE_SIZE(region), &fd, 1);
    atomic_store(&h.head->notify_ack, 5); /* nothing was sent yet */
    rf_region_key_t key = {.bytes = {1}};
    rf_slot_t slot = {.control = rf_control_make(1, 0, false, 0)};
    assert_int_equal(shm->remote_write(h.link, &key, 0, "x", 1, &slot, 0), RF_ERR_PROTOCOL);
    close(fd);
    assert_refused(&h);
}

static void growth_is_checked(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 5; kind++) {
        hostile_t h;
        open_up(&h);
        int fd, other = unsealed_memory(128 * sizeof(shm_cell_t));
        assert_int_equal(rf_memory_create("hostile", 128 * sizeof(shm_cell_t), &fd), RF_OK);
        shm_side_t grow = {.magic = SHM_SIDE_MAGIC, .type = SHM_SIDE_GROW};
        grow.grow.ring_slots = kind == 0 ? 64 : kind == 1 ? 100 : kind == 2 ? 1u << 20 : 128;
        hostile_say(&h, &grow, SHM_SIDE_SIZE(grow), kind == 3 ? &other : &fd, 1);
        if (kind == 4) { /* a second one before the switch */
            assert_int_equal(h.ends, 0);
            hostile_say(&h, &grow, SHM_SIDE_SIZE(grow), &fd, 1);
        }
        close(fd);
        close(other);
        assert_refused(&h);
    }
}

static void regions_are_checked(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < 4; kind++) {
        hostile_t h;
        open_up(&h);
        int fd, other = unsealed_memory(RF_PAGE);
        assert_int_equal(rf_memory_create("hostile", RF_PAGE, &fd), RF_OK);
        shm_side_t region = {.magic = SHM_SIDE_MAGIC, .type = SHM_SIDE_REGION};
        region.region.id = 7;
        region.region.size = kind == 0 ? 0 : kind == 1 ? UINT64_MAX : 4000;
        hostile_say(&h, &region, SHM_SIDE_SIZE(region), kind == 2 ? &other : &fd, 1);
        if (kind == 3) { /* the same again */
            assert_int_equal(h.ends, 0);
            hostile_say(&h, &region, SHM_SIDE_SIZE(region), &fd, 1);
        }
        close(fd);
        close(other);
        assert_refused(&h);
    }
}

static void too_many_regions_end_the_link(void **state)
{
    (void)state;
    hostile_t h;
    open_up(&h);
    int fd;
    assert_int_equal(rf_memory_create("hostile", RF_PAGE, &fd), RF_OK);
    for (unsigned i = 0; i < 100; i++) {
        shm_side_t region = {.magic = SHM_SIDE_MAGIC, .type = SHM_SIDE_REGION};
        region.region.id = i;
        region.region.size = 1;
        hostile_say(&h, &region, SHM_SIDE_SIZE(region), &fd, 1);
    }
    close(fd);
    assert_refused(&h);
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 1024; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

static void descriptors_of_bad_messages_are_closed(void **state)
{
    (void)state;
    unsigned before = open_descriptors();
    for (unsigned round = 0; round < 20; round++) {
        hostile_t h;
        open_up(&h);
        shm_side_t m = {.magic = SHM_SIDE_MAGIC, .type = (uint16_t)(round % 12)};
        int fds[RF_FDS_PER_MESSAGE_MAX];
        for (unsigned i = 0; i < RF_FDS_PER_MESSAGE_MAX; i++) fds[i] = h.head_fd;
        hostile_say(&h, &m, SHM_SIDE_SIZE(fds) - round % 3, fds, RF_FDS_PER_MESSAGE_MAX);
        hostile_close(&h);
    }
    assert_int_equal(open_descriptors(), before);
}

/* Random words all over ring and head, while the victim polls, sends and waits. */
static void scribbling_does_no_harm(void **state)
{
    (void)state;
    rf_prng_t prng;
    unsigned ended = 0;
    for (unsigned seed = 1; seed <= 200; seed++) {
        rf_prng_seed(&prng, seed);
        hostile_t h;
        open_up(&h);
        _Atomic(uint64_t) *head = (_Atomic(uint64_t) *)h.head, *ring = (_Atomic(uint64_t) *)h.ring;
        for (unsigned step = 0; step < 400 && h.ends == 0; step++) {
            uint64_t word = rf_prng_next(&prng);
            if (rf_prng_below(&prng, 4)) { /* a plausible slot in its place, at times */
                unsigned place = (unsigned)rf_prng_below(&prng, HOSTILE_SLOTS);
                uint64_t control = rf_control_make(1 + word % 3, word % 57, word & 64, 0) |
                                   (word & RF_CONTROL_PARITY) | (word & 0x3full) << RF_CONTROL_ACK_SHIFT;
                atomic_store(&h.ring[place].control, control);
            } else if (rf_prng_below(&prng, 2)) {
                atomic_store(&head[rf_prng_below(&prng, sizeof(shm_head_t) / 8)], word);
            } else {
                atomic_store(&ring[rf_prng_below(&prng, HOSTILE_SLOTS * 8)], word);
            }
            rf_slot_t slots[5];
            unsigned n = shm->poll(h.link, slots, 5);
            for (unsigned i = 0; i < n; i++) {
                assert_true(rf_control_valid(slots[i].control));
                assert_true(rf_control_type(slots[i].control) < RF_SLOT_TYPE_MEDIUM);
            }
            for (unsigned i = 0; i < 5; i++) slots[i].control = rf_control_make(1, 3, false, 0);
            shm->send(h.link, slots, 5);
            shm->flush(h.link);
            shm->arm(h.link);
            shm->ready(h.link);
            shm->disarm(h.link);
        }
        ended += h.ends;
        hostile_close(&h);
    }
    assert_true(ended > 0);
}

static void a_flood_on_the_side_socket_is_bounded(void **state)
{
    (void)state;
    hostile_t h;
    open_up(&h);
    shm_side_t bell = {.magic = SHM_SIDE_MAGIC, .type = SHM_SIDE_BELL};
    unsigned said = 0;
    while (rf_fd_send(h.socket, &bell, SHM_SIDE_HEAD, NULL, 0) == RF_OK && said < 100000) said++;
    hostile_progress(&h); /* returns though more is there */
    assert_int_equal(h.ends, 0);
    close(h.socket);
    h.socket = dup(0);
    for (unsigned i = 0; i < said && h.ends == 0; i++) hostile_progress(&h);
    assert_int_equal(h.why, RF_ERR_PEER_DEAD);
    hostile_close(&h);
}

int main(void)
{
    rf_log_init("shm_hostile_test", RF_LOG_ERROR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_checked_before_it_is_mapped),
        cmocka_unit_test(our_memory_cannot_be_cut_or_written),
        cmocka_unit_test(a_hello_is_checked),
        cmocka_unit_test(messages_out_of_turn_end_the_link),
        cmocka_unit_test(rejection_by_garbage_is_still_an_end),
        cmocka_unit_test(control_words_are_checked),
        cmocka_unit_test(acknowledgements_are_checked),
        cmocka_unit_test(notify_ring_is_checked),
        cmocka_unit_test(growth_is_checked),
        cmocka_unit_test(regions_are_checked),
        cmocka_unit_test(too_many_regions_end_the_link),
        cmocka_unit_test(descriptors_of_bad_messages_are_closed),
        cmocka_unit_test(scribbling_does_no_harm),
        cmocka_unit_test(a_flood_on_the_side_socket_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
