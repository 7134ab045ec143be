// grid_sample on CUDA: a thread for each point, or for each pixel of a gradient, see kernels/cuda/resampling.
#include <algorithm>

#include "context/context.h"
#include "driver/kernel.h"
#include "kernels/cuda/resampling/params.h"
#include "plan/arithmetic.h"
#include "resampling/grid_sample.h"
#include "resampling/problem.h"
#include "tensor/check.h"

namespace nk::resampling {

void run_cuda(const GridProblem& problem) {
    cuda::GridSampleParams p;
    p.out = problem.out.data, p.x = problem.x.data, p.grid = problem.grid.data, p.g = problem.g.data;
    p.rule = problem.rule, p.batch = problem.batch(), p.channels = problem.channels();
    for (int k = 0; k < 3; ++k) p.size[k] = problem.size(k), p.points[k] = problem.points(k);
    const auto strides = [](const TensorView& of, int64_t (&to)[5]) {
        if (of.ndim < 4) return;
        const Strides s(of);
        std::copy(s.of, s.of + 5, to);
    };
    strides(problem.x, p.x_stride), strides(problem.g, p.g_stride), problem.grid_strides(p.grid_stride);
    const int64_t slices = plan::ceil_div(p.channels, cuda::kGridSlice), points = problem.all_points();
    // tiles: 256 pixels, of volumes 4 x 8 x 8
    int64_t left = cuda::kGridThreads;
    for (int k = 2; k >= 0; --k) {
        int64_t side = k == 0 ? left : k == 1 && p.size[0] == 1 ? left : p.size[0] > 1 ? 8 : 16;
        if (k == 2)
            while (side < left && p.size[1] * p.size[0] == 1) side *= 2;
        p.tile[k] = side, left /= side;
        p.tiles[k] = plan::ceil_div(p.size[k], side);
    }
    int64_t blocks =
        plan::ceil_div(p.batch * points * (problem.work == GridWork::sample ? slices : 1), cuda::kGridThreads);
    if (problem.work == GridWork::image_gradient) blocks = p.tiles[0] * p.tiles[1] * p.tiles[2] * slices * p.batch;
    blocks = std::min(blocks, int64_t{64} * cuda::multiprocessors(problem.grid.device));
    constexpr const char* const works[] = {"grid_sample_", "grid_sample_image_gradient_", "grid_sample_grid_gradient_"};
    constexpr const char* const modes[] = {"bilinear", "nearest", "bicubic"};
    const std::string kernel = concat(works[static_cast<int>(problem.work)], modes[static_cast<int>(p.rule.mode)],
                                      p.rule.dims, "_", cuda::short_name(problem.out.dtype));
    if (trace::active())
        trace::record({problem.op, "cuda", kernel,
                       concat("points ", p.batch * points, ", grid ", blocks, " x ", cuda::kGridThreads), ""});
    cuda::launch(problem.op, "resampling_grid_sample", kernel, blocks, 1, cuda::kGridThreads, problem.grid.device, p);
}

}  // namespace nk::resampling
