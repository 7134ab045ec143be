// A product, and the gradient that leaves a linear layer's epilogue, by the kernels of the tensors' device.
#include "activation/parameter.h"
#include "driver/launch.h"
#include "matmul/problem.h"

namespace nk {

void run_matmul(MatmulCall call) {
    if (call.out.numel() == 0) return;
    call.p[0] = rounded(call.activation, call.p[0], call.out.dtype, false);
    driver::launches_on(call.out.device) ? cuda::matmul(call) : cpu::matmul(call);
}

void run_bias_backward(BiasBackwardCall call) {
    call.p[0] = rounded(call.activation, call.p[0], call.g.dtype, true);
    driver::launches_on(call.g.device) ? cuda::bias_backward(call) : cpu::bias_backward(call);
}

}  // namespace nk
