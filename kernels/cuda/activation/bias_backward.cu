// The gradient that leaves a linear layer's epilogue, one pass over g and z: gz = g f'(z), gb[n] = sum over m of gz[m,
// n].
#include "columns.h"
#include "kernel.h"
#include "ops.h"

namespace nk::cuda {

struct ActivationBiasBackward {  // gz | g, z
    static constexpr int inputs = 2;
    template <int W, class C>
    static __device__ __forceinline__ void apply(const ColumnParams& p, int64_t, int, const C (&in)[2][W],
                                                 C (&out)[1][W], C (&addend)[W]) {
        apply_activation<UnaryBackward, W>(p.activation, p.p, in, out);
#pragma unroll
        for (int i = 0; i < W; ++i) addend[i] = out[0][i];
    }
};

struct ColumnSum {  // out | g: the same with f = identity, where nothing else is read
    static constexpr int inputs = 1;
    template <int W, class C>
    static __device__ __forceinline__ void apply(const ColumnParams&, int64_t, int, const C (&in)[1][W], C (&out)[1][W],
                                                 C (&addend)[W]) {
#pragma unroll
        for (int i = 0; i < W; ++i) out[0][i] = addend[i] = in[0][i];
    }
};

}  // namespace nk::cuda

NK_KERNELS(activation_bias_backward, nk::cuda::kColumnThreads, 2, nk::cuda::ColumnParams,
           nk::cuda::reduce_columns<T, nk::cuda::ActivationBiasBackward>(p))
NK_KERNELS(activation_column_sum, nk::cuda::kColumnThreads, 2, nk::cuda::ColumnParams,
           nk::cuda::reduce_columns<T, nk::cuda::ColumnSum>(p))
NK_KERNELS(activation_finish, nk::cuda::kColumnThreads, 2, nk::cuda::FinishParams, nk::cuda::finish_columns<T>(p))
