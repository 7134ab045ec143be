// Random numbers by counters, the same on every backend (kernels/math/philox.h).
#include <algorithm>

#include "bindings.h"
#include "call/kernel_entry.h"
#include "call/run.h"
#include "cpu/elementwise.h"
#include "cpu/table.h"
#include "cpu/threads.h"
#include "driver/kernel.h"
#include "kernels/cuda/elementwise/params.h"
#include "plan/arithmetic.h"

namespace nk {

namespace {

constexpr double kCost = 1.0;  // nanoseconds an element

struct Counter {
    uint64_t seed, block, stream;
};

int64_t per_block(DType dtype) { return dtype == DType::f64 ? 2 : 4; }

void on_cpu(const TensorView& out, const Counter& c) {
    const int64_t n = out.numel(), steps = plan::ceil_div(n, cpu::kUniformStep);
    const auto kernel = cpu::table().elementwise.uniform[static_cast<int>(out.dtype)];
    const int threads = cpu::threads_for(n, kCost);
    run_on_cpu(
        "uniform", "philox", static_cast<double>(n) * kCost,
        [&] { return concat(cpu::name_of(cpu::table().level), ", ", threads, " threads"); },
        [&] {
            cpu::parallel(threads, [&](int tid, int count) {
                const int64_t begin = steps * tid / count * cpu::kUniformStep;
                const int64_t end = std::min(n, steps * (tid + 1) / count * cpu::kUniformStep);
                kernel({static_cast<char*>(out.data) + begin * size_of(out.dtype), end - begin, c.seed,
                        c.block + static_cast<uint64_t>(begin / per_block(out.dtype)), c.stream});
            });
        });
}

void on_cuda(const TensorView& out, const Counter& c) {
    cuda::UniformParams p;
    p.out = out.data, p.n = out.numel();
    p.seed = c.seed, p.block = c.block, p.stream = c.stream;
    const int64_t grid = plan::ceil_div(plan::ceil_div(p.n, per_block(out.dtype)), cuda::kElementwiseThreads);
    const std::string kernel = std::string("elementwise_uniform_") + cuda::short_name(out.dtype);
    if (trace::active()) trace::record({"uniform", "cuda", kernel, concat("grid ", grid), ""});
    cuda::launch("uniform", "elementwise_uniform", kernel, grid, 1, cuda::kElementwiseThreads, out.device, p);
}

py::object uniform(const Call& call, Input& like, int64_t seed, int64_t block, int64_t stream) {
    check_floating(like);
    Output y(call, "y", like, like->shape, like->ndim);
    const Counter c{static_cast<uint64_t>(seed), static_cast<uint64_t>(block), static_cast<uint64_t>(stream)};
    run(
        call, like->device, {y.object.ptr()},
        [&] {
            if (y->numel() != 0) on_cpu(y, c);
        },
        [&] {
            if (y->numel() != 0) on_cuda(y, c);
        });
    return y.object;
}

}  // namespace

void register_random(py::handle m) {
    def_entry<&uniform>(
        m, "uniform", "like seed block stream",
        "Numbers of [0, 1) by Philox4x32-10 under `seed`, from block `block` of `stream` on (four elements a "
        "block, two in float64), contiguous, with like's shape, dtype and device.");
}

}  // namespace nk
