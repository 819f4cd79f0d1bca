/*
 * Tables of aligned columns for people. Cells are collected, then printed with the width that the longest needs; numbers
 * to the right. Colours only where the caller says that the stream takes them.
 */
#ifndef RF_CLI_TABLE_H
#define RF_CLI_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum table_colour { TABLE_PLAIN, TABLE_GOOD, TABLE_BAD, TABLE_DIM, TABLE_BOLD } table_colour_t;

typedef struct table table_t;

/* `columns`: "CORE> NODE STATE": titles separated by spaces, one that ends with '>' is aligned to the right. NULL when
 * there is no memory. */
table_t *table_new(const char *columns, bool colour);

/* The next cell, row by row. Control characters are shown as '?'. */
void table_cell(table_t *table, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_cell_coloured(table_t *table, table_colour_t colour, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Prints and frees. Lines longer than `width` are cut (0: never). */
void table_print(table_t *table, FILE *out, size_t width);

/* Text that starts and ends a colour; "" when `on` is false. */
const char *table_escape(table_colour_t colour, bool on);

/* "1.5 GiB", "38 us", "2 h 3 min" in a caller's buffer, returned. */
const char *table_bytes(char *buffer, size_t max, uint64_t bytes);
const char *table_ns(char *buffer, size_t max, uint64_t ns);
const char *table_duration(char *buffer, size_t max, uint64_t ns);

#endif
