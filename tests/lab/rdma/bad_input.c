/*
 * One end of a link that may have been told something wrong, or may be stopped in its tracks: bad_input_test.sh and late_test.sh run
 * it in guests.
 *
 *   bad_input serve rdma|tcp ADDRESS [NAME=VALUE...]     until it is killed: accepts, and gives each peer a region to write
 *   bad_input dial rdma|tcp ADDRESS [NAME=VALUE...]      what came of it on stdout, one word a line; 0: all went well
 *
 *   key=TEXT            the machine's key; none: not encrypted
 *   major=N             the version that it claims to speak
 *   options=TEXT        the medium's (transport/rdma/rdma.h)
 *   deadline_ms=N       of links
 *   write=WHICH         right: a remote write; key: with a wrong key; beyond: behind the region's end; read: a remote read with a
 *                       wrong key; endless: one after the other, each of other bytes, until the link ends
 *
 * What serves says upon SIGUSR2 whether the regions have changed since it last looked, and upon SIGUSR1 fences their links first.
 */
#include "base/clock.h"
#include "base/log.h"
#include "transport/rdma/format.h"
#include "transport/rdma/rdma.h"
#include "transport/tcp/tcp.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REGION         65536
#define LINKS_MAX      16
#define TYPE_KEY       2
#define SLOTS          64
#define DEADLINE_MS    3000
#define WAIT_DEADLINES 4 /* a dialer that nothing came to by then hangs */

typedef enum write_which {
    WRITE_NONE,
    WRITE_RIGHT,
    WRITE_KEY,
    WRITE_BEYOND,
    WRITE_READ,
    WRITE_ENDLESS
} write_which_t;

typedef struct side {
    const rf_transport_t *transport;
    rf_endpoint_params_t params;
    rf_endpoint_t *endpoint;
    write_which_t which;
    rf_link_t *links[LINKS_MAX];
    bool serves, up, written, over;
    rf_err_t err;
    rf_region_t *regions[LINKS_MAX]; /* of the links */
    uint8_t *seen[LINKS_MAX];        /* what was in them */
    rf_region_key_t key;             /* endless */
    uint64_t n_written;
    uint8_t source[REGION];
} side_t;

static volatile sig_atomic_t asked_to_look, asked_to_fence;

static void on_signal(int number)
{
    asked_to_look = 1;
    if (number == SIGUSR1) asked_to_fence = 1;
}

static const char *const which_names[] = {"none", "right", "key", "beyond", "read", "endless"};

static void say(const char *what, rf_err_t err)
{
    printf("%s %s\n", what, rf_err_name(err));
}

/* Not from a callback. */
static void give_region(side_t *side, unsigned i)
{
    rf_link_t *link = side->links[i];
    rf_region_t *region;
    rf_slot_t slot = {.control = rf_control_make(TYPE_KEY, sizeof region->key, false, 0)};
    if (side->transport->region_create(link, REGION, &region) != RF_OK) return;
    side->regions[i] = region;
    memcpy(slot.payload, &region->key, sizeof region->key);
    side->transport->send(link, &slot, 1);
    side->transport->flush(link);
}

static void forget(side_t *side, const rf_link_t *link)
{
    for (unsigned i = 0; i < LINKS_MAX; i++) {
        if (side->links[i] != link) continue;
        side->links[i] = NULL;
        side->regions[i] = NULL;
    }
}

static void take_in(side_t *side, rf_link_t *link)
{
    rf_link_params_t params = {.socket = -1, .slots = SLOTS, .slots_max = SLOTS};
    for (unsigned i = 0; i < LINKS_MAX; i++) {
        if (side->links[i]) continue;
        side->links[i] = link;
        if (side->transport->accept(link, &params) == RF_OK) return;
        side->links[i] = NULL;
    }
    side->transport->reject(link, RF_ERR_LIMIT);
}

static void on_event(void *context, rf_link_t *link, rf_link_event_t event, const rf_link_event_info_t *info)
{
    side_t *side = context;
    switch (event) {
    case RF_LINK_INCOMING:
        take_in(side, link);
        break;
    case RF_LINK_UP:
        if (!side->up) say("up", RF_OK);
        side->up = true;
        break;
    case RF_LINK_WRITTEN:
    case RF_LINK_READ:
        side->n_written++;
        if (side->which == WRITE_ENDLESS && info->err == RF_OK) break;
        say(event == RF_LINK_READ ? "read" : "written", info->err);
        side->written = true;
        break;
    case RF_LINK_CLOSED:
    case RF_LINK_DEAD:
        side->err = event == RF_LINK_DEAD ? info->err : RF_ERR_CLOSED;
        say("ended", side->err);
        side->over = true;
        side->up = false;
        if (!side->serves) break;
        forget(side, link);
        side->transport->close(link);
        break;
    default:
        break;
    }
}

static void write_into(side_t *side, rf_link_t *link, rf_region_key_t key)
{
    rdma_region_key_t wrong;
    uint64_t offset = 0;
    memcpy(&wrong, &key, sizeof wrong);
    if (side->which == WRITE_KEY || side->which == WRITE_READ) wrong.rkey ^= 0x00ffff00u;
    if (side->which == WRITE_BEYOND) {
        wrong.size *= 2;
        offset = REGION;
    }
    memcpy(&key, &wrong, sizeof key);
    side->key = key;
    rf_err_t err = side->which == WRITE_READ
                       ? side->transport->remote_read(link, &key, offset, side->source, REGION, 1)
                       : side->transport->remote_write(link, &key, offset, side->source, REGION, NULL, 1);
    if (err != RF_OK) say("written", err);
    side->written |= err != RF_OK;
}

/* The next, when the one before is placed: so the source is this end's again. */
static void write_again(side_t *side)
{
    static uint64_t begun = 1;
    if (side->over || side->n_written < begun) return;
    memset(side->source, (int)(begun % 255 + 1), REGION);
    if (side->transport->remote_write(side->links[0], &side->key, 0, side->source, REGION, NULL, 1) == RF_OK)
        begun++;
}

/* Whether anything was written since the last look. */
static void look(side_t *side)
{
    bool changed = false, fences = asked_to_fence;
    asked_to_look = asked_to_fence = 0;
    for (unsigned i = 0; i < LINKS_MAX; i++) {
        if (!side->regions[i]) continue;
        if (fences) side->transport->fence(side->links[i]);
        if (!side->seen[i]) side->seen[i] = calloc(1, REGION);
        if (!side->seen[i]) abort();
        changed |= memcmp(side->seen[i], side->regions[i]->base, REGION) != 0;
        memcpy(side->seen[i], side->regions[i]->base, REGION);
    }
    if (fences) say("fenced", RF_OK);
    say(changed ? "changed" : "unchanged", RF_OK);
}

static void turn(side_t *side)
{
    uint64_t next_ns;
    struct pollfd ready = {.fd = side->transport->endpoint_fd(side->endpoint), .events = POLLIN};
    poll(&ready, 1, 1);
    side->transport->endpoint_progress(side->endpoint, rf_clock_ns(), &next_ns);
    if (asked_to_look) look(side);
    if (side->which == WRITE_ENDLESS && side->n_written > 0) write_again(side);
    for (unsigned i = 0; i < LINKS_MAX; i++) {
        rf_link_t *link = side->links[i];
        rf_slot_t slot;
        if (!link || side->transport->poll(link, &slot, 1) == 0) continue;
        rf_region_key_t key;
        memcpy(&key, slot.payload, sizeof key);
        if (side->serves)
            give_region(side, i);
        else
            write_into(side, link, key);
    }
}

static rf_err_t dial(side_t *side, const char *address)
{
    rf_link_params_t params = {.address = address, .socket = -1, .slots = SLOTS, .slots_max = SLOTS};
    rf_err_t err = side->transport->connect(side->endpoint, &params, &side->links[0]);
    if (err != RF_OK) return err;
    uint64_t until_ns = rf_clock_ns() + WAIT_DEADLINES * side->params.deadline_ns;
    bool asked = false;
    while (!side->over && (side->which == WRITE_ENDLESS || rf_clock_ns() < until_ns)) {
        turn(side);
        if (side->up && side->which == WRITE_NONE) return RF_OK;
        if (side->written && side->which == WRITE_RIGHT) return RF_OK;
        rf_slot_t want = {.control = rf_control_make(TYPE_KEY, 0, false, 0)};
        if (!side->up || asked) continue;
        asked = true;
        side->transport->send(side->links[0], &want, 1);
        side->transport->flush(side->links[0]);
    }
    if (!side->over) say("hangs", RF_ERR_TIMEOUT);
    return side->over ? side->err : RF_ERR_TIMEOUT;
}

static bool told(side_t *side, char *word)
{
    char *value = strchr(word, '=');
    if (!value) return false;
    *value++ = '\0';
    if (strcmp(word, "key") == 0) {
        side->params.key = (const uint8_t *)value;
        side->params.key_size = strlen(value);
    } else if (strcmp(word, "major") == 0) {
        side->params.self.version_major = (uint16_t)strtoul(value, NULL, 10);
    } else if (strcmp(word, "options") == 0) {
        side->params.medium = value;
    } else if (strcmp(word, "deadline_ms") == 0) {
        side->params.deadline_ns = strtoull(value, NULL, 10) * RF_NS_PER_MS;
    } else if (strcmp(word, "write") == 0) {
        for (unsigned i = 0; i < sizeof which_names / sizeof *which_names; i++) {
            if (strcmp(value, which_names[i]) == 0) side->which = (write_which_t)i;
        }
    } else {
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    static side_t side;
    setvbuf(stdout, NULL, _IOLBF, 0);
    rf_log_init("bad_input", RF_LOG_INFO);
    signal(SIGUSR1, on_signal);
    signal(SIGUSR2, on_signal);
    if (argc < 4) return 2;
    side.serves = strcmp(argv[1], "serve") == 0;
    side.transport = strcmp(argv[2], "tcp") == 0 ? &rf_transport_tcp : &rf_transport_rdma;
    side.params = (rf_endpoint_params_t){.on_event = on_event,
                                         .context = &side,
                                         .address = side.serves ? argv[3] : NULL,
                                         .deadline_ns = DEADLINE_MS * RF_NS_PER_MS};
    side.params.self.version_major = RF_VERSION_MAJOR;
    for (int i = 4; i < argc; i++) {
        if (!told(&side, argv[i])) return 2;
    }
    rf_err_t err = side.transport->endpoint_open(&side.params, &side.endpoint);
    if (err != RF_OK) {
        say("open", err);
        return 1;
    }
    if (side.serves) {
        say("serves", RF_OK);
        for (;;) turn(&side);
    }
    err = dial(&side, argv[3]);
    side.transport->endpoint_close(side.endpoint);
    return err == RF_OK ? 0 : 1;
}
