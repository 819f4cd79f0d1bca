#include "wire/boot.h"

#include "base/os.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

rf_err_t rf_boot_map(int fd, const rf_boot_t **out)
{
    rf_err_t err = rf_memory_check(fd, sizeof(rf_boot_t));
    if (err != RF_OK) return err;
    const rf_boot_t *boot = mmap(NULL, sizeof *boot, PROT_READ, MAP_SHARED, fd, 0);
    if (boot == MAP_FAILED) return RF_ERR_OS;
    if (boot->magic != RF_BOOT_MAGIC || boot->size != sizeof *boot || boot->n_nodes == 0 ||
        boot->n_nodes > RF_NODES_MAX || boot->n_cores == 0 || boot->n_cores > RF_CORES_MAX ||
        boot->node >= boot->n_nodes) {
        munmap((void *)(uintptr_t)boot, sizeof *boot);
        return RF_ERR_PROTOCOL;
    }
    *out = boot;
    return RF_OK;
}

rf_err_t rf_boot_publish(const rf_boot_t *boot, int *fd_out)
{
    int fd, readonly;
    rf_err_t err = rf_memory_create("rackfish-boot", sizeof *boot, &fd);
    if (err != RF_OK) return err;
    void *at = mmap(NULL, sizeof *boot, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) {
        close(fd);
        return RF_ERR_OS;
    }
    memcpy(at, boot, sizeof *boot);
    munmap(at, sizeof *boot);
    err = rf_memory_reopen_readonly(fd, &readonly);
    close(fd);
    if (err == RF_OK) *fd_out = readonly;
    return err;
}
