/* Hostile files and hostile process names: what interpreter a file needs, and /proc/PID/stat. */
#include "cpudriver/processes.h"
#include "cpudriver/program.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    char out[256], text[1024];
    rf_process_t process;
    if (rf_program_interpreter(bytes, size, out, sizeof out) && strlen(out) >= sizeof out) __builtin_trap();
    if (size < sizeof text) {
        memcpy(text, bytes, size);
        text[size] = 0;
        rf_process_parse(text, 4, 10000000, &process);
    }
    return 0;
}
