/* Where a lab and its parts are. */
#include "lab/lab.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int lab_error(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("rf-lab: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return LAB_FAILED;
}

bool lab_place_find(const char *name, lab_place_t *place)
{
    char base[LAB_PATH_MAX / 2], self[LAB_PATH_MAX / 2];
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    if (geteuid() == 0)
        snprintf(base, sizeof base, "/run/rackfish-lab");
    else if (runtime && *runtime == '/')
        snprintf(base, sizeof base, "%s/rackfish-lab", runtime);
    else
        snprintf(base, sizeof base, "/tmp/rackfish-lab-%u", (unsigned)geteuid());
    struct stat st;
    if ((mkdir(base, 0700) < 0 && errno != EEXIST) || lstat(base, &st) < 0 || !S_ISDIR(st.st_mode) ||
        st.st_uid != geteuid()) {
        lab_error("%s is not a folder of ours: %s", base, strerror(errno));
        return false;
    }
    snprintf(place->folder, sizeof place->folder, "%s/%s", base, name);
    snprintf(place->socket, sizeof place->socket, "%s/lab.sock", place->folder);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n <= 0) return false;
    self[n] = '\0';
    *strrchr(self, '/') = '\0';
    static const char *const folders[] = {"lab", "../lab"}; /* installed; in a build folder */
    for (unsigned i = 0; i < sizeof folders / sizeof folders[0]; i++) {
        char program[LAB_PATH_MAX], folder[LAB_PATH_MAX];
        snprintf(folder, sizeof folder, "%s/%s", self, folders[i]);
        snprintf(program, sizeof program, "%.900s/rf-lab-guest", folder);
        if (access(program, X_OK) == 0 && realpath(folder, place->lib)) return true;
    }
    lab_error("rf-lab-guest is neither in %s/lab nor in %s/../lab; is Rackfish installed whole?", self, self);
    return false;
}

bool lab_place_clear(const lab_place_t *place)
{
    char path[LAB_PATH_MAX + 32];
    for (unsigned g = 1; g <= LAB_HOSTS_MAX; g++) {
        snprintf(path, sizeof path, "%s/console-%u.log", place->folder, g);
        unlink(path);
    }
    snprintf(path, sizeof path, "%s/hosts", place->folder);
    unlink(path);
    unlink(place->socket);
    return rmdir(place->folder) == 0 || errno == ENOENT;
}
