/*
 * Any bytes as an invocation, from a dispatcher and from the monitor, with and without descriptors: answered or refused,
 * never a crash, and never a descriptor lost. First byte: who asks, and what comes along.
 */
#include "fake_driver.h"

#include "cpudriver/invocation.h"
#include "cpudriver/objects.h"

#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static unsigned open_descriptors(void)
{
    unsigned n = 0;
    for (int fd = 0; fd < 256; fd++) n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    rf_wire_header_t header;
    fake_reset();
    const unsigned before = open_descriptors();
    if (size < 1 || size > RF_MESSAGE_MAX) return 0;
    rf_dispatcher_t *caller = bytes[0] & 1 ? &fake_driver.monitor : &fake_driver.dispatchers[0];
    fake_room = bytes[0] & 2 ? 0 : 1024;
    if ((bytes[0] & 4) && size >= 1 + sizeof header) {
        int fds[2] = {eventfd(1, EFD_CLOEXEC), open("/dev/null", O_RDONLY | O_CLOEXEC)};
        memcpy(&header, bytes + 1, sizeof header);
        fake_park(caller, header.tag, header.op, fds, 2);
        if (bytes[0] & 8) {
            close(fds[1]);
            caller->parked[0].n = 1;
        }
    }
    rf_invocation_handle(&fake_driver, caller, bytes + 1, size - 1);
    rf_timers_run(&fake_driver);
    rf_objects_tell(&fake_driver, caller);
    fake_reset(); /* drops what is parked, watched and waiting */
    if (open_descriptors() != before) __builtin_trap();
    return 0;
}
