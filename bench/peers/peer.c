#include "peer.h"

#include "base/clock.h"

#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORTS_MAX 16

bool peer_parse(int argc, char **argv, peer_options_t *out)
{
    static const struct option options[] = {
        {"outstanding", required_argument, NULL, 'o'}, {"batch", required_argument, NULL, 'b'},
        {"bytes", required_argument, NULL, 's'},       {"samples", required_argument, NULL, 'n'},
        {"cores", required_argument, NULL, 'c'},       {NULL, 0, NULL, 0}};
    *out = (peer_options_t){.outstanding = 1, .batch = 1, .bytes = 64, .samples = 1000, .cores = {0, 1}};
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        char *end = optarg;
        unsigned long value = option == '?' ? 0 : strtoul(optarg, &end, 10);
        if (option == 'c' && *end == ',') {
            out->cores[0] = (unsigned)value;
            out->cores[1] = (unsigned)strtoul(end + 1, &end, 10);
        }
        if (option == '?' || *end != 0) {
            fprintf(stderr, "usage: %s --outstanding N --batch N --bytes N --samples N --cores A,B\n",
                    argv[0]);
            return false;
        }
        if (option == 'o') out->outstanding = (unsigned)value;
        if (option == 'b') out->batch = (unsigned)value;
        if (option == 's') out->bytes = value;
        if (option == 'n') out->samples = (unsigned)value;
    }
    return out->outstanding > 0 && out->batch > 0 && out->batch <= out->outstanding && out->bytes >= 16;
}

bool peer_answered(peer_meter_t *m, uint64_t asked_ns)
{
    uint64_t now_ns = rf_clock_ns();
    m->answered++;
    if (m->options->outstanding == 1) {
        if (m->answered > PEER_WARM_UP) {
            printf("%.3f\n", (double)(now_ns - asked_ns) / 1000);
            m->printed++;
        }
    } else if (m->answered == m->begun + PEER_CHUNK) {
        if (m->begun > 0) {
            printf("%.6f\n", PEER_CHUNK * 1000.0 / (double)(now_ns - m->begun_ns));
            m->printed++;
        }
        m->begun = m->answered;
        m->begun_ns = now_ns;
    }
    if (m->printed < m->options->samples) return false;
    fflush(stdout);
    return true;
}

bool peer_folder_make(char *out, size_t max)
{
    int n = snprintf(out, max, "/dev/shm/rf-peer-XXXXXX");
    if (n > 0 && (size_t)n < max && mkdtemp(out)) return true;
    fprintf(stderr, "no folder in /dev/shm: %s\n", strerror(errno));
    return false;
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
    (void)s, (void)type, (void)ftw;
    return remove(path);
}

void peer_folder_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

bool peer_ports(uint16_t *out, unsigned n)
{
    int sockets[PORTS_MAX];
    unsigned have = 0;
    while (have < n && have < PORTS_MAX) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof a;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0) break;
        sockets[have] = fd;
        if (bind(fd, (struct sockaddr *)&a, size) != 0 ||
            getsockname(fd, (struct sockaddr *)&a, &size) != 0) {
            close(fd);
            break;
        }
        out[have++] = ntohs(a.sin_port);
    }
    for (unsigned i = 0; i < have; i++) close(sockets[i]);
    return have == n;
}
