#include "peer.h"

#include "base/clock.h"

#include <errno.h>
#include <ftw.h>
#include <getopt.h>
#include <glob.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORTS_MAX 16
#define FOLDERS   "/dev/shm/rf-peer-"

static void (*clean_up)(void);
static atomic_flag cleaning = ATOMIC_FLAG_INIT;

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
    if (m->answered++ == 0) m->first_ns = now_ns;
    if (m->options->outstanding == 1) {
        if (m->answered > PEER_WARM_UP) {
            printf("%.3f\n", (double)(now_ns - asked_ns) / 1000);
            m->printed++;
        }
    } else if (m->answered == m->begun + m->chunk) {
        if (m->begun > 0) {
            printf("%.6f\n", m->chunk * 1000.0 / (double)(now_ns - m->begun_ns));
            m->printed++;
        }
        m->begun = m->answered;
        m->begun_ns = now_ns;
    }
    bool late = now_ns - m->first_ns > PEER_SECONDS_MAX * RF_NS_PER_S && m->printed >= PEER_SAMPLES_MIN;
    if (m->printed < m->options->samples && !late) return false;
    fflush(stdout);
    return true;
}

static int remove_one(const char *path, const struct stat *s, int type, struct FTW *ftw)
{
    (void)s, (void)type, (void)ftw;
    remove(path);
    return 0; /* and on with the rest */
}

void peer_folder_remove(const char *path)
{
    nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* A folder's name says whose it is. */
static void remove_orphans(void)
{
    glob_t all;
    if (glob(FOLDERS "*", GLOB_ONLYDIR, NULL, &all) != 0) return;
    for (size_t i = 0; i < all.gl_pathc; i++) {
        long pid = strtol(all.gl_pathv[i] + strlen(FOLDERS), NULL, 10);
        if (pid > 0 && kill((pid_t)pid, 0) != 0 && errno == ESRCH) peer_folder_remove(all.gl_pathv[i]);
    }
    globfree(&all);
}

bool peer_folder_make(char *out, size_t max)
{
    remove_orphans();
    int n = snprintf(out, max, FOLDERS "%ld-XXXXXX", (long)getpid());
    if (n > 0 && (size_t)n < max && mkdtemp(out)) return true;
    fprintf(stderr, "no folder in /dev/shm: %s\n", strerror(errno));
    return false;
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

static void *wait_for_end(void *context)
{
    const sigset_t *set = context;
    int which;
    sigwait(set, &which);
    peer_clean_up();
    _exit(1);
}

void peer_clean_up(void)
{
    while (atomic_flag_test_and_set(&cleaning)) pause(); /* another thread does it, and ends the process */
    clean_up();
}

void peer_clean_up_by(void (*clean)(void))
{
    static sigset_t set;
    pthread_t thread;
    clean_up = clean;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (pthread_create(&thread, NULL, wait_for_end, &set) != 0) {
        peer_clean_up();
        _exit(1);
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
}
