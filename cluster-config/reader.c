/*
 * Two passes of libyaml over the text. The first goes through its events and refuses what is not part of the
 * format; the second composes the document, whose nodes carry their marks, and walks it along the descriptor:
 *
 *   mapping  -> message        a key is the name of a field
 *   sequence -> repeated field
 *   scalar   -> string, bool, uint32, enum
 */
#include "cluster-config/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#define WORD_MAX        64
#define WHERE_MAX       64
#define FIELDS_MAX      32
#define VALUE_SHOWN_MAX 40

rf_err_t rf_reader_fail(rf_reader_t *reader, int line, const char *format, ...)
{
    char text[RF_CONFIG_ERROR_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    for (char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    }
    snprintf(reader->error, RF_CONFIG_ERROR_MAX, "%.250s:%d: %.360s", reader->name, line, text);
    return RF_ERR_CONFIG;
}

static void mark(rf_reader_t *reader, const void *message, const char *field, unsigned index,
                 const yaml_node_t *node)
{
    if (reader->n_marks < RF_READER_NODES_MAX)
        reader->marks[reader->n_marks++] =
            (rf_reader_mark_t){message, field, index, (int)node->start_mark.line + 1};
}

int rf_reader_line(const rf_reader_t *reader, const void *message, const char *field, unsigned index)
{
    int line = 1;
    for (unsigned i = 0; i < reader->n_marks; i++) {
        const rf_reader_mark_t *m = &reader->marks[i];
        if (m->message != message) continue;
        if (!m->field)
            line = m->line;
        else if (field && strcmp(m->field, field) == 0 && m->index == index)
            return m->line;
    }
    return line;
}

/* Edits (insert, delete, replace, swap neighbours) from a to b; both shorter than WORD_MAX. */
static unsigned edit_distance(const char *a, const char *b)
{
    unsigned rows[3][WORD_MAX + 1];
    size_t na = strlen(a), nb = strlen(b);
    for (size_t j = 0; j <= nb; j++) rows[0][j] = (unsigned)j;
    for (size_t i = 1; i <= na; i++) {
        unsigned *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= nb; j++) {
            unsigned best = above[j - 1] + (a[i - 1] != b[j - 1]);
            if (above[j] + 1 < best) best = above[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] && above2[j - 2] + 1 < best)
                best = above2[j - 2] + 1;
            row[j] = best;
        }
    }
    return rows[na % 3][nb];
}

const char *rf_reader_nearest(const char *word, const char *const *candidates, unsigned n)
{
    size_t length = strlen(word);
    if (length == 0 || length >= WORD_MAX) return NULL;
    unsigned best = length < 4 ? 2 : 3;
    const char *nearest = NULL;
    for (unsigned i = 0; i < n; i++) {
        if (strlen(candidates[i]) >= WORD_MAX) continue;
        unsigned distance = edit_distance(word, candidates[i]);
        if (distance < best) {
            best = distance;
            nearest = candidates[i];
        }
    }
    return nearest;
}

/* "did you mean 'x'?", else the whole choice. */
static void mend_write(const char *word, const char *const *choice, unsigned n, char *mend, size_t max)
{
    const char *nearest = rf_reader_nearest(word, choice, n);
    if (nearest) {
        snprintf(mend, max, "did you mean '%s'?", nearest);
        return;
    }
    size_t used = (size_t)snprintf(mend, max, "known are");
    for (unsigned i = 0; i < n && used < max; i++)
        used += (size_t)snprintf(mend + used, max - used, "%s %s", i ? "," : "", choice[i]);
}

static int line_of_offset(const char *text, size_t size, size_t offset)
{
    int line = 1;
    for (size_t i = 0; i < size && i < offset; i++) line += text[i] == '\n';
    return line;
}

static bool line_indented_by_tab(const char *text, size_t size, int line)
{
    size_t i = 0;
    for (int l = 1; l < line && i < size; i++) l += text[i] == '\n';
    while (i < size && text[i] == ' ') i++;
    return i < size && text[i] == '\t';
}

static rf_err_t yaml_fail(rf_reader_t *reader, const yaml_parser_t *parser, const char *text, size_t size)
{
    int line = (int)parser->problem_mark.line + 1;
    switch (parser->error) {
    case YAML_READER_ERROR:
        return rf_reader_fail(reader, line_of_offset(text, size, parser->problem_offset),
                              "a byte that is not UTF-8 text; save the file as UTF-8");
    case YAML_SCANNER_ERROR:
    case YAML_PARSER_ERROR:
    case YAML_COMPOSER_ERROR:
        if (line_indented_by_tab(text, size, line))
            return rf_reader_fail(reader, line, "a tab in the indentation; indent with spaces");
        return rf_reader_fail(reader, line, "not YAML: %s%s%s; %s",
                              parser->problem ? parser->problem : "cannot be read",
                              parser->context ? " " : "", parser->context ? parser->context : "",
                              parser->context && strstr(parser->context, "flow")
                                  ? "within [ ] and { }, quote what has brackets or commas of its own"
                                  : "see cluster-config/samples for the form");
    default:
        return rf_reader_fail(reader, line, "out of memory while reading");
    }
}

static bool parser_start(yaml_parser_t *parser, const char *text, size_t size)
{
    if (!yaml_parser_initialize(parser)) return false;
    yaml_parser_set_encoding(parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(parser, (const unsigned char *)text, size);
    return true;
}

typedef struct shape {
    unsigned nodes, depth, documents;
} shape_t;

static rf_err_t event_check(rf_reader_t *reader, const yaml_event_t *event, shape_t *shape)
{
    int line = (int)event->start_mark.line + 1;
    const yaml_char_t *anchor = NULL, *tag = NULL;
    switch (event->type) {
    case YAML_ALIAS_EVENT:
        return rf_reader_fail(reader, line, "an alias ('*%.40s'); write the value out",
                              event->data.alias.anchor);
    case YAML_DOCUMENT_START_EVENT:
        if (++shape->documents > 1)
            return rf_reader_fail(reader, line,
                                  "a second document; one file holds one machine, remove '---'");
        return RF_OK;
    case YAML_SCALAR_EVENT:
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
        break;
    case YAML_SEQUENCE_START_EVENT:
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
        shape->depth++;
        break;
    case YAML_MAPPING_START_EVENT:
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
        shape->depth++;
        break;
    case YAML_SEQUENCE_END_EVENT:
    case YAML_MAPPING_END_EVENT:
        shape->depth--;
        return RF_OK;
    default:
        return RF_OK;
    }
    if (anchor)
        return rf_reader_fail(reader, line, "an anchor ('&%.40s'); write the value out where it is needed",
                              anchor);
    if (tag) return rf_reader_fail(reader, line, "a tag ('%.40s'); remove it", tag);
    if (shape->depth > RF_READER_DEPTH_MAX)
        return rf_reader_fail(reader, line,
                              "nested more than %d deep; see cluster-config/samples for the form",
                              RF_READER_DEPTH_MAX);
    if (++shape->nodes > RF_READER_NODES_MAX)
        return rf_reader_fail(reader, line,
                              "more than %d values; name hosts by hostlists such as rack[01-16]",
                              RF_READER_NODES_MAX);
    return RF_OK;
}

static rf_err_t shape_check(rf_reader_t *reader, const char *text, size_t size)
{
    yaml_parser_t parser;
    if (!parser_start(&parser, text, size)) return rf_reader_fail(reader, 1, "out of memory while reading");
    shape_t shape = {0};
    rf_err_t err = RF_OK;
    for (bool end = false; err == RF_OK && !end;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) {
            err = yaml_fail(reader, &parser, text, size);
            break;
        }
        end = event.type == YAML_STREAM_END_EVENT;
        err = event_check(reader, &event, &shape);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return err;
}

/* The walk. `where` says in which part of the file we are, "" at the top, else " in nodes[1]". */
typedef struct walk {
    rf_reader_t *reader;
    yaml_document_t *document;
} walk_t;

static int node_line(const yaml_node_t *node)
{
    return (int)node->start_mark.line + 1;
}

static bool scalar_is_plain(const yaml_node_t *node)
{
    return node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
}

static const char *scalar_text(const yaml_node_t *node)
{
    return (const char *)node->data.scalar.value;
}

static const char *type_wanted(const ProtobufCFieldDescriptor *field)
{
    switch (field->type) {
    case PROTOBUF_C_TYPE_BOOL:
        return "on or off";
    case PROTOBUF_C_TYPE_UINT32:
        return "a whole number";
    case PROTOBUF_C_TYPE_MESSAGE:
        return "a mapping of keys";
    case PROTOBUF_C_TYPE_ENUM:
        return "one word";
    default:
        return "one value";
    }
}

static rf_err_t bool_read(walk_t *walk, const yaml_node_t *node, const ProtobufCFieldDescriptor *field,
                          void *slot)
{
    static const char *const yes[] = {"on", "true", "yes"}, *const no[] = {"off", "false", "no"};
    for (unsigned i = 0; i < 3; i++) {
        if (strcasecmp(scalar_text(node), yes[i]) == 0 || strcasecmp(scalar_text(node), no[i]) == 0) {
            *(protobuf_c_boolean *)slot = strcasecmp(scalar_text(node), yes[i]) == 0;
            return RF_OK;
        }
    }
    return rf_reader_fail(walk->reader, node_line(node),
                          "%s: '%.*s' is neither on nor off; write one of them", field->name, VALUE_SHOWN_MAX,
                          scalar_text(node));
}

static rf_err_t uint32_read(walk_t *walk, const yaml_node_t *node, const ProtobufCFieldDescriptor *field,
                            void *slot)
{
    const char *text = scalar_text(node);
    int line = node_line(node);
    if (!scalar_is_plain(node))
        return rf_reader_fail(walk->reader, line,
                              "%s: a number is wanted, this is quoted text; remove the quotes", field->name);
    uint64_t value = 0;
    size_t digits = strspn(text, "0123456789");
    if (digits == 0 && text[0] == '-')
        return rf_reader_fail(walk->reader, line, "%s: '%.*s' is negative; write a whole number from 0",
                              field->name, VALUE_SHOWN_MAX, text);
    if (digits > 0 && text[digits])
        return rf_reader_fail(walk->reader, line,
                              "%s: '%.*s' has a unit or fraction; write a whole number alone", field->name,
                              VALUE_SHOWN_MAX, text);
    if (digits == 0)
        return rf_reader_fail(walk->reader, line, "%s: '%.*s' is not a number; write a whole number",
                              field->name, VALUE_SHOWN_MAX, text);
    for (size_t i = 0; i < digits; i++) {
        value = value * 10 + (uint64_t)(text[i] - '0');
        if (value > UINT32_MAX)
            return rf_reader_fail(walk->reader, line, "%s: %.*s is out of range; at most %u", field->name,
                                  VALUE_SHOWN_MAX, text, UINT32_MAX);
    }
    *(uint32_t *)slot = (uint32_t)value;
    return RF_OK;
}

static rf_err_t enum_read(walk_t *walk, const yaml_node_t *node, const ProtobufCFieldDescriptor *field,
                          void *slot)
{
    const ProtobufCEnumDescriptor *choice = field->descriptor;
    const ProtobufCEnumValue *value = protobuf_c_enum_descriptor_get_value_by_name(choice, scalar_text(node));
    if (value) {
        *(int *)slot = value->value;
        return RF_OK;
    }
    const char *names[FIELDS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < choice->n_values && n < FIELDS_MAX; i++) names[n++] = choice->values[i].name;
    char mend[160];
    mend_write(scalar_text(node), names, n, mend, sizeof mend);
    return rf_reader_fail(walk->reader, node_line(node), "%s: '%.*s' is unknown; %s", field->name,
                          VALUE_SHOWN_MAX, scalar_text(node), mend);
}

static rf_err_t string_read(walk_t *walk, const yaml_node_t *node, const ProtobufCFieldDescriptor *field,
                            void *slot)
{
    if (strlen(scalar_text(node)) != node->data.scalar.length)
        return rf_reader_fail(walk->reader, node_line(node), "%s: a zero byte in the text; remove it",
                              field->name);
    char *copy = strdup(scalar_text(node));
    if (!copy) return rf_reader_fail(walk->reader, node_line(node), "out of memory while reading");
    char **string = slot;
    *string = copy;
    return RF_OK;
}

static rf_err_t message_read(walk_t *walk, const yaml_node_t *node, const ProtobufCMessageDescriptor *schema,
                             const char *where, ProtobufCMessage **out);

static const char *node_kind(const yaml_node_t *node)
{
    return node->type == YAML_MAPPING_NODE    ? "a mapping of keys"
           : node->type == YAML_SEQUENCE_NODE ? "a list"
                                              : "one value";
}

/* One value, into the place of a singular field or of one element of a repeated one. `what` names it in
 * errors; `where` is handed down to the keys inside. */
static rf_err_t value_read(walk_t *walk, const yaml_node_t *node, const ProtobufCFieldDescriptor *field,
                           const char *what, const char *where, void *slot)
{
    bool wants_mapping = field->type == PROTOBUF_C_TYPE_MESSAGE;
    if (node->type == YAML_SCALAR_NODE && scalar_is_plain(node) && node->data.scalar.length == 0)
        return rf_reader_fail(walk->reader, node_line(node), "%s has no value; give %s, or remove the line",
                              what, type_wanted(field));
    if (wants_mapping != (node->type == YAML_MAPPING_NODE) || node->type == YAML_SEQUENCE_NODE)
        return rf_reader_fail(walk->reader, node_line(node), "%s is %s; %s is wanted", what, node_kind(node),
                              type_wanted(field));
    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return message_read(walk, node, field->descriptor, where, (ProtobufCMessage **)slot);
    case PROTOBUF_C_TYPE_BOOL:
        return bool_read(walk, node, field, slot);
    case PROTOBUF_C_TYPE_UINT32:
        return uint32_read(walk, node, field, slot);
    case PROTOBUF_C_TYPE_ENUM:
        return enum_read(walk, node, field, slot);
    default:
        return string_read(walk, node, field, slot);
    }
}

static rf_err_t list_read(walk_t *walk, const yaml_node_t *node, const ProtobufCFieldDescriptor *field,
                          const char *where, ProtobufCMessage *message)
{
    if (node->type != YAML_SEQUENCE_NODE)
        return rf_reader_fail(
            walk->reader, node_line(node), "%s%s is not a list; write %s", field->name, where,
            field->type == PROTOBUF_C_TYPE_MESSAGE ? "its entries as '- key: value'" : "it as [one, two]");
    const yaml_node_item_t *item = node->data.sequence.items.start;
    size_t n = (size_t)(node->data.sequence.items.top - item);
    /* Every repeated field of the schema holds pointers. */
    void **values = calloc(n ? n : 1, sizeof *values);
    if (!values) return rf_reader_fail(walk->reader, node_line(node), "out of memory while reading");
    *(void ***)((char *)message + field->offset) = values;
    size_t *count = (size_t *)((char *)message + field->quantifier_offset);
    for (size_t i = 0; i < n; i++) {
        const yaml_node_t *element = yaml_document_get_node(walk->document, item[i]);
        char here[WHERE_MAX];
        snprintf(here, sizeof here, " in %.32s[%zu]", field->name, i);
        rf_err_t err = value_read(walk, element, field, here + strlen(" in "), here, &values[i]);
        if (values[i]) *count = i + 1;
        if (err != RF_OK) return err;
        mark(walk->reader, message, field->name, (unsigned)i, element);
    }
    return RF_OK;
}

static rf_err_t key_unknown(walk_t *walk, const yaml_node_t *key, const ProtobufCMessageDescriptor *schema,
                            const char *where)
{
    const char *names[FIELDS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < schema->n_fields && n < FIELDS_MAX; i++) names[n++] = schema->fields[i].name;
    char mend[320];
    if (scalar_text(key)[0] >= '0' && scalar_text(key)[0] <= '9')
        snprintf(mend, sizeof mend, "within { }, quote a list: \"0-7,16-23\"");
    else
        mend_write(scalar_text(key), names, n, mend, sizeof mend);
    return rf_reader_fail(walk->reader, node_line(key), "unknown key '%.*s'%s; %s", VALUE_SHOWN_MAX,
                          scalar_text(key), where, mend);
}

static rf_err_t field_read(walk_t *walk, const yaml_node_t *key, const yaml_node_t *value,
                           const ProtobufCMessageDescriptor *schema, const char *where,
                           ProtobufCMessage *message, uint32_t *seen)
{
    if (key->type != YAML_SCALAR_NODE)
        return rf_reader_fail(walk->reader, node_line(key), "a key%s that is not a word; write 'key: value'",
                              where);
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field_by_name(schema, scalar_text(key));
    if (!field) return key_unknown(walk, key, schema, where);
    uint32_t bit = 1u << (field - schema->fields);
    if (*seen & bit)
        return rf_reader_fail(walk->reader, node_line(key), "'%s'%s is given twice; keep one", field->name,
                              where);
    *seen |= bit;
    rf_err_t err;
    if (field->label == PROTOBUF_C_LABEL_REPEATED) {
        err = list_read(walk, value, field, where, message);
    } else {
        char what[2 * WHERE_MAX], here[WHERE_MAX];
        snprintf(what, sizeof what, "%.32s%s", field->name, where);
        snprintf(here, sizeof here, " in %.32s", field->name);
        err = value_read(walk, value, field, what, here, (char *)message + field->offset);
        if (err == RF_OK && field->type != PROTOBUF_C_TYPE_STRING && field->type != PROTOBUF_C_TYPE_MESSAGE)
            *(protobuf_c_boolean *)((char *)message + field->quantifier_offset) = 1;
        if (err == RF_OK) mark(walk->reader, message, field->name, 0, key);
    }
    return err;
}

static rf_err_t message_read(walk_t *walk, const yaml_node_t *node, const ProtobufCMessageDescriptor *schema,
                             const char *where, ProtobufCMessage **out)
{
    ProtobufCMessage *message = calloc(1, schema->sizeof_message);
    if (!message) return rf_reader_fail(walk->reader, node_line(node), "out of memory while reading");
    protobuf_c_message_init(schema, message);
    *out = message; /* also when it is incomplete: whoever owns the root frees all */
    mark(walk->reader, message, NULL, 0, node);
    uint32_t seen = 0;
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start; pair < node->data.mapping.pairs.top;
         pair++) {
        rf_err_t err =
            field_read(walk, yaml_document_get_node(walk->document, pair->key),
                       yaml_document_get_node(walk->document, pair->value), schema, where, message, &seen);
        if (err != RF_OK) return err;
    }
    return RF_OK;
}

rf_err_t rf_reader_read(rf_reader_t *reader, const char *text, size_t size,
                        const ProtobufCMessageDescriptor *schema, ProtobufCMessage **out)
{
    reader->n_marks = 0;
    if (size > RF_READER_BYTES_MAX)
        return rf_reader_fail(reader, 1, "larger than %u KiB; this is not a configuration",
                              RF_READER_BYTES_MAX / 1024);
    rf_err_t err = shape_check(reader, text, size);
    if (err != RF_OK) return err;
    yaml_parser_t parser;
    yaml_document_t document;
    if (!parser_start(&parser, text, size)) return rf_reader_fail(reader, 1, "out of memory while reading");
    if (!yaml_parser_load(&parser, &document)) {
        err = yaml_fail(reader, &parser, text, size);
        yaml_parser_delete(&parser);
        return err;
    }
    yaml_node_t *root = yaml_document_get_root_node(&document);
    ProtobufCMessage *message = NULL;
    if (!root || (root->type == YAML_SCALAR_NODE && root->data.scalar.length == 0))
        err = rf_reader_fail(reader, 1, "the file is empty; start from a file in cluster-config/samples");
    else if (root->type != YAML_MAPPING_NODE)
        err = rf_reader_fail(reader, node_line(root), "the file is not a mapping; write 'key: value' lines");
    else
        err = message_read(&(walk_t){reader, &document}, root, schema, "", &message);
    yaml_document_delete(&document);
    yaml_parser_delete(&parser);
    if (err == RF_OK)
        *out = message;
    else if (message)
        protobuf_c_message_free_unpacked(message, NULL);
    return err;
}
