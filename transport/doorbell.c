#include "transport/doorbell.h"

#include "base/futex.h"
#include "base/memory.h"
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

static rf_err_t map_word(int fd, rf_doorbell_t *out)
{
    void *page = mmap(NULL, RF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) return RF_ERR_OS;
    *out = (rf_doorbell_t){.kind = RF_DOORBELL_FUTEX, .fd = fd, .word = page};
    return RF_OK;
}

rf_err_t rf_doorbell_create(rf_doorbell_kind_t kind, rf_doorbell_t *out)
{
    int fd;
    if (kind == RF_DOORBELL_EVENTFD) {
        fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (fd < 0) return RF_ERR_OS;
        *out = (rf_doorbell_t){.kind = kind, .fd = fd};
        return RF_OK;
    }
    rf_err_t err = rf_memory_create("rackfish-doorbell", RF_PAGE, &fd);
    if (err != RF_OK) return err;
    err = map_word(fd, out);
    if (err != RF_OK) close(fd);
    return err;
}

static bool is_eventfd(int fd)
{
    char path[32], target[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(path, target, sizeof target - 1);
    if (n < 0) return false;
    target[n] = 0;
    return strcmp(target, "anon_inode:[eventfd]") == 0;
}

rf_err_t rf_doorbell_adopt(rf_doorbell_kind_t kind, int fd, rf_doorbell_t *out)
{
    if (kind == RF_DOORBELL_FUTEX) {
        rf_err_t err = rf_memory_check(fd, RF_PAGE);
        return err == RF_OK ? map_word(fd, out) : err;
    }
    if (kind != RF_DOORBELL_EVENTFD) return RF_ERR_PROTOCOL;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || !(flags & O_NONBLOCK) || !is_eventfd(fd)) return RF_ERR_PROTOCOL;
    *out = (rf_doorbell_t){.kind = kind, .fd = fd};
    return RF_OK;
}

void rf_doorbell_destroy(rf_doorbell_t *doorbell)
{
    if (doorbell->word) munmap((void *)(uintptr_t)doorbell->word, RF_PAGE);
    if (doorbell->fd >= 0) close(doorbell->fd);
    *doorbell = (rf_doorbell_t){.fd = -1};
}

void rf_doorbell_ring(const rf_doorbell_t *doorbell)
{
    if (doorbell->kind == RF_DOORBELL_FUTEX) {
        atomic_fetch_add_explicit(doorbell->word, 1, memory_order_release);
        rf_futex_wake_all(doorbell->word);
        return;
    }
    uint64_t one = 1;
    ssize_t n;
    do {
        n = write(doorbell->fd, &one, sizeof one);
    } while (n < 0 && errno == EINTR); /* EAGAIN: it is as full as can be, hence readable */
}

rf_err_t rf_doorbell_wait(const rf_doorbell_t *doorbell, uint32_t value, uint64_t deadline_ns)
{
    return rf_futex_wait(doorbell->word, value, deadline_ns);
}

void rf_doorbell_drain(const rf_doorbell_t *doorbell)
{
    uint64_t count;
    ssize_t n;
    do {
        n = read(doorbell->fd, &count, sizeof count);
    } while (n < 0 && errno == EINTR);
}
