#include "convolution/winograd_cpu.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "call/run.h"
#include "convolution/axes.h"
#include "convolution/plan_cpu.h"
#include "cpu/cpuid.h"
#include "cpu/elementwise.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"
#include "kernels/cpu/convolution/winograd.h"

namespace nk::convolution {

namespace {

constexpr int64_t kDepth = 128;  // longer sums of transformed numbers round more than the direct product's

bool is_switched_off() {
    static const bool off = [] {
        const char* value = std::getenv("NEUROKERN_WINOGRAD");
        return value != nullptr && std::strcmp(value, "0") == 0;
    }();
    return off;
}

bool fits(const Geometry& g, DType dtype) {
    return dtype == DType::f32 && cpu::table().convolution.winograd != nullptr && !is_switched_off() &&
           g.mode == PaddingMode::zeros && g.in[0] == 1 && g.out[0] == 1 && g.kernel[0] == 1 && g.pad[0] == 0 &&
           g.kernel[1] == 3 && g.kernel[2] == 3 && g.stride[1] == 1 && g.stride[2] == 1 && g.dilation[1] == 1 &&
           g.dilation[2] == 1;
}

// Cycles of all threads, roughly: products, transforms of tiles, and those of the weight, which each call makes anew.
bool is_worth_it(int64_t tiles, int64_t outputs, int64_t channels, int64_t rows) {
    const double direct = 9.0 / 16 * static_cast<double>(outputs) * static_cast<double>(channels * rows) / 0.9;
    const double products = static_cast<double>(tiles) * static_cast<double>(channels * rows) / 0.8;
    const double transforms = static_cast<double>(tiles) * static_cast<double>(12 * channels + 6 * rows);
    return channels >= 16 && rows >= 16 && products + transforms + static_cast<double>(channels * rows) * 80 < direct;
}

struct Windows {
    const char* op;
    int64_t images, groups, channels, rows;  // of a group
    const TensorView& source;
    const TensorView& weight;
    int64_t weight_row, weight_channel, weight_group;
    bool turned;  // taps in the opposite order
    int64_t top, left, height, width;
    cpu::ConvTarget out, preact, residual;
    const TensorView* bias;
    Activation activation;
    double p[2];
};

bool run(const Windows& w) {
    const int64_t across = ceil_div(w.width, int64_t{2}), down = ceil_div(w.height, int64_t{2});
    const int64_t tiles = w.images * across * down;
    if (!is_worth_it(tiles, w.images * w.width * w.height, w.channels, w.rows)) return false;
    cpu::WinogradTask t{};
    t.image = w.source.stride[0], t.channel = w.source.stride[1], t.row = w.source.stride[3],
    t.column = w.source.stride[4];
    t.channels_last = w.out.channel == 1 && t.channel == 1;
    if (!t.channels_last && (w.out.axis[2] != 1 || t.column != 1)) return false;
    if (w.preact.data != nullptr && (t.channels_last ? w.preact.channel : w.preact.axis[2]) != 1) return false;
    if (std::abs(w.weight_row) * 16 >= int64_t{1} << 31 || std::abs(w.weight_channel) * 16 >= int64_t{1} << 31)
        return false;
    t.height = w.source.shape[3], t.width = w.source.shape[4];
    t.top = w.top, t.left = w.left, t.channels = w.channels;
    t.out_height = w.height, t.out_width = w.width;
    if (w.activation != Activation::identity) t.activate = cpu::table().matmul.activate[static_cast<int>(DType::f32)];
    t.activation = static_cast<int>(w.activation), t.p[0] = w.p[0], t.p[1] = w.p[1];
    t.kc = round_up(ceil_div(w.channels, ceil_div(w.channels, kDepth)), int64_t{16});

    const double macs = static_cast<double>(tiles) * 16 * static_cast<double>(w.channels * w.rows * w.groups);
    const int threads = cpu::threads_for(static_cast<int64_t>(macs), kCost);
    const int64_t row_grain = t.channels_last ? cpu::kWinogradColumns : 16;
    const int64_t panel_rows = round_up(w.rows, int64_t{16}), ld = round_up(w.channels, int64_t{16});
    t.weight_step = t.channels_last ? panel_rows * w.channels : w.rows * ld;
    const int64_t weight_each = 16 * t.weight_step + 64, block = std::max(cpu::kWinogradTiles, cpu::kWinogradTilesLast);
    const int64_t v = 16 * block * (cpu::packed_row(w.channels, 4) + 16) * 4;
    const int64_t m = 16 * cpu::kWinogradRows * cpu::kWinogradColumns * 4;
    const int64_t each = round_up(v + m + 128, int64_t{64});
    t.work_m = round_up(v, int64_t{64});
    static thread_local cpu::Workspace workspace;
    char* const memory =
        workspace.get(static_cast<size_t>(round_up(w.groups * weight_each * 4, int64_t{64}) + each * threads));
    float* const weights = reinterpret_cast<float*>(memory);
    char* const work = memory + round_up(w.groups * weight_each * 4, int64_t{64});

    const auto pack = [&](int tid, int count) {
        const int64_t panels = ceil_div(w.rows, row_grain), items = w.groups * panels;
        for (int64_t i = items * tid / count; i < items * (tid + 1) / count; ++i) {
            const int64_t g = i / panels, r = i % panels * row_grain;
            cpu::WinogradPack p{};
            p.data = static_cast<float*>(w.weight.data) + g * w.weight_group;
            p.row = w.weight_row, p.channel = w.weight_channel;
            for (int k = 0; k < 9; ++k) {
                const int tap = w.turned ? 8 - k : k;
                p.tap[k] = tap / 3 * w.weight.stride[3] + tap % 3 * w.weight.stride[4];
            }
            p.rows = w.rows, p.channels = w.channels, p.channels_last = t.channels_last;
            p.to = weights + g * weight_each, p.step = t.weight_step, p.ld = ld;
            p.r0 = r, p.r1 = std::min(w.rows, r + row_grain);
            cpu::table().convolution.pack_winograd(p);
        }
    };
    // tiles are shared out, or channels where there are few
    const int64_t grain = t.channels_last ? cpu::kWinogradRows : 16;
    const bool by_rows = tiles < 2 * grain * threads && ceil_div(w.rows, row_grain) >= threads;
    const auto multiply = [&](int tid, int count) {
        for (int64_t g = 0; g < w.groups; ++g) {
            cpu::WinogradTask part = t;
            part.data = static_cast<float*>(w.source.data) + g * w.channels * t.channel;
            const auto of_group = [&](cpu::ConvTarget to) {
                if (to.data != nullptr) to.data = static_cast<float*>(to.data) + g * w.rows * to.channel;
                return to;
            };
            part.out = of_group(w.out), part.preact = of_group(w.preact), part.residual = of_group(w.residual);
            if (w.bias != nullptr) {
                part.bias = static_cast<float*>(w.bias->data) + g * w.rows * w.bias->stride[0];
                part.bias_step = w.bias->stride[0];
            }
            part.weight = weights + g * weight_each;
            part.work = work + each * tid;
            part.r0 = 0, part.r1 = w.rows, part.t0 = 0, part.t1 = tiles;
            if (by_rows) {
                const int64_t panels = ceil_div(w.rows, row_grain);
                part.r0 = panels * tid / count * row_grain;
                part.r1 = std::min(w.rows, panels * (tid + 1) / count * row_grain);
            } else {
                part.t0 = std::min(tiles, round_up(tiles * tid / count, grain));
                part.t1 = std::min(tiles, round_up(tiles * (tid + 1) / count, grain));
            }
            if (part.t0 < part.t1 && part.r0 < part.r1) cpu::table().convolution.winograd(part);
        }
    };
    run_on_cpu(
        w.op, "convolution_winograd_f32_avx512", macs * kCost,
        [&] {
            return concat("Winograd F(2x2, 3x3), channels ", t.channels_last ? "last" : "first", ", ", tiles,
                          " tiles, ", threads, " threads");
        },
        [&] {
            cpu::parallel(threads, [&](int tid, int count) {
                pack(tid, count);
                if (count > 1) cpu::barrier();
                multiply(tid, count);
            });
        });
    workspace.trim();
    return true;
}

}  // namespace

bool winograd_forward(const Forward& p) {
    const Geometry& g = p.g;
    if (!fits(g, p.result.dtype)) return false;
    return run({p.op,
                g.n,
                g.groups,
                g.image_channels(),
                g.result_channels(),
                p.image,
                p.weight,
                p.weight.stride[0],
                p.weight.stride[1],
                g.result_channels() * p.weight.stride[0],
                false,
                g.pad[1],
                g.pad[2],
                g.out[1],
                g.out[2],
                target_of(&p.result),
                target_of(p.preact),
                target_of(p.residual),
                p.bias,
                p.activation,
                {p.p[0], p.p[1]}});
}

bool winograd_data_gradient(const DataGradient& p) {
    const Geometry& g = p.g;
    if (!fits(g, p.image.dtype)) return false;
    return run({p.op,
                g.n,
                g.groups,
                g.result_channels(),
                g.image_channels(),
                p.result,
                p.weight,
                p.weight.stride[1],
                p.weight.stride[0],
                g.result_channels() * p.weight.stride[0],
                true,
                2 - g.pad[1],
                2 - g.pad[2],
                g.in[1],
                g.in[2],
                target_of(&p.image),
                {},
                {},
                p.bias,
                Activation::identity,
                {0, 0}});
}

}  // namespace nk::convolution
