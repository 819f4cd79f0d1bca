/*
 * Endpoints: one epoll descriptor over the listener and every side socket, which is what the owner waits on. Links
 * that are being made have a deadline; the rest is driven by the descriptor alone.
 */
#include "internal.h"

#include "base/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTENER_TAG        UINT64_MAX
#define EVENTS_PER_PROGRESS 64
#define ACCEPTS_AT_ONCE     16
#define BACKLOG             256
#define REDIAL_NS           (5 * RF_NS_PER_MS)
#define DEADLINE_NS_DEFAULT RF_NS_PER_S
#define LISTENER_PAUSE_NS   (100 * RF_NS_PER_MS)

static bool watch(shm_endpoint_t *endpoint, int fd, uint64_t tag)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = tag};
    return epoll_ctl(endpoint->epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

bool shm_watch_side(shm_link_t *link)
{
    return watch(link->endpoint, link->side, (uint64_t)link->generation << 32 | link->place);
}

static bool unix_address(const char *path, struct sockaddr_un *out)
{
    size_t length = strlen(path);
    if (length == 0 || length >= sizeof out->sun_path) return false;
    *out = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(out->sun_path, path, length + 1);
    return true;
}

static int unix_socket(void)
{
    return socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
}

/* Somebody listens on the path: a socket file that its process left behind answers ECONNREFUSED. */
static bool listened_on(const struct sockaddr_un *address)
{
    int fd = unix_socket();
    if (fd < 0) return true;
    bool live = connect(fd, (const struct sockaddr *)address, sizeof *address) == 0 || errno != ECONNREFUSED;
    close(fd);
    return live;
}

static rf_err_t start_listening(shm_endpoint_t *endpoint, const char *path)
{
    struct sockaddr_un address;
    if (!unix_address(path, &address)) {
        rf_log(RF_LOG_ERROR, "shm: the socket path %s is too long or empty: choose a shorter run directory",
               path);
        return RF_ERR_INVALID;
    }
    endpoint->listener = unix_socket();
    if (endpoint->listener < 0) return RF_ERR_OS;
    int rc = bind(endpoint->listener, (struct sockaddr *)&address, sizeof address);
    if (rc < 0 && errno == EADDRINUSE) {
        if (listened_on(&address)) {
            rf_log(RF_LOG_ERROR, "shm: somebody listens on %s already: stop it or choose another path", path);
            return RF_ERR_EXISTS;
        }
        unlink(path);
        rc = bind(endpoint->listener, (struct sockaddr *)&address, sizeof address);
    }
    struct stat st;
    if (rc < 0 || listen(endpoint->listener, BACKLOG) < 0 || stat(path, &st) < 0 ||
        !watch(endpoint, endpoint->listener, LISTENER_TAG)) {
        rf_log(RF_LOG_ERROR, "shm: cannot listen on %s: %s", path, strerror(errno));
        return RF_ERR_OS;
    }
    endpoint->listener_inode = st.st_ino;
    memcpy(endpoint->address, address.sun_path, strlen(path) + 1);
    return RF_OK;
}

rf_err_t shm_endpoint_open(const rf_endpoint_params_t *params, rf_endpoint_t **out)
{
    shm_endpoint_t *endpoint = calloc(1, sizeof *endpoint);
    if (!endpoint) return RF_ERR_NO_MEMORY;
    endpoint->base.transport = &rf_transport_shm;
    endpoint->params = *params;
    endpoint->relays = params->medium && strcmp(params->medium, RF_SHM_RELAY) == 0;
    if (endpoint->params.deadline_ns == 0) endpoint->params.deadline_ns = DEADLINE_NS_DEFAULT;
    endpoint->listener = -1;
    endpoint->epoll = epoll_create1(EPOLL_CLOEXEC);
    rf_err_t err = endpoint->epoll < 0 ? RF_ERR_OS : RF_OK;
    if (err == RF_OK && params->address) err = start_listening(endpoint, params->address);
    if (err != RF_OK) {
        shm_endpoint_close(&endpoint->base);
        return err;
    }
    *out = &endpoint->base;
    return RF_OK;
}

void shm_endpoint_close(rf_endpoint_t *base)
{
    shm_endpoint_t *endpoint = (shm_endpoint_t *)base;
    for (uint32_t i = 0; i < endpoint->links_room; i++) {
        if (endpoint->links[i]) shm_link_free(endpoint->links[i]);
    }
    free(endpoint->links);
    if (endpoint->listener >= 0) close(endpoint->listener);
    struct stat st; /* only what we made: a successor may listen on the path by now */
    if (endpoint->address[0] && stat(endpoint->address, &st) == 0 && st.st_ino == endpoint->listener_inode)
        unlink(endpoint->address);
    if (endpoint->epoll >= 0) close(endpoint->epoll);
    free(endpoint);
}

rf_err_t shm_endpoint_address(rf_endpoint_t *base, char *out, size_t max)
{
    shm_endpoint_t *endpoint = (shm_endpoint_t *)base;
    if (!endpoint->address[0]) return RF_ERR_NOT_SUPPORTED;
    size_t length = strlen(endpoint->address);
    if (length >= max) return RF_ERR_TRUNCATED;
    memcpy(out, endpoint->address, length + 1);
    return RF_OK;
}

int shm_endpoint_fd(rf_endpoint_t *base)
{
    return ((shm_endpoint_t *)base)->epoll;
}

static void note_credentials(shm_link_t *link)
{
    struct ucred credentials;
    socklen_t size = sizeof credentials;
    if (getsockopt(link->side, SOL_SOCKET, SO_PEERCRED, &credentials, &size) == 0) {
        link->peer_pid = credentials.pid;
        link->peer_uid = credentials.uid;
    }
}

/* ---- connecting ---- */

/* The side socket is connected: says hello. */
static rf_err_t greet(shm_link_t *link)
{
    note_credentials(link);
    if (!shm_watch_side(link)) return RF_ERR_OS;
    rf_err_t err = shm_link_objects(link);
    if (err == RF_OK) err = shm_side_hello(link);
    link->phase = SHM_GREETING;
    return err == RF_ERR_CLOSED ? RF_ERR_PEER_DEAD : err;
}

/* RF_ERR_AGAIN: nobody listens yet. */
static rf_err_t dial(shm_link_t *link)
{
    struct sockaddr_un address;
    if (!unix_address(link->address, &address)) return RF_ERR_INVALID;
    link->side = unix_socket();
    if (link->side < 0) return RF_ERR_OS;
    if (connect(link->side, (struct sockaddr *)&address, sizeof address) == 0) return greet(link);
    int error = errno;
    close(link->side);
    link->side = -1;
    switch (error) {
    case ENOENT:
    case ECONNREFUSED:
    case EAGAIN:
        return RF_ERR_AGAIN;
    case EACCES:
    case EPERM:
        return RF_ERR_PERMISSION;
    default:
        errno = error;
        return RF_ERR_OS;
    }
}

rf_err_t shm_connect(rf_endpoint_t *base, const rf_link_params_t *params, rf_link_t **out)
{
    shm_endpoint_t *endpoint = (shm_endpoint_t *)base;
    rf_err_t err = RF_ERR_INVALID;
    shm_link_t *link = NULL;
    bool by_path = params->address != NULL;
    if (by_path ? strlen(params->address) < RF_ADDRESS_MAX : params->socket >= 0)
        link = shm_link_new(endpoint, params, &err);
    if (!link) {
        if (!by_path && params->socket >= 0) close(params->socket);
        return err;
    }
    link->phase = SHM_DIALING;
    shm_settle(link, true);
    if (by_path) {
        memcpy(link->address, params->address, strlen(params->address) + 1);
        err = dial(link);
    } else {
        link->side = params->socket;
        err = greet(link);
    }
    if (err == RF_ERR_PEER_DEAD) {
        shm_end(link, err); /* reported by progress() */
    } else if (err != RF_OK && err != RF_ERR_AGAIN) {
        shm_link_free(link);
        return err;
    }
    *out = &link->base;
    return RF_OK;
}

/* One more connection may wait for its hello. Strangers, each and together, leave places for this user and root. */
static bool has_place(const shm_endpoint_t *endpoint, int fd)
{
    struct ucred peer;
    uint32_t n = 0;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &(socklen_t){sizeof peer}) < 0) return false;
    if (peer.uid == 0 || peer.uid == geteuid()) return endpoint->n_arrived < SHM_INCOMING_MAX;
    for (uint32_t i = 0; i < endpoint->links_room && endpoint->n_arrived > 0; i++) {
        const shm_link_t *link = endpoint->links[i];
        n += link && link->phase == SHM_ARRIVED && link->peer_uid == peer.uid;
    }
    return n < SHM_INCOMING_STRANGER && endpoint->n_arrived < SHM_INCOMING_MAX / 2;
}

static void arrive(shm_endpoint_t *endpoint, int fd)
{
    rf_err_t err;
    shm_link_t *link = has_place(endpoint, fd) ? shm_link_new(endpoint, NULL, &err) : NULL;
    if (!link) {
        if (rf_log_once_per(&endpoint->logged_ns, RF_NS_PER_S))
            rf_log(RF_LOG_WARN, "shm: a connection to %s is turned away: too many at once",
                   endpoint->address);
        close(fd);
        return;
    }
    link->side = fd;
    link->phase = SHM_ARRIVED;
    endpoint->n_arrived++;
    shm_settle(link, true);
    note_credentials(link);
    if (!shm_watch_side(link)) shm_link_free(link);
}

static void accept_some(shm_endpoint_t *endpoint, uint64_t now_ns)
{
    for (unsigned i = 0; i < ACCEPTS_AT_ONCE; i++) {
        int fd = accept4(endpoint->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            arrive(endpoint, fd);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            rf_log(RF_LOG_ERROR, "shm: cannot accept on %s: %s", endpoint->address, strerror(errno));
            epoll_ctl(endpoint->epoll, EPOLL_CTL_DEL, endpoint->listener, NULL);
            endpoint->resume_ns = now_ns + LISTENER_PAUSE_NS;
        }
        return;
    }
}

rf_err_t shm_accept(rf_link_t *base, const rf_link_params_t *params)
{
    shm_link_t *link = (shm_link_t *)base;
    if (link->phase == SHM_OVER) return link->end;
    if (link->phase != SHM_OFFERED) return RF_ERR_INVALID;
    uint32_t slots = params ? params->slots : 0, slots_max = params ? params->slots_max : 0;
    rf_err_t err = shm_ring_slots_check(&slots, &slots_max);
    if (err != RF_OK) return err;
    link->out_slots = slots;
    link->slots_max = slots_max;
    if (params) {
        link->base.user = params->user;
        if (params->hello) link->self = *params->hello;
    }
    err = shm_link_objects(link);
    if (err == RF_OK) err = shm_side_hello(link);
    if (err == RF_OK) err = shm_side_ready(link);
    if (err == RF_ERR_CLOSED) err = RF_OK; /* the peer is gone: progress() will find it so */
    if (err != RF_OK) {
        shm_end(link, err);
        return err;
    }
    link->phase = SHM_MAPPED;
    link->deadline_ns = rf_clock_ns() + link->endpoint->params.deadline_ns;
    shm_settle(link, true);
    return RF_OK;
}

void shm_reject(rf_link_t *base, rf_err_t why)
{
    shm_link_t *link = (shm_link_t *)base;
    if (link->side >= 0) shm_side_reject(link->side, why);
    base->transport->close(base);
}

/* ---- progress ---- */

static shm_link_t *link_by_tag(shm_endpoint_t *endpoint, uint64_t tag)
{
    uint32_t place = (uint32_t)tag;
    shm_link_t *link = place < endpoint->links_room ? endpoint->links[place] : NULL;
    return link && link->generation == tag >> 32 ? link : NULL;
}

static void side_readable(shm_link_t *link)
{
    shm_enter(link);
    shm_side_drain(link);
    if (!link->closed) {
        shm_end_if_drained(link);
        shm_report_over(link);
    }
    shm_leave(link);
}

/* A link that is being made, or whose end is to be reported. */
static void settle(shm_link_t *link, uint64_t now_ns, uint64_t *next_ns)
{
    shm_enter(link);
    if (link->phase == SHM_DIALING && now_ns >= link->redial_ns) {
        rf_err_t err = dial(link);
        if (err == RF_ERR_AGAIN)
            link->redial_ns = now_ns + REDIAL_NS;
        else if (err != RF_OK)
            shm_end(link, err);
    }
    if (link->phase < SHM_UP && link->unsettled && now_ns >= link->deadline_ns) {
        bool nobody = link->phase == SHM_DIALING;
        shm_end(link, nobody ? RF_ERR_NOT_FOUND : RF_ERR_TIMEOUT);
    }
    shm_report_over(link);
    if (link->unsettled) {
        uint64_t at = link->phase == SHM_DIALING && link->redial_ns < link->deadline_ns ? link->redial_ns
                                                                                        : link->deadline_ns;
        if (at < *next_ns) *next_ns = at;
    }
    shm_leave(link);
}

void shm_endpoint_progress(rf_endpoint_t *base, uint64_t now_ns, uint64_t *next_ns)
{
    shm_endpoint_t *endpoint = (shm_endpoint_t *)base;
    *next_ns = RF_NEVER;
    if (endpoint->resume_ns && now_ns >= endpoint->resume_ns) {
        endpoint->resume_ns =
            watch(endpoint, endpoint->listener, LISTENER_TAG) ? 0 : now_ns + LISTENER_PAUSE_NS;
    }
    struct epoll_event events[EVENTS_PER_PROGRESS];
    int n = epoll_wait(endpoint->epoll, events, EVENTS_PER_PROGRESS, 0);
    for (int i = 0; i < n; i++) {
        if (events[i].data.u64 == LISTENER_TAG) {
            accept_some(endpoint, now_ns);
            continue;
        }
        shm_link_t *link = link_by_tag(endpoint, events[i].data.u64);
        if (link) side_readable(link);
    }
    for (uint32_t i = 0; i < endpoint->links_room && endpoint->n_unsettled > 0; i++) {
        if (endpoint->links[i] && endpoint->links[i]->unsettled) settle(endpoint->links[i], now_ns, next_ns);
    }
    if (endpoint->resume_ns && endpoint->resume_ns < *next_ns) *next_ns = endpoint->resume_ns;
}
