/* What the commands share. */
#include "lab/commands.h"

#include "base/os.h"

#include <stdio.h>
#include <string.h>

int lab_ask_for(const rf_lab_t *lab, const char *verb, const char *word, unsigned timeout_ms)
{
    const char *words[] = {verb, word};
    return lab_ask(&lab->place, words, word ? 2 : 1, timeout_ms, NULL);
}

int lab_run_in_guest(const rf_lab_t *lab, unsigned guest, unsigned timeout_ms, const char *const *arguments,
                     unsigned n)
{
    lab_program_t program = {
        .guest = guest, .timeout_ms = timeout_ms, .arguments = arguments, .n_arguments = n};
    return lab_run_program(&lab->place, &program);
}

unsigned lab_hosts_of(const rf_lab_t *lab, char device[LAB_DEVICE_ROOM])
{
    char path[LAB_PATH_MAX + 16], text[32] = "", *space = NULL;
    snprintf(path, sizeof path, "%s/hosts", lab->place.folder);
    unsigned hosts = 0;
    if (rf_file_read(path, text, sizeof text) > 0) space = strchr(text, ' ');
    if (space) *space = '\0';
    if (!space || !lab_number(text, 2, LAB_HOSTS_MAX, &hosts)) {
        lab_error("no lab \"%s\" runs here; start one with `rackfish lab rdma -d`", lab->options.name);
        return 0;
    }
    snprintf(device, LAB_DEVICE_ROOM, "%s", space + 1);
    return hosts;
}

bool lab_is_dpdk(const char *device)
{
    return strcmp(device, "dpdk") == 0;
}

bool lab_guest_word(const rf_lab_t *lab, unsigned i, unsigned *guest)
{
    if (i < lab->n_words && lab_number(lab->words[i], 1, LAB_HOSTS_MAX, guest)) return true;
    lab_usage("%s: which guest? a number from 1 on", lab->words[0]);
    return false;
}
