// What the host calls to walk through elements: runs, and what families of elementwise kernels share.
#pragma once

#include <cstdint>

#include "../../dtype.h"

namespace nk::cpu {

// A run of n elements. Outputs are contiguous. An input is contiguous (step 1), or one value repeated kRepeat times
// in a small block that the kernel reads over and over (step 0).
inline constexpr int kRepeat = 64;
inline constexpr int kMostOutputs = 3, kMostInputs = 4;

struct Run {
    void* out[kMostOutputs];
    const void* in[kMostInputs];
    int64_t step[kMostInputs];
    int64_t n;
    double p[2];          // the activation's parameters
    int64_t ahead;        // bytes by which inputs are fetched ahead; 0 where they are in cache anyway
    unsigned char* bits;  // one for each element, of a kernel that keeps them or reads them; in steps of 64 elements
    bool past;            // outputs go past the caches; they are aligned to 64 bytes then
    // of a kernel that reads one value of a repeated input: so many runs, and bytes from one to the next
    int64_t rows = 1, next_out = 0, next_in[2] = {};
};
using RunKernel = void (*)(const Run&);

// to[i * to_apart + j] = from[j * from_apart + i] for i < rows, j < columns; strides in elements. They do not overlap.
struct Transpose {
    void* to;
    const void* from;
    int64_t rows, columns;
    int64_t to_apart, from_apart;
};

// n numbers of [0, 1) by Philox's counters, from block `block` on, into contiguous memory.
struct Uniform {
    void* out;
    int64_t n;
    uint64_t seed, block, stream;
};
inline constexpr int kUniformStep = 64;  // elements: what threads share out is a multiple of it

struct ElementwiseEntries {
    void (*transpose[3])(const Transpose&);                  // elements of 2, 4, 8 bytes
    void (*round_one[kFloatTypes])(void* to, double value);  // one number in the table's type
    void (*uniform[kFloatTypes])(const Uniform&);
};

}  // namespace nk::cpu
