#include "fake_driver.h"

#include "base/clock.h"
#include "cpudriver/dispatcher.h"
#include "cpudriver/kernel_link.h"
#include "cpudriver/lease.h"
#include "cpudriver/scheduler.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

rf_cpudriver_t fake_driver;
unsigned fake_room = 1024;
fake_answer_t fake_answer;

static rf_boot_t boot;
static rf_assembler_t assembler;
static rf_link_t links[3];
static pid_t bystander; /* in the place of every rf-init: a process without children */

static void fake_progress(rf_endpoint_t *endpoint, uint64_t now_ns, uint64_t *next_ns)
{
    (void)endpoint, (void)now_ns;
    *next_ns = RF_NEVER;
}

static unsigned fake_room_of(rf_link_t *link, unsigned want)
{
    (void)link;
    return want < fake_room ? want : fake_room;
}

static unsigned fake_send(rf_link_t *link, const rf_slot_t *slots, unsigned n)
{
    (void)link;
    for (unsigned i = 0; i < n; i++) {
        if (rf_assembler_feed(&assembler, &slots[i]) != RF_OK) continue;
        fake_answer.n++;
        fake_answer.type = assembler.type;
        memcpy(&fake_answer.header, assembler.bytes, sizeof fake_answer.header);
        memcpy(fake_answer.body, assembler.bytes + sizeof fake_answer.header,
               assembler.size - sizeof fake_answer.header);
    }
    return n;
}

static rf_err_t fake_flush(rf_link_t *link)
{
    (void)link;
    return RF_OK;
}

static unsigned fake_poll(rf_link_t *link, rf_slot_t *out, unsigned max)
{
    (void)link, (void)out, (void)max;
    return 0;
}

static void fake_end(rf_link_t *link)
{
    (void)link;
}

static const rf_transport_t transport = {
    .abi = RF_TRANSPORT_ABI,
    .name = "fake",
    .endpoint_progress = fake_progress,
    .room = fake_room_of,
    .send = fake_send,
    .flush = fake_flush,
    .poll = fake_poll,
    .pass_fds = rf_missing_pass_fds,
    .fence = fake_end,
    .close = fake_end,
};

static void make_bystander(void)
{
    const pid_t test = getpid();
    bystander = fork();
    if (bystander == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != test) _exit(0); /* it has ended before that was asked for */
        for (;;) pause();
    }
}

void fake_reset(void)
{
    rf_cpudriver_t *driver = &fake_driver;
    if (!driver->boot) {
        boot.n_nodes = 1;
        boot.n_cores = 2;
        boot.nodes[0].n_cores = 2;
        driver->boot = &boot;
        driver->isolation.level = RF_ISOLATION_NONE;
        driver->scheduler = &rf_scheduler_signals;
        driver->transport = &transport;
        rf_core_open(driver);
        rf_lease_open(driver);
        make_bystander();
    }
    rf_dispatcher_t *all[] = {&driver->monitor, &driver->dispatchers[0], &driver->dispatchers[1]};
    for (size_t i = 0; i < 3; i++) {
        if (all[i]->client_socket >= 0) close(all[i]->client_socket);
        all[i]->client_socket = -1;
        all[i]->link = NULL;
        rf_kernel_link_detach(driver, all[i]);
        rf_dispatcher_clear(all[i]);
        links[i] = (rf_link_t){.transport = &transport, .user = all[i], .state = RF_LINK_STATE_UP};
        all[i]->link = &links[i];
        all[i]->state = RF_DISPATCHER_RUNNING;
        all[i]->weight = 100;
        all[i]->domain = i;
        all[i]->init_pid = bystander;
    }
    driver->monitor.is_monitor = true;
    driver->reserved_permille_total = 0;
    fake_answer.n = 0;
}

void fake_park(rf_dispatcher_t *dispatcher, uint32_t tag, uint16_t op, const int *fds, unsigned n)
{
    rf_parked_fds_t *parked = &dispatcher->parked[0];
    parked->tag = tag;
    parked->op = op;
    parked->n = (uint16_t)n;
    memcpy(parked->fds, fds, n * sizeof(int));
}
