/*
 * No access through a stale mapping. Each group is an address space of a few pages: a two-phase operation maps one, a
 * one-phase operation unmaps one, at the moment at which the process's CPU driver has carried it out. Domains use what is
 * mapped whenever they like, stalled or not, expelled or not, until they are fenced: so once an unmap has been answered,
 * no process that runs may have that page by an operation before it, nor come to have it later. Who joins is sent the
 * owner's mappings, which may be older by then than what it has carried out itself; who leaves keeps none.
 */
#include "groups.h"

static unsigned page_of(const group_op_id_t *id)
{
    uint64_t hash = sim_mix(id->group, id->counter);
    hash = sim_mix(hash, (uint64_t)id->member.incarnation << 16 | id->member.core);
    return (unsigned)(hash >> 40) % SIM_GROUP_PAGES;
}

static bool is_group(uint64_t group)
{
    return group > 0 && group <= SIM_GROUPS_MAX;
}

static void check_mapping(sim_world_t *w, const sim_process_t *p, uint64_t group, unsigned page)
{
    const sim_groups_t *l = w->groups;
    const sim_mapping_t *m = &l->mappings[p->core][group - 1][page];
    if (m->is_mapped && m->number < l->revoked[group - 1][page])
        sim_violation(
            w, "access",
            "core %u (incarnation %u) can use page %u of group %llu as operation %llu mapped it, and its "
            "unmapping, operation %llu, has been answered",
            p->core, p->incarnation, page, (unsigned long long)group, (unsigned long long)m->number,
            (unsigned long long)l->revoked[group - 1][page]);
}

static void set(sim_world_t *w, const sim_process_t *p, uint64_t group, unsigned page, sim_mapping_t mapping)
{
    sim_mapping_t *m = &w->groups->mappings[p->core][group - 1][page];
    if (m->number >= mapping.number) return;
    *m = mapping;
    check_mapping(w, p, group, page);
}

void check_access_applied(sim_world_t *w, const sim_process_t *p, uint32_t number, uint64_t group,
                          uint64_t position)
{
    sim_group_op_t *op = &w->groups->ops[number];
    if (!is_group(group)) return;
    op->position = position;
    set(w, p, group, page_of(&op->id),
        (sim_mapping_t){.number = position, .is_mapped = op->phase == GROUP_TWO_PHASE});
}

void check_access_answered(sim_world_t *w, uint32_t number)
{
    const sim_group_op_t *op = &w->groups->ops[number];
    if (!is_group(op->id.group)) return;
    unsigned page = page_of(&op->id);
    uint64_t *revoked = &w->groups->revoked[op->id.group - 1][page];
    if (*revoked < op->position) *revoked = op->position;
    for (unsigned i = 0; i < w->n_cores; i++) {
        if (w->processes[i].alive) check_mapping(w, &w->processes[i], op->id.group, page);
    }
}

void check_access_copied(sim_world_t *w, const sim_process_t *p, uint64_t group, const sim_mapping_t *pages)
{
    for (unsigned i = 0; i < SIM_GROUP_PAGES; i++) set(w, p, group, i, pages[i]);
}

void check_access_ended(sim_world_t *w, const sim_process_t *p, uint64_t group)
{
    if (is_group(group)) memset(w->groups->mappings[p->core][group - 1], 0, sizeof w->groups->mappings[0][0]);
}
