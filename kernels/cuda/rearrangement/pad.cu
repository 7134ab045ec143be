// Padding, and its gradient as a gather: each element of gx adds up the places that it went to, in a fixed order.
#include "../../rearrangement.h"
#include "walk.h"

namespace nk::cuda {

template <DType T>
__device__ __forceinline__ void pad(const PadParams& p) {
    const auto mode = static_cast<PadMode>(p.mode);
    const memory_t<T> filler = to_memory<T>(static_cast<compute_t<T>>(p.value));
    each_element(p.count, [&](int64_t i) {
        int64_t rest = i, to = 0, from = 0;
        bool filled = false;
#pragma unroll 1
        for (int d = 0; d < p.ndim; ++d) {
            const int64_t o = take(rest, p.size[d], p.wide);
            const int64_t source = pad_source(mode, o, p.n[d], p.lo[d], p.size[d]);
            filled = filled || source < 0;
            to += o * p.to[d];
            from += source * p.from[d];
        }
        *element<T>(p.out, to) = filled ? filler : *element<T>(p.in, from);
    });
}

template <DType T>
__device__ __forceinline__ void pad_sums(const PadSumsParams& p) {
    const auto mode = static_cast<PadMode>(p.mode);
    each_element(p.count, [&](int64_t i) {
        int64_t rest = i, to = 0, from = 0;
#pragma unroll 1
        for (int d = 0; d < p.ndim; ++d) {
            const int64_t c = take(rest, p.n[d], p.wide);
            to += c * p.to[d];
            from += c * p.from[d];
        }
        PadPlaces places[kPaddedDims];
#pragma unroll
        for (int k = 0; k < kPaddedDims; ++k) {
            int64_t c = i;
            take(c, p.before[k], p.wide);
            c = take(c, p.padded_n[k], p.wide);
            places[k] = pad_places(mode, c, p.padded_n[k], p.padded_lo[k], p.padded_size[k]);
        }
        compute_t<T> sum = 0;
#pragma unroll 1
        for (int64_t a = 0; a < places[2].total(); ++a) {
            const int64_t outer = from + places[2][a] * p.padded_from[2];
#pragma unroll 1
            for (int64_t b = 0; b < places[1].total(); ++b) {
                const int64_t row = outer + places[1][b] * p.padded_from[1];
#pragma unroll 1
                for (int64_t c = 0; c < places[0].total(); ++c)
                    sum += load<T>(p.g, row + places[0][c] * p.padded_from[0]);
            }
        }
        store<T>(p.out, to, sum);
    });
}

}  // namespace nk::cuda

NK_KERNELS(rearrangement_pad, nk::cuda::kRearrangementThreads, 4, nk::cuda::PadParams, nk::cuda::pad<T>(p))
NK_KERNELS(rearrangement_pad_sums, nk::cuda::kRearrangementThreads, 4, nk::cuda::PadSumsParams,
           nk::cuda::pad_sums<T>(p))
