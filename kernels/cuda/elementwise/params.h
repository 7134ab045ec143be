// What the host tells elementwise kernels and those that sum columns: plain structs, passed by value. Pointers already
// point at the first element of the view; strides count elements, except that dim 0 of a layout in units counts per
// unit.
#pragma once

#include <stdint.h>

#include "../tile/index.h"

namespace nk::cuda {

inline constexpr int kElementwiseThreads = 256;
inline constexpr int kElementwiseTensors = 7;  // three outputs and four inputs at most
inline constexpr int kColumnThreads = 256;
inline constexpr int kColumnLanesLog2 = 5;  // at most 32 threads side by side along the columns

// 16-byte units of each input that a thread asks for before it uses the first: about 64 bytes in flight per thread
// with one or two inputs, 96 with three, which at 1024 threads an SM covers bandwidth x latency of a Hopper's memory.
constexpr int units_ahead(int inputs) { return inputs == 1 ? 4 : 2; }

struct ElementwiseParams {
    void* data[kElementwiseTensors] = {};  // outputs, then inputs, as the kernel's Op lists them
    Layout<kElementwiseTensors> layout;    // over `count` points: units when `vector`, else elements
    int64_t count = 0;
    int64_t numel = 0;       // elements; with one dim the last unit may be partly filled
    int32_t vector = 0;      // every tensor has stride 1 or 0 along dim 0 and is aligned: move 16-byte units
    int32_t steps = 1;       // units (or groups of a unit's worth of elements) that each thread handles
    int32_t activation = 0;  // nk::Activation
    double p[2] = {};
};

// out[r, c] elementwise, and for each column the sum over rows. partial[part, c] when partial is given, else sums[c] at
// once.
struct ColumnParams {
    void* out = nullptr;         // null: sums only
    const void* in[3] = {};      // as the kernel's Op lists them
    void* partial = nullptr;     // compute type, [parts, columns] contiguous
    void* sums = nullptr;        // null with out only
    int64_t row_stride[4] = {};  // out, in[0], in[1], in[2]
    int64_t column_stride[4] = {};
    int64_t sums_stride = 0;
    int64_t rows = 0, columns = 0;
    int64_t rows_per_part = 0;  // part = blockIdx.y
    int32_t vector = 0;         // column strides 1 (or 0), rows aligned, columns a multiple of the unit
    int32_t lanes_log2 = 0;     // 2^this threads lie along the columns, the other threads of the block along rows
    int32_t activation = 0;
    double p[2] = {};

    template <int N>
    NK_INDEX_FN void row_at(int64_t r, int64_t (&at)[N]) const {
        for (int k = 0; k < N; ++k) at[k] = r * row_stride[k];
    }
    template <int N>
    NK_INDEX_FN void column_at(int64_t c, int64_t (&at)[N]) const {
        for (int k = 0; k < N; ++k) at[k] = c * column_stride[k];
    }
    NK_INDEX_FN bool same_in_row(int input) const { return column_stride[1 + input] == 0; }
};

// Numbers of [0, 1) by Philox's counters, from block `block` on.
struct UniformParams {
    void* out = nullptr;  // contiguous
    int64_t n = 0;
    uint64_t seed = 0, block = 0, stream = 0;
};

// Adds partial[0 .. parts - 1, c] in order and rounds once.
struct FinishParams {
    const void* partial = nullptr;
    void* sums = nullptr;
    int64_t sums_stride = 0;
    int64_t columns = 0;
    int32_t parts = 0;
    int32_t lanes_log2 = 0;  // as in ColumnParams
};

}  // namespace nk::cuda
