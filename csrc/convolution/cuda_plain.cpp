// Convolutions by the plain CUDA kernels, and sums of channels.
#include <algorithm>

#include "convolution/cuda.h"
#include "cuda/columns.h"
#include "plan/columns_cuda.h"
#include "tensor/scratch.h"

namespace nk::convolution::on_cuda {

namespace {

cuda::PlainConvolutionParams plain_params(const Geometry& g) {
    cuda::PlainConvolutionParams q;
    q.images = g.n, q.groups = g.groups;
    q.image_channels = g.image_channels(), q.result_channels = g.result_channels();
    for (int d = 0; d < kSpatial; ++d) {
        q.in[d] = g.in[d], q.out[d] = g.out[d], q.kernel[d] = g.kernel[d];
        q.stride[d] = g.stride[d], q.dilation[d] = g.dilation[d], q.pad[d] = g.pad[d];
        q.padded[d] = (g.out[d] - 1) * g.stride[d] + g.dilation[d] * (g.kernel[d] - 1) + 1;
    }
    q.mode = static_cast<int>(g.mode);
    return q;
}

void set_bias(cuda::EpilogueParams& q, const TensorView* bias) {
    if (bias != nullptr) q.bias = bias->data, q.bias_column = bias->stride[0];
}

void run_plain(const char* op, const char* what, cuda::PlainConvolutionParams& q, const TensorView& to,
               int64_t channels) {
    q.channels_inner = to.stride[1] == 1;
    const int64_t piece = to.dtype == DType::f64 ? 2 : 4;
    launch(op, "convolution_plain", std::string(what) + "_" + cuda::short_name(to.dtype),
           {ceil_div(q.m * q.groups * ceil_div(channels, piece), cuda::kConvolutionThreads), cuda::kConvolutionThreads},
           to.device, q, concat("a thread for ", piece, " channels of a pixel"));
}

}  // namespace

void plain_forward(const Forward& p) {
    cuda::PlainConvolutionParams q = plain_params(p.g);
    q.m = p.g.n * p.g.pixels_out(), q.n = p.g.o;
    q.image = reference(&p.image), q.weight = reference(&p.weight), q.result = reference(&p.result);
    q.preact = reference(p.preact), q.residual = reference(p.residual);
    q.has_preact = p.preact != nullptr, q.has_residual = p.residual != nullptr;
    set_bias(q, p.bias);
    q.activation = static_cast<int>(p.activation), q.p0 = p.p[0], q.p1 = p.p[1], q.beta = 1;
    run_plain(p.op, "convolution_plain_forward", q, p.result, q.result_channels);
}

void plain_data_gradient(const DataGradient& p) {
    cuda::PlainConvolutionParams q = plain_params(p.g);
    q.m = p.g.n * p.g.pixels_in(), q.n = p.g.c;
    q.image = reference(&p.image), q.weight = reference(&p.weight), q.result = reference(&p.result);
    set_bias(q, p.bias);
    run_plain(p.op, "convolution_plain_data", q, p.image, q.image_channels);
}

void plain_weight_gradient(const WeightGradient& p) {
    cuda::PlainConvolutionParams q = plain_params(p.g);
    q.m = p.g.n * p.g.pixels_out();
    q.image = reference(&p.image), q.weight = reference(&p.weight), q.result = reference(&p.result);
    constexpr int kWarps = cuda::kConvolutionThreads / 32;
    launch(p.op, "convolution_plain", std::string("convolution_plain_weight_") + cuda::short_name(p.weight.dtype),
           {ceil_div(p.weight.numel(), kWarps), cuda::kConvolutionThreads}, p.weight.device, q, "a warp for a number");
}

namespace {

// Rows of pixels and columns of channels, where the pixels of all images lie evenly; else `rows` is negative.
cuda::ColumnProblem as_columns(const TensorView& t) {
    cuda::ColumnProblem c;
    c.views[1] = &t;
    c.inputs = 1, c.type = t.dtype, c.device = t.device;
    c.columns = t.shape[1], c.column_stride[1] = t.stride[1];
    c.rows = 1;
    for (int d = t.ndim - 1; d >= 0; --d) {
        if (d == 1 || t.shape[d] == 1) continue;
        if (c.rows == 1)
            c.row_stride[1] = t.stride[d];
        else if (t.stride[d] != c.row_stride[1] * c.rows)
            return c.rows = -1, c;
        c.rows *= t.shape[d];
    }
    return c;
}

}  // namespace

}  // namespace nk::convolution::on_cuda

namespace nk::convolution {

void channel_sums_cuda(const ChannelSums& p) {
    using on_cuda::as_columns, on_cuda::launch, on_cuda::reference;
    const TensorView& t = p.t;
    if (t.stride[1] == 1) {
        if (const cuda::ColumnProblem c = as_columns(t); c.rows >= 0)
            return cuda::run_columns({p.op, "matmul_bias_backward", "matmul_column_sum"}, c, &p.sums, {0, {0, 0}});
    }
    cuda::ChannelSumsParams q;
    q.t = reference(&t);
    q.sums = p.sums.data, q.sums_step = p.sums.stride[0];
    q.channels = p.sums.shape[0], q.images = t.shape[0];
    q.count = t.shape[0];
    for (int d = 0; d < cuda::kSpatial; ++d) q.pixels[d] = t.shape[2 + d], q.count *= t.shape[2 + d];
    const plan::RowsPlan plan = plan::plan_rows(q.count, q.channels, false, cuda::multiprocessors(t.device));
    q.per_part = plan.per_part;
    Scratch scratch;
    if (plan.parts > 1) scratch = allocate_scratch(p.sums, plan.parts * q.channels * plan::compute_size(t.dtype));
    q.partial = scratch.data;
    launch(p.op, "convolution_plain", std::string("convolution_channel_sums_") + cuda::short_name(t.dtype),
           {q.channels, cuda::kConvolutionThreads, plan.parts}, t.device, q, concat(plan.parts, " parts of a channel"));
    if (q.partial != nullptr) cuda::finish_columns(p.op, p.sums, q.partial, q.channels, plan.parts);
}

}  // namespace nk::convolution
