#include "cli/json.h"

#include "base/assert.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>

json_t json_on(FILE *out)
{
    return (json_t){.out = out};
}

/* Length of the valid UTF-8 sequence at `s` (Unicode 15, table 3-7), 0 if there is none. */
static size_t utf8_length(const uint8_t *s, size_t left)
{
    if (s[0] < 0x80) return 1;
    size_t n;
    uint8_t low = 0x80, high = 0xbf;
    if (s[0] >= 0xc2 && s[0] <= 0xdf) {
        n = 2;
    } else if (s[0] >= 0xe0 && s[0] <= 0xef) {
        n = 3;
        low = s[0] == 0xe0 ? 0xa0 : 0x80;
        high = s[0] == 0xed ? 0x9f : 0xbf;
    } else if (s[0] >= 0xf0 && s[0] <= 0xf4) {
        n = 4;
        low = s[0] == 0xf0 ? 0x90 : 0x80;
        high = s[0] == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (n > left || s[1] < low || s[1] > high) return 0;
    for (size_t i = 2; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return 0;
    }
    return n;
}

static void write_string(FILE *out, const uint8_t *s, size_t size)
{
    fputc('"', out);
    for (size_t i = 0; i < size;) {
        uint8_t c = s[i];
        if (c == '"' || c == '\\') {
            fputc('\\', out);
            fputc(c, out);
            i++;
        } else if (c < 0x20 || c == 0x7f) {
            static const char *const shorts[0x20] = {
                ['\b'] = "\\b", ['\f'] = "\\f", ['\n'] = "\\n", ['\r'] = "\\r", ['\t'] = "\\t"};
            if (c < 0x20 && shorts[c])
                fputs(shorts[c], out);
            else
                fprintf(out, "\\u%04x", c);
            i++;
        } else {
            size_t n = utf8_length(s + i, size - i);
            if (n == 0) {
                fputs("\\ufffd", out);
                i++;
            } else {
                fwrite(s + i, 1, n, out);
                i += n;
            }
        }
    }
    fputc('"', out);
}

static void start_value(json_t *json, const char *key)
{
    if (json->comma[json->depth]) fputc(',', json->out);
    json->comma[json->depth] = true;
    if (key) {
        write_string(json->out, (const uint8_t *)key, strlen(key));
        fputc(':', json->out);
    }
}

static void open_nested(json_t *json, const char *key, char bracket)
{
    start_value(json, key);
    rf_assert(json->depth < JSON_DEPTH_MAX);
    json->comma[++json->depth] = false;
    fputc(bracket, json->out);
}

static void close_nested(json_t *json, char bracket)
{
    rf_assert(json->depth > 0);
    json->depth--;
    fputc(bracket, json->out);
}

void json_object_begin(json_t *json, const char *key)
{
    open_nested(json, key, '{');
}
void json_object_end(json_t *json)
{
    close_nested(json, '}');
}
void json_array_begin(json_t *json, const char *key)
{
    open_nested(json, key, '[');
}
void json_array_end(json_t *json)
{
    close_nested(json, ']');
}

void json_bytes(json_t *json, const char *key, const void *bytes, size_t size)
{
    start_value(json, key);
    write_string(json->out, bytes, size);
}

void json_string(json_t *json, const char *key, const char *value)
{
    json_bytes(json, key, value ? value : "", value ? strlen(value) : 0);
}

void json_hex(json_t *json, const char *key, const void *bytes, size_t size)
{
    start_value(json, key);
    fputc('"', json->out);
    for (size_t i = 0; i < size; i++) fprintf(json->out, "%02x", ((const uint8_t *)bytes)[i]);
    fputc('"', json->out);
}

void json_u64(json_t *json, const char *key, uint64_t value)
{
    start_value(json, key);
    fprintf(json->out, "%" PRIu64, value);
}

void json_i64(json_t *json, const char *key, int64_t value)
{
    start_value(json, key);
    fprintf(json->out, "%" PRId64, value);
}

void json_double(json_t *json, const char *key, double value)
{
    start_value(json, key);
    if (isfinite(value))
        fprintf(json->out, "%.6g", value);
    else
        fputs("null", json->out);
}

void json_bool(json_t *json, const char *key, bool value)
{
    start_value(json, key);
    fputs(value ? "true" : "false", json->out);
}

void json_null(json_t *json, const char *key)
{
    start_value(json, key);
    fputs("null", json->out);
}

void json_line_end(json_t *json)
{
    rf_assert(json->depth == 0);
    json->comma[0] = false;
    fputc('\n', json->out);
    fflush(json->out);
}

void json_numbers(json_t *json, const char *key, const uint32_t *numbers, size_t n)
{
    json_array_begin(json, key);
    for (size_t i = 0; i < n; i++) json_u64(json, NULL, numbers[i]);
    json_array_end(json);
}
