#include "transport/doorbell.h"

#include "base/futex.h"
#include "base/memory.h"
#include "base/os.h"

#include <sys/mman.h>
#include <unistd.h>

static rf_err_t map_word(int fd, rf_doorbell_t *out)
{
    void *page = mmap(NULL, RF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) return RF_ERR_OS;
    *out = (rf_doorbell_t){.fd = fd, .word = page};
    return RF_OK;
}

rf_err_t rf_doorbell_create(rf_doorbell_t *out)
{
    int fd;
    rf_err_t err = rf_memory_create("rackfish-doorbell", RF_PAGE, &fd);
    if (err != RF_OK) return err;
    err = map_word(fd, out);
    if (err != RF_OK) close(fd);
    return err;
}

rf_err_t rf_doorbell_adopt(int fd, rf_doorbell_t *out)
{
    rf_err_t err = rf_memory_check(fd, RF_PAGE);
    return err == RF_OK ? map_word(fd, out) : err;
}

void rf_doorbell_destroy(rf_doorbell_t *doorbell)
{
    if (doorbell->word) munmap((void *)(uintptr_t)doorbell->word, RF_PAGE);
    if (doorbell->fd >= 0) close(doorbell->fd);
    *doorbell = (rf_doorbell_t){.fd = -1};
}

void rf_doorbell_ring(const rf_doorbell_t *doorbell)
{
    atomic_fetch_add_explicit(doorbell->word, 1, memory_order_release);
    rf_futex_wake_all(doorbell->word);
}

rf_err_t rf_doorbell_wait(const rf_doorbell_t *doorbell, uint32_t value, uint64_t deadline_ns)
{
    return rf_futex_wait(doorbell->word, value, deadline_ns);
}
