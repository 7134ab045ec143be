// Depthwise convolutions by their own CUDA kernels.
#include <algorithm>

#include "convolution/cuda.h"
#include "plan/columns_cuda.h"
#include "tensor/scratch.h"

namespace nk::convolution::on_cuda {

namespace {

using cuda::DepthwiseParams;

bool takes_depthwise(const Geometry& g) {
    if (g.groups == 1 || g.image_channels() != 1 || g.taps() * g.result_channels() > cuda::kDepthwiseWeights / 32)
        return false;
    constexpr int64_t most = int64_t{1} << 29;
    for (int d = 0; d < kSpatial; ++d)
        if (std::max({g.in[d], g.out[d] * g.stride[d], g.pad[d], g.dilation[d] * g.kernel[d]}) > most) return false;
    return std::max(g.pixels_in(), g.pixels_out()) * g.n < 2 * most;
}

DepthwiseParams depthwise_params(const Geometry& g, const TensorView& image, const TensorView& weight,
                                 const TensorView& result, const int64_t* pixels) {
    DepthwiseParams q;
    q.image = reference(&image), q.result = reference(&result), q.weight = reference(&weight);
    q.channels = static_cast<int32_t>(g.o), q.times = static_cast<int32_t>(g.result_channels());
    q.pixels = g.n;
    for (int d = 0; d < kSpatial; ++d) {
        q.pixels *= pixels[d];
        q.size[d] = cuda::make_divisor(static_cast<uint32_t>(std::max<int64_t>(pixels[d], 1)));
        q.in[d] = static_cast<int32_t>(g.in[d]), q.out[d] = static_cast<int32_t>(g.out[d]);
        q.kernel[d] = static_cast<int32_t>(g.kernel[d]), q.stride[d] = static_cast<int32_t>(g.stride[d]);
        q.dilation[d] = static_cast<int32_t>(g.dilation[d]), q.pad[d] = static_cast<int32_t>(g.pad[d]);
        q.strides[d] = cuda::make_divisor(static_cast<uint32_t>(g.stride[d]));
    }
    q.mode = static_cast<int>(g.mode);
    return q;
}

// Whether units of channels can be moved.
bool has_units(const TensorView* t, int64_t channels) {
    if (t == nullptr) return true;
    const int64_t unit = 16 / size_of(t->dtype);
    bool even = t->stride[1] == 1 && channels % unit == 0 && reinterpret_cast<uintptr_t>(t->data) % 16 == 0;
    for (int d = 0; d < t->ndim; ++d) even = even && (d == 1 || t->shape[d] == 1 || t->stride[d] % unit == 0);
    return even;
}

// How many threads lie along the channels: where these lie side by side, and as their weights fit.
int lanes_log2(const TensorView& made, int64_t channels, int unit, int64_t weights) {
    if (made.stride[1] != 1) return 0;
    int lanes = std::min(plan::ceil_log2(plan::ceil_div(channels, unit)), 5);
    while (lanes > 0 && (weights * unit << lanes) > cuda::kDepthwiseWeights) --lanes;
    return lanes;
}

void run_depthwise(const char* op, const char* kind, DepthwiseParams& q, const TensorView& made, bool units,
                   int64_t weights) {
    const int unit = units ? 16 / size_of(made.dtype) : 1;
    q.lanes_log2 = lanes_log2(made, q.channels, unit, weights);
    const int64_t channels = int64_t{unit} << q.lanes_log2, pixels = cuda::kDepthwiseThreads >> q.lanes_log2;
    launch(op, "convolution_depthwise",
           concat("convolution_depthwise_", kind, units ? "_units_" : "_", cuda::short_name(made.dtype)),
           {ceil_div(q.pixels, pixels), cuda::kDepthwiseThreads, ceil_div(q.channels, channels)}, made.device, q,
           concat("blocks of ", pixels, " pixels and ", channels, " channels"));
}

bool has_wide(const TensorView* t) { return t != nullptr && t->stride[1] == 1; }

}  // namespace

bool depthwise_forward(const Forward& p) {
    const Geometry& g = p.g;
    if (!takes_depthwise(g)) return false;
    DepthwiseParams q = depthwise_params(g, p.image, p.weight, p.result, g.out);
    q.preact = reference(p.preact), q.residual = reference(p.residual);
    q.has_preact = p.preact != nullptr, q.has_residual = p.residual != nullptr;
    if (p.bias != nullptr) q.bias = p.bias->data, q.bias_column = p.bias->stride[0];
    q.activation = static_cast<int>(p.activation), q.p0 = p.p[0], q.p1 = p.p[1], q.beta = 1;
    const bool units = q.times == 1 && has_units(&p.image, g.c) && has_units(&p.result, g.o) &&
                       has_units(p.preact, g.o) && g.taps() * 16 / size_of(p.result.dtype) <= cuda::kDepthwiseWeights;
    q.wide_out = units, q.wide_preact = units && has_wide(p.preact);
    q.wide_residual = units && p.residual != nullptr && has_units(p.residual, g.o);
    run_depthwise(p.op, "forward", q, p.result, units, g.taps());
    return true;
}

bool depthwise_data_gradient(const DataGradient& p) {
    const Geometry& g = p.g;
    if (!takes_depthwise(g) || g.mode != PaddingMode::zeros) return false;
    DepthwiseParams q = depthwise_params(g, p.image, p.weight, p.result, g.in);
    q.channels = static_cast<int32_t>(g.c);
    if (p.bias != nullptr) q.bias = p.bias->data, q.bias_column = p.bias->stride[0];
    const bool units = q.times == 1 && has_units(&p.image, g.c) && has_units(&p.result, g.o) &&
                       g.taps() * 16 / size_of(p.image.dtype) <= cuda::kDepthwiseWeights;
    q.wide_out = units;
    run_depthwise(p.op, "data", q, p.image, units, g.taps() * q.times);
    return true;
}

bool depthwise_weight_gradient(const WeightGradient& p) {
    const Geometry& g = p.g;
    if (!takes_depthwise(g) || g.taps() > 65535) return false;
    DepthwiseParams q = depthwise_params(g, p.image, p.weight, p.result, g.out);
    const DType dtype = p.weight.dtype;
    const bool units = q.times == 1 && has_units(&p.image, g.c) && has_units(&p.result, g.o);
    const int unit = units ? 16 / size_of(dtype) : 1;
    q.lanes_log2 = lanes_log2(p.result, g.o, unit, 1);
    const int64_t blocks = ceil_div(g.o, int64_t{unit} << q.lanes_log2);
    const int64_t rows = cuda::kDepthwiseThreads >> q.lanes_log2;
    const int64_t wanted =
        std::min(ceil_div(8 * cuda::multiprocessors(p.weight.device), blocks * g.taps()), ceil_div(q.pixels, rows * 8));
    q.parts = static_cast<int32_t>(std::clamp<int64_t>(wanted, 1, 1024));
    q.per_part = ceil_div(q.pixels, q.parts);
    const Scratch partial = allocate_scratch(p.weight, q.parts * p.weight.numel() * plan::compute_size(dtype));
    q.partial = partial.data;
    launch(p.op, "convolution_depthwise",
           concat("convolution_depthwise_weight", units ? "_units_" : "_", cuda::short_name(dtype)),
           {blocks, cuda::kDepthwiseThreads, g.taps(), q.parts}, p.weight.device, q,
           concat(q.parts, " parts of the pixels"));
    launch(p.op, "convolution_depthwise", concat("convolution_depthwise_finish_", cuda::short_name(dtype)),
           {ceil_div(p.weight.numel(), cuda::kDepthwiseThreads), cuda::kDepthwiseThreads}, p.weight.device, q,
           "sums of the parts");
    return true;
}

}  // namespace nk::convolution::on_cuda
