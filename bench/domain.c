#include "domain.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ARGUMENTS_MAX    64
#define COMMAND_LINE_MAX 4096
#define SINK_BATCH       64

static rf_err_t say(const char *what, rf_err_t err)
{
    fprintf(stderr, "rf-bench: %s: %s%s%s\n", what, rf_err_text(err), *rf_reason() ? ": " : "", rf_reason());
    return err;
}

/* ---- bare futexes ---- */

void bench_words_give(_Atomic(uint32_t) *word, uint32_t value)
{
    atomic_store(word, value);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

void bench_words_take(_Atomic(uint32_t) *word, uint32_t value)
{
    while (atomic_load(word) != value) syscall(SYS_futex, word, FUTEX_WAIT, value - 1, NULL, NULL, 0);
}

void bench_words_answer(bench_words_t *words, uint32_t rounds)
{
    for (uint32_t i = 1; i <= rounds; i++) {
        bench_words_take(&words->there, i);
        bench_words_give(&words->back, i);
    }
}

/* ---- the peer ---- */

static rf_err_t sink(rf_channel_t *channel, uint64_t n)
{
    rf_channel_slot_t slots[SINK_BATCH];
    while (n > 0) {
        unsigned got;
        rf_err_t err = rf_channel_poll_slots(channel, slots, n < SINK_BATCH ? (unsigned)n : SINK_BATCH, &got);
        if (err == RF_OK)
            n -= got;
        else if (err != RF_ERR_AGAIN)
            return err;
    }
    return rf_channel_send(channel, BENCH_SUNK, NULL, 0, rf_deadline_ms(BENCH_DOMAIN_MS));
}

static rf_err_t hand_over(rf_channel_t *channel, const bench_handover_t *how)
{
    int fd = open(how->path, O_RDWR | O_CLOEXEC);
    bench_words_t *words = mmap(NULL, RF_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    if (words == MAP_FAILED) return RF_ERR_OS;
    rf_err_t err = rf_channel_send(channel, BENCH_HANDOVER, NULL, 0, rf_deadline_ms(BENCH_DOMAIN_MS));
    if (err == RF_OK) bench_words_answer(words, how->rounds);
    munmap(words, RF_PAGE);
    return err;
}

static int serve(void)
{
    rf_channel_t *channel;
    rf_err_t err =
        rf_connect_dispatcher(rf_self()->domain, 0, NULL, &channel, rf_deadline_ms(BENCH_DOMAIN_MS));
    if (err != RF_OK) return say("no way to the bench", err), 1;
    uint64_t bytes[RF_CHANNEL_MESSAGE_MAX / sizeof(uint64_t)];
    rf_message_t message = {.bytes = bytes, .room = sizeof bytes};
    uint32_t call = 0;
    /* Calls are answered as they are received; RF_NEVER: the bench is there as long as its channel is. */
    while ((err = rf_reply_and_wait(channel, call, BENCH_ECHO, bytes, call ? message.size : 0, &message,
                                    RF_NEVER)) == RF_OK) {
        call = message.call;
        if (!call && message.type == BENCH_ECHO)
            err = rf_channel_send(channel, BENCH_ECHO, bytes, message.size, RF_NEVER);
        else if (message.type == BENCH_SUNK && message.size == sizeof bytes[0])
            err = sink(channel, bytes[0]);
        else if (message.type == BENCH_HANDOVER && message.size == sizeof(bench_handover_t))
            err = hand_over(channel, (const bench_handover_t *)bytes);
        if (err != RF_OK) break;
    }
    rf_finish();
    return err == RF_ERR_CLOSED ? 0 : 1;
}

/* ---- into the machine ---- */

/* Becomes `rackfish run --core 0 -- rf-bench ...`, with this process's own arguments. */
static rf_err_t run_inside(const bench_options_t *options)
{
    static char program[COMMAND_LINE_MAX], command[COMMAND_LINE_MAX], line[COMMAND_LINE_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    FILE *file = fopen("/proc/self/cmdline", "re");
    size_t size = file ? fread(line, 1, sizeof line - 1, file) : 0;
    if (file) fclose(file);
    if (length <= 0 || size == 0) return RF_ERR_OS;
    const char *slash = strrchr(program, '/'); /* the command lies beside this program */
    if (!slash || (size_t)snprintf(command, sizeof command, "%.*s/rackfish", (int)(slash - program),
                                   program) >= sizeof command)
        return RF_ERR_OS;
    const char *argv[ARGUMENTS_MAX];
    unsigned n = 0;
    argv[n++] = "rackfish";
    if (options->machine) {
        argv[n++] = "-m";
        argv[n++] = options->machine;
    }
    argv[n++] = "run";
    argv[n++] = "--core";
    argv[n++] = "0";
    argv[n++] = "--";
    argv[n++] = program;
    char *at = line + strlen(line) + 1;
    while (at < line + size && n < ARGUMENTS_MAX - 1) {
        argv[n++] = at;
        at += strlen(at) + 1;
    }
    argv[n] = NULL;
    fflush(NULL);
    execv(command, (char **)(uintptr_t)argv);
    fprintf(stderr, "rf-bench: this bench runs inside a machine, and %s cannot be executed: %s\n", command,
            strerror(errno));
    return RF_ERR_NO_MACHINE;
}

rf_err_t bench_domain_enter(const bench_options_t *options)
{
    if (rf_self()) return RF_OK;
    rf_err_t err = rf_init(rf_deadline_ms(BENCH_DOMAIN_MS));
    if (err == RF_ERR_NO_MACHINE) return run_inside(options);
    if (err != RF_OK) return say("no way into the machine", err);
    if (rf_self()->index > 0) exit(serve());
    return RF_OK;
}

rf_err_t bench_domain_peer(rf_core_t core, rf_channel_t **out)
{
    rf_export_t *door;
    uint16_t index;
    uint64_t deadline_ns = rf_deadline_ms(BENCH_DOMAIN_MS);
    rf_err_t err = rf_export(NULL, 0, &door, deadline_ns);
    if (err != RF_OK) return say("no door for the peer", err);
    err = rf_span(core, NULL, 0, &index, deadline_ns);
    if (err != RF_OK)
        say("no peer", err);
    else if ((err = rf_accept(door, out, deadline_ns)) != RF_OK)
        say("the peer does not come", err);
    (void)rf_export_close(door, deadline_ns);
    return err;
}

bool bench_domain_cpus(rf_core_t first, rf_core_t second, unsigned cpus[2])
{
    rf_core_info_t rows[2];
    const rf_core_t cores[2] = {first, second};
    for (unsigned i = 0; i < 2; i++) {
        unsigned n;
        rf_err_t err = rf_core_list(cores[i], &rows[i], 1, &n, NULL, rf_deadline_ms(BENCH_DOMAIN_MS));
        if (err != RF_OK || n == 0 || rows[i].core != cores[i]) {
            fprintf(stderr,
                    "rf-bench: the machine has no core %u: it needs two, each with a CPU of its own\n",
                    cores[i]);
            return false;
        }
        cpus[i] = rows[i].cpu;
    }
    if (rows[0].node != rows[1].node || cpus[0] == cpus[1]) {
        fprintf(stderr, "rf-bench: cores %u and %u are not two CPUs of one host\n", first, second);
        return false;
    }
    return true;
}
