// Elementwise kernels on CUDA: plan, trace, launch, what every family of them shares. The views have been checked by
// the caller: same dtype and device, shapes equal, outputs that overlap neither themselves nor, except as the very same
// view, an input. Launches go to torch's current stream and do not wait.
#pragma once

#include "tensor/view.h"

namespace nk::cuda {

struct ElementwiseKernel {
    const char* op;
    const char* fatbin;
    const char* name;  // without the element type
};

// What the kernel takes besides tensors: an activation's id, or 0, and parameters.
struct ElementwiseArguments {
    int activation;
    double p[2];
};

// Outputs first, then inputs, as the kernel's Op lists them.
void run_elementwise(const ElementwiseKernel& kernel, const TensorView* const* views, int outputs, int tensors,
                     const ElementwiseArguments& arguments);

template <class... Views>
void elementwise(const ElementwiseKernel& kernel, int outputs, const ElementwiseArguments& arguments,
                 const Views&... views) {
    const TensorView* const list[] = {&views...};
    run_elementwise(kernel, list, outputs, sizeof...(views), arguments);
}

}  // namespace nk::cuda
