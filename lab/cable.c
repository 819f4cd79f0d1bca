/* What joins the guests: cables that are cut and healed, or the wire of hosts for DPDK, which is made bad. */
#include "lab/commands.h"

#include <string.h>

#define LINK_TIMEOUT_MS 20000

/* Disables the port of guest `a` to guest `b` in `a`'s bridge, or lets it forward. (Taken down it would not come up again: the
 * kernel closes the cable's descriptor. Taken out of the bridge and put back it would not be isolated for a moment, forward for
 * the others, and their bridges would look for them behind this guest until ARP asks again, seconds later.) A guest that is
 * off has no port. */
static int set_port(const rf_lab_t *lab, unsigned a, unsigned b, bool joined)
{
    char port[16], guest[16];
    snprintf(port, sizeof port, "vec%u", b);
    snprintf(guest, sizeof guest, "%u", a);
    if (lab_ask_for(lab, "on", guest, LAB_ASK_TIMEOUT_MS) != LAB_OK) return LAB_OK;
    const char *const words[] = {
        "/bin/sh", "-c", joined ? "bridge link set dev $0 state 3" : "bridge link set dev $0 state 0", port};
    return lab_run_in_guest(lab, a, LINK_TIMEOUT_MS, words, 4);
}

/* wire.sh in the wire of a lab without cables. */
static int run_in_wire(const rf_lab_t *lab, unsigned hosts, const char *const *words, unsigned n)
{
    const char *all[12] = {"/bin/sh", "-c", "exec /bin/sh \"$0/wire.sh\" \"$@\"", lab->place.lib};
    memcpy(all + 4, words, n * sizeof *words);
    return lab_run_in_guest(lab, lab_wire_of(hosts), LINK_TIMEOUT_MS, all, n + 4);
}

static int set_pair(const rf_lab_t *lab, unsigned hosts, unsigned a, unsigned b)
{
    char first[16], second[16];
    snprintf(first, sizeof first, "%u", a);
    snprintf(second, sizeof second, "%u", b);
    const char *const words[] = {lab->words[0], first, second};
    return run_in_wire(lab, hosts, words, 3);
}

int lab_command_wire(rf_lab_t *lab)
{
    char device[LAB_DEVICE_ROOM], numbers[5][16];
    unsigned hosts = lab_hosts_of(lab, device);
    if (!hosts) return LAB_NO_LAB;
    if (!lab_is_dpdk(device)) return lab_usage("wire: this lab has cables, and no wire; cut and heal them");
    const unsigned values[] = {lab->wire.loss, lab->wire.duplicate, lab->wire.reorder, lab->wire.burst,
                               lab->wire.rate_mbit};
    const char *words[6] = {"set"};
    for (unsigned i = 0; i < 5; i++) {
        snprintf(numbers[i], sizeof numbers[i], "%u", values[i]);
        words[i + 1] = numbers[i];
    }
    return run_in_wire(lab, hosts, words, 6);
}

int lab_command_cable(rf_lab_t *lab)
{
    bool joined = strcmp(lab->words[0], "heal") == 0;
    char device[LAB_DEVICE_ROOM];
    unsigned hosts = lab_hosts_of(lab, device), a, b = 0;
    if (!hosts) return LAB_NO_LAB;
    if (!lab_guest_word(lab, 1, &a) || (lab->n_words > 2 && !lab_guest_word(lab, 2, &b))) return LAB_USAGE;
    if (a > hosts || b > hosts || a == b) return lab_usage("%s: there is no such cable", lab->words[0]);
    int status = LAB_OK;
    for (unsigned other = 1; other <= hosts; other++) {
        if (other == a || (b && other != b)) continue;
        if (lab_is_dpdk(device)) {
            int cut = set_pair(lab, hosts, a, other);
            if (cut != LAB_OK) status = cut;
            continue;
        }
        int ended = set_port(lab, a, other, joined);
        if (ended != LAB_OK) status = ended;
        ended = set_port(lab, other, a, joined);
        if (ended != LAB_OK) status = ended;
    }
    return status;
}
