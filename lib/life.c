/*
 * From rf_init() to rf_finish(). Start-up, in order: the doorbell; an shm endpoint; the kernel link over the socket that the
 * environment names; IDENTIFY, which brings the client link's socket; the lookout; the client link.
 */
#include "internal.h"

#include "base/log.h"
#include "transport/registry.h"
#include "transport/shm/shm.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHM_DEADLINE_NS                                                                                      \
    (10 * RF_NS_PER_S) /* for links to come up; the other side may be starved, never far */
#define POLL_MS 10

lib_dispatcher_t rf_me;
static bool once; /* the socket of the kernel link is there only once */

uint64_t rf_now_ns(void)
{
    return rf_clock_ns();
}
uint64_t rf_deadline_ms(uint64_t milliseconds)
{
    return rf_clock_ns() + milliseconds * RF_NS_PER_MS;
}
const char *rf_version(void)
{
    return RF_VERSION_TEXT;
}

/* The socket that whoever started us left; -1 when there is none. */
static int dispatcher_socket(void)
{
    const char *text = getenv(RF_ENV_DISPATCHER_FD);
    if (!text || !*text) return -1;
    char *end;
    errno = 0;
    long fd = strtol(text, &end, 10);
    struct stat st;
    if (errno || *end || fd < 0 || fd > INT32_MAX || fstat((int)fd, &st) != 0 || !S_ISSOCK(st.st_mode))
        return -1;
    return (int)fd;
}

/* Before the lookout watches our descriptors, we do. */
static rf_err_t wait_kernel_up(uint64_t deadline_ns)
{
    lib_port_t *port = &rf_me.kernel.port;
    int fd = rf_me.shm->endpoint_fd(rf_me.endpoint);
    while (!port->up && port->end == RF_OK) {
        uint64_t now_ns = rf_clock_ns(), next_ns;
        if (now_ns >= deadline_ns) return rf_lib_fail(RF_ERR_TIMEOUT, "the CPU driver does not answer");
        rf_me.shm->endpoint_progress(rf_me.endpoint, now_ns, &next_ns);
        if (port->up || port->end != RF_OK) break;
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        (void)poll(&wait, 1, POLL_MS);
    }
    return port->end;
}

static rf_err_t connect_server(lib_server_port_t *server, int socket)
{
    rf_hello_t hello = {
        .version_major = RF_VERSION_MAJOR,
        .version_minor = RF_VERSION_MINOR,
        .kind = RF_ROLE_DISPATCHER,
        .core = rf_me.self.core,
        .machine = rf_me.identity.machine,
    };
    rf_link_params_t params = {.socket = socket, .hello = &hello, .user = server};
    rf_me.endpoint_watch.next_ns = 0;
    return rf_me.shm->connect(rf_me.endpoint, &params, &server->port.link);
}

static rf_err_t identify(int *client_socket, uint64_t deadline_ns)
{
    rf_err_t err =
        rf_lib_request(&rf_me.kernel, RF_KERNEL_IDENTIFY, NULL, 0, &rf_me.identity, sizeof rf_me.identity,
                       sizeof rf_me.identity, NULL, client_socket, deadline_ns);
    if (err != RF_OK) return err;
    if (*client_socket < 0) return rf_lib_fail(RF_ERR_PROTOCOL, "the CPU driver sent no way to the monitor");
    rf_kernel_identity_t *id = &rf_me.identity;
    id->machine_name[sizeof id->machine_name - 1] = 0;
    id->node_name[sizeof id->node_name - 1] = 0;
    id->host_address[sizeof id->host_address - 1] = 0;
    id->rdma[sizeof id->rdma - 1] = 0;
    id->dpdk[sizeof id->dpdk - 1] = 0;
    if (id->span_args_size > sizeof id->span_args) return RF_ERR_PROTOCOL;
    rf_me.self = (rf_self_t){
        .machine = id->machine,
        .machine_name = id->machine_name,
        .node_name = id->node_name,
        .host_address = id->host_address,
        .domain = id->domain,
        .index = id->index,
        .core = id->core,
        .node = id->node,
        .cores = id->cores,
        .nodes = id->nodes,
        .node_first_core = id->node_first_core,
        .node_cores = id->node_cores,
        .cpu = id->cpu,
        .cpu_shared = id->cpu_shared,
        .encrypted = id->encrypt,
        .span_args = id->span_args_size ? id->span_args : NULL,
        .span_args_size = id->span_args_size,
    };
    return RF_OK;
}

static rf_err_t start(int socket, uint64_t deadline_ns)
{
    int client_socket = -1;
    rf_err_t err = rf_doorbell_create(&rf_me.doorbell);
    if (err != RF_OK) return err;
    rf_endpoint_params_t params = {
        .self = {.version_major = RF_VERSION_MAJOR,
                 .version_minor = RF_VERSION_MINOR,
                 .kind = RF_ROLE_DISPATCHER,
                 .core = RF_CORE_NONE},
        .doorbell = &rf_me.doorbell,
        .on_event = rf_lib_on_event,
        .deadline_ns = SHM_DEADLINE_NS,
    };
    err = rf_me.shm->endpoint_open(&params, &rf_me.endpoint);
    if (err != RF_OK) return err;
    rf_me.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (rf_me.epoll < 0) return rf_lib_fail(RF_ERR_OS, "epoll_create1: %s", strerror(errno));
    err = rf_lib_watch_endpoint(&rf_me.endpoint_watch, rf_me.endpoint);
    if (err != RF_OK) return err;
    rf_me.self.core = RF_CORE_NONE;
    err = connect_server(&rf_me.kernel, socket);
    if (err == RF_OK) err = wait_kernel_up(deadline_ns);
    if (err == RF_OK) err = identify(&client_socket, deadline_ns);
    if (err == RF_OK)
        err = rf_lib_lookout_start(rf_me.epoll, &rf_me.doorbell); /* from here on everything rings */
    if (err != RF_OK) {
        if (client_socket >= 0) close(client_socket);
        return err;
    }
    /* Other cores of the machine on our CPU: polling would keep them from answering. */
    rf_wait_init(&rf_me.wait, rf_me.identity.cpu_shared ? 0 : RF_POLL_BUDGET_US_MAX);
    err = connect_server(&rf_me.client, client_socket);
    return err == RF_OK ? rf_lib_wait_up(&rf_me.client.port, deadline_ns) : err;
}

rf_err_t rf_init(uint64_t deadline_ns)
{
    if (rf_me.up) return rf_lib_fail(RF_ERR_EXISTS, "rf_init: called already");
    int socket = once ? -1 : dispatcher_socket();
    if (socket < 0)
        return rf_lib_fail(RF_ERR_NO_MACHINE,
                           once ? "rf_init: a process joins its machine once"
                                : "not inside a machine: start this program with `rackfish run -- PROGRAM`");
    once = true;
    (void)fcntl(socket, F_SETFD, FD_CLOEXEC); /* programs we execute are no dispatchers */
    memset(&rf_me, 0, sizeof rf_me);
    rf_me.epoll = -1;
    rf_me.shm = &rf_transport_shm;
    rf_me.kernel = (lib_server_port_t){.port.kind = LIB_PORT_KERNEL,
                                       .request_type = RF_KERNEL_INVOKE,
                                       .reply_type = RF_KERNEL_REPLY,
                                       .event_type = RF_KERNEL_EVENT};
    rf_me.client = (lib_server_port_t){.port.kind = LIB_PORT_CLIENT,
                                       .request_type = RF_CLIENT_REQUEST,
                                       .reply_type = RF_CLIENT_REPLY,
                                       .event_type = RF_CLIENT_EVENT};
    (void)rf_transport_register(&rf_transport_shm);
    rf_lib_threads_start();
    rf_me.up = true;
    rf_lib_fail(RF_OK, "%s", "");
    rf_err_t err = start(socket, deadline_ns);
    if (err != RF_OK) {
        rf_finish();
        if (!*rf_reason()) rf_lib_fail(err, "rf_init: %s", rf_err_text(err));
    }
    return err;
}

const rf_self_t *rf_self(void)
{
    return rf_me.up ? &rf_me.self : NULL;
}

void rf_finish(void)
{
    if (!rf_me.up || rf_me.current != &rf_me.first_thread) return;
    rf_lib_watches_stop();
    rf_lib_waitsets_stop();
    rf_lib_operations_stop();
    while (rf_me.exports)
        (void)rf_export_close(rf_me.exports, 0); /* the monitor withdraws names of who has left */
    while (rf_me.channels) rf_lib_channel_destroy(rf_me.channels, true);
    rf_lib_lookout_stop();
    rf_lib_threads_stop();
    for (unsigned i = 0; i < LIB_REQUESTS_MAX; i++)
        if (rf_me.requests[i].used) rf_lib_request_free(&rf_me.requests[i]);
    for (unsigned i = 0; i < LIB_LOST_FDS_MAX; i++)
        if (rf_me.lost_fds[i].server) close(rf_me.lost_fds[i].fd);
    if (rf_me.client.port.link) rf_me.shm->close(rf_me.client.port.link);
    if (rf_me.kernel.port.link) rf_me.shm->close(rf_me.kernel.port.link);
    if (rf_me.endpoint) rf_me.shm->endpoint_close(rf_me.endpoint);
    if (rf_me.epoll >= 0) close(rf_me.epoll);
    if (rf_me.doorbell.word) rf_doorbell_destroy(&rf_me.doorbell);
    memset(&rf_me, 0, sizeof rf_me);
    rf_me.epoll = -1;
}
