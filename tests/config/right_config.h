/* Reading a configuration that is right. Included after cmocka.h. */
#ifndef RF_TESTS_CONFIG_RIGHT_CONFIG_H
#define RF_TESTS_CONFIG_RIGHT_CONFIG_H

#include "cluster-config/parse.h"

#include <string.h>

/* The test fails, with the error, where it is not. To be freed. */
static inline rf_config_t *parse(const char *text)
{
    char error[RF_CONFIG_ERROR_MAX] = "";
    rf_config_t *config = NULL;
    rf_err_t err = rf_config_parse("text", text, strlen(text), &config, NULL, error);
    assert_string_equal(error, "");
    assert_int_equal(err, RF_OK);
    return config;
}

#endif
