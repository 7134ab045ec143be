// The gradients of a linear layer in one call: activation's derivative with the bias gradient, dgrad, wgrad.
#include "../kernels/activation.h"
#include "check.h"
#include "matmul.h"
#include "register.h"
#include "tensor_caster.h"

namespace py = pybind11;

namespace nk {

namespace {

// A new tensor together with what a kernel sees of it.
struct NewTensor {
    py::object object = py::none();
    TensorView view;
    driver::HostMemory memory;
    bool made = false;

    void make(const TensorView& like, std::initializer_list<int64_t> shape) {
        object = py::reinterpret_steal<py::object>(
            static_cast<PyObject*>(new_tensor(like, shape.begin(), static_cast<int>(shape.size()))));
        read_tensor(object.ptr(), "linear_backward", "output", view);
        memory = driver::HostMemory(view, driver::Contents::unset);
        made = true;
    }
    const TensorView* get() const { return made ? &view : nullptr; }
};

void check_matrix(const char* arg, const TensorView& t, int64_t rows, int64_t columns) {
    if (t.ndim != 2 || t.shape[0] != rows || t.shape[1] != columns)
        fail_runtime("linear_backward", "argument ", arg, " has shape ", shape_string(t), ", expected [", rows, ", ",
                     columns, "]");
}

py::tuple linear_backward(py::handle grad, py::handle input, py::handle weight, py::handle preact, int act, double p0,
                          double p1, bool wants_x, bool wants_w, bool wants_b) {
    constexpr const char* op = "linear_backward";
    const Argument g(grad, op, "g"), x(input, op, "x"), w(weight, op, "weight");
    const OptionalArgument z(preact, op, "preact");
    if (g->ndim != 2 || x->ndim != 2 || w->ndim != 2)
        fail_runtime(op, "arguments g ", shape_string(g), ", x ", shape_string(x), " and weight ", shape_string(w),
                     ", expected [M, N], [M, K] and [N, K]");
    const int64_t m = g->shape[0], n = g->shape[1], k = x->shape[1];
    check_matrix("x", x, m, k);
    check_matrix("weight", w, n, k);
    for (const auto& [arg, t] : {std::pair{"x", &x.view}, std::pair{"weight", &w.view}}) {
        check_same_dtype(op, arg, *t, "g", g);
        check_same_device(op, arg, *t, "g", g);
    }
    NewTensor gz, gb, gx, gw;
    const bool has_act = act != static_cast<int>(Activation::identity);
    if (has_act) gz.make(g, {m, n});
    if (wants_b) gb.make(g, {n});
    if (has_act || wants_b) run_activation_bias_backward({gz.get(), gb.get(), g.view, z.get(), act, {p0, p1}});
    const TensorView& d = has_act ? gz.view : g.view;
    if (wants_x) {
        gx.make(g, {m, k});
        run_matmul({gx.view, d, w.view, nullptr, nullptr, nullptr, 0, {0, 0}, 1.0, 1.0});
    }
    if (wants_w) {
        gw.make(g, {n, k});
        const TensorView dt = transposed(d);
        run_matmul({gw.view, dt, x.view, nullptr, nullptr, nullptr, 0, {0, 0}, 1.0, 1.0});
    }
    return py::make_tuple(gx.object, gw.object, gb.object);
}

}  // namespace

void register_linear_backward(py::module_& m) {
    m.def("linear_backward", &linear_backward, py::arg("g"), py::arg("x"), py::arg("weight"), py::arg("preact"),
          py::arg("act"), py::arg("p0"), py::arg("p1"), py::arg("wants_x"), py::arg("wants_w"), py::arg("wants_b"),
          "Gradients (gx [M, K], gw [N, K], gb [N]) of linear for g [M, N], each a new tensor, or None if not wanted.");
}

}  // namespace nk
