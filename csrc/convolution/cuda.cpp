// Convolutions on CUDA: which kernels take them.
#include "convolution/cuda.h"

namespace nk::convolution {

void forward_cuda(const Forward& p) {
    if (!on_cuda::depthwise_forward(p) && !on_cuda::tiled_forward(p)) on_cuda::plain_forward(p);
}
void data_gradient_cuda(const DataGradient& p) {
    if (!on_cuda::depthwise_data_gradient(p) && !on_cuda::tiled_data_gradient(p)) on_cuda::plain_data_gradient(p);
}
void weight_gradient_cuda(const WeightGradient& p) {
    if (!on_cuda::depthwise_weight_gradient(p) && !on_cuda::tiled_weight_gradient(p)) on_cuda::plain_weight_gradient(p);
}

}  // namespace nk::convolution
