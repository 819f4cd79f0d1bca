/*
 * Side-socket messages from anywhere: the first byte chooses whether the link is up before; then messages, each a
 * byte of length (times two), a byte whose low bits are the number of descriptors and whose next bit mends the head,
 * and the message.
 */
#include "shm_hostile.h"

#include "base/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool quiet;
    if (!quiet) {
        rf_log_init("fuzz", RF_LOG_ERROR);
        quiet = true;
    }
    hostile_t h;
    if (size == 0) return 0;
    if (!hostile_open(&h)) abort();
    if (data[0] & 1) hostile_greet(&h);
    int fds[4] = {h.head_fd, h.ring_fd, h.head_fd, h.ring_fd};
    for (size_t at = 1; at + 2 < size && h.ends == 0;) {
        size_t length = (size_t)data[at] * 2, n_fds = data[at + 1] & 3;
        bool mend = data[at + 1] & 4;
        at += 2;
        if (length > size - at) length = size - at;
        shm_side_t message;
        if (length > sizeof message) length = sizeof message;
        memset(&message, 0, sizeof message);
        memcpy(&message, data + at, length);
        at += length;
        if (mend) {
            message.magic = SHM_SIDE_MAGIC;
            message.type = (uint16_t)(message.type % (SHM_SIDE_BELL + 2));
            message.reserved = 0;
            static const size_t sizes[] = {0,
                                           SHM_SIDE_SIZE(hello),
                                           SHM_SIDE_HEAD,
                                           SHM_SIDE_SIZE(reject),
                                           SHM_SIDE_SIZE(grow),
                                           SHM_SIDE_SIZE(region),
                                           SHM_SIDE_SIZE(region),
                                           SHM_SIDE_SIZE(fds),
                                           SHM_SIDE_HEAD,
                                           20};
            length = sizes[message.type];
        }
        hostile_say(&h, &message, length, fds, (unsigned)n_fds);
        rf_slot_t slots[4];
        rf_transport_shm.poll(h.link, slots, 4);
    }
    hostile_close(&h);
    return 0;
}
