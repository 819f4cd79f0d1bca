#include "path_fixture.h"

#include "conformance.h"

#include <stdio.h>
#include <string.h>

#define WORDS 9

/* How long from now, in ms; "never". */
static const char *due(uint64_t at_ns, char text[32])
{
    if (at_ns == RF_NEVER) return "never";
    int64_t left_ns = (int64_t)(at_ns - rf_clock_ns());
    snprintf(text, 32, "in %lld ms", (long long)(left_ns / (int64_t)RF_NS_PER_MS));
    return text;
}

static void lane_explain(const path_lane_t *lane)
{
    static const char *const stages[] = {"none", "making", "offered", "joining", "answered", "hello", "up"};
    char offer[32], overdue[32];
    fprintf(stderr, "      lane %u: %s%s%s%s, generation %u, offer %s, overdue %s, %u times so far\n",
            lane->number, lane->stage < sizeof stages / sizeof *stages ? stages[lane->stage] : "?",
            lane->failed ? ", failed" : "", lane->wanted ? ", wanted" : "",
            lane->lost_due ? ", LOST is due" : "", lane->generation, due(lane->offer_ns, offer),
            due(lane->overdue_ns, overdue), lane->overdue);
}

void path_explain(rf_link_t *link_head)
{
    const path_link_t *link = path_link_of(link_head);
    const path_endpoint_t *ep = path_endpoint_of(link);
    char dead[32], timer[32];
    fprintf(stderr,
            "    %s, control link %s, given up %s, its endpoint's timer %s%s%s%s\n"
            "    out: %llu taken, %llu posted, %llu acknowledged, acknowledgement asked for at %llu, words "
            "due %#x%s; in: "
            "%llu accepted, %llu polled\n",
            link->dialer ? "dialer" : "listener", link->control ? "there" : "gone", due(link->dead_ns, dead),
            due(ep->timer_ns, timer), link->end_pending ? ", its end is due" : "",
            link->attention ? ", is to be settled" : "", link->wrong ? ", heard nonsense" : "",
            (unsigned long long)link->slots_head, (unsigned long long)link->posted,
            (unsigned long long)link->acked, (unsigned long long)link->ack_asked_at, link->say,
            link->say_ack ? " and an acknowledgement" : "", (unsigned long long)link->accepted,
            (unsigned long long)link->delivered);
    for (unsigned i = 0; i < PATH_LANES; i++) lane_explain(&link->lanes[i]);
    const path_bulk_t *bulk = link->bulk;
    if (!bulk) return;
    fprintf(stderr,
            "    bulk: %llu writes taken, %llu posted, %llu done, %llu told, %llu of the peer's placed; %llu "
            "reads taken, "
            "%llu done\n",
            (unsigned long long)bulk->head, (unsigned long long)bulk->posted, (unsigned long long)bulk->done,
            (unsigned long long)bulk->acked, (unsigned long long)bulk->placed,
            (unsigned long long)bulk->read_head, (unsigned long long)bulk->read_done);
}

static bool hostile_word(path_link_t *link, unsigned way)
{
    path_lane_t *lane = &link->lanes[PATH_LANE_SLOTS];
    const uint32_t g = lane->generation;
    const path_word_t bad[WORDS] = {
        {.flags = 1u << 30, .generation = g},
        {.flags = PATH_WORD_HELLO, .generation = g},
        {.generation = g + 1},
        {.generation = g, .delivered = 1000000},
        {.generation = g, .delivered = UINT64_MAX},
        {.generation = g, .placed = 1},
        {.generation = g, .reserved = {0, 0, 1}},
        {.flags = PATH_WORD_CLOSE, .generation = g, .count = link->slots_head + 1},
        {.flags = PATH_WORD_WANT_ACK, .generation = g, .count = UINT64_MAX},
    };
    return path_medium_of(link)->say(lane, &bad[way]);
}

bool path_hostile(path_link_t *link, unsigned way)
{
    if (way < WORDS) return hostile_word(link, way);
    uint8_t bytes[PATH_INFO_MAX];
    path_lost_t lost = {.lane = 9};
    memset(bytes, 0xa5, sizeof bytes);
    switch (way - WORDS) {
    case 0:
        return path_control_say(link, PATH_CONTROL_OFFER, bytes, path_medium_of(link)->info_size);
    case 1:
        return path_control_say(link, PATH_CONTROL_OFFER, bytes, 7);
    case 2:
        return path_control_say(link, PATH_CONTROL_ANSWER, bytes, path_medium_of(link)->info_size);
    case 3:
        return path_control_say(link, PATH_CONTROL_LOST, &lost, sizeof lost);
    case 4:
        return path_control_say(link, PATH_CONTROL_CLOSED, NULL, 0);
    case 5:
        return path_control_say(link, 99, bytes, 64);
    default:
        return false;
    }
}
