#include "rearrangement/check.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nk::rearrangement {

// ---- padding ----

bool Padding::only_crops() const {
    return std::all_of(lo, lo + ndim, [](int64_t p) { return p <= 0; }) &&
           std::all_of(hi, hi + ndim, [](int64_t p) { return p <= 0; });
}

Padding checked_padding(const Call& call, const Input& t, const Ints& amounts, PadMode mode) {
    const auto given = [&] { return concat("argument pad is ", shape_string(amounts.begin(), amounts.count)); };
    if (amounts.count % 2 != 0) call.fail(given(), ", expected two numbers for each dim");
    if (amounts.count > 2 * t->ndim)
        call.fail(given(), ", expected at most ", 2 * t->ndim, " numbers for ", t.name, " of shape ", shape_string(t));
    const int padded = amounts.count / 2, inner = t->ndim - padded;  // dims in front: a channel, and maybe a batch
    if (mode != PadMode::constant && (padded < 1 || padded > 3 || inner < 1 || inner > 2))
        call.fail("mode '", kPadModes[static_cast<int>(mode)], "' does not pad ", t.name, " of shape ", shape_string(t),
                  " by ", shape_string(amounts.begin(), amounts.count));
    Padding p{mode, t->ndim, inner - 1, {}, {}};
    for (int i = 0; i < padded; ++i) {
        p.lo[t->ndim - 1 - i] = amounts.values[2 * i];
        p.hi[t->ndim - 1 - i] = amounts.values[2 * i + 1];
        for (const int64_t a : {amounts.values[2 * i], amounts.values[2 * i + 1]})
            if (a > (int64_t{1} << 47) || a < -(int64_t{1} << 47)) call.fail(given(), ", more than memory holds");
    }
    return p;
}

void check_value(const Call& call, const Input& x, PadMode mode, std::optional<double> value) {
    if (!value) return;
    if (mode != PadMode::constant) {
        if (*value == 0) return;
        call.fail("argument value is ", *value, ", which mode '", kPadModes[static_cast<int>(mode)], "' does not take");
    }
    const double most[] = {std::numeric_limits<float>::max(), std::numeric_limits<double>::max(), 65504.0, 0x1.fep127};
    if (std::isfinite(*value) && std::abs(*value) > most[static_cast<int>(x->dtype)])
        call.fail("argument value is ", *value, ", expected what ", name_of(x->dtype), " holds");
}

namespace {

// Of a dim of n elements that becomes one of `size`.
void check_mode(const Call& call, const char* name, const TensorView& t, int d, const Padding& pad, int64_t n,
                int64_t size) {
    const auto fails = [&](const char* expected) {
        call.fail("argument pad is (", pad.lo[d], ", ", pad.hi[d], ") for dim ", d, " of argument ", name, " of shape ",
                  shape_string(t), ", expected ", expected);
    };
    if (n + std::min<int64_t>(pad.lo[d], 0) + std::min<int64_t>(pad.hi[d], 0) < 0 && pad.mode == PadMode::constant)
        fails("no more cut off than there is");
    if (size < 0) fails("something to remain");
    if (pad.mode == PadMode::constant || (pad.lo[d] == 0 && pad.hi[d] == 0)) return;
    const bool reflects = pad.mode == PadMode::reflect;
    if (pad.mode == PadMode::circular) {
        const int64_t kept = pad_period(n, pad.lo[d], size);
        if (kept < 0 || pad.lo[d] > kept || pad.hi[d] > kept) fails("at most what is not cut off of the dim");
        return;
    }
    if (reflects && (pad.lo[d] >= n || pad.hi[d] >= n)) fails("less than the size of the dim");
    if (size < 1) fails("something to remain");
}

}  // namespace

void padded_shape(const Call& call, const Input& x, const Padding& pad, int64_t* shape) {
    // reflected and replicated elements have to be there, as torch asks of all dims but that of a batch
    const int batch = pad.mode == PadMode::reflect || pad.mode == PadMode::replicate ? pad.batch : x->ndim;
    for (int d = batch; d < x->ndim; ++d)
        if (x->shape[d] == 0)
            call.fail("argument ", x.name, " has shape ", shape_string(x), ", expected no empty dim but the first");
    for (int d = 0; d < x->ndim; ++d) {
        shape[d] = x->shape[d] + pad.lo[d] + pad.hi[d];
        check_mode(call, x.name, x, d, pad, x->shape[d], shape[d]);
    }
}

void unpadded_shape(const Call& call, const Input& g, const Padding& pad, int64_t* shape) {
    for (int d = 0; d < g->ndim; ++d) {
        shape[d] = g->shape[d] - pad.lo[d] - pad.hi[d];
        if (shape[d] < 0)
            call.fail("argument g has shape ", shape_string(g), ", less than the padding of (", pad.lo[d], ", ",
                      pad.hi[d], ") in dim ", d);
        check_mode(call, g.name, g, d, pad, shape[d], g->shape[d]);
    }
}

// ---- shuffles ----

void Shuffle::split(TensorView& out, TensorView& in) const {
    TensorView o = out, i = in;
    int next = first;
    for (int k = 0; k < count; ++k, ++next) {
        o.shape[next] = i.shape[next] = sizes[k];
        o.stride[next] = out.stride[out_dim[k]] * out_step[k];
        i.stride[next] = in.stride[in_dim[k]] * in_step[k];
    }
    for (int d = first + dims; d < out.ndim; ++d, ++next) {
        o.shape[next] = i.shape[next] = out.shape[d];
        o.stride[next] = out.stride[d], i.stride[next] = in.stride[d];
    }
    o.ndim = i.ndim = next;
    out = o, in = i;
}

namespace {

void check_factor(const Call& call, const Input& x, const char* name, int64_t factor) {
    if (x->ndim < 3) call.fail("argument ", x.name, " has shape ", shape_string(x), ", expected at least 3 dimensions");
    if (factor <= 0) call.fail("argument ", name, " is ", factor, ", expected at least 1");
    if (x->ndim + 2 > kMaxDims)
        call.fail("argument ", x.name, " has ", x->ndim, " dimensions, expected at most ", kMaxDims - 2);
}

// [..., c, h, rh, w, rw] of the large image and of the small one, whose channels are [c, rh, rw].
Shuffle pixels(const Input& x, int64_t c, int64_t h, int64_t w, int64_t r, bool enlarges) {
    Shuffle s{};
    const int n = x->ndim;
    std::copy(x->shape, x->shape + n - 3, s.shape);
    const int64_t large[3] = {c, h * r, w * r}, small[3] = {c * r * r, h, w};
    std::copy_n(enlarges ? large : small, 3, s.shape + n - 3);
    s.first = n - 3, s.dims = 3, s.count = 5;
    const int64_t sizes[] = {c, h, r, w, r}, of_large[] = {1, r, 1, r, 1}, of_small[] = {r * r, 1, r, 1, 1};
    const int dim_large[] = {0, 1, 1, 2, 2}, dim_small[] = {0, 1, 0, 2, 0};
    for (int k = 0; k < 5; ++k) {
        s.sizes[k] = sizes[k];
        s.out_dim[k] = n - 3 + (enlarges ? dim_large : dim_small)[k];
        s.in_dim[k] = n - 3 + (enlarges ? dim_small : dim_large)[k];
        s.out_step[k] = (enlarges ? of_large : of_small)[k];
        s.in_step[k] = (enlarges ? of_small : of_large)[k];
    }
    return s;
}

}  // namespace

Shuffle checked_pixel_shuffle(const Call& call, const Input& x, int64_t r) {
    check_factor(call, x, "upscale_factor", r);
    const int64_t* const last = x->shape + x->ndim - 3;
    if (r > (int64_t{1} << 31) || last[0] % (r * r) != 0)
        call.fail("argument ", x.name, " has ", last[0], " channels in shape ", shape_string(x),
                  ", expected a multiple of the square of upscale_factor ", r);
    return pixels(x, last[0] / (r * r), last[1], last[2], r, true);
}

Shuffle checked_pixel_unshuffle(const Call& call, const Input& x, int64_t r) {
    check_factor(call, x, "downscale_factor", r);
    const int64_t* const last = x->shape + x->ndim - 3;
    if (r > (int64_t{1} << 31) || last[1] % r != 0 || last[2] % r != 0)
        call.fail("argument ", x.name, " has shape ", shape_string(x),
                  ", expected height and width to be multiples of downscale_factor ", r);
    return pixels(x, last[0], last[1] / r, last[2] / r, r, false);
}

Shuffle checked_channel_shuffle(const Call& call, const Input& x, int64_t groups, bool backward) {
    if (x->ndim < 3) call.fail("argument ", x.name, " has shape ", shape_string(x), ", expected at least 3 dimensions");
    if (groups <= 0) call.fail("argument groups is ", groups, ", expected at least 1");
    const int64_t channels = x->shape[1];
    if (channels % groups != 0)
        call.fail("argument ", x.name, " has ", channels, " channels in shape ", shape_string(x),
                  ", expected a multiple of groups ", groups);
    if (x->ndim + 1 > kMaxDims) call.fail("argument ", x.name, " has ", x->ndim, " dimensions, expected less");
    Shuffle s{};
    std::copy(x->shape, x->shape + x->ndim, s.shape);
    // the output's channel is i * groups + j, the input's j * (channels / groups) + i; the other way round backward
    const int64_t each = channels / groups;
    s.first = 1, s.dims = 1, s.count = 2;
    s.sizes[0] = each, s.sizes[1] = groups;
    for (int k = 0; k < 2; ++k) s.out_dim[k] = s.in_dim[k] = 1;
    const int64_t turned[2] = {groups, 1}, straight[2] = {1, each};
    std::copy_n(backward ? straight : turned, 2, s.out_step);
    std::copy_n(backward ? turned : straight, 2, s.in_step);
    return s;
}

// ---- windows ----

namespace {

void read_pair(const Call& call, const char* name, const Ints& given, int64_t least, int64_t (&pair)[2]) {
    if (given.count != 2)
        call.fail("argument ", name, " is ", shape_string(given.begin(), given.count), ", expected two ints");
    for (int i = 0; i < 2; ++i) {
        pair[i] = given.values[i];
        if (pair[i] < least || pair[i] > (int64_t{1} << 31))
            call.fail("argument ", name, " is ", shape_string(given.begin(), given.count), ", expected at least ",
                      least, pair[i] < least ? "" : " and at most 2^31");
    }
}

Window read_window(const Call& call, const Ints& kernel, const Ints& dilation, const Ints& padding,
                   const Ints& stride) {
    Window w{};
    read_pair(call, "kernel_size", kernel, 1, w.kernel);
    read_pair(call, "dilation", dilation, 1, w.dilation);
    read_pair(call, "padding", padding, 0, w.padding);
    read_pair(call, "stride", stride, 1, w.stride);
    return w;
}

void count_places(Window& w) {
    for (int i = 0; i < 2; ++i) {
        const int64_t reach = w.image[i] + 2 * w.padding[i] - w.dilation[i] * (w.kernel[i] - 1) - 1;
        w.places[i] = reach < 0 ? 0 : reach / w.stride[i] + 1;
    }
}

}  // namespace

Window checked_unfold(const Call& call, const Input& x, const Ints& kernel, const Ints& dilation, const Ints& padding,
                      const Ints& stride) {
    if (x->ndim < 3)  // torch asks for its third dim
        fail_index(call.op, "argument ", x.name, " has shape ", shape_string(x),
                   ", expected [C, H, W] or [N, C, H, W]");
    Window w = read_window(call, kernel, dilation, padding, stride);
    const auto empty = [](int64_t n) { return n == 0; };
    if (x->ndim > 4 || std::any_of(x->shape + x->ndim - 3, x->shape + x->ndim, empty))
        call.fail("argument ", x.name, " has shape ", shape_string(x),
                  ", expected [C, H, W] or [N, C, H, W] with no empty dim but N");
    std::copy_n(x->shape + x->ndim - 2, 2, w.image);
    count_places(w);
    if (w.places[0] < 1 || w.places[1] < 1)
        call.fail("argument ", x.name, " has shape ", shape_string(x), ", in which a window of ",
                  shape_string(w.kernel, 2), " with dilation ", shape_string(w.dilation, 2), " and padding ",
                  shape_string(w.padding, 2), " has no place");
    return w;
}

Window checked_fold(const Call& call, const Input& x, const Ints& size, const Ints& kernel, const Ints& dilation,
                    const Ints& padding, const Ints& stride) {
    Window w = read_window(call, kernel, dilation, padding, stride);
    if (size.count != 2)
        call.fail("argument output_size is ", shape_string(size.begin(), size.count), ", expected two ints");
    const bool shaped = (x->ndim == 2 || x->ndim == 3) && x->shape[x->ndim - 2] != 0 && x->shape[x->ndim - 1] != 0;
    if (!shaped)
        call.fail("argument ", x.name, " has shape ", shape_string(x),
                  ", expected [C * kernel, L] or [N, C * kernel, L] with no empty dim but N");
    const int64_t rows = x->shape[x->ndim - 2], length = x->shape[x->ndim - 1];
    if (rows % (w.kernel[0] * w.kernel[1]) != 0)
        call.fail("argument ", x.name, " has shape ", shape_string(x), ", expected ", rows,
                  " to be a multiple of the product of kernel_size ", shape_string(w.kernel, 2));
    for (int i = 0; i < 2; ++i) w.image[i] = size.values[i];
    count_places(w);
    if (w.image[0] < 1 || w.image[1] < 1 || w.places[0] * w.places[1] != length)
        call.fail("argument ", x.name, " has shape ", shape_string(x), ", expected ", w.places[0] * w.places[1],
                  " columns for output_size ", shape_string(w.image, 2), ", kernel_size ", shape_string(w.kernel, 2),
                  ", dilation ", shape_string(w.dilation, 2), ", padding ", shape_string(w.padding, 2), " and stride ",
                  shape_string(w.stride, 2));
    return w;
}

}  // namespace nk::rearrangement
