#include "matmul/plan_cpu.h"

#include <algorithm>
#include <cstdio>
#include <initializer_list>

#include "plan/arithmetic.h"

namespace nk::cpu {

namespace {

// The machine the costs are about: one core with 32 KiB + 1 MiB of own cache. In cycles; measured on Zen 4.
constexpr int64_t kDepthBytes = 1536;       // of one row of packed a: 14 rows take 21 KiB of the first cache
constexpr int64_t kDepthF32 = 192;          // f32 results show how long a sum in one register gets: MKL's length
constexpr int64_t kBlockBytes = 512 << 10;  // packed b: half of the second cache
constexpr int64_t kSumBytes = 160 << 10;    // sums between blocks of k: some of the other half
constexpr int64_t kOwnBytes = 800 << 10;    // of the second cache, for packed b and all sums
constexpr int64_t kStripBytes = 4 << 20;    // packed b over all of k: last cache
constexpr double kStream = 2048;            // bytes of a row of b that is worth a stream of its own
constexpr int64_t kLastBytes = 16 << 20;    // of the last cache, a core's share
// Next to no work for each output: what counts is that the rows of a tile, often 4 KiB apart, keep their places in the
// first cache, and that a row is written in long pieces.
constexpr int64_t kShallow = 64;
constexpr int kShallowRows = 4;
constexpr double kFork = 10000;                               // to start and end a parallel region
constexpr double kStep = 0.7;                                 // loop overhead of one step of the microkernel
constexpr double kCall = 25;                                  // of calling it once
constexpr double kTranspose = 0.8, kCopy = 0.2, kGather = 3;  // packing one unit of b
constexpr double kCopyRow = 0.12, kCopyAcross = 0.25;         // packing one unit of a
constexpr double kPages = 2;                                  // times dearer where each access is to another page
constexpr double kMemory = 6;                                 // bytes a cycle that a core gets from memory
constexpr double kScatter = 1.5, kScatterFar = 10;            // one output across a row; where it misses the cache
constexpr double kLastCache = 16, kSpill = 8;                 // from the last cache: in order; sums, all at once
constexpr double kSmallCall = 200, kSmallEach = 4, kSmallStep = 3;  // whole matrices in a vector: setting out, each

using plan::ceil_div;
using plan::round_up;

struct Part {
    int64_t m, n, k;
};

// Cycles of one step of k over a strip of `vectors` vectors, for `rows` rows of a at a time.
double step_cost(double rows, int64_t vectors, int nv) {
    auto tile = [&](double v) { return std::max({rows * v, rows + v, 4.0}) + kStep; };
    const int64_t rest = vectors % nv;
    return double(vectors / nv) * tile(nv) + (rest ? tile(double(rest)) : 0);
}

// Width of a packed strip of b and the rows that go over it together: sets nc and mc, returns the cycles that depend on
// them. `a_cost`: of reading and packing all of a once, which each strip does again.
double lay_out(const MatmulTile& t, const Part& part, double a_cost, MatmulPlan& plan) {
    const bool pairs = plan.path == MatmulPath::packed && t.group == 2;
    const int64_t unit = plan.path == MatmulPath::packed ? t.unit : t.stream_unit;
    auto units = [&](int64_t k) { return pairs ? ceil_div(k, 2) : k; };
    const int64_t panels = ceil_div(part.m, plan.mr), blocks = ceil_div(part.k, plan.kc);
    const int64_t nr = int64_t(plan.nv) * t.lanes, all = round_up(part.n, nr);
    auto height = [&](int64_t nc) {  // rows whose sums stay in cache between blocks of k
        const int64_t most = std::max<int64_t>(1, kSumBytes / (std::min(nc, part.n) * t.acc * plan.mr));
        return blocks <= 1 ? part.m : ceil_div(part.m, ceil_div(panels, most));
    };
    if (!plan.pack_b) {
        plan.nc = all, plan.mc = height(all);
        return a_cost;
    }
    auto strips = [&](int64_t bytes, int64_t depth) {
        return ceil_div(all, std::max(nr, bytes / (std::max<int64_t>(depth, 1) * unit) / nr * nr));
    };
    double best = 1e300;
    auto weigh = [&](int64_t count, bool by_blocks) {
        const int64_t nc = round_up(ceil_div(part.n, count), nr);
        const int64_t mc = by_blocks ? part.m : std::min(height(nc), part.m - 1);
        double cost = double(count) * a_cost;
        const double sums = double(part.m * std::min(nc, part.n) * t.acc);
        if (by_blocks && blocks > 1 && sums + double(units(plan.kc) * nc * unit) > kOwnBytes)
            cost += double(count * blocks) * sums * 2 / kSpill;
        if (!by_blocks) cost += double(ceil_div(part.m, mc) * units(part.k) * part.n * unit) / kLastCache;
        if (cost < best) best = cost, plan.nc = nc, plan.mc = mc;
    };
    const int64_t fewest = strips(kBlockBytes, units(plan.kc));
    for (int64_t count = fewest; count < fewest + 4 && (count == fewest || count <= all / nr); ++count)
        weigh(count, true);
    if (blocks > 1 && part.m > 1) weigh(std::max(fewest, strips(kStripBytes, units(part.k))), false);
    return best;
}

double block_cost(const MatmulProblem& p, const MatmulTile& t, const Part& part, MatmulPlan& plan) {
    const bool pairs = plan.path == MatmulPath::packed && t.group == 2;
    const int unit = plan.path == MatmulPath::packed ? t.unit : t.stream_unit;
    const int64_t panels = ceil_div(part.m, plan.mr), vectors = ceil_div(part.n, t.lanes);
    const double rows = double(part.m) / double(panels);
    const int64_t units = pairs ? ceil_div(part.k, 2) : part.k;

    const int64_t kc_max = p.dtype == DType::f32 ? kDepthF32 : kDepthBytes / unit * (pairs ? 2 : 1);
    const int64_t blocks = std::max<int64_t>(1, ceil_div(part.k, kc_max));
    plan.kc = std::max<int64_t>(16, round_up(ceil_div(part.k, blocks), 16));
    // Few rows wait for b: a few of its rows at a time are as many streams, which the hardware follows.
    const double b_row = double(p.n) * size_of(p.dtype);
    if (!plan.pack_b && part.m <= plan.mr && b_row >= kStream && b_row * double(p.k) > kBlockBytes)
        plan.kc = cpu::kMatmulStreams;

    double cost = double(panels * units) * step_cost(rows, vectors, plan.nv);
    cost += double(panels * ceil_div(vectors, plan.nv) * ceil_div(part.k, plan.kc)) * (kCall + rows * plan.nv);
    const double b_bytes = double(part.k * part.n) * size_of(p.dtype);
    const double a_bytes = double(part.m * part.k) * size_of(p.dtype);
    const double fetch = b_bytes > kBlockBytes ? b_bytes / kMemory : 0;
    // with a column or two there is next to nothing to do for each element of a; across its rows every step is a page
    const double a_fetch = a_bytes > kBlockBytes ? a_bytes / kMemory * (p.a_col1 ? 1 : kPages) : 0;
    if (!plan.pack_a) cost = std::max(cost, a_fetch);
    if (plan.pack_b) {
        const double each = p.b_col1 ? kCopy : p.b_row1 ? kTranspose : kGather;
        cost += fetch / 2 + double(units * vectors * t.lanes) * each;
    } else {
        cost = std::max(cost, fetch / 2);
    }
    const double a_unit = p.a_col1 ? kCopyRow : p.a_row1 ? kCopyAcross : kGather;
    return cost + lay_out(t, part, a_fetch / 2 + (plan.pack_a ? double(part.m * units) * a_unit : 0), plan);
}

double dot_cost(const MatmulProblem& p, const MatmulTile& t, const Part& part, bool pack_a) {
    const int64_t vectors = ceil_div(part.k, int64_t(t.lanes) * t.group);
    const double rows = double(part.m) / double(ceil_div(part.m, t.dot_rows));
    const double step = std::max({4 * rows, 6 + rows, 4.0}) + kStep;
    const double groups = double(ceil_div(part.m, t.dot_rows) * ceil_div(part.n, 4));
    const double b_bytes = double(part.k * part.n) * size_of(p.dtype);
    const double fetch = b_bytes > kBlockBytes ? b_bytes / kMemory : 0;
    const double packing = pack_a ? double(part.m * part.k) * (p.a_col1 ? kCopyRow : kGather) : 0;
    return packing + std::max(fetch / 2, groups * (double(vectors) * step + rows * 22 + 20));
}

// The cheapest way to divide one orientation of the problem by one path.
void consider(const MatmulProblem& p, const MatmulTile& t, MatmulPlan plan, MatmulPlan& best) {
    for (int tm = 1; tm <= p.threads; ++tm)
        for (int tn = 1; tm * tn <= p.threads; ++tn)
            for (int tk = 1; tm * tn * tk <= p.threads; ++tk) {
                if (tk > 1 && (p.batch > 1 || p.k < 256 * tk)) break;
                if ((tm > 1 && p.m < 2 * tm) || (tn > 1 && p.n < 2 * tn)) break;
                const int64_t grain_n = plan.path == MatmulPath::dot ? 4 : t.lanes;
                const Part part{ceil_div(p.m, tm), std::min(p.n, round_up(ceil_div(p.n, tn), grain_n)),
                                ceil_div(p.k, tk)};
                double cost =
                    plan.path == MatmulPath::dot ? dot_cost(p, t, part, plan.pack_a) : block_cost(p, t, part, plan);
                const double outputs = double(part.m * part.n);
                if (!p.out_col1) cost += outputs * (outputs * size_of(p.dtype) > kSumBytes ? kScatterFar : kScatter);
                if (!p.bare || size_of(p.dtype) != t.acc) cost += outputs / t.lanes * 6;
                const int64_t parts = p.batch * tm * tn * tk;
                const int threads = int(std::min<int64_t>(p.threads, parts));
                cost *= double(ceil_div(parts, threads));
                if (tk > 1) cost += outputs / tk * (tk + 3) / t.lanes * 3 + 2000;
                if (threads > 1) cost += kFork;
                if (cost < best.cycles) {
                    plan.tm = tm, plan.tn = tn, plan.tk = tk, plan.threads = threads, plan.cycles = cost;
                    best = plan;
                }
                if (threads > 1 && p.threads > 1) {  // and on one thread alone, where a region costs more than it gives
                    const double alone = (cost - kFork) * double(parts) / double(ceil_div(parts, threads));
                    if (parts == p.batch && alone < best.cycles) {
                        plan.tm = tm, plan.tn = tn, plan.tk = tk, plan.threads = 1, plan.cycles = alone;
                        best = plan;
                    }
                }
            }
}

// Some rows at a time, or whole matrices of a batch, by vectors that hold all of them.
void consider_small(const MatmulProblem& p, MatmulPlan& best) {
    const int64_t parts = p.small_rows == 0 ? 0 : p.batch * ceil_div(p.m, p.small_rows);
    if (parts < 4) return;
    MatmulPlan plan{};
    plan.path = MatmulPath::small;
    plan.mr = p.small_rows, plan.nv = 1;
    plan.tm = plan.tn = plan.tk = 1;
    for (const int threads : {1, int(std::min<int64_t>(p.threads, parts))}) {
        plan.threads = threads;
        plan.cycles = kSmallCall + double(ceil_div(parts, threads) * p.k) * kSmallStep + (threads > 1 ? kFork : 0);
        plan.cycles += double(ceil_div(parts, threads)) * kSmallEach;
        if (plan.cycles < best.cycles) best = plan;
    }
}

void consider_paths(const MatmulProblem& p, const MatmulTile& t, bool swap, MatmulPlan& best) {
    MatmulPlan plan{};
    plan.swap = swap;
    if (p.m <= kMatmulDotRows && p.b_row1) {
        plan.path = MatmulPath::dot;
        plan.pack_a = !(t.same_type && p.a_col1);
        consider(p, t, plan, best);
    }
    plan.path = MatmulPath::packed;
    plan.pack_b = true;
    const bool shallow =
        t.group == 1 && t.wide_mr && p.b_col1 && p.out_col1 && p.k <= kShallow && p.n >= int64_t(t.wide_nv) * t.lanes;
    plan.mr = shallow ? kShallowRows : t.mr, plan.nv = shallow ? t.wide_nv : t.nv;
    const bool a_readable = t.same_type && (t.group == 1 || (p.a_col1 && p.k % 2 == 0));
    const bool a_once = p.n <= 3 * int64_t(t.nv) * t.lanes || p.a_near;
    plan.pack_a = !(a_readable && a_once);
    consider(p, t, plan, best);

    // b as it lies: worth it where it is read once, or small.
    if (!p.b_col1) return;
    const bool converts = t.group == 2 || !t.same_type;
    plan.path = converts ? MatmulPath::stream : MatmulPath::unpacked;
    plan.pack_b = false;
    plan.pack_a = converts || !a_once;
    // Where memory is the limit the first one wins: narrow panels from memory, wide ones from the last cache.
    auto wide = [&] {
        if (!t.wide_mr || p.m > t.wide_mr) return;
        plan.mr = t.wide_mr, plan.nv = t.wide_nv;
        consider(p, t, plan, best);
    };
    const int64_t b_bytes = p.k * p.n * size_of(p.dtype);
    if (b_bytes <= kLastBytes) wide();
    if (!shallow) plan.mr = converts ? t.stream_mr : t.mr, plan.nv = t.nv;
    if (p.m <= plan.mr || b_bytes <= kBlockBytes / 2) consider(p, t, plan, best);
    if (b_bytes > kLastBytes) wide();
}

}  // namespace

MatmulPlan plan_matmul(const MatmulProblem& problem, const MatmulTile& tile) {
    MatmulPlan best{};
    best.cycles = 1e300;
    consider_paths(problem, tile, false, best);
    MatmulProblem turned = problem;
    std::swap(turned.m, turned.n);
    turned.a_row1 = problem.b_col1, turned.a_col1 = problem.b_row1;
    turned.b_row1 = problem.a_col1, turned.b_col1 = problem.a_row1;
    std::swap(turned.a_near, turned.b_near);
    turned.out_row1 = problem.out_col1, turned.out_col1 = problem.out_row1;
    consider_paths(turned, tile, true, best);
    consider_small(problem, best);
    return best;
}

std::string to_string(const MatmulPlan& plan, const MatmulTile& tile) {
    constexpr const char* paths[] = {"packed", "unpacked", "stream", "dot"};
    char text[160];
    if (plan.path == MatmulPath::small) {
        std::snprintf(text, sizeof text, "small %s rows %d threads %d", tile.name, plan.mr, plan.threads);
        return text;
    }
    if (plan.path == MatmulPath::dot)
        std::snprintf(text, sizeof text, "dot %s %dx4%s threads %dx%dx%d of %d", tile.name, tile.dot_rows,
                      plan.swap ? " transposed" : "", plan.tm, plan.tn, plan.tk, plan.threads);
    else
        std::snprintf(text, sizeof text, "%s %s %dx%d%s%s kc %lld nc %lld mc %lld threads %dx%dx%d of %d",
                      paths[static_cast<int>(plan.path)], tile.name, plan.mr, plan.nv * tile.lanes,
                      plan.swap ? " transposed" : "", plan.pack_a ? " a packed" : "", (long long)plan.kc,
                      (long long)plan.nc, (long long)plan.mc, plan.tm, plan.tn, plan.tk, plan.threads);
    return text;
}

}  // namespace nk::cpu
