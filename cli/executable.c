#include "cli/executable.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

int executable_hash(executable_file_t *file)
{
    int fd = open(file->path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    gnutls_hash_hd_t hash;
    if (fd < 0) return -1;
    if (fstat(fd, &st) < 0 || gnutls_hash_init(&hash, GNUTLS_DIG_SHA256) < 0) {
        close(fd);
        errno = EIO;
        return -1;
    }
    static uint8_t chunk[256 << 10];
    uint64_t size = 0;
    ssize_t n;
    while ((n = read(fd, chunk, sizeof chunk)) > 0) {
        gnutls_hash(hash, chunk, (size_t)n);
        size += (uint64_t)n;
    }
    int saved = errno;
    gnutls_hash_deinit(hash, file->sha256);
    close(fd);
    if (n < 0) {
        errno = saved;
        return -1;
    }
    file->size = size;
    file->mode = st.st_mode & 07777;
    file->known = true;
    return 0;
}

/* Looks `program` up as execvp does; false when no folder of the path has it as an executable file. */
static bool search(const char *program, const char *search_path, char *out, size_t max)
{
    for (const char *p = search_path; p && *p;) {
        size_t n = strcspn(p, ":");
        struct stat st;
        int k = n ? snprintf(out, max, "%.*s/%s", (int)n, p, program) : snprintf(out, max, "./%s", program);
        if (k > 0 && (size_t)k < max && stat(out, &st) == 0 && S_ISREG(st.st_mode) && access(out, X_OK) == 0)
            return true;
        p += n + (p[n] == ':');
    }
    return false;
}

int executable_find(const cli_t *cli, const char *program, const char *search_path, executable_file_t *out)
{
    char found[CLI_PATH_MAX];
    *out = (executable_file_t){.known = false};
    if (!*program) {
        cli_error(cli, "the program's name is empty");
        return CLI_RUN_NOT_FOUND;
    }
    if (!strchr(program, '/')) {
        if (!search(program, search_path, found, sizeof found)) {
            snprintf(out->path, sizeof out->path, "%s", program);
            return CLI_OK;
        }
    } else if (snprintf(found, sizeof found, "%s", program) >= (int)sizeof found) {
        cli_error(cli, "the program's path is too long");
        return CLI_RUN_NOT_FOUND;
    }
    char *absolute = realpath(found, NULL);
    if (!absolute) {
        if (errno != ENOENT && errno != ENOTDIR) {
            cli_error(cli, "%s: %s", found, strerror(errno));
            return errno == EACCES ? CLI_RUN_NOT_EXECUTABLE : CLI_RUN_NOT_FOUND;
        }
        snprintf(out->path, sizeof out->path, "%s", found);
        return CLI_OK;
    }
    /* The name it was called by decides what a multi-call program does and where a script finds itself: keep the last
     * part, resolve only the folder. */
    free(absolute);
    const char *slash = strrchr(found, '/');
    snprintf(out->path, sizeof out->path, "%.*s", (int)(slash - found + (slash == found)), found);
    char *folder = realpath(out->path, NULL);
    int k = folder
                ? snprintf(out->path, sizeof out->path, "%s/%s", strcmp(folder, "/") ? folder : "", slash + 1)
                : -1;
    free(folder);
    if (k < 0 || (size_t)k >= sizeof out->path) {
        cli_error(cli, "%s: the path is too long", found);
        return CLI_RUN_NOT_FOUND;
    }
    struct stat st;
    if (stat(out->path, &st) < 0 || !S_ISREG(st.st_mode) || access(out->path, X_OK) < 0) {
        cli_error(cli, "%s: %s", program,
                  S_ISDIR(st.st_mode) ? "is a directory" : "is not an executable file");
        return CLI_RUN_NOT_EXECUTABLE;
    }
    /* Executable but not readable: it runs where it is, and cannot be shipped. */
    if (executable_hash(out) < 0 && errno != EACCES && errno != EPERM) {
        cli_error(cli, "cannot read %s: %s", out->path, strerror(errno));
        return CLI_RUN_FAILED;
    }
    return CLI_OK;
}

int executable_libraries(const cli_t *cli, const char *path, executable_file_t *out, size_t max, size_t *n)
{
    int pipe_fds[2];
    *n = 0;
    if (pipe2(pipe_fds, O_CLOEXEC) < 0) return cli_error(cli, "pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child == 0) {
        int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(null_fd, STDIN_FILENO);
        dup2(pipe_fds[1], STDOUT_FILENO);
        dup2(null_fd, STDERR_FILENO);
        execlp("ldd", "ldd", path, (char *)NULL);
        _exit(127);
    }
    close(pipe_fds[1]);
    FILE *in = fdopen(pipe_fds[0], "r");
    char line[CLI_PATH_MAX + 256];
    int status = CLI_OK;
    while (in && status == CLI_OK && fgets(line, sizeof line, in)) {
        /* "\tlibc.so.6 => /lib/.../libc.so.6 (0x...)" or "\t/lib64/ld-linux-x86-64.so.2 (0x...)" */
        char *arrow = strstr(line, "=> "), *start = arrow ? arrow + 3 : line + strspn(line, " \t");
        if (arrow && strncmp(start, "not found", 9) == 0) {
            *arrow = '\0';
            status = cli_error(cli, "%s needs the library %s, which this host lacks", path,
                               line + strspn(line, " \t"));
            break;
        }
        if (*start != '/') continue;
        char *end = strstr(start, " (");
        if (!end) continue;
        *end = '\0';
        if (*n == max) {
            status = cli_error(cli, "%s needs more than %zu libraries; build it with fewer", path, max);
            break;
        }
        executable_file_t *file = &out[*n];
        *file = (executable_file_t){.known = false};
        snprintf(file->path, sizeof file->path, "%s", start);
        if (executable_hash(file) < 0) {
            status = cli_error(cli, "cannot read %s: %s", file->path, strerror(errno));
            break;
        }
        (*n)++;
    }
    if (in)
        fclose(in);
    else
        close(pipe_fds[0]);
    int exit_status = 0;
    if (child > 0) waitpid(child, &exit_status, 0);
    if (status == CLI_OK && WIFEXITED(exit_status) && WEXITSTATUS(exit_status) == 127)
        return cli_error(cli, "--with-libs needs the program ldd, which is not installed");
    return status;
}
