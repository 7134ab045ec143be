// What csrc hands to the CPU matmul kernels, the same for every instruction set.
#pragma once

#include <cstdint>

#include "../../dtype.h"
#include "../product/packed_row.h"

namespace nk::cpu {

// A matrix in memory; strides are in elements and may be zero or negative.
struct MatmulOperand {
    const void* data;
    int64_t row, col;
};

// out = act(alpha * sum + bias) + beta * residual; preact receives what goes into act. Null pointers switch parts off.
struct MatmulEpilogue {
    MatmulOperand bias{}, residual{};
    MatmulOperand preact{};  // written
    double alpha = 1, beta = 0;
    int activation = 0;
    double p[2] = {0, 0};
    // Applies the activation in place to n accumulators; null for identity.
    void (*activate)(void* x, int64_t n, int activation, const double* p) = nullptr;
};

// Rows of an unpacked b that are read side by side, as streams that the hardware follows; with more of them, kc, each
// panel is prefetched instead.
inline constexpr int64_t kMatmulStreams = 16;

// One thread's rectangle: out[m, n] from a[m, k] and b[k, n].
struct MatmulTask {
    MatmulOperand a, b, out;
    int64_t m, n, k;
    MatmulEpilogue epilogue;
    int mr, nv;          // rows and vectors of a register tile
    int64_t kc, nc, mc;  // depth and width of a block of b in the second cache; rows of a that share its sums
    bool pack_a, pack_b;
    bool sums_only;            // out receives accumulators, the epilogue is left to `finish`
    char* work;                // this thread's, 64-byte aligned; packed b lies at its start
    int64_t work_a, work_acc;  // offsets in `work` of packed a and of the sums
    const void* next_b;        // of the batch's next matrix, to be fetched ahead; or null
};

// `count` products, their operands so many elements apart; the last one has `last` rows.
struct MatmulSteps {
    int64_t out, a, b;
    int64_t count, last;
};

// Shapes of the register tiles of one dtype.
struct MatmulTile {
    const char *name, *isa;  // of the microkernel, for the trace
    int mr, nv;              // largest tile: rows, vectors
    int lanes;               // accumulators in a vector
    int group;               // consecutive k that one unit of a packed operand holds (2: pairs of bf16)
    int unit, acc;           // bytes of a unit, of an accumulator
    int dot_rows;            // rows of the few-row kernel's register tile
    bool same_type;          // a unit is what memory holds, so that an unpacked a can feed the microkernel
    int stream_mr;           // rows that `stream` takes with nv vectors
    int wide_mr, wide_nv;    // its wider tile, for fewer rows; 0 where there is none
    int stream_unit;         // bytes of a unit of `stream`
};

// gz[m, n] = g * act'(z), and the sums of its columns, unrounded; gz and sums may be null, z where act is identity.
struct ActivationBiasTask {
    MatmulOperand gz, g, z;
    void* sums;  // n accumulators
    int64_t m, n;
    int activation;
    double p[2];
};

struct MatmulEntries {
    MatmulTile tile[kFloatTypes];
    // Blocked product.
    void (*block[kFloatTypes])(const MatmulTask&);
    // The same loops with b unpacked and read along n, converted as it is loaded (pack_b = false).
    void (*stream[kFloatTypes])(const MatmulTask&);
    // Few rows (task.m <= kMatmulDotRows) against a b whose columns are contiguous along k.
    void (*dot[kFloatTypes])(const MatmulTask&);
    // Products whose a, b and out each lie within one vector, nothing but a bias after them; null where there is none.
    void (*small[kFloatTypes])(const MatmulTask&, const MatmulSteps&);
    // Sums `parts` partial results `stride` accumulators apart, each [m, n] contiguous, then the epilogue.
    void (*finish[kFloatTypes])(const MatmulTask&, const void* partial, int64_t stride, int parts);
    // Applies an activation in place to n accumulators (whole vectors) of that dtype's products.
    void (*activate[kFloatTypes])(void* x, int64_t n, int activation, const double* p);
    void (*bias_backward[kFloatTypes])(const ActivationBiasTask&);
    // out[j * step] = sums[j] + sums[stride + j] + ..., `parts` terms, rounded once.
    void (*bias_finish[kFloatTypes])(void* out, int64_t step, const void* sums, int64_t stride, int parts, int64_t n);
};

inline constexpr int kMatmulDotRows = 32;
inline constexpr int kMatmulDotCols = 64;  // columns whose sums are gathered before the epilogue

}  // namespace nk::cpu
