#include "cli/ustar.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 512

typedef struct ustar_header {
    char name[100], mode[8], uid[8], gid[8], size[12], mtime[12], checksum[8], type, link[100], magic[6],
        version[2], user[32], group[32], major[8], minor[8], prefix[155], pad[12];
} ustar_header_t;
_Static_assert(sizeof(ustar_header_t) == BLOCK, "POSIX.1-1988, 10.1.1");

static void put(ustar_t *tar, const void *bytes, size_t size)
{
    const char *at = bytes;
    while (size > 0 && !tar->failed) {
        ssize_t n = write(tar->fd, at, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            tar->failed = true;
            tar->error = errno;
            return;
        }
        at += n;
        size -= (size_t)n;
    }
}

static void make_header(const ustar_t *tar, ustar_header_t *h)
{
    memset(h, 0, sizeof *h);
    /* A long path is split at a slash: at most 155 bytes before, 100 behind. */
    size_t length = strlen(tar->path), split = 0;
    if (length > sizeof h->name) {
        split = length - sizeof h->name - 1;
        while (split < length && tar->path[split] != '/') split++;
        memcpy(h->prefix, tar->path, split < sizeof h->prefix ? split : sizeof h->prefix);
        split++;
    }
    size_t left = length - split;
    memcpy(h->name, tar->path + split, left < sizeof h->name ? left : sizeof h->name);
    snprintf(h->mode, sizeof h->mode, "%07o", 0600);
    snprintf(h->uid, sizeof h->uid, "%07o", 0);
    snprintf(h->gid, sizeof h->gid, "%07o", 0);
    snprintf(h->size, sizeof h->size, "%011llo", (unsigned long long)tar->size);
    snprintf(h->mtime, sizeof h->mtime, "%011llo", (unsigned long long)tar->mtime);
    h->type = '0';
    memcpy(h->magic, "ustar", 6);
    memcpy(h->version, "00", 2);
    memset(h->checksum, ' ', sizeof h->checksum);
    unsigned sum = 0;
    for (size_t i = 0; i < sizeof *h; i++) sum += ((const unsigned char *)h)[i];
    snprintf(h->checksum, sizeof h->checksum, "%06o", sum & 0777777);
}

static void end_member(ustar_t *tar)
{
    static const char zeros[BLOCK];
    ustar_header_t header;
    if (tar->header_at < 0) return;
    if (tar->size % BLOCK) put(tar, zeros, BLOCK - tar->size % BLOCK);
    make_header(tar, &header);
    if (!tar->failed && pwrite(tar->fd, &header, sizeof header, tar->header_at) != (ssize_t)sizeof header) {
        tar->failed = true;
        tar->error = errno;
    }
    tar->header_at = -1;
}

void ustar_start(ustar_t *tar, int fd)
{
    *tar = (ustar_t){.fd = fd, .header_at = -1, .mtime = (int64_t)time(NULL)};
}

static bool path_is_plain(const char *path)
{
    if (!*path) return false;
    for (const char *part = path; *part;) {
        size_t n = strcspn(part, "/");
        if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.'))
            return false;
        part += n;
        if (*part == '/' && !*++part) return false;
    }
    return true;
}

bool ustar_member(ustar_t *tar, const char *path)
{
    ustar_header_t header;
    const char *last = strrchr(path, '/');
    size_t length = strlen(path), name = last ? strlen(last + 1) : length;
    if (!path_is_plain(path) || length >= sizeof tar->path - 1 || name > 99 ||
        (length > 100 && length - name > 150))
        return false;
    end_member(tar);
    tar->header_at = lseek(tar->fd, 0, SEEK_CUR);
    tar->size = 0;
    snprintf(tar->path, sizeof tar->path, "%s", path);
    make_header(tar, &header);
    put(tar, &header, sizeof header);
    return true;
}

void ustar_write(ustar_t *tar, const void *bytes, size_t size)
{
    if (tar->header_at < 0) return;
    put(tar, bytes, size);
    tar->size += size;
}

bool ustar_finish(ustar_t *tar)
{
    static const char zeros[2 * BLOCK];
    end_member(tar);
    put(tar, zeros, sizeof zeros);
    errno = tar->error;
    return !tar->failed;
}
