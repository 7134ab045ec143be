// PReLU: out = x where x > 0, else w x. The slope's gradient gw[c] = sum of g x over the elements of channel c that are
// not positive, in the same pass as gx:
//   elementwise    gx alone
//   columns        the channel is the innermost dim (2-D input, channels_last): see elementwise/columns.h
//   rows           any other layout, one channel for the whole tensor included: a block walks a part of one channel
#include "../elementwise/columns.h"
#include "../tile/reduce.h"
#include "ops.h"
#include "params.h"

namespace nk::cuda {

template <class C>
__device__ __forceinline__ C slope_gradient(C g, C x) {
    return x > C(0) ? C(0) : x * g;
}

struct PreluColumns {  // gx | g, x, w
    static constexpr int inputs = 3;
    template <int W, class C>
    static __device__ __forceinline__ void apply(const ColumnParams&, int64_t, int, const C (&in)[3][W], C (&out)[1][W],
                                                 C (&addend)[W]) {
        PreluBackward::apply<W>(ElementwiseParams{}, in, out);
#pragma unroll
        for (int i = 0; i < W; ++i) addend[i] = slope_gradient(in[0][i], in[1][i]);
    }
};

template <DType T>
__device__ __forceinline__ void prelu_rows(const PreluRowsParams& p) {
    constexpr int W = kUnit<T>;
    using C = compute_t<T>;
    __shared__ C scratch[kWarp];

    const int64_t channel = blockIdx.x;
    const int64_t begin = blockIdx.y * p.per_part;
    const int64_t end = begin + p.per_part < p.count ? begin + p.per_part : p.count;
    void* const gx = element<T>(p.out, channel * p.channel_stride[0]);
    const void* const g = element<T>(p.in[0], channel * p.channel_stride[1]);
    const void* const x = element<T>(p.in[1], channel * p.channel_stride[2]);
    const C w = begin < end ? load<T>(p.in[2], channel * p.channel_stride[3]) : C(0);  // an empty tensor has no memory

    C sum = 0;
    if (p.vector) {
        for (int64_t unit = begin + threadIdx.x; unit < end; unit += kColumnThreads) {
            int64_t at[3];
            offsets<0>(p.layout, unit, at);
            const int64_t left = p.layout.ndim == 1 ? p.numel - unit * W : W;
            const int here = left < W ? static_cast<int>(left) : W;
            const auto fetch = [&](const void* base, int k) {
                const memory_t<T>* e = element<T>(base, at[k]);
                if (p.layout.stride[k][0] == 0) return splat<T>(*e);
                return here == W ? load_unit(e) : load_partial<T>(e, here);
            };
            C gv[W], xv[W], out[W];
            unpack<T>(fetch(g, 1), gv);
            unpack<T>(fetch(x, 2), xv);
#pragma unroll
            for (int i = 0; i < W; ++i) {
                out[i] = xv[i] > C(0) ? gv[i] : gv[i] * w;
                if (i < here) sum += slope_gradient(gv[i], xv[i]);
            }
            if (here == W)
                store_unit(element<T>(gx, at[0]), pack<T>(out));
            else
                store_partial<T>(element<T>(gx, at[0]), pack<T>(out), here);
        }
    } else {
#pragma unroll 4
        for (int64_t i = begin + threadIdx.x; i < end; i += kColumnThreads) {
            int64_t at[3];
            offsets<0>(p.layout, i, at);
            const C gv = load<T>(g, at[1]), xv = load<T>(x, at[2]);
            store<T>(gx, at[0], xv > C(0) ? gv : gv * w);
            sum += slope_gradient(gv, xv);
        }
    }

    sum = reduce_block(sum, scratch, C(0), Add{});
    if (threadIdx.x != 0) return;
    if (p.partial)
        static_cast<C*>(p.partial)[blockIdx.y * p.channels + channel] = sum;
    else
        store<T>(p.sums, channel * p.sums_stride, sum);
}

}  // namespace nk::cuda

NK_ELEMENTWISE_KERNELS(activation_prelu, Prelu)
NK_ELEMENTWISE_KERNELS(activation_prelu_backward, PreluBackward)
NK_KERNELS(activation_prelu_columns, nk::cuda::kColumnThreads, 2, nk::cuda::ColumnParams,
           nk::cuda::reduce_columns<T, nk::cuda::PreluColumns>(p))
NK_KERNELS(activation_prelu_rows, nk::cuda::kColumnThreads, 2, nk::cuda::PreluRowsParams, nk::cuda::prelu_rows<T>(p))
