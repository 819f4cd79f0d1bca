/*
 * Reads a YAML text onto a message of config.proto, by that message's protobuf-c descriptor: an unknown key,
 * a value of the wrong type or range, a key given twice are found here, with line and mend. Private to
 * cluster-config.
 *
 * The accepted YAML is one document of block or flow mappings, sequences and scalars. Anchors, aliases, tags,
 * merge keys and further documents are refused before anything is built, so that a small file cannot become a
 * large tree.
 *
 * Every value's line is kept beside the message, for those who check it later.
 */
#ifndef RF_CLUSTER_CONFIG_READER_H
#define RF_CLUSTER_CONFIG_READER_H

#include "base/error.h"
#include "cluster-config/config.h"

#include <protobuf-c/protobuf-c.h>
#include <stdarg.h>

#define RF_READER_BYTES_MAX (1u << 20)
#define RF_READER_NODES_MAX 16384
#define RF_READER_DEPTH_MAX 8

typedef struct rf_reader_mark {
    const void *message;
    const char *field; /* NULL: the message itself */
    unsigned index;    /* of a repeated field */
    int line;
} rf_reader_mark_t;

typedef struct rf_reader {
    const char *name; /* how errors call the file */
    char *error;      /* RF_CONFIG_ERROR_MAX bytes */
    rf_reader_mark_t marks[RF_READER_NODES_MAX];
    unsigned n_marks;
} rf_reader_t;

/* Reads `size` bytes of text. On success *out is the caller's, to be freed with
 * protobuf_c_message_free_unpacked(). On failure RF_ERR_CONFIG and one line in reader->error. */
rf_err_t rf_reader_read(rf_reader_t *reader, const char *text, size_t size,
                        const ProtobufCMessageDescriptor *schema, ProtobufCMessage **out);

/* The line of a field that was given, else of its message, else 1. */
int rf_reader_line(const rf_reader_t *reader, const void *message, const char *field, unsigned index);

/* Writes "NAME:LINE: ..." into reader->error and returns RF_ERR_CONFIG. */
rf_err_t rf_reader_fail(rf_reader_t *reader, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The candidate nearest to `word` if it is near enough to be meant, else NULL. */
const char *rf_reader_nearest(const char *word, const char *const *candidates, unsigned n);

#endif
