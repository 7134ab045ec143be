// Interpolation on CUDA: a thread for each element that is written, see kernels/cuda/resampling.
#include <algorithm>

#include "context/context.h"
#include "driver/kernel.h"
#include "kernels/cuda/resampling/params.h"
#include "plan/arithmetic.h"
#include "resampling/problem.h"
#include "tensor/check.h"

namespace nk::resampling {

void run_cuda(const Problem& problem) {
    const TensorView& out = problem.out;
    cuda::ResampleParams p;
    p.out = out.data, p.x = problem.x.data, p.count = out.numel();
    const Strides to(out), from(problem.x);
    std::copy(to.of, to.of + 5, p.out_stride);
    std::copy(from.of, from.of + 5, p.x_stride);
    p.channels = to.of[1] == 1 && out.shape[1] > 1;
    p.size[0] = out.shape[0], p.size[1] = out.shape[1];
    for (int k = 0; k < 3; ++k) p.size[2 + k] = problem.size(k);
    for (int d = 0; d < 5 && p.count >> 31 == 0; ++d)
        p.divisor[d] = cuda::make_divisor(static_cast<uint32_t>(std::max<int64_t>(p.size[d], 1)));
    std::copy(problem.dim, problem.dim + 3, p.dim);
    // enough blocks to fill the device eight times; beyond that a thread has several points
    const int64_t blocks =
        std::min(plan::ceil_div(p.count, cuda::kResampleThreads), int64_t{64} * cuda::multiprocessors(out.device));
    const std::string kernel =
        std::string(problem.transposed ? "resample_backward_" : "resample_") + cuda::short_name(out.dtype);
    if (trace::active())
        trace::record({problem.op, "cuda", kernel,
                       concat("points ", p.count, ", grid ", blocks, " x ", cuda::kResampleThreads), ""});
    cuda::launch(problem.op, "resampling_gather", kernel, blocks, 1, cuda::kResampleThreads, out.device, p);
}

}  // namespace nk::resampling
