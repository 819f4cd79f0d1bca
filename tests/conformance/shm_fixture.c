/* Shared memory, listening on a path in a folder of its own, which a watcher removes also when the suite is killed. */
#include "conformance.h"

#include "transport/shm/internal.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static char folder[64];

/* Waits for the end of the suite's process, in which the only other end of the pipe is. */
static void watch_folder(void)
{
    int ends[2];
    if (pipe(ends) < 0) abort();
    pid_t pid = fork();
    if (pid < 0) abort();
    if (pid > 0) {
        close(ends[0]);
        return; /* ends[1] stays open as long as this process and its children live */
    }
    setsid();
    close(ends[1]);
    char byte;
    while (read(ends[0], &byte, 1) > 0) continue;
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        unlinkat(dirfd(entries), entry->d_name, 0);
    rmdir(folder);
    _exit(0);
}

static void shm_open_world(world_t *world)
{
    (void)world;
    if (folder[0]) return;
    snprintf(folder, sizeof folder, "/tmp/rackfish-conformance-XXXXXX");
    if (!mkdtemp(folder)) abort();
    watch_folder();
}

static void shm_address(world_t *world, char *out)
{
    (void)world;
    static unsigned number;
    snprintf(out, RF_ADDRESS_MAX, "%s/%u.sock", folder, number++);
}

static bool shm_garbage(world_t *world, const char *address, const uint8_t *bytes, size_t size)
{
    (void)world;
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    snprintf(to.sun_path, sizeof to.sun_path, "%s", address);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    if (size > 0) (void)!send(fd, bytes, size, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(fd);
    return true;
}

/* ---- a peer that breaks the rules, on a link that is up (tests/transport/shm_hostile_test.c knows many more) ---- */

/* A memory object that its maker could cut short under whoever maps it. */
static void offer_region_without_seals(shm_link_t *link)
{
    int fd = memfd_create("hostile", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, RF_PAGE), 0);
    assert_int_equal(shm_side_region(link, 77, RF_PAGE, fd), RF_OK);
    close(fd);
    shm_attention(link);
}

static bool shm_hostile(world_t *world, unsigned side, unsigned way, bool *harmless)
{
    shm_link_t *link = (shm_link_t *)world->end[side].link;
    const uint64_t scribbles[] = {
        rf_control_make(CONFORMANCE_SLOT, 8, false, 0) | 1ull << 60,
        rf_control_make(CONFORMANCE_SLOT, 63, false, 0),
        rf_control_make(0, 8, false, 0),
        rf_control_make(0xff, 8, false, 0),
        rf_control_make(SHM_SLOT_SWITCH, 0, false, 0), /* to a ring that it never sent */
    };
    const unsigned n = sizeof scribbles / sizeof *scribbles;
    if (way < n) {
        atomic_store(&link->out.next->control, scribbles[way] | link->out.parity);
        return true;
    }
    switch (way - n) {
    case 0:
        atomic_store(&link->head->notify[0].control, RF_CONTROL_PARITY | rf_control_make(0xf5, 0, false, 0));
        shm_attention(link);
        return true;
    case 1:
        assert_int_equal(send(link->side, "junk", 4, MSG_NOSIGNAL), 4);
        shm_attention(link);
        return true;
    case 2:
        offer_region_without_seals(link);
        return true;
    case 3: /* its whole ring, but for what would make a slot fresh: nobody looks */
        for (unsigned i = 0; i < link->out_slots; i++)
            for (unsigned k = 0; k < 7; k++) atomic_store(&link->out.cells[i].words[k], UINT64_MAX);
        *harmless = true;
        return true;
    default:
        return false;
    }
}

/* ---- what a fenced peer has in its hands ---- */

/* The words of a slot, and not yet the word that says it is there. */
static void shm_half(world_t *world, unsigned side)
{
    shm_link_t *link = (shm_link_t *)world->end[side].link;
    for (unsigned k = 0; k < 7; k++) atomic_store(&link->out.next->words[k], UINT64_MAX);
}

/* The inode of the memory object at `memory`. */
static uint64_t inode_at(const void *memory)
{
    char line[512];
    uint64_t inode = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (inode == 0 && fgets(line, sizeof line, maps)) {
        unsigned long from, to, found;
        if (sscanf(line, "%lx-%lx %*s %*s %*s %lu", &from, &to, &found) == 3 && (uintptr_t)memory >= from &&
            (uintptr_t)memory < to)
            inode = found;
    }
    fclose(maps);
    assert_true(inode != 0);
    return inode;
}

static unsigned shm_memory_of(const rf_link_t *of, uint64_t *out, unsigned max)
{
    const shm_link_t *link = (const shm_link_t *)of;
    unsigned n = 0;
    assert_true(max >= 4 + 2 * SHM_REGIONS_MAX);
    out[n++] = inode_at(link->head);
    out[n++] = inode_at(link->out.cells);
    out[n++] = inode_at(link->out.peer_head);
    out[n++] = inode_at(link->in_cells);
    for (unsigned i = 0; i < SHM_REGIONS_MAX; i++) {
        if (link->regions[i]) out[n++] = inode_at(link->regions[i]->base.base);
        if (link->peer_regions[i].memory) out[n++] = inode_at(link->peer_regions[i].memory);
    }
    return n;
}

static struct {
    void *memory;
    size_t size;
    size_t cells_at, cells; /* slots in it: where, and how many */
} kept[4 * SHM_REGIONS_MAX];
static unsigned n_kept;

/* A second mapping: the link unmaps its own when it learns that it is over. */
static void keep(void *memory, size_t size, size_t cells_at, size_t cells)
{
    assert_true(n_kept < sizeof kept / sizeof *kept);
    void *again = mremap(memory, 0, size, MREMAP_MAYMOVE);
    assert_ptr_not_equal(again, MAP_FAILED);
    kept[n_kept].memory = again;
    kept[n_kept].size = size;
    kept[n_kept].cells_at = cells_at;
    kept[n_kept++].cells = cells;
}

static void shm_keep_mapped(world_t *world, unsigned side)
{
    shm_link_t *link = (shm_link_t *)world->end[side].link;
    keep(link->head, sizeof *link->head, SHM_NOTIFY_OFFSET, SHM_NOTIFY_SLOTS);
    keep(link->out.cells, link->out_slots * sizeof(shm_cell_t), 0, link->out_slots);
    keep((void *)(uintptr_t)link->in_cells, link->in_slots * sizeof(shm_cell_t), 0, link->in_slots);
    for (unsigned i = 0; i < SHM_REGIONS_MAX; i++) {
        const shm_peer_region_t *region = &link->peer_regions[i];
        if (region->memory) keep(region->memory, (region->size + RF_PAGE - 1) & ~(size_t)(RF_PAGE - 1), 0, 0);
    }
}

static void shm_overwrite_kept(world_t *world)
{
    (void)world;
    static unsigned times; /* slots are fresh in every second round of a ring: one of two times these are */
    const uint64_t parity = times++ % 2 ? RF_CONTROL_PARITY : 0;
    for (unsigned i = 0; i < n_kept; i++) {
        shm_cell_t *cells = (shm_cell_t *)(void *)((char *)kept[i].memory + kept[i].cells_at);
        memset(kept[i].memory, 0x66, kept[i].size);
        for (size_t k = 0; k < kept[i].cells; k++)
            atomic_store(&cells[k].control,
                         rf_control_make(CONFORMANCE_SLOT, RF_SLOT_PAYLOAD, false, 0) | parity);
    }
}

static const fixture_t fixture = {
    .name = "shm",
    .transport = &rf_transport_shm,
    .flags = FIXTURE_BULK | FIXTURE_THREADS | FIXTURE_PROCESSES,
    .deadline_ns = 20 * RF_NS_PER_S,
    .open = shm_open_world,
    .address = shm_address,
    .garbage = shm_garbage,
    .hostile = shm_hostile,
    .half = shm_half,
    .memory_of = shm_memory_of,
    .keep_mapped = shm_keep_mapped,
    .overwrite_kept = shm_overwrite_kept,
};

const fixture_t *conformance_fixture = &fixture;
