// Interpolation and its gradient: check as torch does, make the outputs in torch's layout, run.
#include "resampling/bind.h"
#include "bindings.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "resampling/problem.h"
#include "tensor/memory_format.h"

namespace nk {

namespace {

using resampling::Problem;

constexpr int kModes = 6;
constexpr const char* const kModeNames[kModes] = {
    "nearest", "nearest-exact", "linear", "cubic", "antialiased-linear", "antialiased-cubic",
};
using ModeName = NameOf<ResampleMode, kModes, kModeNames>;
using Scale = std::optional<double>;

void check_list(const Call& call, const char* name, const Ints& sizes, int dims) {
    if (sizes.count != dims)
        call.fail("argument ", name, " is ", shape_string(sizes.begin(), sizes.count), ", expected ", dims,
                  dims == 1 ? " size" : " sizes");
    for (const int64_t size : sizes)
        if (size <= 0) call.fail("argument ", name, " has a size of ", size, ", expected at least 1");
}

// Elements of the source for each output, in torch's arithmetic for S.
template <class S>
double scale_of(const ResampleDim& d, Scale given) {
    if (d.align_corners)
        return d.out > 1 ? static_cast<double>(static_cast<S>(d.in - 1) / static_cast<S>(d.out - 1)) : 0;
    if (given.has_value() && *given > 0) return static_cast<double>(static_cast<S>(1.0 / *given));
    return static_cast<double>(static_cast<S>(d.in) / static_cast<S>(d.out));
}

// `t`: the input, or in a gradient the gradient of the output.
py::object resample(const Call& call, const Input& t, ResampleMode mode, const Ints& output_size,
                    const Ints& input_size, bool align_corners, const Scale (&scales)[3], bool transposed) {
    check_floating(t);
    const int dims = t->ndim - 2;
    if (dims < 1 || dims > 3)
        call.fail("argument ", t.name, " has shape ", shape_string(t), ", expected 3 to 5 dimensions");
    check_list(call, "size", output_size, dims);
    check_list(call, "input_size", input_size, dims);
    if (t->shape[1] == 0)
        call.fail("argument ", t.name, " has shape ", shape_string(t),
                  ", expected no dimension but the batch of size 0");
    const Ints &from = transposed ? output_size : input_size, &to = transposed ? input_size : output_size;
    int64_t shape[5] = {t->shape[0], t->shape[1]}, stride[5];
    for (int i = 0; i < dims; ++i) {
        if (t->shape[2 + i] != from.values[i])
            call.fail("argument ", t.name, " has shape ", shape_string(t), ", expected the last sizes ",
                      shape_string(from.begin(), dims));
        shape[2 + i] = to.values[i];
    }
    Problem p{call.op, {}, t, transposed, {}};
    for (int i = 0; i < dims; ++i) {
        ResampleDim& d = p.dim[3 - dims + i];
        d.mode = mode, d.align_corners = align_corners;
        d.in = input_size.values[i], d.out = output_size.values[i];
        const Scale given = scales[3 - dims + i];
        d.scale = t->dtype == DType::f64 ? scale_of<double>(d, given) : scale_of<float>(d, given);
    }
    // gradients of cubics and of the nearest elements in volumes torch leaves contiguous
    const bool cubic = mode == ResampleMode::cubic || mode == ResampleMode::antialiased_cubic;
    const bool contiguous = transposed && (cubic || (dims == 3 && mode <= ResampleMode::nearest_exact));
    dense_strides(shape, t->ndim, !contiguous && is_channels_last(t), stride);
    const Output y(call, "output", new_strided(t, t->dtype, shape, stride, t->ndim));
    p.out = y;
    run(
        call, t->device, {y.object.ptr()},
        [&] {
            if (y->numel() != 0) run_cpu(p);
        },
        [&] {
            if (y->numel() != 0) run_cuda(p);
        });
    return y.object;
}

py::object interpolate(const Call& call, Input& x, ModeName mode, Ints& output_size, Ints& input_size,
                       bool align_corners, Scale d, Scale h, Scale w) {
    return resample(call, x, mode, output_size, input_size, align_corners, {d, h, w}, false);
}

py::object interpolate_backward(const Call& call, Input& g, ModeName mode, Ints& output_size, Ints& input_size,
                                bool align_corners, Scale d, Scale h, Scale w) {
    return resample(call, g, mode, output_size, input_size, align_corners, {d, h, w}, true);
}

}  // namespace

void register_resampling(py::handle m) {
    def_entry<&interpolate>(m, "interpolate", "input mode output_size input_size align_corners scale_d scale_h scale_w",
                            "An image of another size: each element a weighted sum of elements of the input.");
    def_entry<&interpolate_backward>(m, "interpolate_backward",
                                     "g mode output_size input_size align_corners scale_d scale_h scale_w",
                                     "The gradient of interpolate.");
    def_entry<&interpolate>(m, "interpolate_gradient_backward",
                            "g mode output_size input_size align_corners scale_d scale_h scale_w",
                            "The gradient of interpolate_backward, which is interpolate.");
    register_grid_sample(m);
}

}  // namespace nk
