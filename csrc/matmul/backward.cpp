// The gradients of products and linear layers, each in one call: activation's derivative with the bias gradient, dgrad,
// wgrad.
#include <algorithm>

#include "activation/parameter.h"
#include "call/run.h"
#include "matmul/problem.h"

namespace nk {

namespace {

// A gradient that is made only where it is wanted.
struct Gradient {
    py::object object = py::none();
    TensorView view;
    HostMemory memory;

    void make(const Call& call, const TensorView& like, const int64_t* shape, int ndim) {
        Output made(call, "gradient", like, shape, ndim);
        object = std::move(made.object), view = made.view, memory = std::move(made.memory);
    }
    void make(const Call& call, const TensorView& like, std::initializer_list<int64_t> shape) {
        make(call, like, shape.begin(), static_cast<int>(shape.size()));
    }
    const TensorView* get() const { return object.is_none() ? nullptr : &view; }
};

py::object not_simple() { return py::reinterpret_borrow<py::object>(Py_NotImplemented); }

void check_needed(const Call& call, bool wanted, const OptionalInput& t) {
    if (wanted && !t.present) fail_type(call.op, "argument ", t.name, " is None, but a gradient needs it");
}

// Of g[..., N], x[..., K], w[N, K], z[..., N] (null: no activation).
py::object differentiate(const Call& call, Input& g, OptionalInput& x, OptionalInput& w, Input* z, Activation act,
                         double p0, double p1, const Wants& wants) {
    check_floating(g);
    check_needed(call, wants[0], w), check_needed(call, wants[1], x);
    int64_t shape[kMaxDims];  // of input's gradient
    const int ndim = g->ndim;
    std::copy(g->shape, g->shape + ndim, shape);
    if (wants[0] && ndim > 0 && w.view.ndim > 0) shape[ndim - 1] = w.view.size(-1);
    for (TensorView* t : {&g.view, x.present ? &x.view : nullptr, z == nullptr ? nullptr : &z->view}) {
        if (t == nullptr) continue;
        if (t->ndim == 0) call.fail("an argument has shape [], expected at least 1 dimension");
        as_rows(*t);
        if (!fold_rows(*t)) return not_simple();
    }
    const int64_t m = g->shape[0], n = g->shape[1];
    if (x.present) {
        check_kind(x, g);
        if (x.view.shape[0] != m) call.fail("argument input has ", x.view.shape[0], " rows, expected ", m, " as g");
    }
    if (w.present) {
        check_kind(w, g);
        if (w.view.ndim != 2 || w.view.shape[0] != n || (x.present && w.view.shape[1] != x.view.shape[1]))
            call.fail("argument weight has shape ", shape_string(w.view), ", expected [", n, ", K] with K as input's");
    }
    if (z != nullptr) check_like(*z, g);

    Gradient gx, gw, gb, gz;
    if (z != nullptr && (wants[0] || wants[1] || wants[2])) gz.make(call, g, {m, n});
    if (wants[0]) gx.make(call, g, shape, ndim);
    if (wants[1]) gw.make(call, g, {n, x.view.shape[1]});
    if (wants[2]) gb.make(call, g, {n});
    const auto launch = [&] {
        if (gz.get() != nullptr || wants[2])
            run_bias_backward({gz.get(), gb.get(), g, z == nullptr ? nullptr : &z->view, act, {p0, p1}});
        const TensorView& d = gz.get() != nullptr ? gz.view : g.view;
        if (wants[0]) {
            TensorView out = gx.view;
            as_rows(out), fold_rows(out);
            run_matmul({out, d, w.view, nullptr, nullptr, nullptr, Activation::identity, {}, 1.0, 1.0});
        }
        if (wants[1])
            run_matmul({gw.view, transposed(d), x.view, nullptr, nullptr, nullptr, Activation::identity, {}, 1.0, 1.0});
    };
    run(call, g->device, {gx.object.ptr(), gw.object.ptr(), gb.object.ptr(), gz.object.ptr()}, launch, launch);
    return py::make_tuple(gx.object, gw.object, gb.object,
                          wants[3] ? py::reinterpret_borrow<py::object>(g.object) : py::none());
}

// alpha * a @ b, a new tensor, both of the batch of g; row, column: a vector, without its dimension of one.
Gradient product(const Call& call, const TensorView& g, const TensorView& a, const TensorView& b, bool row,
                 bool column) {
    int64_t shape[kMaxDims + 2];
    int64_t* end = std::copy(g.shape, g.shape + g.ndim - 2, shape);
    if (!row) *end++ = a.size(-2);
    if (!column) *end++ = b.size(-1);
    Gradient made;
    made.make(call, g, shape, static_cast<int>(end - shape));
    as_result(made.view, row, column);
    return made;
}

}  // namespace

py::object linear_backward(const Call& call, Input& g, OptionalInput& x, OptionalInput& w, Wants wants) {
    return differentiate(call, g, x, w, nullptr, Activation::identity, 0, 0, wants);
}

py::object linear_activation_backward(const Call& call, Input& g, OptionalInput& x, OptionalInput& w, Input& z,
                                      ActivationName act, double p0, double p1, Wants wants) {
    return differentiate(call, g, x, w, &z, act, p0, p1, wants);
}

// a or b is None where the other needs no gradient. kept: the dimensions that b had, -1 where that is not known and b
// has them still.
py::object matmul_backward(const Call& call, Input& g, OptionalInput& a, OptionalInput& b, FaceName, double alpha,
                           double beta, Kept kept, Wants wants) {
    check_floating(g);
    check_needed(call, wants[0], b), check_needed(call, wants[1], a);
    if (a.present) check_kind(a, g);
    if (b.present) check_kind(b, g);
    const int right = PyLong_CheckExact(kept.object) ? static_cast<int>(PyLong_AsLong(kept.object))
                      : b.present                    ? b.view.ndim
                                                     : -1;
    if (right < 0) return not_simple();
    // a vector on the left took a dimension from g, and so did one on the right
    const bool column = right == 1;
    const bool row = a.present ? a.view.ndim == 1 : column ? g->ndim == 0 : g->ndim < right;
    if (a.present) as_rows(a.view);
    if (b.present) as_columns(b.view);
    as_result(g.view, row, column);
    const int ndim = g->ndim;
    if ((a.present && (a.view.ndim < 2 || a.view.ndim > ndim || g->size(-2) != a.view.size(-2))) ||
        (b.present && (b.view.ndim < 2 || b.view.ndim > ndim || g->size(-1) != b.view.size(-1))) ||
        (a.present && b.present && a.view.size(-1) != b.view.size(-2)))
        call.fail("argument g ", shape_string(g), " does not fit input ", a.present ? shape_string(a.view) : "None",
                  " and other ", b.present ? shape_string(b.view) : "None");
    const bool shared = right <= 2 && ndim > 2;  // one b for a batch: rows of one product
    if ((wants[2] && beta != 1) || (wants[0] && row && ndim > 2)) return not_simple();
    Gradient ga, gb;
    TensorView bt, at, gr = g.view;
    // of the batch of g: autograd sums over what was broadcast
    if (wants[0]) {
        bt = transposed(b.view);
        as_batch(bt, g->shape, ndim);
        ga = product(call, g, g, bt, row, false);
    }
    if (wants[1]) {
        at = a.view;
        if (shared && (a.view.ndim != ndim || !fold_rows(at) || !fold_rows(gr))) return not_simple();
        at = transposed(at);
        if (!shared) as_batch(at, g->shape, ndim);
        gb = product(call, gr, at, gr, false, column);
    }
    const auto launch = [&] {
        if (wants[0]) run_matmul({ga.view, g, bt, nullptr, nullptr, nullptr, Activation::identity, {}, alpha, 1.0});
        if (wants[1]) run_matmul({gb.view, at, gr, nullptr, nullptr, nullptr, Activation::identity, {}, alpha, 1.0});
    };
    run(call, g->device, {ga.object.ptr(), gb.object.ptr()}, launch, launch);
    return py::make_tuple(ga.object, gb.object, wants[2] ? py::reinterpret_borrow<py::object>(g.object) : py::none());
}

}  // namespace nk
