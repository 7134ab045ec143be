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
#include "plan/stores_cpu.h"
#include "tensor/check.h"

namespace nk::convolution {

namespace {

using plan::ceil_div;
using plan::round_up;

constexpr int64_t kRing = 24 << 10;        // bytes of a ring that stays in the first cache
constexpr int64_t kTogether = 128;         // bytes of channels side by side that are copied into it together
constexpr int64_t kAllTogether = 1 << 20;  // in place: memory is read from front to back
constexpr int64_t kWeightTogether = 512;   // in place, weight's gradient: a band of its rows stays in the first cache
constexpr int64_t kBandInPlace = 256;      // columns of such a band
constexpr int64_t kBandColumns = 64;       // columns of narrow rows that are made together
constexpr int64_t kLeastTile = 16;         // columns
constexpr int64_t kMostInGroup = 4;        // channels, of groups that have more than one
constexpr int64_t kMostMultiplier = 16;    // results of one channel
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
    int64_t images, lanes, vectors, size;  // size: bytes of an accumulator
    int64_t block, blocks, tile, tiles;    // vectors and columns of a part
    int64_t rows, split = 1;               // rows of an image (weight gradient: of all); parts of them
    int64_t band, bytes;                   // workspace of a part
    int threads;
    cpu::DepthwisePart part;

    Plan(const Geometry& g, const TensorView& source, const TensorView& made, bool image, bool weight, bool other,
         bool plain)
        : depth(g, 0, image), height(g, 1, image), width(g, image) {
        const int d = static_cast<int>(source.dtype);
        const cpu::Table& table = cpu::table();
        shape.channels = image ? g.c : g.o;
        shape.per_group = image ? g.image_channels() : g.result_channels();
        shape.sources = image ? g.result_channels() : g.image_channels();
        std::copy_n(g.kernel, 3, shape.taps);
        shape.columns = width.shape();
        images = g.n;
        in_place = plain && reads_in_place(g, source, made, weight);
        lanes = in_place ? table.convolution.depthwise.last_lanes[d] : table.convolution.depthwise.lanes[d];
        size = source.dtype == DType::f64 ? 8 : 4;
        vectors = ceil_div(shape.channels, lanes);
        const bool last = source.stride[1] == 1 && shape.per_group == 1 && shape.sources == 1;
        const auto& c = shape.columns;
        const int64_t made_rows = image ? g.in[1] : g.out[1];
        band = last && !weight ? 1 : std::clamp<int64_t>(kBandColumns / std::max<int64_t>(c.made, 1), 1, made_rows);
        const int64_t together = !in_place ? kTogether : weight ? kWeightTogether : kAllTogether;
        block = last ? std::clamp<int64_t>(together / (lanes * size_of(source.dtype)), 1, vectors) : 1;
        blocks = ceil_div(vectors, block);
        block = ceil_div(vectors, blocks);
        if (in_place && weight) band = std::clamp<int64_t>(kBandInPlace / std::max<int64_t>(c.made, 1), 1, made_rows);
        shape.axis[0] = depth.shape(1), shape.axis[1] = height.shape(band);
        const int64_t slots = shape.sources * shape.axis[0].slots * shape.axis[1].slots;
        const int64_t indices = width.indices(), place = slots * block * lanes * size;
        tile = std::max(kLeastTile, (kRing / place - c.reach) / c.stride + 1);
        tiles = c.fold != nullptr || in_place ? 1 : std::max<int64_t>(1, ceil_div(indices, tile));
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
        const int64_t made_bytes = block * band * columns * lanes * size + lanes * lanes * size;
        take(in_place ? 0 : place * places);
        part.work_tags = take(in_place ? 0 : 4 * slots);
        part.work_reads = take(16 * std::max(band * g.kernel[1], shape.sources * depth.most() * height.most()));
        part.work_made = take(in_place ? block * lanes * shape.all_taps() * size : made_bytes);
        part.work_other = other ? take(made_bytes) : 0;
        bytes = round_up(at, 4096) + 192;  // threads' parts don't lie on the same sets of the first cache
        bytes = round_up(bytes, 64);
    }

    // Channels side by side, nothing but zeros as padding, nothing to do with the sums but to store them.
    bool reads_in_place(const Geometry& g, const TensorView& source, const TensorView& made, bool weight) const {
        const int d = static_cast<int>(source.dtype);
        const auto& entries = cpu::table().convolution.depthwise;
        const auto serves = (weight ? entries.last_weight_serves : entries.last_serves)[d];
        const auto& c = shape.columns;
        if (serves == nullptr || shape.per_group != 1 || shape.sources != 1 || source.stride[1] != 1 ||
            made.stride[1] != 1 || g.mode != PaddingMode::zeros)
            return false;
        for (int64_t i = 0; i < c.phase_count; ++i) {
            const cpu::DepthwisePhase& f = c.phases[i];
            if ((c.dilation != 1 && f.taps != 1) || !serves(f.taps, c.stride, shape.channels)) return false;
        }
        return true;
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
        return concat(cpu::name_of(cpu::table().level), in_place ? ", depthwise in place, " : ", depthwise, ", block,
                      " x ", lanes, " channels, ", tile, " columns, ", threads, " threads");
    }

    double work;
    bool in_place;
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
    return {w.data, w.stride[image ? 1 : 0], w.stride[image ? 0 : 1], image, {w.stride[2], w.stride[3], w.stride[4]},
            nullptr};
}

// Whole lines, each written once, of a result that the caches don't keep.
bool goes_past(const TensorView& made, const TensorView& source, int64_t lanes) {
    const TensorView* const touched[] = {&made, &source};
    for (int i = 2; i < made.ndim; ++i)
        if (made.stride[i] * size_of(made.dtype) % 64 != 0) return false;
    return made.shape[1] % lanes == 0 && reinterpret_cast<uintptr_t>(made.data) % 64 == 0 &&
           made.stride[0] * size_of(made.dtype) % 64 == 0 && plan::goes_past(touched, 1, 1, cpu::last_level_cache());
}

void make(const char* op, Plan& plan, cpu::DepthwiseTask& task, const TensorView& made, const TensorView& source,
          const TensorView& weight, bool image) {
    const int d = static_cast<int>(weight.dtype);
    const auto& entries = cpu::table().convolution.depthwise;
    task.shape = plan.shape;
    task.made = tensor(made), task.source = tensor(source);
    if (plan.in_place) task.past = goes_past(made, source, plan.lanes);
    const int64_t packed =
        round_up(plan.vectors * plan.shape.sources * plan.shape.all_taps() * plan.lanes * plan.size, 4096);
    cpu::Workspace& memory = workspace();
    char* const work = memory.get(static_cast<size_t>(packed + plan.threads * plan.bytes));
    cpu::DepthwisePack pack = pack_of(weight, image);
    pack.to = work;
    task.weight = work;
    run_on_cpu(
        op, op, plan.work, [&] { return plan.describe(); },
        [&] {
            cpu::parallel(plan.threads, [&](int tid, int count) {
                const int64_t vectors = plan::ceil_div(plan.shape.channels, entries.lanes[d]);
                (plan.in_place ? entries.last_pack[d] : entries.pack[d])(plan.shape, pack, vectors * tid / count,
                                                                         vectors * (tid + 1) / count);
                if (count > 1) cpu::barrier();
                char* const own = work + packed + tid * plan.bytes;
                const int64_t each = plan.units();
                share(plan.images * each, tid, count, [&](int64_t u) {
                    cpu::DepthwisePart p = plan.at(u % each, own);
                    p.image = u / each;
                    (plan.in_place ? entries.last_run[d] : entries.run[d])(task, p);
                });
                if (task.past) cpu::drain_stores();
            });
        });
    memory.trim();
}

}  // namespace

bool depthwise_forward(const Forward& p) {
    if (!serves(p.g)) return false;
    const bool plain = p.activation == Activation::identity && p.preact == nullptr && p.residual == nullptr &&
                       (p.bias == nullptr || p.bias->stride[0] == 1);
    Plan plan(p.g, p.image, p.result, false, false, p.residual != nullptr, plain);
    cpu::DepthwiseTask task;
    if (p.preact != nullptr) task.preact = tensor(*p.preact);
    if (p.residual != nullptr) task.residual = tensor(*p.residual);
    if (p.bias != nullptr) task.bias = p.bias->data, task.bias_step = p.bias->stride[0];
    if (p.activation != Activation::identity) {
        task.activate = cpu::table().matmul.activate[static_cast<int>(p.image.dtype)];
        task.activation = static_cast<int>(p.activation);
        task.p[0] = p.p[0], task.p[1] = p.p[1];
    }
    make(p.op, plan, task, p.result, p.image, p.weight, false);
    return true;
}

bool depthwise_data_gradient(const DataGradient& p) {
    if (!serves(p.g)) return false;
    Plan plan(p.g, p.result, p.image, true, false, false, p.bias == nullptr || p.bias->stride[0] == 1);
    cpu::DepthwiseTask task;
    if (p.bias != nullptr) task.bias = p.bias->data, task.bias_step = p.bias->stride[0];
    make(p.op, plan, task, p.image, p.result, p.weight, true);
    return true;
}

bool depthwise_weight_gradient(const WeightGradient& p) {
    if (!serves(p.g)) return false;
    Plan plan(p.g, p.image, p.result, false, true, false, true);
    const int d = static_cast<int>(p.image.dtype);
    const auto& entries = cpu::table().convolution.depthwise;
    const cpu::DepthwiseWeightTask task{plan.shape, tensor(p.result), tensor(p.image)};
    // Sums lie in vectors of accumulators, whatever lanes the kernel that makes them has.
    const int64_t lanes = entries.lanes[d], vectors = ceil_div(plan.shape.channels, lanes);
    const int64_t vector = plan.shape.sources * plan.shape.all_taps() * lanes * plan.size;
    const int64_t apart = vectors * vector, parts = plan.tiles * plan.split;
    const int64_t sums = round_up(std::max<int64_t>(parts, 1) * apart, 4096);
    cpu::Workspace& memory = workspace();
    char* const work = memory.get(static_cast<size_t>(sums + plan.threads * plan.bytes));
    cpu::DepthwisePack pack = pack_of(p.weight, false);
    pack.to = p.weight.data;
    run_on_cpu(
        p.op, p.op, plan.work, [&] { return plan.describe(); },
        [&] {
            cpu::parallel(plan.threads, [&](int tid, int count) {
                char* const own = work + sums + tid * plan.bytes;
                share(plan.units(), tid, count, [&](int64_t u) {
                    const cpu::DepthwisePart part = plan.at(u, own);
                    char* const own_sums = work + u / plan.blocks * apart;
                    if (plan.in_place)
                        entries.last_weight[d](task, part, own_sums);
                    else
                        entries.weight[d](task, part, own_sums + part.v0 * vector);
                });
                if (count > 1) cpu::barrier();
                entries.weight_finish[d](plan.shape, pack, vectors * tid / count, vectors * (tid + 1) / count, work,
                                         parts, apart / plan.size);
            });
        });
    memory.trim();
    return true;
}

}  // namespace nk::convolution
