// Convolutions, transposed ones and their gradients: check, make the outputs, run.
#include <algorithm>

#include "activation/cpu.h"
#include "activation/cuda.h"
#include "activation/parameter.h"
#include "bindings.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "convolution/bind.h"
#include "convolution/check.h"
#include "tensor/geometry.h"
#include "tensor/memory_format.h"

namespace nk {

namespace {

using namespace convolution;

struct Made {
    py::object object = py::none();
    TensorView view;
    HostMemory memory;

    Made() = default;
    Made(const Call& call, const char* name, const TensorView& like, const int64_t* shape, int ndim, bool last,
         bool batched = true) {
        int64_t stride[kMaxDims];
        if (batched) {
            dense_strides(shape, ndim, last, stride);
        } else {
            int64_t batch[kMaxDims] = {1}, strides[kMaxDims];
            std::copy_n(shape, ndim, batch + 1);
            dense_strides(batch, ndim + 1, last, strides);
            std::copy_n(strides + 1, ndim, stride);
        }
        take(Output(call, name, new_strided(like, like.dtype, shape, stride, ndim)));
    }
    // laid out as empty_like(like)
    Made(const Call& call, const char* name, const Input& like) { take(Output(call, name, like)); }
    PyObject* ptr() const { return object.ptr(); }
    explicit operator bool() const { return !object.is_none(); }

  private:
    void take(Output&& out) { object = std::move(out.object), view = out.view, memory = std::move(out.memory); }
};

Made result_of(const Call& call, const Checked& c, const char* name, const Input& like, bool last) {
    int64_t shape[kMaxDims];
    const int ndim = c.result_shape(shape);
    return {call, name, like, shape, ndim, last, c.batched};
}
Made image_of(const Call& call, const Checked& c, const char* name, const Input& like, bool last) {
    int64_t shape[kMaxDims];
    const int ndim = c.image_shape(shape);
    return {call, name, like, shape, ndim, last, c.batched};
}
Made weight_of(const Call& call, const Checked& c, const TensorView& like, bool last) {
    int64_t shape[kMaxDims];
    return {call, "gradient", like, shape, c.weight_shape(shape), last};
}

TensorView expanded(const Call& call, const OptionalInput& t, const Input& like, const TensorView& out) {
    check_same_dtype(call.op, t.name, t.view, like.name, like);
    check_same_device(call.op, t.name, t.view, like.name, like);
    TensorView v = t.view;
    if (!expand(v, out.shape, out.ndim))
        call.fail("argument ", t.name, " has shape ", shape_string(t.view), ", expected one that broadcasts to ",
                  shape_string(out));
    return v;
}

py::object forward(const Call& call, Input& x, Input& w, OptionalInput& bias, OptionalInput* residual, TorchName face,
                   const Window& s, Activation act, double p0, double p1, bool keeps) {
    const Checked c = Checked::convolution(call, x, w, face, s);
    c.check_bias(call, bias, x, c.g.o);
    const bool last = makes_channels_last(x, w, c.batched);
    Made y = result_of(call, c, "y", x, last), z;
    if (keeps) z = result_of(call, c, "preact", x, last);
    TensorView r;
    if (residual != nullptr && residual->present) r = c.five(expanded(call, *residual, x, y.view));
    const TensorView y5 = c.five(y.view), z5 = z ? c.five(z.view) : y5, x5 = c.five(x), w5 = c.five(w);
    const Forward p{call.op,
                    c.g,
                    y5,
                    x5,
                    w5,
                    bias.get(),
                    residual != nullptr && residual->present ? &r : nullptr,
                    z ? &z5 : nullptr,
                    act,
                    {rounded(act, p0, x->dtype, false), p1}};
    run(
        call, x->device, {y.ptr(), z.ptr()},
        [&] {
            if (y.view.numel() > 0) forward_cpu(p);
        },
        [&] {
            if (y.view.numel() > 0) forward_cuda(p);
        });
    return z ? py::object(py::make_tuple(y.object, z.object)) : y.object;
}

py::object convolution_(const Call& call, Input& x, Input& w, OptionalInput& bias, FaceArgument face, Ints& stride,
                        Ints& padding, Ints& dilation, int64_t groups, ModeName mode) {
    return forward(call, x, w, bias, nullptr, face, {stride, padding, dilation, groups, mode}, Activation::identity, 0,
                   0, false);
}

// Recorded: with the preactivation.
py::object convolution_activation(const Call& call, Input& x, Input& w, OptionalInput& bias, OptionalInput& residual,
                                  FaceArgument face, Ints& stride, Ints& padding, Ints& dilation, int64_t groups,
                                  ModeName mode, ActivationName act, double p0, double p1) {
    return forward(call, x, w, bias, &residual, face, {stride, padding, dilation, groups, mode}, act, p0, p1,
                   call.recorded);
}

void run_forward(bool cuda, const Forward& p) {
    if (p.result.numel() > 0) cuda ? forward_cuda(p) : forward_cpu(p);
}
void run_data(bool cuda, const DataGradient& p) {
    if (p.image.numel() > 0) cuda ? data_gradient_cuda(p) : data_gradient_cpu(p);
}
void run_weight(bool cuda, const WeightGradient& p) {
    if (p.weight.numel() > 0) cuda ? weight_gradient_cuda(p) : weight_gradient_cpu(p);
}
void run_sums(bool cuda, const ChannelSums& p) {
    if (p.sums.numel() > 0) cuda ? channel_sums_cuda(p) : channel_sums_cpu(p);
}

// gz = g * act'(z)
void activation_gradient(bool cuda, const TensorView& gz, const TensorView& g, const TensorView& z, Activation act,
                         double p0, double p1) {
    p0 = rounded(act, p0, g.dtype, true);
    if (cuda) return cuda::unary_backward(gz, g, z, cuda::arguments(act, p0, p1));
    cpu::run("unary_backward", name_of(act), elementwise(cpu::Pass::backward, act, p0, p1, g.dtype, {&gz}, {&g, &z}));
}

// The gradients of conv; z: what went into the activation, or null.
py::object gradients(const Call& call, Input& g, Input& x, Input& w, Input* z, TorchName face, const Window& s,
                     Activation act, double p0, double p1, const Wants& wants) {
    const Checked c = Checked::convolution(call, x, w, face, s);
    c.check_result(call, g, x);
    if (z != nullptr) c.check_result(call, *z, x);
    const bool last = makes_channels_last(x, w, c.batched);
    Made gx, gw, gb, gz;
    if (wants[0]) gx = x->numel() == 0 ? Made(call, "gradient", x) : image_of(call, c, "gradient", x, last);
    if (wants[1]) gw = weight_of(call, c, w, makes_weight_channels_last(x, w, c.batched));
    if (wants[2]) gb = Made(call, "gradient", x, &c.g.o, 1, false);
    if (z != nullptr && (gx || gw || gb)) gz = result_of(call, c, "gradient", x, last);
    const TensorView d5 = c.five(gz ? gz.view : g.view), x5 = c.five(x), w5 = c.five(w);
    const auto launch = [&](bool cuda) {
        if (gz) activation_gradient(cuda, gz.view, g, *z, act, p0, p1);
        if (gx) run_data(cuda, {call.op, c.g, c.five(gx.view), d5, w5, nullptr});
        if (gw) run_weight(cuda, {call.op, c.g, c.five(gw.view), x5, d5});
        if (gb) run_sums(cuda, {call.op, gb.view, d5});
    };
    run(call, x->device, {gx.ptr(), gw.ptr(), gb.ptr(), gz.ptr()}, [&] { launch(false); }, [&] { launch(true); });
    if (z != nullptr)
        return py::make_tuple(gx.object, gw.object, gb.object,
                              wants[3] ? py::reinterpret_borrow<py::object>(g.object) : py::none());
    return py::make_tuple(gx.object, gw.object, gb.object);
}

py::object convolution_backward(const Call& call, Input& g, Input& x, Input& w, FaceArgument face, Ints& stride,
                                Ints& padding, Ints& dilation, int64_t groups, ModeName mode, Wants wants) {
    return gradients(call, g, x, w, nullptr, face, {stride, padding, dilation, groups, mode}, Activation::identity, 0,
                     0, wants);
}

py::object convolution_activation_backward(const Call& call, Input& g, Input& x, Input& w, Input& z, FaceArgument face,
                                           Ints& stride, Ints& padding, Ints& dilation, int64_t groups, ModeName mode,
                                           ActivationName act, double p0, double p1, Wants wants) {
    return gradients(call, g, x, w, &z, face, {stride, padding, dilation, groups, mode}, act, p0, p1, wants);
}

py::object convolution_transpose(const Call& call, Input& x, Input& w, OptionalInput& bias, FaceArgument face,
                                 Ints& stride, Ints& padding, Ints& output_padding, Ints& dilation, int64_t groups) {
    const Checked c = Checked::transpose(call, x, w, face, {stride, padding, dilation, groups}, output_padding);
    c.check_bias(call, bias, x, c.g.c);
    Made y = image_of(call, c, "y", x, makes_channels_last(x, w, c.batched));
    const auto launch = [&](bool cuda) {
        run_data(cuda, {call.op, c.g, c.five(y.view), c.five(x), c.five(w), bias.get()});
    };
    run(call, x->device, {y.ptr()}, [&] { launch(false); }, [&] { launch(true); });
    return y.object;
}

py::object convolution_transpose_backward(const Call& call, Input& g, Input& x, Input& w, FaceArgument face,
                                          Ints& stride, Ints& padding, Ints& output_padding, Ints& dilation,
                                          int64_t groups, Wants wants) {
    const Checked c = Checked::transpose(call, x, w, face, {stride, padding, dilation, groups}, output_padding);
    check_kind(g, x);
    int64_t shape[kMaxDims];
    const int ndim = c.image_shape(shape);
    if (g->ndim != ndim || !std::equal(shape, shape + ndim, g->shape))
        call.fail("argument ", g.name, " has shape ", shape_string(g), ", expected ", shape_string(shape, ndim));
    const bool last = makes_channels_last(x, w, c.batched);
    Made gx, gw, gb;
    if (wants[0]) gx = x->numel() == 0 ? Made(call, "gradient", x) : result_of(call, c, "gradient", x, last);
    if (wants[1]) gw = weight_of(call, c, w, makes_weight_channels_last(x, w, c.batched));
    if (wants[2]) gb = Made(call, "gradient", x, &c.g.c, 1, false);
    const TensorView g5 = c.five(g), x5 = c.five(x), w5 = c.five(w);
    const auto launch = [&](bool cuda) {
        if (gx)
            run_forward(cuda,
                        {call.op, c.g, c.five(gx.view), g5, w5, nullptr, nullptr, nullptr, Activation::identity, {}});
        if (gw) run_weight(cuda, {call.op, c.g, c.five(gw.view), g5, x5});
        if (gb) run_sums(cuda, {call.op, gb.view, g5});
    };
    run(call, x->device, {gx.ptr(), gw.ptr(), gb.ptr()}, [&] { launch(false); }, [&] { launch(true); });
    return py::make_tuple(gx.object, gw.object, gb.object);
}

py::object convolution_weight_gradient(const Call& call, Input& g, Input& x, FaceArgument, Ints& kernel, Ints& stride,
                                       Ints& padding, Ints& dilation, int64_t groups, ModeName mode) {
    const Checked c = Checked::weight_gradient(call, g, x, kernel, {stride, padding, dilation, groups, mode});
    Made gw = weight_of(call, c, x, false);
    const auto launch = [&](bool cuda) { run_weight(cuda, {call.op, c.g, c.five(gw.view), c.five(x), c.five(g)}); };
    run(call, x->device, {gw.ptr()}, [&] { launch(false); }, [&] { launch(true); });
    return gw.object;
}

// gg: of the weight's gradient; its gradients to g and to the image.
py::object convolution_weight_gradient_backward(const Call& call, Input& gg, Input& g, Input& x, FaceArgument,
                                                Ints& kernel, Ints& stride, Ints& padding, Ints& dilation,
                                                int64_t groups, ModeName mode, Wants wants) {
    const Checked c = Checked::weight_gradient(call, g, x, kernel, {stride, padding, dilation, groups, mode});
    check_kind(gg, x);
    int64_t shape[kMaxDims];
    const int ndim = c.weight_shape(shape);
    if (gg->ndim != ndim || !std::equal(shape, shape + ndim, gg->shape))
        call.fail("argument ", gg.name, " has shape ", shape_string(gg), ", expected ", shape_string(shape, ndim));
    const bool last = makes_channels_last(x, gg, c.batched);
    Made to_g, to_x;
    if (wants[0]) to_g = result_of(call, c, "gradient", x, last);
    if (wants[1]) to_x = image_of(call, c, "gradient", x, last);
    const TensorView gg5 = c.five(gg), g5 = c.five(g), x5 = c.five(x);
    const auto launch = [&](bool cuda) {
        if (to_g)
            run_forward(
                cuda, {call.op, c.g, c.five(to_g.view), x5, gg5, nullptr, nullptr, nullptr, Activation::identity, {}});
        if (to_x) run_data(cuda, {call.op, c.g, c.five(to_x.view), g5, gg5, nullptr});
    };
    run(call, x->device, {to_g.ptr(), to_x.ptr()}, [&] { launch(false); }, [&] { launch(true); });
    return py::make_tuple(to_g.object, to_x.object);
}

}  // namespace

void register_convolution(py::handle m) {
    convolution::register_plan(m);
    constexpr const char* tensors = "tuple[Tensor | None, ...]";
    def_entry<&convolution_>(m, "convolution", "input weight bias face stride padding dilation groups mode",
                             "input * weight + bias. padding: before and behind, for each spatial dim.");
    def_entry<&convolution_backward>(m, "convolution_backward",
                                     "g input weight face stride padding dilation groups mode wants",
                                     "The gradients of convolution to input, weight and bias.", tensors);
    def_entry<&convolution_activation>(m, "convolution_activation",
                                       "input weight bias residual face stride padding dilation groups mode act p0 p1",
                                       "act(input * weight + bias) + residual; recorded: with what goes into act.");
    def_entry<&convolution_activation_backward>(
        m, "convolution_activation_backward",
        "g input weight preact face stride padding dilation groups mode act p0 p1 wants",
        "The gradients of convolution_activation to its tensors.", tensors);
    def_entry<&convolution_transpose>(m, "convolution_transpose",
                                      "input weight bias face stride padding output_padding dilation groups",
                                      "The transpose of convolution's map from its input to its result, of input.");
    def_entry<&convolution_transpose_backward>(
        m, "convolution_transpose_backward", "g input weight face stride padding output_padding dilation groups wants",
        "The gradients of convolution_transpose to input, weight and bias.", tensors);
    def_entry<&convolution_weight_gradient>(m, "convolution_weight_gradient",
                                            "g input face kernel stride padding dilation groups mode",
                                            "The gradient of convolution to its weight, given that of its result.");
    def_entry<&convolution_weight_gradient_backward>(
        m, "convolution_weight_gradient_backward", "gg g input face kernel stride padding dilation groups mode wants",
        "The gradients of convolution_weight_gradient to g and input.", tensors);
}

}  // namespace nk
