/* What the test and its stand-in for rf-monitor say to each other. */
#ifndef RF_TESTS_CPUDRIVER_RELAY_H
#define RF_TESTS_CPUDRIVER_RELAY_H

#include <stdint.h>

enum { RELAY_LEASE = 0xfe, RELAY_EXIT = 0xff };

typedef struct relay {
    uint32_t size;
    uint8_t type;
    uint8_t reserved[3];
    uint8_t bytes[4096];
} relay_t;

#endif
