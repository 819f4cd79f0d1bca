/*
 * Leader election over all cores of the machine: one leads, the others wait in line; whoever wants to know watches a key.
 *
 *     rackfish run --core 0 -- elect         # every core leads for a moment
 *     rackfish run -d --core 3 -- elect once # stays leader until it is killed, or its core dies
 *     rackfish registry watch elect/leader
 *
 * The lock decides who leads; its token is the number of the reign, and only rises: a store that leaders write to refuses
 * lower tokens than it has seen, so one that was deposed without noticing does no harm. The key tells everybody who it is,
 * and vanishes with its dispatcher.
 */
#include <rackfish.h>

#include <stdio.h>
#include <string.h>

#define LOCK "elect/lock"
#define KEY  "elect/leader"

static int fail(const char *what, rf_err_t err)
{
    fprintf(stderr, "elect: %s: %s %s\n", what, rf_err_text(err), rf_reason());
    return 1;
}

/* Leads until `reign_ms` have passed. */
static int campaign(uint64_t reign_ms)
{
    uint64_t token;
    char text[64];
    rf_err_t err = rf_lock_acquire(LOCK, &token, rf_deadline_ms(60000));
    if (err != RF_OK) return fail("lock", err);
    int size = snprintf(text, sizeof text, "core %u", rf_self()->core);
    err = rf_registry_put(KEY, text, (size_t)size, RF_REGISTRY_PUT_EPHEMERAL, NULL, rf_deadline_ms(5000));
    if (err != RF_OK) return fail("put", err);
    printf("core %u leads, reign %llu\n", rf_self()->core, (unsigned long long)token);
    fflush(stdout);
    rf_thread_sleep(rf_deadline_ms(reign_ms));
    err = rf_registry_delete(KEY, 0, rf_deadline_ms(5000));
    if (err == RF_OK) err = rf_lock_release(LOCK, token, rf_deadline_ms(5000));
    return err == RF_OK ? 0 : fail("step down", err);
}

/* Says who leads, until so many have. */
static int observe(rf_registry_watch_t *watch, unsigned reigns)
{
    while (reigns > 0) {
        rf_registry_event_t event;
        rf_err_t err = rf_registry_watch_next(watch, &event, rf_deadline_ms(60000));
        if (err != RF_OK) return fail("watch", err);
        if (event.what != RF_REGISTRY_CHANGED) continue;
        printf("seen from core %u: %.*s leads\n", rf_self()->core, (int)event.size,
               (const char *)event.value);
        reigns--;
    }
    return 0;
}

static void *lead_here(void *unused)
{
    (void)unused;
    campaign(50);
    return NULL;
}

int main(int argc, char **argv)
{
    rf_err_t err = rf_init(rf_deadline_ms(5000));
    if (err != RF_OK) return fail("rf_init", err);
    if (argc > 1 && strcmp(argv[1], "once") == 0) return campaign(UINT32_MAX);
    if (rf_self()->index > 0) {
        int rc = campaign(50);
        rf_finish();
        return rc;
    }
    rf_registry_watch_t *watch;
    err = rf_registry_watch(KEY, 0, 0, &watch);
    if (err != RF_OK) return fail("watch", err);
    unsigned reigns = 1;
    for (rf_core_t core = 0; core < rf_self()->cores; core++) {
        uint16_t index;
        if (core == rf_self()->core) continue;
        err = rf_span(core, NULL, 0, &index, rf_deadline_ms(10000));
        if (err == RF_OK)
            reigns++;
        else
            fail("span", err); /* a core that is down */
    }
    rf_thread_t *thread;
    err = rf_thread_create(lead_here, NULL, 0, &thread);
    if (err != RF_OK) return fail("thread", err);
    int rc = observe(watch, reigns);
    rf_thread_join(thread, NULL, rf_deadline_ms(60000));
    rf_finish();
    return rc;
}
