#include "convolution/problem.h"
#include "tensor/check.h"

namespace nk::convolution {

void forward_cuda(const Forward& p) { fail_runtime(p.op, "has no CUDA kernel yet"); }
void data_gradient_cuda(const DataGradient& p) { fail_runtime(p.op, "has no CUDA kernel yet"); }
void weight_gradient_cuda(const WeightGradient& p) { fail_runtime(p.op, "has no CUDA kernel yet"); }
void channel_sums_cuda(const ChannelSums& p) { fail_runtime(p.op, "has no CUDA kernel yet"); }

}  // namespace nk::convolution
