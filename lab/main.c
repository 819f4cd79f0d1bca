/* rf-lab: the commands of the lab, a table and one function each. `rackfish lab` becomes this program. */
#include "lab/lab.h"
#include "lab/spawn.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define HOSTS_DEFAULT   2
#define HOSTS_LAB_MAX   5
#define MEMORY_DEFAULT  256
#define MEMORY_MIN      128
#define MTU_DEFAULT     9000
#define ASK_TIMEOUT_MS  30000
#define BOOT_TIMEOUT_MS 120000
#define LINK_TIMEOUT_MS 20000
#define CONSOLE_TAIL    4000

static void print_help(FILE *out)
{
    fputs(
        "Usage: rackfish lab rdma [OPTION]... [-- COMMAND [ARGUMENT]...]\n"
        "       rackfish lab COMMAND [OPTION]... [ARGUMENT]...\n"
        "\n"
        "A rack of Linux hosts with RDMA devices, on this one: each host is Linux itself as a process, with\n"
        "Soft-RoCE or soft-iWARP, on this host's files, which it sees read-only below what it writes.\n"
        "\n"
        "  rdma              boots a lab; then a shell in guest 1, or COMMAND there and its exit status, and "
        "ends it\n"
        "  rdma -d           boots a lab in the background, until `down`\n"
        "  exec N -- COMMAND runs a command in guest N as if it were here; its exit status\n"
        "  machine           makes one Rackfish machine of the guests (in the foreground `rdma` does it "
        "itself)\n"
        "  status            shows the guests; with --json as one object\n"
        "  cut A [B]         cuts the cable between guests A and B, or all cables of A\n"
        "  heal A [B]        mends it\n"
        "  kill N  boot N    pulls the plug of a guest, and starts it again with nothing kept\n"
        "  freeze N  thaw N  stops a guest in its tracks, and lets it go on\n"
        "  down              ends the lab; nothing is left\n"
        "  kernel            builds the guests' kernel, if there is none yet, and prints where it is\n"
        "\n"
        "Options:\n"
        "      --hosts N         guests, 2 to 5 (default 2)\n"
        "      --device D        rxe (Soft-RoCE, default), siw (soft-iWARP), both, or none\n"
        "      --memory MIB      of each guest (default 256)\n"
        "      --mtu N           of the network (default 9000, an RDMA MTU of 4096)\n"
        "      --name NAME       which lab of this host (default: lab)\n"
        "      --transport T     rdma: the machine's links between hosts: rdma or tcp (default: rdma with "
        "rxe, else tcp)\n"
        "      --no-machine      rdma: leave the guests as they are\n"
        "  -d, --detach          rdma: in the background\n"
        "      --while PID       rdma -d: end the lab when that process ends\n"
        "  -t, --terminal        exec: give the command a terminal\n"
        "      --timeout SECONDS exec: kill the command when that has passed (status 124)\n"
        "      --json            status: as JSON\n"
        "\n"
        "The first lab builds its kernel, in about 7 minutes on two CPUs, and keeps it below "
        "~/.cache/rackfish.\n"
        "Exit status: the command's; 1 failed, 2 wrong usage, 3 no such lab, 77 this host cannot have one,\n"
        "124 time has passed, 125 the guest is off.\n",
        out);
}

#define DEVICE_ROOM 8

/* ---- options ---- */

typedef struct rf_lab {
    lab_options_t options;
    lab_place_t place;
    const char *transport; /* NULL: rdma if it is there */
    bool machine, terminal, json;
    unsigned timeout_s;
    char **words; /* after the options */
    unsigned n_words;
} rf_lab_t;

enum {
    OPTION_HOSTS = 256,
    OPTION_DEVICE,
    OPTION_MEMORY,
    OPTION_MTU,
    OPTION_NAME,
    OPTION_TRANSPORT,
    OPTION_NO_MACHINE,
    OPTION_WHILE,
    OPTION_TIMEOUT,
    OPTION_JSON,
};

static int usage(const char *format, ...) __attribute__((format(printf, 1, 2)));
static int usage(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("rf-lab: ", stderr);
    vfprintf(stderr, format, args);
    fputs("; `rackfish lab --help` explains\n", stderr);
    va_end(args);
    return LAB_USAGE;
}

static bool number(const char *text, unsigned long min, unsigned long max, unsigned *out)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*text < '0' || *text > '9' || *end || errno || value < min || value > max) return false;
    *out = (unsigned)value;
    return true;
}

static bool one_of(const char *word, const char *list)
{
    size_t n = strlen(word);
    for (const char *at = list; (at = strstr(at, word)); at++) {
        if ((at == list || at[-1] == ' ') && (at[n] == ' ' || at[n] == '\0') && n) return true;
    }
    return false;
}

static int parse_option(rf_lab_t *lab, int c)
{
    unsigned owner;
    switch (c) {
    case OPTION_HOSTS:
        if (!number(optarg, 2, HOSTS_LAB_MAX, &lab->options.hosts))
            return usage("--hosts takes 2 to %d, not \"%s\"", HOSTS_LAB_MAX, optarg);
        break;
    case OPTION_DEVICE:
        if (!one_of(optarg, "rxe siw both none"))
            return usage("no device \"%s\": rxe, siw, both or none", optarg);
        lab->options.device = optarg;
        break;
    case OPTION_MEMORY:
        if (!number(optarg, MEMORY_MIN, 65536, &lab->options.memory_mib))
            return usage("--memory takes MiB from %d on, not \"%s\"", MEMORY_MIN, optarg);
        break;
    case OPTION_MTU:
        if (!number(optarg, 1280, 9000, &lab->options.mtu))
            return usage("--mtu takes 1280 to 9000, not \"%s\"", optarg);
        break;
    case OPTION_NAME:
        if (!*optarg || strlen(optarg) > 40 ||
            strspn(optarg, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") !=
                strlen(optarg))
            return usage("\"%s\" is no name for a lab: letters, digits, - and _ only", optarg);
        lab->options.name = optarg;
        break;
    case OPTION_TRANSPORT:
        if (!one_of(optarg, "rdma tcp")) return usage("no transport \"%s\": rdma or tcp", optarg);
        lab->transport = optarg;
        break;
    case OPTION_NO_MACHINE:
        lab->machine = false;
        break;
    case 'd':
        lab->options.background = true;
        break;
    case OPTION_WHILE:
        if (!number(optarg, 1, 1u << 30, &owner)) return usage("--while takes a process, not \"%s\"", optarg);
        lab->options.owner = (pid_t)owner;
        break;
    case 't':
        lab->terminal = true;
        break;
    case OPTION_TIMEOUT:
        if (!number(optarg, 1, 1000000, &lab->timeout_s))
            return usage("--timeout takes seconds, not \"%s\"", optarg);
        break;
    case OPTION_JSON:
        lab->json = true;
        break;
    case ':':
        return usage("option %s needs an argument", lab->words[optind - 1]);
    default:
        return usage("unknown option %s", lab->words[optind - 1]);
    }
    return LAB_OK;
}

/* Options up to the first word that is none; -1: --help was asked for and printed. */
static int parse_options(rf_lab_t *lab, int argc, char **argv)
{
    static const struct option options[] = {
        {"hosts", required_argument, NULL, OPTION_HOSTS},
        {"device", required_argument, NULL, OPTION_DEVICE},
        {"memory", required_argument, NULL, OPTION_MEMORY},
        {"mtu", required_argument, NULL, OPTION_MTU},
        {"name", required_argument, NULL, OPTION_NAME},
        {"transport", required_argument, NULL, OPTION_TRANSPORT},
        {"no-machine", no_argument, NULL, OPTION_NO_MACHINE},
        {"detach", no_argument, NULL, 'd'},
        {"while", required_argument, NULL, OPTION_WHILE},
        {"terminal", no_argument, NULL, 't'},
        {"timeout", required_argument, NULL, OPTION_TIMEOUT},
        {"json", no_argument, NULL, OPTION_JSON},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    lab->words = argv;
    optind = 1;
    for (int c; (c = getopt_long(argc, argv, "+:dth", options, NULL)) != -1;) {
        if (c == 'h') {
            print_help(stdout);
            return -1;
        }
        int status = parse_option(lab, c);
        if (status != LAB_OK) return status;
    }
    lab->words = argv + optind;
    lab->n_words = (unsigned)(argc - optind);
    return LAB_OK;
}

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

/* Runs kernel.sh, which says on stderr what it does and on stdout where the kernel is. */
static int find_kernel(const lab_place_t *place, char *kernel, size_t max)
{
    int out[2];
    if (pipe2(out, O_CLOEXEC) < 0) return lab_error("pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid == 0) {
        char script[LAB_PATH_MAX + 16];
        dup2(out[1], STDOUT_FILENO);
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        snprintf(script, sizeof script, "%s/kernel.sh", place->lib);
        execl(script, "kernel.sh", "build", (char *)NULL);
        lab_error("%s: %s", script, strerror(errno));
        _exit(LAB_FAILED);
    }
    close(out[1]);
    size_t used = 0;
    for (ssize_t n; used + 1 < max && (n = read(out[0], kernel + used, max - 1 - used)) != 0;) {
        if (n > 0) used += (size_t)n;
        if (n < 0 && errno != EINTR) break;
    }
    close(out[0]);
    kernel[used] = '\0';
    kernel[strcspn(kernel, "\n")] = '\0';
    int status = 0;
    if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) return LAB_FAILED;
    if (WEXITSTATUS(status) != 0) return WEXITSTATUS(status);
    return access(kernel, X_OK) == 0 ? LAB_OK : lab_error("kernel.sh made no kernel");
}

/* ---- commands ---- */

static int ask(const rf_lab_t *lab, const char *verb, const char *word, unsigned timeout_ms)
{
    const char *words[] = {verb, word};
    return lab_ask(&lab->place, words, word ? 2 : 1, timeout_ms);
}

/* Starts the supervisor as a child (or, in the background, a process of its own) and waits until its socket is there. */
static int start_supervisor(const rf_lab_t *lab, const char *kernel)
{
    int ready[2];
    if (pipe2(ready, O_CLOEXEC) < 0) return lab_error("pipe: %s", strerror(errno));
    pid_t pid = fork();
    if (pid < 0) return lab_error("fork: %s", strerror(errno));
    if (pid == 0) {
        close(ready[0]);
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

static int run_in_guest(const rf_lab_t *lab, unsigned guest, unsigned timeout_ms,
                        const char *const *arguments, unsigned n)
{
    lab_program_t program = {
        .guest = guest, .timeout_ms = timeout_ms, .arguments = arguments, .n_arguments = n};
    return lab_run_program(&lab->place, &program);
}

/* How many guests the running lab has, 0 with a message when there is none; and their device. */
static unsigned hosts_of(const rf_lab_t *lab, char device[DEVICE_ROOM])
{
    char path[LAB_PATH_MAX + 16], text[32] = "", *space = NULL;
    snprintf(path, sizeof path, "%s/hosts", lab->place.folder);
    unsigned hosts = 0;
    if (rf_file_read(path, text, sizeof text) > 0) space = strchr(text, ' ');
    if (space) *space = '\0';
    if (!space || !number(text, 2, LAB_HOSTS_MAX, &hosts)) {
        lab_error("no lab \"%s\" runs here; start one with `rackfish lab rdma -d`", lab->options.name);
        return 0;
    }
    snprintf(device, DEVICE_ROOM, "%s", space + 1);
    return hosts;
}

static bool guest_word(const rf_lab_t *lab, unsigned i, unsigned *guest)
{
    if (i < lab->n_words && number(lab->words[i], 1, LAB_HOSTS_MAX, guest)) return true;
    usage("%s: which guest? a number from 1 on", lab->words[0]);
    return false;
}

static int command_exec(rf_lab_t *lab)
{
    unsigned guest;
    if (!guest_word(lab, 1, &guest)) return LAB_USAGE;
    unsigned first = lab->n_words > 2 && strcmp(lab->words[2], "--") == 0 ? 3 : 2;
    if (lab->n_words <= first) return usage("exec: which command?");
    lab_program_t program = {.guest = guest,
                             .terminal = lab->terminal,
                             .timeout_ms = lab->timeout_s * 1000,
                             .arguments = (const char *const *)(uintptr_t)(lab->words + first),
                             .n_arguments = lab->n_words - first};
    return lab_run_program(&lab->place, &program);
}

/* Takes the port of guest `a` to guest `b` out of `a`'s bridge, or into it. (Taken down it would not come up again: the
 * kernel closes the cable's descriptor.) A guest that is off has no port. */
static int set_port(const rf_lab_t *lab, unsigned a, unsigned b, bool joined)
{
    char port[16], guest[16];
    snprintf(port, sizeof port, "vec%u", b);
    snprintf(guest, sizeof guest, "%u", a);
    if (ask(lab, "on", guest, ASK_TIMEOUT_MS) != LAB_OK) return LAB_OK;
    const char *const words[] = {
        "/bin/sh", "-c",
        joined ? "ip link set $0 master lan0 && ip link set $0 type bridge_slave isolated on"
               : "ip link set $0 nomaster",
        port};
    return run_in_guest(lab, a, LINK_TIMEOUT_MS, words, 4);
}

static int command_cable(rf_lab_t *lab)
{
    bool joined = strcmp(lab->words[0], "heal") == 0;
    char device[DEVICE_ROOM];
    unsigned hosts = hosts_of(lab, device), a, b = 0;
    if (!hosts) return LAB_NO_LAB;
    if (!guest_word(lab, 1, &a) || (lab->n_words > 2 && !guest_word(lab, 2, &b))) return LAB_USAGE;
    if (a > hosts || b > hosts || a == b) return usage("%s: there is no such cable", lab->words[0]);
    int status = LAB_OK;
    for (unsigned other = 1; other <= hosts; other++) {
        if (other == a || (b && other != b)) continue;
        int ended = set_port(lab, a, other, joined);
        if (ended != LAB_OK) status = ended;
        ended = set_port(lab, other, a, joined);
        if (ended != LAB_OK) status = ended;
    }
    return status;
}

static int command_ask(rf_lab_t *lab)
{
    unsigned guest;
    const char *verb = lab->words[0];
    bool alone = strcmp(verb, "status") == 0;
    if (!alone && !guest_word(lab, 1, &guest)) return LAB_USAGE;
    return ask(lab, verb, !alone ? lab->words[1] : lab->json ? "json" : NULL, BOOT_TIMEOUT_MS);
}

static int command_down(rf_lab_t *lab)
{
    /* The supervisor closes the connection when nothing is left; one that was killed leaves a folder to be cleared. */
    if (access(lab->place.socket, F_OK) == 0) {
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC), before = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
        dup2(null, STDERR_FILENO);
        (void)ask(lab, "down", NULL, ASK_TIMEOUT_MS);
        dup2(before, STDERR_FILENO);
        close(null);
        close(before);
    }
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

static int command_kernel(rf_lab_t *lab)
{
    char kernel[LAB_PATH_MAX];
    int status = find_kernel(&lab->place, kernel, sizeof kernel);
    if (status == LAB_OK) puts(kernel);
    return status;
}

/* ---- a Rackfish machine of the guests ---- */

static bool has_rdma(const rf_lab_t *lab)
{
    static const char *const folders[] = {"../modules", "../../../lib/rackfish"};
    for (unsigned i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char path[LAB_PATH_MAX * 2];
        snprintf(path, sizeof path, "%s/%s/rackfish-rdma.so", lab->place.lib, folders[i]);
        if (access(path, R_OK) == 0) return true;
    }
    return false;
}

/* In a child: brings guest `g`'s node up. All wait for each other, and the first says what came of it. */
static int join_machine(const rf_lab_t *lab, unsigned g, unsigned hosts, const char *transport)
{
    char count[16];
    snprintf(count, sizeof count, "%u", hosts);
    const char *const words[] = {"/bin/sh",      "-c",  "exec /bin/sh \"$0/guest-machine.sh\" \"$@\"",
                                 lab->place.lib, count, transport};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    dup2(null, STDIN_FILENO);
    if (g > 1) dup2(null, STDOUT_FILENO);
    return run_in_guest(lab, g, BOOT_TIMEOUT_MS, words, 6);
}

static int command_machine(rf_lab_t *lab)
{
    char device[DEVICE_ROOM];
    unsigned hosts = hosts_of(lab, device);
    if (!hosts) return LAB_NO_LAB;
    bool rdma = has_rdma(lab) && strcmp(device, "rxe") == 0;
    const char *transport = lab->transport ? lab->transport : rdma ? "rdma" : "tcp";
    pid_t children[LAB_HOSTS_MAX + 1];
    for (unsigned g = 1; g <= hosts; g++) {
        fflush(NULL);
        children[g] = fork();
        if (children[g] == 0) _exit(join_machine(lab, g, hosts, transport));
    }
    int status = LAB_OK;
    for (unsigned g = 1; g <= hosts; g++) {
        int ended = 0;
        if (children[g] > 0 && waitpid(children[g], &ended, 0) == children[g] && WIFEXITED(ended) &&
            WEXITSTATUS(ended) == 0)
            continue;
        status = lab_error("guest %u did not join the machine", g);
    }
    return status;
}

/* ---- rdma ---- */

static int work_in_lab(rf_lab_t *lab)
{
    unsigned n = lab->n_words - 1;
    char **words = lab->words + 1;
    if (n && strcmp(words[0], "--") == 0) n--, words++;
    if (lab->machine) {
        setenv("RACKFISH_MACHINE", "lab", 1);
        fprintf(stderr, "rf-lab: making one machine of the %u guests\n", lab->options.hosts);
        int status = command_machine(lab);
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

static int command_rdma(rf_lab_t *lab)
{
    char why[512], kernel[LAB_PATH_MAX], text[16];
    if (!lab_guest_possible(why, sizeof why)) {
        lab_error("%s", why);
        return LAB_SKIPPED;
    }
    int status = find_kernel(&lab->place, kernel, sizeof kernel);
    if (status != LAB_OK) return status;
    if (mkdir(lab->place.folder, 0700) < 0) {
        if (errno != EEXIST) return lab_error("%s: %s", lab->place.folder, strerror(errno));
        if (access(lab->place.socket, F_OK) == 0 && ask(lab, "hosts", NULL, ASK_TIMEOUT_MS) == LAB_OK)
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
    if (status == LAB_OK) status = ask(lab, "ready", NULL, BOOT_TIMEOUT_MS);
    if (status == LAB_OK && lab->options.background) return LAB_OK;
    if (status == LAB_OK)
        status = work_in_lab(lab);
    else
        print_consoles(lab);
    (void)command_down(lab);
    return status;
}

static const struct {
    const char *name;
    int (*run)(rf_lab_t *lab);
} commands[] = {
    {"rdma", command_rdma},  {"exec", command_exec}, {"machine", command_machine},
    {"status", command_ask}, {"cut", command_cable}, {"heal", command_cable},
    {"kill", command_ask},   {"boot", command_ask},  {"freeze", command_ask},
    {"thaw", command_ask},   {"down", command_down}, {"kernel", command_kernel},
};

int main(int argc, char **argv)
{
    rf_lab_t lab = {.options = {.name = "lab",
                                .hosts = HOSTS_DEFAULT,
                                .memory_mib = MEMORY_DEFAULT,
                                .mtu = MTU_DEFAULT,
                                .device = "rxe"},
                    .machine = true};
    /* Options may stand before the command and after it. */
    int status = parse_options(&lab, argc, argv);
    if (status == LAB_OK && lab.n_words == 0) {
        print_help(stderr);
        return LAB_USAGE;
    }
    char *name = lab.words[0];
    if (status == LAB_OK) status = parse_options(&lab, (int)lab.n_words, lab.words);
    if (status != LAB_OK) return status < 0 ? LAB_OK : status;
    *--lab.words = name; /* over the option before it, which is done */
    lab.n_words++;
    if (lab.json && strcmp(name, "status") != 0) return usage("%s: --json goes with status", name);
    if (!lab_place_find(lab.options.name, &lab.place)) return LAB_FAILED;
    put_rackfish_into_path(&lab.place);
    for (unsigned i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, name) == 0) return commands[i].run(&lab);
    }
    return usage("no command \"%s\"", name);
}
