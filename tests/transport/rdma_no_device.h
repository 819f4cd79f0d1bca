/* What tests of the RDMA medium have of device.c, path.c and cm.c, whatever they put in the place of the rest: memory that is
 * registered with nobody, no domains, no devices to be found and no rdma_cm. Included by one file of each test, after cmocka.h. */
#ifndef RF_TESTS_TRANSPORT_RDMA_NO_DEVICE_H
#define RF_TESTS_TRANSPORT_RDMA_NO_DEVICE_H

#include "transport/rdma/internal.h"

#include <stdlib.h>
#include <string.h>

static struct ibv_mr registered;

rf_err_t rdma_memory_make(struct ibv_pd *pd, size_t size, int access, rdma_memory_t *out)
{
    (void)access;
    size_t whole = (size + RF_PAGE - 1) & ~(size_t)(RF_PAGE - 1);
    *out =
        (rdma_memory_t){.base = aligned_alloc(RF_PAGE, whole), .size = whole, .mr = pd ? &registered : NULL};
    if (!out->base) return RF_ERR_NO_MEMORY;
    memset(out->base, 0, whole);
    return RF_OK;
}

void rdma_memory_free(rdma_memory_t *memory)
{
    free(memory->base);
    *memory = (rdma_memory_t){.base = NULL};
}

void rdma_memory_refused(rdma_endpoint_t *ep, size_t size)
{
    (void)ep, (void)size;
}

rf_err_t rdma_domain_make(rdma_device_t *dev, rdma_domain_t **out)
{
    (void)dev, (void)out;
    return RF_ERR_OS;
}

void rdma_domain_release(rdma_domain_t *domain)
{
    (void)domain;
}

void rdma_device_close(rdma_device_t *dev)
{
    (void)dev;
}

void rdma_buffer_post(rdma_device_t *dev, rdma_buffer_t *buffer)
{
    (void)dev, (void)buffer;
}

bool rdma_device_heard(rdma_device_t *dev)
{
    (void)dev;
    return false;
}

void rdma_device_async(rdma_device_t *dev)
{
    (void)dev;
}

void rdma_device_removed(rdma_device_t *dev)
{
    dev->gone = true;
}

bool rdma_path_stop(const rdma_path_t *path)
{
    (void)path;
    return true;
}

bool rdma_path_destroy(rdma_path_t *path)
{
    (void)path;
    return true;
}

void rdma_paths_bury(rdma_endpoint_t *ep, uint64_t now_ns)
{
    (void)ep, (void)now_ns;
}

rf_err_t rdma_cm_listen(rdma_device_t *dev, uint16_t *port)
{
    (void)dev, (void)port;
    return RF_ERR_OS;
}

void rdma_cm_removed(rdma_device_t *dev)
{
    (void)dev;
}

void rdma_cm_heard(rdma_endpoint_t *ep)
{
    (void)ep;
}

void rdma_cm_close(rdma_endpoint_t *ep)
{
    (void)ep;
}

#endif
