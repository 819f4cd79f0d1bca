/*
 * Expansion is in two passes over the same bytes: the first finds the end of an item and checks its brackets,
 * the second writes its names, so that a bad item writes nothing.
 *
 *   list  = item *("," item)
 *   item  = prefix [ "[" range *("," range) "]" suffix ]
 *   range = digits [ "-" digits ]
 *
 * One bracket an item. The width of a range is that of its first number: 01-16 gives 01, 8-11 gives 8 ... 11.
 */
#include "cluster-config/hostlist.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define NUMBER_DIGITS_MAX 9

typedef struct item {
    const char *text, *open, *close, *end; /* open and close: the brackets, NULL without */
} item_t;

typedef struct output {
    char *names;
    size_t name_max, max, count;
    char *error;
    size_t error_max;
} output_t;

static rf_err_t fail(output_t *out, rf_err_t err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static rf_err_t fail(output_t *out, rf_err_t err, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    if (out->error_max > 0) vsnprintf(out->error, out->error_max, format, args);
    va_end(args);
    return err;
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool name_character(char c)
{
    return digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '-' || c == '_' ||
           c == ':';
}

static rf_err_t item_decode(const char *text, item_t *item, output_t *out)
{
    *item = (item_t){.text = text};
    const char *p = text;
    for (; *p && (item->open && !item->close ? true : *p != ','); p++) {
        if (*p == '[') {
            if (item->open) return fail(out, RF_ERR_CONFIG, "a second '[' in one item; write two items");
            item->open = p;
        } else if (*p == ']') {
            if (!item->open || item->close) return fail(out, RF_ERR_CONFIG, "']' without '['");
            item->close = p;
        } else if (item->open && !item->close) {
            if (!digit(*p) && *p != '-' && *p != ',')
                return fail(out, RF_ERR_CONFIG, "'%c' in brackets; only numbers, '-' and ',' go there", *p);
        } else if (!name_character(*p)) {
            return (unsigned char)*p < 0x20 || (unsigned char)*p > 0x7e
                       ? fail(out, RF_ERR_CONFIG, "byte 0x%02x cannot be part of a name", (unsigned char)*p)
                       : fail(out, RF_ERR_CONFIG, "'%c' cannot be part of a name", *p);
        }
    }
    if (item->open && !item->close) return fail(out, RF_ERR_CONFIG, "'[' without ']'");
    if (p == text) return fail(out, RF_ERR_CONFIG, "an empty name");
    item->end = p;
    return RF_OK;
}

/* Reads one number; its width counts leading zeros. */
static rf_err_t number_decode(const char **p, uint32_t *value, int *width, output_t *out)
{
    const char *start = *p;
    uint32_t v = 0;
    for (; digit(**p); (*p)++) {
        if (*p - start >= NUMBER_DIGITS_MAX)
            return fail(out, RF_ERR_CONFIG, "a number of more than %d digits", NUMBER_DIGITS_MAX);
        v = v * 10 + (uint32_t)(**p - '0');
    }
    if (*p == start) return fail(out, RF_ERR_CONFIG, "a number is missing in brackets");
    *value = v;
    *width = (int)(*p - start);
    return RF_OK;
}

static rf_err_t name_write(const item_t *item, bool numbered, uint32_t number, int width, output_t *out)
{
    if (out->count == out->max) return fail(out, RF_ERR_LIMIT, "more than %zu names", out->max);
    char *name = out->names + out->count * out->name_max;
    int n;
    if (numbered)
        n = snprintf(name, out->name_max, "%.*s%0*u%.*s", (int)(item->open - item->text), item->text, width,
                     number, (int)(item->end - item->close - 1), item->close + 1);
    else
        n = snprintf(name, out->name_max, "%.*s", (int)(item->end - item->text), item->text);
    if (n < 0 || (size_t)n >= out->name_max)
        return fail(out, RF_ERR_CONFIG, "a name of more than %zu bytes", out->name_max - 1);
    out->count++;
    return RF_OK;
}

static rf_err_t item_expand(const item_t *item, output_t *out)
{
    if (!item->open) return name_write(item, false, 0, 0, out);
    const char *p = item->open + 1;
    for (;;) {
        uint32_t low, high;
        int width, high_width;
        rf_err_t err = number_decode(&p, &low, &width, out);
        if (err != RF_OK) return err;
        high = low;
        if (*p == '-') {
            p++;
            err = number_decode(&p, &high, &high_width, out);
            if (err != RF_OK) return err;
            if (high < low) return fail(out, RF_ERR_CONFIG, "range %u-%u goes down", low, high);
        }
        for (uint32_t i = low; i <= high; i++) {
            err = name_write(item, true, i, width, out);
            if (err != RF_OK) return err;
        }
        if (p == item->close) return RF_OK;
        if (*p != ',')
            return fail(out, RF_ERR_CONFIG, "'%c' after a range in brackets; ',' or ']' goes there", *p);
        p++;
    }
}

rf_err_t rf_hostlist_expand(const char *text, char *names, size_t name_max, size_t max, size_t *count,
                            char *error, size_t error_max)
{
    output_t out = {.names = names, .name_max = name_max, .max = max, .error = error, .error_max = error_max};
    for (const char *p = text;;) {
        item_t item;
        rf_err_t err = item_decode(p, &item, &out);
        if (err == RF_OK) err = item_expand(&item, &out);
        if (err != RF_OK) return err;
        if (!*item.end) break;
        p = item.end + 1;
    }
    *count = out.count;
    return RF_OK;
}
