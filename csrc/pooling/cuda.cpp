// Pooling on CUDA: a thread for each point of what is written, see kernels/cuda/pooling.
#include "context/context.h"
#include "driver/kernel.h"
#include "kernels/cuda/pooling/params.h"
#include "plan/arithmetic.h"
#include "pooling/problem.h"
#include "tensor/check.h"
#include "tensor/scratch.h"

namespace nk::pooling {

namespace {

using cuda::PoolParams;
using cuda::PoolPoints;
using cuda::PoolTensor;
using cuda::UnpoolParams;

PoolTensor tensor(const TensorView& t, int dims) {
    const Image i(t, dims);
    PoolTensor made;
    made.data = i.data;
    std::copy(i.stride, i.stride + 5, made.stride);
    return made;
}

PoolPoints points_of(const TensorView& t, int dims) {
    const Image i(t, dims);
    PoolPoints p;
    p.count = t.numel();
    p.channels = !i.is_dense(false);
    for (int d = 0; d < 5; ++d) {
        p.size[d] = i.size[d];
        if (p.count >> 31 == 0)
            p.divisor[d] = cuda::make_divisor(static_cast<uint32_t>(std::max<int64_t>(i.size[d], 1)));
    }
    return p;
}

template <class Params>
void launch(const char* op, const char* fatbin, const std::string& kernel, int64_t count, Device device,
            const Params& p) {
    // enough blocks to fill the device eight times; beyond that a thread has several points
    const int64_t blocks =
        std::min(plan::ceil_div(count, cuda::kPoolThreads), int64_t{64} * cuda::multiprocessors(device));
    if (trace::active())
        trace::record({op, "cuda", kernel, concat("points ", count, ", grid ", blocks, " x ", cuda::kPoolThreads), ""});
    cuda::launch(op, fatbin, kernel, blocks, 1, cuda::kPoolThreads, device, p);
}

PoolParams params_of(const Windowed& w, const TensorView& out, int dims) {
    PoolParams p;
    p.out = tensor(out, dims);
    p.points = points_of(out, dims);
    std::copy(w.dim, w.dim + 3, p.dim);
    p.include_pad = w.include_pad;
    p.divisor = w.divisor;
    p.norm = w.norm;
    p.full = static_cast<double>(w.dim[0].kernel * w.dim[1].kernel * w.dim[2].kernel);
    if (w.samples != nullptr) {
        p.samples = w.samples->data;
        std::copy(w.samples->stride, w.samples->stride + 3, p.sample_stride);
        // of two dims torch gives W the first number, and of three D
        for (int k = 0; k < 3; ++k) p.sample_of[k] = dims == 3 ? k : std::max(0, 2 - k) % 2;
    }
    return p;
}

std::string named(const char* kernel, DType type) { return std::string(kernel) + "_" + cuda::short_name(type); }

}  // namespace

void max_cuda(const char* op, const Windowed& w, const TensorView& y, const TensorView* indices, const TensorView& x) {
    if (y.numel() == 0) return;
    const int dims = dims_of(w.kind);
    PoolParams p = params_of(w, y, dims);
    p.in = tensor(x, dims);
    if (indices != nullptr) p.indices = tensor(*indices, dims), p.wide = indices->dtype == DType::i64;
    launch(op, "pooling_max", named("pool_max", y.dtype), p.points.count, y.device, p);
}

void max_backward_cuda(const char* op, const Windowed& w, const TensorView& gx, const TensorView& g,
                       const TensorView& indices) {
    if (gx.numel() == 0) return;
    const int dims = dims_of(w.kind);
    PoolParams p = params_of(w, gx, dims);
    p.gradient = tensor(g, dims);
    p.indices = tensor(indices, dims), p.wide = indices.dtype == DType::i64;
    launch(op, "pooling_max", named("pool_max_backward", gx.dtype), p.points.count, gx.device, p);
}

void average_cuda(const char* op, const Windowed& w, const TensorView& y, const TensorView& x) {
    if (y.numel() == 0) return;
    const int dims = dims_of(w.kind);
    PoolParams p = params_of(w, y, dims);
    p.in = tensor(x, dims);
    launch(op, "pooling_average", named("pool_average", y.dtype), p.points.count, y.device, p);
}

void average_backward_cuda(const char* op, const Windowed& w, const TensorView& gx, const TensorView& g,
                           const TensorView* x, const TensorView* y) {
    if (gx.numel() == 0) return;
    const int dims = dims_of(w.kind);
    PoolParams p = params_of(w, gx, dims);
    p.gradient = tensor(g, dims);
    if (x != nullptr) p.in = tensor(*x, dims);
    if (y != nullptr) p.result = tensor(*y, dims);
    launch(op, "pooling_average", named("pool_average_backward", gx.dtype), p.points.count, gx.device, p);
}

void unpool_cuda(const char* op, int dims, const TensorView& y, const TensorView& x, const TensorView& indices) {
    const Image small(x, dims), large(y, dims);
    UnpoolParams p;
    p.in = tensor(x, dims), p.out = tensor(y, dims), p.indices = tensor(indices, dims);
    p.places = large.inner();
    std::copy(small.size + 2, small.size + 5, p.size);
    if (y.numel() == 0) {
        if (x.numel() != 0)
            fail_runtime(op, "argument output_size has no place for the ", x.numel(), " elements of input");
        return;
    }
    const Scratch scratch = allocate_scratch(y, y.numel() * 8);
    p.winner = static_cast<unsigned long long*>(scratch.data);
    p.points = points_of(y, dims);
    launch(op, "pooling_unpool", "unpool_clear", p.points.count, y.device, p);
    if (x.numel() != 0) {
        UnpoolParams mark = p;
        mark.points = points_of(x, dims);
        launch(op, "pooling_unpool", "unpool_mark", mark.points.count, y.device, mark);
    }
    launch(op, "pooling_unpool", named("unpool_take", y.dtype), p.points.count, y.device, p);
}

void unpool_backward_cuda(const char* op, int dims, const TensorView& gx, const TensorView& g,
                          const TensorView& indices) {
    if (gx.numel() == 0) return;
    const Image large(g, dims);
    UnpoolParams p;
    p.out = tensor(gx, dims), p.in = tensor(g, dims), p.indices = tensor(indices, dims);
    p.points = points_of(gx, dims);
    p.places = large.inner();
    std::copy(large.size + 2, large.size + 5, p.size);
    launch(op, "pooling_unpool", named("unpool_backward", gx.dtype), p.points.count, gx.device, p);
}

}  // namespace nk::pooling
