// Which CPU kernel multiplies two matrices, in what blocks and on how many threads. Pure: no memory, no machine.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/cpu/matmul/entries.h"

namespace nk::cpu {

// Rows no farther apart share the first cache as well as if they were packed.
inline constexpr int64_t kNearBytes = 1536;

// One product out[m, n] = a[m, k] @ b[k, n], repeated `batch` times. Strides matter only where they are 1.
struct MatmulProblem {
    int64_t batch, m, n, k;
    DType dtype;
    bool a_row1, a_col1;  // a is contiguous along m, along k
    bool b_row1, b_col1;  // b is contiguous along k, along n
    bool out_row1, out_col1;
    bool a_near, b_near;  // rows of a (columns of b) are contiguous and follow each other within kNearBytes
    bool bare;            // no epilogue
    int threads;
    int small_rows;  // that the kernel for whole vectors takes at a time; 0: the problem is none for it
    bool operator==(const MatmulProblem&) const = default;
};

enum class MatmulPath : int { packed, unpacked, stream, dot, small };

struct MatmulPlan {
    MatmulPath path;
    bool swap;  // compute the transpose: out.t() = b.t() @ a.t()
    bool pack_a, pack_b;
    int mr, nv;
    int64_t kc, nc, mc;
    int tm, tn, tk;  // parts of m, n and k; tm * tn * tk parts for each matrix of the batch
    int threads;
    double cycles;  // estimated, of the slowest thread
};

MatmulPlan plan_matmul(const MatmulProblem& problem, const MatmulTile& tile);

// "packed f32 14x32 kc 384 nc 320 mc 160 threads 1x2x1"
std::string to_string(const MatmulPlan& plan, const MatmulTile& tile);

// First row, column or step of part `index` of `parts`, parts being multiples of `grain` but for the last.
constexpr int64_t part_begin(int64_t size, int64_t grain, int index, int parts) {
    const int64_t grains = (size + grain - 1) / grain;
    const int64_t begin = grains * index / parts * grain;
    return begin < size ? begin : size;
}

}  // namespace nk::cpu
