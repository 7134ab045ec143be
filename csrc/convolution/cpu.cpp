#include "convolution/depthwise_cpu.h"
#include "convolution/problem.h"
#include "tensor/check.h"

namespace nk::convolution {

void forward_cpu(const Forward& p) {
    if (depthwise_forward(p)) return;
    fail_runtime(p.op, "has no CPU kernel yet");
}
void data_gradient_cpu(const DataGradient& p) {
    if (depthwise_data_gradient(p)) return;
    fail_runtime(p.op, "has no CPU kernel yet");
}
void weight_gradient_cpu(const WeightGradient& p) {
    if (depthwise_weight_gradient(p)) return;
    fail_runtime(p.op, "has no CPU kernel yet");
}
void channel_sums_cpu(const ChannelSums& p) { fail_runtime(p.op, "has no CPU kernel yet"); }

}  // namespace nk::convolution
