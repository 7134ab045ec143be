// Where a point of a grid lies in an image, and which elements it is made of with which weights: the same on the CPU
// and in CUDA, in the arithmetic of torch's kernels for the CPU.
//
// In each dim a point is the weighted sum of elements index[0], index[1], ... of the image; those outside count as 0.
// Over several dims the weights multiply.
#pragma once

#include "resampling.h"

namespace nk {

enum class GridMode : int32_t { bilinear = 0, nearest = 1, bicubic = 2 };
enum class GridPadding : int32_t { zeros = 0, border = 1, reflection = 2 };

struct GridRule {
    GridMode mode = GridMode::bilinear;
    GridPadding padding = GridPadding::zeros;
    int32_t align_corners = 0;
    int32_t dims = 2;
    int32_t gradient = 0;  // torch's gradients in three dims leave out what its forward clamps: points at NaN
};

constexpr int grid_taps(GridMode mode) { return mode == GridMode::nearest ? 1 : mode == GridMode::bilinear ? 2 : 4; }

NK_RESAMPLING_FN float grid_floor(float x) { return floorf(x); }
NK_RESAMPLING_FN double grid_floor(double x) { return floor(x); }
NK_RESAMPLING_FN float grid_trunc(float x) { return truncf(x); }
NK_RESAMPLING_FN double grid_trunc(double x) { return trunc(x); }
NK_RESAMPLING_FN float grid_round(float x) { return rintf(x); }
NK_RESAMPLING_FN double grid_round(double x) { return rint(x); }
NK_RESAMPLING_FN float grid_abs(float x) { return fabsf(x); }
NK_RESAMPLING_FN double grid_abs(double x) { return fabs(x); }
NK_RESAMPLING_FN float grid_rest(float x, float y) { return fmodf(x, y); }
NK_RESAMPLING_FN double grid_rest(double x, double y) { return fmod(x, y); }

// Element number x, or -1 where there is none.
template <class S>
NK_RESAMPLING_FN int64_t grid_inside(S x, int64_t size) {
    return x >= 0 && x < static_cast<S>(size) ? static_cast<int64_t>(x) : -1;
}

// -1 and 1 are the centers of the outermost elements (align_corners) or their outer edges.
template <class S>
NK_RESAMPLING_FN S grid_position(const GridRule& r, int64_t size, S x) {
    const S n = static_cast<S>(r.align_corners ? size - 1 : size);
    if (r.dims == 2) return r.align_corners ? (x + 1) * (n / 2) : resample_fma(x + 1, n / 2, S(-0.5));
    return r.align_corners ? (x + 1) / 2 * n : ((x + 1) * n - 1) / 2;
}
template <class S>
NK_RESAMPLING_FN S grid_scale(const GridRule& r, int64_t size) {
    return static_cast<S>(r.align_corners ? size - 1 : size) / 2;
}

// Mirrored at the outermost elements or at their edges as often as needed; `slope` gets the sign.
template <class S>
NK_RESAMPLING_FN S grid_reflected(const GridRule& r, int64_t size, S x, S& slope) {
    const S low = r.align_corners ? S(0) : S(-0.5), span = static_cast<S>(r.align_corners ? size - 1 : size);
    if (span <= 0) {
        slope = 0;
        return 0;
    }
    const S from = grid_abs(x - low);
    const bool negative = x - low < 0;
    if (r.dims == 2) {
        const S twice = 2 * span, extra = resample_fma(-grid_trunc(from / twice), twice, from);
        const bool back = extra > twice - extra;
        slope = back != negative ? -slope : slope;
        return (back ? twice - extra : extra) + low;
    }
    const S extra = grid_rest(from, span), flips = grid_floor(from / span);
    const bool back = flips < S(0x1p31) && (static_cast<int64_t>(flips) & 1) != 0;
    slope = back != negative ? -slope : slope;
    return back ? span - extra + low : extra + low;
}

template <class S>
NK_RESAMPLING_FN S grid_clamped(const GridRule& r, int64_t size, S x, S& slope) {
    const S most = static_cast<S>(size - 1);
    if (!(x > 0 && x < most)) slope = 0;
    if (x != x) return r.dims == 2 ? S(0) : r.gradient ? x : most;
    return x > 0 ? x < most ? x : most : S(0);
}

template <class S>
NK_RESAMPLING_FN S grid_padded(const GridRule& r, int64_t size, S x, S& slope) {
    if (r.padding == GridPadding::zeros) return x;
    if (r.padding == GridPadding::reflection) x = grid_reflected(r, size, x, slope);
    return grid_clamped(r, size, x, slope);
}

// Slopes of Keys' cubic.
template <class S>
NK_RESAMPLING_FN S cubic_near_slope(S x, S a) {
    return (3 * (a + 2) * x - 2 * (a + 3)) * x;
}
template <class S>
NK_RESAMPLING_FN S cubic_far_slope(S x, S a) {
    return (3 * a * x - 10 * a) * x + 8 * a;
}

// What a point is made of in one dim.
template <class S, GridMode mode>
struct GridTaps {
    static constexpr int count = grid_taps(mode);
    GridTaps() = default;
    int64_t index[count];  // -1: outside
    S weight[count];
    S bend[count];  // bicubic: of the weight by the position
    S scale;        // of the position by the coordinate

    NK_RESAMPLING_FN GridTaps(const GridRule& r, int64_t size, S x) : scale(grid_scale<S>(r, size)) {
        S at = grid_position(r, size, x);
        if constexpr (mode == GridMode::nearest) {
            index[0] = grid_inside(grid_round(grid_padded(r, size, at, scale)), size);
            weight[0] = 1, bend[0] = 0;
        } else if constexpr (mode == GridMode::bilinear) {
            at = grid_padded(r, size, at, scale);
            const S first = grid_floor(at), t = at - first;
            index[0] = grid_inside(first, size), index[1] = grid_inside(first + 1, size);
            weight[0] = 1 - t, weight[1] = t;
            if (r.dims == 3 && t != t) weight[0] = weight[1] = 0;  // nothing, and in two dims NaN
            bend[0] = -1, bend[1] = 1;
        } else {
            const S first = grid_floor(at), t = at - first, a = S(-0.75);
            weight[0] = cubic_far(t + 1, a), weight[1] = cubic_near(t, a);
            weight[2] = cubic_near(1 - t, a), weight[3] = cubic_far(2 - t, a);
            bend[0] = cubic_far_slope(t + 1, a), bend[1] = cubic_near_slope(t, a);
            bend[2] = -cubic_near_slope(1 - t, a), bend[3] = -cubic_far_slope(2 - t, a);
            for (int k = 0; k < 4; ++k) {
                S none = 0;
                index[k] = grid_inside(grid_trunc(grid_padded(r, size, first + static_cast<S>(k - 1), none)), size);
            }
        }
    }
};

}  // namespace nk
