#include "cli/table.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define COLUMNS_MAX 24
#define CELL_MAX    512

typedef struct cell {
    char *text;
    table_colour_t colour;
} cell_t;

struct table {
    unsigned n_columns;
    bool right[COLUMNS_MAX];
    bool colour, out_of_memory;
    cell_t *cells; /* the titles first */
    size_t n_cells, room;
};

/* Columns that a string takes on a terminal: its UTF-8 characters. */
static size_t width_of(const char *text)
{
    size_t n = 0;
    for (; *text; text++) n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void add(table_t *table, table_colour_t colour, const char *text)
{
    if (table->n_cells == table->room) {
        size_t room = table->room ? 2 * table->room : 64;
        cell_t *cells = realloc(table->cells, room * sizeof *cells);
        if (!cells) {
            table->out_of_memory = true;
            return;
        }
        table->cells = cells;
        table->room = room;
    }
    char *copy = strdup(text);
    if (!copy) {
        table->out_of_memory = true;
        return;
    }
    for (char *p = copy; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = '?';
    }
    table->cells[table->n_cells++] = (cell_t){copy, colour};
}

table_t *table_new(const char *columns, bool colour)
{
    table_t *table = calloc(1, sizeof *table);
    if (!table) return NULL;
    table->colour = colour;
    char title[64];
    while (*columns && table->n_columns < COLUMNS_MAX) {
        size_t n = strcspn(columns, " ");
        snprintf(title, sizeof title, "%.*s", (int)n, columns);
        size_t length = strlen(title);
        if (length > 0 && title[length - 1] == '>') {
            table->right[table->n_columns] = true;
            title[length - 1] = '\0';
        }
        for (char *p = title; *p; p++) {
            if (*p == '_') *p = ' ';
        }
        add(table, TABLE_BOLD, title);
        table->n_columns++;
        columns += n;
        columns += strspn(columns, " ");
    }
    return table;
}

static void add_formatted(table_t *table, table_colour_t colour, const char *format, va_list list)
{
    char text[CELL_MAX];
    vsnprintf(text, sizeof text, format, list);
    add(table, colour, text);
}

void table_cell(table_t *table, const char *format, ...)
{
    if (!table) return;
    va_list list;
    va_start(list, format);
    add_formatted(table, TABLE_PLAIN, format, list);
    va_end(list);
}

void table_cell_coloured(table_t *table, table_colour_t colour, const char *format, ...)
{
    if (!table) return;
    va_list list;
    va_start(list, format);
    add_formatted(table, colour, format, list);
    va_end(list);
}

const char *table_escape(table_colour_t colour, bool on)
{
    static const char *const codes[] = {"\033[0m", "\033[32m", "\033[31m", "\033[2m", "\033[1m"};
    return on ? codes[colour] : "";
}

/* Writes at most `left` terminal columns of `text`; returns how many it took. */
static size_t put_cut(FILE *out, const char *text, size_t left)
{
    size_t used = 0;
    for (; *text; text++) {
        bool starts = ((unsigned char)*text & 0xc0) != 0x80;
        if (starts && used == left) break;
        used += starts;
        fputc(*text, out);
    }
    return used;
}

static void print_row(const table_t *table, const cell_t *row, const size_t *widths, FILE *out, size_t width)
{
    size_t left = width ? width : SIZE_MAX;
    for (unsigned c = 0; c < table->n_columns && left > 0; c++) {
        bool last = c + 1 == table->n_columns;
        size_t pad = widths[c] - width_of(row[c].text);
        if (c > 0) left -= put_cut(out, "  ", left);
        for (size_t i = 0; table->right[c] && i < pad; i++) left -= put_cut(out, " ", left);
        bool coloured = table->colour && row[c].colour != TABLE_PLAIN;
        fputs(table_escape(row[c].colour, coloured), out);
        left -= put_cut(out, row[c].text, left);
        fputs(table_escape(TABLE_PLAIN, coloured), out);
        for (size_t i = 0; !table->right[c] && !last && i < pad; i++) left -= put_cut(out, " ", left);
    }
    fputc('\n', out);
}

void table_print(table_t *table, FILE *out, size_t width)
{
    if (!table) {
        fputs("rackfish: out of memory\n", stderr);
        return;
    }
    size_t widths[COLUMNS_MAX] = {0};
    for (size_t i = 0; i < table->n_cells; i++) {
        size_t w = width_of(table->cells[i].text);
        if (w > widths[i % table->n_columns]) widths[i % table->n_columns] = w;
    }
    for (size_t i = 0; i + table->n_columns <= table->n_cells; i += table->n_columns)
        print_row(table, &table->cells[i], widths, out, width);
    if (table->out_of_memory) fputs("rackfish: out of memory; the table is incomplete\n", stderr);
    for (size_t i = 0; i < table->n_cells; i++) free(table->cells[i].text);
    free(table->cells);
    free(table);
}

const char *table_bytes(char *buffer, size_t max, uint64_t bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = (double)bytes;
    unsigned u = 0;
    while (value >= 1024 && u + 1 < sizeof units / sizeof units[0]) {
        value /= 1024;
        u++;
    }
    snprintf(buffer, max, u == 0 || value >= 100 ? "%.0f %s" : "%.1f %s", value, units[u]);
    return buffer;
}

const char *table_ns(char *buffer, size_t max, uint64_t ns)
{
    if (ns < 1000)
        snprintf(buffer, max, "%u ns", (unsigned)ns);
    else if (ns < 1000000)
        snprintf(buffer, max, "%.1f us", (double)ns / 1e3);
    else if (ns < 1000000000)
        snprintf(buffer, max, "%.1f ms", (double)ns / 1e6);
    else
        snprintf(buffer, max, "%.2f s", (double)ns / 1e9);
    return buffer;
}

const char *table_duration(char *buffer, size_t max, uint64_t ns)
{
    uint64_t s = ns / 1000000000ull;
    if (s < 60)
        snprintf(buffer, max, "%.1f s", (double)ns / 1e9);
    else if (s < 3600)
        snprintf(buffer, max, "%u min %u s", (unsigned)(s / 60), (unsigned)(s % 60));
    else if (s < 86400)
        snprintf(buffer, max, "%u h %u min", (unsigned)(s / 3600), (unsigned)(s / 60 % 60));
    else
        snprintf(buffer, max, "%u d %u h", (unsigned)(s / 86400), (unsigned)(s / 3600 % 24));
    return buffer;
}
