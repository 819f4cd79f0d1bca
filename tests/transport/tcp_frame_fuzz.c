/*
 * Frames and bulk chunks of a hostile peer, on a link that is up. The first byte of the input says where the others
 * go: to the main connection, to the bulk connection, or to both in turns; and whether they are sent as they are, cut
 * into pieces as the second byte says, or laid over frames and chunks that would be right.
 */
#include "tcp_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define OVERLAY     0x80u
#define OVERLAY_MAX 8 /* bytes laid over each */

/* Says one frame (main) or chunk (bulk) that would be right, but for some bytes of the input; returns what it used. */
static size_t say_nearly_right(fuzz_end_t *end, int fd, bool bulk, const uint8_t *data, size_t size)
{
    tcp_link_t *link = tcp_link_of(end->link);
    uint8_t say[sizeof(tcp_bulk_t) + 4 * sizeof(rf_slot_t)] = {0};
    size_t n = data[0] % 4, length;
    if (bulk) {
        tcp_bulk_t chunk = {.size = (uint32_t)(n * 16),
                            .flags = TCP_BULK_LAST,
                            .total = n * 16,
                            .write = link->bulk->placed,
                            .done = link->bulk->partial};
        memcpy(say, &chunk, sizeof chunk);
        length = sizeof chunk + n * 16;
    } else {
        tcp_frame_t frame = {.slots = (uint16_t)n, .sequence = link->delivered, .delivered = link->acked};
        memcpy(say, &frame, sizeof frame);
        uint64_t control = rf_control_make(1, 8, false, 0);
        for (size_t i = 0; i < n; i++)
            memcpy(say + sizeof frame + i * sizeof(rf_slot_t) + offsetof(rf_slot_t, control), &control,
                   sizeof control);
        length = sizeof frame + n * sizeof(rf_slot_t);
    }
    size_t used = 3;
    for (unsigned i = 0; i < data[2] % OVERLAY_MAX && used < size; i++)
        say[(data[1] + i) % length] ^= data[used++];
    fuzz_say(fd, say, length);
    return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static fuzz_end_t end;
    if (!end.endpoint) fuzz_open(&end, "127.0.0.1:0", NULL);
    if (size < 2) return 0;
    int fds[2] = {fuzz_connect(&end), -1};
    tcp_hello_t hello = fuzz_hello(TCP_HELLO_NEW);
    fuzz_say(fds[0], &hello, sizeof hello);
    fuzz_turn(&end);
    if (!end.link || end.link->state != RF_LINK_STATE_UP) abort();

    /* Something of each kind is outstanding, so that the peer has counts to lie about. */
    rf_slot_t slot = {.control = rf_control_make(1, 8, false, 0)};
    static const uint8_t source[64];
    rf_region_key_t key;
    tcp_region_key_t to = {.region = 0, .size = sizeof source};
    memcpy(&key, &to, sizeof key);
    rf_transport_tcp.send(end.link, &slot, 1);
    rf_transport_tcp.flush(end.link);
    rf_transport_tcp.region_create(end.link, FUZZ_REGION, &end.region);
    rf_transport_tcp.remote_write(end.link, &key, 0, source, sizeof source, NULL, 1);
    bool overlay = data[0] & OVERLAY;
    if (data[0] % 3 != 0) {
        fds[1] = fuzz_connect(&end);
        hello.what = TCP_HELLO_BULK;
        fuzz_say(fds[1], &hello, sizeof hello);
        fuzz_turn(&end);
    }

    size_t piece = 1 + data[1], turn = data[0] % 3 == 1;
    for (size_t at = 2; at < size && end.link->state != RF_LINK_STATE_DEAD;) {
        if (overlay && at + 3 <= size) {
            at += say_nearly_right(&end, fds[turn], turn, data + at, size - at);
        } else {
            fuzz_say(fds[turn], data + at, size - at < piece ? size - at : piece);
            at += piece;
        }
        if (data[0] % 3 == 2) turn = !turn;
        fuzz_turn(&end);
    }
    for (unsigned i = 0; i < 2; i++)
        if (fds[i] >= 0) close(fds[i]);
    fuzz_turn(&end);
    fuzz_end_link(&end);
    fuzz_turn(&end);
    return 0;
}
