/* rf-lab: the commands of the lab, a table and one function each. `rackfish lab` becomes this program. */
#include "lab/commands.h"
#include "lab/spawn.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/close_range.h>

#define MTU_DPDK     1500
#define CONSOLE_TAIL 4000

/* ---- the kernel, and PATH ---- */

/* Programs in guests get our PATH: the `rackfish` that belongs to us comes first in it. */
static void put_rackfish_into_path(const lab_place_t *place)
{
    static const char *const folders[] = {"../bin", "../../../bin"}; /* of a build folder; installed */
    for (unsigned i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char folder[LAB_PATH_MAX * 2], program[LAB_PATH_MAX * 2 + 16], path[LAB_PATH_MAX * 8];
        snprintf(folder, sizeof folder, "%s/%s", place->lib, folders[i]);
        snprintf(program, sizeof program, "%s/rackfish", folder);
        if (access(program, X_OK) < 0) continue;
        const char *before = getenv("PATH");
        snprintf(path, sizeof path, "%s:%s", folder, before ? before : "/usr/sbin:/usr/bin:/sbin:/bin");
        setenv("PATH", path, 1);
        return;
    }
}

/* ---- commands ---- */

/* Of our descriptors above the standard ones: a lock that a caller holds by another is not to be held for as long as the lab lives. */
static void keep_only(int fd)
{
    if (fd > STDERR_FILENO + 1) close_range(STDERR_FILENO + 1, (unsigned)fd - 1, 0);
    close_range((unsigned)fd + 1, ~0u, 0);
}

/* Starts the supervisor as a child (or, in the background, a process of its own) and waits until its socket is there. */
static int start_supervisor(const rf_lab_t *lab, const char *kernel)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) return lab_error("pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0) return lab_error("fork: %s", strerror(errno));
    if (pid == 0) {
        keep_only(ready[1]);
        if (lab->options.background && fork() > 0) _exit(0);
        setsid();
        int null = open("/dev/null", O_RDWR);
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
        int status = lab_supervise(&lab->options, &lab->place, kernel, ready[1]);
        _exit(status);
    }
    close(ready[1]);
    char byte;
    ssize_t n;
    do {
        n = read(ready[0], &byte, 1);
    } while (n < 0 && errno == EINTR);
    close(ready[0]);
    if (lab->options.background) waitpid(pid, NULL, 0);
    return n == 1 ? LAB_OK : LAB_FAILED;
}

static int command_exec(rf_lab_t *lab)
{
    unsigned guest;
    char device[LAB_DEVICE_ROOM];
    if (lab->n_words > 1 && strcmp(lab->words[1], "wire") == 0) {
        unsigned hosts = lab_hosts_of(lab, device);
        if (!hosts) return LAB_NO_LAB;
        if (!lab_is_dpdk(device)) return lab_usage("exec: this lab has cables, and no wire");
        guest = lab_wire_of(hosts);
    } else if (!lab_guest_word(lab, 1, &guest)) {
        return LAB_USAGE;
    }
    unsigned first = lab->n_words > 2 && strcmp(lab->words[2], "--") == 0 ? 3 : 2;
    if (lab->n_words <= first) return lab_usage("exec: which command?");
    lab_program_t program = {.guest = guest,
                             .terminal = lab->terminal,
                             .timeout_ms = lab->timeout_s * 1000,
                             .arguments = (const char *const *)(uintptr_t)(lab->words + first),
                             .n_arguments = lab->n_words - first};
    return lab_run_program(&lab->place, &program);
}

static int command_ask(rf_lab_t *lab)
{
    unsigned guest;
    const char *verb = lab->words[0];
    bool alone = strcmp(verb, "status") == 0;
    if (!alone && !lab_guest_word(lab, 1, &guest)) return LAB_USAGE;
    return lab_ask_for(lab, verb, !alone ? lab->words[1] : lab->json ? "json" : NULL, LAB_BOOT_TIMEOUT_MS);
}

static int command_down(rf_lab_t *lab)
{
    /* The supervisor closes the connection when nothing is left, or says what is; one that was killed leaves a folder to be cleared. */
    static lab_text_t answer;
    const char *const words[] = {"down"};
    int status = LAB_OK;
    if (access(lab->place.socket, F_OK) == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC), before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        dup2(null, STDERR_FILENO);
        status = lab_ask(&lab->place, words, 1, LAB_ASK_TIMEOUT_MS, &answer);
        dup2(before, STDERR_FILENO);
        close(null);
        close(before);
        fputs(answer.bytes, stderr);
    }
    if (status == LAB_TIMEOUT)
        return lab_error("the lab's supervisor has not ended within %d s", LAB_ASK_TIMEOUT_MS / 1000);
    if (status == LAB_FAILED) return LAB_FAILED;
    return lab_place_clear(&lab->place) ? LAB_OK : lab_error("%s: %s", lab->place.folder, strerror(errno));
}

/* The last lines of each guest's console: why it did not boot. */
static void print_consoles(const rf_lab_t *lab)
{
    for (unsigned g = 1; g <= lab->options.hosts; g++) {
        char path[LAB_PATH_MAX + 32];
        static char text[1 << 20];
        snprintf(path, sizeof path, "%s/console-%u.log", lab->place.folder, g);
        ssize_t n = rf_file_read(path, text, sizeof text);
        if (n > 0)
            fprintf(stderr, "---- console of guest %u\n%s\n", g,
                    n > CONSOLE_TAIL ? text + n - CONSOLE_TAIL : text);
    }
}

static int work_in_lab(rf_lab_t *lab)
{
    unsigned n = lab->n_words - 1;
    char **words = lab->words + 1;
    if (n && strcmp(words[0], "--") == 0) n--, words++;
    if (lab->machine) {
        setenv("RACKFISH_MACHINE", "lab", 1);
        fprintf(stderr, "rf-lab: making one machine of the %u guests\n", lab->options.hosts);
        int status = lab_command_machine(lab);
        if (status != LAB_OK) return status;
    }
    static const char *const shell[] = {"/bin/bash", "-i"};
    if (n == 0)
        fprintf(stderr,
                "rf-lab: a shell in guest 1 of %u; in others, from elsewhere: rackfish lab exec -t 2 -- "
                "bash; `exit` ends the "
                "lab\n",
                lab->options.hosts);
    lab_program_t program = {.guest = 1,
                             .terminal = isatty(STDIN_FILENO) && isatty(STDOUT_FILENO),
                             .timeout_ms = lab->timeout_s * 1000,
                             .arguments = n ? (const char *const *)(uintptr_t)words : shell,
                             .n_arguments = n ? n : 2};
    return lab_run_program(&lab->place, &program);
}

/* Makes the lab and works in it; kernel NULL: its guests have none of their own. */
static int run_lab(rf_lab_t *lab, const char *kernel)
{
    int status;
    char text[16];
    if (mkdir(lab->place.folder, 0700) < 0) {
        if (errno != EEXIST) return lab_error("%s: %s", lab->place.folder, strerror(errno));
        if (access(lab->place.socket, F_OK) == 0 &&
            lab_ask_for(lab, "hosts", NULL, LAB_ASK_TIMEOUT_MS) == LAB_OK)
            return lab_error("a lab \"%s\" runs already; `rackfish lab down` ends it, --name makes another",
                             lab->options.name);
        if ((status = command_down(lab)) != LAB_OK || mkdir(lab->place.folder, 0700) < 0) return LAB_FAILED;
    }
    char path[LAB_PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/hosts", lab->place.folder);
    snprintf(text, sizeof text, "%u %s", lab->options.hosts, lab->options.device);
    if (rf_file_write(path, text, strlen(text)) != RF_OK) return lab_error("%s: %s", path, strerror(errno));
    if (!lab->options.background && !lab->options.owner) lab->options.owner = getpid();
    fprintf(stderr, "rf-lab: booting %u guests (%s)\n", lab->options.hosts, lab->options.device);
    status = start_supervisor(lab, kernel);
    if (status == LAB_OK) status = lab_ask_for(lab, "ready", NULL, LAB_BOOT_TIMEOUT_MS);
    if (status == LAB_OK && lab->options.background) return LAB_OK;
    if (status == LAB_OK)
        status = work_in_lab(lab);
    else
        print_consoles(lab);
    (void)command_down(lab);
    return status;
}

static int command_rdma(rf_lab_t *lab)
{
    char why[512], kernel[LAB_PATH_MAX];
    if (lab->options.hosts > LAB_GUESTS_MAX)
        return lab_usage("--hosts takes 2 to %d guests with a kernel of their own, not %u", LAB_GUESTS_MAX,
                         lab->options.hosts);
    if (!lab_guest_possible(why, sizeof why)) {
        lab_error("%s", why);
        return LAB_SKIPPED;
    }
    int status = lab_find_kernel(lab, kernel, sizeof kernel);
    return status == LAB_OK ? run_lab(lab, kernel) : status;
}

static int command_dpdk(rf_lab_t *lab)
{
    char why[512];
    if (!lab_hosts_possible(why, sizeof why)) {
        lab_error("%s", why);
        return LAB_SKIPPED;
    }
    lab->options.device = "dpdk";
    if (!lab->mtu_given) lab->options.mtu = MTU_DPDK;
    return run_lab(lab, NULL);
}

static const struct {
    const char *name;
    int (*run)(rf_lab_t *lab);
} commands[] = {
    {"rdma", command_rdma},     {"dpdk", command_dpdk},           {"wire", lab_command_wire},
    {"exec", command_exec},     {"machine", lab_command_machine}, {"status", command_ask},
    {"cut", lab_command_cable}, {"heal", lab_command_cable},      {"kill", command_ask},
    {"boot", command_ask},      {"freeze", command_ask},          {"thaw", command_ask},
    {"down", command_down},     {"kernel", lab_command_kernel},
};

int main(int argc, char **argv)
{
    rf_lab_t lab;
    lab_options_init(&lab);
    /* Options may stand before the command and after it. */
    int status = lab_parse_options(&lab, argc, argv);
    if (status == LAB_OK && lab.n_words == 0) {
        lab_print_help(stderr);
        return LAB_USAGE;
    }
    char *name = lab.words[0];
    if (status == LAB_OK) status = lab_parse_options(&lab, (int)lab.n_words, lab.words);
    if (status != LAB_OK) return status < 0 ? LAB_OK : status;
    *--lab.words = name; /* over the option before it, which is done */
    lab.n_words++;
    if (lab.wire.given && strcmp(name, "wire") != 0) return lab_usage("%s: that option goes with wire", name);
    if (lab.json && strcmp(name, "status") != 0) return lab_usage("%s: --json goes with status", name);
    if (!lab_place_find(lab.options.name, &lab.place)) return LAB_FAILED;
    put_rackfish_into_path(&lab.place);
    for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, name) == 0) return commands[i].run(&lab);
    }
    return lab_usage("no command \"%s\"", name);
}
