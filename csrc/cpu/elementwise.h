// Elementwise kernels on tensors of one shape and any strides: from tensors to the contiguous runs that kernels take.
#pragma once

#include "kernels/cpu/elementwise/entries.h"
#include "tensor/view.h"

namespace nk::cpu {

inline constexpr int kMaxOperands = kMostOutputs + kMostInputs;

// Tensors of one shape and dtype: outputs first, then inputs, in the kernel's order.
struct Elementwise {
    RunKernel kernel;
    int outs, ins;
    double p[2];
    double cost;  // nanoseconds per element on one thread, roughly: decides on threads
    const TensorView* tensor[kMaxOperands];
    bool reads_one = false;         // of the last input, where it is repeated, the kernel reads but one value
    int64_t long_row = 64;          // elements; contiguous rows from so long on go to the kernel as they are
    unsigned char* bits = nullptr;  // of a kernel that keeps or reads them; only with run_contiguous and a new output

    int operands() const { return outs + ins; }
};

// Threads that are worth waking for `elements` at `cost` nanoseconds each.
int threads_for(int64_t elements, double cost);

// The kernel on all elements of tensors that were checked, recorded in the trace; long work gives up the interpreter
// lock. `kernel` is its name.
void run(const char* op, const char* kernel, const Elementwise& e);

// All tensors lie contiguous in the same order, or are one value (inputs): runs without looking at strides again.
bool is_contiguous(const Elementwise& e);
void run_contiguous(const Elementwise& e, int64_t elements);

// Any strides. Permuted dense tensors become contiguous; rows that are contiguous in all tensors are runs; other rows
// pass through blocks on the stack. No copy of a tensor is made.
void run_strided(const Elementwise& e);

}  // namespace nk::cpu
