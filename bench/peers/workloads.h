/* The workloads that peers are measured with, of the same names and doing the
 * same as those of bench/workloads/; see peer.h. What the adapter cannot do is
 * given up with its words.
 *
 * C11 and C++17 at once: adapters are in either.
 *
 * SPDX-License-Identifier: MIT */
#include <alloca.h>
#include <stdio.h>
#include <string.h>

#include "../memory.h"
#include "../order.h"
#include "../shim.h"

enum { BATCH = 1000, SWITCHES = 200000 };

/* A technique whose switches take longer the more coroutines there are says
 * up to how many it is measured, and why. */
#ifndef PEER_MOST
#define PEER_MOST 1000000
#define PEER_TOO_MANY ""
#endif

/* Gives up what is too large for the peer or for the machine. */
static bool too_many(bench_state *state, size_t count) {
    if (count > PEER_MOST)
        bench_lacks(state, PEER_TOO_MANY);
    else if (!bench_affordable(count, 16384))
        bench_lacks(state, "not enough memory");
    else
        return false;
    return true;
}

/* Why a coroutine did not start, if the adapter knows better. */
#ifndef PEER_WORDS
#define PEER_WORDS "it did not start"
#endif

/* ---- Many coroutines ---------------------------------------------------- */

/* Those of the benchmark that runs now. */
static struct {
    peer_co *all;
    size_t count;         /* of those that are made           */
    size_t wanted;        /* of those that there will be      */
    long laps;            /* ring: yet to go in this batch    */
    size_t payload_bytes; /* live                             */
    double saved_bytes;   /* live: per switch, or -1: unknown */
} party;

/* ---- Whether control goes where it is sent -------------------------------
 *
 * A technique with a scheduler might run somebody else. */

static char went[16]; /* who ran, in this order */

static void went_to(char who) {
    size_t length = strlen(went);
    if (length + 1 < sizeof went)
        went[length] = who;
}

static void witness(peer_co *self, void *data) {
    char who = (char)('a' + (int)(uintptr_t)data);
    do
        went_to(who);
    while (peer_yield(self));
}

#ifndef PEER_NO_DIRECT
static void witness_direct(peer_co *self, void *data) {
    peer_co *all = (peer_co *)data;
    if (!peer_yield(self))
        return;
    went_to('d');
    peer_direct(self, &all[1]);
}
#endif

/* NULL, or what is wrong. Drops one that has ended, and suspended ones. */
static const char *verify(void) {
    peer_co *all = (peer_co *)calloc(4, sizeof *all);
    if (!all)
        return "no memory";
    memset(went, 0, sizeof went);
    const char *why_not = NULL;
    for (int i = 0; i < 3 && !why_not; i++)
        why_not =
            peer_make(&all[i], witness, (void *)(uintptr_t)i, PEER_STACK_BYTES);
    if (why_not)
        return why_not; /* and nothing else will be run */
    static const int order[] = {0, 1, 2, 1, 0, 2, 2};
    for (size_t i = 0; i < BENCH_COUNT(order); i++) {
        went_to('-');
        peer_resume(&all[order[i]]);
    }
    bool right = strcmp(went, "-a-b-c-b-a-c-c") == 0;
#ifndef PEER_NO_DIRECT
    memset(went, 0, sizeof went);
    why_not = peer_make(&all[3], witness_direct, all, PEER_STACK_BYTES);
    if (why_not)
        return why_not;
    peer_resume(&all[3]);
    went_to('-');
    peer_resume(&all[3]);
    went_to('-');
    peer_resume(&all[0]);
    went_to('-');
    peer_resume(&all[3]); /* ends */
    went_to('-');
    right = right && strcmp(went, "-db-a--") == 0;
    peer_drop(&all[3]);
#endif
    for (int i = 0; i < 3; i++)
        peer_drop(&all[i]);
    free(all);
    return right ? NULL : "control does not go where it is sent";
}

/* ---- Many, continued ----------------------------------------------------- */

/* Makes `count` that run `first`, or `rest` from the second on, with their
 * number as data, and lets each run up to its first yield. Returns NULL or why
 * not; in either case ungather() is to be called. */
static const char *gather(size_t count, size_t stack_bytes, peer_body *first,
                          peer_body *rest) {
    static bool begun;
    party.count = 0;
    party.wanted = count;
    party.all = (peer_co *)calloc(count, sizeof *party.all);
    if (!party.all)
        return "no memory";
    if (!begun) {
        const char *why_not = peer_begin();
        if (!why_not)
            why_not = verify();
        if (why_not)
            return why_not;
        begun = true;
    }
    while (party.count < count) {
        size_t i = party.count;
        const char *why_not = peer_make(&party.all[i], i == 0 ? first : rest,
                                        (void *)(uintptr_t)i, stack_bytes);
        if (why_not)
            return why_not;
        party.count++;
        if (!peer_resume(&party.all[i]))
            return PEER_WORDS;
    }
    return NULL;
}

static void ungather(void) {
    for (size_t i = 0; i < party.count; i++)
        peer_drop(&party.all[i]);
    free(party.all);
    party.all = NULL;
    party.count = 0;
}

/* Gives `why_not` up with the number of the coroutine that it happened to. */
static void give_up(bench_state *state, const char *why_not) {
    char text[200];
    if (party.count > 1)
        snprintf(text, sizeof text, "the %zuth coroutine: %s", party.count + 1,
                 why_not);
    else
        snprintf(text, sizeof text, "%s", why_not);
    bench_skip(state, text);
}

/* ---- Call frames ---------------------------------------------------------
 *
 * Each level is a real call with a real return. */

#ifdef __clang__
#define FRAME static __attribute__((noinline)) bool
#else
#define FRAME static __attribute__((noinline, noclone)) bool
#endif

FRAME yield_1(peer_co *self) {
    bool more = peer_yield(self);
    bench_use(self);
    return more;
}
FRAME yield_2(peer_co *self) {
    bool more = yield_1(self);
    bench_use(self);
    return more;
}
FRAME yield_3(peer_co *self) {
    bool more = yield_2(self);
    bench_use(self);
    return more;
}

FRAME resume_1(peer_co *co) {
    bool more = peer_resume(co);
    bench_use(co);
    return more;
}
FRAME resume_2(peer_co *co) {
    bool more = resume_1(co);
    bench_use(co);
    return more;
}
FRAME resume_3(peer_co *co) {
    bool more = resume_2(co);
    bench_use(co);
    return more;
}

#ifndef PEER_NO_DIRECT
FRAME direct_1(peer_co *self, peer_co *to) {
    bool more = peer_direct(self, to);
    bench_use(self);
    return more;
}
FRAME direct_2(peer_co *self, peer_co *to) {
    bool more = direct_1(self, to);
    bench_use(self);
    return more;
}
FRAME direct_3(peer_co *self, peer_co *to) {
    bool more = direct_2(self, to);
    bench_use(self);
    return more;
}
#endif

/* ---- What the coroutines do ---------------------------------------------- */

static void answer(peer_co *self, void *data) {
    (void)data;
    while (peer_yield(self)) {
    }
}

static void answer_3(peer_co *self, void *data) {
    (void)data;
    while (yield_3(self)) {
    }
}

static void nothing(peer_co *self, void *data) {
    (void)self;
    (void)data;
}

#ifndef PEER_NO_DIRECT

static void lead(peer_co *self, void *data) {
    (void)data;
    while (peer_yield(self))
        for (int i = 0; i < BATCH; i++)
            if (!peer_direct(self, &party.all[1]))
                return;
}

static void follow(peer_co *self, void *data) {
    (void)data;
    if (peer_yield(self))
        while (peer_direct(self, &party.all[0])) {
        }
}

static void lead_3(peer_co *self, void *data) {
    (void)data;
    while (yield_3(self))
        for (int i = 0; i < BATCH; i++)
            if (!direct_3(self, &party.all[1]))
                return;
}

static void follow_3(peer_co *self, void *data) {
    (void)data;
    if (yield_3(self))
        while (direct_3(self, &party.all[0])) {
        }
}

/* Counts the laps, and gives control back after the last. */
static void ring_first(peer_co *self, void *data) {
    (void)data;
    while (peer_yield(self))
        while (party.laps-- > 0)
            if (!peer_direct(self, &party.all[1]))
                return;
}

static void ring_member(peer_co *self, void *data) {
    size_t next = ((size_t)(uintptr_t)data + 1) % party.wanted;
    if (peer_yield(self)) /* everybody is there when it returns */
        while (peer_direct(self, &party.all[next])) {
        }
}

static void live_lead(peer_co *self, void *data) {
    (void)data;
    char *payload = (char *)alloca(party.payload_bytes);
    memset(payload, 0xa5, party.payload_bytes);
    while (peer_yield(self)) {
        for (int i = 0; i < BATCH; i++) {
            bench_use(payload);
            if (!peer_direct(self, &party.all[1]))
                return;
        }
#ifdef PEER_SAVED_BYTES
        /* The other one, saved as a whole; the next switch fills it. */
        party.saved_bytes = 2.0 * (double)PEER_SAVED_BYTES(&party.all[1]);
#endif
    }
}

static void live_follow(peer_co *self, void *data) {
    (void)data;
    char *payload = (char *)alloca(party.payload_bytes);
    memset(payload, 0x5a, party.payload_bytes);
    if (peer_yield(self))
        do
            bench_use(payload);
        while (peer_direct(self, &party.all[0]));
}

#endif /* PEER_NO_DIRECT */

/* ---- The workloads ------------------------------------------------------- */

static void run_switch(bench_state *state, int64_t number) {
    (void)number;
    const char *why_not = gather(1, PEER_STACK_BYTES, answer, answer);
    if (why_not)
        give_up(state, why_not);
    else
        while (bench_keep_running(state, 2 * (int64_t)BATCH))
            for (int i = 0; i < BATCH; i++)
                peer_resume(&party.all[0]);
    ungather();
}

/* Two that hand over to each other. */
static void duel(bench_state *state, peer_body *first, peer_body *second,
                 size_t stack_bytes) {
    const char *why_not = gather(2, stack_bytes, first, second);
    if (why_not) {
        give_up(state, why_not);
    } else {
        peer_resume(&party.all[0]);
        /* main -> a, BATCH times a -> b -> a, a -> main */
        while (bench_keep_running(state, 2 * (int64_t)BATCH + 2))
            peer_resume(&party.all[0]);
    }
    ungather();
}

static void run_pair(bench_state *state, int64_t number) {
    (void)number;
#ifdef PEER_NO_DIRECT
    (void)duel;
    bench_lacks(state, PEER_NO_DIRECT);
#else
    duel(state, lead, follow, PEER_STACK_BYTES);
#endif
}

static void run_nested(bench_state *state, int64_t direct) {
    if (direct) {
#ifdef PEER_NO_DIRECT
        bench_lacks(state, PEER_NO_DIRECT);
#else
        duel(state, lead_3, follow_3, PEER_STACK_BYTES);
#endif
        return;
    }
    const char *why_not = gather(1, PEER_STACK_BYTES, answer_3, answer_3);
    if (why_not)
        give_up(state, why_not);
    else
        while (bench_keep_running(state, 2 * (int64_t)BATCH))
            for (int i = 0; i < BATCH; i++)
                resume_3(&party.all[0]);
    ungather();
}

/* A number below 0: in an order of chance. */
static void run_hub(bench_state *state, int64_t number) {
    size_t count = (size_t)(number < 0 ? -number : number);
    if (too_many(state, count))
        return;
    uint32_t *order = bench_order(count, number < 0);
    const char *why_not =
        order ? gather(count, PEER_STACK_BYTES, answer, answer) : "no memory";
    if (why_not) {
        give_up(state, why_not);
        ungather();
        free(order);
        return;
    }
    long laps = SWITCHES / 2 / (long)count;
    laps = laps < 1 ? 1 : laps;
    while (bench_keep_running(state, 2 * laps * (int64_t)count))
        for (long lap = 0; lap < laps; lap++)
            for (size_t i = 0; i < count; i++)
                peer_resume(&party.all[order[i]]);
    ungather();
    free(order);
}

static void run_ring(bench_state *state, int64_t number) {
#ifdef PEER_NO_DIRECT
    (void)number;
    bench_lacks(state, PEER_NO_DIRECT);
#else
    size_t count = (size_t)number;
    if (too_many(state, count))
        return;
    const char *why_not =
        gather(count, PEER_STACK_BYTES, ring_first, ring_member);
    if (why_not) {
        give_up(state, why_not);
        ungather();
        return;
    }
    long laps = SWITCHES / (long)count;
    laps = laps < 2 ? 2 : laps;
    party.laps = 1; /* one to warm up */
    peer_resume(&party.all[0]);
    while (bench_keep_running(state, laps * (int64_t)count + 2)) {
        party.laps = laps;
        peer_resume(&party.all[0]);
    }
    ungather();
#endif
}

static void run_live(bench_state *state, int64_t number) {
#ifdef PEER_NO_DIRECT
    (void)number;
    bench_lacks(state, PEER_NO_DIRECT);
#else
    party.payload_bytes = (size_t)number;
    party.saved_bytes = -1;
    duel(state, live_lead, live_follow, (size_t)number + PEER_STACK_BYTES);
    bench_counter(state, "payload bytes", (double)number);
#ifdef PEER_SAVED_BYTES
    if (party.saved_bytes >= 0) {
        bench_counter(state, "bytes/switch", party.saved_bytes);
        bench_counter(state, "bytes/turn", party.saved_bytes);
    }
#endif
#endif
}

static void run_spawn(bench_state *state, int64_t number) {
    (void)number;
    enum { LIVES = 100 };
    const char *why_not = gather(1, PEER_STACK_BYTES, nothing, nothing);
    ungather();
    peer_co *co = (peer_co *)calloc(1, sizeof *co);
    if (!co)
        why_not = "no memory";
    while (!why_not && bench_keep_running(state, LIVES)) {
        for (int i = 0; i < LIVES && !why_not; i++) {
            memset((void *)co, 0, sizeof *co);
            why_not = peer_make(co, nothing, NULL, PEER_STACK_BYTES);
            if (!why_not) {
                peer_resume(co);
                peer_drop(co);
            }
        }
    }
    if (why_not)
        bench_skip(state, why_not);
    free(co);
}

static const char *park(size_t count) {
    return gather(count, PEER_STACK_BYTES, answer, answer);
}

static void run_park(bench_state *state, int64_t number) {
    size_t count = (size_t)number;
    if (too_many(state, count))
        return;
    bench_taken taken = bench_measure_memory("park", count);
    if (!taken.ok) {
        bench_skip(state, taken.why_not);
        return;
    }
    const char *why_not = NULL;
    while (!why_not && bench_keep_running(state, number)) {
        why_not = park(count);
        bench_pause(state);
        ungather();
        bench_resume(state);
    }
    if (why_not)
        bench_skip(state, why_not);
    else
        bench_count_memory(state, &taken, count, "greenlet");
}

/* ---- The lists ----------------------------------------------------------- */

static const char *peer_name(void) { return PEER_NAME; }

#ifdef __cplusplus
extern "C"
#endif
const bench_subject bench_subject_of_this = {peer_name, "peer_version",
                                                 peer_version};

__attribute__((constructor)) static void register_all(void) {
    static const bench_case nested[] = {{"hub", 0}, {"pair", 1}};
    static const bench_case hub[] = {
        {NULL, 16}, {NULL, 1024}, {NULL, 100000}, {"shuffled-100000", -100000}};
    static const bench_case ring[] = {
        {NULL, 2}, {NULL, 16}, {NULL, 1024}, {NULL, 100000}, {NULL, 1000000}};
    static const bench_case parked[] = {
        {NULL, 1000}, {NULL, 10000}, {NULL, 100000}};
    static const bench_case live[] = {
        {NULL, 64},    {NULL, 256},   {NULL, 1024},  {NULL, 4096},
        {NULL, 16384}, {NULL, 65536}, {NULL, 262144}};
    static const bench_workload all[] = {
        {"switch", "switch", run_switch, NULL, 0, false, NULL},
        {"pair", "switch", run_pair, NULL, 0, false, NULL},
        {"nested", "switch", run_nested, nested, BENCH_COUNT(nested), false,
         NULL},
        {"hub", "switch", run_hub, hub, BENCH_COUNT(hub), false, NULL},
        {"ring", "switch", run_ring, ring, BENCH_COUNT(ring), false, NULL},
        {"live", "switch", run_live, live, BENCH_COUNT(live), false, NULL},
        {"spawn", "greenlet", run_spawn, NULL, 0, false, NULL},
        {"park", "greenlet", run_park, parked, BENCH_COUNT(parked), false,
         park},
    };
    for (size_t i = 0; i < BENCH_COUNT(all); i++)
        bench_register(&all[i]);
}
