#include "cli/client.h"

#include "base/clock.h"
#include "cli/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define HELLO_TIMEOUT_MS 3000
#define READ_CHUNK       (128u << 10)

static bool grow(uint8_t **bytes, size_t *room, size_t wanted)
{
    if (wanted <= *room) return true;
    size_t size = *room ? *room : 4096;
    while (size < wanted) size *= 2;
    uint8_t *fresh = realloc(*bytes, size);
    if (!fresh) return false;
    *bytes = fresh;
    *room = size;
    return true;
}

uint64_t client_queue(client_t *client, request_t *request)
{
    if (request->id == 0) request->id = ++client->last_id;
    size_t size = rackfish__control_request__get_packed_size(request);
    if (size > CLIENT_FRAME_MAX || !grow(&client->out, &client->out_room, client->out_used + 4 + size))
        return 0;
    uint8_t *head = client->out + client->out_used;
    for (unsigned i = 0; i < 4; i++) head[i] = (uint8_t)(size >> (8 * i));
    rackfish__control_request__pack(request, head + 4);
    client->out_used += 4 + size;
    return request->id;
}

rf_err_t client_flush(client_t *client)
{
    size_t done = 0;
    rf_err_t err = RF_OK;
    while (done < client->out_used) {
        ssize_t n =
            send(client->fd, client->out + done, client->out_used - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            done += (size_t)n;
        } else if (n < 0 && errno == EINTR) {
            continue;
        } else {
            err = n < 0 && errno == EAGAIN ? RF_ERR_AGAIN : RF_ERR_CLOSED;
            break;
        }
    }
    client->out_used -= done;
    memmove(client->out, client->out + done, client->out_used);
    return err;
}

/* The size of the next frame, once it has been received whole. */
static rf_err_t next_frame(const client_t *client, size_t *out)
{
    if (client->in_used < 4) return RF_ERR_AGAIN;
    size_t size = 0;
    for (unsigned i = 0; i < 4; i++) size |= (size_t)client->in[i] << (8 * i);
    if (size > CLIENT_FRAME_MAX) return RF_ERR_PROTOCOL;
    if (client->in_used < 4 + size) return RF_ERR_AGAIN;
    *out = size;
    return RF_OK;
}

bool client_has_reply(const client_t *client)
{
    size_t size;
    return next_frame(client, &size) != RF_ERR_AGAIN;
}

/* Takes one whole frame out of what was received. */
static rf_err_t take_frame(client_t *client, reply_t **reply)
{
    size_t size;
    rf_err_t err = next_frame(client, &size);
    if (err != RF_OK) return err;
    reply_t *unpacked = rackfish__control_reply__unpack(NULL, size, client->in + 4);
    client->in_used -= 4 + size;
    memmove(client->in, client->in + 4 + size, client->in_used);
    if (!unpacked) return RF_ERR_PROTOCOL;
    *reply = unpacked;
    return RF_OK;
}

rf_err_t client_poll(client_t *client, reply_t **reply)
{
    for (;;) {
        rf_err_t err = take_frame(client, reply);
        if (err != RF_ERR_AGAIN) return err;
        if (!grow(&client->in, &client->in_room, client->in_used + READ_CHUNK)) return RF_ERR_NO_MEMORY;
        ssize_t n = recv(client->fd, client->in + client->in_used, READ_CHUNK, MSG_DONTWAIT);
        if (n > 0)
            client->in_used += (size_t)n;
        else if (n < 0 && errno == EINTR)
            continue;
        else
            return n < 0 && errno == EAGAIN ? RF_ERR_AGAIN : RF_ERR_CLOSED;
    }
}

static int timeout_until(uint64_t deadline_ns)
{
    if (deadline_ns == RF_NEVER) return -1;
    uint64_t now = rf_clock_ns();
    if (now >= deadline_ns) return 0;
    uint64_t ms = (deadline_ns - now + RF_NS_PER_MS - 1) / RF_NS_PER_MS;
    return ms > 1000000 ? 1000000 : (int)ms;
}

rf_err_t client_receive(client_t *client, uint64_t deadline_ns, reply_t **reply)
{
    for (;;) {
        rf_err_t err = client_flush(client);
        if (err == RF_ERR_CLOSED) {
            /* The node may have said why before it closed. */
            err = client_poll(client, reply);
            return err == RF_ERR_AGAIN ? RF_ERR_CLOSED : err;
        }
        struct pollfd p = {.fd = client->fd, .events = (short)(POLLIN | (err == RF_ERR_AGAIN ? POLLOUT : 0))};
        err = client_poll(client, reply);
        if (err != RF_ERR_AGAIN) return err;
        int n = poll(&p, 1, timeout_until(deadline_ns));
        if (n == 0 && rf_clock_ns() >= deadline_ns) return RF_ERR_TIMEOUT;
        if (n < 0 && errno != EINTR) return RF_ERR_OS;
    }
}

void client_reply_free(reply_t *reply)
{
    if (reply) rackfish__control_reply__free_unpacked(reply, NULL);
}

void client_close(client_t *client)
{
    if (client->fd >= 0) close(client->fd);
    free(client->in);
    free(client->out);
    *client = (client_t){.fd = -1};
}

static rf_err_t say_hello(client_t *client, uint64_t deadline_ns, char *why, size_t why_max)
{
    Rackfish__Hello hello;
    rackfish__hello__init(&hello);
    hello.major = CLIENT_PROTOCOL_MAJOR;
    hello.minor = CLIENT_PROTOCOL_MINOR;
    hello.software = (char *)(uintptr_t) "rackfish";
    const char *token = getenv("RACKFISH_CONTROL"); /* inside a domain that was started with --control */
    if (token) hello.control_token = (char *)(uintptr_t)token;
    request_t request = REQUEST_INIT;
    request.kind_case = RACKFISH__CONTROL_REQUEST__KIND_HELLO;
    request.hello = &hello;
    if (!client_queue(client, &request)) return RF_ERR_NO_MEMORY;
    reply_t *reply = NULL;
    rf_err_t err = client_receive(client, deadline_ns, &reply);
    if (err != RF_OK) return err;
    if (reply->err != RF_OK) {
        err = reply->err < RF_ERR_COUNT ? (rf_err_t)reply->err : RF_ERR_PROTOCOL;
        snprintf(why, why_max, "%s", reply->message);
    } else if (reply->kind_case != RACKFISH__CONTROL_REPLY__KIND_HELLO) {
        err = RF_ERR_PROTOCOL;
    } else if (reply->hello->major != CLIENT_PROTOCOL_MAJOR) {
        err = RF_ERR_VERSION;
    } else {
        snprintf(client->machine, sizeof client->machine, "%s", reply->hello->machine);
        snprintf(client->node, sizeof client->node, "%s", reply->hello->node);
    }
    client_reply_free(reply);
    return err;
}

rf_err_t client_connect(client_t *client, const char *socket_path, int timeout_ms, char *why, size_t why_max)
{
    *client = (client_t){.fd = -1};
    why[0] = '\0';
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(socket_path) >= sizeof address.sun_path) {
        snprintf(why, why_max, "the path %s is too long for a socket; choose a shorter run directory or name",
                 socket_path);
        return RF_ERR_INVALID;
    }
    snprintf(address.sun_path, sizeof address.sun_path, "%s", socket_path);
    client->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (client->fd < 0) return RF_ERR_OS;
    rf_err_t err;
    if (connect(client->fd, (struct sockaddr *)&address, sizeof address) < 0) {
        switch (errno) {
        case EACCES:
        case EPERM:
            err = RF_ERR_PERMISSION;
            break;
        case EAGAIN:
            err = RF_ERR_TIMEOUT;
            break;
        case ENOENT:
        case ECONNREFUSED:
            err = RF_ERR_NO_MACHINE;
            break;
        default:
            err = RF_ERR_OS;
        }
    } else {
        err = say_hello(client, rf_clock_ns() + (uint64_t)timeout_ms * RF_NS_PER_MS, why, why_max);
    }
    if (err != RF_OK) client_close(client);
    return err;
}

typedef struct name_list {
    char text[512];
} name_list_t;

static void append_name(const char *name, void *context)
{
    name_list_t *list = context;
    size_t n = strlen(list->text);
    snprintf(list->text + n, sizeof list->text - n, "%s%s", n ? ", " : "", name);
}

static int no_such_machine(const cli_t *cli)
{
    name_list_t list = {""};
    if (machine_each(append_name, &list) > 0)
        cli_error(cli, "no machine \"%s\" runs here; choose one of %s with -m, or boot it with `rackfish up`",
                  cli->machine, list.text);
    else
        cli_error(cli, "no machine \"%s\" runs here; boot one with `rackfish up`", cli->machine);
    return CLI_NO_MACHINE;
}

int client_open(const cli_t *cli, client_t *client)
{
    *client = (client_t){.fd = -1};
    if (!machine_name_valid(cli->machine))
        return cli_usage(cli, "\"%s\" is no name of a machine: letters, digits, - _ and . only",
                         cli->machine);
    if (cli->via && !machine_name_valid(cli->via))
        return cli_usage(cli, "\"%s\" is no name of a node", cli->via);
    machine_dir_t dir;
    if (!machine_find(cli, &dir)) return no_such_machine(cli);
    if (cli->via) {
        dir.n_nodes = 1;
        snprintf(dir.nodes[0], sizeof dir.nodes[0], "%s", cli->via);
    } else if (dir.n_nodes == 0) {
        /* A folder that may be entered but not listed: emulated nodes and this host have known names. */
        for (unsigned i = 0; i + 1 < MACHINE_NODES_MAX; i++)
            snprintf(dir.nodes[dir.n_nodes++], sizeof dir.nodes[0], "node%u", i);
        if (gethostname(dir.nodes[dir.n_nodes], sizeof dir.nodes[0] - 1) == 0) {
            dir.nodes[dir.n_nodes][strcspn(dir.nodes[dir.n_nodes], ".")] = '\0';
            dir.n_nodes++;
        }
    }
    /* What stands when nobody answered: the most telling of the refusals. */
    rf_err_t worst = RF_ERR_NO_MACHINE;
    char why[512] = "", worst_why[512] = "", worst_node[RF_NAME_MAX] = "";
    for (unsigned i = 0; i < dir.n_nodes; i++) {
        char path[CLI_PATH_MAX];
        snprintf(path, sizeof path, "%s/%s.sock", dir.path, dir.nodes[i]);
        rf_err_t err = client_connect(client, path, HELLO_TIMEOUT_MS, why, sizeof why);
        if (err == RF_OK) return CLI_OK;
        if (err == RF_ERR_CLOSED) err = RF_ERR_NO_MACHINE; /* it is just going: who refuses says so */
        if (err != RF_ERR_NO_MACHINE) {
            worst = err;
            memcpy(worst_why, why, sizeof worst_why);
            memcpy(worst_node, dir.nodes[i], sizeof worst_node);
        }
    }
    if (worst == RF_ERR_NO_MACHINE) {
        if (cli->via)
            cli_error(cli, "node %s of machine \"%s\" has no control socket here", cli->via, cli->machine);
        else
            cli_error(cli,
                      "no rackfishd of machine \"%s\" runs; `rackfish -m %s up` takes its cores over again, "
                      "`rackfish -m %s down` ends them",
                      cli->machine, cli->machine, cli->machine);
    } else if (worst_why[0]) {
        cli_error(cli, "node %s: %s", worst_node, worst_why);
    } else if (worst == RF_ERR_PERMISSION) {
        cli_error(cli,
                  "you may not use machine \"%s\"; ask its owner to add you to `users` in its configuration",
                  cli->machine);
    } else {
        cli_error(cli, "node %s: %s", worst_node, rf_err_text(worst));
    }
    return cli_status_of(worst);
}

int client_lost(const cli_t *cli, const client_t *client, rf_err_t err)
{
    switch (err) {
    case RF_ERR_TIMEOUT:
        cli_error(cli, "node %s did not answer in time; is its host overloaded or rackfishd stopped?",
                  client->node);
        return CLI_TIMEOUT;
    case RF_ERR_CLOSED:
        return cli_error(cli, "node %s closed the connection: its rackfishd stopped or died", client->node);
    default:
        return cli_error(cli, "node %s: %s", client->node, rf_err_text(err));
    }
}

int client_refused(const cli_t *cli, const reply_t *reply)
{
    rf_err_t err = reply->err < RF_ERR_COUNT ? (rf_err_t)reply->err : RF_ERR_PROTOCOL;
    cli_error(cli, "%s", reply->message && reply->message[0] ? reply->message : rf_err_text(err));
    return cli_status_of(err);
}

int client_ask(const cli_t *cli, client_t *client, request_t *request, int timeout_ms, reply_t **out)
{
    uint64_t id = client_queue(client, request);
    if (!id) return cli_error(cli, "the request is larger than %u KiB", CLIENT_FRAME_MAX >> 10);
    uint64_t deadline = timeout_ms < 0 ? RF_NEVER : rf_clock_ns() + (uint64_t)timeout_ms * RF_NS_PER_MS;
    for (;;) {
        reply_t *reply = NULL;
        rf_err_t err = client_receive(client, deadline, &reply);
        if (err != RF_OK) return client_lost(cli, client, err);
        if (reply->id != id) { /* of an earlier request that nobody waits for any more */
            client_reply_free(reply);
            continue;
        }
        if (reply->err != RF_OK) {
            int status = client_refused(cli, reply);
            client_reply_free(reply);
            return status;
        }
        *out = reply;
        return CLI_OK;
    }
}
