/*
 * Writing JSON (RFC 8259) to a stream: begin and end calls nest, commas and escapes come by themselves. Strings may hold
 * any bytes: what is not valid UTF-8 becomes U+FFFD. The caller looks at ferror(out) in the end.
 *
 *   json_t json = json_on(stdout);
 *   json_object_begin(&json, NULL);
 *   json_string(&json, "node", "node0");
 *   json_object_end(&json);
 *   json_line_end(&json);
 */
#ifndef RF_CLI_JSON_H
#define RF_CLI_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define JSON_DEPTH_MAX 16

typedef struct json {
    FILE *out;
    unsigned depth;
    bool comma[JSON_DEPTH_MAX + 1]; /* at each depth: something was written already */
} json_t;

json_t json_on(FILE *out);

/* `key` is NULL inside arrays and at the top. */
void json_object_begin(json_t *json, const char *key);
void json_object_end(json_t *json);
void json_array_begin(json_t *json, const char *key);
void json_array_end(json_t *json);
void json_string(json_t *json, const char *key, const char *value);
void json_bytes(json_t *json, const char *key, const void *bytes, size_t size); /* as a string */
void json_hex(json_t *json, const char *key, const void *bytes, size_t size); /* as a string of hex digits */
void json_u64(json_t *json, const char *key, uint64_t value);
void json_i64(json_t *json, const char *key, int64_t value);
void json_double(json_t *json, const char *key, double value); /* null when not finite */
void json_bool(json_t *json, const char *key, bool value);
void json_numbers(json_t *json, const char *key, const uint32_t *numbers, size_t n);
void json_null(json_t *json, const char *key);

/* Ends a document with a newline and flushes: a reader at the other end of a pipe sees whole lines. */
void json_line_end(json_t *json);

#endif
