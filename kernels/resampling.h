// Which elements of the source an output of interpolation is made of, and with which weights: the same on the host, on
// the CPU and in CUDA, in the arithmetic of torch's kernels for S.
//
// Output o of a dim is the weighted sum of elements first, first + 1, ... of the source: `count` of them, those beyond
// an edge being the edge. first and first + count never fall as o grows.
#pragma once

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__
#define NK_RESAMPLING_FN __host__ __device__ __forceinline__
#else
// never a function of its own: what is compiled for one instruction set can't be taken for another's
#define NK_RESAMPLING_FN __attribute__((always_inline)) inline
#endif

namespace nk {

enum class ResampleMode : int32_t {
    nearest = 0,
    nearest_exact = 1,
    linear = 2,
    cubic = 3,
    antialiased_linear = 4,
    antialiased_cubic = 5,
};

struct ResampleDim {
    ResampleMode mode = ResampleMode::nearest;
    int32_t align_corners = 0;
    int64_t in = 1, out = 1;
    double scale = 1;  // elements of the source for each output, a number of S
};

// x y + z, rounded once: torch's kernels are compiled to that.
NK_RESAMPLING_FN float resample_fma(float x, float y, float z) { return fmaf(x, y, z); }
NK_RESAMPLING_FN double resample_fma(double x, double y, double z) { return fma(x, y, z); }

// Keys' cubic within one element, and beyond it.
template <class S>
NK_RESAMPLING_FN S cubic_near(S x, S a) {
    return resample_fma(resample_fma(a + 2, x, -(a + 3)) * x, x, S(1));
}
template <class S>
NK_RESAMPLING_FN S cubic_far(S x, S a) {
    return resample_fma(resample_fma(resample_fma(a, x, -5 * a), x, 8 * a), x, -4 * a);
}

template <class S>
struct ResampleTaps {
    int64_t first, count;
    S t;  // how far behind the first element (of a cubic the second one) the output lies

    NK_RESAMPLING_FN ResampleTaps(const ResampleDim& d, int64_t o) : first(o), count(1), t(0), mode(d.mode) {
        const S scale = static_cast<S>(d.scale);
        const bool antialiased = mode >= ResampleMode::antialiased_linear;
        if ((antialiased || mode == ResampleMode::linear) && d.in == d.out) {  // stays as it is
            mode = ResampleMode::nearest;
            return;
        }
        if (antialiased) {
            set_antialiased(scale, d.in, o);
            return;
        }
        if (mode == ResampleMode::nearest) {
            first = within(floorf(static_cast<float>(scale * static_cast<S>(o))), d.in);
            return;
        }
        const bool cubic = mode == ResampleMode::cubic;
        S at = d.align_corners ? scale * static_cast<S>(o) : resample_fma(scale, static_cast<S>(o) + S(0.5), S(-0.5));
        if (!d.align_corners && !cubic && at < 0) at = 0;
        if (mode == ResampleMode::nearest_exact) {
            first = within(floorf(static_cast<float>(static_cast<double>(at) + 0.5)), d.in);
            return;
        }
        first = within(floorf(static_cast<float>(at)), d.in);
        t = at - static_cast<S>(first);
        t = t < 0 ? S(0) : t > 1 ? S(1) : t;
        count = cubic ? 4 : 2;
        if (cubic) --first;
    }

    NK_RESAMPLING_FN S weight(int64_t k) const {
        switch (mode) {
            case ResampleMode::linear:
                return k == 0 ? S(1) - t : t;
            case ResampleMode::cubic: {
                const S a = S(-0.75);
                return k == 0   ? cubic_far(t + S(1), a)
                       : k == 1 ? cubic_near(t, a)
                       : k == 2 ? cubic_near(S(1) - t, a)
                                : cubic_far((S(1) - t) + S(1), a);
            }
            case ResampleMode::antialiased_linear:
            case ResampleMode::antialiased_cubic:
                return total == 0 ? filter(k) : filter(k) / total;
            default:
                return S(1);
        }
    }

  private:
    ResampleMode mode;
    S inverse = 1, total = 0;

    static NK_RESAMPLING_FN int64_t within(float index, int64_t size) {
        const int64_t i = static_cast<int64_t>(index);
        return i < size - 1 ? i : size - 1;
    }

    // The filter is as wide as an output where the source is finer.
    NK_RESAMPLING_FN void set_antialiased(S scale, int64_t in, int64_t o) {
        const double reach = mode == ResampleMode::antialiased_linear ? 1 : 2;
        const S support = static_cast<S>(scale >= S(1) ? reach * static_cast<double>(scale) : reach);
        if (scale >= S(1)) inverse = static_cast<S>(1.0 / static_cast<double>(scale));
        t = static_cast<S>(static_cast<double>(scale) * (static_cast<double>(o) + 0.5));
        first = static_cast<int64_t>(static_cast<double>(t - support) + 0.5);
        if (first < 0) first = 0;
        int64_t end = static_cast<int64_t>(static_cast<double>(t + support) + 0.5);
        if (end > in) end = in;
        const int64_t most = static_cast<int64_t>(ceilf(static_cast<float>(support))) * 2 + 1;
        count = end - first;
        count = count < 0 ? 0 : count > most ? most : count;
        for (int64_t k = 0; k < count; ++k) total += filter(k);
    }

    NK_RESAMPLING_FN S filter(int64_t k) const {
        const double at = static_cast<double>(static_cast<S>(k + first) - t) + 0.5;
        S x = static_cast<S>(at * static_cast<double>(inverse));
        if (x < 0) x = -x;
        if (mode == ResampleMode::antialiased_linear) return x < S(1) ? S(1) - x : S(0);
        const S a = S(-0.5);
        return x < S(1) ? cubic_near(x, a) : x < S(2) ? cubic_far(x, a) : S(0);
    }
};

// Which source element tap number k is.
NK_RESAMPLING_FN int64_t resample_source(const ResampleDim& d, int64_t first, int64_t k) {
    const int64_t i = first + k;
    return i < 0 ? 0 : i < d.in ? i : d.in - 1;
}

}  // namespace nk
