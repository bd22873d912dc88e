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

enum {
    GUARD_BYTES = 65536,
    STAGGER_BYTES = 7 * 64, /* from a lane's top to the next one's */
    RESERVE_CLASS = 255,    /* slices cut from the reserve         */
    RUN_GAP = 64,
    HOW_REFILL = 0x100 /* beside HOW_: see prepare_refill     */
};

struct copy_region {
    greenlet *head; /* the chain */
    char *base, *low;
    struct copy_region *next, **link; /* in the free or busy list */
    struct copy_region *prev;
    char *memory;
    bool used; /* since it was last looked at for a start */
};

_Static_assert(ARCH_AFTER_BYTES <= RUN_GAP,
               "arch_push_after writes below the lowest sp");

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

/* ---- Slices ----------------------------------------------------------- */

/* Alignment of the first byte of a slice, in place: that of sp. */
static size_t lead(const struct greenlet_thread *t, const greenlet *g,
                   unsigned class) {
    return in_place(t) && class >= 32 ? (uintptr_t)g->b.sp & 63 : 0;
}

static size_t capacity(unsigned class, size_t saved) {
    return class == RESERVE_CLASS ? (saved + 127) & ~(size_t)63
                                  : slice_bytes(class);
}

/* The slice's own address, from that of the saved bytes. */
static char *slot_of(const struct greenlet_thread *t, const greenlet *g) {
    if (in_place(t))
        return g->b.slice - lead(t, g, g->b.class);
    return g->b.slice + g->b.saved - capacity(g->b.class, g->b.saved);
}

/* Room for `n` bytes of g, all of them or (in place) the lowest. Returns
 * where they go, and the class; NULL: no memory. */
static char *take_slice(struct greenlet_thread *t, const greenlet *g, size_t n,
                        bool must, uint8_t *class) {
    unsigned c = slice_class(n + (in_place(t) && n > SLICE_FINE ? 48 : 0));
    char *slot = slice_take(&t->b.slices, c);
    if (unlikely(!slot)) {
        size_t bytes = capacity(RESERVE_CLASS, n);
        if (!must || bytes > t->b.reserve_bytes - t->b.reserve_used)
            return NULL;
        c = RESERVE_CLASS;
        slot = t->b.reserve + t->b.reserve_used;
        t->b.reserve_used += bytes;
        t->b.reserve_out++;
    }
    *class = (uint8_t)c;
    if (in_place(t))
        return slot + lead(t, g, c);
    return slot + capacity(c, n) - n;
}

static void give_slot(struct greenlet_thread *t, char *slot, unsigned class) {
    if (unlikely(class == RESERVE_CLASS)) {
        if (--t->b.reserve_out == 0)
            t->b.reserve_used = 0;
        return;
    }
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
    if (bytes <= t->b.reserve_bytes || t->b.reserve_out)
        return 0;
    char *p = memory_map(bytes, 0);
    if (!p)
        return -ENOMEM;
    if (t->b.reserve)
        memory_unmap(t->b.reserve, t->b.reserve_bytes);
    t->b.reserve = p;
    t->b.reserve_bytes = bytes;
    return 0;
}

/* ---- Lanes ------------------------------------------------------------ */

static void unlist(struct greenlet_thread *t, struct copy_region *r,
                   bool was_free) {
    struct copy_region **first = was_free ? &t->b.free : &t->b.busy;
    struct copy_region **last = was_free ? &t->b.free_last : &t->b.busy_last;
    *(r->prev ? &r->prev->next : first) = r->next;
    *(r->next ? &r->next->prev : last) = r->prev;
    r->next = r->prev = NULL;
}

static void list_last(struct greenlet_thread *t, struct copy_region *r,
                      bool as_free) {
    struct copy_region **first = as_free ? &t->b.free : &t->b.busy;
    struct copy_region **last = as_free ? &t->b.free_last : &t->b.busy_last;
    r->prev = *last;
    *(r->prev ? &r->prev->next : first) = r;
    *last = r;
}

/* Nobody owns the lane any more. */
static void vacate(struct greenlet_thread *t, struct copy_region *r) {
    r->head = NULL;
    unlist(t, r, false);
    list_last(t, r, true);
}

/* `to` owns the lane from the commit on. */
static void occupy(struct greenlet_thread *t, greenlet *to,
                   struct copy_region *r) {
    to->b.lane = (uint16_t)(r - t->b.lanes);
    unlist(t, r, r->head == NULL);
    list_last(t, r, false);
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
    for (struct copy_region *r = t->b.free; r; r = r->next)
        if (!shunned(t, r, from, to))
            return r;
    while (t->b.busy && t->b.busy->used) {
        struct copy_region *r = t->b.busy;
        r->used = false;
        unlist(t, r, false);
        list_last(t, r, false);
    }
    for (struct copy_region *r = t->b.busy; r; r = r->next)
        if (!shunned(t, r, from, to))
            return r;
    return t->b.free ? t->b.free : t->b.busy;
}

/* Binds a new greenlet to its lane; NULL: no memory for one. */
static struct copy_region *bind_lane(struct greenlet_thread *t,
                                     const greenlet *from, greenlet *to) {
    /* A greenlet that changed its thread may wish a lane that is not here. */
    bool wished = to->b.lane < t->lanes;
    struct copy_region *r =
        wished ? &t->b.lanes[to->b.lane] : choose_lane(t, from, to);
    if (unlikely(!r->memory) && open_lane(t, r) != 0) {
        if (wished)
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

/* Gives back the slices of those that have no saved byte. */
static void unreserve(struct greenlet_thread *t, struct copy_region *r) {
    for (greenlet *o = r->head; o; o = o->b.next)
        if (o->b.slice && o->b.saved == 0) {
            char *slot = in_place(t)
                             ? slot_of(t, o)
                             : o->b.slice + (o->b.base - (char *)o->b.sp) -
                                   slice_bytes(o->b.class);
            give_slot(t, slot, o->b.class);
            o->b.slice = NULL;
        }
}

/* May n bytes and the slice of `to` change places? One pass, but measured it
 * is slower than two copies by memcpy: 1.5 against 1.1 us for 64 KiB. It is
 * kept for those who cannot be told that there is no memory. */
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
    return grow_reserve(t, (2 * depth + 65536) & ~(size_t)65535) == 0 || must;
}

static void note_eviction(struct greenlet_thread *t, struct copy_plan *p,
                          greenlet *o, size_t n) {
    p->moved += n;
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
        core_set_away(t, o);
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
    if (p->fresh && in_place(t) && !place_base(t, p, sp, must))
        return NULL;
    if (unlikely(!reserve(t, p, must)))
        return NULL;
    core_commit(t, from, to, p->after);
    if (!in_place(t)) {
        if (p->dying && region_of(t, from) != p->region)
            vacate(t, region_of(t, from));
        occupy(t, to, p->region);
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
    return (struct arch_copy *)(void *)p;
}

/* The common case by itself: a suspended greenlet's bytes are away, its lane
 * has an owner that must go, and nothing is special about either. The same
 * steps as in prepare(), which takes over where they do not suffice; only
 * tail calls, so that no register needs saving. */
static inline struct arch_copy *prepare_refill(struct greenlet_thread *t,
                                               void *sp) {
    struct copy_plan *p = &t->b.plan;
    struct copy_region *r = p->region;
    greenlet *from = p->from, *to = p->to, *o = r->head;

    from->b.sp = sp;
    if (unlikely(!o))
        return prepare(t, 0, sp);
    char *bytes = o->b.sp;
    size_t n = (size_t)(o->b.base - bytes);
    unsigned class = slice_class(n);
    char *slice;
    if (unlikely(o->flags & CORE_SPECIAL || to->b.class == RESERVE_CLASS ||
                 to->b.saved > SLICE_PAGED ||
                 !(slice = slice_take_fast(&t->b.slices, class))))
        return prepare(t, 0, sp);
    slice += slice_bytes(class) - n;
    o->b.slice = slice;
    o->b.saved = (uint32_t)n;
    o->b.class = (uint8_t) class;
    core_set_away(t, o);
    r->head = NULL;
    r->used = true;
    t->current = to;
    p->refill = true;
    p->frame = sp;
    p->run_sp = run_below(sp, sp);
    if (o == from) {
        p->frame = slice;
        p->run_sp = run_below(sp, to->b.sp);
        slice += ARCH_FRAME_BYTES;
        bytes += ARCH_FRAME_BYTES;
    }
    move_small(slice, bytes, (size_t)(o->b.base - bytes));
    counter_add(&t->counters.switches, 1);
    counter_add(&t->counters.evictions, 1);
    counter_add(&t->counters.saved_bytes, n);
    counter_max(&t->counters.stack_high, n);
    return (struct arch_copy *)(void *)p;
}

/* On the caller's stack; sp is where its frame belongs. */
ANNOTATE_FROM_ASM struct arch_copy *arch_copy_prepare(unsigned how, void *sp) {
    struct greenlet_thread *t = core_self;
    return likely(how == HOW_REFILL) ? prepare_refill(t, sp)
                                     : prepare(t, how, sp);
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

    annotate_leave(t, p->from, p->dying);
    if (p->fresh)
        annotate_open(to->b.base - ARCH_PRIMED_BYTES, ARCH_PRIMED_BYTES);
    else if (!p->exchange)
        annotate_open(to->b.sp, n);

    if (p->dying && r->head == p->from)
        r->head = p->from->b.next;
    if (n) {
        p->moved += n;
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

/* On run_sp, below all that is written. Returns the image to resume. */
ANNOTATE_BARE ANNOTATE_FROM_ASM void *arch_copy_fill(struct arch_copy *c) {
    struct copy_plan *p = plan_of(c);
    struct greenlet_thread *t = core_self;
    greenlet *to = p->to;
    char *slice = to->b.slice;
    size_t n = to->b.saved;

    unsigned class = to->b.class;
    if (unlikely(!p->refill))
        return fill(t, p);
    move_small(to->b.sp, slice, n);
    to->b.slice = NULL;
    to->b.saved = 0;
    to->b.next = NULL;
    p->region->head = to;
    core_set_near(t, to);
    counter_add(&t->counters.misses, 1);
    counter_add(&t->counters.fills, 1);
    counter_add(&t->counters.filled_bytes, n);
    slice_give(&t->b.slices, slice + n - slice_bytes(class), class);
    return to->b.sp;
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
        t->b.place = regions;
        regions->head = t->main;
        regions->base = t->main->b.base;
        core_set_away(t, t->main);
    } else {
        for (size_t i = 0; i < n; i++)
            list_last(t, &regions[i], true);
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
    if (in_place(t))
        return 0;
    if (o->lane != GREENLET_ANY_LANE) {
        if (o->lane < 0 || o->lane >= t->lanes)
            return -EINVAL;
        g->b.lane = (uint16_t)o->lane;
    }
    return o->stack_bytes > t->lane_bytes ? -E2BIG : 0;
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
    p->region = r = bind_lane(t, from, to);
    if (!r)
        return -ENOMEM;
    to->b.base = r->base;
    return r->head == NULL && r != region_of(t, from);
}

/* A direct switch's image; nothing can fail. */
static void *commit(struct greenlet_thread *t, greenlet *from, greenlet *to,
                    unsigned how) {
    bool fresh = core_state(to) == GREENLET_NEW;
    core_commit(t, from, to, how & HOW_AFTER);
    if (fresh) {
        occupy(t, to, t->b.plan.region);
        t->b.plan.region->head = to;
        annotate_open(to->b.base - ARCH_PRIMED_BYTES, ARCH_PRIMED_BYTES);
        to->b.sp = arch_prime(to->b.base, annotate_entry(to->entry));
        core_set_near(t, to);
    }
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
    if (unlikely(how || !to->b.saved || in_place(t) || t->victim ||
                 (to->flags & CORE_SPECIAL)))
        return switch_slow(t, from, to, m, how);
    t->b.plan.from = from;
    t->b.plan.to = to;
    t->b.plan.region = &t->b.lanes[to->b.lane];
    t->b.plan.dying = false;
    return arch_switch_copy(m, HOW_REFILL);
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
        arch_switch(m, &t->b.nowhere, image);
    } else {
        arch_switch_copy(m, how);
    }
    __builtin_unreachable();
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
    bool lane = r && r->memory;
    *low = lane ? (uintptr_t)r->low : 0;
    *high = lane ? (uintptr_t)r->base : UINTPTR_MAX;
    *guard = lane ? GUARD_BYTES : 0;
}
