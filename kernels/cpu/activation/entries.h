// What the host calls of the activation family: kernels over runs, one table for each instruction set.
#pragma once

#include "../../activation.h"
#include "../elementwise/entries.h"

namespace nk::cpu {

// Inputs and outputs of each pass, in the order of Run.
enum class Pass : int {
    forward,         // x -> f(x)
    backward,        // g, x -> g*f'(x)
    backward2,       // h, g, x -> h*g*f''(x)
    gated,           // a, b -> f(a)*b; of the activations of gated units
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
    RunKernel math[kMathFunctions][kFloatTypes];
};

}  // namespace nk::cpu
