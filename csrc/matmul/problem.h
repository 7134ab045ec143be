// A matmul that has been checked, on its way to a backend.
#pragma once

#include <utility>

#include "activation/parameter.h"
#include "call/call.h"
#include "kernels/activation.h"

namespace nk {

// torch's functions that are one product.
enum class Face { matmul, mm, bmm, addmm };
inline constexpr const char* kFaces[] = {"matmul", "mm", "bmm", "addmm"};
using FaceName = NameOf<Face, 4, kFaces>;

// out[..., M, N] = act(alpha * a[..., M, K] @ b[..., K, N] + bias[N]) + beta * residual; preact receives what goes
// into act. Same number of dimensions everywhere, batch dimensions already broadcast; pointers may be null.
struct MatmulCall {
    const TensorView &out, &a, &b;
    const TensorView *bias, *residual, *preact;
    Activation activation;
    double p[2];
    double alpha, beta;

    int64_t m() const { return out.size(-2); }
    int64_t n() const { return out.size(-1); }
    int64_t k() const { return a.size(-1); }
};

// x as [..., M, K]: a vector is one row.
inline void as_rows(TensorView& t) {
    if (t.ndim != 1) return;
    t.shape[1] = t.shape[0], t.stride[1] = t.stride[0];
    t.shape[0] = 1, t.stride[0] = 0;
    t.ndim = 2;
}
// x as [..., K, N]: a vector is one column.
inline void as_columns(TensorView& t) {
    if (t.ndim != 1) return;
    t.shape[1] = 1, t.stride[1] = 0;
    t.ndim = 2;
}
inline TensorView transposed(TensorView t) {
    std::swap(t.shape[t.ndim - 2], t.shape[t.ndim - 1]);
    std::swap(t.stride[t.ndim - 2], t.stride[t.ndim - 1]);
    return t;
}
// [..., M, K] as [rows, K]; false, and t without meaning, where its rows do not lie evenly.
bool fold_rows(TensorView& t);
// A product's result as [..., M, N], given whether the left operand was a vector, and the right one.
void as_result(TensorView& t, bool row, bool column);
// t repeated along the batch dimensions of the product; the checks that follow complain where that is impossible.
void as_batch(TensorView& t, const int64_t* shape, int ndim);

void run_matmul(MatmulCall call);  // by the kernels of the tensors' device

// gz[M, N] = g * act'(z) and gb[N] = column sums of gz; either output may be null, z is null for identity.
struct BiasBackwardCall {
    const TensorView *gz, *gb;
    const TensorView& g;
    const TensorView* z;
    Activation activation;
    double p[2];
};

void run_bias_backward(BiasBackwardCall call);  // likewise

namespace cpu {
void matmul(const MatmulCall& call);
void bias_backward(const BiasBackwardCall& call);
}  // namespace cpu

namespace cuda {
void matmul(const MatmulCall& call);
void bias_backward(const BiasBackwardCall& call);
}  // namespace cuda

// csrc/matmul/backward.cpp
py::object matmul_backward(const Call& call, Input& g, OptionalInput& a, OptionalInput& b, FaceName face, double alpha,
                           double beta, Kept kept, Wants wants);
py::object linear_backward(const Call& call, Input& g, OptionalInput& x, OptionalInput& w, Wants wants);
py::object linear_activation_backward(const Call& call, Input& g, OptionalInput& x, OptionalInput& w, Input& z,
                                      ActivationName act, double p0, double p1, Wants wants);

}  // namespace nk
