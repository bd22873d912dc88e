/* The sigaltstack backend: each greenlet has a stack of its own, and the C
 * library's sigsetjmp and siglongjmp switch the registers. A stack is entered
 * for the first time by a signal whose handler runs on it as the alternate
 * signal stack; from then on it is re-entered through the jmp_buf that the
 * handler has filled, by every greenlet that it is ever given to.
 *
 * A greenlet's stack:
 *
 *              primed             suspended            running
 *   high  +--------------+    +--------------+    +--------------+
 *         | struct seat: |<-+ | struct seat  |    | struct seat  |
 *         |  point, self |  | |              |    |              |
 *         +--------------+  | +--------------+    +--------------+
 *         | the kernel's |  | | (dead)       |    | (dead)       |
 *         | signal frame |  | |              |    |              |
 *         +--------------+  | +--------------+    +--------------+
 *         | on_signal()  |  | | on_signal()  |    | on_signal()  |
 *    sp ->|              |  | | begin()      |    | begin()      |
 *         +--------------+  | | entry ...    |    | entry ...    |
 *         |              |  | | backend_hop()|    |              |<- sp
 *         | point in the |--+ |  struct point|<-+ +--------------+
 *         | header       | sp>|              |  | | point in the |
 *         |              |    +--------------+  | | header is    |
 *         |              |    | point in the |--+ | is NULL      |
 *   low   +--------------+    | header       |    |              |
 *           guard             +--------------+    +--------------+
 *
 * The seat is written by prime() and on_signal() when the stack is entered
 * for the first time; it stays while the stack is in the pool. The kernel's
 * frame (about 3 KiB on x86-64) and the seat count towards the size.
 *
 * The signal is real-time signal SIGRTMAX - 4, or that of GREENLET_SIGNAL.
 * While it is ours, for some microseconds at a time, others may get it that
 * is not meant for us; see on_signal(). Real-time signals queue, so none is
 * lost; a standard one that is sent to the very thread in the moment in which
 * ours is pending merges with ours, as standard signals do.
 *
 * SPDX-License-Identifier: MIT */

/* A fortified siglongjmp is __longjmp_chk, which takes a jump to a higher
 * address for one into a frame that is gone. Before the first header. */
#undef _FORTIFY_SOURCE
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* syscall */
#endif

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "backend.h"

/* At the top of each stack. */
struct seat {
    struct point point; /* on_signal(), on this stack */
    struct seat *self;  /* the point is valid         */
};

enum { CANARY_BYTES = sizeof(uintptr_t) }; /* check.c's, at a stack's top */

static size_t size_of(struct stack s) { return (size_t)(s.high - s.low); }

static struct seat *seat_of(struct stack s) {
    return (struct seat *)(((uintptr_t)s.high - CANARY_BYTES -
                            sizeof(struct seat)) &
                           ~(uintptr_t)63);
}

/* ---- Switching -------------------------------------------------------- */

static void leave(struct greenlet_thread *t, greenlet_message m, bool after) {
    t->mail = m;
    t->mail_after = after;
}

/* Takes the message, on the stack of the greenlet that it is for. */
static greenlet_message arrive(void) {
    const struct greenlet_thread *t = core_self;
    greenlet_message m = t->mail;
    return t->mail_after ? core_after(m) : m;
}

/* Notes where its caller is: all that an unwinder needs, if the caller's
 * frame has the callee-saved registers. */
static __attribute__((noinline)) void mark(struct point *p, void *fp) {
    p->ip = __builtin_extract_return_addr(__builtin_return_address(0));
    p->sp = __builtin_dwarf_cfa();
#ifdef __s390x__ /* its CFA is above the callee's register save area */
    p->sp = (char *)p->sp - 160;
#endif
    p->fp = fp;
}

/* What is in the register that a compiler takes for its frame pointer, if it
 * needs one. */
static inline __attribute__((always_inline)) void *frame_pointer(void) {
    void *fp = __builtin_frame_address(0);
#ifdef __s390x__ /* there that is the caller's sp */
    __asm__ volatile("lgr %0, %%r11" : "=r"(fp));
#endif
    return fp;
}

/* No local is changed between sigsetjmp and its second return. */
ANNOTATE_BARE greenlet_message backend_hop(greenlet_message m, greenlet *from,
                                           greenlet *to, bool after) {
    struct point here;
    leave(core_self, m, after);
    __builtin_unwind_init(); /* saves the callee-saved registers */
    mark(&here, frame_pointer());
    from->b.point = &here;
    if (sigsetjmp(here.env, 0) == 0) {
        annotate_leave(core_self, from, false);
        annotate_siglongjmp(to->b.point->env, 1);
    }
    from->b.point = NULL; /* it ends with this frame */
    return arrive();
}

/* Where unwinders end: they must not go on to on_signal() and from there to
 * the place that the signal interrupted, which is history. (EHABI's directive
 * is refused by clang's assembler in inline assembly.) */
#if defined(__ARM_EABI__) && !defined(__clang__)
#ifdef __GCC_HAVE_DWARF2_CFI_ASM /* for debuggers */
#define END_OF_STACK __asm__ volatile(".cantunwind\n\t.cfi_undefined lr")
#else
#define END_OF_STACK __asm__ volatile(".cantunwind")
#endif
#elif !defined(__GCC_HAVE_DWARF2_CFI_ASM)
#define END_OF_STACK ((void)0)
#elif defined(__x86_64__)
#define END_OF_STACK __asm__ volatile(".cfi_undefined rip")
#elif defined(__i386__)
#define END_OF_STACK __asm__ volatile(".cfi_undefined eip")
#elif defined(__aarch64__)
#define END_OF_STACK __asm__ volatile(".cfi_undefined x30")
#elif defined(__riscv)
#define END_OF_STACK __asm__ volatile(".cfi_undefined ra")
#elif defined(__powerpc64__)
#define END_OF_STACK __asm__ volatile(".cfi_undefined lr")
#elif defined(__s390x__)
#define END_OF_STACK __asm__ volatile(".cfi_undefined %r14")
#elif defined(__loongarch__)
#define END_OF_STACK __asm__ volatile(".cfi_undefined 1")
#else
#define END_OF_STACK ((void)0)
#endif

static __attribute__((noinline)) void run(void) {
    greenlet_message m = arrive();
    core_finish(annotate_entry(core_self->current->entry)(m.value));
}

static _Noreturn __attribute__((noinline)) void begin(void) {
    END_OF_STACK;
    run();
    __builtin_unreachable();
}

/* ---- The signal ------------------------------------------------------- */

enum { REQUEST_FOREIGN_MOST = 8 };

/* One priming, on the stack of the thread that does it. */
struct request {
    struct seat *seat;
    char *low;
    int signal;
    bool plain;    /* sent without our cookie, which is this address     */
    bool heard;    /* on_signal: it has run                              */
    bool done;     /* on_signal: the seat is primed                      */
    bool strayed;  /* on_signal: ours, but not on the stack that it is to
                    * enter                                              */
    int n_foreign; /* on_signal: of those that were not ours, put by     */
    siginfo_t foreign[REQUEST_FOREIGN_MOST];
};

/* Guards what follows and, against ourselves, the signal's disposition. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static bool fork_prepared;
static struct sigaction previous; /* the application's */

static int signal_number;         /* 0 until the first use */
static size_t signal_stack_bytes; /* what the kernel wants at least */

/* Sends `info` to this thread: a real-time signal goes behind those that are
 * pending. 0 or an errno constant. */
static int send_info(int signal, siginfo_t *info) {
#ifdef SYS_rt_tgsigqueueinfo
    return syscall(SYS_rt_tgsigqueueinfo, getpid(), syscall(SYS_gettid), signal,
                   info) == 0
               ? 0
               : errno;
#else
    (void)signal, (void)info;
    return ENOSYS;
#endif
}

/* Once more for the thread that has it. */
static void send_again(int signal, siginfo_t *info) {
    if (send_info(signal, info) != 0)
        pthread_kill(pthread_self(), signal);
}

static int send_ours(struct request *r) {
    siginfo_t info = {0};
    info.si_signo = r->signal;
    info.si_code = SI_QUEUE;
    info.si_pid = getpid();
    info.si_uid = getuid();
    info.si_value.sival_ptr = r;
    int status = send_info(r->signal, &info);
    if (status == ENOSYS) {
        r->plain = true;
        status = pthread_kill(pthread_self(), r->signal);
    }
    return status;
}

static bool is_ours(const struct request *r, const siginfo_t *info) {
    if (info->si_code == SI_QUEUE)
        return info->si_value.sival_ptr == r;
    if (info->si_code == SI_TKILL)
        return r->plain && info->si_pid == getpid();
    /* The kernel had no memory for what comes with a signal. (A kill() is
     * for the whole process: it waits behind those for the thread.) */
    return info->si_code == SI_USER && info->si_pid == 0;
}

/* nanosleep, but no cancellation point. */
static void pause_briefly(void) {
#ifdef SYS_nanosleep
    const struct timespec moment = {0, 20000};
    syscall(SYS_nanosleep, &moment, NULL);
#else
    sched_yield();
#endif
}

/* Returns to on_signal() now, and goes on at the greenlet's start. A signal
 * may come there before begin() is entered. */
static __attribute__((noinline)) void plant(struct seat *seat) {
    END_OF_STACK;
    if (sigsetjmp(seat->point.env, 0) != 0)
        begin();
}

/* Gets ours on the stack to be primed; and others':
 *
 * In another thread. While the handler is ours, somebody sends the signal to
 * the process or to that thread. It is sent again, to the same thread with
 * the same siginfo, and comes to whatever the application wants with it as
 * soon as we are done: so its own handler, mask, flags and interrupted
 * context are as if we had never been here. Only its delay tells.
 *
 * In the thread that primes. It was pending for this thread before ours. A
 * real-time signal is queued again behind ours; a standard one, which would
 * take the place of ours, is put by and sent again in the end. Once ours has
 * come so is any: Valgrind 3.19 lets them in that uc_sigmask says to block. */
static ANNOTATE_BARE void on_signal(int signal, siginfo_t *info,
                                    void *context) {
    struct request *r = core_self->b.request;
    const char *here = __builtin_frame_address(0);
    int saved = errno;

    if (!r) {
        pause_briefly();
        send_again(signal, info);
        errno = saved;
        return;
    }
    /* One at a time: blocked again on return. */
    sigaddset(&((ucontext_t *)context)->uc_sigmask, signal);
    r->heard = true;
    if (r->done || !is_ours(r, info)) {
        bool later = r->done || signal < SIGRTMIN;
        if (later && r->n_foreign < REQUEST_FOREIGN_MOST)
            r->foreign[r->n_foreign++] = *info;
        else if (signal >= SIGRTMIN)
            send_again(signal, info);
        errno = saved;
        return;
    }
    if (here < r->low || here >= (const char *)r->seat) {
        r->strayed = true;
        return;
    }
    r->done = true;
    plant(r->seat);
}

/* The application's disposition gives way to ours until the signal has come.
 * All signals are blocked but for that moment. */
static int exchange_signal(struct request *r) {
    struct sigaction ours = {0}, was;
    sigset_t all, only;
    bool sent = false;
    int status = 0;

    ours.sa_sigaction = on_signal;
    sigfillset(&ours.sa_mask);
    sigfillset(&all);
    sigemptyset(&only);
    sigaddset(&only, r->signal);
    for (int idle = 0; !r->done && status == 0; idle++) {
        /* Whoever else gets it now shall not see a call of his end, or go
         * on, because the handler was ours. */
        annotate_sigaction(r->signal, NULL, &was);
        bool handled = was.sa_handler != SIG_DFL && was.sa_handler != SIG_IGN;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK |
                        (handled ? was.sa_flags & SA_RESTART : SA_RESTART);
        annotate_sigaction(r->signal, &ours, &was);
        if (was.sa_sigaction != on_signal)
            previous = was;
        /* A pending standard signal has taken the place of ours, which is
         * lost; a pending real-time one only stands before it. */
        if (r->signal < SIGRTMIN || !sent)
            status = send_ours(r);
        sent = true;
        r->heard = false;
        if (status == 0) {
            pthread_sigmask(SIG_UNBLOCK, &only, NULL);
            pthread_sigmask(SIG_SETMASK, &all, NULL);
        }
        if (r->heard)
            idle = 0;
        if (r->strayed || idle == 100)
            status = EBUSY; /* somebody between the kernel and us */
    }
    annotate_sigaction(r->signal, &previous, &was);
    if (was.sa_sigaction != on_signal) /* another thread has set it now */
        annotate_sigaction(r->signal, &was, NULL);
    return status;
}

/* Makes `s` a stack that siglongjmp can enter. 0; -EBUSY: this thread runs on
 * its alternate stack, which could not be put back; -ENOMEM. */
static int prime(struct greenlet_thread *t, struct stack s) {
    struct seat *seat = seat_of(s);
    if (likely(seat->self == seat))
        return 0;

    struct request request = {
        .seat = seat, .low = s.low, .signal = signal_number};
    stack_t stack = {.ss_sp = s.low, .ss_size = (size_t)((char *)seat - s.low)};
    stack_t old_stack;
    sigset_t all, old_mask;
    int saved = errno, status;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old_mask);
    if (sigaltstack(&stack, &old_stack) != 0) {
        status = errno == EPERM ? EBUSY : ENOMEM;
    } else {
        seat->point.sp = seat;
        seat->point.ip = seat->point.fp = NULL;
        t->b.request = &request;
        pthread_mutex_lock(&lock);
        status = exchange_signal(&request);
        pthread_mutex_unlock(&lock);
        t->b.request = NULL;
        annotate_entered();
        sigaltstack(&old_stack, NULL);
        if (status == 0)
            seat->self = seat;
        for (int i = 0; i < request.n_foreign; i++)
            send_again(request.signal, &request.foreign[i]);
    }
    pthread_sigmask(SIG_SETMASK, &old_mask, NULL);
    errno = saved;
    return status == 0 || status == EBUSY ? -status : -ENOMEM;
}

/* A fork in the middle of another thread's priming would leave the child
 * with our handler and a lock that nobody gives back. */
static void fork_prepare(void) { pthread_mutex_lock(&lock); }
static void fork_done(void) { pthread_mutex_unlock(&lock); }

static int choose_signal(void) {
    int ours = SIGRTMAX - 4;
    int n = (int)config_number("GREENLET_SIGNAL", ours, 1, SIGRTMAX);
    switch (n) {
    case SIGKILL: /* cannot be handled */
    case SIGSTOP:
    case SIGCONT: /* pending ones cancel each other */
    case SIGTSTP:
    case SIGTTIN:
    case SIGTTOU:
    case SIGSEGV: /* cannot be put off */
    case SIGBUS:
    case SIGILL:
    case SIGFPE:
    case SIGTRAP:
    case SIGSYS:
        break;
    default:
        if (n < 32 || n >= SIGRTMIN) /* between: the C library's own */
            return n;
    }
    fprintf(stderr, "greenlet: GREENLET_SIGNAL=%d cannot be used; using %d\n",
            n, ours);
    return ours;
}

/* 0 or -ENOMEM. */
static int prepare_fork(void) {
    if (!fork_prepared)
        fork_prepared = pthread_atfork(fork_prepare, fork_done, fork_done) == 0;
    return fork_prepared ? 0 : -ENOMEM;
}

/* At load, before there are threads: a fork that has begun already would not
 * see the handlers that a first use in another thread registers. */
static __attribute__((constructor)) void load(void) { prepare_fork(); }

/* At a thread's first use. */
static int set_up(void) {
    pthread_mutex_lock(&lock);
    int status = prepare_fork();
    if (!signal_number) {
        signal_number = choose_signal();
#ifdef _SC_MINSIGSTKSZ
        long bytes = sysconf(_SC_MINSIGSTKSZ);
#else
        long bytes = -1;
#endif
        signal_stack_bytes = bytes > 0 ? (size_t)bytes : (size_t)MINSIGSTKSZ;
    }
    pthread_mutex_unlock(&lock);
    return status;
}

/* ---- Stacks ----------------------------------------------------------- */

/* How large a stack `g` is to have; main's is the reserve's size. */
static size_t bytes_for(const struct greenlet_thread *t, const greenlet *g) {
    size_t bytes = g->b.stack_bytes ? g->b.stack_bytes : t->stack_bytes;
    return bytes > 2 * signal_stack_bytes ? bytes : 2 * signal_stack_bytes;
}

/* Gives `to` a stack to start on. 0, -ENOMEM or -EBUSY. */
static int give_stack(struct greenlet_thread *t, greenlet *to, struct stack s) {
    int status = prime(t, s);
    if (status == 0) {
        annotate_open(s.low, (size_t)((char *)seat_of(s) - s.low));
        to->b.stack = s;
        to->b.point = &seat_of(s)->point;
    }
    return status;
}

/* Finds a stack for the new `to`. 0, -ENOMEM or -EBUSY. */
static int find_stack(struct greenlet_thread *t, const greenlet *from,
                      greenlet *to, unsigned how) {
    struct stack s, *reserve = &t->b.reserve;
    int status = stack_take(&t->b.pool, bytes_for(t, to), &s, NULL);
    if (likely(status == 0)) {
        status = give_stack(t, to, s);
        if (likely(status == 0))
            return 0;
        stack_give(&t->b.pool, s);
    }
    if (!(how & HOW_MUST))
        return status;
    if (!reserve->high || size_of(*reserve) < bytes_for(t, to) ||
        give_stack(t, to, *reserve) != 0)
        core_fatal(status == -EBUSY
                       ? "on the alternate signal stack, a start that "
                         "cannot be refused"
                       : "no memory for a stack that cannot be refused",
                   from, to);
    *reserve = (struct stack){0};
    return 0;
}

/* Lets go of a stack, perhaps the one that we run on: the reserve is made up
 * for first. */
static void drop_stack(struct greenlet_thread *t, struct stack s) {
    if (!t->b.reserve.high && size_of(s) >= bytes_for(t, t->main))
        t->b.reserve = s;
    else
        stack_give(&t->b.pool, s);
}

/* ---- backend.h -------------------------------------------------------- */

int backend_adopt(struct greenlet_thread *t) {
    t->main->b.stack.high = STACK_MAIN_BASE;
    t->b.pool.notes_apart = t->strict;
    int status = set_up();
    return status ? status
                  : stack_take(&t->b.pool, bytes_for(t, t->main), &t->b.reserve,
                               NULL);
}

void backend_abandon(struct greenlet_thread *t) {
    t->b.reserve = (struct stack){0};
    stack_pool_destroy(&t->b.pool);
}

int backend_init(struct greenlet_thread *t, greenlet *g,
                 const greenlet_options *o) {
    (void)t;
    g->b.stack_bytes = o->stack_bytes;
    return 0;
}

int backend_welcome(struct greenlet_thread *t, const greenlet *g) {
    (void)t, (void)g; /* whatever it wants is had at its start, or is not */
    return 0;
}

greenlet_message backend_switch(struct greenlet_thread *t, greenlet *from,
                                greenlet *to, greenlet_message m,
                                unsigned how) {
    bool after = (how & HOW_AFTER) != 0;
    if (!to->b.stack.high) {
        int status = find_stack(t, from, to, how);
        if (unlikely(status))
            return (greenlet_message){NULL, status};
        core_commit(t, from, to, after);
        core_set_near(t, to);
    } else {
        core_commit(t, from, to, after);
    }
    return backend_hop(m, from, to, after);
}

/* A new `to` inherits the dying one's stack if that is large enough: it is
 * primed, and jumping to its top needs nothing of what is below. */
_Noreturn ANNOTATE_BARE void backend_exit(struct greenlet_thread *t,
                                          greenlet *dying, greenlet *to,
                                          greenlet_message m, unsigned how) {
    struct stack left = dying->b.stack;
    bool after = (how & HOW_AFTER) != 0, starts = !to->b.stack.high;
    bool inherits = starts && size_of(left) >= bytes_for(t, to);
    if (inherits)
        give_stack(t, to, left);
    else if (starts)
        find_stack(t, dying, to, how | HOW_MUST);
    core_commit(t, dying, to, after);
    if (starts)
        core_set_near(t, to);
    annotate_leave(t, dying, true);
    dying->b.stack = (struct stack){0};
    dying->b.point = NULL;
    if (!inherits)
        drop_stack(t, left);
    leave(t, m, after);
    annotate_siglongjmp(to->b.point->env, 1);
    __builtin_unreachable();
}

void backend_release(struct greenlet_thread *t, greenlet *g) {
    drop_stack(t, g->b.stack);
    g->b.stack = (struct stack){0};
    g->b.point = NULL;
}

void backend_describe(const greenlet *g, greenlet_stack *out,
                      const void **saved) {
    out->sp = g->b.point ? g->b.point->sp : g->b.stack.high;
    out->base = g->b.stack.high;
    out->saved_bytes = 0;
    *saved = NULL;
}

#ifdef GREENLET_HARDEN
/* Of a jump buffer all but the mask, which there is none of. */
void backend_trust(const greenlet *g, struct harden_trust *out) {
    const struct point *point = g->b.point;
    out->words[0] = (uintptr_t)point;
    out->words[1] = (uintptr_t)g->b.stack.high;
    out->image = &point->env[0].__jmpbuf;
    out->bytes = sizeof(point->env[0].__jmpbuf);
}
#endif

void backend_bounds(const struct greenlet_thread *t, const greenlet *g,
                    uintptr_t *low, uintptr_t *high, size_t *guard) {
    (void)t;
    stack_bounds(g->b.stack, low, high, guard);
}

/* ---- For checks -------------------------------------------------------- */

int backend_lane(const greenlet *g) {
    (void)g;
    return -1;
}

const char *backend_sound(struct greenlet_thread *t, const greenlet *g) {
    return stack_holds(t, g->b.stack, g->flags & CORE_MAIN, g->b.point,
                       sizeof(struct point));
}

void backend_point(struct greenlet_thread *t, const greenlet *g,
                   struct backend_point_info *out) {
    (void)t;
    out->ip = (uintptr_t)g->b.point->ip;
    out->fp = (uintptr_t)g->b.point->fp;
    out->after_call = true;
    out->trampoline = (const char *)(uintptr_t)begin + 1;
    out->end_high = (uintptr_t)g->b.stack.high;
    out->end_low = (uintptr_t)g->b.stack.low;
    out->owned_high = 0;
}
