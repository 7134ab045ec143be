// How attention on the CPU is divided: a pure function of the problem and the number of threads.
#pragma once

#include <algorithm>
#include <string>

#include "attention/cpu.h"
#include "kernels/cpu/attention/tiles.h"

namespace nk::attention {

struct CpuPlan {
    double work;  // nanoseconds on one thread, roughly
    int threads;
    int64_t pairs;                    // of batch entries (or sequences) and heads of keys and values
    int64_t alone;                    // pairs that one thread has to itself; all threads share the rest
    int64_t most_queries, most_keys;  // of a sequence
    bool few;                         // the kernel for few queries
    int64_t parts;                    // of the keys, for few queries
};

CpuPlan plan_cpu(const Problem& p, const cpu::AttentionTile& tile, int threads, double products);
std::string to_string(const CpuPlan& plan);

}  // namespace nk::attention
