/* What a medium's table points to where it lacks an optional operation. */
#include "transport/transport.h"

rf_err_t rf_missing_region_create(rf_link_t *link, size_t size, rf_region_t **out)
{
    (void)link, (void)size, (void)out;
    return RF_ERR_NOT_SUPPORTED;
}

void rf_missing_region_destroy(rf_link_t *link, rf_region_t *region)
{
    (void)link, (void)region;
}

rf_err_t rf_missing_remote_write(rf_link_t *link, const rf_region_key_t *key, uint64_t offset,
                                 const void *source, size_t size, const rf_slot_t *notify, uint64_t cookie)
{
    (void)link, (void)key, (void)offset, (void)source, (void)size, (void)notify, (void)cookie;
    return RF_ERR_NOT_SUPPORTED;
}

rf_err_t rf_missing_remote_read(rf_link_t *link, const rf_region_key_t *key, uint64_t offset,
                                void *destination, size_t size, uint64_t cookie)
{
    (void)link, (void)key, (void)offset, (void)destination, (void)size, (void)cookie;
    return RF_ERR_NOT_SUPPORTED;
}

rf_err_t rf_missing_pass_fds(rf_link_t *link, const void *bytes, size_t size, const int *fds, unsigned n_fds)
{
    (void)link, (void)bytes, (void)size, (void)fds, (void)n_fds;
    return RF_ERR_NOT_SUPPORTED;
}

rf_err_t rf_missing_peer_credentials(rf_link_t *link, int *pid, unsigned *uid)
{
    (void)link, (void)pid, (void)uid;
    return RF_ERR_NOT_SUPPORTED;
}
