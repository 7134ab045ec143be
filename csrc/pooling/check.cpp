#include "pooling/check.h"

#include <algorithm>

#include "call/run.h"

namespace nk::pooling {

namespace {

bool is_adaptive(Kind k) {
    return (k >= Kind::adaptive_max_pool1d && k <= Kind::adaptive_max_pool3d) ||
           (k >= Kind::adaptive_avg_pool1d && k <= Kind::adaptive_avg_pool3d);
}

// torch's is_channels_last_strides: by the strides alone, so that one channel or one row may be either. Rows are images
// of one row there.
bool strides_say_channels_last(const TensorView& x) {
    const int order[3][5] = {{1, 2, 3, 0, 0}, {1, 3, 2, 0, 0}, {1, 4, 3, 2, 0}};
    const int dims = x.ndim == 3 ? 4 : x.ndim;
    int64_t least = 0;
    for (int k = 0; k < dims; ++k) {
        const int d = order[x.ndim - 3][k];
        const bool added = d == 3 && x.ndim == 3;
        const int64_t size = added ? 1 : x.shape[d], stride = added ? x.shape[2] * x.stride[2] : x.stride[d];
        if ((d == 1 && stride == 0) || size == 0 || stride < least) return false;
        if (d == 0 && least == x.stride[1]) return false;  // all ones: contiguous
        least = stride * size;
    }
    return true;
}

void check_image(const Call& call, const Input& x, int dims, bool channels_first = false) {
    check_floating(x);
    if (channels_first && x->ndim < dims + 1)  // torch looks for the channels first
        fail_index(call.op, "argument input has shape ", shape_string(x), ", expected ", dims + 1, " or ", dims + 2,
                   " dimensions");
    bool good = x->ndim == dims + 1 || x->ndim == dims + 2;
    for (int i = x->ndim - dims - 1; good && i < x->ndim; ++i) good = i < 0 || x->shape[i] > 0;
    if (!good)
        call.fail("argument input has shape ", shape_string(x), ", expected ", dims + 1, " or ", dims + 2,
                  " dimensions, none but the batch of size 0");
}

// Number i of a list that may hold one for all dims, or none where there is a default.
int64_t of_dim(const Call& call, const char* name, const Ints& list, int dims, int i, const Ints* otherwise,
               int64_t value) {
    if (list.count == 0 && otherwise != nullptr) return of_dim(call, name, *otherwise, dims, i, nullptr, value);
    if (list.count == 0) return value;
    if (list.count != 1 && list.count != dims)
        call.fail("argument ", name, " is ", shape_string(list.begin(), list.count), ", expected one number or ", dims);
    return list.values[list.count == 1 ? 0 : i];
}

void plain(const Call& call, const Input& x, PoolDim& d, bool ceil_mode, bool has_dilation) {
    const auto at_least = [&](const char* name, int64_t value, int64_t least) {
        if (value < least) call.fail("argument ", name, " is ", value, ", expected at least ", least);
    };
    at_least("kernel_size", d.kernel, 1);
    at_least("stride", d.stride, 1);
    if (has_dilation) at_least("dilation", d.dilation, 1);
    at_least("padding", d.padding, 0);
    const int64_t reach = d.dilation * (d.kernel - 1) + 1;
    if (d.padding > reach / 2)
        call.fail("argument padding is ", d.padding, ", expected at most half of the window's ", reach, " elements");
    const int64_t room = d.in + 2 * d.padding - reach + (ceil_mode ? d.stride - 1 : 0);
    d.out = room < 0 ? 0 : room / d.stride + 1;
    // a window that begins in the right padding is dropped
    if (ceil_mode && d.out > 0 && (d.out - 1) * d.stride >= d.in + d.padding) --d.out;
    if (d.out < 1)
        call.fail("argument input has shape ", shape_string(x), ", too small for kernel_size ", d.kernel, ", padding ",
                  d.padding, " and dilation ", d.dilation, ": no window fits");
}

}  // namespace

bool keeps_channels_last(Kind kind, const TensorView& x, const Windowed* of) {
    switch (kind) {
        case Kind::max_pool1d:
        case Kind::adaptive_max_pool1d:
        case Kind::avg_pool1d:
        case Kind::adaptive_avg_pool1d:
            return x.ndim == 3 && strides_say_channels_last(x);
        case Kind::max_pool2d:
        case Kind::adaptive_max_pool2d:
        case Kind::avg_pool2d:
        case Kind::adaptive_avg_pool2d:
        case Kind::max_unpool2d:
            return x.ndim == 4 && strides_say_channels_last(x);
        case Kind::lp_pool1d:
        case Kind::lp_pool2d:  // of other ops' results, whose strides no longer tell where one may be either
            return x.ndim == dims_of(kind) + 2 && x.shape[1] != 1 &&
                   (of == nullptr || of->outputs() != 1 || x.ndim == 3) && strides_say_channels_last(x);
        case Kind::adaptive_avg_pool3d:  // torch takes the mean of whole volumes by another op
            if (of == nullptr || of->outputs() != 1) return false;
            [[fallthrough]];
        case Kind::max_pool3d:
            return x.ndim == 5 && strides_say_channels_last(x);
        default:
            return false;
    }
}

Windowed windows(const Call& call, const Input& x, Kind kind, const Ints& kernel, const Ints& stride,
                 const Ints* padding, const Ints* dilation, const Ints* output_size, bool ceil_mode) {
    const int dims = dims_of(kind);
    check_image(call, x, dims, kind == Kind::avg_pool2d || kind == Kind::lp_pool2d);
    Windowed w;
    w.kind = kind;
    const bool adaptive = is_adaptive(kind);
    if (adaptive && output_size->count != dims)
        call.fail("argument output_size is ", shape_string(output_size->begin(), output_size->count), ", expected ",
                  dims, dims == 1 ? " number" : " numbers");
    if (!adaptive && kernel.count == 0) call.fail("argument kernel_size is [], expected one number or ", dims);
    for (int i = 0; i < dims; ++i) {
        PoolDim& d = w.dim[3 - dims + i];
        d.in = x->shape[x->ndim - dims + i];
        if (adaptive) {
            d.windows = Windows::adaptive;
            d.out = output_size->values[i];
            if (d.out < 0) call.fail("argument output_size has a size of ", d.out, ", expected none below 0");
            continue;
        }
        d.kernel = of_dim(call, "kernel_size", kernel, dims, i, nullptr, 1);
        d.stride = of_dim(call, "stride", stride, dims, i, &kernel, 1);
        if (padding != nullptr) d.padding = of_dim(call, "padding", *padding, dims, i, nullptr, 0);
        if (dilation != nullptr) d.dilation = of_dim(call, "dilation", *dilation, dims, i, nullptr, 1);
        plain(call, x, d, ceil_mode, dilation != nullptr);
    }
    return w;
}

Windowed fractional(const Call& call, const Input& x, const Input* samples, Kind kind, const Ints& kernel,
                    const Ints& output_size) {
    const int dims = dims_of(kind);
    check_image(call, x, dims);
    Windowed w;
    w.kind = kind;
    if (samples != nullptr) {
        const TensorView& s = samples->view;
        check_kind(*samples, x);
        const int64_t batches = x->ndim == dims + 2 ? x->shape[0] : 1, channels = x->shape[x->ndim - dims - 1];
        if (s.ndim != 3 || s.shape[0] < batches || s.shape[1] != channels || s.shape[2] != dims)
            call.fail("argument _random_samples has shape ", shape_string(s), ", expected [", batches, ", ", channels,
                      ", ", dims, "]");
        w.samples = &s;
    }
    if (output_size.count != 1 && output_size.count != dims)
        call.fail("argument output_size is ", shape_string(output_size.begin(), output_size.count),
                  ", expected one number or ", dims);
    for (int i = 0; i < dims; ++i) {
        PoolDim& d = w.dim[3 - dims + i];
        d.windows = Windows::fractional;
        d.in = x->shape[x->ndim - dims + i];
        d.out = output_size.values[output_size.count == 1 ? 0 : i];
        d.kernel = of_dim(call, "kernel_size", kernel, dims, i, nullptr, 1);
        if (d.kernel < 1) call.fail("argument kernel_size is ", d.kernel, ", expected at least 1");
        if (d.out < 1) call.fail("argument output_size is ", d.out, ", expected at least 1");
        // torch's bound is tighter by one for volumes
        if (d.out + d.kernel - 1 > d.in - (dims == 3))
            call.fail("argument input has shape ", shape_string(x), ", too small for ", d.out, " windows of ", d.kernel,
                      " elements that all begin in another place");
    }
    return w;
}

void check_shape(const Call& call, const Input& t, const int64_t* shape, int ndim) {
    if (t->ndim != ndim || !std::equal(shape, shape + ndim, t->shape))
        call.fail("argument ", t.name, " has shape ", shape_string(t), ", expected ", shape_string(shape, ndim));
}

void check_unpool(const Call& call, const Input& x, const Input& indices, int dims, const Ints& output_size) {
    check_image(call, x, dims);
    if (indices->dtype != DType::i64)
        call.fail("argument indices has dtype ", name_of(indices->dtype), ", expected int64");
    check_same_device(call.op, indices.name, indices, x.name, x);
    check_same_shape(call.op, indices.name, indices, x.name, x);
    if (output_size.count != dims)
        call.fail("argument output_size is ", shape_string(output_size.begin(), output_size.count), ", expected ", dims,
                  " numbers");
    int64_t places = 1;
    for (const int64_t size : output_size) {
        if (size < 0) call.fail("argument output_size has a size of ", size, ", expected none below 0");
        places *= size;
    }
    // the CPU's kernels look as they go, a GPU's end there; others that work on the host's memory are looked at first
    if (x->device.kind != Device::cpu || runs_on_processor(x->device)) return;
    const Image at(indices, dims);
    for (int64_t plane = 0; plane < at.planes(); ++plane)
        for (int64_t i = 0; i < at.inner(); ++i) {
            const int64_t w = i % at.size[4], row = i / at.size[4], h = row % at.size[3], d = row / at.size[3];
            const int64_t from = plane / at.size[1] * at.stride[0] + plane % at.size[1] * at.stride[1] +
                                 d * at.stride[2] + h * at.stride[3] + w * at.stride[4];
            const int64_t place = reinterpret_cast<const int64_t*>(at.data)[from];
            if (place < 0 || place >= places)
                call.fail("argument indices holds ", place, ", expected 0 to ", places - 1,
                          ", the places of a plane of the output");
        }
}

void check_unpool_gradient(const Call& call, const Input& g, const Input& indices, int dims, const Ints& output_size) {
    check_same_device(call.op, indices.name, indices, g.name, g);
    if (indices->dtype != DType::i64)
        call.fail("argument indices has dtype ", name_of(indices->dtype), ", expected int64");
    if (g->ndim != indices->ndim || (g->ndim != dims + 1 && g->ndim != dims + 2) || output_size.count != dims)
        call.fail("argument g has shape ", shape_string(g), ", expected that of the output");
    for (int i = 0; i < g->ndim; ++i) {
        const bool outer = i < g->ndim - dims;
        if (g->shape[i] != (outer ? indices->shape[i] : output_size.values[i - (g->ndim - dims)]))
            call.fail("argument g has shape ", shape_string(g), ", expected that of the output");
    }
}

}  // namespace nk::pooling
