#include "cli/terminal.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

static struct termios saved;
static volatile sig_atomic_t is_raw;

void terminal_restore(void)
{
    if (is_raw) {
        is_raw = 0;
        tcsetattr(STDIN_FILENO, TCSADRAIN, &saved);
    }
}

/* Faults of our own: a crash must not leave the user's shell without echo. Handlers are one-shot (SA_RESETHAND), so the
 * signal raised again ends us the usual way. */
static void on_fatal(int signo)
{
    terminal_restore();
    raise(signo);
}

bool terminal_may_read(void)
{
    pid_t foreground = tcgetpgrp(STDIN_FILENO);
    return foreground < 0 || foreground == getpgrp();
}

bool terminal_raw(void)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM, SIGXCPU};
    static bool prepared;
    if (!isatty(STDIN_FILENO) || !terminal_may_read() || tcgetattr(STDIN_FILENO, &saved) < 0) return false;
    if (!prepared) {
        prepared = true;
        atexit(terminal_restore);
        struct sigaction action = {.sa_handler = on_fatal, .sa_flags = (int)SA_RESETHAND | SA_NODEFER};
        for (unsigned i = 0; i < sizeof fatal / sizeof fatal[0]; i++) sigaction(fatal[i], &action, NULL);
    }
    struct termios raw = saved;
    cfmakeraw(&raw);
    is_raw = 1;
    if (tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) < 0) {
        is_raw = 0;
        return false;
    }
    return true;
}

bool terminal_size(uint32_t *rows, uint32_t *columns)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        struct winsize size;
        if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_row > 0 && size.ws_col > 0) {
            *rows = size.ws_row;
            *columns = size.ws_col;
            return true;
        }
    }
    *rows = 24;
    *columns = 80;
    return false;
}
