/*
 * Frames and bulk chunks of a hostile peer, on a link that is up. The first byte of the input says where the others
 * go: to the main connection, to the bulk connection, or to both in turns; the second how they are cut into pieces.
 */
#include "tcp_fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

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
    if (data[0] % 3 != 0) {
        fds[1] = fuzz_connect(&end);
        hello.what = TCP_HELLO_BULK;
        fuzz_say(fds[1], &hello, sizeof hello);
        fuzz_turn(&end);
    }

    size_t piece = 1 + data[1], turn = data[0] % 3 == 1;
    for (size_t at = 2; at < size && end.link->state != RF_LINK_STATE_DEAD; at += piece) {
        fuzz_say(fds[turn], data + at, size - at < piece ? size - at : piece);
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
