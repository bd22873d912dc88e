/* Greenlets without end: thousands of them take turns in a random order, from
 * random depths, die and are replaced, and each looks at every byte of its
 * stack whenever it is resumed.
 *
 *   soak [--switches N | --seconds N] [--alive N] [--lanes N] [--seed N]
 *        [--faults EVERY]
 *
 * Two things are looked at. Each frame is full of a pattern with a key of its
 * own, which is computed anew and compared. And all bytes from the deepest of
 * these frames up to the stack's base, with whatever the compiler and the
 * library have put between them, must have the same hash as before.
 *
 * With --faults, once in EVERY switches one bit of a suspended greenlet's
 * pattern is turned over, in its place or in the heap, wherever the byte is
 * just then. Every fault must be found, and nothing else; that is the test of
 * the test. Exit status 1 if it is otherwise.
 *
 * As in the suite, GREENLET_TEST_SHARE=N, or 4 of GREENLET_TEST_QUICK=1, makes
 * it one in N of --switches.
 *
 * SPDX-License-Identifier: MIT */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backend.h" /* where the bytes of a suspended one are */

enum {
    FRAMES = 8,
    LIFE = 400, /* switches to a greenlet, at most; half of it on average */
    NEAR = 6    /* one in two switches goes to one of so many neighbours  */
};

struct frame {
    unsigned char *at;
    size_t bytes;
    uint64_t key;
};

/* One for each greenlet that is alive; on the heap. */
struct life {
    greenlet *g;
    const unsigned char *base;
    uint64_t hash;
    uint32_t left, id;
    bool faulty, running;
    int n;
    struct frame frames[FRAMES];
};

static struct life *lives;
static struct life of_main;
static unsigned alive = 1000;
static uint32_t *vacant; /* whose greenlets are dead */
static unsigned n_vacant;
static uint64_t limit, state = 1, every;
static time_t end;
static bool over;
static int lanes; /* of copy, if there are any */

static uint64_t checked, bytes_checked, births, injected, found, unexpected;

static uint64_t roll(void) { /* xorshift64* */
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * UINT64_C(0x2545f4914f6cdd1d);
}

/* ---- Patterns ----------------------------------------------------------- */

static __attribute__((noinline)) void paint(const struct frame *f) {
    uint64_t *words = (uint64_t *)(void *)f->at;
    for (size_t i = 0; i < f->bytes / 8; i++)
        words[i] = f->key + i * UINT64_C(0x9e3779b97f4a7c15);
}

/* How many bits differ; 0 takes the short way. */
static __attribute__((noinline)) unsigned differs(const struct frame *f) {
    const uint64_t *words = (const uint64_t *)(const void *)f->at;
    uint64_t wrong = 0;
    unsigned bits = 0;
    for (size_t i = 0; i < f->bytes / 8; i++)
        wrong |= words[i] ^ (f->key + i * UINT64_C(0x9e3779b97f4a7c15));
    if (wrong == 0)
        return 0;
    for (size_t i = 0; i < f->bytes / 8; i++)
        bits += (unsigned)__builtin_popcountll(
            words[i] ^ (f->key + i * UINT64_C(0x9e3779b97f4a7c15)));
    return bits;
}

/* Of [low, base), both multiples of 16. Four chains, so that multiplications
 * overlap. */
static __attribute__((noinline)) uint64_t hash_of(const unsigned char *low,
                                                  const unsigned char *base) {
    const uint64_t *w = (const uint64_t *)(const void *)low;
    const uint64_t *stop = (const uint64_t *)(const void *)base;
    const uint64_t k = UINT64_C(0xd6e8feb86659fd93);
    uint64_t a = k, b = k + 1, c = k + 2, d = k + 3;
    for (; stop - w >= 4; w += 4) {
        a = (a ^ w[0]) * k;
        b = (b ^ w[1]) * k;
        c = (c ^ w[2]) * k;
        d = (d ^ w[3]) * k;
    }
    for (; w < stop; w++)
        a = (a ^ w[0]) * k;
    a = (a ^ (a >> 32) ^ b) * k;
    a = (a ^ (a >> 32) ^ c) * k;
    return (a ^ (a >> 32) ^ d) * k;
}

static uint64_t hash_of_life(const struct life *me) {
    return me->base ? hash_of(me->frames[me->n - 1].at, me->base) : 0;
}

/* In the resumed one. A fault is put right, so that it is found once. */
static void look(struct life *me) {
    unsigned bits = 0;
    uint64_t hash = hash_of_life(me);
    for (int i = 0; i < me->n; i++) {
        unsigned wrong = differs(&me->frames[i]);
        bytes_checked += me->frames[i].bytes;
        if (wrong) {
            bits += wrong;
            paint(&me->frames[i]);
        }
    }
    checked++;
    if (bits == 1 && me->faulty && (!me->base || hash != me->hash)) {
        found++;
    } else if (bits || me->faulty || hash != me->hash) {
        unexpected++;
        fprintf(stderr,
                "soak: greenlet %" PRIu32 ": %u bits of its pattern are "
                "wrong, its stack's hash is %s, %s\n",
                me->id, bits, hash == me->hash ? "right" : "wrong",
                me->faulty ? "one fault was injected"
                           : "no fault was injected");
    }
    me->faulty = false;
}

/* ---- Faults ------------------------------------------------------------- */

/* Turns over one bit of a suspended greenlet. */
static void inject(void) {
    struct life *life = &lives[roll() % alive];
    if (!life->g || life->running || life->faulty || life->n == 0 ||
        greenlet_get_state(life->g) != GREENLET_ACTIVE)
        return;
    const struct frame *f = &life->frames[roll() % (unsigned)life->n];
    unsigned char *byte = f->at + roll() % f->bytes;
    greenlet_stack s;
    const void *saved;
    backend_describe(life->g, &s, &saved);
    size_t offset = (size_t)(byte - (const unsigned char *)s.sp);
    if (offset < s.saved_bytes)
        byte = (unsigned char *)(uintptr_t)saved + offset;
    *byte = (unsigned char)(*byte ^ 1u << roll() % 8);
    life->faulty = true;
    injected++;
}

/* ---- Lives -------------------------------------------------------------- */

static struct life *choose(const struct life *me) {
    uint64_t r = roll();
    if (me != &of_main && r & 1)
        return &lives[(me->id + 1 + (r >> 1) % NEAR) % alive];
    return &lives[(r >> 1) % alive];
}

static void note_time(void) {
    if (limit ? checked >= limit : (checked & 4095) == 0 && time(NULL) >= end)
        over = true;
}

/* Gives control away; false when it is time to die. */
static __attribute__((noinline)) bool hop(struct life *me) {
    struct life *next = choose(me);
    greenlet *to = next->g && next != me && !over ? next->g : of_main.g;
    if (every && checked % every == 0)
        inject();
    me->hash = hash_of_life(me);
    me->running = false;
    greenlet_message m = greenlet_switch(to, next);
    me->running = true;
    look(me);
    note_time();
    if (m.status < 0) {
        fprintf(stderr, "soak: %s\n", greenlet_strerror(m.status));
        exit(1);
    }
    return m.status == 0 && --me->left;
}

/* Typically some hundred bytes in all, sometimes some thousand. */
static __attribute__((noinline)) bool dwell(struct life *me) {
    uint64_t r = roll();
    size_t bytes = (size_t)(16 + 16 * (r & 7));
    if ((r >> 8 & 511) == 0)
        bytes = (size_t)(16 * (1 + (r >> 16) % 500));
    unsigned char *room = __builtin_alloca(bytes);
    int index = me->n++;
    bool lives_on = true;
    me->frames[index] = (struct frame){room, bytes, roll()};
    paint(&me->frames[index]);
    while (lives_on) {
        r = roll() >> 40;
        if (me->n < FRAMES && r % 16 == 0)
            lives_on = dwell(me);
        else if (index > 0 && r % 16 == 1)
            break;
        else
            lives_on = hop(me);
    }
    me->n = index;
    return lives_on;
}

static greenlet_message entry(void *value) {
    struct life *me = value;
    greenlet_stack s;
    me->running = true;
    if (greenlet_get_stack(greenlet_current(), &s) != 0)
        exit(1);
    me->base = (const unsigned char *)s.base;
    while (dwell(me))
        continue;
    me->running = false;
    me->base = NULL;
    vacant[n_vacant++] = (uint32_t)(me - lives);
    return (greenlet_message){NULL, 0};
}

static void bear(struct life *life) {
    greenlet_options o = GREENLET_OPTIONS_INIT;
    if (life->g)
        greenlet_unref(life->g);
    *life = (struct life){.id = (uint32_t)(life - lives),
                          .left = 1 + (uint32_t)(roll() % LIFE)};
    o.parent = of_main.g;
    if (lanes > 0 && roll() & 1)
        o.lane = (int)(roll() % (unsigned)lanes);
    life->g = greenlet_new(entry, &o);
    if (!life->g) {
        perror("soak: greenlet_new");
        exit(1);
    }
    births++;
}

/* Main has a pattern too: in place, it is copied as any other. */
static __attribute__((noinline)) void run(void) {
    unsigned char *room = __builtin_alloca(400);
    of_main.frames[0] = (struct frame){room, 400, 77};
    of_main.n = 1;
    of_main.g = greenlet_main();
    of_main.left = UINT32_MAX;
    paint(&of_main.frames[0]);
    for (unsigned i = 0; i < alive; i++)
        bear(&lives[i]);
    while (!over) {
        hop(&of_main);
        of_main.left = UINT32_MAX;
        while (n_vacant)
            bear(&lives[vacant[--n_vacant]]);
    }
    every = 0;
    for (unsigned i = 0; i < alive; i++) {
        greenlet_kill(lives[i].g);
        greenlet_unref(lives[i].g);
    }
}

static uint64_t number(const char *text) {
    char *rest;
    double x = strtod(text, &rest); /* 1e9 is convenient */
    if (*rest || x < 0) {
        fprintf(stderr, "soak: \"%s\" is not a number\n", text);
        exit(2);
    }
    return (uint64_t)x;
}

static uint64_t share(void) {
    const char *text = getenv("GREENLET_TEST_SHARE");
    const char *quick = getenv("GREENLET_TEST_QUICK");
    uint64_t n = text && *text ? number(text) : quick && *quick == '1' ? 4 : 1;
    return n ? n : 1;
}

int main(int argc, char **argv) {
    greenlet_thread_options o = GREENLET_THREAD_OPTIONS_INIT;
    end = time(NULL) + 10;
    for (int i = 1; i < argc; i += 2) {
        if (i + 1 == argc) {
            fprintf(stderr,
                    "usage: soak [--switches N | --seconds N] [--alive N] "
                    "[--lanes N] [--seed N] [--faults EVERY]\n");
            return 2;
        }
        uint64_t n = number(argv[i + 1]);
        if (strcmp(argv[i], "--switches") == 0)
            limit = (n + share() - 1) / share();
        else if (strcmp(argv[i], "--seconds") == 0)
            end = time(NULL) + (time_t)n;
        else if (strcmp(argv[i], "--alive") == 0)
            alive = (unsigned)n;
        else if (strcmp(argv[i], "--lanes") == 0)
            lanes = o.lanes = (int)n;
        else if (strcmp(argv[i], "--seed") == 0)
            state = n | 1;
        else if (strcmp(argv[i], "--faults") == 0)
            every = n;
        else
            return fprintf(stderr, "soak: what is %s?\n", argv[i]), 2;
    }
    lives = calloc(alive, sizeof *lives);
    vacant = calloc(alive, sizeof *vacant);
    if (!alive || !lives || !vacant || greenlet_thread_configure(&o) != 0)
        return fprintf(stderr, "soak: no memory, or no such lanes\n"), 2;
    uint64_t asked = every;
    struct timespec begin, now;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    run();
    clock_gettime(CLOCK_MONOTONIC, &now);
    double seconds = (double)(now.tv_sec - begin.tv_sec) +
                     1e-9 * (double)(now.tv_nsec - begin.tv_nsec);
    greenlet_statistics s = GREENLET_STATISTICS_INIT;
    greenlet_thread_statistics(&s);
    printf("backend=%s lanes=%d greenlets=%" PRIu64 " switches=%" PRIu64
           " bytes_checked=%" PRIu64 " bytes_copied=%" PRIu64
           " faults_injected=%" PRIu64 " faults_found=%" PRIu64
           " unexpected=%" PRIu64 " seconds=%.1f\n",
           greenlet_backend(),
           strcmp(greenlet_backend(), "copy") ? -1 : o.lanes, births, checked,
           bytes_checked, s.saved_bytes + s.filled_bytes, injected, found,
           unexpected, seconds);
    free(lives);
    free(vacant);
    return unexpected || injected != found || (asked && !injected);
}
