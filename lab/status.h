/* What `rackfish lab status` prints. */
#ifndef RF_LAB_STATUS_H
#define RF_LAB_STATUS_H

#include "lab/lab.h"

#include <stdio.h>

typedef struct lab_row {
    const char *state;
    pid_t pid; /* of the guest's first process; 0: it is off */
    unsigned boots;
} lab_row_t;

/* One row for each of options->hosts guests. The supervisor's pid is the caller's. */
void lab_status_text(FILE *out, const lab_options_t *options, const lab_place_t *place,
                     const lab_row_t *rows);
void lab_status_json(FILE *out, const lab_options_t *options, const lab_place_t *place,
                     const lab_row_t *rows);

#endif
