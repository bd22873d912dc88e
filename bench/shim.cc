/* Google Benchmark behind shim.h, and the main() of every bench-<backend> and
 * bench-peer-<peer>. Exits with 0, 2 for a wrong option, 3 if some case was
 * given up.
 *
 * SPDX-License-Identifier: MIT */
#include <benchmark/benchmark.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sched.h>
#include <string>
#include <vector>

#include "memory.h"
#include "shim.h"

struct bench_state {
    benchmark::State &state;
};

namespace {

/* Made at first use: constructors of C files may run before ours. */
std::vector<const bench_workload *> &workloads() {
    static std::vector<const bench_workload *> all;
    return all;
}

#ifdef __clang__
const char compiler[] = __VERSION__; /* "Debian Clang 14.0.6" */
#else
const char compiler[] = "gcc " __VERSION__;
#endif

/* Runs that ended in bench_skip(). */
int given_up;

/* The CPUs that the process was given, and the one that it keeps to. */
cpu_set_t allowed, kept;

/* Keeps the process on the last CPU that it may use: not the first, which
 * serves most interrupts. Returns the CPU, or -1. */
int pin() {
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0)
        return -1;
    for (int cpu = CPU_SETSIZE - 1; cpu >= 0; cpu--) {
        if (!CPU_ISSET(cpu, &allowed))
            continue;
        CPU_ZERO(&kept);
        CPU_SET(cpu, &kept);
        if (sched_setaffinity(0, sizeof kept, &kept) == 0)
            return cpu;
        break;
    }
    kept = allowed;
    return -1;
}

/* Lets the core leave its power-saving clock before anything is timed. */
void warm_up(double seconds) {
    std::clock_t end =
        std::clock() + static_cast<std::clock_t>(seconds * CLOCKS_PER_SEC);
    while (std::clock() < end) {
    }
}

void run(benchmark::State &state, const bench_workload *workload,
         int64_t number) {
    bench_state shim{state};
    workload->run(&shim, number);
}

void add_to_library(const bench_workload *workload, const std::string &prefix) {
    const bench_case whole = {"", 0};
    const bench_case *cases = workload->cases ? workload->cases : &whole;
    std::size_t count = workload->cases ? workload->case_count : 1;
    for (std::size_t i = 0; i < count; i++) {
        std::string name = (workload->bare ? "floor" : prefix) + "/";
        name += workload->name;
        if (!cases[i].name)
            name += "/" + std::to_string(cases[i].number);
        else if (*cases[i].name)
            name += std::string("/") + cases[i].name;
        benchmark::RegisterBenchmark(name.c_str(), run, workload,
                                     cases[i].number);
    }
}

} // namespace

extern "C" {

void bench_register(const bench_workload *workload) {
    workloads().push_back(workload);
}

bool bench_keep_running(bench_state *s, int64_t iterations) {
    return s->state.KeepRunningBatch(iterations);
}

void bench_pause(bench_state *s) { s->state.PauseTiming(); }
void bench_resume(bench_state *s) { s->state.ResumeTiming(); }

void bench_counter(bench_state *s, const char *name, double value) {
    s->state.counters[name] = value;
}

void bench_counter_per_iteration(bench_state *s, const char *name,
                                 double value) {
    s->state.counters[name] =
        benchmark::Counter(value, benchmark::Counter::kAvgIterations);
}

void bench_label(bench_state *s, const char *text) { s->state.SetLabel(text); }

void bench_skip(bench_state *s, const char *why) {
    s->state.SkipWithError(why);
    given_up++;
}

void bench_lacks(bench_state *s, const char *what) {
    s->state.SkipWithError(what);
}

void bench_unpin(void) { (void)sched_setaffinity(0, sizeof allowed, &allowed); }

void bench_pin(void) { (void)sched_setaffinity(0, sizeof kept, &kept); }
}

int main(int argc, char **argv) {
    std::string name = bench_subject_of_this.name();
    int cpu = pin();
    if (cpu < 0)
        std::fprintf(stderr,
                     "warning: not pinned to a CPU (%s): expect more noise\n",
                     std::strerror(errno));
    if (argc == 4 && std::strcmp(argv[1], BENCH_MEMORY_OPTION) == 0)
        for (const bench_workload *workload : workloads())
            if (workload->memory && std::strcmp(workload->name, argv[2]) == 0)
                return bench_memory_main(workload, argv[3]);
    benchmark::AddCustomContext("contestant", name);
    benchmark::AddCustomContext(bench_subject_of_this.version_of,
                                bench_subject_of_this.version());
    benchmark::AddCustomContext("compiler", compiler);
    benchmark::AddCustomContext("pinned_to_cpu", std::to_string(cpu));
    for (const bench_workload *workload : workloads()) {
        if (!workload->bare)
            benchmark::AddCustomContext(std::string("unit:") + workload->name,
                                        workload->unit);
        add_to_library(workload, name);
    }
    benchmark::Initialize(&argc, argv);
    if (benchmark::ReportUnrecognizedArguments(argc, argv))
        return 2;
    warm_up(0.05);
    benchmark::RunSpecifiedBenchmarks();
    benchmark::Shutdown();
    return given_up ? 3 : 0;
}
