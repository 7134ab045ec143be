// Padding, shuffles of pixels and channels, sliding windows: check, make the outputs, run.
#include "bindings.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "rearrangement/check.h"
#include "rearrangement/layout.h"

namespace nk {

namespace {

using namespace rearrangement;

Output laid_out(const Call& call, const Input& like, const int64_t* shape, int ndim, bool channels_last) {
    int64_t stride[kMaxDims];
    dense_strides(shape, ndim, channels_last, stride);
    return Output(call, "output", new_strided(like, like->dtype, shape, stride, ndim));
}

template <class Problem>
py::object run_into(const Call& call, const Output& output, const Problem& p) {
    run(
        call, output->device, {output.object.ptr()},
        [&] {
            if (output->numel() != 0) run_cpu(p);
        },
        [&] {
            if (output->numel() != 0) run_cuda(p);
        });
    return output.object;
}

// ---- padding ----

// Laid out as torch does for the padding of x.
Output padded_output(const Call& call, const Input& x, const Padding& pad, const int64_t* shape) {
    if (pad.mode == PadMode::constant && pad.only_crops()) {  // torch clones a view then
        TensorView cropped = x.view;
        std::copy(shape, shape + x->ndim, cropped.shape);
        int64_t stride[kMaxDims];
        preserved_strides(cropped, stride);
        return Output(call, "output", new_strided(x, x->dtype, shape, stride, x->ndim));
    }
    return laid_out(call, x, shape, x->ndim, pad.mode != PadMode::circular && is_channels_last(x));
}

py::object pad(const Call& call, Input& x, Ints& amounts, PadName mode, std::optional<double> value) {
    check_floating(x);
    const Padding pad = checked_padding(call, x, amounts, mode);
    check_value(call, x, mode, value);
    int64_t shape[kMaxDims];
    padded_shape(call, x, pad, shape);
    const Output y = padded_output(call, x, pad, shape);
    return run_into(call, y, Pad{call.op, y, x, pad.mode, pad.lo, value.value_or(0)});
}

py::object pad_backward(const Call& call, Input& g, Ints& amounts, PadName mode, std::optional<double>) {
    check_floating(g);
    Padding pad = checked_padding(call, g, amounts, mode);
    int64_t shape[kMaxDims];
    unpadded_shape(call, g, pad, shape);
    if (pad.mode == PadMode::constant) {  // what was padded is cropped, and the other way round
        for (int d = 0; d < g->ndim; ++d) pad.lo[d] = -pad.lo[d], pad.hi[d] = -pad.hi[d];
        const Output gx = padded_output(call, g, pad, shape);
        return run_into(call, gx, Pad{call.op, gx, g, pad.mode, pad.lo, 0});
    }
    const Output gx = padded_output(call, g, pad, shape);
    return run_into(call, gx, PadBackward{call.op, gx, g, pad.mode, pad.lo});
}

// ---- shuffles ----

// in's last dims split and ordered anew are out's: views of one shape of both.
py::object shuffled(const Call& call, const Input& x, const Shuffle& s, bool channels_last) {
    const Output y = laid_out(call, x, s.shape, x->ndim, channels_last);
    Copy copy{call.op, y, x};
    s.split(copy.out, copy.in);
    return run_into(call, y, copy);
}

py::object pixel_shuffle(const Call& call, Input& x, int64_t factor) {
    check_floating(x);
    return shuffled(call, x, checked_pixel_shuffle(call, x, factor), x->ndim == 4 && is_channels_last(x));
}

py::object pixel_unshuffle(const Call& call, Input& x, int64_t factor) {
    check_floating(x);
    return shuffled(call, x, checked_pixel_unshuffle(call, x, factor), x->ndim == 4 && is_channels_last(x));
}

py::object channel_shuffle(const Call& call, Input& x, int64_t groups) {
    check_floating(x);
    return shuffled(call, x, checked_channel_shuffle(call, x, groups, false), is_channels_last(x));
}

py::object channel_shuffle_backward(const Call& call, Input& g, int64_t groups) {
    check_floating(g);
    return shuffled(call, g, checked_channel_shuffle(call, g, groups, true), is_channels_last(g));
}

// ---- windows ----

TensorView with_batch(const TensorView& t, int ndim) {
    if (t.ndim == ndim) return t;
    TensorView made = t;
    made.ndim = ndim;
    made.shape[0] = 1, made.stride[0] = 0;
    std::copy(t.shape, t.shape + t.ndim, made.shape + 1);
    std::copy(t.stride, t.stride + t.ndim, made.stride + 1);
    return made;
}

py::object columns_of(const Call& call, const Input& x, const Ints& kernel, const Ints& dilation, const Ints& padding,
                      const Ints& stride) {
    check_floating(x);
    const Window w = checked_unfold(call, x, kernel, dilation, padding, stride);
    const int64_t* const last = x->shape + x->ndim - 3;
    int64_t shape[3] = {x->ndim == 4 ? x->shape[0] : 1, last[0] * w.kernel[0] * w.kernel[1], w.places[0] * w.places[1]};
    const int batch = x->ndim - 3;
    const Output columns(call, "output", x, shape + 1 - batch, 2 + batch);
    const TensorView out = with_batch(columns, 3), image = with_batch(x, 4);
    return run_into(call, columns, Unfold{call.op, out, image, w});
}

// `size` is that of the images, for the gradient.
py::object unfold(const Call& call, Input& x, Ints&, Ints& kernel, Ints& dilation, Ints& padding, Ints& stride) {
    return columns_of(call, x, kernel, dilation, padding, stride);
}

py::object fold(const Call& call, Input& x, Ints& size, Ints& kernel, Ints& dilation, Ints& padding, Ints& stride) {
    check_floating(x);
    const Window w = checked_fold(call, x, size, kernel, dilation, padding, stride);
    const int batch = x->ndim - 2;
    int64_t shape[4] = {batch ? x->shape[0] : 1, x->shape[batch] / (w.kernel[0] * w.kernel[1]), w.image[0], w.image[1]};
    const Output image(call, "output", x, shape + 1 - batch, 3 + batch);
    const TensorView out = with_batch(image, 4), columns = with_batch(x, 3);
    return run_into(call, image, Fold{call.op, out, columns, w});
}

}  // namespace

void register_rearrangement(py::handle m) {
    def_entry<&pad, 1>(m, "pad", "input pad mode value", "The input with padding around its last dims.");
    def_entry<&pad_backward, 1>(m, "pad_backward", "g pad mode value",
                                "The gradient of pad: of each element the sum over the places that it went to.");
    def_entry<&pad, 1>(m, "pad_gradient_backward", "g pad mode value", "The gradient of pad_backward, which is pad.");
    def_entry<&pixel_shuffle>(m, "pixel_shuffle", "input upscale_factor",
                              "[..., C r^2, H, W] to [..., C, H r, W r], by torch's order of the channels.");
    def_entry<&pixel_unshuffle>(m, "pixel_shuffle_backward", "g upscale_factor", "The gradient of pixel_shuffle.");
    def_entry<&pixel_unshuffle>(m, "pixel_unshuffle", "input downscale_factor",
                                "[..., C, H r, W r] to [..., C r^2, H, W], what pixel_shuffle undoes.");
    def_entry<&pixel_shuffle>(m, "pixel_unshuffle_backward", "g downscale_factor", "The gradient of pixel_unshuffle.");
    def_entry<&channel_shuffle>(m, "channel_shuffle", "input groups",
                                "Channel (i, j) of [groups, C / groups] to (j, i).");
    def_entry<&channel_shuffle_backward>(m, "channel_shuffle_backward", "g groups", "The gradient of channel_shuffle.");
    def_entry<&unfold>(m, "unfold", "input output_size kernel_size dilation padding stride",
                       "The pixels under a sliding window, a column for each of its places.");
    def_entry<&fold>(m, "fold", "input output_size kernel_size dilation padding stride",
                     "The image whose pixels are the sums of the columns over them.");
    def_entry<&fold>(m, "unfold_backward", "g output_size kernel_size dilation padding stride",
                     "The gradient of unfold, which is fold.");
    def_entry<&unfold>(m, "fold_backward", "g output_size kernel_size dilation padding stride",
                       "The gradient of fold, which is unfold.");
}

}  // namespace nk
