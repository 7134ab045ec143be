// The gradients of a convolution's weight and bias on the CPU.
#include <algorithm>

#include "call/run.h"
#include "convolution/axes.h"
#include "convolution/depthwise_cpu.h"
#include "convolution/plan_cpu.h"
#include "cpu/elementwise.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"
#include "matmul/problem.h"

namespace nk::convolution {

namespace {

// Positions of so few sums that they are told from torch's by how many of them one register adds up.
constexpr int64_t kFewPositions = 4096;

// Of pixels that read themselves, channels last: gw[o, c] = g[pixels, o]' x[pixels, c].
bool is_product_of_matrices(const WeightGradient& p, const TensorView& image, const TensorView& result) {
    const Geometry& g = p.g;
    if (!is_pointwise(g) || g.groups != 1 || image.shape[3] != 1 || image.shape[2] != 1) return false;
    const auto matrix = [](const TensorView& t, int64_t rows, int64_t columns, int64_t row, int64_t column) {
        TensorView m = t;
        m.ndim = 2, m.shape[0] = rows, m.shape[1] = columns, m.stride[0] = row, m.stride[1] = column;
        return m;
    };
    const int64_t pixels = image.shape[4];
    for (const TensorView* t : {&image, &result})
        if (t->stride[1] != 1 || (g.n > 1 && t->stride[0] != pixels * t->stride[4])) return false;
    const TensorView out = matrix(p.weight, g.o, g.c, p.weight.stride[0], p.weight.stride[1]);
    const TensorView a = matrix(result, g.o, g.n * pixels, 1, result.stride[4]);
    const TensorView b = matrix(image, g.n * pixels, g.c, image.stride[4], 1);
    cpu::matmul({out, a, b, nullptr, nullptr, nullptr, Activation::identity, {}, 1.0, 1.0});
    return true;
}

}  // namespace

void weight_gradient_cpu(const WeightGradient& p) {
    if (depthwise_weight_gradient(p)) return;
    Geometry g = p.g;
    TensorView image = p.image, result = p.result;
    if (is_pointwise(g) && is_dense(image) && is_dense(result)) {
        image = flat(image), result = flat(result);
        for (int k = 0; k < kSpatial; ++k) g.in[k] = g.out[k] = image.shape[2 + k];
    }
    if (is_product_of_matrices(p, image, result)) return;
    const Level l = level_of(image.dtype, g.result_channels());
    const int d = static_cast<int>(image.dtype);
    std::array<Axis, kSpatial> axes, plain;
    cpu::ConvWeightTask t{};
    for (int k = 0; k < kSpatial; ++k) {
        const auto i = static_cast<size_t>(k);
        axes[i] = forward_axis(g, k, image.stride[2 + k]);
        plain[i] = plain_axis(g.out[k], result.stride[2 + k]);
        t.source.axis[k] = axes[i].kernel, t.g.axis[k] = plain[i].kernel;
    }
    t.source.channels = g.image_channels(), t.source.image = image.stride[0], t.source.channel = image.stride[1];
    t.g.channels = g.result_channels(), t.g.image = result.stride[0], t.g.channel = result.stride[1];
    t.o = g.result_channels(), t.images = g.n;
    t.channels_last = image.stride[1] == 1 && t.source.channels > 1 && image.stride[4] != 1;
    t.mr = l.mr, t.nv = l.nv;
    const int64_t wide = round_up(t.o, int64_t{l.tile.lanes}), taps = g.taps(), m = t.source.k();
    const int64_t fits = kGathered / (wide * l.tile.unit) * l.tile.group;
    const int64_t longest = g.n * g.pixels_out() <= kFewPositions ? 64 : l.depth / 2;
    t.block = round_up(std::clamp<int64_t>(fits, 64, longest), int64_t{16});
    t.gw_row = p.weight.stride[0], t.gw_channel = p.weight.stride[1];
    const std::vector<int64_t> offsets = tap_offsets(p.weight);
    t.gw_tap = offsets.data();

    const double macs = static_cast<double>(g.n * g.pixels_out()) * static_cast<double>(m * g.o);
    const int threads = std::min<int>(cpu::threads_for(static_cast<int64_t>(macs), kCost),
                                      static_cast<int>(std::min<int64_t>(1 << 16, g.groups * m)));
    // all groups, or each of them in parts
    const int64_t parts = g.groups >= threads ? 1 : ceil_div(int64_t{threads}, g.groups), items = g.groups * parts;
    const int64_t rows_at_once = std::max<int64_t>(cpu::kConvRows, taps), size = size_of(image.dtype);
    Layout work;
    work.add(l.units(t.block) * wide * l.tile.unit);
    t.work_packed =
        work.add(std::max(rows_at_once * cpu::packed_row(l.units(t.block), l.tile.unit), t.block * cpu::kConvRows) *
                 l.tile.unit);
    t.work_scratch = work.add(std::max(l.nr(), rows_at_once) * t.block * size);
    t.work_sums = work.add((ceil_div(m, parts) + 1) * wide * l.tile.acc);
    t.work_segments = work.add((t.block + 1) * static_cast<int64_t>(sizeof(cpu::ConvSegment)));
    static thread_local cpu::Workspace workspace;
    char* const memory = workspace.get(static_cast<size_t>(work.bytes * threads));
    run_on_cpu(
        p.op, [&] { return concat("convolution_weight_", l.tile.name, "_", l.tile.isa); }, macs * kCost,
        [&] {
            return concat("weight gradient, channels ", t.channels_last ? "last" : "first", ", rows ", m, " in ", parts,
                          " parts, blocks of ", t.block, ", ", threads, " threads");
        },
        [&] {
            cpu::parallel(threads, [&](int tid, int count) {
                for (int64_t i = items * tid / count; i < items * (tid + 1) / count; ++i) {
                    const int64_t group = i / parts, part = i % parts;
                    cpu::ConvWeightTask own = t;
                    own.source.data = element(image, group * g.image_channels() * image.stride[1]);
                    own.g.data = element(result, group * t.o * result.stride[1]);
                    own.gw = element(p.weight, group * t.o * p.weight.stride[0]);
                    own.m0 = m * part / parts, own.m1 = m * (part + 1) / parts;
                    own.work = memory + work.bytes * tid;
                    if (own.m0 < own.m1) entries().weight[d](own);
                }
            });
        });
    workspace.trim();
}

void channel_sums_cpu(const ChannelSums& p) {
    const int d = static_cast<int>(p.t.dtype);
    const int64_t channels = p.t.shape[1], lanes = 16;
    const int64_t pixels = p.t.shape[2] * p.t.shape[3] * p.t.shape[4];
    const TensorView t = is_dense(p.t) ? flat(p.t) : p.t;
    const int64_t units = ceil_div(channels, lanes);
    const int threads = static_cast<int>(std::min<int64_t>(p.t.stride[1] == 1 ? units : channels,
                                                           cpu::threads_for(p.t.shape[0] * pixels * channels, 0.1)));
    run_on_cpu(
        p.op, "convolution_channel_sums", static_cast<double>(p.t.shape[0] * pixels * channels) * 0.1,
        [&] { return concat(channels, " channels, ", threads, " threads"); },
        [&] {
            cpu::parallel(threads, [&](int tid, int count) {
                cpu::ConvSumTask task{target_of(&t), t.shape[0],      {t.shape[2], t.shape[3], t.shape[4]}, 0, 0,
                                      p.sums.data,   p.sums.stride[0]};
                const bool by_units = p.t.stride[1] == 1;
                const int64_t n = by_units ? units : channels, grain = by_units ? lanes : 1;
                task.c0 = std::min(channels, n * tid / count * grain);
                task.c1 = std::min(channels, n * (tid + 1) / count * grain);
                entries().sums[d](task);
            });
        });
}

}  // namespace nk::convolution
