// The pooling ops and their gradients: check as torch does, make the outputs in torch's layout, run.
#include "bindings.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "pooling/check.h"
#include "pooling/problem.h"

namespace nk {

namespace {

using pooling::Kind;
using pooling::Windowed;
using KindName = NameOf<Kind, pooling::kKinds, pooling::kNames>;

// The layout of `like`: channels_last where torch keeps it, else contiguous.
Output made(const Call& call, const char* name, const TensorView& like, DType type, const int64_t* shape, int ndim,
            bool channels) {
    if (!channels) return Output(call, name, like, type, shape, ndim);
    int64_t stride[5];
    int64_t step = shape[1];
    stride[1] = 1;
    for (int d = ndim - 1; d > 1; --d) stride[d] = step, step *= std::max<int64_t>(shape[d], 1);
    stride[0] = step;
    return Output(call, name, new_strided(like, type, shape, stride, ndim));
}

struct Shape {
    int ndim;
    int64_t size[5];
    Shape(const TensorView& x, const Windowed& w, bool out) : ndim(x.ndim) {
        const int dims = pooling::dims_of(w.kind);
        for (int i = 0; i < ndim; ++i) size[i] = x.shape[i];
        for (int i = 0; i < dims; ++i) {
            const PoolDim& d = w.dim[3 - dims + i];
            size[ndim - dims + i] = out ? d.out : d.in;
        }
    }
};

py::object max_forward(const Call& call, const Windowed& w, Input& x, bool with_indices, DType index_type) {
    const Shape shape(x, w, true);
    const bool channels = pooling::keeps_channels_last(w.kind, x);
    Output y = made(call, "y", x, x->dtype, shape.size, shape.ndim, channels);
    std::optional<Output> indices;
    if (with_indices) indices.emplace(made(call, "indices", x, index_type, shape.size, shape.ndim, channels));
    const TensorView* const at = with_indices ? &indices->view : nullptr;
    run(
        call, x->device, {y.object.ptr(), with_indices ? indices->object.ptr() : Py_None},
        [&] { pooling::max_cpu(call.op, w, y, at, x); }, [&] { pooling::max_cuda(call.op, w, y, at, x); });
    if (!with_indices) return y.object;
    return py::make_tuple(y.object, indices->object);
}

py::object max_backward(const Call& call, const Windowed& w, Input& g, Input& x, Input& indices) {
    const Shape shape(x, w, true);
    check_kind(g, x);
    pooling::check_shape(call, g, shape.size, shape.ndim);
    pooling::check_shape(call, indices, shape.size, shape.ndim);
    check_same_device(call.op, indices.name, indices, x.name, x);
    if (indices->dtype != DType::i32 && indices->dtype != DType::i64)
        call.fail("argument indices has dtype ", name_of(indices->dtype), ", expected int64");
    Output gx = made(call, "gx", x, x->dtype, x->shape, x->ndim, pooling::keeps_channels_last(w.kind, x));
    run(
        call, x->device, {gx.object.ptr()}, [&] { pooling::max_backward_cpu(call.op, w, gx, g, indices); },
        [&] { pooling::max_backward_cuda(call.op, w, gx, g, indices); });
    return gx.object;
}

// Numbers within a plane fit 32 bits for any image; where they do not, the gradient's indices have 64.
DType index_type(const Windowed& w) { return w.inputs() < (int64_t{1} << 31) ? DType::i32 : DType::i64; }

py::object max_pool(const Call& call, Input& x, KindName kind, Ints& kernel, Ints& stride, Ints& padding,
                    Ints& dilation, Ints& output_size, bool ceil_mode) {
    const Windowed w = pooling::windows(call, x, kind, kernel, stride, &padding, &dilation, &output_size, ceil_mode);
    return max_forward(call, w, x, call.recorded, index_type(w));
}

py::object max_pool_with_indices(const Call& call, Input& x, KindName kind, Ints& kernel, Ints& stride, Ints& padding,
                                 Ints& dilation, Ints& output_size, bool ceil_mode) {
    const Windowed w = pooling::windows(call, x, kind, kernel, stride, &padding, &dilation, &output_size, ceil_mode);
    return max_forward(call, w, x, true, DType::i64);
}

py::object max_pool_backward(const Call& call, Input& g, Input& x, Input& indices, KindName kind, Ints& kernel,
                             Ints& stride, Ints& padding, Ints& dilation, Ints& output_size, bool ceil_mode) {
    const Windowed w = pooling::windows(call, x, kind, kernel, stride, &padding, &dilation, &output_size, ceil_mode);
    return max_backward(call, w, g, x, indices);
}

// Indices have no gradient: what autograd makes up for it is not looked at.
py::object max_pool_with_indices_backward(const Call& call, Input& g, Kept&, Input& x, Input& indices, KindName kind,
                                          Ints& kernel, Ints& stride, Ints& padding, Ints& dilation, Ints& output_size,
                                          bool ceil_mode) {
    return max_pool_backward(call, g, x, indices, kind, kernel, stride, padding, dilation, output_size, ceil_mode);
}

py::object fractional_max_pool(const Call& call, Input& x, Input& samples, KindName kind, Ints& kernel,
                               Ints& output_size) {
    const Windowed w = pooling::fractional(call, x, &samples, kind, kernel, output_size);
    return max_forward(call, w, x, call.recorded, index_type(w));
}

py::object fractional_max_pool_with_indices(const Call& call, Input& x, Input& samples, KindName kind, Ints& kernel,
                                            Ints& output_size) {
    const Windowed w = pooling::fractional(call, x, &samples, kind, kernel, output_size);
    return max_forward(call, w, x, true, DType::i64);
}

py::object fractional_max_pool_backward(const Call& call, Input& g, Input& x, Input& indices, KindName kind,
                                        Ints& kernel, Ints& output_size, Wants) {
    const Windowed w = pooling::fractional(call, x, nullptr, kind, kernel, output_size);
    return py::make_tuple(max_backward(call, w, g, x, indices), py::none());
}

py::object fractional_max_pool_with_indices_backward(const Call& call, Input& g, Kept&, Input& x, Input& indices,
                                                     KindName kind, Ints& kernel, Ints& output_size, Wants wants) {
    return fractional_max_pool_backward(call, g, x, indices, kind, kernel, output_size, wants);
}

py::object average(const Call& call, const Windowed& w, Input& x) {
    const Shape shape(x, w, true);
    Output y = made(call, "y", x, x->dtype, shape.size, shape.ndim, pooling::keeps_channels_last(w.kind, x, &w));
    run(
        call, x->device, {y.object.ptr()}, [&] { pooling::average_cpu(call.op, w, y, x); },
        [&] { pooling::average_cuda(call.op, w, y, x); });
    return y.object;
}

py::object average_backward(const Call& call, const Windowed& w, Input& g, Input& x, const Input* y) {
    const Shape shape(x, w, true);
    check_kind(g, x);
    pooling::check_shape(call, g, shape.size, shape.ndim);
    if (y != nullptr) {
        check_kind(*y, x);
        pooling::check_shape(call, *y, shape.size, shape.ndim);
    }
    Output gx = made(call, "gx", x, x->dtype, x->shape, x->ndim, pooling::keeps_channels_last(w.kind, x));
    const TensorView* const value = y == nullptr ? nullptr : &x.view;
    const TensorView* const result = y == nullptr ? nullptr : &y->view;
    run(
        call, x->device, {gx.object.ptr()}, [&] { pooling::average_backward_cpu(call.op, w, gx, g, value, result); },
        [&] { pooling::average_backward_cuda(call.op, w, gx, g, value, result); });
    return gx.object;
}

Windowed average_windows(const Call& call, const Input& x, Kind kind, const Ints& kernel, const Ints& stride,
                         const Ints& padding, const Ints& output_size, bool ceil_mode, bool include_pad,
                         std::optional<int64_t> divisor) {
    Windowed w = pooling::windows(call, x, kind, kernel, stride, &padding, nullptr, &output_size, ceil_mode);
    w.include_pad = include_pad;
    if (divisor == 0) call.fail("argument divisor_override is 0, expected another number");
    w.divisor = divisor.value_or(0);
    return w;
}

py::object avg_pool(const Call& call, Input& x, KindName kind, Ints& kernel, Ints& stride, Ints& padding,
                    Ints& output_size, bool ceil_mode, bool include_pad, std::optional<int64_t> divisor) {
    return average(
        call, average_windows(call, x, kind, kernel, stride, padding, output_size, ceil_mode, include_pad, divisor), x);
}

py::object avg_pool_backward(const Call& call, Input& g, Input& x, KindName kind, Ints& kernel, Ints& stride,
                             Ints& padding, Ints& output_size, bool ceil_mode, bool include_pad,
                             std::optional<int64_t> divisor) {
    return average_backward(
        call, average_windows(call, x, kind, kernel, stride, padding, output_size, ceil_mode, include_pad, divisor), g,
        x, nullptr);
}

Windowed lp_windows(const Call& call, const Input& x, Kind kind, double norm, const Ints& kernel, const Ints& stride,
                    bool ceil_mode) {
    Windowed w = pooling::windows(call, x, kind, kernel, stride, nullptr, nullptr, nullptr, ceil_mode);
    w.norm = norm;
    return w;
}

py::object lp_pool(const Call& call, Input& x, KindName kind, double norm, Ints& kernel, Ints& stride, bool ceil_mode) {
    return average(call, lp_windows(call, x, kind, norm, kernel, stride, ceil_mode), x);
}

py::object lp_pool_backward(const Call& call, Input& g, Input& x, Input& y, KindName kind, double norm, Ints& kernel,
                            Ints& stride, bool ceil_mode) {
    return average_backward(call, lp_windows(call, x, kind, norm, kernel, stride, ceil_mode), g, x, &y);
}

py::object max_unpool(const Call& call, Input& x, Input& indices, KindName kind, Ints& output_size) {
    const int dims = pooling::dims_of(kind);
    pooling::check_unpool(call, x, indices, dims, output_size);
    int64_t shape[5];
    std::copy(x->shape, x->shape + x->ndim, shape);
    std::copy(output_size.begin(), output_size.end(), shape + x->ndim - dims);
    Output y = made(call, "y", x, x->dtype, shape, x->ndim, pooling::keeps_channels_last(kind, x));
    run(
        call, x->device, {y.object.ptr()}, [&] { pooling::unpool_cpu(call.op, dims, y, x, indices); },
        [&] { pooling::unpool_cuda(call.op, dims, y, x, indices); });
    return y.object;
}

py::object max_unpool_backward(const Call& call, Input& g, Input& indices, KindName kind, Ints& output_size, Wants) {
    const int dims = pooling::dims_of(kind);
    check_floating(g);
    pooling::check_unpool_gradient(call, g, indices, dims, output_size);
    Output gx(call, "gx", g, indices->shape, indices->ndim);  // contiguous, as torch's
    run(
        call, g->device, {gx.object.ptr()}, [&] { pooling::unpool_backward_cpu(call.op, dims, gx, g, indices); },
        [&] { pooling::unpool_backward_cuda(call.op, dims, gx, g, indices); });
    return py::make_tuple(gx.object, py::none());
}

}  // namespace

void register_pooling(py::handle m) {
    constexpr const char* two = "tuple[Tensor, Tensor]";
    constexpr const char* maybe = "tuple[Tensor | None, ...]";
    def_entry<&max_pool>(m, "max_pool", "input kind kernel_size stride padding dilation output_size ceil_mode",
                         "The maximum of each window; recorded: with its place in the plane.");
    def_entry<&max_pool_with_indices>(m, "max_pool_with_indices",
                                      "input kind kernel_size stride padding dilation output_size ceil_mode",
                                      "The maximum of each window and its place in the plane.", two);
    def_entry<&max_pool_backward>(m, "max_pool_backward",
                                  "g input indices kind kernel_size stride padding dilation output_size ceil_mode",
                                  "The gradient of max_pool.");
    def_entry<&max_pool_with_indices_backward>(
        m, "max_pool_with_indices_backward",
        "g g_indices input indices kind kernel_size stride padding dilation output_size ceil_mode",
        "The gradient of max_pool_with_indices.");
    def_entry<&fractional_max_pool>(m, "fractional_max_pool", "input _random_samples kind kernel_size output_size",
                                    "max_pool of windows whose starts are random.");
    def_entry<&fractional_max_pool_with_indices>(m, "fractional_max_pool_with_indices",
                                                 "input _random_samples kind kernel_size output_size",
                                                 "The same with the places of the maxima.", two);
    def_entry<&fractional_max_pool_backward>(m, "fractional_max_pool_backward",
                                             "g input indices kind kernel_size output_size wants",
                                             "The gradient of fractional_max_pool.", maybe);
    def_entry<&fractional_max_pool_with_indices_backward>(
        m, "fractional_max_pool_with_indices_backward", "g g_indices input indices kind kernel_size output_size wants",
        "The gradient of fractional_max_pool_with_indices.", maybe);
    def_entry<&avg_pool>(
        m, "avg_pool", "input kind kernel_size stride padding output_size ceil_mode count_include_pad divisor_override",
        "The average of each window.");
    def_entry<&avg_pool_backward>(
        m, "avg_pool_backward",
        "g input kind kernel_size stride padding output_size ceil_mode count_include_pad divisor_override",
        "The gradient of avg_pool.");
    def_entry<&lp_pool>(m, "lp_pool", "input kind norm_type kernel_size stride ceil_mode",
                        "The root of the sum of powers of each window.");
    def_entry<&lp_pool_backward>(m, "lp_pool_backward", "g input y kind norm_type kernel_size stride ceil_mode",
                                 "The gradient of lp_pool.");
    def_entry<&max_unpool>(m, "max_unpool", "input indices kind output_size",
                           "Zeros, and the input's elements at the places that indices names.");
    def_entry<&max_unpool_backward>(m, "max_unpool_backward", "g indices kind output_size wants",
                                    "The gradient of max_unpool.", maybe);
}

}  // namespace nk
