#include "node/peer_hello.h"

#include "node/evidence.h"

#include <stdio.h>
#include <string.h>

#define CONFIG_LINES (RF_NODES_MAX + 20)

/* "name=value" for everything that the digest covers and a person may want to compare. */
static unsigned config_lines(const rf_daemon_t *daemon, char lines[][320], char **pointers)
{
    const rf_config_t *c = daemon->config;
    unsigned n = 0;
    snprintf(lines[n++], 320, "machine=%s", c->machine);
    snprintf(lines[n++], 320, "encrypt=%s", c->encrypt ? "on" : "off");
    snprintf(lines[n++], 320, "allow_root=%s", c->allow_root ? "on" : "off");
    snprintf(lines[n++], 320, "emulated=%s", c->emulated ? "on" : "off");
    snprintf(lines[n++], 320, "heartbeat_ms=%u", c->heartbeat_ms);
    snprintf(lines[n++], 320, "host_deadline_ms=%u", c->host_deadline_ms);
    snprintf(lines[n++], 320, "election_ms=%u", c->election_ms);
    char voters[64] = "";
    for (unsigned i = 0, at = 0; i < c->n_voters && at < sizeof voters; i++)
        at += (unsigned)snprintf(voters + at, sizeof voters - at, "%s%u", i ? "," : ": ", c->voters[i]);
    snprintf(lines[n++], 320, "voters=%u%s", c->voters_max, voters);
    snprintf(lines[n++], 320, "one_sided=%s", c->one_sided ? "on" : "off");
    snprintf(lines[n++], 320, "plan=%s", c->plan);
    snprintf(lines[n++], 320, "weights=%u,%u,%u", c->weights[0], c->weights[1], c->weights[2]);
    snprintf(lines[n++], 320, c->lease_ms ? "leases=on, %u ms, drift %u %%" : "leases=off", c->lease_ms,
             c->lease_drift);
    snprintf(lines[n++], 320, "scheduler=%u", c->sched);
    snprintf(lines[n++], 320, "number of hosts=%u", c->n_nodes);
    for (unsigned i = 0; i < c->n_nodes; i++) {
        const rf_config_node_t *node = &c->nodes[i];
        char cores[16] = "all";
        if (node->cores_form != RF_CONFIG_CORES_ALL) snprintf(cores, sizeof cores, "%u", node->n_cores);
        snprintf(lines[n++], 320, "host %u=%s, address %s, port %u, %s cores, memory %llu%s", i, node->name,
                 node->address, node->port, cores, (unsigned long long)node->memory_bytes,
                 node->witness ? ", witness" : "");
    }
    for (unsigned i = 0; i < n; i++) pointers[i] = lines[i];
    return n;
}

void rf_peer_send_frame(rf_conn_t *conn, const Rackfish__Node__PeerFrame *frame)
{
    uint8_t *room = rf_conn_reserve(conn, rackfish__node__peer_frame__get_packed_size(frame));
    if (!room) return;
    rackfish__node__peer_frame__pack(frame, room);
    rf_conn_commit(conn);
}

void rf_peer_send_hello(rf_daemon_t *daemon, rf_conn_t *conn, bool control, const char *user,
                        bool privileged_user)
{
    static char lines[CONFIG_LINES][320];
    char *pointers[CONFIG_LINES], software[] = RF_SOFTWARE;
    Rackfish__Node__PeerHello hello;
    rackfish__node__peer_hello__init(&hello);
    hello.major = RF_PEER_MAJOR;
    hello.minor = RF_PEER_MINOR;
    hello.software = software;
    hello.machine = daemon->config->machine;
    hello.node = daemon->node;
    hello.node_name = daemon->config->nodes[daemon->node].name;
    hello.config_digest =
        (ProtobufCBinaryData){.data = daemon->config_digest, .len = sizeof daemon->config_digest};
    hello.n_config = config_lines(daemon, lines, pointers);
    hello.config = pointers;
    if (daemon->machine_known)
        hello.machine_id =
            (ProtobufCBinaryData){.data = daemon->machine.bytes, .len = sizeof daemon->machine.bytes};
    hello.formed = daemon->phase == RF_PHASE_READY || daemon->adopted;
    hello.forms = daemon->options.form && !daemon->adopted;
    hello.instance = (ProtobufCBinaryData){.data = daemon->instance, .len = sizeof daemon->instance};
    hello.n_cores = daemon->places[daemon->node].n_cores;
    hello.purpose = control ? RACKFISH__NODE__PEER_PURPOSE__CONTROL : RACKFISH__NODE__PEER_PURPOSE__STANDING;
    rf_where_t where;
    rf_evidence_where(daemon, &where);
    hello.boot = where.boot;
    hello.host = where.host;
    hello.place = where.place;
    if (control) {
        hello.user = (char *)(uintptr_t)user;
        hello.privileged_user = privileged_user;
    }
    Rackfish__Node__PeerFrame frame;
    rackfish__node__peer_frame__init(&frame);
    frame.kind_case = RACKFISH__NODE__PEER_FRAME__KIND_HELLO;
    frame.hello = &hello;
    rf_peer_send_frame(conn, &frame);
}

void rf_peer_send_refusal(rf_conn_t *conn, rf_err_t err, const char *why)
{
    Rackfish__Node__PeerRefused refused;
    rackfish__node__peer_refused__init(&refused);
    refused.err = err;
    refused.message = (char *)(uintptr_t)why;
    Rackfish__Node__PeerFrame frame;
    rackfish__node__peer_frame__init(&frame);
    frame.kind_case = RACKFISH__NODE__PEER_FRAME__KIND_REFUSED;
    frame.refused = &refused;
    rf_peer_send_frame(conn, &frame);
}

/* Names the first setting that is not the same on both sides. */
static void name_difference(const rf_daemon_t *daemon, const Rackfish__Node__PeerHello *hello, char *out,
                            size_t max)
{
    static char lines[CONFIG_LINES][320];
    char *own[CONFIG_LINES];
    unsigned n = config_lines(daemon, lines, own);
    for (unsigned i = 0; i < n && i < hello->n_config; i++) {
        if (strcmp(own[i], hello->config[i]) != 0) {
            snprintf(out, max, "%.120s here, %.120s there", own[i], hello->config[i]);
            return;
        }
    }
    snprintf(out, max, "transports, or CPUs of a host");
}

rf_err_t rf_peer_judge(rf_daemon_t *daemon, const Rackfish__Node__PeerHello *hello, rf_node_t expected,
                       char *why, size_t why_max)
{
    const rf_config_t *config = daemon->config;
    if (hello->major != RF_PEER_MAJOR) {
        snprintf(why, why_max,
                 "version %u of the node protocol (%.40s) and version %d (" RF_SOFTWARE
                 ") do not fit together; install the same release on all hosts",
                 hello->major, hello->software, RF_PEER_MAJOR);
        return RF_ERR_VERSION;
    }
    if (hello->config_digest.len != sizeof daemon->config_digest ||
        memcmp(hello->config_digest.data, daemon->config_digest, sizeof daemon->config_digest) != 0) {
        char difference[256];
        name_difference(daemon, hello, difference, sizeof difference);
        snprintf(why, why_max, "the configurations of %.63s and %.63s differ: %s; copy one file to all hosts",
                 config->nodes[daemon->node].name, hello->node_name, difference);
        return RF_ERR_CONFIG;
    }
    if (hello->node >= config->n_nodes || strcmp(config->nodes[hello->node].name, hello->node_name) != 0) {
        snprintf(why, why_max, "%.63s is not host %u of the configuration", hello->node_name, hello->node);
        return RF_ERR_CONFIG;
    }
    if (hello->node == daemon->node || (expected != RF_NODE_NONE && hello->node != expected)) {
        snprintf(why, why_max,
                 "two hosts say that they are %.63s, or its address leads to the wrong host; check --node "
                 "and 'address:'",
                 hello->node_name);
        return RF_ERR_EXISTS;
    }
    if (hello->n_cores == 0 || hello->n_cores > RF_CORES_PER_NODE_MAX) {
        snprintf(why, why_max, "%.63s says that it has %u cores", hello->node_name, hello->n_cores);
        return RF_ERR_PROTOCOL;
    }
    const rf_place_t *place = &daemon->places[hello->node];
    if (place->n_cores != 0 && place->n_cores != hello->n_cores) {
        snprintf(why, why_max,
                 "%.63s has %u cores now and had %u when the machine was formed; 'rackfish down' and 'up' "
                 "form it anew",
                 hello->node_name, hello->n_cores, place->n_cores);
        return RF_ERR_CONFIG;
    }
    if ((hello->machine_id.len != 0 && hello->machine_id.len != sizeof daemon->machine.bytes) ||
        hello->instance.len != sizeof daemon->instance) {
        snprintf(why, why_max, "its machine id has %zu bytes, and its instance %zu", hello->machine_id.len,
                 hello->instance.len);
        return RF_ERR_PROTOCOL;
    }
    if (hello->machine_id.len != 0 && daemon->machine_known &&
        memcmp(hello->machine_id.data, daemon->machine.bytes, sizeof daemon->machine.bytes) != 0) {
        snprintf(why, why_max,
                 "%.63s belongs to another machine named %.63s, formed at another time; 'rackfish down' on "
                 "the one that is "
                 "not wanted",
                 hello->node_name, config->machine);
        return RF_ERR_AUTH;
    }
    return RF_OK;
}
