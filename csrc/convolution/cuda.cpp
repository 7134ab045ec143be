// Convolutions on CUDA: which kernels take them.
#include "convolution/cuda.h"

namespace nk::convolution {

void forward_cuda(const Forward& p) { on_cuda::plain_forward(p); }
void data_gradient_cuda(const DataGradient& p) { on_cuda::plain_data_gradient(p); }
void weight_gradient_cuda(const WeightGradient& p) { on_cuda::plain_weight_gradient(p); }

}  // namespace nk::convolution
