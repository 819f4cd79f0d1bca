#include "lab/status.h"

#include <unistd.h>

void lab_status_text(FILE *out, const lab_options_t *options, const lab_place_t *place, const lab_row_t *rows)
{
    fprintf(out, "lab %s: %u hosts, %s, %u MiB each, supervisor %d, consoles in %s\n", options->name,
            options->hosts, options->device, options->memory_mib, (int)getpid(), place->folder);
    for (unsigned g = 1; g <= options->hosts; g++)
        fprintf(out, "guest %u  lab%u  10.77.0.%u  %-7s  pid %d  boots %u\n", g, g, g, rows[g - 1].state,
                (int)rows[g - 1].pid, rows[g - 1].boots);
}

/* Names and devices are made of letters and digits (main.c); only the folder's path can hold what wants an escape. */
void lab_status_json(FILE *out, const lab_options_t *options, const lab_place_t *place, const lab_row_t *rows)
{
    fprintf(
        out,
        "{\"lab\":\"%s\",\"hosts\":%u,\"device\":\"%s\",\"memory_mib\":%u,\"supervisor\":%d,\"consoles\":\"",
        options->name, options->hosts, options->device, options->memory_mib, (int)getpid());
    for (const char *at = place->folder; *at; at++) {
        if (*at == '"' || *at == '\\')
            fprintf(out, "\\%c", *at);
        else if ((unsigned char)*at < ' ')
            fprintf(out, "\\u%04x", (unsigned)*at);
        else
            fputc(*at, out);
    }
    fputs("\",\"guests\":[", out);
    for (unsigned g = 1; g <= options->hosts; g++)
        fprintf(out,
                "%s{\"guest\":%u,\"name\":\"lab%u\",\"address\":\"10.77.0.%u\",\"state\":\"%s\",\"pid\":%d,"
                "\"boots\":%u}",
                g > 1 ? "," : "", g, g, g, rows[g - 1].state, (int)rows[g - 1].pid, rows[g - 1].boots);
    fputs("]}\n", out);
}
