// The gradient that leaves a linear layer's epilogue, one pass over g and z: gz = g f'(z), gb[n] = the sum over m
// of gz[m, n].
#include "../elementwise/activation.h"
#include "../elementwise/columns.h"

namespace nk::cuda {

struct BiasBackward {  // gz | g, z
    static constexpr int outputs = 1, inputs = 2;
    static constexpr bool from_output = false, of_gates = false;
    template <class F, class C, class P>
    static __device__ __forceinline__ void element(const C (&in)[2], C (&out)[1], P p) {
        out[0] = F::template vjp<C>(in[0], in[1], p);
    }
    template <int W, class C>
    static __device__ __forceinline__ void apply(const ColumnParams& p, int64_t, int, const C (&in)[2][W],
                                                 C (&out)[1][W], C (&addend)[W]) {
        apply_activation<BiasBackward, W>(p.activation, p.p, in, out);
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

NK_KERNELS(matmul_bias_backward, nk::cuda::kColumnThreads, 2, nk::cuda::ColumnParams,
           nk::cuda::reduce_columns<T, nk::cuda::BiasBackward>(p))
NK_KERNELS(matmul_column_sum, nk::cuda::kColumnThreads, 2, nk::cuda::ColumnParams,
           nk::cuda::reduce_columns<T, nk::cuda::ColumnSum>(p))
