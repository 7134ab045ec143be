#include "convolution/check.h"

#include <algorithm>

#include "tensor/memory_format.h"

namespace nk::convolution {

namespace {

// Reads the window into the last `dims` of three.
void read_window(const Call& call, Checked& to, const Window& w) {
    const auto check = [&](const char* name, const Ints& given, int count, int64_t least) {
        if (given.count != count)
            call.fail("argument ", name, " is ", shape_string(given.begin(), given.count), ", expected ", count,
                      " numbers");
        for (const int64_t v : given)
            if (v < least)
                call.fail("argument ", name, " is ", shape_string(given.begin(), given.count), ", expected numbers of ",
                          least, " or more");
    };
    check("stride", w.stride, to.dims, 1), check("dilation", w.dilation, to.dims, 1);
    check("padding", w.padding, 2 * to.dims, 0);
    if (w.groups < 1) call.fail("argument groups is ", w.groups, ", expected 1 or more");
    Geometry& g = to.g;
    g.groups = w.groups, g.mode = w.mode;
    std::fill_n(g.in, kSpatial, 1), std::fill_n(g.out, kSpatial, 1), std::fill_n(g.kernel, kSpatial, 1);
    std::fill_n(g.stride, kSpatial, 1), std::fill_n(g.dilation, kSpatial, 1), std::fill_n(g.pad, kSpatial, 0);
    for (int i = 0, k = kSpatial - to.dims; i < to.dims; ++i, ++k)
        g.stride[k] = w.stride.values[i], g.dilation[k] = w.dilation.values[i], g.pad[k] = w.padding.values[2 * i];
}

int64_t reach(const Geometry& g, int k) { return g.dilation[k] * (g.kernel[k] - 1) + 1; }

// Reads the sizes of images, given those of a weight; returns the number of channels.
int64_t read_images(const Call& call, Checked& to, const Input& t, const Input& like, int64_t* pixels) {
    if (t.object != like.object) check_kind(t, like);
    to.batched = t->ndim == to.dims + 2;
    if (!to.batched && t->ndim != to.dims + 1)
        call.fail("argument ", t.name, " has shape ", shape_string(t), ", expected ", to.dims + 2, " dimensions, or ",
                  to.dims + 1, " without a batch");
    to.g.n = to.batched ? t->shape[0] : 1;
    std::copy_n(t->shape + t->ndim - to.dims, to.dims, pixels + kSpatial - to.dims);
    return t->shape[to.batched];
}

void read_weight(const Call& call, Checked& to, const Input& weight, const Input& like, TorchName face) {
    check_floating(like);
    check_kind(weight, like);
    to.dims = dims_of(face);
    if (weight->ndim != to.dims + 2)
        call.fail("argument weight has shape ", shape_string(weight), ", expected ", to.dims + 2, " dimensions");
}

// Images without pixels are padding alone, which torch takes only where there are none, or no channels.
void check_pixels(const Call& call, const Input& images, int64_t count, const int64_t* pixels) {
    if (count > 0 && std::find(pixels, pixels + kSpatial, 0) != pixels + kSpatial)
        call.fail("argument ", images.name, " has shape ", shape_string(images),
                  ", expected images of a pixel or more");
}

// What a convolution of that geometry makes of a padded image; fails where the window does not fit into it.
void set_result(const Call& call, Checked& to, const Input& image, const Ints& padding) {
    Geometry& g = to.g;
    for (int i = 0, k = kSpatial - to.dims; i < to.dims; ++i, ++k) {
        const int64_t behind = padding.values[2 * i + 1], most = std::max(g.pad[k], behind);
        if (g.mode == PaddingMode::reflect && most >= g.in[k])
            call.fail("argument padding is ", shape_string(padding.begin(), padding.count), ", expected less than the ",
                      "size of ", image.name, " ", shape_string(image), " where it reflects");
        if ((g.mode == PaddingMode::circular && most > g.in[k]) || (g.mode != PaddingMode::zeros && g.in[k] == 0))
            call.fail("argument padding is ", shape_string(padding.begin(), padding.count), ", expected at most the ",
                      "size of ", image.name, " ", shape_string(image), " where it wraps");
        const int64_t padded = g.in[k] + g.pad[k] + behind;
        if (padded < reach(g, k))
            call.fail("argument ", image.name, " has shape ", shape_string(image), " and padding ",
                      shape_string(padding.begin(), padding.count),
                      ", expected at least the size of the window: ", reach(g, k), " in dimension ", k - kSpatial);
        g.out[k] = (padded - reach(g, k)) / g.stride[k] + 1;
    }
    check_pixels(call, image, g.n * g.c, g.in);
}

void check_groups(const Call& call, const Geometry& g, int64_t of_weight, const Input& weight, const char* axis) {
    if (of_weight % g.groups != 0 || of_weight == 0)
        call.fail("argument weight has shape ", shape_string(weight), ", expected ", axis, " that groups ", g.groups,
                  " divides, and not 0");
}

}  // namespace

Checked Checked::convolution(const Call& call, const Input& image, const Input& weight, TorchName face,
                             const Window& window) {
    Checked c;
    read_weight(call, c, weight, image, face);
    read_window(call, c, window);
    Geometry& g = c.g;
    g.c = read_images(call, c, image, image, g.in);
    g.o = weight->shape[0];
    std::copy_n(weight->shape + 2, c.dims, g.kernel + kSpatial - c.dims);
    for (const int64_t k : g.kernel)
        if (k < 1)
            call.fail("argument weight has shape ", shape_string(weight), ", expected a window that is not empty");
    check_groups(call, g, g.o, weight, "a number of output channels");
    if (weight->shape[1] * g.groups != g.c)
        call.fail("argument ", image.name, " has shape ", shape_string(image), " with ", g.c, " channels, expected ",
                  weight->shape[1] * g.groups, " as weight ", shape_string(weight), " of ", g.groups, " groups takes");
    set_result(call, c, image, window.padding);
    return c;
}

Checked Checked::transpose(const Call& call, const Input& input, const Input& weight, TorchName face,
                           const Window& window, const Ints& output_padding) {
    Checked c;
    read_weight(call, c, weight, input, face);
    read_window(call, c, window);
    Geometry& g = c.g;
    g.o = read_images(call, c, input, input, g.out);
    if (weight->shape[0] != g.o)
        call.fail("argument ", input.name, " has shape ", shape_string(input), " with ", g.o, " channels, expected ",
                  weight->shape[0], " as weight ", shape_string(weight), " takes");
    check_groups(call, g, g.o, weight, "a number of input channels");
    g.c = weight->shape[1] * g.groups;
    if (g.c == 0) call.fail("argument weight has shape ", shape_string(weight), ", expected an output channel or more");
    check_pixels(call, input, g.n * g.o, g.out);
    std::copy_n(weight->shape + 2, c.dims, g.kernel + kSpatial - c.dims);
    if (output_padding.count != c.dims)
        call.fail("argument output_padding is ", shape_string(output_padding.begin(), output_padding.count),
                  ", expected ", c.dims, " numbers");
    for (int i = 0, k = kSpatial - c.dims; i < c.dims; ++i, ++k) {
        const int64_t more = output_padding.values[i];
        if (more < 0 || (more >= g.stride[k] && more >= g.dilation[k]))
            call.fail("argument output_padding is ", shape_string(output_padding.begin(), output_padding.count),
                      ", expected numbers of 0 or more and less than stride ",
                      shape_string(window.stride.begin(), c.dims), " or dilation ",
                      shape_string(window.dilation.begin(), c.dims));
        if (g.kernel[k] < 1)
            call.fail("argument weight has shape ", shape_string(weight), ", expected a window that is not empty");
        const int64_t around = window.padding.values[2 * i] + window.padding.values[2 * i + 1];
        g.in[k] = (g.out[k] - 1) * g.stride[k] - around + reach(g, k) + more;
        if (g.in[k] < 0 || (g.in[k] == 0 && g.out[k] > 0))
            call.fail("argument ", input.name, " has shape ", shape_string(input), " and padding ",
                      shape_string(window.padding.begin(), window.padding.count),
                      ", which leave nothing of the output: its size in dimension ", k - kSpatial, " is ", g.in[k]);
    }
    return c;
}

Checked Checked::weight_gradient(const Call& call, const Input& g, const Input& image, const Ints& kernel,
                                 const Window& window) {
    Checked c;
    check_floating(image);
    check_kind(g, image);
    c.dims = kernel.count;
    if (c.dims < 1 || c.dims > kSpatial)
        call.fail("argument kernel is ", shape_string(kernel.begin(), kernel.count), ", expected 1 to 3 sizes");
    read_window(call, c, window);
    Geometry& to = c.g;
    to.c = read_images(call, c, image, image, to.in);
    std::copy_n(kernel.begin(), c.dims, to.kernel + kSpatial - c.dims);
    if (g->ndim != image->ndim)
        call.fail("argument ", g.name, " has shape ", shape_string(g), ", expected ", image->ndim,
                  " dimensions as argument ", image.name, " ", shape_string(image));
    to.o = g->shape[c.batched];
    if (to.c % to.groups != 0 || to.o % to.groups != 0)
        call.fail("arguments ", image.name, " ", shape_string(image), " and ", g.name, " ", shape_string(g),
                  ", expected numbers of channels that groups ", to.groups, " divides");
    set_result(call, c, image, window.padding);
    c.check_result(call, g, image);
    return c;
}

int Checked::weight_shape(int64_t* shape) const {
    shape[0] = g.o, shape[1] = g.image_channels();
    std::copy_n(g.kernel + kSpatial - dims, dims, shape + 2);
    return dims + 2;
}

int Checked::shape_of(int64_t channels, const int64_t* pixels, int64_t* shape) const {
    int n = 0;
    if (batched) shape[n++] = g.n;
    shape[n++] = channels;
    std::copy_n(pixels + kSpatial - dims, dims, shape + n);
    return n + dims;
}

void Checked::check_result(const Call& call, const Input& t, const Input& like) const {
    check_kind(t, like);
    int64_t shape[kMaxDims];
    const int ndim = result_shape(shape);
    if (t->ndim != ndim || !std::equal(shape, shape + ndim, t->shape))
        call.fail("argument ", t.name, " has shape ", shape_string(t), ", expected ", shape_string(shape, ndim));
}

void Checked::check_bias(const Call& call, const OptionalInput& bias, const Input& like, int64_t channels) const {
    if (!bias.present) return;
    check_kind(bias, like);
    if (bias.view.ndim != 1 || bias.view.shape[0] != channels)
        call.fail("argument bias has shape ", shape_string(bias.view), ", expected [", channels, "]");
}

TensorView Checked::five(const TensorView& t) const {
    TensorView v;
    v.data = t.data, v.dtype = t.dtype, v.device = t.device;
    v.ndim = 2 + kSpatial;
    std::fill_n(v.shape, v.ndim, 1), std::fill_n(v.stride, v.ndim, 0);
    const int lead = t.ndim - dims;  // of channels, and of images where there is a batch
    for (int i = 0; i < t.ndim; ++i) {
        const int to = i < lead ? 2 - lead + i : 2 + kSpatial - t.ndim + i;
        v.shape[to] = t.shape[i], v.stride[to] = t.stride[i];
    }
    return v;
}

namespace {

// torch's kernels for volumes of float64 know one layout.
bool has_layouts(const TensorView& images, const TensorView& weight) {
    return weight.ndim == 4 || (weight.ndim == 5 && images.dtype != DType::f64);
}

bool are_channels_last(const TensorView& images, bool batched) {
    if (batched) return is_channels_last(images);
    int64_t shape[kMaxDims], stride[kMaxDims];  // with a batch of one, as torch's unsqueeze(0) makes it
    shape[0] = 1, stride[0] = images.shape[0] * images.stride[0];
    std::copy_n(images.shape, images.ndim, shape + 1), std::copy_n(images.stride, images.ndim, stride + 1);
    return is_channels_last(shape, stride, images.ndim + 1);
}

}  // namespace

bool makes_channels_last(const TensorView& images, const TensorView& weight, bool batched) {
    if (!has_layouts(images, weight) || images.numel() == 0) return false;
    return is_channels_last(weight) || are_channels_last(images, batched);
}

bool makes_weight_channels_last(const TensorView& images, const TensorView& weight, bool batched) {
    if (!has_layouts(images, weight)) return false;
    if (is_channels_last(weight)) return true;
    // in float64 torch turns a contiguous one, which nothing turns where it lies in both layouts
    if (images.dtype == DType::f64 && (weight.shape[1] == 1 || weight.shape[2] * weight.shape[3] == 1)) return false;
    return are_channels_last(images, batched);
}

}  // namespace nk::convolution
