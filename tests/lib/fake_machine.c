#include "fake_machine.h"

#include "base/clock.h"
#include "base/os.h"
#include "base/prng.h"
#include "transport/message.h"
#include "transport/shm/shm.h"
#include "transport/wait.h"
#include "wire/client.h"
#include "wire/kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define NAMES_MAX    32
#define CHANNELS_MAX 64

typedef struct port {
    rf_link_t *link;
    bool kernel, dead;
    struct domain *domain;
    rf_assembler_t in;
} port_t;

typedef struct domain {
    const fake_domain_t *params;
    rf_domain_t id;
    pid_t pid;
    bool running, failed;
    port_t kernel, client;
    uint64_t signals;
} domain_t;

typedef struct channel {
    uint64_t id;
    domain_t *client;
    uint32_t tag;
    rf_client_connected_t about; /* as the client sees it */
} channel_t;

static struct {
    rf_endpoint_t *endpoint;
    int epoll;
    domain_t domains[FAKE_DOMAINS_MAX];
    unsigned n_domains;
    struct {
        char name[RF_NAME_MAX];
        domain_t *owner;
    } names[NAMES_MAX];
    channel_t channels[CHANNELS_MAX];
    uint64_t channel_count;
    const char *medium;
    rf_machine_id_t machine;
} fake;

static void check(bool ok, const char *what)
{
    if (ok) return;
    fprintf(stderr, "fake machine: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void say(port_t *port, uint8_t type, uint32_t tag, uint16_t op, rf_err_t err, const void *body,
                size_t size)
{
    if (port->dead || !port->link) return;
    rf_wire_header_t head = {.tag = tag, .op = op, .err = (uint16_t)err};
    rf_err_t sent;
    for (unsigned tries = 0; tries < 10000; tries++) {
        sent = rf_message_send2(port->link, type, &head, sizeof head, body, size);
        if (sent != RF_ERR_AGAIN) break;
        (void)rf_transport_shm.flush(port->link);
        usleep(100);
    }
    check(sent == RF_OK, "a full link");
    (void)rf_transport_shm.flush(port->link);
}

static void pass(port_t *port, uint32_t tag, uint16_t op, uint64_t key, int fd)
{
    rf_client_fds_t about = {.tag = tag, .op = op, .key = key};
    if (!port->dead && port->link) (void)rf_transport_shm.pass_fds(port->link, &about, sizeof about, &fd, 1);
    close(fd);
}

static void socket_pair(int pair[2])
{
    check(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0, "socketpair");
}

static void port_open(port_t *port, domain_t *domain, bool kernel, int socket)
{
    *port = (port_t){.kernel = kernel, .domain = domain};
    rf_link_params_t params = {.socket = socket, .user = port};
    check(rf_transport_shm.connect(fake.endpoint, &params, &port->link) == RF_OK, "connect");
}

/* ---- the CPU driver's side ---- */

static void identify(domain_t *domain, uint32_t tag)
{
    int pair[2];
    socket_pair(pair);
    port_open(&domain->client, domain, false, pair[0]);
    pass(&domain->kernel, tag, RF_KERNEL_IDENTIFY, 0, pair[1]);
    rf_kernel_identity_t id = {
        .machine = fake.machine,
        .machine_name = "fake",
        .domain = domain->id,
        .node = domain->params->node,
        .core = domain->params->core,
        .cores = 8,
        .nodes = 2,
        .node_first_core = (rf_core_t)(domain->params->node * 4),
        .node_cores = 4,
        .encrypt = 1,
        .host_address = "127.0.0.1",
    };
    snprintf(id.node_name, sizeof id.node_name, "node%u", id.node);
    say(&domain->kernel, RF_KERNEL_REPLY, tag, RF_KERNEL_IDENTIFY, RF_OK, &id, sizeof id);
}

static void kernel_message(domain_t *domain, const rf_wire_header_t *head, const uint8_t *bytes)
{
    rf_err_t err = RF_OK;
    switch (head->op) {
    case RF_KERNEL_IDENTIFY:
        identify(domain, head->tag);
        return;
    case RF_KERNEL_SIGNALS_SET:
        memcpy(&domain->signals, bytes, sizeof domain->signals);
        break;
    case RF_KERNEL_YIELD:
    case RF_KERNEL_NULL:
        break;
    default:
        err = RF_ERR_NOT_SUPPORTED;
    }
    if (head->tag) say(&domain->kernel, RF_KERNEL_REPLY, head->tag, head->op, err, NULL, 0);
    if (head->op == RF_KERNEL_SIGNALS_SET) {
        for (unsigned signo = 1; signo <= 64; signo++) { /* every signal asked for arrives, once */
            if (!(domain->signals >> (signo - 1) & 1)) continue;
            rf_kernel_signal_event_t event = {.signo = signo};
            say(&domain->kernel, RF_KERNEL_EVENT, 0, RF_KERNEL_EVENT_SIGNAL, RF_OK, &event, sizeof event);
        }
    }
}

/* ---- the monitor's side ---- */

static domain_t *name_owner(const char *name)
{
    for (unsigned i = 0; i < NAMES_MAX; i++)
        if (fake.names[i].owner && strcmp(fake.names[i].name, name) == 0) return fake.names[i].owner;
    return NULL;
}

static rf_err_t name_put(domain_t *domain, const char *name)
{
    if (name_owner(name)) return RF_ERR_EXISTS;
    for (unsigned i = 0; i < NAMES_MAX; i++) {
        if (fake.names[i].owner) continue;
        snprintf(fake.names[i].name, sizeof fake.names[i].name, "%s", name);
        fake.names[i].owner = domain;
        return RF_OK;
    }
    return RF_ERR_LIMIT;
}

static void names_drop(domain_t *domain, const char *name)
{
    for (unsigned i = 0; i < NAMES_MAX; i++)
        if (fake.names[i].owner == domain && (!name || strcmp(fake.names[i].name, name) == 0))
            fake.names[i].owner = NULL;
}

static void about_peer(const domain_t *self, const domain_t *peer, uint64_t id, rf_client_connected_t *out)
{
    bool remote = self->params->node != peer->params->node;
    bool same_core = !remote && self->params->core == peer->params->core;
    out->channel = id;
    out->domain = peer->id;
    out->core = peer->params->core;
    out->kind = remote ? RF_CHANNEL_NETWORK : same_core ? RF_CHANNEL_LMP : RF_CHANNEL_URPC;
    out->same_cpu = same_core;
    snprintf(out->medium, sizeof out->medium, "%s", remote ? fake.medium : "shm");
    snprintf(out->user, sizeof out->user, "tester");
}

static void connect_domains(domain_t *client, uint32_t tag, const rf_client_connect_t *request)
{
    domain_t *exporter = NULL;
    if (request->name[0])
        exporter = name_owner(request->name);
    else if (request->domain >= 1 && request->domain <= fake.n_domains)
        exporter = &fake.domains[request->domain - 1];
    if (!exporter || !exporter->client.link || exporter->client.link->state != RF_LINK_STATE_UP) {
        say(&client->client, RF_CLIENT_REPLY, tag, RF_CLIENT_CONNECT, RF_ERR_NOT_FOUND, NULL, 0);
        return;
    }
    uint64_t id = ++fake.channel_count;
    rf_client_connected_t about = {0};
    rf_client_incoming_t incoming = {.slots = request->slots};
    memcpy(incoming.name, request->name, sizeof incoming.name);
    about_peer(client, exporter, id, &about);
    about_peer(exporter, client, id, &incoming.channel);
    if (about.kind == RF_CHANNEL_NETWORK) {
        rf_random_secret(about.token, sizeof about.token);
        rf_random_secret(about.key, sizeof about.key);
        memcpy(incoming.channel.token, about.token, sizeof about.token);
        memcpy(incoming.channel.key, about.key, sizeof about.key);
        fake.channels[id % CHANNELS_MAX] =
            (channel_t){.id = id, .client = client, .tag = tag, .about = about};
        say(&exporter->client, RF_CLIENT_EVENT, 0, RF_CLIENT_EVENT_INCOMING, RF_OK, &incoming,
            sizeof incoming);
        return;
    }
    int pair[2];
    socket_pair(pair);
    pass(&exporter->client, 0, RF_CLIENT_EVENT_INCOMING, id, pair[0]);
    say(&exporter->client, RF_CLIENT_EVENT, 0, RF_CLIENT_EVENT_INCOMING, RF_OK, &incoming, sizeof incoming);
    pass(&client->client, tag, RF_CLIENT_CONNECT, 0, pair[1]);
    say(&client->client, RF_CLIENT_REPLY, tag, RF_CLIENT_CONNECT, RF_OK, &about, sizeof about);
}

static void accepted(const rf_client_accept_t *accept)
{
    channel_t *channel = &fake.channels[accept->channel % CHANNELS_MAX];
    if (channel->id != accept->channel) return;
    memcpy(channel->about.address, accept->address, sizeof accept->address);
    say(&channel->client->client, RF_CLIENT_REPLY, channel->tag, RF_CLIENT_CONNECT, (rf_err_t)accept->err,
        &channel->about, sizeof channel->about);
    channel->id = 0;
}

/* Two rows a reply, so that lists come in parts. */
static void list_cores(domain_t *domain, uint32_t tag, uint64_t from)
{
    struct {
        rf_client_list_reply_t head;
        rf_client_core_t rows[2];
    } reply = {0};
    while (from < 8 && reply.head.n < 2) {
        reply.rows[reply.head.n++] =
            (rf_client_core_t){.core = (rf_core_t)from, .node = (rf_node_t)(from / 4), .state = RF_CORE_UP};
        from++;
    }
    reply.head.more = from < 8;
    reply.head.next = from;
    say(&domain->client, RF_CLIENT_REPLY, tag, RF_CLIENT_CORES, RF_OK, &reply, sizeof reply);
}

static void client_message(domain_t *domain, const rf_wire_header_t *head, const uint8_t *bytes, size_t size)
{
    uint8_t padded[RF_MESSAGE_MAX] = {0};
    memcpy(padded, bytes, size);
    rf_err_t err = RF_OK;
    switch (head->op) {
    case RF_CLIENT_PING:
        break;
    case RF_CLIENT_NAME_PUT:
        err = name_put(domain, ((rf_client_name_request_t *)padded)->name);
        break;
    case RF_CLIENT_NAME_DELETE:
        names_drop(domain, ((rf_client_name_request_t *)padded)->name);
        break;
    case RF_CLIENT_CONNECT:
        connect_domains(domain, head->tag, (rf_client_connect_t *)(void *)padded);
        return;
    case RF_CLIENT_ACCEPT:
        accepted((rf_client_accept_t *)(void *)padded);
        return;
    case RF_CLIENT_CORES:
        list_cores(domain, head->tag, ((rf_client_list_t *)(void *)padded)->from);
        return;
    case RF_CLIENT_SPAWN:
    case RF_CLIENT_SPAN: {
        rf_client_spawn_t *spawn = (rf_client_spawn_t *)(void *)padded;
        rf_client_spawned_t spawned = {.domain = 100 + spawn->core, .index = 1, .core = spawn->core};
        if (spawn->core == 3) { /* where nothing can be started */
            err = RF_ERR_EXEC;
            spawned.os_errno = ENOENT;
            snprintf(spawned.what, sizeof spawned.what, "exec ./missing");
        }
        say(&domain->client, RF_CLIENT_REPLY, head->tag, head->op, err, &spawned, sizeof spawned);
        return;
    }
    case RF_CLIENT_WAIT: {
        rf_client_domain_t ended = {.domain = ((rf_client_target_t *)(void *)padded)->domain,
                                    .state = RF_DOMAIN_ENDED,
                                    .wait_status = 7 << 8,
                                    .n_dispatchers = 1};
        if (ended.domain == 999) return; /* never ends */
        say(&domain->client, RF_CLIENT_REPLY, head->tag, head->op, RF_OK, &ended, sizeof ended);
        return;
    }
    case RF_CLIENT_CANCEL:
        return;
    case RF_CLIENT_SUBSCRIBE:
        say(&domain->client, RF_CLIENT_REPLY, head->tag, head->op, RF_OK, NULL, 0);
        for (unsigned i = 0; i < 80; i++) { /* more than are kept */
            rf_client_machine_event_t event = {.what = i % 2 ? RF_MACHINE_CORE_UP : RF_MACHINE_DOMAIN_ENDED,
                                               .core = (rf_core_t)i};
            say(&domain->client, RF_CLIENT_EVENT, 0, RF_CLIENT_EVENT_MACHINE, RF_OK, &event, sizeof event);
        }
        return;
    default:
        err = RF_ERR_NOT_SUPPORTED;
    }
    if (head->tag) say(&domain->client, RF_CLIENT_REPLY, head->tag, head->op, err, NULL, 0);
}

/* ---- both ---- */

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    (void)context;
    port_t *port = link->user;
    if (event == RF_LINK_DEAD || event == RF_LINK_CLOSED) port->dead = true;
    if (event != RF_LINK_FDS) return;
    for (unsigned i = 0; i < info->n_fds; i++) close(info->fds[i]);
}

static void port_poll(port_t *port)
{
    rf_slot_t slots[16];
    unsigned n;
    while (port->link && !port->dead && (n = rf_transport_shm.poll(port->link, slots, 16)) > 0) {
        for (unsigned i = 0; i < n; i++) {
            rf_err_t err = rf_assembler_feed(&port->in, &slots[i]);
            if (err == RF_ERR_AGAIN) continue;
            rf_wire_header_t head;
            check(err == RF_OK && port->in.size >= sizeof head, "a message that makes no sense");
            memcpy(&head, port->in.bytes, sizeof head);
            if (port->kernel)
                kernel_message(port->domain, &head, port->in.bytes + sizeof head);
            else
                client_message(port->domain, &head, port->in.bytes + sizeof head,
                               port->in.size - sizeof head);
        }
    }
}

static void domain_start(domain_t *domain)
{
    int pair[2];
    socket_pair(pair);
    pid_t parent = getpid();
    fflush(NULL);
    domain->pid = fork();
    check(domain->pid >= 0, "fork");
    if (domain->pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(1);
        int at = fcntl(pair[1], F_DUPFD, RF_DISPATCHER_FD);
        char text[16];
        snprintf(text, sizeof text, "%d", at);
        setenv(RF_ENV_DISPATCHER_FD, text, 1);
        /* What belongs to the fake must not keep its sockets open in here. */
        for (int fd = 3; fd < RF_DISPATCHER_FD; fd++) close(fd);
        int rc = domain->params->run();
        fflush(NULL);
        _exit(rc);
    }
    close(pair[1]);
    domain->running = true;
    port_open(&domain->kernel, domain, true, pair[0]);
}

static void domain_ended(domain_t *domain, int status)
{
    domain->running = false;
    domain->failed = !domain->params->dies && status != 0;
    names_drop(domain, NULL);
    if (domain->kernel.link) rf_transport_shm.close(domain->kernel.link);
    if (domain->client.link) rf_transport_shm.close(domain->client.link);
    domain->kernel.link = domain->client.link = NULL;
}

static unsigned all_links(rf_link_t **links)
{
    unsigned n = 0;
    for (unsigned i = 0; i < fake.n_domains; i++) {
        domain_t *domain = &fake.domains[i];
        if (domain->kernel.link && !domain->kernel.dead) links[n++] = domain->kernel.link;
        if (domain->client.link && !domain->client.dead) links[n++] = domain->client.link;
    }
    return n;
}

static void turn(void)
{
    uint64_t next_ns;
    rf_transport_shm.endpoint_progress(fake.endpoint, rf_clock_ns(), &next_ns);
    for (unsigned i = 0; i < fake.n_domains; i++) {
        port_poll(&fake.domains[i].kernel);
        port_poll(&fake.domains[i].client);
    }
    for (unsigned i = 0; i < fake.n_domains; i++) {
        int status;
        if (fake.domains[i].running && waitpid(fake.domains[i].pid, &status, WNOHANG) == fake.domains[i].pid)
            domain_ended(&fake.domains[i], status);
    }
    rf_link_t *links[2 * FAKE_DOMAINS_MAX];
    unsigned n = all_links(links);
    if (!rf_wait_arm_all(links, n)) return;
    struct epoll_event events[16];
    (void)epoll_wait(fake.epoll, events, 16, 5); /* ends of children are noticed by time */
    rf_wait_disarm_all(links, n);
}

int fake_machine_run(const fake_domain_t *domains, unsigned n, const char *medium)
{
    memset(&fake, 0, sizeof fake);
    fake.medium = medium;
    setenv("RACKFISH_MODULE_PATH", FAKE_MODULE_PATH, 1);
    fake.machine.bytes[0] = 1;
    rf_endpoint_params_t params = {
        .self = {.version_major = RF_VERSION_MAJOR, .kind = RF_ROLE_MONITOR, .machine = fake.machine},
        .on_event = on_event,
        .deadline_ns = FAKE_DEADLINE_MS * RF_NS_PER_MS,
    };
    check(rf_transport_shm.endpoint_open(&params, &fake.endpoint) == RF_OK, "endpoint");
    fake.epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = fake.endpoint};
    check(epoll_ctl(fake.epoll, EPOLL_CTL_ADD, rf_transport_shm.endpoint_fd(fake.endpoint), &event) == 0,
          "epoll_ctl");
    fake.n_domains = n;
    for (unsigned i = 0; i < n; i++) fake.domains[i] = (domain_t){.params = &domains[i], .id = i + 1};
    for (unsigned i = 0; i < n; i++) domain_start(&fake.domains[i]);

    uint64_t deadline_ns = rf_clock_ns() + FAKE_DEADLINE_MS * RF_NS_PER_MS;
    bool running = true;
    while (running && rf_clock_ns() < deadline_ns) {
        turn();
        running = false;
        for (unsigned i = 0; i < n; i++) running |= fake.domains[i].running;
    }
    int failed = 0;
    for (unsigned i = 0; i < n; i++) {
        domain_t *domain = &fake.domains[i];
        if (domain->running) {
            fprintf(stderr, "fake machine: domain %u still runs at the deadline\n", i + 1);
            kill(domain->pid, SIGKILL);
            int status;
            waitpid(domain->pid, &status, 0);
            domain_ended(domain, 1 << 8);
            domain->failed = true;
        }
        failed += domain->failed;
    }
    rf_transport_shm.endpoint_close(fake.endpoint);
    close(fake.epoll);
    return failed;
}
