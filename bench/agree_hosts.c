#include "agree_hosts.h"

#include "base/os.h"
#include "transport/registry.h"
#include "transport/shm/shm.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define JOIN_NS        (10 * RF_NS_PER_S)
#define RING_SLOTS     4096
#define PROGRESS_LOOKS 256 /* looks in vain between calls of the endpoint */
#define SLEEP_NS_MAX   (20 * RF_NS_PER_MS)

static agree_host_t *this_host; /* of this process */

static size_t shared_size(const agree_hosts_t *hosts)
{
    return sizeof(agree_shared_t) + hosts->n_samples_max * sizeof(double);
}

unsigned agree_hosts_n(const agree_hosts_t *hosts)
{
    return hosts->config.n + (hosts->client != AGREE_CLIENT_NONE);
}

/* ---- a host ---- */

static void give_up(const char *what)
{
    fprintf(stderr, "rf-bench: host %u: %s\n", this_host->index, what);
    this_host->shared->failed = true;
    _exit(1);
}

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    agree_host_t *host = context;
    rf_link_params_t params = {.socket = -1, .slots = RING_SLOTS, .slots_max = RING_SLOTS};
    switch (event) {
    case RF_LINK_INCOMING:
        if (link->transport->accept(link, &params) != RF_OK) give_up("cannot accept");
        break;
    case RF_LINK_UP:
        if (info->hello->core >= host->node->n) give_up("a stranger");
        host->node->links[info->hello->core] = link;
        break;
    case RF_LINK_CLOSED:
    case RF_LINK_DEAD:
        for (unsigned i = 0; i < AGREE_HOSTS_MAX; i++) {
            if (host->node->links[i] == link) host->node->links[i] = NULL;
        }
        break;
    default:
        break;
    }
}

static unsigned n_links(const agree_host_t *host)
{
    unsigned n = 0;
    for (unsigned i = 0; i < host->node->n; i++) n += host->node->links[i] != NULL;
    return n;
}

static void progress(agree_host_t *host)
{
    uint64_t local_ns = RF_NEVER;
    host->idle = 0;
    host->progress_ns = RF_NEVER;
    if (host->endpoint)
        host->node->transport->endpoint_progress(host->endpoint, rf_clock_ns(), &host->progress_ns);
    if (host->local) rf_transport_shm.endpoint_progress(host->local, rf_clock_ns(), &local_ns);
    if (local_ns < host->progress_ns) host->progress_ns = local_ns;
}

static void wait_count(agree_host_t *host, _Atomic(uint32_t) *count)
{
    uint64_t until_ns = rf_clock_ns() + JOIN_NS;
    atomic_fetch_add(count, 1);
    while (atomic_load(count) < host->node->n) {
        if (rf_clock_ns() > until_ns) give_up("the others do not come");
        progress(host);
        rf_clock_sleep_ms(1);
    }
}

static rf_endpoint_params_t endpoint_params(agree_host_t *host)
{
    rf_endpoint_params_t params = {.on_event = on_event, .context = host};
    params.self.version_major = RF_VERSION_MAJOR;
    params.self.core = (rf_core_t)host->index;
    params.self.incarnation = 1;
    return params;
}

/* Host 0 and its client over shared memory: one sleeps in poll(), the other on a futex. */
static void join_local(agree_host_t *host, bool client)
{
    rf_endpoint_params_t params = endpoint_params(host);
    rf_link_params_t to = {.socket = host->hosts->side[client], .slots = RING_SLOTS, .slots_max = RING_SLOTS};
    rf_link_t *link;
    close(host->hosts->side[!client]);
    if (client) {
        if (rf_doorbell_create(&host->bell) != RF_OK) give_up("no doorbell");
        params.doorbell = &host->bell;
    }
    if (rf_transport_shm.endpoint_open(&params, &host->local) != RF_OK ||
        rf_transport_shm.connect(host->local, &to, &link) != RF_OK)
        give_up("no link over shared memory");
}

/* Listens, connects to whoever has a higher number, and returns when there is a link to everybody. */
static void join(agree_host_t *host)
{
    rf_endpoint_params_t params = endpoint_params(host);
    params.address = "127.0.0.1:0";
    const rf_transport_t *tcp = host->node->transport;
    /* A client has a link to host 0 only. */
    unsigned n = host->node->n, members = host->hosts->config.n;
    unsigned peers = host->index == 0 ? n - 1 : members - 1;
    bool client = host->index >= members, shm = host->hosts->client == AGREE_CLIENT_SHM;
    if (client) peers = 1;
    if (shm && (client || host->index == 0)) join_local(host, client);
    if (!(shm && client) && (tcp->endpoint_open(&params, &host->endpoint) != RF_OK ||
                             tcp->endpoint_address(host->endpoint, host->shared->addresses[host->index],
                                                   RF_ADDRESS_MAX) != RF_OK))
        give_up("cannot listen on 127.0.0.1");
    wait_count(host, &host->shared->listening);
    for (unsigned i = host->index + 1; i < (host->index == 0 && !shm ? n : members); i++) {
        rf_link_t *link;
        rf_link_params_t to = {.address = host->shared->addresses[i],
                               .socket = -1,
                               .slots = RING_SLOTS,
                               .slots_max = RING_SLOTS};
        if (tcp->connect(host->endpoint, &to, &link) != RF_OK) give_up("cannot connect");
    }
    uint64_t until_ns = rf_clock_ns() + JOIN_NS;
    while (n_links(host) < peers) {
        if (rf_clock_ns() > until_ns) give_up("the links do not come up");
        progress(host);
        rf_clock_sleep_ms(1);
    }
    wait_count(host, &host->shared->up);
}

static void form(agree_host_t *host)
{
    agree_node_t *node = host->node;
    agreement_state_t state;
    node->now_ns = agree_clock_ns();
    if (host->index == 0) {
        agreement_event_t event = agree_replica_form(&node->replica, &host->hosts->config);
        agree_node_step(node, &event);
        agree_node_flush(node);
    }
    uint64_t until_ns = rf_clock_ns() + JOIN_NS;
    do {
        agree_host_look(host);
        if (rf_clock_ns() > until_ns) give_up("the machine does not form");
        rf_clock_sleep_ms(1);
        agreement_query(node->replica.engine, &state);
    } while (!state.formed || !state.quorum);
    atomic_fetch_add(&host->shared->formed, 1);
    while (atomic_load(&host->shared->formed) < host->hosts->config.n) {
        agree_host_look(host);
        rf_clock_sleep_ms(1);
    }
}

static void host_main(agree_hosts_t *hosts, unsigned index)
{
    agree_host_t host = {.hosts = hosts, .shared = hosts->shared, .index = index, .progress_ns = RF_NEVER};
    char why[256] = "";
    this_host = &host;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    for (unsigned i = 0; i < AGREE_HOSTS_MAX; i++) host.pidfds[i] = -1;
    host.node = calloc(1, sizeof *host.node);
    if (!host.node || rf_transport_find("tcp", &host.node->transport, why, sizeof why) != RF_OK) give_up(why);
    if (rf_cpu_pin(hosts->cpus[index]) != RF_OK) give_up("that CPU is not this process's to use");
    if (hosts->nice[index]) setpriority(PRIO_PROCESS, 0, hosts->nice[index]);
    prctl(PR_SET_TIMERSLACK, 1000);
    host.node->n = agree_hosts_n(hosts);
    host.node->n_members = hosts->config.n;
    host.node->burst = AGREE_BURST_MAX;
    host.node->lazy_ns = hosts->lazy_ns;
    bool client = index >= hosts->config.n;
    host.node->next_tick_ns = RF_NEVER;
    agree_clock_start();
    hosts->shared->pids[index] = getpid();
    if (!client && !agree_replica_init(&host.node->replica, (rf_core_t)index, &hosts->config))
        give_up("no engine");
    join(&host);
    if (!client) form(&host);
    atomic_fetch_add(&hosts->shared->working, 1);
    hosts->body(&host);
    if (host.node->failed) give_up("bytes that are not the protocol's");
    if (index == (hosts->client ? hosts->config.n : 0)) atomic_store(&hosts->shared->ended, 1);
    while (!hosts->shared->stop) agree_host_turn(&host);
    _exit(0);
}

unsigned agree_host_look(agree_host_t *host)
{
    agree_node_t *node = host->node;
    uint32_t cut = atomic_load_explicit(&host->shared->cut[host->index], memory_order_relaxed);
    for (unsigned i = 0; cut && i < node->n; i++) node->cut[i] = cut >> i & 1;
    unsigned n = agree_node_poll(node);
    agree_node_flush(node);
    if (n == 0 && ++host->idle >= PROGRESS_LOOKS) progress(host);
    return n;
}

static void take_death(agree_host_t *host, unsigned other)
{
    close(host->pidfds[other]);
    host->pidfds[other] = -1;
    atomic_store(&host->shared->sightings[host->index].evidence_ns, rf_clock_ns());
    agreement_event_t event = {.kind = AGREEMENT_DEATH};
    event.death.member = agree_member(other);
    event.death.evidence = AGREEMENT_EVIDENCE_KERNEL;
    host->node->now_ns = agree_clock_ns();
    agree_node_step(host->node, &event);
    agree_node_flush(host->node);
}

static uint64_t sleep_until(const agree_host_t *host, uint64_t now_ns)
{
    uint64_t until_ns = now_ns + SLEEP_NS_MAX;
    if (host->progress_ns < until_ns) until_ns = host->progress_ns;
    if (host->node->next_tick_ns < until_ns) until_ns = host->node->next_tick_ns;
    return until_ns > now_ns ? until_ns - now_ns : 0;
}

static void sleep_on_links(agree_host_t *host)
{
    agree_node_t *node = host->node;
    rf_link_t *links[AGREE_HOSTS_MAX];
    struct pollfd fds[AGREE_HOSTS_MAX + 2];
    unsigned n = 0, watched[AGREE_HOSTS_MAX + 2], n_fds = 2;
    for (unsigned i = 0; i < node->n; i++) {
        if (node->links[i]) links[n++] = node->links[i];
    }
    if (host->bell.word) {
        rf_wait_links(&host->wait, &host->bell, links, n, rf_clock_ns() + SLEEP_NS_MAX);
        progress(host);
        return;
    }
    fds[0] = (struct pollfd){.fd = node->transport->endpoint_fd(host->endpoint), .events = POLLIN};
    fds[1] = (struct pollfd){.fd = -1, .events = POLLIN};
    if (host->local) fds[1].fd = rf_transport_shm.endpoint_fd(host->local);
    for (unsigned i = 0; i < node->n; i++) {
        if (host->pidfds[i] < 0) continue;
        watched[n_fds] = i;
        fds[n_fds++] = (struct pollfd){.fd = host->pidfds[i], .events = POLLIN};
    }
    if (!rf_wait_arm_all(links, n)) return;
    uint64_t ns = sleep_until(host, rf_clock_ns());
    struct timespec timeout = {.tv_sec = (time_t)(ns / RF_NS_PER_S), .tv_nsec = (long)(ns % RF_NS_PER_S)};
    int ready = ppoll(fds, n_fds, &timeout, NULL);
    rf_wait_disarm_all(links, n);
    for (unsigned i = 2; ready > 0 && i < n_fds; i++) {
        if (fds[i].revents) take_death(host, watched[i]);
    }
    progress(host);
}

void agree_host_turn(agree_host_t *host)
{
    unsigned n = agree_host_look(host), look_us = host->hosts->look_us[host->index];
    if (n == 0 && look_us > 0) {
        struct timespec t = {.tv_nsec = (long)(look_us * 1000)};
        nanosleep(&t, NULL);
    } else if (host->hosts->sleeps[host->index]) {
        sleep_on_links(host); /* does not sleep if something came meanwhile: rf_wait_arm_all looks */
    }
}

void agree_host_watch(agree_host_t *host, unsigned other)
{
    host->pidfds[other] = rf_process_open(host->shared->pids[other], 0);
    if (host->pidfds[other] < 0) give_up("cannot watch another host's process");
}

static bool open_session(agree_host_t *host, uint64_t *session)
{
    agree_node_t *node = host->node;
    uint64_t done = node->answered + node->refused_err;
    agreement_event_t event = {.kind = AGREEMENT_SESSION_OPEN};
    event.session.sequence = ++node->replica.own_sequence;
    node->now_ns = agree_clock_ns();
    agree_node_step(node, &event);
    agree_node_flush(node);
    uint64_t until_ns = rf_clock_ns() + JOIN_NS;
    while (node->answered + node->refused_err == done && rf_clock_ns() < until_ns) agree_host_turn(host);
    *session = node->last_value;
    return node->answered + node->refused_err > done && node->last_err == RF_OK;
}

bool agree_host_open_lanes(agree_host_t *host, unsigned outstanding)
{
    unsigned n = (outstanding + AGREEMENT_WINDOW - 1) / AGREEMENT_WINDOW;
    if (n > AGREE_LANES_MAX) return false;
    while (host->n_lanes < n) {
        if (!open_session(host, &host->lanes[host->n_lanes].session)) return false;
        host->n_lanes++;
    }
    return true;
}

void agree_host_propose(agree_host_t *host, const void *bytes, size_t size, bool hold)
{
    agree_lane_t *lane = &host->lanes[host->lane];
    host->lane = host->lane + 1 == host->n_lanes ? 0 : host->lane + 1;
    agreement_event_t event = {.kind = AGREEMENT_PROPOSE, .hold = hold};
    event.propose.session = lane->session;
    event.propose.sequence = ++lane->sequence;
    event.propose.bytes = bytes;
    event.propose.size = size;
    host->node->now_ns = agree_clock_ns();
    agree_node_step(host->node, &event);
}

bool agree_host_leads(const agree_host_t *host)
{
    agreement_state_t state;
    agreement_query(host->node->replica.engine, &state);
    return state.role == AGREEMENT_ROLE_LEADER;
}

/* ---- the bench ---- */

bool agree_hosts_start(agree_hosts_t *hosts)
{
    char why[256] = "";
    const rf_transport_t *tcp;
    if (rf_transport_find("tcp", &tcp, why, sizeof why) != RF_OK) {
        fprintf(stderr, "rf-bench: no TCP: %s\n", why);
        return false;
    }
    void *memory = mmap(NULL, shared_size(hosts), PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    if (memory == MAP_FAILED) return false;
    hosts->shared = memory;
    hosts->side[0] = hosts->side[1] = -1;
    if (hosts->client == AGREE_CLIENT_SHM &&
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, hosts->side) != 0) {
        fprintf(stderr, "rf-bench: socketpair: %s\n", strerror(errno));
        return false;
    }
    fflush(NULL);
    for (unsigned i = 0; i < agree_hosts_n(hosts); i++) {
        hosts->pids[i] = fork();
        if (hosts->pids[i] == 0) host_main(hosts, i);
        if (hosts->pids[i] < 0) {
            fprintf(stderr, "rf-bench: fork: %s\n", strerror(errno));
            return false;
        }
    }
    uint64_t until_ns = rf_clock_ns() + 2 * JOIN_NS;
    while (hosts->shared->working < agree_hosts_n(hosts) && !hosts->shared->failed &&
           rf_clock_ns() < until_ns)
        rf_clock_sleep_ms(1);
    return hosts->shared->working == agree_hosts_n(hosts);
}

bool agree_hosts_wait(agree_hosts_t *hosts, uint64_t until_ns)
{
    while (!hosts->shared->ended && !hosts->shared->failed && rf_clock_ns() < until_ns) rf_clock_sleep_ms(1);
    return hosts->shared->ended && !hosts->shared->failed;
}

void agree_hosts_end(agree_hosts_t *hosts)
{
    if (!hosts->shared) return;
    for (unsigned i = 0; i < agree_hosts_n(hosts); i++) {
        if (hosts->pids[i] <= 0) continue;
        kill(hosts->pids[i], SIGKILL);
        while (waitpid(hosts->pids[i], NULL, 0) < 0 && errno == EINTR)
            ;
        hosts->pids[i] = 0;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (hosts->side[i] >= 0) close(hosts->side[i]);
    }
    munmap(hosts->shared, shared_size(hosts));
    hosts->shared = NULL;
}
