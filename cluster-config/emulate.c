/* Writes the configuration of an emulated machine. What it writes is read back like any other file. */
#include "cluster-config/config.h"

#include "base/os.h"

#include <string.h>

/* A single-quoted YAML scalar: only the quote itself is special in it. False for control characters. */
static bool quoted_write(const char *key, const char *text, FILE *out)
{
    for (const char *c = text; *c; c++) {
        if ((unsigned char)*c < 0x20 || *c == 0x7f) return false;
    }
    fprintf(out, "%s'", key);
    for (const char *c = text; *c; c++) fputs(*c == '\'' ? "''" : (char[]){*c, '\0'}, out);
    fputc('\'', out);
    return true;
}

static rf_err_t fail(char *error, const char *cause)
{
    snprintf(error, RF_CONFIG_ERROR_MAX, "%s", cause);
    return RF_ERR_CONFIG;
}

/* "0-1,0-1" would be shorter than "0,1,0,1" but says less plainly which core has which CPU. */
static void node_write(const rf_config_emulation_t *emulation, unsigned node, const unsigned *cpus,
                       unsigned n_cpus, FILE *out)
{
    fprintf(out, "  - {hosts: node%u, address: 127.0.0.1, port: %u, cores: \"", node, emulation->ports[node]);
    for (unsigned i = 0; i < emulation->cores; i++) {
        unsigned cpu = cpus[(node * emulation->cores + i) % n_cpus];
        /* One core: as a range, since a number alone is a count. */
        if (emulation->cores == 1)
            fprintf(out, "%u-%u", cpu, cpu);
        else
            fprintf(out, "%s%u", i ? "," : "", cpu);
    }
    fputs("\"}\n", out);
}

rf_err_t rf_config_write_emulated(const rf_config_emulation_t *emulation, FILE *out, char *error)
{
    unsigned cpus[RF_CORES_PER_NODE_MAX];
    unsigned n_cpus = rf_cpu_allowed(cpus, RF_CORES_PER_NODE_MAX);
    char cause[RF_CONFIG_ERROR_MAX];
    if (n_cpus == 0) return fail(error, "the CPUs this process may use cannot be read");
    if (emulation->nodes == 0 || emulation->nodes > RF_NODES_MAX) {
        snprintf(cause, sizeof cause, "%u hosts; write 1 to %d", emulation->nodes, RF_NODES_MAX);
        return fail(error, cause);
    }
    if (emulation->cores == 0 || emulation->cores > RF_CORES_PER_NODE_MAX ||
        emulation->nodes * emulation->cores > RF_CORES_MAX) {
        snprintf(cause, sizeof cause,
                 "%u cores on each of %u hosts; write 1 to %d each and at most %d in all", emulation->cores,
                 emulation->nodes, RF_CORES_PER_NODE_MAX, RF_CORES_MAX);
        return fail(error, cause);
    }
    fputs("# Written by 'rackfish up': an emulated machine, every node on this host.\n", out);
    bool ok = quoted_write("machine: ", emulation->machine, out);
    ok = quoted_write("\nkey_file: ", emulation->key_file, out) && ok;
    fprintf(out, "\nemulated: on\nencrypt: %s\nallow_root: %s\n", emulation->encrypt ? "on" : "off",
            emulation->allow_root ? "on" : "off");
    if (emulation->one_sided) fputs("one_sided: on\n", out);
    if (emulation->plan) ok = quoted_write("plan: ", emulation->plan, out) && fputc('\n', out) != EOF && ok;
    if (emulation->leases) fputs("leases: on\n", out);
    if (emulation->n_users > 0) {
        fputs("users: [", out);
        for (unsigned i = 0; i < emulation->n_users; i++)
            ok = quoted_write(i ? ", " : "", emulation->users[i], out) && ok;
        fputs("]\n", out);
    }
    fputs("nodes:\n", out);
    for (unsigned i = 0; i < emulation->nodes; i++) node_write(emulation, i, cpus, n_cpus, out);
    if (emulation->nodes > 1) {
        char all[32];
        snprintf(all, sizeof all, "node[0-%u]", emulation->nodes - 1);
        fprintf(out, "transports:\n  - {between: ['%s', '%s'], use: ", all, all);
        ok = quoted_write("", emulation->transport ? emulation->transport : "tcp", out) && ok;
        fputs("}\n", out);
    }
    if (!ok)
        return fail(error, "a name with a control character in it; use letters, digits, '-', '_' and '.'");
    if (fflush(out) != 0 || ferror(out))
        return fail(error, "the configuration cannot be written; is the disk full?");
    return RF_OK;
}
