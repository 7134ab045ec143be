// What the host calls of the activation family: kernels over runs and rows, one table for each instruction set.
#pragma once

#include <cstdint>

#include "../../activation.h"
#include "../../dtype.h"

namespace nk::cpu {

// A run of n elements. Outputs are contiguous. An input is contiguous (step 1), or one value repeated kRepeat times
// in a small block that the kernel reads over and over (step 0).
inline constexpr int kRepeat = 64;

struct Run {
    void* out[2];
    const void* in[3];
    int64_t step[3];
    int64_t n;
    double p[2];          // the activation's parameters
    int64_t ahead;        // bytes by which inputs are fetched ahead; 0 where they are in cache anyway
    unsigned char* bits;  // one for each element, of a kernel that keeps them or reads them; in steps of 64 elements
    bool past;            // outputs go past the caches; they are aligned to 64 bytes then
    // of a kernel that reads one value of a repeated input: so many runs, and bytes from one to the next
    int64_t rows = 1, next_out = 0, next_in[2] = {};
};
using RunKernel = void (*)(const Run&);

// Inputs and outputs of each pass, in the order of Run.
enum class Pass : int {
    forward,         // x -> f(x)
    backward,        // g, x -> g*f'(x)
    backward2,       // h, g, x -> h*g*f''(x)
    gated,           // a, b -> f(a)*b
    gated_backward,  // g, a, b -> g*b*f'(a), g*f(a)
    // where the output tells the derivative, the same of y = f(x) in the place of x; null elsewhere
    backward_from_output,
    backward2_from_output,
};
inline constexpr int kPasses = 7;

// g, x, w -> gx; besides, the gradient of w is added up: over the whole run into sum[0] where w is one value, or
// element by element into sum[0..n) where it runs along; sum is float, or double for double tensors; null: not wanted.
struct PreluBackward {
    Run run;
    void* sum;
};

enum class SoftmaxKind : int { softmax, log_softmax, softmin };

// Rows of n contiguous elements; strides from row to row in elements. In the backward x is the output y.
struct SoftmaxRows {
    void* out;
    const void* x;
    const void* g;
    int64_t rows, n;
    int64_t out_stride, x_stride, g_stride;
    SoftmaxKind kind;
    bool stream;  // the output is too large for the caches: write it past them
};

// `columns` neighbouring columns of n elements each; strides along a column in elements.
struct SoftmaxColumns {
    void* out;
    const void* x;
    const void* g;
    int64_t columns, n;
    int64_t out_stride, x_stride, g_stride;
    SoftmaxKind kind;
};

// to[i * to_apart + j] = from[j * from_apart + i] for i < rows, j < columns; strides in elements. They do not overlap.
struct Transpose {
    void* to;
    const void* from;
    int64_t rows, columns;
    int64_t to_apart, from_apart;
};

// The elementary functions by themselves, for tests of their accuracy.
enum class MathFunction : int { exp, expm1, log, log1p, tanh, erf, sigmoid };
inline constexpr int kMathFunctions = 7;
inline constexpr const char* kMathNames[] = {"exp", "expm1", "log", "log1p", "tanh", "erf", "sigmoid"};

struct ActivationEntries {
    RunKernel run[kPasses][kActivations][kFloatTypes];
    RunKernel keeping[kActivations][kFloatTypes];  // x -> f(x) and bits, where f' has two values; null elsewhere
    RunKernel kept[kActivations][kFloatTypes];     // g, bits -> g*f'
    RunKernel prelu[kFloatTypes];
    void (*prelu_backward[kFloatTypes])(const PreluBackward&);
    void (*softmax_rows[kFloatTypes])(const SoftmaxRows&);
    void (*softmax_rows_backward[kFloatTypes])(const SoftmaxRows&);
    void (*softmax_columns[kFloatTypes])(const SoftmaxColumns&);
    void (*softmax_columns_backward[kFloatTypes])(const SoftmaxColumns&);
    void (*transpose[3])(const Transpose&);                  // elements of 2, 4, 8 bytes
    void (*round_one[kFloatTypes])(void* to, double value);  // one number in the table's type
    RunKernel math[kMathFunctions][kFloatTypes];
};

}  // namespace nk::cpu
