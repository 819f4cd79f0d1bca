/*
 * Words scribbled into ring and head while the victim polls, sends, waits and writes remotely: three bytes choose
 * the place and what the victim does, eight are the word.
 */
#include "shm_hostile.h"

#include "base/log.h"
#include "transport/message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum { STEP = 11 };
    static rf_assembler_t assembler;
    static bool quiet;
    if (!quiet) {
        rf_log_init("fuzz", RF_LOG_ERROR);
        quiet = true;
    }
    hostile_t h;
    if (!hostile_open(&h)) abort();
    hostile_greet(&h);
    const rf_transport_t *shm = &rf_transport_shm;
    memset(&assembler, 0, sizeof assembler);
    for (; size >= STEP && h.ends == 0; data += STEP, size -= STEP) {
        unsigned place = (unsigned)data[0] | (unsigned)data[1] << 8, act = data[2];
        uint64_t word;
        memcpy(&word, data + 3, sizeof word);
        if (act & 0x80)
            atomic_store((_Atomic(uint64_t) *)h.head + place % (sizeof(shm_head_t) / 8), word);
        else
            atomic_store((_Atomic(uint64_t) *)h.ring + place % (HOSTILE_SLOTS * 8), word);
        rf_slot_t slots[8];
        unsigned n = act & 1 ? shm->poll(h.link, slots, 1 + act / 2 % 8) : 0;
        for (unsigned i = 0; i < n; i++) {
            if (!rf_control_valid(slots[i].control)) abort();
            if (rf_assembler_feed(&assembler, &slots[i]) == RF_ERR_PROTOCOL)
                memset(&assembler, 0, sizeof assembler);
            if (assembler.size > RF_MESSAGE_MAX) abort();
        }
        memset(slots, 0, sizeof slots);
        for (unsigned i = 0; i < 8; i++) slots[i].control = rf_control_make(1, 8, false, 0);
        if (act & 0x10) shm->send(h.link, slots, 8);
        if (act & 0x20) shm->flush(h.link);
        if (act & 0x40) {
            shm->arm(h.link);
            shm->ready(h.link);
            shm->disarm(h.link);
            hostile_progress(&h);
        }
    }
    hostile_close(&h);
    return 0;
}
