#include "transport/dpdk/driver/ask.h"

#include "base/clock.h"
#include "base/log.h"
#include "transport/dpdk/local.h"
#include "transport/message.h"

#include <ctype.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define WAIT_NS (3 * RF_NS_PER_S)
#define BATCH   8
#define LOOK_MS 100

typedef struct ask {
    rf_link_t *link;
    bool json, up, over;
    unsigned n;
    rf_err_t err;
    rf_assembler_t in;
} ask_t;

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    ask_t *ask = context;
    (void)link;
    if (event == RF_LINK_UP) ask->up = true;
    if (event == RF_LINK_DEAD) ask->err = info->err;
    if (event == RF_LINK_DEAD || event == RF_LINK_CLOSED) ask->over = true;
}

static void print_one(ask_t *ask)
{
    dpdk_stats_t stat;
    if (ask->in.type != DPDK_LOCAL_STATS || ask->in.size != sizeof stat) return;
    memcpy(&stat, ask->in.bytes, sizeof stat);
    stat.name[sizeof stat.name - 1] = 0;
    for (char *c = stat.name; *c; c++) *c = isalnum((unsigned char)*c) ? *c : '_';
    if (ask->json)
        printf("%s\"%s\":%llu", ask->n ? "," : "{", stat.name, (unsigned long long)stat.value);
    else
        printf("%-20s %llu\n", stat.name, (unsigned long long)stat.value);
    ask->n++;
}

static void hear(ask_t *ask)
{
    rf_slot_t slots[BATCH];
    unsigned n;
    while (ask->up && (n = ask->link->transport->poll(ask->link, slots, BATCH)) > 0) {
        for (unsigned i = 0; i < n; i++) {
            if (rf_assembler_feed(&ask->in, &slots[i]) == RF_OK) print_one(ask);
        }
    }
}

bool ask_is_there(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof address.sun_path) return false;
    memcpy(address.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return false;
    bool there = connect(fd, (struct sockaddr *)&address, sizeof address) == 0 || errno == EAGAIN;
    close(fd);
    return there;
}

rf_err_t ask_stats(const char *socket, bool json)
{
    static ask_t ask;
    const rf_transport_t *shm = &rf_transport_shm;
    rf_endpoint_t *endpoint;
    rf_endpoint_params_t params = {
        .self = {.version_major = RF_VERSION_MAJOR, .version_minor = RF_VERSION_MINOR},
        .on_event = on_event,
        .context = &ask,
        .deadline_ns = WAIT_NS};
    rf_err_t err = shm->endpoint_open(&params, &endpoint);
    if (err != RF_OK) return err;
    ask.json = json;
    rf_link_params_t link = {.address = socket, .socket = -1};
    err = shm->connect(endpoint, &link, &ask.link);
    uint64_t end_ns = rf_clock_ns() + WAIT_NS, next_ns;
    bool asked = false;
    while (err == RF_OK && !ask.over && rf_clock_ns() < end_ns) {
        struct pollfd fd = {.fd = shm->endpoint_fd(endpoint), .events = POLLIN};
        poll(&fd, 1, LOOK_MS);
        shm->endpoint_progress(endpoint, rf_clock_ns(), &next_ns);
        if (ask.up && !asked) {
            asked = rf_message_send(ask.link, DPDK_LOCAL_STATS, NULL, 0) == RF_OK;
            shm->flush(ask.link);
            shm->arm(ask.link);
        }
        hear(&ask);
    }
    if (ask.json && ask.n) printf("}\n");
    if (err == RF_OK && ask.n == 0) err = ask.err != RF_OK ? ask.err : RF_ERR_TIMEOUT;
    if (err != RF_OK)
        rf_log(RF_LOG_ERROR,
               "no link driver answers at %s: %s; is the machine up (`rackfish status`), and is this the "
               "socket that "
               "rackfishd gave it (RUN-DIR/NODE.dpdk/sock), and yours to read?",
               socket, rf_err_text(err));
    shm->endpoint_close(endpoint);
    return err;
}
