#include "convolution/problem.h"
#include "tensor/check.h"

namespace nk::convolution {

void forward_cpu(const Forward& p) { fail_runtime(p.op, "has no CPU kernel yet"); }
void data_gradient_cpu(const DataGradient& p) { fail_runtime(p.op, "has no CPU kernel yet"); }
void weight_gradient_cpu(const WeightGradient& p) { fail_runtime(p.op, "has no CPU kernel yet"); }
void channel_sums_cpu(const ChannelSums& p) { fail_runtime(p.op, "has no CPU kernel yet"); }

}  // namespace nk::convolution
