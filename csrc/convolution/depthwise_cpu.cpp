#include "convolution/depthwise_cpu.h"

#include <algorithm>

#include "call/run.h"
#include "convolution/depthwise_axes.h"
#include "cpu/cpuid.h"
#include "cpu/elementwise.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "cpu/workspace.h"
#include "plan/arithmetic.h"
#include "tensor/check.h"

namespace nk::convolution {

namespace {

using plan::ceil_div;
using plan::round_up;

constexpr int64_t kRing = 24 << 10;    // bytes of a ring that stays in the first cache
constexpr int64_t kTogether = 128;     // bytes of channels that are read together where they lie side by side
constexpr int64_t kBandColumns = 64;   // columns of narrow rows that are made together
constexpr int64_t kLeastTile = 16;     // columns
constexpr int64_t kMostInGroup = 4;    // channels, of groups that have more than one
constexpr int64_t kMostMultiplier = 16;  // results of one channel
constexpr int64_t kLeastGroups = 4;

bool serves(const Geometry& g) {
    const int64_t c = g.image_channels(), o = g.result_channels();
    if (g.groups < kLeastGroups || o < 1 || c < 1) return false;
    return c == 1 ? o <= kMostMultiplier : c <= kMostInGroup && o <= kMostInGroup;
}

cpu::DepthwiseTensor tensor(const TensorView& t) {
    return {t.data, t.stride[0], t.stride[1], {t.stride[2], t.stride[3], t.stride[4]}};
}

// One of the products as work for threads.
struct Plan {
    DepthwiseRows depth, height;
    DepthwiseWidth width;
    cpu::DepthwiseShape shape;
    int64_t images, lanes, vectors, size;     // size: bytes of an accumulator
    int64_t block, blocks, tile, tiles;       // vectors and columns of a part
    int64_t rows, split = 1;                  // rows of an image (weight gradient: of all); parts of them
    int64_t band, bytes;                      // workspace of a part
    int threads;
    cpu::DepthwisePart part;

    Plan(const Geometry& g, const TensorView& source, bool image, bool weight, bool other)
        : depth(g, 0, image), height(g, 1, image), width(g, image) {
        const int d = static_cast<int>(source.dtype);
        const cpu::Table& table = cpu::table();
        const bool by_image = image;
        shape.channels = by_image ? g.c : g.o;
        shape.per_group = by_image ? g.image_channels() : g.result_channels();
        shape.sources = by_image ? g.result_channels() : g.image_channels();
        std::copy_n(g.kernel, 3, shape.taps);
        shape.columns = width.shape();
        images = g.n;
        lanes = table.convolution.depthwise.lanes[d];
        size = source.dtype == DType::f64 ? 8 : 4;
        vectors = ceil_div(shape.channels, lanes);
        const bool last = source.stride[1] == 1 && shape.per_group == 1 && shape.sources == 1;
        const auto& c = shape.columns;
        const int64_t made_rows = image ? g.in[1] : g.out[1];
        band = last && !weight ? 1 : std::clamp<int64_t>(kBandColumns / std::max<int64_t>(c.made, 1), 1, made_rows);
        block = last ? std::clamp<int64_t>(kTogether / (lanes * size_of(source.dtype)), 1, vectors) : 1;
        blocks = ceil_div(vectors, block);
        block = ceil_div(vectors, blocks);
        shape.axis[0] = depth.shape(1), shape.axis[1] = height.shape(band);
        const int64_t slots = shape.sources * shape.axis[0].slots * shape.axis[1].slots;
        const int64_t indices = width.indices(), place = slots * block * lanes * size;
        tile = std::max(kLeastTile, (kRing / place - c.reach) / c.stride + 1);
        tiles = c.fold != nullptr ? 1 : std::max<int64_t>(1, ceil_div(indices, tile));
        tile = tiles == 1 ? indices : round_up(ceil_div(indices, tiles), 8);
        tiles = ceil_div(indices, tile);
        rows = shape.axis[0].made * shape.axis[1].made * (weight ? images : 1);

        const double macs = static_cast<double>(images * shape.channels * shape.sources * shape.all_taps()) *
                            static_cast<double>(shape.axis[0].made * shape.axis[1].made * c.made / c.step);
        work = (macs * 0.02 + macs / static_cast<double>(shape.all_taps()) * 0.3) *
               (table.level == cpu::Level::scalar ? 16 : 1) * (source.dtype == DType::f64 ? 2 : 1);
        threads = std::max(1, cpu::threads_for(1, work));
        const int64_t units = (weight ? 1 : images) * blocks * tiles;
        if (threads > 1 && units % threads != 0 && units < 8 * threads)
            split = std::clamp<int64_t>(ceil_div(4 * threads, units), 1, std::max<int64_t>(1, rows / band));

        part.band = band;
        int64_t at = 0;
        const auto take = [&](int64_t bytes_of) {
            const int64_t begin = at;
            at += round_up(bytes_of, 64);
            return begin;
        };
        const int64_t places = (tile - 1) * c.stride + c.reach;
        const int64_t columns = std::min(tile * c.step, c.made);
        const int64_t made = block * band * columns * lanes * size + lanes * lanes * size;
        take(place * places);
        part.work_tags = take(4 * slots);
        part.work_reads = take(16 * std::max(band, shape.sources * depth.most() * height.most()));
        part.work_made = take(made);
        part.work_other = other ? take(made) : 0;
        bytes = round_up(at, 4096) + 192;  // threads' parts don't lie on the same sets of the first cache
        bytes = round_up(bytes, 64);
    }

    int64_t units() const { return blocks * tiles * split; }
    // Unit u of an image (of the weight's gradient).
    cpu::DepthwisePart at(int64_t u, char* own) const {
        cpu::DepthwisePart p = part;
        const int64_t b = u % blocks, t = u / blocks % tiles, r = u / blocks / tiles;
        p.v0 = b * block, p.v1 = std::min(vectors, p.v0 + block);
        p.j0 = t * tile, p.j1 = std::min(width.indices(), p.j0 + tile);
        p.r0 = rows * r / split, p.r1 = rows * (r + 1) / split;
        p.work = own;
        return p;
    }
    std::string describe() const {
        return concat(cpu::name_of(cpu::table().level), ", depthwise, ", block, " x ", lanes, " channels, ", tile,
                      " columns, ", threads, " threads");
    }

    double work;
};

cpu::Workspace& workspace() {
    static thread_local cpu::Workspace own;
    return own;
}

// Threads take an equal run of units each.
template <class F>
void share(int64_t units, int tid, int count, F f) {
    for (int64_t u = units * tid / count; u < units * (tid + 1) / count; ++u) f(u);
}

cpu::DepthwisePack pack_of(const TensorView& w, bool image) {
    return {w.data, w.stride[image ? 1 : 0], w.stride[image ? 0 : 1], image,
            {w.stride[2], w.stride[3], w.stride[4]}, nullptr};
}

void make(const char* op, Plan& plan, cpu::DepthwiseTask& task, const TensorView& weight, bool image) {
    const int d = static_cast<int>(weight.dtype);
    const auto& entries = cpu::table().convolution.depthwise;
    task.shape = plan.shape;
    const int64_t packed = round_up(
        plan.vectors * plan.shape.sources * plan.shape.all_taps() * plan.lanes * plan.size, 4096);
    cpu::Workspace& memory = workspace();
    char* const work = memory.get(static_cast<size_t>(packed + plan.threads * plan.bytes));
    cpu::DepthwisePack pack = pack_of(weight, image);
    pack.to = work;
    task.weight = work;
    run_on_cpu(op, op, plan.work, [&] { return plan.describe(); }, [&] {
        cpu::parallel(plan.threads, [&](int tid, int count) {
            entries.pack[d](plan.shape, pack, plan.vectors * tid / count, plan.vectors * (tid + 1) / count);
            if (count > 1) cpu::barrier();
            char* const own = work + packed + tid * plan.bytes;
            const int64_t each = plan.units();
            share(plan.images * each, tid, count, [&](int64_t u) {
                cpu::DepthwisePart p = plan.at(u % each, own);
                p.image = u / each;
                entries.run[d](task, p);
            });
        });
    });
    memory.trim();
}

}  // namespace

bool depthwise_forward(const Forward& p) {
    if (!serves(p.g)) return false;
    Plan plan(p.g, p.image, false, false, p.residual != nullptr);
    cpu::DepthwiseTask task;
    task.made = tensor(p.result), task.source = tensor(p.image);
    if (p.preact != nullptr) task.preact = tensor(*p.preact);
    if (p.residual != nullptr) task.residual = tensor(*p.residual);
    if (p.bias != nullptr) task.bias = p.bias->data, task.bias_step = p.bias->stride[0];
    if (p.activation != Activation::identity) {
        task.activate = cpu::table().matmul.activate[static_cast<int>(p.image.dtype)];
        task.activation = static_cast<int>(p.activation);
        task.p[0] = p.p[0], task.p[1] = p.p[1];
    }
    make(p.op, plan, task, p.weight, false);
    return true;
}

bool depthwise_data_gradient(const DataGradient& p) {
    if (!serves(p.g)) return false;
    Plan plan(p.g, p.result, true, false, false);
    cpu::DepthwiseTask task;
    task.made = tensor(p.image), task.source = tensor(p.result);
    if (p.bias != nullptr) task.bias = p.bias->data, task.bias_step = p.bias->stride[0];
    make(p.op, plan, task, p.weight, true);
    return true;
}

bool depthwise_weight_gradient(const WeightGradient& p) {
    if (!serves(p.g)) return false;
    Plan plan(p.g, p.image, false, true, false);
    const int d = static_cast<int>(p.image.dtype);
    const auto& entries = cpu::table().convolution.depthwise;
    const cpu::DepthwiseWeightTask task{plan.shape, tensor(p.result), tensor(p.image)};
    const int64_t vector = plan.shape.sources * plan.shape.all_taps() * plan.lanes * plan.size;
    const int64_t apart = plan.vectors * vector, parts = plan.tiles * plan.split;
    const int64_t sums = round_up(std::max<int64_t>(parts, 1) * apart, 4096);
    cpu::Workspace& memory = workspace();
    char* const work = memory.get(static_cast<size_t>(sums + plan.threads * plan.bytes));
    cpu::DepthwisePack pack = pack_of(p.weight, false);
    pack.to = p.weight.data;
    run_on_cpu(p.op, p.op, plan.work, [&] { return plan.describe(); }, [&] {
        cpu::parallel(plan.threads, [&](int tid, int count) {
            char* const own = work + sums + tid * plan.bytes;
            share(plan.units(), tid, count, [&](int64_t u) {
                const cpu::DepthwisePart part = plan.at(u, own);
                entries.weight[d](task, part, work + u / plan.blocks * apart + part.v0 * vector);
            });
            if (count > 1) cpu::barrier();
            entries.weight_finish[d](plan.shape, pack, plan.vectors * tid / count, plan.vectors * (tid + 1) / count,
                                     work, parts, apart / plan.size);
        });
    });
    memory.trim();
    return true;
}

}  // namespace nk::convolution
