#include "lab/exec.h"
#include "lab/lab.h"

#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/close_range.h>

#define FD_LINE  9
#define FD_CABLE 10 /* and one more for each other guest */
#define FD_END   (FD_CABLE + LAB_HOSTS_MAX + 1)

#define HOST_TEXT_MAX 1100 /* a path and a name */

#define ARGUMENTS_MAX 64

typedef struct arguments {
    char text[8192];
    size_t used, n;
    char *words[ARGUMENTS_MAX];
} arguments_t;

static void add(arguments_t *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(arguments_t *a, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    char *at = a->text + a->used;
    int n = vsnprintf(at, sizeof a->text - a->used, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof a->text - a->used || a->n + 1 >= ARGUMENTS_MAX) _exit(125);
    a->used += (size_t)n + 1;
    a->words[a->n++] = at;
}

static void take_fd(int from, int to)
{
    if (from == to)
        fcntl(to, F_SETFD, 0);
    else
        dup2(from, to);
}

/* Line, console and cables at the numbers that the command line names, and no other descriptor. */
static void arrange_fds(const lab_guest_plan_t *plan)
{
    /* First above all the numbers that are wanted, so that none is overwritten. */
    int line = fcntl(plan->line, F_DUPFD, FD_END), log = fcntl(plan->log, F_DUPFD, FD_END);
    int cable[LAB_HOSTS_MAX + 1];
    for (unsigned g = 1; g <= plan->hosts; g++)
        cable[g] = plan->cable[g] < 0 ? -1 : fcntl(plan->cable[g], F_DUPFD, FD_END);
    take_fd(log, STDOUT_FILENO);
    take_fd(log, STDERR_FILENO);
    take_fd(open("/dev/null", O_RDONLY), STDIN_FILENO);
    close_range(STDERR_FILENO + 1, FD_END - 1, 0);
    take_fd(line, FD_LINE);
    for (unsigned g = 1; g <= plan->hosts; g++) {
        if (cable[g] >= 0) take_fd(cable[g], FD_CABLE + (int)g);
    }
    close_range(FD_END, ~0u, 0);
}

/* What guest-init.sh is told. */
static void add_words(arguments_t *a, const lab_guest_plan_t *plan)
{
    add(a, "lab_lib=%s", plan->lib);
    add(a, "lab_guest=%u", plan->guest);
    add(a, "lab_hosts=%u", plan->hosts);
    add(a, "lab_device=%s", plan->device);
    add(a, "lab_mtu=%u", plan->mtu);
}

static void unblock_signals(void)
{
    sigset_t empty;
    sigemptyset(&empty);
    sigprocmask(SIG_SETMASK, &empty, NULL);
}

_Noreturn static void become(const lab_guest_plan_t *plan, const char *program, arguments_t *a)
{
    static char tmpdir[] = "TMPDIR=/dev/shm", path[] = "PATH=/usr/sbin:/usr/bin:/sbin:/bin";
    char *environment[] = {tmpdir, path, NULL};
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    unblock_signals();
    execvpe(program, a->words, environment);
    dprintf(STDOUT_FILENO, "lab: cannot start %s for guest %u: %s\n", program, plan->guest, strerror(errno));
    _exit(127);
}

_Noreturn static void become_kernel(const lab_guest_plan_t *plan)
{
    static arguments_t a;
    arrange_fds(plan);
    add(&a, "linux");
    add(&a, "mem=%uM", plan->memory_mib);
    add(&a, "root=/dev/root");
    add(&a, "rootfstype=hostfs");
    add(&a, "rootflags=/");
    add(&a, "ro");
    add(&a, "con=null");
    add(&a, "con0=null,fd:1");
    add(&a, "con1=null");
    add(&a, "ssl=null");
    add(&a, "ssl0=fd:%d", FD_LINE);
    add(&a, "quiet");
    add(&a, "panic=-1");
    add(&a, "uml_dir=%s", LAB_UML_FOLDER);
    add(&a, "umid=lab%u", plan->guest);
    for (unsigned g = 1; g <= plan->hosts; g++) {
        if (plan->cable[g] < 0) continue;
        add(&a, "vec%u:transport=fd,fd=%d,mac=02:52:46:00:%02x:%02x,mtu=%u,depth=64", g, FD_CABLE + (int)g, g,
            plan->guest, plan->mtu);
    }
    add(&a, "init=%s/guest-init.sh", plan->lib);
    add_words(&a, plan);
    become(plan, plan->kernel, &a);
}

/* Debian's kernel in QEMU, in software: its files by 9p, its cables as virtio network devices, its line as a virtio port. */
_Noreturn static void become_emulator(const lab_guest_plan_t *plan)
{
    static arguments_t a, kernel;
    arrange_fds(plan);
    add(&a, "qemu-system-x86_64");
    add(&a, "-nodefaults");
    add(&a, "-no-user-config");
    add(&a, "-no-reboot");
    add(&a, "-display");
    add(&a, "none");
    add(&a, "-machine");
    add(&a, "q35");
    add(&a, "-accel");
    add(&a, "tcg,thread=single");
    add(&a, "-cpu");
    add(&a, "max");
    add(&a, "-smp");
    add(&a, "1");
    add(&a, "-m");
    add(&a, "%u", plan->memory_mib);
    add(&a, "-kernel");
    add(&a, "%s/kernel", plan->kernel);
    add(&a, "-initrd");
    add(&a, "%s/initrd", plan->kernel);
    add(&a, "-serial");
    add(&a, "stdio");
    add(&a, "-device");
    add(&a, "virtio-serial-pci");
    add(&a, "-chardev");
    add(&a, "socket,id=line,fd=%d", FD_LINE);
    add(&a, "-device");
    add(&a, "virtserialport,chardev=line,name=line");
    add(&a, "-fsdev");
    add(&a, "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap");
    add(&a, "-device");
    add(&a, "virtio-9p-pci,fsdev=root,mount_tag=root");
    for (unsigned g = 1; g <= plan->hosts; g++) {
        if (plan->cable[g] < 0) continue;
        add(&a, "-netdev");
        add(&a, "dgram,id=cable%u,local.type=fd,local.str=%d", g, FD_CABLE + (int)g);
        add(&a, "-device");
        add(&a, "virtio-net-pci,netdev=cable%u,mac=02:52:46:00:%02x:%02x,host_mtu=%u", g, g, plan->guest,
            plan->mtu);
    }
    add(&kernel, "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off random.trust_cpu=on");
    add(&kernel, "lab_line=/dev/vport0p1");
    add_words(&kernel, plan);
    for (size_t i = 0; i + 1 < kernel.n; i++) kernel.words[i][strlen(kernel.words[i])] = ' ';
    add(&a, "-append");
    add(&a, "%s", kernel.text);
    become(plan, a.words[0], &a);
}

_Noreturn static void become_host(const lab_guest_plan_t *plan)
{
    static arguments_t a;
    static char environment_text[5][HOST_TEXT_MAX];
    char *environment[6] = {0};
    int line = fcntl(plan->line, F_DUPFD, FD_END), log = fcntl(plan->log, F_DUPFD, FD_END);
    int null = open("/dev/null", O_RDONLY);
    take_fd(null, STDIN_FILENO);
    take_fd(log, STDOUT_FILENO);
    take_fd(log, STDERR_FILENO);
    take_fd(line, FD_LINE);
    close_range(FD_LINE + 1, ~0u, 0);
    add(&a, "sh");
    add(&a, "%s/host-init.sh", plan->lib);
    snprintf(environment_text[0], HOST_TEXT_MAX, "lab_guest=%u", plan->guest);
    snprintf(environment_text[1], HOST_TEXT_MAX, "lab_hosts=%u", plan->hosts);
    snprintf(environment_text[2], HOST_TEXT_MAX, "lab_mtu=%u", plan->mtu);
    snprintf(environment_text[3], HOST_TEXT_MAX, "lab_lib=%s", plan->lib);
    snprintf(environment_text[4], HOST_TEXT_MAX, "PATH=/usr/sbin:/usr/bin:/sbin:/bin");
    for (unsigned i = 0; i < 5; i++) environment[i] = environment_text[i];
    unblock_signals();
    execve("/bin/sh", a.words, environment);
    _exit(127);
}

void lab_exec(const lab_guest_plan_t *plan)
{
    struct stat stat_of;
    if (!plan->kernel) become_host(plan);
    if (stat(plan->kernel, &stat_of) == 0 && S_ISDIR(stat_of.st_mode)) become_emulator(plan);
    become_kernel(plan);
}
