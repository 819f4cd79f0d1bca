/*
 * The first bytes of a connection, from a peer that need not hold the key. The first byte of the input chooses whom they
 * meet: a plain listener (as they are, or over a right hello), one that asks for TLS, or a dialer that waits for its answer.
 */
#include "tcp_fuzz.h"

static const uint8_t key[32] = "thirty-two bytes nobody may know";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void to_listener(fuzz_end_t *end, const uint8_t *bytes, size_t size)
{
    int fd = fuzz_connect(end);
    fuzz_say(fd, bytes, size);
    fuzz_turn(end);
    close(fd);
    fuzz_turn(end);
    fuzz_end_link(end);
}

static void over_a_hello(fuzz_end_t *end, const uint8_t *bytes, size_t size)
{
    tcp_hello_t hello = fuzz_hello(TCP_HELLO_NEW);
    if (size > 1 && bytes[0] < sizeof hello) {
        size_t n = size - 1 < sizeof hello - bytes[0] ? size - 1 : sizeof hello - bytes[0];
        memcpy((uint8_t *)&hello + bytes[0], bytes + 1, n);
    }
    to_listener(end, (const uint8_t *)&hello, sizeof hello);
}

static void to_dialer(fuzz_end_t *end, bool encrypted, const uint8_t *bytes, size_t size)
{
    static int listener = -1;
    static struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t length = sizeof address;
    if (listener < 0) {
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (listener < 0 || bind(listener, (struct sockaddr *)&address, length) < 0 ||
            listen(listener, 8) < 0 || getsockname(listener, (struct sockaddr *)&address, &length) < 0)
            abort();
    }
    char text[RF_ADDRESS_MAX];
    tcp_address_print((const struct sockaddr_storage *)&address, text, sizeof text);
    rf_link_params_t params = {
        .address = text, .socket = -1, .key = encrypted ? key : NULL, .key_size = sizeof key};
    if (rf_transport_tcp.connect(end->endpoint, &params, &end->link) != RF_OK) abort();
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) abort();
    struct linger reset = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    fuzz_turn(end);
    fuzz_say(fd, bytes, size);
    fuzz_turn(end);
    close(fd);
    fuzz_end_link(end);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static fuzz_end_t plain, secret, dialer;
    if (!plain.endpoint) {
        fuzz_open(&plain, "127.0.0.1:0", NULL);
        fuzz_open(&secret, "127.0.0.1:0", key);
        fuzz_open(&dialer, NULL, NULL);
    }
    if (size == 0) return 0;
    switch (data[0] % 5) {
    case 0:
        to_listener(&plain, data + 1, size - 1);
        break;
    case 1:
        over_a_hello(&plain, data + 1, size - 1);
        break;
    case 2:
        to_listener(&secret, data + 1, size - 1);
        break;
    case 3:
        to_dialer(&dialer, false, data + 1, size - 1);
        break;
    default:
        to_dialer(&dialer, true, data + 1, size - 1);
        break;
    }
    return 0;
}
