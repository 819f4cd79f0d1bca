#include "monitor/shell.h"

#include "transport/registry.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

conn_t *conn_new(shell_t *s, conn_kind_t kind)
{
    conn_t *conn = calloc(1, sizeof *conn);
    if (!conn) return NULL;
    conn->kind = kind;
    conn->core = RF_CORE_NONE;
    conn->client = UINT32_MAX;
    conn->next = s->conns;
    s->conns = conn;
    s->n_conns++;
    return conn;
}

static void forget_arrived(shell_t *s, const conn_t *conn)
{
    for (unsigned i = 0; i < s->n_arrived; i++) {
        arrived_t *a = &s->arrived[(s->arrived_head + i) % SHELL_ARRIVED_MAX];
        if (a->conn != conn) continue;
        for (unsigned k = 0; k < a->n_fds; k++) close(a->fds[k]);
        a->n_fds = 0;
        a->conn = NULL;
    }
}

void conn_free(shell_t *s, conn_t *conn)
{
    forget_arrived(s, conn);
    backlog_clear(conn);
    if (conn->kind == CONN_PEER && conn->core != RF_CORE_NONE && s->peers[conn->core] == conn)
        s->peers[conn->core] = NULL;
    if (conn->client != UINT32_MAX && s->clients[conn->client] == conn) s->clients[conn->client] = NULL;
    if (s->kernel == conn) s->kernel = NULL;
    if (conn->link) {
        conn->link->user = NULL;
        conn->link->transport->close(conn->link);
    }
    if (conn->kind == CONN_LANE) lanes_conn_freed(s, conn);
    for (conn_t **at = &s->conns; *at; at = &(*at)->next) {
        if (*at != conn) continue;
        *at = conn->next;
        s->n_conns--;
        break;
    }
    free(conn);
}

void conn_fence(conn_t *conn)
{
    if (conn->link) conn->link->transport->fence(conn->link);
    conn_forget(conn);
}

void conn_forget(conn_t *conn)
{
    conn->ended = true;
    conn->forgotten = true;
}

/* ---- somebody wants a link ---- */

static void refuse(rf_link_t *link, rf_err_t why)
{
    link->transport->reject(link, why);
}

static bool take(conn_t *conn, rf_link_t *link)
{
    rf_link_params_t params = {.socket = -1, .slots_max = SHELL_SLOTS_MAX, .user = conn};
    return link->transport->accept(link, &params) == RF_OK;
}

/* Without encryption the handshake proves nothing: then the hello carries the key for links, which has no other use. It
 * keeps out everybody who can reach the port, domains above all; not who can listen on the network. */
static void show_key(const shell_t *s, rf_hello_t *hello)
{
    _Static_assert(sizeof s->boot->link_key <= sizeof hello->token, "the key fits");
    if (!s->boot->encrypt) memcpy(hello->token, s->boot->link_key, sizeof s->boot->link_key);
}

static bool shows_key(const shell_t *s, const rf_hello_t *hello)
{
    rf_hello_t right = {0};
    uint8_t differ = 0;
    show_key(s, &right);
    for (unsigned i = 0; i < sizeof right.token; i++) differ |= right.token[i] ^ hello->token[i];
    return differ == 0;
}

void conn_hello(const shell_t *s, rf_hello_t *out, unsigned kind)
{
    *out = (rf_hello_t){.version_major = RF_VERSION_MAJOR,
                        .version_minor = RF_VERSION_MINOR,
                        .kind = (uint16_t)kind,
                        .core = s->core,
                        .incarnation = s->incarnation,
                        .machine = s->boot->machine};
    show_key(s, out);
}

/* Whether a monitor that names itself so may have links with this one. */
static rf_err_t judge_monitor(const shell_t *s, const rf_hello_t *hello, bool local)
{
    rf_core_t core = hello->core;
    bool here = core < s->boot->n_cores && s->boot->node_of[core] == s->boot->node;
    if (core >= s->boot->n_cores || core == s->core || here != local || hello->incarnation == 0)
        return RF_ERR_PROTOCOL;
    if (!local && !shows_key(s, hello)) return RF_ERR_AUTH;
    return hello->incarnation < s->lowest[core] ? RF_ERR_FENCED : RF_OK;
}

static void incoming_peer(shell_t *s, rf_link_t *link, const rf_hello_t *hello)
{
    rf_core_t core = hello->core;
    conn_t *other = s->peers[core];
    if (other && other->incarnation != 0 && other->incarnation < hello->incarnation) {
        s->lowest[core] = hello->incarnation; /* the machine has named a later one: this is no more */
        conn_fence(other);
        other = NULL;
    }
    if (other && !other->ended) {
        /* Both dialled: the link of the higher core stays. */
        if (other->up || !other->dialed || core < s->core) {
            refuse(link, RF_ERR_EXISTS);
            return;
        }
        conn_forget(other);
    }
    conn_t *conn = conn_new(s, CONN_PEER);
    if (!conn || !take(conn, link)) {
        if (conn) conn_forget(conn);
        refuse(link, RF_ERR_NO_MEMORY);
        return;
    }
    conn->link = link;
    conn->core = core;
    conn->incarnation = hello->incarnation;
    snprintf(conn->address, sizeof conn->address, "%s", "accepted");
    s->peers[core] = conn;
}

static uint32_t free_client(const shell_t *s)
{
    for (uint32_t i = 0; i < MONITOR_CLIENTS_MAX; i++) {
        if (!s->clients[i]) return i;
    }
    return UINT32_MAX;
}

static void incoming_node(shell_t *s, rf_link_t *link)
{
    uint32_t client = free_client(s);
    conn_t *conn = client == UINT32_MAX ? NULL : conn_new(s, CONN_NODE);
    if (!conn || !take(conn, link)) {
        if (conn) conn_forget(conn);
        refuse(link, RF_ERR_LIMIT);
        return;
    }
    conn->link = link;
    conn->client = client;
    s->clients[client] = conn;
}

static void incoming(shell_t *s, rf_link_t *link, const rf_hello_t *hello)
{
    bool local = (link->transport->flags & RF_TRANSPORT_LOCAL) != 0;
    if (local) { /* the socket's folder keeps others out; this does again */
        int pid = 0;
        unsigned uid = 0;
        if (link->transport->peer_credentials(link, &pid, &uid) != RF_OK || (uid != 0 && uid != geteuid())) {
            refuse(link, RF_ERR_PERMISSION);
            return;
        }
    }
    bool monitor = hello->kind == RF_ROLE_MONITOR || (hello->kind == RF_ROLE_LANE && !local && s->lanes);
    rf_err_t err = monitor ? judge_monitor(s, hello, local) : RF_OK;
    if (err != RF_OK)
        refuse(link, err);
    else if (hello->kind == RF_ROLE_MONITOR)
        incoming_peer(s, link, hello);
    else if (monitor)
        lanes_incoming(s, link, hello);
    else if (hello->kind == RF_ROLE_NODE && local)
        incoming_node(s, link);
    else
        refuse(link, RF_ERR_PERMISSION);
}

/* ---- what media report: noted here, told by the loop ---- */

/* Who answered a dial: an address may be one that an earlier incarnation had, or another core has now. */
static void check_answer(shell_t *s, conn_t *conn)
{
    const rf_hello_t *peer = &conn->link->peer;
    if (conn->incarnation == 0) conn->incarnation = peer->incarnation;
    if (peer->kind == RF_ROLE_MONITOR && peer->core == conn->core && peer->incarnation == conn->incarnation &&
        peer->incarnation >= s->lowest[conn->core])
        return;
    conn->ended = true;
    conn->up = false;
    conn->err = RF_ERR_NOT_FOUND;
}

static void note_fds(shell_t *s, conn_t *conn, const rf_link_event_info_t *info)
{
    if (!conn || conn->ended || s->n_arrived == SHELL_ARRIVED_MAX ||
        info->size > sizeof s->arrived[0].bytes || info->n_fds > 8) {
        for (unsigned i = 0; i < info->n_fds; i++) close(info->fds[i]);
        return;
    }
    arrived_t *a = &s->arrived[(s->arrived_head + s->n_arrived++) % SHELL_ARRIVED_MAX];
    a->conn = conn;
    a->size = info->size;
    a->n_fds = info->n_fds;
    memcpy(a->bytes, info->bytes, info->size);
    memcpy(a->fds, info->fds, info->n_fds * sizeof *info->fds);
}

void conn_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    shell_t *s = context;
    conn_t *conn = link->user;
    switch (event) {
    case RF_LINK_INCOMING:
        incoming(s, link, info->hello);
        break;
    case RF_LINK_UP:
        if (conn) conn->up = true;
        if (conn && (conn->kind == CONN_PEER || (conn->kind == CONN_LANE && conn->dialed)) && !conn->told_up)
            check_answer(s, conn);
        break;
    case RF_LINK_ROOM:
        if (conn) conn->room = true;
        break;
    case RF_LINK_FDS:
        note_fds(s, conn, info);
        break;
    case RF_LINK_CLOSED:
    case RF_LINK_DEAD:
        if (conn && !conn->ended) {
            conn->ended = true;
            conn->err = event == RF_LINK_CLOSED ? RF_ERR_CLOSED : info->err;
        }
        break;
    case RF_LINK_BROKEN:
        if (conn && conn->kind == CONN_PEER) conn->broken = true;
        if (conn && conn->kind == CONN_LANE && !conn->ended) { /* it is not made again */
            conn->ended = true;
            conn->err = info->err;
        }
        break;
    case RF_LINK_WRITTEN:
        if (conn && conn->kind == CONN_LANE) lanes_written(conn, info);
        break;
    case RF_LINK_READ:
        break;
    }
}

/* ---- telling ---- */

static void tell_up(shell_t *s, conn_t *conn)
{
    monitor_event_t event = {
        .core = conn->core, .client = conn->client, .domain = conn->domain, .index = conn->index};
    conn->told_up = true;
    if (conn->kind == CONN_LANE) {
        lanes_up(s, conn);
        return;
    }
    event.incarnation = conn->incarnation;
    if (conn->kind == CONN_PEER && (conn->link->transport->flags & RF_TRANSPORT_LOCAL)) {
        watch_peer(s, conn);
        event.process = s->watched[conn->core].process;
    }
    switch (conn->kind) {
    case CONN_KERNEL:
        event.kind = MONITOR_KERNEL_UP;
        break;
    case CONN_PEER:
        event.kind = MONITOR_PEER_UP;
        break;
    case CONN_NODE:
    case CONN_DISPATCHER:
        event.kind = MONITOR_CLIENT_UP;
        break;
    case CONN_LANE:
        break;
    }
    shell_step(s, &event);
}

static void tell_ended(shell_t *s, conn_t *conn)
{
    monitor_event_t event = {.core = conn->core, .client = conn->client, .err = conn->err};
    conn_kind_t kind = conn->kind;
    bool current = kind != CONN_PEER || s->peers[conn->core] == conn;
    bool told_up = conn->told_up, dialed = conn->dialed;
    if (conn->forgotten) {
        conn_free(s, conn);
        return;
    }
    if (kind == CONN_LANE) {
        if (!lanes_ended(s, conn)) conn_free(s, conn);
        return;
    }
    if (kind == CONN_DISPATCHER && !told_up)
        rf_log(RF_LOG_WARN, "no link with domain %llu.%u: %s", (unsigned long long)conn->domain, conn->index,
               rf_err_text(conn->err));
    conn_free(s, conn);
    switch (kind) {
    case CONN_KERNEL:
        rf_log(RF_LOG_ERROR, "the CPU driver is gone: ending");
        s->exit_status = MONITOR_EXIT_FAILED;
        return;
    case CONN_PEER:
        /* Replaced by another link, or one of the peer's that never came up: nobody here knows of it. */
        if (!current || (!told_up && !dialed)) return;
        event.kind = MONITOR_PEER_DOWN;
        break;
    case CONN_NODE:
    case CONN_DISPATCHER:
        if (!told_up) return;
        event.kind = MONITOR_CLIENT_GONE;
        break;
    case CONN_LANE:
        break;
    }
    shell_step(s, &event);
}

static void tell_room(shell_t *s, conn_t *conn)
{
    monitor_event_t event = {.core = conn->core, .client = conn->client};
    bool was_full = conn->full;
    conn->room = false;
    backlog_drain(conn);
    if (conn->kept) return; /* room is reported again */
    conn->full = false;
    if (!was_full || conn->kind == CONN_KERNEL || conn->kind == CONN_LANE) return;
    event.kind = conn->kind == CONN_PEER ? MONITOR_PEER_ROOM : MONITOR_CLIENT_ROOM;
    shell_step(s, &event);
}

static void tell_broken(shell_t *s, conn_t *conn)
{
    monitor_event_t event = {.kind = MONITOR_PEER_BROKEN, .core = conn->core};
    conn->broken = false;
    shell_step(s, &event);
}

/* Tells of one link, which may free any. False: there is nothing to tell. */
static bool settle_one(shell_t *s)
{
    for (conn_t *conn = s->conns; conn; conn = conn->next) {
        if (conn->up && !conn->told_up && !conn->forgotten &&
            !((conn->kind == CONN_PEER || conn->kind == CONN_LANE) && conn->ended))
            tell_up(s, conn);
        else if (conn->ended)
            tell_ended(s, conn);
        else if (conn->room && conn->told_up)
            tell_room(s, conn);
        else if (conn->broken && conn->told_up)
            tell_broken(s, conn);
        else
            continue;
        return true;
    }
    return false;
}

void conn_settle(shell_t *s)
{
    while (s->exit_status < 0 && settle_one(s)) {
    }
}

/* Messages that need descriptors, which were passed before them: fetch those first. */
static bool needs_fds(const conn_t *conn)
{
    rf_wire_header_t header = {0};
    if (conn->assembler.size >= sizeof header) memcpy(&header, conn->assembler.bytes, sizeof header);
    switch (conn->kind) {
    case CONN_PEER:
        return conn->assembler.type == PEER_SPAWN || conn->assembler.type == PEER_CONNECT;
    case CONN_NODE:
    case CONN_DISPATCHER:
        return header.op == RF_CLIENT_SPAWN;
    case CONN_KERNEL:
    case CONN_LANE:
        return false;
    }
    return false;
}

static void tell_message(shell_t *s, conn_t *conn)
{
    static const monitor_event_kind_t kinds[] = {[CONN_KERNEL] = MONITOR_KERNEL_MESSAGE,
                                                 [CONN_PEER] = MONITOR_PEER_MESSAGE,
                                                 [CONN_NODE] = MONITOR_CLIENT_MESSAGE,
                                                 [CONN_DISPATCHER] = MONITOR_CLIENT_MESSAGE};
    if (conn->kind == CONN_LANE) {
        lanes_message(s, conn);
        return;
    }
    if (needs_fds(conn)) {
        shell_progress(s);
        shell_tell_arrived(s);
        if (conn->ended) return;
    }
    monitor_event_t event = {.kind = kinds[conn->kind],
                             .core = conn->core,
                             .client = conn->client,
                             .type = conn->assembler.type,
                             .bytes = conn->assembler.bytes,
                             .size = conn->assembler.size};
    shell_step(s, &event);
}

bool conn_pump(shell_t *s, conn_t *conn)
{
    rf_slot_t slots[SHELL_POLL_BATCH];
    if (!conn->told_up || conn->ended) return false;
    unsigned n = conn->link->transport->poll(conn->link, slots, SHELL_POLL_BATCH);
    for (unsigned i = 0; i < n && s->exit_status < 0; i++) {
        rf_err_t err = rf_assembler_feed(&conn->assembler, &slots[i]);
        if (err == RF_OK) {
            tell_message(s, conn);
            if (conn->ended) return true;
        } else if (err != RF_ERR_AGAIN) {
            conn->ended = true;
            conn->err = err;
            return true;
        }
    }
    return n > 0;
}

/* ---- making links ---- */

/* A little less than the host's, so that a death that shows in a broken link is known within that, too. */
static uint64_t link_deadline_ns(const rf_boot_t *boot)
{
    uint32_t spare_ms = 2 * boot->heartbeat_ms;
    uint32_t ms =
        boot->host_deadline_ms > 2 * spare_ms ? boot->host_deadline_ms - spare_ms : boot->host_deadline_ms;
    return ms * RF_NS_PER_MS;
}

network_t *conn_network(shell_t *s, const char *medium, rf_err_t *err)
{
    for (unsigned i = 0; i < s->n_networks; i++) {
        if (strcmp(s->networks[i].medium, medium) == 0) return &s->networks[i];
    }
    *err = RF_ERR_LIMIT;
    if (s->n_networks == SHELL_NETWORKS_MAX) return NULL;
    network_t *network = &s->networks[s->n_networks];
    char why[256] = "", listen[RF_ADDRESS_MAX];
    *err = rf_transport_find(medium, &network->transport, why, sizeof why);
    if (*err != RF_OK) {
        rf_log(RF_LOG_ERROR, "no medium '%s': %s", medium, why);
        return NULL;
    }
    const char *host = s->boot->nodes[s->boot->node].address;
    snprintf(listen, sizeof listen, strchr(host, ':') ? "[%s]:0" : "%s:0", host);
    /* Over DPDK the control link says the secrets of frames, which are authenticated also where links are not encrypted. */
    bool keyed = s->boot->encrypt || strcmp(medium, "dpdk") == 0;
    rf_endpoint_params_t params = {
        .self = {.version_major = RF_VERSION_MAJOR,
                 .version_minor = RF_VERSION_MINOR,
                 .kind = RF_ROLE_MONITOR,
                 .core = s->core,
                 .incarnation = s->incarnation,
                 .machine = s->boot->machine},
        .on_event = conn_event,
        .context = s,
        .address = listen,
        .key = keyed ? s->boot->link_key : NULL,
        .key_size = keyed ? sizeof s->boot->link_key : 0,
        .deadline_ns = link_deadline_ns(s->boot),
    };
    char options[RF_DPDK_OPTIONS_MAX] = "";
    if (strcmp(medium, "rdma") == 0)
        snprintf(options, sizeof options, "%.*s", RF_RDMA_OPTIONS_MAX - 1, s->boot->rdma);
    if (strcmp(medium, "dpdk") == 0)
        snprintf(options, sizeof options, "%.*s", RF_DPDK_OPTIONS_MAX - 1, s->boot->dpdk);
    if (options[0]) params.medium = options;
    *err = network->transport->endpoint_open(&params, &network->endpoint);
    if (*err != RF_OK) {
        rf_log(RF_LOG_ERROR, "cannot listen on %s for other hosts: %s", listen, rf_err_text(*err));
        return NULL;
    }
    network->transport->endpoint_address(network->endpoint, network->address, sizeof network->address);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = -1};
    int fd = network->transport->endpoint_fd(network->endpoint);
    if (fd >= 0) epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &event);
    snprintf(network->medium, sizeof network->medium, "%s", medium);
    network->next_ns = 0;
    s->n_networks++;
    return network;
}

void conn_dial(shell_t *s, rf_core_t core, const char *address)
{
    char path[RF_ADDRESS_MAX];
    rf_err_t err = RF_OK;
    if (s->peers[core]) return; /* it dialled first, and is not told yet */
    conn_t *conn = conn_new(s, CONN_PEER);
    if (!conn) return; /* the operations that wait for it run into their deadlines */
    const rf_transport_t *transport = s->shm;
    rf_endpoint_t *endpoint = s->host;
    if (address[0]) {
        const network_t *network = conn_network(s, s->boot->medium[s->boot->node_of[core]], &err);
        transport = network ? network->transport : NULL;
        endpoint = network ? network->endpoint : NULL;
    } else if (snprintf(path, sizeof path, "%s/monitor-%u.sock", s->boot->run_dir, core) < (int)sizeof path) {
        address = path;
    } else {
        err = RF_ERR_LIMIT;
    }
    conn->core = core;
    conn->dialed = true;
    s->peers[core] = conn;
    snprintf(conn->address, sizeof conn->address, "%.*s", RF_NAME_MAX - 1, address);
    if (err == RF_OK) {
        rf_hello_t hello;
        conn_hello(s, &hello, RF_ROLE_MONITOR);
        if (endpoint == s->host) memset(hello.token, 0, sizeof hello.token);
        rf_link_params_t params = {
            .address = address, .socket = -1, .hello = &hello, .slots_max = SHELL_SLOTS_MAX, .user = conn};
        err = transport->connect(endpoint, &params, &conn->link);
    }
    if (err != RF_OK) {
        conn->link = NULL;
        conn->ended = true;
        conn->err = err;
    }
}

void conn_adopt(shell_t *s, rf_domain_t domain, uint16_t index, int fd)
{
    uint32_t client = free_client(s);
    conn_t *conn = client == UINT32_MAX ? NULL : conn_new(s, CONN_DISPATCHER);
    if (!conn) {
        rf_log(RF_LOG_WARN, "no room for the client link of domain %llu.%u", (unsigned long long)domain,
               index);
        close(fd);
        return;
    }
    conn->client = client;
    conn->domain = domain;
    conn->index = index;
    s->clients[client] = conn;
    rf_link_params_t params = {.socket = fd, .slots_max = SHELL_SLOTS_MAX, .user = conn};
    conn->err = s->shm->connect(s->host, &params, &conn->link);
    if (conn->err != RF_OK) {
        conn->link = NULL;
        conn->ended = true;
    }
}
