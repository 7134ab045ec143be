// The gradient that leaves a linear layer's epilogue, by the kernels of the tensors' device.
#include "activation_cuda.h"
#include "activation_parameter.h"
#include "driver/launch.h"
#include "matmul.h"

namespace nk {

void run_bias_backward(BiasBackwardCall c) {
    c.p[0] = rounded(c.activation, c.p[0], c.g.dtype, true);
    if (!driver::launches_on(c.g.device)) return bias_backward_cpu(c);
    cuda::activation_bias_backward(c.gz, c.gb, c.g, c.z, {c.activation, c.p[0], c.p[1]});
}

}  // namespace nk
