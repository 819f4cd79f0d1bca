/* The commands of rf-lab, and what they share. */
#ifndef RF_LAB_COMMANDS_H
#define RF_LAB_COMMANDS_H

#include "lab/options.h"

#define LAB_ASK_TIMEOUT_MS  30000
#define LAB_BOOT_TIMEOUT_MS 120000
#define LAB_DEVICE_ROOM     8

/* Asks the supervisor; word NULL: none. */
int lab_ask_for(const rf_lab_t *lab, const char *verb, const char *word, unsigned timeout_ms);

/* Runs a program in a guest; its exit status. */
int lab_run_in_guest(const rf_lab_t *lab, unsigned guest, unsigned timeout_ms, const char *const *arguments,
                     unsigned n);

/* How many guests the running lab has, 0 with a message when there is none; and their device. */
unsigned lab_hosts_of(const rf_lab_t *lab, char device[LAB_DEVICE_ROOM]);

/* Are the hosts such with ports for DPDK, on one wire? */
bool lab_is_dpdk(const char *device);

/* Word `i` as the number of a guest; false with a message. */
bool lab_guest_word(const rf_lab_t *lab, unsigned i, unsigned *guest);

/* `wire`, and `cut` and `heal`. */
int lab_command_wire(rf_lab_t *lab);
int lab_command_cable(rf_lab_t *lab);

/* The kernel of guests with RDMA devices: a program (User-Mode Linux) or a folder (Debian's, for QEMU), built or fetched if there is
 * none. LAB_OK, LAB_SKIPPED with the reason printed where none can be had, or LAB_FAILED. */
int lab_find_kernel(const rf_lab_t *lab, char *kernel, size_t max);

/* `kernel`: prints where it is. */
int lab_command_kernel(rf_lab_t *lab);

/* `machine`: makes one machine of the guests. */
int lab_command_machine(rf_lab_t *lab);

#endif
