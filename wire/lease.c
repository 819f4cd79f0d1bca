#include "wire/lease.h"

#include "base/clock.h"
#include "base/os.h"

#include <sys/mman.h>
#include <unistd.h>

rf_err_t rf_lease_map(int fd, rf_lease_t **out)
{
    rf_err_t err = rf_memory_check(fd, sizeof(rf_lease_t));
    if (err != RF_OK) return err;
    void *at = mmap(NULL, sizeof(rf_lease_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return RF_ERR_OS;
    *out = at;
    return RF_OK;
}

rf_err_t rf_lease_create(int *fd, rf_lease_t **out)
{
    rf_err_t err = rf_memory_create("rackfish-lease", sizeof(rf_lease_t), fd);
    if (err != RF_OK) return err;
    err = rf_lease_map(*fd, out);
    if (err == RF_OK)
        atomic_init(&(*out)->until_ns, RF_NEVER);
    else
        close(*fd);
    return err;
}
