// layer_norm, rms_norm and their gradients: read the arguments, check them, make the outputs, run.
#include <pybind11/stl.h>

#include <vector>

#include "../check.h"
#include "../driver/launch.h"
#include "../register.h"
#include "../tensor_caster.h"
#include "problem.h"

namespace nk {

namespace {

using normalization::Backward;
using normalization::Forward;

std::string text(const std::vector<int64_t>& shape) {
    std::string s = "[";
    for (size_t i = 0; i < shape.size(); ++i) s += (i ? ", " : "") + std::to_string(shape[i]);
    return s + "]";
}

void check_rows(const char* op, const TensorView& x, const std::vector<int64_t>& shape) {
    const int dims = static_cast<int>(shape.size());
    if (dims == 0) fail_runtime(op, "argument normalized_shape is [], expected at least one size");
    bool fits = x.ndim >= dims;
    for (int i = 0; fits && i < dims; ++i) fits = x.shape[x.ndim - dims + i] == shape[static_cast<size_t>(i)];
    if (!fits)
        fail_runtime(op, "argument input has shape ", shape_string(x), ", expected it to end in normalized_shape ",
                     text(shape));
    check_floating(op, "input", x);
}

void check_parameter(const char* op, const char* name, const TensorView* t, const TensorView& x,
                     const std::vector<int64_t>& shape) {
    if (t == nullptr) return;
    check_same_device(op, name, *t, "input", x);
    check_same_dtype(op, name, *t, "input", x);
    bool fits = t->ndim == static_cast<int>(shape.size());
    for (int i = 0; fits && i < t->ndim; ++i) fits = t->shape[i] == shape[static_cast<size_t>(i)];
    if (!fits)
        fail_runtime(op, "argument ", name, " has shape ", shape_string(*t), ", expected normalized_shape ",
                     text(shape));
}

TensorView statistics_like(const TensorView& x) {
    TensorView t = x;
    if (t.dtype != DType::f64) t.dtype = DType::f32;
    return t;
}

py::object forward(bool rms, py::handle x_, const std::vector<int64_t>& shape, py::handle weight_, py::handle bias_,
                   double eps) {
    const char* op = normalization::kNames[rms][0];
    const Argument x(x_, op, "input");
    const OptionalArgument weight(weight_, op, "weight"), bias(bias_, op, "bias");
    check_rows(op, x, shape);
    check_parameter(op, "weight", weight.get(), x, shape);
    check_parameter(op, "bias", bias.get(), x, shape);
    const TensorView like = statistics_like(x);
    const int row_dims = static_cast<int>(shape.size()), outer = x->ndim - row_dims;
    const OutputArgument y(py::none(), op, "out", x, x->shape, x->ndim);
    const OutputArgument rstd(py::none(), op, "rstd", like, x->shape, outer);
    const OutputArgument mean(rms ? py::handle(rstd.object) : py::none(), op, "mean", like, x->shape, outer);
    const Forward p{rms, row_dims, y, x, weight.get(), bias.get(), rms ? nullptr : &mean.view, rstd, eps};
    driver::launches_on(x->device) ? forward_cuda(p) : forward_cpu(p);
    if (rms) return py::make_tuple(y.object, rstd.object);
    return py::make_tuple(y.object, mean.object, rstd.object);
}

py::object backward(bool rms, py::handle g_, py::handle x_, const std::vector<int64_t>& shape, py::handle weight_,
                    py::handle mean_, py::handle rstd_, bool want_gx, bool want_gw, bool want_gb) {
    const char* op = normalization::kNames[rms][1];
    const Argument g(g_, op, "g"), x(x_, op, "input"), rstd(rstd_, op, "rstd");
    const OptionalArgument weight(weight_, op, "weight"), mean(mean_, op, "mean");
    check_rows(op, x, shape);
    check_like(op, "g", g, "input", x);
    check_parameter(op, "weight", weight.get(), x, shape);
    const int row_dims = static_cast<int>(shape.size());
    const auto make = [&](bool wanted, const char* name, int from) {
        return wanted ? std::make_unique<OutputArgument>(py::none(), op, name, x, x->shape + from, x->ndim - from)
                      : nullptr;
    };
    const auto gx = make(want_gx, "gx", 0), gw = make(want_gw, "gw", x->ndim - row_dims),
               gb = make(want_gb, "gb", x->ndim - row_dims);
    const auto view = [](const auto& o) { return o ? &o->view : nullptr; };
    const auto object = [](const auto& o) { return o ? o->object : py::none(); };
    const Backward p{rms, row_dims, view(gx), view(gw), view(gb), g, x, weight.get(), mean.get(), rstd};
    driver::launches_on(x->device) ? backward_cuda(p) : backward_cpu(p);
    return py::make_tuple(object(gx), object(gw), object(gb));
}

}  // namespace

void register_normalization(py::module_& m) {
    m.def("layer_norm", [](py::handle x, const std::vector<int64_t>& shape, py::handle w, py::handle b, double eps) {
        return forward(false, x, shape, w, b, eps);
    });
    m.def("rms_norm", [](py::handle x, const std::vector<int64_t>& shape, py::handle w, double eps) {
        return forward(true, x, shape, w, py::none(), eps);
    });
    m.def("layer_norm_backward", [](py::handle g, py::handle x, const std::vector<int64_t>& shape, py::handle w,
                                    py::handle mean, py::handle rstd, bool gx, bool gw,
                                    bool gb) { return backward(false, g, x, shape, w, mean, rstd, gx, gw, gb); });
    m.def("rms_norm_backward",
          [](py::handle g, py::handle x, const std::vector<int64_t>& shape, py::handle w, py::handle rstd, bool gx,
             bool gw) { return backward(true, g, x, shape, w, py::none(), rstd, gx, gw, false); });
}

}  // namespace nk
