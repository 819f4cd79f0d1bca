#include "transport/registry.h"

#include "base/log.h"

#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULE_SYMBOL    "rf_transport_module"
#define MODULE_NAME_MAX  32
#define MODULE_PATHS_MAX 5

static const rf_transport_t *registered[RF_TRANSPORTS_MAX];
static unsigned n_registered;

static const rf_transport_t *find_registered(const char *name)
{
    for (unsigned i = 0; i < n_registered; i++) {
        if (strcmp(registered[i]->name, name) == 0) return registered[i];
    }
    return NULL;
}

rf_err_t rf_transport_register(const rf_transport_t *transport)
{
    if (transport->abi != RF_TRANSPORT_ABI) return RF_ERR_VERSION;
    const rf_transport_t *there = find_registered(transport->name);
    if (there) return there == transport ? RF_OK : RF_ERR_EXISTS;
    if (n_registered == RF_TRANSPORTS_MAX) return RF_ERR_LIMIT;
    registered[n_registered++] = transport;
    return RF_OK;
}

/* What a medium of this project needs, beside its module. */
static const char *needs_of(const char *name)
{
    static const struct {
        const char *name, *needs;
    } media[] = {
        {"rdma",
         "; it needs rdma-core: install libibverbs1, librdmacm1 and ibverbs-providers (to build it, also "
         "libibverbs-dev and librdmacm-dev)"},
        {"dpdk", "; it needs DPDK: install librte-eal23, librte-ethdev23, librte-mempool-ring23 and the "
                 "port's driver, such "
                 "as librte-net-af-packet23 (to build it, also libdpdk-dev)"},
    };
    for (unsigned i = 0; i < sizeof media / sizeof *media; i++) {
        if (strcmp(name, media[i].name) == 0) return media[i].needs;
    }
    return "";
}

/* A name becomes part of a path: letters, digits, '-' and '_' only. */
static bool name_is_plain(const char *name)
{
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_");
    return n > 0 && n < MODULE_NAME_MAX && name[n] == 0;
}

/* The folders to look in, in order; returns how many. */
static unsigned module_folders(char folders[MODULE_PATHS_MAX][PATH_MAX])
{
    unsigned n = 0;
    const char *chosen = secure_getenv("RACKFISH_MODULE_PATH");
    if (chosen && *chosen && strlen(chosen) < PATH_MAX) snprintf(folders[n++], PATH_MAX, "%s", chosen);
    char program[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);
    if (length > 0) {
        program[length] = 0;
        const char *folder = dirname(program);
        /* From bin, from libexec/rackfish, and in a build folder. */
        static const char *const beside[] = {"../" RF_LIBDIR "/rackfish", "../../" RF_LIBDIR "/rackfish",
                                             "../modules"};
        for (unsigned i = 0; i < sizeof beside / sizeof *beside; i++) {
            if (snprintf(folders[n], PATH_MAX, "%s/%s", folder, beside[i]) < PATH_MAX) n++;
        }
    }
    if (snprintf(folders[n], PATH_MAX, "%s", RF_MODULE_FOLDER) < PATH_MAX) n++;
    return n;
}

static rf_err_t load(const char *path, const char *name, const rf_transport_t **out, char *why,
                     size_t why_max)
{
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        snprintf(why, why_max, "%s cannot be loaded: %s%s", path, dlerror(), needs_of(name));
        return RF_ERR_NOT_FOUND;
    }
    const rf_transport_t *transport = dlsym(handle, MODULE_SYMBOL);
    if (!transport || strcmp(transport->name, name) != 0) {
        snprintf(why, why_max, "%s is not a transport module named %s: install the one of this release", path,
                 name);
        dlclose(handle);
        return RF_ERR_NOT_FOUND;
    }
    if (transport->abi != RF_TRANSPORT_ABI) {
        snprintf(why, why_max,
                 "%s has module ABI %u, this program needs %u: install the module of this release", path,
                 transport->abi, RF_TRANSPORT_ABI);
        dlclose(handle);
        return RF_ERR_VERSION;
    }
    rf_err_t err = rf_transport_register(transport);
    if (err != RF_OK) {
        snprintf(why, why_max, "%s: %s", path, rf_err_text(err));
        dlclose(handle);
        return err;
    }
    *out = transport; /* the handle stays open for the life of the process */
    return RF_OK;
}

rf_err_t rf_transport_find(const char *name, const rf_transport_t **out, char *why, size_t why_max)
{
    char unwanted[2];
    if (!why || why_max == 0) {
        why = unwanted;
        why_max = sizeof unwanted;
    }
    const rf_transport_t *there = find_registered(name);
    if (there) {
        *out = there;
        return RF_OK;
    }
    if (!name_is_plain(name)) {
        snprintf(why, why_max, "\"%.64s\" is no name of a transport: lower case letters, digits, - and _",
                 name);
        return RF_ERR_NOT_FOUND;
    }

    char folders[MODULE_PATHS_MAX][PATH_MAX], path[PATH_MAX + MODULE_NAME_MAX + 16];
    unsigned n = module_folders(folders);
    for (unsigned i = 0; i < n; i++) {
        int length = snprintf(path, sizeof path, "%s/rackfish-%s.so", folders[i], name);
        if (length > 0 && (size_t)length < sizeof path && access(path, F_OK) == 0)
            return load(path, name, out, why, why_max);
    }
    int used = snprintf(why, why_max, "no transport \"%s\": rackfish-%s.so is not in", name, name);
    for (unsigned i = 0; i < n && used >= 0 && (size_t)used < why_max; i++)
        used += snprintf(why + used, why_max - (size_t)used, "%s %s", i ? "," : "", folders[i]);
    if (used >= 0 && (size_t)used < why_max)
        snprintf(why + used, why_max - (size_t)used, "; install its package or set RACKFISH_MODULE_PATH%s",
                 needs_of(name));
    return RF_ERR_NOT_FOUND;
}
