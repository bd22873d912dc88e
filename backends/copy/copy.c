/* The copy backend: live stack bytes are copied between a place that several
 * greenlets share and the heap, only when somebody else needs the place.
 *
 * A region is a place: a lane, or in place the thread's own stack. Owners of
 * a region are greenlets that have bytes in it; they form a chain ordered by
 * base, the deepest first. In place:
 *
 *     high addresses
 *       main.base (the end) --------------------------------+
 *         | main's bytes                        in place    | main
 *       T.base ---- cut ------------------------------------|--+
 *         | main's bytes below T.base, in its slice         |  | T wants
 *       main.sp --------------------------------------------+  | to run
 *         |                                                    | from here
 *       B.base ------------------------------------+           | down
 *         | B's bytes            all in its slice  | B         |
 *       B.sp --------------------------------------+           |
 *                                                              v
 *     chain before: B -> main            chain after: T -> main
 *
 * A switch to T first saves every byte still in place below T.base that is
 * another's: T will grow down, so whether its own range [T.sp, T.base)
 * overlaps is not the question. An owner whose base is not above T.base goes
 * entirely and leaves the chain; the one that straddles T.base is saved up to
 * it, and later extended if another cut is higher. On a lane all bases are
 * equal: there is at most one owner, and it goes entirely.
 *
 * Where saved bytes stand: on a lane they end where the slice ends, so that
 * byte and place are as far from their aligned ends; in place they begin
 * where the slice begins (but for the alignment of sp), so that a saved part
 * can be extended upwards.
 *
 * SPDX-License-Identifier: MIT */
#include <errno.h>

#include "arch.h"
#include "backend.h"
#include "move.h"
#include "trace.h"

enum {
    GUARD_BYTES = 65536,
    STAGGER_BYTES = 7 * 64, /* from a lane's top to the next one's */
    RESERVE_CLASS = 255,    /* slices cut from the reserve         */
    RUN_GAP = 64,
    PLAN_AT = offsetof(struct greenlet_thread, b.plan)
};

_Static_assert(ARCH_AFTER_BYTES <= RUN_GAP,
               "arch_push_after writes below the lowest sp");

/* The plan begins with what assembly reads. */
static struct arch_copy *arch_of(struct copy_plan *p) {
    return (struct arch_copy *)(void *)p;
}

static struct copy_plan *plan_of(struct arch_copy *c) {
    return (struct copy_plan *)(void *)c;
}

static bool in_place(const struct greenlet_thread *t) { return t->lanes == 0; }

/* NULL for main, unless in place. */
static struct copy_region *region_of(const struct greenlet_thread *t,
                                     const greenlet *g) {
    if (in_place(t))
        return t->b.place;
    return g->b.lane == COPY_NO_LANE ? NULL : &t->b.lanes[g->b.lane];
}

/* The class of n bytes, too high if it is not a fine one, and where in such a
 * slice they begin. */
static inline size_t fine_class(size_t n) {
    return ARCH_STACK_ALIGN % 16 ? (n - 1) / 16 : n / 16 - 1;
}

static inline size_t fine_gap(size_t n) {
    return ARCH_STACK_ALIGN % 16 ? -n & 15 : 0;
}

/* Is it the frame of arch_resume, and can the port take it from anywhere? */
static inline bool is_plain_image(const char *image) {
#if ARCH_FRAME_ANYWHERE
    return *(const uintptr_t *)(const void *)image == (uintptr_t)arch_resume;
#else
    (void)image;
    return false;
#endif
}

/* ---- Slices ----------------------------------------------------------- */

/* Alignment of the first byte of a slice, in place: that of sp. */
static size_t lead(const struct greenlet_thread *t, const greenlet *g,
                   unsigned class) {
    return in_place(t) && class >= SLICE_FINE_CLASSES ? (uintptr_t)g->b.sp & 63
                                                      : 0;
}

/* What the slice of so many bytes has room for. One of the reserve: what is
 * known to; less than at first once it was exchanged for fewer. */
static size_t capacity(unsigned class, size_t saved) {
    return class == RESERVE_CLASS ? (saved + 63) & ~(size_t)63
                                  : slice_bytes(class);
}

/* The slice's own address, from that of the saved bytes. */
static char *slot_of(const struct greenlet_thread *t, const greenlet *g) {
    if (in_place(t))
        return g->b.slice - lead(t, g, g->b.class);
    return g->b.slice + g->b.saved - capacity(g->b.class, g->b.saved);
}

/* Of the reserve: the header of a slice, aligned as that is. */
struct reserve_block {
    greenlet *owner; /* NULL: free */
    size_t bytes;    /* with the header */
    char pad[64 - sizeof(greenlet *) - sizeof(size_t)];
};

_Static_assert(sizeof(struct reserve_block) == 64, "slices are 64-aligned");

static struct reserve_block *block_at(const struct greenlet_thread *t,
                                      size_t offset) {
    return (void *)(t->b.reserve + offset);
}

/* That with an owner in whose slice `p` is. */
static struct reserve_block *block_of(const struct greenlet_thread *t,
                                      const char *p) {
    size_t at = 0, wanted = (size_t)(p - t->b.reserve);
    while (at + block_at(t, at)->bytes <= wanted)
        at += block_at(t, at)->bytes;
    return block_at(t, at);
}

/* A slice for n bytes of g out of the reserve, the first that fits; NULL:
 * none does. */
static char *take_reserve(struct greenlet_thread *t, greenlet *g, size_t n) {
    size_t bytes = sizeof(struct reserve_block) + n, at = 0;
    struct reserve_block *block;
    for (; at < t->b.reserve_used; at += block->bytes) {
        block = block_at(t, at);
        if (block->owner)
            continue;
        size_t next = at + block->bytes;
        while (next < t->b.reserve_used && !block_at(t, next)->owner)
            next += block_at(t, next)->bytes;
        block->bytes = next - at;
        if (next == t->b.reserve_used) { /* what is behind it joins it */
            t->b.reserve_used = at;
            break;
        }
        if (block->bytes >= bytes)
            break;
    }
    block = block_at(t, at);
    if (at == t->b.reserve_used) {
        if (bytes > t->b.reserve_bytes - at)
            return NULL;
        t->b.reserve_used += bytes;
    } else if (block->bytes > bytes) {
        struct reserve_block *rest = block_at(t, at + bytes);
        rest->owner = NULL;
        rest->bytes = block->bytes - bytes;
    }
    block->owner = g;
    block->bytes = bytes;
    t->b.reserve_out++;
    return (char *)(block + 1);
}

static void give_reserve(struct greenlet_thread *t, const char *slot) {
    block_of(t, slot)->owner = NULL;
    if (--t->b.reserve_out == 0)
        t->b.reserve_used = 0;
}

/* Room for `n` bytes of g, all of them or (in place) the lowest. Returns
 * where they go, and the class; NULL: no memory. */
static char *take_slice(struct greenlet_thread *t, greenlet *g, size_t n,
                        bool must, uint8_t *class) {
    unsigned c = slice_class(n + (in_place(t) && n > SLICE_FINE ? 48 : 0));
    char *slot = slice_take(&t->b.slices, c);
    if (unlikely(!slot)) {
        c = RESERVE_CLASS;
        if (must)
            slot = take_reserve(t, g, capacity(c, in_place(t) ? n + 63 : n));
        if (!slot)
            return NULL;
    }
    *class = (uint8_t)c;
    if (in_place(t))
        return slot + lead(t, g, c);
    return slot + capacity(c, n) - n;
}

static void give_slot(struct greenlet_thread *t, char *slot, unsigned class) {
    if (unlikely(class == RESERVE_CLASS))
        give_reserve(t, slot);
    else
        slice_give(&t->b.slices, slot, class);
}

static void drop_slice(struct greenlet_thread *t, greenlet *g) {
    if (!g->b.slice)
        return;
    annotate_dropped(g->b.slice, g->b.saved);
    give_slot(t, slot_of(t, g), g->b.class);
    g->b.slice = NULL;
    g->b.saved = 0;
}

/* Address space for slices of those who cannot be told of -ENOMEM; touched
 * only when it comes to that. */
static int grow_reserve(struct greenlet_thread *t, size_t bytes) {
    if (bytes <= t->b.reserve_bytes)
        return 0;
    char *p = t->b.reserve_out ? NULL : memory_map(bytes, 0);
    if (!p)
        return -ENOMEM;
    if (t->b.reserve)
        memory_unmap(t->b.reserve, t->b.reserve_bytes);
    t->b.reserve = p;
    t->b.reserve_bytes = bytes;
    return 0;
}

/* ---- Lanes ------------------------------------------------------------ */

/* All lanes in a ring, from t->b.hand on: first those without owner, the one
 * that was left last in front; then the others, the one that was last given to
 * somebody longest ago in front. */

static void unlink_lane(struct greenlet_thread *t, struct copy_region *r) {
    if (t->b.hand == r)
        t->b.hand = r->next;
    r->prev->next = r->next;
    r->next->prev = r->prev;
}

/* Before the hand: as the last one. */
static void link_lane(struct greenlet_thread *t, struct copy_region *r) {
    r->next = t->b.hand;
    r->prev = r->next->prev;
    r->prev->next = r->next->prev = r;
}

static inline void lane_to_end(struct greenlet_thread *t,
                               struct copy_region *r) {
    if (likely(t->b.hand == r)) {
        t->b.hand = r->next;
    } else {
        unlink_lane(t, r);
        link_lane(t, r);
    }
}

/* Nobody owns the lane any more. */
static inline void vacate(struct greenlet_thread *t, struct copy_region *r) {
    r->head = NULL;
    if (unlikely(t->b.hand->prev != r)) {
        unlink_lane(t, r);
        link_lane(t, r);
    }
    t->b.hand = r;
}

/* `to` owns the lane from the commit on. */
static inline void occupy(struct greenlet_thread *t, greenlet *to,
                          struct copy_region *r) {
    to->b.lane = (uint16_t)(r - t->b.lanes);
    r->used = false;
    lane_to_end(t, r);
}

static int open_lane(struct greenlet_thread *t, struct copy_region *r) {
    size_t spare = memory_page() > 4096 ? memory_page() : 4096;
    size_t bytes = GUARD_BYTES + t->lane_bytes + spare;
    char *p = memory_map(bytes, 0);
    if (!p)
        return -ENOMEM;
    if (memory_guard(p, GUARD_BYTES) != 0) {
        memory_unmap(p, bytes);
        return -ENOMEM;
    }
    size_t index = (size_t)(r - t->b.lanes);
    r->memory = p;
    r->low = p + GUARD_BYTES;
    r->base = p + bytes - index * STAGGER_BYTES % spare;
    annotate_stack(r->low, r->base);
    return 0;
}

static bool shunned(const struct greenlet_thread *t,
                    const struct copy_region *r, const greenlet *from,
                    const greenlet *to) {
    const greenlet *parent = core_parent(to);
    return r == region_of(t, from) ||
           (core_state(parent) == GREENLET_ACTIVE && r == region_of(t, parent));
}

/* The lane for a start: one without owner, else the one that was last given
 * to somebody longest ago; not the starter's or parent's while there are
 * others. (A refill only marks its lane: the mark is turned into a place
 * behind the others when a start looks for one, as in the clock algorithm.) */
static struct copy_region *choose_lane(struct greenlet_thread *t,
                                       const greenlet *from,
                                       const greenlet *to) {
    struct copy_region *r = t->b.hand, *end;
    while (r->head && r->used) {
        r->used = false;
        r = t->b.hand = r->next;
    }
    end = r;
    do {
        if (!shunned(t, r, from, to))
            return r;
        r = r->next;
    } while (r != end);
    return r;
}

/* Binds a new greenlet to its lane; NULL: no memory for one. With `must` any
 * that is there will do. */
static struct copy_region *bind_lane(struct greenlet_thread *t,
                                     const greenlet *from, greenlet *to,
                                     bool must) {
    /* A greenlet that changed its thread may wish a lane that is not here. */
    bool wished = to->b.lane < t->lanes;
    struct copy_region *r =
        wished ? &t->b.lanes[to->b.lane] : choose_lane(t, from, to);
    if (unlikely(!r->memory) && open_lane(t, r) != 0) {
        if (wished && !must)
            return NULL;
        struct copy_region *end = t->b.lanes + t->lanes;
        for (r = t->b.lanes; r < end && !r->memory; r++)
            ;
        if (r == end)
            return NULL;
    }
    return r;
}

/* ---- The copying switch ----------------------------------------------- */

/* How many of O's bytes a switch to T must save, from O's sp on; 0: none.
 * A cut never goes through a register frame: that of the caller is not on the
 * stack yet when the rest of its bytes is saved. */
static size_t wanted(const greenlet *o, const char *sp, const greenlet *to) {
    const char *end = o->b.base <= to->b.base ? o->b.base : to->b.base;
    if (end <= sp + o->b.saved)
        return 0;
    size_t n = (size_t)(end - sp);
    return n < ARCH_FRAME_BYTES ? ARCH_FRAME_BYTES : n;
}

/* Makes room for n saved bytes of o. What is saved already moves along. */
static bool reserve_slice(struct greenlet_thread *t, greenlet *o, size_t n,
                          bool must) {
    uint8_t class = 0;
    if (unlikely(n > UINT32_MAX - 128))
        return false;
    if (o->b.slice && o->b.class != RESERVE_CLASS &&
        lead(t, o, o->b.class) + n <= slice_bytes(o->b.class))
        return true;
    char *slice = take_slice(t, o, n, must, &class);
    if (!slice)
        return false;
    bool moved = o->b.slice != NULL;
    if (moved) {
        harden_check(o, t->current);
        move_bytes(slice, o->b.slice, o->b.saved);
        give_slot(t, slot_of(t, o), o->b.class);
    }
    o->b.slice = slice;
    o->b.class = class;
    if (moved)
        harden_seal(o);
    return true;
}

/* Who had to go to the reserve moves to ordinary slices as soon as there is
 * memory, so that the next time without finds all of it. */
static __attribute__((noinline)) void leave_reserve(struct greenlet_thread *t) {
    for (size_t at = 0; at < t->b.reserve_used; at += block_at(t, at)->bytes) {
        greenlet *o = block_at(t, at)->owner;
        if (o && !reserve_slice(t, o, o->b.saved, false))
            return;
    }
}

/* Gives back the slices of those that have no saved byte. Only in place is
 * there one: on a lane the only owner has found none. */
static void unreserve(struct greenlet_thread *t, struct copy_region *r) {
    for (greenlet *o = r->head; o; o = o->b.next)
        if (o->b.saved == 0)
            drop_slice(t, o);
}

/* May n bytes and the slice of `to` change places, in one pass? Done where it
 * is faster than two copies and the slice fits, and for those who cannot be
 * told that there is no memory. */
static bool exchangeable(const struct greenlet_thread *t, const greenlet *to,
                         size_t n) {
    return !in_place(t) && to->b.slice &&
           n <= capacity(to->b.class, to->b.saved);
}

/* Finds room for all that must be saved before p->to can run. */
static bool reserve(struct greenlet_thread *t, struct copy_plan *p, bool must) {
    greenlet *to = p->to;
    for (greenlet *o = p->region->head; o && o != to; o = o->b.next) {
        size_t n = wanted(o, o->b.sp, to);
        if (n == 0 || (p->dying && o == p->from))
            continue;
        if (move_exchange_pays(n) && exchangeable(t, to, n) &&
            capacity(to->b.class, to->b.saved) <= n + n / 2) {
            p->exchange = true;
            continue;
        }
        if (likely(reserve_slice(t, o, n, false)))
            continue;
        if (must && exchangeable(t, to, n)) {
            p->exchange = true;
            continue;
        }
        if (must && reserve_slice(t, o, n, true))
            continue;
        if (must)
            core_fatal("no memory to save a stack, and no reserve left", o, to);
        unreserve(t, p->region);
        return false;
    }
    return true;
}

/* In place a new greenlet's base is where its starter's stack stands; if the
 * starter is dying, where that one stood. */
static bool place_base(struct greenlet_thread *t, struct copy_plan *p, char *sp,
                       bool must) {
    char *base =
        p->dying ? p->from->b.base : (char *)((uintptr_t)sp & ~(uintptr_t)63);
    p->to->b.base = base;
    if (base > t->b.place_top)
        t->b.place_top = base;
    size_t depth = (size_t)(t->b.place_top - base);
    return grow_reserve(t, (3 * depth + 65536) & ~(size_t)65535) == 0 || must;
}

static void note_eviction(struct greenlet_thread *t, struct copy_plan *p,
                          greenlet *o, size_t n) {
    p->moved += n;
    TRACE_EVICTED(t, p->after, o, n);
    counter_add(&t->counters.evictions, 1);
    counter_add(&t->counters.saved_bytes, n);
    if (unlikely(o->flags & GREENLET_STATS)) {
        counter_add(&o->side->counters->evictions, 1);
        counter_add(&o->side->counters->saved_bytes, n);
    }
}

/* Copies out all that must go before p->to can run. Only reads the stack: the
 * frame of `from` is not there yet, assembly stores it. */
static void save(struct greenlet_thread *t, struct copy_plan *p) {
    greenlet *to = p->to, *o = p->region->head;

    if (p->dying && o == p->from)
        o = o->b.next;
    for (; o && o != to; o = o->b.next) {
        char *sp = o->b.sp;
        size_t n = wanted(o, sp, to);
        if (n && !p->exchange) {
            size_t done = o->b.saved;
            if (o != p->from)
                harden_check(o, p->from);
            if (o == p->from)
                done += ARCH_FRAME_BYTES; /* assembly's */
            annotate_saving();
            move_bytes(o->b.slice + done, sp + done, n - done);
            annotate_saved(o, sp + o->b.saved, n - o->b.saved);
            note_eviction(t, p, o, n - o->b.saved);
            o->b.saved = (uint32_t)n;
            if (o != p->from)
                harden_seal(o);
        }
        if (o->b.base > to->b.base)
            break;
        if (in_place(t) || o->flags & CORE_SPECIAL || p->exchange ||
            o->b.class == RESERVE_CLASS)
            core_set_away(t, o);
        else
            core_set_tag(t, o, CORE_REFILL);
        counter_max(&t->counters.stack_high, (uint64_t)(o->b.base - sp));
    }
    /* Those that went entirely have left; during an exchange the one owner
     * is looked for once more. */
    if (!p->exchange)
        p->region->head = o;
}

static void *run_below(char *sp, char *low) {
    return (void *)((uintptr_t)((low < sp ? low : sp) - RUN_GAP) &
                    ~(uintptr_t)63);
}

static __attribute__((noinline)) struct arch_copy *
prepare(struct greenlet_thread *t, unsigned how, void *sp) {
    struct copy_plan *p = &t->b.plan;
    greenlet *from = p->from, *to = p->to;
    bool must = how & HOW_MUST;

    p->refill = false;
    if (!p->dying)
        from->b.sp = sp;
    p->exchange = false;
    p->moved = 0;
    p->after = how & HOW_AFTER;
    p->fresh = core_state(to) == GREENLET_NEW;
    if (unlikely(t->b.reserve_out))
        leave_reserve(t);
    if (p->fresh && in_place(t) && !place_base(t, p, sp, must))
        return NULL;
    if (unlikely(!reserve(t, p, must)))
        return NULL;
    core_commit(t, from, to, p->after);
    if (!in_place(t)) {
        if (p->dying && region_of(t, from) != p->region)
            vacate(t, region_of(t, from));
        if (p->fresh || !p->region->head)
            occupy(t, to, p->region);
        else
            p->region->used = true;
    }

    char *low = sp;
    if (region_of(t, from) == p->region)
        low = p->fresh ? to->b.base - ARCH_PRIMED_BYTES : to->b.sp;
    p->run_sp = run_below(sp, low);

    /* Where the frame goes: straight to its place in the slice, when it is to
     * be saved, and nobody's bytes are in it yet. A dying one's, which nobody
     * wants, to its own stack. */
    bool to_slice = !p->dying && from->b.slice && !p->exchange;
    p->frame = to_slice ? from->b.slice : sp;
    save(t, p);
    return arch_of(p);
}

/* A plain switch, `to` suspended and away or new, on a lane whose owner `o`
 * must go, all n bytes of it to `slice`. Nothing can fail any more. The same
 * steps as in prepare(); `self`: o is the current greenlet. */
static inline __attribute__((always_inline)) struct arch_copy *
evict(struct greenlet_thread *t, greenlet *to, char *sp, greenlet *o, size_t n,
      char *slice, size_t class, bool self) {
    struct copy_plan *p = &t->b.plan;
    struct copy_region *r = p->region;
    char *bytes = o->b.sp;

    o->b.slice = slice;
    o->b.saved = (uint32_t)n;
    o->b.class = (uint8_t) class;
    core_set_tag(t, o, CORE_REFILL);
    r->head = to;
    r->used = true;
    PROBE_EVICT(o, n);
    PROBE_START(to);
    PROBE_SWITCH(t->current, to);
    t->current = to;
    counter_add(&t->counters.refills, 1);
    counter_add(&t->counters.saved_bytes, n);
    counter_max(&t->counters.stack_high, n);
    p->refill = true;
    p->run_sp = run_below(sp, self ? to->b.sp : sp);
    p->frame = self ? slice : sp;
    if (self) { /* its frame is assembly's to store */
        slice += ARCH_FRAME_BYTES;
        bytes = sp + ARCH_FRAME_BYTES;
        n -= ARCH_FRAME_BYTES;
    }
    if (class < SLICE_FINE_CLASSES)
        move_small(slice, bytes, n);
    else
        move_bytes(slice, bytes, n);
    return arch_of(p);
}

/* What the two below do not do by themselves. */
static __attribute__((noinline)) struct arch_copy *
prepare_refill(struct greenlet_thread *t, greenlet *to, char *sp) {
    greenlet *from = t->current, *o = t->b.plan.region->head;
    if (likely(o && core_is_near(t, o))) {
        size_t n = (size_t)(o->b.base - (char *)o->b.sp), room;
        unsigned class = slice_fit(n, &room);
        char *slot = NULL;
        if (class < SLICE_PAGED_CLASSES)
            slot = slice_take(&t->b.slices, class);
        if (slot)
            return o == from
                       ? evict(t, to, sp, o, n, slot + room - n, class, true)
                       : evict(t, to, sp, o, n, slot + room - n, class, false);
    }
    t->victim = NULL;
    t->b.plan.from = from;
    t->b.plan.to = to;
    t->b.plan.dying = false;
    return prepare(t, 0, sp);
}

/* A warm slot for n bytes; NULL: not that easily. */
static inline char *warm_slot(struct greenlet_thread *t, size_t n) {
    size_t class = fine_class(n);
    return likely(class < SLICE_FINE_CLASSES)
               ? slice_take_warm(&t->b.slices, class)
               : NULL;
}

/* The owner is another than the current greenlet. */
static __attribute__((noinline)) struct arch_copy *
prepare_for_other(struct greenlet_thread *t, greenlet *to, char *sp) {
    greenlet *o = t->b.plan.region->head;
    if (likely(o && core_is_near(t, o))) {
        size_t n = (size_t)(o->b.base - (char *)o->b.sp);
        char *slot = warm_slot(t, n);
        if (likely(slot))
            return evict(t, to, sp, o, n, slot + fine_gap(n), fine_class(n),
                         false);
    }
    return prepare_refill(t, to, sp);
}

/* On the caller's stack; sp is where its frame belongs. The most common cases
 * have only tail calls in their way: no register needs to be saved. */
ANNOTATE_FROM_ASM struct arch_copy *arch_copy_prepare(uintptr_t how, void *sp) {
    struct greenlet_thread *t = core_self;
    if (unlikely(how <= HOW_ALL))
        return prepare(t, (unsigned)how, sp);
    greenlet *to = (greenlet *)how, *from = t->current;
    from->b.sp = sp;
    if (t->b.plan.region->head != from)
        return prepare_for_other(t, to, sp);
    size_t n = (size_t)(from->b.base - (char *)sp);
    char *slot = warm_slot(t, n);
    if (unlikely(!slot))
        return prepare_refill(t, to, sp);
    return evict(t, to, sp, from, n, slot + fine_gap(n), fine_class(n), true);
}

/* One pass over what both have, from the common base down; then the rest of
 * the longer one. The slice changes its owner. */
static void exchange(struct greenlet_thread *t, struct copy_plan *p) {
    greenlet *x = p->region->head, *to = p->to;
    size_t n = (size_t)(x->b.base - (char *)x->b.sp), saved = to->b.saved;
    char *end = to->b.slice + saved, *base = to->b.base;
    size_t both = n < saved ? n : saved;
    if (x != p->from)
        harden_check(x, p->from);
    if (saved > both)
        annotate_open(base - saved, saved - both);
    annotate_saving();
    move_exchange(base - both, end - both, both);
    if (n > both)
        move_bytes(end - n, base - n, n - both);
    else if (saved > both)
        move_bytes(base - saved, end - saved, saved - both);
    annotate_saved(x, x->b.sp, n);
    note_eviction(t, p, x, n);
    x->b.slice = end - n;
    x->b.saved = (uint32_t)n;
    x->b.class = to->b.class;
    if (unlikely(x->b.class == RESERVE_CLASS))
        block_of(t, x->b.slice)->owner = x;
    if (x != p->from)
        harden_seal(x);
    to->b.slice = NULL;
    to->b.saved = 0;
    p->region->head = NULL;
}

static __attribute__((noinline)) ANNOTATE_BARE void *
fill(struct greenlet_thread *t, struct copy_plan *p) {
    struct copy_region *r = p->region;
    greenlet *to = p->to;
    size_t n = to->b.saved;

    p->frame = NULL;
    annotate_leave(t, p->from, p->dying);
    if (p->fresh)
        annotate_open(to->b.base - ARCH_PRIMED_BYTES, ARCH_PRIMED_BYTES);
    else if (!p->exchange)
        annotate_open(to->b.sp, n);
    if (n) {
        p->moved += n;
        TRACE_FILLED(t, p->after, to, n);
        counter_add(&t->counters.fills, 1);
        counter_add(&t->counters.filled_bytes, n);
        if (unlikely(to->flags & GREENLET_STATS)) {
            counter_add(&to->side->counters->fills, 1);
            counter_add(&to->side->counters->filled_bytes, n);
        }
    }
    if (p->exchange) {
        exchange(t, p);
    } else if (n) {
        move_bytes(to->b.sp, to->b.slice, n);
        drop_slice(t, to);
    }
    if (n)
        annotate_filled(to, to->b.sp, n);
    if (r->head != to) {
        to->b.next = r->head;
        r->head = to;
    }
    if (p->fresh)
        to->b.sp = arch_prime(to->b.base, annotate_entry(to->entry));
    if (!in_place(t))
        core_set_near(t, to);
    if (p->moved) {
        counter_add(&t->counters.misses, 1);
        if (to->flags & GREENLET_STATS)
            counter_add(&to->side->counters->misses, 1);
    }
    return p->after ? arch_push_after(to->b.sp) : to->b.sp;
}

/* What evict() has begun, unless it is the most common case. A slice that
 * stays mapped keeps the frame until assembly has read it. */
static __attribute__((noinline)) void *fill_refill(struct greenlet_thread *t,
                                                   struct copy_plan *p) {
    greenlet *to = t->current;
    size_t n = to->b.saved;
    char *sp = to->b.sp;

    p->frame = NULL;
    core_set_tag(t, to, 0);
    if (n == 0) { /* it starts */
        core_set_state(to, GREENLET_ACTIVE);
        counter_add(&t->counters.starts, 1);
        occupy(t, to, p->region);
        return to->b.sp = arch_prime(to->b.base, to->entry);
    }
    PROBE_FILL(to, n);
    counter_add(&t->counters.filled_bytes, n);
    char *slice = to->b.slice;
    unsigned class = to->b.class;
    if (likely(class < SLICE_PAGED_CLASSES && is_plain_image(slice)) &&
        slice_give_warm(&t->b.slices, slice + n - slice_bytes(class), class)) {
        p->frame = slice;
        to->b.slice = NULL;
        to->b.saved = 0;
        move_bytes(sp + ARCH_FRAME_BYTES, slice + ARCH_FRAME_BYTES,
                   n - ARCH_FRAME_BYTES);
        return sp;
    }
    /* The frame too: the slice may be unmapped before it could be read. */
    move_bytes(sp, slice, n);
    drop_slice(t, to);
    return sp;
}

/* On run_sp, below all that is written. Returns the image to resume. */
ANNOTATE_BARE ANNOTATE_FROM_ASM void *arch_copy_fill(struct arch_copy *c) {
    struct copy_plan *p = plan_of(c);
    struct greenlet_thread *t = (void *)((char *)p - PLAN_AT);
    if (unlikely(!p->refill))
        return fill(t, p);

    greenlet *to = t->current;
    char *sp = to->b.sp, *slice = to->b.slice;
    size_t n = to->b.saved;
    size_t class = fine_class(n);
    if (unlikely(class >= SLICE_FINE_CLASSES || !is_plain_image(slice) ||
                 !slice_give_warm(&t->b.slices, slice - fine_gap(n), class)))
        return fill_refill(t, p);
    p->frame = slice;
    PROBE_FILL(to, n);
    to->b.slice = NULL;
    to->b.saved = 0;
    core_set_tag(t, to, 0);
    counter_add(&t->counters.filled_bytes, n);
    move_small(sp + ARCH_FRAME_BYTES, slice + ARCH_FRAME_BYTES,
               n - ARCH_FRAME_BYTES);
    return sp;
}

/* ---- The interface ---------------------------------------------------- */

int backend_adopt(struct greenlet_thread *t) {
    t->main->b.lane = COPY_NO_LANE;
    t->main->b.base = (char *)(UINTPTR_MAX & ~(uintptr_t)63);
    size_t n = in_place(t) ? 1 : (size_t)t->lanes;
    struct copy_region *regions = memory_alloc(n * sizeof(*regions));
    t->b.lanes = regions;
    if (!regions || grow_reserve(t, t->lane_bytes + 65536) != 0)
        return -ENOMEM;
    if (in_place(t)) {
        t->b.place = t->b.hand = regions; /* its memory is never opened */
        regions->head = t->main;
        regions->base = t->main->b.base;
        core_set_away(t, t->main);
    } else {
        for (size_t i = 0; i < n; i++) {
            regions[i].next = &regions[i + 1 < n ? i + 1 : 0];
            regions[i].prev = &regions[i ? i - 1 : n - 1];
        }
        t->b.hand = regions;
    }
    return 0;
}

void backend_abandon(struct greenlet_thread *t) {
    for (int i = 0; t->b.lanes && i < t->lanes; i++)
        if (t->b.lanes[i].memory)
            memory_unmap(t->b.lanes[i].memory,
                         (size_t)(t->b.lanes[i].low - t->b.lanes[i].memory) +
                             t->lane_bytes +
                             (memory_page() > 4096 ? memory_page() : 4096));
    memory_free(t->b.lanes);
    slice_pool_destroy(&t->b.slices);
    if (t->b.reserve)
        memory_unmap(t->b.reserve, t->b.reserve_bytes);
}

int backend_init(struct greenlet_thread *t, greenlet *g,
                 const greenlet_options *o) {
    g->b.lane = COPY_NO_LANE;
    g->b.sp = (void *)(uintptr_t)o->stack_bytes;
    if (in_place(t))
        return 0;
    if (o->lane != GREENLET_ANY_LANE) {
        if (o->lane < 0 || o->lane >= t->lanes)
            return -EINVAL;
        if (!t->strict)
            g->b.lane = (uint16_t)o->lane;
    }
    return backend_welcome(t, g);
}

int backend_welcome(struct greenlet_thread *t, const greenlet *g) {
    return !in_place(t) && (uintptr_t)g->b.sp > t->lane_bytes ? -E2BIG : 0;
}

/* Finds the region of `to` and whether registers are all that has to move.
 * -ENOMEM, 0: copy, 1: direct. */
static int survey(struct greenlet_thread *t, greenlet *from, greenlet *to,
                  bool dying) {
    struct copy_plan *p = &t->b.plan;
    struct copy_region *r;
    p->from = from;
    p->to = to;
    p->dying = dying;
    if (in_place(t)) {
        p->region = t->b.place;
        return 0;
    }
    if (core_state(to) != GREENLET_NEW) {
        p->region = r = region_of(t, to);
        return to->b.saved == 0;
    }
    p->region = r = bind_lane(t, from, to, dying);
    if (!r)
        return -ENOMEM;
    to->b.base = r->base;
    return r->head == NULL && r != region_of(t, from);
}

/* A new greenlet's image, on a lane that nobody owns. */
static inline void *start(struct greenlet_thread *t, greenlet *to,
                          struct copy_region *r) {
    occupy(t, to, r);
    r->head = to;
    annotate_open(to->b.base - ARCH_PRIMED_BYTES, ARCH_PRIMED_BYTES);
    to->b.sp = arch_prime(r->base, annotate_entry(to->entry));
    core_set_near(t, to);
    return to->b.sp;
}

/* A direct switch's image; nothing can fail. */
static void *commit(struct greenlet_thread *t, greenlet *from, greenlet *to,
                    unsigned how) {
    bool fresh = core_state(to) == GREENLET_NEW;
    core_commit(t, from, to, how & HOW_AFTER);
    if (fresh)
        start(t, to, t->b.plan.region);
    return how & HOW_AFTER ? arch_push_after(to->b.sp) : to->b.sp;
}

static __attribute__((noinline)) greenlet_message
switch_slow(struct greenlet_thread *t, greenlet *from, greenlet *to,
            greenlet_message m, unsigned how) {
    int direct = survey(t, from, to, false);
    if (direct > 0) {
        void *image = commit(t, from, to, how);
        annotate_leave(t, from, false);
        return arch_switch(m, &from->b.sp, image);
    }
    if (direct < 0 && how & HOW_MUST)
        core_fatal("no memory for a lane", to, from);
    if (direct < 0)
        return (greenlet_message){NULL, direct};
    return arch_switch_copy(m, how);
}

greenlet_message backend_switch(struct greenlet_thread *t, greenlet *from,
                                greenlet *to, greenlet_message m,
                                unsigned how) {
    return switch_slow(t, from, to, m, how);
}

/* A plain start on a lane whose owner must go. */
static __attribute__((noinline)) greenlet_message
start_evicting(struct greenlet_thread *t, greenlet_message m, greenlet *to) {
    const greenlet *from = t->current;
    struct copy_region *r = t->b.hand;
    if (unlikely(!r->memory || r->used || shunned(t, r, from, to)))
        return core_switch(to, m);
    to->serial = ++t->serial;
    to->b.base = r->base;
    t->b.plan.region = r;
    return arch_switch_copy(m, (uintptr_t)to);
}

/* A plain start; here: on an open lane without owner. */
greenlet_message backend_start(struct greenlet_thread *t, greenlet_message m,
                               greenlet *to) {
    greenlet *from = t->current;
    struct copy_region *r = t->b.hand;
    if (unlikely(!r->memory || r->head || core_parent(to) != from))
        return start_evicting(t, m, to);
    to->serial = ++t->serial;
    to->b.base = r->base;
    to->b.lane = (uint16_t)(r - t->b.lanes);
    t->b.hand = r->next;
    r->head = to;
    t->current = to;
    PROBE_START(to);
    PROBE_SWITCH(from, to);
    core_set_state(to, GREENLET_ACTIVE);
    core_set_tag(t, to, 0);
    counter_add(&t->counters.switches, 1);
    to->b.sp = arch_prime(r->base, to->entry);
    return arch_switch(m, &from->b.sp, to->b.sp);
}

/* For ever. */
static _Noreturn inline void leave(struct greenlet_thread *t,
                                   greenlet_message m, void *image) {
#if ARCH_LEAVE
    (void)t;
    arch_leave(m, image);
#else
    arch_switch(m, &t->b.nowhere, image);
    __builtin_unreachable();
#endif
}

_Noreturn void backend_exit(struct greenlet_thread *t, greenlet *dying,
                            greenlet *to, greenlet_message m, unsigned how) {
    int direct = survey(t, dying, to, true);
    if (direct < 0)
        core_fatal("no memory for a lane at a death", to, dying);
    if (direct) {
        struct copy_region *r = region_of(t, dying);
        void *image = commit(t, dying, to, how);
        vacate(t, r);
        annotate_leave(t, dying, true);
        leave(t, m, image);
    }
    arch_switch_copy(m, how);
    __builtin_unreachable();
}

_Noreturn void backend_leave(struct greenlet_thread *t, greenlet_message m,
                             greenlet *dying, greenlet *to) {
    vacate(t, &t->b.lanes[dying->b.lane]);
    leave(t, m, to->b.sp);
}

void backend_release(struct greenlet_thread *t, greenlet *g) {
    struct copy_region *r = region_of(t, g);
    for (greenlet **link = &r->head; *link; link = &(*link)->b.next)
        if (*link == g) {
            *link = g->b.next;
            if (!in_place(t))
                vacate(t, r);
            break;
        }
    drop_slice(t, g);
}

void backend_describe(const greenlet *g, greenlet_stack *out,
                      const void **saved) {
    out->sp = g->b.sp;
    out->base = g->b.base;
    out->saved_bytes = g->b.saved;
    *saved = g->b.slice;
}

#ifdef GREENLET_HARDEN
void backend_trust(const greenlet *g, struct harden_trust *out) {
    out->words[0] = (uintptr_t)g->b.sp;
    out->words[1] = (uintptr_t)g->b.base;
    out->words[2] = g->b.saved;
    out->words[3] = g->b.saved ? (uintptr_t)g->b.slice : 0;
    out->image = g->b.saved ? g->b.slice : g->b.sp;
    out->bytes = sizeof(uintptr_t);
}
#endif

void backend_bounds(const struct greenlet_thread *t, const greenlet *g,
                    uintptr_t *low, uintptr_t *high, size_t *guard) {
    const struct copy_region *r = region_of(t, g);
    if (!in_place(t) && g == t->b.plan.to && core_state(g) == GREENLET_NEW)
        r = t->b.plan.region; /* chosen, and not yet occupied */
    bool lane = r && r->memory;
    *low = lane ? (uintptr_t)r->low : 0;
    *high = lane ? (uintptr_t)r->base : UINTPTR_MAX;
    *guard = lane ? GUARD_BYTES : 0;
}

/* ---- For checks -------------------------------------------------------- */

int backend_lane(const greenlet *g) {
    return g->b.lane == COPY_NO_LANE ? -1 : g->b.lane;
}

static const char *sound_place(const struct greenlet_thread *t,
                               const greenlet *g) {
    uintptr_t base = (uintptr_t)g->b.base;
    if (g->flags & CORE_MAIN)
        return g->b.base == t->b.place->base ? NULL : "its base is wrong";
    if (base & 63 || base > (uintptr_t)t->b.place_top ||
        (t->own_high && (base <= t->own_low || base > t->own_high)))
        return "its base is not on the thread's stack";
    return NULL;
}

static const char *sound_lane(const struct greenlet_thread *t,
                              const greenlet *g) {
    if (g->flags & CORE_MAIN)
        return g->b.lane == COPY_NO_LANE && !g->b.saved ? NULL
                                                        : "main is on a lane";
    if (g->b.lane >= t->lanes || !t->b.lanes[g->b.lane].memory)
        return "there is no such lane";
    const struct copy_region *r = &t->b.lanes[g->b.lane];
    if (g->b.base != r->base)
        return "its base is not that of its lane";
    if (!g->b.saved && r->head != g)
        return "its bytes are neither in its lane nor saved";
    return NULL;
}

const char *backend_sound(struct greenlet_thread *t, const greenlet *g) {
    const char *what = in_place(t) ? sound_place(t, g) : sound_lane(t, g);
    if (what || !g->b.saved)
        return what;
    if (g->b.class != RESERVE_CLASS &&
        (g->b.class >= SLICE_CLASSES || slice_bytes(g->b.class) < g->b.saved))
        return "more bytes are saved than its slice has";
    return check_known(t, g->b.slice, g->b.saved) ? NULL
                                                  : "its slice is not there";
}

void backend_point(struct greenlet_thread *t, const greenlet *g,
                   struct backend_point_info *out) {
    out->trampoline = arch_start;
    out->end_high = (uintptr_t)g->b.base;
    out->end_low = out->end_high - ARCH_PRIMED_BYTES;
    out->owned_high = (uintptr_t)g->b.sp + ARCH_FRAME_BYTES;
    if (in_place(t) && out->owned_high < (uintptr_t)t->b.place_top)
        out->owned_high = (uintptr_t)t->b.place_top;
}
