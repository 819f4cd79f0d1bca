/* The JSON writer: structure, escapes, hostile bytes. */
#include "cli/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Writes one value as a string and compares the text. */
static void check_string(const void *bytes, size_t size, const char *expected)
{
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    json_t json = json_on(out);
    json_bytes(&json, NULL, bytes, size);
    json_line_end(&json);
    fclose(out);
    assert_int_equal(text[length - 1], '\n');
    text[length - 1] = '\0';
    assert_string_equal(text, expected);
    free(text);
}

static void test_structure(void **state)
{
    (void)state;
    char *text = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&text, &length);
    json_t json = json_on(out);
    for (int round = 0; round < 2; round++) { /* a second document on the same stream starts afresh */
        json_object_begin(&json, NULL);
        json_u64(&json, "most", UINT64_MAX);
        json_i64(&json, "least", INT64_MIN);
        json_array_begin(&json, "list");
        json_bool(&json, NULL, true);
        json_null(&json, NULL);
        json_object_begin(&json, NULL);
        json_object_end(&json);
        json_array_end(&json);
        json_double(&json, "half", 0.5);
        json_double(&json, "none", NAN);
        json_hex(&json, "id", "\x00\xff", 2);
        json_object_end(&json);
        json_line_end(&json);
    }
    fclose(out);
    static const char line[] = "{\"most\":18446744073709551615,\"least\":-9223372036854775808,"
                               "\"list\":[true,null,{}],\"half\":0.5,\"none\":null,\"id\":\"00ff\"}\n";
    assert_int_equal(length, 2 * strlen(line));
    assert_memory_equal(text, line, strlen(line));
    assert_memory_equal(text + strlen(line), line, strlen(line));
    free(text);
}

static void test_escapes(void **state)
{
    (void)state;
    check_string("a\"b\\c/", 6, "\"a\\\"b\\\\c/\"");
    check_string("\n\r\t\b\f\x01\x7f", 7, "\"\\n\\r\\t\\b\\f\\u0001\\u007f\"");
    check_string("a\0b", 3, "\"a\\u0000b\"");
    check_string("", 0, "\"\"");
}

static void test_utf8(void **state)
{
    (void)state;
    check_string("\xc3\xa4 \xe2\x82\xac \xf0\x9f\x90\x9f", 11, "\"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x90\x9f\"");
    check_string("\xff", 1, "\"\\ufffd\"");
    check_string("\xc3", 1, "\"\\ufffd\"");                                  /* cut off */
    check_string("\xc0\x80", 2, "\"\\ufffd\\ufffd\"");                       /* overlong */
    check_string("\xed\xa0\x80", 3, "\"\\ufffd\\ufffd\\ufffd\"");            /* a surrogate */
    check_string("\xf4\x90\x80\x80", 4, "\"\\ufffd\\ufffd\\ufffd\\ufffd\""); /* beyond U+10FFFF */
    check_string("\xe2\x82\"", 3, "\"\\ufffd\\ufffd\\\"\"");                 /* the quote is not swallowed */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_structure),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_utf8),
    };
    return cmocka_run_group_tests_name("cli_json", tests, NULL, NULL);
}
