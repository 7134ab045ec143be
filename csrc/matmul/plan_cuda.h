// The CUDA plan of a matmul: a pure function from problem and device to the kernel, its tile and how k is split.
// It lists every kernel that can do the job with every split that makes sense, estimates the clocks each would take
// and keeps the least. The rates below are estimates from published figures of the instructions and the memory.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "plan/gpu.h"

namespace nk::plan {

// How one operand lies in memory.
struct MatrixOperand {
    bool k_major = true;  // loaded along k (else along its outer index, m or n)
    int access = 16;      // bytes that one load may take: 16, 8, 4, or 0 for single elements with any step
    bool operator==(const MatrixOperand&) const = default;
};

struct MatmulProblem {
    int64_t m = 0, n = 0, k = 0, batches = 1;
    DType dtype = DType::f32;
    bool tf32 = false;      // f32 may be rounded to tf32
    bool may_split = true;  // a workspace can be had
    MatrixOperand a, b;
    std::string only = {};  // weigh only kernels whose name contains this
    bool operator==(const MatmulProblem&) const = default;
};

enum class MatmulKind : int { mma, simt, plain };

// A compiled kernel. The compile-time tiles of kernels/cuda/matmul are these rows; tests compare them with the fatbins.
struct MatmulKernel {
    MatmulKind kind;
    DType dtype;          // of operands and result
    const char* element;  // as in the kernel's name: the dtype, or tf32
    int m, n, k;          // tile
    int threads, stages;
    int shared;  // bytes of dynamic shared memory
    int blocks;  // per multiprocessor, as far as registers go
    bool only_k_major_a;
    double rate;  // multiply-adds per clock of a full multiprocessor (compute capability 8.0)
    double step;  // clocks that one tile of k takes at least: barrier, latency of shared memory
};

struct MatmulPlan {
    const MatmulKernel* kernel = nullptr;
    bool a_k_major = true, b_k_major = true;
    int tiles_m = 0, tiles_n = 0, group = 1, splits = 1;
    int64_t k_per_split = 0;
    int64_t workspace_pitch = 0;  // numbers per row of partial sums
    int64_t workspace_bytes = 0;  // 0 with one split
    int a_access = 0, b_access = 0;
    double clocks = 0;

    std::string name() const;    // extern "C" name
    std::string fatbin() const;  // file name without ending
    std::string describe() const;
};

// Every kernel there is.
const std::vector<MatmulKernel>& matmul_kernels();

// Names of all kernels that a plan can ask for, with their fatbins.
std::vector<std::pair<std::string, std::string>> matmul_kernel_names();

// Every plan that can do the job, unsorted; plan_matmul takes the one with the least clocks.
std::vector<MatmulPlan> enumerate_matmul(const MatmulProblem& problem, const Gpu& gpu);
MatmulPlan plan_matmul(const MatmulProblem& problem, const Gpu& gpu);

}  // namespace nk::plan
