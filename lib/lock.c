/*
 * Locks, semaphores, barriers and queues: waits in the registry. A wait is an operation (domain.h); its time runs at the monitor,
 * whose answer is agreed on, so this side only waits a little longer. One that is given up here is still owed an answer: if
 * it turns out to have been granted, it is given back.
 */
#include "internal.h"

#include <string.h>

#define ANSWER_NS (5 * RF_NS_PER_S) /* for the monitor to say that the time is over */

static rf_err_t wait_begin(const rf_client_registry_t *head, const char *name, rf_operation_t **out)
{
    lib_registry_request_t request;
    rf_err_t err = rf_lib_registry_encode(&request, head, name, NULL, 0, NULL, 0);
    if (err != RF_OK) return err;
    rf_operation_t *operation = rf_lib_operation_create(OPERATION_REGISTRY);
    if (!operation) return rf_lib_no_operation();
    operation->kind_waited = head->kind;
    snprintf(operation->name, sizeof operation->name, "%s", name);
    err = rf_lib_request_start(&rf_me.client, RF_CLIENT_REGISTRY_CHANGE, &request.head, request.size, NULL, 0,
                               &operation->reply, sizeof operation->reply, &operation->request);
    if (err != RF_OK)
        rf_lib_operation_free(operation);
    else
        *out = operation;
    return err;
}

typedef struct begin_wait {
    rf_client_registry_t head;
    const char *name;
    uint64_t deadline_ns;
    rf_operation_t *operation;
    rf_err_t err;
} begin_wait_t;

static bool begin_ready(void *context)
{
    begin_wait_t *w = context;
    uint64_t now_ns = rf_clock_ns();
    w->head.timeout_ns = w->deadline_ns == RF_NEVER ? UINT64_MAX
                         : w->deadline_ns > now_ns  ? w->deadline_ns - now_ns
                                                    : 0;
    w->err = wait_begin(&w->head, w->name, &w->operation);
    return w->err != RF_ERR_AGAIN;
}

static rf_err_t wait_for(const rf_client_registry_t *head, const char *name, rf_operation_result_t *result,
                         uint64_t deadline_ns)
{
    begin_wait_t w = {.head = *head, .name = name, .deadline_ns = deadline_ns};
    rf_err_t err = rf_lib_block(&(lib_wait_t){begin_ready, NULL, &w}, deadline_ns);
    if (err == RF_OK) err = w.err;
    if (err != RF_OK) return err;
    uint64_t patience_ns = deadline_ns > RF_NEVER - ANSWER_NS ? RF_NEVER : deadline_ns + ANSWER_NS;
    if (patience_ns < rf_clock_ns() + ANSWER_NS) patience_ns = rf_clock_ns() + ANSWER_NS;
    bool answered = rf_lib_operation_block(w.operation, patience_ns) == RF_OK;
    if (answered) return rf_operation_wait(w.operation, result, RF_NEVER);
    rf_operation_cancel(w.operation);
    return rf_lib_fail(RF_ERR_UNKNOWN_OUTCOME, "the monitor does not answer");
}

/* ---- locks and semaphores ---- */

static rf_err_t acquire(uint8_t kind, const char *name, uint32_t n, bool only_try, uint64_t *token,
                        uint64_t deadline_ns)
{
    rf_operation_result_t result;
    rf_client_registry_t head = {
        .what = RF_REGISTRY_ACQUIRE, .kind = kind, .flags = only_try ? RF_REGISTRY_TRY : 0, .n = n};
    rf_err_t err = wait_for(&head, name, &result, deadline_ns);
    if (err == RF_OK) *token = result.revision;
    return err;
}

static rf_err_t release(uint8_t kind, const char *name, uint64_t token, uint64_t deadline_ns)
{
    rf_client_registry_t head = {.what = RF_REGISTRY_RELEASE, .kind = kind, .number = token};
    return rf_lib_registry_change(&head, name, NULL, 0, deadline_ns);
}

static rf_err_t begin(uint16_t what, uint8_t kind, const char *name, uint32_t n, rf_operation_t **out)
{
    rf_client_registry_t head = {.what = what, .kind = kind, .n = n, .timeout_ns = UINT64_MAX};
    return wait_begin(&head, name, out);
}

static rf_err_t create(uint8_t kind, const char *name, uint32_t n, unsigned flags, uint64_t deadline_ns)
{
    if (n == 0 || (flags & ~(unsigned)RF_OBJECT_EPHEMERAL) != 0)
        return rf_lib_fail(RF_ERR_INVALID, "a maximum of 0, or unknown flags");
    rf_client_registry_t head = {.what = RF_REGISTRY_CREATE,
                                 .kind = kind,
                                 .n = n,
                                 .flags = flags & RF_OBJECT_EPHEMERAL ? RF_REGISTRY_EPHEMERAL : 0};
    return rf_lib_registry_change(&head, name, NULL, 0, deadline_ns);
}

static rf_err_t delete (uint8_t kind, const char *name, uint64_t deadline_ns)
{
    rf_client_registry_t head = {.what = RF_REGISTRY_DELETE, .kind = kind};
    return rf_lib_registry_change(&head, name, NULL, 0, deadline_ns);
}

rf_err_t rf_lock_acquire(const char *name, uint64_t *token, uint64_t deadline_ns)
{
    return acquire(RF_REGISTRY_KIND_LOCK, name, 1, false, token, deadline_ns);
}

rf_err_t rf_lock_try(const char *name, uint64_t *token, uint64_t deadline_ns)
{
    return acquire(RF_REGISTRY_KIND_LOCK, name, 1, true, token, deadline_ns);
}

rf_err_t rf_lock_release(const char *name, uint64_t token, uint64_t deadline_ns)
{
    return release(RF_REGISTRY_KIND_LOCK, name, token, deadline_ns);
}

rf_err_t rf_lock_acquire_begin(const char *name, rf_operation_t **out)
{
    return begin(RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_LOCK, name, 1, out);
}

rf_err_t rf_semaphore_create(const char *name, uint32_t permits, unsigned flags, uint64_t deadline_ns)
{
    return create(RF_REGISTRY_KIND_SEMAPHORE, name, permits, flags, deadline_ns);
}

rf_err_t rf_semaphore_delete(const char *name, uint64_t deadline_ns)
{
    return delete (RF_REGISTRY_KIND_SEMAPHORE, name, deadline_ns);
}

rf_err_t rf_semaphore_acquire(const char *name, uint32_t n, uint64_t *token, uint64_t deadline_ns)
{
    return acquire(RF_REGISTRY_KIND_SEMAPHORE, name, n, false, token, deadline_ns);
}

rf_err_t rf_semaphore_try(const char *name, uint32_t n, uint64_t *token, uint64_t deadline_ns)
{
    return acquire(RF_REGISTRY_KIND_SEMAPHORE, name, n, true, token, deadline_ns);
}

rf_err_t rf_semaphore_release(const char *name, uint64_t token, uint64_t deadline_ns)
{
    return release(RF_REGISTRY_KIND_SEMAPHORE, name, token, deadline_ns);
}

rf_err_t rf_semaphore_acquire_begin(const char *name, uint32_t n, rf_operation_t **out)
{
    return begin(RF_REGISTRY_ACQUIRE, RF_REGISTRY_KIND_SEMAPHORE, name, n, out);
}

/* An answer that nobody waits for any more: permits go back. */
void rf_lib_registry_abandoned(const rf_operation_t *operation)
{
    lib_registry_request_t request;
    bool permits = operation->kind_waited == RF_REGISTRY_KIND_LOCK ||
                   operation->kind_waited == RF_REGISTRY_KIND_SEMAPHORE;
    if (!permits || operation->request->err != RF_OK ||
        operation->request->out_size < sizeof operation->reply.done)
        return;
    rf_client_registry_t head = {.what = RF_REGISTRY_RELEASE,
                                 .kind = operation->kind_waited,
                                 .number = operation->reply.done.revision};
    if (rf_lib_registry_encode(&request, &head, operation->name, NULL, 0, NULL, 0) == RF_OK)
        (void)rf_lib_tell(&rf_me.client, RF_CLIENT_REGISTRY_CHANGE, &request.head, request.size);
}

/* ---- barriers ---- */

rf_err_t rf_barrier_wait(const char *name, uint32_t parties, uint64_t *generation, uint64_t deadline_ns)
{
    rf_operation_result_t result;
    rf_client_registry_t head = {.what = RF_REGISTRY_WAIT, .kind = RF_REGISTRY_KIND_BARRIER, .n = parties};
    rf_err_t err = wait_for(&head, name, &result, deadline_ns);
    if (err == RF_OK && generation) *generation = result.revision;
    return err;
}

rf_err_t rf_barrier_wait_begin(const char *name, uint32_t parties, rf_operation_t **out)
{
    return begin(RF_REGISTRY_WAIT, RF_REGISTRY_KIND_BARRIER, name, parties, out);
}

/* ---- queues ---- */

rf_err_t rf_queue_create(const char *name, uint32_t max, unsigned flags, uint64_t deadline_ns)
{
    return create(RF_REGISTRY_KIND_QUEUE, name, max, flags, deadline_ns);
}

rf_err_t rf_queue_delete(const char *name, uint64_t deadline_ns)
{
    return delete (RF_REGISTRY_KIND_QUEUE, name, deadline_ns);
}

rf_err_t rf_queue_push(const char *name, const void *message, size_t size, uint64_t deadline_ns)
{
    rf_client_registry_t head = {.what = RF_REGISTRY_PUSH, .kind = RF_REGISTRY_KIND_QUEUE};
    return rf_lib_registry_change(&head, name, message, size, deadline_ns);
}

static rf_err_t pop(const char *name, bool only_try, void *message, size_t *size, uint64_t deadline_ns)
{
    rf_operation_result_t result;
    rf_client_registry_t head = {
        .what = RF_REGISTRY_POP, .kind = RF_REGISTRY_KIND_QUEUE, .flags = only_try ? RF_REGISTRY_TRY : 0};
    rf_err_t err = wait_for(&head, name, &result, deadline_ns);
    if (err != RF_OK) return err;
    memcpy(message, result.message, result.size);
    *size = result.size;
    return RF_OK;
}

rf_err_t rf_queue_pop(const char *name, void *message, size_t *size, uint64_t deadline_ns)
{
    return pop(name, false, message, size, deadline_ns);
}

rf_err_t rf_queue_try_pop(const char *name, void *message, size_t *size, uint64_t deadline_ns)
{
    return pop(name, true, message, size, deadline_ns);
}

rf_err_t rf_queue_pop_begin(const char *name, rf_operation_t **out)
{
    return begin(RF_REGISTRY_POP, RF_REGISTRY_KIND_QUEUE, name, 0, out);
}
