#include "convolution/plan_cuda.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <sstream>

#include "plan/arithmetic.h"

namespace nk::plan {

namespace {

constexpr int64_t kMostPartialSums = int64_t{256} << 20;  // bytes

constexpr int mma_ring(int m, int n, int k_bytes, int stages) { return (m + n) * k_bytes * stages; }

constexpr int element_ring(int m, int n, int k, int element, int stages) {
    return (m + 4 + n + 4) * k * element * stages;
}

bool takes(const ConvolutionTile& t, DType dtype, bool tf32) { return t.dtype == dtype && t.tf32 == tf32; }

// A wave of blocks of the larger tile is worth its longer way to the first result.
const ConvolutionTile* tile_for(const ConvolutionShape& s, const Gpu& gpu) {
    const ConvolutionTile* best = nullptr;
    for (const ConvolutionTile& t : convolution_tiles()) {
        if (!takes(t, s.dtype, s.tf32) || t.shared > gpu.shared_per_block) continue;
        const int64_t tiles = ceil_div(s.m, t.m) * ceil_div(s.n, t.n) * s.groups;
        const bool large = t.m * t.n > 64 * 64;
        if (large && s.mapped) continue;
        if (!s.only.empty() && !s.mapped && std::to_string(t.m) + 'x' + std::to_string(t.n) != s.only) continue;
        if (large && s.only.empty() && (s.n <= t.n / 2 || s.m <= t.m / 2 || tiles < gpu.multiprocessors)) continue;
        if (best == nullptr || t.m * t.n > best->m * best->n) best = &t;
    }
    return best;
}

}  // namespace

std::vector<Phase> data_gradient_phases(int64_t pixels, int64_t kernel, int64_t stride, int64_t dilation, int64_t pad) {
    std::vector<Phase> phases;
    const int64_t common = std::gcd(stride, dilation);
    for (int64_t first = 0; first < std::min(stride, pixels); ++first) {
        Phase p;
        p.first = first, p.pixels = ceil_div(pixels - first, stride);
        p.tap_step = stride / common, p.step = dilation / common;
        while (p.tap < std::min(p.tap_step, kernel) && (first + pad - p.tap * dilation) % stride != 0) ++p.tap;
        if (p.tap < std::min(p.tap_step, kernel)) {
            p.taps = ceil_div(kernel - p.tap, p.tap_step);
            p.begin = (first + pad - p.tap * dilation) / stride;
        }
        phases.push_back(p);
    }
    return phases;
}

const std::vector<ConvolutionTile>& convolution_tiles() {
    static const std::vector<ConvolutionTile> tiles = [] {
        std::vector<ConvolutionTile> list;
        for (const DType t : {DType::bf16, DType::f16}) {
            const char* e = t == DType::bf16 ? "bf16" : "f16";
            list.push_back({t, e, 128, 128, 32, 128, 4, mma_ring(128, 128, 64, 4), 2, 16, false});
            list.push_back({t, e, 64, 64, 64, 128, 3, mma_ring(64, 64, 128, 3), 4, 16, false});
        }
        constexpr DType f32 = DType::f32, f64 = DType::f64;
        list.push_back({f32, "tf32", 128, 128, 16, 256, 4, mma_ring(128, 128, 64, 4), 1, 16, true});
        list.push_back({f32, "tf32", 64, 64, 32, 128, 3, mma_ring(64, 64, 128, 3), 3, 16, true});
        list.push_back({f32, "f32", 128, 128, 16, 256, 4, element_ring(128, 128, 16, 4, 4), 2, 4, false});
        list.push_back({f32, "f32", 64, 64, 16, 128, 4, element_ring(64, 64, 16, 4, 4), 3, 4, false});
        list.push_back({f64, "f64", 64, 64, 16, 128, 3, element_ring(64, 64, 16, 8, 3), 3, 8, false});
        return list;
    }();
    return tiles;
}

int convolution_unit(DType dtype, bool tf32) {
    for (const ConvolutionTile& t : convolution_tiles())
        if (takes(t, dtype, tf32)) return t.unit / size_of(dtype);
    return 0;
}

ConvolutionPlan plan_convolution(const ConvolutionShape& s, const Gpu& gpu, int64_t chunks) {
    ConvolutionPlan p;
    p.tile = tile_for(s, gpu);
    if (p.tile == nullptr) return p;
    const ConvolutionTile& t = *p.tile;
    p.tiles_m = static_cast<int>(ceil_div(s.m, t.m)), p.tiles_n = static_cast<int>(ceil_div(s.n, t.n));
    const double wave = gpu.multiprocessors * t.blocks;
    p.group = std::clamp<int>(static_cast<int>(std::lround(std::sqrt(wave * t.n / t.m))), 1, 16);
    p.group = std::min(p.group, std::max(p.tiles_m, 1));
    p.workspace_pitch = round_up(s.n, 4);
    // Parts of k until every multiprocessor is full, each of at least eight tiles, or of four whose numbers are added
    // one after the other by a thread.
    const int64_t blocks = std::max<int64_t>(int64_t{p.tiles_m} * p.tiles_n * s.groups, 1);
    const int64_t steps = ceil_div(s.k, t.k);
    int64_t splits = std::min(static_cast<int64_t>(wave) / blocks, steps / (t.k > 16 ? 8 : 4));
    const int64_t number = s.dtype == DType::f64 ? 8 : 4;
    const int64_t bytes = std::max<int64_t>(s.groups * s.m * p.workspace_pitch * number * chunks, 1);
    splits = std::clamp<int64_t>(std::min(splits, kMostPartialSums / bytes), 1, 1024);
    p.k_per_split = splits == 1 ? s.k : ceil_div(steps, splits) * t.k;
    p.splits = p.k_per_split > 0 ? static_cast<int>(ceil_div(s.k, p.k_per_split)) : 1;
    return p;
}

std::string ConvolutionPlan::describe() const {
    std::ostringstream s;
    s << "tile " << tile->m << 'x' << tile->n << 'x' << tile->k << ", " << tile->threads / 32 << " warps, "
      << tile->stages << " stages, " << tile->shared << " bytes shared, tiles " << tiles_m << 'x' << tiles_n
      << " in groups of " << group << ", split " << splits << " (k " << k_per_split << ")";
    return s.str();
}

}  // namespace nk::plan
