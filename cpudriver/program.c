#include "cpudriver/program.h"

#include "base/os.h"
#include "wire/wire.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define HEAD_BYTES   4096
#define PATH_DEFAULT "/usr/local/bin:/usr/bin:/bin"
#define PATH_BYTES   (PATH_MAX + NAME_MAX + 2)

/* What root in a domain may still do: own files and users, as root expects; nothing to the host itself. */
#define CAPABILITY(n) (1ull << (n))
#define ROOT_KEEPS                                                                                           \
    (CAPABILITY(CAP_CHOWN) | CAPABILITY(CAP_DAC_OVERRIDE) | CAPABILITY(CAP_FOWNER) |                         \
     CAPABILITY(CAP_FSETID) | CAPABILITY(CAP_KILL) | CAPABILITY(CAP_SETGID) | CAPABILITY(CAP_SETUID))

static _Noreturn void fail(const rf_program_t *program, rf_err_t err, int os_errno, const char *what,
                           const char *on)
{
    rf_init_report_t report = {.kind = RF_INIT_FAILED, .err = err, .os_errno = (uint32_t)os_errno};
    snprintf(report.what, sizeof report.what, "%s%s%s", what, *on ? " " : "", on);
    rf_write_all(program->failure, &report, sizeof report);
    _exit(127);
}

int rf_privileges_drop(uint64_t keep)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0) return errno;
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    for (unsigned i = 0; i < 2; i++) {
        data[i].permitted &= (uint32_t)(keep >> (32 * i));
        data[i].effective = data[i].permitted;
        data[i].inheritable = 0;
    }
    return syscall(SYS_capset, &header, data) < 0 ? errno : 0;
}

static void take_limits(const rf_program_t *program)
{
    for (int i = 0; i < RF_SPAWN_LIMITS && i < (int)RLIM_NLIMITS; i++) {
        struct rlimit now;
        if (getrlimit(i, &now) < 0) continue;
        if (program->spawn->flags & RF_SPAWN_LIMITS_SET) {
            /* Lowered only: what the host gave its machine is the ceiling. */
            if (program->spawn->limits[i][1] < now.rlim_max) now.rlim_max = program->spawn->limits[i][1];
            now.rlim_cur =
                program->spawn->limits[i][0] < now.rlim_max ? program->spawn->limits[i][0] : now.rlim_max;
        } else if (i == RLIMIT_NOFILE && program->nofile_soft < now.rlim_max) {
            now.rlim_cur = program->nofile_soft;
        }
        setrlimit(i, &now);
    }
}

static void become_user(const rf_program_t *program)
{
    if (program->gid != getgid() || program->gid != getegid()) {
        if (setresgid(program->gid, program->gid, program->gid) < 0)
            fail(program, RF_ERR_PERMISSION, errno, "setgid", "");
    }
    if (program->uid != getuid() || program->uid != geteuid()) {
        if (setresuid(program->uid, program->uid, program->uid) < 0)
            fail(program, RF_ERR_PERMISSION, errno, "setuid", "");
    }
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) fail(program, RF_ERR_OS, errno, "no_new_privs", "");
    int err = rf_privileges_drop(program->uid == 0 ? ROOT_KEEPS : 0);
    if (err != 0) fail(program, RF_ERR_OS, err, "capabilities", "");
}

static void take_terminal(const rf_program_t *program)
{
    if (program->spawn->flags & RF_SPAWN_TTY) {
        if (setsid() < 0 || ioctl(0, TIOCSCTTY, 0) < 0) fail(program, RF_ERR_OS, errno, "terminal", "");
    } else if (setpgid(0, 0) < 0) {
        /* A group of its own in rf-init's session: not an orphaned one, so stopping it works. */
        fail(program, RF_ERR_OS, errno, "process group", "");
    }
}

bool rf_program_interpreter(const void *head, size_t size, char *out, size_t max)
{
    const char *text = head;
    if (size >= 3 && text[0] == '#' && text[1] == '!') {
        size_t from = 2, to;
        while (from < size && (text[from] == ' ' || text[from] == '\t')) from++;
        for (to = from; to < size && text[to] && !strchr(" \t\r\n", text[to]);) to++;
        if (to == from) return false;
        snprintf(out, max, "%.*s", (int)(to - from), text + from);
        return true;
    }
    Elf64_Ehdr elf;
    if (size < sizeof elf) return false;
    memcpy(&elf, head, sizeof elf);
    if (memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0 || elf.e_ident[EI_CLASS] != ELFCLASS64 ||
        elf.e_phentsize != sizeof(Elf64_Phdr))
        return false;
    for (unsigned i = 0; i < elf.e_phnum; i++) {
        Elf64_Phdr part;
        if (elf.e_phoff > size || size - elf.e_phoff < (uint64_t)(i + 1) * sizeof part) return false;
        memcpy(&part, text + elf.e_phoff + i * sizeof part, sizeof part);
        if (part.p_type != PT_INTERP) continue;
        if (part.p_offset >= size || part.p_filesz == 0 || part.p_filesz > size - part.p_offset) return false;
        snprintf(out, max, "%.*s", (int)part.p_filesz, text + part.p_offset);
        return true;
    }
    return false;
}

/* An exec said ENOENT: which file is it that is missing? */
static _Noreturn void fail_exec(const rf_program_t *program, int fd, const char *path, int os_errno)
{
    char head[HEAD_BYTES], interpreter[PATH_MAX];
    int file = fd >= 0 ? fd : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (os_errno == ENOENT && file >= 0 && fstat(file, &st) == 0 && S_ISREG(st.st_mode)) {
        ssize_t got = pread(file, head, sizeof head, 0);
        if (got > 0 && rf_program_interpreter(head, (size_t)got, interpreter, sizeof interpreter))
            fail(program, RF_ERR_EXEC, os_errno, "interpreter", interpreter);
    }
    fail(program, RF_ERR_EXEC, os_errno, "exec", program->spawn->executable);
}

/* As a shell would: a file without a magic number is a script. */
static void run_path(const rf_program_t *program, const char *path)
{
    char *const *argv = (char *const *)(uintptr_t)program->spawn->argv;
    char *const *env = (char *const *)(uintptr_t)program->env;
    execve(path, argv, env);
    if (errno != ENOEXEC) return;
    static char *shell_argv[RF_SPAWN_ARGS_MAX + 3];
    shell_argv[0] = argv[0];
    shell_argv[1] = (char *)(uintptr_t)path;
    for (uint32_t i = 1; i <= program->spawn->n_args; i++) shell_argv[i + 1] = argv[i];
    execve("/bin/sh", shell_argv, env);
    errno = ENOEXEC;
}

static const char *search_path(const rf_program_t *program)
{
    for (const char **entry = program->env; *entry; entry++) {
        if (strncmp(*entry, "PATH=", 5) == 0) return *entry + 5;
    }
    return PATH_DEFAULT;
}

static _Noreturn void run_by_path(const rf_program_t *program)
{
    static char path[PATH_BYTES];
    const char *name = program->spawn->executable;
    int os_errno = ENOENT;
    if (strchr(name, '/')) {
        run_path(program, name);
        fail_exec(program, -1, name, errno);
    }
    for (const char *folder = search_path(program); *name && folder;) {
        const char *end = strchrnul(folder, ':');
        int length = snprintf(path, sizeof path, "%.*s%s%s", (int)(end - folder), folder,
                              end > folder ? "/" : "", name);
        if (length > 0 && (size_t)length < sizeof path) {
            run_path(program, path);
            if (errno == ENOENT && access(path, F_OK) == 0)
                fail_exec(program, -1, path, ENOENT); /* it is there, but what it needs is not */
            if (errno != ENOENT && errno != ENOTDIR) os_errno = errno;
        }
        folder = *end ? end + 1 : NULL;
    }
    fail(program, RF_ERR_EXEC, os_errno, "exec", name);
}

static _Noreturn void run_descriptor(const rf_program_t *program)
{
    char magic[2] = {0};
    /* A script's interpreter opens it again by number, so then the descriptor stays open in the program. */
    if (pread(program->executable, magic, sizeof magic, 0) != sizeof magic || memcmp(magic, "#!", 2) != 0)
        fcntl(program->executable, F_SETFD, FD_CLOEXEC);
    syscall(SYS_execveat, program->executable, "", program->spawn->argv, program->env, AT_EMPTY_PATH);
    fail_exec(program, program->executable, "", errno);
}

_Noreturn void rf_program_exec(const rf_program_t *program)
{
    take_terminal(program);
    become_user(program);
    umask((mode_t)program->spawn->umask);
    const char *cwd = program->spawn->cwd[0] ? program->spawn->cwd : "/";
    if (chdir(cwd) < 0) fail(program, RF_ERR_OS, errno, "chdir", cwd);
    take_limits(program);
    if (program->executable >= 0) run_descriptor(program);
    run_by_path(program);
}
