// How one dtype's kernels enter the table, and the microkernels that they share with products of matrices.
#pragma once

#include "direct.h"
#include "weight.h"

namespace nk::NK_ISA {

template <class L, class S>
void set_convolution(cpu::ConvolutionEntries& e, DType dtype) {
    const int d = static_cast<int>(dtype);
    e.wide_mr[d] = L::kWideRows, e.wide_nv[d] = L::kWideVectors;
    e.product[d] = ConvProduct<L, S>::run;
    if constexpr (__is_same(S, float) || L::group == 2)
        e.direct[d] = ConvDirect<L, S>::run;
    else
        e.direct[d] = nullptr;
    e.pack[d] = pack_weight<L, S>;
    e.weight[d] = ConvWeight<L, S>::run;
    e.sums[d] = channel_sums<L, S>;
    e.fold[d] = fold_padding<L, S>;
}

// compiled with the products of matrices (kernels/cpu/matmul)
extern template Micro<LanesF32> pick_micro<LanesF32, float, float, LanesF32::kMaxRows>(int, int);
extern template Micro<LanesF32> pick_micro<LanesF32, float, bf16, LanesF32::kMaxRows>(int, int);
extern template Micro<LanesF64> pick_micro<LanesF64, double, double, LanesF64::kMaxRows>(int, int);
#if defined(__AVX512BF16__)
extern template Micro<LanesPairs> pick_micro<LanesPairs, uint32_t, bf16, LanesPairs::kMaxRows>(int, int);
#endif

}  // namespace nk::NK_ISA
