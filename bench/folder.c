#include "folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FOLDERS      "/tmp"
#define FOLDER_AGE_S 60
#define FOLDERS_DEEP 8

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st, (void)type, (void)at;
    return remove(path);
}

static void remove_all(const char *path)
{
    nftw(path, remove_one, FOLDERS_DEEP, FTW_DEPTH | FTW_PHYS);
}

/* Locks a folder of ours that nobody else can change; -1: it is another's, or a run has it that lives. */
static int take(const char *path, struct stat *st)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) return -1;
    if (fstat(fd, st) == 0 && st->st_uid == geteuid() && (st->st_mode & 077) == 0 &&
        flock(fd, LOCK_EX | LOCK_NB) == 0)
        return fd;
    close(fd);
    return -1;
}

/* What runs that were killed have left. One that has just been made may not be locked yet. */
static void sweep(const char *name)
{
    DIR *all = opendir(FOLDERS);
    for (struct dirent *entry; all && (entry = readdir(all));) {
        char path[sizeof FOLDERS + sizeof entry->d_name];
        struct stat st;
        if (strncmp(entry->d_name, name, strlen(name)) != 0) continue;
        snprintf(path, sizeof path, FOLDERS "/%s", entry->d_name);
        int fd = take(path, &st);
        if (fd < 0) continue;
        if (time(NULL) - st.st_mtime > FOLDER_AGE_S) remove_all(path);
        close(fd);
    }
    if (all) closedir(all);
}

bool bench_folder_make(bench_folder_t *folder, const char *name)
{
    struct stat st;
    sweep(name);
    snprintf(folder->path, sizeof folder->path, FOLDERS "/%sXXXXXX", name);
    if (!mkdtemp(folder->path)) {
        fprintf(stderr, "rf-bench: no folder in " FOLDERS ": %s\n", strerror(errno));
        folder->path[0] = 0;
        return false;
    }
    folder->lock = take(folder->path, &st);
    if (folder->lock >= 0) return true;
    fprintf(stderr, "rf-bench: %s cannot be locked: %s\n", folder->path, strerror(errno));
    rmdir(folder->path);
    folder->path[0] = 0;
    return false;
}

void bench_folder_remove(bench_folder_t *folder)
{
    if (!folder->path[0]) return;
    remove_all(folder->path);
    close(folder->lock);
    folder->path[0] = 0;
}
