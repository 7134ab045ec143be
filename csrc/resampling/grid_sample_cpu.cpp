// grid_sample on the CPU: threads share images and blocks of channels, and of samples also the points. What a thread
// adds to is its own; sums over channels are added block by block, so that no result depends on the threads.
#include <algorithm>

#include "call/run.h"
#include "cpu/elementwise.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"
#include "plan/arithmetic.h"
#include "resampling/grid_sample.h"
#include "resampling/problem.h"

namespace nk::resampling {

namespace {

constexpr int64_t kPlanes = 4;     // fewer channels than vectors are worth
constexpr int64_t kChannels = 32;  // of a block: an image of 56 x 56 in float32 fits the second cache twice

}  // namespace

void run_cpu(const GridProblem& p) {
    const auto& table = cpu::table().resampling;
    const int d = static_cast<int>(p.out.dtype);
    const int64_t points = p.all_points(), lanes = table.lanes[d], size = p.out.dtype == DType::f64 ? 8 : 4;
    const bool of_grid = p.work == GridWork::grid_gradient;
    if (of_grid && p.rule.mode == GridMode::nearest) {
        std::fill_n(static_cast<char*>(p.out.data), p.out.numel() * size_of(p.out.dtype), char{0});
        return;
    }
    if (p.pixels() >= INT32_MAX)
        fail_runtime(p.op, "argument input has ", p.pixels(), " elements in a channel, expected fewer than ",
                     INT32_MAX);
    cpu::GridSample t{};
    t.rule = p.rule, t.x = p.x.data, t.grid = p.grid.data, t.g = p.g.data, t.out = p.out.data;
    for (int k = 0; k < 3; ++k) t.size[k] = p.size(k), t.points[k] = p.points(k);
    const auto strides = [](const TensorView& of, int64_t (&to)[5]) {
        if (of.ndim < 4) return;
        const Strides s(of);
        std::copy(s.of, s.of + 5, to);
    };
    strides(p.x, t.x_stride), strides(p.g, t.g_stride), p.grid_strides(t.grid_stride);
    t.channels = p.channels();

    int64_t taps = grid_taps(p.rule.mode);
    taps = p.rule.dims == 2 ? taps * taps : taps * taps * taps;
    t.few = p.work != GridWork::image_gradient && points * taps < p.pixels();
    const double cost = 0.4 + 0.15 * static_cast<double>(taps);  // nanoseconds
    const double work = static_cast<double>(p.batch() * t.channels) *
                        (static_cast<double>(points) * cost + (t.few ? 0.0 : 0.3 * static_cast<double>(p.pixels())));
    const int64_t wanted = cpu::threads_for(static_cast<int64_t>(work), 1.0);
    int64_t block = kChannels;
    while (!of_grid && block > lanes && p.batch() * plan::ceil_div(t.channels, block) < wanted) block /= 2;
    block = std::max(std::min(block, plan::round_up(t.channels, lanes)), lanes);
    const bool planes = !t.few && t.channels <= kPlanes && lanes > 1;
    if (planes) block = kPlanes;
    const int64_t blocks = plan::ceil_div(t.channels, block), images = p.batch() * blocks;
    // a part of the points costs its own copy of the image
    int64_t parts = 1;
    if (p.work != GridWork::image_gradient && images != 0 && images < wanted && (t.few || points * taps > p.pixels()))
        parts = std::max<int64_t>(1, std::min(wanted / images, plan::ceil_div(points, cpu::kGridChunk)));
    const int64_t items = images * parts;
    const int threads = static_cast<int>(std::clamp<int64_t>(std::max(items, int64_t{1}), 1, wanted));
    const int64_t each =
        plan::round_up(cpu::grid_scratch(block, t.few ? cpu::kGridChunk * taps : p.pixels()) * size, int64_t{64});
    const int64_t sums = of_grid ? p.batch() * points * p.rule.dims : 0;
    static thread_local cpu::Workspace workspace;
    char* const memory = workspace.get(static_cast<size_t>(each * threads + sums * blocks * size));
    char* const partial = memory + each * threads;
    const auto kernel = (p.work == GridWork::sample           ? table.sample
                         : p.work == GridWork::image_gradient ? table.image_gradient
                                                              : table.grid_gradient)[d];
    constexpr const char* const names[] = {"grid_sample", "grid_sample_image_gradient", "grid_sample_grid_gradient"};
    run_on_cpu(
        p.op, names[static_cast<int>(p.work)], work,
        [&] {
            return concat(cpu::name_of(cpu::table().level), ", channels in blocks of ", block,
                          t.few ? ", few points" : "", ", ", threads, " threads");
        },
        [&] {
            cpu::parallel(threads, [&](int tid, int n) {
                cpu::GridSample part = t;
                part.scratch = memory + each * tid;
                for (int64_t i = items * tid / n; i < items * (tid + 1) / n; ++i) {
                    const int64_t number = i % parts, b = i / parts % blocks;
                    part.n = i / parts / blocks, part.c0 = b * block;
                    part.count = std::min(block, t.channels - part.c0);
                    part.width = planes ? 1 : plan::round_up(part.count, lanes);
                    part.p0 = points * number / parts, part.p1 = points * (number + 1) / parts;
                    if (of_grid) part.out = partial + b * sums * size;
                    kernel(part);
                }
                if (!of_grid) return;
                if (n > 1) cpu::barrier();
                table.grid_sums[d]({p.out.data, partial, sums, blocks, sums * tid / n, sums * (tid + 1) / n});
            });
        });
    workspace.trim();
}

}  // namespace nk::resampling
