// Convolutions on the CPU: which positions read what, in what blocks, on how many threads.
#include <algorithm>
#include <array>

#include "call/run.h"
#include "convolution/axes.h"
#include "convolution/depthwise_cpu.h"
#include "convolution/plan_cpu.h"
#include "convolution/problem.h"
#include "convolution/winograd_cpu.h"
#include "cpu/cpuid.h"
#include "cpu/elementwise.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"

namespace nk::convolution {

namespace {

using cpu::ConvTarget;
using cpu::ConvTask;

// A product of a weight's rows with positions that read a source: what forward and data gradient have in common.
struct Product {
    const char* op;
    DType dtype;
    int64_t groups, images;
    std::array<const cpu::ConvAxis*, kSpatial> axes;
    const TensorView& source;  // five dims
    int64_t channels, rows;    // of a group
    const TensorView& weight;
    int64_t weight_row, weight_channel, weight_group;  // strides
    std::vector<int64_t> taps;                         // offsets in the weight
    ConvTarget out, preact, residual;
    const TensorView* bias;
    Activation activation = Activation::identity;
    double p[2] = {0, 0};
    std::array<cpu::ConvPlaces, kSpatial> places{};  // of axes that step evenly
};

// All positions of an image lie evenly, one after the other.
bool is_dense(const ConvTarget& t, const std::array<const cpu::ConvAxis*, kSpatial>& axes) {
    if (t.data == nullptr) return true;
    const int64_t w = axes[2]->positions, h = axes[1]->positions;
    return (h == 1 || t.axis[1] == w * t.axis[2]) && (axes[0]->positions == 1 || t.axis[0] == h * w * t.axis[2]);
}

// Nothing to reorder: the rows of the weight are in the order of k, and in its units.
bool serves_as_it_is(const Product& p, const Level& l, bool channels_last) {
    if (channels_last || size_of(p.dtype) * l.tile.group != l.tile.unit) return false;
    const auto taps = static_cast<int64_t>(p.taps.size()), k = taps * p.channels;
    for (int64_t t = 0; t < taps; ++t)
        if (p.taps[static_cast<size_t>(t)] != t) return false;
    return (p.weight_channel == taps || p.channels == 1) && k % l.tile.group == 0 && p.weight_row % l.tile.group == 0;
}

// A product whose windows are read from padded rows of the image; `rows` of the result at a time, 0 where it doesn't
// serve.
struct Direct {
    cpu::ConvRuns run;
    int64_t row_bytes = 0, rows = 0;
    bool wide = false;  // tiles of few positions and many channels
};

Direct plan_direct(const Product& p, const Level& l, bool channels_last) {
    Direct made;
    const cpu::ConvPlaces *z = &p.places[0], *y = &p.places[1], *x = &p.places[2];
    if (entries().direct[static_cast<int>(p.dtype)] == nullptr || !x->pixel || !y->pixel || !z->pixel) return made;
    const int64_t size = size_of(p.dtype), c = p.channels, width = p.axes[2]->positions;
    const int64_t rows = p.axes[0]->taps * p.axes[1]->taps, taps = rows * p.axes[2]->taps;
    if (taps == 0 || c == 0) return made;
    const bool few = c <= kDirectChannels;
    // lanes are channels of the result; where those lie apart, few lanes may be idle, and sums must be worth turning
    const int64_t lanes = round_up(p.rows, int64_t{l.tile.lanes});
    if (!channels_last && (p.out.axis[2] != 1 || 4 * lanes > 5 * p.rows || taps * c < kDirectTurned)) return made;
    if (!few && (taps == 1 || p.source.stride[1] != 1 || width < kDirectWidth)) return made;
    for (int k = 0; k < kSpatial; ++k)  // most pixels of a row are read
        if (!few && p.places[static_cast<size_t>(k)].step > p.axes[static_cast<size_t>(k)]->taps) return made;
    cpu::ConvRuns& run = made.run;
    const bool joined = x->dilation == 1 && c * size < kDirectPixel;
    run.taps = joined ? p.axes[2]->taps : 1;
    // pixels of whole pages would lie in the same sets of the first cache
    run.pixel = c * size < kDirectPixel ? c : cpu::packed_row(c * size, 1) / size;
    run.chunks = joined ? 1 : ceil_div(c, l.depth);
    run.elements = joined ? run.taps * c : c / run.chunks;
    run.count = taps / run.taps * run.chunks;
    if (run.chunks * (c / run.chunks) != c || (run.chunks > 1 && run.elements % 2 != 0) ||
        run.count > cpu::kDirectRuns || run.elements > l.depth)
        return made;
    run.at_once = std::min(run.count, std::max<int64_t>(1, l.depth / run.elements));
    run.at_once = ceil_div(run.count, ceil_div(run.count, run.at_once));
    made.row_bytes = x->count * run.pixel * size;
    made.wide = width >= 11 * ceil_div(width, int64_t{l.mr}) * l.mr / 12;
    const int64_t reach = (p.axes[1]->taps - 1) * y->dilation + 1;
    const int64_t fit = (kDirectBytes / (made.row_bytes * p.axes[0]->taps) - reach) / y->step + 1;
    int64_t most = fit;
    if (run.at_once < run.count) most = std::min(most, kDirectBytes / (width * l.nr() * l.tile.acc));
    if (fit < 1) return made;
    made.rows = std::clamp<int64_t>(most, 1, p.axes[1]->positions);
    // a weight larger than the second cache is read for several images
    const int64_t height = p.axes[1]->positions, image = (height - 1) * y->step + reach;
    if (made.rows == height && height * width <= kDirectFew && p.images > 1)
        made.rows *= std::clamp<int64_t>(
            kDirectFew / (height * width), 1,
            std::min(p.images * p.axes[0]->positions, 2 * kDirectBytes / (image * made.row_bytes * p.axes[0]->taps)));
    return made;
}

void run_product(const Product& p) {
    const int d = static_cast<int>(p.dtype);
    ConvTask t;
    for (int k = 0; k < kSpatial; ++k) t.source.axis[k] = *p.axes[static_cast<size_t>(k)];
    t.source.channels = p.channels, t.source.image = p.source.stride[0], t.source.channel = p.source.stride[1];
    const int64_t k = t.source.k(), positions = t.source.positions() * p.images;
    if (positions == 0 || p.rows == 0) return;
    t.channels_last = p.out.channel == 1 && p.rows > 1 && p.out.axis[2] != 1;
    const Direct plan = plan_direct(p, level_of(p.dtype, p.rows), t.channels_last);
    const bool direct = plan.rows > 0;
    t.channels_last = t.channels_last || direct, t.run = plan.run;
    const Level l = level_of(p.dtype, direct && !plan.wide ? 0 : t.channels_last ? p.rows : positions);
    t.dense = is_dense(p.out, p.axes) && is_dense(p.preact, p.axes) && is_dense(p.residual, p.axes);
    t.mr = l.mr, t.nv = l.nv;
    std::copy(p.places.begin(), p.places.end(), t.place);
    const int64_t most = l.depth, parts = std::max<int64_t>(1, ceil_div(k, most));
    t.kc = std::max<int64_t>(16, round_up(ceil_div(k, parts), int64_t{16}));
    if (p.activation != Activation::identity) t.activate = cpu::table().matmul.activate[d];
    t.activation = static_cast<int>(p.activation), t.p[0] = p.p[0], t.p[1] = p.p[1];

    // Groups are shared out to the threads, each in parts if they are few: parts of its positions, or of its channels
    // where there are too few positions to gather them for some channels only.
    const int64_t width = p.axes[2]->positions;
    const int64_t grain = direct            ? width
                          : t.channels_last ? t.mr
                                            : l.tile.lanes,
                  row_grain = t.channels_last ? l.nr() : 1;
    const int threads = cpu::threads_for(positions * p.rows * p.groups * std::max<int64_t>(k, 1), kCost);
    const int64_t each_group = p.groups % threads == 0 ? 1 : p.groups >= 8 * threads ? 1 : threads;
    const int64_t shares = positions / grain;  // of which the last of a thread may be left idle
    const bool uneven = direct ? 10 * round_up(shares, each_group) > 11 * shares : shares < 2 * each_group;
    const bool by_rows = uneven && ceil_div(p.rows, row_grain) >= each_group;
    const int64_t splits = by_rows ? each_group : 1;
    const int64_t blocks = by_rows ? 1 : std::min(each_group, ceil_div(positions, grain));
    const int64_t k_units = direct ? plan.run.count * l.units(plan.run.elements) : l.units(k);
    const int64_t row_bytes = std::max<int64_t>(1, k_units * l.tile.unit);
    const int64_t whole = t.channels_last ? t.mr : l.nr();  // what a tile has of them
    const int64_t most_block = std::max(t.channels_last ? 2 * whole : whole, kGathered / row_bytes / whole * whole);
    const int64_t share = ceil_div(positions, blocks);
    int64_t block = std::min(most_block, round_up(ceil_div(share, ceil_div(share, most_block)), whole));
    if (direct) block = plan.rows * width;
    t.block = block;

    const bool as_is = serves_as_it_is(p, l, t.channels_last);
    const int64_t acc = l.tile.acc, size = size_of(p.dtype);
    const int64_t weight_units = t.channels_last ? k_units * round_up(p.rows, int64_t{l.tile.lanes})
                                                 : p.rows * cpu::packed_row(l.units(k), l.tile.unit);
    t.weight_ld = as_is ? p.weight_row / l.tile.group : cpu::packed_row(l.units(k), l.tile.unit);
    Layout work;
    const int64_t height = p.axes[1]->positions, images = ceil_div(plan.rows, height);
    const int64_t image_rows =
        ((std::min(plan.rows, height) - 1) * p.places[1].step + (p.axes[1]->taps - 1) * p.places[1].dilation + 1) *
        images;
    work.add(direct            ? image_rows * p.axes[0]->taps * plan.row_bytes
             : t.channels_last ? block * cpu::packed_row(l.units(k), l.tile.unit) * l.tile.unit
                               : round_up(block, l.nr()) * l.units(k) * l.tile.unit);
    const int64_t taps = t.source.taps();
    t.work_scratch = work.add(
        std::max({l.nr() * std::max<int64_t>(256, 2 * taps), std::max(l.nr(), kPackedRows) * k, k + 64}) * size);
    t.work_sums = work.add((direct            ? (plan.run.at_once < plan.run.count ? block : t.mr) + cpu::kDirectAcross
                            : t.channels_last ? block
                                              : p.rows) *
                           l.nr() * acc);
    t.work_segments = work.add((std::max(block, direct ? p.places[2].count : 0) + 1) *
                               static_cast<int64_t>(sizeof(cpu::ConvSegment)));
    Layout all;
    const int64_t packed = all.add(as_is ? 0 : p.groups * weight_units * l.tile.unit);
    const int64_t each = all.add(work.bytes * threads);
    static thread_local cpu::Workspace workspace;
    char* const memory = workspace.get(static_cast<size_t>(all.bytes));
    const int64_t items = p.groups * blocks * splits;

    const auto pack = [&](int tid, int count) {
        const int64_t some = t.channels_last ? row_grain : kPackedRows, panels = ceil_div(p.rows, some);
        for (int64_t i = p.groups * panels * tid / count; i < p.groups * panels * (tid + 1) / count; ++i) {
            const int64_t g = i / panels, r = i % panels * some;
            cpu::ConvPackTask w{element(p.weight, g * p.weight_group),
                                p.weight_row,
                                p.weight_channel,
                                p.taps.data(),
                                p.rows,
                                p.channels,
                                taps,
                                t.channels_last,
                                memory + packed + g * weight_units * l.tile.unit,
                                t.weight_ld,
                                l.nr(),
                                direct && plan.run.chunks == 1 ? plan.run.taps : taps,
                                r,
                                std::min(p.rows, r + some),
                                memory + each + work.bytes * tid + t.work_scratch};
            entries().pack[d](w);
        }
    };
    const auto multiply = [&](int tid, int count) {
        for (int64_t i = items * tid / count; i < items * (tid + 1) / count; ++i) {
            const int64_t split = i % splits, b = i / splits % blocks, g = i / splits / blocks;
            ConvTask part = t;
            part.work = memory + each + work.bytes * tid;
            part.source.data = element(p.source, g * p.channels * p.source.stride[1]);
            const int64_t rows = ceil_div(p.rows, row_grain);
            part.r0 = rows * split / splits * row_grain;
            part.r1 = std::min(p.rows, rows * (split + 1) / splits * row_grain);
            part.q0 = std::min(positions, round_up(positions * b / blocks, grain));
            part.q1 = std::min(positions, round_up(positions * (b + 1) / blocks, grain));
            const auto of_group = [&](ConvTarget to) {
                if (to.data != nullptr) to.data = static_cast<char*>(to.data) + g * p.rows * to.channel * size;
                return to;
            };
            part.out = of_group(p.out), part.preact = of_group(p.preact), part.residual = of_group(p.residual);
            if (p.bias != nullptr) {
                part.bias = element(*p.bias, g * p.rows * p.bias->stride[0]);
                part.bias_step = p.bias->stride[0];
            }
            part.weight =
                as_is ? element(p.weight, g * p.weight_group) : memory + packed + g * weight_units * l.tile.unit;
            (direct ? entries().direct[d] : entries().product[d])(part);
        }
    };
    run_on_cpu(
        p.op, [&] { return concat("convolution_", l.tile.name, "_", l.tile.isa); },
        static_cast<double>(positions) * static_cast<double>(p.rows * p.groups * k) * kCost,
        [&] {
            return concat(direct ? "direct" : "implicit", " product, channels ", t.channels_last ? "last" : "first",
                          ", k ", k, " by ", t.kc, ", blocks of ", block, as_is ? ", weight as it lies" : "", ", ",
                          threads, " threads");
        },
        [&] {
            cpu::parallel(threads, [&](int tid, int count) {
                if (!as_is) {
                    pack(tid, count);
                    if (count > 1) cpu::barrier();
                }
                multiply(tid, count);
            });
        });
    workspace.trim();
}

void data_gradient_by_phases(const DataGradient& p) {
    const Geometry& g = p.g;
    std::array<int64_t, kSpatial> at{};
    for (at[0] = 0; at[0] < g.stride[0]; ++at[0])
        for (at[1] = 0; at[1] < g.stride[1]; ++at[1])
            for (at[2] = 0; at[2] < g.stride[2]; ++at[2]) {
                std::array<Phase, kSpatial> phases;
                std::array<const cpu::ConvAxis*, kSpatial> axes{};
                ConvTarget out = target_of(&p.image);
                int64_t first = 0;
                for (int k = 0; k < kSpatial; ++k) {
                    const auto i = static_cast<size_t>(k);
                    phases[i] = image_phase(g, k, at[i], p.result.stride[2 + k]);
                    axes[i] = &phases[i].axis.kernel;
                    first += phases[i].first * out.axis[k];
                    out.axis[k] *= phases[i].step;
                }
                out.data = element(p.image, first);
                run_product({p.op,
                             p.image.dtype,
                             g.groups,
                             g.n,
                             axes,
                             p.result,
                             g.result_channels(),
                             g.image_channels(),
                             p.weight,
                             p.weight.stride[1],
                             p.weight.stride[0],
                             g.result_channels() * p.weight.stride[0],
                             tap_offsets(p.weight, {phases[0].taps, phases[1].taps, phases[2].taps}),
                             out,
                             {},
                             {},
                             p.bias,
                             Activation::identity,
                             {0, 0},
                             {phases[0].axis.place, phases[1].axis.place, phases[2].axis.place}});
            }
}

// Padding that reads the image: the gradient of each padded image by itself, then added up.
void data_gradient_folded(const DataGradient& p) {
    Geometry one = p.g;
    one.n = 1, one.mode = PaddingMode::zeros;
    TensorView padded = p.image;
    std::vector<int32_t> pixel[kSpatial];
    int64_t places = 1;
    for (int k = 0; k < kSpatial; ++k) {
        one.in[k] = (p.g.out[k] - 1) * p.g.stride[k] + p.g.dilation[k] * (p.g.kernel[k] - 1) + 1;
        one.in[k] = std::max(one.in[k], p.g.in[k] + p.g.pad[k]);  // pixels that no window reads
        one.pad[k] = 0;
        for (int64_t u = 0; u < one.in[k]; ++u)
            pixel[k].push_back(static_cast<int32_t>(pixel_at(u - p.g.pad[k], p.g.in[k], p.g.mode)));
        padded.shape[2 + k] = one.in[k];
        places *= one.in[k];
    }
    padded.shape[0] = 1;
    int64_t step = 1;
    for (int i = 4; i >= 1; --i) padded.stride[i] = step, step *= padded.shape[i];
    padded.stride[0] = step;
    static thread_local cpu::Workspace workspace;
    const int d = static_cast<int>(p.image.dtype), threads = cpu::threads_for(places * p.g.c, 1);
    Layout all;
    const int64_t image = all.add(step * size_of(p.image.dtype));
    const int64_t sums_each = round_up(p.g.pixels_in() * 8, int64_t{64});
    const int64_t sums = all.add(sums_each * threads);
    char* const memory = workspace.get(static_cast<size_t>(all.bytes));
    padded.data = memory + image;
    TensorView result = p.result;
    result.shape[0] = 1;
    for (int64_t n = 0; n < p.g.n; ++n) {
        result.data = element(p.result, n * p.result.stride[0]);
        data_gradient_by_phases({p.op, one, padded, result, p.weight, nullptr});
        ConvTarget out = target_of(&p.image);
        out.data = element(p.image, n * p.image.stride[0]);
        cpu::parallel(threads, [&](int tid, int count) {
            cpu::ConvFoldTask t{padded.data,
                                {one.in[0], one.in[1], one.in[2]},
                                {pixel[0].data(), pixel[1].data(), pixel[2].data()},
                                out,
                                {p.g.in[0], p.g.in[1], p.g.in[2]},
                                p.bias ? p.bias->data : nullptr,
                                p.bias ? p.bias->stride[0] : 0,
                                p.g.c * tid / count,
                                p.g.c * (tid + 1) / count,
                                memory + sums + sums_each * tid};
            entries().fold[d](t);
        });
    }
    workspace.trim();
}

}  // namespace

void forward_cpu(const Forward& p) {
    if (depthwise_forward(p) || winograd_forward(p)) return;
    Geometry g = p.g;
    TensorView image = p.image, result = p.result, preact, residual;
    const auto dense = [](const TensorView* t) { return t == nullptr || is_dense(*t); };
    if (p.preact) preact = *p.preact;
    if (p.residual) residual = *p.residual;
    if (is_pointwise(g) && is_dense(image) && is_dense(result) && dense(p.preact) && dense(p.residual)) {
        image = flat(image), result = flat(result);
        if (p.preact) preact = flat(preact);
        if (p.residual) residual = flat(residual);
        for (int k = 0; k < kSpatial; ++k) g.in[k] = g.out[k] = result.shape[2 + k];
    }
    std::array<Axis, kSpatial> axes;
    std::array<const cpu::ConvAxis*, kSpatial> kernels{};
    for (int k = 0; k < kSpatial; ++k) {
        const auto i = static_cast<size_t>(k);
        axes[i] = forward_axis(g, k, image.stride[2 + k]);
        kernels[i] = &axes[i].kernel;
    }
    run_product({p.op,
                 result.dtype,
                 g.groups,
                 g.n,
                 kernels,
                 image,
                 g.image_channels(),
                 g.result_channels(),
                 p.weight,
                 p.weight.stride[0],
                 p.weight.stride[1],
                 g.result_channels() * p.weight.stride[0],
                 tap_offsets(p.weight),
                 target_of(&result),
                 target_of(p.preact ? &preact : nullptr),
                 target_of(p.residual ? &residual : nullptr),
                 p.bias,
                 p.activation,
                 {p.p[0], p.p[1]},
                 {axes[0].place, axes[1].place, axes[2].place}});
}

void data_gradient_cpu(const DataGradient& p) {
    if (depthwise_data_gradient(p) || winograd_data_gradient(p)) return;
    if (p.g.mode != PaddingMode::zeros) return data_gradient_folded(p);
    if (!is_pointwise(p.g) || !is_dense(p.image) || !is_dense(p.result)) return data_gradient_by_phases(p);
    Geometry g = p.g;
    const TensorView image = flat(p.image), result = flat(p.result);
    for (int k = 0; k < kSpatial; ++k) g.in[k] = g.out[k] = image.shape[2 + k];
    data_gradient_by_phases({p.op, g, image, result, p.weight, p.bias});
}

}  // namespace nk::convolution
