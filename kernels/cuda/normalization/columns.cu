// The gradients of layer_norm and rms_norm in weight and bias: gw = sum of g * (x - mean) * rstd over the rows, gb =
// sum of g.
#include "../elementwise/columns.h"
#include "../tile/kernel.h"
#include "params.h"

namespace nk::cuda {

struct NormWeight {  // none | g, x
    static constexpr int inputs = 2;
    template <int W, class C>
    static __device__ __forceinline__ void apply(const NormColumnParams& p, int64_t row, int apart, const C (&in)[2][W],
                                                 C (&out)[1][W], C (&addend)[W]) {
#pragma unroll
        for (int i = 0; i < W; ++i) {
            const int64_t r = row + static_cast<int64_t>(i) * apart;
            int64_t at[1];
            offsets<2>(p.outer, r < p.rows ? r : 0, at);  // no term of a place beyond the rows is added
            const C mean = p.mean ? static_cast<const C*>(p.mean)[at[0]] : C(0);
            out[0][i] = addend[i] = in[0][i] * (in[1][i] - mean) * static_cast<const C*>(p.rstd)[at[0]];
        }
    }
};

struct NormBias {  // none | g
    static constexpr int inputs = 1;
    template <int W, class C>
    static __device__ __forceinline__ void apply(const NormColumnParams&, int64_t, int, const C (&in)[1][W],
                                                 C (&out)[1][W], C (&addend)[W]) {
#pragma unroll
        for (int i = 0; i < W; ++i) out[0][i] = addend[i] = in[0][i];
    }
};

}  // namespace nk::cuda

NK_KERNELS(normalization_weight, nk::cuda::kColumnThreads, 2, nk::cuda::NormColumnParams,
           nk::cuda::reduce_columns<T, nk::cuda::NormWeight>(p))
NK_KERNELS(normalization_bias, nk::cuda::kColumnThreads, 2, nk::cuda::NormColumnParams,
           nk::cuda::reduce_columns<T, nk::cuda::NormBias>(p))
