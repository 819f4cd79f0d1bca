#include "node/ship.h"

#include "base/log.h"
#include "base/os.h"
#include "base/prng.h"
#include "node/monitors.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <gnutls/crypto.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define HASH_PIECE   (1u << 20) /* a turn of the loop */
#define KNOWN_HASHES 64

typedef struct ship_file {
    const char *path;
    const uint8_t *sha256;
    uint64_t size;
    bool needed;
} ship_file_t;

struct rf_ship {
    rf_garbage_t garbage;
    rf_daemon_t *daemon;
    rf_ship_done_fn done;
    rf_ship_need_fn need;
    void *context;
    uid_t uid;
    gid_t gid;
    bool over;                                /* `done` was called */
    ship_file_t files[RF_SHIP_FILES_MAX + 1]; /* the executable first */
    unsigned n_files, at;                     /* at: being compared, then being received */
    bool receiving;
    rf_timer_t timer;
    int fd; /* being compared or received */
    struct stat stat;
    uint64_t got;
    gnutls_hash_hd_t hash;
    int executable_fd;
    char folder[RF_PATH_MAX + 32];
    char why[512];
};

/* Hashes of files that were compared lately, so that running the same program again costs nothing. */
static struct known_hash {
    dev_t dev;
    ino_t ino;
    off_t size;
    struct timespec mtime, ctime;
    uint8_t sha256[32];
} known[KNOWN_HASHES];
static unsigned known_next;

static struct known_hash *find_known(const struct stat *st)
{
    for (unsigned i = 0; i < KNOWN_HASHES; i++) {
        struct known_hash *k = &known[i];
        if (k->ino == st->st_ino && k->dev == st->st_dev && k->size == st->st_size && k->ino != 0 &&
            memcmp(&k->mtime, &st->st_mtim, sizeof k->mtime) == 0 &&
            memcmp(&k->ctime, &st->st_ctim, sizeof k->ctime) == 0)
            return k;
    }
    return NULL;
}

static void remember(const struct stat *st, const uint8_t sha256[32])
{
    struct known_hash *k = &known[known_next++ % KNOWN_HASHES];
    *k = (struct known_hash){.dev = st->st_dev,
                             .ino = st->st_ino,
                             .size = st->st_size,
                             .mtime = st->st_mtim,
                             .ctime = st->st_ctim};
    memcpy(k->sha256, sha256, sizeof k->sha256);
}

static void finish(rf_ship_t *ship, rf_err_t err)
{
    ship->over = true;
    rf_timer_clear(&ship->timer);
    ship->done(ship->context, err, ship->why);
}

static void drop_current(rf_ship_t *ship)
{
    if (ship->hash) gnutls_hash_deinit(ship->hash, NULL);
    ship->hash = NULL;
    if (ship->fd >= 0) close(ship->fd);
    ship->fd = -1;
}

/* ---- comparing with this host's files ---- */

static void ask_for_needed(rf_ship_t *ship)
{
    char *paths[RF_SHIP_FILES_MAX + 1];
    size_t n = 0;
    for (unsigned i = 0; i < ship->n_files; i++) {
        if (ship->files[i].needed) paths[n++] = (char *)(uintptr_t)ship->files[i].path;
    }
    ship->receiving = true;
    ship->at = 0;
    if (n == 0)
        finish(ship, RF_OK);
    else
        ship->need(ship->context, paths, n);
}

/* A regular file of that size, opened without touching anything else that may be there. */
static int open_same_size(const ship_file_t *file, struct stat *st)
{
    char path[32];
    int handle = open(file->path, O_PATH | O_CLOEXEC);
    if (handle < 0) return -1;
    int fd = -1;
    if (fstat(handle, st) == 0 && S_ISREG(st->st_mode) && (uint64_t)st->st_size == file->size) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", handle);
        fd = open(path, O_RDONLY | O_CLOEXEC);
    }
    close(handle);
    return fd;
}

/* One piece of the file at hand; false: that file is decided. */
static bool compare_piece(rf_ship_t *ship)
{
    static uint8_t bytes[HASH_PIECE];
    ship_file_t *file = &ship->files[ship->at];
    if (ship->fd < 0) {
        ship->fd = open_same_size(file, &ship->stat);
        struct known_hash *k = ship->fd >= 0 ? find_known(&ship->stat) : NULL;
        file->needed = !k || memcmp(k->sha256, file->sha256, 32) != 0;
        if (ship->fd < 0 || k || gnutls_hash_init(&ship->hash, GNUTLS_DIG_SHA256) < 0) return false;
    }
    ssize_t n = read(ship->fd, bytes, sizeof bytes);
    if (n > 0) {
        gnutls_hash(ship->hash, bytes, (size_t)n);
        return true;
    }
    uint8_t sha256[32];
    gnutls_hash_output(ship->hash, sha256);
    if (n == 0) {
        remember(&ship->stat, sha256);
        file->needed = memcmp(sha256, file->sha256, sizeof sha256) != 0;
    }
    return false;
}

static void compare(void *context)
{
    rf_ship_t *ship = context;
    if (ship->at < ship->n_files && !compare_piece(ship)) {
        drop_current(ship);
        ship->at++;
    }
    if (ship->at == ship->n_files)
        ask_for_needed(ship);
    else
        rf_timer_set(&ship->daemon->loop, &ship->timer, 0, compare, ship);
}

/* ---- receiving ---- */

static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

static bool make_folder(rf_ship_t *ship)
{
    uint64_t number;
    if (ship->folder[0]) return true;
    rf_random_secret(&number, sizeof number);
    snprintf(ship->folder, sizeof ship->folder, "%s.lib-%016llx", ship->daemon->node_dir,
             (unsigned long long)number);
    if (mkdir(ship->folder, 0500) == 0 &&
        (!ship->daemon->privileged || chown(ship->folder, ship->uid, ship->gid) == 0))
        return true;
    snprintf(ship->why, sizeof ship->why, "cannot make a folder for libraries: %s", strerror(errno));
    rmdir(ship->folder);
    ship->folder[0] = 0;
    return false;
}

static bool open_received(rf_ship_t *ship, unsigned index)
{
    const ship_file_t *file = &ship->files[index];
    char path[sizeof ship->folder + 256];
    if (index == 0) {
        ship->fd = memfd_create("rackfish-executable", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    } else {
        if (!make_folder(ship)) return false;
        if (snprintf(path, sizeof path, "%s/%s", ship->folder, last_part(file->path)) >= (int)sizeof path) {
            snprintf(ship->why, sizeof ship->why, "the library's name is too long");
            return false;
        }
        if (!ship->daemon->privileged) chmod(ship->folder, 0700);
        ship->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0500);
        if (!ship->daemon->privileged) chmod(ship->folder, 0500);
    }
    ship->got = 0;
    if (ship->fd >= 0 && gnutls_hash_init(&ship->hash, GNUTLS_DIG_SHA256) == 0) return true;
    snprintf(ship->why, sizeof ship->why, "cannot receive %.300s: %s", file->path, strerror(errno));
    return false;
}

static bool close_received(rf_ship_t *ship, unsigned index)
{
    const ship_file_t *file = &ship->files[index];
    uint8_t sha256[32];
    gnutls_hash_output(ship->hash, sha256);
    if (ship->got != file->size || memcmp(sha256, file->sha256, sizeof sha256) != 0) {
        snprintf(ship->why, sizeof ship->why, "%.300s changed while it was sent; run it again", file->path);
        return false;
    }
    bool ok;
    if (index == 0) {
        /* Executing needs that nobody has it open for writing: sealed, then opened again read-only. */
        ok = fchmod(ship->fd, 0555) == 0 &&
             fcntl(ship->fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0 &&
             rf_memory_reopen_readonly(ship->fd, &ship->executable_fd) == RF_OK;
    } else {
        ok = fchmod(ship->fd, 0500) == 0 &&
             (!ship->daemon->privileged || fchown(ship->fd, ship->uid, ship->gid) == 0);
    }
    if (!ok) snprintf(ship->why, sizeof ship->why, "cannot keep %.300s: %s", file->path, strerror(errno));
    return ok;
}

void rf_ship_receive(rf_ship_t *ship, const Rackfish__RunExecutable *piece)
{
    if (ship->over) return;
    rf_err_t err = RF_ERR_PROTOCOL;
    while (ship->receiving && ship->at < ship->n_files && !ship->files[ship->at].needed) ship->at++;
    const ship_file_t *file = &ship->files[ship->at];
    if (!ship->receiving || ship->at == ship->n_files || strcmp(piece->path, file->path) != 0 ||
        piece->data.len > file->size - (ship->fd >= 0 ? ship->got : 0)) {
        snprintf(ship->why, sizeof ship->why,
                 "a file was sent that was not asked for, or more of it than it has");
        goto failed;
    }
    err = RF_ERR_OS;
    if (ship->fd < 0 && !open_received(ship, ship->at)) goto failed;
    gnutls_hash(ship->hash, piece->data.data, piece->data.len);
    ship->got += piece->data.len;
    if (rf_write_all(ship->fd, piece->data.data, piece->data.len) != RF_OK) {
        snprintf(ship->why, sizeof ship->why, "cannot write %.300s: %s", file->path, strerror(errno));
        goto failed;
    }
    if (!piece->end) return;
    if (!close_received(ship, ship->at)) goto failed;
    drop_current(ship);
    ship->files[ship->at].needed = false;
    while (ship->at < ship->n_files && !ship->files[ship->at].needed) ship->at++;
    if (ship->at == ship->n_files) finish(ship, RF_OK);
    return;

failed:
    drop_current(ship);
    finish(ship, err);
}

/* ---- start and end ---- */

static rf_err_t add_file(rf_ship_t *ship, const char *path, const ProtobufCBinaryData *sha256, uint64_t size)
{
    if (path[0] != '/' || sha256->len != 32 || size > RF_SHIP_BYTES_MAX || ship->n_files > RF_SHIP_FILES_MAX)
        return RF_ERR_INVALID;
    ship->files[ship->n_files++] = (ship_file_t){.path = path, .sha256 = sha256->data, .size = size};
    return RF_OK;
}

static void start_failed(void *context)
{
    rf_ship_t *ship = context;
    snprintf(ship->why, sizeof ship->why,
             "the executable or a library is not absolute, larger than %llu bytes, or one of more than %d",
             RF_SHIP_BYTES_MAX, RF_SHIP_FILES_MAX);
    finish(ship, RF_ERR_INVALID);
}

rf_err_t rf_ship_start(rf_daemon_t *daemon, const Rackfish__RunStart *start, const char *user,
                       rf_ship_done_fn done, rf_ship_need_fn need, void *context, rf_ship_t **out)
{
    rf_ship_t *ship = calloc(1, sizeof *ship);
    if (!ship) return RF_ERR_NO_MEMORY;
    ship->daemon = daemon;
    ship->done = done;
    ship->need = need;
    ship->context = context;
    ship->fd = ship->executable_fd = -1;
    const struct passwd *entry = daemon->privileged ? getpwnam(user) : NULL;
    ship->uid = entry ? entry->pw_uid : geteuid();
    ship->gid = entry ? entry->pw_gid : getegid();
    rf_err_t err = RF_OK;
    if (start->executable_sha256.len > 0) /* else the client wants what this host has there */
        err = add_file(ship, start->executable, &start->executable_sha256, start->executable_size);
    else
        ship->files[ship->n_files++] = (ship_file_t){.path = start->executable};
    for (size_t i = 0; err == RF_OK && start->with_libs && i < start->n_libraries; i++)
        err = add_file(ship, start->libraries[i]->path, &start->libraries[i]->sha256,
                       start->libraries[i]->size);
    ship->at = start->executable_sha256.len > 0 ? 0 : 1;
    rf_timer_set(&daemon->loop, &ship->timer, 0, err == RF_OK ? compare : start_failed, ship);
    *out = ship;
    return RF_OK;
}

int rf_ship_executable_fd(const rf_ship_t *ship)
{
    return ship ? ship->executable_fd : -1;
}

const char *rf_ship_library_folder(const rf_ship_t *ship)
{
    return ship && ship->folder[0] ? ship->folder : NULL;
}

static void remove_libraries(const char *path)
{
    chmod(path, 0700);
    DIR *folder = opendir(path);
    struct dirent *entry;
    while (folder && (entry = readdir(folder))) {
        if (entry->d_name[0] != '.' || (entry->d_name[1] && entry->d_name[1] != '.'))
            unlinkat(dirfd(folder), entry->d_name, 0);
    }
    if (folder) closedir(folder);
    if (rmdir(path) < 0) rf_log(RF_LOG_WARN, "cannot remove %s: %m", path);
}

void rf_ship_free(rf_ship_t *ship)
{
    if (!ship) return;
    rf_timer_clear(&ship->timer);
    drop_current(ship);
    if (ship->executable_fd >= 0) close(ship->executable_fd);
    if (ship->folder[0]) remove_libraries(ship->folder);
    rf_loop_free_later(&ship->daemon->loop, &ship->garbage);
}
