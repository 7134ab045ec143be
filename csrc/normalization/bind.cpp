// layer_norm, rms_norm and their gradients: check, make the outputs, run.
#include "bindings.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "normalization/problem.h"

namespace nk {

namespace {

using normalization::Backward;
using normalization::Forward;

void check_rows(const Call& call, const Input& x, const Ints& shape, bool rms) {
    check_floating(x);
    if (rms && x->ndim < shape.count)  // torch's rms_norm calls this a wrong value
        fail_value(call.op, "argument input has shape ", shape_string(x), ", expected at least ", shape.count,
                   " dimensions as normalized_shape ", shape_string(shape.begin(), shape.count));
    if (shape.count == 0) call.fail("argument normalized_shape is [], expected at least one size");
    const bool fits =
        x->ndim >= shape.count && std::equal(shape.begin(), shape.end(), x->shape + x->ndim - shape.count);
    if (!fits)
        call.fail("argument input has shape ", shape_string(x), ", expected it to end in normalized_shape ",
                  shape_string(shape.begin(), shape.count));
}

void check_parameter(const Call& call, const OptionalInput& t, const Input& x, const Ints& shape) {
    if (!t.present) return;
    check_kind(t, x);
    if (t.view.ndim != shape.count || !std::equal(shape.begin(), shape.end(), t.view.shape))
        call.fail("argument ", t.name, " has shape ", shape_string(t.view), ", expected normalized_shape ",
                  shape_string(shape.begin(), shape.count));
}

// What forward made, or whatever a hook has unpacked in its place.
void check_statistics(const Call& call, const Input& t, const Input& x, int outer) {
    check_same_device(call.op, t.name, t, x.name, x);
    const DType type = type_of_statistics(x);
    if (t->dtype != type || t->ndim != outer || !std::equal(x->shape, x->shape + outer, t->shape))
        call.fail("argument ", t.name, " of shape ", shape_string(t), " is ", name_of(t->dtype), ", expected ",
                  shape_string(x->shape, outer), " in ", name_of(type));
}

// Recorded: with the statistics, a number for each row, of float32 at least.
py::object forward(const Call& call, Input& x, OptionalInput& weight, OptionalInput* bias, const Ints& shape,
                   double eps) {
    const bool rms = bias == nullptr;
    check_rows(call, x, shape, rms);
    check_parameter(call, weight, x, shape);
    if (!rms) check_parameter(call, *bias, x, shape);
    const DType type = type_of_statistics(x);
    const int outer = x->ndim - shape.count;
    Output y(call, "y", x, x->shape, x->ndim), rstd(call, "rstd", x, type, x->shape, outer);
    std::optional<Output> mean;
    if (!rms) mean.emplace(call, "mean", x, type, x->shape, outer);
    const Forward p{rms,  shape.count, y, x, weight.get(), rms ? nullptr : bias->get(), rms ? nullptr : &mean->view,
                    rstd, eps};
    PyObject* const statistics = rms ? Py_None : mean->object.ptr();
    run(
        call, x->device, {y.object.ptr(), statistics, rstd.object.ptr()}, [&] { forward_cpu(p); },
        [&] { forward_cuda(p); });
    if (!call.recorded) return y.object;
    if (rms) return py::make_tuple(y.object, rstd.object);
    return py::make_tuple(y.object, mean->object, rstd.object);
}

py::object backward(const Call& call, Input& g, Input& x, OptionalInput& weight, Input* mean, Input& rstd,
                    const Ints& shape, const Wants& wants) {
    check_rows(call, x, shape, mean == nullptr);
    check_like(g, x);
    check_parameter(call, weight, x, shape);
    const int outer = x->ndim - shape.count;
    check_statistics(call, rstd, x, outer);
    if (mean != nullptr) check_statistics(call, *mean, x, outer);
    if (!rstd->is_contiguous() || (mean != nullptr && !(*mean)->is_contiguous()))
        return py::reinterpret_borrow<py::object>(Py_NotImplemented);
    std::optional<Output> made[3];
    const TensorView* views[3] = {};
    PyObject* objects[3] = {Py_None, Py_None, Py_None};
    for (int i = 0; i < (mean == nullptr ? 2 : 3); ++i) {
        if (!wants[i]) continue;
        const int from = i == 0 ? 0 : outer;
        made[i].emplace(call, "gradient", x, x->shape + from, x->ndim - from);
        views[i] = &made[i]->view, objects[i] = made[i]->object.ptr();
    }
    const Backward p{mean == nullptr,
                     shape.count,
                     views[0],
                     views[1],
                     views[2],
                     g,
                     x,
                     weight.get(),
                     mean == nullptr ? nullptr : &mean->view,
                     rstd};
    run(call, x->device, {objects[0], objects[1], objects[2]}, [&] { backward_cpu(p); }, [&] { backward_cuda(p); });
    if (mean == nullptr) return py::make_tuple(py::handle(objects[0]), py::handle(objects[1]));
    return py::make_tuple(py::handle(objects[0]), py::handle(objects[1]), py::handle(objects[2]));
}

py::object layer_norm(const Call& call, Input& x, OptionalInput& weight, OptionalInput& bias, Ints& shape, double eps) {
    return forward(call, x, weight, &bias, shape, eps);
}

py::object rms_norm(const Call& call, Input& x, OptionalInput& weight, Ints& shape, double eps) {
    return forward(call, x, weight, nullptr, shape, eps);
}

py::object layer_norm_backward(const Call& call, Input& g, Input& x, OptionalInput& weight, Input& mean, Input& rstd,
                               Ints& shape, double, Wants wants) {
    return backward(call, g, x, weight, &mean, rstd, shape, wants);
}

py::object rms_norm_backward(const Call& call, Input& g, Input& x, OptionalInput& weight, Input& rstd, Ints& shape,
                             double, Wants wants) {
    return backward(call, g, x, weight, nullptr, rstd, shape, wants);
}

}  // namespace

void register_normalization(py::handle m) {
    constexpr const char* tensors = "tuple[Tensor | None, ...]";
    def_entry<&layer_norm>(m, "layer_norm", "input weight bias normalized_shape eps",
                           "(x - mean) * rstd * weight + bias over the last dims; recorded: with mean and rstd.");
    def_entry<&layer_norm_backward>(m, "layer_norm_backward", "g input weight mean rstd normalized_shape eps wants",
                                    "The gradients of layer_norm to input, weight and bias.", tensors);
    def_entry<&rms_norm>(m, "rms_norm", "input weight normalized_shape eps",
                         "x * rstd * weight over the last dims; recorded: with rstd.");
    def_entry<&rms_norm_backward>(m, "rms_norm_backward", "g input weight rstd normalized_shape eps wants",
                                  "The gradients of rms_norm to input and weight.", tensors);
}

}  // namespace nk
