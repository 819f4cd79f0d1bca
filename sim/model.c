/* Cost models: what a message costs on each class of edge (sim/models/README.md has the format). */
#include "sim.h"

#include <stdlib.h>

static const char *const edge_names[SIM_EDGES] = {"same-core", "same-package", "other-package", "far-package",
                                                  "other-host"};

sim_edge_t sim_model_edge(const sim_model_t *m, rf_core_t a, rf_core_t b)
{
    if (a == b) return SIM_EDGE_SAME_CORE;
    unsigned per_host = m->packages * m->cores;
    if (a / per_host != b / per_host) return SIM_EDGE_OTHER_HOST;
    unsigned x = a % per_host / m->cores, y = b % per_host / m->cores;
    if (x == y) return SIM_EDGE_SAME_PACKAGE;
    return m->hops[x][y] > 1 ? SIM_EDGE_FAR_PACKAGE : SIM_EDGE_OTHER_PACKAGE;
}

uint32_t sim_distribution_draw(const sim_distribution_t *d, rf_prng_t *prng)
{
    static const uint32_t at[SIM_QUANTILES] = {0, 500000, 900000, 990000, 999000, 1000000};
    if (d->ns[0] == d->ns[SIM_QUANTILES - 1]) return d->ns[0];
    uint32_t u = (uint32_t)rf_prng_below(prng, SIM_PPM);
    unsigned i = 1;
    while (u >= at[i]) i++;
    return d->ns[i - 1] +
           (uint32_t)((uint64_t)(d->ns[i] - d->ns[i - 1]) * (u - at[i - 1]) / (at[i] - at[i - 1]));
}

/* Messages that one can send while one is under way to who could pass it on. */
static uint16_t weight(const sim_model_t *m, sim_edge_t edge)
{
    uint64_t under_way_ns = m->latency[edge].ns[1] + m->receive[edge].ns[1] + m->step.ns[1];
    uint64_t n = under_way_ns / (m->send[edge].ns[1] ? m->send[edge].ns[1] : 1);
    return (uint16_t)(n < 1 ? 1 : n > AGREEMENT_WEIGHT_MAX ? AGREEMENT_WEIGHT_MAX : n);
}

agreement_weights_t sim_model_weights(const sim_model_t *m)
{
    return (agreement_weights_t){.package = weight(m, SIM_EDGE_SAME_PACKAGE),
                                 .host = weight(m, SIM_EDGE_OTHER_PACKAGE),
                                 .between = weight(m, SIM_EDGE_OTHER_HOST)};
}

static bool parse_uint(const char *text, uint32_t max, uint32_t *out)
{
    char *end;
    unsigned long value = text && *text >= '0' && *text <= '9' ? strtoul(text, &end, 10) : (end = NULL, 0);
    if (!end || *end || value > max) return false;
    *out = (uint32_t)value;
    return true;
}

/* One number: always that. Six: the quantiles. */
static bool parse_distribution(char **state, sim_distribution_t *out)
{
    unsigned n = 0;
    for (char *word; (word = strtok_r(NULL, " \n", state)) && n < SIM_QUANTILES; n++) {
        if (!parse_uint(word, 1000000000, &out->ns[n]) || (n > 0 && out->ns[n] < out->ns[n - 1]))
            return false;
    }
    for (unsigned i = 1; n == 1 && i < SIM_QUANTILES; i++) out->ns[i] = out->ns[0];
    return n == 1 || n == SIM_QUANTILES;
}

static bool parse_edge(char **state, sim_model_t *m)
{
    char *name = strtok_r(NULL, " \n", state), *what = strtok_r(NULL, " \n", state);
    for (unsigned e = 0; name && what && e < SIM_EDGES; e++) {
        if (strcmp(name, edge_names[e]) != 0) continue;
        m->known[e] = true;
        if (strcmp(what, "latency") == 0) return parse_distribution(state, &m->latency[e]);
        if (strcmp(what, "send") == 0) return parse_distribution(state, &m->send[e]);
        if (strcmp(what, "receive") == 0) return parse_distribution(state, &m->receive[e]);
        if (strcmp(what, "gap") == 0) return parse_distribution(state, &m->gap[e]);
    }
    return false;
}

static bool parse_shape(char **state, sim_model_t *m)
{
    uint32_t hosts, packages, cores;
    if (!parse_uint(strtok_r(NULL, " \n", state), SIM_HOSTS_MAX, &hosts) ||
        !parse_uint(strtok_r(NULL, " \n", state), SIM_PACKAGES_MAX, &packages) ||
        !parse_uint(strtok_r(NULL, " \n", state), 256, &cores))
        return false;
    m->hosts = hosts;
    m->packages = packages;
    m->cores = cores;
    return hosts > 0 && packages > 0 && cores > 0;
}

static bool parse_hops(char **state, sim_model_t *m)
{
    uint32_t from, to, hops;
    if (!parse_uint(strtok_r(NULL, " \n", state), SIM_PACKAGES_MAX - 1, &from) ||
        !parse_uint(strtok_r(NULL, " \n", state), SIM_PACKAGES_MAX - 1, &to) ||
        !parse_uint(strtok_r(NULL, " \n", state), 16, &hops))
        return false;
    m->hops[from][to] = m->hops[to][from] = (uint8_t)hops;
    return true;
}

static bool parse_line(char *line, sim_model_t *m)
{
    char *state = NULL, *word = strtok_r(line, " \n", &state);
    if (!word || word[0] == '#') return true;
    if (strcmp(word, "machine") == 0) {
        snprintf(m->machine, sizeof m->machine, "%s", state);
        m->machine[strcspn(m->machine, "\n")] = '\0';
        return true;
    }
    if (strcmp(word, "shape") == 0) return parse_shape(&state, m);
    if (strcmp(word, "hops") == 0) return parse_hops(&state, m);
    if (strcmp(word, "edge") == 0) return parse_edge(&state, m);
    if (strcmp(word, "step") == 0) return parse_distribution(&state, &m->step);
    if (strcmp(word, "poll") == 0) return parse_uint(strtok_r(NULL, " \n", &state), 1000000, &m->poll_ns);
    return false;
}

bool sim_model_read(const char *path, sim_model_t *m, char *why, size_t why_size)
{
    memset(m, 0, sizeof *m);
    FILE *file = fopen(path, "r");
    if (!file) {
        snprintf(why, why_size, "%s cannot be opened", path);
        return false;
    }
    char line[512], copy[512];
    bool ok = true;
    for (unsigned number = 1; ok && fgets(line, sizeof line, file); number++) {
        snprintf(copy, sizeof copy, "%s", line);
        ok = parse_line(copy, m);
        if (!ok) snprintf(why, why_size, "%s: line %u is not understood", path, number);
    }
    fclose(file);
    if (!ok) return false;
    bool needs_package = m->cores > 1, needs_hop = m->packages > 1, needs_host = m->hosts > 1;
    if (m->hosts == 0 || (needs_package && !m->known[SIM_EDGE_SAME_PACKAGE]) ||
        (needs_hop && !m->known[SIM_EDGE_OTHER_PACKAGE]) || (needs_host && !m->known[SIM_EDGE_OTHER_HOST])) {
        snprintf(why, why_size, "%s lacks its shape, or a class of edge that its shape has", path);
        return false;
    }
    if (!m->known[SIM_EDGE_FAR_PACKAGE]) { /* two hops cost what one does, unless it says otherwise */
        m->latency[SIM_EDGE_FAR_PACKAGE] = m->latency[SIM_EDGE_OTHER_PACKAGE];
        m->send[SIM_EDGE_FAR_PACKAGE] = m->send[SIM_EDGE_OTHER_PACKAGE];
        m->receive[SIM_EDGE_FAR_PACKAGE] = m->receive[SIM_EDGE_OTHER_PACKAGE];
        m->gap[SIM_EDGE_FAR_PACKAGE] = m->gap[SIM_EDGE_OTHER_PACKAGE];
    }
    const char *name = strrchr(path, '/');
    snprintf(m->name, sizeof m->name, "%s", name ? name + 1 : path);
    m->name[strcspn(m->name, ".")] = '\0';
    return true;
}
