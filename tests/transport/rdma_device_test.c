/* Devices of the RDMA medium as one seldom sees them: one that is pulled out, and what links have there; and memory that a device may
 * know. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "rdma_verbs_stand_in.h"

#include <linux/netlink.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

/* A device whose descriptors say for ever that there is something, with a link that has a region there. */
static rdma_link_t *device_and_region(rdma_device_t **device, int fds[2], rf_region_t **region)
{
    *device = device_new();
    fds[0] = eventfd(1, EFD_CLOEXEC);
    fds[1] = eventfd(1, EFD_CLOEXEC);
    channel.fd = fds[0];
    context.async_fd = fds[1];
    for (unsigned i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = *device};
        assert_int_equal(epoll_ctl(endpoint->base.epoll, EPOLL_CTL_ADD, fds[i], &event), 0);
    }
    rdma_link_t *link = link_new();
    link->device = *device;
    assert_int_equal(rdma_region_create(&link->base.head, RF_PAGE, region), RF_OK);
    assert_int_equal(domains, 1);
    return link;
}

static void removed_by_its_driver(rdma_device_t *device)
{
    events_left = 1;
    rdma_device_async(device);
}

static void let_go(rdma_device_t *device, enum ibv_event_type type)
{
    event_next = (struct ibv_async_event){.event_type = type};
    events_left = 1;
    rdma_device_async(device);
    event_next = (struct ibv_async_event){.event_type = IBV_EVENT_DEVICE_FATAL};
}

/* It is there, but what all that comes goes through is not any more. */
static void its_completion_queue_has_failed(rdma_device_t *device)
{
    let_go(device, IBV_EVENT_CQ_ERR);
}

static void its_shared_receive_queue_has_failed(rdma_device_t *device)
{
    let_go(device, IBV_EVENT_SRQ_ERR);
}

static void removed_says_the_kernel(rdma_device_t *device)
{
    static const char *const others[] = {"add@/devices/virtual/infiniband_verbs/uverbs7",
                                         "remove@/devices/virtual/infiniband_verbs/uverbs70",
                                         "remove@/devices/virtual/infiniband_mad/uverbs7",
                                         "remove@/devices/virtual/net/uverbs7",
                                         "remove@",
                                         ""};
    static const char message[] = "remove@/devices/virtual/infiniband_verbs/uverbs7\0ACTION=remove";
    snprintf(the_device.dev_name, sizeof the_device.dev_name, "uverbs7");
    for (unsigned i = 0; i < sizeof others / sizeof *others; i++)
        rdma_removal_take(endpoint, others[i], strlen(others[i]) + 1);
    rdma_removal_take(endpoint, message, strlen(message)); /* with no end */
    assert_false(device->gone);
    rdma_removal_take(endpoint, message, sizeof message);
    rdma_removal_take(endpoint, message, sizeof message); /* that it has gone is heard once */
}

static void removed_says_sys(rdma_device_t *device)
{
    snprintf(the_device.dev_path, sizeof the_device.dev_path, "/");
    rdma_removal_look(endpoint);
    assert_false(device->gone);
    snprintf(the_device.dev_path, sizeof the_device.dev_path, "/nowhere");
    rdma_removal_look(endpoint);
}

/* Whoever says it: its descriptors leave the set, links leave it with what they have there, and it is closed; but not before the
 * last path has ended, nor while a link waits to be freed. A region stays. */
static void a_device_that_is_pulled_out_is_let_go(void **state)
{
    (void)state;
    void (*const ways[])(rdma_device_t *) = {removed_by_its_driver, removed_says_the_kernel, removed_says_sys,
                                             its_completion_queue_has_failed,
                                             its_shared_receive_queue_has_failed};
    for (unsigned way = 0; way < sizeof ways / sizeof *ways; way++) {
        rdma_device_t *device;
        rf_region_t *region, *none;
        int fds[2];
        rdma_link_t *link = device_and_region(&device, fds, &region);
        memcpy(region->base, "kept", sizeof "kept");
        struct epoll_event ready[4];
        assert_int_equal(epoll_wait(endpoint->base.epoll, ready, 4, 0), 2);
        device->n_paths = 1;
        ways[way](device);
        assert_true(device->gone);
        assert_int_equal(epoll_wait(endpoint->base.epoll, ready, 4, 0), 0);
        assert_int_equal(rdma_region_create(&link->base.head, RF_PAGE, &none), RF_ERR_AGAIN);
        assert_false(rdma_removal_sweep(endpoint));
        assert_int_equal(endpoint->n_devices, 1);
        device->n_paths = 0;
        device->channel = NULL;
        device->cq = NULL;
        device->srq = NULL;
        path_link_t other;
        endpoint->base.graveyard = &other;
        assert_true(rdma_removal_sweep(endpoint));
        assert_int_equal(closed, 0);
        endpoint->base.graveyard = NULL;
        assert_false(rdma_removal_sweep(endpoint));
        assert_int_equal(endpoint->n_devices, 0);
        assert_int_equal(closed, 1);
        assert_int_equal(domains, 0);
        assert_null(link->device);
        assert_null(link->domain);
        assert_string_equal((const char *)region->base, "kept");
        assert_int_equal(rdma_region_create(&link->base.head, RF_PAGE, &none), RF_ERR_AGAIN);
        link_over(link);
        close(fds[0]);
        close(fds[1]);
        endpoint_over();
    }
}

/* A region is registered at the device that the next path goes over, not while paths over the one before are ending. */
static void regions_follow_their_link(void **state)
{
    (void)state;
    rdma_device_t *device;
    rf_region_t *region, *left;
    int fds[2];
    rdma_link_t *link = device_and_region(&device, fds, &region);
    assert_int_equal(rdma_region_create(&link->base.head, RF_PAGE, &left), RF_OK);
    link->base.control = &link->base.head; /* there is one, and it takes nothing */
    rdma_region_t *first = &rdma_bulk_of(link)->regions[0], *second = first + 1;
    second->gone = true;
    struct ibv_context other = {.device = &the_device};
    rdma_device_t second_device = *device;
    second_device.context = &other;
    link->domain->holders = 2;
    assert_int_equal(rdma_link_enter(link, &second_device), RF_ERR_AGAIN);
    link->domain->holders = 1;
    registered_at = NULL;
    assert_int_equal(rdma_link_enter(link, &second_device), RF_OK);
    assert_ptr_equal(registered_at, region->base);
    assert_int_equal(domains, 1);
    assert_true(first->moved_due && !second->moved_due);
    assert_null(second->memory.mr);
    first->moved_due = false;
    assert_int_equal(rdma_link_enter(link, &second_device), RF_OK); /* it is there */
    assert_false(first->moved_due);
    first->moved_due = true; /* it could not be said, and that device is removed, too */
    rdma_link_leave(link);
    assert_true(rdma_regions_push(link));
    second->gone = false;
    registers = 1; /* where no more memory may be locked it has none, and tries again */
    assert_int_equal(rdma_link_enter(link, &second_device), RF_ERR_NO_MEMORY);
    assert_true(rdma_regions_push(link));
    assert_int_equal(domains, 0);
    assert_null(link->domain);
    registers = UINT_MAX;
    assert_int_equal(rdma_link_enter(link, &second_device), RF_OK);
    assert_true(first->moved_due && second->moved_due);
    link->base.control = NULL;
    link_over(link);
    assert_int_equal(domains, 0);
    close(fds[0]);
    close(fds[1]);
    device_over(device);
}

/* The kernel's messages come to a socket of the endpoint's; those of others are not believed. */
static void strangers_say_nothing_of_devices(void **state)
{
    (void)state;
    static const char message[] = "remove@/devices/virtual/infiniband_verbs/uverbs7";
    rdma_device_t *device = device_new();
    snprintf(the_device.dev_name, sizeof the_device.dev_name, "uverbs7");
    rdma_removal_open(endpoint);
    if (endpoint->uevents < 0) skip(); /* not allowed here */
    struct sockaddr_nl at;
    socklen_t size = sizeof at;
    assert_int_equal(getsockname(endpoint->uevents, (struct sockaddr *)&at, &size), 0);
    at.nl_groups = 0;
    int stranger = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    ssize_t sent = sendto(stranger, message, sizeof message, 0, (struct sockaddr *)&at, sizeof at);
    struct epoll_event ready;
    if (sent > 0) assert_int_equal(epoll_wait(endpoint->base.epoll, &ready, 1, 0), 1);
    rdma_removal_heard(endpoint);
    assert_false(device->gone);
    close(stranger);
    rdma_removal_close(endpoint);
    assert_int_equal(epoll_wait(endpoint->base.epoll, &ready, 1, 0), 0);
    device_over(device);
}

/* Of the mapping that begins there, in KiB; 0: there is none. */
static unsigned page_kib(const void *base)
{
    char line[256], begins[32];
    unsigned kib = 0;
    bool there = false;
    FILE *maps = fopen("/proc/self/smaps", "re");
    assert_non_null(maps);
    snprintf(begins, sizeof begins, "%lx-", (unsigned long)(uintptr_t)base);
    while (fgets(line, sizeof line, maps)) {
        there = there || strncmp(line, begins, strlen(begins)) == 0;
        if (there && sscanf(line, "KernelPageSize: %u kB", &kib) == 1) break;
    }
    fclose(maps);
    return kib;
}

/* Memory of whole huge pages lies in such, as long as the host has any; then, and where it has none, in others. (A guest of
 * tests/lab/rdma/stock_test.sh has some.) */
static void whole_huge_pages_are_used(void **state)
{
    (void)state;
    enum { HUGE_KIB = 2048, MAX = 64 };
    rdma_memory_t memory[MAX], other;
    assert_int_equal(rdma_memory_make(&pd, (HUGE_KIB << 10) + 1, 0, &other), RF_OK);
    assert_int_equal(other.size, (HUGE_KIB << 10) + RF_PAGE);
    assert_int_equal(page_kib(other.base), RF_PAGE >> 10); /* not whole */
    rdma_memory_free(&other);
    unsigned n = 0, huge = 0;
    bool more = true;
    for (; n < MAX && more; n++) {
        assert_int_equal(rdma_memory_make(&pd, HUGE_KIB << 10, 0, &memory[n]), RF_OK);
        assert_int_equal(memory[n].size, HUGE_KIB << 10);
        memset(memory[n].base, (int)n, memory[n].size);
        more = page_kib(memory[n].base) == HUGE_KIB;
        huge += more;
    }
    for (unsigned i = 0; i < n; i++) {
        assert_int_equal(memory[i].base[(HUGE_KIB << 10) - 1], i);
        rdma_memory_free(&memory[i]);
        assert_null(memory[i].base);
    }
    print_message("%u huge pages were had%s\n", huge, more ? ", and there were more" : "");
}

/* A device that refuses a huge page is asked once more, with others. */
static void a_huge_page_that_is_refused_is_done_without(void **state)
{
    (void)state;
    enum { HUGE_SIZE = 2 << 20 };
    rdma_memory_t memory;
    assert_int_equal(rdma_memory_make(&pd, HUGE_SIZE, 0, &memory), RF_OK);
    bool huge = page_kib(memory.base) == HUGE_SIZE >> 10;
    rdma_memory_free(&memory);
    registers_later = 1;
    assert_int_equal(rdma_memory_make(&pd, HUGE_SIZE, 0, &memory), huge ? RF_OK : RF_ERR_NO_MEMORY);
    assert_int_equal(registers_later, 0);
    if (huge) {
        assert_int_equal(page_kib(memory.base), RF_PAGE >> 10);
        rdma_memory_free(&memory);
        registers_later = 2;
        assert_int_equal(rdma_memory_make(&pd, HUGE_SIZE, 0, &memory), RF_ERR_NO_MEMORY);
    }
    assert_int_equal(registers_later, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_that_is_pulled_out_is_let_go),
        cmocka_unit_test(regions_follow_their_link),
        cmocka_unit_test(strangers_say_nothing_of_devices),
        cmocka_unit_test(whole_huge_pages_are_used),
        cmocka_unit_test(a_huge_page_that_is_refused_is_done_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
