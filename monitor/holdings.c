/* What this process holds of its host, as the kernel and its links say. */
#include "monitor/shell.h"

#include <dirent.h>
#include <stdio.h>

static uint32_t descriptors(void)
{
    uint32_t n = 0;
    DIR *folder = opendir("/proc/self/fd");
    if (!folder) return 0;
    for (const struct dirent *entry; (entry = readdir(folder));) n += entry->d_name[0] != '.';
    closedir(folder);
    return n - 1; /* the folder's own */
}

/* VmLck: locked; VmPin: known to a device. */
static uint64_t pinned_bytes(void)
{
    uint64_t kib = 0;
    char line[128];
    FILE *status = fopen("/proc/self/status", "re");
    while (status && fgets(line, sizeof line, status)) {
        unsigned long long one;
        if (sscanf(line, "VmLck: %llu kB", &one) == 1 || sscanf(line, "VmPin: %llu kB", &one) == 1)
            kib += one;
    }
    if (status) fclose(status);
    return kib << 10;
}

void holdings_count(const shell_t *s, rf_client_holdings_t *out)
{
    *out = (rf_client_holdings_t){.descriptors = descriptors(), .pinned_bytes = pinned_bytes()};
    for (const conn_t *conn = s->conns; conn; conn = conn->next) {
        if (!conn->link) continue;
        rf_link_stats_t stats = {0};
        conn->link->transport->stats(conn->link, &stats);
        out->links++;
        out->queue_pairs += stats.queue_pairs;
        out->ring_bytes += ((uint64_t)stats.ring_slots_send + stats.ring_slots_receive) * sizeof(rf_slot_t);
    }
}
