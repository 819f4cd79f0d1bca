/* Doorbells, messages and their assembler, waiting, the registry: on a link that is an array. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/os.h"
#include "transport/message.h"
#include "transport/registry.h"
#include "transport/wait.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a medium of one array ---- */

#define ARRAY_SLOTS 128

typedef struct array_link {
    rf_link_t base;
    rf_slot_t slots[ARRAY_SLOTS];
    unsigned n, room, armed, ready_after; /* ready() says yes after so many looks; 0: never */
} array_link_t;

static unsigned array_room(rf_link_t *link, unsigned want)
{
    array_link_t *a = (array_link_t *)link;
    (void)want;
    return a->room - a->n;
}

static unsigned array_send(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    array_link_t *a = (array_link_t *)link;
    unsigned free_slots = a->room - a->n;
    n = n < free_slots ? n : free_slots;
    memcpy(a->slots + a->n, slots, n * sizeof *slots);
    a->n += n;
    return n;
}

static void array_arm(rf_link_t *link)
{
    ((array_link_t *)link)->armed++;
}
static void array_disarm(rf_link_t *link)
{
    ((array_link_t *)link)->armed--;
}

static bool array_ready(rf_link_t *link)
{
    array_link_t *a = (array_link_t *)link;
    return a->ready_after > 0 && --a->ready_after == 0;
}

static const rf_transport_t array_transport = {
    .abi = RF_TRANSPORT_ABI,
    .name = "array",
    .room = array_room,
    .send = array_send,
    .arm = array_arm,
    .ready = array_ready,
    .disarm = array_disarm,
};

static array_link_t *array_new(unsigned room)
{
    array_link_t *link = calloc(1, sizeof *link);
    assert_non_null(link);
    link->base.transport = &array_transport;
    link->base.state = RF_LINK_STATE_UP;
    link->room = room;
    return link;
}

/* ---- messages ---- */

static void messages_of_every_size_come_back(void **state)
{
    (void)state;
    uint8_t bytes[RF_MESSAGE_MAX];
    for (unsigned i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)(i * 7);
    rf_assembler_t *assembler = calloc(1, sizeof *assembler);
    assert_non_null(assembler);
    array_link_t *link = array_new(ARRAY_SLOTS);
    for (unsigned size = 0; size <= RF_MESSAGE_MAX; size = size < 200 ? size + 1 : size + 61) {
        unsigned heads[] = {0, 8, size / 2, size};
        for (unsigned h = 0; h < 4; h++) {
            unsigned head = heads[h] < size ? heads[h] : size;
            link->n = 0;
            assert_int_equal(rf_message_send2(&link->base, 0x42, bytes, head, bytes + head, size - head),
                             RF_OK);
            for (unsigned i = 0; i < link->n; i++) {
                rf_err_t err = rf_assembler_feed(assembler, &link->slots[i]);
                assert_int_equal(err, i + 1 < link->n ? RF_ERR_AGAIN : RF_OK);
            }
            assert_int_equal(assembler->size, size);
            assert_int_equal(assembler->type, 0x42);
            assert_memory_equal(assembler->bytes, bytes, size);
        }
    }
    free(assembler);
    free(link);
}

static void messages_go_whole_or_not_at_all(void **state)
{
    (void)state;
    uint8_t bytes[RF_MESSAGE_MAX + 1] = {0};
    array_link_t *link = array_new(3);
    assert_int_equal(rf_message_send(&link->base, 1, bytes, 4 * RF_SLOT_PAYLOAD), RF_ERR_AGAIN);
    assert_int_equal(link->n, 0);
    assert_int_equal(rf_message_send(&link->base, 1, bytes, 3 * RF_SLOT_PAYLOAD), RF_OK);
    assert_int_equal(rf_message_send(&link->base, 1, bytes, 0), RF_ERR_AGAIN);
    assert_int_equal(rf_message_send(&link->base, 1, bytes, RF_MESSAGE_MAX + 1), RF_ERR_INVALID);
    assert_int_equal(rf_message_send2(&link->base, 1, bytes, RF_MESSAGE_MAX, bytes, 1), RF_ERR_INVALID);
    assert_int_equal(rf_message_send2(&link->base, 1, bytes, 1, bytes, SIZE_MAX), RF_ERR_INVALID);
    assert_int_equal(rf_message_send(&link->base, 0, bytes, 1), RF_ERR_INVALID);
    assert_int_equal(rf_message_send(&link->base, RF_SLOT_TYPE_MEDIUM, bytes, 1), RF_ERR_INVALID);
    link->base.state = RF_LINK_STATE_DEAD;
    assert_int_equal(rf_message_send(&link->base, 1, bytes, 1), RF_ERR_CLOSED);
    free(link);
}

static void assembler_refuses_nonsense(void **state)
{
    (void)state;
    rf_assembler_t *a = calloc(1, sizeof *a);
    assert_non_null(a);
    rf_slot_t slot = {.control = rf_control_make(5, RF_SLOT_PAYLOAD, true, 0)};
    assert_int_equal(rf_assembler_feed(a, &slot), RF_ERR_AGAIN);
    slot.control = rf_control_make(6, 1, false, 0); /* another type within a message */
    assert_int_equal(rf_assembler_feed(a, &slot), RF_ERR_PROTOCOL);
    memset(a, 0, sizeof *a);
    slot.control = rf_control_make(5, 10, true, 0); /* a short slot with more to come */
    assert_int_equal(rf_assembler_feed(a, &slot), RF_ERR_PROTOCOL);
    slot.control = rf_control_make(5, 57, false, 0); /* longer than a slot */
    assert_int_equal(rf_assembler_feed(a, &slot), RF_ERR_PROTOCOL);
    slot.control = rf_control_make(0, 1, false, 0); /* no type */
    assert_int_equal(rf_assembler_feed(a, &slot), RF_ERR_PROTOCOL);
    slot.control = rf_control_make(5, RF_SLOT_PAYLOAD, true, 0);
    unsigned fed = 0;
    while (rf_assembler_feed(a, &slot) == RF_ERR_AGAIN)
        assert_true(++fed * RF_SLOT_PAYLOAD <= RF_MESSAGE_MAX); /* never longer than a message */
    free(a);
}

/* ---- doorbells ---- */

static void futex_doorbell_remembers_a_ring(void **state)
{
    (void)state;
    rf_doorbell_t mine, theirs;
    assert_int_equal(rf_doorbell_create(&mine), RF_OK);
    assert_int_equal(rf_doorbell_adopt(dup(mine.fd), &theirs), RF_OK);
    uint32_t value = rf_doorbell_value(&mine);
    assert_int_equal(rf_doorbell_wait(&mine, value, rf_clock_ns() + RF_NS_PER_MS), RF_ERR_TIMEOUT);
    rf_doorbell_ring(&theirs);
    assert_int_equal(rf_doorbell_wait(&mine, value, rf_clock_ns() + 10 * RF_NS_PER_S), RF_OK);
    rf_doorbell_destroy(&mine);
    rf_doorbell_destroy(&theirs);
}

static void doorbells_of_strangers_are_checked(void **state)
{
    (void)state;
    rf_doorbell_t bell;
    int unsealed = memfd_create("x", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_int_equal(ftruncate(unsealed, RF_PAGE), 0);
    assert_int_equal(rf_doorbell_adopt(unsealed, &bell), RF_ERR_PROTOCOL);
    int large;
    assert_int_equal(rf_memory_create("x", 2 * RF_PAGE, &large), RF_OK);
    assert_int_equal(rf_doorbell_adopt(large, &bell), RF_ERR_PROTOCOL);
    int ends[2];
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    assert_int_equal(rf_doorbell_adopt(ends[1], &bell), RF_ERR_PROTOCOL);
    int fds[] = {unsealed, large, ends[0], ends[1]};
    for (unsigned i = 0; i < 4; i++) close(fds[i]);
}

/* ---- waiting ---- */

static void budget_follows_success(void **state)
{
    (void)state;
    rf_wait_t wait;
    rf_wait_init(&wait, 40);
    assert_int_equal(wait.budget_us, 40);
    for (unsigned i = 0; i < 20; i++) rf_wait_adapt(&wait, false);
    assert_int_equal(wait.budget_us, 1); /* never nothing: it would not rise again */
    for (unsigned i = 0; i < 20; i++) rf_wait_adapt(&wait, true);
    assert_int_equal(wait.budget_us, 40);
    rf_wait_init(&wait, 0);
    rf_wait_adapt(&wait, true);
    assert_int_equal(wait.budget_us, 0);
}

static void arming_looks_once_more(void **state)
{
    (void)state;
    array_link_t *a = array_new(1), *b = array_new(1);
    rf_link_t *links[] = {&a->base, &b->base};
    assert_true(rf_wait_arm_all(links, 2));
    assert_int_equal(a->armed + b->armed, 2);
    rf_wait_disarm_all(links, 2);
    b->ready_after = 1;
    assert_false(rf_wait_arm_all(links, 2));
    assert_int_equal(a->armed + b->armed, 0);

    rf_doorbell_t bell;
    assert_int_equal(rf_doorbell_create(&bell), RF_OK);
    rf_wait_t wait;
    rf_wait_init(&wait, 0);
    assert_int_equal(rf_wait_links(&wait, &bell, links, 2, rf_clock_ns() + RF_NS_PER_MS), RF_ERR_TIMEOUT);
    assert_int_equal(a->armed + b->armed, 0);
    rf_wait_init(&wait, 1000000);
    b->ready_after = 5;
    assert_int_equal(rf_wait_links(&wait, &bell, links, 2, RF_NEVER), RF_OK);
    rf_doorbell_destroy(&bell);
    free(a);
    free(b);
}

/* ---- registry ---- */

static void registry_finds_and_explains(void **state)
{
    (void)state;
    static const rf_transport_t old = {.abi = RF_TRANSPORT_ABI + 1, .name = "old"};
    const rf_transport_t *found;
    char why[512] = "";
    assert_int_equal(rf_transport_register(&array_transport), RF_OK);
    assert_int_equal(rf_transport_register(&array_transport), RF_OK);
    assert_int_equal(rf_transport_register(&old), RF_ERR_VERSION);
    assert_int_equal(rf_transport_find("array", &found, NULL, 0), RF_OK);
    assert_ptr_equal(found, &array_transport);
    static const rf_transport_t twin = {.abi = RF_TRANSPORT_ABI, .name = "array"};
    assert_int_equal(rf_transport_register(&twin), RF_ERR_EXISTS);
    setenv("RACKFISH_MODULE_PATH", "/nowhere", 1);
    assert_int_equal(rf_transport_find("quantum", &found, why, sizeof why), RF_ERR_NOT_FOUND);
    assert_non_null(strstr(why, "rackfish-quantum.so"));
    assert_non_null(strstr(why, "/nowhere"));
    const char *bad[] = {"", "../etc/passwd", "a/b", "UPPER", "a b"};
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(rf_transport_find(bad[i], &found, why, sizeof why), RF_ERR_NOT_FOUND);
    assert_int_equal(rf_transport_find("quantum", &found, NULL, 0), RF_ERR_NOT_FOUND);
}

static void registry_refuses_files_that_are_no_modules(void **state)
{
    (void)state;
    static const struct {
        const char *name, *needs;
    } media[] = {{"rdma", "install libibverbs1"}, {"dpdk", "install librte-eal23"}};
    char folder[] = "/tmp/rf-modules-XXXXXX", path[64], why[600] = "";
    assert_non_null(mkdtemp(folder));
    setenv("RACKFISH_MODULE_PATH", folder, 1);
    for (unsigned i = 0; i < sizeof media / sizeof *media; i++) {
        snprintf(path, sizeof path, "%s/rackfish-%s.so", folder, media[i].name);
        FILE *file = fopen(path, "w");
        assert_non_null(file);
        fputs("no shared object", file);
        fclose(file);
        const rf_transport_t *found;
        assert_int_equal(rf_transport_find(media[i].name, &found, why, sizeof why), RF_ERR_NOT_FOUND);
        assert_non_null(strstr(why, path));
        assert_non_null(strstr(why, media[i].needs));
        unlink(path);
    }
    rmdir(folder);
}

static void missing_operations_say_so(void **state)
{
    (void)state;
    rf_region_t *region;
    assert_int_equal(rf_missing_region_create(NULL, 1, &region), RF_ERR_NOT_SUPPORTED);
    assert_int_equal(rf_missing_remote_write(NULL, NULL, 0, NULL, 0, NULL, 0), RF_ERR_NOT_SUPPORTED);
    assert_int_equal(rf_missing_remote_read(NULL, NULL, 0, NULL, 0, 0), RF_ERR_NOT_SUPPORTED);
    assert_int_equal(rf_missing_pass_fds(NULL, NULL, 0, NULL, 0), RF_ERR_NOT_SUPPORTED);
    assert_int_equal(rf_missing_peer_credentials(NULL, NULL, NULL), RF_ERR_NOT_SUPPORTED);
    rf_missing_region_destroy(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_of_every_size_come_back),
        cmocka_unit_test(messages_go_whole_or_not_at_all),
        cmocka_unit_test(assembler_refuses_nonsense),
        cmocka_unit_test(futex_doorbell_remembers_a_ring),
        cmocka_unit_test(doorbells_of_strangers_are_checked),
        cmocka_unit_test(budget_follows_success),
        cmocka_unit_test(arming_looks_once_more),
        cmocka_unit_test(registry_finds_and_explains),
        cmocka_unit_test(registry_refuses_files_that_are_no_modules),
        cmocka_unit_test(missing_operations_say_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
