// Products and linear layers: check, then hand on to the kernels of the tensors' device.
#include "matmul/bind.h"

#include <algorithm>

#include "bindings.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "matmul/problem.h"

namespace nk {

namespace {

// The shape of the product of a[..., M, K] and b[..., K, N], whose batch dimensions broadcast; returns their number.
int product_shape(const TensorView& a, const TensorView& b, int64_t* shape) {
    const int ndim = std::max(a.ndim, b.ndim);
    for (int i = 0; i < ndim - 2; ++i) {
        const int ia = i - ndim + a.ndim, ib = i - ndim + b.ndim;
        const int64_t sa = ia < 0 ? 1 : a.shape[ia], sb = ib < 0 ? 1 : b.shape[ib];
        shape[i] = sa == 1 ? sb : sa;
    }
    shape[ndim - 2] = a.size(-2), shape[ndim - 1] = b.size(-1);
    return ndim;
}

void check_operands(const Call& call, Face face, const Input& a, const Input& b) {
    check_floating(a);
    check_kind(b, a);
    if (a->ndim < 1 || b->ndim < 1)
        call.fail("argument ", a->ndim < 1 ? a.name : b.name, " has shape [], expected at least 1 dimension");
    const int ndim = face == Face::matmul ? 0 : face == Face::bmm ? 3 : 2;
    const bool misfit = ndim != 0 && (a->ndim != ndim || b->ndim != ndim || (ndim == 3 && a->shape[0] != b->shape[0]));
    if (misfit || (face != Face::matmul && a->size(-1) != b->size(-2)))
        call.fail("arguments ", a.name, " ", shape_string(a), " and ", b.name, " ", shape_string(b), ", expected ",
                  ndim == 3 ? "[B, M, K] and [B, K, N]" : "[M, K] and [K, N]");
    const int dim = b->ndim == 1 ? 0 : b->ndim - 2;
    if (a->size(-1) != b->shape[dim])
        call.fail("argument ", b.name, " has shape ", shape_string(b), ", expected size ", a->size(-1),
                  " in dimension ", dim, " to fit ", a.name, " ", shape_string(a));
    for (int i = 3; i <= std::min(a->ndim, b->ndim); ++i)
        if (a->size(-i) != b->size(-i) && a->size(-i) != 1 && b->size(-i) != 1)
            call.fail("batch dimensions of ", a.name, " ", shape_string(a), " and ", b.name, " ", shape_string(b),
                      " do not broadcast");
}

void expand_residual(const Call& call, OptionalInput& r, const TensorView& out) {
    if (!r.present) return;
    check_same_dtype(call.op, r.name, r.view, "input", out);
    check_same_device(call.op, r.name, r.view, "input", out);
    if (r.view.same_shape(out)) return;
    TensorView repeated = r.view;
    if (!expand(repeated, out.shape, out.ndim))
        call.fail("argument ", r.name, " has shape ", shape_string(r.view), ", expected one that broadcasts to ",
                  shape_string(out));
    r.view = repeated;
}

// alpha * a @ b + beta * residual; recorded: with the number of b's dimensions, which its gradient may not find out.
py::object matmul(const Call& call, Input& a, Input& b, OptionalInput& residual, FaceName face, double alpha,
                  double beta) {
    if (face != Face::matmul) b.name = "mat2";
    if (face == Face::addmm) a.name = "mat1", residual.name = "input";
    check_operands(call, face, a, b);
    const int right = b->ndim;
    const bool row = a->ndim == 1, column = b->ndim == 1;
    as_rows(a.view), as_columns(b.view);
    int64_t shape[kMaxDims + 2];
    const int ndim = product_shape(a, b, shape);
    as_batch(a.view, shape, ndim), as_batch(b.view, shape, ndim);
    // What a vector was given is taken from the result.
    int64_t seen[kMaxDims + 2];
    int64_t* end = std::copy(shape, shape + ndim - 2, seen);
    if (!row) *end++ = shape[ndim - 2];
    if (!column) *end++ = shape[ndim - 1];
    Output out(call, "out", a, seen, static_cast<int>(end - seen));
    expand_residual(call, residual, out);
    // as torch: what is multiplied by 0 is not read, and nothing that is summed up is 0, whatever alpha
    if (alpha == 0 || a->size(-1) == 0) {
        a.view.shape[a->ndim - 1] = 0, b.view.shape[b->ndim - 2] = 0;
        alpha = 1;
    }
    as_result(out.view, row, column);
    if (residual.present) as_result(residual.view, row, column);
    const auto launch = [&] {
        run_matmul(
            {out, a, b, nullptr, beta == 0 ? nullptr : residual.get(), nullptr, Activation::identity, {}, alpha, beta});
    };
    run(call, out->device, {out.object.ptr()}, launch, launch);
    if (!call.recorded) return out.object;
    return py::make_tuple(out.object, right);
}

// weight[N, K] as b[..., K, N]: transposed, and shared by the batch of out.
void as_factor(TensorView& w, const TensorView& out) {
    const int64_t shape[] = {w.shape[1], w.shape[0]}, stride[] = {w.stride[1], w.stride[0]};
    w.ndim = out.ndim;
    for (int i = 0; i < w.ndim - 2; ++i) w.shape[i] = out.shape[i], w.stride[i] = 0;
    for (int i = 0; i < 2; ++i) w.shape[w.ndim - 2 + i] = shape[i], w.stride[w.ndim - 2 + i] = stride[i];
}

// act(x @ w.T + bias) + residual into out, and what goes into act into preact, if any.
void run_linear(const Call& call, Output& out, Output* preact, Input& x, Input& w, OptionalInput& bias,
                OptionalInput& residual, Activation act, double p0, double p1) {
    if (residual.present) {
        check_same_dtype(call.op, residual.name, residual.view, x.name, x);
        check_same_device(call.op, residual.name, residual.view, x.name, x);
        check_same_shape(call.op, residual.name, residual.view, "the output", out);
        as_rows(residual.view);
    }
    as_rows(out.view), as_rows(x.view);
    if (preact != nullptr) as_rows(preact->view);
    as_factor(w.view, out);
    const auto launch = [&] {
        run_matmul({out,
                    x,
                    w,
                    bias.get(),
                    residual.get(),
                    preact == nullptr ? nullptr : &preact->view,
                    act,
                    {p0, p1},
                    1.0,
                    1.0});
    };
    run(call, out->device, {out.object.ptr(), preact == nullptr ? Py_None : preact->object.ptr()}, launch, launch);
}

// The shape of the output.
struct LinearShape {
    int64_t sizes[kMaxDims];
    int ndim;

    LinearShape(const Call& call, const Input& x, const Input& w, const OptionalInput& bias) : ndim(x->ndim) {
        check_floating(x);
        check_kind(w, x);
        if (w->ndim != 2 || x->ndim < 1 || x->size(-1) != w->shape[1])
            call.fail("argument weight has shape ", shape_string(w),
                      ", expected [N, K] where K is the last size of input ", shape_string(x),
                      ", which has at least 1 dimension");
        if (bias.present) {
            check_kind(bias, x);
            if (bias.view.ndim != 1 || bias.view.shape[0] != w->shape[0])
                call.fail("argument bias has shape ", shape_string(bias.view), ", expected [", w->shape[0], "]");
        }
        std::copy(x->shape, x->shape + x->ndim - 1, sizes);
        sizes[ndim - 1] = w->shape[0];
    }
};

py::object linear(const Call& call, Input& x, Input& w, OptionalInput& bias, OptionalInput& residual) {
    const LinearShape shape(call, x, w, bias);
    Output out(call, "out", x, shape.sizes, shape.ndim);
    run_linear(call, out, nullptr, x, w, bias, residual, Activation::identity, 0, 0);
    return out.object;
}

// Recorded: with the preactivation.
py::object linear_activation(const Call& call, Input& x, Input& w, OptionalInput& bias, OptionalInput& residual,
                             ActivationName act, double p0, double p1) {
    const LinearShape shape(call, x, w, bias);
    Output out(call, "out", x, shape.sizes, shape.ndim);
    if (!call.recorded) {
        run_linear(call, out, nullptr, x, w, bias, residual, act, p0, p1);
        return out.object;
    }
    Output preact(call, "preact", x, shape.sizes, shape.ndim);
    run_linear(call, out, &preact, x, w, bias, residual, act, p0, p1);
    return py::make_tuple(out.object, preact.object);
}

}  // namespace

void register_matmul(py::handle m) {
    constexpr const char* tensors = "tuple[Tensor | None, ...]";
    def_entry<&matmul>(m, "matmul", "input other residual face alpha beta",
                       "alpha * input @ other + beta * residual, one rounding at the end, with the shapes of the torch "
                       "function `face`: matmul, mm, bmm or addmm; residual broadcasts to the result.");
    def_entry<&matmul_backward>(m, "matmul_backward", "g input other face alpha beta kept wants",
                                "The gradients of matmul to input, other and residual; of the shape of g where the "
                                "product broadcast. NotImplemented where they are no simple products.",
                                tensors);
    def_entry<&linear>(m, "linear", "input weight bias residual", "input[..., K] @ weight[N, K].T + bias + residual.");
    def_entry<&linear_backward>(
        m, "linear_backward", "g input weight wants",
        "The gradients of linear to its arguments; NotImplemented where rows do not lie evenly.", tensors);
    def_entry<&linear_activation>(m, "linear_activation", "input weight bias residual act p0 p1",
                                  "act(input @ weight.T + bias) + residual.");
    def_entry<&linear_activation_backward>(m, "linear_activation_backward", "g input weight preact act p0 p1 wants",
                                           "The gradients of linear_activation to its tensors, as linear_backward.",
                                           tensors);
    register_plan(m);
}

}  // namespace nk
